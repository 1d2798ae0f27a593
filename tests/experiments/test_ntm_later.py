"""What later machines do, by hand: usage, allocation and links; least-used writing; a choice drawn and weighted."""

import numpy as np
import pytest
import torch

from attn.experiments.ntm import later


def test_usage_grows_by_writing_and_falls_by_freeing():
    used = later.usage(np.array([0.5, 0.0, 1.0]), np.array([0.5, 0.25, 0.0]))
    assert used.tolist() == [0.75, 0.25, 1.0], "0.5 + 0.5 - 0.25; what is full stays full"
    assert later.usage(used, np.zeros(3), freed=np.array([1.0, 0.0, 0.5])).tolist() == [0.0, 0.25, 0.5]


def test_the_least_used_slot_is_allocated_first():
    # in order of usage 0.25, 0.5, 1: (1 - 0.25), then (1 - 0.5) * 0.25, then (1 - 1) * 0.25 * 0.5
    assert later.allocation(np.array([0.5, 1.0, 0.25])).tolist() == [0.125, 0.0, 0.75]
    assert later.allocation(np.array([1.0, 0.0, 0.0])).tolist() == [0.0, 1.0, 0.0], "the first of free ones"
    assert not later.allocation(np.ones(3)).any(), "nothing is free"


def test_links_lead_from_each_write_to_the_next():
    found = later.links([np.eye(4)[slot] for slot in (2, 0, 3)])
    expected = np.zeros((4, 4))
    expected[0, 2] = expected[3, 0] = 1
    assert found.tolist() == expected.tolist()
    assert (found @ np.eye(4)[2]).tolist() == np.eye(4)[0].tolist(), "forward"
    assert (found.T @ np.eye(4)[3]).tolist() == np.eye(4)[0].tolist(), "back"


def test_a_slot_written_again_leaves_its_old_place_in_the_order():
    found = later.links([np.eye(3)[slot] for slot in (0, 1, 0)])
    assert np.argwhere(found).tolist() == [[0, 1]]


def test_links_of_soft_writes():
    first, second = np.array([0.5, 0.5]), np.array([0.25, 0.75])
    # the first write has none before it; then (i, j) gets second(i) * first(j), off the diagonal
    assert later.links([first, second]).tolist() == [[0.0, 0.125], [0.375, 0.0]]
    # a third of half the weight: old links fade by 1 - w(i) - w(j); precedence is 0 * first + second
    third = np.array([0.5, 0.0])
    expected = [[0.0, 0.5 * 0.125 + 0.5 * 0.75], [0.5 * 0.375, 0.0]]
    assert later.links([first, second, third]) == pytest.approx(np.array(expected))


def test_the_story_tells_usage_next_place_and_ways():
    lines = repr(later.story([2, 0, 3], 5)).splitlines()
    cells = [line.split("  ") for line in lines[3:]]
    rows = [[cell.strip() for cell in row if cell.strip()] for row in cells]
    assert rows[0] == ["0", "1", "0", "slot 3 (1)", "slot 2 (1)"]
    assert rows[1] == ["1", "0", "1", "nowhere", "nowhere"]
    assert rows[3] == ["3", "1", "0", "nowhere", "slot 0 (1)"]


@pytest.mark.parametrize(("slots", "n_slots"), [([2, 7], 5), ([-1], 5), ([], 5)])
def test_slots_that_there_are_not_are_refused(slots, n_slots):
    with pytest.raises(ValueError, match="slots must be at least one of 0 to 4; got"):
        later.story(slots, n_slots=n_slots)
    with pytest.raises(ValueError, match="slots must be at least one of 0 to 4; got"):
        later.mann_story([(0.5, slot) for slot in slots], n_slots=n_slots, decay=0.9)


# --- least-used writing --------------------------------------------------------------------------------------------------


def test_the_least_used_slots_are_marked():
    usage = np.array([0.5, 0.0, 1.0, 0.0])
    assert later.least_used(usage).tolist() == [0, 1, 0, 0], "the first of equal ones"
    assert later.least_used(usage, 3).tolist() == [1, 1, 0, 1]


def test_the_gate_mixes_the_slot_just_read_with_the_least_used_one():
    read, usage = np.array([0.25, 0.75, 0.0]), np.array([1.0, 2.0, 0.5])
    assert later.mann_write(read, usage, 1).tolist() == read.tolist()
    assert later.mann_write(read, usage, 0).tolist() == [0, 0, 1]
    assert later.mann_write(read, usage, 0.5).tolist() == [0.125, 0.375, 0.5]


def test_the_story_of_writing_decays_usage():
    lines = repr(later.mann_story([(0, 1), (1, 1), (0, 2)], 3, decay=0.5)).splitlines()[3:]
    rows = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]
    assert rows[0] == ["1", "0", "0", "1.00 0.00 0.00", "1", "1.00 1.00 0.00"]
    assert rows[1] == ["2", "1", "2", "0.00 1.00 0.00", "1", "0.50 2.50 0.00"], "what was read at step 1"
    assert rows[2] == ["3", "0", "2", "0.00 0.00 1.00", "2", "0.25 1.25 2.00"]


# --- a choice ------------------------------------------------------------------------------------------------------------

REWARDS = np.array([1.0, 0.25, 0.0])
SCORES = np.array([0.3, -0.2, 0.1])


def test_the_weighted_gradient_is_that_of_the_weighted_reward():
    scores = torch.tensor(SCORES, requires_grad=True)
    (scores.softmax(0) @ torch.tensor(REWARDS)).backward()
    assert later.weighted_gradient(SCORES, REWARDS) == pytest.approx(scores.grad.numpy())


@pytest.mark.parametrize("baseline", [0.0, 0.4])
def test_drawing_has_the_same_gradient_on_average(baseline):
    mean, variance = later.moments(SCORES, REWARDS, baseline)
    assert mean == pytest.approx(later.weighted_gradient(SCORES, REWARDS)) and variance > 0
    scores = torch.tensor(SCORES, requires_grad=True)  # the estimate is (R - b) grad log p
    for option in range(len(SCORES)):
        scores.grad = None
        ((REWARDS[option] - baseline) * scores.log_softmax(0)[option]).backward()
        assert later.sampled_gradients(SCORES, REWARDS, baseline)[option] == pytest.approx(
            scores.grad.numpy()
        )


def test_the_variance_at_equal_scores_has_a_closed_form():
    """With K options, sum over components of (e_k - 1/K)^2 is 1 - 1/K; rewards of 1 and K - 1 times 0."""
    k = 4
    rewards = np.eye(k)[0]
    mean, variance = later.moments(np.zeros(k), rewards)
    assert mean.tolist() == [(1 - 1 / k) / k, *[-1 / k**2] * (k - 1)]
    assert variance == pytest.approx((1 - 1 / k) / k - (1 - 1 / k) / k**2)


def test_equal_rewards_less_their_mean_leave_no_variance():
    assert later.moments(SCORES, np.full(3, 0.7), 0.7)[1] == 0 < later.moments(SCORES, np.full(3, 0.7))[1]


def test_either_way_of_choosing_learns_the_best_option():
    assert later.learn(REWARDS, 0, 1.0) == pytest.approx(1 / 3)
    first = later.softmax(0.5 * later.weighted_gradient(np.zeros(3), REWARDS))[0]
    assert later.learn(REWARDS, 1, 0.5) == pytest.approx(first)
    assert (
        later.learn(REWARDS, 400, 0.5) > 0.9 < later.learn(REWARDS, 400, 0.5, np.random.default_rng(0), 0.4)
    )


def test_the_story_of_a_choice_has_both_gradients():
    lines = repr(later.choice_story([1, 0, 0, 0], 10, 0.5, runs=3)).splitlines()
    weighted, drawn, less = (line for line in lines if line.startswith(("weighted", "drawn")))
    assert weighted.split()[1:3] == ["0.188", "0"] and drawn.split()[1:3] == ["0.188", "0.141"]
    assert "median of 3 runs" in drawn and float(less.split()[6]) < 0.141
