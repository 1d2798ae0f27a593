"""What a text costs a language model that reads it in order."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from attn.data.token_batch import TokenBatch


@torch.no_grad()
def text_bits(model: nn.Module, segments: Iterable[TokenBatch]) -> float:
    """Mean cost of the scored tokens in bits.

    Args:
        model: called as `attn.language_model.LanguageModel`; what it carries goes from each segment to the next, and is
            dropped where a text begins.
        segments: as `attn.data.text.evaluation_segments` yields them, on the model's device.

    Raises:
        ValueError: if no token is scored.
    """
    nats, count, state = 0.0, 0, None
    for segment in segments:
        costs, state = model(segment.tokens, None if segment.is_start else state, targets=segment.targets)
        nats += float((costs.double() * segment.scored).sum())
        count += segment.n_scored
    if not count:
        raise ValueError("segments must score at least one token; got none")
    return nats / count / math.log(2)
