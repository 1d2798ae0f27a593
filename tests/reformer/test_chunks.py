"""What is computed a chunk of positions at a time, and axial positions."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import gradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from attn.chunks import cross_entropy_in_chunks, in_chunks
from attn.reformer import AxialPositions
from attn.transformer import FeedForward
from tests.reformer.test_lsh import DOUBLE, assert_equal, random


class Sizes(TorchDispatchMode):
    """Remembers how many numbers the largest result of an operation had."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        return result


# --- Position-wise functions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("chunk_len", [1, 3, 4, 12, 50])
def test_chunks_equal_the_whole_with_gradients(chunk_len, recompute):
    torch.manual_seed(0)
    module, inputs = FeedForward(d_model=6, d_ff=8).double(), random(2, 12, 6).requires_grad_()
    leaves = [inputs, *module.parameters()]
    weights = random(2, 12, 6, seed=1)
    whole = module(inputs)
    found = in_chunks(module, inputs, chunk_len, recompute=recompute)
    assert_equal(found, whole)
    expected = torch.autograd.grad((whole * weights).sum(), leaves)
    for own, other in zip(torch.autograd.grad((found * weights).sum(), leaves), expected, strict=True):
        assert_equal(own, other)


def test_only_a_chunk_of_inner_activations_is_there_at_a_time():
    module, inputs = FeedForward(d_model=4, d_ff=64), torch.randn(1, 32, 4, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        with Sizes() as sizes:
            output = in_chunks(module, inputs, 8)
    assert sizes.largest == 8 * 64 and max(kept, default=0) <= 32 * 4
    with Sizes() as sizes:
        output.sum().backward()
    assert sizes.largest == 8 * 64


def test_dropout_is_replayed_in_the_backward_pass():
    torch.manual_seed(0)
    module, inputs = nn.Dropout(0.5), torch.ones(1, 64, 4, requires_grad=True)
    output = in_chunks(module, inputs, 16)
    output.sum().backward()
    assert torch.equal(inputs.grad, output.detach())  # 0 or 2 in both, at the same places
    assert 0 < (output == 0).sum() < 256


def test_without_gradients_nothing_is_recorded():
    with torch.no_grad():
        output = in_chunks(FeedForward(d_model=4, d_ff=4), torch.zeros(1, 5, 4), 2)
    assert output.shape == (1, 5, 4) and not output.requires_grad


def test_wrong_chunk_lengths_are_refused():
    with pytest.raises(ValueError, match="chunk_len must be a whole number of at least 1; got 0"):
        in_chunks(nn.Identity(), torch.zeros(1, 2, 3), 0)
    with pytest.raises(ValueError, match=r"inputs must have shape \[batch, length, width\]; got \[3\]"):
        in_chunks(nn.Identity(), torch.zeros(3), 2)


# --- The loss over the vocabulary --------------------------------------------------------------------------------


def loss_arguments(use_bias=True, vocabulary=7):
    hidden, weight = random(2, 5, 3).requires_grad_(), random(vocabulary, 3, seed=1).requires_grad_()
    bias = random(vocabulary, seed=2).requires_grad_() if use_bias else None
    targets = torch.randint(vocabulary, (2, 5), generator=torch.Generator().manual_seed(0))
    return hidden, weight, targets, bias


@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize("chunk_len", [1, 3, 5, 10, 99])
def test_the_chunked_loss_equals_torchs_with_gradients(chunk_len, use_bias):
    hidden, weight, targets, bias = loss_arguments(use_bias)
    found = cross_entropy_in_chunks(hidden, weight, targets, chunk_len=chunk_len, bias=bias)
    whole = F.cross_entropy(F.linear(hidden, weight, bias).mT, targets, reduction="none")
    assert_equal(found, whole)
    each, leaves = random(2, 5, seed=3), [hidden, weight] + [bias] * use_bias
    expected = torch.autograd.grad((whole * each).sum(), leaves)
    for own, other in zip(torch.autograd.grad((found * each).sum(), leaves), expected, strict=True):
        assert_equal(own, other)


def test_gradients_of_the_chunked_loss():
    hidden, weight, targets, bias = loss_arguments()
    assert gradcheck(
        lambda h, w, b: cross_entropy_in_chunks(h, w, targets, chunk_len=4, bias=b), (hidden, weight, bias)
    )


def test_logits_of_more_than_a_chunk_are_never_there():
    hidden, weight = torch.randn(2, 64, 4, requires_grad=True), torch.randn(50, 4, requires_grad=True)
    targets = torch.zeros(2, 64, dtype=torch.int64)
    with Sizes() as sizes:
        cross_entropy_in_chunks(hidden, weight, targets, chunk_len=16).sum().backward()
    assert sizes.largest == 16 * 50


def test_the_loss_in_low_precision():
    hidden, weight, targets, bias = (t.detach() if t.is_floating_point() else t for t in loss_arguments())
    expected = cross_entropy_in_chunks(hidden, weight, targets, chunk_len=4, bias=bias)
    leaves = [t.float().requires_grad_() for t in (hidden, weight, bias)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = cross_entropy_in_chunks(*leaves[:2], targets, chunk_len=4, bias=leaves[2])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=0.03, atol=0.03)
    found.sum().backward()
    assert all(leaf.grad.isfinite().all() and leaf.grad.dtype == torch.float32 for leaf in leaves)


def test_targets_that_do_not_fit_are_refused():
    hidden, weight, targets, _ = loss_arguments()
    with pytest.raises(ValueError, match=r"targets must have shape \[2, 5\]; got \[2, 4\]"):
        cross_entropy_in_chunks(hidden, weight, targets[:, :4], chunk_len=2)
    with pytest.raises(ValueError, match=r"hidden must have shape \[batch, length, 3\]; got \[2, 5, 2\]"):
        cross_entropy_in_chunks(hidden[..., :2], weight, targets, chunk_len=2)
    last = len(weight) - 1
    for wrong in (last + 1, -1):
        targets[1, 2] = wrong
        with pytest.raises(
            ValueError, match=f"targets must be from 0 to {last}, the rows of weight; got {wrong}"
        ):
            cross_entropy_in_chunks(hidden, weight, targets, chunk_len=2)
    with pytest.raises(ValueError, match="targets must be whole numbers; got torch.float64"):
        cross_entropy_in_chunks(hidden, weight, targets.double(), chunk_len=2)
    assert cross_entropy_in_chunks(hidden[:0], weight, targets[:0], chunk_len=2).shape == (0, 5)


def test_weights_and_biases_that_do_not_fit_are_refused():
    hidden, weight, targets, bias = loss_arguments()
    with pytest.raises(ValueError, match=r"weight must have shape \[vocabulary, width\]; got \[3\]"):
        cross_entropy_in_chunks(hidden, weight[0], targets, chunk_len=2)
    for wrong in (bias[:4], bias[:1]):
        with pytest.raises(
            ValueError, match=rf"bias must have shape \[7\], as weight has rows; got \[{len(wrong)}\]"
        ):
            cross_entropy_in_chunks(hidden, weight, targets, chunk_len=2, bias=wrong)


# --- Axial positions -----------------------------------------------------------------------------------------------


def test_axial_positions_by_hand():
    module = AxialPositions(shape=(2, 3), widths=(1, 2)).double()
    with torch.no_grad():
        module.tables[0].copy_(torch.tensor([[10.0], [20.0]]))
        module.tables[1].copy_(torch.tensor([[1.0, -1], [2, -2], [3, -3]]))
    expected = [[10, 1, -1], [10, 2, -2], [10, 3, -3], [20, 1, -1], [20, 2, -2], [20, 3, -3]]
    assert_equal(module(6), expected)
    assert_equal(module(2, start=3), expected[3:5])
    assert module(0).shape == (0, 3)


def test_axial_positions_need_few_parameters_and_learn():
    module = AxialPositions(shape=(64, 64, 3), widths=(4, 8, 4))
    assert sum(p.numel() for p in module.parameters()) == 64 * 4 + 64 * 8 + 3 * 4
    output = module(5)
    assert output.shape == (5, 16) and module.max_len == 12288
    output.sum().backward()
    assert all(table.grad.any() for table in module.tables)
    assert module(12288).unique(dim=0).shape == (12288, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (4, 4), "widths": (8,)}, r"one number for each axis; got \(4, 4\) and \(8,\)"),
        ({"shape": (), "widths": ()}, "one number for each axis"),
        ({"shape": (4, 0), "widths": (8, 8)}, r"shape\[1\] must be a whole number of at least 1; got 0"),
        ({"shape": (4, 4), "widths": (8, -1)}, r"widths\[1\] must be a whole number"),
        ({"shape": 4, "widths": (8,)}, "shape must be one whole number for each axis.*; got 4"),
        ({"shape": (4,), "widths": 8}, "widths must be one whole number for each axis.*; got 8"),
    ],
)
def test_wrong_axes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        AxialPositions(**arguments)


def test_positions_beyond_the_grid_are_refused():
    module = AxialPositions(shape=(2, 3), widths=(1, 1))
    for arguments, found in [((7,), 7), ((2, 5), 7)]:
        with pytest.raises(
            ValueError, match=f"not be longer than the 6 positions of a grid of .*got {found}"
        ):
            module(*arguments)
    for arguments, found in [((3, -2), "3 and -2"), ((-1,), "-1 and 0")]:
        with pytest.raises(ValueError, match=f"seq_len and start must not be negative; got {found}"):
            module(*arguments)
    assert module.double()(6).dtype == DOUBLE
