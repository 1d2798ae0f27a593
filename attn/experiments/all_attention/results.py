"""What chapter 4 shows as tables and words: sizes of the paper's models, and what was found here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np
import torch

from attn.adaptive_span import soft_span_mask
from attn.experiments.adaptive_span.looks import counted, less, spread
from attn.experiments.adaptive_span.speed import PERSISTENT_LIMIT, layer_words
from attn.experiments.adaptive_span.tables import paper_model, printed_span
from attn.experiments.adaptive_span.texts import Reads, origin_words, texts_table
from attn.experiments.all_attention.claims import falling
from attn.experiments.all_attention.runs import (
    FROM_MAXIMUM,
    LABELS,
    LONG,
    SWEEP,
    VARIANTS,
    budgets,
    text_config,
)
from attn.experiments.all_attention.sizes import paper_sizes, span_sizes
from attn.reproduction.claims import t_interval
from attn.reproduction.facts import load_papers
from attn.reproduction.grid import Grid, Html, linked, plain
from attn.reproduction.records import Record
from attn.reproduction.speed import Speed
from attn.reproduction.speed_words import Figure, missed_words, variant

Records = Mapping[str, Sequence[Record]]  # by model
ADAPTIVE_SOFTMAX = "grave2017adaptivesoftmax"  # a paper that the chapter reads facts of
_CONTEXT = 12  # symbols shown before a place
# What stands beside the model with feed-forward layers.
_REPLACED = ("all", "same_depth", "equal_flops", "none", "deep_none")


def there(records: Records) -> dict[str, Sequence[Record]]:
    """Models with records."""
    return {name: found for name, found in records.items() if found}


# --- texts and sizes ---------------------------------------------------------------------------------------------


def data_table() -> Html:
    """What the runs of each task read, by profile."""
    facts = "generated text of facts to be remembered"
    return texts_table([
        Reads("letters", budgets("letters")),
        Reads("bytes", budgets("bytes")),
        Reads("words", budgets("words"), symbols="words", unit="bytes"),
        Reads("facts", budgets("facts"), generated=facts, symbols="parts of keys, and values"),
    ])  # fmt: skip


def sizes_table() -> Html:
    """The paper's models on text8, with the parameters of their parts and operations at the small model's mean span."""
    span = printed_span("small")
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
    span = printed_span("large")
    own_flops = text_config(budgets("bytes")["paper"], "large").model.flops(span)
    other_flops = paper_model("large").flops(span)
    return (
        f"The large models of table 1 have {own.total:,} and {other.total:,} parameters, so the one without "
        f"feed-forward layers has {own.total / other.total:.0%} as many; at a mean span of {span:g} it also needs "
        f"{own_flops / other_flops:.0%} as many multiply-adds."
    )


def adaptive_softmax_words() -> str:
    """What adaptive softmax costs and saves as its paper prints it, in a sentence from facts."""
    table = load_papers()[ADAPTIVE_SOFTMAX].table("table1_text8")
    own, full = (
        next(r for r in table.rows if r["model"] == name) for name in ("adaptive softmax", "full softmax")
    )
    return (
        f"On text8 by words, with a recurrent network, its paper prints a perplexity of {own['ppl']} after "
        f"{own['minutes']} minutes, where a full softmax has {full['ppl']} after {full['minutes']} ({table.checked})."
    )


# --- findings ---------------------------------------------------------------------------------------------------


def _mean(records: Sequence[Record], metric: str = "valid_bits") -> float:
    return fmean(record.metric(metric) for record in records)


def differences(records: Records, model: str, base: str, metric: str = "valid_bits") -> list[float]:
    """A metric of one model minus that of another, for each seed that both have."""
    own = {record.seed: record.metric(metric) for record in records.get(base, ())}
    return [
        record.metric(metric) - own[record.seed] for record in records.get(model, ()) if record.seed in own
    ]


def _pairs(found: Sequence[float]) -> str:
    return f"{counted(len(found), 'pair')} of the same seed"


def judged_words(records: Records) -> list[str]:
    """What can be judged at this budget and what cannot, by the two controls of most claims, in sentences."""
    removed, halved = differences(records, "none", "ff"), differences(records, "half", "all")
    lines = []
    if removed:
        so = (
            "more than the margin, beyond chance, so that what takes their place can be judged"
            if _shows([bits - margin() for bits in removed])
            else "not more than the margin, beyond chance, so that nothing that takes their place is judged"
        )
        lines.append(f"Attention alone costs {less(-fmean(removed))} than with feed-forward layers ({_pairs(removed)}): "
                     f"{so}. The margin is {margin():g} bits.")  # fmt: skip
    if halved:
        so = (
            "so small a difference shows beyond chance, and ways to join vectors and context can be judged"
            if _shows(halved)
            else "what half of the vectors are worth does not show beyond chance, so that differences between ways to "
            "join vectors and context, which are as small, are not judged"
        )
        lines.append(
            f"Half of the vectors cost {less(-fmean(halved))} than all of them ({_pairs(halved)}): {so}."
        )
    return lines or ["No records yet."]


def _shows(found: Sequence[float]) -> bool:
    """Whether differences of seeds lie above 0, beyond chance."""
    return len(found) > 1 and t_interval(found)[0] > 0


def replaced_words(records: Records) -> list[str]:
    """Feed-forward against all-attention at equal parameters and at equal operations, in sentences."""
    found = there(records)
    if "ff" not in found:
        return ["No records yet."]
    base = _mean(found["ff"])
    lines = [f"{LABELS['ff'].capitalize()}: {base:.3f} bits a symbol ({counted(len(found['ff']))})."]
    for name in _REPLACED:
        gained = differences(found, name, "ff")
        if not gained:
            continue
        rows = found[name]
        parameters = rows[0].data["run"]["parameters"] / found["ff"][0].data["run"]["parameters"]
        operations = _mean(rows, "flops") / _mean(found["ff"], "flops")
        lines.append(
            f"{LABELS[name].capitalize()}: {fmean(gained):+.3f} bits with {parameters:.0%} of the parameters and "
            f"{operations:.0%} of the operations ({_pairs(gained)})."
        )
    return [*lines, *_missing(found, _REPLACED)]


def gaps(records: Records, model: str, *, end: str = "") -> tuple[list[int], np.ndarray]:
    """What a model costs more than the one with feed-forward layers while they train.

    Args:
        records: by model.
        model: which one.
        end: ends the names of both models, as LONG.

    Returns:
        Updates [E] of the evaluations, and bits [seeds, E] minus those of the same seed; no seeds if there are no pairs.
    """
    base = {record.seed: record.history for record in records.get(f"ff{end}", ())}
    pairs = [
        (record.history, base[record.seed]) for record in records.get(model + end, ()) if record.seed in base
    ]
    found = [
        [one["bits_per_token"] - other["bits_per_token"] for one, other in zip(*pair, strict=True)]
        for pair in pairs
    ]
    return [entry["step"] for entry in pairs[0][0]] if pairs else [], np.array(found)


def updates_words(records: Records) -> list[str]:
    """How the cost of all-attention beside feed-forward layers moves with training, in sentences."""
    lines = []
    for end, start in (("", "All-attention"), (LONG, "With longer training, all-attention")):
        steps, found = gaps(records, "all", end=end)
        if not steps:
            lines.append("Longer training: not all records yet." if end else "No records yet.")
            continue
        mean = found.mean(axis=0)
        top = int(mean[1:].argmax()) + 1  # before the first update there is nothing to compare
        where = (
            "its worst evaluation"
            if top == len(steps) - 1
            else f"at its worst it is {_beside(mean[top])} them, after {steps[top]:,}"
        )
        lines.append(
            f"{start} is {_beside(mean[1])} feed-forward layers after {steps[1]:,} updates and {_beside(mean[-1])} them "
            f"at the end, after {steps[-1]:,}: {where} (means over {counted(len(found))})."
        )
    return lines


def _beside(bits: float) -> str:
    return f"{abs(bits):.3f} bits {'behind' if bits > 0 else 'ahead of'}"


def _missing(records: Records, names: Sequence[str]) -> list[str]:
    """Models of these that have no records, in a sentence, if there are any."""
    labels = [LABELS[name] for name in names if not records.get(name)]
    return [f"Not recorded yet: {'; '.join(labels)}."] if labels else []


def without_words(records: Records) -> list[str]:
    """What a model loses without feed-forward layers and vectors, and how much of it vectors win back, in sentences.

    Compared are runs with the same seed; both all-attention and attention alone have the same depth.
    """
    seeds = [{record.seed: record for record in records.get(name, ())} for name in ("ff", "none", "all")]
    common = sorted(set.intersection(*map(set, seeds)))
    if not common:
        return ["What is lost without either: not all records yet."]
    ff, none, vectors = ([runs[seed] for seed in common] for runs in seeds)
    base, lost = _mean(ff), _mean(none) - _mean(ff)
    learned = _mean(ff, "order1_bits") - base
    more = "more" if lost > 0 else "less"
    lines = [
        "With neither feed-forward layers nor vectors, a model as deep as the all-attention one costs "
        f"{abs(lost):.3f} bits a symbol {more} than the one with feed-forward layers: {abs(lost) / base:.1%} of its "
        f"{base:.3f} bits."
    ]
    if lost > 0 and learned > 0:
        lines.append(
            f"The print is said to show a collapse; here the loss is {lost / learned:.0%} of what the model with "
            "feed-forward layers gains on counts of pairs of symbols."
        )
    if lost > 0:
        lines.append(_won_back(ff, none, vectors))
    lines.append(_caveat(len(common)))
    return lines


def _won_back(ff: Sequence[Record], none: Sequence[Record], vectors: Sequence[Record]) -> str:
    back = _mean(none) - _mean(vectors)
    share = back / (_mean(none) - _mean(ff))
    by_seed = [
        one.metric("valid_bits") - other.metric("valid_bits")
        for one, other in zip(none, vectors, strict=True)
    ]
    spread = f" ({min(by_seed):.3f} to {max(by_seed):.3f} by seed)" if len(by_seed) > 1 else ""
    if back <= 0:
        return f"Persistent vectors win nothing of it back: they change it by {back:.3f} bits{spread}."
    return (
        f"Persistent vectors, at the same depth, win back {back:.3f} bits{spread}, {share:.0%} of the loss."
    )


def _caveat(n_seeds: int) -> str:
    if n_seeds == 1:
        return "This is one seed of each model: how much seeds differ is not known from it."
    return f"These are means over the {n_seeds} seeds that all three models have."


def sweep_words(records: Records) -> list[str]:
    """How bits fall with N."""
    found = there(records)
    if not all(name in found for name in SWEEP):
        return _missing(found, SWEEP)
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
        if gained := differences(found, name, "all"):
            fewer = found[name][0].data["run"]["parameters"] / base[0].data["run"]["parameters"]
            with_fewer = "" if fewer > 0.99 else f", with {fewer:.0%} of the parameters"
            lines.append(f"{LABELS[name]}: {fmean(gained):+.3f} bits{with_fewer} ({_pairs(gained)}).")
    if len(base) > 1:
        values = [record.metric("valid_bits") for record in base]
        lines.append(f"Seeds of one softmax lie {max(values) - min(values):.3f} bits apart.")
    return [*lines, *_missing(found, VARIANTS)]


def reliance_words(records: Records) -> list[str]:
    """How much weight vectors get, and what leaving them out costs: of a trained model, and from the start."""
    rows = records.get("all", ())
    if not rows:
        return ["No records yet."]
    mass, equal = _mean(rows, "persistent_mass"), equal_mass(rows)
    lost = _mean(rows, "valid_bits_without_vectors") - _mean(rows)
    side = "more" if mass > equal else "less"
    return [
        f"Persistent vectors get {mass:.0%} of the weight on average. That is {side} than chance: equal scores would "
        f"give them {equal:.0%}, {_vectors(rows)} vectors of a head standing beside the "
        f"{np.mean(list(map(_mask_sums, rows))):.1f} whole tokens that its mask adds up to on average.",
        f"Leaving them out of the trained models costs {lost:.2f} bits a symbol.",
        *_worth(rows, records.get("none", ())),
    ]


def equal_mass(rows: Sequence[Record]) -> float:
    """Share of the weight that the vectors would get if all scores were equal, mean over heads, layers and seeds."""
    return fmean(float((_vectors(rows) / (_vectors(rows) + _mask_sums(record))).mean()) for record in rows)


def _mask_sums(record: Record) -> np.ndarray:
    """What the mask of each head adds up to over the distances 1 to S, in tokens [layers, H].

    Recorded spans have the ramp in them and end at S: of one that does, the ramp is taken to end there.
    """
    model = record.data["config"]["model"]
    span = torch.as_tensor(record.artifact()["spans"]) - model["ramp_size"]
    distance = torch.arange(1, model["max_span"] + 1)
    return soft_span_mask(distance, span[..., None], model["ramp_size"]).sum(-1).numpy()


def _vectors(rows: Sequence[Record]) -> int:
    """N of a head."""
    return rows[0].data["config"]["model"]["n_persistent"]


def _worth(rows: Sequence[Record], without: Sequence[Record]) -> list[str]:
    """What vectors are worth where the other weights learn to do without them, beside what leaving them out costs."""
    lost = differences({"all": rows, "none": without}, "none", "all")
    if not lost:
        return ["What a model costs that was trained without them: no records of the same seeds yet."]
    return [
        f"That is not what they are worth. A model as deep that was trained without any costs {less(-fmean(lost))} "
        f"(mean over {_pairs(lost)}).",
        "The other weights of a model with vectors were trained beside them and stand, without them, where training "
        "never put them: the larger number says how much the model leans on its vectors, not what they add.",
    ]


def rate_words(records: Records) -> str:
    """That one learning rate serves all models, and what that leaves open, in a sentence."""
    found = there(records)
    rates = {record.data["config"]["training"]["lr"] for rows in found.values() for record in rows}
    if not rates:
        return "No records yet."
    used = ", ".join(f"{rate:g}" for rate in sorted(rates))
    shared = f"one learning rate, {used}" if len(rates) == 1 else f"learning rates of {used}"
    return (
        f"All of these models were trained with {shared}, without a recorded search: another rate may suit one kind "
        "better than the other, so part of the difference may be the rate's."
    )


def start_words(records: Records) -> list[str]:
    """The comparison once more with spans that start at the maximum, in sentences."""
    found = there(records)
    lines = []
    for name in ("ff", "all"):
        if gained := differences(found, f"{name}_from_max", name):
            start, top = found[name], found[f"{name}_from_max"]
            lines.append(
                f"{LABELS[name].capitalize()}: {fmean(gained):+.3f} bits where spans start at the maximum, "
                f"and a mean span of {_mean(top, 'mean_span'):.0f} in place of {_mean(start, 'mean_span'):.0f} symbols."
            )
    if len(lines) < 2:
        return ["Spans from the maximum: not all records yet."]
    pairs = [differences(found, f"all{end}", f"ff{end}") for end in ("", FROM_MAXIMUM)]
    if not all(pairs):
        return lines
    return [
        *lines,
        f"All-attention minus feed-forward: {fmean(pairs[0]):+.3f} bits from 0 ({_pairs(pairs[0])}), "
        f"{fmean(pairs[1]):+.3f} from the maximum ({_pairs(pairs[1])}).",
    ]


def baseline_table(task: str, records: Records) -> Html:
    """Models of table 1, 2 or 3 beside their baselines, at the same budget.

    Args:
        task: "letters", "bytes" or "words".
        records: of that task, by model.
    """
    per = "perplexity" if task == "words" else "bits"
    columns = ["Model", "Parameters", "Multiply-adds a token", f"Validation {per}", f"Test {per}", "Seeds"]
    grid = Grid(
        plain(
            "Models of the table and baselines, all trained at this budget; means and standard deviations over seeds"
        ),
        columns,
    )
    for name, rows in there(records).items():
        digits = 1 if task == "words" else 3
        costs = [spread(rows, f"{split}_{per}", digits) for split in ("valid", "test")]
        cells = [LABELS[name], f"{rows[0].data['run']['parameters']:,}", f"{_mean(rows, 'flops') / 1e6:.3g}M",
                 *costs, len(rows)]  # fmt: skip
        grid.add(list(map(plain, cells)))
    return grid.render() if grid.rows else Html('<p class="attn-note">No records yet.</p>', "No records yet.")


def tried_words(records: Records) -> list[str]:
    """What of the paper's main comparison did not come out at this budget, in sentences from records."""
    found = there(records)
    gap, whole = (differences(found, name, "ff") for name in ("all", "none"))
    if not gap or not whole:
        return ["Not all records yet."]
    lines = [
        f"The deeper all-attention model costs {less(-fmean(gap))} than the one with feed-forward layers "
        f"({_pairs(gap)}); up to {margin():g} more would count as at least as good.",
        f"Attention alone, as deep as the all-attention model, costs {less(-fmean(whole))} than the one with "
        f"feed-forward layers ({_pairs(whole)}): so much there is to be replaced at this budget.",
    ]
    if "all_from_max" not in found:
        lines.append("Longer spans, from the maximum, are configured and not recorded yet.")
    return lines


def speed_words() -> str:
    """What the benchmark's layer is, in sentences."""
    return f"{layer_words()} The limit is {PERSISTENT_LIMIT:,} tokens, and the cache is full."


def speed_missed(found: Sequence[Speed]) -> list[str]:
    """The figures of the benchmark that are not reached, in sentences."""
    return missed_words(found, "all_attention", {"time": _thin_products})


def _thin_products(figure: Figure) -> str:
    """Why vectors take longer than a feed-forward layer of as many multiplications, as a clause."""
    factors = []
    for row in figure.rows:
        ours = row["variants"][0]["seconds"]
        attention, layer = (variant(row, name)["seconds"] for name in ("attention", "feed-forward"))
        factors.append(f"{(ours - attention) / layer:.1f}")
    return (
        f"vectors add to attention {' and '.join(dict.fromkeys(factors))} times what a feed-forward layer of as many "
        "multiplications takes; matrix products are as narrow as a head, the backward pass computes the weights once "
        "more, and a token takes N exponentials in every head where that layer takes N maxima"
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
    """Where the most used vectors of some layers get most weight: the symbols up to the query, and whose text it is."""
    seed = "" if record is None else f", seed {record.seed}"
    grid = Grid(
        plain(f"Most used vectors and where they get most weight{seed}"),
        ["Vector", "Mean weight", "Symbols up to the query"],
    )
    grid.notes = [linked(origin_words(record))]
    kept = {} if record is None else record.artifact()
    if "top_places" in kept and "symbols" in kept:
        shares = kept["symbol_count"] / kept["symbol_count"].sum()
        row = len(kept["tokens"]) // record.data["config"]["evaluation_rows"]
        for layer in sorted({range(len(kept["top_head"]))[layer] for layer in layers}):
            for place in range(per_layer):
                head, vector = kept["top_head"][layer, place] + 1, kept["top_vector"][layer, place] + 1
                weight = float(kept["top_usage"][layer, place] @ shares)
                found = [_before(kept, position, row) for position in kept["top_places"][layer, place]]
                grid.add(
                    [
                        plain(f"layer {layer + 1}, head {head}, no. {vector}"),
                        plain(f"{weight:.2g}"),
                        plain(" | ".join(dict.fromkeys(found))),
                    ]
                )
    return grid.render()


def _before(kept: Mapping[str, np.ndarray], position: int, row: int) -> str:
    """The symbols up to a position; rows of `row` tokens follow each other, and know nothing of the one before."""
    start = max(position - position % row, position - _CONTEXT + 1)
    ids = kept["tokens"][start : position + 1]
    return bytes(kept["symbols"][ids]).decode("utf-8", "replace").replace(" ", "␣").replace("\n", "⏎")


def margin() -> float:
    """By how much all-attention may be worse and still count as at least as good, in bits."""
    return load_papers()["sukhbaatar2019allattn"].margins["at_least_as_good"]["value"]
