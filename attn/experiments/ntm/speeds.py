"""What the benchmark of the Neural Turing Machine says, in words; every ratio is of one row of one run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attn.reproduction.speed import Speed, of_benchmark
from attn.reproduction.speed_words import variant

BATCHED = "per step"  # the machine written step by step, with batched operations
SINGLE, MANY = "copy, batch 1", "copy, batch 64"
CHEAPER = 10  # times, on a GPU: what a sequence is to cost less in a batch of 64 than alone
Row = Mapping[str, Any]


def step_words(found: Sequence[Speed]) -> list[str]:
    """How much less time a training step takes than one of the other versions, and a sequence in a batch than alone."""
    results = of_benchmark(found, "ntm")
    if not results:
        return ["Speed of training: not measured yet."]
    return [line for result in results for line in _ratios(result)] + _batches(results)


def _ratios(result: Speed) -> list[str]:
    """One line a row that has a figure to reach; a range is over the settings of the allocator."""
    rows = [row for row in result.data["rows"] if row["goal"] and not row["disturbed"]]
    names = list(dict.fromkeys(row["name"] for row in rows))
    if not names:
        return []
    head = f"On {_device(result)} a training step takes so many times less time than one that also loops over the batch"
    lines = [_of_row([row for row in rows if row["name"] == name]) for name in names]
    settings = "; a range is over two settings of the memory allocator" if len(rows) > len(names) else ""
    return [f"{head}, and than one step by step with batched operations{settings}:", *lines]


def _of_row(rows: Sequence[Row]) -> str:
    """Both ratios of one row, and a word where the figure of the page Speed holds against loops over the batch alone."""
    (figure,) = {row["goal"]["ratio"] for row in rows}
    loops, batched = (
        [variant(row, name)["ratio"] for row in rows] for name in (rows[0]["goal"]["against"], BATCHED)
    )
    below = f"; the figure to reach, {figure:g}, is set against the first" if min(batched) < figure else ""
    return f"{rows[0]['name']}: {_range(loops)} and {_range(batched)} times{below}."


def _batches(results: Sequence[Speed]) -> list[str]:
    """Rate of sequences in a large batch over that alone, by device; the figure is for a GPU."""
    lines, on_gpu = [], False
    for result in results:
        rates = {
            (row["name"], row["heap"]): row["variants"][0]["rate"]
            for row in result.data["rows"]
            if not row["disturbed"]
        }
        ratios = [
            rates[MANY, heap] / rate
            for (name, heap), rate in rates.items()
            if name == SINGLE and (MANY, heap) in rates
        ]
        if ratios:
            gpu = result.data["environment"]["device"] != "cpu"
            on_gpu |= gpu
            verdict = f", which {_verdict(ratios)} the figure of {CHEAPER}" if gpu else ""
            lines.append(
                f"In a batch of 64 a sequence takes {_range(ratios)} times less time than alone on {_device(result)}"
                f"{verdict}."
            )
    return lines if on_gpu else [*lines, "Of a GPU there is no measurement yet."]


def _verdict(ratios: Iterable[float]) -> str:
    return "reaches" if all(round(ratio, 2) >= CHEAPER for ratio in ratios) else "is below"


def _device(result: Speed) -> str:
    environment = result.data["environment"]
    return environment["cpu"] if environment["device"] == "cpu" else environment["device"]


def _range(ratios: Iterable[float]) -> str:
    """As "15.9 to 22.2", or one number where both ends are written alike."""
    low, high = (f"{ratio:.3g}" for ratio in (min(ratios), max(ratios)))
    return low if low == high else f"{low} to {high}"
