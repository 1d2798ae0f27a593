"""A model for searches that looks its logits up, so that a test can write down or enumerate what it prefers."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

Tokens = tuple[int, ...]
Lookup = Callable[
    [Tokens, Tokens], Sequence[float]
]  # from source and prefix, without padding and start token


class TableState(NamedTuple):
    sources: tuple[Tokens, ...]
    prefixes: tuple[Tokens, ...]

    def select(self, index: Tensor, *, same_source: bool = False) -> "TableState":
        sources = tuple(self.sources[row] for row in index.tolist())
        if same_source:
            assert sources == self.sources, "rows changed their source, against what the search said"
        return TableState(sources, tuple(self.prefixes[row] for row in index.tolist()))


class TableModel(nn.Module):
    """Logits of the next token by `lookup`; notes the rows of every step in `rows`."""

    def __init__(self, lookup: Lookup, *, pad: int = 0, bos: int = 1, dtype: torch.dtype = torch.float64):
        super().__init__()
        self.lookup, self.pad, self.bos = lookup, pad, bos
        self.weight = nn.Parameter(torch.ones((), dtype=dtype))
        self.rows: list[int] = []

    def encode(self, source: Tensor) -> tuple[Tensor]:
        return (source,)

    def initial_state(self, source: Tensor) -> TableState:
        sources = tuple(tuple(token for token in row if token != self.pad) for row in source.tolist())
        return TableState(sources, ((),) * len(sources))

    def step(self, target: Tensor, state: TableState) -> tuple[Tensor, TableState]:
        self.rows.append(len(target))
        logits, prefixes = [], []
        for source, prefix, tokens in zip(*state, target.tolist(), strict=True):
            for token in tokens:
                if token != self.bos:
                    prefix = (*prefix, token)
                logits.append(list(self.lookup(source, prefix)))
            prefixes.append(prefix)
        logits = self.weight * torch.tensor(logits, dtype=self.weight.dtype)
        return logits.view(*target.shape, -1), state._replace(prefixes=tuple(prefixes))


def random_table(vocab_size: int, *, seed: int, scale: float = 2.0) -> Lookup:
    """Normal logits for every source and prefix."""

    def lookup(source: Tokens, prefix: Tokens) -> list[float]:
        generator = random.Random(repr((seed, source, prefix)))
        return [generator.gauss(0, scale) for _ in range(vocab_size)]

    return lookup


def written_table(
    probabilities: Mapping[Tokens, Mapping[int, float]], *, vocab_size: int, otherwise: Mapping[int, float]
) -> Lookup:
    """Logarithms of given probabilities for some prefixes, and of `otherwise` for all others; the rest is 0."""

    def lookup(source: Tokens, prefix: Tokens) -> list[float]:
        here = torch.zeros(vocab_size, dtype=torch.float64)
        for token, probability in probabilities.get(prefix, otherwise).items():
            here[token] = probability
        return here.log().tolist()

    return lookup
