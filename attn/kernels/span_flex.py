"""Attention over learned spans by FlexAttention, for a GPU (Sukhbaatar et al. 2019, arXiv:1905.07799).

`attn.adaptive_span.span_attention` defines the numbers. Keys stand in one row, persistent ones first, then those of the
cache and of the block. What a score gets beside its product, the position term and the logarithm of the mask, is one
tensor with a column for each distance, from which FlexAttention's kernels read while they run. A block mask for each
head says which tiles of the scores lie within its reach; the others cost nothing. It is made anew only when a reach
crosses the border of a tile.

A weight has no dropout here, since FlexAttention has none: `attn.kernels.span` does that. Before its first use on a
device the whole is compared with `attn.kernels.span` on a small example, gradients included, and is left alone where
it differs or cannot be compiled.

Shapes as in `attn.adaptive_span`; L longest reach of any head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from attn.kernels import span as by_blocks
from attn.kernels.flex import DTYPES, TILE, compiled
from attn.kernels.span import log_mask, log_mask_slope
from attn.kernels.verified import agrees


def suits(query: Tensor, dropout: float) -> bool:
    """Whether to attend here rather than by `attn.kernels.span`."""
    return query.device.type == "cuda" and query.dtype in DTYPES and not dropout and _verified(query.device)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    hidden: Tensor | None,
    weight: Tensor | None,
    positions: Tensor,
    span: Tensor,
    fixed_key: Tensor | None,
    fixed_value: Tensor | None,
    *,
    ramp_size: int,
    reach: Sequence[int],
    flex: Callable[..., Tensor] | None = None,
) -> Tensor:
    """As `attn.kernels.span.attend`, without dropout.

    Args:
        flex: what computes the attention; None for FlexAttention, compiled.
    """
    lonely = int(hidden is None and fixed_key is None)  # the first token of all has nothing to attend to
    if lonely == query.shape[2]:
        return by_blocks.attend(
            query, key, value, hidden, weight, positions, span, fixed_key, fixed_value, ramp_size=ramp_size,
            reach=reach, dropout=0.0,
        )  # fmt: skip
    tiles = tuple(-(-own // TILE) * TILE for own in reach)
    cached = 0
    if hidden is not None:
        hidden = hidden[:, -max(tiles) :].detach()  # whole tiles, so that the number of keys seldom changes
        cached = hidden.shape[1]
        old = torch.einsum("bcd,khed->kbhce", hidden, weight)
        key, value = torch.cat([old[0], key], dim=2), torch.cat([old[1], value], dim=2)
    query, span = query[:, :, lonely:], span[:, :, lonely:] if span.dim() == 4 else span
    longest = min(max(reach), key.shape[2] - 1)
    bias = score_bias(query, positions[:, :longest], span, ramp_size)
    n_fixed = 0
    if fixed_key is not None:
        n_fixed = fixed_key.shape[1]
        key = torch.cat([fixed_key.to(key).expand(len(key), -1, -1, -1), key], dim=2)
        value = torch.cat([fixed_value.to(value).expand(len(value), -1, -1, -1), value], dim=2)
    # where the first query stands among the keys; as a tensor, so that another cache compiles nothing anew
    first = torch.tensor(n_fixed + cached + lonely, device=query.device)
    attended = (flex or compiled())(
        query, key, value,
        score_mod=_score_mod(bias, first, n_fixed),
        block_mask=_block_mask(tiles, query.shape[2], key.shape[2], n_fixed, query.device),
    )  # fmt: skip
    return F.pad(attended, (0, 0, lonely, 0)).to(query.dtype)


def score_bias(query: Tensor, positions: Tensor, span: Tensor, ramp_size: int) -> Tensor:
    """What the score of each distance gets beside its product, in float32 at least: [B, H, T, L].

    Args:
        query: [B, H, T, E].
        positions: of the distances 1 ... L [E, L].
        span: z, [H, 1, 1] or [B, H, T, 1].
        ramp_size: R.
    """
    dtype = torch.promote_types(query.dtype, torch.float32)
    terms = (query * query.shape[-1] ** -0.5) @ positions.to(query.dtype)
    distance = torch.arange(1, positions.shape[1] + 1, dtype=dtype, device=query.device)
    ramp = ((ramp_size + span.to(dtype) - distance) / ramp_size).detach()
    # the slope by hand, because that of the logarithm is infinite where the mask is just 0
    rise = log_mask_slope(ramp, ramp_size) * (span - span.detach())  # 0, with the gradient
    return terms.to(dtype) + log_mask(ramp) + rise


def _score_mod(bias: Tensor, first: Tensor, n_fixed: int) -> Callable[..., Tensor]:
    """Adds a score's bias; what stands at no distance from 1 to L is hidden, unless it is persistent."""
    longest = bias.shape[-1]

    def change(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        distance = query + first - key
        own = bias[batch, head, query, (distance - 1).clamp(0, longest - 1)]
        within = (distance >= 1) & (distance <= longest)
        return torch.where(key < n_fixed, score, torch.where(within, score + own, -torch.inf))

    return change


@lru_cache(maxsize=256)
def _block_mask(
    reach: tuple[int, ...], length: int, key_len: int, n_fixed: int, device: torch.device
) -> BlockMask:
    """Which tiles each head needs, its reach being in whole tiles; the last query stands at the last key."""
    reaches, first = torch.tensor(reach, device=device), torch.tensor(key_len - length, device=device)

    def needed(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        distance = query + first - key
        return (key < n_fixed) | ((distance >= 1) & (distance <= reaches[head]))

    return create_block_mask(needed, None, len(reach), length, key_len, device=device, BLOCK_SIZE=TILE)


# --- The comparison before the first use -----------------------------------------------------------------------


@cache
def _verified(device: torch.device) -> bool:
    """Whether outputs and gradients are those of `attn.kernels.span`."""
    return agrees(
        "FlexAttention for adaptive spans",
        lambda: _example(attend, device),
        lambda: _example(partial(by_blocks.attend, dropout=0.0), device),
    )


def _example(run: Callable[..., Tensor], device: torch.device) -> dict[str, Tensor]:
    """Output and gradients of a small case with a cache, persistent vectors and spans of all lengths."""
    generator = torch.Generator().manual_seed(0)

    def made(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device).requires_grad_()

    arguments = {
        "query": made(2, 4, 200, 16), "key": made(2, 4, 200, 16), "value": made(2, 4, 200, 16),
        "hidden": made(2, 300, 64).detach(), "weight": made(2, 4, 16, 64), "positions": made(16, 256),
        "span": torch.tensor([0.0, 40.0, 130.0, 256.0], device=device)[:, None, None].requires_grad_(),
        "fixed_key": made(4, 20, 16), "fixed_value": made(4, 20, 16),
    }  # fmt: skip
    output = run(*arguments.values(), ramp_size=32, reach=[32, 72, 162, 256])
    leaves = {name: tensor for name, tensor in arguments.items() if tensor.requires_grad}
    direction = torch.randn(output.shape, generator=generator).to(output)
    gradients = torch.autograd.grad((output * direction).sum(), list(leaves.values()), materialize_grads=True)
    return {"output": output.detach()} | {
        f"gradient of {name}": gradient for name, gradient in zip(leaves, gradients, strict=True)
    }
