"""A text that the user supplies, however long.

Its files are read line by line, and its tokens lie in a file of the user's cache that is mapped into memory, so that
neither has to fit there.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from attn.data.download import cache_folder, data_folder
from attn.data.errors import DataError, FileMissing
from attn.data.language_text import SUBWORDS, LanguageText, TextConfig
from attn.data.tokenisation import EOS, Tokeniser
from attn.data.transfer import disk_errors

OWN = "own-text"
LEARN_BYTES = 1 << 30  # of the training text that the encoding is learned on, which has to fit into memory
_SPLITS = ("train", "valid", "test")
_CHUNK = 1 << 24  # tokens hashed at a time


class UnsuitableText(DataError, ValueError):
    """A text of the user's own is too short, or holds nothing, for what is asked of it."""


@cache
def load(config: TextConfig) -> LanguageText:
    """The text of $ATTN_DATA/own-text/{train,valid,test}.txt as subwords, each line that is not empty with an end.

    The encoding is learned on the first `LEARN_BYTES` of the training text. Tokens are kept in the user's cache under
    a hash of the text and of the encoding.

    Raises:
        ValueError: for other symbols than subwords.
        UnsuitableText: for a file that is shorter than asked for, has no words or is not UTF-8, or a text with too few
            different words, or too many different characters, for as many subwords.
        FileMissing: where a file is missing.
        DiskFull, NotWritable: if there is no room for the tokens.
    """
    if config.representation != SUBWORDS:
        raise ValueError(f"representation must be {SUBWORDS!r} for {OWN}; got {config.representation!r}")
    parts = {split: _Part(split, config.sizes[split]) for split in _SPLITS}
    try:
        tokeniser = Tokeniser.train(parts["train"].lines(LEARN_BYTES), vocab_size=config.vocab_size)
    except ValueError as error:
        raise UnsuitableText(f"{OWN}/train.txt does not suit its encoding: {error}") from error
    splits = {split: part.tokens(tokeniser) for split, part in parts.items()}
    files = {f"{OWN}/{split}": part.sha256 for split, part in parts.items()}
    digests = {f"subwords/{split}": _sha256(tokens) for split, tokens in splits.items()}
    return LanguageText(
        splits=splits, vocab_size=tokeniser.vocab_size, title="a text of your own", tokeniser=tokeniser,
        bytes_per_token={split: part.line_bytes / len(splits[split]) for split, part in parts.items()},
        checksums={**files, **tokeniser.checksums, **digests},
    )  # fmt: skip


class _Part:
    """The first `size` bytes of one split's file, or all of it; a character that they cut counts as unknown."""

    def __init__(self, split: str, size: int | None) -> None:
        folder = data_folder()
        path = None if folder is None else folder / OWN / f"{split}.txt"
        if path is None or not path.is_file():
            raise FileMissing(
                f"{OWN}/{split}.txt is not below $ATTN_DATA: put train.txt, valid.txt and test.txt there, UTF-8, a "
                "paragraph in each line"
            )
        there = path.stat().st_size
        if size is not None and size > there:
            raise UnsuitableText(
                f"{split}_size must be at most {there:,}, the bytes of {OWN}/{split}.txt; got {size:,}"
            )
        self.path, self.there, self.size = path, there, there if size is None else size
        digest, self.line_bytes = hashlib.sha256(), 0
        for raw, text in self._pieces(self.size):
            digest.update(raw)
            self.line_bytes += sum(len(line.encode()) + 1 for line in _lines(text))
        if not self.line_bytes:
            raise UnsuitableText(
                f"{OWN}/{split}.txt must hold a line of text; got {self.size:,} bytes without one"
            )
        self.sha256 = digest.hexdigest()

    def lines(self, most_bytes: int | None = None) -> Iterator[str]:
        """Its lines that are not empty; only those of its first bytes, if a number is given."""
        size = self.size if most_bytes is None else min(self.size, most_bytes)
        return (line for _, text in self._pieces(size) for line in _lines(text))

    def tokens(self, tokeniser: Tokeniser) -> Tensor:
        """Its token ids, int32 [N], mapped from a file that is written if it is not there yet."""
        key = hashlib.sha256(f"{self.sha256} {tokeniser.sha256}".encode()).hexdigest()
        path = cache_folder() / OWN / f"{key}.int32"
        if not path.is_file():
            self._write(path, tokeniser)
        size = path.stat().st_size // np.dtype(np.int32).itemsize
        return torch.from_file(str(path), shared=False, size=size, dtype=torch.int32)

    def _write(self, path: Path, tokeniser: Tokeniser) -> None:
        """All tokens to `path`, under a temporary name first, so that a file that is there is whole."""
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with part.open("wb") as file:
                    for line in tokeniser.encode_all(self.lines()):
                        file.write(np.array([*line, EOS], dtype=np.int32).tobytes())
                os.replace(part, path)
            finally:
                part.unlink(missing_ok=True)

    def _pieces(self, size: int) -> Iterator[tuple[bytes, str]]:
        """The first bytes, cut after line feeds, and what they say; the last piece may end within a line."""
        with self.path.open("rb") as file:
            read = 0
            while read < size and (raw := file.readline(size - read)):
                yield raw, self._decoded(raw, read, is_cut=read + len(raw) == size < self.there)
                read += len(raw)

    def _decoded(self, raw: bytes, before: int, *, is_cut: bool) -> str:
        """A piece that so many bytes come before; a cut one may end within a character, which becomes U+FFFD."""
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            if is_cut and error.reason == "unexpected end of data":
                return raw.decode("utf-8", "replace")
            raise UnsuitableText(
                f"{OWN}/{self.path.name} must be UTF-8; byte {before + error.start + 1:,} is not: "
                f"0x{raw[error.start]:02x}, {error.reason}"
            ) from error


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def _sha256(tokens: Tensor) -> str:
    digest = hashlib.sha256()
    for part in tokens.split(_CHUNK):
        digest.update(part.numpy())
    return digest.hexdigest()
