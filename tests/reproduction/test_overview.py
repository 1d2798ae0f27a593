"""The picture of all cells and claims; how it stands on a page is in `tests/book`."""

from attn.reproduction.overview import CELL_MARKS, CLAIM_MARKS
from attn.reproduction.tables import CLAIM_STATES, STATES


def test_shape_and_filling_alone_tell_the_states_apart():
    for marks, states in ((CELL_MARKS, STATES), (CLAIM_MARKS, CLAIM_STATES)):
        assert set(marks) == set(states)
        assert len({(mark.shape, mark.filled) for mark in marks.values()}) == len(marks)
