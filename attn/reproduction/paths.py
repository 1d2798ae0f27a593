"""Where the book keeps things, independent of the working folder."""

from __future__ import annotations

import os
from pathlib import Path

from attn.reproduction.errors import UsageError

PAPERS = Path(__file__).parent / "papers"


def repository_root() -> Path:
    """The checkout that holds this package.

    Raises:
        UsageError: if the package was installed apart from the book's repository.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / "pyproject.toml").is_file():
        raise UsageError(
            "attn is installed outside the book's repository: set ATTN_RESULTS and ATTN_RUNS to two folders"
        )
    return root


def results_dir() -> Path:
    """Folder of the run records: `$ATTN_RESULTS`, else results/ in the repository."""
    return _folder("ATTN_RESULTS", "results")


def runs_dir() -> Path:
    """Folder of checkpoints of unfinished runs: `$ATTN_RUNS`, else runs/ in the repository (not tracked)."""
    return _folder("ATTN_RUNS", "runs")


def _folder(variable: str, name: str) -> Path:
    """The folder that a variable names, which need not be there yet; UsageError if a file is in its way."""
    chosen = os.environ.get(variable)
    if not chosen:
        return repository_root() / name
    there = next(path for path in (Path(chosen), *Path(chosen).parents) if path.exists())
    if not there.is_dir():
        raise UsageError(f"{variable} must name a folder; got {chosen!r}, and {there} is a file")
    return Path(chosen)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a kill leaves either the old file or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(
        f".{path.name}.tmp"
    )  # one name, so that the next write clears what a kill left
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
