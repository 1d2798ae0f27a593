"""The mean of the last snapshots of a model's weights."""

import pytest
import torch
from torch import nn

from attn.training.averaging import WeightAverage


def model_at(value):
    model = nn.Linear(2, 1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(value)
    return model


def run(average, values):
    """Give the model a value at each update, from 1 on."""
    for step, value in enumerate(values, 1):
        with torch.no_grad():
            for weight in average.model.parameters():
                weight.fill_(value)
        average.after_step(step)


def test_the_mean_of_the_last_snapshots_is_applied_and_taken_back():
    average = WeightAverage(model_at(0), every=2, count=2)
    run(average, [1, 10, 3, 20, 5, 60, 7])  # snapshots 10, 20, 60
    with average.applied():
        assert all((weight == 40).all() for weight in average.model.parameters())
    assert all((weight == 7).all() for weight in average.model.parameters())


def test_an_error_inside_still_gives_the_weights_back():
    average = WeightAverage(model_at(0), every=1, count=3)
    run(average, [2, 4])
    with pytest.raises(KeyError), average.applied():
        raise KeyError
    assert (average.model.weight == 4).all()


def test_a_shared_weight_is_averaged_once():
    model = model_at(1)
    tied = nn.ModuleDict({"a": model, "b": model})
    average = WeightAverage(tied, every=1, count=2)
    average.after_step(1)
    with torch.no_grad():
        model.weight.fill_(3)
    average.after_step(2)
    with average.applied():
        assert (tied["b"].weight == 2).all() and tied["a"].weight is tied["b"].weight
    assert (tied["a"].weight == 3).all()


def test_state_goes_on_where_it_was():
    whole, first, second = (WeightAverage(model_at(0), every=1, count=3) for _ in range(3))
    run(whole, [1, 2, 6, 8])
    run(first, [1, 2, 6])
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        for weight in second.model.parameters():
            weight.fill_(8)
    second.after_step(4)
    for average in (whole, second):
        with average.applied():
            torch.testing.assert_close(average.model.weight, torch.full((1, 2), 16 / 3))


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="every must be a whole number of at least 1; got 0"):
        WeightAverage(model_at(0), every=0, count=1)
    with pytest.raises(ValueError, match="count must be a whole number of at least 1; got True"):
        WeightAverage(model_at(0), every=1, count=True)
    with pytest.raises(ValueError, match="no snapshot to average: the first comes after update 5"):
        with WeightAverage(model_at(0), every=5, count=1).applied():
            pass
