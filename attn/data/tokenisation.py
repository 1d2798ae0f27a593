"""Byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909) by the library sentencepiece.

The Transformer's vocabulary is shared by source and target (arXiv:1706.03762, Sec. 5.1): train a `Tokeniser` on
the lines of both sides of the training split, and on nothing else.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

from attn.data.archives import reading
from attn.data.download import cache_folder
from attn.data.errors import DataError, MissingExtra, UnreadableFile
from attn.data.transfer import disk_errors

# Ids of the special tokens in every vocabulary.
PAD, BOS, EOS, UNK = 0, 1, 2, 3
_FIRST_BYTE = 4  # then follow 256 tokens, one for each byte
LEAST_SIZE = _FIRST_BYTE + 256 + 1  # and at least one character

# sentencepiece writes a space as this character, so a true one has to go by its bytes.
_SPACE_MARK = "\u2581"
_SPACE_MARK_IDS = [_FIRST_BYTE + byte for byte in _SPACE_MARK.encode()]
_PROBE = " \ufb01  A\u030a\t\u4e2d<s>\u2581 "  # changes if a tokeniser normalises or lacks bytes
_CHUNK_LINES = 10_000

_SETTINGS = {
    "model_type": "bpe",
    "pad_id": PAD,
    "bos_id": BOS,
    "eos_id": EOS,
    "unk_id": UNK,
    "pad_piece": "<pad>",
    # The rarest characters (one in 10,000 in all) are left to the bytes, not given tokens of their own.
    "character_coverage": 0.9999,
    "byte_fallback": True,
    # Text comes back as it was: no normalisation, and every space counts.
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "add_dummy_prefix": False,
    "max_sentence_length": 1 << 24,  # longer lines would be left out silently
    "num_threads": 1,  # the number enters the file
}

_log = logging.getLogger(__name__)


class Tokeniser:
    """Text to token ids and back.

    Any text that UTF-8 can write comes back exactly: characters outside the vocabulary become byte tokens, so
    `UNK` never occurs in encoded text. Every word is a piece with its preceding space; a space before the first
    word is added on the way in and taken away on the way out. Ids 0 to 3 are `PAD`, `BOS`, `EOS` and `UNK`, 4 to
    259 the bytes, the rest merges and characters. Markers written out in a text, as "</s>", are plain text.

    Args:
        model: content of a file as `save` writes it, a sentencepiece model.

    Raises:
        ValueError: if it is no such model, or one that does not keep text as it is.
        MissingExtra: if sentencepiece is not installed.
    """

    def __init__(self, model: bytes) -> None:
        self._bytes = bytes(model)
        try:
            self._model = _sentencepiece().SentencePieceProcessor(model_proto=self._bytes)
        except RuntimeError as error:
            raise ValueError("model must hold a sentencepiece model; these bytes cannot be parsed") from error
        ids = [getattr(self._model, name)() for name in ("pad_id", "bos_id", "eos_id", "unk_id")]
        if ids != [PAD, BOS, EOS, UNK]:
            found = ", ".join(map(str, ids))
            raise ValueError(f"model must number <pad>, <s>, </s>, <unk> as 0, 1, 2, 3; this one has {found}")
        if self.vocab_size < LEAST_SIZE or self.decode(self.encode(_PROBE)) != _PROBE:
            raise ValueError("model must bring any text back as it is; this one changes some characters")

    @classmethod
    def train(cls, lines: Iterable[str], *, vocab_size: int, cache: bool = True) -> Tokeniser:
        """Learn the merges of `lines`; equal arguments and one version of sentencepiece give equal bytes.

        The work is kept in the user's cache under a hash of the lines, their order, the settings and the library's
        version; only a tokeniser that all of these fit is read from there. Processes that train
        together may call this at once: each writes a file of its own and renames it.

        Args:
            lines: training text, both sides of it for a joint vocabulary; nothing of any other split.
            vocab_size: number of tokens, special and byte tokens included.
            cache: False neither reads nor writes the cache.

        Raises:
            ValueError: if the text has no words or is not UTF-8, or `vocab_size` does not suit it: the message
                says what would.
            UnreadableFile: if the cached file is damaged.
            MissingExtra: if sentencepiece is not installed, or the cache is to be used and platformdirs is not.
        """
        if type(vocab_size) is not int or vocab_size < LEAST_SIZE:
            raise ValueError(
                f"vocab_size must be a whole number of at least {LEAST_SIZE} (4 special tokens, 256 bytes and a "
                f"character); got {vocab_size!r}"
            )
        lines = list(lines)
        if not cache:
            return cls(_train(lines, vocab_size))
        path = cache_folder() / "tokenisers" / f"bpe-{vocab_size}-{_key(lines, vocab_size)}.model"
        if path.is_file():
            found = cls.load(path)
            if found.vocab_size != vocab_size:
                raise UnreadableFile(
                    f"{path} has {found.vocab_size} tokens where {vocab_size} were trained: delete it"
                )
            return found
        tokeniser = cls(_train(lines, vocab_size))
        try:
            tokeniser.save(path)
        except DataError as error:  # what was asked for is there all the same
            _log.warning("the tokeniser is not kept for the next time: %s", error)
        return tokeniser

    @classmethod
    def load(cls, path: str | os.PathLike) -> Tokeniser:
        """The tokeniser that `save` wrote.

        Raises:
            UnreadableFile: if there is no such file, or it is damaged or no tokeniser of this kind.
        """
        path = Path(path)
        with reading(path):
            model = path.read_bytes()
        try:
            return cls(model)
        except ValueError as error:
            raise UnreadableFile(f"{path} is no tokeniser ({error}): delete it and train it again") from error

    def save(self, path: str | os.PathLike) -> None:
        """Write one file, under a temporary name first; `sha256` is its checksum.

        Raises:
            DiskFull, NotWritable: naming the file.
        """
        path = Path(path)
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                part.write_bytes(self._bytes)
                os.replace(part, path)
            finally:
                part.unlink(missing_ok=True)

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return self._model.vocab_size()

    @property
    def sha256(self) -> str:
        """Checksum of the file that `save` writes."""
        return hashlib.sha256(self._bytes).hexdigest()

    @property
    def checksums(self) -> dict[str, str]:
        """What a run's record says of it, beside the checksums of its data."""
        return {f"tokeniser/bpe-{self.vocab_size}": self.sha256}

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without `BOS` and `EOS`.

        Raises:
            ValueError: if the text holds half a surrogate pair, which UTF-8 cannot write.
        """
        return next(self.encode_all([text]))

    def encode_all(self, texts: Iterable[str]) -> Iterator[list[int]]:
        """Token ids of many texts, as `encode`, some thousand at a time.

        Raises:
            ValueError: as `encode`.
        """
        chunk: list[str] = []
        for text in texts:
            chunk.append(text)
            if len(chunk) == _CHUNK_LINES:
                yield from self._encode_chunk(chunk)
                chunk = []
        yield from self._encode_chunk(chunk)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids: up to the first `EOS`, without `PAD` and `BOS`.

        Byte tokens that form no character become U+FFFD, and `UNK` becomes " \u2047 "; a model may put out such.

        Raises:
            ValueError: if an id is outside the vocabulary.
        """
        text = self._model.decode(self._of_text(ids))
        return text[1:] if text.startswith(" ") else text

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """What each id stands for, as "\u2581Haus", "<pad>" or "<0xE2>", for pictures.

        Raises:
            ValueError: if an id is outside the vocabulary.
        """
        return [self._model.id_to_piece(index) for index in self._checked(ids)]

    def _encode_chunk(self, texts: list[str]) -> Iterator[list[int]]:
        for text in texts:
            _utf8(text)
        parts = [f" {text}".split(_SPACE_MARK) for text in texts]
        encoded = iter(self._model.encode([part for split in parts for part in split]))
        for split in parts:
            ids = list(next(encoded))
            for _ in split[1:]:
                ids += [*_SPACE_MARK_IDS, *next(encoded)]
            yield ids

    def _of_text(self, ids: Sequence[int]) -> list[int]:
        ids = self._checked(ids)
        end = ids.index(EOS) if EOS in ids else len(ids)
        return [index for index in ids[:end] if index not in (PAD, BOS)]

    def _checked(self, ids: Sequence[int]) -> list[int]:
        ids = [int(index) for index in ids]
        for index in ids:
            if not 0 <= index < self.vocab_size:
                raise ValueError(f"ids must be from 0 to {self.vocab_size - 1}; got {index}")
        return ids


def _sentencepiece() -> ModuleType:
    try:
        import sentencepiece
    except ImportError as error:
        raise MissingExtra(
            "byte-pair encoding needs the package sentencepiece, which is not installed: run `pip install "
            "sentencepiece`, or install the extra `repro`"
        ) from error
    return sentencepiece


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"text must be such that UTF-8 can write it; got {text!r}") from error


def _key(lines: Iterable[str], vocab_size: int) -> str:
    settings = [_sentencepiece().__version__, vocab_size, _SETTINGS]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for line in lines:
        content = _utf8(line)
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()[:32]


def _train(lines: Iterable[str], vocab_size: int) -> bytes:
    # The library leaves out lines with a tab, of which some corpora have a few.
    prepared = (b" " + _utf8(line).replace(b"\t", b" ") for line in lines if line.strip())
    model = io.BytesIO()
    try:
        _sentencepiece().SentencePieceTrainer.train(
            sentence_iterator=prepared, model_writer=model, vocab_size=vocab_size, minloglevel=2, **_SETTINGS
        )
    except RuntimeError as error:
        raise ValueError(_reason(str(error), vocab_size)) from error
    return model.getvalue()


def _reason(message: str, vocab_size: int) -> str:
    """One sentence for what the library says about training."""
    if limit := re.search(r"value <= (\d+)", message):
        return (
            f"vocab_size must be at most {limit[1]} for this text, which has no more merges; got {vocab_size}"
        )
    if limit := re.search(r"required_chars\. \d+ vs (\d+)", message):
        return (
            f"vocab_size must be at least {limit[1]} for this text, to hold its characters; got {vocab_size}"
        )
    if "sentences_.empty()" in message:
        return "lines must hold at least one word to learn from; got none"
    return f"lines and vocab_size={vocab_size} do not suit byte-pair encoding: {message}"
