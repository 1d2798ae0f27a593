"""LSH attention by FlexAttention. Its compiled kernels need a GPU; here torch's own definition of `flex_attention` runs, as
operations, so that what is ours is tested everywhere: order, masks, tiles, joining of rounds, gradients.
"""

import warnings

import pytest
import torch
from torch.nn.attention import flex_attention as torch_flex

from attn.kernels import lsh, lsh_flex
from attn.lsh import lsh_attention
from attn.lsh_convention import PAPER, PUBLIC, Convention
from tests.reformer.test_lsh import (
    CONVENTIONS,
    LENGTHS,
    assert_equal,
    causal,
    name,
    random,
    random_buckets,
    random_mask,
)

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
ACROSS = [c for c in CONVENTIONS if c.wrap and not c.same_bucket]  # rounds look back at each other
conventions = pytest.mark.parametrize("convention", [c for c in CONVENTIONS if c not in ACROSS], ids=name)


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch):
    """Without torch's refusal of gradients on a CPU, which concerns the compiled kernels, and with small tiles."""
    monkeypatch.setattr(torch_flex, "_validate_device", lambda *tensors: None)
    monkeypatch.setattr(lsh_flex, "TILE", 4)
    monkeypatch.setattr(lsh_flex, "compiled", lambda: torch_flex.flex_attention)
    cached = lsh_flex._near, lsh_flex._verified
    for function in cached:
        function.cache_clear()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
        yield
    for function in cached:
        function.cache_clear()


def run(attend, query, value, *arguments, **options):
    """Output, and gradients of a sum with weights by formula."""
    query, value = query.clone().requires_grad_(), value.clone().requires_grad_()
    output = attend(query, value, *arguments, **options)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view(output.shape)
    return output, *torch.autograd.grad((output * weights).sum(), (query, value))


@conventions
@causal
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("length", "chunk_len"), LENGTHS)
def test_outputs_and_gradients_equal_the_definition(length, chunk_len, padded, is_causal, convention):
    query, value = random(2, 3, length, 4), random(2, 3, length, 2, seed=1)
    arguments = query, value, random_buckets(2, 3, 3, length), random_mask(2, length) if padded else None
    options = {"chunk_len": chunk_len, "is_causal": is_causal, "scale": 0.7, "convention": convention}
    for found, expected in zip(
        run(lsh_flex.lsh_attention, *arguments, **options),
        run(lsh_attention, *arguments, **options),
        strict=True,
    ):
        assert_equal(found, expected)


def test_a_sequence_of_padding_alone_gives_zeros():
    mask = torch.zeros(1, 8, dtype=torch.bool)
    found = run(
        lsh_flex.lsh_attention, random(1, 2, 8, 4), random(1, 2, 8, 4), random_buckets(1, 2, 2, 8), mask,
        chunk_len=4, convention=PAPER,
    )  # fmt: skip
    assert not any(part.any() for part in found)


def test_only_tiles_of_near_chunks_are_visited():
    near = lsh_flex._near(32, 4, torch.device("cpu"))
    tiles = near.kv_num_blocks + near.full_kv_num_blocks
    assert tiles.flatten().tolist() == [1, 2, 2, 2, 2, 2, 2, 2]


def test_half_precision_keeps_its_type_and_comes_close():
    query, value, buckets = random(1, 2, 32, 8), random(1, 2, 32, 8, seed=1), random_buckets(1, 2, 2, 32)
    options = {"chunk_len": 8, "is_causal": True, "convention": PAPER}
    found = lsh_flex.lsh_attention(query.bfloat16(), value.bfloat16(), buckets, **options)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(
        found.double(), lsh_attention(query, value, buckets, **options), rtol=0.1, atol=0.1
    )


# --- When it is used ---------------------------------------------------------------------------------------------


class OnGPU:
    device, dtype = torch.device("cuda"), torch.float32


def test_it_suits_a_gpu_and_rounds_that_stay_apart(monkeypatch):
    monkeypatch.setattr(lsh_flex, "_verified", lambda device: True)
    assert lsh_flex.suits(OnGPU(), PAPER)
    assert lsh_flex.suits(OnGPU(), Convention(same_bucket=True, wrap=True))
    assert not lsh_flex.suits(OnGPU(), PUBLIC)
    assert not lsh_flex.suits(torch.zeros(1, 1, 1, 1), PAPER)
    monkeypatch.setattr(OnGPU, "dtype", torch.float64)
    assert not lsh_flex.suits(OnGPU(), PAPER)


def test_attention_takes_it_where_it_suits(monkeypatch):
    query, value, buckets = random(2, 3, 12, 4), random(2, 3, 12, 2, seed=1), random_buckets(2, 3, 3, 12)
    monkeypatch.setattr(lsh_flex, "suits", lambda query, convention: convention == PAPER)
    monkeypatch.setattr(lsh, "lsh_attention", None)
    found = lsh_attention(query, value, buckets, chunk_len=4, fused=True)
    assert_equal(found, lsh_attention(query, value, buckets, chunk_len=4))
    with pytest.raises(TypeError):
        lsh_attention(query, value, buckets, chunk_len=4, fused=True, convention=PUBLIC)


def test_the_comparison_before_the_first_use_accepts_it():
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        assert lsh_flex._verified(torch.device("cpu"))


@pytest.mark.parametrize(
    "context",
    [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", dtype=torch.bfloat16)],
    ids=["no_grad", "inference_mode", "autocast"],
)
def test_the_comparison_is_the_same_wherever_the_first_use_is(context):
    with warnings.catch_warnings(), context():
        warnings.simplefilter("error", RuntimeWarning)
        assert lsh_flex._verified(torch.device("cpu"))


def test_the_comparison_notices_pairs_that_count_twice(monkeypatch):
    right = lsh_flex._score_mod

    def wrong(position, r, order, met, options):
        return right(position, r, order, [], options)

    monkeypatch.setattr(lsh_flex, "_score_mod", wrong)
    with pytest.warns(RuntimeWarning, match="LSH attention is not used: its output differs"):
        assert not lsh_flex._verified(torch.device("cpu"))


def test_what_cannot_be_compiled_is_left_alone(monkeypatch):
    def refuse():
        raise ImportError("no compiler here")

    monkeypatch.setattr(lsh_flex, "compiled", refuse)
    with pytest.warns(RuntimeWarning, match="LSH attention is not used: no compiler here"):
        assert not lsh_flex._verified(torch.device("cpu"))


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("convention", [PAPER, Convention(count_once=False)], ids=name)
def test_compiled_on_a_gpu_it_is_the_same(convention, monkeypatch):
    monkeypatch.undo()
    assert lsh_flex._verified(torch.device("cuda"))
    query, value, buckets = random(2, 2, 500, 16), random(2, 2, 500, 16, seed=1), random_buckets(2, 2, 3, 500)
    options = {"chunk_len": 64, "is_causal": True, "convention": convention}
    expected = run(lsh_attention, query, value, buckets, **options)
    moved = [tensor.float().cuda() for tensor in (query, value)]
    for own, other in zip(
        run(lsh_flex.lsh_attention, *moved, buckets.cuda(), **options), expected, strict=True
    ):
        torch.testing.assert_close(own.cpu().double(), other, rtol=1e-2, atol=1e-2 * other.abs().max())
