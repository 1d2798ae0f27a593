"""Figures of chapter 5; those of records are None where there are none, or too few to compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import log
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from attn.experiments.product_keys.concepts import Costs, Halves
from attn.experiments.product_keys.tables import perplexity, use
from attn.reproduction.figures import COLOURS, WEIGHTS_MAP, figure, legend_below
from attn.reproduction.records import Record

_PHONE = 4.6  # inches wide, so that a phone shows the words at their size
_BLUE, _ORANGE, _GREEN, _PINK, _SKY, _RED = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"
_SERIES = (_BLUE, _ORANGE, _GREEN, _PINK, _SKY, _RED)
_MARKERS = "osD^vPX"
_PERPLEXITY = "test perplexity"

Seeds = Sequence[Record]
Value = Callable[[Record], float | None]


# --- what is computed ----------------------------------------------------------------------------------------


def halves(found: Halves) -> Figure:
    """Scores of all slots as sums of two halves: only a corner can hold the k best."""
    drawing, axes = figure(width=_PHONE, height=3.9)
    low, high = found.sums.min(), found.sums.max()
    axes.imshow(found.sums, cmap="Blues", vmin=low, vmax=high + 0.8 * (high - low))  # light enough for words
    axes.set_aspect("equal")
    n_keys, topk = len(found.left), int(found.candidates[0].sum())
    for row, column in np.ndindex(n_keys, n_keys):
        best = found.best[row, column]
        axes.text(
            column, row, _score(found.sums[row, column]), ha="center", va="center", fontsize=8,
            fontweight="bold" if best else "normal",
        )  # fmt: skip
        if best:
            axes.add_patch(_box(row, column, 1, 1, color=_RED, linewidth=2))
        if found.needed[row, column]:
            axes.plot(column + 0.36, row - 0.36, ".", color="black", markersize=4)
    axes.add_patch(_box(0, 0, topk, topk, color="black", linewidth=1.5, linestyle="--"))
    axes.set(
        xticks=range(n_keys), xticklabels=[_score(score) for score in found.right],
        yticks=range(n_keys), yticklabels=[_score(score) for score in found.left],
        xlabel="scores of right sub-keys, highest first", ylabel="scores of left sub-keys, highest first",
    )  # fmt: skip
    axes.xaxis.set_label_position("top")
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    return drawing


def _score(score: float) -> str:
    return f"{round(score, 1) + 0.0:.1f}"  # no minus before zero


def _box(row: int, column: int, height: int, width: int, **style) -> Rectangle:
    return Rectangle((column - 0.5, row - 0.5), width, height, fill=False, **style)


def costs(found: Costs) -> Figure:
    """Multiply-accumulates of one search over numbers of slots."""
    drawing, axes = figure(width=_PHONE, height=2.7)
    axes.loglog(found.slots, found.flat, "s-", color=_ORANGE, label="a key for every slot")
    axes.loglog(found.slots, found.product, "o-", color=_BLUE, label="product keys")
    axes.set_xscale("log", base=2)
    axes.set(xlabel="slots", ylabel="multiply-accumulates")
    legend_below(drawing, axes)
    return drawing


# --- records -------------------------------------------------------------------------------------------------


def _points(axes: Axes, groups: Mapping[float, Seeds], value: Value, **style) -> None:
    """Every seed a mark, a line through the means."""
    means = {}
    for x, seeds in groups.items():
        found = [number for record in seeds if (number := value(record)) is not None]
        marks = style | {"label": None, "linestyle": "", "markersize": 3, "alpha": 0.6}
        axes.plot([x] * len(found), found, **marks)
        if found:
            means[x] = float(np.mean(found))
    axes.plot(list(means), list(means.values()), **({"markersize": 4, "linewidth": 1.2} | style))


def _there(series: Mapping[str, Mapping[float, Seeds]]) -> list[tuple[tuple, str, str]]:
    """The series that have records, each with its colour and marker."""
    styled = zip(series.items(), _SERIES, _MARKERS, strict=False)
    return [(entry, colour, marker) for entry, colour, marker in styled if not _empty(entry[1])]


def _empty(groups: Mapping[object, Seeds]) -> bool:
    return not any(groups.values())


def _settings(series: Mapping[str, Mapping[float, Seeds]]) -> set[float]:
    """Settings that have records; where there is but one, nothing is compared over it."""
    return {x for groups in series.values() for x, seeds in groups.items() if seeds}


def depth(groups: Mapping[int, Mapping[int, Seeds]]) -> Figure | None:
    """Perplexity over layers, a line for each number of memories.

    Args:
        groups: by number of memories, then by layers of the model.
    """
    if all(_empty(by_layers) for by_layers in groups.values()):
        return None
    drawing, axes = figure(width=_PHONE, height=3)
    for (memories, by_layers), colour, marker in _there(groups):
        label = ("no memory", "1 memory")[memories] if memories < 2 else f"{memories} memories"
        _points(axes, by_layers, perplexity, color=colour, marker=marker, label=label)
    layers = sorted({n for by_layers in groups.values() for n, seeds in by_layers.items() if seeds})
    axes.set(xticks=layers, xlabel="layers of the model that was trained", ylabel=_PERPLEXITY)
    legend_below(drawing, axes)
    return drawing


def sweeps(
    series: Mapping[str, Mapping[float, Seeds]], *, xlabel: str, is_log: bool = True, bound: bool = False,
    level: Seeds = (),
) -> Figure | None:  # fmt: skip
    """Perplexity, usage and divergence over one setting, a line for each series.

    Args:
        series: by name, then by the setting.
        xlabel: names the setting.
        is_log: whether its axis is one of powers of two.
        bound: whether to draw log(1 / usage), the least that a divergence can be, below each one.
        level: runs without memory, whose mean perplexity is a dashed line.

    Returns:
        None below two settings with records.
    """
    if len(_settings(series)) < 2:
        return None
    drawing, panels = figure(3, 1, width=_PHONE, height=1.7, sharex=True)
    for (name, groups), colour, marker in _there(series):
        style = {"color": colour, "marker": marker, "label": name}
        for panel, value in zip(panels, (perplexity, _use("usage"), _use("kl")), strict=True):
            _points(panel, groups, value, **style)
        if bound:
            _points(panels[2], groups, _least_divergence, color=colour, marker="", linestyle=":", label=None)
    if level:
        mean = float(np.mean([perplexity(record) for record in level]))
        panels[0].axhline(mean, color=COLOURS["paper"], linestyle="--", linewidth=1, label="no memory")
    if is_log:
        panels[2].set_xscale("log", base=2)
    else:
        panels[2].set_xticks(sorted({x for groups in series.values() for x in groups}))
    for panel, label in zip(panels, (_PERPLEXITY, "usage, percent", "KL, nats"), strict=True):
        panel.set(ylabel=label)
    panels[1].set_ylim(-3, 103)
    panels[2].set(xlabel=xlabel, ylim=(0, 1.08 * panels[2].dataLim.y1))
    legend_below(drawing, panels[0])
    return drawing


def _use(name: str) -> Value:
    return lambda record: use(record, name)


def _least_divergence(record: Record) -> float | None:
    share = use(record, "usage")
    return None if share is None else log(100 / share)


def flat_and_product(series: Mapping[str, Mapping[float, Seeds]]) -> Figure | None:
    """Perplexity, every seed a mark, and time of a token of the fastest seed, over slots, with flat and product keys.

    None unless both have records.
    """
    if len(_there(series)) < 2:
        return None
    drawing, panels = figure(1, 2, width=_PHONE, height=2.6)
    for (name, groups), colour, marker in _there(series):
        style = {"color": colour, "marker": marker, "label": name}
        _points(panels[0], groups, perplexity, **style)
        fastest = {x: [min(seeds, key=_microseconds)] for x, seeds in groups.items() if seeds}
        _points(panels[1], fastest, _microseconds, **style)
    for panel, label in zip(panels, (_PERPLEXITY, "training, µs a token"), strict=True):
        panel.set_xscale("log", base=2)
        panel.set(xlabel="slots", ylabel=label)
    panels[1].set_ylim(0, 1.08 * panels[1].dataLim.y1)
    legend_below(drawing, panels[0])
    return drawing


def _microseconds(record: Record) -> float:
    return 1e6 / record.data["run"]["units_per_second"]


def speed(groups: Mapping[str, Seeds], rates: Mapping[str, float]) -> Figure | None:
    """Speed of inference against perplexity: up and to the left is better.

    Every seed is a small mark, a large one stands at the mean perplexity.

    Args:
        groups: by model.
        rates: tokens a second by model, all from one run of the benchmark; models without one are left out.
    """
    there = {name: seeds for name, seeds in groups.items() if seeds and name in rates}
    if not there:
        return None
    drawing, axes = figure(width=_PHONE, height=4.2)
    for (name, seeds), colour, marker in zip(there.items(), _cycle(_SERIES, len(there)),
                                             _cycle(_MARKERS, len(there)), strict=True):  # fmt: skip
        costs, rate = [perplexity(record) for record in seeds], rates[name]
        axes.plot(costs, [rate] * len(costs), marker, color=colour, markersize=3, alpha=0.5, linestyle="")
        axes.plot(np.mean(costs), rate, marker, color=colour, markersize=7, linestyle="", label=name)
    axes.set(xlabel=_PERPLEXITY, ylabel="tokens a second, inference", ylim=(0, 1.08 * axes.dataLim.y1))
    legend_below(drawing, axes, n_columns=1)
    return drawing


def _cycle(items: Sequence[str], count: int) -> list[str]:
    return [items[i % len(items)] for i in range(count)]


def usage_curves(groups: Mapping[str, Seeds]) -> Figure | None:
    """Use of the slots from the most used to the least, and over the two codebooks, of the first record of each.

    Records with too few look-ups a slot are left out.
    """
    there = {
        name: (arrays, min(seeds[0].data["config"]["model"]["memories"]))
        for name, seeds in groups.items()
        if seeds and use(seeds[0], "usage") is not None and (arrays := seeds[0].artifact())
    }
    if not there:
        return None
    drawing, panels = figure(1, 1 + len(there), height=2.4, width=7.2)
    for (name, (arrays, layer)), colour in zip(there.items(), _SERIES, strict=False):
        curve = arrays[f"curve_layer{layer}"].astype(float)
        panels[0].plot(np.linspace(0, 100, len(curve)), curve, color=colour, label=name)
    panels[0].axhline(1, color=COLOURS["paper"], linestyle="--", linewidth=1)
    panels[0].set_yscale("symlog", linthresh=0.1)
    panels[0].set(ylim=(0, None), xlabel="slots, percent, most used first", ylabel="weight over even weight")
    for panel, (name, (arrays, layer)) in zip(panels[1:], there.items(), strict=True):
        weights = np.log1p(arrays[f"map_layer{layer}"].astype(float))
        panel.imshow(weights, cmap=WEIGHTS_MAP, vmin=0, aspect="equal")
        panel.set(title=fill(name, 24), xticks=[], yticks=[], xlabel="right sub-keys", ylabel="left sub-keys")
        panel.spines[:].set_visible(True)
    legend_below(drawing, panels[0])
    return drawing


def memorising(groups: Mapping[str, Seeds]) -> Figure | None:
    """Training and development loss while a short text is read again and again; first seed of each model."""
    if _empty(groups):
        return None
    drawing, axes = figure(width=_PHONE, height=3)
    for (name, seeds), colour in zip(groups.items(), _SERIES, strict=False):
        for record in seeds[:1]:
            points = [entry for entry in record.history if entry["train_loss"] is not None]
            thousands = [entry["seen"] / 1000 for entry in points]
            train = [entry["train_loss"] / log(2) for entry in points]
            axes.plot(thousands, train, color=colour, linestyle="--", label=f"{name}, training")
            dev = [entry["bits_per_token"] for entry in points]
            axes.plot(thousands, dev, color=colour, label=f"{name}, development")
    axes.set(xlabel="thousand tokens read", ylabel="bits per subword")
    legend_below(drawing, axes)
    return drawing


# --- facts to be recalled ------------------------------------------------------------------------------------


def stored(
    by_slots: Mapping[str, Mapping[float, Seeds]], levels: Mapping[str, Seeds], *, trunk: Seeds
) -> Figure | None:
    """Bits stored of a table of facts over the number of slots, beside a fact in every slot and models without memory.

    A fact in every slot is the simplest use of a memory, drawn to compare with; it is no capacity.

    Args:
        by_slots: by kind of keys, then by slots.
        levels: by name, runs without memory, whose means are dashed lines.
        trunk: runs of the same model without memory. What they store is where a fact in every slot starts from; without
            them that line is not drawn.
    """
    found = [record for groups in by_slots.values() for seeds in groups.values() for record in seeds]
    if not found:
        return None
    drawing, axes = figure(width=_PHONE, height=4)
    for (name, groups), colour, marker in _there(by_slots):
        _points(axes, groups, _thousand_bits, color=colour, marker=marker, label=name)
    table = found[0].metric("table_bits") / 1000
    axes.axhline(table, color="black", linewidth=1)
    axes.text(0.01, table, "all of the table", transform=axes.get_yaxis_transform(), va="bottom", fontsize=8)
    if trunk:
        there = [x for groups in by_slots.values() for x in groups]
        slots = np.geomspace(min(there), max(there))
        a_fact = table / found[0].data["config"]["facts"]["n_facts"]
        line = np.mean([_thousand_bits(record) for record in trunk]) + slots * a_fact
        axes.plot(
            slots, np.minimum(line, table), ":", color="black", label="no memory, and a fact in every slot"
        )
    for (name, seeds), colour in zip(levels.items(), (COLOURS["paper"], _RED), strict=False):
        if seeds:
            mean = np.mean([_thousand_bits(record) for record in seeds])
            axes.axhline(mean, color=colour, linestyle="--", label=name)
    axes.set_xscale("log", base=2)
    axes.set(xlabel="slots", ylabel="thousand bits stored", ylim=(min(0, axes.get_ylim()[0]), 1.12 * table))
    legend_below(drawing, axes, n_columns=1)
    return drawing


def _thousand_bits(record: Record) -> float:
    return record.metric("stored_bits") / 1000


def capacity(series: Mapping[str, Mapping[float, Seeds]]) -> Figure | None:
    """Bits stored over bits to be stored: whoever stores all lies on the diagonal, which goes beyond the marks.

    None below two sizes of the table with records.
    """
    found = {name: {x: seeds for x, seeds in groups.items() if seeds} for name, groups in series.items()}
    if len(_settings(found)) < 2:
        return None
    drawing, axes = figure(width=_PHONE, height=3)
    for (name, groups), colour, marker in _there(found):
        by_bits = {seeds[0].metric("table_bits") / 1000: seeds for seeds in groups.values()}
        _points(axes, by_bits, _thousand_bits, color=colour, marker=marker, label=name)
    there = [seeds[0].metric("table_bits") / 1000 for groups in found.values() for seeds in groups.values()]
    line = [min(there) / 2, 2 * max(there)]
    axes.plot(line, line, color="black", linewidth=1, label="all of the table")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set(xlabel="thousand bits in the table", ylabel="thousand bits stored")
    legend_below(drawing, axes)
    return drawing
