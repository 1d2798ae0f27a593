"""What the loop starts from, and sequences of steps as named tuples."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor


class Sizes(NamedTuple):
    """What the tensors' shapes do not tell."""

    n_read_heads: int
    n_write_heads: int
    slot_dim: int
    n_shifts: int
    is_lstm: bool
    norm_eps: float
    weight_floor: float

    @property
    def n_heads(self) -> int:
        return self.n_read_heads + self.n_write_heads


class Start(NamedTuple):
    """Everything the loop starts from; its tensors are the differentiable arguments of the function."""

    projected: tuple[Tensor, ...]  # what the inputs add, per layer [T, B, 4C] (LSTM) or [T, B, C]
    recurrent: tuple[Tensor, ...]  # recurrent weights, per layer
    controller: tuple[Tensor, ...]  # hidden and cell states, alternating, each [B, C]; () without state
    head_weight: Tensor  # [P, C]
    head_bias: Tensor  # [P]
    reads: Tensor  # [B, R * D]
    weights: Tensor  # [B, H, N]
    memory: Tensor  # [B, N, D]


Rows = TypeVar("Rows", bound=tuple)


def rows(sequence: Rows) -> list[Rows]:
    """One named tuple a time step from a named tuple of tensors whose first dimension is time."""
    return [type(sequence)(*row) for row in zip(*map(each, sequence), strict=True)]


def each(tensor: Tensor) -> Sequence[Tensor]:
    """A view for every step of a tensor whose first dimension is time."""
    if tensor.stride(0) == 0:  # all steps share one place, see `room`
        return [tensor[0]] * len(tensor)
    return tensor.unbind(0)


def room(like: Tensor, keep: bool, n_steps: int, *shape: int) -> Tensor:
    """An empty tensor [n_steps, *shape]; unless the steps are to be kept, all of them share one place."""
    if keep:
        return like.new_empty(n_steps, *shape)
    return like.new_empty(1, *shape).expand(n_steps, *shape)


def full_precision(device: str) -> AbstractContextManager:
    """No lower precision inside: the memory adds up small differences over many steps."""
    if torch.amp.is_autocast_available(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def untransposed(memory: Tensor) -> Tensor:
    """A copy [B, N, D] of a memory [B, D, N]."""
    return memory.transpose(1, 2).clone(memory_format=torch.contiguous_format)


def flatten(start: Start) -> tuple[Tensor, ...]:
    return (*start.projected, *start.recurrent, *start.controller, *start[3:])


def unflatten(tensors: Sequence[Tensor], sizes: Sizes) -> Start:
    """The inverse of `flatten`."""
    # a layer brings what the inputs add, its recurrent weights and, in an LSTM, two states
    n_layers = (len(tensors) - 5) // (4 if sizes.is_lstm else 2)
    projected, recurrent, state = (
        tensors[:n_layers],
        tensors[n_layers : 2 * n_layers],
        tensors[2 * n_layers : -5],
    )
    return Start(projected, recurrent, state, *tensors[-5:])


def needs_gradient(tensors: Sequence[Tensor]) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
