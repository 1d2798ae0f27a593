"""The sentence pairs of a translation run: a registered corpus, or generated ones that need no download."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from attn.data import translation
from attn.data.batching import EncodedPairs
from attn.data.errors import DataError
from attn.data.spoken_numbers import spoken_numbers
from attn.data.tokenisation import Tokeniser
from attn.data.translation import ParallelText
from attn.training.seeding import generator_for

GENERATED = "spoken-numbers"


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """Which pairs a model is trained and tested on, and how they are cut into tokens."""

    name: str  # id of a registered corpus, or "spoken-numbers"
    source: str  # language codes
    target: str
    vocab_size: int  # tokens of the vocabulary that both languages share
    n_pairs: int | None = None  # training pairs, drawn once for all seeds; None takes all there are
    validation: str = "valid"  # split that everything is chosen on
    n_validation: int | None = None  # pairs of it; None takes all
    tests: tuple[str, ...] = ()  # splits that are scored once, at the end
    n_test: int | None = None  # pairs of each; None takes all
    max_length: int = 256  # longest training sentence in tokens; longer ones are left out

    def splits(self) -> dict[str, tuple[str, int | None]]:
        """Name of the split and number of pairs, for each use."""
        return {
            "train": ("train", self.n_pairs),
            "validation": (self.validation, self.n_validation),
            **{test: (test, self.n_test) for test in self.tests},
        }


@dataclass(frozen=True)
class Corpus:
    """The texts of a config by use, "train", "validation" and the tests' names, and the training's tokeniser."""

    texts: Mapping[str, ParallelText]
    tokeniser: Tokeniser
    encoded: Mapping[str, EncodedPairs] = field(repr=False)

    def checksums(self) -> dict[str, str]:
        """sha256 of every file that was read, and of the tokeniser."""
        found = {name: digest for text in self.texts.values() for name, digest in text.checksums.items()}
        return found | self.tokeniser.checksums


@lru_cache(maxsize=1)  # the seeds of a grid follow each other with the same data
def load(config: CorpusConfig) -> Corpus:
    """Read or generate the texts, train the tokeniser on the training text, encode everything.

    Raises:
        DataError: if the corpus is not there; the message says where to get it.
    """
    texts = {use: _text(config, split, n_pairs) for use, (split, n_pairs) in config.splits().items()}
    tokeniser = Tokeniser.train(texts["train"].lines, vocab_size=config.vocab_size)
    return Corpus(texts, tokeniser, {use: EncodedPairs(text, tokeniser) for use, text in texts.items()})


def _text(config: CorpusConfig, split: str, n_pairs: int | None) -> ParallelText:
    generator = generator_for(0, config.name, split)
    if config.name == GENERATED:
        if config.source != "en":
            raise ValueError(f"source must be 'en' for {GENERATED}; got {config.source!r}")
        return spoken_numbers(n_pairs or 1000, target=config.target, split=split, generator=generator)
    try:
        text = translation.load(config.name, split, source=config.source, target=config.target)
    except DataError as error:
        raise DataError(f"{error} (profile ci needs no corpus: its sentences are generated)") from error
    return text if n_pairs is None else text.sample(n_pairs, generator)
