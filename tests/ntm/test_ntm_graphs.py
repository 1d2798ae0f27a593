"""What is special about CUDA graphs; `test_ntm_scan` holds outputs and gradients to those of the plain loop, with
`without_gpu` in the place of the recording itself. On a machine with a GPU the last tests here run the real thing.
"""

import warnings
from copy import deepcopy

import pytest
import torch

from attn.kernels import ntm_graphs
from attn.ntm import NTM
from attn.ntm_scan.scan import scan
from tests.ntm.conftest import record_nothing
from tests.ntm.test_ntm import MACHINES, assert_one_sentence, machines, random, small_ntm
from tests.ntm.test_ntm_scan import assert_same_gradients, gradients, run

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def spy_on_recording(monkeypatch):
    """A list that grows with every function that is recorded."""
    recorded = []

    def recording(function):
        recorded.append(function)
        return record_nothing(function)

    monkeypatch.setattr(ntm_graphs, "record", recording)
    return recorded


def trained_once(model, inputs):
    model(inputs)[0].square().sum().backward()


def test_each_shape_is_recorded_once_forward_and_backward(without_gpu, monkeypatch):
    recorded = spy_on_recording(monkeypatch)
    model = small_ntm(path="graph")
    for length, total in ((3, 2), (3, 2), (5, 4), (3, 4)):
        trained_once(model, random(2, length, 4))
        assert len(recorded) == total
    with torch.no_grad():
        model(random(2, 3, 4))
    assert len(recorded) == 5, "a run without gradients keeps nothing, and is another function"


def test_machines_of_other_kinds_do_not_share_a_recording(without_gpu):
    for changes in MACHINES.values():
        model, inputs = small_ntm(**changes), random(2, 4, 4)
        for name, value in run(model, inputs, None, "graph").items():
            torch.testing.assert_close(value, run(model, inputs, None, "loop")[name], rtol=1e-11, atol=1e-13)


def test_changed_weights_are_seen(without_gpu):
    model, inputs = small_ntm(path="graph"), random(2, 4, 4)
    before = model(inputs)[0]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    after = model(inputs)[0]
    model.path = "loop"
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, model(inputs)[0], rtol=1e-11, atol=1e-13)


def test_two_sequences_may_wait_for_their_backward_passes(without_gpu):
    model = small_ntm()
    first, second = random(2, 4, 4, seed=1), random(2, 4, 4, seed=2)
    leaves = dict(model.named_parameters())
    expected = [gradients(run(model, inputs, None, "loop"), leaves) for inputs in (first, second)]
    waiting = [run(model, inputs, None, "graph") for inputs in (first, second)]
    for outputs, right in reversed(list(zip(waiting, expected, strict=True))):
        assert_same_gradients(gradients(outputs, leaves), right, rtol=1e-9, atol=1e-11)


def test_results_are_not_the_places_that_the_next_run_fills(without_gpu):
    model = small_ntm(path="graph")
    logits, state = model(random(2, 4, 4, seed=1))
    kept = [part.clone() for part in (logits, state.memory, state.weights)]
    model(random(2, 4, 4, seed=2))
    assert all(torch.equal(a, b) for a, b in zip((logits, state.memory, state.weights), kept, strict=True))


def test_the_recording_not_used_for_longest_is_given_up_when_room_is_short(without_gpu, monkeypatch):
    model = small_ntm(path="graph").requires_grad_(False)
    model(random(2, 3, 4))
    (one,) = without_gpu.kept.values()
    limit = 3.5 * one.n_bytes / ntm_graphs.MEMORY_SHARE
    monkeypatch.setattr(ntm_graphs, "total_memory", lambda device: limit)
    for length in (4, 5, 3, 6):  # those of 3 and 4 to 6 steps together are above the limit
        model(random(2, length, 4))
    lengths = [key[2][0][0] for key in without_gpu.kept]
    assert sum(one.n_bytes for one in without_gpu.kept.values()) <= ntm_graphs.MEMORY_SHARE * limit
    assert lengths == [4, 5, 3, 6][-len(lengths) :]
    assert 1 < len(lengths) < 4


def test_the_last_recording_stays_however_little_room_there_is(without_gpu, monkeypatch):
    recorded = spy_on_recording(monkeypatch)
    monkeypatch.setattr(ntm_graphs, "total_memory", lambda device: 0)
    model = small_ntm(path="graph").requires_grad_(False)
    for _ in range(3):
        model(random(2, 3, 4))
    assert len(recorded) == 1


@pytest.mark.parametrize("changes", [{}, MACHINES["all"]], ids=["one head", "all"])
def test_what_cannot_be_recorded_runs_operation_by_operation_and_says_so_once(
    without_gpu, monkeypatch, changes
):
    def refuse(function):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(ntm_graphs, "record", refuse)
    model, inputs = small_ntm(**changes, path="graph"), random(2, 4, 4)
    with pytest.warns(RuntimeWarning, match="without CUDA graphs: operation not permitted"):
        found = model(inputs)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained_once(model, inputs)
    model.path = "loop"
    torch.testing.assert_close(found, model(inputs)[0], rtol=1e-11, atol=1e-13)


def test_a_replay_that_gives_other_numbers_is_not_used(without_gpu, monkeypatch):
    def forgetful(function):
        places = function()
        return lambda: places[0].add_(1), places

    monkeypatch.setattr(ntm_graphs, "record", forgetful)
    model, inputs = small_ntm(path="graph"), random(2, 4, 4)
    with pytest.warns(RuntimeWarning, match="gives other numbers"):
        found = model(inputs)[0]
    assert not without_gpu.kept
    model.path = "scan"
    assert torch.equal(found, model(inputs)[0])


def test_a_first_gradient_that_is_not_a_number_does_not_end_recording(without_gpu):
    model, inputs = small_ntm(path="graph"), random(2, 4, 4)
    (model(inputs)[0].sum() * torch.nan).backward()
    assert not without_gpu.refused and model.heads.linear.weight.grad.isnan().any()


def test_the_path_is_chosen_where_it_can_run_and_refused_elsewhere(monkeypatch):
    model = NTM(n_inputs=2, n_outputs=1, path="graph")
    with pytest.raises(ValueError) as raised:
        model(torch.zeros(1, 2, 2))
    assert_one_sentence(raised, "path='graph'", "cpu")
    on_meta = NTM(n_inputs=2, n_outputs=1).to("meta")
    assert on_meta._function(on_meta.initial_state(1)) is scan
    monkeypatch.setattr(ntm_graphs, "obstacle", lambda *tensors: None)
    assert on_meta._function(on_meta.initial_state(1)) is ntm_graphs.run


# --- On a GPU --------------------------------------------------------------------------------------------


@pytest.mark.gpu
@needs_gpu
@machines
def test_graphs_equal_the_plain_loop_on_a_gpu(changes):
    model = small_ntm(**changes).to("cuda")
    leaves = dict(model.named_parameters())
    for seed, length in enumerate((4, 7, 4, 4)):
        inputs = random(3, length, 4, seed=seed).to("cuda")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = run(model, inputs, None, "graph")
            by_graph = gradients(found, leaves)
        expected = run(model, inputs, None, "loop")
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-11, msg=name)
        assert_same_gradients(by_graph, gradients(expected, leaves), rtol=1e-8, atol=1e-10)


@pytest.mark.gpu
@needs_gpu
def test_training_by_graphs_follows_training_by_steps_on_a_gpu():
    by_graph = small_ntm(path="auto").to("cuda")
    by_step = deepcopy(by_graph)
    by_step.path = "loop"
    for model in (by_graph, by_step):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for seed in range(5):
            optimizer.zero_grad()
            trained_once(model, random(2, 5, 4, seed=seed).to("cuda"))
            optimizer.step()
    for (name, found), right in zip(by_graph.named_parameters(), by_step.parameters(), strict=True):
        torch.testing.assert_close(found, right, rtol=1e-8, atol=1e-10, msg=name)
