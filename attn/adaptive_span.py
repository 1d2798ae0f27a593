"""Attention whose heads learn how far back they look (Sukhbaatar et al. 2019, arXiv:1905.07799).

Pure functions for the mathematics of Sec. 2 come first; the modules that own parameters follow. A text is read block
by block: a block's tokens attend to those before them, in the block and in the cached inputs of earlier blocks (Dai et
al. 2019, arXiv:1901.02860), with position embeddings on the keys (Shaw et al. 2018, arXiv:1803.02155).
`attn.kernels.span` computes the same with time and memory that follow the spans.

Shapes: B batch, T tokens of the block (queries), C cached tokens, K = C + T keys, D `d_model`, H heads, E `head_dim`,
S `max_span`, R `ramp_size`, N persistent vectors a head (`attn.all_attention`). Spans, reaches, ramps and distances are
in tokens; distance 1 is the token before. A span z is where the ramp begins; the paper's tables count the ramp in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import isfinite
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attn.attention import check_dropout, check_positive, check_sequence
from attn.kernels import span as fused_span
from attn.kernels import span_flex

# The bias of a dynamic span starts here (Sec. 2.2): sigmoid(-4) S is 1.8 percent of the limit.
DYNAMIC_BIAS = -4.0
# A cache grows and shrinks by whole steps of so many tokens, and keeps one step more than the longest reach, so that
# a span that grew by no more in an update still finds its tokens.
CACHE_STEP = 64


# --- Sec. 2.2: the soft mask -------------------------------------------------------------------------------


def soft_span_mask(distance: Tensor, span: Tensor, ramp_size: int) -> Tensor:
    """m_z(x) = min(max((R + z - x) / R, 0), 1): 1 up to the span, then down to 0 over the ramp (Sec. 2.2, fig. 2).

    Args:
        distance: how far back each key is, x [T, K] or any shape.
        span: z in tokens, in a shape that broadcasts with `distance`, such as [H, 1, 1].
        ramp_size: R in tokens.

    Returns:
        Values in [0, 1] of the common shape.

    Raises:
        ValueError: for a ramp below 2 tokens.
    """
    check_ramp(ramp_size)
    return ((ramp_size + span - distance) / ramp_size).clamp(0, 1)


def span_reach(span: Tensor, ramp_size: int, max_span: int) -> list[int]:
    """The farthest distance at which each head's mask is not below 0: what lies beyond can be left out.

    Args:
        span: z, [H, 1, 1] or [B, H, T, 1].
        ramp_size: R.
        max_span: S.

    Returns:
        One number from R to S for each head.

    Raises:
        ValueError: if a span is no finite number.
    """
    longest = span.detach().flatten(1) if span.dim() == 3 else span.detach().transpose(0, 1).flatten(1)
    ends = longest.amax(1).tolist()
    if not all(map(isfinite, ends)):
        raise ValueError(f"span must be from 0 to {max_span} tokens for every head; got {ends}")
    return [min(int(z) + ramp_size, max_span) for z in ends]


def reported_span(span: Tensor, ramp_size: int, max_span: int) -> Tensor:
    """Spans as the paper's tables and figures give them: with the ramp, so from R to S."""
    return (span + ramp_size).clamp(max=max_span)


def span_penalty(spans: Iterable[Tensor]) -> Tensor:
    """What the coefficient lambda multiplies: the mean z over a layer's heads, in tokens, summed over layers (Sec. 2.2).

    Args:
        spans: z of each layer, [H, 1, 1] or [B, H, T, 1]; the mean of the latter is over the tokens, too. See
            `recorded_spans`.
    """
    return torch.stack([span.mean() for span in spans]).sum()


def cache_length(longest_reach: int, max_span: int) -> int:
    """Tokens of cache to keep for the next block: `longest_reach` and a margin, in steps, at most `max_span`."""
    unused = (max_span - longest_reach) // CACHE_STEP * CACHE_STEP
    return min(max_span, max_span - unused + CACHE_STEP)


def flops_per_step(
    *, n_layers: int, d_model: int, span: float, d_ff: int = 0, n_persistent: int = 0
) -> float:
    """Multiply-accumulates to predict one token, by the paper's rule (Sec. 3): L (2 D F + 4 D^2 + 2 D (span + N)).

    Position terms, softmax, norms, embedding and output layer are not counted.

    Args:
        n_layers: L.
        d_model: D.
        span: mean over all heads, with the ramp.
        d_ff: F, width of the feed-forward layers; 0 for none.
        n_persistent: N.
    """
    return n_layers * (2 * d_model * d_ff + 4 * d_model**2 + 2 * d_model * (span + n_persistent))


# --- Sec. 2.1 and 2.2: attention ---------------------------------------------------------------------------


class Past(NamedTuple):
    """Tokens before the block, without gradient, and what makes keys and values of them, anew in every block."""

    hidden: Tensor  # [B, C, D], the nearest last
    weight: Tensor  # [2, H, E, D], to keys and to values


class Persistent(NamedTuple):
    """Keys and values that are parameters (`attn.all_attention`)."""

    key: Tensor  # [H, N, E]
    value: Tensor  # [H, N, E]


def relative_scores(query: Tensor, positions: Tensor, key_len: int) -> Tensor:
    """q_t . p_(t-r), the position term of every key r (Shaw et al., eq. 4), the last query standing at the last key.

    Args:
        query: [B, H, T, E].
        positions: one column for each distance from 1 on [E, S].
        key_len: K.

    Returns:
        [B, H, T, K]. At distances outside 1 ... S it holds some other distance's term.
    """
    distance = distances(query.shape[2], key_len, device=query.device)
    used = positions[:, :key_len]
    index = (distance - 1).clamp(0, used.shape[1] - 1)
    return (query @ used).gather(-1, index.expand(*query.shape[:2], -1, -1))


def distances(query_len: int, key_len: int, *, device: torch.device | None = None) -> Tensor:
    """How far each key lies before each query [T, K]; 0 or less for keys that are not before it."""
    queries = torch.arange(key_len - query_len, key_len, device=device)
    return queries[:, None] - torch.arange(key_len, device=device)


def span_weights(
    query: Tensor,
    key: Tensor,
    positions: Tensor,
    span: Tensor,
    *,
    ramp_size: int,
    persistent_key: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """m_z(t-r) exp(s_tr), normalised over the keys at the distances 1 to S (Sec. 2.2), and persistent keys if any.

    s_tr = q_t . (k_r + p_(t-r)) / sqrt(E). A query without any key has no weights, all of them 0.

    Args:
        query: [B, H, T, E].
        key: [B, H, K, E], the last at the place of the last query.
        positions: [E, S].
        span: z, [H, 1, 1] or [B, H, T, 1].
        ramp_size: R.
        persistent_key: keys without position that no mask hides [H, N, E].

    Returns:
        Weights on the keys [B, H, T, K] and on the persistent keys [B, H, T, N].
    """
    query = query * query.shape[-1] ** -0.5
    key_len = key.shape[2]
    scores = query @ key.transpose(-2, -1) + relative_scores(query, positions, key_len)  # [B, H, T, K]
    distance = distances(query.shape[2], key_len, device=query.device)
    mask = soft_span_mask(distance, span, ramp_size)
    inside = (distance >= 1) & (distance <= positions.shape[1]) & (distance <= span + ramp_size)
    scores = scores.masked_fill(~inside, -torch.inf)
    if persistent_key is not None:
        scores = torch.cat([query @ persistent_key.transpose(-2, -1), scores], dim=-1)
        mask = F.pad(mask, (persistent_key.shape[1], 0), value=1.0)
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))  # half precision is coarse
    limits = torch.finfo(scores.dtype)
    largest = scores.detach().amax(-1, keepdim=True).clamp(min=limits.min)  # finite without any key, too
    weights = mask * (scores - largest).exp()
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=limits.tiny)
    persistent, context = weights.to(key.dtype).split([weights.shape[-1] - key_len, key_len], dim=-1)
    return context, persistent


def span_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    past: Past | None,
    positions: Tensor,
    span: Tensor,
    *,
    ramp_size: int,
    persistent: Persistent | None = None,
    dropout: float = 0.0,
    fused: bool = False,
) -> Tensor:
    """Causal attention of a block to itself and to what came before it; no token attends to itself (Sec. 2).

    Args:
        query: [B, H, T, E].
        key: of the block [B, H, T, E].
        value: of the block [B, H, T, E].
        past: the tokens before the block, or None at the start of the text.
        positions: position embeddings p_1 ... p_S as columns [E, S].
        span: z, [H, 1, 1] or [B, H, T, 1], from 0 to S.
        ramp_size: R.
        persistent: keys and values of the same softmax, without position and mask.
        dropout: share of the weights that are set to 0, the others being raised to keep the mean.
        fused: let `attn.kernels.span` compute it, whose time and memory follow the mean reach, or on a GPU and without
            dropout `attn.kernels.span_flex`; not the equations.

    Returns:
        [B, H, T, E]; zeros for the first token of all, unless there are persistent vectors.

    Raises:
        ValueError: for a ramp below 2, a dropout outside [0, 1), shapes that do not fit, a block without tokens, or
            spans outside [0, S] (on a CPU; where `fused`, a span that is no finite number on any device).
    """
    check_dropout(dropout=dropout)
    check_span_attention(query, key, value, past, positions, span, persistent)
    check_spans(span, positions.shape[1])
    check_ramp(ramp_size)
    if fused:
        arguments = (
            query, key, value, *(past or (None, None)), positions, span, *(persistent or (None, None))
        )  # fmt: skip
        settings = {"ramp_size": ramp_size, "reach": span_reach(span, ramp_size, positions.shape[1])}
        if span_flex.suits(query, dropout):
            return span_flex.attend(*arguments, **settings)
        return fused_span.attend(*arguments, **settings, dropout=dropout)
    if past is not None:
        old_key, old_value = torch.einsum("bcd,khed->kbhce", past.hidden.detach(), past.weight)
        key, value = torch.cat([old_key, key], dim=2), torch.cat([old_value, value], dim=2)
    persistent_key = None if persistent is None else persistent.key
    weights = span_weights(query, key, positions, span, ramp_size=ramp_size, persistent_key=persistent_key)
    context, fixed = (F.dropout(part, dropout) for part in weights)
    output = context @ value
    return output if persistent is None else output + fixed @ persistent.value


# --- Modules -----------------------------------------------------------------------------------------------


class RelativePositions(nn.Module):
    """Position embeddings of the distances 1 to S, shared by all heads and layers; they start as N(0, 1).

    Args:
        head_dim: E.
        max_span: S.
    """

    def __init__(self, *, head_dim: int, max_span: int) -> None:
        super().__init__()
        check_positive(head_dim=head_dim, max_span=max_span)
        self.table = nn.Parameter(torch.empty(head_dim, max_span))
        nn.init.normal_(self.table)

    @property
    def max_span(self) -> int:
        return self.table.shape[1]


class FixedSpan(nn.Module):
    """Every head looks S tokens back, all of them at full weight: the baseline.

    Args:
        n_heads: H.
        max_span: S.
    """

    can_jump = False  # whether the spans of the next block may be longer than CACHE_STEP allows for

    def __init__(self, *, n_heads: int, max_span: int) -> None:
        super().__init__()
        check_positive(n_heads=n_heads, max_span=max_span)
        self.n_heads, self.max_span = n_heads, max_span

    def forward(self, inputs: Tensor) -> Tensor:
        """z = S [H, 1, 1]."""
        return inputs.new_full((self.n_heads, 1, 1), self.max_span)


class AdaptiveSpan(nn.Module):
    """One learned span a head, z = S z' with `ratio` z' in [0, 1] (Sec. 2.2).

    Updates can leave [0, 1]: call `clamp_spans` after each. Outside it counts as the nearer end.

    Args:
        n_heads: H.
        max_span: S.
        initial_ratio: where z' starts, in [0, 1]; 0 in the paper.
    """

    can_jump = False

    def __init__(self, *, n_heads: int, max_span: int, initial_ratio: float = 0.0) -> None:
        super().__init__()
        check_positive(n_heads=n_heads, max_span=max_span)
        check_ratio(initial_ratio)
        self.max_span = max_span
        self.ratio = nn.Parameter(torch.full((n_heads,), float(initial_ratio)))

    def forward(self, inputs: Tensor) -> Tensor:
        """z in tokens [H, 1, 1], the same for all inputs."""
        return (self.max_span * self.ratio.clamp(0, 1))[:, None, None]


class DynamicSpan(nn.Module):
    """A span for each head and token, z_t = S sigmoid(v . x_t + b) (Sec. 2.2, "dynamic attention span").

    Args:
        d_model: D.
        n_heads: H.
        max_span: S.
    """

    can_jump = True

    def __init__(self, *, d_model: int, n_heads: int, max_span: int) -> None:
        super().__init__()
        check_positive(d_model=d_model, n_heads=n_heads, max_span=max_span)
        self.max_span = max_span
        self.linear = nn.Linear(d_model, n_heads)
        nn.init.uniform_(self.linear.weight, -(d_model**-0.5), d_model**-0.5)
        nn.init.constant_(self.linear.bias, DYNAMIC_BIAS)

    def forward(self, inputs: Tensor) -> Tensor:
        """z_t in tokens [B, H, T, 1] for `inputs` [B, T, D]."""
        return self.max_span * torch.sigmoid(self.linear(inputs)).transpose(1, 2).unsqueeze(-1)


SPANS = ("adaptive", "dynamic", "fixed")


class SpanAttention(nn.Module):
    """The paper's attention sub-layer, without the residual connection around it.

    Projections have no biases and start uniform within +-D^-0.5.

    Args:
        d_model: D.
        n_heads: H.
        positions: shared with the other layers; its head_dim must be D / H. S is its max_span.
        span: "adaptive", "dynamic" or "fixed".
        ramp_size: R.
        initial_ratio: start of the adaptive spans as a share of S.
        dropout: on the attention weights while training.
        fused: let a kernel compute it, see `span_attention`; False for the equations as they stand.
        n_context_heads: how many heads attend to the context; None for all H. The others are a subclass's concern.

    Raises:
        ValueError: for sizes below 1, a ramp below 2, or widths that do not fit.
    """

    carries_state = True  # see attn.language_model

    def __init__(
        self,
        *,
        d_model: int,
        n_heads: int,
        positions: RelativePositions,
        span: str = "adaptive",
        ramp_size: int = 32,
        initial_ratio: float = 0.0,
        dropout: float = 0.0,
        fused: bool = True,
        n_context_heads: int | None = None,
    ) -> None:
        super().__init__()
        check_positive(d_model=d_model, n_heads=n_heads)
        check_ramp(ramp_size)
        check_dropout(dropout=dropout)
        self.head_dim = positions.table.shape[0]
        if self.head_dim * n_heads != d_model:
            raise ValueError(
                f"d_model must be n_heads times the head_dim = {self.head_dim} of positions; got d_model={d_model} "
                f"and n_heads={n_heads}"
            )
        self.d_model, self.n_heads = d_model, n_heads
        self.n_context_heads = n_heads if n_context_heads is None else n_context_heads
        self.ramp_size, self.dropout, self.fused = ramp_size, dropout, fused
        self.positions = positions
        sizes = {"n_heads": self.n_context_heads, "max_span": positions.max_span}
        if span == "adaptive":
            self.span = AdaptiveSpan(**sizes, initial_ratio=initial_ratio)
        elif span == "dynamic":
            self.span = DynamicSpan(d_model=d_model, **sizes)
        elif span == "fixed":
            self.span = FixedSpan(**sizes)
        else:
            raise ValueError(f"span must be one of {', '.join(SPANS)}; got {span!r}")
        context_width = self.n_context_heads * self.head_dim
        self.query = nn.Linear(d_model, d_model, bias=False)
        self.key_value = nn.Linear(d_model, 2 * context_width, bias=False)  # keys, then values
        self.output = nn.Linear(d_model, d_model, bias=False)
        for linear in (self.query, self.key_value, self.output):
            nn.init.uniform_(linear.weight, -(d_model**-0.5), d_model**-0.5)

    def forward(self, inputs: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Read the next block of the text.

        Args:
            inputs: [B, T, D].
            state: from the last call, None at the start of the text: the inputs of up to S tokens before [B, C, D].
                Tokens that do not exist are not attended to. The authors' code attends to zeros there instead; a
                state of zeros [B, S, D] does the same.

        Returns:
            Outputs [B, T, D], and the state for the next block, without gradient. Of the cache no more is kept than
            the spans need (all S where spans are dynamic), which changes no output while they stay as they are. A span
            that grows by more than CACHE_STEP tokens in one update misses the tokens that were cut off, until later
            blocks have filled the cache again.

        Raises:
            ValueError: for inputs or a state of another shape, a state longer than S, or spans that are not finite.
        """
        check_sequence("inputs", inputs, self.d_model)
        max_span = self.positions.max_span
        check_state(state, inputs.shape[0], self.d_model, max_span)
        span = self.span(inputs)
        reach = span_reach(span, self.ramp_size, max_span)
        past = None if state is None else self._past(state[:, -max(reach) :])
        attended = self._attend(*self._project(inputs), past, span)  # [B, H, T, E]
        outputs = self.output(attended.transpose(1, 2).flatten(2))
        kept = max_span if self.span.can_jump else cache_length(max(reach), max_span)
        return outputs, next_state(state, inputs, kept)

    @torch.no_grad()
    def current_spans(self, inputs: Tensor | None = None) -> Tensor:
        """Spans with the ramp, in tokens: [H], or [B, H, T] where they depend on the inputs [B, T, D]."""
        if isinstance(self.span, DynamicSpan):
            if inputs is None:
                raise ValueError("inputs must be given where span is 'dynamic'; got None")
            return reported_span(self.span(inputs).squeeze(-1), self.ramp_size, self.positions.max_span)
        span = self.span(self.positions.table).flatten()
        return reported_span(span, self.ramp_size, self.positions.max_span)

    @torch.no_grad()
    def attention_maps(self, inputs: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Weights before dropout, on the tokens [B, H, T, C + T] and on persistent vectors [B, H, T, N]."""
        check_sequence("inputs", inputs, self.d_model)
        check_state(state, inputs.shape[0], self.d_model, self.positions.max_span)
        query = self._project(inputs)[0][:, : self.n_context_heads]
        memory = inputs if state is None else torch.cat([state, inputs], dim=1)
        return self._weights(query, self._heads(self.key_value(memory))[:, : self.n_context_heads], inputs)

    def _weights(self, query: Tensor, key: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        return span_weights(query, key, self.positions.table, self.span(inputs), ramp_size=self.ramp_size)

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        past: Past | None,
        span: Tensor,
        persistent: Persistent | None = None,
    ) -> Tensor:
        """`span_attention` with the layer's own settings."""
        return span_attention(
            query, key, value, past, self.positions.table, span, ramp_size=self.ramp_size, persistent=persistent,
            dropout=self.dropout if self.training else 0.0, fused=self.fused,
        )  # fmt: skip

    def _project(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [B, H, T, E] and keys and values of the heads that attend to the context."""
        key, value = self._heads(self.key_value(inputs)).split(self.n_context_heads, dim=1)
        return self._heads(self.query(inputs)), key, value

    def _past(self, state: Tensor) -> Past:
        return Past(state, self.key_value.weight.view(2, self.n_context_heads, self.head_dim, self.d_model))

    def _heads(self, joined: Tensor) -> Tensor:
        """[B, T, heads * E] to [B, heads, T, E], without a copy."""
        return joined.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)


def next_state(state: Tensor | None, inputs: Tensor, length: int) -> Tensor:
    """The last `length` tokens, or as many as there are, of the state [B, C, D] and the inputs [B, T, D]."""
    inputs = inputs.detach()
    more = length - inputs.shape[1]
    if state is None or more <= 0:
        return inputs[:, -length:]
    return torch.cat([state[:, -more:], inputs], dim=1)


# --- Over a whole model ------------------------------------------------------------------------------------


@torch.no_grad()
def clamp_spans(model: nn.Module) -> None:
    """Bring every adaptive span of the model back into [0, S]: to be called after each update."""
    for module in model.modules():
        if isinstance(module, AdaptiveSpan):
            module.ratio.clamp_(0, 1)


@contextmanager
def recorded_spans(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the z of every adaptive or dynamic layer while the block runs, in order of call, with their gradients.

    Yields:
        A list that each call of a layer adds to: [H, 1, 1], or [B, H, T, 1] where spans are dynamic.
    """
    spans: list[Tensor] = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, span: spans.append(span))
        for module in model.modules()
        if isinstance(module, AdaptiveSpan | DynamicSpan)
    ]
    try:
        yield spans
    finally:
        for hook in hooks:
            hook.remove()


# --- Checks ------------------------------------------------------------------------------------------------


def check_ramp(ramp_size: int) -> None:
    """ValueError unless the ramp has at least 2 tokens: with less, a head of span 0 would see nothing."""
    if not isinstance(ramp_size, int) or isinstance(ramp_size, bool) or ramp_size < 2:
        raise ValueError(f"ramp_size must be a whole number of at least 2 tokens; got {ramp_size!r}")


def check_ratio(initial_ratio: float) -> None:
    """ValueError unless this is a number from 0 to 1."""
    is_number = isinstance(initial_ratio, int | float) and not isinstance(initial_ratio, bool)
    if not is_number or not 0 <= initial_ratio <= 1:
        raise ValueError(f"initial_ratio must be from 0 to 1, a share of max_span; got {initial_ratio!r}")


def check_spans(span: Tensor, max_span: int) -> None:
    """ValueError unless spans lie in [0, S]; those on another device than a CPU pass, as a look at them waits for it."""
    if span.device.type != "cpu" or not span.numel():
        return
    low, high = (end.item() for end in span.detach().aminmax())
    limit = span.new_tensor(
        max_span
    ).item()  # in half precision S may lie above itself, and so may a span of S
    if not 0 <= low <= high <= limit:  # nor is any comparison with nan true
        raise ValueError(
            f"span must be from 0 to {max_span} tokens, as many as positions has columns; got {low:g} to {high:g}"
        )


def check_state(state: Tensor | None, batch: int, d_model: int, max_span: int) -> None:
    """ValueError unless the state is None or holds up to `max_span` tokens of the same batch and width."""
    if state is None:
        return
    shape = list(state.shape)
    if len(shape) != 3 or shape[0] != batch or shape[2] != d_model or not 1 <= shape[1] <= max_span:
        raise ValueError(
            f"state must have shape [{batch}, 1 to {max_span}, {d_model}], as the inputs and max_span ask; got {shape}"
        )


def check_span_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    past: Past | None,
    positions: Tensor,
    span: Tensor,
    persistent: Persistent | None,
) -> None:
    """ValueError unless the arguments of `span_attention` fit."""
    if query.dim() != 4 or not query.shape[2]:
        raise ValueError(
            f"query must have shape [batch, heads, 1 or more tokens, head_dim]; got {list(query.shape)}"
        )
    batch, n_heads, length, head_dim = query.shape
    expected = {
        "key": (key, [[batch, n_heads, length, head_dim]]),
        "value": (value, [[batch, n_heads, length, head_dim]]),
        "positions": (positions, [[head_dim, positions.shape[-1]]]),
        "span": (span, [[n_heads, 1, 1], [batch, n_heads, length, 1]]),
    }
    if past is not None:
        *_, width = past.hidden.shape
        expected["past.hidden"] = past.hidden, [[batch, past.hidden.shape[1], width]]
        expected["past.weight"] = past.weight, [[2, n_heads, head_dim, width]]
    if persistent is not None:
        shape = [n_heads, persistent.key.shape[1], head_dim]
        expected["persistent.key"] = persistent.key, [shape]
        expected["persistent.value"] = persistent.value, [shape]
    for name, (tensor, shapes) in expected.items():
        if list(tensor.shape) not in shapes:
            raise ValueError(
                f"{name} must have shape {' or '.join(map(str, shapes))}; got {list(tensor.shape)}"
            )
