"""Min-max latency over an FDMA uplink: the fastest round for given payloads.

    minimise tau   subject to   t_k + S_k / R_k(b_k) <= tau,   sum_k b_k <= B,   b_k >= 0.

At the optimum every client with S_k > 0 finishes at tau and the bandwidth is used up, unless clients without payload
alone decide (tau = max t_k). So tau is the root of F(tau) = sum_k b_k(tau) - B, b_k(tau) = R_k^-1(S_k / (tau - t_k)).
R is concave and increasing, its inverse convex and increasing, S / (tau - t) convex and decreasing: F is convex and
decreasing, with or without the spectral-efficiency limit. Below `tau_asy = max_k (t_k + S_k ln2 / a_k)` no bandwidth
is enough. Newton on 1/sum b - 1/B is nearly linear, but not provably safe, hence the bracket; Newton on F from the left
never oversteps and bounds the root from below. O(K) a step, 3 to 8 steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from raysoft.types import Array
from raysoft.wireless.rates import LN2, rate, share_for_rate

_STEPS = 100
_TOLERANCE = 1e-13


@dataclass(frozen=True)
class MinMax:
    """The fastest round: its end [s], shape [...], and each client's bandwidth [Hz], shape [..., K]."""

    tau_s: Array
    bandwidth_hz: Array
    steps: int


def solve_minmax(
    start_s: ArrayLike, bits: ArrayLike, snr_hz: ArrayLike, bandwidth_hz: float, max_efficiency: float = math.inf
) -> MinMax:
    """Solve one problem (arrays [K]) or many at once ([..., K], broadcast); clients with bits = 0 get no bandwidth.

    start_s: when each client's upload may begin; bits: payload on the air; snr_hz: a_k; bandwidth_hz: B;
    max_efficiency: eta [bit/s/Hz]. tau is accurate to about 1e-12 relative; where a client is close to its asymptote
    its bandwidth is ill-conditioned, so compare tau, not b. Without any client tau is 0.
    Raises ValueError where a payload meets a_k <= 0, which no bandwidth can serve.
    """
    t, S, a = np.broadcast_arrays(*(np.asarray(x, np.float64) for x in (start_s, bits, snr_hz)))
    shape = t.shape
    if np.any((S > 0) & ~(a > 0)):
        raise ValueError("a client with payload has no channel (a_k <= 0); leave it out first")
    if shape[-1] == 0:
        return MinMax(np.zeros(shape[:-1]), np.zeros(shape), 0)
    t, S, a = (x.reshape(-1, shape[-1]) for x in (t, S, a))
    tau, b, steps = _solve_rows(t, S, a, bandwidth_hz, max_efficiency)
    return MinMax(tau.reshape(shape[:-1]), b.reshape(shape), steps)


def _solve_rows(t: Array, S: Array, a: Array, B: float, eta: float) -> tuple[Array, Array, int]:
    """Rows are problems: arrays [M, K] -> tau [M], b [M, K]."""
    need = S > 0
    floor = t.max(axis=1)  # clients without payload must be waited for, too
    a = np.where(need, a, 1.0)
    count = np.maximum(need.sum(axis=1, keepdims=True), 1)
    asymptote = np.where(need, t + S * LN2 / a, -np.inf).max(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        equal_split = np.where(need, t + S / rate(B / count, a, eta), -np.inf).max(axis=1)
        alone = np.where(need, t + S / rate(B, a, eta), -np.inf).max(axis=1)  # each with everything: a lower bound
    idle = ~need.any(axis=1)
    lo, hi, base = (np.where(idle, floor, x) for x in (alone, equal_split, asymptote))
    tau = lo.copy()
    done = idle.copy()
    steps = 0
    while not done.all() and steps < _STEPS:
        steps += 1
        used, slope = _demand(tau, t, S, a, need, eta)
        above = used > B
        lo = np.where(above & ~done, tau, lo)
        hi = np.where(~above & ~done, tau, hi)
        proposal, newton = _next_tau(tau, used, slope, B, lo, hi, base)
        move = np.abs(proposal - tau)
        # Newton converges quadratically in the distance to the asymptote: this move was the last one that matters.
        small = (newton & (move <= 1e-10 * (tau - base))) | (move <= _TOLERANCE * np.abs(tau))
        exact = np.abs(used - B) <= _TOLERANCE * B
        tau = np.where(done | exact, tau, proposal)
        done |= small | exact
    tau = np.maximum(tau, floor)
    return tau, _bandwidths(tau, t, S, a, need, B, eta), steps


def _demand(tau: Array, t: Array, S: Array, a: Array, need: Array, eta: float) -> tuple[Array, Array]:
    """Total bandwidth that ends the round at tau, and its derivative in tau; inf where impossible."""
    window = tau[:, None] - t
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        wanted = np.where(need, np.where(window > 0, S / window, np.inf), 0.0)
        share = share_for_rate(wanted, a, eta)
        slope = np.where(need, -wanted / (window * share.marginal), 0.0).sum(axis=1)
    return np.where(need, share.bandwidth_hz, 0.0).sum(axis=1), slope


def _next_tau(
    tau: Array, used: Array, slope: Array, B: float, lo: Array, hi: Array, base: Array
) -> tuple[Array, Array]:
    """A Newton step that stays in the bracket, else bisection (in log distance to the asymptote); and which it is."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        step = (B - used) / slope
        proposal = tau + step * used / B  # Newton on 1/used - 1/B
        proposal = np.where(used > B, np.fmax(proposal, tau + step), proposal)
        middle = np.where(lo > base, base + np.sqrt((lo - base) * (hi - base)), 0.5 * (lo + hi))
    # The root may be an end of the bracket (equal clients share equally): forgive rounding.
    clipped = np.clip(proposal, lo, hi)
    newton = np.abs(proposal - clipped) <= 1e-12 * np.abs(tau)
    newton &= (clipped != tau) | (np.abs(proposal - tau) <= _TOLERANCE * np.abs(tau))
    return np.where(newton, clipped, middle), newton


def _bandwidths(tau: Array, t: Array, S: Array, a: Array, need: Array, B: float, eta: float) -> Array:
    """Bandwidths that end the round at tau; never more than B in total."""
    window = tau[:, None] - t
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        b = np.where(need, share_for_rate(np.where(need, S / window, 0.0), a, eta).bandwidth_hz, 0.0)
    lost = ~np.isfinite(b).all(axis=1)
    b[lost] = np.where(np.isfinite(b[lost]), b[lost], B)  # tau equals the asymptote in double precision
    total = b.sum(axis=1, keepdims=True)
    return b * np.where(total > B, B / np.maximum(total, 1e-300), 1.0)
