"""The model of one sentence, word by word as the paper writes it, from the matrices of a `RecurrentTranslator`."""

import torch
from torch import Tensor

from attn.recurrent_translation import RecurrentTranslator


def additive_attention(
    query: Tensor, memory: list[Tensor], w: Tensor, u: Tensor, v: Tensor, bias: Tensor | float = 0.0
) -> tuple[Tensor, list[Tensor]]:
    """Context and weights of one query."""
    energies = []
    for vector in memory:
        hidden = torch.tanh(w @ query + u @ vector + bias)
        energies.append(torch.exp(sum(v[k] * hidden[k] for k in range(len(v)))))
    weights = [energy / sum(energies) for energy in energies]
    return sum(weight * vector for weight, vector in zip(weights, memory, strict=True)), weights


class Unit:
    """A gated unit or LSTM cell; `reset` says whether the GRU's reset gate acts "after" the recurrent matrix, as in
    torch, or "before", as in the paper."""

    def __init__(self, layer: torch.nn.Module, suffix: str = "", reset: str = "after") -> None:
        self.reset, self.is_lstm = reset, isinstance(layer, torch.nn.LSTM)
        gates = 4 if self.is_lstm else 3
        self.w, self.u = (getattr(layer, f"weight_{kind}_l0{suffix}").chunk(gates) for kind in ("ih", "hh"))
        self.b, self.c = (
            getattr(layer, f"bias_{kind}_l0{suffix}").chunk(gates) if layer.bias else [0.0] * gates
            for kind in ("ih", "hh")
        )

    def __call__(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        given = [w @ x + b for w, b in zip(self.w, self.b, strict=True)]
        s = state[0]
        recurrent = [u @ s + c for u, c in zip(self.u, self.c, strict=True)]
        if self.is_lstm:
            i, f, g, o = (one + other for one, other in zip(given, recurrent, strict=True))
            cell = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
            return o.sigmoid() * cell.tanh(), cell
        r, z = ((given[k] + recurrent[k]).sigmoid() for k in (0, 1))
        if self.reset == "before":
            recurrent[2], r = self.u[2] @ (r * s) + self.c[2], 1
        # torch's update gate is 1 minus the paper's
        return ((1 - z) * torch.tanh(given[2] + r * recurrent[2]) + z * s,)


def translate(
    model: RecurrentTranslator, source: list[int], target: list[int], reset: str = "after"
) -> tuple[Tensor, Tensor | None]:
    """Logits [T, V] and weights [T, S] or None, for a sentence without padding."""
    n, parts = model.hidden_size, 2 if model.is_lstm else 1
    zero = (torch.zeros(n, dtype=model.maxout.weight.dtype),) * parts

    def read(words: list[int], suffix: str) -> list[Tensor]:
        unit, state, states = Unit(model.encoder, suffix, reset), zero, []
        for word in words:
            state = unit(model.embedding.weight[word], state)
            states.append(state[0])
        return states

    forward = read(source, "")
    if model.attention is None:
        first, context, weights = forward[-1], forward[-1], None
    else:
        backward = read(source[::-1], "_reverse")[::-1]
        first, memory = backward[0], [torch.cat(pair) for pair in zip(forward, backward, strict=True)]

    def linear(layer: torch.nn.Linear, vector: Tensor) -> Tensor:
        return layer.weight @ vector + (0.0 if layer.bias is None else layer.bias)

    start = torch.tanh(linear(model.start, first))
    state = tuple(start[k * n : (k + 1) * n] for k in range(parts))
    unit, logits, maps = Unit(model.decoder, reset=reset), [], []
    for word in target:
        embedded = model.target_embedding.weight[word]
        if model.attention is not None:
            attention = model.attention
            bias = 0.0 if attention.key.bias is None else attention.key.bias
            context, weights = additive_attention(
                state[0], memory, attention.query.weight, attention.key.weight, attention.score[0], bias
            )
            maps.append(torch.stack(weights))
        both = linear(model.maxout, torch.cat([state[0], embedded, context]))
        maxima = [torch.maximum(both[2 * j], both[2 * j + 1]) for j in range(len(both) // 2)]
        logits.append(linear(model.unembedding, torch.stack(maxima)))
        state = unit(torch.cat([embedded, context]), state)
    return torch.stack(logits), torch.stack(maps) if maps else None
