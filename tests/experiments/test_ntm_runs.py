"""What chapter 6 runs: configs from facts, workloads and outcomes of tiny models, and what a run depends on."""

import ast
from collections import Counter
from dataclasses import asdict, replace
from math import log, log2

import numpy as np
import pytest
import torch
from torch import nn

from attn.data.associative_recall import AssociativeRecallTask
from attn.data.episodic import CopyTask
from attn.data.ngrams import NGramTask
from attn.data.priority_sort import PrioritySortTask
from attn.data.repeat_copy import RepeatCopyTask
from attn.evaluation.episodic import episode_bits
from attn.experiments.ntm.live import BANDS
from attn.experiments.ntm.runs import EXPERIMENTS, TASKS, VARIANTS, numbers, printed_model
from attn.experiments.ntm.workloads import MODELS, EpisodicConfig, ModelConfig, build_model
from attn.ntm import write
from attn.reproduction import sources
from attn.reproduction.errors import UsageError
from attn.reproduction.experiment import PROFILES, config_dict
from attn.reproduction.records import ARTIFACT_LIMIT, pack_arrays
from attn.reproduction.sources import EVALUATION, source_hashes
from tests.experiments.made_up import CPU, PAPER, TASK, TRAINING, outcome_of, tiny

BUDGETS = PAPER.budgets
PRINTED = {"ntm_ff": "table1_ntm_ff", "ntm_lstm": "table2_ntm_lstm", "lstm": "table3_lstm"}
RUN_TASKS = {task.id: task for task in (*TASKS, *VARIANTS)}
every_task = pytest.mark.parametrize("task", list(TASK))
every_kind = pytest.mark.parametrize("kind", MODELS)


def every_config():
    return [pytest.param(e, profile, id=f"{e.id}-{profile}") for e in EXPERIMENTS for profile in e.configs]


def parts(experiment):
    """Task and kind of an experiment."""
    return experiment.id.split("/")


def workload(name, kind="lstm", seed=0, /, **changes):
    return TASK[name].build(tiny(kind, name, **changes), seed, CPU)


# --- configs -----------------------------------------------------------------------------------------------


def test_every_budget_of_the_facts_is_an_experiment():
    expected = {
        f"{task}/{kind}": {
            profile: budget["seeds"] for profile, budget in budgets.items() if kind in budget["lr"]
        }
        for task, budgets in BUDGETS.items()
        for kind in MODELS
    }
    expected = {name: seeds for name, seeds in expected.items() if seeds}
    assert {experiment.id: dict(experiment.seeds) for experiment in EXPERIMENTS} == expected
    assert len(EXPERIMENTS) == len(expected)
    for experiment in EXPERIMENTS:
        assert list(experiment.configs) == [profile for profile in PROFILES if profile in experiment.seeds]
        assert experiment.task == parts(experiment)[0]
        assert {config.model.kind for config in experiment.configs.values()} == {parts(experiment)[1]}
    live = {e.id for e in EXPERIMENTS if "ci" in e.configs}
    assert live == {"copy/lstm", *(band.experiment for band in BANDS)}
    assert set(RUN_TASKS) == set(BUDGETS), "no budget without a task, no task without a budget"


@pytest.mark.parametrize(("experiment", "profile"), every_config())
def test_budgets_come_from_the_facts(experiment, profile):
    config, budget = experiment.config(profile), BUDGETS[experiment.task][profile]
    training = config.training
    assert training.batch_size == budget["batch_size"]
    assert 0 <= budget["sequences"] - training.max_steps * training.batch_size < training.batch_size
    assert training.lr == budget["lr"][config.model.kind]
    assert training.final_steps == round(budget["final_share"] * training.max_steps)
    assert training.eval_every == budget["evaluate_every"] // budget["batch_size"] > 0
    assert (config.validation_count, config.test_count) == (budget["validation_count"], budget["test_count"])
    assert [list(size) for size in config.test_sizes] == budget["test_sizes"]
    assert list(config.trace_size) == budget["trace_size"]
    assert config.same_length == budget.get("same_length", True)
    # as the paper states them, at every profile
    assert training.optimizer == budget.get("optimizer", "rmsprop_graves")
    assert (training.momentum, training.grad_clip_value, training.schedule) == (0.9, 10.0, "constant")


# The training episodes of the paper (Sec. 4.1 to 4.5), with the vectors' bits that the parameter counts imply.
PAPER_TASKS = {
    "copy": CopyTask(n_bits=8, min_length=1, max_length=20),
    "repeat_copy": RepeatCopyTask(n_bits=6, min_length=1, max_length=10, min_repeats=1, max_repeats=10),
    "associative": AssociativeRecallTask(n_bits=6, item_length=3, min_items=2, max_items=6),
    "ngrams": NGramTask(order=6, length=200),
    "priority_sort": PrioritySortTask(n_bits=8, n_shown=20, n_answered=16),
}


@pytest.mark.parametrize(("experiment", "profile"), every_config())
def test_episodes_are_the_paper_s_at_every_recorded_profile(experiment, profile):
    config, task = experiment.config(profile), RUN_TASKS[experiment.task]
    of_paper = PAPER_TASKS[task.of or task.id]
    budget = BUDGETS[task.id][profile]["task"]
    assert config.task == (replace(of_paper, **budget) if profile == "ci" else of_paper)
    assert {len(size) for size in (*config.test_sizes, config.trace_size)} == {len(of_paper.sizes()[0])}


def printed_settings(model):
    """A model in the words of tables 1 to 3."""
    layers = "" if model.n_layers == 1 else f"{model.n_layers} x "
    if model.kind == "lstm":
        return {"network": f"{layers}{model.size}"}
    memory = f"{model.n_slots} x {model.slot_dim}"
    return {"heads": model.n_heads, "controller_size": f"{layers}{model.size}", "memory": memory}


@pytest.mark.parametrize(("experiment", "profile"), every_config())
def test_models_have_the_paper_s_size_at_every_profile(experiment, profile):
    model = experiment.config(profile).model
    task = RUN_TASKS[experiment.task]
    (printed,) = [row for row in PAPER.table(PRINTED[model.kind]).rows if row["task"] == task.row]
    changed = BUDGETS[task.id][profile].get("model", {})
    found = printed_settings(replace(model, **{name: None for name in changed}))
    differing = {name for name, value in found.items() if value != printed[name]}
    assert differing == ({"heads"} if task.id == "priority_sort_one_head" else set())
    assert {name: getattr(model, name) for name in changed} == changed


def test_a_printed_row_becomes_a_model():
    assert numbers("3 x 256") == (3, 256) and numbers("512") == (1, 512)
    row = {"heads": 5, "controller_size": "2 x 100", "memory": "128 x 20", "network": "3 x 64"}
    sizes = {"n_heads": 5, "n_slots": 128, "slot_dim": 20}
    assert printed_model("ntm_lstm", row) == ModelConfig(kind="ntm_lstm", size=100, n_layers=2, **sizes)
    assert printed_model("ntm_ff", row | {"controller_size": "100"}) == ModelConfig(
        kind="ntm_ff", size=100, **sizes
    )
    assert printed_model("lstm", row) == ModelConfig(kind="lstm", size=64, n_layers=3)


@pytest.mark.parametrize("experiment", [e for e in EXPERIMENTS if "paper" in e.configs], ids=lambda e: e.id)
def test_the_profile_paper_is_the_paper_s_recipe(experiment):
    config, task = experiment.config("paper"), TASK[experiment.task]
    (printed,) = [row for row in PAPER.table(PRINTED[config.model.kind]).rows if row["task"] == task.row]
    assert config.training.lr == printed["learning_rate"]
    assert config.training.batch_size == 1
    assert config.training.max_steps == 1000 * PAPER.table(task.tables[0]).rows[-1]["k"]
    assert config.training.final_steps == 0


CURVES = [
    pytest.param(e, profile, id=f"{e.id}-{profile}")
    for e in EXPERIMENTS
    for profile in e.configs
    if e.tables and profile != "ci"
]


@pytest.mark.parametrize(("experiment", "profile"), CURVES)
def test_recorded_profiles_reach_the_rows_of_the_learning_curves(experiment, profile):
    """A row whose point no evaluation comes near could never be filled."""
    training = experiment.config(profile).training
    total = training.max_steps * training.batch_size
    seen = [*range(0, total, training.eval_every * training.batch_size), total]
    rows = [1000 * row["k"] for row in PAPER.table(experiment.tables[0]).rows]
    # runs are rounded down to whole updates, and the table takes an evaluation at most a hundredth before the row
    missed = [k for k in rows if 0 < k <= 1.01 * total and not any(0.99 * k <= at <= k for at in seen)]
    assert missed == []
    assert any(0 < k <= 1.01 * total for k in rows), "the budget reaches some row"


def test_share_says_how_much_of_the_paper_s_training_it_is():
    def shares(name):
        (experiment,) = [e for e in EXPERIMENTS if e.id == name]
        return {profile: experiment.share(config) for profile, config in experiment.configs.items()}

    copy = shares("copy/ntm_lstm")
    assert copy["ci"] == "38,400 sequences, 4% of the paper's 1,000,000"
    assert copy["cpu"] == "200,000 sequences, 20% of the paper's 1,000,000"
    assert copy["paper"] == "1,000,000 sequences, 100% of the paper's 1,000,000"
    repeat = shares("repeat_copy/lstm")
    assert repeat["cpu"] == "100,000 sequences, 20% of the paper's 500,000"
    assert repeat["gpu"].endswith("sequences, 100% of the paper's 500,000")
    assert shares("ngrams/ntm_ff")["cpu"] == "100,000 sequences, 10% of the paper's 1,000,000"
    # a variant's whole is that of its task
    assert shares("copy_batch1/ntm_lstm") == {"cpu": "100,000 sequences, 10% of the paper's 1,000,000"}
    assert shares("priority_sort_one_head/ntm_ff") == {
        "cpu": "100,000 sequences, 10% of the paper's 1,000,000"
    }


def changed(one, other, prefix=""):
    """Fields in which two configs differ."""
    found = set()
    for name, value in one.items():
        if isinstance(value, dict):
            found |= changed(value, other[name], f"{name}.")
        elif value != other[name]:
            found.add(prefix + name)
    return found


@pytest.mark.parametrize(
    ("variant", "base", "profile", "differing"),
    [
        ("copy_batch1/ntm_lstm", "copy/ntm_lstm", "cpu", {"batch_size", "lr", "max_steps", "eval_every"}),
        ("copy_batch1/ntm_lstm", "copy/ntm_lstm", "paper", {"max_steps"}),
        ("copy_torch_rmsprop/ntm_lstm", "copy/ntm_lstm", "cpu", {"optimizer", "max_steps"}),
        ("copy_no_shift/ntm_lstm", "copy/ntm_lstm", "cpu", {"model.shift_range", "max_steps"}),
        ("copy_wide_shift/ntm_lstm", "copy/ntm_lstm", "cpu", {"model.shift_range", "max_steps"}),
        ("copy_printed_rate/ntm_lstm", "copy/ntm_lstm", "cpu", {"lr", "max_steps"}),
        ("associative_batch1/ntm_lstm", "associative/ntm_lstm", "cpu",
         {"batch_size", "lr", "max_steps", "eval_every"}),
        ("associative_batch1/ntm_lstm", "associative/ntm_lstm", "paper", {"max_steps"}),
        ("priority_sort_one_head/ntm_ff", "priority_sort_batch1/ntm_ff", "cpu", {"model.n_heads"}),
        ("priority_sort_batch1/ntm_ff", "priority_sort/ntm_ff", "paper", {"max_steps"}),
    ],
)  # fmt: skip
def test_a_variant_differs_only_in_what_it_is_about(variant, base, profile, differing):
    by_id = {experiment.id: experiment for experiment in EXPERIMENTS}
    one, other = (config_dict(by_id[name].config(p)) for name, p in ((variant, "cpu"), (base, profile)))
    assert {name.removeprefix("training.") for name in changed(one, other)} == differing
    assert by_id[variant].tables == () and by_id[variant].build is by_id[base].build
    assert by_id[variant].label.startswith(RUN_TASKS[base.split("/")[0]].label.split(", ")[0] + ", ")


def test_names_for_people_and_commands_are_different_from_each_other():
    assert len({experiment.label for experiment in EXPERIMENTS}) == len(EXPERIMENTS)
    assert {table for e in EXPERIMENTS for table in e.tables} == {
        table.id for table in PAPER.tables if table.id.startswith("fig")
    }


def test_unknown_models_are_named():
    with pytest.raises(UsageError, match="unknown kind of model 'gru'; valid: ntm_lstm, ntm_ff, lstm"):
        ModelConfig(kind="gru", size=3)


@pytest.mark.parametrize(
    ("task", "longest"), [("copy", 3), ("repeat_copy", 3), ("associative", 4), ("priority_sort", 4)]
)
def test_an_ntm_needs_a_slot_for_each_vector_of_an_episode(task, longest):
    def config(kind, n_slots):
        return tiny(kind, task, model=replace(tiny(kind, task).model, n_slots=n_slots))

    for kind in ("ntm_lstm", "ntm_ff"):
        with pytest.raises(ValueError) as error:
            config(kind, longest - 1)
        assert str(error.value) == (
            f"n_slots must be at least {longest}, a slot for each vector or item of the longest episode in training, "
            f"test or trace; got {longest - 1}"
        )
        assert config(kind, longest).model.n_slots == longest
    assert config("lstm", 1).model.n_slots == 1, "the LSTM has none"


def test_training_and_test_count_for_the_slots_alike():
    model = replace(tiny("ntm_lstm").model, n_slots=6)
    for changes in ({"task": CopyTask(max_length=7)}, {"test_sizes": ((2,), (7,), (3,))}):
        with pytest.raises(ValueError, match="n_slots must be at least 7"):
            tiny("ntm_lstm", model=model, **changes)
    assert tiny("ntm_ff", "ngrams", model=replace(model, n_slots=3)).model.n_slots == 3, "nothing to keep"


@pytest.mark.parametrize(
    ("task", "size", "count"),
    [
        ("copy", (5, 5), 1), ("copy", (), 1), ("copy", (0,), 1), ("copy", (2.0,), 1), ("copy", 5, 1), ("repeat_copy", (3,), 2),
        ("associative", (2, 2), 1), ("ngrams", (4,), 0), ("priority_sort", (4,), 0),
    ],
)  # fmt: skip
def test_a_size_that_the_task_cannot_draw_is_refused_before_training(task, size, count):
    for name, changes in (("test_sizes", {"test_sizes": (size,)}), ("trace_size", {"trace_size": size})):
        with pytest.raises(ValueError) as error:
            tiny("lstm", task, **changes)
        drawn_by = type(tiny("lstm", task).task).__name__
        assert str(error.value) == (
            f"{name} must hold sizes of {count} whole numbers of at least 1, as {drawn_by} draws; got {size!r}"
        )


# --- data of a workload --------------------------------------------------------------------------------------


# Tasks with so many possible episodes that two draws do not meet by chance.
ROOMY = {
    "copy": CopyTask(min_length=6, max_length=7),
    "repeat_copy": RepeatCopyTask(min_length=6, max_length=7, max_repeats=2),
    "associative": AssociativeRecallTask(min_items=2, max_items=3),
    "ngrams": NGramTask(order=3, length=60),
    "priority_sort": PrioritySortTask(n_shown=4, n_answered=3),
}


def rows(episodes):
    """Episodes as values that a set can hold, without the padding."""
    return [inputs[: int(scored.nonzero().max()) + 1].numpy().tobytes()
            for inputs, scored in zip(episodes.inputs, episodes.scored, strict=True)]  # fmt: skip


def seen_by(made):
    """Episodes of each use; those of training in the first 20 updates."""
    return {
        "validation": [row for batch in made.validation for row in rows(batch)],
        "test": [
            row for size in made.config.test_sizes for batch in made.test_batches(size) for row in rows(batch)
        ],
        "trace": rows(made.draw("trace", 1, made.config.trace_size)),
        "training": [row for step in range(1, 21) for row in rows(made.batch(step, 0, 1))],
    }


@every_task
def test_all_models_and_seeds_are_validated_and_tested_alike(task):
    sizes = {
        "task": ROOMY[task],
        "test_sizes": tuple(ROOMY[task].sizes()),
        "trace_size": ROOMY[task].sizes()[-1],
    }
    first = seen_by(workload(task, **sizes))
    for kind, seed in (("lstm", 1), ("ntm_ff", 0), ("ntm_lstm", 3)):
        other = seen_by(workload(task, kind, seed, **sizes))
        assert (other["training"] == first["training"]) == (seed == 0)
        assert {**other, "training": None} == {**first, "training": None}
    everything = [row for use in first.values() for row in use]
    assert len(set(everything)) == len(everything), "no episode serves twice"
    assert all(first.values())


@every_task
def test_every_training_size_is_validated_equally_often(task):
    budget = BUDGETS[task]["cpu"]
    episodes = TASK[task].episodes(**budget["task"])
    made = workload(
        task,
        task=episodes,
        validation_count=budget["validation_count"],
        test_sizes=(),
        trace_size=episodes.sizes()[0],
    )
    found = Counter(
        (int(length), int(answered))
        for batch in made.validation
        for length, answered in zip(batch.lengths, batch.scored.sum(1), strict=True)
    )
    of_size = Counter()
    for size in episodes.sizes():
        drawn = made.draw("validation", 1, size)
        of_size[int(drawn.lengths[0]), int(drawn.scored[0].sum())] += budget["validation_count"]
    assert found == of_size and len(set(found.values())) == 1
    assert len(found) == len(episodes.sizes())
    assert max(len(batch.inputs) for batch in made.validation) <= 100


def test_validation_sequences_are_those_of_the_facts():
    """1000 for the n-grams, as the paper says; some hundreds for the others."""
    counts = {
        task: budgets["cpu"]["validation_count"] * len(PAPER_TASKS[task].sizes())
        for task, budgets in BUDGETS.items()
        if task in PAPER_TASKS
    }
    assert counts == {
        "copy": 160,
        "repeat_copy": 200,
        "associative": 200,
        "ngrams": 1000,
        "priority_sort": 200,
    }


def test_padding_in_a_validation_batch_costs_nothing():
    made = workload("repeat_copy", "ntm_lstm", validation_count=3)
    assert len(made.validation) == 1 and not made.validation[0].scored[:, -1].all(), "sizes share a batch"
    together = episode_bits(made.model, made.validation)
    alone = [made.draw("validation", 3, size) for size in made.config.task.sizes()]
    torch.testing.assert_close(together, episode_bits(made.model, alone), rtol=1e-5, atol=1e-5)
    assert made.evaluate(made.model)["bits_per_sequence"] == pytest.approx(float(together.mean()))


@every_task
def test_seeds_differ_in_weights(task):
    def weights(seed):
        return torch.cat([p.flatten() for p in workload(task, "ntm_lstm", seed).model.parameters()])

    assert torch.equal(weights(0), weights(0)) and not torch.equal(weights(0), weights(1))


def test_sizes_of_one_update_can_differ():
    training = replace(TRAINING, batch_size=16)
    mixed = workload("copy", same_length=False, training=training)
    assert set(mixed.batch(1, 0, 1).lengths.tolist()) == {1, 2}
    same = workload("copy", training=training)
    assert all(len(set(same.batch(step, 0, 1).lengths.tolist())) == 1 for step in range(1, 9))


# --- outcomes ------------------------------------------------------------------------------------------------


def names_at(task, sizes):
    """Metrics of the final test, written out."""
    found = []
    for size in sizes:
        at = f"_at_{'x'.join(map(str, size))}" if size else ""
        found += [f"bits_per_bit{at}", f"bit_errors{at}"]
        found += [f"marker_bits{at}", f"right_ends{at}"] if task == "repeat_copy" else []
    return found


NGRAM_METRICS = ["optimal_bits_per_sequence", "context_free_bits_per_sequence", "bits_above_optimal",
                 "bits_above_optimal_error"]  # fmt: skip


@every_kind
@every_task
def test_the_outcome_has_every_metric(task, kind):
    config = tiny(kind, task)
    metrics = outcome_of(config, task).metrics
    more = NGRAM_METRICS if task == "ngrams" else names_at(task, config.test_sizes)
    assert sorted(metrics) == sorted(["bits_per_sequence", *more])
    for name, metric in metrics.items():
        assert np.isfinite(metric.value) and metric.unit and len(metric.definition) > 40, name
        assert "sequence" in metric.definition, name
    assert metrics["bits_per_sequence"].value == 13.5, "the last of the history"


def test_definitions_say_what_was_averaged():
    config = tiny("lstm", "repeat_copy", test_count=5, validation_count=3)
    metrics = outcome_of(config, "repeat_copy").metrics
    assert "mean over 12 validation sequences" in metrics["bits_per_sequence"].definition
    assert "all 4 outputs" in metrics["bits_per_sequence"].definition
    beyond = metrics["bits_per_bit_at_3x1"].definition
    assert "mean over 5 test sequences of size 3x1" in beyond and "over its 12 bits" in beyond
    assert (
        "of size"
        not in outcome_of(tiny("lstm", "priority_sort"), "priority_sort").metrics["bit_errors"].definition
    )
    ngrams = outcome_of(tiny("lstm", "ngrams", validation_count=7), "ngrams").metrics
    assert all("7 validation sequences" in metric.definition for metric in ngrams.values())


def trace_shapes(config, n_steps):
    """As the docstring of the trace says: T steps, R read and W write heads, D wide, N slots."""
    model, task = config.model, config.task
    heads, slots, width = model.n_heads, model.n_slots, model.slot_dim
    return {
        "trace_inputs": (n_steps, task.n_inputs),
        "trace_outputs": (n_steps, task.n_outputs),
        "trace_read_weights": (n_steps, heads, slots),
        "trace_write_weights": (n_steps, heads, slots),
        "trace_add": (n_steps, heads, width),
        "trace_reads": (n_steps, heads, width),
        "trace_memory": (slots, width),
    }


# Of the tiny tasks: steps of the traced episode, and answered steps at each size of the test.
STEPS = {
    "copy": (6, {"1": 1, "3": 3}),
    "repeat_copy": (9, {"2x2": 5, "3x1": 4, "1x3": 4}),
    "associative": (20, {"3": 3, "4": 3}),
    "ngrams": (12, {"trace": 12}),
    "priority_sort": (7, {"": 3}),
}


@every_kind
@every_task
def test_the_artifact_has_the_documented_arrays(task, kind):
    config = tiny(kind, task)
    if kind != "lstm":
        config = replace(config, model=replace(config.model, n_heads=2))
    n_steps, answered = STEPS[task]
    answers = {
        f"{what}_{size}": (steps, config.task.n_outputs)
        for size, steps in answered.items()
        for what in ("targets", "outputs")
    }
    inside = {"optimal_trace": (n_steps,)} if task == "ngrams" else {}
    inside |= trace_shapes(config, n_steps) if kind != "lstm" else {}
    arrays = outcome_of(config, task).artifact
    assert {name: array.shape for name, array in arrays.items()} == answers | inside
    assert {name: array.dtype for name, array in arrays.items()} == (
        dict.fromkeys(answers, np.uint8) | dict.fromkeys(inside, np.float16)
    )


def traced(made):
    """The episode that a workload looks into: a drawn one, or for n-grams the validation sequence of median cost."""
    if made.config.task.n_vectors:
        return made.draw("trace", 1, made.config.trace_size)
    bits = torch.cat([batch.targets[..., 0] for batch in made.validation])
    return made.nearest_to_median(torch.tensor(costs(made.config.task.optimal(bits), bits)))


@every_task
def test_answers_are_those_of_the_first_test_episode(task):
    made = workload(task, "ntm_ff")
    arrays = made.outcome(made.model, [{"bits_per_sequence": 0.0}]).artifact
    cases = [
        (made.test_batches(size)[0].split(1)[0], "x".join(map(str, size))) for size in made.config.test_sizes
    ]
    for episode, name in cases or [(traced(made), "trace")]:
        answer = episode.scored[0]
        probabilities = torch.sigmoid(made.model(episode.inputs)[0])[0, answer].detach()
        np.testing.assert_array_equal(arrays[f"targets_{name}"], 255 * episode.targets[0, answer].numpy())
        np.testing.assert_allclose(arrays[f"outputs_{name}"] / 255, probabilities, atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize("kind", ["ntm_lstm", "ntm_ff"])
@every_task
def test_the_trace_is_the_model_from_the_inside(task, kind):
    config = tiny(kind, task)
    made = TASK[task].build(replace(config, model=replace(config.model, n_heads=2)), 0, CPU)
    kept = {
        name: torch.from_numpy(array).float()
        for name, array in made.outcome(made.model, [{"bits_per_sequence": 0.0}]).artifact.items()
    }
    episode = traced(made)
    with torch.no_grad():
        logits, _, trace = made.model(episode.inputs, trace=True)
    scored = episode.scored[0]
    first = int(scored.nonzero()[0])
    near = {"atol": 2e-3, "rtol": 2e-3}
    torch.testing.assert_close(kept["trace_inputs"], episode.inputs[0], **near)
    assert not kept["trace_outputs"][~scored].any(), "no answer is due"
    torch.testing.assert_close(kept["trace_outputs"][scored], torch.sigmoid(logits[0, scored]), **near)
    for name in ("read", "write"):
        weights = kept[f"trace_{name}_weights"]
        assert weights.min() >= 0
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:2]), atol=0.01, rtol=0)
    # each head reads the memory after the step's write (eq. 2)
    reads = torch.einsum("trn,tnd->trd", kept["trace_read_weights"], trace.memory[0])
    torch.testing.assert_close(kept["trace_reads"], reads, **near)
    assert not torch.equal(kept["trace_read_weights"][:, 0], kept["trace_read_weights"][:, 1]), (
        "heads in their order"
    )
    if (
        first > 1
    ):  # what the write heads do in the last step before the answer leads to the memory that is kept
        last = slice(first - 1, first)
        memory = write(
            trace.memory[:, first - 2],
            kept["trace_write_weights"][last],
            trace.erase[:, first - 1],
            kept["trace_add"][last],
        )
        torch.testing.assert_close(kept["trace_memory"], memory[0], **near)


# Experiments that differ only in how they train keep arrays of the same shapes.
SHAPES = {
    (config.model, config.task, config.test_sizes, config.trace_size): experiment
    for experiment in reversed(EXPERIMENTS)
    if (config := experiment.config("cpu"))
}


@pytest.mark.parametrize("experiment", SHAPES.values(), ids=lambda e: e.id)
def test_artifacts_of_paper_size_models_keep_to_the_limit(experiment):
    """Uncompressed already, so that a trained model's weightings, however they pack, are within it."""
    config = experiment.config("cpu")
    made = experiment.build(replace(config, validation_count=2, test_count=1), 0, CPU)
    made.validation = made.validation[:1]
    arrays = made.outcome(made.model, [{"bits_per_sequence": 1.0}]).artifact
    if config.model.kind != "lstm":
        assert arrays["trace_write_weights"].shape[1:] == (config.model.n_heads, 128)
    assert sum(array.nbytes for array in arrays.values()) < ARTIFACT_LIMIT
    assert len(pack_arrays(arrays)) < ARTIFACT_LIMIT


def test_the_outcome_leaves_no_gradient():
    made = workload("copy", "ntm_lstm")
    made.outcome(made.model, [{"bits_per_sequence": 0.0}])
    assert all(parameter.grad is None for parameter in made.model.parameters())


def test_nothing_is_downloaded():
    assert workload("ngrams").data_checksums() == {}


def test_heads_are_pairs():
    model = build_model(replace(tiny("ntm_ff").model, n_heads=3), n_inputs=4, n_outputs=2)
    assert (model.heads.n_heads, model.heads.n_write_heads) == (6, 3)


# --- what metrics mean -----------------------------------------------------------------------------------------


def silent(model):
    """The model with all logits 0."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


@every_kind
@every_task
def test_a_model_that_says_nothing_costs_a_bit_an_output_bit(task, kind):
    """And every 1 among the targets is on the wrong side."""
    made = workload(task, kind)
    model = silent(made.model)
    metrics = made.outcome(model, [{"bits_per_sequence": 0.0}]).metrics
    n_bits, n_outputs = made.config.task.n_bits, made.config.task.n_outputs
    answered = torch.cat([batch.scored.sum(1) for batch in made.validation]).double().mean()
    assert made.evaluate(model)["bits_per_sequence"] == pytest.approx(n_outputs * float(answered))
    for size in made.config.test_sizes:
        at = f"_at_{'x'.join(map(str, size))}" if size else ""
        assert metrics[f"bits_per_bit{at}"].value == pytest.approx(1, abs=1e-6)
        targets = torch.cat([batch.targets for batch in made.test_batches(size)])
        ones = targets[..., :n_bits].sum((1, 2)).mean()
        assert metrics[f"bit_errors{at}"].value == pytest.approx(float(ones)) != 0


@pytest.mark.parametrize(("task", "bits"), [("associative", 18), ("ngrams", 200), ("priority_sort", 128)])
def test_chance_is_what_the_facts_say(task, bits):
    formula = PAPER.exact_fact("chance_costs")["formula"]
    assert {"associative": "associative: 18 bits", "ngrams": "6-grams: 200 bits",
            "priority_sort": "sort: 16 x bits per vector"}[task] in formula  # fmt: skip
    made = workload(task, task=PAPER_TASKS[task], validation_count=2, test_sizes=(),
                    trace_size=PAPER_TASKS[task].sizes()[-1])  # fmt: skip
    assert made.evaluate(silent(made.model))["bits_per_sequence"] == pytest.approx(bits)


@pytest.mark.parametrize("length", [1, 5, 20])
def test_chance_of_copy_is_eight_bits_a_vector_and_one_for_the_marker(length):
    task = CopyTask(min_length=length, max_length=length)
    made = workload("copy", task=task, test_sizes=((length,),), trace_size=(length,))
    assert made.evaluate(silent(made.model))["bits_per_sequence"] == pytest.approx(9 * length)
    vectors = made.outcome(made.model, [{"bits_per_sequence": 0.0}]).metrics[f"bits_per_bit_at_{length}"]
    assert vectors.value * 8 * length == pytest.approx(8 * length), "facts: copy of length T costs 8T bits"
    assert f"over its {8 * length} bits" in vectors.definition


class Prepared(nn.Module):
    """Answers every batch with the same logits."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, inputs):
        return self.logits.expand(*inputs.shape[:2], -1), None


def test_the_end_marker_s_metrics_by_hand():
    """One vector twice: three answered steps, the marker 1 at the last only. Probabilities 3/4 and 1/4."""
    made = workload("repeat_copy", test_count=2)
    batches = made.test_batches((1, 2))
    n_steps = batches[0].inputs.shape[1]
    assert [batch.scored.sum(1).tolist() for batch in batches] == [[3, 3]]
    marker = torch.zeros(2, n_steps)
    marker[0, -3:] = torch.tensor([-log(3), -log(3), log(3)])  # right at every step
    marker[1, -3:] = torch.tensor([-log(3), log(3), log(3)])  # too early
    marker[:, :-3] = 9.0  # where nothing is scored
    logits = torch.cat([torch.zeros(2, n_steps, 3), marker.unsqueeze(-1)], dim=-1)
    metrics = made.test_metrics(Prepared(logits), batches, (1, 2))
    right, wrong = log2(4 / 3), log2(4)
    expected = (3 * right + (2 * right + wrong)) / 2
    assert metrics["marker_bits_at_1x2"].value == pytest.approx(expected, rel=1e-6)
    assert metrics["right_ends_at_1x2"].value == 0.5
    assert metrics["bits_per_bit_at_1x2"].value == pytest.approx(1), "the marker is no part of the vectors"
    ones = float(batches[0].targets[..., :3].sum((1, 2)).mean())
    assert metrics["bit_errors_at_1x2"].value == pytest.approx(ones)


def test_the_vectors_metrics_leave_the_marker_out():
    made = workload("repeat_copy", test_count=3)
    batches = made.test_batches((2, 2))
    (batch,) = batches
    sure = 40 * (2 * batch.targets - 1)
    sure[..., 3] *= -1  # the marker always wrong
    metrics = made.test_metrics(Prepared(sure), batches, (2, 2))
    assert metrics["bits_per_bit_at_2x2"].value < 1e-9 and metrics["bit_errors_at_2x2"].value == 0
    assert metrics["right_ends_at_2x2"].value == 0
    assert metrics["marker_bits_at_2x2"].value == pytest.approx(5 * 40 / log(2), rel=1e-6)
    sure[..., 3] *= -1
    sure[0, -1, 0] *= -1  # one bit of the last step, in one of three sequences
    metrics = made.test_metrics(Prepared(sure), batches, (2, 2))
    assert metrics["bit_errors_at_2x2"].value == pytest.approx(1 / 3)
    assert metrics["bits_per_bit_at_2x2"].value == pytest.approx(40 / log(2) / 15 / 3, rel=1e-6)
    assert metrics["right_ends_at_2x2"].value == 1 and metrics["marker_bits_at_2x2"].value < 1e-9


# --- dynamic n-grams --------------------------------------------------------------------------------------------


def costs(probabilities, bits):
    """Bits that each sequence costs, summed in Python."""
    return [
        -sum(log2(p if bit else 1 - p) for p, bit in zip(its, sequence, strict=True))
        for its, sequence in zip(probabilities.tolist(), bits.tolist(), strict=True)
    ]


class Estimator(nn.Module):
    """Counts what followed each context, as the optimal estimator does, but adds `pseudo` to each count."""

    def __init__(self, order, pseudo=0.5):
        super().__init__()
        self.order, self.pseudo = order, pseudo

    def forward(self, inputs):
        chances = torch.tensor(
            [self._chances(bits) for bits in inputs[..., 0].int().tolist()], dtype=torch.float64
        )
        return torch.logit(chances).unsqueeze(-1), None

    def _chances(self, before):
        known = before[1:]  # the input of a step is the bit before it
        counts, found = Counter(), []
        for step in range(len(before)):
            if step < self.order - 1:
                found.append(0.5)
                continue
            context = tuple(known[step - self.order + 1 : step])
            ones, zeros = counts[context, 1], counts[context, 0]
            found.append((ones + self.pseudo) / (ones + zeros + 2 * self.pseudo))
            if step < len(known):
                counts[context, known[step]] += 1
        return found


def ngrams(count=20, order=3, length=30):
    """A workload of short sequences, and the bits of its validation set."""
    made = workload("ngrams", task=NGramTask(order=order, length=length), validation_count=count)
    return made, torch.cat([batch.targets[..., 0] for batch in made.validation])


def ngram_metrics(made, model):
    return {name: m.value for name, m in made.outcome(model, [{"bits_per_sequence": 0.0}]).metrics.items()}


def test_the_optimal_cost_by_hand():
    made, bits = ngrams()
    metrics = ngram_metrics(made, made.model)
    optimal = costs(made.config.task.optimal(bits), bits)
    assert metrics["optimal_bits_per_sequence"] == pytest.approx(np.mean(optimal))
    ones = bits.cumsum(1) - bits
    known = (ones + 0.5) / (torch.arange(bits.shape[1]) + 1)
    assert metrics["context_free_bits_per_sequence"] == pytest.approx(np.mean(costs(known.double(), bits)))
    assert metrics["optimal_bits_per_sequence"] < metrics["context_free_bits_per_sequence"]


def test_a_model_that_estimates_optimally_is_not_above_the_optimum():
    made, _ = ngrams()
    metrics = ngram_metrics(made, Estimator(order=3))
    assert metrics["bits_above_optimal"] == pytest.approx(0, abs=1e-5)
    assert metrics["bits_above_optimal_error"] == pytest.approx(0, abs=1e-5)


def test_the_error_is_that_of_the_paired_difference():
    made, bits = ngrams()
    metrics = ngram_metrics(made, silent(made.model))
    above = bits.shape[1] - np.array(costs(made.config.task.optimal(bits), bits))
    assert metrics["bits_above_optimal"] == pytest.approx(above.mean(), rel=1e-5)
    assert metrics["bits_above_optimal_error"] == pytest.approx(above.std(ddof=1) / 20**0.5, rel=1e-5)


@pytest.mark.parametrize("pseudo", [0.1, 0.25, 1.0, 2.0])
def test_no_other_estimator_costs_less_than_the_optimal_one(pseudo):
    """The bound holds in expectation: here with at least two standard errors to spare."""
    made, _ = ngrams(count=400)
    metrics = ngram_metrics(made, Estimator(order=3, pseudo=pseudo))
    assert metrics["bits_above_optimal"] > 2 * metrics["bits_above_optimal_error"] > 0


@every_kind
def test_no_untrained_model_costs_less_than_the_optimal_estimator(kind):
    made = workload("ngrams", kind, task=NGramTask(order=3, length=60), validation_count=100)
    metrics = ngram_metrics(made, made.model)
    assert metrics["bits_above_optimal"] > 2 * metrics["bits_above_optimal_error"] > 0


def test_the_traced_sequence_is_the_one_of_median_cost_and_also_predicted_optimally():
    made, bits = ngrams(count=21)
    kept = made.outcome(made.model, [{"bits_per_sequence": 0.0}]).artifact
    optimal = costs(made.config.task.optimal(bits), bits)
    bits = bits[[optimal.index(sorted(optimal)[10])]]
    np.testing.assert_array_equal(kept["targets_trace"][:, 0], 255 * bits[0].numpy())
    np.testing.assert_allclose(kept["optimal_trace"], made.config.task.optimal(bits)[0], atol=1e-3)


# --- what a run depends on ---------------------------------------------------------------------------------------


DRAWN_BY = {
    "copy": set(),
    "repeat_copy": {"attn.data.repeat_copy"},
    "associative": {"attn.data.associative_recall"},
    "ngrams": {"attn.data.ngrams"},
    "priority_sort": {"attn.data.priority_sort"},
}


@pytest.mark.parametrize("task", list(RUN_TASKS))
def test_a_run_depends_on_exactly_these_modules(task):
    build = RUN_TASKS[task].build
    modules = {name.removesuffix(EVALUATION) for name in source_hashes(build)}
    assert modules == {
        f"{build.__module__}:{build.__name__}",
        "attn.data", "attn.data.episodic", *DRAWN_BY[RUN_TASKS[task].of or task],
        "attn.evaluation", "attn.evaluation.episodic",
        "attn.kernels", "attn.kernels.ntm", "attn.kernels.ntm_graphs", "attn.kernels.ntm_loops", "attn.ntm",
        "attn.ntm_scan", "attn.ntm_scan.addressing", "attn.ntm_scan.controllers", "attn.ntm_scan.heads",
        "attn.ntm_scan.memory", "attn.ntm_scan.scan", "attn.ntm_scan.sequence",
        "attn.training", "attn.training.checkpoint", "attn.training.config", "attn.training.distributed",
        "attn.training.episodic", "attn.training.loop", "attn.training.optimizers", "attn.training.progress",
        "attn.training.schedules", "attn.training.seeding", "attn.training.sparse_optimizer",
    }  # fmt: skip


@every_task
def test_a_run_depends_on_the_workload_of_its_own_task_alone(task):
    reached = sources._reach(TASK[task].build, without=frozenset()).statements
    classes = {
        node.name for node in reached if isinstance(node, ast.ClassDef) and node.name.endswith("Workload")
    }
    own = TASK[task].build.__annotations__["return"]
    assert classes == {own, "TaskWorkload"}
    assert {"_trace", "_answer"} <= {node.name for node in reached if isinstance(node, ast.FunctionDef)}


def test_configs_are_plain_values():
    """A record stores them as JSON and compares them with today's."""
    for experiment in EXPERIMENTS:
        for config in experiment.configs.values():
            assert isinstance(config, EpisodicConfig)
            assert set(config_dict(config)) == set(asdict(config))
