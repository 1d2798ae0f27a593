"""Table 1 of the Transformer's paper, measured: counts and paths against closed forms and brute force."""

from math import ceil

import numpy as np
import pytest
import torch

from attn.experiments.transformer import complexity
from attn.experiments.transformer.complexity import ATTENTION, CONVOLUTION, LAYERS, RECURRENT, RESTRICTED
from attn.experiments.transformer.fits import fit_law, fit_powers
from attn.layer_types import layers_to_connect
from attn.reproduction.facts import load_papers

DOUBLE = torch.float64
REACH = 33 // 2  # of the smallest neighbourhood on each side


# --- operations ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "term", "projections"),
    [
        (ATTENTION, lambda n, d: 2 * n * n * d, lambda n, d: 4 * n * d * d),
        (RECURRENT, lambda n, d: 2 * n * d * d, lambda n, d: 0),
        ("LSTM", lambda n, d: 8 * n * d * d, lambda n, d: 0),
        ("GRU", lambda n, d: 6 * n * d * d, lambda n, d: 0),
        (CONVOLUTION, lambda n, d: 3 * n * d * d, lambda n, d: 0),
        # queries in blocks as long as the reach, each with the block and a reach on both sides
        (RESTRICTED, lambda n, d: 2 * n * 3 * REACH * d, lambda n, d: 4 * n * d * d),
    ],
)
@pytest.mark.parametrize(("n", "d"), [(32, 8), (64, 24)])
def test_multiply_adds_are_those_of_the_closed_form(kind, term, projections, n, d):
    cost = complexity.multiply_adds(kind, n, d)
    assert (cost.term, cost.projections) == (term(n, d), projections(n, d))
    assert cost.total == cost.term + cost.projections


def test_kernel_and_neighbourhood_count():
    assert complexity.multiply_adds(CONVOLUTION, 16, 8, 5).term == 5 * 16 * 8 * 8
    assert complexity.multiply_adds(RESTRICTED, 128, 8, 65).term == 2 * 128 * 3 * 32 * 8


def test_narrow_heads_cost_as_many_multiply_adds_as_one_wide_head_and_more_weights():
    said = complexity.head_words(seq_len=10, d_model=8, n_heads=4)
    products = 2 * 10 * 10 * 8 + 4 * 10 * 8 * 8
    assert f"with 1 head and with 4: {products:,} each. Weights that the softmax makes: 100 and 400." in said


def test_fitted_powers_are_those_the_counts_were_made_with():
    n, d = np.array([[2, 3], [4, 3], [2, 7], [9, 5], [8, 2]]).T
    fit = fit_powers({"n": n, "d": d}, 0.3 * n**1.5 * d**-2.0)
    assert fit.powers == pytest.approx({"n": 1.5, "d": -2}) and str(fit) == "n^1.50 d^-2.00"
    assert fit.largest_error < 1e-12 and max(fit.errors.values()) < 1e-12


def test_counts_that_are_no_product_of_powers_show_errors():
    n = np.array([1, 2, 4, 8, 16])
    fit = fit_powers({"n": n}, n + 4 * n**2)
    assert 1.5 < fit.powers["n"] < 2 and fit.errors["n"] > 1e-3
    straight = np.exp(np.polyval(np.polyfit(np.log(n), np.log(n + 4 * n**2), 1), np.log(n)))
    assert fit.largest_error == pytest.approx(max(abs((n + 4 * n**2) / straight - 1)))


@pytest.mark.parametrize(
    ("kind", "powers", "tolerance"),
    [
        (ATTENTION, {"n": 2, "d": 1}, 1e-9),
        (RECURRENT, {"n": 1, "d": 2}, 1e-9),
        (CONVOLUTION, {"k": 1, "n": 1, "d": 2}, 1e-9),
        (RESTRICTED, {"r": 1, "n": 1, "d": 1}, 0.02),  # r - 1 for r
    ],
)
def test_exponents_are_the_printed_ones(kind, powers, tolerance):
    found = complexity.exponents(kind, lengths=(64, 128), widths=(8, 16))
    assert found.powers == pytest.approx(powers, abs=tolerance)
    assert found.largest_error < tolerance


def test_whole_layers_of_attention_follow_no_single_power():
    found = complexity.exponents(ATTENTION, part="total", lengths=(8, 16, 32), widths=(8, 16, 32))
    assert 1.1 < found.powers["n"] < 1.9 and found.largest_error > 0.05


@pytest.mark.parametrize("d", [8, 20])
def test_self_attention_and_recurrence_cross_at_n_equal_to_d(d):
    assert complexity.crossing(ATTENTION, RECURRENT, d) == d


@pytest.mark.parametrize(("other", "expected"), [(RECURRENT, 1), ("GRU", 12), ("LSTM", 24)])
def test_whole_layers_cross_elsewhere(other, expected):
    # 2 n^2 d + 4 n d^2 against 2, 6 and 8 n d^2
    assert complexity.crossing(ATTENTION, other, 12, part="total") == expected


def test_no_crossing_is_none():
    assert complexity.crossing(RECURRENT, "LSTM", 4, longest=16) is None


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="kind must be one of Self-Attention, .*LSTM, GRU; got 'Conv'"):
        complexity.build("Conv", 4)


# --- operations in sequence ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "products"),
    [
        (ATTENTION, lambda n: 4),  # projection, scores, weighted sum, output
        (RESTRICTED, lambda n: 4),
        (CONVOLUTION, lambda n: 1),
        (RECURRENT, lambda n: n),  # of the first input, then one a step
    ],
)
def test_longest_chain(kind, products):
    assert complexity.chains(kind, (1, 2, 7)) == {n: products(n) for n in (1, 2, 7)}


def test_a_long_recurrence_is_no_deep_recursion():
    assert complexity.longest_chain(RECURRENT, 1200) == 1200


# --- lengths of paths ---------------------------------------------------------------------------------------


def perturbed(operation, n):
    """Which outputs move when one input does."""
    inputs = torch.randn(1, n, 4, dtype=DOUBLE, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        before = operation(inputs)
        moved = []
        for place in range(n):
            other = inputs.clone()
            other[:, place] += 0.1
            moved.append((operation(other) != before).any(-1)[0])
    return torch.stack(moved, dim=1).numpy()


@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_reach_what_a_perturbation_moves(kind):
    torch.manual_seed(0)
    layer = complexity.build(kind, 4, reach=3).double()

    def operation(inputs):
        outputs = layer(inputs)
        return outputs if isinstance(outputs, torch.Tensor) else outputs[0]

    found = complexity.reached(operation, 7)
    np.testing.assert_array_equal(found, perturbed(operation, 7))
    expected = {
        RECURRENT: np.tri(7, dtype=bool),
        CONVOLUTION: np.abs(np.subtract.outer(range(7), range(7))) <= 1,
    }
    np.testing.assert_array_equal(
        found, expected.get(kind, expected[CONVOLUTION] if kind == RESTRICTED else True)
    )


@pytest.mark.parametrize("n", [2, 6, 9, 20])
def test_path_lengths_are_those_of_the_closed_form(n):
    assert complexity.path_length(ATTENTION, n) == 1
    assert complexity.path_length(RECURRENT, n) == n
    for reach in (3, 5):
        each_side = (reach - 1) // 2
        assert complexity.path_length(RESTRICTED, n, reach=reach) == ceil((n - 1) / each_side)
        assert complexity.path_length(CONVOLUTION, n, reach=reach, dilated=False) == ceil((n - 1) / each_side)
        assert complexity.path_length(CONVOLUTION, n, reach=reach) == layers_to_connect(n, reach)


def test_path_lengths_are_the_layers_a_real_stack_needs():
    n = 10
    fewest = complexity.path_length(RESTRICTED, n, reach=5)
    torch.manual_seed(1)
    layers = [complexity.build(RESTRICTED, 4, reach=5).double() for _ in range(fewest)]
    whole, shorter = (perturbed(torch.nn.Sequential(*stack), n) for stack in (layers, layers[1:]))
    assert whole.all() and not shorter.all()


# --- table 1 ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "name", "slope", "start"),
    [
        ([4, 4, 4, 4], "1", 0, 4),
        ([9, 17, 33, 65], "n", 2, 1),
        ([5, 8, 11, 14], "log n", 3, -1),
    ],
)
def test_laws(counts, name, slope, start):
    law = fit_law([4, 8, 16, 32], counts)
    assert law.name == name and law.largest_error < 1e-9
    assert (law.slope, law.start) == pytest.approx((slope, start), abs=1e-9)


def test_laws_tell_how_far_off_they_are():
    assert fit_law([1, 2, 3], [1, 4, 4]).largest_error > 0.5


@pytest.fixture
def fitted(monkeypatch):
    """The law that is read off made-up paths: a function of kind and of a path by n and reach."""

    def fit(kind, path):
        def made_up(kind, lengths, *, reach=None):
            return {n: ceil(path(n, reach)) for n in lengths}

        monkeypatch.setattr(complexity, "paths", made_up)
        return complexity.path_fit.__wrapped__(kind)

    return fit


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (lambda n, r: 8 * n / r, "n/r"),
        (lambda n, r: 8 * n / r**0.5, "n/r^0.5"),
        (lambda n, r: 8 * n / r**2 * 20, "n/r^2"),
        (lambda n, r: 3 * n, "n"),
        (lambda n, r: n * r, "n * r"),
        (lambda n, r: n * n / r, "n^2/r"),
    ],
)
def test_a_path_s_power_of_the_reach_is_fitted(fitted, path, text):
    assert fitted(RESTRICTED, path).text == text


@pytest.mark.parametrize(
    ("base", "text", "noted"),
    [
        (lambda k: k, "log_k(n)", False),
        (lambda k: (k + 1) / 2, "log_k(n)", True),
        (lambda k: 2, "log(n)", True),
        (lambda k: k * k, "log(n)", True),
    ],
)
def test_a_path_s_base_of_the_logarithm_is_fitted(fitted, base, text, noted):
    found = fitted(CONVOLUTION, lambda n, k: np.log(n) / np.log(base(k)) - 1e-9)
    assert found.text == text and (found.note is not None) == noted
    assert (found.note or "").startswith("same order") == (found.text == "log_k(n)" and noted)
    assert found.found.count("base ") == len(complexity.PATH_FITS[CONVOLUTION][1]) >= 3


def test_our_own_paths():
    texts = {kind: complexity.path_fit(kind).text for kind in LAYERS}
    assert texts == {ATTENTION: "1", RECURRENT: "n", CONVOLUTION: "log_k(n)", RESTRICTED: "n/r"}
    assert complexity.path_fit(RESTRICTED).found == "n^1.00 r^-1.13"
    assert complexity.law_texts(CONVOLUTION)["max_path_length"] == "O(log_k(n))"
    found = complexity.path_fit(CONVOLUTION)
    assert "base 1.99 at k = 3" in found.found and "at most ln 3/ln 2 = 1.58 times as long" in found.note


def test_the_two_bases_of_a_path_differ_most_at_the_smallest_kernel():
    ratios = [np.log(k) / np.log((k + 1) / 2) for k in range(3, 2001, 2)]
    assert ratios[0] == pytest.approx(1.585, abs=1e-3) and (np.diff(ratios) < 0).all() and ratios[-1] < 1.11


@pytest.mark.parametrize(("n", "k"), [(9, 3), (10, 3), (28, 3), (25, 5), (26, 5), (50, 7)])
def test_kernels_that_look_one_way_need_as_many_layers_as_the_logarithm_to_base_k(n, k):
    offsets, layers = {0}, 0
    while not offsets >= set(range(n)):
        offsets = {near + k**layers * tap for near in offsets for tap in range(k)}
        layers += 1
    assert layers == next(count for count in range(n) if k**count >= n)


def test_the_table_measured_has_the_printed_laws():
    printed = load_papers()["vaswani2017"].table("table1")
    rows = complexity.table_rows(printed, seq_len=64, d_model=32)
    assert [row["layer_type"] for row in rows] == list(LAYERS)
    laws = {"O(1)": "1", "O(n)": "n", "O(log_k(n))": "log n", "O(n/r)": "n"}
    for row in rows:
        assert row["chain_law"].name == laws[row["sequential_operations"]]
        assert row["path_law"].name == laws[row["max_path_length"]]
        assert row["cost"] == complexity.multiply_adds(row["layer_type"], 64, 32)
        assert ("contiguous" in row) == (row["layer_type"] == CONVOLUTION)
        assert row["path_fit"] == complexity.path_fit(row["layer_type"])
        assert row.get("contiguous", {64: 63})[64] == 63  # k = 3 reaches one position further a layer
        for symbol, power in row["exponents"].powers.items():
            assert (f"{symbol}^2" in row["complexity_per_layer"]) == (round(power) == 2)
            assert symbol in row["complexity_per_layer"] and power == pytest.approx(round(power), abs=0.02)
