"""What the benchmarks of layers with learned spans compare: versions that agree, or they refuse to time them."""

import pytest
import torch

from attn.adaptive_span import SpanAttention
from attn.all_attention import AllAttention
from attn.experiments.adaptive_span import speed
from benchmarks import adaptive_span, all_attention

CPU = torch.device("cpu")


def wrong(kind, is_wrong):
    """A layer that leaves out a part of its outputs where `is_wrong` says so."""

    class Wrong(kind):
        def forward(self, inputs, state=None):
            outputs, state = super().forward(inputs, state)
            return outputs * 0.9 if is_wrong(self) else outputs, state

    return Wrong


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Few tokens and a short cache."""
    monkeypatch.setattr(adaptive_span, "BLOCK", 8)
    monkeypatch.setattr(all_attention, "LIMIT", 128)


def test_the_layer_is_the_one_that_pages_tell_of():
    assert adaptive_span.SPANS is speed.SPANS and len(speed.SPANS) == speed.N_HEADS
    assert adaptive_span.D_MODEL == all_attention.D_MODEL == speed.D_MODEL


def test_versions_of_all_attention_are_timed_only_where_they_agree(monkeypatch):
    calls = all_attention.build(CPU, 16, is_training=False)
    assert list(calls)[0] == all_attention.OURS and all_attention.PLAIN in calls
    monkeypatch.setattr(all_attention, "AllAttention", wrong(AllAttention, lambda module: not module.fused))
    with pytest.raises(AssertionError, match="Tensor-likes are not close"):
        all_attention.build(CPU, 16, is_training=False)


def test_versions_of_span_attention_are_timed_only_where_they_agree(monkeypatch):
    calls = adaptive_span.build(CPU, 128, is_training=False)
    assert list(calls)[:2] == [adaptive_span.OURS, adaptive_span.PER_LAYER]
    other = wrong(SpanAttention, lambda module: module.span.__class__.__name__ == "AdaptiveSpan")
    monkeypatch.setattr(adaptive_span, "SpanAttention", other)
    with pytest.raises(AssertionError, match="Tensor-likes are not close"):
        adaptive_span.build(CPU, 128, is_training=False)
