import statistics

import pytest
import torch
from scipy import stats

from attn.data.repeat_copy import RepeatCopyTask
from attn.training.seeding import generator_for

SMALL = {"n_bits": 3, "min_length": 2, "max_length": 4, "min_repeats": 1, "max_repeats": 3}


def drawn(task=None, batch_size=12, seed=0, **options):
    return (task or RepeatCopyTask(**SMALL)).sample(batch_size, generator_for(seed, "test"), **options)


def sizes(episodes):
    """Vectors and repeats of every episode, from its number of scored steps."""
    answers = [int(scored.sum()) - 1 for scored in episodes.scored]
    lengths = episodes.lengths.tolist()
    assert all(answer % length == 0 for answer, length in zip(answers, lengths, strict=True))
    return [(length, answer // length) for answer, length in zip(answers, lengths, strict=True)]


# --- Layout ----------------------------------------------------------------------------------------------


def test_the_layout_by_hand():
    task = RepeatCopyTask(n_bits=2, max_repeats=2)  # 1 or 2 repeats: mean 3/2, deviation 1/2
    episodes = task.episodes(torch.tensor([[[1.0, 0.0], [1.0, 1.0]]]), 3)
    assert (
        episodes.inputs[0].tolist()
        == [
            [0, 0, 1, 0],  # start marker
            [1, 0, 0, 0],
            [1, 1, 0, 0],
            [0, 0, 0, 3],  # the number: (3 - 3/2) / (1/2)
        ]
        + [[0, 0, 0, 0]] * 7
    )
    assert episodes.targets[0].tolist() == [[0, 0, 0]] * 4 + [
        [1, 0, 0],
        [1, 1, 0],
        [1, 0, 0],
        [1, 1, 0],
        [1, 0, 0],
        [1, 1, 0],
        [0, 0, 1],  # end marker
    ]
    assert episodes.scored[0].tolist() == [False] * 4 + [True] * 7
    assert episodes.lengths.tolist() == [2]


@pytest.mark.parametrize("same_length", [True, False])
def test_the_answer_by_a_loop(same_length):
    episodes = drawn(batch_size=30, same_length=same_length)
    for index, (length, repeats) in enumerate(sizes(episodes)):
        inputs, targets = episodes.inputs[index].tolist(), episodes.targets[index].tolist()
        vectors = [row[:3] for row in inputs[1 : length + 1]]
        expected = [vector + [0] for _ in range(repeats) for vector in vectors] + [[0, 0, 0, 1]]
        start = length + 2
        stop = start + len(expected)
        assert targets[start:stop] == expected
        assert [step for step, counts in enumerate(episodes.scored[index].tolist()) if counts] == list(
            range(start, stop)
        )
        assert not any(any(row) for row in targets[:start] + targets[stop:])
        assert not any(any(row) for row in inputs[start:]), "there is no input while answering"
        assert [row[3] for row in inputs] == [1] + [0] * (len(inputs) - 1), "one start marker"
        assert not any(row[4] for step, row in enumerate(inputs) if step != length + 1), "one number"


def test_every_mixed_episode_equals_the_same_episode_alone():
    task = RepeatCopyTask(**SMALL)
    together = drawn(task, batch_size=12, same_length=False)
    assert len(set(sizes(together))) > 4
    for index, (length, repeats) in enumerate(sizes(together)):
        alone = task.episodes(together.inputs[index : index + 1, 1 : length + 1, :3], repeats)
        n_steps = length + 3 + length * repeats
        assert alone.inputs.shape[1] == n_steps
        for name in ("inputs", "targets", "scored"):
            mixed = getattr(together, name)[index]
            assert torch.equal(mixed[:n_steps], getattr(alone, name)[0]), name
            assert not mixed[n_steps:].any(), name


def test_shapes_and_types():
    episodes = RepeatCopyTask(n_bits=3).draw(2, generator_for(0, "test"), length=4, repeats=5)
    assert episodes.inputs.shape == (2, 27, 5) and episodes.inputs.dtype == torch.float32
    assert episodes.targets.shape == (2, 27, 4) and episodes.targets.dtype == torch.float32
    assert episodes.scored.shape == (2, 27) and episodes.scored.dtype == torch.bool
    assert episodes.lengths.tolist() == [4, 4]


def test_the_default_sizes_are_those_of_the_paper():
    task = RepeatCopyTask()
    assert (task.n_inputs, task.n_outputs) == (8, 7)  # what table 3 implies
    assert (task.min_length, task.max_length, task.min_repeats, task.max_repeats) == (1, 10, 1, 10)
    assert (task.n_vectors, RepeatCopyTask(max_length=7).n_vectors) == (10, 7)


# --- The number of repeats -------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high"), [(1, 10), (1, 2), (3, 9)])
def test_the_number_has_mean_0_and_variance_1_over_the_training_range(low, high):
    task = RepeatCopyTask(min_repeats=low, max_repeats=high)
    numbers = [task.scaled(repeats) for repeats in range(low, high + 1)]
    assert statistics.fmean(numbers) == pytest.approx(0, abs=1e-12)
    assert statistics.pvariance(numbers) == pytest.approx(1)


@pytest.mark.parametrize("repeats", [1, 2, 10, 11, 20, 50])
def test_one_line_inside_and_beyond_the_training_range(repeats):
    trained = range(1, 11)
    expected = (repeats - statistics.fmean(trained)) / statistics.pstdev(trained)
    task = RepeatCopyTask()
    assert task.scaled(repeats) == pytest.approx(expected)
    episodes = task.draw(3, generator_for(0, "test"), length=2, repeats=repeats)
    assert episodes.inputs[:, 3, 7].tolist() == pytest.approx([expected] * 3)


def test_a_single_number_of_repeats_is_shown_as_0():
    task = RepeatCopyTask(min_repeats=4, max_repeats=4)
    assert task.scaled(4) == 0
    episodes = drawn(task, batch_size=5)
    assert not episodes.inputs[..., 7].any()
    assert {repeats for _, repeats in sizes(episodes)} == {4}


# --- Drawing ---------------------------------------------------------------------------------------------


def test_one_size_for_all_or_one_for_each():
    assert all(len(set(sizes(drawn(seed=seed)))) == 1 for seed in range(5))
    assert len({sizes(drawn(seed=seed))[0] for seed in range(5)}) > 1
    assert len(set(sizes(drawn(batch_size=100, same_length=False)))) == 9


@pytest.mark.parametrize("same_length", [True, False])
def test_lengths_and_repeats_are_uniform_and_independent(same_length):
    task = RepeatCopyTask(**SMALL)
    if same_length:
        generator = generator_for(0, "sizes")
        found = [sizes(task.sample(1, generator))[0] for _ in range(900)]
    else:
        found = sizes(drawn(task, batch_size=900, same_length=False))
    pairs = [(length, repeats) for length in (2, 3, 4) for repeats in (1, 2, 3)]
    assert set(found) <= set(pairs)
    assert stats.chisquare([found.count(pair) for pair in pairs]).pvalue > 1e-3


def test_sizes_beyond_the_training_ranges_can_be_drawn():
    task = RepeatCopyTask(**SMALL)
    assert sizes(task.draw(4, generator_for(0, "test"), length=12, repeats=7)) == [(12, 7)] * 4


def test_bits_are_fair_coins():
    vectors = RepeatCopyTask(n_bits=3).draw(2000, generator_for(0, "bits"), length=4, repeats=1).inputs
    # standard deviation of the mean of 2000 coins 0.011
    assert (vectors[:, 1:5, :3].mean(0) - 0.5).abs().max() < 0.05


# --- What bad input gets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, 1.5, True])
def test_n_bits_must_be_a_whole_number_of_at_least_1(value):
    with pytest.raises(ValueError, match=rf"^n_bits must be a whole number of at least 1; got {value!r}$"):
        RepeatCopyTask(n_bits=value)


@pytest.mark.parametrize("name", ["length", "repeats"])
@pytest.mark.parametrize(("low", "high"), [(0, 3), (3, 2), (1, 2.5), (True, 3)])
def test_lengths_and_repeats_must_be_ranges(name, low, high):
    with pytest.raises(ValueError) as error:
        RepeatCopyTask(**{f"min_{name}": low, f"max_{name}": high})
    wanted = f"min_{name} and max_{name} must be whole numbers with 1 <= min <= max"
    assert str(error.value) == f"{wanted}; got {low!r} and {high!r}"


@pytest.mark.parametrize("name", ["length", "repeats"])
@pytest.mark.parametrize("value", [0, -1, 2.0, True])
def test_drawn_sizes_must_be_whole_numbers_of_at_least_1(name, value):
    with pytest.raises(ValueError) as error:
        RepeatCopyTask().draw(2, generator_for(0, "test"), **({"length": 2, "repeats": 2} | {name: value}))
    assert str(error.value) == f"{name} must be a whole number of at least 1; got {value!r}"


@pytest.mark.parametrize("repeats", [0, 1.0, True])
def test_given_repeats_must_be_a_whole_number_of_at_least_1(repeats):
    with pytest.raises(ValueError) as error:
        RepeatCopyTask(n_bits=1).episodes(torch.ones(1, 2, 1), repeats)
    assert str(error.value) == f"repeats must be a whole number of at least 1; got {repeats!r}"


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 0, 2), (2, 3, 2, 1)])
def test_bits_must_have_the_right_shape(shape):
    with pytest.raises(ValueError) as error:
        RepeatCopyTask(n_bits=2).episodes(torch.zeros(shape), 1)
    assert str(error.value) == f"bits must have shape [batch, length, 2]; got {list(shape)}"


def test_bits_must_be_0_or_1():
    with pytest.raises(ValueError, match=r"^bits must hold only 0 and 1; got 0\.5$"):
        RepeatCopyTask(n_bits=2).episodes(torch.tensor([[[0.0, 1.0], [0.5, 1.0]]]), 1)
