"""A generated text in which it is known how far back it pays to look, and language models on it.

Blocks of letters come back from a ladder of distances, each within a ramp of the next, so that a span can grow from one
to the next. Beyond the last distance nothing is left to find.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

from attn.data.generated_text import GeneratedText
from attn.data.language_text import GENERATED, LanguageText, TextConfig, generated
from attn.experiments.adaptive_span.workloads import SpanTextConfig, SpanWorkload


@dataclass(frozen=True, kw_only=True)
class CopiesConfig(SpanTextConfig):
    """One run on the generated text; `text` says how long its splits are."""

    stretch_length: int
    distances: tuple[int, ...]  # in blocks of stretch_length + 2 characters

    @property
    def source(self) -> GeneratedText:
        """What the text is drawn from."""
        return GeneratedText(stretch_length=self.stretch_length, distances=self.distances)

    @property
    def reach(self) -> int:
        """How many characters back the farthest letter lies that helps."""
        return self.distances[-1] * (self.stretch_length + 2) - 1


@cache
def copies_text(source: GeneratedText, text: TextConfig) -> LanguageText:
    """Its splits, drawn once per process."""
    return generated(source, text, about=", ladder of distances")


def build_copies(config: CopiesConfig, seed: int, device: torch.device) -> SpanWorkload:
    """Workload on the generated text.

    Raises:
        ValueError: if `text` names another corpus.
    """
    if config.text.corpus != GENERATED:
        raise ValueError(f"text.corpus must be {GENERATED!r}; got {config.text.corpus!r}")
    return SpanWorkload(config, seed, device, copies_text(config.source, config.text))
