"""The chapter's live check: a small Transformer and a recurrent model learn to translate generated sentences."""

from __future__ import annotations

from collections.abc import Callable

from attn.reproduction.live import Band
from attn.reproduction.runner import LiveRun


def _metric(name: str) -> Callable[[LiveRun], float]:
    return lambda run: run.outcome.metrics[name].value


_TASK = "spoken_numbers/transformer"
BANDS = (
    Band(_TASK, "Numbers and dates in words: share of new sentences translated word for word", _metric("exact_test"),
         0.7, above=True),
    Band(_TASK, "The same: BLEU", _metric("bleu_test"), 85.0, above=True),
    Band(_TASK, "The same: perplexity per subword", _metric("perplexity"), 1.3),
)  # fmt: skip
