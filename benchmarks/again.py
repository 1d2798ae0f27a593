"""Measure anew what a stored result lacks or holds as disturbed, and put it in the place of what was there.

Each row is measured in a process of its own beside its rivals, so a row of another day says as much as one of the same
run, on the same device and the same version of torch. It keeps its own date and commit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SAME = ("device", "cpu", "cuda", "torch", "threads")


def read(path: Path | None, environment: Mapping[str, Any]) -> dict[str, Any]:
    """The stored result.

    Args:
        path: its file.
        environment: of today, as `attn.reproduction.environment.describe` gives it.

    Raises:
        SystemExit: without a file, or if it was made on another device or with another torch or number of threads.
    """
    if path is None or not path.is_file():
        raise SystemExit(f"--again needs --json with the file of an earlier result; got {path}")
    stored = json.loads(path.read_text(encoding="utf-8"))
    there = stored["environment"]
    if others := [
        f"{name} {there[name]}, now {environment[name]}" for name in SAME if there[name] != environment[name]
    ]:
        raise SystemExit(f"--again must run as {path} was made; it has {'; '.join(others)}")
    return stored


def wanted(stored: Mapping[str, Any], rows: Sequence[Any], heaps: Sequence[str]) -> dict[str, list[Any]]:
    """The rows to measure with each heap: those that the result lacks, disturbed ones, those with another rival."""
    sound = {(row["heap"], row["name"]): row["goal"] for row in stored["rows"] if not row["disturbed"]}
    return {
        heap: [
            row
            for row in rows
            if (heap, row.name) not in sound or _is_another(row.goal, sound[heap, row.name])
        ]
        for heap in heaps
    }


def _is_another(today: Any, stored: Mapping[str, Any] | None) -> bool:
    """Whether a figure was to be reached against another variant; none was stored where a package was missing."""
    return bool(today and stored and today.against != stored["against"])


def merged(stored: Mapping[str, Any], found: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The stored result with the rows that were found now, each with its date and commit, in the benchmark's order.

    Args:
        stored, found: results.
        names: of all rows of the benchmark; what it has no more is left out.
    """
    stamp = {"finished": found["finished"], "code": found["code"]}
    rows = {(row["heap"], row["name"]): row for row in stored["rows"]}
    rows |= {(row["heap"], row["name"]): row | stamp for row in found["rows"]}
    heaps = dict.fromkeys(heap for heap, _ in rows)
    kept = [rows[heap, name] for heap in heaps for name in names if (heap, name) in rows]
    return {**stored, "rows": kept}
