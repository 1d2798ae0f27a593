"""The text that a language model is trained on: which corpus, in which symbols, and how much of each split.

Shapes: N tokens of a split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import torch
from torch import Tensor

from attn.data import registry, text
from attn.data.episodic import check_count
from attn.data.generated_text import GeneratedText
from attn.data.tokenisation import EOS, Tokeniser

GENERATED, SUBWORDS = "generated", "subwords"
REPRESENTATIONS = (*text.REPRESENTATIONS, SUBWORDS)
_GENERATED_SEEDS = {"train": 1, "valid": 2, "test": 3}


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Which text, as part of a run's config.

    Attributes:
        corpus: "generated" for `attn.data.generated_text`, or a registered corpus as "wikipedia-extract".
        representation: "bytes", "27 characters" or "subwords"; of no use for the generated text.
        vocab_size: of a byte-pair encoding learned on the training text; "subwords" only.
        train_size, valid_size, test_size: symbols from the start of each split (bytes, where representation is
            "subwords"); None for the whole split.

    Raises:
        ValueError: for another representation, a size below 1, or a generated text without sizes.
    """

    corpus: str
    representation: str = text.BYTES
    vocab_size: int | None = None
    train_size: int | None = None
    valid_size: int | None = None
    test_size: int | None = None

    def __post_init__(self) -> None:
        if self.representation not in REPRESENTATIONS:
            raise ValueError(
                f"representation must be one of {', '.join(REPRESENTATIONS)}; got {self.representation!r}"
            )
        if (self.vocab_size is not None) != (self.representation == SUBWORDS):
            raise ValueError(
                f"vocab_size must be given for subwords, and only for them; got vocab_size={self.vocab_size} with "
                f"representation={self.representation!r}"
            )
        for split, size in self.sizes.items():
            if size is not None:
                check_count(f"{split}_size", size)
            elif self.corpus == GENERATED:
                raise ValueError(f"{split}_size must be given for a generated text, which has no end")

    @property
    def sizes(self) -> dict[str, int | None]:
        """By split."""
        return {"train": self.train_size, "valid": self.valid_size, "test": self.test_size}


@dataclass(frozen=True)
class LanguageText:
    """A text in three splits.

    Attributes:
        splits: ids by split, each [N].
        vocab_size: ids that there can be.
        title, licence: of the corpus.
        checksums: sha256 of the files read, of the tokeniser and of the tokens, for the record of a run.
        bytes_per_token: of each split, to compare costs of subwords with others; 1 for bytes.
        symbols: the character of each id, where there is one.
        tokeniser: where ids are subwords.
    """

    splits: Mapping[str, Tensor]
    vocab_size: int
    title: str
    licence: str = ""
    checksums: Mapping[str, str] = field(default_factory=dict)
    bytes_per_token: Mapping[str, float] = field(default_factory=dict)
    symbols: bytes = b""
    tokeniser: Tokeniser | None = None


@cache
def load(config: TextConfig, *, download: bool = True) -> LanguageText:
    """The text of a config, read and encoded once per process.

    Raises:
        ValueError: if a split has fewer symbols than the config asks for.
        DataError: as `attn.data.text.load`.
    """
    if config.corpus == GENERATED:
        return generated(GeneratedText(), config)
    representation = text.BYTES if config.representation == SUBWORDS else config.representation
    whole = text.load(config.corpus, representation, download=download)
    parts = {split: _beginning(part, config.sizes[split]) for split, part in whole.items()}
    corpus = registry.get(config.corpus)
    common = {"title": corpus.title, "licence": corpus.licence}
    files = {name: digest for part in whole.values() for name, digest in part.checksums.items()}
    if config.representation == SUBWORDS:
        lines = {split: _lines(part) for split, part in parts.items()}
        return subwords(lines, config.vocab_size, checksums=files, **common)
    first = parts["train"]
    return LanguageText(
        splits={split: part.tokens for split, part in parts.items()},
        vocab_size=first.vocab_size,
        checksums=files,
        bytes_per_token=dict.fromkeys(parts, 1.0),
        symbols=first.symbols,
        **common,
    )


def _beginning(part: text.CharacterText, size: int | None) -> text.CharacterText:
    if size is not None and size > len(part):
        raise ValueError(f"size must be at most {len(part):,}, the symbols of {part.name}; got {size:,}")
    return replace(part, tokens=part.tokens[:size])


def generated(source: GeneratedText, config: TextConfig, *, about: str = "") -> LanguageText:
    """Three splits from a source, the same for all runs, as long as the config says; `about` ends the title."""
    splits = {
        split: source.sample(config.sizes[split], torch.Generator().manual_seed(seed))
        for split, seed in _GENERATED_SEEDS.items()
    }
    title = f"generated text of known entropy{about}"
    return LanguageText(splits=splits, vocab_size=source.vocab_size, title=title)


def subwords(
    lines: Mapping[str, Sequence[str]],
    vocab_size: int,
    *,
    checksums: Mapping[str, str],
    title: str,
    licence: str = "",
) -> LanguageText:
    """Lines of each split as subwords, each with an end; the encoding is learned on "train"."""
    tokeniser = Tokeniser.train(lines["train"], vocab_size=vocab_size)
    splits, sizes = {}, {}
    for split, some in lines.items():
        ids = [token for line in tokeniser.encode_all(some) for token in (*line, EOS)]
        splits[split] = torch.tensor(ids, dtype=torch.int32)
        sizes[split] = sum(len(line.encode()) + 1 for line in some) / len(ids)
    digests = {
        f"subwords/{split}": hashlib.sha256(tokens.numpy().tobytes()).hexdigest()
        for split, tokens in splits.items()
    }
    return LanguageText(
        splits=splits, vocab_size=tokeniser.vocab_size, title=title, licence=licence, tokeniser=tokeniser,
        bytes_per_token=sizes, checksums={**checksums, **tokeniser.checksums, **digests},
    )  # fmt: skip


def _lines(part: text.CharacterText) -> list[str]:
    """Empty lines and what is only markup of the extract are left out."""
    lines = part.decode(part.tokens).splitlines()
    return [line for line in lines if line.strip() and not line.startswith(("<doc ", "</doc>"))]
