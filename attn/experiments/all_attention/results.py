"""What chapter 4 shows as tables and words: sizes of the paper's models, and what was found here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np

from attn.adaptive_span import flops_per_step
from attn.experiments.all_attention.claims import falling
from attn.experiments.all_attention.runs import LABELS, SWEEP, VARIANTS, budgets, text_config
from attn.experiments.all_attention.sizes import paper_sizes, span_sizes
from attn.reproduction.facts import load_papers
from attn.reproduction.grid import Grid, Html, plain
from attn.reproduction.records import Record

Records = Mapping[str, Sequence[Record]]  # by model
_CONTEXT = 12  # symbols shown before a place


def there(records: Records) -> dict[str, Sequence[Record]]:
    """Models with records."""
    return {name: found for name, found in records.items() if found}


# --- sizes -----------------------------------------------------------------------------------------------------


def sizes_table(span: float = 314) -> Html:
    """The paper's models on text8, with the parameters of their parts and operations at a mean span."""
    columns = [
        "Model",
        "Layers",
        "Sub-layers",
        "Parameters",
        "of attention",
        "in place of feed-forward",
        "Multiply-adds",
    ]
    grid = Grid(
        plain(f"Models on text8; multiply-adds of one symbol at a mean span of {span:g}, in millions"),
        columns,
    )
    for name in ("ff", "all", "large"):
        config, found = text_config(budgets("letters")["paper"], name).model, paper_sizes("letters", name)
        per_layer = 2 if config.d_ff else 1
        replaced = found.feed_forward + found.persistent
        grid.add(
            [
                plain(LABELS[name]),
                plain(config.n_layers),
                plain(config.n_layers * per_layer),
                plain(f"{found.total:,}"),
                plain(f"{found.attention / found.total:.0%}"),
                plain(f"{replaced / found.total:.0%}"),
                plain(f"{config.flops(span) / 1e6:.1f}"),
            ]
        )
    return grid.render()


def half_words() -> str:
    """The two large models of table 1 in a sentence."""
    own, other = paper_sizes("bytes", "large"), span_sizes("bytes")
    own_flops = text_config(budgets("bytes")["paper"], "large").model.flops(245)
    other_flops = flops_per_step(n_layers=24, d_model=768, span=245, d_ff=4096)
    return (
        f"The large models of table 1 have {own.total:,} and {other.total:,} parameters, so the one without "
        f"feed-forward layers has {own.total / other.total:.0%} as many; at a mean span of 245 it also needs "
        f"{own_flops / other_flops:.0%} as many multiply-adds."
    )


# --- findings ---------------------------------------------------------------------------------------------------


def _mean(records: Sequence[Record], metric: str = "valid_bits") -> float:
    return fmean(record.metric(metric) for record in records)


def replaced_words(records: Records) -> list[str]:
    """Feed-forward against all-attention at equal parameters and at equal operations, in sentences."""
    found = there(records)
    if "ff" not in found:
        return ["No records yet."]
    base = _mean(found["ff"])
    lines = [f"{LABELS['ff'].capitalize()}: {base:.3f} bits a symbol ({_seeds(found['ff'])})."]
    for name in ("all", "same_depth", "equal_flops", "none", "deep_none"):
        if name not in found:
            continue
        rows = found[name]
        parameters = rows[0].data["run"]["parameters"] / found["ff"][0].data["run"]["parameters"]
        operations = _mean(rows, "flops") / _mean(found["ff"], "flops")
        lines.append(
            f"{LABELS[name].capitalize()}: {_mean(rows) - base:+.3f} bits with {parameters:.0%} of the parameters and "
            f"{operations:.0%} of the operations ({_seeds(rows)})."
        )
    return lines


def _seeds(records: Sequence[Record]) -> str:
    return f"{len(records)} seed{'' if len(records) == 1 else 's'}"


def sweep_words(records: Records) -> list[str]:
    """How bits fall with N."""
    found = there(records)
    if not all(name in found for name in SWEEP):
        return ["Not all records yet."]
    means = [_mean(found[name]) for name in SWEEP]
    numbers = [found[name][0].data["config"]["model"]["n_persistent"] for name in SWEEP]
    steps = ", ".join(
        f"{bits - before:+.3f} from {fewer:,} to {more:,}"
        for before, bits, fewer, more in zip(means, means[1:], numbers, numbers[1:], strict=False)
    )
    return [
        f"Mean bits a symbol change by {steps}.",
        f"Rank correlation of the means with N: {-falling(means):+.2f}.",
    ]


def variants_words(records: Records) -> list[str]:
    """The other ways to join them beside one softmax, and the spread of seeds."""
    found = there(records)
    if "all" not in found:
        return ["No records yet."]
    base = found["all"]
    lines = []
    for name in VARIANTS:
        if name in found:
            fewer = found[name][0].data["run"]["parameters"] / base[0].data["run"]["parameters"]
            with_fewer = "" if fewer > 0.99 else f", with {fewer:.0%} of the parameters"
            lines.append(f"{LABELS[name]}: {_mean(found[name]) - _mean(base):+.3f} bits{with_fewer}.")
    if len(base) > 1:
        values = [record.metric("valid_bits") for record in base]
        lines.append(f"Seeds of one softmax lie {max(values) - min(values):.3f} bits apart.")
    return lines


def reliance_words(records: Sequence[Record]) -> str:
    """How much weight vectors get, and what leaving them out costs."""
    if not records:
        return "No records yet."
    mass = _mean(records, "persistent_mass")
    lost = _mean(records, "valid_bits_without_vectors") - _mean(records)
    return (
        f"Persistent vectors get {mass:.0%} of the weight on average. Leaving them out of the trained models costs "
        f"{lost:.2f} bits a symbol."
    )


def spans_words(records: Records) -> str:
    """How far back heads look after so short a training."""
    found = there(records)
    if not found:
        return "No records yet."
    means = [_mean(rows, "mean_span") for rows in found.values()]
    longest = max(record.metric("longest_span") for rows in found.values() for record in rows)
    return (
        f"Mean spans of the models lie between {min(means):.1f} and {max(means):.1f} symbols, ramp included, and the "
        f"longest span of any head is {longest:.0f}."
    )


def contexts_table(record: Record | None, *, layers: Sequence[int] = (0, -1), per_layer: int = 4) -> Html:
    """Where the most used vectors of some layers get most weight: the symbols up to the query."""
    grid = Grid(
        plain("Most used vectors and where they get most weight"),
        ["Vector", "Mean weight", "Symbols up to the query"],
    )
    kept = {} if record is None else record.artifact()
    if "top_places" in kept and "symbols" in kept:
        shares = kept["symbol_count"] / kept["symbol_count"].sum()
        for layer in sorted({range(len(kept["top_head"]))[layer] for layer in layers}):
            for place in range(per_layer):
                head, vector = kept["top_head"][layer, place] + 1, kept["top_vector"][layer, place] + 1
                weight = float(kept["top_usage"][layer, place] @ shares)
                found = [_before(kept, position) for position in kept["top_places"][layer, place]]
                grid.add(
                    [
                        plain(f"layer {layer + 1}, head {head}, no. {vector}"),
                        plain(f"{weight:.2g}"),
                        plain(" | ".join(dict.fromkeys(found))),
                    ]
                )
    return grid.render()


def _before(kept: Mapping[str, np.ndarray], position: int) -> str:
    ids = kept["tokens"][max(0, position - _CONTEXT + 1) : position + 1]
    return bytes(kept["symbols"][ids]).decode("utf-8", "replace").replace(" ", "␣").replace("\n", "⏎")


def margin() -> float:
    """By how much all-attention may be worse and still count as at least as good, in bits."""
    return load_papers()["sukhbaatar2019allattn"].margins["at_least_as_good"]["value"]
