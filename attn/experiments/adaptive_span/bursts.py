"""Bursts of a span's gradient: how large it gets where a key is hidden, and in which recorded runs it did."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, exp
from typing import Any, NamedTuple

import torch

from attn.adaptive_span import soft_span_mask
from attn.experiments.adaptive_span.claims import FAMILIES
from attn.experiments.adaptive_span.runs import PAPER, model_label
from attn.reproduction.facts import load_papers
from attn.reproduction.records import Record

_TIMES_CLIP = 100  # a mean norm that is so many times what it is clipped to counts as a burst


class Slope(NamedTuple):
    """A hidden key's weight, and its derivative by the span."""

    weight: float
    by_autograd: float
    by_formula: float


def hidden_slope(score: float, *, mask: float = 0.0, n_visible: int = 4, ramp_size: int = 32) -> Slope:
    """One key alone on the ramp, beside visible keys of score 0, in double precision.

    By the formula: with a the weight, da/dz = (1 - a) e^s / (R sum of m e^s); each other key on the ramp would take a
    times its own e^s / (R sum of m e^s) from that. Where m is 0 it is the derivative to the right, which `torch.clamp`
    has there.

    Args:
        score: s of the key on the ramp.
        mask: m of it, in [0, 1).
        n_visible: keys within the span.
        ramp_size: R in tokens.
    """
    span = torch.tensor(n_visible + 0.5, dtype=torch.float64, requires_grad=True)
    far = span.detach() + ramp_size * (1 - mask)
    distance = torch.cat([torch.arange(1, n_visible + 1, dtype=torch.float64), far[None]])
    scores = torch.tensor([0.0] * n_visible + [score], dtype=torch.float64)
    masked = soft_span_mask(distance, span, ramp_size) * scores.exp()
    weight = masked[-1] / masked.sum()
    (slope,) = torch.autograd.grad(weight, span)
    formula = (1 - weight.item()) * exp(score) / (ramp_size * masked.sum().item())
    return Slope(weight.item(), slope.item(), formula)


def burst_words(records: Sequence[Record]) -> list[str]:
    """How many runs had a burst, with learned spans and with fixed ones, and the run that it hurt most, in sentences."""
    kinds = {"learned": [], "fixed": []}
    for record in records:
        kinds["fixed" if record.data["config"]["model"]["span"] == "fixed" else "learned"].append(record)
    if not kinds["learned"]:
        return ["No records yet."]
    counts = {kind: f"{sum(map(_has_burst, rows))} of {len(rows)}" for kind, rows in kinds.items()}
    largest = max(_largest(record)["grad_norm"] for record in kinds["learned"])
    lines = [
        f"The norm of the whole gradient before clipping, a mean between two evaluations, was more than {_TIMES_CLIP} "
        f"times what it is clipped to in {counts['learned']} runs with learned spans and in {counts['fixed']} with "
        f"fixed ones. The largest was {largest:.1e}."
    ]
    burst_runs = [record for record in kinds["learned"] if _has_burst(record)]
    if burst_runs:
        hurt = max(burst_runs, key=_lost)
        burst, last = _largest(hurt), hurt.history[-1]
        lines.append(
            f"Of the {len(burst_runs)} runs with learned spans and a burst, {len(ruined(burst_runs))} ended more than "
            f"{_margin(hurt):g} bits above its own best evaluation. The {_named(hurt)}, ended farthest above: "
            f"{last['bits_per_token']:.2f} bits after {last['step']:,} updates, {_lost(hurt):.2f} above it. Its largest "
            f"mean norm, {burst['grad_norm']:.1e}, is that of the evaluation at {burst['step']:,}."
        )
    return lines


def ruined(records: Sequence[Record]) -> list[Record]:
    """Runs with a burst whose last evaluation lies above their best one by more than the margin of equal bits."""
    return [record for record in records if _has_burst(record) and _lost(record) > _margin(record)]


def ruined_words(records: Sequence[Record]) -> str:
    """Which runs these are, of some with records, in a sentence."""
    found = [
        f"{_named(record)}, at {record.metric('valid_bits'):.3f} bits, {_lost(record):.2f} above its own best evaluation"
        for record in ruined(records)
    ]
    if not records:
        return "Runs that a burst spoiled: no records yet."
    return f"Ended after a burst: {'; '.join(found)}." if found else "No run ended badly after a burst."


def clip_words(whole: Sequence[Record], each: Sequence[Record]) -> str:
    """How runs end whose tensors are clipped each by itself, beside those of the whole gradient, in a sentence."""
    if not whole or not each:
        return "The same model with each tensor clipped by itself: no records yet."
    sides = [
        f"{sum(map(_has_burst, rows))} of {len(rows)} runs had a burst{_up_to(rows)}, and the worst run ended "
        f"{max(map(_lost, rows)):.2f} bits above its own best evaluation"
        for rows in (whole, each)
    ]
    limit = whole[0].data["config"]["model"]["max_span"]
    return (
        f"Spans of a limit of {limit} tokens, with the norm of the whole gradient clipped: {sides[0]}. With each tensor "
        f"clipped by itself, nothing else changed: {sides[1]}.{_chance(whole, each)}"
    )


def _up_to(rows: Sequence[Record]) -> str:
    norms = [_largest(record)["grad_norm"] for record in rows if _has_burst(record)]
    return f" (mean norms of up to {max(norms):.1e})" if norms else ""


def _chance(whole: Sequence[Record], each: Sequence[Record]) -> str:
    """How often chance would put as many of all spoiled runs among the first ones, in a sentence; "" without any."""
    counts = [len(ruined(rows)) for rows in (whole, each)]
    n, spoiled, total = len(whole), sum(counts), len(whole) + len(each)
    if not spoiled:
        return ""
    ways = sum(comb(spoiled, k) * comb(total - spoiled, n - k) for k in range(counts[0], min(spoiled, n) + 1))
    return (
        f" Spoiled are {counts[0]} of {n} runs and {counts[1]} of {len(each)}: if clipping made no difference, chance "
        f"would put so many or more of them on the first side with a probability of {ways / comb(total, n):.2f}."
    )


def _named(record: Record) -> str:
    return f"{model_label(record.data['experiment'].split('/')[1])}, seed {record.seed}"


def _margin(record: Record) -> float:
    """By how much bits of this text may differ and still count as equal."""
    task = record.data["experiment"].split("/")[0]
    family = next(family for family in FAMILIES if family.task == task)
    return load_papers()[PAPER].margins[family.margin]["value"]


def _largest(record: Record) -> dict[str, Any]:
    """The evaluation before which the gradient was largest."""
    return max(record.history, key=lambda entry: entry.get("grad_norm") or 0)


def _has_burst(record: Record) -> bool:
    clipped = record.data["config"]["training"]["grad_clip_norm"]
    return (_largest(record).get("grad_norm") or 0) > _TIMES_CLIP * clipped


def _lost(record: Record) -> float:
    """Bits by which the last evaluation lies above the best one."""
    bits = [entry["bits_per_token"] for entry in record.history]
    return bits[-1] - min(bits)
