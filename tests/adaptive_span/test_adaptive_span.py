from math import exp

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from attn.adaptive_span import (
    SPANS,
    AdaptiveSpan,
    DynamicSpan,
    Past,
    Persistent,
    RelativePositions,
    SpanAttention,
    cache_length,
    clamp_spans,
    distances,
    flops_per_step,
    recorded_spans,
    relative_scores,
    reported_span,
    soft_span_mask,
    span_attention,
    span_penalty,
    span_reach,
    span_weights,
)
from attn.attention import scaled_dot_product_attention
from attn.kernels import span as kernel
from attn.reproduction.facts import load_papers
from attn.transformer import FeedForward, Residual
from tests.adaptive_span import reference
from tests.adaptive_span.spans import RAMP, assert_equal, both
from tests.exact import DOUBLE, gradients, random


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of 3 queries and few sequences, so that short texts take many of both."""
    monkeypatch.setattr(kernel, "QUERIES", 3)
    monkeypatch.setattr(kernel, "CPU_BLOCK", 60)


SPANS_IN_TOKENS = {
    "short and long": [0.3, 2.6, 11.7],
    "all at the start": [0.0, 0.0, 0.0],
    "whole numbers": [0.0, 5.0, 16.0],
    "all at the limit": [16.0, 16.0, 16.0],
}


def arguments(
    *,
    batch=2,
    heads=3,
    length=8,
    cached=5,
    head_dim=4,
    width=6,
    max_span=16,
    spans=(0.3, 2.6, 11.7),
    dynamic=False,
    persistent=0,
):
    """Arguments of `span_attention` that ask for gradients, and these tensors in a row."""
    tensors = [random(batch, heads, length, head_dim, seed=seed) for seed in (1, 2, 3)]
    tensors.append(random(head_dim, max_span, seed=4))
    if dynamic:
        tensors.append(max_span * torch.sigmoid(random(batch, heads, length, 1, seed=5)))
    else:
        tensors.append(torch.tensor(spans[:heads], dtype=DOUBLE)[:, None, None])
    tensors.append(random(2, heads, head_dim, width, seed=6))
    tensors += [random(heads, persistent, head_dim, seed=seed) for seed in (7, 8)]
    query, key, value, positions, span, weight, *fixed = (tensor.requires_grad_() for tensor in tensors)
    past = Past(random(batch, cached, width, seed=9), weight) if cached else None
    used = [query, key, value, positions, span, *([weight] if cached else []), *(fixed if persistent else [])]
    given = {
        "query": query, "key": key, "value": value, "past": past, "positions": positions, "span": span,
        "ramp_size": RAMP, "persistent": Persistent(*fixed) if persistent else None,
    }  # fmt: skip
    return given, used


def layer(span="adaptive", *, max_span=12, n_heads=3, head_dim=2, seed=0, **settings):
    """A sub-layer in float64 whose heads differ in span."""
    torch.manual_seed(seed)
    positions = RelativePositions(head_dim=head_dim, max_span=max_span)
    module = SpanAttention(
        d_model=n_heads * head_dim,
        n_heads=n_heads,
        positions=positions,
        span=span,
        ramp_size=RAMP,
        **settings,
    ).double()
    if span == "adaptive":
        module.span.ratio.data = torch.linspace(0.05, 0.55, n_heads, dtype=DOUBLE)
    if span == "dynamic":
        module.span.linear.bias.data = torch.linspace(-2, 0, n_heads, dtype=DOUBLE)
    return module


def read(module, text, blocks, state=None):
    """Outputs of a text read in blocks of these lengths, joined, and the last state."""
    outputs = []
    for block in text.split(blocks, dim=1):
        output, state = module(block, state)
        outputs.append(output)
    return torch.cat(outputs, dim=1), state


# --- The mask ----------------------------------------------------------------------------------------------


def test_mask_by_hand():
    # z = 3, R = 4: whole up to 3, then 3/4, 2/4, 1/4, 0, and 0 from there on
    found = soft_span_mask(torch.arange(1, 9), torch.tensor(3.0), 4)
    assert found.tolist() == [1, 1, 1, 0.75, 0.5, 0.25, 0, 0]
    spans = torch.tensor([0.0, 0.5]).view(2, 1, 1)
    assert soft_span_mask(torch.arange(1, 4), spans, 2).tolist() == [[[0.5, 0, 0]], [[0.75, 0.25, 0]]]


def test_reach_is_the_last_distance_on_which_the_mask_stands():
    spans = torch.tensor([0.0, 2.5, 3.0, 30.0]).view(4, 1, 1)
    found = span_reach(spans, RAMP, 20)
    assert found == [4, 6, 7, 20]
    distance = torch.arange(1, 100)
    for z, reach in zip(spans.flatten(), found, strict=True):
        assert (soft_span_mask(distance, z, RAMP)[:20] > 0).sum() in (reach, reach - 1)
    each = torch.tensor([[0.0, 9.5], [1.0, 1.0]]).view(1, 2, 2, 1)  # two heads, two tokens
    assert span_reach(each, RAMP, 20) == [13, 5]


@pytest.mark.parametrize("ramp_size", [0, 1, -32, 2.5, True])
def test_a_ramp_that_leaves_a_head_nothing_is_refused(ramp_size):
    message = f"ramp_size must be a whole number of at least 2 tokens; got {ramp_size!r}"
    given, _ = arguments()
    for call in (
        lambda: soft_span_mask(torch.arange(3), torch.zeros(1), ramp_size),
        lambda: span_attention(**{**given, "ramp_size": ramp_size}),
        lambda: SpanAttention(
            d_model=6, n_heads=3, positions=RelativePositions(head_dim=2, max_span=4), ramp_size=ramp_size
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()


# --- Attention ---------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("wrong", [-0.5, 16.5, 1000.0, float("nan")])
def test_a_span_that_the_positions_do_not_reach_is_refused(wrong, dynamic, fused):
    given, _ = arguments(dynamic=dynamic)
    spans = given["span"].detach().clone()
    for end in (0.0, 16.0):  # both ends are spans that there can be
        spans.flatten()[1] = end
        span_attention(**{**given, "span": spans}, fused=fused)
    spans.flatten()[1] = wrong
    message = "span must be from 0 to 16 tokens, as many as positions has columns; got "
    with pytest.raises(ValueError, match=message) as caught:
        span_attention(**{**given, "span": spans}, fused=fused)
    assert f"{wrong:g}" in str(caught.value)


def test_a_limit_that_half_precision_rounds_up_is_no_fault():
    positions = RelativePositions(head_dim=2, max_span=1003).bfloat16()
    module = SpanAttention(d_model=4, n_heads=2, positions=positions, span="fixed", fused=False).bfloat16()
    assert module.span(torch.zeros(1, 1, 4, dtype=torch.bfloat16)).max() == 1004
    outputs, _ = module(random(1, 3, 4, dtype=torch.bfloat16))
    assert outputs.isfinite().all()


@both
@pytest.mark.parametrize("persistent", [0, 3])
@pytest.mark.parametrize("cached", [0, 1, 5, 16])
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_attention_equals_the_loop(dynamic, cached, persistent, fused):
    given, _ = arguments(dynamic=dynamic, cached=cached, persistent=persistent)
    output = span_attention(**given, fused=fused)
    past, span = given["past"], given["span"].expand(2, 3, 8, 1)
    for b in range(2):
        for h in range(3):
            keys, values = (given[name][b, h].tolist() for name in ("key", "value"))
            if past is not None:
                keys, values = (
                    reference.project(past.weight[side, h].tolist(), past.hidden[b].tolist()) + own
                    for side, own in enumerate((keys, values))
                )
            fixed = [part[h].tolist() for part in given["persistent"] or ()]
            expected, *_ = reference.attention(
                given["query"][b, h].tolist(), keys, values, given["positions"].T.tolist(),
                lambda t: span[b, h, t].item(),  # noqa: B023
                RAMP, *fixed,
            )  # fmt: skip
            assert_equal(output[b, h], expected)


@pytest.mark.parametrize("persistent", [0, 3])
@pytest.mark.parametrize("cached", [0, 5, 16])
@pytest.mark.parametrize("spans", [*SPANS_IN_TOKENS.values(), "dynamic"], ids=[*SPANS_IN_TOKENS, "dynamic"])
def test_fused_equals_plain_with_every_gradient(spans, cached, persistent):
    kind = {"dynamic": True} if spans == "dynamic" else {"spans": spans}
    given, inputs = arguments(batch=3, cached=cached, persistent=persistent, **kind)
    found, expected = (span_attention(**given, fused=fused) for fused in (True, False))
    assert_equal(found, expected)
    for own, other in zip(gradients(found, inputs), gradients(expected, inputs), strict=True):
        assert_equal(own, other)
        # at the limit only the farthest key has a slope, and it may not be there
        assert own.ne(0).any() or spans == SPANS_IN_TOKENS["all at the limit"]


@both
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_gradients_are_those_of_finite_differences(dynamic, fused):
    given, inputs = arguments(
        batch=1, heads=2, length=4, cached=2, head_dim=2, width=2, max_span=6, spans=(0.3, 1.6), persistent=1,
        dynamic=dynamic,
    )  # fmt: skip

    def attend(query, key, value, positions, span, weight, *fixed):
        return span_attention(
            query, key, value, Past(given["past"].hidden, weight), positions, span, ramp_size=RAMP,
            persistent=Persistent(*fixed), fused=fused,
        )  # fmt: skip

    assert gradcheck(attend, inputs)


@both
def test_a_span_of_0_can_grow(fused):
    # Distance R has a mask of 0 there, which rises as soon as the span does.
    given, _ = arguments(spans=(0.0, 0.0, 0.0))
    given["query"] = given["query"].detach() / 10
    slope = gradients(span_attention(**given, fused=fused), [given["span"]])[0]
    step = 1e-6
    grown = {**given, "span": given["span"].detach() + step}
    weights = torch.linspace(-1, 1, 2 * 3 * 8 * 4, dtype=DOUBLE).view(2, 3, 8, 4)
    for h in range(3):
        rise = ((span_attention(**grown, fused=fused) - span_attention(**given, fused=fused)) * weights)[
            :, h
        ].sum()
        torch.testing.assert_close(slope[h].item(), rise.item() / step, rtol=1e-4, atol=1e-7)


@both
def test_the_longest_span_is_plain_attention_over_a_window(fused):
    given, _ = arguments(spans=(16.0, 16.0, 16.0), cached=16)
    given["positions"] = torch.zeros_like(given["positions"])
    past = given["past"]
    old = torch.einsum("bcd,khed->kbhce", past.hidden, past.weight)
    key, value = (
        torch.cat([before, given[name]], dim=2) for before, name in zip(old, ("key", "value"), strict=True)
    )
    distance = torch.arange(16, 24)[:, None] - torch.arange(24)
    expected, _ = scaled_dot_product_attention(given["query"], key, value, (distance >= 1) & (distance <= 16))
    assert_equal(span_attention(**given, fused=fused), expected)


def test_position_terms_equal_a_loop():
    query, positions = random(2, 3, 4, 5, seed=1), random(5, 6, seed=2)
    found = relative_scores(query, positions, 9)
    assert found.shape == (2, 3, 4, 9)
    for t in range(4):
        for r in range(9):
            distance = 5 + t - r
            assert distances(4, 9)[t, r] == distance
            if 1 <= distance <= 6:
                assert_equal(found[:, :, t, r], query[:, :, t] @ positions[:, distance - 1])


@both
@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("length", [1, 2, 7])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, DOUBLE], ids=str)
def test_the_first_token_of_all_gets_zeros_and_no_nan(dtype, length, fused):
    given, inputs = arguments(cached=0, length=length)
    given = {k: v.to(dtype) if isinstance(v, torch.Tensor) else v for k, v in given.items()}
    with torch.autograd.detect_anomaly(check_nan=True):
        output = span_attention(**given, fused=fused)
        grads = gradients(output, inputs)
    assert output.dtype == dtype
    assert output[:, :, 0].eq(0).all() and output[:, :, 1:].ne(0).all()
    assert grads[0][:, :, 0].eq(0).all()
    assert all(grad.isfinite().all() for grad in grads)


@both
def test_a_score_beyond_the_span_is_no_matter_however_large(fused):
    given, inputs = arguments(cached=5, length=8, spans=(0.3, 0.3, 0.3))
    given["query"] = given["query"].detach().requires_grad_()
    key = given["key"].detach().clone()
    expected = span_attention(**{**given, "key": key}, fused=fused)[:, :, 6:]
    key[:, :, 1] = 3000 * given["query"].detach()[:, :, 7]  # 5 and 6 tokens before the last two
    output = span_attention(**{**given, "key": key}, fused=fused)[:, :, 6:]
    assert_equal(output, expected)
    assert all(grad.isfinite().all() for grad in gradients(output, [given["query"], given["span"]]))


def test_weights_are_normalised_and_hide_the_token_itself_and_what_follows():
    given, _ = arguments(persistent=3)
    key = torch.cat([random(2, 3, 5, 4, seed=11), given["key"]], dim=2)
    context, fixed = span_weights(
        given["query"],
        key,
        given["positions"],
        given["span"],
        ramp_size=RAMP,
        persistent_key=given["persistent"].key,
    )
    assert context.shape == (2, 3, 8, 13) and fixed.shape == (2, 3, 8, 3)
    assert_equal(context.sum(-1) + fixed.sum(-1), torch.ones(2, 3, 8))
    distance = torch.arange(5, 13)[:, None] - torch.arange(13)
    assert context[..., distance < 1].eq(0).all()
    for head, reach in enumerate([4, 6, 15]):
        assert context[:, head, (distance >= 1) & (distance <= reach)].gt(0).all()
        assert context[:, head, distance > reach].eq(0).all()


@pytest.mark.parametrize("persistent", [0, 3])
def test_dropout_of_the_fused_version_is_the_same_in_both_passes(persistent):
    given, inputs = arguments(persistent=persistent)

    def attend(query, key, value, positions, span, weight, *fixed):
        torch.manual_seed(3)
        return span_attention(
            query, key, value, Past(given["past"].hidden, weight), positions, span, ramp_size=RAMP,
            persistent=Persistent(*fixed) if fixed else None, dropout=0.4, fused=True,
        )  # fmt: skip

    output = attend(*inputs)
    assert not torch.allclose(output, span_attention(**given))
    step = 1e-6
    for index, gradient in enumerate(gradients(output, inputs)):
        direction = random(*gradient.shape, seed=index)
        ends = (
            [tensor + sign * step * direction if tensor is inputs[index] else tensor for tensor in inputs]
            for sign in (1, -1)
        )
        after, before = (attend(*end).detach() for end in ends)
        weights = torch.linspace(-1, 1, output.numel(), dtype=DOUBLE).view(output.shape)
        rise = ((after - before) * weights).sum() / (2 * step)
        torch.testing.assert_close((gradient * direction).sum(), rise, rtol=1e-5, atol=1e-7)


@both
@pytest.mark.parametrize("dropout", [0.25, 0.7])
def test_dropout_removes_weights_and_raises_the_others(dropout, fused, monkeypatch):
    monkeypatch.setattr(kernel, "QUERIES", 64)
    length, width = 48, 48
    given, _ = arguments(
        batch=3, heads=3, length=length, cached=0, head_dim=width, max_span=64, spans=(0.3, 9.5, 50.0)
    )
    given["value"] = torch.eye(width, dtype=DOUBLE).expand(3, 3, -1, -1)  # the output is the weights
    given["query"] = given["query"].detach() / 10
    whole = span_attention(**given)
    torch.manual_seed(0)
    output = span_attention(**given, dropout=dropout, fused=fused)
    kept = output != 0
    torch.testing.assert_close(output[kept], whole[kept] / (1 - dropout), rtol=1e-4, atol=0)
    share = kept.double().sum() / (whole != 0).double().sum()
    assert abs(share - (1 - dropout)) < 0.03  # some 8000 weights: standard deviation 0.005
    again = span_attention(**given, dropout=dropout, fused=fused)
    assert not torch.equal(again != 0, kept)


def test_fused_keeps_less_for_the_backward_pass():
    saved = {}
    given, _ = arguments(heads=3, length=40, cached=300, max_span=300, spans=(0.0, 0.0, 280.0))
    for fused in (False, True):
        kept = {}

        def pack(tensor):
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()  # noqa: B023
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = span_attention(**given, fused=fused)
        saved[fused] = sum(kept.values())
        assert output.requires_grad
    assert saved[True] < saved[False] / 5


def test_without_gradients_the_fused_version_gives_the_same():
    given, _ = arguments()
    with torch.no_grad():
        assert_equal(span_attention(**given, fused=True), span_attention(**given))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_on_a_gpu_it_is_the_same(dynamic, dropout, monkeypatch):
    monkeypatch.undo()  # blocks as they are
    given, inputs = arguments(length=150, cached=70, max_span=100, dynamic=dynamic, persistent=5)

    def attend(device, query, key, value, positions, span, weight, *fixed):
        torch.manual_seed(3)
        return span_attention(
            query, key, value, Past(given["past"].hidden.to(device), weight), positions, span, ramp_size=RAMP,
            persistent=Persistent(*fixed), dropout=dropout, fused=device == "cuda" or bool(dropout),
        )  # fmt: skip

    moved = [tensor.detach().cuda().requires_grad_() for tensor in inputs]
    found = attend("cuda", *moved)
    if dropout:  # another device draws other numbers
        assert torch.equal(found, attend("cuda", *moved))
        assert not torch.allclose(found, attend("cuda", *moved[:2], 2 * moved[2], *moved[3:]))
        assert all(gradient.isfinite().all() for gradient in gradients(found, moved))
        return
    expected = attend("cpu", *inputs)
    assert_equal(found.cpu(), expected)
    for own, other in zip(gradients(found, moved), gradients(expected, inputs), strict=True):
        assert_equal(own.cpu(), other)


@both
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": random(3, 8, 4)}, r"query must have shape \[batch, heads, 1 or more .*; got \[3, 8, 4\]"),
        (
            {"query": random(2, 3, 0, 4)},
            r"query must have shape \[batch, heads, 1 or more .*; got \[2, 3, 0, 4\]",
        ),
        ({"dropout": 1.5}, r"dropout must be a number from 0 to below 1; got 1.5"),
        ({"dropout": -0.5}, r"dropout must be a number from 0 to below 1; got -0.5"),
        ({"dropout": 1.0}, r"dropout must be a number from 0 to below 1; got 1.0"),
        ({"key": random(2, 3, 7, 4)}, r"key must have shape \[2, 3, 8, 4\]; got \[2, 3, 7, 4\]"),
        ({"value": random(2, 2, 8, 4)}, r"value must have shape \[2, 3, 8, 4\]; got \[2, 2, 8, 4\]"),
        ({"positions": random(5, 16)}, r"positions must have shape \[4, 16\]; got \[5, 16\]"),
        ({"span": random(3)}, r"span must have shape \[3, 1, 1\] or \[2, 3, 8, 1\]; got \[3\]"),
        (
            {"past": Past(random(1, 5, 6), random(2, 3, 4, 6))},
            r"past.hidden must have shape \[2, 5, 6\]; got \[1, 5, 6\]",
        ),
        ({"past": Past(random(2, 5, 7), random(2, 3, 4, 6))}, r"past.weight must have shape \[2, 3, 4, 7\]"),
        (
            {"persistent": Persistent(random(2, 3, 4), random(3, 3, 4))},
            r"persistent.key must have shape \[3, 3, 4\]",
        ),
        (
            {"persistent": Persistent(random(3, 3, 4), random(3, 2, 4))},
            r"persistent.value must have shape \[3, 3, 4\]",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_named(change, message, fused):
    given, _ = arguments()
    with pytest.raises(ValueError, match=message):
        span_attention(**{**given, **change}, fused=fused)


@pytest.mark.parametrize("above", [20.0, 45.0, 69.0, 90.0])
def test_a_hidden_key_stays_hidden_until_its_score_is_far_above_the_others(above):
    """The last of the ramp has a mask of 0, which the kernel takes for MASK_FLOOR."""
    query = torch.tensor([0.0, 1.0]).view(
        1, 1, 2, 1
    )  # the second token sees the first, and the one before it
    past = Past(torch.full((1, 1, 1), above), torch.ones(2, 1, 1, 1))
    value = torch.zeros(1, 1, 2, 1)
    given = (query, torch.zeros_like(query), value, past, torch.zeros(1, 2), torch.zeros(1, 1, 1))
    plain, fused = (span_attention(*given, ramp_size=2, fused=fused)[0, 0, 1, 0] for fused in (False, True))
    assert plain == 0
    weight = kernel.MASK_FLOOR * exp(above) / (0.5 + kernel.MASK_FLOOR * exp(above))
    assert fused.item() == pytest.approx(weight * above, rel=1e-3, abs=1e-30)
    assert (fused < torch.finfo(torch.float32).eps) == (above < 52)


# --- The sub-layer -----------------------------------------------------------------------------------------

kinds = pytest.mark.parametrize("span", SPANS)


@both
@kinds
@pytest.mark.parametrize("cached", [0, 3, 12])
def test_the_sub_layer_equals_the_loop(cached, span, fused):
    module = layer(span, fused=fused)
    inputs, state = random(2, 5, 6, seed=1), random(2, cached, 6, seed=2) if cached else None
    outputs, _ = module(inputs, state)
    memory = inputs if state is None else torch.cat([state, inputs], dim=1)
    key, value = module.key_value.weight.chunk(2)
    z = module.span(inputs).expand(2, 3, 5, 1)
    for b in range(2):
        expected = reference.sub_layer(
            memory[b].tolist(), 5, module.query.weight.tolist(), key.tolist(), value.tolist(),
            module.output.weight.tolist(), 3, module.positions.table.T.tolist(),
            [lambda t, h=h: z[b, h, t].item() for h in range(3)],  # noqa: B023
            RAMP,
        )  # fmt: skip
        assert_equal(outputs[b], expected)


@both
@kinds
def test_reading_in_blocks_equals_one_long_pass(span, fused):
    module, text = layer(span, fused=fused), random(2, 40, 6, seed=1)
    whole, _ = module(text)
    for blocks in (1, 7, [3, 1, 20, 16]):
        assert_equal(read(module, text, blocks)[0], whole)


@both
@kinds
def test_the_state_is_the_last_inputs_without_gradient(span, fused):
    module, text = layer(span, fused=fused, max_span=70), random(2, 100, 6, seed=1).requires_grad_()
    kept = []
    state = None
    for block in text.split(20, dim=1):
        _, state = module(block, state)
        kept.append(state.shape[1])
    assert not state.requires_grad
    assert torch.equal(state, text[:, -state.shape[1] :])
    assert kept == [20, 40, 60, 70, 70]  # all S: a margin of 64 tokens is beyond it


def test_the_cache_shrinks_to_what_the_longest_span_needs():
    module, text = layer(max_span=1000), random(1, 1100, 6, seed=1)
    module.span.ratio.data[:] = torch.tensor([0.0, 0.1, 0.2])
    state = random(1, 1000, 6, seed=2)
    _, state = module(text[:, :50], state)
    assert state.shape[1] == cache_length(204, 1000) == 296
    assert layer("dynamic", max_span=1000)(text[:, :50], random(1, 1000, 6))[1].shape[1] == 1000


@both
def test_trimming_changes_no_output_and_no_gradient(fused):
    """The trimmed cache against one that is kept whole, and against one whose far tokens are others."""
    module, text = layer(max_span=300, fused=fused), random(1, 120, 6, seed=1)
    start = random(1, 300, 6, seed=2)
    outputs, state = read(module, text, 30, start)
    assert state.shape[1] < 300
    every = list(module.parameters())
    expected = gradients(outputs, every)
    assert expected[0].ne(0).any()
    whole, full = [], start
    for block in text.split(30, dim=1):
        whole.append(module(block, full)[0])
        full = torch.cat([full, block], dim=1)[:, -300:]
    assert_equal(torch.cat(whole, dim=1), outputs)
    for own, other in zip(gradients(torch.cat(whole, dim=1), every), expected, strict=True):
        assert_equal(own, other)
    longest = max(span_reach(module.span(text), RAMP, 300))
    start[:, :-longest] = 100.0
    assert_equal(read(module, text, 30, start)[0], outputs)
    start[:, -longest + 2] += 1.0  # one that is seen
    assert not torch.allclose(read(module, text, 30, start)[0][:, 0], outputs[:, 0])


@both
@kinds
def test_a_cache_that_does_not_exist_is_not_attended_to(span, fused):
    module, text = layer(span, fused=fused), random(2, 6, 6, seed=1)
    outputs, _ = module(text)
    assert outputs[:, 0].eq(0).all() and outputs[:, 1:].ne(0).any(-1).all()
    # the second token has one key only, so all of its weight is on the value of the first
    value = text[:, :1] @ module.key_value.weight.chunk(2)[1].T
    assert_equal(outputs[:, 1:2], value @ module.output.weight.T)
    zeros, _ = module(text, torch.zeros(2, 12, 6, dtype=DOUBLE))  # as the authors' code has it
    assert not torch.allclose(zeros[:, 1:3], outputs[:, 1:3])


@both
@kinds
def test_tokens_see_neither_themselves_nor_what_follows(span, fused):
    module, text = layer(span, fused=fused), random(2, 12, 6, seed=1)
    outputs, _ = module(text)
    changed = text.clone()
    changed[:, 5] += 1.0
    others, _ = module(changed)
    assert_equal(others[:, :5], outputs[:, :5])
    assert all(not torch.allclose(others[:, t], outputs[:, t]) for t in (5, 6))  # 5: another query
    context, _ = module.attention_maps(text)
    assert context[..., torch.ones(12, 12).triu().bool()].eq(0).all()


@kinds
def test_fused_layers_train_like_plain_ones(span):
    modules = [layer(span, fused=fused) for fused in (False, True)]
    inputs = random(2, 9, 6, seed=1).requires_grad_()
    state = random(2, 7, 6, seed=2)
    plain, fused = (gradients(module(inputs, state)[0], [inputs, *module.parameters()]) for module in modules)
    for own, other in zip(fused, plain, strict=True):
        assert_equal(own, other)


def test_attention_maps_are_the_weights_of_the_output():
    module, inputs, state = layer(), random(2, 5, 6, seed=1), random(2, 3, 6, seed=2)
    context, fixed = module.attention_maps(inputs, state)
    assert context.shape == (2, 3, 5, 8) and fixed.shape == (2, 3, 5, 0)
    values = torch.cat([state, inputs], dim=1) @ module.key_value.weight.chunk(2)[1].T  # [B, K, H E]
    joined = torch.einsum("bhtk,bkhe->bthe", context, values.unflatten(-1, (3, 2))).flatten(2)
    assert_equal(joined @ module.output.weight.T, module(inputs, state)[0])


def test_dropout_only_while_training():
    module, inputs = layer(dropout=0.5), random(2, 9, 6, seed=1)
    assert not torch.equal(module(inputs)[0], module(inputs)[0])
    module.eval()
    assert torch.equal(module(inputs)[0], module(inputs)[0])


@both
def test_autocast_is_close_to_full_precision(fused):
    module, inputs = layer(fused=fused).float(), random(2, 9, 6, seed=1, dtype=torch.float32)
    expected, _ = module(inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, state = module(inputs)
        found.float().sum().backward()
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.05)
    assert state.dtype == torch.float32
    assert module.span.ratio.grad.isfinite().all() and module.query.weight.grad.dtype == torch.float32


def test_what_does_not_fit_a_layer_is_named():
    module = layer()
    inputs = random(2, 5, 6)
    for call, message in [
        (lambda: module(inputs[..., :5]), r"inputs must have shape \[batch, length, 6\]; got \[2, 5, 5\]"),
        (
            lambda: module(inputs, random(3, 4, 6)),
            r"state must have shape \[2, 1 to 12, 6\].*got \[3, 4, 6\]",
        ),
        (lambda: module(inputs, random(2, 4, 5)), r"state must have shape.*got \[2, 4, 5\]"),
        (
            lambda: module(inputs, random(2, 13, 6)),
            r"state must have shape \[2, 1 to 12, 6\].*got \[2, 13, 6\]",
        ),
        (lambda: module.attention_maps(inputs, random(2, 13, 6)), "state must have shape"),
        (lambda: layer(span="long"), "span must be one of adaptive, dynamic, fixed; got 'long'"),
        (lambda: layer(initial_ratio=1.5), "initial_ratio must be from 0 to 1, a share of max_span; got 1.5"),
        (lambda: layer(dropout=1.0), "dropout must be a number from 0 to below 1; got 1.0"),
        (
            lambda: RelativePositions(head_dim=2, max_span=0),
            "max_span must be a whole number of at least 1; got 0",
        ),
        (lambda: layer("dynamic").current_spans(), "inputs must be given where span is 'dynamic'"),
        (
            lambda: SpanAttention(d_model=8, n_heads=3, positions=module.positions),
            "d_model must be n_heads times the head_dim = 2 of positions; got d_model=8 and n_heads=3",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("fused", [True, False])
def test_a_span_that_is_no_finite_number_is_named(fused):
    adaptive, dynamic = (layer(span, fused=fused) for span in ("adaptive", "dynamic"))
    adaptive.span.ratio.data[1] = float("nan")
    dynamic.span.linear.bias.data[1] = float("nan")
    for module in (adaptive, dynamic):
        with pytest.raises(
            ValueError, match=r"span must be from 0 to 12 tokens for every head; got \[[\d.]+, nan, "
        ):
            module(random(2, 5, 6))
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="span must be from 0 to 9 tokens for every head"):
            span_reach(torch.tensor([1.0, wrong]).view(2, 1, 1), 4, 9)


# --- Spans -------------------------------------------------------------------------------------------------


def test_spans_start_at_0_and_can_start_at_the_limit():
    positions = RelativePositions(head_dim=2, max_span=100)
    for kind, initial, expected in [("adaptive", 0.0, 32), ("adaptive", 1.0, 100), ("fixed", 0.0, 100)]:
        module = SpanAttention(d_model=4, n_heads=2, positions=positions, span=kind, initial_ratio=initial)
        assert module.current_spans().tolist() == [expected] * 2
    module = SpanAttention(d_model=4, n_heads=2, positions=positions, span="dynamic")
    found = module.current_spans(torch.zeros(1, 3, 4))
    assert found.shape == (1, 2, 3)
    torch.testing.assert_close(found, torch.full((1, 2, 3), 100 / (1 + exp(4)) + 32))


def test_reported_spans_hold_the_ramp_and_end_at_the_limit():
    assert reported_span(torch.tensor([0.0, 10.0, 90.0]), 32, 100).tolist() == [32, 42, 100]


def test_dynamic_spans_follow_the_equation():
    module = DynamicSpan(d_model=4, n_heads=3, max_span=20).double()
    inputs = random(2, 5, 4)
    found = module(inputs)
    for head in range(3):
        v, b = module.linear.weight[head], module.linear.bias[head]
        assert_equal(found[:, head, :, 0], 20 / (1 + torch.exp(-(inputs @ v) - b)))


def test_the_penalty_is_in_tokens_and_reaches_the_spans():
    model = nn.ModuleList([layer("adaptive"), layer("dynamic"), layer("fixed")])
    inputs = random(2, 5, 6, seed=1)
    with recorded_spans(model) as spans:
        for module in model:
            module(inputs)
    assert [list(span.shape) for span in spans] == [[3, 1, 1], [2, 3, 5, 1]]
    ratio = model[0].span.ratio
    expected = 12 * ratio.mean() + model[1].span(inputs).mean()
    assert_equal(span_penalty(spans), expected)
    # lambda / M times the sum of z, of which z' is the parameter: each head's share is lambda S / M
    (0.5 * span_penalty(spans)).backward()
    assert_equal(ratio.grad, [0.5 * 12 / 3] * 3)
    assert model[1].span.linear.bias.grad.gt(0).all()
    model[0](inputs)
    assert len(spans) == 2  # nothing is recorded any more


def test_clamping_brings_spans_back_and_touches_nothing_else():
    model = nn.ModuleList([layer("adaptive"), layer("dynamic")])
    model[0].span.ratio.data = torch.tensor([-0.1, 0.3, 1.7], dtype=DOUBLE)
    assert model[0].current_spans().tolist() == pytest.approx([4, 7.6, 12])  # outside counts as the end
    before = [parameter.clone() for parameter in model.parameters()]
    clamp_spans(model)
    assert model[0].span.ratio.tolist() == [0, 0.3, 1]
    unchanged = [torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    assert unchanged.count(False) == 1


def test_spans_out_of_range_are_refused():
    for ratio in (-0.01, 1.01, float("nan"), None, "half", True):
        with pytest.raises(ValueError, match="initial_ratio must be from 0 to 1"):
            AdaptiveSpan(n_heads=2, max_span=10, initial_ratio=ratio)


@pytest.mark.parametrize("distance", [2, 6])
def test_a_span_learns_to_be_as_long_as_the_task_asks(distance, monkeypatch):
    """Returning the token so far back: the penalty takes the span down from its limit, and the task holds it."""
    monkeypatch.setattr(kernel, "QUERIES", 64)
    monkeypatch.setattr(kernel, "CPU_BLOCK", 2**20)
    torch.manual_seed(0)
    positions = RelativePositions(head_dim=8, max_span=16)
    module = SpanAttention(d_model=8, n_heads=1, positions=positions, ramp_size=2, initial_ratio=1.0)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.03)
    assert module.current_spans().item() == 16
    for _ in range(60):
        text = torch.randn(4, 24, 8)
        with recorded_spans(module) as spans:
            outputs, _ = module(text)
        cost = (outputs[:, distance:] - text[:, :-distance]).square().mean()
        (cost + 0.02 * span_penalty(spans)).backward()
        optimizer.step()
        optimizer.zero_grad()
        clamp_spans(module)
    assert cost < 0.8  # an output of zeros costs 1
    assert distance < module.current_spans().item() < distance + 3


# --- The paper's numbers -----------------------------------------------------------------------------------


def test_positions_hold_a_vector_a_distance_as_shaw_counts_them():
    """Theirs are of 2k + 1 distances, both directions and 0; ours of 1 to S alone."""
    facts = load_papers()["shaw2018relative"]
    assert facts.exact_fact("extra_params")["formula"].startswith("(2k+1) d_z per table")
    clipped, width = 16, 64
    table = RelativePositions(head_dim=width, max_span=2 * clipped + 1).table
    assert (
        f"k={clipped}: {table.shape[1]}*{table.shape[0]} = {table.numel()} per table"
        in (facts.exact_fact("extra_params")["notes"])
    )


def test_flops_by_the_papers_rule():
    small = {"n_layers": 12, "d_model": 512, "d_ff": 2048}
    large = {"n_layers": 24, "d_model": 768}
    for settings, millions in [
        ({**small, "span": 314}, 41.607),
        ({**large, "d_ff": 4096, "span": 245}, 216.65),
        ({**large, "d_ff": 3072, "span": 245}, 178.901),
        ({"n_layers": 24, "d_model": 1024, "d_ff": 3072, "span": 3800}, 438.436),
        ({"n_layers": 12, "d_model": 512, "d_ff": 2048, "span": 2100}, 63.554),
    ]:
        assert flops_per_step(**settings) / 1e6 == pytest.approx(millions, abs=5e-3)
    saved = 1 - flops_per_step(**small, span=314) / flops_per_step(**small, span=8192)
    assert saved == pytest.approx(0.699, abs=5e-4)
    for span, feed_forward in [(256, 61.5), (1024, 50.0), (8192, 18.2)]:
        rest = flops_per_step(**{**small, "d_ff": 0}, span=span)
        assert 100 * (1 - rest / flops_per_step(**small, span=span)) == pytest.approx(feed_forward, abs=0.05)
    # all-attention: N persistent vectors cost what a feed-forward layer of width N does
    assert flops_per_step(n_layers=1, d_model=8, span=10, n_persistent=30) == flops_per_step(
        n_layers=1, d_model=8, span=10, d_ff=30
    )


@pytest.mark.parametrize(
    ("n_layers", "d_model", "d_ff", "n_heads", "max_span", "vocab_size", "expected"),
    [
        (12, 512, 2048, 8, 8192, 28, 38_357_116),
        (12, 512, 2048, 8, 8192, 206, 38_539_566),
        (24, 768, 4096, 8, 8192, 28, 208_638_172),
        (24, 768, 4096, 8, 8192, 206, 208_911_758),
        (8, 256, 1024, 4, 1024, 206, 6_481_134),
    ],
)
def test_parameters_of_the_papers_models(n_layers, d_model, d_ff, n_heads, max_span, vocab_size, expected):
    with torch.device("meta"):
        positions = RelativePositions(head_dim=d_model // n_heads, max_span=max_span)
        model = nn.ModuleList([nn.Embedding(vocab_size, d_model), nn.Linear(d_model, vocab_size)])
        for _ in range(n_layers):
            model.append(SpanAttention(d_model=d_model, n_heads=n_heads, positions=positions))
            model.append(FeedForward(d_model=d_model, d_ff=d_ff))
            model.extend(Residual(d_model=d_model, dropout=0, norm_position="post") for _ in range(2))
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


@pytest.mark.parametrize("max_span", [16, 100, 1024, 8192])
def test_cache_length_is_the_published_rule(max_span):
    for longest in {1, 32, 33, 95, 96, 97, max_span // 2, max_span}:
        if longest <= max_span:
            rule = min(max_span, max_span - 64 * ((max_span - longest) // 64) + 64)
            assert longest <= cache_length(longest, max_span) == rule <= max_span


def test_weights_start_as_the_recipe_says():
    torch.manual_seed(0)
    positions = RelativePositions(head_dim=64, max_span=300)
    module = SpanAttention(d_model=128, n_heads=2, positions=positions)
    assert positions.table.std().item() == pytest.approx(1, rel=0.02)
    limit = 128**-0.5
    for linear in (module.query, module.key_value, module.output):
        assert linear.bias is None
        assert 0.98 * limit < linear.weight.abs().max() <= limit
        assert linear.weight.std().item() == pytest.approx(limit / 3**0.5, rel=0.02)
    assert module.span.ratio.tolist() == [0, 0]
