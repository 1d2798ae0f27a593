"""Figures of chapter 4; those of records are None where there are none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from attn.experiments.all_attention.concepts import Cluster, Layer
from attn.experiments.all_attention.results import equal_mass, gaps, margin, there
from attn.experiments.all_attention.runs import LONG, SWEEP
from attn.reproduction.figures import COLOURS, WEIGHTS_MAP, figure, legend_below
from attn.reproduction.records import Record

Records = Mapping[str, Sequence[Record]]  # by model

_PHONE = 4.6  # inches wide, so that a phone shows the words at their size
_BLUE, _ORANGE, _GREEN, _RED, _PINK = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
_LOOKS = {
    "ff": (_ORANGE, "s", "feed-forward"),
    "all": (_BLUE, "o", "all-attention, deeper"),
    "same_depth": (_GREEN, "D", "all-attention, same depth"),
    "equal_flops": (_PINK, "v", "all-attention, equal operations"),
    "none": (_RED, "X", "attention alone"),
    "deep_none": ("#000000", "P", "attention alone, deepest"),
}
_SHORT = {
    "all": "one softmax",
    "attn_split": "attn-split",
    "ff_attn": "ff-attn",
    "head_split": "head-split",
    "single_head": "single-head",
    "ff": "feed-forward",
    "none": "neither",
}


# --- before any training ------------------------------------------------------------------------------------


def layer(found: Layer) -> Figure:
    """What a layer's hidden units are with ReLU and with softmax, and the weights of attention over fixed pairs."""
    drawing, panels = figure(3, width=_PHONE, height=1.25, sharex=True)
    titles = ("ReLU(Vx): a feed-forward layer", "softmax(Vx)", "attention of x over the rows of V")
    for panel, title, values in zip(
        panels, titles, (found.relu, found.softmax, found.attention), strict=True
    ):
        panel.imshow(values, cmap=WEIGHTS_MAP, vmin=0)
        panel.set(title=title, yticks=[], ylabel="tokens")
        panel.spines[:].set_visible(True)
    panels[-1].set_xlabel("hidden unit, or persistent pair")
    return drawing


def shares(scores: Sequence[float], found: Mapping[int, np.ndarray]) -> Figure:
    """Weight on persistent vectors as one token of the context matches better, by N; and with two softmaxes."""
    drawing, axes = figure(width=_PHONE, height=2.7)
    for (n_persistent, values), colour, line in zip(
        found.items(), (_RED, _ORANGE, _BLUE, _GREEN), ("-", "--", "-.", ":"), strict=False
    ):
        axes.plot(scores, values, line, color=colour, label=f"one softmax, N = {n_persistent}")
    axes.axhline(1, color=COLOURS["paper"], linewidth=1, label="a softmax of their own")
    axes.set(xlabel="score of the best token of the context", ylabel="weight on the vectors", ylim=(0, 1.05))
    legend_below(drawing, axes)
    return drawing


def words(found: Sequence[Cluster]) -> Figure:
    """Values kept, and multiply-adds for a word, of each cluster, beside those of a plain softmax."""
    drawing, panels = figure(2, width=_PHONE, height=1.9)
    names = [f"{c.first + 1:,} to {c.first + c.n_words:,}" for c in found]
    plain = sum(c.n_words for c in found) * found[0].width / 1e6  # the first cluster has the model's width
    mean = sum(c.share * c.multiply_adds for c in found) / 1e6
    rows = (
        (
            "values of vectors and matrices",
            [c.values / 1e6 for c in found],
            sum(c.values for c in found) / 1e6,
            "all",
        ),
        ("multiply-adds for one word", [c.multiply_adds / 1e6 for c in found], mean, "mean over a text"),
    )
    for panel, (title, values, total, name) in zip(panels, rows, strict=True):
        labels = [*names, name, "plain softmax"]
        heights = [*values, total, plain]
        colours = [_BLUE] * len(found) + [_GREEN, _ORANGE]
        panel.barh(range(len(labels)), heights, color=colours)
        for place, height in enumerate(heights):
            panel.text(height, place, f" {height:.3g}", va="center", fontsize=8)
        panel.set(
            title=f"{title}, in millions",
            yticks=range(len(labels)),
            yticklabels=labels,
            xlim=(0, 1.15 * plain),
        )
        panel.invert_yaxis()
    panels[0].set_ylabel("rank of words")
    panels[1].set_ylabel("rank of words")
    return drawing


# --- from records -------------------------------------------------------------------------------------------


def _bits(record: Record) -> float:
    return record.metric("valid_bits")


def _seeds(
    axes, x: float, records: Sequence[Record], colour: str, marker: str, label: str | None = None
) -> None:
    """A mark a seed and a line at the mean."""
    values = [_bits(record) for record in records]
    axes.plot(
        [x] * len(values), values, marker, color=colour, markersize=5, linestyle="", label=label, alpha=0.8
    )


def sweep(records: Records) -> Figure | None:
    """Validation bits over N at fixed depth, with models without vectors beside it."""
    found = there(records)
    points = [
        (found[name][0].data["config"]["model"]["n_persistent"], found[name])
        for name in SWEEP
        if name in found
    ]
    if not points:
        return None
    drawing, axes = figure(width=_PHONE, height=3.0)
    places = range(len(points))
    for place, (_, rows) in zip(places, points, strict=True):
        _seeds(axes, place, rows, _BLUE, "o", "all-attention, a seed" if place == 0 else None)
    means = [float(np.mean([_bits(record) for record in rows])) for _, rows in points]
    axes.plot(places, means, color=_BLUE, linewidth=1, label="mean")
    for name, line in (("ff", "--"), ("deep_none", ":")):
        if name in found:
            colour, _, label = _LOOKS[name]
            mean = np.mean([_bits(record) for record in found[name]])
            axes.axhline(mean, color=colour, linestyle=line, label=f"{label}, mean")
    axes.set(
        xticks=places, xticklabels=[f"{n:,}" for n, _ in points], xlabel="persistent vectors N of each head",
        ylabel="validation bits per symbol",
    )  # fmt: skip
    legend_below(drawing, axes)
    return drawing


def variants(records: Records) -> Figure | None:
    """Validation bits of the ways to join vectors and context: every seed a mark."""
    found = there(records)
    rows = {name: found[name] for name in _SHORT if name in found}
    if not rows:
        return None
    drawing, axes = figure(width=_PHONE, height=0.34 * max(2, len(rows)) + 0.8)
    for place, (name, some) in enumerate(rows.items()):
        colour = _LOOKS[name][0] if name in ("ff", "none") else _BLUE
        values = [_bits(record) for record in some]
        axes.plot(values, [place] * len(values), "o", color=colour, markersize=5, alpha=0.8)
        axes.plot(np.mean(values), place, "|", color="black", markersize=14)
    axes.set(
        yticks=range(len(rows)),
        yticklabels=[_SHORT[name] for name in rows],
        xlabel="validation bits per symbol",
    )
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    axes.invert_yaxis()
    return drawing


def equal_cost(records: Records) -> Figure | None:
    """Validation bits beside parameters and beside operations: every seed a mark."""
    found = there(records)
    rows = {name: found[name] for name in _LOOKS if name in found}
    if not rows:
        return None
    drawing, panels = figure(2, width=_PHONE, height=2.1)
    for name, some in rows.items():
        colour, marker, label = _LOOKS[name]
        bits = [_bits(record) for record in some]
        sizes = [record.data["run"]["parameters"] / 1e3 for record in some]
        cost = [record.metric("flops") / 1e3 for record in some]
        style = {"color": colour, "markersize": 5, "linestyle": "", "alpha": 0.8}
        panels[0].plot(sizes, bits, marker, **style, label=label)
        panels[1].plot(cost, bits, marker, **style)
    panels[0].set(xlabel="thousands of parameters", ylabel="validation bits")
    panels[1].set(
        xlabel="thousands of multiply-adds a symbol, at the spans learned", ylabel="validation bits"
    )
    legend_below(drawing, panels[0])
    return drawing


def over_updates(records: Records) -> Figure | None:
    """Bits beside those of the model with feed-forward layers over updates: means of pairs of seeds, and their range."""
    curves = [
        (name, end, *found)
        for name in ("all", "same_depth", "equal_flops", "none")
        for end in ("", LONG)
        if (found := gaps(records, name, end=end))[0]
    ]
    if not curves:
        return None
    drawing, axes = figure(width=_PHONE, height=2.8)
    for name, end, steps, found in curves:
        colour, marker, label = _LOOKS[name]
        steps, found = steps[1:], found[:, 1:]  # a logarithmic axis has no 0
        axes.plot(
            steps, found.mean(axis=0), "--" if end else "-", marker=marker, color=colour, markersize=4,
            label=f"{label}, longer training" if end else label,
        )  # fmt: skip
        axes.fill_between(steps, found.min(axis=0), found.max(axis=0), color=colour, alpha=0.15, linewidth=0)
    axes.axhline(0, color=_ORANGE, linewidth=1, label="feed-forward")
    axes.axhline(margin(), color=COLOURS["paper"], linestyle=":", label="margin")
    axes.set(xscale="log", xlabel="updates", ylabel="more validation bits")
    ticks = sorted({step for _, _, steps, _ in curves for step in (steps[1], steps[-1])})
    axes.set_xticks(ticks, [f"{step:,}" for step in ticks])
    axes.xaxis.set_minor_formatter("")
    legend_below(drawing, axes)
    return drawing


def mass(records: Sequence[Record]) -> Figure | None:
    """Share of the weight on persistent vectors: a mark for each head of each seed, a line for the layer's mean.

    Dotted is chance: what the vectors would get if all scores were equal.
    """
    kept = [arrays["mass"] for record in records if "mass" in (arrays := record.artifact())]
    if not kept:
        return None
    drawing, axes = figure(width=_PHONE, height=2.5)
    shares_ = np.stack(kept)  # [seeds, L, H]
    layers = np.arange(1, shares_.shape[1] + 1)
    n_seeds, _, n_heads = shares_.shape
    for seed in range(n_seeds):
        for head in range(n_heads):
            shift = 0.25 * ((seed + 0.5) / n_seeds - 0.5)
            label = "a head of a seed" if seed == head == 0 else None
            axes.plot(
                layers + shift, shares_[seed, :, head], "o", color=_BLUE, markersize=3, alpha=0.6, label=label
            )
    axes.axhline(equal_mass(records), color=COLOURS["paper"], linestyle=":", label="equal scores")
    axes.plot(layers, shares_.mean((0, 2)), color=_ORANGE, linewidth=1.5, label="mean of the layer")
    axes.set(xticks=layers, xlabel="layer, from the input up", ylabel="weight on the vectors", ylim=(0, 1.02))
    legend_below(drawing, axes)
    return drawing


def concentration(record: Record | None) -> Figure | None:
    """How much of a layer's weight on vectors its most used ones hold."""
    kept = {} if record is None else record.artifact()
    if "sorted_usage" not in kept:
        return None
    drawing, axes = figure(width=_PHONE, height=2.5)
    usage = kept["sorted_usage"]
    held = usage.cumsum(1) / usage.sum(1, keepdims=True)
    places = np.arange(1, usage.shape[1] + 1)
    shades = np.linspace(0.25, 1, len(usage))
    for number, (curve, shade) in enumerate(zip(held, shades, strict=True), start=1):
        axes.plot(places, curve, color=_BLUE, alpha=shade, label=f"layer {number}")
    axes.plot(places, places / places[-1], ":", color=COLOURS["paper"], label="all used alike")
    axes.set(
        title=f"seed {record.seed}",
        xscale="log",
        xlabel="most used vectors of a layer",
        ylabel="share of the weight",
        ylim=(0, 1.02),
    )
    legend_below(drawing, axes, n_columns=3)
    return drawing


def users(record: Record | None, *, per_layer: int = 4) -> Figure | None:
    """Mean weight on the most used vectors of each layer, by the symbol at the query."""
    kept = {} if record is None else record.artifact()
    if "top_usage" not in kept or "symbols" not in kept:
        return None
    usage = kept["top_usage"][:, :per_layer]
    heads, vectors = (kept[name][:, :per_layer] for name in ("top_head", "top_vector"))
    shown = np.flatnonzero(kept["symbol_count"])
    if len(shown) > 40:  # bytes: the most frequent ones
        shown = np.sort(np.argsort(-kept["symbol_count"])[:40])
    n_layers = len(usage)
    drawing, axes = figure(width=_PHONE, height=0.17 * n_layers * per_layer + 0.9)
    axes.imshow(usage[:, :, shown].reshape(-1, len(shown)), cmap=WEIGHTS_MAP, vmin=0)
    names = [
        f"{layer + 1}: head {heads[layer, k] + 1}, no. {vectors[layer, k] + 1}"
        for layer in range(n_layers)
        for k in range(usage.shape[1])
    ]
    symbols = ["␣" if chr(s) == " " else chr(s) for s in kept["symbols"][shown]]
    axes.set(
        title=f"seed {record.seed}",
        yticks=range(len(names)),
        xticks=range(len(symbols)),
        xticklabels=symbols,
        xlabel="symbol at the query",
    )
    axes.set_yticklabels(names, fontsize=7)
    for edge in range(usage.shape[1], len(names), usage.shape[1]):
        axes.axhline(edge - 0.5, color=_BLUE, linewidth=0.8)
    return drawing
