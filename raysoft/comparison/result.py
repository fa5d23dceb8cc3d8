"""From finished runs to the contents of comparison.json: values by seed, means, paired tests, time to accuracy.

A comparison holds runs by arm and seed; whatever is compared uses the seeds that both sides have.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raysoft.comparison.arms import Arm
from raysoft.comparison.readings import (
    METRICS,
    VALUE_KEYS,
    Cost,
    EqualReading,
    base_accuracy,
    closing_values,
    equal_readings,
    evaluations,
    first_reach,
    learned,
    recovered_gap,
)
from raysoft.comparison.statistics import LEVEL, holm, margin_tests, mean_std, paired_difference
from raysoft.quantities import quantity
from raysoft.rundir.folder import strict
from raysoft.rundir.reading import Run
from raysoft.rundir.summary import accuracy_name_in

FORMAT = 1
RELATIVE_MARGIN = 0.02  # of the reference's bits per byte
TARGETS = (0.5, 0.9, 0.95)  # of the reference's gain over the base
Runs = Mapping[str, Mapping[int, Run]]  # arm label, seed


def comparison_data(
    name: str,
    folder: Path,
    store: Path,
    *,
    arms: Sequence[Arm],
    runs: Runs,
    reference: str,
    margin: float,
    equal: Cost | None,
) -> dict[str, Any]:
    """The contents of comparison.json (format 1); every arm of `runs` has at least one run."""
    readings = _equal_by_arm(runs, equal)
    rows = [_arm(arm, runs, reference, readings, folder) for arm in arms]
    data = {
        "format": FORMAT,
        "name": name,
        "store": _relative(store, folder),
        "reference": reference,
        "accuracy_name": _accuracy_name(runs[reference]),
        "margin": margin,
        "margin_bits_per_byte_relative": RELATIVE_MARGIN,
        "equal": equal,
        "arms": rows,
        "pairs": pairs(rows, reference, margin, equal),
        "fewest_evaluations": min(evaluations(run) for by_seed in runs.values() for run in by_seed.values()),
        "time_to": [row for arm in arms for row in time_to(arm.label, runs, reference)],
    }
    out: dict[str, Any] = strict(data)
    return out


def _accuracy_name(runs: Mapping[int, Run]) -> str:
    """What the accuracy of these runs is called; arms of one comparison share their task."""
    return accuracy_name_in(next(iter(runs.values())).config)


def _relative(path: Path, folder: Path) -> str:
    return os.path.relpath(path.resolve(), folder.resolve())


def _equal_by_arm(runs: Runs, equal: Cost | None) -> dict[str, dict[int, EqualReading]]:
    """Readings at an equal total, by arm and seed; empty where none was asked for."""
    out: dict[str, dict[int, EqualReading]] = {label: {} for label in runs}
    if equal is not None:
        for seed in sorted({seed for by_seed in runs.values() for seed in by_seed}):
            here = {label: by_seed[seed] for label, by_seed in runs.items() if seed in by_seed}
            for label, reading in equal_readings(here, equal).items():
                out[label][seed] = reading
    return out


def _arm(
    arm: Arm, runs: Runs, reference: str, readings: Mapping[str, Mapping[int, EqualReading]], folder: Path
) -> dict[str, Any]:
    rows = []
    for seed, run in sorted(runs[arm.label].items()):
        values: dict[str, Any] = closing_values(run)
        if seed in runs[reference]:
            values["recovered_gap"] = recovered_gap(run, runs[reference][seed])
        if (reading := readings[arm.label].get(seed)) is not None:
            values |= {"equal_accuracy": reading.accuracy, "equal_bits_per_byte": reading.bits_per_byte}
            values |= {"equal_at": reading.at, "equal_round": reading.round}
        rows.append({"seed": seed, "folder": _relative(run.path, folder), **values})
    keys = [*VALUE_KEYS, *(("equal_at", "equal_round") if readings[arm.label] else ())]
    columns = {key: [row[key] for row in rows if row.get(key) is not None] for key in keys}
    return {
        "label": arm.label,
        "target": arm.target,
        "overrides": [*arm.shared, *arm.overrides],
        "runs": rows,
        "mean": {key: mean_std(values)[0] for key, values in columns.items()},
        "std": {key: mean_std(values)[1] for key, values in columns.items()},
    }


def pairs(arms: Sequence[Mapping[str, Any]], reference: str, margin: float, equal: Cost | None) -> list[dict[str, Any]]:
    """Each arm against the reference, metric by metric, over the seeds that both have.

    Metrics are final values, or those at an equal total cost where `equal` says so. Verdicts are at 5 % after Holm's
    adjustment over all rows.
    """
    base = next(arm for arm in arms if arm["label"] == reference)
    rows = []
    for metric in METRICS:
        key = f"{'equal' if equal else 'final'}_{metric}"
        b = _by_seed(base, key)
        for arm in arms:
            a = _by_seed(arm, key)
            seeds = sorted(set(a) & set(b))
            if arm is base or not seeds:
                continue
            a_S, b_S = [a[seed] for seed in seeds], [b[seed] for seed in seeds]
            text, lower = quantity(metric).text_task, quantity(metric).lower_is_better
            found = paired_difference(a_S, b_S)
            tests = margin_tests(a_S, b_S, RELATIVE_MARGIN if text else margin, relative=text, lower_is_better=lower)
            rows.append(
                {
                    "arm": arm["label"],
                    "metric": metric,
                    "seeds": found.seeds,
                    "difference": found.difference,
                    "low": found.low,
                    "high": found.high,
                    "p_noninferior": tests.noninferior,
                    "p_equivalent": tests.equivalent,
                }
            )
    adjusted = holm([row["p_noninferior"] for row in rows])
    equivalent = holm([row["p_equivalent"] for row in rows])
    for row, p, q in zip(rows, adjusted, equivalent, strict=True):
        row |= {"p_holm": p, "noninferior": None if p is None else p <= LEVEL}
        row |= {"equivalent": None if q is None else q <= LEVEL}
    return rows


def _by_seed(arm: Mapping[str, Any], key: str) -> dict[int, float]:
    return {run["seed"]: run[key] for run in arm["runs"] if run.get(key) is not None}


def time_to(label: str, runs: Runs, reference: str) -> list[dict[str, Any]]:
    """What an arm spent until it first held 50, 90 and 95 % of the reference's gain in accuracy over the base.

    Targets are those of each seed; costs are means over the seeds that reached theirs, null where none did.
    """
    rows = []
    for fraction in TARGETS:
        values, costs = [], []
        for seed, run in runs[label].items():
            value = _target(runs[reference].get(seed), fraction)
            if value is not None:
                values.append(value)
                if (cost := first_reach(run, value)) is not None:
                    costs.append(cost)
        means = {key: mean_std([cost[key] for cost in costs])[0] for key in ("rounds", "seconds", "mb", "joules")}
        name = f"{100 * fraction:g} %"
        rows.append({"arm": label, "target": name, "value": mean_std(values)[0], **means, "seeds_reached": len(costs)})
    return rows


def _target(reference: Run | None, fraction: float) -> float | None:
    """base + fraction of the gain; None where the reference has no run of the seed, or gained nothing."""
    if reference is None:
        return None
    base, final = base_accuracy(reference), learned(reference, "accuracy")
    if base is None or final is None or final <= base:
        return None
    return base + fraction * (final - base)
