"""The Neural Turing Machine's loop over time as CUDA graphs.

A step of the machine is some forty small operations. On a GPU each of them takes less time than its launch, so that a
sequence waits for the launches of its steps, whatever the batch. `run` stands in for `attn.ntm_scan.scan.scan`: it
records the forward and the backward pass over a whole sequence once for each shape, and from then on launches each as
one graph.

What a graph reads and fills has fixed places. Arguments are copied into them and results out of them, so that several
sequences may be on their way to their backward passes at a time. The places of all recordings together take at most
`MEMORY_SHARE` of the device; beyond that the recording that was not used for longest is given up.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cache, partial

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from attn.ntm_scan.scan import backward_from, forward_kept, scan, within_range
from attn.ntm_scan.sequence import Sizes, Start, flatten, needs_gradient, unflatten

MEMORY_SHARE = 0.25  # of the device's memory
# A replay may differ from the first run by the order in which products add up, relative to a result's largest value.
TOLERANCE = 1e-3

Tensors = tuple[Tensor, ...]
Function = Callable[[Sequence[Tensor]], Tensors]


def obstacle(weight: Tensor, *others: Tensor) -> str | None:
    """Why a machine cannot run here, or None if it can; arguments as in `attn.kernels.ntm.obstacle`."""
    for tensor in (weight, *others):
        if tensor.device.type != "cuda":
            return f"it needs a GPU; got tensors on {tensor.device.type}"
        if tensor.device != weight.device:
            return f"it needs one device; got {weight.device} and {tensor.device}"
    return None


@cache
def _pool() -> tuple[int, int]:
    """Where all graphs put what they need while they run; they run one after another, so it may be the same place."""
    return torch.cuda.graph_pool_handle()


def record(function: Callable[[], Tensors]) -> tuple[Callable[[], None], Tensors]:
    """Record a function's work on the GPU.

    Returns:
        What does that work again, and the tensors that it fills each time.
    """
    graph = torch.cuda.CUDAGraph()
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # libraries set themselves up on first use, which no graph may hold
        function()
    torch.cuda.current_stream().wait_stream(aside)
    # other threads, as one that loads data, may go on with what a recording thread must not do
    with torch.cuda.graph(graph, pool=_pool(), stream=aside, capture_error_mode="thread_local"):
        outputs = function()
    return graph.replay, outputs


class Recording:
    """A function of tensors, recorded for tensors of these shapes.

    Args:
        function: from tensors to tensors, by work on the device alone.
        tensors: arguments of the shapes to come.

    Raises:
        RuntimeError: if the work cannot be recorded, or gives other numbers when done again.
    """

    def __init__(self, function: Function, tensors: Sequence[Tensor]) -> None:
        self.places = [tensor.detach().clone(memory_format=torch.contiguous_format) for tensor in tensors]
        expected = function(self.places)
        self.replay, self.results = record(partial(function, self.places))
        for found, right in zip(self(tensors), expected, strict=True):
            scale = right.abs().nan_to_num(0, 0).amax().item() if right.numel() else 0.0
            if not torch.allclose(found, right, rtol=TOLERANCE, atol=TOLERANCE * scale, equal_nan=True):
                raise RuntimeError("a recording of the loop over time gives other numbers than its first run")

    @property
    def n_bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in (*self.places, *self.results))

    def __call__(self, tensors: Sequence[Tensor]) -> Tensors:
        torch._foreach_copy_(self.places, [tensor.detach() for tensor in tensors])
        self.replay()
        return tuple(result.clone(memory_format=torch.contiguous_format) for result in self.results)


class Recordings:
    """Recordings by what they are of, the last used at the end."""

    def __init__(self) -> None:
        self.kept: OrderedDict[tuple, Recording] = OrderedDict()
        self.refused = False  # recording failed once: everything runs operation by operation

    def run(self, function: Function, what: tuple, tensors: Sequence[Tensor]) -> Tensors:
        """`function(tensors)`.

        Args:
            what: everything beside the tensors' shapes on which the function's work depends.
        """
        if self.refused:
            return function(tensors)
        key = (*what, *((tensor.shape, tensor.dtype, tensor.device) for tensor in tensors))
        if key in self.kept:
            self.kept.move_to_end(key)
            return self.kept[key](tensors)
        try:
            recording = Recording(function, tensors)
        except RuntimeError as error:
            self.refused = True
            self.kept.clear()
            warnings.warn(f"The NTM runs without CUDA graphs: {error}", RuntimeWarning, stacklevel=2)
            return function(tensors)
        self.kept[key] = recording
        self._make_room(tensors[0].device)
        return recording(tensors)

    def _make_room(self, device: torch.device) -> None:
        limit = MEMORY_SHARE * total_memory(device)
        while len(self.kept) > 1 and sum(one.n_bytes for one in self.kept.values()) > limit:
            self.kept.popitem(last=False)


RECORDINGS = Recordings()


def total_memory(device: torch.device) -> int:
    """Bytes of a device."""
    return torch.cuda.get_device_properties(device).total_memory


def _forward(sizes: Sizes, tensors: Sequence[Tensor]) -> Tensors:
    """Outputs and what is kept, side by side."""
    outputs, kept = forward_kept(unflatten(tensors, sizes), sizes)
    return *outputs, *kept


def _backward(sizes: Sizes, n_weights: int, n_saved: int, tensors: Sequence[Tensor]) -> Tensors:
    return backward_from(sizes, n_weights, tensors[:n_saved], tensors[n_saved:])


class GraphScan(torch.autograd.Function):
    """`run` where something needs a gradient."""

    @staticmethod
    def forward(ctx, sizes: Sizes, *tensors: Tensor) -> Tensors:
        found = RECORDINGS.run(partial(_forward, sizes), (True, sizes), tensors)
        start = unflatten(tensors, sizes)
        n_outputs = 4 + len(start.controller)
        ctx.sizes, ctx.n_weights = sizes, len(start.recurrent)
        ctx.save_for_backward(start.head_weight, *start.recurrent, *found[n_outputs:])
        return found[:n_outputs]

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        def backward(saved: Sequence[Tensor], grads: Sequence[Tensor]) -> Tensors:
            what = (ctx.sizes, ctx.n_weights, len(saved))
            return RECORDINGS.run(partial(_backward, *what), (False, *what), (*saved, *grads))

        return None, *within_range(backward, ctx.saved_tensors, grads)


def run(start: Start, sizes: Sizes) -> Tensors:
    """As `attn.ntm_scan.scan.scan`, on a GPU."""
    tensors = flatten(start)
    if needs_gradient(tensors):
        return GraphScan.apply(sizes, *tensors)
    return RECORDINGS.run(partial(_outputs, sizes), (None, sizes), tensors)


def _outputs(sizes: Sizes, tensors: Sequence[Tensor]) -> Tensors:
    return scan(unflatten(tensors, sizes), sizes)
