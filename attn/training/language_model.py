"""Workload of language models on separate sequences, each read from its start."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from attn.data.token_batch import TokenBatch
from attn.evaluation.language_model import scores
from attn.training.loop import BatchLoss
from attn.training.seeding import generator_for


class SequenceWorkload:
    """Trains on fresh sequences at every update and evaluates on a fixed validation set.

    Args:
        model: `attn.language_model.LanguageModel` or what is called like it; on its device.
        draw: (count, generator) -> that many training sequences.
        batch_size: sequences per update.
        seed: of the training stream.
        validation: batches, on any device.
    """

    unit = "sequences"

    def __init__(
        self,
        *,
        model: nn.Module,
        draw: Callable[[int, torch.Generator], TokenBatch],
        batch_size: int,
        seed: int,
        validation: Sequence[TokenBatch],
    ) -> None:
        self.model, self.draw_training, self.batch_size, self.seed = model, draw, batch_size, seed
        self.device = next(model.parameters()).device
        self.validation = [batch.to(self.device) for batch in validation]

    def batch(self, step: int, part: int, n_parts: int) -> TokenBatch:
        """Piece `part` of the sequences of update `step`."""
        batch = self.draw_training(self.batch_size, generator_for(self.seed, "train", step))
        return batch.part(part, n_parts).to(self.device)

    def loss(self, model: nn.Module, batch: TokenBatch) -> BatchLoss:
        """Nats per scored token."""
        nats, _ = model(batch.tokens, targets=batch.targets)
        return BatchLoss((nats * batch.scored).sum(), batch.n_scored, batch.tokens.shape[0])

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Share of scored tokens whose most likely guess is right, and their mean cost, on the validation set."""
        right, nats = scores(model, self.validation)
        return {"accuracy": right, "nats_per_token": nats}

    def data_checksums(self) -> Mapping[str, str]:
        """Nothing: the data are generated."""
        return {}
