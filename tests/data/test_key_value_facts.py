"""Key-value facts: what is shown, what counts, and how much there is to remember."""

from collections import Counter
from math import log, log2

import pytest
import torch

from attn.data.key_value_facts import KeyValueFacts


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def small(**changes):
    sizes = {
        "n_facts": 20,
        "key_len": 2,
        "value_len": 2,
        "n_key_tokens": 6,
        "n_values": 5,
        "facts_per_sequence": 4,
    }
    return KeyValueFacts(**(sizes | changes))


def whole(batch):
    """The sequences a batch was made from."""
    return torch.cat([batch.tokens, batch.targets[:, -1:]], dim=1)


@pytest.mark.parametrize(
    "changes", [{}, {"n_facts": 36}, {"n_facts": 3, "key_len": 5}, {"n_facts": 1, "value_len": 1}], ids=str
)
def test_keys_are_distinct_and_tokens_in_their_ranges(changes):
    task = small(**changes)
    assert task.keys.shape == (task.n_facts, task.key_len)
    assert task.values.shape == (task.n_facts, task.value_len)
    assert len(task.keys.unique(dim=0)) == task.n_facts
    assert task.keys.min() >= task.n_values and task.keys.max() < task.vocab_size == 11
    assert task.values.min() >= 0 and task.values.max() < task.n_values


def test_tokens_are_uniform():
    task = small(n_facts=5000, key_len=7, n_key_tokens=4, value_len=1)
    for tokens, n in ((task.values, 5), (task.keys[:, 0] - 5, 4), (task.keys[:, 6] - 5, 4)):
        share = tokens.flatten().bincount() / 5000
        assert len(share) == n and (share - 1 / n).abs().max() < 0.03


def test_every_key_can_be_wanted():
    task = small(n_facts=36)
    assert {tuple(key) for key in task.keys.tolist()} == {(a, b) for a in range(5, 11) for b in range(5, 11)}
    with pytest.raises(ValueError, match="n_facts must be at most .* = 36"):
        small(n_facts=37)


def test_a_text_is_facts_one_after_another():
    task = small()
    facts = task.draw_facts(7, generator())
    batch = task.sample(7, generator())
    assert batch.tokens.shape == batch.targets.shape == batch.scored.shape == (7, 15)
    assert torch.equal(batch.tokens[:, 1:], batch.targets[:, :-1])
    for row, numbers in zip(whole(batch).tolist(), facts.tolist(), strict=True):
        expected = [token for i in numbers for token in (*task.keys[i].tolist(), *task.values[i].tolist())]
        assert row == expected


def test_values_count_once_a_sequence():
    task = small()
    batch = task.sequences(torch.tensor([[3, 5, 3, 3], [0, 1, 2, 1]]))
    yes, no = [0, 0, 1, 1], [0, 0, 0, 0]
    assert batch.scored.int().tolist() == [(yes + yes + no + no)[1:], (yes + yes + yes + no)[1:]]
    assert torch.equal(task.by_fact(batch.targets)[0, 1], task.values[5])
    assert task.by_fact(batch.scored).all(-1).tolist() == [
        [True, True, False, False],
        [True, True, True, False],
    ]


def test_all_facts_come_once_and_alone():
    task = small()
    batch = task.all_facts()
    assert batch.tokens.shape == (20, 3) and batch.n_scored == 40
    assert torch.equal(whole(batch), torch.cat([task.keys, task.values], dim=1))
    assert torch.equal(task.by_fact(batch.targets), task.values.unsqueeze(1))


def test_the_seed_fixes_the_table_and_the_generator_the_text():
    task, same, other = small(), small(), small(seed=1)
    assert torch.equal(task.keys, same.keys) and torch.equal(task.values, same.values)
    assert not torch.equal(task.keys, other.keys) and not torch.equal(task.values, other.values)
    first, again, second = (
        task.sample(4, generator()),
        same.sample(4, generator()),
        task.sample(4, generator(1)),
    )
    assert torch.equal(first.tokens, again.tokens) and not torch.equal(first.tokens, second.tokens)
    # more facts or other rates leave the values as they are: a longer table is not another task
    assert torch.equal(small(rate_exponent=1.0).values, task.values)


def test_facts_are_drawn_at_their_rates():
    task = small(n_facts=4, rate_exponent=1.0)
    assert task.rates.tolist() == pytest.approx([12 / 25, 6 / 25, 4 / 25, 3 / 25])
    assert small().rates.tolist() == pytest.approx([1 / 20] * 20)
    counts = Counter(task.draw_facts(5000, generator()).flatten().tolist())
    for fact, rate in enumerate(task.rates.tolist()):
        assert counts[fact] / 20000 == pytest.approx(rate, abs=0.012)  # four standard errors


def test_the_share_that_was_shown_is_known():
    task = small(n_facts=4, rate_exponent=1.0)
    assert task.shown(0).tolist() == [0] * 4
    assert task.shown(3).tolist() == pytest.approx([1 - (1 - p) ** 3 for p in (0.48, 0.24, 0.16, 0.12)])
    assert small(n_facts=1).shown(1).tolist() == [1]
    # the empirical share over many texts of ten draws
    texts = task.draw_facts(5000, generator())[:, :3]
    seen = torch.stack([(texts == fact).any(1).double().mean() for fact in range(4)])
    torch.testing.assert_close(seen, task.shown(3), rtol=0, atol=0.03)


def test_bits_are_facts_times_log2_of_values():
    task = small()
    assert task.bits == pytest.approx(20 * 2 * log2(5))
    assert KeyValueFacts(n_facts=1000).bits == 6000
    assert task.stored_bits(0.0) == task.bits
    assert task.stored_bits(log(5)) == pytest.approx(0)
    assert task.stored_bits(log(50)) < 0
    # half of the facts known, an even guess for the others
    assert task.stored_bits(log(5) / 2) == pytest.approx(task.bits / 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_facts": 0}, "n_facts must be a whole number of at least 1; got 0"),
        ({"n_values": 1}, "n_values must be a whole number of at least 2; got 1"),
        ({"rate_exponent": -0.5}, "rate_exponent must be a finite number of at least 0; got -0.5"),
        ({"rate_exponent": float("nan")}, "rate_exponent .* got nan"),
        ({"key_len": 1, "n_facts": 7}, r"n_facts must be at most n_key_tokens \*\* key_len = 6, .* got 7"),
        ({"key_len": 40}, r"below 2 \*\* 62"),
    ],
)
def test_bad_sizes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)
