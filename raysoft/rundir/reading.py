"""A run folder as read back, however it was left: T records, line 0 the untouched base. Writes nothing."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from raysoft.config.yaml12 import load_mapping
from raysoft.errors import RaysoftError
from raysoft.rundir.checks import is_number, row_problem, summary_problem
from raysoft.rundir.folder import CONFIG, ENVIRONMENT, EVALUATION, PLAN, ROUNDS, SUMMARY
from raysoft.types import Array

log = logging.getLogger("raysoft")


@dataclass(frozen=True)
class Run:
    """A run folder as read back: T records (line 0 is the untouched base)."""

    path: Path
    config: dict[str, Any]
    records: tuple[dict[str, Any], ...]
    summary: dict[str, Any] | None  # None: the run has not ended
    environment: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)  # evaluation.json, where it is of these rounds
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
    """Read a run folder. Raises RaysoftError naming file and line; a half-written last line becomes a note.

    Lines that are not those that the summary counts are a note, and a warning.
    """
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
    if summary is not None and (gap := lines_problem(records, summary)):
        notes.append(f"{ROUNDS} {gap}; what the rounds show and what the summary says may differ.")
        log.warning(f"{path}: {notes[-1]}")
    if summary is None:
        notes.append("The run has not written a summary: it is still running or was interrupted.")
    surroundings, torn = read_advisory(path / ENVIRONMENT)
    evaluation, torn_too = read_advisory(path / EVALUATION)
    notes += torn + torn_too
    if summary is None or evaluation.get("rounds") != summary.get("rounds"):
        evaluation = {}  # of an earlier state of a run that went on
    return Run(path, load_mapping(path / CONFIG), tuple(records), summary, surroundings, evaluation, tuple(notes))


def lines_problem(records: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> str | None:
    """Why these are not the lines of the rounds that a summary counts, or None."""
    ticks, rounds = [row["round"] for row in records], summary.get("rounds")
    if rounds is None or (len(ticks) - 1 == rounds and ticks == list(range(len(ticks)))):
        return None
    return f"holds {len(ticks)} lines, not one for each of the rounds 0 to {rounds:g} that {SUMMARY} counts"


def damage(path: Path, summary: Mapping[str, Any]) -> str | None:
    """Why a finished run cannot be read, or holds other rounds than its summary counts; None where it is sound."""
    if problem := summary_problem(summary):
        return f"{path / SUMMARY}: {problem}"
    try:
        load_mapping(path / CONFIG)
        records, _ = _read_rounds(path / ROUNDS)
    except RaysoftError as error:
        return str(error)
    problem = lines_problem(records, summary)
    return None if problem is None else f"{path / ROUNDS}: {problem}"


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


def read_advisory(path: Path) -> tuple[dict[str, Any], list[str]]:
    """What a file holds on which nothing depends; empty, with a sentence, where it is damaged."""
    if not path.is_file():
        return {}, []
    try:
        return read_json(path), []
    except RaysoftError as error:
        return {}, [f"{error}; it is left out of account."]


def planned_rank(folder: Path) -> str | None:
    """Which rank the plan of a run chose, and of which; None where there was no plan, or it cannot be read."""
    plan, _ = read_advisory(folder / PLAN)
    try:
        ranks = ", ".join(str(one["rank"]) for one in plan["candidates"])
        return f"{plan['chosen_rank']}, chosen by the plan of {ranks}"
    except (KeyError, TypeError):
        return None


def _out_of_order(before: Sequence[Mapping[str, Any]], row: Mapping[str, Any]) -> str | None:
    if not before or row["round"] > before[-1]["round"]:
        return None
    return f"round {row['round']} comes after round {before[-1]['round']}; rounds must increase from line to line"


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
            problem = row_problem(row) or _out_of_order(records, row)
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
