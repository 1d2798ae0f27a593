"""Word embeddings and softmax whose width falls with the words' frequency (Grave et al. 2017, arXiv:1609.04309).

The vocabulary is sorted by frequency, word 0 being the most frequent, and cut into clusters. Words of cluster i have
vectors of D / 4^i values, which a matrix of the cluster brings to the width D; at the input of a model this is adaptive
input (Baevski and Auli 2019, arXiv:1809.10853). The all-attention paper uses both, tied, on WikiText-103.

Shapes: D `d_model`, V `vocab_size`, V_i words and D_i width of cluster i.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attn.attention import check_dropout, check_positive, check_sequence
from attn.transformer import check_tokens

DIV_VALUE = 4  # by how much a cluster is narrower than the one before


class AdaptiveEmbedding(nn.Module):
    """Adaptive input.

    The papers at hand do not say how weights start. Here vectors of cluster i are normal with standard deviation
    D_i ** -0.5, its matrix is Xavier uniform, and outputs are multiplied by sqrt(D), as in the Transformer's paper:
    values of the input are then about as large as those of a character model's embedding N(0, 1), and logits of a tied
    softmax have a variance between 1 and 2.

    Args:
        vocab_size: V.
        d_model: D.
        cutoffs: first word of each cluster but the first, ascending, such as (20000, 40000, 200000).

    Raises:
        ValueError: for sizes below 1, cutoffs that do not ascend within the vocabulary, or a D that cannot be divided by
            4 for every cutoff.
    """

    def __init__(self, *, vocab_size: int, d_model: int, cutoffs: Sequence[int]) -> None:
        super().__init__()
        check_positive(vocab_size=vocab_size, d_model=d_model)
        bounds = [0, *cutoffs, vocab_size]
        if any(low >= high for low, high in zip(bounds, bounds[1:], strict=False)):
            raise ValueError(
                f"cutoffs must ascend from above 0 to below vocab_size = {vocab_size}; got {list(cutoffs)}"
            )
        if d_model % DIV_VALUE ** len(cutoffs):
            raise ValueError(
                f"d_model must be a multiple of {DIV_VALUE ** len(cutoffs)} with {len(cutoffs)} cutoffs; got {d_model}"
            )
        self.d_model, self.bounds = d_model, bounds
        self.vectors, self.projections = nn.ParameterList(), nn.ParameterList()
        for index, (low, high) in enumerate(zip(bounds, bounds[1:], strict=False)):
            width = d_model // DIV_VALUE**index
            self.vectors.append(nn.init.normal_(torch.empty(high - low, width), std=width**-0.5))
            self.projections.append(nn.init.xavier_uniform_(torch.empty(d_model, width)))

    @property
    def vocab_size(self) -> int:
        return self.bounds[-1]

    def forward(self, tokens: Tensor) -> Tensor:
        """Embeddings [B, T, D] of token ids [B, T]; ValueError for ids outside the vocabulary (on a CPU)."""
        check_tokens("tokens", tokens, self.vocab_size)
        flat, places, parts = tokens.flatten(), [], []
        for low, vectors, projection in zip(self.bounds, self.vectors, self.projections, strict=False):
            (place,) = torch.where((flat >= low) & (flat < low + len(vectors)))
            places.append(place)
            parts.append(F.linear(F.embedding(flat[place] - low, vectors), projection))
        joined = torch.cat(parts)
        outputs = torch.zeros_like(joined).index_copy(0, torch.cat(places), joined)
        return outputs.view(*tokens.shape, -1) * self.d_model**0.5


class _ClusterLogits(nn.Module):
    """Hidden states through a cluster's matrix and on to its words, biases included."""

    def __init__(self, vectors: nn.Parameter, projection: nn.Parameter) -> None:
        super().__init__()
        self.vectors, self.projection = vectors, projection  # [V_i, D_i], [D, D_i]
        self.bias = nn.Parameter(vectors.new_zeros(len(vectors)))

    def forward(self, hidden: Tensor) -> Tensor:
        """[n, D] to [n, V_i]."""
        return F.linear(hidden @ self.projection, self.vectors, self.bias)


class _HeadLogits(nn.Module):
    """Logits of the words of the first cluster, and one for each other cluster as a whole."""

    def __init__(self, words: _ClusterLogits, d_model: int, n_clusters: int) -> None:
        super().__init__()
        self.words = words
        self.clusters = nn.Linear(d_model, n_clusters)

    def forward(self, hidden: Tensor) -> Tensor:
        """[n, D] to [n, V_0 + clusters]."""
        return torch.cat([self.words(hidden), self.clusters(hidden)], dim=-1)


class AdaptiveSoftmax(nn.AdaptiveLogSoftmaxWithLoss):
    """Adaptive softmax on the vectors of an adaptive input, at a cost that follows the words' frequencies.

    P(w) = P_head(w) for words of the first cluster, P_head(cluster) P(w | cluster) for the others (Sec. 4). The
    normalisation is torch's. Unlike torch's own layers, ours have a bias a word, a matrix for the first cluster, too,
    and share their weights with the input as the all-attention paper does.

    Args:
        embedding: the adaptive input, with at least one cutoff.
        tie_vectors: share the words' vectors with it; False for a copy.
        tie_projections: share the matrices of the clusters with it; False for a copy.

    Raises:
        ValueError: without a cutoff.
    """

    def __init__(
        self, embedding: AdaptiveEmbedding, *, tie_vectors: bool = True, tie_projections: bool = True
    ) -> None:
        cutoffs = embedding.bounds[1:-1]
        if not cutoffs:
            raise ValueError("embedding must have at least one cutoff; got none")
        with torch.device("meta"):  # its layers are replaced
            super().__init__(embedding.d_model, embedding.vocab_size, cutoffs, div_value=DIV_VALUE)
        words, *others = (
            _ClusterLogits(
                vectors if tie_vectors else nn.Parameter(vectors.detach().clone()),
                projection if tie_projections else nn.Parameter(projection.detach().clone()),
            )
            for vectors, projection in zip(embedding.vectors, embedding.projections, strict=True)
        )
        self.head = _HeadLogits(words, embedding.d_model, len(cutoffs))
        self.tail = nn.ModuleList(others)

    def forward(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Cost of each target in nats.

        Args:
            hidden: [B, T, D].
            targets: token ids [B, T].

        Returns:
            -log P(target) [B, T].

        Raises:
            ValueError: for other shapes, or ids outside the vocabulary (on a CPU).
        """
        check_sequence("hidden", hidden, self.in_features)
        check_tokens("targets", targets, self.n_classes)
        if targets.shape != hidden.shape[:2]:
            raise ValueError(
                f"targets must have shape {list(hidden.shape[:2])}, that of hidden; got {list(targets.shape)}"
            )
        return -super().forward(hidden.flatten(0, 1), targets.flatten()).output.view(targets.shape)

    def log_prob(self, hidden: Tensor) -> Tensor:
        """log P of every word [B, T, V] for hidden states [B, T, D]."""
        check_sequence("hidden", hidden, self.in_features)
        return super().log_prob(hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2])


class AdaptiveVocabulary(nn.Module):
    """Adaptive input and adaptive softmax, tied, as the vocabulary of a `attn.language_model.LanguageModel`.

    Args:
        vocab_size: V.
        d_model: D.
        cutoffs: see `attn.adaptive_io.AdaptiveEmbedding`.
        dropout: on the hidden states before the softmax.
        tie_projections: whether the clusters' matrices are shared, too.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        d_model: int,
        cutoffs: Sequence[int],
        dropout: float = 0.0,
        tie_projections: bool = True,
    ) -> None:
        super().__init__()
        check_dropout(dropout=dropout)
        self.embedding = AdaptiveEmbedding(vocab_size=vocab_size, d_model=d_model, cutoffs=cutoffs)
        self.softmax = AdaptiveSoftmax(self.embedding, tie_projections=tie_projections)
        self.dropout = nn.Dropout(dropout)

    def embed(self, tokens: Tensor) -> Tensor:
        """Vectors [B, T, D] of word ids [B, T]."""
        return self.embedding(tokens)

    def logits(self, hidden: Tensor) -> Tensor:
        """log P of every word [B, T, V], from [B, T, D]."""
        return self.softmax.log_prob(self.dropout(hidden))

    def token_nats(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Cost of each target in nats [B, T], from hidden states [B, T, D] and ids [B, T]."""
        return self.softmax(self.dropout(hidden), targets)
