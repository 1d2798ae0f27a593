"""What a run of words is: adaptive input and softmax around chapter 4's layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from attn.adaptive_io import AdaptiveVocabulary
from attn.data.token_batch import TokenBatch
from attn.data.words import END, UNKNOWN, load_words
from attn.experiments.adaptive_span.workloads import SpanTextConfig
from attn.experiments.all_attention.workloads import AllAttentionWorkload
from attn.language_model import LanguageModel
from attn.reproduction.experiment import Metric, Outcome
from attn.training.seeding import set_seed
from attn.training.text import TextWorkload


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

    symbol = "word"

    def __init__(self, config: WordTextConfig, seed: int, device: torch.device) -> None:
        self.config = config
        words = load_words(config.text, config.max_words, config.is_tokenised)
        self.end = words.words.index(END)
        set_seed(seed)
        TextWorkload.__init__(
            self, model=word_model(config, words.text.vocab_size).to(device), text=words.text, n_rows=config.n_rows,
            block=config.block, seed=seed, evaluation_rows=config.evaluation_rows,
        )  # fmt: skip

    @property
    def uncounted(self) -> str:
        """What the evaluation leaves out, and which words it takes for one."""
        said = f"{super().uncounted}, and ends of lines are not counted"
        if self.config.max_words is not None:
            said += f"; all words outside a vocabulary of {self.config.max_words:,} count as one, {UNKNOWN}"
        return said

    def read(self, split: str) -> Iterator[TokenBatch]:
        """A split in order, as it is evaluated: without the costs of ends of lines."""
        return (
            segment._replace(scored=segment.scored & (segment.targets != self.end))
            for segment in super().read(split)
        )

    def outcome(self, model: nn.Module, history: Sequence[Mapping[str, Any]]) -> Outcome:
        """As on characters, and perplexities."""
        found = super().outcome(model, history)
        perplexities = {}
        for split in ("valid", "test"):
            bits = found.metrics[f"{split}_bits"]
            how = f"2 to the {bits.definition}"
            perplexities[f"{split}_perplexity"] = Metric(2**bits.value, "perplexity per word", how)
        return Outcome({**found.metrics, **perplexities}, found.artifact)


def build_words(config: WordTextConfig, seed: int, device: torch.device) -> WordWorkload:
    """Workload on words."""
    return WordWorkload(config, seed, device)
