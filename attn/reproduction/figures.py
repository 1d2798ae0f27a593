"""Figures of the book: one palette and one style, and the kinds of picture that several chapters draw.

Every function takes data and axes and returns the axes; a figure holds what the record or tensor holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Colour-blind-safe colours of Okabe and Ito, and of Tol where those are used up; a mechanism keeps its colour through
# the whole book.
COLOURS = {
    "ntm_lstm": "#0072B2",
    "ntm_ff": "#009E73",
    "lstm": "#D55E00",
    "transformer": "#882255",
    "gru_attention": "#332288",
    "paper": "#767676",
}
# White for 0, black for 1.
WEIGHTS_MAP = "Greys"
SIGNED_MAP = "RdBu_r"

_STYLE = {
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.dpi": 144,
    "figure.dpi": 144,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "legend.frameon": False,
    "image.interpolation": "nearest",
    "image.aspect": "auto",
}


def use_style() -> None:
    """The book's style for all figures drawn from now on."""
    plt.rcParams.update(_STYLE)


def figure(
    n_rows: int = 1, n_columns: int = 1, *, height: float = 2.6, width: float = 7.2, **options: Any
) -> tuple[Figure, Any]:
    """A figure as wide as the page's text, in inches, with its axes."""
    return plt.subplots(n_rows, n_columns, figsize=(width, height * n_rows), layout="constrained", **options)


def learning_curves(
    axes: Axes,
    curves: Mapping[str, Sequence[Sequence[tuple[float, float]]]],
    labels: Mapping[str, str],
    *,
    xlabel: str,
    ylabel: str,
    threshold: float | None = None,
    notes: Mapping[str, str] | None = None,
    colours: Mapping[str, str] = COLOURS,
) -> Axes:
    """Every seed a thin line, the median on top.

    Args:
        axes: where to draw.
        curves: per colour key the seeds' curves, each a sequence of (x, y); the median is over x that all have.
        labels: legend text per key.
        xlabel, ylabel: with units.
        threshold: a dashed level, such as where a task counts as solved.
        notes: more for the legend of a key, such as the share of seeds that solve the task.
        colours: colour per key.
    """
    notes = notes or {}
    for key, seeds in curves.items():
        for points in seeds:
            axes.plot(*zip(*points, strict=True), color=colours[key], linewidth=0.6, alpha=0.45)
        by_x = [dict(points) for points in seeds]
        middle = [(x, median(at[x] for at in by_x)) for x in by_x[0] if all(x in at for at in by_x)]
        count = f"median of {len(seeds)} seeds" if len(seeds) > 1 else "1 seed"
        said = ", ".join([count, *([notes[key]] if key in notes else [])])
        axes.plot(
            *zip(*middle, strict=True), color=colours[key], linewidth=2, label=f"{labels[key]} ({said})"
        )
    if threshold is not None:
        axes.axhline(threshold, color=COLOURS["paper"], linestyle="--", linewidth=1)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.legend()
    return axes


def legend_below(drawing: Figure, axes: Axes, *, n_columns: int = 2) -> None:
    """The legend of `axes` below the whole figure, where it hides no curve."""
    if axes.get_legend():
        axes.get_legend().remove()
    drawing.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=n_columns, fontsize=8)


def binary_image(axes: Axes, values: np.ndarray, *, title: str, ylabel: str | None = None) -> Axes:
    """Vectors over time as an image: time to the right, one row a channel, 0 light and 1 dark.

    Args:
        axes: where to draw.
        values: in [0, 1] [T, channels].
        title: above the image.
        ylabel: name of the rows.
    """
    axes.imshow(np.asarray(values).T, vmin=0, vmax=1, cmap=WEIGHTS_MAP)
    axes.set(title=title, ylabel=ylabel or "", yticks=[])
    return axes


def weight_map(axes: Axes, weights: np.ndarray, *, title: str, ylabel: str = "slot", first: int = 0) -> Axes:
    """A weighting over time: time to the right, one row a slot.

    Args:
        axes: where to draw.
        weights: non-negative [T, slots].
        title: above the image.
        ylabel: name of the rows.
        first: number of the first slot shown.
    """
    weights = np.asarray(weights, dtype=float)
    extent = (-0.5, weights.shape[0] - 0.5, first + weights.shape[1] - 0.5, first - 0.5)
    axes.imshow(weights.T, vmin=0, vmax=1, cmap=WEIGHTS_MAP, extent=extent)
    axes.set(title=title, ylabel=ylabel)
    return axes


def bars(
    axes: Axes,
    values: np.ndarray,
    *,
    title: str,
    xlabel: str,
    ylabel: str = "weight",
    colour: str = "ntm_lstm",
) -> Axes:
    """One bar a slot, for weightings small enough to read off."""
    axes.bar(range(len(values)), np.asarray(values), color=COLOURS[colour], width=0.8)
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel, xticks=range(len(values)))
    return axes
