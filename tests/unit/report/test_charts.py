"""Figures as files: numbers in the CSV are those of the records and of the artists, files are the same every time."""

from __future__ import annotations

import csv
import re
import zlib
from io import BytesIO, StringIO

import numpy as np
import pytest
from matplotlib import colors
from PIL import Image

from raysoft.errors import ConfigError
from raysoft.report import Wish, draw_folders, style, write_report
from raysoft.report.chart import COLUMNS, line, note
from raysoft.report.page import picture_of
from raysoft.report.run.figures import DRAWINGS
from raysoft.report.run.learned import singular_values
from raysoft.report.run.phases import client_phases, joules_split, seconds_split, typical_round
from raysoft.report.run.radio import snrs_db, standing
from raysoft.rundir.reading import read_run
from tests.comparison_folders import make_comparison
from tests.figure_checks import Page
from tests.run_folders import add_adapter, evaluation_of, make_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    add_adapter(make_run(path, seed=3, rounds=12, evaluation=evaluation_of()))
    return path


def rows_of(text):
    return list(csv.DictReader(StringIO(text)))


def chart(folder, name, width="page"):
    drawing = next(one for one in DRAWINGS if one.name == name)
    with style.settings(width):
        figure = drawing.draw([read_run(folder)])
        figure.draw_without_rendering()
    return figure


def series(folder, name, label, panel="1"):
    rows = [row for row in rows_of(chart(folder, name).csv()) if row["series"] == label and row["panel"] == panel]
    return [float(row["x"]) for row in rows], [float(row["y"]) for row in rows]


# ------------------------------------------------------------------------------------------------------------- the CSV


def test_the_csv_of_the_progress_equals_the_records(folder):
    run = read_run(folder)
    x, y = series(folder, "accuracy", "run")
    assert x == run.column("round").tolist()
    assert y == (100 * run.column("accuracy")).tolist()
    assert series(folder, "accuracy", "held-out", "2")[1] == run.column("loss").tolist()
    assert series(folder, "accuracy", "training", "2")[1] == run.column("train_loss")[1:].tolist()
    assert series(folder, "latency", "each round")[1] == run.column("round_latency_s")[1:].tolist()


def test_every_line_that_is_drawn_stands_in_the_csv(folder):
    """Lines of data: those with more than two points, or a name."""
    for drawing in DRAWINGS:
        with style.settings():
            figure = drawing.draw([read_run(folder)])
        if figure is None:
            continue
        noted = [(one.ax, [one.x, one.y]) for one in figure.noted]
        lines = [(ax, artist) for ax in figure.axes for artist in ax.lines if len(artist.get_xdata()) > 2]
        for ax, artist in lines:
            x, y = (np.asarray(data, dtype=float) for data in artist.get_data())
            found = [one for where, one in noted if where is ax and len(one[0]) >= len(x)]
            assert any(
                np.isin(x, np.asarray(one[0], float)).all() and np.isin(y, np.asarray(one[1], float)).all()
                for one in found
                if all(isinstance(value, (int, float)) for value in [*one[0], *one[1]])
            ), drawing.name
        assert {row[0] for row in figure.rows()} == set(range(1, len({one.ax for one in figure.noted}) + 1))


def test_the_bars_of_a_timeline_are_those_of_the_csv(folder):
    figure = chart(folder, "timeline")
    drawn = np.array(sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in figure.axes[0].patches))
    rows = rows_of(figure.csv())
    np.testing.assert_allclose(drawn, sorted((float(row["x_low"]), float(row["x_high"])) for row in rows))
    by_client = {}
    for row in rows:
        by_client.setdefault(row["y"], []).append(float(row["x"]))
    run = read_run(folder)
    number = typical_round(client_phases(run))
    for spent in by_client.values():
        assert sum(spent) == pytest.approx(run.column("round_latency_s")[number], rel=1e-4)


def test_the_csv_of_the_matrices_holds_the_counts(folder):
    told = evaluation_of()
    labels = rows_of(chart(folder, "labels").csv())
    value = {(row["x"], row["y"]): float(row["value"]) for row in labels if row["panel"] == "2"}
    counts = told["clients"]["labels"]
    assert value == {(f"client {k}", str(c)): counts[k, c] for k in range(100) for c in range(10)}
    shares = {(row["y"], row["x"]): float(row["value"]) for row in rows_of(chart(folder, "confusion").csv())}
    whole = told["confusion"].sum(axis=1)
    assert shares == {
        (str(i), str(j)): pytest.approx(100 * told["confusion"][i, j] / whole[i]) for i in range(10) for j in range(10)
    }
    _, accuracy = series(folder, "client_accuracy", "run")
    assert accuracy == pytest.approx(sorted(100 * told["clients"]["accuracy"]))


def test_names_of_axes_and_strange_texts_in_the_csv():
    with style.settings():
        figure, axes = style.new_figure(2.0, 2, 1, sharex=True)
        line(axes[0], 'a "$b$", c', [1.0, 2.0], np.array([0.1, np.nan]))
        note(axes[1], ["p", "q"], ["one", "two"], [1, 2], value=[None, 0.5], value_name="weight")
        axes[0].set_ylabel("Loss\n(nats)")
        axes[1].set(xlabel="Round", ylabel="Queue (s)")
    text = figure.csv()
    assert text.splitlines()[0].split(",") == [
        name for name in COLUMNS if name not in (*COLUMNS[6:10], "arm", "seed", "round")
    ]
    rows = rows_of(text)
    assert rows[0] == {
        "panel": "1", "series": 'a "$b$", c', "x_name": "Round", "x": "1.0", "y_name": "Loss (nats)", "y": "0.1",
        "value_name": "", "value": "",
    }  # fmt: skip
    assert rows[1]["y"] == ""
    assert [(row["series"], row["x"], row["value"]) for row in rows[2:]] == [("p", "one", ""), ("q", "two", "0.5")]


# ------------------------------------------------------------------------------------------------------- reductions


def test_phases_add_up_and_follow_the_records(folder):
    run = read_run(folder)
    phases = client_phases(run)
    clients = run.records[4]["metrics"]["clients"]
    mine = phases.seconds_N5[phases.round_N == 4]
    rate = run.config["channel"].get("control_rate_bps", 1e6)
    for k in range(len(clients["id"])):
        compute, latency = clients["compute_s"][k], clients["latency_s"][k]
        control = 500 / rate
        sends = clients["status"][k] != "outage"
        wanted = [0.0, compute, control, latency - compute - control if sends else 0.0]
        assert mine[k, :4] == pytest.approx(wanted, abs=1e-9)
    assert mine.sum(axis=1) == pytest.approx(run.records[4]["round_latency_s"], rel=2e-5)
    assert sum(seconds_split(run).values()) == pytest.approx(run.column("round_latency_s")[1:].mean(), rel=2e-5)
    assert sum(joules_split(run).values()) == pytest.approx(run.column("energy_j").sum())


def test_the_singular_values_are_those_of_the_product(folder):
    products = add_adapter(folder)
    found = singular_values(read_run(folder))
    assert set(found) == set(products)
    for name, product in products.items():
        whole = np.linalg.svd(product.astype(float), compute_uv=False)
        np.testing.assert_allclose(found[name], whole[: len(found[name])], rtol=1e-5, atol=1e-6)


def test_the_snr_is_that_of_the_radio_table(folder):
    run = read_run(folder)
    share, whole = snrs_db(run)
    clients = run.records[1]["metrics"]["clients"]
    k = clients["status"].index("ok")
    sent = sum(status == "ok" for status in clients["status"][:k])
    noise_dbm_per_hz = -174 + 7 + 3  # with noise figure and interference margin
    received_dbm = 20 + clients["gain_db"][k]
    assert share[sent] == pytest.approx(received_dbm - noise_dbm_per_hz - 10 * np.log10(clients["bandwidth_hz"][k]))
    assert whole[sent] == pytest.approx(received_dbm - noise_dbm_per_hz - 60)


def test_clients_stand_where_the_channel_puts_them(folder):
    here = standing(read_run(folder))
    distance = np.hypot(here.x_m_C, here.y_m_C)
    assert ((distance >= 35) & (distance <= 250)).all()
    assert len(here.id_C) == len(set(here.id_C.tolist()))


@pytest.mark.parametrize("channel", [{"name": "of-another-package"}, {"name": "rayleigh", "bandwidth_hz": "wide"}])
def test_no_position_and_no_snr_without_the_channel(folder, channel):
    run = read_run(folder)
    run.config["channel"] = channel
    assert snrs_db(run) is None
    assert standing(run) is None


def test_an_evaluation_of_an_earlier_state_is_not_shown(tmp_path):
    path = make_run(tmp_path / "run", rounds=3, evaluation=evaluation_of())
    assert read_run(path).evaluation["rounds"] == 3
    text = (path / "evaluation.json").read_text().replace('"rounds": 3', '"rounds": 2')
    (path / "evaluation.json").write_text(text)
    assert read_run(path).evaluation == {}
    (path / "evaluation.json").write_text("{")
    assert any("evaluation.json" in remark for remark in read_run(path).notes)
    write_report(path)
    assert not (path / "figures" / "labels.png").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"clients": None},
        pytest.param({"clients": {"id": [1, 2], "labels": [[1], [2, 3]], "accuracy": "x"}}, marks=pytest.mark.slow),
        pytest.param({"classes": None}, marks=pytest.mark.slow),
        {"classes": ["a"]},
        {"confusion": [[None, 1], [2, 3]]},
    ],
)
def test_odd_evaluations_draw_no_figure_but_a_report(tmp_path, change):
    path = make_run(tmp_path / "run", rounds=2, evaluation=evaluation_of() | change)
    assert write_report(path).exists()
    (name,) = change
    gone = {"clients": ("labels", "client_accuracy"), "classes": ("labels", "confusion"), "confusion": ("confusion",)}
    for figure in gone[name]:
        assert not (path / "figures" / f"{figure}.png").exists()


# ------------------------------------------------------------------------------------------------------------ the files


def simple(width="page"):
    with style.settings(width):
        figure, (ax,) = style.new_figure(2.0)
        line(ax, "one", [0.0, 1.0], [0.0, 1.0])
        ax.set(xlabel="Round", ylabel="Accuracy (%)")
        return picture_of(figure, formats=("png", "svg", "pdf", "csv"))


@pytest.mark.parametrize(("width", "inches"), [("column", 3.5), ("page", 7.16)])
def test_every_format_is_of_that_width_and_undated(width, inches):
    files = simple(width).files
    assert files == simple(width).files  # the same bytes
    image = Image.open(BytesIO(files["png"]))
    assert image.width == pytest.approx(inches * style.DPI, abs=1)
    svg = files["svg"].decode()
    assert float(re.search(r'width="([\d.]+)pt"', svg)[1]) == pytest.approx(72 * inches)
    assert ">Accuracy (%)</text>" in svg
    assert not re.search(r"<dc:date>|20\d\d-\d\d-\d\d", svg)
    pdf = files["pdf"]
    assert not re.search(rb"CreationDate|ModDate|Producer", pdf)
    box = re.search(rb"/MediaBox \[ ([\d. ]+) \]", pdf)[1].split()
    assert float(box[2]) == pytest.approx(72 * inches)


def test_fonts_are_embedded_as_truetype():
    pdf = simple().files["pdf"]
    streams = [zlib.decompress(one) for one in re.findall(rb"stream\r?\n(x.*?)\r?\nendstream", pdf, re.DOTALL)]
    text = pdf + b"".join(streams)
    assert b"/FontFile2" in text  # TrueType
    assert b"/Subtype /Type3" not in text
    assert b"/CIDFontType2" in text or b"/Subtype /TrueType" in text


def test_the_configuration_and_the_command_choose_the_files(tmp_path):
    path = make_run(tmp_path / "run", rounds=2, config={"report": {"formats": ["svg"], "width": "column"}})
    target = write_report(path)
    assert {item.suffix for item in (path / "figures").iterdir()} == {".svg"}
    assert ">SVG</a>" in target.read_text()
    assert "--in:3.5" in target.read_text()
    write_report(path, wish=Wish.of("pdf,csv", "page"))
    assert {item.suffix for item in (path / "figures").iterdir()} == {".pdf", ".csv"}
    page = Page(target.read_text())
    assert {ref for ref in page.references if not ref.startswith(("data:", "#"))} == {
        f"figures/{item.name}" for item in (path / "figures").iterdir()
    }


def test_an_older_run_without_the_section_has_the_defaults(tmp_path):
    path = make_run(tmp_path / "run", rounds=2)
    text = (path / "config.yaml").read_text()
    (path / "config.yaml").write_text(re.sub(r"\nreport:\n(  .*\n|- .*\n)*", "\n", text))
    assert "report" not in read_run(path).config
    write_report(path)
    assert {item.suffix for item in (path / "figures").iterdir()} == {".png", ".csv"}


def test_several_runs_have_files_where_they_are_asked_for(tmp_path):
    paths = [make_run(tmp_path / name, rounds=2, seed=seed) for seed, name in enumerate("ab")]
    target = write_report(paths)
    assert not (tmp_path / "comparison_figures").exists()
    assert target == write_report(paths, wish=Wish.of(["pdf"]))
    assert (tmp_path / "comparison_figures" / "accuracy.pdf").exists()
    assert 'href="comparison_figures/accuracy.pdf"' in target.read_text()


def test_a_comparison_draws_columns_unless_it_is_told(tmp_path):
    folder = make_comparison(tmp_path / "c", arms=2, seeds=1, rounds=2)
    assert "--in:3.5" in draw_folders([folder]).read_text()
    text = draw_folders([folder], wish=Wish.of("csv", "page")).read_text()
    assert "--in:7.16" in text
    assert {item.suffix for item in (folder / "figures").iterdir()} == {".csv"}


@pytest.mark.parametrize(
    ("formats", "width", "words"),
    [("png,gif", None, "--formats: must be some of png, svg, pdf, csv, got 'gif'"),
     ("", None, "--formats: must be some of png, svg, pdf, csv, got 'nothing'"),
     (None, "wide", "--width: must be column or page, got 'wide'")],
)  # fmt: skip
def test_wrong_wishes_are_refused_in_a_sentence(formats, width, words):
    with pytest.raises(ConfigError) as caught:
        Wish.of(formats, width)
    assert str(caught.value) == words


def test_areas_that_touch_are_apart_in_grey():
    """Neighbours in a stacked bar: another lightness, or a hatch."""
    from raysoft.report.run.spending import _LOOKS

    looks = list(_LOOKS.values())
    for place, (colour, hatch) in enumerate(looks):
        for other, other_hatch in looks[place + 1 :]:
            apart = abs(style.lightness(colour) - style.lightness(other))
            assert apart > 10 or hatch != other_hatch, (colour, other)
    assert all(colors.is_color_like(colour) for colour, _ in looks)
