"""The text of facts that chapter 4's live check trains on."""

from collections import Counter
from math import log2

import pytest
import torch

from attn.data.language_text import TextConfig
from attn.experiments.adaptive_span.workloads import SpanModelConfig
from attn.experiments.all_attention import CHAPTER
from attn.experiments.all_attention.facts import FactsConfig, build_facts, facts_text
from attn.experiments.all_attention.live import BANDS, optimum_words
from attn.reproduction.sources import source_hashes
from attn.training import train
from attn.training.config import TrainingConfig


def tiny(corpus="generated"):
    return FactsConfig(
        text=TextConfig(corpus=corpus, train_size=900, valid_size=600, test_size=301),
        model=SpanModelConfig(n_layers=1, d_model=8, n_heads=2, max_span=16, ramp_size=4, n_persistent=5),
        training=TrainingConfig(max_steps=2, batch_size=32, optimizer="adam", lr=1e-2),
        n_rows=2, block=16, evaluation_rows=2, n_facts=12, key_len=2, n_key_tokens=4, n_values=8,
    )  # fmt: skip


def test_a_text_is_a_list_of_the_table_s_facts():
    config = tiny()
    source, text = config.source, facts_text(config.source, config.text)
    table = {
        tuple(key.tolist()): value.tolist() for key, value in zip(source.keys, source.values, strict=True)
    }
    assert {split: len(tokens) for split, tokens in text.splits.items()} == {
        "train": 900,
        "valid": 600,
        "test": 301,
    }
    for tokens in text.splits.values():
        facts = tokens[: len(tokens) // 3 * 3].view(-1, 3).tolist()
        assert all(table[first, second] == [value] for first, second, value in facts)
    assert not torch.equal(text.splits["train"][:600], text.splits["valid"])
    assert text.vocab_size == 12


def test_the_least_cost_is_that_of_the_draws():
    """A model that knows the table pays for which fact comes next alone."""
    config = tiny()
    draws = Counter(map(tuple, facts_text(config.source, config.text).splits["train"].view(-1, 3).tolist()))
    assert len(draws) == config.n_facts and config.least_bits == pytest.approx(log2(12) / 3)
    assert config.unknown_bits - config.least_bits == pytest.approx(log2(8) / 3)


def test_a_run_on_facts_keeps_the_use_of_vectors():
    run = build_facts(tiny(), 0, torch.device("cpu"))
    found = run.outcome(run.model, train(run, run.config.training, seed=0).history)
    assert found.metrics["valid_bits"].value > 0 and found.artifact["mass"].shape == (1, 2)
    assert {"attn.data.key_value_facts", "attn.all_attention"} <= set(source_hashes(build_facts))


def test_another_corpus_is_named():
    with pytest.raises(ValueError, match="text.corpus must be 'generated'; got 'novels'"):
        tiny("novels")


def test_bands_of_facts_lie_between_the_optimum_and_what_nobody_stored():
    config = CHAPTER.experiment("facts/all").config("ci")
    levels = {band.level for band in BANDS if band.experiment.startswith("facts/")}
    assert len(levels) == 1 and config.least_bits < levels.pop() < config.unknown_bits
    assert {e.id for e in CHAPTER.experiments if e.task == "facts"} == {"facts/all", "facts/ff", "facts/none"}
    said = optimum_words()
    assert f"{config.least_bits:.3f} on facts" in said and "128 symbols in sight" in said
