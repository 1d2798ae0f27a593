"""How different heads are: the distance by hand, of kept maps and before training."""

from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import torch

from attn.experiments.transformer import heads
from attn.experiments.transformer.runs import PAPER
from attn.reproduction.records import Record
from tests.reproduction.toy import record_data

ONE, OTHER, BOTH = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.5, 0.0]
MODEL = {"n_layers": 2, "d_model": 16, "n_heads": 3, "d_ff": 16, "head_dim": 4, "value_dim": 4}


class Kept(Record):
    def artifact(self):
        maps = np.array([[[ONE], [ONE], [ONE]], [[ONE], [OTHER], [OTHER]]])
        sides = {"attention_source": np.array(["▁a"] * 9), "attention_target": np.array(["▁b"] * 7)}
        return {f"attention_{kind}": maps for kind in heads.KINDS} | sides


def record():
    config = {"model": MODEL, "corpus": {"vocab_size": 30}}
    return Kept(Path("seed0.json"), record_data(PAPER, "x", 0, {}, config=config))


def test_the_distance_is_the_share_of_weight_that_moves():
    maps = np.array([[[ONE, ONE], [OTHER, ONE]], [[ONE, BOTH], [BOTH, BOTH]], [[ONE, OTHER], [ONE, OTHER]]])
    np.testing.assert_allclose(heads.distances(maps), [0.5, 0.25, 0])
    three = np.array([[[ONE], [OTHER], [BOTH]]])
    np.testing.assert_allclose(heads.distances(three), [(1 + 0.5 + 0.5) / 3])


def test_heads_before_training_are_drawn_alike_each_time_and_leave_the_random_state():
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first, again = heads.untrained(record(), n_draws=2), heads.untrained(record(), n_draws=2)
    assert torch.equal(before, torch.random.get_rng_state())
    for kind in heads.KINDS:
        np.testing.assert_array_equal(first[kind], again[kind])
        assert first[kind].shape == (2,) and (first[kind] > 0).all() and (first[kind] < 1).all()


def test_the_figure_has_both_and_the_words_their_means():
    (axes,) = heads.draw(record()).axes
    start = heads.untrained(record())
    drawn = [line.get_ydata() for line in axes.lines if len(line.get_ydata())]
    for i, kind in enumerate(heads.KINDS):
        np.testing.assert_allclose(drawn[2 * i], [0, 2 / 3])
        np.testing.assert_allclose(drawn[2 * i + 1], start[kind])
    said = heads.words([record()])
    assert said.endswith("One sentence of 1 run.")
    assert f"0.33 in encoder self-attention ({start['encoder'].mean():.2f} before training)" in said


def test_words_are_means_and_ranges_over_runs():
    class Alike(Kept):
        def artifact(self):
            arrays = super().artifact()
            return arrays | {"attention_encoder": np.zeros_like(arrays["attention_encoder"])}

    start = heads.untrained(record())["encoder"].mean()
    said = heads.words([record(), Alike(record().path, record().data)])
    assert f"0.17 in encoder self-attention (0.00 to 0.33; {start:.2f} before training)" in said
    assert "0.33 in decoder self-attention (0.33 to 0.33; " in said
    assert said.endswith("One sentence of each of 2 runs, the mean and the range over them.")


def test_without_a_record_it_says_so_and_draws_nothing():
    assert heads.words([]) == "No records yet."
    before = plt.get_fignums()
    assert heads.draw(None) is None
    assert plt.get_fignums() == before, "an empty figure would be shown"
