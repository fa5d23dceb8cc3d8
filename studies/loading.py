"""The runs of an experiment as read back, and the metrics its task is judged by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from raysoft.comparison.batch import Job, JobOutcome
from raysoft.comparison.readings import learned
from raysoft.comparison.store import find, key_of
from raysoft.quantities import quantity
from raysoft.rundir.reading import Run, read_run
from raysoft.types import Array
from studies.gone import GoneJob
from studies.recorded import read_recorded
from studies.settings import Experiment, Setting, Task


@dataclass(frozen=True)
class Metric:
    """What a task is judged by. `factor`: from the record's unit to the shown one; `band`: what counts as close."""

    name: str  # of readings.METRICS
    label: str
    unit: str
    factor: float
    digits: int
    lower_is_better: bool
    band: float  # in the shown unit, or a share of the reference where `relative`
    relative: bool = False

    def edge(self, reference: float) -> float:
        """The worst value (in the record's unit) within the band of a reference value."""
        gap = self.band * reference if self.relative else self.band / self.factor
        return reference + gap if self.lower_is_better else reference - gap

    def within(self, value: float, reference: float) -> bool:
        """Whether a value is no worse than the band's edge (to 1e-12: decimal differences round)."""
        worse = value - self.edge(reference) if self.lower_is_better else self.edge(reference) - value
        return worse <= 1e-12


def _metric(name: str, *, band: float, relative: bool = False) -> Metric:
    """One decimal more than in other tables: the study tells apart what differs by less than a point."""
    of = quantity(name)
    return Metric(name, of.label, of.unit, of.factor, of.digits + 1, of.lower_is_better, band, relative=relative)


ACCURACY = _metric("accuracy", band=0.5)
NEXT_BYTE = replace(ACCURACY, label="Next-byte accuracy")
BITS_PER_BYTE = _metric("bits_per_byte", band=0.02, relative=True)


def metrics_of(task: Task) -> tuple[Metric, ...]:
    """The metrics of a task, the first being the one that ranks its arms."""
    return (ACCURACY,) if task.name == "digits" else (NEXT_BYTE, BITS_PER_BYTE)


@dataclass(frozen=True)
class Results:
    """Finished runs of an experiment by label and seed; `missing`: labels with the seeds that have none."""

    experiment: Experiment
    runs: Mapping[str, Mapping[int, Run]]
    missing: Mapping[str, tuple[int, ...]]
    recorded: str = ""  # which arms stand as they were recorded, see recorded.py

    @property
    def settings(self) -> list[Setting]:
        """The arms that have at least one run."""
        return [one for one in self.experiment.settings if self.runs[one.label]]

    @property
    def reference(self) -> Mapping[int, Run]:
        """The reference's runs by seed."""
        return self.runs[self.experiment.reference]

    def remark(self) -> str:
        """What is missing and what is only recorded, in one line; empty where nothing is."""
        if not self.missing:
            return self.recorded
        lost = sum(map(len, self.missing.values()))
        names = list(self.missing)
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        lack = f"{lost} of {len(self.experiment.jobs())} runs are missing ({', '.join(names[:4])}{more})."
        return f"{lack} {self.recorded}".strip()


def read_results(experiments: Sequence[Experiment], outcomes: Sequence[JobOutcome]) -> dict[str, Results]:
    """Results by experiment; `outcomes` are those of all jobs, experiment by experiment. Each folder is read once."""
    cache: dict[Path, Run] = {}
    out, start = {}, 0
    recorded = read_recorded()
    for experiment in experiments:
        jobs = experiment.jobs()
        runs: dict[str, dict[int, Run]] = {one.label: {} for one in experiment.settings}
        missing: dict[str, tuple[int, ...]] = {}
        kept = []
        for job, outcome in zip(jobs, outcomes[start : start + len(jobs)], strict=True):
            if outcome.folder is None and isinstance(job, GoneJob):
                continue
            if outcome.folder is None:
                missing[job.label] = (*missing.get(job.label, ()), job.config.seed)
                continue
            if outcome.folder not in cache:
                cache[outcome.folder] = light(read_run(outcome.folder))
            runs[job.label][job.config.seed] = cache[outcome.folder]
            kept.append((job.label, outcome.folder.name))
        out[experiment.name] = Results(experiment, runs, missing, recorded.remark(kept))
        start += len(jobs)
    return out


def light(run: Run) -> Run:
    """The run without its values by client, nine tenths of its size."""
    records = tuple(
        {**row, "metrics": {key: value for key, value in row["metrics"].items() if key != "clients"}}
        for row in run.records
    )
    return replace(run, records=records)


def found_only(jobs: Sequence[Job], store: Path) -> list[JobOutcome]:
    """Outcomes of what the store holds, without running anything."""
    gone = gone_outcomes(jobs, store)
    keys = {at: key_of(job.config) for at, job in enumerate(jobs) if at not in gone}
    known = find(store, {key: jobs[at].config for at, key in keys.items()})
    return [
        gone[at] if at in gone else JobOutcome(job, known.get(keys[at]), reused=keys[at] in known)
        for at, job in enumerate(jobs)
    ]


def gone_outcomes(jobs: Sequence[Job], store: Path) -> dict[int, JobOutcome]:
    """Outcomes by position of all jobs whose option is no longer there: the published folder, where STORE has it."""
    folders = {at: store / job.folder for at, job in enumerate(jobs) if isinstance(job, GoneJob)}
    return {
        at: JobOutcome(jobs[at], folder if folder.is_dir() else None, reused=True) for at, folder in folders.items()
    }


def by_seed(runs: Mapping[int, Run], metric: Metric, upto_s: float | None = None) -> dict[int, float]:
    """What each seed has learned, at the end or up to a simulated time; seeds without a number are left out."""
    out = {}
    for seed, run in sorted(runs.items()):
        value = learned(run, metric.name, None if upto_s is None else clock(run) <= upto_s * (1 + 1e-9))
        if value is not None:
            out[seed] = value
    return out


def clock(run: Run) -> Array:
    """[T] simulated seconds at each record."""
    from raysoft.comparison.readings import totals

    return totals(run)["seconds"]
