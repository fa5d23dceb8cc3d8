"""The best use of a fixed round time: how many bits each client may send when everything must end at tau.

    P(tau) = min sum_k psi_k(y_k)   subject to   t_k + y_k / R_k(b_k) <= tau,   sum_k b_k <= B,   y_k in [Y_k0, Y_kJ]

y_k: bits on the air; psi_k: penalty, decreasing, convex and piecewise linear over the client's own knots. Put as the
value of bandwidth, client k gains -psi_k(T_k R_k(b)) from b hertz (T_k = tau - t_k): concave, so a price lambda per
hertz decides, `m T_k R_k'(b_k) = lambda` with m the slope of the segment (bits -> penalty), and sum b = B fixes lambda.

Three things make a client's demand b_k(lambda) more than a smooth function, and all are exact here: it *rests* at a
knot while lambda lies between the marginals before and behind it; it rests at the end b_c of the spectral-efficiency
limit; and inside the limit R' = eta is constant, so a whole segment is bought at one price `m T eta` (a fractional
knapsack): demand jumps, and the client whose jump crosses B is filled in part. Jumps can only sit at the price at which
a segment is entered, so the price is searched on the sorted list of these, then in the smooth gap between two of them.

Envelope: dP/dtau = -lambda sum_k (y_k / T_k^2) b_k'(R), the bandwidth that a longer round would set free, priced.
Everything is vectorised over G values of tau: O(G K J) to price the knots, O(G K) a price (plus counting).
Shapes: G round times, K clients, J knots.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from raysoft.types import Array
from raysoft.wireless.rates import LN2, Limit, bandwidth_from_nats, limit, nats_from_marginal, rate, rho, share_for_rate

_FEASIBLE = 1.0 + 1e-9  # at the fastest round sum b = B only up to rounding
_CLOSE = 1e-11
_STEPS = 200


@dataclass(frozen=True)
class Problem:
    """One round: K clients, their channel and their menus (already convex).

    bits_KJ: bits on the air at each knot, fixed part included, strictly increasing up to the padding, which repeats the
    last knot; penalty_KJ: weighted penalty there, decreasing, convex in bits. bits_KJ[:, 0] > 0 is the least a client
    must send.
    """

    start_s_K: Array
    snr_hz_K: Array
    bits_KJ: Array
    penalty_KJ: Array
    bandwidth_hz: float
    max_efficiency: float = math.inf
    slope_KJ: Array = field(init=False)  # [K, J-1], penalty per bit
    corner: Limit = field(init=False)

    def __post_init__(self) -> None:
        if self.bits_KJ.shape[1] < 2:
            raise ValueError("a menu needs two knots; repeat the last one where there is no choice")
        if not (np.all(self.bits_KJ[:, 0] > 0) and np.all(self.snr_hz_K > 0)):
            raise ValueError("every client needs a first knot above zero bits and a channel (a_k > 0)")
        width = np.diff(self.bits_KJ, axis=1)
        drop = -np.diff(self.penalty_KJ, axis=1)
        slope = np.where(width > 0, drop / np.where(width > 0, width, 1.0), 0.0)
        if np.any(width < 0) or np.any(slope < 0) or np.any(np.diff(slope, axis=1) > 1e-9 * slope[:, :-1]):
            raise ValueError("each client's penalty must be decreasing and convex in bits; take the lower hull first")
        object.__setattr__(self, "slope_KJ", np.minimum.accumulate(slope, axis=1))
        object.__setattr__(self, "corner", limit(self.snr_hz_K, self.max_efficiency))


@dataclass(frozen=True)
class Inner:
    """The optimum for each of G round times. penalty is inf (and slope -inf) where even the first knots do not fit."""

    penalty_G: Array
    slope_G: Array  # dP/dtau, <= 0
    price_G: Array  # lambda [penalty / Hz]
    bits_GK: Array
    bandwidth_hz_GK: Array


def solve_inner(problem: Problem, tau_G: Array) -> Inner:
    """The exact optimum at each round time. Works through blocks of round times, so memory stays near 1e6 numbers."""
    tau = np.atleast_1d(np.asarray(tau_G, np.float64))
    block = max(1, 1_000_000 // problem.bits_KJ.size)
    parts = [_solve_block(problem, tau[i : i + block]) for i in range(0, len(tau), block)]
    return Inner(*(np.concatenate([getattr(part, name) for part in parts]) for name in Inner.__dataclass_fields__))


@dataclass(frozen=True)
class _Market:
    """Knots of one block priced: bandwidth to be at a knot, and the price at which the segment behind it is entered."""

    problem: Problem
    window_GK: Array
    bandwidth_GKJ: Array
    entry_GKJ: Array  # [G, K, J-1]

    @classmethod
    def at(cls, problem: Problem, tau_G: Array) -> _Market:
        window = tau_G[:, None] - problem.start_s_K
        with np.errstate(divide="ignore", invalid="ignore"):
            wanted = np.where(window > 0, 1.0 / window, np.inf)[:, :, None] * problem.bits_KJ
        share = share_for_rate(wanted, problem.snr_hz_K[:, None], problem.max_efficiency)
        with np.errstate(invalid="ignore"):
            entry = problem.slope_KJ * window[:, :, None] * share.marginal[:, :, :-1]
        return cls(problem, window, share.bandwidth_hz, np.minimum.accumulate(np.nan_to_num(entry), axis=2))

    def demand(self, price_G: Array, rows: Array, strict: bool = False) -> tuple[Array, Array]:
        """Bandwidth asked for at a price, [g, K], for the given rows; and the number of segments entered.

        Where a segment is bought as a whole at exactly this price the larger demand is meant, with `strict` the
        smaller one.
        """
        everything = len(rows) == len(self.window_GK)  # no copies of the large arrays
        entry, price = self.entry_GKJ if everything else self.entry_GKJ[rows], price_G[:, None, None]
        entered = np.count_nonzero(entry > price if strict else entry >= price, axis=2)
        segment = np.maximum(entered - 1, 0)
        clients, J = np.arange(segment.shape[1]), self.bandwidth_GKJ.shape[2]
        at = (rows[:, None] * len(clients) + clients) * J + segment
        start, end = self.bandwidth_GKJ.take(at), self.bandwidth_GKJ.take(at + 1)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            slope = self.problem.slope_KJ.take(clients * (J - 1) + segment) * self.window_GK[rows]
            nats = np.minimum(nats_from_marginal(price_G[:, None] * LN2 / slope), self.problem.corner.nats)
            inside = bandwidth_from_nats(nats, self.problem.snr_hz_K)
        return np.where(entered == 0, start, np.minimum(np.maximum(inside, start), end)), entered


def _solve_block(problem: Problem, tau_G: Array) -> Inner:
    market = _Market.at(problem, tau_G)
    B = problem.bandwidth_hz
    at_knot = market.bandwidth_GKJ
    least, everything = at_knot[:, :, 0].sum(axis=1), at_knot[:, :, -1].sum(axis=1)
    worth = np.count_nonzero(market.entry_GKJ > 0, axis=2)  # segments that lower the penalty at all
    valuable = np.take_along_axis(at_knot, worth[:, :, None], axis=2)[:, :, 0]
    # Without a price: all that has a value fits (what has none is sent only if everything fits).
    feasible = least <= B * _FEASIBLE
    fits = everything <= B
    price = np.zeros(len(tau_G))
    entered = np.where(fits[:, None], problem.slope_KJ.shape[1], worth)
    bandwidth = np.where(fits[:, None], at_knot[:, :, -1], valuable)
    bandwidth[~feasible], entered[~feasible] = at_knot[~feasible, :, 0], 0
    paid = np.flatnonzero(feasible & ~fits & (valuable.sum(axis=1) > B))
    if paid.size:
        price[paid], bandwidth[paid], entered[paid] = _clear(market, paid, B)
    total = bandwidth.sum(axis=1)
    over = feasible & (total > B)
    bandwidth[over] *= (B / total[over])[:, None]
    return _result(market, price, bandwidth, entered, feasible)


def _clear(market: _Market, rows: Array, B: float) -> tuple[Array, Array, Array]:
    """Price, bandwidths and entered segments at which the market clears, for rows that need a price."""
    events, index, bounds = _first_event_with_demand(market, rows, B)
    pick = np.arange(len(rows))
    price = events[pick, index]
    most, entered = market.demand(price, rows)
    least, _ = market.demand(price, rows, strict=True)
    above, below = most.sum(axis=1), least.sum(axis=1)
    with np.errstate(invalid="ignore"):  # at the closing price of zero the larger demand may be infinite
        share = np.clip((B - below) / np.where(above > below, above - below, 1.0), 0.0, 1.0)
        bandwidth = least + share[:, None] * (most - least)
    # Where demand does not jump over B at this event, the price lies in the gap above it. (Above the first event only
    # the least is asked for, which exceeds B by rounding at most.)
    gap = np.flatnonzero((below > B) & (index > 0))
    if gap.size:
        low, high = (price[gap], below[gap]), (events[pick, index - 1][gap], bounds[gap])
        price[gap], bandwidth[gap], entered[gap] = _between(market, rows[gap], low, high, B)
    return price, bandwidth, entered


def _first_event_with_demand(market: _Market, rows: Array, B: float) -> tuple[Array, Array, Array]:
    """The prices at which segments are entered, falling and closed by 0; the index of the first at which demand (the
    larger one) uses up B; and a number below B, at least the demand one event earlier.

    If segments were bought as a whole on entry (true inside the limit), demand would reach B at a `guess`; it never
    does so earlier. From there on demand is nearly smooth in the index: regula falsi (Illinois), sometimes bisection.
    """
    entry = market.entry_GKJ[rows].reshape(len(rows), -1)
    knots = market.bandwidth_GKJ[rows]
    order = np.argsort(-entry, axis=1)
    events = np.pad(np.take_along_axis(entry, order, axis=1), ((0, 0), (0, 1)))
    with np.errstate(invalid="ignore"):
        widths = np.nan_to_num(np.diff(knots, axis=2), nan=0.0, posinf=B).reshape(entry.shape)
    start = knots[:, :, :1].sum(axis=1)
    bought = np.concatenate([start, start + np.cumsum(np.take_along_axis(widths, order, axis=1), axis=1)], axis=1)
    right = np.count_nonzero(events > 0, axis=1)  # the closing zero: at no price demand exceeds B
    guess = np.minimum(np.count_nonzero(bought[:, 1:] < B, axis=1), right)
    left = guess - 1
    f_left = np.minimum(np.take_along_axis(bought, guess[:, None], axis=1)[:, 0] - B, -1e-12 * B)
    f_right = np.full(len(rows), B)
    bounds = f_left + B
    side = np.zeros(len(rows), dtype=np.int64)
    for step in range(_STEPS):
        todo = np.flatnonzero(right - left > 1)
        if todo.size == 0:
            break
        lo, hi = left[todo], right[todo]
        if step < 3:  # the guess; then one and four segments a client further
            middle = guess[todo] + (0, 1, 4)[step] * market.window_GK.shape[1]
        else:
            weight = f_left[todo] / (f_left[todo] - f_right[todo])
            middle = (lo + hi) // 2 if step % 4 == 3 else lo + np.rint(weight * (hi - lo)).astype(np.int64)
        middle = np.clip(middle, lo + 1, hi - 1)
        excess = market.demand(events[todo, middle], rows[todo])[0].sum(axis=1) - B
        enough = excess >= 0
        new_side = np.where(enough, 1, -1)
        trust = np.where(new_side == side[todo], 0.5, 1.0)  # Illinois: an end that stays twice counts half
        f_left[todo] = np.where(enough, f_left[todo] * trust, excess)
        f_right[todo] = np.where(enough, np.maximum(excess, 1e-300), f_right[todo] * trust)
        bounds[todo] = np.where(enough, bounds[todo], excess + B)
        left[todo], right[todo] = np.where(enough, lo, middle), np.where(enough, middle, hi)
        side[todo] = new_side
    return events, right, bounds


def _between(
    market: _Market, rows: Array, lower: tuple[Array, Array], upper: tuple[Array, Array], B: float
) -> tuple[Array, Array, Array]:
    """The price between two (price, demand), where demand is continuous: Illinois on ln demand.

    Demand is flat while all clients rest, so where a step did not halve the bracket the next one does.
    """
    (lo, at_lo), (hi, at_hi) = lower, upper
    f_lo, f_hi = np.log(at_lo / B), np.log(at_hi / B)
    price = _secant(lo, hi, f_lo, f_hi)
    side = np.zeros(len(rows), dtype=np.int64)
    bandwidth, entered = market.demand(price, rows)
    todo = np.arange(len(rows))
    for _ in range(_STEPS):
        excess = np.log(bandwidth[todo].sum(axis=1) / B)
        width = hi[todo] - lo[todo]
        too_low = excess > 0  # demand too high: the price must rise
        new_side = np.where(too_low, -1, 1)
        trust = np.where(new_side == side[todo], 0.5, 1.0)
        f_lo[todo] = np.where(too_low, excess, f_lo[todo] * trust)
        f_hi[todo] = np.where(too_low, f_hi[todo] * trust, excess)
        lo[todo], hi[todo] = np.where(too_low, price[todo], lo[todo]), np.where(too_low, hi[todo], price[todo])
        side[todo] = new_side
        left = (np.abs(excess) > _CLOSE) & (hi[todo] - lo[todo] > 4e-16 * hi[todo])
        todo, width = todo[left], width[left]
        if todo.size == 0:
            break
        lagging = (hi[todo] - lo[todo] > 0.5 * width) & (np.abs(excess[left]) > 1e-6)
        root = _secant(lo[todo], hi[todo], f_lo[todo], f_hi[todo])
        price[todo] = np.where(lagging, 0.5 * (lo[todo] + hi[todo]), root)
        bandwidth[todo], entered[todo] = market.demand(price[todo], rows[todo])
    return price, bandwidth, entered


def _secant(lo: Array, hi: Array, f_lo: Array, f_hi: Array) -> Array:
    """Root of the line through two points of opposite sign; their middle where that fails."""
    with np.errstate(invalid="ignore", divide="ignore"):
        root: Array = hi - f_hi * (hi - lo) / (f_hi - f_lo)
    return np.where((root > lo) & (root < hi), root, 0.5 * (lo + hi))


def _result(market: _Market, price: Array, bandwidth: Array, entered: Array, feasible: Array) -> Inner:
    """Bits, penalty and the envelope derivative from prices and bandwidths."""
    problem, window = market.problem, market.window_GK
    a, corner = problem.snr_hz_K, problem.corner
    k = np.arange(len(a))
    segment = np.maximum(entered - 1, 0)
    sent = window * rate(bandwidth, a, problem.max_efficiency)
    # A jump over several segments of one price may have been filled up to an earlier one than the last.
    g, c = np.nonzero(sent < problem.bits_KJ[k, segment] * (1.0 - 1e-9))
    segment[g, c] = np.minimum(segment[g, c], np.count_nonzero(problem.bits_KJ[c, 1:] <= sent[g, c][:, None], axis=1))
    low, high = problem.bits_KJ[k, segment], problem.bits_KJ[k, segment + 1]
    bits = np.where(entered == 0, low, np.clip(sent, low, high))
    slope = problem.slope_KJ[k, segment]
    penalty = (problem.penalty_KJ[k, segment] - slope * (bits - low)).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        limited = bandwidth < corner.bandwidth_hz * (1.0 - 1e-12)
        hertz_per_rate = np.where(limited, 1.0 / problem.max_efficiency, LN2 / rho(np.log1p(a / bandwidth)))
        # Inside a segment the price fixes it, also for a client that rests at the end of the limit.
        inside = (entered > 0) & (bits < high * (1.0 - 1e-12)) & (price > 0)[:, None]
        hertz_per_rate = np.where(inside, slope * window / price[:, None], hertz_per_rate)
        freed = np.where(price > 0, price * (bits / window**2 * hertz_per_rate).sum(axis=1), 0.0)
    return Inner(
        penalty_G=np.where(feasible, penalty, np.inf),
        slope_G=np.where(feasible, -freed, -np.inf),
        price_G=price,
        bits_GK=bits,
        bandwidth_hz_GK=bandwidth,
    )
