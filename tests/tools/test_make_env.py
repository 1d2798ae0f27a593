"""The environment is made with real virtual environments; only pip's downloads are left out."""

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tools import make_env
from tools.make_env import EnvironmentProblem

TORCH = "__version__ = '{}'\n"


@pytest.fixture
def commands(monkeypatch):
    """The commands that would install something; making the environment itself runs."""
    installed = []
    real = make_env.run

    def run(command, **options):
        command = list(map(str, command))
        if "venv" in command:
            # Without pip in it: that is the slow part, and nothing here asks for it.
            real([*command[:3], "--without-pip", *command[3:]], **options)
        else:
            files = [path for flag, path in pairwise(command) if flag in ("-r", "-c")]
            installed.append((command, *(Path(file).read_text() for file in files)))

    monkeypatch.setattr(make_env, "run", run)
    monkeypatch.setattr(make_env, "_has_pip", lambda python: python.exists())
    return installed


@pytest.fixture
def machine_with(tmp_path, monkeypatch):
    """A function that gives this Python a torch of some version, or none; ``nested``: it is a virtual one."""

    def set_up(version, nested=True):
        site = tmp_path / "machine"
        site.mkdir()
        if version:
            (site / "torch").mkdir()
            (site / "torch" / "__init__.py").write_text(TORCH.format(version))
        real = make_env.find_torch

        def find_torch(python):
            if str(python) == sys.executable:
                return (version, str(site)) if version else None
            return real(python)

        monkeypatch.setattr(make_env, "find_torch", find_torch)
        monkeypatch.setattr(sys, "base_prefix", str(tmp_path) if nested else sys.prefix)

    return set_up


def put_torch_into(venv, version):
    site = make_env._output(venv / "bin" / "python", "import sysconfig; print(sysconfig.get_path('purelib'))")
    Path(site, "torch.py").write_text(TORCH.format(version))


def test_without_torch_on_the_machine_the_locked_one_comes(tmp_path, commands, machine_with, monkeypatch):
    machine_with(None)
    venv = tmp_path / "venv"
    install = make_env._install

    def install_and_have_torch(python, kept):
        install(python, kept)
        put_torch_into(venv, "2.13.0")

    monkeypatch.setattr(make_env, "_install", install_and_have_torch)
    for _ in range(2):  # the second time the torch that is found is our own, which a new lock may replace
        make_env.make_environment(venv)
        (command, wanted, limits), editable, kernel = commands
        assert command[0] == str(venv / "bin" / "python")
        assert "\ntorch==" in wanted and limits == ""
        assert "--no-deps" in editable[0] and kernel[0][-1] == "--sys-prefix"
        commands.clear()
    assert (venv / ".gitignore").read_text().splitlines()[-1] == "*"


def test_torch_on_the_machine_is_seen_and_never_installed(tmp_path, commands, machine_with, capfd):
    machine_with("2.12.1+cu130")
    venv = tmp_path / "venv"
    make_env.make_environment(venv)
    _, wanted, limits = commands[0]
    assert "torch==" not in wanted and "numpy==" in wanted
    assert limits == "torch==2.12.1+cu130\n"
    assert "keeping torch 2.12.1+cu130" in capfd.readouterr().out
    seen = make_env.find_torch(venv / "bin" / "python")
    assert seen == ("2.12.1+cu130", str(tmp_path / "machine"))


@pytest.mark.parametrize(
    "version, nested, shown", [("2.12.0", False, True), ("2.12.0", True, False), (None, False, False)]
)
@pytest.mark.usefixtures("commands")
def test_the_machine_is_shown_only_where_its_torch_is_wanted(version, nested, shown, tmp_path, machine_with):
    machine_with(version, nested)
    make_env._create(tmp_path / "venv")
    setting = f"include-system-site-packages = {str(shown).lower()}"
    assert setting in (tmp_path / "venv" / "pyvenv.cfg").read_text()


def test_an_old_torch_stops_before_anything_is_made(tmp_path, commands, machine_with, capsys):
    machine_with("2.5.1")
    assert make_env.main([str(tmp_path / "venv")]) == 1
    said = capsys.readouterr().err
    assert "has torch 2.5.1, but the book needs 2.11 or newer" in said and said.count("\n") == 1
    assert not (tmp_path / "venv").exists() and not commands


def test_a_given_environment_keeps_its_torch(tmp_path, commands, machine_with):
    machine_with(None)
    venv = tmp_path / "mine"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    put_torch_into(venv, "2.11.0a0+git")
    make_env.make_environment(venv)
    _, wanted, limits = commands[0]
    assert "torch==" not in wanted and limits == "torch==2.11.0a0+git\n"
    assert not (venv / make_env.NOTE).exists()


def test_a_machine_s_torch_that_is_gone_is_told(tmp_path, commands, machine_with, capsys):
    machine_with(None)
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (venv / make_env.NOTE).write_text(json.dumps({"torch": "kept"}))
    assert make_env.main([str(venv)]) == 1
    assert "remove that folder and repeat" in capsys.readouterr().err
    assert not commands


def test_a_torch_that_changed_is_told(tmp_path, commands, machine_with, monkeypatch, capsys):
    machine_with("2.12.0")
    venv = tmp_path / "venv"
    monkeypatch.setattr(make_env, "_install", lambda python, kept: put_torch_into(venv, "2.13.0"))
    assert make_env.main([str(venv)]) == 1
    assert "torch (2.12.0) but finds 2.13.0" in capsys.readouterr().err


def test_it_ends_with_how_to_activate(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(make_env, "make_environment", lambda venv: None)
    assert make_env.main([str(tmp_path / "venv")]) == 0
    assert capsys.readouterr().out.endswith(f"source {tmp_path / 'venv'}/bin/activate\n")


@pytest.mark.parametrize("version", [(3, 10, 13), (3, 14, 0), (2, 7, 18)])
def test_an_unsupported_python_is_refused_with_one_that_would_do(version):
    with pytest.raises(EnvironmentProblem, match="at least 3.11 and less than 3.14.*PYTHON=python3.11"):
        make_env.check_python(version, "python3")


@pytest.mark.parametrize("version", [(3, 11, 2), (3, 13, 9)])
def test_a_supported_python_passes(version):
    assert make_env.check_python(version, "python3") is None


@pytest.mark.parametrize("version", ["2.11", "2.11.0a0+git", "2.13.0+cpu", "3.0"])
def test_a_new_enough_torch_passes(version):
    assert make_env.check_torch(version, "python3") is None


def test_a_failed_command_ends_in_one_line(tmp_path, machine_with, monkeypatch, capsys):
    machine_with(None)

    def fail(command, **options):
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(make_env, "run", fail)
    assert make_env.main([str(tmp_path / "venv")]) == 1
    said = capsys.readouterr().err
    assert "this command failed" in said and "-m venv" in said and said.count("\n") == 1


def test_the_script_parses_on_an_old_python():
    import ast

    source = Path(make_env.__file__).read_text()
    assert ast.parse(source, feature_version=(3, 7))
    assert os.path.basename(make_env.__file__) in Path(make_env.ROOT, "Makefile").read_text()
