"""Words that several of the chapter's sentences need."""

from __future__ import annotations

from collections.abc import Iterable


def listed(items: Iterable[object]) -> str:
    """With commas and an "and"; fractional numbers to four digits."""
    *most, last = (f"{item:.4g}" if isinstance(item, float) else str(item) for item in items)
    return f"{', '.join(most)} and {last}" if most else last


def n_seeds(count: int) -> str:
    """As "1 seed" or "3 seeds"."""
    return f"{count} seed{'s' * (count > 1)}"
