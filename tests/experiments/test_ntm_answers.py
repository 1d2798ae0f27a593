"""Pictures of what chapter 6's models answer: the data they draw, and whose run they show."""

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

from attn.experiments.ntm import answers
from attn.experiments.ntm.workloads import MODELS
from attn.reproduction.figures import COLOURS
from tests.experiments.made_up import outcomes, run_of

REPEATS = ((10, 10), (20, 10), (10, 20))


@pytest.fixture(autouse=True)
def drawn():
    """The figures are drawn, and closed."""
    yield
    for number in plt.get_fignums():
        plt.figure(number).canvas.draw()
    plt.close("all")


@pytest.fixture
def kept(keep):
    """A function from a task to a record for each kind, with the artifacts of untrained models."""
    return lambda task: {kind: [keep(run_of("copy/lstm"), outcomes(task)[kind].artifact)] for kind in MODELS}


def texts(drawing):
    return [text.get_text() for text in drawing.findobj(matplotlib.text.Text) if text.get_text()]


def images(drawing):
    return [np.asarray(axes.images[0].get_array()) for axes in drawing.axes if axes.images]


def test_answers_stand_below_their_targets(kept):
    records = {kind: kept("copy")[kind] for kind in ("ntm_lstm", "lstm")}
    drawing = answers.copies(records | {"ntm_ff": []}, (10, 20, 30, 50))
    found = images(drawing)
    assert len(found) == 3 * 4
    made = {kind: outcomes("copy")[kind].artifact for kind in MODELS}
    np.testing.assert_allclose(found[0], made["ntm_lstm"]["targets_10"].T / 255)
    np.testing.assert_allclose(found[7], made["ntm_lstm"]["outputs_50"].T / 255)
    np.testing.assert_allclose(found[11], made["lstm"]["outputs_50"].T / 255)
    assert {"length 10", "length 50", "target", "LSTM\n(seed 0)"} <= set(texts(drawing))


def test_repeated_answers_end_with_their_marker(kept):
    drawing = answers.repeats(kept("repeat_copy"), REPEATS[1:])
    found, made = images(drawing), outcomes("repeat_copy")
    assert len(found) == 2 * 4
    np.testing.assert_allclose(found[0], made["lstm"].artifact["targets_20x10"].T / 255)
    assert found[0].shape == (7, 201) and found[0][6].tolist() == [0.0] * 200 + [1.0]
    np.testing.assert_allclose(found[7], made["lstm"].artifact["outputs_10x20"].T / 255)
    for axes in drawing.axes:
        assert axes.get_yticks().tolist() == [6] and axes.get_yticklabels()[0].get_text() == "end"
        assert axes.lines[0].get_ydata()[0] == 5.5, "a line above the marker's row"
    assert {"20 vectors, 10 repeats", "10 vectors, 20 repeats"} <= set(texts(drawing))


def test_predictions_stand_below_the_optimal_ones(kept):
    drawing = answers.predictions(kept("ngrams"))
    found, made = images(drawing), outcomes("ngrams")
    assert len(found) == 2 + 3 and all(image.shape == (1, 200) for image in found)
    optimal = made["lstm"].artifact["optimal_trace"].astype(float)
    np.testing.assert_allclose(found[0][0], made["lstm"].artifact["targets_trace"][:, 0] / 255)
    np.testing.assert_allclose(found[1][0], optimal)
    for image, line, kind in zip(found[2:], drawing.axes[-1].lines, MODELS, strict=True):
        outputs = made[kind].artifact["outputs_trace"][:, 0] / 255
        np.testing.assert_allclose(image[0], outputs)
        np.testing.assert_allclose(line.get_ydata(), np.abs(outputs - optimal))
        assert line.get_color() == COLOURS[kind]
        assert f"(mean {np.abs(outputs - optimal).mean():.2f})" in line.get_label()


def test_the_run_of_median_cost_is_shown_and_named(keep):
    made = outcomes("copy")["lstm"].artifact
    other = {name: array * 0 for name, array in made.items()}
    rows = [
        keep(run_of("copy/lstm", seed, costs=(cost, cost)), made if cost == 2 else other)
        for seed, cost in enumerate((80, 1, 2))
    ]
    drawing = answers.copies({"lstm": rows}, (120,))
    assert "LSTM\n(seed 2)" in texts(drawing)
    np.testing.assert_allclose(images(drawing)[1], made["outputs_120"].T / 255)
