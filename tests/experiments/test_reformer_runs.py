"""What chapter 2 runs: configs from facts, and the workload of duplication under every attention."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from attn.experiments.reformer import CHAPTER
from attn.experiments.reformer.runs import (
    ATTENTIONS,
    EXPERIMENTS,
    PAPER,
    TABLE2_ROWS,
    build_duplication,
)
from attn.experiments.reformer.workloads import (
    EVALUATIONS,
    AttentionConfig,
    DuplicationConfig,
    _attending,
    build_model,
)
from attn.reproduction.errors import UsageError
from attn.reproduction.experiment import config_dict
from attn.reproduction.facts import load_papers
from attn.reproduction.sources import EVALUATION, source_hashes
from attn.training import train
from attn.training.config import TrainingConfig

FACTS = load_papers()[PAPER]
CPU = torch.device("cpu")


def tiny(attention="full", **changes):
    settings = {
        "seq_len": 32, "chunk_len": 2, "vocab_size": 12, "d_model": 16, "n_heads": 2, "d_ff": 16,
        "attention": ATTENTIONS[attention], "validation_count": 8, "test_count": 20,
        "training": TrainingConfig(max_steps=3, batch_size=4, optimizer="adam", lr=1e-3),
    }  # fmt: skip
    return DuplicationConfig(**(settings | changes))


def outcome(config, seed=0):
    workload = build_duplication(config, seed, CPU)
    result = train(workload, config.training, seed=seed)
    return workload, workload.outcome(workload.model, result.history)


def test_every_budget_of_the_facts_is_an_experiment():
    expected = {
        f"duplication/{model}": {p for p, b in FACTS.budgets["duplication"].items() if model in b["models"]}
        for model in ATTENTIONS
    }
    assert {e.id: set(e.configs) for e in EXPERIMENTS} == expected
    assert {e.id for e in EXPERIMENTS if e.tables} == {f"duplication/{row}" for row in TABLE2_ROWS.values()}


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.id)
def test_configs_are_json_and_say_their_share(experiment):
    for config in experiment.configs.values():
        assert config_dict(config)["attention"]["kind"] in ("full", "lsh")
        assert f"{config.training.max_steps:,} updates" in experiment.share(config)
        assert experiment.share(config).endswith("150,000 in the paper, of 1,024 symbols")


def test_the_paper_s_profile_is_the_paper_s_size():
    config = CHAPTER.experiment("duplication/lsh1").configs["paper"]
    assert (config.seq_len, config.training.max_steps) == (1024, FACTS.recipe["steps"]["synthetic"])
    recipe = FACTS.recipe["model"]["synthetic"]
    assert (config.n_layers, config.d_model, config.d_ff, config.n_heads) == tuple(
        recipe[name] for name in ("n_layers", "d_model", "d_ff", "n_heads")
    )


@pytest.mark.parametrize("attention", ["full", "separate"])
def test_weights_are_as_many_as_the_facts_count(attention):
    config = replace(CHAPTER.experiment("duplication/full").configs["paper"], attention=ATTENTIONS[attention])
    model = build_model(config)
    without = ("positions", "bias", "norm")  # the count has none of these
    count = sum(
        p.numel() for name, p in model.named_parameters() if not any(part in name for part in without)
    )
    assert count == {"full": 360_448, "separate": 425_984}[attention]
    assert f"{count:,}" in FACTS.exact_fact("synthetic_params")["convention"]


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_outcome_is_a_row_of_the_grid(attention):
    _, found = outcome(tiny(attention))
    assert set(found.metrics) == {f"accuracy_{name}" for name in EVALUATIONS}
    assert all(0 <= metric.value <= 1 for metric in found.metrics.values())
    assert "LSH attention of 4 rounds" in found.metrics["accuracy_lsh4"].definition
    assert "20 new sequences" in found.metrics["accuracy_full"].definition


@pytest.mark.parametrize("attention", ["full", "separate"])
def test_definitions_name_the_attention_that_was_used(attention):
    apart = attention == "separate"
    found = {name: metric.definition for name, metric in outcome(tiny(attention))[1].metrics.items()}
    for name in ("accuracy_full", "accuracy_full_plain"):
        assert "new rotations" not in found[name]
        assert ("queries and keys apart" in found[name], "shared queries and keys" in found[name]) == (
            apart,
            not apart,
        )
    assert "keys of unit length, to itself only where" in found["accuracy_full"]
    assert "keys of any length, to itself as to others" in found["accuracy_full_plain"]
    assert "LSH attention of 1 round, new rotations for every" in found["accuracy_lsh1"]
    assert ("keys by the weights of the queries" in found["accuracy_lsh1"]) == apart


def test_the_first_evaluation_that_solves_the_task_is_kept():
    workload, _ = outcome(tiny())
    history = [{"step": step, "accuracy": share} for step, share in ((0, 0.1), (5, 0.9995), (10, 1.0))]
    assert workload.outcome(workload.model, history).metrics["steps_to_solve"].value == 5


def test_another_attention_takes_the_trained_weights_for_a_while():
    config = tiny("lsh2")
    model = build_model(config)
    trained = model.stack.layers[0][0]
    with _attending(model, config, EVALUATIONS["full"]):
        other = model.stack.layers[0][0]
        assert type(other).__name__ == "FullAttention" and other.unit_keys and other.self_last
        torch.testing.assert_close(other.state_dict(), trained.state_dict())
    assert model.stack.layers[0][0] is trained
    with pytest.raises(ZeroDivisionError), _attending(model, config, EVALUATIONS["lsh8"]):
        raise ZeroDivisionError
    assert model.stack.layers[0][0] is trained


def test_hashing_takes_the_queries_of_separate_projections():
    config = tiny("separate")
    model = build_model(config)
    weight = model.stack.layers[0][0].projection.weight
    with _attending(model, config, EVALUATIONS["lsh1"]):
        taken = model.stack.layers[0][0].projection.weight
        torch.testing.assert_close(taken, torch.cat([weight[:16], weight[32:]]))


def test_sequences_are_the_same_for_all_seeds_and_models():
    one = build_duplication(tiny(), 0, CPU)
    other = build_duplication(tiny("lsh4"), 7, CPU)
    for mine, theirs in zip(one.validation, other.validation, strict=True):
        assert torch.equal(mine.tokens, theirs.tokens)
    assert not torch.equal(one.batch(1, 0, 1).tokens, other.batch(1, 0, 1).tokens)
    assert not torch.equal(one.draw("test", 4).tokens, one.draw("validation", 4).tokens)


def test_a_seed_fixes_the_run():
    same, again, other = (outcome(tiny("lsh2"), seed)[1].metrics for seed in (0, 0, 1))
    assert same == again
    histories = [
        train(build_duplication(tiny("lsh2"), seed, CPU), tiny().training, seed=seed) for seed in (0, 1)
    ]
    assert histories[0].first_losses != histories[1].first_losses
    assert set(other) >= {"accuracy_full"}


def test_a_run_depends_on_its_attention_and_its_scores():
    names = set(source_hashes(build_duplication))
    assert {"attn.reformer", "attn.language_model", "attn.data.duplication", "attn.kernels.lsh"} <= names
    assert "attn.evaluation.language_model" in names or f"attn.evaluation.language_model{EVALUATION}" in names


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="seq_len must be at least 16 chunks of chunk_len.*: 64; got 32"):
        tiny(chunk_len=4)
    with pytest.raises(UsageError, match="kind of attention"):
        AttentionConfig(kind="local")


def test_bands_name_live_experiments():
    from attn.experiments.reformer.live import BANDS

    live = {e.id for e in CHAPTER.experiments if "ci" in e.configs}
    assert {band.experiment for band in BANDS} <= live
    metrics = {f"accuracy_{name}": SimpleNamespace(value=1.0) for name in EVALUATIONS}
    run = SimpleNamespace(outcome=SimpleNamespace(metrics=metrics))
    assert [band.holds(run) for band in BANDS] == [True, True, False, True]
