import pytest
import torch

from attn.data.episodic import CopyTask, Episodes, check_range
from attn.training.seeding import generator_for


def drawn(task=None, batch_size=12, seed=0, **options):
    task = task or CopyTask(n_bits=3, min_length=1, max_length=5)
    return task.sample(batch_size, generator_for(seed, "test"), **options)


def assert_same(found, expected):
    for name in Episodes._fields:
        assert torch.equal(getattr(found, name), getattr(expected, name)), name


# --- Layout ----------------------------------------------------------------------------------------------


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


# --- Drawing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("same_length", [True, False])
def test_equal_generators_give_equal_batches(same_length):
    assert_same(drawn(seed=3, same_length=same_length), drawn(seed=3, same_length=same_length))
    one, other = drawn(seed=3, same_length=same_length), drawn(seed=4, same_length=same_length)
    assert one.inputs.shape != other.inputs.shape or not torch.equal(one.inputs, other.inputs)


def test_drawing_leaves_the_default_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    drawn()
    assert torch.equal(torch.rand(3), expected)


def test_one_length_for_all_or_one_for_each():
    assert all(drawn(seed=seed).lengths.unique().numel() == 1 for seed in range(5))
    assert drawn(batch_size=50, same_length=False).lengths.unique().tolist() == [1, 2, 3, 4, 5]


def counts(lengths, low, high):
    return torch.bincount(torch.as_tensor(lengths) - low, minlength=high - low + 1)


def test_lengths_are_uniform_with_both_ends():
    task = CopyTask(n_bits=1, min_length=3, max_length=7)
    found = counts(drawn(task, batch_size=10_000, same_length=False).lengths, 3, 7)
    # 2000 expected of each, standard deviation 40
    assert len(found) == 5 and (found - 2000).abs().max() < 160
    generator = generator_for(0, "lengths")
    of_batches = [int(task.sample(1, generator).lengths[0]) for _ in range(1000)]
    found = counts(of_batches, 3, 7)
    # 200 expected of each, standard deviation 13
    assert len(found) == 5 and (found - 200).abs().max() < 52


def test_bits_are_fair_coins():
    task = CopyTask(n_bits=4, min_length=5, max_length=5)
    answers = drawn(task, batch_size=2000).targets[:, 7:, :4]
    # standard deviation of the mean of 2000 coins 0.011
    assert (answers.mean(0) - 0.5).abs().max() < 0.05


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


def test_to_moves_every_tensor():
    moved = drawn().to("meta")
    assert isinstance(moved, Episodes)
    assert {tensor.device.type for tensor in moved} == {"meta"}


# --- What bad input gets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, -2, 1.5, "8"])
def test_n_bits_must_be_a_whole_number_of_at_least_1(value):
    with pytest.raises(ValueError, match=rf"^n_bits must be a whole number of at least 1; got {value!r}$"):
        CopyTask(n_bits=value)


@pytest.mark.parametrize(("low", "high"), [(0, 3), (3, 2), (-1, 1), (1.0, 3), (1, 2.5)])
def test_lengths_must_be_a_range(low, high):
    with pytest.raises(ValueError) as error:
        CopyTask(min_length=low, max_length=high)
    assert "min_length and max_length must be whole numbers with 1 <= min <= max" in str(error.value)
    assert f"got {low} and {high}" in str(error.value)


def test_check_range_names_what_it_checks():
    check_range("repeats", 1, 1)
    with pytest.raises(ValueError, match="min_repeats and max_repeats .* got 2 and 1"):
        check_range("repeats", 2, 1)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 3, 2, 1)])
def test_bits_must_have_the_right_shape(shape):
    with pytest.raises(ValueError) as error:
        CopyTask(n_bits=2).episodes(torch.zeros(shape), torch.tensor([3, 3]))
    assert str(error.value) == f"bits must have shape [batch, length, 2]; got {list(shape)}"


@pytest.mark.parametrize("value", [0.5, -1.0, 2.0, float("nan")])
def test_bits_must_be_0_or_1(value):
    bits = torch.zeros(1, 2, 2)
    bits[0, 1, 0] = value
    with pytest.raises(ValueError, match="bits must hold only 0 and 1"):
        CopyTask(n_bits=2).episodes(bits, torch.tensor([2]))


@pytest.mark.parametrize("lengths", [[3, 4], [0, 3], [-1, 3], [3], [1, 2, 3], [[1, 2]]])
def test_lengths_must_fit_the_vectors(lengths):
    with pytest.raises(ValueError) as error:
        CopyTask(n_bits=2).episodes(torch.zeros(2, 3, 2), torch.tensor(lengths))
    assert str(error.value) == f"lengths must hold 2 whole numbers from 1 to 3; got {lengths}"


def test_a_task_cannot_be_changed():
    with pytest.raises(AttributeError):
        CopyTask().n_bits = 3
    with pytest.raises(TypeError):
        CopyTask(8)
