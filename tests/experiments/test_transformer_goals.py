"""What chapter 1 says of the goals for Multi30k: score and time of made-up runs."""

from pathlib import Path

import pytest

from attn.experiments.transformer.flops import model_flops
from attn.experiments.transformer.goals import budget_words, goal_words, minutes_words, pace_words
from attn.experiments.transformer.runs import EXPERIMENTS, PAPER
from attn.reproduction.experiment import config_dict
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
    assert f"at least {GOAL['bleu']} BLEU on test_2016_flickr within {GOAL['minutes']} minutes on" in asked
    larger = FACTS.budgets["captions_en_de"]["gpu"]["goal"]["bleu"]
    assert asked.endswith(f"at cpu, and at least {larger} BLEU at gpu. No records yet.")
    configs = next(e for e in EXPERIMENTS if e.id == "captions_en_de/transformer").configs
    for profile in ("cpu", "gpu"):
        assert FACTS.budgets["captions_en_de"][profile]["goal"]["test"] in configs[profile].corpus.tests


def test_both_budgets_are_those_of_the_configs():
    steps = [
        next(e for e in EXPERIMENTS if e.id == f"{task}/transformer").configs["cpu"].training.max_steps
        for task in ("multi30k_en_de", "captions_en_de")
    ]
    said = budget_words(FACTS)
    assert said.startswith(f"Two budgets: {steps[0]:,} updates, and {steps[1]:,} updates, chosen afterwards")
    assert said.endswith(f"to fit {GOAL['minutes']} minutes.")


def test_a_late_run_says_its_pace_and_where_it_stood_in_time():
    _, said, last = goal_words(FACTS, [run()])
    assert said == (
        "Seed 0: 35.0 BLEU after 400 updates and 100 minutes on 1 thread: the score is reached, the time is exceeded. "
        "At its fastest pace between two evaluations it would have taken 40 minutes, with 1 of the 2 cores in use. The "
        "lowest validation perplexity is 5.00; at most 5% above it, it was first at update 300, after 90 minutes. At the "
        "last evaluation within 60 minutes, update 200, it was 9.00, 80% above."
    )
    assert last == "BLEU is scored at the end alone, so what 60 minutes give is not measured."


def test_runs_that_reach_the_goal_are_counted_and_no_more_is_said():
    in_time = [run(seed, minutes=(10, 20, 30, last)) for seed, last in enumerate((60, 41))]
    (said,) = goal_words(FACTS, in_time)
    assert said.endswith("at cpu reached in 2 of 2 seeds. A run took 41 to 60 minutes, on 1 thread.")


def test_a_run_in_time_that_misses_the_score_says_so():
    asked, said = goal_words(FACTS, [run(minutes=(10, 20, 30, 60), bleu=32.9, threads=2)])
    assert asked.endswith("reached in 0 of 1 seed. A run took 60 minutes, on 2 threads.")
    assert "60 minutes on 2 threads: the score is missed, the time is kept. The lowest" in said
    assert "pace" not in said and "At the last evaluation" not in said


@pytest.mark.parametrize(
    ("threads", "ends"), [(1, "minutes, with 1 of the 2 cores in use."), (2, "minutes.")]
)
def test_idle_cores_are_told(threads, ends):
    assert f"would have taken 40 {ends} The lowest" in goal_words(FACTS, [run(threads=threads)])[1]


def test_every_late_seed_has_its_sentence_and_a_first_evaluation_may_come_too_late():
    lines = goal_words(FACTS, [run(), run(1, minutes=(61, 70, 80, 90)), run(2, minutes=(5, 10, 20, 30))])
    assert [line[:7] for line in lines[1:3]] == ["Seed 0:", "Seed 1:"] and len(lines) == 4
    assert "reached in 1 of 3 seeds" in lines[0]
    assert "At the last evaluation" in lines[1] and "At the last evaluation" not in lines[2]


def test_the_pace_of_a_recurrent_model_stands_beside_the_transformer_s():
    def trained(kind, *paces):
        config = next(e for e in EXPERIMENTS if e.id == f"captions_en_de/{kind}").configs["cpu"]
        found = [run(seed) for seed in range(len(paces))]
        for one, pace in zip(found, paces, strict=True):
            one.data["run"] |= {"units_per_second": pace}
            one.data["config"] = config_dict(config)
        return found, config

    def flops(config):
        return model_flops(
            config.model, vocab_size=config.corpus.vocab_size, source_tokens=1, target_tokens=1
        )

    (ours, base), (theirs, other) = trained("transformer", 1000.0, 2000.0), trained("gru", 5000.0)
    said = pace_words({"transformer": ours, "lstm": [], "gru": theirs})
    share = flops(other) / flops(base)
    assert said.startswith(
        "On 1 thread of a CPU the Transformer trains 2,000 tokens a second (the fastest of 2 seeds), and GRU without attention 2.5 times "
        f"as many (5,000, 1 seed), at {share:.2f} of the FLOPs a token. "
    )
    assert 0 < share < 1 and "fewer operations win" in said
    assert "win" not in pace_words({"transformer": theirs, "gru": ours})
    assert (
        pace_words({"transformer": ours})
        == pace_words({"transformer": [], "gru": theirs})
        == "No records of both yet."
    )


def test_minutes_are_those_of_the_runs():
    assert minutes_words([]) == "No records yet."
    assert minutes_words([run(), run(1, threads=2)]) == "A run took 100 minutes, on 1 or 2 threads."
