"""Seconds of a training step over the length of its sequences, the tokens of a step being as many at every length.

The paper's figure 5 shows this for attention; here it is the step of a small model, forward and backward.

Shapes: B sequences, T length.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attn.data.token_batch import TokenBatch
from attn.experiments.reformer.saved import saved_bytes
from attn.experiments.reformer.workloads import AttentionConfig, build_model
from attn.reproduction.experiment import Metric, Outcome
from attn.training.config import TrainingConfig
from attn.training.language_model import SequenceWorkload
from attn.training.seeding import generator_for, set_seed


@dataclass(frozen=True, kw_only=True)
class StepTimeConfig:
    """One attention, timed at several lengths."""

    attention: AttentionConfig
    lengths: tuple[int, ...]  # each divides `tokens`
    tokens: int  # of a step
    chunk_len: int  # of hashing
    repeats: int  # of every length; the fastest counts
    n_layers: int
    d_model: int
    n_heads: int
    d_ff: int
    training: TrainingConfig  # batch_size counts sequences of the shortest length
    vocab_size: int = 256

    def __post_init__(self) -> None:
        if any(self.tokens % length for length in self.lengths):
            raise ValueError(f"lengths must divide tokens={self.tokens}; got {self.lengths}")


class StepTimeWorkload(SequenceWorkload):
    """A short training on random symbols; in the end the times."""

    def __init__(self, config: StepTimeConfig, seed: int, device: torch.device) -> None:
        self.config, self.seed = config, seed
        set_seed(seed)
        super().__init__(
            model=build_model(config, max_len=max(config.lengths)).to(device),
            draw=self.sample,
            batch_size=config.training.batch_size,
            seed=seed,
            validation=[self.sample(1, generator_for(seed, "step_time"))],
        )

    def sample(self, count: int, generator: torch.Generator) -> TokenBatch:
        """Random sequences of the shortest length."""
        return self._random(count, min(self.config.lengths), generator)

    def _random(self, count: int, length: int, generator: torch.Generator) -> TokenBatch:
        symbols = torch.randint(self.config.vocab_size, (count, length + 1), generator=generator)
        tokens, targets = symbols[:, :-1], symbols[:, 1:]
        return TokenBatch(tokens, targets, torch.ones_like(tokens, dtype=torch.bool), True)

    def outcome(self, model: nn.Module, history: Sequence[Mapping[str, Any]]) -> Outcome:
        """The fastest step of each length, lengths in turn, and the bytes that wait for the gradient."""
        config = self.config
        generator = generator_for(self.seed, "step_time", "timed")
        batches = {
            length: self._random(config.tokens // length, length, generator).to(self.device)
            for length in config.lengths
        }
        seconds: dict[int, float] = {}
        for _ in range(config.repeats):
            for length, batch in batches.items():
                seconds[length] = min(seconds.get(length, float("inf")), step_seconds(model, batch))
        metrics = {}
        for length, batch in batches.items():
            count = config.tokens // length
            what = f"one forward and backward pass over {count} sequence{'' if count == 1 else 's'} of {length} symbols"
            how = f"{what}, the fastest of {config.repeats}, lengths in turn"
            metrics[f"seconds_{length}"] = Metric(seconds[length], "seconds", how)
            metrics[f"saved_bytes_{length}"] = saved_bytes(model, batch)
        return Outcome(metrics)


def step_seconds(model: nn.Module, batch: TokenBatch) -> float:
    """Wall-clock time of a forward and a backward pass."""
    _wait(batch.tokens)
    started = time.perf_counter()
    model(batch.tokens, targets=batch.targets)[0].mean().backward()
    _wait(batch.tokens)
    model.zero_grad()
    return time.perf_counter() - started


def _wait(tensor: Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
