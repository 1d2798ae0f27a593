"""The loop over time, forwards and backwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from attn.ntm_scan.addressing import (
    Constants,
    Content,
    Location,
    Ring,
    content_backward,
    content_forward,
    content_slopes,
    location_backward,
    location_forward,
    location_slopes,
)
from attn.ntm_scan.controllers import LSTM, FeedForward
from attn.ntm_scan.heads import head_slopes, heads_forward, shift_steps, split_heads, split_ranges
from attn.ntm_scan.memory import (
    Erasing,
    WriteRoom,
    read_backward,
    read_forward,
    write_backward,
    write_forward,
)
from attn.ntm_scan.sequence import (
    Sizes,
    Start,
    each,
    flatten,
    full_precision,
    needs_gradient,
    room,
    rows,
    unflatten,
    untransposed,
)

# Components whose float32 computation overflowed are given no larger than this, so that sums of them stay finite.
LARGEST_GRADIENT = 1e30


class Tape(NamedTuple):
    """What the forward pass keeps for the backward pass, besides the controller's part."""

    values: Tensor  # [T, B, P]
    weights: Tensor  # [T + 1, B, H, N]
    memory: Tensor  # [T + 1, B, D, N]
    content: Content
    location: Location

    @classmethod
    def begin(cls, start: Start, sizes: Sizes, keep: bool) -> Tape:
        """An empty tape that holds the starting state in its first places."""
        n_steps = len(start.projected[0])
        batch, n_heads, n_slots = start.weights.shape

        def tensor(*shape: int, steps: int = n_steps) -> Tensor:
            return room(start.memory, keep, steps, batch, *shape)

        tape = cls(
            values=tensor(len(start.head_bias)),
            weights=tensor(n_heads, n_slots, steps=n_steps + 1),
            memory=tensor(sizes.slot_dim, n_slots, steps=n_steps + 1),
            content=Content(
                key_norm=tensor(n_heads, 1),
                query=tensor(n_heads, sizes.slot_dim),
                slot_scale=tensor(1, n_slots),
                similarity=tensor(n_heads, n_slots),
                content=tensor(n_heads, n_slots),
            ),
            location=Location(shifted=tensor(n_heads, n_slots), log=tensor(n_heads, n_slots)),
        )
        tape.weights[0] = start.weights
        tape.memory[0] = start.memory.transpose(1, 2)
        return tape

    def flat(self) -> tuple[Tensor, ...]:
        return (*self[:3], *self.content, *self.location)

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> Tape:
        """The inverse of `flat`."""
        return cls(*tensors[:3], Content(*tensors[3:8]), Location(*tensors[8:]))


def controller_class(sizes: Sizes) -> type[LSTM] | type[FeedForward]:
    return LSTM if sizes.is_lstm else FeedForward


def scan_forward(start: Start, sizes: Sizes, keep: bool) -> tuple[Tensor, LSTM | FeedForward, Tape]:
    """Run the machine; returns the controller outputs and reads [T, B, C + R * D] and, filled, what it kept."""
    controller = controller_class(sizes).begin(start, keep)
    controller.prepare_forward()
    tape = Tape.begin(start, sizes, keep)
    constants = Constants.of(tape.memory, sizes)
    ring = Ring(start.weights, sizes.n_shifts)
    head_weight = start.head_weight.t()
    split = split_heads(tape.values, sizes)
    # as the products want them
    split = split._replace(add=split.add.transpose(-1, -2), erase=split.erase.unsqueeze(-1))
    ranges, heads, shifts = rows(split_ranges(tape.values, sizes)), rows(split), shift_steps(split.shift)
    contents, locations = rows(tape.content), rows(tape.location)
    weights, memory = each(tape.weights), each(tape.memory)
    readers, writers = (each(part) for part in split_weights(tape.weights, sizes))
    erasing = Erasing(memory[0], sizes.n_write_heads)
    reads = list(
        zip(*(place.unflatten(-1, (-1, sizes.slot_dim)).unbind(0) for place in controller.reads), strict=True)
    )
    for t in range(len(heads)):
        hidden = controller.forward(t)
        heads_forward(ranges[t], heads[t].shift, hidden, head_weight, start.head_bias)
        content_forward(contents[t], heads[t].key, heads[t].strength, memory[t], constants)
        location_forward(
            locations[t], heads[t], shifts[t], contents[t].content, weights[t], weights[t + 1], ring,
            sizes.weight_floor,
        )  # fmt: skip
        write_forward(memory[t], memory[t + 1], writers[t + 1], heads[t].erase, heads[t].add, erasing)
        read_forward(memory[t + 1], readers[t + 1], reads[t])
    return torch.cat([controller.hidden, controller.reads[0]], dim=-1), controller, tape


def split_weights(weights: Tensor, sizes: Sizes) -> tuple[Tensor, Tensor]:
    """Weightings [..., H, N] of the read heads and of the write heads."""
    return weights.split([sizes.n_read_heads, sizes.n_write_heads], dim=-2)


def final_state(controller: LSTM | FeedForward, tape: Tape) -> tuple[Tensor, ...]:
    """Controller state, reads, weightings and memory after the last step, as copies of their own."""
    state = (*controller.state(), controller.reads[0][-1], tape.weights[-1])
    return (
        *(part.clone(memory_format=torch.contiguous_format) for part in state),
        untransposed(tape.memory[-1]),
    )


def scan_backward(
    controller: LSTM | FeedForward, tape: Tape, head_weight: Tensor, grads: Sequence[Tensor], sizes: Sizes
) -> Start:
    """Gradients of everything in `Start`.

    Args:
        grads: gradients of the function's outputs.
    """
    grad_outputs, *grad_controller, grad_reads, grad_weights, grad_memory = grads
    controller.prepare_backward(grad_controller)
    split = split_heads(tape.values, sizes)
    previous = tape.weights[:-1]
    heads, contents, locations = rows(split), rows(tape.content), rows(tape.location)
    content_steps = rows(content_slopes(tape.content, split))
    location_steps = rows(
        location_slopes(tape.location, split, tape.content.content, previous, sizes.weight_floor)
    )
    slopes = each(head_slopes(tape.values, sizes))
    weights, memory = each(tape.weights), each(tape.memory)
    readers, writers = (each(part) for part in split_weights(tape.weights, sizes))

    grad_values = torch.empty_like(tape.values)
    value_rows, grad_heads = grad_values.unbind(0), rows(split_heads(grad_values, sizes))
    hidden_rows, read_rows = (
        part.unbind(0) for part in grad_outputs.split([head_weight.shape[1], grad_reads.shape[-1]], dim=-1)
    )
    grad_weights = grad_weights.clone(memory_format=torch.contiguous_format)
    grad_readers, grad_writers = split_weights(grad_weights, sizes)
    grad_memory = grad_memory.transpose(1, 2).clone(memory_format=torch.contiguous_format)
    ring = Ring(grad_weights, sizes.n_shifts)
    scratch = WriteRoom(grad_memory, sizes.n_write_heads)
    shifts = shift_steps(split.shift)
    for t in reversed(range(len(heads))):
        step, grad, weighting = heads[t], grad_heads[t], weights[t + 1]
        grad_reads = (grad_reads + read_rows[t]).unflatten(-1, (-1, sizes.slot_dim))
        grad_readers.add_(read_backward(grad_reads, memory[t + 1], readers[t + 1], grad_memory))
        grad_writers.add_(write_backward(grad, step, memory[t], writers[t + 1], grad_memory, scratch))
        grad_gated = location_backward(
            grad, locations[t], location_steps[t], step.shift, shifts[t], weighting, grad_weights, ring
        )
        content_backward(grad, contents[t], content_steps[t], grad_gated, memory[t], grad_memory)
        value_rows[t].mul_(slopes[t])
        grad_reads = controller.backward(t, torch.addmm(hidden_rows[t], value_rows[t], head_weight))
    projected, recurrent, state = controller.gradients()
    return Start(
        projected=tuple(projected),
        recurrent=tuple(recurrent),
        controller=tuple(state),
        head_weight=grad_values.flatten(0, 1).t() @ controller.hidden.flatten(0, 1),
        head_bias=grad_values.sum((0, 1)),
        reads=grad_reads,
        weights=grad_weights,
        memory=untransposed(grad_memory),
    )


class Scan(torch.autograd.Function):
    """`scan` where something needs a gradient."""

    @staticmethod
    def forward(ctx, sizes: Sizes, *tensors: Tensor) -> tuple[Tensor, ...]:
        start = unflatten(tensors, sizes)
        outputs, kept = forward_kept(start, sizes)
        ctx.sizes, ctx.n_weights = sizes, len(start.recurrent)
        ctx.save_for_backward(start.head_weight, *start.recurrent, *kept)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        backward = partial(backward_from, ctx.sizes, ctx.n_weights)
        return None, *within_range(backward, ctx.saved_tensors, grads)


def forward_kept(start: Start, sizes: Sizes) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The function's outputs, and what `backward_from` needs beside the weights."""
    outputs, controller, tape = scan_forward(start, sizes, keep=True)
    return (outputs, *final_state(controller, tape)), (*tape.flat(), *controller.tape)


def within_range(
    backward: Callable[[Sequence[Tensor], Sequence[Tensor]], tuple[Tensor, ...]],
    saved: Sequence[Tensor],
    grads: Sequence[Tensor],
) -> tuple[Tensor, ...]:
    """Gradients from `backward(saved, grads)`; where float32 overflows, from float64, and clamped to its range.

    Gradients that explode over a long sequence leave the range of float32 on their way, where inf times 0 is not a
    number, though the components in the end have a sign and a size that clipping can use.
    """
    found = backward(saved, grads)
    dtype = found[0].dtype
    if dtype == torch.float64 or all_finite(found):
        return found
    wide = backward([tensor.double() for tensor in saved], [grad.double() for grad in grads])
    return tuple(grad.clamp(-LARGEST_GRADIENT, LARGEST_GRADIENT).to(dtype) for grad in wide)


def backward_from(
    sizes: Sizes, n_weights: int, saved: Sequence[Tensor], grads: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Gradients of the tensors of `Start`.

    Args:
        n_weights: matrices of recurrent weights.
        saved: head weights, recurrent weights and what `forward_kept` kept.
        grads: gradients of the function's outputs.
    """
    head_weight, *saved = saved
    recurrent, saved = saved[:n_weights], saved[n_weights:]
    tape, kept = Tape.of(saved[:10]), saved[10:]
    controller = controller_class(sizes)(recurrent, kept, sizes.n_read_heads * sizes.slot_dim)
    with full_precision(head_weight.device.type):
        return flatten(scan_backward(controller, tape, head_weight, grads, sizes))


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether no tensor holds an infinity or what is not a number, nor has a sum so large; on "meta" none does."""
    if tensors[0].is_meta:
        return True
    return bool(torch.isfinite(torch.stack([tensor.sum() for tensor in tensors])).all())


def scan(start: Start, sizes: Sizes) -> tuple[Tensor, ...]:
    """Run the machine over a sequence.

    Returns:
        Controller outputs and reads side by side [T, B, C + R * D], then the final state: controller states, reads
        [B, R * D], weightings [B, H, N] and memory [B, N, D].
    """
    tensors = flatten(start)
    if needs_gradient(tensors):
        return Scan.apply(sizes, *tensors)
    outputs, controller, tape = scan_forward(start, sizes, keep=False)
    return outputs, *final_state(controller, tape)
