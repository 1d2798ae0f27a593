"""Full and local attention with the Reformer's changes: shared queries and keys of unit length, a token its own last
resort (Kitaev et al. 2020, arXiv:2001.04451, Sec. 2).

Shapes: B batch, H heads, T length, E width of a query, V of a value, m `chunk_len`. In every mask [B, T] True means "a
token that may attend and be attended to"; the others, padding, get zeros as their output and are nobody's key.

The scale. The paper leaves 1 / sqrt(d_k) out of its formulas and divides every key by its length. The authors' code
divides keys by their root mean square and then by sqrt(d_k): their length is 1 either way, and that is all the scaling.
So `scale` is 1 for keys of unit length, and E ** -0.5 for others. Other public code multiplies the products of unit
keys by E ** -0.5 once more, which makes attention flatter; `scale` can be given.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from attn.attention import check_positive, scaled_dot_product_attention

# Added to a squared length before the root, so that an empty vector has a finite gradient.
LENGTH_EPS = 1e-12


def unit(vectors: Tensor) -> Tensor:
    """The vectors [..., E] divided by their lengths, k_j = q_j / ||q_j||."""
    return vectors * (vectors.square().sum(-1, keepdim=True) + LENGTH_EPS).rsqrt()


def full_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    is_causal: bool = False,
    unit_keys: bool = False,
    self_last: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Attention of every token to every token, with the Reformer's changes as switches.

    Args:
        query: [B, H, T, E].
        key: [B, H, T, E]; the same tensor as `query` for shared queries and keys.
        value: [B, H, T, V].
        mask: [B, T], True for tokens; None for all.
        is_causal: allow no key later than its query.
        unit_keys: divide every key by its length.
        self_last: a token attends to itself only where nothing else is allowed.
        scale: factor on the products; None for 1 with `unit_keys` and E ** -0.5 without.

    Returns:
        [B, H, T, V].

    Raises:
        ValueError: if shapes do not fit, or the mask is not boolean.
    """
    check_heads(query, key, value, mask)
    scale, key = default_scale(scale, unit_keys, query.shape[-1]), unit(key) if unit_keys else key
    if not self_last and mask is None:
        return scaled_dot_product_attention(query, key, value, is_causal=is_causal, scale=scale)[0]
    position = torch.arange(query.shape[2], device=query.device)
    allowed = _allowed(position, position, is_causal)  # [T, T]
    itself = position == position.unsqueeze(-1)
    if mask is not None:
        allowed = allowed & (mask.unsqueeze(-1) & mask.unsqueeze(-2)).unsqueeze(1)  # [B, 1, T, T]
    if self_last:
        allowed = _self_last(allowed, itself)
    return scaled_dot_product_attention(query, key, value, allowed, scale=scale)[0]


def shared_qk_attention(
    query: Tensor, value: Tensor, mask: Tensor | None = None, *, is_causal: bool = False, scale: float = 1.0
) -> Tensor:
    """What LSH attention approximates: keys are queries of unit length, and a token is its own last resort (Sec. 2).

    Args and Returns: as `full_attention`.
    """
    shared = {"unit_keys": True, "self_last": True}
    return full_attention(query, query, value, mask, is_causal=is_causal, scale=scale, **shared)


def _allowed(query: Tensor, key: Tensor, is_causal: bool) -> Tensor:
    """Whether positions `query` [..., T] may attend to positions `key` [..., S], themselves included [..., T, S]."""
    query, key = query.unsqueeze(-1), key.unsqueeze(-2)
    return key <= query if is_causal else torch.ones_like(key <= query)


def _self_last(allowed: Tensor, itself: Tensor) -> Tensor:
    """`allowed` without the token itself, but where nothing else is left."""
    others = allowed & ~itself
    return others | (allowed & ~others.any(-1, keepdim=True))


def default_scale(scale: float | None, unit_keys: bool, head_dim: int) -> float:
    if scale is not None:
        return scale
    return 1.0 if unit_keys else head_dim**-0.5


def local_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    chunk_len: int,
    is_causal: bool = False,
    unit_keys: bool = False,
    self_last: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Attention within chunks of m tokens and one chunk back, in the order of the sequence.

    The first chunk looks back at nothing. Any length will do: the last chunk is filled up inside.

    Args:
        chunk_len: m.
        others: as in `full_attention`.

    Returns:
        [B, H, T, V].

    Raises:
        ValueError: if shapes do not fit, the mask is not boolean, or `chunk_len` is below 1.
    """
    check_positive(chunk_len=chunk_len)
    check_heads(query, key, value, mask)
    scale, key = default_scale(scale, unit_keys, query.shape[-1]), unit(key) if unit_keys else key
    (batch, n_heads, length), device = query.shape[:3], query.device
    mask = torch.ones(1, length, dtype=torch.bool, device=device) if mask is None else mask
    position = torch.arange(length, device=device)
    query, key, value, mask, position = (
        chunks_of(filled_up(tensor, dim, chunk_len), dim, chunk_len)
        for tensor, dim in ((query, 2), (key, 2), (value, 2), (mask, 1), (position, 0))
    )  # chunks of queries [B, H, C, m, E], of the mask [B or 1, C, m], of positions [C, m]
    allowed = _allowed(position, look_back(position, 0), is_causal)  # [C, m, 2m]
    allowed[0, :, :chunk_len] = False  # the first chunk's look back
    allowed = allowed & mask.unsqueeze(-1) & look_back(mask, 1).unsqueeze(-2)  # [B or 1, C, m, 2m]
    if self_last:
        own = torch.arange(chunk_len, device=device)
        itself = own.unsqueeze(-1) + chunk_len == torch.arange(2 * chunk_len, device=device)
        allowed = _self_last(allowed, itself)
    output, _ = scaled_dot_product_attention(
        query.flatten(1, 2),  # [B, H C, m, E]
        look_back(key, 2).flatten(1, 2),
        look_back(value, 2).flatten(1, 2),
        allowed.unsqueeze(1).expand(-1, n_heads, -1, -1, -1).flatten(1, 2),
        scale=scale,
    )
    return output.reshape(batch, n_heads, -1, value.shape[-1])[:, :, :length]


def filled_up(tensor: Tensor, dim: int, chunk_len: int) -> Tensor:
    """With zeros (False) after the end of `dim` up to a whole number of chunks."""
    missing = -tensor.shape[dim] % chunk_len
    return F.pad(tensor, [0, 0] * (tensor.dim() - dim - 1) + [0, missing]) if missing else tensor


def chunks_of(tensor: Tensor, dim: int, chunk_len: int) -> Tensor:
    """`dim` of C m to two dimensions, C and m."""
    return tensor.unflatten(dim, (-1, chunk_len))


def look_back(chunks: Tensor, dim: int) -> Tensor:
    """Every chunk with the one before it in front: [..., C, m, ...] to [..., C, 2m, ...], where C is dimension `dim`.

    The first one gets the last one; whether it may look there is the mask's business.
    """
    return torch.cat([chunks.roll(1, dim), chunks], dim=dim + 1)


def check_heads(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> None:
    shapes = [list(tensor.shape) for tensor in (query, key, value)]
    if {len(shape) for shape in shapes} != {4} or not (
        shapes[0] == shapes[1] and shapes[1][:3] == shapes[2][:3]
    ):
        raise ValueError(
            "query, key and value must have shapes [B, H, T, E], [B, H, T, E] and [B, H, T, V]; got "
            f"{shapes[0]}, {shapes[1]} and {shapes[2]}"
        )
    if mask is None:
        return
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be boolean, True for tokens; got {mask.dtype}")
    if list(mask.shape) != [shapes[0][0], shapes[0][2]]:
        raise ValueError(
            f"mask must have shape [batch, length] = {[shapes[0][0], shapes[0][2]]}; got {list(mask.shape)}"
        )
