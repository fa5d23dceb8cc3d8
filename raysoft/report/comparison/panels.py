"""What a comparison's report shows, part by part: the figures, and a caption with the numbers seen in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from raysoft.quantities import LEARNED, quantity
from raysoft.report import row_figures as rows_of
from raysoft.report.chart import Chart
from raysoft.report.comparison import captions, figures
from raysoft.report.comparison.data import Trace, clients_of, kept_by_gain, mean_curve
from raysoft.report.comparison.figures import Point
from raysoft.report.comparison.file import ArmRecord, ComparisonFile
from raysoft.report.labels import looks_of
from raysoft.report.row_figures import DifferenceRow, Looks, Reach, Sample
from raysoft.rundir.summary import FINAL_EVALUATIONS

AXIS_LABELS = {
    "rounds": quantity("round").heading(),
    "seconds": quantity("simulated_s").heading(),
    "mb": quantity("uplink_mb").heading(),
    "joules": quantity("energy_j").heading(),
}
COSTS = {"mb": "uplink_mb", "latency": "mean_latency_s", "joules": "energy_j"}


@dataclass(frozen=True)
class Panel:
    """One section of the report: figures by file name, and a caption in words and numbers."""

    name: str
    title: str
    drawings: Mapping[str, Callable[[], Chart | None]]
    caption: str
    alt: Mapping[str, str] = field(default_factory=dict)


def parts(file: ComparisonFile, traces: Mapping[str, Sequence[Trace]]) -> list[Panel]:
    """All parts that these data can fill; `traces` holds what is known of the runs, by label."""
    looks = looks_of(file.labels)
    metrics = ["accuracy", *(m for m in LEARNED[1:] if any(arm.values(f"final_{m}") for arm in file.arms))]
    labels = {m: quantity(m).heading() for m in metrics} | {"accuracy": f"{file.accuracy_name.capitalize()} (%)"}
    found = [progress(metric, traces, looks, labels[metric]) for metric in metrics]
    found += [differences(file, metric, looks) for metric in metrics]
    found += [fronts(file, metric, looks, labels[metric]) for metric in metrics]
    found += [
        reach(file, looks),
        latencies(traces, looks),
        recovered(file, looks),
        fairness(file, looks),
        kept(traces, looks),
    ]
    return [part for part in found if part is not None]


def progress(
    metric: str, traces: Mapping[str, Sequence[Trace]], looks: Looks, y_label: str | None = None
) -> Panel | None:
    """The metric against round, simulated time, megabytes and joules."""
    drawings: dict[str, Callable[[], Chart | None]] = {}
    y_label = y_label or quantity(metric).heading()
    shown, apart = None, False
    for axis, x_label in AXIS_LABELS.items():
        ends = [float(item.costs[axis][-1]) for seeds in traces.values() for item in seeds]
        positive = [end for end in ends if end > 0]
        log = axis != "rounds" and len(positive) > 1 and max(positive) >= 8 * min(positive)
        lines = []
        for label, seeds in traces.items():
            line = mean_curve(label, seeds, axis, metric, log)
            if line is not None:
                lines.append(line.scaled(quantity(metric).factor))
        if lines:
            shown, apart = shown or lines, apart or any(line.end is not None for line in lines)
            drawings[f"{metric}_{axis}"] = partial(
                figures.curves, lines, x_label, y_label, looks, log, axis == "rounds", quantity(metric).possible
            )
    if not shown:
        return None
    return Panel(f"{metric}", y_label.removesuffix(" (%)"), drawings, captions.progress(shown, metric, apart))


def differences(file: ComparisonFile, metric: str, looks: Looks) -> Panel | None:
    """Paired differences to the reference with 95 % intervals and the margin."""
    scale = quantity(metric).factor
    pairs = [pair for pair in file.pairs if pair.metric == metric and pair.arm != file.reference]
    items = [
        DifferenceRow(
            pair.arm, scale * pair.difference, _times(pair.low, scale), _times(pair.high, scale), pair.noninferior
        )
        for pair in pairs
        if pair.difference is not None
    ]
    if not items:
        return None
    margin: float | None = scale * file.margin
    if quantity(metric).text_task:
        mean = file.reference_arm.mean.get(f"{'equal' if file.equal else 'final'}_{metric}")
        margin = None if mean is None else file.margin_bits_per_byte_relative * mean
    draw = partial(
        rows_of.forest,
        items,
        f"Difference in {captions.difference_in(metric)}",
        margin,
        file.reference,
        quantity(metric).lower_is_better,
        looks,
    )
    title = "Paired differences" + ("" if metric == "accuracy" else " in bits per byte")
    pairs = [pair for pair in file.pairs if pair.metric == metric and pair.arm != file.reference]
    return Panel(
        f"difference_{metric}", title, {f"difference_{metric}": draw}, captions.differences(file, pairs, margin)
    )


def fronts(file: ComparisonFile, metric: str, looks: Looks, label: str | None = None) -> Panel | None:
    """Final metric against uplink, latency and energy with Pareto fronts."""
    drawings: dict[str, Callable[[], Chart | None]] = {}
    best: dict[str, list[Point]] = {}
    label = label or quantity(metric).heading()
    y_label = "Final " + label[0].lower() + label[1:]
    for short, key in COSTS.items():
        x_label = quantity(key).heading()
        points = [point for arm in file.arms if (point := _point(arm, key, f"final_{metric}"))]
        if points:
            best[x_label] = points
            drawings[f"pareto_{metric}_{short}"] = partial(
                figures.scatter,
                points,
                x_label,
                y_label,
                True,
                quantity(metric).lower_is_better,
                looks,
                quantity(key).possible,
                quantity(metric).possible,
            )
    if not drawings:
        return None
    title = "Cost and " + y_label.removesuffix(" (%)").lower()
    return Panel(f"pareto_{metric}", title, drawings, captions.fronts(best, metric))


def _point(arm: ArmRecord, x_key: str, y_key: str) -> Point | None:
    x_scale, y_scale = quantity(x_key).factor, quantity(y_key).factor
    x, y = arm.mean.get(x_key), arm.mean.get(y_key)
    if x is None or y is None:
        return None
    x_std, y_std = _times(arm.std.get(x_key), x_scale), _times(arm.std.get(y_key), y_scale)
    return Point(arm.label, x_scale * x, y_scale * y, x_std, y_std)


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else factor * value


def reach(file: ComparisonFile, looks: Looks) -> Panel | None:
    """Seconds and megabytes to reach parts of the reference's gain."""
    drawings: dict[str, Callable[[], Chart | None]] = {}
    for name, label in (("seconds", "Simulated time to target (s)"), ("mb", "Uplink to target (MB)")):
        x_label = f"{label},\nmean of {FINAL_EVALUATIONS} evaluations"
        rows = [
            Reach(arm, {row.target: getattr(row, name) for row in file.time_to if row.arm == arm})
            for arm in file.labels
        ]
        if any(value is not None for row in rows for value in row.needed.values()):
            drawings[f"time_to_{name}"] = partial(rows_of.time_to, rows, x_label, looks)
    if not drawings:
        return None
    return Panel("time_to", "Time to accuracy", drawings, captions.reach(file))


def latencies(traces: Mapping[str, Sequence[Trace]], looks: Looks) -> Panel | None:
    """Distribution of the round latency over all seeds, with the budgets."""
    samples = [
        Sample(label, np.concatenate([item.latency_s_R for item in seeds])) for label, seeds in traces.items() if seeds
    ]
    budgets = sorted({item.budget_s for seeds in traces.values() for item in seeds if item.budget_s is not None})
    if not any(len(sample.values) for sample in samples):
        return None
    draw = partial(figures.distribution, samples, quantity("round_latency_s").heading(), budgets, looks)
    return Panel("latency", "Round latency", {"latency_cdf": draw}, captions.latencies(traces, budgets))


def recovered(file: ComparisonFile, looks: Looks) -> Panel | None:
    """Recovered share of the reference's gain, seed by seed."""
    samples = [Sample(arm.label, [100 * value for value in arm.values("recovered_gap")]) for arm in file.arms]
    if not any(len(sample.values) for sample in samples):
        return None
    draw = partial(rows_of.dots, samples, quantity("recovered_gap").heading(), 100.0, looks)
    return Panel("recovered_gap", "Recovered gap", {"recovered_gap": draw}, captions.recovered(file, samples))


def fairness(file: ComparisonFile, looks: Looks) -> Panel | None:
    """Accuracy of the worst tenth of the clients against the mean accuracy."""
    points = [point for arm in file.arms if (point := _point(arm, "final_accuracy", "worst10_client_accuracy"))]
    if not points:
        return None
    draw = partial(
        figures.scatter,
        points,
        quantity("final_accuracy").heading(),
        quantity("worst10_client_accuracy").heading(),
        False,
        False,
        looks,
        quantity("final_accuracy").possible,
        quantity("worst10_client_accuracy").possible,
    )
    return Panel("worst10", "Worst tenth of the clients", {"worst10_clients": draw}, captions.fairness(points))


def kept(traces: Mapping[str, Sequence[Trace]], looks: Looks) -> Panel | None:
    """Kept fraction against mean gain, for arms in which it differs between clients."""
    lines = [line for label, seeds in traces.items() if (line := kept_by_gain(label, seeds)) is not None]
    if not lines:
        return None
    clients = {line.label: clients_of(traces[line.label]) for line in lines}
    draw = partial(figures.clouds, lines, clients, "Mean channel gain of the client (dB)", "Mean kept fraction", looks)
    return Panel("kept", "Kept fraction by channel gain", {"kept_by_gain": draw}, captions.kept(lines))
