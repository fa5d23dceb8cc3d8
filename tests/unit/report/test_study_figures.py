"""Figures of the study: what is drawn is what was given, every text can be read, odd data are drawn or refused."""

from __future__ import annotations

import numpy as np
import pytest

from raysoft.report import style
from raysoft.report.study_figures import (
    BudgetPoint,
    FrontierPoint,
    budget_sweep,
    frontier,
    heat,
    scatter_rank,
    tradeoff,
)
from tests.figure_checks import check_texts

FAMILIES = (
    "rank components",
    "rank components 4 bit",
    "topk",
    "topk 4 bit",
    "randomk",
    "random components",
    "svd",
    "soft-plus",
    "quantised",
)
SHARES = (2.0, 5.0, 10.0, 20.0, 40.0, 100.0)


@pytest.fixture(autouse=True)
def drawn_in_style():
    with style.settings("column"):
        yield


def frontier_points(families=FAMILIES, known=True):
    out = []
    for number, family in enumerate(families):
        for share in SHARES:
            mean = 87.0 - (1 + number) * 2 / share**0.5
            out.append(FrontierPoint(family, share, mean, *((mean - 0.4, mean + 0.4) if known else (None, None))))
    return out


@pytest.mark.parametrize("count", [len(FAMILIES), 3])
@pytest.mark.parametrize("lower_is_better", [False, True])
def test_the_frontier_draws_each_family_its_reference_and_band(lower_is_better, count):
    points = frontier_points(FAMILIES[:count])[::-1]  # in any order
    figure = frontier(points, 86.6, "Accuracy (%)", band=0.5, lower_is_better=lower_is_better)
    check_texts(figure, "frontier")
    panels = [ax for ax in figure.axes if ax.get_visible()]
    assert len(panels) == (count if count > 6 else 1)
    low, high = panels[0].get_xlim()
    assert low > high  # fewer bits to the right
    families = list(dict.fromkeys(point.family for point in points))
    if count > 6:
        assert [ax.get_title(loc="left").replace("\n", " ") for ax in panels] == families
    else:
        assert [text.get_text() for text in figure.legends[0].get_texts()][:count] == families
    for number, family in enumerate(families):
        ax = panels[number if count > 6 else 0]
        in_front = [one for one in ax.lines if one.get_zorder() == 3]
        front = in_front[0 if count > 6 else number]
        mine = sorted((point.share_percent, point.mean) for point in points if point.family == family)
        np.testing.assert_allclose(front.get_xdata(), [x for x, _ in mine], rtol=0.06)  # set apart by 1 % a family
        np.testing.assert_allclose(front.get_ydata(), [y for _, y in mine])
        told = [one for one in figure.noted if one.series[0] == family]
        assert told[0].y == [y for _, y in mine]
        box = ax.patches[0].get_extents().transformed(ax.transData.inverted())
        assert (box.y0, box.y1) == pytest.approx((86.6, 87.1) if lower_is_better else (86.1, 86.6))


@pytest.mark.parametrize("known", [True, False])
def test_one_family_at_one_point_without_interval(known):
    check_texts(frontier(frontier_points(FAMILIES[:1], known)[:1], 86.0, "Accuracy (%)"), "one")


def test_the_budget_sweep_draws_intervals_where_they_are_known():
    points = [
        BudgetPoint("tsfa", 0.1, 80.0, 79.0, 81.0),
        BudgetPoint("tsfa", 0.4, 84.0),
        BudgetPoint("equal", 0.1, 75.0),
    ]
    figure = budget_sweep(points, "Accuracy after 60 s (%)")
    check_texts(figure, "budget")
    segments = [path for bars in figure.axes[0].collections for path in bars.get_segments()]
    drawn = [path[:, 1].tolist() for path in segments if len(path) and np.isfinite(path).all()]
    assert drawn == [[79.0, 81.0]]


def test_the_tradeoff_fits_the_law_it_was_made_by():
    v = np.array([10.0, 0.1, 1.0, 0.01])
    figure = tradeoff(v, 0.2 + 0.01 / v, 0.05 + 0.02 * v, penalty_std_V=np.full(4, 0.01))
    check_texts(figure, "tradeoff")
    for ax, law in zip(figure.axes, (lambda x: 0.2 + 0.01 / x, lambda x: 0.05 + 0.02 * x), strict=True):
        fit = next(line for line in ax.lines if len(line.get_xdata()) == 100)
        np.testing.assert_allclose(fit.get_ydata(), law(fit.get_xdata()), rtol=1e-9)
    check_texts(tradeoff(v[:2], v[:2], v[:2]), "two points have no fit")


@pytest.mark.parametrize(("tau", "words"), [(-0.8, "τ = −0.80"), (None, "not defined"), (float("nan"), "not defined")])
def test_the_ranking_names_every_point_and_its_tau(tau, words):
    labels = ["r = 1", "r = 2", "r = 4", "r = 8", "r = 16"]
    figure = scatter_rank([0.9, 0.5, 0.4, 0.45, 0.8], [70, 80, 83, 82, 76], labels, tau, chosen="r = 4")
    check_texts(figure, "rank")
    ax = figure.axes[0]
    assert words in ax.get_title(loc="left")
    assert {text.get_text() for text in ax.texts} >= set(labels)


def test_the_heat_table_writes_its_numbers():
    figure = heat(np.array([[1.0, 2.25, np.nan], [4.0, 5.5, 6.0]]), ["0.1 s", "0.2 s"], ["1", "2", "4"], "Accuracy (%)")
    check_texts(figure, "heat")
    assert [text.get_text() for text in figure.axes[0].texts] == ["1.0", "2.2", "–", "4.0", "5.5", "6.0"]
    check_texts(heat(np.full((1, 2), np.nan), ["a"], ["b", "c"], "Accuracy (%)"), "nothing known")


def test_data_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 2\), but there are 2 rows and 2 columns"):
        heat(np.zeros((1, 2)), ["a", "b"], ["c", "d"], "x")
    with pytest.raises(ValueError, match="equally long: 2, 1, 2"):
        scatter_rank([1.0, 2.0], [1.0], ["a", "b"], 0.0)
    with pytest.raises(ValueError, match="at least one point"):
        frontier([], 1.0, "Accuracy (%)")
