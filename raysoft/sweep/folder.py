"""The folder of a sweep, and what in it survives a crash of anything.

    sweep.yaml        what was asked for, every default written out
    journal.jsonl     one line for whatever run folders cannot tell: points chosen on the way, why a run ended early
    trials/NAME/      the run folder of each trial
    results.parquet   results.csv  points.csv  results.json  best.yaml  report.html  figures/

Ray Tune's own state (`.tune/`) is not among it: a sweep goes on from its run folders and the journal alone, so nothing
pickled is ever read back.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from raysoft.config.yaml12 import load_mapping
from raysoft.errors import ConfigError, RaysoftError
from raysoft.rundir.folder import strict, write_atomic
from raysoft.rundir.places import check_made, made, names_in
from raysoft.sweep.config import SweepConfig, dump, parse_sweep

SWEEP, JOURNAL, TRIALS, TUNE, LOCK = "sweep.yaml", "journal.jsonl", "trials", ".tune", ".lock"
STOPPED, FAILED, CHOSEN, CHANGED = "stopped", "failed", "chosen", "changed"  # events of the journal
MAY_CHANGE = ("name", "executor", "max_concurrent", "storage")  # on --resume: they do not touch a result


@dataclass
class Remembered:
    """What the journal says, by trial name (`chosen`: in the order in which points were chosen)."""

    ended: dict[str, dict[str, Any]] = field(default_factory=dict)  # stopped or failed, the last word
    chosen: list[dict[str, Any]] = field(default_factory=list)
    values: dict[str, dict[str, Any]] = field(default_factory=dict)  # after changes on the way


class SweepFolder:
    """One sweep on disk; see `opened`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def trials(self) -> Path:
        """Where the run folders are."""
        return self.path / TRIALS

    def run(self, name: str) -> Path:
        """The run folder of a trial."""
        return self.trials / name

    def note(self, event: str, **more: Any) -> None:
        """Add a line to the journal, on disk before this returns. Raises RaysoftError."""
        line = json.dumps(strict({"event": event, **more}), allow_nan=False)
        try:
            with (self.path / JOURNAL).open("a", encoding="utf-8") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RaysoftError(f"{self.path / JOURNAL}: cannot be written: {error.strerror or error}") from None

    def remembered(self) -> Remembered:
        """The journal so far; a half-written last line is ignored."""
        out = Remembered()
        for row in self._rows():
            trial = str(row.get("trial"))
            if row["event"] in (STOPPED, FAILED):
                out.ended[trial] = row
            elif row["event"] == CHOSEN:
                out.chosen.append(row)
            elif row["event"] == CHANGED:
                out.values[trial] = row["values"]
        return out

    def _rows(self) -> Iterator[dict[str, Any]]:
        try:
            text = (self.path / JOURNAL).read_text(encoding="utf-8")
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError) as error:
            raise RaysoftError(f"{self.path / JOURNAL}: cannot be read: {error}") from None
        for number, line in enumerate(text.split("\n"), 1):
            try:
                row = json.loads(line) if line.strip() else None
            except ValueError:
                if number < text.count("\n") + 1:
                    raise RaysoftError(f"{self.path / JOURNAL}, line {number}: not valid JSON") from None
                row = None  # a write that was cut short
            if isinstance(row, dict) and isinstance(row.get("event"), str):
                yield row

    def mend(self) -> None:
        """Cut off a half-written last line, so that the next one starts at its own."""
        path = self.path / JOURNAL
        if path.exists() and (data := path.read_bytes()) and not data.endswith(b"\n"):
            write_atomic(path, data[: data.rfind(b"\n") + 1].decode())

    def forget_tune(self) -> Path:
        """An empty place for Ray Tune's own files."""
        shutil.rmtree(self.path / TUNE, ignore_errors=True)
        (self.path / TUNE).mkdir(parents=True)
        return (self.path / TUNE).resolve()  # Tune takes a relative path for a URI


def check_folder(path: Path, config: SweepConfig, resume: bool) -> SweepConfig:
    """The sweep as it goes on in its folder, or begins there. Writes nothing.

    Raises ConfigError where the folder exists and `resume` is not set, where it holds another sweep or something else,
    and where it cannot be made.
    """
    exists = set(names_in(path, "--name", "choose another --name")) - {LOCK}
    if exists and not resume:
        raise ConfigError("--name", f"{path} exists; add --resume to go on with it, or choose another --name")
    if exists and not (path / SWEEP).is_file():
        raise ConfigError("--resume", f"{path} is not the folder of a sweep (it has no {SWEEP}); choose another --name")
    if exists:
        config = _same(path, config)
    check_made(path, "--name", TRIALS)
    return config


@contextmanager
def opened(path: Path, config: SweepConfig, resume: bool) -> Iterator[SweepFolder]:
    """The folder of a sweep, made or continued, for this process alone.

    Raises ConfigError as `check_folder`, and where another process works on it.
    """
    config = check_folder(path, config, resume)
    made(path, "--name", TRIALS)
    with _alone(path):
        folder = SweepFolder(path)
        write_atomic(path / SWEEP, yaml.safe_dump(strict(dump(config)), sort_keys=False, width=120))
        folder.mend()
        yield folder


def _same(path: Path, asked: SweepConfig) -> SweepConfig:
    """The sweep asked for, if it is the one of this folder. Raises ConfigError naming what differs."""
    stored = dump(parse_sweep(load_mapping(path / SWEEP)))
    now = strict(dump(asked))
    differ = [key for key in now if key not in MAY_CHANGE and now[key] != stored.get(key)]
    if differ:
        key = differ[0]
        shown = f"{stored.get(key)!r:.80} there, {now[key]!r:.80} now"
        others = f" (also: {', '.join(differ[1:])})" if len(differ) > 1 else ""
        raise ConfigError("--resume", f"{path} holds another sweep: {key} is {shown}{others}; choose another --name")
    return asked


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    lock = FileLock(str(path / LOCK))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise ConfigError("--name", f"another process is working on {path}") from None
    try:
        yield
    finally:
        lock.release()


def read_spec(path: Path) -> Mapping[str, Any]:
    """sweep.yaml as data. Raises ConfigError."""
    return load_mapping(path / SWEEP)
