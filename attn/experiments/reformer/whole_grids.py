"""Table 2 as a whole by every set of conventions, and how far each is from what is printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from statistics import fmean
from typing import NamedTuple

from attn.experiments.reformer.convergence import has_converged, span_of
from attn.experiments.reformer.runs import CODE_MODELS, CODES, EXPERIMENTS, PAPER, TABLE2_ROWS
from attn.experiments.reformer.table2 import (
    CONVENTIONS,
    EVALUATED,
    HASHED,
    NO_RECORDS,
    Records,
    distances_of,
    named,
    percent_right,
    printed_grids,
    printed_parts,
    recorded_or_not,
    row_names,
    short,
)
from attn.experiments.reformer.words import came, listed, tenths
from attn.experiments.reformer.workloads import ROUNDS
from attn.reproduction.facts import load_papers
from attn.reproduction.grid import BLANK, Grid, Html, plain

Cells = Mapping[str, Sequence[float]]  # of table 2 in percent, by row; full attention, then 8, 4, 2, 1 rounds


class Conventions(NamedTuple):
    """What full attention and hashing mean, and the grid that comes of it."""

    label: str
    models: Mapping[str, str]  # of each row of table 2
    cells: Cells  # means over seeds, of those rows that are recorded

    @property
    def hashing(self) -> str:
        """What hashing means in it, which several kinds of full attention share."""
        return self.label.partition("; full: ")[0]


def grids(records: Records) -> list[Conventions]:
    """Table 2 by every set of conventions: hashing by the paper with four kinds of full attention, and by two codes.

    A model that was trained with LSH has no separate keys, so that kind of full attention has no column.
    """
    found = [
        _grid(f"the paper's hashing; full: {short(kind)}", {"full": kind}, kind, records)
        for kind in CONVENTIONS
        if kind != "separate"
    ]
    for code, (label, *_) in CODES.items():
        models = {row: model for model, (row, name) in CODE_MODELS.items() if name == code}
        found.append(_grid(label, models, "full", records))
    return found


def _grid(label: str, models: Mapping[str, str], full: str, records: Records) -> Conventions:
    """The grid whose column of full attention is the evaluation `full`; `models` of the rows that are not their own."""
    models = {row: models.get(row, row) for row in TABLE2_ROWS.values()}
    columns = (full, *(f"lsh{rounds}" for rounds in ROUNDS))
    cells = {
        row: [percent_right(records[model], column) for column in columns]
        for row, model in models.items()
        if records.get(model)
    }
    return Conventions(label, models, cells)


class Apart(NamedTuple):
    """Mean distance of a grid from a printed one in percentage points; None where a row is not recorded."""

    whole: float | None
    hashed: float | None  # of the cells that are hashed in training and in evaluation

    @classmethod
    def of(cls, ours: Cells, printed: Cells) -> Apart:
        """From the cells of both."""
        rows = {row: distances_of(cells, printed[row]) for row, cells in ours.items()}
        hashed = [points for row, cells in rows.items() if row != "full" for points in cells[1:]]
        return cls(
            fmean(chain(*rows.values())) if len(rows) == len(printed) else None,
            fmean(hashed) if set(HASHED) <= rows.keys() else None,
        )


def grids_table(records: Records) -> Html:
    """How far every set of conventions is from what is printed."""
    printed = printed_grids(load_papers()[PAPER])
    heads = [
        f"{who.removeprefix('the ').capitalize()}: {part}" for who in printed for part in ("all", "hashed")
    ]
    grid = Grid(
        plain("Whole grids of table 2: mean distance from either print, in percentage points"),
        ["Conventions", "Seeds", *heads],
    )
    for one in grids(records):
        apart = [Apart.of(one.cells, theirs) for theirs in printed.values()]
        shown = [BLANK if points is None else f"{points:.1f}" for pair in apart for points in pair]
        counts = [len(records.get(model, ())) for model in one.models.values()]
        seeds = span_of(counts) if any(counts) else BLANK
        grid.add([plain(one.label), plain(seeds), *map(plain, shown)])
    n_cells, n_hashed = len(EVALUATED) * len(TABLE2_ROWS), len(ROUNDS) * len(HASHED)
    grid.notes = [
        plain(
            f"All cells are {n_cells}; hashed are the {n_hashed} of models that were trained with LSH and are evaluated "
            "with it. Nothing is said of a part of which a row is not recorded."
        ),
        *(plain(f"By {CODES[code].label}: {code_words(code)}.") for code in CODES),
    ]
    return grid.render()


def code_words(code: str) -> str:
    """What a code takes hashing and full attention for."""
    _, full, hashed = CODES[code]
    seen = {
        "paper": "among keys of one bucket, each pair counted once",
        "public": "among all keys of the window, a pair counted as often as it meets",
    }
    keys = "keys of unit length, and the same factor" if full.unit_keys else "keys at their lengths"
    return (
        f"hashing into one bucket for each chunk, {seen[hashed.convention]}, keys of unit length, and products times "
        f"1/sqrt(d_k) all the same; full attention with {keys}"
    )


def grids_words(records: Records) -> list[str]:
    """Which set of conventions is nearest to either print; what is missing, and what had not converged."""
    models = list(dict.fromkeys(model for one in grids(records) for model in one.models.values()))
    there, missing = recorded_or_not(models, records)
    late = [name for name in there if not all(map(has_converged, records[name]))]
    lines = [*nearest("whole", "Whole grid", records), *nearest("hashed", "Hashed cells alone", records)]
    if missing:
        lines.append(f"Not recorded yet, so that this may change: {named(missing)}.")
    if late:
        lines.append(f"Not converged: {named(late)}.")
    return lines if there else NO_RECORDS


def expectations(records: Records) -> list[str]:
    """What the facts expected of models by public code beside what came; of words without a number nothing is judged."""
    theirs = printed_parts(load_papers()[PAPER])["the replication"]
    *_, replication, public = grids(records)
    lines = []
    if "full" in replication.cells:
        row = replication.cells["full"][1:]
        lines.append(
            f"By the replication's code, trained with full attention and evaluated with {listed(ROUNDS)} rounds: "
            f"{tenths(row)} percent, {listed(theirs.row)} in its print; {_seeds(records, replication)}. "
            f"Expected was less with more rounds{came(list(row) == sorted(row))}. Near chance was expected, too; how "
            f"near was not written down, so this is not judged (most: {max(row):.1f} percent, chance {_chance():.1f})."
        )
    if set(HASHED) <= replication.cells.keys():
        column = [replication.cells[row][0] for row in HASHED]
        lines.append(
            f"By the replication's code, trained as {row_names(HASHED)} and evaluated with full attention: "
            f"{tenths(column)} percent, {listed(theirs.column)} in its print; "
            f"{_seeds(records, replication)}. Expected was well above chance; how far was not written down, so this is "
            f"not judged (least: {min(column):.1f} percent, chance {_chance():.1f})."
        )
    if len(public.cells) == len(TABLE2_ROWS):
        least = min(*public.cells["full"][1:], *(public.cells[row][0] for row in HASHED))
        lines.append(
            f"By {public.label}, first row and first column: {least:.1f} percent and more; {_seeds(records, public)}. "
            f"Expected was that neither breaks, as less than half would{came(least > 50)}."
        )
    return lines or NO_RECORDS


def _chance() -> float:
    """What a model that knows nothing gets right, in percent."""
    return 100 / (EXPERIMENTS[0].config("cpu").vocab_size - 1)  # one symbol stands for the zeros


def _seeds(records: Records, one: Conventions) -> str:
    counts = [len(records.get(model, ())) for model in one.models.values() if records.get(model)]
    return f"seeds of each model: {span_of(counts)}"


def nearest(part: str, what: str, records: Records) -> list[str]:
    """For both who printed it the nearest set of conventions and the farthest, where there are several."""
    lines = []
    for who, points in ranked(part, records).items():
        (near, least), *_, (far, most) = points.items()
        lines.append(
            f"{what}, {who}: of {len(points)} sets of conventions, nearest is {near} ({least:.1f} percentage points "
            f"away on average); farthest is {far} ({most:.1f})."
        )
    return lines


def ranked(part: str, records: Records) -> dict[str, dict[str, float]]:
    """By who printed it, points of every set of conventions, nearest first; nothing where all are as near."""
    found, ranks = grids(records), {}
    for who, theirs in printed_grids(load_papers()[PAPER]).items():
        apart = {
            one.label if part == "whole" else one.hashing: getattr(Apart.of(one.cells, theirs), part)
            for one in found
        }
        points = {label: value for label, value in apart.items() if value is not None}
        if len(set(points.values())) > 1:
            ranks[who] = dict(sorted(points.items(), key=lambda item: item[1]))
    return ranks
