"""Cost of answers in episodic tasks: cross-entropy in nats or bits per episode, and wrong bits.

A model maps inputs [B, T, n_inputs] to logits [B, T, n_outputs], first of what it returns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attn.data.episodic import Episodes


def answer_nats(logits: Tensor, episodes: Episodes) -> Tensor:
    """Cross-entropy of the scored steps, summed over steps and outputs (arXiv:1410.5401, Sec. 4).

    Args:
        logits: [B, T, n_outputs].
        episodes: the batch that they answer.

    Returns:
        Nats per episode [B]; unscored steps and padding count nothing.
    """
    cost = F.binary_cross_entropy_with_logits(logits, episodes.targets, reduction="none").sum(-1)  # [B, T]
    return (cost * episodes.scored).sum(-1)


@torch.no_grad()
def episode_bits(model: nn.Module, batches: Sequence[Episodes]) -> Tensor:
    """Cost of every episode in bits [number of episodes], on the CPU in float64."""
    costs = [answer_nats(model(episodes.inputs)[0], episodes) for episodes in batches]
    return torch.cat(costs).double().cpu() / math.log(2)


@torch.no_grad()
def bit_errors(model: nn.Module, batches: Sequence[Episodes]) -> Tensor:
    """Outputs on the wrong side of one half, counted over the scored steps of every episode [episodes]."""
    counts = []
    for episodes in batches:
        wrong = (model(episodes.inputs)[0] > 0) != (episodes.targets > 0.5)
        counts.append((wrong.sum(-1) * episodes.scored).sum(-1))
    return torch.cat(counts).cpu()
