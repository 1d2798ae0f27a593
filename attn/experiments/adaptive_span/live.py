"""The chapter's live check: on the text of known entropy, fresh small runs find what a short span does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attn.experiments.adaptive_span.runs import budgets, span_config
from attn.reproduction.live import Band, live_rows
from attn.reproduction.runner import LiveRun


def _metric(name: str) -> Callable[[LiveRun], float]:
    return lambda run: run.outcome.metrics[name].value


_FIXED, _FROM_MAX = "copies/fixed_128", "copies/adaptive_128_from_max"
BANDS = (
    Band(_FIXED, "Fixed spans of 128 characters: bits per character", _metric("valid_bits"), 1.2),
    Band(_FROM_MAX, "Adaptive spans from the maximum: bits per character", _metric("valid_bits"), 1.2),
    Band(_FROM_MAX, "Mean span at the end, from a maximum of 128 characters", _metric("mean_span"), 100.0),
)  # fmt: skip


def checked(live: Mapping[str, LiveRun]) -> list[dict[str, Any]]:
    """Rows of the live check: bits beside those of fixed spans of 32, the mean span beside that of fixed spans of 128.

    That baseline is 128 whatever is learned: what the mean would be of spans that never left their maximum.

    Args:
        live: runs by experiment id.
    """
    of_bits, of_spans = BANDS[:-1], BANDS[-1:]
    return [*live_rows(of_bits, live, baseline="fixed_32"), *live_rows(of_spans, live, baseline="fixed_128")]


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
