"""What chapter 3 runs: configs from facts, and what is kept of a run."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from attn.adaptive_span import AdaptiveSpan
from attn.data.generated_text import GeneratedText
from attn.data.language_text import TextConfig
from attn.experiments.adaptive_span import CHAPTER
from attn.experiments.adaptive_span.copies import build_copies
from attn.experiments.adaptive_span.live import BANDS, checked, optimum_words
from attn.experiments.adaptive_span.runs import PAPER, TASKS, budgets, model_label
from attn.experiments.adaptive_span.workloads import attentions, build_text, weight_by_distance
from attn.reproduction.experiment import config_dict
from attn.reproduction.facts import load_papers
from attn.reproduction.sources import source_hashes
from attn.training import train
from tests.experiments.adaptive_span_records import CPU, TRAINING, tiny, workload

FACTS = load_papers()[PAPER]


# --- configs -------------------------------------------------------------------------------------------------


def test_every_budget_of_the_facts_is_an_experiment():
    expected = {}
    for task in TASKS:
        for profile, budget in budgets(task).items():
            for name in budget["models"]:
                expected.setdefault(f"{task}/{name}", set()).add(profile)
    assert {e.id: set(e.configs) for e in CHAPTER.experiments} == expected


def test_runs_without_a_network_are_the_live_ones():
    for experiment in CHAPTER.experiments:
        if "ci" in experiment.configs:
            assert experiment.configs["ci"].text.corpus == "generated"


@pytest.mark.parametrize("experiment", CHAPTER.experiments, ids=lambda e: e.id)
def test_configs_are_json_and_say_their_share(experiment):
    for config in experiment.configs.values():
        assert config_dict(config)["model"]["span"] in ("fixed", "adaptive", "dynamic")
        assert f"S = {config.model.max_span}" in experiment.share(config)
        segments = config.text.valid_size and config.text.valid_size // config.evaluation_rows // config.block
        assert segments is None or segments >= 8 or config.text.corpus == "generated"


def test_few_symbols_of_a_validation_text_lack_what_came_before():
    """At the start of a row the cache is not full, which training hardly ever shows a model: of few symbols that is so.

    With the widest limits the share is larger, though spans that start at 0 do not ask for all of it.
    """
    found = {}
    for experiment in CHAPTER.experiments:
        for profile in ("cpu", "gpu"):
            config = experiment.configs.get(profile)
            if config and config.text.valid_size:
                row = config.text.valid_size / config.evaluation_rows
                found[experiment.id, profile] = config.model.max_span / row
    large = {f"{task}/{size}" for task in ("text8", "enwik8") for size in ("small", "large")}
    widest = {(name, "gpu") for name in large} | {("limit/adaptive_fourfold", "cpu")}
    assert {key for key, share in found.items() if share >= 0.05} == widest
    assert max(found.values()) < 0.09
    assert all(CHAPTER.experiment(name).config(profile).model.span == "adaptive" for name, profile in widest)


def test_tables_1_and_2_have_a_baseline_of_the_same_budget():
    for task in ("text8", "enwik8"):
        small, fixed = (
            CHAPTER.experiment(f"{task}/{name}").config("cpu") for name in ("small", "fixed_small")
        )
        assert replace(fixed, model=replace(fixed.model, span="adaptive")) == small
    assert model_label("fixed_small") == "fixed span, small model"


def test_the_paper_s_profile_is_the_paper_s_recipe():
    recipe, config = FACTS.recipe, CHAPTER.experiment("text8/small").configs["paper"]
    training, model = config.training, config.model
    assert f"{config.n_rows} sequences x block of {config.block}" in recipe["batch"]
    assert f"learning rate {training.lr}" in recipe["optimizer"] and training.optimizer == "adagrad"
    assert f"norm {training.grad_clip_norm}" in recipe["optimizer"] and training.grad_clip_per_parameter
    assert f"over {training.warmup_steps:,} steps" in recipe["schedule"]
    assert f"{training.max_steps // 1000}k when S={model.max_span}" in recipe["steps"]
    assert f"R = {model.ramp_size}" in recipe["mask"] and f"{model.dropout} small" in recipe["regularisation"]
    assert f"small: {model.n_layers} layers, d={model.d_model}, ReLU width {model.d_ff}" in recipe["model"]
    large = CHAPTER.experiment("text8/large").configs["paper"]
    assert (
        f"{large.model.n_layers} layers, d={large.model.d_model}, ReLU width {large.model.d_ff}"
        in recipe["model"]
    )
    assert large.training.final_steps == 20_000 and f"{large.model.dropout} large" in recipe["regularisation"]


def test_models_of_fig_3_differ_in_span_and_limit_alone():
    for profile in ("cpu", "gpu"):
        found = set()
        for name in (
            "fixed_quarter",
            "fixed_whole",
            "adaptive_whole",
            "adaptive_whole_from_max",
            "dynamic_whole",
        ):
            config = config_dict(CHAPTER.experiment(f"limit/{name}").configs[profile])
            for field in ("span", "max_span", "initial_ratio"):
                del config["model"][field]
            found.add(repr(config))
        assert len(found) == 1


@pytest.mark.parametrize("name", ["fixed_32", "fixed_512", "adaptive_512", "adaptive_512_from_max"])
@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_clipping_each_tensor_is_the_only_thing_that_differs(profile, name):
    whole, each = (CHAPTER.experiment(f"copies/{name}{more}").config(profile) for more in ("", "_per_tensor"))
    assert not whole.training.grad_clip_per_parameter
    assert replace(whole, training=replace(whole.training, grad_clip_per_parameter=True)) == each


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_the_smallest_limit_from_the_maximum_differs_in_its_start(profile):
    start, top = (
        CHAPTER.experiment(f"copies/adaptive_64{more}").config(profile) for more in ("", "_from_max")
    )
    assert replace(start, model=replace(start.model, initial_ratio=1.0)) == top


def test_labels_tell_models_apart():
    labels = [experiment.label for experiment in CHAPTER.experiments]
    assert len(set(labels)) == len(labels)
    assert model_label("adaptive_whole_from_max") == "adaptive span, table 3's limit, from the maximum"
    clipped = model_label("adaptive_512_from_max_per_tensor")
    assert clipped == "adaptive span, S = 512, from the maximum, each tensor clipped by itself"


# --- what is kept ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("span", ["fixed", "adaptive", "dynamic"])
def test_a_run_keeps_bits_spans_and_where_heads_look(span):
    run = workload(span, span_cost=1e-3)
    result = train(run, run.config.training, seed=0)
    found = run.outcome(run.model, result.history)
    assert set(found.metrics) == {
        "valid_bits", "test_bits", "valid_bits_without_cache", "valid_bits_as_trained", "mean_span",
        "longest_span", "flops",
    }  # fmt: skip
    spans, shares = found.artifact["spans"], found.artifact["attention_by_distance"]
    assert spans.shape == (2, 2) and 4 <= spans.min() and spans.max() <= 24
    assert shares.shape == (2, 2, 24)
    np.testing.assert_allclose(shares.astype(float).sum(-1), 1, rtol=1e-2)
    distance = (shares.astype(float) * np.arange(1, 25)).sum(-1)
    np.testing.assert_allclose(found.artifact["attention_distance"], distance, rtol=2e-2)
    assert found.metrics["flops"].value == run.config.model.flops(found.metrics["mean_span"].value)
    assert ("dynamic_spans" in found.artifact) == (span == "dynamic")


def test_weight_by_distance_against_a_loop():
    weights = torch.rand(2, 3, 4, 9)
    expected = torch.zeros(3, 5)
    for query in range(4):
        for key in range(9):
            distance = 9 - 4 + query - key
            if 1 <= distance <= 5:
                expected[:, distance - 1] += weights[:, :, query, key].mean(0) / 4
    torch.testing.assert_close(weight_by_distance(weights, 5), expected)


def test_no_weight_lies_beyond_the_spans():
    run = workload(model={"initial_ratio": 0.25})  # z = 6, so nothing from 10 tokens back on
    shares = run.outcome(run.model, []).artifact["attention_by_distance"]
    assert (shares[..., 9:] == 0).all() and (shares[..., :9] > 0).all()


def test_spans_cost_and_stay_in_bounds():
    run = workload(span_cost=10.0, model={"initial_ratio": 0.5})
    train(run, TRAINING, seed=0)
    dear = [module.ratio for module in run.model.modules() if isinstance(module, AdaptiveSpan)]
    assert all((ratio >= 0).all() and (ratio < 0.5).all() for ratio in dear)


def test_fixed_spans_have_no_cost():
    run = workload("fixed", span_cost=10.0)
    piece = run.batch(1, 0, 1)
    assert run.loss(run.model, piece).total < 32 * 10


def test_evaluation_says_what_may_be_seen():
    run = workload(model={"initial_ratio": 1.0})
    metrics = run.outcome(run.model, []).metrics
    assert metrics["valid_bits"].value != metrics["valid_bits_without_cache"].value
    assert metrics["valid_bits"].value == metrics["valid_bits_as_trained"].value  # as many rows in both here
    assert "without what came before" in metrics["valid_bits_without_cache"].definition


def test_evaluation_block_by_block_equals_whole_rows_at_once():
    run = workload(model={"initial_ratio": 1.0})
    in_blocks = run.bits(run.model, "valid")
    run.evaluation_block = sum(segment.tokens.shape[1] for segment in run.read("valid"))
    assert len(list(run.read("valid"))) == 1 and run.bits(run.model, "valid") == pytest.approx(
        in_blocks, rel=1e-6
    )


def test_definitions_name_the_rows_that_were_read():
    run = workload("dynamic", evaluation_rows=1)
    metrics = run.outcome(run.model, []).metrics
    for name, n_rows in (("valid_bits", 1), ("valid_bits_without_cache", 1), ("valid_bits_as_trained", 2)):
        assert metrics[name].definition.startswith(
            f"mean of -log2 p over the whole split read in order in {n_rows} rows, 16 symbols at a time, "
        )
    assert run.config.n_rows == 2 and run.config.block == 16
    assert "first 8 blocks" in metrics["mean_span"].definition
    assert all("left out" in metric.definition for name, metric in metrics.items() if "bits" in name)
    assert not any("zeros" in metric.definition for metric in metrics.values())
    found = workload(zero_cache=True)
    zeros = {name: metric.definition for name, metric in found.outcome(found.model, []).metrics.items()}
    assert "24 zeros standing before the text" in zeros["valid_bits"]
    assert "24 zeros standing before every block" in zeros["valid_bits_without_cache"]
    fixed = workload("fixed")
    assert "blocks" not in fixed.outcome(fixed.model, []).metrics["mean_span"].definition


def test_a_cache_of_zeros_is_attended_to():
    """At the start of a text it takes weight, as in the authors' code; later it is like any other run."""
    plain, zeros = workload("fixed"), workload("fixed", zero_cache=True)
    torch.testing.assert_close(plain.model.state_dict(), zeros.model.state_dict())
    assert plain.bits(plain.model, "valid") != zeros.bits(zeros.model, "valid")
    piece = plain.batch(1, 0, 1)
    tokens = piece.batch.tokens
    started = zeros._reader(zeros.model)
    filled = (torch.zeros(2, 24, 8), None) * 2
    torch.testing.assert_close(started(tokens)[0], plain.model(tokens, filled)[0])
    torch.testing.assert_close(started(tokens, filled)[0], plain.model(tokens, filled)[0])
    assert not torch.allclose(started(tokens)[0], plain.model(tokens)[0])


def test_dynamic_spans_are_those_of_the_kept_tokens():
    run = workload("dynamic")
    found = run.outcome(run.model, []).artifact
    tokens = torch.from_numpy(found["dynamic_tokens"]).long()[None, :16]
    first = attentions(run.model)[0]
    spans = first.current_spans(run.model.vocabulary.embed(tokens))
    np.testing.assert_allclose(found["dynamic_spans"][0][:, :16], spans[0].detach().numpy(), rtol=1e-5)


def test_a_seed_fixes_the_run():
    losses = [train(workload(seed=seed), TRAINING, seed=seed).first_losses for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


# --- the generated text ------------------------------------------------------------------------------------------


def test_the_generated_text_is_the_config_s():
    run = workload(copies=True)
    source = GeneratedText(stretch_length=4, distances=(1, 3))
    assert run.text.vocab_size == source.vocab_size
    bits = source.optimal_bits(run.text.splits["valid"])
    assert math.isfinite(bits.sum())
    assert not torch.equal(run.text.splits["valid"][:300], run.text.splits["test"])
    assert run.config.reach == 17


def test_recorded_texts_have_a_ladder_of_distances():
    config = CHAPTER.experiment("copies/fixed_512").configs["cpu"]
    source = config.source
    steps = np.diff([0, *source.distances]) * source.block_length
    assert steps.max() <= config.model.ramp_size
    least, most = (source.entropy_rate(2 * span) for span in (config.model.max_span, 32))
    assert most - least > 2 * FACTS.margins["copies_bits"]["value"]
    assert config.reach < config.model.max_span / 4


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="n_rows \\* block = 32"):
        tiny(
            n_rows=2,
            block=16,
            training=TRAINING.__class__(max_steps=1, batch_size=8, optimizer="adam", lr=0.1),
        )
    with pytest.raises(ValueError, match="n_heads must be a whole number of at least 1; got 0"):
        tiny(model={"n_heads": 0})
    with pytest.raises(ValueError, match="d_model must be a multiple of n_heads = 3; got 8"):
        tiny(model={"n_heads": 3})
    with pytest.raises(ValueError, match="tokens must hold token ids from 0 to 12; got 13"):
        tiny().model.build(13)(torch.tensor([[13]]))
    config = tiny(copies=True, text=TextConfig(corpus="novels"))
    with pytest.raises(ValueError, match="text.corpus must be 'generated'"):
        build_copies(config, 0, CPU)


def test_a_run_depends_on_its_spans():
    for build in (build_text, build_copies):
        names = set(source_hashes(build))
        assert {
            "attn.adaptive_span",
            "attn.kernels.span",
            "attn.language_model",
            "attn.training.text",
        } <= names


# --- the live check ------------------------------------------------------------------------------------------------


def test_bands_name_live_experiments_and_tell_failure():
    live = {e.id for e in CHAPTER.experiments if "ci" in e.configs}
    assert {band.experiment for band in BANDS} <= live and "copies/fixed_32" in live

    def run(bits, span):
        values = {"valid_bits": SimpleNamespace(value=bits), "mean_span": SimpleNamespace(value=span)}
        return SimpleNamespace(outcome=SimpleNamespace(metrics=values))

    assert [band.holds(run(1.0, 80)) for band in BANDS] == [True, True, True]
    assert [band.holds(run(1.4, 128)) for band in BANDS] == [False, False, False]
    fixed = run(1.0, 128)
    rows = checked(
        {
            "copies/fixed_128": fixed,
            "copies/adaptive_128_from_max": run(1.0, 80),
            "copies/fixed_32": run(1.3, 32),
        }
    )
    assert [row["verdict"] for row in rows] == [True, True, True]
    assert [row["baseline"] for row in rows] == ["not below 1.2", "not below 1.2", "not below 100"]
    source = CHAPTER.experiment("copies/fixed_128").configs["ci"].source
    assert source.entropy_rate(128) < BANDS[0].level < source.entropy_rate(32)
    assert f"{source.entropy_rate(256):.3f} bits per character" in optimum_words()
