"""How different the heads of a layer are: distances between their maps, of a trained model and before training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import torch
from matplotlib.figure import Figure

from attn.experiments.transformer.workloads import TransformerConfig
from attn.reproduction.figures import COLOURS, figure, legend_below
from attn.reproduction.records import Record

KINDS = {
    "encoder": "encoder self-attention",
    "decoder": "decoder self-attention",
    "cross": "encoder-decoder attention",
}
_COLOURS = {"encoder": "#0072B2", "decoder": "#E69F00", "cross": "#009E73"}
_MARKERS = {"encoder": "o", "decoder": "s", "cross": "D"}
Distances = Mapping[str, np.ndarray]  # by kind of attention [N]


def distances(maps: np.ndarray) -> np.ndarray:
    """Mean distance of two heads of a layer [N], for weights [N, H, T, S].

    The distance of two weightings is the share of the weight that one of them has to move to become the other, half the
    sum of absolute differences: 0 if they are equal, 1 if they have no key in common. Mean over queries and pairs.
    """
    maps = maps.astype(float)
    pairs = list(combinations(range(maps.shape[1]), 2))
    return np.mean([np.abs(maps[:, i] - maps[:, j]).sum(-1).mean(-1) / 2 for i, j in pairs], axis=0)


def of_record(record: Record) -> Distances:
    """Distances in the maps that a Transformer's record keeps."""
    arrays = record.artifact()
    return {kind: distances(arrays[f"attention_{kind}"]) for kind in KINDS}


def untrained(record: Record, *, n_draws: int = 5) -> Distances:
    """The same of models at their random start, of the record's sizes, on random tokens; mean over draws."""
    config, arrays = record.data["config"], record.artifact()
    sides = [len(arrays[f"attention_{side}"]) for side in ("source", "target")]
    found: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    vocab_size = config["corpus"]["vocab_size"]
    with torch.random.fork_rng(devices=[]):
        for seed in range(n_draws):
            torch.manual_seed(seed)
            model = TransformerConfig(**config["model"]).build(vocab_size).eval()
            source, target = (torch.randint(4, vocab_size, (1, length)) for length in sides)
            with torch.no_grad():
                maps = model.attention_maps(source, target)._asdict()
            for kind in KINDS:
                found[kind].append(distances(torch.cat(list(maps[kind])).numpy()))
    return {kind: np.mean(draws, axis=0) for kind, draws in found.items()}


def draw(record: Record | None) -> Figure | None:
    """Distances over the layers, trained (lines) and at the random start (dotted)."""
    if record is None:
        return None
    drawing, axes = figure(width=4.6, height=2.9)
    start = untrained(record)
    for kind, values in of_record(record).items():
        layers = range(1, len(values) + 1)
        style = {"color": _COLOURS[kind], "marker": _MARKERS[kind], "markersize": 5}
        axes.plot(layers, values, label=KINDS[kind], **style)
        axes.plot(layers, start[kind], ":", **style)
    axes.plot([], [], ":", color=COLOURS["paper"], label="before training")
    axes.set(xticks=list(layers), xlabel="layer", ylabel="distance of two heads", ylim=(0, 1))
    legend_below(drawing, axes)
    return drawing


def words(records: Sequence[Record]) -> str:
    """The means over layers and runs in a sentence, with their range over runs."""
    if not records:
        return "No records yet."
    found, start = (
        {kind: [one[kind].mean() for one in each] for kind in KINDS}
        for each in ([of_record(record) for record in records], [untrained(record) for record in records])
    )
    parts = []
    for kind, name in KINDS.items():
        values = found[kind]
        span = f"{min(values):.2f} to {max(values):.2f}; " if len(values) > 1 else ""
        parts.append(f"{np.mean(values):.2f} in {name} ({span}{np.mean(start[kind]):.2f} before training)")
    runs = "1 run" if len(records) == 1 else f"each of {len(records)} runs, the mean and the range over them"
    return (
        "Of the weight that a position gives, two heads of a layer place this share on different positions: "
        f"{'; '.join(parts)}. One sentence of {runs}."
    )
