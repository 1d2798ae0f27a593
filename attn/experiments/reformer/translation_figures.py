"""Figures of chapter 2 on translation; those of what is not recorded yet are None."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from matplotlib.figure import Figure

from attn.experiments.reformer.text_claims import bleu_of_test
from attn.experiments.reformer.translation_runs import LABELS
from attn.reproduction.figures import figure, learning_curves, legend_below
from attn.reproduction.records import Record

Records = Mapping[str, Sequence[Record]]  # by model
_WIDE = 4.6  # inches, so that a phone shows the words at their size
_COLOURS = {
    "transformer": "#882255", "long_transformer": "#882255", "short_shared": "#0072B2", "long_shared": "#0072B2",
    "short_apart": "#E69F00", "long_apart": "#E69F00", "big": "#009E73",
}  # fmt: skip


def scores(records: Records) -> Figure | None:
    """BLEU of the test split, a row for each recorded model, a mark for each seed and a line at the mean."""
    there = {model: list(map(bleu_of_test, found)) for model, found in records.items() if found}
    if not there:
        return None
    drawing, axes = figure(width=_WIDE, height=0.34 * len(there) + 0.9)
    for place, (model, found) in enumerate(there.items()):
        axes.plot(found, [place] * len(found), "o", color=_COLOURS[model], markersize=4, alpha=0.7)
        axes.plot([fmean(found)] * 2, [place - 0.3, place + 0.3], color=_COLOURS[model], linewidth=1.2)
    labels = [LABELS[model].replace(" embeddings", "") for model in there]
    axes.set(yticks=range(len(there)), yticklabels=labels, xlabel="BLEU of the test split")
    axes.invert_yaxis()
    return drawing


def curves(records: Records) -> Figure | None:
    """Perplexity of the validation split over updates, every seed and the median; the long trainings.

    The short ones are their beginnings but for the rate, which does not know when training ends: they are marks at
    their end.
    """
    there = {model: records[model] for model in records if model.startswith("long") and records[model]}
    ends = {model: records[model] for model in records if not model.startswith("long") and records[model]}
    if not there and not ends:
        return None
    drawing, axes = figure(width=_WIDE, height=2.8)
    seeds = {
        model: [[(entry["step"], entry["perplexity"]) for entry in record.history if entry["step"]] for record in found]
        for model, found in there.items()
    }  # fmt: skip
    learning_curves(axes, seeds, LABELS, colours=_COLOURS, xlabel="updates", ylabel="validation perplexity")
    for model, found in ends.items():
        last = [(record.history[-1]["step"], record.history[-1]["perplexity"]) for record in found]
        axes.plot(*zip(*last, strict=True), "x", color=_COLOURS[model], markersize=5, label=LABELS[model])
    axes.set_yscale("log")
    ticks = [tick for tick in (5, 10, 20, 50, 100) if tick >= axes.get_ylim()[0]]
    axes.set_yticks(ticks, [f"{tick}" for tick in ticks])
    axes.minorticks_off()
    legend_below(drawing, axes, n_columns=1)
    return drawing
