"""When parameters can wait in the memory of the CPU: bytes over bandwidth against operations over rate.

The rates are assumed, or measured by `benchmarks/swapping.py` on the stack that is made here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from attn.attention import MultiHeadAttention
from attn.reproduction.grid import Cell, Grid, Html, plain
from attn.reproduction.speed import Speed, command, load_speed, of_benchmark
from attn.reversible import ResidualBranch, ReversibleStack
from attn.transformer import FeedForward

FLOAT32 = 4  # bytes
# Times that a step moves a function's parameters to the device, one for each pass, and its gradients back.
FETCHED, SENT = 2, 1
_TIMES = {1: "once", 2: "twice"}
# For each weight and token: 2 operations forward; backward 2 for each of two gradients, and reversible layers compute
# the forward pass once more.
FORWARD = 2
GRADIENTS = 2 * FORWARD
BACKWARD = GRADIENTS + FORWARD


def moved_bytes(parameters: float) -> float:
    """Bytes that a step moves for so many weights, both ways together."""
    return (FETCHED + SENT) * FLOAT32 * parameters


def operations(parameters: float, tokens: int) -> float:
    """Operations of a step's products with so many weights."""
    return (FORWARD + BACKWARD) * parameters * tokens


class Machine(NamedTuple):
    """Rates that a training reaches, not peaks."""

    name: str
    flops: float  # a second
    bandwidth: float  # bytes a second, between CPU and accelerator, one way


# Assumed.
MACHINES = (
    Machine("accelerator of 2020", 50e12, 10e9),
    Machine("accelerator of 2024", 400e12, 50e9),
    Machine("one over a slow link", 400e12, 10e9),
)


class Swap(NamedTuple):
    """One layer's weights fetched for a pass, and gradients sent back after it."""

    machine: Machine
    tokens: int  # of a step
    transfer: float  # seconds: weights fetched twice, gradients sent once
    compute: float  # seconds, forward and backward

    @property
    def is_hidden(self) -> bool:
        """Whether fetching one layer while another is computed costs nothing."""
        return self.transfer <= self.compute


def swap(machine: Machine, tokens: int, parameters: float) -> Swap:
    """Seconds for one layer of so many weights."""
    transfer = moved_bytes(parameters) / machine.bandwidth
    return Swap(machine, tokens, transfer, operations(parameters, tokens) / machine.flops)


def least_tokens(machine: Machine) -> float:
    """Tokens of a step from which on the transfer hides; how many weights there are makes no difference."""
    return moved_bytes(1) / machine.bandwidth * machine.flops / operations(1, 1)


def counting_words() -> list[str]:
    """What is moved and computed for a layer of P weights, in sentences."""
    return [
        f"A layer of P weights is fetched {_TIMES[FETCHED]}, forward and backward, and its gradient goes back "
        f"{_TIMES[SENT]}: {moved_bytes(1):g} P bytes in float32. Meanwhile the machine computes {operations(1, 1):g} P "
        f"operations for every token of the step: {FORWARD} P forward, {GRADIENTS // 2} P for each of two gradients, "
        f"and {FORWARD} P to compute the forward pass again."
    ]


# --- the stack that is measured ----------------------------------------------------------------------------------

BENCHMARK, COPIES = "swapping", "copies"
D_MODEL, N_HEADS, D_FF, DEPTH = 512, 8, 2048, 4
LENGTH = 512
BATCHES = (1, 4)  # sequences of a step
FETCHING, SENDING = "parameters to the device", "gradients to the CPU"
SWAPPED, RESIDENT = "swap_parameters", "parameters on the device"


class _SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(d_model=D_MODEL, n_heads=N_HEADS)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.attention(inputs, is_causal=True).output


def stack(*, swap_parameters: bool = False) -> ReversibleStack:
    """Reversible layers of attention and feed-forward, [B, T, D_MODEL] to the same."""
    blocks = [
        [
            ResidualBranch(_SelfAttention(), d_model=D_MODEL),
            ResidualBranch(FeedForward(d_model=D_MODEL, d_ff=D_FF), d_model=D_MODEL),
        ]
        for _ in range(DEPTH)
    ]
    return ReversibleStack(blocks, swap_parameters=swap_parameters)


def row_name(tokens: int) -> str:
    """The benchmark's row of a step of so many tokens."""
    return f"step, {tokens} tokens"


def count(module: nn.Module) -> int:
    """Weights of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


class Sizes(NamedTuple):
    """Weights of the stack: all, and most that one function has, which is what a device holds of them at a time."""

    whole: int
    largest: int


def sizes() -> Sizes:
    """Those of `stack`."""
    with torch.device("meta"):
        model = stack()
    return Sizes(count(model), max(count(function) for block in model.blocks for function in block))


# --- what was measured -------------------------------------------------------------------------------------------

Row = Mapping[str, Any]


class Step(NamedTuple):
    """A step of so many tokens, in seconds."""

    tokens: int
    resident: float  # parameters on the device
    swapped: float


class Rates(NamedTuple):
    """What one result says of a device."""

    machine: (
        Machine  # its rates: bytes of a step over the seconds of their copies, and those of the largest step
    )
    is_cpu: bool
    copying: float  # seconds of all copies of a step
    steps: tuple[Step, ...]


def measured(results: Path, heap: str = "kept") -> list[Rates]:
    """Of each stored result of the benchmark, rows that were disturbed left out; of one that lacks a row, nothing."""
    found, _ = load_speed(results)
    return [rates for speed in of_benchmark(found, BENCHMARK) if (rates := _rates(speed, heap))]


def _rates(speed: Speed, heap: str) -> Rates | None:
    rows = {row["name"]: row for row in speed.data["rows"] if row["heap"] == heap and not row["disturbed"]}
    tokens = [n * LENGTH for n in BATCHES if row_name(n * LENGTH) in rows]
    if COPIES not in rows or not tokens:
        return None
    copies = _seconds(rows[COPIES])
    copying = FETCHED * copies[FETCHING] + SENT * copies[SENDING]
    times = {number: _seconds(rows[row_name(number)]) for number in tokens}
    steps = tuple(Step(number, at[RESIDENT], at[SWAPPED]) for number, at in times.items())
    whole, environment = sizes().whole, speed.data["environment"]
    is_cpu = environment["device"] == "cpu"
    flops = operations(whole, steps[-1].tokens) / steps[-1].resident
    name = environment["cpu"] if is_cpu else environment["device"]
    return Rates(Machine(name, flops, moved_bytes(whole) / copying), is_cpu, copying, steps)


def _seconds(row: Row) -> dict[str, float]:
    return {variant["name"]: variant["seconds"] for variant in row["variants"]}


# --- the box on the page -----------------------------------------------------------------------------------------

_COLUMNS = (
    "Machine (measured)",
    "GFLOP/s",
    "GB/s",
    "Tokens a step",
    "Copies, ms",
    "Step, ms",
    "Step with swapping, ms",
    "Hidden",
)


def measured_table(found: list[Rates]) -> Html:
    """Copies and steps as they were measured, side by side; the command that measures them where there is nothing."""
    if not found:
        text = f"Not measured yet: {command(BENCHMARK)}"
        return Html(f'<p class="attn-note">{text}</p>', text)
    whole, largest = (FLOAT32 * weights / 2**20 for weights in sizes())
    moved = moved_bytes(sizes().whole) / 2**20
    caption = (
        f"A stack of {DEPTH} reversible layers of width {D_MODEL}: {whole:.1f} MiB of parameters, of which a device "
        f"holds {largest:.1f} MiB at a time where they are swapped; a step moves {moved:.1f} MiB"
    )
    grid = Grid(plain(caption), _COLUMNS)
    for one in found:
        for place, step in enumerate(one.steps):
            machine = one.machine
            head = (machine.name, f"{machine.flops / 1e9:,.0f}", f"{machine.bandwidth / 1e9:.3g}")
            times = (one.copying, step.resident, step.swapped)
            cells = [f"{step.tokens:,}", *(f"{1e3 * seconds:,.1f}" for seconds in times)]
            cells.append("yes" if one.copying <= step.resident else "no")
            grid.add(
                [*(None if place else plain(text) for text in head), *map(plain, cells)],
                "" if place else "attn-first",
            )
    grid.notes = _notes(found)
    return grid.render()


def _notes(found: list[Rates]) -> list[Cell]:
    least = "; ".join(f"{one.machine.name}: {least_tokens(one.machine):,.0f}" for one in found)
    notes = [
        "Medians with the heap kept. Hidden: whether the copies take no longer than the step without them. GFLOP/s are "
        "those of the products with weights in the largest step, GB/s those of all copies of a step. Tokens from which "
        f"on the copies would hide at these rates: {least}."
    ]
    if any(one.is_cpu for one in found):
        notes.append(
            "On a CPU there is one memory: the copies are between two buffers in it, and the step with swapping copies "
            "nothing, so that it shows the price of calling each function with parameters that are handed to it."
        )
    return [plain(note) for note in notes]
