"""The sub-layers: parameters, projections, replaying, and one set of weights under several attentions."""

import pytest
import torch

from attn.language_model import Stack
from attn.lsh import lsh_attention
from attn.lsh_convention import PUBLIC, Convention
from attn.reformer import FullAttention, LocalAttention, LSHAttention
from attn.shared_qk import full_attention, local_attention
from tests.reformer.test_lsh import assert_equal, random, random_mask

SIZES = {"d_model": 12, "n_heads": 3}
LSH = {**SIZES, "chunk_len": 4, "n_rounds": 2, "n_buckets": 4}
KINDS = {
    "full": lambda **options: FullAttention(**SIZES, **options),
    "local": lambda **options: LocalAttention(**SIZES, chunk_len=4, **options),
    "lsh": lambda **options: LSHAttention(**LSH, **options),
    "lsh plain": lambda **options: LSHAttention(**LSH, fused=False, **options),
}
kinds = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


def filled(module, seed=0):
    with torch.no_grad():
        for index, parameter in enumerate(module.double().parameters()):
            parameter.copy_(0.4 * random(*parameter.shape, seed=100 * seed + index))
    return module


def by_hand(module, inputs, attend):
    """The sub-layer with its projections taken apart."""
    rows = module.projection.weight.split(12)
    query, *key, value = ((inputs @ part.T).view(2, -1, 3, 4).transpose(1, 2) for part in rows)
    output = attend(query, key[0] if key else query, value)
    return output.transpose(1, 2).reshape(2, -1, 12) @ module.output.weight.T


@pytest.mark.parametrize("shared_qk", [True, False])
@pytest.mark.parametrize("switches", [{}, {"unit_keys": False}, {"self_last": False}, {"unit_keys": True}])
def test_full_and_local_attention_equal_their_parts(switches, shared_qk):
    inputs, mask = random(2, 10, 12), random_mask(2, 10)
    options = {"is_causal": True, "unit_keys": shared_qk, "self_last": shared_qk} | switches
    full, local = (filled(KINDS[kind](shared_qk=shared_qk, **switches)) for kind in ("full", "local"))
    assert full.projection.weight.shape == (24 if shared_qk else 36, 12)
    expected = by_hand(full, inputs, lambda q, k, v: full_attention(q, k, v, mask, **options))
    assert_equal(full(inputs, mask), expected)
    expected = by_hand(local, inputs, lambda q, k, v: local_attention(q, k, v, mask, chunk_len=4, **options))
    assert_equal(local(inputs, mask), expected)


@pytest.mark.parametrize("fused", [True, False])
def test_lsh_attention_equals_its_parts(fused):
    module = filled(LSHAttention(**LSH, convention=PUBLIC, scale=0.5, is_causal=False, fused=fused))
    inputs, mask = random(2, 10, 12), random_mask(2, 10)
    buckets = module.buckets(inputs, generator=torch.Generator().manual_seed(0))
    assert buckets.shape == (2, 3, 2, 10)
    expected = by_hand(
        module,
        inputs,
        lambda q, k, v: lsh_attention(q, v, buckets, mask, chunk_len=4, scale=0.5, convention=PUBLIC),
    )
    assert_equal(module(inputs, mask, buckets=buckets), expected)
    assert_equal(module(inputs, mask, generator=torch.Generator().manual_seed(0)), expected)
    rotations = module.rotations(module.project(inputs)[0], torch.Generator().manual_seed(0))
    assert_equal(module(inputs, mask, rotations=rotations), expected)


@kinds
def test_dense_weights_take_the_sums(make):
    module, inputs, mask = filled(make()), random(2, 10, 12), random_mask(2, 10)
    given = {"buckets": module.buckets(inputs)} if isinstance(module, LSHAttention) else {}
    weights = module.attention_weights(inputs, mask, **given)
    assert weights.shape == (2, 3, 10, 10)
    expected = by_hand(module, inputs, lambda query, key, value: weights @ value)
    assert_equal(module(inputs, mask, **given), expected)
    assert not weights.triu(1).any()


def test_all_attentions_share_one_layout_of_parameters():
    states = {kind: make().state_dict() for kind, make in KINDS.items()}
    assert len({tuple((name, p.shape) for name, p in state.items()) for state in states.values()}) == 1
    trained = filled(FullAttention(**SIZES))
    inputs = random(2, 10, 12)
    # One bucket and one chunk: hashing that leaves nothing out gives what the full attention gives.
    other = LSHAttention(**SIZES, chunk_len=10, n_rounds=3).double()
    other.load_state_dict(trained.state_dict())
    assert_equal(other(inputs, buckets=torch.zeros(2, 3, 3, 10, dtype=torch.int64)), trained(inputs))


def test_more_rounds_at_evaluation_come_nearer_to_full_attention():
    torch.manual_seed(0)
    full = FullAttention(d_model=16, n_heads=2)
    hashed = LSHAttention(d_model=16, n_heads=2, chunk_len=8, n_rounds=1, n_buckets=8)
    hashed.load_state_dict(full.state_dict())
    inputs = 3 * torch.randn(4, 64, 16)
    errors = []
    for hashed.n_rounds in (1, 4, 16):
        torch.manual_seed(1)
        errors.append((hashed(inputs) - full(inputs)).square().mean().item())
    assert errors[0] > 1.5 * errors[1] > 2 * errors[2]


def test_every_call_hashes_anew_and_the_default_generator_replays_it():
    module = LSHAttention(**LSH)
    inputs = random(2, 40, 12).float()
    torch.manual_seed(0)
    first, second = module(inputs), module(inputs)
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(module(inputs), first)
    state = torch.get_rng_state()
    module(inputs, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("length", [1, 3, 8, 40])
def test_buckets_follow_the_length_unless_given(length):
    module = LSHAttention(**SIZES, chunk_len=4, n_rounds=2)
    query = torch.zeros(1, 3, length, 4)
    (rotation,) = module.rotations(query)
    assert rotation.shape == (3, 2, 4, -(-length // 4))
    assert module(random(1, length, 12).float()).shape == (1, length, 12)


@kinds
def test_gradients_reach_every_parameter_and_only_earlier_inputs(make):
    module = filled(make())
    inputs = random(1, 9, 12).requires_grad_()
    given = (
        {"buckets": torch.zeros(1, 3, 2, 9, dtype=torch.int64)} if isinstance(module, LSHAttention) else {}
    )
    (gradient,) = torch.autograd.grad(module(inputs, **given)[:, 6].sum(), inputs)
    assert not gradient[:, 7:].any() and gradient[:, :7].flatten(2).any(-1).all()
    module(inputs, **given).square().sum().backward()
    for parameter in module.parameters():
        assert parameter.grad.flatten(1).any(-1).all()


@kinds
def test_a_sub_layer_of_the_trunk(make):
    stack = Stack([[make()]], d_model=12)
    outputs, state = stack(random(2, 10, 12).float())
    assert outputs.shape == (2, 10, 12) and state is None


def test_starts_and_biases():
    module = FullAttention(d_model=40, n_heads=4, head_dim=5, value_dim=7, use_bias=True)
    assert module.projection.weight.shape == (4 * 5 + 4 * 7, 40)
    bound = (6 / (40 + 48)) ** 0.5
    assert 0.95 * bound < module.projection.weight.abs().max() <= bound
    assert not module.projection.bias.any() and not module.output.bias.any()
    # the replication's synthetic model: a layer's attention has 3 D^2 weights with shared queries and keys, else 4 D^2
    for shared_qk, matrices in ((True, 3), (False, 4)):
        module = FullAttention(d_model=256, n_heads=4, shared_qk=shared_qk)
        assert sum(p.numel() for p in module.parameters()) == matrices * 256**2


@pytest.mark.parametrize("kind", ["lsh", "lsh plain", "full", "local"])
def test_autocast_is_close_to_full_precision(kind):
    module = filled(KINDS[kind]()).float()
    inputs = random(2, 10, 12).float()
    given = {"buckets": module.buckets(inputs)} if kind.startswith("lsh") else {}
    expected = module(inputs, **given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = module(inputs, **given)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.05)
    found.float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_heads": 5}, "d_model must be divisible by n_heads.*d_model=12 and n_heads=5"),
        ({"head_dim": 0}, "head_dim must be a whole number of at least 1; got 0"),
        ({"chunk_len": 0}, "chunk_len must be a whole number of at least 1; got 0"),
        ({"n_rounds": 0}, "n_rounds must be a whole number of at least 1; got 0"),
        ({"n_buckets": 7}, "n_buckets must be even.*got 7, the nearest are 6 and 8"),
        ({"n_buckets": (4, 3)}, "n_buckets must be even.*got 3, the nearest are 2 and 4"),
        (
            {"convention": Convention(same_bucket=False, wrap=True)},
            "the fused version must not count pairs once",
        ),
    ],
)
def test_wrong_sizes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        LSHAttention(**(LSH | changes))


def test_wrong_inputs_are_refused():
    module = LSHAttention(**LSH)
    with pytest.raises(ValueError, match=r"inputs must have shape \[batch, length, 12\]; got \[2, 3\]"):
        module(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="mask must have shape"):
        module(torch.zeros(2, 3, 12), torch.ones(2, 1, 1, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="buckets must be a tensor"):
        module(torch.zeros(2, 3, 12), buckets=[1])
    with pytest.raises(ValueError, match="inputs must have at least one token; got length 0"):
        LocalAttention(**SIZES, chunk_len=4)(torch.zeros(2, 0, 12))
    module.n_rounds = 0
    with pytest.raises(ValueError, match="n_rounds must be"):
        module(torch.zeros(2, 3, 12))
