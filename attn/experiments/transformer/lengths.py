"""Sentences longer than those of training: what a model does there, by its positions (Sec. 3.5)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from attn.data.batching import PairBatch
from attn.data.copied_letters import CopyingTask
from attn.experiments.transformer.workloads import TransformerConfig
from attn.reproduction.experiment import Metric, Outcome
from attn.training.config import TrainingConfig
from attn.training.loop import BatchLoss
from attn.training.seeding import generator_for, set_seed
from attn.training.translation import TranslationWorkload

_VALIDATION_PAIRS = 200
_VALIDATION, _TEST = 71, 72  # seeds of their letters


@dataclass(frozen=True, kw_only=True)
class LengthsConfig:
    """One run: letters are copied in training at lengths up to the task's, and tested at others."""

    task: CopyingTask
    model: TransformerConfig
    training: TrainingConfig  # batch_size counts pairs
    max_shift: int = 0  # in training, positions begin anywhere from 0 to this, for a batch alike
    test_lengths: tuple[int, ...]
    n_test: int  # pairs of each length


class ShiftedPositions(nn.Module):
    """Positions that begin at `shift` instead of 0."""

    def __init__(self, positions: nn.Module) -> None:
        super().__init__()
        self.positions, self.shift = positions, 0

    def forward(self, seq_len: int, offset: int = 0) -> Tensor:
        """The positions [seq_len, D] from `offset` + `shift` on."""
        return self.positions(seq_len, offset + self.shift)


class _Drawn:
    """Training pairs by update, as `attn.data.batching.TrainingBatches` gives them."""

    def __init__(self, task: CopyingTask, batch_size: int, seed: int) -> None:
        self.task, self.batch_size, self.seed = task, batch_size, seed

    def at(self, step: int, part: int, n_parts: int) -> PairBatch:
        pairs = self.task.sample(self.batch_size, generator_for(self.seed, "train", step))
        return PairBatch(*(tensor[part::n_parts] for tensor in pairs))


class Right(NamedTuple):
    """What a model says of given pairs of one length when it has the true tokens before each."""

    whole: float  # share of pairs with every token right, the end included: what greedy search finds, too
    by_position: np.ndarray  # share of pairs with this token right [length + 1]


class LengthsWorkload(TranslationWorkload):
    """Trains on copied letters; in the end counts what is right at every test length."""

    def __init__(self, config: LengthsConfig, seed: int, device: torch.device) -> None:
        self.config, task = config, config.task
        set_seed(seed)
        model = config.model.build(task.vocab_size).to(device)
        model.source_positions = ShiftedPositions(model.source_positions)
        model.target_positions = ShiftedPositions(model.target_positions)
        validation = task.sample(_VALIDATION_PAIRS, torch.Generator().manual_seed(_VALIDATION))
        super().__init__(
            model=model, batches=_Drawn(task, config.training.batch_size, seed), validation=[validation]
        )

    def loss(self, model: nn.Module, batch: PairBatch) -> BatchLoss:
        """Nats per target token; where the config shifts, at positions that begin anywhere."""
        most = self.config.max_shift
        with self._shifted(int(torch.randint(most + 1, ())) if most else 0):
            return super().loss(model, batch)

    @contextmanager
    def _shifted(self, shift: int) -> Iterator[None]:
        both = self.model.source_positions, self.model.target_positions
        for positions in both:
            positions.shift = shift
        try:
            yield
        finally:
            for positions in both:
                positions.shift = 0

    def data_checksums(self) -> Mapping[str, str]:
        """Nothing: the data are generated."""
        return {}

    def outcome(self, model: nn.Module, history: Sequence[Mapping[str, Any]]) -> Outcome:
        """Shares of tokens and of whole targets that are right, by length."""
        model.eval()
        lengths, metrics = self.config.test_lengths, {}
        positions = np.full((len(lengths), max(lengths) + 1), np.nan, np.float32)
        for row, length in zip(positions, lengths, strict=True):
            right = self.right(model, length)
            row[: length + 1] = right.by_position
            where = f"{self.config.n_test} pairs of {length} random letters each, positions from 0"
            metrics[f"tokens_{length}"] = Metric(
                float(right.by_position.mean()),
                "share of tokens",
                f"most likely token, given the source and the true tokens before it, is right; end included; {where}",
            )
            metrics[f"whole_{length}"] = Metric(
                right.whole,
                "share of pairs",
                f"every token of the target is right, as greedy search finds it; {where}",
            )
        return Outcome(metrics, {"lengths": np.array(lengths), "right_by_position": positions})

    @torch.no_grad()
    def right(self, model: nn.Module, length: int) -> Right:
        """How much of the test pairs of one length the model, in evaluation mode, gets right."""
        pairs = self.config.task.of_length(length, self.config.n_test, seed=_TEST + length).to(self.device)
        found = (
            model(pairs.source, pairs.target_in).argmax(-1) == pairs.target_out
        )  # [B, length + 1], no padding
        return Right(float(found.all(1).double().mean()), found.double().mean(0).cpu().numpy())
