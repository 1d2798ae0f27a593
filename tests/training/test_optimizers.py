from math import sqrt

import pytest
import torch
from torch import nn

from attn.training import TrainingConfig
from attn.training.optimizers import (
    GravesRMSprop,
    build_optimizers,
    clip_gradients,
    dense_gradients,
    scale_gradients,
)
from attn.training.schedules import learning_rate
from attn.training.sparse_optimizer import RowAdam

STEPS = 6


def config(**settings):
    return TrainingConfig(**({"max_steps": 10, "batch_size": 1, "optimizer": "sgd", "lr": 0.1} | settings))


def gradient(step, index):
    """A smooth non-trivial gradient."""
    return torch.sin(torch.tensor(1.7 * step + 0.9 * index, dtype=torch.float64)).item()


# One weight, in plain Python: `state` is a dict of floats that starts empty; the answer is the new weight.
def graves(w, g, state, t, lr, decay=0.95, momentum=0.9, eps=1e-4):
    state["n"] = decay * state.get("n", 0.0) + (1 - decay) * g * g
    state["m"] = decay * state.get("m", 0.0) + (1 - decay) * g
    state["d"] = momentum * state.get("d", 0.0) - lr * g / sqrt(state["n"] - state["m"] ** 2 + eps)
    return w + state["d"]


def rmsprop(w, g, state, t, lr, decay=0.95, momentum=0.9, eps=1e-8):
    state["n"] = decay * state.get("n", 0.0) + (1 - decay) * g * g
    state["d"] = momentum * state.get("d", 0.0) + g / (sqrt(state["n"]) + eps)
    return w - lr * state["d"]


def adam(w, g, state, t, lr, beta1=0.9, beta2=0.98, eps=1e-9):
    state["m"] = beta1 * state.get("m", 0.0) + (1 - beta1) * g
    state["v"] = beta2 * state.get("v", 0.0) + (1 - beta2) * g * g
    return w - lr * (state["m"] / (1 - beta1**t)) / (sqrt(state["v"] / (1 - beta2**t)) + eps)


def adamw(w, g, state, t, lr):
    return adam(w * (1 - lr * 0.1), g, state, t, lr)


def adagrad(w, g, state, t, lr):
    state["v"] = state.get("v", 0.0) + g * g
    return w - lr * g / (sqrt(state["v"]) + 1e-10)


def sgd(w, g, state, t, lr):
    state["d"] = 0.9 * state.get("d", 0.0) + g
    return w - lr * state["d"]


SCALAR = {
    "rmsprop_graves": (graves, {"momentum": 0.9}),
    "rmsprop": (rmsprop, {"momentum": 0.9}),
    "adam": (adam, {"betas": (0.9, 0.98), "eps": 1e-9}),
    "adamw": (adamw, {"betas": (0.9, 0.98), "eps": 1e-9, "weight_decay": 0.1}),
    "adagrad": (adagrad, {}),
    "sgd": (sgd, {"momentum": 0.9}),
}


@pytest.mark.parametrize("name", SCALAR)
def test_every_optimizer_follows_its_scalar_definition(name):
    update, settings = SCALAR[name]
    shapes = [(3, 2), (), (4,)]
    values = [torch.full(shape, 0.3 * i, dtype=torch.float64) for i, shape in enumerate(shapes)]
    weights = [nn.Parameter(value) for value in values]
    (optimizer,) = build_optimizers(config(optimizer=name, lr=0.03, **settings), weights)
    expected = [[value.item()] for weight in weights for value in weight.flatten()]
    states = [{} for _ in expected]
    for step in range(1, STEPS + 1):
        index = 0
        for weight in weights:
            grads = [gradient(step, index + i) for i in range(weight.numel())]
            weight.grad = torch.tensor(grads, dtype=torch.float64).reshape(weight.shape)
            for g in grads:
                expected[index].append(update(expected[index][-1], g, states[index], step, 0.03))
                index += 1
        optimizer.step()
        found = torch.cat([weight.detach().flatten() for weight in weights])
        torch.testing.assert_close(found, found.new_tensor([e[-1] for e in expected]), rtol=1e-12, atol=1e-14)


def test_graves_rmsprop_weight_decay_enters_the_gradient():
    decayed, plain = (nn.Parameter(torch.tensor([0.5, -2.0], dtype=torch.float64)) for _ in range(2))
    decayed.grad = torch.tensor([0.1, 0.2], dtype=torch.float64)
    plain.grad = decayed.grad + 0.01 * plain.detach()
    GravesRMSprop([decayed], weight_decay=0.01).step()
    GravesRMSprop([plain]).step()
    torch.testing.assert_close(decayed, plain, rtol=0, atol=0)
    assert decayed.grad.tolist() == [0.1, 0.2]  # the caller's gradient is left alone


def test_graves_rmsprop_takes_mixed_dtypes_and_missing_gradients():
    dtypes = (torch.float32, torch.float64, torch.float32)
    weights = [nn.Parameter(torch.zeros(2, dtype=dtype)) for dtype in dtypes]
    optimizer = GravesRMSprop(weights, lr=0.1, momentum=0.0)
    for weight in weights[:2]:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    moved = -0.1 / sqrt(0.05 - 0.05**2 + 1e-4)
    assert weights[0].tolist() == pytest.approx([moved] * 2)
    assert weights[1].tolist() == pytest.approx([moved] * 2)
    assert weights[2].tolist() == [0.0, 0.0]


def test_graves_rmsprop_survives_large_steady_gradients():
    # In float32 the average square minus the squared average rounds below -eps here.
    weight = nn.Parameter(torch.zeros(1000))
    optimizer = GravesRMSprop([weight])
    for _ in range(300):
        weight.grad = torch.linspace(1e2, 1e4, 1000)
        optimizer.step()
        assert torch.isfinite(weight).all()


@pytest.mark.parametrize(
    "change", [{"lr": 0.0}, {"eps": 0.0}, {"decay": 1.0}, {"momentum": -0.1}, {"weight_decay": -1.0}]
)
def test_graves_rmsprop_refuses_wrong_constants(change):
    ((name, value),) = change.items()
    with pytest.raises(ValueError, match=f"{name}={value} is not valid"):
        GravesRMSprop([nn.Parameter(torch.zeros(1))], **change)


def test_groups_keep_their_own_optimizer_rate_and_schedule():
    """Product keys: values by sparse Adam at a constant rate, the rest on the schedule."""
    values, dense = nn.Embedding(6, 2, sparse=True), nn.Linear(2, 1)
    settings = config(optimizer="adam", lr=0.1, schedule="linear_warmup", warmup_steps=10)
    groups = [
        {"params": dense.parameters()},
        {
            "params": values.parameters(),
            "lr": 1e-3,
            "schedule": "constant",
            "betas": (0.5, 0.9),
            "optimizer": "row_adam",
        },
    ]
    dense_optimizer, value_optimizer = build_optimizers(settings, groups)
    assert isinstance(dense_optimizer, torch.optim.Adam)
    assert isinstance(value_optimizer, RowAdam)
    assert [o.param_groups[0]["betas"] for o in (dense_optimizer, value_optimizer)] == [
        settings.betas,
        (0.5, 0.9),
    ]
    rates = [
        learning_rate(settings, 1, lr=group["base_lr"], schedule=group["schedule"])
        for optimizer in (dense_optimizer, value_optimizer)
        for group in optimizer.param_groups
    ]
    assert rates == [pytest.approx(0.01), 1e-3]
    before = values.weight.detach().clone()
    dense(values(torch.tensor([1, 4, 4]))).sum().backward()
    dense_gradients(values.parameters())
    value_optimizer.step()
    changed = (values.weight != before).any(-1)
    assert changed.tolist() == [False, True, False, False, True, False]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([], "parameters=.. is not valid"),
        ([{"params": [], "momentum": 0.5}], "key 'momentum' is not valid"),
        ([{"params": [], "optimizer": "lion"}], "optimizer='lion' is not valid: .*row_adam"),
        ([{"params": [], "schedule": "step"}], "schedule='step' is not valid: it must be one of constant"),
    ],
)
def test_wrong_groups_are_refused(groups, message):
    with pytest.raises(ValueError, match=message):
        build_optimizers(config(), groups)


def grads():
    return [torch.tensor([3.0, -4.0]), torch.tensor([[0.0, 12.0]])]


def test_clipping_by_value():
    found = grads()
    assert clip_gradients(found, config(grad_clip_value=3.5)).item() == pytest.approx(13.0)
    assert [g.flatten().tolist() for g in found] == [[3.0, -3.5], [0.0, 3.5]]


@pytest.mark.parametrize(("huge", "finite"), [(1e30, True), (float("inf"), True), (float("nan"), False)])
def test_clipping_components_copes_with_any_size_but_not_with_nan(huge, finite):
    """1e30 squared is beyond float32, so that the norm from before clipping overflows."""
    found = [torch.tensor([huge, -3.0]), torch.tensor([4.0])]
    norm = clip_gradients(found, config(grad_clip_value=10.0))
    if finite:
        assert norm.item() == pytest.approx(sqrt(100 + 9 + 16))
        assert [gradient.tolist() for gradient in found] == [[10.0, -3.0], [4.0]]
    else:
        assert norm.isnan()


def test_clipping_by_total_norm_agrees_with_torch():
    weights = [nn.Parameter(torch.zeros_like(g)) for g in grads()]
    for weight, g in zip(weights, grads(), strict=True):
        weight.grad = g
    nn.utils.clip_grad_norm_(weights, 6.5)
    found = grads()
    assert clip_gradients(found, config(grad_clip_norm=6.5)).item() == pytest.approx(13.0)
    torch.testing.assert_close(found, [weight.grad for weight in weights])


def test_clipping_each_parameter_by_itself():
    found = [*grads(), torch.zeros(2)]
    clip_gradients(found, config(grad_clip_norm=6.0, grad_clip_per_parameter=True))
    torch.testing.assert_close(found, [torch.tensor([3.0, -4.0]), torch.tensor([[0.0, 6.0]]), torch.zeros(2)])


def test_no_clipping_changes_nothing():
    found = grads()
    assert clip_gradients(found, config()).item() == pytest.approx(13.0)
    torch.testing.assert_close(found, grads(), rtol=0, atol=0)


def test_sparse_gradients_are_scaled_and_clipped_with_duplicates_summed():
    table = nn.Embedding(5, 2, sparse=True)
    table(torch.tensor([2, 2, 0])).sum().backward()
    found = dense_gradients(table.parameters())
    scale_gradients(found, 3.0)
    assert clip_gradients(found, config(grad_clip_value=5.0)).item() == pytest.approx(sqrt(2 * 36 + 2 * 9))
    expected = torch.tensor([[3.0, 3.0], [0.0, 0.0], [5.0, 5.0], [0.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(table.weight.grad.to_dense(), expected)
