"""Figures of chapter 2 on language models, and on time and memory; those of what is not recorded yet are None."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from attn.experiments.reformer.growth import Growth, exponent
from attn.experiments.reformer.text_results import context_bins
from attn.experiments.reformer.text_runs import LABELS
from attn.reproduction.figures import figure, learning_curves, legend_below
from attn.reproduction.records import Record

Records = Mapping[str, Sequence[Record]]  # by model

_PHONE = 4.6  # inches wide, so that a phone shows the words at their size
_COLOURS = {
    "standard": "#882255", "shared": "#0072B2", "reversible": "#009E73",
    "lsh8": "#332288", "lsh4": "#CC79A7", "lsh2": "#E69F00", "lsh1": "#D55E00",
}  # fmt: skip
_LINES = ("#882255", "#0072B2", "#009E73", "#E69F00", "#CC79A7", "#D55E00")
_MARKERS = "osD^vP*X"
_SHORT = {"shared": "full attention", **{f"lsh{n}": f"{n} round{'s' * (n > 1)}" for n in (8, 4, 2, 1)}}


def curves(records: Records, labels: Mapping[str, str] = LABELS) -> Figure | None:
    """Bits of the validation text over bytes seen, every seed and the median of each model."""
    there = {name: found for name, found in records.items() if found}
    if not there:
        return None
    drawing, axes = figure(width=_PHONE, height=3.2)
    colours = dict(zip(there, _LINES, strict=False)) | {n: c for n, c in _COLOURS.items() if n in there}
    seeds = {
        name: [[(e["seen"] / 1e6, e["bits_per_token"]) for e in record.history if e["step"]] for record in found]
        for name, found in there.items()
    }  # fmt: skip
    learning_curves(
        axes, seeds, labels, colours=colours, xlabel="bytes seen, millions", ylabel="validation bits per byte"
    )
    legend_below(drawing, axes, n_columns=1)
    return drawing


def rounds(records: Records) -> Figure | None:
    """Bits of the test text by what a model was trained and is evaluated with; every seed a mark."""
    there = {name: found for name, found in records.items() if found}
    if not there:
        return None
    drawing, axes = figure(width=_PHONE, height=3.0)
    columns = ["lsh1", "lsh2", "lsh4", "lsh8", "full"]
    for (name, found), marker in zip(there.items(), _MARKERS, strict=False):
        values = np.array([[record.metric(f"bits_{column}") for column in columns] for record in found])
        style = {"color": _COLOURS[name], "marker": marker, "markersize": 4}
        axes.plot(np.tile(range(len(columns)), len(found)), values.ravel(), linestyle="", alpha=0.5, **style)
        axes.plot(np.median(values, axis=0), label=f"trained with {_SHORT[name]}", **style)
    segments = next(iter(there.values()))[0].data["config"]["grid_segments"]
    axes.set(
        xticks=range(len(columns)), xticklabels=["1", "2", "4", "8", "full"],
        xlabel="evaluated with so many rounds of hashing, or full attention",
        ylabel=f"bits per byte, first {segments} test segments",
    )  # fmt: skip
    legend_below(drawing, axes)
    return drawing


def context(records: Records) -> Figure | None:
    """Bits by place in the segment, in bins that double: does more context help?"""
    there = {name: found for name, found in records.items() if found and found[0].artifact()}
    if not there:
        return None
    drawing, axes = figure(width=_PHONE, height=2.8)
    for (name, found), marker in zip(there.items(), _MARKERS, strict=False):
        bits = np.mean([record.artifact()["bits_by_position"] for record in found], axis=0)
        _, ends, means = zip(*context_bins(bits), strict=True)
        axes.plot(ends, means, color=_COLOURS[name], marker=marker, markersize=3, label=LABELS[name])
    axes.set_xscale("log", base=2)
    axes.set(xlabel="bytes from the start of the segment", ylabel="test bits per byte")
    legend_below(drawing, axes, n_columns=1)
    return drawing


# --- over length and depth -------------------------------------------------------------------------------------


def step_times(records: Records) -> Figure | None:
    """Seconds of a step over the length of its sequences, the tokens as many; every seed a mark, medians joined."""
    there = {name: found for name, found in records.items() if found}
    if not there:
        return None
    drawing, axes = figure(width=_PHONE, height=3.0)
    for (name, found), marker in zip(there.items(), _MARKERS, strict=False):
        config = found[0].data["config"]
        lengths = sorted(config["lengths"])
        seconds = [[record.metric(f"seconds_{length}") for length in lengths] for record in found]
        middle = [median(at) for at in zip(*seconds, strict=True)]
        style = {"color": _COLOURS[name], "marker": marker, "markersize": 4}
        for one in seconds:
            axes.plot(lengths, one, linestyle="", alpha=0.5, **style)
        said = _SHORT["shared"] if name == "standard" else f"LSH, {_SHORT[name]}"
        axes.plot(lengths, middle, label=f"{said}: length to the {exponent(lengths, middle):z.2f}", **style)
    tokens = config["tokens"]
    _powers_of_two(axes, lengths, [f"{length:,}\n× {tokens // length}" for length in lengths])
    axes.set(xlabel="length × sequences", ylabel="seconds a step")
    legend_below(drawing, axes, n_columns=1)
    return drawing


def growths(found: Sequence[Growth], *, xlabel: str, ylabel: str, scale: float = 1.0) -> Figure | None:
    """Several ways over sizes, both axes logarithmic, with the exponent of each in the legend."""
    if not found:
        return None
    drawing, axes = figure(width=_PHONE, height=2.8)
    # from broad to fine, so that a line that lies on another one hides nothing
    breadths = np.linspace(4, 1.2, len(found)) if len(found) > 1 else [1.5]
    for way, colour, marker, breadth in zip(found, _LINES, _MARKERS, breadths, strict=False):
        values = [value * scale for value in way.values]
        label = f"{way.name}: exponent {way.exponent:z.2f}"
        axes.plot(
            way.sizes,
            values,
            color=colour,
            marker=marker,
            linewidth=breadth,
            markersize=2.5 + breadth,
            label=label,
        )
    sizes = sorted({size for way in found for size in way.sizes})
    _powers_of_two(axes, sizes, [f"{size:,}" for size in sizes])
    axes.set(xlabel=xlabel, ylabel=ylabel)
    legend_below(drawing, axes, n_columns=1)
    return drawing


def _powers_of_two(axes, places: Sequence[int], labels: Sequence[str]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(places, labels, fontsize=8)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()


# --- buckets of a sentence -------------------------------------------------------------------------------------


def sentence(text: str, buckets: np.ndarray, *, width: int = 32) -> Figure:
    """Characters coloured by bucket, in lines of `width`; the most frequent buckets get colours, the others grey.

    Args:
        text: the characters [T].
        buckets: their bucket numbers [T].
        width: characters in a line.
    """
    numbers, counts = np.unique(buckets, return_counts=True)
    palette = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#D55E00", "#0072B2", "#AA99DD")
    frequent = numbers[np.argsort(-counts, kind="stable")][: len(palette)]
    colour_of = dict(zip(frequent.tolist(), palette, strict=False))
    n_lines = -(-len(text) // width)
    drawing, axes = figure(width=_PHONE, height=0.22 * n_lines + 0.2)
    for place, (character, bucket) in enumerate(zip(text, buckets.tolist(), strict=True)):
        line, column = divmod(place, width)
        colour = colour_of.get(bucket, "#E5E5E5")
        axes.add_patch(Rectangle((column, -line), 1, -1, color=colour, linewidth=0, alpha=0.75))
        shown = character if character.isprintable() else "·"
        axes.text(column + 0.5, -line - 0.55, shown, ha="center", va="center", fontsize=8, family="monospace")
    axes.set(xlim=(0, width), ylim=(-n_lines, 0))
    axes.set_axis_off()
    return drawing
