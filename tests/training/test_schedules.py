from math import cos, pi

import pytest

from attn.training import TrainingConfig
from attn.training.schedules import cosine, inverse_sqrt, learning_rate, linear_warmup


def make(**settings):
    return TrainingConfig(**({"max_steps": 100, "batch_size": 1, "optimizer": "adam", "lr": 0.5} | settings))


@pytest.mark.parametrize(("d_model", "peak"), [(512, 6.988e-4), (1024, 4.941e-4)])
def test_inverse_sqrt_has_the_peaks_of_the_transformer(d_model, peak):
    config = make(max_steps=9000, lr=d_model**-0.5, schedule="inverse_sqrt", warmup_steps=4000)
    rates = [learning_rate(config, step) for step in range(1, 9001)]
    assert max(rates) == rates[3999] == pytest.approx(peak, rel=1e-4)
    assert rates[999] == pytest.approx(rates[3999] / 4)  # linear before the peak
    assert rates[8999] == pytest.approx(rates[3999] * (4000 / 9000) ** 0.5)


def test_linear_warmup_rises_then_stays():
    assert [linear_warmup(step, warmup_steps=4) for step in range(1, 7)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_cosine_rises_falls_and_ends_at_zero():
    rates = [cosine(step, warmup_steps=2, max_steps=10) for step in range(1, 11)]
    assert rates[:2] == [0.5, 1.0]
    assert rates[3] == pytest.approx((1 + cos(pi / 4)) / 2)
    assert rates[5] == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(0.0, abs=1e-15)
    assert cosine(10, warmup_steps=10, max_steps=10) == 1.0


def test_constant_and_the_last_stretch():
    config = make(final_steps=3)
    assert [learning_rate(config, step) for step in (1, 97)] == [0.5, 0.5]
    assert [learning_rate(config, step) for step in (98, 100)] == [pytest.approx(0.05)] * 2


def test_a_group_may_have_its_own_rate_and_schedule():
    config = make(schedule="inverse_sqrt", warmup_steps=10)
    assert learning_rate(config, 1, lr=1e-3, schedule="constant") == 1e-3
    assert learning_rate(config, 1) == pytest.approx(0.5 * inverse_sqrt(1, warmup_steps=10))
