"""Seeds: one place that sets them, and independent reproducible streams."""

import hashlib
import os
import random

import numpy as np
import torch


def derive_seed(seed: int, *stream: int | str) -> int:
    """A 63-bit seed for a named stream, the same on every platform and Python version.

    Raises:
        ValueError: if `seed` is not an integer of at least 0, or a part of `stream` not an integer or string.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed={seed!r} is not valid: it must be an integer of at least 0.")
    digest = hashlib.blake2b(digest_size=8)
    for part in (seed, *stream):
        if isinstance(part, bool) or not isinstance(part, int | str):
            raise ValueError(f"stream part {part!r} is not valid: it must be an integer or a string.")
        digest.update(f"{'i' if isinstance(part, int) else 's'}{len(str(part))}:{part}".encode())
    return int.from_bytes(digest.digest(), "little") >> 1


def generator_for(seed: int, *stream: int | str) -> torch.Generator:
    """A CPU generator for one stream of random numbers, such as `generator_for(seed, "train", step)`.

    Streams with different names are independent of each other and of torch's default generator. (Torch keeps
    32 bits of a CPU seed, so among a million streams some hundred pairs are expected to coincide.)
    """
    return torch.Generator().manual_seed(derive_seed(seed, *stream))


def set_seed(seed: int, *, deterministic: bool = False) -> None:
    """Seed Python, NumPy and torch on all devices.

    Args:
        seed: at least 0.
        deterministic: also make torch refuse operations without a deterministic form (slower on GPUs). Equal
            results are promised for one device model and one set of package versions only.
    """
    value = derive_seed(seed, "global")
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with this
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True)


def seed_device(device: torch.device, value: int) -> None:
    """Seed torch's default generators of the CPU and of `device`, cheaply enough for every training step."""
    torch.default_generator.manual_seed(value)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index].manual_seed(value)
