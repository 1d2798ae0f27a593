"""How the differentiable neural computer finds places (Graves et al. 2016), on write weightings that are given.

N slots; a write weighting is non-negative and sums to at most 1. Nothing here is trained.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from attn.reproduction.grid import Grid, Html, plain


def usage(previous: np.ndarray, written: np.ndarray, freed: np.ndarray | float = 0.0) -> np.ndarray:
    """How far slots are in use after a write [N].

    Args:
        previous: usage before [N], from 0 to 1.
        written: write weighting [N].
        freed: share of each slot that the read heads give back [N].
    """
    return (previous + written - previous * written) * (1 - freed)


def allocation(used: np.ndarray) -> np.ndarray:
    """Weighting over the slots to write to next, the least used first [N]: all to a slot that is free."""
    order = np.argsort(used, kind="stable")
    before = np.append(1.0, np.cumprod(used[order])[:-1])  # what the slots less used leave over
    weights = np.empty_like(used)
    weights[order] = (1 - used[order]) * before
    return weights


def links(writes: Sequence[np.ndarray]) -> np.ndarray:
    """The temporal link matrix after writes [N, N]: entry (i, j) is how far slot i was written right after slot j."""
    n_slots = len(writes[0])
    matrix, last = np.zeros((n_slots, n_slots)), np.zeros(n_slots)
    for write in writes:
        matrix = (1 - write[:, None] - write[None, :]) * matrix + write[:, None] * last[None, :]
        np.fill_diagonal(matrix, 0)
        last = (1 - write.sum()) * last + write
    return matrix


def story(slots: Sequence[int], n_slots: int) -> Html:
    """Writes to single slots one after the other: usage, what would be allocated next, and where the links lead."""
    grid = Grid(
        plain(f"Differentiable neural computer: writes to slots {', '.join(map(str, slots))} of {n_slots}"),
        ["Slot", "Usage", "Allocated next", "Forward from here", "Back from here"],
    )
    writes = [np.eye(n_slots)[slot] for slot in slots]
    used = np.zeros(n_slots)
    for write in writes:
        used = usage(used, write)
    next_place, matrix = allocation(used), links(writes)
    for slot in range(n_slots):
        ways = [_leads(matrix[:, slot]), _leads(matrix[slot])]
        grid.add([*map(plain, [slot, f"{used[slot]:.2g}", f"{next_place[slot]:.2g}", *ways])])
    return grid.render()


def _leads(weights: np.ndarray) -> str:
    """The slot that a read head on one slot moves to by its links, if any."""
    return f"slot {weights.argmax()} ({weights.max():.2g})" if weights.any() else "nowhere"
