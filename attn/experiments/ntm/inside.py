"""What a trained Neural Turing Machine does, step by step: pictures of the one episode that a run keeps traced.

Of several seeds, the one that ends at the least cost is shown, and named. Weightings and bits go from white (0) to
black (1), vectors from blue (-1) to red (1). A weighting spread so thin that it would look empty gets shades of its
own, and says so. Slots form a circle: where a stretch in use crosses its end, the numbers run on below 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from attn.experiments.ntm.tables import final_cost
from attn.reproduction.figures import (
    COLOURS,
    SIGNED_MAP,
    WEIGHTS_MAP,
    binary_image,
    figure,
    weight_map,
)
from attn.reproduction.records import Record

Arrays = Mapping[str, np.ndarray]
Window = Callable[[np.ndarray], np.ndarray]
# Parts of an episode that belong together, in Okabe and Ito's colours that no model has.
_PAIR = ("#E69F00", "#CC79A7")
_TINT = 0.3
_FAINT = 0.2  # where a head's largest weight is less than this at most steps, black stands for less than 1
_FIT = 0.5  # share of the spread of places that a line must explain to be drawn
SHUFFLES = 999  # random orders that tell what chance would give
_TIE = 1e-9


def best(records: Sequence[Record]) -> Record | None:
    """The run that ends at the least cost; None without records."""
    return min(records, key=final_cost, default=None)


# --- copy, repeat copy and associative recall ---------------------------------------------------------------


def copying(records: Sequence[Record]) -> Figure | None:
    """One copied sequence (fig. 6): inputs, outputs, add and read vectors, weightings, memory before the answer."""
    record = best(records)
    if record is None:
        return None
    arrays = record.artifact()
    drawing, grid = _walk(arrays, record.seed, heads=((0, 0),))
    _dotted(grid[:, :2], [answer_step(arrays)], "the answer begins")
    return drawing


def repeating(records: Sequence[Record]) -> Figure | None:
    """One sequence copied several times (fig. 9), as `copying`; dotted lines where rounds and the end marker begin.

    The slots shown are those of reading and of writing before the answer: later the write head may spread over all.
    """
    record = best(records)
    if record is None:
        return None
    arrays = record.artifact()
    answer = answer_step(arrays)
    drawing, grid = _walk(arrays, record.seed, heads=((0, 0),), written=answer)
    rounds = range(answer, len(arrays["trace_inputs"]), answer - 2)
    _dotted(grid[:, :2], rounds, "a round begins")
    return drawing


def recalling(records: Sequence[Record], *, n_heads: int = 1) -> Figure | None:
    """One associative recall (fig. 12), the shown item and its successor in colours, up to `n_heads` heads of each kind.

    Heads are taken in the order of what they add, or read, over the episode.
    """
    record = best(records)
    if record is None:
        return None
    arrays = record.artifact()
    writers, readers = busiest(arrays["trace_add"]), busiest(arrays["trace_reads"])
    heads = list(zip(writers, readers, strict=False))[:n_heads]
    drawing, grid = _walk(arrays, record.seed, heads=heads)
    query, answer, *parts = recall_steps(arrays)
    for row, panels in enumerate(grid[:, :2]):
        for panel in panels:
            _spans(panel, parts, filled=row >= 2)
    _dotted(grid[:, :2], [query, answer], "query and answer begin")
    names = ("item shown again in the query", "item after it, to be answered")
    keys = [Patch(color=colour, alpha=_TINT) for colour in _PAIR]
    drawing.legend(keys, names, loc="outside lower center", ncols=2, fontsize=8)
    return drawing


def answer_step(arrays: Arrays) -> int:
    """First step of the answer of a traced episode: no task shows an input while the model answers."""
    return int(np.flatnonzero(arrays["trace_inputs"].any(axis=1))[-1]) + 1


def _walk(
    arrays: Arrays, seed: int, *, heads: Sequence[tuple[int, int]], written: int | None = None
) -> tuple[Figure, np.ndarray]:
    """Time to the right; what comes in and is written at the left, what goes out and is read at the right.

    Args:
        arrays: of a record.
        seed: of the run, for the title.
        heads: write and read head of each row of weightings, the first also of the vectors.
        written: first step whose writing does not tell which slots are in use and how dark its shades are; None for all.
    """
    rows = 2 + len(heads)
    drawing, grid = figure(
        rows, 3, height=5.1 / 3, height_ratios=(1, 1.5, *[2.2] * len(heads)), width_ratios=(1, 1, 0.35),
        sharex="col",
    )  # fmt: skip
    binary_image(grid[0][0], arrays["trace_inputs"], title=f"inputs (seed {seed})", ylabel="channel")
    binary_image(grid[0][1], arrays["trace_outputs"], title="outputs", ylabel="channel")
    several = arrays["trace_add"].shape[1] > 1
    writer, reader = heads[0]
    vectors(grid[1][0], arrays["trace_add"][:, writer], "add vectors" + _head(writer, several))
    vectors(grid[1][1], arrays["trace_reads"][:, reader], "read vectors" + _head(reader, several))
    for row, (writer, reader) in zip(grid[2:], heads, strict=True):
        _weightings(row, arrays, writer, reader, several, written)
    _scale(grid[0][2], WEIGHTS_MAP, 0)
    _scale(grid[1][2], SIGNED_MAP, -1)
    for panel in grid[-1][:2]:
        panel.set_xlabel("time step")
    return drawing, grid


def _weightings(
    row: Sequence[Axes], arrays: Arrays, writer: int, reader: int, several: bool, written: int | None
) -> None:
    """Where a write and a read head are, and what stands there before the answer."""
    write, read = arrays["trace_write_weights"][:, writer], arrays["trace_read_weights"][:, reader]
    window, first = used_slots(write[:written], read)
    darkest = black(write[:written])
    _weighting(row[0], write, window, "write weighting" + _head(writer, several), first, darkest)
    _weighting(row[1], read, window, "read weighting" + _head(reader, several), first)
    _memory(row[2], arrays, window, first)


def _memory(axes: Axes, arrays: Arrays, window: Window, first: int) -> None:
    """The memory before the answer, in the slots in use."""
    memory = window(arrays["trace_memory"].T).T
    extent = (-0.5, memory.shape[1] - 0.5, first + len(memory) - 0.5, first - 0.5)
    axes.imshow(memory, vmin=-1, vmax=1, cmap=SIGNED_MAP, extent=extent)
    axes.set(xticks=[], xlabel="component")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title("memory before\nthe answer", fontsize=8)


def _head(index: int, several: bool) -> str:
    return f", head {index + 1}" if several else ""


def vectors(axes: Axes, values: np.ndarray, title: str) -> Axes:
    """Vectors over time [T, D], values from -1 to 1."""
    axes.imshow(np.asarray(values, dtype=float).T, vmin=-1, vmax=1, cmap=SIGNED_MAP)
    axes.set(title=title, ylabel="component", yticks=[])
    return axes


def _scale(axes: Axes, shades: str, least: float) -> None:
    """What the shades of a row stand for, in a column that has no image there."""
    axes.set_axis_off()
    bar = axes.inset_axes((0.1, 0.05, 0.12, 0.9))
    axes.figure.colorbar(
        ScalarMappable(Normalize(least, 1), shades), cax=bar, ticks=[least, (least + 1) / 2, 1]
    )
    bar.tick_params(labelsize=7)


def _dotted(panels: np.ndarray, steps: Sequence[int], what: str) -> None:
    """Dotted lines where something begins, told below the last row."""
    for panel in panels.flat:
        for step in steps:
            panel.axvline(step - 0.5, color=COLOURS["paper"], linestyle=":", linewidth=1.2)
    for panel in panels[-1]:
        panel.set_xlabel(f"time step (dotted: {what})")


def busiest(vectors: np.ndarray) -> list[int]:
    """Heads in falling order of the size of their vectors [T, heads, D]."""
    sizes = np.linalg.norm(vectors.astype(float), axis=-1).mean(axis=0)
    return [int(head) for head in np.argsort(-sizes, kind="stable")]


def recall_steps(arrays: Arrays) -> tuple[int, int, list[tuple[int, int]], list[tuple[int, int]]]:
    """First steps of query and answer; then spans (from, to) of the item shown again, and of the one to answer."""
    inputs = arrays["trace_inputs"]
    query, after = np.flatnonzero(inputs[:, -1])
    length = after - query - 1
    starts = range(1, query, length + 1)
    shown = next(s for s in starts if (inputs[s : s + length] == inputs[query + 1 : after])[:, :-2].all())
    following = shown + length + 1
    queried = [(shown, shown + length), (query + 1, after)]
    wanted = [(following, following + length), (after + 1, after + 1 + length)]
    return int(query), int(after) + 1, queried, wanted


def _spans(axes: Axes, parts: Sequence[Sequence[tuple[int, int]]], *, filled: bool) -> None:
    """Spans of steps in the colours of `_PAIR`; framed where a tint would change the meaning of shades."""
    style = {"alpha": _TINT, "linewidth": 0} if filled else {"fill": False, "linewidth": 1.5}
    for colour, spans in zip(_PAIR, parts, strict=True):
        for start, end in spans:
            axes.axvspan(start - 0.5, end - 0.5, color=colour, **style)


# --- dynamic n-grams ----------------------------------------------------------------------------------------


def counting(records: Sequence[Record]) -> Figure | None:
    """One n-gram sequence (fig. 15): add vectors and weightings, with marks where two contexts come back.

    A model that kept a count for each context in a slot of its own would read this slot whenever the context is there,
    and write to it a step later, when it knows what followed. The memory is not drawn: runs keep it as it is before the
    first answer, and here the first step is one.
    """
    record = best(records)
    if record is None:
        return None
    arrays = record.artifact()
    drawing, panels = figure(5, height=1.2, height_ratios=(0.35, 0.35, 1.2, 2, 2), sharex=True)
    for panel, name, title in zip(
        panels, ("trace_inputs", "trace_outputs"), (f"last bit (seed {record.seed})", "predicted next bit"), strict=False
    ):  # fmt: skip
        binary_image(panel, arrays[name], title=title)
    inputs = arrays["trace_inputs"][:, 0]
    added = arrays["trace_add"][:, 0].astype(float)
    vectors(
        panels[2],
        added,
        f"add vectors (means after 0 and after 1 correlate by {_opposed(inputs, added):.2f}; "
        f"unrelated ones mostly by less than ±{_unrelated(added.shape[1]):.2f})",
    )
    write, read = arrays["trace_write_weights"][:, 0], arrays["trace_read_weights"][:, 0]
    window, first = used_slots(write, read)
    found = returning(inputs, record.data["config"]["task"]["order"] - 1)
    _weighting(panels[3], write, window, "write weighting", first)
    _weighting(panels[4], read, window, "read weighting", first)
    _returns(panels[3], {f"a step after {name}": steps + 1 for name, steps in found.items()}, len(inputs))
    _returns(panels[4], {f"after {name}": steps for name, steps in found.items()}, len(inputs))
    panels[4].set_xlabel("time step")
    return drawing


def returning(inputs: np.ndarray, length: int, count: int = 2) -> dict[str, np.ndarray]:
    """The contexts that come most often: their bits, and the steps at which they are the last bits seen.

    Args:
        inputs: the last bit at every step [T]; that of step 0 is no bit of the sequence.
        length: bits of a context.
        count: how many contexts.
    """
    windows = np.lib.stride_tricks.sliding_window_view(
        inputs[1:] > 0.5, length
    )  # the last ends at step T - 1
    names = np.array(["".join("01"[int(bit)] for bit in bits) for bits in windows])
    kinds, counts = np.unique(names, return_counts=True)
    most = kinds[np.argsort(-counts, kind="stable")][:count]
    return {str(name): np.flatnonzero(names == name) + length for name in most}


def _opposed(inputs: np.ndarray, added: np.ndarray) -> float:
    """Correlation over components of the mean vector added after a 0 with that after a 1."""
    ones = inputs > 0.5
    return float(np.corrcoef(added[ones].mean(axis=0), added[~ones].mean(axis=0))[0, 1])


def _unrelated(components: int) -> float:
    """What the correlation of two unrelated vectors stays below in 95% of cases, about."""
    return min(1.0, 1.96 / np.sqrt(max(components - 1, 1)))


def _returns(axes: Axes, marks: Mapping[str, np.ndarray], n_steps: int) -> None:
    """Triangles above a weighting."""
    top = axes.get_ylim()[1]
    for colour, (name, steps) in zip(_PAIR, marks.items(), strict=False):
        steps = steps[steps < n_steps]
        axes.plot(steps, np.full(len(steps), top), "v", color=colour, markersize=5, clip_on=False, label=name)
    axes.set_title(axes.get_title(), loc="left")
    axes.set_title("")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=8, borderaxespad=0.1)


# --- priority sort ------------------------------------------------------------------------------------------


def sorting(records: Sequence[Record]) -> Figure | None:
    """One priority sort (fig. 17): where vectors are written, in order of priority; where the answer is read.

    Of several heads that pair is shown whose reading fits its writing best, see `finding_pair`. Circles in the middle
    are where the vector that is due was written. A model may sort by giving each vector a place that depends on its
    priority alone, and then reading along. The third panel has place over priority, with the line around the circle of
    slots that fits best, if it explains more than half of the spread. Circles and dots are larger for larger weights.
    Beside them is the memory before the answer, in the same slots; below, what these heads add and read.
    """
    record = best(records)
    if record is None:
        return None
    arrays = record.artifact()
    priorities, order, written, answers = sort_steps(arrays)
    pair = finding_pair(arrays)
    write, read = written[:, pair.writer], answers[:, pair.reader]
    window, first = used_slots(write, read)
    drawing, (panels, below) = figure(2, 4, height=2.3, height_ratios=(3, 1), width_ratios=(1, 1, 1, 0.6))
    for panel in panels[1:]:
        panel.sharey(panels[0])
        panel.tick_params(labelleft=False)
    several = written.shape[1] > 1
    _weighting(panels[0], write[order], window, "write weighting" + _head(pair.writer, several), first)
    _weighting(panels[1], read, window, "read weighting" + _head(pair.reader, several), first)
    due = write[order[: len(answers)]]
    _places(panels[1], np.arange(len(answers)), due, first, facecolors="none", edgecolors=_PAIR[0])
    panels[1].set_ylabel("")
    title = _against_priority(panels[2], priorities, write, first)
    panels[2].set_title(f"where written (seed {record.seed}):\n{title}")
    _memory(panels[3], arrays, window, first)
    shown, added, seen = (
        len(written),
        arrays["trace_add"][:, pair.writer],
        arrays["trace_reads"][:, pair.reader],
    )
    vectors(below[0], added[:shown][order], "add vectors" + _head(pair.writer, several))
    vectors(below[1], seen[shown:], "read vectors" + _head(pair.reader, several)).set_ylabel("")
    below[2].set_axis_off()
    _scale(below[3], SIGNED_MAP, -1)
    for row in (panels, below):
        for panel, count in zip(row, (shown, len(answers)), strict=False):
            panel.set_xticks(range(0, count, 5), range(1, count + 1, 5))
    below[0].set_xlabel("vector (1: highest priority)")
    below[1].set_xlabel("step of the answer")
    return drawing


def sort_steps(arrays: Arrays) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What a traced sort holds.

    Returns:
        Priorities by arrival [T], arrivals with the highest priority first [T], weightings of the write heads while
        vectors are shown [T, W, N], and of the read heads over the answer [A, R, N].
    """
    shown = answer_step(arrays)
    priorities = arrays["trace_inputs"][:shown, -1].astype(float)
    written = arrays["trace_write_weights"][:shown].astype(float)
    answers = arrays["trace_read_weights"][shown:].astype(float)
    return priorities, np.argsort(-priorities, kind="stable"), written, answers


class Pair(NamedTuple):
    """A write and a read head of a traced sort, and how well they work together."""

    writer: int
    reader: int
    due: float  # overlap of the read weighting with the write weighting of the vector due, mean over the answer
    any: float  # the same with the write weighting of a vector at random
    reached: int  # of `SHUFFLES` random orders of the vectors, those in which the best pair gains as much


def finding_pair(arrays: Arrays) -> Pair:
    """The heads whose reading fits their writing best: most overlap with the vector due beyond that with any vector.

    The overlap of two weightings is the sum over slots of their product: 1 if both are on the same slot alone, 1 / N if
    one is on all slots alike. In a random order of the vectors, the best of all pairs of heads is taken too.
    """
    _, order, written, answers = sort_steps(arrays)
    overlap = np.einsum("arn,twn->wrat", answers, written)  # [W, R, A, T]
    by_chance = overlap.mean(axis=(2, 3))
    steps = np.arange(len(answers))

    def gain(order: np.ndarray) -> np.ndarray:
        return overlap[:, :, steps, order[: len(steps)]].mean(axis=2) - by_chance

    found = gain(order)
    writer, reader = map(int, np.unravel_index(found.argmax(), found.shape))
    most = [gain(shuffled).max() for shuffled in shuffles(len(order))]
    chance = float(by_chance[writer, reader])
    return Pair(
        writer, reader, float(found.max()) + chance, chance, int((np.array(most) >= found.max() - _TIE).sum())
    )


def shuffles(count: int) -> np.ndarray:
    """The same random orders of `count` things each time [SHUFFLES, count]."""
    generator = np.random.default_rng(0)
    return np.stack([generator.permutation(count) for _ in range(SHUFFLES)])


def _against_priority(axes: Axes, priorities: np.ndarray, weights: np.ndarray, first: int) -> str:
    """The slot each vector was written to most, over its priority, as in the maps; returns what the line says."""
    n_slots = weights.shape[1]
    slots = _main_slots(weights, first)
    slope, start, explained = circle_line(priorities, slots, n_slots, weights.max(axis=1))
    axes.set(xlabel="priority", xlim=(1.08, -1.08))
    fits = explained >= _FIT
    if fits:
        ends = np.array([-1.0, 1.0])
        start -= n_slots * np.round(np.median(slope * priorities + start - slots) / n_slots)
        line = slope * priorities + start
        slots = line + _around(slots - line, n_slots)
        axes.plot(ends, slope * ends + start, color="black", linewidth=1)
    _places(axes, priorities, weights, first, slots=slots, facecolors=COLOURS["paper"])
    return (
        f"line of {abs(slope):.1f} slots a unit,\n{explained:.0%} of the spread"
        if fits
        else "on no line around the circle"
    )


def _places(
    axes: Axes,
    x: np.ndarray,
    weights: np.ndarray,
    first: int,
    *,
    slots: np.ndarray | None = None,
    **colours: str,
) -> None:
    """A circle at the main slot of each weighting, larger for a larger weight."""
    slots = _main_slots(weights, first) if slots is None else slots
    sizes = 3 + 27 * weights.max(axis=1)
    axes.scatter(x, slots, s=sizes, linewidths=0.8, **colours)


def _main_slots(weights: np.ndarray, first: int) -> np.ndarray:
    """Slots of largest weight, numbered as in the maps that begin at `first`."""
    return (weights.argmax(axis=1) - first) % weights.shape[1] + first


def circle_line(
    x: np.ndarray, slots: np.ndarray, n_slots: int, weights: np.ndarray | None = None
) -> tuple[float, float, float]:
    """The line around a circle of slots that fits best: slot = slope * x + start, modulo `n_slots`.

    Args:
        x: [T], from -1 to 1.
        slots: [T].
        n_slots: slots of the circle; the line makes at most one turn over the range of x.
        weights: how much each of the slots counts [T]; all the same if not given.

    Returns:
        Slope in slots per unit of x, start, and the share of the spread around the best constant that it explains, 0
        if there is none to explain. The spread is the circular variance: 1 minus the length of the mean direction.
    """
    weights = np.ones(len(x)) if weights is None else weights
    slopes, sums = _directions(x, slots[:, None], n_slots, weights[:, None])
    found = int(np.abs(sums[:, 0]).argmax())
    start = np.angle(sums[found, 0]) * n_slots / (2 * np.pi)
    return float(slopes[found]), float(start), float(_explained(sums)[0])


def line_shares(x: np.ndarray, slots: np.ndarray, n_slots: int, weights: np.ndarray) -> np.ndarray:
    """The share of the spread that the best line explains, as `circle_line`, of many columns [T, K] at once: [K]."""
    return _explained(_directions(x, slots, n_slots, weights)[1])


def _directions(
    x: np.ndarray, slots: np.ndarray, n_slots: int, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Slopes of lines, the last 0 [S], and the mean direction around each of what is left of the slots [S, K]."""
    slopes = np.append(np.arange(-n_slots / 2, n_slots / 2, 0.1), 0.0)
    turn = 2j * np.pi / n_slots
    return slopes, np.exp(-turn * slopes[:, None] * x) @ (
        weights / weights.sum(axis=0) * np.exp(turn * slots)
    )


def _explained(sums: np.ndarray) -> np.ndarray:
    lengths = np.abs(sums)
    spread = 1 - lengths[-1]
    left = 1 - lengths.max(axis=0)
    return np.where(spread > _TIE, 1 - left / np.maximum(spread, _TIE), 0.0)


def _around(distance: np.ndarray, n_slots: int) -> np.ndarray:
    """The same distance the short way around the circle."""
    return (distance + n_slots / 2) % n_slots - n_slots / 2


# --- slots in use -------------------------------------------------------------------------------------------


def black(weights: np.ndarray) -> float:
    """The weight that is drawn black: 1, or, where a head [T, N] is spread thin, twice its usual largest."""
    largest = float(np.median(weights.astype(float).max(axis=1)))
    return 2 * largest if 0 < largest < _FAINT else 1.0


def _weighting(
    axes: Axes, weights: np.ndarray, window: Window, title: str, first: int, darkest: float | None = None
) -> None:
    """The slots in use of a weighting [T, N] over time, its shades told where they are not those of the others."""
    darkest = black(weights) if darkest is None else darkest
    said = f"\n(black: {darkest:.2g} or more)" if darkest < 1 else ""
    weight_map(axes, window(weights), title=title + said, first=first)
    axes.images[0].set_clim(0, darkest)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))


def used_slots(*weightings: np.ndarray) -> tuple[Window, int]:
    """A function that cuts the slots in use out of a weighting, unrolled around the circle, and the first's number.

    Args:
        weightings: [T, N] each; slots with a weight above a tenth of what is drawn black at any step count as used,
            with two more shown on either side.

    Returns:
        A function of arrays [T, N], and the number of its first column; below 0 if the stretch crosses the end.
    """
    used = np.any(
        [weights.astype(float).max(axis=0) > 0.1 * black(weights) for weights in weightings], axis=0
    )
    n_slots = len(used)
    if not used.any() or used.all():
        return (lambda weights: weights.astype(float)), 0
    gaps = [next(g for g in range(1, n_slots + 1) if used[(i + g) % n_slots]) for i in range(n_slots)]
    last = int(np.argmax(np.where(used, gaps, 0)))  # last used slot before the widest gap
    start = last + gaps[last] - 2
    width = min(n_slots - gaps[last] + 5, n_slots)
    first = start - n_slots if start + width > n_slots else start
    return (lambda weights: np.roll(weights.astype(float), -start, axis=1)[:, :width]), first
