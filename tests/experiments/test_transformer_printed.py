"""What chapter 1 says of printed numbers: heads, table 2 row by row, and the recurrent models' paper."""

from dataclasses import replace
from pathlib import Path

import pytest

from attn.experiments.transformer import printed
from attn.experiments.transformer.runs import PAPER
from attn.reproduction.claims import t_interval
from attn.reproduction.facts import load_papers
from attn.reproduction.records import Record
from tests.reproduction.toy import record_data

FACTS = load_papers()[PAPER]
RECURRENT = load_papers()["bahdanau2015"]


def changed(model, **cells):
    """The facts with other cells in one row of table 2."""
    table = FACTS.table("table2")
    rows = tuple(row | cells if row["model"] == model else row for row in map(dict, table.rows))
    tables = tuple(replace(table, rows=rows) if each is table else each for each in FACTS.tables)
    return replace(FACTS, tables=tables)


def test_heads_are_those_of_the_recipe():
    said = printed.heads_words(FACTS)
    assert "the base model has 8 heads, with d_k = d_v = 64 = 512 / 8" in said and "16 heads" in said


@pytest.mark.parametrize("name", ["base", "big"])
def test_the_width_of_a_head_is_what_the_sentence_says(name):
    sizes = FACTS.recipe["model"][name]
    assert sizes["d_model"] == sizes["h"] * sizes["d_k"] and sizes["d_k"] == sizes["d_v"]


def test_costs_are_counted_by_what_they_rest_on():
    said = printed.cost_words(FACTS)
    assert said.startswith(
        "Of 15 recomputed costs, 4 take GPUs and days from this paper, 6 take them from memory, and 5"
    )
    assert said.endswith(FACTS.recipe["training_cost"]["notes"])


def test_the_printed_rows_are_compared_for_each_language_and_model():
    german, german_big, french, french_big, earlier = printed.comparisons(FACTS)
    assert german == (
        "English to German, Transformer (base model): 27.3 BLEU, above all 6 earlier systems that print a score; cost "
        "below that of all 5 earlier systems that print a cost, by factors of 2.9 to 55."
    )
    assert (
        "cost below that of 2 of the 5 earlier systems that print a cost (not GNMT + RL, ConvS2S, MoE)"
        in german_big
    )
    assert "38.1 BLEU, above none of the 7 earlier systems" in french and "factors of 30 to 364" in french
    assert "41.8 BLEU, above all 7" in french_big and "below that of all 7" in french_big
    assert earlier.startswith(
        "English to French, Transformer (big), in the proceedings: 41 BLEU, above 5 of the 7"
    )
    assert "(not GNMT + RL Ensemble, ConvS2S Ensemble)" in earlier


def test_a_system_that_is_as_good_or_as_cheap_is_not_beaten():
    good, *_ = printed.comparisons(changed("MoE", bleu_en_de=27.3, flops_en_de=3.3e18))
    assert "above 5 of the 6 earlier systems that print a score (not MoE)" in good
    assert "below that of 4 of the 5 earlier systems that print a cost (not MoE)" in good
    dear, *_ = printed.comparisons(changed("Transformer (base model)", flops_en_de=1e25))
    assert dear.endswith("cost below that of none of the 5 earlier systems that print a cost.")


def test_the_recurrent_paper_s_table_says_how_it_was_checked():
    said = " ".join(repr(printed.recurrent_table(RECURRENT)).split())
    assert "RNNencdec-50 17.82 26.71" in said and "RNNsearch-50 26.75 34.16" in said
    assert "The paper's numbers: two sources (" in said
    assert (
        "higher in 4 of 4 comparisons" in said
        and "raise 2 of 2 scores without attention and 2 of 2 with" in said
    )
    assert (
        "RNNsearch-30 has 21.50 on all sentences and RNNencdec-50 17.82" in said
        and "training beats a model without" in said
    )
    assert "RNNsearch-50: no loss at length 50 and above (two sources). No printed numbers" in said


def test_what_that_paper_concludes_is_counted_in_its_cells():
    table = RECURRENT.table("table1")
    rows = tuple(
        row | {"all": 10.0} if row["model"].startswith("RNNsearch-30") else row
        for row in map(dict, table.rows)
    )
    tables = tuple(replace(table, rows=rows) if each is table else each for each in RECURRENT.tables)
    said = " ".join(repr(printed.recurrent_table(replace(RECURRENT, tables=tables))).split())
    assert "higher in 3 of 4 comparisons" in said and "training does not beat a model without" in said
    assert "raise 2 of 2 scores without" in said


def test_the_paper_s_budget_is_the_recipe_s():
    said = printed.budget_words(FACTS)
    assert "4,500,000 pairs; 8 P100 for 0.5 days (Transformer (base model)) and 8 P100 for 3.5 days" in said


def test_recurrent_models_stand_beside_the_print_as_far_as_they_are_recorded():
    def runs(kind, *scores):
        return [
            Record(
                Path("x.json"),
                record_data(PAPER, f"captions_en_de/{kind}", i, {"bleu_t": s}) | {"artifact": None},
            )
            for i, s in enumerate(scores)
        ]

    none = printed.recurrent_words(RECURRENT, {"lstm": [], "gru_attention": []}, "t")
    assert "17.82 BLEU without attention, 26.75 with it (RNNencdec-50, RNNsearch-50; two sources)." in none
    assert (
        "Not recorded here: LSTM without attention; GRU without attention; GRU with additive attention."
        in none
        and "Here, BLEU" not in none
    )
    assert none.endswith("not scored by length."), "nothing is compared"
    one = printed.recurrent_words(RECURRENT, {"lstm": runs("lstm", 20.0, 21.0)}, "t")
    assert "Here, BLEU on t: LSTM without attention 20.5. Not recorded here: GRU" in one
    assert one.endswith("not scored by length.")
    attending = printed.recurrent_words(RECURRENT, {"gru_attention": runs("gru_attention", 30.0)}, "t")
    assert attending.endswith(
        "No model without attention is recorded, so what attention is worth here is not known."
    )
    both = printed.recurrent_words(
        RECURRENT, {"lstm": runs("lstm", 20.0), "gru_attention": runs("gru", 30.0)}, "t"
    )
    assert "is not attention alone: cell and width differ" in both
    every = {kind: runs(kind, 20.0) for kind in ("lstm", "gru", "gru_attention")}
    assert "not attention alone" not in printed.recurrent_words(RECURRENT, every, "t")
    pairs = {"gru": runs("gru", 20.0, 21.0, 99.0), "gru_attention": runs("gru_attention", 32.0, 35.0)}
    low, high = t_interval([12.0, 14.0])
    assert (
        f"Attention adds 13.0 BLEU to the GRU here, {low:.1f} to {high:.1f} with a confidence of 95% (2 pairs of the same "
        "seed)." in printed.recurrent_words(RECURRENT, pairs, "t")
    )
    without_lstm = {kind: every[kind] for kind in ("gru", "gru_attention")}
    assert printed.recurrent_words(RECURRENT, without_lstm, "t").endswith("not scored by length.")
    assert (
        "LSTM without attention 20.0; GRU with additive attention 30.0." in both
        and "Not recorded here: GRU without attention." in both
    )
