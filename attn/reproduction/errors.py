"""Errors that a user of the book meets: one sentence, shown without a traceback in notebooks."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_MOST_LISTED = 12  # names that still make one sentence


class UsageError(ValueError):
    """A wrong name or value, or a state that needs the user; the message says what would be right."""

    def _render_traceback_(self) -> list[str]:  # the hook by which IPython lets an exception show itself
        return [f"{type(self).__name__}: {self}"]


def choose(kind: str, name: str, valid: Iterable[str], *, listed_by: str | None = None) -> str:
    """Return `name` if it is among `valid`.

    Args:
        kind: what is named, for the error.
        name: the name given.
        valid: all there are.
        listed_by: the command that lists them, for names that can be too many for a sentence.

    Raises:
        UsageError: naming the kind, the value and every valid name; of many the nearest, and `listed_by`.
    """
    names = list(valid)
    if name not in names:
        raise UsageError(f"unknown {kind} {name!r}; {_offer(name, list(map(str, names)), listed_by)}")
    return name


def _offer(name: str, names: list[str], listed_by: str | None) -> str:
    """What would be right, in one clause."""
    if listed_by is None or len(names) <= _MOST_LISTED:
        return f"valid: {', '.join(names)}"
    near = get_close_matches(str(name), names, n=5, cutoff=0.5)
    return f"near: {', '.join(near)}; " * bool(near) + f"`{listed_by}` lists all {len(names)}"
