"""The tables of a comparison: table.csv (numbers), table.md and table.tex (formatted).

One row an arm; in table.tex and on a terminal that they would overflow, one column an arm.
"""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysoft.comparison.readings import METRICS
from raysoft.quantities import NOTHING, Quantity, keys_in, number, quantity
from raysoft.rundir.folder import write_atomic
from raysoft.rundir.summary import FINAL_EVALUATIONS, window_words

TABLE_CSV, TABLE_MD, TABLE_TEX = "table.csv", "table.md", "table.tex"
TEX_CHARACTERS = 100  # of a line of a table: 7.16 inches of 9 pt text (\\small), 0.07 inches a character
GAP_CHARACTERS = 2  # between columns
UNITS = {"bits": "bits", "seconds": "simulated seconds", "joules": "joules"}


@dataclass(frozen=True)
class Table:
    """A heading and rows of cells, all text."""

    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def arms_table(data: Mapping[str, Any]) -> Table:
    """One row an arm: mean ± standard deviation over seeds."""
    arms = data["arms"]
    words = {"equal": UNITS.get(data["equal"], ""), "accuracy": data.get("accuracy_name", "accuracy")}
    shown = _shown(arms)
    heading = ("arm", "seeds", *(one.narrow_heading(**words) for one in shown))
    rows = []
    for arm in arms:
        cells = [one.spread(arm["mean"].get(one.key), arm["std"].get(one.key)) for one in shown]
        rows.append((arm["label"], str(len(arm["runs"])), *cells))
    return Table(heading, tuple(rows))


def _shown(arms: Sequence[Mapping[str, Any]]) -> list[Quantity]:
    """The columns that any arm has, in the order of tables."""
    known = (quantity(key) for key in keys_in("row", "arm"))
    return [one for one in known if any(arm["mean"].get(one.key) is not None for arm in arms)]


def pairs_table(data: Mapping[str, Any]) -> Table:
    """One row an arm and metric: paired difference to the reference, interval, verdicts."""
    heading = (
        "arm",
        f"difference to {data['reference']}",
        "95 % interval",
        "seeds",
        "p non-inferior",
        "Holm",
        "non-inferior",
        "equivalent",
    )
    rows = []
    for pair in data["pairs"]:
        difference, interval = signed_difference(pair)
        rows.append(
            (
                pair["arm"],
                f"{difference} {quantity(pair['metric']).difference_unit()}",
                interval,
                str(pair["seeds"]),
                _p(pair["p_noninferior"]),
                _p(pair["p_holm"]),
                _verdict(pair["noninferior"]),
                _verdict(pair["equivalent"]),
            )
        )
    return Table(heading, tuple(rows))


def time_to_table(data: Mapping[str, Any]) -> Table:
    """One row an arm and target: what it cost to get there; no rows where no seed of any arm reached any."""
    accuracy = f"{data.get('accuracy_name', 'accuracy')} %"
    heading = ("arm", "of the gain", accuracy, "rounds", "simulated s", "uplink MB", "energy J", "seeds there")
    seeds = {arm["label"]: len(arm["runs"]) for arm in data["arms"]}
    rows = []
    for row in data["time_to"] if _any_reached(data) else ():
        costs = [number(row[key], 1.0, digits) for key, digits in _COSTS]
        there = f"{row['seeds_reached']} of {seeds[row['arm']]}"
        rows.append((row["arm"], row["target"], quantity("accuracy").text(row["value"]), *costs, there))
    return Table(heading, tuple(rows))


def _any_reached(data: Mapping[str, Any]) -> bool:
    return any(row["seeds_reached"] for row in data["time_to"])


def _window(data: Mapping[str, Any]) -> str:
    """How the last table is read."""
    return f"that of {data['reference']} over the base. {window_words(data.get('fewest_evaluations'))}"


_COSTS = (("rounds", 1), ("seconds", 2), ("mb", 2), ("joules", 1))


def sideways(table: Table) -> Table:
    """Rows as columns: one column an arm."""
    columns = [table.heading, *table.rows]
    rows = [tuple(column[i] for column in columns) for i in range(len(table.heading))]
    return Table(rows[0], tuple(rows[1:]))


def text_table(table: Table) -> str:
    """Columns padded with spaces, the first to the left; never cut, a terminal may wrap it."""
    lines = [table.heading, *table.rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.heading))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if not i else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def note(data: Mapping[str, Any]) -> str:
    """How to read the tables, in a few sentences."""
    points = f"{100 * data['margin']:g}"
    margin = f"{points} point{'' if points == '1' else 's'} of {data.get('accuracy_name', 'accuracy')}"
    text = 100 * data["margin_bits_per_byte_relative"]
    if any(quantity(pair["metric"]).text_task for pair in data["pairs"]):
        margin += f", {text:g} % of the reference's bits per byte"
    out = (
        "Mean ± standard deviation over seeds. Differences are paired by seed; a verdict is yes where its p-value "
        f"(paired t tests, Holm over the table) is at most 5 %; margin {margin}."
    )
    if data["equal"]:
        read = "; ".join(
            f"{arm['label']} after round {quantity('equal_round').text(arm['mean']['equal_round'])}"
            for arm in data["arms"]
        )
        out += f" Differences are at equal {UNITS[data['equal']]}: read on average {read}."
    if _any_reached(data):
        out += f" Of the gain: {_window(data)}"
    else:
        out += (
            f" There is no table of what a part of the gain of {data['reference']} cost: no run reached one in the "
            f"mean of {FINAL_EVALUATIONS} evaluations in a row, which takes as many."
        )
    return " ".join([out, *(one.meaning for one in _shown(data["arms"]) if one.meaning)])


def write_tables(data: Mapping[str, Any], folder: Path) -> None:
    """table.csv, table.md and table.tex. Raises RaysoftError where one cannot be written."""
    arms, pairs, costs = arms_table(data), pairs_table(data), time_to_table(data)
    tables = [arms, *(table for table in (pairs, costs) if table.rows)]
    write_atomic(folder / TABLE_CSV, _csv(data))
    write_atomic(folder / TABLE_MD, "\n".join([*(_markdown(table) for table in tables), _plain(note(data)), ""]))
    write_atomic(folder / TABLE_TEX, _latex_file(data, arms, pairs, costs))


def _csv(data: Mapping[str, Any]) -> str:
    """One row an arm; unrounded means, standard deviations and tests."""
    by_arm = {(pair["arm"], pair["metric"]): pair for pair in data["pairs"]}
    keys = list(data["arms"][0]["mean"])
    tests = ("difference", "low", "high", "p_noninferior", "p_holm", "noninferior", "p_equivalent", "equivalent")
    metrics = [m for m in METRICS if any(pair["metric"] == m for pair in data["pairs"])]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [
            "arm",
            "target",
            "overrides",
            "seeds",
            *(f"{key}_{kind}" for key in keys for kind in ("mean", "std")),
            *(f"{metric}_{test}" for metric in metrics for test in tests),
        ]
    )
    for arm in data["arms"]:
        values = [arm[kind].get(key) for key in keys for kind in ("mean", "std")]
        found = [by_arm.get((arm["label"], metric), {}).get(test) for metric in metrics for test in tests]
        texts = [inert(text) for text in (arm["label"], arm["target"], " ".join(arm["overrides"]))]
        writer.writerow([*texts, len(arm["runs"]), *values, *found])
    return out.getvalue()


def inert(text: str) -> str:
    """A text as a cell that no spreadsheet takes for a formula; numbers such as -1.5 stay what they are.

    >>> inert("=1+1"), inert("-1.5"), inert("soft")
    ("'=1+1", '-1.5', 'soft')
    """
    if not text.startswith(("=", "+", "-", "@", "\t", "\r")):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def _plain(text: str) -> str:
    """A text that Markdown shows as it is: nobody's label becomes a tag."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _markdown(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(_plain(cell).replace("|", "\\|") for cell in cells) + " |"

    rule = "|---|" + "---:|" * (len(table.heading) - 1)
    return "\n".join([line(table.heading), rule, *(line(row) for row in table.rows), ""])


_TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": "$<$",
    ">": "$>$",
    "…": r"\ldots{}",
    "−": "$-$",
}


def _latex_file(data: Mapping[str, Any], arms: Table, pairs: Table, costs: Table) -> str:
    """All tables, each after a comment that says what it is, a blank line (a paragraph) between them.

    One column an arm, several tables of arms where they are too wide for the text width of a two-column page.
    """
    several = "Arms: mean and standard deviation over seeds."
    parts = [(several, part) for part in in_width(sideways(arms), TEX_CHARACTERS)]
    parts += [(f"Paired differences to {data['reference']}.", pairs)] if pairs.rows else []
    parts += [(f"Cost of a part of the gain: {_window(data)}", costs)] if costs.rows else []
    head = "% Needs \\usepackage{booktabs}; no table is wider than the text of a two-column page (table*)."
    texts = []
    for place, (what, table) in enumerate(parts, start=1):
        about = textwrap.wrap(f"Table {place} of {len(parts)}. {what}", 100)  # on one line each, whatever a label holds
        texts.append("\n".join([*([head] if place == 1 else []), *(f"% {line}" for line in about), _latex(table)]))
    return "\n".join(texts)


def in_width(table: Table, characters: int) -> list[Table]:
    """The table, or several with the same first column and as many of the others as fit into so many characters.

    >>> [part.heading for part in in_width(Table(("arm", "soft", "ideal"), (("seeds", "1", "1"),)), 13)]
    [('arm', 'soft'), ('arm', 'ideal')]
    """
    columns = list(zip(table.heading, *table.rows, strict=True))
    widths = [max(map(len, column)) + GAP_CHARACTERS for column in columns]
    groups: list[list[int]] = [[]]
    for at in range(1, len(columns)):
        if groups[-1] and widths[0] + sum(widths[i] for i in groups[-1]) + widths[at] > characters:
            groups.append([])
        groups[-1].append(at)
    rows = [table.heading, *table.rows]
    parts = [[tuple(row[i] for i in (0, *group)) for row in rows] for group in groups]
    return [Table(part[0], tuple(part[1:])) for part in parts]


def _latex(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return " & ".join("".join(_TEX.get(char, char) for char in cell) for cell in cells) + r" \\"

    return "\n".join(
        [
            r"{\small\setlength{\tabcolsep}{4pt}%",
            rf"\begin{{tabular}}{{l{'r' * (len(table.heading) - 1)}}}",
            r"\toprule",
            line(table.heading),
            r"\midrule",
            *(line(row) for row in table.rows),
            r"\bottomrule",
            r"\end{tabular}}",
            "",
        ]
    )


def signed_difference(pair: Mapping[str, Any]) -> tuple[str, str]:
    """A paired difference and its interval, with one decimal more than the metric itself has in tables."""
    metric = quantity(pair["metric"])
    digits = metric.digits + (metric.unit == "%")
    low, difference, high = (
        number(pair[key], metric.factor, digits, signed=True) for key in ("low", "difference", "high")
    )
    return difference, NOTHING if pair["low"] is None else f"{low} to {high}"


def _p(value: float | None) -> str:
    return NOTHING if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def _verdict(value: bool | None) -> str:
    return NOTHING if value is None else "yes" if value else "no"
