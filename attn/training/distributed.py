"""Several processes, one training run: set-up from torchrun's environment; without it, a single process."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from attn.training.sparse_optimizer import coalesced


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


def replicate(
    model: nn.Module, tables: Sequence[nn.Parameter], device: torch.device
) -> DistributedDataParallel:
    """The model as every process trains it, with the weights of rank 0.

    Args:
        model: on `device`, the same on every rank.
        tables: parameters with sparse gradients. DistributedDataParallel takes none, so their gradients are left as
            they are: `average_rows` has to follow the backward pass.
        device: this process's.
    """
    left_out = {id(table) for table in tables}
    names = [name for name, parameter in model.named_parameters() if id(parameter) in left_out]
    # the class names what the root itself holds with a dot before it in one place, and without in another
    names += [f".{name}" for name in names]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, names)
    for table in tables:
        dist.broadcast(table.detach(), 0)
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


def average_rows(table: nn.Parameter) -> None:
    """Replace a table's sparse gradient by its mean over all processes: the rows of any, the same on each.

    A process without a gradient counts as one of zeros; if none has one, there is none afterwards.
    """
    gradient = None if table.grad is None else coalesced(table.grad)
    count = -1 if gradient is None else gradient._nnz()
    counts = torch.cat(_all_gather(torch.tensor([count], device=table.device))).tolist()
    if max(counts) < 0:
        return
    if gradient is None:
        rows, values = torch.empty(0, dtype=torch.int64, device=table.device), table.detach()[:0]
    else:
        rows, values = gradient._indices()[0], gradient._values()
    table.grad = torch.sparse_coo_tensor(
        _gather_rows(rows, counts).unsqueeze(0), _gather_rows(values, counts) / world_size(), table.shape
    ).coalesce()


def _gather_rows(own: Tensor, counts: Sequence[int]) -> Tensor:
    """The rows of all ranks, which hold `counts` of them; all have to send as many, and what fills up is cut off."""
    sent = torch.cat([own, own.new_zeros(max(1, *counts) - len(own), *own.shape[1:])])
    return torch.cat([part[: max(0, count)] for part, count in zip(_all_gather(sent), counts, strict=True)])


def _all_gather(own: Tensor) -> list[Tensor]:
    """Every rank's tensor, all of one shape, in the order of ranks."""
    found = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(found, own.contiguous())
    return found


def _is_active() -> bool:
    return dist.is_available() and dist.is_initialized()


def _has_launcher() -> bool:
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ
