"""Paper facts: every table cell by cell, recipes, claims and deviations, read from YAML and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from attn.reproduction.errors import UsageError, choose
from attn.reproduction.paths import PAPERS

THE_PAPER = "the paper"
CHECKED = ("two sources", "one source", "memory only")


class FactsError(UsageError):
    """A facts file that does not fit the schema, or contradicts itself."""


@dataclass(frozen=True)
class FactTable:
    """One table of a paper, cell by cell.

    Attributes:
        id: as table3_lstm; figures whose points are listed count as tables.
        caption: in our own words.
        columns: names in the paper's order.
        rows: one mapping a row, from column to printed value (None: blank in print).
        checked: how the cells were checked, one of `CHECKED`; "memory only" is unverified.
        source: where they were checked.
        notes: what a reader must know.
        whose: whose numbers these are, as "the replication"; the paper's own unless said.
        read_off: whether they were read off a plot, so that they order curves and are subtracted from nothing.
    """

    id: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    checked: str
    source: str | None
    notes: str
    whose: str = THE_PAPER
    read_off: bool = False

    @property
    def verified(self) -> bool:
        """Whether any source besides memory confirms the cells; unverified ones decide no verdict."""
        return self.checked != "memory only"

    def confirms(self, row: Mapping[str, Any], column: str) -> bool:
        """The same of one cell: a row may name columns that are known from memory alone under `unverified`."""
        return self.verified and column not in row.get("unverified", ())


@dataclass(frozen=True)
class FactClaim:
    """What a paper concludes from a table, and how its direction can be checked at a small size."""

    id: str
    statement: str
    table: str
    how_to_check_small: str


@dataclass(frozen=True)
class Deviation:
    """Where this book departs from the paper: place, what the paper has, our choice, the switch that undoes it."""

    id: str
    place: str
    paper: str
    ours: str
    switch: str


@dataclass(frozen=True)
class Paper:
    """Facts of one paper; `recipe`, `exact`, `budgets` and `margins` stay the mappings of the file."""

    id: str
    title: str
    authors: tuple[str, ...]
    year: int
    venue: str
    arxiv: str | None
    bibtex_key: str
    tables: tuple[FactTable, ...]
    claims: tuple[FactClaim, ...]
    deviations: tuple[Deviation, ...]
    recipe: Mapping[str, Any]
    exact: tuple[Mapping[str, Any], ...]
    budgets: Mapping[str, Any]
    margins: Mapping[str, Any]

    def table(self, table_id: str) -> FactTable:
        """The table with this id; UsageError names the valid ones."""
        choose(f"table of {self.id}", table_id, [table.id for table in self.tables])
        return next(table for table in self.tables if table.id == table_id)

    def claim(self, claim_id: str) -> FactClaim:
        """The claim with this id; UsageError names the valid ones."""
        choose(f"claim of {self.id}", claim_id, [claim.id for claim in self.claims])
        return next(claim for claim in self.claims if claim.id == claim_id)

    def exact_fact(self, fact_id: str) -> Mapping[str, Any]:
        """The entry of `exact` with this id; UsageError names the valid ones."""
        choose(f"exact fact of {self.id}", fact_id, [fact["id"] for fact in self.exact])
        return next(fact for fact in self.exact if fact["id"] == fact_id)


@cache
def _validator():
    from jsonschema import Draft202012Validator

    return Draft202012Validator(json.loads((Path(__file__).parent / "facts.schema.json").read_text("utf-8")))


def _check(path: Path, data: Any) -> None:
    error = next(iter(_validator().iter_errors(data)), None)
    if error is not None:
        place = "/".join(map(str, error.absolute_path)) or "top level"
        raise FactsError(f"{path.name}: {place}: {error.message[:200]}")
    if data["id"] != path.stem:
        raise FactsError(f"{path.name}: id {data['id']!r} differs from the file's name")
    tables = [table["id"] for table in data["tables"]]
    for name in ("tables", "claims", "exact", "deviations"):
        ids = [entry["id"] for entry in data.get(name, ())]
        if len(set(ids)) != len(ids):
            raise FactsError(f"{path.name}: an id of {name} occurs twice in {', '.join(ids)}")
    for table in data["tables"]:
        for index, row in enumerate(table["rows"]):
            # `kind` marks rows that are quoted or not rerun; `variation` words a row that no column describes;
            # `unverified` names columns whose cell is from memory alone
            foreign = set(row) - set(table["columns"]) - {"kind", "variation", "unverified"}
            foreign |= set(row.get("unverified", ())) - set(table["columns"])
            if foreign:
                raise FactsError(
                    f"{path.name}: {table['id']} row {index} has cells in no column: {sorted(foreign)}"
                )
    for claim in data["claims"]:
        if claim["table"] not in tables:
            raise FactsError(
                f"{path.name}: claim {claim['id']} names table {claim['table']!r}; valid: {', '.join(tables)}"
            )


def load_paper(path: Path) -> Paper:
    """Read and check one facts file.

    Raises:
        FactsError: naming the file, the place and what is wrong.
    """
    import yaml

    try:
        data = yaml.safe_load(path.read_text("utf-8"))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise FactsError(f"{path.name} is not valid YAML: line {line}: {error.problem}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FactsError(f"{path.name} is not valid YAML in UTF-8: {str(error).splitlines()[0]}") from error
    _check(path, data)
    return Paper(
        **{name: data[name] for name in ("id", "title", "year", "venue", "arxiv", "bibtex_key")},
        authors=tuple(data["authors"]),
        tables=tuple(_table(table) for table in data["tables"]),
        claims=tuple(FactClaim(**claim) for claim in data["claims"]),
        deviations=tuple(Deviation(**deviation) for deviation in data.get("deviations", ())),
        recipe=MappingProxyType(data["recipe"]),
        exact=tuple(MappingProxyType(fact) for fact in data["exact"]),
        budgets=MappingProxyType(data.get("budgets", {})),
        margins=MappingProxyType(data.get("margins", {})),
    )


def _table(data: Mapping[str, Any]) -> FactTable:
    fields = {name: data[name] for name in ("id", "caption", "checked", "source", "notes")}
    fields |= {name: data[name] for name in ("whose", "read_off") if name in data}
    rows = tuple(MappingProxyType(row) for row in data["rows"])
    return FactTable(**fields, columns=tuple(data["columns"]), rows=rows)


@cache
def load_papers(folder: Path = PAPERS) -> Mapping[str, Paper]:
    """All papers of a folder by id, in alphabetical order."""
    return MappingProxyType({path.stem: load_paper(path) for path in sorted(folder.glob("*.yaml"))})
