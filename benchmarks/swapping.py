"""Parameters that wait in the memory of the CPU: what copying them takes, and a step with and without it.

One row copies what a step with `ReversibleStack(..., swap_parameters=True)` copies: the parameters of every function to
the device, from pinned memory, and their gradients back. The others are a forward and a backward pass of a stack whose
parameters stay on the device, beside the same stack whose parameters are fetched for each function. Nothing is fetched
ahead, so that the second should take as much longer as the copies take.

On a CPU there is one memory. There the copies are between two buffers in it, and a step with swapping copies nothing: it
shows the price of calling a function with parameters that are handed to it.

Memory is the most that a step holds on the device, parameters and their gradients included.
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from attn.experiments.reformer.swapping import (
    BATCHES,
    COPIES,
    D_MODEL,
    FETCHING,
    FLOAT32,
    LENGTH,
    RESIDENT,
    SENDING,
    SWAPPED,
    count,
    moved_bytes,
    row_name,
    sizes,
    stack,
)
from attn.reversible import ReversibleStack
from attn.training import set_seed
from benchmarks.reversible import peak_bytes
from benchmarks.timing import Row, main


def waiting(model: ReversibleStack, device: torch.device) -> ReversibleStack:
    """The model with its parameters in the memory of the CPU, pinned where the device is another one."""
    if device.type == "cuda":
        for parameter in model.parameters():
            parameter.data = parameter.data.pin_memory()
    return model


def copies(device: torch.device) -> Mapping[str, Callable[[], None]]:
    """All parameters to the device, one after the other, and as many gradients back."""
    parameters = [p.detach() for p in waiting(stack(), device).parameters()]
    there = [torch.empty_like(p, device=device) for p in parameters]  # on a CPU a buffer, too
    back = [torch.empty_like(p) for p in parameters]

    def fetch() -> None:
        for source, target in zip(parameters, there, strict=True):
            target.copy_(source, non_blocking=True)

    def send() -> None:
        for source, target in zip(there, back, strict=True):
            target.copy_(source)

    return {FETCHING: fetch, SENDING: send}


class Step:
    """A forward and a backward pass; leaves no gradient behind.

    Args:
        model: with its parameters on the device of the inputs, or waiting.
        inputs: [B, T, D].
    """

    def __init__(self, model: ReversibleStack, inputs: Tensor) -> None:
        self.model, self.inputs = model, inputs.requires_grad_()
        self.gradient = torch.randn_like(inputs)
        own = next(model.parameters()).device
        self.resident = FLOAT32 * count(model) if own == inputs.device else 0

    def __call__(self) -> None:
        """The pass."""
        self.model(self.inputs).backward(self.gradient)
        self.inputs.grad = None
        self.model.zero_grad()


def held(step: Step) -> int:
    """Most bytes on the device, parameters included."""
    return step.resident + peak_bytes(step, step.inputs.device)


def steps(device: torch.device, batch: int) -> Mapping[str, Callable[[], None]]:
    """A step with parameters fetched for each function, and one with all of them there."""
    set_seed(0)
    models = {SWAPPED: waiting(stack(swap_parameters=True), device), RESIDENT: stack().to(device)}
    return {
        name: Step(model, torch.randn(batch, LENGTH, D_MODEL, device=device))
        for name, model in models.items()
    }


def rows() -> list[Row]:
    """The copies, and steps of few and of many tokens."""
    weights = sizes().whole
    found = [Row(name=COPIES, units=FLOAT32 * weights, build=copies)]
    return found + [
        Row(
            name=row_name(batch * LENGTH),
            units=moved_bytes(weights),
            build=partial(steps, batch=batch),
            peak=held,
        )
        for batch in BATCHES
    ]


if __name__ == "__main__":
    main(rows(), module="benchmarks.swapping", unit="bytes moved")
