"""Time and memory of a reversible stack, against the same stack with its activations kept.

One call is a forward and a backward pass of N blocks of causal self-attention and feed-forward, without dropout.
Both variants have the same weights and outputs, so the ratio is the price of computing every function once more.

Each row also says what a call holds at its peak, beyond parameters and their gradients; a deep stack's is held to that
of one half as deep. `python -m benchmarks.reversible memory` prints the peaks alone.
"""

import sys
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from attn.attention import MultiHeadAttention
from attn.reversible import ResidualBranch, ReversibleStack
from attn.training import set_seed
from attn.transformer import FeedForward
from benchmarks.timing import Goal, Row, main

D_MODEL, N_HEADS, D_FF = 256, 4, 1024
BATCH, LENGTH = 2, 512
DEPTHS = (2, 4, 6, 8, 12, 16)
OURS, PLAIN = "attn.reversible", "activations kept"
# The share of the plain stack's speed that the reversible one is to reach, with the heap kept and the default one.
OF_PLAIN, OF_PLAIN_DEFAULT = 1 / 1.4, 1 / 1.1
# How much more a deep stack may hold at its peak than a shallow one.
GROWTH, SHALLOW, DEEP = 1.05, 6, 12
SHALLOWER = f"{OURS}, {SHALLOW} layers"


class CausalSelfAttention(nn.Module):
    """Multi-head attention to the past."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(d_model=D_MODEL, n_heads=N_HEADS)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, T, D] to [B, T, D]."""
        return self.attention(inputs, is_causal=True).output


def stack(depth: int, *, keep_activations: bool = False, chunks: int = 1) -> ReversibleStack:
    """A decoder-only stack without embeddings."""
    set_seed(0)
    blocks = [
        [
            ResidualBranch(CausalSelfAttention(), d_model=D_MODEL),
            ResidualBranch(FeedForward(d_model=D_MODEL, d_ff=D_FF), d_model=D_MODEL, chunks=chunks),
        ]
        for _ in range(depth)
    ]
    return ReversibleStack(blocks, keep_activations=keep_activations)


def step(model: nn.Module, device: torch.device) -> Callable[[], None]:
    """A forward and a backward pass, for a gradient of the outputs drawn once; leaves no gradient behind."""
    inputs = torch.randn(BATCH, LENGTH, D_MODEL, device=device, requires_grad=True)
    gradient = torch.randn_like(inputs)

    def call() -> None:
        model(inputs).backward(gradient)
        inputs.grad = None
        model.zero_grad()

    call.gradient_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    return call


def build(device: torch.device, depth: int) -> Mapping[str, Callable[[], None]]:
    """Both variants, and the reversible one in chunks."""
    variants = {
        OURS: stack(depth),
        PLAIN: stack(depth, keep_activations=True),
        f"{OURS}, feed-forward in 4 chunks": stack(depth, chunks=4),
    }
    if depth == DEEP:
        variants[SHALLOWER] = stack(SHALLOW)
    return {name: step(model.to(device), device) for name, model in variants.items()}


def rows() -> list[Row]:
    """Each depth; at one of them with a shallower stack, for its memory."""
    return [
        Row(
            name=f"{depth} layers",
            units=BATCH * LENGTH,
            build=lambda device, depth=depth: build(device, depth),
            goal=Goal(PLAIN, OF_PLAIN, default_heap=OF_PLAIN_DEFAULT),
            peak=held_bytes,
            memory_goal=Goal(SHALLOWER, 1 / GROWTH) if depth == DEEP else Goal(PLAIN, 1.0),
        )
        for depth in DEPTHS
    ]


# --- Memory ------------------------------------------------------------------------------------------------


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """Bytes that `call` holds at most at once, beyond what is there before it.

    What tensors take, as torch's allocators count it: exact and the same in every run, whatever the heap does.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    changes = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(changes, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def held_bytes(call: Callable[[], object]) -> int:
    """Peak of a call on the benchmark's device, a GPU once it is in use, less the gradients of a `step`."""
    device = torch.device("cuda" if torch.cuda.is_initialized() else "cpu")
    return peak_bytes(call, device) - getattr(call, "gradient_bytes", 0)


def activation_bytes(device: torch.device, depth: int, kind: str, chunks: int = 1) -> int:
    """Peak of a call beyond its parameters, less their gradients: what belongs to activations.

    Args:
        device: where to run.
        depth: N.
        kind: "reversible" or "plain".
        chunks: of the feed-forward functions.
    """
    model = stack(depth, keep_activations=kind == "plain", chunks=chunks).to(device)
    call = step(model, device)
    call()  # libraries allocate for themselves at their first use
    return peak_bytes(call, device) - call.gradient_bytes


def print_memory(device: torch.device) -> None:
    """A table of the peaks over depth."""
    print(f"{device}, {BATCH} x {LENGTH} tokens, width {D_MODEL}: MiB beyond parameters and gradients")
    print(f"{'layers':>6} {'reversible':>11} {'4 chunks':>9} {PLAIN:>17} {'ratio':>6}")
    for depth in DEPTHS:
        ours, chunked, plain = (
            activation_bytes(device, depth, kind, chunks) / 2**20
            for kind, chunks in (("reversible", 1), ("reversible", 4), ("plain", 1))
        )
        print(f"{depth:6} {ours:11.2f} {chunked:9.2f} {plain:17.2f} {plain / ours:6.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["memory"]:
        print_memory(torch.device(sys.argv[2] if len(sys.argv) > 2 else "cpu"))
    else:
        main(rows(), module="benchmarks.reversible", unit="tokens")
