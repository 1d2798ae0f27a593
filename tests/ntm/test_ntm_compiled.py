"""What is special about the compiled loop; `test_ntm_scan` holds its outputs and gradients to those of the plain loop."""

import subprocess
import sys
from copy import deepcopy

import numpy as np
import pytest
import torch

from attn.kernels import ntm as kernel
from attn.kernels import ntm_loops as loops
from attn.ntm import NTM, PATHS, NTMState
from tests.ntm.test_ntm import assert_one_sentence, random, small_ntm, used_state
from tests.ntm.test_ntm_scan import assert_same_gradients, gradients, parts_of, run

SINGLE = np.float32


def elementwise(name, values):
    """A compiled function of one number, for each of the values."""
    return {"exp": _exp, "log": _log, "tanh": _tanh}[name](values)


@loops.part
def _exp(values):
    return np.array([loops.exp(value) for value in values], values.dtype)


@loops.part
def _log(values):
    return np.array([loops.log(value) for value in values], values.dtype)


@loops.part
def _tanh(values):
    return np.array([loops.tanh(value) for value in values], values.dtype)


def in_place(function, values):
    changed = values.copy()
    function(changed)
    return changed


# --- Functions of one number -----------------------------------------------------------------------------


def spread(low, high, count=20_001):
    return np.concatenate([np.linspace(low, high, count), -np.geomspace(1e-30, 1, 501)]).astype(SINGLE)


@pytest.mark.parametrize(
    "name, values, ulps",
    [
        ("exp", spread(-79.9, 0), 1),
        ("log", np.geomspace(1e-37, 1e37, 40_001).astype(SINGLE), 1.5),
        ("log", np.linspace(0.5, 2, 20_001).astype(SINGLE), 1.5),
        ("tanh", spread(-12, 12), 2),
    ],
    ids=["exp", "log", "log near 1", "tanh"],
)
def test_float32_functions_are_right_to_the_last_place(name, values, ulps):
    expected = getattr(np, name)(values.astype(float))
    found = elementwise(name, values)
    assert found.dtype == SINGLE
    assert np.max(np.abs(found - expected) / np.spacing(np.abs(expected).astype(SINGLE))) < ulps


def test_the_exponential_is_zero_where_it_hardly_counts():
    found = elementwise("exp", np.array([-80.1, -88, -104, -1e4, -1e30, -np.inf], SINGLE))
    assert not found.any()


@pytest.mark.parametrize("name", ["exp", "log", "tanh"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_not_a_number_stays_so(name, dtype):
    assert np.isnan(elementwise(name, np.array([np.nan], dtype))).all()


def test_float64_functions_are_those_of_the_library():
    values = np.linspace(-30, -0.01, 101)
    np.testing.assert_allclose(elementwise("exp", values), np.exp(values), rtol=1e-15)
    np.testing.assert_allclose(elementwise("tanh", values), np.tanh(values), rtol=1e-15)
    np.testing.assert_allclose(elementwise("log", -values), np.log(-values), rtol=1e-14)


@pytest.mark.parametrize(
    "ours, theirs",
    [
        (loops.sigmoid_all, torch.sigmoid),
        (loops.tanh_all, torch.tanh),
        (loops.softplus_all, torch.nn.functional.softplus),
    ],
    ids=["sigmoid", "tanh", "softplus"],
)
def test_non_linearities_equal_those_of_torch(ours, theirs):
    values = np.array([0, -0.0, 1e-6, -1e-3, 0.62, 0.63, 19, 21, 50, 200, -5, -60, np.inf, -np.inf, np.nan])
    for dtype, rtol, atol in ((np.float32, 1e-6, 1e-30), (np.float64, 1e-14, 1e-300)):
        given = np.concatenate([values, np.linspace(-30, 30, 1001)]).astype(dtype)
        expected = theirs(torch.from_numpy(given.copy())).numpy()
        np.testing.assert_allclose(in_place(ours, given), expected, rtol=rtol, atol=atol)


# --- Products and softmax --------------------------------------------------------------------------------


@pytest.mark.parametrize("n_in", [1, 2, 3, 8, 13])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_of_every_remainder(n_in, dtype):
    draws = np.random.default_rng(0)
    x, matrix, other = (draws.normal(size=size).astype(dtype) for size in ((3, n_in), (n_in, 37), (5, 37)))
    tolerance = {
        "rtol": 1e-5 if dtype == np.float32 else 1e-13,
        "atol": 1e-6 if dtype == np.float32 else 1e-14,
    }
    out = np.ones((3, 37), dtype)
    loops.add_product(out, x, matrix)
    np.testing.assert_allclose(out, 1 + x @ matrix, **tolerance)
    out = np.ones((n_in, 5), dtype)
    loops.add_dots(out, matrix, other)
    np.testing.assert_allclose(out, 1 + matrix @ other.T, **tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-3, 1, 300, 1e30])
@pytest.mark.parametrize("size", [1, 3, 128])
def test_softmax_of_any_size(dtype, scale, size):
    values = (scale * np.random.default_rng(size).normal(size=size)).astype(dtype)
    expected = torch.softmax(torch.from_numpy(values.copy()), dim=-1).numpy()
    loops.softmax(values)
    np.testing.assert_allclose(values, expected, rtol=2e-6 if dtype == np.float32 else 1e-13, atol=1e-30)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_softmax_shows_what_is_not_finite(dtype, wrong):
    values = np.arange(40, dtype=dtype)
    values[7] = wrong
    loops.softmax(values)
    assert np.isnan(values[7])


# --- The machine -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3, 16])
@pytest.mark.parametrize("heads", [(1, 1), (2, 1), (1, 2), (8, 8)])
@pytest.mark.parametrize("controller", ["lstm", "feedforward"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_scan(batch, heads, controller, dtype):
    readers, writers = heads
    model = small_ntm(
        controller=controller,
        n_read_heads=readers,
        n_write_heads=writers,
        controller_size=21,
        n_slots=19,
        shift_range=2,
    ).to(dtype)
    inputs, state = random(batch, 4, 4, dtype=dtype), used_state(model, batch)
    state = NTMState(
        tuple(part.to(dtype) for part in state.controller), *(part.to(dtype) for part in state[1:])
    )
    leaves = dict(model.named_parameters()) | {
        f"start {name}": value.requires_grad_() for name, value in parts_of(state).items()
    }
    found, expected = (run(model, inputs, state, path) for path in ("compiled", "scan"))
    exact = {"rtol": 1e-9, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-3, "atol": 1e-4}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, **exact, msg=lambda m, n=name: f"{n}: {m}")
    found, expected = (gradients(outputs, leaves) for outputs in (found, expected))
    if dtype == torch.float64:
        assert_same_gradients(found, expected, **exact)
    for name, gradient in expected.items():
        if gradient is not None:  # a controller's learned start has none where a state is passed
            assert (found[name] - gradient).norm() < 1e-3 * gradient.norm(), name


@pytest.mark.parametrize("strength", [-60, 200], ids=["no strength", "huge strength"])
@pytest.mark.parametrize("exponent", [-60, 200], ids=["exponent 1", "huge exponent"])
@pytest.mark.parametrize("memory", [0.0, 1e-6, 1e3], ids=["empty", "nearly empty", "large"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extremes(strength, exponent, memory, dtype):
    """From one-hot weightings: all others are 0, below the floor."""
    model = small_ntm(n_slots=20).to(dtype)
    heads, n_heads = model.heads, model.heads.n_heads
    first = heads._tanh + heads._sigmoid
    with torch.no_grad():
        heads.linear.bias[first : first + n_heads] = strength
        heads.linear.bias[first + n_heads : first + 2 * n_heads] = exponent
    state = model.initial_state(2)
    state = state._replace(memory=torch.full_like(state.memory, memory).requires_grad_())
    inputs = random(2, 3, 4, dtype=dtype)
    leaves = dict(model.named_parameters()) | {"memory": state.memory}
    found, expected = (run(model, inputs, state, path) for path in ("compiled", "loop"))
    tolerance = {"rtol": 2e-3, "atol": 2e-4} if dtype == torch.float32 else {"rtol": 1e-8, "atol": 1e-10}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, **tolerance, msg=lambda m, n=name: f"{n}: {m}")
    found, expected = (gradients(outputs, leaves) for outputs in (found, expected))
    for name, gradient in expected.items():
        assert found[name].isfinite().all(), name
        if dtype == torch.float64:
            assert (found[name] - gradient).norm() <= 1e-6 * gradient.norm() + 1e-9, name


def test_the_tape_has_one_place_where_nothing_is_kept(monkeypatch):
    tapes, begin = [], kernel.Tape.begin

    def spying(*arguments, **options):
        tapes.append(begin(*arguments, **options))
        return tapes[-1]

    monkeypatch.setattr(kernel.Tape, "begin", spying)
    model, inputs = small_ntm(path="compiled"), random(2, 5, 4)
    with torch.no_grad():
        model(inputs)
    model(inputs)
    one, every = (tape.memory.untyped_storage().nbytes() for tape in tapes)
    assert every == 6 * one


def test_inputs_and_weights_may_have_any_layout():
    model, inputs = small_ntm(path="compiled"), random(4, 2, 6).transpose(0, 2)  # [6, 2, 4]
    expected = model(inputs.contiguous())[0]
    model.heads.linear.weight = torch.nn.Parameter(model.heads.linear.weight.t().contiguous().t())
    torch.testing.assert_close(model(inputs)[0], expected, rtol=1e-12, atol=1e-14)


# --- The choice of a path --------------------------------------------------------------------------------


def function_of(model):
    return model._function(model.initial_state(1))


def test_auto_is_compiled_where_it_can_be():
    assert function_of(NTM(n_inputs=2, n_outputs=1)) is kernel.run
    assert function_of(NTM(n_inputs=2, n_outputs=1).double()) is kernel.run


def test_auto_is_the_scan_elsewhere(monkeypatch):
    model = NTM(n_inputs=2, n_outputs=1)
    for other in (deepcopy(model).bfloat16(), deepcopy(model).to("meta")):
        assert function_of(other) is not kernel.run
    assert model._function(NTM(n_inputs=2, n_outputs=1).double().initial_state(1)) is not kernel.run
    monkeypatch.setattr(kernel, "has_numba", lambda: False)
    assert function_of(model) is not kernel.run


def test_compiled_is_refused_where_it_cannot_run(monkeypatch):
    model = NTM(n_inputs=2, n_outputs=1, path="compiled")
    inputs = torch.zeros(1, 2, 2)
    for other, what in (
        (deepcopy(model).bfloat16(), "torch.bfloat16 on cpu"),
        (deepcopy(model).to("meta"), "torch.float32 on meta"),
    ):
        with pytest.raises(ValueError) as error:
            other(inputs.to(other.output.weight.device))
        assert_one_sentence(
            error, "path='compiled' cannot run here", "float32 or float64 on a CPU", f"got {what}"
        )
    monkeypatch.setattr(kernel, "has_numba", lambda: False)
    with pytest.raises(ValueError) as error:
        model(inputs)
    assert_one_sentence(error, "path='compiled' cannot run here", "numba, which is not installed")


def test_an_unknown_path_is_refused():
    with pytest.raises(ValueError) as error:
        NTM(n_inputs=2, n_outputs=1, path="fused")
    assert_one_sentence(error, "path must be one of", *map(repr, PATHS), "got 'fused'")


# --- Compiling -------------------------------------------------------------------------------------------


def test_numba_is_imported_at_first_use_only():
    code = "import sys, attn, attn.ntm; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_it_compiles_without_a_folder_to_keep_the_result(monkeypatch):
    asked, njit = [], loops.njit

    def without_a_folder(*arguments, cache=False, **options):
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(*arguments, **options)

    monkeypatch.setattr(loops, "njit", without_a_folder)
    assert loops.entry(lambda x: x + 1)(1) == 2
    assert asked == [True, False]
