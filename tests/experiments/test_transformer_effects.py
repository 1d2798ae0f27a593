"""Which deviations of chapter 1 have a measured effect, and on which runs."""

from pathlib import Path

import pytest

from attn.experiments.transformer import CHAPTER
from attn.experiments.transformer.runs import PAPER
from attn.reproduction.effects import effects_text
from attn.reproduction.facts import load_papers
from attn.reproduction.records import Record
from tests.reproduction.toy import record_data

LONGEST = max(load_papers()[PAPER].budgets["lengths"]["cpu"]["test_lengths"])
OF_LENGTHS = [effect for effect in CHAPTER.effects if effect.deviation == "longer_sentences"]


def test_effects_are_of_known_deviations_and_experiments():
    known = {deviation.id for deviation in load_papers()[PAPER].deviations}
    ids = {experiment.id for experiment in CHAPTER.experiments}
    for effect in CHAPTER.effects:
        assert effect.deviation in known and {effect.ours, effect.undone} <= ids


@pytest.mark.parametrize("effect", OF_LENGTHS, ids=lambda effect: effect.ours)
def test_longer_sentences_are_measured_with_shifts_and_without(effect):
    def records(experiment, profile):
        value = 0.75 if experiment.endswith("_shifted") else 0.0
        data = record_data(PAPER, experiment, 0, {f"whole_{LONGEST}": value}, profile=profile)
        return [Record(Path("x.json"), data | {"artifact": None})] if profile == "cpu" else []

    said = effects_text([effect], records)[effect.deviation]
    assert f"targets of {LONGEST} letters" in said and "0.75 of all" in said.partition(" here, ")[0]
    assert "0 of all (1 seed) without shifts in training (cpu)" in said
    assert effect.undone == effect.ours.removesuffix("_shifted") and len(OF_LENGTHS) == 2
