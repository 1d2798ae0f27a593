"""The fast version against the definition in attn.lsh: hashes, outputs and gradients."""

import pytest
import torch
from torch.autograd import gradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from attn.kernels import lsh
from attn.lsh import hash_vectors, lsh_attention
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
    rotations_for,
)

UNSUPPORTED = Convention(same_bucket=False, count_once=True, wrap=True)
conventions = pytest.mark.parametrize("convention", [c for c in CONVENTIONS if c != UNSUPPORTED], ids=name)


@pytest.fixture(params=["all at once", "one by one"])
def sizes(request, monkeypatch):
    """Everything in one block of one group, or each chunk and each sequence on its own."""
    if request.param == "one by one":
        monkeypatch.setitem(lsh.LIMITS, "cpu", lsh.Limits(1, 1))


def run(query, value, *arguments, fused, **options):
    """Output, and gradients of a sum with weights by formula."""
    query, value = query.clone().requires_grad_(), value.clone().requires_grad_()
    output = lsh_attention(query, value, *arguments, fused=fused, **options)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view(output.shape)
    return output, *torch.autograd.grad((output * weights).sum(), (query, value))


def assert_same(*arguments, **options):
    for found, expected in zip(*(run(*arguments, fused=f, **options) for f in (True, False)), strict=True):
        assert_equal(found, expected)


# --- Hashing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_buckets", [2, 12, (4, 6), (2, 8, 4)], ids=str)
def test_hashes_equal_the_definition(n_buckets, sizes):
    vectors, rotations = random(2, 3, 300, 5), rotations_for(n_buckets, n_heads=3)
    buckets = hash_vectors(vectors, rotations, fused=True)
    assert buckets.dtype == torch.int64
    assert torch.equal(buckets, hash_vectors(vectors, rotations))
    low = vectors.float() * 1e-20
    assert torch.equal(hash_vectors(low, rotations, fused=True), hash_vectors(low, rotations))


@pytest.mark.parametrize("fused", [False, True])
def test_hashes_are_the_same_in_every_precision(fused):
    vectors, rotations = random(1, 2, 100, 5).half().double(), rotations_for((4, 6))
    expected = hash_vectors(vectors.float(), rotations)
    assert torch.equal(hash_vectors(vectors.half(), rotations, fused=fused), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(hash_vectors(vectors.float(), rotations, fused=fused), expected)


def test_ties_go_to_the_first_as_in_the_definition():
    (rotation,) = rotations_for(8)
    twice = [torch.cat([rotation, rotation], dim=-1), torch.cat([-rotation, rotation], dim=-1)]
    vectors = random(1, 2, 40, 5)
    vectors[:, :, 0] = 0
    for rotation in twice:
        found = hash_vectors(vectors, [rotation], fused=True)
        assert torch.equal(found, hash_vectors(vectors, [rotation]))
        assert not found[..., 0].any()


# --- Outputs and gradients --------------------------------------------------------------------------------------


@conventions
@causal
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("length", "chunk_len"), LENGTHS[::2])
def test_outputs_and_gradients_equal_the_definition(length, chunk_len, padded, is_causal, convention, sizes):
    query, value = random(2, 3, length, 4), random(2, 3, length, 2, seed=1)
    buckets = random_buckets(2, 3, 3, length)
    mask = random_mask(2, length) if padded else None
    assert_same(
        query, value, buckets, mask,
        chunk_len=chunk_len, is_causal=is_causal, scale=0.7, convention=convention,
    )  # fmt: skip


@pytest.mark.parametrize("convention", [PAPER, PUBLIC], ids=name)
def test_groups_of_several_heads_and_of_several_batch_entries(convention, monkeypatch):
    query, value, buckets = random(5, 4, 12, 4), random(5, 4, 12, 2, seed=1), random_buckets(5, 4, 2, 12)
    mask = random_mask(5, 12)
    for n_sequences in (3, 9):  # three heads and one, two whole batch entries
        monkeypatch.setitem(lsh.LIMITS, "cpu", lsh.Limits(12 * n_sequences, 2**17))
        assert_same(query, value, buckets, mask, chunk_len=3, convention=convention)


def test_strided_inputs_and_more_value_than_query():
    joined = random(
        2, 9, 3, 4 + 7
    )  # as a projection leaves them: heads after positions, values after queries
    query, value = joined.transpose(1, 2).split([4, 7], dim=-1)
    assert not query.is_contiguous()
    assert_same(query, value, random_buckets(2, 3, 2, 9), chunk_len=4, is_causal=True)


def test_products_that_are_large_or_far_apart():
    # Some queries' weights are all on one key, and whole rounds weigh nothing beside others.
    query, value = 200 * random(1, 2, 30, 6), random(1, 2, 30, 3, seed=1)
    assert_same(query, value, random_buckets(1, 2, 4, 30), chunk_len=4, is_causal=True)


@pytest.mark.parametrize("convention", [PAPER, PUBLIC], ids=name)
@causal
def test_gradients(is_causal, convention):
    query, value = random(1, 2, 7, 3).requires_grad_(), random(1, 2, 7, 2, seed=1).requires_grad_()
    buckets, mask = random_buckets(1, 2, 2, 7), torch.tensor([[True] * 5 + [False, True]])
    assert gradcheck(
        lambda q, v: lsh_attention(
            q, v, buckets, mask, chunk_len=3, is_causal=is_causal, convention=convention, fused=True
        ),
        (query, value),
    )


def test_what_is_forbidden_has_no_gradient_at_all():
    query, value = random(1, 1, 20, 4).float().requires_grad_(), random(1, 1, 20, 3).float().requires_grad_()
    output = lsh_attention(query, value, random_buckets(1, 1, 2, 20), chunk_len=4, is_causal=True, fused=True)
    for gradient in torch.autograd.grad(output[:, :, 9].sum(), (query, value)):
        assert not gradient[:, :, 10:].any() and gradient[:, :, :10].any()


def test_an_extreme_number_of_buckets_in_float32():
    # Numbers for buckets and places must stay exact.
    query, value = random(1, 1, 50, 8).float(), random(1, 1, 50, 4, seed=1).float()
    buckets = random_buckets(1, 1, 2, 50, n_buckets=3) * 500_000
    found, expected = (
        lsh_attention(query, value, buckets, chunk_len=8, is_causal=True, fused=fused)
        for fused in (True, False)
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_is_close_to_the_definition(dtype):
    query, value = random(2, 2, 50, 8).to(dtype), random(2, 2, 50, 4, seed=1).to(dtype)
    buckets = random_buckets(2, 2, 2, 50)
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 0.03}[dtype]
    found = run(query, value, buckets, chunk_len=8, is_causal=True, fused=True)
    expected = run(query.double(), value.double(), buckets, chunk_len=8, is_causal=True, fused=False)
    for own, other in zip(found, expected, strict=True):
        assert own.dtype == dtype
        torch.testing.assert_close(own.double(), other, rtol=tolerance, atol=tolerance)


def test_the_backward_pass_may_come_twice():
    query, value, buckets = (
        random(1, 2, 9, 4).requires_grad_(),
        random(1, 2, 9, 3),
        random_buckets(1, 2, 2, 9),
    )
    loss = lsh_attention(query, value, buckets, chunk_len=4, fused=True).square().sum()
    (first,) = torch.autograd.grad(loss, query, retain_graph=True)
    assert torch.equal(torch.autograd.grad(loss, query)[0], first)


# --- Memory -----------------------------------------------------------------------------------------------------


class Largest(TorchDispatchMode):
    """Remembers how many numbers the largest result of an operation had."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                self.numbers = max(self.numbers, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


@pytest.mark.parametrize("n_rounds", [1, 6])
def test_nothing_is_larger_than_the_output_whatever_the_rounds(n_rounds, monkeypatch):
    monkeypatch.setitem(lsh.LIMITS, "cpu", lsh.Limits(1, 1))
    query, value = random(2, 4, 96, 8).requires_grad_(), random(2, 4, 96, 8, seed=1).requires_grad_()
    buckets = random_buckets(2, 4, n_rounds, 96)
    kept = []
    with (
        Largest() as largest,
        torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t),
    ):
        output = lsh_attention(query, value, buckets, chunk_len=8, is_causal=True, fused=True)
        output.backward(torch.ones_like(output))
    assert largest.numbers == output.numel()
    assert sum(t.numel() for t in kept if t.is_floating_point()) == 3 * output.numel() + 2 * 4 * 96


# --- What it lacks ------------------------------------------------------------------------------------------------


def test_the_one_convention_it_lacks_is_refused():
    query, value, buckets = random(1, 2, 9, 4), random(1, 2, 9, 3), random_buckets(1, 2, 2, 9)
    with pytest.raises(ValueError, match="must not count pairs once where rounds look back.*use fused=False"):
        lsh_attention(query, value, buckets, chunk_len=4, convention=UNSUPPORTED, fused=True)
    assert lsh_attention(query, value, buckets, chunk_len=4, convention=UNSUPPORTED).isfinite().all()


def test_a_second_derivative_is_refused():
    query, value, buckets = (
        random(1, 2, 9, 4).requires_grad_(),
        random(1, 2, 9, 3),
        random_buckets(1, 2, 2, 9),
    )
    output = lsh_attention(query, value, buckets, chunk_len=4, fused=True)
    (first,) = torch.autograd.grad(output.square().sum(), query, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
