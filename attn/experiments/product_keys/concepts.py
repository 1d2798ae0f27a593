"""What the chapter computes to show: the search by halves on a small grid, what searches cost, and sizes at the paper's
own scale."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from attn.experiments.product_keys.runs import PAPER
from attn.experiments.product_keys.tables import printed_memory
from attn.experiments.product_keys.workloads import TrunkConfig, build_model, memories
from attn.kernels.product_keys import winning_pairs
from attn.product_keys import (
    cartesian_keys,
    flat_key_topk,
    kl_from_uniform,
    product_key_topk,
    search_cost,
    usage,
)
from attn.reproduction.facts import load_papers

# --- the search ------------------------------------------------------------------------------------------------


class Halves(NamedTuple):
    """One query against a small memory; sub-keys in falling order of their scores, so that the best are top left."""

    left: np.ndarray  # scores of the left sub-keys [n]
    right: np.ndarray  # of the right ones [n]
    sums: np.ndarray  # scores of all slots [n, n]
    candidates: np.ndarray  # pairs of the k best of each half [n, n], boolean
    needed: np.ndarray  # those of them that can be among the k best, whatever the scores [n, n], boolean
    best: np.ndarray  # the k slots of highest score [n, n], boolean


def halves(*, n_keys: int = 8, topk: int = 5, key_dim: int = 6, seed: int = 13) -> Halves:
    """The steps of a search: scores of two halves, candidates, and the slots that are read."""
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(1, 1, key_dim, generator=generator)
    sub_keys = torch.randn(1, 2, n_keys, key_dim // 2, generator=generator)
    scores = [sub_keys[0, side] @ half for side, half in enumerate(query[0, 0].chunk(2))]
    orders = [score.argsort(descending=True) for score in scores]
    ordered = torch.stack([sub_keys[0, side, order] for side, order in enumerate(orders)]).unsqueeze(0)
    left, right = (score[order].numpy() for score, order in zip(scores, orders, strict=True))
    _, slots = product_key_topk(query, ordered, topk)
    best = np.zeros(n_keys**2, bool)
    best[slots.flatten().numpy()] = True
    candidates = np.zeros((n_keys, n_keys), bool)
    candidates[:topk, :topk] = True
    needed = np.zeros_like(candidates)
    needed[tuple(winning_pairs(topk, torch.device("cpu")).numpy())] = True
    return Halves(left, right, left[:, None] + right[None], candidates, needed, best.reshape(n_keys, n_keys))


def differing_searches(
    n_keys: Iterable[int], *, n_queries: int = 64, topk: int = 8, key_dim: int = 16
) -> int:
    """Among random queries and sub-keys of several sizes: searches by halves whose slots differ from those of a search
    through all keys."""
    differ = 0
    for size in n_keys:
        generator = torch.Generator().manual_seed(size)
        query = torch.randn(n_queries, 2, key_dim, generator=generator).double()
        sub_keys = torch.randn(2, 2, size, key_dim // 2, generator=generator).double()
        found = product_key_topk(query, sub_keys, topk)[1].sort(-1).values
        exhaustive = flat_key_topk(query, cartesian_keys(sub_keys), topk)[1].sort(-1).values
        differ += int((found != exhaustive).any(-1).sum())
    return differ


class Costs(NamedTuple):
    """Multiply-accumulates of one search by one head, over numbers of slots."""

    slots: np.ndarray
    product: np.ndarray  # the products of two codebooks, and k * k sums
    flat: np.ndarray


def costs(n_keys: Sequence[int], *, key_dim: int, topk: int) -> Costs:
    """What searches cost (the facts' `search_cost`)."""
    found = [search_cost(n_keys=n, key_dim=key_dim, topk=topk) for n in n_keys]
    return Costs(
        np.array([n**2 for n in n_keys]),
        np.array([cost.product + cost.sums for cost in found]),
        np.array([cost.flat for cost in found]),
    )


# --- sizes at the paper's scale ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Counted:
    """A number of the facts that needs no training, as stated there and as counted on the code."""

    what: str
    stated: int
    counted: int


def counted_facts() -> list[Counted]:
    """Slots, parameters and search costs of the facts, each counted on modules without numbers."""
    facts = load_papers()[PAPER]
    found = [
        Counted(
            f"slots, {row['row']}", row["slots"], printed_memory(d_model=512, n_keys=row["n_keys"]).n_slots
        )
        for row in facts.table("table2_batchnorm").rows
    ]
    for row, key_dim in zip(facts.exact_fact("memory_params")["values"], (512, 256), strict=True):
        memory = printed_memory(d_model=1024, n_keys=512, key_dim=key_dim)
        count = sum(parameter.numel() for parameter in memory.parameters())
        found.append(
            Counted(
                f"parameters of a memory: 512^2 slots, width 1024, queries of {key_dim}", row["total"], count
            )
        )
    large = printed_memory(d_model=1024, n_keys=1024)
    found.append(Counted("values of a memory: 1024^2 slots, width 1024", 1024**3, large.values.numel()))
    (row,) = facts.exact_fact("search_cost")["values"]
    cost = search_cost(n_keys=512, key_dim=512, topk=32)
    found += [
        Counted("multiply-accumulates of a search by halves", row["product"], cost.product),
        Counted("sums of pairs after it", row["sums"], cost.sums),
        Counted("multiply-accumulates of a search through all keys", row["flat"], cost.flat),
    ]
    return found


def needed_sums(topk: int) -> int:
    """Sums that can be among the k highest."""
    return search_cost(n_keys=topk, key_dim=2, topk=topk).needed_sums


def bound_violations(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Cells of table 2 whose divergence lies below log(1 / usage), which no distribution allows."""
    return [
        f"{row['row']}, {side}"
        for row in rows
        for side in ("no_bn", "bn")
        if row[f"kl_{side}"] < np.log(100 / row[f"usage_{side}"])
    ]


def even_use(n_slots: int, used: int) -> tuple[float, float]:
    """Usage and divergence where some slots are used alike and the others not at all."""
    weight = torch.zeros(n_slots)
    weight[:used] = 1
    return usage(weight), kl_from_uniform(weight)


# --- what a model costs to run -------------------------------------------------------------------------------


def multiplications(config: TrunkConfig, *, vocab_size: int, block: int) -> int:
    """Multiply-accumulates of a forward pass for each token: products counted as they run, and the values' sums."""
    model = build_model(config, vocab_size=vocab_size, max_len=block).eval()
    tokens = torch.zeros(1, block, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:  # with gradients: its hooks need them
        model(tokens)
    read = sum(
        memory.keys.topk * memory.query.n_heads * memory.values.shape[1]
        for memory in memories(model).values()
    )
    return counter.get_total_flops() // 2 // block + read
