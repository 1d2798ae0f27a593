import pytest
import torch
from scipy import stats

from attn.data.priority_sort import PrioritySortTask
from attn.training.seeding import generator_for

SMALL = PrioritySortTask(n_bits=3, n_shown=6, n_answered=4)


def drawn(task=SMALL, batch_size=12, seed=0, **options):
    return task.sample(batch_size, generator_for(seed, "test"), **options)


def in_order(vectors, priorities):
    """The vectors, highest priority first; Python's sort keeps the order of equals."""
    pairs = sorted(zip(priorities, vectors, strict=True), key=lambda pair: -pair[0])
    return [vector for _, vector in pairs]


# --- Layout ----------------------------------------------------------------------------------------------


def test_the_layout_by_hand():
    task = PrioritySortTask(n_bits=2, n_shown=3, n_answered=2)
    bits = torch.tensor([[[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]])
    episodes = task.episodes(bits, torch.tensor([[0.5, -1.0, 0.75]]))
    assert episodes.inputs[0].tolist() == [[1, 0, 0.5], [1, 1, -1], [0, 1, 0.75], [0, 0, 0], [0, 0, 0]]
    assert episodes.targets[0].tolist() == [[0, 0], [0, 0], [0, 0], [0, 1], [1, 0]]
    assert episodes.scored[0].tolist() == [False] * 3 + [True] * 2
    assert episodes.lengths.tolist() == [3]


@pytest.mark.parametrize("task", [SMALL, PrioritySortTask(), PrioritySortTask(n_shown=5, n_answered=5)])
def test_the_answers_are_sorted_by_priority(task):
    shown, bits = task.n_shown, task.n_bits
    for inputs, targets, scored, length in zip(*(part.tolist() for part in drawn(task)), strict=True):
        expected = in_order([row[:bits] for row in inputs[:shown]], [row[bits] for row in inputs[:shown]])
        assert targets == [[0] * bits] * shown + expected[: task.n_answered]
        assert scored == [False] * shown + [True] * task.n_answered
        assert not any(any(row) for row in inputs[shown:]), "there is no input while answering"
        assert length == shown


def test_of_equal_priorities_the_earlier_goes_first():
    task = PrioritySortTask(n_bits=5, n_shown=20, n_answered=20)
    bits = torch.randint(0, 2, (8, 20, 5), generator=generator_for(0, "bits")).float()
    levels = torch.tensor([-1.0, -0.25, -0.0, 0.0, 1.0])
    priorities = levels[torch.randint(0, 5, (8, 20), generator=generator_for(0, "priorities"))]
    answers = task.episodes(bits, priorities).targets[:, 20:].tolist()
    assert answers == [in_order(*one) for one in zip(bits.tolist(), priorities.tolist(), strict=True)]


def test_priorities_that_are_equal_as_shown_still_sort_by_what_was_given():
    task = PrioritySortTask(n_bits=1, n_shown=2, n_answered=1)
    priorities = torch.tensor([[0.5, 0.5 + 1e-12]], dtype=torch.float64)
    episodes = task.episodes(torch.tensor([[[0.0], [1.0]]]), priorities)
    assert episodes.inputs.dtype == torch.float32
    assert episodes.targets[0].tolist() == [[0], [0], [1]]


@pytest.mark.parametrize("same_length", [True, False])
def test_every_episode_equals_the_same_episode_alone(same_length):
    together = drawn(same_length=same_length)
    for index, inputs in enumerate(together.inputs):
        alone = SMALL.episodes(inputs[None, :6, :3], inputs[None, :6, 3])
        for name in ("inputs", "targets", "scored", "lengths"):
            assert torch.equal(getattr(together, name)[index], getattr(alone, name)[0]), name


def test_shapes_and_types():
    episodes = drawn(batch_size=2)
    assert episodes.inputs.shape == (2, 10, 4) and episodes.inputs.dtype == torch.float32
    assert episodes.targets.shape == (2, 10, 3) and episodes.targets.dtype == torch.float32
    assert episodes.scored.shape == (2, 10) and episodes.scored.dtype == torch.bool
    assert episodes.lengths.tolist() == [6, 6]


def test_the_default_sizes_are_those_of_the_paper():
    task = PrioritySortTask()
    assert (task.n_shown, task.n_answered) == (20, 16)
    assert (task.n_inputs, task.n_outputs) == (9, 8)
    assert (task.n_vectors, SMALL.n_vectors) == (20, 6)


# --- Drawing ---------------------------------------------------------------------------------------------


def test_priorities_are_uniform_from_minus_1_to_1():
    priorities = drawn(PrioritySortTask(n_bits=1), batch_size=500).inputs[:, :20, 1]
    assert stats.kstest(priorities.flatten().numpy(), stats.uniform(-1, 2).cdf).pvalue > 1e-3


def test_every_place_is_answered_first_equally_often():
    priorities = drawn(batch_size=3000).inputs[:, :6, 3]
    first = torch.bincount(priorities.argmax(1), minlength=6)
    assert stats.chisquare(first.numpy()).pvalue > 1e-3


def test_bits_are_fair_coins():
    shown = drawn(batch_size=2000).inputs[:, :6, :3]
    # standard deviation of the mean of 2000 coins 0.011
    assert (shown.mean(0) - 0.5).abs().max() < 0.05


# --- What bad input gets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["n_bits", "n_shown", "n_answered"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_sizes_must_be_whole_numbers_of_at_least_1(name, value):
    with pytest.raises(ValueError) as error:
        PrioritySortTask(**{name: value})
    assert str(error.value) == f"{name} must be a whole number of at least 1; got {value!r}"


def test_no_more_can_be_answered_than_shown():
    with pytest.raises(ValueError, match=r"^n_answered must be at most n_shown=4; got 5$"):
        PrioritySortTask(n_shown=4, n_answered=5)


@pytest.mark.parametrize("shape", [(2, 6), (2, 5, 3), (2, 6, 4), (0, 6, 3)])
def test_bits_must_have_the_right_shape(shape):
    with pytest.raises(ValueError) as error:
        SMALL.episodes(torch.zeros(shape), torch.zeros(2, 6))
    assert str(error.value) == f"bits must have shape [batch, 6, 3]; got {list(shape)}"


def test_bits_must_be_0_or_1():
    bits = torch.zeros(1, 6, 3, dtype=torch.int64)
    bits[0, 5, 2] = 2
    with pytest.raises(ValueError, match=r"^bits must hold only 0 and 1; got 2$"):
        SMALL.episodes(bits, torch.zeros(1, 6))


def test_priorities_must_be_a_tensor_of_real_numbers():
    for priorities, found in (([[0.0] * 6], "list"), (torch.zeros(1, 6) + 0j, "torch.complex64")):
        with pytest.raises(ValueError) as error:
            SMALL.episodes(torch.zeros(1, 6, 3), priorities)
        assert str(error.value) == f"priorities must be a tensor of real numbers; got {found}"


@pytest.mark.parametrize("shape", [(2,), (2, 5), (1, 6), (2, 6, 1)])
def test_priorities_must_have_the_right_shape(shape):
    with pytest.raises(ValueError) as error:
        SMALL.episodes(torch.zeros(2, 6, 3), torch.zeros(shape))
    assert str(error.value) == f"priorities must have shape [2, 6]; got {list(shape)}"


@pytest.mark.parametrize("value", [1.5, -2.0, float("inf"), float("nan")])
def test_priorities_must_lie_between_minus_1_and_1(value):
    priorities = torch.tensor([[-1.0, 1.0, 0.0, value, 0.5, 0.5]])
    with pytest.raises(ValueError) as error:
        SMALL.episodes(torch.zeros(1, 6, 3), priorities)
    assert str(error.value) == f"priorities must lie in [-1, 1]; got {value!r}"
