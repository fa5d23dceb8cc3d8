"""From menus to the continuous problem and back: hull, rounding, slack."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import ConvexHull

from raysoft.allocation.solvers.fdma import solve_minmax
from raysoft.allocation.solvers.inner import Problem, solve_inner
from raysoft.allocation.solvers.menus import Menus, convex_knots, round_to_menu
from raysoft.allocation.solvers.online import solve_online
from raysoft.types import Curve
from tests.unit.allocation.problems import masked_curve


def round_of(seed: int, clients: int, units: int, efficiency: float = 7.4) -> tuple[Problem, Menus, np.ndarray]:
    rng = np.random.default_rng(1000 + seed)
    curves = tuple(masked_curve(10 * seed + k, units - k % 3, fixed=100 * (k % 2)) for k in range(clients))
    menus = Menus.of(curves, 0.05, 1.0)
    penalty = menus.penalty(np.full(clients, 1 / clients))
    bits, convex = convex_knots(menus, penalty)
    start, snr = rng.uniform(0.05, 0.2, clients), 10 ** rng.uniform(5.5, 8.5, clients)
    return Problem(start, snr, bits, convex, 2e4 * clients, efficiency), menus, penalty


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), points=st.integers(3, 40))
def test_hull_is_the_lower_convex_hull(seed, points):
    """Any decreasing menu, however bent, against Qhull."""
    rng = np.random.default_rng(seed)
    bits = np.concatenate([[0.0], np.cumsum(rng.uniform(0.2, 3.0, points - 1))])
    error = np.sort(rng.uniform(0, 1, points))[::-1]
    menus = Menus(bits[None] + 1.0, error[None], np.array([points - 1]), np.array([0]))
    knots, convex = convex_knots(menus, error[None])
    cloud = np.stack([bits, error], axis=1)
    corners = np.unique(ConvexHull(np.vstack([cloud, [[bits[0], 9.0], [bits[-1], 9.0]]])).vertices)
    corners = corners[corners < points]
    assert convex[0] == pytest.approx(np.interp(bits, bits[corners], error[corners]), abs=1e-12)
    assert knots[0] == pytest.approx(bits + 1.0)


def test_the_least_is_rounded_up_and_the_hull_starts_there():
    curve = Curve(50, np.array([0, 10, 30, 60, 100]), np.array([10.0, 6.0, 3.0, 1.0, 0.0]))
    for fraction, least in ((0.01, 1), (0.1, 1), (0.11, 2), (0.3, 2), (0.31, 3), (1.0, 4)):
        menus = Menus.of((curve,), fraction, 2.0)
        assert menus.least_K.tolist() == [least]
        knots, _ = convex_knots(menus, menus.penalty(np.ones(1)))
        assert knots[0, 0] == 2.0 * (50 + curve.bits_J[least])
        assert knots[0, -1] == 2.0 * 150


def test_a_fixed_fraction_is_rounded_down_but_never_to_nothing():
    curve = Curve(50, np.array([0, 10, 30, 60, 100]), np.array([10.0, 6.0, 3.0, 1.0, 0.0]))
    menus = Menus.of((curve,) * 5, 0.05, 3.0)
    units = menus.fraction(np.array([0.05, 0.1, 0.59, 0.6, 1.0]), np.full(5, 150.0))
    assert units.tolist() == [1, 1, 2, 3, 4]


def test_padding_of_unequal_menus():
    menus = Menus.of((masked_curve(0, 5), masked_curve(1, 12), Curve(7, np.array([0]), np.array([0.0]))), 0.05, 1.0)
    assert menus.units_K.tolist() == [5, 12, 0]
    assert menus.least_K.tolist()[2] == 0
    assert np.all(menus.bits_KJ[0, 5:] == menus.bits_KJ[0, 5])
    assert menus.bits(menus.units_K).tolist()[2] == 7.0
    assert Menus.of((Curve(0, np.array([0]), np.array([0.0])),), 0.05, 1.0).bits_KJ.min() == 1.0  # never no message


def test_penalties_are_relative_to_the_cohorts_mean_energy():
    curves = (masked_curve(0, 6), masked_curve(1, 6))
    weights = np.array([0.3, 0.7])
    penalty = Menus.of(curves, 0.05, 1.0).penalty(weights)
    energy = 0.3 * curves[0].error_J[0] + 0.7 * curves[1].error_J[0]
    assert penalty[:, 0].sum() == pytest.approx(1.0)
    assert penalty[1] == pytest.approx(0.7 * curves[1].error_J / energy)
    silent = Menus.of((Curve(0, np.array([0, 5]), np.array([0.0, 0.0])),), 0.05, 1.0)
    assert silent.penalty(np.ones(1)).tolist() == [[0.0, 0.0]]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**5),
    clients=st.integers(1, 10),
    units=st.integers(3, 40),
    x=st.floats(0, 1),
    efficiency=st.sampled_from([7.4, 3.0, math.inf]),
)
def test_rounding_keeps_the_round_time_and_wastes_nothing(seed, clients, units, x, efficiency):
    problem, menus, penalty = round_of(seed, clients, units, efficiency)
    floor, ceiling = (
        float(
            solve_minmax(
                problem.start_s_K, problem.bits_KJ[:, j], problem.snr_hz_K, problem.bandwidth_hz, efficiency
            ).tau_s
        )
        for j in (0, -1)
    )
    tau = floor * (1 + 1e-9) + x * (ceiling - floor)
    inner = solve_inner(problem, tau)
    chosen, slack = round_to_menu(problem, menus, penalty, inner.bits_GK[0], tau)
    assert np.all(chosen >= menus.least_K)
    assert np.all(chosen <= menus.units_K)
    assert 0.0 <= slack <= 1.0

    def end(units_K):
        return float(
            solve_minmax(
                problem.start_s_K, menus.bits(units_K), problem.snr_hz_K, problem.bandwidth_hz, efficiency
            ).tau_s
        )

    assert end(chosen) <= tau * (1 + 1e-8)
    for k in np.flatnonzero(chosen < menus.units_K):  # no further unit fits
        assert end(chosen + (np.arange(clients) == k)) > tau * (1 - 1e-8)


def test_rounding_is_close_to_the_best_units_there_are():
    """Against every combination of units at the same round time; the continuous optimum bounds both from below."""
    excess = []
    for seed in range(12):
        problem, menus, penalty = round_of(seed, 3, 9)
        best = solve_online(problem, 1.0, 1.5)
        chosen, _ = round_to_menu(problem, menus, penalty, best.bits_K, best.tau_s)
        rounded = penalty[np.arange(3), chosen].sum()
        every = np.array(list(itertools.product(*[range(menus.least_K[k], menus.units_K[k] + 1) for k in range(3)])))
        ends = solve_minmax(
            problem.start_s_K,
            menus.bits_KJ[np.arange(3), every],
            problem.snr_hz_K,
            problem.bandwidth_hz,
            problem.max_efficiency,
        ).tau_s
        fits = ends <= best.tau_s * (1 + 1e-8)
        optimum = penalty[np.arange(3), every[fits]].sum(axis=1).min()
        assert best.penalty <= optimum + 1e-9 <= rounded + 2e-9
        # Rounding loses at most one unit a client (and here much less).
        one_unit = (-np.diff(penalty, axis=1)).max(axis=1).sum()
        assert rounded - optimum <= one_unit
        excess.append(rounded - optimum)
    assert np.mean(excess) < 0.03
    assert np.count_nonzero(np.array(excess) < 1e-9) >= 4
