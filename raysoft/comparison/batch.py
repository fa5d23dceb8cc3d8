"""Many runs side by side: jobs in, finished run folders of a store out. Used by comparisons and the study.

Each worker is a spawned process that does one inline run after the other, so torch is imported once a worker. What is
done already is reused; what was interrupted or failed runs again. A run that fails does not stop the others.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from raysoft.comparison.store import find, key_of, open_store, run_name, settled
from raysoft.comparison.workers import Pool, Reply
from raysoft.config import RunConfig
from raysoft.errors import ConfigError
from raysoft.kernels import portable
from raysoft.planning.events import Preparing
from raysoft.runs.bases import ensure_bases
from raysoft.types import RoundRecord

POLL_S = 2.0  # how often a run that another process computes is looked at again


@dataclass(frozen=True)
class Job:
    """One run to have: the label names its folder, the configuration determines its result."""

    label: str
    config: RunConfig


@dataclass(frozen=True)
class JobOutcome:
    """What became of a job: its finished run folder, or why there is none."""

    job: Job
    folder: Path | None
    reused: bool = False
    error: str | None = None


def head_line(total: int, reused: int, rounds: int) -> str:
    """What `planned` says, for every display."""
    found = f", {reused} of them done before" if reused else ""
    return f"{total} runs{found}; {rounds} rounds to go"


def outcome_line(outcome: JobOutcome, number: int, total: int) -> str:
    """What `finished` says."""
    what = f"FAILED: {outcome.error}" if outcome.error else "done elsewhere" if outcome.reused else "done"
    return f"[{number}/{total}] {outcome.job.label}, seed {outcome.job.config.seed}: {what}"


def waiting_line(runs: int) -> str:
    """What `waiting` says."""
    return f"waiting for {runs} runs that another process is computing"


class BatchEvents(Preparing):
    """What a caller may draw while a batch goes on; these draw nothing."""

    def planned(self, total: int, reused: int, rounds: int) -> None:
        """`total` different runs, `reused` of them done before; the others have `rounds` rounds together."""

    def begun(self, job: Job) -> None:
        """A worker has begun a run."""

    def record(self, job: Job, record: RoundRecord) -> None:
        """The same round with its figures, columns over clients left out; comes before `round`."""

    def round(self, job: Job, tick: int) -> None:
        """A round of a run (0: the base) is on disk."""

    def finished(self, outcome: JobOutcome) -> None:
        """A run is done, found done, or failed."""

    def waiting(self, runs: int) -> None:
        """Nothing is left to do but `runs` runs that another process is computing."""


def _check_portable(configs: Sequence[RunConfig]) -> None:
    """One batch, one kind of process: a run that is not portable would get other bytes in a portable one."""
    wanted = {config.actors.portable for config in configs}
    if len(wanted) > 1:
        raise ConfigError(portable.FIELD, "is true for some runs and false for others; it must be the same for all")
    portable.require(True in wanted)


def run_batch(
    jobs: Sequence[Job], store: Path | str, workers: int = 2, events: BatchEvents | None = None
) -> list[JobOutcome]:
    """Have every job's run in the store; the outcomes in the order of the jobs. Jobs of equal result share a run.

    Runs are inline and without a report (`raysoft report DIR` draws one). Another process may use the store at the
    same time: a run it computes is waited for. On KeyboardInterrupt the workers end their runs as interrupted, finished
    ones stay, and a second call goes on from there. Workers are spawned processes: a script that calls this needs the
    usual `if __name__ == "__main__":`. Raises ConfigError("--store") where the store cannot be written.
    """
    _check_portable([job.config for job in jobs])
    events = events or BatchEvents()
    store = open_store(Path(store))
    keys = [key_of(job.config) for job in jobs]
    unique: dict[str, Job] = {}
    for key, job in zip(keys, jobs, strict=True):
        unique.setdefault(key, job)
    known = find(store, {key: job.config for key, job in unique.items()})
    outcomes = {key: JobOutcome(unique[key], folder, reused=True) for key, folder in known.items()}
    todo = {key: job for key, job in unique.items() if key not in outcomes}
    events.planned(len(unique), len(outcomes), sum(job.config.rounds for job in todo.values()))
    for outcome in outcomes.values():
        events.finished(outcome)
    if todo:
        ensure_bases([job.config for job in todo.values()], events)
        _compute(todo, store, workers, events, outcomes)
    return [
        JobOutcome(job, outcomes[key].folder, outcomes[key].reused, outcomes[key].error)
        for key, job in zip(keys, jobs, strict=True)
    ]


def _compute(
    todo: dict[str, Job], store: Path, workers: int, events: BatchEvents, outcomes: dict[str, JobOutcome]
) -> None:
    """Give the jobs to workers until each has an outcome."""
    pending, elsewhere = deque(todo), deque[str]()
    again_at = 0.0
    with Pool(max(1, min(workers, len(todo))), store) as pool:
        while pending or elsewhere or pool.busy:
            if elsewhere and not pending and time.monotonic() >= again_at:
                pending, elsewhere = elsewhere, deque()
            while pending and pool.free:
                key = pending.popleft()
                job = todo[key]
                pool.give(key, settled(job.config), run_name(job.label, job.config))
            if elsewhere and not pool.busy:
                events.waiting(len(elsewhere))
            for reply in pool.replies():
                if reply.kind == "claimed_elsewhere":
                    elsewhere.append(reply.key)
                    again_at = time.monotonic() + POLL_S
                else:
                    _tell(reply, todo[reply.key], events, outcomes)


def _tell(reply: Reply, job: Job, events: BatchEvents, outcomes: dict[str, JobOutcome]) -> None:
    if reply.kind == "begun":
        events.begun(job)
    elif reply.kind == "round":
        if reply.record is not None:
            events.record(job, reply.record)
        events.round(job, reply.tick)
    else:
        folder = None if reply.kind == "failed" else Path(reply.text)
        error = reply.text if reply.kind == "failed" else None
        outcomes[reply.key] = JobOutcome(job, folder, reused=reply.kind == "found", error=error)
        events.finished(outcomes[reply.key])
