"""What chapter 1 says of speed, from made-up results and without a look at the clock."""

import pytest

from attn.experiments.transformer import speeds
from attn.experiments.transformer.complexity import ATTENTION, RECURRENT
from attn.reproduction.speed import Speed


def test_the_cache_is_worth_what_the_times_say():
    times = {"greedy": 0.5, "greedy, no cache": 1.0, "beam 4": 2.0, "beam 4, no cache": 15.0}
    variants = [{"name": name, "seconds": seconds} for name, seconds in times.items()]
    rows = [{"name": "70 tokens", "heap": "kept", "variants": variants}]
    said = speeds.cache_words([Speed("x", {"benchmark": "decoding", "rows": rows})])
    assert "(70 tokens, kept heap: greedy 2.0 times, beam 4 7.5 times)" in said
    assert speeds.cache_words([]) == "Not measured yet."


def test_both_kinds_are_timed_at_every_length_and_drawn():
    lengths = (4, 8)
    seconds = speeds.growth(lengths, d_model=4, rounds=1)
    assert set(seconds) == {ATTENTION, RECURRENT}
    assert all(len(times) == 2 and min(times) > 0 for times in seconds.values())
    (axes,) = speeds.draw_growth(lengths, {ATTENTION: [0.001, 0.002], RECURRENT: [0.003, 0.004]}).axes
    assert axes.lines[1].get_ydata() == pytest.approx([3, 4])
