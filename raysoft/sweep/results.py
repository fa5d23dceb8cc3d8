"""What a sweep found, read from its run folders: a row a trial, a row a point, the best point."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raysoft import atomic
from raysoft.comparison.readings import closing_values
from raysoft.comparison.statistics import mean_std
from raysoft.comparison.tables import inert
from raysoft.errors import RaysoftError
from raysoft.quantities import keys_in
from raysoft.rundir.folder import CONFIG, strict, write_atomic
from raysoft.rundir.reading import Run, read_run
from raysoft.rundir.summary import summarise
from raysoft.sweep.best import BEST, best_yaml
from raysoft.sweep.folder import FAILED, STOPPED, Remembered, SweepFolder
from raysoft.sweep.metrics import numbers, reading, values_so_far
from raysoft.sweep.points import Sweep, Trial, plain_value

RESULTS_PARQUET, RESULTS_CSV, POINTS_CSV = "results.parquet", "results.csv", "points.csv"
RESULTS_JSON = "results.json"
FORMAT = 1
DONE, UNFINISHED = "done", "unfinished"
FIGURES = keys_in("row")  # of a row, beside the metric


@dataclass(frozen=True)
class Results:
    """Rows as plain data; a point's row has means, `std` in a mapping of its own, and counts of its seeds."""

    rows: list[dict[str, Any]]
    points: list[dict[str, Any]]
    best: dict[str, Any] | None  # the row of the best point that is done


def collect(sweep: Sweep, folder: SweepFolder, trials: Sequence[Trial], known: Remembered) -> Results:
    """Read every trial's run folder."""
    rows = [trial_row(sweep, folder, trial, known.ended.get(trial.name)) for trial in trials]
    points = point_rows(sweep, rows)
    return Results(rows, points, best_point(points, sweep.mode, sweep.config.metric))


def trial_row(sweep: Sweep, folder: SweepFolder, trial: Trial, ended: Mapping[str, Any] | None) -> dict[str, Any]:
    """One trial: its settings, how it ended and why, its figures (None: not measured)."""
    run = _read(folder.run(trial.name))
    done = run is not None and run.summary is not None and run.summary.get("status") == DONE
    status, reason = (DONE, None) if done else (UNFINISHED, None)
    if not done and ended is not None:
        status, reason = ended["event"], ended.get("reason")
    if run is not None and not done:
        upto = ended.get("round") if ended is not None else None
        kept = tuple(row for row in run.records if upto is None or row["round"] <= upto)
        config = sweep.run_config(trial.values, trial.seed)
        run = replace(run, records=kept, summary=summarise(kept, config, {"status": status})) if kept else None
    row: dict[str, Any] = {"trial": trial.name, "point": trial.point, "seed": trial.seed}
    row |= {sweep.labels[key]: plain_value(key, value) for key, value in trial.values.items()}
    row |= {"status": status, "reason": reason}
    return row | _figures(sweep, trial, run) | {"folder": f"trials/{trial.name}" if run else None}


def _read(path: Path) -> Run | None:
    try:
        return read_run(path)
    except RaysoftError:  # not begun, or refused before its first round
        return None


def _figures(sweep: Sweep, trial: Trial, run: Run | None) -> dict[str, Any]:
    names = [sweep.config.metric, *(name for name in FIGURES if name != sweep.config.metric)]
    out: dict[str, Any] = dict.fromkeys([*names, "rounds", "wall_time_s", "adapter_sha256", "config_hash"])
    if run is None or run.summary is None:
        return out
    config = sweep.run_config(trial.values, trial.seed)
    found = {**values_so_far(run.records, config), **numbers(run.summary)}
    out |= {key: value for key, value in closing_values(run).items() if key in out}
    out |= {key: run.summary.get(key) for key in ("rounds", "wall_time_s", "adapter_sha256", "config_hash")}
    out[sweep.config.metric] = reading(sweep.config.metric, found)
    return out


def point_rows(sweep: Sweep, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row a point: means and standard deviations over its seeds that are done, or that got as far as any did.

    A point without a finished seed has the means of its stopped ones, and says so by `done` = 0.
    """
    out = []
    for number in dict.fromkeys(row["point"] for row in rows):
        mine = [row for row in rows if row["point"] == number]
        counts = {name: sum(row["status"] == name for row in mine) for name in (DONE, STOPPED, FAILED, UNFINISHED)}
        use = [row for row in mine if row["status"] == (DONE if counts[DONE] else STOPPED)]
        point: dict[str, Any] = {"point": number, **{name: mine[0][name] for name in sweep.labels.values()}, **counts}
        std: dict[str, Any] = {}
        for name in dict.fromkeys([sweep.config.metric, *FIGURES, "rounds"]):
            values = [row[name] for row in use if row[name] is not None]
            point[name], std[name] = mean_std(values)
        out.append({**point, "std": std})
    return out


def best_point(points: Sequence[Mapping[str, Any]], mode: str, metric: str) -> dict[str, Any] | None:
    """The point with the best mean of the metric among those with a finished seed; the first of equals."""
    able = [point for point in points if point[DONE] and point[metric] is not None]
    if not able:
        return None
    sign = 1.0 if mode == "max" else -1.0
    return dict(max(able, key=lambda point: sign * point[metric]))


def tied(points: Sequence[Mapping[str, Any]], best: Mapping[str, Any], metric: str) -> int:
    """How many other points with a finished seed are as good as the best one, in the four figures that are shown."""
    able = [point for point in points if point[DONE] and point[metric] is not None]
    return sum(f"{point[metric]:.4g}" == f"{best[metric]:.4g}" for point in able) - 1


def write_results(folder: SweepFolder, sweep: Sweep, found: Results) -> None:
    """results.parquet and results.csv (a row a trial), points.csv, results.json, best.yaml. Raises RaysoftError."""
    columns = _columns(found.rows)
    write_atomic(
        folder.path / RESULTS_CSV, _csv(list(columns), [[row[name] for name in columns] for row in found.rows])
    )
    _write_parquet(folder.path / RESULTS_PARQUET, columns)
    write_atomic(folder.path / POINTS_CSV, _points_csv(found.points))
    data = {
        "format": FORMAT,
        "name": folder.path.resolve().name,
        "metric": sweep.config.metric,
        "mode": sweep.mode,
        "scheduler": sweep.config.scheduler.name,
        "search": sweep.config.search,
        "seeds": list(sweep.seeds),
        "axes": [_axis(sweep, key) for key in sweep.config.space],
        "best": found.best,
        "points": found.points,
        "trials": found.rows,
    }
    write_atomic(folder.path / RESULTS_JSON, json.dumps(strict(data), indent=1, allow_nan=False) + "\n")
    if found.best is not None:
        row = next(row for row in found.rows if row["point"] == found.best["point"] and row["status"] == DONE)
        text = best_yaml(sweep, folder.path, found.best, folder.path / row["folder"] / CONFIG)
        write_atomic(folder.path / BEST, text)


def _axis(sweep: Sweep, key: str) -> dict[str, Any]:
    axis = sweep.config.space[key]
    values = [plain_value(key, value) for value in axis.values] if axis.listed else axis.values[:2]
    return {"key": key, "label": sweep.labels[key], "kind": axis.kind, "values": values}


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: [row.get(name) for row in rows] for name in names}


def _csv(heading: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([inert(name) for name in heading])
    for line in lines:
        writer.writerow(["" if cell is None else inert(cell) if isinstance(cell, str) else cell for cell in line])
    return out.getvalue()


def _points_csv(points: Sequence[Mapping[str, Any]]) -> str:
    names = [name for name in points[0] if name != "std"] if points else []
    heading = [
        column
        for name in names
        for column in ([name, f"{name}_std"] if points and name in points[0]["std"] else [name])
    ]
    lines = [
        [
            cell
            for name in names
            for cell in ([point[name], point["std"][name]] if name in point["std"] else [point[name]])
        ]
        for point in points
    ]
    return _csv(heading, lines)


def _write_parquet(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """A column of one kind keeps it (whole numbers, numbers, truth values, text); a mixed one becomes text."""
    import pyarrow as pa
    from pyarrow import parquet

    arrays = {}
    for name, values in columns.items():
        kinds = {type(value) for value in values if value is not None}
        if kinds <= {int, float} and kinds != {int}:
            arrays[name] = pa.array(values, pa.float64())
        elif len(kinds) == 1:
            arrays[name] = pa.array(values)
        else:
            arrays[name] = pa.array([None if value is None else str(value) for value in values], pa.string())
    try:
        sink = pa.BufferOutputStream()
        parquet.write_table(pa.table(arrays), sink)
        atomic.write_bytes(path, memoryview(sink.getvalue()))
    except OSError as error:
        raise RaysoftError(f"{path}: cannot be written: {error.strerror or error}") from None
