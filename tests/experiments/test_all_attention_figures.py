"""Figures, tables, words and claims of chapter 4, from what they compute and from made-up records."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from attn.adaptive_io import AdaptiveEmbedding, AdaptiveSoftmax
from attn.experiments.all_attention import CHAPTER, concepts, figures, results
from attn.experiments.all_attention.claims import falling
from attn.experiments.all_attention.inside import PLACES, TOP
from attn.experiments.all_attention.runs import PAPER, SWEEP, VARIANTS
from attn.reproduction.claims import FAILS, HOLDS, NOT_TESTED, judge
from attn.reproduction.facts import load_papers
from attn.reproduction.records import Record
from attn.reproduction.scoreboard import ChapterState
from attn.reproduction.speed import speed_tables
from attn.reproduction.tables import paper_table
from tests.reproduction.toy import record_data

FACTS = load_papers()[PAPER]
NUMBERS = {"none": 0, "eighth": 32, "half": 128, "all": 256, "fourfold": 1024}
# Validation bits like the paper's plot: joint best, none worst, flat towards large N.
LIKE_THE_PAPER = {
    "ff": 2.3, "all": 2.28, "same_depth": 2.29, "equal_flops": 2.285, "none": 2.7, "eighth": 2.5, "half": 2.35,
    "fourfold": 2.25, "deep_none": 2.6, "attn_split": 2.33, "head_split": 2.4, "single_head": 2.34, "ff_attn": 2.31,
    "ff_from_max": 2.27, "all_from_max": 2.26, "none_from_max": 2.6, "ff_long": 1.9, "all_long": 1.85, "none_long": 2.1,
}  # fmt: skip


class Kept(Record):
    """A record whose artifact is at hand."""

    def artifact(self):
        return self.data["arrays"]


def arrays(seed=0, n_layers=3, n_heads=2, n_vectors=8):
    generator = np.random.default_rng(seed)
    usage = generator.random((n_layers, TOP, 27)).astype(np.float32)
    return {
        "mass": generator.random((n_layers, n_heads)),
        "sorted_usage": -np.sort(-generator.random((n_layers, n_heads * n_vectors)), axis=1),
        "top_usage": usage,
        "top_head": generator.integers(n_heads, size=(n_layers, TOP)),
        "top_vector": generator.integers(n_vectors, size=(n_layers, TOP)),
        "top_places": generator.integers(100, size=(n_layers, TOP, PLACES)),
        "tokens": generator.integers(27, size=100),
        "symbol_count": np.full(27, 4.0),
        "symbols": np.frombuffer(b" abcdefghijklmnopqrstuvwxyz", np.uint8),
        "spans": np.full((n_layers, n_heads), 32.0),
    }


def record(model, seed=0, bits=None, task="letters", **metrics):
    bits = LIKE_THE_PAPER.get(model, 2.3) + 0.002 * seed if bits is None else bits
    values = {
        "valid_bits": bits, "test_bits": bits + 0.01, "order1_bits": 3.3, "flops": 8e5, "mean_span": 32.0,
        "longest_span": 33.0, "persistent_mass": 0.4, "valid_bits_without_vectors": bits + 0.5,
    } | metrics  # fmt: skip
    data = record_data(PAPER, f"{task}/{model}", seed, values)
    data["config"] = {
        "model": {"n_persistent": NUMBERS.get(model, 256), "ramp_size": 32, "max_span": 256}, "evaluation_rows": 1,
        "text": {"corpus": "wikipedia-extract"},
    }  # fmt: skip
    return Kept(Path(f"{model}/seed{seed}.json"), data | {"artifact": None, "arrays": arrays(seed)})


def grid(bits=LIKE_THE_PAPER, n_seeds=5):
    return {
        model: [record(model, seed, value + 0.002 * seed) for seed in range(n_seeds)]
        for model, value in bits.items()
    }


def verdicts(records):
    return {
        claim.id: judge(claim, FACTS, records, lambda record: "fresh").verdict for claim in CHAPTER.claims
    }


def curve(model, seed, bits):
    """A record with these bits at its evaluations, every 100 updates."""
    found = record(model, seed, bits[-1])
    found.data["history"] = [{"step": 100 * i, "bits_per_token": bit} for i, bit in enumerate(bits)]
    return found


# --- what is computed --------------------------------------------------------------------------------------


def test_a_layer_with_softmax_is_attention():
    found = concepts.layer_as_attention()
    np.testing.assert_allclose(found.attention, found.softmax, atol=1e-12)
    assert found.difference < 1e-12
    assert 0.3 < (found.relu > 0).mean() < 0.7
    assert len(figures.layer(found).axes) == 3


def test_a_better_match_takes_the_weight_from_the_vectors():
    scores = (0.0, 3.0, 8.0)
    few, many = (concepts.persistent_share(scores, n_persistent=n, context=64) for n in (16, 256))
    np.testing.assert_allclose(few, [16 / (16 + 63 + np.exp(score)) for score in scores], rtol=1e-5)
    assert (many > few).all() and (np.diff(many) < 0).all()
    (axes,) = figures.shares(scores, {16: few, 256: many}).axes
    np.testing.assert_allclose(axes.lines[1].get_ydata(), many)


def test_the_cost_of_words_is_that_of_the_code():
    vocab_size, cutoffs, d_model = 60, (10, 30), 16
    found = concepts.clusters(vocab_size, cutoffs, d_model)
    softmax = AdaptiveSoftmax(AdaptiveEmbedding(vocab_size=vocab_size, d_model=d_model, cutoffs=cutoffs))
    for cluster in found:
        # two words, since torch multiplies a vector by a matrix without counting
        targets = torch.full((1, 2), cluster.first)
        with FlopCounterMode(display=False) as counter:
            softmax(torch.randn(1, 2, d_model), targets)
        assert counter.get_total_flops() / 4 == cluster.multiply_adds
    vectors = [
        p.numel() for p in (*softmax.head.words.parameters(), *softmax.tail.parameters()) if p.dim() == 2
    ]
    assert sum(vectors) == sum(cluster.values for cluster in found)


def test_clusters_of_the_paper_hold_every_word():
    found = concepts.paper_clusters()
    assert [cluster.width for cluster in found] == [512, 128, 32, 8]
    assert sum(cluster.n_words for cluster in found) == 267_735
    assert sum(cluster.share for cluster in found) == pytest.approx(1)
    values = {v["row"]: v["result"] for v in FACTS.exact_fact("params_wt103")["values"]}
    expected = sum(values[row] for row in values if row.startswith(("cluster embeddings", "projections")))
    assert sum(cluster.values for cluster in found) == expected
    drawing = figures.words(found)
    assert [len(axes.patches) for axes in drawing.axes] == [6, 6]


def test_sizes_are_those_of_the_paper():
    text = repr(results.sizes_table())
    assert "38,357,116" in text and "38,320,300" in text and "113,836,348" in text
    assert "114,018,798 and 208,911,758 parameters" in results.half_words()


# --- tables ------------------------------------------------------------------------------------------------


def cells(table, records=()):
    found = ChapterState(CHAPTER, records).table(table)
    return {
        (row["label"], cell["column"]): cell
        for row in found["rows"]
        for cell in row["cells"]
        if not row["quoted"]
    }


def test_parameters_of_the_tables_are_computed():
    small, large = (f"All-attention network + adaptive span ({n} layers)" for n in (18, 36))
    for table, printed in (("table1_enwik8", ("39M", "114M")), ("table2_text8", ("38M", "114M"))):
        found = cells(table)
        assert [found[name, "params"]["values"]["exact"] for name in (small, large)] == list(printed)
        assert found[small, "params"]["matches"] == found[large, "params"]["matches"] == "yes"
    words = cells("table3_wikitext103")[large, "params"]
    assert words["values"]["exact"] == "132M" and words["matches"] == "no" and "132,841,906" in words["note"]


def test_records_fill_the_rows_they_stand_for():
    records = [record("all", bits=2.25), record("none", bits=2.75), record("all", task="bytes", bits=2.5)]
    small = "All-attention network + adaptive span (18 layers)"
    text8 = cells("table2_text8", records)
    assert text8[small, "dev_bpc"]["values"] == {"cpu": 2.25}
    assert text8[small, "test_bpc"]["values"]["cpu"] == pytest.approx(2.26)
    assert cells("table1_enwik8", records)[small, "test_bpb"]["values"]["cpu"] == pytest.approx(2.51)
    plot = cells("fig3_ablation", records)
    assert plot["N=0", "value"]["values"] == {"cpu": 2.75}
    assert plot["N large", "value"]["state"] == "pending" and ("N values", "value") not in plot
    shown = repr(paper_table(ChapterState(CHAPTER, records).table("fig3_ablation")))
    assert "2.750, bits per character" in shown.replace("\n", " ")


def test_every_table_of_the_facts_is_shown():
    assert {view.id for view in CHAPTER.tables} == {table.id for table in FACTS.tables}
    assert {claim.fact for claim in CHAPTER.claims} == {claim.id for claim in FACTS.claims}


# --- claims ------------------------------------------------------------------------------------------------


def test_claims_hold_on_numbers_like_the_paper_s():
    records = [one for rows in grid().values() for one in rows]
    records += [record(name, seed, task="bytes") for name in ("ff", "all", "none") for seed in range(3)]
    found = verdicts(records)
    assert found == dict.fromkeys(found, HOLDS)


def test_claims_fail_on_numbers_unlike_the_paper_s():
    turned = LIKE_THE_PAPER | {
        "all": 2.34,
        "attn_split": 2.3,
        "deep_none": 2.2,
        "fourfold": 2.45,
        "half": 2.4,
    }
    found = verdicts([one for rows in grid(turned).values() for one in rows])
    for claim in ("ff_replaced_deeper", "n_zero_poor_parameters", "joint_beats_split_attn_split"):
        assert found[claim] == FAILS, claim
    assert found["n_zero_poor_depth"] == HOLDS


def test_bytes_are_judged_only_where_removing_the_layers_shows():
    records = [record(name, seed, task="bytes") for name in ("ff", "all") for seed in range(3)]
    assert verdicts(records)["ff_replaced_bytes"] == NOT_TESTED
    weak = [record("none", seed, 2.3, task="bytes") for seed in range(3)]
    assert verdicts(records + weak)["ff_replaced_bytes"] == NOT_TESTED


def test_longer_training_is_judged_by_its_own_control():
    alike = LIKE_THE_PAPER | {"none_long": 1.9}
    found = verdicts([one for rows in grid(alike).values() for one in rows])
    assert found["ff_replaced_longer"] == NOT_TESTED and found["ff_replaced_deeper"] == HOLDS
    worse = LIKE_THE_PAPER | {"all_long": 1.95}
    assert verdicts([one for rows in grid(worse).values() for one in rows])["ff_replaced_longer"] == FAILS


def test_spans_from_the_maximum_are_judged_by_their_own_control():
    alike = LIKE_THE_PAPER | {"none_from_max": 2.27}
    found = verdicts([one for rows in grid(alike).values() for one in rows])
    assert found["ff_replaced_from_max"] == NOT_TESTED and found["ff_replaced_deeper"] == HOLDS
    without = {name: bits for name, bits in LIKE_THE_PAPER.items() if name != "none_from_max"}
    assert (
        verdicts([one for rows in grid(without).values() for one in rows])["ff_replaced_from_max"]
        == NOT_TESTED
    )


def test_claims_on_what_is_known_from_memory_say_unverified():
    assert any(not FACTS.table(FACTS.claim(claim.fact).table).verified for claim in CHAPTER.claims)
    for claim in CHAPTER.claims:
        is_verified = FACTS.table(FACTS.claim(claim.fact).table).verified
        assert ("unverified" in claim.measure) != is_verified, claim.id


def test_what_short_spans_change_is_measured():
    known = {deviation.id for deviation in FACTS.deviations}
    for effect in CHAPTER.effects:
        assert effect.deviation in known and {effect.ours, effect.undone} <= {
            e.id for e in CHAPTER.experiments
        }
        assert effect.value(record("all", bits=2.2)) == 2.2 and "median over seeds" in effect.measure
    records = [record(name, task="letters") for name in ("ff", "ff_from_max")]
    (found,) = (d for d in ChapterState(CHAPTER, records).deviations() if d["id"] == "short_spans")
    assert "2.3 bits per character (1 seed) here, 2.27" in found["effect"]


def test_without_the_controls_nothing_is_claimed():
    alike = dict.fromkeys(LIKE_THE_PAPER, 3.4)
    found = verdicts([one for rows in grid(alike).values() for one in rows])
    assert {verdict for claim, verdict in found.items() if claim != "half_the_params"} == {NOT_TESTED}


def test_four_seeds_are_not_enough_for_the_first_claim():
    found = verdicts([one for rows in grid(n_seeds=4).values() for one in rows])
    assert found["ff_replaced_deeper"] == NOT_TESTED and found["ff_replaced_same_depth"] == HOLDS


@pytest.mark.parametrize(
    ("values", "rank"), [([5, 4, 3, 2, 1], 1), ([1, 2, 3, 4, 5], -1), ([5, 3, 4, 2, 1], 0.9)]
)
def test_falling_is_a_rank_correlation(values, rank):
    assert falling(values) == pytest.approx(rank)


# --- figures and words -------------------------------------------------------------------------------------


def test_gaps_over_updates_are_between_runs_of_the_same_seed():
    records = {
        "ff": [curve("ff", 0, [5.0, 3.0, 2.5]), curve("ff", 1, [5.1, 3.1, 2.6])],
        "all": [curve("all", 1, [5.1, 3.2, 2.9]), curve("all", 2, [4.0, 3.0, 2.0])],
    }
    steps, found = results.gaps(records, "all")
    assert steps == [0, 100, 200]
    np.testing.assert_allclose(found, [[0.0, 0.1, 0.3]], atol=1e-12)
    assert results.gaps(records, "all", end="_long")[0] == [] == results.gaps(records, "none")[0]
    assert results.gaps({}, "all")[1].size == 0


def test_words_say_where_the_gap_was_highest():
    records = {
        "ff": [curve("ff", 0, [5.0, 3.0, 2.5])],
        "all": [curve("all", 0, [5.0, 3.1, 2.8])],
        "ff_long": [curve("ff_long", 0, [5.0, 3.0, 2.5, 2.0])],
        "all_long": [curve("all_long", 0, [5.0, 3.1, 2.8, 1.95])],
    }
    first, second = results.updates_words(records)
    assert (
        "0.100 bits behind feed-forward layers after 100 updates and 0.300 bits behind them at the end, after 200: its"
        in first
    )
    assert "With longer training, all-attention is 0.100 bits behind" in second
    assert (
        "0.050 bits ahead of them at the end, after 300: at its worst it is 0.300 bits behind them, after 200"
        in second
    )
    assert results.updates_words({})[0] == "No records yet."
    assert results.updates_words({**records, "all_long": []})[1] == "Longer training: not all records yet."


def test_the_figure_of_gaps_has_a_curve_a_model_and_the_margin():
    records = {
        "ff": [curve("ff", seed, [5.0, 3.0, 2.5]) for seed in (0, 1)],
        "all": [curve("all", seed, [5.0, 3.1 + seed, 2.8]) for seed in (0, 1)],
        "none": [curve("none", 0, [5.0, 3.3, 2.9])],
    }
    (axes,) = figures.over_updates(records).axes
    first, second, zero, margin = axes.lines
    np.testing.assert_allclose(first.get_xdata(), [100, 200])
    np.testing.assert_allclose(first.get_ydata(), [0.6, 0.3])
    np.testing.assert_allclose(second.get_ydata(), [0.3, 0.4])
    assert set(zero.get_ydata()) == {0} and set(margin.get_ydata()) == {results.margin()}
    assert figures.over_updates({"ff": records["ff"]}) is None


def test_the_sweep_shows_every_seed_and_the_mean():
    (axes,) = figures.sweep(grid()).axes
    lines = axes.lines
    assert [len(line.get_xdata()) for line in lines[:5]] == [5] * 5
    np.testing.assert_allclose(lines[5].get_ydata(), [LIKE_THE_PAPER[name] + 0.004 for name in SWEEP])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "32", "128", "256", "1,024"]


def test_variants_stand_below_each_other():
    (axes,) = figures.variants(grid()).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[0] == "one softmax" and {"attn-split", "head-split", "single-head", "ff-attn"} <= set(names)
    np.testing.assert_allclose(
        axes.lines[0].get_xdata(), [LIKE_THE_PAPER["all"] + 0.002 * s for s in range(5)]
    )


def test_costs_stand_beside_parameters_and_operations():
    left, right = figures.equal_cost(grid()).axes
    assert len(left.lines) == len(right.lines) == 6
    assert right.lines[0].get_xdata()[0] == 800


def test_the_inside_of_a_model_is_drawn():
    rows = grid()["all"]
    (axes,) = figures.mass(rows).axes
    mean = np.mean([arrays(seed)["mass"] for seed in range(5)], axis=(0, 2))
    np.testing.assert_allclose(axes.lines[-1].get_ydata(), mean)
    assert (
        set(axes.lines[-2].get_ydata()) == {256 / (256 + 15.5)}
        and axes.lines[-2].get_label() == "equal scores"
    )
    (axes,) = figures.concentration(rows[0]).axes
    assert axes.lines[0].get_ydata()[-1] == pytest.approx(1) and len(axes.lines) == 4
    assert figures.concentration(rows[3]).axes[0].get_title() == "seed 3"
    assert figures.users(rows[3]).axes[0].get_title() == "seed 3"
    (axes,) = figures.users(rows[0], per_layer=2).axes
    assert axes.images[0].get_array().shape == (6, 27)
    np.testing.assert_allclose(axes.images[0].get_array()[2:4], arrays(0)["top_usage"][1, :2])


@pytest.mark.parametrize(
    "draw",
    [
        lambda: figures.sweep({"all": []}),
        lambda: figures.variants({}),
        lambda: figures.equal_cost({}),
        lambda: figures.mass([]),
        lambda: figures.concentration(None),
        lambda: figures.users(None),
    ],
)
def test_without_records_nothing_is_drawn(draw):
    assert draw() is None


def test_words_are_told_from_records():
    records = grid()
    first, second, *_ = results.replaced_words(records)
    assert "2.304 bits a symbol (5 seeds)" in first
    assert "-0.020 bits with 100% of the parameters" in second and second.endswith(
        "(5 pairs of the same seed)."
    )
    gains, rank = results.sweep_words(records)
    assert "-0.200 from 0 to 32" in gains and rank.endswith("-1.00.")
    said = results.variants_words(records)
    assert len(said) == len(VARIANTS) + 1 and said[0].endswith("+0.050 bits (5 pairs of the same seed).")
    assert "0.008 bits apart" in said[-1]
    assert "longest span of any head is 33" in results.spans_words(records)
    *_, gaps = results.start_words(records)
    assert "-0.020 bits from 0 (5 pairs of the same seed), -0.010 from the maximum" in gaps
    lost, worth = results.tried_words(records)
    assert "costs 0.020 bits less" in lost and "costs 0.400 bits more than the one with" in worth
    table = repr(results.baseline_table("letters", records))
    assert "2.304 ± 0.003" in table and "0.8M" in table
    perplexities = {"valid_perplexity": 90.0, "test_perplexity": 95.0}
    words = {"all": [record("all", task="words", **perplexities)], "ff": []}
    assert "95.0" in repr(results.baseline_table("words", words))
    assert results.margin() == 0.02


def test_models_are_compared_on_the_seeds_that_both_have():
    """A mean of three seeds minus a mean of five would count what the seeds differ in, too."""
    records = grid(n_seeds=5)
    records["same_depth"], records["attn_split"] = records["same_depth"][3:], records["attn_split"][3:]
    assert results.differences(records, "same_depth", "ff") == pytest.approx([-0.01, -0.01])
    assert any("-0.010 bits" in line and "(2 pairs" in line for line in results.replaced_words(records))
    assert results.variants_words(records)[0].endswith("+0.050 bits (2 pairs of the same seed).")
    assert results.differences(records, "ff", "absent") == []


def test_what_can_be_judged_is_told_by_the_controls():
    removed, halved = results.judged_words(grid())
    assert (
        "costs 0.400 bits more than with feed-forward layers (5 pairs" in removed
        and "can be judged" in removed
    )
    assert "cost 0.070 bits more than all of them" in halved and "can be judged" in halved
    removed, halved = results.judged_words(grid(LIKE_THE_PAPER | {"none": 2.31, "half": 2.27}))
    assert "not more than the margin" in removed and "nothing that takes their place is judged" in removed
    assert "cost 0.010 bits less than all of them" in halved and "are not judged" in halved
    assert results.judged_words({}) == ["No records yet."]


def test_equal_scores_weigh_tokens_by_the_mask():
    """Beside a loop, of heads at the lower end, between, and at the limit."""
    run = record("all")
    run.data["arrays"]["spans"] = np.array([[32.0, 40.5], [100.0, 256.0]])
    expected = []
    for span in (32.0, 40.5, 100.0, 256.0):
        tokens = sum(min(max((span - distance) / 32, 0), 1) for distance in range(1, 257))
        expected.append(256 / (256 + tokens))
    assert results.equal_mass([run]) == pytest.approx(np.mean(expected))


def test_leaving_vectors_out_is_told_beside_training_without_them():
    records = grid(n_seeds=2)
    mass, lost, worth, why = results.reliance_words(records | {"none": [*records["none"], record("none", 7)]})
    assert "40% of the weight on average. That is less than chance" in mass and "costs 0.50 bits" in lost
    assert (
        "equal scores would give them 94%, 256 vectors of a head standing beside the 15.5 whole tokens"
        in mass
    )
    assert "more than chance" in results.reliance_words({"all": [record("all", persistent_mass=0.95)]})[0]
    assert "costs 0.420 bits more (mean over 2 pairs of the same seed)" in worth
    assert "not what they add" in why
    better = results.reliance_words({"all": records["all"], "none": [record("none", 1, 2.202)]})
    assert "costs 0.080 bits less (mean over 1 pair of" in better[2]
    *_, missing = results.reliance_words({"all": records["all"], "none": [record("none", 7)]})
    assert missing.endswith("no records of the same seeds yet.")


def test_one_learning_rate_for_all_models_is_told():
    records = grid(n_seeds=1)
    for rows in records.values():
        rows[0].data["config"]["training"] = {"lr": 0.03}
    said = results.rate_words(records)
    assert "one learning rate, 0.03, without a recorded search" in said and "may be the rate's" in said
    records["ff"][0].data["config"]["training"] = {"lr": 0.01}
    assert "learning rates of 0.01, 0.03" in results.rate_words(records)
    assert results.rate_words({}) == "No records yet."
    rate = next(deviation.ours for deviation in FACTS.deviations if deviation.id == "rate")
    assert "no search over rates is recorded" in rate and "unrecorded trial" in rate


def test_what_the_benchmark_times_is_told_from_its_sizes():
    said = results.speed_words()
    assert "made up" in said and "184 on average" in said and "The limit is 2,048 tokens" in said


def test_every_text_is_named_with_source_and_licence():
    table = results.data_table()
    said = " ".join(repr(table).split())
    for name in ("letters", "bytes", "words", "facts", "generated text of known entropy", "32,776", "6,000,000 bytes",
                 "https://dumps.wikimedia.org/enwiki/", "CC BY-SA 3.0", "GNU Free Documentation License"):  # fmt: skip
        assert name in said, name
    assert "generated text of facts to be remembered" in table.html and "none needed" in said
    for corpus in ("text8", "enwik8", "WikiText-103, word level"):
        assert f"in the place of {corpus}" in table.html
    profiles = [profile for task in FACTS.budgets.values() for profile in task]
    assert table.html.count("<tr") == 1 + len(profiles)


def test_what_adaptive_softmax_saves_is_its_paper_s():
    said = results.adaptive_softmax_words()
    assert "147 after 30 minutes" in said and "144 after 83 (one source)" in said


def test_what_is_missing_is_named():
    few = {name: [record(name)] for name in ("ff", "all", "none")}
    *_, missing = results.replaced_words(few)
    assert missing.startswith("Not recorded yet: all-attention, same depth") and missing.count(";") == 2
    assert results.sweep_words(few)[0].startswith(
        "Not recorded yet: an eighth as many persistent vectors; half"
    )
    (ways,) = results.variants_words(few)
    assert ways.startswith("Not recorded yet: attn-split") and "ff-attn" in ways
    assert not any("Not recorded" in line for line in results.replaced_words(grid()))


def test_what_is_lost_without_either_is_told_with_its_seeds():
    costs, collapse, back, seeds = results.without_words(
        {name: [record(name)] for name in ("ff", "all", "none")}
    )
    assert "costs 0.400 bits a symbol more than" in costs and "17.4% of its 2.300 bits" in costs
    assert (
        "40% of what the model with feed-forward layers gains" in collapse
    )  # 3.3 is the cost of counts of pairs
    assert back == "Persistent vectors, at the same depth, win back 0.420 bits, 105% of the loss."
    assert seeds.startswith("This is one seed")
    found = {name: rows[:2] for name, rows in grid(LIKE_THE_PAPER | {"all": 2.58}).items()}
    found["all"][1] = record("all", 1, 2.502)
    found["ff"].append(record("ff", 2))  # the others have no such seed
    *_, back, seeds = results.without_words(found)
    assert back.endswith("win back 0.160 bits (0.120 to 0.200 by seed), 40% of the loss.")
    assert "2 seeds that all three models have" in seeds
    worse = {"ff": [record("ff")], "none": [record("none")], "all": [record("all", bits=2.75)]}
    assert "win nothing of it back: they change it by -0.050 bits." in results.without_words(worse)[2]
    better = results.without_words(worse | {"none": [record("none", bits=2.2)]})
    assert len(better) == 2 and "0.100 bits a symbol less than" in better[0]
    assert results.without_words({"ff": [record("ff")]}) == [
        "What is lost without either: not all records yet."
    ]


def test_words_without_records_say_so():
    assert results.replaced_words({}) == results.variants_words({}) == ["No records yet."]
    assert results.sweep_words({"all": [record("all")]})[0].startswith(
        "Not recorded yet: no persistent vectors"
    )
    assert results.reliance_words({}) == ["No records yet."] and results.spans_words({}) == "No records yet."
    assert repr(results.baseline_table("bytes", {})) == "No records yet."
    assert (
        results.tried_words({}) == ["Not all records yet."]
        and "not all records" in results.start_words({})[0]
    )
    assert repr(speed_tables([], "all_attention")) == "Not measured yet."
    assert results.speed_missed([]) == ["Not measured yet."]


def test_places_are_shown_as_text():
    one = record("all")
    kept = one.artifact()
    kept["tokens"][:8] = [20, 8, 5, 0, 3, 1, 20, 0]
    kept["top_places"][0, 0] = 7
    text = repr(results.contexts_table(one, layers=(0,), per_layer=1))
    assert "the␣cat␣" in text and f"head {kept['top_head'][0, 0] + 1}" in text
    rows = len(kept["tokens"]) // 2
    kept["tokens"][rows - 1 : rows + 2] = [20, 3, 1]
    kept["top_places"][0, 0] = rows + 1  # the second symbol of the second row
    one.data["config"]["evaluation_rows"] = 2
    text = repr(results.contexts_table(one, layers=(0,), per_layer=1))
    assert "ca" in text and "tca" not in text, "nothing of the row before"
    shown = repr(results.contexts_table(record("all", 3)))
    assert "most weight, seed 3" in shown
    assert (
        "English Wikipedia" in shown
        and "CC BY-SA" in shown
        and "https://dumps.wikimedia.org/enwiki/" in shown
    )
    assert "none stated" in repr(results.contexts_table(None))
