"""Training on sentence pairs: what a batch and its loss are, resuming with an average, and that it learns."""

import pytest
import torch

from attn.data.batching import EncodedPairs, TrainingBatches, evaluation_batches
from attn.data.tokenisation import PAD, Tokeniser
from attn.data.translation import ParallelText
from attn.evaluation.translation import token_nats
from attn.training import train
from attn.training.averaging import WeightAverage
from attn.training.config import TrainingConfig
from attn.training.translation import TranslationWorkload
from attn.transformer import Transformer

WORDS = "one two three four five six".split()
LINES = tuple(" ".join(WORDS[(i * k) % 6] for k in range(1, 2 + i % 4)) for i in range(60))
TEXT = ParallelText("words", ("en", "de"), LINES, tuple(line.upper() for line in LINES))
TOKENISER = Tokeniser.train(TEXT.lines, vocab_size=300, cache=False)
PAIRS = EncodedPairs(TEXT, TOKENISER)


def workload(smoothing=0.1, average=False, tokens=64):
    torch.manual_seed(0)
    model = Transformer(
        vocab_size=300, d_model=16, n_heads=2, d_ff=32, n_layers=1, dropout=0.1, padding_index=PAD
    )
    return TranslationWorkload(
        model=model,
        batches=TrainingBatches(PAIRS, tokens_per_batch=tokens, seed=0, max_length=32),
        validation=list(evaluation_batches(PAIRS, tokens_per_batch=100)),
        label_smoothing=smoothing,
        average=WeightAverage(model, every=2, count=2) if average else None,
    )


def config(steps, **changes):
    settings = {"optimizer": "adam", "lr": 3e-3, "batch_size": 64, "checkpoint_every": 0} | changes
    return TrainingConfig(max_steps=steps, **settings)


def test_the_loss_is_that_of_the_model_on_the_batch_of_the_update():
    run = workload()
    run.model.eval()
    batch = run.batch(3, 0, 1)
    loss = run.loss(run.model, batch)
    expected = token_nats(run.model(batch.source, batch.target_in), batch.target_out, 0.1)
    assert torch.equal(loss.total, expected)
    assert loss.weight == loss.seen == int((batch.target_out != PAD).sum())
    assert torch.equal(batch.source, run.batches.at(3).source)


def test_the_pieces_of_an_update_add_up_to_it():
    run = workload()
    run.model.eval()
    whole = run.loss(run.model, run.batch(2, 0, 1))
    pieces = [run.loss(run.model, run.batch(2, part, 2)) for part in range(2)]
    assert sum(piece.weight for piece in pieces) == whole.weight
    torch.testing.assert_close(sum(piece.total for piece in pieces), whole.total, rtol=1e-5, atol=1e-4)


def test_evaluation_has_no_smoothing():
    plain, smoothed = workload(0.0), workload(0.5)
    for run in (plain, smoothed):
        run.model.eval()
    with torch.no_grad():
        assert plain.evaluate(plain.model) == smoothed.evaluate(smoothed.model)


def test_a_resumed_run_averages_as_the_whole_one(tmp_path):
    whole, broken, resumed = (workload(average=True) for _ in range(3))
    train(whole, config(6), seed=1)
    path = tmp_path / "run.safetensors"
    train(broken, config(6), seed=1, checkpoint_path=path, stop_after=5)
    train(resumed, config(6), seed=1, checkpoint_path=path)
    with whole.average.applied(), resumed.average.applied():
        for expected, found in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
            assert torch.equal(expected, found)
    assert len(resumed.average.snapshots) == 2


def test_a_run_without_an_average_resumes_too(tmp_path):
    path = tmp_path / "run.safetensors"
    first, second = workload(), workload()
    train(first, config(2), seed=1, checkpoint_path=path, stop_after=1)
    assert train(second, config(2), seed=1, checkpoint_path=path).step == 2


def test_it_learns():
    run = workload(smoothing=0.0, tokens=400)
    history = train(run, config(80, lr=1e-2, batch_size=400), seed=0).history
    assert history[-1]["perplexity"] < 0.05 * history[0]["perplexity"]
    assert history[0]["perplexity"] == pytest.approx(300, rel=0.9)
