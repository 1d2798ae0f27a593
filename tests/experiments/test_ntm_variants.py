"""Machines of the variants: what they change, and that they change nothing else."""

import pytest
import torch

from attn.experiments.ntm.runs import EXPERIMENTS
from attn.experiments.ntm.variants import LearnedStart, PlainHeads
from attn.ntm import HEAD_GAIN, NTM, parameter_count

SIZES = dict(n_inputs=4, n_outputs=3, controller_size=5, n_slots=7, slot_dim=3, n_read_heads=2)
CPU = torch.device("cpu")


def made(machine, **changes):
    torch.manual_seed(0)
    return machine(**SIZES | changes).double()


def inputs():
    return torch.rand(2, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_plain_heads_start_within_xaviers_bounds_without_biases():
    plain, ours = made(PlainHeads).heads.linear, made(NTM).heads.linear
    bound = (6 / sum(plain.weight.shape)) ** 0.5
    assert 0.9 * bound < plain.weight.abs().max() <= bound
    assert not plain.bias.any() and ours.bias.any()
    torch.testing.assert_close(plain.weight * HEAD_GAIN, ours.weight)


def test_plain_heads_leave_all_else_as_it_was():
    plain, ours = made(PlainHeads).state_dict(), made(NTM).state_dict()
    changed = {name for name in ours if not torch.equal(plain[name], ours[name])}
    assert changed == {"heads.linear.weight", "heads.linear.bias"}


def test_a_learned_start_is_at_first_that_of_the_machine_to_the_focus_of_a_softmax():
    learned, ours = made(LearnedStart), made(NTM)
    for name in ("reads", "memory"):
        torch.testing.assert_close(
            getattr(learned.initial_state(2), name), getattr(ours.initial_state(2), name), rtol=1e-6, atol=0
        )
    torch.testing.assert_close(
        learned.initial_state(2).weights, ours.initial_state(2).weights, rtol=0, atol=6e-4
    )
    torch.testing.assert_close(learned(inputs())[0], ours(inputs())[0], rtol=0, atol=1e-3)


@pytest.mark.parametrize("path", ["compiled", "scan"])
def test_gradients_reach_the_learned_start_as_in_the_plain_loop(path):
    model = made(LearnedStart)
    found = []
    for way in (path, "loop"):
        model.path = way
        model.zero_grad()
        model(inputs())[0].square().sum().backward()
        found.append([model.start_memory.grad, model.start_reads.grad, model.start_weights.grad])
    for one, other in zip(*found, strict=True):
        assert one.abs().max() > 0
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_what_a_learned_start_adds_to_the_parameters():
    heads, slots, dim = 3, SIZES["n_slots"], SIZES["slot_dim"]
    added = parameter_count(made(LearnedStart)) - parameter_count(made(NTM))
    assert added == dim + 2 * dim + heads * slots


@pytest.mark.parametrize(
    "name, machine", [("copy_plain_heads", PlainHeads), ("copy_learned_start", LearnedStart), ("copy", NTM)]
)
def test_experiments_run_the_machine_that_they_name(name, machine):
    experiment = next(one for one in EXPERIMENTS if one.id == f"{name}/ntm_lstm")
    assert type(experiment.build(experiment.configs["cpu"], 0, CPU).model) is machine
