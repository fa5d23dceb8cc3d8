"""From runs of several seeds to what a comparison shows: pure numpy reductions, tested without drawing.

Shapes: T records of a run, P points of a common grid, R rounds of all seeds together, G groups of clients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from raysoft.quantities import LEARNED, quantity
from raysoft.report.multiples import End
from raysoft.report.run.data import after_base, binned, client_rounds, client_table, latency_budget_s, megabytes
from raysoft.rundir.reading import Run
from raysoft.types import Array

GROUPS = 12
ROUNDING = 1e-9  # sums of the same numbers in another order differ by less
AXES = ("rounds", "seconds", "mb", "joules")


@dataclass(frozen=True)
class Trace:
    """What the figures need of one run: the costs so far and the metrics at each record, latencies, clients."""

    seed: int
    costs: Mapping[str, Array]  # [T] each: rounds, seconds, mb, joules, cumulative
    metrics: Mapping[str, Array]  # [T] each; NaN where not evaluated
    latency_s_R: Array
    budget_s: float | None
    gain_db_C: Array  # clients that were ever allowed to send
    kept_C: Array  # mean kept fraction in the rounds in which they were


@dataclass(frozen=True)
class SeedPoints:
    """The E evaluations of one seed as they were measured: the round of each, what was spent until then, the metric."""

    seed: int
    round_E: Array
    x_E: Array
    y_E: Array


@dataclass(frozen=True)
class MeanCurve:
    """A metric over a cost: mean over seeds and mean ± one standard deviation (NaN for a single seed).

    `steps`: the value holds until the next x, as a model does until it is evaluated again.
    """

    label: str
    x_P: Array
    mean_P: Array
    low_P: Array
    high_P: Array
    seeds: int = 1
    steps: bool = False
    measured: tuple[SeedPoints, ...] = ()

    def scaled(self, factor: float) -> MeanCurve:
        """The same with the metric times `factor`."""
        measured = tuple(replace(one, y_E=factor * one.y_E) for one in self.measured)
        mean, low, high = (factor * values for values in (self.mean_P, self.low_P, self.high_P))
        return replace(self, mean_P=mean, low_P=low, high_P=high, measured=measured)

    @property
    def end(self) -> End | None:
        """Where the seeds end in the mean; None where the line shows it: of one seed, or in the same round."""
        if len(self.measured) < 2:
            return None
        x_S, y_S = (np.array([getattr(one, name)[-1] for one in self.measured]) for name in ("x_E", "y_E"))
        if not self.steps and np.ptp(x_S) <= 0:
            return None
        return End(float(x_S.mean()), float(y_S.mean()), float(y_S.std(ddof=1)))


def trace(run: Run, seed: int) -> Trace:
    """Reduce a run to what a comparison needs of it."""
    costs = {
        "rounds": run.column("round"),
        "seconds": run.column("simulated_time_s"),
        "mb": megabytes(run),
        "joules": np.cumsum(np.nan_to_num(run.column("energy_j"))),
    }
    metrics = {metric: run.column(quantity(metric).record_key) for metric in LEARNED}
    latency = run.column("round_latency_s")[after_base(run)]
    rounds = client_rounds(run)
    gain = kept = np.empty(0)
    if rounds is not None:
        table = client_table(rounds)
        ok = np.isfinite(table.gain_db_C) & np.isfinite(table.kept_mean_C)
        gain, kept = table.gain_db_C[ok], table.kept_mean_C[ok]
    return Trace(seed, costs, metrics, latency[np.isfinite(latency)], latency_budget_s(run), gain, kept)


def held(x_T: Array, y_T: Array, grid_P: Array) -> Array:
    """[P] y of the last evaluation at or before each x (a model holds until the next); NaN before the first.

    >>> held(np.array([0.0, 1.0, 3.0]), np.array([5.0, np.nan, 7.0]), np.array([-1.0, 2.9, 3.0])).tolist()
    [nan, 5.0, 7.0]
    """
    ok = np.isfinite(x_T) & np.isfinite(y_T)
    x, y = x_T[ok], y_T[ok]
    place = np.searchsorted(x, grid_P, side="right") - 1
    return np.where(place >= 0, y[np.maximum(place, 0)], np.nan) if len(x) else np.full(len(grid_P), np.nan)


def mean_curve(label: str, traces: Sequence[Trace], axis: str, metric: str, log: bool = False) -> MeanCurve | None:
    """Mean and spread over seeds, at every cost at which any of them was evaluated: between these nothing changes.

    The line ends where the first seed ends: nothing is extrapolated (`MeanCurve.end` has the rest). `log`: it begins
    where every seed has spent something. None where no seed has two evaluations.
    """
    seen = []
    for item in traces:
        x, y = item.costs[axis], item.metrics[metric]
        ok = np.isfinite(x) & np.isfinite(y)
        if ok.sum() > 1 and x[ok][-1] > 0:
            seen.append(SeedPoints(item.seed, item.costs["rounds"][ok], x[ok], y[ok]))
    if not seen:
        return None
    end = min(one.x_E[-1] for one in seen)
    start = max(float(one.x_E[one.x_E > 0][0]) for one in seen) if log else 0.0
    grid = np.unique(np.concatenate([one.x_E for one in seen]))
    grid = grid[(grid >= min(start, end)) & (grid <= end * (1 + ROUNDING))]
    y_SP = np.stack([held(one.x_E, one.y_E, grid) for one in seen])
    mean, std = y_SP.mean(axis=0), np.full(len(grid), np.nan)
    if len(seen) > 1:
        std = y_SP.std(axis=0, ddof=1)
    return MeanCurve(label, grid, mean, mean - std, mean + std, len(seen), axis != "rounds", tuple(seen))


def pareto_front(cost: Sequence[float], value: Sequence[float], lower_is_better: bool = False) -> list[int]:
    """Indices of the points that no other beats (not dearer and better, or cheaper and not worse), by rising cost.

    >>> pareto_front([1.0, 2.0, 3.0], [0.5, 0.4, 0.9])
    [0, 2]
    """
    sign = 1.0 if lower_is_better else -1.0
    front: list[int] = []
    for i in sorted(range(len(cost)), key=lambda i: (cost[i], sign * value[i])):
        if not front or sign * value[i] < sign * value[front[-1]]:
            front.append(i)
    return front


def cdf(values: Array) -> tuple[Array, Array]:
    """Sorted values and the share of all that is no larger, both with a first point at share 0."""
    x = np.sort(values)
    return np.concatenate([x[:1], x]), np.arange(len(x) + 1) / max(len(x), 1)


def clients_of(traces: Sequence[Trace]) -> tuple[Array, Array]:
    """[C] mean gain (dB) and mean kept fraction of the clients of all seeds."""
    gain = np.concatenate([np.empty(0), *(item.gain_db_C for item in traces)])
    return gain, np.concatenate([np.empty(0), *(item.kept_C for item in traces)])


def kept_by_gain(label: str, traces: Sequence[Trace], groups: int = GROUPS) -> MeanCurve | None:
    """Mean kept fraction of the clients of all seeds, in groups of equal size from the weakest mean gain (dB) up.

    None where every client keeps the same, or nothing is known about them.
    """
    gain, kept = clients_of(traces)
    if not len(kept) or np.ptp(kept) <= 1e-6:
        return None
    order = np.argsort(gain, kind="stable")
    x, y = binned(gain[order], groups), binned(kept[order], groups)
    nothing = np.full(len(x), np.nan)
    return MeanCurve(label, x, y, nothing, nothing, len(traces))
