"""The Neural Turing Machine's loop over time with its backward pass written by hand.

`attn.ntm` defines the machine: `NTM.step` says what happens in one time step, and autograd could differentiate a
loop over it. This file computes the same numbers and gradients, to rounding, in about half the time:

- One `torch.autograd.Function` spans the whole sequence, so no operation is recorded, and what the
  steps fill is allocated once.
- The memory lies transposed, [B, D, N]: sums over a slot's D values and products with a weighting then run along
  the N slots, which lie side by side.
- Whatever does not depend on later time steps leaves the loop: the derivatives of all non-linearities are computed
  for all steps at once before the backward loop, and the gradient of each weight matrix is one product after it.

Each part has its forward and its backward pass side by side, in the order of a time step: controller, heads,
content, location, write, read. Shapes are those of `attn.ntm`; P is the number of values that all heads emit. A named
tuple of tensors with a leading dimension of time describes a sequence; `rows` turns it into one tuple a step, with the
same names. In a backward pass, `grad` stands for the gradient of the loss, and `grad.key` for that of the keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Components whose float32 computation overflowed are given no larger than this, so that sums of them stay finite.
LARGEST_GRADIENT = 1e30


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


# --- Controllers -----------------------------------------------------------------------------------------


class LSTMLayer(NamedTuple):
    """One layer's part of the tape."""

    seen: Tensor  # [T + 1, B, R * D (+ C) + C]: reads, from the second layer on the layer below, own hidden state
    gates: Tensor  # [T, B, 4C], after their non-linearities: input, forget, output, candidate
    cell: Tensor  # [T + 1, B, C]
    squashed: Tensor  # [T, B, C], tanh of the new cell


class LSTMStep(NamedTuple):
    """One layer's views: a sequence of steps, or one of them."""

    seen: Tensor
    below: Tensor  # the part of `seen` that the layer below fills
    gates: Tensor
    opened: Tensor  # the three sigmoids
    enter: Tensor
    keep: Tensor
    out: Tensor
    candidate: Tensor
    cell: Tensor
    new_cell: Tensor
    squashed: Tensor
    hidden: Tensor


class LSTMSlopes(NamedTuple):
    """Derivatives at every step of one layer, and room for the gradient of its gates."""

    hidden: Tensor  # [T, B, C], of the hidden state with respect to the new cell
    gates: Tensor  # [T, B, 4, C], of the new cell with respect to the gates before their non-linearities; but `out`
    out: Tensor  # [T, B, C], of the hidden state with respect to the output gate before its non-linearity
    keep: Tensor  # [T, B, C], of the new cell with respect to the old one
    grad_gates: Tensor  # [T, B, 4C], of the gates before their non-linearities; the next two are views of it
    grad_gates_apart: Tensor  # [T, B, 4, C]
    grad_out: Tensor  # [T, B, C]


class LSTM:
    """The loop's side of `LSTMController`."""

    def __init__(self, recurrent: Sequence[Tensor], tape: Sequence[Tensor], read_size: int) -> None:
        self.recurrent, self.tape, self.read_size = recurrent, tuple(tape), read_size
        self.layers = [LSTMLayer(*tape[i : i + 4]) for i in range(0, len(tape), 4)]
        self.size = self.layers[0].cell.shape[-1]

    @classmethod
    def begin(cls, start: Start, keep: bool) -> LSTM:
        """With a fresh tape that holds the starting state in its first places."""
        tape: list[Tensor] = []
        read_size = start.reads.shape[-1]
        n_steps, batch, _ = start.projected[0].shape
        for index, weight in enumerate(start.recurrent):
            hidden, cell = start.controller[2 * index : 2 * index + 2]
            size = hidden.shape[-1]
            layer = LSTMLayer(
                seen=hidden.new_empty(n_steps + 1, batch, weight.shape[1]),
                gates=start.projected[index].clone(),  # to which every step adds what it sees
                cell=room(hidden, keep, n_steps + 1, batch, size),
                squashed=room(hidden, keep, n_steps, batch, size),
            )
            layer.seen[0, :, :read_size] = start.reads
            layer.seen[0, :, -size:] = hidden
            layer.seen[-1, :, read_size:-size] = 0  # the one place that no step fills
            layer.cell[0] = cell
            tape += layer
        return cls(start.recurrent, tape, read_size)

    @property
    def hidden(self) -> Tensor:
        """What the controller puts out [T, B, C]."""
        return self.layers[-1].seen[1:, :, -self.size :]

    @property
    def reads(self) -> list[Tensor]:
        """Places for the reads of every step [T, B, R * D], one per layer."""
        return [layer.seen[1:, :, : self.read_size] for layer in self.layers]

    def state(self) -> tuple[Tensor, ...]:
        """The state after the last step."""
        pairs = [(layer.seen[-1, :, -self.size :], layer.cell[-1]) for layer in self.layers]
        return tuple(part for pair in pairs for part in pair)

    def prepare_forward(self) -> None:
        self.transposed = [weight.t() for weight in self.recurrent]
        self.steps = list(zip(*(rows(self._views(layer)) for layer in self.layers), strict=True))

    def _views(self, layer: LSTMLayer) -> LSTMStep:
        size, gates = self.size, layer.gates
        enter, keep, out, candidate = gates.split(size, dim=-1)
        return LSTMStep(
            seen=layer.seen[:-1], below=layer.seen[:-1, :, self.read_size : -size],
            gates=gates, opened=gates[..., : 3 * size], enter=enter, keep=keep, out=out, candidate=candidate,
            cell=layer.cell[:-1], new_cell=layer.cell[1:], squashed=layer.squashed,
            hidden=layer.seen[1:, :, -size:],
        )  # fmt: skip

    def forward(self, t: int) -> Tensor:
        """One step; returns the top layer's hidden state [B, C]."""
        below = None
        for step, weight in zip(self.steps[t], self.transposed, strict=True):
            if below is not None:
                step.below.copy_(below)
            step.gates.addmm_(step.seen, weight)
            step.opened.sigmoid_()
            step.candidate.tanh_()
            torch.mul(step.keep, step.cell, out=step.new_cell).addcmul_(step.enter, step.candidate)
            torch.tanh(step.new_cell, out=step.squashed)
            below = torch.mul(step.out, step.squashed, out=step.hidden)
        return below

    def prepare_backward(self, grad_state: Sequence[Tensor]) -> None:
        self.grad_gates = [torch.empty_like(layer.gates) for layer in self.layers]
        pairs = zip(self.layers, self.grad_gates, strict=True)
        self.slopes = list(zip(*(rows(self._slopes(layer, grad)) for layer, grad in pairs), strict=True))
        # per layer the gradient of what it saw last, with a view of each part
        self.grad_seen = [torch.empty_like(layer.seen[0]) for layer in self.layers]
        self.grad_reads = [grad[:, : self.read_size] for grad in self.grad_seen]
        self.grad_below = [grad[:, self.read_size : -self.size] for grad in self.grad_seen]
        self.grad_hidden = [grad[:, -self.size :] for grad in self.grad_seen]
        self.grad_cell = [torch.empty_like(layer.cell[0]) for layer in self.layers]
        for place, grad in zip(self._state_places(), grad_state, strict=True):
            place.copy_(grad)

    def _state_places(self) -> list[Tensor]:
        pairs = zip(self.grad_hidden, self.grad_cell, strict=True)
        return [place for pair in pairs for place in pair]

    def _slopes(self, layer: LSTMLayer, grad: Tensor) -> LSTMSlopes:
        gates, grad_apart = (values.unflatten(-1, (4, self.size)) for values in (layer.gates, grad))
        enter, keep, out, candidate = gates.unbind(2)
        slopes = gates * (1 - gates)
        slopes[:, :, 0].mul_(candidate)
        slopes[:, :, 1].mul_(layer.cell[:-1])
        slopes[:, :, 2].mul_(layer.squashed)
        torch.mul(1 - candidate.square(), enter, out=slopes[:, :, 3])
        return LSTMSlopes(
            hidden=out * (1 - layer.squashed.square()), gates=slopes, out=slopes[:, :, 2], keep=keep,
            grad_gates=grad, grad_gates_apart=grad_apart, grad_out=grad_apart[:, :, 2],
        )  # fmt: skip

    def backward(self, t: int, grad: Tensor) -> Tensor:
        """One step back from the gradient of its output [B, C]; returns that of the reads it saw [B, R * D]."""
        steps = self.slopes[t]
        for index in reversed(range(len(steps))):
            step = steps[index]
            grad = self.grad_hidden[index].add_(grad)
            cell = self.grad_cell[index].addcmul_(grad, step.hidden)
            torch.mul(cell.unsqueeze(1), step.gates, out=step.grad_gates_apart)
            torch.mul(grad, step.out, out=step.grad_out)  # in place of what came by the cell
            cell.mul_(step.keep)
            torch.mm(step.grad_gates, self.recurrent[index], out=self.grad_seen[index])
            grad = self.grad_below[index]
        for more in self.grad_reads[1:]:
            self.grad_reads[0].add_(more)
        return self.grad_reads[0]

    def gradients(self) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Of what the inputs add, of the recurrent weights and of the starting state."""
        weights = [
            grad.flatten(0, 1).t() @ layer.seen[:-1].flatten(0, 1)
            for grad, layer in zip(self.grad_gates, self.layers, strict=True)
        ]
        return self.grad_gates, weights, [place.clone() for place in self._state_places()]


class FeedForward:
    """The loop's side of `FeedForwardController`; methods as those of `LSTM`."""

    def __init__(self, recurrent: Sequence[Tensor], tape: Sequence[Tensor], read_size: int) -> None:
        (self.recurrent,), self.tape = recurrent, tuple(tape)
        self.seen, self.hidden = self.tape  # [T + 1, B, R * D], the reads, and [T, B, C]

    @classmethod
    def begin(cls, start: Start, keep: bool) -> FeedForward:
        seen = start.reads.new_empty(len(start.projected[0]) + 1, *start.reads.shape)
        seen[0] = start.reads
        return cls(start.recurrent, (seen, start.projected[0].clone()), seen.shape[-1])

    @property
    def reads(self) -> list[Tensor]:
        return [self.seen[1:]]

    def state(self) -> tuple[Tensor, ...]:
        return ()

    def prepare_forward(self) -> None:
        self.transposed = self.recurrent.t()
        self.steps = list(zip(self.seen[:-1].unbind(0), self.hidden.unbind(0), strict=True))

    def forward(self, t: int) -> Tensor:
        seen, hidden = self.steps[t]
        return hidden.addmm_(seen, self.transposed).tanh_()

    def prepare_backward(self, grad_state: Sequence[Tensor]) -> None:
        self.slopes = (1 - self.hidden.square()).unbind(0)
        self.grad_sums = torch.empty_like(self.hidden)
        self.grad_rows = self.grad_sums.unbind(0)

    def backward(self, t: int, grad: Tensor) -> Tensor:
        return torch.mul(grad, self.slopes[t], out=self.grad_rows[t]) @ self.recurrent

    def gradients(self) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        weight = self.grad_sums.flatten(0, 1).t() @ self.seen[:-1].flatten(0, 1)
        return [self.grad_sums], [weight], []


# --- Heads -----------------------------------------------------------------------------------------------


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


# --- Content (eqs. 5 and 6) ------------------------------------------------------------------------------


class Content(NamedTuple):
    """The tape of addressing by content."""

    key_norm: Tensor  # [T, B, H, 1], root of the squared norm plus NORM_EPS
    query: Tensor  # [T, B, H, D], strength * key / key_norm
    slot_scale: Tensor  # [T, B, 1, N], inverse norms of the slots
    similarity: Tensor  # [T, B, H, N], strength * cosine
    content: Tensor  # [T, B, H, N], the weighting


class ContentSlopes(NamedTuple):
    """Derivatives at every step; those of the similarity include the gate (eq. 7), which the softmax passes on."""

    unit_key: Tensor  # [T, B, H, D], of the key's norm with respect to the key
    key: Tensor  # [T, B, H, 1], of the query with respect to the key at a fixed norm
    dot: Tensor  # [T, B, H, N], of the similarity with respect to the product of query and slot
    slot: Tensor  # [T, B, H, N], of the similarity with respect to the slot through its norm, less the factor slot


class Constants(NamedTuple):
    """Tensors that every step needs."""

    root_eps: Tensor  # root of NORM_EPS, no dimension
    eps: Tensor  # NORM_EPS [1, 1, 1]
    ones: Tensor  # [B, 1, D]
    scratch: Tensor  # [B, D, N]

    @classmethod
    def of(cls, memory: Tensor, sizes: Sizes) -> Constants:
        _, batch, dim, n_slots = memory.shape
        return cls(
            root_eps=memory.new_full((), sizes.norm_eps**0.5),
            eps=memory.new_full((1, 1, 1), sizes.norm_eps),
            ones=memory.new_ones(batch, 1, dim),
            scratch=memory.new_empty(batch, dim, n_slots),
        )


def content_forward(
    step: Content, key: Tensor, strength: Tensor, memory: Tensor, constants: Constants
) -> None:
    """Fill `step` for keys [B, H, D], strengths [B, H, 1] and the memory [B, D, N]."""
    torch.linalg.vector_norm(key, dim=-1, keepdim=True, out=step.key_norm)
    torch.hypot(step.key_norm, constants.root_eps, out=step.key_norm)
    torch.mul(key, strength / step.key_norm, out=step.query)
    squares = torch.mul(memory, memory, out=constants.scratch)
    torch.baddbmm(constants.eps, constants.ones, squares, out=step.slot_scale).rsqrt_()
    torch.bmm(step.query, memory, out=step.similarity).mul_(step.slot_scale)
    torch.softmax(step.similarity, dim=-1, out=step.content)


def content_slopes(content: Content, heads: HeadValues) -> ContentSlopes:
    dot = heads.gate * content.slot_scale
    return ContentSlopes(
        unit_key=heads.key / content.key_norm,
        key=heads.strength / content.key_norm,
        dot=dot,
        slot=-dot * content.slot_scale * content.similarity,
    )


def content_backward(
    grad: HeadValues,
    step: Content,
    slopes: ContentSlopes,
    grad_gated: Tensor,
    memory: Tensor,
    grad_memory: Tensor,
) -> None:
    """Fill the gradients of key and strength, and add to that of the memory [B, D, N].

    Args:
        grad_gated: gradient of the interpolated weighting [B, H, N]; the gate is part of `slopes`.
    """
    before_softmax = softmax_backward(grad_gated, step.content)
    by_norm = torch.mul(before_softmax, slopes.slot).sum(1, keepdim=True)  # through the slots' norms
    dot = before_softmax.mul_(slopes.dot)
    grad_memory.baddbmm_(step.query.transpose(1, 2), dot)
    grad_memory.addcmul_(memory, by_norm)
    query = torch.bmm(dot, memory.transpose(1, 2))
    torch.sum(query * slopes.unit_key, dim=-1, keepdim=True, out=grad.strength)
    torch.addcmul(query, slopes.unit_key, grad.strength, value=-1, out=grad.key).mul_(slopes.key)


# --- Location (eqs. 7 to 9) ------------------------------------------------------------------------------


class Location(NamedTuple):
    """The tape of addressing by location."""

    shifted: Tensor  # [T, B, H, N]
    log: Tensor  # [T, B, H, N], logarithm of the weighting, floored


class LocationSlopes(NamedTuple):
    gated: Tensor  # [T, B, H, 1, N], the interpolated weighting
    gate: Tensor  # [T, B, H, N]
    previous: Tensor  # [T, B, H, 1]
    shifted: Tensor  # [T, B, H, N]


class Ring:
    """Room for weightings [B, H, N] on a circle: padded at both ends with what comes from the other end."""

    def __init__(self, like: Tensor, n_shifts: int) -> None:
        batch, n_heads, n_slots = like.shape
        reach = n_shifts // 2
        padded = like.new_empty(batch, n_heads, n_slots + 2 * reach)
        self.centre = padded[..., reach : reach + n_slots]
        self.ends = [] if not reach else [
            (padded[..., :reach], padded[..., n_slots : n_slots + reach]),
            (padded[..., n_slots + reach :], padded[..., reach : 2 * reach]),
        ]  # fmt: skip
        # [B, H, S, N]; window s holds the slots moved by r - s, so that slot i of it is slot i + s - r
        self.windows = padded.unfold(-1, n_slots, 1)
        self.each_window = self.windows.unbind(2)
        self.products = torch.empty_like(self.windows, memory_format=torch.contiguous_format)

    def close(self) -> None:
        """Fill the ends; to be called after `centre` was written."""
        for end, source in self.ends:
            end.copy_(source)

    def sum(self, factors: Sequence[Tensor], out: Tensor) -> Tensor:
        """Sum over the windows, each times its factor [B, H, 1]."""
        first, *others = self.each_window
        torch.mul(first, factors[0], out=out)
        for window, factor in zip(others, factors[1:], strict=True):
            out.addcmul_(window, factor)
        return out

    def dots(self, other: Tensor) -> Tensor:
        """Dot products [B, H, S] of every window with `other` [B, H, 1, N]."""
        return torch.mul(self.windows, other, out=self.products).sum(-1)


def location_forward(
    step: Location,
    heads: HeadValues,
    shifts: Sequence[Tensor],
    content: Tensor,
    previous: Tensor,
    new: Tensor,
    ring: Ring,
    floor: float,
) -> None:
    """Fill `step` and the new weightings [B, H, N] from those by content and the previous ones."""
    torch.lerp(previous, content, heads.gate, out=ring.centre)
    ring.close()
    ring.sum(shifts[::-1], out=step.shifted)
    torch.clamp_min(step.shifted, floor, out=step.log).log_()
    power = torch.addcmul(step.log, step.log, heads.excess)
    torch.softmax(power, dim=-1, out=new)


def location_slopes(
    location: Location, heads: HeadValues, content: Tensor, previous: Tensor, floor: float
) -> LocationSlopes:
    inverse = location.shifted.clamp_min(floor).reciprocal_().mul_(location.shifted >= floor)
    return LocationSlopes(
        gated=torch.lerp(previous, content, heads.gate).unsqueeze(3),
        gate=content - previous,
        previous=1 - heads.gate,
        shifted=inverse.mul_(1 + heads.excess),
    )


def location_backward(
    grad: HeadValues,
    step: Location,
    slopes: LocationSlopes,
    shift: Tensor,
    shifts: Sequence[Tensor],
    new: Tensor,
    grad_weights: Tensor,
    ring: Ring,
) -> Tensor:
    """Fill the gradients of gate, shift and exponent; `grad_weights` [B, H, N] turns from that of the new weightings
    into that of the previous ones.

    Returns:
        The gradient of the interpolated weightings [B, H, N].
    """
    power = softmax_backward(grad_weights, new)
    torch.sum(power * step.log, dim=-1, keepdim=True, out=grad.excess)
    torch.mul(power, slopes.shifted, out=ring.centre)
    ring.close()
    grad.shift.copy_(softmax_backward(ring.dots(slopes.gated), shift))
    gated = ring.sum(shifts, out=power)
    torch.sum(gated * slopes.gate, dim=-1, keepdim=True, out=grad.gate)
    torch.mul(gated, slopes.previous, out=grad_weights)
    return gated


# --- Writing and reading (eqs. 2 to 4) -------------------------------------------------------------------


class Erasing:
    """Room for what each write head erases."""

    def __init__(self, memory: Tensor, n_write_heads: int) -> None:
        batch, *slots = memory.shape
        self.products = memory.new_empty(batch, n_write_heads, *slots)  # weighting times erase vector
        self.each_product = self.products.unbind(1)

    def run(self, memory: Tensor, weights: Tensor, vectors: Tensor, left: Sequence[Tensor]) -> None:
        """Fill `left` with the memory that each head leaves, one head after the other.

        Args:
            memory: [B, D, N].
            weights: weightings of the write heads [B, W, 1, N].
            vectors: their erase vectors [B, W, D, 1].
            left: room for memories, the first head's and so on.
        """
        torch.mul(vectors, weights, out=self.products)
        for place, product in zip(left, self.each_product, strict=False):
            memory = torch.addcmul(memory, memory, product, value=-1, out=place)


def write_forward(
    memory: Tensor, new: Tensor, weights: Tensor, vectors: Tensor, add: Tensor, erasing: Erasing
) -> None:
    """Fill the new memory [B, D, N].

    Args:
        memory: before the write.
        weights: weightings of the write heads [B, W, N].
        vectors: their erase vectors [B, W, D, 1].
        add: their add vectors, transposed [B, D, W].
        erasing: scratch.
    """
    erasing.run(memory, weights.unsqueeze(2), vectors, [new] * weights.shape[1])
    new.baddbmm_(add, weights)


class WriteRoom:
    """Scratch of `write_backward`."""

    def __init__(self, memory: Tensor, n_write_heads: int) -> None:
        batch, dim, n_slots = memory.shape
        self.erasing = Erasing(memory, n_write_heads)
        self.left = memory.new_empty(n_write_heads - 1, *memory.shape).unbind(0)
        shares = memory.new_empty(batch, n_write_heads, dim, n_slots)  # gradient times what a head found
        self.each_share, self.shares = shares.unbind(1), shares.flatten(0, 1)


def write_backward(
    grad: HeadValues,
    heads: HeadValues,
    memory: Tensor,
    weights: Tensor,
    grad_memory: Tensor,
    scratch: WriteRoom,
) -> Tensor:
    """Fill the gradients of erase and add.

    Args:
        memory: before the write.
        weights: weightings of the write heads [B, W, N].
        grad_memory: turns from the gradient of the memory after the write into that of the memory before it.

    Returns:
        The gradient of the write heads' weightings [B, W, N].
    """
    grad.add.copy_(torch.bmm(weights, grad_memory.transpose(1, 2)))
    grad_weights = torch.bmm(heads.add, grad_memory)
    scratch.erasing.run(memory, weights.unsqueeze(2), heads.erase.unsqueeze(-1), scratch.left)
    found = (memory, *scratch.left)
    for head in reversed(range(len(found))):
        torch.mul(grad_memory, found[head], out=scratch.each_share[head])
        grad_memory.addcmul_(grad_memory, scratch.erasing.each_product[head], value=-1)
    flat_weights, flat_erase = (
        x.reshape(-1, 1, x.shape[-1]) for x in (weights, heads.erase)
    )  # [B * W, 1, .]
    torch.neg(torch.bmm(flat_weights, scratch.shares.transpose(1, 2)).view_as(grad.erase), out=grad.erase)
    grad_weights.view_as(flat_weights).baddbmm_(flat_erase, scratch.shares, alpha=-1)
    return grad_weights


def read_forward(memory: Tensor, weights: Tensor, places: Sequence[Tensor]) -> None:
    """Fill every place [B, R, D] with what the read heads' weightings [B, R, N] read."""
    # a product is fast only into a tensor of its own, so it is copied once more
    reads = torch.bmm(weights, memory.transpose(1, 2))
    for place in places:
        place.copy_(reads)


def read_backward(grad: Tensor, memory: Tensor, weights: Tensor, grad_memory: Tensor) -> Tensor:
    """Add to the gradient of the memory; returns that of the read heads' weightings; `grad` is that of the reads."""
    grad_memory.baddbmm_(grad.transpose(1, 2), weights)
    return torch.bmm(grad, memory)


# --- The loop over time ----------------------------------------------------------------------------------


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


def untransposed(memory: Tensor) -> Tensor:
    """A copy [B, N, D] of a memory [B, D, N]."""
    return memory.transpose(1, 2).clone(memory_format=torch.contiguous_format)


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
