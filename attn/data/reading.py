"""Reading a corpus, straight out of packed files and archives: as bytes, lines, members or splits."""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from attn.data import python_source, registry
from attn.data.archives import iter_members, open_packed, reading
from attn.data.download import locate
from attn.data.errors import WrongMembers
from attn.data.registry import Corpus


def open_bytes(corpus: str | Corpus, file_id: str, *, download: bool = True) -> io.BufferedReader:
    """Open a text for reading its bytes, unpacked on the way.

    Args:
        corpus: id or `Corpus`.
        file_id: a file of that corpus, as "train.en"; one text, not many members.
        download: False to look in `$ATTN_DATA` and in the cache only.

    Raises:
        DataError: as `attn.data.download.locate`.
        WrongMembers: if the file holds several texts.
        UnreadableFile, UnsafeArchive: if it is damaged or not to be trusted, here or while it is read.
    """
    corpus = registry.get(corpus)
    file = corpus.file(file_id)
    if corpus.built_in or (file.member and "*" in file.member):
        raise WrongMembers(f"{file_id!r} of corpus {corpus.id!r} is many texts: read it with `members`")
    path = locate(corpus, file_id, download=download)
    return io.BufferedReader(_Unpacked(path, file.member), buffer_size=1 << 16)


def open_text(corpus: str | Corpus, file_id: str, *, download: bool = True) -> io.TextIOWrapper:
    """Open a text for reading it line by line, as `open_bytes`.

    Only "\\n" ends a line: other separators inside a line would break the alignment of parallel texts.
    """
    encoding = registry.get(corpus).file(file_id).encoding
    return io.TextIOWrapper(open_bytes(corpus, file_id, download=download), encoding=encoding, newline="\n")


def members(corpus: str | Corpus, file_id: str, *, download: bool = True) -> Iterator[tuple[str, bytes]]:
    """Name and content of each text of a file, in the order of their names; of one text, that one.

    Raises:
        DataError: as `open_text`.
    """
    corpus = registry.get(corpus)
    file = corpus.file(file_id)
    if corpus.built_in:
        yield from python_source.members()
        return
    path = locate(corpus, file_id, download=download)
    with reading(path):
        if file.member:
            texts = {name: stream.read() for name, stream in iter_members(path, file.member)}
        else:
            with open_packed(path) as stream:
                texts = {file.forms[0].path: stream.read()}
    yield from sorted(texts.items())


def read_bytes(corpus: str | Corpus, file_id: str, *, download: bool = True) -> bytes:
    """The whole text of a file, members joined in the order of `members`.

    Raises:
        DataError: as `open_text`.
    """
    return b"".join(content for _, content in members(corpus, file_id, download=download))


def read_split(
    corpus: str | Corpus, split: str, file_ids: Iterable[str] | None = None, *, download: bool = True
) -> dict[str, bytes]:
    """The part of each file that belongs to a split, by file id.

    Args:
        corpus: id or `Corpus`.
        split: name of a registered split, as "train".
        file_ids: those of the split's files that are wanted, as `["train.en", "train.de"]`; default: all.
        download: False to look in `$ATTN_DATA` and in the cache only.

    Raises:
        UnknownSplit: listing the valid names.
        DataError: as `open_text`.
    """
    corpus = registry.get(corpus)
    part = corpus.split(split)
    wanted = part.files if file_ids is None else tuple(file_ids)
    return {file_id: part.cut(read_bytes(corpus, file_id, download=download)) for file_id in wanted}


class _Unpacked(io.RawIOBase):
    """One text of a packed file or archive; damage met while reading is told in one sentence."""

    def __init__(self, path: Path, member: str | None) -> None:
        self._path = path
        # The iterator keeps the archive open, so it has to live as long as the stream.
        self._members = iter_members(path, member) if member else None
        with reading(path):
            self._stream: BinaryIO = next(self._members)[1] if self._members else open_packed(path)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        with reading(self._path):
            chunk = self._stream.read(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        if not self.closed and hasattr(self, "_stream"):
            self._stream.close()
            if self._members:
                self._members.close()
        super().close()
