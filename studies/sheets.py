"""Tables of the study: rows of unrounded numbers in, Markdown (formatted) and CSV (everything) out."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass

from raysoft.quantities import NOTHING, number, quantity
from studies.loading import Metric
from studies.measures import Row


@dataclass(frozen=True)
class Column:
    """A heading and how a row is shown under it."""

    heading: str
    show: Callable[[Row], str]
    left: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table: columns for Markdown, rows for both files, a note on how to read it."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: str = ""

    def markdown(self) -> str:
        """The table, columns without any value left out, and the note below it."""
        if not self.rows:
            return f"No finished runs. {self.note}".strip() + "\n"
        cells = [[column.show(row) for row in self.rows] for column in self.columns]
        shown = [i for i, column in enumerate(cells) if any(text != NOTHING for text in column)]
        head = [self.columns[i].heading for i in shown]
        rule = ["---" if self.columns[i].left else "---:" for i in shown]
        lines = [head, rule, *zip(*(cells[i] for i in shown), strict=True)]
        text = "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
        return text + (f"\n\n{self.note}" if self.note else "") + "\n"

    def csv(self) -> str:
        """Every key of every row, unrounded."""
        keys = list(dict.fromkeys(key for row in self.rows for key in row))
        out = io.StringIO()
        writer = csv.DictWriter(out, keys, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return out.getvalue()


def text(heading: str, key: str) -> Column:
    """A column of words."""
    return Column(heading, lambda row: NOTHING if row.get(key) is None else str(row[key]), left=True)


def numeric(heading: str, key: str, factor: float = 1.0, digits: int = 2, signed: bool = False) -> Column:
    """A column of one number."""
    return Column(heading, lambda row: number(row.get(key), factor, digits, signed=signed))


def plus_minus(heading: str, key: str, factor: float = 1.0, digits: int = 2) -> Column:
    """Mean ± standard deviation."""

    def show(row: Row) -> str:
        mean, std = row.get(key), row.get(f"{key}_std")
        return number(mean, factor, digits) + ("" if std is None else f" ± {number(std, factor, digits)}")

    return Column(heading, show)


def interval(
    heading: str, key: str, low: str, high: str, factor: float = 1.0, digits: int = 2, signed: bool = True
) -> Column:
    """`+0.12 [-0.30, +0.54]`."""

    def show(row: Row) -> str:
        ends = [number(row.get(name), factor, digits, signed=signed) for name in (low, high)]
        mean = number(row.get(key), factor, digits, signed=signed)
        return mean if NOTHING in ends else f"{mean} [{ends[0]}, {ends[1]}]"

    return Column(heading, show)


def verdict(heading: str, key: str) -> Column:
    """Yes, no, or a dash where it was not tested."""
    return Column(heading, lambda row: {None: NOTHING, True: "yes", False: "no"}[row.get(key)])


def metric_columns(metric: Metric, reference: str, ends: tuple[str, str] = ("low", "high")) -> list[Column]:
    """Mean ± deviation and the difference to the reference with the interval of these two keys."""
    unit = f" {metric.unit}" if metric.unit else ""
    points = "points" if metric.unit == "%" else metric.label.lower()
    name, low, high = metric.name, *(f"{metric.name}_{end}" for end in ends)
    return [
        plus_minus(f"{metric.label}{unit}", name, metric.factor, metric.digits),
        interval(
            f"Against {reference}, {points} [95 %]", f"{name}_difference", low, high, metric.factor, metric.digits
        ),
    ]


def cost_columns(*keys: str) -> list[Column]:
    """Columns of costs by key."""
    known = [quantity(key) for key in keys]
    return [numeric(_first_up(one.narrow_heading()), one.key, one.factor, one.digits) for one in known]


def _first_up(text: str) -> str:
    return text[:1].upper() + text[1:]
