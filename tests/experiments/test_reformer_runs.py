"""What chapter 2 runs: configs from facts, and the workload of duplication under every attention."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from attn.experiments.reformer import CHAPTER
from attn.experiments.reformer.fixed import FixedAttentionConfig, FixedLSHAttention
from attn.experiments.reformer.live import BANDS, BASELINE, baseline_words, checked
from attn.experiments.reformer.runs import (
    ATTENTIONS,
    CODE_MODELS,
    CODES,
    EXPERIMENTS,
    MODELS,
    PAPER,
    TABLE2_ROWS,
    VARIANTS,
    build_code,
    build_duplication,
    build_fixed,
    own_evaluation,
)
from attn.experiments.reformer.workloads import (
    EVALUATIONS,
    AttentionConfig,
    CodeConfig,
    DuplicationConfig,
    _attending,
    build_model,
    code_evaluation,
)
from attn.lsh_convention import PAPER as BY_THE_PAPER
from attn.lsh_convention import PUBLIC
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
        for model in MODELS
    }
    assert {e.id: set(e.configs) for e in EXPERIMENTS} == expected
    filled = {
        table: {e.id for e in EXPERIMENTS if e.tables == (table,)}
        for table in ("table2", "table2_reproduction")
    }
    rows = TABLE2_ROWS.values()
    assert filled["table2"] == {f"duplication/{row}" for row in rows}
    assert filled["table2_reproduction"] == {f"duplication/{row}_replication" for row in rows}


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


# --- by the conventions of public code ---------------------------------------------------------------------------


def tiny_code(model, **changes):
    """A small run of a model by a code: the attentions of the config at `cpu`, with as many buckets as chunks."""
    config, row = CHAPTER.experiment(f"duplication/{model}").config("cpu"), own_evaluation(model)
    hashed = replace(config.hashed, n_buckets=16)
    trained = config.full if row == "full" else replace(hashed, n_rounds=config.attention.n_rounds)
    plain = {name: value for name, value in vars(tiny()).items() if name != "attention"}
    return CodeConfig(**plain | {"attention": trained, "full": config.full, "hashed": hashed} | changes)


@pytest.mark.parametrize("model", CODE_MODELS)
def test_a_model_of_public_code_is_its_row_with_the_code_s_conventions(model):
    row, code = CODE_MODELS[model]
    config = CHAPTER.experiment(f"duplication/{model}").config("cpu")
    ours = CHAPTER.experiment(f"duplication/{row}").config("cpu")
    same = ("seq_len", "chunk_len", "vocab_size", "n_layers", "d_model", "n_heads", "d_ff", "test_count")
    assert {name: getattr(config, name) for name in same} == {name: getattr(ours, name) for name in same}
    module = build_model(config).stack.layers[0][0]
    if row == "full":
        assert (module.shared_qk, module.self_last) == (True, True)
        assert module.unit_keys == (code == "public"), "the replication leaves keys at their lengths"
        # 1 / sqrt(64): for raw keys it is the default
        assert (module.scale or module.head_dim**-0.5) == 1 / 8
        return
    assert config.training.max_steps == ours.training.max_steps
    assert module.convention == {"replication": BY_THE_PAPER, "public": PUBLIC}[code]
    assert (module.n_rounds, module.n_buckets, module.scale) == (ours.attention.n_rounds, 1024 // 64, 1 / 8)


@pytest.mark.parametrize("code", CODES)
def test_the_columns_of_public_code_are_evaluated_by_its_conventions(code):
    config = tiny_code(f"lsh4_{code}")
    own = config.attention
    assert code_evaluation(config, "lsh4") == own, (
        "the column of the training's rounds is the training's attention"
    )
    assert code_evaluation(config, "lsh8") == replace(own, n_rounds=8)
    assert code_evaluation(config, "full") == tiny_code(f"full_{code}").attention
    kinds = [code_evaluation(config, name) for name in ("full_with_self", "full_raw_keys", "full_plain")]
    assert [(kind.unit_keys, kind.self_last) for kind in kinds] == [
        (True, False),
        (False, True),
        (False, False),
    ]


@pytest.mark.parametrize("model", ["full_public", "lsh2_replication"])
def test_outcome_of_public_code_is_a_row_that_says_how(model):
    workload = build_code(tiny_code(model), 0, CPU)
    found = workload.outcome(
        workload.model, train(workload, workload.config.training, seed=0).history
    ).metrics
    assert set(found) == {f"accuracy_{name}" for name in EVALUATIONS}
    hashed, full = found["accuracy_lsh4"].definition, found["accuracy_full"].definition
    assert "LSH attention of 4 rounds" in hashed and "16 buckets a round" in hashed
    once = "a pair counted once" in hashed
    assert once == (model == "lsh2_replication") and ("as often as it meets" in hashed) != once
    assert "divided by the root of a head's width" in hashed
    assert ("divided by the root" in full) == ("keys of unit length" in full) == (model == "full_public")


def test_public_code_s_evaluation_is_no_other_by_name_alone():
    """The same weights give other logits by the code's hashing than by the paper's."""
    config = tiny_code("lsh4_public")
    torch.manual_seed(0)
    model = build_model(config).eval()
    tokens = torch.randint(1, 12, (2, 32))
    logits = []
    for attention in (code_evaluation(config, "lsh4"), EVALUATIONS["lsh4"]):
        torch.manual_seed(1)
        with torch.no_grad(), _attending(model, config, attention):
            logits.append(model(tokens)[0])
    assert not torch.allclose(*logits, rtol=0, atol=1e-4)


# --- single things of the replication's code ---------------------------------------------------------------------


def test_every_variant_differs_from_the_replication_in_what_it_says():
    found = {name: CHAPTER.experiment(f"duplication/{name}").config("cpu") for name in VARIANTS}
    for name, config in found.items():
        row = VARIANTS[name].row
        theirs = CHAPTER.experiment(f"duplication/{row}_replication").config("cpu")
        both = {
            field: getattr(theirs, field) for field in vars(theirs) if field not in ("attention", "hashed")
        }
        assert both == {field: getattr(config, field) for field in both}, "training, sizes and full attention"
        shared = vars(theirs.attention).items()
        other = {key: value for key, value in vars(config.attention).items() if (key, value) not in shared}
        expected = {
            "fixed": {"rotation_seed": 42},
            "scaled": {"n_buckets": 32},
            "one_bucket": {"is_scaled": False},
        }
        assert other == expected[name.partition("_")[2]]
        assert code_evaluation(config, row) == config.attention, "evaluated as it was trained"
        assert own_evaluation(name) == row


def test_fixed_rotations_are_those_of_the_seed_in_every_call_and_head():
    layers = []
    for seed in (42, 42, 7):
        torch.manual_seed(0)
        layers.append(
            FixedLSHAttention(
                d_model=16, n_heads=4, chunk_len=4, n_rounds=2, n_buckets=(4, 6), rotation_seed=seed
            )
        )
    first, again, other = layers
    query = torch.randn(2, 4, 32, 4)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    found = first.rotations(query)
    assert torch.equal(torch.get_rng_state(), before), "torch's own generator is left alone"
    assert [list(one.shape) for one in found] == [[4, 2, 4, 2], [4, 2, 4, 3]]
    for one, same, different in zip(found, again.rotations(query), other.rotations(query), strict=True):
        assert torch.equal(one, same) and not torch.equal(one, different)
        assert torch.equal(one, one[:1].expand_as(one)) and not torch.equal(one[:, 0], one[:, 1])
    inputs = torch.randn(2, 32, 16)
    assert torch.equal(first.buckets(inputs), first.buckets(inputs))
    same_vectors = torch.randn(2, 1, 32, 4).expand(-1, 4, -1, -1)
    buckets = first._hash(same_vectors, None, None)
    assert torch.equal(buckets, buckets[:, :1].expand_as(buckets)), "heads hash alike"
    torch.testing.assert_close(first(inputs), again(inputs))
    without = FixedLSHAttention(d_model=16, n_heads=4, chunk_len=4, n_rounds=1, rotation_seed=42)
    assert [list(one.shape) for one in without.rotations(query)] == [[4, 1, 4, 8]], (
        "two buckets for each chunk"
    )


def test_fixed_rotations_are_in_the_order_of_the_replication_s_code():
    numbers = torch.randn(
        4, 3, 2, generator=torch.Generator().manual_seed(42)
    )  # width, rounds, half the buckets
    layer = FixedLSHAttention(d_model=8, n_heads=2, chunk_len=4, n_rounds=3, n_buckets=4, rotation_seed=42)
    (found,) = layer.rotations(torch.randn(1, 2, 16, 4))
    for head, rounds, width in ((0, 0, 0), (1, 2, 3)):
        assert torch.equal(found[head, rounds, width], numbers[width, rounds])


def test_a_model_with_fixed_rotations_starts_as_one_without():
    states = []
    for name in ("lsh1_fixed", "lsh1_replication"):
        workload = (build_fixed if name == "lsh1_fixed" else build_code)(tiny_code(name), 0, CPU)
        states.append(workload.model.state_dict())
    torch.testing.assert_close(*states, rtol=0, atol=0)


@pytest.mark.parametrize("model", ["lsh2_fixed", "lsh2_scaled", "lsh2_one_bucket"])
def test_outcome_of_a_variant_says_how_it_hashes(model):
    build = CHAPTER.experiment(f"duplication/{model}").build
    workload = build(tiny_code(model), 0, CPU)
    found = workload.outcome(
        workload.model, train(workload, workload.config.training, seed=0).history
    ).metrics
    assert set(found) == {f"accuracy_{name}" for name in EVALUATIONS}
    hashed, full = found["accuracy_lsh4"].definition, found["accuracy_full"].definition
    fixed = "the same rotations in every call and head, from seed 42"
    assert (fixed in hashed) == (model == "lsh2_fixed") and ("new rotations" in hashed) == (
        fixed not in hashed
    )
    assert ("divided by the root" in hashed) == (model != "lsh2_one_bucket")
    assert "rotations" not in full and "keys of any length, to itself only where" in full


def test_only_hashing_has_rotations_to_fix():
    with pytest.raises(ValueError, match="kind must be 'lsh' where rotations are fixed; got 'full'"):
        FixedAttentionConfig(kind="full", rotation_seed=1)


def test_a_run_depends_on_its_attention_and_its_scores():
    names = set(source_hashes(build_duplication))
    assert {"attn.reformer", "attn.language_model", "attn.data.duplication", "attn.kernels.lsh"} <= names
    assert "attn.evaluation.language_model" in names or f"attn.evaluation.language_model{EVALUATION}" in names


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="seq_len must be at least 16 chunks of chunk_len.*: 64; got 32"):
        tiny(chunk_len=4)
    with pytest.raises(UsageError, match="kind of attention"):
        AttentionConfig(kind="local")
    with pytest.raises(UsageError, match="convention"):
        AttentionConfig(kind="lsh", n_rounds=1, convention="theirs")


def test_bands_name_live_experiments():
    live = {e.id for e in CHAPTER.experiments if "ci" in e.configs}
    assert {band.experiment for band in BANDS} | {BASELINE} <= live
    metrics = {f"accuracy_{name}": SimpleNamespace(value=1.0) for name in EVALUATIONS}
    run = SimpleNamespace(outcome=SimpleNamespace(metrics=metrics))
    assert [band.holds(run) for band in BANDS] == [True, True, False, True]


def test_the_baseline_is_checked_with_its_own_attention():
    def run(**accuracies):
        metrics = {f"accuracy_{name}": SimpleNamespace(value=value) for name, value in accuracies.items()}
        return SimpleNamespace(outcome=SimpleNamespace(metrics=metrics))

    baseline = run(full=0.5, full_plain=1.0, full_with_self=0.01, lsh8=0.95)
    live = {"duplication/full": run(full=1.0, lsh8=0.8, full_with_self=0.01), BASELINE: baseline}
    assert [tuple(row.values())[1:] for row in checked(live)] == [
        ("above 0.99", "above 0.99", True),
        ("not above 0.9", "above 0.9", False),
        ("below 0.1", "above 0.99", True),
    ]
    hashed = checked({"duplication/lsh4": run(lsh4=0.99), BASELINE: baseline})
    assert [row["baseline"] for row in hashed] == [None], "it was not trained with hashing"
    assert [row["baseline"] for row in checked({"duplication/full": live["duplication/full"]})] == [None] * 3
    assert "shared, raw keys, itself allowed" in baseline_words()[0]
