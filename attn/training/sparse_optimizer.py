"""Adam for tables of which an update touches few rows, as the values of a product-key memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.optim.adam import adam

# Rows worked on at a time, in bytes of one tensor: on a CPU few such blocks are in the cache at once.
BLOCK_BYTES = {"cpu": 2**19}
LARGE_BLOCK_BYTES = 2**28
NUMPY_TYPES = (torch.float16, torch.float32, torch.float64)


def coalesced(gradient: Tensor) -> Tensor:
    """A sparse gradient with distinct rows in rising order; it shares memory with `gradient` if those are so already.

    Autograd forgets that a gradient is coalesced when it stores it in `.grad`, and `Tensor.coalesce` would then sort and
    copy it once more. On a GPU the host waits for the answer.
    """
    if gradient.is_coalesced():
        return gradient
    rows = gradient._indices()
    if gradient.sparse_dim() > 1 or not bool((rows[0, 1:] > rows[0, :-1]).all()):
        return gradient.coalesce()
    return torch.sparse_coo_tensor(
        rows, gradient._values(), gradient.shape, is_coalesced=True, check_invariants=False
    )


class RowAdam(torch.optim.Optimizer):
    """Adam that reads and writes only the rows its gradient names, of the weights and of its own state.

    A row that is touched in an update gets exactly the update of Kingma and Ba (2015, algorithm 1), from the moments
    that are stored for it:

        m <- beta1 m + (1 - beta1) g
        v <- beta2 v + (1 - beta2) g^2
        w <- w - lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    A row that is not touched stays as it is, and so do its moments: dense Adam would let both decay by beta1 and
    beta2, and move the row by its old momentum. t counts the updates of the whole table and not those of the row. So
    a row that is first touched late moves by about lr (1 - beta1) / sqrt(1 - beta2), 3.2 lr with the default betas, and
    not by lr. Where every update touches every row, weights and state are those of dense Adam. These are
    the semantics of `torch.optim.SparseAdam`, but for `eps`, which torch adds to sqrt(v) before its correction.

    Gradients are sparse with one sparse dimension; they need not be coalesced, which `coalesced` does where needed.

    Args:
        params: parameters or parameter groups.
        lr: learning rate, above 0.
        betas: averaging constants of the moments, each in [0, 1).
        eps: keeps denominators from 0, above 0.

    Raises:
        ValueError: if a constant is outside its range.
    """

    def __init__(
        self, params, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ):
        for name, value in (("lr", lr), ("eps", eps)):
            if not value > 0:
                raise ValueError(f"{name}={value!r} is not valid: it must be above 0.")
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas={betas!r} is not valid: it must be two numbers in [0, 1).")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure=None):
        """Update the rows that have a gradient.

        Raises:
            ValueError: for a dense gradient.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None:
                    self._update(table, group)
        return loss

    def _update(self, table: Tensor, group: dict[str, Any]) -> None:
        if table.grad.layout != torch.sparse_coo or table.grad.sparse_dim() != 1:
            raise ValueError(
                "RowAdam takes gradients that are sparse in the first dimension; the parameter of shape "
                f"{list(table.shape)} has another: train it with another optimiser."
            )
        state = self.state[table]
        if not state:
            state["step"] = 0
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = torch.zeros_like(table)
        state["step"] += 1
        gradient = coalesced(table.grad)
        rows, grads = gradient.indices()[0], gradient.values()
        if not len(rows):
            return
        block_bytes = BLOCK_BYTES.get(table.device.type, LARGE_BLOCK_BYTES)
        n_rows = max(1, block_bytes // max(1, grads[0].nbytes))
        tables = [
            _Table(whole, min(n_rows, len(rows))) for whole in (table, state["exp_avg"], state["exp_avg_sq"])
        ]
        increment_version(table)  # numpy's writes go unseen by autograd
        for some, grad in zip(rows.split(n_rows), grads.split(n_rows), strict=True):
            _update_rows(tables, state["step"], some, grad, group)


class _Table:
    """Rows of one table, collected for work on them and put back.

    On a CPU numpy copies rows between a table and a buffer that stays in the cache, in about two thirds of torch's time.
    """

    def __init__(self, whole: Tensor, n_rows: int) -> None:
        self.whole = whole.detach()
        self.buffer = None
        if whole.device.type == "cpu" and whole.dtype in NUMPY_TYPES:
            self.buffer = torch.empty(n_rows, *whole.shape[1:], dtype=whole.dtype)

    def collect(self, rows: Tensor) -> Tensor:
        """The rows, as they are now; what was collected before is overwritten."""
        if self.buffer is None:
            return self.whole.index_select(0, rows)
        part = self.buffer[: len(rows)]
        # "clip" writes into the buffer without a copy of its own; no row is out of range
        np.take(self.whole.numpy(), rows.numpy(), axis=0, out=part.numpy(), mode="clip")
        return part

    def put_back(self, rows: Tensor, part: Tensor) -> None:
        """Store distinct rows."""
        if self.buffer is None:
            self.whole.index_copy_(0, rows, part)
        else:
            self.whole.numpy()[rows.numpy()] = part.numpy()


def _update_rows(
    tables: Sequence[_Table], step: int, rows: Tensor, grad: Tensor, group: dict[str, Any]
) -> None:
    """One block of distinct rows in rising order: torch's Adam on what is collected from the tables."""
    # rows that lie side by side need not be collected; a GPU's host would wait for the answer
    in_place = rows.device.type == "cpu" and int(rows[-1] - rows[0]) == len(rows) - 1
    if in_place:
        parts = [table.whole[int(rows[0]) : int(rows[-1]) + 1] for table in tables]
    else:
        parts = [table.collect(rows) for table in tables]
    weight, mean, square = parts
    before = torch.tensor(float(step - 1), device=grad.device)  # adam counts one more
    beta1, beta2 = group["betas"]
    adam(
        [weight], [grad], [mean], [square], [], [before], foreach=False, fused=True, amsgrad=False,
        beta1=beta1, beta2=beta2, lr=group["lr"], weight_decay=0.0, eps=group["eps"], maximize=False,
    )  # fmt: skip
    if not in_place:
        for table, part in zip(tables, parts, strict=True):
            table.put_back(rows, part)
