"""What the server sees of a curve: 8-bit scores instead of exact errors.

The report is the total error as float32, the range of the error-per-bit scores as two float32, and for every unit the
logarithm of its score in 8 bits: 254 steps between the largest and the smallest score (at most 2^20 apart), and one
code for zero. The bits of the units cost nothing where they follow from the model, the rank and the codec's options;
where they depend on the update (`ecsq`, and `rank_components` on matrices of different shapes) the report carries them
too, in the curve's `told_bits`. Scores stay in order, so the curve stays convex, and it is rescaled to the reported
total, which cancels most of the rounding.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from raysoft.types import Array, Curve

SCORE_BITS = 8
HEADER_BITS = 4 * 32  # total, error of the last unit, largest and smallest score
_CODES = 2**SCORE_BITS - 2  # the last code is "zero"
_RANGE_LOG2 = 20.0


def report_bits(curve: Curve) -> int:
    """Control bits of the report."""
    return HEADER_BITS + SCORE_BITS * curve.units + curve.told_bits


def quantize_curve(curve: Curve) -> Curve:
    """The curve as the server reconstructs it; bits exact, errors convex and decreasing.

    With scores over three decades a step is 2.7 %, a score is off by at most 1.4 % and the curve by less than 1 % of
    its total.
    """
    gaps = np.diff(curve.bits_J)
    drops = np.maximum(-np.diff(curve.error_J), 0.0)
    if not drops.size or not drops.max() > 0:
        return replace(curve, error_J=_float32(curve.error_J[:1]).repeat(curve.error_J.size))
    scores = np.minimum.accumulate(drops / np.maximum(gaps, 1))
    heights = _from_codes(scores) * gaps
    if not heights.sum() > 0:  # scores all alike, whose float32 is off by more than the whole range of the codes
        heights = gaps.astype(float)
    first, last = _float32(curve.error_J[0]), _float32(curve.error_J[-1])
    heights *= max(first - last, 0.0) / heights.sum()
    # Summed from the small end, so that the last steps keep their digits.
    error = last + np.concatenate([heights[::-1].cumsum()[::-1], [0.0]])
    return replace(curve, error_J=error)


def _from_codes(scores: Array) -> Array:
    """Scores after 8-bit logarithmic rounding."""
    top = float(_float32(np.log2(scores.max())))
    low = np.log2(scores.max()) - _RANGE_LOG2
    bottom = float(_float32(np.log2(scores[scores > 0].clip(2.0**low)).min()))
    step = max(top - bottom, 1e-6) / _CODES
    with np.errstate(divide="ignore"):
        codes = np.rint((top - np.log2(scores)) / step).clip(0, _CODES + 1)
    codes[scores < 2.0 ** (low - step)] = _CODES + 1
    return np.where(codes > _CODES, 0.0, 2.0 ** (top - step * codes))


def _float32(x: Array | float) -> Array:
    """Rounded to float32; an error beyond its range (training diverges) is reported as the largest."""
    most = np.finfo(np.float32).max
    return np.clip(x, -most, most).astype(np.float32).astype(np.float64)
