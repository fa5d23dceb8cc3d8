"""Menus of a cohort as padded arrays, their convex part, and the way back to whole units.

A codec's curve counts real bits, so it is not exactly convex (the cost of a mask bends it). The continuous problem uses
the lower convex hull, from the least allowed unit on; its solution is rounded to the real menu: down to a unit that
fits, then up again, unit by unit, where a hertz lowers the penalty most, as long as the round time holds.
Shapes: K clients, J menu points (padded by repeating the last one).
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from raysoft.allocation.solvers.inner import Problem
from raysoft.types import Array, Curve
from raysoft.wireless.rates import share_for_rate


@dataclass(frozen=True)
class Menus:
    """What each client may send. `bits_KJ` is on the air (fixed part and payload_scale included), never below one."""

    bits_KJ: Array
    error_KJ: Array  # squared error as reported
    units_K: Array  # keep everything
    least_K: Array  # smallest number of units allowed

    @classmethod
    def of(cls, curves: tuple[Curve, ...], min_fraction: float, payload_scale: float) -> Menus:
        """Pad the curves. The least: `min_fraction` of the variable bits, rounded up to the menu, and one unit."""
        units = np.array([curve.units for curve in curves], dtype=np.int64)
        J = max(2, int(units.max(initial=0)) + 1)
        at = np.minimum(np.arange(J), units[:, None])
        bits, error = np.empty((len(curves), J)), np.empty((len(curves), J))
        for k, curve in enumerate(curves):
            bits[k] = np.asarray(curve.bits_J, np.float64)[at[k]]
            error[k] = np.asarray(curve.error_J, np.float64)[at[k]]
        least = units_at_least(bits, min_fraction * bits[:, -1:])
        least = np.minimum(np.maximum(least, 1), units)
        fixed = np.array([curve.fixed_bits for curve in curves], dtype=np.float64)
        return cls(np.maximum((fixed[:, None] + bits) * payload_scale, 1.0), error, units, least)

    def fraction(self, fraction_K: Array, fixed_K: Array) -> Array:
        """Units whose variable bits stay within a fraction of all of them (rounded down), at least one."""
        variable = self.bits_KJ - fixed_K[:, None]
        within_K = units_within(variable, fraction_K[:, None] * variable[:, -1:])
        units_K: Array = np.minimum(np.maximum(within_K, 1), self.units_K)
        return units_K

    def bits(self, units_K: Array) -> Array:
        """Bits on the air of a number of units a client, [K]."""
        return np.take_along_axis(self.bits_KJ, units_K[:, None], axis=1)[:, 0]

    def error(self, units_K: Array) -> Array:
        """Squared error that a number of units leaves, [K]."""
        return np.take_along_axis(self.error_KJ, units_K[:, None], axis=1)[:, 0]

    def take(self, index: Array) -> Menus:
        """The menus of some of the clients."""
        return Menus(self.bits_KJ[index], self.error_KJ[index], self.units_K[index], self.least_K[index])

    def penalty(self, weights_K: Array) -> Array:
        """Weighted error of every menu point over the cohort's mean energy sum p_k E_k, [K, J] (0/0 is 0)."""
        energy = float(weights_K @ self.error_KJ[:, 0])
        penalty_KJ: Array = weights_K[:, None] * self.error_KJ / (energy if energy > 0 else 1.0)
        return penalty_KJ


def units_at_least(bits_KJ: Array, target_K1: Array) -> Array:
    """Smallest index with at least this many bits (up to rounding), [K]."""
    units_K: Array = np.count_nonzero(bits_KJ < target_K1 * (1.0 - 1e-12), axis=1)
    return units_K


def units_within(bits_KJ: Array, target_K1: Array) -> Array:
    """Largest index with at most this many bits (up to rounding), [K]; -1 if none."""
    units_K: Array = np.count_nonzero(bits_KJ <= target_K1 * (1.0 + 1e-9) + 1e-9, axis=1) - 1
    return units_K


def convex_knots(menus: Menus, penalty_KJ: Array) -> tuple[Array, Array]:
    """Bits and penalty [K, J] of the lower convex hull from the least unit on; a hull point lies at every menu point.

    The hull's slopes are the isotonic regression of the menu's slopes, weighted by their widths (pool adjacent
    violators); most menus are convex already and cost nothing.
    """
    J = menus.bits_KJ.shape[1]
    at = np.minimum(menus.least_K[:, None] + np.arange(J), menus.units_K[:, None])
    bits, penalty = np.take_along_axis(menus.bits_KJ, at, axis=1), np.take_along_axis(penalty_KJ, at, axis=1)
    width, drop = np.diff(bits, axis=1), -np.diff(penalty, axis=1)
    slope = np.where(width > 0, drop / np.where(width > 0, width, 1.0), 0.0)
    real = width > 0
    bent = np.any(real[:, 1:] & (np.diff(slope, axis=1) > 0), axis=1) | np.any(slope < 0, axis=1)
    if bent.any():
        from scipy.optimize import isotonic_regression  # 0.3 s to import: not where only a configuration is checked

        for k in np.flatnonzero(bent):
            n = np.count_nonzero(real[k])
            slope[k, :n] = isotonic_regression(slope[k, :n], weights=width[k, :n], increasing=False).x
    slope = np.maximum(slope, 0.0)
    fallen = np.concatenate([np.zeros((len(bits), 1)), np.cumsum(slope * width, axis=1)], axis=1)
    return bits, penalty[:, :1] - fallen


def round_to_menu(
    problem: Problem, menus: Menus, penalty_KJ: Array, bits_K: Array, tau_s: float
) -> tuple[Array, float]:
    """Whole units [K] for the continuous `bits_K`, and the share of the bandwidth then left over at tau.

    Down to the menu (never below the least units); then the bandwidth that this sets free is spent greedily, on the
    next unit that lowers the penalty most per hertz. The needed bandwidth at `tau_s` never exceeds B, so a min-max
    allocation of the result ends by tau.
    """
    units = np.clip(units_within(menus.bits_KJ, bits_K[:, None]), menus.least_K, menus.units_K)
    window = (tau_s - problem.start_s_K)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        hertz = share_for_rate(menus.bits_KJ / window, problem.snr_hz_K[:, None], problem.max_efficiency).bandwidth_hz
    slack = problem.bandwidth_hz - float(np.take_along_axis(hertz, units[:, None], axis=1).sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        cost = np.diff(hertz, axis=1)
        gain = -np.diff(penalty_KJ, axis=1) / cost
    heap: list[tuple[float, int]] = []
    for client in np.flatnonzero(units < menus.units_K).tolist():
        _offer(heap, client, units, gain, cost)
    heapq.heapify(heap)
    while heap:
        _, k = heapq.heappop(heap)
        if cost[k, units[k]] > slack:
            continue  # slack only shrinks: this client is done
        slack -= cost[k, units[k]]
        units[k] += 1
        if units[k] < menus.units_K[k]:
            _offer(heap, k, units, gain, cost, push=True)
    return units, max(slack, 0.0) / problem.bandwidth_hz


def _offer(heap: list[tuple[float, int]], k: int, units: Array, gain: Array, cost: Array, push: bool = False) -> None:
    """Add client k's next unit, if any bandwidth can carry it."""
    if np.isfinite(cost[k, units[k]]):
        item = (-float(gain[k, units[k]]), k)
        heapq.heappush(heap, item) if push else heap.append(item)
