"""The memory against plain loops, brute force over all slots, and its fast path against the definition."""

import copy
import random as pyrandom
from math import log

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

import attn.product_keys
from attn.attention import MultiHeadAttention
from attn.kernels import product_keys as kernels
from attn.language_model import LanguageModel, Stack, Vocabulary
from attn.product_keys import (
    FeedForwardWithMemory,
    FlatKeys,
    ProductKeyMemory,
    ProductKeys,
    QueryNetwork,
    Selection,
    SlotUsage,
    cartesian_keys,
    check_room,
    flat_key_topk,
    kl_from_uniform,
    product_key_topk,
    read_values,
    record_usage,
    search_cost,
    split_parameters,
    usage,
)
from attn.training.sparse_optimizer import RowAdam
from attn.transformer import FeedForward
from tests.exact import DOUBLE, gradients, random
from tests.product_keys import reference

# float64 against float64: only the order of sums differs
EXACT = {"rtol": 1e-11, "atol": 1e-13}


def assert_equal(found, expected):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=found.dtype), **EXACT)


def small_memory(seed=0, **settings):
    """In float64, every parameter drawn anew and batch norm with statistics of its own."""
    sizes = {"d_model": 6, "n_keys": 5, "topk": 3, "key_dim": 4, "n_heads": 2}
    memory = ProductKeyMemory(**(sizes | settings)).double()
    with torch.no_grad():
        for index, parameter in enumerate(memory.parameters()):
            parameter.copy_(0.7 * random(*parameter.shape, seed=100 * seed + index))
        if isinstance(memory.query.norm, nn.BatchNorm1d):
            memory.query.norm.running_mean.copy_(random(*memory.query.norm.running_mean.shape, seed=90))
            memory.query.norm.running_var.copy_(random(*memory.query.norm.running_var.shape, seed=91) ** 2)
    return memory


searches = pytest.mark.parametrize(
    "search", [product_key_topk, kernels.product_key_topk], ids=["plain", "fast"]
)
reads = pytest.mark.parametrize("read", [read_values, kernels.read_values], ids=["plain", "fast"])
both_paths = pytest.mark.parametrize("fused", [False, True], ids=["plain", "fast"])


# --- The search --------------------------------------------------------------------------------------------


def random_sizes(seed):
    draw = pyrandom.Random(seed)
    n_keys = draw.randint(1, 12)
    return draw.randint(1, 5), draw.randint(1, 3), n_keys, 2 * draw.randint(1, 4), draw.randint(1, n_keys)


@searches
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE], ids=str)
@pytest.mark.parametrize("seed", range(12))
def test_the_k_best_are_those_of_brute_force(search, seed, dtype):
    n_queries, n_heads, n_keys, key_dim, topk = random_sizes(seed)
    query = random(n_queries, n_heads, key_dim, seed=2 * seed, dtype=dtype)
    sub_keys = random(n_heads, 2, n_keys, key_dim // 2, seed=2 * seed + 1, dtype=dtype)
    scores, slots = search(query, sub_keys, topk)
    assert scores.shape == slots.shape == (n_queries, n_heads, topk)
    for i in range(n_queries):
        for h in range(n_heads):
            all_scores = reference.slot_scores(query[i, h].tolist(), sub_keys[h].tolist())
            expected, places = reference.best(all_scores, topk)
            torch.testing.assert_close(scores[i, h], torch.tensor(expected, dtype=dtype))
            assert slots[i, h].tolist() == places


@searches
@pytest.mark.parametrize(("n_keys", "topk"), [(64, 32), (40, 40), (130, 7), (3, 1)])
def test_product_keys_find_what_flat_keys_find(search, n_keys, topk):
    query, sub_keys = random(9, 2, 6), random(2, 2, n_keys, 3, seed=1)
    scores, slots = search(query, sub_keys, topk)
    flat_scores, flat_slots = flat_key_topk(query, cartesian_keys(sub_keys), topk)
    assert_equal(scores, flat_scores)
    assert torch.equal(slots, flat_slots)


@searches
@pytest.mark.parametrize("topk", [1, 4, 9])
def test_with_equal_scores_any_of_the_slots_will_do(search, topk):
    query = torch.randint(-1, 2, (20, 2, 4), generator=torch.Generator().manual_seed(0)).double()
    sub_keys = torch.randint(-1, 2, (2, 2, 9, 2), generator=torch.Generator().manual_seed(1)).double()
    scores, slots = search(query, sub_keys, topk)
    keys = cartesian_keys(sub_keys)
    assert torch.equal(scores, flat_key_topk(query, keys, topk)[0])
    for h in range(2):
        assert torch.equal(scores[:, h], torch.einsum("nke,ne->nk", keys[h][slots[:, h]], query[:, h]))
        assert all(len(set(row)) == topk for row in slots[:, h].tolist())


def test_a_slot_has_the_left_sub_key_first():
    sub_keys = torch.tensor([[[[1.0], [2.0]], [[3.0], [4.0]]]])
    assert cartesian_keys(sub_keys).tolist() == [[[1, 3], [1, 4], [2, 3], [2, 4]]]


@pytest.mark.parametrize("topk", [1, 2, 7, 32])
def test_no_pair_but_the_winning_ones_can_win(topk):
    pairs = {tuple(pair) for pair in kernels.winning_pairs(topk, torch.device("cpu")).T.tolist()}
    for i in range(topk):
        for j in range(topk):
            no_worse = (i + 1) * (j + 1) - 1  # pairs that come no later in either list, besides itself
            assert ((i, j) in pairs) == (no_worse < topk)


def test_gradients_of_the_fast_search_are_those_of_the_plain_one():
    query, sub_keys = random(7, 3, 8).requires_grad_(), random(3, 2, 11, 4, seed=1).requires_grad_()
    found, expected = (
        gradients(search(query, sub_keys, 5)[0], [query, sub_keys])
        for search in (kernels.product_key_topk, product_key_topk)
    )
    for own, other in zip(found, expected, strict=True):
        assert_equal(own, other)


@searches
def test_gradients_of_the_search_against_finite_differences(search):
    query, sub_keys = random(2, 2, 4).requires_grad_(), random(2, 2, 4, 2, seed=1).requires_grad_()
    assert gradcheck(lambda *inputs: search(*inputs, 3)[0], (query, sub_keys))


def test_blocks_of_the_partition_change_nothing(monkeypatch):
    query, sub_keys = random(11, 2, 8), random(2, 2, 16, 4, seed=1)
    expected = kernels.product_key_topk(query, sub_keys, 5)
    monkeypatch.setattr(kernels, "PARTITION_BLOCK", 3 * 16)
    for found, other in zip(kernels.product_key_topk(query, sub_keys, 5), expected, strict=True):
        assert torch.equal(found, other)


# --- The weighted sum --------------------------------------------------------------------------------------


def lookups():
    """Values, slots of which some occur in several queries or twice in one, and weights."""
    slots = torch.tensor([[7, 2, 7], [2, 0, 9], [9, 9, 9], [4, 2, 0]])
    return random(11, 5).requires_grad_(), slots, random(4, 3, seed=1).requires_grad_()


@reads
def test_the_sum_and_its_gradients_equal_dense_ones(read):
    values, slots, weights = lookups()
    chosen = torch.zeros(4, 11, dtype=DOUBLE).scatter_add(1, slots, weights)
    expected = chosen @ values
    found = read(values, slots, weights)
    assert_equal(found, expected)
    pairs = zip(gradients(found, [values, weights]), gradients(expected, [values, weights]), strict=True)
    for own, other in pairs:
        assert_equal(own, other)


@reads
def test_gradients_of_the_sum_against_finite_differences(read):
    values, slots, weights = lookups()
    assert gradcheck(lambda w: read(values.detach(), slots, w), (weights,))
    (found,) = gradients(read(values, slots, weights), [values])
    weigh = torch.linspace(-1, 1, 20, dtype=DOUBLE).view(4, 5)
    for row, column in ((7, 0), (9, 4), (3, 2)):
        moved = [values.detach().clone() for _ in range(2)]
        moved[0][row, column] += 1e-3
        up, down = ((read(v, slots, weights.detach()) * weigh).sum() for v in moved)
        assert float(found[row, column]) == pytest.approx(float(up - down) / 1e-3, abs=1e-9)


@reads
def test_the_values_gradient_has_the_selected_rows_only(read):
    values, slots, weights = lookups()
    values = values.detach().requires_grad_()
    read(values, slots, weights).sum().backward()
    assert values.grad.is_sparse and values.grad.coalesce().indices().tolist() == [[0, 2, 4, 7, 9]]


def test_the_fast_gradient_comes_in_order_without_repetition():
    values, slots, weights = lookups()
    (found,) = torch.autograd.grad(kernels.read_values(values, slots, weights).sum(), [values])
    assert found.is_coalesced()
    assert found.indices().tolist() == [[0, 2, 4, 7, 9]] and found.values().shape == (5, 5)


@pytest.mark.parametrize("wanted", [0, 1], ids=["values", "weights"])
def test_the_fast_sum_with_one_gradient_only(wanted):
    values, slots, weights = lookups()
    (values, weights)[1 - wanted].requires_grad_(False)
    (found,), (expected,) = (
        gradients(read(values, slots, weights), [(values, weights)[wanted]])
        for read in (kernels.read_values, read_values)
    )
    assert_equal(found, expected)


# --- The layer ---------------------------------------------------------------------------------------------


@both_paths
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("batch_norm", [False, True], ids=["no norm", "batch norm"])
def test_the_layer_equals_the_loops(fused, training, batch_norm):
    memory = small_memory(fused=fused, batch_norm=batch_norm, value_dim=3).train(training)
    inputs = random(2, 3, 6, seed=50)
    rows = inputs.flatten(0, 1).tolist()
    linear = memory.query.linear
    queries = [
        [reference.dot(row, w) + b for w, b in zip(linear.weight.tolist(), linear.bias.tolist(), strict=True)]
        for row in rows
    ]
    if batch_norm:
        norm = memory.query.norm
        statistics = (None, None) if training else (norm.running_mean.tolist(), norm.running_var.tolist())
        queries = reference.normalise(queries, *statistics, norm.weight.tolist(), norm.bias.tolist())
    expected = [
        reference.read([query[:4], query[4:]], memory.keys.sub_keys.tolist(), memory.values.tolist(), 3)
        for query in queries
    ]
    assert_equal(memory(inputs), torch.tensor(expected, dtype=DOUBLE).view(2, 3, 3))


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize(
    "changes", [{}, {"batch_norm": False}, {"flat": True}, {"topk": 5, "n_heads": 1}], ids=str
)
def test_the_fast_layer_equals_the_plain_one(changes, masked):
    fast = small_memory(**changes)
    plain = copy.deepcopy(fast)
    plain.fused = plain.keys.fused = False
    mask = torch.tensor([[True, True, False, True], [False, True, True, False]]) if masked else None
    results = []
    for memory in (fast, plain):
        inputs = random(2, 4, 6, seed=50).requires_grad_()
        outputs = memory(inputs, mask)
        results.append([outputs, *gradients(outputs, [inputs, *memory.parameters()])])
    for found, expected in zip(*results, strict=True):
        assert_equal(found, expected)


def test_a_flat_memory_with_the_joined_keys_is_the_same_memory():
    product, flat = small_memory(), small_memory(flat=True)
    with torch.no_grad():
        flat.keys.keys.copy_(cartesian_keys(product.keys.sub_keys))
        for name in ("query", "values"):
            part, other = getattr(flat, name), getattr(product, name)
            part.load_state_dict(other.state_dict()) if name == "query" else part.copy_(other)
    inputs = random(2, 3, 6, seed=50)
    assert_equal(flat(inputs), product(inputs))


@both_paths
def test_padding_is_as_if_it_were_not_there(fused):
    mask = torch.tensor([[True, True, True], [True, False, False]])
    inputs = random(2, 3, 6, seed=50)
    padded, bare = small_memory(fused=fused), small_memory(fused=fused)
    found, expected = padded(inputs, mask), bare(inputs[mask].unsqueeze(0))
    assert_equal(found[mask], expected[0])
    assert found[~mask].eq(0).all()
    for name, value in padded.query.norm.state_dict().items():
        torch.testing.assert_close(value, bare.query.norm.state_dict()[name], msg=name)
    found[mask].sum().backward()
    expected.sum().backward()
    for (name, parameter), other in zip(padded.named_parameters(), bare.parameters(), strict=True):
        torch.testing.assert_close(
            parameter.grad.to_dense(), other.grad.to_dense(), **EXACT, msg=lambda m, n=name: f"{n}: {m}"
        )
    other = torch.where(mask.unsqueeze(-1), inputs, torch.full_like(inputs, torch.nan))
    assert_equal(small_memory(fused=fused)(other, mask), found.detach())


@both_paths
def test_padding_touches_no_slot(fused):
    memory, inputs = small_memory(fused=fused), random(1, 3, 6, seed=50)
    memory(inputs, torch.tensor([[True, True, False]])).sum().backward()
    touched = memory.values.grad.coalesce().indices()[0].tolist()
    with torch.no_grad():
        assert touched == memory.select(inputs[0, :2]).slots.unique().tolist()
    assert len(touched) < memory.n_slots


@both_paths
def test_nothing_but_padding_gives_zeros_in_evaluation(fused):
    memory = small_memory(fused=fused).eval()
    outputs = memory(random(2, 3, 6), torch.zeros(2, 3, dtype=torch.bool))
    assert outputs.shape == (2, 3, 6) and outputs.eq(0).all()


def test_in_evaluation_a_position_does_not_depend_on_the_others():
    memory, inputs = small_memory().eval(), random(2, 3, 6, seed=50)
    before = copy.deepcopy(memory.state_dict())
    together = memory(inputs)
    alone = torch.cat([memory(inputs[:, t : t + 1]) for t in range(3)], dim=1)
    assert_equal(alone, together)
    assert all(torch.equal(value, before[name]) for name, value in memory.state_dict().items())
    memory.train()
    assert not torch.allclose(memory(inputs[:, :2]), together[:, :2])


@both_paths
def test_the_search_is_in_full_precision_under_autocast(fused):
    keys, query = ProductKeys(n_keys=16, topk=4, key_dim=8, n_heads=2, fused=fused), random(9, 2, 8).float()
    expected = keys(query)
    with torch.autocast("cpu", torch.bfloat16):
        found = keys(query)
    assert torch.equal(found.slots, expected.slots) and torch.equal(found.weights, expected.weights)


@both_paths
def test_the_layer_under_autocast(fused):
    memory = small_memory(fused=fused).float()
    inputs = random(2, 8, 6, seed=50).float().requires_grad_()
    exact = memory(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        found = memory(inputs)
        query = memory.query(inputs.flatten(0, 1))
    assert found.dtype == query.dtype == torch.float32
    # bfloat16 carries 8 bits; a query near the border between two slots may fall to the other
    close = (found - exact).abs().amax(-1) < 0.1 * exact.abs().amax()
    assert close.float().mean() >= 0.75
    found.sum().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in memory.parameters())
    assert memory.values.grad.is_sparse and inputs.grad.isfinite().all()


@both_paths
def test_a_layer_in_half_precision(fused):
    exact = small_memory(fused=fused)
    low = copy.deepcopy(exact).bfloat16()
    inputs = random(2, 8, 6, seed=50)
    found = low(inputs.bfloat16())
    found.sum().backward()
    assert found.dtype == low.values.grad.dtype == torch.bfloat16
    close = (found.double() - exact(inputs)).abs().amax(-1) < 0.1
    assert close.float().mean() >= 0.75


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_fast_layer_on_a_gpu_equals_the_plain_one():
    plain = small_memory(n_keys=64, topk=16, fused=False)
    fast = copy.deepcopy(plain).cuda()
    fast.fused = fast.keys.fused = True
    inputs = random(2, 30, 6, seed=50)
    results = []
    for memory, at in ((fast, inputs.cuda().requires_grad_()), (plain, inputs.clone().requires_grad_())):
        outputs = memory(at)
        outputs.square().sum().backward()
        results.append([outputs, at.grad, *(parameter.grad.to_dense() for parameter in memory.parameters())])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-9, atol=1e-11)


# --- In the trunk ------------------------------------------------------------------------------------------


def language_model(sublayer):
    attention = MultiHeadAttention(d_model=8, n_heads=2)

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = attention

        def forward(self, inputs):
            return self.attention(inputs, is_causal=True).output

    stack = Stack([[Attention(), sublayer]], d_model=8)
    return LanguageModel(vocabulary=Vocabulary(vocab_size=11, d_model=8), stack=stack)


@pytest.mark.parametrize("joins", [False, True], ids=["replaces", "joins"])
def test_a_memory_in_the_trunk_learns(joins):
    torch.manual_seed(0)
    memory = ProductKeyMemory(d_model=8, n_keys=6, topk=3, key_dim=4, n_heads=2)
    model = language_model(
        FeedForwardWithMemory(FeedForward(d_model=8, d_ff=16), memory) if joins else memory
    )
    dense, values = split_parameters(model)
    assert [id(table) for table in values] == [id(memory.values)]
    assert {id(p) for p in dense} == {id(p) for p in model.parameters()} - {id(memory.values)}
    tokens = torch.randint(11, (4, 9), generator=torch.Generator().manual_seed(1))
    optimizers = [torch.optim.Adam(dense, lr=0.01), torch.optim.SparseAdam(values, lr=0.01)]
    losses = []
    for _ in range(15):
        loss = model(tokens[:, :-1], targets=tokens[:, 1:])[0].mean()
        losses.append(loss.item())
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert losses[-1] < 0.8 * losses[0]
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_a_step_with_262k_slots_touches_what_it_read_and_no_more():
    torch.manual_seed(0)
    memory = ProductKeyMemory(d_model=4, n_keys=512, topk=8, key_dim=8, n_heads=2)
    start = memory.values.detach().clone()
    inputs = torch.randn(3, 10, 4)
    memory(inputs).square().sum().backward()
    rows, optimizer = memory.values.grad.coalesce().indices()[0], RowAdam([memory.values], lr=0.01)
    assert memory.values.grad.is_sparse and len(memory.values.grad._values()) == len(rows) <= 30 * 2 * 8
    optimizer.step()
    moved = (memory.values != start).any(1).nonzero().flatten()
    assert torch.equal(moved, rows)
    for moment in ("exp_avg", "exp_avg_sq"):
        assert set(optimizer.state[memory.values][moment].any(1).nonzero().flatten().tolist()) <= {
            *rows.tolist()
        }


def test_where_the_same_slots_are_read_every_time_rows_move_as_all_do_under_adam():
    """A row that no gradient ever reached stays where it is under dense Adam, too."""
    torch.manual_seed(0)
    memories = [ProductKeyMemory(d_model=4, n_keys=16, topk=3, key_dim=4, n_heads=2).double()]
    memories.append(copy.deepcopy(memories[0]))
    inputs = random(2, 5, 4)
    for memory, optimizer_of in zip(memories, (RowAdam, torch.optim.Adam), strict=True):
        optimizer = optimizer_of([memory.values], lr=0.01)
        for _ in range(5):  # nothing but the values is trained, so the search stays the same
            (memory(inputs) - inputs.sin()).square().sum().backward()
            if optimizer_of is not RowAdam:
                memory.values.grad = memory.values.grad.to_dense()
            optimizer.step()
            optimizer.zero_grad()
    assert 0 < len(memories[0].select(inputs.flatten(0, 1)).slots.unique()) < 256
    torch.testing.assert_close(memories[0].values, memories[1].values, rtol=1e-9, atol=1e-12)


def test_a_joined_memory_adds_to_the_feed_forward_layer():
    memory, feed_forward = small_memory().eval(), FeedForward(d_model=6, d_ff=7).double()
    inputs = random(2, 3, 6)
    assert_equal(FeedForwardWithMemory(feed_forward, memory)(inputs), feed_forward(inputs) + memory(inputs))


def test_a_joined_memory_leaves_padding_out():
    mask = torch.tensor([[True, True, True], [True, False, False]])
    memory, feed_forward = small_memory(), FeedForward(d_model=6, d_ff=7).double()
    alone, inputs = copy.deepcopy(memory), random(2, 3, 6, seed=50)
    found = FeedForwardWithMemory(feed_forward, memory)(inputs, mask)
    assert_equal(found, feed_forward(inputs) + alone(inputs, mask))
    assert_equal(found[~mask], feed_forward(inputs)[~mask])
    assert torch.equal(memory.query.norm.running_mean, alone.query.norm.running_mean)
    with pytest.raises(ValueError, match="mask must be boolean"):
        FeedForwardWithMemory(feed_forward, memory)(inputs, mask.double())


def test_the_start_is_that_of_the_paper():
    torch.manual_seed(0)
    memory = ProductKeyMemory(d_model=64, n_keys=64, key_dim=32)
    assert memory.values.std().item() == pytest.approx(64**-0.5, rel=0.01)
    assert memory.values.mean().item() == pytest.approx(0, abs=1e-3)
    bound = 16**-0.5
    assert 0.99 * bound < memory.keys.sub_keys.max() <= bound
    assert memory.keys.sub_keys.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    flat = FlatKeys(n_keys=64, topk=2, key_dim=32, n_heads=1)
    assert flat.keys.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)


# --- Use of the memory -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weight", "share", "divergence"),
    [
        ([1.0, 1, 1, 1], 1.0, 0.0),
        ([0.5, 0.5, 0, 0], 0.5, log(2)),
        ([0, 7.0, 0, 0], 0.25, log(4)),
        ([3.0, 1.0], 1.0, log(2) + 0.75 * log(0.75) + 0.25 * log(0.25)),
        ([2.0], 1.0, 0.0),
        ([2, 0], 0.5, log(2)),
    ],
)
def test_usage_and_divergence_by_hand(weight, share, divergence):
    weight = torch.tensor(weight)
    assert usage(weight) == share
    assert kl_from_uniform(weight) == pytest.approx(divergence, abs=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_the_divergence_is_at_least_log_of_one_over_usage(seed):
    weight = random(200, seed=seed).exp() * (random(200, seed=50 + seed) > seed / 4 - 1)
    assert 0 < usage(weight) < 1
    assert log(1 / usage(weight)) <= kl_from_uniform(weight) <= log(200)
    # with equality where the used slots share alike
    assert kl_from_uniform(weight != 0) == pytest.approx(log(1 / usage(weight)))


@pytest.mark.parametrize("weight", [[0.0, 0.0], [1.0, -1e-9], [1.0, torch.nan]], ids=str)
def test_no_divergence_of_what_is_no_distribution(weight):
    with pytest.raises(ValueError, match="weight must hold no negative number or NaN, and one above 0"):
        kl_from_uniform(torch.tensor(weight))


def test_usage_adds_up_over_batches():
    used = SlotUsage(4)
    used.add(Selection(torch.tensor([[[0, 2]], [[2, 0]]]), torch.tensor([[[0.75, 0.25]], [[0.5, 0.5]]])))
    used.add(Selection(torch.tensor([[[2, 1]]]), torch.tensor([[[1.0, 0.0]]])))
    assert used.weight.tolist() == [1.25, 0, 1.75, 0] and used.count.tolist() == [2, 1, 3, 0]
    assert used.usage == 0.5 and used.lookups_per_slot == 1.5
    assert used.kl == pytest.approx(log(4) + sum(z * log(z) for z in (1.25 / 3, 1.75 / 3)))
    assert used.unweighted_kl == pytest.approx(log(4) + sum(z * log(z) for z in (2 / 6, 1 / 6, 3 / 6)))


def test_usage_is_recorded_for_every_memory_while_asked():
    model = nn.Sequential(small_memory(), nn.Sequential(small_memory(seed=1, flat=True))).eval()
    batches = [random(2, 3, 6, seed=seed) for seed in (1, 2)]
    with torch.no_grad(), record_usage(model) as used:
        for batch in batches:
            model(batch)
    model(batches[0])  # not counted
    assert sorted(used) == ["0", "1.0"]
    weight = torch.zeros(25, dtype=DOUBLE)
    for batch in batches:
        slots, weights = model[0].select(batch.flatten(0, 1))
        for slot, w in zip(slots.flatten().tolist(), weights.flatten().tolist(), strict=True):
            weight[slot] += w
    assert_equal(used["0"].weight, weight)
    assert [u.lookups_per_slot for u in used.values()] == [2 * 2 * 3 * 2 * 3 / 25] * 2
    with record_usage(small_memory().eval()) as own:
        pass
    assert list(own) == [""]


# --- Counts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key_dim", "total"), [(512, 271_587_328), (256, 270_011_392)])
def test_parameters_at_the_papers_size(key_dim, total):
    with torch.device("meta"):
        memory = ProductKeyMemory(d_model=1024, key_dim=key_dim)
    assert sum(parameter.numel() for parameter in memory.parameters()) == total
    assert memory.values.numel() == 268_435_456
    assert memory.keys.sub_keys.numel() == 4 * 2 * 512 * key_dim // 2


def test_search_costs_at_the_papers_size():
    cost = search_cost(n_keys=512, key_dim=512, topk=32)
    assert cost == (262_144, 1024, 119, 134_217_728)
    assert cost.flat / cost.product == 512


# --- What bad input gets -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: small_memory(topk=6), "topk must be at most n_keys = 5, the sub-keys in a half; got 6"),
        (lambda: small_memory(key_dim=5), "key_dim must be even, a half for each codebook; got 5"),
        (lambda: small_memory(flat=True, topk=26), "topk must be at most the number of slots, 25; got 26"),
        (lambda: small_memory(n_keys=0), "n_keys must be a whole number of at least 1; got 0"),
        (lambda: small_memory(n_heads=1.0), "n_heads must be a whole number of at least 1; got 1.0"),
        (lambda: small_memory()(random(1, 1, 6)), r"at least 2 positions that are not padding .* got 1; use more"),
        (
            lambda: small_memory()(random(1, 3, 6), torch.tensor([[True, False, False]])),
            "at least 2 positions that are not padding while training; got 1",
        ),
        (
            lambda: FeedForwardWithMemory(FeedForward(d_model=6, d_ff=7), small_memory(value_dim=1)),
            "value_dim must be d_model = 6 for a memory beside a feed-forward layer; got 1",
        ),
        (
            lambda: FeedForwardWithMemory(FeedForward(d_model=6, d_ff=7), small_memory(value_dim=3)),
            "value_dim must be d_model = 6 for a memory beside a feed-forward layer; got 3",
        ),
        (lambda: small_memory()(random(3, 6)), r"inputs must have shape \[batch, length, 6\]; got \[3, 6\]"),
        (
            lambda: small_memory()(random(2, 3, 6), torch.ones(2, 3)),
            r"mask must be boolean of shape \[2, 3\]; got torch.float32 of shape \[2, 3\]",
        ),
        (lambda: small_memory()(random(2, 3, 6), torch.ones(3, 2, dtype=torch.bool)), r"got torch.bool of shape \[3, 2\]"),
        (lambda: small_memory().float()(random(2, 3, 6).double()), "parameters' dtype, torch.float32; got torch.float64"),
        (lambda: small_memory().float()(torch.ones(2, 3, 6, dtype=torch.int64)), "torch.float32; got torch.int64"),
        (lambda: search_cost(n_keys=4, key_dim=4, topk=8), "topk must be at most n_keys = 4, the sub-keys in a half; got 8"),
        (lambda: search_cost(n_keys=4, key_dim=5, topk=2), "key_dim must be even, a half for each codebook; got 5"),
        (lambda: product_key_topk(random(2, 1, 5), random(1, 2, 4, 2), 2), "key_dim must be even, .* got queries of 5"),
        (lambda: product_key_topk(random(2, 1, 4), random(1, 2, 4, 2), 5), "topk must be from 1 to n_keys = 4; got 5"),
        (lambda: product_key_topk(random(2, 1, 4), random(1, 2, 4, 2), 0), "topk must be from 1 to n_keys = 4; got 0"),
        (lambda: product_key_topk(random(2, 1, 4), random(2, 2, 4, 2), 1), r"got \[2, 1, 4\] and \[2, 2, 4, 2\]"),
        (lambda: product_key_topk(random(2, 4), random(2, 2, 4, 2), 1), r"got \[2, 4\] and \[2, 2, 4, 2\]"),
        (lambda: flat_key_topk(random(2, 1, 4), random(1, 6, 4), 7), "topk must be from 1 to the number of slots, 6"),
        (lambda: flat_key_topk(random(2, 1, 4), random(1, 6, 3), 1), r"got \[2, 1, 4\] and \[1, 6, 3\]"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message) as refusal:
        call()
    assert "\n" not in str(refusal.value)


def test_under_autocast_inputs_may_be_coarser_and_not_finer():
    memory, inputs = small_memory().float(), random(2, 3, 6)
    with torch.autocast("cpu", torch.bfloat16):
        assert memory(inputs.bfloat16()).dtype == torch.float32
        with pytest.raises(
            ValueError, match="inputs must have the parameters' dtype, torch.float32; got torch.float64"
        ):
            memory(inputs.double())


def test_a_single_position_is_fine_without_batch_norm_or_in_evaluation():
    assert small_memory(batch_norm=False)(random(1, 1, 6)).isfinite().all()
    assert small_memory().eval()(random(1, 1, 6)).isfinite().all()
    assert QueryNetwork(d_model=3, n_heads=2, key_dim=4)(random(2, 3).float()).shape == (2, 2, 4)


def test_tables_that_do_not_fit_are_refused_with_what_would_fit(monkeypatch):
    monkeypatch.setattr(attn.product_keys, "free_bytes", lambda device: 1000)
    ProductKeyMemory(d_model=6, n_keys=6, topk=1, key_dim=2, n_heads=1)  # 36 slots of 24 bytes
    with pytest.raises(ValueError) as refusal:
        ProductKeyMemory(d_model=6, n_keys=7, topk=1, key_dim=2, n_heads=1)
    assert str(refusal.value) == (
        "n_keys=7 makes 49 slots of 24 bytes, 1,176 bytes in all, where 1,000 are free; the largest that fits is "
        "n_keys=6 with 864 bytes, and Adam's state takes twice as much again"
    )
    with pytest.raises(
        ValueError, match="slots of 56 bytes.* the largest that fits is n_keys=4 with 896 bytes"
    ):
        ProductKeyMemory(d_model=6, n_keys=5, topk=1, key_dim=4, n_heads=2, flat=True)


def test_a_device_without_room_is_refused_before_a_model_goes_there(monkeypatch):
    device = torch.device("meta")  # for one that is not the CPU
    free = {"meta": 2000, "cpu": 0}
    memory = ProductKeyMemory(d_model=6, n_keys=6, topk=1, key_dim=2, n_heads=1)  # 36 slots of 24 bytes
    flat = ProductKeyMemory(d_model=6, n_keys=6, topk=1, key_dim=2, n_heads=2, flat=True)  # 36 of 24 + 16
    assert (memory.table_bytes, flat.table_bytes) == (864, 1440)
    monkeypatch.setattr(attn.product_keys, "free_bytes", lambda device: free[device.type])
    check_room(nn.Sequential(memory, memory), device)  # one memory, used twice
    with pytest.raises(ValueError) as refusal:
        check_room(nn.Sequential(memory, flat), device)
    assert str(refusal.value) == (
        "the tables of the model's memories take 2,304 bytes, where 2,000 are free on meta; the largest that fits is "
        "n_keys=5 in each, and Adam's state takes twice as much again"
    )
    check_room(nn.Sequential(memory, flat), torch.device("cpu"))  # they are there already
