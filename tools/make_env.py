"""Make the book's environment: ``make env``.

Installs ``requirements.lock`` and this project (editable) into an environment of its own. A torch that the
machine's Python already has is kept: it is the one that fits the driver, and it is large. Only the standard
library is used, and only syntax that an old Python reads too, so that even that one is told what is missing.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTE = "attn-env.json"  # inside an environment made here: says so, and whether its torch is the machine's
TORCH_LINE = re.compile(r"^torch==\S+.*\n?", re.MULTILINE)
PROBE = "import torch, os; print(torch.__version__); print(os.path.dirname(os.path.dirname(torch.__file__)))"


class EnvironmentProblem(Exception):
    """Why no environment can be made here, in one sentence."""


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("venv", type=Path, help="the environment's folder; made if it is not there")
    venv = parser.parse_args(arguments).venv.absolute()
    try:
        make_environment(venv)
    except EnvironmentProblem as problem:
        print("make env: %s" % problem, file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as failed:
        print(
            "make env: this command failed, for the reason above: %s" % " ".join(map(str, failed.cmd)),
            file=sys.stderr,
        )
        return 1
    print(
        "for attn, papermill and jupyter-book, once per terminal: source %s/bin/activate" % venv, flush=True
    )
    return 0


def make_environment(venv):
    """Bring the environment in ``venv`` to the state of ``requirements.lock``, also after a kill."""
    python, note = venv / "bin" / "python", venv / NOTE
    if not python.exists() or (note.exists() and not _has_pip(python)):
        _create(venv)
    check_python(_version_of(python), python)
    made_here = note.exists()
    # In somebody else's environment torch is as little ours to replace as on the machine.
    keeps = not made_here or json.loads(note.read_text())["torch"] == "kept"
    found = find_torch(python) if keeps else None
    if found:
        check_torch(found[0], python)
        print("keeping torch %s, which is there already" % found[0], flush=True)
    elif keeps and made_here:
        raise EnvironmentProblem(
            "%s was made to use the machine's torch, which is gone; remove that folder and repeat" % venv
        )
    _install(python, found and found[0])
    now = find_torch(python)
    if now is None or (found and now != found):
        wanted, got = (pair[0] if pair else "none" for pair in (found, now))
        raise EnvironmentProblem("%s was to import torch (%s) but finds %s" % (python, wanted, got))


def _create(venv):
    """Make the environment, with sight of the machine's torch where there is one."""
    check_python(sys.version_info[:3], sys.executable)
    found = find_torch(sys.executable)
    if found:
        check_torch(found[0], sys.executable)
    print("making %s with %s" % (venv, sys.executable), flush=True)
    venv.mkdir(parents=True, exist_ok=True)
    (venv / NOTE).write_text(json.dumps({"torch": "kept" if found else "locked"}) + "\n")
    (venv / ".gitignore").write_text("*\n")
    nested = sys.prefix != sys.base_prefix
    _venv(venv, ["--system-site-packages"] if found and not nested else [])
    if found and nested:
        # A virtual environment cannot be the base of another one, so torch is shown by its folder.
        site = _output(venv / "bin" / "python", "import sysconfig; print(sysconfig.get_path('purelib'))")
        Path(site, "attn-torch.pth").write_text(found[1] + "\n")


def _venv(venv, options):
    """``python -m venv``, also where the system's Python comes without ensurepip (as Debian's may)."""
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        run([sys.executable, "-m", "venv", "--without-pip", *options, venv])
        target = ["--python", venv / "bin" / "python"]
        run([sys.executable, "-m", "pip", *target, "install", "--ignore-installed", "pip"])
    else:
        run([sys.executable, "-m", "venv", *options, venv])


def _install(python, kept):
    """Install the lock (without its torch where one is kept), this project and the kernel of ``python``."""
    lock = (ROOT / "requirements.lock").read_text()
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory() as folder:
        wanted, limits = Path(folder, "requirements.txt"), Path(folder, "constraints.txt")
        wanted.write_text(without_torch(lock) if kept else lock)
        limits.write_text("torch==%s\n" % kept if kept else "")
        run(pip + ["-r", wanted, "-c", limits])
    # The lock holds setuptools, so building needs no second download.
    run(pip + ["--quiet", "--no-deps", "--no-build-isolation", "-e", ROOT])
    # A kernel of that name in the user's home must not stand in for this environment's.
    run([python, "-m", "ipykernel", "install", "--sys-prefix"], stderr=subprocess.DEVNULL)


def without_torch(lock):
    """The text of the lock without its line for torch."""
    return TORCH_LINE.sub("", lock)


def find_torch(python):
    """``(version, site folder)`` of the torch that ``python`` imports, or None."""
    try:
        version, site = _output(python, PROBE).splitlines()[-2:]
    except (subprocess.CalledProcessError, OSError, ValueError):
        return None
    return version, site


def check_python(version, python):
    """Raise unless ``version`` (three numbers) is one that ``pyproject.toml`` supports."""
    low, high = re.search(r'requires-python = ">=(\d+\.\d+),<(\d+\.\d+)"', _pyproject()).groups()
    if not _numbers(low) <= tuple(version[:2]) < _numbers(high):
        raise EnvironmentProblem(
            "%s is Python %s, but the book needs at least %s and less than %s; name another one, as in:"
            " make env PYTHON=python%s" % (python, ".".join(map(str, version)), low, high, low)
        )


def check_torch(version, python):
    """Raise unless ``version`` is at least what ``pyproject.toml`` asks for."""
    least = re.search(r'"torch>=(\d+\.\d+)"', _pyproject()).group(1)
    if _numbers(version) < _numbers(least):
        raise EnvironmentProblem(
            "%s has torch %s, but the book needs %s or newer and does not replace a torch that is there;"
            " upgrade it, or name a Python without torch: make env PYTHON=..." % (python, version, least)
        )


def run(command, **options):
    """Run a command in sight of the user; raise CalledProcessError where it fails."""
    subprocess.run(list(map(str, command)), check=True, stdin=subprocess.DEVNULL, **options)


def _output(python, code):
    command = [str(python), "-c", code]
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ).stdout.strip()


def _has_pip(python):
    try:
        return bool(_output(python, "import pip; print(pip.__version__)"))
    except subprocess.CalledProcessError:
        return False


def _version_of(python):
    return tuple(map(int, _output(python, "import platform; print(platform.python_version())").split(".")))


def _numbers(version):
    return tuple(map(int, re.match(r"(\d+)\.(\d+)", version).groups()))


def _pyproject():
    return (ROOT / "pyproject.toml").read_text()


if __name__ == "__main__":
    sys.exit(main())
