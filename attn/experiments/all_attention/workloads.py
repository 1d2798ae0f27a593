"""What a run of the all-attention chapter keeps beside what every model with spans keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attn.data.token_batch import TokenBatch
from attn.experiments.adaptive_span.workloads import SpanTextConfig, SpanWorkload
from attn.experiments.all_attention.inside import inside, joint_layers, mean_mass, without_vectors
from attn.reproduction.experiment import Metric, Outcome

# Segments of validation text on which the use of persistent vectors is measured.
SEGMENTS = 8
_AT_ONCE = 1 << 20  # symbols counted at a time
MOST_SYMBOLS = 512  # with more, nothing is counted by symbol


class AllAttentionWorkload(SpanWorkload):
    """A run on a text of few symbols: bits, spans and operations, and what the persistent vectors are used for."""

    def outcome(self, model: nn.Module, history: Sequence[Mapping[str, Any]]) -> Outcome:
        """As every model with spans, with the share of weight on persistent vectors, and costs of simpler models."""
        found = super().outcome(model, history)
        metrics = {**found.metrics, **self._references()}
        if "mass" in found.artifact:
            mass = float(found.artifact["mass"].mean())
            config = self.config
            how = (
                f"mean over heads and layers, over the first {SEGMENTS * config.block} {self.symbol}s of each of "
                f"{config.evaluation_rows} rows of the validation text"
            )
            metrics["persistent_mass"] = Metric(mass, "share of the weight", how)
            with without_vectors(model):
                bits = self.bits(model, "valid")
            metrics["valid_bits_without_vectors"] = Metric(
                bits,
                f"bits per {self.symbol}",
                "as valid_bits, the trained model's persistent vectors left out",
            )
        return Outcome(metrics, found.artifact)

    def kept(self, model: nn.Module) -> dict[str, np.ndarray]:
        """Spans where they depend on the input, and the use of persistent vectors."""
        kept = super().kept(model)
        if not joint_layers(model):
            return kept
        if self.text.vocab_size > MOST_SYMBOLS:
            return {**kept, "mass": mean_mass(model, self._stretch())}
        symbols = {"symbols": np.frombuffer(self.text.symbols, np.uint8)} if self.text.symbols else {}
        return {**kept, **inside(model, self._stretch, self.text.vocab_size), **symbols}

    def _stretch(self) -> Iterator[TokenBatch]:
        return islice(self.read("valid"), SEGMENTS)

    def _references(self) -> dict[str, Metric]:
        """What the validation text costs models that count symbols, and pairs of symbols."""
        if self.text.vocab_size > MOST_SYMBOLS:
            return {}
        train, valid = self.text.splits["train"], self.text.splits["valid"]
        how = (
            "mean of -log2 p over the validation text, p from counts in the training text, each raised by one"
        )
        return {
            f"order{order}_bits": Metric(
                counted_bits(train, valid, self.text.vocab_size, order=order),
                "bits per symbol",
                f"{how}, of a symbol given the {order} before it",
            )
            for order in (0, 1)
        }


def counted_bits(train: Tensor, valid: Tensor, vocab_size: int, *, order: int) -> float:
    """Mean bits of a symbol of `valid`, from counts of symbols, or of pairs, in `train`, each raised by one.

    Args:
        train, valid: ids [N].
        vocab_size: V.
        order: how many symbols before it are known, 0 or 1.
    """
    counts = _pairs(train, vocab_size)
    if order == 0:
        counts = counts.sum(0, keepdim=True)
    counts += 1
    cost = -(counts / counts.sum(1, keepdim=True)).log2()
    seen = _pairs(valid, vocab_size)
    return float((seen * cost).sum() / seen.sum())


def _pairs(tokens: Tensor, vocab_size: int) -> Tensor:
    """How often each symbol (column) follows each (row), float64 [V, V]."""
    counts = torch.zeros(vocab_size**2, dtype=torch.float64)
    for start in range(0, len(tokens) - 1, _AT_ONCE):
        part = tokens[start : start + _AT_ONCE + 1].cpu().long()
        counts += torch.bincount(part[:-1] * vocab_size + part[1:], minlength=vocab_size**2)
    return counts.view(vocab_size, vocab_size)


def build_text(config: SpanTextConfig, seed: int, device: torch.device) -> AllAttentionWorkload:
    """Workload on a text of few symbols."""
    return AllAttentionWorkload(config, seed, device)
