"""What chapter 2 says of its language models, timed steps, buckets and swapping: sentences and tables from numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np

from attn.experiments.reformer.conventions import Leak
from attn.experiments.reformer.growth import Growth, time_over_length
from attn.experiments.reformer.swapping import MACHINES, least_tokens, swap
from attn.experiments.reformer.text_claims import MARGINS
from attn.experiments.reformer.text_runs import LABELS
from attn.reproduction.grid import Grid, Html, plain
from attn.reproduction.records import Record
from attn.reproduction.speed import command

Records = Mapping[str, Sequence[Record]]  # by model
NO_RECORDS = ["No records yet."]


def costs(records: Records) -> list[str]:
    """Bits of each model, means over seeds, and what a model keeps for the gradient."""
    lines = []
    for name, found in records.items():
        if found:
            bits = [record.metric("bits_per_byte") for record in found]
            kept = found[0].metric("saved_bytes") / 2**20
            spread = f" ({min(bits):.3f} to {max(bits):.3f})" if len(bits) > 1 else ""
            lines.append(
                f"{LABELS[name]}: {fmean(bits):.3f} bits per byte{spread}, {_seeds(found)}; {kept:.0f} MiB wait for the "
                "gradient."
            )
    return lines or NO_RECORDS


def rounds_needed(records: Records) -> list[str]:
    """With how many rounds hashing costs no more than full attention and the margin, by training."""
    lines, margin = [], MARGINS["byte_bits"]
    for name, found in records.items():
        if not found:
            continue
        full = fmean(record.metric("bits_full") for record in found)
        enough = [
            rounds
            for rounds in (1, 2, 4, 8)
            if fmean(record.metric(f"bits_lsh{rounds}") for record in found) < full + margin
        ]
        within = (
            f"from {min(enough)} round{'s' * (min(enough) > 1)} on" if enough else "at no number of rounds"
        )
        lines.append(
            f"Trained with {LABELS[name]}: {full:.3f} bits with full attention; hashing is within {margin:g} {within}."
        )
    return lines or NO_RECORDS


def depth(records: Mapping[int, Sequence[Record]]) -> list[str]:
    """Bits and memory by number of layers."""
    lines = []
    for layers, found in records.items():
        if found:
            bits = fmean(record.metric("bits_per_byte") for record in found)
            mean, kept = (
                fmean(record.metric(name) for record in found) / 2**20
                for name in ("saved_bytes", "saved_bytes_kept")
            )
            lines.append(
                f"{layers} layer{'s' * (layers > 1)}: {bits:.3f} bits per byte; {mean:.1f} MiB wait for the gradient, "
                f"{kept:.1f} if activations were kept."
            )
    return lines or NO_RECORDS


def _seeds(found: Sequence[Record]) -> str:
    return f"{len(found)} seed{'s' * (len(found) > 1)}"


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
    """From which measured length on hashing takes less time than full attention; or that nothing was measured."""
    found = {growth.name: growth for growth in time_over_length(results)}
    full = found.pop("full, fused kernel", None)
    if full is None or not found:
        return [f"No benchmark yet; this makes it: {command(benchmark)}"]
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
        f"{hashed.name}: {when}; time a token grows with the length to the {hashed.exponent:.2f}, full attention's to "
        f"the {full.exponent:.2f}."
    )
