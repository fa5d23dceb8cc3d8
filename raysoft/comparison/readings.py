"""What a comparison reads from one run: closing figures, the metric at an equal total cost, costs of reaching a value.

A run's records are T lines, line 0 the untouched base. An evaluation is a record with a number for the metric; what a
run has learned at some point is the mean of its last five evaluations up to there, the base left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from raysoft.quantities import LEARNED, keys_in, quantity
from raysoft.rundir.reading import Run
from raysoft.rundir.summary import FINAL_EVALUATIONS
from raysoft.types import Array

Cost = Literal["bits", "seconds", "joules"]
COSTS: tuple[Cost, ...] = ("bits", "seconds", "joules")
METRICS = {metric: quantity(metric).record_key for metric in LEARNED}
VALUE_KEYS = keys_in("row", "arm")
Values = dict[str, float | None]


def totals(run: Run) -> dict[Cost, Array]:
    """[T] uplink bits, simulated seconds and joules spent up to each record."""
    return {
        "bits": np.cumsum(np.nan_to_num(run.column("uplink_bits"))),
        "seconds": np.maximum.accumulate(np.nan_to_num(run.column("simulated_time_s"))),
        "joules": np.cumsum(np.nan_to_num(run.column("energy_j"))),
    }


def learned(run: Run, metric: str, upto_T: Array | None = None) -> float | None:
    """Mean of the last five evaluations (of those in the mask `upto_T`); the base where there is none after it."""
    values_T = run.column(METRICS[metric])
    seen_T = np.isfinite(values_T) & (True if upto_T is None else upto_T)
    after_T = seen_T & (run.column("round") >= 1)
    values = values_T[after_T if after_T.any() else seen_T][-FINAL_EVALUATIONS:]
    return float(values.mean()) if values.size else None


def base_accuracy(run: Run) -> float | None:
    """Accuracy of the untouched base."""
    values = run.column("accuracy")[run.column("round") == 0]
    return float(values[0]) if values.size and np.isfinite(values[0]) else None


def evaluations(run: Run) -> int:
    """In how many rounds accuracy was measured, the base left out."""
    return int(np.count_nonzero(np.isfinite(run.column("accuracy")) & (run.column("round") >= 1)))


def closing_values(run: Run) -> Values:
    """The figures of VALUE_KEYS that one run alone tells; the others are None."""
    summary = run.summary or {}
    metrics = summary.get("metrics", {})
    kept = run.column("kept_fraction_mean")[run.column("round") >= 1]
    kept = kept[np.isfinite(kept)]
    latency, budget = summary.get("mean_round_latency_s"), summary.get("latency_budget_s")
    values: Values = dict.fromkeys(VALUE_KEYS)
    return values | {
        "final_accuracy": summary.get("final_accuracy"),
        "final_bits_per_byte": learned(run, "bits_per_byte"),
        "uplink_mb": summary["uplink_bits_total"] / 8e6 if summary.get("uplink_bits_total") is not None else None,
        "share_dense32": metrics.get("uplink_share_of_dense32"),
        "share_dense_same_bits": metrics.get("uplink_share_of_dense_same_bits"),
        "mean_latency_s": latency,
        "latency_over_budget": latency / budget if latency is not None and budget else None,
        "simulated_s": summary.get("simulated_time_s"),
        "energy_j": summary.get("energy_j_total"),
        "worst10_client_accuracy": metrics.get("worst10_client_accuracy"),
        "kept_fraction": float(kept.mean()) if kept.size else None,
    }


def recovered_gap(run: Run, reference: Run) -> float | None:
    """(final - base) / (reference's final - base), None where the reference gained nothing. Base: each run's own."""
    base, ideal_base = base_accuracy(run), base_accuracy(reference)
    final, ideal = learned(run, "accuracy"), learned(reference, "accuracy")
    if base is None or ideal_base is None or final is None or ideal is None or ideal <= ideal_base:
        return None
    return (final - base) / (ideal - ideal_base)


@dataclass(frozen=True)
class EqualReading:
    """Where and what was read of a run at a total cost: the cost's own unit, the last round that it pays for."""

    at: float
    round: int
    accuracy: float | None
    bits_per_byte: float | None


def equal_readings(runs: Mapping[str, Run], cost: Cost) -> dict[str, EqualReading]:
    """Runs of one seed, by arm, each read at the largest total cost that all of them have reached.

    That total is the smallest of the runs' final totals. A run that spends nothing of this cost (its total stays 0)
    is read at its end and does not count for the smallest, or all would be read at the base.
    """
    spent = {label: totals(run)[cost] for label, run in runs.items()}
    ends = [float(total_T[-1]) for total_T in spent.values() if total_T[-1] > 0]
    limit = min(ends, default=0.0)
    out = {}
    for label, run in runs.items():
        total_T = spent[label]
        # Sums of the same numbers in another order may differ in the last bits.
        paid_T = total_T <= limit * (1 + 1e-9)
        last = int(run.column("round")[paid_T][-1])
        at = float(total_T[paid_T][-1])
        out[label] = EqualReading(at, last, learned(run, "accuracy", paid_T), learned(run, "bits_per_byte", paid_T))
    return out


def first_reach(run: Run, value: float) -> dict[str, float] | None:
    """Rounds, seconds, MB and joules at which the mean of five evaluations in a row first reaches an accuracy.

    The base does not count as an evaluation; None if it never does.
    """
    accuracy_T, round_T = run.column("accuracy"), run.column("round")
    (place_E,) = np.nonzero(np.isfinite(accuracy_T) & (round_T >= 1))
    if place_E.size < FINAL_EVALUATIONS:
        return None
    sums = np.cumsum(np.concatenate([[0.0], accuracy_T[place_E]]))
    means = (sums[FINAL_EVALUATIONS:] - sums[:-FINAL_EVALUATIONS]) / FINAL_EVALUATIONS
    reached = np.nonzero(means >= value - 1e-12)[0]
    if not reached.size:
        return None
    at = place_E[reached[0] + FINAL_EVALUATIONS - 1]
    spent = totals(run)
    return {
        "rounds": float(round_T[at]),
        "seconds": float(spent["seconds"][at]),
        "mb": float(spent["bits"][at]) / 8e6,
        "joules": float(spent["joules"][at]),
    }
