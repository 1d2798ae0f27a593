"""LSH attention with its backward pass written by hand.

`attn.lsh.lsh_attention` defines it. This file computes the same numbers and gradients, to rounding, in less time,
and in memory that hardly grows with the number of rounds:

- Nothing is kept but the outputs and the logarithm of each query's sum over all rounds. With it the backward pass has
  the final weights at once, and need not tell the rounds apart.
- Rounds come one after another, heads in groups of bounded size, and chunks in blocks whose products stay in cache.
- A chunk and the one before it lie side by side, so that a query's keys are a view with a stride of one chunk.
- Exponentials are powers of 2, and logarithms to base 2: torch's `exp2` is several times faster on a CPU than its `exp`,
  and does not slow down where a product is far below the others. Keys bring the factor log2(e).
- Where attention is forbidden is found by sums and differences of numbers, and the products there are lowered by a
  penalty: far cheaper on a CPU than to compare and to fill. A pair that an earlier round has met is lowered too, where
  the definition divides each of its N_ij weights by N_ij: the sum over the rounds is the same.

Shapes: G sequences (heads of all batch entries, a group of them at a time), T length, m chunk length, C chunks of a
sequence, E and V widths. A sequence's places in a round are m for what its first chunk looks back at, then the C m
sorted ones: L = (C + 1) m. A "lone" query may attend to nothing but itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from attn.lsh_convention import Convention
from attn.shared_qk import LENGTH_EPS

# What a forbidden product is lowered by, times a whole number up to 3 FAR: no weight is left, and float32 can hold it.
PENALTY = 1e30
# Above every number of a place or a bucket; float32 is exact up to here.
FAR = 2**24
LOG2_E = math.log2(math.e)


class Limits(NamedTuple):
    """How much is done at a time."""

    group_tokens: int  # of a group of sequences; a round's tables have a row for each
    block_products: int  # of queries and keys in a block


# On a CPU a block's products, half a megabyte in float32, stay in the cache; elsewhere it is large calls that are cheap.
LIMITS = {"cpu": Limits(group_tokens=2**12, block_products=2**17)}
LIMITS_ELSEWHERE = Limits(group_tokens=2**18, block_products=2**26)


class Options(NamedTuple):
    """What is no tensor among the arguments of `lsh_attention`."""

    chunk_len: int
    is_causal: bool
    scale: float
    convention: Convention


def check_convention(convention: Convention) -> None:
    """ValueError for the one convention that is not computed here."""
    if convention.wrap and convention.count_once and not convention.same_bucket:
        raise ValueError(
            "the fused version must not count pairs once where rounds look back at each other; use fused=False for "
            f"{convention}"
        )


def lsh_attention(
    query: Tensor,
    value: Tensor,
    buckets: Tensor,
    mask: Tensor | None = None,
    *,
    chunk_len: int,
    is_causal: bool = False,
    scale: float = 1.0,
    convention: Convention,
) -> Tensor:
    """As `attn.lsh.lsh_attention`, which checks the arguments."""
    return LSH.apply(query, value, buckets, mask, Options(chunk_len, is_causal, scale, convention))


def limits(device: torch.device) -> Limits:
    """Those of a device."""
    return LIMITS.get(device.type, LIMITS_ELSEWHERE)


def full_precision(device: torch.device) -> AbstractContextManager:
    """No lower precision inside: sums over several rounds, and outputs written in place."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


# --- Hashing -----------------------------------------------------------------------------------------------------


def hash_vectors(vectors: Tensor, rotations: Sequence[Tensor]) -> Tensor:
    """As `attn.lsh.hash_vectors`: bucket numbers [B, H, R, T] of vectors [B, H, T, E], in their dtype.

    Tokens lie side by side, some at a time, so that extremes are taken over whole rows of them: much faster than an
    argmax over the few numbers of each token.
    """
    batch, n_heads, length, _ = vectors.shape
    n_rounds = rotations[0].shape[1]
    buckets = torch.empty(batch, n_heads, n_rounds, length, dtype=torch.int64, device=vectors.device)
    numbers = batch * n_heads * n_rounds * max(rotation.shape[-1] for rotation in rotations)
    size = max(256, limits(vectors.device).block_products // numbers)
    matrices = [rotation.to(vectors.dtype).mT.flatten(1, 2) for rotation in rotations]  # [H, R half, E]
    for tokens, found in zip(vectors.split(size, dim=2), buckets.split(size, dim=3), strict=True):
        found.zero_()
        place = 1
        for matrix in matrices:
            rotated = torch.matmul(matrix, tokens.mT).unflatten(2, (n_rounds, -1))  # [B, H, R, half, some T]
            found.add_(first_largest(rotated), alpha=place)
            place *= 2 * rotated.shape[3]
    return buckets


def first_largest(rotated: Tensor) -> Tensor:
    """argmax([x; -x]) over the last dimension but one [..., half, T] to [..., T], int64."""
    half = rotated.shape[-2]
    high, low = rotated.amax(-2, keepdim=True), rotated.amin(-2, keepdim=True)
    is_negative = high < -low
    distance = rotated.sub_(torch.where(is_negative, low, high)).abs_()  # 0 at the largest
    rank = torch.arange(half, 0, -1, dtype=rotated.dtype, device=rotated.device).unsqueeze(-1)
    index = half - torch.sub(rank, distance, alpha=PENALTY).amax(-2)
    return index.long() + half * is_negative.squeeze(-2)


# --- The places of each round ----------------------------------------------------------------------------------------


class Order(NamedTuple):
    """The tokens of a group of sequences, and where each round puts them."""

    position: Tensor  # [G, R, C m]: which position stands at each place
    place: Tensor  # [G, R, C m]: at which place each position stands
    bucket: Tensor  # [G, R, C m], of each position
    is_padding: Tensor  # [G, C m]


def sort_by_bucket(buckets: Tensor, is_padding: Tensor) -> Order:
    """Order of buckets [G, R, C m] and, within a bucket, of positions, padding last.

    All sequences and rounds are one row: torch sorts a row of whole numbers by digits, several times faster than many
    rows, which it sorts by comparing.
    """
    n_sequences, n_rounds, length = buckets.shape
    row = torch.arange(n_sequences * n_rounds, device=buckets.device).view(n_sequences, n_rounds, 1)
    last = buckets.amax() + 1
    key = torch.where(is_padding.unsqueeze(1), last, buckets) + row * (last + 1)
    position = key.flatten().sort(stable=True).indices.view(key.shape) - row * length
    numbers = torch.arange(length, device=buckets.device).expand_as(position)
    return Order(position, torch.empty_like(position).scatter_(-1, position, numbers), buckets, is_padding)


class Round(NamedTuple):
    """The places of one round. Floating numbers are for penalties."""

    row: Tensor  # [G L]: which of the G T tokens stands there; any one for padding
    before: Tensor | None  # [G m]: the places that are looked back at only; None where no token stands there
    is_query: Tensor  # [G L]: False for padding, and for what is looked back at only
    place: Tensor  # [G T]: where each token stands
    position: Tensor  # [G (C + 1), m], in the sequence
    bucket: Tensor | None  # [G (C + 1), m], unequal for padding; None where no key is forbidden for it
    meeting: Sequence[Tensor]  # [G (C + 1), m] for each earlier round, see `meeting_number`


def rounds_of(order: Order, n_tokens: int, options: Options, dtype: torch.dtype) -> Iterator[Round]:
    """Every round of a group of sequences, one by one; `n_tokens` is G T."""
    convention, chunk_len = options.convention, options.chunk_len
    n_sequences, n_rounds, padded = order.position.shape
    length = n_tokens // n_sequences
    wraps = convention.wrap and not convention.same_bucket
    start = torch.arange(n_sequences, device=order.place.device).unsqueeze(-1)
    nowhere = order.position.new_full((n_sequences, chunk_len), padded)
    before_places = (torch.arange(chunk_len, device=start.device) + start * (padded + chunk_len)).flatten()
    meeting = meeting_number(order, options) if convention.count_once else None
    for r in range(n_rounds):
        before = order.position[:, r - 1, -chunk_len:] if wraps else nowhere
        position = torch.cat([before, order.position[:, r]], dim=1)  # [G, L]
        inside = position.clamp(max=padded - 1)
        is_padding = order.is_padding.gather(1, inside) | (position == padded)
        is_query = ~is_padding
        is_query[:, :chunk_len] = False

        def placed(numbers: Tensor, inside: Tensor = inside, is_padding: Tensor = is_padding) -> Tensor:
            """Numbers of positions [G, C m] at their places."""
            return numbers.gather(1, inside).to(dtype).masked_fill_(is_padding, FAR).view(-1, chunk_len)

        bucket = order.bucket[:, r] if convention.same_bucket else torch.zeros_like(order.bucket[:, r])
        yield Round(
            row=(position.clamp_(max=length - 1) + start * length).flatten(),
            before=before_places if wraps else None,
            is_query=is_query.flatten(),
            place=(order.place[:, r, :length] + chunk_len + start * (padded + chunk_len)).flatten(),
            position=placed(torch.arange(padded, device=position.device).expand(n_sequences, -1)),
            bucket=None if wraps and options.is_causal else placed(bucket),
            meeting=() if meeting is None else [placed(meeting[:, e]) for e in range(r)],
        )


def meeting_number(order: Order, options: Options) -> Tensor:
    """Numbers [G, R, C m] that tell which pairs a round has met: a query's is then that of the key, or 1 more.

    The number of the chunk is enough, with twice that of the bucket where only tokens of one bucket meet.
    """
    chunk = order.place // options.chunk_len
    return chunk + 2 * order.bucket if options.convention.same_bucket else chunk


# --- Blocks of chunks -------------------------------------------------------------------------------------------------


class Block(NamedTuple):
    """Some chunks of a round: n as queries, and one more before them as keys."""

    first: int  # the first query's chunk, among G (C + 1)
    n: int

    def queries(self, table: Tensor, chunk_len: int = 1) -> Tensor:
        """The rows of the queries, from a table with `chunk_len` rows a chunk."""
        return table[self.first * chunk_len : (self.first + self.n) * chunk_len]

    def keys(self, table: Tensor, chunk_len: int = 1) -> Tensor:
        """The rows of the keys."""
        return table[(self.first - 1) * chunk_len : (self.first + self.n) * chunk_len]

    def column(self, numbers: Tensor) -> Tensor:
        """Numbers [G (C + 1), m] of the queries [n, m, 1]."""
        return self.queries(numbers).unsqueeze(-1)

    def row(self, numbers: Tensor) -> Tensor:
        """Numbers [G (C + 1), m] of the keys in each query's window [n, 1, 2m]."""
        return windows(self.keys(numbers).reshape(-1, 1), numbers.shape[-1]).mT


def blocks(numbers: Tensor) -> Iterator[Block]:
    """All chunks of [G (C + 1), m] but the first, which is looked back at only."""
    n_chunks, chunk_len = numbers.shape
    size = max(1, limits(numbers.device).block_products // (2 * chunk_len**2))
    return (Block(first, min(size, n_chunks - first)) for first in range(1, n_chunks, size))


def windows(rows: Tensor, chunk_len: int) -> Tensor:
    """Every chunk but the first, with the one before it: [(n + 1) m, any] to a view [n, 2m, any]."""
    n, width = len(rows) // chunk_len - 1, rows.shape[-1]
    return rows.as_strided((n, 2 * chunk_len, width), (chunk_len * width, width, 1))


def allowed_products(queries: Tensor, keys: Tensor, block: Block, now: Round, is_causal: bool) -> Tensor:
    """Products [n, m, 2m] of queries [n, m, E] and their windows of keys [n, 2m, E], lowered where forbidden."""
    products = torch.bmm(queries, keys.mT)
    lowered = block.row(now.position) - block.column(now.position)
    if is_causal:
        lowered.add_(1).clamp_(min=0)  # 0 for earlier keys
    else:
        torch.sub(1, lowered.abs_(), out=lowered).clamp_(min=0)  # 0 for all but the query itself
    distance = torch.empty_like(lowered)
    if now.bucket is not None:
        lowered.add_(torch.sub(block.row(now.bucket), block.column(now.bucket), out=distance).abs_())
    if now.meeting:
        nearest = torch.full_like(lowered, 1.5)
        for number in now.meeting:  # a distance of 0.5 for pairs that have met, 1.5 or more for others
            torch.sub(block.column(number) - 0.5, block.row(number), out=distance).abs_()
            torch.minimum(nearest, distance, out=nearest)
        lowered.sub_(nearest).add_(1.5)
    return products.add_(lowered, alpha=-PENALTY)


# --- One round -------------------------------------------------------------------------------------------------------


class Gathered(NamedTuple):
    """What a block takes from tables with a row a token."""

    queries: Sequence[Tensor]  # [n, m, any] each
    windows: Sequence[Tensor]  # [n, 2m, any] each


def gather(of_queries: Sequence[Tensor], of_keys: Sequence[Tensor], block: Block, now: Round) -> Gathered:
    """Rows of a block's queries from tables [G T, any], and of its windows of keys from others."""
    chunk_len = now.position.shape[-1]
    here, there = block.queries(now.row, chunk_len), block.keys(now.row, chunk_len)
    return Gathered(
        [table.index_select(0, here).unflatten(0, (block.n, chunk_len)) for table in of_queries],
        [windows(table.index_select(0, there), chunk_len) for table in of_keys],
    )


def attend_round(
    query: Tensor, keys: Tensor, value: Tensor, now: Round, is_causal: bool
) -> tuple[Tensor, Tensor]:
    """Outputs [G T, V] of one round and logarithms of its sums [G T]."""
    output = value.new_empty(*now.position.shape, value.shape[-1])
    total = torch.empty_like(now.position)
    for block in blocks(now.position):
        (queries,), (key_windows, value_windows) = gather([query], [keys, value], block, now)
        weights = allowed_products(queries, key_windows, block, now, is_causal)
        largest = weights.amax(-1, keepdim=True)
        sums = weights.sub_(largest).exp2_().sum(-1, keepdim=True)
        torch.bmm(weights, value_windows, out=block.queries(output)).div_(sums)
        torch.add(largest, sums.log2_(), out=block.column(total))
    return output.flatten(0, 1).index_select(0, now.place), total.flatten().index_select(0, now.place)


def attend_round_backward(
    query: Tensor,
    keys: Tensor,
    value: Tensor,
    grad: Tensor,
    total: Tensor,
    shift: Tensor,
    now: Round,
    is_causal: bool,
) -> Iterator[Tensor]:
    """What one round adds to the gradients of queries, keys and values [G T, any].

    Args:
        total: logarithm of each query's sum over all rounds [G T].
        shift: what normalising takes from the gradient of each of its weights [G T].
        others: as everywhere; `grad` is the gradient of the output.
    """
    shape = now.position.shape
    tables = [rows.new_empty(*shape, rows.shape[-1]) for rows in (query, keys, value)]
    for table in tables:
        table[0] = 0  # the chunk that is no block's
    to_query, to_key, to_value = tables
    totals = total.index_select(0, now.row).masked_fill_(~now.is_query, torch.inf).view(shape)
    shifts = shift.index_select(0, now.row).view(shape)
    for block in blocks(now.position):
        (queries, grads), (key_windows, value_windows) = gather([query, grad], [keys, value], block, now)
        weights = allowed_products(queries, key_windows, block, now, is_causal)
        weights.sub_(block.column(totals)).exp2_()
        add_to_windows(to_value, block, weights, grads)
        slopes = torch.bmm(grads, value_windows.mT).sub_(block.column(shifts)).mul_(weights)
        torch.bmm(slopes, key_windows, out=block.queries(to_query))
        add_to_windows(to_key, block, slopes, queries)
    for table in tables:
        rows = table.flatten(0, 1)
        found = rows.index_select(0, now.place)
        if now.before is not None:
            found.index_add_(0, now.row[now.before], rows[now.before])
        yield found


def add_to_windows(table: Tensor, block: Block, weights: Tensor, rows: Tensor) -> None:
    """Add weights^T rows, weights [n, m, 2m], to a table of chunks: half to the chunk before, half to the query's.

    The query's chunk was not written before, being no block's yet but this one's.
    """
    before, own = weights.chunk(2, dim=-1)
    torch.bmm(own.mT, rows, out=block.queries(table))
    table[block.first - 1 : block.first - 1 + block.n].baddbmm_(before.mT, rows)


# --- One group of sequences -----------------------------------------------------------------------------------------


def unit(query: Tensor) -> tuple[Tensor, Tensor]:
    """Keys, and the factors that make them from queries [any, E]."""
    factor = (query.square().sum(-1, keepdim=True) + LENGTH_EPS).rsqrt()
    return query * factor, factor


def attend(query: Tensor, value: Tensor, order: Order, options: Options) -> tuple[Tensor, Tensor]:
    """Outputs [G T, V] and logarithms of the sums [G T] for queries [G T, E] and values [G T, V].

    A lone query has its own value as output, and infinity as logarithm: then it has no weights in the backward pass.
    """
    keys = unit(query)[0].mul_(options.scale * LOG2_E)
    output, total = torch.zeros_like(value), query.new_full((len(query),), -3 * PENALTY * FAR)
    for now in rounds_of(order, len(query), options, query.dtype):
        new_output, new_total = attend_round(query, keys, value, now, options.is_causal)
        joined = torch.logaddexp2(total, new_total)
        output.mul_(total.sub_(joined).exp2_().unsqueeze(-1))
        output.addcmul_(new_output, new_total.sub_(joined).exp2_().unsqueeze(-1))
        total = joined
    is_lone = total < -PENALTY / 2
    return torch.where(is_lone.unsqueeze(-1), value, output), total.masked_fill_(is_lone, torch.inf)


def attend_backward(
    query: Tensor, value: Tensor, output: Tensor, grad: Tensor, total: Tensor, order: Order, options: Options
) -> tuple[Tensor, Tensor]:
    """Gradients of queries and values, from what `attend` was given and returned and the gradient of the output."""
    keys = unit(query)[0].mul_(options.scale * LOG2_E)
    shift = (grad * output).sum(-1)
    grad_query, grad_keys = torch.zeros_like(query), torch.zeros_like(query)
    grad_value = grad.masked_fill(total.isfinite().unsqueeze(-1), 0)  # of lone queries
    for now in rounds_of(order, len(query), options, query.dtype):
        added = attend_round_backward(query, keys, value, grad, total, shift, now, options.is_causal)
        for whole, part in zip((grad_query, grad_keys, grad_value), added, strict=True):
            whole.add_(part)
    # through k = q / |q|: what lies along the key is lost
    unit_keys, factor = unit(query)
    along = (grad_keys * unit_keys).sum(-1, keepdim=True)
    grad_keys.addcmul_(unit_keys, along, value=-1).mul_(factor)
    return grad_query.div_(LOG2_E).add_(grad_keys, alpha=options.scale), grad_value


# --- All sequences -----------------------------------------------------------------------------------------------------


class LSH(torch.autograd.Function):
    """`lsh_attention`, one group of sequences after another."""

    @staticmethod
    def forward(ctx, query, value, buckets, mask, options):
        output = torch.empty_like(value)
        total = query.new_empty(query.shape[:3], dtype=torch.promote_types(query.dtype, torch.float32))
        with full_precision(query.device):
            for part in groups(query, options.chunk_len):
                order, (queries, values) = group(part, buckets, mask, options, query, value)
                found, totals = attend(queries, values, order, options)
                output[part] = found.view(output[part].shape)
                total[part] = totals.view(total[part].shape)
        if mask is not None:
            output.masked_fill_(~mask[:, None, :, None], 0)
        ctx.save_for_backward(query, value, buckets, mask, output, total)
        ctx.options = options
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        query, value, buckets, mask, output, total = ctx.saved_tensors
        if mask is not None:
            grad = grad.masked_fill(~mask[:, None, :, None], 0)
        grad_query, grad_value = torch.empty_like(query), torch.empty_like(value)
        with full_precision(query.device):
            for part in groups(query, ctx.options.chunk_len):
                order, rows = group(part, buckets, mask, ctx.options, query, value, output, grad)
                found = attend_backward(*rows, total[part].flatten(), order, ctx.options)
                for whole, rows in zip((grad_query, grad_value), found, strict=True):
                    whole[part] = rows.view(whole[part].shape)
        return grad_query, grad_value, None, None, None


def groups(query: Tensor, chunk_len: int) -> Iterator[tuple[slice, slice]]:
    """Batch entries and heads of each group, for queries [B, H, T, E]."""
    batch, n_heads, length, _ = query.shape
    size = max(1, limits(query.device).group_tokens // (length + -length % chunk_len))  # sequences
    entries = max(1, size // n_heads)
    heads = min(size, n_heads)
    for b in range(0, batch, entries):
        for h in range(0, n_heads, heads):
            yield slice(b, b + entries), slice(h, h + heads)


def group(
    part: tuple[slice, slice], buckets: Tensor, mask: Tensor | None, options: Options, *tensors: Tensor
) -> tuple[Order, list[Tensor]]:
    """The order of a group, and its part of tensors [B, H, T, any] as rows [G T, any], in float32 at least."""
    buckets = buckets[part].flatten(0, 1)  # [G, R, T]
    n_heads, length = buckets.shape[0] // len(tensors[0][part]), buckets.shape[-1]
    missing = -length % options.chunk_len
    if mask is None:
        is_padding = torch.zeros(len(buckets), length, dtype=torch.bool, device=buckets.device)
    else:
        is_padding = ~mask[part[0]].repeat_interleave(n_heads, dim=0)  # [G, T]
    order = sort_by_bucket(F.pad(buckets.long(), (0, missing)), F.pad(is_padding, (0, missing), value=True))
    dtype = torch.promote_types(tensors[0].dtype, torch.float32)
    return order, [tensor[part].flatten(0, 2).to(dtype) for tensor in tensors]
