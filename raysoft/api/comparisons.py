"""Several settings side by side from Python: `compare`, and what it gives."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from raysoft.api.callbacks import Callbacks, Calls
from raysoft.api.result import Adapter, Result
from raysoft.api.settings import Place, Setting, Target, spelt, words
from raysoft.api.undisturbed import undisturbed
from raysoft.errors import ConfigError, RaysoftError
from raysoft.rundir.folder import REPORT
from raysoft.rundir.reading import read_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from raysoft.comparison.arms import Arm
    from raysoft.comparison.batch import BatchEvents, JobOutcome
    from raysoft.comparison.compare import Comparison, ComparisonPlan
    from raysoft.comparison.readings import Cost
    from raysoft.config import RunConfig

# A preset or file, or with settings of its own: `("soft", "codec.bits_per_value=4")`, `("soft", {"train.lr": 1e-2})`.
ArmTarget: TypeAlias = Target | tuple[Target | Setting, ...]
Arms: TypeAlias = Sequence[str] | Mapping[str, ArmTarget]


class ComparisonResult:
    """Arms by seeds: what `raysoft.compare` and `raysoft.open` give.

    `folder`: of the comparison. `data`: the contents of comparison.json. `failed`: the jobs that failed in this call.
    `notes`: sentences on arms that are left out.
    """

    def __init__(self, folder: Path, failed: Sequence[JobOutcome] = (), notes: Sequence[str] = ()) -> None:
        from raysoft.report.comparison.file import COMPARISON_JSON, read_comparison

        self._file = read_comparison(folder)
        self.folder = folder
        self.data: dict[str, Any] = read_json(folder / COMPARISON_JSON)
        self.failed = tuple(failed)
        self.notes = tuple(notes)

    @property
    def name(self) -> str:
        """Of the comparison."""
        return self._file.name

    @property
    def report(self) -> Path:
        """The page report.html."""
        return self.folder / REPORT

    @cached_property
    def runs(self) -> dict[tuple[str, int], Result]:
        """Every run, by the label of its arm and its seed."""
        return {(arm.label, run.seed): self._run(run.folder) for arm in self._file.arms for run in arm.runs}

    def _run(self, folder: str) -> Result:
        return Result(Path(os.path.normpath(self.folder.resolve() / folder)))

    @cached_property
    def summary(self) -> DataFrame:
        """A row for each run: arm, seed, its closing figures; those that no run has are left out."""
        from raysoft.api.frames import frame

        rows = [{"arm": arm["label"], **run} for arm in self.data["arms"] for run in arm["runs"]]
        return frame(rows).dropna(axis="columns", how="all")

    @cached_property
    def means(self) -> DataFrame:
        """A row an arm: means over its seeds, and standard deviations as `KEY_std`."""
        from raysoft.api.frames import frame

        rows = []
        for arm in self.data["arms"]:
            spread = {f"{key}_std": value for key, value in arm["std"].items()}
            rows.append({"arm": arm["label"], "seeds": len(arm["runs"]), **arm["mean"], **spread})
        return frame(rows).dropna(axis="columns", how="all")

    @cached_property
    def pairs(self) -> DataFrame:
        """Paired differences to the reference, with 95 % intervals, p values and verdicts at 5 %."""
        from raysoft.api.frames import frame

        return frame(self.data["pairs"], ["arm", "metric", "seeds", "difference", "low", "high"])

    @cached_property
    def rounds(self) -> DataFrame:
        """The rounds of all runs, with columns arm and seed in front (see Result.rounds)."""
        from raysoft.api.frames import joined, rounds_frame

        return joined([rounds_frame(run.data, arm=arm, seed=seed) for (arm, seed), run in self.runs.items()])

    @cached_property
    def clients(self) -> DataFrame:
        """The clients of all runs, with columns arm and seed in front (see Result.clients)."""
        from raysoft.api.frames import clients_frame, joined

        return joined([clients_frame(run.data, arm=arm, seed=seed) for (arm, seed), run in self.runs.items()])

    @property
    def config(self) -> dict[str, RunConfig]:
        """The configuration of each arm, at its first seed."""
        return {arm.label: self.runs[arm.label, arm.runs[0].seed].config for arm in self._file.arms}

    @property
    def adapter(self) -> dict[tuple[str, int], Adapter]:
        """The adapter of every run, by arm and seed."""
        return {key: run.adapter for key, run in self.runs.items()}

    def plot(self, metric: str = "accuracy", x: str = "rounds") -> Figure:
        """As Result.plot: a line an arm, the mean of its seeds with a band of one standard deviation."""
        from raysoft.report.one_figure import metric_figure

        labels = self._file.labels
        runs = {label: [run.data for (arm, _), run in self.runs.items() if arm == label] for label in labels}
        return metric_figure(runs, metric, x)

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        return f"ComparisonResult({str(self.folder)!r}: {', '.join(self._file.labels)}; {len(self.runs)} runs)"

    def _repr_html_(self) -> str:
        from raysoft.comparison.tables import arms_table, note, pairs_table
        from raysoft.report.page import grid

        data = {**self._file.model_dump(exclude={"arms", "pairs", "time_to"}), **self.data}  # older files lack keys
        tables = [table for table in (arms_table(data), pairs_table(data)) if table.rows]
        parts = [grid(table.heading, table.rows) for table in tables]
        remarks = [f"<p>{escape(text)}</p>" for text in (note(data), *data["notes"])]
        return f"<div><b>{escape(self.name)}</b>{''.join([*parts, *remarks])}</div>"


@undisturbed()
def compare(
    arms: Arms,
    *settings: Setting | int,
    seeds: int = 5,
    first_seed: int = 0,
    equal: Cost | None = None,
    reference: str | None = None,
    margin: float = 0.01,
    workers: int = 2,
    name: str | None = None,
    out: Place | None = None,
    store: Place | None = None,
    callbacks: Callbacks = (),
    progress: bool | None = None,
    events: BatchEvents | None = None,
    **keys: Any,
) -> ComparisonResult:
    """Run several settings with several seeds each, on common random numbers, and compare them.

    `arms`: as on the command line (`["soft", "4 bit: soft codec.bits_per_value=4"]`), or labels and what they run
    (`{"soft": "soft", "4 bit": ("soft", {"codec.bits_per_value": 4})}`). Settings and keywords go to every arm. Runs go
    to `store` (outputs/runs) and are found there again by their configuration; tables, figures and a page go to `out`
    (outputs/NAME).

    `equal`: compare where all arms have spent the same bits, seconds or joules. `reference`: the label to compare with
    (default: that of an ideal preset, else the first). `margin`: accuracy that counts as no worse. `workers`: runs side
    by side, each in a process of its own, so a script calls this under `if __name__ == "__main__":`.
    `callbacks` are told of the runs (without checkpoints); "stop" ends the comparison: what has finished is compared.
    `progress` False shows nothing. `events`: a display of your own.

    Raises ConfigError on bad input, RaysoftError where no arm has a finished run.
    """
    from raysoft.comparison.compare import plan_comparison

    if settings and isinstance(settings[0], int) and not isinstance(settings[0], bool):
        seeds, settings = settings[0], settings[1:]  # in second place, as 0.1 had it
    shared = words(cast("Sequence[Setting]", settings), keys)
    calls = Calls(callbacks)
    plan = plan_comparison(
        arms_of(arms, shared),
        seeds=seeds,
        first_seed=first_seed,
        equal=equal,
        reference=reference,
        margin=margin,
        workers=workers,
        name=name,
        out=None if out is None else os.fspath(out),
        store=None if store is None else os.fspath(store),
    )
    found = _carried_out(plan, workers, calls, progress is not False, events)
    return ComparisonResult(found.folder, found.failed, found.notes)


def _carried_out(
    plan: ComparisonPlan, workers: int, calls: Calls, progress: bool, events: BatchEvents | None
) -> Comparison:
    """Have the runs, or those that a callback left, and compare them."""
    from raysoft.api.progress import board
    from raysoft.api.progress_of_many import BatchProgress
    from raysoft.api.watching import BatchWatching, StopBatch
    from raysoft.comparison.compare import carry_out

    shown = board(progress and events is None)
    display = events or BatchProgress(shown)
    watching = BatchWatching(plan.store, calls, display)
    try:
        with watching.until_the_end():
            return carry_out(plan, workers, watching)
    except StopBatch:
        remark = "Stopped by a callback before all runs had finished."
        found = carry_out(_finished(plan), workers, display, [remark])
        return replace(found, failed=(*watching.failed, *found.failed))
    finally:
        shown.close()


def _finished(plan: ComparisonPlan) -> ComparisonPlan:
    """What is left of a comparison that was stopped. Raises RaysoftError where no run has finished."""
    from raysoft.comparison.store import find, key_of

    known = find(plan.store, {key_of(job.config): job.config for job in plan.jobs})
    jobs = tuple(job for job in plan.jobs if key_of(job.config) in known)
    if not jobs:
        raise RaysoftError("a callback stopped the comparison before any run had finished, so nothing is compared")
    return replace(plan, jobs=jobs)


def arms_of(arms: Arms, shared: Sequence[str]) -> list[Arm]:
    """Arms from either form, each with the shared settings. Raises ConfigError."""
    from raysoft.comparison.arms import Arm, checked_arms, parse_arms

    if isinstance(arms, str):
        raise ConfigError("arms", f"must be a list or a mapping of labels to presets, got the text {arms!r:.80}")
    if not isinstance(arms, Mapping):
        parsed = parse_arms([_argument(arm) for arm in arms])
        return checked_arms([replace(arm, shared=(*arm.shared, *shared)) for arm in parsed])
    found = []
    for label, what in arms.items():
        target, *own = what if isinstance(what, tuple) else (what,)
        if isinstance(target, Mapping) or not isinstance(target, (str, os.PathLike)):
            raise ConfigError(f"arm {label!r:.80}", f"must begin with a preset or a file, got {target!r:.80}")
        found.append(Arm(label, spelt(target), tuple(words(cast("list[Setting]", own), {})), tuple(shared)))
    return checked_arms(found)


def _argument(arm: Any) -> str:
    if not isinstance(arm, (str, os.PathLike)):
        raise ConfigError(
            "arms", f"are texts such as 'soft rounds=3', or a mapping of labels to presets, got {arm!r:.80}"
        )
    return spelt(arm)
