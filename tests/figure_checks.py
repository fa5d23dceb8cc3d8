"""What the tests of all reports ask of a figure and of a page."""

from __future__ import annotations

from html.parser import HTMLParser
from itertools import combinations

from matplotlib.text import Text


def check_texts(figure, name):
    """Every text is at least 8 points, inside the page, and touches no other."""
    figure.draw_without_rendering()
    width, height = figure.canvas.get_width_height()
    texts = [item for item in visible_texts(figure) if drawn_label(item[0], figure)]
    assert texts, name
    for text, box in texts:
        assert text.get_fontsize() >= 8, (name, text.get_text())
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
        assert inside, (name, text.get_text())
    for (one, a), (two, b) in combinations(texts, 2):
        overlap = min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1
        assert not overlap, (name, one.get_text(), two.get_text())


def visible_texts(figure):
    """(text, box in pixels) of everything readable, in the boxes as drawn."""
    renderer = figure.canvas.get_renderer()
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and text.axes is not None and not text.axes.get_visible():
            continue
        if text.get_visible() and text.get_text().strip():
            yield text, Text.get_window_extent(text, renderer)  # of an annotation: without its leader


def drawn_label(text, figure):
    """False for tick labels outside their axis, which matplotlib keeps but never draws."""
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if text in (tick.label1, tick.label2):
                    low, high = sorted(axis.get_view_interval())
                    slack = 1e-9 * max(abs(low), abs(high), 1e-30)
                    return low - slack <= tick.get_loc() <= high + slack
    return True


class Page(HTMLParser):
    """Collects what a test asks about and checks that tags nest."""

    VOID = frozenset({"meta", "link", "img", "br", "hr"})

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.stack, self.tags, self.texts, self.references = [], [], [], []
        self.feed(text)
        assert self.stack == [], "unclosed tags"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.references += [v for k, v in attrs if k in ("src", "href", "srcset", "action", "poster", "data")]
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if not self.stack or self.stack[-1] != "style":
            self.texts.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def text(self):
        return " ".join(self.texts)
