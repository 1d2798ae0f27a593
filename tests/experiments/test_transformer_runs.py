"""What chapter 1 runs: the rows of table 3 at both sizes, configs from facts, and the workload on generated pairs."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from attn.data.errors import DataError, FileMissing
from attn.data.translation import ParallelText
from attn.experiments.transformer import corpora
from attn.experiments.transformer.corpora import CorpusConfig
from attn.experiments.transformer.flops import on_meta
from attn.experiments.transformer.runs import (
    EXPERIMENTS,
    GRID,
    PAPER,
    PRINTED_VOCABULARY,
    SHORT_GRID,
    build,
    complete,
    printed_model,
    row_id,
    row_label,
    scaled_model,
    table3_rows,
)
from attn.experiments.transformer.workloads import (
    N_SAMPLES,
    RecurrentConfig,
    TransformerConfig,
    TranslationConfig,
)
from attn.reproduction.experiment import config_dict
from attn.reproduction.facts import load_papers
from attn.reproduction.records import ARTIFACT_LIMIT, pack_arrays
from attn.reproduction.sources import EVALUATION, source_hashes
from attn.training import train
from attn.training.config import TrainingConfig
from attn.training.schedules import learning_rate

FACTS = load_papers()[PAPER]
CPU = torch.device("cpu")
ROWS = {row_id(row): row for row in table3_rows()}
BY_ID = {experiment.id: experiment for experiment in EXPERIMENTS}
BASE = {"n_layers": 6, "d_model": 512, "d_ff": 2048, "n_heads": 8}
TRAINING = TrainingConfig(max_steps=4, batch_size=300, optimizer="adam", lr=1e-3, eval_every=2)


def tiny(**changes):
    """A model of a few thousand weights on generated pairs."""
    settings = {
        "corpus": CorpusConfig(
            name="spoken-numbers", source="en", target="de", vocab_size=400, n_pairs=60, n_validation=12,
            tests=("test",), n_test=10,
        ),
        "model": TransformerConfig(n_layers=1, d_model=16, d_ff=16, n_heads=2),
        "training": TRAINING,
    }  # fmt: skip
    return TranslationConfig(**(settings | changes))


def outcome(config, seed=0):
    workload = build(config, seed, CPU)
    result = train(workload, config.training, seed=seed)
    return workload, workload.outcome(workload.model, result.history)


# --- the rows of table 3 -----------------------------------------------------------------------------------


def test_every_row_has_an_id_and_a_label_of_its_own():
    assert len(ROWS) == len({row_label(row) for row in table3_rows()}) == len(table3_rows()) == 20
    assert {
        "base",
        "h_1",
        "d_k_16",
        "n_2",
        "d_model_256",
        "d_ff_4096",
        "p_drop_0",
        "eps_ls_02",
        "big",
    } <= set(ROWS)
    assert row_label(ROWS["h_4"]) == "(A) h = 4"


@pytest.mark.parametrize(
    ("row", "changed"),
    [
        ("base", {}),
        ("h_32", {"n_heads": 32, "head_dim": 16, "value_dim": 16}),
        ("d_k_16", {"head_dim": 16}),
        ("n_8", {"n_layers": 8}),
        ("d_model_256", {"d_model": 256, "head_dim": 32, "value_dim": 32}),
        ("d_ff_1024", {"d_ff": 1024}),
        ("p_drop_0", {"dropout": 0.0}),
        ("eps_ls_02", {}),
        ("learned_positions", {"positions": "learned"}),
        ("big", {"d_model": 1024, "d_ff": 4096, "n_heads": 16, "dropout": 0.3}),
    ],
)
def test_a_row_is_the_base_model_but_for_what_it_prints(row, changed):
    base = TransformerConfig(**BASE, head_dim=64, value_dim=64, dropout=0.1)
    assert printed_model(ROWS[row]) == replace(base, **changed)


def test_blank_cells_are_the_base_model_s():
    assert complete(ROWS["eps_ls_0"])["eps_ls"] == 0 and complete(ROWS["n_2"])["eps_ls"] == 0.1
    assert complete(ROWS["big"])["train_steps"] == 300_000 and complete(ROWS["h_1"])["train_steps"] == 100_000


@pytest.mark.parametrize("row", ROWS)
def test_scaled_rows_keep_their_ratio_to_the_base_model(row):
    small = {"n_layers": 3, "d_model": 64, "d_ff": 256, "n_heads": 8}
    printed, scaled = printed_model(ROWS[row]), scaled_model(ROWS[row], small)
    assert (scaled.n_layers, scaled.d_model) == (printed.n_layers / 2, printed.d_model / 8)
    assert (scaled.d_ff, scaled.n_heads) == (printed.d_ff / 8, printed.n_heads)
    assert (scaled.head_dim, scaled.value_dim) == (printed.head_dim / 8, printed.value_dim / 8)
    assert (scaled.dropout, scaled.positions) == (printed.dropout, printed.positions)
    assert scaled_model(ROWS[row], BASE) == printed


def test_a_base_model_that_cannot_be_scaled_is_named():
    with pytest.raises(ValueError, match=r"n_layers of row 'n_2' must be a whole number; got 0\.333"):
        scaled_model(ROWS["n_2"], BASE | {"n_layers": 1})


# --- configs -----------------------------------------------------------------------------------------------


def test_every_budget_of_the_facts_is_an_experiment():
    translations = {
        f"{task}/{kind}": set(p for p, b in budgets.items() if kind in b["models"])
        for task, budgets in FACTS.budgets.items()
        if task not in (SHORT_GRID, GRID)
        for kind in {kind for budget in budgets.values() for kind in budget["models"]}
    }
    ablations = {f"{task}/{row}": set(FACTS.budgets[task]) for task in (GRID, SHORT_GRID) for row in ROWS}
    variant = {"table3_pre_norm/base": set(FACTS.budgets[GRID])}
    assert {e.id: set(e.configs) for e in EXPERIMENTS} == translations | ablations | variant


def test_the_variant_differs_from_its_row_in_its_norms_alone():
    base, variant = BY_ID[f"{GRID}/base"], BY_ID["table3_pre_norm/base"]
    assert variant.seeds == base.seeds and set(variant.configs) == set(base.configs)
    assert variant.tables == () and variant.task == "table3_pre_norm"
    for profile, config in variant.configs.items():
        assert config.model.norm_position == "pre"
        assert replace(config, model=base.configs[profile].model) == base.configs[profile]


def test_longer_training_on_captions_differs_in_training_and_dropout_alone():
    short, longer = (BY_ID[f"{task}_en_de/transformer"].configs["cpu"] for task in ("captions", "multi30k"))
    assert longer.training.max_steps > short.training.max_steps
    model = replace(longer.model, dropout=short.model.dropout)
    assert replace(longer, model=model, training=short.training, average_every=short.average_every) == short


@pytest.mark.parametrize("row", ROWS)
def test_shorter_training_differs_in_training_alone(row):
    short, longer = BY_ID[f"{SHORT_GRID}/{row}"], BY_ID[f"{GRID}/{row}"]
    assert short.seeds == {"cpu": longer.seeds["cpu"]} and short.tables == ()
    before, after = (experiment.configs["cpu"] for experiment in (short, longer))
    assert replace(after, training=before.training) == before
    assert after.training.max_steps > before.training.max_steps
    assert after.training.warmup_steps > before.training.warmup_steps
    assert after.training.lr == before.training.lr, "the paper's formula: a longer warm-up has a lower peak"


@pytest.mark.parametrize("experiment", [e for e in EXPERIMENTS if e.task != "lengths"], ids=lambda e: e.id)
def test_configs_are_json_and_say_their_share(experiment):
    for config in experiment.configs.values():
        assert config_dict(config)["training"]["optimizer"] == "adam"
        whole = (
            "7,500,000,000 of the paper's big model"
            if experiment.id.endswith("/big")
            else "2,500,000,000 of the paper's base model"
        )
        assert f"of the {whole}" in experiment.share(config) and "FLOPs" in experiment.share(config)


def test_a_share_says_where_sentences_are_generated():
    grid = BY_ID[f"{GRID}/base"]
    said = {profile: grid.share(config) for profile, config in grid.configs.items()}
    assert said["cpu"].startswith("generated sentences, not newstest2013: at most 1,800,000 target tokens")
    assert said["gpu"].startswith("generated") and said["paper"].startswith("at most")
    assert BY_ID["captions_en_de/gru"].share(BY_ID["captions_en_de/gru"].configs["cpu"]).startswith("at most")


def test_a_share_is_of_tokens_and_of_arithmetic():
    """The paper's own runs are the whole; half of the layers do about half of the arithmetic on as many tokens."""
    whole = BY_ID["wmt14_en_de/big"]
    assert whole.share(whole.configs["paper"]).startswith(
        "at most 7,500,000,000 target tokens, 1 of the 7,500,000,000"
    )
    assert whole.share(whole.configs["paper"]).endswith("FLOPs, 1 of its 9.6e18")
    fewer = BY_ID[f"{GRID}/n_2"].share(BY_ID[f"{GRID}/n_2"].configs["paper"])
    assert "1 of the 2,500,000,000" in fewer and "0.53 of its 9.4e17" in fewer


@pytest.mark.parametrize("experiment", [e for e in EXPERIMENTS if "gpu" in e.configs], ids=lambda e: e.id)
def test_gpu_budgets_resolve_build_and_are_larger(experiment):
    small, large = (experiment.configs[profile] for profile in ("cpu", "gpu"))
    counts = [
        sum(p.numel() for p in on_meta(c.model, c.corpus.vocab_size).parameters()) for c in (small, large)
    ]
    assert 3 * counts[0] < counts[1] and large.training.max_steps > small.training.max_steps
    assert large.training.batch_size > small.training.batch_size and type(large.model) is type(small.model)
    assert experiment.seeds["gpu"] == 3 and large.training.warmup_steps < large.training.max_steps
    if large.average_every:
        assert large.average_every * large.average_count <= large.training.max_steps


def test_every_row_that_cpu_records_has_a_gpu_budget():
    for e in EXPERIMENTS:
        # the first runs of table 3 and the longer one on captions are for cpu alone
        if e.task.startswith(("captions", "table3")) and e.task != SHORT_GRID:
            assert {"cpu", "gpu"} <= set(e.configs), e.id


def test_the_sizes_that_the_deviations_speak_of():
    """Shares of the paper's parameters: "about a thirtieth", "less than a hundredth", "a seventh", "less than a fifteenth"."""

    def ratio(experiment, profile, row):
        config = BY_ID[experiment].configs[profile]
        ours = sum(p.numel() for p in on_meta(config.model, config.corpus.vocab_size).parameters())
        return sum(p.numel() for p in on_meta(printed_model(row), PRINTED_VOCABULARY).parameters()) / ours

    said = next(d.ours for d in FACTS.deviations if d.id == "size")
    assert "about a thirtieth" in said and 28 < ratio("captions_en_de/transformer", "cpu", ROWS["base"]) < 34
    assert "a seventh" in said and 6.5 < ratio("captions_en_de/transformer", "gpu", ROWS["base"]) < 7.5
    assert "less than a hundredth" in said and "less than a fifteenth" in said
    for name, row in ROWS.items():
        assert ratio(f"{GRID}/{name}", "cpu", row) > 100 and ratio(f"{GRID}/{name}", "gpu", row) > 15
    trial = BY_ID["wmt14_sample_en_de/base"].configs["cpu"].model
    assert replace(trial, head_dim=64, value_dim=64) == printed_model(ROWS["base"])


def said(deviation, field="ours"):
    return next(getattr(d, field) for d in FACTS.deviations if d.id == deviation)


def config_of(experiment, profile="cpu"):
    return BY_ID[experiment].configs[profile]


@pytest.mark.parametrize(
    ("deviation", "number"),
    [
        ("batch", lambda config: config.training.batch_size),
        ("updates", lambda config: config.training.max_steps),
    ],
)
def test_the_batches_and_updates_that_the_deviations_speak_of(deviation, number):
    """Every run of a task and profile has the number that is said of it, and the paper's own profile the paper's."""

    def tasks(start):
        shorter = {SHORT_GRID} if start != SHORT_GRID else {GRID, "table3_pre_norm"}
        return {e.task for e in EXPERIMENTS if e.task.startswith(start)} - shorter

    def of(task, profile):
        (one,) = {
            number(e.configs[profile]) for e in EXPERIMENTS if e.task in tasks(task) and profile in e.configs
        }
        return f"{one:,}"

    for task, where in ((GRID, "in table 3"), ("captions", "for Multi30k")):
        assert f"{where} {of(task, 'cpu')} at cpu and {of(task, 'gpu')} at gpu" in said(deviation)
    assert f"in the trial on pairs of WMT14 {of('wmt14_sample', 'cpu')}" in said(deviation)
    assert f"{number(config_of('wmt14_en_de/base', 'paper')):,}" in said(deviation, "paper")
    if deviation == "updates":
        assert f"{of(SHORT_GRID, 'cpu')} at cpu in its first, shorter runs" in said("updates")
        assert f"{of('multi30k', 'cpu')} at cpu in its longer training" in " ".join(said("updates").split())
        assert f"{number(config_of(f'{GRID}/big', 'paper')):,} of the big" in said("updates", "paper")


def test_the_other_settings_that_the_deviations_speak_of():
    captions = {
        (e.task, profile): c.model.dropout
        for e in EXPERIMENTS if e.task.startswith(("captions", "multi30k"))
        for profile, c in e.configs.items()
    }  # fmt: skip
    shorter = {captions.pop((f"captions_en_{language}", "cpu")) for language in ("de", "fr")}
    (long,), (short,) = set(captions.values()), shorter
    assert f"corpus, {long:g}, recurrent models included, but {short:g} in the shorter" in said("dropout")
    assert said("dropout", "paper").startswith(f"{printed_model(ROWS['base']).dropout:g} in the base model")
    (longest,) = {c.corpus.max_length for e in EXPERIMENTS if e.task != "lengths" for c in e.configs.values()}
    assert f"more than {longest} tokens on a side" in said("long_sentences")
    entries = FACTS.recipe["tokenisation"]["entries"]
    assert said("word_pieces", "paper") == f"word pieces, {entries['en_fr']:,}"
    for pair, n_entries in entries.items():
        assert config_of(f"wmt14_{pair}/base", "paper").corpus.vocab_size == n_entries
        assert str(n_entries) in FACTS.recipe["tokenisation"][pair]


def test_the_baseline_has_about_as_many_parameters_as_the_transformer():
    for profile in ("cpu", "gpu"):
        sizes = {}
        for kind in ("transformer", "gru_attention", "lstm"):
            config = BY_ID[f"captions_en_de/{kind}"].configs[profile]
            sizes[kind] = sum(p.numel() for p in on_meta(config.model, config.corpus.vocab_size).parameters())
        assert all(0.8 < size / sizes["transformer"] < 1.25 for size in sizes.values()), sizes


def test_recurrent_models_on_captions_train_at_the_rates_that_the_deviations_name():
    def schedule(kind, profile):
        training = BY_ID[f"captions_en_de/{kind}"].configs[profile].training
        return training.lr / training.warmup_steps**0.5, training.warmup_steps

    recurrent = ("gru_attention", "gru", "lstm")
    assert {schedule(kind, "cpu") for kind in recurrent} == {schedule("transformer", "cpu")}
    ((peak, warmup),) = {schedule(kind, "gpu") for kind in recurrent}
    text = " ".join(said("schedule").split())
    assert "have the Transformer's rate" in text
    assert f"At gpu theirs is {peak:.0e} after {warmup}".replace("e-0", "e-") in text


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_the_gru_without_attention_differs_in_attention_alone(profile):
    attending, plain = (BY_ID[f"captions_en_de/{kind}"].configs[profile] for kind in ("gru_attention", "gru"))
    model = replace(plain.model, attention="additive", alignment_size=attending.model.alignment_size)
    assert plain.model.attention is None and replace(plain, model=model) == attending


def test_the_captions_are_as_many_as_the_facts_say():
    try:
        text = corpora.translation.load("multi30k", "train", source="en", target="de")
    except DataError as error:
        pytest.skip(str(error))
    assert len(text) == FACTS.exact_fact("multi30k_pairs")["value"]


def test_the_paper_s_schedule_peaks_where_it_says():
    for kind, peak in FACTS.exact_fact("lr_peak")["values"].items():
        training = BY_ID[f"wmt14_en_de/{kind}"].configs["paper"].training
        rates = [learning_rate(training, step) for step in (1, 3999, 4000, 4001, training.max_steps)]
        assert rates[2] == max(rates) == pytest.approx(peak, rel=1e-4)
        assert rates[0] == pytest.approx(peak / 4000, rel=1e-3)
    assert BY_ID[f"{GRID}/big"].configs["paper"].training.max_steps == 300_000


def test_table_3_has_no_averaging_and_no_test_split():
    for experiment in EXPERIMENTS:
        if experiment.task in (SHORT_GRID, GRID):
            for config in experiment.configs.values():
                assert config.average_every is None and config.corpus.tests == ()


# --- corpora -----------------------------------------------------------------------------------------------


def test_generated_pairs_are_the_same_again_and_splits_share_nothing():
    config = tiny().corpus
    first, again = corpora.load(config), corpora.load.__wrapped__(config)
    assert first.texts == again.texts and first.checksums() == again.checksums()
    sources = [set(first.texts[use].source) for use in ("train", "validation", "test")]
    assert [len(lines) for lines in sources] == [60, 12, 10]
    assert not (sources[0] & sources[1] or sources[0] & sources[2] or sources[1] & sources[2])
    assert {"tokeniser/bpe-400", "spoken-numbers/train en-de"} <= set(first.checksums())


def test_generated_pairs_have_an_english_source():
    with pytest.raises(ValueError, match="source must be 'en' for spoken-numbers; got 'de'"):
        corpora.load(replace(tiny().corpus, source="de", target="en"))


def test_a_missing_corpus_is_named_with_the_profile_that_needs_none(monkeypatch):
    def missing(corpus, split, **languages):
        raise FileMissing(f"{corpus}/{split} is missing; get it at its address")

    monkeypatch.setattr(corpora.translation, "load", missing)
    corpora.load.cache_clear()
    with pytest.raises(DataError) as error:
        build(BY_ID["multi30k_en_de/transformer"].configs["cpu"], 0, CPU)
    assert str(error.value) == (
        "multi30k/train is missing; get it at its address (profile ci needs no corpus: its sentences are generated)"
    )


def test_a_registered_corpus_is_sampled_by_its_own_stream(monkeypatch):
    lines = tuple(f"line {i} of some {i * i} words" for i in range(40))

    def load(corpus, split, source, target):
        return ParallelText(f"{corpus}/{split}", (source, target), lines, lines)

    monkeypatch.setattr(corpora.translation, "load", load)
    config = CorpusConfig(
        name="some", source="en", target="de", vocab_size=290, n_pairs=30, n_validation=None
    )
    found = corpora.load(config).texts
    assert len(found["train"]) == 30 and set(found["train"].source) < set(lines)
    assert found["validation"].source == lines
    assert corpora.load.__wrapped__(config).texts == found


# --- the workload --------------------------------------------------------------------------------------------


def test_outcome_of_a_transformer():
    config = tiny(average_every=1, average_count=2)
    workload, found = outcome(config)
    expected = {"perplexity", "perplexity_at_the_end", "best_perplexity"}
    expected |= {f"{name}_{use}" for name in ("bleu", "exact") for use in ("validation", "test")}
    assert set(found.metrics) == expected
    assert "mean weights of the last 2 snapshots, 1 updates apart" in found.metrics["perplexity"].definition
    bleu = found.metrics["bleu_test"].definition
    assert (
        "tok:13a" in bleu
        and "beam 4, length penalty 0.6" in bleu
        and "10 pairs of spoken-numbers/test" in bleu
    )
    assert found.artifact["test_translation"].shape == (N_SAMPLES,)
    source, target = (len(found.artifact[f"attention_{side}"]) for side in ("source", "target"))
    assert found.artifact["attention_encoder"].shape == (1, 2, source, source)
    assert found.artifact["attention_cross"].shape == (1, 2, target, source)
    np.testing.assert_allclose(found.artifact["attention_decoder"].sum(-1), 1, atol=2e-3)
    assert len(pack_arrays(found.artifact)) < ARTIFACT_LIMIT
    assert set(workload.data_checksums()) == set(workload.corpus.checksums())


def test_averaging_is_what_the_final_perplexity_is_of():
    _, averaged = outcome(tiny(average_every=1, average_count=3))
    _, last = outcome(tiny())
    assert averaged.metrics["perplexity_at_the_end"].value == last.metrics["perplexity_at_the_end"].value
    assert averaged.metrics["perplexity"].value != last.metrics["perplexity"].value
    assert last.metrics["perplexity"].value == pytest.approx(last.metrics["perplexity_at_the_end"].value)


@pytest.mark.parametrize("attention", ["additive", None])
def test_outcome_of_a_recurrent_model(attention):
    model = RecurrentConfig(
        cell="lstm", attention=attention, embedding_dim=8, hidden_size=8, maxout_size=4, alignment_size=4
    )
    _, found = outcome(tiny(model=model))
    assert found.metrics["best_perplexity"].value <= found.metrics["perplexity_at_the_end"].value
    assert not [name for name in found.artifact if name.startswith("attention")]


def test_a_seed_fixes_the_run_and_another_changes_it():
    same, again, other = (outcome(tiny(), seed)[1].metrics["perplexity"].value for seed in (0, 0, 1))
    assert same == again != other


def test_a_run_depends_on_its_models_data_and_search():
    names = set(source_hashes(build))
    assert {"attn.transformer", "attn.attention", "attn.data.batching", "attn.data.spoken_numbers"} <= names
    assert f"attn.evaluation.decoding{EVALUATION}" in names
