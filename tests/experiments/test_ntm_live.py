"""The live check of chapter 6: what fresh, small runs must show."""

import pytest

from attn.experiments.ntm.live import BANDS
from attn.experiments.ntm.runs import EXPERIMENTS
from attn.experiments.ntm.tables import SOLVED
from attn.reproduction.experiment import Metric, Outcome
from attn.reproduction.live import live_rows
from attn.reproduction.runner import LiveRun
from attn.training.loop import TrainingResult
from tests.experiments.made_up import CPU, PAPER, TASK

CI = {task: PAPER.budgets[task]["ci"] for task in TASK}
CONFIGS = {e.id: e.config("ci") for e in EXPERIMENTS if "ci" in e.configs}

# Metrics of runs that pass, and that fail, every band of a task, with a constant cost.
PASSES = {
    "copy": (0.05, {"bits_per_bit_at_10": 0.1}),
    "repeat_copy": (5.0, {}),
    "associative": (1.0, {}),
    "ngrams": (46.0, {"bits_per_sequence": 44.0, "bits_above_optimal": 4.0}),
    "priority_sort": (5.0, {"bits_per_bit": 0.7}),
}
FAILS = {
    "copy": (0.2, {"bits_per_bit_at_10": 0.9}),
    "repeat_copy": (25.0, {}),
    "associative": (5.5, {}),
    "ngrams": (30.0, {"bits_per_sequence": 49.0, "bits_above_optimal": -5.0}),
    "priority_sort": (5.0, {"bits_per_bit": 0.99}),
}
OPTIMAL = {
    "optimal_bits_per_sequence": 40.0,
    "context_free_bits_per_sequence": 50.0,
    "bits_above_optimal_error": 1.0,
}


def live(cost, metrics):
    """A finished run of constant cost."""
    history = [{"seen": i, "bits_per_sequence": cost} for i in range(5)]
    result = TrainingResult(5, 5, history, [], 1.0, 1.0, None, False)
    return LiveRun(
        None, result, Outcome({name: Metric(value, "", "") for name, value in (OPTIMAL | metrics).items()})
    )


CHECKED = {band.experiment.split("/")[0]: band.experiment for band in BANDS}


def task_of(band):
    return band.experiment.split("/")[0]


def runs(made, kind=None):
    """Runs of what is checked, or of another model."""
    names = {task: f"{task}/{kind}" if kind else CHECKED[task] for task in made}
    return {names[task]: live(*settings) for task, settings in made.items()}


def test_every_task_is_checked_in_order():
    assert list(dict.fromkeys(map(task_of, BANDS))) == list(TASK)
    assert len({band.experiment for band in BANDS}) == len(TASK), "one run a task"
    assert len({band.quantity for band in BANDS}) == len(BANDS)
    rows = live_rows(BANDS, runs(PASSES))
    assert [row["quantity"] for row in rows] == [band.quantity for band in BANDS]


@pytest.mark.parametrize(("made", "verdict"), [(PASSES, True), (FAILS, False)])
def test_the_verdict_is_on_the_ntm(made, verdict):
    rows = live_rows(BANDS, runs(made))
    assert [row["verdict"] for row in rows] == [verdict] * len(BANDS)
    assert all(row["baseline"] is None for row in rows)
    against = live_rows(BANDS, runs(made) | runs(FAILS if verdict else PASSES, "lstm"))
    assert [row["verdict"] for row in against] == [verdict] * len(BANDS)
    assert [row["value"] for row in against] == [row["value"] for row in rows]
    assert [row["value"].startswith("not ") for row in against] == [not verdict] * len(BANDS)
    assert [row["baseline"].startswith("not ") for row in against] == [verdict] * len(BANDS)


def test_bands_say_on_which_side_a_run_lies():
    words = {row["quantity"]: row["value"] for row in live_rows(BANDS, runs(PASSES))}
    by_task = {task_of(band): words[band.quantity] for band in BANDS}
    assert by_task["repeat_copy"] == "below 12" and by_task["ngrams"] == "above -4"
    words = {row["quantity"]: row["value"] for row in live_rows(BANDS, runs(FAILS))}
    by_task = {task_of(band): words[band.quantity] for band in BANDS}
    assert by_task["repeat_copy"] == "not below 12" and by_task["ngrams"] == "not above -4"


def band(start):
    (found,) = [band for band in BANDS if band.quantity.startswith(start)]
    return found


def test_a_number_on_the_edge_does_not_pass():
    training = band("Copy, 1 to 5")
    assert training.level == SOLVED
    assert not training.holds(live(SOLVED, {})) and training.holds(live(SOLVED - 1e-9, {}))
    found = band("Dynamic 3-grams: share")
    level = {"bits_per_sequence": 50 - 10 * found.level}
    assert not found.holds(live(0, level)) and found.words(live(0, level)) == "not above 0.1"


def test_costs_are_medians_of_the_last_evaluations():
    run = live(0.05, {})
    run.result.history[-1]["bits_per_sequence"] = 80.0
    assert band("Copy, 1 to 5").value(run) == 0.05


@pytest.mark.parametrize(("cost", "share"), [(40.0, 1.0), (50.0, 0.0), (45.0, 0.5), (52.0, -0.2)])
def test_the_share_of_what_the_context_is_worth_by_hand(cost, share):
    assert band("Dynamic 3-grams: share").value(live(0, {"bits_per_sequence": cost})) == pytest.approx(share)


def test_the_distance_from_the_optimum_is_in_standard_errors():
    metrics = {"bits_above_optimal": 1.2, "bits_above_optimal_error": 0.4}
    assert band("Dynamic 3-grams: standard").value(live(0, metrics)) == pytest.approx(3)


def test_no_live_check_without_the_ntm():
    assert live_rows(BANDS, {}) == live_rows(BANDS, runs(PASSES, "lstm")) == []
    assert {row["quantity"] for row in live_rows(BANDS, {"copy/ntm_lstm": live(*PASSES["copy"])})} == {
        band.quantity for band in BANDS if task_of(band) == "copy"
    }


def test_quantities_speak_of_the_ci_budget():
    words = {task: [band.quantity for band in BANDS if task_of(band) == task] for task in TASK}
    task = {name: TASK[name].episodes(**budget["task"]) for name, budget in CI.items()}
    assert f"1 to {task['copy'].max_length} vectors" in words["copy"][0]
    assert f"{2 * task['copy'].max_length} vectors, twice" in words["copy"][1]
    repeat, sort = task["repeat_copy"], task["priority_sort"]
    assert repeat.max_repeats == 2
    assert f"1 to {repeat.max_length} vectors, once or twice" in words["repeat_copy"][0]
    assert (task["associative"].max_items, task["associative"].item_length) == (3, 1)
    assert "2 or 3 items of one vector" in words["associative"][0]
    assert all(f"{task['ngrams'].order}-grams" in quantity for quantity in words["ngrams"])
    assert f"{sort.n_answered} of {sort.n_shown} vectors" in words["priority_sort"][0]


@pytest.mark.parametrize("name", CONFIGS)
def test_an_untrained_model_has_what_the_check_reads_and_does_not_pass(name):
    config, (task, _) = CONFIGS[name], name.split("/")
    assert config.training.max_steps // config.training.eval_every >= 5, "enough for a running median"
    made = TASK[task].build(config, 0, CPU)
    history = [made.evaluate(made.model) for _ in range(5)]
    run = LiveRun(None, live(0, {}).result, made.outcome(made.model, history))
    run.result.history[:] = history
    rows = live_rows(BANDS, {CHECKED[task]: run})
    # no model can be better than optimal, an untrained one neither
    expected = [band.level < 0 for band in BANDS if task_of(band) == task]
    assert [row["verdict"] for row in rows] == expected and rows
