"""How numbers are written."""

import pytest

from attn.reproduction.number_text import (
    format_difference,
    format_number,
    plain_exponent,
    printed_decimals,
    rounded,
)


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (1352969, None, "1,352,969"),
        (1000, None, "1000"),
        (3e-05, None, "3e-5"),
        (0.0001, None, "0.0001"),
        (27.3, 1, "27.3"),
        (27.25, 1, "27.2"),
        (9.5, 2, "9.50"),
        (0.0312, 1, "0.031"),
        (0.0, 1, "0.0"),
        (-3.0, 0, "−3"),
        (float("nan"), 1, "nan"),
        (3.2832e18, 0, "3.28e18"),
        (-2e19, None, "−2e19"),
        ("27M", 1, "27M"),
        (None, 1, "–"),
    ],
)
def test_numbers_have_the_digits_of_the_paper(value, decimals, text):
    assert format_number(value, decimals) == text


@pytest.mark.parametrize(
    ("printed", "decimals"),
    [([4.8, 0.1], 1), ([9.25, 9.5, 9], 2), ([1352969], 0), ([3e-05], 5), (["x", None], 0)],
)
def test_precision_is_the_finest_of_the_column(printed, decimals):
    assert printed_decimals(printed) == decimals


@pytest.mark.parametrize(
    ("value", "paper", "decimals", "text"),
    [
        (1352969, 1352969, 0, "0"),
        (381312, 384424, 0, "−3,112 (−0.8%)"),
        (3.2832e18, 3.3e18, 1, "−1.7e16 (−0.5%)"),
        (8e20, 8e20, 1, "0"),
        (9.5, 9.25, 2, "+0.25 (+2.7%)"),
        (1.0, 0, 1, "+1.0"),
        (1.0, "27M", 1, "–"),
        (None, 2.0, 1, "–"),
    ],
)
def test_difference_is_signed_and_relative(value, paper, decimals, text):
    assert format_difference(value, paper, decimals) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1 / 1.15, "0.87"),
        (1.4, "1.4"),
        (16, "16"),
        (999.6, "1,000"),
        (-12345.6, "-12,346"),
        (0.0000123, "1.23e-5"),
        (0, "0"),
    ],
)
def test_measured_numbers_have_three_digits_or_all_before_the_point(value, text):
    assert rounded(value) == text


def test_exponents_are_written_short():
    assert plain_exponent("4.3e+12 FLOPs, 4.5e-06 of table05") == "4.3e12 FLOPs, 4.5e-6 of table05"
