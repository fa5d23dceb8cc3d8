"""What the figures of a comparison draw: ends of arms, measured points, spreads, targets, clients, legends."""

from __future__ import annotations

import csv
import math
import re
from dataclasses import replace
from io import StringIO
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from raysoft.quantities import quantity
from raysoft.report import style
from raysoft.report.comparison.data import MeanCurve, Trace, clients_of, kept_by_gain, mean_curve
from raysoft.report.comparison.figures import Point, clouds, curves, distribution, scatter
from raysoft.report.comparison.file import read_comparison
from raysoft.report.comparison.html import load_runs
from raysoft.report.comparison.panels import parts
from raysoft.report.row_figures import Reach, Sample, time_to
from raysoft.report.run.figures import DRAWINGS
from raysoft.rundir.reading import read_run
from tests.comparison_folders import make_comparison


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    return make_comparison(tmp_path_factory.mktemp("comparisons") / "three", arms=3, seeds=3, rounds=4)


def series(seed=0, costs=None, accuracy=(), gain=(), kept=()):
    costs = {name: np.array((costs or {}).get(name, range(len(accuracy))), dtype=float) for name in ("rounds", "mb")}
    values = {"accuracy": np.array(accuracy, dtype=float)}
    return Trace(seed, costs, values, np.array([1.0]), None, np.array(gain, dtype=float), np.array(kept, dtype=float))


def rows_of(figure):
    return list(csv.DictReader(StringIO(figure.csv())))


def test_the_end_of_an_arm_is_drawn_and_the_csv_has_what_was_measured(three):
    file = read_comparison(three)
    loaded = load_runs(three, file)
    part = next(part for part in parts(file, loaded.traces) if part.name == "accuracy")
    assert "the mark with a bar is the mean of where they all end" in part.caption
    with style.settings():
        figure = part.drawings["accuracy_mb"]()
    ax = figure.axes[0]
    rows = rows_of(figure)
    for arm in file.arms:
        runs = [read_run(three / run.folder) for run in arm.runs]
        for number, run in enumerate(runs):
            mine = [row for row in rows if (row["arm"], row["seed"]) == (arm.label, str(number))]
            assert [row["series"] for row in mine] == [f"{arm.label}, seed {number}"] * len(run.records)
            assert [int(row["round"]) for row in mine] == run.column("round").tolist()
            assert [float(row["y"]) for row in mine] == (100 * run.column("accuracy")).tolist()
            np.testing.assert_allclose([float(row["x"]) for row in mine], np.cumsum(run.column("uplink_bits")) / 8e6)
        end = np.mean([[run.column("uplink_bits").sum() / 8e6, 100 * run.column("accuracy")[-1]] for run in runs], 0)
        marks = [np.ravel(one.get_data()) for one in ax.lines if len(one.get_xdata()) == 1]
        assert any(np.allclose(mark, end) for mark in marks), arm.label
        (noted,) = [row for row in rows if row["series"] == f"{arm.label}, mean of the ends"]
        assert [float(noted["x"]), float(noted["y"])] == pytest.approx(end)
    mean = [row for row in rows if row["series"] == file.arms[0].label]
    assert {row["seed"] for row in mean} == {""}
    lines = [one for one in ax.lines if len(one.get_xdata()) > 2]
    assert {one.get_drawstyle() for one in lines} == {"steps-post"}
    assert {one.get_marker() for one in lines} == {"None"}  # a mark would be a point that was measured
    assert lines[0].get_xdata().tolist() == [float(row["x"]) for row in mean]


def test_the_line_changes_where_a_seed_was_evaluated_and_nowhere_else():
    seeds = [series(0, {"mb": [0, 1, 2]}, [0.1, 0.5, 0.9]), series(1, {"mb": [0, 3, 8]}, [0.1, 0.7, 1.0])]
    curve = mean_curve("arm", seeds, "mb", "accuracy")
    assert curve.x_P.tolist() == [0, 1, 2]
    assert (curve.end.x, curve.end.y) == pytest.approx((5.0, 0.95))
    assert curve.end.std == pytest.approx(0.1 / math.sqrt(2))
    assert curve.scaled(100.0).end.y == pytest.approx(95.0)
    assert mean_curve("arm", seeds[:1], "mb", "accuracy").end is None
    assert mean_curve("arm", seeds, "rounds", "accuracy").end is None  # both end in round 2
    rounded = [series(0, {"mb": [0, 0.3]}, [0.1, 0.5]), series(1, {"mb": [0, 0.1 + 0.2]}, [0.1, 0.7])]
    assert mean_curve("arm", rounded, "mb", "accuracy").mean_P[-1] == pytest.approx(0.6)  # not the base of the second


def test_spreads_are_drawn_within_what_can_be_and_kept_in_the_csv():
    x, nothing = np.array([0.0, 1.0]), np.array([99.0, 99.5])
    one = MeanCurve("arm", x, nothing, nothing - 2, nothing + 2, 2)
    for lines in ([one], [replace(one, label=f"arm {n}") for n in range(8)]):
        with style.settings():
            figure = curves(lines, "Round", "Accuracy (%)", y_range=quantity("accuracy").possible)
        tops = [artist.get_datalim(figure.axes[0].transData).y1 for artist in figure.axes[0].collections]
        assert max(tops) == pytest.approx(100.0)
        assert max(float(row["y_high"]) for row in rows_of(figure)) == 101.5
    point = Point("arm", 1.0, 99.0, 2.0, 3.0)
    with style.settings():
        figure = scatter([point], "MB", "%", x_range=quantity("uplink_mb").possible, y_range=(0.0, 100.0))
    drawn = np.concatenate([np.stack(one.get_data(), axis=1) for one in figure.axes[0].lines])
    assert drawn.min(axis=0).tolist() == [0.0, 96.0]
    assert drawn.max(axis=0).tolist() == [3.0, 100.0]
    assert [float(rows_of(figure)[0][key]) for key in ("x_low", "y_high")] == [-1.0, 102.0]
    assert quantity("recovered_gap").possible == (-math.inf, math.inf)
    assert quantity("a_metric_of_a_plug_in").possible == (-math.inf, math.inf)


def test_targets_have_no_colour_of_an_arm_and_hide_nothing():
    rows = [Reach("a", {"50 %": 1.0, "90 %": 1.0, "95 %": 1.0}), Reach("b", {"50 %": 2.0, "90 %": None, "95 %": None})]
    with style.settings("column"):
        figure = time_to(rows, "s")
        figure.draw_without_rendering()
    marks = [one for one in figure.axes[0].lines if one.get_linestyle() == "None"]
    assert len(marks) == 3
    for one in marks:
        red, green, blue = to_rgb(one.get_markerfacecolor())
        assert red == green == blue
    heights = [one.get_ydata()[-1] for one in marks[1:]] + [marks[0].get_ydata()[0]]
    at = figure.axes[0].transData.transform([(1.0, float(height)) for height in heights])[:, 1]
    assert min(abs(a - b) for a, b in combinations(at, 2)) > 4 * figure.dpi / 72  # a mark is 4 pt large
    assert {row["y"] for row in rows_of(figure)} == {"a", "b"}


def test_clients_are_dots_and_only_large_groups_are_joined():
    few, many = (np.arange(count, dtype=float) for count in (24, 60))
    for gain, joined in ((few, False), (many, True)):
        seeds = [series(gain=gain, kept=gain / 100)]
        curve = kept_by_gain("soft", seeds)
        with style.settings("column"):
            figure = clouds([curve], {"soft": clients_of(seeds)}, "dB", "kept")
        dots, *lines = figure.axes[0].lines
        assert dots.get_linestyle() == "None"
        assert dots.get_xdata().tolist() == gain.tolist()
        assert bool(lines) is joined
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["soft"]


def test_arms_stand_in_one_order_in_every_legend_and_a_logarithmic_axis_says_so():
    samples = [Sample("slow", [1.0, 5.0]), Sample("fast", [0.1, 0.2])]
    with style.settings("column"):
        figure = distribution(samples, "Round latency (s)", [0.3])
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["slow", "fast", "latency budget"]
    assert figure.axes[0].get_xlabel() == "Round latency (s), log scale"
    assert {row["x_name"] for row in rows_of(figure)} == {"Round latency (s)"}


def test_the_page_about_figures_names_every_figure(three):
    page = (Path(__file__).parents[3] / "docs" / "figures.md").read_text(encoding="utf-8")
    of_runs = page.split("## The figures of a run\n")[1]
    assert [drawing.name for drawing in DRAWINGS if f"| `{drawing.name}` |" not in of_runs] == []
    of_comparisons = page.split("## The figures of a comparison\n")[1].split("\n## ")[0]
    file = read_comparison(three)
    drawn = {name for part in parts(file, load_runs(three, file).traces) for name in part.drawings}
    named = {name.replace("METRIC", "accuracy") for name in re.findall(r"`([\w_]+)`", of_comparisons)}
    assert len(drawn) > 10
    assert drawn <= named
