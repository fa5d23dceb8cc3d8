"""results.json as checked data: what `raysoft tune` found, point by point and trial by trial; null where unknown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from raysoft.report.json_file import FilePart, read_checked
from raysoft.rundir.checks import is_number

RESULTS_JSON = "results.json"
Row = dict[str, Any]


class AxisFile(FilePart):
    """One axis of the space: its key, the short name under which rows have its value, what was searched."""

    key: str
    label: str
    kind: str
    values: list[Any]


class SweepFile(FilePart):
    """The whole file. `points`: settings and means, their standard deviations in `std`; `trials`: one run each."""

    format: Literal[1]
    name: Annotated[str, Field(min_length=1)]
    metric: str
    mode: Literal["max", "min"]
    scheduler: str = "none"
    search: str = "random"
    seeds: tuple[int, ...] = ()
    axes: Annotated[list[AxisFile], Field(min_length=1)]
    best: Row | None = None
    points: list[Row]
    trials: list[Row]

    @model_validator(mode="after")
    def _rows(self) -> SweepFile:
        for kind, rows in (("points", self.points), ("trials", self.trials)):
            for number, row in enumerate(rows):
                missing = [axis.label for axis in self.axes if axis.label not in row]
                missing += [name for name in ("point", "std" if kind == "points" else "status") if name not in row]
                if missing:
                    raise ValueError(f"{kind}.{number}: has no {missing[0]}")
                if kind == "points" and not isinstance(row["std"], Mapping):
                    raise ValueError(f"{kind}.{number}.std: must be a mapping")
        return self


def is_sweep(folder: Path) -> bool:
    """Whether a folder was written by `raysoft tune`."""
    return (folder / RESULTS_JSON).is_file()


def read_sweep(folder: Path) -> SweepFile:
    """Read `folder/results.json`. Raises RaysoftError naming the file and the field."""
    return read_checked(folder / RESULTS_JSON, SweepFile)


def value_of(row: Mapping[str, Any], key: str) -> float | None:
    """A number of a row, None where it has none."""
    value = row.get(key)
    return float(value) if value is not None and is_number(value) else None


def spread(row: Row, key: str) -> float | None:
    """The standard deviation of a point's number over its seeds."""
    return value_of(row["std"], key)
