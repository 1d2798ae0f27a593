"""LSH attention: locality-sensitive hashing and attention in the sorted order (Kitaev et al. 2020, arXiv:2001.04451,
Sec. 2 and the appendix on multi-round attention).

The functions here are the definition, in any float dtype; `attn.kernels.lsh` and, on a GPU, `attn.kernels.lsh_flex`
compute the same numbers faster.

Shapes: B batch, H heads, T length, E width of a query, V of a value, R `n_rounds` of hashing, m `chunk_len`. In every
mask [B, T] True means "a token that may attend and be attended to"; the others, padding, get zeros as their output and
are nobody's key. Queries and keys come from the same places: this is self-attention.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor

from attn.attention import check_positive
from attn.kernels import lsh, lsh_flex
from attn.lsh_convention import PAPER, Convention
from attn.shared_qk import check_heads, chunks_of, filled_up, look_back, unit

# What a token's product with itself is lowered by: no weight is left unless there is nothing else (the appendix).
SELF_PENALTY = 1e5
# The largest number of buckets from one rotation; for more, two smaller rotations are multiplied (as in the authors'
# code), because a rotation costs as much as it has buckets.
MAX_BUCKETS_PER_ROTATION = 128


# --- Hashing and sorting ---------------------------------------------------------------------------------------


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
        ValueError: if vectors have another shape, or a rotation does not have shape [H, R, E, any].
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


# --- Attention in the sorted order ----------------------------------------------------------------------------


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
        ValueError: if shapes do not fit, the mask is not boolean, `chunk_len` is below 1, the convention is none, or the
            fused version lacks it.
    """
    _check_lsh(query, value, buckets, mask, chunk_len)
    check_convention(convention)
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
        filled_up(tensor, dim, chunk_len) for tensor, dim in ((query, 2), (value, 2), (buckets, 3), (mask, 1))
    )
    rounds = _Rounds(buckets, mask, chunk_len)
    queries = rounds.chunks(query.unsqueeze(2))  # [B, H, R C, m, E]
    keys, values = (look_back(c, 2) for c in (unit(queries), rounds.chunks(value.unsqueeze(2))))
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
        return chunks_of(tensor.take_along_dim(index, dim=3), 3, self.chunk_len).flatten(2, 3)

    def unsorted(self, chunks: Tensor) -> Tensor:
        """[B, H, R C, m, any] to [B, H, R, T, any]."""
        places = chunks.unflatten(2, (self.n_rounds, self.n_chunks)).flatten(3, 4)
        return places.take_along_dim(self.place.unsqueeze(-1), dim=3)

    def pairs(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers [B, H, 1 or R, T] of the queries [B, H, R C, m, 1] and of their keys [B, H, R C, 1, 2m]."""
        chunks = self.chunks(numbers)
        return chunks.unsqueeze(-1), look_back(chunks, 2).unsqueeze(-2)

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


# --- Checks ---------------------------------------------------------------------------------------------------


def check_buckets(n_buckets: int | Sequence[int]) -> tuple[int, ...]:
    """The factors of a number of buckets; ValueError unless each is an even whole number of at least 2."""
    factors = (n_buckets,) if _is_whole(n_buckets) else n_buckets
    if isinstance(factors, str) or not isinstance(factors, Sequence) or not all(map(_is_whole, factors)):
        raise ValueError(f"n_buckets must be an even whole number or several of them; got {n_buckets!r}")
    if not factors:
        raise ValueError("n_buckets must be an even whole number or several of them; got none")
    for factor in map(int, factors):
        if factor < 2:
            raise ValueError(f"n_buckets must be an even whole number of at least 2; got {factor}")
        if factor % 2:
            raise ValueError(
                f"n_buckets must be even, half of them for x R and half for -x R; got {factor}, the nearest are "
                f"{factor - 1} and {factor + 1}"
            )
    return tuple(map(int, factors))


def _is_whole(number: object) -> bool:
    """Whether it is a whole number, NumPy's included, and no truth value."""
    return isinstance(number, Integral) and not isinstance(number, bool)


def check_convention(convention: Convention) -> None:
    """ValueError unless it is a `Convention`, not the name of one."""
    if not isinstance(convention, Convention):
        raise ValueError(
            f"convention must be a Convention, as PAPER or PUBLIC of attn.lsh_convention; got {convention!r}"
        )


def _check_rotations(vectors: Tensor, rotations: Sequence[Tensor]) -> None:
    if vectors.dim() != 4:
        raise ValueError(f"vectors must have shape [B, H, T, E]; got {list(vectors.shape)}")
    if isinstance(rotations, Tensor):
        raise ValueError(
            f"rotations must be several tensors, one for each factor of the number of buckets; got one of shape "
            f"{list(rotations.shape)}"
        )
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
    check_heads(query, query, value, mask)
    batch, n_heads, length, _ = query.shape
    if not isinstance(buckets, Tensor):
        raise ValueError(f"buckets must be a tensor [B, H, rounds, T]; got {type(buckets).__name__}")
    shape = list(buckets.shape)
    if len(shape) != 4 or shape[:2] + shape[3:] != [batch, n_heads, length] or not shape[2]:
        raise ValueError(
            f"buckets must have shape [{batch}, {n_heads}, rounds, {length}] with at least one round; got {shape}"
        )
    if buckets.is_floating_point() or buckets.dtype == torch.bool:
        raise ValueError(f"buckets must be whole numbers; got {buckets.dtype}")
