"""The parts of a report page: template, sections, tables, figures with captions. No script, no request to anywhere."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from string import Template

from matplotlib.figure import Figure

from raysoft.quantities import NOT_MEASURED
from raysoft.report import style
from raysoft.report.run.closing import Rows

LONG = frozenset({"radio"})  # sections that may break across printed pages


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


def image(png: bytes, alt: str) -> str:
    """A picture inside the page."""
    data = base64.b64encode(png).decode("ascii")
    return f'<img alt="{escape(alt, quote=True)}" src="data:image/png;base64,{data}">'


def figure(images: str, caption: str, kind: str = "") -> str:
    """One or several pictures and what they show."""
    attribute = f' class="{kind}"' if kind else ""
    inside = f"<div{attribute}>{images}</div>" if kind else images
    return f"<figure>{inside}<figcaption>{escape(caption)}</figcaption></figure>"


def notes(items: Iterable[str]) -> str:
    """A list of remarks."""
    return '<ul class="notes">' + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def details(title: str, content: str, opened: bool) -> str:
    """A part that can be folded away."""
    return f"<details{' open' if opened else ''}><summary>{escape(title)}</summary>{content}</details>"


def draw(drawings: Mapping[str, Callable[[], Figure | None]], dpi: int = style.DPI) -> dict[str, bytes]:
    """PNG files by short name, drawn in the report's style; figures that are None are left out."""
    out: dict[str, bytes] = {}
    with style.settings(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a name in a script the bundled font lacks
        for name, make in drawings.items():
            drawn = make()
            if drawn is not None:
                out[name] = png(drawn, dpi)
    return out


def png(drawn: Figure, dpi: int = style.DPI) -> bytes:
    """The figure as a PNG file; the same bytes for the same figure."""
    buffer = BytesIO()
    drawn.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def write_pictures(folder: Path, pictures: Mapping[str, bytes], known: Iterable[str]) -> None:
    """Write `folder/NAME.png`, and remove those of an earlier report (`known` names) that no longer exist."""
    folder.mkdir(exist_ok=True)
    for name in known:
        if name not in pictures:
            (folder / f"{name}.png").unlink(missing_ok=True)
    for name, data in pictures.items():
        (folder / f"{name}.png").write_bytes(data)
