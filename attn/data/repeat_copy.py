"""Repeat copy: a sequence is to be answered several times (arXiv:1410.5401, Sec. 4.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attn.data.episodic import (
    Episodes,
    EpisodicTask,
    check_bits,
    check_count,
    check_range,
    draw_bits,
)


@dataclass(frozen=True, kw_only=True)
class RepeatCopyTask(EpisodicTask):
    """See random binary vectors and a number, then repeat the vectors that many times and mark the end.

    An episode of L vectors and R repeats takes L + 2 + L R + 1 steps: a start marker, L vectors, the number, L R
    answers, and one step in which only the end marker is 1. Inputs are the bits, the start marker and the number;
    outputs are the bits and the end marker (the channels that the printed parameter count of table 3 implies, with
    vectors of 6 bits). The number is scaled so that the training range has mean 0 and variance 1.

    Attributes:
        n_bits: bits per vector.
        min_length, max_length: number of vectors, drawn uniformly, both ends included.
        min_repeats, max_repeats: the same for repeats; also what the number's scale refers to.

    Raises:
        ValueError: if `n_bits` is below 1 or a range is none.
    """

    n_bits: int = 6
    min_length: int = 1
    max_length: int = 10
    min_repeats: int = 1
    max_repeats: int = 10

    def __post_init__(self) -> None:
        check_count("n_bits", self.n_bits)
        check_range("length", self.min_length, self.max_length)
        check_range("repeats", self.min_repeats, self.max_repeats)

    @property
    def n_vectors(self) -> int:
        """Most vectors to remember in an episode."""
        return self.max_length

    @property
    def size_ranges(self) -> list[tuple[int, int]]:
        """Those of the length and of the repeats."""
        return [(self.min_length, self.max_length), (self.min_repeats, self.max_repeats)]

    @property
    def n_inputs(self) -> int:
        """Bits, start marker, number of repeats."""
        return self.n_bits + 2

    @property
    def n_outputs(self) -> int:
        """Bits, end marker."""
        return self.n_bits + 1

    def draw(self, batch_size: int, generator: torch.Generator, length: int, repeats: int) -> Episodes:
        """Episodes of this length and number of repeats, which may lie outside the training ranges."""
        check_count("batch_size", batch_size)
        check_count("length", length)
        return self.episodes(draw_bits(batch_size, length, self.n_bits, generator=generator), repeats)

    def episodes(self, bits: Tensor, repeats: int) -> Episodes:
        """Episodes for given vectors.

        Args:
            bits: vectors of 0 and 1 [B, L, n_bits].
            repeats: how often all of them are answered, at least 1.

        Returns:
            Episodes with T = L + 3 + L * repeats.

        Raises:
            ValueError: if `bits` holds another value than 0 or 1 or has another shape, or `repeats` is below 1.
        """
        bits = check_bits(bits, "batch", "length", self.n_bits)
        check_count("repeats", repeats)
        batch, length, n_bits = bits.shape
        n_steps, answer = length + 3 + length * repeats, length + 2
        inputs = bits.new_zeros(batch, n_steps, self.n_inputs)
        inputs[:, 0, n_bits] = 1
        inputs[:, 1 : length + 1, :n_bits] = bits
        inputs[:, length + 1, n_bits + 1] = self.scaled(repeats)
        targets = bits.new_zeros(batch, n_steps, self.n_outputs)
        targets[:, answer:-1, :n_bits] = bits.repeat(1, repeats, 1)
        targets[:, -1, n_bits] = 1
        scored = torch.arange(n_steps).expand(batch, -1) >= answer
        return Episodes(inputs, targets, scored, torch.full((batch,), length))

    def scaled(self, repeats: int) -> float:
        """The number as the model sees it: mean 0 and variance 1 over the training range, 0 if that is one number."""
        count = self.max_repeats - self.min_repeats + 1
        deviation = ((count**2 - 1) / 12) ** 0.5  # of a uniform whole number
        return (repeats - (self.min_repeats + self.max_repeats) / 2) / deviation if deviation else 0.0
