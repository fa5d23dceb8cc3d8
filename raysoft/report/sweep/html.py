"""The report of a sweep: figures and one HTML page from results.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from raysoft.errors import RaysoftError
from raysoft.quantities import keys_in, quantity
from raysoft.report import page
from raysoft.report.chart import Chart
from raysoft.report.page import PageSection, Picture
from raysoft.report.run.html import NO_WISH
from raysoft.report.study_figures import heat
from raysoft.report.sweep.figures import (
    CATEGORIES,
    Column,
    Measured,
    effects,
    front_of,
    parallel,
    pareto,
    scale_of,
    scattered,
    shown,
)
from raysoft.report.sweep.file import AxisFile, Row, SweepFile, read_sweep, spread, value_of
from raysoft.report.wish import Wish
from raysoft.rundir.folder import FIGURES, REPORT, write_atomic

DPI = 300
_PICTURES = (  # name, title, caption
    (
        "pareto",
        "Accuracy, latency and bits",
        "Dots: points of the space. Diamonds, numbered as in the table below: no other point is as good in value, "
        "latency and bits together. Colour: the third of them.",
    ),
    ("map", "Map of {rows} and {columns}", "{metric} over two axes{over}."),
    (
        "effects",
        "Effect of each axis",
        "Dots: points, with the standard deviation over seeds where there are several. "
        "Line: mean of all points with the same value.",
    ),
    ("parallel", "All points", "One line a point, from settings to what came out; colour: {metric}. Thick: the best."),
)


def write_sweep_report(folder: Path | str, wish: Wish = NO_WISH, config: Mapping[str, Any] | None = None) -> Path:
    """Draw the folder of a sweep and return its `report.html`; the files of the figures in `figures/` beside it.

    `config`: the configuration of its runs, whose section `report` counts where `wish` does not say.

    Raises RaysoftError where it holds no readable results.json, or cannot be written.
    """
    folder = Path(folder)
    file = read_sweep(folder)
    drawings = {
        "pareto": partial(_pareto, file),
        "map": partial(_map, file),
        "effects": partial(_effects, file),
        "parallel": partial(_parallel, file),
    }
    formats, width = wish.settled(config or {}, "page")
    pictures = page.draw(drawings, DPI, formats, width)
    target = folder / REPORT
    try:
        page.write_pictures(folder / FIGURES, pictures, list(drawings))
        write_atomic(target, render(file, pictures))
    except OSError as error:
        raise RaysoftError(f"{error.filename or target}: cannot be written: {error.strerror}") from None
    return target


def render(file: SweepFile, pictures: Mapping[str, Picture]) -> str:
    """The HTML text of a sweep."""
    sections = [PageSection("result", "Result", _result(file))]
    words = {
        "metric": title(file.metric),
        "rows": file.axes[0].label,
        "over": _over(file),
        "columns": file.axes[1].label if len(file.axes) > 1 else "",
    }
    for name, heading, caption in _PICTURES:
        if name in pictures:
            text = caption.format(**words)
            picture = page.image(pictures[name], f"{heading.format(**words)}. {text}")
            content = page.figure(picture, text, downloads=page.downloads(FIGURES, pictures, [name]))
            if name == "pareto":
                content += _front_table(file)
            sections.append(PageSection(f"figure-{name}", heading.format(**words), content))
    sections.append(PageSection("points", "Points", _points_table(file, _order(file))))
    ended = [row for row in file.trials if row["status"] != "done"]
    if ended:
        lines = [[str(row["trial"]), str(row["status"]), str(row.get("reason") or "–")] for row in ended]
        sections.append(
            PageSection(
                "early", "Trials that did not run to their end", page.grid(["Trial", "Status", "Reason"], lines, "arms")
            )
        )
    space = [[axis.key, axis.kind, ", ".join(shown(value) for value in axis.values)] for axis in file.axes]
    below = [page.details("The space", page.grid(["Key", "Kind", "Values"], space, "arms"), opened=False)]
    return page.render_page(file.name, _subtitle(file), sections, "", below)


def title(metric: str) -> str:
    """A metric's name as a heading."""
    return quantity(metric).heading()


def _subtitle(file: SweepFile) -> str:
    seeds = f"{len(file.seeds)} seed{'s' if len(file.seeds) != 1 else ''}"
    done = sum(row["status"] == "done" for row in file.trials)
    text = f"Sweep of {', '.join(axis.label for axis in file.axes)}: {len(file.points)} points, {seeds} each, "
    text += f"{done} of {len(file.trials)} trials ran to their end"
    text += f"; scheduler {file.scheduler}" if file.scheduler != "none" else ""
    return text + ". Times, energies and bits are simulated."


def _over(file: SweepFile) -> str:
    others = [axis.label for axis in file.axes[2:]]
    text = f"; of the points that differ in {', '.join(others)} only, the best one is shown" if others else ""
    early = any(row.get("stopped") and not row.get("done") for row in file.points)
    return text + ("; a point that was stopped early counts with what it had by then" if early else "")


def _result(file: SweepFile) -> str:
    if file.best is None:
        return page.notes(["No trial ran to its end."])
    rows = [(axis.label, shown(file.best[axis.label])) for axis in file.axes]
    rows += [(title(key), cell(file.best, key)) for key in _figures(file)]
    rows.append(("Seeds", str(file.best.get("done", ""))))
    aim = "largest" if file.mode == "max" else "smallest"
    note = f"Point {file.best['point']} has the {aim} {file.metric} of all points with a finished trial."
    able = [value for row in file.points if row.get("done") and (value := value_of(row, file.metric)) is not None]
    same = shown(float(value_of(file.best, file.metric) or 0.0))
    others = sum(shown(float(value)) == same for value in able) - 1
    if others > 0:
        note += f" It is tied with {others} other{'s' if others > 1 else ''}, and the first of them."
    return page.table([rows], [file.name]) + page.notes([note])


def _figures(file: SweepFile) -> list[str]:
    """What is shown of a point beside its settings: a row has both, and an axis may be called as a figure is."""
    axes = {axis.label for axis in file.axes}
    names = [name for name in dict.fromkeys([file.metric, *keys_in("row")]) if name not in axes]
    return [name for name in names if any(value_of(row, name) is not None for row in file.points)]


def cell(row: Row, key: str) -> str:
    """Mean and spread over the seeds of a point."""
    return quantity(key).cell(value_of(row, key), spread(row, key))


def _points_table(file: SweepFile, rows: Sequence[Row]) -> str:
    figures = _figures(file)
    head = ["Point", *(axis.label for axis in file.axes), "Trials", *(title(name) for name in figures)]
    lines = [
        [
            str(row["point"]),
            *(shown(row[axis.label]) for axis in file.axes),
            _trials(row),
            *(cell(row, name) for name in figures),
        ]
        for row in rows
    ]
    return page.grid(head, lines, "arms")


def _trials(row: Row) -> str:
    counts = [(int(row.get(name) or 0), name) for name in ("done", "stopped", "failed", "unfinished")]
    return ", ".join(f"{count} {name}" for count, name in counts if count) or "–"


def _order(file: SweepFile) -> list[Row]:
    sign = -1.0 if file.mode == "max" else 1.0

    def place(row: Row) -> tuple[bool, float]:
        value = value_of(row, file.metric)
        return value is None, 0.0 if value is None else sign * value

    return sorted(file.points, key=place)


# -------------------------------------------------------------------------------------------------------------- figures


def _quality(file: SweepFile) -> str:
    """What the Pareto front is of, beside latency and bits."""
    text = [key for key in keys_in("row", text_task=True) if any(value_of(row, key) is not None for row in file.points)]
    return text[0] if text else "final_accuracy"


def _measured(file: SweepFile) -> list[Measured]:
    key = _quality(file)
    factor = quantity(key).factor
    out = []
    for row in file.points:
        value, latency, mb = value_of(row, key), value_of(row, "mean_latency_s"), value_of(row, "uplink_mb")
        if row.get("done") and value is not None and latency is not None and mb is not None:
            out.append(Measured(int(row["point"]), factor * value, latency, mb))
    return out


def _pareto(file: SweepFile) -> Chart | None:
    key = _quality(file)
    return pareto(_measured(file), title(key), quantity(key).lower_is_better)


def _front_table(file: SweepFile) -> str:
    points = _measured(file)
    front = {points[place].number for place in front_of(points, quantity(_quality(file)).lower_is_better)}
    rows = [row for row in file.points if row["point"] in front]
    rows.sort(key=lambda row: value_of(row, "mean_latency_s") or 0.0)
    return _points_table(file, rows)


def _column(file: SweepFile, key: str) -> Column:
    factor = quantity(key).factor
    values = [value_of(row, key) for row in file.points]
    return Column(
        title(key), [None if value is None else factor * value for value in values], possible=quantity(key).possible
    )


def _axis(file: SweepFile, axis: AxisFile) -> Column:
    return Column(axis.label, [row[axis.label] for row in file.points])


def _map(file: SweepFile) -> Chart | None:
    """The first two axes; numbers written in where both have few values."""
    if len(file.axes) < 2 or not file.points:
        return None
    rows, columns, metric = _axis(file, file.axes[0]), _axis(file, file.axes[1]), _column(file, file.metric)
    down, across = scale_of(rows.values), scale_of(columns.values)
    if not (down.categories and across.categories) or max(len(down.ticks), len(across.ticks)) > CATEGORIES:
        return scattered(columns, rows, metric)
    best = np.full((len(down.ticks), len(across.ticks)), np.nan)
    for r, c, value in zip(down.place_N, across.place_N, metric.values, strict=True):
        if value is not None and np.isfinite(r) and np.isfinite(c):
            old = best[int(r), int(c)]
            keep = np.isnan(old) or (value > old if file.mode == "max" else value < old)
            best[int(r), int(c)] = value if keep else old
    if not np.isfinite(best).any():
        return None
    digits = 1 if np.nanmax(np.abs(best)) >= 10 else 3
    return heat(
        best, down.names, across.names, metric.name, row_label=rows.name, column_label=columns.name, digits=digits
    )


def _effects(file: SweepFile) -> Chart | None:
    keys = [file.metric, *(name for name in ("mean_latency_s", "uplink_mb") if name != file.metric)]
    if file.metric == "mean_round_latency_s":
        keys.remove("mean_latency_s")
    keys = [key for key in keys if any(value_of(row, key) is not None for row in file.points)]
    factors = [quantity(key).factor for key in keys]
    stds = [
        [None if (std := spread(row, key)) is None else factor * std for row in file.points]
        for key, factor in zip(keys, factors, strict=True)
    ]
    return effects([_axis(file, axis) for axis in file.axes], [_column(file, key) for key in keys], stds)


def _parallel(file: SweepFile) -> Chart | None:
    keys = dict.fromkeys(["mean_latency_s", "uplink_mb", file.metric])
    columns = [_axis(file, axis) for axis in file.axes]
    columns += [_column(file, key) for key in keys if any(value_of(row, key) is not None for row in file.points)]
    best: Any = None
    if file.best is not None:
        best = next((i for i, row in enumerate(file.points) if row["point"] == file.best["point"]), None)
    return parallel(columns, _column(file, file.metric), best)
