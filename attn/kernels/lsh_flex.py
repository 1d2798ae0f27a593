"""LSH attention by FlexAttention, for a GPU: a round's chunks in one kernel, forwards and backwards.

`attn.lsh.lsh_attention` defines the numbers. In every round the tokens are laid out as sorted, and the kernel
visits, for each tile of queries, the tiles of their chunks and of the chunks before them; what a query may not attend
to, and what an earlier round has met already, is hidden inside the kernel. Rounds are joined by the logarithms of their
sums, as in `attn.kernels.lsh`, whose order and numbers are used here, and with which the whole is compared before its
first use on a device.

Shapes: G sequences (heads of all batch entries), T length, m chunk length, P length filled up to whole chunks, R rounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, create_block_mask

from attn.kernels import lsh as by_blocks
from attn.kernels.flex import DTYPES, TILE, compiled
from attn.kernels.lsh import Options, Order, meeting_number, sort_by_bucket, unit
from attn.kernels.verified import agrees
from attn.lsh_convention import PAPER, Convention


def suits(query: Tensor, convention: Convention) -> bool:
    """Whether to attend here rather than by `attn.kernels.lsh`, which also lets rounds look back at each other."""
    looks_across = convention.wrap and not convention.same_bucket
    if query.device.type != "cuda" or query.dtype not in DTYPES or looks_across:
        return False
    return _verified(query.device)


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
    flex: Callable[..., tuple[Tensor, Tensor]] | None = None,
) -> Tensor:
    """As `attn.kernels.lsh.lsh_attention`.

    Args:
        flex: what computes the attention of a round; None for FlexAttention, compiled.
    """
    batch, n_heads, length, _ = query.shape
    options = Options(chunk_len, is_causal, scale, convention)
    missing = -length % chunk_len
    if mask is None:
        is_padding = torch.zeros(batch, length, dtype=torch.bool, device=query.device)
    else:
        is_padding = ~mask
    is_padding = F.pad(is_padding, (0, missing), value=True).repeat_interleave(n_heads, dim=0)  # [G, P]
    order = sort_by_bucket(F.pad(buckets.flatten(0, 1).long(), (0, missing)), is_padding)
    queries, values = (F.pad(rows.flatten(0, 1), (0, 0, 0, missing)) for rows in (query, value))
    output, is_lone = _joined_rounds(queries, values, order, options, flex or compiled())
    output = torch.where(is_lone.unsqueeze(-1), values, output)
    output = output.masked_fill(is_padding.unsqueeze(-1), 0)
    return output[:, :length].unflatten(0, (batch, n_heads))


def _joined_rounds(
    query: Tensor,
    value: Tensor,
    order: Order,
    options: Options,
    flex: Callable[..., tuple[Tensor, Tensor]],
) -> tuple[Tensor, Tensor]:
    """Outputs [G, P, V] of all rounds together, and which queries have nothing to attend to [G, P]."""
    keys = unit(query)[0]
    numbers = meeting_number(order, options) if options.convention.count_once else None
    outputs, totals = [], []
    for r in range(order.position.shape[1]):
        position = order.position[:, r]
        sorted_rows = [_rows(table, position).unsqueeze(1) for table in (query, keys, value)]
        met = [] if numbers is None else [numbers[:, e].gather(1, position) for e in range(r)]
        found, aux = flex(
            *sorted_rows, score_mod=_score_mod(position, r, order, met, options), scale=options.scale,
            block_mask=_near(position.shape[-1], options.chunk_len, position.device),
            return_aux=AuxRequest(lse=True),
        )  # fmt: skip
        outputs.append(_rows(found.squeeze(1), order.place[:, r]))
        totals.append(aux.lse.squeeze(1).gather(1, order.place[:, r]))
    total = torch.stack(totals)  # [R, G, P]
    is_lone = (total == -torch.inf).all(0)
    share = total.masked_fill(is_lone, 0).softmax(0).unsqueeze(-1)
    return (torch.stack(outputs) * share.to(value.dtype)).sum(0), is_lone


def _rows(table: Tensor, index: Tensor) -> Tensor:
    """Rows [G, P, any] of a table [G, P, any], for each sequence its own."""
    return table.gather(1, index.unsqueeze(-1).expand(-1, -1, table.shape[-1]))


def _score_mod(
    position: Tensor, r: int, order: Order, met: Sequence[Tensor], options: Options
) -> Callable[..., Tensor]:
    """Hides what a round forbids, from places in its order.

    Args:
        position: which position stands at each place [G, P].
        r: the round.
        order: of all rounds.
        met: for each earlier round its meeting numbers at these places [G, P].
        options: of the attention.
    """
    bucket = order.bucket[:, r].gather(1, position)
    is_padding = order.is_padding.gather(1, position)
    same_bucket, is_causal = options.convention.same_bucket, options.is_causal

    def change(score: Tensor, g: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        here, there = position[g, query], position[g, key]
        allowed = ~is_padding[g, key] & (there < here if is_causal else there != here)
        if same_bucket:
            allowed = allowed & (bucket[g, query] == bucket[g, key])
        for number in met:
            ahead = number[g, query] - number[g, key]
            allowed = allowed & (ahead != 0) & (ahead != 1)
        return torch.where(allowed, score, -torch.inf)

    return change


@lru_cache(maxsize=64)
def _near(length: int, chunk_len: int, device: torch.device) -> BlockMask:
    """A query's own chunk and the one before."""

    def near(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        ahead = query // chunk_len - key // chunk_len
        return (ahead == 0) | (ahead == 1)

    return create_block_mask(near, None, None, length, length, device=device, BLOCK_SIZE=TILE)


# --- The comparison before the first use -----------------------------------------------------------------------


@cache
def _verified(device: torch.device) -> bool:
    """Whether outputs and gradients are those of `attn.kernels.lsh`."""
    return agrees(
        "FlexAttention for LSH attention",
        lambda: _example(lsh_attention, device),
        lambda: _example(by_blocks.lsh_attention, device),
    )


def _example(run: Callable[..., Tensor], device: torch.device) -> dict[str, Tensor]:
    """Output and gradients of a small case with several rounds and padding."""
    generator = torch.Generator().manual_seed(0)
    query, value, direction = (torch.randn(2, 2, 400, 16, generator=generator).to(device) for _ in range(3))
    query.requires_grad_(), value.requires_grad_()
    buckets = torch.randint(0, 8, (2, 2, 3, 400), generator=generator).to(device)
    mask = torch.arange(400, device=device) < torch.tensor([[400], [333]], device=device)
    output = run(
        query, value, buckets, mask, chunk_len=32, is_causal=True, scale=math.sqrt(16), convention=PAPER
    )
    to_query, to_value = torch.autograd.grad((output * direction).sum(), (query, value))
    return {
        "output": output.detach(),
        "gradient of the queries": to_query,
        "gradient of the values": to_value,
    }
