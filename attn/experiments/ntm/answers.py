"""What trained models of the Neural Turing Machine's chapter answer: images of one episode each, from records.

Of several seeds, the one of median cost at the end is shown, and named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attn.experiments.ntm.figures import Records, there
from attn.experiments.ntm.runs import LABELS
from attn.experiments.ntm.tables import typical
from attn.reproduction.figures import COLOURS, binary_image, figure, legend_below

_NAMES = {"ntm_lstm": "NTM, LSTM", "ntm_ff": "NTM, feed-forward", "lstm": "LSTM"}  # beside images
Kept = Mapping[str, Mapping[str, np.ndarray]]  # arrays of one run, by the name beside its images


def copies(records: Records, lengths: Sequence[int]) -> Figure | None:
    """Targets, and what a typical run of each model answers, for several lengths (the paper's figs. 4 and 5).

    Inputs are not kept apart and not drawn: they are the target's vectors, shown before the answer is due.
    """
    kept = _kept(records)
    if not kept:
        return None
    ratios = [max(length, 12) for length in lengths]
    drawing, grid = figure(1 + len(kept), len(lengths), height=0.95, width_ratios=ratios, squeeze=False)
    for column, length in enumerate(lengths):
        _answer_rows(grid[:, column], kept, str(length), f"length {length}", named=column == 0)
    drawing.supxlabel("step of the answer", fontsize=9)
    return drawing


def repeats(records: Records, sizes: Sequence[tuple[int, int]]) -> Figure | None:
    """Targets, and below them a typical run's answers, of repeat copy at several (length, repeats) (fig. 8).

    The lowest row of each image is the end marker.
    """
    kept = _kept(records)
    if not kept:
        return None
    rows = 1 + len(kept)
    drawing, panels = figure(rows * len(sizes), height=0.6)
    for index, (length, n_repeats) in enumerate(sizes):
        group = panels[index * rows : (index + 1) * rows]
        _answer_rows(group, kept, f"{length}x{n_repeats}", f"{length} vectors, {n_repeats} repeats")
        for panel in group:
            _end_marker_row(panel)
    drawing.supxlabel("step of the answer", fontsize=9)
    return drawing


def _kept(records: Records) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of the typical run of each model."""
    chosen = {kind: typical(rows) for kind, rows in there(records).items()}
    return {f"{_NAMES[kind]}\n(seed {record.seed})": record.artifact() for kind, record in chosen.items()}


def _answer_rows(panels: Sequence[Axes], kept: Kept, size: str, title: str, *, named: bool = True) -> None:
    """One panel for the target and one below it for each model's answer."""
    first = next(iter(kept.values()))
    _image(panels[0], first[f"targets_{size}"] / 255, title, "target" if named else None)
    for panel, (name, arrays) in zip(panels[1:], kept.items(), strict=True):
        _image(panel, arrays[f"outputs_{size}"] / 255, "", name if named else None)


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


def predictions(records: Records) -> Figure | None:
    """One n-gram sequence: its bits, the optimal predictions, those of each model's typical run (fig. 14), the errors.

    Probabilities of a 1 are shades from white to black; below, the distance from the optimal probability.
    """
    chosen = {kind: typical(rows) for kind, rows in there(records).items()}
    kept = _kept(records)
    if not kept:
        return None
    first = next(iter(kept.values()))
    strips = {"sequence": first["targets_trace"] / 255, "optimal": first["optimal_trace"][:, None]}
    strips |= {name: arrays["outputs_trace"] / 255 for name, arrays in kept.items()}
    ratios = [1] * len(strips) + [3.5]
    drawing, panels = figure(len(ratios), height=0.6, sharex=True, height_ratios=ratios)
    for panel, (name, values) in zip(panels, strips.items(), strict=False):
        _image(panel, values.astype(float), "", name)
    for kind, arrays in zip(chosen, kept.values(), strict=True):
        off = off_optimal(arrays)
        label = f"{LABELS[kind]} (mean {off.mean():.2f})"
        panels[-1].plot(off, color=COLOURS[kind], linewidth=1, label=label)
    panels[-1].set(xlabel="bit of the sequence", ylabel="distance\nfrom optimal", ylim=(0, 1))
    legend_below(drawing, panels[-1], n_columns=2)
    return drawing


def off_optimal(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Distance of a run's prediction from the optimal one at every bit of the sequence it keeps [T]."""
    return np.abs(arrays["outputs_trace"][:, 0] / 255 - arrays["optimal_trace"].astype(float))
