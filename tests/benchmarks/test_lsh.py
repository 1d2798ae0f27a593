"""What the benchmark of LSH attention compares: ours and the package's are the same attention. How fast is no matter here."""

from functools import partial

import pytest
import torch

from attn.lsh_convention import PAPER, PUBLIC
from benchmarks import lsh

CPU = torch.device("cpu")


@pytest.fixture
def package():
    """The package, or the test is skipped: it is no dependency."""
    pytest.importorskip("reformer_pytorch")


@pytest.mark.parametrize("n_rounds", lsh.ROUNDS)
def test_ours_is_the_package_s_attention(package, n_rounds):
    lsh.check_equal(n_rounds, length=128, chunk_len=8)


def test_another_convention_is_not_the_package_s(package, monkeypatch):
    attend = lsh.lsh_attention

    def others(*arguments, convention, **options):
        return attend(*arguments, convention=PAPER if convention == PUBLIC else PUBLIC, **options)

    monkeypatch.setattr(lsh, "lsh_attention", others)
    with pytest.raises(
        AssertionError, match="outputs of reformer-pytorch and ours differ, 2 rounds, Convention"
    ):
        lsh.check_equal(2, length=128, chunk_len=8)


def test_a_gradient_that_is_off_is_seen(package, monkeypatch):
    class Off(torch.autograd.Function):
        @staticmethod
        def forward(ctx, inputs):
            return inputs.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * (1 + 1e-6)

    attend = lsh.lsh_attention
    monkeypatch.setattr(
        lsh, "lsh_attention", lambda query, *rest, **options: attend(Off.apply(query), *rest, **options)
    )
    with pytest.raises(AssertionError, match="gradients of queries"):
        lsh.check_equal(2, length=128, chunk_len=8)


@pytest.mark.parametrize("is_there", [True, False])
def test_nothing_is_built_before_ours_was_seen_to_equal_the_package(monkeypatch, is_there):
    checked = []
    monkeypatch.setattr(lsh, "package", lambda: object if is_there else None)
    monkeypatch.setattr(lsh, "check_equal", checked.append)
    lsh.build(CPU, 128, 4)
    assert checked == [4] * is_there


def test_full_attention_is_timed_at_every_length_and_seldom_where_it_is_slow():
    for length in lsh.LENGTHS:
        rows = {n: next(row for row in lsh.rows() if row.name == f"{length}, {n} rounds") for n in lsh.ROUNDS}
        timed = {n: lsh.SDPA in lsh.variants(length, n) for n in lsh.ROUNDS}
        assert timed[min(lsh.ROUNDS)]
        for n, row in rows.items():
            assert isinstance(row.build, partial) and row.build.keywords == {"length": length, "n_rounds": n}
            if length > lsh.MOST_SDPA:
                assert timed[n] == (n == min(lsh.ROUNDS)) and row.few == (
                    {lsh.SDPA: lsh.FEW} if timed[n] else {}
                )
            else:
                assert timed[n] and row.few == {}
