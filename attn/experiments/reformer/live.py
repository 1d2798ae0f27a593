"""The chapter's live check: full attention by the conventions of LSH learns the task, and hashing keeps most of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attn.experiments.reformer.runs import LABELS
from attn.reproduction.live import Band, live_rows
from attn.reproduction.runner import LiveRun


def _accuracy(evaluation: str) -> Callable[[LiveRun], float]:
    return lambda run: run.outcome.metrics[f"accuracy_{evaluation}"].value


_FULL, _LSH, BASELINE = "duplication/full", "duplication/lsh4", "duplication/full_plain"
BANDS = (
    Band(_FULL, "Trained and evaluated with full attention: share of symbols", _accuracy("full"), 0.99, above=True),
    Band(_FULL, "The same model evaluated with LSH of 8 rounds", _accuracy("lsh8"), 0.9, above=True),
    Band(_FULL, "The same model where tokens may attend to themselves", _accuracy("full_with_self"), 0.1),
    Band(_LSH, "Trained and evaluated with LSH of 4 rounds", _accuracy("lsh4"), 0.95, above=True),
)  # fmt: skip
# What the baseline shows beside each of them: its own full attention lets tokens attend to themselves, and it was not
# trained with hashing.
_OWN = Band(BASELINE, "Evaluated as it was trained", _accuracy("full_plain"), 0.99, above=True)
BESIDE = (_OWN, BANDS[1], _OWN, None)


def checked(live: Mapping[str, LiveRun]) -> list[dict[str, Any]]:
    """Rows of the live-check table; runs by experiment id."""
    other = live.get(BASELINE)
    return [
        row | {"baseline": beside.words(other) if beside and other else None}
        for band, beside in zip(BANDS, BESIDE, strict=True)
        for row in live_rows([band], live)
    ]


def baseline_words() -> list[str]:
    """What the baseline is, and what it is evaluated with."""
    _, _, model = BASELINE.partition("/")
    return [
        f"Baseline: {LABELS[model]}. Its full attention is its own, in which tokens may attend to themselves in "
        "training too. It is not trained with LSH."
    ]
