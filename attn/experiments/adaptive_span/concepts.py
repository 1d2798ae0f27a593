"""Small computed examples of chapter 3: the soft mask, its gradient, and what a cache that does not exist does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from attn.adaptive_span import (
    RelativePositions,
    SpanAttention,
    soft_span_mask,
    span_weights,
)


def masks(spans: Sequence[float], ramp_size: int, max_distance: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances [X], and the mask of each span there [spans, X]."""
    distance = torch.linspace(0, max_distance, 401)
    mask = soft_span_mask(distance, torch.tensor(spans)[:, None], ramp_size)
    return distance.numpy(), mask.numpy()


class Gradients(NamedTuple):
    """What one query's output says to its span: a hard cut is flat between jumps, a ramp is not."""

    spans: np.ndarray  # [Z]
    hard: np.ndarray  # output with keys up to z at full weight [Z]
    soft: np.ndarray  # with the ramp [Z]


def soft_and_hard(*, n_keys: int = 12, ramp_size: int = 4, head_dim: int = 4, seed: int = 3) -> Gradients:
    """The output of one query over its span, with a hard cut and with a ramp: the same keys, no positions."""
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(1, 1, 1, head_dim, generator=generator)
    key = torch.randn(1, 1, n_keys + 1, head_dim, generator=generator)
    value = torch.randn(n_keys + 1, generator=generator)
    spans = torch.linspace(0, n_keys - ramp_size, 161)
    positions = torch.zeros(head_dim, n_keys)
    soft = [
        span_weights(query, key, positions, span.view(1, 1, 1), ramp_size=ramp_size)[0][0, 0, 0] @ value
        for span in spans
    ]
    scores = (query @ key.transpose(-2, -1))[0, 0, 0] * head_dim**-0.5
    distance = torch.arange(n_keys, -1, -1)
    hard = []
    for span in spans + ramp_size / 2:
        seen = (distance >= 1) & (distance <= span)
        hard.append(torch.softmax(scores.masked_fill(~seen, -torch.inf), 0) @ value)
    return Gradients(spans.numpy(), torch.stack(hard).numpy(), torch.stack(soft).numpy())


@torch.no_grad()
def small_maps(*, length: int = 12, seed: int = 2) -> Mapping[str, np.ndarray]:
    """Attention weights of the first head of an untrained layer on a block of tokens, by kind of span [T, T].

    Of the dynamic span, v is made larger and b is raised, so that the width of the band shows on so few tokens.
    """
    found = {}
    for span in ("fixed", "adaptive", "dynamic"):
        torch.manual_seed(seed)
        positions = RelativePositions(head_dim=8, max_span=length)
        layer = SpanAttention(d_model=16, n_heads=2, positions=positions, span=span, ramp_size=4)
        inputs = torch.randn(1, length, 16)
        if span == "dynamic":
            layer.span.linear.weight.mul_(6)
            layer.span.linear.bias.fill_(-1.0)
        found[span] = layer.attention_maps(inputs)[0][0, 0].numpy()
    return found


class Zeros(NamedTuple):
    """What a cache of zeros takes from the last token of the block that follows it."""

    weight: float  # share of the token's weight, mean over heads
    equal: float  # the share of zeros among all places that it sees


@torch.no_grad()
def zeros_take(*, max_span: int, length: int, d_model: int = 16, seed: int = 1) -> Zeros:
    """Weight on a cache of zeros at the end of the first block of `length` tokens: a fixed span, an untrained layer."""
    torch.manual_seed(seed)
    positions = RelativePositions(head_dim=d_model // 2, max_span=max_span)
    layer = SpanAttention(d_model=d_model, n_heads=2, positions=positions, span="fixed")
    weights, _ = layer.attention_maps(torch.randn(1, length, d_model), torch.zeros(1, max_span, d_model))
    return Zeros(
        weight=float(weights[..., -1, :max_span].sum(-1).mean()),
        equal=max(0, max_span - (length - 1)) / max_span,
    )


def zeros_take_words() -> str:
    """The same in a sentence."""
    length, max_span = 8, 64
    found = zeros_take(max_span=max_span, length=length)
    return (
        f"In an untrained layer with a span of {max_span}, the last token of a first block of {length} gives zeros "
        f"{found.weight:.2f} of its weight; equal weight on all that it sees would give them {found.equal:.2f}."
    )
