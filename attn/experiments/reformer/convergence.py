"""When a run of the duplication task had converged, and how to say so."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from attn.reproduction.records import Record

# Accuracies below this are called chance: it is 0.008, and noise of the conventions comes on top.
CHANCE = 0.05
# A run has converged when accuracy changes by less than this over the last fifth of its updates.
_SETTLED = 0.005


def has_converged(record: Record) -> bool:
    """Whether accuracy in validation left chance and has stopped moving.

    Its means over the two halves of the last fifth of the updates differ by less than half a point.
    """
    end = record.history[-1]["step"]
    last = [entry["accuracy"] for entry in record.history if 5 * entry["step"] > 4 * end]
    first, second = last[: len(last) // 2], last[len(last) // 2 :]
    return bool(first) and fmean(second) > CHANCE and abs(fmean(second) - fmean(first)) < _SETTLED


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
