"""Words that several of the chapter's sentences need."""

from __future__ import annotations

from collections.abc import Iterable


def listed(items: Iterable[object]) -> str:
    """With commas and an "and"; fractional numbers to four digits."""
    *most, last = (f"{item:.4g}" if isinstance(item, float) else str(item) for item in items)
    return f"{', '.join(most)} and {last}" if most else last


def tenths(values: Iterable[float]) -> str:
    """Listed with one digit after the point."""
    return listed(f"{value:.1f}" for value in values)


def came(is_so: bool) -> str:
    """What became of an expectation, a clause."""
    return ", and so it came" if is_so else ", and it did not come so"


def n_seeds(count: int) -> str:
    """As "1 seed" or "3 seeds"."""
    return f"{count} seed{'s' * (count > 1)}"
