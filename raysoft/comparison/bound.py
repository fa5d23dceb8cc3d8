"""The convergence bound's surrogate Psi, term by term, and what it is worth as a ranking.

    Psi_t = c_r phi(r) + c_s sum_k p_k eps_k(t) + c_c kappa_t       (all terms relative, without unit)

phi(r): what rank r cannot hold of the full update (models/pilot.py, `phi` in plan.json); sum p_k eps_k: the recorded
`sparsification_error`; kappa_t: the recorded `aggregation_covariance`. The bound's constants are not known, so they are
fitted, and what is asked of Psi is whether it orders runs as their final metric does.
Shapes: T rounds, N runs, S groups (seeds); terms in the order of TERMS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raysoft.comparison.statistics import kendall
from raysoft.errors import RaysoftError
from raysoft.rng import Rng
from raysoft.rundir.reading import Run
from raysoft.types import Array

TERMS = ("rank", "sparsification", "covariance")
Weights = Mapping[str, float]
EQUAL: Weights = dict.fromkeys(TERMS, 1.0)


@dataclass(frozen=True)
class Bound:
    """Psi of one run over its T rounds after the base. NaN where a round measured nothing (nobody sent)."""

    round_T: Array
    rank: float  # phi, the same in every round
    sparsification_T: Array
    covariance_T: Array
    weights: Weights

    @property
    def psi_T(self) -> Array:
        """c_r phi + c_s eps_t + c_c kappa_t."""
        c = self.weights
        return c["rank"] * self.rank + c["sparsification"] * self.sparsification_T + c["covariance"] * self.covariance_T

    @property
    def mean_terms(self) -> Array:
        """Time averages of the terms without their constants, [3]."""
        return np.array([self.rank, np.nanmean(self.sparsification_T), np.nanmean(self.covariance_T)])

    @property
    def mean_psi(self) -> float:
        """Time average of Psi."""
        return float(self.mean_terms @ [self.weights[name] for name in TERMS])


def phi_of(plan: Mapping[str, Any], rank: int) -> float:
    """phi(rank) of plan.json data. Raises RaysoftError where the plan did not measure this rank."""
    for one in plan.get("candidates", ()):
        if one.get("rank") == rank and isinstance(one.get("phi"), (int, float)):
            return float(one["phi"])
    measured = ", ".join(str(one.get("rank")) for one in plan.get("candidates", ()))
    raise RaysoftError(f"the plan has no phi of rank {rank}; it measured {measured or 'none'}")


def bound_of_run(run: Run, phi: float, weights: Weights = EQUAL) -> Bound:
    """Psi of a run folder. Raises RaysoftError where it has no rounds, or measured one of the terms in no round."""
    keep_T = run.column("round") >= 1
    if not keep_T.any():
        raise RaysoftError(f"{run.path}: has no rounds after the base, so no bound can be told")
    eps_T, kappa_T = (_measured(run, key)[keep_T] for key in ("sparsification_error", "aggregation_covariance"))
    return Bound(run.column("round")[keep_T], phi, eps_T, kappa_T, weights)


def _measured(run: Run, key: str) -> Array:
    values_T = run.column(key)
    if not np.isfinite(values_T[run.column("round") >= 1]).any():
        raise RaysoftError(f"{run.path}: no round has {key}; is metrics.covariance off?")
    return values_T


@dataclass(frozen=True)
class Calibration:
    """Fitted constants. `explained`: share of the metric's variance within the groups that the terms explain."""

    weights: Weights
    explained: float | None  # None: the metric does not vary
    runs: int


def calibrate(terms_N3: Array, metric_N: Array, group_N: Sequence[int] | Array | None = None) -> Calibration:
    """Constants c >= 0 that explain by how much each run falls short of the best (larger metric = better).

        minimise over a_s and c >= 0:   sum_n (metric_n - a_s(n) + c . terms_n)^2

    with a free level a_s for each group (a seed: its data split is easier or harder), which is the same as fitting
    best - metric up to a constant. Centred within groups, this is a non-negative least squares problem (Lawson and
    Hanson, 1974). A constant is 0 where its term does not vary, or where more of it goes with a better metric.
    Raises ValueError for arrays that do not fit each other.
    """
    from scipy.optimize import nnls

    terms, metric = np.asarray(terms_N3, dtype=np.float64), np.asarray(metric_N, dtype=np.float64)
    if terms.shape != (len(metric), len(TERMS)):
        raise ValueError(f"terms must have shape ({len(metric)}, {len(TERMS)}), got {terms.shape}")
    groups = np.zeros(len(metric), dtype=np.int64) if group_N is None else np.asarray(group_N)
    x, y = _centred(terms, groups), -_centred(metric[:, None], groups)[:, 0]
    found, rest = nnls(x, y)
    total = float(y @ y)
    explained = 1.0 - rest**2 / total if total > 0 else None
    return Calibration(dict(zip(TERMS, map(float, found), strict=True)), explained, len(metric))


def _centred(values: Array, groups: Array) -> Array:
    out = values.copy()
    for group in np.unique(groups):
        mine = groups == group
        out[mine] -= values[mine].mean(axis=0)
    return out


@dataclass(frozen=True)
class ScoreOrder:
    """Kendall's tau-b of two orders with a percentile bootstrap interval; None where nothing varies."""

    tau: float | None
    low: float | None
    high: float | None


def ranking(
    psi_N: Array,
    metric_N: Array,
    rng: Rng,
    group_N: Sequence[int] | Array | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> ScoreOrder:
    """How well a small Psi tells a large metric: 1 = always, 0 = not at all, -1 = the wrong way round.

    With groups (seeds) tau is taken within each and averaged, and groups are resampled with replacement; with one
    group the runs are. Draws are keyed by `rng`, so the interval repeats. Ends are the quantiles of the resampled tau.
    """
    psi, metric = np.asarray(psi_N, dtype=np.float64), np.asarray(metric_N, dtype=np.float64)
    groups = np.zeros(len(psi), dtype=np.int64) if group_N is None else np.asarray(group_N)
    names = np.unique(groups)
    generator = rng("bound_bootstrap")
    if len(names) > 1:
        taus = [kendall(-psi[groups == name], metric[groups == name])[0] for name in names]
        known = np.array([tau for tau in taus if tau is not None])
        if not len(known):
            return ScoreOrder(None, None, None)
        drawn = known[generator.integers(len(known), size=(resamples, len(known)))].mean(axis=1)
        return _ranking(float(known.mean()), drawn, confidence)
    tau = kendall(-psi, metric)[0]
    if tau is None:
        return ScoreOrder(None, None, None)
    picks = generator.integers(len(psi), size=(resamples, len(psi)))
    found = [kendall(-psi[pick], metric[pick])[0] for pick in picks]
    return _ranking(tau, np.array([one for one in found if one is not None]), confidence)


def _ranking(tau: float, drawn: Array, confidence: float) -> ScoreOrder:
    low, high = np.quantile(drawn, [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0]).tolist()
    return ScoreOrder(tau, low, high)
