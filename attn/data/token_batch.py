"""A batch for a language model: what it reads, what it has to say, and where that counts."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class TokenBatch(NamedTuple):
    """What a language model reads and has to say."""

    tokens: Tensor  # [B, T]
    targets: Tensor  # [B, T], the token after each
    scored: Tensor  # [B, T], True where the target counts
    is_start: bool = True  # what was carried along from the last batch does not belong to this one

    def to(self, device: torch.device | str) -> TokenBatch:
        """The same batch on `device`."""
        return TokenBatch(*(tensor.to(device) for tensor in self[:3]), self.is_start)

    def part(self, index: int, n_parts: int) -> TokenBatch:
        """Every `n_parts`-th row from `index` on: the pieces that accumulation or processes work on."""
        return TokenBatch(*(tensor[index::n_parts] for tensor in self[:3]), self.is_start)

    def split(self, at_most: int) -> list[TokenBatch]:
        """The same rows in order, in batches of at most so many."""
        parts = zip(*(tensor.split(at_most) for tensor in self[:3]), strict=True)
        return [TokenBatch(*tensors, self.is_start) for tensors in parts]

    @property
    def n_scored(self) -> int:
        """Targets that count: what a loss per token is divided by."""
        return int(self.scored.sum())
