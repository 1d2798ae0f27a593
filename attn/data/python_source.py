"""Python's own standard library as a corpus: a real text that is on every machine."""

import hashlib
import os
import platform
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from attn.data.errors import FileMissing

# Tests, and what distributions package separately or generate: leaving these out keeps the text of one Python
# version nearly the same everywhere.
_LEFT_OUT = frozenset(
    "test tests idlelib lib2to3 tkinter turtledemo ensurepip distutils "
    "site-packages dist-packages __pycache__".split()
)
_GENERATED = ("_sysconfigdata", "sitecustomize", "usercustomize", "_distutils_system_mod")


def folder() -> Path:
    """Where the standard library of the running Python lies."""
    return Path(sysconfig.get_path("stdlib"))


def name() -> str:
    """The name under which a checksum of this text is recorded, as "python-stdlib/3.12.4"."""
    return f"python-stdlib/{platform.python_version()}"


def members() -> Iterator[tuple[str, bytes]]:
    """Name and content of every file, in the order of the hash of their names.

    That order is fixed, and mixes the packages, so that any stretch of the text resembles any other.

    Raises:
        FileMissing: if there is no source.
    """
    root = folder()
    names = [path.relative_to(root).as_posix() for path in _files(root)]
    if not names:
        raise FileMissing(f"{root} holds no Python source: use another Python, or another corpus")
    for member in sorted(names, key=lambda member: hashlib.sha256(member.encode()).digest()):
        yield member, (root / member).read_bytes()


def sha256() -> str:
    """Checksum of the whole text; it differs between Python versions."""
    digest = hashlib.sha256()
    for _, content in members():
        digest.update(content)
    return digest.hexdigest()


def _files(root: Path) -> Iterator[Path]:
    for folder_name, subfolders, files in os.walk(root):
        # Pruned, not filtered: site-packages may be very large.
        subfolders[:] = [sub for sub in subfolders if sub not in _LEFT_OUT and not sub.startswith("config-")]
        for path in (Path(folder_name, file) for file in files if file.endswith(".py")):
            if not path.name.startswith(_GENERATED) and not path.is_symlink():
                yield path
