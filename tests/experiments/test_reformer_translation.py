"""Figures, tables and words of chapter 2 on translation, from made-up records; and what a pass over its text holds."""

import re
from pathlib import Path

import numpy as np
import pytest

from attn.data.errors import DataError
from attn.experiments.reformer import CHAPTER, translation_figures, translation_results, translation_runs
from attn.experiments.reformer.runs import PAPER
from attn.experiments.transformer import corpora
from attn.reproduction.facts import load_papers
from attn.reproduction.records import Record
from tests.reproduction.toy import record_data

FACTS = load_papers()[PAPER]
SCORES = {
    "transformer": 26, "short_shared": 27, "short_apart": 28, "long_shared": 29, "long_apart": 31, "long_transformer": 30,
}  # fmt: skip


def record(model, seed, bleu, history=((0, 1000.0), (500, 20.0), (800, 10.0)), corpus="multi30k"):
    values = {f"{name}_flickr": bleu + seed / 10 for name in ("bleu", "bleu_uncased", "bleu_cased")}
    entries = [{"step": step, "seen": 100 * step, "perplexity": value} for step, value in history]
    data = record_data(PAPER, f"translation/{model}", seed, values, history=entries)
    data |= {"artifact": None, "config": {"corpus": {"tests": ["flickr"], "name": corpus}}}
    data["run"] |= {"steps": history[-1][0], "seen": 984_992 * history[-1][0] // 800}
    return Record(Path(f"translation/{model}/seed{seed}.json"), data)


def records(n_seeds=2):
    return {model: [record(model, seed, bleu) for seed in range(n_seeds)] for model, bleu in SCORES.items()}


# --- words ---------------------------------------------------------------------------------------------------


def test_words_are_the_facts():
    (line,) = translation_results.translation_words(FACTS)
    assert line.startswith("From 27.6 to 28.0 two things change at once: 5 times as many updates")
    assert "800 and 4,000 at cpu" in line


def test_a_pass_over_the_text_is_counted():
    config = CHAPTER.experiment("translation/short_shared").config("cpu").corpus
    try:
        pairs = corpora.load(config).encoded["train"]
    except DataError as missing:
        pytest.skip(str(missing))
    assert int(pairs._target.lengths.sum()) == FACTS.exact_fact("multi30k_tokens")["value"]


def test_how_far_the_training_goes_is_told():
    assert translation_results.regime_words({"transformer": []}) == translation_results.NO_RECORDS
    short = [record("short_shared", seed, 27) for seed in range(2)]
    short[1] = record("short_shared", 1, 27, ((0, 1000.0), (500, 40.0), (800, 10.0)))
    long = [record("long_shared", 0, 29, ((0, 1000.0), (500, 20.0), (3000, 8.0), (3500, 7.0), (4000, 6.0)))]
    lines = translation_results.regime_words({"short_shared": short, "long_shared": long})
    assert lines[0] == (
        "Short training: 800 updates, 984,992 target tokens, 2.0 passes over the text; from update 500 on validation "
        "perplexity still falls by 50 to 75 percent, by model and seed."
    )
    assert (
        "10.0 passes over the text; from update 3,000 on validation perplexity still falls by 25 percent"
        in lines[1]
    )
    assert lines[2].endswith(
        "is the beginning of the long one (1 pair of runs, equal wherever both were evaluated)."
    )
    assert lines[-1].endswith("which saw about 2.5 and 12.5 billion target tokens.")
    long = [record("long_shared", 0, 29, ((0, 1000.0), (500, 20.5), (3000, 8.0), (4000, 6.0)))]
    assert not any(
        "beginning" in line
        for line in translation_results.regime_words({"short_shared": short, "long_shared": long})
    )
    other = [record("short_shared", 0, 27, corpus="wmt14-en-de")]
    assert "passes" not in translation_results.regime_words({"short_shared": other})[0]


def test_gains_are_of_runs_with_the_same_seed():
    assert translation_results.gains_words({}) == translation_results.NO_RECORDS
    found = records()
    found["long_apart"][1].data["metrics"]["bleu_flickr"]["value"] += 0.6
    found["short_apart"].pop(0)
    lines = translation_results.gains_words(found)
    assert lines[0] == "Long minus short training, embeddings shared: +2.0 BLEU (+2.0 to +2.0, 2 seeds)."
    assert lines[1] == "Long minus short training, embeddings apart: +3.6 BLEU (1 seed)."
    assert lines[2] == "Embeddings apart minus shared, short training: +1.0 BLEU (1 seed)."
    assert lines[3] == "Embeddings apart minus shared, long training: +2.3 BLEU (+2.0 to +2.6, 2 seeds)."
    assert lines[4].startswith(
        "What apart gains more in the long training than in the short one: +1.6 BLEU (1 seed)"
    )
    counts = translation_results.parameters()
    assert counts["short_apart"] - counts["short_shared"] == 2 * 5000 * 128, "three matrices instead of one"
    assert f"{counts['short_apart']:,} instead of {counts['short_shared']:,}, 1.98 times as many" in lines[5]


def test_the_interaction_is_what_is_left_of_the_sum():
    gains = [translation_results.paired(records(), *models) for models in translation_results.GAINS.values()]
    longer, longer_apart, untied, untied_long, interaction = map(np.mean, gains)
    assert (
        interaction
        == pytest.approx(untied_long - untied)
        == pytest.approx(longer_apart - longer)
        == pytest.approx(1)
    )


def test_reversible_layers_are_compared_at_either_length():
    assert translation_results.reversible_words({"short_shared": []}) == translation_results.NO_RECORDS
    head, short, long = translation_results.reversible_words(records())
    count = f"{translation_results.parameters()['transformer']:,}"
    assert head == f"Reversible minus plain layers, embeddings shared, both of {count} parameters:"
    assert short == "Short training: +1.0 BLEU (+1.0 to +1.0, 2 seeds)."
    assert long == "Long training: −1.0 BLEU (−1.0 to −1.0, 2 seeds)."
    without = {name: found for name, found in records().items() if name != "long_transformer"}
    assert len(translation_results.reversible_words(without)) == 2


# --- table and figures -----------------------------------------------------------------------------------------


def test_the_four_combinations_stand_side_by_side():
    assert repr(translation_results.four_combinations({})) == "No records yet."
    found = records()
    found["long_apart"].pop()
    text = " ".join(repr(translation_results.four_combinations(found)).split())
    assert text.startswith("Reversible models on Multi30k") and "profile cpu: BLEU of the test split" in text
    assert "Training Embeddings shared Embeddings apart Apart minus shared" in text
    assert re.search(r"short, 800 updates 27\.1 \(27\.0 to 27\.1\), 2 seeds 28\.1", text)
    assert "+1.0" in text and "+2.0" in text and "+3.0" in text
    assert "Transformer, short training, shared embeddings: 26.1 (26.0 to 26.1), 2 seeds." in text
    assert "Transformer, long training, shared embeddings: 30.1" in text
    counts = [
        int(count.replace(",", "")) for count in re.findall(r"embeddings (?:apart|shared) ([\d,]+)[;.]", text)
    ]
    assert counts == list(translation_results.parameters().values())
    one = " ".join(repr(translation_results.four_combinations({"short_apart": found["short_apart"]})).split())
    assert "28.1 (28.0 to 28.1), 2 seeds" in one and "+" not in one


def test_every_seed_is_a_mark():
    assert translation_figures.scores({"big": []}) is None
    (axes,) = translation_figures.scores(records(3) | {"big": []}).axes
    marks = [line for line in axes.lines if line.get_marker() == "o"]
    assert [len(line.get_xdata()) for line in marks] == [3] * 6
    means = [line.get_xdata()[0] for line in axes.lines if line.get_marker() != "o"]
    np.testing.assert_allclose(means, [bleu + 0.1 for bleu in SCORES.values()])
    assert [label.get_text() for label in axes.get_yticklabels()][0] == "Transformer, short training, shared"


def test_curves_are_those_of_the_long_trainings_with_the_ends_of_the_short_ones():
    assert translation_figures.curves({}) is None
    (axes,) = translation_figures.curves(records()).axes
    ends = [line for line in axes.lines if line.get_marker() == "x"]
    assert [line.get_label() for line in ends] == [
        translation_runs.LABELS[name] for name in ("transformer", "short_shared", "short_apart")
    ]
    assert all(line.get_xdata().tolist() == [800, 800] for line in ends)
    assert len(axes.lines) == 3 * (2 + 1) + 3 and axes.get_yscale() == "log"
    np.testing.assert_allclose(axes.lines[2].get_xdata(), [500, 800], err_msg="the start is left out")
