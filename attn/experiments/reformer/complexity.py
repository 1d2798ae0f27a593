"""Tables 1 and 3 counted: how the largest tensor, what waits for the gradient, and multiply-adds grow with each size.

Each size is multiplied by 4 while the others stay, in two regimes: *wide*, where the feed-forward layer or the vectors
themselves are largest, and *long*, where attention is. The exponents say what a formula has to say. A printed
formula is given the same treatment, and stands if all its exponents are those that were counted, in both regimes. In
the times of table 3 the width of the model is left out, see `LEFT_OUT`.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from fractions import Fraction
from functools import cache
from math import log
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from attn.attention import MultiHeadAttention, scaled_dot_product_attention
from attn.language_model import Stack
from attn.lsh import lsh_attention
from attn.reformer import LSHAttention
from attn.reversible import ResidualBranch, ReversibleStack
from attn.transformer import FeedForward

_GROWTH = 4  # by which a size is multiplied; sqrt(c) is a whole number then
_ROUNDING = 0.2  # how far a measured exponent may lie from the law's: lower terms have not quite gone
_POWERS = (Fraction(0), Fraction(1, 2), Fraction(1), Fraction(2), Fraction(3))
# Sizes that are not compared, by table and column. In the times of table 3 the print leaves out how wide the vectors are
# that are multiplied. In those of table 1 it has dk in one term and not in the other, so that all sizes are compared.
LEFT_OUT = {("table3", "time"): ("dmodel",)}

Sizes = Mapping[str, int]
Exponents = dict[str, Fraction]


# --- what is counted ----------------------------------------------------------------------------------------


class _Largest(TorchDispatchMode):
    """Remembers the largest storage that any operation returned, in bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return result


def largest_tensor(call: Callable[[], object]) -> int:
    """Bytes of the largest tensor that `call` makes."""
    with _Largest() as mode, torch.no_grad():
        call()
    return mode.bytes


class _Kept:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def peak_saved(model: nn.Module, inputs: Tensor, *, count_attributes: bool = False) -> int:
    """Most bytes that wait for the gradient at one time during a forward and a backward pass, parameters aside.

    Args:
        model: returns a tensor, or several of which the first is differentiated.
        inputs: all that it is given.
        count_attributes: also tensors that functions of the graph keep as attributes, where autograd's hooks do not see
            them: the buckets of reversible layers, and the states of random generators, for which the formulas of table
            3 have no term.
    """
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    users: dict[int, int] = {}
    alive = peak = 0

    def release(place: int, size: int) -> None:
        nonlocal alive
        users[place] -= 1
        if not users[place]:
            alive -= size

    def hold(place: int, size: int) -> None:
        nonlocal alive, peak
        if not users.get(place):
            alive += size
            peak = max(peak, alive)
        users[place] = users.get(place, 0) + 1

    def pack(tensor: Tensor) -> Tensor | _Kept:
        place, size = _storage(tensor)
        if place in own:
            return tensor
        hold(place, size)
        kept = _Kept(tensor)
        weakref.finalize(kept, release, place, size)
        return kept

    def unpack(kept: Tensor | _Kept) -> Tensor:
        return kept.tensor if isinstance(kept, _Kept) else kept

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        result = model(inputs)
        output = result[0] if isinstance(result, tuple) else result
        if count_attributes:
            for place, size in map(_storage, _attributes(output.grad_fn)):
                if place not in own:
                    hold(place, size)  # as long as there is the graph, to the end of the backward pass
        output.sum().backward()
    return peak


def _storage(tensor: Tensor) -> tuple[int, int]:
    """Where a tensor's memory is, and its bytes."""
    storage = tensor.untyped_storage()
    return storage.data_ptr(), storage.nbytes()


def _attributes(node: torch.autograd.graph.Node | None) -> Iterator[Tensor]:
    """Tensors in the attributes of the functions of a graph, from its last one on."""
    nodes, seen = [node], set()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            nodes += [before for before, _ in node.next_functions]
            yield from _tensors(getattr(node, "__dict__", {}))  # only functions in Python have attributes


def _tensors(value: object) -> Iterator[Tensor]:
    """Tensors in nested dataclasses, mappings, lists and tuples."""
    if isinstance(value, Tensor):
        yield value
        return
    value = vars(value) if is_dataclass(value) else value
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    for part in parts:
        yield from _tensors(part)


def flops(call: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products in `call`."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return counter.get_total_flops()


# --- table 1: attention -------------------------------------------------------------------------------------


def one_query_at_a_time(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention that holds the weights of one query only: the paper's memory-efficient way (Sec. 2)."""
    rows = (scaled_dot_product_attention(q, key, value, need_weights=True)[0] for q in query.split(1, dim=2))
    return torch.cat(list(rows), dim=2)


def _attention(kind: str, sizes: Sizes) -> Callable[[], Tensor]:
    """A call of one attention; c is the square of the window, of which a chunk is half."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(sizes["b"], sizes["nh"], sizes["l"], sizes["dk"]) for _ in range(3))
    if kind == "Scaled Dot-Product":
        return lambda: scaled_dot_product_attention(query, key, value, need_weights=True)[0]
    if kind == "Memory-Efficient":
        return lambda: one_query_at_a_time(query, key, value)
    chunk_len = 2 * sizes["l"] // sizes["nc"]  # the window of two chunks is 4 l / nc
    buckets = torch.randint(8, (sizes["b"], sizes["nh"], sizes["nr"], sizes["l"]))
    return lambda: lsh_attention(query, value, buckets, chunk_len=chunk_len)


_ATTENTION_SIZES = {
    "wide": {"b": 1, "nh": 1, "l": 16, "dk": 2048, "nr": 1, "nc": 2},
    "long": {"b": 1, "nh": 1, "l": 512, "dk": 2, "nr": 2, "nc": 16},
}


# --- table 3: models ----------------------------------------------------------------------------------------


class _PlainAttention(nn.Module):
    """Multi-head attention that keeps its weights, as the paper's Transformer does."""

    def __init__(self, **sizes: int) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(**sizes)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.attention(inputs, is_causal=True, need_weights=True).output


def whole_model(
    kind: str, sizes: Sizes, *, head_dim: int = 2, n_buckets: int | None = 4, fused: bool = False
) -> nn.Module:
    """A model of one row of table 3; its window is the square root of c.

    Args:
        kind: the row.
        sizes: b, l and what is below, by the paper's letters.
        head_dim: width of a head, no size of the table.
        n_buckets: of hashing; None for two for each chunk, whose products then grow with the square of the length.
        fused: hash with `attn.kernels.lsh`.
    """
    torch.manual_seed(0)
    width = sizes["dmodel"]
    heads = {"d_model": width, "n_heads": sizes["nh"], "head_dim": head_dim, "value_dim": head_dim}
    is_hashed = kind in ("LSH Transformer", "Reformer")
    window = round(sizes["c"] ** 0.5)

    def attention() -> nn.Module:
        if is_hashed:
            return LSHAttention(
                **heads, chunk_len=window // 2, n_rounds=sizes["nr"], n_buckets=n_buckets, fused=fused
            )
        return _PlainAttention(**heads)

    layers = [[attention(), FeedForward(d_model=width, d_ff=sizes["dff"])] for _ in range(sizes["nl"])]
    if kind in ("Transformer", "LSH Transformer"):
        return Stack(layers, d_model=width)
    chunks = CHUNKS if kind in _CHUNKED else 1
    blocks = [
        [
            ResidualBranch(sublayers[0], d_model=width),
            ResidualBranch(sublayers[1], d_model=width, chunks=chunks),
        ]
        for sublayers in layers
    ]
    return ReversibleStack(blocks)


CHUNKS = 4  # of the feed-forward layer, where there are any
_CHUNKED = ("Chunked Reversible Transformer", "Reformer")
_LONG = {"b": 1, "nh": 2, "l": 256, "dff": 4, "dmodel": 4, "nr": 4, "c": 1024, "nl": 2}
_MODEL_SIZES = {
    "wide": {"b": 1, "nh": 1, "l": 16, "dff": 4096, "dmodel": 16, "nr": 1, "c": 16, "nl": 2},
    "long": _LONG,
}
# Chunks take the inner width away, and what is left are the streams themselves.
_CHUNKED_SIZES = {
    "wide": {"b": 1, "nh": 1, "l": 16, "dff": 128, "dmodel": 1024, "nr": 1, "c": 16, "nl": 2},
    "long": _LONG,
}


# --- exponents ----------------------------------------------------------------------------------------------


def exponents(measure: Callable[[Sizes], float], sizes: Sizes) -> Exponents:
    """The power of each size that `measure` follows around `sizes`.

    Raises:
        ArithmeticError: if a growth is none of 0, 1/2, 1 and 2.
    """
    base, found = measure(sizes), {}
    for name, size in sizes.items():
        power = log(measure({**sizes, name: _GROWTH * size}) / base) / log(_GROWTH)
        sign = -1 if power < -_ROUNDING else 1
        nearest = min(_POWERS, key=lambda law: abs(law - abs(power)))
        if abs(abs(power) - nearest) > _ROUNDING:
            raise ArithmeticError(f"{name} has the power {power:.2f} at {dict(sizes)}")
        found[name] = sign * nearest
    return found


class Law(NamedTuple):
    """Exponents in both regimes, but for those of what is `LEFT_OUT`."""

    wide: Exponents
    long: Exponents


def regimes(table: str, kind: str) -> Mapping[str, Sizes]:
    """The sizes at which a row is counted."""
    if table == "table1":
        return _ATTENTION_SIZES
    return _CHUNKED_SIZES if kind in _CHUNKED else _MODEL_SIZES


@cache
def counted_law(table: str, kind: str, column: str) -> Law:
    """The exponents of what one row of table 1 or 3 does, for "memory" or "time"."""

    def measure(sizes: Sizes) -> float:
        if table == "table1":
            return (largest_tensor if column == "memory" else flops)(_attention(kind, sizes))
        model, inputs = whole_model(kind, sizes), torch.randn(sizes["b"], sizes["l"], sizes["dmodel"])
        return peak_saved(model, inputs) if column == "memory" else flops(lambda: model(inputs))

    return _law(measure, regimes(table, kind), LEFT_OUT.get((table, column), ()))


def printed_law(table: str, kind: str, column: str, formula: str) -> Law:
    """The exponents of a printed formula of max, +, *, / and whole powers, far into either regime.

    Raises:
        ValueError: for anything else in the formula.
    """
    if not re.fullmatch(r"[a-z0-9()*/+^, ]*", formula):
        raise ValueError(f"formula must be made of sizes, numbers and max + * / ^; got {formula!r}")
    code = compile(formula.replace("^", "**"), "formula", "eval")
    far = {"wide": {"dk": 1e12, "dff": 1e12, "dmodel": 1e12}, "long": {"l": 1e12, "c": 1e12}}
    at = regimes(table, kind)
    sizes = {
        name: {**at[name], **{size: far[name][size] for size in far[name] if size in at[name]}} for name in at
    }

    def value(values: Sizes) -> float:
        return eval(code, {"__builtins__": {}, "max": max}, dict(values))

    return _law(value, sizes, LEFT_OUT.get((table, column), ()))


def _law(measure: Callable[[Sizes], float], at: Mapping[str, Sizes], left_out: Sequence[str]) -> Law:
    found = (exponents(measure, at[regime]) for regime in Law._fields)
    return Law(*({name: power for name, power in law.items() if name not in left_out} for law in found))


def differing(counted: Law, printed: Law) -> set[str]:
    """Sizes whose printed power is not the counted one, in either regime."""
    pairs = zip(counted, printed, strict=True)
    return {name for ours, theirs in pairs for name in ours if ours[name] != theirs[name]}


def law_text(column: str, law: Law) -> str:
    """Exponents as a formula in the manner of the paper."""
    is_deep = bool(law.long.get("nl"))
    wide, long = (_product({name: p for name, p in term.items() if name != "nl"}) for term in law)
    if wide == long:
        whole = wide
    else:
        whole = f"max({wide}, {long})" if column == "memory" else f"({wide} + {long})"
    return f"{whole}*nl" if is_deep else whole


def _product(powers: Exponents) -> str:
    above = [_power(name, power) for name, power in powers.items() if power > 0]
    below = [_power(name, -power) for name, power in powers.items() if power < 0]
    return "/".join(["*".join(above), *below])


def _power(name: str, power: Fraction) -> str:
    if power == 1:
        return name
    return f"{name}^{power}" if power.denominator == 1 else f"{name}^({power})"


def cell(table: str, kind: str, column: str, formula: str) -> str:
    """The printed formula where it stands, else what was counted."""
    counted = counted_law(table, kind, column)
    if differing(counted, printed_law(table, kind, column, formula)):
        return law_text(column, counted)
    return formula


def rule_words() -> list[str]:
    """How a printed formula of table 1 or 3 is judged, in sentences."""
    (width,) = LEFT_OUT["table3", "time"]
    return [
        f"Every size is multiplied by {_GROWTH} while the others stay, in two regimes: {' and '.join(Law._fields)}. A "
        "printed formula stands if every size has its counted power in both. As time the products of matrices in a "
        "forward pass are counted, as memory the largest tensor of an attention (table 1) or what waits for the "
        "gradient in a model (table 3).",
        f"Not compared are the widths of vectors in the times of table 3, which the print leaves out: counted, the "
        f"feed-forward term has a factor {width} besides, and attention's the width of a head, which is no size of that "
        "table. A time that stands there stands up to these.",
        "Hashing itself is left out, as the print has no term for it: the attention of table 1 is given its buckets, "
        "and the models of table 3 have as few buckets at every length.",
    ]
