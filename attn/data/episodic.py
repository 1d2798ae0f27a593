"""Episodic tasks on binary vectors: generated data of the Neural Turing Machine (arXiv:1410.5401, Sec. 4).

A task draws batches of episodes from an explicit generator, so that a batch is a pure function of its seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Episodes(NamedTuple):
    """A batch of episodes, shorter ones padded with zeros at the end.

    Shapes: B episodes, T time steps of the longest, n_inputs and n_outputs of the task.
    """

    inputs: Tensor  # [B, T, n_inputs]
    targets: Tensor  # [B, T, n_outputs], 0 or 1
    scored: Tensor  # [B, T], True where the answer is due and counts
    lengths: Tensor  # [B], number of vectors to remember

    def to(self, device: torch.device | str) -> Episodes:
        """The same episodes on `device`."""
        return Episodes(*(tensor.to(device) for tensor in self))

    def part(self, index: int, n_parts: int) -> Episodes:
        """Every `n_parts`-th episode from `index` on: the pieces that accumulation or processes work on."""
        return Episodes(*(tensor[index::n_parts] for tensor in self))


def check_range(name: str, low: int, high: int) -> None:
    """Raise ValueError unless 1 <= low <= high."""
    if not (isinstance(low, int) and isinstance(high, int) and 1 <= low <= high):
        names = f"min_{name} and max_{name}"
        raise ValueError(f"{names} must be whole numbers with 1 <= min <= max; got {low!r} and {high!r}")


@dataclass(frozen=True, kw_only=True)
class CopyTask:
    """Copy (Sec. 4.1): see random binary vectors, then repeat them with no further input.

    An episode of length L takes 2 L + 2 steps: a start marker, L vectors, an end marker, L answers. Inputs
    are the bits and one channel for each marker; outputs are the bits and one marker, whose target is 0
    throughout the answer (the channels that the printed parameter counts of table 3 imply).

    Attributes:
        n_bits: bits per vector.
        min_length, max_length: lengths drawn uniformly, both ends included.

    Raises:
        ValueError: if `n_bits` is below 1 or the lengths are no range.
    """

    n_bits: int = 8
    min_length: int = 1
    max_length: int = 20

    def __post_init__(self) -> None:
        if not isinstance(self.n_bits, int) or self.n_bits < 1:
            raise ValueError(f"n_bits must be a whole number of at least 1; got {self.n_bits!r}")
        check_range("length", self.min_length, self.max_length)

    @property
    def n_inputs(self) -> int:
        """Bits, start marker, end marker."""
        return self.n_bits + 2

    @property
    def n_outputs(self) -> int:
        """Bits, marker."""
        return self.n_bits + 1

    def sample(self, batch_size: int, generator: torch.Generator, *, same_length: bool = True) -> Episodes:
        """Draw episodes.

        Args:
            batch_size: number of episodes.
            generator: source of randomness, on the CPU.
            same_length: draw one length for the whole batch, so that no step is spent on padding; otherwise
                one for each episode.

        Returns:
            Episodes on the CPU.
        """
        lengths = torch.randint(
            self.min_length, self.max_length + 1, (1 if same_length else batch_size,), generator=generator
        ).expand(batch_size)
        longest = int(lengths.max())
        bits = torch.randint(0, 2, (batch_size, longest, self.n_bits), generator=generator).float()
        return self.episodes(bits, lengths)

    def episodes(self, bits: Tensor, lengths: Tensor) -> Episodes:
        """Episodes for given vectors.

        Args:
            bits: vectors of 0 and 1 [B, L, n_bits]; rows beyond an episode's length are ignored.
            lengths: [B], at most L.

        Returns:
            Episodes with T = 2 L + 2.

        Raises:
            ValueError: if `bits` holds another value than 0 or 1 or has another shape, or a length is out of range.
        """
        if bits.dim() != 3 or bits.shape[-1] != self.n_bits:
            raise ValueError(f"bits must have shape [batch, length, {self.n_bits}]; got {list(bits.shape)}")
        if not bool(((bits == 0) | (bits == 1)).all()):
            raise ValueError("bits must hold only 0 and 1")
        bits = bits if bits.is_floating_point() else bits.float()
        batch, longest, n_bits = bits.shape
        if lengths.shape != (batch,) or not bool(((lengths >= 1) & (lengths <= longest)).all()):
            raise ValueError(
                f"lengths must hold {batch} whole numbers from 1 to {longest}; got {lengths.tolist()}"
            )
        n_steps = 2 * longest + 2
        step = torch.arange(n_steps)  # [T]
        length = lengths.view(-1, 1)  # [B, 1]
        seen = (step >= 1) & (step <= length)  # [B, T], the vectors come in
        scored = (step >= length + 2) & (step < 2 * length + 2)  # [B, T], and go out
        inputs = bits.new_zeros(batch, n_steps, self.n_inputs)
        inputs[:, 1 : longest + 1, :n_bits] = bits * seen[:, 1 : longest + 1, None]
        inputs[:, 0, n_bits] = 1
        inputs.scatter_(1, (length + 1).unsqueeze(-1).expand(-1, 1, self.n_inputs), self._end_marker(inputs))
        source = (step - length - 2).clamp(0, longest - 1)  # [B, T], which vector is due
        answers = bits.gather(1, source.unsqueeze(-1).expand(-1, -1, n_bits)) * scored.unsqueeze(-1)
        targets = torch.cat([answers, answers.new_zeros(batch, n_steps, 1)], dim=-1)
        return Episodes(inputs, targets, scored, lengths)

    def _end_marker(self, inputs: Tensor) -> Tensor:
        row = inputs.new_zeros(inputs.shape[0], 1, self.n_inputs)
        row[..., self.n_bits + 1] = 1
        return row
