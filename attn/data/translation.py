"""Sentence pairs of a corpus split, with the raw lines that BLEU is computed from."""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch

from attn.data import reading, registry
from attn.data.download import checksums
from attn.data.errors import DataError, UnknownFile
from attn.data.registry import Corpus, CorpusFile, Split

_SEGMENT = re.compile(r"<seg\b[^>]*>(.*?)</seg>", re.DOTALL | re.IGNORECASE)


class Misaligned(DataError):
    """The two sides of a parallel text do not go together line by line."""


@dataclass(frozen=True)
class ParallelText:
    """Sentence pairs, aligned by position.

    Args:
        name: where they come from, as "multi30k/test_2016_flickr en-de".
        languages: codes of source and target, as ("en", "de").
        source, target: raw lines without their ends, equally many.
        title, licence: of the corpus, for pages that show lines of it.
        checksums: sha256 of what the pairs were read from, for the record of a run.
        generated: True where no human wrote the sentences.

    Raises:
        Misaligned: if the sides differ in length.
    """

    name: str
    languages: tuple[str, str]
    source: tuple[str, ...]
    target: tuple[str, ...]
    title: str = ""
    licence: str = ""
    checksums: Mapping[str, str] = field(default_factory=dict)
    generated: bool = False

    def __post_init__(self) -> None:
        if len(self.source) != len(self.target):
            raise Misaligned(
                f"{self.name} has {len(self.source)} source and {len(self.target)} target lines: they have to be "
                f"equally many"
            )

    def __len__(self) -> int:
        return len(self.source)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return zip(self.source, self.target, strict=True)

    @property
    def lines(self) -> list[str]:
        """All source lines, then all target lines: what a joint vocabulary is trained on."""
        return [*self.source, *self.target]

    @property
    def sha256(self) -> str:
        """Checksum of the lines themselves, order included."""
        digest = hashlib.sha256()
        for pair in self:
            digest.update("\t".join(pair).encode() + b"\n")
        return digest.hexdigest()

    def sample(self, n_pairs: int, generator: torch.Generator) -> ParallelText:
        """Pairs drawn without replacement, in their old order.

        Raises:
            ValueError: if `n_pairs` is not from 1 to the number of pairs.
        """
        if type(n_pairs) is not int or not 1 <= n_pairs <= len(self):
            raise ValueError(f"n_pairs must be a whole number from 1 to {len(self)}; got {n_pairs!r}")
        chosen = sorted(torch.randperm(len(self), generator=generator)[:n_pairs].tolist())
        pick = [tuple(side[index] for index in chosen) for side in (self.source, self.target)]
        return replace(self, name=f"{n_pairs} pairs of {self.name}", source=pick[0], target=pick[1])


def load(
    corpus: str | Corpus, split: str, *, source: str = "en", target: str = "de", download: bool = True
) -> ParallelText:
    """The pairs of a registered split.

    Lines are kept as they are, empty ones included, since dropping any would change BLEU; `attn.data.batching`
    leaves out of the training what cannot be trained on, and counts it.

    Args:
        corpus: id or `Corpus`, as "multi30k", "tatoeba-en-fr" or "wmt14-en-de".
        split: name of a registered split, as "train", "test_2016_flickr" or "newstest2012".
        source, target: language codes; either direction of a corpus will do.
        download: False to look in `$ATTN_DATA` and in the cache only.

    Raises:
        UnknownFile: if the split has no text in one of the languages; the message lists the valid ones.
        Misaligned: naming the files and their numbers of lines.
        DataError: as `attn.data.reading.read_split`.
        ValueError: if source and target are the same.
    """
    corpus = registry.get(corpus)
    part = corpus.split(split)
    if source == target:
        raise ValueError(f"source and target must be two languages; got {source!r} twice")
    sides: tuple[list[str], list[str]] = ([], [])
    used = []
    for ids in _pairs_of_files(corpus, part, source, target):
        texts = _read(corpus, part, ids, (source, target), download)
        for side, lines in zip(sides, texts, strict=True):
            side.extend(lines)
        used += ids
    return ParallelText(
        name=f"{corpus.id}/{split} {source}-{target}",
        languages=(source, target),
        source=tuple(sides[0]),
        target=tuple(sides[1]),
        title=corpus.title,
        licence=corpus.licence,
        checksums=checksums(corpus, used, download=download),
    )


def _language(file_id: str) -> str:
    return file_id.rpartition(".")[2]


def _pairs_of_files(corpus: Corpus, part: Split, source: str, target: str) -> list[tuple[str, ...]]:
    """Ids of the files to read: one with columns, or one a language, in the order of the split."""
    files = [corpus.file(file_id) for file_id in part.files]
    found: list[tuple[str, ...]] = []
    for file in files:
        stem, _, language = file.id.rpartition(".")
        if {source, target} <= set(file.columns):
            found.append((file.id,))
        elif language == source and f"{stem}.{target}" in part.files:
            found.append((file.id, f"{stem}.{target}"))
    if not found:
        valid = sorted({code for file in files for code in file.columns or [_language(file.id)]})
        raise UnknownFile(
            f"split {part.name!r} of corpus {corpus.id!r} has no pairs {source!r}-{target!r}; valid languages: "
            f"{', '.join(valid)}"
        )
    return found


def _read(
    corpus: Corpus, part: Split, ids: tuple[str, ...], languages: tuple[str, str], may_download: bool
) -> list[list[str]]:
    if len(ids) == 1:
        file = corpus.file(ids[0])
        text = reading.read_split(corpus, part.name, ids, download=may_download)[file.id]
        return _columns(corpus, file, text.decode(file.encoding), languages)
    sides = [_lines(corpus, corpus.file(file_id), may_download) for file_id in ids]
    if len(sides[0]) != len(sides[1]):
        raise Misaligned(
            f"{ids[0]} and {ids[1]} of corpus {corpus.id!r} have {len(sides[0])} and {len(sides[1])} lines: "
            f"check them with `attn data verify {corpus.id}`"
        )
    return sides


def _columns(corpus: Corpus, file: CorpusFile, text: str, languages: tuple[str, str]) -> list[list[str]]:
    wanted = [file.columns.index(language) for language in languages]
    # Further columns, as attributions in later releases, are not text.
    rows = [line.split("\t") for line in text.split("\n") if line.strip()]
    for number, row in enumerate(rows, 1):
        if len(row) < len(file.columns):
            raise Misaligned(
                f"{file.id} of corpus {corpus.id!r} has {len(row)} columns in its line {number} of this split, "
                f"where {len(file.columns)} are registered"
            )
    return [[row[column].rstrip("\r") for row in rows] for column in wanted]


def _lines(corpus: Corpus, file: CorpusFile, may_download: bool) -> list[str]:
    with reading.open_text(corpus, file.id, download=may_download) as stream:
        if (file.member or "").endswith(".sgm"):
            return [" ".join(html.unescape(text).split()) for text in _SEGMENT.findall(stream.read())]
        return [line.rstrip("\r\n") for line in stream]
