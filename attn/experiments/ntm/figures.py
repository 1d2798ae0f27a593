"""Figures of the Neural Turing Machine's chapter, drawn from records and small tensors; see also `inside`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attn.data.episodic import Episodes
from attn.evaluation.curves import solved_at
from attn.experiments.ntm.runs import LABELS
from attn.experiments.ntm.tables import answer_cost, solved_below
from attn.experiments.ntm.workloads import MODELS
from attn.reproduction.facts import FactTable
from attn.reproduction.figures import (
    COLOURS,
    SIGNED_MAP,
    bars,
    binary_image,
    figure,
    learning_curves,
    legend_below,
    nothing_yet,
)
from attn.reproduction.records import Record

Records = Mapping[str, Sequence[Record]]  # by kind of model

_FLOOR = 1e-3  # bits; costs below it are drawn at it, because the axis is logarithmic
_NAMES = {"ntm_lstm": "NTM,\nLSTM", "ntm_ff": "NTM,\nfeed-forward", "lstm": "LSTM"}  # beside images
_OTHER = "#000000"  # the second setting of one model, beside its own colour


# --- small tensors ------------------------------------------------------------------------------------------


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


def episode(batch: Episodes, channels: str) -> Figure:
    """Inputs and targets of a batch's first episode; `channels` says what the inputs are, from the top."""
    drawing, panels = figure(1, 2, height=1.6)
    binary_image(panels[0], batch.inputs[0], title=f"inputs: {channels}", ylabel="channel")
    binary_image(panels[1], batch.targets[0], title="targets", ylabel="channel")
    for panel in panels:
        panel.set_xlabel("time step")
    return drawing


# --- learning curves ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CurveStyle:
    """How the learning curves of a task are drawn.

    Attributes:
        scale: of the cost axis, log where the solved and the unsolved differ by orders of magnitude.
        reading: what must be known of the marks read off the paper's plot.
    """

    scale: str = "linear"
    reading: str = "read off the paper's plot"


CURVES = {
    "copy": CurveStyle(scale="log", reading="read off the paper's plot (about ±0.3)"),
    "repeat_copy": CurveStyle(scale="log", reading="read off the paper's plot (5 means near 0)"),
    "associative": CurveStyle(),
    "ngrams": CurveStyle(),
    "priority_sort": CurveStyle(),
}


def curves(task: str, records: Records, printed: FactTable) -> Figure:
    """Learning curves of a task (figs. 3, 7, 10, 13, 18): every seed, medians, the paper's readings as faint marks.

    Args:
        task: a key of `CURVES`.
        records: runs of each model on the task.
        printed: what was read off the paper's plot, `k` in thousand sequences.
    """
    records = _there(records)
    drawing, axes = figure(height=3.7)
    if not records:
        return nothing_yet(drawing)
    _draw_curves(axes, task, records, LABELS)
    _paper_marks(axes, printed, records, CURVES[task].reading, until=_last_seen(records))
    if task == "ngrams":
        _reference_levels(axes, records)
    _updates_above(axes, records)
    legend_below(drawing, axes)
    return drawing


def batch_1(task: str, one: Sequence[Record], many: Sequence[Record]) -> Figure:
    """Cost of one model over sequences and over updates: trained one sequence an update, and several.

    Args:
        task: a key of `CURVES`.
        one: runs with one sequence an update.
        many: runs with several.
    """
    records = _there({"one": one, "many": many})
    drawing, panels = figure(1, 2, height=2.9, sharey=True)
    if not records:
        return nothing_yet(drawing)
    labels = {kind: _setting(rows[0]) for kind, rows in records.items()}
    for panel, unit in zip(panels, ("seen", "step"), strict=True):
        _draw_curves(panel, task, records, labels, unit=unit)
        panel.get_legend().remove()
    panels[0].set_xlim(0, _last_seen({"one": one} if one else records))
    panels[1].set(xscale="log", ylabel="")
    panels[1].xaxis.set_major_formatter(_plain)
    legend_below(drawing, panels[0], n_columns=1)
    return drawing


def _plain(value: float, place: int) -> str:
    """0.00001 as that, for ticks of logarithmic axes."""
    return np.format_float_positional(value, trim="-")


def _there(records: Records) -> dict[str, Sequence[Record]]:
    """Models that have records."""
    return {kind: rows for kind, rows in records.items() if rows}


_COLOURS = COLOURS | {"many": COLOURS["ntm_lstm"], "one": _OTHER}
_UNITS = {"seen": "thousand sequences seen", "step": "thousand updates"}


def _draw_curves(
    axes: Axes, task: str, records: Records, labels: Mapping[str, str], *, unit: str = "seen"
) -> None:
    scale, solved = CURVES[task].scale, solved_below(task)
    first = 1 if unit == "step" else 0  # updates are on a logarithmic axis, which has no 0
    points = {
        kind: [_curve(record, unit, scale)[first:] for record in rows] for kind, rows in records.items()
    }
    learning_curves(
        axes, points, labels, xlabel=_UNITS[unit], ylabel="bits per sequence", colours=_COLOURS,
        notes={kind: _share_solved(rows, solved) for kind, rows in records.items()} if solved else None,
    )  # fmt: skip
    if scale == "linear":
        axes.set_ylim(bottom=0)
        return
    label = f"solved below {solved:g}"
    axes.axhline(solved, color=COLOURS["paper"], linestyle="--", linewidth=1, label=label)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(_plain)


def _share_solved(rows: Sequence[Record], level: float) -> str:
    solved = sum(solved_at(record.history, level) is not None for record in rows)
    return f"{solved} of {len(rows)} solve it"


def _curve(record: Record, unit: str, scale: str) -> list[tuple[float, float]]:
    least = _FLOOR if scale == "log" else 0.0
    return [(entry[unit] / 1000, max(entry["bits_per_sequence"], least)) for entry in record.history]


def _last_seen(records: Records) -> float:
    """Thousand sequences of the longest run."""
    return max(record.history[-1]["seen"] for rows in records.values() for record in rows) / 1000


def _paper_marks(
    axes: Axes, printed: FactTable, kinds: Records, label: str, *, until: float = np.inf
) -> None:
    for kind in (kind for kind in MODELS if kind in kinds):
        marks = [(row["k"], row[kind]) for row in printed.rows if row["k"] <= until]
        x, y = zip(*marks, strict=True) if marks else ((), ())
        axes.plot(x, y, "x", color=COLOURS[kind], alpha=0.6, markersize=7, clip_on=False)
    axes.plot([], [], "x", color=COLOURS["paper"], label=label)


def _reference_levels(axes: Axes, records: Records) -> None:
    """What the best predictors cost, with and without context; the axis keeps to what lies near."""
    record = next(iter(records.values()))[0]
    optimal = record.metric("optimal_bits_per_sequence")
    free = record.metric("context_free_bits_per_sequence")
    axes.axhline(optimal, color="black", linewidth=1, label=f"optimal estimator ({optimal:.1f})")
    axes.axhline(free, color="black", linewidth=1, linestyle=":", label=f"best without context ({free:.1f})")
    ends = [record.history[-1]["bits_per_sequence"] for rows in records.values() for record in rows]
    axes.set_ylim(optimal - 3, 1.03 * max(free, *ends))


def _updates_above(axes: Axes, records: Records) -> None:
    """A second axis in updates, if all runs have the same batch size."""
    sizes = {_training(record)["batch_size"] for rows in records.values() for record in rows}
    if len(sizes) > 1:
        return
    (size,) = sizes
    above = axes.secondary_xaxis("top", functions=(lambda seen: seen / size, lambda updates: updates * size))
    above.set_xlabel("thousand updates" + (f" of {size} sequences" if size > 1 else ""))


def _training(record: Record) -> Mapping[str, float]:
    return record.data["config"]["training"]


def _setting(record: Record) -> str:
    training = _training(record)
    size = training["batch_size"]
    return f"{size} sequence{'s' * (size > 1)} an update, learning rate {training['lr']:g}"


# --- beyond the training sizes ------------------------------------------------------------------------------


def generalisation(records: Records, lengths: Sequence[int], longest: int) -> Figure:
    """Cost per output bit over length, trained up to `longest`: every seed a mark, the median a line."""
    drawing, axes = figure(height=3.0)
    records = _there(records)
    if not records:
        return nothing_yet(drawing)
    _over_sizes(axes, records, lengths, _bits_per_bit)
    _chance(axes, 1)
    _trained(axes, min(lengths) - 1, longest)
    axes.set_xscale("log", base=2)
    axes.set(yscale="log", xlabel="length (vectors)", ylabel="bits per output bit")
    axes.yaxis.set_major_formatter(_plain)
    axes.set(xticks=lengths, xticklabels=lengths)
    legend_below(drawing, axes, n_columns=4)
    return drawing


def associative_generalisation(records: Records, items: Sequence[int], printed: FactTable) -> Figure:
    """Cost of the answer over the number of items (fig. 11), trained on 2 to 6, with the paper's readings."""
    drawing, axes = figure(height=3.0)
    records = _there(records)
    if not records:
        return nothing_yet(drawing)
    _over_sizes(axes, records, items, answer_cost)
    _chance(axes, _ANSWER_BITS)
    _paper_marks(axes, printed, records, "read off the paper's plot")
    _trained(axes, 2, 6)
    axes.set(xlabel="items", ylabel="bits per answer", xticks=[2, *items], ylim=(0, None))
    legend_below(drawing, axes, n_columns=3)
    return drawing


def repeat_generalisation(records: Records, sizes: Sequence[tuple[int, int]]) -> Figure:
    """Repeat copy at several (length, repeats), the first of them the largest of training: bits, and end marker."""
    drawing, panels = figure(1, 2, height=2.8)
    records = _there(records)
    if not records:
        return nothing_yet(drawing)
    names = [f"{length}x{repeats}" for length, repeats in sizes]
    _beside(panels[0], records, names, _bits_per_bit)
    _beside(panels[1], records, names, lambda record, name: record.metric(f"right_ends_at_{name}"))
    _chance(panels[0], 1)
    panels[0].set(yscale="log", ylabel="bits per output bit", title="the vectors")
    panels[0].yaxis.set_major_formatter(_plain)
    panels[1].set(ylim=(-0.03, 1.03), ylabel="share of sequences", title="end marked at the right step only")
    ticks = [f"{length} vectors,\n{repeats} repeats" for length, repeats in sizes]
    ticks[0] += "\n(training)"
    for panel in panels:
        panel.set_xticks(range(len(sizes)), ticks, fontsize=8)
    legend_below(drawing, panels[0], n_columns=4)
    return drawing


_ANSWER_BITS = 18  # of associative recall: three vectors of six bits


def _bits_per_bit(record: Record, size: object) -> float:
    return max(record.metric(f"bits_per_bit_at_{size}"), _FLOOR / 100)


def _over_sizes(
    axes: Axes, records: Records, sizes: Sequence[int], value: Callable[[Record, int], float]
) -> None:
    """A mark a seed, and a line through the medians."""
    for kind, rows in records.items():
        table = np.array([[value(record, size) for size in sizes] for record in rows])
        axes.plot(sizes, table.T, "o", color=COLOURS[kind], alpha=0.4, markersize=4)
        axes.plot(sizes, np.median(table, axis=0), color=COLOURS[kind], linewidth=2, label=LABELS[kind])


def _beside(
    axes: Axes, records: Records, sizes: Sequence[str], value: Callable[[Record, str], float]
) -> None:
    """Models side by side at each size: a mark a seed, and a bar at the median."""
    for place, (kind, rows) in enumerate(records.items()):
        x = np.arange(len(sizes)) + 0.25 * (place - (len(records) - 1) / 2)
        table = np.array([[value(record, size) for size in sizes] for record in rows])
        axes.plot(x, table.T, "o", color=COLOURS[kind], alpha=0.5, markersize=4)
        axes.hlines(
            np.median(table, axis=0), x - 0.1, x + 0.1, color=COLOURS[kind], linewidth=2, label=LABELS[kind]
        )


def _chance(axes: Axes, level: float) -> None:
    axes.axhline(level, color=COLOURS["paper"], linestyle="--", linewidth=1, label="chance")


def _trained(axes: Axes, least: float, longest: float) -> None:
    """Shade the sizes of training."""
    axes.axvspan(least, longest, color=COLOURS["paper"], alpha=0.12, linewidth=0)
    axes.text(0.01, 0.97, "seen in training", transform=axes.transAxes, color="black", fontsize=8, va="top")


# --- answers ------------------------------------------------------------------------------------------------


def answers(records: Records, lengths: Sequence[int]) -> Figure:
    """Targets, and what the first seed of each model answers, for several lengths (the paper's figs. 4 and 5)."""
    arrays = _kept(records)
    if not arrays:
        return nothing_yet(figure()[0])
    ratios = [max(length, 12) for length in lengths]
    drawing, grid = figure(1 + len(arrays), len(lengths), height=0.95, width_ratios=ratios)
    for column, length in enumerate(lengths):
        _answer_rows(grid[:, column], arrays, str(length), f"length {length}", named=column == 0)
    drawing.supxlabel("step of the answer", fontsize=9)
    return drawing


def repeat_answers(records: Records, sizes: Sequence[tuple[int, int]]) -> Figure:
    """Targets, and below them the first seed's answers, of repeat copy at several (length, repeats) (fig. 8).

    The lowest row of each image is the end marker.
    """
    arrays = _kept(records)
    if not arrays:
        return nothing_yet(figure()[0])
    rows = 1 + len(arrays)
    drawing, panels = figure(rows * len(sizes), height=0.55)
    for index, (length, repeats) in enumerate(sizes):
        group = panels[index * rows : (index + 1) * rows]
        _answer_rows(group, arrays, f"{length}x{repeats}", f"{length} vectors, {repeats} repeats")
        for panel in group:
            _end_marker_row(panel)
    drawing.supxlabel("step of the answer", fontsize=9)
    return drawing


def _kept(records: Records) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of the first seed of each model."""
    return {kind: rows[0].artifact() for kind, rows in _there(records).items()}


def _answer_rows(
    panels: Sequence[Axes],
    arrays: Mapping[str, Mapping[str, np.ndarray]],
    size: str,
    title: str,
    *,
    named: bool = True,
) -> None:
    """One panel for the target and one below it for each model's answer."""
    first = next(iter(arrays.values()))
    _image(panels[0], first[f"targets_{size}"] / 255, title, "target" if named else None)
    for panel, (kind, kept) in zip(panels[1:], arrays.items(), strict=True):
        _image(panel, kept[f"outputs_{size}"] / 255, "", _NAMES[kind] if named else None)


def _image(axes: Axes, values: np.ndarray, title: str, name: str | None) -> None:
    binary_image(axes, values, title=title)
    axes.tick_params(bottom=False, labelbottom=False)
    if name:
        axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)


def _end_marker_row(axes: Axes) -> None:
    """Set the lowest row apart and name it."""
    lowest = axes.images[0].get_array().shape[0] - 1
    axes.axhline(lowest - 0.5, color=COLOURS["paper"], linewidth=0.6)
    axes.yaxis.tick_right()
    axes.set_yticks([lowest], ["end"], fontsize=6)
    axes.tick_params(length=0)


# --- predictions --------------------------------------------------------------------------------------------


def predictions(records: Records) -> Figure:
    """One n-gram sequence: its bits, the optimal predictions, those of each model's first seed (fig. 14), the errors.

    Probabilities of a 1 are shades from white to black; below, the distance from the optimal probability.
    """
    arrays = _kept(records)
    if not arrays:
        return nothing_yet(figure()[0])
    first = next(iter(arrays.values()))
    strips = {"sequence": first["targets_trace"] / 255, "optimal": first["optimal_trace"][:, None]}
    strips |= {_NAMES[kind]: kept["outputs_trace"] / 255 for kind, kept in arrays.items()}
    ratios = [1] * len(strips) + [3.5]
    drawing, panels = figure(len(ratios), height=0.55, sharex=True, height_ratios=ratios)
    for panel, (name, values) in zip(panels, strips.items(), strict=False):
        _image(panel, values.astype(float), "", name)
    for kind, kept in arrays.items():
        off = np.abs(kept["outputs_trace"][:, 0] / 255 - kept["optimal_trace"].astype(float))
        label = f"{LABELS[kind]} (mean {off.mean():.2f})"
        panels[-1].plot(off, color=COLOURS[kind], linewidth=1, label=label)
    panels[-1].set(xlabel="bit of the sequence", ylabel="distance\nfrom optimal", ylim=(0, 1))
    legend_below(drawing, panels[-1], n_columns=2)
    return drawing
