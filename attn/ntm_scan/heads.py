"""What the heads emit, forwards and backwards."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from attn.ntm_scan.sequence import Sizes, each


class HeadValues(NamedTuple):
    """What the heads emit, as views of one tensor [..., P] in the order of `Heads`."""

    key: Tensor  # [..., H, D]
    add: Tensor  # [..., W, D]
    gate: Tensor  # [..., H, 1]
    erase: Tensor  # [..., W, D]
    strength: Tensor  # [..., H, 1]
    excess: Tensor  # [..., H, 1], the exponent less 1
    shift: Tensor  # [..., H, S]


def split_heads(values: Tensor, sizes: Sizes) -> HeadValues:
    heads, writers, dim = sizes.n_heads, sizes.n_write_heads, sizes.slot_dim
    parts = [
        (heads, dim),
        (writers, dim),
        (heads, 1),
        (writers, dim),
        (heads, 1),
        (heads, 1),
        (heads, sizes.n_shifts),
    ]
    pieces = values.split([rows * columns for rows, columns in parts], dim=-1)
    return HeadValues(*(piece.unflatten(-1, part) for piece, part in zip(pieces, parts, strict=True)))


class HeadRanges(NamedTuple):
    """The same values by non-linearity; the shifts have a softmax."""

    values: Tensor  # [..., P]
    tanh: Tensor
    sigmoid: Tensor
    softplus: Tensor


def shift_steps(shift: Tensor) -> list[tuple[Tensor, ...]]:
    """For every step the probabilities [B, H, 1] of each shift, from [T, B, H, S]."""
    return list(zip(*(each(one.unsqueeze(-1)) for one in shift.unbind(-1)), strict=True))


def split_ranges(values: Tensor, sizes: Sizes) -> HeadRanges:
    heads, writers, dim = sizes.n_heads, sizes.n_write_heads, sizes.slot_dim
    widths = [(heads + writers) * dim, heads + writers * dim, 2 * heads, heads * sizes.n_shifts]
    return HeadRanges(values, *values.split(widths, dim=-1)[:3])


def heads_forward(step: HeadRanges, shift: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Fill `step`, of which `shift` [B, H, S] is a part, from the controller's output [B, C]."""
    torch.addmm(bias, hidden, weight, out=step.values)
    step.tanh.tanh_()
    step.sigmoid.sigmoid_()
    F.softplus(step.softplus, out=step.softplus)
    torch.softmax(shift, dim=-1, out=shift)


def head_slopes(values: Tensor, sizes: Sizes) -> Tensor:
    """Derivatives of the non-linearities, from their values [T, B, P]; 1 for the shifts."""
    slopes = torch.ones_like(values)
    to, of = split_ranges(slopes, sizes), split_ranges(values, sizes)
    to.tanh.sub_(of.tanh.square())
    torch.mul(of.sigmoid, 1 - of.sigmoid, out=to.sigmoid)
    torch.neg(torch.expm1(-of.softplus), out=to.softplus)  # sigmoid(x) = 1 - exp(-softplus(x))
    return slopes


def softmax_backward(grad: Tensor, softmax: Tensor) -> Tensor:
    """Gradient before a softmax over the last dimension, from the gradient and the values after it."""
    return torch._softmax_backward_data(grad, softmax, -1, softmax.dtype)
