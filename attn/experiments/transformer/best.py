"""A translation run that is also scored with the weights of its best evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from attn.experiments.transformer.workloads import PairsWorkload, TranslationConfig
from attn.reproduction.experiment import Outcome
from attn.training.averaging import WeightAverage


class BestWorkload(PairsWorkload):
    """Translation that keeps its weights wherever validation perplexity is lower than at any evaluation before."""

    def __init__(self, config: TranslationConfig, seed: int, device: torch.device) -> None:
        super().__init__(config, seed, device)
        self.least: float | None = None
        self.best = WeightAverage(self.model, every=1, count=1)  # of one snapshot: the snapshot itself
        self.scores_best = False

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """As of `PairsWorkload`; keeps the weights if they are the best yet."""
        found = super().evaluate(model)
        if self.least is None or found["perplexity"] < self.least:
            self.least = found["perplexity"]
            self.best.after_step(1)
        return found

    def outcome(self, model: nn.Module, history: Sequence[Mapping[str, Any]]) -> Outcome:
        """As of `PairsWorkload`, with the same scores once more, `..._at_best`, of the best evaluation's weights."""
        found = super().outcome(model, history)
        metrics = dict(found.metrics)
        self.scores_best = True
        with self.best.applied():
            for use in ("validation", *self.config.corpus.tests):
                scores, _ = self._score(model, use)
                metrics |= {f"{name}_at_best": metric for name, metric in scores.items()}
        self.scores_best = False
        return Outcome(metrics, found.artifact)

    @property
    def _weights(self) -> str:
        if self.scores_best:
            return f"the weights of the evaluation with the lowest validation perplexity, {self.least:.4g}"
        return super()._weights

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps besides model and optimiser."""
        return {**super().state_dict(), "least": self.least, "best": self.best.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what a checkpoint kept."""
        super().load_state_dict(state)
        self.least = state["least"]
        self.best.load_state_dict(state["best"])
