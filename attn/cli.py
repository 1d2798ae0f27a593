"""Command line of the book: ``attn run | status | results | data``."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from textwrap import fill

import click

from attn.reproduction.errors import UsageError

# Errors of modules that a command may import: wrong names and values, and what a run can end with.
_USAGE = (
    ("attn.data.errors", "UnknownCorpus"),
    ("attn.data.errors", "UnknownFile"),
    ("attn.data.errors", "DataFolderMissing"),
)
_FAILURES = (
    ("attn.data.errors", "DataError"),
    ("attn.training.checkpoint", "CheckpointError"),
    ("attn.training.loop", "NonFiniteError"),
)
_NAMES = "a paper, the chapter's number or its notebook, as graves2014ntm, 6 or 06_ntm"


class _Group(click.Group):
    """Turns the book's own errors into one sentence, with exit status 2 for a wrong name or value and 1 for others."""

    def invoke(self, context: click.Context):
        try:
            return super().invoke(context)
        except (UsageError, *_imported(_USAGE)) as error:
            raise click.UsageError(str(error)) from error
        except BrokenPipeError:  # whoever read the output has enough, as `head`; click ends quietly
            raise
        except (OSError, *_imported(_FAILURES)) as error:
            raise click.ClickException(str(error)) from error


def _imported(errors: Iterable[tuple[str, str]]) -> list[type[Exception]]:
    """Those of modules that are imported already: others cannot have been raised."""
    return [getattr(sys.modules[module], name) for module, name in errors if module in sys.modules]


class _OfChapter(click.Command):
    """A command whose help ends with a list of the chapters."""

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        from attn.experiments import chapters

        with formatter.section("Chapters"):
            formatter.write_dl(
                [(f"{c.number} {c.paper}", f"{c.short_title}, {c.notebook}") for c in chapters()]
            )


class _NewFile(click.Path):
    """A file to be written into a folder that is there, so that a slip of the finger makes no folder."""

    def convert(self, value, param, context) -> Path:
        path = Path(super().convert(value, param, context))
        if not path.absolute().parent.is_dir():
            self.fail(f"{path.parent} is no folder", param, context)
        return path


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="attn")
def main() -> None:
    """Reproduce the book's papers: train rows, show what stands, move records, look at data."""


# --- run -------------------------------------------------------------------------------------------------


@main.command(cls=_OfChapter)
@click.argument("chapter")
@click.option(
    "--profile", default="cpu", show_default=True, help="Budget: ci, cpu, gpu or paper; ci leaves no record."
)
@click.option("--task", default=None, help="Only this task's experiments.")
@click.option("--table", default=None, help="Only experiments that fill this table.")
@click.option("--experiment", default=None, help="Only this experiment, as copy/ntm_lstm.")
@click.option("--seeds", default=None, help="Seeds as 0,2,4 or 0-4; the profile's own if not given.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--force", is_flag=True, help="Run even what is recorded and fresh.")
@click.option("--dry-run", is_flag=True, help="Only print what it would cost, row by row.")
@click.option("--list", "only_list", is_flag=True, help="Only print the experiments that were chosen.")
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    default=None,
    help="Stop after so many minutes; the same command continues.",
)
@click.option("--threads", type=click.IntRange(min=1), default=None, help="CPU threads for torch.")
def run(
    chapter, profile, task, table, experiment, seeds, device, force, dry_run, only_list, time_limit, threads
) -> None:
    """Train a chapter's rows and write their records; a killed run continues where it was.

    CHAPTER is a paper, the chapter's number or its notebook.
    """
    import torch

    from attn.experiments import chapter as find
    from attn.reproduction import parameters, runner
    from attn.reproduction.errors import choose
    from attn.reproduction.experiment import PROFILES
    from attn.reproduction.paths import results_dir, runs_dir
    from attn.training.distributed import distributed

    found = find(chapter)
    choose("profile", profile, PROFILES)
    experiments = found.select(task=task, table=table, experiment=experiment)
    if only_list:
        click.echo("\n".join(_lines(experiments)))
        return
    wanted = parameters.device_for(device)
    if threads is not None:
        torch.set_num_threads(threads)
    grid = runner.jobs(found, experiments, profile, parameters.parse_seeds(seeds))
    if dry_run:
        cost = runner.estimate(grid, results_dir(), wanted, force=force)
        click.echo("\n".join([str(cost), *cost.rows()]))
        return
    if profile == "ci":
        for job in grid:
            _show_live(job, runner.run_live(job.experiment, profile, job.seed, wanted, silent=False))
        return
    with distributed(wanted.type) as placed:
        limit = None if time_limit is None else time_limit * 60
        records = runner.run_grid(
            grid,
            results=results_dir(),
            runs=runs_dir(),
            device=placed,
            force=force,
            time_limit_s=limit,
            say=click.echo,
        )
    for record in records:
        metrics = ", ".join(f"{name} {m['value']:.4g}" for name, m in record.data["metrics"].items())
        click.echo(f"{record.data['experiment']} {profile} seed {record.seed}: {metrics}")


def _lines(experiments) -> list[str]:
    """A line for each experiment: its id, its profiles and what it is."""
    width = max(len(each.id) for each in experiments)
    return [f"{each.id:{width}}  {', '.join(each.configs):20}  {each.label}" for each in experiments]


def _show_live(job, live) -> None:
    click.echo(
        f"{job.label} (no record): "
        + ", ".join(f"{n} {m.value:.4g} {m.unit}" for n, m in live.outcome.metrics.items())
    )


# --- status ----------------------------------------------------------------------------------------------


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Every chapter, table, row, cell and claim as JSON.")
@click.option("--chapter", default=None, help=f"Every claim and table of one chapter: {_NAMES}.")
@click.option("--all", "everything", is_flag=True, help="Every claim and table of every chapter.")
def status(as_json: bool, chapter: str | None, everything: bool) -> None:
    """Print what reproduced, what did not, what is stale: a line and a sentence for each chapter."""
    from attn.experiments import chapter as find
    from attn.experiments import chapters
    from attn.reproduction.paths import results_dir
    from attn.reproduction.scoreboard import collect
    from attn.reproduction.tables import scoreboard_text

    chosen = chapters() if chapter is None else (find(chapter),)
    state = collect(chosen, results_dir())
    if as_json:
        click.echo(json.dumps(state, indent=1))
    else:
        click.echo(scoreboard_text(state) if everything or chapter else _overview(state))


def _overview(state: list[dict]) -> str:
    """All chapters in one table, then each one's headline and what is wrong with its records."""
    from attn.reproduction.tables import chapters_table, skipped_list

    parts = [chapters_table(state).text]
    for chapter in state:
        stale = Counter(record["why"] for record in chapter["records"] if record["freshness"] == "stale")
        parts += [
            f"{chapter['number']} {chapter['title']} ({chapter['id']})\n{fill(chapter['headline'], 110)}",
            "\n".join(
                f"Stale, {count} of {len(chapter['records'])} records: {why}" for why, count in stale.items()
            ),
            skipped_list(chapter).text,
        ]
    parts.append("Every claim and table: attn status --chapter CHAPTER, or attn status --all")
    return "\n\n".join(filter(None, parts))


# --- results ---------------------------------------------------------------------------------------------


@main.group(cls=_Group)
def results() -> None:
    """Check, move and export run records."""


@results.command("check")
def results_check() -> None:
    """Validate every record and benchmark result; exit status 1 if one is invalid."""
    from attn.reproduction.paths import results_dir
    from attn.reproduction.records import load_records
    from attn.reproduction.speed import load_speed

    records, skipped = load_records(results_dir())
    skipped += load_speed(results_dir())[1]
    for item in skipped:
        click.echo(f"results/{item.path.relative_to(results_dir()).as_posix()}: {item.reason}")
    click.echo(f"{len(records)} valid records, {len(skipped)} files skipped")
    sys.exit(1 if skipped else 0)


@results.command("pack")
@click.argument("target", type=_NewFile(dir_okay=False))
def results_pack(target: Path) -> None:
    """Pack all records with their artifacts into one tar.gz file."""
    from attn.reproduction.paths import results_dir
    from attn.reproduction.records import pack

    click.echo(f"{pack(results_dir(), target)} records packed into {target}")


@results.command("merge")
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option("--replace", is_flag=True, help="Replace records of the same run that differ.")
def results_merge(source: Path, replace: bool) -> None:
    """Take records from a packed file or a folder; each is validated first."""
    from attn.reproduction.paths import results_dir
    from attn.reproduction.records import merge

    written, left_out = merge(source, results_dir(), replace=replace)
    for sentence in left_out:
        click.echo(f"left out {sentence}")
    click.echo(f"{len(written)} records merged, {len(left_out)} left out")


@results.command("csv")
@click.argument("target", type=_NewFile(dir_okay=False), required=False)
def results_csv(target: Path | None) -> None:
    """All results as one CSV, a line for each record and metric; to standard output without TARGET."""
    from attn.reproduction.paths import results_dir, write_atomically
    from attn.reproduction.records import load_records, to_csv

    text = to_csv(load_records(results_dir())[0])
    if target is None:
        click.echo(text, nl=False)
    else:
        write_atomically(target, text.encode())


@results.command("revalidate")
@click.argument("chapter", required=False)
def results_revalidate(chapter: str | None) -> None:
    """Replay the first updates of stale records; those that still give their losses count as revalidated.

    CHAPTER is a paper, the chapter's number or its notebook; all chapters without it.
    """
    from attn.experiments import chapter as find
    from attn.experiments import chapters
    from attn.reproduction.paths import results_dir
    from attn.reproduction.runner import replay
    from attn.reproduction.scoreboard import chapter_state
    from attn.reproduction.staleness import revalidate

    for found in chapters() if chapter is None else (find(chapter),):
        state = chapter_state(found, results_dir())
        experiments = {experiment.id: experiment for experiment in found.experiments}
        for record in filter(state.is_stale, state.records):
            experiment = experiments.get(record.data["experiment"])
            now = state.freshness(record) if experiment is None else revalidate(record, experiment, replay)
            name = record.path.relative_to(results_dir()).as_posix()
            click.echo(f"results/{name}: {now.state}" + (f" ({now.why})" if now.why else ""))


# --- data ------------------------------------------------------------------------------------------------


@main.group(cls=_Group)
def data() -> None:
    """Registered corpora: list, fetch, verify."""


@data.command("list")
def data_list() -> None:
    """Every registered corpus: licence, size, and where it was found."""
    from attn.data.download import describe

    for report in describe():
        click.echo(f"{report.id:20} {report.size_text:>12}  {report.where:24} {report.licence}")


@data.command("fetch")
@click.argument("corpus")
@click.argument("files", nargs=-1)
def data_fetch(corpus: str, files: tuple[str, ...]) -> None:
    """Look up or download a corpus, or only FILES of it, and check what was found."""
    from attn.data.download import fetch

    click.echo(f"{corpus}: {len(fetch(corpus, list(files) or None))} files are here")


@data.command("verify")
@click.argument("corpus")
def data_verify(corpus: str) -> None:
    """Check the files of a corpus that are here against the registry; exit status 1 if one is wrong."""
    from attn.data.download import verify

    reports = verify(corpus)
    for report in reports:
        click.echo(f"{report.status:9} {report.path}  {report.where or ''}  {report.message or ''}".rstrip())
    sys.exit(1 if any(report.status == "wrong" for report in reports) else 0)


if __name__ == "__main__":
    main()
