"""The picture of all cells and claims; how it stands on a page is in `tests/book`."""

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from attn.experiments import chapters
from attn.reproduction.overview import CELL_MARKS, CLAIM_MARKS, overview_figure
from attn.reproduction.scoreboard import collect
from attn.reproduction.tables import CLAIM_STATES, STATES


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """Of the book's chapters, without records."""
    return overview_figure(collect(chapters(), tmp_path_factory.mktemp("results")))


def test_no_word_leaves_the_picture(picture):
    canvas = FigureCanvasAgg(picture)
    renderer = canvas.get_renderer()
    for text in picture.axes[0].texts:
        box = text.get_window_extent(renderer)
        assert box.x0 >= 0 and box.x1 <= picture.bbox.width, text.get_text()


def test_labels_do_not_run_into_the_marks(picture):
    renderer = FigureCanvasAgg(picture).get_renderer()
    (axes,) = picture.axes
    first = min(line.get_window_extent(renderer).x0 for line in axes.lines)
    labels = [
        text for text in axes.texts if text.get_position()[0] < 0.1 and text.get_fontweight() == "normal"
    ]
    assert labels and all(text.get_window_extent(renderer).x1 <= first for text in labels)


def test_lines_of_a_chapter_have_names_of_their_own(picture):
    chapters_, names = [[]], [text for text in picture.axes[0].texts if text.get_position()[0] < 0.1]
    for text in names:
        if text.get_fontweight() == "bold":
            chapters_.append([])
        elif text.get_text():
            chapters_[-1].append(text.get_text())
    assert len(chapters_) > 6
    for labels in chapters_:
        assert len(set(labels)) == len(labels), labels


def test_shape_and_filling_alone_tell_the_states_apart():
    for marks, states in ((CELL_MARKS, STATES), (CLAIM_MARKS, CLAIM_STATES)):
        assert set(marks) == set(states)
        assert len({(mark.shape, mark.filled) for mark in marks.values()}) == len(marks)
