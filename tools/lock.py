"""Resolve ``requirements.lock`` from ``pyproject.toml``: ``make lock``.

One file serves every supported Python on Linux and macOS, so each pin carries a public version and, where it
matters, an environment marker. CUDA libraries are left out: the torch wheel that pip picks names its own.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = """\
# Every package of the book and its tests, pinned by public version; for Python 3.11 to 3.13, Linux and macOS.
# After a change of pyproject.toml: make lock. For the newest versions of all: make lock LOCK_ARGS=--upgrade
# CUDA libraries are not listed: the torch wheel brings those it needs.
"""
CUDA = re.compile(r"(nvidia|cuda|triton|pytorch-triton)(-|$)")
PIN = re.compile(
    r"(?P<name>[\w.-]+)==(?P<version>[^\s;+]+)(\+\S+)?\s*(?P<marker>;[^#]*)?(#\s*via (?P<via>.*))?$"
)


def pins(resolved: str) -> list[str]:
    """The sorted pins in uv's output (written with ``--annotation-style line``).

    Left out are CUDA packages, packages that only they need, local version tags and comments.

    Raises:
        ValueError: a line is neither a pin nor a comment, as an index address or a hash would be.
    """
    line_of, needed_by = {}, {}
    for line in map(str.strip, resolved.splitlines()):
        if not line or line.startswith("#"):
            continue
        match = PIN.match(line)
        if match is None:
            raise ValueError(
                f"the lock cannot hold {line!r}; a line must read 'name==version' or 'name==version ; marker'"
            )
        pin = f"{match['name']}=={match['version']}"
        marker = (match["marker"] or "").strip("; ")
        # One name may have several lines, for several Pythons.
        line_of[f"{pin} ; {marker}" if marker else pin] = match["name"]
        needed_by.setdefault(match["name"], set()).update(
            parent.split()[0].split("[")[0] for parent in (match["via"] or "").split(", ") if parent
        )
    dropped = _cuda_only(needed_by)
    return sorted(line for line, name in line_of.items() if name not in dropped)


def _cuda_only(needed_by: dict[str, set[str]]) -> set[str]:
    """Names that are CUDA packages or that nothing but CUDA packages needs."""
    dropped = {name for name in needed_by if CUDA.match(name)}
    while more := {name for name, parents in needed_by.items() if parents and parents <= dropped} - dropped:
        dropped |= more
    return dropped


def resolve(uv: str, lock: Path, arguments: list[str]) -> str:
    """uv's resolution of the ``test`` extra, near to ``lock`` unless ``arguments`` ask for newer versions."""
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder, lock.name)
        if lock.exists():
            shutil.copy(lock, draft)
        command = [uv, "pip", "compile", "--quiet", "--universal", "--extra", "test", "--no-header"]
        command += ["--annotation-style", "line", "--output-file", str(draft), *arguments, "pyproject.toml"]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        return draft.read_text()


def main(arguments: list[str]) -> int:
    uv = shutil.which("uv")
    if uv is None:
        print(
            "make lock needs uv, which is not on the path; get it with: python3 -m pip install uv",
            file=sys.stderr,
        )
        return 1
    lock = ROOT / "requirements.lock"
    try:
        found = pins(resolve(uv, lock, arguments))
    except subprocess.CalledProcessError:
        print(
            "uv could not resolve pyproject.toml (its reason stands above); requirements.lock is unchanged",
            file=sys.stderr,
        )
        return 1
    lock.write_text(HEADER + "\n".join(found) + "\n")
    print(f"requirements.lock: {len(found)} pins")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
