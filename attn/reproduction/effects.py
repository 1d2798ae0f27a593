"""What deviations from a paper change, measured on records: ours beside the same run with the deviation undone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence

from attn.reproduction.experiment import RECORDED_PROFILES, Effect
from attn.reproduction.number_text import rounded
from attn.reproduction.records import Record

_Find = Callable[[str, str], Sequence[Record]]


def effects_text(effects: Iterable[Effect], records: _Find) -> dict[str, str]:
    """The measured effects in words, by deviation, each at the largest profile at which both sides have records.

    Our side is said once for all that are compared with it.

    Args:
        effects: what is compared.
        records: (experiment, profile) -> records.

    Returns:
        Nothing of a deviation of which no effect has records on both sides.
    """
    found: dict[str, dict[tuple[str, str, str], list[str]]] = {}
    for effect in effects:
        for profile in reversed(RECORDED_PROFILES):
            ours, other = records(effect.ours, profile), records(effect.undone, profile)
            if ours and other:
                side = (effect.measure, _side(effect, ours), profile)
                others = found.setdefault(effect.deviation, {}).setdefault(side, [])
                others.append(f"{_side(effect, other)} {effect.otherwise}")
                break
    return {
        deviation: "; ".join(
            f"{measure}: {ours} here, {', '.join(others)} ({profile})"
            for (measure, ours, profile), others in sides.items()
        )
        for deviation, sides in found.items()
    }


def _side(effect: Effect, records: Sequence[Record]) -> str:
    """Median and range over seeds; a seed that did not come so far has an infinite value, and is counted."""
    values = [effect.value(record) for record in records]
    found = sorted(value for value in values if value is not None)
    missing, seeds = len(values) - len(found), _seeds(len(values))
    if not found:
        return f"reached by none of {seeds}"
    middle = statistics.median([*found, *[math.inf] * missing])
    span = f"{rounded(found[0])} to {rounded(found[-1])}" if len(found) > 1 else rounded(found[0])
    if math.isinf(middle):
        return f"reached by {len(found)} of {seeds} ({span} {effect.unit})"
    rest = f", {span}" * (len(values) > 1) + f", not reached by {missing}" * bool(missing)
    return f"{'median ' * (len(values) > 1)}{rounded(middle)} {effect.unit} ({seeds}{rest})"


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"
