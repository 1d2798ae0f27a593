"""What the chapter computes to show: the search by halves on a small grid, what searches cost, and sizes at the paper's
own scale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import log2
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from attn.experiments.product_keys.runs import BASE, MODELS, PAPER, trunk
from attn.experiments.product_keys.tables import printed_memory
from attn.experiments.product_keys.workloads import TrunkConfig, build_model, memories
from attn.kernels.product_keys import winning_pairs
from attn.product_keys import (
    ProductKeys,
    QueryNetwork,
    cartesian_keys,
    flat_key_topk,
    kl_from_uniform,
    product_key_topk,
    search_cost,
    usage,
)
from attn.reproduction.facts import load_papers
from attn.training import generator_for
from attn.transformer import FeedForward

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
            f"slots, {row['row']}",
            row["slots"],
            len(printed_memory(d_model=512, n_keys=row["n_keys"]).values),
        )
        for row in facts.table("table2_batchnorm").rows
    ]
    for row in facts.exact_fact("memory_params")["values"]:
        found += _counted_parameters(row)
    for row in facts.exact_fact("most_values")["values"]:
        memory = printed_memory(d_model=row["d"], n_keys=row["n_keys"])
        found.append(
            Counted(
                f"numbers in the values of a memory, {row['n_keys']}^2 slots, width {row['d']}",
                row["values"],
                memory.values.numel(),
            )
        )
    for row in facts.exact_fact("feed_forward_params")["values"]:
        what = f"parameters of the feed-forward layer that a memory replaces, width {row['d']}"
        found.append(Counted(what, row["total"], _count(printed_feed_forward(row["d"]).parameters())))
    for row in facts.exact_fact("search_cost")["values"]:
        found += _counted_search(row)
    return found


def _counted_search(row: Mapping[str, Any]) -> list[Counted]:
    """What the search of one query by one head takes, counted while modules search; sums in the plain version."""
    sizes = {"n_keys": row["n_keys"], "key_dim": row["d_q"], "topk": row["k"]}
    halves, plain, flat = (counted_search(**sizes, **kind) for kind in ({}, {"fused": False}, {"flat": True}))
    return [
        Counted("multiply-accumulates of a search by halves", row["product"], halves.total),
        Counted("sums of pairs after it, all k^2 of them", row["sums"], plain.sums),
        Counted("multiply-accumulates of a search through all keys", row["flat"], flat.total),
        Counted("the latter over those by halves", row["ratio"], flat.total // halves.total),
    ]


def _counted_parameters(row: Mapping[str, Any]) -> list[Counted]:
    """The parts of one memory of the facts, and their sum."""
    memory = printed_memory(d_model=row["d"], n_keys=row["n_keys"], n_heads=row["heads"], key_dim=row["d_q"])
    parts = {
        "values": ("numbers in its values", [memory.values]),
        "subkeys": ("sub-keys", memory.keys.parameters()),
        "query": ("the queries' linear map", memory.query.linear.parameters()),
        "batch_norm": ("batch norm", memory.query.norm.parameters()),
        "total": ("all", memory.parameters()),
    }
    where = f"parameters of a memory, {row['n_keys']}^2 slots, width {row['d']}, queries of {row['d_q']}"
    return [Counted(f"{where}: {label}", row[part], _count(of)) for part, (label, of) in parts.items()]


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def printed_feed_forward(d_model: int) -> FeedForward:
    """The sub-layer that a memory takes the place of, without numbers."""
    with torch.device("meta"):
        return FeedForward(d_model=d_model, d_ff=4 * d_model)


@dataclass(frozen=True)
class Replaced:
    """A memory in the place of a feed-forward sub-layer, at one width.

    Attributes:
        d_model: the width.
        n_slots: of the memory.
        gained: parameters that the model has more.
        memory, feed_forward: multiply-accumulates of each for a token.
    """

    d_model: int
    n_slots: int
    gained: int
    memory: int
    feed_forward: int


def replaced() -> list[Replaced]:
    """What a memory of the paper's size adds and costs in place of a feed-forward sub-layer, at each printed width."""
    found = []
    for d_model in sorted({model.dim for model in MODELS.values()}):
        # the plain version's products are all seen by the counter, the values' sums included
        memory = printed_memory(d_model=d_model, fused=False)
        layer = printed_feed_forward(d_model)
        gained = _count(memory.parameters()) - _count(layer.parameters())
        costs = [_token_cost(part, d_model) for part in (memory, layer)]
        found.append(Replaced(d_model, memory.n_slots, gained, *costs))
    return found


def _token_cost(layer: nn.Module, d_model: int, *, n_tokens: int = 2) -> int:
    """Multiply-accumulates for a token of a layer that holds no numbers, counted as it runs."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer.eval()(torch.empty(1, n_tokens, d_model, device="meta"))
    return counter.get_total_flops() // 2 // n_tokens


class Growth(NamedTuple):
    """Exponents with which the multiplications of a search grow."""

    n_keys: float  # with sqrt(K)
    key_dim: float  # with the width of a query
    topk: float


class Multiplications(TorchDispatchMode):
    """Counts multiplications of floating-point numbers while it is entered, on any device, `meta` included.

    Matrix products count by torch's own formulas, the other products by what they give or, where they add up, by what
    they take. Divisions count, those inside of a softmax do not; nor do whole numbers, which are places. Sums of two
    tensors are counted apart, by what they give; those inside of products are not.

    Attributes:
        total: multiplications up to now.
        sums: sums of two tensors up to now.
    """

    _SUMS = frozenset("add add_ sub sub_".split())
    _GIVEN = frozenset(
        "mul mul_ addcmul addcmul_ div div_ addcdiv addcdiv_ square square_ pow pow_ lerp lerp_ ger outer".split()
    )
    _TAKEN = {"mv": 0, "dot": 0, "vdot": 0, "addmv": 1, "prod": 0, "cumprod": 0}  # place of the argument

    def __init__(self) -> None:
        super().__init__()
        self.total = self.sums = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        packet = func._overloadpacket
        if packet in flop_registry:
            self.total += flop_registry[packet](*args, **kwargs, out_val=found) // 2
        elif isinstance(found, Tensor) and found.is_floating_point():
            self.total += self._elementwise(packet.__name__, found, args)
            self.sums += found.numel() if packet.__name__ in self._SUMS else 0
        return found

    def _elementwise(self, name: str, found: Tensor, args: Sequence[Any]) -> int:
        if name in self._GIVEN:
            return found.numel()
        return args[self._TAKEN[name]].numel() if name in self._TAKEN else 0


def counted_search(*, n_keys: int, key_dim: int, topk: int, **kind: bool) -> Multiplications:
    """What the search of one query by one head takes, counted while a memory without numbers searches.

    Args:
        n_keys, key_dim, topk: of the memory.
        kind: other arguments of `ProductKeyMemory`, `flat` or `fused`.
    """
    memory = printed_memory(d_model=2, n_heads=1, n_keys=n_keys, key_dim=key_dim, topk=topk, **kind)
    with torch.no_grad(), Multiplications() as counter:
        memory.keys(torch.empty(1, 1, key_dim, device="meta"))
    return counter


def codebook_costs(n_codebooks: int, *, n_slots: int, key_dim: int, topk: int) -> tuple[int, int]:
    """Multiplications of the scores, and sums after them, where keys are joined from equally large codebooks.

    The best of two codebooks are joined first, and the best of these with those of the next, k^2 sums at a time. Two
    codebooks are the paper's (Sec. 3.1).

    Raises:
        ValueError: where `n_slots` is no whole power of the number of codebooks.
    """
    n_keys = round(n_slots ** (1 / n_codebooks))
    if n_keys**n_codebooks != n_slots:
        raise ValueError(f"n_slots must be a whole number to the power {n_codebooks}; got {n_slots}")
    return n_keys * key_dim, (n_codebooks - 1) * topk**2


def search_growth(*, flat: bool, n_keys: int = 16, key_dim: int = 8, topk: int = 4) -> Growth:
    """Exponents of a search's cost over sizes that are doubled one by one, its multiplications counted as it runs."""

    def cost(**changes: int) -> int:
        return counted_search(
            **{"n_keys": n_keys, "key_dim": key_dim, "topk": topk} | changes, flat=flat
        ).total

    base = cost()
    doubled = {"n_keys": 2 * n_keys, "key_dim": 2 * key_dim, "topk": 2 * topk}
    return Growth(**{name: log2(cost(**{name: size}) / base) for name, size in doubled.items()})


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


# --- rows that an update touches -----------------------------------------------------------------------------


def drawn_inputs(n_queries: int, d_model: int) -> Tensor:
    """Inputs of a memory, drawn from the normal distribution, the same at every call [N, D]."""
    return torch.randn(n_queries, d_model, generator=generator_for(0, "inputs of a memory"))


@cache
def touched_rows(
    n_keys: int, n_queries: int, *, d_model: int = 512, topk: int = 32, key_dim: int = 512, n_heads: int = 4
) -> int:
    """Distinct slots that a memory reads before training for `drawn_inputs`, all heads together.

    The memory is the one made after `torch.manual_seed(0)`; only its values, which decide nothing here, are not made.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        query = QueryNetwork(d_model=d_model, n_heads=n_heads, key_dim=key_dim)
        keys = ProductKeys(n_keys=n_keys, topk=topk, key_dim=key_dim, n_heads=n_heads)
        return len(keys(query(drawn_inputs(n_queries, d_model))).slots.unique())


class Touched(NamedTuple):
    """What an update of a language model reads of a memory, at one profile.

    Attributes:
        profile: of the budgets.
        n_tokens: of an update, all of which read.
        n_slots: K.
        lookups: tokens x heads x k.
        counted: tokens that `rows` is counted on; fewer than `n_tokens` where that would take long.
        rows: distinct slots that `counted` tokens read, before training and for inputs drawn at random.
    """

    profile: str
    n_tokens: int
    n_slots: int
    lookups: int
    counted: int
    rows: int


def touched_at_profiles(*, at_most: int = 8192) -> list[Touched]:
    """Look-ups and touched slots of an update of the ablation model, at each profile with a text.

    Args:
        at_most: tokens that slots are counted on.
    """
    found = []
    for profile, budget in load_papers()[PAPER].budgets["text"].items():
        config, training = trunk(MODELS[BASE], budget), budget["training"]
        memory, n_tokens = config.memory, training["n_rows"] * training["block"]
        counted = min(n_tokens, at_most)
        sizes = {"topk": memory.topk, "key_dim": memory.key_dim, "n_heads": memory.n_heads}
        rows = touched_rows(memory.n_keys, counted, d_model=config.d_model, **sizes)
        lookups = n_tokens * memory.n_heads * memory.topk
        found.append(Touched(profile, n_tokens, memory.n_keys**2, lookups, counted, rows))
    return found


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
