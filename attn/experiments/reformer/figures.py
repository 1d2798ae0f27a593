"""Figures of chapter 2; those of records are None where there are none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle as Disc

from attn.experiments.reformer.concepts import COUNTS, Circle, Heads, Meetings, Random, few_keys
from attn.experiments.reformer.runs import ATTENTIONS, CODE_MODELS, LABELS, VARIANTS
from attn.experiments.reformer.whole_grids import grids as our_grids
from attn.experiments.reformer.workloads import EVALUATIONS, ROUNDS
from attn.reproduction.figures import COLOURS, WEIGHTS_MAP, figure, legend_below
from attn.reproduction.records import Record

_PHONE = 4.6  # inches wide, so that a phone shows the words at their size
_BUCKETS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
_MARKERS = "osD^vP*X"
_ROUND_COLUMNS = ("full", "lsh8", "lsh4", "lsh2", "lsh1")
_COLUMN_NAMES = {"full": "full", "lsh8": "8", "lsh4": "4", "lsh2": "2", "lsh1": "1"}

Records = Mapping[str, Sequence[Record]]  # by model


def largest(random: Sequence[Random], trained: Mapping[str, Heads]) -> Figure:
    """Share of the weight on the largest keys: of random queries by their length, and the least of trained heads."""
    drawing, panels = figure(1 + len(trained), 1, width=_PHONE, height=2.0, squeeze=False)
    top, *others = panels[:, 0]
    for found, colour, marker in zip(random, _BUCKETS, _MARKERS, strict=False):
        middle = found.shares.mean(0)
        top.plot(COUNTS[: len(middle)], middle, color=colour, marker=marker, markersize=3,
                 label=f"scores spread by {found.spread:.1f}")  # fmt: skip
    top.set_title(f"random directions, {COUNTS[random[0].shares.shape[1] - 1]:,} keys")
    for panel, (text, heads) in zip(others, trained.items(), strict=True):
        counts = COUNTS[: heads.shares.shape[1]]
        for number, shares in enumerate(heads.shares):
            label = "a trained head, at least" if number == 0 else None
            panel.plot(counts, shares, color=_BUCKETS[0], linewidth=0.8, alpha=0.5, label=label)
        panel.plot(counts, heads.shares.mean(0), color=_BUCKETS[5], linewidth=2, label="mean of the heads")
        panel.set_title(f"{text}, {heads.n_keys:,} keys")
    for panel in panels[:, 0]:
        panel.axvspan(*few_keys(), color="#DDDDDD", linewidth=0)
        panel.set_xscale("log", base=2)
        panel.set(ylim=(0, 1.03), ylabel="share of weight")
        last = max(panel.lines, key=lambda line: len(line.get_xdata())).get_xdata()[-1]
        ticks = [count for count in COUNTS[::3] if count <= last]
        panel.set_xticks(ticks, [f"{count:,}" for count in ticks], fontsize=8)
        panel.minorticks_off()
        panel.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    least, most = few_keys()
    panels[-1, 0].set_xlabel(f"largest keys (grey: {least} to {most})")
    return drawing


def circle(found: Circle) -> Figure:
    """Buckets of points on the circle, a panel for each round: near points mostly share a bucket.

    Lines have the lengths of the drawn vectors, all on one scale.
    """
    n_rounds = len(found.buckets)
    scale = 0.95 / np.linalg.norm(found.directions, axis=-1).max()
    drawing, panels = figure(1, n_rounds, width=_PHONE, height=1.9)
    for number, (panel, buckets, axes) in enumerate(
        zip(panels, found.buckets, found.directions, strict=True), start=1
    ):
        panel.add_patch(Disc((0, 0), 1, fill=False, color="#BBBBBB", linewidth=0.8))
        for bucket, (x, y) in enumerate(axes):
            panel.plot([0, scale * x], [0, scale * y], color=_BUCKETS[bucket], linewidth=1)
            here = found.points[buckets == bucket]
            panel.plot(*here.T, _MARKERS[bucket], color=_BUCKETS[bucket], markersize=4)
        panel.set(title=f"round {number}", aspect="equal", xlim=(-1.2, 1.2), ylim=(-1.2, 1.2))
        panel.set_axis_off()
    return drawing


def meetings(found: Meetings, *, chunk_len: int = 4) -> Figure:
    """Full attention beside LSH attention, in the order of the sequence and sorted by bucket."""
    drawing, grid = figure(2, 2, width=_PHONE, height=2.3)
    order = found.order
    panels = (
        ("full attention", found.weights), ("LSH attention, 1 round", found.hashed),
        ("full, sorted by bucket", found.weights[order][:, order]),
        ("LSH, sorted by bucket", found.hashed[order][:, order]),
    )  # fmt: skip
    for panel, (title, weights) in zip(grid.flat, panels, strict=True):
        panel.imshow(weights, vmin=0, vmax=1, cmap=WEIGHTS_MAP)
        panel.set(title=title, xticks=[], yticks=[])
        panel.spines[:].set_visible(True)
    for place in range(chunk_len, len(order), chunk_len):
        for panel in grid[1]:
            panel.axhline(place - 0.5, color=COLOURS["paper"], linewidth=0.5)
            panel.axvline(place - 0.5, color=COLOURS["paper"], linewidth=0.5)
    grid[1, 0].set(xlabel="keys", ylabel="queries")
    return drawing


def weight_kept(rounds: Sequence[int], shares: Mapping[float, np.ndarray]) -> Figure:
    """Share of full attention's weight that LSH attention sees, over rounds, by length of the queries."""
    drawing, axes = figure(width=_PHONE, height=2.7)
    for (scale, found), colour, marker in zip(shares.items(), _BUCKETS, _MARKERS, strict=False):
        axes.fill_between(rounds, found.min(0), found.max(0), color=colour, alpha=0.2, linewidth=0)
        axes.plot(
            rounds,
            np.median(found, axis=0),
            color=colour,
            marker=marker,
            label=f"queries of length {scale:g}",
        )
    axes.set_xscale("log", base=2)
    axes.set(
        xticks=rounds, xticklabels=rounds, ylim=(0, 1.03), xlabel="rounds of hashing",
        ylabel="share of weight seen",
    )  # fmt: skip
    legend_below(drawing, axes)
    return drawing


def grids(records: Records, printed: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure | None:
    """Table 2 in print, in the replication, and here by several conventions (means over seeds), in percent.

    Rows that are not recorded are left blank, and conventions without any row are left out.

    Args:
        records: by model.
        printed: by who printed it, the percentages of each row in the order full, 8, 4, 2, 1 rounds.
    """
    shared, _, _, plain, replication, public = our_grids(records)
    ours = {
        "here": shared, "here, plain full attention": plain, "here, the replication's code": replication,
        "here, reformer-pytorch": public,
    }  # fmt: skip
    shown = {title: one.cells for title, one in ours.items() if one.cells}
    if not shown:
        return None
    n_columns = len(printed) + 1
    n_rows = -(-(len(printed) + len(shown)) // n_columns)
    drawing, panels = figure(n_rows, n_columns, height=2.4, sharey=True, squeeze=False)
    tables = {**printed, **shown}
    for panel, (who, table) in zip(panels.flat, tables.items(), strict=False):
        _grid(panel, who, table)
    for panel in panels.flat[len(tables) :]:
        panel.set_axis_off()
    for panel in panels[:, 0]:
        panel.set(yticks=range(len(_ROWS)), yticklabels=_ROWS.values(), ylabel="trained with")
    return drawing


_ROWS = {"full": "full", "lsh4": "4 rounds", "lsh2": "2 rounds", "lsh1": "1 round"}


def _grid(panel: Axes, who: str, table: Mapping[str, Sequence[float]]) -> None:
    """One grid as a heat map with its numbers."""
    values = np.array([table.get(name, [np.nan] * len(_ROUND_COLUMNS)) for name in _ROWS])
    panel.imshow(values, vmin=0, vmax=100, cmap="Blues")
    for (y, x), value in np.ndenumerate(values):
        if not np.isnan(value):
            panel.text(x, y, f"{value:.3g}", ha="center", va="center", fontsize=8,
                       color="white" if value > 55 else "black")  # fmt: skip
    names = [_COLUMN_NAMES[column] for column in _ROUND_COLUMNS]
    panel.set(title=who, xticks=range(len(names)), xticklabels=names, xlabel="evaluated with full, or rounds")
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)


def conventions(records: Records) -> Figure | None:
    """Accuracy of every recorded model under every convention of full attention, and under LSH: every seed a mark."""
    # the columns of models by public code's conventions mean other things
    there = {name: records[name] for name in ATTENTIONS if records.get(name)}
    shown = sorted(EVALUATIONS, key=lambda name: not name.startswith("full"))  # kinds of full attention first
    return _dots(there, {name: LABELS.get(name, name) for name in shown} | _HASHED_LABELS)


def codes(records: Records) -> Figure | None:
    """Accuracy of models by the conventions of public code, evaluated by the same conventions: every seed a mark."""
    there = {name: records[name] for name in (*CODE_MODELS, *VARIANTS) if records.get(name)}
    return _dots(there, {"full": "full attention by the same code"} | _HASHED_LABELS)


_HASHED_LABELS = {f"lsh{rounds}": f"LSH, {rounds} round{'s' * (rounds > 1)}" for rounds in ROUNDS}


def _dots(there: Records, evaluations: Mapping[str, str]) -> Figure | None:
    """Percent right: a line for each model, a mark for each seed and evaluation, these with their labels."""
    if not there:
        return None
    drawing, axes = figure(width=7.2, height=0.42 * max(2, len(there)) + 1.6)
    for place, (name, label) in enumerate(evaluations.items()):
        shift = 0.11 * (place - (len(evaluations) - 1) / 2)
        points = [
            (100 * record.data["metrics"][f"accuracy_{name}"]["value"], y + shift)
            for y, found in enumerate(there.values())
            for record in found
            if f"accuracy_{name}" in record.data["metrics"]
        ]
        colour, marker = _BUCKETS[place], _MARKERS[place]
        axes.plot(*zip(*points, strict=True), marker, color=colour, markersize=4, linestyle="", label=label)
    axes.set(
        yticks=range(len(there)), yticklabels=[LABELS[name] for name in there], xlim=(-3, 103),
        xlabel="percent of symbols right, evaluated with",
    )  # fmt: skip
    axes.invert_yaxis()
    legend_below(drawing, axes)
    return drawing
