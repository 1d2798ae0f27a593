"""Figures draw what they are given: each is asked for the data that it shows."""

import re
import warnings

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from attn.reproduction import figures


@pytest.fixture(autouse=True)
def no_warning_no_figure_left():
    with warnings.catch_warnings(), plt.rc_context():
        warnings.simplefilter("error")
        yield
        for number in plt.get_fignums():
            plt.figure(number).canvas.draw()
    plt.close("all")


def luminance(colour):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_differ_and_stand_out_from_white():
    assert len({colour.lower() for colour in figures.COLOURS.values()}) == len(figures.COLOURS)
    for name, colour in figures.COLOURS.items():
        assert re.fullmatch("#[0-9A-Fa-f]{6}", colour)
        assert 1.05 / (luminance(colour) + 0.05) >= 3, f"{name} is too light on white"


def test_style_is_set_for_all_figures():
    plt.rcParams["axes.spines.top"] = True
    figures.use_style()
    assert plt.rcParams["figure.facecolor"] == "white" and plt.rcParams["axes.spines.top"] is False
    assert figures.figure()[0].get_facecolor() == (1, 1, 1, 1)


def test_a_figure_is_as_wide_as_the_page_and_has_rows_of_a_height():
    drawing, axes = figures.figure(3, 2, height=1.5)
    assert tuple(drawing.get_size_inches()) == (7.2, 4.5) and axes.shape == (3, 2)


CURVES = {
    "lstm": [[(0, 9.0), (1, 5.0), (2, 3.0)], [(0, 8.0), (1, 1.0), (2, 1.0)], [(0, 7.0), (1, 2.0), (2, 9.0)]]
}


def test_learning_curves_show_every_seed_and_their_median():
    axes = figures.figure()[1]
    options = {"xlabel": "sequences", "ylabel": "bits", "threshold": 0.1}
    assert figures.learning_curves(axes, CURVES, {"lstm": "LSTM"}, **options) is axes
    lines = [[tuple(map(float, point)) for point in line.get_xydata()] for line in axes.lines]
    assert lines[:3] == [[tuple(map(float, point)) for point in seed] for seed in CURVES["lstm"]]
    assert lines[3] == [(0, 8), (1, 2), (2, 3)]
    assert axes.lines[4].get_ydata()[0] == 0.1
    assert {line.get_color() for line in axes.lines[:4]} == {figures.COLOURS["lstm"]}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("sequences", "bits")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["LSTM (median of 3 seeds)"]


def test_one_seed_is_called_one_seed():
    axes = figures.figure()[1]
    figures.learning_curves(axes, {"lstm": CURVES["lstm"][:1]}, {"lstm": "LSTM"}, xlabel="x", ylabel="y")
    assert axes.get_legend().get_texts()[0].get_text() == "LSTM (1 seed)"
    assert len(axes.lines) == 2


def test_seeds_of_other_lengths_are_drawn_too():
    """A stale record may come from another budget; the page must still come out."""
    curves = {"lstm": [*CURVES["lstm"], [(0, 6.0), (2, 4.0)]]}
    axes = figures.figure()[1]
    figures.learning_curves(axes, curves, {"lstm": "LSTM"}, xlabel="x", ylabel="y")
    assert [len(line.get_xdata()) for line in axes.lines[:4]] == [3, 3, 3, 2]
    median = dict(map(tuple, axes.lines[4].get_xydata()))
    assert median[0] == 7.5 and median[2] == 3.5


def test_images_have_time_to_the_right():
    values = np.array([[0, 1, 0], [1, 1, 0]])  # two steps, three channels
    axes = figures.figure()[1]
    figures.binary_image(axes, values, title="inputs", ylabel="channel")
    (image,) = axes.images
    np.testing.assert_array_equal(image.get_array(), values.T)
    assert image.get_clim() == (0, 1) and image.get_cmap().name == figures.WEIGHTS_MAP
    assert (axes.get_title(), axes.get_ylabel()) == ("inputs", "channel")


def test_weight_maps_number_their_slots():
    weights = np.array([[0.1, 0.9, 0.0], [0.5, 0.25, 0.25]], dtype=np.float16)
    axes = figures.figure()[1]
    figures.weight_map(axes, weights, title="read", first=-2)
    (image,) = axes.images
    np.testing.assert_array_equal(image.get_array(), weights.astype(float).T)
    assert image.get_extent() == [-0.5, 1.5, 0.5, -2.5], "slot -2 on top, slot 0 at the bottom"
    assert axes.get_ylabel() == "slot"


def test_bars_are_as_high_as_the_weights():
    axes = figures.figure()[1]
    figures.bars(axes, np.array([0.5, 0.25, 0.25]), title="content", xlabel="slot", colour="lstm")
    assert [bar.get_height() for bar in axes.patches] == [0.5, 0.25, 0.25]
    assert {bar.get_facecolor()[:3] for bar in axes.patches} == {to_rgb(figures.COLOURS["lstm"])}
    assert list(axes.get_xticks()) == [0, 1, 2]
