"""Translation by the reversible encoder-decoder: its config, and BLEU as the paper's table 4 counts it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sacrebleu.metrics import BLEU
from torch import nn

from attn.data.tokenisation import PAD
from attn.evaluation.decoding import translate
from attn.experiments.transformer.workloads import PairsWorkload, TranslationConfig
from attn.reproduction.experiment import Metric
from attn.reversible_transformer import ReversibleTransformer
from attn.transformer import Transformer

_TOKENS_AT_ONCE = 4096  # of an evaluation batch, padding included
# sacreBLEU's settings by the columns of table 4: chapter 1's, and the two signatures that the paper prints.
SCORES: Mapping[str, Mapping[str, object]] = {
    "bleu": {},
    "bleu_uncased": {"tokenize": "intl", "lowercase": True},
    "bleu_cased": {"tokenize": "intl"},
}


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderConfig:
    """An encoder-decoder with reversible layers, or the Transformer with as many parameters."""

    is_reversible: bool
    share_embeddings: bool
    n_layers: int
    d_model: int
    d_ff: int
    n_heads: int
    dropout: float = 0.1

    def build(self, vocab_size: int) -> ReversibleTransformer | Transformer:
        """The model."""
        sizes = {
            "vocab_size": vocab_size, "n_layers": self.n_layers, "d_model": self.d_model, "d_ff": self.d_ff,
            "n_heads": self.n_heads, "dropout": self.dropout, "share_embeddings": self.share_embeddings,
            "padding_index": PAD,
        }  # fmt: skip
        if self.is_reversible:
            return ReversibleTransformer(**sizes)
        return Transformer(**sizes, norm_position="pre")


@dataclass(frozen=True, kw_only=True)
class ReversibleTranslationConfig(TranslationConfig):
    """A run as in chapter 1 with another model."""

    model: EncoderDecoderConfig


class TranslationWorkload(PairsWorkload):
    """Training on the pairs of a corpus; in the end BLEU on the validation and test splits, by all of `SCORES`."""

    def _score(self, model: nn.Module, use: str) -> tuple[dict[str, Metric], dict[str, np.ndarray]]:
        """BLEU of one split; no translations are kept."""
        text, search = self.corpus.texts[use], self.config.search
        found = translate(
            model, self.corpus.encoded[use], self.corpus.tokeniser, tokens_per_batch=_TOKENS_AT_ONCE,
            beam_size=search.beam_size, length_penalty=search.length_penalty, extra_length=search.extra_length,
        )  # fmt: skip
        how = (
            f"{len(text):,} pairs of {text.name}, beam {search.beam_size}, length penalty {search.length_penalty:g}, "
            f"{self._weights}"
        )
        metrics = {}
        for name, settings in SCORES.items():
            metric = BLEU(**settings)
            score = metric.corpus_score(found, [list(text.target)])
            definition = f"sacrebleu {metric.get_signature()}; {how}; {score.format(signature='').strip()}"
            metrics[f"{name}_{use}"] = Metric(score.score, "BLEU", definition)
        return metrics, {}
