"""Figures of the Neural Turing Machine's chapter, drawn from records, traces and small tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attn.data.episodic import Episodes
from attn.evaluation.curves import running_median
from attn.experiments.ntm.runs import LABELS, MODELS, TRACE_LENGTH
from attn.reproduction.facts import FactTable
from attn.reproduction.figures import (
    COLOURS,
    SIGNED_MAP,
    bars,
    binary_image,
    figure,
    learning_curves,
    nothing_yet,
    weight_map,
)
from attn.reproduction.records import Record

SOLVED = 0.1  # bits per sequence
_FLOOR = 1e-3  # bits; costs below it are drawn at it, because the axis is logarithmic


def addressing_steps(steps: Mapping[str, Sequence[float]]) -> Figure:
    """The weighting of one head after each step of addressing (the paper's fig. 2), slot by slot."""
    drawing, axes = figure(1, len(steps), height=1.9, sharey=True)
    for index, (panel, (title, weights)) in enumerate(zip(axes, steps.items(), strict=True)):
        bars(panel, weights, title=title, xlabel="slot", ylabel="weight" if index == 0 else "")
        panel.set_ylim(0, 1)
    return drawing


def write_steps(memories: Mapping[str, np.ndarray]) -> Figure:
    """Memory matrices side by side, slots downwards, values written in."""
    drawing, axes = figure(1, len(memories), height=1.9)
    for panel, (title, memory) in zip(axes, memories.items(), strict=True):
        panel.imshow(memory, vmin=-1, vmax=1, cmap=SIGNED_MAP)
        for (slot, column), value in np.ndenumerate(memory):
            shade = "white" if abs(value) > 0.6 else "black"
            panel.text(column, slot, f"{value:.2f}", ha="center", va="center", fontsize=7, color=shade)
        panel.set(
            title=title, xticks=[], yticks=range(len(memory)), ylabel="slot" if panel is axes[0] else ""
        )
    return drawing


def episode(batch: Episodes) -> Figure:
    """Inputs and targets of a batch's first episode."""
    drawing, panels = figure(1, 2, height=1.6)
    binary_image(panels[0], batch.inputs[0], title="inputs: 8 bits, start and end marker", ylabel="channel")
    binary_image(panels[1], batch.targets[0], title="targets", ylabel="channel")
    for panel in panels:
        panel.set_xlabel("time step")
    return drawing


def copy_curves(records: Mapping[str, Sequence[Record]], printed: FactTable) -> Figure:
    """Learning curves of copy (fig. 3): every seed, medians, and the paper's plot readings as faint marks."""
    drawing, axes = figure(height=3.4)
    curves = {kind: [_curve(record) for record in rows] for kind, rows in records.items() if rows}
    if not curves:
        return nothing_yet(drawing)
    learning_curves(
        axes, curves, LABELS, xlabel="thousand sequences seen", ylabel="bits per sequence", threshold=SOLVED
    )
    last = max(points[-1][0] for seeds in curves.values() for points in seeds)
    for kind in (kind for kind in MODELS if kind in curves):
        marks = [(row["k"], row[kind]) for row in printed.rows if row["k"] <= last]
        axes.plot(*zip(*marks, strict=True), "x", color=COLOURS[kind], alpha=0.5, markersize=7)
    axes.plot([], [], "x", color=COLOURS["paper"], alpha=0.7, label="read off the paper's plot (about ±0.3)")
    axes.set_yscale("log")
    axes.legend(fontsize=8)
    return drawing


def _curve(record: Record) -> list[tuple[float, float]]:
    return [(entry["seen"] / 1000, max(entry["bits_per_sequence"], _FLOOR)) for entry in record.history]


def generalisation(records: Mapping[str, Sequence[Record]], lengths: Sequence[int], longest: int) -> Figure:
    """Cost per output bit over length, trained up to `longest`: every seed a mark, the median a line."""
    drawing, axes = figure(height=3.0)
    records = {kind: rows for kind, rows in records.items() if rows}
    if not records:
        return nothing_yet(drawing)
    for kind, rows in records.items():
        table = np.array(
            [[record.metric(f"bits_per_bit_at_{length}") for length in lengths] for record in rows]
        )
        table = table.clip(min=_FLOOR / 100)
        axes.plot(lengths, table.T, "o", color=COLOURS[kind], alpha=0.4, markersize=4)
        axes.plot(lengths, np.median(table, axis=0), color=COLOURS[kind], linewidth=2, label=LABELS[kind])
    axes.axhline(1, color=COLOURS["paper"], linestyle="--", linewidth=1)
    axes.text(
        0.99,
        0.97,
        "dashed: chance",
        transform=axes.transAxes,
        color="black",
        fontsize=8,
        ha="right",
        va="top",
    )
    axes.axvspan(min(lengths) - 1, longest, color=COLOURS["paper"], alpha=0.12, linewidth=0)
    axes.text(0.01, 0.97, "seen in training", transform=axes.transAxes, color="black", fontsize=8, va="top")
    axes.set_xscale("log", base=2)
    axes.set(
        yscale="log",
        xlabel="length (vectors)",
        ylabel="bits per output bit",
        xticks=lengths,
        xticklabels=lengths,
    )
    axes.legend()
    return drawing


def answers(records: Mapping[str, Sequence[Record]], lengths: Sequence[int]) -> Figure:
    """Targets, and what the first seed of each model answers, for several lengths (the paper's figs. 4 and 5)."""
    arrays = {kind: rows[0].artifact() for kind, rows in records.items() if rows}
    if not arrays:
        return nothing_yet(figure()[0])
    n_rows = 1 + len(arrays)
    ratios = [max(length, 12) for length in lengths]
    drawing, grid = figure(n_rows, len(lengths), height=0.95, width_ratios=ratios)
    first = next(iter(arrays.values()))
    for column, length in enumerate(lengths):
        _image(
            grid[0][column], first[f"targets_{length}"], f"length {length}", "target" if column == 0 else None
        )
        for row, (kind, kept) in enumerate(arrays.items(), start=1):
            name = LABELS[kind].replace(", ", "\n").replace(" controller", "") if column == 0 else None
            _image(grid[row][column], kept[f"outputs_{length}"], "", name)
    return drawing


def _image(axes: Axes, values: np.ndarray, title: str, name: str | None) -> None:
    binary_image(axes, values / 255, title=title)
    axes.set(xticks=[])
    if name:
        axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)


def copying_from_inside(records: Sequence[Record]) -> Figure:
    """One episode of the first seed's NTM (the paper's fig. 6): what comes in and out, what is written, and where."""
    if not records:
        return nothing_yet(figure()[0])
    arrays = records[0].artifact()
    drawing, grid = figure(3, 2, height=1.7, height_ratios=(1, 1.5, 2.2), sharex=True)
    answer = TRACE_LENGTH + 2
    binary_image(grid[0][0], arrays["trace_inputs"] / 255, title="inputs", ylabel="channel")
    binary_image(grid[0][1], arrays["trace_outputs"] / 255, title="outputs", ylabel="channel")
    for panel, name, title in (
        (grid[1][0], "trace_add", "add vectors"),
        (grid[1][1], "trace_reads", "read vectors"),
    ):
        panel.imshow(arrays[name].astype(float).T, vmin=-1, vmax=1, cmap=SIGNED_MAP)
        panel.set(title=title, ylabel="component", yticks=[])
    write, read = arrays["trace_write_weights"], arrays["trace_read_weights"]
    window, first = _used_slots(write, read)
    weight_map(grid[2][0], window(write), title="write weighting", first=first)
    weight_map(grid[2][1], window(read), title="read weighting", first=first)
    for panel in grid[:, 0]:
        panel.axvline(answer - 0.5, color=COLOURS["paper"], linestyle=":", linewidth=1)
    for panel in grid[:, 1]:
        panel.axvline(answer - 0.5, color=COLOURS["paper"], linestyle=":", linewidth=1)
    for panel in grid[-1]:
        panel.set_xlabel("time step (dotted: the answer begins)")
    return drawing


def _used_slots(*weightings: np.ndarray):
    """A function that cuts the slots in use out of a weighting, unrolled around the circle, and the first's number.

    Slots form a circle, and a model may use a stretch across its end; then numbers run on below 0.
    """
    used = np.max([weights.astype(float).max(axis=0) for weights in weightings], axis=0) > 0.1
    n_slots = len(used)
    if not used.any() or used.all():
        return (lambda weights: weights.astype(float)), 0
    gaps = [next(g for g in range(1, n_slots + 1) if used[(i + g) % n_slots]) for i in range(n_slots)]
    before = int(
        np.argmax([gap if used[i] else 0 for i, gap in enumerate(gaps)])
    )  # last used slot before the gap
    start = before + gaps[before] - 2
    width = n_slots - gaps[before] + 5  # two slots more on either side
    return (lambda weights: np.roll(weights.astype(float), -start, axis=1)[:, :width]), _signed(
        start, width, n_slots
    )


def _signed(start: int, width: int, n_slots: int) -> int:
    return start - n_slots if start + width > n_slots else start


def solved_line(records: Mapping[str, Sequence[Record]]) -> dict[str, tuple[int, int]]:
    """Seeds that solve the task (running median below `SOLVED`) and seeds in all, per model."""
    counts = {}
    for kind, rows in records.items():
        if not rows:
            continue
        medians = [
            running_median([entry["bits_per_sequence"] for entry in record.history]) for record in rows
        ]
        counts[kind] = (sum(min(values) < SOLVED for values in medians), len(rows))
    return counts
