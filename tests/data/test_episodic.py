import pytest
import torch

from attn.data.associative_recall import AssociativeRecallTask
from attn.data.episodic import (
    CopyTask,
    Episodes,
    check_bits,
    check_count,
    check_range,
    draw_bits,
    draw_size,
    padded,
)
from attn.data.ngrams import NGramTask
from attn.data.priority_sort import PrioritySortTask
from attn.data.repeat_copy import RepeatCopyTask
from attn.training.seeding import generator_for

# Every task with small sizes, its n_bits, n_inputs, n_outputs and n_vectors, and the sizes of training.
TASKS = {
    "copy": (CopyTask(n_bits=3, min_length=2, max_length=5), (3, 5, 4, 5), [(2,), (3,), (4,), (5,)]),
    "repeat copy": (
        RepeatCopyTask(n_bits=3, min_length=3, max_length=4, max_repeats=3),
        (3, 5, 4, 4),
        [(3, 1), (3, 2), (3, 3), (4, 1), (4, 2), (4, 3)],
    ),
    "associative recall": (
        AssociativeRecallTask(n_bits=3, item_length=2, max_items=4),
        (3, 5, 3, 4),
        [(2,), (3,), (4,)],
    ),
    "n-grams": (NGramTask(order=3, length=12), (1, 1, 1, 0), [()]),
    "priority sort": (PrioritySortTask(n_bits=3, n_shown=6, n_answered=4), (3, 4, 3, 6), [()]),
}
every_task = pytest.mark.parametrize("task", [task for task, *_ in TASKS.values()], ids=list(TASKS))


def drawn(task=None, batch_size=12, seed=0, **options):
    task = task or CopyTask(n_bits=3, min_length=1, max_length=5)
    return task.sample(batch_size, generator_for(seed, "test"), **options)


def assert_same(found, expected):
    for name in Episodes._fields:
        assert torch.equal(getattr(found, name), getattr(expected, name)), name


# --- Every task ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(TASKS))
def test_the_channels_and_vectors_a_model_needs(name):
    task, numbers, _ = TASKS[name]
    assert (task.n_bits, task.n_inputs, task.n_outputs, task.n_vectors) == numbers
    for same_length in (True, False):
        episodes = drawn(task, batch_size=3, same_length=same_length)
        assert (episodes.inputs.shape[-1], episodes.targets.shape[-1]) == numbers[1:3]
        assert {tensor.shape[0] for tensor in episodes} == {3}
        assert len({tensor.shape[1] for tensor in episodes[:3]}) == 1


@pytest.mark.parametrize("name", list(TASKS))
def test_the_sizes_of_training_are_those_that_are_drawn(name):
    task, _, expected = TASKS[name]
    assert task.sizes() == expected

    def size_of(episodes):
        assert episodes.lengths.unique().numel() == 1 and (episodes.scored == episodes.scored[0]).all()
        return int(episodes.lengths[0]), episodes.inputs.shape[1], int(episodes.scored[0].sum())

    of_size = {size_of(task.draw(4, generator_for(0, "draw"), *size)) for size in expected}
    generator = generator_for(0, "sample")
    assert {size_of(task.sample(4, generator)) for _ in range(100)} == of_size
    assert len(of_size) == len(expected)


@pytest.mark.parametrize("name", list(TASKS))
def test_a_batch_of_one_size_depends_on_its_generator_alone(name):
    task, _, sizes = TASKS[name]
    one, same, other = (task.draw(12, generator_for(seed, "draw"), *sizes[-1]) for seed in (0, 0, 1))
    assert_same(one, same)
    assert not torch.equal(one.inputs, other.inputs)
    assert len(one.inputs.flatten(1).unique(dim=0)) > 6, "episodes differ from each other"


@every_task
@pytest.mark.parametrize("same_length", [True, False])
def test_targets_are_bits_and_lie_in_scored_steps(task, same_length):
    episodes = drawn(task, batch_size=30, same_length=same_length)
    assert set(episodes.targets.unique().tolist()) == {0, 1}
    assert not episodes.targets[~episodes.scored].any()
    assert episodes.scored.any(1).all()
    if same_length:
        assert (episodes.scored == episodes.scored[0]).all(), "no padding"


@every_task
@pytest.mark.parametrize("same_length", [True, False])
def test_equal_generators_give_equal_batches(task, same_length):
    assert_same(drawn(task, seed=3, same_length=same_length), drawn(task, seed=3, same_length=same_length))
    one, other = (drawn(task, seed=seed, same_length=same_length) for seed in (3, 4))
    assert one.inputs.shape != other.inputs.shape or not torch.equal(one.inputs, other.inputs)


@every_task
@pytest.mark.parametrize("same_length", [True, False])
def test_one_generator_gives_a_new_batch_every_time(task, same_length):
    generator = generator_for(3, "test")
    one, other = (task.sample(12, generator, same_length=same_length) for _ in range(2))
    assert one.inputs.shape != other.inputs.shape or not torch.equal(one.inputs, other.inputs)


@every_task
@pytest.mark.parametrize("same_length", [True, False])
def test_drawing_leaves_the_default_generator_alone(task, same_length):
    torch.manual_seed(0)
    one = drawn(task, same_length=same_length)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    assert_same(drawn(task, same_length=same_length), one)
    assert torch.equal(torch.rand(3), expected)


@every_task
@pytest.mark.parametrize("same_length", [True, False])
@pytest.mark.parametrize("batch_size", [0, -1, 2.0, True])
def test_a_batch_has_at_least_one_episode(task, same_length, batch_size):
    with pytest.raises(ValueError) as error:
        drawn(task, batch_size, same_length=same_length)
    assert str(error.value) == f"batch_size must be a whole number of at least 1; got {batch_size!r}"


@every_task
def test_a_task_cannot_be_changed(task):
    with pytest.raises(AttributeError):
        task.n_bits = 3
    with pytest.raises(TypeError):
        type(task)(8)


# --- Layout of copy --------------------------------------------------------------------------------------


def test_the_layout_by_hand():
    task = CopyTask(n_bits=2)
    episodes = task.episodes(torch.tensor([[[1.0, 0.0], [1.0, 1.0]]]), torch.tensor([2]))
    assert episodes.inputs[0].tolist() == [
        [0, 0, 1, 0],  # start marker
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 0, 1],  # end marker
        [0, 0, 0, 0],
        [0, 0, 0, 0],
    ]
    assert episodes.targets[0].tolist() == [[0, 0, 0]] * 4 + [[1, 0, 0], [1, 1, 0]]
    assert episodes.scored[0].tolist() == [False] * 4 + [True] * 2
    assert episodes.lengths.tolist() == [2]
    assert (task.n_inputs, task.n_outputs) == (4, 3)


def test_a_shorter_episode_is_padded_at_the_end():
    bits = torch.tensor(
        [[[1.0], [0.0], [1.0]], [[1.0], [1.0], [1.0]]]
    )  # the second's last two rows are ignored
    episodes = CopyTask(n_bits=1).episodes(bits, torch.tensor([3, 1]))
    assert (
        episodes.inputs[0].tolist()
        == [[0, 1, 0], [1, 0, 0], [0, 0, 0], [1, 0, 0], [0, 0, 1]] + [[0, 0, 0]] * 3
    )
    assert episodes.inputs[1].tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1]] + [[0, 0, 0]] * 5
    assert episodes.targets[0].tolist() == [[0, 0]] * 5 + [[1, 0], [0, 0], [1, 0]]
    assert episodes.targets[1].tolist() == [[0, 0]] * 3 + [[1, 0]] + [[0, 0]] * 4
    assert episodes.scored.tolist() == [[False] * 5 + [True] * 3, [False] * 3 + [True] + [False] * 4]


def test_every_mixed_episode_equals_the_same_episode_alone():
    task = CopyTask(n_bits=3)
    bits = torch.randint(0, 2, (5, 6, 3), generator=generator_for(0, "bits")).float()
    lengths = torch.tensor([6, 1, 3, 5, 2])
    together = task.episodes(bits, lengths)
    for index, length in enumerate(lengths.tolist()):
        alone = task.episodes(bits[index : index + 1, :length], lengths[index : index + 1])
        n_steps = 2 * length + 2
        for name in ("inputs", "targets", "scored"):
            mixed = getattr(together, name)[index]
            assert torch.equal(mixed[:n_steps], getattr(alone, name)[0]), name
            assert not mixed[n_steps:].any(), name


def test_the_answer_repeats_the_vectors():
    for same_length in (True, False):
        episodes = drawn(batch_size=20, same_length=same_length)
        for inputs, targets, scored, length in zip(*episodes, strict=True):
            assert int(scored.sum()) == int(length)
            assert torch.equal(targets[scored][:, :3], inputs[1 : int(length) + 1, :3])
            assert not targets[:, 3].any(), "the marker's target is 0 throughout"
            assert not inputs[scored].any(), "there is no input while answering"


def test_shapes_and_types():
    task = CopyTask(n_bits=3, min_length=4, max_length=4)
    episodes = drawn(task, batch_size=2)
    assert episodes.inputs.shape == (2, 10, 5) and episodes.inputs.dtype == torch.float32
    assert episodes.targets.shape == (2, 10, 4) and episodes.targets.dtype == torch.float32
    assert episodes.scored.shape == (2, 10) and episodes.scored.dtype == torch.bool
    assert episodes.lengths.tolist() == [4, 4]
    assert drawn(CopyTask(), batch_size=1).inputs.shape[-1] == 10
    assert drawn(CopyTask(), batch_size=1).targets.shape[-1] == 9


def test_floats_keep_their_dtype_and_other_bits_become_floats():
    bits = torch.tensor([[[1], [0]]])
    for dtype, expected in (
        (torch.float64, torch.float64),
        (torch.int64, torch.float32),
        (torch.bool, torch.float32),
    ):
        episodes = CopyTask(n_bits=1).episodes(bits.to(dtype), torch.tensor([2]))
        assert episodes.inputs.dtype == episodes.targets.dtype == expected
        assert episodes.targets[0, :, 0].tolist() == [0, 0, 0, 0, 1, 0]


# --- Drawing copy ----------------------------------------------------------------------------------------


def test_one_length_for_all_or_one_for_each():
    assert all(drawn(seed=seed).lengths.unique().numel() == 1 for seed in range(5))
    assert drawn(batch_size=50, same_length=False).lengths.unique().tolist() == [1, 2, 3, 4, 5]


def counts(lengths, low, high):
    return torch.bincount(torch.as_tensor(lengths) - low, minlength=high - low + 1)


def test_lengths_are_uniform_with_both_ends():
    task = CopyTask(n_bits=1, min_length=3, max_length=7)
    found = counts(drawn(task, batch_size=1000, same_length=False).lengths, 3, 7)
    # 200 expected of each, standard deviation 13
    assert len(found) == 5 and (found - 200).abs().max() < 52
    generator = generator_for(0, "lengths")
    of_batches = [int(task.sample(1, generator).lengths[0]) for _ in range(1000)]
    found = counts(of_batches, 3, 7)
    assert len(found) == 5 and (found - 200).abs().max() < 52


def test_longer_episodes_than_in_training_can_be_drawn():
    episodes = CopyTask(n_bits=2, max_length=3).draw(4, generator_for(0, "test"), 9)
    assert episodes.lengths.tolist() == [9] * 4
    assert episodes.targets.shape == (4, 20, 3)


def test_bits_are_fair_coins():
    task = CopyTask(n_bits=4, min_length=5, max_length=5)
    answers = drawn(task, batch_size=2000).targets[:, 7:, :4]
    # standard deviation of the mean of 2000 coins 0.011
    assert (answers.mean(0) - 0.5).abs().max() < 0.05


# --- Pieces that tasks are made of -----------------------------------------------------------------------


def test_drawn_bits_are_floats_and_fair():
    bits = draw_bits(40, 50, 2, generator=generator_for(0, "bits"))
    assert bits.shape == (40, 50, 2) and bits.dtype == torch.float32
    assert set(bits.unique().tolist()) == {0, 1}
    # standard deviation of the mean of 4000 coins 0.008
    assert abs(float(bits.mean()) - 0.5) < 0.032


def test_drawn_sizes_have_both_ends():
    generator = generator_for(0, "sizes")
    assert {draw_size(3, 6, generator) for _ in range(200)} == {3, 4, 5, 6}
    assert draw_size(4, 4, generator) == 4


def test_checked_bits_are_given_back_as_floats():
    bits = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    assert check_bits(bits, "batch", 2) is bits
    assert check_bits(bits.bool(), 1, "length").dtype == torch.float32
    assert check_bits(bits.int(), "batch", "length").tolist() == [[0, 1]]


def test_batches_of_different_lengths_are_padded_at_the_end():
    def batch(n_steps, size):
        inputs = torch.arange(1.0, size * n_steps * 2 + 1).view(size, n_steps, 2)
        return Episodes(
            inputs,
            inputs[..., :1] + 100,
            torch.ones(size, n_steps, dtype=torch.bool),
            torch.full((size,), n_steps),
        )

    together = padded([batch(1, 1), batch(3, 2), batch(2, 1)])
    assert together.inputs.tolist() == [
        [[1, 2], [0, 0], [0, 0]],
        [[1, 2], [3, 4], [5, 6]],
        [[7, 8], [9, 10], [11, 12]],
        [[1, 2], [3, 4], [0, 0]],
    ]
    assert together.targets[..., 0].tolist() == [[101, 0, 0], [101, 103, 105], [107, 109, 111], [101, 103, 0]]
    yes, no = True, False
    assert together.scored.tolist() == [[yes, no, no], [yes] * 3, [yes] * 3, [yes, yes, no]]
    assert together.scored.dtype == torch.bool
    assert together.lengths.tolist() == [1, 3, 3, 2]
    assert_same(padded([batch(3, 2)]), batch(3, 2))


# --- Parts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_parts", [1, 2, 3, 5])
def test_parts_are_disjoint_and_make_the_whole(n_parts):
    whole = drawn(batch_size=11, same_length=False)
    parts = [whole.part(index, n_parts) for index in range(n_parts)]
    places = [torch.arange(11)[index::n_parts] for index in range(n_parts)]
    order = torch.cat(places).argsort()
    for name in Episodes._fields:
        together = torch.cat([getattr(part, name) for part in parts])[order]
        assert torch.equal(together, getattr(whole, name)), name


def test_parts_of_equal_lengths_work_too():
    whole = drawn(batch_size=4)
    assert torch.equal(whole.part(1, 2).inputs, whole.inputs[[1, 3]])
    assert torch.equal(whole.part(1, 2).lengths, whole.lengths[[1, 3]])


@pytest.mark.parametrize(("at_most", "sizes"), [(4, [4, 4, 3]), (11, [11]), (50, [11]), (1, [1] * 11)])
def test_splitting_keeps_the_order(at_most, sizes):
    whole = drawn(batch_size=11, same_length=False)
    pieces = whole.split(at_most)
    assert all(isinstance(piece, Episodes) for piece in pieces)
    assert [{len(tensor) for tensor in piece} for piece in pieces] == [{size} for size in sizes]
    assert_same(Episodes(*map(torch.cat, zip(*pieces, strict=True))), whole)


def test_to_moves_every_tensor():
    moved = drawn().to("meta")
    assert isinstance(moved, Episodes)
    assert {tensor.device.type for tensor in moved} == {"meta"}


# --- What bad input gets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, -2, 1.5, "8", True])
def test_n_bits_must_be_a_whole_number_of_at_least_1(value):
    with pytest.raises(ValueError, match=rf"^n_bits must be a whole number of at least 1; got {value!r}$"):
        CopyTask(n_bits=value)


@pytest.mark.parametrize(("low", "high"), [(0, 3), (3, 2), (-1, 1), (1.0, 3), (1, 2.5), (True, 3)])
def test_lengths_must_be_a_range(low, high):
    with pytest.raises(ValueError) as error:
        CopyTask(min_length=low, max_length=high)
    wanted = "min_length and max_length must be whole numbers with 1 <= min <= max"
    assert str(error.value) == f"{wanted}; got {low!r} and {high!r}"


def test_check_range_names_what_it_checks():
    check_range("repeats", 1, 1)
    with pytest.raises(ValueError, match="min_repeats and max_repeats .* got 2 and 1"):
        check_range("repeats", 2, 1)


def test_counts_and_ranges_begin_at_the_least():
    check_count("order", 3, least=3)
    check_range("items", 2, 2, least=2)
    with pytest.raises(ValueError, match=r"^order must be a whole number of at least 3; got 2$"):
        check_count("order", 2, least=3)
    with pytest.raises(ValueError, match=r"with 2 <= min <= max; got 1 and 5$"):
        check_range("items", 1, 5, least=2)


@pytest.mark.parametrize("value", [0, -1, 2.0, True])
def test_a_drawn_length_must_be_a_whole_number_of_at_least_1(value):
    with pytest.raises(ValueError, match=rf"^length must be a whole number of at least 1; got {value!r}$"):
        CopyTask().draw(2, generator_for(0, "test"), value)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 3, 2, 1), (0, 3, 2), (2, 0, 2)])
def test_bits_must_have_the_right_shape(shape):
    with pytest.raises(ValueError) as error:
        CopyTask(n_bits=2).episodes(torch.zeros(shape), torch.tensor([3, 3]))
    assert str(error.value) == f"bits must have shape [batch, length, 2]; got {list(shape)}"


@pytest.mark.parametrize("value", [0.5, -1.0, 2.0, float("nan")])
def test_bits_must_be_0_or_1(value):
    bits = torch.zeros(1, 2, 2)
    bits[0, 1, 0] = value
    with pytest.raises(ValueError) as error:
        CopyTask(n_bits=2).episodes(bits, torch.tensor([2]))
    assert str(error.value) == f"bits must hold only 0 and 1; got {value!r}"


def test_the_first_foreign_bit_is_quoted_as_it_was_given():
    with pytest.raises(ValueError, match=r"^bits must hold only 0 and 1; got 7$"):
        check_bits(torch.tensor([[0, 7, 3]]), "batch", 3)


def test_bits_and_lengths_must_be_tensors_of_real_numbers():
    task = CopyTask(n_bits=2)
    for bits, found in (
        ([[[0, 1]]], "list"),
        (None, "NoneType"),
        (torch.zeros(1, 1, 2) + 0j, "torch.complex64"),
    ):
        with pytest.raises(ValueError) as error:
            task.episodes(bits, torch.tensor([1]))
        assert str(error.value) == f"bits must be a tensor of real numbers [batch, length, 2]; got {found}"
    with pytest.raises(ValueError) as error:
        task.episodes(torch.zeros(1, 3, 2), [3])
    assert str(error.value) == "lengths must be a tensor of 1 whole numbers from 1 to 3; got list"
    with pytest.raises(ValueError, match="lengths must hold 1 whole numbers from 1 to 3"):
        task.episodes(torch.zeros(1, 3, 2), torch.tensor([3 + 0j]))


@pytest.mark.parametrize("lengths", [[3, 4], [0, 3], [-1, 3], [3], [1, 2, 3], [[1, 2]]])
def test_lengths_must_fit_the_vectors(lengths):
    with pytest.raises(ValueError) as error:
        CopyTask(n_bits=2).episodes(torch.zeros(2, 3, 2), torch.tensor(lengths))
    assert str(error.value) == f"lengths must hold 2 whole numbers from 1 to 3; got {lengths}"
