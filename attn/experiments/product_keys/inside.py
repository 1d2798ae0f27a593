"""What is looked at in a trained memory: which slots are read and for what, whether the search is exact, its cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, isqrt

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from attn.data.token_batch import TokenBatch
from attn.product_keys import (
    FlatKeys,
    ProductKeyMemory,
    Selection,
    SlotUsage,
    cartesian_keys,
    flat_key_topk,
    product_key_topk,
)
from attn.reproduction.experiment import Metric

N_QUERIES = 128  # on which the two searches are compared
_SAME = 1e-9  # scores in double precision that differ by less are one score
_TIMED = 5  # repetitions of a timed pass
CURVE_POINTS, MAP_SIDE = 512, 128  # what is kept of the use of the slots
N_SLOTS_SHOWN, N_WORDS_SHOWN, LEAST_READS = 12, 4, 20  # what is kept of words


@dataclass
class LayerUse:
    """What one memory read over an evaluation set.

    Attributes:
        slots: weight and count of each slot.
        queries: the first of the queries [`N_QUERIES` or less, H, E].
        firsts: for each head and token the slot of the highest weight, and the token: slot * V + token.
        vocab_size: V.
    """

    slots: SlotUsage
    vocab_size: int
    queries: Tensor | None = None
    firsts: list[Tensor] = field(default_factory=list)

    def add(self, query: Tensor, selection: Selection, tokens: Tensor) -> None:
        """Count the look-ups of tokens [N] with queries [N, H, E]."""
        self.slots.add(selection)
        if self.queries is None:
            self.queries = query[:N_QUERIES].clone()
        best = selection.slots.gather(-1, selection.weights.argmax(-1, keepdim=True)).squeeze(-1)  # [N, H]
        self.firsts.append((best * self.vocab_size + tokens.unsqueeze(-1)).flatten())


@torch.no_grad()
def use_of(model: nn.Module, segments: Sequence[TokenBatch], *, vocab_size: int) -> dict[int, LayerUse]:
    """What every memory of a language model reads over some segments, by layer from 1."""
    found = {
        number: (
            sublayers[1],
            LayerUse(SlotUsage(sublayers[1].n_slots, sublayers[1].values.device), vocab_size),
        )
        for number, sublayers in enumerate(model.stack.layers, start=1)
        if isinstance(sublayers[1], ProductKeyMemory)
    }
    now: list[Tensor] = [torch.empty(0)]  # the tokens being read
    hooks = [
        memory.keys.register_forward_hook(
            lambda module, inputs, output, to=use: to.add(inputs[0], output, now[0])
        )
        for memory, use in found.values()
    ]
    try:
        for segment in segments:
            now[0] = segment.tokens.flatten()
            model.hidden(segment.tokens)
    finally:
        for hook in hooks:
            hook.remove()
    return {layer: use for layer, (_, use) in found.items()}


# --- metrics -------------------------------------------------------------------------------------------------


def use_metrics(use: LayerUse, layer: int, where: str) -> dict[str, Metric]:
    """Usage and divergence by the paper's definitions, and how many look-ups there were for each slot."""
    slots, where = use.slots, f"of the memory in layer {layer}, over {where}"
    return {
        f"usage_layer{layer}": Metric(
            100 * slots.usage, "percent", f"share of slots with any softmax weight, {where}"
        ),
        f"kl_layer{layer}": Metric(
            slots.kl, "nats", f"log K + sum z log z, z being each slot's share of all softmax weight, {where}"
        ),
        f"unweighted_kl_layer{layer}": Metric(
            slots.unweighted_kl, "nats", f"the same with every selection counted as 1, {where}"
        ),
        f"lookups_per_slot_layer{layer}": Metric(
            slots.lookups_per_slot, "look-ups", f"tokens x heads x k over slots, {where}"
        ),
    }


def search_metrics(use: LayerUse, memory: ProductKeyMemory, layer: int) -> dict[str, Metric]:
    """Multiplications of the search, and whether that by halves is exact on the trained queries and keys."""
    where = f"the memory in layer {layer}"
    found = {
        f"search_multiplications_layer{layer}": Metric(
            search_multiplications(memory, use.queries), "multiply-accumulates",
            f"in the products of the search of one query by one head, counted while {where} searches",
        )
    }  # fmt: skip
    if isinstance(memory.keys, FlatKeys):
        return found
    exact, short = agreement(use.queries, memory.keys.sub_keys, memory.keys.topk)
    n_queries, n_heads = use.queries.shape[:2]
    how = (
        f"scores in double precision; {n_queries * n_heads:,} searches, those of all {n_heads} heads of {where} for the "
        f"first {n_queries} tokens that usage_layer{layer} is over, row after row of the first batch"
    )
    found[f"search_exact_layer{layer}"] = Metric(
        exact, "share of searches", f"the k scores found by halves are the k highest of all slots; {how}"
    )
    found[f"short_search_exact_layer{layer}"] = Metric(
        short, "share of searches",
        f"the same for a search that keeps only {short_list(memory.keys.topk)} of each half; {how}",
    )  # fmt: skip
    return found


def search_multiplications(memory: ProductKeyMemory, queries: Tensor) -> float:
    """Multiply-accumulates of the products in the search, per query and head."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        memory.keys(queries)
    return counter.get_total_flops() / 2 / (queries.shape[0] * queries.shape[1])


def short_list(topk: int) -> int:
    """Candidates of each half in the search that is too short: a quarter of k, and enough for k pairs."""
    return max(isqrt(topk - 1) + 1, ceil(topk / 4))


@torch.no_grad()
def agreement(queries: Tensor, sub_keys: Tensor, topk: int, *, at_once: int = 32) -> tuple[float, float]:
    """Share of searches by halves, with k candidates of each half and with too few, that find the k highest scores.

    Args:
        queries: [N, H, E].
        sub_keys: [H, 2, n, E / 2].
        topk: k.
        at_once: queries that are compared with all keys at a time.
    """
    queries, sub_keys = queries.double(), sub_keys.double()
    right, count = torch.zeros(2), 0
    for head in range(queries.shape[1]):
        codebooks = sub_keys[head : head + 1]
        keys = cartesian_keys(codebooks)
        for query in queries[:, head : head + 1].split(at_once):
            best = flat_key_topk(query, keys, topk)[0]
            for place, found in enumerate(
                (product_key_topk(query, codebooks, topk)[0], _too_short(query, codebooks, topk))
            ):
                right[place] += float(((best - found).abs().amax(-1) < _SAME).sum())
            count += len(query)
    return float(right[0]) / count, float(right[1]) / count


def _too_short(query: Tensor, sub_keys: Tensor, topk: int) -> Tensor:
    """Scores found where each half hands on too few candidates [N, H, k]."""
    left, right = (
        torch.einsum("nhe,hke->nhk", half, sub_keys[:, side]).topk(short_list(topk)).values
        for side, half in enumerate(query.chunk(2, dim=-1))
    )
    return (left.unsqueeze(-1) + right.unsqueeze(-2)).flatten(-2).topk(topk).values


@torch.no_grad()
def inference_speed(model: nn.Module, segment: TokenBatch) -> Metric:
    """Tokens a second of a forward pass, the costs of the targets included."""
    seconds = []
    for _ in range(_TIMED):
        started = time.perf_counter()
        float(model(segment.tokens, targets=segment.targets)[0].sum())
        seconds.append(time.perf_counter() - started)
    rows, length = segment.tokens.shape
    return Metric(
        float(f"{segment.tokens.numel() / min(seconds):.4g}"), "tokens per second",
        f"forward pass over {rows} segments of {length} tokens at once, costs of the targets included, the fastest of "
        f"{_TIMED}, beside whatever else the machine did",
    )  # fmt: skip


# --- what figures draw from ----------------------------------------------------------------------------------


def use_arrays(
    use: LayerUse, memory: ProductKeyMemory, layer: int, pieces: Sequence[str]
) -> dict[str, np.ndarray]:
    """Use of the slots as a curve and over the two codebooks, and the words of some slots.

    curve [`CURVE_POINTS` at most]: slots' shares of all weight times K, from the most used to the least, evenly spaced.
    map [side, side]: the same over left and right sub-keys, averaged over blocks where there are more.
    slots [S], words [S, W], shares [S, W]: the most selective slots, the words for which a head gave them its highest
    weight, and the share of these words among all such reads of the slot.
    """
    weight = use.slots.weight / use.slots.weight.sum() * len(use.slots.weight)
    found = {f"curve_layer{layer}": _curve(weight), f"map_layer{layer}": _map(weight)}
    slots, words, shares = _selective(torch.cat(use.firsts), use.vocab_size)
    found[f"slots_layer{layer}"] = slots
    found[f"words_layer{layer}"] = np.array([[pieces[index] for index in row] for row in words], dtype=str)
    found[f"shares_layer{layer}"] = shares
    return found


def _curve(weight: Tensor) -> np.ndarray:
    ordered = weight.sort(descending=True).values
    places = torch.linspace(0, len(ordered) - 1, min(CURVE_POINTS, len(ordered))).round().long()
    return ordered[places].half().cpu().numpy()


def _map(weight: Tensor) -> np.ndarray:
    n_keys = isqrt(len(weight))
    side = min(MAP_SIDE, n_keys)
    grid = weight.view(1, 1, n_keys, n_keys)
    return F.adaptive_avg_pool2d(grid, (side, side))[0, 0].half().cpu().numpy()


def _selective(firsts: Tensor, vocab_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slots whose reads are most concentrated on few words, each best for another word."""
    pairs, counts = firsts.cpu().unique(return_counts=True)
    slots, tokens = (pairs // vocab_size).numpy(), (pairs % vocab_size).numpy()
    found = []
    for slot, start, end in _runs(slots):
        order = np.argsort(-counts[start:end].numpy(), kind="stable")[:N_WORDS_SHOWN]
        reads = int(counts[start:end].sum())
        if reads >= LEAST_READS and len(order) == N_WORDS_SHOWN:
            share = counts[start:end].numpy()[order] / reads
            found.append((float(share.sum()), slot, tokens[start:end][order], share))
    found.sort(key=lambda entry: -entry[0])
    chosen, seen = [], set()
    for _, slot, words, share in found:
        if words[0] not in seen and len(chosen) < N_SLOTS_SHOWN:
            seen.add(words[0])
            chosen.append((slot, words, share))
    empty = np.zeros((0, N_WORDS_SHOWN))
    return (
        np.array([slot for slot, _, _ in chosen], dtype=np.int64),
        np.array([words for _, words, _ in chosen], dtype=np.int64) if chosen else empty.astype(np.int64),
        np.array([share for _, _, share in chosen], dtype=np.float32) if chosen else empty,
    )


def _runs(values: np.ndarray) -> list[tuple[int, int, int]]:
    """Stretches of equal values in rising order: value, start, end."""
    edges = np.flatnonzero(np.diff(values, prepend=-1, append=-1))
    return [(int(values[start]), int(start), int(end)) for start, end in zip(edges, edges[1:], strict=False)]
