"""FlexAttention over learned spans. Its compiled kernels need a GPU; here torch's own definition of `flex_attention` runs,
as operations, so that what is ours is tested everywhere: scores, masks, tiles, the row of keys, gradients.
"""

import warnings

import pytest
import torch
from torch.nn.attention import flex_attention as torch_flex

from attn.adaptive_span import span_attention, span_reach
from attn.kernels import span as by_blocks
from attn.kernels import span_flex
from tests.adaptive_span.spans import RAMP, assert_equal
from tests.adaptive_span.test_adaptive_span import SPANS_IN_TOKENS, arguments
from tests.exact import gradients

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch):
    """Without torch's refusal of gradients on a CPU, which concerns the compiled kernels, and with small tiles."""
    monkeypatch.setattr(torch_flex, "_validate_device", lambda *tensors: None)
    monkeypatch.setattr(span_flex, "TILE", 4)
    span_flex._block_mask.cache_clear()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
        yield
    span_flex._block_mask.cache_clear()


def by_flex(given, flex=torch_flex.flex_attention):
    taken_apart = (*(given["past"] or (None, None)), given["positions"], given["span"])
    return span_flex.attend(
        given["query"], given["key"], given["value"], *taken_apart, *(given["persistent"] or (None, None)),
        ramp_size=RAMP, reach=span_reach(given["span"], RAMP, given["positions"].shape[1]), flex=flex,
    )  # fmt: skip


@pytest.mark.parametrize("persistent", [0, 3])
@pytest.mark.parametrize("cached", [0, 5, 16])
@pytest.mark.parametrize("spans", [*SPANS_IN_TOKENS.values(), "dynamic"], ids=[*SPANS_IN_TOKENS, "dynamic"])
def test_it_equals_the_equations_with_every_gradient(spans, cached, persistent):
    kind = {"dynamic": True} if spans == "dynamic" else {"spans": spans}
    given, inputs = arguments(batch=3, cached=cached, persistent=persistent, **kind)
    found, expected = by_flex(given), span_attention(**given)
    assert_equal(found, expected)
    for own, other in zip(gradients(found, inputs), gradients(expected, inputs), strict=True):
        assert_equal(own, other)


@pytest.mark.parametrize("length, cached", [(1, 0), (1, 1), (2, 0), (8, 30)])
def test_short_blocks_and_caches_beyond_the_reach(length, cached):
    given, inputs = arguments(length=length, cached=cached)
    found, expected = by_flex(given), span_attention(**given)
    assert_equal(found, expected)
    for own, other in zip(gradients(found, inputs), gradients(expected, inputs), strict=True):
        assert_equal(own, other)


def test_tiles_follow_the_span_of_each_head():
    given, _ = arguments(length=32, cached=32, max_span=32, spans=(0.0, 9.0, 27.0))
    seen = {}

    def spy(query, key, value, *, score_mod, block_mask):
        seen["tiles"] = block_mask.kv_num_blocks + block_mask.full_kv_num_blocks
        return torch.zeros_like(query)

    by_flex(given, spy)
    short, middle, long = seen["tiles"][0].sum(-1).tolist()
    all_tiles = seen["tiles"].shape[-1] * (32 + 32) // 4
    assert short < middle < long < all_tiles
    # reach 4 of keys 4 to a tile: the tile before and the own one; the last key of it is the query itself
    assert short == 2 * seen["tiles"].shape[-1]


def test_the_mask_is_made_again_only_when_a_reach_crosses_a_tile():
    made = span_flex._block_mask.cache_info
    for span, misses in ((1.0, 1), (2.0, 1), (3.5, 1), (5.5, 2), (2.5, 2)):
        given, _ = arguments(length=32, cached=32, max_span=32, spans=(span, span, span))
        by_flex(given)
        assert made().misses == misses, span


def test_half_precision_keeps_its_type_and_comes_close():
    given, _ = arguments(persistent=3)
    half = {
        name: value.to(torch.bfloat16) if isinstance(value, torch.Tensor) else value
        for name, value in given.items()
    }
    for name in ("past", "persistent"):
        half[name] = type(given[name])(*(part.to(torch.bfloat16) for part in given[name]))
    found = by_flex(half)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), span_attention(**given), rtol=0.1, atol=0.1)


# --- When it is used ---------------------------------------------------------------------------------------


def test_a_cpu_dropout_and_double_precision_go_by_blocks(monkeypatch):
    monkeypatch.setattr(span_flex, "_verified", lambda device: True)
    query = torch.zeros(1, 1, 2, 2)
    assert not span_flex.suits(query, 0.0)

    class OnGPU:
        device, dtype = torch.device("cuda"), torch.float32

    assert span_flex.suits(OnGPU(), 0.0)
    assert not span_flex.suits(OnGPU(), 0.1)
    OnGPU.dtype = torch.float64
    assert not span_flex.suits(OnGPU(), 0.0)


def test_attention_takes_it_where_it_suits(monkeypatch):
    given, _ = arguments()
    monkeypatch.setattr(span_flex, "suits", lambda query, dropout: not dropout)
    monkeypatch.setattr(span_flex, "compiled", lambda: torch_flex.flex_attention)
    monkeypatch.setattr(by_blocks, "attend", None)
    assert_equal(span_attention(**given, fused=True), span_attention(**given))
    with pytest.raises(TypeError):
        span_attention(**given, fused=True, dropout=0.5)  # asks for `by_blocks.attend`


@pytest.fixture
def unverified(monkeypatch):
    monkeypatch.setattr(span_flex, "compiled", lambda: torch_flex.flex_attention)
    span_flex._verified.cache_clear()
    yield torch.device("cpu")
    span_flex._verified.cache_clear()


def test_the_comparison_before_the_first_use_accepts_it(unverified):
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        assert span_flex._verified(unverified)


@pytest.mark.parametrize(
    "context",
    [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", dtype=torch.bfloat16)],
    ids=["no_grad", "inference_mode", "autocast"],
)
def test_the_comparison_is_the_same_wherever_the_first_use_is(unverified, context):
    with warnings.catch_warnings(), context():
        warnings.simplefilter("error", RuntimeWarning)
        assert span_flex._verified(unverified)


def test_the_example_of_the_comparison_has_every_gradient(unverified):
    found = span_flex._example(span_flex.attend, unverified)
    assert len(found) == 9 and all(value.abs().max() > 0 for value in found.values())


@pytest.mark.parametrize("part", ["positions", "masks"])
def test_the_comparison_notices_what_is_left_out(unverified, monkeypatch, part):
    right = span_flex.score_bias

    def wrong(query, positions, span, ramp_size):
        if part == "positions":
            positions = torch.zeros_like(positions)
        else:
            span = torch.full_like(span, positions.shape[1])
        return right(query, positions, span, ramp_size)

    monkeypatch.setattr(span_flex, "score_bias", wrong)
    with pytest.warns(RuntimeWarning, match="adaptive spans is not used: its output differs"):
        assert not span_flex._verified(unverified)


def test_what_cannot_be_compiled_is_left_alone(unverified, monkeypatch):
    def refuse():
        raise ImportError("no compiler here")

    monkeypatch.setattr(span_flex, "compiled", refuse)
    with pytest.warns(RuntimeWarning, match="adaptive spans is not used: no compiler here"):
        assert not span_flex._verified(unverified)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_compiled_on_a_gpu_it_is_the_same(dynamic, monkeypatch):
    monkeypatch.undo()
    assert span_flex._verified(torch.device("cuda"))
    given, inputs = arguments(length=150, cached=70, head_dim=16, max_span=100, dynamic=dynamic, persistent=5)
    expected = span_attention(**given)
    moved = [tensor.detach().float().cuda().requires_grad_() for tensor in inputs]
    query, key, value, positions, span, weight, *fixed = moved
    found = span_flex.attend(
        query, key, value, given["past"].hidden.float().cuda(), weight, positions, span, *fixed,
        ramp_size=RAMP, reach=span_reach(span, RAMP, 100),
    )  # fmt: skip
    for own, other in zip(
        (found, *gradients(found, moved)), (expected, *gradients(expected, inputs)), strict=True
    ):
        torch.testing.assert_close(own.cpu().double(), other, rtol=1e-2, atol=1e-2 * other.abs().max())
