"""A generated text of facts to be remembered, and language models on it: here persistent vectors have something to hold.

Facts follow each other without marks between: the tokens of a random key, then those of its value. Which fact comes next
cannot be known, but a value follows from its key for whoever has stored the table. So it is known what a token costs at
least, and what it costs a model that has stored nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import log2

import torch
from torch import Tensor

from attn.data.key_value_facts import KeyValueFacts
from attn.data.language_text import GENERATED, LanguageText, TextConfig
from attn.experiments.adaptive_span.workloads import SpanTextConfig
from attn.experiments.all_attention.workloads import AllAttentionWorkload
from attn.training.seeding import generator_for


@dataclass(frozen=True, kw_only=True)
class FactsConfig(SpanTextConfig):
    """One run on a text of facts; `text` says how long its splits are.

    Raises:
        ValueError: if `text` names another corpus.
    """

    n_facts: int
    key_len: int
    n_key_tokens: int
    n_values: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.text.corpus != GENERATED:
            raise ValueError(f"text.corpus must be {GENERATED!r}; got {self.text.corpus!r}")

    @property
    def source(self) -> KeyValueFacts:
        """The table that the text is drawn from."""
        return KeyValueFacts(
            n_facts=self.n_facts, key_len=self.key_len, n_key_tokens=self.n_key_tokens, n_values=self.n_values,
            facts_per_sequence=1,
        )  # fmt: skip

    @property
    def least_bits(self) -> float:
        """Bits a token of the best possible model: which fact comes next, spread over its tokens."""
        return log2(self.n_facts) / self.source.fact_len

    @property
    def unknown_bits(self) -> float:
        """Bits a token of a model that knows all keys and no value."""
        return self.least_bits + log2(self.n_values) / self.source.fact_len


@cache
def facts_text(source: KeyValueFacts, config: TextConfig) -> LanguageText:
    """Three splits of facts from one table, drawn once per process."""
    return LanguageText(
        splits={split: _drawn(source, size, split) for split, size in config.sizes.items()},
        vocab_size=source.vocab_size,
        title="generated text of facts to be remembered",
    )


def _drawn(source: KeyValueFacts, size: int, split: str) -> Tensor:
    n_facts = -(-size // source.fact_len)
    numbers = source.draw_facts(n_facts, generator_for(source.seed, "facts", "text", split)).flatten()
    tokens = torch.cat([source.keys[numbers], source.values[numbers]], dim=-1).flatten()
    return tokens[:size].to(torch.int32)


def build_facts(config: FactsConfig, seed: int, device: torch.device) -> AllAttentionWorkload:
    """Workload on a text of facts."""
    return AllAttentionWorkload(config, seed, device, facts_text(config.source, config.text))
