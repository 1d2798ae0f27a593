"""What the Reformer computes in chunks: position-wise functions and the loss over the vocabulary (Kitaev et al. 2020,
arXiv:2001.04451, Sec. 3).

Shapes: B batch, T length, D width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from attn.attention import check_positive, check_sequence


def in_chunks(
    function: Callable[[Tensor], Tensor], inputs: Tensor, chunk_len: int, *, recompute: bool = True
) -> Tensor:
    """A position-wise function applied to `chunk_len` positions at a time (Sec. 3, eq. 10).

    Args:
        function: of [B, any length, D], such that every position's output depends on its own input only.
        inputs: [B, T, D].
        chunk_len: positions at a time; the last chunk may be shorter.
        recompute: keep only inputs and outputs, and call the function once more in the backward pass, with the
            random numbers of the first time. Without it the memory of training is that of all chunks together.

    Returns:
        What `function(inputs)` would return.

    Raises:
        ValueError: if inputs have another shape, or `chunk_len` is below 1.
    """
    check_positive(chunk_len=chunk_len)
    if inputs.dim() != 3:
        raise ValueError(f"inputs must have shape [batch, length, width]; got {list(inputs.shape)}")
    if recompute and torch.is_grad_enabled():
        return torch.cat(
            [checkpoint(function, chunk, use_reentrant=False) for chunk in inputs.split(chunk_len, dim=1)],
            dim=1,
        )
    return torch.cat([function(chunk) for chunk in inputs.split(chunk_len, dim=1)], dim=1)


def cross_entropy_in_chunks(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, chunk_len: int, bias: Tensor | None = None
) -> Tensor:
    """-log softmax(hidden weight^T + bias) at the targets, never holding the logits of more than a chunk (Sec. 3).

    The backward pass computes the logits again. The normaliser is float32 at least.

    Args:
        hidden: [B, T, D].
        weight: one row for every entry of the vocabulary [vocabulary, D].
        targets: token ids [B, T].
        chunk_len: tokens at a time, out of all B T.
        bias: [vocabulary], or None.

    Returns:
        Nats of every token [B, T].

    Raises:
        ValueError: if shapes do not fit, `chunk_len` is below 1, or a target is not in the vocabulary, which is looked
            at on the CPU only: elsewhere it would make the device wait.
    """
    check_positive(chunk_len=chunk_len)
    if weight.dim() != 2:
        raise ValueError(f"weight must have shape [vocabulary, width]; got {list(weight.shape)}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must have shape [{len(weight)}], as weight has rows; got {list(bias.shape)}")
    check_sequence("hidden", hidden, weight.shape[-1])
    _check_targets(targets, hidden.shape[:2], len(weight))
    if torch.is_autocast_enabled(hidden.device.type):  # once, and the same in the backward pass
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    nats = _ChunkedCrossEntropy.apply(hidden.flatten(0, 1), weight, bias, targets.flatten().long(), chunk_len)
    return nats.view(targets.shape)


def _check_targets(targets: Tensor, shape: torch.Size, n_entries: int) -> None:
    if targets.shape != shape:
        raise ValueError(f"targets must have shape {list(shape)}; got {list(targets.shape)}")
    if targets.is_floating_point() or targets.dtype == torch.bool:
        raise ValueError(f"targets must be whole numbers; got {targets.dtype}")
    if targets.device.type == "cpu" and targets.numel():
        low, high = (int(end) for end in targets.aminmax())
        if low < 0 or high >= n_entries:
            wrong = low if low < 0 else high
            raise ValueError(f"targets must be from 0 to {n_entries - 1}, the rows of weight; got {wrong}")


class _ChunkedCrossEntropy(torch.autograd.Function):
    """`cross_entropy_in_chunks` for hidden vectors [N, D] and targets [N]."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, chunk_len):
        normaliser, nats = [], []
        for rows, target in zip(hidden.split(chunk_len), targets.split(chunk_len), strict=True):
            logits = _logits(rows, weight, bias)
            normaliser.append(logits.logsumexp(-1))
            nats.append(normaliser[-1] - logits.gather(-1, target.unsqueeze(-1)).squeeze(-1))
        ctx.save_for_backward(hidden, weight, bias, targets, torch.cat(normaliser))
        ctx.chunk_len = chunk_len
        return torch.cat(nats)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        hidden, weight, bias, targets, normaliser = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=normaliser.dtype)
        grad_bias = None if bias is None else torch.zeros_like(bias, dtype=normaliser.dtype)
        tensors = (hidden, targets, normaliser, grad, grad_hidden)
        for rows, target, norm, grad_nats, grad_rows in zip(
            *(t.split(ctx.chunk_len) for t in tensors), strict=True
        ):
            slope = (
                _logits(rows, weight, bias).sub_(norm.unsqueeze(-1)).exp_()
            )  # softmax, then minus the target
            slope.scatter_add_(-1, target.unsqueeze(-1), slope.new_full((len(target), 1), -1.0))
            slope.mul_(grad_nats.unsqueeze(-1))
            if bias is not None:
                grad_bias += slope.sum(0)
            slope = slope.to(weight.dtype)
            torch.mm(slope, weight, out=grad_rows)
            grad_weight += torch.mm(slope.t(), rows)
        grad_bias = None if bias is None else grad_bias.to(bias.dtype)
        return grad_hidden, grad_weight.to(weight.dtype), grad_bias, None, None


def _logits(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    logits = F.linear(rows, weight, bias)
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
