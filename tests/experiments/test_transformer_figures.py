"""Pictures of chapter 1 show the numbers they are given, in words of a size that a phone shows legibly."""

import warnings

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.patches import FancyBboxPatch
from matplotlib.text import Text

from attn.attention import sinusoidal_positions
from attn.experiments.transformer import figures
from attn.experiments.transformer.architecture import (
    architecture,
    architecture_words,
    draw_architecture,
    shortened,
)
from attn.experiments.transformer.complexity import LAYERS, multiply_adds
from attn.experiments.transformer.concepts import BeyondTraining, RecallBudget, ScaleEffect
from attn.reproduction.figures import use_style
from attn.transformer import Transformer


@pytest.fixture(autouse=True)
def drawn():
    """Every warning is an error until the figures are drawn."""
    with warnings.catch_warnings(), plt.rc_context():
        warnings.simplefilter("error")
        use_style()
        plt.rcParams["figure.dpi"] = 50
        yield
        for number in plt.get_fignums():
            plt.figure(number).canvas.draw()
    plt.close("all")


def lines(axes):
    """Labelled lines by label: x and y."""
    return {
        line.get_label(): tuple(map(list, line.get_data()))
        for line in axes.lines
        if line.get_label()[0] != "_"
    }


def legend(drawing):
    (box,) = drawing.legends
    return [text.get_text() for text in box.get_texts()]


def image(axes):
    return np.asarray(axes.images[0].get_array())


def effect():
    values = np.array([[1.0, 2.0], [3.0, 4.0], [8.0, 9.0]])
    return ScaleEffect(
        np.array([1, 64]), 32, values, {"scaled": values / 2, "plain": values / 10}, {"scaled": values / 20, "plain": values / 50}
    )  # fmt: skip


def rows():
    counts = {2: 1, 4: 2, 8: 4}
    return [
        {"layer_type": kind, "chain": counts, "path": {n: c + i for n, c in counts.items()}}
        for i, kind in enumerate(LAYERS)
    ]


NARROW = {
    "scale": lambda: figures.scale(effect()),
    "position_map": lambda: figures.position_map(sinusoidal_positions(20, 64).numpy()),
    "position_rotation": lambda: figures.position_rotation(sinusoidal_positions(10, 512).numpy()),
    "position_limits": lambda: figures.position_limits(limits()),
    "gradients": lambda: figures.gradients(falling()),
    "recalls": lambda: figures.recalls((2, 4), {"gru": np.ones((1, 2))}, chance=0.1),
    "schedules": lambda: figures.schedules(np.arange(1, 5), {"base": np.array([1, 3, 2, 1]) / 1e4}),
    "costs": lambda: figures.costs((16, 32), d_model=16),
    "steps": lambda: figures.steps(rows()),
    "one_head": lambda: figures.one_head(np.eye(3), ["▁a", "b", "</s>"], ["▁c", "d", "</s>"]),
    "one_token": lambda: figures.one_token(np.ones((2, 3, 3)) / 3, ["▁a", "b", "</s>"], 1),
    "architecture": lambda: draw_architecture(architecture(model())),
}


@pytest.mark.parametrize("name", NARROW)
def test_words_are_of_a_size_that_a_phone_shows(name):
    drawing = NARROW[name]()
    drawing.canvas.draw()
    words = [text for text in drawing.findobj(Text) if text.get_text() and text.get_visible()]
    assert words and min(text.get_fontsize() for text in words) * 390 / (72 * drawing.get_figwidth()) > 9, (
        "pixels"
    )


# --- attention and positions --------------------------------------------------------------------------------


def test_scale_shows_medians_and_says_the_last_means():
    drawing = figures.scale(effect())
    variance, entropy, gradient = map(lines, drawing.axes)
    assert variance["measured"] == ([1, 64], [3, 4]) and variance["variance = d_k"] == ([1, 64], [1, 64])
    assert entropy["with 1/√d_k"][1] == [1.5, 2] and entropy["without"][1] == pytest.approx([0.3, 0.4])
    assert entropy["uniform"][1] == [5, 5] and gradient["with 1/√d_k"][1] == pytest.approx([0.15, 0.2])
    words = figures.scale_words(effect())
    assert "d_k = 64 the dot products have variance 5;" in words
    assert (
        "2.50 bits of entropy with the factor and 0.50 without" in words and "size 0.250 and 0.100" in words
    )
    assert words.endswith("that with it, by d_k: 0.40 at 1, 0.40 at 64."), (
        "means 4 / 50 over 4 / 20, 5 / 50 over 5 / 20"
    )


def test_position_map_shows_all_dimensions():
    table = sinusoidal_positions(20, 12).numpy()
    drawing = figures.position_map(table)
    np.testing.assert_array_equal(image(drawing.axes[0]), table[:, ::2])
    np.testing.assert_array_equal(image(drawing.axes[1]), table[:, 1::2])


def test_position_rotation_says_the_angles():
    drawing = figures.position_rotation(sinusoidal_positions(10, 64).numpy(), offset=2, pairs=(0, 8, 16, 24))
    angles = [float(axes.get_title().split(": ")[1].rstrip("°")) for axes in drawing.axes]
    assert angles == pytest.approx(
        [np.degrees(2 / 10000 ** (pair / 32)) for pair in (0, 8, 16, 24)], abs=0.06
    )
    points = drawing.axes[1].lines[0].get_xydata()
    np.testing.assert_allclose(points, [(np.cos(p / 10), np.sin(p / 10)) for p in range(10)], atol=1e-6)


def limits():
    return BeyondTraining(3, np.arange(1005.0).reshape(5, 201) / 1000, np.ones((3, 201)), "ends")


def test_position_limits_end_where_the_table_does():
    drawing = figures.position_limits(limits(), dimensions=(0, 7))
    known, learned = map(lines, drawing.axes)
    assert [len(known["7"][1]), len(learned["7"][1])] == [5, 3]
    assert known["7"][1] == [0.007, 0.208, 0.409, 0.61, 0.811]


# --- distance -----------------------------------------------------------------------------------------------


def falling():
    distances = np.arange(60)
    return {"lstm": np.tile(0.5**distances, (3, 1)), "exploding": np.tile(1.1**distances, (3, 1))}


def test_gradients_show_medians_and_say_the_factor_a_step():
    drawing = figures.gradients(
        falling() | {"attention": np.array([[1.0] * 60, [3.0] * 60, [4.0] * 60])}, least=1e-9
    )
    found = lines(drawing.axes[0])
    assert found["LSTM"][1][:3] == [1, 0.5, 0.25] and found["attention"][1][9] == 3
    assert drawing.axes[0].get_yscale() == "log" and drawing.axes[0].get_ylim()[0] == 1e-9
    expected = "Factor on the gradient for one position more: LSTM 0.50; RNN, recurrent weights × 4 1.10."
    assert figures.gradients_words(falling()) == expected


def test_recalls_show_every_seed_and_the_median():
    shares = {"rnn": np.array([[1.0, 0.5], [0.8, 0.1]]), "attention": np.ones((2, 2))}
    drawing = figures.recalls((2, 8), shares, chance=0.125)
    found = lines(drawing.axes[0])
    assert found["RNN"] == ([2, 8], [0.9, 0.3]) and found["chance"][1] == [0.125, 0.125]
    marks = [line.get_ydata().tolist() for line in drawing.axes[0].lines if line.get_linestyle() == "None"]
    assert [1.0, 0.5] in marks and [0.8, 0.1] in marks
    assert legend(drawing) == ["RNN", "attention", "chance"]


def test_schedules_name_their_peaks():
    drawing = figures.schedules(np.array([1000, 2000, 3000]), {"base": np.array([1, 7, 5]) / 1e4})
    assert legend(drawing) == ["base (peak 7.00e-04 at 2000)"]
    assert drawing.axes[0].lines[0].get_ydata() == pytest.approx([1, 7, 5])


# --- complexity ---------------------------------------------------------------------------------------------


def test_costs_are_the_counted_terms():
    drawing = figures.costs((16, 32), d_model=16)
    found = lines(drawing.axes[0])
    names = ("Self-Attention", "Recurrent", "Convolutional, k = 3", "Self-Attention (restricted), r = 33")
    for kind, name in zip(LAYERS, names, strict=True):
        assert found[name][1] == [multiply_adds(kind, n, 16).term for n in (16, 32)]
    assert found["n = d"][0] == [16, 16]


def test_steps_show_the_rows():
    drawing = figures.steps(rows())
    chain, path = map(lines, drawing.axes)
    assert chain["Recurrent"] == ([2, 4, 8], [1, 2, 4]) and path["Convolutional"] == ([2, 4, 8], [3, 4, 6])
    assert legend(drawing) == list(LAYERS)


def test_convolutions_that_are_not_dilated_have_their_own_path():
    measured = [
        row | ({"contiguous": {2: 1, 4: 3, 8: 7}} if row["layer_type"] == "Convolutional" else {})
        for row in rows()
    ]
    drawing = figures.steps(measured)
    chain, path = map(lines, drawing.axes)
    assert path["Convolutional, not dilated"] == (
        [2, 4, 8],
        [1, 3, 7],
    ) and "Convolutional, not dilated" in legend(drawing)
    assert path["Convolutional"][1] == [3, 4, 6] and "Convolutional, not dilated" not in chain


# --- attention maps -----------------------------------------------------------------------------------------


def test_a_grid_has_a_map_for_every_head_of_every_layer():
    maps = np.random.default_rng(0).random((2, 3, 4, 5)).astype(np.float16)
    drawing = figures.layers_by_heads(maps, queries="target", keys="source")
    assert len(drawing.axes) == 6
    for axes, expected in zip(drawing.axes, maps.reshape(6, 4, 5), strict=True):
        np.testing.assert_array_equal(image(axes), expected.astype(float))
    assert [axes.get_title() for axes in drawing.axes] == ["1", "2", "3", "", "", ""]
    assert [axes.get_ylabel() for axes in drawing.axes] == ["1", "", "", "2", "", ""]
    assert not any(axes.get_xticks().size or axes.get_yticks().size for axes in drawing.axes)


def test_layers_by_heads_name_the_tokens_at_the_edges():
    sides = ["▁ein", "e", "r", "."], ["▁a", "b", "c", "d", "e"]
    drawing = figures.layers_by_heads(np.zeros((2, 3, 4, 5)), tokens=sides)
    words = [
        [[label.get_text() for label in axis.get_ticklabels()] for axis in (axes.yaxis, axes.xaxis)]
        for axes in drawing.axes
    ]
    left, below = ["_ein", "e", "r", "."], ["_a", "b", "c", "d", "e"]
    assert words == [[left, []], [[], []], [[], []], [left, below], [[], below], [[], below]]


def test_what_is_remembered_is_told_for_the_shortest_and_the_longest_gap():
    shares = {"attention": np.array([[1.0, 0.5, 0.9], [1.0, 0.5, 0.7]]), "rnn": np.array([[0.5, 0, 0.1]] * 2)}
    said = figures.recalls_words((2, 4, 8), shares, chance=0.125)
    assert said.startswith(
        "Right answers with 2 and with 8 symbols in between: attention 100% and 80%; RNN 50% and 10%;"
    )
    assert "by chance 12%" in said and "over 2 seeds; at most 150 updates each" in said
    budget = RecallBudget(max_updates=7, solved=0.5)
    said = figures.recalls_words((2, 4, 8), shares, chance=0.125, budget=budget)
    assert said.endswith("at most 7 updates each; training stops where the loss falls below 0.5 nats.")


def test_one_head_names_the_tokens():
    weights = np.array([[0.25, 0.75, 0], [1, 0, 0]])
    axes = figures.one_head(weights, ["▁so", "$x$"], ["▁a", "b", "</s>"], title="layer 1").axes[0]
    np.testing.assert_array_equal(image(axes), weights)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["_a", "b", "</s>"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["_so", r"\$x\$"]


def test_one_token_shows_where_each_head_looks_from_it():
    weights = np.random.default_rng(0).random((4, 3, 3))
    axes = figures.one_token(weights, ["▁it", "▁is", "</s>"], 1).axes[0]
    np.testing.assert_array_equal(image(axes), weights[:, 1])
    bold = [label.get_text() for label in axes.get_xticklabels() if label.get_fontweight() == "bold"]
    assert bold == ["_is"] and axes.get_title() == "from “_is”"


# --- architecture -------------------------------------------------------------------------------------------


def model(**options):
    with torch.device("meta"):
        return Transformer(
            **{"vocab_size": 50, "d_model": 16, "n_heads": 2, "d_ff": 24, "n_layers": 3} | options
        )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"norm_position": "pre"},
        {"share_embeddings": False, "target_vocab_size": 70},
        {"positions": "learned", "head_dim": 5, "value_dim": 3},
    ],
)
def test_the_architecture_counts_every_parameter_once(options):
    it = model(**options)
    assert architecture(it).n_parameters == sum(parameter.numel() for parameter in it.parameters())


def test_the_architecture_is_read_off_the_modules():
    found = architecture(model())
    assert [part.block.name for part in found.encoder] == ["self-attention", "feed-forward"]
    names = ["masked self-attention", "encoder-decoder attention", "feed-forward"]
    assert [part.block.name for part in found.decoder] == names
    assert [part.reads_encoder for part in found.decoder] == [False, True, False]
    assert (
        found.encoder[0].block.label == "2 heads of 8, 1.02k" and found.encoder[1].block.detail == "16 to 24"
    )
    assert (found.encoder[0].block.shape, found.decoder[1].block.shape) == ("B × S × 16", "B × T × 16")
    assert found.output.shape == "B × T × 50" and found.n_layers == 3 and not found.final_norms
    assert not model().encoder[0].attention._forward_hooks, "nothing stays on the model"


def test_the_base_model_s_first_boxes():
    found = architecture(model(vocab_size=37000, d_model=512, n_heads=8, d_ff=2048, n_layers=6))
    assert found.embeddings[0].label == "18.9M" and found.n_parameters == 63_045_632
    assert (
        "6 layers: self-attention (8 heads of 64, 1.05M), feed-forward (512 to 2048, 2.1M)."
        in architecture_words(found)
    )


@pytest.mark.parametrize("norm_position", ["post", "pre"])
def test_words_of_the_architecture_stay_in_their_boxes(norm_position):
    drawing = draw_architecture(
        architecture(model(vocab_size=37000, d_model=512, norm_position=norm_position))
    )
    drawing.canvas.draw()
    (axes,) = drawing.axes
    boxes = [
        patch.get_window_extent()
        for patch in axes.patches
        if isinstance(patch, FancyBboxPatch) and patch.get_fill()
    ]
    texts = [text.get_window_extent() for text in axes.texts if text.get_text()]
    inside = 0
    for text in texts:
        x, y = (text.x0 + text.x1) / 2, (text.y0 + text.y1) / 2
        around = [box for box in boxes if box.contains(x, y)]
        inside += len(around)
        for box in around or [drawing.bbox]:
            assert box.x0 <= text.x0 and text.x1 <= box.x1 and box.y0 <= text.y0 and text.y1 <= box.y1
    plt.close(drawing)
    assert inside == len(boxes) == {"post": 13, "pre": 20}[norm_position]


@pytest.mark.parametrize(("count", "words"), [(0, ""), (999, "999"), (1024, "1.02k"), (63_045_632, "63M")])
def test_shortened(count, words):
    assert shortened(count) == words
