"""One transfer: from one address to one file, whole and checked, or not at all."""

import errno
import hashlib
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from attn.data.errors import (
    CutDownload,
    DiskFull,
    MissingExtra,
    NoConnection,
    NotServed,
    NotWritable,
    WrongDownload,
)
from attn.data.registry import StoredFile

_CHUNK_BYTES = 1 << 20
_TIMEOUT_SECONDS = (10, 60)  # to connect, and without a byte arriving
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}  # not every system has quotas


def transfer(form: StoredFile, url: str, target: Path) -> None:
    """Stream `url` to a temporary name beside `target`, check size and checksum, and rename it.

    Whatever happens, an interrupt included, no temporary file stays. Concurrent transfers to one target have
    to be kept apart by the caller.

    Raises:
        NoConnection, NotServed, CutDownload, WrongDownload: naming file, address, expected and found.
        DiskFull, NotWritable: if the folder of `target` cannot take the file.
        MissingExtra: if requests is not installed.
    """
    with _answer(form, url) as answer, disk_errors(target), _temporary(target) as part:
        announced = _announced_bytes(answer)
        _compare_size(form, url, announced, "announces")
        _refuse_full_disk(target, announced or form.size or 0)
        algorithm, expected = form.checksum or ("sha256", None)
        digest = hashlib.new(algorithm, usedforsecurity=False)
        with _create(part) as stream:
            for chunk in _chunks(answer, form, url, announced):
                stream.write(chunk)
                digest.update(chunk)
            stream.flush()
            os.fsync(stream.fileno())
            _compare_size(form, url, stream.tell(), "delivered")
        if expected not in (None, digest.hexdigest()):
            raise WrongDownload(
                f"{url} delivered {algorithm} {digest.hexdigest()}, registered for {form.path} is {expected}"
            )
        os.replace(part, target)


def need(package: str) -> ModuleType:
    """Import a package that only some functions need.

    Raises:
        MissingExtra: naming the extra to install.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise MissingExtra(
            f"looking in the cache and downloading need the package {package}, which is not installed: "
            f"run `pip install {package}`, or install the extra `repro`"
        ) from error


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the operating system says about writing to `path` into one sentence.

    Raises:
        DiskFull, NotWritable: naming the folder and the next step.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull(_full(path, f"disk full while writing {path.name}")) from error
        raise NotWritable(
            f"cannot write {error.filename or path} ({error.strerror or error}): "
            f"set ATTN_CACHE to a folder that can be written to"
        ) from error


def _full(path: Path, what: str) -> str:
    return f"{what} in {path.parent}: free some room, or set ATTN_CACHE to a folder on a larger disk"


@contextmanager
def _answer(form: StoredFile, url: str) -> Iterator[Any]:
    requests = need("requests")
    # Packed on the way, a body would have neither the registered size nor the checksum.
    headers = {"Accept-Encoding": "identity"}
    try:
        answer = requests.get(url, stream=True, timeout=_TIMEOUT_SECONDS, headers=headers)
    except requests.RequestException as error:
        raise NoConnection(f"no connection to {url} for {form.path} ({_reason(error)})") from error
    with answer:
        if answer.status_code != 200:
            raise NotServed(f"{url} answers {answer.status_code} {answer.reason} in place of {form.path}")
        if form.checksum is None and answer.headers.get("Content-Type", "").startswith("text/html"):
            # Without a checksum only this tells a login or "moved" page from the file.
            raise NotServed(f"{url} answers with a web page in place of {form.path}")
        yield answer


def _reason(error: BaseException) -> str:
    """The innermost cause: the outer ones only wrap it in addresses of objects."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _announced_bytes(answer: Any) -> int | None:
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _compare_size(form: StoredFile, url: str, size: int | None, verb: str) -> None:
    if size is None or form.size is None or size == form.size:
        return
    kind = CutDownload if size < form.size else WrongDownload
    raise kind(f"{url} {verb} {size} bytes where {form.size} are registered for {form.path}")


def _refuse_full_disk(target: Path, needed: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise DiskFull(_full(target, f"{target.name} needs {needed} bytes where {free} are free"))


@contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    target.parent.mkdir(parents=True, exist_ok=True)
    for leftover in target.parent.glob(f".{escape(target.name)}.*.part"):  # of a process that was killed
        leftover.unlink(missing_ok=True)
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def _create(part: Path) -> BinaryIO:
    return open(part, "xb")


def _chunks(answer: Any, form: StoredFile, url: str, announced: int | None) -> Iterator[bytes]:
    from tqdm import tqdm
    from urllib3.exceptions import HTTPError, ReadTimeoutError

    look = {"unit": "B", "unit_scale": True, "leave": False, "disable": not sys.stderr.isatty()}
    with tqdm(total=announced, desc=form.path, **look) as progress:
        received = 0
        try:
            # The raw stream, for requests would unpack a .gz that a server labels as merely encoded.
            for chunk in answer.raw.stream(_CHUNK_BYTES, decode_content=False):
                received += len(chunk)
                progress.update(len(chunk))
                yield chunk
        except ReadTimeoutError as error:
            raise NoConnection(f"{url} fell silent after {received} bytes of {form.path}") from error
        except HTTPError as error:
            raise _cut(form, url, received, announced) from error
    if announced is not None and received < announced:
        raise _cut(form, url, received, announced)


def _cut(form: StoredFile, url: str, received: int, announced: int | None) -> CutDownload:
    of = f" of {announced}" if announced is not None else ""
    return CutDownload(f"{url} broke off after {received}{of} bytes of {form.path}")
