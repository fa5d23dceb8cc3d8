"""The report of a comparison: reductions by hand, figures that stay legible with many arms, odd folders."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysoft.errors import ConfigError, RaysoftError
from raysoft.quantities import Quantity
from raysoft.report import draw_folders, style, write_comparison_report
from raysoft.report.comparison.data import Trace, cdf, held, kept_by_gain, mean_curve, pareto_front, trace
from raysoft.report.comparison.file import read_comparison
from raysoft.report.comparison.html import load_runs
from raysoft.report.comparison.panels import parts
from raysoft.report.labels import ink
from raysoft.rundir.reading import read_run
from tests.comparison_folders import make_comparison, read, write
from tests.figure_checks import Page, check_texts
from tests.run_folders import make_run

FIGURES = {
    "accuracy_rounds",
    "accuracy_seconds",
    "accuracy_mb",
    "accuracy_joules",
    "difference_accuracy",
    "pareto_accuracy_mb",
    "pareto_accuracy_latency",
    "pareto_accuracy_joules",
    "time_to_seconds",
    "time_to_mb",
    "latency_cdf",
    "recovered_gap",
    "worst10_clients",
    "kept_by_gain",
}
TEXT_FIGURES = {name.replace("accuracy", "bits_per_byte") for name in FIGURES if "accuracy" in name}


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """Pictures of fewer dots: most of these tests ask for something else, and dots cost time."""
    monkeypatch.setattr("raysoft.report.comparison.html.DPI", 60)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("comparisons")


@pytest.fixture(scope="module")
def three(root):
    return make_comparison(root / "three", arms=3, seeds=3, rounds=4, text=True)


@pytest.fixture(scope="module")
def many(root):
    return make_comparison(root / "many", arms=13, seeds=2, rounds=3)


@pytest.fixture(scope="module")
def one(root):
    return make_comparison(root / "one", arms=1, seeds=1, rounds=2)


def copy(folder: Path, to: Path, **changes) -> Path:
    """A comparison of the same runs; `changes` replace top-level keys."""
    tree = read(folder)
    for arm in tree["arms"]:
        for run in arm["runs"]:
            run["folder"] = str(folder / run["folder"])
    write(to, tree | changes)
    return to


def series(seed=0, costs=None, accuracy=(), gain=(), kept=()):
    costs = {
        name: np.array((costs or {}).get(name, range(len(accuracy))), dtype=float)
        for name in ("rounds", "seconds", "mb", "joules")
    }
    values = {"accuracy": np.array(accuracy, dtype=float), "bits_per_byte": np.full(len(accuracy), np.nan)}
    return Trace(seed, costs, values, np.array([1.0]), None, np.array(gain, dtype=float), np.array(kept, dtype=float))


# --------------------------------------------------------------------------------------------------------- reductions


def test_held_values_by_hand():
    x, y = np.array([0.0, 1.0, 2.0, 2.0, 5.0]), np.array([0.3, np.nan, 0.5, 0.6, 0.9])
    grid = np.array([-0.1, 0.0, 1.9, 2.0, 4.99, 5.0, 9.0])
    np.testing.assert_array_equal(held(x, y, grid), [np.nan, 0.3, 0.3, 0.6, 0.6, 0.9, 0.9])
    assert np.isnan(held(x, np.full(5, np.nan), grid)).all()


def test_mean_curve_over_rounds_by_hand():
    seeds = [series(0, accuracy=[0.2, 0.4, 0.8]), series(1, accuracy=[0.2, 0.6, np.nan, 0.7])]
    curve = mean_curve("arm", seeds, "rounds", "accuracy")
    assert curve.x_P.tolist() == [0, 1, 2]  # the first seed ends at 2; the second was not evaluated there
    np.testing.assert_allclose(curve.mean_P, [0.2, 0.5, 0.7])
    std = math.sqrt(2) * np.array([0.0, 0.1, 0.1])  # ddof 1 of two values: |a - b| / sqrt(2)
    np.testing.assert_allclose(curve.high_P - curve.mean_P, std, atol=1e-12)
    np.testing.assert_allclose(curve.mean_P - curve.low_P, std, atol=1e-12)
    assert curve.seeds == 2


def test_mean_curve_over_a_cost_ends_where_the_cheapest_seed_ends_and_extrapolates_nothing():
    seeds = [series(0, {"mb": [0, 1, 2]}, [0.1, 0.5, 0.9]), series(1, {"mb": [0, 3, 8]}, [0.1, 0.7, 1.0])]
    linear = mean_curve("arm", seeds, "mb", "accuracy")
    assert (linear.x_P[0], linear.x_P[-1]) == (0.0, 2.0)
    assert linear.mean_P[0] == pytest.approx(0.1)
    assert linear.mean_P[-1] == pytest.approx((0.9 + 0.1) / 2)  # the second still holds its base at 2 MB
    log = mean_curve("arm", seeds, "mb", "accuracy", log=True)
    assert log.x_P[0] > 0
    assert log.x_P[-1] == 2.0


def test_one_seed_has_no_spread_and_no_evaluation_no_curve():
    assert np.isnan(mean_curve("arm", [series(0, accuracy=[0.1, 0.2])], "rounds", "accuracy").low_P).all()
    assert mean_curve("arm", [series(0, accuracy=[0.1, 0.2])], "rounds", "bits_per_byte") is None
    assert mean_curve("arm", [series(0, accuracy=[0.1])], "rounds", "accuracy") is None
    assert mean_curve("arm", [series(0, {"mb": [0, 0]}, [0.1, 0.2])], "mb", "accuracy") is None  # nothing sent
    assert mean_curve("arm", [], "rounds", "accuracy") is None


coordinates = st.integers(0, 6).map(float)


@given(st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=12), st.booleans())
@settings(max_examples=200, deadline=None)
def test_the_pareto_front_equals_its_definition(points, lower):
    sign = -1 if lower else 1
    cost, value = [p[0] for p in points], [p[1] for p in points]
    front = pareto_front(cost, value, lower)

    def beaten(i):
        return any(
            cost[j] <= cost[i] and sign * value[j] >= sign * value[i] and (cost[j], value[j]) != (cost[i], value[i])
            for j in range(len(points))
        )

    assert {(cost[i], value[i]) for i in front} == {points[i] for i in range(len(points)) if not beaten(i)}
    assert all(cost[a] < cost[b] and sign * value[a] < sign * value[b] for a, b in pairwise(front))


def test_cdf_by_hand():
    x, y = cdf(np.array([3.0, 1.0, 2.0, 2.0]))
    assert x.tolist() == [1, 1, 2, 2, 3]
    assert y.tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_kept_by_gain_by_hand():
    seeds = [series(0, gain=[-100, -80], kept=[0.1, 0.9]), series(1, gain=[-110, -90], kept=[0.3, 0.5])]
    curve = kept_by_gain("arm", seeds, groups=2)
    assert curve.x_P.tolist() == [-105, -85]
    np.testing.assert_allclose(curve.mean_P, [0.2, 0.7])
    assert kept_by_gain("arm", [series(gain=[-100, -80], kept=[1.0, 1.0])]) is None  # everybody keeps everything
    assert kept_by_gain("arm", []) is None


def test_a_trace_sums_up_what_was_spent(tmp_path):
    run = read_run(make_run(tmp_path / "run", rounds=4, clients=20, cohort=5))
    one = trace(run, seed=7)
    assert one.seed == 7
    assert one.costs["joules"][-1] == pytest.approx(sum(row["energy_j"] for row in run.records))
    assert one.costs["mb"][-1] == pytest.approx(sum(row["uplink_bits"] for row in run.records) / 8e6)
    assert len(one.latency_s_R) == 4  # the base is no round
    assert one.budget_s == 0.22


@pytest.mark.parametrize("colour", [*style.COLOURS, style.GREY, "#ffffff"])
def test_ink_can_be_read_on_white(colour):
    rgb = np.array([int(ink(colour)[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    assert 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05) >= 4.45  # rounded to 8 bits a channel


@pytest.mark.parametrize(
    ("mean", "std", "factor", "decimals", "text"),
    [
        (0.8612, 0.008, 100.0, 2, "86.12 ± 0.80"),
        (0.8612, 0.012, 100.0, 2, "86.1 ± 1.2"),
        (0.8612, 0.12, 100.0, 2, "86 ± 12"),
        (0.8612, None, 100.0, 2, "86.12"),
        (2.591, 0.0, 1.0, 4, "2.591"),
        (2.591, 1e-9, 1.0, 4, "2.5910 ± 0.0000"),
        (None, None, 1.0, 2, "–"),
    ],
)
def test_means_are_written_with_the_figures_that_their_spread_deserves(mean, std, factor, decimals, text):
    assert Quantity("x", "X", (), factor=factor, digits=decimals - 2).cell(mean, std) == text


# ------------------------------------------------------------------------------------------------------------ figures


@pytest.mark.parametrize(
    ("name", "expected"),
    [("three", FIGURES | TEXT_FIGURES), ("many", FIGURES), ("one", FIGURES - {"difference_accuracy"})],
)
def test_every_figure_is_drawn_and_its_texts_can_be_read(name, expected, request):
    folder = request.getfixturevalue(name)
    file = read_comparison(folder)
    seen = set()
    with style.settings("column"):
        for part in parts(file, load_runs(folder, file).traces):
            assert part.caption.endswith(".")
            assert any(char.isdigit() for char in part.caption)
            for figure_name, draw in part.drawings.items():
                figure = draw()
                seen.add(figure_name)
                assert figure.get_figwidth() == style.COLUMN_IN
                check_texts(figure, figure_name)
    assert seen == expected


def test_the_forest_is_sorted_and_marks_the_margin(three):
    file = read_comparison(three)
    part = next(part for part in parts(file, {}) if part.name == "difference_accuracy")
    with style.settings():
        ax = part.drawings["difference_accuracy"]().axes[0]
    rows = [tick.get_text() for tick in ax.get_yticklabels()]
    value = {pair.arm: pair.difference for pair in file.pairs if pair.metric == "accuracy"}
    assert rows == sorted(rows, key=value.get)  # best on top
    assert sorted(line.get_xdata()[0] for line in ax.lines[-2:]) == pytest.approx([-1.0, 0.0])


def test_curves_show_the_means_of_the_runs(three):
    file = read_comparison(three)
    loaded = load_runs(three, file)
    part = next(part for part in parts(file, loaded.traces) if part.name == "accuracy")
    with style.settings():
        line = part.drawings["accuracy_rounds"]().axes[0].lines[0]
    runs = [read_run(three / run.folder) for run in file.arms[0].runs]
    mean = np.mean([run.column("accuracy") for run in runs], axis=0)
    np.testing.assert_allclose(line.get_ydata(), 100 * mean)


# --------------------------------------------------------------------------------------------------------------- page


def test_the_report_is_written_whole(three):
    target = write_comparison_report(three)
    assert target == three / "report.html"
    assert {path.stem for path in (three / "figures").iterdir()} == FIGURES | TEXT_FIGURES
    page = Page(target.read_text(encoding="utf-8"))
    assert len(page.all("img")) == len(FIGURES | TEXT_FIGURES)
    assert all(ref.startswith(("data:", "#", "figures/")) for ref in page.references)
    assert {ref[1:] for ref in page.references if ref.startswith("#")} <= {
        attrs["id"] for _, attrs in page.tags if "id" in attrs
    }
    file = read_comparison(three)
    mean = 100 * file.arms[1].mean.final_accuracy
    assert f"{mean:.2f} ± " in page.text
    for words in ("soft-plus", "3 seeds each", "reference: ideal", "margin of 1 point.", "Rayleigh"):
        assert words in page.text, words


def test_the_same_comparison_gives_the_same_bytes(one):
    first = write_comparison_report(one).read_bytes()
    assert write_comparison_report(one).read_bytes() == first


def test_figures_that_no_longer_exist_are_removed(one):
    (one / "figures").mkdir(exist_ok=True)
    (one / "figures" / "difference_accuracy.png").write_bytes(b"old")
    write_comparison_report(one)
    assert not (one / "figures" / "difference_accuracy.png").exists()


def test_missing_and_damaged_runs_are_named_and_the_rest_is_drawn(three, tmp_path):
    folder = copy(three, tmp_path / "gone", pairs=[], time_to=[])
    tree = read(folder)
    tree["arms"][1]["runs"][0]["folder"] = "runs/not-there"
    damaged = make_run(tmp_path / "gone" / "damaged", rounds=2, detail=False)
    (damaged / "rounds.jsonl").write_text("{}\n{}\n")
    tree["arms"][2]["runs"][2]["folder"] = "damaged"
    write(folder, tree)
    page = Page(write_comparison_report(folder).read_text(encoding="utf-8"))
    assert "soft, seed 0: not in the curves" in page.text
    assert "not-there: no such run folder" in page.text
    assert "soft-plus, seed 2: not in the curves" in page.text
    assert (folder / "figures" / "accuracy_mb.png").exists()


def test_without_any_run_folder_the_table_and_its_figures_remain(three, tmp_path):
    folder = tmp_path / "alone"
    write(folder, read(three) | {"name": "alone"})  # the same relative paths, where nothing is
    page = Page(write_comparison_report(folder).read_text(encoding="utf-8"))
    assert page.text.count("no such run folder") == 9
    names = {path.stem for path in (folder / "figures").iterdir()}
    runs_only = {f"{m}_{a}" for m in ("accuracy", "bits_per_byte") for a in ("rounds", "seconds", "mb", "joules")}
    assert names == (FIGURES | TEXT_FIGURES) - runs_only - {"latency_cdf", "kept_by_gain"}


def test_nulls_everywhere(three, tmp_path):
    tree = read(three)
    for arm in tree["arms"]:
        for part in [arm["mean"], arm["std"], *arm["runs"]]:
            for key in part:
                if key not in ("seed", "folder"):
                    part[key] = None
    for row in [*tree["pairs"], *tree["time_to"]]:
        for key in row:
            if key not in ("arm", "metric", "seeds", "target", "seeds_reached"):
                row[key] = None
    folder = tmp_path / "nulls"
    write(folder, tree)
    page = Page(write_comparison_report(folder).read_text(encoding="utf-8"))
    assert page.all("img") == []
    assert "–" in page.text


@pytest.mark.parametrize("changes", [{"pairs": [], "time_to": [], "margin": 0.0}, {"equal": "bits"}])
def test_optional_parts(one, tmp_path, changes):
    page = Page(write_comparison_report(copy(one, tmp_path / "part", **changes)).read_text(encoding="utf-8"))
    assert ("equal uplink bits" in page.text) == ("equal" in changes)


def test_labels_cannot_break_the_page_or_a_figure(tmp_path):
    labels = ["<script>alert(1)</script>", "_$x^2$ %d {0}", "日本 " + "x" * 200]
    folder = make_comparison(tmp_path / "odd", arms=3, seeds=1, rounds=2, labels=labels)
    page = Page(write_comparison_report(folder).read_text(encoding="utf-8"))
    assert page.all("script") == []
    assert labels[0] in page.text
    assert len(page.all("img")) == len(FIGURES)


def test_arms_that_send_nothing_or_equal_values_can_be_drawn(one, tmp_path):
    folder = make_comparison(tmp_path / "zero", arms=3, seeds=2, rounds=2)
    tree = read(folder)
    for arm in tree["arms"]:
        for part in [arm["mean"], *arm["runs"]]:
            part |= {"uplink_mb": 0.0, "final_accuracy": 0.5, "recovered_gap": 0.0, "mean_latency_s": 0.0}
    write(folder, tree)
    write_comparison_report(folder)
    assert (folder / "figures" / "pareto_accuracy_mb.png").exists()


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.update(format=2), "format"),
        (lambda t: t.update(arms=[]), "arms"),
        (lambda t: t.pop("margin"), "margin: Field required"),
        (lambda t: t.update(reference="nobody"), "reference: 'nobody' is not one of the arms ideal"),
        (lambda t: t["arms"].append(t["arms"][0]), "the label 'ideal' is used twice"),
        (lambda t: t["arms"][0]["runs"][0].update(uplink_mb="much"), "arms.0.runs.0.uplink_mb"),
        (lambda t: t["arms"][0]["runs"][0].update(uplink_mb=1e300), "arms.0.runs.0.uplink_mb"),
        (lambda t: t.update(equal="kilos"), "equal"),
        (lambda t: t["time_to"][0].update(arm="nobody"), "time_to: 'nobody' is not one of the arms"),
    ],
)
def test_a_wrong_file_is_named_with_its_field(one, tmp_path, change, words):
    tree = read(one)
    change(tree)
    write(tmp_path / "bad", tree)
    with pytest.raises(RaysoftError) as caught:
        write_comparison_report(tmp_path / "bad")
    assert "comparison.json" in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": NaN}', "\xff"])
def test_no_json_is_one_sentence(tmp_path, text):
    (tmp_path / "comparison.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(RaysoftError, match=r"comparison\.json") as caught:
        write_comparison_report(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_comparison(tmp_path):
    with pytest.raises(RaysoftError, match="no such comparison folder"):
        write_comparison_report(tmp_path / "nowhere")
    with pytest.raises(RaysoftError, match=r"missing, so .* is not a comparison folder"):
        write_comparison_report(tmp_path)


def test_report_draws_whatever_folder_it_is_given(one, tmp_path):
    run = make_run(tmp_path / "run", rounds=2, detail=False)
    assert draw_folders([one]) == one / "report.html"
    assert draw_folders([run]) == run / "report.html"
    assert draw_folders([run, run], tmp_path / "both.html") == tmp_path / "both.html"
    with pytest.raises(ConfigError, match="is a comparison folder; give it alone"):
        draw_folders([run, one])
    with pytest.raises(ConfigError, match="written into its folder"):
        draw_folders([one], tmp_path / "elsewhere.html")


def test_the_synthetic_file_is_strict_json(three):
    json.loads((three / "comparison.json").read_text(), parse_constant=pytest.fail)
