"""What every finite-channel allocator shares: the latency model, control traffic, the outage rule and the final plan.

    t_k = downlink + compute_k + control bits_k / control rate        (when the upload can begin)
    latency_k = t_k + (fixed bits + bits of the units) * payload_scale / R_k(b_k)

Allocators see the reported gains only. **Outage rule**: a participant whose latency with the least units and B/K hertz
exceeds `outage_factor` budgets is told not to send; without a budget only a client without any channel is. (Under
Rayleigh fading E[1/g] is infinite: without the rule one deep fade can cost more than all other rounds together.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from raysoft.allocation.base import AllocationContext, AllocatorConfig
from raysoft.allocation.solvers.fdma import solve_minmax
from raysoft.allocation.solvers.inner import Problem
from raysoft.allocation.solvers.menus import Menus, convex_knots
from raysoft.types import Allocation, Array, ClientReport, Curve, Participants
from raysoft.wireless.rates import in_outage, rate

CSI_BITS = 16  # a quantised channel gain, up
PLAN_BITS = 32  # number of units and bandwidth share, 16 bits each, down
SCORE_BITS = 8  # one logarithmic score a unit, up
CURVE_BITS = 4 * 32  # of a reported curve: two errors and the range of the scores (codecs/measure/report.py)


def everyone(candidates_K: Array) -> Array:
    """The cohort of an allocator that does not choose: the coordinator's uniform sample, by client id."""
    return np.sort(np.asarray(candidates_K, dtype=np.int64))


def control_bits(curves: Sequence[Curve], *, needs_curve: bool) -> Array:
    """Control traffic of each client: channel report and plan, and its curve where the allocator reads it, [K].

    A curve is its errors and, where the server cannot derive them, the bits of its units (`Curve.told_bits`).
    """
    curve_K = np.array([CURVE_BITS + SCORE_BITS * curve.units + curve.told_bits for curve in curves], dtype=np.int64)
    return PLAN_BITS + CSI_BITS + (curve_K if needs_curve else np.zeros_like(curve_K))


@dataclass(frozen=True)
class Cohort:
    """One round as an allocator sees it; arrays [K] over all participants, `active_K` those that may send."""

    clients_K: Array
    start_s_K: Array
    snr_hz_K: Array
    power_w_K: Array
    weights_K: Array  # over the active ones, sum 1
    fixed_K: Array  # bits on the air that are always sent
    menus: Menus
    active_K: Array
    control_bits_K: Array
    context: AllocationContext
    budget_s: float | None

    @classmethod
    def of(
        cls, config: AllocatorConfig, context: AllocationContext, reports: tuple[ClientReport, ...], who: Participants
    ) -> Cohort:
        """Reports to arrays, outage rule applied. A client whose update is not finite is left out, too."""
        link, scale = context.link, context.payload_scale
        curves = tuple(report.curve for report in reports)
        menus = Menus.of(curves, context.min_kept_fraction, scale)
        control = control_bits(curves, needs_curve=config.traits.reads_curves)
        start = who.downlink_s + who.compute_s_K + link.control_s(control)
        snr = link.snr_hz(who.channel.reported_gain_K, who.power_w_K)
        limit_s = None if config.latency_budget_s is None else config.outage_factor * config.latency_budget_s
        out = in_outage(start, menus.bits(menus.least_K), snr, link.bandwidth_hz, link.max_spectral_efficiency, limit_s)
        active = ~out & np.array([r.finite for r in reports], dtype=bool) & np.isfinite(menus.error_KJ).all(axis=1)
        share = np.where(active, who.weights_K, 0.0)
        total = share.sum()
        return cls(
            clients_K=who.clients_K,
            start_s_K=start,
            snr_hz_K=snr,
            power_w_K=who.power_w_K,
            weights_K=share / total if total > 0 else share,
            fixed_K=scale * np.array([report.curve.fixed_bits for report in reports], dtype=np.float64),
            menus=menus,
            active_K=active,
            control_bits_K=control,
            context=context,
            budget_s=config.latency_budget_s,
        )

    @property
    def index(self) -> Array:
        """Positions of the active participants."""
        return np.flatnonzero(self.active_K)

    def penalty_table(self) -> tuple[Menus, Array]:
        """Menus of the active participants and the weighted penalty of each of their points."""
        menus = self.menus.take(self.index)
        return menus, menus.penalty(self.weights_K[self.index])

    def problem(self) -> tuple[Problem, Menus, Array]:
        """The continuous problem of the active participants, their menus and the penalty of each menu point."""
        menus, penalty = self.penalty_table()
        bits, convex = convex_knots(menus, penalty)
        link = self.context.link
        problem = Problem(
            start_s_K=self.start_s_K[self.index],
            snr_hz_K=self.snr_hz_K[self.index],
            bits_KJ=bits,
            penalty_KJ=convex,
            bandwidth_hz=link.bandwidth_hz,
            max_efficiency=link.max_spectral_efficiency,
        )
        return problem, menus, penalty

    def units_for(self, fraction_K: Array) -> Array:
        """Units [K] that a fraction of the variable bits pays for: rounded down to the menu, at least one."""
        return self.menus.fraction(fraction_K, self.fixed_K)

    def fastest_plan(self, chosen_A: Array, diagnostics: Mapping[str, float]) -> Allocation:
        """The plan for these units of the A active participants, with the bandwidth that ends the round earliest."""
        link, index = self.context.link, self.index
        units = np.zeros(len(self.clients_K), dtype=np.int64)
        units[index] = chosen_A
        bandwidth = np.zeros(len(self.clients_K))
        bandwidth[index] = solve_minmax(
            self.start_s_K[index],
            self.menus.bits(units)[index],
            self.snr_hz_K[index],
            link.bandwidth_hz,
            link.max_spectral_efficiency,
        ).bandwidth_hz
        return self.plan(units, bandwidth, diagnostics)

    def nobody(self, diagnostics: Mapping[str, float]) -> Allocation:
        """The plan of a round in which nobody may send."""
        return self.plan(np.zeros_like(self.clients_K), np.zeros(len(self.clients_K)), diagnostics)

    def plan(self, units_K: Array, bandwidth_hz_K: Array, diagnostics: Mapping[str, float]) -> Allocation:
        """The allocation; units_K over all participants. A round in which nobody may send costs one budget.

        latency_s_K of a participant in outage is the time at which it is told so (its t_k).
        """
        units = np.where(self.active_K, units_K, 0)
        rate_bps = rate(bandwidth_hz_K, self.snr_hz_K, self.context.link.max_spectral_efficiency)
        with np.errstate(divide="ignore", invalid="ignore"):
            airtime = np.where(self.active_K, self.menus.bits(units) / rate_bps, 0.0)
        latency = self.start_s_K + airtime
        penalty = self.penalty_table()[1]
        index = self.index
        if index.size:
            round_s = float(latency[index].max())
            shown = float(np.take_along_axis(penalty, units[index][:, None], axis=1).sum())
        else:
            round_s = float(self.start_s_K.max(initial=0.0)) if self.budget_s is None else self.budget_s
            shown = 1.0  # nothing of the update arrives
        return Allocation(
            clients_K=self.clients_K,
            active_K=self.active_K,
            units_K=units,
            bandwidth_hz_K=bandwidth_hz_K,
            power_w_K=self.power_w_K,
            latency_s_K=latency,
            round_s=round_s,
            control_bits_K=self.control_bits_K,
            diagnostics={"penalty": shown, "outages": float(len(units) - index.size), **diagnostics},
        )
