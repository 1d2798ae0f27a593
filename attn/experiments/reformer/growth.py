"""How memory and time grow: bytes that wait for the gradient over depth and length, and times of the benchmarks.

Bytes are counted, here and now, and are the same on every machine. Times come from results/speed, where a benchmark was
run on an idle machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from attn.attention import MultiHeadAttention
from attn.experiments.reformer.complexity import peak_saved, printed_law, whole_model
from attn.experiments.reformer.runs import ATTENTIONS, PAPER
from attn.reformer import FullAttention, LSHAttention
from attn.reproduction.facts import load_papers
from attn.reproduction.speed import HEAPS, load_speed, of_benchmark
from attn.reversible import ResidualBranch, ReversibleStack
from attn.transformer import FeedForward

DEPTHS = (1, 2, 4, 8, 16)
LENGTHS = (512, 1024, 2048, 4096)


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The power of the sizes that values follow: the slope of a line through their logarithms."""
    slope = float(np.polyfit(np.log(sizes), np.log(values), 1)[0])
    return round(slope, 9) + 0.0  # a flat line has 0, not something below it


# --- memory ----------------------------------------------------------------------------------------------------


class Growth(NamedTuple):
    """One way to compute, over sizes."""

    name: str
    sizes: tuple[int, ...]
    values: tuple[float, ...]

    @property
    def exponent(self) -> float:
        """Of the sizes."""
        return exponent(self.sizes, self.values)


def memory_over_depth(
    depths: Sequence[int] = DEPTHS, *, length: int = 128, d_model: int = 32
) -> list[Growth]:
    """Bytes that wait for the gradient in stacks of attention and feed-forward, kept, reversible, and in chunks."""
    ways = {
        "activations kept": {"keep_activations": True},
        "reversible": {},
        "reversible, feed-forward in 8 chunks": {"chunks": 8},
    }
    inputs = torch.randn(1, length, d_model, generator=torch.Generator().manual_seed(0))
    return [
        Growth(name, tuple(depths), tuple(peak_saved(_stack(n, d_model, **how), inputs) for n in depths))
        for name, how in ways.items()
    ]


def _stack(depth: int, d_model: int, *, keep_activations: bool = False, chunks: int = 1) -> nn.Module:
    def branch(sublayer: nn.Module, chunks: int = 1) -> ResidualBranch:
        return ResidualBranch(sublayer, d_model=d_model, chunks=chunks)

    blocks = [
        [
            branch(FullAttention(d_model=d_model, n_heads=2, shared_qk=False)),
            branch(FeedForward(d_model=d_model, d_ff=8 * d_model), chunks),
        ]
        for _ in range(depth)
    ]
    return ReversibleStack(blocks, keep_activations=keep_activations)


class _KeepsWeights(nn.Module):
    """Attention whose weights wait for the gradient, as they do without a fused kernel."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(d_model=d_model, n_heads=1)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.attention(inputs, is_causal=True, need_weights=True).output


def memory_over_length(lengths: Sequence[int] = LENGTHS, *, d_model: int = 16) -> list[Growth]:
    """Bytes that wait for the gradient of one attention over the length of a sequence."""
    sizes = {"d_model": d_model, "n_heads": 1}
    ways = {
        "full, weights kept": _KeepsWeights(d_model),
        "full, fused kernel": FullAttention(**sizes, shared_qk=False),
        "LSH, 2 rounds": LSHAttention(**sizes, chunk_len=64, n_rounds=2),
    }
    generator = torch.Generator().manual_seed(0)
    inputs = {length: torch.randn(1, length, d_model, generator=generator) for length in lengths}
    return [
        Growth(name, tuple(lengths), tuple(peak_saved(module, inputs[length]) for length in lengths))
        for name, module in ways.items()
    ]


def memory_of_sharing(*, length: int, batch: int, d_model: int, n_heads: int) -> dict[str, int]:
    """Bytes that wait for the gradient of one layer of full attention, by kind of `ATTENTIONS`."""
    inputs = torch.randn(batch, length, d_model, generator=torch.Generator().manual_seed(0))
    sizes = {"d_model": d_model, "n_heads": n_heads, "chunk_len": length}
    return {
        kind: peak_saved(ATTENTIONS[kind].build(**sizes), inputs)
        for kind in ("separate", "full_with_self", "full")
    }


# --- the five models of table 3 --------------------------------------------------------------------------------


class Model(NamedTuple):
    """One model of table 3: bytes that wait for the gradient, and operations of an update, over length and depth."""

    name: str
    memory_over_length: Growth
    work_over_length: Growth
    memory_over_depth: Growth
    work_over_depth: Growth


# Of small models: long ones, in which attention is largest, and wide ones, in which the feed-forward layer is.
_LONG = {"b": 1, "nh": 2, "l": 256, "dff": 16, "dmodel": 8, "nr": 2, "c": 32**2, "nl": 2}
_WIDE = {"b": 1, "nh": 1, "l": 64, "dff": 1024, "dmodel": 16, "nr": 2, "c": 32**2, "nl": 2}


def five_models(
    lengths: Sequence[int] = (256, 512, 1024), depths: Sequence[int] = (1, 2, 4, 8)
) -> list[Model]:
    """Each row of table 3, counted: long models over length, wide ones over depth; products of hashing included."""
    kinds = [row["model_type"] for row in load_papers()[PAPER].table("table3").rows]
    return [
        Model(kind, *_growth(kind, "l", lengths, _LONG), *_growth(kind, "nl", depths, _WIDE))
        for kind in kinds
    ]


def _growth(kind: str, name: str, sizes: Sequence[int], others: Mapping[str, int]) -> tuple[Growth, Growth]:
    """Bytes and operations over one size."""
    memory, work = zip(*(_count(kind, {**others, name: size}) for size in sizes), strict=True)
    return Growth(kind, tuple(sizes), memory), Growth(kind, tuple(sizes), work)


def printed_powers(kind: str, column: str) -> tuple[Fraction, Fraction]:
    """The powers of length and depth in a printed formula of table 3, in models as long and as wide as those counted."""
    (row,) = (row for row in load_papers()[PAPER].table("table3").rows if row["model_type"] == kind)
    law = printed_law("table3", kind, column, row[column])
    return law.long["l"], law.wide["nl"]


def _count(kind: str, sizes: Mapping[str, int]) -> tuple[int, int]:
    model = whole_model(kind, sizes, n_buckets=None)
    inputs = torch.randn(sizes["b"], sizes["l"], sizes["dmodel"], generator=torch.Generator().manual_seed(0))
    kept = peak_saved(model, inputs)
    with _Operations() as counter:
        result = model(inputs)
        (result[0] if isinstance(result, tuple) else result).sum().backward()
    return kept, counter.total


def more_work() -> float:
    """Operations of an update of a reversible model over those of a plain one of the same sizes, counted."""
    (_, more), (_, plain) = (_count(kind, _LONG) for kind in ("Reversible Transformer", "Transformer"))
    return more / plain


class _Operations(TorchDispatchMode):
    """Adds up the operations of products; torch's own counter cannot follow a backward pass within another."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if (count := flop_registry.get(func.overloadpacket)) is not None:
            self.total += count(*args, **(kwargs or {}), out_val=result)
        return result


# --- time ------------------------------------------------------------------------------------------------------


def _of_benchmark(results: Path, benchmark: str, name: str = "cpu") -> list[Mapping[str, Any]]:
    """All rows of the benchmark's result of that name; none without one."""
    found, _ = load_speed(results)
    named = (result for result in of_benchmark(found, benchmark) if Path(result.path).stem == name)
    return [row for result in named for row in result.data["rows"]]


def benchmark_rows(results: Path, benchmark: str, heap: str = "kept") -> list[Mapping[str, Any]]:
    """Rows of the benchmark's result on the CPU with one state of the heap, but for those that were disturbed."""
    rows = _of_benchmark(results, benchmark)
    return [row for row in rows if row["heap"] == heap and not row["disturbed"]]


def left_out(results: Path, benchmark: str, heaps: Sequence[str] = ("kept",)) -> list[str]:
    """A sentence that names the rows which `benchmark_rows` leaves out; nothing where it has them all."""
    rows = [row for row in _of_benchmark(results, benchmark) if row["heap"] in heaps and row["disturbed"]]
    names = [f"{row['name']} ({row['heap']} heap)" for row in rows]
    return [f"Left out, since something else used the machine: {', '.join(names)}."] if names else []


def benchmark_times(results: Path, benchmark: str, heap: str = "kept") -> Mapping[str, Mapping[str, float]]:
    """Median seconds by row and variant of `benchmark_rows`."""
    rows = benchmark_rows(results, benchmark, heap)
    return {row["name"]: {v["name"]: v["seconds"] for v in row["variants"]} for row in rows}


# Names in the results of benchmarks.lsh and benchmarks.reversible.
_HASHED, _SDPA = "attn.kernels.lsh", "causal SDPA"
REVERSED, KEPT = "attn.reversible", "activations kept"


def time_over_length(results: Path) -> list[Growth]:
    """Microseconds a token of attention over length, hashed and full, from `benchmarks.lsh`."""
    points: dict[str, dict[int, float]] = {}
    for row, variants in benchmark_times(results, "lsh").items():
        length, _, rest = row.partition(", ")
        if not length.isdigit():
            continue  # a row at a length of its own, see `beside_full`
        if _HASHED in variants:
            points.setdefault(f"LSH, {rest}", {})[int(length)] = variants[_HASHED]
        if _SDPA in variants:
            points.setdefault("full, fused kernel", {})[int(length)] = variants[_SDPA]
    return [
        Growth(name, tuple(sorted(at)), tuple(1e6 * at[length] / length for length in sorted(at)))
        for name, at in points.items()
    ]


class Beside(NamedTuple):
    """One call of hashing beside one of full attention, in seconds."""

    length: int
    hashed: float
    full: float


def beside_full(results: Path) -> dict[int, list[Beside]]:
    """Both at every length at which `benchmarks.lsh` timed both, by number of rounds; shortest first."""
    found: dict[int, list[Beside]] = {}
    for row, variants in benchmark_times(results, "lsh").items():
        if not {_HASHED, _SDPA} <= variants.keys():
            continue
        size, rounds = row.split(", ")
        n_rounds = int(rounds.split()[0])
        length = int(size.split()[0]) * (n_rounds if size.endswith("a round") else 1)
        found.setdefault(n_rounds, []).append(Beside(length, variants[_HASHED], variants[_SDPA]))
    return {n_rounds: sorted(found[n_rounds]) for n_rounds in sorted(found)}


def time_over_depth(results: Path) -> list[Growth]:
    """Milliseconds of a step over depth by heap, activations kept and not, from `benchmarks.reversible`."""
    points: dict[str, dict[int, float]] = {}
    for heap in HEAPS:
        for row, variants in benchmark_times(results, "reversible", heap).items():
            for name, label in ((KEPT, "activations kept"), (REVERSED, "reversible")):
                points.setdefault(f"{label} (heap: {heap})", {})[int(row.split()[0])] = variants[name]
    return [
        Growth(name, tuple(sorted(at)), tuple(1e3 * at[depth] for depth in sorted(at)))
        for name, at in points.items()
    ]
