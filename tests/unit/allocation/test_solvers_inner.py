"""The best use of a fixed round time: against a conic solver, duality, closed forms and finite differences."""

import math

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysoft.allocation.solvers.fdma import solve_minmax
from raysoft.allocation.solvers.inner import Problem, solve_inner
from raysoft.wireless.rates import LN2, rate, share_for_rate
from tests.unit.allocation.problems import linear_problem, random_problem

EFFICIENCIES = [math.inf, 7.4, 3.0]


def ends(problem: Problem) -> tuple[float, float]:
    """Round times at which everybody sends the least, and everything."""
    return tuple(
        float(
            solve_minmax(
                problem.start_s_K, problem.bits_KJ[:, j], problem.snr_hz_K, problem.bandwidth_hz, problem.max_efficiency
            ).tau_s
        )
        for j in (0, -1)
    )


def conic_penalty(problem: Problem, tau: float) -> float | None:
    """P(tau) by cvxpy; None where the solver does not claim optimality."""
    band, window = problem.bandwidth_hz, tau - problem.start_s_K
    least, most = problem.bits_KJ[:, 0], problem.bits_KJ[:, -1]
    b, y = cp.Variable(len(window)), cp.Variable(len(window))  # shares of the band; bits over the most
    wanted = cp.multiply(most / (window * band), y)
    constraints = [-cp.rel_entr(b, b + problem.snr_hz_K / band) >= LN2 * wanted, cp.sum(b) <= 1]
    constraints += [y <= 1, y >= least / most]
    if math.isfinite(problem.max_efficiency):
        constraints.append(problem.max_efficiency * b >= wanted)
    penalties = [
        cp.max(
            cp.hstack(
                [
                    problem.penalty_KJ[k, j] - problem.slope_KJ[k, j] * (most[k] * y[k] - problem.bits_KJ[k, j])
                    for j in range(problem.slope_KJ.shape[1])
                ]
            )
        )
        for k in range(len(window))
    ]
    model = cp.Problem(cp.Minimize(cp.sum(cp.hstack(penalties))), constraints)
    try:
        model.solve(solver=cp.CLARABEL)
    except cp.SolverError:
        return None
    return float(model.value) if model.status == "optimal" else None


@pytest.mark.parametrize("efficiency", EFFICIENCIES)
def test_agrees_with_a_conic_solver(efficiency):
    solved = 0
    for seed in range(8):
        problem = random_problem(seed, (2, 5, 10)[seed % 3], 6, efficiency)
        lo, hi = ends(problem)
        tau = lo + (0.1, 0.4, 0.8)[seed // 3] * (hi - lo)
        expected = conic_penalty(problem, tau)
        if expected is None:
            continue
        solved += 1
        assert solve_inner(problem, tau).penalty_G[0] == pytest.approx(expected, abs=2e-6)
    assert solved >= 6


def check_feasible_and_dual(problem: Problem, tau: float) -> None:
    """Primal feasible, and equal to a lower bound: sum_k min_y psi_k(y) + price b_k(y / T_k), minus price B.

    y runs over a fine grid in each segment that contains the solution, the knots and the end of the limit, so the bound
    is too high by the grid's error at most (1e-6 here).
    """
    inner = solve_inner(problem, tau)
    window, price = tau - problem.start_s_K, inner.price_G[0]
    bits, band = inner.bits_GK[0], inner.bandwidth_hz_GK[0]
    assert band.sum() <= problem.bandwidth_hz * (1 + 1e-12)
    assert np.all(bits <= window * rate(band, problem.snr_hz_K, problem.max_efficiency) * (1 + 1e-9))
    assert np.all(bits >= problem.bits_KJ[:, 0] * (1 - 1e-12))
    if price > 0:
        assert band.sum() == pytest.approx(problem.bandwidth_hz, rel=1e-9)
    dual = -price * problem.bandwidth_hz
    for k in range(len(window)):
        y = np.interp(
            np.linspace(0, problem.bits_KJ.shape[1] - 1, 40 * problem.bits_KJ.shape[1]),
            np.arange(problem.bits_KJ.shape[1]),
            problem.bits_KJ[k],
        )
        y = np.append(y, [bits[k], *np.clip(window[k] * problem.corner.rate_bps[k], y[0], y[-1:])])
        penalty = np.interp(y, problem.bits_KJ[k], problem.penalty_KJ[k])
        hertz = share_for_rate(y / window[k], np.full(len(y), problem.snr_hz_K[k]), problem.max_efficiency).bandwidth_hz
        dual += np.min(penalty + (price * hertz if price > 0 else 0.0))
    assert inner.penalty_G[0] == pytest.approx(dual, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    clients=st.integers(1, 12),
    knots=st.integers(2, 20),
    x=st.floats(0, 1.1),
    efficiency=st.sampled_from(EFFICIENCIES),
)
def test_strong_duality(seed, clients, knots, x, efficiency):
    problem = random_problem(seed, clients, knots, efficiency)
    lo, hi = ends(problem)
    check_feasible_and_dual(problem, lo + x * (hi - lo))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    clients=st.integers(1, 6),
    knots=st.integers(3, 12),
    x=st.floats(0, 1),
    equal=st.booleans(),
    efficiency=st.sampled_from(EFFICIENCIES),
)
def test_strong_duality_where_prices_tie(seed, clients, knots, x, equal, efficiency):
    """Segments of one price, in one menu (a convex hull has collinear pieces) and in many (equal clients)."""
    rng = np.random.default_rng(seed)
    width = rng.integers(1, 4, (clients, knots - 1)) * 1000.0
    slope = -np.sort(-rng.integers(1, 4, (clients, knots - 1)), axis=1) * 1e-5
    bits = np.concatenate([np.full((clients, 1), 500.0), 500.0 + np.cumsum(width, axis=1)], axis=1)
    fallen = np.concatenate([np.zeros((clients, 1)), np.cumsum(slope * width, axis=1)], axis=1)
    start, snr = rng.uniform(0, 0.3, clients), 10 ** rng.uniform(5.5, 8, clients)
    if equal:
        start, snr = np.full(clients, 0.1), np.full(clients, 1e8)
    problem = Problem(start, snr, bits, fallen[:, -1:] - fallen, 2e4 * clients, efficiency)
    lo, hi = ends(problem)
    check_feasible_and_dual(problem, lo + x * (hi - lo))


def test_inside_the_limit_it_is_a_fractional_knapsack():
    """Equal windows, everybody limited: bits are bought by penalty per bit, the last piece in part."""
    bits = np.array([[100.0, 300.0, 700.0], [100.0, 600.0, 700.0]])
    penalty = np.array([[1.0, 0.6, 0.2], [1.0, 0.5, 0.45]])  # per bit: 0.002, 0.001; 0.001, 0.0005
    problem = Problem(np.zeros(2), np.full(2, 1e12), bits, penalty, bandwidth_hz=100.0, max_efficiency=5.0)
    inner = solve_inner(problem, [0.4, 0.8, 1.6, 3.0])  # room for tau eta B = 200, 400, 800 and 1500 bits
    assert inner.bits_GK.sum(axis=1) == pytest.approx([200, 400, 800, 1400])
    assert inner.penalty_G == pytest.approx([2.0, 1.6, 1.2, 0.65], rel=1e-9)
    assert inner.price_G == pytest.approx([0.002 * 0.4 * 5, 0.002 * 0.8 * 5, 0.001 * 1.6 * 5, 0.0], rel=1e-9)


@pytest.mark.parametrize("efficiency", EFFICIENCIES)
def test_envelope_derivative_agrees_with_finite_differences(efficiency):
    """Away from kinks. At a kink the derivative lies between the one-sided differences."""
    smooth = 0
    for seed in range(6):
        problem = random_problem(seed, 6, 10, efficiency)
        lo, hi = ends(problem)
        tau = np.linspace(lo + 0.03 * (hi - lo), hi - 0.03 * (hi - lo), 15)
        step = 1e-6 * tau
        here, before, after = (solve_inner(problem, t) for t in (tau, tau - step, tau + step))
        left, right = (here.penalty_G - before.penalty_G) / step, (after.penalty_G - here.penalty_G) / step
        flat = np.abs(left - right) < 1e-4 * np.abs(left)
        smooth += np.count_nonzero(flat)
        assert here.slope_G[flat] == pytest.approx(0.5 * (left + right)[flat], rel=1e-4)
        between = (here.slope_G >= left - 1e-3 * np.abs(left)) & (here.slope_G <= right + 1e-3 * np.abs(left))
        assert np.all(between | flat)
    assert smooth > 60


def test_more_time_never_hurts_and_prices_are_not_negative():
    for efficiency in EFFICIENCIES:
        problem = random_problem(3, 8, 12, efficiency)
        lo, hi = ends(problem)
        inner = solve_inner(problem, np.linspace(lo, 1.05 * hi, 200))
        assert np.all(np.diff(inner.penalty_G) <= 1e-12)
        assert np.all(inner.price_G >= 0)
        assert np.all(inner.slope_G <= 0)


def test_the_ends():
    problem = random_problem(1, 6, 8, 7.4)
    lo, hi = ends(problem)
    inner = solve_inner(problem, [0.9 * lo, lo, hi, 2 * hi])
    assert math.isinf(inner.penalty_G[0])
    assert inner.slope_G[0] == -math.inf
    assert inner.bits_GK[1] == pytest.approx(problem.bits_KJ[:, 0], rel=1e-6)
    assert inner.bits_GK[2] == pytest.approx(problem.bits_KJ[:, -1], rel=1e-6)
    assert inner.bits_GK[3] == pytest.approx(problem.bits_KJ[:, -1], rel=1e-12)
    assert inner.price_G[3] == 0.0


def test_bits_without_value_are_sent_only_if_everything_fits():
    bits, penalty = np.array([[100.0, 200.0, 400.0]]), np.array([[1.0, 0.0, 0.0]])
    problem = Problem(np.zeros(1), np.array([1e12]), bits, penalty, bandwidth_hz=100.0, max_efficiency=1.0)
    inner = solve_inner(problem, [1.5, 3.0, 4.5])
    assert inner.bits_GK[:, 0] == pytest.approx([150.0, 200.0, 400.0])
    assert inner.price_G == pytest.approx([0.01 * 1.5, 0.0, 0.0])


def test_block_size_and_company_do_not_matter():
    problem = random_problem(4, 9, 14, 7.4)
    lo, hi = ends(problem)
    tau = np.linspace(lo, hi, 31)
    together = solve_inner(problem, tau)
    alone = [solve_inner(problem, t) for t in tau]
    assert together.penalty_G == pytest.approx([x.penalty_G[0] for x in alone], rel=1e-9)
    assert together.price_G == pytest.approx([x.price_G[0] for x in alone], rel=1e-6)


def test_linear_penalties_are_one_segment():
    problem = linear_problem(2, 4, 0.5)
    lo, hi = ends(problem)
    check_feasible_and_dual(problem, 0.5 * (lo + hi))


def test_bad_menus_are_refused():
    with pytest.raises(ValueError, match="convex"):
        Problem(np.zeros(1), np.ones(1), np.array([[1.0, 2.0, 3.0]]), np.array([[1.0, 0.9, 0.0]]), 1.0)
    with pytest.raises(ValueError, match="above zero"):
        Problem(np.zeros(1), np.ones(1), np.array([[0.0, 2.0]]), np.array([[1.0, 0.0]]), 1.0)
    with pytest.raises(ValueError, match="two knots"):
        Problem(np.zeros(1), np.ones(1), np.array([[1.0]]), np.array([[1.0]]), 1.0)
