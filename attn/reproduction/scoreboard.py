"""Collects, for every chapter, what each cell and claim stands at: the one source of pages and `attn status`."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attn.reproduction.claims import FAILS, HOLDS, NOT_TESTED, Verdict, judge, untested
from attn.reproduction.effects import effects_text
from attn.reproduction.errors import UsageError
from attn.reproduction.experiment import RECORDED_PROFILES, Chapter, Exact, Measured, Recomputed, TableView
from attn.reproduction.facts import THE_PAPER, FactTable, Paper, load_papers
from attn.reproduction.number_text import printed_decimals
from attn.reproduction.records import Record, Skipped, load_records
from attn.reproduction.staleness import Freshness, freshness, least


class ChapterState:
    """A chapter with its facts, its valid records and their freshness.

    Args:
        chapter: the declaration.
        records: valid records of any chapter.
    """

    def __init__(self, chapter: Chapter, records: Iterable[Record]) -> None:
        self.chapter = chapter
        self.paper: Paper = load_papers()[chapter.paper]
        self.records = [record for record in records if record.data["paper"] == chapter.paper]
        experiments = {experiment.id: experiment for experiment in chapter.experiments}
        self._freshness = {r.key: freshness(r, experiments.get(r.data["experiment"])) for r in self.records}

    def freshness(self, record: Record) -> Freshness:
        """Whether a record describes today's code."""
        return self._freshness[record.key]

    def is_stale(self, record: Record) -> bool:
        """Whether a record may not."""
        return self._freshness[record.key].stale

    def _state(self, record: Record) -> str:
        return self._freshness[record.key].state

    def of(self, experiment: str, profile: str) -> list[Record]:
        """Records of one experiment at one profile, by seed."""
        found = [
            r for r in self.records if r.data["experiment"] == experiment and r.data["profile"] == profile
        ]
        return sorted(found, key=lambda record: record.seed)

    def verdicts(self) -> list[Verdict]:
        """All claims of the paper: those that have a test judged, the others as not tested."""
        tested = {claim.fact for claim in self.chapter.claims}
        judged = [judge(claim, self.paper, self.records, self._state) for claim in self.chapter.claims]
        return judged + [untested(fact) for fact in self.paper.claims if fact.id not in tested]

    def tables(self) -> list[dict[str, Any]]:
        """All tables with their cells."""
        return [self.table(view.id) for view in self.chapter.tables]

    def table(self, table_id: str) -> dict[str, Any]:
        """One table with its cells, as `attn status --json` prints it."""
        fact = self.paper.table(table_id)
        view = next(view for view in self.chapter.tables if view.id == table_id)
        return {
            "id": fact.id,
            "whose": fact.whose,
            "caption": fact.caption,
            "checked": fact.checked,
            "read_off": fact.read_off,
            "source": fact.source,
            "notes": fact.notes,
            "columns": [{"name": name, "role": _role(view, name)} for name in fact.columns],
            "rows": [self._row(fact, view, row) for row in fact.rows],
        }

    def _row(self, fact: FactTable, view: TableView, row: Mapping[str, Any]) -> dict[str, Any]:
        # other systems' numbers, and the paper's own that no run here stands for
        shown = {"quoted": "quoted", "not rerun": "own"}.get(row.get("kind"))
        cells = [self._cell(view, row, name, shown) for name in fact.columns if _role(view, name) != "label"]
        quoted = shown == "quoted"
        command = None if shown else view.command(row)
        label = view.label(row)
        return {"id": _slug(label), "label": label, "quoted": quoted, "command": command, "cells": cells}

    def _cell(self, view: TableView, row: Mapping[str, Any], name: str, shown: str | None) -> dict[str, Any]:
        cell = {
            "column": name,
            "paper": row.get(name),
            "verified": self.paper.table(view.id).confirms(row, name),
            "values": {},
            "matches": None,
            "freshness": None,
            "note": None,
            "detail": {},
        }
        if name in view.settings:
            return cell | {"kind": "setting", "state": "setting"}
        theirs = cell | {"kind": shown or "quoted", "state": shown or "quoted"}
        if row.get(name) is None:
            return theirs
        rule = view.cells[name]
        if shown and not isinstance(rule, Recomputed):
            return theirs
        if isinstance(rule, Measured):
            return cell | self._measured(rule, row)
        table = self.paper.table(view.id)
        found = compared(rule, table, row, name, [other.get(name) for other in table.rows])
        # what cannot be computed of another system stays quoted; of the paper's own it is still to come
        return theirs if shown and found["state"] == "pending" else cell | found

    def _measured(self, rule: Measured, row: Mapping[str, Any]) -> dict[str, Any]:
        values, detail, states = {}, {}, []
        experiment = rule.experiment(row)
        for profile in RECORDED_PROFILES if experiment is not None else ():
            pairs = [(r, v) for r in self.of(experiment, profile) if (v := _value(rule, row, r)) is not None]
            if not pairs:
                continue
            numbers = [value for _, value in pairs]
            values[profile] = statistics.median(numbers) if rule.skewed else statistics.fmean(numbers)
            detail[profile] = _detail(pairs, rule, self._share(pairs[0][0]))
            states += [self._state(record) for record, _ in pairs]
        state = "recorded" if values else "pending"
        return {
            "kind": "measured",
            "values": values,
            "detail": detail,
            "freshness": least(states),
            "state": state,
        }

    def _share(self, record: Record) -> str:
        """What share of the paper's training a record is, in today's words unless it is stale."""
        if self.is_stale(record):
            return record.data["run"]["share"]
        experiment = self.chapter.experiment(record.data["experiment"])
        return experiment.share(experiment.config(record.data["profile"]))

    def deviations(self) -> list[dict[str, Any]]:
        """Where the book departs from the paper, each with its effects as far as they are measured."""
        found = effects_text(self.chapter.effects, self.of)
        return [vars(item) | {"effect": found.get(item.id)} for item in self.paper.deviations]

    def as_dict(self) -> dict[str, Any]:
        """The chapter as `attn status --json` prints it."""
        claims, tables = self.verdicts(), self.tables()
        return {
            "id": self.paper.id,
            "number": self.chapter.number,
            "title": self.paper.title,
            "short_title": self.chapter.short_title,
            "notebook": self.chapter.notebook,
            "headline": headline(claims, tables),
            "tables": tables,
            "claims": [claim.as_dict() for claim in claims],
            "deviations": self.deviations(),
            "records": [self.as_line(record) for record in self.records],
        }

    def as_line(self, record: Record) -> dict[str, Any]:
        """A record in the words of `attn status --json`."""
        _, experiment, profile, seed = record.key
        state = self.freshness(record)
        data = record.data
        return {
            "path": _record_path(record),
            "experiment": experiment,
            "profile": profile,
            "seed": seed,
            "freshness": state.state,
            "why": state.why,
            "device": _device(data["environment"]),
            "seconds": data["run"]["seconds"],
            "commit": (data["code"]["commit"] or "unknown")[:7],
            "torch": data["environment"]["torch"],
            "date": data["run"]["finished"],
        }


def _device(environment: Mapping[str, Any]) -> str:
    """The accelerator, or the processor, if it is known, with the number of threads."""
    if environment["device"] != "cpu":
        return environment["device"]
    name, threads = environment.get("cpu") or "CPU", environment.get("threads")
    return f"{name}, {threads} thread{'' if threads == 1 else 's'}" if threads else name


def _record_path(record: Record) -> str:
    paper, experiment, profile, seed = record.key
    return f"results/{paper}/{experiment}/{profile}/seed{seed}.json"


def _role(view: TableView, column: str) -> str:
    if column in view.label_columns:
        return "label"
    return "setting" if column in view.settings else "value"


def _slug(label: str) -> str:
    return "_".join("".join(c.lower() if c.isalnum() else " " for c in label).split())


def _value(rule: Measured, row: Mapping[str, Any], record: Record) -> float | None:
    """What a record gives for a cell; None where it did not come so far or lacks the metric."""
    try:
        value = rule.value(row, record)
    except (UsageError, KeyError):
        return None
    return value if value is not None and math.isfinite(value) else None


def compared(
    rule: Exact | Recomputed, table: FactTable, row: Mapping[str, Any], name: str, column: Sequence[Any]
) -> dict[str, Any]:
    """A computed cell beside its print, which equals nothing where either rests on memory alone."""
    found = _computed(rule, row, name, column)
    known = table.confirms(row, name) and (rule.kind != "recomputed" or rule.verified(row))
    unknown = {} if known or not found.get("values") else {"state": "unverified", "matches": None}
    return found | unknown


def _computed(
    rule: Exact | Recomputed, row: Mapping[str, Any], name: str, column: Sequence[Any]
) -> dict[str, Any]:
    value, printed = rule.compute(row), row.get(name)
    if value is None:
        return {"kind": rule.kind, "state": "pending", "note": rule.note(row)}
    equal = agrees(value, printed, column)
    if isinstance(rule, Recomputed):
        return {
            "kind": rule.kind,
            "values": {"recomputed": value},
            "state": "matches" if equal else "differs",
            "note": rule.note(row),
        }
    matches = "fitted" if rule.fitted and equal else "yes" if equal else "no"
    state = {"yes": "matches", "no": "differs", "fitted": "fitted"}[matches]
    return {
        "kind": rule.kind,
        "values": {"exact": value},
        "matches": matches,
        "state": state,
        "note": rule.note(row),
    }


def agrees(value: float, printed: Any, column: Sequence[Any] = ()) -> bool:
    """Whether a number equals a printed one at the printed precision, which is that of its column.

    A trailing zero is lost in a file of numbers (28.0 may have been printed 28.0 or 28), so the finest number of the
    column tells how finely all of them are printed.
    """
    if isinstance(printed, bool) or not isinstance(printed, int | float):
        return value == printed
    floats = [number for number in (*column, printed) if isinstance(number, float)]
    if isinstance(printed, float) and "e" in repr(printed):
        digits = max(
            len(repr(number).partition("e")[0].partition(".")[2]) for number in floats if "e" in repr(number)
        )
        return f"{value:.{digits}e}" == f"{printed:.{digits}e}"
    decimals = printed_decimals(floats)
    return round(value, decimals) == round(printed, decimals)


def _quartiles(numbers: Sequence[float]) -> list[float]:
    first, _, third = statistics.quantiles(numbers, n=4, method="inclusive")
    return [first, third]


def _detail(pairs: list[tuple[Record, float]], rule: Measured, share: str) -> dict[str, Any]:
    numbers = [value for _, value in pairs]
    first = pairs[0][0].data
    remarks = [] if rule.remark is None else [rule.remark([record for record, _ in pairs])]
    return {
        "std": statistics.stdev(numbers) if len(numbers) > 1 and not rule.skewed else None,
        "quartiles": _quartiles(numbers) if len(numbers) > 1 and rule.skewed else None,
        "seeds": len(numbers),
        "seed_values": numbers,
        "scale": "; ".join([share, *remarks]),
        "device": first["environment"]["device"],
        "seconds": statistics.fmean(record.data["run"]["seconds"] for record, _ in pairs),
        "unit": rule.unit,
        "records": [_record_path(record) for record, _ in pairs],
    }


def headline(claims: list[Verdict], tables: list[dict[str, Any]]) -> str:
    """One generated sentence: how many tests and cells there are, and what came of them."""
    cells = [cell for table in tables if table["whose"] == THE_PAPER for cell in _all_cells(table)]
    unverified = sum(cell["state"] == "unverified" for cell in cells)
    computed = [c for c in cells if c["kind"] in ("exact", "recomputed") and c["state"] != "unverified"]
    found = [
        _computed_counts(computed) if computed or not unverified else "",
        f"{unverified} computed cells stand beside a print, or rest on numbers, known from memory alone"
        if unverified
        else "",
        f"and {_recorded(cells)} measured cells have a recorded number",
    ]
    others = [
        f"beside numbers of {table['whose']}, {_recorded(_all_cells(table))}"
        for table in tables
        if table["whose"] != THE_PAPER
    ]
    own = sum(cell["kind"] == "own" for cell in cells)
    if own:
        others.append(f"{own} more of the paper's own {'is' if own == 1 else 'are'} shown and not rerun")
    said = "; ".join([_rulings(claims), ", ".join(filter(None, found)), *others])
    return f"{said[0].upper()}{said[1:]}."


def _computed_counts(cells: Sequence[dict[str, Any]]) -> str:
    """How many of the computed cells equal the print, the two kinds apart where there are both."""
    kinds = {kind: [cell for cell in cells if cell["kind"] == kind] for kind in ("exact", "recomputed")}
    equal = {kind: sum(cell["state"] == "matches" for cell in found) for kind, found in kinds.items()}
    parts = [f"{equal[kind]} of {len(found)} {kind}" for kind, found in kinds.items() if found]
    said = f"{sum(equal.values())} of {sum(map(len, kinds.values()))} computed cells equal the print"
    return f"{said} ({', '.join(parts)})" if len(parts) > 1 else said


def _all_cells(table: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for row in table["rows"] for cell in row["cells"]]


def _recorded(cells: Iterable[dict[str, Any]]) -> str:
    """How many of the measured cells have a recorded number."""
    measured = [cell for cell in cells if cell["kind"] == "measured"]
    return f"{sum(bool(cell['values']) for cell in measured)} of {len(measured)}"


def _rulings(claims: list[Verdict]) -> str:
    """How many tests of how many claims there are, and what came of them."""
    against = sum(bool(claim.contradicted) for claim in claims)
    counts = Counter(claim.verdict for claim in claims)
    said = {
        ("holds", "hold"): counts[HOLDS],
        ("is contradicted", "are contradicted"): against,
        ("fails undecided", "fail undecided"): counts[FAILS] - against,
        ("is not tested at this scale", "are not tested at this scale"): counts[NOT_TESTED],
    }
    parts = [f"{count} {words[count > 1]}" for words, count in said.items() if count]
    if not parts:
        return "no claims"
    facts = len({claim.fact for claim in claims})
    joined = " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
    return f"of {len(claims)} tests of {facts} claim{'' if facts == 1 else 's'}, {joined}"


def collect(chapters: Iterable[Chapter], results: Path) -> list[dict[str, Any]]:
    """State of every chapter; files that are no valid record are listed under `skipped`."""
    records, skipped = load_records(results)
    chapters = list(chapters)
    owners = [_owner(item, chapters, results) for item in skipped]
    status = []
    for chapter in chapters:
        mine = [item for item, owner in zip(skipped, owners, strict=True) if owner is chapter]
        lines = [{"path": _shown(item, results), "reason": item.reason} for item in mine]
        status.append(ChapterState(chapter, records).as_dict() | {"skipped": lines})
    return status


def chapter_state(chapter: Chapter, results: Path) -> ChapterState:
    """One chapter with the valid records of `results`."""
    return ChapterState(chapter, load_records(results)[0])


def _owner(skipped: Skipped, chapters: Sequence[Chapter], results: Path) -> Chapter | None:
    """The chapter that shows a skipped file; one that belongs to none is shown with the first."""
    top = skipped.path.relative_to(results).parts[0]
    return next((chapter for chapter in chapters if chapter.paper == top), chapters[0] if chapters else None)


def _shown(skipped: Skipped, results: Path) -> str:
    return "results/" + skipped.path.relative_to(results).as_posix()
