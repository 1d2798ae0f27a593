from math import exp

import pytest
import torch
from torch.autograd import gradcheck

from attn.ntm import (
    INITIAL_MEMORY,
    NORM_EPS,
    NTM,
    WEIGHT_FLOOR,
    HeadOutputs,
    LSTMBaseline,
    NTMState,
    address,
    circular_shift,
    content_weights,
    interpolate,
    parameter_count,
    read,
    sharpen,
    write,
)
from attn.reproduction.facts import load_papers
from tests.ntm import reference
from tests.ntm.per_step import PerStepNTM, named_weights

DOUBLE = torch.float64
# float64 against float64: only the order of sums differs
EXACT = {"rtol": 1e-11, "atol": 1e-13}


def random(*shape, seed=0, dtype=DOUBLE):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def distribution(*shape, seed=0, dtype=DOUBLE):
    return torch.softmax(2 * random(*shape, seed=seed, dtype=dtype), dim=-1)


def filled(model, seed=0, scale=0.6):
    """The model in float64 with every parameter drawn anew, biases included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.double().parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator, dtype=DOUBLE))
    return model


def small_ntm(seed=0, **changes):
    sizes = {
        "n_inputs": 4,
        "n_outputs": 3,
        "controller_size": 5,
        "n_slots": 6,
        "slot_dim": 3,
    }
    return filled(NTM(**(sizes | changes)), seed=seed)


def assert_equal(found, expected):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=found.dtype), **EXACT)


# Every kind of machine: controllers, numbers of heads, shift ranges.
MACHINES = {
    "lstm": {},
    "two layers": {"controller_layers": 2},
    "feed-forward": {"controller": "feedforward"},
    "no shift": {"shift_range": 0},
    "wide shift": {"shift_range": 2},
    "heads": {"n_read_heads": 3, "n_write_heads": 2},
    "all": {"controller_layers": 2, "n_read_heads": 2, "n_write_heads": 3, "shift_range": 2},
    "feed-forward, heads": {
        "controller": "feedforward",
        "n_read_heads": 2,
        "n_write_heads": 2,
        "shift_range": 0,
    },
}
machines = pytest.mark.parametrize("changes", MACHINES.values(), ids=MACHINES)
paths = pytest.mark.parametrize("path", ["compiled", "graph", "scan", "loop"], indirect=True)


# --- Reading and writing, by hand ------------------------------------------------------------------------


def test_read_is_the_weighted_sum_of_the_slots():
    memory = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]])
    weights = torch.tensor([[[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]]])
    assert read(memory, weights).tolist() == [[[2.5, 3.5], [3.0, 4.0]]]


def test_write_erases_and_adds_by_weight():
    memory = torch.tensor([[[1.0, 2.0], [4.0, 8.0]]])
    written = write(
        memory,
        weights=torch.tensor([[[1.0, 0.5]]]),
        erase=torch.tensor([[[1.0, 0.5]]]),
        add=torch.tensor([[[10.0, 20.0]]]),
    )
    # slot 0: (1 - 1, 2 (1 - 0.5)) + (10, 20); slot 1, half as much: (4 (1 - 0.5), 8 (1 - 0.25)) + (5, 10)
    assert written.tolist() == [[[10.0, 21.0], [7.0, 16.0]]]
    assert memory.tolist() == [[[1.0, 2.0], [4.0, 8.0]]], "the old memory must stay"


def test_all_heads_erase_before_any_head_adds():
    memory = torch.tensor([[[8.0]]])
    weights = torch.ones(1, 2, 1)
    erase, add = torch.tensor([[[0.5], [0.75]]]), torch.tensor([[[1.0], [2.0]]])
    # 8 * 0.5 * 0.25 + 1 + 2; were the first head to add first, its 1 would be erased by the second
    assert write(memory, weights, erase, add).item() == 4.0
    assert write(memory, weights, erase.flip(1), add.flip(1)).item() == 4.0


@pytest.mark.parametrize("n_heads", [1, 2, 4])
def test_read_and_write_equal_loops(n_heads):
    memory, weights = random(2, 5, 3), distribution(2, n_heads, 5, seed=1)
    erase, add = torch.sigmoid(random(2, n_heads, 3, seed=2)), random(2, n_heads, 3, seed=3)
    reads, written = read(memory, weights), write(memory, weights, erase, add)
    for b in range(2):
        rows = memory[b].tolist()
        assert_equal(reads[b], [reference.read(rows, w) for w in weights[b].tolist()])
        heads = list(zip(weights[b].tolist(), erase[b].tolist(), add[b].tolist(), strict=True))
        assert_equal(written[b], reference.write(rows, heads))


# --- Addressing against loops ----------------------------------------------------------------------------


def test_content_weights_equal_the_loop():
    memory, key, strength = random(2, 7, 4), random(2, 3, 4, seed=1), 3 * random(2, 3, seed=2).abs()
    found = content_weights(memory, key, strength)
    for b in range(2):
        for h in range(3):
            arguments = memory[b].tolist(), key[b, h].tolist(), strength[b, h].item()
            assert_equal(found[b, h], reference.content_weights(*arguments, norm_eps=NORM_EPS))
            paper = torch.tensor(reference.content_weights(*arguments), dtype=DOUBLE)
            # NORM_EPS changes a cosine by NORM_EPS / 2 (1 / |u|^2 + 1 / |v|^2) of its value, here below 3e-6
            torch.testing.assert_close(found[b, h], paper, rtol=5e-5, atol=0)


def test_content_weights_find_the_most_similar_slot():
    memory = torch.tensor([[[3.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]], dtype=DOUBLE)
    found = content_weights(
        memory, torch.tensor([[[0.5, 0.0]]], dtype=DOUBLE), torch.tensor([[2.0]], dtype=DOUBLE)
    )
    powers = [exp(2), exp(0), exp(-2)]  # cosines 1, 0, -1, whatever the lengths
    torch.testing.assert_close(
        found[0, 0], torch.tensor(powers, dtype=DOUBLE) / sum(powers), rtol=1e-5, atol=0
    )


def test_interpolation_equals_the_loop_and_keeps_an_end():
    content, previous = distribution(2, 3, 5), distribution(2, 3, 5, seed=1)
    gate = torch.sigmoid(random(2, 3, seed=2))
    found = interpolate(content, previous, gate)
    for b in range(2):
        for h in range(3):
            arguments = content[b, h].tolist(), previous[b, h].tolist(), gate[b, h].item()
            assert_equal(found[b, h], reference.interpolate(*arguments))
    assert torch.equal(interpolate(content, previous, torch.zeros(2, 3, dtype=DOUBLE)), previous)
    assert torch.equal(interpolate(content, previous, torch.ones(2, 3, dtype=DOUBLE)), content)


@pytest.mark.parametrize(
    ("n_slots", "n_shifts"), [(1, 1), (3, 3), (4, 3), (5, 5), (7, 1), (7, 3), (7, 5), (8, 7)]
)
def test_circular_shift_equals_the_loop(n_slots, n_shifts):
    weights, shift = distribution(2, 3, n_slots), distribution(2, 3, n_shifts, seed=1)
    found = circular_shift(weights, shift)
    for b in range(2):
        for h in range(3):
            assert_equal(found[b, h], reference.circular_shift(weights[b, h].tolist(), shift[b, h].tolist()))


@pytest.mark.parametrize("offset", [-2, -1, 0, 1, 2])
def test_a_one_hot_shift_rotates_exactly(offset):
    weights = distribution(2, 3, 7)
    shift = torch.zeros(2, 3, 5, dtype=DOUBLE)
    shift[..., offset + 2] = 1
    assert torch.equal(circular_shift(weights, shift), weights.roll(offset, dims=-1))


def test_sharpening_equals_the_loop():
    weights, exponent = distribution(2, 3, 5), 1 + 4 * random(2, 3, seed=1).abs()
    weights[0, 0] = torch.tensor([0.5, 0.0, 0.5, 0.0, 0.0], dtype=DOUBLE)
    found = sharpen(weights, exponent)
    for b in range(2):
        for h in range(3):
            arguments = weights[b, h].tolist(), exponent[b, h].item()
            assert_equal(found[b, h], reference.sharpen(*arguments, floor=WEIGHT_FLOOR))
            paper = torch.tensor(reference.sharpen(*arguments), dtype=DOUBLE)
            torch.testing.assert_close(found[b, h], paper, rtol=1e-11, atol=1e-14)


def test_sharpening_by_hand():
    weights = torch.tensor([[[0.6, 0.3, 0.1]]], dtype=DOUBLE)
    expected = torch.tensor([36, 9, 1], dtype=DOUBLE) / 46
    torch.testing.assert_close(sharpen(weights, torch.tensor([[2.0]], dtype=DOUBLE))[0, 0], expected)
    torch.testing.assert_close(sharpen(weights, torch.tensor([[1.0]], dtype=DOUBLE)), weights)


def test_gate_0_with_a_one_hot_shift_rotates_the_previous_weighting():
    previous = torch.zeros(1, 1, 6, dtype=DOUBLE)
    previous[..., 5] = 1
    heads = HeadOutputs(
        key=random(1, 1, 3),
        strength=torch.full((1, 1), 5.0, dtype=DOUBLE),
        gate=torch.zeros(1, 1, dtype=DOUBLE),
        shift=torch.tensor([[[0.0, 0.0, 1.0]]], dtype=DOUBLE),
        exponent=torch.full((1, 1), 1.5, dtype=DOUBLE),
        erase=torch.zeros(1, 1, 3, dtype=DOUBLE),
        add=torch.zeros(1, 1, 3, dtype=DOUBLE),
    )
    found = address(random(1, 6, 3, seed=1), previous, heads)
    torch.testing.assert_close(found, previous.roll(1, dims=-1), rtol=0, atol=1e-15)


# --- Extremes --------------------------------------------------------------------------------------------


def one_hot(*shape, seed):
    index = torch.randint(shape[-1], (*shape[:-1], 1), generator=torch.Generator().manual_seed(seed))
    return torch.zeros(*shape).scatter_(-1, index, 1.0)


EXTREMES = {
    "ordinary": {},
    "zero memory": {"memory": 0.0},
    "zero key": {"key": 0.0},
    "zero memory and key": {"memory": 0.0, "key": 0.0},
    "tiny memory": {"memory": 1e-20},
    "large memory": {"memory": 1e4},
    "strength 1e4": {"strength": 1e4},
    "strength 0": {"strength": 0.0},
    "strength 1e4, zero memory": {"strength": 1e4, "memory": 0.0},
    "exponent 1": {"exponent": 1.0},
    "exponent 1e3": {"exponent": 1e3},
    "one-hot": {"one_hot": True},
    "one-hot, exponent 1": {"one_hot": True, "exponent": 1.0},
    "one-hot, exponent 1 + 1e-6": {"one_hot": True, "exponent": 1 + 1e-6},
    "one-hot, exponent 1e3": {"one_hot": True, "exponent": 1e3},
    "all": {"one_hot": True, "exponent": 1e3, "strength": 1e4, "memory": 0.0, "key": 0.0},
}


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE], ids=["float32", "float64"])
@pytest.mark.parametrize("case", EXTREMES.values(), ids=EXTREMES)
def test_weightings_stay_distributions_with_finite_gradients(case, dtype):
    batch, heads, slots, dim = 40, 3, 9, 4
    sharp = case.get("one_hot", False)
    arguments = {
        "memory": random(batch, slots, dim, seed=1) * case.get("memory", 1.0),
        "previous": one_hot(batch, heads, slots, seed=2)
        if sharp
        else distribution(batch, heads, slots, seed=2),
        "key": random(batch, heads, dim, seed=3) * case.get("key", 1.0),
        "strength": torch.full((batch, heads), case.get("strength", 3.0)),
        "gate": torch.zeros(batch, heads) if sharp else torch.sigmoid(9 * random(batch, heads, seed=4)),
        "shift": one_hot(batch, heads, 3, seed=5) if sharp else distribution(batch, heads, 3, seed=5),
        "exponent": torch.full((batch, heads), case.get("exponent", 2.0)),
    }
    arguments = {name: value.to(dtype).requires_grad_() for name, value in arguments.items()}
    heads_out = HeadOutputs(
        **{name: arguments[name] for name in ("key", "strength", "gate", "shift", "exponent")},
        erase=torch.empty(0),
        add=torch.empty(0),
    )
    weights = address(arguments["memory"], arguments["previous"], heads_out)
    assert weights.dtype == dtype
    assert bool((weights >= 0).all())
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    assert (weights.detach().sum(-1) - 1).abs().max() < tolerance
    (weights * random(*weights.shape, seed=6).to(dtype)).sum().backward()
    for name, value in arguments.items():
        assert bool(value.grad.isfinite().all()), f"the gradient of {name} is not finite"


@paths
def test_long_runs_of_saturated_heads_stay_finite(path):
    torch.manual_seed(0)
    sizes = {"controller_size": 8, "n_slots": 10, "slot_dim": 4, "n_read_heads": 2}
    model = NTM(n_inputs=4, n_outputs=2, **sizes, path=path)
    with torch.no_grad():
        model.heads.linear.weight.mul_(20)  # gates of 0 and 1, hard shifts, large strengths and exponents
        logits, state = model(4 * random(1, 500, 4, dtype=torch.float32))
    assert bool(logits.isfinite().all()) and bool(state.memory.isfinite().all())
    assert bool((state.weights >= 0).all())
    torch.testing.assert_close(state.weights.sum(-1), torch.ones(1, 3), rtol=0, atol=1e-5)
    model(4 * random(8, 20, 4, dtype=torch.float32))[0].sum().backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters())


# --- Gradients -------------------------------------------------------------------------------------------


def test_gradcheck_of_every_function():
    memory, key, strength = random(2, 5, 3), random(2, 3, 3, seed=1), random(2, 3, seed=2).exp()
    weights, other = distribution(2, 3, 5, seed=3), distribution(2, 3, 5, seed=4)
    gate, shift = torch.sigmoid(random(2, 3, seed=5)), distribution(2, 3, 5, seed=6)
    exponent, erase = 1 + random(2, 3, seed=7).exp(), torch.sigmoid(random(2, 3, 3, seed=8))
    add = random(2, 3, 3, seed=9)
    for function, arguments in (
        (read, (memory, weights)),
        (write, (memory, weights, erase, add)),
        (content_weights, (memory, key, strength)),
        (interpolate, (weights, other, gate)),
        (circular_shift, (weights, shift)),
        (sharpen, (weights, exponent)),
    ):
        assert gradcheck(function, [value.clone().requires_grad_() for value in arguments]), function.__name__


@paths
@pytest.mark.parametrize("name", ["two layers", "feed-forward, heads"])
def test_gradcheck_of_a_sequence(name, path):
    model = small_ntm(**MACHINES[name], controller_size=3, n_slots=5, slot_dim=2, path=path)
    names = [name for name, _ in model.named_parameters()]

    def run(inputs, *parameters):
        named = dict(zip(names, parameters, strict=True))
        logits, state = torch.func.functional_call(model, named, (inputs,))
        return logits, state.memory, state.weights

    parameters = [parameter.detach().clone().requires_grad_() for parameter in model.parameters()]
    assert gradcheck(run, (random(2, 3, 4).requires_grad_(), *parameters))


# --- The machine against the loops and the per-step version ----------------------------------------------


def as_lists(state, b):
    """Episode `b` of an `NTMState` as the reference holds it."""
    layers = [value[b].tolist() for value in state.controller]
    return {
        "controller": [list(pair) for pair in zip(layers[::2], layers[1::2], strict=True)],
        "reads": state.reads[b].tolist(),
        "weights": state.weights[b].tolist(),
        "memory": state.memory[b].tolist(),
    }


def reference_weights(model):
    return reference.from_named({name: value.tolist() for name, value in named_weights(model).items()})


def used_state(model, batch):
    """A state as in the middle of a sequence: nothing is empty, nothing equal."""
    start = model.initial_state(batch)
    return NTMState(
        controller=tuple(random(*value.shape, seed=i) for i, value in enumerate(start.controller)),
        reads=random(*start.reads.shape, seed=20),
        weights=distribution(*start.weights.shape, seed=21),
        memory=random(*start.memory.shape, seed=22),
    )


def assert_same_run(model, inputs, state, tolerance, **constants):
    logits, last, trace = model(inputs, state, trace=True)
    weights = reference_weights(model)
    for b in range(len(inputs)):
        expected, states = reference.run(weights, inputs[b].tolist(), as_lists(state, b), **constants)
        pairs = [(logits[b], expected)]
        for field in ("weights", "reads", "memory"):
            pairs.append((getattr(trace, field)[b], [step[field] for step in states]))
            pairs.append((getattr(last, field)[b], states[-1][field]))
        pairs += [
            (value[b], expected_value)
            for value, expected_value in zip(last.controller, sum(states[-1]["controller"], []), strict=True)
        ]
        for found, wanted in pairs:
            torch.testing.assert_close(found, torch.tensor(wanted, dtype=DOUBLE), **tolerance)


@machines
def test_a_step_and_a_sequence_equal_the_loops(changes):
    model = small_ntm(**changes)
    constants = {"norm_eps": NORM_EPS, "floor": WEIGHT_FLOOR}
    with torch.no_grad():
        for n_steps in (1, 6):
            inputs = random(2, n_steps, 4, seed=n_steps)
            assert_same_run(model, inputs, model.initial_state(2), {"rtol": 1e-8, "atol": 1e-12}, **constants)
            assert_same_run(model, inputs, used_state(model, 2), {"rtol": 1e-8, "atol": 1e-12}, **constants)


@machines
def test_the_added_constants_hardly_show_on_a_used_memory(changes):
    """Against the paper's equations as they stand, without NORM_EPS and WEIGHT_FLOOR."""
    model = small_ntm(**changes)
    with torch.no_grad():
        assert_same_run(model, random(2, 3, 4), used_state(model, 2), {"rtol": 0, "atol": 1e-3})


@paths
@machines
@pytest.mark.parametrize(("batch", "loop_over_batch"), [(1, False), (3, False), (3, True)])
def test_outputs_and_gradients_equal_the_per_step_version(changes, batch, loop_over_batch, path):
    model = small_ntm(**changes, path=path)
    other = PerStepNTM(model, loop_over_batch)
    inputs = random(batch, 5, 4).requires_grad_()
    logits, other_logits = model(inputs)[0], other(inputs)
    assert_equal(logits, other_logits.detach())
    direction = random(*logits.shape, seed=1)
    (input_gradient,) = torch.autograd.grad((logits * direction).sum(), inputs, retain_graph=True)
    (other_gradient,) = torch.autograd.grad((other_logits * direction).sum(), inputs, retain_graph=True)
    torch.testing.assert_close(input_gradient, other_gradient, rtol=1e-8, atol=1e-11)
    (logits * direction).sum().backward()
    (other_logits * direction).sum().backward()
    gradients = named_weights(model, of=lambda parameter: parameter.grad)
    others = {name: value.grad for name, value in other.named_parameters() if not name.endswith("bias_hh")}
    assert gradients.keys() == others.keys()
    assert sum(value.numel() for value in others.values()) == parameter_count(model)
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            gradient, others[name], rtol=1e-8, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}"
        )


# --- Sequences and state ---------------------------------------------------------------------------------


def test_the_initial_state():
    state = small_ntm(n_read_heads=2).initial_state(3)
    assert state.weights.shape == (3, 3, 6)
    assert torch.equal(state.weights, torch.tensor([1.0, 0, 0, 0, 0, 0], dtype=DOUBLE).expand(3, 3, 6))
    assert bool((state.memory == INITIAL_MEMORY).all()) and state.memory.shape == (3, 6, 3)
    assert not state.reads.any() and state.reads.shape == (3, 6)


@paths
@machines
def test_two_halves_equal_the_whole(changes, path):
    model, inputs = small_ntm(**changes, path=path), random(2, 6, 4)
    whole, last = model(inputs)
    first, state = model(inputs[:, :2])
    second, state = model(inputs[:, 2:], state)
    assert_equal(torch.cat([first, second], dim=1), whole.detach())
    for found, expected in zip((*state.controller, *state[1:]), (*last.controller, *last[1:]), strict=True):
        assert_equal(found, expected.detach())


@paths
def test_padding_at_the_end_does_not_touch_earlier_outputs(path):
    model, inputs = small_ntm(path=path), random(2, 4, 4)
    padded = torch.cat([inputs, torch.zeros(2, 3, 4, dtype=DOUBLE)], dim=1)
    noisy = torch.cat([inputs, random(2, 3, 4, seed=1)], dim=1)
    expected = model(inputs)[0]
    assert_equal(model(padded)[0][:, :4], expected.detach())
    assert_equal(model(noisy)[0][:, :4], expected.detach())
    assert not torch.equal(model(noisy)[0][:, 4:], model(padded)[0][:, 4:])


@paths
@machines
def test_each_episode_alone_equals_the_batch(changes, path):
    model, inputs = small_ntm(**changes, path=path), random(3, 5, 4)
    logits, state = model(inputs)
    for b in range(3):
        alone, alone_state = model(inputs[b : b + 1])
        assert_equal(alone[0], logits[b].detach())
        assert_equal(alone_state.memory[0], state.memory[b].detach())


@machines
def test_the_trace_equals_a_run_step_by_step(changes):
    model, inputs = small_ntm(**changes), random(2, 4, 4)
    logits, last, trace = model(inputs, trace=True)
    assert_equal(logits, model(inputs)[0].detach())
    model.path = "loop"
    assert torch.equal(logits, model(inputs)[0]), "tracing must not change the outputs"
    projected = [layer.unbind(0) for layer in model.controller.project(inputs)]
    state = model.initial_state(2)
    for step, now in enumerate(zip(*projected, strict=True)):
        _, heads, state = model.step(now, state)
        expected = {"add": heads.add, "erase": heads.erase, "gate": heads.gate}
        expected |= {"weights": state.weights, "reads": state.reads, "memory": state.memory}
        for name in trace._fields:
            assert torch.equal(getattr(trace, name)[:, step], expected[name]), name
    assert torch.equal(trace.memory[:, -1], last.memory)
    assert trace.weights.shape == (2, 4, model.heads.n_heads, 6)
    assert trace.add.shape == trace.erase.shape == (2, 4, model.heads.n_write_heads, 3)


def test_head_outputs_lie_in_their_ranges():
    model = small_ntm(n_read_heads=2, n_write_heads=2)
    heads = model.heads(10 * random(50, 5))
    assert heads.key.abs().max() <= 1 and heads.add.abs().max() <= 1
    assert heads.strength.min() > 0 and heads.exponent.min() >= 1
    for values in (heads.gate, heads.erase):
        assert values.min() >= 0 and values.max() <= 1
    torch.testing.assert_close(heads.shift.sum(-1), torch.ones(50, 4, dtype=DOUBLE))


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE], ids=["float32", "float64"])
@pytest.mark.parametrize("controller", ["lstm", "feedforward"])
def test_the_dtype_is_that_of_weights_and_inputs(controller, dtype):
    model = NTM(n_inputs=4, n_outputs=3, controller=controller, controller_size=5, n_slots=6).to(dtype)
    logits, state, trace = model(random(2, 3, 4, dtype=dtype), trace=True)
    assert {value.dtype for value in (logits, *state.controller, *state[1:], *trace)} == {dtype}
    logits, state = model(random(2, 3, 4, dtype=dtype))
    assert {value.dtype for value in (logits, *state.controller, *state[1:])} == {dtype}
    baseline = LSTMBaseline(n_inputs=4, n_outputs=3, size=5).to(dtype)
    logits, state = baseline(random(2, 3, 4, dtype=dtype))
    assert {value.dtype for value in (logits, *state)} == {dtype}


@paths
@pytest.mark.parametrize("changes", [{}, {"controller": "feedforward"}], ids=["lstm", "feed-forward"])
def test_mixed_precision_leaves_the_recurrence_alone(changes, path):
    model, inputs = small_ntm(**changes, path=path).float(), random(2, 5, 4, dtype=torch.float32)
    expected, last = model(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        logits, state = model(inputs)
        half, _ = model(inputs.bfloat16())
    assert torch.equal(logits, expected) and torch.equal(state.memory, last.memory)
    assert half.dtype == torch.float32
    logits.sum().backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters())


def test_the_device_is_that_of_the_weights():
    """The meta device holds no numbers: a tensor made elsewhere on the way would be an error."""
    inputs = torch.empty(2, 3, 4, device="meta")
    sizes = {"n_inputs": 4, "n_outputs": 3}
    models = (
        NTM(**sizes),
        NTM(**sizes, controller="feedforward"),
        NTM(**sizes, path="loop"),
        LSTMBaseline(**sizes),
    )
    for model in models:
        logits = model.to("meta")(inputs)[0]
        assert logits.device.type == "meta" and logits.shape == (2, 3, 3)
        logits.sum().backward()
        assert {parameter.grad.device.type for parameter in model.parameters()} == {"meta"}


# --- Parameter counts ------------------------------------------------------------------------------------

FACTS = load_papers()["graves2014ntm"]
CHANNELS = {
    row["task"]: {"n_inputs": row["n_in"], "n_outputs": row["n_out"]}
    for row in FACTS.exact_fact("lstm_baseline_params")["values"]
    if row["matches"]
} | {"Priority Sort": {"n_inputs": 9, "n_outputs": 8}}  # 8 bits and a priority, as the facts assume


def built(table, task, **kind):
    """The machine of a row of table 1 or 2."""
    row = next(row for row in FACTS.table(table).rows if row["task"] == task)
    n_slots, slot_dim = map(int, row["memory"].split(" x "))
    layers, _, size = row["controller_size"].rpartition(" x ")
    return NTM(
        **CHANNELS[task],
        **kind,
        controller_size=int(size),
        controller_layers=int(layers or 1),
        n_slots=n_slots,
        slot_dim=slot_dim,
        n_read_heads=row["heads"],
        n_write_heads=row["heads"],
    )


def computed(fact):
    """Task and parameter count of every row of an entry of `exact`."""
    rows = [
        (row["task"].removesuffix(" (8 bits assumed)"), row["result"])
        for row in FACTS.exact_fact(fact)["values"]
    ]
    assert len(rows) == 5
    return rows


@pytest.mark.parametrize(("task", "count"), computed("ntm_ff_params"))
def test_parameters_of_table_1(task, count):
    assert parameter_count(built("table1_ntm_ff", task, controller="feedforward")) == count


@pytest.mark.parametrize(
    ("task", "count"), [row for row in computed("ntm_lstm_params") if row[0] != "Priority Sort"]
)
def test_parameters_of_table_2(task, count):
    assert parameter_count(built("table2_ntm_lstm", task)) == count


def test_parameters_of_the_two_layer_controller():
    """Both layers see the inputs and the reads; the facts' count is for a second layer without them."""
    n_in, n_out, size, heads, dim = 9, 8, 100, 5, 20
    reads = heads * dim
    layers = 4 * size * (n_in + reads + size + 1) + 4 * size * (n_in + reads + 2 * size + 1) + 2 * 2 * size
    count = layers + n_out * (size + reads + 1) + (size + 1) * heads * (4 * dim + 12)
    assert parameter_count(built("table2_ntm_lstm", "Priority Sort")) == count
    assert dict(computed("ntm_lstm_params"))["Priority Sort"] == count - 4 * size * (n_in + reads)


MATCHED = [row for row in FACTS.exact_fact("lstm_baseline_params")["values"] if row["matches"]]


@pytest.mark.parametrize("row", MATCHED, ids=[row["task"] for row in MATCHED])
def test_parameters_of_the_baseline_are_the_printed_ones(row):
    printed = next(r for r in FACTS.table("table3_lstm").rows if r["task"] == row["task"])["parameters"]
    model = LSTMBaseline(n_inputs=row["n_in"], n_outputs=row["n_out"], size=row["H"], n_layers=3)
    assert parameter_count(model) == row["result"] == printed


@pytest.mark.parametrize("controller", ["lstm", "feedforward"])
def test_parameters_do_not_depend_on_the_number_of_slots(controller):
    counts = {
        parameter_count(NTM(n_inputs=3, n_outputs=2, controller=controller, n_slots=n)) for n in (3, 128, 256)
    }
    assert len(counts) == 1


def test_parameter_count_leaves_out_what_is_frozen():
    model = NTM(n_inputs=3, n_outputs=2, controller_size=4)
    before = parameter_count(model)
    model.output.weight.requires_grad_(False)
    assert parameter_count(model) == before - model.output.weight.numel()


# --- The baseline ----------------------------------------------------------------------------------------


def loop_lstm(model, inputs):
    """The baseline with its layers as cells in a loop over time, in torch, for the gradients."""
    ones = torch.ones(len(inputs), 1, dtype=inputs.dtype)
    state = [tuple(part.expand(len(inputs), -1) for part in layer) for layer in model.initial]
    logits = []
    for step in range(inputs.shape[1]):
        seen = torch.cat([inputs[:, step], ones], dim=1)
        below, every_layer = seen, []
        for index, layer in enumerate(model.layers):
            hidden, cell = state[index]
            gates = below @ layer.weight_ih_l0.t() + hidden @ layer.weight_hh_l0.t()
            enter, keep, candidate, out = gates.chunk(4, dim=1)
            cell = torch.sigmoid(keep) * cell + torch.sigmoid(enter) * torch.tanh(candidate)
            hidden = torch.sigmoid(out) * torch.tanh(cell)
            state[index] = hidden, cell
            every_layer.append(hidden)
            below = torch.cat([seen, hidden], dim=1)
        logits.append(torch.cat(every_layer, dim=1) @ model.output.weight.t() + model.output.bias)
    return torch.stack(logits, dim=1)


@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_the_baseline_equals_loops(n_layers):
    model = filled(LSTMBaseline(n_inputs=4, n_outputs=3, size=5, n_layers=n_layers))
    inputs = random(2, 6, 4)
    logits, state = model(inputs)
    weights = {"output": (model.output.weight.tolist(), model.output.bias.tolist()), "layers": []}
    for layer in model.layers:
        seen, bias, below = layer.weight_ih_l0.split([4, 1, layer.input_size - 5], dim=1)
        seen = torch.cat([seen, below], dim=1)  # without the column of the constant input: the bias
        gates = reference.gates_of(seen.tolist(), layer.weight_hh_l0.tolist(), bias.flatten().tolist())
        weights["layers"].append(gates)
    for b in range(2):
        expected, last = reference.lstm_with_skips(weights, inputs[b].tolist(), model.initial.tolist())
        assert_equal(logits[b], expected)
        assert_equal(torch.stack(state)[:, 0, b], sum(last, []))


@pytest.mark.parametrize("n_layers", [1, 3])
def test_gradients_of_the_baseline_equal_the_loop(n_layers):
    model = filled(LSTMBaseline(n_inputs=4, n_outputs=3, size=5, n_layers=n_layers))
    inputs = random(2, 6, 4).requires_grad_()
    direction = random(2, 6, 3, seed=1)
    found = torch.autograd.grad((model(inputs)[0] * direction).sum(), [inputs, *model.parameters()])
    expected = torch.autograd.grad(
        (loop_lstm(model, inputs) * direction).sum(), [inputs, *model.parameters()]
    )
    for name, a, b in zip(["inputs", *dict(model.named_parameters())], found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


def test_the_baseline_carries_its_state():
    model, inputs = filled(LSTMBaseline(n_inputs=4, n_outputs=3, size=5, n_layers=2)), random(2, 6, 4)
    whole, last = model(inputs)
    first, state = model(inputs[:, :2])
    second, state = model(inputs[:, 2:], state)
    assert_equal(torch.cat([first, second], dim=1), whole.detach())
    assert_equal(torch.stack(state), torch.stack(last).detach())


# --- What bad input gets ---------------------------------------------------------------------------------


def assert_one_sentence(error, *parts):
    """The message is one line that quotes every part: the argument, its value, what would be valid."""
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, f"{part!r} is missing in: {message}"


@pytest.mark.parametrize(
    "name",
    ["n_inputs", "n_outputs", "controller_size", "controller_layers", "n_slots", "slot_dim"]
    + ["n_read_heads", "n_write_heads"],
)
@pytest.mark.parametrize("value", [0, -1, 1.5, "3", None, True])
def test_sizes_must_be_whole_numbers_of_at_least_1(name, value):
    with pytest.raises(ValueError) as error:
        NTM(**({"n_inputs": 3, "n_outputs": 2} | {name: value}))
    assert_one_sentence(error, f"{name} must be", f"got {value!r}", "at least 1")


@pytest.mark.parametrize("name", ["n_inputs", "n_outputs", "size", "n_layers"])
def test_sizes_of_the_baseline_must_be_whole_numbers_of_at_least_1(name):
    with pytest.raises(ValueError) as error:
        LSTMBaseline(**({"n_inputs": 3, "n_outputs": 2} | {name: 0}))
    assert_one_sentence(error, f"{name} must be", "got 0", "at least 1")


@pytest.mark.parametrize(
    ("n_slots", "shift_range", "largest"), [(128, 64, 63), (3, 2, 1), (4, 2, 1), (1, 1, 0)]
)
def test_the_shifts_must_fit_the_memory(n_slots, shift_range, largest):
    with pytest.raises(ValueError) as error:
        NTM(n_inputs=3, n_outputs=2, n_slots=n_slots, shift_range=shift_range)
    assert_one_sentence(
        error, "shift_range", f"from 0 to {largest}", f"{n_slots} slots", f"got {shift_range}"
    )
    NTM(n_inputs=3, n_outputs=2, n_slots=n_slots, shift_range=largest)


@pytest.mark.parametrize("value", [-1, 1.0, "1", True, False])
def test_the_shift_range_must_be_a_whole_number(value):
    with pytest.raises(ValueError) as error:
        NTM(n_inputs=3, n_outputs=2, shift_range=value)
    assert_one_sentence(error, "shift_range must be a whole number from 0 to 63", f"got {value!r}")


def test_the_controller_must_be_known():
    with pytest.raises(ValueError) as error:
        NTM(n_inputs=3, n_outputs=2, controller="gru")
    assert_one_sentence(error, "controller must be 'lstm' or 'feedforward'", "got 'gru'")
    with pytest.raises(ValueError) as error:
        NTM(n_inputs=3, n_outputs=2, controller="feedforward", controller_layers=2)
    assert_one_sentence(error, "controller_layers must be 1", "'feedforward'", "got 2")


@pytest.mark.parametrize("shape", [(2, 5), (2, 5, 4), (5,), (1, 2, 5, 3)])
@pytest.mark.parametrize("model", [NTM, LSTMBaseline])
def test_inputs_must_have_the_right_shape(model, shape):
    with pytest.raises(ValueError) as error:
        model(n_inputs=3, n_outputs=2)(torch.zeros(shape))
    assert_one_sentence(error, "inputs must have shape [batch, time, 3]", f"got {list(shape)}")


@pytest.mark.parametrize("shape", [(0, 5, 3), (2, 0, 3)])
@pytest.mark.parametrize("model", [NTM, LSTMBaseline])
def test_inputs_must_not_be_empty(model, shape):
    with pytest.raises(ValueError) as error:
        model(n_inputs=3, n_outputs=2)(torch.zeros(shape))
    assert_one_sentence(
        error, "inputs must hold at least one sequence of one time step", f"got {list(shape)}"
    )


@paths
@pytest.mark.parametrize("controller", ["lstm", "feedforward"])
def test_a_state_must_be_the_machines_own(controller, path):
    model = small_ntm(controller=controller, path=path)
    state, inputs = model.initial_state(2), random(2, 3, 4)
    with pytest.raises(ValueError) as error:
        model(inputs, tuple(state))
    assert_one_sentence(error, "state must be an NTMState", "or None", "got tuple")
    for name, shape in (("reads", [2, 3]), ("weights", [2, 2, 6]), ("memory", [2, 6, 3])):
        with pytest.raises(ValueError) as error:
            model(inputs, state._replace(**{name: getattr(state, name)[:1]}))
        assert_one_sentence(error, f"tensor {name} of shape {shape}", f"got {[1, *shape[1:]]}")
        with pytest.raises(ValueError) as error:
            model(inputs, state._replace(**{name: None}))
        assert_one_sentence(error, f"tensor {name} of shape {shape}", "got NoneType")
    with pytest.raises(ValueError) as error:
        model(inputs, state._replace(controller=(*state.controller, state.reads)))
    count = len(state.controller)
    assert_one_sentence(error, f"state must have {count + 3} tensors", f"got {count + 4}")


def test_a_state_of_another_controller_is_refused():
    inputs, model = random(2, 3, 4), small_ntm(controller_layers=2)
    with pytest.raises(ValueError) as error:
        model(inputs, small_ntm().initial_state(2))
    assert_one_sentence(error, "state must have a tensor controller[2] of shape [2, 5]", "got NoneType")
    with pytest.raises(ValueError) as error:
        model(inputs, small_ntm(controller_layers=2, controller_size=7).initial_state(2))
    assert_one_sentence(error, "state must have a tensor controller[0] of shape [2, 5]", "got [2, 7]")


def test_a_state_of_the_baseline_must_be_its_own():
    model, inputs = filled(LSTMBaseline(n_inputs=4, n_outputs=3, size=5, n_layers=2)), random(2, 3, 4)
    _, state = model(inputs)
    for wrong, parts in (
        (state[0], ["a tuple of tensors or None", "got Tensor"]),
        (state[:2], ["a tensor [2] of shape [1, 2, 5]", "got NoneType"]),
        ((*state, state[0]), ["4 tensors", "got 5"]),
        ((state[0][:, :1], *state[1:]), ["a tensor [0] of shape [1, 2, 5]", "got [1, 1, 5]"]),
    ):
        with pytest.raises(ValueError) as error:
            model(inputs, wrong)
        assert_one_sentence(error, "state must", *parts)


@paths
def test_float16_is_refused(path):
    model = NTM(n_inputs=4, n_outputs=3, controller_size=5, n_slots=6, path=path).half()
    with pytest.raises(ValueError) as error:
        model(random(2, 3, 4))
    assert_one_sentence(error, "float32, float64 or bfloat16", "got torch.float16")


@pytest.mark.parametrize("path", ["auto", "graph", "scan", "loop"], indirect=True)
def test_bfloat16_works(path):
    model = NTM(n_inputs=4, n_outputs=3, controller_size=5, n_slots=6, path=path).bfloat16()
    model(random(2, 3, 4))[0].sum().backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters())


# What each function takes, by the letters of its docstring; every letter has another size.
TAKES = {
    read: dict(memory="BND", weights="BRN"),
    write: dict(memory="BND", weights="BWN", erase="BWD", add="BWD"),
    content_weights: dict(memory="BND", key="BHD", strength="BH"),
    interpolate: dict(content="BHN", previous="BHN", gate="BH"),
    circular_shift: dict(weights="BHN", shift="BHS"),
    sharpen: dict(weights="BHN", exponent="BH"),
}
SIZES = dict(B=2, R=4, W=4, H=4, N=6, D=5, S=3)
arguments = pytest.mark.parametrize(
    ("function", "name"),
    [(function, name) for function, shapes in TAKES.items() for name in shapes],
    ids=lambda value: getattr(value, "__name__", value),
)


def taken(function):
    """Arguments that the function takes, by name."""
    return {
        name: torch.ones([SIZES[letter] for letter in letters]) for name, letters in TAKES[function].items()
    }


def refused(function, values, name, *parts):
    """The message says which argument is wrong; positions and names of arguments make no difference."""
    for call in (lambda: function(**values), lambda: function(*values.values())):
        with pytest.raises(ValueError) as error:
            call()
        assert_one_sentence(error, f"{name} must be a floating-point tensor of shape [", *parts)


@arguments
def test_functions_refuse_other_shapes(function, name):
    given, shapes = taken(function), TAKES[function]
    function(**given)
    shape, before = list(given[name].shape), list(shapes)[: list(shapes).index(name)]
    for axis, letter in enumerate(shapes[name]):
        if any(letter in shapes[other] for other in before):  # else it is a later argument that does not fit
            longer = [n + (i == axis) for i, n in enumerate(shape)]
            refused(function, given | {name: torch.ones(longer)}, name, str(shape[axis]), f"got {longer}")
    refused(function, given | {name: torch.ones(shape[1:])}, name, f"got {shape[1:]}")
    refused(function, given | {name: torch.ones(1, *shape)}, name, f"got {[1, *shape]}")


@arguments
def test_functions_refuse_what_is_no_floating_point_tensor(function, name):
    given = taken(function)
    for wrong, found in (
        (given[name].tolist(), "got list"),
        (None, "got NoneType"),
        (given[name].long(), "got torch.int64"),
        (given[name] + 0j, "got torch.complex64"),
    ):
        refused(function, given | {name: wrong}, name, found)


def test_nothing_is_broadcast_in_silence():
    with pytest.raises(ValueError) as error:
        sharpen(torch.ones(2, 1, 6) / 6, torch.ones(2, 4))
    assert str(error.value) == "exponent must be a floating-point tensor of shape [2, 1]; got [2, 4]"
    with pytest.raises(ValueError) as error:
        content_weights(torch.ones(2, 6, 5), torch.ones(2, 3, 5), torch.ones(2, 1))
    assert str(error.value) == "strength must be a floating-point tensor of shape [2, 3]; got [2, 1]"
    with pytest.raises(ValueError) as error:
        read(torch.ones(6, 5), torch.ones(1, 6))
    assert (
        str(error.value)
        == "memory must be a floating-point tensor of shape [batch, slots, width]; got [6, 5]"
    )


def head_outputs():
    given = dict(key="BHD", strength="BH", gate="BH", shift="BHS", exponent="BH")
    made = {name: torch.ones([SIZES[letter] for letter in letters]) for name, letters in given.items()}
    return HeadOutputs(**made, erase=None, add=None)


@pytest.mark.parametrize("name", ["key", "strength", "gate", "shift", "exponent"])
def test_addressing_names_the_part_of_the_heads_that_does_not_fit(name):
    memory, previous, heads = torch.ones(2, 6, 5), torch.ones(2, 4, 6), head_outputs()
    address(memory, previous, heads)
    shorter = getattr(heads, name)[:, :1]
    with pytest.raises(ValueError) as error:
        address(memory, previous, heads._replace(**{name: shorter}))
    assert_one_sentence(error, f"{name} must be a floating-point tensor of shape [2, 4", "got [2, 1")
    with pytest.raises(ValueError, match="^previous must be a floating-point tensor of shape"):
        address(memory, previous[:1], heads)
    with pytest.raises(ValueError, match="^heads must be HeadOutputs; got tuple$"):
        address(memory, previous, tuple(heads))


def test_missing_and_unknown_arguments_are_python_s_to_tell():
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'weights'"):
        read(torch.ones(1, 2, 3))
    with pytest.raises(TypeError, match="unexpected keyword argument 'weight'"):
        read(torch.ones(1, 2, 3), weight=torch.ones(1, 1, 2))


def test_a_step_of_the_machine_makes_no_checks(monkeypatch):
    """They are made once a call of the machine, on the inputs and the state."""
    checked = []
    monkeypatch.setattr("attn.ntm._check_shapes", lambda *tensors: checked.append(tensors))
    model = small_ntm(path="loop")
    model(random(2, 3, 4))
    model(random(2, 3, 4), trace=True)
    assert not checked
    read(torch.ones(1, 2, 3), torch.ones(1, 1, 2))
    assert len(checked) == 1


def test_the_functions_compile_in_one_piece():
    """The checks are no break in a graph of torch.compile."""
    for function in TAKES:
        given = taken(function)
        compiled = torch.compile(function, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(**given), function(**given))


@pytest.mark.parametrize("model", [NTM, LSTMBaseline])
def test_inputs_must_be_a_tensor_of_real_numbers(model):
    made = model(n_inputs=3, n_outputs=2)
    complex_inputs = torch.zeros(1, 2, 3, dtype=torch.complex64)
    for inputs, found in (([[[0.0] * 3]], "list"), (None, "NoneType"), (complex_inputs, "torch.complex64")):
        with pytest.raises(ValueError) as error:
            made(inputs)
        assert str(error.value) == f"inputs must be a tensor of real numbers [batch, time, 3]; got {found}"


@pytest.mark.parametrize("model", [NTM, LSTMBaseline])
def test_inputs_of_any_real_type_are_taken_as_the_weights(model):
    made = model(n_inputs=3, n_outputs=2)
    bits = torch.randint(0, 2, (2, 4, 3), generator=torch.Generator().manual_seed(0))
    expected = made(bits.float())[0]
    for inputs in (bits, bits.bool(), bits.double(), bits.bfloat16()):
        found = made(inputs)[0]
        assert found.dtype == torch.float32 and torch.equal(found, expected)
    assert made.double()(bits.float())[0].dtype == torch.float64


@pytest.mark.parametrize("n_shifts", [2, 4, 7])
def test_a_shift_distribution_must_be_odd_and_fit(n_shifts):
    with pytest.raises(ValueError) as error:
        circular_shift(torch.ones(1, 1, 5) / 5, torch.ones(1, 1, n_shifts) / n_shifts)
    assert_one_sentence(error, "shift must hold an odd number", "at most the 5 slots", f"got {n_shifts}")
