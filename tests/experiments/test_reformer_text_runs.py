"""What chapter 2 runs on text: byte-level models, timed steps, and translation by reversible layers."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from attn.data.language_text import TextConfig
from attn.experiments.reformer import CHAPTER, text_runs, translation_runs
from attn.experiments.reformer.byte_lm import EVALUATIONS, ByteConfig, attending, build_model
from attn.experiments.reformer.runs import PAPER
from attn.experiments.reformer.saved import KEPT, REVERSED
from attn.experiments.reformer.step_time import StepTimeConfig
from attn.experiments.reformer.translation import EncoderDecoderConfig, ReversibleTranslationConfig
from attn.experiments.transformer.corpora import CorpusConfig
from attn.reformer import LocalAttention, LSHAttention
from attn.reproduction.experiment import config_dict
from attn.reproduction.facts import load_papers
from attn.reproduction.sources import EVALUATION, source_hashes
from attn.training import train
from attn.training.config import TrainingConfig

BUDGETS = load_papers()[PAPER].budgets
CPU = torch.device("cpu")
TRAINING = TrainingConfig(max_steps=2, batch_size=64, optimizer="adam", lr=1e-3)


def tiny(model="standard", **changes):
    attention, is_reversible = text_runs.MODELS[model]
    settings = {
        "text": TextConfig(corpus="generated", train_size=400, valid_size=140, test_size=260),
        "attention": attention, "is_reversible": is_reversible, "seq_len": 32, "chunk_len": 2, "n_layers": 2,
        "d_model": 8, "n_heads": 2, "d_ff": 8, "evaluation_rows": 2, "grid_segments": 4, "training": TRAINING,
    }  # fmt: skip
    return ByteConfig(**(settings | changes))


def outcome(config, build=text_runs.build_bytes, seed=0):
    workload = build(config, seed, CPU)
    result = train(workload, config.training, seed=seed)
    return workload, workload.outcome(workload.model, result.history)


# --- configs -------------------------------------------------------------------------------------------------


def test_every_budget_of_the_facts_is_an_experiment():
    found = {e.id: set(e.configs) for e in CHAPTER.experiments if e.task != "duplication"}
    expected = {}
    for task in ("byte_lm", "step_time", "translation"):
        for profile, budget in BUDGETS[task].items():
            for model in budget["models"]:
                expected.setdefault(f"{task}/{model}", set()).add(profile)
    for profile, budget in BUDGETS["byte_depth"].items():
        for depth in budget["depths"]:
            expected.setdefault(f"byte_depth/layers_{depth}", set()).add(profile)
    assert found == expected


@pytest.mark.parametrize(
    "experiment", [*text_runs.EXPERIMENTS, *translation_runs.EXPERIMENTS], ids=lambda e: e.id
)
def test_configs_are_json_and_say_their_share(experiment):
    for config in experiment.configs.values():
        assert config_dict(config)["training"]["optimizer"] == "adam"
        assert "," in experiment.share(config)


def test_the_paper_s_profile_is_the_paper_s_size():
    recipe = load_papers()[PAPER].recipe
    config = CHAPTER.experiment("byte_lm/standard").configs["paper"]
    sizes = recipe["model"]["ablations"]
    assert {name: getattr(config, name) for name in sizes} == sizes
    assert config.training.batch_size == recipe["batch"]["sequences_total"] * 2**16
    # constant * linear warm-up * 1 / sqrt(step)
    released = recipe["schedule"]["released_gin"]
    assert config.training.lr == released["enwik8"]["constant"]
    assert config.training.warmup_steps == released["enwik8"]["warmup"]
    deep = CHAPTER.experiment("byte_depth/layers_20").configs["paper"]
    assert deep.n_layers == 20 and deep.is_reversible and deep.attention.n_rounds == 8
    base, big = (
        CHAPTER.experiment(f"translation/{model}").configs["paper"] for model in ("long_apart", "big")
    )
    assert base.training.max_steps == recipe["steps"]["wmt_base"][1]
    assert (big.training.max_steps, big.training.lr) == (
        recipe["steps"]["wmt_big"],
        released["wmt_big"]["constant"],
    )
    assert (big.model.d_model, big.model.n_heads) == (recipe["model"]["wmt_big"]["d_model"], 16)


@pytest.mark.parametrize("profile", ["cpu", "gpu", "paper"])
def test_sequences_have_enough_chunks_to_hash(profile):
    for experiment in text_runs.EXPERIMENTS:
        config = experiment.configs.get(profile)
        if isinstance(config, ByteConfig) and config.attention.kind == "lsh":
            assert config.seq_len >= 16 * config.chunk_len


def test_what_is_compared_differs_in_one_thing():
    configs = {model: CHAPTER.experiment(f"byte_lm/{model}").configs["cpu"] for model in text_runs.MODELS}
    standard = configs["standard"]
    assert replace(configs["reversible"], is_reversible=False) == standard
    for model in ("shared", "lsh8", "lsh1"):
        assert replace(configs[model], attention=standard.attention) == standard
    short, long = (
        CHAPTER.experiment(f"translation/{model}").configs["cpu"] for model in ("short_shared", "long_shared")
    )
    ratio = BUDGETS["translation"]["paper"]["steps"]
    assert long.training.max_steps * ratio["short"] == short.training.max_steps * ratio["long"]
    assert replace(long, training=short.training) == short


# --- byte-level models ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["standard", "reversible", "lsh2"])
def test_outcome_is_bits_and_memory(model):
    workload, found = outcome(tiny(model))
    bits = found.artifact["bits_by_position"]
    assert bits.shape == (32,) and (bits > 0).all()
    np.testing.assert_allclose(found.metrics["bits_per_byte"].value, bits.mean(), rtol=1e-5)
    np.testing.assert_allclose(found.metrics["bits_far"].value, bits[16:].mean(), rtol=1e-5)
    shared = {f"bits_{name}" for name in EVALUATIONS}
    assert (shared <= set(found.metrics)) == (model == "lsh2")
    assert ("reconstruction_error" in found.metrics) == (model == "reversible")
    if model == "lsh2":
        buckets, text = found.artifact["buckets"], found.artifact["text"]
        assert buckets.shape == (2, 2, 32) and 0 <= buckets.min() and buckets.max() < 2 * 32 / 2
        assert text.tolist() == next(iter(workload.read("test"))).tokens[0].tolist()


def test_reversible_layers_keep_less_and_recover_their_inputs():
    metrics = {n: outcome(tiny("reversible", n_layers=n))[1].metrics for n in (2, 6)}
    two, six = metrics[2], metrics[6]
    assert six["saved_bytes"].value == two["saved_bytes"].value
    assert six["saved_bytes_kept"].value > 1.5 * two["saved_bytes_kept"].value
    assert 0 <= six["reconstruction_error"].value < 1e-5


def test_buckets_and_random_states_of_reversible_layers_are_counted():
    """With every layer more there are its buckets, whole numbers of 8 bytes, and the generator's state after them."""
    found = {n: reformer(n)[1].metrics["saved_bytes"].value for n in (2, 4)}
    n_sequences, n_heads, n_rounds, length = 2, 2, 2, 32
    buckets = 8 * n_sequences * n_heads * n_rounds * length
    assert found[4] - found[2] == 2 * (buckets + torch.get_rng_state().numel())


def reformer(n_layers, **changes):
    return outcome(tiny("lsh2", is_reversible=True, n_layers=n_layers, grid_segments=0, **changes))


def test_reversible_layers_are_evaluated_under_other_attention_and_get_their_own_back():
    config = tiny("lsh2", is_reversible=True)
    workload = text_runs.build_bytes(config, 0, CPU)
    branches = [m for m in workload.model.modules() if isinstance(getattr(m, "sublayer", None), LSHAttention)]
    before = [(branch.sublayer, branch.choices) for branch in branches]
    found = workload.outcome(workload.model, []).metrics
    assert {f"bits_{name}" for name in EVALUATIONS} <= set(found)
    assert found["bits_full"].value != found["bits_lsh1"].value != found["bits_lsh2"].value
    assert [(branch.sublayer, branch.choices) for branch in branches] == before
    assert len(before) == config.n_layers
    assert {choices for _, choices in before} == {("buckets",)}
    plain = text_runs.build_bytes(replace(config, is_reversible=False), 0, CPU)
    assert {f"bits_{name}" for name in EVALUATIONS} <= set(plain.outcome(plain.model, []).metrics)


def test_definitions_of_bytes_say_what_becomes_of_activations():
    metrics = reformer(2)[1].metrics
    reversed_, kept = (metrics[name].definition for name in ("saved_bytes", "saved_bytes_kept"))
    assert REVERSED in reversed_ and KEPT not in reversed_ and "2 sequences of 32, in float32" in reversed_
    assert KEPT in kept and kept.replace(KEPT, REVERSED) == reversed_
    assert KEPT in outcome(tiny("standard"))[1].metrics["saved_bytes"].definition


@pytest.mark.parametrize(
    ("n_segments", "per_row", "which"), [(None, 4, "all 4 segments"), (3, 2, "the first 2 segments"), (1, 1, "the first segment"), (99, 4, "all 4 segments")],
)  # fmt: skip
def test_definitions_say_which_bytes_are_read(n_segments, per_row, which):
    text = TextConfig(corpus="generated", train_size=400, valid_size=140, test_size=300)
    workload = text_runs.build_bytes(tiny(text=text), 0, CPU)
    read = []

    def model(tokens, targets):
        read.append(tokens)
        return workload.model(tokens, targets=targets)

    workload._bits_by_position(model, n_segments)
    assert [list(tokens.shape) for tokens in read] == [[2, 32]] * per_row
    assert workload._where(n_segments).startswith(
        f"{which} of 32 bytes in each of the 2 rows into which the first 300 bytes of the test split of generated text"
    )
    assert "what is shorter than one is left out" in workload._where(n_segments)


def test_definitions_of_bits_name_part_and_attention():
    metrics = outcome(tiny("lsh2"))[1].metrics
    assert "seeded with 0; all 4 segments" in metrics["bits_per_byte"].definition
    assert "segment's second half" in metrics["bits_far"].definition
    for name, attention in EVALUATIONS.items():
        definition = metrics[f"bits_{name}"].definition
        assert (
            f"with {attention.words()} in every layer" in definition and "the first 2 segments" in definition
        )
        assert ("seeded with 0" in definition) == (attention.kind == "lsh")
    found = outcome(tiny("reversible"))[1].metrics["reconstruction_error"].definition
    assert "the first segment of 32 bytes in each of the 2 rows" in found


def test_the_test_text_is_scored_once_and_whole():
    config = tiny()
    workload = text_runs.build_bytes(config, 0, CPU)
    batches = list(workload.read("test"))
    assert sum(batch.n_scored for batch in batches) == 2 * 4 * 32  # rows, whole segments, positions
    assert workload._bits_by_position(workload.model).shape == (32,)


def test_models_have_equally_many_parameters():
    def count(model, **changes):
        return sum(p.numel() for p in build_model(tiny(model, **changes)).parameters())

    assert count("standard") == count("reversible") == count("standard", dropout=0.1)
    assert count("shared") == count("lsh4") == count("standard") - 2 * 8 * 8
    assert count("shared", local_chunk=4) == count("shared")
    axial = tiny("lsh1", axial_shape=(8, 4))
    assert [list(p.shape) for p in build_model(axial).positions.parameters()] == [[8, 4], [4, 4]]


def test_reversible_layers_with_hashing_have_plain_gradients():
    gradients = []
    for keep in (False, True):
        torch.manual_seed(0)
        model = build_model(tiny("lsh2", is_reversible=True, feed_forward_chunks=4), vocab_size=11).double()
        model.stack.stack.keep_activations = keep
        torch.manual_seed(1)
        tokens = torch.randint(11, (3, 33))
        model(tokens[:, :-1], targets=tokens[:, 1:])[0].sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-10)


def test_every_other_layer_attends_locally_if_asked():
    model = build_model(tiny("lsh2", n_layers=4, local_chunk=4))
    kinds = [type(module).__name__ for module in model.modules() if hasattr(module, "attend")]
    assert kinds == ["LocalAttention", "LSHAttention"] * 2
    local = model.stack.layers[0][0]
    assert (local.chunk_len, local.unit_keys, local.self_last) == (4, True, True)


@pytest.mark.parametrize("is_reversible", [False, True])
def test_another_attention_takes_the_trained_weights_for_a_while(is_reversible):
    config = tiny("lsh2", is_reversible=is_reversible, n_layers=4, local_chunk=4)
    model = build_model(config)

    def attentions():
        found = [module for module in model.modules() if hasattr(module, "attend")]
        return [module for module in found if not isinstance(module, LocalAttention)]

    trained = attentions()
    with attending(model, config, EVALUATIONS["full"]):
        assert all(not isinstance(module, LSHAttention) for module in attentions())
        torch.testing.assert_close(attentions()[0].state_dict(), trained[0].state_dict())
        assert len(attentions()) == len(trained) == 2
    assert all(a is b for a, b in zip(attentions(), trained, strict=True))


def test_a_seed_fixes_the_run():
    runs = [outcome(tiny("lsh1"), seed=seed)[1] for seed in (0, 0, 1)]
    assert runs[0].metrics == runs[1].metrics != runs[2].metrics


def test_a_run_depends_on_its_layers_and_its_scores():
    names = set(source_hashes(text_runs.build_bytes))
    assert {"attn.reformer", "attn.reversible", "attn.data.language_text", "attn.training.text"} <= names
    names = set(source_hashes(text_runs.build_step_time))
    assert {"attn.reformer", "attn.language_model", "attn.kernels.lsh"} <= names
    names = set(source_hashes(translation_runs.build_translation))
    assert {"attn.reversible_transformer", "attn.data.batching"} <= names
    assert {"attn.evaluation.decoding", f"attn.evaluation.decoding{EVALUATION}"} & names


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention": EVALUATIONS["lsh1"], "chunk_len": 4}, "seq_len must be at least 16 chunks.*: 64; got 32"),
        ({"training": replace(TRAINING, batch_size=40)}, "batch_size must be a whole number of segments of 32 bytes"),
        ({"feed_forward_chunks": 2}, "feed_forward_chunks must be 1 where layers are not reversible; got 2"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny(**changes)


# --- timed steps ---------------------------------------------------------------------------------------------


def timed(model="standard", **changes):
    settings = {
        "attention": text_runs.MODELS[model][0], "lengths": (16, 32), "tokens": 64, "chunk_len": 4, "repeats": 2,
        "n_layers": 1, "d_model": 8, "n_heads": 2, "d_ff": 8, "vocab_size": 11,
        "training": TrainingConfig(max_steps=1, batch_size=1, optimizer="adam", lr=1e-3),
    }  # fmt: skip
    return StepTimeConfig(**(settings | changes))


@pytest.mark.parametrize("model", ["standard", "lsh2"])
def test_every_length_has_a_time_and_bytes(model):
    _, found = outcome(timed(model), text_runs.build_step_time)
    assert set(found.metrics) == {
        f"{what}_{length}" for what in ("seconds", "saved_bytes") for length in (16, 32)
    }
    assert all(metric.value > 0 for metric in found.metrics.values())
    assert "over 4 sequences of 16 symbols, the fastest of 2" in found.metrics["seconds_16"].definition


def test_lengths_divide_the_tokens():
    with pytest.raises(ValueError, match=r"lengths must divide tokens=64; got \(16, 24\)"):
        timed(lengths=(16, 24))


# --- translation ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("is_reversible", "is_shared"), [(True, True), (True, False), (False, True)])
def test_translation_is_scored_by_every_signature(is_reversible, is_shared):
    config = ReversibleTranslationConfig(
        corpus=CorpusConfig(
            name="spoken-numbers", source="en", target="de", vocab_size=330, n_pairs=60, n_validation=4, tests=("test",), n_test=4,
        ),
        model=EncoderDecoderConfig(
            is_reversible=is_reversible, share_embeddings=is_shared, n_layers=1, d_model=8, d_ff=8, n_heads=2
        ),
        training=TrainingConfig(max_steps=1, batch_size=300, optimizer="adam", lr=1e-3),
    )  # fmt: skip
    _, found = outcome(config, translation_runs.build_translation)
    signatures = {name: found.metrics[name].definition for name in found.metrics if name.endswith("_test")}
    assert set(signatures) == {"bleu_test", "bleu_uncased_test", "bleu_cased_test"}
    assert "tok:13a" in signatures["bleu_test"] and "case:mixed" in signatures["bleu_test"]
    assert "tok:intl" in signatures["bleu_uncased_test"] and "case:lc" in signatures["bleu_uncased_test"]
    assert "tok:intl" in signatures["bleu_cased_test"] and "case:mixed" in signatures["bleu_cased_test"]
    assert found.metrics["perplexity"].value > 1


def test_reversible_and_plain_translation_models_are_equally_large():
    config = CHAPTER.experiment("translation/short_shared").configs["cpu"].model
    plain = CHAPTER.experiment("translation/transformer").configs["cpu"].model
    counts = [sum(p.numel() for p in one.build(100).parameters()) for one in (config, plain)]
    assert counts[0] == counts[1]
    apart = CHAPTER.experiment("translation/short_apart").configs["cpu"].model
    more = sum(p.numel() for p in apart.build(100).parameters()) - counts[0]
    assert more == 2 * 100 * config.d_model


def test_rows_of_table_4_are_those_of_the_print():
    rows = [row["model"] for row in load_papers()[PAPER].table("table4").rows]
    assert set(translation_runs.TABLE4_ROWS) < set(rows)
