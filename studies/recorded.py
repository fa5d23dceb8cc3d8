"""Published runs whose numbers today's code no longer gives, named in recorded.json with a commit that reruns them.

Some are of options that are no longer there (`gone` in the file): they are found by the name of their folder only. And
a plug-in whose numbers change raises its revision, so that older runs are not found again. Those behind the study's
tables then stand as they were recorded, marked as such below every table they are in; `make study-fresh` runs them
anew. recorded.json holds the commit, the reason, and every run with its closing numbers; the records themselves are in
the archive of published runs.

    python -m studies.recorded STORE COMMIT REASON   # freeze what the experiments find in STORE by older revisions only
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysoft.comparison.batch import Job, JobOutcome
from raysoft.comparison.readings import closing_values
from raysoft.comparison.store import find, key_of
from raysoft.config import RunConfig
from raysoft.rundir.folder import write_atomic
from raysoft.rundir.reading import read_run
from studies.gone import GoneJob

FILE = Path(__file__).parent / "recorded.json"
NUMBERS = ("final_accuracy", "final_bits_per_byte", "uplink_mb", "simulated_s", "energy_j")


@dataclass(frozen=True)
class Recorded:
    """recorded.json. `runs`: closing numbers by folder name; `gone`: the same of options that are no longer there."""

    commit: str
    reason: str
    runs: Mapping[str, Mapping[str, float | None]]
    gone: Recorded | None = None

    def remark(self, runs: Sequence[tuple[str, str]]) -> str:
        """What to say below a table that has these runs, (label, folder) each; nothing of those found today."""
        names = "; ".join(dict.fromkeys(label for label, folder in runs if folder in self.runs))
        own = f"Recorded at commit {self.commit[:7]}, not found by today's code ({self.reason}): {names}."
        return " ".join(text for text in (own if names else "", self.gone.remark(runs) if self.gone else "") if text)


def read_recorded(path: Path = FILE) -> Recorded:
    """The file. Raises ValueError or KeyError where it is damaged."""
    found = json.loads(path.read_text(encoding="utf-8"))
    gone = found.get("gone")
    return Recorded(found["commit"], found["reason"], found["runs"], None if gone is None else Recorded(**gone))


@contextmanager
def older_revisions() -> Iterator[None]:
    """Inside, configurations have the hashes they had before any plug-in was revised."""
    revisions = RunConfig.revisions
    RunConfig.revisions = lambda self: {}  # type: ignore[method-assign]
    try:
        yield
    finally:
        RunConfig.revisions = revisions  # type: ignore[method-assign]


def recorded_outcomes(jobs: Sequence[Job], store: Path, recorded: Recorded) -> dict[int, JobOutcome]:
    """Outcomes by position of the jobs that STORE answers with a recorded run only."""
    revised = {at: job.config for at, job in enumerate(jobs) if not isinstance(job, GoneJob) and job.config.revisions()}
    today = _found(revised, store)
    with older_revisions():
        older = _found({at: config for at, config in revised.items() if at not in today}, store)
    return {
        at: JobOutcome(jobs[at], folder, reused=True) for at, folder in older.items() if folder.name in recorded.runs
    }


def _found(configs: Mapping[int, RunConfig], store: Path) -> dict[int, Path]:
    keys = {at: key_of(config) for at, config in configs.items()}
    known = find(store, {key: configs[at] for at, key in keys.items()})
    return {at: known[key] for at, key in keys.items() if key in known}


def freeze(jobs: Sequence[Job], store: Path, commit: str, reason: str) -> dict[str, Any]:
    """The contents of recorded.json for what STORE has of these jobs by older revisions only."""
    every = Recorded("", "", {folder.name: {} for folder in store.iterdir() if folder.is_dir()})
    folders = {one.folder for one in recorded_outcomes(jobs, store, every).values() if one.folder is not None}
    runs = {folder.name: numbers_of(folder) for folder in sorted(folders)}
    return {"commit": commit, "reason": reason, "runs": runs, "gone": json.loads(FILE.read_text()).get("gone")}


def numbers_of(folder: Path) -> dict[str, float | None]:
    """The closing numbers that recorded.json keeps of a run."""
    values = closing_values(read_run(folder))
    return {name: values[name] for name in NUMBERS}


def main() -> int:
    """Write recorded.json."""
    from studies.settings import Scale, everything

    store, commit, reason = sys.argv[1:]
    jobs = [job for one in everything(Scale()) for job in one.jobs()]
    write_atomic(FILE, json.dumps(freeze(jobs, Path(store), commit, reason), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
