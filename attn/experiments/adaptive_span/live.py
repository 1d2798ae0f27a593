"""The chapter's live check: on the text of known entropy, fresh small runs find what a short span does not."""

from __future__ import annotations

from collections.abc import Callable

from attn.experiments.adaptive_span.runs import budgets, span_config
from attn.reproduction.live import Band
from attn.reproduction.runner import LiveRun


def _metric(name: str) -> Callable[[LiveRun], float]:
    return lambda run: run.outcome.metrics[name].value


_FIXED, _FROM_MAX = "copies/fixed_128", "copies/adaptive_128_from_max"
BANDS = (
    Band(_FIXED, "Fixed spans of 128 characters: bits per character", _metric("valid_bits"), 1.2),
    Band(_FROM_MAX, "Adaptive spans from the maximum: bits per character", _metric("valid_bits"), 1.2),
    Band(_FROM_MAX, "Mean span at the end, from a maximum of 128 characters", _metric("mean_span"), 100.0),
)  # fmt: skip


def optimum_words() -> str:
    """The least possible bits on the text of the live check, in a sentence."""
    budget = budgets("copies")["ci"]
    short, whole = (span_config("copies", budget, name) for name in ("fixed_32", "fixed_128"))
    least = [
        config.source.entropy_rate(config.model.n_layers * config.model.max_span) for config in (short, whole)
    ]
    return (
        f"Least possible on this text: {least[1]:.3f} bits per character, and {least[0]:.3f} with what all layers "
        f"together see through spans of {short.model.max_span}."
    )
