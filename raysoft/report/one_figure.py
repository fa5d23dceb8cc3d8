"""One figure of what a caller asks for: any number of the rounds against a cost, or of a sweep against a setting.

Labels and units come from raysoft.quantities; several seeds of a label become a mean with its spread.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from raysoft.errors import ConfigError, RaysoftError
from raysoft.quantities import quantity
from raysoft.report import style
from raysoft.report.comparison.data import AXES, MeanCurve, mean_curve, trace
from raysoft.report.comparison.figures import curves
from raysoft.report.comparison.panels import AXIS_LABELS
from raysoft.report.run.data import after_base
from raysoft.report.style import COLUMN_IN, new_figure
from raysoft.rundir.checks import is_number
from raysoft.rundir.reading import Run
from raysoft.rundir.summary import accuracy_name_in
from raysoft.types import Array

ALIASES = {"round": "rounds", "megabytes": "mb"}
OF_THE_BASE = ("accuracy", "loss", "simulated_time_s", "wall_time_s")  # others are 0 in round 0


def metric_figure(runs: Mapping[str, Sequence[Run]], metric: str, x: str) -> Figure:
    """A number of the rounds against `rounds`, `seconds`, `mb` or `joules`; one line a label, with names where several.

    Against the rounds values are joined; against a cost each holds until the next, as in a report. Of several seeds a
    line is their mean, with a band of one standard deviation. Raises ConfigError for an unknown number or axis,
    RaysoftError where nothing was measured.
    """
    axis = axis_of(x)
    everything = list(chain.from_iterable(runs.values()))
    key, of = column_key(everything, metric), quantity(metric)
    lines = [line for label, some in runs.items() if (line := _line(label, some, key, axis)) is not None]
    if not lines:
        raise RaysoftError(f"{metric} was measured in fewer than two rounds that differ in {x}, so there is no line")
    y_label = of.heading()
    if metric == "accuracy":
        y_label = f"{accuracy_name_in(everything[0].config).capitalize()} ({of.unit})"
    with style.settings():
        figure = curves(
            [line.scaled(of.factor) for line in lines],
            AXIS_LABELS[axis],
            y_label,
            integer_x=axis == "rounds",
            y_range=of.possible,
        )
    assert figure is not None
    return figure


def axis_of(x: str) -> str:
    """The cost that a name means. Raises ConfigError."""
    axis = ALIASES.get(x, x) if isinstance(x, str) else ""
    if axis not in AXES:
        raise ConfigError("x", f"must be one of {', '.join(AXES)}, got {x!r:.80}")
    return axis


def column_key(runs: Sequence[Run], metric: str) -> str:
    """Where records have a number: `accuracy`, `metrics.penalty`. Raises ConfigError naming those that there are."""
    known = number_keys(row for run in runs for row in run.records)
    if isinstance(metric, str) and metric in known:
        return known[metric]
    close = difflib.get_close_matches(metric, known, n=1) if isinstance(metric, str) else []
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ConfigError("metric", f"no round has a number {metric!r:.80}, choose from {', '.join(known)}{hint}")


def number_keys(rows: Iterable[Mapping[str, object]]) -> dict[str, str]:
    """The numbers of records by their short names, and where they stand; a record's own before its metrics."""
    known: dict[str, str] = {}
    metrics: dict[str, str] = {}
    for row in rows:
        known |= {key: key for key, value in row.items() if is_number(value) and key != "round"}
        inner = row.get("metrics")
        if isinstance(inner, Mapping):
            metrics |= {key: f"metrics.{key}" for key, value in inner.items() if is_number(value)}
    return {**known, **{key: place for key, place in metrics.items() if key not in known}}


def _values(run: Run, key: str) -> Array:
    """[T] a number of each record; NaN where it was not measured, also in round 0."""
    values_T = run.column(key)
    has_base = key in OF_THE_BASE or key.startswith("metrics.")
    return values_T if has_base else np.where(after_base(run), values_T, np.nan)


def _line(label: str, runs: Sequence[Run], key: str, axis: str) -> MeanCurve | None:
    seeds = [replace(trace(run, number), metrics={key: _values(run, key)}) for number, run in enumerate(runs)]
    if len(seeds) > 1:
        return mean_curve(label, seeds, axis, key)
    if not seeds:
        return None
    x_T, y_T = seeds[0].costs[axis], seeds[0].metrics[key]
    ok = np.isfinite(x_T) & np.isfinite(y_T)
    nothing = np.full(int(ok.sum()), np.nan)
    if len(np.unique(x_T[ok])) < 2:
        return None
    return MeanCurve(label, x_T[ok], y_T[ok], nothing, nothing, steps=axis != "rounds")


@dataclass(frozen=True)
class Reading:
    """A point of a sweep: the value of a setting, the number there, its standard deviation (None: one seed)."""

    x: object
    y: float
    std: float | None = None


def setting_figure(readings: Sequence[Reading], setting: str, metric: str) -> Figure:
    """A number of a sweep's points against one setting, words side by side, numbers to scale."""
    of = quantity(metric)
    if not readings:
        raise RaysoftError(f"no point of this sweep has measured {metric}")
    numeric = all(is_number(one.x) for one in readings)
    names = sorted({str(one.x) for one in readings})
    x = [float(one.x) if numeric else names.index(str(one.x)) for one in readings]  # type: ignore[arg-type]
    y = [of.factor * one.y for one in readings]
    spread = [of.factor * (one.std or 0.0) for one in readings]
    with style.settings():
        figure, (ax,) = new_figure(2.5, width=COLUMN_IN)
        bars = np.abs(np.clip([np.subtract(y, spread), np.add(y, spread)], *of.possible) - y)
        ax.errorbar(x, y, bars, linestyle="none", marker="o", color=style.BLUE, elinewidth=0.9)
        ax.set(xlabel=setting, ylabel=of.heading())
        ax.margins(x=0.08, y=0.1)
        if not numeric:
            ax.set_xticks(range(len(names)), [style.plain(name, 16) for name in names])
        elif min(x) > 0 and max(x) >= 30 * min(x):
            style.log_x(ax)
            style.plain_log_ticks(ax.xaxis)
        else:
            ax.xaxis.set_major_locator(MaxNLocator(6))
    return figure
