"""The Transformer, an encoder-decoder of attention and feed-forward layers (Vaswani et al. 2017, arXiv:1706.03762).

Shapes: B batch, S source length, T target length, D `d_model`, H heads, N `n_layers`. Sequences are padded at their
end. In every mask True means "may attend".
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attn.attention import (
    KeyValueCache,
    LearnedPositions,
    MultiHeadAttention,
    SinusoidalPositions,
    check_dropout,
    check_positive,
    padding_mask,
)

NORM_POSITIONS = ("post", "pre")
POSITIONS = {"sinusoidal": SinusoidalPositions, "learned": LearnedPositions}


class FeedForward(nn.Module):
    """max(0, x W1 + b1) W2 + b2 at every position (Sec. 3.3, eq. 2).

    The paper does not say how weights start: here Xavier uniform, biases at 0.

    Args:
        d_model: D.
        d_ff: inner width.
    """

    def __init__(self, *, d_model: int, d_ff: int) -> None:
        super().__init__()
        check_positive(d_model=d_model, d_ff=d_ff)
        self.expand = nn.Linear(d_model, d_ff)
        self.contract = nn.Linear(d_ff, d_model)
        for linear in (self.expand, self.contract):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, T, D] to [B, T, D]."""
        return self.contract(F.relu(self.expand(inputs)))


class Residual(nn.Module):
    """The way around a sub-layer: dropout, addition and layer norm (Sec. 3.1 and 5.4).

    With "post", as in the paper, LayerNorm(x + Dropout(Sublayer(x))); with "pre", which came later and trains without
    warm-up, x + Dropout(Sublayer(LayerNorm(x))).

    Args:
        d_model: D.
        dropout: on the sub-layer's output.
        norm_position: "post" or "pre".
    """

    def __init__(self, *, d_model: int, dropout: float, norm_position: str) -> None:
        super().__init__()
        check_dropout(dropout=dropout)
        if norm_position not in NORM_POSITIONS:
            raise ValueError(f"norm_position must be 'post' or 'pre'; got {norm_position!r}")
        self.norm = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)
        self.is_post = norm_position == "post"

    def before(self, inputs: Tensor) -> Tensor:
        """What the sub-layer sees."""
        return inputs if self.is_post else self.norm(inputs)

    def after(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """What the next layer sees, from the inputs and the sub-layer's outputs."""
        joined = inputs + self.dropout(outputs)
        return self.norm(joined) if self.is_post else joined


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward (fig. 1, left).

    Args:
        d_model: D.
        n_heads: H.
        d_ff: inner width of the feed-forward sub-layer.
        head_dim: width of a query or key of one head; None for D / H.
        value_dim: width of a value of one head; None for D / H.
        dropout: on the output of each sub-layer.
        attention_dropout: on the attention weights; the paper names none.
        norm_position: "post" or "pre".
    """

    def __init__(
        self,
        *,
        d_model: int,
        n_heads: int,
        d_ff: int,
        head_dim: int | None = None,
        value_dim: int | None = None,
        dropout: float = 0.1,
        attention_dropout: float = 0.0,
        norm_position: str = "post",
    ) -> None:
        super().__init__()
        around = {"d_model": d_model, "dropout": dropout, "norm_position": norm_position}
        self.attention = MultiHeadAttention(
            d_model=d_model,
            n_heads=n_heads,
            head_dim=head_dim,
            value_dim=value_dim,
            dropout=attention_dropout,
        )
        self.attention_residual = Residual(**around)
        self.feed_forward = FeedForward(d_model=d_model, d_ff=d_ff)
        self.feed_forward_residual = Residual(**around)

    def forward(
        self, inputs: Tensor, mask: Tensor | None = None, *, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """One layer of the encoder.

        Args:
            inputs: [B, S, D].
            mask: boolean, True may attend, broadcastable to [B, H, S, S].
            need_weights: also return the attention weights.

        Returns:
            Outputs [B, S, D], and the weights [B, H, S, S] or None.
        """
        around = self.attention_residual
        attended = self.attention(around.before(inputs), mask=mask, need_weights=need_weights)
        hidden = around.after(inputs, attended.output)
        around = self.feed_forward_residual
        return around.after(hidden, self.feed_forward(around.before(hidden))), attended.weights


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the encoder's output, and feed-forward (fig. 1, right).

    Args: as `EncoderLayer`.
    """

    def __init__(
        self,
        *,
        d_model: int,
        n_heads: int,
        d_ff: int,
        head_dim: int | None = None,
        value_dim: int | None = None,
        dropout: float = 0.1,
        attention_dropout: float = 0.0,
        norm_position: str = "post",
    ) -> None:
        super().__init__()
        around = {"d_model": d_model, "dropout": dropout, "norm_position": norm_position}
        heads = {"d_model": d_model, "n_heads": n_heads, "head_dim": head_dim, "value_dim": value_dim}
        self.self_attention = MultiHeadAttention(**heads, dropout=attention_dropout)
        self.self_residual = Residual(**around)
        self.cross_attention = MultiHeadAttention(**heads, dropout=attention_dropout)
        self.cross_residual = Residual(**around)
        self.feed_forward = FeedForward(d_model=d_model, d_ff=d_ff)
        self.feed_forward_residual = Residual(**around)

    def forward(
        self,
        inputs: Tensor,
        memory: Tensor | KeyValueCache,
        memory_mask: Tensor | None = None,
        *,
        cache: KeyValueCache | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, KeyValueCache, tuple[Tensor | None, Tensor | None]]:
        """One layer of the decoder.

        Args:
            inputs: [B, T, D].
            memory: the encoder's output [B, S, D], or the result of `cross_attention.project` on it.
            memory_mask: boolean, True may attend, broadcastable to [B, H, T, S].
            cache: self-attention's keys and values of the tokens before `inputs`.
            need_weights: also return the attention weights.

        Returns:
            Outputs [B, T, D]; self-attention's cache for the next tokens; the weights of self-attention and of
            cross-attention [B, H, T, S], or None and None.
        """
        around = self.self_residual
        own = self.self_attention(
            around.before(inputs), is_causal=True, cache=cache, need_weights=need_weights
        )
        hidden = around.after(inputs, own.output)
        around = self.cross_residual
        cross = self.cross_attention(around.before(hidden), memory, memory_mask, need_weights=need_weights)
        hidden = around.after(hidden, cross.output)
        around = self.feed_forward_residual
        outputs = around.after(hidden, self.feed_forward(around.before(hidden)))
        return outputs, own.cache, (own.weights, cross.weights)


class DecodingState(NamedTuple):
    """Everything carried from one decoding step to the next, one entry a layer."""

    own: tuple[KeyValueCache | None, ...]  # of the target so far; None before the first step
    cross: tuple[KeyValueCache, ...]  # of the source, computed once
    memory_mask: Tensor | None

    @property
    def length(self) -> int:
        """Target tokens so far."""
        return 0 if self.own[0] is None else self.own[0].key.shape[2]

    def select(self, index: Tensor, *, same_source: bool = False) -> DecodingState:
        """The state with row index[i] of the batch in row i: for beams that change places, end or multiply.

        Args:
            index: rows to take [new B], whole numbers.
            same_source: row index[i] has the source of row i, as beams of one sentence have: what belongs to the
                source then stays as it is, which saves a copy.
        """

        def rows(cache: KeyValueCache | None) -> KeyValueCache | None:
            return None if cache is None else KeyValueCache(*(part.index_select(0, index) for part in cache))

        own = tuple(rows(cache) for cache in self.own)
        if same_source:
            return self._replace(own=own)
        mask = self.memory_mask
        if mask is not None and mask.dim() == 4 and mask.shape[0] > 1:
            mask = mask.index_select(0, index)
        return DecodingState(own, tuple(rows(cache) for cache in self.cross), mask)


class AttentionMaps(NamedTuple):
    """Attention weights of every layer, before dropout."""

    encoder: tuple[Tensor, ...]  # N times [B, H, S, S]
    decoder: tuple[Tensor, ...]  # N times [B, H, T, T]
    cross: tuple[Tensor, ...]  # N times [B, H, T, S]


class Transformer(nn.Module):
    """The encoder-decoder model (Sec. 3, fig. 1); the defaults are the base model (table 3).

    Where the paper is silent: weights start Xavier uniform (see `MultiHeadAttention`, `FeedForward`), embeddings
    normal with standard deviation D ** -0.5, so that they have variance 1 once multiplied by sqrt(D); the pre-softmax
    map has no bias.

    Args:
        vocab_size: tokens of source and target, or of the source where `target_vocab_size` is given.
        target_vocab_size: tokens of the target; None for `vocab_size`.
        d_model: D.
        n_heads: H.
        head_dim: width of a query or key of one head; None for D / H.
        value_dim: width of a value of one head; None for D / H.
        d_ff: inner width of the feed-forward sub-layers.
        n_layers: N, of the encoder and of the decoder.
        dropout: on the output of every sub-layer and on the sums of embeddings and positions (Sec. 5.4).
        attention_dropout: on the attention weights; the paper names none.
        norm_position: "post" as in the paper, or "pre" with one more norm at the end of each stack.
        positions: "sinusoidal", or "learned" with a table each for encoder and decoder.
        max_len: positions there are, of the source and of the target.
        share_embeddings: one matrix for source, target and pre-softmax (Sec. 3.4); False gives three.
        padding_index: id of padding in the source, or None where nothing is padded. The target needs none: what
            stands after a token is hidden from it anyway.

    Raises:
        ValueError: for sizes below 1, unknown names, or two vocabularies that are to share a matrix.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        target_vocab_size: int | None = None,
        d_model: int = 512,
        n_heads: int = 8,
        head_dim: int | None = None,
        value_dim: int | None = None,
        d_ff: int = 2048,
        n_layers: int = 6,
        dropout: float = 0.1,
        attention_dropout: float = 0.0,
        norm_position: str = "post",
        positions: str = "sinusoidal",
        max_len: int = 1024,
        share_embeddings: bool = True,
        padding_index: int | None = None,
    ) -> None:
        super().__init__()
        target_vocab_size = vocab_size if target_vocab_size is None else target_vocab_size
        check_positive(vocab_size=vocab_size, target_vocab_size=target_vocab_size, n_layers=n_layers)
        if share_embeddings and target_vocab_size != vocab_size:
            raise ValueError(
                f"target_vocab_size must be vocab_size = {vocab_size} where share_embeddings is True; "
                f"got {target_vocab_size}"
            )
        if padding_index is not None and not 0 <= padding_index < vocab_size:
            raise ValueError(f"padding_index must be None or from 0 to {vocab_size - 1}; got {padding_index}")
        if positions not in POSITIONS:
            raise ValueError(f"positions must be 'sinusoidal' or 'learned'; got {positions!r}")
        self.padding_index = padding_index
        self.source_vocab_size, self.target_vocab_size = vocab_size, target_vocab_size
        self.embedding_scale = d_model**0.5
        layer = {
            "d_model": d_model, "n_heads": n_heads, "head_dim": head_dim, "value_dim": value_dim, "d_ff": d_ff,
            "dropout": dropout, "attention_dropout": attention_dropout, "norm_position": norm_position,
        }  # fmt: skip
        self.encoder = nn.ModuleList(EncoderLayer(**layer) for _ in range(n_layers))
        self.decoder = nn.ModuleList(DecoderLayer(**layer) for _ in range(n_layers))
        is_pre = norm_position == "pre"
        self.encoder_norm = nn.LayerNorm(d_model) if is_pre else nn.Identity()
        self.decoder_norm = nn.LayerNorm(d_model) if is_pre else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.source_positions = POSITIONS[positions](d_model=d_model, max_len=max_len)
        self.target_positions = POSITIONS[positions](d_model=d_model, max_len=max_len)
        # A shared matrix is one parameter under one name, so that checkpoints hold it once.
        self.embedding = nn.Parameter(torch.empty(vocab_size, d_model))
        self.target_embedding, self.unembedding = (
            None if share_embeddings else nn.Parameter(torch.empty(target_vocab_size, d_model))
            for _ in range(2)
        )
        for matrix in (self.embedding, self.target_embedding, self.unembedding):
            if matrix is not None:
                nn.init.normal_(matrix, std=d_model**-0.5)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits for the token after each target token, given the source and the target up to there.

        Args:
            source: token ids [B, S].
            target: token ids [B, T], the start symbol first.

        Returns:
            Logits [B, T, target_vocab_size].

        Raises:
            ValueError: for other shapes, more than `max_len` tokens, or ids outside the vocabulary. Ids on a GPU are
                not looked at, because that would stop its queue.
        """
        memory, mask = self.encode(source)
        if target.dim() == 2 and target.shape[0] != source.shape[0]:
            raise ValueError(
                f"source and target must hold as many sequences; got batches of {source.shape[0]} and {target.shape[0]}"
            )
        return self.decode(target, memory, mask)

    def encode(self, source: Tensor) -> tuple[Tensor, Tensor | None]:
        """The encoder's output [B, S, D] for token ids `source` [B, S], and the mask of its padding or None."""
        hidden, mask, _ = self._encode(source)
        return hidden, mask

    def decode(self, target: Tensor, memory: Tensor, memory_mask: Tensor | None = None) -> Tensor:
        """Logits [B, T, target_vocab_size] for token ids `target` [B, T], given what `encode` returned."""
        return self.step(target, self.initial_state(memory, memory_mask))[0]

    def initial_state(self, memory: Tensor, memory_mask: Tensor | None = None) -> DecodingState:
        """The state before the first target token, given what `encode` returned."""
        cross = tuple(layer.cross_attention.project(memory) for layer in self.decoder)
        return DecodingState((None,) * len(self.decoder), cross, memory_mask)

    def step(self, target: Tensor, state: DecodingState) -> tuple[Tensor, DecodingState]:
        """Continue decoding with the next tokens, one or several.

        Args:
            target: the token ids that follow those of the state [B, T].
            state: from `initial_state` or an earlier step; not modified.

        Returns:
            Logits [B, T, target_vocab_size], and the state that includes `target`.
        """
        logits, state, _ = self._step(target, state)
        return logits, state

    @torch.no_grad()
    def attention_maps(self, source: Tensor, target: Tensor) -> AttentionMaps:
        """The attention weights of every layer and head, for token ids [B, S] and [B, T]."""
        memory, memory_mask, encoder = self._encode(source, need_weights=True)
        _, _, maps = self._step(target, self.initial_state(memory, memory_mask), need_weights=True)
        return AttentionMaps(encoder, *zip(*maps, strict=True))

    def _encode(
        self, source: Tensor, *, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None, tuple[Tensor | None, ...]]:
        check_tokens("source", source, self.source_vocab_size)
        mask = None if self.padding_index is None else padding_mask(source, self.padding_index)
        hidden = self._embed(source, self.embedding, self.source_positions(source.shape[1]))
        maps = []
        for layer in self.encoder:
            hidden, weights = layer(hidden, mask, need_weights=need_weights)
            maps.append(weights)
        return self.encoder_norm(hidden), mask, tuple(maps)

    def _step(
        self, target: Tensor, state: DecodingState, *, need_weights: bool = False
    ) -> tuple[Tensor, DecodingState, list[tuple[Tensor | None, Tensor | None]]]:
        check_tokens("target", target, self.target_vocab_size)
        embedding = self.embedding if self.target_embedding is None else self.target_embedding
        hidden = self._embed(target, embedding, self.target_positions(target.shape[1], state.length))
        caches, maps = [], []
        for layer, own, cross in zip(self.decoder, state.own, state.cross, strict=True):
            hidden, cache, weights = layer(
                hidden, cross, state.memory_mask, cache=own, need_weights=need_weights
            )
            caches.append(cache)
            maps.append(weights)
        unembedding = self.embedding if self.unembedding is None else self.unembedding
        logits = F.linear(self.decoder_norm(hidden), unembedding)
        return logits, state._replace(own=tuple(caches)), maps

    def _embed(self, tokens: Tensor, embedding: Tensor, positions: Tensor) -> Tensor:
        """Scaled embeddings plus positions (Sec. 3.4 and 3.5) [B, T, D]."""
        return self.dropout(torch.add(positions, F.embedding(tokens, embedding), alpha=self.embedding_scale))


def check_tokens(name: str, tokens: Tensor, vocab_size: int) -> None:
    """Raise ValueError unless these are token ids [B, T] of the vocabulary; their values are read on the CPU only."""
    if tokens.dim() != 2 or tokens.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"{name} must hold token ids, int64 or int32, of shape [batch, length]; got {tokens.dtype} of shape "
            f"{list(tokens.shape)}"
        )
    if tokens.device.type == "cpu" and tokens.numel() and not torch.compiler.is_compiling():
        for extreme in tokens.aminmax():
            if not 0 <= extreme < vocab_size:
                raise ValueError(f"{name} must hold token ids from 0 to {vocab_size - 1}; got {int(extreme)}")
