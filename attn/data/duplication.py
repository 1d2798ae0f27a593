"""Duplication: sequences that say everything twice, for language models (Kitaev et al. 2020, arXiv:2001.04451)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attn.data.episodic import check_count
from attn.data.token_batch import TokenBatch


@dataclass(frozen=True, kw_only=True)
class DuplicationTask:
    """0 w 0 w: say the symbols of w again, each from the one before it.

    The symbols of w are drawn uniformly and independently from 1 to `vocab_size` - 1, so the first half cannot be
    predicted, and only the symbols of the second w are scored: with the paper's length of 1024, 511 of them. (The
    paper's w goes up to 127; the generator in the authors' released code stops at 126.)

    Attributes:
        vocab_size: ids, 0 included.
        length: of the whole sequence, even.

    Raises:
        ValueError: if there are fewer than 2 ids, or the length is odd or below 4.
    """

    vocab_size: int = 128
    length: int = 1024

    def __post_init__(self) -> None:
        check_count("vocab_size", self.vocab_size, least=2)
        check_count("length", self.length, least=4)
        if self.length % 2:
            raise ValueError(
                f"length must be even, two times 0 and w; got {self.length}: take {self.length - 1} or {self.length + 1}"
            )

    @property
    def word_length(self) -> int:
        """|w|: symbols that are scored in a sequence."""
        return self.length // 2 - 1

    @property
    def chance(self) -> float:
        """Accuracy of guessing: a share of 1."""
        return 1 / (self.vocab_size - 1)

    def sample(self, batch_size: int, generator: torch.Generator) -> TokenBatch:
        """Sequences with words drawn from `generator`, which is on the CPU."""
        check_count("batch_size", batch_size)
        shape = batch_size, self.word_length
        return self.batch(torch.randint(1, self.vocab_size, shape, generator=generator))

    def batch(self, words: Tensor) -> TokenBatch:
        """Sequences of given words.

        Args:
            words: symbols from 1 to `vocab_size` - 1 [B, word_length].

        Returns:
            A batch with T = `length`, whose last token, which nothing follows, has the target 0 and is not scored.

        Raises:
            ValueError: for other symbols or another shape.
        """
        if words.dim() != 2 or words.shape[1] != self.word_length or not len(words):
            raise ValueError(f"words must have shape [batch, {self.word_length}]; got {list(words.shape)}")
        if words.dtype != torch.int64 or bool(((words < 1) | (words >= self.vocab_size)).any()):
            raise ValueError(
                f"words must hold whole numbers (int64) from 1 to {self.vocab_size - 1}; got {words.dtype} from "
                f"{words.min()} to {words.max()}"
            )
        half = torch.cat([words.new_zeros(len(words), 1), words], dim=1)
        tokens = torch.cat([half, half], dim=1)
        targets = torch.cat([tokens[:, 1:], words.new_zeros(len(words), 1)], dim=1)
        step = torch.arange(self.length)
        scored = (step >= self.length // 2) & (step < self.length - 1)
        return TokenBatch(tokens, targets, scored.repeat(len(words), 1))

    def evaluation_batches(self, n_sequences: int, *, batch_size: int, seed: int) -> list[TokenBatch]:
        """The same sequences for every caller who gives this seed, in batches of at most `batch_size`."""
        check_count("batch_size", batch_size)
        return self.sample(n_sequences, torch.Generator().manual_seed(seed)).split(batch_size)
