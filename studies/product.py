"""What is made of one experiment, and how it is written: tables, figures, numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from raysoft.report import page
from raysoft.report.row_figures import DifferenceRow
from raysoft.report.style import Look
from raysoft.rundir.folder import write_atomic
from studies.sheets import Sheet

DPI = 300  # figures half as wide as a page
Draw = Callable[[], Figure | None]


@dataclass(frozen=True)
class Product:
    """Tables and figures by file name, numbers for the text; `remark`: what is missing."""

    name: str
    sheets: dict[str, Sheet] = field(default_factory=dict)
    figures: dict[str, Draw] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)
    remark: str = ""


def write_product(product: Product, out: Path) -> list[str]:
    """Write tables/NAME.md and .csv and figures/NAME.png; the names of the figures drawn."""
    for name, sheet in product.sheets.items():
        text = sheet.markdown() + (f"\n{product.remark}\n" if product.remark else "")
        write_atomic(out / "tables" / f"{name}.md", text)
        write_atomic(out / "tables" / f"{name}.csv", sheet.csv())
    pictures = page.draw(product.figures, DPI, width="column")
    page.write_pictures(out / "figures", pictures, known=list(product.figures))
    return list(pictures)


def numbers_of(product: Product) -> dict[str, Any]:
    """The product's part of numbers.json: every row of every table, and what else was computed."""
    tables = {name: list(sheet.rows) for name, sheet in product.sheets.items()}
    return {"missing": product.remark, "tables": tables, **product.numbers}


def sentences(*parts: str) -> str:
    """A note from its sentences, empty ones left out."""
    return " ".join(part for part in parts if part)


def needs_reference(rows: Sequence[Any], reference: str) -> str:
    """A remark where the reference has no run, so that nothing can be compared."""
    return "" if rows else f"No run of {reference} is finished, so nothing is compared with it."


def one_look(items: Sequence[DifferenceRow]) -> dict[str, Look]:
    """The same colour for all rows of a figure whose rows are named beside it."""
    return {item.label: Look.of(0) for item in items}


def brief(label: str) -> str:
    """A label that fits a figure: EF is error feedback."""
    for long, short in _BRIEF.items():
        label = label.replace(long, short)
    return label


_BRIEF = {
    "error feedback": "EF",
    "re-orthogonalised": "re-orth.",
    "transported": "transport",
    "entries of the change": "changed entries",
    "entries of the state, else zero": "sparsified state",
    "columns and rows apart": "cols., rows apart",
}
