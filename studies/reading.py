"""From finished runs to the study's tables, figures and numbers. Missing runs are left out and named.

OUT/tables/NAME.md and .csv   OUT/figures/NAME*.png   OUT/numbers.json   OUT/headline-TASK/ as `raysoft compare` writes
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from raysoft.comparison.batch import JobOutcome
from raysoft.rundir.folder import strict, write_atomic
from studies import findings, frontiers, grain, headline, ranks, smaller, surrogate, sweeps
from studies.loading import Results, read_results
from studies.plans import PlanData, plans_of
from studies.product import Product, numbers_of, write_product
from studies.settings import Experiment
from studies.sheets import Sheet, numeric, text

NUMBERS = "numbers.json"
READERS = {
    "frontier": frontiers.read,
    "sweep": sweeps.read,
    "options": smaller.read_options,
    "optimizers": smaller.read_arms,
    "head": smaller.read_arms,
    "grain": grain.read,
    "grain-tuning": smaller.read_arms,
    "tradeoff": smaller.read_tradeoff,
}


def report(
    experiments: Sequence[Experiment], outcomes: Sequence[JobOutcome], out: Path, publish: bool, plan: bool = True
) -> None:
    """Read, tabulate and draw all experiments; `plan`: make the offline stage's plans that are not there yet.

    `outcomes` are those of all jobs, experiment by experiment. numbers.json keeps the parts of experiments that are
    not among these. Raises RaysoftError where a run folder is damaged or nothing can be written.
    """
    for folder in ("tables", "figures", "plans"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    results = read_results(experiments, outcomes)
    plans: dict[str, Mapping[float, PlanData]] = {
        one.experiment.task.name: plans_of(one.experiment, out / "plans", plan)
        for one in results.values()
        if _kind(one) == "offline" and any(one.runs.values())
    }
    numbers = _earlier(out / NUMBERS)
    for product in [*products(results, plans, out), overview(results)]:
        drawn = write_product(product, out)
        numbers[product.name] = numbers_of(product)
        print(f"{product.name}: {len(product.sheets)} tables, {len(drawn)} figures. {product.remark}".rstrip())
    for product in findings.read(numbers):  # of today's and earlier readings
        write_product(product, out)
    write_atomic(out / NUMBERS, json.dumps(strict(numbers), indent=1, allow_nan=False) + "\n")
    if publish:
        from studies.publishing import publish_study

        publish_study(out)


def products(results: Mapping[str, Results], plans: Mapping[str, Mapping[float, PlanData]], out: Path) -> list[Product]:
    """Everything that these results fill; an experiment without any run yields its remark only."""
    found = []
    for name, one in results.items():
        if not any(one.runs.values()):
            print(f"{name}: no finished run", file=sys.stderr)
        elif _kind(one) == "headline":
            found.append(headline.read(one, out))
        elif _kind(one) == "offline":
            found.append(ranks.read(one, plans[one.experiment.task.name]))
        else:
            found.append(READERS[_kind(one)](one))
    for task in {one.experiment.task.name: one.experiment.task for one in results.values()}.values():
        mine = {name: one for name, one in results.items() if one.experiment.task is task}
        bound = surrogate.read(task, mine, plans.get(task.name, {}))
        if bound is not None:
            found.append(bound)
    return found


def overview(results: Mapping[str, Results]) -> Product:
    """What was run: arms, seeds, runs and rounds of every experiment."""
    rows = []
    for name, one in results.items():
        seeds = sorted({setting.seeds for setting in one.experiment.settings})
        rounds = sorted({job.config.rounds for job in one.experiment.jobs()})
        found = sum(map(len, one.runs.values()))
        rows.append(
            {
                "experiment": name,
                "arms": len(one.experiment.settings),
                "seeds": _span(seeds),
                "rounds": _span(rounds),
                "runs": len(one.experiment.jobs()),
                "finished": found,
                "reference": one.experiment.reference,
            }
        )
    columns = (
        text("Experiment", "experiment"),
        numeric("Arms", "arms", digits=0),
        text("Seeds", "seeds"),
        text("Rounds", "rounds"),
        numeric("Runs", "runs", digits=0),
        numeric("Finished", "finished", digits=0),
        text("Compared with", "reference"),
    )
    return Product("experiments", {"experiments": Sheet(columns, tuple(rows))})


def _span(values: Sequence[int]) -> str:
    return f"{values[0]}" if values[0] == values[-1] else f"{values[0]} to {values[-1]}"


def _kind(one: Results) -> str:
    """What an experiment is: its name before the task."""
    return one.experiment.name.partition(f"-{one.experiment.task.name}")[0]


def _earlier(path: Path) -> dict[str, object]:
    """numbers.json of an earlier reading, or nothing."""
    if not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else {}
