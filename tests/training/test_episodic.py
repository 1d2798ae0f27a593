import math

import pytest
import torch
from torch import nn

from attn.data.associative_recall import AssociativeRecallTask
from attn.data.episodic import CopyTask, Episodes
from attn.data.ngrams import NGramTask
from attn.data.priority_sort import PrioritySortTask
from attn.data.repeat_copy import RepeatCopyTask
from attn.evaluation.episodic import episode_bits
from attn.ntm import NTM, LSTMBaseline
from attn.training import TrainingConfig, generator_for, train
from attn.training.episodic import EpisodicWorkload

TASK = CopyTask(n_bits=2, min_length=1, max_length=3)


def validation():
    return [TASK.draw(4, generator_for(0, "validation", length), length) for length in (1, 2, 3)]


def ntm(dtype=torch.float32):
    torch.manual_seed(0)
    sizes = {"n_inputs": TASK.n_inputs, "n_outputs": TASK.n_outputs}
    return NTM(**sizes, controller_size=12, n_slots=6, slot_dim=4).to(dtype)


def lstm():
    torch.manual_seed(0)
    return LSTMBaseline(n_inputs=TASK.n_inputs, n_outputs=TASK.n_outputs, size=12, n_layers=2)


def workload(model=None, **changes):
    settings = {"task": TASK, "batch_size": 8, "seed": 5, "same_length": False}
    return EpisodicWorkload(model=model or ntm(), **(settings | {"validation": validation()} | changes))


def config(**changes):
    settings = {"max_steps": 40, "batch_size": 8, "optimizer": "rmsprop_graves", "lr": 3e-3, "momentum": 0.9}
    return TrainingConfig(**(settings | {"grad_clip_value": 10.0, "eval_every": 40} | changes))


def assert_same(found, expected):
    for name in Episodes._fields:
        assert torch.equal(getattr(found, name), getattr(expected, name)), name


def differ(one, other):
    return one.inputs.shape != other.inputs.shape or not torch.equal(one.inputs, other.inputs)


@pytest.mark.parametrize("same_length", [True, False])
def test_a_batch_depends_on_seed_and_step_alone(same_length):
    one, other = workload(same_length=same_length), workload(lstm(), same_length=same_length)
    later = one.batch(7, 0, 1)
    first = one.batch(1, 0, 1)
    assert_same(other.batch(1, 0, 1), first)
    assert_same(one.batch(1, 0, 1), first)
    assert_same(one.batch(7, 0, 1), later)
    assert differ(first, later)
    assert differ(workload(seed=6, same_length=same_length).batch(1, 0, 1), first)
    assert first.inputs.shape[0] == 8


def test_the_lengths_of_a_batch():
    assert workload(same_length=True).batch(1, 0, 1).lengths.unique().numel() == 1
    assert workload(same_length=False, batch_size=40).batch(1, 0, 1).lengths.unique().tolist() == [1, 2, 3]


@pytest.mark.parametrize("n_parts", [2, 4])
def test_parts_make_the_whole_batch(n_parts):
    one = workload()
    whole, parts = one.batch(3, 0, 1), [one.batch(3, part, n_parts) for part in range(n_parts)]
    for part, piece in enumerate(parts):
        assert_same(piece, Episodes(*(tensor[part::n_parts] for tensor in whole)))
    assert sum(len(piece.inputs) for piece in parts) == len(whole.inputs)


def test_the_loss_is_a_sum_of_nats_over_sequences():
    one = workload()
    batch = one.batch(1, 0, 1)
    loss = one.loss(one.model, batch)
    bits = episode_bits(one.model, [batch])
    assert (loss.weight, loss.seen) == (8, 8)
    torch.testing.assert_close(loss.total.double(), bits.sum() * torch.log(torch.tensor(2.0)).double())
    pieces = [one.loss(one.model, one.batch(1, part, 4)) for part in range(4)]
    torch.testing.assert_close(sum(piece.total for piece in pieces), loss.total)
    assert sum(piece.weight for piece in pieces) == 8


def test_evaluation_is_the_mean_over_the_fixed_validation_episodes():
    one = workload()
    found = one.evaluate(one.model)
    expected = torch.cat([episode_bits(one.model, [batch]) for batch in validation()])
    assert found.keys() == {"bits_per_sequence"}
    assert found["bits_per_sequence"] == pytest.approx(float(expected.mean()))
    assert len(expected) == 12


def test_evaluation_depends_on_no_training_setting_or_batch():
    model = ntm()
    one = workload(model)
    before = one.evaluate(model)
    one.batch(1, 0, 1)
    torch.rand(3)
    assert one.evaluate(model) == before
    assert workload(model, seed=99, batch_size=2, same_length=True).evaluate(model) == before


def test_training_does_not_depend_on_how_often_it_is_evaluated():
    losses = []
    for changes in ({"eval_every": 1}, {"eval_every": 0}):
        result = train(workload(), config(max_steps=4, **changes), seed=5)
        losses.append((result.first_losses, result.history[-1]["bits_per_sequence"]))
    assert losses[0] == losses[1]


class Undecided(nn.Module):
    """Gives every output the probability 1/2."""

    def __init__(self, n_outputs):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(()))
        self.n_outputs = n_outputs

    def forward(self, inputs):
        return self.scale * inputs.new_ones(*inputs.shape[:2], self.n_outputs), None


@pytest.mark.parametrize(
    ("task", "outputs"),
    [
        (CopyTask(min_length=5, max_length=5), 5 * 9),
        (RepeatCopyTask(min_length=2, max_length=2, min_repeats=3, max_repeats=3), (2 * 3 + 1) * 7),
        (AssociativeRecallTask(), 18),
        (NGramTask(), 200),
        (PrioritySortTask(), 16 * 8),
    ],
    ids=["copy", "repeat copy", "associative recall", "n-grams", "priority sort"],
)
def test_chance_is_one_bit_for_each_output_of_the_answer(task, outputs):
    model = Undecided(task.n_outputs)
    one = workload(model, task=task, validation=[task.sample(3, generator_for(0, "validation"))])
    assert one.evaluate(model)["bits_per_sequence"] == pytest.approx(outputs)
    pieces = [one.loss(model, one.batch(2, part, 4)) for part in range(4)]
    nats = sum(piece.total.item() for piece in pieces) / sum(piece.weight for piece in pieces)
    assert nats / math.log(2) == pytest.approx(outputs)


def test_generated_data_have_no_checksums_and_count_sequences():
    assert workload().data_checksums() == {}
    assert workload().unit == "sequences"


@pytest.mark.parametrize("make", [ntm, lstm], ids=["NTM", "LSTM"])
def test_a_few_dozen_updates_lower_the_cost(make):
    result = train(workload(make()), config(), seed=5)
    first, last = (entry["bits_per_sequence"] for entry in (result.history[0], result.history[-1]))
    assert (result.step, result.seen) == (40, 320)
    # chance is one bit for each of 3 outputs and 2 steps on average; the marker's output is learned at once
    assert first == pytest.approx(6, rel=0.15)
    assert last < 0.85 * first


def test_accumulation_gives_the_same_updates():
    models = []
    for parts in (1, 4):
        task = workload(ntm(torch.float64), task=DoubleTask(TASK))
        task.validation = [doubled(batch) for batch in task.validation]
        train(task, config(max_steps=3, eval_every=0, grad_accum_steps=parts), seed=5)
        models.append(task.model)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def doubled(episodes):
    return episodes._replace(inputs=episodes.inputs.double(), targets=episodes.targets.double())


class DoubleTask:
    """A task whose episodes are in float64."""

    def __init__(self, task):
        self.task = task

    def sample(self, *arguments, **options):
        return doubled(self.task.sample(*arguments, **options))
