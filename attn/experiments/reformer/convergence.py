"""When a run of the duplication task had converged, and how to say so."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean, linear_regression

from attn.reproduction.records import Record

# Accuracies below this are called chance: it is 0.008, and noise of the conventions comes on top.
CHANCE = 0.05
# A run has converged when accuracy changes by less than this over the last fifth of its updates, along a straight line
# through its evaluations there, or through the last few of them where the fifth holds fewer.
SETTLED = 0.005
EVALUATIONS = 4


def rule_words() -> list[str]:
    """What is called converged, in a sentence."""
    return [
        "A run counts as converged where its accuracy in validation, with the attention of its training, has left "
        "chance and shows no trend over the last fifth of its updates, or over the last "
        f"{EVALUATIONS} evaluations where the fifth holds fewer: a line through them changes by less than "
        f"{100 * SETTLED:g} points, and they do not rise one after the other."
    ]


def has_converged(record: Record) -> bool:
    """Whether accuracy in validation left chance and shows no trend any more, as `rule_words` has it.

    With fewer evaluations than `EVALUATIONS` nothing is known, and a run counts as not converged.
    """
    accuracies = [entry["accuracy"] for entry in record.history]
    end = record.history[-1]["step"]
    count = max(EVALUATIONS, sum(5 * entry["step"] > 4 * end for entry in record.history))
    last = accuracies[-count:]
    if len(last) < EVALUATIONS or fmean(last) <= CHANCE:
        return False
    slope = linear_regression(range(count), last).slope
    is_rising = all(before < after for before, after in pairwise(last))
    return abs(slope) * (count - 1) < SETTLED and not is_rising


def converged_words(records: Sequence[Record]) -> str:
    """How many of the seeds had converged, and the others' updates."""
    late = [record for record in records if not has_converged(record)]
    if not late:
        return "converged"
    steps = span_of([record.data["run"]["steps"] for record in late])
    return f"not converged after {steps} updates: {len(late)} of {len(records)} seeds"


def span_of(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"
