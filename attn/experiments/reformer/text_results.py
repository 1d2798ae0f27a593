"""What chapter 2 says of its language models: sentences and tables from records and facts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

import numpy as np
import torch

from attn.data import registry
from attn.experiments.reformer.byte_lm import ByteConfig, build_model
from attn.experiments.reformer.concepts import FLOAT32
from attn.experiments.reformer.convergence import span_of
from attn.experiments.reformer.growth import memory_of_sharing
from attn.experiments.reformer.runs import PAPER
from attn.experiments.reformer.text_claims import MARGINS
from attn.experiments.reformer.text_runs import EXPERIMENTS, LABELS
from attn.experiments.reformer.words import listed, n_seeds
from attn.reformer import LocalAttention, ReformerAttention
from attn.reproduction.claims import t_interval
from attn.reproduction.experiment import BOOK_PROFILE, RECORDED_PROFILES
from attn.reproduction.facts import load_papers
from attn.reproduction.grid import Grid, Html, linked, plain
from attn.reproduction.records import Record

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
                f"{LABELS[name]}: {fmean(bits):.3f} bits per byte{spread}, {n_seeds(len(found))}; {kept:.0f} MiB wait "
                "for the gradient."
            )
    return lines or NO_RECORDS


def size_words(profile: str = BOOK_PROFILE) -> list[str]:
    """How many weights the compared models have, counted on them."""
    counts = {name: _count(f"byte_lm/{name}", profile) for name in ("standard", "shared", "reversible")}
    fewer = counts["standard"] - counts["shared"]
    line = f"Parameters: {'; '.join(f'{LABELS[name]} {count:,}' for name, count in counts.items())}."
    if fewer > 0:
        line += f" Sharing takes {fewer:,} away, so that what it costs in bits, if anything, is not only the sharing's."
    return [line]


# What else is another thing where queries and keys are shared, beside the number of parameters.
_SHARING = (
    "one projection less",
    "keys of unit length",
    "a token that attends to itself only where nothing else is there",
)


def sharing_words(records: Records) -> list[str]:
    """Bits of separate minus shared queries and keys with their interval, and what limits the comparison."""
    separate, shared = (
        {record.seed: record.metric("bits_per_byte") for record in records.get(name, ())}
        for name in ("standard", "shared")
    )
    gains = [separate[seed] - shared[seed] for seed in sorted(separate.keys() & shared.keys())]
    if len(gains) < 2:
        return NO_RECORDS
    low, high = t_interval(gains)
    better = "so sharing is better here" if low > 0 else "separate ones are better here" if high < 0 else (
        "so that neither is better beyond doubt"
    )  # fmt: skip
    lines = [
        f"Separate minus shared, by seed: {fmean(gains):.3f} bits [{low:.3f}, {high:.3f}] ({n_seeds(len(gains))}), "
        f"{better}. Three things change at once: {', '.join(_SHARING[:-1])}, and {_SHARING[-1]}. "
        "And the positive control compares other models, hashed and reversible ones of different depth."
    ]
    used = [start for name in ("standard", "shared") if (start := _context_used(records.get(name, ())))]
    if used:
        lines.append(
            f"What limits this: the models use little context, more than {span_of(used)} bytes of which are not worth "
            f"{MARGINS['byte_bits']:g} bits to them."
        )
    return lines


def _context_used(found: Sequence[Record]) -> int | None:
    """Bytes of context beyond which more is not worth the margin; None where even the last half of a segment is."""
    found = [record for record in found if record.artifact()]
    if not found:
        return None
    bins = context_bins(_by_position(found))
    enough = _settled_bin(bins)
    return bins[enough][0] + 1 if enough < len(bins) - 1 else None


def _count(experiment: str, profile: str) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_model(_config(experiment, profile)).parameters())


def memory_words(find: Callable[[str, str], Sequence[Record]]) -> list[str]:
    """Bits and the most memory of the byte models on GPUs, by profile.

    On a CPU the peak is that of the process, which torch fills, and the bits stand elsewhere on the page.

    Args:
        find: (experiment, profile) -> records, as `ChapterState.of`.
    """
    lines = []
    for profile in RECORDED_PROFILES:
        there = {
            one.label: find(one.id, profile) for one in EXPERIMENTS if one.task in ("byte_lm", "byte_depth")
        }
        said = [
            f"{label.removeprefix('Bytes, ')} {_bits_and_peak(found)}"
            for label, found in there.items()
            if found and not _is_on_cpu(found[0])
        ]
        if said:
            lines.append(f"Profile {profile}, bits per byte and most memory of the GPU: {'; '.join(said)}.")
    return lines or ["Peaks of a GPU are not recorded yet."]


def _bits_and_peak(found: Sequence[Record]) -> str:
    """Mean bits, and the largest peak over seeds."""
    peaks = [peak for record in found if (peak := record.data["run"]["peak_memory_bytes"])]
    peak = f"{max(peaks) / 2**20:,.0f} MiB" if peaks else "memory unknown"
    return f"{fmean(record.metric('bits_per_byte') for record in found):.3f}, {peak}"


def _is_on_cpu(record: Record) -> bool:
    return record.data["environment"]["device"] == "cpu"


def step_words(profile: str = BOOK_PROFILE) -> list[str]:
    """At which lengths, batches and depth steps are timed, beside the paper's."""
    ours, paper = (_step_sizes(which) for which in (profile, "paper"))
    return [f"At {profile}: {ours}. " + ("As in print." if ours == paper else f"In print: {paper}.")]


def _step_sizes(profile: str) -> str:
    config = next(one for one in EXPERIMENTS if one.id == "step_time/standard").config(profile)
    least, most = min(config.lengths), max(config.lengths)
    layers = f"{config.n_layers} layer{'s' * (config.n_layers > 1)} of width {config.d_model:,}"
    return (
        f"{layers}, {config.tokens:,} tokens a step, from {config.tokens // least:,} sequences of {least:,} to "
        f"{config.tokens // most:,} of {most:,}"
    )


def mask_words(profile: str = BOOK_PROFILE) -> list[str]:
    """Why shared queries and keys keep more than separate ones: what one layer of full attention keeps, counted."""
    config = _config("byte_lm/shared", profile)
    rows, length = config.training.batch_size // config.seq_len, config.seq_len
    kept = memory_of_sharing(length=length, batch=rows, d_model=config.d_model, n_heads=config.n_heads)
    separate, shared, last = (f"{kept[kind] / 2**20:.1f}" for kind in ("separate", "full_with_self", "full"))
    mask = FLOAT32 * length**2 / 2**20
    return [
        f"One layer of full attention on {rows} sequences of {length:,} bytes keeps {separate} MiB with separate "
        f"queries and keys, {shared} with shared ones where a token may attend to itself, and {last} where it comes "
        f"last. That takes a mask, which the kernel keeps as a number for every pair, {mask:.1f} MiB; causal attention "
        "alone needs none."
    ]


def layers_words() -> list[str]:
    """How many layers of the byte models attend locally and never hash, by profile."""
    said = []
    for profile in load_papers()[PAPER].budgets["byte_lm"]:
        config = _config("byte_lm/lsh1", profile)
        with torch.device("meta"):
            layers = [
                layer for layer in build_model(config).modules() if isinstance(layer, ReformerAttention)
            ]
        n_local = sum(isinstance(layer, LocalAttention) for layer in layers)
        if not n_local:
            said.append(f"none of {len(layers)} at {profile}")
            continue
        reach = f"their chunk of {config.local_chunk} bytes and the one before"
        said.append(f"{n_local} of {len(layers)} at {profile}, to {reach}")
    return [
        f"Layers that attend locally and never hash, whatever the model: {'; '.join(said)}. Rounds change the others."
    ]


def axial_words() -> list[str]:
    """How many numbers learned positions of the longest sequences have as a grid, and would have as one table."""
    config = max((one.config("gpu") for one in EXPERIMENTS if one.task == "byte_depth" and "gpu" in one.configs),
                 key=lambda config: config.n_layers)  # fmt: skip
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in build_model(config).positions.parameters())
    rows, columns = config.axial_shape
    return [
        f"Axial positions at gpu: {config.seq_len:,} places in {rows:,} rows of {columns:,}, {count:,} numbers of width "
        f"{config.d_model:,} in all; one table would have {config.seq_len * config.d_model:,}."
    ]


def _config(experiment: str, profile: str) -> ByteConfig:
    return next(one for one in EXPERIMENTS if one.id == experiment).config(profile)


def rounds_needed(records: Records) -> list[str]:
    """From how many rounds on hashing costs no more than full attention and the margin, by training.

    Whether that says anything is in the last line: where context beyond a chunk pays nothing, it does not.
    """
    lines, margin = [], MARGINS["byte_bits"]
    for name, found in records.items():
        if not found:
            continue
        full = fmean(record.metric("bits_full") for record in found)
        least = _enough(found, full + margin)
        within = f"from {least} round{'s' * (least > 1)} on" if least else "at no number of rounds"
        segments = found[0].data["config"]["grid_segments"]
        lines.append(
            f"Trained with {LABELS[name]}: {full:.3f} bits with full attention, over the first {segments} segments or "
            f"so of the test text, as many from each row; hashing is within {margin:g} {within}."
        )
    return [*lines, *_is_tested(records.get("shared", ()))] if lines else NO_RECORDS


def _enough(found: Sequence[Record], most: float) -> int | None:
    """The least number of rounds that, with all larger ones, costs less than `most` bits."""
    least = None
    for rounds in (8, 4, 2, 1):
        if fmean(record.metric(f"bits_lsh{rounds}") for record in found) >= most:
            break
        least = rounds
    return least


def _is_tested(full: Sequence[Record]) -> list[str]:
    """The control: what a model with full attention gains from context that chunks alone do not hold."""
    full = [record for record in full if record.artifact()]
    if not full:
        return []
    config, bits, margin = full[0].data["config"], _by_position(full), MARGINS["byte_bits"]
    chunk, half = config["chunk_len"], len(bits) // 2
    gain = bits[chunk : 2 * chunk].mean() - bits[half:].mean()
    shown = gain >= margin
    verdict = "context beyond a chunk pays, so that hashing is tested" if shown else (
        "context beyond a chunk pays less than the margin, so that this decides nothing about hashing"
    )  # fmt: skip
    return [
        f"Control, {LABELS['shared']}: a byte with {chunk:,} to {2 * chunk:,} bytes before it costs "
        f"{bits[chunk : 2 * chunk].mean():.3f} bits, one with {half:,} and more {bits[half:].mean():.3f}: {verdict}."
    ]


def _by_position(found: Sequence[Record]) -> np.ndarray:
    """Bits by place in the segment, mean over seeds [T]."""
    return np.mean([record.artifact()["bits_by_position"] for record in found], axis=0)


def context_bins(bits: np.ndarray) -> list[tuple[int, int, float]]:
    """First place, end and mean bits of bins that double."""
    ends = [2**n for n in range(len(bits).bit_length()) if 2**n <= len(bits)]
    return [(start, end, float(bits[start:end].mean())) for start, end in zip([0, *ends], ends, strict=False)]


def _settled_bin(bins: Sequence[tuple[int, int, float]]) -> int:
    """The bin from which on every later one costs as much, but for the margin."""
    *_, (_, _, last) = bins
    enough = len(bins) - 1
    while enough and bins[enough - 1][2] - last < MARGINS["byte_bits"]:
        enough -= 1
    return enough


def context_words(records: Records) -> list[str]:
    """How far back looking helps: from which bin on every later one costs as much, but for the margin."""
    lines, margin = [], MARGINS["byte_bits"]
    for name, found in records.items():
        found = [record for record in found if record.artifact()]
        if not found:
            continue
        bins = context_bins(_by_position(found))
        *_, (_, _, last) = bins
        enough = _settled_bin(bins)
        start, _, bits = bins[enough]
        reach = (
            f"from {start + 1:,} bytes of context on, more is not worth {margin:g} bits: {bits:.3f} there"
            if enough < len(bins) - 1
            else f"even the last half of a segment is cheaper by {margin:g} bits than what comes before"
        )
        lines.append(f"{LABELS[name]}: {reach}, {last:.3f} in the last half ({n_seeds(len(found))}).")
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


def depth_words() -> list[str]:
    """Which depths there are at each profile, and the paper's deepest."""
    budgets = load_papers()[PAPER].budgets["byte_depth"]
    parts = [f"{listed(budget['depths'])} layers at {profile}" for profile, budget in budgets.items()]
    return [f"A Reformer, hashed and reversible, of {'; '.join(parts)}, which are the paper's depths."]


def data_table() -> Html:
    """What the models of each family read, by profile."""
    columns = [
        "Models",
        "Profile",
        "Text",
        "In a sequence",
        "Training",
        "Validation",
        "Test",
        "Source",
        "Licence",
    ]
    grid = Grid(plain("Texts; sizes in bytes, or in splits as registered"), columns)
    for family in ("byte_lm", "byte_depth", "translation"):
        budgets = load_papers()[PAPER].budgets[family]
        meant = _corpus(budgets["paper"])
        for index, (profile, budget) in enumerate(budgets.items()):
            corpus = _corpus(budget)
            title = corpus.title + (f", in the place of {meant.title}" if corpus != meant else "")
            cells = [profile, title, *_sizes(budget), corpus.home, corpus.licence]
            grid.add([None if index else plain(family), *map(linked, cells)])
    return grid.render()


def _corpus(budget: Mapping) -> registry.Corpus:
    return registry.get(budget["text"]["corpus"] if "text" in budget else budget["corpus"]["name"])


def _sizes(budget: Mapping) -> list[str]:
    """Of a sequence and of the three splits."""
    if "text" not in budget:
        return ["a sentence", "train", "validation", listed(budget["corpus"]["tests"])]
    sizes = (budget["text"].get(f"{split}_size") for split in ("train", "valid", "test"))
    return [
        f"{budget['sizes']['seq_len']:,}",
        *("all" if size is None else f"first {size:,}" for size in sizes),
    ]
