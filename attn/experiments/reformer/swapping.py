"""When parameters can wait in the memory of the CPU: bytes over bandwidth against operations over rate."""

from __future__ import annotations

from typing import NamedTuple

FLOAT32 = 4  # bytes
# For each weight and token: 2 operations forward; backward 2 for each of two gradients, and reversible layers compute
# the forward pass once more.
FORWARD, BACKWARD = 2, 6


class Machine(NamedTuple):
    """What is assumed of a machine; rates that a training reaches, not peaks."""

    name: str
    flops: float  # a second
    bandwidth: float  # bytes a second, between CPU and accelerator, one way


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
    transfer = 3 * FLOAT32 * parameters / machine.bandwidth
    compute = (FORWARD + BACKWARD) * parameters * tokens / machine.flops
    return Swap(machine, tokens, transfer, compute)


def least_tokens(machine: Machine) -> float:
    """Tokens of a step from which on the transfer hides; how many weights there are makes no difference."""
    return 3 * FLOAT32 / machine.bandwidth * machine.flops / (FORWARD + BACKWARD)
