"""Workload of the episodic tasks: a sequence model learns to answer generated episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from attn.data.episodic import Episodes, EpisodicTask
from attn.evaluation.episodic import answer_nats, episode_bits
from attn.training.loop import BatchLoss
from attn.training.seeding import generator_for


class EpisodicWorkload:
    """Trains on fresh episodes at every update and evaluates on a fixed validation set.

    The cost is the paper's: cross-entropy per sequence, summed over outputs and steps.

    Args:
        model: on its device.
        task: draws the training episodes.
        batch_size: episodes per update.
        seed: of the training stream; the validation set is the same for every seed and model.
        same_length: one length for all episodes of an update (no padding) or one for each.
        validation: batches of episodes, on any device.
    """

    unit = "sequences"

    def __init__(
        self,
        *,
        model: nn.Module,
        task: EpisodicTask,
        batch_size: int,
        seed: int,
        same_length: bool,
        validation: Sequence[Episodes],
    ) -> None:
        self.model, self.task, self.batch_size, self.seed = model, task, batch_size, seed
        self.same_length = same_length
        self.device = next(model.parameters()).device
        self.validation = [batch.to(self.device) for batch in validation]

    def batch(self, step: int, part: int, n_parts: int) -> Episodes:
        """Piece `part` of the episodes of update `step`."""
        generator = generator_for(self.seed, "train", step)
        episodes = self.task.sample(self.batch_size, generator, same_length=self.same_length)
        return episodes.part(part, n_parts).to(self.device)

    def loss(self, model: nn.Module, batch: Episodes) -> BatchLoss:
        """Nats per sequence."""
        n_episodes = batch.inputs.shape[0]
        return BatchLoss(answer_nats(model(batch.inputs)[0], batch).sum(), n_episodes, n_episodes)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Mean cost of the validation episodes."""
        return {"bits_per_sequence": float(episode_bits(model, self.validation).mean())}

    def data_checksums(self) -> Mapping[str, str]:
        """Nothing: the data are generated."""
        return {}
