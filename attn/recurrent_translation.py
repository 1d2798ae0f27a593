"""Recurrent encoder-decoders, with additive attention or with one fixed context (Bahdanau, Cho and Bengio 2015,
arXiv:1409.0473): the paper's RNNsearch and RNNencdec, with gated recurrent units or LSTM cells.

Shapes: B batch, S source length, T target length, m `embedding_dim`, n `hidden_size`, A `alignment_size`,
l `maxout_size`, C width of the context: 2 n with attention, n without. Sequences are padded at their end. In every
mask True means "may attend".
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from attn.attention import check_dropout, check_positive, check_sequence, padding_mask
from attn.transformer import check_tokens

CELLS = {"gru": nn.GRU, "lstm": nn.LSTM}
ATTENTIONS = ("additive", None)
INITS = ("xavier", "paper")
# States, contexts and weights of every step, and the last state.
Run = tuple[Tensor, Tensor, Tensor | None, tuple[Tensor, ...]]


class AdditiveAttention(nn.Module):
    """Attention by a small network: e_ij = v^T tanh(W s_i + U h_j), a softmax over j, and the sum of the h_j under
    these weights (Sec. 3.1, eqs. 5 and 6, and appendix A.1.2).

    A query that may attend to nothing gets zeros. Weights start Xavier uniform, the bias at 0.

    Args:
        query_dim: width of s_i.
        memory_dim: width of h_j.
        hidden_size: A, width of the tanh layer.
        use_bias: one bias vector within the tanh; the paper's equation leaves biases out.
    """

    def __init__(self, *, query_dim: int, memory_dim: int, hidden_size: int, use_bias: bool = True) -> None:
        super().__init__()
        check_positive(query_dim=query_dim, memory_dim=memory_dim, hidden_size=hidden_size)
        self.query = nn.Linear(query_dim, hidden_size, bias=False)  # W
        self.key = nn.Linear(memory_dim, hidden_size, bias=use_bias)  # U
        self.score = nn.Parameter(torch.empty(1, hidden_size))  # v^T
        for matrix in (self.query.weight, self.key.weight, self.score):
            nn.init.xavier_uniform_(matrix)
        if use_bias:
            nn.init.zeros_(self.key.bias)

    def project(self, memory: Tensor) -> Tensor:
        """U h_j [B, S, A] of `memory` [B, S, memory_dim], to attend to it several times at the price of one."""
        check_sequence("memory", memory, self.key.in_features)
        return self.key(memory)

    def forward(
        self, query: Tensor, memory: Tensor, mask: Tensor | None = None, *, keys: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Attend from every query to the memory.

        Args:
            query: s_i [B, T, query_dim].
            memory: h_j [B, S, memory_dim].
            mask: boolean, True may attend, broadcastable to [B, T, S]; None for everywhere.
            keys: what `project` made of `memory`, or None to have it done here.

        Returns:
            The contexts [B, T, memory_dim] and the weights [B, T, S].

        Raises:
            ValueError: if a width does not fit, or the mask is not boolean or not of a fitting shape.
        """
        check_sequence("query", query, self.query.in_features)
        keys = self.project(memory) if keys is None else keys
        hidden = torch.tanh(self.query(query)[:, :, None] + keys[:, None])  # [B, T, S, A]
        scores = F.linear(hidden, self.score)[..., 0]
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))  # half precision is coarse
        if mask is not None:
            _check_mask("mask", mask, list(scores.shape))
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        weights = torch.softmax(scores, dim=-1)
        if mask is not None:
            weights = weights.masked_fill(~mask, 0)  # a change only to rows without a key, uniform until here
        weights = weights.to(memory.dtype)
        return torch.bmm(weights, memory), weights


class RecurrentState(NamedTuple):
    """Everything carried from one decoding step to the next."""

    own: tuple[Tensor, ...]  # s_{i-1} and, of an LSTM, its cell [B, n]
    memory: Tensor  # [B, S, 2 n], or without attention the fixed context [B, 1, n]
    keys: Tensor | None  # U h_j [B, S, A], computed once; None without attention
    memory_mask: Tensor | None  # [B, 1, S]
    length: int  # target tokens so far

    def select(self, index: Tensor, *, same_source: bool = False) -> RecurrentState:
        """The state with row index[i] of the batch in row i: for beams that change places, end or multiply.

        Args:
            index: rows to take [new B], whole numbers.
            same_source: row index[i] has the source of row i, as beams of one sentence have: what belongs to the
                source then stays as it is, which saves a copy.
        """
        own = tuple(part.index_select(0, index) for part in self.own)
        if same_source:
            return self._replace(own=own)
        source = (self.memory, self.keys, self.memory_mask)
        rows = (None if part is None else part.index_select(0, index) for part in source)
        return RecurrentState(own, *rows, self.length)


class RecurrentTranslator(nn.Module):
    """The recurrent encoder-decoder (Sec. 3, appendix A); the defaults are the paper's RNNsearch (appendix A.2.3).

    With attention the encoder reads in both directions, h_j = [forward_j; backward_j], and the decoder starts from
    s_0 = tanh(W_s backward_1). Without attention (RNNencdec) the encoder reads forwards only, its last state c is
    the context of every step, and s_0 = tanh(W_s c). The decoder's input is [E y_{i-1}; c_i]. The output layer takes
    the larger of each pair in U_o s_{i-1} + V_o E y_{i-1} + C_o c_i for t_i, and W_o t_i are the logits (appendix
    A.2.2, which has s_{i-1} here where eq. 4 names s_i).

    What differs from the paper: the gated unit is torch's, whose reset gate acts after the recurrent matrix,
    tanh(W x + r * (U s + b)), where the paper has tanh(W x + U (r * s)); with z and 1 - z exchanged, which is only a
    name, the rest agrees. torch has two bias vectors a gate. Without biases the numbers of weights are those of the
    paper's equations. The cell "lstm" is not the paper's: its cell state starts as s_0 does, with rows of W_s of its
    own. Padding is left out of the encoder, in both directions. Dropout is ours.

    Args:
        vocab_size: tokens of source and target, or of the source where `target_vocab_size` is given.
        target_vocab_size: tokens of the target; None for `vocab_size`.
        embedding_dim: m.
        hidden_size: n, of the decoder and of each direction of the encoder.
        alignment_size: A, hidden width of the attention.
        maxout_size: l, maxima in the output layer.
        cell: "gru" as in the paper, or "lstm".
        attention: "additive", or None for a fixed context.
        dropout: on embeddings and on the maxima t_i; the paper names none.
        use_bias: biases everywhere; the paper has them, though its equations leave them out.
        init: "xavier", a start that suits Adam: recurrent matrices orthogonal, others Xavier uniform gate by gate,
            embeddings standard normal, biases 0 but 1 at an LSTM's forget gates. Or "paper" (appendix B.1): recurrent
            matrices orthogonal, W_a and U_a normal with standard deviation 0.001, v_a and biases 0, all else
            normal with standard deviation 0.01.
        padding_index: id of padding in the source, or None where nothing is padded. The target needs none: what
            stands after a token is hidden from it anyway.

    Raises:
        ValueError: for sizes below 1, a `dropout` outside [0, 1), unknown names or a padding outside the vocabulary.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        target_vocab_size: int | None = None,
        embedding_dim: int = 620,
        hidden_size: int = 1000,
        alignment_size: int = 1000,
        maxout_size: int = 500,
        cell: str = "gru",
        attention: str | None = "additive",
        dropout: float = 0.0,
        use_bias: bool = True,
        init: str = "xavier",
        padding_index: int | None = None,
    ) -> None:
        super().__init__()
        target_vocab_size = vocab_size if target_vocab_size is None else target_vocab_size
        check_positive(
            vocab_size=vocab_size, target_vocab_size=target_vocab_size, embedding_dim=embedding_dim,
            hidden_size=hidden_size, alignment_size=alignment_size, maxout_size=maxout_size,
        )  # fmt: skip
        check_dropout(dropout=dropout)
        names = {"cell": (cell, *CELLS), "attention": (attention, *ATTENTIONS), "init": (init, *INITS)}
        for name, (given, one, other) in names.items():
            if given not in (one, other):
                raise ValueError(f"{name} must be {one!r} or {other!r}; got {given!r}")
        if padding_index is not None and not 0 <= padding_index < vocab_size:
            raise ValueError(f"padding_index must be None or from 0 to {vocab_size - 1}; got {padding_index}")
        self.source_vocab_size, self.target_vocab_size = vocab_size, target_vocab_size
        self.padding_index, self.hidden_size, self.init = padding_index, hidden_size, init
        self.is_lstm = cell == "lstm"
        self.context_dim = hidden_size if attention is None else 2 * hidden_size
        self.embedding = nn.Embedding(vocab_size, embedding_dim)
        self.target_embedding = nn.Embedding(target_vocab_size, embedding_dim)
        layer = {"hidden_size": hidden_size, "bias": use_bias, "batch_first": True}
        self.encoder = CELLS[cell](embedding_dim, bidirectional=attention is not None, **layer)
        self.decoder = CELLS[cell](embedding_dim + self.context_dim, **layer)
        self.start = nn.Linear(hidden_size, hidden_size * (1 + self.is_lstm), bias=use_bias)  # W_s
        self.attention = None
        if attention is not None:
            widths = {"query_dim": hidden_size, "memory_dim": 2 * hidden_size, "hidden_size": alignment_size}
            self.attention = AdditiveAttention(**widths, use_bias=use_bias)
        # U_o, V_o and C_o side by side; rows 2 j and 2 j + 1 meet in one maximum
        seen = hidden_size + embedding_dim + self.context_dim
        self.maxout = nn.Linear(seen, 2 * maxout_size, bias=use_bias)
        self.unembedding = nn.Linear(maxout_size, target_vocab_size, bias=use_bias)  # W_o
        self.dropout = nn.Dropout(dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every parameter anew, as `init` says."""
        is_paper = self.init == "paper"
        for name, parameter in self.named_parameters():
            owner, _, kind = name.partition(".")
            gates = (3 + self.is_lstm) if owner in ("encoder", "decoder") else 1
            if "bias" in kind or is_paper and name == "attention.score":
                nn.init.zeros_(parameter)
            elif kind.startswith("weight_hh"):
                for gate in parameter.chunk(gates):
                    nn.init.orthogonal_(gate)
            elif is_paper:
                nn.init.normal_(parameter, std=0.001 if owner == "attention" else 0.01)
            elif owner in ("embedding", "target_embedding"):
                nn.init.normal_(parameter)
            else:
                for gate in parameter.chunk(gates):
                    nn.init.xavier_uniform_(gate)
            if self.is_lstm and not is_paper and kind.startswith("bias_ih"):
                nn.init.ones_(parameter.chunk(gates)[1])

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits for the token after each target token, given the source and the target up to there.

        Args:
            source: token ids [B, S].
            target: token ids [B, T], the start symbol first.

        Returns:
            Logits [B, T, target_vocab_size].

        Raises:
            ValueError: for other shapes, padding before other tokens, or ids outside the vocabulary. Ids on a GPU are
                not looked at, because that would stop its queue; the lengths of padded rows stop it once.
        """
        return self.decode(target, *self.encode(source))

    def encode(self, source: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the decoder may know of token ids `source` [B, S].

        Returns:
            With attention, the states of both directions [B, S, 2 n], zeros at padding, and the mask of the padding
            [B, 1, 1, S] or None. Without, the last forward state [B, 1, n] and None.
        """
        check_tokens("source", source, self.source_vocab_size)
        embedded = self.dropout(self.embedding(source))
        mask = None if self.padding_index is None else padding_mask(source, self.padding_index)
        if mask is None:
            memory, last = self.encoder(embedded)
        else:
            packed = pack_padded_sequence(embedded, _lengths(mask[:, 0, 0]), True, enforce_sorted=False)
            memory, last = self.encoder(packed)
            memory, _ = pad_packed_sequence(memory, True, total_length=source.shape[1])
        if self.attention is None:
            memory = (last[0] if self.is_lstm else last).transpose(0, 1)
        if mask is None:
            return memory, None
        # what is left to blank: a row of nothing but padding was read as one token of it
        known = mask[:, 0, 0, :, None]
        if self.attention is None:
            return memory.masked_fill(~known.any(1, keepdim=True), 0), None
        return memory.masked_fill(~known, 0), mask

    def decode(self, target: Tensor, memory: Tensor, memory_mask: Tensor | None = None) -> Tensor:
        """Logits [B, T, target_vocab_size] for token ids `target` [B, T], given what `encode` returned."""
        return self.step(target, self.initial_state(memory, memory_mask))[0]

    def initial_state(self, memory: Tensor, memory_mask: Tensor | None = None) -> RecurrentState:
        """The state before the first target token, given what `encode` returned."""
        check_sequence("memory", memory, self.context_dim)
        first = memory[:, 0, -self.hidden_size :]  # the backward half, or all there is
        own = torch.tanh(self.start(first)).chunk(1 + self.is_lstm, dim=-1)
        if self.attention is None:
            if memory_mask is not None:
                raise ValueError("memory_mask must be None where attention is None; got a mask")
            return RecurrentState(own, memory, None, None, 0)
        if memory_mask is not None:
            full = [memory.shape[0], 1, 1, memory.shape[1]]
            _check_mask("memory_mask", memory_mask, full)
            memory_mask = memory_mask.expand(full)[:, 0]
        return RecurrentState(own, memory, self.attention.project(memory), memory_mask, 0)

    def step(self, target: Tensor, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
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
    def alignments(self, source: Tensor, target: Tensor) -> Tensor:
        """Weights alpha_ij [B, T, S] of source words j for the token after each target token i, as `forward` uses
        them, for token ids [B, S] and [B, T]; ValueError without attention."""
        if self.attention is None:
            raise ValueError("a model with attention=None has no alignments; attention must be 'additive'")
        return self._step(target, self.initial_state(*self.encode(source)))[2]

    def _step(self, target: Tensor, state: RecurrentState) -> tuple[Tensor, RecurrentState, Tensor | None]:
        check_tokens("target", target, self.target_vocab_size)
        if target.shape[0] != state.memory.shape[0]:
            raise ValueError(
                f"target must have {state.memory.shape[0]} rows, as the source has; got {target.shape[0]}"
            )
        embedded = self.dropout(self.target_embedding(target))
        run = self._run_fixed if self.attention is None else self._run_attending
        hidden, contexts, weights, own = run(embedded, state)
        before = torch.cat([state.own[0][:, None], hidden[:, :-1]], dim=1)  # s_{i-1}
        pairs = self.maxout(torch.cat([before, embedded, contexts], dim=-1)).unflatten(-1, (-1, 2))
        logits = self.unembedding(self.dropout(pairs.amax(-1)))
        return logits, state._replace(own=own, length=state.length + target.shape[1]), weights

    def _run_fixed(self, embedded: Tensor, state: RecurrentState) -> Run:
        """States [B, T, n] and contexts [B, T, n] of the T next tokens, None, and the last state."""
        contexts = state.memory.expand(-1, embedded.shape[1], -1)
        own = tuple(part[None].contiguous() for part in state.own)
        hidden, own = self.decoder(torch.cat([embedded, contexts], dim=-1), own if self.is_lstm else own[0])
        return hidden, contexts, None, tuple(part[0] for part in (own if self.is_lstm else (own,)))

    def _run_attending(self, embedded: Tensor, state: RecurrentState) -> Run:
        """As `_run_fixed`, with contexts [B, T, 2 n] and the weights [B, T, S]."""
        layer = self.decoder
        bias, recurrent_bias = getattr(layer, "bias_ih_l0", None), getattr(layer, "bias_hh_l0", None)
        of_embedding, of_context = layer.weight_ih_l0.split([embedded.shape[-1], self.context_dim], dim=1)
        cell = _lstm_cell if self.is_lstm else _gru_cell
        own, steps = state.own, []
        for given in F.linear(embedded, of_embedding, bias).unbind(1):
            context, weights = self.attention(
                own[0][:, None], state.memory, state.memory_mask, keys=state.keys
            )
            given = given + F.linear(context[:, 0], of_context)
            own = cell(given, F.linear(own[0], layer.weight_hh_l0, recurrent_bias), own)
            steps.append((own[0][:, None], context, weights))
        return *(torch.cat(parts, dim=1) for parts in zip(*steps, strict=True)), own


def _gru_cell(given: Tensor, recurrent: Tensor, own: tuple[Tensor]) -> tuple[Tensor]:
    """torch's gated recurrent unit: the next state [B, n] from what input and state add to its gates [B, 3 n]."""
    (hidden,), n = own, given.shape[-1] // 3
    reset, update = torch.sigmoid(given[:, : 2 * n] + recurrent[:, : 2 * n]).chunk(2, dim=-1)
    candidate = torch.tanh(given[:, 2 * n :] + reset * recurrent[:, 2 * n :])
    return (torch.lerp(candidate, hidden, update),)


def _lstm_cell(given: Tensor, recurrent: Tensor, own: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """As `_gru_cell`, for states (hidden, cell) and [B, 4 n]."""
    enter, forget, candidate, leave = (given + recurrent).chunk(4, dim=-1)
    cell = torch.sigmoid(forget) * own[1] + torch.sigmoid(enter) * torch.tanh(candidate)
    return torch.sigmoid(leave) * torch.tanh(cell), cell


def _lengths(mask: Tensor) -> Tensor:
    """Tokens of each row of `mask` [B, S] on the CPU, at least 1; ValueError for padding before another token."""
    places = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    counts, ends = torch.stack([mask.sum(-1), (mask * places).amax(-1)]).cpu()  # one transfer
    if (counts != ends).any():
        row = int((counts != ends).nonzero()[0])
        raise ValueError(
            f"source must have its padding at the end; got padding before another token in row {row}"
        )
    return counts.clamp(min=1)


def _check_mask(name: str, mask: Tensor, full: list[int]) -> None:
    if mask.dtype != torch.bool:
        raise ValueError(f"{name} must be boolean, True where attention may look; got {mask.dtype}")
    fits = mask.dim() <= len(full) and all(
        size in (1, there) for size, there in zip(reversed(mask.shape), reversed(full), strict=False)
    )
    if not fits:
        raise ValueError(f"{name} must be broadcastable to {full}; got {list(mask.shape)}")
