"""The offline stage judged by runs: what each rank reached at each budget, and the regret of the rules that choose one.

Shapes: N runs (rank, budget, seed); terms in the order of bound.TERMS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from raysoft.comparison.bound import TERMS, ScoreOrder, calibrate, ranking
from raysoft.comparison.statistics import mean_std
from raysoft.config import ScoreWeights
from raysoft.quantities import number
from raysoft.report import study_figures
from raysoft.rng import Rng
from studies.loading import Metric, Results, by_seed, metrics_of
from studies.measures import Row, arm_rows, difference_row
from studies.plans import PlanData, budgets, terms_of
from studies.product import Product
from studies.sheets import Sheet, cost_columns, interval, numeric, plus_minus, text

MIDDLE, LARGE = 4, 8
DEFAULT = "plan, default constants"
Reached = Mapping[float, Mapping[int, Mapping[int, float]]]  # metric (larger is better) by budget, rank, seed


def read(results: Results, plans: Mapping[float, PlanData]) -> Product:
    """A row a rank and budget; regrets of the plan, the fitted plan and two fixed ranks; tau; a scatter figure."""
    name, metrics = results.experiment.name, metrics_of(results.experiment.task)
    rows = _rank_rows(results, plans, metrics)
    sheets = {name: _rank_sheet(rows, metrics)}
    numbers: dict[str, Any] = {}
    figures = {}
    for metric in metrics:
        reached = reached_of(results, metric)
        rules, fitted = choices(reached, plans)
        taus = {f"{b:g} s": score_ranking({b: reached[b]}, plans) for b in reached if b in plans}
        taus["all"] = score_ranking(reached, plans)
        regrets = [row for rule, chosen in rules.items() for row in regret_rows(rule, chosen, reached, metric)]
        sheets[f"{name}-regret-{metric.name}"] = _regret_sheet(regrets, metric, taus["all"])
        numbers[metric.name] = {
            "tau": {key: None if one is None else one.__dict__ for key, one in taus.items()},
            "fitted_without_the_budget": {f"{b:g} s": weights for b, weights in fitted.items()},
        }
        scored = [row for row in rows if row.get("score") is not None and row[metric.name] is not None]
        if scored:
            figures[f"{name}-{metric.name}"] = partial(draw, scored, taus["all"], metric)
        table = heat_table(rows, metric)
        if table is not None:
            figures[f"{name}-{metric.name}-table"] = partial(draw_heat, *table, metric)
    return Product(name, sheets, figures, numbers, results.remark())


def reached_of(results: Results, metric: Metric) -> dict[float, dict[int, dict[int, float]]]:
    """The metric, its sign such that larger is better, by budget, rank and seed."""
    sign = -1.0 if metric.lower_is_better else 1.0
    out: dict[float, dict[int, dict[int, float]]] = {}
    for budget_s, settings in budgets(results.experiment).items():
        for one in settings:
            values = {seed: sign * value for seed, value in by_seed(results.runs[one.label], metric).items()}
            if values:
                out.setdefault(budget_s, {})[int(one.point)] = values
    return out


def samples(reached: Reached, plans: Mapping[float, PlanData]) -> tuple[Any, Any, Any]:
    """Terms [N, 3], metric [N] and group [N] (budget and seed) of all runs whose rank the plan measured."""
    terms, values, groups = [], [], []
    for place, (budget_s, ranks) in enumerate(sorted(reached.items())):
        known = terms_of(plans[budget_s]) if budget_s in plans else {}
        for rank, seeds in ranks.items():
            for seed, value in seeds.items():
                if rank in known:
                    terms.append(known[rank])
                    values.append(value)
                    groups.append(1000 * place + seed)
    return np.array(terms, dtype=np.float64).reshape(-1, len(TERMS)), np.array(values), np.array(groups, dtype=int)


Chosen = dict[float, int | None]


def choices(
    reached: Reached, plans: Mapping[float, PlanData]
) -> tuple[dict[str, Chosen], dict[float, dict[str, float]]]:
    """The rank that each rule chooses at each budget, and the fitted constants.

    Fitted: the plan's terms with constants fitted on the runs of the other budgets (bound.calibrate), never on those
    it is judged by; where one term alone decides nothing (all constants 0), no rank is chosen.
    """
    rules: dict[str, Chosen] = {
        "plan": {b: plans[b]["chosen_rank"] for b in reached if b in plans},
        f"always {MIDDLE}": dict.fromkeys(reached, MIDDLE),
        f"always {LARGE}": dict.fromkeys(reached, LARGE),
    }
    fitted: dict[float, dict[str, float]] = {}
    refit: Chosen = {}
    for budget_s in reached:
        terms, values, groups = samples({b: r for b, r in reached.items() if b != budget_s}, plans)
        if budget_s not in plans or not len(values):
            continue
        weights = calibrate(terms, values, groups).weights
        fitted[budget_s] = dict(weights)
        refit[budget_s] = best_rank(plans[budget_s], weights) if any(weights.values()) else None
    rules["plan, fitted on other budgets"] = refit
    default = ScoreWeights().model_dump()
    rules[DEFAULT] = {b: best_rank(plans[b], default) for b in reached if b in plans}
    return rules, fitted


def best_rank(plan: PlanData, weights: Mapping[str, float]) -> int:
    """The rank with the smallest score by these constants; the smaller one of two."""
    scores = {rank: float(np.dot(t, [weights[name] for name in TERMS])) for rank, t in terms_of(plan).items()}
    return min(scores, key=lambda rank: (scores[rank], rank))


def regret_rows(rule: str, chosen: Chosen, reached: Reached, metric: Metric) -> list[Row]:
    """Regret of a rule at each budget and over all: best rank (by mean over seeds) minus chosen, paired by seed."""
    rows: list[Row] = []
    lost: list[dict[int, float]] = []
    for budget_s, ranks in sorted(reached.items()):
        rank = chosen.get(budget_s)
        row: Row = {"metric": metric.name, "rule": rule, "budget": f"{budget_s:g} s", "chosen": rank}
        if rank is None or rank not in ranks:
            rows.append(row)
            continue
        best = max(ranks, key=lambda one: (mean_std(list(ranks[one].values()))[0], -one))
        row |= {"best": best} | difference_row(f"{metric.name}_regret", ranks[best], ranks[rank])
        rows.append(row)
        lost.append({s: ranks[best][s] - ranks[rank][s] for s in set(ranks[best]) & set(ranks[rank])})
    common = set.intersection(*map(set, lost)) if lost else set()
    if common and len(lost) == len(reached) > 1:
        means = {seed: float(np.mean([one[seed] for one in lost])) for seed in sorted(common)}
        row = {"metric": metric.name, "rule": rule, "budget": "all (mean)"}
        rows.append(row | difference_row(f"{metric.name}_regret", means, dict.fromkeys(means, 0.0)))
    return rows


def score_ranking(reached: Reached, plans: Mapping[float, PlanData]) -> ScoreOrder | None:
    """Kendall's tau of -score and the metric within each budget and seed, averaged; None without a plan or run."""
    scores, values, groups = [], [], []
    for place, (budget_s, ranks) in enumerate(sorted(reached.items())):
        known = {c["rank"]: c["score"] for c in plans.get(budget_s, {}).get("candidates", ())}
        for rank, seeds in ranks.items():
            if known.get(rank) is not None:
                scores += [known[rank]] * len(seeds)
                values += list(seeds.values())
                groups += [1000 * place + seed for seed in seeds]
    return ranking(np.array(scores), np.array(values), Rng(0), np.array(groups)) if values else None


def _rank_rows(results: Results, plans: Mapping[float, PlanData], metrics: Sequence[Metric]) -> list[Row]:
    rows = arm_rows(results, metrics)
    budget_of = {one.label: b for b, settings in budgets(results.experiment).items() for one in settings}
    for row in rows:
        row["budget_s"] = budget_of[row["arm"]]
        row["rank"] = int(row["point"])
        candidates = plans.get(row["budget_s"], {}).get("candidates", ())
        planned = next((one for one in candidates if one["rank"] == row["rank"]), {})
        names = ("phi", "sparsification", "covariance", "score", "score_error", "verdict", "reason", "kept_fraction")
        row |= {("planned_kept" if key == "kept_fraction" else key): planned.get(key) for key in names}
    return rows


def _rank_sheet(rows: Sequence[Row], metrics: Sequence[Metric]) -> Sheet:
    columns = [numeric("Budget s", "budget_s", digits=2), numeric("Rank", "rank", digits=0)]
    columns += [numeric("Seeds", "seeds", digits=0)]
    columns += [plus_minus(f"{m.label} {m.unit}".strip(), m.name, m.factor, m.digits) for m in metrics]
    columns += [
        numeric("φ", "phi", digits=3),
        numeric("ε", "sparsification", digits=3),
        numeric("κ", "covariance", digits=4),
        plus_minus("Score", "score", digits=3),
        text("Plan", "verdict"),
    ]
    columns += cost_columns("kept_fraction", "latency_over_budget", "share_dense32")
    shown = [row | {"score_std": row.get("score_error")} for row in rows]
    note = "Plan: φ, ε, κ, score ± standard error and verdict of the offline stage (constants 1, seed 0)."
    return Sheet(tuple(columns), tuple(shown), note)


def _regret_sheet(rows: Sequence[Row], metric: Metric, tau: ScoreOrder | None) -> Sheet:
    key = f"{metric.name}_regret"
    unit = " (points)" if metric.unit == "%" else ""
    columns = (
        text("Rule", "rule"),
        text("Budget", "budget"),
        numeric("Chosen", "chosen", digits=0),
        numeric("Best", "best", digits=0),
        interval(
            f"Regret in {metric.label.lower()}{unit} [95 %]",
            f"{key}_difference",
            f"{key}_low",
            f"{key}_high",
            metric.factor,
            metric.digits,
        ),
    )
    note = (
        "Regret: the best rank (by its mean on these runs, which favours it) minus the chosen, paired by seed. Plan: "
        "constants 1. Default constants: those of plan.weights, fitted on the python-source runs."
    )
    if tau is not None and tau.tau is not None:
        note += (
            f" Kendall's tau of the negative score and {metric.label.lower()} within budget and seed: "
            f"{number(tau.tau, digits=2)} [{number(tau.low, digits=2)}, {number(tau.high, digits=2)}]."
        )
    return Sheet(columns, tuple(rows), note)


def draw(rows: Sequence[Row], tau: ScoreOrder | None, metric: Metric) -> Any:
    """Score against the metric's mean, a point a rank and budget."""
    unit = f" ({metric.unit})" if metric.unit else ""
    ends = None if tau is None or tau.low is None or tau.high is None else (tau.low, tau.high)
    return study_figures.scatter_rank(
        [row["score"] for row in rows],
        [metric.factor * row[metric.name] for row in rows],
        [f"r{row['rank']}, {row['budget_s']:g} s" for row in rows],
        None if tau is None else tau.tau,
        y_label=f"{metric.label}{unit}",
        interval=ends,
    )


def heat_table(rows: Sequence[Row], metric: Metric) -> tuple[Any, list[str], list[str]] | None:
    """[budgets, ranks] means of the metric, NaN for none; with the names of both."""
    found = [row for row in rows if row[metric.name] is not None]
    if len(found) < 2:
        return None
    seconds, ranks = (sorted({row[key] for row in found}) for key in ("budget_s", "rank"))
    table = np.full((len(seconds), len(ranks)), np.nan)
    for row in found:
        table[seconds.index(row["budget_s"]), ranks.index(row["rank"])] = metric.factor * row[metric.name]
    return table, [f"{one:g}" for one in seconds], [str(one) for one in ranks]


def draw_heat(table: Any, names: Sequence[str], ranks: Sequence[str], metric: Metric) -> Any:
    """The same as colours."""
    unit = f" ({metric.unit})" if metric.unit else ""
    return study_figures.heat(
        table,
        names,
        ranks,
        f"{metric.label}{unit}",
        row_label="Latency budget (s)",
        column_label="LoRA rank",
        digits=1 if metric.unit == "%" else 3,
    )
