"""Text for language models: characters of a corpus, and the segments in which a model meets them.

A model that carries a state from segment to segment reads several places of a text at once, one in each row of a
batch, and goes on in each row where it stopped (Sukhbaatar et al. 2019, arXiv:1905.07799, following Transformer-XL).

Shapes: B rows of a batch, T positions of a segment, N tokens of a text.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from attn.data import reading, registry
from attn.data.download import checksums
from attn.data.episodic import check_count
from attn.data.registry import Corpus, Split
from attn.data.token_batch import TokenBatch

BYTES, LETTERS = "bytes", "27 characters"
REPRESENTATIONS = (BYTES, LETTERS)
SPLITS = ("train", "valid", "test")
SHARES = (0.9, 0.05, 0.05)  # of text8 and enwik8: 90M, 5M and 5M symbols


# --- Segments ----------------------------------------------------------------------------------------------


class TrainingSegments:
    """One segment after the other of a text, in B rows, again and again.

    The text is cut into B stretches of equal length, one for each row, and a rest of less than B tokens is left
    out. Every pass over them goes on block by block until no whole block is left. The first pass starts at the
    beginning, each later one at an offset drawn from 0 to `block` - 1, and with a new pass the model's state is to
    be dropped (`is_start`), as the adaptive-span paper's released code does it.

    A segment is a pure function of (tokens, sizes, seed, step), so the number of the step is all the state there is
    and a run can be resumed anywhere.

    Args:
        tokens: ids [N].
        batch_size: B.
        block: T, all of whose positions are scored.
        seed: of the offsets, at least 0.

    Raises:
        ValueError: for a size below 1, or a text of less than 2 `block` tokens a row.
    """

    def __init__(self, tokens: Tensor, *, batch_size: int, block: int, seed: int) -> None:
        check_count("block", block)
        check_count("seed", seed, least=0)
        self.rows = _rows(tokens, batch_size, least=2 * block)
        self.batch_size, self.block, self.seed = batch_size, block, seed
        self._offsets: list[int] = []
        self._ends: list[int] = []  # steps at the end of each pass

    @property
    def steps_per_pass(self) -> int:
        """Steps of a pass that starts at the beginning; others have as many or one less."""
        return self._n_blocks(0)

    def place(self, step: int) -> tuple[int, int]:
        """The pass, from 0, that holds update `step`, from 1, and the first position of its block in each row."""
        check_count("step", step)
        while not self._ends or self._ends[-1] < step:
            number = len(self._ends)
            offset = int(np.random.default_rng([self.seed, number]).integers(self.block)) if number else 0
            self._offsets.append(offset)
            self._ends.append((self._ends[-1] if self._ends else 0) + self._n_blocks(offset))
        number = bisect_right(self._ends, step - 1)
        before = self._ends[number - 1] if number else 0
        return number, self._offsets[number] + (step - 1 - before) * self.block

    def at(self, step: int, part: int = 0, n_parts: int = 1) -> TokenBatch:
        """The batch of update `step`, from 1, or one of equal parts of it: always the same rows of the text.

        Raises:
            ValueError: if there is no such step or part, or the parts cannot be equal.
        """
        check_count("n_parts", n_parts)
        if self.batch_size % n_parts or type(part) is not int or not 0 <= part < n_parts:
            raise ValueError(
                f"part must be below n_parts, which must divide batch_size={self.batch_size}; got part={part!r} and "
                f"n_parts={n_parts}"
            )
        number, start = self.place(step)
        is_start = start == self._offsets[number]
        return _segment(self.rows[part::n_parts], start, self.block, is_start)

    def _n_blocks(self, offset: int) -> int:
        return (self.rows.shape[1] - 1 - offset) // self.block  # the last token is a target only


def evaluation_segments(
    tokens: Tensor, *, batch_size: int, block: int, keep_remainder: bool = False
) -> Iterator[TokenBatch]:
    """A whole text in order, in B rows, for a model that carries its state along.

    The fewer rows, the fewer tokens lack what came before them. Left out are the first token of each row, which
    nothing predicts, a rest of less than B tokens, and what is shorter than a block at the end of the rows, as in
    the adaptive-span paper's released code (8 rows there).

    Args:
        tokens: ids [N].
        batch_size: B.
        block: T.
        keep_remainder: do not leave out the last positions: a shorter last segment.

    Raises:
        ValueError: for a size below 1, or a text too short to score anything.
    """
    check_count("block", block)
    rows = _rows(tokens, batch_size, least=2 if keep_remainder else block + 1)
    last = rows.shape[1] - 1
    for start in range(0, last if keep_remainder else last - block + 1, block):
        yield _segment(rows, start, min(block, last - start), is_start=start == 0)


def cut(tokens: Tensor, shares: Sequence[float] = SHARES) -> list[Tensor]:
    """A text in order of these shares, such as training, validation and test.

    Raises:
        ValueError: unless the shares are above 0 and sum to 1.
    """
    if not shares or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-9:
        raise ValueError(f"shares must be above 0 and sum to 1; got {tuple(shares)}")
    ends = [round(len(tokens) * sum(shares[:count])) for count in range(len(shares) + 1)]
    return [tokens[start:end] for start, end in zip(ends[:-1], ends[1:], strict=True)]


def _rows(tokens: Tensor, batch_size: int, least: int) -> Tensor:
    """The text as [B, N // B]."""
    check_count("batch_size", batch_size)
    if tokens.dim() != 1 or tokens.is_floating_point() or tokens.dtype == torch.bool:
        raise ValueError(
            f"tokens must be whole numbers [N]; got {tokens.dtype} of shape {list(tokens.shape)}"
        )
    if len(tokens) < batch_size * least:
        raise ValueError(
            f"tokens must be at least {batch_size * least}, {least} for each of {batch_size} rows; got {len(tokens)}: "
            f"lower batch_size or block, or take a longer text"
        )
    length = len(tokens) // batch_size
    return tokens[: batch_size * length].view(batch_size, length)


def _segment(rows: Tensor, start: int, length: int, is_start: bool) -> TokenBatch:
    read = rows[:, start : start + length + 1].long()
    tokens, targets = read[:, :-1], read[:, 1:]
    return TokenBatch(tokens, targets, torch.ones_like(tokens, dtype=torch.bool), is_start)


# --- Characters --------------------------------------------------------------------------------------------

_DIGITS = b"zero one two three four five six seven eight nine".split()
_ALPHABET = b" abcdefghijklmnopqrstuvwxyz"
_TO_LETTERS = bytes(byte if byte in _ALPHABET else _ALPHABET[0] for byte in bytes(range(256)).lower())

# How wikitext of 2006 becomes what a reader sees, in this order.
_WIKITEXT = [
    (re.compile(pattern, re.IGNORECASE if any_case else 0), replacement)
    for pattern, replacement, any_case in (
        (rb"&amp;", b"&", False),
        (rb"&lt;", b"<", False),
        (rb"&gt;", b">", False),
        (rb"<ref[^<]*</ref>", b"", False),  # footnotes
        (rb"<[^>]*>", b"", False),  # HTML tags, not what they hold
        (rb"\[http:[^] ]*", b"[", False),  # addresses, not the words that show
        (rb"\|thumb", b"", True),  # how images are set; captions stay
        (rb"\|left", b"", True),
        (rb"\|right", b"", True),
        (rb"\|\d+px", b"", True),
        (rb"\[\[image:[^\[\]]*\|", b"", True),
        (rb"\[\[category:([^|\]]*)[^]]*\]\]", rb"[[\1]]", True),  # categories by name
        (rb"\[\[[a-z\-]*:[^\]]*\]\]", b"", False),  # links to other languages
        (rb"\[\[[^|\]]*\|", b"[[", False),  # where links lead, not the words that show
        (rb"\{\{[^}]*\}\}", b"", False),  # templates and tables
        (rb"\{[^}]*\}", b"", False),
        (rb"[\[\]]", b"", False),
        (rb"&[^;]*;", b" ", False),  # other entities
    )
]
_XML_TAG = re.compile(rb"<.*>")
_REDIRECT = re.compile(rb"#redirect", re.IGNORECASE)
_EXTRACT_TAG = re.compile(rb"^</?doc\b.*>$", re.MULTILINE)


def to_letters(text: bytes) -> bytes:
    """Text as the letters a to z and single spaces, the 27 characters of text8.

    Capital letters become small ones, every digit its English word, and each run of anything else, letters beyond
    ASCII included, one space: the last rules of Matt Mahoney's filter (mattmahoney.net/dc/textdata.html). The
    result starts with a space and does not end with one; it is empty for a text without letters and digits.
    """
    text = b" " + text + b" "
    for digit, word in enumerate(_DIGITS):
        text = text.replace(b"%d" % digit, b" " + word + b" ")
    characters = np.frombuffer(text.translate(_TO_LETTERS), np.uint8)
    is_space = characters == _ALPHABET[0]
    is_kept = np.append(True, ~(is_space[1:] & is_space[:-1]))
    return characters[is_kept].tobytes()[:-1]


def wikipedia_letters(xml: bytes) -> bytes:
    """A dump of Wikipedia in XML as letters and spaces, by all rules of Mahoney's filter, which made text8.

    Only the text of articles stays, redirections left out. Of it stays what a reader sees: words of links, captions
    of images, names of categories; footnotes, tables, templates, addresses and links to other languages go. Then
    follows `to_letters`.
    """
    kept, is_text = [], False
    for record in xml.split(b">"):
        record += b">"  # in a dump, ">" ends tags only: an article is one record
        if b"<text " in record:
            is_text = True
        if _REDIRECT.search(record):
            is_text = False
        if not is_text:
            continue
        is_text = b"</text>" not in record
        record = _XML_TAG.sub(b"", record, count=1)
        for pattern, replacement in _WIKITEXT:
            record = pattern.sub(replacement, record)
        kept.append(to_letters(record))
    return b"".join(kept)


def _extract_letters(text: bytes) -> bytes:
    return to_letters(_EXTRACT_TAG.sub(b"", text))


# How a corpus becomes letters, where it is not plain text.
_LETTERS_OF = {
    "enwik8": wikipedia_letters,
    "enwik8-prefix": wikipedia_letters,
    "wikipedia-xml": wikipedia_letters,
    "wikipedia-extract": _extract_letters,
}


@dataclass(frozen=True)
class CharacterText:
    """A text as ids of characters.

    Attributes:
        name: corpus, split and representation.
        tokens: ids, uint8 [N].
        symbols: the character of each id.
        title, licence: of the corpus, for pages that show some of it.
        checksums: sha256 of the files read and of the tokens, for the record of a run.
    """

    name: str
    tokens: Tensor
    symbols: bytes
    title: str = ""
    licence: str = ""
    checksums: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def vocab_size(self) -> int:
        """Ids that there can be, whether they occur or not."""
        return len(self.symbols)

    def decode(self, tokens: Tensor) -> str:
        """The text of some ids; what is no UTF-8 becomes U+FFFD."""
        return bytes(self.symbols[index] for index in tokens.tolist()).decode("utf-8", "replace")


def load(
    corpus: str | Corpus,
    representation: str = BYTES,
    *,
    splits: Sequence[str] = SPLITS,
    download: bool = True,
) -> dict[str, CharacterText]:
    """Splits of a registered corpus as characters.

    "bytes" are the bytes of its files, 256 ids. "27 characters" are a space and the letters a to z, 27 ids: made
    from the whole file by `to_letters`, before it by the filter for its markup, and cut into splits after that, by
    their shares.

    Args:
        corpus: id or `Corpus`, as "wikipedia-extract", "enwik8-prefix", "novels" or "python-stdlib".
        representation: "bytes" or "27 characters".
        splits: names of registered splits.
        download: False to look in `$ATTN_DATA` and in the cache only.

    Returns:
        The texts by split.

    Raises:
        ValueError: for another representation, or a split that it cannot be cut into.
        DataError: as `attn.data.reading.read_split`.
    """
    if representation not in REPRESENTATIONS:
        raise ValueError(f"representation must be 'bytes' or '27 characters'; got {representation!r}")
    corpus = registry.get(corpus)
    parts = [corpus.split(name) for name in splits]
    contents, digests, texts = {}, {}, {}
    for part in parts:
        for file_id in part.files:
            if file_id not in contents:
                contents[file_id] = _read(corpus, file_id, representation, download)
                digests[file_id] = checksums(corpus, [file_id], download=download)
        _check_cut(corpus, part, representation, [contents[file_id] for file_id in part.files])
        content = b"".join(part.cut(contents[file_id][0]) for file_id in part.files)
        used = {path: digest for file_id in part.files for path, digest in digests[file_id].items()}
        texts[part.name] = _text(corpus, part, representation, content, used)
    return texts


def _read(corpus: Corpus, file_id: str, representation: str, download: bool) -> tuple[bytes, int]:
    """A file's characters, and how many bytes it had."""
    raw = reading.read_bytes(corpus, file_id, download=download)
    if representation == BYTES:
        return raw, len(raw)
    return _LETTERS_OF.get(corpus.id, to_letters)(raw), len(raw)


def _check_cut(
    corpus: Corpus, part: Split, representation: str, contents: Sequence[tuple[bytes, int]]
) -> None:
    if part.by_first_column:
        raise ValueError(
            f"splits must go by place in the text; {part.name!r} of {corpus.id!r} goes by sentence"
        )
    changed = any(len(content) != size for content, size in contents)
    if changed and isinstance(part.start, int):
        raise ValueError(
            f"representation must be 'bytes' for split {part.name!r} of {corpus.id!r}, which is a range of bytes; got "
            f"{representation!r}"
        )


def _text(
    corpus: Corpus, part: Split, representation: str, content: bytes, used: Mapping[str, str]
) -> CharacterText:
    symbols = bytes(range(256)) if representation == BYTES else _ALPHABET
    ids = np.zeros(256, np.uint8)
    ids[np.frombuffer(symbols, np.uint8)] = np.arange(len(symbols), dtype=np.uint8)
    tokens = ids[np.frombuffer(content, np.uint8)]
    name = f"{corpus.id}/{part.name}, {representation}"
    own = {name: hashlib.sha256(tokens.tobytes()).hexdigest()}
    return CharacterText(
        name, torch.from_numpy(tokens), symbols, corpus.title, corpus.licence, {**used, **own}
    )
