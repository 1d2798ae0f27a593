"""Figures of the Neural Turing Machine's chapter, drawn from records and small tensors; see `answers` and `inside`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attn.data.episodic import Episodes
from attn.experiments.ntm.runs import LABELS
from attn.experiments.ntm.tables import answer_cost, solved_below, solves
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
)
from attn.reproduction.records import Record

Records = Mapping[str, Sequence[Record]]  # by kind of model

_FLOOR = (
    1e-6  # bits; a cost below it is drawn at it, because a logarithmic axis has no 0, and the figure says so
)
_OTHER = "#000000"  # the second setting of one model, beside its own colour


def there(records: Records) -> dict[str, Sequence[Record]]:
    """Models that have records."""
    return {kind: rows for kind, rows in records.items() if rows}


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


def curves(task: str, records: Records, printed: FactTable) -> Figure | None:
    """Learning curves of a task (figs. 3, 7, 10, 13, 18): every seed, medians, the paper's readings as faint marks.

    Args:
        task: a key of `CURVES`.
        records: runs of each model on the task.
        printed: what was read off the paper's plot, `k` in thousand sequences.
    """
    records = there(records)
    if not records:
        return None
    drawing, axes = figure(height=3.7)
    _draw_curves(axes, task, records, LABELS)
    _paper_marks(axes, printed, records, CURVES[task].reading, until=_last_seen(records))
    if task == "ngrams":
        _reference_levels(axes, records)
    _updates_above(axes, records)
    legend_below(drawing, axes)
    return drawing


def batch_1(task: str, one: Sequence[Record], many: Sequence[Record]) -> Figure | None:
    """Cost of one model over sequences and over updates: trained one sequence an update, and several.

    Args:
        task: a key of `CURVES`.
        one: runs with one sequence an update.
        many: runs with several.
    """
    records = there({"one": one, "many": many})
    if not records:
        return None
    drawing, panels = figure(1, 2, height=2.9, sharey=True)
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
    """0.00001 as that, for ticks of logarithmic axes; the axis itself gives it with an error in the last place."""
    return np.format_float_positional(value, precision=6, fractional=False, trim="-")


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
    costs = [e["bits_per_sequence"] for rows in records.values() for record in rows for e in record.history]
    learning_curves(
        axes, points, labels, xlabel=_UNITS[unit], ylabel="bits per sequence", colours=_COLOURS,
        notes={kind: _share_solved(rows, solved) for kind, rows in records.items()} if solved else None,
    )  # fmt: skip
    if scale == "linear":
        axes.set_ylim(bottom=0)
        return
    label = f"solved below {solved:g}"
    axes.axhline(solved, color=COLOURS["paper"], linestyle="--", linewidth=1, label=label)
    _logarithmic(axes, costs)


def _logarithmic(axes: Axes, costs: Sequence[float]) -> None:
    """A logarithmic cost axis, with a word on costs that it cannot hold."""
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(_plain)
    if min(costs) < _FLOOR:
        axes.axhline(_FLOOR, color=COLOURS["paper"], linestyle=":", linewidth=1, label="this, or less")


def _share_solved(rows: Sequence[Record], level: float) -> str:
    return f"{sum(solves(record, level) for record in rows)} of {len(rows)} solve it"


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
    costs = [[e["bits_per_sequence"] for e in record.history] for rows in records.values() for record in rows]
    top = 1.03 * max(free, *(run[-1] for run in costs))
    axes.set_ylim(optimal - 3, top)
    if outside := [max(run) for run in costs if max(run) > top]:
        said = f"cut off above: {len(outside)} of {len(costs)} runs, up to {max(outside):.0f} bits"
        axes.plot([], [], " ", label=said)


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


def generalisation(records: Records, lengths: Sequence[int], longest: int) -> Figure | None:
    """Cost per output bit over length, trained up to `longest`: every seed a thin line, the median on top."""
    records = there(records)
    if not records:
        return None
    drawing, axes = figure(height=3.0)
    _over_sizes(axes, records, lengths, _drawn_bits)
    _chance(axes, 1)
    _trained(axes, min(lengths) - 1, longest)
    axes.set_xscale("log", base=2)
    axes.set(xlabel="length (vectors)", ylabel="bits per output bit")
    _logarithmic(axes, _values(records, lengths))
    axes.set(xticks=lengths, xticklabels=lengths)
    legend_below(drawing, axes, n_columns=4)
    return drawing


def associative_generalisation(records: Records, items: Sequence[int], printed: FactTable) -> Figure | None:
    """Cost of the answer over the number of items (fig. 11), trained on 2 to 6, with the paper's readings."""
    records = there(records)
    if not records:
        return None
    drawing, axes = figure(height=3.0)
    _over_sizes(axes, records, items, answer_cost)
    _chance(axes, _ANSWER_BITS)
    _paper_marks(axes, printed, records, "read off the paper's plot")
    _trained(axes, 2, 6)
    axes.set(xlabel="items", ylabel="bits per answer", xticks=[2, *items], ylim=(0, None))
    legend_below(drawing, axes, n_columns=3)
    return drawing


def repeat_generalisation(records: Records, sizes: Sequence[tuple[int, int]]) -> Figure | None:
    """Repeat copy at several (length, repeats), the first of them the largest of training: bits, and end marker."""
    records = there(records)
    if not records:
        return None
    drawing, panels = figure(1, 2, height=2.8)
    names = [f"{length}x{repeats}" for length, repeats in sizes]
    _beside(panels[0], records, names, _drawn_bits)
    _beside(panels[1], records, names, lambda record, name: record.metric(f"right_ends_at_{name}"))
    _chance(panels[0], 1)
    panels[0].set(ylabel="bits per output bit", title="the vectors")
    _logarithmic(panels[0], _values(records, names))
    panels[1].set(ylim=(-0.03, 1.03), ylabel="share of sequences", title="end marked at the right step only")
    ticks = [f"{length} vectors,\n{repeats} repeats" for length, repeats in sizes]
    ticks[0] += "\n(training)"
    for panel in panels:
        panel.set_xticks(range(len(sizes)), ticks, fontsize=8)
    legend_below(drawing, panels[0], n_columns=4)
    return drawing


_ANSWER_BITS = 18  # of associative recall: three vectors of six bits


def _values(records: Records, sizes: Sequence[object]) -> list[float]:
    """Bits per output bit of all runs at all sizes."""
    return [bits_at(record, size) for rows in records.values() for record in rows for size in sizes]


def bits_at(record: Record, size: object) -> float:
    """Bits per output bit at a size of the final test, as 20 or "20x10"."""
    return record.metric(f"bits_per_bit_at_{size}")


def _drawn_bits(record: Record, size: object) -> float:
    return max(bits_at(record, size), _FLOOR)


def _over_sizes(
    axes: Axes, records: Records, sizes: Sequence[int], value: Callable[[Record, int], float]
) -> None:
    """Marks of a seed joined by a thin line, and a thick line through the medians."""
    for kind, rows in records.items():
        table = np.array([[value(record, size) for size in sizes] for record in rows])
        axes.plot(sizes, table.T, "o-", color=COLOURS[kind], alpha=0.4, markersize=4, linewidth=0.6)
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
