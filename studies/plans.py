"""Plans of the offline stage for the study: one a task and budget, made once and found again by configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raysoft.config import RunConfig
from raysoft.config.presets import load_config
from raysoft.planning.stage import make_plan
from raysoft.planning.table import write_plan
from raysoft.rundir.folder import PLAN
from studies.settings import Experiment, Setting

PlanData = Mapping[str, Any]  # plan.json


def plan_config(experiment: Experiment, budget_s: float) -> RunConfig:
    """The configuration whose offline stage chooses among the ranks that the experiment runs at this budget."""
    rows = budgets(experiment)[budget_s]
    ranks = sorted(int(one.point) for one in rows)
    arm, reference = rows[0].arm, int(rows[0].point)
    scale = load_config(arm.target, [*arm.shared, *arm.overrides], "inline").model.lora.scale()
    plan = (
        "model.lora.rank=plan",
        f"model.lora.alpha={scale * reference:g}",
        f"plan.reference_rank={reference}",
        f"plan.ranks={ranks}",
        "plan.weights={rank: 1, sparsification: 1, covariance: 1}",
        "seed=0",
    )
    return load_config(arm.target, [*arm.shared, *arm.overrides, *plan], "inline")


def budgets(experiment: Experiment) -> dict[float, list[Setting]]:
    """The arms of an offline experiment by latency budget."""
    out: dict[float, list[Setting]] = {}
    for one in experiment.settings:
        budget_s = one.arm.config(0).allocator.options()["latency_budget_s"]
        out.setdefault(float(budget_s), []).append(one)
    return out


def plans_of(experiment: Experiment, folder: Path, compute: bool = True) -> dict[float, PlanData]:
    """plan.json by budget, from `folder` where it stands there; else made and written, or left out."""
    out: dict[float, PlanData] = {}
    for budget_s in budgets(experiment):
        config = plan_config(experiment, budget_s)
        own = folder / f"{experiment.task.name}-{budget_s:g}s-{config.config_hash()[:8]}"
        if not (own / PLAN).is_file():
            if not compute:
                continue
            write_plan(own, make_plan(config))
        out[budget_s] = json.loads((own / PLAN).read_text(encoding="utf-8"))
    return out


def terms_of(plan: PlanData) -> dict[int, tuple[float, float, float]]:
    """phi, eps and kappa of each rank that the budget admits."""
    return {
        int(one["rank"]): (one["phi"], one["sparsification"], one["covariance"])
        for one in plan["candidates"]
        if one["score"] is not None
    }
