"""Machines that differ from `NTM` in what the paper leaves open, to measure what our choice changes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from attn.experiments.ntm.workloads import CopyWorkload, EpisodicConfig
from attn.ntm import HEAD_GAIN, NTM, NTMState

START_FOCUS = 10.0  # of the learned weightings: on slot 0 at first, e^10 times any other slot's


class PlainHeads(NTM):
    """Heads that start from Xavier's bounds and zero biases, from the same draws as `NTM`'s."""

    def __init__(self, **sizes: Any) -> None:
        super().__init__(**sizes)
        with torch.no_grad():
            self.heads.linear.weight.div_(HEAD_GAIN)
            self.heads.linear.bias.zero_()


class LearnedStart(NTM):
    """Memory, reads and weightings start at learned values; at first they are those of `NTM`.

    All slots share one learned vector, so that the number of parameters that belong to the memory's contents does not
    depend on the number of slots. The weightings are a softmax over learned values, one a head and slot.
    """

    def __init__(self, **sizes: Any) -> None:
        super().__init__(**sizes)
        start = super().initial_state(1)
        self.start_memory = nn.Parameter(start.memory[0, 0].clone())  # [D]
        self.start_reads = nn.Parameter(start.reads[0].clone())  # [R * D]
        self.start_weights = nn.Parameter(START_FOCUS * start.weights[0])  # [H, N]

    def initial_state(self, batch: int) -> NTMState:
        """The learned state at the start of a sequence."""
        weights = torch.softmax(self.start_weights, dim=-1)
        return NTMState(
            controller=self.controller.initial_state(batch),
            reads=self.start_reads.expand(batch, -1),
            weights=weights.expand(batch, -1, -1),
            memory=self.start_memory.expand(batch, self.n_slots, -1),
        )


class PlainHeadsWorkload(CopyWorkload):
    """Copy with `PlainHeads`."""

    machine = PlainHeads


class LearnedStartWorkload(CopyWorkload):
    """Copy with `LearnedStart`."""

    machine = LearnedStart


def build_plain_heads(config: EpisodicConfig, seed: int, device: torch.device) -> PlainHeadsWorkload:
    """Workload of copy with `PlainHeads`."""
    return PlainHeadsWorkload(config, seed, device)


def build_learned_start(config: EpisodicConfig, seed: int, device: torch.device) -> LearnedStartWorkload:
    """Workload of copy with `LearnedStart`."""
    return LearnedStartWorkload(config, seed, device)
