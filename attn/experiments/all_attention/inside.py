"""What persistent vectors are used for: how much weight they get, and at which symbols.

Shapes: L layers with persistent vectors, H heads, N vectors a head, V symbols, B rows, T tokens of a segment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from attn.all_attention import AllAttention
from attn.data.token_batch import TokenBatch

Segments = Callable[[], Iterable[TokenBatch]]
TOP, PLACES = 6, 4  # vectors a layer that are kept, and places a vector


def joint_layers(model: nn.Module) -> list[AllAttention]:
    """The layers in which one softmax covers context and persistent vectors."""
    return [
        module
        for module in model.modules()
        if isinstance(module, AllAttention) and module.persistent is not None and module.variant == "joint"
    ]


@contextmanager
def without_vectors(model: nn.Module) -> Iterator[None]:
    """The model with the context alone, for a while."""
    layers = joint_layers(model)
    own = [layer.persistent for layer in layers]
    for layer in layers:
        layer.persistent = None
    try:
        yield
    finally:
        for layer, vectors in zip(layers, own, strict=True):
            layer.persistent = vectors


@torch.no_grad()
def persistent_weights(
    model: nn.Module, segments: Iterable[TokenBatch]
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Read a text in order: tokens of each segment [B, T], and weights on the vectors of each layer [B, H, T, N]."""
    found: list[Tensor] = []

    def keep(layer: AllAttention, arguments: tuple) -> None:
        found.append(layer.attention_maps(*arguments)[1])

    hooks = [layer.register_forward_pre_hook(keep) for layer in joint_layers(model)]
    state = None
    try:
        for batch in segments:
            found.clear()
            _, state = model(batch.tokens, None if batch.is_start else state)
            yield batch.tokens, list(found)
    finally:
        for hook in hooks:
            hook.remove()


def mean_mass(model: nn.Module, segments: Iterable[TokenBatch]) -> np.ndarray:
    """Mean weight on all vectors of a head [L, H]; the model has layers that `joint_layers` finds."""
    found = [
        torch.stack([fixed.sum(-1).mean((0, 2)) for fixed in weights])
        for _, weights in persistent_weights(model, segments)
    ]
    return torch.stack(found).mean(0).cpu().numpy().astype(np.float32)


def usage_by_symbol(
    model: nn.Module, segments: Iterable[TokenBatch], vocab_size: int
) -> tuple[Tensor, Tensor]:
    """Mean weight on each vector where the query is at each symbol [L, V, H, N], and how often that is [V]."""
    layers = joint_layers(model)
    device = next(model.parameters()).device
    n_heads, n_persistent, _ = layers[0].persistent.key.shape
    total = torch.zeros(len(layers), vocab_size, n_heads * n_persistent, device=device)
    count = torch.zeros(vocab_size, device=device)
    for tokens, weights in persistent_weights(model, segments):
        count += torch.bincount(tokens.flatten(), minlength=vocab_size)
        for layer, fixed in zip(total, weights, strict=True):
            layer.index_add_(0, tokens.flatten(), fixed.permute(0, 2, 1, 3).flatten(2).flatten(0, 1))
    mean = total / count.clamp(min=1)[:, None]
    return mean.unflatten(-1, (n_heads, n_persistent)), count


def inside(model: nn.Module, segments: Segments, vocab_size: int) -> dict[str, np.ndarray]:
    """What is kept of a trained model, from a stretch of text that `segments()` reads from its start.

    Returns:
        Nothing without such layers, else
        `mass` [L, H]: mean weight on all vectors of a head;
        `sorted_usage` [L, H N]: mean weight on each vector, the largest first;
        `top_head`, `top_vector` [L, K]: the K vectors with the largest mean weight;
        `top_usage` [L, K, V]: their mean weight by the symbol at the query; `symbol_count` [V];
        `top_places` [L, K, P]: where in `tokens` each gets most weight; `tokens`: the text read, row by row.
    """
    if not joint_layers(model):
        return {}
    usage, count = usage_by_symbol(model, segments(), vocab_size)
    mean = torch.einsum("lvhn,v->lhn", usage, count / count.sum())
    ordered, index = mean.flatten(1).sort(dim=1, descending=True)
    top = index[:, :TOP]
    picked = usage.flatten(2).gather(2, top[:, None].expand(-1, vocab_size, -1))  # [L, V, K]
    tokens, places = _best_places(model, segments(), top)
    n_persistent = usage.shape[-1]
    kept = {
        "mass": mean.sum(-1),
        "sorted_usage": ordered,
        "top_usage": picked.transpose(1, 2),
        "symbol_count": count,
    }
    return {
        **{name: values.cpu().numpy().astype(np.float32) for name, values in kept.items()},
        "top_head": (top // n_persistent).cpu().numpy().astype(np.int16),
        "top_vector": (top % n_persistent).cpu().numpy().astype(np.int16),
        "top_places": places.cpu().numpy().astype(np.int32),
        "tokens": tokens.cpu().numpy().astype(np.int32),
    }


def _best_places(model: nn.Module, segments: Iterable[TokenBatch], top: Tensor) -> tuple[Tensor, Tensor]:
    """The text row by row [B * length], and where in it the vectors `top` [L, K] get most weight [L, K, P].

    Places of the first segment are left out: where a text begins there is little context, so that persistent vectors get
    the weight whatever the symbol is.
    """
    read, gathered = [], []
    for tokens, weights in persistent_weights(model, segments):
        read.append(tokens)
        flat = (fixed.permute(0, 2, 1, 3).flatten(2) for fixed in weights)  # [B, T, H N]
        gathered.append(torch.stack([layer[..., index] for layer, index in zip(flat, top, strict=True)]))
    along = torch.cat(gathered, dim=2)  # [L, B, length, K]
    if len(read) > 1:
        along[:, :, : read[0].shape[1]] = -torch.inf
    places = along.flatten(1, 2).topk(PLACES, dim=1).indices  # [L, P, K]
    return torch.cat(read, dim=1).flatten(), places.transpose(1, 2)
