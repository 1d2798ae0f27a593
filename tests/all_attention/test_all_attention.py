from math import exp

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attn.adaptive_span import Persistent, RelativePositions, SpanAttention
from attn.all_attention import (
    VARIANTS,
    AllAttention,
    PersistentVectors,
    feed_forward_as_persistent,
    persistent_attention,
    softmax_feed_forward,
)
from attn.kernels import span as kernel
from tests.adaptive_span import reference
from tests.adaptive_span.spans import RAMP, assert_equal, both
from tests.exact import DOUBLE, gradients, random

variants = pytest.mark.parametrize("variant", VARIANTS)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of 3 queries and few sequences, so that short texts take many of both."""
    monkeypatch.setattr(kernel, "QUERIES", 3)
    monkeypatch.setattr(kernel, "CPU_BLOCK", 100)


def layer(
    n_persistent=5, *, kind=AllAttention, span="adaptive", max_span=12, n_heads=4, head_dim=2, **settings
):
    """A sub-layer in float64 whose heads differ in span; the same weights whatever the settings."""
    torch.manual_seed(0)
    positions = RelativePositions(head_dim=head_dim, max_span=max_span)
    own = {"n_persistent": n_persistent} if kind is AllAttention else {}
    module = kind(
        d_model=n_heads * head_dim,
        n_heads=n_heads,
        positions=positions,
        span=span,
        ramp_size=RAMP,
        **own,
        **settings,
    ).double()
    if span == "adaptive":
        ratio = module.span.ratio
        ratio.data = torch.linspace(0.05, 0.55, len(ratio), dtype=DOUBLE)
    if span == "dynamic":
        module.span.linear.bias.data += 3
    return module


def inputs_and_state(cached=7, length=6):
    return random(2, length, 8, seed=1), random(2, cached, 8, seed=2) if cached else None


# --- Feed-forward layers as attention ----------------------------------------------------------------------


def test_a_feed_forward_layer_with_a_softmax_is_attention_over_fixed_pairs():
    inputs, expand, contract = random(2, 5, 6, seed=1), random(9, 6, seed=2), random(6, 9, seed=3)
    expected = softmax_feed_forward(inputs, expand, contract)
    for b in range(2):
        for t in range(5):
            powers = [exp(v @ inputs[b, t]) for v in expand]
            pairs = zip(powers, contract.T, strict=True)
            assert_equal(expected[b, t], sum(power / sum(powers) * u for power, u in pairs))
    persistent = feed_forward_as_persistent(expand, contract)
    assert_equal(persistent_attention(inputs[:, None], persistent)[:, 0], expected)


def test_with_relu_it_is_the_feed_forward_layer_itself():
    inputs, expand, contract = random(2, 5, 6, seed=1), random(9, 6, seed=2), random(6, 9, seed=3)
    persistent = feed_forward_as_persistent(expand, contract)
    found = persistent_attention(inputs[:, None], persistent, activation="relu")
    assert_equal(found[:, 0], F.linear(F.relu(F.linear(inputs, expand)), contract))


@pytest.mark.parametrize("activation", ["softmax", "relu"])
def test_persistent_attention_drops_weights_and_raises_the_others(activation):
    query = random(2, 3, 40, 4, seed=1)
    persistent = Persistent(random(3, 50, 4, seed=2), torch.eye(50, dtype=DOUBLE).expand(3, 50, 50))
    whole, dropped = (
        persistent_attention(query, persistent, dropout=dropout, activation=activation)
        for dropout in (0.0, 0.25)
    )
    kept = dropped != 0
    assert_equal(dropped[kept], whole[kept] / 0.75)
    assert 0.7 < kept.sum() / (whole != 0).sum() < 0.8


# --- The sub-layer -----------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("span", ["adaptive", "dynamic", "fixed"])
@pytest.mark.parametrize("cached", [0, 7])
def test_the_sub_layer_equals_the_loop(cached, span, fused):
    module = layer(span=span, fused=fused)
    inputs, state = inputs_and_state(cached)
    outputs, _ = module(inputs, state)
    memory = inputs if state is None else torch.cat([state, inputs], dim=1)
    key, value = module.key_value.weight.chunk(2)
    z = module.span(inputs).expand(2, 4, 6, 1)
    # unit-variance vectors from smaller parameters
    keys, values = module.persistent.key * 2**0.5, module.persistent.value * 5**0.5
    for b in range(2):
        expected = reference.sub_layer(
            memory[b].tolist(), 6, module.query.weight.tolist(), key.tolist(), value.tolist(),
            module.output.weight.tolist(), 4, module.positions.table.T.tolist(),
            [lambda t, h=h: z[b, h, t].item() for h in range(4)],  # noqa: B023
            RAMP, [(keys[h].tolist(), values[h].tolist()) for h in range(4)],
        )  # fmt: skip
        assert_equal(outputs[b], expected)


@both
@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "head-split"])
def test_without_persistent_vectors_it_is_plain_attention(variant, fused):
    ours, plain = layer(0, variant=variant, fused=fused), layer(kind=SpanAttention, fused=fused)
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in plain.named_parameters()]
    inputs, state = inputs_and_state()
    found, new_state = ours(inputs, state)
    expected, plain_state = plain(inputs, state)
    assert torch.equal(found, expected) and torch.equal(new_state, plain_state)
    assert ours.attention_maps(inputs, state)[1].shape == (2, 4, 6, 0)


@variants
@pytest.mark.parametrize("span", ["adaptive", "dynamic"])
def test_fused_equals_plain_with_every_gradient(span, variant):
    inputs, state = inputs_and_state()
    inputs.requires_grad_()
    results = []
    for fused in (False, True):
        module = layer(variant=variant, span=span, fused=fused)
        outputs, _ = module(inputs, state)
        results.append([outputs, *gradients(outputs, [inputs, *module.parameters()])])
    for plain, fused in zip(*results, strict=True):
        assert_equal(fused, plain)
        assert plain.ne(0).any()


@both
@variants
def test_reading_in_blocks_equals_one_long_pass(variant, fused):
    module, text = layer(variant=variant, fused=fused), random(2, 30, 8, seed=1)
    whole, _ = module(text)
    state, outputs = None, []
    for block in text.split([1, 9, 20], dim=1):
        output, state = module(block, state)
        outputs.append(output)
    assert_equal(torch.cat(outputs, dim=1), whole)


@both
def test_the_first_token_has_its_persistent_vectors_alone(fused):
    module, (inputs, _) = layer(fused=fused), inputs_and_state()
    query = module.query(inputs[:, :1]).unflatten(-1, (4, 2)).transpose(1, 2)
    alone = persistent_attention(query, module.persistent()).transpose(1, 2).flatten(2)
    for length in (1, 6):
        assert_equal(module(inputs[:, :length])[0][:, :1], module.output(alone))


@both
def test_no_span_hides_persistent_vectors(fused):
    module, (inputs, state) = layer(fused=fused), inputs_and_state()
    module.span.ratio.data[:] = 0
    before, _ = module(inputs, state)
    for index in (0, 4):  # the first and the last of each head
        module.persistent.value.data[:, index] += 1
        after, _ = module(inputs, state)
        assert (after != before).any(-1).all()
        before = after


def test_maps_share_one_normalisation():
    module, (inputs, state) = layer(), inputs_and_state()
    context, fixed = module.attention_maps(inputs, state)
    assert context.shape == (2, 4, 6, 13) and fixed.shape == (2, 4, 6, 5)
    assert_equal(context.sum(-1) + fixed.sum(-1), torch.ones(2, 4, 6))
    value = torch.cat([state, inputs], dim=1) @ module.key_value.weight.chunk(2)[1].T
    joined = torch.einsum("bhtk,bkhe->bthe", context, value.unflatten(-1, (4, 2)))
    joined = joined + torch.einsum("bhtn,hne->bthe", fixed, module.persistent().value)
    assert_equal(module.output(joined.flatten(2)), module(inputs, state)[0])


# --- Variants ----------------------------------------------------------------------------------------------


def heads(module, inputs, state):
    """What each head contributes, before the output projection [B, T, H, E]."""
    module.output.weight.data = torch.eye(8, dtype=DOUBLE)
    return module(inputs, state)[0].unflatten(-1, (4, 2))


def queries(module, inputs):
    return module.query(inputs).unflatten(-1, (4, 2)).transpose(1, 2)


@both
@pytest.mark.parametrize(("variant", "activation"), [("attn-split", "softmax"), ("ff-attn", "relu")])
def test_split_variants_add_two_attentions(variant, activation, fused):
    inputs, state = inputs_and_state()
    module = layer(variant=variant, fused=fused)
    context = heads(layer(0, fused=fused), inputs, state)
    fixed = persistent_attention(queries(module, inputs), module.persistent(), activation=activation)
    assert_equal(heads(module, inputs, state), context + fixed.transpose(1, 2))


@both
def test_half_of_the_heads_or_all_see_the_context(fused):
    inputs, state = inputs_and_state()
    module = layer(variant="head-split", fused=fused)
    found = heads(module, inputs, state)
    assert module.persistent.key.shape == (2, 10, 2) and len(module.span.ratio) == 2
    other, _ = module(inputs, state + 1.0)
    changed = (other.unflatten(-1, (4, 2)) != found).any(-1)  # [B, T, H]
    assert changed[..., :2].any() and not changed[..., 2:].any()
    fixed = persistent_attention(queries(module, inputs)[:, 2:], module.persistent())
    assert_equal(found[:, :, 2:], fixed.transpose(1, 2))


@both
def test_a_single_head_can_have_all_the_vectors(fused):
    inputs, state = inputs_and_state()
    module = layer(variant="single-head", fused=fused)
    found = heads(module, inputs, state)
    assert module.persistent.key.shape == (1, 20, 2)
    assert_equal(found[:, :, 1:], heads(layer(0, fused=fused), inputs, state)[:, :, 1:])
    joint = layer(20, fused=fused)
    for own, other in zip(joint.persistent.parameters(), module.persistent.parameters(), strict=True):
        own.data[:1] = other.data
    assert_equal(found[:, :, 0], heads(joint, inputs, state)[:, :, 0])
    alone = [layer(variant=name, n_heads=1, head_dim=8, fused=fused) for name in ("single-head", "joint")]
    assert_equal(alone[0](inputs, state)[0], alone[1](inputs, state)[0])


@variants
def test_dropout_reaches_both_parts_only_while_training(variant):
    module, (inputs, state) = layer(variant=variant, dropout=0.5), inputs_and_state()
    first, second = (heads(module, inputs, state) for _ in range(2))
    assert (first != second).any(-1).any(1).any(0).all()  # in every head
    module.eval()
    assert torch.equal(heads(module, inputs, state), heads(module, inputs, state))


# --- Parameters --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_layers", "n_persistent", "vocab_size", "expected"),
    [
        (18, 1024, 28, 38_320_300),
        (18, 1024, 206, 38_502_750),
        (36, 2048, 28, 113_836_348),
        (36, 2048, 206, 114_018_798),
    ],
)
def test_parameters_of_the_papers_models(n_layers, n_persistent, vocab_size, expected):
    with torch.device("meta"):
        positions = RelativePositions(head_dim=64, max_span=8192)
        model = nn.ModuleList([nn.Embedding(vocab_size, 512), nn.Linear(512, vocab_size)])
        for _ in range(n_layers):
            model.append(AllAttention(d_model=512, n_heads=8, positions=positions, n_persistent=n_persistent))
            model.append(nn.LayerNorm(512))
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_variants_have_as_many_persistent_parameters():
    for variant in VARIANTS:
        module = layer(variant=variant)
        assert sum(parameter.numel() for parameter in module.persistent.parameters()) == 2 * 8 * 5
    joint, split = (
        sum(p.numel() for p in layer(variant=name).parameters()) for name in ("joint", "head-split")
    )
    assert joint - split == 8 * 8 + 2  # keys and values of two heads, and their spans


def test_persistent_vectors_start_with_variance_1_and_smaller_parameters():
    torch.manual_seed(0)
    vectors = PersistentVectors(n_heads=4, n_persistent=400, head_dim=16)
    for part in vectors():
        assert part.std().item() == pytest.approx(1, rel=0.02) and abs(part.mean()) < 0.02
    assert vectors.key.std().item() == pytest.approx(16**-0.5, rel=0.02)
    assert vectors.value.std().item() == pytest.approx(400**-0.5, rel=0.02)


def test_what_does_not_fit_is_named():
    for settings, message in [
        ({"n_persistent": -1}, "n_persistent must be a whole number of at least 0; got -1"),
        ({"n_persistent": 2.0}, "n_persistent must be a whole number of at least 0; got 2.0"),
        (
            {"variant": "both"},
            "variant must be one of joint, attn-split, head-split, single-head, ff-attn; got 'both'",
        ),
        (
            {"variant": "head-split", "n_heads": 3},
            "n_heads must be even and n_persistent at least 1.*n_heads=3",
        ),
        (
            {"variant": "head-split", "n_persistent": 0},
            "n_persistent at least 1 where variant is 'head-split'",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            layer(**settings)
    with pytest.raises(ValueError, match="n_persistent must be a whole number of at least 1; got 0"):
        PersistentVectors(n_heads=2, n_persistent=0, head_dim=4)
    query, pairs = random(1, 2, 3, 4), Persistent(random(2, 5, 4), random(2, 5, 4))
    with pytest.raises(ValueError, match="activation must be one of softmax, relu; got 'gelu'"):
        persistent_attention(query, pairs, activation="gelu")
    for wrong, message in (
        ((query[:, :1], pairs), r"persistent.key must have shape \[1, 5, 4\]; got \[2, 5, 4\]"),
        ((query[0], pairs), r"query must have shape \[batch, heads, length, head_dim\]; got \[2, 3, 4\]"),
        (
            (query, pairs._replace(key=random(2, 5, 3))),
            r"persistent.key must have shape \[2, 5, 4\]; got \[2, 5, 3\]",
        ),
        ((query, pairs._replace(value=random(2, 6, 4))), r"persistent.value must have shape \[2, 5, 4\]"),
    ):
        with pytest.raises(ValueError, match=message):
            persistent_attention(*wrong)
    with pytest.raises(ValueError, match="dropout must be a number from 0 to below 1; got 1.5"):
        persistent_attention(query, pairs, dropout=1.5)
    module, (inputs, state) = layer(variant="attn-split"), inputs_and_state()
    with pytest.raises(ValueError, match="variant must be 'joint' for attention maps; got 'attn-split'"):
        module.attention_maps(inputs, state)
    with pytest.raises(ValueError, match=r"state must have shape \[2, 1 to 12, 8\].*got \[1, 7, 8\]"):
        module(inputs, state[:1])
