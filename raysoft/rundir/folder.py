"""The run folder: what a run leaves behind, written so that a crash at any moment leaves something readable.

    config.yaml  environment.json  rounds.jsonl  summary.json  evaluation.json  report.html
    tensorboard/  wandb/  checkpoints/  adapter/ (or model/)  figures/  plugins/ (see plugin_files.py)

`rounds.jsonl` has one strict JSON object a line, flushed every round; line 0 is the untouched base; NaN and infinities
become null. The curves for TensorBoard and W&B are written by raysoft.runs.trackers.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from raysoft import atomic
from raysoft.config import NAME_PATTERN
from raysoft.errors import ConfigError, RaysoftError
from raysoft.rundir.environment import environment
from raysoft.rundir.files import check_overwrite, files_of
from raysoft.rundir.places import check_made, names_in
from raysoft.types import RoundRecord

CONFIG, ENVIRONMENT, ROUNDS, SUMMARY = "config.yaml", "environment.json", "rounds.jsonl", "summary.json"
LOCK = ".lock"  # held by the process that writes
REPLACED = ".replaced"  # an old run, until the first round of the one that overwrites it is on disk
TENSORBOARD, WANDB = "tensorboard", "wandb"
RUN_ID = "run_id"  # in WANDB: what W&B knows this run by
FIGURES, REPORT = "figures", "report.html"
EVALUATION = "evaluation.json"  # the final model by client and by class, for figures
PLAN = "plan.json"  # how the rank was chosen, where model.lora.rank was `plan`


def check_name(name: str) -> str:
    """The run name itself, if it is a plain folder name. Raises ConfigError otherwise."""
    if not NAME_PATTERN.fullmatch(name):
        valid = "1 to 64 letters, digits, '.', '_' or '-', starting with a letter or digit"
        raise ConfigError("--name", f"{name!r} is not a run name: use {valid}")
    return name


def name_of(target: str) -> str:
    """The run name that follows from a preset or file: what a folder name cannot hold becomes '-'."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(target).stem).lstrip("-._")[:64]
    return name or "run"


def strict(value: Any) -> Any:
    """`value` as plain JSON data: numpy becomes lists and numbers, NaN and infinities become None (null)."""
    if isinstance(value, Mapping):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return strict(value.tolist())
    if isinstance(value, (list, tuple)):
        return [strict(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def write_atomic(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old content or the new, never half of it.

    Raises RaysoftError naming the file where it cannot be written.
    """
    with _writing(path):
        atomic.write_text(path, text)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # no room left, a quota, a folder that vanished
        raise RaysoftError(f"{path}: cannot be written: {error.strerror or error}") from None


@dataclass(frozen=True)
class Position:
    """The first `length` bytes of rounds.jsonl, by their hash."""

    length: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> Position:
        """The position after these bytes."""
        return cls(len(data), hashlib.sha256(data).hexdigest())


START = Position.of(b"")


class RunFolder:
    """Writer of one run folder; use as a context manager, or call `close`.

    Raises ConfigError("--out") where the folder exists with content and `overwrite` is not set, and where it holds
    anything that no run has written (so that a slip of the finger cannot empty a home folder). `path` is absolute, so
    that whoever changes the current folder meanwhile does not lose the run; messages have it as it was given.
    """

    def __init__(self, path: Path | str, overwrite: bool = False) -> None:
        self._given = Path(path)
        self.path = self._given.absolute()
        content = check_place(self._given, overwrite)
        with _refusing(self._given):
            self.path.mkdir(parents=True, exist_ok=True)
        self._lock()
        with _refusing(self._given):
            _set_aside(self.path, content)
        self._hash, self._bytes, self._last_round = hashlib.sha256(), 0, -1
        self._start()

    @classmethod
    def reopen(cls, path: Path | str, position: Position | Callable[[], Position]) -> RunFolder:
        """Continue a run after `position`: later lines of rounds.jsonl are cut off, the summary is removed.

        A function is called once the folder is locked, to mend rounds.jsonl and say where it ends then.
        Raises RaysoftError where another process writes to the folder, or rounds.jsonl is shorter.
        """
        folder = cls.__new__(cls)
        folder._given = Path(path)
        folder.path = folder._given.absolute()
        folder._lock()
        try:
            if (folder.path / SUMMARY).is_dir():
                raise RaysoftError(f"{folder.path / SUMMARY}: is a folder where a file has to be written; remove it")
            with _writing(folder.path / ROUNDS):
                folder._cut(position() if callable(position) else position)
            with _writing(folder.path / SUMMARY):
                (folder.path / SUMMARY).unlink(missing_ok=True)
            folder._start()
        except BaseException:
            folder._unlock()
            raise
        return folder

    def _cut(self, position: Position) -> int:
        """Keep what rounds.jsonl holds up to `position`; its last round."""
        path = self.path / ROUNDS
        data = path.read_bytes()[: position.length] if path.exists() else b""
        if Position.of(data) != position:
            raise RaysoftError(f"{path}: does not hold the rounds it should; it was changed or is damaged")
        with path.open("ab") as file:
            file.truncate(position.length)
        self._hash = hashlib.sha256(data)
        self._bytes = len(data)
        self._last_round = data.count(b"\n") - 1
        return self._last_round

    def rewind(self, position: Position) -> None:
        """Go back to an earlier position while the run goes on (a lost coordinator starts from its last checkpoint)."""
        self._rounds.close()
        with _writing(self.path / ROUNDS):
            self._cut(position)
        self._start()

    def _start(self) -> None:
        self._hung = False
        self._rounds = (self.path / ROUNDS).open("ab")

    def _lock(self) -> None:
        """One writer a folder; the system releases the lock of a process that ends, however it ends."""
        self._held = FileLock(str(self.path / LOCK))
        try:
            self._held.acquire(blocking=False)
        except Timeout:
            raise RaysoftError(f"{self._given}: another process is writing to this run folder") from None
        except (OSError, NotImplementedError):  # a file system without locks
            pass

    def _unlock(self) -> None:
        if self._held.is_locked:
            (self.path / LOCK).unlink(missing_ok=True)
            self._held.release()

    def write_config(self, yaml_text: str) -> None:
        """The resolved configuration."""
        write_atomic(self.path / CONFIG, yaml_text)

    def write_plan(self, json_text: str) -> None:
        """How the rank was chosen (see planning/table.py)."""
        write_atomic(self.path / PLAN, json_text)

    def write_environment(self, threads: int | None = None, radio: Sequence[tuple[str, str]] = ()) -> None:
        """What a result may depend on besides the configuration; `threads` is the thread count of the training.

        `radio`: how the channel describes itself, names and values, which a report shows.
        """
        found = environment(threads) | ({"radio": radio} if radio else {})
        write_atomic(self.path / ENVIRONMENT, json.dumps(found, indent=2) + "\n")

    def append(self, record: RoundRecord) -> Position:
        """Add one round, on disk before this returns; the position after it.

        Raises RaysoftError where it cannot be written, and where the folder has been removed meanwhile.
        """
        if self.is_gone():
            raise RaysoftError(f"{self._given}: was removed while the run went on, so nothing of it is kept")
        line = _line(record_row(record)).encode()
        with _writing(self.path / ROUNDS):
            self._rounds.write(line)
            self._rounds.flush()
            self._hash.update(line)
            self._bytes += len(line)
        self._drop_replaced()
        return Position(self._bytes, self._hash.hexdigest())

    def is_gone(self) -> bool:
        """Whether somebody has removed what this run is writing."""
        return not self.path.is_dir() or (not self._rounds.closed and os.fstat(self._rounds.fileno()).st_nlink == 0)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """The closing figures, see `summarise`."""
        write_atomic(self.path / SUMMARY, json.dumps(strict(summary), indent=2, allow_nan=False) + "\n")

    def write_evaluation(self, details: Mapping[str, Any], rounds: int) -> None:
        """The model after so many rounds by client and by class; nothing where nothing was evaluated."""
        if details:
            told = {"rounds": rounds, **details}
            write_atomic(self.path / EVALUATION, json.dumps(strict(told), allow_nan=False) + "\n")

    def close(self) -> None:
        """Close every file; may be called twice. A run that this one replaces is gone from now on."""
        if self._hung:
            return
        self._rounds.close()
        self._drop_replaced()
        self._unlock()

    def abandon(self) -> None:
        """The disk hangs in the middle of a write: closing would wait for it, so the files end with the process."""
        self._hung = True

    def _drop_replaced(self) -> None:
        if (self.path / REPLACED).is_dir():
            shutil.rmtree(self.path / REPLACED)

    def discard(self) -> None:
        """Remove what was written so far: a run that was refused leaves the folder as it was (an old run, or none)."""
        self._rounds.close()
        self._unlock()
        aside = self.path / REPLACED
        _remove(self.path, sorted(item.name for item in self.path.iterdir() if item != aside))
        if aside.exists():
            _move(aside, self.path, sorted(item.name for item in aside.iterdir()))
            aside.rmdir()
        else:
            self.path.rmdir()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_place(path: Path, overwrite: bool) -> list[str]:
    """What an old run left in the folder, if there is one. Raises ConfigError where no run can be written there."""
    with _refusing(path):
        content = [name for name in names_in(path, "--out", be="written") if name != LOCK]
        if content and not overwrite:
            run = f", add --overwrite, or go on with it by raysoft resume {path}" if CONFIG in content else ""
            raise ConfigError("--out", f"{path} exists and is not empty; choose another folder{run}")
        check_overwrite(
            files_of(path) if content else (),
            lambda name: (path / name).read_text(encoding="utf-8", errors="replace"),
            str(path),
            "--out",
        )
        check_made(path, "--out")
        if path.exists() and not os.access(path, os.W_OK):
            raise ConfigError("--out", f"{path} cannot be written: it may not be written to")
        return content


def _set_aside(path: Path, content: Sequence[str]) -> None:
    if content:
        _remove(path, [REPLACED] if REPLACED in content else [])
        _move(path, path / REPLACED, [name for name in content if name != REPLACED])


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError("--out", f"{path} cannot be written: {error.strerror}") from None


def _move(source: Path, target: Path, content: Iterable[str]) -> None:
    target.mkdir(exist_ok=True)
    for name in content:
        (source / name).rename(target / name)


def _remove(path: Path, content: Iterable[str]) -> None:
    for name in content:
        item = path / name
        shutil.rmtree(item) if item.is_dir() and not item.is_symlink() else item.unlink()


def record_row(record: RoundRecord | Mapping[str, Any]) -> dict[str, Any]:
    """One round as strict JSON data, keys in the order of `RoundRecord`."""
    if is_dataclass(record):
        return {item.name: strict(getattr(record, item.name)) for item in fields(record)}
    return {str(key): strict(value) for key, value in record.items()}  # type: ignore[union-attr]


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, allow_nan=False, separators=(",", ":")) + "\n"
