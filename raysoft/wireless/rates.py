"""Scalar identities of one FDMA share, elementwise in float64: rate, marginal rate and their inverses.

With `a = P g / (Gamma N0)` [Hz] and `u = ln(1 + a/b)` [nat], a client with b hertz has

    b = a / (e^u - 1)      r(b) = b u / ln 2      r'(b) = rho(u) / ln 2,   rho(u) = u - 1 + e^-u.

An implementation reaches at most eta bit/s/Hz, so its rate is `R(b) = b min(eta, log2(1 + a/b))`, concave with one kink
at `b_c = a / (2^eta - 1)`: the marginal rate is eta below it and drops to `rho(eta ln 2) / ln 2 = eta - (1 - 2^-eta) /
ln 2` above it. Its inverse is `b(R) = max(r^-1(R), R / eta)`: convex, with slope 1/eta below `R_c = eta b_c` and
ln 2 / rho(u) above. `eta = inf` is Shannon's rate: b_c = R_c = 0, nothing is ever at the limit.

Both inverses are one variable problems solved by Halley's method from a starting point that is right at both ends:
- load c = R ln2 / a:   u / (e^u - 1) = c,  i.e.  phi(u) = ln((e^u - 1) / u) = -ln c. phi is the cumulant function of
  the uniform distribution on (0, 1), so it is convex with slope between 1/2 and 1. (In Lambert's function: the branch
  W_-1; Newton is preferred because W loses digits at its branch point.)
- marginal q = r' ln2:  rho(u) = q.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from raysoft.types import Array

LN2 = math.log(2.0)
BLOCK = 16_384  # elements worked on at once: temporaries stay in the cache
_TINY = 1e-300


class Share(NamedTuple):
    """Bandwidth [Hz] of a client and its right marginal rate R'(b+) [bit/s/Hz]; shapes as the input."""

    bandwidth_hz: Array
    marginal: Array


class Limit(NamedTuple):
    """Where the spectral-efficiency limit of each client ends: bandwidth b_c [Hz] and rate R_c [bit/s]."""

    bandwidth_hz: Array
    rate_bps: Array
    nats: float  # u_c = eta ln 2


def limit(snr_hz: ArrayLike, max_efficiency: float) -> Limit:
    """The kink of R(b). `max_efficiency` in bit/s/Hz, inf for none."""
    a = np.asarray(snr_hz, dtype=np.float64)
    if math.isinf(max_efficiency):
        return Limit(np.zeros_like(a), np.zeros_like(a), math.inf)
    nats = max_efficiency * LN2
    corner = a * math.exp(-nats) / -math.expm1(-nats)
    return Limit(corner, max_efficiency * corner, nats)


def rate(bandwidth_hz: ArrayLike, snr_hz: ArrayLike, max_efficiency: float = math.inf) -> Array:
    """R(b) [bit/s]; zero where b or a is zero, a/ln 2 for infinite b. Shapes broadcast."""
    b, a = np.broadcast_arrays(np.asarray(bandwidth_hz, np.float64), np.asarray(snr_hz, np.float64))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        shannon = np.where(np.isinf(b), a / LN2, b * np.log1p(a / b) / LN2)
        limited = np.minimum(shannon, b * max_efficiency)
    return np.where((b > 0) & (a > 0), limited, 0.0)


def rho(nats: ArrayLike) -> Array:
    """u - 1 + e^-u, without cancellation at small u."""
    u = np.asarray(nats, dtype=np.float64)
    return _rho(u.ravel(), -np.expm1(-u.ravel())).reshape(u.shape)


def nats_from_load(load: ArrayLike) -> Array:
    """u with u / (e^u - 1) = c: inf for c = 0, 0 where c >= 1 (no bandwidth is enough). Relative error < 1e-12."""
    return _blockwise(_nats_from_load, load)


def nats_from_marginal(marginal: ArrayLike) -> Array:
    """u with rho(u) = q for q >= 0. Relative error < 1e-12."""
    return _blockwise(_nats_from_marginal, marginal)


def bandwidth_from_nats(nats: ArrayLike, snr_hz: ArrayLike) -> Array:
    """b = a / (e^u - 1), without overflow; inf for u = 0."""
    u = np.asarray(nats, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return snr_hz * np.exp(-u) / -np.expm1(-u)


def in_outage(
    start_s: Array, least_bits: Array, snr_hz: Array, link_hz: float, max_efficiency: float, limit_s: float | None
) -> Array:
    """Who cannot deliver the least even with an equal share: latency above `limit_s` (None: no rate at all).

    Arrays [..., K]; the share is link_hz / K.
    """
    rate_bps = rate(link_hz / start_s.shape[-1], snr_hz, max_efficiency)
    with np.errstate(divide="ignore"):
        latency = start_s + least_bits / rate_bps
    outage: Array = ~(latency <= (np.inf if limit_s is None else limit_s)) | ~(rate_bps > 0)
    return outage


def share_for_rate(rate_bps: Array, snr_hz: Array, max_efficiency: float = math.inf) -> Share:
    """The smallest bandwidth that carries `rate_bps`, and R'(b+) there. inf where no bandwidth is enough.

    Shapes broadcast. The slope of the inverse towards larger rates is 1 / marginal. At the kink itself the right
    marginal is the smaller one (rho(u_c) / ln 2): the next bit costs more than the last one did.
    """
    wanted, a = np.broadcast_arrays(np.asarray(rate_bps, np.float64), np.asarray(snr_hz, np.float64))
    corner = limit(a, max_efficiency)
    if math.isinf(max_efficiency):
        return _shannon_share(wanted, a)
    bandwidth = wanted / max_efficiency
    marginal = np.full(wanted.shape, max_efficiency)
    beyond = ~(wanted < corner.rate_bps)
    if beyond.any():
        bandwidth[beyond], marginal[beyond] = _shannon_share(wanted[beyond], a[beyond])
    return Share(bandwidth, marginal)


def _shannon_share(rate_bps: Array, snr_hz: Array) -> Share:
    with np.errstate(divide="ignore", invalid="ignore"):
        load = np.where(rate_bps > 0, rate_bps * LN2 / snr_hz, 0.0)
    nats = nats_from_load(load)
    return Share(bandwidth_from_nats(nats, snr_hz), rho(nats) / LN2)


def _blockwise(solve: Callable[[Array], Array], values: ArrayLike) -> Array:
    shaped = np.asarray(values, dtype=np.float64)
    flat = shaped.ravel()
    if flat.size <= BLOCK:
        return solve(flat).reshape(shaped.shape)
    out = np.empty_like(flat)
    for begin in range(0, flat.size, BLOCK):
        out[begin : begin + BLOCK] = solve(flat[begin : begin + BLOCK])
    return out.reshape(shaped.shape)


def _rho(u: Array, one_minus: Array) -> Array:
    """rho(u) given 1 - e^-u (flat arrays)."""
    out: Array = u - one_minus
    small = u < 0.05
    if small.any():
        v = u[small]
        tail = 1 / 120 - v * (1 / 720 - v * (1 / 5040 - v / 40320))
        out[small] = v * v * (0.5 - v * (1 / 6 - v * (1 / 24 - v * tail)))
    return out


def _nats_from_load(load: Array) -> Array:
    target = -np.log(np.clip(load, _TINY, 1.0))
    u: Array = target + np.log1p(target)
    with np.errstate(divide="ignore", invalid="ignore"):
        for _ in range(2):  # third order: 0.06 -> 1e-5 -> 1e-15
            decay = np.exp(-u)
            one_minus = -np.expm1(-u)
            excess = u + np.log(one_minus / u) - target
            inverse = 1.0 / u
            slope = 1.0 / one_minus - inverse
            curve = inverse * inverse - decay / (one_minus * one_minus)
            u = u - excess / (slope - 0.5 * excess * curve / slope)
    small = target < 0.02
    if small.any():  # phi(u) = u/2 + u^2/24 - u^4/2880 + ... = target, reverted
        v = target[small]
        w = 2.0 * v - v * v / 3.0
        for _ in range(2):
            square = w * w
            excess = w / 2 + square / 24 * (1 - square / 120 * (1 - square / 63)) - v
            w = w - excess / (0.5 + w / 12 * (1 - square / 60))
        u[small] = w
    u[load <= 0] = np.inf
    u[~(load < 1)] = 0.0
    return u


def _nats_from_marginal(marginal: Array) -> Array:
    q = np.maximum(marginal, 0.0)
    u: Array = q + np.sqrt(-np.expm1(-2.0 * q))
    with np.errstate(divide="ignore", invalid="ignore"):
        for _ in range(3):
            one_minus = -np.expm1(-u)
            excess = _rho(u, one_minus) - q
            u = u - excess / (one_minus - 0.5 * excess * (1.0 - one_minus) / one_minus)
    u[q <= 0] = 0.0
    u[np.isinf(q)] = np.inf
    return u
