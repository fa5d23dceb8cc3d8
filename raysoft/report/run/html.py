"""A report as one HTML file: figures inlined, no script, no request to anywhere, for screen (light, dark) and print."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from html import escape
from pathlib import Path

from raysoft.config import FigureFormat, FigureWidth
from raysoft.config.identity import recorded
from raysoft.config.plugin_file import short_name
from raysoft.errors import ConfigError, RaysoftError
from raysoft.report import page, style
from raysoft.report.page import PageSection, Picture
from raysoft.report.run.closing import closing_rows, limits, radio_rows, settings_rows
from raysoft.report.run.figures import DRAWINGS
from raysoft.report.wish import Wish, seen_from
from raysoft.rundir.comparable import grounds_of, refusal
from raysoft.rundir.folder import FIGURES, REPORT, write_atomic
from raysoft.rundir.reading import Run, read_run

COMPARISON = "comparison.html"
GONE = ["allocation"]  # figures that reports no longer have
NO_WISH = Wish()


def write_report(
    folders: Path | str | Sequence[Path | str], out: Path | str | None = None, wish: Wish = NO_WISH
) -> Path:
    """Draw one run, or compare several, and return the HTML file.

    One run: `report.html` and `figures/` in its folder. Several: `comparison.html` next to the first folder, and where
    `wish` names formats a folder `comparison_figures` beside it. `out` names another HTML file, or a folder for it.
    Raises RaysoftError for a folder that is not a run, or a place that cannot be written; ConfigError for runs of
    different tasks, data, evaluation splits or bases.
    """
    paths = [Path(folders)] if isinstance(folders, (str, Path)) else [Path(folder) for folder in folders]
    if not paths:
        raise RaysoftError("a report needs at least one run folder")
    runs = [read_run(path) for path in paths]
    _check_comparable(runs)
    single = len(runs) == 1
    target = report_place(paths, None if out is None else Path(out))
    formats, width = wish.settled(runs[0].config, "page")
    folder = paths[0] / FIGURES if single else target.with_name(f"{target.stem}_{FIGURES}")
    written = single or wish.formats is not None
    pictures = draw_all(runs, formats if written else (), width)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if written:
            page.write_pictures(folder, pictures, [drawing.name for drawing in DRAWINGS] + GONE)
        write_atomic(target, render(runs, pictures, seen_from(target, folder)))
    except OSError as error:
        raise RaysoftError(f"{error.filename or target}: cannot be written: {error.strerror}") from None
    return target


def _check_comparable(runs: Sequence[Run]) -> None:
    sides = [grounds_of(run.config, recorded(run.summary or {}, run.config)) for run in runs]
    if problem := refusal([str(run.path) for run in runs], sides):
        raise ConfigError("DIR", problem)


def report_place(paths: Sequence[Path], out: Path | None = None) -> Path:
    """The HTML file of these run folders; see `write_report`."""
    name = REPORT if len(paths) == 1 else COMPARISON
    if out is None:
        return paths[0] / name if len(paths) == 1 else paths[0].resolve().parent / name
    return out if out.suffix in (".html", ".htm") and not out.is_dir() else out / name


def draw_all(
    runs: Sequence[Run], formats: Collection[FigureFormat] = (), width: FigureWidth = "page"
) -> dict[str, Picture]:
    """Pictures by the short names of the figures; what the runs did not measure is left out."""
    return page.draw({drawing.name: partial(drawing.draw, runs) for drawing in DRAWINGS}, style.DPI, formats, width)


def render(runs: Sequence[Run], pictures: Mapping[str, Picture], figures: str | None = None) -> str:
    """The HTML text for these runs and their figures; `figures`: the folder of their files, as the page sees it."""
    single = len(runs) == 1
    titles = _titles(runs)
    heading = titles[0] if single else f"Comparison of {len(runs)} runs"
    sections = [PageSection("result", "Result", page.table([closing_rows(run) for run in runs], titles))]
    for drawing in DRAWINGS:
        if drawing.name in pictures:
            title = drawing.title_for(runs)
            picture = page.image(pictures[drawing.name], f"{title}. {drawing.describe(runs)}")
            files = page.downloads(figures, pictures, [drawing.name])
            sections.append(PageSection(drawing.name, title, page.figure(picture, drawing.caption, downloads=files)))
    sections.append(PageSection("limits", "Limits", page.notes(limits_of(runs, titles))))
    sections.append(PageSection("radio", "Radio", page.table([radio_rows(run) for run in runs], titles)))
    missing = [drawing.title.lower() for drawing in DRAWINGS if drawing.name not in pictures and drawing.expected]
    below = [settings_of(runs, titles)]
    if missing and single:
        below.append(f'<p class="muted">Not measured in this run: {escape("; ".join(missing))}.</p>')
    return page.render_page(heading, _subtitle(runs), sections, footer(runs), below)


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
            parts.append(f"{key} {short_name(str(section['name']))}")
    return "Wireless federated LoRA fine-tuning, simulated: " + ", ".join(parts) + "."


def footer(runs: Sequence[Run]) -> str:
    """Libraries and machines of the runs, each once."""
    parts = []
    for run in runs:
        libraries = run.environment.get("libraries")
        libraries = libraries if isinstance(libraries, dict) else {}
        known = ", ".join(f"{name} {libraries[name]}" for name in ("raysoft", "torch", "numpy") if libraries.get(name))
        machine = ", ".join(str(run.environment[key]) for key in ("cpu", "platform") if run.environment.get(key))
        threads = run.environment.get("threads")
        parts.append("; ".join(item for item in (known, machine, f"{threads} thread(s)" if threads else "") if item))
    return " | ".join(dict.fromkeys(part for part in parts if part))


def limits_of(runs: Sequence[Run], titles: Sequence[str]) -> list[str]:
    """The sentences of `limits`, each once, with the names of the runs it holds for unless it holds for all."""
    holders: dict[str, list[str]] = {}
    for run, title in zip(runs, titles, strict=True):
        for sentence in limits(run):
            holders.setdefault(sentence, []).append(title)
    return [text if len(names) == len(runs) else f"{', '.join(names)}: {text}" for text, names in holders.items()]


def settings_of(runs: Sequence[Run], titles: Sequence[str]) -> str:
    """All settings of one run; of several, only those in which they differ."""
    columns = [settings_rows(run) for run in runs]
    title = "All settings"
    if len(runs) > 1:
        title = "Settings in which the runs differ"
        values = [dict(rows) for rows in columns]
        differ = {name for rows in columns for name, _ in rows if len({column.get(name) for column in values}) > 1}
        differ = {name for name in differ if not name.startswith("report.")}  # how a page looks
        columns = [[row for row in rows if row[0] in differ] for rows in columns]
    return page.details(title, page.table(columns, titles), opened=len(runs) > 1)
