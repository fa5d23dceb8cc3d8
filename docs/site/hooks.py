"""What mkdocs asks for while it builds: formulas, generated tables, pages from outside docs/, nothing to fetch."""

from __future__ import annotations

import logging
import posixpath
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

import formulas  # noqa: E402 - beside this file, which is no package
import generated  # noqa: E402

log = logging.getLogger("mkdocs.hooks.raysoft")
# Documents of the repository that are pages of the site, too.
OUTSIDE = {
    "cluster/README.md": "cluster.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
_SOURCES = {page: source for source, page in OUTSIDE.items()}
_LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?\)")
_CODE = re.compile(r"(^ *```.*?^ *```|`[^`\n]+`)", flags=re.S | re.M)
# The theme would load these for a Mermaid diagram, a browser without ResizeObserver, or the stars of a repository:
# nothing here has any, and a page that gets one must not go and fetch them unseen.
_FETCHED = re.compile(r"https://(?:unpkg\.com|api\.github\.com|bit\.ly)/[\w./@-]*|https://(?=\$\{)")


def slug(heading: str, separator: str) -> str:
    """The anchor of a heading, as the repository's own pages have it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", separator)


def on_config(config: Any) -> Any:
    """Formulas and anchors."""
    config.markdown_extensions.append(formulas.Formulas())
    config.mdx_configs.setdefault("toc", {})["slugify"] = slug
    fence = {"name": "math", "class": "math", "format": formulas.block}
    config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = [fence]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie outside docs/."""
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Generated tables, and links that lead where the site has the document."""
    markdown = generated.filled(markdown)
    source = _SOURCES.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    parts = _CODE.split(markdown)
    parts[::2] = [_LINK.sub(lambda match: _link(match, source, page.file.src_uri), part) for part in parts[::2]]
    return as_markdown("".join(parts))


def as_markdown(text: str) -> str:
    """Lists as Python-Markdown wants them: a blank line before, what belongs to an item indented by four.

    >>> print(as_markdown("Two:\\n- one,\\n  in two lines\\n- two"))
    Two:
    <BLANKLINE>
    - one,
        in two lines
    - two
    """
    lines: list[str] = []
    fence, pad, loose, before = False, 0, False, ""
    for line in text.split("\n"):
        item = re.match(r"(-|\d+\.) ", line)
        if not fence and item:
            begins = not pad and item[1] in ("-", "1.")
            if before.strip() and (begins or loose):
                lines.append("")
            pad, loose = 4 - len(item[0]), False
        elif line.strip() and not line.startswith(" "):
            pad = 0
        loose = loose or (pad > 0 and not line.strip())
        if line.lstrip().startswith("```"):
            fence = not fence
        lines.append(" " * pad + line if pad and line.startswith(" ") else line)
        before = line
    return "\n".join(lines)


def _link(match: re.Match[str], source: str, page: str) -> str:
    """A relative link of a document, as the page needs it."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
    inside = OUTSIDE.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else None)
    if inside is None:
        log.warning("%s links to %s, which the site does not have", source, target)
        return match[0]
    return f"]({posixpath.relpath(inside, posixpath.dirname(page) or '.')}{match[2] or ''})"


def on_post_build(config: Any, **_: Any) -> None:
    """Remove addresses to fetch from the theme's scripts, and what only other languages and debuggers need."""
    assets = Path(config.site_dir) / "assets"
    shutil.rmtree(assets / "javascripts" / "lunr", ignore_errors=True)
    for script in assets.rglob("*.js"):
        text = script.read_text(encoding="utf-8")
        script.write_text(_FETCHED.sub("about:blank#", re.sub(r"//# sourceMappingURL=.*", "", text)), encoding="utf-8")
    for sources in assets.rglob("*.map"):
        sources.unlink()
