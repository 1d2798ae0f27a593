"""What a chapter's notebook shows: its tables from records, its live check, its code and where numbers come from."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from copy import copy
from html import escape
from pathlib import Path
from textwrap import dedent
from typing import Any

from attn.reproduction import runner, tables
from attn.reproduction.errors import choose
from attn.reproduction.experiment import BOOK_PROFILE, PROFILES, Chapter
from attn.reproduction.figures import use_style
from attn.reproduction.findings import findings_list
from attn.reproduction.grid import Cell, Grid, Html, plain
from attn.reproduction.parameters import NotebookParameters, validate
from attn.reproduction.paths import results_dir, runs_dir
from attn.reproduction.records import Record
from attn.reproduction.scoreboard import ChapterState, chapter_state, headline


class Page:
    """One chapter's page: recorded parts read `results/` once, when the page is made.

    Tables and claims show every profile. Figures and sentences show one, `profile`: the book's, or the one that the
    notebook is run at where that makes records.

    Args:
        chapter: its declaration.
        results: folder of the records; the book's own if not given.
    """

    def __init__(self, chapter: Chapter, results: Path | None = None) -> None:
        use_style()
        self.chapter = chapter
        self.results = results_dir() if results is None else results
        self.state: ChapterState = chapter_state(chapter, self.results)
        self.paper = self.state.paper
        self.profile = BOOK_PROFILE

    def headline(self) -> Html:
        """What came of each claim, and the counts in one sentence."""
        verdicts = self.state.verdicts()
        text = headline(verdicts, self.state.tables())
        found = findings_list([("", [verdict.as_dict() for verdict in verdicts])])
        return Html(f"{found.html}<p>{escape(text)}</p>", "\n\n".join(filter(None, [found.text, text])))

    def table(self, table_id: str) -> Html:
        """A table of the paper beside what was computed or recorded here."""
        records = [self.state.as_line(record) for record in self.state.records]
        return tables.paper_table(self.state.table(table_id), records=records)

    def claims(self) -> Html:
        """Every claim with its verdict, and what the tests compare with."""
        table = tables.claims_table([verdict.as_dict() for verdict in self.state.verdicts()])
        margins = tables.margins_list(self.paper.margins)
        return Html(table.html + margins.html, "\n\n".join(filter(None, [table.text, margins.text])))

    def failures(self) -> Html:
        """Claims that fail: first those the runs decide against, then those whose interval leaves them undecided."""
        return tables.failures_list([verdict.as_dict() for verdict in self.state.verdicts()])

    def deviations(self) -> Html:
        """Where the book departs from the paper."""
        return tables.deviations_table(self.state.deviations())

    def at(self, profile: str) -> Page:
        """The same page showing the records of another profile."""
        other = copy(self)
        other.profile = choose("profile", profile, PROFILES)
        return other

    def records(self, experiment: str) -> list[Record]:
        """Records of one experiment, by seed, at the page's profile; of a task without it, at its smallest one."""
        task = self.chapter.experiment(experiment).task
        return self.state.of(experiment, self.chapter.profile_shown(task, self.profile))

    def command(
        self, *, task: str | None = None, table: str | None = None, experiment: str | None = None
    ) -> str:
        """The command that makes the records which `records` looks for."""
        chosen = self.chapter.select(task=task, table=table, experiment=experiment)
        profiles = [self.chapter.profile_shown(one.task, self.profile) for one in chosen]
        profile = self.profile if self.profile in profiles else profiles[0]
        options = {"profile": profile, "task": task, "table": table, "experiment": experiment}
        given = (f"--{name} {value}" for name, value in options.items() if value is not None)
        return " ".join(["attn run", self.paper.id, *given])

    def provenance(self) -> Html:
        """Every record behind this page, and the command that makes it again."""
        columns = ["Record", "Profile", "Device", "Minutes", "torch", "Date", "Rerun"]
        grid = Grid(plain("Records behind this page"), columns)
        for line in map(self.state.as_line, self.state.records):
            name, profile = f"{line['experiment']}, seed {line['seed']}", line["profile"]
            options = f"--experiment {line['experiment']} --profile {profile} --seeds {line['seed']}"
            command = f"attn run {self.paper.id} {options}"
            cells = [
                name,
                profile,
                line["device"],
                f"{line['seconds'] / 60:.1f}",
                line["torch"],
                line["date"],
            ]
            grid.add([*map(plain, cells), Cell(command, f"<code>{command}</code>")])
        return grid.render()

    # --- the run of this notebook ------------------------------------------------------------------------

    def parameters(self, namespace: dict[str, Any]) -> NotebookParameters:
        """Check the notebook's parameters, and show the records of their profile from here on.

        See `attn.reproduction.parameters.validate`.
        """
        parameters = validate(self.chapter, namespace)
        self.profile = BOOK_PROFILE if parameters.live else parameters.profile
        return parameters

    def record(self, parameters: NotebookParameters) -> None:
        """Make the records that are missing or stale, at any profile but ci; what the page shows next has them."""
        if parameters.live:
            return
        grid = runner.jobs(self.chapter, parameters.experiments, parameters.profile, parameters.seeds)
        runner.run_grid(grid, results=self.results, runs=runs_dir(), device=parameters.device)
        self.state = chapter_state(self.chapter, self.results)
        print(
            f"figures and sentences below show profile {self.profile}; tasks without it, the smallest they have"
        )

    def live(self, parameters: NotebookParameters) -> dict[str, runner.LiveRun]:
        """Train every selected experiment afresh at profile ci, reading and writing no record.

        Returns:
            The runs by experiment id; none at another profile.
        """
        if not parameters.live:
            return {}
        seed = 0 if parameters.seeds is None else parameters.seeds[0]
        chosen = [experiment for experiment in parameters.experiments if "ci" in experiment.configs]
        return {
            experiment.id: runner.run_live(experiment, "ci", seed, parameters.device) for experiment in chosen
        }

    def live_check(self, rows: Iterable[dict]) -> Html:
        """The live-check table; raises AssertionError naming the rows that failed, so that a test run fails too."""
        rows = list(rows)
        failed = [f"{row['quantity']}: {row['value']}" for row in rows if row["verdict"] is False]
        if failed:
            raise AssertionError("live check failed: " + "; ".join(failed))
        return tables.live_table(rows)


def show(drawing: Any, makes: str) -> None:
    """Show a figure; where it is None, for lack of records, say which command makes them.

    Args:
        drawing: a matplotlib figure, or None.
        makes: the command.
    """
    import matplotlib.pyplot as plt

    if drawing is None:
        print(f"Nothing to draw yet; this makes the records: {makes}")
    plt.show()


def source(*objects: Callable) -> Any:
    """The code of functions or classes, as it stands in the library."""
    from IPython.display import Code

    listings = (dedent(inspect.getsource(item)).rstrip() for item in objects)
    return Code("\n\n".join(listings), language="python")
