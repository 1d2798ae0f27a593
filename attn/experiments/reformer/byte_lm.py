"""Language models on bytes: which attention, which residual layers and how deep, and what is measured of them.

Segments are long and carry nothing from one to the next, so that all context is within a segment.

Shapes: B rows, T `seq_len`, D `d_model`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from math import ceil, log
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attn.attention import SinusoidalPositions
from attn.data.language_text import TextConfig, load
from attn.experiments.reformer.saved import KEPT, REVERSED, saved_bytes
from attn.experiments.reformer.workloads import AttentionConfig
from attn.language_model import LanguageModel, Stack, Vocabulary
from attn.reformer import AxialPositions, LocalAttention, LSHAttention, ReformerAttention
from attn.reproduction.experiment import Metric, Outcome
from attn.reversible import ResidualBranch, ReversibleLayers
from attn.training.config import TrainingConfig
from attn.training.seeding import set_seed
from attn.training.text import TextWorkload
from attn.transformer import FeedForward

# What a model with shared queries and keys is evaluated with after training.
ROUNDS = (1, 2, 4, 8)
KEPT_BYTES = 1024  # of a segment, whose buckets are kept
EVALUATIONS: Mapping[str, AttentionConfig] = {
    "full": AttentionConfig(kind="full"),
    **{f"lsh{rounds}": AttentionConfig(kind="lsh", n_rounds=rounds) for rounds in ROUNDS},
}


@dataclass(frozen=True, kw_only=True)
class ByteConfig:
    """One run on the bytes of a text."""

    text: TextConfig
    attention: AttentionConfig
    is_reversible: bool
    seq_len: int  # T
    chunk_len: int  # m of hashing; T / m chunks
    n_layers: int
    d_model: int
    n_heads: int
    d_ff: int
    training: TrainingConfig  # batch_size counts bytes
    local_chunk: int = (
        0  # layers 1, 3, ... attend within chunks of so many bytes and one back; 0 for no such layers
    )
    dropout: float = 0.0
    feed_forward_chunks: int = 1  # of reversible layers
    axial_shape: tuple[int, ...] | None = None  # of learned positions; None for sinusoids
    grid_segments: int = 0  # of the test text, for every attention of `EVALUATIONS`; 0 leaves them out
    evaluation_rows: int = 8

    def __post_init__(self) -> None:
        if self.attention.kind == "lsh" and self.seq_len < 16 * self.chunk_len:
            raise ValueError(
                f"seq_len must be at least 16 chunks of chunk_len, so that hashing has something to choose from: "
                f"{16 * self.chunk_len}; got {self.seq_len}"
            )
        if self.training.batch_size % self.seq_len:
            raise ValueError(
                f"batch_size must be a whole number of segments of {self.seq_len} bytes; got "
                f"{self.training.batch_size}"
            )
        if self.feed_forward_chunks > 1 and not self.is_reversible:
            raise ValueError(
                f"feed_forward_chunks must be 1 where layers are not reversible; got {self.feed_forward_chunks}"
            )


def build_model(config: ByteConfig, vocab_size: int = 256) -> LanguageModel:
    """Layers of attention and feed-forward, plain or reversible, with as many parameters either way."""
    layers = [
        [_attention(config, layer), FeedForward(d_model=config.d_model, d_ff=config.d_ff)]
        for layer in range(config.n_layers)
    ]
    if config.is_reversible:
        stack = ReversibleLayers(
            layers, d_model=config.d_model, dropout=config.dropout, chunks=config.feed_forward_chunks
        )
    else:
        stack = Stack(layers, d_model=config.d_model, dropout=config.dropout)
    return LanguageModel(
        vocabulary=Vocabulary(vocab_size=vocab_size, d_model=config.d_model, scale=config.d_model**0.5),
        stack=stack,
        positions=_positions(config),
        dropout=config.dropout,
    )


def _attention(config: ByteConfig, layer: int) -> ReformerAttention:
    sizes = {"d_model": config.d_model, "n_heads": config.n_heads}
    attention = config.attention
    if config.local_chunk and layer % 2 == 0:
        return LocalAttention(
            **sizes, chunk_len=config.local_chunk, shared_qk=attention.shared_qk,
            unit_keys=attention.unit_keys, self_last=attention.self_last,
        )  # fmt: skip
    return _hash_once(attention.build(**sizes, chunk_len=config.chunk_len))


def _hash_once(attention: ReformerAttention) -> ReformerAttention:
    """Have reversible layers keep the buckets: from recomputed inputs a token could fall into another one."""
    if isinstance(attention, LSHAttention):
        attention.choices = ("buckets",)
    return attention


def _positions(config: ByteConfig) -> nn.Module:
    """Sinusoids, or the authors' axial positions, which are learned."""
    if config.axial_shape is None:
        return SinusoidalPositions(d_model=config.d_model, max_len=config.seq_len)
    n_axes = len(config.axial_shape)
    widths = [config.d_model // n_axes] * n_axes
    widths[-1] += config.d_model - sum(widths)
    return AxialPositions(shape=config.axial_shape, widths=widths)


class ByteWorkload(TextWorkload):
    """Training on a text; in the end its cost in bits, by place in the segment and by attention, and memory."""

    unit = "bytes"

    def __init__(self, config: ByteConfig, seed: int, device: torch.device) -> None:
        text = load(config.text)
        set_seed(seed)
        super().__init__(
            model=build_model(config, text.vocab_size).to(device),
            text=text,
            n_rows=config.training.batch_size // config.seq_len,
            block=config.seq_len,
            seed=seed,
            evaluation_rows=config.evaluation_rows,
        )
        self.config = config

    def outcome(self, model: nn.Module, history: Sequence[Mapping[str, Any]]) -> Outcome:
        """Bits of the test text, under other attentions too where they fit the weights, and bytes in training."""
        metrics = self._memory(model)
        model.eval()
        set_seed(0)  # rotations are drawn from torch's default generator
        by_position = self._bits_by_position(model)
        half, hashing = len(by_position) // 2, self._rotations(self.config.attention)
        metrics["bits_per_byte"] = self._metric(float(by_position.mean()), f"each byte of a segment{hashing}")
        metrics["bits_far"] = self._metric(
            float(by_position[half:].mean()), f"each byte of a segment's second half{hashing}"
        )
        if self.config.is_reversible and self.config.attention.kind == "full":
            metrics["reconstruction_error"] = self._reconstruction(model)
        if self.config.grid_segments and self.config.attention.shared_qk:
            metrics |= {f"bits_{name}": self._under(model, name) for name in EVALUATIONS}
        arrays = {"bits_by_position": by_position.astype(np.float32)}
        if self.config.attention.kind == "lsh":
            arrays |= self._buckets(model)
        return Outcome(metrics, arrays)

    @torch.no_grad()
    def _bits_by_position(self, model: nn.Module, n_segments: int | None = None) -> np.ndarray:
        """Mean bits of the byte after each position of a segment [T], over the segments of `_per_row`."""
        total, count = torch.zeros(self.config.seq_len, dtype=torch.float64, device=self.device), 0
        for segment in islice(self.read("test"), self._per_row(n_segments)[0]):
            nats, _ = model(segment.tokens, targets=segment.targets)
            total += nats.double().sum(0)
            count += len(nats)
        return (total / (count * log(2))).cpu().numpy()

    def _per_row(self, n_segments: int | None) -> tuple[int, int]:
        """How many segments of every row of the test text are read, and how many there are.

        All of them for None, else as few as make `n_segments` together.
        """
        there_are = (len(self.text.splits["test"]) // self.evaluation_rows - 1) // self.config.seq_len
        wanted = there_are if n_segments is None else ceil(n_segments / self.evaluation_rows)
        return min(wanted, there_are), there_are

    @torch.no_grad()
    def _buckets(self, model: nn.Module) -> dict[str, np.ndarray]:
        """In which bucket every layer and head puts the bytes of the first test segment, in one round [N, H, T]."""
        tokens = next(iter(self.read("test"))).tokens[:1]
        found: list[np.ndarray] = []

        def keep(module: LSHAttention, arguments: tuple[Tensor, ...]) -> None:
            found.append(module.buckets(arguments[0])[0, :, 0, :KEPT_BYTES].cpu().numpy().astype(np.int32))

        hooks = [
            module.register_forward_pre_hook(keep)
            for module in model.modules()
            if isinstance(module, LSHAttention)
        ]
        set_seed(0)
        model(tokens)
        for hook in hooks:
            hook.remove()
        return {"buckets": np.stack(found), "text": tokens[0, :KEPT_BYTES].cpu().numpy().astype(np.uint8)}

    @torch.no_grad()
    def _reconstruction(self, model: nn.Module) -> Metric:
        """How exactly the stack's inputs come back from its outputs; hashing would draw other rotations."""
        tokens = next(iter(self.read("test"))).tokens
        inputs = model.vocabulary.embed(tokens) + model.positions(tokens.shape[1], 0)
        stack = model.stack.stack
        found = stack.invert(*stack.streams(inputs, inputs))
        error = max(float((stream - inputs).abs().max()) for stream in found) / float(inputs.abs().max())
        how = "largest difference of the inputs from those computed back from the outputs, over the largest input"
        return Metric(error, "share of the largest value", f"{how}; {self._where(1)}")

    def _under(self, model: nn.Module, name: str) -> Metric:
        set_seed(0)
        with attending(model, self.config, EVALUATIONS[name]):
            bits = float(self._bits_by_position(model, self.config.grid_segments).mean())
        attention = EVALUATIONS[name]
        layers = "every layer that does not attend locally" if self.config.local_chunk else "every layer"
        what = f"each byte of a segment, with {attention.words()} in {layers}"
        return self._metric(bits, what + self._rotations(attention), self.config.grid_segments)

    @staticmethod
    def _rotations(attention: AttentionConfig) -> str:
        """Where hashing has its random numbers from, in words."""
        return ", rotations drawn from torch's default generator seeded with 0" * (attention.kind == "lsh")

    def _metric(self, bits: float, what: str, n_segments: int | None = None) -> Metric:
        return Metric(
            bits, "bits per byte", f"mean of -log2 p of the byte after {what}; {self._where(n_segments)}"
        )

    def _where(self, n_segments: int | None) -> str:
        """Which part of the test text is read, in words."""
        config, (per_row, there_are) = self.config, self._per_row(n_segments)
        which = f"{'all' if per_row == there_are else 'the first'} {per_row:,} segments"
        if per_row == 1:
            which = "the first segment"
        how_much = "all" if config.text.test_size is None else "the first"
        return (
            f"{which} of {config.seq_len:,} bytes in each of the {self.evaluation_rows} rows into "
            f"which {how_much} {len(self.text.splits['test']):,} bytes of the test split of {self.text.title} are cut; "
            f"segments know nothing of each other, and what is shorter than one is left out"
        )

    def _memory(self, model: nn.Module) -> dict[str, Metric]:
        """What waits for the gradient in an update, as the layers are and with all activations kept."""
        model.train()
        batch = self.batch(1, 0, 1).batch
        found = {"saved_bytes": saved_bytes(model, batch, REVERSED if self.config.is_reversible else KEPT)}
        if self.config.is_reversible:
            model.stack.stack.keep_activations = True
            found["saved_bytes_kept"] = saved_bytes(model, batch, KEPT)
            model.stack.stack.keep_activations = False
        return found


@contextmanager
def attending(model: nn.Module, config: ByteConfig, attention: AttentionConfig) -> Iterator[None]:
    """The model with another attention over the same weights, for a while; queries and keys shared in both.

    Layers that attend locally stay.
    """
    places = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, ReformerAttention) and not isinstance(child, LocalAttention)
    ]
    for parent, name, trained in places:
        other = attention.build(d_model=config.d_model, n_heads=config.n_heads, chunk_len=config.chunk_len)
        other.load_state_dict(trained.state_dict())
        _put(parent, name, _hash_once(other).to(trained.output.weight.device).train(trained.training))
    try:
        yield
    finally:
        for parent, name, trained in places:
            _put(parent, name, trained)


def _put(parent: nn.Module, name: str, attention: ReformerAttention) -> None:
    """Make it a child of `parent`, which keeps of its inputs what it decides."""
    parent._modules[name] = attention
    if isinstance(parent, ResidualBranch):
        parent.choices = tuple(getattr(attention, "choices", ()))
