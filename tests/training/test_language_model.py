"""Training of language models on separate sequences."""

import math

import pytest
import torch
from torch import nn

from attn.attention import LearnedPositions, MultiHeadAttention
from attn.data.duplication import DuplicationTask
from attn.data.token_batch import TokenBatch
from attn.evaluation.language_model import scores
from attn.language_model import LanguageModel, Stack, Vocabulary
from attn.training import train
from attn.training.config import TrainingConfig
from attn.training.language_model import SequenceWorkload


class Causal(nn.Module):
    def __init__(self, d_model):
        super().__init__()
        self.attention = MultiHeadAttention(d_model=d_model, n_heads=1)

    def forward(self, inputs):
        return self.attention(inputs, is_causal=True).output


def workload(seed=0, batch_size=8):
    torch.manual_seed(seed)
    task = DuplicationTask(length=8, vocab_size=5)
    model = LanguageModel(
        vocabulary=Vocabulary(vocab_size=5, d_model=32),
        stack=Stack([[Causal(32)]], d_model=32),
        positions=LearnedPositions(d_model=32, max_len=8),
    )
    validation = task.sample(40, torch.Generator().manual_seed(9)).split(16)
    return SequenceWorkload(
        model=model, draw=task.sample, batch_size=batch_size, seed=seed, validation=validation
    )


def config(**options):
    return TrainingConfig(**{"max_steps": 60, "batch_size": 8, "optimizer": "adam", "lr": 1e-2} | options)


class Told(nn.Module):
    """Gives the right token the logit log(3) and all others 0."""

    def __init__(self, batch, n_right):
        super().__init__()
        self.logits = torch.zeros(*batch.targets.shape, 5)
        right = torch.where(
            torch.arange(len(batch.targets))[:, None] < n_right, batch.targets, (batch.targets + 1) % 5
        )
        self.logits.scatter_(-1, right.unsqueeze(-1), math.log(3))

    def forward(self, tokens):
        return self.logits, None


def test_scores_are_over_the_tokens_that_count():
    tokens, targets = torch.randint(0, 5, (2, 4, 6))
    batch = TokenBatch(tokens, targets, torch.arange(6).expand(4, -1) > 2)
    right, nats = scores(Told(batch, 3), [batch])
    assert right == 0.75
    assert nats == pytest.approx(math.log(7) - 0.75 * math.log(3), rel=1e-6)


def test_the_loss_is_the_mean_cost_of_the_tokens_that_count():
    work = workload()
    batch = work.batch(1, 0, 1)
    loss = work.loss(work.model, batch)
    logits, _ = work.model(batch.tokens)
    costs = nn.functional.cross_entropy(logits[batch.scored], batch.targets[batch.scored], reduction="sum")
    torch.testing.assert_close(loss.total, costs)
    assert (loss.weight, loss.seen) == (8 * 3, 8)


def test_pieces_make_up_the_batch():
    work = workload()
    whole = work.batch(3, 0, 1)
    pieces = [work.batch(3, part, 2).tokens for part in range(2)]
    assert torch.equal(torch.stack(pieces, dim=1).flatten(0, 1), whole.tokens)
    assert not torch.equal(work.batch(4, 0, 1).tokens, whole.tokens)


def test_it_learns_what_the_task_asks():
    work = workload()
    result = train(work, config(max_steps=150), seed=0)
    assert result.history[0]["accuracy"] < 0.5 and result.history[-1]["accuracy"] > 0.95
    assert result.history[-1]["nats_per_token"] < 0.3


def test_a_resumed_run_repeats_the_uninterrupted_one(tmp_path):
    whole = train(workload(), config(), seed=0)
    train(workload(), config(), seed=0, checkpoint_path=tmp_path / "c.safetensors", stop_after=25)
    resumed = train(workload(), config(), seed=0, checkpoint_path=tmp_path / "c.safetensors")
    assert resumed.history[-1]["nats_per_token"] == whole.history[-1]["nats_per_token"]
