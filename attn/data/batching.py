"""Batches of sentence pairs by approximate length and token count (arXiv:1706.03762, Sec. 5.1).

The paper's batches hold "approximately 25000 source tokens and 25000 target tokens". Here a batch holds about
`tokens_per_batch` tokens a side: what is counted is the mean of both sides, end-of-sentence tokens included,
padding not. It is the batch of one update, whatever number of pieces or processes share it.
"""

from __future__ import annotations

import functools
from array import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from attn.data.tokenisation import BOS, EOS, PAD, Tokeniser
from attn.data.translation import ParallelText


class PairBatch(NamedTuple):
    """Sentence pairs as padded token ids.

    Shapes: B pairs, S tokens of the longest source, T of the longest target, each with its end token.
    """

    source: Tensor  # [B, S], ends with EOS
    target_in: Tensor  # [B, T], what the decoder reads: begins with BOS
    target_out: Tensor  # [B, T], what it has to say: ends with EOS
    indices: Tensor  # [B], places of the pairs in the text they come from

    def to(self, device: torch.device | str) -> PairBatch:
        """The same pairs on `device`."""
        return PairBatch(*(tensor.to(device) for tensor in self))

    @property
    def n_source_tokens(self) -> int:
        """Source tokens without padding."""
        return int((self.source != PAD).sum())

    @property
    def n_target_tokens(self) -> int:
        """Target tokens without padding: what a loss per token is divided by."""
        return int((self.target_out != PAD).sum())


class _Side:
    """The token ids of many sentences, each with its EOS, in one array."""

    def __init__(self, sentences: Iterable[list[int]]) -> None:
        tokens, lengths = array("i"), array("q")  # lists would take ten times the memory
        for ids in sentences:
            tokens.extend(ids)
            tokens.append(EOS)
            lengths.append(len(ids) + 1)
        self.tokens, self.lengths = np.array(tokens, np.int32), np.array(lengths, np.int64)
        self.starts = np.cumsum(self.lengths) - self.lengths

    def padded(self, indices: np.ndarray) -> Tensor:
        """The sentences [B, S], padded with PAD."""
        lengths = self.lengths[indices]
        step = np.arange(lengths.max(initial=0))  # [S]
        inside = step < lengths[:, None]  # [B, S]
        places = np.where(inside, self.starts[indices][:, None] + step, 0)
        return torch.from_numpy(np.where(inside, self.tokens[places], PAD).astype(np.int64))


class EncodedPairs:
    """The token ids of a parallel text, held in two flat arrays of 4 bytes a token.

    Args:
        text: the pairs.
        tokeniser: for both sides.

    Attributes:
        has_blank: whether a side of each pair is empty or blank [N].
    """

    def __init__(self, text: ParallelText, tokeniser: Tokeniser) -> None:
        self.name = text.name
        self.has_blank = np.array([not (source.strip() and target.strip()) for source, target in text], bool)
        self._source = _Side(tokeniser.encode_all(text.source))
        self._target = _Side(tokeniser.encode_all(text.target))

    def __len__(self) -> int:
        return len(self._source.lengths)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each source and target with its EOS [N, 2]."""
        return np.stack([self._source.lengths, self._target.lengths], axis=1)

    def batch(self, indices: np.ndarray) -> PairBatch:
        """These pairs, at least one, as padded tensors."""
        source, target_out = self._source.padded(indices), self._target.padded(indices)
        target_in = target_out.roll(1, dims=1)
        target_in[:, 0] = BOS
        target_in[target_out == PAD] = PAD  # the EOS that moved into the padding
        return PairBatch(source, target_in, target_out, torch.from_numpy(indices.astype(np.int64)))


class TrainingBatches:
    """Shuffled batches of pairs of similar length.

    Pairs are ordered by their longer side, equally long ones by chance, and cut into batches; batches come in
    random order. Each epoch has every pair once, the same number of batches, and an order of its own, so batch k
    of epoch e is a pure function of (pairs, seed, e, k) and a run can be resumed anywhere. Pairs longer than
    `max_length` tokens or empty on a side are left out: `n_too_long` and `n_empty` count them.

    Args:
        pairs: the training split.
        tokens_per_batch: about how many tokens a side a batch holds; see the head of this module.
        seed: of the order, at least 0.
        max_length: most tokens of a side, EOS included; at most `tokens_per_batch`.

    Raises:
        ValueError: if a number is out of range, or no pair is left.
    """

    def __init__(
        self, pairs: EncodedPairs, *, tokens_per_batch: int, seed: int, max_length: int = 256
    ) -> None:
        _check("tokens_per_batch", tokens_per_batch, least=2)
        _check("max_length", max_length, least=2, most=tokens_per_batch)
        _check("seed", seed, least=0)
        self.pairs, self.tokens_per_batch, self.max_length = pairs, tokens_per_batch, max_length
        self.seed = seed
        lengths = pairs.lengths
        longer = lengths.max(axis=1, initial=0)
        self.n_empty = int(pairs.has_blank.sum())
        self.n_too_long = int(((longer > max_length) & ~pairs.has_blank).sum())
        self._kept = np.flatnonzero(~pairs.has_blank & (longer <= max_length))
        if not len(self._kept):
            raise ValueError(
                f"pairs must hold one with text and at most max_length={max_length} tokens on each side; {pairs.name} "
                f"has none"
            )
        self._longer = longer[self._kept]
        self._cuts = _cuts(_costs(self._longer, lengths[self._kept].mean(axis=1)), tokens_per_batch)
        self._epoch = functools.lru_cache(maxsize=2)(self._shuffled)

    @property
    def n_batches(self) -> int:
        """Batches of every epoch."""
        return len(self._cuts) - 1

    @property
    def n_pairs(self) -> int:
        """Pairs of every epoch."""
        return len(self._kept)

    @property
    def dropped(self) -> str:
        """One sentence on the pairs left out, for a page or a log."""
        return (
            f"{self.n_too_long + self.n_empty:,} of {len(self.pairs):,} pairs of {self.pairs.name} are left out: "
            f"{self.n_too_long:,} with more than {self.max_length} tokens on a side, {self.n_empty:,} with an "
            f"empty side"
        )

    def indices(self, epoch: int, k: int) -> np.ndarray:
        """Places of the pairs of batch `k` of `epoch`, both from 0.

        Raises:
            ValueError: if there is no such batch.
        """
        _check("epoch", epoch, least=0)
        _check("k", k, least=0, most=self.n_batches - 1)
        order, batches = self._epoch(epoch)
        return order[self._cuts[batches[k]] : self._cuts[batches[k] + 1]]

    def batch(self, epoch: int, k: int, part: int = 0, n_parts: int = 1) -> PairBatch:
        """Piece `part` of `n_parts` of batch `k` of `epoch`; the pieces together hold each of its pairs once.

        Raises:
            ValueError: if there is no such batch or part, or fewer pairs than parts.
        """
        _check("n_parts", n_parts, least=1)
        _check("part", part, least=0, most=n_parts - 1)
        indices = self.indices(epoch, k)
        if len(indices) < n_parts:
            raise ValueError(
                f"n_parts must be at most {len(indices)}, the pairs in batch {k} of epoch {epoch}; got {n_parts}: "
                f"use fewer parts, or raise tokens_per_batch={self.tokens_per_batch}"
            )
        return self.pairs.batch(indices[part::n_parts])

    def at(self, step: int, part: int = 0, n_parts: int = 1) -> PairBatch:
        """The batch of update `step`, counted from 1 over all epochs; otherwise as `batch`."""
        _check("step", step, least=1)
        return self.batch(*divmod(step - 1, self.n_batches), part, n_parts)

    def _shuffled(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The pairs in the order of one epoch, and the order of its batches."""
        random = np.random.default_rng([self.seed, epoch])
        order = np.lexsort((random.random(self.n_pairs), self._longer))
        return self._kept[order], random.permutation(self.n_batches)


def evaluation_batches(pairs: EncodedPairs, *, tokens_per_batch: int) -> Iterator[PairBatch]:
    """Every pair once, long and empty ones included, longest first, in batches of at most so many tokens.

    Counted is the longer side with its padding, for it decides the memory; a pair that is longer still stands
    alone. `indices` puts results back into the order of the text.

    Raises:
        ValueError: if `tokens_per_batch` is below 1.
    """
    _check("tokens_per_batch", tokens_per_batch, least=1)
    longer = pairs.lengths.max(axis=1, initial=0)
    order = np.argsort(-longer, kind="stable")
    start = 0
    while start < len(order):
        n_pairs = max(1, tokens_per_batch // int(longer[order[start]]))
        yield pairs.batch(order[start : start + n_pairs])
        start += n_pairs


def _costs(longer: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Tokens to count for each pair in the order of `longer`: the mean over equally long pairs.

    So the cuts do not depend on which of these comes first, and all epochs have equally many batches.
    """
    sums = np.bincount(longer, weights=tokens)
    counts = np.bincount(longer)
    return np.repeat(sums / np.maximum(counts, 1), counts)


def _cuts(costs: np.ndarray, limit: int) -> np.ndarray:
    """Where to cut so that each batch counts at most `limit` tokens; first 0, last the number of pairs."""
    ends = np.cumsum(costs)
    cuts = [0]
    while cuts[-1] < len(costs):
        before = ends[cuts[-1] - 1] if cuts[-1] else 0.0
        # Tolerant of rounding, and never without a pair.
        cuts.append(max(cuts[-1] + 1, int(np.searchsorted(ends, before + limit + 1e-6, side="right"))))
    if len(cuts) > 2 and ends[-1] - ends[cuts[-2] - 1] < limit / 2:
        cuts[-2] = (cuts[-3] + len(costs)) // 2  # no last batch of a few pairs, which few parts could share
    return np.array(cuts)


def _check(name: str, value: int, *, least: int, most: int | None = None) -> None:
    if type(value) is not int or value < least or (most is not None and value > most):
        upto = "" if most is None else f" and at most {most}"
        raise ValueError(f"{name} must be a whole number of at least {least}{upto}; got {value!r}")
