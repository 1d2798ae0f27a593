"""The files that say what the project needs agree with each other."""

import importlib.metadata
import os
import re
import stat
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import attn
from tools.lock import CUDA

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "requirements.lock").read_text()
PINS = [Requirement(line) for line in LOCK.splitlines() if not line.startswith("#")]

MACHINES = [
    {"sys_platform": platform, "os_name": "posix", "platform_machine": machine, "python_full_version": full}
    | {"python_version": full.rpartition(".")[0], "implementation_name": "cpython", "extra": ""}
    | {"platform_python_implementation": "CPython", "platform_system": system}
    for platform, system, machine in [("linux", "Linux", "x86_64"), ("darwin", "Darwin", "arm64")]
    for full in ["3.11.2", "3.11.9", "3.12.4", "3.13.1"]
]


def named(machine):
    return f"{machine['sys_platform']}-{machine['python_full_version']}"


def asked_for():
    """Every requirement of pyproject.toml with a range, those of the extras too."""
    lines = [*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"]]
    for extra in PROJECT["project"]["optional-dependencies"].values():
        lines += extra
    return [requirement for requirement in map(Requirement, lines) if requirement.name != "attn"]


def pins_on(machine):
    return [pin for pin in PINS if pin.marker is None or pin.marker.evaluate(machine)]


@pytest.mark.parametrize("machine", MACHINES, ids=named)
def test_the_lock_gives_each_machine_one_version_within_each_range(machine):
    pinned = {}
    for pin in pins_on(machine):
        assert canonicalize_name(pin.name) not in pinned, f"{pin.name} is pinned twice"
        (exact,) = pin.specifier
        assert exact.operator == "=="
        pinned[canonicalize_name(pin.name)] = exact.version
    for requirement in asked_for():
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not in requirements.lock: run make lock"
        assert requirement.specifier.contains(version), f"{requirement} does not admit the pinned {version}"


def test_the_lock_holds_public_versions_and_nothing_else():
    for pin in PINS:
        (exact,) = pin.specifier
        assert Version(exact.version).local is None and pin.url is None and not pin.extras, str(pin)
        assert not CUDA.match(pin.name), f"{pin.name} belongs to one build of torch"
    text = "\n".join(line for line in LOCK.splitlines() if not line.startswith("#"))
    for foreign in ["://", "--", "sha256", "@", "\\"]:
        assert foreign not in text


def test_the_lock_names_the_target_that_makes_it():
    (target,) = set(re.findall(r"make (\w+)", LOCK))
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_lock_holds_all_that_its_packages_need():
    """Followed through what is installed here, from the extra that holds all others."""
    pinned = {canonicalize_name(pin.name) for pin in pins_on(None)}
    open_names, seen = {canonicalize_name(requirement.name) for requirement in asked_for()}, set()
    while open_names:
        name = open_names.pop()
        seen.add(name)
        for line in importlib.metadata.requires(name) or []:
            needed = Requirement(line)
            if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
                continue
            child = canonicalize_name(needed.name)
            if not CUDA.match(child) and child not in seen:
                assert child in pinned, f"{name} needs {child}, which requirements.lock does not pin"
                open_names.add(child)
    assert len(seen) > len(asked_for())


def test_pythons_agree():
    supported = SpecifierSet(PROJECT["project"]["requires-python"])
    classified = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["project"]["classifiers"]))
    assert classified == [version for version in map("3.{}".format, range(8, 20)) if version in supported]
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    tried = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert tried[0] == classified[0] and tried[-1] == classified[-1]
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{classified[0].replace('.', '')}"


def test_the_conda_environment_is_python_pip_and_the_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, packages = environment["dependencies"]
    assert python.partition("=")[2] in SpecifierSet(PROJECT["project"]["requires-python"])
    assert (pip, packages) == ("pip", {"pip": ["-r requirements.lock", "-e ."]})


def test_the_citation_agrees():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["project"]["version"]
    assert citation["license"] == PROJECT["project"]["license"]
    assert [author["name"] for author in citation["authors"]] == [
        author["name"] for author in PROJECT["project"]["authors"]
    ]
    assert citation.get("repository-code", "") == PROJECT["tool"]["attn"]["repository"]
    assert citation["authors"][0]["name"] in (ROOT / "LICENSE").read_text()


def test_the_version_is_the_package_s_own():
    assert attn.__version__ == PROJECT["project"]["version"]


def test_continuous_integration_runs_the_readme_s_test_command():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & stat.S_IXUSR
    assert re.search(r"^exec make test\b", script.read_text(), re.MULTILINE)
    assert "make test" in (ROOT / "README.md").read_text()


def test_workflows_call_only_targets_of_the_makefile():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = []
    for workflow in (ROOT / ".github" / "workflows").glob("*.yml"):
        for job in yaml.safe_load(workflow.read_text())["jobs"].values():
            called += [step["run"].split() for step in job["steps"] if "run" in step]
    made = {words[1] for words in called if words[0] == "make"}
    assert {"test", "book"} <= made <= targets
    others = [words for words in called if words[0] != "make"]
    assert others == [["python3", "-m", "pip", "install", "uv"]]


@cache
def modules_after(statement):
    """Names of the modules that a fresh Python holds after ``statement``."""
    code = f"import sys; {statement}; print(' '.join(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return set(subprocess.check_output([sys.executable, "-c", code], env=environment, text=True).split())


@pytest.mark.parametrize(
    "heavy", ["torch", "numpy", "pandas", "scipy", "matplotlib", "requests", "sphinx", "numba"]
)
def test_importing_attn_is_quick(heavy):
    loaded = modules_after("import attn")
    assert "attn" in loaded and heavy not in loaded


def test_package_data_is_declared():
    """Each kind of data file beside the modules is one that an installed package carries along."""
    files = [
        file for file in (ROOT / "attn").rglob("*.*") if file.is_file() and file.parent.name != "__pycache__"
    ]
    kinds = {"*" + file.suffix for file in files} - {"*.py"}
    assert kinds <= set(PROJECT["tool"]["setuptools"]["package-data"]["*"])
    assert "*.yaml" in kinds
