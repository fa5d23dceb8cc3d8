"""report.html in a real browser: the figures appear, the console stays empty, nothing is fetched, all is readable."""

from __future__ import annotations

import pytest

from raysoft.report import write_comparison_report, write_report
from raysoft.report.run.figures import DRAWINGS
from tests.browser import Browser, find_chromium
from tests.comparison_folders import make_comparison
from tests.run_folders import make_run

CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome is installed (apt install chromium)")
CONTRAST = 4.5  # WCAG 2.2, level AA, text of normal size
IMAGES = "[...document.images].map(i => ({width: i.naturalWidth, shown: i.clientWidth, done: i.complete, alt: i.alt}))"
COLOURS = """[...document.querySelectorAll('h1, h2, p, td, th, li, figcaption, a, summary')].map(e => {
  let back = e;
  while (back && getComputedStyle(back).backgroundColor === 'rgba(0, 0, 0, 0)') back = back.parentElement;
  return [getComputedStyle(e).color, back ? getComputedStyle(back).backgroundColor : 'rgb(255, 255, 255)', e.tagName];
})"""


@pytest.fixture(scope="module")
def browser():
    with Browser(CHROMIUM) as one:
        yield one


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    one = make_run(root / "a run with spaces & <signs>", rounds=8)
    two = make_run(root / "text", rounds=6, seed=2, text=True)
    arms = make_comparison(root / "arms", arms=9, seeds=2, rounds=3)
    return {"single": write_report(one), "comparison": write_report([one, two]), "arms": write_comparison_report(arms)}


@pytest.mark.parametrize("kind", ["single", "comparison"])
def test_the_figures_appear_and_the_console_stays_empty(browser, reports, kind):
    visit = browser.open(reports[kind].as_uri())
    images = browser.evaluate(IMAGES)
    of_the_model = 4  # labels, accuracy by client, confusion, spectrum: these runs have none
    unlike = {"single": 1, "comparison": 2}[kind]  # bits per byte; a timeline and a cell are of one run
    assert len(images) == len(DRAWINGS) - of_the_model - unlike
    for image in images:
        assert image["done"]
        assert image["width"] in (1432, 700)  # 7.16 or 3.5 inches at 200 dots: decoded, and sharp on a dense screen
        assert image["shown"] == pytest.approx(image["width"] / 200 * 8.37 * 16, abs=20)  # text equally large in all
        assert image["alt"]
    assert visit.problems == []
    fetched = [url for url in visit.requests if not url.startswith("data:")]
    assert fetched == [reports[kind].as_uri()]


def test_the_page_of_a_comparison_shows_every_figure_sharp_and_fetches_nothing(browser, reports):
    visit = browser.open(reports["arms"].as_uri())
    images = browser.evaluate(IMAGES)
    assert len(images) == len(list((reports["arms"].parent / "figures").glob("*.png"))) == 14
    for image in images:
        assert image["done"]
        assert image["width"] == 1050  # 3.5 inches at 300 dots
        assert 300 < image["shown"] < 600  # side by side
        assert image["alt"]
    assert visit.problems == []
    assert [url for url in visit.requests if not url.startswith("data:")] == [reports["arms"].as_uri()]


@pytest.mark.parametrize("width", [360, 768, 1600])
@pytest.mark.parametrize("kind", ["single", "comparison", "arms"])
def test_no_page_is_wider_than_its_window(browser, reports, kind, width):
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500)
    try:
        browser.open(reports[kind].as_uri())
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
    finally:
        browser.call("Emulation.clearDeviceMetricsOverride")


@pytest.mark.parametrize("kind", ["single", "arms"])
@pytest.mark.parametrize(
    ("media", "scheme"), [("screen", "light"), ("screen", "dark"), ("print", "light"), ("print", "dark")]
)
def test_every_text_has_enough_contrast(browser, reports, kind, media, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.call("Emulation.setEmulatedMedia", media=media, features=features)
    try:
        browser.open(reports[kind].as_uri())
        colours = browser.evaluate(COLOURS)
    finally:
        browser.call("Emulation.setEmulatedMedia", media="", features=[])
    assert len(colours) > 50
    for text, back, tag in colours:
        assert contrast(text, back) >= CONTRAST, (tag, text, back)
    body = luminance(colours[0][1])
    assert (body < 0.1) == (media == "screen" and scheme == "dark")  # paper stays white


def luminance(colour):
    channels = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, two):
    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


def test_a_broken_page_would_be_noticed(browser, reports, tmp_path):
    text = reports["single"].read_text(encoding="utf-8")
    broken = tmp_path / "broken.html"
    place = text.index("base64,") + len("base64,")
    text = text[:place] + "AAAA" + text[place + 4 :]
    text = text.replace("</main>", '<script>alert(1)</script><img src="missing.png"></main>')
    broken.write_text(text, encoding="utf-8")
    visit = browser.open(broken.as_uri())
    assert [image["width"] for image in browser.evaluate(IMAGES)].count(0) == 2
    assert any("Content Security Policy" in problem for problem in visit.problems)
