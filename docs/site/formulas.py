"""Formulas of the pages: LaTeX in $`...`$ or a block of ```math, as the repository's own pages show it, made MathML."""

from __future__ import annotations

import re
from typing import Any

from latex2mathml.converter import convert
from markdown import Markdown
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor


class _Inline(InlineProcessor):
    def handleMatch(self, m: re.Match[str], data: str) -> tuple[str, int, int]:
        """A formula within a line, kept away from what else Markdown does."""
        return self.md.htmlStash.store(convert(m[1])), m.start(0), m.end(0)


class Formulas(Extension):
    """Formulas within a line. Before code spans, which share the backtick."""

    def extendMarkdown(self, md: Markdown) -> None:
        """Register the pattern."""
        md.inlinePatterns.register(_Inline(r"\$`([^`]+)`\$", md), "formula", 195)


def block(source: str, *_: Any, **__: Any) -> str:
    """A formula of its own: `source` is the text of a ```math fence, for pymdownx.superfences."""
    return convert(" ".join(source.split()), display="block")
