"""The baseline's alignment: kept of the sentence that Transformers keep their maps of, with the averaged weights."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from attn.experiments.transformer import corpora
from attn.experiments.transformer.alignments import AlignedWorkload, middling
from attn.experiments.transformer.corpora import CorpusConfig
from attn.experiments.transformer.runs import build, build_aligned
from attn.experiments.transformer.workloads import (
    PairsWorkload,
    RecurrentConfig,
    TransformerConfig,
    TranslationConfig,
    _maps,
)
from attn.reproduction.experiment import Outcome
from attn.reproduction.sources import EVALUATION, source_hashes
from attn.training.config import TrainingConfig

CPU = torch.device("cpu")
CORPUS = CorpusConfig(
    name="spoken-numbers", source="en", target="de", vocab_size=400, n_pairs=60, n_validation=11
)
TRAINING = TrainingConfig(max_steps=2, batch_size=300, optimizer="adam", lr=1e-3)


def config(attention):
    model = RecurrentConfig(
        cell="gru", attention=attention, embedding_dim=8, hidden_size=8, maxout_size=4, alignment_size=4
    )
    return TranslationConfig(corpus=CORPUS, model=model, training=TRAINING, average_every=1)


@pytest.fixture
def without_scores(monkeypatch):
    monkeypatch.setattr(PairsWorkload, "outcome", lambda *_: Outcome({}, {"more": np.zeros(1)}))


def outcome(attention, average):
    workload = build_aligned(config(attention), 0, CPU)
    workload.average = average
    return workload, workload.outcome(workload.model.eval(), []).artifact


class Average:
    """Weights that are all zero while they are applied."""

    def __init__(self):
        self.model = None

    def applied(self):
        return self

    def __enter__(self):
        self.kept = {name: value.clone() for name, value in self.model.state_dict().items()}
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.zero_()

    def __exit__(self, *_):
        self.model.load_state_dict(self.kept)


def test_the_alignment_is_of_the_sentence_that_a_transformer_s_maps_are_of(without_scores):
    workload, kept = outcome("additive", None)
    transformer = TransformerConfig(n_layers=1, d_model=16, d_ff=16, n_heads=2).build(400)
    theirs = _maps(transformer, workload.corpus)
    for side in ("source", "target"):
        np.testing.assert_array_equal(kept[f"attention_{side}"], theirs[f"attention_{side}"])
    assert kept["attention_cross"].shape == (1, 1, *theirs["attention_cross"].shape[2:])
    np.testing.assert_allclose(kept["attention_cross"].astype(float).sum(-1), 1, atol=2e-3)
    batch = workload.corpus.encoded["validation"].batch(
        np.array([middling(workload.corpus.encoded["validation"])])
    )
    expected = workload.model.alignments(batch.source, batch.target_in)
    np.testing.assert_allclose(kept["attention_cross"][0].astype(float), expected.numpy(), atol=1e-3)


def test_the_alignment_is_of_the_averaged_weights(without_scores):
    average = Average()
    workload = build_aligned(config("additive"), 0, CPU)
    workload.average, average.model = average, workload.model
    kept = workload.outcome(workload.model.eval(), []).artifact["attention_cross"].astype(float)
    np.testing.assert_allclose(
        kept, 1 / kept.shape[-1], atol=1e-3, err_msg="zero weights look everywhere alike"
    )
    assert "more" in workload.outcome(workload.model, []).artifact


def test_a_model_without_attention_keeps_none(without_scores):
    assert set(outcome(None, None)[1]) == {"more"}


def test_middling_is_the_first_of_the_median_length():
    lengths = np.array([[3, 9], [5, 2], [4, 5], [7, 7], [1, 1]])
    assert middling(SimpleNamespace(lengths=lengths)) == 1


def test_only_aligned_runs_depend_on_it():
    ours, theirs = source_hashes(build_aligned), source_hashes(build)
    own = "attn.experiments.transformer.runs:build"
    assert ours[f"{own}_aligned{EVALUATION}"] != theirs[f"{own}{EVALUATION}"]
    assert not any("alignments" in name for name in theirs)
    assert issubclass(AlignedWorkload, PairsWorkload) and corpora.GENERATED == "spoken-numbers"
