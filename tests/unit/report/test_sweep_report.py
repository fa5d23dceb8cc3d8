"""The report of a sweep: exact fronts and scales, figures without touching texts, pages from any readable file."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from raysoft.errors import ConfigError, RaysoftError
from raysoft.report import draw_folders, style, write_sweep_report
from raysoft.report.sweep.figures import Column, Measured, effects, front_of, parallel, pareto, scale_of, scattered
from raysoft.report.sweep.html import cell
from tests.figure_checks import Page, check_texts
from tests.sweep_folders import axis, write

GRIDS = [
    axis("rank", [4, 8, 16]),
    axis("latency_budget_s", [0.3, 0.45, 0.6]),
    axis("min_kept_fraction", [0.015, 0.03, 0.06]),
]


def crossed(axes):
    return list(itertools.product(*(one["values"] for one in axes)))


def test_the_front_is_that_of_brute_force():
    rng = np.random.default_rng(3)
    points = [Measured(n, *(float(x) for x in rng.integers(0, 4, 3))) for n in range(60)]

    def beaten(a):
        return any(
            b.value >= a.value
            and b.latency_s <= a.latency_s
            and b.mb <= a.mb
            and (b.value, b.latency_s, b.mb) != (a.value, a.latency_s, a.mb)
            for b in points
        )

    assert front_of(points) == [place for place, one in enumerate(points) if not beaten(one)]


def test_few_values_are_equally_far_apart_and_many_keep_their_distances():
    few = scale_of([16, 4, None, 8])
    assert few.categories
    assert few.names == ("4", "8", "16")
    assert few.place_N[[0, 1, 3]].tolist() == [2, 0, 1]
    assert np.isnan(few.place_N[2])
    many = scale_of([10.0**-n for n in range(12)])
    assert not many.categories
    assert np.allclose(np.diff(many.place_N), -1.0), "decades are equally far apart"
    plain = scale_of(list(range(100, 120)))
    assert np.allclose(np.diff(plain.place_N), 1.0)
    assert all(100 <= tick <= 119 for tick in plain.ticks)
    assert scale_of(["b", "a", True]).names == ("True", "a", "b")


def drawings():
    rng = np.random.default_rng(0)
    points = [
        Measured(n, *(float(x) for x in (60 + 20 * rng.random(), 0.2 + rng.random(), 1 + 4 * rng.random())))
        for n in range(27)
    ]
    grid = crossed(GRIDS)
    columns = [Column(one["label"], [values[place] for values in grid]) for place, one in enumerate(GRIDS)]
    accuracy = Column("Final accuracy (%)", [70 + n % 7 for n in range(27)])
    latency = Column("Round latency (s)", [0.2 + 0.01 * n for n in range(27)])
    none = [None] * 27
    random = Column("lr", [float(10**x) for x in rng.uniform(-3, 0, 27)])
    names = Column("codec", [["rank_components", "ecsq", "topk"][n % 3] for n in range(27)])
    yield "pareto", lambda: pareto(points, "Final accuracy (%)")
    yield "effects", lambda: effects(columns, [accuracy, latency], [[0.5] * 27, none])
    yield "effect of one axis", lambda: effects(columns[:1], [accuracy, latency], [none, none])
    yield "effects of names and ranges", lambda: effects([names, random], [accuracy], [none])
    yield "map of ranges", lambda: scattered(random, names, accuracy)
    yield "one point", lambda: pareto(points[:1], "Final accuracy (%)")


@pytest.mark.parametrize(("name", "draw"), drawings(), ids=lambda value: value if isinstance(value, str) else "")
def test_no_text_touches_another(name, draw):
    with style.settings():
        check_texts(draw(), name)


def test_parallel_axes_name_every_axis_once():
    grid = crossed(GRIDS)
    columns = [Column(one["label"], [values[place] for values in grid]) for place, one in enumerate(GRIDS)]
    accuracy = Column("Final accuracy (%)", [70.0 + n for n in range(27)])
    with style.settings():
        figure = parallel([*columns, accuracy], accuracy, best=26)
        assert figure is not None
        labels = [label.get_text().replace("\n", " ") for label in figure.axes[0].get_xticklabels()]
    assert labels == ["rank", "latency budget s", "min kept fraction", "Final accuracy (%)"]
    assert len(figure.axes[0].lines) == 27 + 1 + 4, "one line a point, the best again, one an axis"


@pytest.mark.parametrize(("axes", "settings", "seeds", "figures"), [
    (GRIDS, crossed(GRIDS), 2, {"pareto", "map", "effects", "parallel"}),
    pytest.param(GRIDS[:1], crossed(GRIDS[:1]), 1, {"pareto", "effects", "parallel"}, marks=pytest.mark.slow),
    ([axis("lr", [1e-3, 1], "loguniform"), axis("codec", ["ecsq", "topk"], "choice")],
     [(0.001 * 1.5**n, ["ecsq", "topk"][n % 2]) for n in range(15)], 1, {"pareto", "map", "effects", "parallel"}),
    (GRIDS[:2], [], 1, set()),
])  # fmt: skip
def test_the_page_holds_what_the_sweep_has(tmp_path, axes, settings, seeds, figures):
    folder = write(tmp_path / "sweep", axes, settings, seeds=seeds)
    page = Page(write_sweep_report(folder).read_text())
    assert {path.stem for path in (folder / "figures").glob("*.png")} == figures
    assert len(page.all("img")) == len(figures)
    assert all(text.startswith(("data:", "#", "figures/")) for text in page.references)
    for one in axes:
        assert one["label"] in page.text
    assert draw_folders([folder]) == folder / "report.html"
    with pytest.raises(ConfigError, match="sweep folder"):
        draw_folders([folder, folder])


def test_reasons_and_strange_names_are_on_the_page(tmp_path):
    folder = write(tmp_path / "sweep", GRIDS[:1], crossed(GRIDS[:1]))
    data = json.loads((folder / "results.json").read_text())
    data["trials"][0] |= {"status": "failed", "reason": "<b>no</b> memory $x$"}
    data["name"] = "<script>"
    (folder / "results.json").write_text(json.dumps(data))
    text = write_sweep_report(folder).read_text()
    assert "&lt;b&gt;no&lt;/b&gt; memory" in text
    assert "<script" not in text


def test_numbers_have_as_many_digits_as_their_spread_allows():
    assert cell({"final_accuracy": 0.7123, "std": {"final_accuracy": 0.0123}}, "final_accuracy") == "71.2 ± 1.2"
    assert cell({"final_accuracy": 0.7123, "std": {}}, "final_accuracy") == "71.23"
    assert cell({"final_accuracy": None, "std": {}}, "final_accuracy") == "–"


@pytest.mark.parametrize(("text", "sentence"), [
    ("{", "results.json"),
    ("[]", "results.json"),
    ('{"format": 2}', "format"),
    ('{"format": 1, "name": "x", "metric": "m", "mode": "max", "axes": [{"key": "a", "label": "a", "kind": "grid", '
     '"values": []}], "points": [{"point": 0}], "trials": []}', "points.0"),
])  # fmt: skip
def test_a_damaged_file_is_named(tmp_path, text, sentence):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(RaysoftError, match=sentence):
        write_sweep_report(tmp_path)


def test_an_axis_that_is_called_as_a_figure_is_shown_once(tmp_path):
    """`latency_budget_s` is a number of the summary, too, and a row counts its rounds."""
    folder = write(tmp_path / "a", GRIDS[:2], crossed(GRIDS[:2]))
    page = write_sweep_report(folder).read_text()
    assert ">latency_budget_s<" in page
    assert "Latency budget (s)" not in page
    assert ">Rounds<" not in page


@pytest.mark.parametrize(("others", "said"), [(0, None), (1, "tied with 1 other,"), (2, "tied with 2 others,")])
def test_a_best_point_that_is_not_alone_is_said_to_be_tied(tmp_path, others, said):
    axes = [axis("rank", [1, 2, 4, 8])]
    folder = write(tmp_path / "sweep", axes, [(1,), (2,), (4,), (8,)])
    tree = json.loads((folder / "results.json").read_text())
    for point in tree["points"]:
        point["final_accuracy"] = 0.5
    for point in tree["points"][: 1 + others]:
        point["final_accuracy"] = 0.80001  # equal in the figures that are shown
    tree["best"] = tree["points"][0] | {"final_accuracy": 0.80002}
    (folder / "results.json").write_text(json.dumps(tree))
    text = Page(write_sweep_report(folder).read_text(encoding="utf-8")).text
    assert ("tied" in text) is (said is not None)
    assert said is None or said in text
