"""Run records: one JSON file per experiment, profile and seed, and at most one npz artifact beside it.

results/<paper>/<experiment>/<profile>/seed<k>.json; merging two sets of records is merging two folders.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from attn.reproduction.errors import UsageError
from attn.reproduction.paths import write_atomically

SCHEMA_VERSION = 1
ARTIFACT_LIMIT = 1 << 20  # bytes of one artifact
ARTIFACTS_LIMIT = 20 << 20  # bytes of all artifacts together
SPEED = "speed"  # folder of the benchmarks' results, which are no records: see attn.reproduction.speed


class RecordError(UsageError):
    """A record that does not fit the schema, its place or its artifact."""


@dataclass(frozen=True)
class Record:
    """One validated record: `data` as in record.schema.json, `path` where it was read from."""

    path: Path
    data: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, str, str, int]:
        """Paper, experiment, profile, seed."""
        return tuple(self.data[name] for name in ("paper", "experiment", "profile", "seed"))

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.data["seed"]

    @property
    def history(self) -> list[dict[str, Any]]:
        """Thinned metric history."""
        return self.data["history"]

    def metric(self, name: str) -> float:
        """Value of a final metric; UsageError names the ones there are."""
        if name not in self.data["metrics"]:
            raise UsageError(
                f"{self.path.name} holds no metric {name!r}; valid: {', '.join(self.data['metrics'])}"
            )
        return self.data["metrics"][name]["value"]

    def artifact(self) -> dict[str, np.ndarray]:
        """The arrays kept of the run; empty if none."""
        if self.data["artifact"] is None:
            return {}
        with np.load(self.path.with_name(self.data["artifact"]["file"]), allow_pickle=False) as arrays:
            return dict(arrays)


@dataclass(frozen=True)
class Skipped:
    """A file under results/ that is no valid record, and why."""

    path: Path
    reason: str


@cache
def _validator():
    from jsonschema import Draft202012Validator

    return Draft202012Validator(json.loads((Path(__file__).parent / "record.schema.json").read_text("utf-8")))


def check_record(data: Any) -> None:
    """Raise RecordError, naming place and fault, unless `data` fits the schema and every number is finite."""
    error = next(iter(_validator().iter_errors(data)), None)
    if error is not None:
        place = "/".join(map(str, error.absolute_path)) or "top level"
        raise RecordError(f"{place}: {error.message[:200]}")
    for place, number in _numbers(data):
        if not math.isfinite(number):
            raise RecordError(f"{place}: {number} is not finite")


def _numbers(data: Any, place: str = "") -> Iterator[tuple[str, float]]:
    """Every float in nested JSON values, with its place."""
    if isinstance(data, float):
        yield place, data
    elif isinstance(data, Mapping | list):
        for name, item in data.items() if isinstance(data, Mapping) else enumerate(data):
            yield from _numbers(item, f"{place}/{name}" if place else str(name))


def record_path(results: Path, paper: str, experiment: str, profile: str, seed: int) -> Path:
    """Where the record of a run belongs."""
    return results / paper / experiment / profile / f"seed{seed}.json"


def write_record(results: Path, data: dict[str, Any], artifact: Mapping[str, np.ndarray]) -> Record:
    """Validate and write a record, its artifact first, so that a kill leaves no record without its artifact.

    Raises:
        RecordError: if the data do not fit the schema or the artifact is over the limits.
    """
    path = record_path(results, data["paper"], data["experiment"], data["profile"], data["seed"])
    packed = pack_arrays(artifact) if artifact else None
    data = {**data, "artifact": None}
    if packed is not None:
        data["artifact"] = {
            "file": f"{path.stem}.npz",
            "sha256": hashlib.sha256(packed).hexdigest(),
            "bytes": len(packed),
        }
        _check_room(results, path, data["artifact"])
    check_record(data)
    _replace(path, dump(data), {path.with_suffix(".npz"): packed})
    return Record(path, data)


def _check_room(results: Path, record: Path, artifact: Mapping[str, Any] | None) -> None:
    """Refuse an artifact over the limits, of one and of all together."""
    if artifact is None:
        return
    size = artifact["bytes"]
    others = sum(p.stat().st_size for p in results.rglob("*.npz") if p != record.with_suffix(".npz"))
    if size > ARTIFACT_LIMIT or others + size > ARTIFACTS_LIMIT:
        raise RecordError(
            f"artifact of {size} bytes: one may hold {ARTIFACT_LIMIT} and all together {ARTIFACTS_LIMIT} "
            f"({others} are used)"
        )


def _replace(path: Path, content: bytes, companions: Mapping[Path, bytes | None]) -> None:
    """Put a record with its companions in the place of an older one; a kill leaves none rather than a mixed one."""
    path.unlink(missing_ok=True)
    for companion, its_content in companions.items():
        if its_content is None:
            companion.unlink(missing_ok=True)
        else:
            write_atomically(companion, its_content)
    write_atomically(path, content)


def dump(data: Mapping[str, Any]) -> bytes:
    """JSON as records are stored: readable, but one history entry a line."""
    history = data.get("history")
    if not history:
        return (json.dumps(data, indent=1, allow_nan=False) + "\n").encode()
    text = json.dumps({**data, "history": "@history"}, indent=1, allow_nan=False)
    lines = ",\n  ".join(json.dumps(entry, allow_nan=False) for entry in history)
    return (text.replace('"@history"', f"[\n  {lines}\n ]") + "\n").encode()


def pack_arrays(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Compressed npz as bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: np.asarray(array) for name, array in arrays.items()})
    return buffer.getvalue()


def read_record(path: Path, results: Path) -> Record:
    """Read one record and check schema, place and artifact.

    Raises:
        RecordError: naming what is wrong.
    """
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"not readable as JSON ({error})".replace(str(results), "results")) from error
    check_record(data)
    expected = record_path(results, data["paper"], data["experiment"], data["profile"], data["seed"])
    if path != expected:
        raise RecordError(f"belongs at {expected.relative_to(results).as_posix()}")
    if data["artifact"] is not None:
        artifact = path.with_name(data["artifact"]["file"])
        if artifact != path.with_suffix(".npz"):
            raise RecordError(f"its artifact must be {path.stem}.npz; it names {artifact.name}")
        if not artifact.is_file():
            raise RecordError(f"its artifact {artifact.name} is missing")
        content = artifact.read_bytes()
        if len(content) != data["artifact"]["bytes"]:
            raise RecordError(
                f"its artifact {artifact.name} has {len(content)} bytes, not the record's number"
            )
        if hashlib.sha256(content).hexdigest() != data["artifact"]["sha256"]:
            raise RecordError(f"its artifact {artifact.name} has another sha256 than the record says")
    return Record(path, data)


def load_records(results: Path) -> tuple[list[Record], list[Skipped]]:
    """All valid records in order of their path, and the files that were skipped with the reason."""
    records, skipped = [], []
    for path in sorted(results.rglob("*.json")):
        if path.name.endswith(".valid.json"):
            continue  # revalidations, see staleness
        if path.relative_to(results).parts[0] == SPEED:
            continue
        try:
            records.append(read_record(path, results))
        except RecordError as error:
            skipped.append(Skipped(path, str(error)))
    return records, skipped


def pack(results: Path, target: Path) -> int:
    """Pack every valid record with artifact and revalidation into one tar.gz; returns how many.

    Raises:
        RecordError: if there is none.
    """
    records, skipped = load_records(results)
    if not records:
        raise _no_record(results, skipped)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for record in records:
            for path in _files_of(record.path):
                archive.add(path, arcname=path.relative_to(results).as_posix(), filter=_anonymous)
    write_atomically(target, buffer.getvalue())
    return len(records)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without who packed it and when."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    return member


def _companions(path: Path) -> list[Path]:
    """Files that may stand beside a record: its artifact, and the note of a revalidation."""
    return [path.with_suffix(".npz"), path.with_suffix(".valid.json")]


def _files_of(path: Path) -> list[Path]:
    return [p for p in (path, *_companions(path)) if p.is_file()]


def merge(source: Path, results: Path, *, replace: bool = False) -> tuple[list[Path], list[str]]:
    """Take records from a packed file, or a folder of records, into `results`.

    Every record is validated first; one that differs from a record already there is kept out unless `replace`.

    Args:
        source: tar.gz made by `pack`, or a folder.
        results: where the records go.
        replace: whether a different record of the same run is replaced.

    Returns:
        Paths written, and one sentence for each record left out.

    Raises:
        RecordError: if `source` is neither, or holds no valid record.
    """
    import tempfile

    if source.is_dir():
        return _merge_folder(source, results, replace)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            with tarfile.open(source) as archive:
                _unpack(archive, scratch)
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            raise RecordError(
                f"{source.name} is neither a folder nor a file made by `attn results pack`: {str(error).splitlines()[0]}"
            ) from error
        return _merge_folder(Path(scratch), results, replace, source.name)


def _unpack(archive: tarfile.TarFile, folder: str) -> None:
    """Extract an archive that holds nothing but files and folders below its own; tarfile.TarError otherwise."""
    for member in archive.getmembers():
        path = PurePosixPath(member.name)
        if not (member.isfile() or member.isdir()) or path.is_absolute() or ".." in path.parts:
            raise tarfile.TarError(f"{member.name!r} is not a file below the archive's own folder")
    # the filter came with Python 3.11.4, and Python 3.12 warns where there is none
    archive.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))


def _no_record(place: Path | str, skipped: Sequence[Skipped]) -> RecordError:
    """The error for a place without a valid record; it tells the first of the files that may have been meant as one."""
    first = (
        f"; of {len(skipped)} JSON files the first, {skipped[0].path.name}: {skipped[0].reason}"
        if skipped
        else ""
    )
    return RecordError(f"{place} holds no valid record{first}")


def _merge_folder(
    source: Path, results: Path, replace: bool, name: str | None = None
) -> tuple[list[Path], list[str]]:
    records, skipped = load_records(source)
    if not records:
        raise _no_record(name or source, skipped)
    written, left_out = [], [f"{s.path.relative_to(source).as_posix()}: {s.reason}" for s in skipped]
    for record in records:
        target = record_path(results, *record.key)
        if target.exists() and target.read_bytes() == record.path.read_bytes():
            # the same record: take what its source knows more of it, and touch nothing else
            for path in _files_of(record.path)[1:]:
                write_atomically(target.with_name(path.name), path.read_bytes())
            written.append(target)
            continue
        if target.exists() and not replace:
            left_out.append(f"{target.relative_to(results).as_posix()}: another record of this run is there")
            continue
        try:
            _check_room(results, target, record.data["artifact"])
        except RecordError as error:
            left_out.append(f"{target.relative_to(results).as_posix()}: {error}")
            continue
        companions = {
            target.with_name(path.name): path.read_bytes() if path.is_file() else None
            for path in _companions(record.path)
        }
        _replace(target, record.path.read_bytes(), companions)
        written.append(target)
    return written, left_out


def to_csv(records: Iterable[Record]) -> str:
    """All results as one table: a line for each record and metric."""
    buffer = io.StringIO()
    columns = "paper experiment profile seed metric value unit definition steps seen seconds device torch commit".split()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    for record in records:
        run, environment = record.data["run"], record.data["environment"]
        common = dict(zip(("paper", "experiment", "profile", "seed"), record.key, strict=True))
        common |= {name: run[name] for name in ("steps", "seen", "seconds")}
        common |= {
            "device": environment["device"],
            "torch": environment["torch"],
            "commit": record.data["code"]["commit"],
        }
        for name, metric in record.data["metrics"].items():
            writer.writerow({**common, "metric": name, **metric})
    return buffer.getvalue()
