"""The differentiable neural computer's usage, allocation and links, by hand."""

import numpy as np
import pytest

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
