"""One round of drift plus penalty: how long the round takes, and what every client sends in it.

    minimise J(tau) = V P(tau) + z tau   over   tau_lo <= tau <= tau_hi,

P from `inner.py`, z the drift per second (queue), tau_lo and tau_hi the min-max latencies when everybody sends the
least, or everything. P does not increase, but J is *not* convex in general: with linear penalties and no limit active,
what can be kept is a maximum of functions affine in tau, hence convex, so P is concave there; kinks at the knots add
local minima, too. So: a grid, denser at its fast end, then a safeguarded search in every cell in which the derivative
(envelope theorem) changes from falling to rising.

Certificate: P does not increase, so J >= V P(tau_2) + z tau_1 on [tau_1, tau_2]. Branch and bound on this bound makes
the gap as small as wanted; without it the gap that the evaluated points prove is still reported.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raysoft.allocation.solvers.fdma import solve_minmax
from raysoft.allocation.solvers.inner import Problem, solve_inner
from raysoft.types import Array

GRID = 24
_REFINEMENTS = 40
_HALVED = 8
_EVEN = 5
_BATCH = 64
_NEAR = 0.05  # of a segment


@dataclass(frozen=True)
class Solution:
    """The round that minimises J. Nothing in it is rounded to a client's real menu yet."""

    tau_s: float
    bits_K: Array
    bandwidth_hz_K: Array
    penalty: float  # P(tau)
    price: float  # lambda [penalty / Hz]
    objective: float  # J(tau)
    gap: float  # proven: (J - lower bound) / |J|
    floor_s: float  # tau_lo
    ceiling_s: float  # tau_hi
    evaluations: int  # round times at which P was computed


class _Search:
    """All evaluated points (tau, P, dJ/dtau), sorted by tau, and the optimum at the best of them."""

    def __init__(self, problem: Problem, v: float, drift: float) -> None:
        self.problem, self.v, self.drift = problem, v, drift
        self.tau, self.penalty, self.slope = np.empty(0), np.empty(0), np.empty(0)
        self.best_objective, self.best_tau = np.inf, np.nan
        self.best: tuple[Array, Array, float, float] | None = None  # bits, bandwidth, penalty, price

    def add(self, tau: Array) -> None:
        """Evaluate more round times."""
        tau = np.setdiff1d(tau, self.tau)
        if tau.size == 0:
            return
        inner = solve_inner(self.problem, tau)
        objective = self.v * inner.penalty_G + self.drift * tau
        i = int(np.argmin(objective))
        if objective[i] < self.best_objective:
            self.best_objective, self.best_tau = float(objective[i]), float(tau[i])
            self.best = (
                inner.bits_GK[i].copy(),
                inner.bandwidth_hz_GK[i].copy(),
                float(inner.penalty_G[i]),
                float(inner.price_G[i]),
            )
        place = np.searchsorted(self.tau, tau)
        self.tau = np.insert(self.tau, place, tau)
        self.penalty = np.insert(self.penalty, place, inner.penalty_G)
        self.slope = np.insert(self.slope, place, self.drift + self.v * inner.slope_G)

    @property
    def objective(self) -> Array:
        """J at the evaluated points."""
        return self.v * self.penalty + self.drift * self.tau

    @property
    def bound(self) -> Array:
        """Lower bound of J on each cell between neighbours."""
        return self.v * self.penalty[1:] + self.drift * self.tau[:-1]

    def solution(self, floor: float, ceiling: float) -> Solution:
        """The best point, and the gap that all points prove."""
        assert self.best is not None
        bits, bandwidth, penalty, price = self.best
        lowest = float(self.bound.min(initial=np.inf))
        gap = max(0.0, self.best_objective - lowest) / max(abs(self.best_objective), 1e-300)
        return Solution(
            tau_s=self.best_tau,
            bits_K=bits,
            bandwidth_hz_K=bandwidth,
            penalty=penalty,
            price=price,
            objective=self.best_objective,
            gap=gap,
            floor_s=floor,
            ceiling_s=ceiling,
            evaluations=len(self.tau),
        )


def fastest_s(problem: Problem, everything: bool = False) -> float:
    """The shortest round time in which all send the least, or everything."""
    bits = problem.bits_KJ[:, -1] if everything else problem.bits_KJ[:, 0]
    band = (problem.bandwidth_hz, problem.max_efficiency)
    return float(solve_minmax(problem.start_s_K, bits, problem.snr_hz_K, *band).tau_s)


def solve_online(
    problem: Problem,
    v: float,
    drift_per_s: float,
    certify: float | None = None,
    longest_s: float | None = None,
    tolerance: float = 1e-6,
) -> Solution:
    """Minimise v P(tau) + drift_per_s tau over the round time. v > 0, drift_per_s >= 0.

    certify: prove this relative gap by branch and bound (1e-4 takes some hundred evaluations); None: grid and
    refinement only, the gap they prove is a few percent, the true one nearly always below `tolerance`, the relative
    accuracy of J at which a local search stops. longest_s: no round longer than this, unless the least takes longer.
    Without drift everything is kept and the round takes tau_hi (or longest_s).
    """
    floor = fastest_s(problem)
    ceiling = max(fastest_s(problem, everything=True), floor)
    last = ceiling if longest_s is None else min(ceiling, max(floor, longest_s))
    search = _Search(problem, v, drift_per_s)
    if drift_per_s <= 0:
        search.add(np.array([last]))
        return search.solution(floor, ceiling)
    search.add(floor + (last - floor) * np.linspace(0.0, 1.0, GRID) ** 2)
    _refine_all(search, tolerance)
    if certify is not None:
        _branch_and_bound(search, certify)
        _refine_all(search, tolerance)
    _snap(search, last)
    return search.solution(floor, ceiling)


def _refine_all(search: _Search, tolerance: float) -> None:
    """Narrow every cell that holds a local minimum and may still beat the best point.

    Points of a step: the root of the secant through the derivatives (right where J is smooth), the meeting point of the
    tangents (right where J has a kink), and a few evenly spaced ones (safe). The first step also halves the cells with
    the lowest bounds, in case a dip hides between two points of the grid: a batch costs little more than one point.
    """
    for step in range(_REFINEMENTS):
        J, D, tau = search.objective, search.slope, search.tau
        width, bound = np.diff(tau), search.bound
        best = J.min()
        left, right = D[:-1], D[1:]
        with np.errstate(divide="ignore", invalid="ignore"):
            secant = -left * width / (right - left)
            meet = (J[1:] - J[:-1] - right * width) / (left - right)
            reachable = J[:-1] + left * meet  # a bound only where J is convex: used to stop, never to certify
        reachable = np.where(np.isfinite(reachable), reachable, -np.inf)
        dips = (left < 0) & (right >= 0) & (width > 1e-13 * tau[1:]) & (bound < best)
        cells = np.flatnonzero(dips & (reachable < best - tolerance * abs(best)))
        more = np.empty(0)
        if step == 0:
            rest = np.argsort(bound + np.where(dips, np.inf, 0.0), kind="stable")[:_HALVED]
            more = (tau[rest] + 0.5 * width[rest])[bound[rest] < best]
        elif cells.size == 0:
            return
        inner = np.linspace(0.0, 1.0, _EVEN + 2)[1:-1] if cells.size <= 2 else np.array([0.5])
        offset = np.concatenate([np.stack([secant[cells], meet[cells]], axis=1), width[cells, None] * inner], axis=1)
        inside = (offset > 0) & (offset < width[cells, None])
        search.add(np.unique(np.concatenate([(tau[cells, None] + offset)[inside], more])))


def _snap(search: _Search, last: float) -> None:
    """Try the kink next to the best point: the round time at which everybody's bits lie exactly on knots.

    There J has its local minima inside the spectral-efficiency limit; stopping a little short of one would cost a whole
    unit when bits are rounded down to the menu. Clients that rest at the end of their limit keep that bandwidth.
    """
    assert search.best is not None
    problem, (bits, bandwidth, _, _) = search.problem, search.best
    resting = np.abs(bandwidth - problem.corner.bandwidth_hz) <= 1e-9 * bandwidth
    k = np.arange(len(bits))
    segment = np.clip(np.count_nonzero(problem.bits_KJ <= bits[:, None], axis=1) - 1, 0, problem.slope_KJ.shape[1] - 1)
    low, high = problem.bits_KJ[k, segment], problem.bits_KJ[k, segment + 1]
    margin = _NEAR * (high - low)
    near_low, near_high = bits <= low + margin, bits >= high - margin
    left_over = problem.bandwidth_hz - bandwidth[resting].sum()
    if not np.all(near_low | near_high | resting) or resting.all() or left_over <= 0:
        return
    payload = np.where(resting, 0.0, np.where(near_high, high, low))
    start = np.where(resting, 0.0, problem.start_s_K)
    tau = float(solve_minmax(start, payload, problem.snr_hz_K, left_over, problem.max_efficiency).tau_s)
    if tau <= last:
        search.add(np.array([min(tau * (1.0 + 1e-13), last)]))


def _branch_and_bound(search: _Search, relative: float) -> None:
    """Halve the cells with the lowest bounds until none is below the best point by more than the wanted gap."""
    while True:
        best = search.objective.min()
        width = np.diff(search.tau)
        short = (search.bound < best - relative * abs(best)) & (width > 1e-14 * search.tau[1:])
        cells = np.flatnonzero(short)
        if cells.size == 0:
            return
        cells = cells[np.argsort(search.bound[cells], kind="stable")[:_BATCH]]
        search.add(search.tau[cells] + 0.5 * width[cells])
