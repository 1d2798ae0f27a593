"""What a deviation changes is said from records, never typed in."""

from dataclasses import replace
from pathlib import Path

import pytest

from attn.reproduction.effects import effects_text
from attn.reproduction.experiment import Effect
from attn.reproduction.records import Record
from tests.reproduction.toy import record_data

EFFECT = Effect(
    deviation="size", measure="error of the fit", unit="metres", ours="fit/line", undone="fit_all/line",
    otherwise="with all points", value=lambda record: record.data["metrics"].get("error", {}).get("value"),
)  # fmt: skip


def runs(experiment, values, profile="cpu"):
    made = []
    for seed, value in enumerate(values):
        metrics = {"error": value} if value is not None else {"other": 0.0}
        data = record_data("toy2000", experiment, seed, metrics, profile=profile)
        made.append(Record(Path(f"seed{seed}.json"), data))
    return made


def said(*records):
    found = [record for group in records for record in group]

    def of(experiment, profile):
        return [r for r in found if (r.data["experiment"], r.data["profile"]) == (experiment, profile)]

    return effects_text([EFFECT], of).get(EFFECT.deviation)


def test_both_sides_stand_with_median_and_range():
    text = said(runs("fit/line", [0.5, 0.25, 4.0]), runs("fit_all/line", [0.125]))
    assert text == (
        "error of the fit: median 0.5 metres (3 seeds, 0.25 to 4) here, 0.125 metres (1 seed) with all points (cpu)"
    )


def test_seeds_that_did_not_come_so_far_are_counted():
    text = said(runs("fit/line", [None, 120000.0, 80000.0]), runs("fit_all/line", [None, None]))
    assert "median 120,000 metres (3 seeds, 80,000 to 120,000, not reached by 1) here" in text
    assert "reached by none of 2 seeds with all points" in text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([10000.0, 14000.0, None], "median 14,000 metres (3 seeds, 10,000 to 14,000, not reached by 1) here"),
        ([None, 0.5, 0.25, 4.0, None], "median 4 metres (5 seeds, 0.25 to 4, not reached by 2) here"),
        ([None, 0.5, None], "reached by 1 of 3 seeds (0.5 metres) here"),
        ([0.5, None, 2.0, None], "reached by 2 of 4 seeds (0.5 to 2 metres) here"),
        ([0.5, 1.5], "median 1 metres (2 seeds, 0.5 to 1.5) here"),
        ([0.5], "0.5 metres (1 seed) here"),
    ],
)
def test_a_seed_that_never_comes_so_far_counts_as_infinite(values, text):
    assert said(runs("fit/line", values), runs("fit_all/line", [1.0])).startswith(
        f"error of the fit: {text}, "
    )


def test_the_largest_profile_with_both_sides_counts():
    ours, gpu = runs("fit/line", [1.0]), runs("fit/line", [2.0], "gpu")
    assert "1 metres" in said(ours, gpu, runs("fit_all/line", [3.0]))
    assert said(ours, gpu, runs("fit_all/line", [3.0]), runs("fit_all/line", [4.0], "gpu")) == (
        "error of the fit: 2 metres (1 seed) here, 4 metres (1 seed) with all points (gpu)"
    )


def test_our_side_is_said_once_for_all_that_are_compared_with_it():
    few = replace(EFFECT, undone="fit_few/line", otherwise="with few points")
    cost = replace(EFFECT, measure="cost")
    other = replace(EFFECT, deviation="place")
    found = runs("fit/line", [1.0]) + runs("fit_all/line", [3.0]) + runs("fit_few/line", [2.0, 4.0])

    def of(experiment, profile):
        return [r for r in found if (r.data["experiment"], r.data["profile"]) == (experiment, profile)]

    undone = replace(EFFECT, deviation="time", undone="fit_none/line")
    assert effects_text([EFFECT, cost, few, other, undone], of) == {
        "size": "error of the fit: 1 metres (1 seed) here, 3 metres (1 seed) with all points, median 3 metres (2 seeds, 2 to "
        "4) with few points (cpu); cost: 1 metres (1 seed) here, 3 metres (1 seed) with all points (cpu)",
        "place": "error of the fit: 1 metres (1 seed) here, 3 metres (1 seed) with all points (cpu)",
    }


@pytest.mark.parametrize("only", ["fit/line", "fit_all/line"])
def test_one_side_alone_says_nothing(only):
    assert said(runs(only, [1.0])) is None
