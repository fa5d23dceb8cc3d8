"""Reports: reductions against brute force, figures that stay legible, HTML that needs nothing but itself."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysoft.errors import RaysoftError
from raysoft.report import closing_rows, style, write_report
from raysoft.report.run.closing import NOT_MEASURED, limits, radio_rows, settings_rows
from raysoft.report.run.data import ClientRounds, binned, by_rank, client_rounds, client_table, megabytes, running_mean
from raysoft.report.run.figures import DRAWINGS
from raysoft.report.run.html import draw_all
from raysoft.rundir.reading import Run, read_run
from tests.figure_checks import Page, check_texts
from tests.run_folders import add_adapter, evaluation_of, make_run, records

CLIENTS = {"clients", "served", "timeline", "split", "cell", "snr"}
ALL = {"accuracy", "latency", "bound"} | CLIENTS
MODEL = {"labels", "client_accuracy", "confusion", "spectrum"}
ALONE = {"timeline", "cell", "labels", "confusion"}  # of a single run


def whole(path):
    """A run with everything that a figure can show."""
    add_adapter(make_run(path, seed=3, rounds=12, evaluation=evaluation_of()))
    return path


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Runs of every shape, written once: name -> folder."""
    root = tmp_path_factory.mktemp("runs")
    return {
        "plain": make_run(root / "plain", seed=1),
        "whole": whole(root / "whole"),
        "text": make_run(root / "text", seed=2, text=True, rounds=12),
        "large": make_run(root / "large", clients=3000, cohort=600, rounds=6),
        "bare": make_run(root / "bare", detail=False, rounds=4),
        "base": make_run(root / "base", rounds=0),
        "short": make_run(root / "short", rounds=1),
    }


def run_with(records_list, **config):
    return Run(path=Path("x"), config=config, records=tuple(records_list), summary=None)


# --------------------------------------------------------------------------------------------------------- reductions


def client_rows(draw_ids, statuses):
    rng = np.random.default_rng(0)
    rows = []
    for number, (ids, status) in enumerate(zip(draw_ids, statuses, strict=True), start=1):
        size = len(ids)
        rows.append(
            {
                "round": number,
                "metrics": {
                    "clients": {
                        "id": ids,
                        "status": status,
                        "gain_db": rng.normal(-100, 8, size).tolist(),
                        "kept_fraction": rng.random(size).tolist(),
                        "bandwidth_hz": rng.random(size).tolist(),
                    }
                },
            }
        )
    return rows


cohorts = st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=8, unique=True), min_size=1, max_size=6)


@given(cohorts, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_client_table_equals_brute_force(ids, random):
    statuses = [[random.choice(["ok", "ok", "outage", "deadline"]) for _ in row] for row in ids]
    rows = client_rows(ids, statuses)
    table = client_table(client_rounds(run_with(rows)))
    flat = {}
    for row in rows:
        columns = row["metrics"]["clients"]
        for k, client in enumerate(columns["id"]):
            flat.setdefault(client, []).append({name: values[k] for name, values in columns.items()})
    assert sorted(table.id_C.tolist()) == sorted(flat)
    assert all(a <= b for a, b in pairwise(table.gain_db_C))
    for c, client in enumerate(table.id_C):
        seen = flat[int(client)]
        served = [item["kept_fraction"] for item in seen if item["status"] != "outage"]
        assert table.invited_C[c] == len(seen)
        assert table.delivered_C[c] == sum(item["status"] == "ok" for item in seen)
        assert table.outage_C[c] == sum(item["status"] == "outage" for item in seen)
        assert table.lost_C[c] == sum(item["status"] == "deadline" for item in seen)
        assert table.gain_db_C[c] == pytest.approx(np.mean([item["gain_db"] for item in seen]))
        if served:
            assert table.kept_mean_C[c] == pytest.approx(np.mean(served))
            assert (table.kept_low_C[c], table.kept_high_C[c]) == (min(served), max(served))
        else:
            assert np.isnan(table.kept_mean_C[c])


@given(cohorts, st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_a_band_over_the_clients_equals_brute_force(ids, groups):
    rows = client_rows(ids, [["ok"] * len(row) for row in ids])
    rounds = client_rounds(run_with(rows))
    table = client_table(rounds)
    band = by_rank(rounds, table, rounds.kept_fraction_N, groups)
    count = min(groups, len(table.id_C))
    inside = [[] for _ in range(count)]
    order = table.id_C.tolist()
    for row in rows:
        clients = row["metrics"]["clients"]
        for client, kept in zip(clients["id"], clients["kept_fraction"], strict=True):
            inside[order.index(client) * count // len(order)].append(kept)
    np.testing.assert_allclose(band.mean_G, [np.mean(values) for values in inside])
    np.testing.assert_allclose(band.low_G, [np.quantile(values, 0.1) for values in inside])
    np.testing.assert_allclose(band.high_G, [np.quantile(values, 0.9) for values in inside])
    np.testing.assert_allclose(band.place_G, [100 * (group + 0.5) / count for group in range(count)])


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60), st.integers(1, 20))
def test_binned_keeps_order_length_and_total(values, bins):
    out = binned(np.array(values), bins)
    assert len(out) == min(len(values), bins)
    if len(values) % bins == 0:
        assert out.mean() == pytest.approx(np.mean(values), abs=1e-6)
    assert min(values) - 1e-9 <= out.min() <= out.max() <= max(values) + 1e-9


def test_binned_ignores_what_was_not_measured():
    assert binned(np.array([1.0, np.nan, 3.0, 5.0]), 2).tolist() == [1.0, 4.0]
    assert np.isnan(binned(np.array([np.nan, np.nan, 3.0, 5.0]), 2)[0])


def test_running_mean_and_megabytes(folders):
    assert running_mean(np.array([1.0, 3.0, 8.0])).tolist() == [1.0, 2.0, 4.0]
    run = read_run(folders["plain"])
    assert megabytes(run)[-1] == pytest.approx(sum(row["uplink_bits"] for row in run.records) / 8 / 1e6)


@pytest.mark.parametrize(
    "clients", [None, [], {}, {"id": None}, {"id": []}, {"id": ["a"]}, {"kept_fraction": [1.0]}, "none", 7]
)
def test_unreadable_client_records_are_left_out(clients):
    assert client_rounds(run_with([{"round": 1, "metrics": {"clients": clients}}])) is None


def test_missing_short_and_strange_columns_become_nan():
    rounds = client_rounds(
        run_with(
            [
                {
                    "round": 1,
                    "metrics": {
                        "clients": {
                            "id": [3, 1],
                            "kept_fraction": [0.5],
                            "gain_db": [None, -90.0],
                            "bandwidth_hz": ["x", True],
                        }
                    },
                }
            ]
        )
    )
    assert isinstance(rounds, ClientRounds)
    assert np.isnan(rounds.kept_fraction_N).all()
    assert np.isnan(rounds.bandwidth_hz_N).all()
    assert np.isnan(rounds.latency_s_N).all()
    assert rounds.gain_db_N[1] == -90.0
    assert rounds.status_N.tolist() == ["ok", "ok"]


# ------------------------------------------------------------------------------------------------------------ figures


def drawn(paths, width="page"):
    """name -> figure, drawn and laid out."""
    runs = [read_run(path) for path in paths]
    out = {}
    with style.settings(width):
        for drawing in DRAWINGS:
            figure = drawing.draw(runs)
            if figure is not None:
                figure.draw_without_rendering()
                out[drawing.name] = figure
    return out


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain", ALL),
        ("whole", ALL | MODEL),
        ("text", ALL | {"bits_per_byte"}),
        ("large", ALL),
        ("bare", {"accuracy", "latency", "bound", "split"}),
        ("base", {"accuracy"}),
        ("short", ALL),
    ],
)
def test_a_figure_for_what_was_measured_and_none_for_the_rest(folders, name, expected):
    assert set(drawn([folders[name]])) == expected


@pytest.mark.parametrize("width", ["page", "column"])
@pytest.mark.parametrize(
    "names",
    [
        ["text"],
        ["whole", "text", "large", "bare"],
        *(pytest.param([name], marks=pytest.mark.slow) for name in ("whole", "large", "short")),
    ],
)
def test_every_text_can_be_read_inside_the_figure_and_touches_no_other(folders, names, width):
    for name, figure in drawn([folders[item] for item in names], width).items():
        assert figure.get_figwidth() in (style.WIDTHS_IN[width], style.COLUMN_IN)
        check_texts(figure, name)


def test_every_axis_says_what_it_shows(folders):
    for name, figure in drawn([folders["text"]]).items():
        shown = [ax for ax in figure.axes if ax.get_visible()]
        assert any(ax.get_xlabel() for ax in shown), name
        for ax in shown:
            has_neighbour = any(ax.get_shared_y_axes().joined(ax, other) for other in shown if other is not ax)
            assert ax.get_ylabel() or ax.get_title(loc="left") or has_neighbour, name


def test_units_are_on_the_axes(folders):
    labels = " ".join(
        label
        for figure in drawn([folders["plain"]]).values()
        for ax in figure.axes
        for label in (ax.get_xlabel(), ax.get_ylabel())
    )
    for unit in ("(%)", "(s)", "MB up)", "(kHz)", "(dB)", "(nats)", "(J)", "(m)"):
        assert unit in labels


def test_many_clients_are_grouped(folders):
    figures = drawn([folders["large"]])
    assert max(len(line.get_xdata()) for ax in figures["clients"].axes for line in ax.lines) <= 20
    assert len(figures["served"].axes[0].patches) <= 3 * 100
    assert len(figures["timeline"].axes[0].get_yticks()) == 30


def test_runs_differ_without_colour():
    looks = [style.Look.of(number) for number in range(6)]
    assert len({str(look.line) for look in looks}) == len({look.marker for look in looks}) == 6
    grey = sorted(style.lightness(look.colour) for look in looks)
    assert min(b - a for a, b in pairwise(grey)) > 10  # CIE L*: 2.3 is just noticeable side by side
    assert grey[-1] < 80  # and apart from the paper
    assert style.lightness("#777777") == pytest.approx(50.03, abs=0.01)


@pytest.mark.parametrize("count", [1, 6, 7, 13, 40])
def test_no_colour_is_given_twice(count):
    looks = [style.Look.of(number, count) for number in range(count)]
    assert len({look.colour for look in looks}) == count


def test_a_marker_is_a_point_that_was_measured():
    look = style.Look.of(0)
    assert look.line_style(style.FEW)["marker"] == "o"
    assert "marker" not in look.line_style(style.FEW + 1)


def test_colours_stay_apart_for_every_common_kind_of_colour_blindness():
    # Machado, Oliveira and Fernandes (2009), severity 1.0, on linear RGB; distance in CIE Lab, where 2.3 is just
    # noticeable. 10 between any two is several times that.
    machado = {
        "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
        "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
    }
    srgb = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in style.COLOURS])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    for kind, matrix in machado.items():
        lab = to_lab(np.clip(linear @ np.array(matrix).T, 0, 1))
        for a, b in combinations(range(len(style.COLOURS)), 2):
            assert np.linalg.norm(lab[a] - lab[b]) > 10, (kind, style.COLOURS[a], style.COLOURS[b])


def to_lab(linear):
    xyz = linear @ np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]).T
    t = xyz / np.array([0.9505, 1.0, 1.089])
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


@pytest.mark.parametrize("name", ["$x_1$", "_hidden", "a\nb", "", "x" * 200, "日本", "%d {0}"])
def test_any_name_can_be_a_label(name):
    label = style.plain(name)
    assert not label.startswith("_")
    assert len(label) <= 140
    with style.settings():
        figure, axes = style.new_figure(2.0)
        axes[0].plot([0, 1], label=label)
        style.legend_above(figure, axes[0])
        assert len(figure.legends[0].get_texts()) == 1
        if name == "$x_1$":
            assert label == r"\$x_1\$"


def test_drawing_leaves_matplotlib_as_it_was(folders):
    with matplotlib.rc_context({"font.size": 23.0, "axes.grid": False}):
        before = dict(matplotlib.rcParams)
        draw_all([read_run(folders["bare"])])
        assert dict(matplotlib.rcParams) == before


def test_a_report_loads_neither_torch_nor_ray_nor_pyplot(folders):
    code = (
        "import sys; from raysoft.report import write_report; write_report(sys.argv[1]); "
        "print([m for m in ('torch', 'ray', 'transformers', 'matplotlib.pyplot') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folders["short"])], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "[]"


# --------------------------------------------------------------------------------------------------------------- HTML


@pytest.fixture(scope="module")
def page(folders):
    return Page(write_report(folders["plain"]).read_text(encoding="utf-8"))


def test_the_page_needs_nothing_but_itself(folders, page):
    assert all(ref.startswith(("data:", "#", "figures/")) for ref in page.references)
    links = {ref for ref in page.references if ref.startswith("figures/")}
    assert links == {f"figures/{path.name}" for path in (folders["plain"] / "figures").iterdir()}
    assert page.all("script") == []
    text = (folders["plain"] / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import|https?://", re.sub(r'src="data:[^"]*"', "", text))
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv"))
    assert "default-src 'none'" in policy


def test_the_pictures_are_whole_and_described(page):
    images = page.all("img")
    assert len(images) == len(ALL)
    for image in images:
        data = base64.b64decode(image["src"].removeprefix("data:image/png;base64,"), validate=True)
        assert data.startswith(b"\x89PNG\r\n\x1a\n")
        assert data.endswith(b"IEND\xaeB`\x82")
        assert len(image["alt"]) > 40
        assert re.search(r"\d", image["alt"])  # its main numbers


def test_links_lead_somewhere_and_ids_are_unique(page):
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = [ref[1:] for ref in page.references if ref.startswith("#")]
    assert targets
    assert set(targets) <= set(ids)
    assert page.all("html")[0]["lang"] == "en"


def test_the_page_says_what_matters(page):
    for words in (
        "32.0 % →",
        "of the dense 32-bit uplink",
        "x the budget of 0.22 s",
        "payload_scale",
        "Rayleigh",
        "allocator.latency_budget_s",
        "outage",
    ):
        assert words in page.text, words


def test_figures_are_files_too_and_stale_ones_go(folders):
    stale = folders["bare"] / "figures" / "served.png"
    stale.parent.mkdir(exist_ok=True)
    stale.write_bytes(b"old")
    write_report(folders["bare"])
    names = {item.name for item in (folders["bare"] / "figures").iterdir()}
    kinds = ("accuracy", "latency", "bound", "split")
    assert names == {f"{name}.{kind}" for name in kinds for kind in ("png", "csv")}
    page = Page((folders["bare"] / "report.html").read_text(encoding="utf-8"))
    assert "Not measured in this run: kept fraction and bandwidth by client" in page.text.replace("\n", " ")


def test_the_same_run_gives_the_same_bytes(folders):
    first = write_report(folders["bare"]).read_bytes()
    assert write_report(folders["bare"]).read_bytes() == first


def test_names_cannot_break_out_of_the_page(tmp_path):
    evil = "<img src=x onerror=alert(1)>&\"'$title"
    config = {"data": {"task": "digits", "clients": 100, "path": "</table><script>alert(2)</script>"}}
    path = make_run(tmp_path / evil, rounds=2, config=config, detail=False)
    for folders_ in ([path], [path, make_run(tmp_path / "b" / evil, rounds=2, detail=False)]):
        page = Page(write_report(folders_).read_text(encoding="utf-8"))
        assert page.all("script") == []
        assert all(image["src"].startswith("data:") and "onerror" not in image for image in page.all("img"))
        assert evil in page.text
        assert "</table><script>alert(2)</script>" in page.text  # shown, as text


def test_a_comparison_overlays_runs_and_lists_their_differences(folders, tmp_path):
    target = write_report([folders["plain"], folders["text"], folders["bare"]], tmp_path / "all.html")
    assert target == tmp_path / "all.html"
    page = Page(target.read_text(encoding="utf-8"))
    heads = [attrs for attrs in page.all("th") if attrs.get("scope") == "col"]
    assert len(heads) == 3 * 4  # result, radio, settings: a name and three runs each
    assert len(page.all("img")) == len((ALL | {"bits_per_byte"}) - ALONE)
    settings_part = page.text.partition("Settings in which the runs differ")[2]
    assert "seed" in settings_part
    assert "train.lr" not in settings_part
    assert page.text.count("The server knows the channel gains exactly") == 1


def test_where_a_report_goes(folders, tmp_path):
    assert write_report([folders["base"], folders["base"]]).name == "comparison.html"
    assert write_report([folders["base"]], tmp_path / "new" / "folder") == tmp_path / "new" / "folder" / "report.html"
    with pytest.raises(RaysoftError, match="at least one"):
        write_report([])
    with pytest.raises(RaysoftError, match="no such run folder"):
        write_report(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(RaysoftError, match="cannot be written"):
        write_report([folders["base"]], tmp_path / "file" / "report.html")


def test_an_unfinished_run_still_has_a_report(tmp_path):
    path = make_run(tmp_path / "run", rounds=3, finished=False)
    text = (path / "rounds.jsonl").read_text()
    (path / "rounds.jsonl").write_text(text[:-30])
    page = Page(write_report(path).read_text(encoding="utf-8"))
    assert "half-written and ignored" in page.text
    assert "2 (not finished)" in page.text


def test_a_record_of_nothing_but_a_round_number_still_has_a_report(tmp_path):
    path = make_run(tmp_path / "run", rounds=1)
    (path / "rounds.jsonl").write_text('{"round":0}\n{"round":1,"metrics":{}}\n')
    (path / "summary.json").write_text("{}")
    page = Page(write_report(path).read_text(encoding="utf-8"))
    assert NOT_MEASURED in page.text
    assert page.all("img") == []


# ------------------------------------------------------------------------------------------------------------- tables


def test_closing_rows_are_the_numbers_of_the_records(folders):
    run = read_run(folders["plain"])
    rows = dict(closing_rows(run))
    expected = records(seed=1)
    mean, last = np.mean([row.accuracy for row in expected[-5:]]) * 100, expected[-1].accuracy * 100
    what = f"mean of the last 5 evaluations; the saved adapter: {last:.1f} %"
    assert rows["Accuracy, before and after"] == f"32.0 % → {mean:.1f} % ({what})"
    going_on = dict(closing_rows(replace(run, summary=None)))
    assert going_on["Accuracy, before and after"] == f"32.0 % → {last:.1f} % (the last evaluation)"
    assert going_on["Wall time"].endswith("in the rounds")
    assert rows["Wall time"].endswith("with start and loading")
    bits = sum(row.uplink_bits for row in expected)
    share = run.summary["metrics"]["uplink_share_of_dense32"]
    assert rows["Uplink"] == (
        f"{bits / 8e6:.4g} MB = {100 * share:.1f} % of the dense 32-bit uplink, "
        f"{200 * share:.1f} % of the dense uplink at the same value bits"
    )
    mean = np.mean([row.round_latency_s for row in expected[1:]])
    assert rows["Mean round latency"] == f"{mean:.4g} s = {mean / 0.22:.3f} x the budget of 0.22 s"
    arrived, lost = sum(row.participants for row in expected), sum(row.dropped for row in expected)
    assert rows["Updates that arrived"] == f"{arrived} of {arrived + lost} (outage {lost})"
    assert rows["Energy of all devices"] == "16 J"
    assert "Bits per byte, before and after" not in rows
    assert dict(closing_rows(read_run(folders["text"])))["Bits per byte, before and after"].startswith("2.900 → ")


def test_limits_name_scales_and_the_end_of_a_failed_run(folders):
    run = read_run(folders["plain"])
    assert any("4 times its size (payload_scale)" in item for item in limits(run))
    assert not any("compute_scale" in item for item in limits(run))
    failed = Run(run.path, {}, run.records, {"status": "failed", "metrics": {"error": "disk full"}})
    assert "The run ended early (failed): disk full" in limits(failed)


def test_limits_say_when_only_some_clients_were_recorded():
    row = {"round": 1, "participants": 9, "dropped": 1, "metrics": {"clients": {"id": [1, 2, 3]}}}
    assert any("3 of up to 10 clients" in item for item in limits(run_with([row])))


@pytest.mark.parametrize("radio", [None, [], "text", [["Fading"]], [["Fading", 1]], {"Fading": "none"}])
def test_the_radio_table_is_the_one_that_the_run_has_written(folders, radio):
    """A report needs no plug-in; where there is no such table, or no sound one, it shows the bare settings."""
    run = read_run(folders["plain"])
    assert ("Fading", "Rayleigh") in radio_rows(run)
    config = {**run.config, "channel": {"name": "underwater", "depth_m": 30.0}}
    assert radio_rows(replace(run, config=config)) == radio_rows(run)
    older = replace(run, config=config, environment={**run.environment, "radio": radio})
    assert ("channel.depth_m", "30") in radio_rows(older)


def test_settings_are_flat_and_complete(folders):
    rows = dict(settings_rows(read_run(folders["plain"])))
    assert rows["allocator.latency_budget_s"] == "0.22"
    assert rows["uplink.deadline_s"] == "none"
    assert rows["device.cpu_hz.low"] == "5e+08"
    assert rows["tracking.tensorboard"] == "true"


def test_a_few_large_values_do_not_flatten_the_rest():
    with style.settings():
        _, axes = style.new_figure(2.0, 1, 3)
        assert style.log_if_spread(axes[0], np.array([0.1, 0.2, 0.15, 4.0]))
        assert axes[0].get_yscale() == "log"
        assert not style.log_if_spread(axes[1], np.array([0.1, 0.2, 0.15, 0.4]))
        assert not style.log_if_spread(axes[2], np.array([0.0, 0.2, 0.15, 4.0]))  # zero has no place on it
        assert not style.log_if_spread(axes[2], np.array([np.nan]))
