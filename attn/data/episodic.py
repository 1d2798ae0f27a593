"""Episodic tasks on binary vectors: generated data of the Neural Turing Machine (arXiv:1410.5401, Sec. 4).

A task draws batches of episodes from an explicit generator, so that a batch is a pure function of its seed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
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
    lengths: Tensor  # [B], length of what is shown, in the task's unit: vectors, items or bits

    def to(self, device: torch.device | str) -> Episodes:
        """The same episodes on `device`."""
        return Episodes(*(tensor.to(device) for tensor in self))

    def part(self, index: int, n_parts: int) -> Episodes:
        """Every `n_parts`-th episode from `index` on: the pieces that accumulation or processes work on."""
        return Episodes(*(tensor[index::n_parts] for tensor in self))

    def split(self, at_most: int) -> list[Episodes]:
        """The same episodes in order, in batches of at most so many."""
        return [Episodes(*tensors) for tensors in zip(*(t.split(at_most) for t in self), strict=True)]


def check_count(name: str, value: int, least: int = 1) -> None:
    """Raise ValueError unless `value` is a whole number of at least `least`."""
    if type(value) is not int or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}; got {value!r}")


def check_range(name: str, low: int, high: int, least: int = 1) -> None:
    """Raise ValueError unless least <= low <= high."""
    if not (type(low) is int and type(high) is int and least <= low <= high):
        names = f"min_{name} and max_{name}"
        raise ValueError(
            f"{names} must be whole numbers with {least} <= min <= max; got {low!r} and {high!r}"
        )


def is_real(values: object) -> bool:
    """Whether these are a tensor of real numbers, or of booleans."""
    return isinstance(values, Tensor) and not values.is_complex()


def kind_of(values: object) -> str:
    """What a message says of something that is of the wrong kind: a tensor's dtype, or the type."""
    return str(values.dtype) if isinstance(values, Tensor) else type(values).__name__


def check_bits(bits: Tensor, *shape: int | str) -> Tensor:
    """The bits as floats, checked.

    Args:
        bits: what a caller gives.
        shape: wanted sizes, names where any size of at least 1 will do.

    Raises:
        ValueError: if `bits` is no tensor of real numbers, has another shape or holds another value than 0 or 1.
    """
    wanted = ", ".join(map(str, shape))
    if not is_real(bits):
        raise ValueError(f"bits must be a tensor of real numbers [{wanted}]; got {kind_of(bits)}")
    fits = bits.dim() == len(shape) and all(
        size >= 1 if isinstance(want, str) else size == want
        for size, want in zip(bits.shape, shape, strict=True)
    )
    if not fits:
        raise ValueError(f"bits must have shape [{wanted}]; got {list(bits.shape)}")
    foreign = bits[(bits != 0) & (bits != 1)]
    if foreign.numel():
        raise ValueError(f"bits must hold only 0 and 1; got {foreign[0].item()!r}")
    return bits if bits.is_floating_point() else bits.float()


def check_indices(name: str, values: Tensor, count: int, low: int, high: int) -> Tensor:
    """The values as int64, checked.

    Raises:
        ValueError: unless they are a tensor of `count` whole numbers from `low` to `high`.
    """
    if not isinstance(values, Tensor):
        raise ValueError(
            f"{name} must be a tensor of {count} whole numbers from {low} to {high}; got {type(values).__name__}"
        )
    whole = not (values.is_floating_point() or values.is_complex() or values.dtype == torch.bool)
    if not whole or values.shape != (count,) or not bool(((values >= low) & (values <= high)).all()):
        raise ValueError(
            f"{name} must hold {count} whole numbers from {low} to {high}; got {values.tolist()}"
        )
    return values.long()  # torch reads uint8 indices as a mask


def draw_bits(*shape: int, generator: torch.Generator) -> Tensor:
    """Fair coin flips of this shape, as floats."""
    return torch.randint(0, 2, shape, generator=generator).float()


def draw_size(low: int, high: int, generator: torch.Generator) -> int:
    """A whole number from low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def padded(batches: Sequence[Episodes]) -> Episodes:
    """Batches of different lengths as one, shorter ones padded with unscored zeros at the end."""
    n_steps = max(batch.inputs.shape[1] for batch in batches)

    def longer(tensor: Tensor) -> Tensor:
        missing = n_steps - tensor.shape[1]
        return torch.cat([tensor, tensor.new_zeros(len(tensor), missing, *tensor.shape[2:])], dim=1)

    *over_time, lengths = zip(*batches, strict=True)
    return Episodes(*(torch.cat([longer(t) for t in part]) for part in over_time), torch.cat(lengths))


class EpisodicTask(ABC):
    """What a task draws: episodes of a size, which is a few whole numbers such as a length.

    A size is drawn uniformly from the product of the task's ranges; a task without ranges has one size, ().
    """

    n_bits: int

    @property
    @abstractmethod
    def n_inputs(self) -> int:
        """Channels of an input."""

    @property
    @abstractmethod
    def n_outputs(self) -> int:
        """Channels of an output."""

    @property
    @abstractmethod
    def n_vectors(self) -> int:
        """Most things to remember in an episode, vectors or items of them: a model may keep a slot for each."""

    @property
    def size_ranges(self) -> list[tuple[int, int]]:
        """Lowest and highest value of every number of a size, both included."""
        return []

    @abstractmethod
    def draw(self, batch_size: int, generator: torch.Generator, *size: int) -> Episodes:
        """Episodes of this size, which may lie outside the training ranges."""

    def sizes(self) -> list[tuple[int, ...]]:
        """Every size of training, for `draw`."""
        return list(product(*(range(low, high + 1) for low, high in self.size_ranges)))

    def sample(self, batch_size: int, generator: torch.Generator, *, same_length: bool = True) -> Episodes:
        """Draw episodes.

        Args:
            batch_size: number of episodes.
            generator: source of randomness, on the CPU.
            same_length: draw one size for the whole batch, so that no step is spent on padding; otherwise one for
                each episode. No difference where a task has one size only.

        Returns:
            Episodes on the CPU.
        """
        if not same_length and self.size_ranges:
            check_count("batch_size", batch_size)
            return padded([self.sample(1, generator) for _ in range(batch_size)])
        size = [draw_size(low, high, generator) for low, high in self.size_ranges]
        return self.draw(batch_size, generator, *size)


@dataclass(frozen=True, kw_only=True)
class CopyTask(EpisodicTask):
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
        check_count("n_bits", self.n_bits)
        check_range("length", self.min_length, self.max_length)

    @property
    def n_vectors(self) -> int:
        """Most vectors to remember in an episode."""
        return self.max_length

    @property
    def size_ranges(self) -> list[tuple[int, int]]:
        """That of the length."""
        return [(self.min_length, self.max_length)]

    @property
    def n_inputs(self) -> int:
        """Bits, start marker, end marker."""
        return self.n_bits + 2

    @property
    def n_outputs(self) -> int:
        """Bits, marker."""
        return self.n_bits + 1

    def draw(self, batch_size: int, generator: torch.Generator, length: int) -> Episodes:
        """Episodes of this length, which may lie outside the training range."""
        check_count("batch_size", batch_size)
        check_count("length", length)
        bits = draw_bits(batch_size, length, self.n_bits, generator=generator)
        return self.episodes(bits, torch.full((batch_size,), length))

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
        bits = check_bits(bits, "batch", "length", self.n_bits)
        batch, longest, n_bits = bits.shape
        lengths = check_indices("lengths", lengths, batch, 1, longest)
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
