"""Rates and missed figures of the benchmarks of chapters 3 and 4, from made-up results."""

import pytest

from attn.experiments.adaptive_span import results
from attn.experiments.all_attention import results as all_attention
from attn.reproduction import speed_words as speeds
from attn.reproduction.speed import Speed, check_speed
from tests.reproduction.made_up_speed import result, row

SPAN, VECTORS = "adaptive_span", "all_attention"


def measured(*rows, benchmark=SPAN):
    """A valid result with these rows."""
    data = result(*rows, benchmark=benchmark)
    check_speed(data)
    return Speed(f"speed/{benchmark}/cpu.json", data)


def holding(one, peaks, goal=None):
    """A row whose variants hold so many megabytes at most, with a goal against the second."""
    for variant, peak in zip(one["variants"], peaks, strict=True):
        variant["peak_bytes"] = peak * 2**20
    return one | {"memory_goal": goal and {"against": "theirs", "ratio": goal}}


def test_rates_of_training_and_of_evaluation_stand_side_by_side():
    found = measured(
        row("limit 8", "default", seconds=(0.004, 0.008), goal=None),
        row("limit 8", "kept", seconds=(0.005, 0.01), goal=None),
        row("limit 8, evaluation", "kept", seconds=(0.002, 0.001), goal=None),
        row("limit 64", "kept", seconds=(0.1, 0.2), goal=None),
    )
    lines = repr(speeds.rates_table([found], SPAN)).splitlines()
    assert lines[0].startswith("Example <Processor>: sequences a second")
    assert [line.split() for line in lines[3:]] == [
        ["limit", "8", "ours", "250", "200", "500"], ["theirs", "125", "100", "1,000"],
        ["limit", "64", "ours", "\N{EN DASH}", "10", "\N{EN DASH}"], ["theirs", "\N{EN DASH}", "5", "\N{EN DASH}"],
    ]  # fmt: skip
    assert "Evaluation, kept heap" in lines[1] and "Evaluation, default heap" not in lines[1]
    assert repr(speeds.rates_table([found], VECTORS)) == "Not measured yet."


def test_figures_that_are_not_reached_are_told_for_each_heap():
    slow = [row("limit 8", heap, seconds=(0.002, seconds), goal=goal)
            for heap, seconds, goal in (("default", 0.01, 10), ("kept", 0.008, 7))]  # fmt: skip
    found = measured(*slow, row("limit 4", seconds=(0.002, 0.02), goal=10))
    (only,) = speeds.missed(found)
    assert only.kind == "time" and only.rows == tuple(slow)
    assert only.said == (
        "limit 8: theirs takes 5.00 times (default heap) and 4.00 times (kept heap) as long as ours, at least 10 and 7 asked"
    )
    half = measured(slow[0], row("limit 8", "kept", seconds=(0.002, 0.02), goal=7))
    assert "kept heap" not in speeds.missed(half)[0].said


def test_a_time_that_may_be_longer_is_told_the_other_way_round():
    found = measured(
        row("N = 4", seconds=(0.003, 0.002), goal=1 / 1.15),
        row("N = 2", seconds=(0.00115, 0.001), goal=1 / 1.15),
    )
    assert [figure.said for figure in speeds.missed(found)] == [
        "N = 4: ours takes 1.50 times (default heap) as long as theirs, at most 1.15 asked"
    ]


def test_memory_is_told_once_for_both_heaps():
    rows = [holding(row("limit 8", heap, goal=None), (2, 11), goal=7) for heap in ("default", "kept")]
    reached = holding(row("limit 4", goal=None), (2, 14), goal=7)
    (only,) = speeds.missed(measured(*rows, reached))
    assert only.kind == "memory"
    assert only.said == "limit 8: theirs holds 5.50 times as much memory as ours, at least 7 asked"


def test_disturbed_times_are_not_judged():
    found = measured(row(seconds=(0.002, 0.004), goal=10, disturbed=True))
    assert speeds.missed(found) == []
    assert results.speed_missed([found]) == ["Of the figures that were judged, none is missed."]
    assert results.speed_missed([]) == ["Not measured yet."]


def test_the_reason_of_chapter_3_is_what_is_held_at_the_lowest_limit():
    low = holding(row("limit 8", goal=None), (15, 16))
    high = holding(row("limit 64", seconds=(0.001, 0.002), goal=10), (20, 100), goal=7)
    time, memory = results.speed_missed([measured(low, high)])
    assert time.endswith("at least 10 asked. The reason is not known.")
    assert "holds 5.00 times as much memory as ours, at least 7 asked. Suspected reason: " in memory
    assert memory.endswith("at limit 8 it is 15.0 of these 20.0 MB.")


@pytest.mark.parametrize("attention, layer, times", [(0.001, 0.001, "2.0"), (0.002, 0.004, "0.2")])
def test_the_reason_of_chapter_4_is_what_vectors_add_to_attention(attention, layer, times):
    one = row("N = 4", seconds=(0.003, 0.002), goal=1 / 1.15)
    for name, seconds in (("attention", attention), ("feed-forward", layer)):
        one["variants"].append(
            {
                "name": name,
                "seconds": seconds,
                "quartiles": [seconds, seconds],
                "rate": 1 / seconds,
                "ratio": seconds / 0.003,
            }
        )
    (said,) = all_attention.speed_missed([measured(one, benchmark=VECTORS)])
    assert f"Suspected reason: vectors add to attention {times} times what a feed-forward layer" in said
