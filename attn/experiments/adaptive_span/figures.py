"""Figures of chapter 3; those of records are None where there are none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, median

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from attn.experiments.adaptive_span.bursts import ruined
from attn.experiments.adaptive_span.concepts import Gradients
from attn.reproduction.figures import COLOURS, WEIGHTS_MAP, figure, learning_curves, legend_below
from attn.reproduction.records import Record

_PHONE = 4.6  # inches wide, so that a phone shows the words at their size
KIND_COLOURS = {"fixed": "#E69F00", "adaptive": "#0072B2", "from_max": "#56B4E9", "dynamic": "#009E73"}
KIND_LABELS = {
    "fixed": "fixed span",
    "adaptive": "adaptive, from 0",
    "from_max": "adaptive, from the maximum",
    "dynamic": "dynamic",
}
_MARKERS = {"fixed": "s", "adaptive": "o", "from_max": "^", "dynamic": "D"}
_LAYERS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#882255", "#000000")

Records = Sequence[Record]


# --- computed ------------------------------------------------------------------------------------------------


def mask_shapes(distance: np.ndarray, masks: np.ndarray, spans: Sequence[float]) -> Figure:
    """The soft mask over distance, for several spans."""
    drawing, axes = figure(width=_PHONE, height=2.4)
    for span, mask, colour in zip(spans, masks, _LAYERS, strict=False):
        axes.plot(distance, mask, color=colour, linewidth=2, label=f"z = {span:g}")
    axes.set(xlabel="distance x, tokens back", ylabel="mask $m_z(x)$", ylim=(-0.03, 1.06))
    legend_below(drawing, axes, n_columns=len(spans))
    return drawing


def soft_and_hard(found: Gradients) -> Figure:
    """The output of one query over its span: steps with a hard cut, a curve with a ramp."""
    drawing, axes = figure(width=_PHONE, height=2.4)
    axes.plot(found.spans, found.hard, color=KIND_COLOURS["fixed"], label="hard cut", drawstyle="steps-mid")
    axes.plot(found.spans, found.soft, color=KIND_COLOURS["adaptive"], label="ramp", linewidth=2)
    axes.set(xlabel="span z, tokens", ylabel="output of one query")
    legend_below(drawing, axes)
    return drawing


def maps(weights: Mapping[str, np.ndarray]) -> Figure:
    """Who attends to whom in a block of tokens, by kind of span."""
    drawing, panels = figure(1, len(weights), width=_PHONE, height=1.9)
    for panel, (name, shown) in zip(panels, weights.items(), strict=True):
        panel.imshow(shown, vmin=0, vmax=0.6, cmap=WEIGHTS_MAP)
        panel.set(title=name, xticks=[], yticks=[], aspect="equal")
        panel.spines[:].set_visible(True)
    panels[0].set(xlabel="keys", ylabel="queries")
    return drawing


# --- from records: over the limit ----------------------------------------------------------------------------


def kind_of(record: Record) -> str:
    """Fixed, adaptive, from_max or dynamic."""
    model = record.data["config"]["model"]
    started_high = model["span"] == "adaptive" and model["initial_ratio"] > 0.5
    return "from_max" if started_high else model["span"]


def limit_of(record: Record) -> int:
    """S in tokens."""
    return record.data["config"]["model"]["max_span"]


def by_kind_and_limit(records: Records) -> dict[str, dict[int, list[Record]]]:
    """Records by kind, then by limit in rising order."""
    found: dict[str, dict[int, list[Record]]] = {}
    for record in sorted(records, key=limit_of):
        found.setdefault(kind_of(record), {}).setdefault(limit_of(record), []).append(record)
    return {kind: found[kind] for kind in KIND_LABELS if kind in found}


def over_limit(records: Records, *, floor: Sequence[tuple[int, float]] = ()) -> Figure | None:
    """Mean span, operations and bits against the limit S; every seed a mark, lines through means.

    Bits have dotted lines through medians, too, and a ring around each run that ended badly after a burst.

    Args:
        records: of one text.
        floor: (limit, bits) of the best possible model that sees what all layers together see, if that is known.
    """
    if not records:
        return None
    drawing, panels = figure(1, 3, height=2.9)
    what = (("mean_span", 1, "mean span, tokens"), ("flops", 1e6, "multiply-adds a token, millions"),
            ("valid_bits", 1, "validation bits per symbol"))  # fmt: skip
    found = by_kind_and_limit(records)
    limits = sorted({limit_of(record) for record in records})
    for panel, (metric, unit, name) in zip(panels, what, strict=True):
        for kind, rows in found.items():
            _over(panel, kind, {limit: [r.metric(metric) / unit for r in rs] for limit, rs in rows.items()})
        panel.set_xscale("log", base=2)
        panel.xaxis.set_minor_locator(NullLocator())
        panel.set(xticks=limits, xticklabels=limits, xlabel="limit S, tokens", title=name)
        panel.tick_params(axis="x", labelsize=8)
    panels[1].set_ylim(bottom=0)
    _medians_and_rings(panels[2], found)
    if floor:
        panels[2].plot(*zip(*floor, strict=True), color=COLOURS["paper"], linestyle="--", linewidth=1,
                       label="least possible")  # fmt: skip
    legend_below(drawing, panels[2], n_columns=3)
    return drawing


def _over(axes: Axes, kind: str, values: Mapping[int, Sequence[float]]) -> None:
    points = [(limit, value) for limit, seeds in values.items() for value in seeds]
    colour, marker = KIND_COLOURS[kind], _MARKERS[kind]
    axes.plot(*zip(*points, strict=True), marker, color=colour, markersize=3.5, alpha=0.6)
    axes.plot(list(values), [fmean(seeds) for seeds in values.values()], color=colour, marker=marker,
              markersize=4, label=KIND_LABELS[kind])  # fmt: skip


def _medians_and_rings(axes: Axes, found: Mapping[str, Mapping[int, Records]]) -> None:
    """Beside means of bits: medians, and a ring around each run that ended badly after a burst."""
    for kind, rows in found.items():
        medians = [median(record.metric("valid_bits") for record in records) for records in rows.values()]
        axes.plot(list(rows), medians, color=KIND_COLOURS[kind], linestyle=":", linewidth=1.3)
    spoilt = ruined([record for rows in found.values() for records in rows.values() for record in records])
    axes.plot([], [], color=COLOURS["paper"], linestyle=":", linewidth=1.3, label="median")
    if spoilt:
        axes.plot(
            *zip(*((limit_of(record), record.metric("valid_bits")) for record in spoilt), strict=True), "o",
            markersize=10, markerfacecolor="none", color=_LAYERS[5], label="after a burst",
        )  # fmt: skip


# --- from records: inside a model -----------------------------------------------------------------------------


def best(records: Records) -> Record | None:
    """The run that ends at the fewest bits; None without records."""
    return min(records, key=lambda record: record.metric("valid_bits"), default=None)


def spans_by_layer(runs: Mapping[str, Records]) -> Figure | None:
    """The paper's fig. 4: the span of every head, layer by layer, ramp included; seeds side by side.

    Args:
        runs: records by title of the panel.
    """
    if not any(runs.values()):
        return None
    drawing, panels = figure(1, len(runs), height=2.7, squeeze=False)
    for panel, (title, records) in zip(panels[0], runs.items(), strict=True):
        if not records:
            panel.text(0.5, 0.5, "no records yet", ha="center", va="center", transform=panel.transAxes)
            panel.set(xticks=[], yticks=[], title=title)
            continue
        for place, record in enumerate(records):
            spans = record.artifact()["spans"]
            shift = 0.22 * (place - (len(records) - 1) / 2)
            layers = np.repeat(np.arange(1, len(spans) + 1) + shift, spans.shape[1])
            panel.plot(layers, spans.ravel(), "o", markersize=4, alpha=0.75, color=_LAYERS[place % len(_LAYERS)],
                       label=f"seed {record.seed}")  # fmt: skip
        settings = records[0].data["config"]["model"]
        for level, name in ((settings["ramp_size"], "R"), (settings["max_span"], "S")):
            panel.axhline(level, color=COLOURS["paper"], linestyle="--", linewidth=0.8)
            panel.annotate(name, (1, level), xycoords=("axes fraction", "data"), fontsize=8, va="center")
        panel.set_yscale("log", base=2)
        ticks = [2**n for n in range(4, 14) if settings["ramp_size"] / 2 < 2**n <= settings["max_span"]]
        panel.set(xticks=range(1, settings["n_layers"] + 1), xlabel="layer, from the input", title=title,
                  yticks=ticks, yticklabels=ticks)  # fmt: skip
        panel.yaxis.set_minor_locator(NullLocator())
    panels[0, 0].set_ylabel("span, tokens")
    legend_below(drawing, next(p for p in panels[0] if p.lines), n_columns=5)
    return drawing


def attention_by_distance(record: Record | None) -> Figure | None:
    """How much weight each head of a trained model gives to each distance, a panel for each layer."""
    if record is None:
        return None
    kept = record.artifact()
    shares, means = kept["attention_by_distance"].astype(float), kept["attention_distance"]
    n_layers, n_heads, reach = shares.shape
    drawing, panels = figure(n_layers, 1, height=1.35, sharex=True, squeeze=False)
    edges = 2 ** np.arange(int(np.ceil(np.log2(reach))))  # the last goes on to the end
    for layer, panel in enumerate(panels[:, 0]):
        for head in np.argsort(means[layer]):
            sums = [
                shares[layer, head, low - 1 : high - 1].sum()
                for low, high in zip(edges, [*edges[1:], reach + 1], strict=True)
            ]
            panel.plot(edges, sums, color=_LAYERS[head % len(_LAYERS)], marker="o", markersize=2.5,
                       label=f"{means[layer, head]:.0f}")  # fmt: skip
        panel.set_xscale("log", base=2)
        panel.legend(title="mean distance", fontsize=7, title_fontsize=7, ncols=1, loc="center left",
                     bbox_to_anchor=(1.0, 0.5))  # fmt: skip
        panel.set(title=f"layer {layer + 1}", ylabel="weight", ylim=(0, None))
    panels[-1, 0].set(xticks=edges, xticklabels=edges, xlabel="tokens back (1, 2 to 3, 4 to 7, ...)")
    panels[-1, 0].xaxis.set_minor_locator(NullLocator())
    return drawing


def exact_distances(record: Record | None, marked: Sequence[int]) -> Figure | None:
    """The same without bins, a line for each head: on a text that repeats from known distances.

    Args:
        record: of a model with fixed spans.
        marked: distances at which it pays to look.
    """
    if record is None:
        return None
    shares = record.artifact()["attention_by_distance"].astype(float)
    held = on_marked(record, marked)
    drawing, panels = figure(len(shares), 1, height=1.7, sharex=True, squeeze=False)
    for layer, panel in enumerate(panels[:, 0]):
        for distance in marked:
            panel.axvline(distance, color=COLOURS["paper"], linestyle=":", linewidth=0.9)
        for head, by_distance in enumerate(shares[layer]):
            panel.plot(range(1, len(by_distance) + 1), by_distance, color=_LAYERS[head % len(_LAYERS)], linewidth=1,
                       label=f"head {head + 1}: {held[layer, head]:.0%}")  # fmt: skip
        panel.legend(title="on dotted lines", fontsize=7, title_fontsize=7, ncols=1, loc="center left",
                     bbox_to_anchor=(1.0, 0.5))  # fmt: skip
        panel.set(title=f"layer {layer + 1}", ylabel="weight", ylim=(0, None))
    panels[-1, 0].set(
        xlabel="tokens back (dotted: where a copy's next letter lies)",
        xlim=(0, min(shares.shape[-1], 2 * max(marked))),
    )
    return drawing


def on_marked(record: Record, marked: Sequence[int]) -> np.ndarray:
    """Share of each head's weight that lies at the marked distances, of those within its reach [layers, H]."""
    shares = record.artifact()["attention_by_distance"].astype(float)
    return shares[..., [distance - 1 for distance in marked if distance <= shares.shape[-1]]].sum(-1)


def dynamic_spans(
    record: Record | None, symbols: Sequence[str], *, n_tokens: int = 72, n_heads: int = 3
) -> Figure | None:
    """Spans that depend on the input, token by token, of the heads that change most.

    Args:
        record: of a model with dynamic spans.
        symbols: the character of each id.
        n_tokens: how many of the kept tokens are shown.
        n_heads: how many heads.
    """
    if record is None:
        return None
    kept = record.artifact()
    tokens, spans = kept["dynamic_tokens"][-n_tokens:], kept["dynamic_spans"][..., -n_tokens:]
    drawing, axes = figure(height=2.7)
    flat = spans.reshape(-1, spans.shape[-1])
    chosen = np.argsort(-flat.std(axis=1))[:n_heads]
    for place, colour in zip(chosen, _LAYERS, strict=False):
        layer, head = divmod(int(place), spans.shape[1])
        axes.plot(
            flat[place], color=colour, drawstyle="steps-mid", label=f"layer {layer + 1}, head {head + 1}"
        )
    axes.set(ylabel="span, tokens", xlabel="text, token by token", xlim=(-0.5, len(tokens) - 0.5))
    axes.set(xticks=range(len(tokens)), xticklabels=[symbols[token] for token in tokens])
    axes.tick_params(axis="x", labelsize=7, length=0)
    legend_below(drawing, axes, n_columns=n_heads)
    return drawing


# --- from records: over training ------------------------------------------------------------------------------


def growth(runs: Mapping[str, Records]) -> Figure | None:
    """Mean span and validation bits over training, by kind; every seed a thin line.

    Args:
        runs: records by kind.
    """
    there = {kind: records for kind, records in runs.items() if records}
    if not there:
        return None
    drawing, panels = figure(1, 2, height=2.9)
    for panel, metric, name, start in (
        (panels[0], "mean_span", "mean span, tokens", 0), (panels[1], "bits_per_token", "validation bits per symbol", 1),
    ):  # fmt: skip
        curves = {
            kind: [
                [(entry["seen"] / 1e6, entry[metric]) for entry in record.history[start:]]
                for record in records
            ]
            for kind, records in there.items()
        }
        learning_curves(
            panel, curves, KIND_LABELS, xlabel="symbols seen, millions", ylabel=name, colours=KIND_COLOURS
        )
        if panel is panels[0]:
            panel.get_legend().remove()
    legend_below(drawing, panels[1], n_columns=1)
    return drawing
