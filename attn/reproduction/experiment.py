"""What a chapter declares: experiments, how tables are filled, and claims.

An `Experiment` is one row to be trained: a config per profile and a function that builds the workload. A
`TableView` says how each cell of a paper's table is filled. Everything here is data; `runner` trains,
`claims` judges and `scoreboard` collects.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from attn.reproduction.errors import UsageError, choose

# Budgets, smallest first; claims are judged on the largest profile that has enough seeds, never on "ci".
PROFILES = ("ci", "cpu", "gpu", "paper")
RECORDED_PROFILES = PROFILES[1:]
# Whose records the book's figures and sentences show; a notebook run at a larger profile shows that one's.
BOOK_PROFILE = "cpu"


@dataclass(frozen=True)
class Metric:
    """One final number with what it means.

    Attributes:
        value: the number.
        unit: as "bits per sequence".
        definition: how it was computed, complete enough to compute it again.
    """

    value: float
    unit: str
    definition: str


@dataclass(frozen=True)
class Outcome:
    """What is kept of a trained model: final metrics, and the arrays that figures draw from (one npz file)."""

    metrics: Mapping[str, Metric]
    artifact: Mapping[str, np.ndarray] = field(default_factory=dict)


class ReproducibleWorkload(Protocol):
    """A training workload (see `attn.training.loop.Workload`) that also says what came out."""

    def outcome(self, model: Any, history: list[dict[str, Any]]) -> Outcome:
        """Final metrics and artifact of the trained model."""

    def data_checksums(self) -> Mapping[str, str]:
        """sha256 of each corpus file used; empty for generated data."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One thing to train, at several budgets.

    Attributes:
        id: as "copy/ntm_lstm"; also the record's folder.
        task: what `--task` selects.
        label: for people.
        tables: ids of the facts' tables that its records fill.
        configs: frozen dataclass per profile, with a field `training` (`attn.training.config.TrainingConfig`).
        seeds: how many seeds (0, 1, ...) per profile.
        build: (config, seed, device) -> workload, with the model on that device and initialised from the seed.
        share: (config) -> one phrase on the share of the paper's training that this is.
    """

    id: str
    task: str
    label: str
    tables: tuple[str, ...]
    configs: Mapping[str, Any]
    seeds: Mapping[str, int]
    build: Callable[[Any, int, Any], Any]
    share: Callable[[Any], str]

    def config(self, profile: str) -> Any:
        """The config at `profile`; UsageError names the profiles there are."""
        return self.configs[choose(f"profile of {self.id}", profile, self.configs)]


@dataclass(frozen=True)
class Exact:
    """A cell computed without training: (row) -> number or None.

    Attributes:
        compute: the code's own value at the paper's own size.
        fitted: whether a free constant was chosen from the same column.
        note: (row) -> why it differs, or None.
    """

    compute: Callable[[Mapping[str, Any]], float | None]
    fitted: bool = False
    note: Callable[[Mapping[str, Any]], str | None] = lambda row: None
    kind: str = "exact"


@dataclass(frozen=True)
class Recomputed:
    """A cell that is arithmetic on facts quoted from elsewhere: (row) -> number or None.

    Attributes:
        compute, note: as of `Exact`.
        verified: (row) -> whether a source besides memory confirms what goes in; else it equals nothing.
    """

    compute: Callable[[Mapping[str, Any]], float | None]
    note: Callable[[Mapping[str, Any]], str | None] = lambda row: None
    verified: Callable[[Mapping[str, Any]], bool] = lambda row: True
    kind: str = "recomputed"


@dataclass(frozen=True)
class Measured:
    """A cell that needs training.

    Attributes:
        experiment: (row) -> id of the experiment that fills it, or None where there is none yet.
        value: (row, record) -> the number, or None where the run did not reach that point.
        unit: of the number.
        skewed: whether seeds differ so unevenly (some never learn) that the median and quartiles say more than mean
            and standard deviation.
        remark: (records behind the cell) -> what must be known of them beside their scale, such as that some had not
            converged.
    """

    experiment: Callable[[Mapping[str, Any]], str | None]
    value: Callable[[Mapping[str, Any], Any], float | None]
    unit: str
    skewed: bool = False
    remark: Callable[[Sequence[Any]], str] | None = None
    kind: str = "measured"


@dataclass(frozen=True, kw_only=True)
class TableView:
    """How one table of the paper is filled.

    Attributes:
        id: the facts' table.
        label: (row) -> the row's label.
        label_columns: columns that only name the row.
        settings: columns that are the paper's inputs, not results.
        cells: rule per remaining column.
        command: (row) -> arguments of `attn run` that reproduce the row, or None.
    """

    id: str
    label: Callable[[Mapping[str, Any]], str]
    label_columns: tuple[str, ...]
    settings: tuple[str, ...] = ()
    cells: Mapping[str, Exact | Recomputed | Measured]
    command: Callable[[Mapping[str, Any]], str | None] = lambda row: None


@dataclass(frozen=True, kw_only=True)
class Control:
    """A difference that must show at this budget if anything can; without it a claim is not tested.

    Attributes:
        statement: what must show.
        difference: (records of one seed by experiment id) -> a number that must be above 0.
    """

    statement: str
    difference: Callable[[Mapping[str, Any]], float]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One testable form of a paper's claim.

    Attributes:
        id: of this test; starts with the facts' claim id.
        fact: id of the claim in the facts.
        kind: "order" (the interval of the difference lies above 0), "equality" (it lies inside the margin) or
            "arithmetic" (about printed cells; needs no seeds).
        measure: what is compared, one sentence.
        unit: of the difference.
        experiments: ids whose records of the same seed are compared.
        difference: (records by experiment id) -> the difference of one seed, positive if the claim is right.
        control: the positive control.
        headline: chapter's headline claims need 5 seeds, others 3.
        margin: for an equality, the key of the facts' `margins`, whose reason says if it was set after a run.
        holds: for arithmetic, (paper) -> whether the printed cells say so.
        counted: of arithmetic that reads no printed cell but what the code counts, so that no table need be verified.
    """

    id: str
    fact: str
    kind: str
    measure: str
    unit: str = ""
    experiments: tuple[str, ...] = ()
    difference: Callable[[Mapping[str, Any]], float] | None = None
    control: Control | None = None
    headline: bool = False
    margin: str | None = None
    holds: Callable[[Any], bool] | None = None
    counted: bool = False

    def __post_init__(self) -> None:
        choose("kind of claim", self.kind, ("order", "equality", "arithmetic"))
        if self.kind == "arithmetic":
            if self.holds is None:
                raise ValueError(f"claim {self.id}: an arithmetic claim needs `holds`")
        elif self.difference is None or self.control is None or not self.experiments:
            raise ValueError(
                f"claim {self.id}: an {self.kind} claim needs `experiments`, `difference` and `control`"
            )
        if (self.kind == "equality") != (self.margin is not None):
            raise ValueError(f"claim {self.id}: `margin` belongs to equality claims, and only to them")

    @property
    def seeds_needed(self) -> int:
        """Least number of seeds for a verdict."""
        return 5 if self.headline else 3


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What a deviation changes: one quantity on our runs and on runs with the deviation undone, or the other way made.

    Attributes:
        deviation: its id in the facts.
        measure: the quantity, as "sequences until solved".
        unit: of the quantity.
        ours, undone: ids of the two experiments.
        otherwise: names the other side, as "with one sequence an update".
        value: (record) -> the quantity, or None where the run did not come so far.
    """

    deviation: str
    measure: str
    unit: str
    ours: str
    undone: str
    otherwise: str
    value: Callable[[Any], float | None]


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """One chapter: a paper, its notebook, and what is run, filled and judged.

    Attributes:
        paper: id of the facts.
        number: chapter number.
        short_title: for headings and legends.
        notebook: file stem in notebooks/.
        experiments, tables, claims: in reading order.
        effects: what deviations change, where that is measured.
    """

    paper: str
    number: int
    short_title: str
    notebook: str
    experiments: tuple[Experiment, ...]
    tables: tuple[TableView, ...]
    claims: tuple[Claim, ...]
    effects: tuple[Effect, ...] = ()

    def experiment(self, experiment_id: str) -> Experiment:
        """The experiment with this id; UsageError names the valid ones."""
        choose(
            f"experiment of {self.paper}", experiment_id, [e.id for e in self.experiments],
            listed_by=f"attn run {self.paper} --list",
        )  # fmt: skip
        return next(e for e in self.experiments if e.id == experiment_id)

    def profile_shown(self, task: str, profile: str) -> str:
        """`profile` if any experiment of the task has it, or else the smallest recorded one.

        A task is shown as a whole: figures set its experiments beside each other.
        """
        there = {p for experiment in self.select(task=task) for p in experiment.configs}
        return next((p for p in (profile, *RECORDED_PROFILES) if p in there), profile)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names that `--task` takes."""
        return tuple(dict.fromkeys(experiment.task for experiment in self.experiments))

    def select(
        self, *, task: str | None = None, table: str | None = None, experiment: str | None = None
    ) -> tuple:
        """Experiments that fit every given filter.

        Raises:
            UsageError: for an unknown name, or if nothing fits.
        """
        chosen = self.experiments
        if task is not None:
            choose(f"task of {self.paper}", task, self.tasks)
            chosen = tuple(e for e in chosen if e.task == task)
        if table is not None:
            filled = dict.fromkeys(name for e in self.experiments for name in e.tables)
            choose(f"table of {self.paper} with runs", table, filled)
            chosen = tuple(e for e in chosen if table in e.tables)
        if experiment is not None:
            wanted = self.experiment(experiment)
            chosen = tuple(e for e in chosen if e is wanted)
        if not chosen:
            raise UsageError(
                f"no experiment of {self.paper} fits task={task!r}, table={table!r}, experiment={experiment!r}"
            )
        return chosen


def config_dict(config: Any) -> dict[str, Any]:
    """A config as plain JSON values, nested dataclasses as nested objects."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def config_hash(config: dict[str, Any]) -> str:
    """sha256 of a config in canonical form."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
