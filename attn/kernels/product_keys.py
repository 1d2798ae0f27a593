"""Search and look-up of a product-key memory with fewer and faster operations than the definition.

Signatures, values and gradients are those of `attn.product_keys`, whose letters for shapes hold here. What is saved:

- Of the k * k sums of two scores, only pairs with (i + 1) (j + 1) <= k are formed: the lists are in order, so every
  pair that comes no later in both is at least as good, and those are (i + 1) (j + 1) with the pair itself.
- On CPUs numpy finds the k largest two to four times faster than torch, which sorts pairs of score and place.
- The values' gradient is made from the selected slots in order, and has one row for each distinct slot: it is the same
  weighted sum as the look-up, with slots and queries in each other's place.
- The weights' gradient is taken in the same order, so that each value is fetched once.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Scores that numpy partitions at a time: their order, twice their size, stays in the cache.
PARTITION_BLOCK = 2**18
PARTITIONED = (torch.float32, torch.float64)


def product_key_topk(query: Tensor, sub_keys: Tensor, topk: int) -> tuple[Tensor, Tensor]:
    """As `attn.product_keys.product_key_topk`; which of several equal scores is taken may differ."""
    n_queries, n_heads, key_dim = query.shape
    n_keys = sub_keys.shape[2]
    halves = query.reshape(n_queries, 2 * n_heads, key_dim // 2).transpose(0, 1)  # [2 H, N, E / 2]
    scores = torch.bmm(halves, sub_keys.flatten(0, 1).transpose(1, 2))  # [2 H, N, n]
    scores = scores.unflatten(0, (n_heads, 2))  # [H, 2, N, n]
    with torch.no_grad():
        best = _largest(scores, topk)  # [H, 2, N, k]
        ordered = scores.gather(-1, best)
        pairs = winning_pairs(topk, query.device)  # [2, P]
        sums = ordered[:, 0].index_select(-1, pairs[0])
        sums += ordered[:, 1].index_select(-1, pairs[1])  # [H, N, P]
        place = _largest(sums, topk)  # [H, N, k], of pairs
        place = torch.stack([side[place] for side in pairs], dim=1)  # [H, 2, N, k], in the two lists
        chosen = best.gather(-1, place)  # [H, 2, N, k], sub-keys
        slots = chosen[:, 0] * n_keys + chosen[:, 1]
    return scores.gather(-1, chosen).sum(1).transpose(0, 1), slots.transpose(0, 1)


@lru_cache(maxsize=16)
def winning_pairs(topk: int, device: torch.device) -> Tensor:
    """The places (i, j) in two lists in falling order whose sums can be among the k largest [2, P]."""
    pairs = [(i, j) for i in range(topk) for j in range(topk // (i + 1))]
    return torch.tensor(pairs, device=device).T.contiguous()


def _largest(scores: Tensor, topk: int) -> Tensor:
    """Places of the k largest along the last dimension, largest first."""
    n_scores = scores.shape[-1]
    if scores.device.type != "cpu" or scores.dtype not in PARTITIONED or topk == n_scores:
        return scores.topk(topk).indices
    places = torch.empty(*scores.shape[:-1], topk, dtype=torch.int64)
    rows, filled = scores.reshape(-1, n_scores).numpy(), places.view(-1, topk).numpy()
    step = max(1, PARTITION_BLOCK // n_scores)
    for start in range(0, len(rows), step):
        block = slice(start, start + step)
        filled[block] = np.argpartition(rows[block], n_scores - topk)[:, n_scores - topk :]
    order = scores.gather(-1, places).argsort(dim=-1, descending=True)
    return places.gather(-1, order)


def read_values(values: Tensor, slots: Tensor, weights: Tensor) -> Tensor:
    """As `attn.product_keys.read_values`, differentiable once.

    The gradient of `values` is a coalesced sparse tensor: distinct rows in rising order, each once.
    """
    return _ReadValues.apply(values, slots.contiguous(), weights.contiguous())


class _ReadValues(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor, slots: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(values, slots, weights)
        return F.embedding_bag(slots, values, per_sample_weights=weights, mode="sum")

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        values, slots, weights = ctx.saved_tensors
        grad = grad.contiguous()
        in_order, order = slots.flatten().sort()  # [N M]
        rows, counts = torch.unique_consecutive(in_order, return_counts=True)  # [U], distinct slots
        query = order.div(slots.shape[1], rounding_mode="floor")  # [N M], who selected the slot
        grad_values = grad_weights = None
        if ctx.needs_input_grad[0]:
            starts = counts.cumsum(0) - counts
            rows_grad = F.embedding_bag(
                query, grad, starts, per_sample_weights=weights.flatten()[order], mode="sum"
            )  # [U, V]
            grad_values = torch.sparse_coo_tensor(
                rows.unsqueeze(0), rows_grad, values.shape, is_coalesced=True, check_invariants=False
            )
        if ctx.needs_input_grad[2]:
            # what torch does for `embedding_bag`, which leaves the order open: value times gradient, pair by pair
            products = torch.ops.aten._embedding_bag_per_sample_weights_backward(
                grad, values, in_order, in_order.new_zeros(len(grad)), query, mode=0, padding_idx=-1
            )  # [N M]
            grad_weights = torch.empty_like(weights)
            grad_weights.view(-1)[order] = products
        return grad_values, None, grad_weights
