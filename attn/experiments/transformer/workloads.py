"""What a translation run is: its config, its model, and what is measured and kept of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from attn.data.batching import TrainingBatches, evaluation_batches
from attn.data.tokenisation import PAD
from attn.evaluation.decoding import translate
from attn.evaluation.translation import bleu, exact_matches, nats_per_token, perplexity
from attn.experiments.transformer.corpora import Corpus, CorpusConfig, load
from attn.recurrent_translation import RecurrentTranslator
from attn.reproduction.experiment import Metric, Outcome
from attn.training.averaging import WeightAverage
from attn.training.config import TrainingConfig
from attn.training.seeding import set_seed
from attn.training.translation import TranslationWorkload
from attn.transformer import Transformer

_TOKENS_AT_ONCE = 4096  # of an evaluation batch, padding included
N_SAMPLES = 8  # translations that are kept


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """The columns of the paper's table 3 that are the model's."""

    n_layers: int
    d_model: int
    d_ff: int
    n_heads: int
    head_dim: int | None = None  # d_k; None is d_model / n_heads
    value_dim: int | None = None  # d_v; None is d_model / n_heads
    dropout: float = 0.1
    positions: str = "sinusoidal"  # or "learned"
    norm_position: str = "post"  # or "pre"

    def build(self, vocab_size: int) -> Transformer:
        """The model."""
        return Transformer(
            vocab_size=vocab_size, n_layers=self.n_layers, d_model=self.d_model, d_ff=self.d_ff,
            n_heads=self.n_heads, head_dim=self.head_dim, value_dim=self.value_dim, dropout=self.dropout,
            positions=self.positions, norm_position=self.norm_position, padding_index=PAD,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RecurrentConfig:
    """A recurrent encoder-decoder, with additive attention (Bahdanau et al. 2015) or without."""

    cell: str  # "lstm" or "gru"
    attention: str | None  # "additive" or None
    embedding_dim: int
    hidden_size: int
    maxout_size: int  # pairs of the output layer
    alignment_size: int = 0  # width of the layer that scores the source; of no use without attention
    dropout: float = 0.0

    def build(self, vocab_size: int) -> RecurrentTranslator:
        """The model."""
        alignment = {"alignment_size": self.alignment_size} if self.attention else {}
        return RecurrentTranslator(
            vocab_size=vocab_size, cell=self.cell, attention=self.attention, embedding_dim=self.embedding_dim,
            hidden_size=self.hidden_size, maxout_size=self.maxout_size, dropout=self.dropout, padding_index=PAD,
            **alignment,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """How translations are found (Sec. 6.1)."""

    beam_size: int = 4
    length_penalty: float = 0.6
    extra_length: int = 50  # most target tokens beyond the length of the source


@dataclass(frozen=True, kw_only=True)
class TranslationConfig:
    """One run: data, model, training, search and evaluation."""

    corpus: CorpusConfig
    model: TransformerConfig | RecurrentConfig
    training: TrainingConfig  # batch_size counts target tokens
    label_smoothing: float = 0.1
    average_every: int | None = None  # updates between snapshots; None for no averaging
    average_count: int = 5  # last snapshots whose mean is evaluated
    search: SearchConfig = SearchConfig()


class PairsWorkload(TranslationWorkload):
    """Training on the pairs of a corpus; in the end BLEU on the validation and test splits."""

    def __init__(self, config: TranslationConfig, seed: int, device: torch.device) -> None:
        self.config, self.corpus = config, load(config.corpus)
        set_seed(seed)
        model = config.model.build(config.corpus.vocab_size).to(device)
        pairs = self.corpus.encoded
        every = config.average_every
        super().__init__(
            model=model,
            batches=TrainingBatches(
                pairs["train"], tokens_per_batch=config.training.batch_size, seed=seed,
                max_length=config.corpus.max_length,
            ),
            validation=list(evaluation_batches(pairs["validation"], tokens_per_batch=_TOKENS_AT_ONCE)),
            label_smoothing=config.label_smoothing,
            average=None if every is None else WeightAverage(model, every=every, count=config.average_count),
        )  # fmt: skip

    def data_checksums(self) -> Mapping[str, str]:
        """sha256 of the corpus files and of the tokeniser."""
        return self.corpus.checksums()

    def outcome(self, model: nn.Module, history: Sequence[Mapping[str, Any]]) -> Outcome:
        """Perplexity of the validation split and BLEU of every split, with the averaged weights if there are any."""
        model.eval()
        best = min(entry["perplexity"] for entry in history)
        metrics = {
            "perplexity_at_the_end": self._perplexity(history[-1]["perplexity"], "after the last update"),
            "best_perplexity": self._perplexity(best, "lowest of all evaluations"),
        }
        arrays: dict[str, np.ndarray] = {}
        with nullcontext() if self.average is None else self.average.applied():
            metrics["perplexity"] = self._perplexity(
                perplexity(nats_per_token(model, self.validation)), f"of {self._weights}"
            )
            for use in ("validation", *self.config.corpus.tests):
                found, texts = self._score(model, use)
                metrics |= found
                arrays |= texts
            arrays |= _maps(model, self.corpus)
        return Outcome(metrics, arrays)

    @property
    def _weights(self) -> str:
        if self.average is None:
            return "the weights after the last update"
        n_snapshots, every = len(self.average.snapshots), self.average.every
        return f"the mean weights of the last {n_snapshots} snapshots, {every} updates apart"

    def _perplexity(self, value: float, which: str) -> Metric:
        text = self.corpus.texts["validation"]
        return Metric(
            value,
            "perplexity per subword",
            f"exp of the mean cross-entropy of a target token without label smoothing, of a vocabulary of "
            f"{self.config.corpus.vocab_size:,}, end of sentence included, over the {len(text):,} pairs of {text.name}; "
            f"{which}",
        )

    def _score(self, model: nn.Module, use: str) -> tuple[dict[str, Metric], dict[str, np.ndarray]]:
        """BLEU and exact matches of one split, with a few translations."""
        text, search = self.corpus.texts[use], self.config.search
        found = translate(
            model, self.corpus.encoded[use], self.corpus.tokeniser, tokens_per_batch=_TOKENS_AT_ONCE,
            beam_size=search.beam_size, length_penalty=search.length_penalty, extra_length=search.extra_length,
        )  # fmt: skip
        score = bleu(found, text.target)
        how = (
            f"{len(text):,} pairs of {text.name}, beam {search.beam_size}, length penalty {search.length_penalty:g}, "
            f"{self._weights}"
        )
        metrics = {
            f"bleu_{use}": Metric(
                score.value, "BLEU", f"sacrebleu {score.signature}; {how}; {score.details.strip()}"
            ),
            f"exact_{use}": Metric(
                exact_matches(found, text.target),
                "share of sentences",
                f"translation equals the reference; {how}",
            ),
        }
        samples = {"source": text.source, "reference": text.target, "translation": found}
        return metrics, {
            f"{use}_{name}": np.array([lines[i] for i in _spread(len(text))])
            for name, lines in samples.items()
        }


def _spread(n: int) -> list[int]:
    """Places evenly spread over a text, so that no one has picked what is shown."""
    return [i * n // N_SAMPLES for i in range(min(N_SAMPLES, n))]


def _maps(model: nn.Module, corpus: Corpus) -> dict[str, np.ndarray]:
    """Attention weights on the first validation pair of middling length, in half precision, and its subwords."""
    if not isinstance(model, Transformer):
        return {}
    pairs = corpus.encoded["validation"]
    longer = pairs.lengths.max(axis=1)
    shown = int(np.argmax(longer == np.sort(longer)[len(longer) // 2]))
    batch = pairs.batch(np.array([shown]))
    device = next(model.parameters()).device
    maps = model.attention_maps(batch.source.to(device), batch.target_in.to(device))
    arrays = {
        f"attention_{name}": torch.cat(layers).half().cpu().numpy() for name, layers in maps._asdict().items()
    }  # [N, H, queries, keys]
    for side, ids in (("source", batch.source), ("target", batch.target_in)):
        arrays[f"attention_{side}"] = np.array(corpus.tokeniser.pieces(ids[0].tolist()))
    return arrays
