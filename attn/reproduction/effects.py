"""What deviations from a paper change, measured on records: ours beside the same run with the deviation undone."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from attn.reproduction.experiment import RECORDED_PROFILES, Effect
from attn.reproduction.records import Record


def effect_text(effect: Effect, records: Callable[[str, str], Sequence[Record]]) -> str | None:
    """The measured effect in words, at the largest profile at which both sides have records.

    Args:
        effect: what is compared.
        records: (experiment, profile) -> records.

    Returns:
        None where one side has no records yet.
    """
    for profile in reversed(RECORDED_PROFILES):
        ours, other = records(effect.ours, profile), records(effect.undone, profile)
        if ours and other:
            sides = f"{_side(effect, ours)} here, {_side(effect, other)} {effect.otherwise}"
            return f"{effect.measure}: {sides} ({profile})"
    return None


def _side(effect: Effect, records: Sequence[Record]) -> str:
    """Median and range over seeds; seeds without a value are counted."""
    found = sorted(value for record in records if (value := effect.value(record)) is not None)
    if not found:
        return f"reached by none of {_seeds(len(records))}"
    span = f", {_number(found[0])} to {_number(found[-1])}" if len(found) > 1 else ""
    missing = f", not reached by {len(records) - len(found)}" if len(found) < len(records) else ""
    return f"{_number(statistics.median(found))} {effect.unit} ({_seeds(len(records))}{span}{missing})"


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
