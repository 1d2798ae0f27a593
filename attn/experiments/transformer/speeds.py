"""Speed in chapter 1: what a cache is worth to a search, and how a recurrence grows beside attention."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import torch
from matplotlib.figure import Figure

from attn.experiments.transformer.complexity import ATTENTION, RECURRENT, build
from attn.reproduction.figures import figure, legend_below
from attn.reproduction.speed import Speed, of_benchmark

_LOOKS = {ATTENTION: ("#0072B2", "o", "-"), RECURRENT: ("#E69F00", "s", "--")}


def cache_words(found: Sequence[Speed]) -> str:
    """How many times faster a cache of keys and values makes both searches, from the stored benchmark, in a sentence."""
    results = of_benchmark(found, "decoding")
    if not results:
        return "Not measured yet."
    lines = []
    for row in results[0].data["rows"]:
        seconds = {variant["name"]: variant["seconds"] for variant in row["variants"]}
        gains = [
            f"{name} {seconds[f'{name}, no cache'] / seconds[name]:.1f} times"
            for name in seconds
            if f"{name}, no cache" in seconds
        ]
        lines.append(f"{row['name']}, {row['heap']} heap: {', '.join(gains)}")
    return f"With a cache of keys and values a search is faster ({'; '.join(lines)})."


def growth(
    lengths: Sequence[int] = (64, 128, 256, 512), *, d_model: int = 32, rounds: int = 3
) -> dict[str, list[float]]:
    """Seconds of a forward pass of attention and of a recurrence on one sequence of each length, on this machine.

    The least of some rounds, which other work disturbs least. The recurrence runs step by step in float64, so that no
    kernel fuses its steps.

    Args:
        lengths: n.
        d_model: d.
        rounds: calls of each.
    """
    return {
        kind: [_seconds(_call(kind, n, d_model), rounds) for n in lengths] for kind in (ATTENTION, RECURRENT)
    }


def _call(kind: str, seq_len: int, d_model: int) -> Callable[[], object]:
    layer = build(kind, d_model).double().eval()
    inputs = torch.randn(1, seq_len, d_model, dtype=torch.float64)
    return lambda: layer(inputs)


@torch.no_grad()
def _seconds(call: Callable[[], object], rounds: int) -> float:
    call()
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return min(taken)


def draw_growth(lengths: Sequence[int], seconds: Mapping[str, Sequence[float]]) -> Figure:
    """Milliseconds over n, as `growth` measures them."""
    drawing, axes = figure(width=4.6, height=2.6)
    for kind, times in seconds.items():
        colour, marker, line = _LOOKS[kind]
        axes.plot(lengths, [1e3 * t for t in times], line, color=colour, marker=marker, label=kind)
    axes.set_xscale("log", base=2)
    axes.set(yscale="log", xlabel="sequence length n", ylabel="milliseconds, this machine",
             xticks=lengths, xticklabels=lengths)  # fmt: skip
    legend_below(drawing, axes)
    return drawing
