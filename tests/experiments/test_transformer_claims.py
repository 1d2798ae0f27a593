"""Chapter 1's claims on made-up records: each holds as in print, fails when reversed, and needs its control."""

from dataclasses import replace
from pathlib import Path

import pytest

from attn.experiments.transformer import claims
from attn.experiments.transformer.claims import AT_BEST, CLAIMS, WITHOUT_FALLING, WITHOUT_RULE, on_plateau
from attn.experiments.transformer.runs import EXPERIMENTS, GRID, PAPER, row_id, table3_rows
from attn.reproduction.claims import FAILS, HOLDS, NOT_TESTED, judge
from attn.reproduction.facts import load_papers
from attn.reproduction.records import Record
from tests.reproduction.toy import record_data

FACTS = load_papers()[PAPER]
TRAINED = claims.TABLE3
every_claim = pytest.mark.parametrize("claim", TRAINED, ids=lambda claim: claim.id)


def runs(changes=None, *, corpus="real text", scale=1.0, worse_end=None):
    """Three seeds of every row of table 3 with the printed perplexity and BLEU, a little apart.

    Perplexities are `scale` times as printed. `worse_end` multiplies what some rows end at, and leaves their best.
    """
    found = []
    for row in table3_rows():
        name = f"{GRID}/{row_id(row)}"
        ppl, bleu = (changes or {}).get(row_id(row), (row["ppl_dev"], row["bleu_dev"]))
        for seed in range(3):
            best = scale * ppl * (1 + 1e-4 * seed)
            end = best * (worse_end or {}).get(row_id(row), 1)
            metrics = {"perplexity": end, "best_perplexity": best, "bleu_validation": bleu + 1e-3 * seed}
            metrics["bleu_validation_at_best"] = metrics["bleu_validation"]
            history = [{"step": step, "perplexity": end} for step in (350, 400)]
            config = {"corpus": {"name": corpus}}
            data = record_data(PAPER, name, seed, metrics, config=config, history=history)
            found.append(Record(Path(f"{name}/seed{seed}.json"), data | {"artifact": None}))
    return found


def verdict(claim, records):
    return judge(claim, FACTS, records, lambda record: "fresh")


@every_claim
def test_the_printed_numbers_pass_every_claim(claim):
    assert verdict(claim, runs()).verdict == HOLDS


@every_claim
def test_swapped_rows_fail_it(claim):
    printed = {row_id(row): (row["ppl_dev"], row["bleu_dev"]) for row in table3_rows()}
    one, other = (name.removeprefix(f"{GRID}/") for name in claim.experiments[:2])
    if claim.kind == "equality":
        changes = {one: (2 * printed[one][0], printed[one][1] - 5)}
    else:
        changes = {one: printed[other], other: printed[one]}
    # the control stays: a row of another size costs more than any row here
    control = claim.experiments[-1].removeprefix(f"{GRID}/")
    changes.setdefault(control, (99.0, 11.0))
    assert verdict(claim, runs(changes)).verdict == FAILS


@every_claim
def test_without_its_control_a_claim_is_not_tested(claim):
    control = claim.experiments[-1].removeprefix(f"{GRID}/")
    found = verdict(claim, runs({"base": (40.0, 2.0), control: (30.0, 2.0)}))
    assert found.verdict == NOT_TESTED and found.reason.startswith("the positive control does not show")


@pytest.mark.parametrize("claim", [c for c in TRAINED if c.fact == "c3"], ids=lambda claim: claim.id)
def test_that_the_base_model_learns_is_no_control_of_size(claim):
    """All sizes at the ceiling: translations are as good as can be, and nothing says what a size is worth."""
    found = verdict(claim, runs({row_id(row): (1.1, 95.0) for row in table3_rows()}))
    assert found.verdict == NOT_TESTED and "control" in found.reason


def test_no_test_of_size_is_its_own_control():
    for claim in TRAINED:
        compared, control = set(claim.experiments[:2]), {claim.experiments[-1], f"{GRID}/base"}
        assert compared != control, claim.id


def test_the_control_of_positions_says_that_it_is_one_of_size():
    said = "nothing here shows that positions matter"
    assert {claim.fact for claim in TRAINED if said in claim.control.statement} == {"c6"}
    assert all(said in claim.control.statement for claim in TRAINED if claim.fact == "c6")


@every_claim
def test_one_row_that_still_falls_in_one_seed_leaves_a_claim_untested(claim):
    for name in claim.experiments:  # the control's rows among them
        records = runs(**GENERATED)
        falling = next(r for r in records if r.key[1] == name and r.seed == 1)
        falling.history[-2]["perplexity"] = falling.history[-1]["perplexity"] / 0.94
        found = verdict(claim, records)
        assert found.verdict == NOT_TESTED and found.estimate is None
        assert f"seed 1 of {name} was still falling, by 6.0% of its perplexity" in found.reason


def test_a_control_that_still_falls_withholds_a_test_of_rows_that_do_not():
    (claim,) = [claim for claim in TRAINED if claim.id == "c1_many_heads"]
    records = runs(**GENERATED)
    assert verdict(claim, records).verdict == HOLDS
    for record in records:
        if record.key[1] == f"{GRID}/d_model_256":
            record.history[-2]["perplexity"] = 1.2 * record.history[-1]["perplexity"]
    assert verdict(claim, records).verdict == NOT_TESTED
    (free,) = [free for free in WITHOUT_FALLING if free.id == claim.id]
    assert verdict(free, records).verdict == HOLDS, "the rule alone withholds it"


def test_a_fall_of_5_percent_is_judged_and_one_evaluation_is_not():
    (claim,) = [claim for claim in TRAINED if claim.id == "c4_cost"]
    records = runs(**GENERATED)
    for record in records:
        record.history[-2]["perplexity"] = record.history[-1]["perplexity"] / 0.951
    assert verdict(claim, records).verdict == HOLDS
    del records[0].history[:-1]
    found = verdict(claim, records)
    assert found.verdict == NOT_TESTED and "fewer than two evaluations" in found.reason


GENERATED = {"corpus": "spoken-numbers", "scale": 0.2}  # printed perplexities below 2, off the plateau


@every_claim
def test_one_row_on_the_plateau_in_one_seed_leaves_a_claim_untested(claim):
    assert verdict(claim, runs(**GENERATED)).verdict == HOLDS
    for name in claim.experiments:
        records = runs(**GENERATED)
        stuck = next(r for r in records if r.key[1] == name and r.seed == 1)
        stuck.data["metrics"]["perplexity"]["value"] = 2.1
        found = verdict(claim, records)
        assert (
            found.verdict == NOT_TESTED
            and f"seed 1 of {name} ends on the plateau, at 0.74 nats" in found.reason
        )
        assert found.estimate is None


def test_without_the_rule_a_row_on_the_plateau_is_judged_by_the_same_tests():
    assert [claim.id for claim in WITHOUT_RULE] == [claim.id for claim in TRAINED]
    records = runs(**GENERATED)
    for record in records:
        if record.key[1] == f"{GRID}/n_8":
            record.data["metrics"]["perplexity"]["value"] = 2.1
    with_rule, without = (
        {claim.id: verdict(claim, records).verdict for claim in which} for which in (TRAINED, WITHOUT_RULE)
    )
    assert with_rule["c3_layers_8"] == NOT_TESTED and without["c3_layers_8"] == FAILS
    assert {name for name in without if without[name] != with_rule[name]} == {"c3_layers_8"}
    poor = runs({"base": (40.0, 2.0), "d_model_256": (30.0, 2.0), "n_2": (30.0, 2.0)})
    assert {verdict(claim, poor).verdict for claim in WITHOUT_RULE} == {NOT_TESTED}, "the control stays"


def test_a_row_that_a_claim_does_not_compare_may_stay_on_the_plateau():
    by_id = {claim.id: claim for claim in CLAIMS}
    records = runs({"n_8": (13.0, 2.0)}, **GENERATED)
    assert verdict(by_id["c3_layers_8"], records).verdict == NOT_TESTED
    assert verdict(by_id["c3_layers_4"], records).verdict == HOLDS


def test_a_plateau_is_known_of_generated_sentences_alone():
    assert not any(map(on_plateau, runs()))
    assert not any(map(on_plateau, runs(**GENERATED)))
    assert all(map(on_plateau, runs(corpus="spoken-numbers")))


def test_tests_at_the_best_evaluation_are_the_same_and_look_there():
    last, best = ({claim.id: claim for claim in which} for which in (TRAINED, AT_BEST))
    assert list(best) == list(last)
    records = runs(worse_end={"d_model_1024": 2})
    assert verdict(last["c3_double_width"], records).verdict == FAILS
    assert verdict(best["c3_double_width"], records).verdict == HOLDS
    for record in records:
        if record.key[1] == f"{GRID}/h_1":
            record.data["metrics"]["bleu_validation_at_best"]["value"] = 60.0
    assert verdict(last["c1_one_head"], records).verdict == HOLDS
    assert verdict(best["c1_one_head"], records).verdict == FAILS


@pytest.mark.parametrize("fact", ["c2", "c4", "c5", "c6"])
def test_what_the_paper_says_of_both_measures_is_tested_in_both(fact):
    assert {claim.unit for claim in TRAINED if claim.fact == fact} == {"nats per subword", "BLEU"}


def test_claims_and_experiments_fit_the_facts():
    ids = {experiment.id for experiment in EXPERIMENTS}
    for claim in CLAIMS:
        assert set(claim.experiments) <= ids and claim.fact in {fact.id for fact in FACTS.claims}
        assert claim.margin is None or claim.margin in FACTS.margins


@pytest.mark.parametrize("claim", [c for c in CLAIMS if c.kind == "arithmetic"], ids=lambda claim: claim.id)
def test_arithmetic_claims_hold(claim):
    assert verdict(claim, []).verdict == HOLDS


def test_a_recurrence_in_attention_s_place_fails_the_arithmetic(monkeypatch):
    monkeypatch.setattr(claims, "ATTENTION", "LSTM")
    by_id = {claim.id: claim for claim in CLAIMS}
    assert verdict(by_id["c7_costs_cross"], []).verdict == FAILS
    assert verdict(by_id["c8_depth"], []).verdict == FAILS


def test_a_system_that_was_better_and_cheaper_fails_the_last_claim():
    (claim,) = [claim for claim in CLAIMS if claim.id == "c9_base_beats_all"]
    table = FACTS.table("table2")
    for changes in ({"bleu_en_de": 28.0}, {"flops_en_de": 1e18}):
        rows = tuple(row | changes if row["model"] == "ConvS2S" else row for row in table.rows)

        class Changed:
            def table(self, name, rows=rows):
                return replace(table, rows=rows)

        assert not claim.holds(Changed())
