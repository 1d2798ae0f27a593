"""A memory that joins the feed-forward sub-layer of its layer, where the other runs have it replace that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from attn.experiments.product_keys import inside
from attn.experiments.product_keys.workloads import MemoryTextWorkload, TextRunConfig, memories
from attn.language_model import LanguageModel
from attn.product_keys import FeedForwardWithMemory
from attn.reproduction.experiment import Outcome
from attn.transformer import FeedForward


@dataclass(frozen=True, kw_only=True)
class JoinedRunConfig(TextRunConfig):
    """One run on a text, with both sub-layers where `TextRunConfig` has the memory alone."""

    joins: bool = True


class JoinedTextWorkload(MemoryTextWorkload):
    """As `MemoryTextWorkload`, with a feed-forward sub-layer beside each memory."""

    def __init__(self, config: JoinedRunConfig, seed: int, device: torch.device) -> None:
        super().__init__(config, seed, device)
        join(self.model, d_model=config.model.d_model, d_ff=config.model.d_ff)
        self.model.to(device)

    def outcome(self, model: nn.Module, history: Sequence[Mapping[str, Any]]) -> Outcome:
        """Costs and speed of the whole, and use and exactness of the memories."""
        found = super().outcome(model, history)
        metrics, segments, alone = dict(found.metrics), list(self.read("valid")), memories_alone(model)
        used = inside.use_of(alone, segments, vocab_size=self.text.vocab_size)
        for layer, memory in memories(alone).items():
            metrics |= inside.use_metrics(used[layer], layer, self._tokens("valid", segments))
            metrics |= inside.search_metrics(used[layer], memory, layer)
        return Outcome(metrics, found.artifact)


def join(model: LanguageModel, *, d_model: int, d_ff: int) -> None:
    """Put a new feed-forward sub-layer beside each memory of a model."""
    for layer, memory in memories(model).items():
        feed_forward = FeedForward(d_model=d_model, d_ff=d_ff)
        model.stack.layers[layer - 1][1] = FeedForwardWithMemory(feed_forward, memory)


def memories_alone(model: LanguageModel) -> Any:
    """What looks into memories finds them in this view of the model, whose layers it takes to hold them bare."""
    layers = [
        [part.memory if isinstance(part, FeedForwardWithMemory) else part for part in sublayers]
        for sublayers in model.stack.layers
    ]
    return SimpleNamespace(stack=SimpleNamespace(layers=layers), hidden=model.hidden)
