"""The controllers' steps, forwards and backwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from attn.ntm_scan.sequence import Start, room, rows


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
