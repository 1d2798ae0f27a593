"""Reading learning curves: when a task counts as solved, and how fast it was learned.

A history is a list of entries with `seen` (sequences) and `bits_per_sequence`, in order.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

# Training has late transient spikes, so that "solved" looks at this many evaluations, not at one.
SOLVED_WINDOW = 5


def running_median(values: Sequence[float], window: int = SOLVED_WINDOW) -> list[float]:
    """Median of the last `window` values at each position; infinite before there are so many."""
    return [
        statistics.median(values[i + 1 - window : i + 1]) if i + 1 >= window else math.inf
        for i in range(len(values))
    ]


def solved_at(history: Sequence[Mapping[str, Any]], threshold: float) -> float | None:
    """Sequences seen when the running median of bits per sequence first fell below `threshold`, or None."""
    medians = running_median([entry["bits_per_sequence"] for entry in history])
    return next(
        (entry["seen"] for entry, median in zip(history, medians, strict=True) if median < threshold), None
    )


def curve_area(history: Sequence[Mapping[str, Any]]) -> float:
    """Mean bits per sequence over the learning curve, weighted by sequences (trapezoids)."""
    if len(history) < 2:
        raise ValueError(f"history must have at least 2 entries to span an area; got {len(history)}")
    seen = [entry["seen"] for entry in history]
    bits = [entry["bits_per_sequence"] for entry in history]
    pieces = [(b - a) * (x + y) / 2 for a, b, x, y in zip(seen, seen[1:], bits, bits[1:], strict=False)]
    return sum(pieces) / (seen[-1] - seen[0])
