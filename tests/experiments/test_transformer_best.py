"""A translation run is scored at its best evaluation, too, and a killed one forgets nothing of it."""

from dataclasses import replace

import pytest
import torch

from attn.experiments.transformer.best import BestWorkload
from attn.experiments.transformer.corpora import CorpusConfig
from attn.experiments.transformer.runs import EXPERIMENTS, GRID, build, build_best
from attn.experiments.transformer.workloads import PairsWorkload, TransformerConfig, TranslationConfig
from attn.reproduction.sources import EVALUATION, source_hashes
from attn.training import train
from attn.training.config import TrainingConfig

CPU = torch.device("cpu")
CONFIG = TranslationConfig(
    corpus=CorpusConfig(name="spoken-numbers", source="en", target="de", vocab_size=400, n_pairs=60, n_validation=12),
    model=TransformerConfig(n_layers=1, d_model=16, d_ff=16, n_heads=2),
    training=TrainingConfig(max_steps=8, batch_size=300, optimizer="adam", lr=1e-3, eval_every=2, checkpoint_every=0),
)  # fmt: skip


def weights_of(model):
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def scripted(monkeypatch):
    """A function that makes the perplexities of successive evaluations what they are given as."""

    def scripted(*values):
        told = iter(values)
        monkeypatch.setattr(PairsWorkload, "evaluate", lambda *_: {"perplexity": next(told)})

    return scripted


def test_the_weights_kept_are_those_of_the_lowest_perplexity(scripted):
    scripted(9.0, 5.0, 7.0, 5.0)
    workload = BestWorkload(CONFIG, 0, CPU)
    seen = []
    for _ in range(4):
        with torch.no_grad():
            for weight in workload.model.parameters():
                weight.add_(1.0)
        workload.evaluate(workload.model)
        seen.append(weights_of(workload.model))
    with workload.best.applied():
        assert same(weights_of(workload.model), seen[1]), "the second, and of equals the first"
    assert same(weights_of(workload.model), seen[3]) and workload.least == 5.0


def test_the_outcome_has_both_scores_and_leaves_the_model_as_it_was(scripted, monkeypatch):
    scripted(9.0, 3.0, 4.0, 6.0, 8.0)
    workload = build_best(CONFIG, 0, CPU)
    result = train(workload, CONFIG.training, seed=0)
    last, scored = weights_of(workload.model), []
    score = PairsWorkload._score
    monkeypatch.setattr(
        PairsWorkload,
        "_score",
        lambda self, model, use: scored.append(weights_of(model)) or score(self, model, use),
    )
    found = workload.outcome(workload.model, result.history)
    assert same(scored[0], last) and not same(scored[1], last) and len(scored) == 2
    assert same(weights_of(workload.model), last)
    plain = build(CONFIG, 0, CPU)
    train(plain, CONFIG.training, seed=0, evaluate=False)
    expected = set(plain.outcome(plain.model, result.history).metrics)
    assert set(found.metrics) == expected | {"bleu_validation_at_best", "exact_validation_at_best"}
    assert "weights after the last update" in found.metrics["bleu_validation"].definition
    assert "lowest validation perplexity, 3;" in found.metrics["bleu_validation_at_best"].definition


def test_a_run_that_is_killed_keeps_its_best_weights(tmp_path, scripted):
    values = (9.0, 3.0, 4.0, 6.0, 8.0)
    scripted(*values)
    whole = build_best(CONFIG, 0, CPU)
    train(whole, CONFIG.training, seed=0)
    scripted(*values)
    path = tmp_path / "run.safetensors"
    train(build_best(CONFIG, 0, CPU), CONFIG.training, seed=0, checkpoint_path=path, stop_after=5)
    resumed = build_best(CONFIG, 0, CPU)
    train(resumed, CONFIG.training, seed=0, checkpoint_path=path)
    assert resumed.least == whole.least == 3.0
    assert same(resumed.best.snapshots[0], whole.best.snapshots[0])


def test_the_grid_of_table_3_is_scored_so_and_so_is_its_variant():
    assert {e.task for e in EXPERIMENTS if e.build is build_best} == {GRID, "table3_pre_norm"}
    own = f"{build_best.__module__}:{build_best.__name__}"
    assert own in source_hashes(build_best) and own + EVALUATION in source_hashes(build_best)


def test_training_is_that_of_every_other_run():
    losses = [train(b(CONFIG, 0, CPU), CONFIG.training, seed=0).first_losses for b in (build, build_best)]
    assert losses[0] == losses[1]
    averaged = build_best(replace(CONFIG, average_every=2, average_count=2), 0, CPU)
    train(averaged, CONFIG.training, seed=0)
    assert {"snapshots", "least", "best"} == set(averaged.state_dict())
