"""The chapter's live check: with a memory a table of facts is stored within a budget that is too short without."""

from __future__ import annotations

from collections.abc import Callable

from attn.experiments.product_keys.runs import facts_id
from attn.reproduction.live import Band
from attn.reproduction.runner import LiveRun


def _metric(name: str) -> Callable[[LiveRun], float]:
    return lambda run: run.outcome.metrics[name].value


def _stored(run: LiveRun) -> float:
    metrics = run.outcome.metrics
    return metrics["stored_bits"].value / metrics["table_bits"].value


LIVE_FACTS, LAYER = 2048, 2
WITH, WITHOUT = facts_id(LIVE_FACTS, "keys32"), facts_id(LIVE_FACTS, "none")
# What a model without memory is asked too. It has to stay below the level that the other one has to pass, so that the
# two are told apart: with seeds 0 to 2 the levels lie about half-way between both.
_ASKED_OF_BOTH = (
    ("share recalled", _metric("recalled"), 0.95),
    ("share of the table's bits that are stored", _stored, 0.88),
)
RECALL = tuple(
    Band(WITH, f"Key-value facts with a memory: {asked}", value, level, above=True)
    for asked, value, level in _ASKED_OF_BOTH
)
BASELINE = tuple(
    Band(WITHOUT, f"The same facts without a memory: {asked}", value, level)
    for asked, value, level in _ASKED_OF_BOTH
)
INSIDE = (
    Band(WITH, "Slots used, percent", _metric(f"usage_layer{LAYER}"), 80, above=True),
    Band(
        WITH,
        "Share of searches by halves that are exact",
        _metric(f"search_exact_layer{LAYER}"),
        0.999,
        above=True,
    ),
)
BANDS = (*RECALL, *BASELINE, *INSIDE)
