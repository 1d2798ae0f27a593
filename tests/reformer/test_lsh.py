"""Hashing, sorting and the attentions, one function at a time."""

import itertools
from math import prod

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from attn.lsh import default_buckets, hash_vectors, lsh_attention, random_rotations, sort_by_bucket
from attn.lsh_convention import PAPER, PUBLIC, Convention
from attn.reformer import LSHAttention
from attn.shared_qk import full_attention, local_attention, shared_qk_attention, unit
from tests.reformer import reference

DOUBLE = torch.float64
# float64 against float64: only the order of sums differs, and the floor under lengths of vectors
EXACT = {"rtol": 1e-9, "atol": 1e-10}
# length and chunk length: one token, below a chunk, one chunk, one token too many, whole chunks, chunks of one token
LENGTHS = [(1, 4), (3, 4), (13, 4), (4, 4), (7, 1), (12, 3)]
CONVENTIONS = [Convention(*choice) for choice in itertools.product([True, False], repeat=3)]
causal = pytest.mark.parametrize("is_causal", [False, True], ids=["both ways", "causal"])


def name(convention):
    return " ".join(field for field, chosen in convention._asdict().items() if chosen) or "nothing"


conventions = pytest.mark.parametrize("convention", CONVENTIONS, ids=name)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def random_buckets(*shape, n_buckets=3, seed=0):
    return torch.randint(n_buckets, shape, generator=torch.Generator().manual_seed(seed))


def random_mask(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.7


def rotations_for(n_buckets=4, n_rounds=3, n_heads=2, head_dim=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return random_rotations(
        n_buckets, n_rounds=n_rounds, n_heads=n_heads, head_dim=head_dim, generator=generator
    )


def assert_equal(found, expected):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=found.dtype), **EXACT)


# --- Hashing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_buckets", [2, 6, (4, 6), (2, 2, 4)], ids=str)
def test_hashes_equal_the_loop(n_buckets):
    rotations = rotations_for(n_buckets)
    vectors = random(2, 2, 7, 5)
    buckets = hash_vectors(vectors, rotations)
    assert buckets.shape == (2, 2, 3, 7) and buckets.dtype == torch.int64
    for b, h, r, t in itertools.product(range(2), range(2), range(3), range(7)):
        expected = reference.hash_vector(
            vectors[b, h, t].tolist(), [rotation[h, r].tolist() for rotation in rotations]
        )
        assert buckets[b, h, r, t] == expected
    assert buckets.max() < (n_buckets if isinstance(n_buckets, int) else prod(n_buckets))


def test_a_hash_by_hand():
    rotation = torch.eye(2, dtype=DOUBLE).view(1, 1, 2, 2)  # four buckets: east, north, west, south
    vectors = torch.tensor([[3.0, 1], [-1, 2], [-9, 8], [0.1, -0.2]], dtype=DOUBLE).view(1, 1, 4, 2)
    assert hash_vectors(vectors, [rotation]).flatten().tolist() == [0, 1, 2, 3]
    assert hash_vectors(-vectors, [rotation]).flatten().tolist() == [2, 3, 0, 1]
    # a digit of four, then a digit of two
    assert hash_vectors(vectors, [rotation, rotation[..., :1]]).flatten().tolist() == [0, 1 + 4, 2 + 4, 3]


def test_a_bucket_does_not_depend_on_length_so_queries_and_keys_share_it():
    vectors, rotations = random(2, 2, 50, 5), rotations_for((4, 4))
    factor = random(2, 2, 50, 1, seed=1).abs() + 0.01
    assert torch.equal(hash_vectors(vectors, rotations), hash_vectors(vectors * factor, rotations))
    assert torch.equal(hash_vectors(vectors, rotations), hash_vectors(unit(vectors), rotations))


def test_rotations_come_from_the_generator_alone():
    state = torch.get_rng_state()
    first, second, other = rotations_for(seed=3), rotations_for(seed=3), rotations_for(seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first[0], second[0]) and not torch.equal(first[0], other[0])
    sizes = {"n_rounds": 2, "n_heads": 3, "head_dim": 7}
    torch.manual_seed(0)
    drawn = random_rotations((4, 6), **sizes)
    assert [rotation.shape for rotation in drawn] == [(3, 2, 7, 2), (3, 2, 7, 3)]
    torch.manual_seed(0)
    assert torch.equal(random_rotations((4, 6), **sizes)[1], drawn[1])


@pytest.mark.parametrize(
    ("length", "chunk_len", "expected"),
    [
        (1, 64, (2,)),
        (64, 64, (2,)),
        (65, 64, (4,)),
        (1024, 64, (32,)),
        (4096, 64, (128,)),
        (2**16, 128, (32, 32)),
    ],
)
def test_default_number_of_buckets(length, chunk_len, expected):
    assert default_buckets(length, chunk_len) == expected


@pytest.mark.parametrize("length", [4097, 5000, 30_000, 65_535])
def test_many_buckets_are_two_even_factors_of_about_the_right_product(length):
    first, second = default_buckets(length, 64)
    wanted = 2 * length / 64
    assert first % 2 == second % 2 == 0
    assert wanted <= first * second <= 1.15 * wanted and max(first, second) <= 1.5 * min(first, second)


# --- Sorting -----------------------------------------------------------------------------------------------------


def test_order_is_by_bucket_then_position_with_padding_last():
    buckets = random_buckets(2, 2, 3, 11)
    mask = random_mask(2, 11)
    order = sort_by_bucket(buckets, mask)
    for b, h, r in itertools.product(range(2), range(2), range(3)):
        row = buckets[b, h, r].tolist()
        expected = sorted(range(11), key=lambda i: (not mask[b, i], row[i] if mask[b, i] else 0, i))  # noqa: B023
        assert order[b, h, r].tolist() == expected
    assert torch.equal(sort_by_bucket(buckets), sort_by_bucket(buckets, torch.ones(2, 11, dtype=torch.bool)))


# --- LSH attention -------------------------------------------------------------------------------------------------


@conventions
@causal
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("length", "chunk_len"), LENGTHS)
def test_lsh_attention_equals_the_sets(length, chunk_len, padded, is_causal, convention):
    query, value = random(2, 1, length, 3), random(2, 1, length, 2, seed=1)
    n_rounds = 1 if length in (3, 12) else 3
    buckets = random_buckets(2, 1, n_rounds, length)
    mask = random_mask(2, length) if padded else None
    output = lsh_attention(
        query,
        value,
        buckets,
        mask,
        chunk_len=chunk_len,
        is_causal=is_causal,
        scale=0.7,
        convention=convention,
    )
    for b in range(2):
        is_token = mask[b].tolist() if padded else [True] * length
        met = reference.pairs_met(buckets[b, 0].tolist(), is_token, chunk_len, is_causal, *convention)
        assert_equal(output[b, 0], reference.attention(query[b, 0].tolist(), value[b, 0].tolist(), met, 0.7))


@causal
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("n_rounds", [1, 3])
def test_one_bucket_and_one_chunk_equal_full_attention(n_rounds, padded, is_causal):
    query, value = random(2, 2, 9, 5), random(2, 2, 9, 4, seed=1)
    mask = random_mask(2, 9) if padded else None
    buckets = torch.zeros(2, 2, n_rounds, 9, dtype=torch.int64)
    found = lsh_attention(query, value, buckets, mask, chunk_len=10, is_causal=is_causal, scale=0.6)
    assert_equal(found, shared_qk_attention(query, value, mask, is_causal=is_causal, scale=0.6))


def test_buckets_of_at_most_a_chunk_are_seen_whole():
    # P_i is then within the two chunks: the definition of eq. 4, wherever the borders of chunks are.
    query, value = random(1, 2, 40, 5), random(1, 2, 40, 4, seed=1)
    buckets = random_buckets(1, 2, 2, 40, n_buckets=8)
    chunk_len = max(int(row.bincount().max()) for row in buckets.flatten(0, 2))
    assert chunk_len < 20
    allowed = (buckets.unsqueeze(-1) == buckets.unsqueeze(-2)).any(2).tril(-1)  # [B, H, T, T]
    lone = ~allowed.any(-1, keepdim=True)
    products = (query @ unit(query).mT).masked_fill(~allowed, -torch.inf).masked_fill(lone, 0)
    expected = torch.where(lone, value, torch.softmax(products, -1) @ value)
    assert_equal(lsh_attention(query, value, buckets, chunk_len=chunk_len, is_causal=True), expected)


def dense(query, buckets, mask=None, **options):
    """The weights, as outputs for values of the identity matrix."""
    identity = torch.eye(query.shape[2], dtype=query.dtype).expand(*query.shape[:2], -1, -1)
    return lsh_attention(query, identity, buckets, mask, **options)


@conventions
def test_weights_are_distributions_and_the_self_is_the_last_resort(convention):
    query, buckets = random(2, 2, 21, 5), random_buckets(2, 2, 2, 21, n_buckets=6)
    weights = dense(query, buckets, chunk_len=3, is_causal=True, convention=convention)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 21, dtype=DOUBLE))
    own = weights.diagonal(dim1=-2, dim2=-1)
    assert ((own == 1) | (own == 0)).all()
    assert (own[..., 0] == 1).all()  # the first token has no other
    assert (own[..., 1:] == 0).any()


def test_a_pair_met_in_every_round_counts_once():
    # Query 2 meets key 0 in both rounds and key 1 in the second one; all products are equal.
    query = torch.ones(1, 1, 3, 2, dtype=DOUBLE)
    buckets = torch.tensor([[0, 1, 0], [0, 0, 0]]).view(1, 1, 2, 3)
    once = dense(query, buckets, chunk_len=3, is_causal=True)[0, 0, 2]
    each_time = dense(query, buckets, chunk_len=3, is_causal=True, convention=Convention(count_once=False))[
        0, 0, 2
    ]
    assert_equal(once, [1 / 2, 1 / 2, 0])
    assert_equal(each_time, [2 / 3, 1 / 3, 0])


def test_what_the_public_conventions_let_in():
    # Chunks of 2: buckets 0 0 1 1 | the second round in reverse order.
    query = torch.ones(1, 1, 4, 2, dtype=DOUBLE)
    buckets = torch.tensor([[0, 0, 1, 1], [1, 1, 0, 0]]).view(1, 1, 2, 4)
    seen = {
        name(convention): (dense(query, buckets, chunk_len=2, convention=convention)[0, 0] > 0).int().tolist()
        for convention in (PAPER, Convention(same_bucket=False), PUBLIC)
    }
    assert seen["same_bucket count_once"] == [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]
    # one chunk back: 2 and 3 see 0 and 1 in the first round, 0 and 1 see 2 and 3 in the second
    everything = [[0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]]
    assert seen["count_once"] == seen["wrap"] == everything
    one_round = dense(query, buckets[:, :, :1], chunk_len=2, convention=PUBLIC)[0, 0] > 0
    assert one_round[0].tolist() == [False, True, True, True]  # the first chunk looks back at the last one


@conventions
def test_nothing_flows_back_from_later_tokens(convention):
    query, value = random(1, 2, 15, 5).requires_grad_(), random(1, 2, 15, 4, seed=1).requires_grad_()
    buckets = random_buckets(1, 2, 2, 15)
    output = lsh_attention(query, value, buckets, chunk_len=4, is_causal=True, convention=convention)
    for t in (0, 4, 9):
        for gradient in torch.autograd.grad(output[:, :, t].sum(), (query, value), retain_graph=True):
            assert not gradient[:, :, t + 1 :].any()
            assert gradient[:, :, : t + 1].any() or t == 0


def test_a_later_token_moves_the_borders_of_chunks_only_where_a_bucket_overflows():
    query, value = random(1, 1, 24, 5), random(1, 1, 24, 4, seed=1)
    buckets = (torch.arange(24) % 6).view(1, 1, 1, 24)  # 4 tokens a bucket
    moved = buckets.clone()
    moved[..., -1] = 0  # the last token: buckets of at most 5 tokens, all later borders one further
    run = {
        (chunk_len, convention): [
            lsh_attention(query, value, b, chunk_len=chunk_len, is_causal=True, convention=convention)[
                :, :, :-1
            ]
            for b in (buckets, moved)
        ]
        for chunk_len in (2, 5)
        for convention in (PAPER, PUBLIC)
    }
    assert_equal(*run[5, PAPER])
    for others in [(2, PAPER), (2, PUBLIC), (5, PUBLIC)]:
        assert not torch.allclose(*run[others])


@conventions
@causal
def test_what_padding_holds_and_how_much_of_it_there_is_makes_no_difference(is_causal, convention):
    query, value = random(1, 2, 10, 5), random(1, 2, 10, 4, seed=1)
    buckets = random_buckets(1, 2, 2, 10)
    options = {"chunk_len": 4, "is_causal": is_causal, "convention": convention}
    mask = torch.tensor([[True] * 3 + [False] + [True] * 5 + [False]])
    output = lsh_attention(query, value, buckets, mask, **options)
    hidden = ~mask[:, None, :, None]
    other = lsh_attention(
        query.masked_fill(hidden, 50),
        value.masked_fill(hidden, -99),
        buckets.masked_fill(hidden.mT, 0),
        mask,
        **options,
    )
    assert torch.equal(output, other)
    assert not output[:, :, ~mask[0]].any()
    if convention.wrap and not convention.same_bucket:
        return  # what the first chunk looks back at is the end of a sequence, with as much padding as it has
    tokens = mask[0]
    alone = lsh_attention(query[:, :, tokens], value[:, :, tokens], buckets[..., tokens], **options)
    assert_equal(output[:, :, tokens], alone)


def test_more_rounds_find_more_of_the_true_neighbours():
    generator = torch.Generator().manual_seed(0)
    query = unit(torch.randn(1, 1, 256, 8, generator=generator, dtype=DOUBLE))
    identity = torch.eye(256, dtype=DOUBLE).expand(1, 1, -1, -1)
    nearest = shared_qk_attention(query, identity).topk(4, dim=-1).indices
    found = []
    for n_rounds in (1, 2, 4, 8, 16):
        rotations = rotations_for(16, n_rounds=n_rounds, n_heads=1, head_dim=8, seed=n_rounds)
        seen = dense(query, hash_vectors(query, rotations), chunk_len=32) > 0
        found.append(seen.gather(-1, nearest).double().mean().item())
    assert found == sorted(found)
    assert found[0] < 0.5 < 0.9 < found[-1]


@conventions
@causal
def test_gradients_of_lsh_attention(is_causal, convention):
    query, value = random(1, 1, 7, 3).requires_grad_(), random(1, 1, 7, 2, seed=1).requires_grad_()
    buckets, mask = random_buckets(1, 1, 2, 7), torch.tensor([[True] * 5 + [False, True]])
    assert gradcheck(
        lambda q, v: lsh_attention(
            q, v, buckets, mask, chunk_len=3, is_causal=is_causal, convention=convention
        ),
        (query, value),
    )


def test_half_precision_stays_finite_and_close():
    query, value, buckets = 3 * random(1, 2, 30, 8), random(1, 2, 30, 4, seed=1), random_buckets(1, 2, 2, 30)
    expected = lsh_attention(query, value, buckets, chunk_len=8, is_causal=True)
    for dtype in (torch.float16, torch.bfloat16):
        found = lsh_attention(query.to(dtype), value.to(dtype), buckets, chunk_len=8, is_causal=True)
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), expected, rtol=0.1, atol=0.1)


# --- Full attention ---------------------------------------------------------------------------------------------


@causal
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("self_last", [False, True])
@pytest.mark.parametrize("unit_keys", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_every_switch_of_full_attention(shared, unit_keys, self_last, padded, is_causal):
    query, value = random(2, 2, 6, 3), random(2, 2, 6, 2, seed=1)
    key = query if shared else random(2, 2, 6, 3, seed=2)
    mask = random_mask(2, 6) if padded else None
    output = full_attention(
        query, key, value, mask, is_causal=is_causal, unit_keys=unit_keys, self_last=self_last
    )
    scale = 1.0 if unit_keys else 3**-0.5
    for b, h, i in itertools.product(range(2), range(2), range(6)):
        there = [t for t in range(6) if not padded or mask[b, t]]
        allowed = [j for j in there if i in there and (j <= i or not is_causal)]
        if self_last:
            allowed = [j for j in allowed if j != i] or allowed
        keys = key[b, h].tolist()
        keys = [reference.unit(row) for row in keys] if unit_keys else keys
        powers = [
            torch.tensor(scale * reference.dot(query[b, h, i].tolist(), keys[j])).exp() for j in allowed
        ]
        expected = torch.zeros(2, dtype=DOUBLE)
        for power, j in zip(powers, allowed, strict=True):
            expected += power / sum(powers) * value[b, h, j]
        torch.testing.assert_close(output[b, h, i], expected, rtol=1e-5, atol=1e-6)


def test_keys_have_unit_length_and_an_empty_one_a_finite_gradient():
    vectors = random(3, 4)
    assert_equal(unit(vectors).norm(dim=-1), torch.ones(3))
    assert_equal(unit(vectors)[1], reference.unit(vectors[1].tolist()))
    empty = torch.zeros(4, dtype=DOUBLE, requires_grad=True)
    unit(empty).sum().backward()
    assert empty.grad.isfinite().all()


# --- Local attention ----------------------------------------------------------------------------------------------


@causal
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("self_last", [False, True])
@pytest.mark.parametrize(("length", "chunk_len"), LENGTHS)
def test_local_attention_equals_a_masked_softmax(length, chunk_len, self_last, padded, is_causal):
    query, key, value = (random(2, 2, length, 3, seed=seed) for seed in range(3))
    mask = random_mask(2, length) if padded else None
    found = local_attention(
        query, key, value, mask, chunk_len=chunk_len, is_causal=is_causal, self_last=self_last, scale=0.6
    )
    position = torch.arange(length)
    back = position.unsqueeze(-1) // chunk_len - position // chunk_len
    allowed = ((back == 0) | (back == 1)).expand(2, 1, -1, -1)
    if is_causal:
        allowed = allowed & (position <= position.unsqueeze(-1))
    if padded:
        allowed = allowed & mask[:, None, None] & mask[:, None, :, None]
    if self_last:
        others = allowed & (position != position.unsqueeze(-1))
        allowed = others | (allowed & ~others.any(-1, keepdim=True))
    products = (0.6 * query @ key.mT).masked_fill(~allowed, -torch.inf)
    expected = torch.softmax(products, -1).nan_to_num() @ value
    assert_equal(found, expected)


@causal
@pytest.mark.parametrize("padded", [False, True])
def test_local_attention_is_lsh_attention_with_one_bucket(padded, is_causal):
    query, value = random(2, 2, 14, 5), random(2, 2, 14, 4, seed=1)
    mask = torch.arange(14) < torch.tensor([[14], [9]]) if padded else None
    buckets = torch.zeros(2, 2, 1, 14, dtype=torch.int64)
    options = {"chunk_len": 4, "is_causal": is_causal}
    assert_equal(
        local_attention(query, query, value, mask, unit_keys=True, self_last=True, **options),
        lsh_attention(query, value, buckets, mask, **options),
    )


def test_gradients_of_local_attention():
    query, key, value = (random(1, 1, 5, 2, seed=seed).requires_grad_() for seed in range(3))
    mask = torch.tensor([[True, True, False, True, True]])
    assert gradcheck(
        lambda *qkv: local_attention(*qkv, mask, chunk_len=2, is_causal=True, unit_keys=True, self_last=True),
        (query, key, value),
    )


# --- Wrong arguments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_buckets", "message"),
    [
        (5, "n_buckets must be even.*got 5, the nearest are 4 and 6"),
        (1, "n_buckets must be an even whole number of at least 2; got 1"),
        ((4, 7), "n_buckets must be even.*got 7, the nearest are 6 and 8"),
        (0, "n_buckets must be an even whole number of at least 2; got 0"),
        ((4, -2), "n_buckets must be an even whole number of at least 2; got -2"),
        ((), "n_buckets must be an even whole number or several of them; got none"),
        (4.0, "n_buckets must be an even whole number or several of them; got 4.0"),
        (True, "n_buckets must be an even whole number or several of them; got True"),
        ("64", "n_buckets must be an even whole number or several of them; got '64'"),
        ((4, "6"), r"n_buckets must be an even whole number or several of them; got \(4, '6'\)"),
    ],
)
def test_wrong_numbers_of_buckets_are_refused(n_buckets, message):
    with pytest.raises(ValueError, match=message):
        rotations_for(n_buckets)


def test_numbers_of_numpy_are_numbers_of_buckets():
    for n_buckets in (np.int64(8), (np.int32(4), 2)):
        layer = LSHAttention(d_model=8, n_heads=2, chunk_len=2, n_rounds=1, n_buckets=n_buckets)
        assert layer.buckets(random(1, 6, 8).float()).max() < 8
    (rotation,) = rotations_for(np.int64(8))
    assert rotation.shape[-1] == 4


@pytest.mark.parametrize("fused", [False, True])
def test_the_name_of_a_convention_is_none(fused):
    query, buckets = random(1, 1, 4, 2), random_buckets(1, 1, 1, 4)
    message = "convention must be a Convention, as PAPER or PUBLIC of attn.lsh_convention; got 'public'"
    with pytest.raises(ValueError, match=message):
        lsh_attention(query, query, buckets, chunk_len=2, convention="public", fused=fused)
    with pytest.raises(ValueError, match=message):
        LSHAttention(d_model=8, n_heads=2, chunk_len=2, n_rounds=1, convention="public", fused=fused)


def test_wrong_rotations_and_rounds_are_refused():
    with pytest.raises(ValueError, match=r"vectors must have shape \[B, H, T, E\]; got \[4, 5\]"):
        hash_vectors(random(4, 5), rotations_for())
    with pytest.raises(ValueError, match="n_rounds must be a whole number of at least 1; got 0"):
        rotations_for(n_rounds=0)
    (rotation,) = rotations_for()
    for vectors, rotations in [
        (random(1, 3, 4, 5), [rotation]),
        (random(1, 2, 4, 6), [rotation]),
        (random(1, 2, 4, 5), [rotation, rotation[:, :2]]),
    ]:
        with pytest.raises(ValueError, match=r"rotations must have shape \[., rounds, ., buckets / 2\]; got"):
            hash_vectors(vectors, rotations)
    with pytest.raises(ValueError, match="rotations must hold at least one"):
        hash_vectors(random(1, 2, 4, 5), [])
    with pytest.raises(ValueError, match="rotations must be several tensors, one for each factor"):
        hash_vectors(random(1, 2, 4, 5), rotation)


def test_tensors_that_do_not_fit_are_refused():
    query, value, buckets = random(2, 3, 4, 5), random(2, 3, 4, 6), random_buckets(2, 3, 2, 4)
    for changes, message in [
        ({"query": query[0]}, "query, key and value must have shapes"),
        ({"value": value[:, :, :3]}, "query, key and value must have shapes"),
        ({"buckets": buckets[:, :, 0]}, r"buckets must have shape \[2, 3, rounds, 4\].*got \[2, 3, 4\]"),
        ({"buckets": buckets[:, :, :0]}, "at least one round"),
        ({"buckets": buckets[..., :3]}, r"buckets must have shape.*got \[2, 3, 2, 3\]"),
        ({"buckets": [1]}, r"buckets must be a tensor \[B, H, rounds, T\]; got list"),
        ({"buckets": buckets.double()}, "buckets must be whole numbers; got torch.float64"),
        ({"mask": torch.ones(2, 4)}, "mask must be boolean"),
        ({"mask": torch.ones(2, 5, dtype=torch.bool)}, r"mask must have shape.*\[2, 4\]; got \[2, 5\]"),
        ({"chunk_len": 0}, "chunk_len must be a whole number of at least 1; got 0"),
    ]:
        given = {"query": query, "value": value, "buckets": buckets, "mask": None, "chunk_len": 2} | changes
        with pytest.raises(ValueError, match=message):
            lsh_attention(**given)
    with pytest.raises(ValueError, match="query, key and value must have shapes"):
        full_attention(query, query[:, :, :3], value)
    with pytest.raises(ValueError, match="chunk_len must be"):
        local_attention(query, query, value, chunk_len=True)
