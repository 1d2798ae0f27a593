"""What later machines do, small enough to check by hand: where two of them write, and how a third learns to choose.

N slots; a weighting is non-negative and sums to at most 1. K options of a choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import numpy as np

from attn.reproduction.grid import Grid, Html, plain

# --- the differentiable neural computer (Graves et al. 2016) --------------------------------------------------------


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
    """Writes to single slots one after the other: usage, what would be allocated next, and where the links lead.

    Raises:
        ValueError: for no slot, or one that there is not.
    """
    _check_slots(slots, n_slots)
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


def _check_slots(slots: Sequence[int], n_slots: int) -> None:
    if not slots or not all(0 <= slot < n_slots for slot in slots):
        raise ValueError(f"slots must be at least one of 0 to {n_slots - 1}; got {list(slots)}")


def _leads(weights: np.ndarray) -> str:
    """The slot that a read head on one slot moves to by its links, if any."""
    return f"slot {weights.argmax()} ({weights.max():.2g})" if weights.any() else "nowhere"


# --- memory-augmented networks (Santoro et al. 2016, Sec. 3.2) ----------------------------------------------------


def least_used(usage: np.ndarray, count: int = 1) -> np.ndarray:
    """1 at the `count` least used slots, the first of equal ones, else 0 [N]."""
    chosen = np.zeros(len(usage))
    chosen[np.argsort(usage, kind="stable")[:count]] = 1
    return chosen


def mann_write(read: np.ndarray, usage: np.ndarray, gate: float) -> np.ndarray:
    """Write weighting [N]: the gate (a sigmoid in the paper) mixes the slot just read with the least used one.

    Args:
        read: read weighting of the step before [N].
        usage: decayed sum of all weightings so far [N].
        gate: share of what was just read, from 0 to 1.
    """
    return gate * read + (1 - gate) * least_used(usage)


def mann_story(steps: Sequence[tuple[float, int]], n_slots: int, decay: float) -> Html:
    """Where it writes, step by step; nothing is read before the first.

    Args:
        steps: gate and slot read, of each.
        n_slots: of the memory.
        decay: what is left of usage after a step.

    Raises:
        ValueError: for no step, or a slot that there is not.
    """
    _check_slots([slot for _, slot in steps], n_slots)
    grid = Grid(
        plain(f"Memory-augmented network: where it writes, on {n_slots} slots"),
        ["Step", "Gate", "Least used", "Write weighting", "Slot read then", "Usage after"],
    )
    used, read = np.zeros(n_slots), np.zeros(n_slots)
    for step, (gate, slot) in enumerate(steps, 1):
        least, written = int(least_used(used).argmax()), mann_write(read, used, gate)
        read = np.eye(n_slots)[slot]
        used = decay * used + read + written
        grid.add([*map(plain, [step, f"{gate:g}", least, _listed(written), slot, _listed(used)])])
    return grid.render()


def _listed(values: np.ndarray) -> str:
    return " ".join(f"{value:.2f}" for value in values)


# --- a choice that is sampled, and one that is weighted (Zoph et al. 2017, Sec. 3) ----------------------------------


def softmax(scores: np.ndarray) -> np.ndarray:
    """Probabilities of K options, or their weights [K]."""
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def weighted_gradient(scores: np.ndarray, rewards: np.ndarray) -> np.ndarray:
    """Gradient of the weighted reward, the sum of p_k R_k, by the scores of the softmax [K]."""
    chances = softmax(scores)
    return chances * (rewards - chances @ rewards)


def sampled_gradients(scores: np.ndarray, rewards: np.ndarray, baseline: float = 0.0) -> np.ndarray:
    """REINFORCE's estimate for each option that may be drawn, (R_k - b) grad log p_k [K, K]."""
    chances = softmax(scores)
    return (rewards - baseline)[:, None] * (np.eye(len(scores)) - chances)


def moments(scores: np.ndarray, rewards: np.ndarray, baseline: float = 0.0) -> tuple[np.ndarray, float]:
    """Mean of REINFORCE's estimate [K] and its variance, summed over the K components; exact, by all options."""
    chances, found = softmax(scores), sampled_gradients(scores, rewards, baseline)
    mean = chances @ found
    return mean, float(chances @ ((found - mean) ** 2).sum(axis=1))


def learn(
    rewards: np.ndarray,
    steps: int,
    rate: float,
    draw: np.random.Generator | None = None,
    baseline: float = 0.0,
) -> float:
    """Probability of the best option after gradient ascent from equal scores.

    Args:
        rewards: of the options [K].
        steps: updates.
        rate: learning rate.
        draw: makes the choices of REINFORCE; None weights every option.
        baseline: of REINFORCE.
    """
    scores = np.zeros(len(rewards))
    for _ in range(steps):
        if draw is None:
            gradient = weighted_gradient(scores, rewards)
        else:
            gradient = sampled_gradients(scores, rewards, baseline)[
                draw.choice(len(rewards), p=softmax(scores))
            ]
        scores = scores + rate * gradient
    return float(softmax(scores)[int(rewards.argmax())])


def choice_story(rewards: Sequence[float], steps: int, rate: float, runs: int) -> Html:
    """One choice among options, weighted and drawn: the gradient at equal scores, and what is learned from there.

    Args:
        rewards: of the options.
        steps: updates.
        rate: learning rate.
        runs: how many of REINFORCE, with seeds 0, 1, ...
    """
    values, start = np.array(rewards, float), np.zeros(len(rewards))
    best = int(values.argmax())
    grid = Grid(
        plain(f"A choice among options of reward {', '.join(f'{r:g}' for r in rewards)}, {steps} updates"),
        [
            "Choice",
            "Gradient by the best one's score, mean",
            "Variance",
            "Weight or probability of the best at the end",
        ],
    )
    gradient = weighted_gradient(start, values)[best]
    grid.add([*map(plain, ["weighted", f"{gradient:.3f}", "0", f"{learn(values, steps, rate):.3f}"])])
    for name, baseline in (("drawn", 0.0), ("drawn, less the mean reward", float(values.mean()))):
        mean, variance = moments(start, values, baseline)
        ends = sorted(
            learn(values, steps, rate, np.random.default_rng(seed), baseline) for seed in range(runs)
        )
        said = f"{median(ends):.3f} (median of {runs} runs; {ends[0]:.3f} to {ends[-1]:.3f})"
        grid.add([*map(plain, [name, f"{mean[best]:.3f}", f"{variance:.3f}", said])])
    return grid.render()
