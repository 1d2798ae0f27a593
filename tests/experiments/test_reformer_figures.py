"""Figures, tables and words of chapter 2, from what they compute and from made-up records."""

from pathlib import Path

import numpy as np
import pytest

from attn.experiments.reformer import CHAPTER, concepts, figures, results
from attn.experiments.reformer.runs import PAPER
from attn.experiments.reformer.workloads import EVALUATIONS
from attn.reproduction.claims import FAILS, HOLDS, NOT_TESTED, judge
from attn.reproduction.facts import load_papers
from attn.reproduction.records import Record
from tests.reproduction.toy import record_data


def record(attention, seed, shares=None, **metrics):
    values = {f"accuracy_{name}": 0.5 for name in EVALUATIONS} | metrics
    values |= {f"accuracy_{name}": share for name, share in (shares or {}).items()}
    data = record_data(PAPER, f"duplication/{attention}", seed, values)
    return Record(Path(f"{attention}/seed{seed}.json"), data | {"artifact": None})


def row(full, *rounds):
    return dict(zip(("full", "lsh8", "lsh4", "lsh2", "lsh1"), (full, *rounds), strict=True))


# --- what is computed --------------------------------------------------------------------------------------


def test_points_of_a_bucket_are_nearest_to_its_direction():
    found = concepts.circle(n_points=30)
    for buckets, directions in zip(found.buckets, found.directions, strict=True):
        np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1, rtol=1e-4)
        np.testing.assert_allclose(directions[:2], -directions[2:])
        assert set(buckets) <= set(range(4))
    assert len(figures.circle(found).axes) == 3


def test_sorting_brings_what_meets_together():
    found = concepts.meetings()
    assert (np.diff(found.buckets[found.order]) >= 0).all()
    np.testing.assert_allclose(found.weights.sum(1), 1, rtol=1e-5)
    seen = found.hashed[found.order][:, found.order] > 0
    rows, columns = seen.nonzero()
    assert (rows // 4 - columns // 4).min() >= 0 and (rows // 4 - columns // 4).max() <= 1
    assert len(figures.meetings(found).axes) == 4


def test_more_rounds_see_more_weight():
    rounds = (1, 4)
    kept = concepts.weight_kept(rounds, length=64, chunk_len=8, scale=4.0, draws=3)
    assert kept.shape == (3, 2) and (kept[:, 1] > kept[:, 0]).all() and kept.max() <= 1
    (axes,) = figures.weight_kept(rounds, {4.0: kept}).axes
    np.testing.assert_allclose(axes.lines[0].get_ydata(), np.median(kept, axis=0))


def test_a_token_gives_itself_nothing_where_it_comes_last():
    own = concepts.conventions_differ()
    assert own["itself last"] == 0 and own["itself allowed"] > 0.5


def test_memory_is_what_the_facts_say():
    amounts = {amount.what.split(":")[0].split(",")[0]: amount.gib for amount in concepts.memory_amounts()}
    assert amounts["one matrix of attention weights"] == 16
    assert amounts["feed-forward activations"] == 16
    assert amounts["activations of one layer"] == 2
    assert "16" in repr(results.memory_table())


# --- records -------------------------------------------------------------------------------------------------


def test_printed_grids_are_the_facts():
    grids = results.printed_grids(load_papers()[PAPER])
    assert grids["the paper"]["full"] == [100, 94.8, 92.5, 76.9, 52.5]
    assert grids["a replication"]["lsh1"] == [70.65, 76.61, 79.68, 79.34, 56.09]


def test_our_grid_stands_beside_the_printed_ones():
    records = {"full": [record("full", s, row(1.0, 0.9, 0.8, 0.7, 0.5 + s / 10)) for s in range(2)]}
    drawing = figures.grids(records, results.printed_grids(load_papers()[PAPER]))
    assert [axes.get_title() for axes in drawing.axes] == ["the paper", "a replication", "here"]
    assert [text.get_text() for text in drawing.axes[2].texts] == ["100", "90", "80", "70", "55"]


def test_conventions_show_every_seed():
    records = {"full": [record("full", s) for s in range(3)], "lsh1": []}
    (axes,) = figures.conventions(records).axes
    assert {len(line.get_xdata()) for line in axes.lines} == {3}


@pytest.mark.parametrize(
    "draw", [lambda: figures.grids({}, {"the paper": {}}), lambda: figures.conventions({})]
)
def test_without_records_figures_say_so(draw):
    assert [text.get_text() for text in draw().texts] == ["no records yet"]


def test_the_finding_is_told_from_records():
    assert results.finding({"full": []}) == ["No records yet."]
    solved = record("full", 0, row(1.0, 1.0, 0.99, 0.9, 0.7), steps_to_solve=250.0)
    records = {
        "full": [solved, record("full", 1, row(0.2, 0, 0, 0, 0))],
        "lsh4": [
            record(
                "lsh4", 0, {"full": 0.97, "full_with_self": 0.008, "full_plain": 0.01, "full_raw_keys": 0.6}
            )
        ],
    }
    learned, other, columns, rows, nearest = results.finding(records)
    assert "60 percent right" in learned
    assert learned.endswith("1 of 2 seeds reach 99.9 percent, after 250 updates.")
    assert other.endswith("0 of 1 seeds reach 99.9 percent.")
    assert "97 percent with full attention: shared, unit keys, itself last" in columns
    assert "chance with full attention: shared, unit keys, itself allowed" in columns
    assert "50, 49.5, 45, 35 with full attention: shared, unit keys, itself last" in rows


def test_whether_separate_projections_explain_the_replication_is_told_from_records():
    like_theirs = record("separate", 0, row(1.0, 0.01, 0.02, 0.03, 0.04), steps_to_solve=1.0)
    full = record("full", 0, row(1.0, 1.0, 0.99, 0.9, 0.7), steps_to_solve=1.0)
    *_, nearest, chance = results.finding({"full": [full], "separate": [like_theirs]})
    assert "prints 1.37, 1.85, 3.0, 4.56" in nearest
    assert "full attention: separate queries and keys, 0.27 percentage points" in nearest
    assert "our model falls to chance" in chance
    other = record("separate", 0, row(1.0, 0.9, 0.8, 0.7, 0.6), steps_to_solve=1.0)
    assert "our model does not fall to chance" in results.finding({"separate": [other]})[-1]


def verdicts(records):
    facts = load_papers()[PAPER]
    claims = [claim for claim in CHAPTER.claims if claim.experiments[0].startswith("duplication")]
    return {claim.id: judge(claim, facts, records, lambda record: False).verdict for claim in claims}


def test_claims_hold_on_numbers_like_the_paper_s():
    noise = (0.0, 0.004, -0.003)
    rows = {"full": (1.0, 0.948, 0.925, 0.769, 0.525), "lsh4": (0.99, 1.0, 0.999, 0.994, 0.919),
            "lsh2": (0.99, 1.0, 0.999, 0.981, 0.868), "lsh1": (0.99, 0.999, 0.996, 0.948, 0.779)}  # fmt: skip
    records = [
        record(name, seed, row(values[0], values[1], *(v + noise[seed] for v in values[2:])))
        for name, values in rows.items()
        for seed in range(3)
    ]
    found = verdicts(records)
    assert found == dict.fromkeys(found, HOLDS)


def test_claims_fail_or_stay_open_on_other_numbers():
    chance = [record("full", seed, row(0.008, 0.008, 0.008, 0.008, 0.008)) for seed in range(3)]
    assert verdicts(chance)["c1_full_1"] == NOT_TESTED
    turned = [record("lsh1", seed, row(1, 0.6 + seed / 100, 0.6, 0.6, 0.9)) for seed in range(3)]
    assert verdicts(turned)["c3_lsh1_8_1"] == FAILS
    assert verdicts(turned)["c2_lsh1"] == FAILS
