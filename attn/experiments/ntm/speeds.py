"""What the benchmark of the Neural Turing Machine says, in words; every ratio is of one row of one run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attn.reproduction.speed import Speed, of_benchmark, reached
from attn.reproduction.speed_words import variant

BATCHED = "per step"  # the machine written step by step, with batched operations
SINGLE, MANY = "copy, batch 1", "copy, batch 64"
CHEAPER = 10  # times, on a GPU: what a sequence is to cost less in a batch of 64 than alone
Row = Mapping[str, Any]


def step_words(found: Sequence[Speed]) -> list[str]:
    """The ratios that have a figure to reach, beside those to the batched version; what a sequence costs in a batch."""
    results = of_benchmark(found, "ntm")
    if not results:
        return ["Speed of training: not measured yet."]
    return [line for result in results for line in _ratios(result)] + _batches(results)


def _ratios(result: Speed) -> list[str]:
    rows = [row for row in result.data["rows"] if row["goal"] and not row["disturbed"]]
    names = list(dict.fromkeys(row["name"] for row in rows))
    if not names:
        return []
    against = " or ".join(dict.fromkeys(row["goal"]["against"] for row in rows))
    lines = [
        f'On {_device(result)} a training step of "{against}" takes so many times as long as one of '
        f'"{rows[0]["variants"][0]["name"]}", and one of "{BATCHED}" so many:'
    ]
    return lines + [_of_row([row for row in rows if row["name"] == name]) for name in names]


def _of_row(rows: Sequence[Row]) -> str:
    """One row with every heap, the figure to reach, and what the batched version would make of it."""
    (figure,) = {row["goal"]["ratio"] for row in rows}
    judged = [variant(row, row["goal"]["against"]) for row in rows]
    met = all(reached(row, one) for row, one in zip(rows, judged, strict=True))
    batched = [variant(row, BATCHED)["ratio"] for row in rows]
    below = any(round(ratio, 2) < figure for ratio in batched)
    heaps = " and ".join(row["heap"] for row in rows)
    found, other = "reaches" if met else "is below", "would be below" if below else "would reach"
    return (
        f"{rows[0]['name']}: {_listed(one['ratio'] for one in judged)}, which {found} the figure of {figure:g}; "
        f"{_listed(batched)}, which {other} it ({heaps} heap)."
    )


def _batches(results: Sequence[Speed]) -> list[str]:
    """Rate of sequences in a large batch over that alone, by device; the figure is for a GPU."""
    lines, on_gpu = [], False
    for result in results:
        rates = {
            (row["name"], row["heap"]): row["variants"][0]["rate"]
            for row in result.data["rows"]
            if not row["disturbed"]
        }
        ratios = {
            heap: rates[MANY, heap] / rate
            for (name, heap), rate in rates.items()
            if name == SINGLE and (MANY, heap) in rates
        }
        if ratios:
            gpu = result.data["environment"]["device"] != "cpu"
            on_gpu |= gpu
            verdict = f", which {_verdict(ratios.values())} the figure of {CHEAPER}" if gpu else ""
            lines.append(
                f"In a batch of 64 a sequence takes {_listed(ratios.values())} times less time than alone on "
                f"{_device(result)} ({' and '.join(ratios)} heap){verdict}."
            )
    if not on_gpu:
        lines.append(f"On a GPU it is to take {CHEAPER} times less; no GPU has measured it yet.")
    return lines


def _verdict(ratios: Iterable[float]) -> str:
    return "reaches" if all(round(ratio, 2) >= CHEAPER for ratio in ratios) else "is below"


def _device(result: Speed) -> str:
    environment = result.data["environment"]
    return environment["cpu"] if environment["device"] == "cpu" else environment["device"]


def _listed(ratios: Iterable[float]) -> str:
    return " and ".join(f"{ratio:.2f}" for ratio in ratios)
