"""The chapter's live check: what fresh, small runs must show, in bands coarser than the noise between machines."""

from __future__ import annotations

from collections.abc import Callable

from attn.evaluation.curves import running_median
from attn.experiments.ntm.tables import SOLVED
from attn.reproduction.live import Band
from attn.reproduction.runner import LiveRun


def _cost(run: LiveRun) -> float:
    return running_median([entry["bits_per_sequence"] for entry in run.result.history])[-1]


def _metric(name: str) -> Callable[[LiveRun], float]:
    return lambda run: run.outcome.metrics[name].value


def _errors_above_optimal(run: LiveRun) -> float:
    """How many standard errors the model's cost lies above the optimal one."""
    metrics = run.outcome.metrics
    return metrics["bits_above_optimal"].value / metrics["bits_above_optimal_error"].value


def _gain_from_context(run: LiveRun) -> float:
    """Which share of what contexts are worth the model has found: 1 for the optimal estimator."""
    metrics = run.outcome.metrics
    blind = metrics["context_free_bits_per_sequence"].value
    worth = blind - metrics["optimal_bits_per_sequence"].value
    return (blind - metrics["bits_per_sequence"].value) / worth


_BITS, _ANSWER = "bits per output bit", "bits per sequence"
BANDS = (
    Band("copy/ntm_lstm", f"Copy, 1 to 5 vectors, the training lengths: {_ANSWER}", _cost, SOLVED),
    Band("copy/ntm_lstm", f"Copy, 10 vectors, twice the longest seen: {_BITS}", _metric("bits_per_bit_at_10"), 0.25),
    Band("repeat_copy/ntm_ff", f"Repeat copy, 1 to 3 vectors, once or twice: {_ANSWER}", _cost, 12.0),
    Band("associative/ntm_lstm", f"Associative recall, 2 or 3 items of one vector: {_ANSWER}", _cost, 3.0),
    Band("ngrams/ntm_lstm", "Dynamic 3-grams: share found of what the context is worth", _gain_from_context, 0.1,
         above=True),
    Band("ngrams/ntm_lstm", "Dynamic 3-grams: standard errors above the optimal cost", _errors_above_optimal, -4.0,
         above=True),
    Band("priority_sort/ntm_lstm", f"Priority sort, 3 of 4 vectors: {_BITS}", _metric("bits_per_bit"), 0.85),
)  # fmt: skip
