"""What chapter 6 declares: configs from facts, outcomes of tiny models, claims and figures on made-up records."""

import io
import warnings
from dataclasses import replace
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from attn.data.episodic import CopyTask
from attn.experiments.ntm import CHAPTER, figures, final_cost
from attn.experiments.ntm.live import live_rows
from attn.experiments.ntm.runs import (
    EXPERIMENTS,
    MODELS,
    EpisodicConfig,
    ModelConfig,
    build_copy,
    build_model,
)
from attn.reproduction.claims import FAILS, HOLDS, NOT_TESTED, judge
from attn.reproduction.errors import UsageError
from attn.reproduction.experiment import PROFILES, Measured
from attn.reproduction.facts import load_papers
from attn.reproduction.records import ARTIFACT_LIMIT, Record, pack_arrays
from attn.reproduction.runner import LiveRun
from attn.reproduction.sources import EVALUATION, source_hashes
from attn.training.config import TrainingConfig
from attn.training.loop import TrainingResult
from tests.reproduction.toy import record_data

CPU = torch.device("cpu")
PAPER = load_papers()["graves2014ntm"]
BUDGETS = PAPER.budgets["copy"]
LENGTHS = (10, 20, 30, 50, 120)
TRAINING = TrainingConfig(max_steps=2, batch_size=2, optimizer="rmsprop_graves", lr=1e-4)


def tiny(kind, **changes):
    """A model of a few hundred weights on sequences of one or two vectors."""
    model = ModelConfig(kind=kind, size=3, n_slots=9, slot_dim=2, n_layers=2 if kind == "lstm" else 1)
    settings = {"model": model, "task": CopyTask(max_length=2), "training": TRAINING, "validation_count": 2,
                "test_lengths": (1, 3), "test_count": 2}  # fmt: skip
    return EpisodicConfig(**(settings | changes))


@pytest.fixture(scope="module")
def outcomes():
    """What comes out of untrained models, at the lengths that the figures show."""
    found = {}
    for kind in MODELS:
        workload = build_copy(tiny(kind, test_lengths=LENGTHS), 0, CPU)
        found[kind] = workload.outcome(workload.model, [{"bits_per_sequence": 13.5}])
    return found


# --- configs -----------------------------------------------------------------------------------------------


def every_config():
    return [(e, profile) for e in EXPERIMENTS for profile in e.configs]


def test_there_is_an_experiment_a_model_and_a_config_a_budget():
    assert [experiment.id for experiment in EXPERIMENTS] == [f"copy/{kind}" for kind in MODELS]
    for experiment in EXPERIMENTS:
        kind = experiment.id.removeprefix("copy/")
        assert list(experiment.configs) == [profile for profile in BUDGETS if kind in BUDGETS[profile]["lr"]]
        assert set(experiment.configs) <= set(PROFILES) and set(experiment.configs) <= set(experiment.seeds)
        assert {config.model.kind for config in experiment.configs.values()} == {kind}
    assert [e.id for e in EXPERIMENTS if "ci" in e.configs] == ["copy/ntm_lstm", "copy/lstm"]


@pytest.mark.parametrize(
    ("experiment", "profile"), every_config(), ids=lambda value: getattr(value, "id", value)
)
def test_budgets_come_from_the_facts(experiment, profile):
    config, budget = experiment.config(profile), BUDGETS[profile]
    training = config.training
    assert training.batch_size == budget["batch_size"]
    assert training.max_steps * training.batch_size == budget["sequences"]
    assert training.lr == budget["lr"][config.model.kind]
    assert training.final_steps == round(budget["final_share"] * training.max_steps)
    assert training.eval_every == budget["evaluate_every"] // budget["batch_size"] > 0
    assert (config.task.min_length, config.task.max_length) == (1, budget["max_length"])
    assert config.test_lengths == tuple(budget["test_lengths"])
    # as the paper states them, at every profile
    assert (training.optimizer, training.momentum, training.grad_clip_value) == ("rmsprop_graves", 0.9, 10.0)
    assert training.schedule == "constant" and config.task.n_bits == 8


@pytest.mark.parametrize(
    ("experiment", "profile"), every_config(), ids=lambda value: getattr(value, "id", value)
)
def test_models_have_the_paper_s_size_at_every_profile(experiment, profile):
    model = experiment.config(profile).model
    table = {"ntm_ff": "table1_ntm_ff", "ntm_lstm": "table2_ntm_lstm", "lstm": "table3_lstm"}[model.kind]
    printed = PAPER.table(table).rows[0]
    assert printed["task"] == "Copy"
    if model.kind == "lstm":
        assert printed["network"] == f"{model.n_layers} x {model.size}"
    else:
        assert (printed["controller_size"], printed["memory"]) == (
            str(model.size),
            f"{model.n_slots} x {model.slot_dim}",
        )
        assert printed["heads"] == model.n_heads and model.n_layers == 1


def test_the_profile_paper_is_the_paper_s_recipe():
    rates = {"ntm_ff": "table1_ntm_ff", "ntm_lstm": "table2_ntm_lstm", "lstm": "table3_lstm"}
    for experiment in EXPERIMENTS:
        config = experiment.config("paper")
        assert config.training.lr == PAPER.table(rates[config.model.kind]).rows[0]["learning_rate"]
        assert config.training.batch_size == 1
        assert config.training.max_steps == 1000 * PAPER.table("fig3_copy_curves").rows[-1]["k"]
        assert config.task.max_length == 20


def test_recorded_profiles_reach_the_rows_of_the_learning_curves():
    """A row whose point no evaluation comes near could never be filled."""
    for experiment in EXPERIMENTS:
        for profile in ("cpu", "gpu", "paper"):
            training = experiment.config(profile).training
            every = training.eval_every * training.batch_size
            seen = range(0, training.max_steps * training.batch_size + 1, every)
            for row in PAPER.table("fig3_copy_curves").rows:
                wanted = 1000 * row["k"]
                if wanted <= seen[-1]:
                    assert min(abs(wanted - at) for at in seen) <= 0.01 * wanted, (
                        f"{experiment.id} {profile} {row['k']}"
                    )


def test_share_says_how_much_of_the_paper_s_training_it_is():
    shares = {profile: EXPERIMENTS[0].share(config) for profile, config in EXPERIMENTS[0].configs.items()}
    assert shares["cpu"] == "200,000 sequences, 20% of the paper's million"
    assert shares["paper"] == "1,000,000 sequences, 100% of the paper's million"


def test_unknown_models_are_named():
    with pytest.raises(UsageError, match="unknown kind of model 'gru'; valid: ntm_lstm, ntm_ff, lstm"):
        ModelConfig(kind="gru", size=3)


# --- workloads ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MODELS)
def test_the_outcome_has_every_metric_and_array(outcomes, kind):
    outcome = outcomes[kind]
    names = [f"{name}_at_{length}" for length in LENGTHS for name in ("bits_per_bit", "bit_errors")]
    assert sorted(outcome.metrics) == sorted(["bits_per_sequence", *names])
    for name, metric in outcome.metrics.items():
        assert np.isfinite(metric.value) and metric.unit and len(metric.definition) > 40, name
    assert outcome.metrics["bits_per_sequence"].value == 13.5, "the last of the history"
    arrays = {f"{name}_{length}": (length, 9) for length in LENGTHS for name in ("targets", "outputs")}
    if kind != "lstm":
        arrays |= {
            "trace_inputs": (42, 10),
            "trace_outputs": (42, 9),
            "trace_add": (42, 2),
            "trace_reads": (42, 2),
        }
        arrays |= {"trace_read_weights": (42, 9), "trace_write_weights": (42, 9)}
    assert {name: array.shape for name, array in outcome.artifact.items()} == arrays
    assert len(pack_arrays(outcome.artifact)) < ARTIFACT_LIMIT
    for name in ("read", "write") if kind != "lstm" else ():
        weights = outcome.artifact[f"trace_{name}_weights"].astype(float)
        np.testing.assert_allclose(weights.sum(1), 1, atol=0.01)


def test_artifacts_of_paper_size_models_keep_to_the_limit():
    config = EXPERIMENTS[0].config("paper")
    workload = build_copy(replace(config, validation_count=1, test_count=1, test_lengths=(50,)), 0, CPU)
    arrays = workload.outcome(workload.model, [{"bits_per_sequence": 1.0}]).artifact
    assert arrays["trace_write_weights"].shape == (42, 128)
    per_step = sum(array.nbytes for name, array in arrays.items() if name.endswith("_50")) / 50
    assert sum(array.nbytes for array in arrays.values()) + per_step * sum(LENGTHS) < ARTIFACT_LIMIT


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_that_says_nothing_costs_a_bit_an_output(kind):
    """All logits 0: nine outputs a step at one bit each, and every 1 among the targets is on the wrong side."""
    workload = build_copy(tiny(kind), 0, CPU)
    with torch.no_grad():
        for parameter in workload.model.parameters():
            parameter.zero_()
    metrics = workload.outcome(workload.model, [{"bits_per_sequence": 0.0}]).metrics
    for length in (1, 3):
        assert metrics[f"bits_per_bit_at_{length}"].value == pytest.approx(9 / 8)
        ones = workload._test(length).targets.sum((1, 2)).mean()
        assert metrics[f"bit_errors_at_{length}"].value == pytest.approx(float(ones)) != 0
    # two validation sequences each of one and of two vectors
    assert workload.evaluate(workload.model)["bits_per_sequence"] == pytest.approx(9 * 1.5)


def test_seeds_differ_in_weights_and_training_and_share_their_tests():
    one, other, again = (build_copy(tiny("ntm_lstm"), seed, CPU) for seed in (0, 1, 0))
    weights = [torch.cat([p.flatten() for p in w.model.parameters()]) for w in (one, other, again)]
    assert torch.equal(weights[0], weights[2]) and not torch.equal(weights[0], weights[1])
    batches = [
        torch.cat([w.batch(step, 0, 1).inputs.flatten() for step in range(1, 9)]).tolist()
        for w in (one, other, again)
    ]
    assert batches[0] == batches[2] != batches[1]
    for length in (1, 3):
        assert torch.equal(one._test(length).inputs, other._test(length).inputs)
    for a, b in zip(one.validation, other.validation, strict=True):
        assert torch.equal(a.inputs, b.inputs)
    assert [batch.inputs.shape[0] for batch in one.validation] == [2, 2]
    assert not torch.equal(one._test(1).inputs, one.validation[0].inputs)


def test_other_models_see_the_same_sequences():
    ntm, lstm = build_copy(tiny("ntm_ff"), 0, CPU), build_copy(tiny("lstm"), 0, CPU)
    assert torch.equal(ntm.batch(1, 0, 1).inputs, lstm.batch(1, 0, 1).inputs)
    assert torch.equal(ntm._test(3).targets, lstm._test(3).targets)
    assert ntm.data_checksums() == {}


def test_lengths_of_one_update_can_differ():
    workload = build_copy(tiny("lstm", same_length=False, training=replace(TRAINING, batch_size=16)), 0, CPU)
    assert set(workload.batch(1, 0, 1).lengths.tolist()) == {1, 2}
    same = build_copy(tiny("lstm", training=replace(TRAINING, batch_size=16)), 0, CPU)
    assert all(len(set(same.batch(step, 0, 1).lengths.tolist())) == 1 for step in range(1, 9))


def test_the_outcome_leaves_no_gradient():
    workload = build_copy(tiny("ntm_lstm"), 0, CPU)
    workload.outcome(workload.model, [{"bits_per_sequence": 0.0}])
    assert all(parameter.grad is None for parameter in workload.model.parameters())


def test_heads_are_pairs():
    model = build_model(replace(tiny("ntm_ff").model, n_heads=3), n_inputs=4, n_outputs=2)
    assert (model.heads.n_heads, model.heads.n_write_heads) == (6, 3)


def test_a_run_depends_on_exactly_these_modules():
    (hashes,) = {tuple(sorted(source_hashes(experiment.build))) for experiment in EXPERIMENTS}
    modules = {name.removesuffix(EVALUATION) for name in hashes}
    assert modules == {
        "attn.experiments.ntm.runs:build_copy",
        "attn.data", "attn.data.episodic",
        "attn.evaluation", "attn.evaluation.episodic",
        "attn.ntm",
        "attn.training", "attn.training.checkpoint", "attn.training.config", "attn.training.distributed",
        "attn.training.episodic", "attn.training.loop", "attn.training.optimizers", "attn.training.progress",
        "attn.training.schedules", "attn.training.seeding",
    }  # fmt: skip


# --- the chapter's declaration -----------------------------------------------------------------------------


def test_every_column_of_every_table_is_accounted_for():
    assert [view.id for view in CHAPTER.tables] == [table.id for table in PAPER.tables]
    for view in CHAPTER.tables:
        columns = PAPER.table(view.id).columns
        declared = [*view.label_columns, *view.settings, *view.cells]
        assert sorted(declared) == sorted(columns), view.id


def test_claims_and_experiments_name_what_there_is():
    ids = {experiment.id for experiment in CHAPTER.experiments}
    for claim in CHAPTER.claims:
        assert PAPER.claim(claim.fact) and claim.id.startswith(claim.fact)
        assert set(claim.experiments) <= ids
        assert claim.margin is None or claim.margin in PAPER.margins
    assert len({claim.id for claim in CHAPTER.claims}) == len(CHAPTER.claims)
    for experiment in CHAPTER.experiments:
        assert {PAPER.table(table).id for table in experiment.tables} == {"fig3_copy_curves"}


def test_commands_of_rows_are_accepted_by_attn_run():
    from click.testing import CliRunner

    from attn import cli

    commands = {view.command(row) for view in CHAPTER.tables for row in PAPER.table(view.id).rows} - {None}
    assert commands
    for command in commands:
        name, *arguments = command.split()
        context = cli.main.make_context(name, arguments[:1])
        parsed = cli.run.make_context("run", arguments[1:], parent=context).params
        assert parsed["chapter"] == "graves2014ntm"
        assert CHAPTER.select(task=parsed["task"], table=parsed["table"], experiment=parsed["experiment"])
    assert CliRunner().invoke(cli.main, ["run", "--help"]).exit_code == 0


# --- claims ------------------------------------------------------------------------------------------------


def record(kind, seed=0, *, costs=(9.0, 8.0), evaluations=101, at=None, profile="cpu", **changes):
    """A run whose cost goes from one value to another in equal steps, with a cost per bit at each length."""
    steps = np.linspace(*costs, evaluations)
    history = [
        {"step": 125 * i, "seen": 2000 * i, "bits_per_sequence": float(cost)} for i, cost in enumerate(steps)
    ]
    at = dict.fromkeys(LENGTHS, 0.5) | (at or {})
    metrics = {f"bits_per_bit_at_{length}": value for length, value in at.items()}
    data = record_data(PAPER.id, f"copy/{kind}", seed, metrics, history=history, profile=profile, **changes)
    return Record(Path(f"seed{seed}.json"), data | {"artifact": None})


def five(kind, spread=0.01, at=None, **options):
    """Five seeds that differ a little."""
    at = at or {}
    return [
        record(
            kind, seed, at={length: value * (1 + spread * seed) for length, value in at.items()}, **options
        )
        for seed in range(5)
    ]


GOOD = five("ntm_lstm", costs=(9, 0.01), at={10: 1e-4, 20: 1e-4, 30: 2e-4, 50: 1e-3, 120: 0.1})
POOR = five("lstm", costs=(9, 2), at={10: 0.02, 20: 0.04, 30: 0.9, 50: 1.0, 120: 1.0})
COPY_CLAIMS = [claim for claim in CHAPTER.claims if claim.kind != "arithmetic"]


def verdict(claim, records):
    return judge(claim, PAPER, records, lambda record: False)


@pytest.mark.parametrize("claim", COPY_CLAIMS, ids=lambda claim: claim.id)
def test_claims_hold_on_runs_like_the_paper_s(claim):
    found = verdict(claim, GOOD + POOR)
    assert (found.verdict, found.seeds, found.profile) == (HOLDS, 5, "cpu")
    assert found.control["shown"] and found.estimate == pytest.approx(sum(found.interval) / 2)


# A model that copies costs a little more at length 30 than at 20 too, so that this one has no other side.
TWO_SIDED = [claim for claim in COPY_CLAIMS if claim.id != "copy_generalises_lstm_breaks"]


@pytest.mark.parametrize("claim", TWO_SIDED, ids=lambda claim: claim.id)
def test_claims_fail_when_the_models_change_places(claim):
    places = {
        5 * kind + seed: record
        for kind, records in enumerate((POOR, GOOD))
        for seed, record in enumerate(records)
    }
    swapped = [
        Record(r.path, r.data | {"experiment": "copy/ntm_lstm" if place < 5 else "copy/lstm"})
        for place, r in places.items()
    ]
    assert verdict(claim, swapped).verdict == FAILS


@pytest.mark.parametrize("claim", COPY_CLAIMS, ids=lambda claim: claim.id)
def test_claims_are_not_tested_without_their_control(claim):
    at = dict.fromkeys(LENGTHS, 1.1)
    chance = five("ntm_lstm", costs=(9, 9), at=at) + five("lstm", costs=(9, 9), at=at)
    assert verdict(claim, chance).verdict == NOT_TESTED
    assert verdict(claim, GOOD[:4] + POOR[:4]).verdict == NOT_TESTED, "a headline claim needs five seeds"


def test_headline_claims_are_those_on_copying():
    assert all(claim.headline and claim.seeds_needed == 5 for claim in COPY_CLAIMS)


def test_parameters_do_not_depend_on_the_number_of_slots():
    (claim,) = [claim for claim in CHAPTER.claims if claim.kind == "arithmetic"]
    assert verdict(claim, []).verdict == HOLDS


def test_final_cost_sees_through_a_spike():
    history = record("lstm", costs=(5, 1)).history
    history[-1] |= {"bits_per_sequence": 400.0}
    spiked = Record(Path("seed0.json"), record("lstm").data | {"history": history})
    assert final_cost(spiked) < 1.2


def test_learning_curve_cells_are_the_running_median_at_their_point():
    (view,) = [view for view in CHAPTER.tables if view.id == "fig3_copy_curves"]
    cell = view.cells["lstm"]
    assert isinstance(cell, Measured) and cell.experiment({"k": 100}) == "copy/lstm"
    run = record("lstm", costs=(10, 0))  # 0.1 less every 2000 sequences
    assert cell.value({"k": 100}, run) == pytest.approx(5.2), "median of 5.0 to 5.4"
    assert cell.value({"k": 200}, run) == pytest.approx(0.2)
    assert cell.value({"k": 300}, run) is None, "the run ended before"
    for seen, found in ((99_500, True), (100_500, False), (98_000, False)):
        moved = [entry | ({"seen": seen} if entry["seen"] == 100_000 else {}) for entry in run.history]
        moved = [
            entry for entry in moved if entry["seen"] in (seen, 0) or abs(entry["seen"] - 100_000) > 1000
        ]
        value = cell.value({"k": 100}, Record(run.path, run.data | {"history": moved}))
        assert (value is not None) == found, seen


def test_tasks_to_come_leave_their_cells_pending():
    (view,) = [view for view in CHAPTER.tables if view.id == "fig7_repeat_copy_curves"]
    assert view.cells["lstm"].experiment({"k": 100}) is None and view.command({"k": 100}) is None


# --- live check --------------------------------------------------------------------------------------------


def live(cost, beyond):
    history = [{"seen": i, "bits_per_sequence": cost} for i in range(5)]
    result = TrainingResult(5, 5, history, [], 1.0, 1.0, None, False)
    outcome = type("Outcome", (), {"metrics": {"bits_per_bit_at_10": type("Metric", (), {"value": beyond})}})
    return LiveRun(None, result, outcome)


@pytest.mark.parametrize(
    ("cost", "beyond", "verdicts"),
    [(0.05, 0.1, [True, True]), (0.2, 0.1, [False, True]), (0.05, 0.9, [True, False])],
)
def test_the_live_check_asks_for_copying_in_and_beyond_training(cost, beyond, verdicts):
    rows = live_rows({"copy/ntm_lstm": live(cost, beyond), "copy/lstm": live(3.0, 1.0)})
    assert [row["verdict"] for row in rows] == verdicts
    assert all(row["baseline"].startswith("not below") for row in rows)
    alone = live_rows({"copy/ntm_lstm": live(cost, beyond)})
    assert [row["verdict"] for row in alone] == verdicts and all(row["baseline"] is None for row in alone)


def test_no_live_check_without_the_ntm():
    assert live_rows({}) == live_rows({"copy/lstm": live(0.0, 0.0)}) == []


def test_the_live_lengths_are_those_of_the_ci_budget():
    assert {1, 5} == {1, BUDGETS["ci"]["max_length"]} and 10 in BUDGETS["ci"]["test_lengths"]
    assert "1 to 5" in live_rows({"copy/ntm_lstm": live(0, 0)})[0]["quantity"]


# --- figures -----------------------------------------------------------------------------------------------


@pytest.fixture
def drawn(tmp_path, outcomes):
    """Made-up records with artifacts, and every warning an error until the figures are drawn."""
    records = {}
    for kind, made in (("ntm_lstm", GOOD), ("lstm", POOR), ("ntm_ff", [])):
        path = tmp_path / f"{kind}.npz"
        path.write_bytes(pack_arrays(outcomes[kind].artifact))
        artifact = {"file": path.name, "sha256": "0" * 64, "bytes": 1}
        records[kind] = [Record(tmp_path / f"{kind}.json", r.data | {"artifact": artifact}) for r in made]
    with warnings.catch_warnings(), plt.rc_context():
        warnings.simplefilter("error")
        yield records
        for number in plt.get_fignums():
            plt.figure(number).savefig(io.BytesIO(), format="png", dpi=50)
    plt.close("all")


def texts(drawing):
    return [text.get_text() for text in drawing.findobj(matplotlib.text.Text) if text.get_text()]


def test_copy_curves_show_every_seed_the_medians_and_the_paper_s_marks(drawn):
    printed = PAPER.table("fig3_copy_curves")
    (axes,) = figures.copy_curves(drawn, printed).axes
    curves = [line for line in axes.lines if len(line.get_xdata()) == 101]
    assert len(curves) == 2 * (5 + 1)
    assert curves[0].get_xdata()[-1] == 200, "in thousands"
    marks = [line for line in axes.lines if line.get_marker() == "x" and len(line.get_xdata())]
    assert sorted(tuple(line.get_ydata()) for line in marks) == [(0.1, 0.1), (4.8, 2.1)], (
        "up to 200 thousand only"
    )
    assert axes.get_yscale() == "log"
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[:2] == ["NTM, LSTM controller (median of 5 seeds)", "LSTM (median of 5 seeds)"]


def test_costs_of_zero_are_drawn_on_a_logarithmic_axis(drawn):
    solved = {"ntm_lstm": [record("ntm_lstm", costs=(9, 0))]}
    (axes,) = figures.copy_curves(solved, PAPER.table("fig3_copy_curves")).axes
    assert axes.lines[0].get_ydata().min() > 0
    zero = {"ntm_lstm": [record("ntm_lstm", at=dict.fromkeys(LENGTHS, 0.0))]}
    figures.generalisation(zero, LENGTHS, longest=20)


def test_generalisation_has_a_mark_a_seed(drawn):
    (axes,) = figures.generalisation(drawn, LENGTHS, longest=20).axes
    marks = [line for line in axes.lines if line.get_marker() == "o"]
    assert len(marks) == 10
    medians = [list(line.get_ydata()) for line in axes.lines if line.get_linewidth() == 2]
    assert medians[0] == pytest.approx([1e-4 * 1.02, 1e-4 * 1.02, 2e-4 * 1.02, 1e-3 * 1.02, 0.1 * 1.02])
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert [int(tick.get_text()) for tick in axes.get_xticklabels()] == list(LENGTHS)


def test_answers_stand_below_their_targets(drawn, outcomes):
    drawing = figures.answers({kind: drawn[kind] for kind in ("ntm_lstm", "lstm")}, (10, 20, 30, 50))
    assert len(drawing.axes) == 3 * 4
    images = [axes.images[0].get_array() for axes in drawing.axes]
    np.testing.assert_allclose(images[0], outcomes["ntm_lstm"].artifact["targets_10"].T / 255)
    np.testing.assert_allclose(images[7], outcomes["ntm_lstm"].artifact["outputs_50"].T / 255)
    np.testing.assert_allclose(images[11], outcomes["lstm"].artifact["outputs_50"].T / 255)
    assert {"length 10", "length 50", "target", "LSTM"} <= set(texts(drawing))


def test_copying_from_inside_shows_what_was_kept(drawn, outcomes):
    drawing = figures.copying_from_inside(drawn["ntm_lstm"])
    images = [axes.images[0].get_array() for axes in drawing.axes]
    assert len(images) == 6
    kept = outcomes["ntm_lstm"].artifact
    np.testing.assert_allclose(images[0], kept["trace_inputs"].T / 255)
    np.testing.assert_allclose(images[2], kept["trace_add"].astype(float).T)
    assert all(image.shape[1] == 42 for image in images)
    assert images[4].shape == images[5].shape, "both weightings show the same slots"


def test_figures_without_records_say_so(drawn):
    for drawing in (
        figures.copy_curves({}, PAPER.table("fig3_copy_curves")),
        figures.copy_curves({"lstm": []}, PAPER.table("fig3_copy_curves")),
        figures.generalisation({}, LENGTHS, longest=20),
        figures.generalisation({"lstm": []}, LENGTHS, longest=20),
        figures.answers({"lstm": []}, (10, 20)),
        figures.copying_from_inside([]),
    ):
        assert "no records yet" in texts(drawing)
    assert figures.solved_line({"lstm": []}) == {}


def test_solved_line_counts_seeds_below_the_threshold():
    rows = [record("ntm_lstm", 0, costs=(1, 0)), record("ntm_lstm", 1, costs=(1, 0.2))]
    assert figures.solved_line({"ntm_lstm": rows, "lstm": POOR}) == {"ntm_lstm": (1, 2), "lstm": (0, 5)}


def test_small_tensors_are_drawn_as_they_are(drawn):
    drawing = figures.addressing_steps({"before": [0.25, 0.75], "after": [1.0, 0.0]})
    assert [[bar.get_height() for bar in axes.patches] for axes in drawing.axes] == [[0.25, 0.75], [1.0, 0.0]]
    memory = np.array([[0.5, -1.0], [0.25, 0.0]])
    drawing = figures.write_steps({"before": memory, "after": memory / 2})
    assert {"0.50", "-1.00", "0.25", "0.00", "0.12", "before", "after"} <= set(texts(drawing))
    batch = CopyTask(max_length=3).sample(1, torch.Generator().manual_seed(0))
    images = [axes.images[0].get_array() for axes in figures.episode(batch).axes]
    np.testing.assert_array_equal(images[0], batch.inputs[0].T)
    np.testing.assert_array_equal(images[1], batch.targets[0].T)


@pytest.mark.parametrize(
    ("used", "shown", "first"),
    [
        ([4, 5, 6], [2, 3, 4, 5, 6, 7, 8], 2),
        ([19, 0, 1], [17, 18, 19, 0, 1, 2, 3], -3),
        ([0], [18, 19, 0, 1, 2], -2),
        ([17], [15, 16, 17, 18, 19], 15),
        ([], list(range(20)), 0),
        (list(range(20)), list(range(20)), 0),
    ],
)
def test_slots_in_use_are_cut_out_across_the_end_of_the_circle(used, shown, first):
    weights = np.zeros((3, 20))
    weights[:, used] = 0.5
    cut, start = figures._used_slots(weights, np.zeros((3, 20)))
    assert start == first
    np.testing.assert_array_equal(cut(np.arange(20)[None]), [shown])
