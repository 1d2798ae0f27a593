"""Verdicts: intervals against scipy and by hand, and every way to hold, to fail and to be untested."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from attn.reproduction.claims import FAILS, HOLDS, NOT_TESTED, judge, t_interval, untested
from attn.reproduction.experiment import Claim, Control
from attn.reproduction.records import Record
from tests.reproduction.toy import record_data

LINE, FLAT = "fit/line", "fit/flat"
LEARNS = Control(statement="The line learns", difference=lambda runs: 1 - runs[LINE].metric("error"))


def order(**changes):
    settings = dict(
        id="line_beats_flat", fact="line_beats_flat", kind="order", measure="flat minus line", unit="squared error",
        experiments=(LINE, FLAT), difference=lambda runs: runs[FLAT].metric("error") - runs[LINE].metric("error"),
        control=LEARNS,
    )  # fmt: skip
    return Claim(**(settings | changes))


def equality(**changes):
    return order(id="lines_agree", fact="lines_agree", kind="equality", margin="same_line", **changes)


def records(line, flat, profile="cpu"):
    """A record for each error given; None leaves the seed out."""
    made = []
    for experiment, errors in ((LINE, line), (FLAT, flat)):
        for seed, error in enumerate(errors):
            if error is not None:
                data = record_data("toy2000", experiment, seed, {"error": error}, profile=profile)
                made.append(Record(Path(f"seed{seed}.json"), data | {"artifact": None}))
    return made


@pytest.fixture
def paper(toy):
    return toy.paper


def fresh(record):
    return "fresh"


# --- intervals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 5, 17])
def test_interval_is_scipys(n):
    values = np.random.default_rng(n).normal(3, 2, n)
    expected = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert t_interval(values.tolist()) == pytest.approx(expected, rel=1e-12)
    expected = stats.t.interval(0.5, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert t_interval(values.tolist(), 0.5) == pytest.approx(expected, rel=1e-12)


def test_interval_by_hand():
    # mean 2, standard error 1 / sqrt(3), t quantile 4.3027 for two degrees of freedom
    low, high = t_interval([1, 2, 3])
    assert low == pytest.approx(2 - 4.302653 / math.sqrt(3), abs=1e-6)
    assert high == pytest.approx(2 + 4.302653 / math.sqrt(3), abs=1e-6)
    assert t_interval([0.5, 0.5, 0.5]) == (0.5, 0.5)


def test_interval_of_large_numbers_keeps_their_difference():
    low, high = t_interval([1e9 + 1, 1e9 + 2, 1e9 + 3])
    assert high - low == pytest.approx(2 * 4.302653 / math.sqrt(3), rel=1e-6)


@pytest.mark.parametrize("values", [[], [1.0]])
def test_no_interval_of_fewer_than_two(values):
    with pytest.raises(ValueError, match=f"at least 2 numbers for an interval; got {len(values)}"):
        t_interval(values)


# --- order -------------------------------------------------------------------------------------------------


def test_an_order_holds_when_the_interval_of_paired_differences_is_above_zero(paper):
    verdict = judge(order(), paper, records([0.1, 0.2, 0.3], [0.3, 0.45, 0.6]), fresh)
    differences = [0.2, 0.25, 0.3]
    assert (verdict.verdict, verdict.profile, verdict.seeds) == (HOLDS, "cpu", 3)
    assert verdict.estimate == pytest.approx(0.25)
    assert verdict.interval == pytest.approx(t_interval(differences))
    assert verdict.control["shown"] and verdict.control["interval"] == pytest.approx(
        list(t_interval([0.9, 0.8, 0.7]))
    )
    assert verdict.reason is None and verdict.freshness == "fresh"
    assert (verdict.statement, verdict.table) == ("A line fits better than a constant.", "table2_errors")


@pytest.mark.parametrize(
    ("flat", "contradicted"),
    [
        ([0.3, 0.25, 0.25], False),  # the interval reaches below 0
        ([0.1, 0.1, 0.1], True),  # the wrong way round
        ([0.1, 0.05, 0.19], False),  # the wrong way round, but the interval reaches above 0
        ([0.2, 0.2, 0.2], False),  # no difference at all
    ],
)
def test_an_order_fails_when_it_does_not_show(paper, flat, contradicted):
    verdict = judge(order(), paper, records([0.2, 0.2, 0.2], flat), fresh)
    assert verdict.verdict == FAILS and verdict.interval[0] <= 0
    assert verdict.contradicted is contradicted and (verdict.interval[1] < 0) == contradicted


def test_only_a_claim_that_fails_is_contradicted_or_not(paper):
    for line, flat, word in (([0.1] * 3, [0.5] * 3, HOLDS), ([1.1] * 3, [2.0] * 3, NOT_TESTED)):
        verdict = judge(order(), paper, records(line, flat), fresh)
        assert (verdict.verdict, verdict.contradicted) == (word, None)


def test_seeds_are_paired_not_pooled(paper):
    line, flat = [0.1, 0.3, 0.5], [0.15, 0.35, 0.55]
    assert judge(order(), paper, records(line, flat), fresh).verdict == HOLDS
    assert t_interval(flat)[0] < t_interval(line)[1], "unpaired, the spread of the seeds would hide it"
    assert judge(order(), paper, records(line, flat[::-1]), fresh).verdict == FAILS


def test_seeds_without_a_partner_are_ignored(paper):
    verdict = judge(order(), paper, records([0.1, 0.1, 0.1, 0.9], [0.5, 0.6, 0.7, None]), fresh)
    assert (verdict.verdict, verdict.seeds) == (HOLDS, 3)
    assert verdict.estimate == pytest.approx(0.5)


@pytest.mark.parametrize(("headline", "needed"), [(False, 3), (True, 5)])
def test_too_few_seeds(paper, headline, needed):
    claim = order(headline=headline)
    few = records([0.1] * (needed - 1), [0.5] * (needed - 1))
    verdict = judge(claim, paper, few, fresh)
    assert (verdict.verdict, verdict.seeds, verdict.profile) == (NOT_TESTED, needed - 1, None)
    assert verdict.interval is None and verdict.estimate is None
    assert verdict.reason == f"needs {needed} seeds of {LINE} and {FLAT}; at most {needed - 1} are recorded"
    assert judge(claim, paper, records([0.1] * needed, [0.5] * needed), fresh).verdict == HOLDS


def test_no_record_at_all(paper):
    verdict = judge(order(), paper, [], fresh)
    assert (verdict.verdict, verdict.seeds) == (NOT_TESTED, 0)
    assert verdict.reason == f"needs 3 seeds of {LINE} and {FLAT}; no seed has all of them recorded yet"


def test_without_its_control_a_claim_is_not_tested(paper):
    # the line beats the constant, but neither gets below an error of 1
    verdict = judge(order(), paper, records([1.1, 1.1, 1.1], [2.0, 2.1, 2.2]), fresh)
    assert verdict.verdict == NOT_TESTED
    assert verdict.interval[0] > 0 and not verdict.control["shown"] and verdict.control["interval"][1] < 0
    assert verdict.reason == "the positive control does not show at this budget"


def test_a_control_of_zero_does_not_show(paper):
    assert judge(order(), paper, records([1.0] * 3, [2.0] * 3), fresh).verdict == NOT_TESTED


def test_the_largest_profile_with_enough_seeds_decides(paper):
    small = records([0.1, 0.1, 0.1], [0.5, 0.5, 0.5])
    large = records([0.2, 0.2, 0.2], [0.1, 0.1, 0.1], "gpu")
    verdict = judge(order(), paper, small + large, fresh)
    assert (verdict.verdict, verdict.profile) == (FAILS, "gpu")
    verdict = judge(order(), paper, small + large[:-1], fresh)
    assert (verdict.verdict, verdict.profile) == (HOLDS, "cpu")
    largest = records([0.1] * 3, [0.5] * 3, "paper")
    assert judge(order(), paper, [*small, *large, *largest], fresh).profile == "paper"


def test_profiles_are_not_mixed(paper):
    mixed = records([0.1] * 3, [None] * 3) + records([None] * 3, [0.5] * 3, "gpu")
    assert judge(order(), paper, mixed, fresh).verdict == NOT_TESTED


def test_a_stale_record_marks_the_verdict_it_enters(paper):
    made = records([0.1, 0.1, 0.1, 0.1], [0.5, 0.5, 0.5, None])
    for other, state, said in (
        (made[1], "stale", "stale"), (made[1], "revalidated", "revalidated"), (made[3], "stale", "fresh"),
    ):  # fmt: skip
        verdict = judge(order(), paper, made, lambda record, o=other, s=state: s if record is o else "fresh")
        assert (verdict.verdict, verdict.freshness) == (HOLDS, said)


@pytest.mark.parametrize("errors", [{"loss": 0.1}, {"error": float("nan")}])
def test_records_that_cannot_be_compared_leave_a_claim_untested(paper, errors):
    """As of an older run that measured something else: the page must still come out."""
    made = records([0.1] * 3, [0.5] * 3)
    other = record_data("toy2000", LINE, 1, errors) | {"artifact": None}
    made[1] = dataclasses.replace(made[1], data=other)
    verdict = judge(order(), paper, made, fresh)
    assert verdict.verdict == NOT_TESTED and verdict.reason
    assert verdict.interval is None or all(map(math.isfinite, verdict.interval))


# --- equality ----------------------------------------------------------------------------------------------


def test_an_equality_holds_inside_its_margin(paper):
    verdict = judge(equality(), paper, records([0.20, 0.30, 0.40], [0.21, 0.29, 0.41]), fresh)
    assert (verdict.verdict, verdict.margin) == (HOLDS, 0.1)
    assert -0.1 < verdict.interval[0] < 0 < verdict.interval[1] < 0.1


@pytest.mark.parametrize(
    ("line", "flat", "contradicted"),
    [
        ([0.2, 0.2, 0.2], [0.35, 0.35, 0.35], True),  # above
        ([0.2, 0.2, 0.2], [0.05, 0.05, 0.05], True),  # below
        ([0.0, 0.0, 0.0], [0.1, 0.1, 0.1], False),  # at its edge, the interval being as wide as rounding
        ([0.2, 0.2, 0.2], [0.35, 0.10, 0.20], False),  # the mean is inside, the interval is not
        ([0.2, 0.2, 0.2], [0.50, 0.25, 0.35], False),  # the mean is outside, the interval is not
    ],
)
def test_an_equality_fails_outside_its_margin(paper, line, flat, contradicted):
    verdict = judge(equality(), paper, records(line, flat), fresh)
    assert (verdict.verdict, verdict.contradicted) == (FAILS, contradicted)


def test_an_equality_needs_its_control_too(paper):
    assert judge(equality(), paper, records([1.5] * 3, [1.5] * 3), fresh).verdict == NOT_TESTED


# --- arithmetic --------------------------------------------------------------------------------------------


def arithmetic(fact="one_weight_each", holds=lambda paper: True):
    return Claim(id=fact, fact=fact, kind="arithmetic", measure="weights", holds=holds)


def test_arithmetic_needs_no_seed(paper):
    claim = arithmetic(holds=lambda paper: paper.table("table1_sizes").rows[0]["weights"] == 4)
    verdict = judge(claim, paper, [], fresh)
    assert (verdict.verdict, verdict.seeds, verdict.profile, verdict.interval) == (HOLDS, 0, None, None)
    verdict = judge(arithmetic(holds=lambda paper: False), paper, [], fresh)
    assert (verdict.verdict, verdict.contradicted) == (FAILS, True)


def test_unverified_cells_decide_nothing(paper):
    asked = []
    verdict = judge(arithmetic("lore", holds=asked.append), paper, [], fresh)
    assert verdict.verdict == NOT_TESTED and "memory only" in verdict.reason
    assert asked == []


# --- the rest ----------------------------------------------------------------------------------------------


def test_a_claim_without_a_test_is_shown_as_not_tested(paper):
    verdict = untested(paper.claim("curves_win"))
    assert (verdict.id, verdict.statement, verdict.verdict) == ("curves_win", "Curves fit best.", NOT_TESTED)
    assert verdict.reason


def test_verdicts_are_plain_values(paper):
    shown = judge(order(), paper, records([0.1] * 3, [0.5] * 3), fresh).as_dict()
    assert shown["interval"] == pytest.approx([0.4, 0.4])
    assert isinstance(shown["interval"], list)
    assert judge(order(), paper, [], fresh).as_dict()["interval"] is None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"kind": "trend"}, "unknown kind of claim 'trend'; valid: order, equality, arithmetic"),
        ({"control": None}, "an order claim needs"),
        ({"difference": None}, "an order claim needs"),
        ({"experiments": ()}, "an order claim needs"),
        ({"margin": "same_line"}, "`margin` belongs to equality claims"),
        ({"kind": "equality"}, "`margin` belongs to equality claims"),
        ({"kind": "arithmetic"}, "needs `holds`"),
    ],
)
def test_a_claim_that_cannot_be_judged_is_refused(changes, named):
    with pytest.raises(ValueError, match=named) as caught:
        order(**changes)
    assert "line_beats_flat" in str(caught.value) or "kind" in changes
