"""How far back heads of trained models look, and where their spans come to rest, in sentences from records."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev

import numpy as np

from attn.data.language_text import GENERATED
from attn.experiments.adaptive_span.bursts import ruined
from attn.experiments.adaptive_span.claims import upper_minus_lower
from attn.experiments.adaptive_span.copies import CopiesConfig
from attn.experiments.adaptive_span.figures import best, by_kind_and_limit, limit_of, on_marked
from attn.experiments.adaptive_span.runs import budgets, span_config
from attn.reproduction.records import Record

Records = Sequence[Record]
NONE = "No records yet."
STARTS = {"adaptive": "from 0", "from_max": "from the maximum", "dynamic": "with dynamic spans"}


def drawn_words(records: Records) -> str:
    """Which of some runs a figure of one run shows, in a sentence."""
    record = best(records)
    return NONE if record is None else f"Drawn is seed {record.seed}, the one that ends at the fewest bits."


def counted(n: int, what: str = "seed") -> str:
    """As "1 seed" and "3 seeds"."""
    return f"{n} {what}{'' if n == 1 else 's'}"


def less(gain: float) -> str:
    """A gain in bits as what a model costs less or more."""
    return f"{abs(gain):.3f} bits {'less' if gain >= 0 else 'more'}"


def spread(records: Records, metric: str, digits: int = 3) -> str:
    """Mean over seeds, and of several their standard deviation."""
    values = [record.metric(metric) for record in records]
    more = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{more}"


# --- fixed spans ---------------------------------------------------------------------------------------------


def near_and_far(records: Records, short: Records) -> list[str]:
    """How far back layers and heads of a model with fixed spans look, and what the span is worth to it, in sentences.

    Args:
        records: of that model.
        short: of the same model with the control's short span.
    """
    if not records:
        return [NONE]
    means = np.stack([record.artifact()["attention_distance"] for record in records])  # [seeds, layers, H]
    limit, seeds = limit_of(records[0]), counted(len(records))
    layers = ", ".join(f"{mean:.0f}" for mean in means.mean((0, 2)))
    near, far = (f"{ends.min():.0f} to {ends.max():.0f}" for ends in (means.min((1, 2)), means.max((1, 2))))
    rising = sum(upper_minus_lower(one) > 0 for one in means)
    return [
        f"With a fixed span of {limit} tokens, layers look {layers} tokens back, from the input up, means over heads "
        f"and {seeds}. The nearest looking head of a seed looks {near} tokens back, the farthest looking one {far}; "
        f"equal weight on all would give {(limit + 1) / 2:.0f}.{_useful(records[0])}",
        f"The upper half of the layers looks farther back than the lower half in {rising} of {seeds}; in the paper's "
        "figure 4 it is the upper layers that have long spans.",
        *_worth(records, short),
    ]


def _worth(records: Records, short: Records) -> list[str]:
    """Whether a model gains anything from its span: if not, where it looks is not where it pays to look."""
    costs = {record.seed: record.metric("valid_bits") for record in short}
    gains = [costs[r.seed] - r.metric("valid_bits") for r in records if r.seed in costs]
    if not gains:
        return []
    nothing = ": this model gains nothing from its span, and where it looks is not where it would pay to look"
    return [
        f"It costs {less(fmean(gains))} than with a span of {limit_of(short[0])} "
        f"({counted(len(gains), 'pair')} of the same seed){'' if fmean(gains) > 0 else nothing}."
    ]


def _useful(record: Record) -> str:
    """On a text where that is known, how far back a letter lies at most that helps."""
    if record.data["config"]["text"]["corpus"] != GENERATED:
        return ""
    return f" The farthest letter that helps lies {copies_config().reach} tokens back."


def copies_config() -> CopiesConfig:
    """A run of the book on generated text: all have the same text."""
    budget = budgets("copies")["cpu"]
    return span_config("copies", budget, next(iter(budget["models"])))


def copy_distances() -> list[int]:
    """How many tokens back the next letter of a copy lies, on the generated text."""
    source = copies_config().source
    return [blocks * source.block_length - 1 for blocks in source.distances]


def copies_heads_words(records: Records) -> str:
    """How much of the weight of each layer, and of each head, lies where copies are, in the best run, in sentences."""
    record = best(records)
    if record is None:
        return NONE
    held = on_marked(record, copy_distances())  # [layers, H]
    reach = record.artifact()["attention_by_distance"].shape[-1]
    n_marked = sum(distance <= reach for distance in copy_distances())
    found = ", ".join(
        f"{layer.mean():.0%} in layer {i} ({layer.min():.0%} to {layer.max():.0%} by head)"
        for i, layer in enumerate(held, 1)
    )
    return (
        f"{drawn_words(records)} The {n_marked} marked distances get {found} of the weight; equal weight on all {reach} "
        f"would give {n_marked / reach:.1%}. The head that stands on them most is "
        f"{_place(np.unravel_index(held.argmax(), held.shape))}, the one that does least "
        f"{_place(np.unravel_index(held.argmin(), held.shape))}."
    )


def _place(at: tuple[int, ...]) -> str:
    return f"head {at[1] + 1} of layer {at[0] + 1}"


# --- learned spans -------------------------------------------------------------------------------------------


def moved_words(records: Records) -> list[str]:
    """Whether learned spans still move after the first evaluation in training, by start and limit, in sentences."""
    said, moved, steps = [], {}, ()
    for kind, rows in by_kind_and_limit(records).items():
        pairs = {limit: _first_and_last(runs) for limit, runs in rows.items() if kind != "fixed"}
        if pairs:
            spans = ", ".join(
                f"{first:.1f} and {last:.1f} (S = {limit})" for limit, (first, last) in pairs.items()
            )
            said.append(f"{STARTS[kind]}, {spans}")
            moved[kind] = max(abs(last - first) for first, last in pairs.values())
            history = next(iter(rows.values()))[0].history
            steps = history[1]["step"], history[-1]["step"]
    if not said:
        return [NONE]
    most = ", ".join(f"{tokens:.1f} tokens {STARTS[kind]}" for kind, tokens in moved.items())
    return [
        f"Mean spans after {steps[0]:,} updates and at the end, after {steps[1]:,}: {'; '.join(said)}.",
        f"Between these two a mean moved by at most {most}.",
    ]


def _first_and_last(runs: Records) -> tuple[float, float]:
    """Mean spans over seeds at the first evaluation in training, and at the last."""
    first, last = (fmean(record.history[at]["mean_span"] for record in runs) for at in (1, -1))
    return first, last


def short_words(records: Records) -> list[str]:
    """Which copies spans from 0 end short of at the smallest limit, and what it costs not to reach them, in sentences.

    Args:
        records: of generated text; runs that a burst spoiled are left out.
    """
    found = by_kind_and_limit(records).get("adaptive", {})
    runs = [record for rows in found.values() for record in rows if record not in ruined(records)]
    if not runs:
        return [f"Spans from 0 on generated text: {NONE.lower()}"]
    smallest = min(found)
    longest = [record.metric("longest_span") for record in found[smallest]]
    beyond = [str(distance) for distance in copy_distances() if distance > max(longest)]
    far = max(distance for distance in copy_distances() if distance <= smallest)
    return [
        f"Spans from 0 with a limit of {smallest}: the longest of a run ends at {min(longest):.0f} to "
        f"{max(longest):.0f} tokens ({counted(len(longest))}); copies that lie farther back than any of them: "
        f"{' and '.join(beyond) or 'none'} tokens.",
        _reaching(runs, far),
    ]


def _reaching(runs: Records, far: int) -> str:
    """What runs cost whose longest span reaches a copy, and the others."""
    reaching = [record.metric("longest_span") >= far for record in runs]
    parts = [
        f"{counted(len(bits), 'run')} with a longest span {side} {far} tokens end at {fmean(bits):.3f} bits"
        for side, does in (("of at least", True), ("below", False))
        if (
            bits := [
                r.metric("valid_bits") for r, reaches in zip(runs, reaching, strict=True) if reaches == does
            ]
        )
    ]
    return f"Of all limits, without runs that a burst spoiled: {'; '.join(parts)} on average."
