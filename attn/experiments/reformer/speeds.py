"""What chapter 2 says of its benchmarks: the price of reversible layers and of chunks, where a line ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from attn.experiments.reformer.growth import (
    KEPT,
    REVERSED,
    benchmark_rows,
    benchmark_times,
    left_out,
    more_work,
    time_over_length,
)
from attn.reproduction.speed import HEAPS

Row = Mapping[str, Any]

# --- benchmarks.reversible ---------------------------------------------------------------------------------------

CHUNKED = f"{REVERSED}, feed-forward in 4 chunks"


def reversible_words(results: Path) -> list[str]:
    """Rows that the figure leaves out, and how much longer a reversible step takes, by heap, in sentences."""
    said = []
    for heap in HEAPS:
        times = benchmark_times(results, "reversible", heap).values()
        ratios = [f"{of[REVERSED] / of[KEPT]:.2f}" for of in times if {REVERSED, KEPT} <= of.keys()]
        if ratios:
            said.append(f"{' to '.join(dict.fromkeys((min(ratios), max(ratios))))} times ({heap} heap)")
    lines = left_out(results, "reversible", HEAPS)
    if not said:
        return [*lines, "Not measured yet."]
    return [
        *lines,
        f"A step with reversible layers takes {' and '.join(said)} as long as one that keeps its activations. Every "
        f"function is computed once more, which makes the operations {more_work():.2f} times as many.",
    ]


def chunk_words(results: Path) -> list[str]:
    """What chunks of the feed-forward layer change, in a sentence: time and peak of the benchmark's rows."""
    rows = [row for heap in HEAPS for row in benchmark_rows(results, "reversible", heap)]
    pairs = [(one, other) for row in rows for one, other in [_pair(row)] if one and other]
    if not pairs:
        return ["What chunks cost in time is not measured yet."]
    longer = [100 * (other["seconds"] / one["seconds"] - 1) for one, other in pairs]
    less = [100 * (1 - other["peak_bytes"] / one["peak_bytes"]) for one, other in pairs]
    return [
        f"In benchmarks/reversible.py, a step with {CHUNKED.partition(', ')[2].replace(' in ', ' layers in ')} takes "
        f"{_range(longer)} percent longer than one without, and holds {_range(less)} percent less at its peak "
        f"({len(pairs)} undisturbed rows, both heaps)."
    ]


def _pair(row: Row) -> tuple[Row | None, Row | None]:
    variants = {variant["name"]: variant for variant in row["variants"]}
    return variants.get(REVERSED), variants.get(CHUNKED)


def _range(values: Sequence[float]) -> str:
    """As "0 to 10", or one number where they round to the same."""
    return " to ".join(dict.fromkeys(f"{value:z.0f}" for value in (min(values), max(values))))


# --- benchmarks.lsh ----------------------------------------------------------------------------------------------


def end_words(results: Path) -> list[str]:
    """Where the line of full attention ends before those of hashing, and why, in a sentence; nothing if it does not."""
    ways = {way.name: way for way in time_over_length(results)}
    full = ways.pop("full, fused kernel", None)
    longest = max(chain.from_iterable(way.sizes for way in ways.values()), default=0)
    if full is None or full.sizes[-1] >= longest:
        return []
    seconds = full.values[-1] * full.sizes[-1] / 1e6
    return [
        f"Full attention was timed up to {full.sizes[-1]:,} tokens only, hashing up to {longest:,}: a call takes "
        f"{seconds:.1f} s there, and growing with the square of the length it would take "
        f"{seconds * (longest / full.sizes[-1]) ** 2:.0f} s at {longest:,}."
    ]
