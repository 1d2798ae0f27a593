"""Finding a corpus: in `$ATTN_DATA`, then in the user's cache, then by download.

A file is never replaced silently: what is found has to have the registered size and checksum, and so has what
is downloaded before it gets its name. Every function takes a corpus as its registered id or as a `Corpus`.
"""

import functools
import hashlib
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from attn.data import python_source, registry
from attn.data.archives import reading
from attn.data.errors import DataError, DataFolderMissing, DownloadError, FileMissing, WrongChecksum
from attn.data.registry import Corpus, CorpusFile, StoredFile
from attn.data.transfer import disk_errors, need, transfer

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CorpusReport:
    """What `describe` tells of a corpus.

    Args:
        id, title, licence, stand_in_for: as registered.
        size: bytes of all files of known size.
        n_unknown: files of unknown size.
        n_files: files as stored; 0 for built-in text.
        found: how many of them are in "ATTN_DATA" and in "cache".
    """

    id: str
    title: str
    licence: str
    stand_in_for: str
    size: int
    n_unknown: int
    n_files: int
    found: dict[str, int]

    @property
    def size_text(self) -> str:
        """As "3.9 MiB"; "over 2.1 GiB" if some size is not known; "varies" for built-in text."""
        if not self.n_files:
            return "varies"
        return ("over " if self.n_unknown else "") + human_bytes(self.size)

    @property
    def where(self) -> str:
        """As "ATTN_DATA", "absent", "built in", or "ATTN_DATA 2 of 5, cache 1 of 5" (files)."""
        if not self.n_files:
            return "built in"
        if self.n_files in self.found.values():
            return next(iter(self.found))
        parts = [f"{place} {count} of {self.n_files}" for place, count in self.found.items()]
        return ", ".join(parts) or "absent"


@dataclass(frozen=True)
class FileReport:
    """What `verify` found of one stored file.

    Args:
        path: as registered.
        status: "ok", "unchecked" (no checksum is registered), "absent" or "wrong".
        where: "ATTN_DATA", "cache", "built in" or "absent".
        sha256: of the file as it is; None unless it is ok or unchecked.
        message: one sentence if there is something to do; else "".
    """

    path: str
    status: str
    where: str
    sha256: str | None = None
    message: str = ""


@dataclass(frozen=True)
class _Found:
    path: Path
    form: StoredFile
    place: str


def data_folder() -> Path | None:
    """The folder that `$ATTN_DATA` names, or None if it is not set.

    Raises:
        DataFolderMissing: if it is set to something that is not a folder.
    """
    value = os.environ.get("ATTN_DATA")
    if not value:
        return None
    path = Path(value).expanduser()
    if not path.is_dir():
        raise DataFolderMissing(f"ATTN_DATA is set to {value!r}, which is not a folder: correct or unset it")
    return path


def cache_folder() -> Path:
    """Where downloads go: `$ATTN_CACHE`, else the user's cache folder on this system.

    Raises:
        MissingExtra: if `$ATTN_CACHE` is not set and platformdirs is not installed.
    """
    value = os.environ.get("ATTN_CACHE")
    return Path(value).expanduser() if value else need("platformdirs").user_cache_path("attn") / "data"


def locate(corpus: str | Corpus, file_id: str, *, download: bool = True) -> Path:
    """The path of a file that has the registered checksum; downloads it if it has to and may.

    Args:
        corpus: id or `Corpus`.
        file_id: a file of that corpus, as "train.en".
        download: False to look in `$ATTN_DATA` and in the cache only.

    Returns:
        The file as stored, be it packed or an archive (`attn.data.reading` opens it); for "python-stdlib"
        the folder of the standard library.

    Raises:
        UnknownCorpus, UnknownFile: listing the valid ids.
        FileMissing: if it is nowhere and may not or cannot be downloaded.
        WrongChecksum: if what is there is another file.
        NoConnection, NotServed, CutDownload, WrongDownload: if the download fails; DownloadError if several
            addresses fail in different ways.
        DiskFull, NotWritable: if the cache cannot take it.
    """
    corpus = registry.get(corpus)
    file = corpus.file(file_id)
    return python_source.folder() if corpus.built_in else _obtain(corpus, file, download).path


def fetch(corpus: str | Corpus, file_ids: Iterable[str] | None = None) -> list[Path]:
    """Make sure that files of a corpus (default: all) are here; returns their distinct paths.

    Raises:
        FileMissing: for the first file that no address serves, after all others have been fetched.
        DataError: otherwise as `locate`, for the first file that cannot be had; those before it stay.
    """
    corpus = registry.get(corpus)
    paths, missing = [], []
    for file_id in _ids(corpus, file_ids):
        try:
            paths.append(locate(corpus, file_id))
        except FileMissing as error:
            missing.append(error)
    if missing:
        raise missing[0]
    return list(dict.fromkeys(paths))


def checksums(
    corpus: str | Corpus, file_ids: Iterable[str] | None = None, *, download: bool = True
) -> dict[str, str]:
    """The sha256 of files (default: all) by their registered path, for the record of a run that uses them.

    Raises:
        DataError: as `locate`.
    """
    corpus = registry.get(corpus)
    if corpus.built_in:
        return {python_source.name(): python_source.sha256()}
    found = [_obtain(corpus, corpus.file(file_id), download) for file_id in _ids(corpus, file_ids)]
    return {item.form.path: _digest(item.path, "sha256") for item in found}


def verify(corpus: str | Corpus) -> list[FileReport]:
    """Compare every file of a corpus that is here with its registered size and checksum, reading it afresh.

    Raises:
        UnknownCorpus: listing the valid ids. What is wrong with a file is in its report.
    """
    corpus = registry.get(corpus)
    if corpus.built_in:
        name, sha256 = python_source.name(), python_source.sha256()
        return [FileReport(name, "unchecked", "built in", sha256, "the text varies by Python version")]
    _remembered_digest.cache_clear()
    return [_report(corpus, file) for file in _stored(corpus)]


def describe(corpus: str | Corpus | None = None) -> list[CorpusReport]:
    """Licence, size and whereabouts of one corpus, or of all; looks for files and reads none.

    Raises:
        UnknownCorpus: listing the valid ids.
    """
    chosen = registry.corpora().values() if corpus is None else [registry.get(corpus)]
    return [_describe(corpus) for corpus in chosen]


def human_bytes(size: float) -> str:
    """Bytes for people, as "60.5 MiB"."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


# --- looking up ---------------------------------------------------------------------------------------------


def _ids(corpus: Corpus, file_ids: Iterable[str] | None) -> list[str]:
    return [file.id for file in corpus.files] if file_ids is None else list(file_ids)


def _stored(corpus: Corpus) -> list[CorpusFile]:
    """One file for each path: an archive may hold several texts."""
    return list({file.forms[0].path: file for file in corpus.files if file.forms}.values())


def _obtain(corpus: Corpus, file: CorpusFile, download: bool) -> _Found:
    found = _find(file)
    if found is None:
        if not download:
            raise FileMissing(f"{_nowhere(file)} and downloading is off: {_how_to_get(corpus, file)}")
        return _fetch(corpus, file)
    _check(found, corpus)
    return found


def _find(file: CorpusFile) -> _Found | None:
    folder = data_folder()
    found = _find_in(folder, file, "ATTN_DATA") if folder else None
    return found or _find_in(cache_folder(), file, "cache")


def _find_in(root: Path, file: CorpusFile, place: str) -> _Found | None:
    for form in file.forms:
        if (root / form.path).is_file():
            return _Found(root / form.path, form, place)
    return None


def _check(found: _Found, corpus: Corpus) -> None:
    """Raise WrongChecksum unless size and checksum are the registered ones."""
    form, path = found.form, found.path
    # What lies in the cache is ours to fetch again; what lies in $ATTN_DATA the user has put there.
    in_cache = found.place == "cache"
    next_step = f"delete it and run `attn data fetch {corpus.id}`" if in_cache else "replace or remove it"
    with reading(path):
        size = path.stat().st_size
    if form.size not in (None, size):
        raise WrongChecksum(f"{path} has {size} bytes where {form.size} are registered: {next_step}")
    if form.checksum:
        algorithm, expected = form.checksum
        actual = _digest(path, algorithm)
        if actual != expected:
            raise WrongChecksum(f"{path} has {algorithm} {actual}, registered is {expected}: {next_step}")


def _digest(path: Path, algorithm: str) -> str:
    with reading(path):
        info = path.stat()
        # Remembered by size and time too: read once a process, and again when it has changed.
        return _remembered_digest(path, algorithm, info.st_size, info.st_mtime_ns)


@functools.cache
def _remembered_digest(path: Path, algorithm: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def _describe(corpus: Corpus) -> CorpusReport:
    files = _stored(corpus)
    sizes = [file.forms[0].size for file in files]
    places = [found.place for file in files if (found := _find(file))]
    return CorpusReport(
        id=corpus.id,
        title=corpus.title,
        licence=corpus.licence,
        stand_in_for=corpus.stand_in_for,
        size=sum(size for size in sizes if size is not None),
        n_unknown=sizes.count(None),
        n_files=len(files),
        found={place: places.count(place) for place in dict.fromkeys(places)},
    )


def _report(corpus: Corpus, file: CorpusFile) -> FileReport:
    found = _find(file)
    if found is None:
        return FileReport(file.forms[0].path, "absent", "absent", message=_how_to_get(corpus, file))
    path = found.form.path
    try:
        _check(found, corpus)
        sha256 = _digest(found.path, "sha256")
    except DataError as error:
        return FileReport(path, "wrong", found.place, message=str(error))
    if found.form.checksum:
        return FileReport(path, "ok", found.place, sha256)
    return FileReport(path, "unchecked", found.place, sha256, "no checksum is registered for this file")


def _nowhere(file: CorpusFile) -> str:
    folder = data_folder() or "not set"
    return f"{file.forms[0].path} is neither in ATTN_DATA ({folder}) nor in the cache ({cache_folder()})"


def _how_to_get(corpus: Corpus, file: CorpusFile) -> str:
    put = f"put it below the folder that ATTN_DATA names (its home: {corpus.home})"
    return f"run `attn data fetch {corpus.id}`, or {put}" if any(form.urls for form in file.forms) else put


# --- downloading --------------------------------------------------------------------------------------------


def _fetch(corpus: Corpus, file: CorpusFile) -> _Found:
    if not any(form.urls for form in file.forms):
        raise FileMissing(f"{_nowhere(file)} and no single address serves it: {_how_to_get(corpus, file)}")
    root = cache_folder()
    with _locked(root, file.forms[0].path):
        found = _find_in(root, file, "cache")  # another process may have fetched it while this one waited
        if found:
            _check(found, corpus)
            return found
        return _from_first_good_address(corpus, file, root)


def _from_first_good_address(corpus: Corpus, file: CorpusFile, root: Path) -> _Found:
    failures: list[DownloadError] = []
    sources = [(form, url) for form in file.forms for url in form.urls]
    for form, url in sources:
        if failures:
            _log.warning("%s: trying the next address", failures[-1])
        try:
            transfer(form, url, root / form.path)
            return _Found(root / form.path, form, "cache")
        except DownloadError as error:
            failures.append(error)
    kinds = {type(failure) for failure in failures}
    kind = kinds.pop() if len(kinds) == 1 else DownloadError
    put = f"put {file.forms[0].path} below the folder that ATTN_DATA names (its home: {corpus.home})"
    raise kind(f"{'; '.join(map(str, failures))}: try again later, or {put}") from failures[-1]


@contextmanager
def _locked(root: Path, path: str) -> Iterator[None]:
    """Hold the lock of one file of the cache, so that a second process waits and then reuses the file."""
    filelock = need("filelock")
    lock_path = root / ".locks" / (path.replace("/", "--") + ".lock")
    with disk_errors(lock_path):
        lock_path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(lock_path)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            _log.warning("another process is fetching %s: waiting for it", path)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()
