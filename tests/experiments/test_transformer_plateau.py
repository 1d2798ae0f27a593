"""How long made-up runs of table 3 stay near 1 nat a subword."""

from math import e, exp
from pathlib import Path

import numpy as np
import pytest

from attn.experiments.transformer import plateau
from attn.experiments.transformer.runs import GRID, PAPER
from attn.reproduction.records import Record
from tests.reproduction.toy import record_data


def run(*perplexities, seed=0):
    """Evaluations 10 updates apart, the first before any."""
    history = [{"step": 10 * i, "perplexity": value} for i, value in enumerate(perplexities)]
    config = {"corpus": {"name": "spoken-numbers"}}
    data = record_data(
        PAPER, f"{GRID}/base", seed, {"perplexity": perplexities[-1]}, history=history, config=config
    )
    return Record(Path("seed0.json"), data | {"artifact": None})


@pytest.mark.parametrize(
    ("perplexities", "share"),
    [
        ((900, 30, 4, 1.5, 1.1), 0.0),
        ((900, 30, e, 1.5, 1.1), 0.0),  # one evaluation is no stay
        ((900, e, e, 1.5, 1.1), 0.25),
        ((900, e, e, e, e), 0.75),
        ((900, e, 1.5, e, e), 0.25),
        ((900, e, e, 1.5, e), 0.25),
        ((900, exp(1.19), exp(0.81), exp(0.79), 1.1), 0.25),
    ],
)
def test_a_stay_is_the_longest_row_of_evaluations_near_1_nat(perplexities, share):
    assert plateau.longest_stay(run(*perplexities)) == pytest.approx(share)


def test_runs_that_stay_are_counted_on_both_sides():
    stays, passes = run(900, e, e, e, 1.1), run(900, 30, 4, 1.5, 1.1)
    said = plateau.words({"base": [stays, passes], "big": [stays]}, {"base": [passes]})
    assert said.startswith(
        "Of the first, shorter runs, 2 of 3 stayed within 0.2 nats of 1 nat a subword, a perplexity of 2.2 to 3.3, for "
        "33% of their updates or more."
    )
    assert said.endswith("none of 1 did; none has two evaluations in a row there.")
    longer = plateau.words({"base": [stays]}, {"base": [stays, passes]})
    assert longer.endswith("1 of 2 did; the longest stay there is 50% of the updates.")
    assert plateau.words({"base": [stays]}, {"base": []}) == "No records yet."


def test_the_figure_has_a_line_for_each_run_from_its_first_update_on():
    shorter, longer = (
        {"base": [run(900, 5, 3, 2)]},
        {"base": [run(900, 4, 2, 1.5), run(900, 6, 2, 1.2, seed=1)]},
    )
    first, second = plateau.draw(shorter, longer).axes
    assert [len(panel.lines) for panel in (first, second)] == [1 + 2, 2 + 2]
    np.testing.assert_allclose(second.lines[1].get_xydata(), [[10, 6], [20, 2], [30, 1.2]])
    assert first.lines[-1].get_ydata()[0] == pytest.approx(exp(0.69)), "the limit of the rule"
    assert plateau.draw(shorter, {"base": []}) is None
