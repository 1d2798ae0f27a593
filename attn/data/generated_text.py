"""A generated text of known entropy, in which stretches of letters come back from known distances.

It is made of blocks of letters between two equal marks, as in "0dbac0" "2cabb2": in turn a block with mark 0, whose
letters are new, and one with a mark k, which repeats the letters of the block that lies k's distance before it. How
many bits a character costs at least is known exactly, for a model that sees everything as for one that sees only the
last so many characters. So far-reaching attention has something to gain here, and it is known what.

Shapes: N characters, A letters, L letters of a stretch, K distances; a block has L + 2 characters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from attn.data.episodic import check_count

_LETTERS, _MARKS = "abcdefghijklmnopqrstuvwxyz", "0123456789"
# How much the letters after a letter differ in probability: standard deviation of the logarithms.
_UNEVENNESS = 1.5


@dataclass(frozen=True, kw_only=True)
class GeneratedText:
    """A source of text.

    New letters follow a Markov chain of first order from its stationary law on, whose table is drawn once from
    `language_seed`. The mark of every second block is drawn on its own. Where a distance leads to before the text,
    there are stretches that nobody has seen, so that the first blocks follow the same law as all others.

    Attributes:
        n_letters: A, at most 26.
        stretch_length: L.
        distances: how many blocks back marks 1, 2, ... lead; odd, ascending, at most 9.
        shares: probability of each of these marks; None for equal ones.
        repeats: False for a control of the same marks and letters where every stretch is new.
        language_seed: of the table of letters.

    Raises:
        ValueError: if a size is out of range, a distance is even, or the shares are not above 0 or do not sum to 1.
    """

    n_letters: int = 8
    stretch_length: int = 14
    distances: tuple[int, ...] = (1, 3, 7, 15)
    shares: tuple[float, ...] | None = None
    repeats: bool = True
    language_seed: int = 0

    def __post_init__(self) -> None:
        check_count("n_letters", self.n_letters, least=2)
        check_count("stretch_length", self.stretch_length)
        check_count("language_seed", self.language_seed, least=0)
        if self.n_letters > len(_LETTERS):
            raise ValueError(f"n_letters must be at most {len(_LETTERS)}; got {self.n_letters}")
        odd = all(type(blocks) is int and blocks > 0 and blocks % 2 for blocks in self.distances)
        ascending = sorted(set(self.distances)) == list(self.distances)
        if not (odd and ascending and 1 <= len(self.distances) < len(_MARKS)):
            raise ValueError(
                f"distances must be 1 to {len(_MARKS) - 1} odd numbers of blocks, ascending; got {self.distances}"
            )
        shares = self.mark_shares
        if len(shares) != len(self.distances) or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-9:
            raise ValueError(
                f"shares must be above 0 and sum to 1, one for each of {len(self.distances)} distances; got "
                f"{self.shares}"
            )

    @property
    def mark_shares(self) -> np.ndarray:
        """Probability of marks 1, 2, ... [K]."""
        count = len(self.distances)
        return np.full(count, 1 / count) if self.shares is None else np.array(self.shares, float)

    @property
    def vocab_size(self) -> int:
        """Letters, mark 0 and the others."""
        return self.n_letters + 1 + len(self.distances)

    @property
    def block_length(self) -> int:
        """L + 2, characters of a block with its marks."""
        return self.stretch_length + 2

    @property
    def least_context(self) -> int:
        """L + 1 characters: what a model has to see at least for the optimum to be known."""
        return self.stretch_length + 1

    def decode(self, tokens: Tensor) -> str:
        """Letters as a, b, ..., marks as 0, 1, ..."""
        symbols = _LETTERS[: self.n_letters] + _MARKS
        return "".join(symbols[index] for index in tokens.tolist())

    # --- Drawing -------------------------------------------------------------------------------------------

    def sample(self, n_characters: int, generator: torch.Generator) -> Tensor:
        """A text from the start of a new block on, uint8 [n_characters]; `generator` is on the CPU."""
        check_count("n_characters", n_characters)
        n_blocks = -(-n_characters // self.block_length)
        marks = np.zeros(n_blocks, np.int64)
        marks[1::2] = 1 + _drawn(self.mark_shares, _uniform(generator, n_blocks // 2))
        which = self._stretches(marks) if self.repeats else np.arange(n_blocks)
        letters = self._new_stretches(int(which.max()) + 1, generator)[which]
        edges = (self.n_letters + marks)[:, None]
        text = np.concatenate([edges, letters, edges], axis=1).astype(np.uint8)
        return torch.from_numpy(text.ravel()[:n_characters].copy())

    def _new_stretches(self, count: int, generator: torch.Generator) -> np.ndarray:
        """Letters [count, L]."""
        drawn = _uniform(generator, count, self.stretch_length)
        letters = np.empty(drawn.shape, np.int64)
        letters[:, 0] = _drawn(self.letter_shares, drawn[:, 0])
        for place in range(1, self.stretch_length):
            letters[:, place] = _drawn(self.transitions[letters[:, place - 1]], drawn[:, place])
        return letters

    def _stretches(self, marks: np.ndarray) -> np.ndarray:
        """Which stretch each block holds, in the order of their first blocks from before the text on."""
        back = np.array([0, *self.distances])[marks]
        return (np.arange(len(marks)) - back + self.distances[-1]) // 2

    # --- The law of letters --------------------------------------------------------------------------------

    @cached_property
    def transitions(self) -> np.ndarray:
        """Probability of each letter (column) after each (row) [A, A]."""
        generator = torch.Generator().manual_seed(self.language_seed)
        logits = torch.randn(self.n_letters, self.n_letters, generator=generator, dtype=torch.float64)
        return torch.softmax(_UNEVENNESS * logits, dim=1).numpy()

    @cached_property
    def letter_shares(self) -> np.ndarray:
        """The stationary law of the chain [A]."""
        system = np.vstack([self.transitions.T - np.eye(self.n_letters), np.ones(self.n_letters)])
        return np.linalg.lstsq(system, np.append(np.zeros(self.n_letters), 1.0), rcond=None)[0]

    def letter_entropy(self, steps: int) -> float:
        """Bits of a letter given the one so many places before it; 0 places: of a letter on its own."""
        if not steps:
            return float(_entropy(self.letter_shares))
        law = np.linalg.matrix_power(self.transitions, steps)
        return float(self.letter_shares @ _entropy(law))

    # --- The optimum ---------------------------------------------------------------------------------------

    def optimal_bits(self, tokens: Tensor, context: int | None = None) -> Tensor:
        """Bits that each character costs the best possible model of this source.

        The model knows the source and sees the last `context` characters. The marks in sight tell which stretches
        are equal, so a letter whose place in an earlier copy is in sight costs nothing, and any other what the
        chain says: given the letter before it and, where the edge of sight cuts through an earlier copy, the
        letters after it there.

        Args:
            tokens: a text from the start of a new block on [N].
            context: characters in sight, at least `least_context`; None for all.

        Returns:
            Bits, float64 [N]; infinite where this source could not have gone on so.

        Raises:
            ValueError: for a smaller context, or a text that is not made of such blocks.
        """
        reach, gap = self._sight(context)
        marks, letters = self._parsed(tokens)
        bits = np.zeros((len(marks), self.block_length))
        bits[1::2, 0] = -np.log2(self.mark_shares)[marks[1::2] - 1]
        inner = bits[:, 1:-1]  # a view [blocks, L]
        inner[:] = self._chain_bits(letters)
        if self.repeats:
            source = _last_equal(self._stretches(marks))
            back = np.where(source < 0, -1, np.arange(len(marks)) - source)  # -1: not in this text
            seen, cut = (back > 0) & (back <= reach), np.flatnonzero(back == reach + 1)
            inner[seen] = np.where(letters[seen] == letters[source[seen]], 0, math.inf)
            inner[cut] += self._saved_bits(letters[cut], letters[source[cut]], gap)
        return torch.from_numpy(bits.ravel()[: len(tokens)].copy())

    def entropy_rate(self, context: int | None = None) -> float:
        """Mean of `optimal_bits` far from the start of a text, from the law itself."""
        reach, gap = self._sight(context)
        length = self.stretch_length
        single, pair = self.letter_entropy(0), self.letter_entropy(1)
        new = single + (length - 1) * pair  # bits of a stretch
        bits = float(_entropy(self.mark_shares)) + new
        if not self.repeats:
            return (bits + new) / (2 * self.block_length)
        saved = 0.0  # bits of a stretch whose last copy is cut by the edge of sight
        if gap < length:
            beside, beyond = self.letter_entropy(gap), self.letter_entropy(gap + 1)
            # H(x_0) - H(x_0 | x_gap), and H(x_o | x_o-1) - H(x_o | x_o-1, x_o+gap) for L - gap - 1 others
            saved = single - beside + (length - gap - 1) * (beyond - beside)
        for mark, share in enumerate(self.mark_shares):
            unseen = self._unseen_share(mark, reach)
            cut = unseen - self._unseen_share(mark, reach + 1)
            bits += share * (unseen * new - cut * saved)
        return float(bits) / (2 * self.block_length)

    def repeat_shares(self, n_blocks: int) -> np.ndarray:
        """Of the repeating blocks, the share whose letters last stood 1, 2, ..., `n_blocks` blocks back [n_blocks]."""
        check_count("n_blocks", n_blocks)
        unseen = np.array(
            [
                sum(share * self._unseen_share(mark, reach) for mark, share in enumerate(self.mark_shares))
                for reach in range(n_blocks + 1)
            ]
        )
        return unseen[:-1] - unseen[1:]

    def _unseen_share(self, mark: int, reach: float) -> float:
        """Probability that the letters of a block with this mark, from 0, are in none of `reach` blocks before it."""
        distance = self.distances[mark]
        if reach >= distance:
            return 0.0
        # a block lies so far back that a shorter distance leads from there to the same stretch
        chances = [
            1 - share
            for shorter, share in zip(self.distances[:mark], self.mark_shares, strict=False)
            if distance - shorter <= reach
        ]
        return math.prod(chances)

    def _sight(self, context: int | None) -> tuple[float, int]:
        """Blocks back in sight from the same place on, and from how many places later on the one before these."""
        if context is None:
            return math.inf, self.block_length
        check_count("context", context, least=self.least_context)
        reach = context // self.block_length
        return reach, (reach + 1) * self.block_length - context

    def _parsed(self, tokens: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Marks [blocks] and letters [blocks, L]; letters beyond the end of the text are 0."""
        if tokens.dim() != 1 or not len(tokens):
            raise ValueError(
                f"tokens must be a text [N] of at least 1 character; got shape {list(tokens.shape)}"
            )
        ids = tokens.cpu().numpy().astype(np.int64)
        missing = -len(ids) % self.block_length
        blocks = np.append(ids, np.zeros(missing, np.int64)).reshape(-1, self.block_length)
        if missing:
            blocks[-1, -1] = blocks[-1, 0]
        marks, letters = blocks[:, 0] - self.n_letters, blocks[:, 1:-1]
        is_repeat = np.arange(len(blocks)) % 2 == 1
        fits = np.where(is_repeat, (marks > 0) & (marks <= len(self.distances)), marks == 0)
        fits &= (blocks[:, -1] == blocks[:, 0]) & ((letters >= 0) & (letters < self.n_letters)).all(axis=1)
        if not fits.all():
            wrong = int(np.argmin(fits))
            raise ValueError(
                f"tokens must be blocks of letters below {self.n_letters} between two equal marks, {self.n_letters} and "
                f"in turn one up to {self.vocab_size - 1}; block {wrong} is {blocks[wrong].tolist()}"
            )
        return marks, letters

    def _chain_bits(self, letters: np.ndarray) -> np.ndarray:
        """What each letter costs given the one before it [blocks, L]."""
        chances = np.empty(letters.shape)
        chances[:, 0] = self.letter_shares[letters[:, 0]]
        chances[:, 1:] = self.transitions[letters[:, :-1], letters[:, 1:]]
        return -np.log2(chances)

    def _saved_bits(self, letters: np.ndarray, copy: np.ndarray, gap: int) -> np.ndarray:
        """What they cost more (below 0: less) if a copy is in sight from `gap` places after each on [blocks, L]."""
        saved = np.zeros(letters.shape)
        if gap >= self.stretch_length:
            return saved
        onward = np.linalg.matrix_power(self.transitions, gap)
        later = copy[:, gap:]  # the next letter in sight, for each of the first L - gap
        here = letters[:, : later.shape[1]]
        without = np.empty(later.shape)  # its probability, given the letter before
        without[:, 0] = self.letter_shares[later[:, 0]]
        without[:, 1:] = (self.transitions @ onward)[here[:, :-1], later[:, 1:]]
        saved[:, : later.shape[1]] = np.log2(without) - np.log2(onward[here, later])
        return saved


def _uniform(generator: torch.Generator, *shape: int) -> np.ndarray:
    """Numbers from 0 to below 1."""
    return torch.rand(shape, generator=generator, dtype=torch.float64).numpy()


def _drawn(shares: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Indices by these probabilities, one law [C] for all numbers [M] or one for each [M, C]."""
    return (uniform[:, None] >= np.cumsum(shares, axis=-1)[..., :-1]).sum(axis=1)


def _entropy(shares: np.ndarray) -> np.ndarray:
    """Bits of the laws along the last axis."""
    return -(shares * np.log2(shares)).sum(axis=-1)


def _last_equal(values: np.ndarray) -> np.ndarray:
    """The place of the last equal value before each, or -1."""
    order = np.argsort(values, kind="stable")
    equal = values[order][1:] == values[order][:-1]
    last = np.full(len(values), -1)
    last[order[1:][equal]] = order[:-1][equal]
    return last
