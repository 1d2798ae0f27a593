"""How well a language model predicts the tokens that count."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from attn.data.token_batch import TokenBatch


@torch.no_grad()
def scores(model: nn.Module, batches: Iterable[TokenBatch]) -> tuple[float, float]:
    """Share of scored tokens whose most likely guess is right, and their mean cost in nats."""
    right = nats = count = 0.0
    for batch in batches:
        logits, _ = model(batch.tokens)
        chosen = logits[batch.scored].float().log_softmax(-1)  # [scored, V]
        targets = batch.targets[batch.scored]
        right += float((chosen.argmax(-1) == targets).sum())
        nats -= float(chosen.gather(-1, targets.unsqueeze(-1)).sum())
        count += len(targets)
    return right / count, nats / count
