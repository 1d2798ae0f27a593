from collections import Counter
from itertools import product
from math import log2, prod

import numpy as np
import pytest
import torch
from scipy import special, stats

from attn.data import ngrams
from attn.data.ngrams import NGramTask
from attn.training.seeding import generator_for


def drawn(task, batch_size, seed=0, **options):
    return task.sample(batch_size, generator_for(seed, "test"), **options)


def sequences(task, batch_size, seed=0):
    """Drawn bits as lists of whole numbers."""
    return drawn(task, batch_size, seed).targets[..., 0].int().tolist()


def counted(bits, order, pseudo=0.5):
    """Probability of a 1 at each step: counts in a dictionary, `pseudo` added to each."""
    counts, found = Counter(), []
    for step, bit in enumerate(bits):
        context = tuple(bits[step - order + 1 : step])
        if step < order - 1:
            found.append(0.5)
            continue
        ones, zeros = counts[context, 1], counts[context, 0]
        found.append((ones + pseudo) / (ones + zeros + 2 * pseudo))
        counts[context, bit] += 1
    return found


def cost(bits, probabilities):
    """Bits paid for a sequence."""
    return -sum(log2(p if bit else 1 - p) for bit, p in zip(bits, probabilities, strict=True))


def chance_of(bits, order):
    """Probability of a sequence under the law of the task: one Beta integral for each context."""
    counts = Counter(
        (tuple(bits[step - order + 1 : step]), bits[step]) for step in range(order - 1, len(bits))
    )
    integrals = [
        special.beta(counts[context, 1] + 0.5, counts[context, 0] + 0.5) / special.beta(0.5, 0.5)
        for context in product((0, 1), repeat=order - 1)
    ]
    return 0.5 ** (order - 1) * prod(integrals)


# --- Layout ----------------------------------------------------------------------------------------------


def test_the_layout_by_hand():
    episodes = NGramTask(order=2, length=4).episodes(torch.tensor([[1.0, 0.0, 1.0, 1.0]]))
    assert episodes.inputs[0].tolist() == [[0], [1], [0], [1]]
    assert episodes.targets[0].tolist() == [[1], [0], [1], [1]]
    assert episodes.scored[0].tolist() == [True] * 4
    assert episodes.lengths.tolist() == [4]


@pytest.mark.parametrize("same_length", [True, False])
def test_every_input_is_the_bit_before(same_length):
    task = NGramTask(order=3, length=20)
    episodes = drawn(task, 10, same_length=same_length)
    for inputs, targets in zip(episodes.inputs.tolist(), episodes.targets.tolist(), strict=True):
        assert inputs == [[0]] + targets[:-1]
    assert episodes.scored.all() and episodes.lengths.tolist() == [20] * 10


def test_every_episode_equals_the_same_episode_alone():
    task = NGramTask(order=3, length=20)
    together = drawn(task, 10)
    for index, targets in enumerate(together.targets):
        alone = task.episodes(targets[:, 0].unsqueeze(0))
        for name in ("inputs", "targets", "scored", "lengths"):
            assert torch.equal(getattr(together, name)[index], getattr(alone, name)[0]), name


def test_shapes_and_types():
    episodes = drawn(NGramTask(order=3, length=7), 2)
    assert episodes.inputs.shape == (2, 7, 1) and episodes.inputs.dtype == torch.float32
    assert episodes.targets.shape == (2, 7, 1) and episodes.targets.dtype == torch.float32
    assert episodes.scored.shape == (2, 7) and episodes.scored.dtype == torch.bool


def test_the_default_sizes_are_those_of_the_paper():
    task = NGramTask()
    assert (task.order, task.length, task.n_inputs, task.n_outputs) == (6, 200, 1, 1)
    assert (task.n_bits, task.n_vectors) == (1, 0)


# --- The law of the bits ---------------------------------------------------------------------------------


def test_tables_follow_the_arcsine_law():
    table = ngrams._beta_half(200, 32, generator_for(0, "tables"))
    assert table.shape == (200, 32)
    assert stats.kstest(table.flatten().numpy(), stats.beta(0.5, 0.5).cdf).pvalue > 1e-3


@pytest.mark.parametrize(("order", "length"), [(1, 4), (2, 4), (3, 5)])
def test_sequences_come_as_often_as_their_law_says(order, length):
    task = NGramTask(order=order, length=length)
    found = Counter(map(tuple, sequences(task, 20_000)))
    every = list(product((0, 1), repeat=length))
    expected = [20_000 * chance_of(bits, order) for bits in every]
    assert sum(expected) == pytest.approx(20_000)
    assert stats.chisquare([found[bits] for bits in every], expected).pvalue > 1e-3


def test_a_bit_follows_the_table_at_the_bits_before_it(monkeypatch):
    """With a table of certainties, all bits after the first are determined."""
    certain = torch.tensor([[0, 1, 1, 0, 1, 0, 0, 1], [1, 0, 0, 0, 1, 1, 0, 1]])
    monkeypatch.setattr(ngrams, "_beta_half", lambda rows, columns, generator: certain.float())
    for table, bits in zip(certain.tolist(), sequences(NGramTask(order=4, length=40), 2), strict=True):
        for step in range(3, 40):
            earliest, middle, latest = bits[step - 3 : step]
            assert bits[step] == table[4 * earliest + 2 * middle + latest]


def test_frequencies_after_a_context_follow_the_table_of_the_sequence(monkeypatch):
    tables = torch.tensor([[0.1, 0.3, 0.6, 0.8], [0.9, 0.5, 0.45, 0.2]])
    monkeypatch.setattr(ngrams, "_beta_half", lambda rows, columns, generator: tables)
    for table, bits in zip(tables.tolist(), sequences(NGramTask(order=3, length=5000), 2), strict=True):
        followers = {context: [] for context in product((0, 1), repeat=2)}
        for step in range(2, 5000):
            followers[bits[step - 2], bits[step - 1]].append(bits[step])
        for chance, (context, after) in zip(table, followers.items(), strict=True):
            assert len(after) > 500
            assert stats.binomtest(sum(after), len(after), chance).pvalue > 1e-3, context


def test_the_first_bits_are_fair_coins():
    found = Counter(tuple(bits[:3]) for bits in sequences(NGramTask(order=4, length=4), 8000))
    assert stats.chisquare([found[bits] for bits in product((0, 1), repeat=3)]).pvalue > 1e-3


# --- The best predictor ----------------------------------------------------------------------------------


def test_the_best_predictor_by_hand():
    bits = torch.tensor([[1, 1, 1, 0, 1, 1]])
    assert NGramTask(order=1, length=6).optimal(bits)[0].tolist() == pytest.approx(
        [1 / 2, 3 / 4, 5 / 6, 7 / 8, 7 / 10, 9 / 12]
    )
    assert NGramTask(order=2, length=6).optimal(bits)[0].tolist() == pytest.approx(
        [1 / 2, 1 / 2, 3 / 4, 5 / 6, 1 / 2, 5 / 8]
    )


@pytest.mark.parametrize(("order", "length"), [(1, 30), (2, 2), (3, 60), (6, 200)])
def test_the_best_predictor_equals_a_loop_over_counts(order, length):
    task = NGramTask(order=order, length=length)
    bits = sequences(task, 5)
    found = task.optimal(torch.tensor(bits))
    assert found.shape == (5, length) and found.dtype == torch.float64
    for one, probabilities in zip(bits, found.tolist(), strict=True):
        assert probabilities == pytest.approx(counted(one, order), abs=1e-14)


def test_the_best_predictor_is_the_posterior_mean():
    """The tables integrated out numerically, with Gauss-Jacobi nodes for the density of Beta(1/2, 1/2)."""
    places, weights = special.roots_jacobi(12, -0.5, -0.5)  # exact for polynomials below degree 24
    places, weights = (1 + places) / 2, weights / weights.sum()
    after_0, after_1 = np.meshgrid(places, places, indexing="ij")
    prior = np.outer(weights, weights)
    for bits in ([0, 1, 1, 0, 1, 0, 0, 0, 1, 1], [1, 1, 1, 1, 1, 1, 1, 1, 0, 0]):
        found = NGramTask(order=2, length=10).optimal(torch.tensor([bits]))[0].tolist()
        assert found[0] == 0.5
        posterior = prior
        for before, bit, probability in zip(bits[:-1], bits[1:], found[1:], strict=True):
            chance = after_1 if before else after_0
            assert probability == pytest.approx((posterior * chance).sum() / posterior.sum())
            posterior = posterior * (chance if bit else 1 - chance)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_its_probabilities_multiply_to_that_of_the_sequence(order):
    task = NGramTask(order=order, length=25)
    for bits in sequences(task, 5):
        found = task.optimal(torch.tensor([bits]))[0].tolist()
        assert cost(bits, found) == pytest.approx(-log2(chance_of(bits, order)))


@pytest.mark.parametrize("order", [1, 3])
def test_the_best_predictor_never_looks_ahead(order):
    task = NGramTask(order=order, length=16)
    bits = torch.tensor(sequences(task, 1, seed=2))
    before = task.optimal(bits)[0]
    later_differs = []
    for step in range(16):
        changed = bits.clone()
        changed[0, step] = 1 - changed[0, step]
        after = task.optimal(changed)[0]
        assert torch.equal(after[: step + 1], before[: step + 1])
        later_differs.append(not torch.equal(after, before))
    assert any(later_differs)


def test_the_best_predictor_takes_every_sequence_by_itself():
    task = NGramTask(order=3, length=30)
    bits = torch.tensor(sequences(task, 6))
    alone = [task.optimal(bits[index : index + 1]) for index in range(6)]
    assert torch.equal(task.optimal(bits), torch.cat(alone))


@pytest.fixture(scope="module")
def thousand():
    """A thousand sequences of 200 bits and what the best predictor pays for each."""
    task = NGramTask()
    bits = sequences(task, 1000)
    found = task.optimal(torch.tensor(bits)).tolist()
    return bits, np.array([cost(*one) for one in zip(bits, found, strict=True)])


def test_the_best_cost_is_that_of_the_facts(thousand):
    """`ngram_optimal` in attn/reproduction/papers/graves2014ntm.yaml, a mean over 1000 other sequences."""
    costs = thousand[1]
    assert abs(costs.mean() - 132.1) < 4 * costs.std(ddof=1) / 1000**0.5


@pytest.mark.parametrize("pseudo", [0.25, 1])
def test_other_pseudo_counts_cost_more(thousand, pseudo):
    bits, costs = thousand
    extra = np.array([cost(one, counted(one, 6, pseudo)) for one in bits]) - costs
    assert extra.mean() > 4 * extra.std(ddof=1) / 1000**0.5


@pytest.mark.parametrize("order", [5, 7])
def test_other_context_lengths_cost_more(thousand, order):
    bits, costs = thousand
    extra = np.array([cost(one, counted(one, order)) for one in bits]) - costs
    assert extra.mean() > 4 * extra.std(ddof=1) / 1000**0.5


# --- What bad input gets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, -1, 2.0, True])
def test_the_order_must_be_a_whole_number_of_at_least_1(value):
    with pytest.raises(ValueError) as error:
        NGramTask(order=value)
    assert str(error.value) == f"order must be a whole number of at least 1; got {value!r}"


@pytest.mark.parametrize("value", [3, 0, 4.0, True])
def test_a_sequence_must_be_longer_than_a_context(value):
    with pytest.raises(ValueError) as error:
        NGramTask(order=4, length=value)
    assert str(error.value) == f"length must be a whole number of at least 4; got {value!r}"
    assert drawn(NGramTask(order=4, length=4), 1).targets.shape == (1, 4, 1)


@pytest.mark.parametrize("method", ["episodes", "optimal"])
def test_bits_must_fit_the_task(method):
    call = getattr(NGramTask(order=2, length=4), method)
    for shape in [(4,), (2, 3), (2, 5), (0, 4), (2, 4, 1)]:
        with pytest.raises(ValueError) as error:
            call(torch.zeros(shape))
        assert str(error.value) == f"bits must have shape [batch, 4]; got {list(shape)}"
    with pytest.raises(ValueError, match=r"^bits must hold only 0 and 1; got 0\.25$"):
        call(torch.tensor([[0, 1, 0.25, 1]]))
