"""What is left of a sweep: which trials there are by now, which have ended, and what Ray Tune is to be given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raysoft.errors import RaysoftError
from raysoft.rundir.folder import SUMMARY
from raysoft.rundir.reading import read_json
from raysoft.sweep.config import Asha, HyperBand
from raysoft.sweep.folder import STOPPED, Remembered, SweepFolder
from raysoft.sweep.points import Sweep, Trial, Values
from raysoft.sweep.results import DONE

Job = dict[str, Any]  # what a trial's process is given


def replays(sweep: Sweep) -> bool:
    """Whether the scheduler judges a trial by what others had at the same round: then it has to hear of ended ones."""
    return isinstance(sweep.config.scheduler, (Asha, HyperBand))


def all_trials(sweep: Sweep, known: Remembered) -> list[Trial]:
    """Every trial so far, with the settings that it has by now."""
    if sweep.points:
        trials = sweep.trials()
    else:
        trials = [sweep.trial(row["point"], row["values"], seed) for row in known.chosen for seed in sweep.seeds]
    return [Trial(one.name, one.point, one.seed, known.values.get(one.name, one.values)) for one in trials]


@dataclass(frozen=True)
class Work:
    """`jobs` for Tune, ended ones first; `chosen`: points of a search so far; `ended`: trials that are done or stopped.

    A trial that was stopped stays so (its job has the round, `until`); one that failed is tried again.
    """

    jobs: tuple[Job, ...]
    chosen: tuple[Values, ...]
    ended: frozenset[str]
    stopped: Mapping[str, int]
    left: bool

    @classmethod
    def of(cls, sweep: Sweep, folder: SweepFolder) -> Work:
        """Ask the run folders and the journal."""
        known = folder.remembered()
        trials = all_trials(sweep, known)
        names = {trial.name for trial in trials}
        done = {name for name in names if _is_done(folder, name)}
        stopped = {
            name: int(row["round"])
            for name, row in known.ended.items()
            if row["event"] == STOPPED and name in names - done
        }
        ended = frozenset(done | stopped.keys())
        jobs = [job_of(trial, stopped) for trial in trials if replays(sweep) or trial.name not in ended]
        jobs.sort(key=lambda job: job["trial"] not in ended)
        chosen = tuple(row["values"] for row in known.chosen)
        return cls(tuple(jobs), chosen, ended, stopped, left=len(ended) < sweep.count)


def job_of(trial: Trial, stopped: Mapping[str, int]) -> Job:
    """What a trial's process is given."""
    job = {"trial": trial.name, "point": trial.point, "seed": trial.seed, "values": dict(trial.values)}
    return {**job, "until": stopped[trial.name]} if trial.name in stopped else job


def _is_done(folder: SweepFolder, name: str) -> bool:
    try:
        return read_json(folder.run(name) / SUMMARY).get("status") == DONE
    except RaysoftError:
        return False  # not there, or damaged
