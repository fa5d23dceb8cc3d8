"""The documentation site: built strictly and without a network, it fetches nothing, and every link leads somewhere.

In a real browser, where there is one: no page is wider than its window, and search works from the disk.
"""

from __future__ import annotations

import doctest
import importlib.util

import pytest

from raysoft import quantities
from raysoft.config import registry
from raysoft.terminal.cli import app
from tests.browser import Browser, find_chromium
from tests.built_site import (
    ROOT,
    Page,
    addresses_in_script,
    addresses_in_style,
    broken_links,
    build_site,
    lost_lists,
    raw_formulas,
)

CHROMIUM = find_chromium()
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome is installed (apt install chromium)")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("mkdocs", "material", "mkdocstrings", "latex2mathml")),
        reason="the extra `docs` is not installed",
    ),
]

FOUND = """new Promise(done => {
  const field = document.querySelector('.md-search__input')
  field.focus(); field.value = 'virtual queue'
  field.dispatchEvent(new KeyboardEvent('keyup', {bubbles: true}))
  field.dispatchEvent(new InputEvent('input', {bubbles: true}))
  const until = Date.now() + 15000
  const look = () => {
    const links = [...document.querySelectorAll('.md-search-result__link')].map(a => a.href)
    links.length || Date.now() > until ? done(links) : setTimeout(look, 100)
  }
  look()
})"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site") / "docs"
    done = build_site(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    return {path.resolve(): Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}


def test_every_document_is_a_page(site, pages):
    documents = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")}
    assert len(documents) > 20
    for document in documents:
        assert (site / document).with_suffix(".html").resolve() in pages, document
    for name in ("cluster", "changelog", "contributing", "security"):
        assert (site / f"{name}.html").resolve() in pages


def test_no_page_style_or_script_fetches_anything_from_elsewhere(site, pages):
    for path, page in pages.items():
        assert page.foreign == [], path.name
        assert len(page.loads) > 3, "its own style and script were seen"
    styles, scripts = sorted(site.rglob("*.css")), sorted(site.rglob("*.js"))
    assert len(styles) >= 3
    assert len(scripts) >= 4
    for path in styles:
        assert addresses_in_style(path.read_text(encoding="utf-8")) == [], path.name
    for path in scripts:
        if path.name != "search_index.js":  # the text of the pages
            assert addresses_in_script(path.read_text(encoding="utf-8")) == [], path.name


def test_every_link_within_the_site_leads_somewhere(site, pages):
    assert sum(len(page.links) for page in pages.values()) > 2000
    assert broken_links(pages, site.resolve()) == []


def test_formulas_and_lists_are_what_they_should_be(pages):
    for path, page in pages.items():
        assert raw_formulas(page.text) == [], path.name
        assert "<merror" not in page.html, path.name
        assert lost_lists(page.html) == [], path.name
        assert "<!-- generated" not in page.html, path.name
    assert sum(page.formulas for page in pages.values()) > 20


def test_the_generated_references_are_complete(site):
    plug_ins = (site / "plug_in_list.html").read_text(encoding="utf-8")
    for kind, names in registry.KINDS.items():
        for name in names:
            chosen = f"method.extras=[{{name: {name}}}]" if kind == "extra" else f"{kind}.name={name}"
            assert f"<code>{chosen}</code>" in plug_ins
    commands = (site / "commands.html").read_text(encoding="utf-8")
    for command in app.registered_commands:
        assert f"raysoft {command.name or command.callback.__name__} " in commands
    table = (site / "quantities.html").read_text(encoding="utf-8")
    for one in quantities.TABLE:
        assert f"<td><code>{one.key}</code></td>" in table


def test_lists_of_the_repository_stay_lists_on_the_site():
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "site" / "hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    done = doctest.testmod(hooks)
    assert done.attempted > 0
    assert done.failed == 0
    code = "- a\n\n  ```\n  # no heading\n  ```\n- b"
    assert hooks.as_markdown(code) == "- a\n\n    ```\n    # no heading\n    ```\n\n- b"
    assert hooks.as_markdown("```\na\n- b\n```") == "```\na\n- b\n```"


def test_what_the_tests_look_for_would_be_found(tmp_path):
    bad = (
        '<link rel="stylesheet" href="https://fonts.example.org/a.css"><p style="background: url(//cdn.example.org/b)">'
        '<style>@import "https://c.example.org/d.css";</style><script>fetch("https://e.example.org/f")</script>'
        '<img src="g.png"><a href="https://paper.example.org">a paper</a><a href="missing.html">x</a>'
        '<a href="#nowhere">y</a><a href="#here" id="here">z</a><code>$a$</code><p>costs $\\tau_k$ each</p>'
    )
    page = Page(bad)
    assert len(page.foreign) == 4
    assert raw_formulas(page.text) == ["$\\tau_k$"]
    path = tmp_path / "page.html"
    path.write_text(bad)
    assert broken_links({path: page}, tmp_path) == ["page.html: missing.html", "page.html: #nowhere (no such anchor)"]
    assert addresses_in_style("@import url('https://a.example.org/b');") == ["https://a.example.org/b"]
    assert addresses_in_script(
        'load("https://a.example.org/b"), n="http://www.w3.org/2000/svg"/* https://c.org */'
    ) == ["https://a.example.org/b"]
    assert len(lost_lists("<p>Three of them:\n- one</p>")) == 1


@pytest.fixture(scope="module")
def browser():
    with Browser(CHROMIUM) as one:
        yield one


@needs_browser
@pytest.mark.parametrize("width", [400, 1000, 1400])
def test_no_page_is_wider_than_its_window_or_fetches_anything(browser, site, width):
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500)
    try:
        for path in sorted(site.rglob("*.html")):
            if path.name == "404.html":  # its addresses are those of a server's root
                continue
            visit = browser.open(path.as_uri())
            assert visit.problems == [], path.name
            assert [url for url in visit.requests if not url.startswith(("file:", "data:"))] == [], path.name
            assert browser.evaluate("document.documentElement.scrollWidth") <= width, path.name
            assert browser.evaluate("document.querySelector('h1').getBoundingClientRect().width") > width / 4, path.name
            broken = "[...document.images].filter(i => i.loading !== 'lazy' && !i.naturalWidth).map(i => i.src)"
            assert browser.evaluate(broken) == [], path.name
    finally:
        browser.call("Emulation.clearDeviceMetricsOverride")


@needs_browser
def test_search_works_from_the_disk(browser, site):
    visit = browser.open((site / "index.html").as_uri())
    links = browser.evaluate(FOUND)
    assert links
    assert all(link.startswith(site.as_uri()) for link in links)
    assert any("method.html" in link or "glossary.html" in link for link in links)
    assert visit.problems == []
