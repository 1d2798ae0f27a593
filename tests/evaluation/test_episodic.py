from math import exp, inf, log, log2, nan

import pytest
import torch
from torch import nn

from attn.data.episodic import CopyTask, Episodes
from attn.evaluation.episodic import answer_nats, bit_errors, episode_bits, right_ends
from attn.ntm import NTM
from attn.training.seeding import generator_for

TASK = CopyTask(n_bits=3, min_length=1, max_length=4)


def mixed(batch_size=6, stream="mixed"):
    return TASK.sample(batch_size, generator_for(0, stream), same_length=False)


class Answers(nn.Module):
    """Looks up the answer of known batches: certain (and right), or wrong at some places."""

    def __init__(self, batches, confidence=50.0, wrong=None):
        super().__init__()
        self.batches, self.confidence, self.wrong = batches, confidence, wrong

    def forward(self, inputs):
        episodes = next(b for b in self.batches if b.inputs is inputs)
        right = episodes.targets if self.wrong is None else (episodes.targets - self.wrong).abs()
        return self.confidence * (2 * right - 1), None


class Shown(nn.Module):
    """Gives the same logits whatever it is asked."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, inputs):
        return self.logits, None


def test_zero_logits_cost_one_bit_an_output():
    episodes = mixed()
    nats = answer_nats(torch.zeros_like(episodes.targets), episodes)
    torch.testing.assert_close(nats, log(2) * TASK.n_outputs * episodes.lengths)


def test_the_cost_by_hand():
    episodes = Episodes(
        inputs=torch.zeros(1, 3, 2),
        targets=torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]], dtype=torch.float64),
        scored=torch.tensor([[False, True, True]]),
        lengths=torch.tensor([2]),
    )
    # the logit of probability p is log(p / (1 - p)): here 3/4 and 1/4, then 1/2 and 1/5
    logits = torch.tensor([[[9.0, 9.0], [log(3), -log(3)], [0.0, -log(4)]]], dtype=torch.float64)
    expected = -log(3 / 4) - log(3 / 4) - log(1 / 2) - log(1 / 5)
    torch.testing.assert_close(answer_nats(logits, episodes), torch.tensor([expected], dtype=torch.float64))


def test_unscored_steps_and_padding_count_nothing():
    episodes = mixed()
    logits = torch.randn(episodes.targets.shape, generator=generator_for(0, "logits"))
    changed = torch.where(episodes.scored.unsqueeze(-1), logits, 1e3)
    assert not torch.equal(logits, changed)
    assert torch.equal(answer_nats(logits, episodes), answer_nats(changed, episodes))


@pytest.mark.parametrize("value", [inf, -inf, nan, 1e38])
def test_no_number_at_an_unscored_step_counts(value):
    """A model may overflow where nobody looks."""
    episodes = mixed()
    logits = torch.randn(episodes.targets.shape, generator=generator_for(0, "logits"))
    overflown = torch.where(episodes.scored.unsqueeze(-1), logits, value)
    assert torch.equal(answer_nats(overflown, episodes), answer_nats(logits, episodes))
    shown = Shown(overflown), Shown(logits)
    for metric in (episode_bits, bit_errors, lambda *given: right_ends(*given, 0)):
        found, expected = (metric(model, [episodes]) for model in shown)
        assert torch.equal(found, expected)


def test_a_number_that_is_none_at_a_scored_step_does_count():
    episodes = mixed()
    logits = torch.zeros_like(episodes.targets)
    logits[2, int(episodes.scored[2].nonzero()[0]), 1] = nan
    assert answer_nats(logits, episodes).isnan().tolist() == [False, False, True, False, False, False]


def test_the_gradient_reaches_scored_steps_only():
    episodes = mixed()
    logits = torch.zeros_like(episodes.targets).requires_grad_()
    answer_nats(logits, episodes).sum().backward()
    expected = (0.5 - episodes.targets) * episodes.scored.unsqueeze(-1)
    torch.testing.assert_close(logits.grad, expected)


def test_bits_of_a_perfect_predictor_are_nearly_0():
    batches = [mixed(), mixed(4, "second")]
    bits = episode_bits(Answers(batches), batches)
    assert bits.shape == (10,) and bits.dtype == torch.float64
    assert bits.min() >= 0 and bits.max() < 1e-12
    assert not bit_errors(Answers(batches), batches).any()


def test_bits_of_a_half_sure_predictor():
    """Probability 3/4 for the right value costs log2(4/3) an output."""
    batches = [mixed(), mixed(4, "second")]
    bits = episode_bits(Answers(batches, confidence=log(3)), batches)
    lengths = torch.cat([b.lengths for b in batches])
    torch.testing.assert_close(bits, log2(4 / 3) * TASK.n_outputs * lengths.double(), rtol=1e-6, atol=0)
    assert not bits.requires_grad


def test_a_sure_but_wrong_predictor_pays_its_confidence():
    batches = [mixed()]
    bits = episode_bits(Answers(batches, confidence=20.0, wrong=torch.tensor([1.0, 0.0, 0.0, 0.0])), batches)
    expected = (20 + log(1 + exp(-20))) / log(2) * batches[0].lengths.double()
    torch.testing.assert_close(bits, expected, rtol=1e-6, atol=1e-6)


def test_bit_errors_are_counted_by_episode_over_scored_steps():
    batches = [mixed(), mixed(4, "second")]
    errors = bit_errors(Answers(batches, wrong=torch.tensor([1.0, 0.0, 1.0, 0.0])), batches)
    assert errors.tolist() == [2 * length for b in batches for length in b.lengths.tolist()]
    all_wrong = bit_errors(Answers(batches, wrong=torch.ones(4)), batches)
    assert all_wrong.tolist() == [4 * length for b in batches for length in b.lengths.tolist()]


@pytest.mark.parametrize("metric", [episode_bits, bit_errors])
def test_an_episode_counts_the_same_alone_and_in_a_batch(metric):
    torch.manual_seed(0)
    model = NTM(n_inputs=TASK.n_inputs, n_outputs=TASK.n_outputs, controller_size=8, n_slots=6, slot_dim=4)
    episodes = mixed()
    together = metric(model, [episodes])
    alone = metric(model, [episodes.part(index, 6) for index in range(6)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    assert together.unique().numel() > 1


# --- Some of the outputs -----------------------------------------------------------------------------------


def test_costs_of_some_outputs_add_up_to_the_whole():
    episodes = mixed()
    logits = torch.randn(episodes.targets.shape, generator=generator_for(0, "logits"))
    whole = answer_nats(logits, episodes)
    bits, marker = (answer_nats(logits, episodes, part) for part in (slice(3), slice(3, None)))
    torch.testing.assert_close(bits + marker, whole)
    alone = answer_nats(logits[..., 1:2], episodes._replace(targets=episodes.targets[..., 1:2]))
    torch.testing.assert_close(answer_nats(logits, episodes, slice(1, 2)), alone)
    in_bits = episode_bits(Shown(logits), [episodes], slice(3))
    torch.testing.assert_close(in_bits, bits.double() / log(2), rtol=1e-6, atol=0)


def test_errors_of_some_outputs():
    batches = [mixed(), mixed(4, "second")]
    model = Answers(batches, wrong=torch.tensor([1.0, 0.0, 1.0, 1.0]))
    lengths = torch.cat([batch.lengths for batch in batches])
    for outputs, wrong in ((slice(3), 2), (slice(3, None), 1), (slice(1, 2), 0), (slice(None), 3)):
        assert bit_errors(model, batches, outputs).tolist() == (wrong * lengths).tolist()


def marked(*episodes):
    """Scored logits of one output, a row of steps for each episode; the target is 1 at the last step alone."""
    n_steps = len(episodes[0]) + 1
    logits = torch.full((len(episodes), n_steps, 2), 9.0)
    logits[:, 1:, 1] = torch.tensor(episodes)
    targets = torch.zeros(len(episodes), n_steps, 2)
    targets[:, -1, 1] = 1
    scored = torch.ones(len(episodes), n_steps, dtype=torch.bool)
    scored[:, 0] = False
    return Shown(logits), Episodes(logits, targets, scored, torch.full((len(episodes),), n_steps - 1))


def test_an_end_is_right_if_the_marker_is_right_at_every_scored_step():
    model, episodes = marked([-1.0, -0.1, 0.1], [-1.0, 0.1, 0.1], [-1.0, -1.0, -1.0], [0.1, -1.0, -1.0])
    found = right_ends(model, [episodes], 1)
    assert found.dtype == torch.bool and found.tolist() == [True, False, False, False]
    assert right_ends(model, [episodes], 0).tolist() == [False] * 4, "another output"


def test_ends_are_gathered_over_batches():
    batches = [mixed(), mixed(4, "second")]
    right = right_ends(Answers(batches), batches, 3)
    assert right.shape == (10,) and right.all()
    wrong = Answers(batches, wrong=torch.tensor([0.0, 0.0, 0.0, 1.0]))
    assert not right_ends(wrong, batches, 3).any() and right_ends(wrong, batches, 2).all()
