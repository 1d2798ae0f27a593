"""Arithmetic of training: six FLOPs for each weight and each token that meets it, attention scores left out."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

from attn.experiments.transformer.workloads import RecurrentConfig, TransformerConfig


def model_flops(
    model: TransformerConfig | RecurrentConfig, *, vocab_size: int, source_tokens: float, target_tokens: float
) -> float:
    """Arithmetic of training itself: 6 FLOPs for each weight and each token that meets it, attention scores left out.

    The encoder's weights meet source tokens, the decoder's and the softmax's target tokens; looking up an embedding
    costs nothing. Two FLOPs are the forward pass, four the backward pass.

    Args:
        model: sizes.
        vocab_size: rows of the embeddings.
        source_tokens, target_tokens: seen in all of training.
    """
    encoder, decoder = _weights(model, vocab_size)
    return 6 * (encoder * source_tokens + decoder * target_tokens)


@cache
def _weights(model: TransformerConfig | RecurrentConfig, vocab_size: int) -> tuple[int, int]:
    """Weights of matrices that a source token meets, and a target token."""
    network = on_meta(model, vocab_size)
    encoder = _matrices(network.encoder)
    if isinstance(model, TransformerConfig):
        return encoder, _matrices(network.decoder) + network.embedding.numel()
    tables = sum(_matrices(table) for table in (network.embedding, network.target_embedding))
    return encoder, _matrices(network) - encoder - tables


def _matrices(part: nn.Module) -> int:
    return sum(p.numel() for p in part.parameters() if p.dim() == 2)


def on_meta(model: TransformerConfig | RecurrentConfig, vocab_size: int) -> nn.Module:
    """The model without numbers, so that the big one needs no memory."""
    with torch.device("meta"):
        return model.build(vocab_size)
