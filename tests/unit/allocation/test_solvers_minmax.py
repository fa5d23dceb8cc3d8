"""Min-max latency: against a conic solver, its own optimality conditions up to a million clients, and edge cases."""

import math

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysoft.allocation.solvers.fdma import solve_minmax
from raysoft.wireless.rates import LN2, rate


def instance(seed: int, clients: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Well conditioned: nobody is close to the rate that infinite bandwidth would give."""
    rng = np.random.default_rng(seed)
    start = rng.uniform(0.02, 0.2, clients)
    bits = rng.uniform(0.3, 1.5, clients) * 1e5
    snr = 10 ** rng.uniform(6.5, 8.5, clients)
    return start, bits, snr, 5e4 * clients


def conic(start, bits, snr, band, efficiency) -> float | None:
    """tau by cvxpy, bandwidths and times scaled to one; None where the solver does not claim optimality."""
    scale = float(np.max(start + bits / rate(band / len(bits), snr, efficiency)))
    b, tau = cp.Variable(len(bits)), cp.Variable()
    wanted = cp.multiply(bits / (band * scale), cp.inv_pos(tau - start / scale))  # rate over band
    constraints = [-cp.rel_entr(b, b + snr / band) >= LN2 * wanted, cp.sum(b) <= 1, b >= 0, tau >= start / scale]
    if math.isfinite(efficiency):
        constraints.append(efficiency * b >= wanted)
    problem = cp.Problem(cp.Minimize(tau), constraints)
    try:
        problem.solve(solver=cp.CLARABEL)
    except cp.SolverError:
        return None
    return float(tau.value) * scale if problem.status == "optimal" else None


@pytest.mark.parametrize("efficiency", [math.inf, 4.0])
def test_agrees_with_a_conic_solver(efficiency):
    solved = 0
    cases = [(seed, clients) for clients in (2, 5, 10, 20, 50) for seed in range(3)]
    for seed, clients in cases:
        data = instance(seed, clients)
        expected = conic(*data, efficiency)
        if expected is None:
            continue
        solved += 1
        assert float(solve_minmax(*data, efficiency).tau_s) == pytest.approx(expected, rel=1e-6)
    assert solved >= 0.7 * len(cases)


def check_optimality(start, bits, snr, band, efficiency, tolerance=1e-9):
    """Everybody with a payload finishes at tau and the band is used up: with rising rates nothing can be better."""
    best = solve_minmax(start, bits, snr, band, efficiency)
    finish = start + bits / rate(best.bandwidth_hz, snr, efficiency)
    assert np.abs(finish / best.tau_s - 1).max() < tolerance
    assert best.bandwidth_hz.sum() == pytest.approx(band, rel=tolerance)
    assert best.bandwidth_hz.sum() <= band * (1 + 1e-12)
    return best


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    clients=st.integers(1, 60),
    spread=st.floats(0, 4),
    load=st.floats(-2, 2),
    efficiency=st.sampled_from([1.0, 7.4, math.inf]),
)
def test_optimality_conditions(seed, clients, spread, load, efficiency):
    rng = np.random.default_rng(seed)
    start, bits = rng.uniform(0, 0.5, clients), rng.uniform(0.1, 1, clients) * 10 ** (5 + load)
    snr = 10 ** rng.uniform(6, 6 + spread, clients)
    # Clients close to their asymptote have ill-conditioned bandwidths: 1e-6 allows for them.
    check_optimality(start, bits, snr, 5e4 * clients, efficiency, tolerance=1e-6)


@pytest.mark.parametrize("clients", [1_000, 100_000, 1_000_000])
def test_optimality_conditions_at_scale(clients):
    best = check_optimality(*instance(1, clients), 7.4)
    assert best.steps <= 12


def test_one_client_takes_the_whole_band():
    best = solve_minmax([0.1], [1e5], [1e7], 1e6, 7.4)
    assert float(best.tau_s) == pytest.approx(0.1 + 1e5 / float(rate(1e6, 1e7, 7.4)), rel=1e-14)
    assert best.bandwidth_hz[0] == pytest.approx(1e6)


def test_inside_the_limit_it_is_a_closed_form():
    """With everybody limited and equal starts, airtime is sum S / (eta B)."""
    bits = np.array([1e5, 2e5, 3e5])
    best = solve_minmax(np.full(3, 0.25), bits, np.full(3, 1e12), 1e6, 5.0)
    assert float(best.tau_s) == pytest.approx(0.25 + 6e5 / 5e6, rel=1e-12)
    assert best.bandwidth_hz == pytest.approx(bits / bits.sum() * 1e6, rel=1e-12)


def test_clients_without_payload_are_waited_for_but_get_nothing():
    start, bits, snr = np.array([0.1, 5.0, 0.1]), np.array([1e5, 0.0, 2e5]), np.array([1e7, 0.0, 1e7])
    best = solve_minmax(start, bits, snr, 1e6, 7.4)
    assert float(best.tau_s) == 5.0
    assert best.bandwidth_hz[1] == 0.0
    assert best.bandwidth_hz.sum() < 1e6  # slack: the others need not be faster
    sent = [0, 2]
    assert start[sent] + bits[sent] / rate(best.bandwidth_hz[sent], snr[sent], 7.4) == pytest.approx([5.0, 5.0])
    quick = solve_minmax(np.array([0.1, 0.0, 0.1]), bits, snr, 1e6, 7.4)
    alone = solve_minmax(start[sent], bits[sent], snr[sent], 1e6, 7.4)
    assert float(quick.tau_s) == float(alone.tau_s)


def test_nobody_sends():
    assert float(solve_minmax([0.3, 0.7], [0.0, 0.0], [1.0, 1.0], 1e6).tau_s) == 0.7
    assert float(solve_minmax([], [], [], 1e6).tau_s) == 0.0


def test_close_to_the_asymptote():
    """One client needs nearly its limit a / ln 2: tau stays right although its bandwidth is ill-conditioned."""
    start, bits, snr = np.zeros(3), np.array([1e6, 1e3, 1e3]), np.array([1e5, 1e9, 1e9])
    best = solve_minmax(start, bits, snr, 1e9)
    asymptote = 1e6 * LN2 / 1e5
    assert asymptote < float(best.tau_s) < asymptote * (1 + 1e-3)
    assert best.bandwidth_hz.sum() <= 1e9 * (1 + 1e-12)
    assert bits / rate(best.bandwidth_hz, snr) == pytest.approx([float(best.tau_s)] * 3, rel=1e-9)


def test_many_problems_at_once_are_the_same_problems():
    rows = [instance(seed, 12)[:3] for seed in range(7)]
    start, bits, snr = (np.stack(x) for x in zip(*rows, strict=True))
    bits[3, 4:] = 0.0
    together = solve_minmax(start, bits, snr, 6e5, 7.4)
    for i in range(7):
        alone = solve_minmax(start[i], bits[i], snr[i], 6e5, 7.4)
        assert float(together.tau_s[i]) == pytest.approx(float(alone.tau_s), rel=1e-13)
        assert together.bandwidth_hz[i] == pytest.approx(alone.bandwidth_hz, rel=1e-7)


def test_more_band_is_faster_more_bits_are_slower():
    start, bits, snr, band = instance(5, 20)
    tau = float(solve_minmax(start, bits, snr, band, 7.4).tau_s)
    assert float(solve_minmax(start, bits, snr, 1.01 * band, 7.4).tau_s) < tau
    assert float(solve_minmax(start, 1.01 * bits, snr, band, 7.4).tau_s) > tau
    assert float(solve_minmax(start, bits, snr, band, 6.0).tau_s) >= tau


def test_a_payload_without_channel_is_refused():
    with pytest.raises(ValueError, match="no channel"):
        solve_minmax([0.0, 0.0], [1e5, 1e5], [1e6, 0.0], 1e6)
