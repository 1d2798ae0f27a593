"""Chapter 1's computed cells against the print and against hand-made sums."""

import pytest

from attn.experiments.transformer import complexity, flops, tables
from attn.experiments.transformer.flops import model_flops
from attn.experiments.transformer.runs import EXPERIMENTS, PAPER, printed_model, table3_rows
from attn.experiments.transformer.tables import TABLES, fitted_rows, hardware_flops, parameters
from attn.experiments.transformer.workloads import RecurrentConfig
from attn.reproduction.facts import load_papers
from attn.reproduction.scoreboard import agrees, compared
from attn.reproduction.tables import NOTE

FACTS = load_papers()[PAPER]
VIEWS = {view.id: view for view in TABLES}


def test_the_laws_of_table_1_are_measured_as_printed():
    for row in FACTS.table("table1").rows:
        for column, rule in VIEWS["table1"].cells.items():
            place = row["layer_type"], column
            assert rule.compute(row) == row[column], place
            # of one order, and longer by a factor that is said
            noted = place == ("Convolutional", "max_path_length")
            assert (rule.note(row) or "").startswith("same order: base (k+1)/2") == noted, place


def test_a_recurrence_in_attention_s_row_agrees_nowhere():
    (row,) = [row for row in FACTS.table("table1").rows if row["layer_type"] == "Self-Attention"]
    for column, rule in VIEWS["table1"].cells.items():
        assert agrees(rule.compute(row), row[column])
        assert not agrees(rule.compute({**row, "layer_type": "Recurrent"}), row[column]), column


def test_paths_that_do_not_shorten_with_a_wider_reach_are_no_n_over_r(monkeypatch):
    (row,) = [row for row in FACTS.table("table1").rows if row["max_path_length"] == "O(n/r)"]
    rule = VIEWS["table1"].cells["max_path_length"]
    assert agrees(rule.compute(row), row["max_path_length"])
    monkeypatch.setattr(
        complexity, "paths", lambda kind, lengths, *, reach=None: {n: n // 2 for n in lengths}
    )
    monkeypatch.setattr(complexity, "path_fit", complexity.path_fit.__wrapped__)
    monkeypatch.setattr(tables, "law_texts", complexity.law_texts.__wrapped__)
    assert not agrees(rule.compute(row), row["max_path_length"])


@pytest.mark.parametrize("column", ["flops_en_de", "flops_en_fr"])
def test_hardware_seconds_give_every_printed_flop_count_whose_hardware_is_known(column):
    rows = FACTS.table("table2").rows
    printed = [row[column] for row in rows]
    for row in rows:
        value = VIEWS["table2"].cells[column].compute(row)
        if value is not None:
            assert agrees(value, row[column], printed), row["model"]
        else:
            assert row[column] is None or row["model"] == "Deep-Att + PosUnk"


def test_a_recomputed_cost_says_what_it_rests_on():
    rows = {row["model"]: row for row in FACTS.table("table2").rows}
    notes = {
        (model, pair): VIEWS["table2"].cells[f"flops_{pair}"].note(row)
        for model, row in rows.items()
        for pair in ("en_de", "en_fr")
    }
    assert notes["MoE", "en_de"] == "64 K40 for 1 day, GPUs and days from memory"
    assert notes["ConvS2S", "en_fr"] == "8 M40 for 37 days, GPUs and days from memory"
    assert notes["GNMT + RL Ensemble", "en_de"] == "8 times the printed number of GNMT + RL"
    assert notes["Transformer (big)", "en_fr"] == "8 P100 for 3.5 days"
    assert sum("times the printed number" in (note or "") for note in notes.values()) == 5
    assert sum("from memory" in (note or "") for note in notes.values()) == 6
    for (model, pair), note in notes.items():
        assert (note is None) == (VIEWS["table2"].cells[f"flops_{pair}"].compute(rows[model]) is None)
        assert note is None or len(note) <= NOTE, "it stands in its cell"


def test_hardware_flops_by_hand():
    assert hardware_flops({"days": 0.5, "gpus": 8, "gpu": "P100"}) == 43_200 * 8 * 9.5e12
    assert hardware_flops({"days": 1, "gpus": 2, "gpu": "K80"}) == pytest.approx(86_400 * 2 * 2.8e12)


def test_only_the_two_models_of_the_paper_have_a_bleu_of_ours():
    rule = VIEWS["table2"].cells["bleu_en_de"]
    rows = {row["model"]: rule.experiment(row) for row in FACTS.table("table2").rows}
    assert {model: name for model, name in rows.items() if name} == {
        "Transformer (base model)": "wmt14_en_de/base",
        "Transformer (big)": "wmt14_en_de/big",
    }


def test_arithmetic_of_training_by_hand():
    """Attention 4 d^2, decoder twice; feed-forward 2 d d_ff; softmax V d. Six FLOPs a weight and token."""
    base = printed_model(table3_rows()[0])
    d, d_ff, vocabulary = 512, 2048, 37_000
    encoder, decoder = 6 * (4 * d * d + 2 * d * d_ff), 6 * (8 * d * d + 2 * d * d_ff)
    found = model_flops(base, vocab_size=vocabulary, source_tokens=3.0, target_tokens=5.0)
    assert found == 6 * (encoder * 3 + (decoder + vocabulary * d) * 5)


def test_arithmetic_of_a_recurrent_model_by_hand():
    """Four matrices of an LSTM on both inputs, maxout, start and softmax; embeddings cost nothing."""
    m, n, maxima, vocabulary = 3, 5, 2, 40
    model = RecurrentConfig(cell="lstm", attention=None, embedding_dim=m, hidden_size=n, maxout_size=maxima)
    encoder = 4 * n * (m + n)
    decoder = 4 * n * (m + n + n) + 2 * maxima * (n + m + n) + 2 * n * n + vocabulary * maxima
    found = model_flops(model, vocab_size=vocabulary, source_tokens=7.0, target_tokens=11.0)
    assert found == 6 * (encoder * 7 + decoder * 11)


def test_the_base_model_uses_less_than_a_third_of_its_hardware():
    base = printed_model(table3_rows()[0])
    tokens = 25_000 * 100_000
    arithmetic = model_flops(base, vocab_size=37_000, source_tokens=tokens, target_tokens=tokens)
    assert 0.25 < arithmetic / 3.283e18 < 0.3


def test_costs_that_rest_on_memory_equal_nothing():
    table, view = FACTS.table("table2"), VIEWS["table2"]
    seen = set()
    for row in table.rows:
        for name, rule in view.cells.items():
            if rule.kind == "recomputed" and (note := rule.note(row)):
                state = compared(rule, table, row, name, [other[name] for other in table.rows])["state"]
                assert ("from memory" in note) == (state == "unverified"), note
                seen.add(state)
    assert seen == {"matches", "unverified"}


def test_parameters_are_those_of_the_facts():
    computed = FACTS.exact_fact("params_table3")["computed_million_at_V37000"]
    by_group = {
        (row["group"], row["N"], row["d_model"], row["d_ff"], row["h"], row["d_k"]): row
        for row in table3_rows()
    }
    expected = {
        ("base", 6, 512, 2048, 8, 64): "base", ("B", None, None, None, None, 16): "B_dk16",
        ("B", None, None, None, None, 32): "B_dk32", ("C", 2, None, None, None, None): "C_N2",
        ("C", 8, None, None, None, None): "C_N8", ("C", None, 256, None, None, 32): "C_d256",
        ("C", None, 1024, None, None, 128): "C_d1024", ("C", None, None, 4096, None, None): "C_ff4096",
        ("big", 6, 1024, 4096, 16, None): "big", ("A", None, None, None, 32, 16): "A_all",
    }  # fmt: skip
    for key, name in expected.items():
        assert parameters(by_group[key]) == pytest.approx(computed[name], abs=5e-4), name


def test_the_stated_vocabulary_meets_no_printed_count_and_the_fitted_one_all_but_the_big_model_s():
    rows = fitted_rows()
    assert len(rows) == 11
    assert not [row for row in rows if agrees(row["stated"], row["printed"])]
    assert [row["row"] for row in rows if not agrees(row["fitted"], row["printed"])] == ["big"]


def test_every_row_of_table_3_has_its_runs_and_the_parameters_their_reason():
    ids = {experiment.id for experiment in EXPERIMENTS}
    view = VIEWS["table3"]
    for row in table3_rows():
        assert {view.cells[name].experiment(row) for name in ("ppl_dev", "bleu_dev")} <= ids
        assert f"--experiment {view.cells['bleu_dev'].experiment(row)} " in view.command(row)
        note = view.cells["params_million"].note(row)
        assert (note is None) == (row["params_million"] is None)


def test_parameter_counts_need_no_memory():
    network = flops.on_meta(printed_model(table3_rows()[-1]), 37_000)
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}
