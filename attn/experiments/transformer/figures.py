"""Figures of chapter 1 that need no training, or a little: drawn from what `concepts` and `complexity` compute.

Functions that end in `_words` say in a sentence the numbers that a figure shows. Figures are narrower than the page, so
that a phone shows their words at a legible size, where their content allows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from attn.experiments.transformer.complexity import (
    ATTENTION,
    CONVOLUTION,
    KERNEL,
    LAYERS,
    NEIGHBOURHOOD,
    PATH_NEIGHBOURHOOD,
    RECURRENT,
    RESTRICTED,
    multiply_adds,
)
from attn.experiments.transformer.concepts import EXPLODING_SCALE, BeyondTraining, RecallBudget, ScaleEffect
from attn.experiments.transformer.pronoun import SENTENCES, looks
from attn.reproduction.figures import COLOURS, SIGNED_MAP, WEIGHTS_MAP, figure, legend_below

# Okabe and Ito's colours; each kind has a marker of its own too, for those who see no colours.
_COLOURS = {
    "attention": "#0072B2",
    "rnn": "#E69F00",
    "lstm": COLOURS["lstm"],
    "gru": "#CC79A7",
    "exploding": "#000000",
}
_MARKERS = {"attention": "o", "rnn": "s", "lstm": "^", "gru": "D", "exploding": "v"}
_NAMES = {
    "attention": "attention",
    "rnn": "RNN",
    "lstm": "LSTM",
    "gru": "GRU",
    "exploding": f"RNN, recurrent weights × {EXPLODING_SCALE:g}",
}
_LAYER_COLOURS = {ATTENTION: "#0072B2", RECURRENT: "#E69F00", CONVOLUTION: "#009E73", RESTRICTED: "#56B4E9"}
_LAYER_LINES = {ATTENTION: "-", RECURRENT: "--", CONVOLUTION: "-.", RESTRICTED: ":"}
_SCALED = {"scaled": ("#0072B2", "o", "with 1/√d_k"), "plain": (COLOURS["lstm"], "s", "without")}
_SMALL = 5  # points, of tokens at the sides of many small maps
_PHONE = 4.6  # inches wide, so that a phone shows the words at their size


# --- attention and positions --------------------------------------------------------------------------------


def scale(effect: ScaleEffect) -> Figure:
    """What the factor 1 / sqrt(d_k) is for: variance of dot products, entropy and derivative of the softmax."""
    drawing, panels = figure(3, width=_PHONE, height=1.9, sharex=True)
    band(panels[0], effect.widths, effect.variance, color=_SCALED["plain"][0], marker="s", label="measured")
    panels[0].plot(effect.widths, effect.widths, ":", color="black", linewidth=1, label="variance = d_k")
    panels[0].set(xscale="log", yscale="log", title="variance of q · k")
    for panel, values in ((panels[1], effect.entropy), (panels[2], effect.gradient)):
        for name, (colour, marker, label) in _SCALED.items():
            band(panel, effect.widths, values[name], color=colour, marker=marker, label=label)
        panel.set_ylim(bottom=0)
    uniform = np.log2(effect.n_keys)
    panels[1].axhline(uniform, color=COLOURS["paper"], linestyle="--", linewidth=1, label="uniform")
    panels[1].set_ylim(0, 1.1 * uniform)
    panels[1].set_title(f"entropy of the weights over {effect.n_keys} keys (bits)")
    panels[2].set(title="size of the softmax's derivative (Frobenius norm)", xlabel="d_k")
    for panel in panels:
        panel.set_xticks(effect.widths, effect.widths)
        panel.minorticks_off()
        panel.legend(fontsize=8)
    return drawing


def scale_words(effect: ScaleEffect) -> str:
    """The ends of the curves, and how the derivatives compare at each width, in sentences."""
    at_end = {
        name: float(values[:, -1].mean())
        for name, values in {
            "variance": effect.variance,
            **{f"{name} entropy": values for name, values in effect.entropy.items()},
            **{f"{name} gradient": values for name, values in effect.gradient.items()},
        }.items()
    }
    ratios = effect.gradient["plain"].mean(0) / effect.gradient["scaled"].mean(0)
    by_width = ", ".join(
        f"{ratio:.2f} at {width}" for width, ratio in zip(effect.widths, ratios, strict=True)
    )
    return (
        "At d_k = {width} the dot products have variance {variance:.0f}; the weights over {n_keys} keys have "
        "{scaled entropy:.2f} bits of entropy with the factor and {plain entropy:.2f} without, and the softmax's "
        "derivative has size {scaled gradient:.3f} and {plain gradient:.3f}. "
        "The size without the factor over that with it, by d_k: {by_width}."
    ).format(width=effect.widths[-1], n_keys=effect.n_keys, by_width=by_width, **at_end)


def band(axes: Axes, x: np.ndarray, draws: np.ndarray, *, every: int = 1, **style: Any) -> None:
    """The median of draws [draws, W] over x as a line, with markers `every` so many points; the range as a band."""
    axes.fill_between(x, draws.min(0), draws.max(0), color=style["color"], alpha=0.2, linewidth=0)
    axes.plot(x, np.median(draws, axis=0), markersize=4, linewidth=1.5, markevery=every, **style)


def position_map(table: np.ndarray) -> Figure:
    """Sinusoids [T, D] as heat maps, one row a position; sines and cosines apart, whose neighbours differ little."""
    drawing, panels = figure(2, width=_PHONE, height=1.7, sharex=True)
    for panel, first, name in zip(
        panels, (0, 1), ("even dimensions: sine", "odd dimensions: cosine"), strict=True
    ):
        extent = (-0.5, table.shape[1] - 0.5, len(table) - 0.5, -0.5)
        image = panel.imshow(table[:, first::2], vmin=-1, vmax=1, cmap=SIGNED_MAP, extent=extent)
        panel.set(title=name, ylabel="position", yticks=range(0, len(table), 5))
    panels[1].set_xlabel("dimension")
    drawing.colorbar(image, ax=panels, ticks=[-1, 0, 1], pad=0.02)
    return drawing


def position_rotation(
    table: np.ndarray, *, offset: int = 3, start: int = 1, pairs: Sequence[int] = (0, 24, 48, 72)
) -> Figure:
    """Pairs (sine, cosine) of sinusoids [T, D] as points on circles, and what an offset does to one of them.

    Args:
        table: of at least `start + offset + 1` positions.
        offset: positions that the arrow goes on by.
        start: position it begins at.
        pairs: i of the pairs 2 i and 2 i + 1.
    """
    drawing, grid = figure(2, 2, width=_PHONE, height=2.2)
    for panel, pair in zip(grid.flat, pairs, strict=True):
        cosine, sine = table[:, 2 * pair + 1], table[:, 2 * pair]
        panel.add_patch(Circle((0, 0), 1, fill=False, color="#BBBBBB", linewidth=0.8))
        panel.plot(cosine, sine, "o", color=COLOURS["paper"], markersize=4)
        ends = [(cosine[place], sine[place]) for place in (start, start + offset)]
        panel.plot(*zip(*ends, strict=True), "o", color="#0072B2", markersize=5)
        curve = {
            "arrowstyle": "-|>",
            "color": "#0072B2",
            "connectionstyle": "arc3,rad=0.25",
            "shrinkA": 4,
            "shrinkB": 4,
        }
        panel.annotate("", ends[1], ends[0], arrowprops=curve)
        for place, (x, y) in zip((start, start + offset), ends, strict=True):
            panel.annotate(str(place), (x, y), (1.22 * x, 1.22 * y), fontsize=8, ha="center", va="center")
        angle = np.degrees(np.arctan2(*ends[1][::-1]) - np.arctan2(*ends[0][::-1])) % 360
        panel.set(
            title=f"dimensions {2 * pair}, {2 * pair + 1}: {angle:.1f}°", aspect="equal", xticks=[], yticks=[]
        )
        panel.set(xlim=(-1.4, 1.4), ylim=(-1.4, 1.4))
        panel.set_axis_off()
    return drawing


def position_limits(found: BeyondTraining, *, dimensions: Sequence[int] = (0, 60, 120, 200)) -> Figure:
    """Some dimensions of both kinds of positions, within and beyond the lengths of training."""
    drawing, panels = figure(2, width=_PHONE, height=1.7, sharex=True, sharey=True)
    titles = ("sinusoids", "learned, at its start: no row beyond training")
    for panel, table, title in zip(panels, (found.sinusoids, found.learned), titles, strict=True):
        for dimension, colour in zip(dimensions, list(_COLOURS.values()), strict=False):
            panel.plot(table[:, dimension], color=colour, linewidth=1.2, label=str(dimension))
        panel.axvline(found.max_len - 0.5, color=COLOURS["paper"], linestyle="--", linewidth=1)
        panel.set_title(title)
    panels[1].set(xlabel="position (dashed: end of training)", xlim=(0, len(found.sinusoids) - 1))
    drawing.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8, title="dimension",
        title_fontsize=8,
    )  # fmt: skip
    return drawing


# --- distance -----------------------------------------------------------------------------------------------


def gradients(curves: Mapping[str, np.ndarray], *, least: float = 1e-12) -> Figure:
    """Gradient norms over distance.

    Args:
        curves: [seeds, distances] of `gradient_by_distance`, by "rnn", "lstm", "gru", "attention", "exploding".
        least: what lies below is not shown.
    """
    drawing, axes = figure(width=_PHONE, height=3.3)
    for kind, norms in curves.items():
        x = np.arange(norms.shape[1])
        style = {"color": _COLOURS[kind], "marker": _MARKERS[kind], "label": _NAMES[kind]}
        band(axes, x, np.maximum(norms, least / 10), every=10, **style)
    axes.set(yscale="log", xlabel="distance (positions)", ylabel="gradient norm")
    axes.set_ylim(least, 10 * max(norms.max() for norms in curves.values()))
    legend_below(drawing, axes)
    return drawing


def gradients_words(curves: Mapping[str, np.ndarray]) -> str:
    """By which factor the median gradient changes a step, from the slope of its logarithm over the first 30 steps."""
    parts = []
    for kind, norms in curves.items():
        middle = np.log(np.median(norms, axis=0))[1:31]  # at distance 0 attention also asks
        slope = np.polyfit(np.arange(len(middle)), middle, 1)[0]
        parts.append(f"{_NAMES[kind]} {np.exp(slope):.2f}")
    return "Factor on the gradient for one position more: " + "; ".join(parts) + "."


def recalls(gaps: Sequence[int], shares: Mapping[str, np.ndarray], *, chance: float) -> Figure:
    """Share of right answers [seeds, gaps] over the gap, by kind: every seed a mark, the median a line.

    Lines that lie on each other are told apart by markers of different sizes.
    """
    drawing, axes = figure(width=_PHONE, height=2.9)
    for size, (kind, found) in zip((8, 7, 6, 5), shares.items(), strict=False):
        style = {"color": _COLOURS[kind], "marker": _MARKERS[kind]}
        axes.plot(np.tile(gaps, (len(found), 1)).T, found.T, linestyle="", markersize=4, alpha=0.6, **style)
        axes.plot(gaps, np.median(found, axis=0), markersize=size, linewidth=1.5, label=_NAMES[kind], **style)
    axes.axhline(chance, color=COLOURS["paper"], linestyle="--", linewidth=1, label="chance")
    axes.set_xscale("log", base=2)
    axes.set(
        xticks=gaps,
        xticklabels=gaps,
        ylim=(0, 1.05),
        xlabel="symbols in between",
        ylabel="share of right answers",
    )
    legend_below(drawing, axes, n_columns=3)
    return drawing


def recalls_words(
    gaps: Sequence[int],
    shares: Mapping[str, np.ndarray],
    *,
    chance: float,
    budget: RecallBudget | None = None,
) -> str:
    """What each kind remembers over the shortest and the longest gap, medians over seeds, and the budget, in sentences.

    Args:
        gaps: symbols in between.
        shares: of right answers [seeds, gaps], by kind.
        chance: share of right answers by chance.
        budget: what the models were trained with; None for the defaults.
    """
    budget = budget or RecallBudget()
    parts = [
        f"{_NAMES[kind]} {np.median(found[:, 0]):.0%} and {np.median(found[:, -1]):.0%}"
        for kind, found in shares.items()
    ]
    seeds = len(next(iter(shares.values())))
    return (
        f"Right answers with {gaps[0]} and with {gaps[-1]} symbols in between: {'; '.join(parts)}; by chance "
        f"{chance:.0%}. Medians over {seeds} seeds; at most {budget.max_updates} updates each; training stops "
        f"where the loss falls below {budget.solved:g} nats."
    )


def schedules(steps: np.ndarray, curves: Mapping[str, np.ndarray]) -> Figure:
    """Learning rates over updates, peaks marked."""
    drawing, axes = figure(width=_PHONE, height=2.6)
    for (name, rates), colour, line in zip(
        curves.items(), _COLOURS.values(), ("-", "--", "-.", ":", "-"), strict=False
    ):
        peak = int(rates.argmax())
        label = f"{name} (peak {rates[peak]:.2e} at {steps[peak]})"
        axes.plot(steps / 1000, rates * 1e4, line, color=colour, linewidth=1.5, label=label)
        axes.plot(steps[peak] / 1000, rates[peak] * 1e4, "o", color=colour, markersize=4)
    axes.set(xlabel="thousand updates", ylabel="learning rate (10⁻⁴)", ylim=(0, None), xlim=(0, None))
    legend_below(drawing, axes, n_columns=1)
    return drawing


# --- complexity ---------------------------------------------------------------------------------------------


def costs(lengths: Sequence[int] = (64, 128, 256, 512, 1024, 2048), *, d_model: int = 512) -> Figure:
    """Multiply-adds of the four types of layer over n at one d: the terms that table 1 compares."""
    drawing, axes = figure(width=_PHONE, height=3.2)
    for kind in LAYERS:
        terms = [multiply_adds(kind, n, d_model).term for n in lengths]
        label = kind + {CONVOLUTION: f", k = {KERNEL}", RESTRICTED: f", r = {NEIGHBOURHOOD}"}.get(kind, "")
        axes.plot(lengths, terms, _LAYER_LINES[kind], color=_LAYER_COLOURS[kind], linewidth=1.8, label=label)
    axes.axvline(d_model, color=COLOURS["paper"], linewidth=0.8, label="n = d")
    axes.set_xscale("log", base=2)
    axes.set(
        yscale="log", xlabel="sequence length n", ylabel="multiply-adds", xticks=lengths, xticklabels=lengths
    )
    legend_below(drawing, axes)
    return drawing


def steps(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Longest chain and longest path over n, from `complexity.table_rows`."""
    drawing, panels = figure(2, width=_PHONE, height=2.2)
    titles = {
        "chain": "matrix products in sequence, one layer",
        "path": f"operations between the two ends, k = {KERNEL}, r = {PATH_NEIGHBOURHOOD}",
    }
    markers = dict(zip(LAYERS, "osD^", strict=True))
    for panel, (key, title) in zip(panels, titles.items(), strict=True):
        for size, row in zip((8, 7, 6, 4), rows, strict=True):
            kind = row["layer_type"]
            style = {"color": _LAYER_COLOURS[kind], "marker": markers[kind], "markersize": size}
            panel.plot(*zip(*row[key].items(), strict=True), _LAYER_LINES[kind], label=kind, **style)
            if key == "path" and "contiguous" in row:
                ends = row["contiguous"].items()
                panel.plot(
                    *zip(*ends, strict=True), ":", label=f"{kind}, not dilated", **(style | {"marker": "x"})
                )
        lengths = list(rows[0][key])
        panel.set_xscale("log", base=2)
        panel.set_yscale("log", base=2)
        panel.set(title=title, xlabel="sequence length n", xticks=lengths, xticklabels=lengths)
        ticks = [2**power for power in range(7)]
        panel.set_yticks(ticks, ticks)
    legend_below(drawing, panels[1])
    return drawing


# --- attention maps -----------------------------------------------------------------------------------------


def layers_by_heads(
    maps: np.ndarray,
    *,
    queries: str = "queries",
    keys: str = "keys",
    tokens: tuple[Sequence[str], Sequence[str]] | None = None,
) -> Figure:
    """Attention weights [N, H, T, S] as a grid of small maps, queries downwards; each map from 0 to its own largest.

    Args:
        maps: the weights.
        queries, keys: what both axes are called.
        tokens: of the queries [T] and of the keys [S]; at the left and at the lower edge of the grid, if given.
    """
    n_layers, n_heads = maps.shape[:2]
    size = 7.2 / n_heads
    height = size * min(1.6, max(0.6, maps.shape[2] / maps.shape[3]))
    drawing, grid = figure(n_layers, n_heads, height=height, squeeze=False)
    for (layer, head), panel in np.ndenumerate(grid):
        panel.imshow(maps[layer, head].astype(float), vmin=0, cmap=WEIGHTS_MAP)
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(True)
        panel.spines[:].set_color("#BBBBBB")
        if layer == 0:
            panel.set_title(f"{head + 1}", fontsize=12)
        if head == 0:
            panel.set_ylabel(f"{layer + 1}", fontsize=12, rotation=0, labelpad=10, va="center")
            if tokens is not None:
                _tokens(panel.yaxis, tokens[0], size=_SMALL)
        if layer == n_layers - 1 and tokens is not None:
            _tokens(panel.xaxis, tokens[1], rotation=90, size=_SMALL)
    drawing.supxlabel(f"{keys}, by head", fontsize=12)
    drawing.supylabel(f"{queries}, by layer", fontsize=12)
    return drawing


def one_head(weights: np.ndarray, queries: Sequence[str], keys: Sequence[str], *, title: str = "") -> Figure:
    """One head's weights [T, S] with the tokens at both sides."""
    size = 0.19
    drawing, axes = figure(width=_PHONE, height=max(2.2, size * len(queries) + 1.1))
    image = axes.imshow(np.asarray(weights, dtype=float), vmin=0, vmax=1, cmap=WEIGHTS_MAP)
    _tokens(axes.xaxis, keys, rotation=90)
    _tokens(axes.yaxis, queries)
    axes.set(title=title, xlabel="keys", ylabel="queries")
    drawing.colorbar(image, ax=axes, ticks=[0, 0.5, 1], pad=0.02)
    return drawing


def one_token(weights: np.ndarray, tokens: Sequence[str], index: int, *, title: str = "") -> Figure:
    """Where each head of a layer looks from one token: weights [H, T, S] at query `index`."""
    drawing, axes = figure(width=_PHONE, height=0.22 * len(weights) + 1.3)
    image = axes.imshow(np.asarray(weights[:, index], dtype=float), vmin=0, vmax=1, cmap=WEIGHTS_MAP)
    _tokens(axes.xaxis, tokens, rotation=90)
    axes.get_xticklabels()[index].set_fontweight("bold")
    axes.set_yticks(range(len(weights)), range(1, len(weights) + 1))
    axes.set(title=title or f"from “{shown(tokens[index])}”", ylabel="head")
    drawing.colorbar(image, ax=axes, ticks=[0, 0.5, 1], pad=0.02)
    return drawing


def pronoun(arrays: Mapping[str, np.ndarray]) -> Figure:
    """How far each encoder head's look from "it" leans to the dog, in the sentence about either noun.

    Args:
        arrays: what `pronoun_maps` kept.
    """
    lean = _leans(arrays)
    drawing, axes = figure(width=_PHONE, height=3.4)
    axes.plot([-1, 1], [-1, 1], color=COLOURS["paper"], linewidth=0.8)
    for layer, (x, y) in enumerate(zip(lean["dog"], lean["street"], strict=True)):
        style = {"color": list(_COLOURS.values())[layer % 5], "marker": "osD^v"[layer % 5]}
        axes.plot(x, y, linestyle="", markersize=5, label=f"layer {layer + 1}", **style)
    limit = 1.1 * max(0.05, *(float(np.abs(values).max()) for values in lean.values()))
    axes.set(
        xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal",
        xlabel="weight on “dog” minus “street”, … was too tired", ylabel="the same, … was too wide",
    )  # fmt: skip
    legend_below(drawing, axes)
    return drawing


def pronoun_words(runs: Sequence[Mapping[str, np.ndarray]], *, least: float = 0.05) -> str:
    """How many heads resolve the pronoun, and how far the sentences move a head at most, over all runs.

    Args:
        runs: of each run what `pronoun_maps` kept.
        least: weight by which a head has to lean, in both sentences, to count.
    """
    leans = [_leans(arrays) for arrays in runs]
    counts = {limit: [_right(lean, limit) for lean in leans] for limit in (0, least)}
    clear = sum(count > 0 for count in counts[least])
    shift = max((lean["dog"] - lean["street"] for lean in leans), key=lambda moved: np.abs(moved).max())
    layer, head = np.unravel_index(np.abs(shift).argmax(), shift.shape)
    heads = sum(lean["dog"].size for lean in leans)
    of_runs = f"{len(runs)} run{'' if len(runs) == 1 else 's'}, {heads} heads in all"
    resolved = (
        f"A head resolves the pronoun in {clear} of {of_runs}"
        if clear
        else f"No head resolves the pronoun in any of {of_runs}"
    )
    return (
        f"{resolved}: {sum(counts[0])} heads lean to the dog where the dog is meant and to the street where "
        f"the street is, {sum(counts[least])} by more than {least:g} of the weight each time. The largest change from "
        f"one sentence to the other is {abs(shift[layer, head]):.3f} (layer {layer + 1}, head {head + 1}, "
        f"{'towards' if shift[layer, head] > 0 else 'away from'} what is meant). It is one pair of sentences."
    )


def _leans(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weight from the pronoun to the dog minus to the street [N, H], by the noun that is meant."""
    found = looks(arrays)
    return {meant: found.to_dog[meant] - found.to_street[meant] for meant in SENTENCES}


def _right(lean: Mapping[str, np.ndarray], limit: float) -> int:
    """Heads that lean by more than `limit` to the noun that is meant, in both sentences."""
    return int(((lean["dog"] > limit) & (lean["street"] < -limit)).sum())


def _tokens(axis: Any, tokens: Sequence[str], *, size: float = 8, **style: Any) -> None:
    axis.set_ticks(range(len(tokens)), [shown(token) for token in tokens], fontsize=size, **style)


def shown(token: str) -> str:
    """A sub-word as text: its mark of a word's beginning becomes an underscore, and no sign starts mathematics."""
    return token.replace("▁", "_").replace("$", r"\$")
