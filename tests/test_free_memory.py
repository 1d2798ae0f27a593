"""Free memory from made-up files of the system, and from those of this machine."""

import pytest
import torch

from attn import free_memory
from attn.free_memory import free_bytes

CPU = torch.device("cpu")


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A system with 8,000 kB to give, without containers; returns a function that writes further files."""

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "ascii")

    write("meminfo", "MemTotal:       16000 kB\nMemAvailable:    8000 kB\nHugePages_Total:       0\n")
    monkeypatch.setattr(free_memory, "MEMINFO", tmp_path / "meminfo")
    groups = [
        (tmp_path / folder, *names)
        for (_, *names), folder in zip(free_memory.CGROUPS, ("v2", "v1"), strict=True)
    ]
    monkeypatch.setattr(free_memory, "CGROUPS", groups)
    return write


def test_without_a_container_it_is_what_the_system_could_give(system):
    assert free_bytes(CPU) == 8000 * 1024


@pytest.mark.parametrize(
    "folder, limit, used, stat",
    [
        ("v2", "memory.max", "memory.current", "anon 5\ninactive_file 100\n"),
        (
            "v1",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "inactive_file 7\ntotal_inactive_file 100\n",
        ),
    ],
)
def test_a_container_s_limit_counts_less_what_it_uses_but_for_cached_files(system, folder, limit, used, stat):
    system(f"{folder}/{limit}", "1000\n")
    system(f"{folder}/{used}", "700\n")
    assert free_bytes(CPU) == 300
    system(f"{folder}/memory.stat", stat)
    assert free_bytes(CPU) == 400
    system(f"{folder}/{used}", "5000\n")
    assert free_bytes(CPU) == 0


@pytest.mark.parametrize("limit", ["max\n", "9223372036854771712\n"])
def test_a_container_without_a_limit_has_none(system, limit):
    for folder, *names in (
        ("v2", "memory.max", "memory.current"),
        ("v1", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        for name, text in zip(names, (limit, "5000\n"), strict=True):
            system(f"{folder}/{name}", text)
    assert free_bytes(CPU) == 8000 * 1024


def test_where_nothing_tells_it_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(free_memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(free_memory, "CGROUPS", [])
    assert free_bytes(CPU) is None
    assert free_bytes(torch.device("meta")) is None


def test_this_machine_has_some_or_does_not_tell():
    free = free_bytes(CPU)
    assert free is None or free > 2**20
