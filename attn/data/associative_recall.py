"""Associative recall: shown one of several items, answer the one that followed it (arXiv:1410.5401, Sec. 4.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attn.data.episodic import (
    Episodes,
    EpisodicTask,
    check_bits,
    check_count,
    check_indices,
    check_range,
    draw_bits,
)


@dataclass(frozen=True, kw_only=True)
class AssociativeRecallTask(EpisodicTask):
    """See items, each of a few random binary vectors, then one of them again; answer with the item after it.

    With items of K vectors, an episode of I items takes (K + 1) I + (K + 2) + K steps: every item after an item
    marker, the queried one between two query markers, and the answer. Inputs are the bits and one channel for each
    kind of marker; outputs are the bits (the channels that the printed parameter count of table 3 implies).

    Attributes:
        n_bits: bits per vector.
        item_length: K, vectors per item.
        min_items, max_items: number of items, drawn uniformly, both ends included.

    Raises:
        ValueError: if a size is below 1, or there are fewer than 2 items, of which the last has none after it.
    """

    n_bits: int = 6
    item_length: int = 3
    min_items: int = 2
    max_items: int = 6

    def __post_init__(self) -> None:
        check_count("n_bits", self.n_bits)
        check_count("item_length", self.item_length)
        check_range("items", self.min_items, self.max_items, least=2)

    @property
    def n_vectors(self) -> int:
        """Most items to remember in an episode: the vectors of an item may share a slot."""
        return self.max_items

    @property
    def size_ranges(self) -> list[tuple[int, int]]:
        """That of the number of items."""
        return [(self.min_items, self.max_items)]

    @property
    def n_inputs(self) -> int:
        """Bits, item marker, query marker."""
        return self.n_bits + 2

    @property
    def n_outputs(self) -> int:
        """Bits."""
        return self.n_bits

    def draw(self, batch_size: int, generator: torch.Generator, items: int) -> Episodes:
        """Episodes of this many items, which may lie outside the training range; any but the last is queried."""
        check_count("batch_size", batch_size)
        check_count("items", items, least=2)
        bits = draw_bits(batch_size, items, self.item_length, self.n_bits, generator=generator)
        return self.episodes(bits, torch.randint(0, items - 1, (batch_size,), generator=generator))

    def episodes(self, bits: Tensor, queried: Tensor) -> Episodes:
        """Episodes for given items.

        Args:
            bits: items of vectors of 0 and 1 [B, I, item_length, n_bits].
            queried: index of the item shown again [B], from 0 to I - 2.

        Returns:
            Episodes with T = (item_length + 1) I + 2 item_length + 2.

        Raises:
            ValueError: if `bits` holds another value than 0 or 1 or has another shape, or an index is out of range.
        """
        bits = check_bits(bits, "batch", "items", self.item_length, self.n_bits)
        batch, items, length, n_bits = bits.shape
        if items < 2:
            raise ValueError(
                f"bits must hold at least 2 items, of which one has another after it; got {items}"
            )
        queried = check_indices("queried", queried, batch, 0, items - 2)
        query = items * (length + 1)  # first step of the query
        inputs = bits.new_zeros(batch, query + 2 * length + 2, self.n_inputs)
        shown = inputs[:, :query].view(batch, items, length + 1, self.n_inputs)
        shown[:, :, 0, n_bits] = 1
        shown[:, :, 1:, :n_bits] = bits
        inputs[:, [query, query + length + 1], n_bits + 1] = 1
        rows = torch.arange(batch)
        inputs[:, query + 1 : query + length + 1, :n_bits] = bits[rows, queried]
        targets = bits.new_zeros(*inputs.shape[:2], n_bits)
        targets[:, -length:] = bits[rows, queried + 1]
        scored = torch.arange(inputs.shape[1]).expand(batch, -1) >= query + length + 2
        return Episodes(inputs, targets, scored, torch.full((batch,), items))
