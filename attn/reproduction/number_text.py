"""Numbers as people read them: with the digits of the print, or with as many as were measured."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from math import isfinite
from typing import Any

from attn.reproduction.grid import BLANK


def is_number(value: Any) -> bool:
    """Whether a printed or computed value is a number; the facts hold text as well."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def printed_decimals(values: Iterable[Any]) -> int:
    """Digits after the point that a column of printed numbers uses: the most any of its floats shows."""
    floats = [value for value in values if isinstance(value, float) and isfinite(value)]
    return max((max(0, -Decimal(repr(value)).normalize().as_tuple().exponent) for value in floats), default=0)


# From here on numbers, such as FLOPs of a training, are written with an exponent.
_SCIENTIFIC = 1e15


def format_number(value: Any, decimals: int | None = None) -> str:
    """A number as the paper would print it; text and None pass through as text and a dash.

    Args:
        value: number, text or None.
        decimals: digits after the point. None prints the number as it is. A number that would round
            to zero although it is not zero keeps two significant digits instead, and a huge one three.
    """
    if value is None:
        return BLANK
    if not is_number(value) or not isfinite(value):
        return str(value)
    if abs(value) >= _SCIENTIFIC:
        text = plain_exponent(f"{value:.3g}")
    elif decimals is None:
        text = plain_exponent(f"{value:,}")
    elif value and round(value, decimals) == 0:
        text = plain_exponent(f"{value:.2g}")
    else:
        text = f"{value:,.{decimals}f}"
    if abs(value) < 10_000:
        text = text.replace(",", "")
    return text.replace("-", "−") if text.startswith("-") else text


def plain_exponent(text: str) -> str:
    """`3e-05` as `3e-5`, `3e+18` as `3e18`, in any text."""
    return re.sub(r"(?<=\d)e(-?)\+?0*(?=\d)", r"e\1", text)


def format_spread(std: float, decimals: int) -> str:
    """Standard deviation with the digits of its mean, or one significant digit where that would show zero."""
    if std == 0:
        return "0"
    return plain_exponent(f"{std:.1g}") if round(std, decimals) == 0 else f"{std:,.{decimals}f}"


def format_difference(value: Any, paper: Any, decimals: int) -> str:
    """Signed difference from the printed number, with its share in percent; a dash where there is none."""
    if not (is_number(value) and is_number(paper)):
        return BLANK
    difference = value - paper
    if round(difference, decimals) == 0:
        return "0"
    is_huge = abs(paper) >= _SCIENTIFIC
    text = plain_exponent(f"{difference:+.2g}") if is_huge else f"{difference:+,.{decimals}f}"
    if paper:
        text += f" ({100 * difference / abs(paper):+.1f}%)"
    return text.replace("-", "−")


def rounded(value: float) -> str:
    """A measured number with three digits, or with all that it has before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else plain_exponent(f"{value:.3g}")
