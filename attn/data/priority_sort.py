"""Priority sort: answer the vectors of highest priority in order (arXiv:1410.5401, Sec. 4.5)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attn.data.episodic import Episodes, EpisodicTask, check_bits, check_count, draw_bits, is_real, kind_of


@dataclass(frozen=True, kw_only=True)
class PrioritySortTask(EpisodicTask):
    """See random binary vectors, each with a priority; answer those of highest priority, the highest first.

    An episode takes `n_shown` + `n_answered` steps. Inputs are the bits and the priority, uniform in [-1, 1]; outputs
    are the bits. There is no marker, because both numbers are fixed.

    Attributes:
        n_bits: bits per vector.
        n_shown: vectors shown.
        n_answered: vectors answered, at most `n_shown`.

    Raises:
        ValueError: if a number is below 1, or more are to be answered than shown.
    """

    n_bits: int = 8
    n_shown: int = 20
    n_answered: int = 16

    def __post_init__(self) -> None:
        for name in ("n_bits", "n_shown", "n_answered"):
            check_count(name, getattr(self, name))
        if self.n_answered > self.n_shown:
            raise ValueError(f"n_answered must be at most n_shown={self.n_shown}; got {self.n_answered}")

    @property
    def n_vectors(self) -> int:
        """Vectors to remember in an episode."""
        return self.n_shown

    @property
    def n_inputs(self) -> int:
        """Bits, priority."""
        return self.n_bits + 1

    @property
    def n_outputs(self) -> int:
        """Bits."""
        return self.n_bits

    def draw(self, batch_size: int, generator: torch.Generator) -> Episodes:
        """Episodes; there is one size only."""
        check_count("batch_size", batch_size)
        bits = draw_bits(batch_size, self.n_shown, self.n_bits, generator=generator)
        return self.episodes(bits, 2 * torch.rand(batch_size, self.n_shown, generator=generator) - 1)

    def episodes(self, bits: Tensor, priorities: Tensor) -> Episodes:
        """Episodes for given vectors.

        Args:
            bits: vectors of 0 and 1 [B, n_shown, n_bits].
            priorities: [B, n_shown], in [-1, 1]; the earlier of two equal ones goes first.

        Raises:
            ValueError: if `bits` holds another value than 0 or 1, a shape is another, or a priority is out of range.
        """
        bits = check_bits(bits, "batch", self.n_shown, self.n_bits)
        if not is_real(priorities):
            raise ValueError(f"priorities must be a tensor of real numbers; got {kind_of(priorities)}")
        if priorities.shape != bits.shape[:2]:
            raise ValueError(
                f"priorities must have shape {list(bits.shape[:2])}; got {list(priorities.shape)}"
            )
        outside = priorities[~(priorities.abs() <= 1)]
        if outside.numel():
            raise ValueError(f"priorities must lie in [-1, 1]; got {outside[0].item()!r}")
        batch, shown, _ = bits.shape
        inputs = bits.new_zeros(batch, shown + self.n_answered, self.n_inputs)
        inputs[:, :shown] = torch.cat([bits, priorities.unsqueeze(-1).to(bits.dtype)], dim=-1)
        order = priorities.argsort(dim=1, descending=True, stable=True)[:, : self.n_answered]
        targets = bits.new_zeros(batch, inputs.shape[1], self.n_bits)
        targets[:, shown:] = bits.gather(1, order.unsqueeze(-1).expand(-1, -1, self.n_bits))
        scored = torch.arange(inputs.shape[1]).expand(batch, -1) >= shown
        return Episodes(inputs, targets, scored, torch.full((batch,), shown))
