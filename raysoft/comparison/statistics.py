"""Statistics of comparisons over seeds: paired differences, non-inferiority, equivalence, Holm, rank correlation.

Runs of two arms share their seed and with it data split, cohorts and channels, so everything here is paired: S seeds,
`a_S` the arm, `b_S` the reference. One seed gives a difference, but no interval and no p-value (None).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raysoft.types import Array

LEVEL = 0.05
Values = Sequence[float] | Array


def mean_std(values: Values) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation (n - 1); None where there are too few values."""
    x = np.asarray(values, dtype=np.float64)
    mean = float(x.mean()) if x.size else None
    return mean, float(x.std(ddof=1)) if x.size > 1 else None


@dataclass(frozen=True)
class Difference:
    """Mean of a - b with its two-sided t interval (None for a single seed)."""

    seeds: int
    difference: float
    low: float | None
    high: float | None


def paired_difference(a_S: Values, b_S: Values, confidence: float = 0.95) -> Difference:
    """Mean paired difference and its Student-t interval. Raises ValueError for unequal or no lengths.

    >>> paired_difference([1.0, 2.0, 3.0], [0.0, 0.0, 0.0]).difference
    2.0
    """
    d, error = _differences(a_S, b_S)
    mean = float(d.mean())
    if error is None:
        return Difference(1, mean, None, None)
    from scipy.stats import t

    half = float(t.ppf(0.5 + confidence / 2, d.size - 1)) * error
    return Difference(d.size, mean, mean - half, mean + half)


@dataclass(frozen=True)
class Margins:
    """p-values of the two one-sided tests that a stays within a margin of b (None for a single seed).

    `noninferior`: against "a is worse than b by the margin or more". `equivalent`: the larger of it and its mirror
    image, the p-value of TOST (Schuirmann 1987).
    """

    noninferior: float | None
    equivalent: float | None


def margin_tests(
    a_S: Values, b_S: Values, margin: float, relative: bool = False, lower_is_better: bool = False
) -> Margins:
    """Paired t tests of non-inferiority and equivalence.

    `margin` is in the units of the values; `relative`: a share of the reference, tested on a - (1 ± margin) b, so that
    the reference's own spread is accounted for. Raises ValueError for unequal or no lengths.
    """
    a, b = np.asarray(a_S, dtype=np.float64), np.asarray(b_S, dtype=np.float64)
    shift = margin * b if relative else np.full_like(b, margin)
    above = _one_sided(a, b - shift)  # a is not lower than b by the margin
    below = _one_sided(b + shift, a)  # a is not higher than b by the margin
    if above is None or below is None:
        return Margins(None, None)
    return Margins(below if lower_is_better else above, max(above, below))


def _one_sided(a_S: Values, b_S: Values) -> float | None:
    """p-value of mean(a) > mean(b) by the paired t test."""
    d, error = _differences(a_S, b_S)
    mean = float(d.mean())
    if error is None:
        return None
    if error == 0.0:  # every seed says the same
        return 0.0 if mean > 0 else 1.0
    from scipy.stats import t

    return float(t.sf(mean / error, d.size - 1))


def _differences(a_S: Values, b_S: Values) -> tuple[Array, float | None]:
    """a - b and the standard error of its mean."""
    a, b = np.asarray(a_S, dtype=np.float64), np.asarray(b_S, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or not a.size:
        raise ValueError(f"paired values must be two equally long, non-empty lists, got {a.shape} and {b.shape}")
    d = a - b
    if d.size == 1:
        return d, None
    # Equal differences of decimal numbers spread by rounding alone, which is no spread.
    spread = float(d.std(ddof=1))
    noise = 8 * np.finfo(np.float64).eps * float(np.max(np.abs(np.concatenate([a, b])), initial=0.0))
    return d, spread / math.sqrt(d.size) if spread > noise else 0.0


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment over all p-values of a table; None stays None and does not count.

    >>> holm([0.01, None, 0.04, 0.03])
    [0.03, None, 0.06, 0.06]
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    out: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for place, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - place) * p))
        out[i] = largest
    return out


def kendall(x_N: Values, y_N: Values) -> tuple[float | None, float | None]:
    """Kendall's tau-b and its two-sided p-value; None where fewer than two values, or all values of one are equal."""
    x, y = np.asarray(x_N, dtype=np.float64), np.asarray(y_N, dtype=np.float64)
    if x.shape != y.shape:
        raise ValueError(f"two lists of one length are needed, got {x.shape} and {y.shape}")
    if x.size < 2 or np.all(x == x[0]) or np.all(y == y[0]):
        return None, None
    from scipy.stats import kendalltau

    found = kendalltau(x, y)
    return float(found.statistic), float(found.pvalue)


def wilcoxon(a_S: Values, b_S: Values) -> float | None:
    """Two-sided p-value of Wilcoxon's signed-rank test; None for a single seed, 1 where no pair differs."""
    d, error = _differences(a_S, b_S)
    if error is None:
        return None
    if not np.any(d):
        return 1.0
    from scipy.stats import wilcoxon as signed_rank

    return float(signed_rank(d).pvalue)
