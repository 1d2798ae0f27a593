"""Cells of table 2: as printed, and of our records, by what a model was trained with and what it is evaluated with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from attn.experiments.reformer.runs import CODE_MODELS, CODES, LABELS, TABLE2_ROWS
from attn.experiments.reformer.words import listed
from attn.experiments.reformer.workloads import ROUNDS
from attn.reproduction.facts import Paper
from attn.reproduction.grid import BLANK
from attn.reproduction.records import Record

Records = Mapping[str, Sequence[Record]]  # by model
NO_RECORDS = ["No records yet."]
EVALUATED = ("eval_full", "eval_lsh8", "eval_lsh4", "eval_lsh2", "eval_lsh1")
HASHED = tuple(name for name in TABLE2_ROWS.values() if name != "full")
# What "full attention" may mean; the first is what LSH attention itself does.
CONVENTIONS = ("full", "full_with_self", "full_raw_keys", "full_plain", "separate")
_PRINTED = {"the paper": "table2", "the replication": "table2_reproduction"}


# --- names ---------------------------------------------------------------------------------------------------------


def row_names(attentions: Iterable[str]) -> str:
    names = {attention: row for row, attention in TABLE2_ROWS.items()}
    return listed(names[attention] for attention in attentions)


def short(name: str) -> str:
    return LABELS[name].removeprefix("full attention: ")


def recorded_or_not(names: Iterable[str], records: Records) -> tuple[list[str], list[str]]:
    """Those with records, and those without."""
    names = list(names)
    return [n for n in names if records.get(n)], [n for n in names if not records.get(n)]


def named(names: Sequence[str]) -> str:
    """Models by their labels; a code of which all rows are meant by its own."""
    whole = {code for code in CODES if {n for n, (_, c) in CODE_MODELS.items() if c == code} <= set(names)}
    said = [
        CODES[CODE_MODELS[name][1]].label
        if name in CODE_MODELS and CODE_MODELS[name][1] in whole
        else short(name)
        for name in names
    ]
    return "; ".join(dict.fromkeys(said))


# --- numbers -------------------------------------------------------------------------------------------------------


def printed_grids(paper: Paper) -> dict[str, dict[str, list[float]]]:
    """Table 2 as the paper and as the replication print it, by row, in the order full, 8, 4, 2, 1 rounds."""
    return {
        who: {TABLE2_ROWS[row["train"]]: [row[column] for column in EVALUATED] for row in paper.table(table).rows}
        for who, table in _PRINTED.items()
    }  # fmt: skip


class Parts(NamedTuple):
    """The first row and the first column of table 2 in percent; empty where they cannot be, or are not recorded."""

    row: tuple[float, ...]  # trained with full attention, evaluated with LSH of 8, 4, 2, 1 rounds
    column: tuple[float, ...]  # trained with LSH of 4, 2, 1 rounds, evaluated with full attention

    def distances(self, printed: Parts) -> Parts:
        """From printed numbers, cell by cell."""
        return Parts(*(distances_of(ours, theirs) for ours, theirs in zip(self, printed, strict=True)))

    @property
    def is_whole(self) -> bool:
        """Whether both are there."""
        return bool(self.row and self.column)


def distances_of(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, ...]:
    return tuple(abs(a - b) for a, b in zip(ours, theirs, strict=True)) if ours else ()


def printed_parts(paper: Paper) -> dict[str, Parts]:
    """As the paper and as the replication print them."""
    return {
        who: Parts(tuple(grid["full"][1:]), tuple(grid[name][0] for name in HASHED))
        for who, grid in printed_grids(paper).items()
    }


def parts(records: Records) -> dict[str, Parts]:
    """Ours, by what "full attention" means, means over seeds; a model trained with LSH has no separate keys."""
    found = {}
    for name in CONVENTIONS:
        trained, hashed = records.get(name, ()), [records.get(rounds, ()) for rounds in HASHED]
        can_be = name != "separate" and all(hashed)
        found[name] = Parts(
            tuple(percent_right(trained, f"lsh{rounds}") for rounds in ROUNDS) if trained else (),
            tuple(percent_right(some, name) for some in hashed) if can_be else (),
        )
    return found


def percent_right(found: Sequence[Record], evaluation: str) -> float:
    return 100 * fmean(share_right(record, evaluation) for record in found)


def share_right(record: Record, evaluation: str) -> float:
    return record.metric(f"accuracy_{evaluation}")


def in_a_row(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values) or BLANK
