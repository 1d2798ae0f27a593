"""What the printed parameter counts of tables 1 and 2 can be made to fit: random counts in their place, other builds.

The facts have a pattern that meets some of the counts (`tables.fitted_rows`). Two things tell what that is worth: how
often as much freedom meets counts drawn at random, and what the counts of builds by other conventions meet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby, product
from typing import Any, NamedTuple

import numpy as np

from attn.experiments.ntm.runs import PAPER, numbers
from attn.experiments.ntm.tables import CHANNELS, PATTERNS, by_pattern, fitted_rows
from attn.reproduction.facts import load_papers

# --- random counts ---------------------------------------------------------------------------------------------

WIDTHS = range(61)  # of what is read
INPUTS = range(1, 13)  # where they are free
SPREAD = 0.2  # random counts are so much smaller or larger than the printed ones at most
DRAWS = 10_000
_RARE = 0.01  # share of random counts below which a fit is called a regularity


class Chance(NamedTuple):
    """Of so many sets of random counts, those that the pattern's freedom meets."""

    draws: int
    one: int  # with the inputs of table 3 in all rows but one, as the pattern has them
    free: int  # with free inputs in every row


def chance() -> Chance:
    """How often as much freedom as the pattern has meets random counts; the same draws each time."""
    rows = fitted_rows()
    printed = np.array([row["printed"] for row in rows])
    generator = np.random.default_rng(0)
    low, high = (np.round(printed * (1 + sign * SPREAD)).astype(int) for sign in (-1, 1))
    counts = generator.integers(low, high, size=(DRAWS, len(rows)), endpoint=True)
    one, free = np.any([allowed(width, rows, counts) for width in WIDTHS], axis=0).any(axis=2)
    return Chance(DRAWS, int(one.sum()), int(free.sum()))


def fits(rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """Widths of what is read, with the values more, at which the printed counts are met, one row's inputs free.

    Values more are given up to multiples of what a head value costs.
    """
    printed = np.array([[row["printed"] for row in rows]])
    found = {width: np.flatnonzero(allowed(width, rows, printed)[0, 0]) for width in WIDTHS}
    return [(width, int(more)) for width, constants in found.items() for more in constants]


def allowed(width: int, rows: Sequence[Mapping[str, Any]], counts: np.ndarray) -> np.ndarray:
    """Which numbers of values more give the counts, for a width of what is read and some head values in each row.

    Head values cost a controller's units and a bias each. So values more do if all rows leave the same remainder on
    division by that cost; values and remainders of any sign count, which makes it easier for random counts.

    Args:
        width: of what is read.
        rows: as of `fitted_rows`.
        counts: one for each row [K, rows].

    Returns:
        [2, K, cost of a head value]: with the inputs of table 3 in all rows but one, and with free inputs in all.
    """
    columns = list(zip(rows, counts.T, strict=True))
    fixed = [_remainders(row, width, [CHANNELS[row["task"]][0]], column) for row, column in columns]
    free = [_remainders(row, width, INPUTS, column) for row, column in columns]
    one = [_in_all([free[i], *fixed[:i], *fixed[i + 1 :]]) for i in range(len(rows))]
    return np.stack([np.any(one, axis=0), _in_all(free)])


def _remainders(row: Mapping[str, Any], width: int, inputs: Sequence[int], counts: np.ndarray) -> np.ndarray:
    """What is left of a row's counts [K] without head values, for some of these inputs: [K, cost of a head value]."""
    cost = row["size"] + 1
    found = np.zeros((len(counts), cost), bool)
    for n_in in inputs:
        case = {"n_in": n_in, "n_out": row["n_out"], "head_outputs": 0}
        rest = counts - by_pattern(row["kind"], row["size"], {"read_width": width, "more": 0}, case)
        found[np.arange(len(counts)), rest % cost] = True
    return found


def _in_all(found: Sequence[np.ndarray]) -> np.ndarray:
    return np.logical_and.reduce(found)


def chance_words() -> list[str]:
    """How often as much freedom as the pattern has meets random counts, and where each table alone fits."""
    found, rows = chance(), fitted_rows()
    printed = sum(len(load_papers()[PAPER].table(table).rows) for table, *_ in PATTERNS)
    regular = (
        f"so the fit is a regularity of {len(rows)} of {printed} counts, whose form was chosen by looking; it is no "
        "explanation"
    )
    verdict = "so a fit says little" if found.one > _RARE * found.draws else regular
    lines = [
        f"Would any counts have such a fit? {found.draws:,} sets of {len(rows)} counts were drawn at random, each at "
        f"most {SPREAD:.0%} off the printed one, and given as much freedom: any width of what is read from {WIDTHS[0]} "
        f"to {WIDTHS[-1]}, any number of values more, any number of values of a head pair in each row, and any inputs "
        f"from {INPUTS[0]} to {INPUTS[-1]} in one row. {found.one:,} of them have a fit, {verdict}. With free inputs in "
        f"every row {found.free:,} have one ({found.free / found.draws:.1%})."
    ]
    for table, group in groupby(rows, key=lambda row: row["table"]):
        widths = " or ".join(f"a width of {width} with {more} more" for width, more in fits(list(group)))
        lines.append(
            f"The counts of {table.partition('_')[0].replace('table', 'table ')} alone fit at {widths or 'no width'}."
        )
    return lines


# --- other conventions -------------------------------------------------------------------------------------------

# What a build may have otherwise than ours, and what is tried of each. The first option is ours.
CONVENTIONS: Mapping[str, tuple[Any, ...]] = {
    "shifts of a head": (3, 1, 5, 7),
    "biases of a head's value": (1, 0),
    "biases of a controller's unit or gate": (1, 0, 2),
    "peepholes of a layer": (0, 3),  # times its units
    "learned states of a layer": (2, 0),  # times its units
    "a second layer also sees inputs and reads": (True, False),
    "the output layer sees": (("hidden", "reads"), ("hidden",), ("reads",), ("hidden", "reads", "inputs")),
    "learned contents of the memory": ("none", "one slot", "every slot"),
    "learned reads": (False, True),
    "learned weightings": (False, True),
}


def conventions() -> list[dict[str, Any]]:
    """Every combination of the options, ours first."""
    return [dict(zip(CONVENTIONS, chosen, strict=True)) for chosen in product(*CONVENTIONS.values())]


def built(kind: str, row: Mapping[str, Any], how: Mapping[str, Any]) -> int:
    """Parameters of a row of table 1 or 2, built by a convention.

    Args:
        kind: "ntm_ff" or "ntm_lstm".
        row: of the table.
        how: an option of each of `CONVENTIONS`.
    """
    (n_in, n_out), (n_layers, size) = CHANNELS[row["task"]], numbers(row["controller_size"])
    n_slots, width = numbers(row["memory"])
    reads, heads = row["heads"] * width, row["heads"]
    emitted = heads * (4 * width + 2 * (3 + how["shifts of a head"]))
    sees = {"hidden": size, "reads": reads, "inputs": n_in}
    start = {"none": 0, "one slot": width, "every slot": n_slots * width}
    return (
        sum(_layer(kind, n_in + reads, size, index, how) for index in range(n_layers))
        + emitted * (size + how["biases of a head's value"])
        + n_out * (sum(sees[part] for part in how["the output layer sees"]) + 1)
        + start[how["learned contents of the memory"]]
        + reads * how["learned reads"]
        + 2 * heads * n_slots * how["learned weightings"]
    )


def _layer(kind: str, outside: int, size: int, index: int, how: Mapping[str, Any]) -> int:
    """Parameters of one layer of a controller that sees `outside` inputs and reads."""
    biases = how["biases of a controller's unit or gate"]
    if kind == "ntm_ff":
        return size * (outside + biases)
    sees = outside if not index or how["a second layer also sees inputs and reads"] else 0
    sees += size * (2 if index else 1)  # the layer below, and its own state
    return size * (4 * (sees + biases) + how["peepholes of a layer"] + how["learned states of a layer"])


class Conventions(NamedTuple):
    """How many of the printed counts builds by other conventions meet."""

    counts: int  # in tables 1 and 2
    builds: int
    most: int  # counts that one of the builds meets at most
    by_any: int  # builds that meet any


def tried() -> Conventions:
    """All of `conventions`, counted for every row of tables 1 and 2."""
    paper = load_papers()[PAPER]
    rows = [(kind, row) for table, kind, _ in PATTERNS for row in paper.table(table).rows]
    hits = [sum(built(kind, row, how) == row["parameters"] for kind, row in rows) for how in conventions()]
    return Conventions(len(rows), len(hits), max(hits), sum(hit > 0 for hit in hits))


def convention_words() -> list[str]:
    """Which other builds were counted, and how many of the printed counts they meet."""
    found = tried()
    options = "; ".join(f"{name} ({_options(name)})" for name in CONVENTIONS)
    return [
        f"{found.builds:,} builds were counted for all {found.counts} rows, every combination of: {options}.",
        f"No build meets more than {found.most} of the {found.counts} printed counts; {found.by_any} of the builds meet "
        "any.",
    ]


def _options(name: str) -> str:
    return ", ".join(_option(option) for option in CONVENTIONS[name])


def _option(option: Any) -> str:
    if isinstance(option, bool):
        return "yes" if option else "no"
    return " and ".join(option) if isinstance(option, tuple) else str(option)
