"""The run folder: what a run leaves behind, written so that a crash at any moment leaves something readable.

    config.yaml  environment.json  rounds.jsonl  summary.json  report.html
    tensorboard/  wandb/  checkpoints/  adapter/ (or model/)  figures/

`rounds.jsonl` has one strict JSON object a line, flushed every round; line 0 is the untouched base; NaN and infinities
become null. The curves for TensorBoard and W&B are written by raysoft.trackers.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from raysoft.config import NAME_PATTERN, RunConfig
from raysoft.environment import environment
from raysoft.errors import ConfigError, RaysoftError
from raysoft.folder_checks import is_number, row_problem, summary_problem
from raysoft.types import Array, RoundRecord
from raysoft.yaml12 import load_mapping

CONFIG, ENVIRONMENT, ROUNDS, SUMMARY = "config.yaml", "environment.json", "rounds.jsonl", "summary.json"
LOCK = ".lock"  # held by the process that writes
REPLACED = ".replaced"  # an old run, until the first round of the one that overwrites it is on disk
TENSORBOARD, WANDB = "tensorboard", "wandb"
RUN_ID = "run_id"  # in WANDB: what W&B knows this run by
FIGURES, REPORT = "figures", "report.html"
PLAN = "plan.json"  # how the rank was chosen, where model.lora.rank was `plan`
OWN_FILES = frozenset({CONFIG, ENVIRONMENT, ROUNDS, SUMMARY, REPORT, PLAN, LOCK})
OWN_FOLDERS = frozenset({TENSORBOARD, WANDB, FIGURES, "checkpoints", "adapter", "model"})
FINAL_EVALUATIONS = 5
SUMMARY_KEYS = (
    "final_accuracy", "best_accuracy", "base_accuracy", "rounds", "uplink_bits_total", "mean_round_latency_s",
    "latency_budget_s", "simulated_time_s", "energy_j_total", "wall_time_s", "client_updates_per_s", "adapter_sha256",
    "config_hash", "status", "metrics",
)  # fmt: skip


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
    part = path.with_name(f".{path.name}.part")
    with _writing(path):
        try:
            # A folder's name may hold bytes that are not UTF-8, and a report shows it.
            with part.open("w", encoding="utf-8", errors="replace") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


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
    anything that no run has written (so that a slip of the finger cannot empty a home folder).
    """

    def __init__(self, path: Path | str, overwrite: bool = False) -> None:
        self.path = Path(path)
        content = _old_content(self.path, overwrite)
        self._lock()
        with _refusing(self.path):
            _set_aside(self.path, content)
        self._hash, self._bytes, self._last_round = hashlib.sha256(), 0, -1
        self._start()

    @classmethod
    def reopen(cls, path: Path | str, position: Position) -> RunFolder:
        """Continue a run after `position`: later lines of rounds.jsonl are cut off, the summary is removed.

        Raises RaysoftError where another process writes to the folder, or rounds.jsonl is shorter.
        """
        folder = cls.__new__(cls)
        folder.path = Path(path)
        folder._lock()
        try:
            with _writing(folder.path / ROUNDS):
                folder._cut(position)
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
        self._rounds = (self.path / ROUNDS).open("ab")

    def _lock(self) -> None:
        """One writer a folder; the system releases the lock of a process that ends, however it ends."""
        self._held = FileLock(str(self.path / LOCK))
        try:
            self._held.acquire(blocking=False)
        except Timeout:
            raise RaysoftError(f"{self.path}: another process is writing to this run folder") from None
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
        """How the rank was chosen (see plan_table.py)."""
        write_atomic(self.path / PLAN, json_text)

    def write_environment(self, threads: int | None = None) -> None:
        """What a result may depend on besides the configuration; `threads` is the thread count of the training."""
        write_atomic(self.path / ENVIRONMENT, json.dumps(environment(threads), indent=2) + "\n")

    def append(self, record: RoundRecord) -> Position:
        """Add one round, on disk before this returns; the position after it."""
        line = _line(record_row(record)).encode()
        with _writing(self.path / ROUNDS):
            self._rounds.write(line)
            self._rounds.flush()
            self._hash.update(line)
            self._bytes += len(line)
        self._drop_replaced()
        return Position(self._bytes, self._hash.hexdigest())

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """The closing figures, see `summarise`."""
        write_atomic(self.path / SUMMARY, json.dumps(strict(summary), indent=2, allow_nan=False) + "\n")

    def close(self) -> None:
        """Close every file; may be called twice. A run that this one replaces is gone from now on."""
        self._rounds.close()
        self._drop_replaced()
        self._unlock()

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


def _old_content(path: Path, overwrite: bool) -> list[str]:
    """What an old run left in the folder, made where there is none. Raises ConfigError: not to be replaced."""
    with _refusing(path):
        if path.exists() and not path.is_dir():
            raise ConfigError("--out", f"{path} is a file; give a folder")
        content = sorted(item.name for item in path.iterdir() if item.name != LOCK) if path.exists() else []
        if content and not overwrite:
            raise ConfigError(
                "--out",
                f"{path} exists and is not empty; choose another folder, add --overwrite, or go on with it by "
                f"raysoft resume {path}",
            )
        own = OWN_FILES | OWN_FOLDERS | {REPLACED}
        strange = [name for name in content if name not in own and not name.endswith(".part")]
        if strange:
            raise ConfigError(
                "--out", f"{path} holds {strange[0]!r}, which no run has written, so it is not overwritten; "
                "choose another folder"
            )  # fmt: skip
        path.mkdir(parents=True, exist_ok=True)
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


# ---------------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class Run:
    """A run folder as read back: T records (line 0 is the untouched base)."""

    path: Path
    config: dict[str, Any]
    records: tuple[dict[str, Any], ...]
    summary: dict[str, Any] | None  # None: the run has not ended
    environment: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # what was odd about the folder, for the reader

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.resolve().name

    def column(self, key: str) -> Array:
        """[T] float64 values of one record key, or of `metrics.KEY`; NaN where there is no such number."""
        head, _, rest = key.partition(".")
        values: list[Any] = [row.get(head, {}).get(rest) if rest else row.get(head) for row in self.records]
        return np.array([v if is_number(v) else math.nan for v in values], dtype=np.float64)


def read_run(path: Path | str) -> Run:
    """Read a run folder. Raises RaysoftError naming file and line; a half-written last line becomes a note."""
    path = Path(path)
    if not path.is_dir():
        raise RaysoftError(f"{path}: no such run folder")
    for name in (CONFIG, ROUNDS):
        if not (path / name).is_file():
            raise RaysoftError(f"{path / name}: missing, so {path} is not a run folder")
    records, notes = _read_rounds(path / ROUNDS)
    summary = read_json(path / SUMMARY) if (path / SUMMARY).exists() else None
    if summary is not None and (problem := summary_problem(summary)):
        raise RaysoftError(f"{path / SUMMARY}: {problem}")
    if summary is None:
        notes.append("The run has not written a summary: it is still running or was interrupted.")
    surroundings = read_json(path / ENVIRONMENT) if (path / ENVIRONMENT).exists() else {}
    return Run(path, load_mapping(path / CONFIG), tuple(records), summary, surroundings, tuple(notes))


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise RaysoftError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RaysoftError(f"{path}: is not UTF-8 text") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises RaysoftError naming file and line."""
    text = _read_text(path)
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise RaysoftError(f"{path}, line {line}: not valid JSON: {getattr(error, 'msg', error)}") from None
    if not isinstance(value, dict):
        raise RaysoftError(f"{path}: must hold a JSON object")
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _read_rounds(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    lines = _read_text(path).split("\n")
    records: list[dict[str, Any]] = []
    notes: list[str] = []
    last = len(lines) - 1  # text after the last newline: empty, unless a write was cut short
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_constant=_refuse_constant)
            problem = row_problem(row)
        except (ValueError, RecursionError) as error:
            problem = f"not valid JSON: {getattr(error, 'msg', error)}"
        if problem is None:
            records.append(row)
        elif number == last:
            notes.append(f"{path.name}, line {number + 1}: half-written and ignored.")
        else:
            raise RaysoftError(f"{path}, line {number + 1}: {problem}")
    if not records:
        raise RaysoftError(f"{path}, line 1: holds no complete round yet")
    return records, notes


# ---------------------------------------------------------------------------------------------------------- summary


def summarise(
    records: Sequence[RoundRecord | Mapping[str, Any]], config: RunConfig, extra: Mapping[str, Any]
) -> dict[str, Any]:
    """The contract keys of summary.json.

    `final_accuracy` is the mean of the last 5 evaluations after the base (of the base itself, if there is no other);
    means over rounds leave out line 0. `extra` sets what records cannot know (status, adapter_sha256, wall_time_s,
    metrics) and may replace any other key. For each scalar metric, `metrics` gets `final_NAME`, by the same rule,
    and `base_NAME` where the base has one (running totals, `*_total`, have none).
    Raises ValueError for a key outside the contract.
    """
    unknown = sorted(set(extra) - set(SUMMARY_KEYS))
    if unknown:
        raise ValueError(f"not a key of summary.json: {unknown[0]}")
    rows = [record_row(record) for record in records]
    rounds = [row for row in rows if row["round"] >= 1]
    wall = extra.get("wall_time_s", _total(rows, "wall_time_s"))
    busy = _total(rounds, "wall_time_s")
    trained = _total(rounds, "participants") + _total(rounds, "dropped")  # those that dropped out trained too
    summary: dict[str, Any] = {
        "final_accuracy": _final(rows, "accuracy"),
        "best_accuracy": max((row["accuracy"] for row in rows if row["accuracy"] is not None), default=None),
        "base_accuracy": next((row["accuracy"] for row in rows if row["round"] == 0), None),
        "rounds": len(rounds),
        "uplink_bits_total": int(_total(rounds, "uplink_bits")),
        "mean_round_latency_s": _total(rounds, "round_latency_s") / len(rounds) if rounds else None,
        "latency_budget_s": config.allocator.options().get("latency_budget_s"),
        "simulated_time_s": rows[-1]["simulated_time_s"] if rows else 0.0,
        "energy_j_total": _total(rounds, "energy_j"),
        "wall_time_s": wall,
        "client_updates_per_s": trained / busy if busy > 0 else None,
        "adapter_sha256": None,
        "config_hash": config.config_hash(),
        "status": "done",
    }
    summary |= {key: value for key, value in extra.items() if key != "metrics"}
    return strict({**summary, "metrics": {**_metric_summary(rows), **extra.get("metrics", {})}})


def _total(rows: Iterable[Mapping[str, Any]], key: str) -> float:
    return math.fsum(row[key] for row in rows if row[key] is not None)


def _final(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """Mean of the last evaluations after the base, or the base's value where there is none."""
    seen = [row[key] for row in rows if row.get(key) is not None and row["round"] >= 1]
    seen = seen or [row[key] for row in rows if row.get(key) is not None]
    last = seen[-FINAL_EVALUATIONS:]
    return math.fsum(last) / len(last) if last else None


def _metric_summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    flat = [
        {"round": row["round"], "loss": row["loss"], **{k: v for k, v in row["metrics"].items() if is_number(v)}}
        for row in rows
    ]
    names = dict.fromkeys(key for row in flat for key in row if key != "round" and not key.endswith("_total"))
    out: dict[str, float | None] = {}
    for name in names:
        base = next((row.get(name) for row in flat if row["round"] == 0), None)
        if base is not None:
            out[f"base_{name}"] = base
        out[f"final_{name}"] = _final(flat, name)
    return out
