"""`raysoft compare`: arms x seeds with common random numbers, run or found, then read, tested and written down."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysoft.comparison.arms import Arm, check_workers, parse_arms, pick_reference, seed_range
from raysoft.comparison.batch import BatchEvents, Job, JobOutcome, run_batch
from raysoft.comparison.readings import COSTS, Cost
from raysoft.comparison.result import comparison_data
from raysoft.comparison.store import CLAIMS, slug
from raysoft.comparison.tables import write_tables
from raysoft.errors import ConfigError, RaysoftError
from raysoft.federation.content import content_of
from raysoft.rundir.comparable import grounds_of, refusal
from raysoft.rundir.destination import local_destination
from raysoft.rundir.folder import check_name, write_atomic
from raysoft.rundir.places import check_made, made, names_in
from raysoft.rundir.reading import Run, read_run

COMPARISON = "comparison.json"
STORE = "runs"  # the store's folder below outputs/ (or RAYSOFT_OUTPUTS)


@dataclass(frozen=True)
class ComparisonPlan:
    """A checked comparison: arms, seeds, one job a pair of them (arm by arm), where it is written."""

    arms: tuple[Arm, ...]
    seeds: range
    jobs: tuple[Job, ...]
    reference: str
    margin: float
    equal: Cost | None
    name: str
    folder: Path
    store: Path


@dataclass(frozen=True)
class Comparison:
    """A finished comparison: its folder, the contents of comparison.json, the report, the jobs that failed.

    `notes`: sentences on arms that have no finished run at all and are left out.
    """

    folder: Path
    data: dict[str, Any]
    report: Path
    failed: tuple[JobOutcome, ...] = ()
    notes: tuple[str, ...] = ()


def plan_comparison(
    arguments: Sequence[str] | Sequence[Arm],
    *,
    seeds: int,
    out: Path | str | None,
    store: Path | str | None,
    first_seed: int = 0,
    equal: str | None = None,
    reference: str | None = None,
    margin: float = 0.01,
    workers: int = 2,
    name: str | None = None,
) -> ComparisonPlan:
    """Check everything that can be checked without running anything: arms (`[LABEL:]TARGET [key=value ...]`) and seeds.

    Arms of one seed share data split, cohorts and channels. `equal`: metrics are read at the largest total of uplink
    bits, simulated seconds or joules that all arms of a seed have reached (see readings.equal_readings). `margin`: of
    non-inferiority in accuracy; bits per byte have 2 % of the reference.

    Raises ConfigError.
    """
    given = [one for one in arguments if isinstance(one, Arm)]
    arms = given or parse_arms([one for one in arguments if isinstance(one, str)])
    if equal is not None and equal not in COSTS:
        raise ConfigError("--equal", f"must be one of {', '.join(COSTS)}, got {equal!r:.40}")
    if not 0 < margin < 1:
        raise ConfigError("--margin", f"must be above 0 and below 1 (0.01 is one point of accuracy), got {margin:g}")
    check_workers(workers)
    if name is not None and out is not None:
        raise ConfigError("--name", "cannot be given together with --out, which names the folder")
    chosen = pick_reference(arms, reference)
    span = seed_range(seeds, first_seed)
    default = "-vs-".join(slug(arm.label) for arm in arms)[:64].rstrip("-._")
    folder = local_destination(None if out is None else str(out), default if name is None else check_name(name))
    kept = local_destination(None if store is None else str(store), STORE, "--store")
    _check_folder(folder)
    check_made(kept, "--store", CLAIMS)
    _check_comparable(arms, span[0])
    jobs = tuple(Job(arm.label, arm.config(seed)) for arm in arms for seed in span)
    cost = next((cost for cost in COSTS if cost == equal), None)
    return ComparisonPlan(tuple(arms), span, jobs, chosen, margin, cost, folder.resolve().name, folder, kept)


def _check_comparable(arms: Sequence[Arm], seed: int) -> None:
    """Refuse arms that are not evaluated on the same samples, or do not begin from the same base."""
    configs = [arm.config(seed) for arm in arms]
    sides = [grounds_of(config.model_dump(mode="json"), content_of(config)) for config in configs]
    if problem := refusal([arm.label for arm in arms], sides):
        raise ConfigError("arms", problem)


def _check_folder(folder: Path) -> None:
    """A comparison may replace a comparison, and nothing else."""
    there = names_in(folder, "--out")
    if there and COMPARISON not in there:
        raise ConfigError("--out", f"{folder} holds something other than a comparison; choose another --name or --out")
    check_made(folder, "--out")


def carry_out(
    plan: ComparisonPlan, workers: int, events: BatchEvents | None = None, remarks: Sequence[str] = ()
) -> Comparison:
    """Run what is missing, read all runs, write the folder. `remarks` come before the notes on what is left out.

    Raises RaysoftError where no arm has a finished run.
    """
    made(plan.folder, "--out")  # before hours of runs, not after
    outcomes = run_batch(plan.jobs, plan.store, workers, events)
    runs: dict[str, dict[int, Run]] = {arm.label: {} for arm in plan.arms}
    for outcome in outcomes:
        if outcome.folder is not None:
            runs[outcome.job.label][outcome.job.config.seed] = read_run(outcome.folder)
    failed = tuple(outcome for outcome in outcomes if outcome.error is not None)
    if not any(runs.values()):
        raise RaysoftError(f"no run finished, so nothing is compared\n{failures(failed)}")
    arms, reference, notes = _with_runs(plan, runs)
    notes = [*remarks, *notes]
    runs = {arm.label: runs[arm.label] for arm in arms}
    data = comparison_data(
        plan.name,
        plan.folder,
        plan.store,
        arms=arms,
        runs=runs,
        reference=reference,
        margin=plan.margin,
        equal=plan.equal,
    )
    data |= {"notes": [*notes, *(f"Failed: {line.strip()}" for line in failures(failed).splitlines())]}
    write_atomic(plan.folder / COMPARISON, json.dumps(data, indent=1, allow_nan=False) + "\n")
    write_tables(data, plan.folder)
    from raysoft.report.comparison.html import write_comparison_report
    from raysoft.report.wish import Wish

    said = plan.jobs[0].config.report  # today's: runs that were found may have been asked for other files
    wish = Wish(tuple(said.formats), said.width or "column")
    if events is not None:
        events.preparing(0.0, "drawing the report")
    return Comparison(plan.folder, data, write_comparison_report(plan.folder, wish), failed, tuple(notes))


def _with_runs(plan: ComparisonPlan, runs: Mapping[str, Mapping[int, Run]]) -> tuple[list[Arm], str, list[str]]:
    """The arms that have a finished run, the reference among them, and what has to be said of the others."""
    arms = [arm for arm in plan.arms if runs[arm.label]]
    notes = [f"Arm {arm.label!r} is left out: none of its runs finished." for arm in plan.arms if not runs[arm.label]]
    if runs[plan.reference]:
        return arms, plan.reference, notes
    reference = pick_reference(arms, None)
    return arms, reference, [*notes, f"So the reference is {reference!r}, not {plan.reference!r}."]


def failures(failed: Sequence[JobOutcome]) -> str:
    """One line a run that failed."""
    return "\n".join(f"  {item.job.label}, seed {item.job.config.seed}: {item.error}" for item in failed)
