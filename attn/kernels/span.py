"""Attention over learned spans, each head over its own keys only (Sukhbaatar et al. 2019, arXiv:1905.07799).

`attn.adaptive_span.span_attention` defines the numbers; this file computes the same, with gradients, to rounding:

- A head projects and visits the keys within its own reach, so that time and memory follow the mean of the spans and
  not the longest, and nothing of size [T, K] is kept: the backward pass computes the weights again.
- Work goes by blocks of n queries with a window of r + n - 1 keys, r being the reach. In the block's matrix of products
  query i meets its r keys on the columns i ... i + r - 1; read with one more element from row to row, this band is a
  matrix [n, r] with a column for each distance, the farthest first. Position terms and masks need no shift there.
- Persistent keys and position embeddings stand side by side in one table [E, N + r], so that one product gives the
  scores of the first and the position terms of the others, and one softmax covers both.

The mask enters the scores as its logarithm. Where it is 0, the logarithm is that of MASK_FLOOR, because the ratio of a
weight to its mask, which the span's gradient needs, must stay finite.

Shapes as in `attn.adaptive_span`; r reach of a head, n queries and b sequences of a block, W = r + n - 1 keys of its
window. The same code runs on a CPU, where blocks are small enough for its cache, and on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# A mask of 0 counts as this, so that a hidden key whose score lies d above those of n keys in sight has a weight of
# about 1e-30 e^d / n. That is 0 to rounding up to a d of 52 in float32 and of 32 in float64; from 69 on it is no less
# than theirs, where the equations give it none.
MASK_FLOOR = 1e-30
# Queries of a block: many make products efficient, but they see n - 1 keys in vain.
QUERIES = 64
# Scores of a block: 1 MB in float32 on a CPU, 128 MB on a GPU.
CPU_BLOCK, GPU_BLOCK = 2**18, 2**25
# So many times more on a CPU where there are persistent keys: their products gain from more rows.
PERSISTENT_FACTOR = 4


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
    dropout: float,
) -> Tensor:
    """What `attn.adaptive_span.span_attention` returns, from the same arguments, taken apart and of the right shapes.

    Computes in float32 at least, also where autocast is on. Draws other random numbers for dropout than torch does.

    Args:
        reach: what `span_reach` says of `span`.
    """
    dtype = torch.promote_types(query.dtype, torch.float32)
    tensors = [
        None if tensor is None else tensor.to(dtype)
        for tensor in (
            query, key, value, hidden, weight, positions, span, fixed_key, fixed_value
        )
    ]  # fmt: skip
    with _full_precision(query.device.type):
        return _SpanAttention.apply(*tensors, ramp_size, tuple(reach), dropout, torch.is_grad_enabled()).to(
            query.dtype
        )


def _full_precision(device: str) -> AbstractContextManager:
    if torch.amp.is_autocast_available(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


class _Head(NamedTuple):
    """What a head's blocks share."""

    reach: int  # r, no more than there are keys
    table: Tensor  # [E, N + r]: persistent keys, then position embeddings, the farthest first
    values: Tensor | None  # persistent values [N, E]
    span: Tensor  # z [1, 1, 1], or [B, T, 1] where it differs from query to query
    ramp_size: int
    is_static: bool
    log_mask: Tensor | None  # of the farthest distances [c] if static; on the others it is 0

    @property
    def n_persistent(self) -> int:
        return self.table.shape[1] - self.reach


class _Block(NamedTuple):
    """Some queries of some sequences."""

    rows: slice  # of the batch
    queries: slice  # of the T
    missing: int  # keys of the first query's reach that do not exist, at the start of the text

    @property
    def size(self) -> tuple[int, int]:
        """Sequences b and queries n."""
        return self.rows.stop - self.rows.start, self.queries.stop - self.queries.start


class _SpanAttention(torch.autograd.Function):
    """Heads one after the other, each in blocks."""

    @staticmethod
    def forward(
        ctx, query, key, value, hidden, weight, positions, span, fixed_key, fixed_value, ramp_size, reach, dropout,
        needs_grad,
    ):  # fmt: skip
        batch, n_heads, length, dim = query.shape
        ctx.settings = ramp_size, reach, dropout
        dropper = ctx.dropper = _Dropper(dropout, query.device)
        dropper.restart()
        output = query.new_zeros(batch, length, n_heads, dim).transpose(1, 2)
        workspace, memories = _Workspace(query), []
        for index in range(n_heads):
            head = _head(index, query, hidden, positions, span, fixed_key, fixed_value, ramp_size, reach)
            memory = _memory(index, head, key, value, hidden, weight)
            if needs_grad:
                memories.append(memory)
            for block in _blocks(head, query, hidden):
                room = workspace.room(head, block)
                weights = _weights(head, block, room, _queries(query, index, block), memory)
                if dropout:
                    weights.masked_fill_(dropper.draw(weights), 0)
                summed = _weighted_sum(head, block, room, weights, memory)
                output[block.rows, index, block.queries] = summed.mul_(dropper.factor)
        ctx.save_for_backward(
            query, hidden, weight, positions, span, fixed_key, fixed_value, output, *memories
        )
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        with _full_precision(grad_output.device.type):
            return _SpanAttention._backward(ctx, grad_output)

    @staticmethod
    def _backward(ctx, grad_output):
        query, hidden, weight, positions, span, fixed_key, fixed_value, output, *memories = ctx.saved_tensors
        ramp_size, reach, dropout = ctx.settings
        ctx.dropper.restart()
        grad_query, grad_key, grad_value = (torch.zeros_like(output) for _ in range(3))
        grads = {
            name: None if tensor is None else torch.zeros_like(tensor)
            for name, tensor in (
                ("weight", weight), ("positions", positions), ("span", span),
                ("fixed_key", fixed_key), ("fixed_value", fixed_value),
            )
        }  # fmt: skip
        workspace = _Workspace(query)
        for index, memory in enumerate(memories):
            head = _head(index, query, hidden, positions, span, fixed_key, fixed_value, ramp_size, reach)
            sums = _sums(head, memory)
            for block in _blocks(head, query, hidden):
                room, scaled = workspace.room(head, block), _queries(query, index, block)
                weights = _weights(head, block, room, scaled, memory)
                dropped = ctx.dropper.draw(weights) if dropout else None
                place = block.rows, index, block.queries
                grad = grad_output[place].contiguous()
                inner = (grad * output[place]).sum(-1).flatten()  # sum of weight times its gradient [b * n]
                grad *= ctx.dropper.factor
                _value_grads(head, block, room, weights, dropped, grad, sums)
                _score_grads(head, block, room, weights, dropped, grad, inner, memory, sums)
                grad_query[place] = _query_and_key_grads(head, block, room, scaled, memory, sums)
            _hand_over(index, head, sums, hidden, grad_key, grad_value, **grads)
        return grad_query, grad_key, grad_value, None, *grads.values(), None, None, None, None


# --- A head ------------------------------------------------------------------------------------------------


def _head(
    index: int,
    query: Tensor,
    hidden: Tensor | None,
    positions: Tensor,
    span: Tensor,
    fixed_key: Tensor | None,
    fixed_value: Tensor | None,
    ramp_size: int,
    reach: Sequence[int],
) -> _Head:
    cached = 0 if hidden is None else hidden.shape[1]
    used = min(reach[index], cached + query.shape[2] - 1)
    table, values = positions[:, :used].flip(1), None
    if fixed_key is not None:
        table, values = torch.cat([fixed_key[index].T, table], dim=1), fixed_value[index]
    is_static = span.dim() == 3
    own = span[index, None] if is_static else span[:, index]
    # of a static mask the farthest R + 1 distances at most are below 1
    far = log_mask(_ramp(own, used, ramp_size)[0, 0, : ramp_size + 1]) if is_static else None
    return _Head(used, table, values, own, ramp_size, is_static, far)


def _ramp(span: Tensor, reach: int, ramp_size: int) -> Tensor:
    """(R + z - x) / R for every distance x of the reach, the farthest first: [.., r] from spans [.., 1]."""
    distance = torch.arange(reach, 0, -1, dtype=span.dtype, device=span.device)
    return (ramp_size + span - distance) / ramp_size


def log_mask(ramp: Tensor) -> Tensor:
    """Logarithm of the mask, from what `soft_span_mask` brings into the range from 0 to 1."""
    return ramp.clamp(MASK_FLOOR, 1).log_().masked_fill_(ramp < 0, -torch.inf)


def log_mask_slope(ramp: Tensor, ramp_size: int) -> Tensor:
    """Derivative of `log_mask` by z; at both ends of the ramp that of the ramp, as `torch.clamp` has it."""
    return ((ramp >= 0) & (ramp <= 1)) / (ramp_size * ramp.clamp(MASK_FLOOR, 1))


def _memory(
    index: int, head: _Head, key: Tensor, value: Tensor, hidden: Tensor | None, weight: Tensor | None
) -> Tensor:
    """Keys and values side by side [B, r + T, 2E]: of the r tokens before the block, and of the block.

    Tokens that do not exist have zeros, and get scores of -inf later on.
    """
    batch, _, length, dim = key.shape
    memory = key.new_empty(batch, head.reach + length, 2 * dim)
    past = 0 if hidden is None else min(head.reach, hidden.shape[1])
    memory[:, : head.reach - past] = 0
    if past:
        joined = weight[:, index].flatten(0, 1).T  # [D, 2E]
        torch.bmm(
            hidden[:, -past:], joined.expand(batch, -1, -1), out=memory[:, head.reach - past : head.reach]
        )
    memory[:, head.reach :, :dim] = key[:, index]
    memory[:, head.reach :, dim:] = value[:, index]
    return memory


def _blocks(head: _Head, query: Tensor, hidden: Tensor | None) -> Iterator[_Block]:
    """All blocks of a head, in the same order in both passes."""
    batch, _, length, _ = query.shape
    cached = 0 if hidden is None else hidden.shape[1]
    budget = GPU_BLOCK
    if query.device.type == "cpu":
        budget = CPU_BLOCK * (PERSISTENT_FACTOR if head.n_persistent else 1)
    rows = max(1, min(batch, budget // (QUERIES * (head.reach + QUERIES + head.n_persistent))))
    # The first token of all has nothing to attend to and keeps its zeros.
    start = 1 if not cached and not head.n_persistent else 0
    for row in range(0, batch, rows):
        for first in range(start, length, QUERIES):
            queries = slice(first, min(first + QUERIES, length))
            missing = max(0, head.reach - cached - first)
            yield _Block(slice(row, min(row + rows, batch)), queries, missing)


# --- Room to work in -----------------------------------------------------------------------------------------


class _Room(NamedTuple):
    """What blocks of one size write to."""

    products: Tensor  # of every query and key of the window [b, n, W]
    banded: Tensor  # alike, and 0 outside the band
    scores: Tensor  # [b * n, N + r]
    grads: Tensor  # alike, in the backward pass


class _Workspace:
    """Memory that all blocks of a call use in turn."""

    def __init__(self, like: Tensor) -> None:
        self.like = like
        self.buffers = [like.new_empty(0)] * 4
        self.key, self.views = None, None

    def room(self, head: _Head, block: _Block) -> _Room:
        """The views for blocks of this size."""
        (batch, length), columns = block.size, head.table.shape[1]
        key = batch, length, head.reach, columns
        if key != self.key:
            window, scores = (batch, length, head.reach + length - 1), (batch * length, columns)
            shapes = window, window, scores, scores
            self.key, self.views = (
                key,
                _Room(*(self._view(index, shape) for index, shape in enumerate(shapes))),
            )
            self.views.banded.zero_()
        return self.views

    def _view(self, index: int, shape: tuple[int, ...]) -> Tensor:
        size = prod(shape)
        if self.buffers[index].numel() < size:
            self.buffers[index] = self.like.new_empty(size)
        return self.buffers[index][:size].view(shape)


def _band(head: _Head, products: Tensor) -> Tensor:
    """The entries [b, n, r] of products [b, n, W] where query i meets its own keys, the farthest first; a view."""
    batch, length, width = products.shape
    return products.as_strided(
        (batch, length, head.reach), (length * width, width + 1, 1), products.storage_offset()
    )


def _context(head: _Head, block: _Block, scores: Tensor) -> Tensor:
    """The part [b, n, r] of scores [b * n, N + r] that belongs to tokens; a view."""
    return scores.view(*block.size, -1)[..., head.n_persistent :]


def _window(head: _Head, block: _Block, memory: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values that a block's queries see [b, W, E]; views."""
    first, length = block.queries.start, block.size[1]
    return memory[block.rows, first : first + head.reach + length - 1].chunk(2, dim=-1)


class _Dropper:
    """Draws which weights to drop, the same ones in both passes.

    A draw has 16 bits, which costs a tenth of torch's own dropout on a CPU; the share is rounded to 2**-16.
    """

    def __init__(self, dropout: float, device: torch.device) -> None:
        self.share = round(dropout * 2**16)
        self.factor = 1 / (1 - self.share / 2**16)  # keeps the mean
        self.seed = int(torch.randint(2**62, ())) if dropout else 0
        self.generator = torch.Generator(device)

    def restart(self) -> None:
        self.generator.manual_seed(self.seed)

    def draw(self, weights: Tensor) -> Tensor:
        """True where a weight is dropped, in the shape of `weights`."""
        count = weights.numel()
        words = torch.empty(-(-count // 4), dtype=torch.int64, device=weights.device)
        words.random_(-(2**63), None, generator=self.generator)
        return words.view(torch.int16)[:count].view_as(weights) < self.share - 2**15


# --- A block, forwards ---------------------------------------------------------------------------------------


def _queries(query: Tensor, index: int, block: _Block) -> Tensor:
    """The block's queries over sqrt(E) [b, n, E]."""
    return (query[block.rows, index, block.queries] * query.shape[-1] ** -0.5).contiguous()


def _weights(head: _Head, block: _Block, room: _Room, query: Tensor, memory: Tensor) -> Tensor:
    """Normalised weights before dropout, written to `room.scores` [b * n, N + r]."""
    scores = torch.mm(query.flatten(0, 1), head.table, out=room.scores)
    context = _context(head, block, scores)
    keys, _ = _window(head, block, memory)
    torch.bmm(query, keys.transpose(1, 2), out=room.products)
    context += _band(head, room.products)
    if head.is_static:
        context[..., : len(head.log_mask)] += head.log_mask
    else:
        context += log_mask(_block_ramp(head, block))
    if block.missing:
        length, device = block.size[1], scores.device
        column = torch.arange(length, device=device)[:, None] + torch.arange(head.reach, device=device)
        context.masked_fill_(column < block.missing, -torch.inf)
    return torch.softmax(scores, dim=-1, out=scores)


def _block_ramp(head: _Head, block: _Block) -> Tensor:
    return _ramp(head.span[block.rows, block.queries], head.reach, head.ramp_size)


def _weighted_sum(head: _Head, block: _Block, room: _Room, weights: Tensor, memory: Tensor) -> Tensor:
    """Weighted sum of the values [b, n, E]."""
    _band(head, room.banded).copy_(_context(head, block, weights))
    _, values = _window(head, block, memory)
    if head.values is None:
        return torch.bmm(room.banded, values)
    fixed = torch.mm(weights[:, : head.n_persistent], head.values)
    return fixed.view(*block.size, -1).baddbmm_(room.banded, values)


# --- A block, backwards --------------------------------------------------------------------------------------


class _Sums(NamedTuple):
    """Gradients that the blocks of a head add to."""

    memory: Tensor  # [B, r + T, 2E]
    table: Tensor  # [E, N + r]
    values: Tensor | None  # [N, E]
    span: Tensor  # static: of the logarithm of the mask [c]; else of z [B, T, 1]


def _sums(head: _Head, memory: Tensor) -> _Sums:
    values = None if head.values is None else torch.zeros_like(head.values)
    span = torch.zeros_like(head.log_mask if head.is_static else head.span)
    return _Sums(torch.zeros_like(memory), torch.zeros_like(head.table), values, span)


def _value_grads(
    head: _Head,
    block: _Block,
    room: _Room,
    weights: Tensor,
    dropped: Tensor | None,
    grad: Tensor,
    sums: _Sums,
) -> None:
    """Add the gradients of the values, `grad` [b, n, E] being that of the weighted sum."""
    kept = weights if dropped is None else room.grads.copy_(weights).masked_fill_(dropped, 0)
    if head.values is not None:
        sums.values.addmm_(kept[:, : head.n_persistent].T, grad.flatten(0, 1))
    _band(head, room.banded).copy_(_context(head, block, kept))
    _window(head, block, sums.memory)[1].baddbmm_(room.banded.transpose(1, 2), grad)


def _score_grads(
    head: _Head, block: _Block, room: _Room, weights: Tensor, dropped: Tensor | None, grad: Tensor, inner: Tensor,
    memory: Tensor, sums: _Sums,
) -> None:  # fmt: skip
    """Write the gradients of the scores to `room.grads` [b * n, N + r], and add what the span gets of them."""
    grads = room.grads
    if head.values is not None:
        torch.mm(grad.flatten(0, 1), head.values.T, out=grads[:, : head.n_persistent])
    torch.bmm(grad, _window(head, block, memory)[1].transpose(1, 2), out=room.products)
    context = _context(head, block, grads)
    context.copy_(_band(head, room.products))
    if dropped is not None:
        grads.masked_fill_(dropped, 0)
    grads.sub_(inner[:, None]).mul_(weights)
    if head.is_static:
        sums.span.add_(context[..., : len(sums.span)].sum((0, 1)))
    else:
        slope = log_mask_slope(_block_ramp(head, block), head.ramp_size)
        sums.span[block.rows, block.queries] = (context * slope).sum(-1, keepdim=True)


def _query_and_key_grads(
    head: _Head, block: _Block, room: _Room, query: Tensor, memory: Tensor, sums: _Sums
) -> Tensor:
    """The gradient of the queries [b, n, E]; adds those of keys and of the table."""
    grads = room.grads
    sums.table.addmm_(query.flatten(0, 1).T, grads)
    _band(head, room.banded).copy_(_context(head, block, grads))
    _window(head, block, sums.memory)[0].baddbmm_(room.banded.transpose(1, 2), query)
    grad_query = torch.mm(grads, head.table.T).view(query.shape)
    grad_query.baddbmm_(room.banded, _window(head, block, memory)[0])
    return grad_query.mul_(query.shape[-1] ** -0.5)


def _hand_over(
    index: int,
    head: _Head,
    sums: _Sums,
    hidden: Tensor | None,
    grad_key: Tensor,
    grad_value: Tensor,
    weight: Tensor | None,
    positions: Tensor,
    span: Tensor,
    fixed_key: Tensor | None,
    fixed_value: Tensor | None,
) -> None:
    """Add a head's sums to the gradients of the arguments."""
    own_key, own_value = sums.memory[:, head.reach :].chunk(2, dim=-1)
    grad_key[:, index], grad_value[:, index] = own_key, own_value
    past = 0 if hidden is None else min(head.reach, hidden.shape[1])
    if past:
        joined = hidden.new_zeros(sums.memory.shape[-1], hidden.shape[-1])  # [2E, D]
        for row, tokens in zip(
            sums.memory[:, head.reach - past : head.reach], hidden[:, -past:], strict=True
        ):
            joined.addmm_(row.T, tokens)
        weight[:, index] = joined.unflatten(0, (2, -1))
    fixed, used = sums.table.split([head.n_persistent, head.reach], dim=1)
    positions[:, : head.reach] += used.flip(1)
    if fixed_key is not None:
        fixed_key[index], fixed_value[index] = fixed.T, sums.values
    if head.is_static:
        ramp = _ramp(head.span, head.reach, head.ramp_size)[0, 0, : head.ramp_size + 1]
        span[index] = (sums.span * log_mask_slope(ramp, head.ramp_size)).sum()
    else:
        span[:, index] = sums.span
