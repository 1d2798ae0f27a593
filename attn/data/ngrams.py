"""Dynamic n-grams: predict bits whose law is drawn anew for every sequence (arXiv:1410.5401, Sec. 4.4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attn.data.episodic import Episodes, EpisodicTask, check_bits, check_count, draw_bits


@dataclass(frozen=True, kw_only=True)
class NGramTask(EpisodicTask):
    """Predict every bit of a sequence from those before it.

    Each sequence has a table of its own: the probability of a 1 after each context of n - 1 bits, drawn from
    Beta(1/2, 1/2). The first n - 1 bits are fair coin flips. At step t the input is bit t - 1 (0 at the start) and
    the target is bit t; all steps are scored, so that chance is one bit a step.

    Attributes:
        order: n; contexts are n - 1 bits long.
        length: bits per sequence, more than n - 1.

    Raises:
        ValueError: if `order` is below 1 or `length` below n.
    """

    order: int = 6
    length: int = 200

    def __post_init__(self) -> None:
        check_count("order", self.order)
        check_count("length", self.length, least=self.order)

    @property
    def n_bits(self) -> int:
        """A step is one bit."""
        return 1

    @property
    def n_inputs(self) -> int:
        """The last bit."""
        return 1

    @property
    def n_outputs(self) -> int:
        """The next bit."""
        return 1

    @property
    def n_vectors(self) -> int:
        """Nothing must be kept word for word."""
        return 0

    def draw(self, batch_size: int, generator: torch.Generator) -> Episodes:
        """Episodes, each with a table of its own; there is one size only."""
        check_count("batch_size", batch_size)
        table = _beta_half(batch_size, 2 ** (self.order - 1), generator)  # [B, contexts]
        bits = draw_bits(batch_size, self.order - 1, generator=generator).long()
        thresholds = torch.rand(batch_size, self.length, generator=generator)
        context = torch.zeros(batch_size, dtype=torch.long)
        for bit in bits.unbind(1):
            context = 2 * context + bit
        drawn = list(bits.unbind(1))
        for step in range(self.order - 1, self.length):
            chance = table.gather(1, context.unsqueeze(1)).squeeze(1)
            drawn.append((thresholds[:, step] < chance).long())
            context = (2 * context + drawn[-1]) % table.shape[1]
        return self.episodes(torch.stack(drawn, dim=1))

    def episodes(self, bits: Tensor) -> Episodes:
        """Episodes for given sequences.

        Args:
            bits: 0 and 1 [B, length].

        Raises:
            ValueError: if `bits` holds another value than 0 or 1 or has another shape.
        """
        bits = check_bits(bits, "batch", self.length)
        before = torch.cat([torch.zeros_like(bits[:, :1]), bits[:, :-1]], dim=1)
        scored = torch.ones(bits.shape, dtype=torch.bool)
        lengths = torch.full((len(bits),), self.length)
        return Episodes(before.unsqueeze(-1), bits.unsqueeze(-1), scored, lengths)

    def optimal(self, bits: Tensor) -> Tensor:
        """Probability of a 1 that the best estimator gives at each step (Krichevsky and Trofimov 1981; Sec. 4.4).

        It is the posterior mean under the law that the sequences are drawn from, (N1 + 1/2) / (N1 + N0 + 1) with the
        counts of ones and zeros that have followed the context so far, so that no causal predictor has a lower
        expected cost. The first n - 1 bits have probability 1/2.

        Args:
            bits: 0 and 1 [B, length].

        Returns:
            Probabilities [B, length], float64.
        """
        bits = check_bits(bits, "batch", self.length).double()
        reach = self.order - 1
        places = 2.0 ** torch.arange(reach, dtype=torch.float64)
        contexts = (
            bits.unfold(1, reach, 1)[:, :-1] @ places if reach else bits * 0
        ).long()  # [B, length - reach]
        seen = torch.nn.functional.one_hot(contexts, 2**reach).double()  # [B, length - reach, contexts]
        followed = bits[:, reach:]

        def so_far(counted: Tensor) -> Tensor:
            """How often the context of each step was counted before that step."""
            before = (seen * counted.unsqueeze(-1)).cumsum(1).roll(1, dims=1)
            before[:, 0] = 0
            return before.gather(2, contexts.unsqueeze(-1)).squeeze(-1)

        ones, zeros = so_far(followed), so_far(1 - followed)
        known = (ones + 0.5) / (ones + zeros + 1)
        return torch.cat([torch.full((len(bits), reach), 0.5, dtype=torch.float64), known], dim=1)


def _beta_half(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Draws from Beta(1/2, 1/2), the arcsine law: the squared sine of a uniform angle."""
    return torch.sin(torch.rand(rows, columns, generator=generator) * (torch.pi / 2)) ** 2
