"""What a record says of the machine and the code it came from."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from attn.free_memory import free_bytes
from attn.reproduction.errors import UsageError, choose
from attn.reproduction.paths import repository_root

CPU_INFO = Path("/proc/cpuinfo")  # Linux
_PACKAGES = ("numpy", "safetensors", "scipy")


def device_for(name: str) -> torch.device:
    """The device for "auto" (a GPU if there is one), "cpu" or "cuda".

    Raises:
        UsageError: for another name, or a GPU that is not there.
    """
    choose("device", name, ("auto", "cpu", "cuda"))
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("device 'cuda' is not available here: torch sees no GPU; valid: auto, cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name, 0) if name == "cuda" else torch.device(name)


def device_name(device: torch.device) -> str:
    """ "cpu" or the GPU's model."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def cpu_model() -> str:
    """The processor's model, or its architecture where the system does not tell."""
    try:
        lines = CPU_INFO.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(filter(None, models), platform.processor() or platform.machine() or "unknown processor")


def describe(device: torch.device, *, dtype: str, device_count: int) -> dict[str, Any]:
    """The `environment` of a record or a benchmark's result."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "device": device_name(device),
        "cpu": cpu_model(),
        "device_count": device_count,
        "dtype": dtype,
        "threads": torch.get_num_threads(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def commit() -> dict[str, Any]:
    """Commit of the checkout and whether tracked files were as committed; None where git cannot say."""
    try:
        root = repository_root()
        head = _git(root, "rev-parse", "HEAD")
        # records are written while a grid runs: they are results, not code
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!results")
    except (UsageError, OSError, subprocess.CalledProcessError):
        return {"commit": None, "clean": None}
    return {"commit": head.strip(), "clean": not changed.strip()}


def _git(root: os.PathLike, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout


def free_memory_bytes(device: torch.device) -> int:
    """Memory that a run could still take on `device`."""
    free = free_bytes(device)
    if free is None:  # not Linux
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return free
