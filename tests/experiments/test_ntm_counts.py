"""Fits to the printed parameter counts beside random counts, and builds by other conventions, against real models."""

import numpy as np
import pytest

from attn.experiments.ntm import counts
from attn.experiments.ntm.runs import printed_model
from attn.experiments.ntm.tables import CHANNELS, PATTERNS, by_pattern, fitted_rows, parameters
from attn.experiments.ntm.variants import LearnedStart
from attn.experiments.ntm.workloads import build_model
from attn.ntm import NTM, parameter_count
from tests.experiments.made_up import PAPER

ROWS = [(kind, row) for table, kind, _ in PATTERNS for row in PAPER.table(table).rows]
OURS = counts.conventions()[0]


# --- random counts ---------------------------------------------------------------------------------------------


def by_the_pattern(width, more, heads, inputs):
    """Counts that the pattern gives with these numbers, one a row."""
    return np.array(
        [
            by_pattern(
                row["kind"],
                row["size"],
                {"read_width": width, "more": more},
                {"n_in": n_in, "n_out": row["n_out"], "head_outputs": outputs},
            )
            for row, outputs, n_in in zip(fitted_rows(), heads, inputs, strict=True)
        ]
    )


def is_allowed(made, width):
    """With one row's inputs free, and with all: the constants that meet some counts."""
    one, free = counts.allowed(width, fitted_rows(), made[None])[:, 0]
    return set(np.flatnonzero(one)), set(np.flatnonzero(free))


def test_counts_of_the_pattern_are_met_with_its_own_numbers():
    given = [CHANNELS[row["task"]][0] for row in fitted_rows()]
    made = by_the_pattern(31, 57, (90, 91, 92, 93, 94, 95), given)
    one, free = is_allowed(made, 31)
    assert 57 in one and 57 in free
    moved = [*given[:4], given[4] + 2, given[5]]
    one, free = is_allowed(by_the_pattern(31, 57, (90, 91, 92, 93, 94, 95), moved), 31)
    assert 57 in one and 57 in free, "one row may have other inputs"
    moved[0] += 1
    one, free = is_allowed(by_the_pattern(31, 57, (90, 91, 92, 93, 94, 95), moved), 31)
    assert 57 not in one and 57 in free, "two may not, unless all may"


def test_one_weight_more_or_less_is_not_met():
    given = [CHANNELS[row["task"]][0] for row in fitted_rows()]
    made = by_the_pattern(31, 57, (90, 91, 92, 93, 94, 95), given)
    made[[0, 3]] += (1, 2)
    assert 57 not in is_allowed(made, 31)[0]


def test_the_printed_counts_fit_each_table_alone_at_the_same_numbers():
    """The notes of table 2 say that it alone would fit with 123 per output, too: 100 units, a bias and 22 read."""
    pattern = PAPER.exact_fact("ntm_ff_params")["fitted"]
    found = (pattern["read_width"], pattern["more"])
    rows = fitted_rows()
    first, second = (
        counts.fits([row for row in rows if row["kind"] == kind]) for kind in ("ntm_ff", "ntm_lstm")
    )
    assert first == [found] and second == [(22, 23), found] and counts.fits(rows) == [found]


def test_random_counts_hardly_ever_fit(monkeypatch):
    assert counts.chance() == counts.chance(), "the same draws each time"
    found = counts.chance()
    assert found.one == 0 < found.free < 0.03 * found.draws == 0.03 * counts.DRAWS
    first, *tables = counts.chance_words()
    assert (
        "10,000 sets of 6 counts" in first
        and "0 of them have a fit, so the fit is a regularity of 6 of 10 counts" in first
    )
    assert tables[0] == "The counts of table 1 alone fit at a width of 24 with 13 more."
    monkeypatch.setattr(counts, "chance", lambda: counts.Chance(100, 2, 50))
    assert (
        "2 of them have a fit, so a fit says little. With free inputs in every row 50 have one (50.0%)"
        in (counts.chance_words()[0])
    )


# --- other conventions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "row"), ROWS, ids=lambda value: value if isinstance(value, str) else value["task"]
)
def test_the_first_convention_is_our_build(kind, row):
    assert counts.built(kind, row, OURS) == parameters(kind)(row)


def model(kind, row, machine=NTM, **changes):
    n_inputs, n_outputs = CHANNELS[row["task"]]
    sizes = printed_model(kind, row)
    return build_model(
        type(sizes)(**(vars(sizes) | changes)), n_inputs=n_inputs, n_outputs=n_outputs, machine=machine
    )


@pytest.mark.parametrize(("kind", "row"), [ROWS[0], ROWS[2], ROWS[5]])
def test_conventions_that_the_library_can_build_are_counted_right(kind, row):
    wide = counts.built(kind, row, OURS | {"shifts of a head": 7})
    assert wide == parameter_count(model(kind, row, shift_range=3))
    start = {"learned contents of the memory": "one slot", "learned reads": True, "learned weightings": True}
    assert counts.built(kind, row, OURS | start) == parameter_count(model(kind, row, LearnedStart))


def test_conventions_by_hand():
    """Copy with the feed-forward controller: 100 units see 10 inputs and 20 reads, and emit 92 values; 9 outputs."""
    kind, row = ROWS[0]

    def more(**options):
        return counts.built(
            kind, row, OURS | {name.replace("_", " "): option for name, option in options.items()}
        )

    assert counts.built(kind, row, OURS) == 100 * 31 + 101 * 92 + 121 * 9
    ours = counts.built(kind, row, OURS)
    named = "biases of a controller's unit or gate", "biases of a head's value"
    assert counts.built(kind, row, OURS | {named[0]: 2}) == ours + 100
    assert counts.built(kind, row, OURS | {named[1]: 0}) == ours - 92
    assert more(the_output_layer_sees=("reads",)) == ours - 100 * 9
    assert more(learned_contents_of_the_memory="every slot") == ours + 128 * 20
    assert more(peepholes_of_a_layer=3) == ours, "no LSTM, no peepholes"
    kind, row = ROWS[5]
    ours = counts.built(kind, row, OURS)
    assert more(peepholes_of_a_layer=3) == ours + 300 and more(learned_states_of_a_layer=0) == ours - 200


def test_words_on_conventions_are_what_was_tried():
    found = counts.tried()
    assert found.counts == 10 and found.builds == len(counts.conventions())
    tried, met = counts.convention_words()
    assert tried.startswith(f"{found.builds:,} builds were counted for all 10 rows")
    assert all(name in tried for name in counts.CONVENTIONS) and "(hidden and reads, hidden, reads, " in tried
    assert (
        met
        == f"No build meets more than {found.most} of the 10 printed counts; {found.by_any} of the builds meet any."
    )
    assert found.most <= 1, "else the page says too little of it"
