"""Speed and memory of attention with learned spans, against fixed spans and against torch's fused attention.

One call is a forward and a backward pass, or in rows called "evaluation" a forward pass alone, of the sub-layer at the
small model's sizes (width 512, 8 heads) for a block of 256 tokens of 2 sequences with a full cache. The learned spans
are those of one made-up layer in the manner of the paper's fig. 4, most heads at the shortest span and one far from
it: 184 tokens on average with the ramp, or fewer where the limit is lower.

- "one reach a layer": keys, cache and scores of all heads cut to the layer's longest span, and the mask applied after
  the softmax, as the paper describes its own code; written for this benchmark, and held to equal outputs.
- "fixed span": ours with every head at the limit.
- "SDPA over a window": torch's attention with a boolean mask over the limit, and without position embeddings.

Rows of training also say the largest amount of memory that tensors of a call take.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from attn.adaptive_span import Past, RelativePositions, SpanAttention, distances, soft_span_mask
from attn.experiments.adaptive_span.speed import BATCH_SIZE, BLOCK, D_MODEL, N_HEADS, SPANS
from attn.training import set_seed
from benchmarks.timing import Goal, Row, main

LIMITS = (256, 512, 1024, 2048, 4096, 8192)
OURS, PER_LAYER = "attn.adaptive_span", "one reach a layer"
FIXED, WINDOW = "fixed span", "SDPA over a window"
# By limit.
GOALS = {2048: Goal(PER_LAYER, 1.4, default_heap=2), 8192: Goal(FIXED, 7, default_heap=10)}
MEMORY_GOALS = {2048: Goal(PER_LAYER, 2), 8192: Goal(FIXED, 7)}
EVALUATED = (2048, 8192)  # limits


def learned_spans(module: SpanAttention, spans: Sequence[int] = SPANS) -> SpanAttention:
    """The module with these spans, as far as its limit allows."""
    z = torch.tensor(spans) - module.ramp_size
    module.span.ratio.data.copy_((z / module.positions.max_span).clamp(0, 1))
    return module


class PerLayer(SpanAttention):
    """The same attention with one reach for all heads, left to autograd."""

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, past: Past | None, span: Tensor) -> Tensor:
        old_key, old_value = torch.einsum("bcd,khed->kbhce", past.hidden, past.weight)
        key, value = torch.cat([old_key, key], dim=2), torch.cat([old_value, value], dim=2)
        length, reach = query.shape[2], past.hidden.shape[1]
        query = query * self.head_dim**-0.5
        # by distance, the farthest first: [B, H, T, reach]
        scores = _shift(query @ key.transpose(-2, -1), reach)
        scores = scores + query @ self.positions.table[:, :reach].flip(1)
        mask = soft_span_mask(torch.arange(reach, 0, -1, device=query.device), span, self.ramp_size)
        weights = torch.softmax(scores, dim=-1) * mask
        weights = weights / weights.sum(-1, keepdim=True)
        return _shift_back(weights, reach + length) @ value


def _shift(products: Tensor, reach: int) -> Tensor:
    """Row i from its column i on: [B, H, T, reach + T] to [B, H, T, reach]."""
    *sizes, length, width = products.shape
    flat = F.pad(products.flatten(-2), (0, length))
    return flat.view(*sizes, length, width + 1)[..., :reach]


def _shift_back(weights: Tensor, width: int) -> Tensor:
    """The reverse, with zeros elsewhere."""
    *sizes, length, reach = weights.shape
    flat = F.pad(weights, (0, width + 1 - reach)).flatten(-2)
    return flat[..., : length * width].view(*sizes, length, width)


class Window(SpanAttention):
    """Torch's attention over the tokens of the limit."""

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, past: Past | None, span: Tensor) -> Tensor:
        old_key, old_value = torch.einsum("bcd,khed->kbhce", past.hidden, past.weight)
        key, value = torch.cat([old_key, key], dim=2), torch.cat([old_value, value], dim=2)
        distance = distances(query.shape[2], key.shape[2], device=query.device)
        mask = (distance >= 1) & (distance <= self.positions.max_span)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def step(module: nn.Module, inputs: Tensor, call: Callable[[], Tensor]) -> Callable[[], None]:
    """`call` and its backward pass, for a gradient of the outputs drawn once."""
    gradient = torch.randn_like(inputs)

    def run() -> None:
        call().backward(gradient)
        inputs.grad = None
        module.zero_grad()

    return run


def without_gradient(call: Callable[[], Tensor]) -> Callable[[], None]:
    """`call` alone, as in evaluation."""

    def run() -> None:
        with torch.no_grad():
            call()

    return run


def block(device: torch.device, limit: int, batch_size: int = BATCH_SIZE) -> tuple[Tensor, Tensor]:
    """Inputs [B, T, D] that ask for a gradient, and a full cache [B, limit, D]."""
    inputs = torch.randn(batch_size, BLOCK, D_MODEL, device=device, requires_grad=True)
    return inputs, torch.randn(batch_size, limit, D_MODEL, device=device)


def build(device: torch.device, limit: int, *, is_training: bool = True) -> Mapping[str, Callable[[], None]]:
    """Every variant at a limit, on the same weights: with the backward pass, or without."""
    set_seed(0)
    positions = RelativePositions(head_dim=D_MODEL // N_HEADS, max_span=limit)
    settings = {"d_model": D_MODEL, "n_heads": N_HEADS, "positions": positions}
    modules = {
        OURS: learned_spans(SpanAttention(**settings)),
        PER_LAYER: learned_spans(PerLayer(**settings)),
        FIXED: SpanAttention(**settings, span="fixed"),
        WINDOW: Window(**settings, span="fixed"),
    }
    weights = modules[OURS].state_dict()
    inputs, state = block(device, limit)
    for module in modules.values():
        module.load_state_dict(weights, strict=False)  # a fixed span has no parameter
        module.to(device)
    # Equal but for rounding, or the comparison would mean nothing.
    ours, per_layer = (modules[name](inputs, state)[0].detach() for name in (OURS, PER_LAYER))
    torch.testing.assert_close(ours, per_layer, rtol=1e-3, atol=1e-4)
    calls = {name: lambda module=module: module(inputs, state)[0] for name, module in modules.items()}
    if not is_training:
        return {name: without_gradient(call) for name, call in calls.items()}
    return {name: step(modules[name], inputs, call) for name, call in calls.items()}


def rows() -> list[Row]:
    """Each limit in training, and some in evaluation."""
    training = [
        Row(
            name=f"limit {limit}",
            units=BATCH_SIZE * BLOCK,
            build=partial(build, limit=limit),
            goal=GOALS.get(limit),
            peak=peak,
            memory_goal=MEMORY_GOALS.get(limit),
        )
        for limit in LIMITS
    ]
    evaluation = [
        Row(
            name=f"limit {limit}, evaluation",
            units=BATCH_SIZE * BLOCK,
            build=partial(build, limit=limit, is_training=False),
        )
        for limit in EVALUATED
    ]
    return training + evaluation


# --- Memory ------------------------------------------------------------------------------------------------


class Allocations(TorchDispatchMode):
    """Follows the storages of the tensors that operations make, from their making until they are freed.

    What kernels allocate for themselves does not show.

    Attributes:
        peak: the largest sum of them so far, in bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak, self._now, self._alive = 0, 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        outputs = func(*args, **(kwargs or {}))
        given = {storage._cdata for storage in _storages((args, kwargs))}  # of views and results in place
        for storage in _storages(outputs):
            if storage._cdata not in given | self._alive:
                self._alive.add(storage._cdata)
                self._now += storage.nbytes()
                self.peak = max(self.peak, self._now)
                weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
        return outputs

    def _freed(self, place: int, size: int) -> None:
        self._alive.discard(place)
        self._now -= size


def _storages(values: object) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def peak(call: Callable[[], object]) -> int:
    """The most bytes that tensors which a call makes take at a time."""
    with Allocations() as allocations:
        call()
    return allocations.peak


if __name__ == "__main__":
    main(rows(), module="benchmarks.adaptive_span", unit="tokens")
