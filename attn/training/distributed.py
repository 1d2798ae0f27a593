"""Several processes, one training run: set-up from torchrun's environment; without it, a single process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist


def rank() -> int:
    """This process's number, 0 in a single process."""
    return dist.get_rank() if _is_active() else 0


def world_size() -> int:
    """Number of processes that train together, 1 in a single process."""
    return dist.get_world_size() if _is_active() else 1


def is_main() -> bool:
    """Whether this process prints and writes files."""
    return rank() == 0


@contextmanager
def distributed(device: str | torch.device | None = None) -> Iterator[torch.device]:
    """Join the process group that torchrun describes, if any, and yield the device to use.

    Args:
        device: "cpu" or "cuda"; None takes CUDA where it is available. Under torchrun each process gets the
            CUDA device of its local rank, and NCCL connects them; on CPUs it is Gloo.

    Raises:
        ValueError: if CUDA is asked for and not available.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={str(device)!r} is not valid: torch sees no CUDA device here; use 'cpu'.")
    if device.type == "cuda":
        index = int(os.environ.get("LOCAL_RANK", 0)) if _has_launcher() else device.index or 0
        device = torch.device("cuda", index)
        torch.cuda.set_device(device)
    if _is_active() or not _has_launcher():
        yield device
        return
    if device.type == "cuda":
        dist.init_process_group("nccl", device_id=device)
    else:
        dist.init_process_group("gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def gather_to_main(value) -> list | None:
    """Every rank's `value` in a list on rank 0, None elsewhere. Objects are pickled."""
    if world_size() == 1:
        return [value]
    values = [None] * world_size() if is_main() else None
    dist.gather_object(value, values)
    return values


def _is_active() -> bool:
    return dist.is_available() and dist.is_initialized()


def _has_launcher() -> bool:
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ
