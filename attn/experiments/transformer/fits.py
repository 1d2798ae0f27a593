"""Laws fitted to counts: how operations grow with the sizes of a layer, and steps with the length of a sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Exponents:
    """A product of powers fitted to counts by least squares on logarithms.

    Attributes:
        powers: exponent of each size, by its symbol.
        errors: standard error of each exponent.
        largest_error: of all counts, the largest distance from the fit, as a share of the count. Rounding alone where
            the counts are such a product exactly.
    """

    powers: Mapping[str, float]
    errors: Mapping[str, float]
    largest_error: float

    def __str__(self) -> str:
        return " ".join(f"{symbol}^{power:.2f}" for symbol, power in self.powers.items())


def fit_powers(sizes: Mapping[str, Sequence[float]], counts: Sequence[float]) -> Exponents:
    """Fit count = c * size_1^p_1 * size_2^p_2 ...

    Args:
        sizes: by symbol, the size at each count, not all equal.
        counts: positive.
    """
    design = np.column_stack([np.ones(len(counts)), *(np.log(np.asarray(s, float)) for s in sizes.values())])
    target = np.log(np.asarray(counts, float))
    found, *_ = np.linalg.lstsq(design, target, rcond=None)
    left = target - design @ found
    variance = left @ left / max(1, len(target) - design.shape[1])
    errors = np.sqrt(variance * np.diag(np.linalg.inv(design.T @ design)))
    powers, errors = (dict(zip(sizes, map(float, row[1:]), strict=True)) for row in (found, errors))
    return Exponents(powers, errors, float(np.abs(np.expm1(left)).max()))


@dataclass(frozen=True)
class Law:
    """How a count grows with n.

    Attributes:
        name: "1", "n" or "log n".
        slope: of the line over n or over log2 n; 0 for a constant.
        start: the line's value at 0.
        largest_error: the largest distance of a count from it; up to 1 where counts are rounded up.
    """

    name: str
    slope: float
    start: float
    largest_error: float


def fit_law(lengths: Sequence[int], counts: Sequence[int]) -> Law:
    """The law among constant, line over n and line over log2 n that lies closest to the counts, in squares."""
    if len(set(counts)) == 1:
        return Law("1", 0.0, float(counts[0]), 0.0)
    found = []
    for name, x in (("n", np.asarray(lengths, float)), ("log n", np.log2(lengths))):
        slope, start = np.polyfit(x, counts, 1)
        left = counts - (slope * x + start)
        found.append((left @ left, Law(name, float(slope), float(start), float(np.abs(left).max()))))
    return min(found, key=lambda pair: pair[0])[1]
