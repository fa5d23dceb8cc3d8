"""A report as one HTML file: figures inlined, no script, no request to anywhere, for screen (light, dark) and print."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from string import Template

from matplotlib.figure import Figure

from raysoft.errors import RaysoftError
from raysoft.report import style
from raysoft.report.closing import NOT_MEASURED, Rows, closing_rows, limits, radio_rows, settings_rows
from raysoft.report.figures import DRAWINGS
from raysoft.tracking import FIGURES, REPORT, Run, read_run, write_atomic

COMPARISON = "comparison.html"


def write_report(folders: Path | str | Sequence[Path | str], out: Path | str | None = None) -> Path:
    """Draw one run, or compare several, and return the HTML file.

    One run: `report.html` and `figures/*.png` in its folder. Several: `comparison.html` next to the first folder. `out`
    names another HTML file, or a folder for it.
    Raises RaysoftError for a folder that is not a run, or a place that cannot be written.
    """
    paths = [Path(folders)] if isinstance(folders, (str, Path)) else [Path(folder) for folder in folders]
    if not paths:
        raise RaysoftError("a report needs at least one run folder")
    runs = [read_run(path) for path in paths]
    single = len(runs) == 1
    target = _target(paths, None if out is None else Path(out))
    pictures = draw_all(runs)
    try:
        if single:
            _write_pictures(paths[0] / FIGURES, pictures)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, render(runs, pictures))
    except OSError as error:
        raise RaysoftError(f"{error.filename or target}: cannot be written: {error.strerror}") from None
    return target


def _target(paths: Sequence[Path], out: Path | None) -> Path:
    name = REPORT if len(paths) == 1 else COMPARISON
    if out is None:
        return paths[0] / name if len(paths) == 1 else paths[0].resolve().parent / name
    return out if out.suffix in (".html", ".htm") and not out.is_dir() else out / name


def draw_all(runs: Sequence[Run]) -> dict[str, bytes]:
    """PNG files by the short names of the figures; what the runs did not measure is left out."""
    out: dict[str, bytes] = {}
    with style.settings(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a run's name in a script the bundled font lacks
        for drawing in DRAWINGS:
            figure = drawing.draw(runs)
            if figure is not None:
                out[drawing.name] = _png(figure)
    return out


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=style.DPI, metadata={"Software": None})
    return buffer.getvalue()


def _write_pictures(folder: Path, pictures: dict[str, bytes]) -> None:
    folder.mkdir(exist_ok=True)
    for drawing in DRAWINGS:  # also removes figures of an earlier report that no longer exist
        path = folder / f"{drawing.name}.png"
        if drawing.name in pictures:
            path.write_bytes(pictures[drawing.name])
        else:
            path.unlink(missing_ok=True)


def render(runs: Sequence[Run], pictures: dict[str, bytes]) -> str:
    """The HTML text for these runs and their figures."""
    single = len(runs) == 1
    titles = _titles(runs)
    heading = titles[0] if single else f"Comparison of {len(runs)} runs"
    sections = [("result", "Result", _table([closing_rows(run) for run in runs], titles))]
    for drawing in DRAWINGS:
        if drawing.name in pictures:
            alt = f"{drawing.title}. {drawing.describe(runs)}"
            sections.append((drawing.name, drawing.title, _figure(pictures[drawing.name], alt, drawing.caption)))
    missing = [drawing.title.lower() for drawing in DRAWINGS if drawing.name not in pictures and drawing.expected]
    sections.append(("limits", "Limits", _notes(runs, titles)))
    sections.append(("radio", "Radio", _table([radio_rows(run) for run in runs], titles)))
    body = "\n".join(
        f'<section id="{name}"{_long(name)}><h2>{escape(title)}</h2>\n{content}\n</section>'
        for name, title, content in sections
    )
    body += f"\n{_settings(runs, titles)}"
    if missing and single:
        body += f'\n<p class="muted">Not measured in this run: {escape("; ".join(missing))}.</p>'
    return _template().substitute(
        title=escape(f"{heading} · raysoft"),
        heading=escape(heading),
        subtitle=escape(_subtitle(runs)),
        navigation="".join(f'<a href="#{name}">{escape(title)}</a>' for name, title, _ in sections),
        body=body,
        footer=escape(_footer(runs)),
    )


def _template() -> Template:
    return Template((files("raysoft.report") / "template.html").read_text(encoding="utf-8"))


def _long(name: str) -> str:
    return ' class="long"' if name == "radio" else ""


def _titles(runs: Sequence[Run]) -> list[str]:
    """The runs' names, or their paths where two have the same name."""
    names = [run.name for run in runs]
    return [str(run.path) if names.count(name) > 1 else name for run, name in zip(runs, names, strict=True)]


def _subtitle(runs: Sequence[Run]) -> str:
    if len(runs) > 1:
        return "Wireless federated LoRA fine-tuning, simulated. One colour, dash and marker a run in every figure."
    parts = []
    for key in ("method", "codec", "allocator", "uplink", "channel"):
        section = runs[0].config.get(key)
        if isinstance(section, dict) and section.get("name"):
            parts.append(f"{key} {section['name']}")
    return "Wireless federated LoRA fine-tuning, simulated: " + ", ".join(parts) + "."


def _footer(runs: Sequence[Run]) -> str:
    parts = []
    for run in runs:
        libraries = run.environment.get("libraries")
        libraries = libraries if isinstance(libraries, dict) else {}
        known = ", ".join(f"{name} {libraries[name]}" for name in ("raysoft", "torch", "numpy") if libraries.get(name))
        machine = ", ".join(str(run.environment[key]) for key in ("cpu", "platform") if run.environment.get(key))
        threads = run.environment.get("threads")
        parts.append("; ".join(item for item in (known, machine, f"{threads} thread(s)" if threads else "") if item))
    return " | ".join(dict.fromkeys(part for part in parts if part))


def _table(columns: Sequence[Rows], titles: Sequence[str]) -> str:
    """Rows by name, one column a run; rows that a run does not have read "not measured"."""
    longest_first = sorted(columns, key=len, reverse=True)  # keeps its order of rows
    names = list(dict.fromkeys(name for rows in longest_first for name, _ in rows))
    values = [dict(rows) for rows in columns]
    head = ""
    if len(columns) > 1:
        cells = "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)
        head = f'<thead><tr><th scope="col">Run</th>{cells}</tr></thead>'
    lines = []
    for name in names:
        cells = "".join(f"<td>{escape(column.get(name, NOT_MEASURED))}</td>" for column in values)
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    several = ' class="several"' if len(columns) > 1 else ""
    return f'<div class="wide"><table{several}>{head}<tbody>\n' + "\n".join(lines) + "\n</tbody></table></div>"


def _figure(png: bytes, alt: str, caption: str) -> str:
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<figure><img alt="{escape(alt, quote=True)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _notes(runs: Sequence[Run], titles: Sequence[str]) -> str:
    """The sentences of `limits`, each once, with the names of the runs it holds for unless it holds for all."""
    holders: dict[str, list[str]] = {}
    for run, title in zip(runs, titles, strict=True):
        for sentence in limits(run):
            holders.setdefault(sentence, []).append(title)
    items = [
        text if len(names) == len(runs) else f"{', '.join(names)}: {text}" for text, names in holders.items()
    ]  # fmt: skip
    return '<ul class="notes">' + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def _settings(runs: Sequence[Run], titles: Sequence[str]) -> str:
    """All settings of one run; of several, only those in which they differ."""
    columns = [settings_rows(run) for run in runs]
    title = "All settings"
    if len(runs) > 1:
        title = "Settings in which the runs differ"
        values = [dict(rows) for rows in columns]
        differ = {name for rows in columns for name, _ in rows if len({column.get(name) for column in values}) > 1}
        columns = [[row for row in rows if row[0] in differ] for rows in columns]
    opened = " open" if len(runs) > 1 else ""
    return f"<details{opened}><summary>{title}</summary>{_table(columns, titles)}</details>"
