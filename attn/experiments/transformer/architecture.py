"""The paper's figure 1 drawn from a model: its own modules, sizes and parameters, in the order in which they run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from torch import nn

from attn.attention import LearnedPositions, MultiHeadAttention
from attn.reproduction.figures import figure
from attn.transformer import Residual, Transformer

# Sizes that no two symbols share, for the one run in which shapes are looked at.
_SIZES = {2: "B", 3: "S", 5: "T"}
_TINTS = {
    "attention": "#F8DDB0",
    "feed-forward": "#C9E4F5",
    "norm": "#E6E6E6",
    "embedding": "#F0D3E2",
    "output": "#C5E8DC",
}


@dataclass(frozen=True)
class Block:
    """A module: what it is, its sizes, its parameters, and the shape of what it gives."""

    kind: str  # "attention", "feed-forward", "norm", "embedding" or "output"
    name: str
    detail: str
    n_parameters: int
    shape: str

    @property
    def label(self) -> str:
        """Sizes and parameters, as "8 heads of 64, 1.05M"."""
        return ", ".join(filter(None, [self.detail, shortened(self.n_parameters)]))


@dataclass(frozen=True)
class SubLayer:
    """A sub-layer, and the norm after it where `is_post`, else before it; the way around it spans both."""

    block: Block
    norm: Block
    is_post: bool
    reads_encoder: bool


@dataclass(frozen=True)
class Architecture:
    """An encoder-decoder model from its inputs to its outputs.

    Attributes:
        n_layers: layers of the encoder, and of the decoder.
        embeddings: of source and target; a shared matrix counts in the first.
        encoder, decoder: sub-layers of one layer.
        final_norms: of both stacks, none where the norm stands after each sub-layer.
        output: the map to logits.
    """

    n_layers: int
    embeddings: tuple[Block, Block]
    encoder: tuple[SubLayer, ...]
    decoder: tuple[SubLayer, ...]
    final_norms: tuple[Block, ...]
    output: Block

    @property
    def n_parameters(self) -> int:
        """Of the model."""
        layers = [*self.encoder, *self.decoder]
        once = sum(block.n_parameters for block in (*self.embeddings, *self.final_norms, self.output))
        return once + self.n_layers * sum(x.block.n_parameters + x.norm.n_parameters for x in layers)


def shortened(count: int) -> str:
    """1050624 as "1.05M", 2048 as "2.05k", 0 as "" ."""
    for size, letter in ((1_000_000, "M"), (1000, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return str(count) if count else ""


# --- reading a model ----------------------------------------------------------------------------------------


def architecture(model: Transformer) -> Architecture:
    """What a model is made of; shapes and roles are those of one run on two tiny sequences."""
    seen: dict[nn.Module, tuple[str, dict[str, Any], tuple[Any, ...]]] = {}

    def watch(module: nn.Module, args: tuple, kwargs: dict, outputs: Any) -> None:
        outputs = outputs if isinstance(outputs, torch.Tensor) else outputs[0]
        seen[module] = _shape(outputs.shape), kwargs, args

    hooks = [part.register_forward_hook(watch, with_kwargs=True) for part in model.modules()]
    batch, source_len, target_len = _SIZES
    device = model.embedding.device
    try:
        with torch.no_grad():
            logits = model(
                *(torch.zeros(batch, n, dtype=torch.int64, device=device) for n in (source_len, target_len))
            )
    finally:
        for hook in hooks:
            hook.remove()
    stacks = [tuple(_sublayers(stack[0], seen)) for stack in (model.encoder, model.decoder)]
    shapes = [stack[0].block.shape for stack in stacks]
    norms = [
        Block("norm", "layer norm", "", _count(norm), shape)
        for norm, shape in zip((model.encoder_norm, model.decoder_norm), shapes, strict=True)
        if _count(norm)
    ]
    shared = model.unembedding is None
    own = 0 if shared else model.unembedding.numel()
    output = Block(
        "output", "linear, softmax", "shared matrix" if shared else "own matrix", own, _shape(logits.shape)
    )
    return Architecture(len(model.encoder), _embeddings(model, shapes), *stacks, tuple(norms), output)


def _embeddings(model: Transformer, shapes: Sequence[str]) -> tuple[Block, Block]:
    matrices = (model.embedding, model.target_embedding)
    positions = (model.source_positions, model.target_positions)
    kind = "learned" if isinstance(positions[0], LearnedPositions) else "sinusoidal"
    found = [
        Block(
            "embedding", f"embedding +\n{kind} positions", "shared matrix" if matrix is None else "",
            _count(table) + (0 if matrix is None else matrix.numel()), shape,
        )
        for matrix, table, shape in zip(matrices, positions, shapes, strict=True)
    ]  # fmt: skip
    return found[0], found[1]


def _sublayers(layer: nn.Module, seen: dict) -> list[SubLayer]:
    """Sub-layers and the residuals that follow them among a layer's children."""
    children = list(layer.children())
    return [_sublayer(*pair, seen) for pair in zip(children[::2], children[1::2], strict=True)]


def _sublayer(module: nn.Module, residual: Residual, seen: dict) -> SubLayer:
    shape, kwargs, args = seen[module]
    reads_encoder = False
    if isinstance(module, MultiHeadAttention):
        reads_encoder = len(args) > 1 and args[1] is not None
        name = "encoder-decoder attention" if reads_encoder else "self-attention"
        name = f"masked {name}" if kwargs.get("is_causal") else name
        block = Block(
            "attention", name, f"{module.n_heads} heads of {module.head_dim}", _count(module), shape
        )
    else:
        widths = f"{module.expand.in_features} to {module.expand.out_features}"
        block = Block("feed-forward", "feed-forward", widths, _count(module), shape)
    norm = Block("norm", "layer norm", "", _count(residual), shape)
    return SubLayer(block, norm, residual.is_post, reads_encoder)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _shape(sizes: Sequence[int]) -> str:
    return " × ".join([_SIZES.get(size, str(size)) for size in sizes[:2]] + [str(size) for size in sizes[2:]])


# --- drawing ------------------------------------------------------------------------------------------------

_WIDTH, _BOX, _GAP, _WIDE = 4.6, 1.7, 0.2, 0.48  # inches: of the figure, of a box, between boxes
_CENTRES = (1.17, 3.43)  # of the two columns

_ARROW = {"arrowstyle": "-|>", "mutation_scale": 8, "shrinkA": 0, "shrinkB": 0, "color": "black"}


def draw_architecture(found: Architecture) -> Figure:
    """Encoder at the left, decoder at the right, data flowing upwards (fig. 1); every box says its parameters.

    An arrow says the shape of what flows where it changes. Narrow, so that a phone shows it legibly.
    """
    drawing, axes = figure(width=_WIDTH, height=8.0)
    columns = [_Column(axes, x, outwards) for x, outwards in zip(_CENTRES, (-1, 1), strict=True)]
    tops, entries = [], []
    stacks, starts = (found.encoder, found.decoder), ("source tokens", "target tokens, shifted")
    norms = found.final_norms or (None, None)
    for column, stack, embedding, start, length, norm in zip(
        columns, stacks, found.embeddings, starts, "ST", norms, strict=True
    ):
        column.say(start, f"B × {length}")
        column.box(embedding)
        column.flow(embedding.shape)
        bottom = column.top + _WIDE - _GAP
        entries += [y for part in stack if (y := column.sublayer(part)) is not None]
        column.frame(bottom, f"{found.n_layers} ×")
        if norm:
            column.box(norm)
        tops.append(column.top)
    columns[1].box(found.output)
    columns[1].say_above("probabilities of the next token", found.output.shape)
    for y in entries:
        _memory(axes, tops[0], y)
    height = columns[1].top + 0.42
    axes.set(xlim=(0, _WIDTH), ylim=(0, height))
    axes.set_axis_off()
    drawing.set_size_inches(_WIDTH, height)
    drawing.get_layout_engine().set(w_pad=0, h_pad=0)
    return drawing


def architecture_words(found: Architecture) -> str:
    """The drawing in words."""
    stacks = (
        ", ".join(f"{part.block.name} ({part.block.label})" for part in stack)
        for stack in (found.encoder, found.decoder)
    )
    encoder, decoder = stacks
    return (
        f"Boxes and arrows from bottom to top. Left, an encoder of {found.n_layers} layers: {encoder}. Right, a decoder "
        f"of {found.n_layers} layers: {decoder}. Each sub-layer has a way around it, an addition and a layer norm; an "
        f"arrow leads from the top of the encoder to the decoder's attention. {shortened(found.n_parameters)} "
        "parameters in all."
    )


class _Column:
    """Boxes on top of each other."""

    def __init__(self, axes: Axes, centre: float, outwards: int) -> None:
        self.axes, self.centre, self.outwards, self.top = axes, centre, outwards, 0.0
        self.gap = _GAP  # below the next box

    def say(self, text: str, shape: str) -> None:
        """Words at the bottom."""
        self.axes.text(self.centre, 0.02, f"{text}\n{shape}", ha="center", va="bottom", fontsize=8)
        self.top = 0.33

    def flow(self, shape: str) -> None:
        """The shape of what flows to the next box, beside a longer arrow."""
        self.gap = _WIDE
        self.axes.text(self.centre + 0.08, self.top + 0.04, shape, ha="left", va="bottom", fontsize=8)

    def say_above(self, text: str, shape: str) -> None:
        """Words at the top."""
        self._arrow(self.top, self.top + _GAP)
        self.top += _GAP
        self.axes.text(self.centre, self.top + 0.02, f"{text}\n{shape}", ha="center", va="bottom", fontsize=8)

    def box(self, block: Block, *, height: float = 0.0, head: str = "") -> tuple[float, float]:
        """A box for a block, one gap above the last; the y of its bottom and top."""
        name = head or block.name
        lines = f"{name}\n{block.label}" if block.label else name
        height = height or 0.17 + 0.145 * (lines.count("\n") + 1) - 0.06
        low, self.gap = self.top + self.gap, _GAP
        self._arrow(self.top, low)
        box = FancyBboxPatch(
            (self.centre - _BOX / 2, low), _BOX, height, boxstyle="round,pad=0,rounding_size=0.05",
            facecolor=_TINTS[block.kind], edgecolor="#444444", linewidth=0.8,
        )  # fmt: skip
        self.axes.add_patch(box)
        self.axes.text(
            self.centre, low + height / 2, lines, ha="center", va="center", fontsize=8, linespacing=1.15
        )
        self.top = low + height
        return low, self.top

    def sublayer(self, part: SubLayer) -> float | None:
        """Sub-layer, norm and the way around; the height at which the encoder's output comes in, if it does."""
        start = self.top + self.gap - 0.45 * _GAP
        if part.is_post:
            low, high = self.box(part.block)
            end = sum(self.box(part.norm, head="add, layer norm")) / 2
        else:
            self.box(part.norm)
            low, high = self.box(part.block)
            end = sum(self.box(Block("norm", "add", "", 0, part.block.shape))) / 2
        self._around(start, end)
        return (low + high) / 2 if part.reads_encoder else None

    def frame(self, bottom: float, text: str) -> None:
        """A frame around everything since `bottom`, with words at its outer side."""
        self.gap = _WIDE
        pad = 0.07
        left = self.centre - _BOX / 2 - 0.2
        self.axes.add_patch(
            FancyBboxPatch(
                (left, bottom - pad), _BOX + 0.4, self.top - bottom + 2 * pad,
                boxstyle="round,pad=0,rounding_size=0.08", fill=False, edgecolor="#767676", linestyle="--",
            )
        )  # fmt: skip
        x = left if self.outwards < 0 else left + _BOX + 0.4
        self.axes.text(
            x,
            self.top + pad + 0.03,
            text,
            ha="left" if self.outwards < 0 else "right",
            va="bottom",
            fontsize=9,
        )

    def _arrow(self, low: float, high: float) -> None:
        self.axes.annotate("", (self.centre, high), (self.centre, low), arrowprops=_ARROW)

    def _around(self, low: float, high: float) -> None:
        """The residual connection, at the outer side."""
        side = self.centre + self.outwards * (_BOX / 2 + 0.1)
        edge = self.centre + self.outwards * _BOX / 2
        self.axes.plot([self.centre, side, side], [low, low, high], color="black", linewidth=0.9)
        self.axes.add_patch(FancyArrowPatch((side, high), (edge, high), **_ARROW))


def _memory(axes: Axes, top: float, y: float) -> None:
    """From the top of the encoder to a block of the decoder: its keys and values."""
    middle = sum(_CENTRES) / 2
    above = top + 0.4
    edge = _CENTRES[1] - _BOX / 2
    axes.plot(
        [_CENTRES[0], _CENTRES[0], middle, middle], [top, above, above, y], color="black", linewidth=0.9
    )
    axes.add_patch(FancyArrowPatch((middle, y), (edge, y), **_ARROW))
    axes.text(_CENTRES[0], above + 0.03, "keys and values", ha="center", va="bottom", fontsize=8)
