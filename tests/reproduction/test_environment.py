"""What a record says of machine and code."""

import platform
import subprocess

import pytest
import torch

from attn.reproduction import environment
from attn.reproduction.environment import (
    commit,
    cpu_model,
    describe,
    device_for,
    device_name,
    free_memory_bytes,
)
from attn.reproduction.errors import UsageError

CPU = torch.device("cpu")


def test_devices_by_name(monkeypatch):
    assert device_for("cpu") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_for("auto") == device_for("cuda") == torch.device("cuda", 0)
    assert device_for("cpu") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_for("auto") == CPU


@pytest.mark.parametrize("name", ["gpu", "cuda:1", "", None, 0])
def test_unknown_devices_give_the_valid_ones(name):
    with pytest.raises(UsageError) as caught:
        device_for(name)
    assert str(caught.value) == f"unknown device {name!r}; valid: auto, cpu, cuda"


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="device 'cuda' is not available here: .* valid: auto, cpu$"):
        device_for("cuda")


def test_description():
    found = describe(CPU, dtype="fp32", device_count=2)
    assert found["python"] == platform.python_version() and found["torch"] == torch.__version__
    assert found["cuda"] == torch.version.cuda
    assert (found["device"], found["device_count"], found["dtype"]) == ("cpu", 2, "fp32")
    assert found["cpu"] == cpu_model() and found["threads"] == torch.get_num_threads()
    assert {"numpy", "safetensors", "scipy"} == set(found["packages"])
    assert device_name(CPU) == "cpu"


def test_a_package_that_is_not_installed_is_left_out(monkeypatch):
    monkeypatch.setattr(environment, "_PACKAGES", ("numpy", "no-such-package-of-ours"))
    assert set(describe(CPU, dtype="fp32", device_count=1)["packages"]) == {"numpy"}


@pytest.mark.parametrize(
    ("content", "model"),
    [
        ("processor\t: 0\nmodel name\t: Example CPU @ 2 GHz\nmodel name\t: Other\n", "Example CPU @ 2 GHz"),
        ("processor\t: 0\nmodel name\t:\nCPU part\t: 0xd40\n", "an-architecture"),
        (None, "an-architecture"),
    ],
)
def test_the_processor_is_named_as_the_system_does(tmp_path, monkeypatch, content, model):
    info = tmp_path / "cpuinfo"
    if content is not None:
        info.write_text(content)
    monkeypatch.setattr(environment, "CPU_INFO", info)
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "an-architecture")
    assert cpu_model() == model


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A small repository with one commit and a file of results, in place of the book's."""

    def git(*arguments):
        person = ["-c", "user.name=A", "-c", "user.email=a@b.c"]
        command = ["git", *person, *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    git("init", "-q")
    for name in ("code.py", "results/seed0.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1\n")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    monkeypatch.setattr(environment, "repository_root", lambda: tmp_path)
    return tmp_path, git("rev-parse", "HEAD").strip()


def test_commit_and_whether_the_code_was_as_committed(checkout):
    folder, head = checkout
    assert commit() == {"commit": head, "clean": True}
    (folder / "results" / "seed0.json").write_text("2\n")
    (folder / "results" / "seed1.json").write_text("2\n")
    assert commit() == {"commit": head, "clean": True}, "records written by a grid are no change of code"
    (folder / "code.py").write_text("2\n")
    assert commit() == {"commit": head, "clean": False}


def test_outside_a_repository(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(environment, "repository_root", lambda: tmp_path)
    assert commit() == {"commit": None, "clean": None}


def test_without_git(monkeypatch):
    def missing(*arguments, **options):
        raise FileNotFoundError("git")

    monkeypatch.setattr(environment.subprocess, "run", missing)
    assert commit() == {"commit": None, "clean": None}


def test_free_memory_is_some_of_this_machine_s():
    pytest.importorskip("resource", reason="Unix only")
    import os

    assert 0 < free_memory_bytes(CPU) <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
