"""A Neural Turing Machine as it is most often written: a module for each head, a linear layer for each of its
parameters, loops over time steps, heads and shifts, and the output computed inside the loop over time.

It stands beside `attn.ntm` twice: outputs and gradients must agree, and the benchmark sets the speeds side by
side. Public PyTorch implementations mostly loop over the batch too, where they shift and where they write;
`loop_over_batch` does so.
"""

import torch
import torch.nn.functional as F
from torch import nn

from attn.ntm import INITIAL_MEMORY, NORM_EPS, WEIGHT_FLOOR, FeedForwardController


class Head(nn.Module):
    """A head that addresses the memory; as it stands, a read head."""

    def __init__(self, size, slot_dim, shift_range, loop_over_batch):
        super().__init__()
        self.shift_range, self.loop_over_batch = shift_range, loop_over_batch
        self.key = nn.Linear(size, slot_dim)
        self.strength = nn.Linear(size, 1)
        self.gate = nn.Linear(size, 1)
        self.shift = nn.Linear(size, 2 * shift_range + 1)
        self.exponent = nn.Linear(size, 1)

    def address(self, memory, previous, hidden):
        """The weighting [B, N] for memory [B, N, D], previous weighting [B, N] and hidden state [B, C]."""
        key = torch.tanh(self.key(hidden)).unsqueeze(1)  # [B, 1, D]
        norms = torch.sqrt((key**2).sum(-1) + NORM_EPS) * torch.sqrt((memory**2).sum(-1) + NORM_EPS)
        similarity = (key * memory).sum(-1) / norms
        content = torch.softmax(F.softplus(self.strength(hidden)) * similarity, dim=-1)

        gate = torch.sigmoid(self.gate(hidden))
        gated = gate * content + (1 - gate) * previous

        shifted = self._shifted(gated, torch.softmax(self.shift(hidden), dim=-1))

        exponent = 1 + F.softplus(self.exponent(hidden))
        powers = shifted.clamp_min(WEIGHT_FLOOR) ** exponent
        return powers / powers.sum(dim=1, keepdim=True)

    def _shifted(self, weights, shift):
        if self.loop_over_batch:
            return torch.stack([self._shifted_row(w, s) for w, s in zip(weights, shift, strict=True)])
        shifted = torch.zeros_like(weights)
        for index in range(shift.shape[1]):
            rolled = torch.roll(weights, index - self.shift_range, dims=1)
            shifted = shifted + shift[:, index : index + 1] * rolled
        return shifted

    def _shifted_row(self, weights, shift):
        n_slots, reach = len(weights), self.shift_range
        padded = torch.cat([weights[n_slots - reach :], weights, weights[:reach]])
        return F.conv1d(padded.view(1, 1, -1), shift.flip(0).view(1, 1, -1)).view(-1)


class WriteHead(Head):
    """A head that also erases and adds."""

    def __init__(self, size, slot_dim, *options):
        super().__init__(size, slot_dim, *options)
        self.erase = nn.Linear(size, slot_dim)
        self.add = nn.Linear(size, slot_dim)


class PerStepNTM(nn.Module):
    """The machine with the equations and the weights of `model`, an `attn.ntm.NTM`."""

    def __init__(self, model, loop_over_batch=False):
        super().__init__()
        size, slot_dim, n_read = model.heads.linear.in_features, model.slot_dim, model.n_read_heads
        n_write, options = model.heads.n_write_heads, (model.heads.n_shifts // 2, loop_over_batch)
        self.loop_over_batch = loop_over_batch
        self.n_slots, self.slot_dim = model.n_slots, slot_dim
        seen = model.n_inputs + n_read * slot_dim
        self.is_lstm = not isinstance(model.controller, FeedForwardController)
        if self.is_lstm:
            n_layers = len(model.controller.inputs)
            self.cells = nn.ModuleList(nn.LSTMCell(seen + size * (i > 0), size) for i in range(n_layers))
            self.start = nn.ParameterList(torch.zeros(2, size) for _ in range(n_layers))
        else:
            self.hidden = nn.Linear(seen, size)
        self.read_heads = nn.ModuleList(Head(size, slot_dim, *options) for _ in range(n_read))
        self.write_heads = nn.ModuleList(WriteHead(size, slot_dim, *options) for _ in range(n_write))
        self.output = nn.Linear(size + n_read * slot_dim, model.n_outputs)
        self.to(model.output.weight.device, model.output.weight.dtype)
        weights = named_weights(model, lambda parameter: parameter.detach())
        for name, value in self.state_dict().items():
            if name.endswith("bias_hh"):  # torch's cells have a second bias
                weights[name] = torch.zeros_like(value)
        self.load_state_dict(weights)

    def forward(self, inputs):
        """Logits [B, T, n_outputs] for inputs [B, T, n_inputs]."""
        batch = inputs.shape[0]
        memory = inputs.new_full((batch, self.n_slots, self.slot_dim), INITIAL_MEMORY)
        reads = [inputs.new_zeros(batch, self.slot_dim) for _ in self.read_heads]
        first = inputs.new_zeros(batch, self.n_slots)
        first[:, 0] = 1
        read_weights, write_weights = [first] * len(self.read_heads), [first] * len(self.write_heads)
        state = None
        if self.is_lstm:
            state = [(start[0].expand(batch, -1), start[1].expand(batch, -1)) for start in self.start]
        logits = []
        for step in range(inputs.shape[1]):
            hidden, state = self._controller(torch.cat([inputs[:, step], *reads], dim=1), state)
            readers = zip(self.read_heads, read_weights, strict=True)
            writers = zip(self.write_heads, write_weights, strict=True)
            read_weights = [head.address(memory, w, hidden) for head, w in readers]
            write_weights = [head.address(memory, w, hidden) for head, w in writers]
            memory = self._written(memory, write_weights, hidden)
            reads = [torch.matmul(w.unsqueeze(1), memory).squeeze(1) for w in read_weights]
            logits.append(self.output(torch.cat([hidden, *reads], dim=1)))
        return torch.stack(logits, dim=1)

    def _written(self, memory, weights, hidden):
        for head, w in zip(self.write_heads, weights, strict=True):
            memory = memory * (1 - self._outer(w, torch.sigmoid(head.erase(hidden))))
        for head, w in zip(self.write_heads, weights, strict=True):
            memory = memory + self._outer(w, torch.tanh(head.add(hidden)))
        return memory

    def _outer(self, weights, vectors):
        if self.loop_over_batch:
            return torch.stack([torch.outer(w, v) for w, v in zip(weights, vectors, strict=True)])
        return weights.unsqueeze(2) * vectors.unsqueeze(1)

    def _controller(self, seen, state):
        if not self.is_lstm:
            return torch.tanh(self.hidden(seen)), state
        new_state, below = [], seen
        for cell, carried in zip(self.cells, state, strict=True):
            carried = cell(below, carried)
            new_state.append(carried)
            below = torch.cat([seen, carried[0]], dim=1)
        return new_state[-1][0], new_state


def named_weights(model, of=lambda parameter: parameter):
    """The weights of an `attn.ntm.NTM`, cut apart and named as `PerStepNTM` names its parameters.

    Args:
        model: the `attn.ntm.NTM`.
        of: what to take of each parameter, such as its gradient.
    """
    named = {"output.weight": of(model.output.weight), "output.bias": of(model.output.bias)}
    controller = model.controller
    if isinstance(controller, FeedForwardController):
        seen = [of(controller.input.weight), of(controller.recurrent.weight)]
        named |= {"hidden.weight": torch.cat(seen, dim=1), "hidden.bias": of(controller.input.bias)}
    else:
        for index, (outer, inner) in enumerate(zip(controller.inputs, controller.recurrent, strict=True)):
            from_below, from_self = of(inner.weight).tensor_split([-controller.size], dim=1)
            named[f"cells.{index}.weight_ih"] = _as_torch(torch.cat([of(outer.weight), from_below], dim=1))
            named[f"cells.{index}.weight_hh"] = _as_torch(from_self)
            named[f"cells.{index}.bias_ih"] = _as_torch(of(outer.bias))
            named[f"start.{index}"] = of(controller.initial)[index]
    return named | _named_heads(model, of)


def _as_torch(gates):
    """From the order input, forget, output, candidate to torch's input, forget, candidate, output."""
    enter, keep, out, candidate = gates.chunk(4)
    return torch.cat([enter, keep, candidate, out])


def _named_heads(model, of):
    readers = [f"read_heads.{i}" for i in range(model.n_read_heads)]
    writers = [f"write_heads.{i}" for i in range(model.heads.n_write_heads)]
    both, dim, n_shifts = readers + writers, model.slot_dim, model.heads.n_shifts
    cuts = [(f"{head}.key", dim) for head in both] + [(f"{head}.add", dim) for head in writers]
    cuts += [(f"{head}.gate", 1) for head in both] + [(f"{head}.erase", dim) for head in writers]
    cuts += [(f"{head}.strength", 1) for head in both] + [(f"{head}.exponent", 1) for head in both]
    cuts += [(f"{head}.shift", n_shifts) for head in both]
    named = {}
    for kind, values in (("weight", of(model.heads.linear.weight)), ("bias", of(model.heads.linear.bias))):
        pieces = values.split([width for _, width in cuts])
        named |= {f"{name}.{kind}": piece for (name, _), piece in zip(cuts, pieces, strict=True)}
    return named
