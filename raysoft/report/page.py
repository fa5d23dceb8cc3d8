"""The parts of a report page: template, sections, tables, figures with captions. No script, no request to anywhere."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from string import Template

from raysoft.config import FigureFormat, FigureWidth
from raysoft.quantities import NOT_MEASURED
from raysoft.report import style
from raysoft.report.chart import Chart
from raysoft.report.run.closing import Rows
from raysoft.report.wish import FORMATS

LONG = frozenset({"radio"})  # sections that may break across printed pages
PNG: tuple[FigureFormat, ...] = ("png",)
PRINT_DPI = 600  # of what is a picture inside an SVG or PDF file: clouds of thousands of points
_UNDATED = {  # what would differ from day to day, or with the library's version
    "png": ("Software",),
    "svg": ("Date", "Creator"),
    "pdf": ("CreationDate", "Creator", "Producer"),
}


@dataclass(frozen=True)
class PageSection:
    """One part of a page, with its anchor, heading and HTML."""

    name: str
    title: str
    content: str


def render_page(
    heading: str, subtitle: str, sections: Sequence[PageSection], footer: str, below: Iterable[str] = ()
) -> str:
    """The HTML text of a page; `below` is HTML after the last section."""
    body = "\n".join(
        f'<section id="{item.name}"{_long(item.name)}><h2>{escape(item.title)}</h2>\n{item.content}\n</section>'
        for item in sections
    )
    template = Template((files("raysoft.report") / "template.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(f"{heading} · raysoft"),
        heading=escape(heading),
        subtitle=escape(subtitle),
        navigation="".join(f'<a href="#{item.name}">{escape(item.title)}</a>' for item in sections),
        body="\n".join([body, *below]),
        footer=escape(footer),
    )


def _long(name: str) -> str:
    return ' class="long"' if name in LONG else ""


def table(columns: Sequence[Rows], titles: Sequence[str], corner: str = "Run") -> str:
    """Rows by name, one column a run; rows that a run does not have read "not measured"."""
    longest_first = sorted(columns, key=len, reverse=True)  # keeps its order of rows
    names = list(dict.fromkeys(name for rows in longest_first for name, _ in rows))
    values = [dict(rows) for rows in columns]
    lines = [[name, *(column.get(name, NOT_MEASURED) for column in values)] for name in names]
    return grid([corner, *titles] if len(columns) > 1 else [], lines, "several" if len(columns) > 1 else "")


def grid(head: Sequence[str], lines: Sequence[Sequence[str]], kind: str = "") -> str:
    """A table of plain text; the first cell of each line is its heading."""
    cells = "".join(f'<th scope="col">{escape(title)}</th>' for title in head)
    top = f"<thead><tr>{cells}</tr></thead>" if head else ""
    rows = []
    for name, *rest in lines:
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    attribute = f' class="{kind}"' if kind else ""
    return f'<div class="wide"><table{attribute}>{top}<tbody>\n' + "\n".join(rows) + "\n</tbody></table></div>"


def image(picture: Picture, alt: str) -> str:
    """A picture inside the page, as wide as its inches say: text is equally large in all of them."""
    data = base64.b64encode(picture.png).decode("ascii")
    width = f"--in:{picture.width_in:g}"
    return f'<img alt="{escape(alt, quote=True)}" style="{width}" src="data:image/png;base64,{data}">'


def figure(images: str, caption: str, kind: str = "", downloads: str = "") -> str:
    """One or several pictures and what they show; `downloads`: HTML below them."""
    attribute = f' class="{kind}"' if kind else ""
    inside = f"<div{attribute}>{images}</div>" if kind else images
    return f"<figure>{inside}<figcaption>{escape(caption)}{downloads}</figcaption></figure>"


def downloads(folder: str | None, pictures: Mapping[str, Picture], names: Sequence[str]) -> str:
    """Links to the files of these figures; nothing where there is none. `folder`: as the page sees it."""
    parts = []
    for name in names if folder is not None else ():
        links = [
            f'<a href="{escape(f"{folder}/{name}.{kind}", quote=True)}">{kind.upper()}</a>'
            for kind in FORMATS
            if kind in pictures[name].files
        ]
        if links:
            parts.append((f"{escape(name)}: " if len(names) > 1 else "") + " ".join(links))
    return f'<span class="files">{" · ".join(parts)}</span>' if parts else ""


def notes(items: Iterable[str]) -> str:
    """A list of remarks."""
    return '<ul class="notes">' + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def details(title: str, content: str, opened: bool) -> str:
    """A part that can be folded away."""
    return f"<details{' open' if opened else ''}><summary>{escape(title)}</summary>{content}</details>"


@dataclass(frozen=True)
class Picture:
    """A figure as drawn: a PNG for the page, and the files that were asked for by format."""

    png: bytes
    width_in: float
    files: Mapping[str, bytes]


def draw(
    drawings: Mapping[str, Callable[[], Chart | None]],
    dpi: int = style.DPI,
    formats: Collection[FigureFormat] = PNG,
    width: FigureWidth = "page",
) -> dict[str, Picture]:
    """Pictures by short name, drawn in the report's style; figures that are None are left out."""
    out: dict[str, Picture] = {}
    with style.settings(width), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a name in a script the bundled font lacks
        for name, make in drawings.items():
            drawn = make()
            if drawn is not None:
                out[name] = picture_of(drawn, dpi, formats)
    return out


def picture_of(drawn: Chart, dpi: int = style.DPI, formats: Collection[FigureFormat] = PNG) -> Picture:
    """The figure in all its formats; the same bytes for the same figure. Its layout is final afterwards."""
    drawn.draw_without_rendering()
    drawn.set_layout_engine("none")  # measured once, not for every format
    png = _saved(drawn, "png", dpi)
    files: dict[str, bytes] = {}
    for kind in FORMATS:
        if kind in formats:
            files[kind] = (
                png if kind == "png" else drawn.csv().encode() if kind == "csv" else _saved(drawn, kind, PRINT_DPI)
            )
    return Picture(png, drawn.get_figwidth(), files)


def _saved(drawn: Chart, kind: str, dpi: int) -> bytes:
    buffer = BytesIO()
    drawn.savefig(buffer, format=kind, dpi=dpi, metadata=dict.fromkeys(_UNDATED[kind]))
    return buffer.getvalue()


def write_pictures(folder: Path, pictures: Mapping[str, Picture], known: Iterable[str]) -> None:
    """Write `folder/NAME.FORMAT`, and remove those of an earlier report (`known` names) that this one lacks."""
    folder.mkdir(exist_ok=True)
    for name in {*known, *pictures}:
        files = pictures[name].files if name in pictures else {}
        for kind in FORMATS:
            if kind in files:
                (folder / f"{name}.{kind}").write_bytes(files[kind])
            else:
                (folder / f"{name}.{kind}").unlink(missing_ok=True)
