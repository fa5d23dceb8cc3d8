"""Tables of measured values over time, one series a client and band, read strictly: what is odd is refused by its line.

Columns: `client`, `time` (seconds) or `round`, `value`, and `band` where there are several. Others are passed over.

Seconds are counted from the table's first one, subtracted as the decimals that the file has: a clock that shows 1.7e9 s
(since 1970) leaves a float 2e-7 s of precision, which is enough to read the sample before the one that is meant.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from raysoft.errors import ConfigError
from raysoft.types import Array

FIELD = "channel.file"
KINDS = (".csv", ".parquet")
SHORTEST = 2  # samples of a series: fewer have no spacing, so no end
LONGEST_LABEL = 128  # characters of a client or band: what is longer is no name
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_LABEL_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_Rows = list[tuple[Decimal, float, int]]  # of one client and band: position as the file has it, value, line


@dataclass(frozen=True)
class Series:
    """What was measured of one client, value and line each [n, bands].

    position [n], rising: rounds, or seconds after the table's first one.
    """

    client: str
    position_N: Array
    value_NB: Array
    line_NB: Array

    @property
    def spacing(self) -> float:
        """The median time between samples."""
        return float(np.median(np.diff(self.position_N)))

    @property
    def period(self) -> float:
        """After which a looped series begins again: one spacing after its last sample."""
        return float(self.position_N[-1] - self.position_N[0]) + self.spacing


@dataclass(frozen=True)
class Measured:
    """A table: `by` is time or round, `unit` what a row of the file is called (line, row).

    `origin`: what the file calls the position 0, its first time; of rounds 0.
    """

    name: str
    by: str
    unit: str
    bands: tuple[str, ...]  # ("",) where the table has no such column
    series: tuple[Series, ...]  # by client: numbers as numbers, else as text
    origin: Decimal = Decimal(0)

    def shown(self, position: float) -> str:
        """A position as the file writes it."""
        return f"{float(self.origin + Decimal(repr(float(position)))):.15g}"

    def refuse(self, line: int, what: str) -> ConfigError:
        """An error that names a row of the file."""
        return ConfigError(FIELD, f"{self.name}, {self.unit} {line}: {what}")


def read(path: Path) -> Measured:
    """The table in a CSV or Parquet file, read once as long as it does not change. Raises ConfigError."""
    try:
        status = path.stat()
    except OSError as error:
        raise ConfigError(FIELD, f"{path} cannot be read: {error.strerror}") from None
    return _read(path.resolve(), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4)
def _read(path: Path, mtime_ns: int, size: int) -> Measured:
    if path.suffix.lower() not in KINDS:
        raise ConfigError(FIELD, f"{path.name}: unknown kind of file; use one of {', '.join(KINDS)}")
    is_csv = path.suffix.lower() == ".csv"
    header, rows = _csv(path) if is_csv else _parquet(path)
    by, columns = _columns(path.name, header)
    table = Measured(path.name, by, "line" if is_csv else "row", (), ())
    found: dict[str, dict[str, _Rows]] = {}  # by client, then by band
    for line, cells in rows:
        client, band = (_label(table, line, name, cells[columns[name]]) if name in columns else "" for name in _LABELS)
        at = _decimal(cells[columns[by]], _number(table, line, by, cells[columns[by]]))
        if by == "round" and (at < 0 or at != int(at)):
            raise table.refuse(line, f"round must be a whole number from 0, got {cells[columns[by]]!r:.40}")
        before = found.setdefault(client, {}).setdefault(band, [])
        if before and float(at) <= float(before[-1][0]):
            again = any(one[0] == at for one in before)
            who = f"client {client}" + (f" in band {band}" if band else "")
            what = (
                f"{by} {table.shown(float(at))} of {who} stands there twice"
                if again
                else f"{by} {table.shown(float(at))} of {who} follows {table.shown(float(before[-1][0]))}"
            )
            raise table.refuse(line, f"{what}; of every client {by}s must rise")
        before.append((at, _number(table, line, "value", cells[columns["value"]]), line))
    if not found:
        raise ConfigError(FIELD, f"{path.name}: holds no measurements")
    bands = tuple(sorted({band for of in found.values() for band in of}, key=_order))
    if by == "time":
        table = replace(table, origin=min(rows[0][0] for of in found.values() for rows in of.values()))
    series = tuple(_series(table, one, found[one], bands) for one in sorted(found, key=_order))
    return replace(table, bands=bands, series=series)


_LABELS = ("client", "band")


def _csv(path: Path) -> tuple[Sequence[str], Iterator[tuple[int, Sequence[Any]]]]:
    """The header, and rows with their lines; blank lines are passed over."""

    def refuse(error: Exception) -> ConfigError:
        return ConfigError(FIELD, f"{path.name}: cannot be read as csv: {error}")

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            rows = [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise refuse(error) from None
    header = [name.strip() for name in rows[0][1]] if rows else []

    def checked() -> Iterator[tuple[int, Sequence[Any]]]:
        for line, row in rows[1:]:
            if len(row) != len(header):
                raise ConfigError(
                    FIELD, f"{path.name}, line {line}: has {len(row)} cells, the header names {len(header)} columns"
                )
            yield line, row

    return header, checked()


def _parquet(path: Path) -> tuple[Sequence[str], Iterator[tuple[int, Sequence[Any]]]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
        columns = [_cells(table.column(number)) for number in range(table.num_columns)]
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ConfigError(FIELD, f"{path.name}: cannot be read as parquet: {reason}") from None
    return table.column_names, enumerate(zip(*columns, strict=True), start=1)


def _cells(column: Any) -> list[Any]:
    """A column as Python's values; of single precision as the decimals that were meant: 0.1, not 0.10000000149."""
    import pyarrow as pa

    cells: list[Any] = column.to_pylist()
    if pa.types.is_float32(column.type):
        return [None if one is None else float(str(np.float32(one))) for one in cells]
    return cells


def _columns(name: str, header: Sequence[str]) -> tuple[str, dict[str, int]]:
    """Whether the table goes by time or round, and where the columns are."""
    wanted = "columns client, time (in seconds) or round, value, and band where there are several"
    has = [one for one in ("time", "round") if one in header]
    missing = [one for one in ("client", "value") if one not in header] + ([] if has else ["time or round"])
    if missing:
        there = ", ".join(header)[:80] or "none"
        raise ConfigError(FIELD, f"{name}: has no column {missing[0]}; it needs {wanted}, and has {there}")
    if len(has) == 2:
        raise ConfigError(FIELD, f"{name}: has both columns, time and round; keep the one that counts")
    used = ["client", has[0], "value", *(["band"] if "band" in header else [])]
    if twice := [one for one in used if list(header).count(one) > 1]:
        raise ConfigError(FIELD, f"{name}: has column {twice[0]} twice")
    return has[0], {one: list(header).index(one) for one in used}


def _label(table: Measured, line: int, name: str, cell: Any) -> str:
    """A client or band as text; 3.0 is the number 3, as frames make of whole numbers beside an empty cell."""
    if not isinstance(cell, str | int | float | Decimal | None):
        raise table.refuse(line, f"{name} must be a number or a text, got {cell!r:.40}")
    if isinstance(cell, float):
        cell = None if math.isnan(cell) else int(cell) if cell.is_integer() else cell
    text = "" if cell is None else str(cell).strip()
    if not text:
        raise table.refuse(line, f"{name} is empty")
    if len(text) > LONGEST_LABEL:
        most = f"at most {LONGEST_LABEL} make a name"
        raise table.refuse(line, f"{name} has {len(text)} characters, {most}: {text!r:.40}")
    return text


def _number(table: Measured, line: int, name: str, cell: Any) -> float:
    """A finite number, of a text in the decimal notation of everybody: `1_000` and `٣` are Python's alone."""
    try:
        plain = not isinstance(cell, str) or _NUMBER.fullmatch(cell.strip())
        value = float("nan" if cell is None or isinstance(cell, bool) or not plain else cell)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        shown = "is empty" if cell is None or not str(cell).strip() else f"must be a finite number, got {cell!r:.40}"
        raise table.refuse(line, f"{name} {shown}")
    return value


def _decimal(cell: Any, value: float) -> Decimal:
    """The number in a cell as it is written there; `value` is the same as a float."""
    try:
        return Decimal(repr(value) if isinstance(cell, float) else cell if isinstance(cell, int) else str(cell).strip())
    except InvalidOperation:  # an exponent beyond all bounds: the float is 0
        return Decimal(repr(value))


def _order(label: str) -> tuple[bool, Decimal, str]:
    """Numbers by their size, then what is none."""
    number = _LABEL_NUMBER.fullmatch(label) is not None
    return not number, Decimal(label) if number else Decimal(0), label


def _series(table: Measured, client: str, of: dict[str, _Rows], bands: tuple[str, ...]) -> Series:
    """One client's rows as arrays: every band at the same times. Raises ConfigError."""
    if absent := [band for band in bands if band not in of]:
        raise ConfigError(
            FIELD, f"{table.name}: client {client} was not measured in band {absent[0]}; every client needs all bands"
        )
    columns = [  # each [3, n]: position, value, line
        np.array([(float(at - table.origin), value, line) for at, value, line in of[band]]).T for band in bands
    ]
    first = columns[0]
    if first.shape[1] < SHORTEST:
        line = int(first[2, 0])
        raise table.refuse(line, f"the only sample of client {client}; a trace has {SHORTEST} or more of each client")
    for band, column in zip(bands[1:], columns[1:], strict=True):
        if column.shape != first.shape or not np.array_equal(column[0], first[0]):
            strange = np.setxor1d(column[0], first[0])[0]
            raise ConfigError(
                FIELD,
                f"{table.name}: client {client} has {table.by} {table.shown(strange)} in one of the bands {bands[0]} "
                f"and {band} only; all bands need the same ones",
            )
    return Series(
        client,
        first[0],
        np.stack([column[1] for column in columns], axis=1),
        np.stack([column[2] for column in columns], axis=1).astype(np.int64),
    )
