import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from attn.attention import MultiHeadAttention, scaled_dot_product_attention
from attn.layer_types import (
    MIN_BLOCK,
    DilatedConvolutions,
    RestrictedSelfAttention,
    layers_to_connect,
    neighbourhood_mask,
    restricted_attention,
)
from tests.attention import reference

DOUBLE = torch.float64
EXACT = {"rtol": 1e-11, "atol": 1e-13}


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def test_the_neighbourhood_is_centred_and_counts_r_in_all():
    assert neighbourhood_mask(5, 3).int().tolist() == [
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [0, 1, 1, 1, 0],
        [0, 0, 1, 1, 1],
        [0, 0, 0, 1, 1],
    ]
    assert torch.equal(neighbourhood_mask(4, 1), torch.eye(4).bool())
    assert neighbourhood_mask(9, 5)[4].sum() == 5


def test_restricted_attention_equals_the_loop():
    query, key, value = (random(1, 1, 20, width, seed=width) for width in (3, 3, 2))
    found = restricted_attention(query, key, value, 5, scale=0.8)
    expected, _ = reference.attention(
        query[0, 0].tolist(),
        key[0, 0].tolist(),
        value[0, 0].tolist(),
        lambda t, s: abs(t - s) <= 2,
        scale=0.8,
    )
    torch.testing.assert_close(found[0, 0], torch.tensor(expected, dtype=DOUBLE), **EXACT)


@pytest.mark.parametrize(
    ("seq_len", "neighbourhood"),
    [
        (1, 1),
        (1, 9),
        (5, 3),
        (MIN_BLOCK, 3),
        (40, 1),
        (40, 7),
        (40, 41),
        (40, 99),
        (3 * MIN_BLOCK + 1, 2 * MIN_BLOCK + 1),
    ],
)
def test_restricted_attention_equals_full_attention_with_a_band_with_gradients(seq_len, neighbourhood):
    sides = [random(2, 3, seq_len, width, seed=i).requires_grad_() for i, width in enumerate((4, 4, 5))]
    weights = random(2, 3, seq_len, 5, seed=9)
    found = restricted_attention(*sides, neighbourhood)
    expected, _ = scaled_dot_product_attention(*sides, neighbourhood_mask(seq_len, neighbourhood))
    torch.testing.assert_close(found, expected, **EXACT)
    gradients = (torch.autograd.grad((output * weights).sum(), sides) for output in (found, expected))
    for own, other in zip(*gradients, strict=True):
        torch.testing.assert_close(own, other, **EXACT)


class Largest(TorchDispatchMode):
    """Sizes of the tensors that are made."""

    def __init__(self):
        super().__init__()
        self.n_values = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.n_values = max(self.n_values, tensor.numel())
        return result


def test_memory_grows_with_the_length_and_not_with_its_square():
    def largest(seq_len):
        sides = [random(1, 2, seq_len, 4, seed=seed).requires_grad_() for seed in range(3)]
        with Largest() as sizes:
            restricted_attention(*sides, 17).sum().backward()
        return sizes.n_values

    assert largest(1024) == 2 * largest(512)
    assert largest(1024) < 1024 * 1024


def test_the_module_equals_multi_head_attention_with_a_band():
    torch.manual_seed(0)
    local = RestrictedSelfAttention(d_model=12, n_heads=3, neighbourhood=5).double()
    full = MultiHeadAttention(d_model=12, n_heads=3).double()
    full.load_state_dict(local.state_dict())
    inputs = random(2, 30, 12)
    torch.testing.assert_close(local(inputs), full(inputs, mask=neighbourhood_mask(30, 5)).output, **EXACT)


def test_convolutions_equal_the_loop():
    torch.manual_seed(0)
    stack = DilatedConvolutions(d_model=2, kernel_size=3, n_layers=2).double()
    inputs = random(1, 7, 2)
    rows = inputs[0].tolist()
    for index, (layer, dilation) in enumerate(zip(stack.layers, (1, 2), strict=True)):
        if index:
            rows = [[max(0.0, value) for value in row] for row in rows]
        weight, bias = layer.weight.tolist(), layer.bias.tolist()  # [out, in, k]
        rows = [
            [
                bias[out] + sum(
                    weight[out][j][tap] * rows[t + (tap - 1) * dilation][j]
                    for tap in range(3) for j in range(2) if 0 <= t + (tap - 1) * dilation < 7
                )
                for out in range(2)
            ]
            for t in range(7)
        ]  # fmt: skip
    torch.testing.assert_close(stack(inputs)[0], torch.tensor(rows, dtype=DOUBLE), **EXACT)


@pytest.mark.parametrize(
    ("seq_len", "kernel_size"), [(1, 3), (2, 3), (5, 3), (6, 3), (9, 5), (10, 5), (7, 13)]
)
def test_layers_to_connect_is_the_fewest_that_join_all_positions(seq_len, kernel_size):
    fewest = layers_to_connect(seq_len, kernel_size)

    def joins(n_layers):
        stack = DilatedConvolutions(d_model=1, kernel_size=kernel_size, n_layers=n_layers).double()
        for parameter in stack.parameters():
            torch.nn.init.ones_(parameter)
        inputs = torch.ones(1, seq_len, 1, dtype=DOUBLE)
        return (torch.autograd.functional.jacobian(stack, inputs) > 0).all()

    assert fewest == 0 or joins(fewest)
    assert fewest <= 1 or not joins(fewest - 1)
    assert (fewest == 0) == (seq_len == 1)


def test_a_layer_has_k_d_squared_weights():
    layer = DilatedConvolutions(d_model=8, kernel_size=5)
    assert sum(p.numel() for p in layer.parameters()) == 5 * 8 * 8 + 8


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: neighbourhood_mask(4, 2), "neighbourhood must be odd.*got 2"),
        (lambda: RestrictedSelfAttention(d_model=4, n_heads=2, neighbourhood=0), "neighbourhood must be a whole.*got 0"),
        (lambda: DilatedConvolutions(d_model=4, kernel_size=4), "kernel_size must be odd.*got 4"),
        (lambda: DilatedConvolutions(d_model=4, kernel_size=1), "kernel_size must be at least 3; got 1"),
        (lambda: DilatedConvolutions(d_model=4, kernel_size=3, n_layers=0), "n_layers must be a whole.*got 0"),
        (lambda: layers_to_connect(0, 3), "seq_len must be a whole number of at least 1; got 0"),
    ],
)  # fmt: skip
def test_wrong_sizes_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 3, 7, 4), (2, 3, 9, 4), (2, 3, 9, 4)), "as many as the queries, 7; got 9 of each"),
        (((2, 3, 7, 4), (2, 3, 5, 4), (2, 3, 5, 4)), "as many as the queries, 7; got 5 of each"),
        (((2, 3, 7, 4), (2, 3, 7, 4), (2, 3, 6, 4)), r"must have shapes \[B, H, T, E\]"),
        (((2, 3, 7, 4), (2, 3, 7, 5), (2, 3, 7, 4)), r"must have shapes \[B, H, T, E\]"),
        (((2, 3, 7, 4), (2, 1, 7, 4), (2, 1, 7, 4)), r"must have shapes \[B, H, T, E\]"),
        (((3, 7, 4), (3, 7, 4), (3, 7, 4)), r"must have shapes \[B, H, T, E\]"),
    ],
)
def test_sides_that_do_not_fit_are_refused(shapes, message):
    with pytest.raises(ValueError, match=message):
        restricted_attention(*(random(*shape) for shape in shapes), 3)


def test_sides_of_two_dtypes_are_refused():
    query, key, value = (random(1, 1, 4, 2) for _ in range(3))
    with pytest.raises(ValueError, match="must have one dtype"):
        restricted_attention(query, key.float(), value, 3)


@pytest.mark.parametrize(
    "layer",
    [
        RestrictedSelfAttention(d_model=4, n_heads=2, neighbourhood=3),
        DilatedConvolutions(d_model=4, kernel_size=3),
    ],
    ids=lambda layer: type(layer).__name__,
)
@pytest.mark.parametrize("shape", [(2, 5, 3), (5, 4), (1, 2, 5, 4)])
def test_inputs_of_another_shape_are_refused(layer, shape):
    with pytest.raises(ValueError, match=r"inputs must have shape \[batch, length, 4\]; got \[\d"):
        layer(torch.zeros(shape))
