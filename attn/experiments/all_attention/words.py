"""Word-level text, adaptive input and softmax on it, and what a run of words is.

Shapes: B rows, T tokens, D `d_model`, V words.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from attn.adaptive_io import AdaptiveEmbedding, AdaptiveSoftmax
from attn.attention import check_dropout
from attn.data import registry, text
from attn.data.language_text import LanguageText, TextConfig
from attn.data.token_batch import TokenBatch
from attn.experiments.adaptive_span.workloads import SpanTextConfig
from attn.experiments.all_attention.workloads import AllAttentionWorkload
from attn.language_model import LanguageModel
from attn.reproduction.experiment import Metric, Outcome
from attn.training.seeding import set_seed
from attn.training.text import TextWorkload

END, UNKNOWN = "<eos>", "<unk>"
_WORD = re.compile(r"\w+|[^\w\s]")


# --- the text ------------------------------------------------------------------------------------------------


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


# --- the model -----------------------------------------------------------------------------------------------


class AdaptiveVocabulary(nn.Module):
    """Adaptive input and adaptive softmax, tied, as the vocabulary of a `attn.language_model.LanguageModel`.

    Args:
        vocab_size: V.
        d_model: D.
        cutoffs: see `attn.adaptive_io.AdaptiveEmbedding`.
        dropout: on the hidden states before the softmax.
        tie_projections: whether the clusters' matrices are shared, too.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        d_model: int,
        cutoffs: Sequence[int],
        dropout: float = 0.0,
        tie_projections: bool = True,
    ) -> None:
        super().__init__()
        check_dropout(dropout=dropout)
        self.embedding = AdaptiveEmbedding(vocab_size=vocab_size, d_model=d_model, cutoffs=cutoffs)
        self.softmax = AdaptiveSoftmax(self.embedding, tie_projections=tie_projections)
        self.dropout = nn.Dropout(dropout)

    def embed(self, tokens: Tensor) -> Tensor:
        """Vectors [B, T, D] of word ids [B, T]."""
        return self.embedding(tokens)

    def logits(self, hidden: Tensor) -> Tensor:
        """log P of every word [B, T, V], from [B, T, D]."""
        return self.softmax.log_prob(self.dropout(hidden))

    def token_nats(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Cost of each target in nats [B, T], from hidden states [B, T, D] and ids [B, T]."""
        return self.softmax(self.dropout(hidden), targets)


# --- a run ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class WordTextConfig(SpanTextConfig):
    """One run on a word-level text; `text` names the corpus, and its sizes count bytes."""

    cutoffs: tuple[int, ...]
    max_words: int | None = None  # V; None for every word of the training text
    is_tokenised: bool = True
    word_dropout: float = 0.0  # on embeddings and on the last hidden states
    tie_projections: bool = True


def word_model(config: WordTextConfig, vocab_size: int) -> LanguageModel:
    """The same stack as for characters, between adaptive input and adaptive softmax."""
    stack = config.model.build(vocab_size=1).stack
    words = AdaptiveVocabulary(
        vocab_size=vocab_size, d_model=config.model.d_model, cutoffs=config.cutoffs, dropout=config.word_dropout,
        tie_projections=config.tie_projections,
    )  # fmt: skip
    return LanguageModel(vocabulary=words, stack=stack, dropout=config.word_dropout)


class WordWorkload(AllAttentionWorkload):
    """A run on words. Ends of lines are read and trained on but, as in the paper, not counted in evaluation."""

    def __init__(self, config: WordTextConfig, seed: int, device: torch.device) -> None:
        self.config = config
        words = load_words(config.text, config.max_words, config.is_tokenised)
        self.end = words.words.index(END)
        set_seed(seed)
        TextWorkload.__init__(
            self, model=word_model(config, words.text.vocab_size).to(device), text=words.text, n_rows=config.n_rows,
            block=config.block, seed=seed, evaluation_rows=config.evaluation_rows,
        )  # fmt: skip

    def read(self, split: str) -> Iterator[TokenBatch]:
        """A split in order, as it is evaluated: without the costs of ends of lines."""
        return (
            segment._replace(scored=segment.scored & (segment.targets != self.end))
            for segment in super().read(split)
        )

    def outcome(self, model: nn.Module, history: Sequence[Mapping[str, Any]]) -> Outcome:
        """As on characters, and perplexities."""
        found = super().outcome(model, history)
        perplexities = {
            f"{split}_perplexity": Metric(
                2 ** found.metrics[f"{split}_bits"].value,
                "perplexity per word",
                "2 to the bits of a word; ends of lines are not counted",
            )
            for split in ("valid", "test")
        }
        return Outcome({**found.metrics, **perplexities}, found.artifact)


def build_words(config: WordTextConfig, seed: int, device: torch.device) -> WordWorkload:
    """Workload on words."""
    return WordWorkload(config, seed, device)
