"""The live check: what fresh, small runs must show, in bands coarser than the noise between machines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from attn.reproduction.runner import LiveRun


@dataclass(frozen=True)
class Band:
    """One thing a live run must show.

    Attributes:
        experiment: of the run that is checked.
        quantity: for people.
        value: (run) -> the number.
        level: it must lie below this, or above it if `above`.
    """

    experiment: str
    quantity: str
    value: Callable[[LiveRun], float]
    level: float
    above: bool = False

    def holds(self, run: LiveRun) -> bool:
        """Whether the run lies on the right side."""
        value = self.value(run)
        return value > self.level if self.above else value < self.level

    def words(self, run: LiveRun) -> str:
        """Which side the run lies on."""
        side = "above" if self.above else "below"
        return f"{side} {self.level:g}" if self.holds(run) else f"not {side} {self.level:g}"


def live_rows(
    bands: Iterable[Band], live: Mapping[str, LiveRun], baseline: str = "lstm"
) -> list[dict[str, Any]]:
    """Rows of the live-check table; a band whose experiment was not selected has none.

    Args:
        bands: what must show.
        live: runs by experiment id.
        baseline: the model on the same task, trained with the same budget, that stands beside it.
    """
    rows = []
    for band in bands:
        run = live.get(band.experiment)
        other = live.get(f"{band.experiment.rpartition('/')[0]}/{baseline}")
        if run is not None:
            rows.append(
                {
                    "quantity": band.quantity,
                    "value": band.words(run),
                    "baseline": band.words(other) if other else None,
                    "verdict": band.holds(run),
                }
            )
    return rows
