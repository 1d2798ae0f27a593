"""Errors that a user of the book meets: one sentence, shown without a traceback in notebooks."""

from __future__ import annotations

from collections.abc import Iterable


class UsageError(ValueError):
    """A wrong name or value, or a state that needs the user; the message says what would be right."""

    def _render_traceback_(self) -> list[str]:  # the hook by which IPython lets an exception show itself
        return [f"{type(self).__name__}: {self}"]


def choose(kind: str, name: str, valid: Iterable[str]) -> str:
    """Return `name` if it is among `valid`.

    Raises:
        UsageError: naming the kind, the value and every valid name.
    """
    names = list(valid)
    if name not in names:
        raise UsageError(f"unknown {kind} {name!r}; valid: {', '.join(map(str, names))}")
    return name
