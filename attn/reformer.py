"""The Reformer's attention: locality-sensitive hashing, shared queries and keys, chunks (Kitaev et al. 2020,
arXiv:2001.04451).

Pure functions for the mathematics of Sec. 2 and the appendix on multi-round attention come first; then the modules that
own parameters, and what the paper computes in chunks (Sec. 3). The functions here are the definition, in any float
dtype; `attn.kernels.lsh` computes the same numbers faster.

Shapes: B batch, T length, D `d_model`, H heads, E `head_dim`, V `value_dim`, R `n_rounds` of hashing, m `chunk_len`.
In every mask [B, T] True means "a token that may attend and be attended to"; the others, padding, get zeros as their
output and are nobody's key. Queries and keys come from the same places: every attention here is self-attention.

The scale. The paper leaves 1 / sqrt(d_k) out of its formulas and divides every key by its length. The authors' code
divides keys by their root mean square and then by sqrt(d_k): their length is 1 either way, and that is all the scaling.
So `scale` is 1 for keys of unit length, and E ** -0.5 for others. Other public code multiplies the products of unit
keys by E ** -0.5 once more, which makes attention flatter; `scale` can be given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from attn.attention import check_positive, check_sequence, scaled_dot_product_attention
from attn.kernels import lsh, lsh_flex

# What a token's product with itself is lowered by: no weight is left unless there is nothing else (the appendix).
SELF_PENALTY = 1e5
# Added to a squared length before the root, so that an empty vector has a finite gradient.
LENGTH_EPS = 1e-12
# The largest number of buckets from one rotation; for more, two smaller rotations are multiplied (as in the authors'
# code), because a rotation costs as much as it has buckets.
MAX_BUCKETS_PER_ROTATION = 128


class Convention(NamedTuple):
    """What counts as attending in a round of hashing; the defaults are the paper's definition.

    Public code, the authors' included, drops the first two and looks back across rounds, see `PUBLIC`.
    """

    same_bucket: bool = True  # only keys of the query's own bucket (eq. 4)
    count_once: bool = True  # a pair that several rounds bring together counts once (N_ij in the appendix)
    wrap: bool = (
        False  # a round's first chunk looks back at the round before, the first round's at the last one's
    )


PAPER = Convention()
PUBLIC = Convention(same_bucket=False, count_once=False, wrap=True)


# --- Sec. 2: full attention with shared queries and keys -----------------------------------------------------


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
    _check_heads(query, key, value, mask)
    scale, key = _scale(scale, unit_keys, query.shape[-1]), unit(key) if unit_keys else key
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


def _scale(scale: float | None, unit_keys: bool, head_dim: int) -> float:
    if scale is not None:
        return scale
    return 1.0 if unit_keys else head_dim**-0.5


# --- Local attention -----------------------------------------------------------------------------------------


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
    _check_heads(query, key, value, mask)
    scale, key = _scale(scale, unit_keys, query.shape[-1]), unit(key) if unit_keys else key
    (batch, n_heads, length), device = query.shape[:3], query.device
    mask = torch.ones(1, length, dtype=torch.bool, device=device) if mask is None else mask
    position = torch.arange(length, device=device)
    query, key, value, mask, position = (
        _chunks(_filled_up(tensor, dim, chunk_len), dim, chunk_len)
        for tensor, dim in ((query, 2), (key, 2), (value, 2), (mask, 1), (position, 0))
    )  # chunks of queries [B, H, C, m, E], of the mask [B or 1, C, m], of positions [C, m]
    allowed = _allowed(position, _look_back(position, 0), is_causal)  # [C, m, 2m]
    allowed[0, :, :chunk_len] = False  # the first chunk's look back
    allowed = allowed & mask.unsqueeze(-1) & _look_back(mask, 1).unsqueeze(-2)  # [B or 1, C, m, 2m]
    if self_last:
        own = torch.arange(chunk_len, device=device)
        itself = own.unsqueeze(-1) + chunk_len == torch.arange(2 * chunk_len, device=device)
        allowed = _self_last(allowed, itself)
    output, _ = scaled_dot_product_attention(
        query.flatten(1, 2),  # [B, H C, m, E]
        _look_back(key, 2).flatten(1, 2),
        _look_back(value, 2).flatten(1, 2),
        allowed.unsqueeze(1).expand(-1, n_heads, -1, -1, -1).flatten(1, 2),
        scale=scale,
    )
    return output.reshape(batch, n_heads, -1, value.shape[-1])[:, :, :length]


def _filled_up(tensor: Tensor, dim: int, chunk_len: int) -> Tensor:
    """With zeros (False) after the end of `dim` up to a whole number of chunks."""
    missing = -tensor.shape[dim] % chunk_len
    return F.pad(tensor, [0, 0] * (tensor.dim() - dim - 1) + [0, missing]) if missing else tensor


def _chunks(tensor: Tensor, dim: int, chunk_len: int) -> Tensor:
    """`dim` of C m to two dimensions, C and m."""
    return tensor.unflatten(dim, (-1, chunk_len))


def _look_back(chunks: Tensor, dim: int) -> Tensor:
    """Every chunk with the one before it in front: [..., C, m, ...] to [..., C, 2m, ...], where C is dimension `dim`.

    The first one gets the last one; whether it may look there is the mask's business.
    """
    return torch.cat([chunks.roll(1, dim), chunks], dim=dim + 1)


# --- Sec. 2, LSH attention: hashing and sorting ---------------------------------------------------------------


def default_buckets(length: int, chunk_len: int) -> tuple[int, ...]:
    """The paper's number of buckets, 2 T / m rounded up to even, in two factors where it is above 128.

    Args:
        length: T.
        chunk_len: m.

    Returns:
        Even factors whose product is the number of buckets; with two factors it can be a little above 2 T / m.
    """
    check_positive(length=length, chunk_len=chunk_len)
    n_buckets = 2 * math.ceil(length / chunk_len)
    if n_buckets <= MAX_BUCKETS_PER_ROTATION:
        return (n_buckets,)
    first = 2 * round(math.sqrt(n_buckets) / 2)
    return first, 2 * math.ceil(n_buckets / (2 * first))


def random_rotations(
    n_buckets: int | Sequence[int],
    *,
    n_rounds: int,
    n_heads: int,
    head_dim: int,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> tuple[Tensor, ...]:
    """Random matrices R for `hash_vectors`, normal, drawn for every head and round (Sec. 2).

    Args:
        n_buckets: an even number, or several whose product is the number of buckets.
        n_rounds: R.
        n_heads: H.
        head_dim: E.
        generator: where the numbers come from; None for torch's default generator of `device`.
        device: of the result; the numbers are drawn on the generator's own device.

    Returns:
        For every factor of the number of buckets a float32 tensor [H, R, E, factor / 2].

    Raises:
        ValueError: for sizes below 1 or an odd number of buckets.
    """
    factors = check_buckets(n_buckets)
    check_positive(n_rounds=n_rounds, n_heads=n_heads, head_dim=head_dim)
    drawn_on = device if generator is None else generator.device
    sizes = [(n_heads, n_rounds, head_dim, factor // 2) for factor in factors]
    options = {"generator": generator, "device": drawn_on, "dtype": torch.float32}
    return tuple(torch.randn(size, **options).to(device) for size in sizes)


@torch.no_grad()
def hash_vectors(vectors: Tensor, rotations: Sequence[Tensor], *, fused: bool = False) -> Tensor:
    """h(x) = argmax([x R; -x R]) for every round (Sec. 2); lengths do not matter, so queries stand for their keys.

    With several factors the hash is their hashes' number in mixed base, the first one counting least. Products are
    float32 at least, so that a token's bucket does not depend on the precision of what surrounds it.

    Args:
        vectors: [B, H, T, E].
        rotations: from `random_rotations`.
        fused: find the largest entries in the way of `attn.kernels.lsh`.

    Returns:
        Bucket numbers [B, H, R, T], int64.

    Raises:
        ValueError: if a rotation does not have shape [H, R, E, any].
    """
    _check_rotations(vectors, rotations)
    vectors = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    with lsh.full_precision(vectors.device):
        if fused:
            return lsh.hash_vectors(vectors, rotations)
        buckets, place = 0, 1
        for rotation in rotations:
            rotated = torch.einsum("bhte,hrek->bhrtk", vectors, rotation.to(vectors.dtype))
            both = torch.cat([rotated, -rotated], dim=-1)
            buckets = buckets + place * both.argmax(-1)
            place *= both.shape[-1]
        return buckets


def sort_by_bucket(buckets: Tensor, mask: Tensor | None = None) -> Tensor:
    """Positions in order of bucket, and within a bucket in their own order; padding comes last.

    Args:
        buckets: [B, H, R, T].
        mask: [B, T], True for tokens.

    Returns:
        [B, H, R, T]: which position stands at each place.
    """
    if mask is not None:
        buckets = buckets.masked_fill(~mask[:, None, None], torch.iinfo(buckets.dtype).max)
    return buckets.argsort(stable=True, dim=-1)


# --- Sec. 2 and the appendix: attention in the sorted order -----------------------------------------------------


def lsh_attention(
    query: Tensor,
    value: Tensor,
    buckets: Tensor,
    mask: Tensor | None = None,
    *,
    chunk_len: int,
    is_causal: bool = False,
    scale: float = 1.0,
    convention: Convention = PAPER,
    fused: bool = False,
) -> Tensor:
    """Shared query-key attention among tokens that hash to the same bucket (Sec. 2 and the appendix).

    In every round tokens are sorted by bucket and then position and cut into chunks of m; a token may attend to tokens
    of its own bucket in its own chunk and the one before. By the paper's definition the result is exactly that of
    `shared_qk_attention` in which every token sees the union of what the rounds allow it. N_ij is here the number of
    rounds in which i can see j: where a bucket overflows its two chunks, being in one bucket is not enough.

    Nothing flows from a later token into an earlier one with `is_causal`, the buckets being given. But a later token's
    bucket moves the borders of chunks, and with them what an earlier one can see; no matter in `PAPER` as long as no
    bucket has more than m tokens.

    Args:
        query: [B, H, T, E]; keys are the same divided by their lengths.
        value: [B, H, T, V].
        buckets: [B, H, R, T], from `hash_vectors`.
        mask: [B, T], True for tokens; None for all.
        chunk_len: m; any T will do, the last chunk is filled up inside.
        is_causal: allow no key later than its query, by position in the sequence.
        scale: factor on the products with keys of unit length.
        convention: `PAPER`, `PUBLIC`, or single departures.
        fused: compute with `attn.kernels.lsh`, or on a GPU with `attn.kernels.lsh_flex`: equal values and gradients in
            less time and memory.

    Returns:
        [B, H, T, V].

    Raises:
        ValueError: if shapes do not fit, the mask is not boolean, `chunk_len` is below 1, or the fused version lacks the
            convention.
    """
    _check_lsh(query, value, buckets, mask, chunk_len)
    if fused:
        lsh.check_convention(convention)
        kernel = lsh_flex if lsh_flex.suits(query, convention) else lsh
        return kernel.lsh_attention(
            query, value, buckets, mask,
            chunk_len=chunk_len, is_causal=is_causal, scale=scale, convention=convention,
        )  # fmt: skip
    length = query.shape[2]
    mask = query.new_ones(len(query), length, dtype=torch.bool) if mask is None else mask
    query, value, buckets, mask = (
        _filled_up(tensor, dim, chunk_len)
        for tensor, dim in ((query, 2), (value, 2), (buckets, 3), (mask, 1))
    )
    rounds = _Rounds(buckets, mask, chunk_len)
    queries = rounds.chunks(query.unsqueeze(2))  # [B, H, R C, m, E]
    keys, values = (_look_back(c, 2) for c in (unit(queries), rounds.chunks(value.unsqueeze(2))))
    products = torch.matmul(queries * scale, keys.mT)  # [B, H, R C, m, 2m]
    products = products.to(torch.promote_types(products.dtype, torch.float32))
    # minus m_ij of the appendix: infinite where nothing may be seen, log N_ij elsewhere, 10^5 for the query itself
    if convention.count_once:
        products = products - rounds.times_met(convention).to(products.dtype).log()
    itself = torch.eye(chunk_len, dtype=torch.bool, device=query.device)
    itself = torch.cat([torch.zeros_like(itself), itself], dim=1)  # [m, 2m]
    visible = rounds.visible(mask, is_causal, convention) | itself
    products = (products - SELF_PENALTY * itself).masked_fill(~visible, -math.inf)
    log_sum = products.logsumexp(-1, keepdim=True)  # z(i, P_i) of each round
    output = torch.matmul((products - log_sum).exp().to(values.dtype), values)  # [B, H, R C, m, V]
    share = rounds.unsorted(log_sum).softmax(dim=2)  # exp(z of the round - z of their union) [B, H, R, T, 1]
    output = (rounds.unsorted(output) * share.to(output.dtype)).sum(2)
    return output.masked_fill(~mask[:, None, :, None], 0)[:, :, :length]


class _Rounds:
    """The tokens in the order of every round, in chunks: C a round and R C in all, one round after another.

    Args:
        buckets: [B, H, R, T], T a multiple of m.
        mask: [B, T], True for tokens.
        chunk_len: m.
    """

    def __init__(self, buckets: Tensor, mask: Tensor, chunk_len: int) -> None:
        self.buckets, self.chunk_len = buckets, chunk_len
        self.order = sort_by_bucket(buckets, mask)  # which position stands at each place
        self.place = self.order.argsort(-1)  # at which place each position stands
        self.n_rounds, self.n_chunks = buckets.shape[2], buckets.shape[3] // chunk_len

    def chunks(self, tensor: Tensor) -> Tensor:
        """[B, H, 1 or R, T, ...] to [B, H, R C, m, ...]."""
        index = self.order.view(*self.order.shape, *[1] * (tensor.dim() - 4))
        return _chunks(tensor.take_along_dim(index, dim=3), 3, self.chunk_len).flatten(2, 3)

    def unsorted(self, chunks: Tensor) -> Tensor:
        """[B, H, R C, m, any] to [B, H, R, T, any]."""
        places = chunks.unflatten(2, (self.n_rounds, self.n_chunks)).flatten(3, 4)
        return places.take_along_dim(self.place.unsqueeze(-1), dim=3)

    def pairs(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers [B, H, 1 or R, T] of the queries [B, H, R C, m, 1] and of their keys [B, H, R C, 1, 2m]."""
        chunks = self.chunks(numbers)
        return chunks.unsqueeze(-1), _look_back(chunks, 2).unsqueeze(-2)

    def visible(self, mask: Tensor, is_causal: bool, convention: Convention) -> Tensor:
        """Which keys each query may attend to, itself left out [B, H, R C, m, 2m]."""
        position = torch.arange(self.order.shape[-1], device=mask.device)
        query, key = self.pairs(position.expand_as(self.order))
        visible = key < query if is_causal else key != query
        visible &= self.pairs(mask[:, None, None].expand_as(self.order))[1]
        if convention.same_bucket:
            visible &= torch.eq(*self.pairs(self.buckets))
        if convention.same_bucket or not convention.wrap:  # no bucket of one round is a bucket of another
            visible[:, :, :: self.n_chunks, :, : self.chunk_len] = False
        return visible

    def times_met(self, convention: Convention) -> Tensor:
        """N_ij, how often over all rounds a query sees a key [B, H, R C, m, 2m]; at least 1."""
        first = self.n_chunks * torch.arange(self.n_rounds, device=self.place.device)  # chunk of each round
        chunk = self.place // self.chunk_len + first.unsqueeze(-1)  # of each position [B, H, R, T]
        total = 0
        for r in range(self.n_rounds):
            query, key = self.pairs(chunk[:, :, r : r + 1])
            met = (key == query) | ((key == query - 1) & (query != first[r]))
            if convention.same_bucket:
                met &= torch.eq(*self.pairs(self.buckets[:, :, r : r + 1]))
            total = total + met.int()
            if convention.wrap and not convention.same_bucket:
                before = r - 1 if r else self.n_rounds - 1
                key = self.pairs(chunk[:, :, before : before + 1])[1]
                total += (query == first[r]) & (key == first[before] + self.n_chunks - 1)
        return total.clamp(min=1)


# --- Modules ---------------------------------------------------------------------------------------------------


class ReformerAttention(nn.Module):
    """Projections and heads of the attentions below, which differ in `attend` only.

    With the same sizes and `shared_qk` all have the same parameters under the same names: what was trained with one
    can be evaluated with another. The projections are one matrix, with rows for queries, keys (unless shared) and
    values in this order; it starts Xavier uniform, its fan-out being the rows of the whole matrix.

    Args:
        d_model: D, width of inputs and outputs.
        n_heads: H.
        head_dim: E, width of a query of one head; None for D / H.
        value_dim: V, width of a value of one head; None for D / H.
        shared_qk: one projection for queries and keys.
        is_causal: allow no key later than its query.
        scale: factor on the products; None for 1 with keys of unit length and E ** -0.5 with others.
        use_bias: biases on the projections.

    Raises:
        ValueError: for a size below 1, or a D that H does not divide where D / H is needed.
    """

    def __init__(
        self,
        *,
        d_model: int,
        n_heads: int,
        head_dim: int | None = None,
        value_dim: int | None = None,
        shared_qk: bool = True,
        is_causal: bool = True,
        scale: float | None = None,
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
        self.d_model, self.n_heads, self.head_dim, self.value_dim = d_model, n_heads, head_dim, value_dim
        self.shared_qk, self.is_causal, self.scale = shared_qk, is_causal, scale
        self._rows = [n_heads * head_dim] * (1 if shared_qk else 2) + [n_heads * value_dim]
        self.projection = nn.Linear(d_model, sum(self._rows), bias=use_bias)
        self.output = nn.Linear(n_heads * value_dim, d_model, bias=use_bias)
        for linear in (self.projection, self.output):
            nn.init.xavier_uniform_(linear.weight)
            if use_bias:
                nn.init.zeros_(linear.bias)

    def project(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [B, H, T, E or V] of `inputs` [B, T, D]; shared keys are the queries themselves."""
        check_sequence("inputs", inputs, self.d_model)
        parts = self.projection(inputs).split(self._rows, dim=-1)
        query, *key, value = (part.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for part in parts)
        return query, *(key or [query]), value

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **given) -> Tensor:
        """[B, H, T, V] from what `project` returned."""
        raise NotImplementedError

    def forward(self, inputs: Tensor, mask: Tensor | None = None, **given) -> Tensor:
        """The sub-layer.

        Args:
            inputs: [B, T, D].
            mask: [B, T], True for tokens; None for all.
            given: what the module's `attend` takes besides.

        Returns:
            [B, T, D].

        Raises:
            ValueError: if a shape does not fit, or the mask is not boolean.
        """
        output = self.attend(*self.project(inputs), mask, **given)
        return self.output(output.transpose(1, 2).flatten(2))

    def attention_weights(self, inputs: Tensor, mask: Tensor | None = None, **given) -> Tensor:
        """The weights [B, H, T, T] with which `forward` takes its sums, 0 for pairs that do not meet.

        They are the output for values of the identity matrix: memory for R of these matrices, for figures and tests.
        """
        query, key, _ = self.project(inputs)
        identity = torch.eye(inputs.shape[1], dtype=query.dtype, device=query.device)
        return self.attend(query, key, identity.expand(*query.shape[:2], -1, -1), mask, **given)


class FullAttention(ReformerAttention):
    """`full_attention` as a sub-layer: a shared projection, unit keys and self as last resort are a switch each.

    Args:
        unit_keys: divide every key by its length; None for the value of `shared_qk`.
        self_last: a token attends to itself only where nothing else is allowed; None for the value of `shared_qk`.
        others: as `ReformerAttention`.
    """

    def __init__(self, *, unit_keys: bool | None = None, self_last: bool | None = None, **sizes) -> None:
        super().__init__(**sizes)
        self.unit_keys = self.shared_qk if unit_keys is None else unit_keys
        self.self_last = self.shared_qk if self_last is None else self_last

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """[B, H, T, V] from what `project` returned."""
        return full_attention(
            query, key, value, mask,
            is_causal=self.is_causal, unit_keys=self.unit_keys, self_last=self.self_last, scale=self.scale,
        )  # fmt: skip


class LocalAttention(FullAttention):
    """`local_attention` as a sub-layer.

    Args:
        chunk_len: m.
        others: as `FullAttention`.
    """

    def __init__(self, *, chunk_len: int, **options) -> None:
        super().__init__(**options)
        check_positive(chunk_len=chunk_len)
        self.chunk_len = chunk_len

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """[B, H, T, V] from what `project` returned."""
        return local_attention(
            query, key, value, mask, chunk_len=self.chunk_len,
            is_causal=self.is_causal, unit_keys=self.unit_keys, self_last=self.self_last, scale=self.scale,
        )  # fmt: skip


class LSHAttention(ReformerAttention):
    """`lsh_attention` as a sub-layer, with shared queries and keys.

    Every call hashes with new rotations. They come from torch's default generator unless given, as dropout's masks do:
    whatever replays or restores that generator repeats them.

    Args:
        chunk_len: m.
        n_rounds: R; `module.n_rounds` may be changed between calls.
        n_buckets: an even number, or several whose product is the number of buckets (see `random_rotations`); None for
            `default_buckets` of the inputs' length.
        convention: `PAPER`, `PUBLIC`, or single departures.
        fused: compute with `attn.kernels.lsh`; False for the functions of this file, the definition.
        sizes: as `ReformerAttention`, but `shared_qk`.

    Raises:
        ValueError: for sizes below 1, an odd number of buckets, or a convention that the fused version lacks.
    """

    def __init__(
        self,
        *,
        chunk_len: int,
        n_rounds: int,
        n_buckets: int | Sequence[int] | None = None,
        convention: Convention = PAPER,
        fused: bool = True,
        **sizes,
    ) -> None:
        super().__init__(**sizes, shared_qk=True)
        check_positive(chunk_len=chunk_len, n_rounds=n_rounds)
        if n_buckets is not None:
            check_buckets(n_buckets)
        if fused:
            lsh.check_convention(convention)
        self.chunk_len, self.n_rounds, self.n_buckets = chunk_len, n_rounds, n_buckets
        self.convention, self.fused = convention, fused

    def rotations(self, query: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """New rotations for queries [B, H, T, E]."""
        n_buckets = self.n_buckets
        if n_buckets is None:
            n_buckets = default_buckets(query.shape[2], self.chunk_len)
        return random_rotations(
            n_buckets, n_rounds=self.n_rounds, n_heads=self.n_heads, head_dim=self.head_dim,
            generator=generator, device=query.device,
        )  # fmt: skip

    def buckets(
        self,
        inputs: Tensor,
        *,
        rotations: Sequence[Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Bucket numbers [B, H, R, T] of `inputs` [B, T, D], to look at or to give to `forward`."""
        return self._hash(self.project(inputs)[0], rotations, generator)

    def _hash(
        self, query: Tensor, rotations: Sequence[Tensor] | None, generator: torch.Generator | None
    ) -> Tensor:
        rotations = self.rotations(query, generator) if rotations is None else rotations
        return hash_vectors(query, rotations, fused=self.fused)

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        *,
        buckets: Tensor | None = None,
        rotations: Sequence[Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """[B, H, T, V] from what `project` returned.

        Args:
            buckets: [B, H, R, T], to hash with nothing.
            rotations: to hash with, as from `random_rotations`.
            generator: to draw rotations from; None for torch's default generator.
        """
        buckets = self._hash(query, rotations, generator) if buckets is None else buckets
        return lsh_attention(
            query, value, buckets, mask, chunk_len=self.chunk_len, is_causal=self.is_causal,
            scale=_scale(self.scale, True, self.head_dim), convention=self.convention, fused=self.fused,
        )  # fmt: skip


class AxialPositions(nn.Module):
    """Positions as the rows, columns, ... of a grid: one small table an axis, its vectors side by side.

    The authors' code has them for long sequences. Position t = (t_1 ... t_n), the last axis running fastest, has the
    vector [table_1[t_1]; ...; table_n[t_n]]: sum of N_a d_a parameters where a plain table has T D.

    Args:
        shape: N_1 ... N_n; their product is the longest length.
        widths: d_1 ... d_n; their sum is D.

    Raises:
        ValueError: for a size below 1, or not as many widths as axes.
    """

    def __init__(self, *, shape: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        if not shape or len(shape) != len(widths):
            raise ValueError(f"shape and widths must have one number for each axis; got {shape} and {widths}")
        for name, sizes in (("shape", shape), ("widths", widths)):
            check_positive(**{f"{name}[{axis}]": size for axis, size in enumerate(sizes)})
        self.shape, self.max_len = tuple(shape), math.prod(shape)
        self.tables = nn.ParameterList(torch.empty(*sizes) for sizes in zip(shape, widths, strict=True))
        for table in self.tables:
            nn.init.normal_(table, std=2**-0.5)  # as `LearnedPositions`

    def forward(self, seq_len: int, start: int = 0) -> Tensor:
        """Positions `start` to `start + seq_len - 1` [T, D]; ValueError beyond the grid."""
        if start + seq_len > self.max_len:
            raise ValueError(
                f"a sequence must not be longer than the {self.max_len} positions of a grid of {self.shape}; got "
                f"{start + seq_len}"
            )
        position = torch.arange(start, start + seq_len, device=self.tables[0].device)
        places = torch.unravel_index(position, self.shape)
        return torch.cat([table[place] for table, place in zip(self.tables, places, strict=True)], dim=-1)


# --- Sec. 3: chunks ----------------------------------------------------------------------------------------------


def in_chunks(
    function: Callable[[Tensor], Tensor], inputs: Tensor, chunk_len: int, *, recompute: bool = True
) -> Tensor:
    """A position-wise function applied to `chunk_len` positions at a time (Sec. 3, eq. 10).

    Args:
        function: of [B, any length, D], such that every position's output depends on its own input only.
        inputs: [B, T, D].
        chunk_len: positions at a time; the last chunk may be shorter.
        recompute: keep only inputs and outputs, and call the function once more in the backward pass, with the
            random numbers of the first time. Without it the memory of training is that of all chunks together.

    Returns:
        What `function(inputs)` would return.

    Raises:
        ValueError: if `chunk_len` is below 1.
    """
    check_positive(chunk_len=chunk_len)
    if recompute and torch.is_grad_enabled():
        return torch.cat(
            [checkpoint(function, chunk, use_reentrant=False) for chunk in inputs.split(chunk_len, dim=1)],
            dim=1,
        )
    return torch.cat([function(chunk) for chunk in inputs.split(chunk_len, dim=1)], dim=1)


def cross_entropy_in_chunks(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, chunk_len: int, bias: Tensor | None = None
) -> Tensor:
    """-log softmax(hidden weight^T + bias) at the targets, never holding the logits of more than a chunk (Sec. 3).

    The backward pass computes the logits again. The normaliser is float32 at least.

    Args:
        hidden: [B, T, D].
        weight: one row for every entry of the vocabulary [vocabulary, D].
        targets: token ids [B, T].
        chunk_len: tokens at a time, out of all B T.
        bias: [vocabulary], or None.

    Returns:
        Nats of every token [B, T].

    Raises:
        ValueError: if shapes do not fit, or `chunk_len` is below 1.
    """
    check_positive(chunk_len=chunk_len)
    check_sequence("hidden", hidden, weight.shape[-1])
    if targets.shape != hidden.shape[:2]:
        raise ValueError(f"targets must have shape {list(hidden.shape[:2])}; got {list(targets.shape)}")
    if torch.is_autocast_enabled(hidden.device.type):  # once, and the same in the backward pass
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    nats = _ChunkedCrossEntropy.apply(hidden.flatten(0, 1), weight, bias, targets.flatten().long(), chunk_len)
    return nats.view(targets.shape)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """`cross_entropy_in_chunks` for hidden vectors [N, D] and targets [N]."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, chunk_len):
        normaliser, nats = [], []
        for rows, target in zip(hidden.split(chunk_len), targets.split(chunk_len), strict=True):
            logits = _logits(rows, weight, bias)
            normaliser.append(logits.logsumexp(-1))
            nats.append(normaliser[-1] - logits.gather(-1, target.unsqueeze(-1)).squeeze(-1))
        ctx.save_for_backward(hidden, weight, bias, targets, torch.cat(normaliser))
        ctx.chunk_len = chunk_len
        return torch.cat(nats)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        hidden, weight, bias, targets, normaliser = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=normaliser.dtype)
        grad_bias = None if bias is None else torch.zeros_like(bias, dtype=normaliser.dtype)
        tensors = (hidden, targets, normaliser, grad, grad_hidden)
        for rows, target, norm, grad_nats, grad_rows in zip(
            *(t.split(ctx.chunk_len) for t in tensors), strict=True
        ):
            slope = (
                _logits(rows, weight, bias).sub_(norm.unsqueeze(-1)).exp_()
            )  # softmax, then minus the target
            slope.scatter_add_(-1, target.unsqueeze(-1), slope.new_full((len(target), 1), -1.0))
            slope.mul_(grad_nats.unsqueeze(-1))
            if bias is not None:
                grad_bias += slope.sum(0)
            slope = slope.to(weight.dtype)
            torch.mm(slope, weight, out=grad_rows)
            grad_weight += torch.mm(slope.t(), rows)
        grad_bias = None if bias is None else grad_bias.to(bias.dtype)
        return grad_hidden, grad_weight.to(weight.dtype), grad_bias, None, None


def _logits(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    logits = F.linear(rows, weight, bias)
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


# --- Checks --------------------------------------------------------------------------------------------------------


def check_buckets(n_buckets: int | Sequence[int]) -> tuple[int, ...]:
    """The factors of a number of buckets; ValueError unless each is an even whole number of at least 2."""
    factors = (n_buckets,) if isinstance(n_buckets, int) else n_buckets
    if not isinstance(factors, Sequence) or not factors:
        what = "none" if isinstance(factors, Sequence) else repr(n_buckets)
        raise ValueError(f"n_buckets must be an even number or several of them; got {what}")
    for factor in factors:
        check_positive(n_buckets=factor)
        if factor % 2:
            nearest = f"are {factor - 1} and {factor + 1}" if factor > 1 else "is 2"
            raise ValueError(
                f"n_buckets must be even, half of them for x R and half for -x R; got {factor}, the nearest {nearest}"
            )
    return tuple(factors)


def _check_rotations(vectors: Tensor, rotations: Sequence[Tensor]) -> None:
    if not rotations:
        raise ValueError("rotations must hold at least one tensor; got none")
    n_heads, head_dim = vectors.shape[1], vectors.shape[3]
    for rotation in rotations:
        shape = list(rotation.shape)
        if len(shape) != 4 or shape[:3] != [n_heads, rotations[0].shape[1], head_dim]:
            raise ValueError(
                f"rotations must have shape [{n_heads}, rounds, {head_dim}, buckets / 2]; got {shape}"
            )


def _check_lsh(query: Tensor, value: Tensor, buckets: Tensor, mask: Tensor | None, chunk_len: int) -> None:
    """ValueError unless the arguments of `lsh_attention` fit together."""
    check_positive(chunk_len=chunk_len)
    _check_heads(query, query, value, mask)
    batch, n_heads, length, _ = query.shape
    shape = list(buckets.shape)
    if len(shape) != 4 or shape[:2] + shape[3:] != [batch, n_heads, length] or not shape[2]:
        raise ValueError(
            f"buckets must have shape [{batch}, {n_heads}, rounds, {length}] with at least one round; got {shape}"
        )
    if buckets.is_floating_point() or buckets.dtype == torch.bool:
        raise ValueError(f"buckets must be whole numbers; got {buckets.dtype}")


def _check_heads(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> None:
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
