"""Adam by rows: against dense Adam, against numbers one by one, and in the training loop."""

from math import sqrt

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attn.kernels.product_keys import read_values
from attn.product_keys import ProductKeyMemory, split_parameters
from attn.training import BatchLoss, TrainingConfig, generator_for, train
from attn.training import sparse_optimizer as module
from attn.training.optimizers import clip_gradients, dense_gradients
from attn.training.sparse_optimizer import RowAdam, coalesced

DOUBLE = torch.float64
CONSTANTS = {"lr": 0.03, "betas": (0.8, 0.95), "eps": 1e-3}  # a large eps, so that its place shows


def random(*shape, seed=0):
    return torch.randn(*shape, generator=generator_for(seed, "sparse optimiser"), dtype=DOUBLE)


def sparse(rows, values, n_rows, **options):
    """A gradient as an autograd function returns it."""
    rows = torch.tensor(rows).unsqueeze(0)
    shape = (n_rows, *values.shape[1:])
    return torch.sparse_coo_tensor(rows, values, shape, check_invariants=True, **options)


def row_adam(table, rows, grads, state):
    """The update of the docstring for the named rows, a number at a time; `state` starts as {}."""
    lr, (beta1, beta2), eps = CONSTANTS.values()
    t = state["t"] = state.get("t", 0) + 1
    for row, grad in zip(rows, grads, strict=True):
        for column, g in enumerate(grad):
            m, v = state.get((row, column), (0.0, 0.0))
            m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
            state[row, column] = m, v
            table[row][column] -= lr * (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + eps)


TOUCHED = [[0, 3], [3], [], [1, 3, 4], [0, 4]]


@pytest.mark.parametrize("block", [2**19, 1], ids=["one block", "a row a block"])
def test_touched_rows_follow_the_definition_and_others_stay(monkeypatch, block):
    monkeypatch.setitem(module.BLOCK_BYTES, "cpu", block)
    table = nn.Parameter(random(6, 2))
    optimizer = RowAdam([table], **CONSTANTS)
    expected, state = table.tolist(), {}
    for step, rows in enumerate(TOUCHED):
        grads = random(len(rows), 2, seed=10 + step)
        table.grad = sparse(rows, grads, 6)
        optimizer.step()
        row_adam(expected, rows, grads.tolist(), state)
        torch.testing.assert_close(
            table.detach(), torch.tensor(expected, dtype=DOUBLE), rtol=1e-12, atol=1e-14
        )
    kept = optimizer.state[table]
    assert kept["step"] == len(TOUCHED) and table[[2, 5]].equal(random(6, 2)[[2, 5]])
    for index, name in enumerate(("exp_avg", "exp_avg_sq")):
        stored = [[state.get((row, column), (0.0, 0.0))[index] for column in range(2)] for row in range(6)]
        torch.testing.assert_close(kept[name], torch.tensor(stored, dtype=DOUBLE), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE], ids=str)
def test_with_every_row_touched_it_is_dense_adam(dtype):
    by_rows, dense = (nn.Parameter(random(5, 3, 2).to(dtype)) for _ in range(2))
    optimizers = RowAdam([by_rows], **CONSTANTS), torch.optim.Adam([dense], **CONSTANTS)
    for step in range(8):
        dense.grad = random(5, 3, 2, seed=step + 1).to(dtype)
        order = torch.randperm(5, generator=generator_for(step, "order"))
        by_rows.grad = sparse(order.tolist(), dense.grad[order], 5)
        for optimizer in optimizers:
            optimizer.step()
        tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-14}
        torch.testing.assert_close(by_rows, dense, **tolerance)
        for name in ("exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(
                optimizers[0].state[by_rows][name], optimizers[1].state[dense][name], **tolerance
            )


def test_it_is_torchs_sparse_adam_but_for_eps():
    ours, theirs = (nn.Parameter(random(6, 2)) for _ in range(2))
    constants = CONSTANTS | {"eps": 1e-30}
    optimizers = RowAdam([ours], **constants), torch.optim.SparseAdam([theirs], **constants)
    for step, rows in enumerate(TOUCHED):
        for table, optimizer in zip((ours, theirs), optimizers, strict=True):
            table.grad = sparse(rows, random(len(rows), 2, seed=10 + step), 6)
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_a_row_first_touched_late_takes_a_longer_step():
    table = nn.Parameter(torch.zeros(2, 1, dtype=DOUBLE))
    optimizer = RowAdam([table], lr=1.0)
    for step in range(1000):
        table.grad = sparse([0], torch.full((1, 1), 1e-9, dtype=DOUBLE), 2)
        if step == 999:
            table.grad = sparse([1], torch.ones(1, 1, dtype=DOUBLE), 2)
        optimizer.step()
    assert table[1].item() == pytest.approx(-0.1 / sqrt(0.001) * sqrt(1 - 0.999**1000), rel=1e-6)


# --- Gradients ---------------------------------------------------------------------------------------------


def test_rows_named_twice_are_added_first():
    once, twice = (nn.Parameter(random(4, 2)) for _ in range(2))
    values = random(3, 2, seed=1)
    once.grad = sparse([1, 3], torch.stack([values[0] + values[2], values[1]]), 4)
    twice.grad = sparse([1, 3, 1], values, 4)
    for table in (once, twice):
        RowAdam([table], **CONSTANTS).step()
    assert torch.equal(once, twice)


def test_coalescing_copies_only_what_is_out_of_order():
    values = random(3, 2)
    ready = sparse([0, 2, 5], values, 6)
    assert not ready.is_coalesced()
    found = coalesced(ready)
    assert found.is_coalesced() and found.values().data_ptr() == values.data_ptr()
    assert coalesced(found) is found
    for rows in ([2, 0, 5], [0, 2, 2]):
        other = coalesced(sparse(rows, values, 6))
        assert other.is_coalesced() and other.indices().tolist() == [sorted(set(rows))]
        torch.testing.assert_close(other.to_dense(), sparse(rows, values, 6).to_dense())
    assert coalesced(sparse([], values[:0], 6)).indices().shape == (1, 0)
    both = torch.sparse_coo_tensor([[0, 0], [1, 0]], [1.0, 2.0], (2, 2), check_invariants=True)
    assert coalesced(both).to_dense().tolist() == [[2, 1], [0, 0]]


def test_the_gradient_of_a_look_up_reaches_the_optimiser_without_a_copy():
    table = nn.Parameter(random(9, 2))
    read_values(table, torch.tensor([[8, 1], [1, 4]]), random(2, 2)).sum().backward()
    assert coalesced(table.grad).values().data_ptr() == table.grad._values().data_ptr()
    assert coalesced(table.grad).indices().tolist() == [[1, 4, 8]]


@pytest.mark.parametrize(
    "grad", [torch.ones(3, 2), torch.eye(3, 2).to_sparse()], ids=["dense", "two dimensions"]
)
def test_other_gradients_are_refused(grad):
    table = nn.Parameter(torch.zeros(3, 2))
    table.grad = grad
    with pytest.raises(ValueError, match=r"sparse in the first dimension; the parameter of shape \[3, 2\]"):
        RowAdam([table]).step()


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ({"lr": 0.0}, "lr=0.0 is not valid: it must be above 0"),
        ({"eps": -1.0}, "eps=-1.0 is not valid"),
        ({"betas": (0.9, 1.0)}, r"betas=\(0.9, 1.0\) is not valid: it must be two numbers in \[0, 1\)"),
        ({"betas": (0.9,)}, r"betas=\(0.9,\) is not valid"),
    ],
)
def test_constants_out_of_range_are_refused(constants, message):
    with pytest.raises(ValueError, match=message):
        RowAdam([nn.Parameter(torch.zeros(2, 2))], **constants)


def test_a_closure_is_called_with_gradients_and_parameters_without_one_are_left():
    tables = [nn.Parameter(random(3, 2)) for _ in range(2)]
    optimizer = RowAdam(tables, **CONSTANTS)

    def closure():
        optimizer.zero_grad()
        loss = F.embedding(torch.tensor([0, 2]), tables[0], sparse=True).square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == random(3, 2)[[0, 2]].square().sum()
    assert tables[1].equal(random(3, 2)) and not tables[0][0].equal(random(3, 2)[0])
    assert tables[0][1].equal(random(3, 2)[1])


# --- A memory ----------------------------------------------------------------------------------------------


def memory_steps(fused, dense, n_keys=4, topk=4, n_steps=4):
    """Weights of a small memory after some steps with clipping; `dense` gives values a dense gradient and Adam."""
    torch.manual_seed(0)
    model = ProductKeyMemory(d_model=6, n_keys=n_keys, topk=topk, key_dim=4, n_heads=2, fused=fused).double()
    others, values = split_parameters(model)
    optimizers = [torch.optim.Adam(others, **CONSTANTS)]
    optimizers.append((torch.optim.Adam if dense else RowAdam)(values, **CONSTANTS))
    config = TrainingConfig(max_steps=1, batch_size=1, optimizer="adam", lr=1.0, grad_clip_norm=0.5)
    touched = []
    for step in range(n_steps):
        inputs = random(4, 10, 6, seed=step)
        (model(inputs) - inputs.sin()).square().sum().backward()
        touched.append(values[0].grad.coalesce().indices().shape[1])
        if dense:
            values[0].grad = values[0].grad.to_dense()
        clip_gradients(dense_gradients(model.parameters()), config)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return list(model.state_dict().items()), touched


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fast"])
def test_a_memory_updated_by_rows_has_the_weights_of_a_densely_updated_one(fused):
    (found, touched), (expected, _) = (memory_steps(fused, dense) for dense in (False, True))
    assert touched == [16] * 4  # every slot at every step, without which they would differ
    for (name, value), (_, other) in zip(found, expected, strict=True):
        torch.testing.assert_close(value, other, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


def test_fast_and_plain_memories_train_alike():
    (found, touched), (expected, _) = (
        memory_steps(fused, False, n_keys=16, topk=2) for fused in (True, False)
    )
    assert max(touched) < 256
    for (name, value), (_, other) in zip(found, expected, strict=True):
        torch.testing.assert_close(value, other, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


class MemoryWorkload:
    """Fit a function with a memory, its values with an optimiser and a learning rate of their own."""

    unit = "sequences"

    def __init__(self):
        torch.manual_seed(1)
        self.model = ProductKeyMemory(d_model=6, n_keys=8, topk=2, key_dim=4, n_heads=2).double()

    def parameter_groups(self):
        dense, values = split_parameters(self.model)
        own = {"optimizer": "row_adam", "lr": 0.01, "schedule": "constant"}
        return [{"params": dense}, {"params": values, **own}]

    def batch(self, step, part, n_parts):
        return random(8, 3, 6, seed=step).chunk(n_parts)[part]

    def loss(self, model, batch):
        return BatchLoss((model(batch) - batch.sin()).square().sum(), batch.shape[0], batch.shape[0])

    def evaluate(self, model):
        return {"loss": float(self.loss(model, self.batch(0, 0, 1)).total)}


@pytest.mark.parametrize("parts", [1, 2])
def test_the_training_loop_clips_saves_and_resumes(tmp_path, parts):
    settings = {"max_steps": 8, "batch_size": 8, "optimizer": "adam", "lr": 0.01, "grad_clip_norm": 0.5}
    config = TrainingConfig(grad_accum_steps=parts, **settings)
    straight, stopped = MemoryWorkload(), MemoryWorkload()
    losses = train(straight, config, seed=3).history
    train(stopped, config, seed=3, checkpoint_path=tmp_path / "c", stop_after=3)
    resumed = MemoryWorkload()
    train(resumed, config, seed=3, checkpoint_path=tmp_path / "c")
    assert losses[-1]["loss"] < losses[0]["loss"]
    for (name, found), expected in zip(
        resumed.model.state_dict().items(), straight.model.state_dict().values(), strict=True
    ):
        assert torch.equal(found, expected), name
