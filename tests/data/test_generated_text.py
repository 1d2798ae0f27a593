from itertools import product
from math import inf, log2

import numpy as np
import pytest
import torch

from attn.data.generated_text import GeneratedText


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


SMALL = GeneratedText(n_letters=2, stretch_length=3, distances=(1, 3), shares=(0.3, 0.7), language_seed=2)


def blocks(source, tokens):
    return tokens.view(-1, source.block_length).tolist()


# --- The text ----------------------------------------------------------------------------------------------


def test_blocks_have_equal_marks_around_letters_and_alternate():
    source = GeneratedText()
    found = blocks(source, source.sample(200 * 16, generator()))
    for index, (mark, *letters, end) in enumerate(found):
        assert mark == end and max(letters) < source.n_letters
        assert (mark == source.n_letters) == (index % 2 == 0) and mark < source.vocab_size


def test_marks_say_how_many_blocks_back_the_same_letters_stand():
    source = GeneratedText(distances=(1, 5, 9))
    found = blocks(source, source.sample(400 * 16, generator()))
    for index, (mark, *letters, _) in enumerate(found):
        distance = (0, 1, 5, 9)[mark - source.n_letters]
        if distance and index >= distance:
            assert letters == found[index - distance][1:-1]
    new = {tuple(letters[1:-1]) for letters in found[::2]}
    assert len(new) == 200  # 14 letters hardly ever come twice by chance


def test_a_stretch_from_before_the_text_comes_back_too():
    source = GeneratedText(distances=(3, 5), shares=(0.5, 0.5))
    for seed in range(50):
        found = blocks(source, source.sample(4 * 16, generator(seed)))
        # blocks 1 and 3 both repeat block -2, which is not in the text
        if [found[1][0], found[3][0]] == [source.n_letters + 1, source.n_letters + 2]:
            assert found[1][1:-1] == found[3][1:-1] != found[0][1:-1]
            return
    pytest.fail("none of 50 texts has marks 1 and 2")


def test_marks_and_letters_come_as_often_as_they_should():
    source = GeneratedText(distances=(1, 3), shares=(0.2, 0.8), language_seed=3)
    n_blocks = 8000
    found = torch.tensor(blocks(source, source.sample(n_blocks * 16, generator())))
    marks, letters = found[1::2, 0] - source.n_letters, found[::2, 1:-1]
    assert abs((marks == 1).double().mean() - 0.2) < 4 * (0.16 / (n_blocks / 2)) ** 0.5
    for places in (letters[:, 0], letters[:, -1]):  # stationary: the last letter as the first
        counts = torch.bincount(places, minlength=8).double()
        expected = torch.from_numpy(source.letter_shares) * len(places)
        assert float(((counts - expected) ** 2 / expected).sum()) < 30  # chi-squared of 7 degrees of freedom
    pairs = torch.zeros(8, 8, dtype=torch.float64)
    pairs.index_put_(
        (letters[:, 3], letters[:, 4]), torch.ones(len(letters), dtype=torch.float64), accumulate=True
    )
    expected = torch.from_numpy(source.letter_shares[:, None] * source.transitions) * len(letters)
    assert float(((pairs - expected) ** 2 / expected).sum()) < 120  # of 63


def test_equal_seeds_give_equal_texts():
    source = GeneratedText()
    assert source.sample(1000, generator(1)).equal(source.sample(1000, generator(1)))
    assert not source.sample(1000, generator(1)).equal(source.sample(1000, generator(2)))
    assert len(source.sample(33, generator())) == 33
    other = GeneratedText(language_seed=1)
    assert not np.allclose(other.transitions, source.transitions)


def test_the_control_repeats_nothing():
    source = GeneratedText(repeats=False)
    found = blocks(source, source.sample(200 * 16, generator()))
    assert len({tuple(block[1:-1]) for block in found}) == 200
    assert len({block[0] for block in found}) == 5


def test_text_for_people():
    source = GeneratedText(n_letters=3, stretch_length=2, distances=(1,))
    assert source.decode(torch.tensor([3, 0, 2, 3, 4, 1, 1, 4])) == "0ac01bb1"


# --- The optimum: every possible text ----------------------------------------------------------------------


def every_text(source, n_blocks):
    """All texts [M, N] that can be, from all stretches and marks, and the probability of each."""
    law, shares = source.transitions, source.letter_shares
    stretches = list(product(range(source.n_letters), repeat=source.stretch_length))
    chance = {
        s: shares[s[0]] * np.prod([law[a, b] for a, b in zip(s[:-1], s[1:], strict=True)]) for s in stretches
    }
    n_before = (source.distances[-1] + 1) // 2  # new stretches before the text
    n_new = n_before + (n_blocks + 1) // 2
    texts, chances = [], []
    for marks in product(range(1, len(source.distances) + 1), repeat=n_blocks // 2):
        layout = []  # mark and stretch of each block
        for index in range(n_blocks):
            mark = marks[index // 2] if index % 2 else 0
            back = source.distances[mark - 1] if mark else 0
            layout.append((mark, (index - back) // 2 + n_before))
        p_marks = np.prod([source.mark_shares[mark - 1] for mark in marks])
        for held in product(stretches, repeat=n_new):
            row = []
            for mark, which in layout:
                row += [source.n_letters + mark, *held[which], source.n_letters + mark]
            texts.append(row)
            chances.append(p_marks * np.prod([chance[stretch] for stretch in held]))
    return np.array(texts), np.array(chances)


@pytest.mark.parametrize(
    ("source", "n_blocks"),
    [
        (
            GeneratedText(
                n_letters=2, stretch_length=2, distances=(1, 3), shares=(0.3, 0.7), language_seed=2
            ),
            4,
        ),
        (GeneratedText(n_letters=2, stretch_length=3, distances=(1,), language_seed=1), 4),
        (GeneratedText(n_letters=3, stretch_length=1, distances=(1, 3, 5), language_seed=4), 4),
    ],
)
def test_the_optimum_is_that_of_counting_every_text(source, n_blocks):
    texts, chances = every_text(source, n_blocks)
    assert abs(chances.sum() - 1) < 1e-12
    rng = np.random.default_rng(0)
    for row in rng.choice(len(texts), size=4, p=chances):
        for context in (*range(source.least_context, 3 * source.block_length + 1), None):
            found = source.optimal_bits(torch.from_numpy(texts[row]), context).tolist()
            for t, bits in enumerate(found):
                start = 0 if context is None else max(0, t - context)
                same = (texts[:, start:t] == texts[row, start:t]).all(axis=1)
                right = same & (texts[:, t] == texts[row, t])
                assert bits == pytest.approx(-log2(chances[right].sum() / chances[same].sum()), abs=1e-9)


@pytest.mark.parametrize("context", [4, 5, 6, 9, 10, 15, 20, None])
def test_the_rate_is_the_mean_over_every_text(context):
    # the last two of the blocks, before which there are as many as the longest distance
    source = GeneratedText(n_letters=2, stretch_length=3, distances=(1,), shares=None, language_seed=2)
    texts, chances = every_text(source, 4)
    tail = slice(2 * source.block_length, None)
    unique, inverse = np.unique(texts, axis=0, return_inverse=True)
    weights = np.bincount(inverse.ravel(), weights=chances)
    bits = sum(
        p * source.optimal_bits(torch.from_numpy(row), context)[tail].mean().item()
        for row, p in zip(unique, weights, strict=True)
    )
    assert bits == pytest.approx(source.entropy_rate(context), abs=1e-9)


@pytest.mark.parametrize(
    "source", [GeneratedText(), GeneratedText(repeats=False), GeneratedText(distances=(1, 3, 5, 9)), SMALL]
)
def test_the_rate_is_the_mean_over_a_long_text(source):
    tokens = source.sample(300_000, generator(3))
    for context in (source.least_context, 40, 100, None):
        bits = source.optimal_bits(tokens, context)
        per_pair = bits[: len(bits) // (2 * source.block_length) * 2 * source.block_length]
        means = per_pair.view(-1, 2 * source.block_length).mean(1)
        error = means.std() / len(means) ** 0.5
        assert abs(means.mean() - source.entropy_rate(context)) < 5 * error


def test_more_context_costs_less_and_the_control_gains_nothing():
    source, control = GeneratedText(), GeneratedText(repeats=False)
    contexts = [15, 16, 31, 32, 48, 112, 240]
    rates = [source.entropy_rate(context) for context in contexts]
    assert rates == sorted(rates, reverse=True) and len(set(rates)) == len(rates)
    assert rates[-1] == source.entropy_rate() < 0.6 * rates[1]
    assert {control.entropy_rate(context) for context in contexts} == {control.entropy_rate()}
    assert control.entropy_rate() > rates[0]


def test_the_order_of_blocks_matters():
    """Pairs of blocks in another order: this source could not have said it, and for the control it is nothing special."""
    source = GeneratedText()
    tokens = source.sample(2000 * 16, generator())
    parts = tokens.view(-1, 2, 16)
    order = torch.randperm(len(parts), generator=generator(1))
    shuffled = parts[order].flatten()
    assert source.optimal_bits(shuffled).mean() == inf
    control = GeneratedText(repeats=False)
    assert control.optimal_bits(shuffled).mean() > 1.5 * source.optimal_bits(tokens).mean()


def test_repeat_shares_are_what_a_text_shows():
    source = GeneratedText(distances=(1, 3, 7))
    found = blocks(source, source.sample(20_000 * 16, generator()))
    last, counts, n_repeats = {}, np.zeros(7), 0
    for index, block in enumerate(found):
        letters = tuple(block[1:-1])
        if index % 2 and index > 7:
            n_repeats += 1
            counts[index - last[letters] - 1] += 1
        last[letters] = index
    shares = source.repeat_shares(7)
    assert shares.sum() == pytest.approx(1)
    np.testing.assert_allclose(counts / n_repeats, shares, atol=0.02)


def test_the_letters_entropies():
    source = GeneratedText(n_letters=3, language_seed=5)
    law, shares = source.transitions, source.letter_shares
    assert shares @ law == pytest.approx(shares) and shares.sum() == pytest.approx(1)
    two = law @ law
    expected = -sum(shares[a] * two[a, b] * log2(two[a, b]) for a in range(3) for b in range(3))
    assert source.letter_entropy(2) == pytest.approx(expected)
    assert source.letter_entropy(0) == pytest.approx(-sum(p * log2(p) for p in shares))
    assert source.letter_entropy(1) < source.letter_entropy(2) < source.letter_entropy(0)


# --- What bad input gets -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_letters": 1}, "n_letters must be a whole number of at least 2; got 1"),
        ({"n_letters": 27}, "n_letters must be at most 26; got 27"),
        ({"stretch_length": 0}, "stretch_length must be a whole number of at least 1; got 0"),
        ({"distances": (1, 2)}, r"distances must be 1 to 9 odd numbers of blocks, ascending; got \(1, 2\)"),
        ({"distances": (3, 1)}, "ascending"),
        ({"distances": (3, 3)}, "ascending"),
        ({"distances": ()}, "distances must be 1 to 9"),
        ({"shares": (0.5, 0.5)}, r"sum to 1, one for each of 4 distances; got \(0.5, 0.5\)"),
        ({"shares": (0.5, 0.5, 0.1, -0.1)}, "shares must be above 0"),
        ({"language_seed": -1}, "language_seed must be a whole number of at least 0; got -1"),
    ],
)
def test_bad_sources(options, message):
    with pytest.raises(ValueError, match=message):
        GeneratedText(**options)


def test_too_small_a_context():
    source = GeneratedText()
    for call in (
        source.entropy_rate,
        lambda context: source.optimal_bits(source.sample(32, generator()), context),
    ):
        with pytest.raises(ValueError, match="context must be a whole number of at least 15; got 14"):
            call(14)


def test_a_text_that_is_none():
    source = GeneratedText()
    tokens = source.sample(64, generator())
    with pytest.raises(ValueError, match="block 0 is"):
        source.optimal_bits(tokens[1:])
    with pytest.raises(ValueError, match="block 1 is"):
        source.optimal_bits(tokens[:16].repeat(2))
    with pytest.raises(ValueError, match=r"a text \[N\] of at least 1 character; got shape \[2, 32\]"):
        source.optimal_bits(tokens.view(2, 32))
    with pytest.raises(ValueError, match="n_characters must be a whole number of at least 1; got 0"):
        source.sample(0, generator())


def test_what_the_source_cannot_say_costs_infinitely_much():
    source = GeneratedText(distances=(1,))
    tokens = source.sample(32, generator())
    tokens[20] = (tokens[20] + 1) % source.n_letters
    bits = source.optimal_bits(tokens)
    assert bits[20] == inf and bits[:17].isfinite().all() and bits[21:].eq(0).all()
