"""Table 1 of the paper, measured on real layers: operations, operations in sequence, and lengths of paths (Sec. 4).

Operations are multiply-adds of matrix products and convolutions, counted while the modules run. What must happen in
sequence is read off the graph that autograd makes. Which positions a position reaches is read off gradients of a layer.

Symbols: n sequence length, d width, k kernel size, r neighbourhood. Layers are named as the table prints them, with
"LSTM" and "GRU" besides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import log
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from attn.attention import MultiHeadAttention
from attn.experiments.transformer.fits import Exponents, fit_law, fit_powers
from attn.layer_types import DilatedConvolutions, RestrictedSelfAttention
from attn.reproduction.facts import FactTable

ATTENTION, RECURRENT = "Self-Attention", "Recurrent"
CONVOLUTION, RESTRICTED = "Convolutional", "Self-Attention (restricted)"
LAYERS = (ATTENTION, RECURRENT, CONVOLUTION, RESTRICTED)
_RECURRENT = {RECURRENT: nn.RNN, "LSTM": nn.LSTM, "GRU": nn.GRU}

LENGTHS = (64, 128, 256, 512)
WIDTHS = (64, 128, 256, 512)
KERNELS = (3, 5, 9, 17)
NEIGHBOURHOODS = (
    33,
    65,
    129,
)  # these cut `LENGTHS` into whole blocks, in which a query meets 1.5 (r - 1) keys
KERNEL, NEIGHBOURHOOD = KERNELS[0], NEIGHBOURHOODS[0]
CHAIN_LENGTHS = (4, 8, 16, 32, 64)
PATH_LENGTHS = (8, 16, 32, 64)
# The symbol of a reach, and the reaches and lengths whose paths are fitted. Logarithms are rounded up to a few whole
# numbers, so they are taken at more lengths; a power of the reach asks for paths of several layers.
PATH_FITS = {
    CONVOLUTION: ("k", (3, 5, 7), (4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128)),
    RESTRICTED: ("r", (5, 9, 17), (32, 64, 128)),
}
_BASE_TOLERANCE = 0.25  # share by which a fitted base may miss; k and (k + 1) / 2 are a third and more apart
PATH_NEIGHBOURHOOD = 5  # small, so that short sequences need several layers

_TINY = 4  # d where only the structure counts
_PRODUCTS = {"MmBackward0": 1, "AddmmBackward0": 1, "BmmBackward0": 1, "ConvolutionBackward0": 1}
_FUSED = "ScaledDotProduct"  # one node for two products: scores, then the weighted sum


def build(kind: str, d_model: int, *, reach: int | None = None) -> nn.Module:
    """One layer, attention with one head; ValueError for an unknown kind.

    Args:
        kind: a name of `LAYERS`, or "LSTM" or "GRU".
        d_model: d.
        reach: k or r where the kind has one; None for the smallest of the lists above.
    """
    if kind == ATTENTION:
        return MultiHeadAttention(d_model=d_model, n_heads=1)
    if kind == CONVOLUTION:
        return DilatedConvolutions(d_model=d_model, kernel_size=reach or KERNEL)
    if kind == RESTRICTED:
        return RestrictedSelfAttention(d_model=d_model, n_heads=1, neighbourhood=reach or NEIGHBOURHOOD)
    if kind not in _RECURRENT:
        raise ValueError(
            f"kind must be one of {', '.join(dict.fromkeys([*LAYERS, *_RECURRENT]))}; got {kind!r}"
        )
    return _RECURRENT[kind](d_model, d_model, batch_first=True)


def _run(layer: nn.Module, inputs: Tensor) -> Tensor:
    outputs = layer(inputs)
    return outputs if isinstance(outputs, Tensor) else outputs[0]


# --- operations ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """Multiply-adds of one layer on one sequence.

    Attributes:
        term: what the table speaks of: of attention the scores and the weighted sum, of other layers everything.
        projections: of attention the maps to queries, keys, values and output, 4 n d^2, which the table leaves out.
    """

    term: int
    projections: int

    @property
    def total(self) -> int:
        """The whole layer."""
        return self.term + self.projections


@cache
def multiply_adds(kind: str, seq_len: int, d_model: int, reach: int | None = None) -> Cost:
    """Multiply-adds of the forward pass of `build(kind, d_model, reach=reach)` on n positions, counted as it runs."""
    # The meta device computes nothing, but is slow in long loops; in float64 no recurrence is one fused operation.
    device, dtype = ("cpu", torch.float64) if kind in _RECURRENT else ("meta", torch.float32)
    with torch.device(device):
        layer = build(kind, d_model, reach=reach).to(dtype)
    return _counted(layer, torch.zeros(1, seq_len, d_model, dtype=dtype, device=device))


def _counted(layer: nn.Module, inputs: Tensor) -> Cost:
    """Multiply-adds of a layer's forward pass on `inputs` [1, n, D]."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        _run(layer, inputs)
    linear = {
        f"{type(layer).__name__}.{name}"
        for name, part in layer.named_modules()
        if isinstance(part, nn.Linear)
    }
    by_module = counter.get_flop_counts()
    projections = sum(sum(by_module[name].values()) for name in linear)
    return Cost(
        (counter.get_total_flops() - projections) // 2, projections // 2
    )  # 2 operations a multiply-add


def head_words(*, seq_len: int, d_model: int, n_heads: int) -> str:
    """What attention costs with one head as wide as the model and with several narrow ones, in a sentence.

    Args:
        seq_len: n.
        d_model: d.
        n_heads: h, which divides d.
    """
    with torch.device("meta"):
        inputs = torch.zeros(1, seq_len, d_model)
        layers = [MultiHeadAttention(d_model=d_model, n_heads=count) for count in (1, n_heads)]
    one, several = (_counted(layer, inputs).total for layer in layers)
    said = f"{one:,} each" if one == several else f"{one:,} and {several:,}"
    return (
        f"Multiply-adds of one layer on n = {seq_len} positions at d = {d_model}, with 1 head and with {n_heads}: "
        f"{said}. Weights that the softmax makes: {seq_len**2:,} and {n_heads * seq_len**2:,}."
    )


def exponents(
    kind: str, *, part: str = "term", lengths: Sequence[int] = LENGTHS, widths: Sequence[int] = WIDTHS
) -> Exponents:
    """Exponents of n and d, and of k or r where there is one, over a grid of these and of the lists of reaches.

    Args:
        kind: as in `build`.
        part: of `Cost`: "term", "projections" or "total".
        lengths: n.
        widths: d.
    """
    symbol, reaches = {CONVOLUTION: ("k", KERNELS), RESTRICTED: ("r", NEIGHBOURHOODS)}.get(
        kind, ("", (None,))
    )
    grid = [(n, d, reach) for n in lengths for d in widths for reach in reaches]
    counts = [getattr(multiply_adds(kind, *sizes), part) for sizes in grid]
    columns = dict(zip(("n", "d", symbol), zip(*grid, strict=True), strict=True))
    return fit_powers({name: column for name, column in columns.items() if name}, counts)


def crossing(first: str, second: str, d_model: int, *, part: str = "term", longest: int = 4096) -> int | None:
    """The shortest sequence on which the first layer costs no less than the second; None up to `longest`.

    Args:
        first: the kind that grows faster with n.
        second: the kind it is compared with.
        d_model: d of both.
        part: of `Cost`: "term" as the table compares, or "total" for whole layers.
        longest: where to stop, at least 2.
    """

    def dearer(seq_len: int) -> bool:
        one, other = (getattr(multiply_adds(kind, seq_len, d_model), part) for kind in (first, second))
        return one >= other

    below, above = 0, 1
    while not dearer(above):
        below, above = above, 2 * above
        if above > longest:
            return None
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (below, middle) if dearer(middle) else (middle, above)
    return above


# --- operations in sequence ---------------------------------------------------------------------------------


def longest_chain(kind: str, seq_len: int) -> int:
    """Matrix products that must wait for each other in one layer, whatever the number of processors.

    The longest path through the graph that autograd keeps of a forward pass, counted in products and convolutions. A sum
    over positions counts as one operation, as in the table.
    """
    torch.manual_seed(0)
    layer = build(kind, _TINY).double()
    # The gradient's own graph begins at the inputs, so that products with weights alone are no part of it.
    outputs = _run(layer, torch.randn(1, seq_len, _TINY, dtype=torch.float64, requires_grad=True))
    depth: dict[Any, int] = {}
    stack = [outputs.grad_fn]
    while stack:  # depth first, without recursion: the graph of a recurrence is deep
        node = stack[-1]
        before = [parent for parent, _ in node.next_functions if parent is not None]
        waiting = [parent for parent in before if parent not in depth]
        stack.extend(waiting)
        if not waiting:
            depth[stack.pop()] = max((depth[parent] for parent in before), default=0) + _products(node.name())
    return depth[outputs.grad_fn]


def _products(name: str) -> int:
    return 2 if name.startswith(_FUSED) else _PRODUCTS.get(name, 0)


# --- lengths of paths ---------------------------------------------------------------------------------------


def reached(operation: Callable[[Tensor], Tensor], seq_len: int) -> np.ndarray:
    """Which outputs depend on which inputs: boolean [n outputs, n inputs], from gradients at a random point.

    Args:
        operation: inputs [1, n, 4] to outputs of the same shape, in float64.
        seq_len: n.
    """
    generator = torch.Generator().manual_seed(0)
    inputs, weights = torch.randn(2, 1, seq_len, _TINY, dtype=torch.float64, generator=generator)
    inputs.requires_grad_()
    outputs = (operation(inputs) * weights).sum(-1)[0]  # one number a position, of all its components
    rows = [torch.autograd.grad(output, inputs, retain_graph=True)[0][0] for output in outputs]
    return torch.stack([(row != 0).any(-1) for row in rows]).numpy()


def path_length(kind: str, seq_len: int, *, reach: int | None = None, dilated: bool = True) -> int:
    """Operations a signal passes between the two positions that are hardest to join, n at least 2.

    An operation is a layer, of which as many are stacked as are needed until every output depends on every input; in a
    recurrence it is a time step, and every output must depend on every input up to it.

    Args:
        kind: a name of `LAYERS`.
        seq_len: n.
        reach: k or r; None for 3 and 5.
        dilated: of convolutions, dilated further with each layer; else all alike and contiguous.
    """
    torch.manual_seed(0)
    if kind == RECURRENT:
        return _time_steps(seq_len)
    if kind == CONVOLUTION:
        stack = DilatedConvolutions(
            d_model=_TINY, kernel_size=reach or KERNEL, n_layers=seq_len.bit_length() if dilated else 1
        )
        layers = [lambda x, layer=layer: layer(x.mT).mT for layer in stack.double().layers]
    else:
        module = build(kind, _TINY, reach=reach or PATH_NEIGHBOURHOOD).double()
        layers = [lambda x: _run(module, x)]
    steps = [reached(layer, seq_len) for layer in layers]
    joined, count = np.eye(seq_len, dtype=bool), 0
    while not joined.all():
        joined, count = steps[min(count, len(steps) - 1)] @ joined, count + 1
    return count


def _time_steps(seq_len: int) -> int:
    """Steps of a recurrence until the last state depends on the first input, each step at all positions at once."""
    layer = build(RECURRENT, _TINY).double()

    def step(inputs: Tensor, states: Tensor) -> Tensor:
        before = torch.cat([torch.zeros_like(states[:, :1]), states[:, :-1]], dim=1)
        return layer(inputs.transpose(0, 1), before)[0].transpose(0, 1)

    still = torch.zeros(1, seq_len, _TINY, dtype=torch.float64)
    of_inputs = reached(lambda x: step(x, still), seq_len)
    of_states = reached(lambda x: step(still, x), seq_len)
    wanted = np.tri(seq_len, dtype=bool)
    joined, count = np.zeros((seq_len, seq_len), dtype=bool), 0
    while not (joined & wanted == wanted).all():
        joined, count = of_inputs | (of_states @ joined), count + 1
    return count


# --- table 1 ------------------------------------------------------------------------------------------------


def chains(kind: str, lengths: Sequence[int] = CHAIN_LENGTHS) -> dict[int, int]:
    """`longest_chain` by n."""
    return {n: longest_chain(kind, n) for n in lengths}


def paths(kind: str, lengths: Sequence[int] = PATH_LENGTHS, **options: Any) -> dict[int, int]:
    """`path_length` by n."""
    return {n: path_length(kind, n, **options) for n in lengths}


@cache
def law_texts(kind: str) -> dict[str, str]:
    """The measured laws in the notation of table 1, from short sequences and narrow layers.

    Args:
        kind: a name of `LAYERS`.

    Returns:
        `complexity_per_layer`, `sequential_operations` and `max_path_length`.
    """
    powers = exponents(kind, lengths=(64, 128), widths=(32, 64)).powers
    order = sorted(powers, key="krnd".index)
    factors = [f"{symbol}^{round(powers[symbol])}".removesuffix("^1") for symbol in order]
    chain = chains(kind, (4, 8, 16))
    return {
        "complexity_per_layer": f"O({' * '.join(factors)})",
        "sequential_operations": f"O({fit_law(list(chain), list(chain.values())).name})",
        "max_path_length": f"O({path_fit(kind).text})",
    }


@dataclass(frozen=True)
class PathFit:
    """How the longest path grows with n and with the reach of a layer, fitted to counts at several of both.

    Attributes:
        text: its order, in the notation of table 1: "n/r" or "log_k(n)".
        found: the fitted numbers behind it, as "n^1.00 r^-1.13".
        note: what the order leaves out, or why it is not what is printed; None where there is nothing to say.
    """

    text: str
    found: str
    note: str | None = None


@cache
def path_fit(kind: str) -> PathFit:
    """The law of the longest path: a power of n and of r, or a logarithm of n with a base for each k.

    Args:
        kind: a name of `LAYERS`.
    """
    if kind not in PATH_FITS:
        path = paths(kind, PATH_LENGTHS)
        law = fit_law(list(path), list(path.values()))
        return PathFit(law.name, f"{law.name}, slope {law.slope:.2f}")
    symbol, reaches, lengths = PATH_FITS[kind]
    found = {reach: paths(kind, lengths, reach=reach) for reach in reaches}
    (of_n, _), (of_log, slopes) = (_lines(found, scale) for scale in (np.asarray, np.log2))
    if of_log < of_n:
        return _logarithm(symbol, {reach: 2 ** (1 / slope) for reach, slope in slopes.items()})
    counts = {(n, r): count for r, path in found.items() for n, count in path.items()}
    lengths, widths = zip(*counts, strict=True)
    powers = fit_powers({"n": lengths, symbol: widths}, list(counts.values()))
    return PathFit(_power_text(powers, symbol), str(powers))


def _lines(
    found: Mapping[int, Mapping[int, int]], scale: Callable[[Any], np.ndarray]
) -> tuple[float, dict[int, float]]:
    """A line over the scaled lengths for each reach: the sum of squares that all of them leave, and the slopes."""
    left, slopes = 0.0, {}
    for reach, path in found.items():
        x, counts = scale(list(path)), np.asarray(list(path.values()), float)
        slopes[reach], start = np.polyfit(x, counts, 1)
        left += float(((counts - slopes[reach] * x - start) ** 2).sum())
    return left, slopes


def _logarithm(symbol: str, bases: Mapping[int, float]) -> PathFit:
    """Whether the logarithm has the reach as its base, or half of what is one more than it, if all fits are nearest.

    Both are of one order in n and k: their ratio lies between 1 and what it is at the smallest kernel.
    """
    said = ", ".join(f"base {base:.2f} at {symbol} = {reach}" for reach, base in bases.items())
    candidates = {None: lambda k: k, _same_order(symbol, min(bases)): lambda k: (k + 1) / 2}
    for note, base_of in candidates.items():
        if all(abs(base / base_of(reach) - 1) < _BASE_TOLERANCE for reach, base in bases.items()):
            return PathFit(f"log_{symbol}(n)", said, note)
    return PathFit("log(n)", said, f"its base is not {symbol} here, see the fits below")


def _same_order(symbol: str, smallest: int) -> str:
    """How far a path to base (k + 1) / 2 is from one to base k, at its farthest, which is at the smallest kernel."""
    base = (smallest + 1) // 2
    return (
        f"same order: base ({symbol}+1)/2 for centred kernels that stay inside the sequence, at most ln {smallest}/ln "
        f"{base} = {log(smallest) / log(base):.2f} times as long; kernels that look one way only have base {symbol}"
    )


def _power_text(powers: Exponents, symbol: str) -> str:
    """n to the fitted power over the reach to the fitted power, both rounded to halves."""
    of_n, of_reach = (round(2 * powers.powers[name]) / 2 for name in ("n", symbol))
    above = _power("n", of_n)
    if of_reach == 0:
        return above
    return f"{above}/{_power(symbol, -of_reach)}" if of_reach < 0 else f"{above} * {_power(symbol, of_reach)}"


def _power(symbol: str, exponent: float) -> str:
    return "1" if exponent == 0 else symbol if exponent == 1 else f"{symbol}^{exponent:g}"


def table_rows(printed: FactTable, *, seq_len: int = 512, d_model: int = 512) -> list[dict[str, Any]]:
    """Table 1, printed beside measured, one row a layer type.

    Args:
        printed: the paper's `table1`.
        seq_len: n of the multiply-adds that are given as numbers.
        d_model: d of them.

    Returns:
        By row: `layer_type`; what is printed as `complexity_per_layer`, `sequential_operations` and `max_path_length`;
        `exponents`, `Exponents` of the term; `cost`, a `Cost`; `chain` and `path` by n; `chain_law` and `path_law`;
        `path_fit`; and of convolutions `contiguous`, the path by n where they are not dilated.
    """
    rows = []
    for row in printed.rows:
        kind = row["layer_type"]
        chain, path = chains(kind), paths(kind)
        found = {
            "exponents": exponents(kind),
            "cost": multiply_adds(kind, seq_len, d_model),
            "chain": chain,
            "chain_law": fit_law(list(chain), list(chain.values())),
            "path": path,
            "path_law": fit_law(list(path), list(path.values())),
            "path_fit": path_fit(kind),
        }
        if kind == CONVOLUTION:
            found["contiguous"] = paths(kind, dilated=False)
        rows.append({**row, **found})
    return rows
