"""What chapter 2 says of the mechanisms themselves: growth, hashing, conventions, buckets, swapping and speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from attn.experiments.reformer.concepts import (
    COUNTS,
    LENGTH,
    Circle,
    Heads,
    Random,
    copying_heads,
    few_keys,
    on_itself,
)
from attn.experiments.reformer.conventions import Difference, Leak
from attn.experiments.reformer.growth import Beside, Model, beside_full, printed_powers, time_over_length
from attn.experiments.reformer.swapping import MACHINES, least_tokens, swap
from attn.experiments.reformer.words import listed, n_seeds
from attn.lsh import MAX_BUCKETS_PER_ROTATION, default_buckets
from attn.reproduction.grid import Grid, Html, plain
from attn.reproduction.number_text import rounded

# --- growth ------------------------------------------------------------------------------------------------------


def growth_table(found: Sequence[Model]) -> Html:
    """The five models of table 3 over length and depth: bytes and operations, at the largest size, and exponents."""
    columns = [
        "Model",
        "MiB, longest",
        "Bytes over length (print)",
        "Operations over length (print)",
        "MiB, deepest",
        "Bytes over depth (print)",
        "Operations over depth (print)",
    ]
    grid = Grid(
        plain("Exponents fitted to bytes that wait for the gradient and to operations of an update"), columns
    )
    for model in found:
        printed = zip(*(printed_powers(model.name, column) for column in ("memory", "time")), strict=True)
        ways = (
            (model.memory_over_length, model.work_over_length),
            (model.memory_over_depth, model.work_over_depth),
        )
        cells = []
        for pair, powers in zip(ways, printed, strict=True):
            cells.append(f"{pair[0].values[-1] / 2**20:.2f}")
            cells += [f"{way.exponent:z.2f} ({power})" for way, power in zip(pair, powers, strict=True)]
        grid.add([plain(model.name), *map(plain, cells)])
    first = found[0]
    lengths, depths = (
        f"{way.sizes[0]:,} to {way.sizes[-1]:,}"
        for way in (first.memory_over_length, first.memory_over_depth)
    )
    grid.notes = [
        plain(
            f"Lengths {lengths}, depths {depths}. Operations are those of the products, forward and backward. In "
            "brackets is the power of length or depth in the printed formula, memory for bytes and time for operations. "
            "Hashing is among the operations, into two buckets for each chunk: the print has no term for it."
        )
    ]
    return grid.render()


# --- how many keys hold the weight -------------------------------------------------------------------------------

_SPANS = "attn run sukhbaatar2019span --experiment copies/fixed_512 --profile cpu"


def few_keys_words() -> list[str]:
    """How many keys could do, as the paper reckons."""
    least, most = few_keys()
    return [f"Of {LENGTH:,} keys the closest {least} or {most} could do for a query, the paper reckons."]


def largest_words(random: Sequence[Random], trained: Mapping[str, Heads]) -> list[str]:
    """What a few dozen keys hold: of random queries by the spread of their scores, and of trained heads at least."""
    _, few = few_keys()
    at = COUNTS.index(few)
    lengths = ", ".join(f"{found.length:g}" for found in random)
    spreads = ", ".join(f"{found.spread:.1f}" for found in random)
    held = ", ".join(f"{100 * found.shares[:, at].mean():.0f}" for found in random)
    n_keys = COUNTS[random[0].shares.shape[1] - 1]
    lines = [
        f"Random directions, {n_keys:,} keys: with queries of length {lengths} a query's scores have a standard "
        f"deviation of {spreads}, and the {few} largest keys hold {held} percent of the weight."
    ]
    for text, heads in trained.items():
        shares = heads.shares[:, at]
        lines.append(
            f"Trained on {text}, {len(shares)} heads over {heads.n_keys:,} keys ({n_seeds(heads.n_seeds)}): the "
            f"{few} largest hold at least {_percent(shares.mean())} on average, in the flattest head at least "
            f"{_percent(shares.min())}, in the sharpest {_percent(shares.max())}; if all keys were alike, "
            f"{_percent(few / heads.n_keys)}."
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


def itself_words(model, length: int) -> list[str]:
    """What the same model does once its tokens may attend to themselves, in a sentence."""
    found = on_itself(model, length=length)
    weights = 100 * found.weights
    wrong = (
        f", and {_percent(found.repeats)} of the wrong ones are the symbol that is being read"
        if found.right < 1
        else ""
    )
    return [
        "Where its tokens may attend to themselves, which they could not in training, its heads give the token itself "
        f"{weights.min():.0f} to {weights.max():.0f} percent of the weight; {_percent(found.right)} of symbols are "
        f"right{wrong}."
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} percent"


# --- the cost of hashing -----------------------------------------------------------------------------------------


def hash_cost_words(length: int = LENGTH, chunk_len: int = 64) -> list[str]:
    """What the products of a hash take for each token, with one matrix and with two, in sentences."""
    n_buckets, factors = 2 * length // chunk_len, default_buckets(length, chunk_len)
    return [
        "Before the sort come the products x R, of every token with half as many vectors as there are buckets. At "
        f"{length:,} tokens, chunks of {chunk_len} and 2 L / m buckets these are {n_buckets // 2:,} for each token and "
        f"round. Above {MAX_BUCKETS_PER_ROTATION} buckets two smaller hashes are combined, here of {listed(factors)} "
        f"buckets: {sum(factors) // 2} products. So hashing costs about L^2 / m in all with one matrix, and about L^1.5 "
        "with two."
    ]


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
    """The paper's definition and reformer-pytorch's beside full attention."""
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
            times = [rounded(1e3 * seconds) for seconds in (found.transfer, found.compute)]
            grid.add(
                [*first, plain(f"{count:,}"), *map(plain, times), plain("yes" if found.is_hidden else "no")],
                "attn-first" if place == 0 else "",
            )  # fmt: skip
    least = "; ".join(f"{machine.name}: {least_tokens(machine):,.0f}" for machine in MACHINES)
    grid.notes = [plain(f"Tokens from which on the transfer hides, whatever the number of weights: {least}.")]
    return grid.render()


# --- benchmarks --------------------------------------------------------------------------------------------------


def crossing(results: Path) -> list[str]:
    """From which measured length on hashing takes less time than full attention; nothing where it was not measured."""
    exponents = {growth.name: growth.exponent for growth in time_over_length(results)}
    return [
        f"{_overtaken(n_rounds, found)}; time a token goes as length^{exponents[f'LSH, {n_rounds} rounds']:z.2f}, full "
        f"attention's as length^{exponents['full, fused kernel']:z.2f}."
        for n_rounds, found in beside_full(results).items()
    ]


def _overtaken(n_rounds: int, found: Sequence[Beside]) -> str:
    """The measured lengths between which hashing overtakes full attention, and the tokens for each round they are."""

    def said(length: int, on: str = "") -> str:
        return f"{length:,} tokens{on}, {length / n_rounds:,.0f} a round"

    slower = [one.length for one in found if one.hashed >= one.full]
    faster = [one.length for one in found if one.length > max(slower, default=0)]
    head = f"LSH, {n_rounds} rounds: "
    if not faster:
        return f"{head}not faster than full attention up to {said(max(slower))}"
    when = f"{head}faster than full attention from {said(min(faster), on=' on')}"
    return f"{when}; not yet at {said(max(slower))}" if slower else f"{when}, the shortest measured"
