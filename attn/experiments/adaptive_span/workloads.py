"""What a run of the chapters on adaptive span and all-attention is: config, model, training, and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attn.adaptive_span import (
    RelativePositions,
    SpanAttention,
    clamp_spans,
    distances,
    flops_per_step,
    recorded_spans,
    reported_span,
    span_penalty,
)
from attn.all_attention import AllAttention
from attn.attention import check_positive
from attn.data.language_text import LanguageText, TextConfig, load
from attn.data.token_batch import TokenBatch
from attn.evaluation.text import text_bits
from attn.language_model import LanguageModel, Stack, Vocabulary, carries_state
from attn.reproduction.experiment import Metric, Outcome
from attn.training.config import TrainingConfig
from attn.training.loop import BatchLoss
from attn.training.seeding import set_seed
from attn.training.text import Piece, TextWorkload
from attn.transformer import FeedForward

# Segments of validation text over which spans that depend on the input, and attention weights, are averaged; tokens of
# one row that are kept for the figure; and distances up to which the weights are kept one by one.
_SPAN_SEGMENTS, _SPAN_TOKENS, _DISTANCES = 8, 256, 1024


@dataclass(frozen=True, kw_only=True)
class SpanModelConfig:
    """A stack of attention with spans, and feed-forward layers or persistent vectors or both; post-norm.

    Raises:
        ValueError: for sizes below 1, or heads that do not divide the width. What else is invalid, the layers say.
    """

    n_layers: int
    d_model: int
    n_heads: int
    max_span: int  # S
    d_ff: int = 0  # width of the feed-forward layers; 0 for none
    span: str = "adaptive"  # or "dynamic", "fixed"
    ramp_size: int = 32
    initial_ratio: float = 0.0  # where adaptive spans start, as a share of S
    n_persistent: int = 0  # N of each head; 0 for none
    variant: str = "joint"  # how they join the context, see attn.all_attention
    dropout: float = 0.0  # on attention weights and on activations of the feed-forward layers

    def __post_init__(self) -> None:
        sizes = {name: getattr(self, name) for name in ("n_layers", "d_model", "n_heads", "max_span")}
        check_positive(**sizes)
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model must be a multiple of n_heads = {self.n_heads}; got {self.d_model}")

    def build(self, vocab_size: int) -> LanguageModel:
        """The model: one table of relative positions, and input and output matrices of their own."""
        positions = RelativePositions(head_dim=self.d_model // self.n_heads, max_span=self.max_span)
        layers = []
        for _ in range(self.n_layers):
            attention = AllAttention(
                n_persistent=self.n_persistent, variant=self.variant, d_model=self.d_model, n_heads=self.n_heads,
                positions=positions, span=self.span, ramp_size=self.ramp_size, initial_ratio=self.initial_ratio,
                dropout=self.dropout,
            )  # fmt: skip
            layers.append([attention, *self._feed_forward()])
        vocabulary = Vocabulary(vocab_size=vocab_size, d_model=self.d_model, is_tied=False, use_bias=True)
        nn.init.normal_(vocabulary.embedding)
        stack = Stack(layers, d_model=self.d_model, norm_position="post")
        return LanguageModel(vocabulary=vocabulary, stack=stack)

    def _feed_forward(self) -> list[nn.Module]:
        if not self.d_ff:
            return []
        return [DroppedFeedForward(d_model=self.d_model, d_ff=self.d_ff, dropout=self.dropout)]

    def flops(self, span: float) -> float:
        """Multiply-accumulates to predict one token at this mean span of the heads that have one, by the papers' rule.

        In "head-split", half of the heads project no keys and values of a context and attend to none.
        """
        left_out = self.n_layers * (self.d_model**2 + self.d_model * span)
        return -left_out * (self.variant == "head-split") + flops_per_step(
            n_layers=self.n_layers,
            d_model=self.d_model,
            span=span,
            d_ff=self.d_ff,
            n_persistent=self.n_persistent,
        )


class DroppedFeedForward(FeedForward):
    """A feed-forward layer with dropout on its activations, which is where the paper has it."""

    def __init__(self, *, d_model: int, d_ff: int, dropout: float) -> None:
        super().__init__(d_model=d_model, d_ff=d_ff)
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, T, D] to [B, T, D]."""
        return self.contract(self.dropout(F.relu(self.expand(inputs))))


@dataclass(frozen=True, kw_only=True)
class SpanTextConfig:
    """One run on a text."""

    text: TextConfig
    model: SpanModelConfig
    training: TrainingConfig  # batch_size counts tokens: n_rows * block
    n_rows: int  # B
    block: int  # T
    span_cost: float = 0.0  # lambda, on the mean span of a layer's heads, summed over layers
    evaluation_rows: int = 8
    zero_cache: bool = False  # attend to S zeros before the text, as the authors' code does

    def __post_init__(self) -> None:
        if self.training.batch_size != self.n_rows * self.block:
            raise ValueError(
                f"training.batch_size must be n_rows * block = {self.n_rows * self.block} tokens; got "
                f"{self.training.batch_size}"
            )


class SpanWorkload(TextWorkload):
    """Training with the cost of spans; in the end bits per symbol, spans and operations.

    Attributes:
        symbol: what a token of the text is called.
        uncounted: what the evaluation leaves out.

    Args:
        config: of the run.
        seed: of the weights.
        device: of the model.
        text: None for the config's own.
    """

    symbol = "symbol"
    uncounted = "what is shorter than a block is left out"

    def __init__(
        self, config: SpanTextConfig, seed: int, device: torch.device, text: LanguageText | None = None
    ) -> None:
        self.config = config
        text = load(config.text) if text is None else text
        set_seed(seed)
        super().__init__(
            model=config.model.build(text.vocab_size).to(device), text=text, n_rows=config.n_rows,
            block=config.block, seed=seed, evaluation_rows=config.evaluation_rows,
        )  # fmt: skip

    def loss(self, model: nn.Module, batch: Piece) -> BatchLoss:
        """Nats, and the cost of the spans times the tokens."""
        with recorded_spans(self.model) as spans:
            loss = super().loss(self._reader(model), batch)
        if not spans or not self.config.span_cost:
            return loss
        return replace(loss, total=loss.total + self.config.span_cost * span_penalty(spans) * loss.weight)

    def after_step(self, step: int) -> None:
        """Spans stay between 0 and the limit."""
        clamp_spans(self.model)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Bits per symbol of the validation text, and the mean span, ramp included."""
        return {**super().evaluate(model), "mean_span": float(self.mean_spans(model).mean())}

    def outcome(self, model: nn.Module, history: Sequence[Mapping[str, Any]]) -> Outcome:
        """Costs of validation and test text, spans, and operations by the papers' rule."""
        model.eval()
        spans = self.mean_spans(model)
        mean, longest = float(spans.mean()), float(spans.max())
        config, unit = self.config, f"bits per {self.symbol}"
        in_order, as_trained = (self._in_order(rows) for rows in (config.evaluation_rows, config.n_rows))
        carried = f"all that the spans reach carried along{self._zeros_stand('the text')}; {self.uncounted}"
        alone = (
            f"each block read without what came before it{self._zeros_stand('every block')}; {self.uncounted}"
        )
        metrics = {
            "valid_bits": Metric(self.bits(model, "valid"), unit, f"{in_order}, {carried}"),
            "test_bits": Metric(self.bits(model, "test"), unit, f"{in_order}, {carried}"),
            "valid_bits_without_cache": Metric(
                self._bits_alone(model, "valid"), unit, f"{in_order}, {alone}"
            ),
            "valid_bits_as_trained": Metric(self._bits_as_trained(model), unit, f"{as_trained}, {carried}"),
            "mean_span": Metric(mean, "tokens", f"mean {self._over()}"),
            "longest_span": Metric(longest, "tokens", f"longest {self._over()}"),
            "flops": Metric(config.model.flops(mean), "multiply-accumulates", self._rule()),
        }
        return Outcome(metrics, {"spans": spans.cpu().numpy(), **self.kept(model)})

    def _in_order(self, n_rows: int) -> str:
        how = f"in {n_rows} rows, {self.config.block} {self.symbol}s at a time"
        return f"mean of -log2 p over the whole split read in order {how}"

    def _zeros_stand(self, before: str) -> str:
        return (
            f", {self.config.model.max_span} zeros standing before {before}" if self.config.zero_cache else ""
        )

    def _over(self) -> str:
        """What spans are taken over."""
        heads = "the heads that see the context" if self.config.model.variant == "head-split" else "heads"
        over = f"over {heads} and layers, ramp included, at most S"
        if self.config.model.span == "dynamic":
            over += f"; each head's is its mean over the validation text's first {_SPAN_SEGMENTS} blocks of every row"
        return over

    def _rule(self) -> str:
        rule = "multiply-accumulates for one token by the paper's rule: layers times (2 d d_ff + 4 d^2 + 2 d (span + N))"
        if self.config.model.variant == "head-split":
            rule += ", less layers times (d^2 + d span) for the half of the heads without a context"
        return rule

    def kept(self, model: nn.Module) -> dict[str, np.ndarray]:
        """More for the artifact: where heads look, and where spans depend on the input, those over some text."""
        found = {} if self.config.model.n_persistent else self._looks(model)
        return found | (self._span_of_tokens(model) if self.config.model.span == "dynamic" else {})

    def _looks(self, model: nn.Module) -> dict[str, np.ndarray]:
        """Each head's mean distance in tokens [layers, H], and its weight by distance [layers, H, distances]."""
        shares = self._weight_by_distance(model)
        distance = torch.arange(1, shares.shape[-1] + 1, device=shares.device, dtype=shares.dtype)
        return {
            "attention_distance": (shares @ distance).cpu().numpy(),
            "attention_by_distance": shares[..., :_DISTANCES].cpu().numpy().astype(np.float16),
        }

    @torch.no_grad()
    def _weight_by_distance(self, model: nn.Module) -> Tensor:
        """Mean attention weight at the distances 1 to S [layers, H, S], in one row of validation text, caches filled."""
        layers, calls, found = attentions(self.model), {}, []
        hooks = [
            layer.register_forward_pre_hook(lambda layer, arguments: calls.update({layer: arguments}))
            for layer in layers
        ]
        max_span, state = self.config.model.max_span, None
        before = -(-max_span // self.evaluation_block)
        segments = list(islice(self.read("valid"), before + _SPAN_SEGMENTS))
        try:
            for place, batch in enumerate(segments, start=-len(segments)):
                _, state = model(batch.tokens[:1], state)
                if place >= -_SPAN_SEGMENTS:
                    weights = [layer.attention_maps(*calls[layer])[0] for layer in layers]
                    found.append(torch.stack([weight_by_distance(one, max_span) for one in weights]))
        finally:
            for hook in hooks:
                hook.remove()
        return torch.stack(found).mean(0)

    def _span_of_tokens(self, model: nn.Module) -> dict[str, np.ndarray]:
        tokens, spans = [], []
        for batch, found in self._dynamic_spans(model):
            tokens.append(batch.tokens[0])
            spans.append(found[:, 0])  # [layers, H, T]
        kept = torch.cat(spans, dim=-1)[..., :_SPAN_TOKENS]
        return {
            "dynamic_tokens": torch.cat(tokens)[:_SPAN_TOKENS].cpu().numpy().astype(np.int32),
            "dynamic_spans": kept.cpu().numpy().astype(np.float32),
        }

    @torch.no_grad()
    def mean_spans(self, model: nn.Module) -> Tensor:
        """Spans with the ramp [layers, H]; where they depend on the input, means over some validation text."""
        if self.config.model.span == "dynamic":
            found = [spans.mean(dim=(1, 3)) for _, spans in self._dynamic_spans(model)]
            return torch.stack(found).mean(0)
        return torch.stack([layer.current_spans() for layer in attentions(self.model)])

    @torch.no_grad()
    def _dynamic_spans(self, model: nn.Module) -> Iterator[tuple[TokenBatch, Tensor]]:
        """Segments of the validation text, and the spans there with the ramp [layers, B, H, T]."""
        settings, state = self.config.model, None
        for batch in islice(self.read("valid"), _SPAN_SEGMENTS):
            with recorded_spans(self.model) as spans:
                _, state = model(batch.tokens, state)
            yield (
                batch,
                torch.stack(
                    [reported_span(span.squeeze(-1), settings.ramp_size, settings.max_span) for span in spans]
                ),
            )

    def bits(self, model: nn.Module, split: str) -> float:
        """Mean bits per symbol of a split, read in order."""
        return super().bits(self._reader(model), split)

    def _reader(self, model: nn.Module) -> Callable[..., Any]:
        """The model; one that finds a cache of zeros where a text begins, if the config wants that."""
        if not self.config.zero_cache:
            return model

        def read(tokens: Tensor, state: Any = None, **options: Any) -> Any:
            return model(tokens, self._zeros(len(tokens)) if state is None else state, **options)

        return read

    def _zeros(self, n_rows: int) -> tuple[Tensor | None, ...]:
        sizes, sublayers = self.config.model, [item for layer in self.model.stack.layers for item in layer]
        zeros = torch.zeros(n_rows, sizes.max_span, sizes.d_model, device=self.device)
        return tuple(zeros if carries_state(sublayer) else None for sublayer in sublayers)

    def _bits_alone(self, model: nn.Module, split: str) -> float:
        return text_bits(
            self._reader(model), (segment._replace(is_start=True) for segment in self.read(split))
        )

    def _bits_as_trained(self, model: nn.Module) -> float:
        rows, self.evaluation_rows = self.evaluation_rows, self.config.n_rows
        try:
            return self.bits(model, "valid")
        finally:
            self.evaluation_rows = rows


def weight_by_distance(weights: Tensor, max_span: int) -> Tensor:
    """How much weight a query gives to the distances 1 to S, on average [H, S], of weights [B, H, T, K]."""
    distance = distances(*weights.shape[2:], device=weights.device)
    inside = (distance >= 1) & (distance <= max_span)
    shares = weights.new_zeros(weights.shape[1], max_span)
    shares.index_add_(1, distance[inside] - 1, weights.mean(0)[:, inside])
    return shares / weights.shape[2]


def attentions(model: nn.Module) -> list[SpanAttention]:
    """The attention sub-layers, from the input up."""
    return [module for module in model.modules() if isinstance(module, SpanAttention)]


def build_text(config: SpanTextConfig, seed: int, device: torch.device) -> SpanWorkload:
    """Workload on a text."""
    return SpanWorkload(config, seed, device)
