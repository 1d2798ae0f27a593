"""The hand-written backward pass, as torch operations and compiled, against autograd over the plain loop: outputs, final
states and all gradients."""

import pytest
import torch
from torch.autograd import gradcheck

from attn.ntm import NTM, PATHS, NTMState
from attn.ntm_scan.addressing import Location
from attn.ntm_scan.scan import LARGEST_GRADIENT, scan_forward
from attn.ntm_scan.sequence import rows
from tests.ntm.test_ntm import MACHINES, machines, random, small_ntm, used_state

N_STEPS = 5
fast_paths = pytest.mark.parametrize("path", ["scan", "compiled", "graph"], indirect=True)


def parts_of(state):
    """The tensors of a state by name."""
    named = {f"controller {index}": value for index, value in enumerate(state.controller)}
    return named | {name: getattr(state, name) for name in NTMState._fields[1:]}


def run(model, inputs, state, path):
    """Logits and final state by name."""
    model.path = path
    logits, last = model(inputs, state)
    return {"logits": logits} | parts_of(last)


def gradients(outputs, leaves):
    """Of a loss that takes every number of every output, each in a direction of its own."""
    loss = sum(
        (value * random(*value.shape, seed=30 + i).to(value)).sum()
        for i, value in enumerate(outputs.values())
    )
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return dict(zip(leaves, found, strict=True))


def assert_same_gradients(found, expected, **tolerance):
    for name, gradient in expected.items():
        if gradient is None:
            assert found[name] is None or not found[name].any(), f"{name} has a gradient"
        else:
            assert found[name] is not None, f"{name} has no gradient"
            torch.testing.assert_close(found[name], gradient, **tolerance, msg=lambda m, n=name: f"{n}: {m}")


@fast_paths
@machines
@pytest.mark.parametrize("passed", [False, True], ids=["own start", "passed state"])
@pytest.mark.parametrize("used", ["logits", "state", "both"])
@pytest.mark.parametrize("n_steps", [1, N_STEPS])
def test_outputs_and_gradients_equal_those_of_the_plain_loop(changes, passed, used, n_steps, path):
    model, inputs = small_ntm(**changes), random(3, n_steps, 4).requires_grad_()
    leaves = {"inputs": inputs} | dict(model.named_parameters())
    state = None
    if passed:
        state = used_state(model, 3)
        leaves |= {f"start {name}": value.requires_grad_() for name, value in parts_of(state).items()}
    found, expected = (run(model, inputs, state, way) for way in (path, "loop"))
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-11, atol=1e-13, msg=lambda m, n=name: f"{n}: {m}"
        )
    found, expected = (
        gradients(
            {n: v for n, v in outputs.items() if used == "both" or (n == "logits") == (used == "logits")},
            leaves,
        )
        for outputs in (found, expected)
    )
    assert_same_gradients(found, expected, rtol=1e-8, atol=1e-11)


@fast_paths
@pytest.mark.parametrize("part", ["reads", "weights", "memory", "controller 0", "controller 3"])
def test_a_loss_of_one_part_of_the_final_state(part, path):
    model, inputs = small_ntm(**MACHINES["all"]), random(2, N_STEPS, 4)
    leaves = dict(model.named_parameters())
    found, expected = (
        gradients({part: run(model, inputs, None, way)[part]}, leaves) for way in (path, "loop")
    )
    assert_same_gradients(found, expected, rtol=1e-8, atol=1e-11)


@fast_paths
@pytest.mark.parametrize("name", ["two layers", "feed-forward, heads"])
def test_gradcheck_from_a_passed_state(name, path):
    model = small_ntm(**MACHINES[name], controller_size=2, n_slots=3, slot_dim=2, path=path)
    state = used_state(model, 1)
    names = list(parts_of(state))

    def run_from(inputs, *parts):
        named = dict(zip(names, parts, strict=True))
        controller = tuple(value for name, value in named.items() if name.startswith("controller"))
        logits, last = model(inputs, NTMState(controller, named["reads"], named["weights"], named["memory"]))
        return logits, *parts_of(last).values()

    parts = [value.requires_grad_() for value in parts_of(state).values()]
    assert gradcheck(run_from, (random(1, 2, 4).requires_grad_(), *parts))


@fast_paths
def test_one_slot_one_value_one_sequence(path):
    """Sizes of 1, where a transposed copy could turn out to be the tensor itself."""
    model = small_ntm(n_slots=1, slot_dim=1, shift_range=0, controller_size=1)
    inputs, state = random(1, 3, 4), used_state(model, 1)
    kept = [value.clone() for value in parts_of(state).values()]
    leaves = dict(model.named_parameters())
    found, expected = (gradients(run(model, inputs, state, way), leaves) for way in (path, "loop"))
    assert_same_gradients(found, expected, rtol=1e-8, atol=1e-11)
    assert all(torch.equal(a, b) for a, b in zip(kept, parts_of(state).values(), strict=True))


@fast_paths
def test_saturated_heads_have_the_gradients_of_the_plain_loop(path):
    """Weights at the floor under the logarithm, softplus in its linear part, gates of 0 and 1."""
    model, inputs = small_ntm(n_read_heads=2, n_slots=12), 4 * random(3, 8, 4)
    with torch.no_grad():
        model.heads.linear.weight.mul_(30)
    leaves = dict(model.named_parameters())
    found, expected = (gradients(run(model, inputs, None, way), leaves) for way in (path, "loop"))
    assert_same_gradients(found, expected, rtol=1e-6, atol=1e-9)


@fast_paths
def test_a_weight_under_the_floor_has_no_gradient(path):
    """Gates of 0 hand a one-hot weighting on; with an exponent of 1 a slot at the floor would weigh in if it counted."""
    model, inputs = small_ntm(shift_range=0), random(2, 3, 4)
    heads, n_heads = model.heads, model.heads.n_heads
    exponents = heads._tanh + heads._sigmoid + n_heads
    with torch.no_grad():
        heads.linear.bias[heads._tanh : heads._tanh + n_heads] = -60
        heads.linear.bias[exponents : exponents + n_heads] = -60
    state = model.initial_state(2)
    leaves = {"weights": state.weights.requires_grad_()}
    found, expected = (gradients(run(model, inputs, state, way), leaves) for way in (path, "loop"))
    assert not expected["weights"][..., 1:].any() and expected["weights"].isfinite().all()
    assert_same_gradients(found, expected, rtol=1e-8, atol=1e-11)


@fast_paths
@pytest.mark.parametrize("changes", [{}, {"controller_layers": 2, "n_read_heads": 2, "n_write_heads": 2}])
def test_float32_over_a_long_sequence(changes, path):
    torch.manual_seed(0)
    model = NTM(n_inputs=4, n_outputs=3, controller_size=20, n_slots=16, slot_dim=6, **changes)
    inputs, leaves = random(1, 200, 4, dtype=torch.float32), dict(model.named_parameters())
    found, expected = (run(model, inputs, None, way) for way in (path, "loop"))
    torch.testing.assert_close(found["logits"], expected["logits"], rtol=1e-4, atol=1e-5)
    found, expected = (gradients({"logits": outputs["logits"]}, leaves) for outputs in (found, expected))
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() < 1e-3 * gradient.norm(), name


@fast_paths
def test_gradients_that_overflow_on_their_way_keep_sign_and_size(path):
    """Gradients are linear in the loss, which is scaled here so that float32 cannot hold what lies between."""
    model, inputs = small_ntm().float(), random(2, 60, 4, dtype=torch.float32)
    scale, leaves = 1e38, [model.heads.linear.bias]

    def gradient(way, factor):
        loss = run(model, inputs, None, way)["logits"].sum() * factor
        return torch.autograd.grad(loss, leaves)[0].double()

    assert not gradient("loop", scale).isfinite().all()
    expected = gradient(path, 1.0) * scale
    assert (expected.abs() > LARGEST_GRADIENT).any()
    torch.testing.assert_close(
        gradient(path, scale), expected.clamp(-LARGEST_GRADIENT, LARGEST_GRADIENT), rtol=1e-3, atol=0
    )


@fast_paths
@machines
def test_the_wider_backward_pass_gives_the_same_gradients(changes, monkeypatch, path):
    model, inputs = small_ntm(**changes).float(), random(2, N_STEPS, 4, dtype=torch.float32)
    leaves = dict(model.named_parameters())
    expected = gradients(run(model, inputs, None, path), leaves)
    monkeypatch.setattr("attn.ntm_scan.scan.all_finite", lambda tensors: False)
    found = gradients(run(model, inputs, None, path), leaves)
    assert_same_gradients(found, expected, rtol=1e-4, atol=1e-5)


@fast_paths
def test_a_loss_that_is_not_a_number_still_shows_in_the_gradient(path):
    model, inputs = small_ntm(path=path).float(), random(2, N_STEPS, 4, dtype=torch.float32)
    (model(inputs)[0].sum() * torch.nan).backward()
    assert model.heads.linear.weight.grad.isnan().any()


@fast_paths
@machines
def test_without_gradients_the_numbers_are_the_same_and_nothing_is_kept(changes, path):
    model, inputs = small_ntm(**changes), random(2, N_STEPS, 4)
    with torch.no_grad():
        found = run(model, inputs, None, path)
    for name, value in run(model, inputs, None, path).items():
        assert torch.equal(found[name], value), name
        assert found[name].grad_fn is None and (value.grad_fn is not None), name


def test_the_tape_has_one_place_where_nothing_is_kept(monkeypatch):
    tapes = []

    def spying(*arguments, **options):
        outputs, controller, tape = scan_forward(*arguments, **options)
        tapes.append(tape)
        return outputs, controller, tape

    monkeypatch.setattr("attn.ntm_scan.scan.scan_forward", spying)
    model, inputs = small_ntm(path="scan"), random(2, N_STEPS, 4)
    with torch.no_grad():
        model(inputs)
    model(inputs)
    one, every = (tape.memory.untyped_storage().nbytes() for tape in tapes)
    assert every == (N_STEPS + 1) * one


@fast_paths
def test_frozen_weights_get_no_gradient_and_the_inputs_still_do(path):
    model, inputs = small_ntm(path=path), random(2, N_STEPS, 4).requires_grad_()
    (expected,) = torch.autograd.grad(model(inputs)[0].sum(), inputs)
    model.requires_grad_(False)
    model(inputs)[0].sum().backward()
    torch.testing.assert_close(inputs.grad, expected, rtol=1e-11, atol=1e-13)
    assert all(parameter.grad is None for parameter in model.parameters())


@fast_paths
def test_a_graph_can_be_kept_and_used_twice(path):
    model = small_ntm(**MACHINES["all"])
    outputs, leaves = run(model, random(2, N_STEPS, 4), None, path), dict(model.named_parameters())
    loss = sum(value.sum() for value in outputs.values())
    first = torch.autograd.grad(loss, list(leaves.values()), retain_graph=True)
    second = torch.autograd.grad(loss, list(leaves.values()))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@fast_paths
def test_changing_the_outputs_in_place_does_not_change_the_gradients(path):
    model, inputs = small_ntm(path=path), random(2, N_STEPS, 4)
    leaves = list(model.parameters())
    expected = torch.autograd.grad(model(inputs)[0].sum(), leaves)
    logits, state = model(inputs)
    with torch.no_grad():
        for value in parts_of(state).values():
            value.fill_(7.0)
    found = torch.autograd.grad(logits.sum(), leaves)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@fast_paths
def test_changing_a_weight_before_the_backward_pass_is_an_error(path):
    model = small_ntm(path=path)
    loss = model(random(2, N_STEPS, 4))[0].sum()
    with torch.no_grad():
        model.heads.linear.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@fast_paths
def test_second_derivatives_are_refused_and_the_plain_loop_has_them(path):
    model, inputs = small_ntm(path=path), random(1, 2, 4).requires_grad_()
    (gradient,) = torch.autograd.grad(model(inputs)[0].square().sum(), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.square().sum().backward()
    model.path = "loop"
    (gradient,) = torch.autograd.grad(model(inputs)[0].square().sum(), inputs, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), inputs)
    assert bool(second.any())


def test_the_path_changes_neither_the_parameters_nor_the_random_draws():
    draws = []
    for path in PATHS:
        torch.manual_seed(0)
        model = NTM(n_inputs=3, n_outputs=2, path=path)
        draws.append((model.state_dict(), torch.rand(3)))
    (one, after_one), *others = draws
    for other, after_other in others:
        assert list(one) == list(other) and torch.equal(after_one, after_other)
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_rows_are_views_under_the_names_of_the_sequence():
    sequence = Location(shifted=random(3, 2), log=random(3, 4, seed=1))
    steps = rows(sequence)
    assert len(steps) == 3 and torch.equal(steps[1].log, sequence.log[1])
    steps[2].shifted.zero_()
    assert not sequence.shifted[2].any()
