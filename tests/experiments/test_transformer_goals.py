"""What chapter 1 says of the goals for Multi30k: score and time of made-up runs."""

from pathlib import Path

import pytest

from attn.experiments.transformer.goals import goal_words
from attn.experiments.transformer.runs import EXPERIMENTS, PAPER
from attn.reproduction.facts import load_papers
from attn.reproduction.records import Record
from tests.reproduction.toy import record_data

FACTS = load_papers()[PAPER]
GOAL = FACTS.budgets["captions_en_de"]["cpu"]["goal"]


def run(seed=0, *, minutes=(10, 40, 90, 100), bleu=35.0, threads=1, perplexities=(40.0, 9.0, 5.1, 5.0)):
    """Evaluations 100 updates apart that end after so many minutes each."""
    history = [{"step": 0, "seconds": 0.0, "perplexity": 8000.0}]
    history += [
        {"step": 100 * i, "seconds": 60.0 * at, "perplexity": perplexity}
        for i, (at, perplexity) in enumerate(zip(minutes, perplexities, strict=True), start=1)
    ]
    data = record_data(
        PAPER, "captions_en_de/transformer", seed, {f"bleu_{GOAL['test']}": bleu}, history=history
    )
    data["run"] |= {"seconds": 60.0 * minutes[-1], "steps": 100 * len(minutes)}
    data["environment"] = data["environment"] | {"threads": threads}
    return Record(Path(f"seed{seed}.json"), data | {"artifact": None})


def test_the_goals_are_those_of_the_facts():
    (asked,) = goal_words(FACTS, [])
    assert (
        f"at cpu at least {GOAL['bleu']} BLEU on test_2016_flickr within {GOAL['minutes']} minutes on"
        in asked
    )
    assert asked.endswith(f"at gpu at least {FACTS.budgets['captions_en_de']['gpu']['goal']['bleu']}.")
    configs = next(e for e in EXPERIMENTS if e.id == "captions_en_de/transformer").configs
    for profile in ("cpu", "gpu"):
        assert FACTS.budgets["captions_en_de"][profile]["goal"]["test"] in configs[profile].corpus.tests


def test_a_late_run_says_its_pace_and_where_it_stood_in_time():
    _, said, last = goal_words(FACTS, [run()])
    assert said == (
        "Seed 0: 35.0 BLEU after 400 updates and 100 minutes on 1 thread: the score is reached, the time is exceeded. "
        "At its fastest pace between two evaluations it would have taken 40 minutes, with 1 of the 2 cores in use. The "
        "lowest validation perplexity is 5.00; at most 5% above it, it was first at update 300, after 90 minutes. At the "
        "last evaluation within 60 minutes, update 200, it was 9.00, 80% above."
    )
    assert last == "BLEU is scored at the end alone, so what 60 minutes give is not measured."


def test_a_run_in_time_says_so_and_no_more():
    asked, said = goal_words(FACTS, [run(minutes=(10, 20, 30, 60), bleu=32.9, threads=2)])
    assert "60 minutes on 2 threads: the score is missed, the time is kept. The lowest" in said
    assert "pace" not in said and "At the last evaluation" not in said


@pytest.mark.parametrize(
    ("threads", "ends"), [(1, "minutes, with 1 of the 2 cores in use."), (2, "minutes.")]
)
def test_idle_cores_are_told(threads, ends):
    assert f"would have taken 40 {ends} The lowest" in goal_words(FACTS, [run(threads=threads)])[1]


def test_every_seed_has_its_sentence_and_a_first_evaluation_may_come_too_late():
    lines = goal_words(FACTS, [run(), run(1, minutes=(61, 70, 80, 90))])
    assert [line[:7] for line in lines[1:3]] == ["Seed 0:", "Seed 1:"] and len(lines) == 4
    assert "At the last evaluation" in lines[1] and "At the last evaluation" not in lines[2]
