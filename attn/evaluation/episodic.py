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


def answer_nats(logits: Tensor, episodes: Episodes, outputs: slice = slice(None)) -> Tensor:
    """Cross-entropy of the scored steps, summed over steps and outputs (arXiv:1410.5401, Sec. 4).

    Args:
        logits: [B, T, n_outputs].
        episodes: the batch that they answer.
        outputs: which outputs count.

    Returns:
        Nats per episode [B]; unscored steps and padding count nothing.
    """
    targets = episodes.targets[..., outputs]
    cost = F.binary_cross_entropy_with_logits(logits[..., outputs], targets, reduction="none").sum(
        -1
    )  # [B, T]
    return torch.where(episodes.scored, cost, 0).sum(-1)  # not a product: an unscored overflow must not count


@torch.no_grad()
def episode_bits(model: nn.Module, batches: Sequence[Episodes], outputs: slice = slice(None)) -> Tensor:
    """Cost of every episode in bits [number of episodes], on the CPU in float64."""
    costs = [answer_nats(model(episodes.inputs)[0], episodes, outputs) for episodes in batches]
    return torch.cat(costs).double().cpu() / math.log(2)


@torch.no_grad()
def bit_errors(model: nn.Module, batches: Sequence[Episodes], outputs: slice = slice(None)) -> Tensor:
    """Outputs on the wrong side of one half, counted over the scored steps of every episode [episodes]."""
    counts = [(_wrong(model, episodes)[..., outputs].sum((1, 2))) for episodes in batches]
    return torch.cat(counts).cpu()


@torch.no_grad()
def right_ends(model: nn.Module, batches: Sequence[Episodes], marker: int) -> Tensor:
    """Whether output `marker` is on the right side of one half at every scored step [episodes], bool."""
    return torch.cat([~_wrong(model, episodes)[..., marker].any(1) for episodes in batches]).cpu()


def _wrong(model: nn.Module, episodes: Episodes) -> Tensor:
    """Where outputs are on the wrong side of one half [B, T, n_outputs], False where nothing is scored."""
    wrong = (model(episodes.inputs)[0] > 0) != (episodes.targets > 0.5)
    return wrong & episodes.scored.unsqueeze(-1)
