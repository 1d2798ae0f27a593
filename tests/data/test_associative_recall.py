import pytest
import torch
from scipy import stats

from attn.data.associative_recall import AssociativeRecallTask
from attn.training.seeding import generator_for


def drawn(task=None, batch_size=12, seed=0, **options):
    task = task or AssociativeRecallTask(max_items=5)
    return task.sample(batch_size, generator_for(seed, "test"), **options)


def parsed(rows, n_bits):
    """Items, query and number of steps up to the answer, read off the markers of one episode's inputs."""
    items, query, reading = [], None, None
    for step, (*bits, item, ask) in enumerate(rows):
        if not (item or ask):
            assert len(bits) == n_bits
            reading.append(bits)
            continue
        assert (item, ask) in {(1, 0), (0, 1)} and not any(bits), "a marker stands alone"
        if ask and query is not None:
            return items, query, step + 1
        reading = []
        if ask:
            query = reading
        else:
            assert query is None, "items come before the query"
            items.append(reading)
    raise AssertionError("the query has no end")


def queried(rows, n_bits):
    """Which of an episode's items is shown again, if no two are alike."""
    items, query, _ = parsed(rows, n_bits)
    assert items.count(query) == 1
    return items.index(query)


# --- Layout ----------------------------------------------------------------------------------------------


def test_the_layout_by_hand():
    task = AssociativeRecallTask(n_bits=2, item_length=2)
    items = [[[1, 0], [0, 0]], [[1, 1], [0, 1]], [[1, 0], [1, 1]]]
    episodes = task.episodes(torch.tensor([items]), torch.tensor([1]))
    assert episodes.inputs[0].tolist() == [
        [0, 0, 1, 0],  # item marker
        [1, 0, 0, 0],
        [0, 0, 0, 0],
        [0, 0, 1, 0],
        [1, 1, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 1, 0],
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 0, 1],  # query marker
        [1, 1, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 0, 1],  # and again
        [0, 0, 0, 0],
        [0, 0, 0, 0],
    ]
    assert episodes.targets[0].tolist() == [[0, 0]] * 13 + [[1, 0], [1, 1]]
    assert episodes.scored[0].tolist() == [False] * 13 + [True] * 2
    assert episodes.lengths.tolist() == [3]


@pytest.mark.parametrize("same_length", [True, False])
def test_the_answer_is_the_item_after_the_queried_one(same_length):
    episodes = drawn(batch_size=60, same_length=same_length)
    for inputs, targets, scored, length in zip(*(part.tolist() for part in episodes), strict=True):
        items, query, answer = parsed(inputs, 6)
        assert len(items) == length and {len(item) for item in items} == {3}
        assert items.count(query) == 1, "no two items of this seed are alike"
        following = dict(zip(map(str, items), items[1:], strict=False))
        assert targets[answer : answer + 3] == following[str(query)]
        assert [step for step, counts in enumerate(scored) if counts] == list(range(answer, answer + 3))
        assert not any(any(row) for row in targets[:answer] + targets[answer + 3 :])
        assert not any(any(row) for row in inputs[answer:]), "there is no input while answering"


def test_every_given_index_is_queried():
    task = AssociativeRecallTask(n_bits=6, item_length=1)
    items = torch.eye(6)[:5].unsqueeze(1)  # five different items
    episodes = task.episodes(items.expand(4, -1, -1, -1), torch.arange(4))
    assert [queried(rows, 6) for rows in episodes.inputs.tolist()] == [0, 1, 2, 3]
    assert episodes.targets[:, -1].argmax(-1).tolist() == [1, 2, 3, 4]


def test_every_mixed_episode_equals_the_same_episode_alone():
    task = AssociativeRecallTask(max_items=5)
    together = drawn(task, same_length=False)
    assert together.lengths.unique().numel() > 2
    for index, rows in enumerate(together.inputs.tolist()):
        items, _, answer = parsed(rows, 6)
        alone = task.episodes(torch.tensor([items]), torch.tensor([queried(rows, 6)]))
        n_steps = answer + 3
        assert alone.inputs.shape[1] == n_steps
        for name in ("inputs", "targets", "scored"):
            mixed = getattr(together, name)[index]
            assert torch.equal(mixed[:n_steps], getattr(alone, name)[0]), name
            assert not mixed[n_steps:].any(), name


@pytest.mark.parametrize(("items", "item_length"), [(2, 1), (2, 3), (6, 3), (4, 2)])
def test_shapes_and_types(items, item_length):
    task = AssociativeRecallTask(n_bits=5, item_length=item_length)
    episodes = task.draw(3, generator_for(0, "test"), items=items)
    n_steps = items * (1 + item_length) + (1 + item_length + 1) + item_length
    assert episodes.inputs.shape == (3, n_steps, 7) and episodes.inputs.dtype == torch.float32
    assert episodes.targets.shape == (3, n_steps, 5) and episodes.targets.dtype == torch.float32
    assert episodes.scored.shape == (3, n_steps) and episodes.scored.dtype == torch.bool
    assert episodes.lengths.tolist() == [items] * 3


def test_the_default_sizes_are_those_of_the_paper():
    task = AssociativeRecallTask()
    assert (task.n_inputs, task.n_outputs) == (8, 6)  # what table 3 implies
    assert (task.item_length, task.min_items, task.max_items) == (3, 2, 6)
    assert (task.n_vectors, AssociativeRecallTask(max_items=9).n_vectors) == (6, 9)


# --- Drawing ---------------------------------------------------------------------------------------------


def test_one_number_of_items_for_all_or_one_for_each():
    assert all(drawn(seed=seed).lengths.unique().numel() == 1 for seed in range(5))
    assert len({int(drawn(seed=seed).lengths[0]) for seed in range(5)}) > 1
    assert drawn(batch_size=50, same_length=False).lengths.unique().tolist() == [2, 3, 4, 5]


@pytest.mark.parametrize("same_length", [True, False])
def test_the_number_of_items_is_uniform_with_both_ends(same_length):
    task = AssociativeRecallTask(n_bits=1, item_length=1, min_items=3, max_items=6)
    if same_length:
        generator = generator_for(0, "items")
        found = [int(task.sample(1, generator).lengths) for _ in range(1200)]
    else:
        found = drawn(task, batch_size=1200, same_length=False).lengths.tolist()
    assert set(found) == {3, 4, 5, 6}
    assert stats.chisquare([found.count(items) for items in range(3, 7)]).pvalue > 1e-3


def test_every_item_but_the_last_is_queried_equally_often():
    task = AssociativeRecallTask(n_bits=24)  # so that no two items are alike
    episodes = task.draw(1000, generator_for(0, "queries"), items=5)
    found = [queried(rows, 24) for rows in episodes.inputs.tolist()]
    assert set(found) == {0, 1, 2, 3}
    assert stats.chisquare([found.count(index) for index in range(4)]).pvalue > 1e-3


def test_more_items_than_in_training_can_be_drawn():
    episodes = AssociativeRecallTask().draw(2, generator_for(0, "test"), items=20)
    assert episodes.lengths.tolist() == [20, 20]
    assert [len(parsed(rows, 6)[0]) for rows in episodes.inputs.tolist()] == [20, 20]


def test_bits_are_fair_coins():
    episodes = AssociativeRecallTask(n_bits=4).draw(2000, generator_for(0, "bits"), items=3)
    items = episodes.inputs[:, :12, :4].reshape(2000, 3, 4, 4)[:, :, 1:]
    # standard deviation of the mean of 2000 coins 0.011
    assert (items.mean(0) - 0.5).abs().max() < 0.05


# --- What bad input gets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["n_bits", "item_length"])
@pytest.mark.parametrize("value", [0, 1.5, True])
def test_sizes_must_be_whole_numbers_of_at_least_1(name, value):
    with pytest.raises(ValueError, match=rf"^{name} must be a whole number of at least 1; got {value!r}$"):
        AssociativeRecallTask(**{name: value})


@pytest.mark.parametrize(("low", "high"), [(1, 3), (4, 3), (2.0, 3), (2, "3")])
def test_items_must_be_a_range_from_2(low, high):
    with pytest.raises(ValueError) as error:
        AssociativeRecallTask(min_items=low, max_items=high)
    wanted = "min_items and max_items must be whole numbers with 2 <= min <= max"
    assert str(error.value) == f"{wanted}; got {low!r} and {high!r}"


@pytest.mark.parametrize("items", [1, 0, 2.0, True])
def test_drawn_items_must_be_at_least_2(items):
    with pytest.raises(ValueError) as error:
        AssociativeRecallTask().draw(2, generator_for(0, "test"), items=items)
    assert str(error.value) == f"items must be a whole number of at least 2; got {items!r}"


@pytest.mark.parametrize("shape", [(2, 3, 2), (2, 3, 1, 2), (2, 3, 2, 1), (0, 3, 2, 2), (2, 0, 2, 2)])
def test_bits_must_have_the_right_shape(shape):
    with pytest.raises(ValueError) as error:
        AssociativeRecallTask(n_bits=2, item_length=2).episodes(torch.zeros(shape), torch.zeros(2))
    assert str(error.value) == f"bits must have shape [batch, items, 2, 2]; got {list(shape)}"


def test_there_must_be_an_item_after_another():
    with pytest.raises(ValueError) as error:
        AssociativeRecallTask(n_bits=2).episodes(torch.zeros(1, 1, 3, 2), torch.tensor([0]))
    assert str(error.value) == "bits must hold at least 2 items, of which one has another after it; got 1"


def test_bits_must_be_0_or_1():
    bits = torch.zeros(1, 2, 3, 6)
    bits[0, 1, 2, 5] = -1
    with pytest.raises(ValueError, match=r"^bits must hold only 0 and 1; got -1\.0$"):
        AssociativeRecallTask().episodes(bits, torch.tensor([0]))


@pytest.mark.parametrize("indices", [[0, 3], [-1, 0], [0], [0, 1, 2], [[0, 1]]])
def test_the_last_item_and_missing_ones_cannot_be_queried(indices):
    with pytest.raises(ValueError) as error:
        AssociativeRecallTask().episodes(torch.zeros(2, 4, 3, 6), torch.tensor(indices))
    assert str(error.value) == f"queried must hold 2 whole numbers from 0 to 2; got {indices}"
