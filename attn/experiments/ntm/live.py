"""The chapter's live check: what a fresh, small run must show, in bands coarser than the noise between machines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attn.evaluation.curves import running_median
from attn.reproduction.runner import LiveRun

SOLVED = 0.1  # bits per sequence, in and among the training lengths
COPIES = 0.25  # bits per output bit at twice the longest training length; chance is 1


def live_rows(live: Mapping[str, LiveRun]) -> list[dict[str, Any]]:
    """Rows of the live-check table for the copy task; none where the NTM was not selected."""
    ntm, lstm = live.get("copy/ntm_lstm"), live.get("copy/lstm")
    if ntm is None:
        return []
    return [
        {
            "quantity": "Bits per sequence for 1 to 5 vectors, the training lengths",
            "value": _band(_cost(ntm), SOLVED),
            "baseline": _band(_cost(lstm), SOLVED) if lstm else None,
            "verdict": _cost(ntm) < SOLVED,
        },
        {
            "quantity": "Bits per output bit for 10 vectors, twice the longest seen",
            "value": _band(_beyond(ntm), COPIES),
            "baseline": _band(_beyond(lstm), COPIES) if lstm else None,
            "verdict": _beyond(ntm) < COPIES,
        },
    ]


def _cost(run: LiveRun) -> float:
    return running_median([entry["bits_per_sequence"] for entry in run.result.history])[-1]


def _beyond(run: LiveRun) -> float:
    return run.outcome.metrics["bits_per_bit_at_10"].value


def _band(value: float, level: float) -> str:
    return f"below {level:g}" if value < level else f"not below {level:g}"
