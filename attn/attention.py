"""Scaled dot-product and multi-head attention, masks and positions (Vaswani et al. 2017, arXiv:1706.03762).

Pure functions for the mathematics of Sec. 3.2 and 3.5 come first; the modules that own parameters follow.

Shapes: B batch, T query length, S key length, D `d_model`, H heads, E `head_dim` (the paper's d_k), V `value_dim`
(its d_v). In every mask True means "may attend".
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Longest wavelength of the sinusoids over 2 pi (Sec. 3.5).
POSITION_BASE = 10000.0


# --- Sec. 3.2.1: scaled dot-product attention --------------------------------------------------------------


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    dropout: float = 0.0,
    need_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """softmax(Q K^T / sqrt(d_k)) V (Sec. 3.2.1, eq. 1).

    A query that may attend to no key gets zeros, and gives zero gradients. torch's fused kernels do the work, which
    keep no [T, S] matrix, unless the weights are asked for; the sums then follow the equation line by line.

    Args:
        query: [B, H, T, E].
        key: [B, H, S, E].
        value: [B, H, S, V].
        mask: boolean, True may attend, broadcastable to [B, H, T, S]; None for everywhere.
        is_causal: allow no key later than its query, with the last query at the place of the last key. Faster than
            the same as a mask.
        scale: factor on the dot products; None for E ** -0.5.
        dropout: share of the weights that are set to 0, the others being raised to keep the mean.
        need_weights: also return the weights, at the cost of memory and time for [B, H, T, S].

    Returns:
        The output [B, H, T, V], and the weights [B, H, T, S] before dropout, or None.

    Raises:
        ValueError: if shapes or dtypes do not fit, the mask is not boolean, or dropout is not from 0 to below 1.
    """
    _check_attention(query, key, value, mask)
    check_dropout(dropout=dropout)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    query_len, key_len = query.shape[-2], key.shape[-2]
    if query_len == 1:
        is_causal = False  # a single query is the last and sees every key
    if is_causal and (need_weights or mask is not None or query_len != key_len):
        causal = causal_mask(query_len, key_len, device=query.device)
        mask = causal if mask is None else mask & causal
        is_causal = False
    if need_weights:
        return _weighted_sum(query, key, value, mask, scale, dropout)
    if mask is None:
        return F.scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, is_causal=is_causal, scale=scale
        ), None
    # Kernels differ in what they make of a row without a key, and some of their gradients are NaN: such a row
    # attends everywhere, and its output is cut off afterwards.
    mask = mask[(None,) * (4 - mask.dim())]
    empty = ~mask.any(-1, keepdim=True)
    output = F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask | empty, dropout_p=dropout, scale=scale
    )
    return output.masked_fill(empty, 0), None


def _weighted_sum(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, dropout: float
) -> tuple[Tensor, Tensor]:
    """The plain version: output and weights."""
    scores = torch.matmul(query * scale, key.transpose(-2, -1))  # [B, H, T, S]
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))  # half precision is coarse
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = torch.softmax(scores, dim=-1)
    if mask is not None:
        weights = weights.masked_fill(~mask, 0)  # a change only to rows without a key, uniform until here
    weights = weights.to(value.dtype)
    return torch.matmul(F.dropout(weights, dropout), value), weights


def causal_mask(query_len: int, key_len: int | None = None, *, device: torch.device | None = None) -> Tensor:
    """Mask [T, S] that hides every key later than its query (Sec. 3.2.3).

    Args:
        query_len: T.
        key_len: S, or None for T. The last query stands at the last key, as in decoding with a cache.
        device: where to make it.

    Returns:
        Boolean, True may attend [T, S].
    """
    key_len = query_len if key_len is None else key_len
    ones = torch.ones(query_len, key_len, dtype=torch.bool, device=device)
    return ones.tril(key_len - query_len)


def padding_mask(tokens: Tensor, padding_index: int) -> Tensor:
    """Mask [B, 1, 1, S] that hides the keys at padding.

    Args:
        tokens: token ids [B, S].
        padding_index: id of padding.

    Returns:
        Boolean, True may attend [B, 1, 1, S].
    """
    return (tokens != padding_index)[:, None, None, :]


# --- Sec. 3.5: positions -----------------------------------------------------------------------------------


def sinusoidal_positions(
    seq_len: int, d_model: int, *, dtype: torch.dtype | None = None, device: torch.device | None = None
) -> Tensor:
    """Sinusoids of wavelengths from 2 pi to 10000 * 2 pi, in geometric progression (Sec. 3.5).

    PE(pos, 2i) = sin(pos / 10000^(2i / D)) and PE(pos, 2i + 1) = cos(pos / 10000^(2i / D)). With an odd D the last
    column is a sine without its cosine. PE(pos + k) is PE(pos) with each pair turned by k / 10000^(2i / D).

    Args:
        seq_len: T.
        d_model: D.
        dtype: of the result, or None for torch's default; the computation is in float64.
        device: of the result, or None for torch's default.

    Returns:
        [T, D], one row a position from 0 on.

    Raises:
        ValueError: for a negative length, or a width below 1.
    """
    if seq_len < 0 or d_model < 1:
        raise ValueError(f"seq_len must be at least 0 and d_model at least 1; got {seq_len} and {d_model}")
    position = torch.arange(seq_len, dtype=torch.float64, device="cpu")
    column = torch.arange(0, d_model, 2, dtype=torch.float64, device="cpu")  # 2i
    angle = torch.outer(position, POSITION_BASE ** (-column / d_model))  # [T, ceil(D / 2)]
    table = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :d_model]
    return table.to(device=device or torch.get_default_device(), dtype=dtype or torch.get_default_dtype())


class SinusoidalPositions(nn.Module):
    """Fixed sinusoids as a table in the module's dtype, at every dtype rounded from float64.

    Args:
        d_model: D.
        max_len: positions in the table.
    """

    def __init__(self, *, d_model: int, max_len: int) -> None:
        super().__init__()
        check_positive(d_model=d_model, max_len=max_len)
        self.register_buffer("table", sinusoidal_positions(max_len, d_model), persistent=False)

    def _apply(self, fn, recurse=True):
        # Made anew after every change of dtype or device: float64 must not come from float32, nor from nothing
        # (`to_empty` after the meta device), and a table that can be computed needs no place in checkpoints.
        super()._apply(fn, recurse)
        max_len, d_model = self.table.shape
        self.table = sinusoidal_positions(max_len, d_model, dtype=self.table.dtype, device=self.table.device)
        return self

    def forward(self, seq_len: int, start: int = 0) -> Tensor:
        """Positions `start` to `start + seq_len - 1` [T, D]; ValueError beyond `max_len`."""
        return _positions(self.table, seq_len, start)


class LearnedPositions(nn.Module):
    """One learned vector a position (table 3, row E).

    The paper gives no start. Ours is normal with the sinusoids' root mean square, 2 ** -0.5.

    Args:
        d_model: D.
        max_len: positions in the table.
    """

    def __init__(self, *, d_model: int, max_len: int) -> None:
        super().__init__()
        check_positive(d_model=d_model, max_len=max_len)
        self.table = nn.Parameter(torch.empty(max_len, d_model))
        nn.init.normal_(self.table, std=2**-0.5)

    def forward(self, seq_len: int, start: int = 0) -> Tensor:
        """Positions `start` to `start + seq_len - 1` [T, D]; ValueError beyond `max_len`."""
        return _positions(self.table, seq_len, start)


def _positions(table: Tensor, seq_len: int, start: int) -> Tensor:
    if seq_len < 0 or start < 0:
        raise ValueError(
            f"a sequence must have a length and a start of at least 0; got {seq_len} and {start}"
        )
    if start + seq_len > table.shape[0]:
        raise ValueError(
            f"a sequence must not be longer than max_len = {table.shape[0]} positions; got {start + seq_len}"
        )
    return table[start : start + seq_len]


# --- Sec. 3.2.2: multi-head attention ----------------------------------------------------------------------


class KeyValueCache(NamedTuple):
    """Keys and values as the heads see them, kept from one call to the next."""

    key: Tensor  # [B, H, S, E]
    value: Tensor  # [B, H, S, V]


class AttentionOutput(NamedTuple):
    """What `MultiHeadAttention` returns."""

    output: Tensor  # [B, T, D]
    weights: Tensor | None  # [B, H, T, S], before dropout, where asked for
    cache: KeyValueCache  # every key and value that was attended to


class MultiHeadAttention(nn.Module):
    """Several attentions side by side, each on its own projections (Sec. 3.2.2).

    The projections to queries, keys and values are one matrix with 2 H E + H V rows, in this order. The paper does
    not say how weights start: here Xavier uniform, its fan-out being the rows of the whole matrix.

    Args:
        d_model: D, width of inputs and output.
        n_heads: H.
        head_dim: E, width of a query or key of one head; None for D / H.
        value_dim: V, width of a value of one head; None for D / H.
        dropout: on the attention weights while training; the paper names none there.
        use_bias: biases on the projections; the paper's equations have none.

    Raises:
        ValueError: for a size below 1, `dropout` outside [0, 1), or a D that H does not divide where D / H is needed.
    """

    def __init__(
        self,
        *,
        d_model: int,
        n_heads: int,
        head_dim: int | None = None,
        value_dim: int | None = None,
        dropout: float = 0.0,
        use_bias: bool = False,
    ) -> None:
        super().__init__()
        check_positive(d_model=d_model, n_heads=n_heads)
        if (head_dim is None or value_dim is None) and d_model % n_heads:
            raise ValueError(
                f"d_model must be divisible by n_heads unless head_dim and value_dim are given; got d_model={d_model} "
                f"and n_heads={n_heads}"
            )
        head_dim = d_model // n_heads if head_dim is None else head_dim
        value_dim = d_model // n_heads if value_dim is None else value_dim
        check_positive(head_dim=head_dim, value_dim=value_dim)
        check_dropout(dropout=dropout)
        self.d_model, self.n_heads, self.head_dim, self.value_dim = d_model, n_heads, head_dim, value_dim
        self.dropout = dropout
        self._rows = n_heads * head_dim, n_heads * head_dim, n_heads * value_dim  # queries, keys, values
        self.projection = nn.Linear(d_model, sum(self._rows), bias=use_bias)
        self.output = nn.Linear(n_heads * value_dim, d_model, bias=use_bias)
        for linear in (self.projection, self.output):
            nn.init.xavier_uniform_(linear.weight)
            if use_bias:
                nn.init.zeros_(linear.bias)

    def project(self, memory: Tensor) -> KeyValueCache:
        """Keys and values of `memory` [B, S, D], to attend to it several times at the price of one projection."""
        check_sequence("memory", memory, self.d_model)
        key, value = F.linear(memory, *self._parts(1)).split(self._rows[1:], dim=-1)
        return KeyValueCache(self._heads(key), self._heads(value))

    def forward(
        self,
        query: Tensor,
        memory: Tensor | KeyValueCache | None = None,
        mask: Tensor | None = None,
        *,
        is_causal: bool = False,
        cache: KeyValueCache | None = None,
        need_weights: bool = False,
    ) -> AttentionOutput:
        """Attend from `query` to itself, or to `memory`.

        Args:
            query: [B, T, D].
            memory: what to attend to [B, S, D], or the result of `project` on it; None for `query` itself.
            mask: boolean, True may attend, broadcastable to [B, H, T, S]; None for everywhere.
            is_causal: as in `scaled_dot_product_attention`.
            cache: in self-attention the keys and values of the tokens before `query`, from the last call.
            need_weights: also return the weights of every head.

        Returns:
            Output, weights or None, and the cache for the next call: S includes the tokens of `cache`.

        Raises:
            ValueError: if a shape does not fit, the mask is not boolean, or `cache` comes with a `memory`.
        """
        check_sequence("query", query, self.d_model)
        if memory is None:
            query, *new = map(self._heads, self.projection(query).split(self._rows, dim=-1))
            new = KeyValueCache(*new)
            if cache is not None:
                self._check_cache("cache", cache, query.shape[0])
                new = KeyValueCache(*(torch.cat(pair, dim=2) for pair in zip(cache, new, strict=True)))
        else:
            if cache is not None:
                raise ValueError("cache must be None where there is a memory; give project(...) as memory")
            new = memory if isinstance(memory, KeyValueCache) else self.project(memory)
            self._check_cache("memory", new, query.shape[0])
            query = self._heads(F.linear(query, *self._parts(0)))
        output, weights = scaled_dot_product_attention(
            query, new.key, new.value, mask, is_causal=is_causal,
            dropout=self.dropout if self.training else 0.0, need_weights=need_weights,
        )  # fmt: skip
        return AttentionOutput(self.output(output.transpose(1, 2).flatten(2)), weights, new)

    def _parts(self, part: int) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of the projection to queries (part 0), or to keys and values (part 1)."""
        # by split, not by slices: the gradients are joined by one concatenation
        rows = self._rows[0], self._rows[1] + self._rows[2]
        weight, bias = self.projection.weight, self.projection.bias
        return weight.split(rows)[part], None if bias is None else bias.split(rows)[part]

    def _heads(self, joined: Tensor) -> Tensor:
        """[B, T, H * width] to [B, H, T, width], without a copy."""
        return joined.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)

    def _check_cache(self, name: str, cache: KeyValueCache, batch: int) -> None:
        for part, width in (("key", self.head_dim), ("value", self.value_dim)):
            shape = list(getattr(cache, part).shape)
            if len(shape) != 4 or shape[:2] + shape[3:] != [batch, self.n_heads, width]:
                raise ValueError(
                    f"{name} must hold a {part} of shape [{batch}, {self.n_heads}, length, {width}]; got {shape}"
                )


# --- Checks ------------------------------------------------------------------------------------------------


def check_positive(**sizes: int) -> None:
    """ValueError unless every size is a whole number of at least 1."""
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"{name} must be a whole number of at least 1; got {size!r}")


def check_dropout(**shares: float) -> None:
    """ValueError unless every share is in [0, 1)."""
    for name, share in shares.items():
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
            raise ValueError(f"{name} must be a number from 0 to below 1; got {share!r}")


def check_sequence(name: str, sequence: Tensor, d_model: int) -> None:
    """Raise ValueError unless `sequence` is [B, T, d_model]."""
    if sequence.dim() != 3 or sequence.shape[-1] != d_model:
        raise ValueError(f"{name} must have shape [batch, length, {d_model}]; got {list(sequence.shape)}")


def _check_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> None:
    shapes = [list(tensor.shape) for tensor in (query, key, value)]
    if {len(shape) for shape in shapes} != {4} or not (
        shapes[0][:2] == shapes[1][:2] == shapes[2][:2]
        and shapes[0][3] == shapes[1][3]
        and shapes[1][2] == shapes[2][2]
    ):
        raise ValueError(
            "query, key and value must have shapes [B, H, T, E], [B, H, S, E] and [B, H, S, V]; got "
            f"{shapes[0]}, {shapes[1]} and {shapes[2]}"
        )
    dtypes = {tensor.dtype for tensor in (query, key, value)}
    if len(dtypes) > 1 and not torch.is_autocast_enabled(query.device.type):
        raise ValueError(
            f"query, key and value must have one dtype; got {query.dtype}, {key.dtype} and {value.dtype}"
        )
    if mask is None:
        return
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be boolean, True where attention may look; got {mask.dtype}")
    full = [*shapes[0][:3], shapes[1][2]]
    fits = mask.dim() <= 4 and all(
        size in (1, there) for size, there in zip(reversed(mask.shape), reversed(full), strict=False)
    )
    if not fits:
        raise ValueError(f"mask must be broadcastable to [B, H, T, S] = {full}; got {list(mask.shape)}")
