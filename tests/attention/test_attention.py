from math import cos, prod, sin

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

import attn.attention
from attn.attention import (
    KeyValueCache,
    LearnedPositions,
    MultiHeadAttention,
    SinusoidalPositions,
    causal_mask,
    padding_mask,
    scaled_dot_product_attention,
    sinusoidal_positions,
)
from tests.attention import reference
from tests.exact import DOUBLE, gradients, random

# float64 against float64: only the order of sums differs
EXACT = {"rtol": 1e-11, "atol": 1e-13}
LOW = [torch.float16, torch.bfloat16]


def random_mask(*shape, seed=0, share=0.6):
    """Every query may attend to the first key, so that no row is empty."""
    mask = torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < share
    mask[..., 0] = True
    return mask


def filled(module, seed=0, scale=0.4):
    """The module in float64 with every parameter drawn anew, biases included."""
    with torch.no_grad():
        for index, parameter in enumerate(module.double().parameters()):
            parameter.copy_(scale * random(*parameter.shape, seed=1000 * seed + index))
    return module


def assert_equal(found, expected):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=found.dtype), **EXACT)


paths = pytest.mark.parametrize("need_weights", [False, True], ids=["fused", "plain"])


def qkv(batch=2, heads=3, query_len=4, key_len=5, head_dim=6, value_dim=6, dtype=DOUBLE):
    tensors = (
        random(batch, heads, query_len, head_dim, seed=1, dtype=dtype),
        random(batch, heads, key_len, head_dim, seed=2, dtype=dtype),
        random(batch, heads, key_len, value_dim, seed=3, dtype=dtype),
    )
    return [tensor.requires_grad_() for tensor in tensors]


# --- Scaled dot-product attention --------------------------------------------------------------------------

MASKS = {
    "none": None,
    "each": random_mask(2, 3, 4, 5),
    "heads alike": random_mask(2, 1, 4, 5),
    "keys only": random_mask(2, 1, 1, 5),
    "rank 3": random_mask(3, 4, 5),
    "rank 2": random_mask(4, 5),
    "rank 1": random_mask(5),
}


@paths
@pytest.mark.parametrize("value_dim", [6, 2])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_attention_equals_the_loop(mask, value_dim, need_weights):
    query, key, value = qkv(value_dim=value_dim)
    output, weights = scaled_dot_product_attention(query, key, value, mask, need_weights=need_weights)
    full = torch.ones(2, 3, 4, 5, dtype=torch.bool) if mask is None else mask.expand(2, 3, 4, 5)
    for b in range(2):
        for h in range(3):
            expected, expected_weights = reference.attention(
                *(side[b, h].tolist() for side in (query, key, value)),
                lambda t, s: full[b, h, t, s],  # noqa: B023
            )
            assert_equal(output[b, h], expected)
            if need_weights:
                assert_equal(weights[b, h], expected_weights)
    assert need_weights or weights is None


def test_attention_by_hand():
    # Products 0 and 2 log 3, halved by 1 / sqrt(4): weights 1 to 3.
    query = torch.tensor([1.0, 1, 1, 1]).view(1, 1, 1, 4)
    key = torch.stack([torch.zeros(4), torch.full((4,), 0.5 * torch.tensor(3.0).log().item())]).view(
        1, 1, 2, 4
    )
    value = torch.tensor([[4.0], [8.0]]).view(1, 1, 2, 1)
    output, weights = scaled_dot_product_attention(query, key, value, need_weights=True)
    torch.testing.assert_close(weights.flatten(), torch.tensor([0.25, 0.75]))
    torch.testing.assert_close(output.flatten(), torch.tensor([7.0]))


@paths
def test_a_given_scale_replaces_the_root(need_weights):
    query, key, value = qkv()
    output, _ = scaled_dot_product_attention(query, key, value, scale=0.7, need_weights=need_weights)
    rows = (side[1, 2].tolist() for side in (query, key, value))
    assert_equal(output[1, 2], reference.attention(*rows, lambda t, s: True, scale=0.7)[0])


@paths
@pytest.mark.parametrize(("query_len", "key_len"), [(5, 5), (1, 5), (3, 5), (5, 3), (1, 1)])
def test_causal_attention_equals_the_loop(query_len, key_len, need_weights):
    query, key, value = qkv(query_len=query_len, key_len=key_len)
    output, _ = scaled_dot_product_attention(query, key, value, is_causal=True, need_weights=need_weights)
    rows = (side[1, 2].tolist() for side in (query, key, value))
    behind = key_len - query_len
    assert_equal(output[1, 2], reference.attention(*rows, lambda t, s: s <= t + behind)[0])


@paths
def test_causal_and_a_mask_hide_what_either_hides(need_weights):
    query, key, value = qkv(query_len=5)
    mask = random_mask(2, 1, 1, 5)
    output, _ = scaled_dot_product_attention(
        query, key, value, mask, is_causal=True, need_weights=need_weights
    )
    expected, _ = scaled_dot_product_attention(
        query, key, value, mask & torch.ones(5, 5).tril().bool(), need_weights=need_weights
    )
    assert_equal(output, expected)


@paths
@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("dtype", [*LOW, torch.float32, DOUBLE], ids=str)
def test_rows_without_a_key_give_zeros_and_zero_gradients(dtype, need_weights):
    tensors = qkv(dtype=dtype)
    mask = random_mask(2, 1, 4, 5)
    mask[0, :, 2] = False
    mask[1] = False
    with torch.autograd.detect_anomaly(check_nan=True):
        output, weights = scaled_dot_product_attention(*tensors, mask, need_weights=need_weights)
        grads = gradients(output, tensors)
    assert output[0, :, 2].eq(0).all() and output[1].eq(0).all()
    assert output[0, :, [0, 1, 3]].ne(0).all()
    assert grads[0][0, :, 2].eq(0).all() and all(grad[1].eq(0).all() for grad in grads)
    if need_weights:
        assert weights[0, :, 2].eq(0).all() and weights[1].eq(0).all()
    # the other rows, and what keys and values learn from them, as if the empty row were not there
    kept = [tensors[0][:1, :, [0, 1, 3]], *(tensor[:1] for tensor in tensors[1:])]
    rest = scaled_dot_product_attention(*kept, mask[:1, :, [0, 1, 3]], need_weights=need_weights)[0]
    torch.testing.assert_close(output[:1, :, [0, 1, 3]], rest)


def test_rows_without_a_key_are_kept_from_kernels_that_make_nan_of_them(monkeypatch):
    def kernel(query, key, value, attn_mask, scale, **_):
        scores = (query @ key.transpose(-2, -1) * scale).masked_fill(~attn_mask, -torch.inf)
        return torch.softmax(scores, dim=-1) @ value

    tensors, mask = qkv(), random_mask(2, 1, 4, 5)
    mask[0, :, 2] = False
    expected, _ = scaled_dot_product_attention(*tensors, mask)
    monkeypatch.setattr(attn.attention.F, "scaled_dot_product_attention", kernel)
    assert kernel(*tensors, mask, 1.0)[0, :, 2].isnan().all()
    output, _ = scaled_dot_product_attention(*tensors, mask)
    assert_equal(output, expected)
    for own, other in zip(gradients(output, tensors), gradients(expected, tensors), strict=True):
        assert_equal(own, other)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("seq_len", [64, 100, 192])
def test_gpu_kernels_agree_with_float64(seq_len, dtype):
    mask = random_mask(2, 1, seq_len, seq_len)
    mask[0, :, 3] = False
    mask[1, :, :, seq_len // 2 :] = False
    exact = qkv(query_len=seq_len, key_len=seq_len, head_dim=64, value_dim=64)
    low = [side.detach().to("cuda", dtype).requires_grad_() for side in exact]
    found, _ = scaled_dot_product_attention(*low, mask.cuda())
    expected, _ = scaled_dot_product_attention(*exact, mask)
    # Products in bfloat16, or in TF32 where it is on, carry 8 or 11 bits.
    tolerance = {"rtol": 0.05, "atol": 0.05} if dtype != torch.float32 else {"rtol": 5e-3, "atol": 5e-3}
    pairs = zip([found, *gradients(found, low)], [expected, *gradients(expected, exact)], strict=True)
    for own, other in pairs:
        torch.testing.assert_close(own.double().cpu(), other, **tolerance)
    assert found[0, :, 3].eq(0).all()


@paths
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_are_those_of_finite_differences(masked, need_weights):
    tensors = qkv(batch=1, heads=2, query_len=3, key_len=3, head_dim=2, value_dim=2)
    mask = random_mask(3, 3)
    mask[1] = False

    def outputs(*sides):
        return scaled_dot_product_attention(
            *sides, mask if masked else None, is_causal=True, need_weights=need_weights
        )[0]

    assert gradcheck(outputs, tensors)


@pytest.mark.parametrize("dtype", LOW, ids=str)
def test_the_plain_version_takes_its_softmax_in_float32(dtype):
    query, key = (8 * random(1, 1, 32, 8, seed=seed) for seed in (1, 2))
    value = torch.eye(32, dtype=DOUBLE).view(1, 1, 32, 32)
    exact = scaled_dot_product_attention(query, key, value, need_weights=True)[1]
    low = [side.to(dtype) for side in (query, key, value)]
    found = scaled_dot_product_attention(*low, need_weights=True)[1].double()
    in_low = torch.softmax(low[0] * 8**-0.5 @ low[1].transpose(-2, -1), dim=-1).double()
    assert (found - exact).abs().max() <= (in_low - exact).abs().max()


@paths
def test_products_that_float16_holds_only_when_scaled(need_weights):
    side = torch.full((1, 1, 2, 64), 40, dtype=torch.float16)  # 64 * 40 * 40 = 102400, above 65504
    output, _ = scaled_dot_product_attention(side, side, side, need_weights=need_weights)
    assert torch.equal(output, side)


@paths
def test_dropout_removes_weights_and_raises_the_others(need_weights):
    query, key, _ = qkv(batch=4, query_len=16, key_len=16)
    value = torch.eye(16, dtype=DOUBLE).expand(4, 3, 16, 16)  # the output is the weights
    whole = scaled_dot_product_attention(query, key, value)[0]
    torch.manual_seed(0)
    output, weights = scaled_dot_product_attention(query, key, value, dropout=0.25, need_weights=need_weights)
    kept = output != 0
    assert_equal(output[kept], whole[kept] / 0.75)
    assert 0.70 < kept.double().mean() < 0.80  # 3072 draws: standard deviation 0.008
    if need_weights:
        assert_equal(weights, whole)


def test_masks_by_hand():
    lower = [[True, False, False], [True, True, False], [True, True, True]]
    assert causal_mask(3).tolist() == lower
    assert causal_mask(2, 3).tolist() == lower[1:]
    assert causal_mask(3, 1).tolist() == [[False], [False], [True]]
    found = padding_mask(torch.tensor([[5, 7, 0], [0, 7, 5]]), 0)
    assert found.shape == (2, 1, 1, 3)
    assert found.flatten(1).tolist() == [[True, True, False], [False, True, True]]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(4, 5), r"mask must be boolean.*got torch.float32"),
        (torch.ones(2, 5, dtype=torch.bool), r"mask must be broadcastable.*\[2, 3, 4, 5\]; got \[2, 5\]"),
        (torch.ones(1, 2, 3, 4, 5, dtype=torch.bool), r"mask must be broadcastable.*got \[1, 2, 3, 4, 5\]"),
    ],
)
def test_a_wrong_mask_is_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        scaled_dot_product_attention(*qkv(), mask)


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize(
    "change", [lambda t: t[0], lambda t: t[..., :-1], lambda t: t[:1], lambda t: t[:, :1]]
)
def test_tensors_that_do_not_fit_are_refused(index, change):
    tensors = qkv()
    tensors[index] = change(tensors[index])
    if index == 2 and tensors[2].shape[:3] == (2, 3, 5):
        assert scaled_dot_product_attention(*tensors)[0].shape == (2, 3, 4, 5)  # values may have any width
        return
    with pytest.raises(ValueError, match="query, key and value must have shapes.*got .*and"):
        scaled_dot_product_attention(*tensors)


def test_one_dtype_and_a_share_of_dropout_are_asked_for():
    query, key, value = qkv()
    with pytest.raises(ValueError, match="one dtype; got torch.float64, torch.float32 and torch.float64"):
        scaled_dot_product_attention(query, key.float(), value)
    for dropout in (-0.1, 1.0):
        with pytest.raises(ValueError, match=f"dropout must be a number from 0 to below 1; got {dropout}"):
            scaled_dot_product_attention(query, key, value, dropout=dropout)


# --- Multi-head attention ----------------------------------------------------------------------------------


def torch_pair(use_bias=True, d_model=12, n_heads=3):
    """Our module and torch's with the same weights, both in float64."""
    ours = filled(MultiHeadAttention(d_model=d_model, n_heads=n_heads, use_bias=use_bias))
    theirs = nn.MultiheadAttention(d_model, n_heads, bias=use_bias, batch_first=True, dtype=DOUBLE)
    pairs = [(ours.projection.weight, theirs.in_proj_weight), (ours.output.weight, theirs.out_proj.weight)]
    if use_bias:
        pairs += [(ours.projection.bias, theirs.in_proj_bias), (ours.output.bias, theirs.out_proj.bias)]
    with torch.no_grad():
        for own, other in pairs:
            other.copy_(own)
    return ours, theirs, pairs


@paths
@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize("kind", ["self", "causal", "cross", "padded"])
def test_multi_head_equals_torch_with_gradients(kind, use_bias, need_weights):
    ours, theirs, pairs = torch_pair(use_bias)
    query = random(2, 4, 12, seed=1).requires_grad_()
    memory = query if kind in ("self", "causal") else random(2, 5, 12, seed=2).requires_grad_()
    mask, theirs_masks = None, {}
    if kind == "causal":
        theirs_masks = {"attn_mask": ~torch.ones(4, 4, dtype=torch.bool).tril()}
    elif kind == "padded":
        mask = random_mask(2, 1, 1, 5)
        theirs_masks = {"key_padding_mask": ~mask[:, 0, 0]}
    found, weights, _ = ours(
        query,
        None if memory is query else memory,
        mask,
        is_causal=kind == "causal",
        need_weights=need_weights,
    )
    expected, expected_weights = theirs(
        query, memory, memory, need_weights=need_weights, average_attn_weights=False, **theirs_masks
    )
    assert_equal(found, expected)
    if need_weights:
        assert_equal(weights, expected_weights)
    inputs = [query] if memory is query else [query, memory]
    own_gradients = gradients(found, [*inputs, *(own for own, _ in pairs)])
    for own, other in zip(
        own_gradients, gradients(expected, [*inputs, *(other for _, other in pairs)]), strict=True
    ):
        assert_equal(own, other)


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize(("head_dim", "value_dim"), [(None, None), (1, None), (None, 5), (4, 2)])
def test_multi_head_equals_the_loop(head_dim, value_dim, cross):
    module = filled(
        MultiHeadAttention(d_model=6, n_heads=2, head_dim=head_dim, value_dim=value_dim, use_bias=True)
    )
    e, v = head_dim or 3, value_dim or 3
    query = random(1, 3, 6, seed=1)
    memory = random(1, 4, 6, seed=2) if cross else query
    rows = list(zip(module.projection.weight.tolist(), module.projection.bias.tolist(), strict=True))
    assert len(rows) == 2 * (2 * e + v)

    def part(start, width):
        return [list(column) for column in zip(*rows[start : start + width], strict=True)]

    heads = [(part(h * e, e), part(2 * e + h * e, e), part(4 * e + h * v, v)) for h in range(2)]
    expected = reference.multi_head(
        query[0].tolist(), memory[0].tolist(), heads, module.output.weight.tolist(), module.output.bias.tolist(),
        lambda t, s: True,
    )  # fmt: skip
    assert_equal(module(query, memory if cross else None).output[0], expected)


@pytest.mark.parametrize("sizes", [{"head_dim": 2, "value_dim": 7}, {}], ids=["table 3 B", "plain"])
def test_parameters_and_start(sizes):
    module = MultiHeadAttention(d_model=40, n_heads=4, **sizes)
    e, v = sizes.get("head_dim", 10), sizes.get("value_dim", 10)
    assert sum(p.numel() for p in module.parameters()) == 2 * 40 * 4 * e + 2 * 40 * 4 * v
    bound = (6 / (40 + 4 * (2 * e + v))) ** 0.5
    assert 0.95 * bound < module.projection.weight.abs().max() <= bound
    bound = (6 / (40 + 4 * v)) ** 0.5
    assert 0.95 * bound < module.output.weight.abs().max() <= bound


@pytest.mark.parametrize("pieces", [[1] * 6, [6], [2, 1, 3], [5, 1]])
def test_cached_self_attention_equals_the_whole(pieces):
    module = filled(MultiHeadAttention(d_model=12, n_heads=3, value_dim=2))
    inputs = random(2, 6, 12)
    whole = module(inputs, is_causal=True)
    cache, outputs = None, []
    for piece in inputs.split(pieces, dim=1):
        output, _, cache = module(piece, is_causal=True, cache=cache)
        outputs.append(output)
    assert_equal(torch.cat(outputs, dim=1), whole.output)
    assert_equal(cache.key, whole.cache.key)
    assert_equal(cache.value, whole.cache.value)


def test_cached_cross_attention_equals_the_uncached():
    module = filled(MultiHeadAttention(d_model=12, n_heads=3, use_bias=True))
    query, memory, mask = random(2, 4, 12, seed=1), random(2, 5, 12, seed=2), random_mask(2, 1, 1, 5)
    first = module(query, memory, mask)
    assert_equal(module(query, first.cache, mask).output, first.output)
    assert_equal(module(query, module.project(memory), mask).output, first.output)
    assert_equal(module(query[:, 2:3], first.cache, mask).output, first.output[:, 2:3])


def test_without_positions_the_order_of_tokens_does_not_matter():
    module = filled(MultiHeadAttention(d_model=12, n_heads=3))
    inputs, order = random(2, 5, 12), torch.tensor([3, 0, 4, 1, 2])
    assert_equal(module(inputs[:, order]).output, module(inputs).output[:, order])


def test_dropout_acts_in_training_only():
    module = filled(MultiHeadAttention(d_model=12, n_heads=3, dropout=0.5))
    inputs = random(2, 5, 12)
    torch.manual_seed(0)
    assert not torch.equal(module(inputs).output, module(inputs).output)
    module.eval()
    plain = filled(MultiHeadAttention(d_model=12, n_heads=3))
    assert_equal(module(inputs).output, plain(inputs).output)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_heads": 3}, "d_model must be divisible by n_heads.*d_model=10 and n_heads=3"),
        ({"n_heads": 3, "head_dim": 2}, "d_model must be divisible by n_heads"),
        ({"n_heads": 0}, "n_heads must be a whole number of at least 1; got 0"),
        ({"d_model": 10.0}, "d_model must be a whole number of at least 1; got 10.0"),
        ({"head_dim": True}, "head_dim must be a whole number.*got True"),
        ({"value_dim": -1}, "value_dim must be a whole number.*got -1"),
        ({"dropout": 1.0}, "dropout must be a number from 0 to below 1; got 1.0"),
    ],
)
def test_wrong_sizes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        MultiHeadAttention(**({"d_model": 10, "n_heads": 2} | changes))


def test_heads_that_do_not_divide_are_fine_with_both_widths_given():
    module = MultiHeadAttention(d_model=10, n_heads=3, head_dim=2, value_dim=4)
    assert module(random(1, 2, 10, dtype=torch.float32)).output.shape == (1, 2, 10)


def test_wrong_inputs_are_refused():
    module = MultiHeadAttention(d_model=6, n_heads=2)
    inputs = random(2, 3, 6, dtype=torch.float32)
    cache = module(inputs).cache
    for arguments, message in [
        ({"query": inputs[0]}, r"query must have shape \[batch, length, 6\]; got \[3, 6\]"),
        ({"query": inputs, "memory": inputs[..., :5]}, r"memory must have shape.*got \[2, 3, 5\]"),
        (
            {"query": inputs, "memory": inputs[:1]},
            r"memory must hold a key of shape \[2, 2, length, 3\]; got \[1,",
        ),
        (
            {"query": inputs[:1], "cache": cache},
            r"cache must hold a key of shape \[1, 2, length, 3\]; got \[2,",
        ),
        (
            {"query": inputs, "cache": KeyValueCache(cache.key, cache.value[..., :2])},
            r"cache must hold a value of shape.*got \[2, 2, 3, 2\]",
        ),
        ({"query": inputs, "memory": inputs, "cache": cache}, "cache must be None where there is a memory"),
        ({"query": inputs, "mask": torch.zeros(3, 3)}, "mask must be boolean"),
        ({"query": inputs, "mask": torch.ones(4, 3, dtype=torch.bool)}, "mask must be broadcastable"),
    ]:
        with pytest.raises(ValueError, match=message):
            module(**arguments)


# --- Positions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d_model", [1, 2, 5, 8])
def test_sinusoids_equal_the_formula(d_model):
    table = sinusoidal_positions(300, d_model, dtype=DOUBLE)
    assert table.shape == (300, d_model)
    for position in (0, 1, 7, 299):
        for column in range(d_model):
            angle = position / 10000 ** ((column - column % 2) / d_model)
            assert table[position, column].item() == pytest.approx(
                (cos if column % 2 else sin)(angle), abs=1e-12
            )


@pytest.mark.parametrize("offset", [1, 5, -3])
def test_a_fixed_offset_turns_every_pair_by_a_fixed_angle(offset):
    d_model = 16
    table = sinusoidal_positions(40, d_model, dtype=DOUBLE)
    rotation = torch.zeros(d_model, d_model, dtype=DOUBLE)
    for i in range(0, d_model, 2):
        angle = offset / 10000 ** (i / d_model)
        # sin(a + b) = sin a cos b + cos a sin b; cos(a + b) = cos a cos b - sin a sin b
        rotation[i : i + 2, i : i + 2] = torch.tensor([[cos(angle), sin(angle)], [-sin(angle), cos(angle)]])
    start, end = max(0, -offset), min(40, 40 - offset)
    expected = table[start + offset : end + offset]
    # float32 angles in the rotation would be off by 1e-8
    torch.testing.assert_close(table[start:end] @ rotation.T, expected, rtol=0, atol=1e-6)


def test_sinusoids_are_rounded_from_float64_in_every_dtype():
    exact = sinusoidal_positions(1000, 6, dtype=DOUBLE)
    module = SinusoidalPositions(d_model=6, max_len=1000)
    assert not module.state_dict() and not list(module.parameters())
    for dtype in (torch.float32, torch.bfloat16, DOUBLE, torch.float16):
        assert torch.equal(module.to(dtype)(1000), exact.to(dtype))
    with torch.device("meta"):
        module = SinusoidalPositions(d_model=6, max_len=1000)
    assert module.table.is_meta
    assert torch.equal(module.to_empty(device="cpu")(1000), exact.float())


@pytest.mark.parametrize("kind", [SinusoidalPositions, LearnedPositions])
def test_positions_start_anywhere_and_end_at_max_len(kind):
    module = kind(d_model=4, max_len=8)
    assert torch.equal(module(3, start=5), module(8)[5:])
    for arguments, found in [((9,), 9), ((3, 6), 9), ((1, 8), 9)]:
        with pytest.raises(ValueError, match=f"not be longer than max_len = 8 positions; got {found}"):
            module(*arguments)
    for arguments in ((2, -1), (-1, 2)):
        with pytest.raises(ValueError, match=f"at least 0; got {arguments[0]} and {arguments[1]}"):
            module(*arguments)
    with pytest.raises(ValueError, match="max_len must be a whole number of at least 1; got 0"):
        kind(d_model=4, max_len=0)


@pytest.mark.parametrize("sizes", [(-1, 4), (3, 0)])
def test_sinusoids_need_a_length_and_a_width(sizes):
    with pytest.raises(ValueError, match=f"got {sizes[0]} and {sizes[1]}"):
        sinusoidal_positions(*sizes)
    assert sinusoidal_positions(0, 4).shape == (0, 4)


def test_learned_positions_start_as_large_as_sinusoids():
    torch.manual_seed(0)
    learned, fixed = LearnedPositions(d_model=64, max_len=500), SinusoidalPositions(d_model=64, max_len=500)
    assert prod(learned.table.shape) == sum(p.numel() for p in learned.parameters()) == 32000
    assert learned(500).square().mean().item() == pytest.approx(fixed(500).square().mean().item(), rel=0.02)


# --- Compiled and in mixed precision -----------------------------------------------------------------------


def test_compiled_attention_equals_the_eager_without_a_graph_break():
    module = filled(MultiHeadAttention(d_model=12, n_heads=3))
    inputs, mask = random(2, 5, 12).requires_grad_(), random_mask(2, 1, 1, 5)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    found, expected = (kind(inputs, mask=mask, is_causal=True).output for kind in (compiled, module))
    assert_equal(found, expected)
    for own, other in zip(
        *(gradients(o, [inputs, *module.parameters()]) for o in (found, expected)), strict=True
    ):
        assert_equal(own, other)


@paths
def test_autocast_is_close_to_full_precision(need_weights):
    module = filled(MultiHeadAttention(d_model=12, n_heads=3)).float()
    inputs, mask = random(2, 5, 12, dtype=torch.float32), random_mask(2, 1, 1, 5)
    mask[1] = False
    expected = module(inputs, mask=mask).output
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = module(inputs, mask=mask, need_weights=need_weights).output
    assert found.dtype == torch.bfloat16 and found[1].eq(0).all()
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.05)
