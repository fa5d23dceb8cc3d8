"""The bound's surrogate Psi of finished runs against what they reached: does it order ranks, budgets, allocations?

Psi = c_r phi + c_s mean eps + c_c mean kappa over a run's rounds. Runs are compared within groups in which one thing
varies; the constants that judge a comparison are fitted on the runs of the other comparisons only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from raysoft.comparison.bound import EQUAL, TERMS, bound_of_run, calibrate, phi_of, ranking
from raysoft.errors import RaysoftError
from raysoft.quantities import number
from raysoft.report import study_figures
from raysoft.rng import Rng
from raysoft.rundir.reading import Run
from studies.loading import Metric, Results, by_seed, metrics_of
from studies.measures import Row
from studies.plans import PlanData, budgets
from studies.product import Product
from studies.settings import Task
from studies.sheets import Column as _Column
from studies.sheets import Sheet, numeric, text

LETTERS = ("φ", "ε", "κ")


@dataclass(frozen=True)
class Sample:
    """One run: the comparison it belongs to, the group within it, its terms [3] and its metric (larger is better)."""

    comparison: str
    group: str
    label: str
    terms: Any
    value: float


def read(task: Task, results: Mapping[str, Results], plans: Mapping[float, PlanData]) -> Product | None:
    """Tau of Psi and the metric for each comparison of a task; None where no plan tells phi or no run is there."""
    if not plans:
        return None
    plan = next(iter(plans.values()))  # phi is that of the full update: the same at every budget
    name, metric = f"bound-{task.name}", metrics_of(task)[-1]
    samples = comparable([one for part in results.values() for one in samples_of(part, plan, metric)])
    if not samples:
        return None
    rows = [row_of(kind, samples) for kind in dict.fromkeys(one.comparison for one in samples)]
    figures = {
        f"{name}-{kind}": partial(draw, kind, samples, next(row for row in rows if row["comparison"] == kind), metric)
        for kind in dict.fromkeys(one.comparison for one in samples)
    }
    note = (
        f"Final {metric.label.lower()}. Tau is taken within each group (same seed, all else equal) and averaged; "
        "interval: bootstrap over groups. Fitted: constants fitted on the runs of the other comparisons."
    )
    columns = (
        text("What varies", "comparison"),
        numeric("Groups", "groups", digits=0),
        numeric("Runs", "runs", digits=0),
        _tau("τ, fitted [95 %]", "fitted"),
        _tau("τ, constants 1 [95 %]", "equal"),
        *(_tau(f"τ, {label} alone", f"{term}_alone") for term, label in zip(TERMS, LETTERS, strict=True)),
        *(numeric(f"c {label}", f"weight_{term}", digits=3) for term, label in zip(TERMS, LETTERS, strict=True)),
    )
    return Product(name, {name: Sheet(columns, tuple(rows), note)}, figures)


def comparable(samples: Sequence[Sample]) -> list[Sample]:
    """Those whose group has another run to be compared with."""
    sizes = Counter((one.comparison, one.group) for one in samples)
    return [one for one in samples if sizes[one.comparison, one.group] > 1]


def samples_of(results: Results, plan: PlanData, metric: Metric) -> list[Sample]:
    """The comparisons that an experiment's runs are part of: methods, allocations, ranks and budgets."""
    kind = results.experiment.name.split("-")[0]
    budget_of = (
        {one.label: b for b, settings in budgets(results.experiment).items() for one in settings}
        if kind == "offline"
        else {}
    )
    sign = -1.0 if metric.lower_is_better else 1.0
    out = []
    for one in results.settings:
        values = by_seed(results.runs[one.label], metric)
        for seed, run in results.runs[one.label].items():
            terms = _terms(run, plan)
            if terms is None or seed not in values:
                continue
            value = sign * values[seed]
            if kind == "headline":
                out.append(Sample("methods", f"s{seed}", one.label, terms, value))
            elif kind == "sweep":
                out.append(Sample("allocations", f"{one.point:g}s{seed}", one.label, terms, value))
            elif kind == "offline":
                budget_s = budget_of[one.label]
                out.append(Sample("ranks", f"{budget_s:g}s{seed}", one.label, terms, value))
                out.append(Sample("budgets", f"r{one.point:g}s{seed}", one.label, terms, value))
    return out


def _terms(run: Run, plan: PlanData) -> Any:
    """phi and the run's mean eps and kappa, or None where one of them is not known."""
    try:
        return bound_of_run(run, phi_of(plan, run.config["model"]["lora"]["rank"])).mean_terms
    except RaysoftError:
        return None


def row_of(kind: str, samples: Sequence[Sample]) -> Row:
    """Tau with constants fitted elsewhere, with equal ones, and of each term alone."""
    mine = [one for one in samples if one.comparison == kind]
    # "ranks" and "budgets" are the same runs in other groups: neither may fit the other's constants.
    same = {"ranks", "budgets"} if kind in ("ranks", "budgets") else {kind}
    others = [one for one in samples if one.comparison not in same]
    row: Row = {"comparison": kind, "groups": len({one.group for one in mine}), "runs": len(mine)}
    weights = fitted(others)
    trials = {"equal": EQUAL, **{f"{term}_alone": {**dict.fromkeys(TERMS, 0.0), term: 1.0} for term in TERMS}}
    if weights is not None:
        trials["fitted"] = weights
    for name, constants in trials.items():
        found = _ranking(mine, constants)
        row |= {f"{name}_tau": found.tau, f"{name}_low": found.low, f"{name}_high": found.high}
    return row | {f"weight_{term}": None if weights is None else weights[term] for term in TERMS}


def fitted(samples: Sequence[Sample]) -> dict[str, float] | None:
    """Constants c >= 0 from runs of some comparisons; None where there are no runs or no term explains them."""
    if not samples:
        return None
    _, groups = np.unique([f"{one.comparison} {one.group}" for one in samples], return_inverse=True)
    found = calibrate(np.stack([one.terms for one in samples]), np.array([one.value for one in samples]), groups)
    return dict(found.weights) if any(found.weights.values()) else None


def _ranking(samples: Sequence[Sample], weights: Mapping[str, float]) -> Any:
    psi = np.stack([one.terms for one in samples]) @ [weights[name] for name in TERMS]
    _, groups = np.unique([one.group for one in samples], return_inverse=True)
    return ranking(psi, np.array([one.value for one in samples]), Rng(0), groups)


def _tau(heading: str, key: str) -> _Column:
    def show(row: Row) -> str:
        ends = [row.get(f"{key}_{end}") for end in ("tau", "low", "high")]
        tau, low, high = (number(end, digits=2) for end in ends)
        return tau if None in ends else f"{tau} [{low}, {high}]"

    return _Column(heading, show)


def draw(kind: str, samples: Sequence[Sample], row: Row, metric: Metric) -> Any:
    """Mean Psi (fitted constants, or equal where there are none) against the mean metric, a point an arm."""
    weights = {term: row[f"weight_{term}"] for term in TERMS}
    use, used = (EQUAL, "equal") if weights[TERMS[0]] is None else (weights, "fitted")
    mine = [one for one in samples if one.comparison == kind]
    x, y, labels = [], [], list(dict.fromkeys(one.label for one in mine))
    sign = -1.0 if metric.lower_is_better else 1.0
    for label in labels:
        arm = [one for one in mine if one.label == label]
        x.append(float(np.mean([one.terms @ [use[name] for name in TERMS] for one in arm])))
        y.append(float(np.mean([sign * metric.factor * one.value for one in arm])))
    ends = tuple(row.get(f"{used}_{end}") for end in ("low", "high"))
    unit = f" ({metric.unit})" if metric.unit else ""
    return study_figures.scatter_rank(
        x,
        y,
        labels,
        row.get(f"{used}_tau"),
        x_label="Mean Ψ (fitted)" if used == "fitted" else "Mean Ψ",
        y_label=f"Final {metric.label.lower()}{unit}",
        interval=None if None in ends else ends,
    )
