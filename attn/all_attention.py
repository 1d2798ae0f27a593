"""All-attention: persistent vectors in place of the feed-forward layer (Sukhbaatar et al. 2019, arXiv:1907.01470).

Each head has N keys and values that are parameters, beside those of the context, under one softmax (Sec. 4.2). They have
no position and no span. The rest is the adaptive-span attention of `attn.adaptive_span`, with its letters for shapes.
Numbers of sections and figures are from memory, since no copy of the paper could be consulted; what the layer does was
checked against the public code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attn.adaptive_span import Past, Persistent, SpanAttention, span_weights
from attn.attention import check_dropout, check_positive

VARIANTS = ("joint", "attn-split", "head-split", "single-head", "ff-attn")
ACTIVATIONS = ("softmax", "relu")


# --- Sec. 4.1: a feed-forward layer is attention over fixed pairs ------------------------------------------


def softmax_feed_forward(inputs: Tensor, expand: Tensor, contract: Tensor) -> Tensor:
    """U softmax(V x): a feed-forward layer with a softmax in place of ReLU, without biases (Sec. 4.1).

    Args:
        inputs: x [B, T, D].
        expand: V [N, D].
        contract: U [D, N].

    Returns:
        [B, T, D].
    """
    return F.linear(torch.softmax(F.linear(inputs, expand), dim=-1), contract)


def feed_forward_as_persistent(expand: Tensor, contract: Tensor) -> Persistent:
    """The pairs over which one head's attention is `softmax_feed_forward`, its query being x (Sec. 4.1).

    The rows of V are the keys, and the columns of U the values. The keys come multiplied by sqrt(D), because attention
    divides by it.

    Args:
        expand: V [N, D].
        contract: U [D, N].

    Returns:
        Keys and values, each [1, N, D].
    """
    return Persistent(expand[None] * expand.shape[1] ** 0.5, contract.T[None])


# --- Sec. 4.2: persistent vectors --------------------------------------------------------------------------


def persistent_attention(
    query: Tensor, persistent: Persistent, *, dropout: float = 0.0, activation: str = "softmax"
) -> Tensor:
    """Attention over nothing but persistent vectors.

    Args:
        query: [B, H, T, E].
        persistent: keys and values [H, N, E].
        dropout: on the weights.
        activation: "softmax", or "relu" for a feed-forward layer without biases and with E inputs and outputs a head.
            Either is of the products divided by sqrt(E).

    Returns:
        [B, H, T, E].

    Raises:
        ValueError: for another activation, a dropout outside [0, 1), or shapes that do not fit.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}; got {activation!r}")
    check_dropout(dropout=dropout)
    _check_persistent(query, persistent)
    if activation == "softmax":
        key, value = (part.expand(query.shape[0], -1, -1, -1) for part in persistent)
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
    weights = F.relu((query * query.shape[-1] ** -0.5) @ persistent.key.transpose(-2, -1))
    return F.dropout(weights, dropout) @ persistent.value


def _check_persistent(query: Tensor, persistent: Persistent) -> None:
    """ValueError unless there are keys and values for each head of the query; values may have a width of their own."""
    if query.dim() != 4:
        raise ValueError(f"query must have shape [batch, heads, length, head_dim]; got {list(query.shape)}")
    _, n_heads, _, head_dim = query.shape
    n_persistent = persistent.key.shape[-2] if persistent.key.dim() > 1 else 0
    for name, tensor, width in (
        ("key", persistent.key, head_dim), ("value", persistent.value, persistent.value.shape[-1]),
    ):  # fmt: skip
        if list(tensor.shape) != [n_heads, n_persistent, width]:
            raise ValueError(
                f"persistent.{name} must have shape {[n_heads, n_persistent, width]}; got {list(tensor.shape)}"
            )


class PersistentVectors(nn.Module):
    """Keys and values of variance 1 whose parameters are smaller, keys by sqrt(E) and values by sqrt(N).

    They are multiplied by these roots in use, which raises the effect of an update as much (Sec. 4.2).

    Args:
        n_heads: heads that have some.
        n_persistent: N of each.
        head_dim: E.

    Raises:
        ValueError: for sizes below 1.
    """

    def __init__(self, *, n_heads: int, n_persistent: int, head_dim: int) -> None:
        super().__init__()
        check_positive(n_heads=n_heads, n_persistent=n_persistent, head_dim=head_dim)
        self.key_scale, self.value_scale = head_dim**0.5, n_persistent**0.5
        self.key = nn.Parameter(torch.empty(n_heads, n_persistent, head_dim))
        self.value = nn.Parameter(torch.empty(n_heads, n_persistent, head_dim))
        nn.init.normal_(self.key, std=1 / self.key_scale)
        nn.init.normal_(self.value, std=1 / self.value_scale)

    def forward(self) -> Persistent:
        """As attention uses them."""
        return Persistent(self.key * self.key_scale, self.value * self.value_scale)


class AllAttention(SpanAttention):
    """The all-attention sub-layer: context and persistent vectors; no feed-forward layer follows.

    All variants of the ablation (fig. 3) have H N persistent pairs and so the same number of parameters, but for
    "head-split", which needs an N larger by D / 2 for that:

    - "joint": one softmax over both, as the paper has it.
    - "attn-split": two softmaxes, their sums of values added.
    - "ff-attn": the same with ReLU in place of the second softmax: a feed-forward layer beside attention. The products
      are divided by sqrt(E) there, too.
    - "head-split": half of the heads attend to the context only, the others to 2 N persistent vectors each. These
      have no keys and values of the context to project, and no span.
    - "single-head": the first head has all H N persistent vectors, the others none.

    Args:
        n_persistent: N; 0 for plain adaptive-span attention.
        variant: one of these.
        settings: those of `SpanAttention`. Its dropout is on the weights of the persistent vectors, too.

    Raises:
        ValueError: for an N below 0, an unknown variant, or heads of "head-split" that are odd in number or get no
            vectors.
    """

    def __init__(self, *, n_persistent: int, variant: str = "joint", n_heads: int, **settings) -> None:
        if not isinstance(n_persistent, int) or isinstance(n_persistent, bool) or n_persistent < 0:
            raise ValueError(f"n_persistent must be a whole number of at least 0; got {n_persistent!r}")
        if variant not in VARIANTS:
            raise ValueError(f"variant must be one of {', '.join(VARIANTS)}; got {variant!r}")
        if variant == "head-split" and (n_heads % 2 or not n_persistent):
            raise ValueError(
                f"n_heads must be even and n_persistent at least 1 where variant is 'head-split'; got n_heads={n_heads} "
                f"and n_persistent={n_persistent}"
            )
        owners = {"head-split": n_heads // 2, "single-head": 1}.get(variant, n_heads)
        context_heads = n_heads - owners if variant == "head-split" else n_heads
        super().__init__(n_heads=n_heads, n_context_heads=context_heads, **settings)
        self.variant = variant
        self.persistent = None
        if n_persistent:
            self.persistent = PersistentVectors(
                n_heads=owners, n_persistent=n_persistent * n_heads // owners, head_dim=self.head_dim
            )

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, past: Past | None, span: Tensor) -> Tensor:
        attend = super()._attend
        if self.persistent is None:
            return attend(query, key, value, past, span)
        persistent = self.persistent()
        if self.variant == "joint" or self.variant == "single-head" and self.n_heads == 1:
            return attend(query, key, value, past, span, persistent)
        if self.variant == "single-head":
            first, others = _split_heads(query, key, value, past, span)
            return torch.cat([attend(*first, persistent), attend(*others)], dim=1)
        settings = {
            "dropout": self.dropout if self.training else 0.0,
            "activation": "relu" if self.variant == "ff-attn" else "softmax",
        }
        if self.variant == "head-split":
            own, rest = query.tensor_split([self.n_context_heads], dim=1)
            fixed = persistent_attention(rest, persistent, **settings)
            return torch.cat([attend(own, key, value, past, span), fixed], dim=1)
        return attend(query, key, value, past, span) + persistent_attention(query, persistent, **settings)

    def _weights(self, query: Tensor, key: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        if self.persistent is None:
            return super()._weights(query, key, inputs)
        if self.variant != "joint":
            raise ValueError(f"variant must be 'joint' for attention maps; got {self.variant!r}")
        return span_weights(
            query, key, self.positions.table, self.span(inputs), ramp_size=self.ramp_size,
            persistent_key=self.persistent().key,
        )  # fmt: skip


def _split_heads(
    query: Tensor, key: Tensor, value: Tensor, past: Past | None, span: Tensor
) -> list[tuple[Tensor, Tensor, Tensor, Past | None, Tensor]]:
    """The arguments for the first head, and those for the others."""
    parts = [tensor.tensor_split([1], dim=1) for tensor in (query, key, value)]
    spans = span.tensor_split([1], dim=-3)
    weights = (None, None) if past is None else past.weight.tensor_split([1], dim=1)
    pasts = [None if past is None else Past(past.hidden, weight) for weight in weights]
    return list(zip(*parts, pasts, spans, strict=True))
