"""Key-value facts to be recalled: a generated text of which it is known how many bits there are to remember.

A fact is a random key and a random value, both sequences of tokens. Facts are fixed by a seed, and a text is a run of
facts drawn at known rates. No key tells anything of its value, so whoever predicts values has stored them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import log, log2

import torch
import torch.nn.functional as F
from torch import Tensor

from attn.data.episodic import check_count
from attn.data.token_batch import TokenBatch
from attn.training.seeding import generator_for


@dataclass(frozen=True, kw_only=True)
class KeyValueFacts:
    """A table of facts and texts made from it.

    Tokens below `n_values` are those of values, the rest those of keys. In a text, tokens of values are scored, but not
    where a fact comes up again: there it could be copied.

    Attributes:
        n_facts: F, in the table.
        key_len: tokens of a key; no two facts have the same key.
        value_len: tokens of a value, each uniform over `n_values`.
        n_key_tokens: different tokens in keys.
        n_values: different tokens in values, at least 2.
        facts_per_sequence: M.
        rate_exponent: a; fact i (from 0) is drawn with a probability proportional to (i + 1) ** -a. 0 draws all alike.
        seed: of the table, at least 0.

    Raises:
        ValueError: for a size below 1, fewer than 2 values, a negative exponent, or more facts than keys.
    """

    n_facts: int
    key_len: int = 3
    value_len: int = 1
    n_key_tokens: int = 64
    n_values: int = 64
    facts_per_sequence: int = 8
    rate_exponent: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n_facts", "key_len", "value_len", "n_key_tokens", "facts_per_sequence"):
            check_count(name, getattr(self, name))
        check_count("n_values", self.n_values, least=2)  # one value would be nothing to remember
        if not 0 <= self.rate_exponent < float("inf"):
            raise ValueError(
                f"rate_exponent must be a finite number of at least 0; got {self.rate_exponent!r}"
            )
        if self.n_facts > self.key_space or self.key_space >= 2**62:
            raise ValueError(
                f"n_facts must be at most n_key_tokens ** key_len = {self.key_space}, the number of keys, and that "
                f"below 2 ** 62; got {self.n_facts}"
            )

    @property
    def key_space(self) -> int:
        """Keys that there could be."""
        return self.n_key_tokens**self.key_len

    @property
    def vocab_size(self) -> int:
        """Tokens of values and of keys."""
        return self.n_values + self.n_key_tokens

    @property
    def fact_len(self) -> int:
        """Tokens of a fact."""
        return self.key_len + self.value_len

    @property
    def bits(self) -> float:
        """What there is to remember: facts x log2(values), times `value_len`."""
        return self.n_facts * self.value_len * log2(self.n_values)

    @cached_property
    def keys(self) -> Tensor:
        """Tokens of every key [F, key_len]."""
        generator = generator_for(self.seed, "facts", "keys")
        numbers = _distinct(self.n_facts, self.key_space, generator)
        digits = [numbers // self.n_key_tokens**place % self.n_key_tokens for place in range(self.key_len)]
        return torch.stack(digits, dim=1) + self.n_values

    @cached_property
    def values(self) -> Tensor:
        """Tokens of every value [F, value_len]."""
        generator = generator_for(self.seed, "facts", "values")
        return torch.randint(self.n_values, (self.n_facts, self.value_len), generator=generator)

    @cached_property
    def rates(self) -> Tensor:
        """Probability of every fact at each draw [F], float64."""
        weight = torch.arange(1, self.n_facts + 1, dtype=torch.float64) ** -self.rate_exponent
        return weight / weight.sum()

    def shown(self, n_draws: int) -> Tensor:
        """Probability that each fact has come up in so many draws [F]: the most that can be recalled, chance apart."""
        return 1 - (1 - self.rates) ** n_draws

    def draw_facts(self, batch_size: int, generator: torch.Generator) -> Tensor:
        """Numbers of the facts in sequences [B, M], each drawn at its rate whatever the others are."""
        check_count("batch_size", batch_size)
        uniform = torch.rand(batch_size, self.facts_per_sequence, dtype=torch.float64, generator=generator)
        return torch.searchsorted(self.rates.cumsum(0), uniform, right=True).clamp_(max=self.n_facts - 1)

    def sample(self, batch_size: int, generator: torch.Generator) -> TokenBatch:
        """Sequences drawn from `generator`, which is on the CPU [B, M * fact_len - 1]."""
        return self.sequences(self.draw_facts(batch_size, generator))

    def all_facts(self) -> TokenBatch:
        """Every fact once, in a sequence of its own, in the order of the table [F, fact_len - 1]."""
        return self.sequences(torch.arange(self.n_facts).unsqueeze(1))

    def sequences(self, facts: Tensor) -> TokenBatch:
        """The text of given facts [B, M], one after another."""
        tokens = torch.cat([self.keys[facts], self.values[facts]], dim=-1)  # [B, M, fact_len]
        same = facts.unsqueeze(2) == facts.unsqueeze(1)  # [B, M, M]
        is_first = ~same.tril(-1).any(-1)
        is_value = torch.arange(self.fact_len) >= self.key_len
        scored = (is_first.unsqueeze(-1) & is_value).flatten(1)
        tokens = tokens.flatten(1)
        return TokenBatch(tokens[:, :-1], tokens[:, 1:], scored[:, 1:])

    def by_fact(self, per_target: Tensor) -> Tensor:
        """Numbers given for each target [B, M * fact_len - 1], such as costs, sorted out: [B, M, value_len]."""
        return F.pad(per_target, (1, 0)).unflatten(1, (-1, self.fact_len))[..., self.key_len :]

    def stored_bits(self, nats_per_token: float) -> float:
        """Bits of the table that a model need not be told any more.

        Args:
            nats_per_token: its mean cost of a scored token of `all_facts`.

        Returns:
            `bits` less what the values cost: `bits` for perfect recall, 0 for an even guess among all values, less
            for a model that is wrong and sure of it.
        """
        return self.bits - self.n_facts * self.value_len * nats_per_token / log(2)


def _distinct(count: int, below: int, generator: torch.Generator) -> Tensor:
    """Different whole numbers below a bound, in random order."""
    if below <= 4 * count:
        return torch.randperm(below, generator=generator)[:count]
    found = torch.empty(0, dtype=torch.long)
    while len(found) < count:  # about once: at most a quarter of all numbers is wanted
        found = torch.cat([found, torch.randint(below, (2 * count,), generator=generator)]).unique()
    return found[torch.randperm(len(found), generator=generator)[:count]]
