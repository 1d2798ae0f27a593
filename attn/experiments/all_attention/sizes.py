"""Parameters and operations of the paper's models, counted on our own at full size without numbers in them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import NamedTuple

import torch
from torch import nn

from attn.experiments.adaptive_span.runs import budgets as span_budgets
from attn.experiments.adaptive_span.runs import span_config
from attn.experiments.adaptive_span.workloads import attentions
from attn.experiments.all_attention.runs import budgets, text_config
from attn.experiments.all_attention.words import word_model
from attn.transformer import FeedForward

# Symbols of each text in the authors' preparation: one for the end of a line joins the 27 characters, the 205 bytes that
# occur and the words.
SYMBOLS = {"letters": 28, "bytes": 206, "words": 267_735}


class Sizes(NamedTuple):
    """What a model is made of, in numbers of parameters."""

    total: int
    attention: int  # projections and spans
    feed_forward: int
    persistent: int


@cache
def paper_sizes(task: str, model: str, *, tie_projections: bool = True) -> Sizes:
    """A model of the profile `paper` with the vocabulary of the authors' preparation."""
    config = text_config(budgets(task)["paper"], model)
    with torch.device("meta"):
        if task != "words":
            return sizes(config.model.build(SYMBOLS[task]))
        config = replace(config, tie_projections=tie_projections)
        return sizes(word_model(config, SYMBOLS[task]))


@cache
def span_sizes(task: str) -> Sizes:
    """The large model of chapter 3, which has feed-forward layers, at the profile `paper`."""
    text = {"letters": "text8", "bytes": "enwik8"}[task]
    config = span_config(text, span_budgets(text)["paper"], "large")
    with torch.device("meta"):
        return sizes(config.model.build(SYMBOLS[task]))


def sizes(model: nn.Module) -> Sizes:
    """Count a model."""
    layers = attentions(model)
    shared = _count(layers[0].positions)
    persistent = sum(_count(layer.persistent) for layer in layers if layer.persistent is not None)
    feed_forward = sum(_count(module) for module in model.modules() if isinstance(module, FeedForward))
    attention = sum(_count(layer) - shared for layer in layers) - persistent
    return Sizes(_count(model), attention, feed_forward, persistent)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def millions(count: int) -> str:
    """As the paper prints it."""
    return f"{count / 1e6:.0f}M"
