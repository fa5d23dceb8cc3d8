"""Scalar identities of an FDMA share against 40-digit arithmetic, finite differences and each other."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysoft.wireless.rates import (
    LN2,
    bandwidth_from_nats,
    limit,
    nats_from_load,
    nats_from_marginal,
    rate,
    rho,
    share_for_rate,
)

mpmath.mp.dps = 40
positive = st.floats(1e-3, 1e12)


def exact_nats_from_load(c: float) -> float:
    target = -mpmath.log(mpmath.mpf(c))
    start = target + mpmath.log1p(target) if target > 1e-3 else 2 * target
    return mpmath.findroot(lambda u: mpmath.log(mpmath.expm1(u) / u) - target, start)


def exact_nats_from_marginal(q: float) -> float:
    q = mpmath.mpf(q)
    return 1 + q + mpmath.lambertw(-mpmath.exp(-1 - q)).real


def test_load_inverse_agrees_with_mpmath():
    loads = np.concatenate([np.logspace(-290, -15, 12), np.logspace(-15, -0.002, 80), 1 - np.logspace(-9, -1, 40)])
    for load, nats in zip(loads, nats_from_load(loads), strict=True):
        assert float(abs(nats / exact_nats_from_load(load) - 1)) < 1e-12, load


def test_marginal_inverse_agrees_with_mpmath():
    marginals = np.logspace(-12, 4, 80)
    for q, nats in zip(marginals, nats_from_marginal(marginals), strict=True):
        assert float(abs(nats / exact_nats_from_marginal(q) - 1)) < 1e-12, q


def test_rho_agrees_with_mpmath_across_its_series():
    nats = np.concatenate([np.logspace(-9, 2, 60), [0.05 - 1e-12, 0.05 + 1e-12]])
    for u, value in zip(nats, rho(nats), strict=True):
        exact = mpmath.mpf(u) - 1 + mpmath.exp(-mpmath.mpf(u))
        assert float(abs(value / exact - 1)) < 1e-12, u


def test_ends_of_the_inverses():
    assert nats_from_load([0.0, 1.0, 2.0]).tolist() == [math.inf, 0.0, 0.0]
    assert nats_from_marginal([0.0, math.inf]).tolist() == [0.0, math.inf]
    assert bandwidth_from_nats([0.0, math.inf, 800.0], 1e6).tolist()[:2] == [math.inf, 0.0]
    assert share_for_rate(np.array([0.0]), np.array([1e6]), 7.4).bandwidth_hz.tolist() == [0.0]
    assert math.isinf(share_for_rate(np.array([1e6 / LN2 * (1 + 1e-12)]), np.array([1e6])).bandwidth_hz[0])


def test_rate_at_its_ends():
    assert rate([0.0, 1e6, 1e6], [1e6, 0.0, 1e6]).tolist() == [0.0, 0.0, 1e6]  # log2(1 + 1) = 1
    assert rate(math.inf, 1e6) == pytest.approx(1e6 / LN2)
    assert rate(1e3, 1e9, 7.4) == pytest.approx(7400.0)


def test_blocks_do_not_change_a_bit():
    loads = np.random.default_rng(0).uniform(0, 1, 40_000)
    assert np.array_equal(nats_from_load(loads), np.concatenate([nats_from_load(x) for x in np.split(loads, 8)]))


@given(snr=positive, fraction=st.floats(1e-9, 1 - 1e-6), efficiency=st.sampled_from([0.5, 2.0, 7.4, math.inf]))
def test_share_is_the_inverse_of_the_rate(snr, fraction, efficiency):
    wanted = np.array([fraction * snr / LN2])
    share = share_for_rate(wanted, np.array([snr]), efficiency)
    assert rate(share.bandwidth_hz, snr, efficiency)[0] == pytest.approx(wanted[0], rel=1e-9)


@given(snr=positive, bandwidth=positive, efficiency=st.sampled_from([0.5, 2.0, 7.4, math.inf]))
def test_marginal_is_the_right_derivative_of_the_rate(snr, bandwidth, efficiency):
    corner = limit(snr, efficiency).bandwidth_hz
    step = 1e-5 * bandwidth
    if (bandwidth < corner < bandwidth + step) or bandwidth > 1e4 * snr:
        return  # the difference would straddle the kink, or drown in rounding
    share = share_for_rate(np.atleast_1d(rate(bandwidth, snr, efficiency)), np.array([snr]), efficiency)
    difference = (rate(bandwidth + step, snr, efficiency) - rate(bandwidth, snr, efficiency)) / step
    assert share.marginal[0] == pytest.approx(float(difference), rel=2e-4)


def test_the_limit_is_a_kink_with_the_stated_marginals():
    snr, efficiency = 1e7, 7.4
    corner = limit(snr, efficiency)
    assert corner.rate_bps == pytest.approx(efficiency * corner.bandwidth_hz)
    assert np.log2(1 + snr / corner.bandwidth_hz) == pytest.approx(efficiency)
    around = share_for_rate(corner.rate_bps * np.array([1 - 1e-9, 1 + 1e-9]), np.full(2, snr), efficiency)
    assert around.marginal[0] == efficiency
    assert around.marginal[1] == pytest.approx(efficiency - (1 - 2**-efficiency) / LN2, rel=1e-6)
    assert around.bandwidth_hz == pytest.approx([corner.bandwidth_hz] * 2, rel=1e-8)


def test_marginals_never_rise_with_the_rate():
    snr = np.full(4000, 1e7)
    wanted = np.linspace(1e3, 0.999 * 1e7 / LN2, 4000)
    for efficiency in (3.0, math.inf):
        share = share_for_rate(wanted, snr, efficiency)
        assert np.all(np.diff(share.marginal) <= 0)
        assert np.all(np.diff(share.bandwidth_hz) > 0)
