"""What chapter 6 says of its records is right whatever they hold: on made-up runs, and without any."""

import numpy as np
import pytest

from attn.experiments.ntm import CHAPTER, results
from attn.experiments.ntm.runs import LABELS, TASKS
from attn.experiments.ntm.tables import fitted_rows
from attn.experiments.ntm.workloads import MODELS
from attn.reproduction.claims import Verdict
from attn.reproduction.facts import load_papers
from attn.reproduction.records import Record, pack_arrays
from attn.reproduction.scoreboard import ChapterState
from tests.experiments.made_up import GOOD, LENGTHS, PAPER, POOR, record, run_of, seeds_of

NTM, FF, LSTM = (LABELS[kind] for kind in MODELS)
NOBODY = {kind: [] for kind in MODELS}


def with_end(run, cost):
    """The run with five more evaluations at this cost."""
    last = run.history[-1]
    more = [last | {"seen": last["seen"] + 2000 * i, "bits_per_sequence": float(cost)} for i in range(1, 6)]
    return Record(run.path, run.data | {"history": [*run.history, *more]})


@pytest.mark.parametrize(
    "say",
    [
        lambda: results.failure_words("copy", NOBODY),
        lambda: results.order_words(NOBODY, "copy_faster"),
        lambda: results.update_words("copy", [], []),
        lambda: results.endurance_words("copy", []),
        lambda: results.length_words(NOBODY, LENGTHS, 20),
        lambda: results.repeat_words(NOBODY, ((10, 10),)),
        lambda: results.items_words(NOBODY, (6, 20)),
        lambda: results.ngram_words(NOBODY),
        lambda: results.bound_words(NOBODY),
        lambda: results.head_words([[], []]),
        lambda: results.prediction_words(NOBODY),
    ],
)
def test_without_records_it_says_so(say):
    assert say() == ["No records yet."]


# --- parameter counts ----------------------------------------------------------------------------------------


def test_the_fitted_table_shows_every_row_and_which_counts_are_equal():
    text = repr(results.fitted_table())
    for row in fitted_rows():
        assert f"{row['printed']:,}" in text and f"{row['standard']:,} (not equal)" in text
    assert text.count("(equal)") == len(fitted_rows()) == 6 and "matched" not in text


def test_words_on_the_fit_count_what_was_chosen():
    met, change, chosen = results.fitted_words()
    assert met == "The pattern meets 3 of 5 rows of table 1 and 3 of 5 rows of table 2."
    assert "read vector of 24 values where it has 20" in change and "13 values more" in change
    assert "where it emits 92" in change and "output costs 4 weights more" in change
    # read width, more, 124 and 118, 123 and 111, inputs of one row
    assert (
        "Repeat Copy needs 7 inputs here, 8 in table 3" in chosen
        and "7 numbers were chosen for 6 counts" in chosen
    )


def test_counts_are_said_to_be_equal_only_where_they_are():
    state = ChapterState(CHAPTER, [])
    third, first = results.count_words([state.table("table3_lstm"), state.table("table1_ntm_ff")])
    assert third.startswith("Equal to the print: 4 of 5 rows of table 3. Not equal: Priority Sort; ")
    assert first.startswith("Equal to the print: 0 of 5 rows of table 1. ") and first.endswith(
        " the larger in 5 of 5."
    )
    table = state.table("table3_lstm")
    for row in table["rows"]:
        row["cells"][-1] |= {"matches": "yes"}
    assert results.count_words([table]) == ["Equal to the print: 5 of 5 rows of table 3."]


def test_batch_words_are_the_budgets():
    said = results.batch_words()
    for task in TASKS:
        assert f"{task.label.lower()} {PAPER.budgets[task.id]['cpu']['batch_size']}" in said
    assert said.endswith("The profile paper has 1.")


# --- learning curves -----------------------------------------------------------------------------------------


def test_failures_tell_collapses_from_runs_on_their_way():
    ff = [with_end(record("ntm_ff", 0, costs=(80, 4)), 79.6), record("ntm_ff", 1, costs=(0, 0))]
    ntm = [record("ntm_lstm", costs=(0, 0))]
    lstm = [record("lstm", seed, costs=(90, cost)) for seed, cost in enumerate((10, 12))]
    assert results.failure_words("copy", {"ntm_lstm": ntm, "ntm_ff": ff, "lstm": lstm}) == [
        f"{FF}, seed 0: down to 5.52 bits at 200 thousand sequences, but 79.6 at the end.",
        f"{LSTM}: 2 of 2 seeds not below 0.1 bits yet: 11.6 to 13.6 at the end.",
    ]
    assert results.failure_words("copy", {"ntm_lstm": ntm, "lstm": []}) == ["Every seed ends below 0.1 bits."]


def test_order_is_by_medians_and_beside_the_paper_s_sentence():
    rows = {
        "ntm_lstm": [
            run_of("associative/ntm_lstm", seed, costs=(18, cost)) for seed, cost in enumerate((1, 2, 30))
        ],
        "ntm_ff": [run_of("associative/ntm_ff", costs=(18, 0))],
        "lstm": [],
    }
    paper, area, end, counts = results.order_words(rows, "assoc_order")
    assert paper == f"The paper: {PAPER.claim('assoc_order').statement}"
    assert area == f"Mean cost over the curve, least first: {FF} 9; {NTM} 10 bits."
    assert end == f"Cost at the end, least first: {FF} 0.36; {NTM} 2.32 bits."
    assert counts == f"Medians over seeds ({NTM} 3, {FF} 1). No records yet of {LSTM}."


# --- beyond the training sizes -------------------------------------------------------------------------------


def test_lengths_say_who_learned_and_who_keeps_it():
    ntm, lstm = results.length_words({"ntm_lstm": GOOD, "lstm": POOR}, LENGTHS, 20)
    assert "5 of 5 seeds learned length 20" in ntm and ntm.endswith(": 5 at 30, 5 at 50, 0 at 120.")
    assert "5 of 5 seeds learned length 20" in lstm and lstm.endswith(": 0 at 30, 0 at 50, 0 at 120.")
    (none,) = results.length_words({"lstm": [record("lstm", at={20: 0.3})]}, LENGTHS, 20)
    assert none.startswith(f"{LSTM}: no seed has learned length 20 (least cost 0.3 ")


def test_repeat_words_give_medians_at_every_size():
    metrics = {"bits_per_bit_at_10x10": 1e-5, "bits_per_bit_at_10x20": 0.5, "right_ends_at_10x10": 0.9,
               "right_ends_at_10x20": 0.0}  # fmt: skip
    rows = seeds_of("repeat_copy/lstm", 3, spread=0.0, metrics=metrics)
    assert results.repeat_words({"ntm_lstm": [], "lstm": rows}, ((10, 10), (10, 20))) == [
        f"{LSTM} (medians of 3 seeds): 10 vectors 10 times, below 0.0001 bits per output bit and 90% of the ends right; "
        "10 vectors 20 times, 0.5 bits per output bit and 0% of the ends right."
    ]


def test_items_words_say_how_far_recall_reaches():
    good = {"bits_per_bit_at_6": 0.0, "bits_per_bit_at_12": 0.05, "bits_per_bit_at_20": 0.5}
    bad = dict.fromkeys(good, 1.0)
    rows = [run_of("associative/ntm_ff", seed, metrics=m) for seed, m in enumerate((good, good, bad))]
    found = results.items_words({"ntm_ff": rows, "lstm": rows[2:]}, (6, 12, 20))
    assert found[0] == (
        f"{FF}: 2 of 3 seeds below 1 bit at 6 items; the median is below 1 bit an answer at 6, 12 items, and 9 bits at 20."
    )
    assert found[1].startswith(f"{LSTM}: 0 of 1 seed below 1 bit") and "nowhere below 1 bit" in found[1]


# --- dynamic n-grams -----------------------------------------------------------------------------------------


def test_n_gram_words_give_the_share_of_what_contexts_are_worth():
    metrics = {"bits_per_sequence": 144.0, "optimal_bits_per_sequence": 132.0, "bits_above_optimal": 12.0,
               "context_free_bits_per_sequence": 192.0}  # fmt: skip
    assert results.ngram_words({"lstm": [run_of("ngrams/lstm", metrics=metrics)]}) == [
        f"{LSTM}: 12 bits above the optimal estimator; 80% of what contexts are worth (1 seed)."
    ]


def test_predictions_are_set_beside_not_predicting(tmp_path):
    optimal = np.array([0.5, 0.9, 0.1], np.float16)
    outputs = np.array([[127.5], [204], [51]]).round().astype(np.uint8)
    (tmp_path / "a.npz").write_bytes(pack_arrays({"optimal_trace": optimal, "outputs_trace": outputs}))
    run = run_of("ngrams/lstm")
    kept = Record(tmp_path / "seed0.json", run.data | {"artifact": {"file": "a.npz"}})
    (said,) = results.prediction_words({"lstm": [kept]})
    assert "0.07 from the optimal prediction" in said and "one half would be 0.27 from it (1 seed)" in said


def ngram_run(kind, cost):
    metrics = {"bits_per_sequence": cost, "optimal_bits_per_sequence": 132.0, "bits_above_optimal": cost - 132,
               "context_free_bits_per_sequence": 192.0}  # fmt: skip
    return [run_of(f"ngrams/{kind}", metrics=metrics)]


@pytest.mark.parametrize(
    ("costs", "between", "reverse"),
    [((140, 150, 160), 2, False), ((140, 170, 160), 1, False), ((165, 170, 160), 0, True), ((131, 170, 160), 0, False)],
)  # fmt: skip
def test_n_gram_words_set_the_order_beside_the_paper_s(costs, between, reverse):
    records = {kind: ngram_run(kind, float(cost)) for kind, cost in zip(MODELS, costs, strict=True)}
    order = results.ngram_words(records)[-1]
    assert order.startswith("After the last update, medians, least first: optimal estimator 132, ")
    assert f"here {between} of 2 do." in order and ("It is the reverse" in order) == reverse


def bound_run(seed, above, error=1.0):
    metrics = {"bits_above_optimal": above, "bits_above_optimal_error": error}
    return run_of("ngrams/ntm_ff", seed, metrics=metrics)


@pytest.mark.parametrize(
    ("above", "count"), [([2.0, 0.0, 1.0], "3 of 3"), ([2.0, -0.1, -4.0], "1 of 3"), ([-1.0], "0 of 1")]
)
def test_runs_that_cost_no_less_than_the_optimum_are_counted(above, count):
    runs = [bound_run(seed, bits) for seed, bits in enumerate(above)]
    (said,) = results.bound_words({"ntm_ff": runs, "lstm": []})
    assert f": {count}. Less by up to 4 standard errors" in said


def test_a_run_that_beats_the_optimum_stops_the_page():
    with pytest.raises(
        AssertionError, match="ngrams/ntm_ff, seed 1, costs 2.5 bits less than the best estimator"
    ):
        results.bound_words({"ntm_ff": [bound_run(0, 3.0), bound_run(1, -2.5, error=0.5)]})


# --- priority sort -------------------------------------------------------------------------------------------


def sort_run(seed, cost, heads, experiment="priority_sort_batch1/ntm_ff"):
    found = run_of(experiment, seed, costs=(cost, cost))
    config = {"model": {"n_heads": heads}, "training": {"batch_size": 1, "lr": 3e-5}}
    return Record(found.path, found.data | {"config": config})


def test_head_words_name_setting_and_chance():
    eight = [sort_run(0, 128.5, 8), sort_run(1, 90.0, 8)]
    assert results.head_words([eight, [], [sort_run(0, 100.0, 1)]]) == [
        f"{FF}, 8 read and 8 write heads, 1 sequence an update, learning rate 3e-05: seed 0 128, seed 1 90 bits. Not "
        "below chance, 128 bits: seed 0.",
        f"{FF}, 1 read and 1 write head, 1 sequence an update, learning rate 3e-05: seed 0 100 bits.",
    ]


def test_a_control_that_does_not_show_is_told():
    common = dict(id="a", fact="f", statement="s", table="t", kind="order", measure="Cost", unit="bits")
    control = {"statement": "It learns", "interval": [-1.0, 9.0], "shown": False}
    untested = Verdict(**common, verdict="not tested at this scale", interval=(-2.0, 4.0), control=control)
    assert results.claim_words([untested], "a") == [
        'Cost: -2 to 4 bits, not tested at this scale. The control, "It learns", does not show: -1 to 9, which is not all '
        "above 0."
    ]
    shown = Verdict(**common, verdict="fails", interval=(-2.0, 4.0), control=control | {"shown": True})
    assert results.claim_words([shown], "a") == ["Cost: -2 to 4 bits, fails."]
    none = Verdict(**common, verdict="not tested at this scale", reason="needs 3 seeds")
    assert results.claim_words([none], "a") == ["Cost: not tested at this scale (needs 3 seeds)."]


# --- what came after -----------------------------------------------------------------------------------------


def test_later_results_are_the_facts_and_none_is_from_memory_alone():
    found = list(results._later())
    assert [paper for paper, *_ in found] == ["graves2016dnc", "santoro2016mann", "zoph2017nasnet"]
    for paper, _, table, ours, theirs, *_ in found:
        assert table in load_papers()[paper].tables and table.verified
        cells = {value for row in table.rows for value in row.values()}
        assert {ours[1], *(theirs or ())[1:]} <= cells
    assert [theirs is None for *_, theirs, _, _ in found] == [True, False, False], (
        "the DNC's row has another task's LSTM"
    )
    text = repr(results.after_table())
    assert (
        "DNC: 98.8% right" in text
        and "LSTM: 37% right" not in text
        and "MANN: 82.8% right" in text
        and "LSTM: 49.5% right" in text
    )
    html = results.after_table().html
    assert "at the first instance" not in html, "a note on a number that is not shown"
    assert "means of 5 runs" in html


# --- one sequence an update ----------------------------------------------------------------------------------


def test_words_on_updates_name_when_it_was_first_solved():
    def run(batch_size, seed, last):
        found = run_of("copy/ntm_lstm", seed, costs=(9.05, last))
        training = {"batch_size": batch_size, "lr": 1e-4}
        return Record(found.path, found.data | {"config": {"training": training}})

    # from 9.05 bits down by 0.1 every 2,000 sequences: the median of five evaluations is below 0.1 at the 92nd
    first, second = results.update_words("copy", [run(1, 0, -0.95)], [run(16, 0, -0.95), run(16, 1, 5.0)])
    assert first == (
        "1 sequence an update, learning rate 0.0001: first below 0.1 bits after 184,000 sequences, which are 184,000 "
        "updates (1 seed)."
    )
    assert second == (
        "16 sequences an update, learning rate 0.0001: below 0.1 bits in 1 of 2 seeds, after 184,000 sequences, which are "
        "11,500 updates."
    )
    three = [run(16, 0, -0.95), run(16, 1, 5.0), run(16, 2, -10.95)]
    (third,) = results.update_words("copy", three, [])
    assert third.endswith(
        "after 184,000 sequences, which are 11,500 updates (median of 3 seeds, of which 1 never is)."
    )
    assert results.update_words("copy", [], [run(16, 0, 5.0)]) == [
        "16 sequences an update, learning rate 0.0001: not below 0.1 bits in any of 1 seed."
    ]


def test_endurance_counts_what_is_lost_after_the_first_success():
    kept = with_end(run_of("copy/ntm_lstm", costs=(9.0, 0.0)), 0.00001)
    assert results.endurance_words("copy", [kept]) == [
        "Seed 0: 12,500 updates, loss and gradient finite in all of them. Of the 4 evaluations after it first came below "
        "0.1 bits, 0 are not below; below 0.0001 bits at the end."
    ]
    lost = with_end(with_end(run_of("copy/ntm_lstm", 1, costs=(9.0, 0.0)), 0.00001), 30)
    (words,) = results.endurance_words("copy", [lost])
    last = lost.history[-1]["seen"]
    assert (
        "Of the 9 evaluations" in words
        and f"5 are not below, at most 30 bits, the last after {last:,} sequences; 30 bits at the end."
        in words
    )
    (never,) = results.endurance_words("copy", [run_of("copy/lstm", 2)])
    assert never.startswith("Seed 2: ") and never.endswith("; never below 0.1 bits, 8.02 at the end.")
