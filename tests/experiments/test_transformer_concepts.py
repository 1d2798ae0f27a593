"""The small computations of chapter 1, against closed forms, finite differences and plain versions."""

from math import cos, log2, sin

import numpy as np
import pytest
import torch

from attn.attention import MultiHeadAttention, sinusoidal_positions
from attn.experiments.transformer import concepts
from attn.experiments.transformer.concepts import KINDS, RecallBudget
from attn.experiments.transformer.runs import PAPER
from attn.reproduction.facts import load_papers
from tests.exact import DOUBLE, random

TINY = RecallBudget(max_updates=1, n_test=16)
FACTS = load_papers()[PAPER]


# --- the factor 1 / sqrt(d_k) -------------------------------------------------------------------------------


def test_entropy_of_uniform_and_one_hot_weights():
    weights = torch.tensor([[0.125] * 8, [1.0] + [0.0] * 7, [0.5, 0.5] + [0.0] * 6])
    torch.testing.assert_close(concepts.entropy(weights), torch.tensor([3.0, 0.0, 1.0]))


def test_softmax_gradient_is_the_norm_of_its_jacobian():
    scores = 3 * random(5, 6)
    norms = [torch.autograd.functional.jacobian(lambda s: torch.softmax(s, -1), row).norm() for row in scores]
    torch.testing.assert_close(concepts.softmax_gradient(torch.softmax(scores, -1)), torch.stack(norms))
    assert concepts.softmax_gradient(torch.eye(4)).tolist() == [0.0] * 4


def test_the_factor_keeps_variance_entropy_and_gradient_level():
    effect = concepts.scale_effect((1, 16, 256), n_keys=32, n_queries=64, n_draws=8)
    assert effect.variance.shape == (8, 3)
    mean, error = effect.variance.mean(0), effect.variance.std(0, ddof=1) / 8**0.5
    assert (np.abs(mean - effect.widths) < 4 * error).all(), "the variance of a dot product is d_k"
    scaled, plain = effect.entropy["scaled"].mean(0), effect.entropy["plain"].mean(0)
    assert np.ptp(scaled) < 0.3 and plain[2] < 0.1 * log2(32)
    assert effect.entropy["scaled"][0, 0] == effect.entropy["plain"][0, 0], "at d_k = 1 the factor is 1"
    assert effect.gradient["plain"].mean(0)[2] < 0.6 * effect.gradient["scaled"].mean(0)[2]


def test_entropies_are_those_of_a_plain_softmax():
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(n, 9, dtype=DOUBLE, generator=generator).numpy() for n in (6, 5))
    effect = concepts.scale_effect((9,), n_keys=5, n_queries=6, n_draws=1)
    for name, factor in (("scaled", 1 / 3), ("plain", 1.0)):
        weights = np.exp(factor * query @ key.T)
        weights /= weights.sum(1, keepdims=True)
        expected = -(weights * np.log2(weights)).sum(1).mean()
        assert effect.entropy[name][0, 0] == pytest.approx(expected, rel=1e-12)


# --- positions ----------------------------------------------------------------------------------------------


def test_rotations_turn_by_the_offset_times_the_frequency():
    found = concepts.rotations(3, 8)
    assert found.shape == (4, 2, 2)
    for pair in range(4):
        angle = 3 / 10000 ** (2 * pair / 8)
        expected = [[cos(angle), sin(angle)], [-sin(angle), cos(angle)]]
        assert found[pair].tolist() == [pytest.approx(row, abs=1e-15) for row in expected]
    torch.testing.assert_close(concepts.rotations(1, 8) @ concepts.rotations(2, 8), found)


@pytest.mark.parametrize(("dtype", "most"), [(DOUBLE, 1e-12), (torch.float32, 1e-6)])
def test_one_rotation_moves_every_position(dtype, most):
    assert concepts.rotation_error(7, seq_len=30, d_model=16, dtype=dtype) < most


def test_another_rotation_does_not(monkeypatch):
    right = concepts.rotations
    monkeypatch.setattr(concepts, "rotations", lambda offset, d_model: right(-offset, d_model))
    assert concepts.rotation_error(7, seq_len=30, d_model=16) > 1


def test_beyond_training_only_the_sinusoids_go_on():
    found = concepts.beyond_training(d_model=6, max_len=5, seq_len=9)
    np.testing.assert_array_equal(found.sinusoids, sinusoidal_positions(9, 6).numpy())
    assert found.sinusoids[8, 0] == pytest.approx(sin(8), abs=1e-6)
    assert found.learned.shape == (5, 6) and "max_len = 5 positions; got 6" in found.message


# --- distance -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_finite_differences(kind):
    found = concepts.gradient_by_distance(
        kind, seq_len=4, d_model=3, seeds=1, batch_size=2, recurrent_scale=1.5
    )
    torch.manual_seed(0)
    reader = concepts.Reader(kind, d_model=3, recurrent_scale=1.5).double()
    inputs = torch.randn(2, 4, 3, dtype=DOUBLE)
    direction = torch.nn.functional.normalize(torch.randn(2, 3, dtype=DOUBLE), dim=-1)
    slopes = torch.zeros_like(inputs)
    for place in np.ndindex(*inputs.shape):
        step = torch.zeros_like(inputs)
        step[place] = 1e-5
        with torch.no_grad():
            slopes[place] = ((reader(inputs + step) - reader(inputs - step)) * direction).sum() / 2e-5
    expected = slopes.norm(dim=-1).square().mean(0).sqrt().flip(0)
    np.testing.assert_allclose(found[0], expected, rtol=1e-6, atol=1e-9)


def test_gradients_vanish_explode_or_stay():
    options = {"seq_len": 41, "d_model": 32, "seeds": 2}
    falls = {kind: concepts.gradient_by_distance(kind, **options).mean(0) for kind in KINDS}
    for kind in ("rnn", "lstm", "gru"):
        assert falls[kind][40] < 1e-5 * falls[kind][0]
    assert falls["attention"][40] > 0.3 * falls["attention"][5]
    grows = concepts.gradient_by_distance("rnn", **options, recurrent_scale=concepts.EXPLODING_SCALE).mean(0)
    assert grows[40] > 2 * grows[5]


def test_attention_reads_as_the_last_position_of_the_whole_layer():
    torch.manual_seed(0)
    reader = concepts.Reader("attention", d_model=4).double()
    inputs = random(2, 5, 4)
    whole = reader.layer(inputs + sinusoidal_positions(5, 4, dtype=DOUBLE)).output
    torch.testing.assert_close(reader(inputs), whole[:, -1])


def test_a_recall_batch_asks_at_its_end_for_any_symbol():
    tokens = concepts.recall_batch(3, 200, 4)
    assert tokens.shape == (200, 5) and (tokens[:, -1] == 4).all()
    assert set(tokens[:, 0].tolist()) == set(tokens[:, 1:-1].flatten().tolist()) == {0, 1, 2, 3}


def test_recall_is_chance_without_training_and_learned_with():
    untrained = concepts.recall("attention", 2, budget=RecallBudget(max_updates=0, n_test=4096))
    assert untrained == pytest.approx(1 / 8, abs=0.05)
    assert concepts.recall("attention", 2, budget=RecallBudget(max_updates=120)) > 0.9


def test_recall_stops_where_it_is_solved(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        concepts,
        "recall_batch",
        lambda *sizes: drawn.append(sizes) or torch.zeros(sizes[1], 3, dtype=torch.int64),
    )
    assert concepts.recall("rnn", 1, budget=RecallBudget(max_updates=100, n_test=8)) == 1
    assert 2 < len(drawn) < 100, "one answer only, so it is soon known"


def test_recall_by_gap_has_a_share_for_each_seed_and_gap():
    found = concepts.recall_by_gap((1, 3), seeds=2, budget=TINY)
    assert list(found) == list(KINDS) and {shares.shape for shares in found.values()} == {(2, 2)}
    assert found["gru"][1, 0] == concepts.recall("gru", 1, seed=1, budget=TINY)


@pytest.mark.parametrize(
    "compute",
    [
        lambda: concepts.beyond_training(d_model=4, max_len=2, seq_len=3),
        lambda: concepts.gradient_by_distance("rnn", seq_len=2, d_model=2, seeds=1, batch_size=1),
        lambda: concepts.recall("rnn", 1, budget=TINY),
    ],
)
def test_the_global_random_state_stays(compute):
    before = torch.get_rng_state()
    compute()
    assert torch.equal(torch.get_rng_state(), before)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind must be one of rnn, lstm, gru, attention; got 'tcn'"):
        concepts.Reader("tcn", d_model=4)


# --- learning rate and heads --------------------------------------------------------------------------------


def test_schedules_peak_at_the_end_of_the_warm_up():
    settings = concepts.schedules(FACTS.recipe)
    steps, curves = concepts.schedule_curves(settings, max_steps=20_000, every=500)
    assert (steps[0], steps[-1]) == (500, 20_000)
    for name, peak in FACTS.exact_fact("lr_peak")["values"].items():
        assert steps[curves[name].argmax()] == 4000 and curves[name].max() == pytest.approx(peak, rel=1e-4)
    assert curves["base"][0] == pytest.approx(512**-0.5 * 500 * 4000**-1.5)
    assert curves["base"][-1] == pytest.approx(512**-0.5 * 20_000**-0.5)
    longer = curves["base, warm-up 16000"]
    assert steps[longer.argmax()] == 16_000 and longer.max() == pytest.approx(curves["base"].max() / 2)


@pytest.mark.parametrize("widths", [{}, {"head_dim": 5, "value_dim": 3}])
def test_heads_one_by_one_equal_the_layer(widths):
    torch.manual_seed(0)
    layer = MultiHeadAttention(d_model=12, n_heads=4, **widths).double()
    inputs = random(2, 7, 12)
    torch.testing.assert_close(concepts.heads_alone(layer, inputs), layer(inputs).output)


def test_projections_are_a_grouped_convolution():
    torch.manual_seed(0)
    layer = MultiHeadAttention(d_model=6, n_heads=3, head_dim=4).double()
    inputs = random(2, 5, 6)
    torch.testing.assert_close(concepts.grouped_projection(layer, inputs), layer.projection(inputs)[..., :12])
