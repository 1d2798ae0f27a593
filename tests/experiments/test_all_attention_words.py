"""Runs on words of chapter 4."""

import pytest
import torch

from attn.data.language_text import TextConfig
from attn.data.words import load_words
from attn.experiments.adaptive_span.workloads import SpanModelConfig
from attn.experiments.all_attention import words
from attn.training import train
from attn.training.config import TrainingConfig

CPU = torch.device("cpu")


def test_a_run_on_words_counts_no_ends_of_lines(word_corpus):
    line = "the cat sat on the mat and the dog sat too\n"
    word_corpus(train=40 * line, valid=8 * line, test=8 * line)
    training = TrainingConfig(max_steps=2, batch_size=16, optimizer="adam", lr=1e-2)
    config = words.WordTextConfig(
        text=TextConfig(corpus="x"), cutoffs=(3, 6), n_rows=2, block=8, training=training, evaluation_rows=2,
        model=SpanModelConfig(n_layers=1, d_model=16, n_heads=2, max_span=8, ramp_size=4, n_persistent=3),
        word_dropout=0.1,
    )  # fmt: skip
    workload = words.build_words(config, 0, CPU)
    assert workload.model.dropout.p == workload.model.vocabulary.dropout.p == 0.1
    end = load_words(config.text, None, True).words.index("<eos>")
    for segment in workload.read("valid"):
        assert torch.equal(segment.scored, segment.targets != end)
    assert workload.batch(1, 0, 1).batch.scored.all()
    result = train(workload, training, seed=0)
    found = workload.outcome(workload.model, result.history)
    assert found.metrics["valid_perplexity"].value == pytest.approx(2 ** found.metrics["valid_bits"].value)
    assert "order1_bits" in found.metrics and found.artifact["mass"].shape == (1, 2)
    for name, rows in (("valid_bits", 2), ("test_bits", 2), ("valid_bits_without_cache", 2)):
        assert found.metrics[name].unit == "bits per word"
        assert f"in {rows} rows, 8 words at a time" in found.metrics[name].definition
        assert found.metrics[name].definition.endswith("and ends of lines are not counted")
    assert found.metrics["test_perplexity"].definition == f"2 to the {found.metrics['test_bits'].definition}"


def test_many_words_keep_only_the_weight_on_vectors(word_corpus, monkeypatch):
    monkeypatch.setattr("attn.experiments.all_attention.workloads.MOST_SYMBOLS", 4)
    line = "the cat sat on the mat and the dog sat too\n"
    word_corpus(train=40 * line, valid=8 * line, test=8 * line)
    training = TrainingConfig(max_steps=1, batch_size=16, optimizer="adam", lr=1e-2)
    config = words.WordTextConfig(
        text=TextConfig(corpus="x"), cutoffs=(3, 6), n_rows=2, block=8, training=training, evaluation_rows=2,
        model=SpanModelConfig(n_layers=1, d_model=16, n_heads=2, max_span=8, ramp_size=4, n_persistent=3),
    )  # fmt: skip
    workload = words.build_words(config, 0, CPU)
    found = workload.outcome(workload.model, [])
    assert set(found.artifact) == {"spans", "mass"} and "order1_bits" not in found.metrics


def test_words_that_count_as_one_are_said(word_corpus):
    line = "the cat sat on the mat and the dog sat too\n"
    word_corpus(train=40 * line, valid=8 * line, test=8 * line)
    config = words.WordTextConfig(
        text=TextConfig(corpus="x"), cutoffs=(3,), n_rows=2, block=8, evaluation_rows=2, max_words=5,
        training=TrainingConfig(max_steps=1, batch_size=16, optimizer="adam", lr=1e-2),
        model=SpanModelConfig(n_layers=1, d_model=16, n_heads=2, max_span=8, ramp_size=4, n_persistent=3),
    )  # fmt: skip
    workload = words.build_words(config, 0, CPU)
    assert "outside a vocabulary of 5 count as one, <unk>" in workload.outcome(workload.model, []).metrics[
        "valid_perplexity"
    ].definition  # fmt: skip
