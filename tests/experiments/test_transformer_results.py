"""What chapter 1 shows of its records, from made-up ones, and its live check."""

from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from attn.experiments.transformer import CHAPTER, results
from attn.experiments.transformer.complexity import PathFit
from attn.experiments.transformer.fits import Exponents
from attn.experiments.transformer.live import BANDS
from attn.experiments.transformer.runs import GRID, PAPER, row_id, table3_rows
from attn.reproduction.experiment import Metric, Outcome
from attn.reproduction.live import live_rows
from attn.reproduction.records import Record
from attn.reproduction.runner import LiveRun
from tests.reproduction.toy import record_data


def record(experiment, seed, **metrics):
    """A run; seeds see a few tokens more in as many updates."""
    history = [
        {"step": 10 * i, "seen": 1_000_000 * i + 7 * seed, "perplexity": 50 / (i + 1)} for i in range(4)
    ]
    data = record_data(PAPER, experiment, seed, metrics, history=history)
    return Record(Path(f"{experiment}/seed{seed}.json"), data | {"artifact": None})


class Kept(Record):
    """A record of Multi30k whose arrays are at hand."""

    def artifact(self):
        return self.data["arrays"]


def kept(**arrays):
    run = record("captions_en_de/transformer", 0)
    config = {"corpus": {"name": "multi30k", "validation": "valid"}}
    return Kept(run.path, run.data | {"config": config, "arrays": arrays})


def translations(n_seeds, bleu=30.0):
    return [
        record(
            "captions_en_de/transformer",
            seed,
            perplexity=8.0,
            bleu_validation=bleu + seed,
            bleu_test=bleu - seed,
        )
        for seed in range(n_seeds)
    ]


def live(task="spoken_numbers/transformer", *, exact=0.9, bleu=95.0, perplexity=1.1):
    values = {"exact_test": exact, "bleu_test": bleu, "perplexity": perplexity}
    metrics = {name: Metric(value, "unit", "made up") for name, value in values.items()}
    sentences = {
        f"test_{side}": np.array([f"{side} {i}" for i in range(8)])
        for side in ("source", "translation", "reference")
    }
    return {task: LiveRun(None, SimpleNamespace(history=[]), Outcome(metrics, sentences))}


def test_our_rows_have_mean_and_spread_over_seeds():
    runs = translations(3)
    for run, seen in zip(runs, (2_000_000, 3_000_000, 4_000_000), strict=True):
        run.data["run"] |= {"seen": seen, "units_per_second": 1500.0, "peak_memory_bytes": seen}
    text = repr(results.own_rows({"Captions": {"transformer": runs, "lstm": []}}, "test", "Not WMT"))
    assert text.startswith("Not WMT. Mean and standard deviation over seeds")
    assert "3.0 million" in text and "1,500" in text and "4 MiB" in text
    assert "Transformer, 3 seeds" in text and "LSTM" not in text
    assert "31.0 ± 1.0" in text and "29.0 ± 1.0" in text and "8.00 ± 0.00" in text
    one = repr(results.own_rows({"Captions": {"transformer": translations(1)}}, "test", "Not WMT"))
    assert "1 seed" in one and "±" not in one.split("---")[-1]


def test_how_bleu_was_scored_stands_under_our_rows():
    runs = translations(2)
    for run, more in zip(runs, ("one", "another"), strict=True):
        run.data["metrics"]["bleu_test"]["definition"] = (
            f"sacrebleu nrefs:1|tok:13a; 1,000 pairs of x, beam 4, length penalty 0.6, {more} mean; BLEU = 3"
        )
    text = repr(results.own_rows({"Captions": {"transformer": runs}}, "test", "Not WMT"))
    assert text.endswith("BLEU by sacreBLEU: nrefs:1|tok:13a, beam 4, length penalty 0.6.")
    runs[1].data["metrics"]["bleu_test"]["definition"] = "sacrebleu nrefs:1|tok:zh; beam 2, length penalty 1"
    said = results.scoring_words(runs, "bleu_test")
    assert said.endswith("tok:13a, beam 4, length penalty 0.6; nrefs:1|tok:zh, beam 2, length penalty 1.")
    assert results.scoring_words(translations(1), "bleu_test") == "", "a definition that says no signature"


def test_without_records_everything_says_so():
    assert repr(results.own_rows({"Captions": {"transformer": []}}, "test", "Not WMT")) == "no records yet"
    assert results.mapped_words(None) == "No records yet."
    assert repr(results.samples(None, "test", "Sentences")) == "no records yet"
    before = plt.get_fignums()
    assert results.curves({"transformer": []}) is None
    assert results.ablations({}) is None
    assert results.norm_curves([], []) is None
    assert results.alignment(None) is None
    assert plt.get_fignums() == before, "an empty figure would be shown"


@pytest.mark.filterwarnings("error")
def test_curves_are_perplexity_over_updates_from_the_first_one_on():
    runs = translations(2)
    assert runs[0].history[1]["seen"] != runs[1].history[1]["seen"], (
        "a median over tokens would have no place"
    )
    drawing = results.curves({"transformer": runs, "lstm": []})
    (axes,) = drawing.axes
    seeds = [line.get_xydata().tolist() for line in axes.lines]
    assert seeds == 3 * [[[10, 25.0], [20, 50 / 3], [30, 12.5]]], "two seeds and their median"
    assert [text.get_text() for text in drawing.legends[0].get_texts()] == ["Transformer (median of 2 seeds)"]
    assert axes.get_yscale() == "log"


def test_models_that_are_drawn_together_have_colours_of_their_own():
    kinds = ("transformer", "gru_attention", "gru", "lstm")
    (axes,) = results.curves({kind: translations(1) for kind in kinds}).axes
    assert len({line.get_color() for line in axes.lines}) == len(kinds)


def test_samples_have_source_translation_and_reference_in_turn():
    (run,) = live().values()
    lines = repr(results.samples(run, "test", "Sentences", count=2)).splitlines()[3:]
    assert [line.split() for line in lines] == [
        [side, side, str(i)] for i in (0, 4) for side in ("source", "translation", "reference")
    ], "evenly spread over the eight that are kept"
    assert len(repr(results.samples(run, "test", "Sentences", count=20)).splitlines()) == 3 + 3 * 8


def test_an_empty_translation_is_a_dash():
    (run,) = live().values()
    run.outcome.artifact["test_translation"][0] = ""
    assert repr(results.samples(run, "test", "Sentences", count=1)).splitlines()[4].split() == [
        "translation",
        "–",
    ]


def ablation_records():
    found = {}
    for index, row in enumerate(table3_rows()):
        name = row_id(row)
        values = [(2.0 * 1.1**index, 80.0 - index + seed) for seed in range(2)]
        found[name] = [
            record(f"{GRID}/{name}", seed, perplexity=ppl, bleu_validation=bleu)
            for seed, (ppl, bleu) in enumerate(values)
        ]
    return found


def test_ablations_are_differences_from_the_base_model_of_the_same_seed():
    cost, bleu = results.ablations(ablation_records()).axes
    labels = [label.get_text() for label in cost.get_yticklabels()]
    assert labels[:2] == ["(A) h = 1", "(A) h = 4"] and labels[-1] == "big" and len(labels) == 19
    dots = [line for line in cost.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(dots[2].get_xdata(), 3 * np.log(1.1), err_msg="the fourth row of the table")
    dots = [line for line in bleu.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(dots[2].get_xdata(), [-3, -3])
    marks = [line for line in bleu.lines if line.get_marker() == "|"]
    np.testing.assert_allclose(marks[0].get_xdata(), [24.9 - 25.8])


def test_a_row_without_records_is_left_out_of_the_figure():
    records = ablation_records() | {"h_4": []}
    assert "(A) h = 4" not in [
        label.get_text() for label in results.ablations(records).axes[0].get_yticklabels()
    ]
    assert results.ablations(records | {"base": []}) is None


def test_the_fitted_vocabulary_meets_all_but_the_big_model_and_is_never_called_equal():
    lines = repr(results.fitted_table()).splitlines()[3:]
    assert [line.count("(fitted)") for line in lines] == [1] * 10 + [0]
    assert "63.0 (not equal)" in lines[0] and "65.1 (fitted)" in lines[0]
    assert not [line for line in lines if "(equal)" in line], "the stated vocabulary meets no row"


def test_sentences_of_a_record_stand_with_their_licence():
    sides = {f"test_{side}": np.array([f"{side} 0"]) for side in ("source", "translation", "reference")}
    said = repr(results.samples(kept(**sides), "test", "Sentences"))
    assert "Licence: None stated" in said and "https://github.com/multi30k/dataset" in said
    (run,) = live().values()
    assert "Licence" not in repr(results.samples(run, "test", "Sentences"))


def test_the_mapped_sentence_is_told_with_its_split_and_whose_the_target_is():
    run = kept(
        attention_source=np.array(["▁A", "▁h", "ut", ".", "</s>"]),
        attention_target=np.array(["<s>", "▁Eine", "▁H", "ütte", "."]),
    )
    said = results.mapped_words(run)
    assert (
        said == "Source (multi30k, split valid): A hut. Target, the reference, which is fed in: Eine Hütte."
    )


def test_an_alignment_has_the_tokens_at_its_sides():
    weights = np.array([[[[0.25, 0.75], [1, 0], [0.5, 0.5]]]])
    run = kept(
        attention_cross=weights,
        attention_source=np.array(["▁a", "</s>"]),
        attention_target=np.array(["<s>", "▁ein", "."]),
    )
    axes = results.alignment(run).axes[0]
    np.testing.assert_array_equal(np.asarray(axes.images[0].get_array()), weights[0, 0])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["<s>", "_ein", "."]


def test_exponents_are_shown_with_their_errors_and_both_paths_of_a_convolution():
    found = dict(powers={"n": 2.0, "d": 1.0}, errors={"n": 0.0, "d": 0.0})
    rows = [
        {"layer_type": "Self-Attention", "complexity_per_layer": "O(n^2 * d)", "path": {8: 1},
         "max_path_length": "O(1)", "path_fit": PathFit("1", "1, slope 0.00"),
         "exponents": Exponents(**found, largest_error=1e-14)},
        {"layer_type": "Convolutional", "complexity_per_layer": "O(k)", "path": {8: 3}, "contiguous": {8: 7},
         "max_path_length": "O(log_k(n))", "path_fit": PathFit("log(n)", "base 2.00 at k = 3"),
         "exponents": Exponents(**found, largest_error=0.0123)},
    ]  # fmt: skip
    said = repr(results.exponent_table(rows)).splitlines()
    assert "n^2.00 d^1.00" in said[3] and "rounding" in said[3] and "1 at 8" in said[3]
    assert "1.2%" in said[4] and "3 at 8" in said[4] and "not dilated" in said[5] and "7 at 8" in said[5]
    assert "O(1)" in said[3] and "1, slope 0.00" in said[3] and "base 2.00 at k = 3" in said[4]
    assert "base (k + 1) / 2 = 2. That is of the printed order" in " ".join(said)


@pytest.mark.parametrize(
    ("changes", "failing"), [({}, 0), ({"exact": 0.5}, 1), ({"bleu": 20.0}, 1), ({"perplexity": 4.0}, 1)]
)
def test_each_band_of_the_live_check_can_fail(changes, failing):
    rows = live_rows(BANDS, live(**changes))
    assert len(rows) == len(BANDS) and sum(not row["verdict"] for row in rows) == failing


def test_the_live_check_has_its_run_and_its_baseline():
    live_experiments = {e.id for e in CHAPTER.experiments if "ci" in e.configs}
    assert live_experiments == {"spoken_numbers/transformer", "spoken_numbers/lstm"}
    rows = live_rows(BANDS, live() | live("spoken_numbers/lstm", exact=0.5, bleu=60.0, perplexity=1.5))
    assert {row["baseline"].startswith("not ") for row in rows} == {True}


def test_norms_are_told_apart():
    drawing = results.norm_curves([record(f"{GRID}/base", 0)], [record("table3_pre_norm/base", 0)])
    (legend,) = drawing.legends
    said = [text.get_text() for text in legend.get_texts()]
    assert [words.partition(" (")[0] for words in said] == [
        "layer norm after the sum, as in the paper",
        "layer norm before the sub-layer",
    ]


def test_a_trial_is_told_from_its_record():
    assert results.trial_words(None) == "The trial has no record yet."
    tried = record(
        "wmt14_sample_en_de/base", 0, perplexity_at_the_end=900.0, perplexity=1234.0, bleu_test=0.04
    )
    tried.data["config"] = {"training": {"batch_size": 2500}, "corpus": {"n_test": 50}}
    words = results.trial_words(tried)
    assert (
        "updates of 2,500 tokens in 1 process," in words
        and "from 50 to 900 with the weights after the last update." in words
    )
    assert (
        "mean weights of the last snapshots have a perplexity of 1,234; with these, BLEU 0.0 on 50" in words
    )
