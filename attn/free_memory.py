"""How much memory a process could still take, the limit of its container included."""

from __future__ import annotations

from pathlib import Path

import torch

MEMINFO = Path("/proc/meminfo")
# Folder of the control group that a container sees as its own; names of its limit and its use; and of what it counts
# as used that the system would give up: files in its cache. For version 2 and version 1.
CGROUPS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def free_bytes(device: torch.device) -> int | None:
    """Memory to be had on a device, or None where it cannot be told."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    known = [free for free in (_available(), *(_left(*group) for group in CGROUPS)) if free is not None]
    return min(known, default=None)


def _available() -> int | None:
    """What the system could give, or None where it is not Linux."""
    kilobytes = _numbers(MEMINFO).get("MemAvailable:")
    return None if kilobytes is None else kilobytes * 1024


def _left(folder: Path, limit: str, used: str, reclaimable: str) -> int | None:
    """What a container may still take, or None without such a limit."""
    try:
        most, now = (int((folder / name).read_text("ascii")) for name in (limit, used))
    except (OSError, ValueError):  # no such group, or a limit of "max"
        return None
    return max(0, most - now + _numbers(folder / "memory.stat").get(reclaimable, 0))


def _numbers(path: Path) -> dict[str, int]:
    """The first number of every line by the word before it; empty where there is no such file."""
    try:
        lines = path.read_text("ascii").splitlines()
    except OSError:
        return {}
    return {words[0]: int(words[1]) for words in map(str.split, lines) if len(words) > 1}
