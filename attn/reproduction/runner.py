"""From an experiment to a record: trains, evaluates, writes; skips what is recorded and fresh."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from filelock import FileLock, Timeout

from attn.data import registry
from attn.data.download import locate
from attn.data.errors import DataError
from attn.reproduction import environment
from attn.reproduction.errors import UsageError
from attn.reproduction.experiment import PROFILES, Chapter, Experiment, Outcome, config_dict, config_hash
from attn.reproduction.records import (
    SCHEMA_VERSION,
    Record,
    RecordError,
    read_record,
    record_path,
    write_record,
)
from attn.reproduction.sources import source_hashes
from attn.reproduction.staleness import freshness
from attn.training.distributed import is_main, world_size
from attn.training.heap import keep_heap
from attn.training.loop import TrainingResult, train
from attn.training.progress import Progress

REPLAY_STEPS = (
    3  # first losses kept in a record, and replayed to see whether the code still computes the same
)
HISTORY_LIMIT = 600  # entries of a record's history
_PROBE_STEPS = 100  # most updates that are timed to estimate a grid's cost
_PROBE_SECONDS = 3.0  # no update is begun later than this after the first timed one
_PROBES_SECONDS = 180.0  # no row's updates are timed later than this after the first row's
# A first update that took longer on a CPU is not repeated; kernels that are compiled take less.
_SLOW_UPDATE_SECONDS = 120.0
_UNTIMED = (
    f"the time of rows that stand without one is not known: after {_PROBES_SECONDS / 60:.0f} minutes no further "
    "row is timed, which --experiment does for one row alone"
)
# Weights, gradients and two moments: what any run needs besides activations.
_COPIES = 4
_MOST_PIECES = 64  # of an update, tried where the whole does not fit
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Job:
    """One run of a grid."""

    chapter: Chapter
    experiment: Experiment
    profile: str
    seed: int

    @property
    def label(self) -> str:
        """For progress lines."""
        return f"{self.experiment.id} {self.profile} seed {self.seed}"


@dataclass(frozen=True)
class LiveRun:
    """A run that leaves no record: the trained model, its history and what came out."""

    model: torch.nn.Module
    result: TrainingResult
    outcome: Outcome


def jobs(
    chapter: Chapter, experiments: Iterable[Experiment], profile: str, seeds: Iterable[int] | None
) -> list[Job]:
    """All runs of a grid, seed by seed, so that an interrupted grid leaves whole rows.

    Raises:
        UsageError: if no experiment has this profile, or a seed is negative.
    """
    experiments = list(experiments)
    having = [e for e in experiments if profile in e.configs]
    if not having:
        valid = sorted({name for e in experiments for name in e.configs})
        raise UsageError(
            f"profile {profile!r} is not defined for {', '.join(e.id for e in experiments)}; valid: {', '.join(valid)}"
        )
    chosen = None if seeds is None else list(seeds)
    if chosen is not None and any(seed < 0 for seed in chosen):
        raise UsageError(f"seeds must be at least 0; got {', '.join(map(str, chosen))}")
    grid = [
        Job(chapter, e, profile, s)
        for e in having
        for s in (chosen if chosen is not None else range(e.seeds[profile]))
    ]
    return sorted(grid, key=lambda job: job.seed)


def existing(job: Job, results: Path) -> tuple[Record | None, str]:
    """The job's record, if there is a valid one, and its state: "absent", "fresh", "revalidated" or "stale"."""
    path = record_path(results, job.chapter.paper, job.experiment.id, job.profile, job.seed)
    if not path.is_file():
        return None, "absent"
    try:
        record = read_record(path, results)
    except RecordError:
        return None, "absent"
    return record, freshness(record, job.experiment).state


def run(
    job: Job,
    *,
    results: Path,
    runs: Path,
    device: torch.device,
    force: bool = False,
    silent: bool = False,
    time_limit_s: float | None = None,
) -> Record | None:
    """Run one job and write its record, or return the fresh one that is there.

    Killed at any moment and called again, it continues from its checkpoint to the same result.

    Args:
        job: what to run.
        results: folder of records.
        runs: folder of checkpoints; this job's is removed once its record is written.
        device: where to run.
        force: run even if a fresh record exists.
        silent: show no progress.
        time_limit_s: stop after so many seconds and keep the checkpoint.

    Returns:
        The record, or None if the time limit came first.
    """
    record, state = existing(job, results)
    if not force and state in ("fresh", "revalidated"):
        return record
    config = job.experiment.config(job.profile)
    code = _code_of(job.experiment.build)
    identity = config_hash(
        {
            "experiment": job.experiment.id,
            "config": config_dict(config),
            "sources": code["sources"],
            "device": device.type,  # a record names one device
        }
    )
    scratch = runs / job.chapter.paper / job.experiment.id / job.profile / f"seed{job.seed}"
    scratch.mkdir(parents=True, exist_ok=True)
    with _alone(scratch, job):
        return _run(
            job,
            config,
            identity,
            scratch,
            results=results,
            device=device,
            silent=silent,
            time_limit_s=time_limit_s,
        )


@cache
def _code_of(build: Callable) -> dict[str, Any]:
    """The `code` of a record, read once and early: what runs is what was imported, not what is on disk later."""
    return {**environment.commit(), "sources": source_hashes(build)}


@contextmanager
def _alone(scratch: Path, job: Job) -> Iterator[None]:
    """Refuse to run a job that another process is running: they would share a checkpoint."""
    if not is_main():
        yield
        return
    lock = FileLock(scratch.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(
            f"{job.label} is being run by another process: wait for it, or choose other seeds"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _run(
    job: Job,
    config: Any,
    identity: str,
    scratch: Path,
    *,
    results: Path,
    device: torch.device,
    silent: bool,
    time_limit_s: float | None,
) -> Record | None:
    workload = _build(job, device, results)
    result = _or_what_fits(
        lambda: train(
            workload,
            config.training,
            seed=job.seed,
            # another code or config starts anew instead of continuing a foreign run
            checkpoint_path=scratch / f"{identity[:16]}.safetensors",
            progress=Progress(job.label, silent=silent),
            time_limit_s=time_limit_s,
            record_losses=REPLAY_STEPS,
            run_id=identity,
        ),
        job, workload, device, results,
    )  # fmt: skip
    if result.interrupted:
        return None
    record = _record(job, workload, result, device, results) if is_main() else None
    if is_main():
        shutil.rmtree(scratch, ignore_errors=True)
    return record


def _build(job: Job, device: torch.device, results: Path) -> Any:
    """The job's workload, its model on the device and with room beside it.

    Raises:
        UsageError: if there is not enough memory.
    """
    config = job.experiment.config(job.profile)
    workload = _or_what_fits(
        lambda: job.experiment.build(config, job.seed, device), job, None, device, results
    )
    _refuse_without_memory(workload.model, device, job, results)
    return workload


def _record(job: Job, workload: Any, result: TrainingResult, device: torch.device, results: Path) -> Record:
    config = job.experiment.config(job.profile)
    started = time.monotonic()
    outcome = _or_what_fits(
        lambda: workload.outcome(workload.model, result.history), job, None, device, results
    )
    losses = result.first_losses
    if device.type != "cpu":
        # What speaks for a stale record is a replay on a CPU, in one process; a run of several cannot start one.
        losses = replay(job.experiment, job.profile, job.seed, REPLAY_STEPS) if world_size() == 1 else []
    data = {
        "schema": SCHEMA_VERSION,
        "paper": job.chapter.paper,
        "experiment": job.experiment.id,
        "profile": job.profile,
        "seed": job.seed,
        "config": config_dict(config),
        "code": _code_of(job.experiment.build),
        "environment": environment.describe(
            device, dtype=config.training.precision, device_count=world_size()
        ),
        "data": dict(workload.data_checksums()),
        "run": {
            "finished": date.today().isoformat(),
            "seconds": round(result.seconds + time.monotonic() - started, 1),
            "steps": result.step,
            "seen": result.seen,
            "unit": workload.unit,
            "units_per_second": float(f"{result.units_per_second:.4g}"),
            "peak_memory_bytes": result.peak_memory_bytes,
            "parameters": sum(p.numel() for p in workload.model.parameters() if p.requires_grad),
            "share": job.experiment.share(config),
        },
        "replay": {"losses": losses},
        "history": thin(result.history, HISTORY_LIMIT),
        "metrics": {name: vars(metric) for name, metric in outcome.metrics.items()},
    }
    return write_record(results, data, outcome.artifact)


def run_live(
    experiment: Experiment, profile: str, seed: int, device: torch.device, *, silent: bool = True
) -> LiveRun:
    """Train afresh, reading and writing no record and no checkpoint."""
    keep_heap()
    config = experiment.config(profile)
    workload = experiment.build(config, seed, device)
    progress = Progress(f"{experiment.id} {profile} seed {seed}", silent=silent)
    result = train(workload, config.training, seed=seed, progress=progress)
    return LiveRun(workload.model, result, workload.outcome(workload.model, result.history))


def replay(experiment: Experiment, profile: str, seed: int, steps: int, *, processes: int = 1) -> list[float]:
    """Losses of a run's first updates, on the CPU in the profile's own size.

    Args:
        experiment, profile, seed: of the run.
        steps: how many updates.
        processes: of the run. One after the other, this process works on the pieces that each of them had, so that
            dropout draws the same numbers.
    """
    config = experiment.config(profile)
    workload = experiment.build(config, seed, torch.device("cpu"))
    pieces = config.training.grad_accum_steps * processes
    training = replace(config.training, grad_accum_steps=pieces)
    result = train(workload, training, seed=seed, stop_after=steps, record_losses=steps, evaluate=False)
    return result.first_losses


def thin(history: list[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """At most `limit` entries (above 1), evenly spaced, with the first and the last."""
    if len(history) <= limit:
        return list(history)
    last = len(history) - 1
    return [history[round(i * last / (limit - 1))] for i in range(limit)]


# --- memory --------------------------------------------------------------------------------------------------


def _refuse_without_memory(model: torch.nn.Module, device: torch.device, job: Job, results: Path) -> None:
    needed = _weights(model)
    free = environment.free_memory_bytes(device)
    if needed > free:
        raise UsageError(
            f"{job.label} needs at least {needed / 1e9:.1f} GB on {device} for weights, gradients and optimiser "
            f"and {free / 1e9:.1f} GB are free: {_smaller_profiles(job, device, results, free)}"
        )


def _weights(model: torch.nn.Module) -> int:
    """Bytes of weights, gradients and the optimiser's moments."""
    return _COPIES * sum(p.numel() * p.element_size() for p in model.parameters())


def _or_what_fits(
    work: Callable[[], _Result], job: Job, workload: Any, device: torch.device, results: Path
) -> _Result:
    """The result of `work`.

    Raises:
        UsageError: if it runs out of memory: with the profile, and if `workload` is given the pieces, that would fit.
    """
    try:
        return work()
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
    # Out here nothing holds the activations any more.
    _release(device)
    free = environment.free_memory_bytes(device)
    ways = [_smaller_profiles(job, device, results, free)]
    if workload is not None and (pieces := _pieces_that_fit(job, workload)) is not None:
        ways.insert(0, f"an update fits in {pieces} pieces, with grad_accum_steps={pieces} in the config")
    raise UsageError(f"{job.label} ran out of memory on {device}: {'; or '.join(ways)}")


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether torch, on a GPU or a CPU, or Python found no memory."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _release(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _smaller_profiles(job: Job, device: torch.device, results: Path, free: int) -> str:
    """The largest smaller profile that fits, or what else to try."""
    smaller = [p for p in PROFILES[: PROFILES.index(job.profile)] if p in job.experiment.configs]
    for profile in reversed(smaller):
        if _fits(replace(job, profile=profile), device, results, free):
            return f"take the smaller profile {profile}, which fits"
    if smaller:
        return f"take a smaller profile ({', '.join(reversed(smaller))}) or a device with more memory"
    return "take a device with more memory: there is no smaller profile"


def _fits(job: Job, device: torch.device, results: Path, free: int) -> bool:
    """Whether a job's recorded peak on this kind of device is free, or, without a record, whether an update runs."""
    try:
        path = record_path(results, job.chapter.paper, job.experiment.id, job.profile, job.seed)
        data = read_record(path, results).data
        if data["environment"]["device"] == environment.device_name(device):
            return (data["run"]["peak_memory_bytes"] or 0) <= free
    except RecordError:
        pass
    if world_size() > 1:
        return False  # the other processes do not know that this one tries
    config = job.experiment.config(job.profile)
    try:
        workload = job.experiment.build(config, job.seed, device)
        if _weights(workload.model) > free:
            return False
        train(workload, config.training, seed=job.seed, stop_after=1, evaluate=False)
    except Exception:
        return False  # for want of memory, or of a corpus
    finally:
        _release(device)
    return True


def _pieces_that_fit(job: Job, workload: Any) -> int | None:
    """Least number of pieces, doubled from the config's own, in which an update fits; it changes the model."""
    if world_size() > 1:
        return None  # the other processes do not know that this one tries
    training = job.experiment.config(job.profile).training
    pieces = 2 * training.grad_accum_steps
    while pieces <= _MOST_PIECES:
        smaller = replace(training, grad_accum_steps=pieces)
        try:
            train(workload, smaller, seed=job.seed, stop_after=1, evaluate=False)
            return pieces
        except Exception as error:
            if not _is_out_of_memory(error):
                return None  # as a batch that has no so many pieces; what is to be told is the lack of memory
        _release(next(workload.model.parameters()).device)
        pieces *= 2
    return None


# --- cost ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """What a grid will take.

    Attributes:
        to_run: jobs without a fresh record.
        skipped: jobs with one.
        seconds: for all of `to_run`, or None if it could not be estimated.
        basis: what the estimate rests on.
        memory_bytes: the largest peak seen, or None.
        disk_bytes: checkpoints of one job at a time.
        unknown: why times are not known, a clause for each experiment whose corpus is not here, one for all
            that were not timed because the timing of others took long.
        each: seconds of one run of each experiment to run, by its id; None where that is not known.
    """

    to_run: list[Job]
    skipped: list[Job]
    seconds: float | None
    basis: str
    memory_bytes: int | None
    disk_bytes: int
    unknown: tuple[str, ...] = ()
    each: dict[str, float | None] = field(default_factory=dict)

    def rows(self) -> list[str]:
        """A line for each experiment to run: its id, its seeds and the minutes of one of them."""
        wanted = {name: [job.seed for job in self.to_run if job.experiment.id == name] for name in self.each}
        width = max(map(len, wanted), default=0)
        return [
            f"{name:{width}}  {'time not known' if one is None else f'{one / 60:7.1f} minutes'}"
            f"  seed{'s' * (len(wanted[name]) > 1)} {', '.join(map(str, wanted[name]))}"
            for name, one in self.each.items()
        ]

    def __str__(self) -> str:
        if not self.to_run:
            return (
                f"nothing to run: {len(self.skipped)} of {len(self.skipped)} runs are recorded and fresh; "
                "`attn run --force` runs them again, ATTN_RESULTS=FOLDER keeps the results apart"
            )
        rows = len({job.experiment.id for job in self.to_run})
        seeds = len({job.seed for job in self.to_run})
        parts = [f"{len(self.to_run)} runs ({rows} rows, up to {seeds} seeds)"]
        if self.skipped:
            parts.append(f"{len(self.skipped)} recorded and fresh, skipped")
        if self.seconds is not None:
            minutes = self.seconds / 60
            parts.append(
                f"about {minutes:.0f} minutes in all, {minutes / len(self.to_run):.1f} a run ({self.basis})"
            )
        if self.memory_bytes is not None:
            parts.append(f"{'at least ' * bool(self.unknown)}{self.memory_bytes / 1e9:.1f} GB of memory")
        parts.append(f"{self.disk_bytes / 1e6:.0f} MB of disk")
        parts += self.unknown
        return "; ".join(parts)


def estimate(
    grid: list[Job], results: Path, device: torch.device, *, force: bool = False, fetch: bool = False
) -> Cost:
    """What a grid will cost, from records of the same runs on the same device, else from timing a few updates.

    Args:
        grid: the runs.
        results: folder of records.
        device: where they would run.
        force: count runs that have a fresh record, too.
        fetch: download a missing corpus, to time updates on it; else its runs are told by their sizes alone.
    """
    to_run = [job for job in grid if force or existing(job, results)[1] not in ("fresh", "revalidated")]
    skipped = [job for job in grid if job not in to_run]
    seconds, memory, disk, basis = 0.0, 0, 0, set()
    cached: dict[str, tuple[float | None, int | None, int, str]] = {}
    probed = 0.0
    for job in to_run:
        if job.experiment.id not in cached:
            found = _recorded_cost(job, results, device) or (None if fetch else _cost_by_size(job))
            if found is None and probed > _PROBES_SECONDS:
                found = (None, None, 0, _UNTIMED)
            start = time.monotonic()
            cached[job.experiment.id] = found or _timed_cost(job, results, device)
            probed += 0.0 if found else time.monotonic() - start
        one, peak, size, how = cached[job.experiment.id]
        seconds = None if one is None or seconds is None else seconds + one
        memory, disk = max(memory, peak or 0), max(disk, size)
        basis.add(how)
    unknown = tuple(dict.fromkeys(how for one, _, _, how in cached.values() if one is None))
    said = " and ".join(sorted(basis.difference(unknown)))
    each = {name: one for name, (one, *_) in cached.items()}
    return Cost(to_run, skipped, seconds, said, memory or None, disk, unknown, each)


def _cost_by_size(job: Job) -> tuple[None, int, int, str] | None:
    """What can be told of a job whose corpus is not here: bytes of its weights; None if nothing is missing."""
    config = job.experiment.config(job.profile)
    missing = _missing_file(getattr(config, "corpus", None))
    if missing is None:
        return None
    size = 0
    with (
        suppress(AttributeError, TypeError),
        torch.device("meta"),
    ):  # a config that needs its data to build a model
        size = _weights(config.model.build(config.corpus.vocab_size))
    training = config.training
    return (
        None,
        size,
        size,
        f"the time of {job.experiment.id}, {training.max_steps:,} updates of {training.batch_size:,} each, and the "
        f"memory of its activations are not known: {missing} is not here, and a dry run fetches nothing",
    )


def _missing_file(corpus: Any) -> str | None:
    """The first file of a registered corpus that a config reads and that is not here; None if there is none.

    Args:
        corpus: a config's, with `name`, and with `splits()` and languages where it reads not all of it.
    """
    try:
        known = registry.get(getattr(corpus, "name", corpus))
    except (DataError, AttributeError, TypeError):
        return None  # generated
    names = {name for name, _ in corpus.splits().values()} if hasattr(corpus, "splits") else None
    ids = [file for split in known.splits if names is None or split.name in names for file in split.files]
    languages = {getattr(corpus, side, None) for side in ("source", "target")} - {None}
    for file in dict.fromkeys(ids):
        ending = file.rpartition(".")[2]
        if languages and len(ending) == 2 and ending not in languages:  # of no use to this config
            continue
        try:
            locate(known, file, download=False)
        except DataError:
            return f"{file} of {known.id}"
    return None


def _recorded_cost(
    job: Job, results: Path, device: torch.device
) -> tuple[float, int | None, int, str] | None:
    """Seconds, peak, bytes of a checkpoint and their basis from a record of the same run; None without one."""
    config = job.experiment.config(job.profile)
    for seed in range(job.experiment.seeds.get(job.profile, 0)):
        record, state = existing(Job(job.chapter, job.experiment, job.profile, seed), results)
        if record is None or record.data["environment"]["device"] != environment.device_name(device):
            continue
        if record.data["run"]["steps"] == config.training.max_steps:
            run = record.data["run"]
            return (
                run["seconds"],
                run["peak_memory_bytes"],
                4 * _COPIES * run["parameters"],
                "as recorded on this kind of device",
            )
    return None


def _timed_cost(job: Job, results: Path, device: torch.device) -> tuple[float, int | None, int, str]:
    """The same from a few updates; the first, which may compile kernels, counts only if it is slow on a CPU."""
    config = job.experiment.config(job.profile)
    workload = _build(job, device, results)

    def timed() -> TrainingResult:
        first = train(workload, config.training, seed=job.seed, stop_after=1, evaluate=False)
        if device.type == "cpu" and first.seconds > _SLOW_UPDATE_SECONDS:
            return first
        return train(
            workload, config.training, seed=job.seed, stop_after=_PROBE_STEPS, time_limit_s=_PROBE_SECONDS,
            evaluate=False,
        )  # fmt: skip

    result = _or_what_fits(timed, job, workload, device, results)
    size = _weights(workload.model)
    return (
        result.seconds / result.step * config.training.max_steps,
        result.peak_memory_bytes,
        size,
        "from timing a few updates",
    )


def run_grid(
    grid: list[Job], *, results: Path, runs: Path, device: torch.device, force: bool = False, silent: bool = False,
    time_limit_s: float | None = None, say: Callable[[str], None] = print,
) -> list[Record]:  # fmt: skip
    """Print the cost, then run what is not recorded and fresh, job after job.

    Returns:
        Records of all jobs of the grid that have one afterwards, the skipped ones included.
    """
    keep_heap()
    for job in grid:
        _code_of(job.experiment.build)
    cost = estimate(grid, results, device, force=force, fetch=True)
    if is_main():
        say(str(cost))
    deadline = None if time_limit_s is None else time.monotonic() + time_limit_s
    records = []
    for job in grid:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            say(f"{job.label}: not started, the time limit is reached")
            continue
        record = run(
            job, results=results, runs=runs, device=device, force=force and job in cost.to_run, silent=silent,
            time_limit_s=left,
        )  # fmt: skip
        if record is not None:
            records.append(record)
        elif is_main():
            say(f"{job.label}: stopped at the time limit; the same command continues it")
    return records
