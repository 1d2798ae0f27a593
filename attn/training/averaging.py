"""Averaging the weights of the last checkpoints (arXiv:1706.03762, Sec. 6.1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """Mean of a model's weights at the last few of evenly spaced updates.

    The snapshots are kept in memory and enter the run's checkpoint, so that a resumed run averages the same.

    Args:
        model: whose weights to average.
        every: updates between snapshots.
        count: how many of the last snapshots count; the paper's base model has 5, its big one 20.

    Raises:
        ValueError: if a number is below 1.
    """

    def __init__(self, model: nn.Module, *, every: int, count: int) -> None:
        for name, value in (("every", every), ("count", count)):
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1; got {value!r}")
        self.model, self.every, self.count = model, every, count
        self.snapshots: list[dict[str, Tensor]] = []  # oldest first

    def after_step(self, step: int) -> None:
        """Take a snapshot if update `step` is due for one."""
        if step % self.every == 0:
            snapshot = {name: weight.detach().clone() for name, weight in self.model.named_parameters()}
            self.snapshots = [*self.snapshots, snapshot][-self.count :]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model with the mean of the snapshots, and with its own weights again afterwards.

        Raises:
            ValueError: if there is no snapshot yet.
        """
        if not self.snapshots:
            raise ValueError(f"there is no snapshot to average: the first comes after update {self.every}")
        weights = dict(self.model.named_parameters())
        own = {name: weight.detach().clone() for name, weight in weights.items()}
        mean = {name: torch.stack([s[name] for s in self.snapshots]).mean(0) for name in weights}
        try:
            _fill(weights, mean)
            yield
        finally:
            _fill(weights, own)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"snapshots": self.snapshots}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what a checkpoint kept."""
        own = dict(self.model.named_parameters())
        self.snapshots = [
            {name: weight.to(own[name].device) for name, weight in snapshot.items()}
            for snapshot in state["snapshots"]
        ]


@torch.no_grad()
def _fill(weights: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, weight in weights.items():
        weight.copy_(values[name])
