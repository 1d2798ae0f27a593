"""Cross-entropy with and without smoothing, perplexity and BLEU against their definitions."""

import math

import numpy as np
import pytest
import torch

from attn.data.batching import EncodedPairs
from attn.data.tokenisation import EOS, PAD, Tokeniser
from attn.data.translation import ParallelText
from attn.evaluation.translation import bleu, exact_matches, nats_per_token, perplexity, token_nats


def example():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 7, generator=generator, dtype=torch.float64)
    return logits, torch.tensor([[4, 5, EOS], [6, EOS, PAD]])


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_smoothed_cross_entropy_is_its_sum_over_tokens_and_vocabulary(smoothing):
    logits, targets = example()
    expected = 0.0
    for row, tokens in zip(logits.log_softmax(-1).tolist(), targets.tolist(), strict=True):
        for log_probabilities, token in zip(row, tokens, strict=True):
            if token != PAD:
                wanted = [smoothing / 7 + (1 - smoothing) * (i == token) for i in range(7)]
                expected -= sum(p * q for p, q in zip(wanted, log_probabilities, strict=True))
    assert float(token_nats(logits, targets, smoothing)) == pytest.approx(expected, rel=1e-12)


def test_padding_has_no_gradient_and_what_stands_there_does_not_count():
    logits, targets = example()
    logits.requires_grad_()
    token_nats(logits, targets, 0.1).backward()
    assert not logits.grad[1, 2].any() and logits.grad[1, 1].any()


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, math.nan])
def test_smoothing_outside_its_range_is_named(smoothing):
    with pytest.raises(ValueError, match=r"smoothing must be in \[0, 1\); got"):
        token_nats(*example(), smoothing)


def test_a_model_that_knows_nothing_has_the_vocabulary_as_perplexity():
    lines = tuple(f"line {'a' * i} b" for i in range(1, 9))
    tokeniser = Tokeniser.train(lines, vocab_size=290, cache=False)
    pairs = EncodedPairs(ParallelText("lines", ("en", "de"), lines, lines), tokeniser)
    batches = [pairs.batch(np.arange(5)), pairs.batch(np.arange(5, 8))]
    cost = nats_per_token(lambda source, target: torch.zeros(*target.shape, 290), batches)
    assert perplexity(cost) == pytest.approx(290, rel=1e-5)


def test_batches_count_by_their_tokens():
    logits, targets = example()

    class Batch:
        source = target_in = None

        def __init__(self, rows):
            self.target_out, self.logits = targets[rows], logits[rows]
            self.n_target_tokens = int((self.target_out != PAD).sum())

    batches = [Batch([0]), Batch([1])]
    remaining = iter(batches)
    cost = nats_per_token(lambda source, target: next(remaining).logits, batches)
    assert cost == pytest.approx(float(token_nats(logits, targets)) / 5)
    with pytest.raises(ValueError, match="at least one target token"):
        nats_per_token(None, [])


def test_bleu_by_hand():
    """Precisions 6/7, 4/6, 3/5 and 2/4; the candidate is as long as the reference."""
    score = bleu(["the cat sat on the red mat"], ["the cat sat on the blue mat"])
    expected = 100 * math.exp(sum(map(math.log, (6 / 7, 4 / 6, 3 / 5, 2 / 4))) / 4)
    assert score.value == pytest.approx(expected)
    assert "tok:13a" in score.signature and "case:mixed" in score.signature
    assert bleu(["A b c d."], ["A b c d."]).value == pytest.approx(100)
    assert bleu(["a b c d."], ["A b c d."]).value < 100, "case counts"


def test_bleu_of_nothing_or_of_unequal_numbers_is_refused():
    for hypotheses, references in (([], []), (["a"], ["a", "b"])):
        with pytest.raises(ValueError, match="hypotheses must be as many as references, at least 1"):
            bleu(hypotheses, references)


def test_exact_matches_are_counted():
    assert exact_matches(["a b", "c", "d "], ["a b", "C", "d"]) == pytest.approx(1 / 3)
