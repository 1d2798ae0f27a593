"""A text that the user supplies: the paper's 140 GB of news articles are not public."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from attn.data.download import data_folder
from attn.data.errors import FileMissing
from attn.data.language_text import SUBWORDS, LanguageText, TextConfig, subwords
from attn.data.language_text import load as load_registered

OWN = "own-text"
_SPLITS = ("train", "valid", "test")


def load(config: TextConfig, *, download: bool = True) -> LanguageText:
    """The text of a config; the corpus "own-text" is read from $ATTN_DATA/own-text/{train,valid,test}.txt.

    Raises:
        ValueError: for an own text in other symbols than subwords, or shorter than asked for.
        FileMissing: where a file of it is missing.
        DataError: as `attn.data.language_text.load`.
    """
    return _own(config) if config.corpus == OWN else load_registered(config, download=download)


@cache
def _own(config: TextConfig) -> LanguageText:
    if config.representation != SUBWORDS:
        raise ValueError(f"representation must be {SUBWORDS!r} for {OWN}; got {config.representation!r}")
    contents = {split: _read(split, config.sizes[split]) for split in _SPLITS}
    lines = {split: _lines(content) for split, content in contents.items()}
    digests = {f"{OWN}/{split}": hashlib.sha256(content).hexdigest() for split, content in contents.items()}
    return subwords(lines, config.vocab_size, checksums=digests, title="a text of your own")


def words(config: TextConfig, text: LanguageText, split: str) -> str:
    """How much of which text a split holds, as a record's definitions say it."""
    size, n_tokens = config.sizes[split], len(text.splits[split])
    part = f"the {split} split of {text.title}"
    if size is not None:
        part = f"the first {size:,} bytes of {part}"
    if config.representation == SUBWORDS:
        left_out = "empty lines" if config.corpus == OWN else "empty lines and lines of markup alone"
        part += f", without {left_out}, with an end after every line"
    return f"the {n_tokens:,} tokens of {part}"


def _read(split: str, size: int | None) -> bytes:
    folder = data_folder()
    path = None if folder is None else folder / OWN / f"{split}.txt"
    if path is None or not Path(path).is_file():
        raise FileMissing(
            f"{OWN}/{split}.txt is not below $ATTN_DATA: put train.txt, valid.txt and test.txt there, UTF-8, a "
            "paragraph in each line"
        )
    content = path.read_bytes()
    if size is not None and size > len(content):
        raise ValueError(
            f"{split}_size must be at most {len(content):,}, the bytes of {OWN}/{split}.txt; got {size:,}"
        )
    return content[:size]


def _lines(content: bytes) -> list[str]:
    return [line for line in content.decode("utf-8", "replace").splitlines() if line.strip()]
