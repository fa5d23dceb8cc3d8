"""A search of settings from Python: `tune`, and what it gives."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from raysoft.api.result import Adapter, Result, page_part
from raysoft.api.settings import Place, Setting, plain, words
from raysoft.api.undisturbed import undisturbed
from raysoft.errors import ConfigError, RaysoftError
from raysoft.rundir.folder import REPORT
from raysoft.rundir.reading import read_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from raysoft.config import RunConfig
    from raysoft.sweep.config import SweepConfig
    from raysoft.sweep.driver import SweepEvents
    from raysoft.sweep.points import Sweep

SweepTarget: TypeAlias = Union[str, "os.PathLike[str]", Mapping[str, Any]]


class SweepResult:
    """Trials of a search: what `raysoft.tune` and `raysoft.open` give. `data`: the contents of results.json."""

    def __init__(self, folder: Path) -> None:
        from raysoft.report.sweep.file import RESULTS_JSON, read_sweep

        self._file = read_sweep(folder)
        self.folder = folder
        self.data: dict[str, Any] = read_json(folder / RESULTS_JSON)

    @property
    def name(self) -> str:
        """Of the sweep."""
        return self._file.name

    @property
    def metric(self) -> str:
        """What was searched for."""
        return self._file.metric

    @property
    def report(self) -> Path:
        """The page report.html."""
        return self.folder / REPORT

    @cached_property
    def runs(self) -> dict[str, Result]:
        """The run of every trial that has begun, by the trial's name."""
        return {row["trial"]: Result(self.folder / row["folder"]) for row in self._file.trials if row.get("folder")}

    @cached_property
    def summary(self) -> DataFrame:
        """A row a trial: its settings, how it ended, its closing figures."""
        from raysoft.api.frames import frame

        return frame(self.data["trials"])

    @cached_property
    def points(self) -> DataFrame:
        """A row a point of the space: means over its seeds, and standard deviations as `KEY_std`."""
        from raysoft.api.frames import frame

        rows = []
        for point in self.data["points"]:
            spread = {f"{key}_std": value for key, value in point["std"].items()}
            rows.append({**{key: value for key, value in point.items() if key != "std"}, **spread})
        return frame(rows)

    @cached_property
    def rounds(self) -> DataFrame:
        """The rounds of all trials, with a column trial in front (see Result.rounds)."""
        from raysoft.api.frames import joined, rounds_frame

        return joined([rounds_frame(run.data, trial=trial) for trial, run in self.runs.items()])

    @cached_property
    def clients(self) -> DataFrame:
        """The clients of all trials, with a column trial in front (see Result.clients)."""
        from raysoft.api.frames import clients_frame, joined

        return joined([clients_frame(run.data, trial=trial) for trial, run in self.runs.items()])

    @property
    def best(self) -> Result:
        """The first finished run of the best point. Raises RaysoftError where no trial has finished."""
        if self._file.best is None:
            raise RaysoftError(f"{self.folder}: no trial has finished with {self.metric}, so none is the best")
        point = self._file.best["point"]
        rows = [row for row in self._file.trials if row["point"] == point and row["status"] == "done"]
        return self.runs[rows[0]["trial"]]

    @property
    def config(self) -> RunConfig:
        """The configuration of the best run."""
        return self.best.config

    @property
    def adapter(self) -> Adapter:
        """The adapter of the best run."""
        return self.best.adapter

    def plot(self, metric: str | None = None, x: str | None = None) -> Figure:
        """The sweep's metric (or another figure of `points`) against a setting; `x`: its key, by default the first.

        With `x` one of rounds, seconds, mb, joules: a number of the rounds, a line a trial, as Result.plot.
        Raises ConfigError for an unknown number or setting.
        """
        from raysoft.report.comparison.data import AXES
        from raysoft.report.one_figure import ALIASES, Reading, metric_figure, setting_figure

        if x in AXES or x in ALIASES:
            runs = {trial: [run.data] for trial, run in self.runs.items()}
            return metric_figure(runs, metric or "accuracy", str(x))
        labels = {name: axis for axis in self._file.axes for name in (axis.label, axis.key)}
        chosen = self._file.axes[0] if x is None else labels.get(x)
        if chosen is None:
            raise ConfigError(
                "x",
                f"must be a setting of this sweep or a cost, got {x!r:.80}; choose from "
                f"{', '.join([*dict.fromkeys(labels), *AXES])}",
            )
        wanted = metric or self.metric
        others = {"point", "std", "done", "stopped", "failed", "unfinished", *(axis.label for axis in self._file.axes)}
        measured = [key for point in self._file.points[:1] for key in point if key not in others]
        if wanted not in measured:
            raise ConfigError("metric", f"no point has {wanted!r:.80}, choose from {', '.join(measured)}")
        points = [point for point in self._file.points if point[wanted] is not None]
        readings = [Reading(point[chosen.label], point[wanted], point["std"].get(wanted)) for point in points]
        return setting_figure(readings, chosen.key, wanted)

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        return f"SweepResult({str(self.folder)!r}: {len(self._file.trials)} trials, {len(self._file.points)} points)"

    def _repr_html_(self) -> str:
        rows = [("Looked for", f"{'largest' if self._file.mode == 'max' else 'smallest'} {self.metric}")]
        counts = [row["status"] for row in self._file.trials]
        rows.append(("Trials", ", ".join(f"{counts.count(name)} {name}" for name in dict.fromkeys(counts))))
        if (best := self._file.best) is not None:
            words = ", ".join(f"{axis.label} {best[axis.label]}" for axis in self._file.axes)
            rows.append(("Best", f"{words}: {self.metric} {best[self.metric]:.4g}"))
        return page_part(f"Sweep {self.name}", [*rows, ("Folder", str(self.folder))])


@undisturbed()
def tune(
    sweep: SweepTarget,
    *settings: Setting,
    resume: bool = False,
    name: str | None = None,
    out: Place | None = None,
    progress: bool | None = None,
    events: SweepEvents | None = None,
    **keys: Any,
) -> SweepResult:
    """Search a space of settings with Ray Tune: many runs, some stopped early, one table.

    `sweep`: a YAML file such as those of tune_configs/, or a mapping like its content
    (`{"base": "soft", "space": {"train.lr": {"grid": [1e-3, 1e-2]}}}`). Settings and keywords: keys of the sweep
    (`seeds=3`), or settings of every run (`rounds=60`). `resume`: go on with a sweep that was interrupted. Its folder
    is `out` (outputs/NAME).

    Trials that fail do not stop the others (see `summary`). Raises ConfigError, ResourceError, RaysoftError.
    """
    from raysoft.api.progress import board
    from raysoft.api.progress_of_many import SweepProgress

    config, _, folder = prepared(sweep, settings, keys, name=name, out=out, resume=resume)
    from raysoft.sweep.driver import run_sweep

    shown = board(progress is not False and events is None)
    try:
        found = run_sweep(config, folder, events or SweepProgress(shown), resume=resume)
    finally:
        shown.close()
    return SweepResult(found.folder)


def prepared(
    sweep: SweepTarget,
    settings: Sequence[Setting],
    keys: Mapping[str, Any],
    *,
    name: str | None,
    out: Place | None,
    resume: bool,
) -> tuple[SweepConfig, Sweep, Path]:
    """A sweep, checked, with its points and its folder; Ray is not loaded. Raises ConfigError.

    `resume`: plug-ins of one's own are those that the folder has kept.
    """
    from raysoft.rundir.destination import local_destination
    from raysoft.rundir.folder import check_name, name_of
    from raysoft.rundir.plugin_files import kept
    from raysoft.sweep.config import SweepConfig, load_sweep, parse_sweep, with_words
    from raysoft.sweep.points import make_sweep

    own: dict[str, Any] = {}  # keys of the sweep with their values: the space's keys have dots, and are no places
    rest: list[Setting] = []
    for item in (*settings, keys):
        if isinstance(item, Mapping):
            own |= {key: plain(key, value) for key, value in item.items() if key in SweepConfig.model_fields}
            rest.append({key: value for key, value in item.items() if key not in SweepConfig.model_fields})
        else:
            rest.append(item)
    given = words(rest, {})
    if isinstance(sweep, Mapping):
        tree, extra = with_words({**plain("sweep", sweep), **own}, given)
        config, default = parse_sweep(tree, Path(), extra), "sweep"
    else:
        target = os.fspath(sweep)
        target = str(Path(target).expanduser()) if target.startswith("~") else target  # else a name, or a path as it is
        config, default = load_sweep(target, given, own), name_of(target)
    chosen = check_name(name) if name is not None else config.name or default
    folder = local_destination(None if out is None else os.fspath(out), chosen)
    with kept(folder) if resume else nullcontext():
        return config, make_sweep(config), folder
