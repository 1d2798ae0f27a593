"""Figures, tables and words of chapter 2, from what they compute and from made-up records."""

from pathlib import Path

import numpy as np
import pytest
import torch

from attn.experiments.adaptive_span import CHAPTER as SPAN_CHAPTER
from attn.experiments.reformer import (
    CHAPTER,
    concepts,
    convergence,
    figures,
    findings,
    method_results,
    results,
    table2,
    whole_grids,
)
from attn.experiments.reformer.runs import CODES, MODELS, PAPER
from attn.experiments.reformer.workloads import EVALUATIONS, build_model
from attn.reproduction.claims import FAILS, HOLDS, NOT_TESTED, judge
from attn.reproduction.experiment import config_dict
from attn.reproduction.facts import load_papers
from attn.reproduction.records import Record, write_record
from attn.reproduction.scoreboard import ChapterState
from tests.reproduction.toy import record_data


def record(attention, seed, shares=None, curve=(0.01, 0.5, 0.9), **metrics):
    """`curve` is accuracy in validation, every ten updates."""
    values = {f"accuracy_{name}": 0.5 for name in EVALUATIONS} | metrics
    values |= {f"accuracy_{name}": share for name, share in (shares or {}).items()}
    history = [{"step": 10 * i, "seen": 80 * i, "accuracy": share} for i, share in enumerate(curve)]
    data = record_data(PAPER, f"duplication/{attention}", seed, values, history=history)
    return Record(Path(f"{attention}/seed{seed}.json"), data | {"artifact": None})


def row(full, *rounds):
    return dict(zip(("full", "lsh8", "lsh4", "lsh2", "lsh1"), (full, *rounds), strict=True))


# --- how many keys hold the weight ---------------------------------------------------------------------------


def test_the_largest_weights_are_added_up():
    weights = torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.25, 0.25]])
    np.testing.assert_allclose(concepts.largest(weights, (1, 2, 3)), [[0.6, 0.9, 1], [0.5, 0.75, 1]])


def test_a_few_keys_hold_the_weight_only_where_scores_lie_apart():
    near, far = concepts.random_queries((8, 48), n_keys=4096, n_queries=8)
    assert near.spread == pytest.approx(1, abs=0.1) and far.spread == pytest.approx(6, abs=0.6)
    at = concepts.COUNTS.index(64)
    # of normal scores with standard deviation 1, the largest 64th holds 0.124: Phi(1 - z) with Phi(-z) = 1 / 64
    assert near.shares[:, at].mean() == pytest.approx(0.124, abs=0.02)
    assert far.shares[:, at].mean() > 0.95 and (np.diff(far.shares) >= 0).all()
    np.testing.assert_allclose(near.shares[:, -1], 1, rtol=1e-5)


def span_record(results_, experiment, weights, seed=0):
    config = SPAN_CHAPTER.experiment(experiment).config("cpu")
    data = record_data(
        "sukhbaatar2019span", experiment, seed, {"valid_bits": 1.0}, config=config_dict(config)
    )
    return write_record(results_, data, {"attention_by_distance": weights.astype(np.float16)})


def test_trained_heads_are_those_with_the_longest_span(tmp_path):
    assert concepts.trained_heads(tmp_path) == {}
    assert (
        "copies/fixed_512" in method_results.largest_words(concepts.random_queries((8,), n_keys=64), {})[-1]
    )
    sharp = np.zeros((2, 4, 512))
    sharp[..., 100] = 1
    sharp[1, 3] = 1 / 512
    span_record(tmp_path, "copies/fixed_512", sharp)
    span_record(tmp_path, "copies/fixed_512", sharp, seed=1)
    span_record(tmp_path, "copies/fixed_256", np.full((2, 4, 256), 1 / 256))
    span_record(tmp_path, "copies/adaptive_512", sharp)
    span_record(tmp_path, "limit/fixed_short", np.full((4, 4, 32), 1 / 32))  # too few keys to speak of a few
    ((text, found),) = concepts.trained_heads(tmp_path).items()
    assert (text, found.n_keys, found.n_seeds) == ("a generated text of copies", 512, 2)
    assert found.shares.shape == (16, 10) and (found.shares[:7] == 1).all()
    assert found.shares[7, 6] == pytest.approx(64 / 512, rel=1e-3)
    random = concepts.random_queries((8, 48), n_keys=512)
    toy, trained = method_results.largest_words(random, {text: found})
    assert "512 keys: with queries of length 8, 48" in toy
    assert "16 heads over 512 keys (2 seeds)" in trained
    assert (
        "at least 89 percent on average, in the flattest head at least 12 percent, in the sharpest 100"
        in trained
    )
    top, below = figures.largest(random, {text: found}).axes
    assert len(top.lines) == 2 and len(below.lines) == 17 and below.get_title() == f"{text}, 512 keys"


def test_a_lower_bound_is_one():
    """The largest means over queries are no more than the means of each query's largest."""
    weights = torch.softmax(3 * torch.randn(50, 64, generator=torch.Generator().manual_seed(0)), -1)
    bound = concepts.largest(weights.mean(0), (1, 4, 16))
    assert (bound <= concepts.largest(weights, (1, 4, 16)).mean(0)).all()


def test_weights_of_a_model_are_those_it_attends_with():
    config = CHAPTER.experiment("duplication/full").config("ci")
    torch.manual_seed(0)
    model = build_model(config)
    tokens = torch.randint(1, 100, (2, config.seq_len))
    weights = concepts.first_weights(model, tokens)
    assert weights.shape == (2, config.n_heads, config.seq_len, config.seq_len)
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:3]))
    held = concepts.copying_heads(model, length=config.seq_len, count=2)
    assert held.shape == (config.n_heads, 7) and (np.diff(held) > 0).all() and held[:, -1] == pytest.approx(1)
    (line,) = method_results.live_words(model, config.seq_len)
    assert "on a single key and" in line and "on 8 keys of 64" in line


def test_a_token_that_may_attend_to_itself_is_seen_to():
    config = CHAPTER.experiment("duplication/full").config("ci")
    torch.manual_seed(0)
    model = build_model(config)
    attention, feed_forward = model.stack.layers[0]
    with torch.no_grad():
        attention.projection.weight[: config.d_model].mul_(
            1e3
        )  # so long a query gives all to its best match, itself
        for parameter in (attention.output.weight, *feed_forward.parameters()):
            parameter.zero_()  # what is left to answer with is the symbol itself
    found = concepts.on_itself(model, length=config.seq_len, count=4)
    assert found.weights.shape == (config.n_heads,) and found.weights.min() > 0.95
    assert found.right < 0.1 and found.repeats > 0.95
    assert attention.self_last, "the model is left as it was"
    (line,) = method_results.itself_words(model, config.seq_len)
    assert "percent of the wrong ones are the symbol that is being read." in line


# --- what is computed --------------------------------------------------------------------------------------


def test_a_bucket_is_the_direction_with_the_largest_product():
    found = concepts.circle(n_points=30)
    for buckets, directions in zip(found.buckets, found.directions, strict=True):
        np.testing.assert_array_equal(directions[:2], -directions[2:])
        np.testing.assert_array_equal(buckets, (found.points @ directions.T).argmax(1))
    lengths = np.linalg.norm(found.directions, axis=-1)
    nearest = (found.points @ (found.directions / lengths[..., None]).mT).argmax(-1)
    assert (nearest != found.buckets).any(), "long vectors catch points that are nearer to short ones"
    panels = figures.circle(found).axes
    drawn = [np.hypot(*line.get_xydata()[1]) for panel in panels for line in panel.lines[::2]]
    np.testing.assert_allclose(drawn, 0.95 * lengths.ravel() / lengths.max())


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
    assert amounts["parameters of a large layer"] * 2**30 == 4 * 500_000_000
    assert amounts["one matrix of attention weights"] == 16
    assert amounts["feed-forward activations"] == 16
    assert amounts["activations of one layer"] == 2
    assert "16" in repr(results.memory_table())


# --- records -------------------------------------------------------------------------------------------------


def test_printed_grids_are_the_facts():
    grids = table2.printed_grids(load_papers()[PAPER])
    assert grids["the paper"]["full"] == [100, 94.8, 92.5, 76.9, 52.5]
    assert grids["the replication"]["lsh1"] == [70.65, 76.61, 79.68, 79.34, 56.09]


def test_our_grid_stands_beside_the_printed_ones():
    records = {"full": [record("full", s, row(1.0, 0.9, 0.8, 0.7, 0.5 + s / 10)) for s in range(2)]}
    drawing = figures.grids(records, table2.printed_grids(load_papers()[PAPER]))
    assert [axes.get_title() for axes in drawing.axes] == ["the paper", "the replication", "here"]
    assert [text.get_text() for text in drawing.axes[2].texts] == ["100", "90", "80", "70", "55"]
    records["lsh2_public"] = [record("lsh2_public", 0, row(0.5, 0.4, 0.3, 0.2, 0.1))]
    shown = figures.grids(records, table2.printed_grids(load_papers()[PAPER])).axes
    assert [axes.get_title() for axes in shown] == [
        "the paper",
        "the replication",
        "here",
        "here, reformer-pytorch",
        "",
        "",
    ]
    assert [(text.get_text(), text.get_position()[1]) for text in shown[3].texts] == [
        (text, 2) for text in ("50", "40", "30", "20", "10")
    ], "the third row; the others are blank"


def test_conventions_show_every_seed():
    records = {"full": [record("full", s) for s in range(3)], "lsh1": []}
    (axes,) = figures.conventions(records).axes
    assert [len(line.get_xdata()) for line in axes.lines] == [3] * len(EVALUATIONS)
    assert figures.codes(records) is None
    assert {line.get_label() for line in axes.lines} >= {f"LSH, {rounds} rounds" for rounds in (8, 4, 2)} | {
        "LSH, 1 round"
    }


def test_models_by_public_code_show_every_seed():
    records = {"lsh1_public": [record("lsh1_public", seed) for seed in range(3)]}
    records["lsh1_fixed"] = [record("lsh1_fixed", 0, row(0.9, 0.8, 0.7, 0.6, 0.5))]
    (axes,) = figures.codes(records).axes
    assert [line.get_label() for line in axes.lines] == [
        "full attention by the same code", "LSH, 8 rounds", "LSH, 4 rounds", "LSH, 2 rounds", "LSH, 1 round",
    ]  # fmt: skip
    assert [len(line.get_xdata()) for line in axes.lines] == [4] * 5
    assert [round(line.get_xdata()[-1]) for line in axes.lines] == [90, 80, 70, 60, 50]
    assert axes.get_yticklabels()[1].get_text() == "the replication's code, fixed rotations: LSH, 1 round"


@pytest.mark.parametrize(
    "draw",
    [
        lambda: figures.grids({}, {"the paper": {}}),
        lambda: figures.conventions({}),
        lambda: figures.codes({"full": [None]}),
    ],
)
def test_without_records_nothing_is_drawn(draw):
    assert draw() is None


# What the paper prints, trained with full attention that is plain but shared, and with LSH.
PLAIN = row(1.0, 0.95, 0.92, 0.77, 0.53)
SEES_ITSELF = {"full": 0.99, "full_raw_keys": 0.99, "full_with_self": 0.5, "full_plain": 0.008}


def like_the_paper():
    return {
        "full": [record("full", 0, row(1.0, 1.0, 0.99, 0.95, 0.8))],
        "full_plain": [record("full_plain", seed, PLAIN) for seed in range(2)],
        **{name: [record(name, 0, SEES_ITSELF)] for name in ("lsh4", "lsh2", "lsh1")},
    }


def test_a_run_has_converged_where_its_last_fifth_has_no_trend():
    def converged(*end, start=(0.01,) * 16):
        return convergence.has_converged(record("full", 0, curve=[*start, *end]))

    assert converged(*[0.9] * 5) and not converged(*[0.008] * 5), "at chance, nothing is learned"
    assert not converged(*[i / 20 for i in range(5)])
    assert converged(0.938, 0.935, 0.929, 0.938, 0.934), "noise of single evaluations is no climb"
    assert not converged(0.955, 0.958, 0.960, 0.962, 0.963) and not converged(
        0.963, 0.962, 0.960, 0.958, 0.955
    )
    assert not converged(0.990, 0.991, 0.992, 0.993, 0.994), (
        "less than half a point, but every one above the one before"
    )
    assert converged(0.9999, 1, 1, 1, 1) and converged(1, 1, 1, 1, 1)


def test_a_few_evaluations_do_not_tell():
    def converged(*curve):
        return convergence.has_converged(record("full", 0, curve=curve))

    assert not converged(1, 1, 1) and converged(1, 1, 1, 1)
    # the last fifth of 10 evaluations holds 2
    assert not converged(*[0.01] * 7, 0.07, 1, 1, 1) and converged(*[0.01] * 7, 1, 1, 1, 1)
    (line,) = convergence.rule_words()
    assert "last 4 evaluations" in line and "less than 0.5 points" in line


LONG, RISING = [0.01] * 10 + [0.95] * 11, [i / 25 for i in range(21)]


def test_what_was_learned_is_told_with_the_mark():
    assert results.learned({"full": []}) == table2.NO_RECORDS
    first = record("full", 0, row(1.0, 1.0, 0.99, 0.9, 0.7), LONG, steps_to_solve=250.0)
    second = record("full", 1, row(0.2, 0, 0, 0, 0), RISING)
    apart = record("separate", 0, {"full": 0.1, "full_plain": 0.998}, LONG)
    line, other = results.learned({"full": [first, second], "separate": [apart]})
    assert "60 percent right, as it was trained; not converged after 12 updates: 1 of 2 seeds" in line
    assert line.endswith("1 of 2 seeds met 99.9 percent in validation, first after 250 updates.")
    assert (
        other
        == "full attention: separate queries and keys: 99.8 percent right, as it was trained; converged."
    )


def test_distances_are_means_over_row_and_column():
    found = table2.parts(like_the_paper())
    assert found["full_plain"].row == pytest.approx((95, 92, 77, 53))
    assert found["full_plain"].column == pytest.approx((0.8, 0.8, 0.8))
    assert found["full_with_self"].row == () and found["full_with_self"].column == pytest.approx((50, 50, 50))
    assert found["separate"] == ((), ()), "a model trained with LSH has no separate keys"
    printed = table2.printed_parts(load_papers()[PAPER])["the paper"]
    apart = found["full_plain"].distances(printed)
    assert apart.row == pytest.approx((0.2, 0.5, 0.1, 0.5)) and apart.column == pytest.approx((0, 0, 0))
    assert table2.parts({"lsh4": like_the_paper()["lsh4"]})["full"].column == (), "two of three are missing"


def test_the_conclusion_is_told_from_records():
    assert results.conclusion({"full": []}) == findings.answer({}) == table2.NO_RECORDS
    text = results.conclusion(like_the_paper())
    by_start = {line.split(":")[0]: line for line in text}
    first = by_start["First row of the paper, 94.8, 92.5, 76.9 and 52.5"]
    assert "gives it: shared, raw keys, itself allowed (0.32 points away on average)." in first
    column = by_start["First column of the paper, 0.8, 0.8 and 0.8"]
    assert (
        "full attention of this kind gives it: shared, raw keys, itself allowed (0 points away on average)."
        in column
    )
    together = by_start["First row and column of the paper together"]
    assert "nearest is shared, raw keys, itself allowed" in together
    theirs = by_start["First column of the replication, 46.54, 75.94 and 70.65"]
    assert "no kind of full attention here comes within 5 percentage points; nearest is shared" in theirs
    assert (
        "of 2 kinds of full attention recorded for both" in together and "2 seeds, not converged" in together
    )
    assert "shared, unit keys, itself allowed" in by_start["Not recorded yet, so that the answer may change"]


def test_the_answer_says_what_reproduced():
    hashed, column, nearest, rests = findings.answer(like_the_paper())
    assert hashed.startswith(
        "Table 2 (copying 0w0w; percent of symbols right): trained and evaluated with LSH, models are "
    )
    assert "percent" not in hashed.partition("): ")[2] and "99.9, 98.1 and 77.9 in the paper." in hashed
    assert column == (
        "First column, trained with LSH and evaluated with full attention, 0.8, 0.8 and 0.8 percent in the paper: by the "
        "paper's hashing it breaks under shared, raw keys, itself allowed (0.8 percent right; otherwise 50.0 to 99.0)."
    )
    assert nearest.startswith(
        "All cells together, of 2 sets of conventions: nearest to the paper is the paper's hashing; full: shared, raw keys, "
        "itself allowed ("
    )
    assert "nearest to the replication is the paper's hashing; full: " in nearest
    assert rests.startswith(
        "This rests on 2 of 5 kinds of full attention, 0 of 2 public codes, 1 to 2 seeds of each model, and may change."
    )
    assert (
        "Not recorded yet: shared, unit keys, itself allowed; shared, raw keys, itself last; separate"
        in rests
    )
    without = {name: found for name, found in like_the_paper().items() if name != "full"}
    assert findings.answer(without)[-2].startswith("First column"), "there is but one whole grid"
    assert findings.answer({}) == table2.NO_RECORDS


def test_hashed_cells_are_told_with_their_distance_and_the_rounds_of_the_training():
    shares = printed("the paper")
    shares["lsh1"] = row(0.008, 0.999, 0.996, 0.948, 0.659)
    records = {name: [record(name, 0, cells)] for name, cells in shares.items()}
    assert findings.answer(records)[0].endswith(
        "trained and evaluated with LSH, models are 1.0 points from the paper on average over 12 cells; LSH-4, LSH-2 and "
        "LSH-1 with the rounds of their training: 99.9, 98.1 and 65.9 here, 99.9, 98.1 and 77.9 in the paper."
    )


def test_what_breaks_is_told_by_row_and_column():
    _, first, meaning = findings.broken_words(like_the_paper())
    assert "by the paper's hashing no kind of full attention breaks it (53.0 to 100.0 percent right)" in first
    assert meaning == "Broken means less than 50 percent right."


SEEN = {"full": 0.99, "full_raw_keys": 0.98, "full_with_self": 0.01, "full_plain": 0.008}


def test_one_departure_that_tells_what_breaks_is_named():
    records = {name: [record(name, 0, SEEN)] for name in ("lsh4", "lsh2", "lsh1")}
    apart = row(1, 0.01, 0.01, 0.01, 0.02)
    for kind in ("full", "full_with_self", "full_raw_keys", "separate"):
        values = apart if kind == "separate" else PLAIN
        records[kind] = [record(kind, 0, values)]
    column, first, _ = findings.broken_words(records)
    assert (
        "it breaks where a token may attend to itself, and only there (0.8 to 1.0 percent right; otherwise 98.0 to 99.0)"
        in column
    )
    assert (
        "it breaks where queries and keys are apart, and only there (1.0 to 2.0 percent right; otherwise 53.0 to 95.0)"
        in first
    )
    # without the kind of which a token may attend to itself, either departure tells the kinds apart: none is named
    records["full_with_self"] = []
    assert "it breaks under separate queries and keys (" in findings.broken_words(records)[1]
    # with two kinds that break by different departures, no departure is in all of them
    for kind in ("full_with_self", "full_raw_keys"):
        records[kind] = [record(kind, 0, row(1, 0.1, 0.1, 0.1, 0.1))]
    assert (
        "it breaks under shared, unit keys, itself allowed; shared, raw keys, itself last; separate queries and keys ("
        in findings.broken_words(records)[1]
    )
    assert findings.broken_words({}) == []


def test_what_public_code_breaks_is_told():
    near = {name: row(0.99, 0.99, 0.98, 0.97, 0.96) for name in ("full", "lsh4", "lsh2", "lsh1")}
    theirs, public, _ = findings.broken_words(
        by_code("replication", printed("the replication")) | by_code("public", near)
    )
    assert theirs == (
        "By the replication's code: first row broken (1.4, 1.9, 3.0 and 4.6 percent), first column broken in part (46.5, "
        "75.9 and 70.7 percent)."
    )
    assert (
        public.startswith("By reformer-pytorch: first row not broken (99.0")
        and "first column not broken" in public
    )
    without = {name: cells for name, cells in near.items() if name != "lsh1"}
    assert findings.broken_words(by_code("public", without)) == []


def variant(name, values, n_seeds=3, curve=LONG, **metrics):
    return [record(name, seed, row(*values), curve, **metrics) for seed in range(n_seeds)]


def test_what_the_factor_and_the_buckets_do_alone_is_told():
    assert findings.departures_words({})[0].startswith(
        "Not recorded yet: the replication's code, fixed rotations: LSH, 1 round;"
    )
    raw = {"lsh2": 0.99, "lsh2_scaled": 0.2, "lsh2_one_bucket": 0.9, "lsh2_replication": 0.15}
    records = {name: variant(name, [0.5] * 5, accuracy_full_raw_keys=value) for name, value in raw.items()}
    line, scaled, buckets, missing = findings.departures_words(records)
    assert (
        "with neither 99.0 (3 seeds, converged); with the factor alone 20.0" in line
        and "with both 15.0" in line
    )
    assert scaled == "With the factor alone less than 50 was expected, and so it came."
    assert buckets == "With one bucket alone more than 50 was expected, and so it came."
    assert missing == (
        "Not recorded yet: the replication's code, fixed rotations: LSH, 1 round; the replication's code, fixed rotations: "
        "LSH, 2 rounds."
    )
    turned = records | {"lsh2_scaled": records["lsh2_one_bucket"], "lsh2_one_bucket": records["lsh2_scaled"]}
    assert [line.endswith("it did not come so.") for line in findings.departures_words(turned)[1:3]] == [
        True,
        True,
    ]


def test_what_fixed_rotations_do_is_told():
    records = {
        "lsh1_replication": variant("lsh1_replication", (0.97, 0.97, 0.97, 0.97, 0.96)),
        "lsh1_fixed": variant("lsh1_fixed", (0.9, 0.8, 0.8, 0.8, 0.6), 2),
    }
    line, loss, _ = findings.departures_words(records)
    assert "with 8, 4, 2 and 1 rounds 80.0, 80.0, 80.0 and 60.0 percent (2 seeds, converged)" in line
    # 3.39, 0.32, 0.66 and 3.91 points from 76.61, 79.68, 79.34 and 56.09
    assert "from which it is 2.1 points away on average, with new rotations 23.8." in line
    assert loss == (
        "With the rounds of its training it loses 36.0 points (2 seeds of both); at least 10 were expected, and so it came; "
        "a row nearer to the print was expected, and so it came."
    )
    records["lsh1_fixed"] = variant("lsh1_fixed", (1, 0.99, 0.99, 0.99, 0.99))
    assert findings.departures_words(records)[1].count("it did not come so") == 2
    second = {
        "lsh2_replication": records["lsh1_replication"],
        "lsh2_fixed": variant("lsh2_fixed", (1, 1, 1, 0.9, 0.9)),
    }
    _, loss, _ = findings.departures_words(second)
    assert loss == "With the rounds of its training it loses 7.0 points (3 seeds of both)."


def test_what_stays_open_is_told():
    assert findings.open_words({}) == table2.NO_RECORDS
    theirs = printed("the replication")
    records = by_code("replication", theirs) | {
        name: [record(name, 0, theirs[name], LONG)] for name in ("lsh4", "lsh2", "lsh1")
    }
    records["lsh1_replication"] = [record("lsh1_replication", 0, row(0.9, 0.97, 0.97, 0.97, 0.96))]
    (line,) = findings.open_words(records)
    assert line.startswith(
        "Of the replication's 12 hashed cells, models by its own conventions are 7.9 percentage points"
    )
    assert (
        "by the paper's hashing 0.0: its conventions do not explain these rows. Farthest is the row LSH-1"
        in line
    )
    assert "97.0, 97.0, 97.0 and 96.0 percent here and 76.6, 79.7, 79.3 and 56.1 in its print" in line
    records["lsh4"] = [record("lsh4", 0, row(0, 0, 0, 0, 0))]
    assert "explain these rows better, not wholly" in findings.open_words(records)[0]


def test_the_conclusion_turns_with_the_records():
    records = like_the_paper()
    records["full"], records["full_plain"] = (
        [record("full", 0, PLAIN)],
        [record("full_plain", 0, row(1, 0.1, 0.1, 0.1, 0.1), RISING)],
    )
    for name in ("lsh4", "lsh2", "lsh1"):
        records[name] = [
            record(name, 0, {"full": 0.01, "full_plain": 0.9, "full_with_self": 0.6, "full_raw_keys": 0.9})
        ]
    nearest = findings.answer(records)[2]
    assert "nearest to the paper is the paper's hashing; full: shared, unit keys, itself last" in nearest
    (together,) = [line for line in results.conclusion(records) if "of the paper together" in line]
    assert "nearest is shared, unit keys, itself last" in together
    assert "Counted as they are" in results.conclusion(records)[-1]


def test_with_all_records_the_answer_stands():
    records = {name: [record(name, seed, PLAIN, LONG) for seed in range(3)] for name in MODELS}
    records["full_plain"] = [
        record("full_plain", seed, row(1, 0.9, 0.9, 0.7, 0.5), LONG) for seed in range(3)
    ]
    assert findings.answer(records)[-1] == (
        "This rests on 5 of 5 kinds of full attention, both public codes, 3 seeds of each model; all of them had "
        "converged."
    )
    one = {name: found[:1] for name, found in records.items()}
    assert findings.answer(one)[-1].endswith("1 seed of each model, and may change.")
    records["full"][1] = record("full", 1, PLAIN, RISING)
    assert findings.answer(records)[-1].endswith(
        "and may change. Of 16 models 1 had not converged with all seeds."
    )


# --- whole grids -------------------------------------------------------------------------------------------------


def printed(who):
    """Records of one seed that hold exactly what is printed, by model."""
    cells = table2.printed_grids(load_papers()[PAPER])[who]
    return {name: row(*(percent / 100 for percent in percents)) for name, percents in cells.items()}


def by_code(code, shares, curve=LONG):
    return {f"{name}_{code}": [record(f"{name}_{code}", 0, cells, curve)] for name, cells in shares.items()}


def test_a_grid_is_as_far_from_the_print_as_its_cells():
    cells = table2.printed_grids(load_papers()[PAPER])["the paper"]
    assert whole_grids.Apart.of(cells, cells) == (0, 0)
    moved = {**cells, "lsh1": [percent - 10 for percent in cells["lsh1"]]}
    assert whole_grids.Apart.of(moved, cells) == pytest.approx((50 / 20, 40 / 12)), (
        "5 of 20 cells, 4 of 12 hashed ones"
    )
    without_full = {name: percents for name, percents in moved.items() if name != "full"}
    assert whole_grids.Apart.of(without_full, cells) == (None, pytest.approx(40 / 12))
    assert whole_grids.Apart.of({"full": cells["full"]}, cells) == (None, None)


def test_the_grid_of_a_kind_has_its_own_first_row_and_column():
    (plain,) = [
        one for one in whole_grids.grids(like_the_paper()) if one.label.endswith("raw keys, itself allowed")
    ]
    assert plain.cells["full"] == pytest.approx([50, 95, 92, 77, 53]), "the evaluation of its training first"
    assert plain.cells["lsh4"][0] == pytest.approx(0.8) and plain.models["lsh4"] == "lsh4"


def test_the_set_of_conventions_that_gives_the_print_is_named():
    assert whole_grids.grids_words({}) == table2.NO_RECORDS
    records = by_code("replication", printed("the replication")) | by_code("public", printed("the paper"))
    lines = whole_grids.grids_words(records)
    paper, theirs = (
        np.array(list(cells.values())) for cells in table2.printed_grids(load_papers()[PAPER]).values()
    )
    apart = np.abs(paper - theirs)
    for start, points, found in (
        ("Whole grid", apart.mean(), lines[:2]),
        ("Hashed cells alone", apart[1:, 1:].mean(), lines[2:4]),
    ):
        for who, near, far in (
            ("the paper", "reformer-pytorch", "the replication's code"),
            ("the replication", "the replication's code", "reformer-pytorch"),
        ):
            line = (
                f"{start}, {who}: of 2 sets of conventions, nearest is {near} (0.0 percentage points away on average); "
                f"farthest is {far} ({points:.1f})."
            )
            assert line in found
    assert (
        "Not recorded yet, so that this may change: shared, unit keys, itself last; LSH, 4 rounds" in lines[4]
    )
    text = " ".join(repr(whole_grids.grids_table(records)).split())
    assert "0.0 0.0" in text and "– –" in text and "one of its rows" not in text


def test_whether_what_was_expected_came_is_told():
    assert whole_grids.expectations({}) == table2.NO_RECORDS
    near = {name: row(1, 0.99, 0.98, 0.97, 0.96) for name in ("full", "lsh4", "lsh2", "lsh1")}
    records = by_code("replication", printed("the replication")) | by_code("public", near)
    first, column, public = whole_grids.expectations(records)
    assert "8, 4, 2 and 1 rounds: 1.4, 1.9, 3.0 and 4.6 percent, 1.37, 1.85, 3 and 4.56 in its print" in first
    assert "less with more rounds, and so it came. Near chance was expected, too; how near was not" in first
    assert (
        first.endswith("(most: 4.6 percent, chance 0.8).")
        and "in its print; seeds of each model: 1." in first
    )
    assert "46.5, 75.9 and 70.7 percent" in column
    assert column.endswith(
        "Expected was well above chance; how far was not written down, so this is not judged (least: 46.5 percent, chance "
        "0.8)."
    )
    assert public.startswith(
        "By reformer-pytorch, first row and first column: 96.0 percent and more; seeds of each model: 1."
    )
    assert public.endswith("neither breaks, as less than half would, and so it came.")
    # the other way round: no loss in the replication's first row, chance in its column, and a public code that breaks
    turned = {**near, "lsh2": row(0.008, 0.9, 0.9, 0.9, 0.9)}
    found = whole_grids.expectations(
        by_code("replication", turned) | by_code("public", printed("the replication"))
    )
    assert [", and it did not come so" in line for line in found] == [True, False, True]
    assert found[1].endswith("(least: 0.8 percent, chance 0.8).")
    assert whole_grids.expectations(by_code("public", {"full": row(1, 1, 1, 1, 1)})) == table2.NO_RECORDS


def test_kinds_of_full_attention_share_their_hashing():
    records = like_the_paper() | by_code("public", printed("the paper"))
    (line, _) = [line for line in whole_grids.grids_words(records) if line.startswith("Hashed")]
    assert (
        "of 2 sets of conventions, nearest is reformer-pytorch" in line
        and "farthest is the paper's hashing (" in line
    )


def test_a_code_without_a_row_is_not_compared_and_named():
    shares = printed("the replication")
    records = by_code("replication", {name: shares[name] for name in ("full", "lsh4")}, RISING)
    *_, missing, late = whole_grids.grids_words(records)
    assert not [line for line in whole_grids.grids_words(records) if line.startswith(("Whole", "Hashed"))]
    assert missing.endswith(
        "the replication's code: LSH, 2 rounds; the replication's code: LSH, 1 round; reformer-pytorch."
    )
    assert (
        late
        == "Not converged: the replication's code: full attention; the replication's code: LSH, 4 rounds."
    )


@pytest.mark.parametrize("code", CODES)
def test_a_code_s_words_are_its_configs(code):
    said = whole_grids.code_words(code)
    assert ("each pair counted once" in said) == (CODES[code].hashed.convention == "paper")
    assert ("keys at their lengths" in said) != CODES[code].full.unit_keys


def test_a_ceiling_is_told_where_nothing_can_be_lost():
    assert results.ceiling({"full": []}) == table2.NO_RECORDS
    at_the_top = [record("full", seed, row(1.0, 0.9996, 0.995, 0.9, 0.7)) for seed in range(2)]
    (line,) = results.ceiling({"full": at_the_top})
    assert (
        "100.00 percent are right with full attention, and under hashing 99.96 with 8 rounds: at this" in line
    )
    (line,) = results.ceiling({"full": [record("full", 0, row(1.0, 0.99, 0.9, 0.9, 0.9))]})
    assert line.startswith("With no number of rounds")


def test_what_is_trained_so_far_is_told():
    line, how = results.trained_words(like_the_paper())
    assert line.startswith(
        "Trained so far: 2 of 5 kinds, 1 to 2 seeds each: shared, unit keys, itself last; shared"
    )
    assert "Not yet: shared, unit keys, itself allowed; shared, raw keys, itself last; separate" in line
    assert "with hashing" in how
    assert results.trained_words({"lsh1": []}) == ["Trained so far is none of the 5 kinds of full attention."]


def test_whether_separate_projections_fall_is_told_from_records():
    like_theirs = record("separate", 0, row(1.0, 0.01, 0.02, 0.03, 0.04))
    text = results.conclusion({"separate": [like_theirs]})
    start = "With separate queries and keys our model falls to chance under hashing, as theirs does; but by its code"
    assert any(line.startswith(start) for line in text)
    assert any("separate queries and keys (0.27 points away on average)" in line for line in text)
    other = record("separate", 0, row(1.0, 0.9, 0.8, 0.7, 0.6))
    assert any(
        "does not fall to chance under hashing; theirs does" in line
        for line in results.conclusion({"separate": [other]})
    )


def test_conventions_stand_beside_the_print():
    text = repr(results.conventions_table(like_the_paper()))
    assert "in print, the paper" in text and "94.8, 92.5, 76.9, 52.5" in text
    assert "0.3, 0.0" in text and "within 5 points" in " ".join(text.split())


def test_the_replication_is_told_from_the_facts():
    diagonal, row_, column, above = results.replication_words(load_papers()[PAPER])
    assert "99.77, 97.08 and 56.09 percent in the replication, 99.9, 98.1 and 77.9 in the paper" in diagonal
    assert "1.37, 1.85, 3 and 4.56 percent in the replication, 94.8, 92.5, 76.9 and 52.5 in the paper" in row_
    assert "46.54, 75.94 and 70.65 percent in the replication, 0.8, 0.8 and 0.8 in the paper" in column
    assert above == "With full attention LSH-1 does better there than with its own rounds."


def test_tables_of_duplication_mark_what_had_not_converged():
    theirs = record("full_replication", 0, {"full": 0.9996, "full_raw_keys": 0.1}, LONG)
    state = ChapterState(CHAPTER, [record("full", 0, curve=LONG), record("full", 1, curve=RISING), theirs])
    trained = state.table("table2")["rows"][0]["cells"][0]
    assert trained["detail"]["cpu"]["scale"].endswith("; not converged after 12 updates: 1 of 2 seeds")
    # the replication's rows are of models by the conventions of its code
    cell = state.table("table2_reproduction")["rows"][0]["cells"][0]
    assert cell["values"]["cpu"] == pytest.approx(99.96)
    assert cell["detail"]["cpu"]["scale"].endswith("; converged")


def test_task_and_window_are_computed():
    assert "of 1,024 symbols" in results.task_words() and "1 in 127, 0.79 percent" in results.task_words()
    facts, views = load_papers()[PAPER], {view.id: view for view in CHAPTER.tables}
    computed = {
        row["quantity"]: views["numbers_in_text"].cells["value"].compute(row)
        for row in facts.table("numbers_in_text").rows
        if "kind" not in row
    }
    assert computed.pop("typical chunk after hashing and sorting") == 128
    # 500 million numbers of 4 bytes in units of 10^9; 2^29 and twice 2^32 in units of 2^30
    assert sorted(computed.values()) == [2, 2, 16, 16]
    assert "0.5 billion parameters" in results.estimate_words()[0] and "17 GB" in results.estimate_words()[0]
    assert method_results.few_keys_words() == [
        "Of 65,536 keys the closest 32 or 64 could do for a query, the paper reckons."
    ]
    rows = facts.table("trained_numbers_in_text").rows
    experiments = {experiment.id for experiment in CHAPTER.experiments}
    for row in rows:
        experiment = views["trained_numbers_in_text"].cells["value"].experiment(row)
        assert (experiment in experiments) == ("kind" not in row)
        command = views["trained_numbers_in_text"].command(row)
        assert (command is None) == (experiment is None)


def test_effects_compare_the_conventions():
    deviations = {effect.deviation for effect in CHAPTER.effects}
    assert deviations == {
        "full_convention", "lsh_convention", "scale", "rotations", "translation_length", "weight_sharing",
    }  # fmt: skip
    ids = {experiment.id for experiment in CHAPTER.experiments}
    assert {side for effect in CHAPTER.effects for side in (effect.ours, effect.undone)} <= ids
    assert CHAPTER.effects[0].value(record("full", 0, row(1, 0.8, 0.6, 0.4, 0.2))) == pytest.approx(50)
    alike = [effect for effect in CHAPTER.effects if effect.ours.endswith("lsh1") or "lsh1_" in effect.ours]
    assert [effect.value(record("lsh1", 0, row(1, 0.8, 0.6, 0.4, 0.2))) for effect in alike] == [20, 20, 20]
    assert deviations <= {item.id for item in load_papers()[PAPER].deviations}
    scaled = next(effect for effect in CHAPTER.effects if effect.undone.endswith("lsh2_scaled"))
    assert scaled.value(record("lsh2", 0, accuracy_full_raw_keys=0.125)) == 12.5


def verdicts(records):
    facts = load_papers()[PAPER]
    claims = [claim for claim in CHAPTER.claims if claim.experiments[0].startswith("duplication")]
    return {claim.id: judge(claim, facts, records, lambda record: "fresh").verdict for claim in claims}


def test_claims_hold_on_numbers_like_the_paper_s():
    noise = (0.0, 0.004, -0.003)
    rows = {"full": (1.0, 0.948, 0.925, 0.769, 0.525), "lsh4": (0.99, 1.0, 0.999, 0.994, 0.919),
            "lsh2": (0.99, 1.0, 0.999, 0.981, 0.868), "lsh1": (0.99, 0.999, 0.996, 0.948, 0.779)}  # fmt: skip
    records = [
        record(name, seed, row(*values[:3], *(v + noise[seed] for v in values[3:])))
        for name, values in rows.items()
        for seed in range(3)
    ]
    found = verdicts(records)
    assert found == dict.fromkeys(found, HOLDS)


def test_claims_fail_or_stay_open_on_other_numbers():
    chance = [record("full", seed, row(0.008, 0.008, 0.008, 0.008, 0.008)) for seed in range(3)]
    assert verdicts(chance)["c1_full_1"] == NOT_TESTED
    turned = [record("lsh1", seed, row(1, 0.8 + seed / 100, 0.6, 0.6, 0.9)) for seed in range(3)]
    assert verdicts(turned)["c3_lsh1_8_1"] == FAILS
    assert verdicts(turned)["c3_lsh1_step_2_1"] == FAILS
    assert verdicts(turned)["c3_lsh1_step_8_4"] == HOLDS
    saturated = [record("lsh4", seed, row(1, 0.998, 0.9999, 0.99, 0.95)) for seed in range(3)]
    assert verdicts(saturated)["c3_lsh4_step_8_4"] == HOLDS
    assert verdicts(turned)["c2_lsh1"] == FAILS
