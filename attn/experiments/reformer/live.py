"""The chapter's live check: full attention by the conventions of LSH learns the task, and hashing keeps most of it."""

from __future__ import annotations

from collections.abc import Callable

from attn.reproduction.live import Band
from attn.reproduction.runner import LiveRun


def _accuracy(evaluation: str) -> Callable[[LiveRun], float]:
    return lambda run: run.outcome.metrics[f"accuracy_{evaluation}"].value


_FULL, _LSH = "duplication/full", "duplication/lsh4"
BANDS = (
    Band(_FULL, "Trained and evaluated with full attention: share of symbols", _accuracy("full"), 0.99, above=True),
    Band(_FULL, "The same model evaluated with LSH of 8 rounds", _accuracy("lsh8"), 0.9, above=True),
    Band(_FULL, "The same model where tokens may attend to themselves", _accuracy("full_with_self"), 0.1),
    Band(_LSH, "Trained and evaluated with LSH of 4 rounds", _accuracy("lsh4"), 0.95, above=True),
)  # fmt: skip
