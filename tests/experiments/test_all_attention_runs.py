"""What chapter 4 runs: configs from facts, the workload, and what it keeps of persistent vectors."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from attn.data.language_text import TextConfig
from attn.experiments.adaptive_span.workloads import SpanModelConfig, SpanTextConfig
from attn.experiments.all_attention import CHAPTER, inside, sizes
from attn.experiments.all_attention.live import BANDS
from attn.experiments.all_attention.runs import LABELS, PAPER, SWEEP, budgets
from attn.experiments.all_attention.workloads import build_text, counted_bits
from attn.reproduction.experiment import config_dict
from attn.reproduction.facts import load_papers
from attn.reproduction.sources import source_hashes
from attn.training import train
from attn.training.config import TrainingConfig

FACTS = load_papers()[PAPER]
CPU = torch.device("cpu")
MODEL = {"n_layers": 2, "d_model": 8, "n_heads": 2, "max_span": 16, "ramp_size": 4}
TEXT = TextConfig(corpus="generated", train_size=2000, valid_size=400, test_size=400)
TRAINING = TrainingConfig(max_steps=2, batch_size=32, optimizer="adam", lr=1e-2)
# Mean spans, ramp included, at which the model of equal operations is sized.
SPANS = {"cpu": 32, "gpu": 96, "paper": 314}


def tiny(**model):
    return SpanTextConfig(
        text=TEXT, model=SpanModelConfig(**{**MODEL, "n_persistent": 5, **model}), training=TRAINING, n_rows=2, block=16,
        span_cost=1e-3, evaluation_rows=2,
    )  # fmt: skip


def outcome(config, seed=0):
    workload = build_text(config, seed, CPU)
    result = train(workload, config.training, seed=seed)
    return workload, workload.outcome(workload.model, result.history)


def parameters(config):
    with torch.device("meta"):
        return sum(p.numel() for p in config.model.build(28).parameters())


# --- configs ------------------------------------------------------------------------------------------------


def test_every_model_of_the_budgets_is_an_experiment():
    expected = {
        f"{task}/{model}": {profile for profile, budget in budgets(task).items() if model in budget["models"]}
        for task in FACTS.budgets
        for budget in budgets(task).values()
        for model in budget["models"]
    }
    assert {e.id: set(e.configs) for e in CHAPTER.experiments} == expected
    assert set(LABELS) >= {name.split("/")[1] for name in expected}


@pytest.mark.parametrize("experiment", CHAPTER.experiments, ids=lambda e: e.id)
def test_configs_are_json_and_say_their_share(experiment):
    for profile, config in experiment.configs.items():
        assert config_dict(config)["model"]["n_layers"] == config.model.n_layers
        said = experiment.share(config)
        assert f"{config.model.n_layers} layers" in said and config.text.corpus in said
        if profile == "paper" and experiment.id != "letters/large" and experiment.id != "bytes/large":
            assert ", 1 of the paper's" in said


@pytest.mark.parametrize("profile", SPANS)
def test_models_are_equal_where_their_names_say_so(profile):
    configs = {e.id.split("/")[1]: e.configs[profile] for e in CHAPTER.experiments if e.task == "letters"
               and profile in e.configs}  # fmt: skip
    base = parameters(configs["ff"])
    for name in ("all", "same_depth", "deep_none", "attn_split", "head_split", "single_head", "ff_attn"):
        assert parameters(configs[name]) == pytest.approx(base, rel=0.01), name
    span = SPANS[profile]
    cost = configs["ff"].model.flops(span)
    for name in ("same_depth", "equal_flops"):
        assert configs[name].model.flops(span) == pytest.approx(cost, rel=1e-3), name
    assert configs["all"].model.flops(span) > 1.01 * cost
    assert (
        configs["same_depth"].model.n_layers == configs["ff"].model.n_layers < configs["all"].model.n_layers
    )


@pytest.mark.parametrize("profile", SPANS)
def test_the_sweep_and_the_variants_differ_in_one_thing(profile):
    configs = {name: CHAPTER.experiment(f"letters/{name}").configs[profile] for name in SWEEP}
    numbers = [config.model.n_persistent for config in configs.values()]
    whole = configs["all"].model.n_persistent
    assert numbers == [0, whole // 8, whole // 2, whole, 4 * whole]
    assert {replace(config, model=replace(config.model, n_persistent=0)) for config in configs.values()} == {
        configs["none"]
    }
    for name in ("attn_split", "head_split", "single_head", "ff_attn"):
        config = CHAPTER.experiment(f"letters/{name}").configs[profile]
        assert config.model.variant == name.replace("_", "-")
        # heads without keys and values of the context to project have more vectors for it
        more = config.model.d_model // 2 if name == "head_split" else 0
        assert config.model.n_persistent == whole + more
        joint = replace(config.model, variant="joint", n_persistent=whole)
        assert replace(config, model=joint) == configs["all"]
    if profile != "paper":
        for name in ("ff", "all", "none"):
            config, other = (
                CHAPTER.experiment(f"letters/{name}{end}").configs[profile] for end in ("", "_from_max")
            )
            assert replace(config, model=replace(config.model, initial_ratio=1.0)) == other


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_longer_training_differs_in_its_updates_alone(profile):
    updates = next(deviation.ours for deviation in FACTS.deviations if deviation.id == "updates")
    for name in ("ff", "all", "none"):
        short, long = (CHAPTER.experiment(f"letters/{name}{end}").configs[profile] for end in ("", "_long"))
        assert f"{short.training.max_steps:,}" in updates and f"{long.training.max_steps:,}" in updates
        factor = long.training.max_steps / short.training.max_steps
        assert factor == 4 and long.training.final_steps == 4 * short.training.final_steps
        training = replace(
            short.training,
            max_steps=long.training.max_steps,
            final_steps=long.training.final_steps,
            eval_every=long.training.eval_every,
        )
        assert replace(short, training=training) == long


def test_what_differs_in_scale_is_told_for_every_profile():
    ours = next(deviation.ours for deviation in FACTS.deviations if deviation.id == "scale")
    cpu, gpu = ours.split("; at gpu ")
    letters, words = (CHAPTER.experiment(f"{task}/all").config("gpu") for task in ("letters", "words"))
    model, base = letters.model, CHAPTER.experiment("letters/ff").config("gpu").model
    assert f"{model.n_layers} layers of width {model.d_model} with {model.n_persistent:,} vectors" in gpu
    assert f"{letters.training.max_steps:,} updates of {letters.training.batch_size:,} symbols" in gpu
    assert f"({letters.n_rows} rows of {letters.block})" in gpu
    assert f"{words.training.batch_size:,} words ({words.n_rows} rows of {words.block})" in gpu
    assert words.training.max_steps == letters.training.max_steps
    assert f"dropout of {model.dropout:g}" in gpu and model.dropout == words.model.dropout == base.dropout
    assert f"and {base.n_layers} at gpu" in gpu
    assert "without dropout" in cpu and CHAPTER.experiment("letters/all").config("cpu").model.dropout == 0


def test_bytes_have_their_own_control():
    for profile in ("cpu", "gpu"):
        letters, byte = (
            CHAPTER.experiment(f"{task}/none").configs[profile].model for task in ("letters", "bytes")
        )
        assert letters == byte


def test_the_paper_s_profile_is_the_paper_s_recipe():
    config = CHAPTER.experiment("bytes/all").configs["paper"]
    model, training = config.model, config.training
    assert (model.n_layers, model.d_model, model.n_heads, model.n_persistent, model.max_span, model.ramp_size) == (
        18, 512, 8, 1024, 8192, 32)  # fmt: skip
    assert (config.n_rows, config.block, config.span_cost, model.dropout) == (64, 512, 1e-7, 0.3)
    assert (training.optimizer, training.lr, training.warmup_steps) == ("adagrad", 0.07, 32_000)
    assert (training.grad_clip_norm, training.grad_clip_per_parameter) == (0.03, True)
    assert (training.max_steps, training.final_steps) == (480_000, 30_000)
    words = CHAPTER.experiment("words/all").configs["paper"]
    assert (words.model.n_layers, words.model.n_persistent, words.model.max_span, words.block) == (
        36,
        2048,
        2048,
        256,
    )
    assert (words.cutoffs, words.word_dropout, words.max_words) == ((20_000, 40_000, 200_000), 0.1, None)
    assert (words.training.optimizer, words.training.lr, words.training.max_steps) == (
        "adam",
        2.5e-4,
        850_000,
    )


@pytest.mark.parametrize("fact", ["params_char", "params_wt103"])
def test_parameters_are_those_of_the_facts(fact):
    results = {value["row"]: value["result"] for value in FACTS.exact_fact(fact)["values"]}
    if fact == "params_char":
        counted = [
            sizes.paper_sizes(task, model).total
            for model in ("all", "large")
            for task in ("letters", "bytes")
        ]
        assert counted == list(results.values())
    else:
        tied, untied = (sizes.paper_sizes("words", "all", tie_projections=tie) for tie in (True, False))
        assert tied.total == results["total, input and output tied (what the public code builds)"]
        assert untied.total == results["total, embeddings tied, projections not tied"]


def test_sizes_add_up():
    model = tiny(d_ff=6).model.build(13)
    found = sizes.sizes(model)
    rest = [
        p
        for name, p in model.named_parameters()
        if not name.startswith("stack.layers") or "positions" in name
    ]
    assert found.total == found.attention + found.feed_forward + found.persistent + sum(
        p.numel() for p in rest
    )
    assert found.persistent == 2 * 2 * 8 * 5 and found.feed_forward == 2 * (2 * 8 * 6 + 6 + 8)


# --- the workload -------------------------------------------------------------------------------------------


def test_outcome_keeps_what_vectors_are_used_for():
    workload, found = outcome(tiny())
    kept, metrics = found.artifact, found.metrics
    assert kept["mass"].shape == (2, 2) and kept["top_usage"].shape == (2, inside.TOP, 13)
    assert metrics["persistent_mass"].value == pytest.approx(kept["mass"].mean(), rel=1e-5)
    np.testing.assert_allclose(kept["sorted_usage"].sum(1), kept["mass"].sum(1), rtol=1e-4)
    assert (np.diff(kept["sorted_usage"]) <= 0).all()
    shares = kept["symbol_count"] / kept["symbol_count"].sum()
    np.testing.assert_allclose(kept["top_usage"] @ shares, kept["sorted_usage"][:, : inside.TOP], rtol=1e-4)
    assert len(kept["tokens"]) == kept["symbol_count"].sum() == 2 * 8 * 16
    assert metrics["valid_bits_without_vectors"].value != metrics["valid_bits"].value
    assert all(layer.persistent is not None for layer in inside.joint_layers(workload.model))


def test_usage_is_the_mean_of_attention_maps():
    config = tiny(n_layers=1)
    workload = build_text(config, 0, CPU)
    segments = list(workload.read("valid"))[:2]
    (layer,) = inside.joint_layers(workload.model)
    total, count, state = torch.zeros(13, 2, 5), torch.zeros(13), None
    for batch in segments:
        hidden = workload.model.vocabulary.embed(batch.tokens)
        weights = layer.attention_maps(hidden, state)[1]
        state = hidden if state is None else torch.cat([state, hidden], dim=1)[:, -16:]
        for row in range(2):
            for place in range(16):
                total[batch.tokens[row, place]] += weights[row, :, place]
                count[batch.tokens[row, place]] += 1
    usage, counted = inside.usage_by_symbol(workload.model, segments, 13)
    torch.testing.assert_close(counted, count)
    torch.testing.assert_close(usage[0], total / count.clamp(min=1)[:, None, None])
    np.testing.assert_allclose(
        inside.mean_mass(workload.model, segments)[0], total.sum((0, 2)) / count.sum(), rtol=1e-5
    )


def test_places_are_those_of_the_largest_weights():
    workload = build_text(tiny(n_layers=1), 0, CPU)
    segments = list(workload.read("valid"))[:3]
    kept = inside.inside(workload.model, lambda: segments, 13)
    weights = torch.cat([found[0] for _, found in inside.persistent_weights(workload.model, segments)], dim=2)
    assert (
        kept["tokens"].tolist() == torch.cat([batch.tokens for batch in segments], dim=1).flatten().tolist()
    )
    for k in range(inside.TOP):
        along = weights[:, kept["top_head"][0, k], :, kept["top_vector"][0, k]].clone()
        along[:, : segments[0].tokens.shape[1]] = -torch.inf  # where the text begins there is little context
        assert set(kept["top_places"][0, k]) == set(along.flatten().topk(inside.PLACES).indices.tolist())


def test_vectors_come_back_after_an_error():
    model = tiny().model.build(13)
    with pytest.raises(ZeroDivisionError), inside.without_vectors(model):
        assert not inside.joint_layers(model)
        raise ZeroDivisionError
    assert len(inside.joint_layers(model)) == 2


@pytest.mark.parametrize("variant", ["attn-split", "head-split", "single-head", "ff-attn", None])
def test_other_models_keep_no_use_of_vectors(variant):
    _, found = outcome(tiny(variant=variant) if variant else tiny(n_persistent=0))
    assert "mass" not in found.artifact and "persistent_mass" not in found.metrics
    assert found.metrics["valid_bits"].value > 0 and "spans" in found.artifact


def test_head_split_does_without_half_the_context():
    config = tiny(variant="head-split").model
    layer = config.build(13).stack.layers[0][0]
    matrices = sum(module.weight.numel() for module in layer.modules() if isinstance(module, torch.nn.Linear))
    span, heads = 10.0, config.n_heads // 2
    width = config.d_model // config.n_heads
    pairs = heads * 2 * width * span + layer.persistent.key.numel() + layer.persistent.value.numel()
    assert config.flops(span) == config.n_layers * (matrices + pairs)
    metrics = outcome(tiny(variant="head-split"))[1].metrics
    assert "less layers times (d^2 + d span)" in metrics["flops"].definition
    assert metrics["mean_span"].definition.startswith("mean over the heads that see the context")


def test_counts_cost_what_they_should():
    train_text, valid = torch.tensor([0, 1, 0, 1, 0, 1, 1]), torch.tensor([0, 1, 0])
    # pairs 01 three times, 10 twice, 11 once, each raised by one
    by_pair = -np.log2([4 / 5, 3 / 5]).mean()
    assert counted_bits(train_text, valid, 2, order=1) == pytest.approx(by_pair)
    # after the first symbol 1 four times, 0 twice, each raised by one
    by_symbol = -np.log2([5 / 8, 3 / 8]).mean()
    assert counted_bits(train_text, valid, 2, order=0) == pytest.approx(by_symbol)


def test_long_texts_are_counted_in_pieces(monkeypatch):
    tokens = torch.randint(5, (100,), generator=torch.Generator().manual_seed(0))
    whole = counted_bits(tokens, tokens, 5, order=1)
    monkeypatch.setattr("attn.experiments.all_attention.workloads._AT_ONCE", 7)
    assert counted_bits(tokens, tokens, 5, order=1) == pytest.approx(whole, abs=1e-12)


def test_a_seed_fixes_the_run():
    same, again, other = (outcome(tiny(), seed)[1].metrics["valid_bits"].value for seed in (0, 0, 1))
    assert same == again != other


def test_a_run_depends_on_its_mechanism_and_its_text():
    names = set(source_hashes(build_text))
    assert {"attn.all_attention", "attn.adaptive_span", "attn.kernels.span", "attn.language_model"} <= names


def test_bands_name_live_experiments():
    live = {e.id for e in CHAPTER.experiments if "ci" in e.configs}
    assert {band.experiment for band in BANDS} <= live
    values = {"valid_bits": 1.5, "valid_bits_without_cache": 1.6}
    run, blind = (
        SimpleNamespace(
            outcome=SimpleNamespace(metrics={k: SimpleNamespace(value=v) for k, v in some.items()})
        )
        for some in (values, {"valid_bits": 4.0, "valid_bits_without_cache": 4.0})
    )
    assert all(band.holds(run) for band in BANDS) and not any(band.holds(blind) for band in BANDS)
