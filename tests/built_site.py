"""The documentation site, built with every way to a network closed, and its pages as a browser would read them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).parents[1]
# mkdocs in a process in which no socket can be connected.
_BUILD = """
import os, socket, sys
def refuse(*_):
    raise OSError("the site is built without a network")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
from mkdocs.__main__ import cli
cli()
"""
_LOADS = {
    ("script", "src"),
    ("img", "src"),
    ("img", "srcset"),
    ("iframe", "src"),
    ("source", "src"),
    ("source", "srcset"),
    ("video", "src"),
    ("video", "poster"),
    ("audio", "src"),
    ("track", "src"),
    ("embed", "src"),
    ("object", "data"),
    ("input", "src"),
    ("link", "href"),
    ("use", "href"),
    ("image", "href"),
    ("form", "action"),
    ("base", "href"),
}
ADDRESS = re.compile(r"(?:https?:)?//[\w-]+(?:\.[\w-]+)+[^\s'\"`)]*")
_IN_STYLE = re.compile(r"(?:url\(\s*['\"]?|@import\s+['\"]?)((?:https?:)?//[^'\")\s]+)")
_LITERAL = {"code", "pre", "script", "style", "title", "math", "annotation"}


def build_site(folder: Path) -> subprocess.CompletedProcess[str]:
    """`make docs` into `folder`, without a network."""
    words = ["build", "--strict", "--quiet", "--site-dir", str(folder)]
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _BUILD, *words],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@dataclass
class Page(HTMLParser):
    """What one page loads, links to, and says outside of code and formulas."""

    html: str
    loads: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    text: str = ""
    formulas: int = 0

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[str] = []
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.formulas += tag == "math"
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        self.loads += [value for name, value in given.items() if (tag, name.removeprefix("xlink:")) in _LOADS]
        self.loads += _IN_STYLE.findall(given.get("style", ""))
        if tag == "meta" and given.get("http-equiv", "").lower() == "refresh":
            self.loads.append(given.get("content", ""))
        if tag in _LITERAL:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if not self._open:
            self.text += data
        elif self._open[-1] == "style":
            self.loads += _IN_STYLE.findall(data)
        elif self._open[-1] == "script":
            self.loads += addresses_in_script(data)

    @property
    def foreign(self) -> list[str]:
        """What it would fetch from elsewhere."""
        return [one for one in self.loads if ADDRESS.search(one)]


def addresses_in_style(text: str) -> list[str]:
    """What a style sheet would fetch from elsewhere."""
    return _IN_STYLE.findall(text)


def addresses_in_script(text: str) -> list[str]:
    """Addresses of other machines in a script, but for XML's names of namespaces and what stands in its comments."""
    code = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    found = re.findall(r"https?://[^\s'\"`)]*", code)
    return [one for one in found if not re.match(r"https?://www\.w3\.org/", one)]


def broken_links(pages: dict[Path, Page], root: Path) -> list[str]:
    """Links within the site that lead to no file, or to no anchor of it."""
    broken = []
    for path, page in pages.items():
        for link in page.links:
            if re.match(r"[a-z]+:|//", link):
                continue
            name, _, anchor = unquote(link).partition("#")
            start = root if name.startswith("/") else path.parent
            target = (start / name.lstrip("/")).resolve() if name else path
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                broken.append(f"{path.relative_to(root)}: {link}")
            elif anchor and target in pages and anchor not in pages[target].anchors:
                broken.append(f"{path.relative_to(root)}: {link} (no such anchor)")
    return broken


def raw_formulas(text: str) -> list[str]:
    """What looks like LaTeX that nobody made a formula of."""
    return re.findall(r"\$[^\s$][^$\n]{0,60}\$|\\[a-zA-Z]+\{|\\(?:frac|sum|tau|bar|le|in|text|sqrt)\b", text)


def lost_lists(html: str) -> list[str]:
    """Items of lists that became a line of a paragraph, or text that kept its Markdown."""
    paragraphs = re.findall(r"<p>(.*?)</p>", html, flags=re.S)
    return [text for text in paragraphs if re.search(r"\n\s*(?:- |\d+\. |\| )|^```|^#+ ", text)]
