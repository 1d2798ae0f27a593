"""Reading packed files and archives as streams: nothing is ever unpacked onto the disk."""

import bz2
import fnmatch
import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

from attn.data.errors import UnreadableFile, UnsafeArchive, WrongMembers

_UNPACK = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_DAMAGE = (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError)


def open_packed(path: Path) -> BinaryIO:
    """Open a file for reading bytes; .gz, .bz2 and .xz are unpacked on the way."""
    return _UNPACK.get(path.suffix, open)(path, "rb")


def iter_members(path: Path, pattern: str) -> Iterator[tuple[str, BinaryIO]]:
    """Open the members of an archive one after the other.

    Args:
        path: a zip or tar file, the latter plain or packed.
        pattern: name of a member, or a pattern in which `*` also stands for slashes.

    Returns:
        An iterator over (name, stream) in the archive's order; a stream is good until the next one is asked
        for. A member that is itself packed (.gz and so on) is unpacked on the way.

    Raises:
        UnsafeArchive: if a member on the way has an absolute name, a `..` in it, or is a link.
        UnreadableFile: if the archive cannot be read.
        WrongMembers: if nothing matches.
    """
    found = False
    with reading(path):
        for name, stream in (_zip_members if zipfile.is_zipfile(path) else _tar_members)(path, pattern):
            found = True
            yield name, _UNPACK.get(PurePosixPath(name).suffix, lambda raw, mode: raw)(stream, "rb")
            if name == pattern:  # an exact name needs no look at the rest of a large archive
                return
    if not found:
        raise WrongMembers(f"{path} holds no member {pattern!r}: it is another version; replace it")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a damaged or forbidden file makes the readers raise into one sentence.

    Raises:
        UnreadableFile: naming the file, the reason and the next step.
    """
    try:
        yield
    except _DAMAGE as error:
        # The unpackers raise OSError too, but without an errno; with one, the disk or its permissions speak.
        if getattr(error, "errno", None):
            next_step = "check the disk and the permissions"
            raise UnreadableFile(f"{path} cannot be read ({error.strerror}): {next_step}") from error
        reason = str(error) or type(error).__name__
        raise UnreadableFile(f"{path} cannot be read ({reason}): delete it and fetch it again") from error


def _zip_members(path: Path, pattern: str) -> Iterator[tuple[str, BinaryIO]]:
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        for info in infos:
            _refuse_unsafe(path, info.filename, stat.S_ISLNK(info.external_attr >> 16))
        for info in infos:
            if not info.is_dir() and fnmatch.fnmatchcase(info.filename, pattern):
                with archive.open(info) as stream:
                    yield info.filename, stream


def _tar_members(path: Path, pattern: str) -> Iterator[tuple[str, BinaryIO]]:
    # Read as a stream: seeking in a packed tar would unpack it from its start again.
    with tarfile.open(path, "r|*") as archive:
        for info in archive:
            _refuse_unsafe(path, info.name, info.issym() or info.islnk())
            if info.isfile() and fnmatch.fnmatchcase(info.name, pattern):
                yield info.name, archive.extractfile(info)


def _refuse_unsafe(path: Path, name: str, is_link: bool) -> None:
    inner = PureWindowsPath(name)  # knows both kinds of slash, and drives
    if is_link or inner.anchor or ".." in inner.parts:
        kind = "a link" if is_link else "a name that leads outside of the archive"
        raise UnsafeArchive(f"{path} holds the member {name!r}, {kind}: it is not to be trusted, delete it")
