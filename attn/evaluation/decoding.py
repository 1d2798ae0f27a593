"""Greedy and beam search for models that write a sentence token by token (arXiv:1706.03762, Sec. 6.1).

All sentences and all beams go through the model in one batch. A sentence that is done leaves it, so a batch of mixed
lengths costs little more than its sentences need.

Lengths count every token that the model produces, the end token included, and the source's own tokens likewise.
Shapes: B sentences, n of them still searched, S source length, W beams a sentence has (1 at the start), V vocabulary,
L tokens of a prefix with its start token.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attn.attention import check_positive
from attn.data.batching import EncodedPairs, evaluation_batches
from attn.data.tokenisation import BOS, EOS, PAD, Tokeniser


class SearchState(Protocol):
    """What a model carries from one token to the next, a row for each prefix."""

    def select(self, index: Tensor, *, same_source: bool = False) -> SearchState:
        """The state with row index[i] in row i; `same_source` promises that both have one source."""


class SearchModel(Protocol):
    """What a model needs for a search; where it is an `nn.Module`, the search runs it in evaluation mode."""

    def encode(self, source: Tensor) -> tuple[Any, ...]:
        """Whatever `initial_state` takes, for token ids [B, S]."""

    def initial_state(self, *encoded: Any) -> SearchState:
        """The state before the first target token, B rows."""

    def step(self, target: Tensor, state: SearchState) -> tuple[Tensor, SearchState]:
        """Logits [rows, T, V] after each of the next tokens [rows, T], and the state with them; `state` is kept."""


class Hypothesis(NamedTuple):
    """A sentence that was found."""

    tokens: list[int]  # without start and end token
    score: float  # what ranks it: log_prob over `length_divisor`
    log_prob: float  # natural logarithm of the model's probability, end token included
    finished: bool  # False where the greatest length cut it off before an end token


def length_divisor(length: int | Tensor, alpha: float) -> float | Tensor:
    """lp(Y) = ((5 + |Y|) / 6) ** alpha, by which log P(Y | X) is divided (arXiv:1609.08144, Sec. 7, eq. 14)."""
    return ((5 + length) / 6) ** alpha


def greedy_search(
    model: SearchModel,
    source: Tensor,
    *,
    extra_length: int = 50,
    use_cache: bool = True,
    pad: int = PAD,
    bos: int = BOS,
    eos: int = EOS,
) -> list[Hypothesis]:
    """The most likely token at every step; the lowest id among equal ones.

    Args and errors as `beam_search`.

    Returns:
        One hypothesis a sentence; its score is its log probability.
    """
    limit = _greatest_lengths(source, extra_length, pad, bos, eos)
    with _evaluation(model):
        decoder = _Decoder(model, source, use_cache=use_cache, never=(pad, bos))
        sentence = torch.arange(len(source), device=source.device)
        prefix = torch.full_like(limit, bos)[:, None]  # [n, L]
        log_prob = torch.zeros_like(limit, dtype=torch.float32)  # [n]
        results = []
        while len(sentence):
            best, token = decoder.log_probs(prefix).max(1)
            log_prob = log_prob + best
            length = prefix.shape[1]
            prefix = torch.cat([prefix, token[:, None]], dim=1)
            going, gone = _split((token == eos) | (limit <= length))
            if len(gone):
                final = log_prob[gone, None]
                results.append((sentence[gone], _Ranking(final, final, prefix[gone, None])))
                decoder.select(going)
                kept = (part[going] for part in (sentence, limit, prefix, log_prob))
                sentence, limit, prefix, log_prob = kept
    return [found[0] for found in _hypotheses(results, len(source), pad, eos)]


def beam_search(
    model: SearchModel,
    source: Tensor,
    *,
    beam_size: int = 4,
    length_penalty: float = 0.6,
    extra_length: int = 50,
    n_best: int = 1,
    use_cache: bool = True,
    pad: int = PAD,
    bos: int = BOS,
    eos: int = EOS,
) -> list[list[Hypothesis]]:
    """The best sentences that a beam finds, by log probability over `length_divisor`.

    At every step the continuations of a sentence's live prefixes are ranked by log probability. Those among the first
    `beam_size` that end join the finished hypotheses; the first `beam_size` that do not end live on. A sentence is
    done once no live prefix can beat the worst of its `n_best` finished hypotheses, or at its greatest length, where
    the live prefixes count if nothing has finished. A log probability can only fall, so log_prob /
    length_divisor(greatest length) bounds what a prefix may become, and stopping by it loses nothing.

    Equal continuations rank by prefix, then by id, and equal sentences by length. With one beam and no penalty this
    is `greedy_search`.

    Args:
        model: see `SearchModel`; its training mode is restored afterwards.
        source: token ids [B, S], on the model's device, padded at the end.
        beam_size: live prefixes of each sentence.
        length_penalty: alpha, at least 0; 0 compares log probabilities.
        extra_length: a sentence may become this much longer than its own source.
        n_best: hypotheses to return for each sentence, at most `beam_size`.
        use_cache: False feeds the whole prefix to the model at every step, for the same result with more work.
        pad, bos, eos: ids of padding, start and end; padding and start are never produced.

    Returns:
        For each sentence up to `n_best` hypotheses, at least one, best first.

    Raises:
        ValueError: for settings out of range, a source that is empty or of another shape, or logits that are not
            numbers or allow no token.
    """
    check_positive(beam_size=beam_size, n_best=n_best)
    if n_best > beam_size:
        raise ValueError(f"n_best must be at most beam_size = {beam_size}; got {n_best}")
    if not 0 <= length_penalty < math.inf:
        raise ValueError(f"length_penalty must be a number of at least 0; got {length_penalty!r}")
    limit = _greatest_lengths(source, extra_length, pad, bos, eos)
    with _evaluation(model):
        decoder = _Decoder(model, source, use_cache=use_cache, never=(pad, bos))
        sentence = torch.arange(len(source), device=source.device)
        prefix = torch.full_like(limit, bos)[:, None, None]  # [n, W, L]
        log_prob = torch.zeros_like(prefix[..., 0], dtype=torch.float32)  # [n, W], best first
        nothing = torch.full_like(log_prob, -math.inf).expand(-1, n_best)
        pool = _Ranking(nothing, nothing, torch.full_like(prefix, pad).expand(-1, n_best, -1))
        results = []
        while len(sentence):
            n, width, length = prefix.shape
            log_probs = decoder.log_probs(prefix.flatten(0, 1)).unflatten(0, (n, width))
            value, parent, token = _largest(log_prob[:, :, None] + log_probs, 2 * beam_size)
            tokens = torch.cat([_take(prefix, parent), token[:, :, None]], dim=2)
            score = value / length_divisor(length, length_penalty)
            is_end = token == eos
            ended = _Ranking(score.masked_fill(~is_end, -math.inf), value, tokens)
            pool = pool.merge(_Ranking(*(part[:, :beam_size] for part in ended)), pad)

            # As each prefix has one continuation that ends, enough are left.
            new_width = min(beam_size, width * (log_probs.shape[2] - 1))
            live = is_end.byte().argsort(dim=1, stable=True)[:, :new_width]
            prefix, log_prob, score, parent = (_take(part, live) for part in (tokens, value, score, parent))
            rows = torch.arange(n, device=source.device)[:, None] * width + parent  # of the decoder

            bound = log_prob[:, 0] / length_divisor(limit.double(), length_penalty)
            going, gone = _split((pool.score[:, -1] >= bound) | (limit <= length))
            if len(gone):
                has_ended = pool.score[:, :1] > -math.inf
                cut_off = _Ranking(score.masked_fill(has_ended, -math.inf), log_prob, prefix)
                results.append((sentence[gone], pool.merge(cut_off, pad).select(gone)))
                pool = pool.select(going)
                kept = (part[going] for part in (sentence, limit, prefix, log_prob, rows))
                sentence, limit, prefix, log_prob, rows = kept
            decoder.select(rows.flatten(), same_source=new_width == width and not len(gone))
    return _hypotheses(results, len(source), pad, eos)


def translate(
    model: SearchModel,
    pairs: EncodedPairs,
    tokeniser: Tokeniser,
    *,
    tokens_per_batch: int = 4096,
    beam_size: int = 4,
    length_penalty: float = 0.6,
    extra_length: int = 50,
) -> list[str]:
    """The best hypothesis of `beam_search` for every source, as text and in the order of the text.

    Args:
        model: an `nn.Module`; the work is done on the device of its parameters.
        pairs: their sources are translated, their targets only help to form batches.
        tokeniser: turns ids into text.
        tokens_per_batch: most tokens of a batch, padding included; each has up to `beam_size` prefixes.
        beam_size, length_penalty, extra_length: see `beam_search`; errors likewise.
    """
    device = next(model.parameters()).device
    lines = [""] * len(pairs)
    for batch in evaluation_batches(pairs, tokens_per_batch=tokens_per_batch):
        found = beam_search(
            model, batch.source.to(device),
            beam_size=beam_size, length_penalty=length_penalty, extra_length=extra_length,
        )  # fmt: skip
        for index, hypotheses in zip(batch.indices.tolist(), found, strict=True):
            lines[index] = tokeniser.decode(hypotheses[0].tokens)
    return lines


class _Decoder:
    """The model and its state for the rows that are still searched."""

    def __init__(
        self, model: SearchModel, source: Tensor, *, use_cache: bool, never: tuple[int, int]
    ) -> None:
        self.model, self.use_cache, self.never = model, use_cache, never
        self.state = model.initial_state(*model.encode(source))

    def log_probs(self, prefix: Tensor) -> Tensor:
        """Log probabilities [rows, V] of what follows prefixes [rows, L], one token longer at every call."""
        logits, state = self.model.step(prefix[:, -1:] if self.use_cache else prefix, self.state)
        if self.use_cache:
            self.state = state
        dtype = torch.promote_types(logits.dtype, torch.float32)
        log_probs = torch.log_softmax(logits[:, -1], dim=-1, dtype=dtype)
        for token in self.never:
            log_probs[:, token] = -math.inf
        return log_probs

    def select(self, index: Tensor, *, same_source: bool = False) -> None:
        self.state = self.state.select(index, same_source=same_source)


class _Ranking(NamedTuple):
    """Hypotheses of every sentence, K each; those with a score of -inf are none."""

    score: Tensor  # [n, K]
    log_prob: Tensor  # [n, K]
    tokens: Tensor  # [n, K, L], from the start token on, padded

    def select(self, index: Tensor) -> _Ranking:
        return _Ranking(*(part[index] for part in self))

    def merge(self, other: _Ranking, pad: int) -> _Ranking:
        """The K best of both, best first, where `other` has the longer prefixes."""
        tokens = F.pad(self.tokens, (0, other.tokens.shape[2] - self.tokens.shape[2]), value=pad)
        pairs = zip(self._replace(tokens=tokens), other, strict=True)
        joined = _Ranking(*(torch.cat(pair, dim=1) for pair in pairs))
        order = joined.score.sort(dim=1, descending=True, stable=True).indices[:, : self.score.shape[1]]
        return _Ranking(*(_take(part, order) for part in joined))


def _take(tensor: Tensor, index: Tensor) -> Tensor:
    """Entries [n, J, ...] of `tensor` [n, K, ...] at `index` [n, J] of each row."""
    return tensor[torch.arange(len(index), device=index.device)[:, None], index]


def _largest(scores: Tensor, n_largest: int) -> tuple[Tensor, Tensor, Tensor]:
    """The largest of each sentence's scores [n, W, V], best first, with their beams and tokens."""
    vocab_size = scores.shape[2]
    scores = scores.flatten(1)
    # topk leaves open which of equal scores it takes. They are negative, so a factor that grows with the place puts
    # the first one ahead; it is too small to change the order of unequal ones in single precision.
    nudge = torch.arange(scores.shape[1], dtype=torch.float64, device=scores.device).mul_(2**-50).add_(1)
    place = scores.double().mul(nudge).topk(min(n_largest, scores.shape[1]), dim=1).indices
    return scores.gather(1, place), place // vocab_size, place % vocab_size


def _split(done: Tensor) -> tuple[Tensor, Tensor]:
    """Places where `done` [n] is False, and where it is True."""
    order = done.byte().argsort(stable=True)
    n_going = int((~done).sum())  # the one wait for the device in a step
    return order[:n_going], order[n_going:]


@contextmanager
def _evaluation(model: SearchModel) -> Iterator[None]:
    """Evaluation mode without gradients, then each module's own mode again."""
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    modes = [module.training for module in modules]
    if modules:
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def _greatest_lengths(source: Tensor, extra_length: int, pad: int, bos: int, eos: int) -> Tensor:
    """Most tokens that each sentence may get [B], after all checks on what every search takes."""
    if type(extra_length) is not int or extra_length < 0:
        raise ValueError(f"extra_length must be a whole number of at least 0; got {extra_length!r}")
    if eos in (pad, bos):
        raise ValueError(f"eos must be another id than pad = {pad} and bos = {bos}; got {eos}")
    if source.dim() != 2 or not source.numel():
        raise ValueError(
            f"source must hold token ids of shape [sentences, length], at least one; got shape {list(source.shape)}"
        )
    lengths = (source != pad).sum(1)
    if not lengths.all():
        raise ValueError(f"source must have a token in every row; row {int(lengths.argmin())} is all padding")
    return lengths + extra_length


def _hypotheses(
    results: list[tuple[Tensor, _Ranking]], n_sentences: int, pad: int, eos: int
) -> list[list[Hypothesis]]:
    """What was found for each sentence, on the host."""
    found: list[list[Hypothesis]] = [[] for _ in range(n_sentences)]
    for sentence, ranking in results:
        for index, *columns in zip(*(part.tolist() for part in (sentence, *ranking)), strict=True):
            for score, log_prob, tokens in zip(*columns, strict=True):
                tokens = list(itertools.takewhile(lambda token: token != pad, tokens[1:]))
                finished = tokens[-1:] == [eos]
                if score > -math.inf:  # false for what is not a number, too
                    tokens = tokens[:-1] if finished else tokens
                    found[index].append(Hypothesis(tokens, score, log_prob, finished))
    if [] in found:  # known only here, for the search itself does not wait for values
        raise ValueError(
            "model must give logits that are numbers and allow a token besides padding and start; "
            f"not so for sentence {found.index([])}"
        )
    return found
