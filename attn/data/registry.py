"""The registry: every corpus once, with licence, addresses, checksums and splits.

The facts stand in `corpora.toml`; this module turns them into frozen dataclasses and refuses what is
malformed. It touches neither network nor data files.
"""

import functools
import hashlib
import io
import re
import tomllib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import PurePosixPath
from typing import Any

from attn.data.errors import DataError, RegistryError, UnknownCorpus, UnknownFile, UnknownSplit


@dataclass(frozen=True)
class StoredFile:
    """A file as it lies on a disk or at an address.

    Args:
        path: place below `$ATTN_DATA` and below the cache, with forward slashes.
        size: bytes, or None if not known.
        sha256: checksum in hexadecimal, or None if not known.
        md5: checksum, only where a sha256 is not published.
        urls: addresses that serve exactly these bytes, tried in order.
    """

    path: str
    size: int | None
    sha256: str | None
    md5: str | None = None
    urls: tuple[str, ...] = ()

    @property
    def checksum(self) -> tuple[str, str] | None:
        """The strongest checksum known as (algorithm, hexadecimal), or None."""
        if self.sha256:
            return "sha256", self.sha256
        return ("md5", self.md5) if self.md5 else None


@dataclass(frozen=True)
class CorpusFile:
    """One text (or set of images) of a corpus.

    Args:
        id: name within its corpus, as "train.en".
        forms: ways in which it may be stored, first the one that `$ATTN_DATA` holds.
        member: name in the archive, or a pattern with `*` for several members; None if not an archive.
        encoding: for reading it as text.
        columns: languages of the tab-separated columns of a text of pairs, as ("en", "de"); else empty.
    """

    id: str
    forms: tuple[StoredFile, ...]
    member: str | None = None
    encoding: str = "utf-8"
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Split:
    """A part of a corpus: whole files, or the same range of each.

    Args:
        name: as "train".
        files: ids of the files it is made of.
        start, stop: range in bytes (int) or as share of the bytes (float); None for whole files.
        by_first_column: the range (float) is of `place_of` the first column of each line.
    """

    name: str
    files: tuple[str, ...]
    start: int | float | None = None
    stop: int | float | None = None
    by_first_column: bool = False

    def cut(self, text: bytes) -> bytes:
        """The part of `text` that belongs to this split."""
        if self.start is None or self.stop is None:
            return text
        if self.by_first_column:
            return b"".join(line for line in io.BytesIO(text) if self._holds(line))
        if isinstance(self.stop, float):
            # Neighbouring splits round the same product, so they neither overlap nor leave a gap.
            return text[round(len(text) * self.start) : round(len(text) * self.stop)]
        return text[self.start : self.stop]

    def _holds(self, line: bytes) -> bool:
        first = line.partition(b"\t")[0].decode("utf-8", "replace")
        return self.start <= place_of(first) < self.stop


@dataclass(frozen=True)
class Corpus:
    """A registered corpus. `stand_in_for` names what it takes the place of; "" if it is a paper's own."""

    id: str
    title: str
    about: str
    licence: str
    home: str
    files: tuple[CorpusFile, ...]
    splits: tuple[Split, ...] = ()
    stand_in_for: str = ""
    splits_note: str = ""
    note: str = ""
    built_in: bool = False

    def file(self, file_id: str) -> CorpusFile:
        """The file of that id.

        Raises:
            UnknownFile: if there is none; the message lists the valid ids.
        """
        files = {file.id: file for file in self.files}
        return _pick(file_id, files, UnknownFile, f"corpus {self.id!r} has no file")

    def split(self, name: str) -> Split:
        """The split of that name.

        Raises:
            UnknownSplit: if there is none; the message lists the valid names.
        """
        splits = {split.name: split for split in self.splits}
        return _pick(name, splits, UnknownSplit, f"corpus {self.id!r} has no split")


def place_of(sentence: str) -> float:
    """A number in [0, 1) drawn by hash from a sentence's words, for splits that keep equal sentences together.

    Case, punctuation, spacing and compatible forms of a character do not count: "Go!" and "go." get one number.
    """
    words = re.findall(r"\w+", unicodedata.normalize("NFKC", sentence).casefold())
    digest = hashlib.sha256(" ".join(words).encode("utf-8", "replace")).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def _pick(key: str, table: Mapping[str, Any], error: type[DataError], complaint: str) -> Any:
    if key in table:
        return table[key]
    valid = ", ".join(sorted(table)) or "none"
    raise error(f"{complaint} {key!r}; valid: {valid}")


@functools.cache
def corpora() -> Mapping[str, Corpus]:
    """All registered corpora by id, in the order of the registry.

    Raises:
        RegistryError: if `corpora.toml` is malformed.
    """
    table = tomllib.loads(resources.files("attn.data").joinpath("corpora.toml").read_text(encoding="utf-8"))
    return parse(table)


def get(corpus: str | Corpus) -> Corpus:
    """The corpus of that id; a `Corpus` is passed through, so every function takes either.

    Raises:
        UnknownCorpus: if no corpus has that id; the message lists the valid ids.
    """
    if isinstance(corpus, Corpus):
        return corpus
    return _pick(corpus, corpora(), UnknownCorpus, "there is no corpus")


def parse(table: Mapping[str, Any]) -> dict[str, Corpus]:
    """Corpora from a table laid out as `corpora.toml`.

    Raises:
        RegistryError: naming the corpus, the key and what would be valid.
    """
    parsed = {corpus_id: _corpus(corpus_id, entry) for corpus_id, entry in table.items()}
    seen: dict[str, StoredFile] = {}
    for corpus in parsed.values():
        for form in (form for file in corpus.files for form in file.forms):
            # Two corpora may use one archive, but then they have to agree about it.
            if seen.setdefault(form.path, form) != form:
                raise RegistryError(
                    f"corpus {corpus.id!r}: {form.path} is registered twice with different facts"
                )
    return parsed


_CORPUS_KEYS = {"title", "about", "licence", "home"}
_CORPUS_OPTIONAL = {"stand_in_for", "splits_note", "note", "built_in", "files", "splits"}
_FILE_KEYS = {"path", "size", "sha256", "urls"}
_FILE_OPTIONAL = {"id", "texts", "member", "md5", "encoding", "unpacked", "columns"}


def _check_keys(where: str, entry: Mapping[str, Any], required: set[str], optional: set[str]) -> None:
    valid = ", ".join(sorted(required | optional))
    if missing := sorted(required - set(entry)):
        raise RegistryError(f"{where} lacks {', '.join(missing)}; valid keys: {valid}")
    if unknown := sorted(set(entry) - required - optional):
        raise RegistryError(f"{where} has unknown {', '.join(unknown)}; valid keys: {valid}")


def _corpus(corpus_id: str, entry: Mapping[str, Any]) -> Corpus:
    where = f"corpus {corpus_id!r}"
    _check_keys(where, entry, _CORPUS_KEYS, _CORPUS_OPTIONAL)
    facts = dict(entry)
    files = tuple(file for item in facts.pop("files", []) for file in _files(where, item))
    if facts.get("built_in"):
        files = (CorpusFile("source", ()),)
    ids = [file.id for file in files]
    if not ids or len(set(ids)) != len(ids):
        raise RegistryError(f"{where} needs files with distinct ids, not {ids}")
    splits = tuple(_split(where, name, item, set(ids)) for name, item in facts.pop("splits", {}).items())
    return Corpus(id=corpus_id, files=files, splits=splits, **facts)


def _files(where: str, entry: Mapping[str, Any]) -> list[CorpusFile]:
    _check_keys(f"{where}, file {entry.get('path', '?')}:", entry, _FILE_KEYS, _FILE_OPTIONAL)
    where = f"{where}, file {entry['path']}"
    if ("id" in entry) == ("texts" in entry):
        raise RegistryError(f"{where} needs either id or texts")
    forms = [_stored(where, entry["path"], entry)]
    if "unpacked" in entry:
        _check_keys(f"{where}, unpacked:", entry["unpacked"], _FILE_KEYS - {"path"}, {"md5"})
        forms.append(_stored(where, str(PurePosixPath(entry["path"]).with_suffix("")), entry["unpacked"]))
    texts = entry.get("texts") or {entry["id"]: entry.get("member")}
    encoding, columns = entry.get("encoding", "utf-8"), tuple(entry.get("columns", ()))
    if columns and (len(set(columns)) < 2 or not all(isinstance(name, str) and name for name in columns)):
        raise RegistryError(f"{where}: columns {list(columns)} have to name at least two different languages")
    return [CorpusFile(file_id, tuple(forms), member, encoding, columns) for file_id, member in texts.items()]


def _stored(where: str, path: str, entry: Mapping[str, Any]) -> StoredFile:
    facts = {key: entry.get(key, "unknown") for key in ("size", "sha256", "md5")}
    facts = {key: None if value == "unknown" else value for key, value in facts.items()}
    parts = PurePosixPath(path).parts
    if not parts or PurePosixPath(path).is_absolute() or ".." in parts or "\\" in path:
        raise RegistryError(f"{where}: path {path!r} has to be relative, without '..' or backslash")
    if facts["size"] is not None and (type(facts["size"]) is not int or facts["size"] < 0):
        raise RegistryError(f"{where}: size {facts['size']!r} has to be a number of bytes or 'unknown'")
    for key, digits in (("sha256", 64), ("md5", 32)):
        if facts[key] is not None and not re.fullmatch(f"[0-9a-f]{{{digits}}}", str(facts[key])):
            raise RegistryError(f"{where}: {key} {facts[key]!r} has to be {digits} hex digits or 'unknown'")
    for url in entry["urls"]:
        if not re.match(r"https?://[^/]+/", url):
            raise RegistryError(f"{where}: address {url!r} has to start with http:// or https://")
    return StoredFile(path=path, urls=tuple(entry["urls"]), **facts)


def _split(where: str, name: str, entry: Mapping[str, Any], ids: set[str]) -> Split:
    where = f"{where}, split {name!r}"
    ranges = {"bytes", "share", "first_column_share"}
    _check_keys(where, entry, {"files"}, ranges)
    if len(ranges & set(entry)) > 1:
        raise RegistryError(f"{where} has several ranges; valid is one of {', '.join(sorted(ranges))}")
    unknown = sorted(set(entry["files"]) - ids)
    if unknown:
        raise RegistryError(f"{where} names {', '.join(unknown)}, which are no files of this corpus")
    bounds = next((entry[key] for key in ranges if key in entry), [None, None])
    kind = int if "bytes" in entry else float
    if bounds != [None, None] and not (
        len(bounds) == 2 and all(type(bound) is kind for bound in bounds) and 0 <= bounds[0] < bounds[1]
    ):
        raise RegistryError(f"{where} has range {bounds}, not two ascending numbers of type {kind.__name__}")
    return Split(name, tuple(entry["files"]), *bounds, by_first_column="first_column_share" in entry)
