"""Product-key memory: a layer with many values, few of which are read (Lample et al. 2019, arXiv:1907.05242).

Pure functions for the mathematics of Sec. 3 come first, as the paper states it; `attn.kernels.product_keys` has faster
ones with the same signatures and results. The modules that hold parameters follow. Numbers of sections and equations
are from memory, since no copy of the paper could be consulted; what the layer does was checked against the public code.

Shapes: B batch, T length, D `d_model`, N queries (the B T positions less padding), H heads, E `key_dim` (the paper's
d_q), n `n_keys`, K = n * n slots, k `topk`, V `value_dim`. Slot s has the left sub-key s // n and the right one s % n.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from math import isqrt
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attn.attention import check_positive, check_sequence
from attn.free_memory import free_bytes
from attn.kernels import product_keys as kernels

_AUTOCAST = (torch.float16, torch.bfloat16, torch.float32)  # what autocast takes


class Selection(NamedTuple):
    """What the heads read of the memory."""

    slots: Tensor  # [N, H, k], whole numbers below K, no slot twice in a head
    weights: Tensor  # [N, H, k], at least 0, each head's k sum to 1


# --- Sec. 3.1: the k best of all slots ---------------------------------------------------------------------


def product_key_topk(query: Tensor, sub_keys: Tensor, topk: int) -> tuple[Tensor, Tensor]:
    """The k slots of highest score, found by halves (Sec. 3.1).

    The score of a slot is the left half of the query times its left sub-key, plus the same of the right halves. The k
    best slots are among the k * k pairs of the k best left and the k best right sub-keys, so the answer is exact: that
    of `flat_key_topk` with `cartesian_keys(sub_keys)`, but for which of several equal scores comes first.

    Args:
        query: [N, H, E], E even.
        sub_keys: two codebooks a head [H, 2, n, E / 2].
        topk: k, at most n.

    Returns:
        Scores [N, H, k], highest first, and their slots [N, H, k].

    Raises:
        ValueError: for an odd E, a k above n, or shapes that do not fit.
    """
    _check_product_keys(query, sub_keys, topk)
    n_keys = sub_keys.shape[2]
    left, right = (
        torch.einsum("nhe,hke->nhk", half, sub_keys[:, side]).topk(topk)  # [N, H, k]
        for side, half in enumerate(query.chunk(2, dim=-1))
    )
    sums = left.values.unsqueeze(-1) + right.values.unsqueeze(-2)  # [N, H, k, k]
    scores, place = sums.flatten(-2).topk(topk)  # [N, H, k]
    slots = left.indices.gather(-1, place // topk) * n_keys + right.indices.gather(-1, place % topk)
    return scores, slots


def flat_key_topk(query: Tensor, keys: Tensor, topk: int) -> tuple[Tensor, Tensor]:
    """The k slots of highest score, by comparing each query with every key (Sec. 3.1, eq. 1).

    Args:
        query: [N, H, E].
        keys: one key a slot and head [H, K, E].
        topk: k, at most K.

    Returns:
        Scores [N, H, k], highest first, and their slots [N, H, k].

    Raises:
        ValueError: for a k above K or shapes that do not fit.
    """
    if query.dim() != 3 or keys.dim() != 3 or query.shape[1:] != (keys.shape[0], keys.shape[2]):
        raise ValueError(
            "query and keys must have shapes [queries, heads, key_dim] and [heads, slots, key_dim]; got "
            f"{list(query.shape)} and {list(keys.shape)}"
        )
    if not 1 <= topk <= keys.shape[1]:
        raise ValueError(f"topk must be from 1 to the number of slots, {keys.shape[1]}; got {topk}")
    scores, slots = torch.einsum("nhe,hke->nhk", query, keys).topk(topk)
    return scores, slots


def cartesian_keys(sub_keys: Tensor) -> Tensor:
    """The key of every slot, its two sub-keys joined: [H, 2, n, E / 2] to [H, K, E] (Sec. 3.1)."""
    n_keys = sub_keys.shape[2]
    left = sub_keys[:, 0].unsqueeze(2).expand(-1, -1, n_keys, -1)  # [H, n, n, E / 2]
    right = sub_keys[:, 1].unsqueeze(1).expand(-1, n_keys, -1, -1)
    return torch.cat([left, right], dim=-1).flatten(1, 2)


class SearchCost(NamedTuple):
    """What the search of one query by one head takes."""

    product: int  # multiply-accumulates with two codebooks
    sums: int  # sums of two scores after that
    needed_sums: int  # those of them that can be among the k highest
    flat: int  # multiply-accumulates with a key for every slot


def search_cost(*, n_keys: int, key_dim: int, topk: int) -> SearchCost:
    """Cost of product keys, O((sqrt(K) + k^2) d_q), and of flat ones, O(K d_q) (Sec. 3.1).

    Raises:
        ValueError: as `ProductKeys`, for sizes that no search by halves has.
    """
    check_positive(n_keys=n_keys, key_dim=key_dim, topk=topk)
    _check_halves(n_keys, topk, key_dim)
    needed = kernels.winning_pairs(topk, torch.device("cpu")).shape[1]
    return SearchCost(n_keys * key_dim, topk**2, needed, n_keys**2 * key_dim)


# --- Sec. 3.1: the weighted sum of values ------------------------------------------------------------------


def read_values(values: Tensor, slots: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of the values in the selected slots (Sec. 3.1, eq. 3), over all heads at once.

    The gradient of `values` is sparse: the selected rows and their gradients. There is never one of the table's size.

    Args:
        values: [K, V].
        slots: [N, M], M = H k.
        weights: [N, M].

    Returns:
        [N, V].
    """
    return torch.einsum("nm,nmv->nv", weights, F.embedding(slots, values, sparse=True))


# --- Sec. 4: use of the memory -----------------------------------------------------------------------------


def usage(weight: Tensor) -> float:
    """Share of the slots that got any weight at all, in [0, 1]; the paper prints it in percent.

    Args:
        weight: z', the softmax weight of each slot summed over heads and an evaluation set [K].
    """
    return float((weight != 0).double().mean())


def kl_from_uniform(weight: Tensor) -> float:
    """Divergence of the slots' shares from uniform use, log K + sum_i z_i log z_i, in nats.

    It is 0 for uniform use, at most log K, and at least log(1 / usage).

    Args:
        weight: z', the softmax weight of each slot summed over heads and an evaluation set, not all 0 [K].

    Raises:
        ValueError: if there is no weight, or a negative one or NaN.
    """
    weight = weight.double()
    total = weight.sum()
    if not (bool((weight >= 0).all()) and total > 0):
        raise ValueError("weight must hold no negative number or NaN, and one above 0 at least")
    share = weight / total
    return float(torch.xlogy(share, share * len(share)).sum())


class SlotUsage:
    """Use of a memory's slots, added up over an evaluation set.

    Args:
        n_slots: K.
        device: where to count.

    Attributes:
        weight: softmax weight given to each slot, by all heads (the paper's z') [K], float64.
        count: how often each slot was selected [K].
    """

    def __init__(self, n_slots: int, device: torch.device | None = None) -> None:
        self.weight = torch.zeros(n_slots, dtype=torch.float64, device=device)
        self.count = torch.zeros(n_slots, dtype=torch.int64, device=device)

    @torch.no_grad()
    def add(self, selection: Selection) -> None:
        """Add what some queries read."""
        slots = selection.slots.flatten()
        self.weight.index_add_(0, slots, selection.weights.flatten().double())
        self.count.index_add_(0, slots, torch.ones_like(slots))

    @property
    def usage(self) -> float:
        """Share of slots used; see `usage`."""
        return usage(self.weight)

    @property
    def kl(self) -> float:
        """Divergence from uniform use in nats; see `kl_from_uniform`."""
        return kl_from_uniform(self.weight)

    @property
    def unweighted_kl(self) -> float:
        """The same with every selection counted as 1."""
        return kl_from_uniform(self.count)

    @property
    def lookups_per_slot(self) -> float:
        """Selections (queries x heads x k) for each slot there is. Below 10 or so, usage says little."""
        return int(self.count.sum()) / len(self.count)


@contextmanager
def record_usage(model: nn.Module) -> Iterator[dict[str, SlotUsage]]:
    """Count what the memories of `model` read while the context is open.

    Yields:
        A `SlotUsage` for every `ProductKeyMemory`, by its name within the model ("" for the model itself).
    """
    memories = {name: part for name, part in model.named_modules() if isinstance(part, ProductKeyMemory)}
    used = {name: SlotUsage(memory.n_slots, memory.values.device) for name, memory in memories.items()}
    hooks = [
        memory.keys.register_forward_hook(lambda module, inputs, output, to=used[name]: to.add(output))
        for name, memory in memories.items()
    ]
    try:
        yield used
    finally:
        for hook in hooks:
            hook.remove()


# --- Modules -----------------------------------------------------------------------------------------------


class QueryNetwork(nn.Module):
    """A query for every head: a linear map with bias, then batch norm (Sec. 3.1).

    Queries are float32 at least, whatever the inputs are: close scores decide which slots are read. Batch norm counts
    all rows of a call, so while training a query depends, weakly, on other positions; in evaluation it does not. A call
    is one part of an update's batch: with more parts, by accumulation or by processes, each has statistics of its own,
    and training is not the same as with one. The running statistics, for evaluation, follow the calls of one process.

    Args:
        d_model: D.
        n_heads: H.
        key_dim: E.
        batch_norm: False leaves it out, as the public code does by default.
    """

    def __init__(self, *, d_model: int, n_heads: int, key_dim: int, batch_norm: bool = True) -> None:
        super().__init__()
        check_positive(d_model=d_model, n_heads=n_heads, key_dim=key_dim)
        self.n_heads = n_heads
        self.linear = nn.Linear(d_model, n_heads * key_dim)
        self.norm = nn.BatchNorm1d(n_heads * key_dim) if batch_norm else nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        """[N, D] to [N, H, E].

        Raises:
            ValueError: for fewer than two rows where batch norm is to learn from them.
        """
        if self.training and isinstance(self.norm, nn.BatchNorm1d) and len(inputs) < 2:
            raise ValueError(
                "batch norm of the queries needs at least 2 positions that are not padding while training; got "
                f"{len(inputs)}; use more, eval mode or batch_norm=False"
            )
        query = self.norm(self.linear(inputs).to(self.linear.weight.dtype))
        return query.to(torch.promote_types(query.dtype, torch.float32)).unflatten(-1, (self.n_heads, -1))


class ProductKeys(nn.Module):
    """Two codebooks of sub-keys for each head, uniform in +-(E / 2) ** -0.5 at the start (Sec. 3.1).

    Args:
        n_keys: n, sub-keys in a codebook.
        topk: k, slots a head selects.
        key_dim: E.
        n_heads: H.
        fused: search by `attn.kernels.product_keys`; False by `product_key_topk` above.

    Raises:
        ValueError: for a size below 1, an odd `key_dim`, or `topk` above `n_keys`.
    """

    def __init__(self, *, n_keys: int, topk: int, key_dim: int, n_heads: int, fused: bool = True) -> None:
        super().__init__()
        check_positive(n_keys=n_keys, topk=topk, key_dim=key_dim, n_heads=n_heads)
        _check_halves(n_keys, topk, key_dim)
        self.topk, self.fused = topk, fused
        self.sub_keys = nn.Parameter(torch.empty(n_heads, 2, n_keys, key_dim // 2))
        nn.init.uniform_(self.sub_keys, -((key_dim / 2) ** -0.5), (key_dim / 2) ** -0.5)

    def forward(self, query: Tensor) -> Selection:
        """The k slots of each query [N, H, E], and the softmax of their scores."""
        search = kernels.product_key_topk if self.fused else product_key_topk
        return _select(search, query, self.sub_keys, self.topk)


class FlatKeys(nn.Module):
    """A key for every slot and head: the exhaustive search that product keys replace.

    Args:
        n_keys: n; there are n * n keys.
        topk: k, slots a head selects.
        key_dim: E.
        n_heads: H.

    Raises:
        ValueError: for a size below 1, or `topk` above the number of keys.
    """

    def __init__(self, *, n_keys: int, topk: int, key_dim: int, n_heads: int) -> None:
        super().__init__()
        check_positive(n_keys=n_keys, topk=topk, key_dim=key_dim, n_heads=n_heads)
        if topk > n_keys**2:
            raise ValueError(f"topk must be at most the number of slots, {n_keys**2}; got {topk}")
        self.topk = topk
        self.keys = nn.Parameter(torch.empty(n_heads, n_keys**2, key_dim))
        # a score has the variance that it has with product keys
        nn.init.uniform_(self.keys, -((key_dim / 2) ** -0.5), (key_dim / 2) ** -0.5)

    def forward(self, query: Tensor) -> Selection:
        """The k slots of each query [N, H, E], and the softmax of their scores."""
        return _select(flat_key_topk, query, self.keys, self.topk)


class ProductKeyMemory(nn.Module):
    """A memory of K = n_keys ** 2 values, of which each head reads k (Sec. 3).

    Heads have queries and keys of their own, share the values, and their outputs are added. It is a sub-layer
    for `attn.language_model` in place of a feed-forward one, or beside one with `FeedForwardWithMemory`. Weights
    start as in the public code: sub-keys uniform in +-(E / 2) ** -0.5, values normal with standard deviation V ** -0.5.

    The values need an optimiser of their own, `attn.training.sparse_optimizer.RowAdam`, since their gradient is sparse;
    `split_parameters` tells them apart. The paper's learning rate for them is 1e-3, constant.

    Args:
        d_model: D.
        n_keys: n; the memory has n * n slots.
        topk: k.
        key_dim: E, of a query; even. The paper has 512, the public code 256.
        n_heads: H.
        value_dim: V; None for D, which a residual connection needs: a V of 1 would be broadcast there without a word.
        batch_norm: of the queries. The paper has it on for its best results; the public code off by default.
        flat: compare with a key for every slot, without the two codebooks.
        fused: search and read by `attn.kernels.product_keys`; False by the functions above.

    Raises:
        ValueError: for a size below 1, an odd `key_dim`, `topk` above `n_keys`, or tables that exceed the memory
            which is free where modules are made. With flat keys `key_dim` may be odd, and `topk` up to n * n.
    """

    def __init__(
        self,
        *,
        d_model: int,
        n_keys: int = 512,
        topk: int = 32,
        key_dim: int = 512,
        n_heads: int = 4,
        value_dim: int | None = None,
        batch_norm: bool = True,
        flat: bool = False,
        fused: bool = True,
    ) -> None:
        super().__init__()
        value_dim = d_model if value_dim is None else value_dim
        check_positive(d_model=d_model, n_keys=n_keys, key_dim=key_dim, n_heads=n_heads, value_dim=value_dim)
        _check_fits(n_keys, value_dim, n_heads * key_dim if flat else 0)
        self.d_model, self.n_slots, self.fused = d_model, n_keys**2, fused
        self.query = QueryNetwork(d_model=d_model, n_heads=n_heads, key_dim=key_dim, batch_norm=batch_norm)
        sizes = {"n_keys": n_keys, "topk": topk, "key_dim": key_dim, "n_heads": n_heads}
        self.keys = FlatKeys(**sizes) if flat else ProductKeys(**sizes, fused=fused)
        self.values = nn.Parameter(torch.empty(self.n_slots, value_dim))
        nn.init.normal_(self.values, std=value_dim**-0.5)

    @property
    def table_bytes(self) -> int:
        """Bytes of what has a row for every slot: the values, and flat keys."""
        tables = [self.values, *([self.keys.keys] if isinstance(self.keys, FlatKeys) else [])]
        return sum(table.numel() * table.element_size() for table in tables)

    def select(self, inputs: Tensor) -> Selection:
        """What the heads read for each row of `inputs` [N, D]."""
        return self.keys(self.query(inputs))

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Read the memory at every position.

        Args:
            inputs: [B, T, D], in the parameters' dtype; under autocast in any that it takes.
            mask: boolean [B, T], True at text and False at padding, which gets zeros, enters no statistics of
                batch norm and touches no slot; None where nothing is padding.

        Returns:
            Outputs [B, T, V], in the values' dtype.

        Raises:
            ValueError: if a shape or the inputs' dtype does not fit, the mask is not boolean, or batch norm is to learn
                from one position.
        """
        check_sequence("inputs", inputs, self.d_model)
        _check_dtype(inputs, self.query.linear.weight.dtype)
        if mask is None:
            return self._read(inputs.flatten(0, 1)).unflatten(0, inputs.shape[:2])
        if mask.dtype != torch.bool or mask.shape != inputs.shape[:2]:
            raise ValueError(
                f"mask must be boolean of shape {list(inputs.shape[:2])}; got {mask.dtype} of shape {list(mask.shape)}"
            )
        found = self._read(inputs[mask])
        return found.new_zeros(*mask.shape, found.shape[-1]).masked_scatter(mask.unsqueeze(-1), found)

    def _read(self, inputs: Tensor) -> Tensor:
        """[N, D] to [N, V]."""
        slots, weights = self.select(inputs)
        read = kernels.read_values if self.fused else read_values
        with _full_precision(inputs.device.type):
            return read(self.values, slots.flatten(1), weights.flatten(1).to(self.values.dtype))


class FeedForwardWithMemory(nn.Module):
    """A memory that joins a feed-forward sub-layer, in place of replacing it: the sum of both.

    Args:
        feed_forward: maps [B, T, D] to [B, T, D].
        memory: a `ProductKeyMemory` with value_dim D.

    Raises:
        ValueError: if the memory's values have another width, so that the sum would fail or be broadcast.
    """

    def __init__(self, feed_forward: nn.Module, memory: ProductKeyMemory) -> None:
        super().__init__()
        value_dim = memory.values.shape[1]
        if value_dim != memory.d_model:
            raise ValueError(
                f"value_dim must be d_model = {memory.d_model} for a memory beside a feed-forward layer; got {value_dim}"
            )
        self.feed_forward, self.memory = feed_forward, memory

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """The sum of both.

        Args:
            inputs: [B, T, D].
            mask: boolean [B, T], True at text and False at padding, which the memory leaves out; None where nothing is
                padding.

        Returns:
            Outputs [B, T, D]; at padding, those of the feed-forward sub-layer alone.

        Raises:
            ValueError: as the memory.
        """
        return self.feed_forward(inputs) + self.memory(inputs, mask)


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters with dense gradients, and the value tables of all memories: each wants its own optimiser."""
    values = [module.values for module in model.modules() if isinstance(module, ProductKeyMemory)]
    kept = {id(table) for table in values}
    return [parameter for parameter in model.parameters() if id(parameter) not in kept], values


def _select(search: Callable, query: Tensor, keys: Tensor, topk: int) -> Selection:
    with _full_precision(query.device.type):
        scores, slots = search(query, keys.to(query.dtype), topk)
        return Selection(slots, torch.softmax(scores, dim=-1))


def _full_precision(device: str) -> AbstractContextManager:
    """No autocast inside: the coarse scores of half precision would select other slots."""
    if torch.amp.is_autocast_available(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


# --- Checks ------------------------------------------------------------------------------------------------


def _check_halves(n_keys: int, topk: int, key_dim: int) -> None:
    if key_dim % 2:
        raise ValueError(f"key_dim must be even, a half for each codebook; got {key_dim}")
    if topk > n_keys:
        raise ValueError(f"topk must be at most n_keys = {n_keys}, the sub-keys in a half; got {topk}")


def _check_dtype(inputs: Tensor, dtype: torch.dtype) -> None:
    device = inputs.device.type
    mixed = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    if inputs.dtype != dtype and not (mixed and inputs.dtype in _AUTOCAST):
        raise ValueError(f"inputs must have the parameters' dtype, {dtype}; got {inputs.dtype}")


def _check_product_keys(query: Tensor, sub_keys: Tensor, topk: int) -> None:
    shapes = list(query.shape), list(sub_keys.shape)
    if [len(shape) for shape in shapes] == [3, 4] and shapes[0][2] % 2:
        raise ValueError(f"key_dim must be even, a half for each codebook; got queries of {shapes[0][2]}")
    if [len(shape) for shape in shapes] != [3, 4] or (
        [shapes[0][1], 2, shapes[0][2]] != [shapes[1][0], shapes[1][1], 2 * shapes[1][3]]
    ):
        raise ValueError(
            "query and sub_keys must have shapes [queries, heads, key_dim] and [heads, 2, n_keys, key_dim / 2]; got "
            f"{shapes[0]} and {shapes[1]}"
        )
    if not 1 <= topk <= shapes[1][2]:
        raise ValueError(f"topk must be from 1 to n_keys = {shapes[1][2]}; got {topk}")


def check_room(model: nn.Module, device: torch.device) -> None:
    """Refuse a device without room for the memories of a model, before the model is moved there.

    A memory that is made checks the device it is made on, which may be another. Tables that are on a device of this
    type already are not counted.

    Raises:
        ValueError: if the tables, values and flat keys, exceed what is free there.
    """
    memories = [part for part in model.modules() if isinstance(part, ProductKeyMemory)]
    to_move = [memory for memory in memories if memory.values.device.type != device.type]
    needed, free = sum(memory.table_bytes for memory in to_move), free_bytes(device)
    if free is not None and needed > free:
        slot = sum(memory.table_bytes // memory.n_slots for memory in to_move)
        raise ValueError(
            f"the tables of the model's memories take {needed:,} bytes, where {free:,} are free on {device}; the "
            f"largest that fits is n_keys={isqrt(free // slot)} in each, and Adam's state takes twice as much again"
        )


def _check_fits(n_keys: int, value_dim: int, flat_key_dim: int) -> None:
    """Refuse tables that exceed the memory still free where modules are made now."""
    free = free_bytes(torch.get_default_device())
    slot = (value_dim + flat_key_dim) * torch.get_default_dtype().itemsize
    if free is not None and n_keys**2 * slot > free:
        fits = isqrt(free // slot)
        raise ValueError(
            f"n_keys={n_keys} makes {n_keys**2:,} slots of {slot:,} bytes, {n_keys**2 * slot:,} bytes in all, where "
            f"{free:,} are free; the largest that fits is n_keys={fits} with {fits**2 * slot:,} bytes, and Adam's "
            "state takes twice as much again"
        )
