"""What the chapter computes to show: a feed-forward layer as attention, one softmax for both, and the cost of words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from attn.adaptive_io import DIV_VALUE
from attn.adaptive_span import span_weights
from attn.all_attention import feed_forward_as_persistent, persistent_attention, softmax_feed_forward
from attn.experiments.all_attention.runs import budgets
from attn.experiments.all_attention.sizes import SYMBOLS

# --- a feed-forward layer is attention over fixed pairs ---------------------------------------------------------


class Layer(NamedTuple):
    """One layer on a few tokens, three ways."""

    relu: np.ndarray  # ReLU(V x) [T, N]
    softmax: np.ndarray  # softmax(V x) [T, N]
    attention: np.ndarray  # weights of attention over the rows of V as keys [T, N]
    difference: float  # largest difference between the outputs of the last two


def layer_as_attention(*, length: int = 8, d_model: int = 16, width: int = 24, seed: int = 0) -> Layer:
    """A random layer without biases on random tokens, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(1, length, d_model, generator=generator).double()
    expand = torch.randn(width, d_model, generator=generator).double() * d_model**-0.5
    contract = torch.randn(d_model, width, generator=generator).double()
    pairs = feed_forward_as_persistent(expand, contract)
    query = inputs[:, None]  # one head
    attended = persistent_attention(query, pairs)[:, 0]
    weights = persistent_attention(query, pairs._replace(value=torch.eye(width).double()[None]))[0, 0]
    hidden = F.linear(inputs[0], expand)
    return Layer(
        relu=F.relu(hidden).numpy(),
        softmax=torch.softmax(hidden, dim=-1).numpy(),
        attention=weights.numpy(),
        difference=float((attended - softmax_feed_forward(inputs, expand, contract)).abs().max()),
    )


# --- one softmax for context and vectors ------------------------------------------------------------------------


def persistent_share(
    scores: Sequence[float], *, n_persistent: int, context: int = 64, head_dim: int = 16
) -> np.ndarray:
    """Weight on all persistent vectors under one softmax, as one token of the context matches ever better.

    All other scores are 0.

    Args:
        scores: of the matching token, after the division by sqrt(E).
        n_persistent: N.
        context: tokens before the query.
        head_dim: E.

    Returns:
        A share for each score.
    """
    query = torch.zeros(len(scores), 1, 1, head_dim)
    query[:, 0, 0, 0] = torch.tensor(scores) * head_dim**0.5
    key = torch.zeros(len(scores), 1, context + 1, head_dim)
    key[:, :, context // 2, 0] = 1
    _, fixed = span_weights(
        query, key, torch.zeros(head_dim, context), torch.full((1, 1, 1), float(context)), ramp_size=32,
        persistent_key=torch.zeros(1, n_persistent, head_dim),
    )  # fmt: skip
    return fixed.sum(-1).flatten().numpy()


# --- words ------------------------------------------------------------------------------------------------------


class Cluster(NamedTuple):
    """Words of one range of frequencies."""

    first: int  # rank of its most frequent word, from 0
    n_words: int
    width: int  # of their vectors
    values: int  # of vectors and the matrix to the model's width
    multiply_adds: int  # to know the probability of one of its words
    share: float  # of a text whose words' frequencies fall as 1 / rank


def paper_clusters() -> list[Cluster]:
    """Those of the paper's model on WikiText-103."""
    budget = budgets("words")["paper"]
    return clusters(SYMBOLS["words"], budget["words"]["cutoffs"], budget["model"]["d_model"])


def clusters(vocab_size: int, cutoffs: Sequence[int], d_model: int) -> list[Cluster]:
    """The clusters of an adaptive softmax: ranks of words from one cutoff to the next."""
    bounds = [0, *cutoffs, vocab_size]
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, vocab_size + 1))])
    found, head = [], 0
    for index, (low, high) in enumerate(zip(bounds, bounds[1:], strict=False)):
        width, n_words = d_model // DIV_VALUE**index, high - low
        own = d_model * width + width * n_words
        if index == 0:
            head = own + d_model * len(cutoffs)  # one output for each other cluster as a whole
        found.append(
            Cluster(
                first=low,
                n_words=n_words,
                width=width,
                values=own,
                multiply_adds=head if index == 0 else head + own,
                share=float((harmonic[high] - harmonic[low]) / harmonic[-1]),
            )
        )
    return found
