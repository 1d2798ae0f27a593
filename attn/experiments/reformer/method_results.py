"""What chapter 2 says of the mechanisms themselves: growth, hashing, conventions, buckets, swapping and speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from attn.experiments.reformer.concepts import COUNTS, Circle, Heads, Random, copying_heads
from attn.experiments.reformer.conventions import Difference, Leak
from attn.experiments.reformer.growth import Growth, Model, time_over_length
from attn.experiments.reformer.swapping import MACHINES, least_tokens, swap
from attn.reproduction.grid import Grid, Html, plain

# --- growth ------------------------------------------------------------------------------------------------------


def growth_table(found: Sequence[Model]) -> Html:
    """The five models of table 3 over length and depth: bytes and operations, at the largest size, and exponents."""
    columns = [
        "Model",
        "MiB, longest",
        "Bytes over length",
        "Operations over length",
        "MiB, deepest",
        "Bytes over depth",
        "Operations over depth",
    ]
    grid = Grid(
        plain("Exponents fitted to bytes that wait for the gradient and to operations of an update"), columns
    )
    for model in found:
        cells = []
        for memory, work in (
            (model.memory_over_length, model.work_over_length),
            (model.memory_over_depth, model.work_over_depth),
        ):
            cells += [f"{memory.values[-1] / 2**20:.2f}", f"{memory.exponent:z.2f}", f"{work.exponent:z.2f}"]
        grid.add([plain(model.name), *map(plain, cells)])
    first = found[0]
    lengths, depths = (
        f"{way.sizes[0]:,} to {way.sizes[-1]:,}"
        for way in (first.memory_over_length, first.memory_over_depth)
    )
    grid.notes = [
        plain(
            f"Lengths {lengths}, depths {depths}. Operations are those of the products, forward and backward."
        )
    ]
    return grid.render()


# --- how many keys hold the weight -------------------------------------------------------------------------------

A_FEW_DOZEN = 64
_SPANS = "attn run sukhbaatar2019span --experiment copies/fixed_512 --profile cpu"


def largest_words(random: Sequence[Random], trained: Mapping[str, Heads]) -> list[str]:
    """What a few dozen keys hold: of random queries by the spread of their scores, and of trained heads at least."""
    at = COUNTS.index(A_FEW_DOZEN)
    lengths = ", ".join(f"{found.length:g}" for found in random)
    spreads = ", ".join(f"{found.spread:.1f}" for found in random)
    held = ", ".join(f"{100 * found.shares[:, at].mean():.0f}" for found in random)
    n_keys = COUNTS[random[0].shares.shape[1] - 1]
    lines = [
        f"Random directions, {n_keys:,} keys: with queries of length {lengths} a query's scores have a standard "
        f"deviation of {spreads}, and the {A_FEW_DOZEN} largest keys hold {held} percent of the weight."
    ]
    for text, heads in trained.items():
        shares = heads.shares[:, at]
        lines.append(
            f"Trained on {text}, {len(shares)} heads over {heads.n_keys:,} keys ({_seeds(heads.n_seeds)}): the "
            f"{A_FEW_DOZEN} largest hold at least {_percent(shares.mean())} on average, in the flattest head at least "
            f"{_percent(shares.min())}, in the sharpest {_percent(shares.max())}; if all keys were alike, "
            f"{_percent(A_FEW_DOZEN / heads.n_keys)}."
        )
    return lines if trained else [*lines, f"No trained heads are recorded to set beside them: {_SPANS}"]


def live_words(model, length: int) -> list[str]:
    """What a model that was trained on duplication puts on a single key and on a few, by head, in a sentence."""
    held = copying_heads(model, length=length)
    parts = []
    for count, what in ((1, "a single key"), (8, "8 keys")):
        shares = 100 * held[:, COUNTS.index(count)]
        parts.append(f"{shares.min():.0f} to {shares.max():.0f} percent on {what}")
    return [
        f"Where it says w again, the heads of the model with full attention put {' and '.join(parts)} of {length}, on "
        "average over tokens."
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} percent"


def _seeds(count: int) -> str:
    return f"{count} seed{'s' * (count > 1)}"


# --- hashing on the circle ---------------------------------------------------------------------------------------


def circle_words(found: Circle) -> list[str]:
    """How often neighbours on the circle share a bucket, in one round and in any."""
    order = np.argsort(np.arctan2(found.points[:, 1], found.points[:, 0]))
    together = found.buckets[:, order] == found.buckets[:, np.roll(order, -1)]  # [R, T]
    rounds, count = together.shape
    return [
        f"Of the {count} pairs of neighbours on the circle, {100 * together.mean():.0f} percent share a bucket in a "
        f"round, and {100 * together.any(0).mean():.0f} percent in at least one of the {rounds}."
    ]


# --- conventions of public code ----------------------------------------------------------------------------------


def leak_words(found: Sequence[Leak], *, length: int, n_rounds: int) -> list[str]:
    """How many earlier outputs the last token moves."""
    lines = [
        f"Of {length - 1} tokens before the last, with {n_rounds} rounds, the share whose output changes when the last "
        "token does:"
    ]
    for leak in found:
        low, high = (f"{100 * share:.0f}" for share in (leak.least, leak.most))
        lines.append(f"{leak.convention}: {low if low == high else f'{low} to {high}'} percent")
    return lines


def difference_table(found: Sequence[Difference]) -> Html:
    """The paper's definition and public code beside full attention."""
    columns = ["Rounds", "Convention", "Weight seen, percent", "Error, percent of the values"]
    grid = Grid(
        plain("Random queries: full attention's weight that is seen, and how far the output is from its own"),
        columns,
    )
    for place, one in enumerate(found):
        head = None if place and found[place - 1].n_rounds == one.n_rounds else plain(one.n_rounds)
        grid.add(
            [head, plain(one.convention), plain(f"{100 * one.seen:.0f}"), plain(f"{100 * one.error:.0f}")]
        )
    return grid.render()


# --- buckets of a sentence ---------------------------------------------------------------------------------------


def bucket_words(text: np.ndarray, buckets: np.ndarray) -> str:
    """How often two equal bytes share a bucket, and two different ones, over pairs of places."""
    same_byte = text[:, None] == text[None, :]
    same_bucket = buckets[:, None] == buckets[None, :]
    others = ~np.eye(len(text), dtype=bool)
    equal, different = (100 * same_bucket[pairs & others].mean() for pairs in (same_byte, ~same_byte))
    return (
        f"Two places with the same byte share a bucket in {equal:.0f} percent of pairs, two with different bytes in "
        f"{different:.1f}."
    )


# --- swapping ----------------------------------------------------------------------------------------------------


def swap_table(
    tokens: Sequence[int] = (512, 2**12, 2**16, 2**19), *, parameters: float = 12 * 1024**2
) -> Html:
    """Transfer and compute of one layer, side by side.

    Args:
        tokens: of a step.
        parameters: of the layer, by default those of width 1024.
    """
    columns = [
        "Machine (assumed)",
        "TFLOP/s",
        "GB/s",
        "Tokens a step",
        "Transfer, ms",
        "Compute, ms",
        "Hidden",
    ]
    caption = f"One layer of {parameters / 1e6:.1f} million weights in float32, fetched twice, its gradient sent once"
    grid = Grid(plain(caption), columns)
    for machine in MACHINES:
        for place, count in enumerate(tokens):
            found = swap(machine, count, parameters)
            head = [machine.name, f"{machine.flops / 1e12:g}", f"{machine.bandwidth / 1e9:g}"]
            first = [plain(text) for text in head] if place == 0 else [None] * 3
            times = [_digits(1e3 * seconds) for seconds in (found.transfer, found.compute)]
            grid.add(
                [*first, plain(f"{count:,}"), *map(plain, times), plain("yes" if found.is_hidden else "no")],
                "attn-first" if place == 0 else "",
            )  # fmt: skip
    least = "; ".join(f"{machine.name}: {least_tokens(machine):,.0f}" for machine in MACHINES)
    grid.notes = [plain(f"Tokens from which on the transfer hides, whatever the number of weights: {least}.")]
    return grid.render()


def _digits(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


# --- benchmarks --------------------------------------------------------------------------------------------------


def crossing(results, benchmark: str = "lsh") -> list[str]:
    """From which measured length on hashing takes less time than full attention; nothing where it was not measured."""
    found = {growth.name: growth for growth in time_over_length(results)}
    full = found.pop("full, fused kernel", None)
    if full is None or not found:
        return []
    lines = []
    for growth in found.values():
        lines.append(_crossing(growth, full))
    return lines


def _crossing(hashed: Growth, full: Growth) -> str:
    times = dict(zip(full.sizes, full.values, strict=True))
    faster = [
        length
        for length, value in zip(hashed.sizes, hashed.values, strict=True)
        if length in times and value < times[length]
    ]
    when = f"faster from {min(faster):,} tokens on" if faster else f"not faster up to {max(times):,} tokens"
    return (
        f"{hashed.name}: {when}; time a token grows with the length to the {hashed.exponent:z.2f}, full attention's to "
        f"the {full.exponent:z.2f}."
    )
