"""Workload of translation: a model learns the next target token, given the source and the target so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from attn.data.batching import PairBatch, TrainingBatches
from attn.evaluation.translation import nats_per_token, perplexity, token_nats
from attn.training.averaging import WeightAverage
from attn.training.loop import BatchLoss


class TranslationWorkload:
    """Trains on shuffled batches of sentence pairs and evaluates the perplexity of a fixed validation set.

    Args:
        model: maps source and target ids to logits, as `attn.transformer.Transformer`; on its device.
        batches: training batches, by update.
        validation: batches that every evaluation uses.
        label_smoothing: of the training loss; evaluation has none.
        average: keeps the snapshots whose mean is evaluated in the end; None for no averaging.
    """

    unit = "tokens"

    def __init__(
        self,
        *,
        model: nn.Module,
        batches: TrainingBatches,
        validation: Sequence[PairBatch],
        label_smoothing: float = 0.0,
        average: WeightAverage | None = None,
    ) -> None:
        self.model, self.batches, self.label_smoothing, self.average = (
            model,
            batches,
            label_smoothing,
            average,
        )
        self.device = next(model.parameters()).device
        self.validation = [batch.to(self.device) for batch in validation]

    def batch(self, step: int, part: int, n_parts: int) -> PairBatch:
        """Piece `part` of the pairs of update `step`."""
        return self.batches.at(step, part, n_parts).to(self.device)

    def loss(self, model: nn.Module, batch: PairBatch) -> BatchLoss:
        """Nats per target token, smoothed."""
        logits = model(batch.source, batch.target_in)
        n_tokens = batch.n_target_tokens
        return BatchLoss(token_nats(logits, batch.target_out, self.label_smoothing), n_tokens, n_tokens)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Perplexity of the validation pairs, per token of the vocabulary, without label smoothing."""
        return {"perplexity": perplexity(nats_per_token(model, self.validation))}

    def after_step(self, step: int) -> None:
        """Let the average take its snapshot."""
        if self.average is not None:
            self.average.after_step(step)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps besides model and optimiser."""
        return {} if self.average is None else self.average.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what a checkpoint kept."""
        if self.average is not None:
            self.average.load_state_dict(state)
