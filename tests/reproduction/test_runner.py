"""Runs of the toy: recorded, skipped, killed and continued, costed and refused."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attn.reproduction import environment, runner
from attn.reproduction.errors import UsageError
from attn.reproduction.experiment import config_dict
from attn.reproduction.records import load_records, read_record
from attn.reproduction.runner import HISTORY_LIMIT, REPLAY_STEPS, estimate, jobs, run_grid, run_live, thin
from attn.reproduction.sources import source_hashes

CPU = torch.device("cpu")


@pytest.fixture
def grid(toy):
    """A function that runs jobs of the toy as a grid and returns the records and what was said."""

    def grid(*some, **options):
        said = []
        options = {"results": toy.results, "runs": toy.runs, "device": CPU, "silent": True} | options
        records = run_grid(list(some), say=said.append, **options)
        return records, said

    return grid


@pytest.fixture
def count_updates(toy, monkeypatch):
    """A list that grows by one with every update of the toy."""
    updates = []
    loss = toy.module.ToyWorkload.loss

    def counted(self, model, batch):
        if model.training:
            updates.append(1)
        return loss(self, model, batch)

    monkeypatch.setattr(toy.module.ToyWorkload, "loss", counted)
    return updates


def timeless(record):
    """A record's content without what the clock and the process decide."""
    data = json.loads(json.dumps(record.data))
    for name in ("seconds", "units_per_second", "peak_memory_bytes"):
        del data["run"][name]
    for entry in data["history"]:
        del entry["seconds"]
    return data


def checkpoints(toy):
    return sorted(toy.runs.rglob("*.safetensors"))


# --- a run -------------------------------------------------------------------------------------------------


def test_a_run_leaves_its_record_and_nothing_else(toy):
    record = toy.run()
    assert load_records(toy.results) == ([read_record(record.path, toy.results)], [])
    assert checkpoints(toy) == []
    data = record.data
    assert (data["paper"], data["experiment"], data["profile"], data["seed"]) == (
        "toy2000",
        "fit/line",
        "cpu",
        0,
    )
    assert data["config"] == config_dict(toy.experiment().configs["cpu"])
    assert data["config"]["training"]["max_steps"] == 12
    assert data["code"]["sources"] == source_hashes(toy.experiment().build)
    assert data["environment"]["torch"] == torch.__version__ and data["environment"]["device"] == "cpu"
    run = data["run"]
    assert (run["steps"], run["seen"], run["unit"], run["parameters"]) == (12, 24, "sequences", 4)
    assert run["share"] == "12 updates"
    assert [entry["step"] for entry in data["history"]] == [0, 3, 6, 9, 12]
    assert data["metrics"]["error"]["value"] == data["history"][-1]["error"]
    assert data["history"][-1]["error"] < data["history"][0]["error"]
    assert len(data["replay"]["losses"]) == REPLAY_STEPS
    assert record.artifact()["weights"].shape == (1, 3)


def test_seeds_and_experiments_differ(toy):
    errors = {toy.run(seed, name).metric("error") for seed in range(2) for name in ("line", "flat")}
    assert len(errors) == 4


def test_what_is_fresh_is_skipped(toy, count_updates):
    first = toy.run()
    assert len(count_updates) == 12
    again = toy.run()
    assert len(count_updates) == 12
    assert again == first and again.path.stat().st_mtime_ns == first.path.stat().st_mtime_ns
    toy.run(force=True)
    assert len(count_updates) == 24


def test_what_is_stale_or_broken_is_run_again(toy):
    first = toy.run()
    toy.edit("attn.experiments.toy", "SLOPE = 2.0", "SLOPE = 3.0")
    second = toy.run()
    assert second.metric("error") != first.metric("error") and toy.freshness().state == "fresh"
    second.path.write_text("{")
    assert toy.run().metric("error") == second.metric("error")


def test_a_revalidated_record_is_not_run_again(toy):
    first = toy.run()
    toy.edit("attn.toy_model", "weight())", "weight() + 0)")
    assert runner.existing(toy.job(), toy.results)[1] == "stale"
    from attn.reproduction.staleness import revalidate

    revalidate(first, toy.experiment(), runner.replay)
    assert runner.existing(toy.job(), toy.results)[1] == "revalidated"
    before = first.path.read_bytes()
    toy.run()
    assert first.path.read_bytes() == before


def test_the_code_is_that_which_ran_not_what_is_on_disk_at_the_end(toy, monkeypatch):
    before = source_hashes(toy.experiment().build)
    module = toy.module
    outcome = module.ToyWorkload.outcome

    def edited_meanwhile(self, model, history):
        path = toy.file("attn.toy_tools")
        path.write_text(path.read_text().replace("WIDTH = 1", "WIDTH = 2"))
        return outcome(self, model, history)

    monkeypatch.setattr(module.ToyWorkload, "outcome", edited_meanwhile)
    record = toy.run()
    assert record.data["code"]["sources"] == before
    toy.forget()
    assert toy.freshness().stale


# --- killed and continued ----------------------------------------------------------------------------------


def killed(toy, step):
    """Start seed 0 in another process that is killed at an update."""
    command = [sys.executable, "-m", "tests.reproduction.toy", str(toy.folder)]
    root = Path(__file__).parents[2]
    environ = os.environ | {
        "TOY_KILLED_AT": str(step),
        "PYTHONPATH": str(root),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(command, cwd=root, env=environ, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_a_killed_run_continues_to_the_same_record(toy, count_updates):
    killed(toy, 8)
    assert load_records(toy.results) == ([], [])
    assert len(checkpoints(toy)) == 1
    continued = toy.run()
    assert len(count_updates) == 12 - 7, "seven updates were done before the kill"
    assert checkpoints(toy) == []
    assert timeless(toy.run(force=True)) == timeless(continued)
    assert len(count_updates) == 12 - 7 + 12


def test_a_time_limit_leaves_a_checkpoint_and_the_next_call_finishes(toy, grid, count_updates):
    records, said = grid(toy.job(), time_limit_s=1e-9)
    assert records == [] and load_records(toy.results) == ([], [])
    assert said[-1] == "fit/line cpu seed 0: not started, the time limit is reached"
    count_updates.clear()  # those that were timed for the cost
    assert toy.run(time_limit_s=1e-9) is None
    assert 0 < len(count_updates) < 12 and len(checkpoints(toy)) == 1
    record = toy.run()
    assert len(count_updates) == 12 and checkpoints(toy) == []
    assert timeless(record) == timeless(toy.run(force=True))


def test_a_grid_says_what_the_time_limit_stopped(toy, grid, monkeypatch):
    monkeypatch.setattr(runner, "run", lambda job, **options: None)
    records, said = grid(toy.job(0), toy.job(1), time_limit_s=1000)
    assert records == []
    assert said[1:] == [
        f"fit/line cpu seed {seed}: stopped at the time limit; the same command continues it"
        for seed in (0, 1)
    ]


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [("attn.experiments.toy", "SLOPE = 2.0", "SLOPE = 3.0"), ("attn.experiments.toy", "lr=0.05", "lr=0.06")],
)
def test_a_checkpoint_of_other_code_or_config_is_not_continued(toy, module, old, new):
    assert toy.run(time_limit_s=1e-9) is None
    (left,) = checkpoints(toy)
    toy.edit(module, old, new)
    record = toy.run()
    assert record.data["run"]["steps"] == 12
    assert not left.exists()
    assert timeless(record) == timeless(toy.run(force=True))


def test_one_process_at_a_time(toy):
    from filelock import FileLock

    toy.run(time_limit_s=1e-9)
    (scratch,) = {path.parent for path in checkpoints(toy)}
    with FileLock(scratch.with_suffix(".lock")):
        with pytest.raises(UsageError, match="fit/line cpu seed 0 is being run by another process"):
            toy.run()
    assert toy.run() is not None


# --- grids -------------------------------------------------------------------------------------------------


def test_a_grid_goes_seed_by_seed(toy):
    found = jobs(toy.chapter, toy.chapter.experiments, "cpu", None)
    assert [(job.seed, job.experiment.id) for job in found] == [
        (seed, name) for seed in range(3) for name in ("fit/line", "fit/flat")
    ]
    assert [job.seed for job in jobs(toy.chapter, [toy.experiment()], "cpu", (7, 2))] == [2, 7]
    assert jobs(toy.chapter, [toy.experiment()], "ci", None)[0].label == "fit/line ci seed 0"


def test_an_experiment_without_the_profile_is_left_out(toy):
    experiment = toy.experiment()
    larger = replace(experiment, id="fit/large", configs={"gpu": experiment.configs["cpu"]}, seeds={"gpu": 1})
    assert {job.experiment.id for job in jobs(toy.chapter, [experiment, larger], "cpu", (0,))} == {"fit/line"}


@pytest.mark.parametrize(
    ("profile", "seeds", "sentence"),
    [
        ("gpu", None, "profile 'gpu' is not defined for fit/line, fit/flat; valid: ci, cpu"),
        ("none", None, "profile 'none' is not defined for fit/line, fit/flat; valid: ci, cpu"),
        ("cpu", (0, -1), "seeds must be at least 0; got 0, -1"),
    ],
)
def test_a_grid_that_cannot_be(toy, profile, seeds, sentence):
    with pytest.raises(UsageError) as caught:
        jobs(toy.chapter, toy.chapter.experiments, profile, seeds)
    assert str(caught.value) == sentence


def test_a_grid_returns_new_and_old_records(toy, grid):
    old = toy.run(1)
    records, said = grid(toy.job(0), toy.job(1))
    assert [record.seed for record in records] == [0, 1] and records[1] == old
    assert len(said) == 1 and said[0].startswith(
        "1 runs (1 rows, up to 1 seeds); 1 recorded and fresh, skipped"
    )
    records, said = grid(toy.job(0), toy.job(1))
    assert len(records) == 2 and len(said) == 1
    assert said[0].startswith("nothing to run: 2 of 2 runs are recorded and fresh; `attn run --force` ")


def test_an_unknown_profile_of_an_experiment(toy):
    with pytest.raises(UsageError, match="unknown profile of fit/line 'gpu'; valid: ci, cpu"):
        toy.experiment().config("gpu")


# --- cost --------------------------------------------------------------------------------------------------


def test_cost_is_timed_then_taken_from_records(toy):
    grid = jobs(toy.chapter, [toy.experiment()], "cpu", None)
    timed = estimate(grid, toy.results, CPU)
    assert timed.basis == "from timing a few updates" and timed.seconds > 0
    assert (len(timed.to_run), timed.skipped, timed.disk_bytes) == (3, [], 4 * 4 * 4)
    assert load_records(toy.results) == ([], []) and not toy.runs.exists()

    toy.made_up(seed=1)  # a minute, 1000 bytes
    known = estimate(grid, toy.results, CPU)
    assert known.basis == "as recorded on this kind of device"
    assert (known.seconds, known.memory_bytes, known.disk_bytes) == (120.0, 1000, 4 * 4 * 4)
    assert [job.seed for job in known.to_run] == [0, 2] and [job.seed for job in known.skipped] == [1]
    sentence = str(known)
    assert sentence.startswith(
        "2 runs (1 rows, up to 2 seeds); 1 recorded and fresh, skipped; about 2 minutes in all"
    )
    assert "1.0 a run (as recorded on this kind of device)" in sentence
    assert "GB of memory" in sentence and "MB of disk" in sentence

    assert len(estimate(grid, toy.results, CPU, force=True).to_run) == 3


@pytest.fixture
def first_takes(toy, monkeypatch):
    """A function that makes the first update take so many seconds and each later one 2; it gives all updates."""

    def set_clock(seconds: float) -> list[int]:
        clock, updates = [0.0], []
        loss = toy.module.ToyWorkload.loss

        def slow_at_first(self, model, batch):
            updates.append(1)
            clock[0] += seconds if len(updates) == 1 else 2
            return loss(self, model, batch)

        monkeypatch.setattr(toy.module.ToyWorkload, "loss", slow_at_first)
        monkeypatch.setattr("attn.training.loop.time.perf_counter", lambda: clock[0])
        return updates

    return set_clock


def test_the_first_update_counts_for_no_time(toy, first_takes):
    updates = first_takes(100)  # as one that compiles its kernels
    assert estimate([toy.job(0)], toy.results, CPU).seconds == 12 * 2
    assert len(updates) == 1 + 2, "timed for three seconds, no update is begun after those"


def test_a_slow_first_update_is_not_repeated_on_a_cpu(toy, first_takes):
    updates = first_takes(200)
    assert estimate([toy.job(0)], toy.results, CPU).seconds == 12 * 200
    assert len(updates) == 1


def test_rows_are_not_timed_without_end(toy, monkeypatch):
    clock, timed = [0.0], []

    def slow(job, results, device):
        timed.append(job.experiment.id)
        clock[0] += 100
        return 60.0, 1000, 10, "from timing a few updates"

    monkeypatch.setattr(runner, "_timed_cost", slow)
    monkeypatch.setattr(runner.time, "monotonic", lambda: clock[0])
    rows = [f"fit/{name}" for name in "abcd"]
    grid = [replace(toy.job(0), experiment=replace(toy.experiment(), id=row)) for row in rows]
    cost = estimate(grid, toy.results, CPU)
    assert timed == rows[:2], "three minutes had passed after the second row"
    assert cost.each == dict.fromkeys(rows[:2], 60.0) | dict.fromkeys(rows[2:])
    assert cost.seconds is None and cost.basis == "from timing a few updates" and cost.memory_bytes == 1000
    assert len(cost.unknown) == 1 and str(cost).endswith(
        "after 3 minutes no further row is timed, which --experiment does for one row alone"
    )
    assert "minutes in all" not in str(cost) and "at least 0.0 GB" in str(cost)
    assert [line.split("seed")[0].split(maxsplit=1)[1].strip() for line in cost.rows()] == [
        "1.0 minutes", "1.0 minutes", "time not known", "time not known",
    ]  # fmt: skip


def test_cost_is_not_taken_from_another_device_or_a_shorter_run(toy):
    environment_ = toy.made_up().data["environment"]
    toy.made_up(environment=environment_ | {"device": "a GPU", "cuda": "12.8"})
    grid = jobs(toy.chapter, [toy.experiment()], "cpu", (1,))
    assert estimate(grid, toy.results, CPU).basis.startswith("from timing")
    toy.made_up(run=toy.made_up().data["run"] | {"steps": 6})
    assert estimate(grid, toy.results, CPU).basis.startswith("from timing")
    toy.made_up()
    assert estimate(grid, toy.results, CPU).basis.startswith("as recorded")


def test_a_grid_prints_its_cost_before_it_runs(toy, grid, monkeypatch):
    order = []
    monkeypatch.setattr(runner, "run", lambda job, **options: order.append("run"))
    run_grid(
        [toy.job()], results=toy.results, runs=toy.runs, device=CPU, silent=True,
        say=lambda sentence: order.append("cost" if "minutes in all" in sentence else "other"),
    )  # fmt: skip
    assert order[:2] == ["cost", "run"]


def test_too_little_memory_refuses_with_what_is_free(toy, grid, monkeypatch):
    monkeypatch.setattr(environment, "free_memory_bytes", lambda device: 63)
    for refused in (toy.run, lambda: grid(toy.job())):
        with pytest.raises(
            UsageError, match="fit/line cpu seed 0 needs at least .* GB on cpu .* GB are free"
        ) as caught:
            refused()
        assert "smaller profile" in str(caught.value)
    monkeypatch.setattr(environment, "free_memory_bytes", lambda device: 64)
    assert toy.run() is not None, "64 bytes are what four weights with gradients and two moments take"


def short_of_memory(toy, monkeypatch, error, *, at_most=0, profiles=("cpu",)):
    """Losses of more than so many sequences at once find no memory at these profiles."""
    loss = toy.module.ToyWorkload.loss
    short_of = [toy.experiment().configs[profile].training.max_steps for profile in profiles]

    def short(self, model, batch):
        if self.config.training.max_steps in short_of and len(batch) > at_most:
            raise error
        return loss(self, model, batch)

    monkeypatch.setattr(toy.module.ToyWorkload, "loss", short)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_out_of_memory_names_the_pieces_and_the_profile_that_fit(toy, grid, monkeypatch, error):
    short_of_memory(toy, monkeypatch, error, at_most=1)
    for refused in (toy.run, lambda: grid(toy.job())):
        with pytest.raises(UsageError, match="fit/line cpu seed 0 ran out of memory on cpu: ") as caught:
            refused()
        assert "an update fits in 2 pieces, with grad_accum_steps=2 in the config" in str(caught.value)
        assert str(caught.value).endswith("; or take the smaller profile ci, which fits")


def test_out_of_memory_without_a_way_out_says_what_to_try(toy, monkeypatch):
    short_of_memory(toy, monkeypatch, MemoryError(), profiles=("ci", "cpu"))
    with pytest.raises(UsageError, match=r"cpu: take a smaller profile \(ci\) or a device with more memory$"):
        toy.run()
    assert not list(toy.results.rglob("*.json"))


def test_a_recorded_peak_says_whether_a_profile_fits(toy):
    toy.made_up()  # 1000 bytes
    assert runner._fits(toy.job(), CPU, toy.results, 1000)
    assert not runner._fits(toy.job(), CPU, toy.results, 999)


def test_another_error_is_not_taken_for_a_lack_of_memory(toy, monkeypatch):
    short_of_memory(toy, monkeypatch, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        toy.run()


def test_a_model_that_does_not_fit_names_the_profile(toy, grid, monkeypatch):
    make = toy.module.ToyWorkload.__init__

    def large(self, config, *others):
        if config == toy.experiment().config("cpu"):
            raise torch.OutOfMemoryError("CUDA out of memory")
        make(self, config, *others)

    monkeypatch.setattr(toy.module.ToyWorkload, "__init__", large)
    for refused in (toy.run, lambda: grid(toy.job())):
        with pytest.raises(
            UsageError, match="ran out of memory on cpu: take the smaller profile ci, which fits"
        ):
            refused()
    assert not list(toy.results.rglob("*.json"))


def test_an_evaluation_without_memory_names_the_profile(toy, monkeypatch):
    def outcome(self, model, history):
        raise MemoryError

    monkeypatch.setattr(toy.module.ToyWorkload, "outcome", outcome)
    with pytest.raises(UsageError, match="ran out of memory on cpu: take the smaller profile ci, which fits"):
        toy.run()


# --- live runs, replays, histories -------------------------------------------------------------------------


def test_a_live_run_leaves_no_trace(toy):
    live = run_live(toy.experiment(), "ci", 0, CPU)
    assert live.result.step == 5 and not live.result.interrupted
    assert live.outcome.metrics["error"].value == live.result.history[-1]["error"]
    assert sum(p.numel() for p in live.model.parameters()) == 4
    assert not toy.results.exists() and not toy.runs.exists()


def test_a_live_run_is_the_same_each_time_and_for_no_other_seed(toy):
    errors = [
        run_live(toy.experiment(), "ci", seed, CPU).outcome.metrics["error"].value for seed in (0, 0, 1)
    ]
    assert errors[0] == errors[1] != errors[2]


def test_a_replay_works_on_the_pieces_of_each_process(toy, monkeypatch):
    asked = []
    experiment = toy.experiment()
    build = experiment.build

    def spying(*arguments):
        workload = build(*arguments)
        batch = workload.batch
        workload.batch = lambda *place: asked.append(place) or batch(*place)
        return workload

    spied = replace(experiment, build=spying)
    alone = runner.replay(spied, "ci", 0, 2)
    assert asked == [(1, 0, 1), (2, 0, 1)]
    asked.clear()
    shared = runner.replay(spied, "ci", 0, 2, processes=2)
    assert asked == [(1, 0, 2), (1, 1, 2), (2, 0, 2), (2, 1, 2)]
    assert shared == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 11, 101, 1000])
@pytest.mark.parametrize("limit", [2, 3, 4])
def test_a_thinned_history_keeps_its_ends_and_its_order(length, limit):
    history = [{"step": step} for step in range(length)]
    thinned = thin(history, limit)
    steps = [entry["step"] for entry in thinned]
    assert len(thinned) == min(length, limit)
    assert steps[0] == 0 and steps[-1] == length - 1
    assert steps == sorted(set(steps))
    gaps = [b - a for a, b in zip(steps, steps[1:], strict=False)]
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_a_short_history_is_kept_whole(toy):
    history = [{"step": step} for step in range(HISTORY_LIMIT)]
    assert thin(history, HISTORY_LIMIT) == history


# --- what a metric must be ---------------------------------------------------------------------------------


def test_a_run_that_ends_in_no_number_leaves_its_checkpoint_and_no_record(toy):
    toy.edit("attn.experiments.toy", 'Metric(history[-1]["error"]', 'Metric(float("nan")')
    with pytest.raises(UsageError, match="metrics/error/value: nan is not finite"):
        toy.run()
    assert load_records(toy.results) == ([], [])
    assert not list(toy.results.rglob("*")) or not [p for p in toy.results.rglob("*") if p.is_file()]
    assert len(checkpoints(toy)) == 1
