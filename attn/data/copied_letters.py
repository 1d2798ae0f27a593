"""Copying: a source of random letters is to be said again in order, for models of translation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attn.data.batching import PairBatch
from attn.data.episodic import check_count, check_range
from attn.data.tokenisation import BOS, EOS, PAD, UNK

_FIRST = UNK + 1  # id of the first letter


@dataclass(frozen=True, kw_only=True)
class CopyingTask:
    """The target equals the source; letters are drawn uniformly and independently, lengths uniformly.

    Attributes:
        n_letters: different letters.
        min_length: letters of the shortest source.
        max_length: letters of the longest.

    Raises:
        ValueError: if there are fewer than 2 letters, or the lengths are no range from 1.
    """

    n_letters: int = 16
    min_length: int = 1
    max_length: int = 20

    def __post_init__(self) -> None:
        check_count("n_letters", self.n_letters, least=2)
        check_range("length", self.min_length, self.max_length)

    @property
    def vocab_size(self) -> int:
        """Ids, special ones included."""
        return _FIRST + self.n_letters

    def sample(self, batch_size: int, generator: torch.Generator) -> PairBatch:
        """Pairs of all lengths, drawn from `generator`, which is on the CPU."""
        check_count("batch_size", batch_size)
        lengths = torch.randint(self.min_length, self.max_length + 1, (batch_size,), generator=generator)
        return self._pairs(lengths, generator)

    def of_length(self, length: int, n_pairs: int, *, seed: int) -> PairBatch:
        """Pairs of one length, which may lie outside the task's; the same for every caller who gives this seed."""
        check_count("length", length)
        check_count("n_pairs", n_pairs)
        return self._pairs(torch.full((n_pairs,), length), torch.Generator().manual_seed(seed))

    def _pairs(self, lengths: Tensor, generator: torch.Generator) -> PairBatch:
        shape = len(lengths), int(lengths.max())
        letters = torch.randint(_FIRST, self.vocab_size, shape, generator=generator)
        letters[torch.arange(shape[1]) >= lengths[:, None]] = PAD
        column = letters.new_full((len(letters), 1), PAD)
        ended = torch.cat([letters, column], dim=1).scatter(1, lengths[:, None], EOS)
        begun = torch.cat([column.fill_(BOS), letters], dim=1)
        return PairBatch(ended, begun, ended.clone(), torch.arange(len(letters)))
