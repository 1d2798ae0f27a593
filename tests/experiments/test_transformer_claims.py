"""Chapter 1's claims on made-up records: each holds as in print, fails when reversed, and needs its control."""

from dataclasses import replace
from pathlib import Path

import pytest

from attn.experiments.transformer import claims
from attn.experiments.transformer.claims import CLAIMS
from attn.experiments.transformer.runs import EXPERIMENTS, PAPER, row_id, table3_rows
from attn.reproduction.claims import FAILS, HOLDS, NOT_TESTED, judge
from attn.reproduction.facts import load_papers
from attn.reproduction.records import Record
from tests.reproduction.toy import record_data

FACTS = load_papers()[PAPER]
TRAINED = [claim for claim in CLAIMS if claim.kind != "arithmetic"]
every_claim = pytest.mark.parametrize("claim", TRAINED, ids=lambda claim: claim.id)


def runs(changes=None):
    """Three seeds of every row of table 3 with the printed perplexity and BLEU, a little apart."""
    found = []
    for row in table3_rows():
        name = f"table3/{row_id(row)}"
        ppl, bleu = (changes or {}).get(row_id(row), (row["ppl_dev"], row["bleu_dev"]))
        for seed in range(3):
            metrics = {"perplexity": ppl * (1 + 1e-4 * seed), "bleu_validation": bleu + 1e-3 * seed}
            data = record_data(PAPER, name, seed, metrics)
            found.append(Record(Path(f"{name}/seed{seed}.json"), data | {"artifact": None}))
    return found


def verdict(claim, records):
    return judge(claim, FACTS, records, lambda record: False)


@every_claim
def test_the_printed_numbers_pass_every_claim(claim):
    assert verdict(claim, runs()).verdict == HOLDS


@every_claim
def test_swapped_rows_fail_it(claim):
    printed = {row_id(row): (row["ppl_dev"], row["bleu_dev"]) for row in table3_rows()}
    one, other = (name.removeprefix("table3/") for name in claim.experiments[:2])
    if claim.kind == "equality":
        changes = {one: (2 * printed[one][0], printed[one][1] - 5)}
    else:
        changes = {one: printed[other], other: printed[one]}
    # the control stays: the base model learns, and a smaller one costs more than any row here
    changes.setdefault("d_model_256", (99.0, 11.0))
    if claim.control.statement.startswith("The base model"):
        changes = {name: value for name, value in changes.items() if name in (one, other)}
    assert verdict(claim, runs(changes)).verdict == FAILS


@every_claim
def test_without_its_control_a_claim_is_not_tested(claim):
    shown = {"base": (40.0, 2.0), "d_model_256": (30.0, 2.0)}
    assert verdict(claim, runs(shown)).verdict == NOT_TESTED


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
