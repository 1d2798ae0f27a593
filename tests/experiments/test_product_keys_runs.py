"""What chapter 5 runs: configs from facts, workloads on a text and on facts, and what is looked at in a memory."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

import attn.product_keys
from attn.data.key_value_facts import KeyValueFacts
from attn.data.language_text import LanguageText, TextConfig
from attn.experiments.product_keys import CHAPTER, inside, runs
from attn.experiments.product_keys.inside import LayerUse, agreement, search_multiplications, short_list
from attn.experiments.product_keys.joined import JoinedRunConfig, memories_alone
from attn.experiments.product_keys.texts import OWN, words
from attn.experiments.product_keys.workloads import (
    FactsConfig,
    MemoryConfig,
    TextRunConfig,
    TrunkConfig,
    build_model,
    memories,
    parameter_groups,
)
from attn.product_keys import FeedForwardWithMemory, ProductKeyMemory, Selection, SlotUsage, record_usage
from attn.reproduction.experiment import config_dict
from attn.reproduction.facts import load_papers
from attn.reproduction.records import ARTIFACT_LIMIT, pack_arrays
from attn.reproduction.sources import source_hashes
from attn.training import train
from attn.training.config import TrainingConfig
from attn.training.schedules import learning_rate

FACTS = load_papers()[runs.PAPER]
CPU = torch.device("cpu")
BY_ID = {experiment.id: experiment for experiment in CHAPTER.experiments}
TRUNK = TrunkConfig(
    n_layers=2, d_model=16, n_heads=2, d_ff=32, memories=(2,),
    memory=MemoryConfig(n_keys=6, topk=4, key_dim=8, n_heads=2),
)  # fmt: skip


def tiny_text(**changes):
    settings = {
        "text": TextConfig(corpus="generated", train_size=2000, valid_size=600, test_size=600),
        "model": TRUNK,
        "training": TrainingConfig(max_steps=4, batch_size=64, optimizer="adam", lr=1e-3, eval_every=2),
        "n_rows": 4,
        "block": 16,
        "evaluation_rows": 4,
    }
    return TextRunConfig(**(settings | changes))


def tiny_facts(**changes):
    settings = {
        "facts": KeyValueFacts(n_facts=30, key_len=2, n_key_tokens=8, n_values=4, facts_per_sequence=2),
        "model": TRUNK,
        "training": TrainingConfig(max_steps=3, batch_size=8, optimizer="adam", lr=1e-3),
    }
    return FactsConfig(**(settings | changes))


def outcome(build, config, seed=0):
    workload = build(config, seed, CPU)
    result = train(workload, config.training, seed=seed)
    return workload, workload.outcome(workload.model, result.history), result


# --- configs from facts ----------------------------------------------------------------------------------------


def test_every_row_of_the_tables_has_an_experiment():
    rows = {table.id: table.rows for table in FACTS.tables}
    wanted = {
        "table1": {runs.table1_id(row) for row in rows["table1"] if row["test_ppl"] is not None},
        "table2_batchnorm": {
            runs.keys_id(row["n_keys"], on) for row in rows["table2_batchnorm"] for on in (True, False)
        },
        "table3_position": {runs.position_id(row["position"]) for row in rows["table3_position"]},
    }
    for table, ids in wanted.items():
        assert {e.id for e in CHAPTER.experiments if table in e.tables} == ids


def test_sweeps_share_the_base_model():
    shared = {
        runs.keys_id(512), runs.position_id(5), runs.heads_id(4), runs.topk_id(32)
    }  # fmt: skip
    assert shared == {runs.BASE}
    assert len(BY_ID) == len(CHAPTER.experiments)


@pytest.mark.parametrize("experiment", CHAPTER.experiments, ids=lambda e: e.id)
def test_configs_are_json_and_say_their_share(experiment):
    for config in experiment.configs.values():
        assert config_dict(config)["model"]["n_layers"] == config.model.n_layers
        assert any(character.isdigit() for character in experiment.share(config))


@pytest.mark.parametrize("row", FACTS.table("table1").rows, ids=lambda row: f"{row['model']} {row['dim']}")
def test_at_the_paper_s_profile_a_row_has_its_printed_size(row):
    if row["test_ppl"] is None:
        assert runs.table1_id(row) not in BY_ID
        return
    model = BY_ID[runs.table1_id(row)].configs["paper"].model
    assert (model.n_layers, model.d_model, model.n_heads) == (row["layers"], row["dim"], 16)
    assert len(model.memories) == row["memories"]
    if model.memories:
        memory = model.memory
        assert (memory.n_keys, memory.topk, memory.n_heads, memory.key_dim) == (512, 32, 4, 512)


def test_at_gpu_the_ablation_model_is_the_paper_s():
    base = BY_ID[runs.BASE].configs["gpu"].model
    assert (base.n_layers, base.d_model, base.n_heads, base.memories) == (6, 512, 8, (5,))
    assert base.memory.n_keys**2 == 262_144 and base.norm_position == "post"


def test_at_cpu_sizes_are_the_printed_ones_divided():
    sizes = FACTS.budgets["text"]["cpu"]["sizes"]
    for row in FACTS.table("table2_batchnorm").rows:
        config = BY_ID[runs.keys_id(row["n_keys"], False)].configs["cpu"]
        assert config.model.memory.n_keys * sizes["n_keys_over"] == row["n_keys"]
        assert not config.model.memory.batch_norm
    assert BY_ID["depth/d1024_l24_m0"].configs["cpu"].model.n_layers == sizes["layers"][24]
    assert BY_ID[runs.topk_id(128)].configs["cpu"].model.memory.topk == 128 // sizes["topk_over"]


@pytest.mark.parametrize(("layers", "count", "places"), [(6, 1, (4,)), (3, 1, (2,)), (12, 3, (4, 7, 10)), (3, 3, (1, 2, 3)), (4, 0, ())])  # fmt: skip
def test_memories_are_spread(layers, count, places):
    assert runs.spread(layers, count) == places


@pytest.mark.parametrize("name", [runs.WIDER, runs.DEEPER])
def test_grown_baselines_have_the_memory_s_parameters(name):
    budget = FACTS.budgets["text"]["cpu"]
    like, grown = (
        runs.n_parameters(runs.trunk(runs.MODELS[each], budget)) for each in (runs.GROWN_LIKE, name)
    )
    plain = runs.n_parameters(runs.trunk(runs.MODELS["depth/d1024_l12_m0"], budget))
    assert abs(grown - like) < 0.06 * (like - plain)  # half a layer at most
    assert not BY_ID[name].configs["cpu"].model.memories


def test_a_wide_model_of_facts_has_the_memory_s_parameters():
    wide, memory = (
        runs.n_parameters(BY_ID[runs.facts_id(16384, name)].configs["cpu"].model)
        for name in ("wide64", "keys64")
    )
    assert abs(wide - memory) / memory < 1e-3


def test_values_have_a_constant_rate_of_their_own():
    config = BY_ID[runs.BASE].configs["cpu"]
    dense, values = parameter_groups(build_model(TRUNK, vocab_size=9, max_len=8), config.value_lr)
    assert [table.shape for table in values["params"]] == [(36, 16)] and "optimizer" not in dense
    assert (values["optimizer"], values["schedule"], values["lr"]) == (
        "row_adam",
        "constant",
        config.value_lr,
    )
    without = replace(TRUNK, memories=())
    assert len(parameter_groups(build_model(without, vocab_size=9, max_len=8), 1.0)) == 1


def test_the_highest_rate_is_the_budget_s():
    for experiment in (runs.BASE, runs.facts_id(2048, "none")):
        for profile, config in BY_ID[experiment].configs.items():
            group = "facts" if experiment.startswith("facts") else "text"
            budget = FACTS.budgets[group][profile]["training"]
            highest = learning_rate(config.training, config.training.warmup_steps)
            rate = budget["lr"] if group == "facts" else budget["lr"]["ablation"]
            assert highest == pytest.approx(rate)


@pytest.mark.parametrize(
    ("deviation", "rate", "printed", "ours"), [("value_rate", "value_lr", 1e-3, 4e-3), ("dense_rate", "lr", 2.5e-4, 2e-3)]
)  # fmt: skip
def test_deviations_say_which_budgets_have_which_rate(deviation, rate, printed, ours):
    for group in ("facts", "text"):
        for profile, budget in FACTS.budgets[group].items():
            found = budget["training"][rate]
            is_printed = group == "text" and profile in ("gpu", "paper")
            assert {*(found.values() if isinstance(found, dict) else [found])} == {
                printed if is_printed else ours
            }
    (text,) = (entry.ours for entry in FACTS.deviations if entry.id == deviation)
    assert text.startswith(f"{1e3 * ours:g}e-3 at cpu and ci, and for facts at gpu, ")
    assert "for texts at gpu, and at paper. " in text


def test_what_a_deviation_changes_is_set_back():
    ours, paper = (BY_ID[name].configs["cpu"] for name in (runs.BASE, runs.VALUE_RATE))
    assert paper.value_lr == 1e-3 != ours.value_lr
    assert replace(paper, value_lr=ours.value_lr) == ours
    post = BY_ID[runs.POST_NORM].configs["cpu"]
    assert post.model.norm_position == "post" != ours.model.norm_position
    assert replace(post, model=ours.model) == ours


# --- a language model ------------------------------------------------------------------------------------------


def test_the_outcome_on_a_text():
    workload, found, result = outcome(runs.build_text, tiny_text())
    metrics = found.metrics
    for split in ("train", "valid", "test"):  # a token is a byte here
        assert np.log2(metrics[f"perplexity_{split}"].value) == pytest.approx(
            metrics[f"bits_per_byte_{split}"].value
        )
    assert np.log2(metrics["perplexity_valid"].value) == pytest.approx(result.history[-1]["bits_per_token"])
    assert metrics["lookups_per_slot_layer2"].value == pytest.approx(576 * 2 * 4 / 36)
    assert metrics["search_exact_layer2"].value == 1
    assert 0 < metrics["usage_layer2"].value <= 100 and metrics["kl_layer2"].value >= 0
    assert metrics["inference_tokens_per_second"].value > 0
    assert "576 validation tokens" in metrics["usage_layer2"].definition
    assert workload.unit == "tokens"


def test_definitions_say_which_tokens_are_read():
    metrics = outcome(runs.build_text, tiny_text())[1].metrics
    for split, name in (("valid", "validation"), ("test", "test")):
        where = (
            f"576 {name} tokens: 9 segments of 16 from each of 4 rows, what is shorter than a segment left out, each "
            f"segment read without what came before it; the rows are cut from the 600 tokens of the first 600 bytes of "
            f"the {split} split of generated text of known entropy"
        )
        for metric in ("perplexity", "bits_per_byte"):
            assert metrics[f"{metric}_{split}"].definition.endswith(f"of the token after each of {where}")
        assert split == "test" or metrics["usage_layer2"].definition.endswith(f"over {where}")
    train = metrics["perplexity_train"].definition
    assert "256 training tokens: 4 segments of 16 from each of 4 rows, evenly spaced over the 4 that" in train
    assert train.endswith(
        "the 2,000 tokens of the first 2,000 bytes of the train split of generated text of known entropy"
    )
    searches = "128 searches, those of all 2 heads of the memory in layer 2 for the first 64 tokens"  # a batch of 4 x 16
    for name in ("search_exact_layer2", "short_search_exact_layer2"):
        assert searches in metrics[name].definition and "usage_layer2" in metrics[name].definition


def test_a_text_in_words_says_what_is_left_out_of_it():
    text = LanguageText(splits={"test": torch.zeros(7)}, vocab_size=9, title="a book")
    config = TextConfig(corpus="novels", representation="subwords", vocab_size=9)
    assert words(config, text, "test") == (
        "the 7 tokens of the test split of a book, without empty lines and lines of markup alone, with an end after every "
        "line"
    )
    part, own = replace(config, test_size=1234), replace(config, corpus=OWN)
    assert words(part, text, "test").startswith(
        "the 7 tokens of the first 1,234 bytes of the test split of a book, "
    )
    assert "without empty lines, with" in words(own, text, "test")


def test_the_frequencies_of_subwords_cost_their_cross_entropy():
    """On what the models have to predict, which is less than all of the split."""
    workload = runs.build_text(tiny_text(), 0, CPU)
    train_ids = workload.text.splits["train"].tolist()
    targets = torch.cat([segment.targets.flatten() for segment in workload.read("test")]).tolist()
    assert len(targets) == 576 < len(workload.text.splits["test"])
    total = len(train_ids) + workload.text.vocab_size
    nats = [-np.log((train_ids.count(token) + 1) / total) for token in targets]
    found = workload._unigram("test")
    assert found.value == pytest.approx(np.exp(np.mean(nats)))
    assert "on the same 576 tokens" in found.definition and "the 2,000 tokens of" in found.definition


def test_training_cost_is_taken_on_text_that_was_read():
    workload = runs.build_text(tiny_text(), 0, CPU)
    part = workload.training_part()
    read = [workload.segments.at(step).tokens for step in range(1, 5)]
    assert part and all(any(torch.equal(segment.tokens, tokens) for tokens in read) for segment in part)


def test_arrays_are_kept_of_the_first_seed_only_and_fit():
    _, found, _ = outcome(runs.build_text, tiny_text())
    assert set(found.artifact) == {f"{name}_layer2" for name in ("curve", "map", "slots", "words", "shares")}
    assert found.artifact["map_layer2"].shape == (6, 6)
    assert len(pack_arrays(found.artifact)) < ARTIFACT_LIMIT
    assert not outcome(runs.build_text, tiny_text(), seed=1)[1].artifact


def test_without_a_memory_there_is_none_to_look_at():
    _, found, _ = outcome(runs.build_text, tiny_text(model=replace(TRUNK, memories=())))
    assert not found.artifact and not any("layer" in name for name in found.metrics)


def tiny_joined():
    settings = {field.name: getattr(tiny_text(), field.name) for field in fields(TextRunConfig)}
    return JoinedRunConfig(**settings)


def test_a_joined_memory_differs_from_the_base_in_that_alone():
    base, joined = (BY_ID[name].configs for name in (runs.BASE, runs.JOINED))
    assert base.keys() == joined.keys()
    for profile, config in joined.items():
        assert config_dict(config) == config_dict(base[profile]) | {"joins": True}


def test_a_joined_memory_stands_beside_a_feed_forward_layer():
    base, joined = (build(tiny, 0, CPU).model for build, tiny in
                    ((runs.build_text, tiny_text()), (runs.build_joined, tiny_joined())))  # fmt: skip
    pair = joined.stack.layers[1][1]
    assert isinstance(pair, FeedForwardWithMemory) and pair.feed_forward.expand.out_features == TRUNK.d_ff
    assert torch.equal(pair.memory.values, memories(base)[2].values), "the rest starts as without"
    tokens = torch.arange(12).view(1, 12)
    alone = memories_alone(joined.eval())
    assert list(memories(alone)) == [2] and torch.equal(alone.hidden(tokens)[0], joined.hidden(tokens)[0])


def test_the_outcome_with_a_joined_memory():
    workload, found, _ = outcome(runs.build_joined, tiny_joined())
    expected = outcome(runs.build_text, tiny_text())[1].metrics
    assert found.metrics.keys() == expected.keys()
    lookups = "lookups_per_slot_layer2"
    assert found.metrics[lookups].value == expected[lookups].value
    dense, values = workload.parameter_groups()
    assert len(values["params"]) == 1 and len(dense["params"]) == len(list(workload.model.parameters())) - 1


def test_a_seed_fixes_the_run():
    losses = [outcome(runs.build_text, tiny_text(), seed)[2].first_losses for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def test_a_position_depends_on_no_later_token():
    model = build_model(replace(TRUNK, memories=(1, 2)), vocab_size=11, max_len=8).eval()
    assert list(memories(model)) == [1, 2]
    tokens = torch.randint(11, (2, 8), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % 11
    before, after = model(tokens)[0], model(changed)[0]
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


def test_a_run_depends_on_its_memory_and_its_data():
    assert {"attn.product_keys", "attn.kernels.product_keys", "attn.language_model"} <= set(
        source_hashes(runs.build_text)
    )
    assert "attn.data.key_value_facts" in source_hashes(runs.build_facts)


# --- facts -------------------------------------------------------------------------------------------------------


def test_the_outcome_on_facts():
    _, found, result = outcome(runs.build_facts, tiny_facts())
    metrics = found.metrics
    assert metrics["table_bits"].value == 60
    assert metrics["recalled"].value == result.history[-1]["recalled"]
    assert metrics["stored_bits"].value == pytest.approx(result.history[-1]["stored_bits"])
    assert 0 < metrics["shown"].value < 1 and "48 draws" in metrics["shown"].definition
    assert metrics["lookups_per_slot_layer2"].value == pytest.approx(30 * 2 * 2 * 4 / 36)
    for name in ("usage", "kl", "unweighted_kl", "lookups_per_slot"):
        assert metrics[f"{name}_layer2"].definition.endswith(
            "over 60 tokens, all but the last of the 3 of each of the 30 facts, which is asked alone"
        )
    assert "120 searches" in metrics["search_exact_layer2"].definition
    assert "for the first 60 tokens" in metrics["search_exact_layer2"].definition


def test_budgets_show_every_fact_equally_often():
    for n_facts in (4096, 32768):
        config = BY_ID[runs.facts_id(n_facts, "keys64")].configs["cpu"]
        draws = config.training.max_steps * config.training.batch_size * config.facts.facts_per_sequence
        assert draws / n_facts == FACTS.budgets["facts"]["cpu"]["training"]["draws_per_fact"]


# --- inside a memory ---------------------------------------------------------------------------------------------


def test_use_is_that_of_the_library_s_own_recorder():
    workload = runs.build_text(tiny_text(model=replace(TRUNK, memories=(1, 2))), 0, CPU)
    model, segments = workload.model.eval(), list(workload.read("valid"))
    found = inside.use_of(model, segments, vocab_size=workload.text.vocab_size)
    with record_usage(model) as expected, torch.no_grad():
        for segment in segments:
            model(segment.tokens)
    for layer, use in zip((1, 2), expected.values(), strict=True):
        torch.testing.assert_close(found[layer].slots.weight, use.weight)
        assert torch.equal(found[layer].slots.count, use.count)
    assert not memories(model)[1].keys._forward_hooks


@pytest.mark.parametrize("topk", [1, 2, 4, 9])
def test_the_search_by_halves_is_exact_and_a_shorter_one_is_not(topk):
    generator = torch.Generator().manual_seed(topk)
    queries = torch.randn(70, 2, 8, generator=generator)
    exact, short = agreement(queries, torch.randn(2, 2, 12, 4, generator=generator), topk)
    assert exact == 1
    assert short_list(topk) ** 2 >= topk
    assert short == 1 if short_list(topk) == topk else short < 0.9


def test_multiplications_are_those_of_the_products():
    sizes = {"d_model": 8, "n_keys": 6, "topk": 3, "key_dim": 4, "n_heads": 2}
    queries = torch.randn(5, 2, 4)
    assert search_multiplications(ProductKeyMemory(**sizes), queries) == 6 * 4
    assert search_multiplications(ProductKeyMemory(**sizes, flat=True), queries) == 36 * 4


def test_slots_that_fire_for_few_words_come_first():
    use = LayerUse(SlotUsage(4), vocab_size=10)
    many = 30
    tokens = torch.tensor([7] * many + [1, 2, 3] + list(range(10)) * 4)
    slots = torch.tensor([2] * (many + 3) + [0] * 40)  # slot 2 for one word mostly, slot 0 for all alike
    selection = Selection(slots.view(-1, 1, 1), torch.ones(len(slots), 1, 1))
    use.add(torch.zeros(len(slots), 1, 2), selection, tokens)
    found, words, shares = inside._selective(torch.cat(use.firsts), 10)
    assert found.tolist() == [2, 0] and words[0, 0] == 7
    assert shares[0, 0] == pytest.approx(30 / 33)


def test_the_curve_falls_and_the_map_has_the_codebooks_as_sides():
    weight = torch.arange(16, dtype=torch.float64)
    assert inside._curve(weight).tolist() == list(range(15, -1, -1))
    assert inside._map(weight)[1].tolist() == [4, 5, 6, 7]
    large = torch.ones(256**2, dtype=torch.float64)
    assert (
        inside._map(large).shape == (inside.MAP_SIDE,) * 2
        and len(inside._curve(large)) == inside.CURVE_POINTS
    )


# --- a text of one's own, and bad input ------------------------------------------------------------------------


def test_a_run_on_a_text_of_one_s_own_is_one_on_its_tokens_in_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTN_DATA", str(tmp_path))
    monkeypatch.setenv("ATTN_CACHE", str(tmp_path / "cache"))
    (tmp_path / OWN).mkdir()
    for split, times in (("train", 300), ("valid", 40), ("test", 40)):
        (tmp_path / OWN / f"{split}.txt").write_text("the cat sat on the mat\nthe dog ate\n" * times)
    asked = TextConfig(corpus=OWN, representation="subwords", vocab_size=275)
    workload, found, run = outcome(runs.build_text, tiny_text(text=asked))
    assert "of a text of your own, without empty lines" in found.metrics["perplexity_test"].definition
    held = replace(workload.text, splits={name: ids.clone() for name, ids in workload.text.splits.items()})
    monkeypatch.setattr("attn.experiments.product_keys.workloads.load", lambda config: held)
    _, same, again = outcome(runs.build_text, tiny_text(text=asked))
    assert again.first_losses == run.first_losses
    for name in ("perplexity_train", "perplexity_test", "unigram_perplexity_test"):
        assert same.metrics[name].value == found.metrics[name].value


@pytest.mark.parametrize(
    ("build", "config"), [(runs.build_text, tiny_text()), (runs.build_facts, tiny_facts())], ids=["text", "facts"]
)  # fmt: skip
def test_tables_without_room_where_a_run_is_to_be_are_refused(monkeypatch, build, config):
    free = {"meta": 100, "cpu": 10**9}
    monkeypatch.setattr(attn.product_keys, "free_bytes", lambda device: free[device.type])
    with pytest.raises(ValueError, match="take 2,304 bytes, where 100 are free on meta"):
        build(config, 0, torch.device("meta"))


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"memories must be layers from 1 to 2; got \(3,\)"):
        replace(TRUNK, memories=(3,))
    with pytest.raises(ValueError, match="batch_size must be n_rows \\* block = 80 tokens; got 64"):
        tiny_text(n_rows=5)
