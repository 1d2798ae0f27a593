"""Text as words.

A word's id is its rank by frequency in the training text, as an adaptive vocabulary wants it.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from attn.data import registry, text
from attn.data.language_text import LanguageText, TextConfig

END, UNKNOWN = "<eos>", "<unk>"
_WORD = re.compile(r"\w+|[^\w\s]")


class Words(NamedTuple):
    """A text and the word of each id."""

    text: LanguageText
    words: tuple[str, ...]


@cache
def load_words(config: TextConfig, max_words: int | None, is_tokenised: bool) -> Words:
    """A corpus as words, the most frequent of the training text first, with one more at the end of every line.

    Args:
        config: which corpus; its sizes count bytes.
        max_words: V; all rarer words are one. None keeps every word.
        is_tokenised: words are what blanks separate, and every line counts. Otherwise words and signs are found, and
            empty lines and markup of the extract are left out.

    Raises:
        ValueError: for a word of another split that is not in the training text, where there is no word for such.
    """
    parts = text.load(config.corpus, text.BYTES)
    lines = {split: _lines(part, config.sizes[split], is_tokenised) for split, part in parts.items()}
    counts = Counter(word for line in lines["train"] for word in line)
    counts[END] = len(lines["train"])
    ids = vocabulary(counts, max_words)
    corpus = registry.get(config.corpus)
    found = LanguageText(
        splits={split: encode(some, ids) for split, some in lines.items()},
        vocab_size=len(ids),
        title=f"{corpus.title}, as words",
        licence=corpus.licence,
        checksums={name: digest for part in parts.values() for name, digest in part.checksums.items()},
    )
    return Words(found, tuple(ids))


def vocabulary(counts: Mapping[str, int], max_words: int | None) -> dict[str, int]:
    """Ids by falling frequency, and in alphabetical order where that is equal; rare words join `UNKNOWN`."""
    counts = Counter(counts)
    if max_words is not None and len(counts) > max_words:
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        kept = [word for word in ranked if word not in (END, UNKNOWN)][: max_words - 2]
        rest = sum(counts.values()) - sum(counts[word] for word in kept) - counts[END]
        counts = Counter({word: counts[word] for word in kept} | {END: counts[END], UNKNOWN: rest})
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return {word: place for place, word in enumerate(ranked)}


def encode(lines: Iterable[Sequence[str]], ids: Mapping[str, int]) -> Tensor:
    """Ids of the words, with one for the end of each line, int32 [N].

    Raises:
        ValueError: for a word without an id, where there is none for unknown ones.
    """
    unknown, found = ids.get(UNKNOWN), array("i")
    for line in lines:
        for word in line:
            place = ids.get(word, unknown)
            if place is None:
                raise ValueError(
                    f"text must be made of the vocabulary's words, which has no {UNKNOWN}; got {word!r}"
                )
            found.append(place)
        found.append(ids[END])
    return torch.frombuffer(found, dtype=torch.int32).clone()


def _lines(part: text.CharacterText, size: int | None, is_tokenised: bool) -> list[list[str]]:
    lines = part.tokens[:size].numpy().tobytes().decode("utf-8", "replace").split("\n")
    if not lines[-1]:
        lines.pop()  # what follows the last end of a line
    if is_tokenised:
        return [line.split() for line in lines]
    return [
        _WORD.findall(line) for line in lines if line.strip() and not line.startswith(("<doc ", "</doc>"))
    ]
