"""Copy figures to docs/images/study and put tables between their markers in docs/study.md and docs/study_record.md.

A table NAME stands between `<!-- table: NAME -->` and `<!-- end -->`; a figure that is not drawn yet is a comment that
the figure replaces. The text around is left alone. A page is made from `outline.py` where there is none.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Collection
from pathlib import Path

from PIL import Image

from raysoft.errors import RaysoftError
from raysoft.rundir.folder import write_atomic
from studies.outline import PAGES, Figure, Page, Part, Table

DOCS = Path(__file__).resolve().parents[1] / "docs"
LARGEST_BYTES = 120_000
COLOURS = (256, 128, 64, 32, 16)  # tried in this order until the picture is small enough
_TABLE = re.compile(r"(<!-- table: (?P<name>[\w.-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def publish_study(out: Path, docs: Path = DOCS) -> None:
    """Publish the tables and figures of OUT. What is missing there is named on stderr and left as it was.

    Raises RaysoftError where a marker in a page has no end, or a file cannot be written.
    """
    at = docs
    try:
        pictures = docs / "images" / "study"
        pictures.mkdir(parents=True, exist_ok=True)
        for figure in figures():
            source = out / "figures" / f"{figure.name}.png"
            if source.is_file():
                (pictures / source.name).write_bytes(small_png(source))
            else:
                print(f"not published, because it is not drawn yet: {source}", file=sys.stderr)
        drawn = {figure.name for figure in figures() if (pictures / f"{figure.name}.png").is_file()}
        for page in PAGES:
            at = docs / page.file
            text = at.read_text(encoding="utf-8") if at.is_file() else new_page(page)
            write_atomic(at, with_figures(filled(text, out / "tables", page.file), drawn))
    except OSError as error:
        raise RaysoftError(f"{error.filename or at}: cannot be written: {error.strerror}") from None


def filled(text: str, tables: Path, name: str) -> str:
    """The page with every table that exists between its markers; others keep what stood there.

    Raises RaysoftError, which calls the page by its file `name`, where a marker has no end.
    """
    opened, whole = text.count("<!-- table:"), len(_TABLE.findall(text))
    if opened != whole:
        raise RaysoftError(f"docs/{name}: {opened} tables are opened but {whole} are closed by `<!-- end -->`")

    def put(match: re.Match[str]) -> str:
        file = tables / f"{match['name']}.md"
        if not file.is_file():
            print(f"not published, because it is not made yet: {file}", file=sys.stderr)
            return match[0]
        return f"{match[1]}\n{file.read_text(encoding='utf-8').strip()}\n\n{match[3]}"

    return _TABLE.sub(put, text)


def with_figures(text: str, drawn: Collection[str]) -> str:
    """The page with every figure that is drawn, and a comment in place of every other: no link leads nowhere."""
    for figure in figures():
        picture, comment = _picture(figure), f"<!-- not drawn yet: images/study/{figure.name}.png -->\n"
        text = text.replace(comment, picture) if figure.name in drawn else text.replace(picture, comment)
    return text


def small_png(path: Path) -> bytes:
    """The picture with at most 256 colours, fewer where it would be above 120 kB."""
    with Image.open(path) as image:
        picture = image.convert("RGB")
    best = path.read_bytes()
    for colours in COLOURS:
        buffer = io.BytesIO()
        reduced = picture.quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        reduced.save(buffer, format="png", optimize=True)
        best = min(best, buffer.getvalue(), key=len)
        if len(best) <= LARGEST_BYTES:
            break
    return best


def figures() -> list[Figure]:
    """The figures of all pages, each once."""
    return list({figure.name: figure for page in PAGES for figure in page.figures()}.values())


def new_page(page: Page) -> str:
    """Headings, markers and figures with their captions, nothing else."""
    return f"# {page.title}\n\n" + "\n".join(_part(part) for part in page.parts)


def _part(part: Part) -> str:
    out = [f"## {part.title}\n"]
    for block in part.blocks:
        if isinstance(block, Table):
            out.append(f"<!-- table: {block.name} -->\n<!-- end -->\n")
        else:
            out.append(_picture(block))
    return "\n".join(out)


def _picture(figure: Figure) -> str:
    return f"![{figure.caption}](images/study/{figure.name}.png)\n\n*{figure.caption}*\n"
