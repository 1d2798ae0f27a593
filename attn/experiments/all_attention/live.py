"""The chapter's live check: what small runs on generated text must show."""

from __future__ import annotations

from collections.abc import Callable

from attn.reproduction.live import Band
from attn.reproduction.runner import LiveRun


def _metric(name: str) -> Callable[[LiveRun], float]:
    """A final metric; 0 for a model that does not have it."""

    def value(run: LiveRun) -> float:
        metrics = run.outcome.metrics
        return metrics[name].value if name in metrics else 0.0

    return value


def _gain_from_cache(run: LiveRun) -> float:
    metrics = run.outcome.metrics
    return metrics["valid_bits_without_cache"].value - metrics["valid_bits"].value


_ALL, _FF = "letters/all", "letters/ff"
BANDS = (
    Band(_ALL, "All-attention: bits per symbol of new text", _metric("valid_bits"), 1.8),
    Band(_ALL, "All-attention: bits that the cache of earlier blocks saves", _gain_from_cache, 0.02, above=True),
    Band(_ALL, "All-attention: share of the weight on persistent vectors", _metric("persistent_mass"), 0.2, above=True),
    Band(_FF, "Attention and feed-forward: bits per symbol of new text", _metric("valid_bits"), 1.8),
)  # fmt: skip
