"""A causal language model as a plain trunk, into which a chapter puts its attention or memory sub-layers.

A *sub-layer* maps [B, T, D] to [B, T, D] and lets no output depend on later inputs. One that carries something from a
segment of text to the next has a class attribute `carries_state = True` and maps (inputs, state) to
(outputs, state), with None for the state of a text that begins. Dropout, addition and layer norm around each sub-layer
are the trunk's.

Shapes: B batch, T length of a segment, D `d_model`, V `vocab_size`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attn.attention import check_dropout, check_positive
from attn.transformer import Residual, check_tokens

State = tuple[Any, ...] | None  # an entry for each sub-layer, None where it carries nothing


class Stack(nn.Module):
    """Layers of sub-layers, each with the way around it (see `attn.transformer.Residual`).

    With norm_position "pre" one more layer norm follows the last layer.

    Args:
        layers: the sub-layers of each layer, as [[attention, feed_forward], ...].
        d_model: D.
        dropout: on the output of each sub-layer.
        norm_position: "post" or "pre".

    Raises:
        ValueError: without a sub-layer, or for a size, share or name that is not valid.
    """

    def __init__(
        self,
        layers: Iterable[Iterable[nn.Module]],
        *,
        d_model: int,
        dropout: float = 0.0,
        norm_position: str = "pre",
    ) -> None:
        super().__init__()
        check_positive(d_model=d_model)
        self.layers = nn.ModuleList(nn.ModuleList(sublayers) for sublayers in layers)
        if not any(len(sublayers) for sublayers in self.layers):
            raise ValueError("layers must hold at least one sub-layer; got none")
        around = {"d_model": d_model, "dropout": dropout, "norm_position": norm_position}
        self.residuals = nn.ModuleList(
            nn.ModuleList(Residual(**around) for _ in sublayers) for sublayers in self.layers
        )
        self.norm = nn.LayerNorm(d_model) if norm_position == "pre" else nn.Identity()

    def forward(self, hidden: Tensor, state: State = None) -> tuple[Tensor, State]:
        """All layers.

        Args:
            hidden: [B, T, D].
            state: what the last segment left, or None.

        Returns:
            Outputs [B, T, D], and the state for the next segment; None if no sub-layer carries any.

        Raises:
            ValueError: for a state without an entry for each sub-layer.
        """
        sublayers = [sublayer for layer in self.layers for sublayer in layer]
        if state is not None and len(state) != len(sublayers):
            raise ValueError(
                f"state must have {len(sublayers)} entries, one for each sub-layer and None where it carries nothing; "
                f"got {len(state)}"
            )
        residuals = [residual for layer in self.residuals for residual in layer]
        states = (None,) * len(sublayers) if state is None else state
        new = []
        for sublayer, around, carried in zip(sublayers, residuals, states, strict=True):
            inputs = around.before(hidden)
            if carries_state(sublayer):
                outputs, carried = sublayer(inputs, carried)
            else:
                outputs = sublayer(inputs)
            hidden = around.after(hidden, outputs)
            new.append(carried)
        return self.norm(hidden), tuple(new) if any(map(carries_state, sublayers)) else None


def carries_state(sublayer: nn.Module) -> bool:
    """Whether a sub-layer takes and returns a state."""
    return bool(getattr(sublayer, "carries_state", False))


class Vocabulary(nn.Module):
    """Embedding of tokens and the map from the last hidden states to logits.

    Args:
        vocab_size: V.
        d_model: D.
        is_tied: one matrix for both, as in Vaswani et al. 2017, Sec. 3.4; False gives two.
        use_bias: a bias on the logits.
        std: of the normal distribution that both matrices start from; None is D ** -0.5.
        scale: factor on the embeddings, as D ** 0.5 where `std` is small.

    Raises:
        ValueError: for sizes below 1.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        d_model: int,
        is_tied: bool = True,
        use_bias: bool = False,
        std: float | None = None,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        check_positive(vocab_size=vocab_size, d_model=d_model)
        self.vocab_size, self.scale = vocab_size, scale
        self.embedding = nn.Parameter(torch.empty(vocab_size, d_model))
        self.unembedding = None if is_tied else nn.Parameter(torch.empty(vocab_size, d_model))
        self.bias = nn.Parameter(torch.zeros(vocab_size)) if use_bias else None
        for matrix in (self.embedding, self.unembedding):
            if matrix is not None:
                nn.init.normal_(matrix, std=d_model**-0.5 if std is None else std)

    def embed(self, tokens: Tensor) -> Tensor:
        """Vectors [B, T, D] of token ids [B, T]."""
        check_tokens("tokens", tokens, self.vocab_size)
        return F.embedding(tokens, self.embedding) * self.scale

    def logits(self, hidden: Tensor) -> Tensor:
        """[B, T, D] to [B, T, V]."""
        return F.linear(hidden, self.embedding if self.unembedding is None else self.unembedding, self.bias)

    def token_nats(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Cost of each target in nats [B, T], from hidden states [B, T, D] and ids [B, T]."""
        check_tokens("targets", targets, self.vocab_size)
        # half precision is too coarse for a sum over the vocabulary
        logits = self.logits(hidden).to(torch.promote_types(hidden.dtype, torch.float32))
        # one row a token: with classes as the second of three dimensions torch copies all logits
        return F.cross_entropy(logits.flatten(0, 1), targets.long().flatten(), reduction="none").view_as(targets)


class LanguageModel(nn.Module):
    """The probability of each token given those before it.

    Args:
        vocabulary: `Vocabulary`, or what else has its three methods.
        stack: maps hidden states [B, T, D] and a state to the same, as `Stack`.
        positions: maps (length, start) to vectors [T, D] that are added to the embeddings, as
            `attn.attention.LearnedPositions`; None where the sub-layers know distances themselves.
        dropout: on the sums of embeddings and positions.

    Raises:
        ValueError: if `dropout` is outside [0, 1).
    """

    def __init__(
        self,
        *,
        vocabulary: nn.Module,
        stack: nn.Module,
        positions: nn.Module | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_dropout(dropout=dropout)
        self.vocabulary, self.stack, self.positions = vocabulary, stack, positions
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, tokens: Tensor, state: State = None, *, targets: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Read one segment.

        Args:
            tokens: ids [B, T].
            state: what the segment before it left, or None at the beginning of a text.
            targets: ids [B, T] that are to be predicted, or None.

        Returns:
            Logits [B, T, V], or with `targets` their costs in nats [B, T], for which a vocabulary need not hold
            all logits at once; and the state for the next segment.

        Raises:
            ValueError: for other shapes or ids, a state where positions are absolute, or one with another number of
                entries than there are sub-layers.
        """
        hidden, state = self.hidden(tokens, state)
        if targets is None:
            return self.vocabulary.logits(hidden), state
        if targets.shape != tokens.shape:
            raise ValueError(
                f"targets must have the shape of tokens, {list(tokens.shape)}; got {list(targets.shape)}"
            )
        return self.vocabulary.token_nats(hidden, targets), state

    def hidden(self, tokens: Tensor, state: State = None) -> tuple[Tensor, State]:
        """The stack's outputs [B, T, D], and the state for the next segment."""
        hidden = self.vocabulary.embed(tokens)
        if self.positions is not None:
            if state is not None:
                raise ValueError(
                    "state must be None where positions are absolute: they count from the segment's start"
                )
            hidden = hidden + self.positions(tokens.shape[1], 0)
        return self.stack(self.dropout(hidden), state)
