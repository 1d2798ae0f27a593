"""What chapters show of their benchmarks beside the tables: rates, and the figures that are not reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from attn.reproduction.grid import BLANK, Grid, Html, plain
from attn.reproduction.speed import HEAPS, Speed, joined, of_benchmark, reached

EVALUATION = ", evaluation"  # ends the name of a row without a backward pass
_PASSES = {"training": "", "evaluation": EVALUATION}
Row = Mapping[str, Any]


class Figure(NamedTuple):
    """A figure that a benchmark was to reach and does not."""

    result: Speed
    kind: str  # "time" or "memory"
    rows: tuple[Row, ...]  # of one name, one for each heap that it was measured with
    said: str  # what was found and what was to be reached, a clause


# --- rates -----------------------------------------------------------------------------------------------------


def rates_table(found: Sequence[Speed], benchmark: str) -> Html:
    """Tokens a second of every variant in training and in evaluation, for each heap."""
    return joined(map(_rates, of_benchmark(found, benchmark)))


def _rates(result: Speed) -> Html:
    environment = result.data["environment"]
    device = environment["cpu"] if environment["device"] == "cpu" else environment["device"]
    columns = [f"{name.capitalize()}, {heap} heap" for name in _PASSES for heap in HEAPS]
    grid = Grid(
        plain(f"{device}: {result.data['unit']} a second in training and in evaluation; the sub-layer alone"),
        ["Row", "Variant", *columns],
    )
    rates = {
        (row["name"], row["heap"], variant["name"]): variant["rate"]
        for row in result.data["rows"]
        for variant in row["variants"]
    }
    for name in dict.fromkeys(row["name"].removesuffix(EVALUATION) for row in result.data["rows"]):
        variants = dict.fromkeys(variant for row, _, variant in rates if row.removesuffix(EVALUATION) == name)
        for index, variant in enumerate(variants):
            places = [(name + end, heap, variant) for end in _PASSES.values() for heap in HEAPS]
            cells = [f"{rates[place]:,.0f}" if place in rates else BLANK for place in places]
            grid.add([None if index else plain(name), *map(plain, [variant, *cells])])
    return grid.render()


# --- figures -----------------------------------------------------------------------------------------------------


def missed(result: Speed) -> list[Figure]:
    """The figures that a result does not reach, time and then memory of each row; disturbed times are not judged."""
    found = []
    for name in dict.fromkeys(row["name"] for row in result.data["rows"]):
        rows = [row for row in result.data["rows"] if row["name"] == name]
        slow = [row for row in rows if _is_slow(row)]
        large = [row for row in rows if _is_large(row)]
        if slow:
            found.append(Figure(result, "time", tuple(slow), f"{name}: {_time(slow)}"))
        if large:
            found.append(Figure(result, "memory", tuple(large), f"{name}: {_memory(large)}"))
    return found


def missed_words(
    found: Sequence[Speed], benchmark: str, suspected: Mapping[str, Callable[[Figure], str]]
) -> list[str]:
    """A sentence for each figure that is not reached, with the reason that is suspected.

    Args:
        found: results of benchmarks.
        benchmark: which one.
        suspected: the reason by kind of figure, as a clause; of other kinds it is said that none is known.
    """
    results = of_benchmark(found, benchmark)
    if not results:
        return ["Not measured yet."]
    lines = []
    for result in results:
        for figure in missed(result):
            reason = suspected.get(figure.kind)
            why = f"Suspected reason: {reason(figure)}" if reason else "The reason is not known"
            lines.append(f"Not reached at {figure.said}. {why}.")
    return lines or ["Of the figures that were judged, none is missed."]


def variant(row: Row, name: str) -> Row:
    """A row's variant of this name."""
    return next(one for one in row["variants"] if one["name"] == name)


def _is_slow(row: Row) -> bool:
    return row["goal"] is not None and reached(row, variant(row, row["goal"]["against"])) is False


def _time(rows: Sequence[Row]) -> str:
    goals = [row["goal"] for row in rows]
    ours, theirs = rows[0]["variants"][0]["name"], goals[0]["against"]
    ratios = [variant(row, goal["against"])["ratio"] for row, goal in zip(rows, goals, strict=True)]
    asked = [goal["ratio"] for goal in goals]
    least = "at least"
    if asked[0] < 1:  # ours may take longer, but not by more than so much
        ours, theirs, least = theirs, ours, "at most"
        ratios, asked = ([1 / value for value in values] for values in (ratios, asked))
    taken = " and ".join(
        f"{ratio:.2f} times ({row['heap']} heap)" for ratio, row in zip(ratios, rows, strict=True)
    )
    return f"{theirs} takes {taken} as long as {ours}, {least} {_listed(asked)} asked"


def _memory_ratio(row: Row) -> float:
    return variant(row, row["memory_goal"]["against"])["peak_bytes"] / row["variants"][0]["peak_bytes"]


def _is_large(row: Row) -> bool:
    goal = row.get("memory_goal")
    return goal is not None and round(_memory_ratio(row), 2) < goal["ratio"]


def _memory(rows: Sequence[Row]) -> str:
    """The heap is no matter to what tensors take."""
    goal, ours = rows[0]["memory_goal"], rows[0]["variants"][0]["name"]
    ratio = f"{_memory_ratio(rows[0]):.2f}"
    return f"{goal['against']} holds {ratio} times as much memory as {ours}, at least {goal['ratio']:g} asked"


def _listed(values: Sequence[float]) -> str:
    return " and ".join(dict.fromkeys(f"{value:.3g}" for value in values))
