"""A comparison on a small example before a kernel is used on a device for the first time.

Compiled kernels depend on the device, its driver and a compiler. One that differs from what it stands in for, or does
not compile, must not decide a result, nor end a run that could go on without it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack

import torch
from torch import Tensor

# Relative to the largest value: products of a GPU may run in TF32.
TOLERANCE = 2e-2

Results = Callable[[], Mapping[str, Tensor]]


def agrees(name: str, ours: Results, theirs: Results) -> bool:
    """Whether two computations give the same tensors; a warning says why not.

    Both run with gradients and in full precision, wherever the first use happens to be: in an evaluation, in the
    forward pass of a reversible layer or under autocast.

    Args:
        name: of what is tried, for the warning "<name> is not used: <reason>".
        ours: results by name, of what is tried.
        theirs: the same of what it stands in for.
    """
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            for device in ("cpu", "cuda"):
                stack.enter_context(torch.autocast(device, enabled=False))
            found, expected = ours(), theirs()
        for part, right in expected.items():
            if not (found[part] - right).abs().max() <= TOLERANCE * right.abs().max():
                raise RuntimeError(f"its {part} differs from that of the other kernel")
    except Exception as error:  # a compiler can fail in many ways
        warnings.warn(f"{name} is not used: {error}", RuntimeWarning, stacklevel=3)
        return False
    return True
