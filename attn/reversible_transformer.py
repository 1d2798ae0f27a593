"""The encoder-decoder Transformer with reversible layers (Kitaev et al. 2020, arXiv:2001.04451, Sec. 5, table 4).

`attn.transformer` has the model of Vaswani et al. 2017; here both of its stacks are made of reversible blocks: self-
attention and feed-forward in the encoder, self-attention, cross-attention and feed-forward in the decoder. Attention is
full: the paper hashes nothing here, because sentences are shorter than a chunk.

Shapes: B batch, S source length, T target length, D `d_model`, H heads, N `n_layers`. In every mask True means "may
attend".
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attn.attention import MultiHeadAttention, SinusoidalPositions, check_positive, padding_mask
from attn.reversible import ResidualBranch, ReversibleStack
from attn.transformer import DecodingState, FeedForward, check_tokens


class SelfAttention(nn.Module):
    """`MultiHeadAttention` of a stream to itself, as a sub-layer.

    Args:
        is_causal: allow no key later than its query.
        sizes: as of `MultiHeadAttention`.
    """

    def __init__(self, *, is_causal: bool, **sizes) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(**sizes)
        self.is_causal = is_causal

    def forward(self, inputs: Tensor, source_mask: Tensor | None = None) -> Tensor:
        """[B, T, D] to [B, T, D]; a mask [B, 1, 1, T] hides padding."""
        return self.attention(inputs, mask=source_mask, is_causal=self.is_causal).output


class CrossAttention(nn.Module):
    """`MultiHeadAttention` from a stream to the encoder's output, as a sub-layer.

    Args:
        sizes: as of `MultiHeadAttention`.
    """

    def __init__(self, **sizes) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(**sizes)

    def forward(self, inputs: Tensor, memory: Tensor, source_mask: Tensor | None = None) -> Tensor:
        """[B, T, D] and a memory [B, S, D] to [B, T, D]; a mask [B, 1, 1, S] hides padding."""
        return self.attention(inputs, memory, source_mask).output


class ReversibleTransformer(nn.Module):
    """Encoder and decoder of reversible blocks; sizes and names as of `attn.transformer.Transformer`.

    It has as many parameters as that model with layer norm before each sub-layer: the norms are inside the branches
    here, and one more follows each stack, after the mean of its two streams.

    Args:
        vocab_size: tokens of source and target.
        d_model: D.
        n_heads: H.
        d_ff: inner width of the feed-forward sub-layers.
        n_layers: N, of the encoder and of the decoder.
        dropout: on the output of every sub-layer and on the sums of embeddings and positions.
        max_len: positions there are, of the source and of the target.
        share_embeddings: one matrix for source, target and pre-softmax; False gives three.
        keep_activations: as of `ReversibleStack`: the same numbers by plain autograd, to compare with.
        padding_index: id of padding in the source, or None where nothing is padded.

    Raises:
        ValueError: for sizes below 1, or a padding index outside the vocabulary.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        d_model: int = 512,
        n_heads: int = 8,
        d_ff: int = 2048,
        n_layers: int = 6,
        dropout: float = 0.1,
        max_len: int = 1024,
        share_embeddings: bool = True,
        keep_activations: bool = False,
        padding_index: int | None = None,
    ) -> None:
        super().__init__()
        check_positive(vocab_size=vocab_size, n_layers=n_layers)
        if padding_index is not None and not 0 <= padding_index < vocab_size:
            raise ValueError(f"padding_index must be None or from 0 to {vocab_size - 1}; got {padding_index}")
        self.vocab_size, self.padding_index = vocab_size, padding_index
        self.embedding_scale = d_model**0.5
        heads = {"d_model": d_model, "n_heads": n_heads}

        def branch(sublayer: nn.Module, *takes: str) -> ResidualBranch:
            return ResidualBranch(sublayer, d_model=d_model, dropout=dropout, takes=takes)

        def feed_forward() -> ResidualBranch:
            return branch(FeedForward(d_model=d_model, d_ff=d_ff))

        self.encoder = ReversibleStack(
            [
                [branch(SelfAttention(is_causal=False, **heads), "source_mask"), feed_forward()]
                for _ in range(n_layers)
            ],
            keep_activations=keep_activations,
        )
        self.decoder = ReversibleStack(
            [
                [
                    branch(SelfAttention(is_causal=True, **heads)),
                    branch(CrossAttention(**heads), "memory", "source_mask"),
                    feed_forward(),
                ]
                for _ in range(n_layers)
            ],
            keep_activations=keep_activations,
        )
        self.encoder_norm, self.decoder_norm = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)
        self.positions = SinusoidalPositions(d_model=d_model, max_len=max_len)
        # A shared matrix is one parameter under one name, so that checkpoints hold it once.
        self.embedding = nn.Parameter(torch.empty(vocab_size, d_model))
        self.target_embedding, self.unembedding = (
            None if share_embeddings else nn.Parameter(torch.empty(vocab_size, d_model)) for _ in range(2)
        )
        for matrix in (self.embedding, self.target_embedding, self.unembedding):
            if matrix is not None:
                nn.init.normal_(matrix, std=d_model**-0.5)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits [B, T, vocab_size] for the token after each target token.

        Args:
            source: token ids [B, S].
            target: token ids [B, T], the start symbol first.

        Raises:
            ValueError: for other shapes, more than `max_len` tokens, or ids outside the vocabulary.
        """
        return self.decode(target, *self.encode(source))

    def encode(self, source: Tensor) -> tuple[Tensor, Tensor | None]:
        """The encoder's output [B, S, D] for token ids `source` [B, S], and the mask of its padding or None."""
        check_tokens("source", source, self.vocab_size)
        mask = None if self.padding_index is None else padding_mask(source, self.padding_index)
        return self.encoder_norm(self.encoder(self._embed(source, self.embedding), source_mask=mask)), mask

    def decode(self, target: Tensor, memory: Tensor, source_mask: Tensor | None = None) -> Tensor:
        """Logits [B, T, vocab_size] for token ids `target` [B, T], given what `encode` returned."""
        hidden = self._embed_target(target)
        return self._logits(self.decoder(hidden, memory=memory, source_mask=source_mask))

    def initial_state(self, memory: Tensor, source_mask: Tensor | None = None) -> DecodingState:
        """The state before the first target token, given what `encode` returned."""
        cross = tuple(block[1].sublayer.attention.project(memory) for block in self.decoder.blocks)
        return DecodingState((None,) * len(cross), cross, source_mask)

    def step(self, target: Tensor, state: DecodingState) -> tuple[Tensor, DecodingState]:
        """Continue decoding with the next tokens: the streams one function after the other, with the caches.

        Args:
            target: the token ids that follow those of the state [B, T].
            state: from `initial_state` or an earlier step; not modified.

        Returns:
            Logits [B, T, vocab_size], and the state that includes `target`.
        """
        hidden = self._embed_target(target, state.length)
        changed, seen = (
            hidden,
            hidden,
        )  # the stream that the next function is added to, and the one it is given
        caches = []
        for block, own, cross in zip(self.decoder.blocks, state.own, state.cross, strict=True):
            to_itself, to_memory, feed_forward = block
            found = to_itself.sublayer.attention(to_itself.norm(seen), is_causal=True, cache=own)
            caches.append(found.cache)
            changed, seen = seen, changed + to_itself.dropout(found.output)
            found = to_memory.sublayer.attention(to_memory.norm(seen), cross, state.memory_mask)
            changed, seen = seen, changed + to_memory.dropout(found.output)
            changed, seen = seen, changed + feed_forward(seen)
        return self._logits((changed + seen) / 2), state._replace(own=tuple(caches))

    def _embed_target(self, target: Tensor, start: int = 0) -> Tensor:
        check_tokens("target", target, self.vocab_size)
        own = self.target_embedding
        return self._embed(target, self.embedding if own is None else own, start)

    def _embed(self, tokens: Tensor, embedding: Tensor, start: int = 0) -> Tensor:
        """Scaled embeddings plus positions [B, T, D]."""
        positions = self.positions(tokens.shape[1], start)
        return self.dropout(torch.add(positions, F.embedding(tokens, embedding), alpha=self.embedding_scale))

    def _logits(self, hidden: Tensor) -> Tensor:
        return F.linear(
            self.decoder_norm(hidden), self.embedding if self.unembedding is None else self.unembedding
        )
