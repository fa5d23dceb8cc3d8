"""The headline comparison of a task: a folder as `raysoft compare` writes it, one wide table, copies of its figures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raysoft.comparison.compare import COMPARISON
from raysoft.comparison.result import comparison_data
from raysoft.comparison.tables import time_to_table, write_tables
from raysoft.quantities import number
from raysoft.report.comparison.data import trace
from raysoft.report.comparison.html import write_comparison_report
from raysoft.report.comparison.panels import progress
from raysoft.report.labels import looks_of
from raysoft.rundir.folder import FIGURES, write_atomic
from studies.loading import ACCURACY, Metric, Results, metrics_of
from studies.measures import Row
from studies.product import Draw, Product
from studies.sheets import Column, Sheet, cost_columns, metric_columns, numeric, plus_minus, text, verdict

MARGIN = 0.01  # of accuracy; bits per byte have raysoft.comparison.result.RELATIVE_MARGIN
PICTURES = (  # the comparison's figures that the study shows
    "difference_accuracy",
    "difference_bits_per_byte",
    "pareto_accuracy_mb",
    "pareto_bits_per_byte_mb",
    "latency_cdf",
    "kept_by_gain",
    "worst10_clients",
)
CURVES = ("ideal", "soft", "soft-plus", "equal", "fedit 4 bit", "top-k")  # more lines hide each other


def read(results: Results, out: Path) -> Product:
    """Write OUT/NAME (comparison.json, tables, report) of the arms that have runs; the table with all verdicts."""
    name, reference = results.experiment.name, results.experiment.reference
    if not results.reference:
        return Product(name, remark=f"{results.remark()} No run of {reference}, so nothing is compared.")
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    arms = [one.arm for one in results.settings]
    data = comparison_data(
        name, folder, out / "runs", arms=arms, runs=results.runs, reference=reference, margin=MARGIN, equal=None
    )
    write_atomic(folder / COMPARISON, json.dumps(data, indent=1, allow_nan=False) + "\n")
    write_tables(data, folder)
    write_comparison_report(folder)
    copy_pictures(folder / FIGURES, out / "figures", name)
    metrics = metrics_of(results.experiment.task)
    rows = tuple(arm_row(arm, data) for arm in data["arms"])
    sheets = {name: Sheet(tuple(test_columns(metrics, reference)), rows, _note(data))}
    sheets[f"{name}-costs"] = Sheet(tuple(more_columns()), rows, _COSTS_NOTE)
    sheets[f"{name}-time"] = _time_sheet(data)
    return Product(name, sheets, curves(results), {}, results.remark())


def curves(results: Results) -> dict[str, Draw]:
    """Metrics against seconds and megabytes for a few arms, which look as they do in the report."""
    looks = looks_of([one.label for one in results.settings])
    traces = {
        label: [trace(run, seed) for seed, run in sorted(results.runs[label].items())]
        for label in CURVES
        if results.runs.get(label)
    }
    out: dict[str, Draw] = {}
    for metric in metrics_of(results.experiment.task):
        part = progress(metric.name, traces, looks)
        for axis in ("seconds", "mb") if part is not None else ():
            picture = f"{metric.name}_{axis}"
            if picture in part.drawings:
                out[f"{results.experiment.name}-{picture.replace('_', '-')}"] = part.drawings[picture]
    return out


def copy_pictures(source: Path, target: Path, name: str) -> None:
    """Copy what the study shows to NAME-FIGURE.png, and remove those that no longer exist."""
    target.mkdir(parents=True, exist_ok=True)
    for picture in PICTURES:
        here, there = source / f"{picture}.png", target / f"{name}-{picture.replace('_', '-')}.png"
        if here.is_file():
            shutil.copyfile(here, there)
        else:
            there.unlink(missing_ok=True)


def arm_row(arm: Mapping[str, Any], data: Mapping[str, Any]) -> Row:
    """Means and deviations of an arm and its paired tests, unrounded."""
    row: Row = {"arm": arm["label"], "seeds": len(arm["runs"])}
    for key, value in arm["mean"].items():
        short = key.removeprefix("final_") if key in ("final_accuracy", "final_bits_per_byte") else key
        row |= {short: value, f"{short}_std": arm["std"].get(key)}
    for pair in data["pairs"]:
        if pair["arm"] == arm["label"]:
            row |= {f"{pair['metric']}_{key}": value for key, value in pair.items() if key not in ("arm", "metric")}
    return row


def test_columns(metrics: tuple[Metric, ...], reference: str) -> list[Column]:
    """Metrics with their tests, and the two costs that the comparison is about."""
    out = [text("Arm", "arm"), numeric("Seeds", "seeds", digits=0)]
    for metric in metrics:
        out += metric_columns(metric, reference)
        out += [
            _p("p (Holm)", f"{metric.name}_p_holm"),
            verdict("Non-inferior", f"{metric.name}_noninferior"),
            verdict("Equivalent", f"{metric.name}_equivalent"),
        ]
    return [*out, *cost_columns("share_dense32", "latency_over_budget")]


def more_columns() -> list[Column]:
    """Everything else that an arm costs and reaches."""
    out = [text("Arm", "arm"), *cost_columns("uplink_mb", "share_dense32", "share_dense_same_bits", "kept_fraction")]
    out += cost_columns("mean_latency_s", "latency_over_budget", "simulated_s", "energy_j", "recovered_gap")
    return [*out, plus_minus("Worst 10 % clients %", "worst10_client_accuracy", ACCURACY.factor, 1)]


def _p(heading: str, key: str) -> Column:
    def show(row: Row) -> str:
        value = row.get(key)
        return number(value) if value is None else "< 0.001" if value < 1e-3 else f"{value:.3f}"

    return Column(heading, show)


def _note(data: Mapping[str, Any]) -> str:
    bits = any(pair["metric"] == "bits_per_byte" for pair in data["pairs"])
    margin = f"{100 * data['margin']:g} point of accuracy"
    margin += f", {100 * data['margin_bits_per_byte_relative']:g} % of the reference's bits per byte" if bits else ""
    return (
        f"Mean ± standard deviation over seeds; differences to {data['reference']} are paired by seed, with 95 % t "
        f"intervals. Margin: {margin}; p of non-inferiority and verdicts at 5 % after Holm's adjustment over "
        "the table."
    )


_COSTS_NOTE = (
    "Means over seeds of whole runs. Of dense, same bits: of the uplink that sends every value at the arm's own bits "
    "per value. Recovered gap: gain over the base as a share of the reference's."
)


def _time_sheet(data: Mapping[str, Any]) -> Sheet:
    """What each arm spent until it first held a part of the reference's gain in accuracy."""
    table = time_to_table(data)
    rows = tuple(dict(zip(table.heading, cells, strict=True)) for cells in table.rows)
    note = "The mean of five evaluations in a row first reaches this part of the reference's gain over the base."
    return Sheet(tuple(text(name, name) for name in table.heading), rows, note)
