"""The five models of table 3, timed: seconds and peak memory of a step over length and depth, from results/speed.

`benchmarks/model_types.py` measures the models that are made here: those that `growth` counts, with heads of a real
width and hashing by `attn.kernels.lsh`. Full attention keeps its weights, as the paper's formulas take it to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from attn.experiments.reformer.complexity import whole_model
from attn.experiments.reformer.growth import Growth, Model, benchmark_rows, left_out, printed_powers
from attn.experiments.reformer.runs import PAPER
from attn.reproduction.facts import load_papers
from attn.reproduction.figures import figure as new_figure
from attn.reproduction.figures import legend_below
from attn.reproduction.grid import BLANK, Cell, Grid, Html, plain
from attn.reproduction.speed import command

BENCHMARK = "model_types"
HEAD_DIM = 64
# By the paper's letters. Long models, which are mostly attention, over length, and wide and short ones over depth.
SIZES: Mapping[str, Mapping[str, int]] = {
    "l": {"b": 1, "nh": 2, "dff": 128, "dmodel": 128, "nr": 2, "c": 128**2, "nl": 2},
    "nl": {"b": 4, "nh": 2, "l": 128, "dff": 2048, "dmodel": 128, "nr": 2, "c": 32**2},
}
VALUES: Mapping[str, Sequence[int]] = {"l": (512, 1024, 2048, 4096), "nl": (2, 4, 8, 12)}
WORDS = {"l": "length", "nl": "layers"}


def kinds() -> list[str]:
    """The rows of table 3."""
    return [row["model_type"] for row in load_papers()[PAPER].table("table3").rows]


def build(kind: str, sizes: Mapping[str, int]) -> nn.Module:
    """The model that is timed, from [b, l, dmodel] to outputs, or to these and a state."""
    return whole_model(kind, sizes, head_dim=HEAD_DIM, n_buckets=None, fused=True)


def row_name(size: str, value: int) -> str:
    """The benchmark's row, such as "length 512"."""
    return f"{WORDS[size]} {value}"


# --- what was measured -------------------------------------------------------------------------------------------


class Measured(NamedTuple):
    """One model over one size: what a step takes."""

    peak: Growth  # bytes
    seconds: Growth


def measured(results: Path) -> dict[str, dict[str, Measured]]:
    """By size "l" or "nl" and by model, rows that were disturbed left out; a size without any row is not there."""
    rows = {row["name"]: row for row in benchmark_rows(results, BENCHMARK)}
    found = {}
    for size, values in VALUES.items():
        there = {value: rows[name] for value in values if (name := row_name(size, value)) in rows}
        if there:
            found[size] = {kind: _measured(kind, there) for kind in kinds()}
    return found


def _measured(kind: str, rows: Mapping[int, Mapping[str, Any]]) -> Measured:
    variants = [next(v for v in row["variants"] if v["name"] == kind) for row in rows.values()]
    return Measured(
        *(Growth(kind, tuple(rows), tuple(v[what] for v in variants)) for what in ("peak_bytes", "seconds"))
    )


# --- table -------------------------------------------------------------------------------------------------------

_COLUMNS = ("Model", *(f"{what} over {where}" for where in WORDS.values() for what in ("Peak", "Seconds")))


def exponent_table(
    found: Mapping[str, Mapping[str, Measured]], counted: Sequence[Model], results: Path
) -> Html:
    """Exponents of what was measured, and in brackets of what was counted and printed.

    Args:
        found: from `measured`.
        counted: from `growth.five_models`.
        results: where the measurements come from.
    """
    caption = "The five models: power of length and of depth, measured (counted, printed)"
    grid = Grid(plain(caption), _COLUMNS)
    for model in counted:
        ways = (
            (model.memory_over_length, model.work_over_length),
            (model.memory_over_depth, model.work_over_depth),
        )
        printed = zip(*(printed_powers(model.name, column) for column in ("memory", "time")), strict=True)
        cells = []
        for size, pair, powers in zip(WORDS, ways, printed, strict=True):
            ours = found[size][model.name] if size in found else (None, None)
            for own, way, power in zip(ours, pair, powers, strict=True):
                cells.append(f"{_power(own)} ({way.exponent:z.2f}, {power})")
        grid.add([plain(model.name), *map(plain, cells)])
    grid.notes = _notes(found, results)
    return grid.render()


def _power(way: Growth | None) -> str:
    return f"{way.exponent:z.2f}" if way and len(way.sizes) > 1 else BLANK


def _notes(found: Mapping[str, Mapping[str, Measured]], results: Path) -> list[Cell]:
    if not found:
        return [plain(f"Not measured yet: {command(BENCHMARK)}")]
    spans = []
    for size, models in found.items():
        sizes = next(iter(models.values())).seconds.sizes
        spans.append(f"{WORDS[size]} {sizes[0]:,} to {sizes[-1]:,}")
    return [
        plain(
            f"Measured: {', '.join(spans)}; the most bytes that a step holds beside parameters and the gradients of "
            "layers that are done, and seconds with the heap kept. Counted: what waits for the gradient, and "
            "operations, of smaller models of the same make."
        ),
        *map(plain, left_out(results, BENCHMARK)),
    ]


# --- figure ------------------------------------------------------------------------------------------------------

_LINES = ("#882255", "#0072B2", "#009E73", "#E69F00", "#D55E00")
_MARKERS = "osD^v"
# From broad to fine, so that a line that lies on another one hides nothing.
_BREADTHS = (4, 3.3, 2.6, 1.9, 1.2)
_QUANTITIES = {"seconds": ("seconds a step, kept heap", 1.0), "peak": ("peak, MiB", 2**-20)}


def figure(found: Mapping[str, Mapping[str, Measured]]) -> Figure | None:
    """Seconds above and peak memory below, over length at the left and depth at the right; both axes logarithmic."""
    if not found:
        return None
    drawing, panels = new_figure(len(_QUANTITIES), len(found), height=2.4, squeeze=False)
    for line, (quantity, (label, scale)) in zip(panels, _QUANTITIES.items(), strict=True):
        for panel, (size, models) in zip(line, found.items(), strict=True):
            _lines(panel, {kind: getattr(one, quantity) for kind, one in models.items()}, scale)
            panel.set_xlabel(WORDS[size])
        line[0].set_ylabel(label)
    legend_below(drawing, panels[0, 0])
    return drawing


def _lines(panel: Axes, ways: Mapping[str, Growth], scale: float) -> None:
    for (kind, way), *style in zip(ways.items(), _LINES, _MARKERS, _BREADTHS, strict=True):
        colour, marker, breadth = style
        values = [scale * value for value in way.values]
        look = {"color": colour, "marker": marker, "linewidth": breadth, "markersize": 2.5 + breadth}
        panel.plot(way.sizes, values, label=kind, **look)
    panel.set_xscale("log", base=2)
    panel.set_yscale("log", base=2)
    panel.set_xticks(way.sizes, [f"{size:,}" for size in way.sizes], fontsize=8)
    panel.yaxis.set_major_formatter("{x:.3g}")
    panel.minorticks_off()
