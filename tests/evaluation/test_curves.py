from math import inf

import pytest

from attn.evaluation.curves import SOLVED_WINDOW, curve_area, running_median, solved_at


def history(*points):
    return [{"seen": seen, "bits_per_sequence": bits, "step": seen // 10} for seen, bits in points]


def test_the_running_median_by_hand():
    assert running_median([5.0, 1.0, 3.0, 9.0, 2.0], window=3) == [inf, inf, 3.0, 3.0, 3.0]
    assert running_median([4.0, 2.0, 8.0, 6.0], window=2) == [inf, 3.0, 5.0, 7.0]
    assert running_median([4.0, 2.0], window=1) == [4.0, 2.0]
    assert running_median([1.0, 1.0], window=3) == [inf, inf]
    assert running_median([]) == []


def test_the_default_window_looks_at_five_evaluations():
    assert SOLVED_WINDOW == 5
    assert running_median([9.0, 0.0, 0.0, 0.0, 9.0, 9.0, 9.0]) == [inf] * 4 + [0.0, 0.0, 9.0]


def test_solved_where_the_median_first_falls_below():
    curve = history((0, 80), (10, 40), (20, 0.4), (30, 0.3), (40, 0.2), (50, 0.1), (60, 0.1))
    # medians of five: 0.4 at 40, 0.3 at 50, 0.2 at 60
    assert solved_at(curve, 0.5) == 40
    assert solved_at(curve, 0.4) == 50, "strictly below"
    assert solved_at(curve, 0.25) == 60
    assert solved_at(curve, 0.1) is None


def test_a_spike_does_not_unsolve_and_a_dip_does_not_solve():
    spike = history((0, 0.1), (1, 0.1), (2, 50.0), (3, 0.1), (4, 0.1))
    assert solved_at(spike, 1.0) == 4
    dip = history((0, 50.0), (1, 0.1), (2, 50.0), (3, 0.1), (4, 50.0), (5, 50.0))
    assert solved_at(dip, 1.0) is None


def test_too_few_evaluations_solve_nothing():
    assert solved_at(history((0, 0.0), (1, 0.0), (2, 0.0), (3, 0.0)), 1.0) is None
    assert solved_at([], 1.0) is None


def test_the_area_by_hand():
    assert curve_area(history((0, 10.0), (10, 0.0))) == pytest.approx(5.0)
    # 10 sequences at a mean of 6, then 30 at a mean of 2
    assert curve_area(history((0, 8.0), (10, 4.0), (40, 0.0))) == pytest.approx((10 * 6 + 30 * 2) / 40)


def test_the_area_does_not_depend_on_where_counting_starts_or_on_extra_points():
    assert curve_area(history((100, 8.0), (110, 4.0), (140, 0.0))) == pytest.approx(3.0)
    assert curve_area(history((0, 7.0), (3, 7.0), (50, 7.0))) == pytest.approx(7.0)
    assert curve_area(history((0, 8.0), (5, 6.0), (10, 4.0), (25, 2.0), (40, 0.0))) == pytest.approx(3.0)


@pytest.mark.parametrize("points", [(), ((0, 5.0),)])
def test_one_entry_spans_no_area(points):
    with pytest.raises(ValueError) as error:
        curve_area(history(*points))
    assert str(error.value) == f"history must have at least 2 entries to span an area; got {len(points)}"
