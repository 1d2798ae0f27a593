"""How good a translation model is: perplexity per token, BLEU, and sentences that are exactly right."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from sacrebleu.metrics import BLEU
from torch import Tensor, nn

from attn.data.batching import PairBatch
from attn.data.tokenisation import PAD


class BleuScore(NamedTuple):
    """A corpus BLEU with all that is needed to compute it again."""

    value: float  # 0 to 100
    signature: str  # sacrebleu's: tokeniser, case, smoothing, version
    details: str  # n-gram precisions, brevity penalty and lengths


def token_nats(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy summed over target tokens, in nats, 0-dimensional; padding counts nothing.

    With label smoothing (arXiv:1706.03762, Sec. 5.4; Szegedy et al. 2015, arXiv:1512.00567, Sec. 7) the target
    distribution gives 1 - e to the token and spreads e evenly over the whole vocabulary.

    Args:
        logits: [B, T, vocabulary].
        targets: token ids [B, T].
        smoothing: e, from 0 to below 1.

    Raises:
        ValueError: if `smoothing` is outside its range.
    """
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing must be in [0, 1); got {smoothing!r}")
    return F.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=PAD, reduction="sum", label_smoothing=smoothing
    )


@torch.no_grad()
def nats_per_token(model: nn.Module, batches: Iterable[PairBatch]) -> float:
    """Mean cost of a target token, end-of-sentence tokens included, without label smoothing."""
    total, n_tokens = 0.0, 0
    for batch in batches:
        total += float(token_nats(model(batch.source, batch.target_in), batch.target_out).double())
        n_tokens += batch.n_target_tokens
    if not n_tokens:
        raise ValueError("batches must hold at least one target token; got none")
    return total / n_tokens


def perplexity(nats: float) -> float:
    """exp of the mean cost of a token, so that it depends on what a token is."""
    return math.exp(nats)


def bleu(hypotheses: Sequence[str], references: Sequence[str]) -> BleuScore:
    """Corpus BLEU by sacrebleu's defaults: tokeniser 13a, cased, one reference (Post 2018, arXiv:1804.08771).

    Raises:
        ValueError: if there are not equally many of both, or none.
    """
    if len(hypotheses) != len(references) or not references:
        raise ValueError(
            f"hypotheses must be as many as references, at least 1; got {len(hypotheses)} and {len(references)}"
        )
    metric = BLEU()
    score = metric.corpus_score(list(hypotheses), [list(references)])
    return BleuScore(score.score, str(metric.get_signature()), score.format(signature=""))


def exact_matches(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Share of sentences that are the reference, word for word."""
    pairs = list(zip(hypotheses, references, strict=True))
    return sum(hypothesis == reference for hypothesis, reference in pairs) / len(pairs)
