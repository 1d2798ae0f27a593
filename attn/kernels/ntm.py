"""The Neural Turing Machine's loop over time, compiled for a CPU by numba.

`run` stands in for `attn.ntm_scan.scan.scan`: the same arguments, numbers and gradients, to rounding. The loops
themselves are in `attn.kernels.ntm_loops`; this file lays out what they read and fill. They see torch's tensors as
numpy arrays on the same memory. As in `attn.ntm_scan`, the gradients of weight matrices are one product each after the
loop, and gradients that overflow float32 are computed anew in float64, by the same loops.

numba is imported when a sequence first runs here. It then compiles the loops for the tensors' dtype, which takes
seconds, and keeps the result beside the source or, where that folder cannot be written, in the user's cache.

Shapes are those of `attn.ntm_scan`. Layers are stacked: L layers, G = 4C values of a layer's gates (LSTM) or its C units
(feed-forward), F = R * D (+ C) + C width of what a layer sees: reads, the layer below, own hidden state. A first layer
under others sees a layer below of zeros, so that all have one width.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from attn.ntm_scan.scan import within_range
from attn.ntm_scan.sequence import Sizes, Start, flatten, needs_gradient, unflatten, untransposed

DTYPES = (torch.float32, torch.float64)


@cache
def has_numba() -> bool:
    return find_spec("numba") is not None


def obstacle(weight: Tensor, *others: Tensor) -> str | None:
    """Why a machine cannot run here, or None if it can.

    Args:
        weight: one of the machine's weights.
        others: further tensors that it starts from.
    """
    for tensor in (weight, *others):
        if tensor.device.type != "cpu" or tensor.dtype not in DTYPES:
            return f"it needs float32 or float64 on a CPU; got {tensor.dtype} on {tensor.device.type}"
        if tensor.dtype != weight.dtype:
            return f"it needs one type of numbers; got {weight.dtype} and {tensor.dtype}"
    if not has_numba():
        return "it needs the package numba, which is not installed (python -m pip install numba)"
    return None


def _loops() -> ModuleType:
    from attn.kernels import ntm_loops

    return ntm_loops


class Tape(NamedTuple):
    """What the forward loop fills; T' = T, or 1 where nothing is kept for a backward pass."""

    seen: Tensor  # [L, T + 1, B, F]
    gates: Tensor  # [L, T, B, G], after their non-linearities
    cell: Tensor  # [L, T' (+ 1), B, C]; without elements in a feed-forward controller, as is `squashed`
    squashed: Tensor  # [L, T', B, C], tanh of the new cell
    values: Tensor  # [T', B, P]
    weights: Tensor  # [T' (+ 1), B, H, N]
    memory: Tensor  # [T' (+ 1), B, D, N]
    slot_scale: Tensor  # [T', B, N]
    similarity: Tensor  # [T', B, H, N]
    content: Tensor  # [T', B, H, N]
    shifted: Tensor  # [T', B, H, N]
    log: Tensor  # [T', B, H, N]

    @classmethod
    def begin(cls, start: Start, sizes: Sizes, keep: bool) -> Tape:
        """A tape that holds the starting state in its first places, and in `gates` what the inputs add."""
        n_layers, (n_steps, batch, _) = len(start.projected), start.projected[0].shape
        n_values, size = start.head_weight.shape
        n_heads, n_slots = start.weights.shape[1:]
        read_size = start.reads.shape[-1]
        kept, states = (n_steps, n_steps + 1) if keep else (1, 1)
        cells = size if sizes.is_lstm else 0
        new = start.head_weight.new_empty
        tape = cls(
            seen=new(n_layers, n_steps + 1, batch, _seen_width(start.recurrent)),
            gates=torch.stack(start.projected),
            cell=new(n_layers, states, batch, cells),
            squashed=new(n_layers, kept, batch, cells),
            values=new(kept, batch, n_values),
            weights=new(states, batch, n_heads, n_slots),
            memory=new(states, batch, sizes.slot_dim, n_slots),
            slot_scale=new(kept, batch, n_slots),
            **{
                name: new(kept, batch, n_heads, n_slots)
                for name in ("similarity", "content", "shifted", "log")
            },
        )
        tape.seen[:, 0, :, :read_size] = start.reads
        if n_layers > 1:
            tape.seen[0, :, :, read_size:-size] = 0
        for layer, (hidden, cell) in enumerate(_pairs(start.controller)):
            tape.seen[layer, 0, :, -size:] = hidden
            tape.cell[layer, 0] = cell
        tape.weights[0] = start.weights
        tape.memory[0] = start.memory.transpose(1, 2)
        return tape

    def hidden(self, size: int, is_lstm: bool) -> Tensor:
        """What the controller puts out [T, B, C]."""
        return self.seen[-1, 1:, :, -size:] if is_lstm else self.gates[0]

    def final_state(self, size: int, read_size: int) -> tuple[Tensor, ...]:
        """Controller state, reads, weightings and memory after the last step, as copies of their own."""
        state = []
        if self.cell.numel():
            for seen, cell in zip(self.seen, self.cell, strict=True):
                state += [seen[-1, :, -size:].clone(), cell[-1].clone()]
        reads = self.seen[0, -1, :, :read_size].clone()
        return *state, reads, self.weights[-1].clone(), untransposed(self.memory[-1])


def _pairs(state: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Hidden and cell state of every layer."""
    return list(zip(state[::2], state[1::2], strict=True))


def _seen_width(recurrent: Sequence[Tensor]) -> int:
    return recurrent[-1].shape[1]


def _stacked(recurrent: Sequence[Tensor], read_size: int) -> Tensor:
    """Recurrent weights [L, G, F]; those of a first layer under others for the layer below are 0."""
    first, *others = recurrent
    if not others:
        return first.unsqueeze(0)
    return torch.stack([_widened(first, read_size, _seen_width(recurrent)), *others])


def _widened(weight: Tensor, read_size: int, width: int) -> Tensor:
    reads, own = weight.tensor_split([read_size], dim=1)
    return torch.cat([F.pad(reads, (0, width - weight.shape[1])), own], dim=1)


def _narrowed(grad: Tensor, read_size: int, width: int) -> Tensor:
    """The inverse of `_widened`, for `width` columns."""
    return torch.cat([grad[:, :read_size], grad[:, read_size + grad.shape[1] - width :]], dim=1)


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    """The same memory, laid out in the order of the dimensions."""
    return [tensor.detach().contiguous().numpy() for tensor in tensors]


def run_forward(start: Start, sizes: Sizes, keep: bool) -> tuple[tuple[Tensor, ...], Tape]:
    """The function's outputs, and the tape."""
    tape = Tape.begin(start, sizes, keep)
    size, read_size = start.head_weight.shape[1], start.reads.shape[-1]
    seen, gates, cell, squashed, *rest = _arrays(*tape)
    recurrent = _stacked(start.recurrent, read_size).transpose(1, 2)
    weights = _arrays(recurrent, start.head_weight.t(), start.head_bias)
    _loops().forward(
        seen, gates, cell, squashed, *weights, *rest,
        sizes.n_read_heads, sizes.n_shifts, sizes.is_lstm, int(keep), sizes.norm_eps, sizes.weight_floor,
    )  # fmt: skip
    outputs = torch.cat([tape.hidden(size, sizes.is_lstm), tape.seen[0, 1:, :, :read_size]], dim=-1)
    return (outputs, *tape.final_state(size, read_size)), tape


def run_backward(
    sizes: Sizes, widths: Sequence[int], saved: Sequence[Tensor], grads: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Gradients of the tensors of `Start`.

    Args:
        widths: columns of each layer's recurrent weights.
        saved: stacked recurrent weights, head weights and tape.
        grads: gradients of the function's outputs.
    """
    recurrent, head_weight, *kept = saved
    tape = Tape(*kept)
    grad_outputs, *grad_state, grad_reads, grad_weights, grad_memory = grads
    hidden, cell = _stacked_state(tape, grad_state, head_weight.shape[1])
    passed = [
        part.clone(memory_format=torch.contiguous_format)
        for part in (grad_reads, grad_weights, grad_memory.transpose(1, 2))
    ]
    grad_gates, grad_values = torch.empty_like(tape.gates), torch.empty_like(tape.values)
    _loops().backward(
        *_arrays(*tape[1:4], recurrent, head_weight, *tape[4:], grad_outputs, hidden, cell, *passed),
        *_arrays(grad_gates, grad_values), sizes.n_shifts, sizes.is_lstm, sizes.norm_eps, sizes.weight_floor,
    )  # fmt: skip
    by_recurrent = torch.bmm(grad_gates.flatten(1, 2).transpose(1, 2), tape.seen[:, :-1].flatten(1, 2))
    output = tape.hidden(head_weight.shape[1], sizes.is_lstm)
    reads, weights, memory = passed
    return flatten(
        Start(
            projected=grad_gates.unbind(0),
            recurrent=tuple(
                grad if width == grad.shape[1] else _narrowed(grad, reads.shape[1], width)
                for grad, width in zip(by_recurrent, widths, strict=True)
            ),
            controller=tuple(part for pair in zip(hidden, cell, strict=True) for part in pair)
            if sizes.is_lstm
            else (),
            head_weight=grad_values.flatten(0, 1).t() @ output.flatten(0, 1),
            head_bias=grad_values.sum((0, 1)),
            reads=reads,
            weights=weights,
            memory=untransposed(memory),
        )
    )


def _stacked_state(tape: Tape, grads: Sequence[Tensor], size: int) -> tuple[Tensor, Tensor]:
    """Gradients of hidden and cell states [L, B, C]; without elements where there are none."""
    if not grads:
        return tuple(tape.cell.new_empty(len(tape.gates), tape.gates.shape[2], 0) for _ in range(2))
    return torch.stack(grads[::2]), torch.stack(grads[1::2])


class CompiledScan(torch.autograd.Function):
    """`run` where something needs a gradient."""

    @staticmethod
    def forward(ctx, sizes: Sizes, *tensors: Tensor) -> tuple[Tensor, ...]:
        start = unflatten(tensors, sizes)
        outputs, tape = run_forward(start, sizes, keep=True)
        ctx.sizes = sizes
        ctx.save_for_backward(start.head_weight, *start.recurrent, *tape)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        sizes = ctx.sizes
        head_weight, *saved = ctx.saved_tensors
        recurrent, tape = saved[: -len(Tape._fields)], saved[-len(Tape._fields) :]
        widths = [weight.shape[1] for weight in recurrent]
        stacked = _stacked(recurrent, sizes.n_read_heads * sizes.slot_dim)

        def backward(saved: Sequence[Tensor], grads: Sequence[Tensor]) -> tuple[Tensor, ...]:
            return run_backward(sizes, widths, saved, grads)

        return None, *within_range(backward, (stacked, head_weight, *tape), grads)


def run(start: Start, sizes: Sizes) -> tuple[Tensor, ...]:
    """As `attn.ntm_scan.scan.scan`, for float32 or float64 on a CPU."""
    tensors = flatten(start)
    if needs_gradient(tensors):
        return CompiledScan.apply(sizes, *tensors)
    return run_forward(start, sizes, keep=False)[0]
