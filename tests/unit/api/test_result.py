"""Results are read from folders: frames hold what the files hold, figures have labels and units, refusals are named."""

import json
import math

import numpy as np
import pytest
from matplotlib.text import Text

import raysoft
from raysoft.config import registry
from raysoft.errors import ConfigError, RaysoftError
from raysoft.rundir.reading import read_run
from tests.comparison_folders import make_comparison
from tests.run_folders import config_tree, make_run
from tests.sweep_folders import axis, write


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return raysoft.open(make_run(tmp_path_factory.mktemp("one") / "mine", rounds=8))


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    return raysoft.open(make_comparison(tmp_path_factory.mktemp("three") / "both", arms=3, seeds=2, rounds=6))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many") / "search"
    write(folder, [axis("rank", [1, 2, 4]), axis("codec", ["a", "b"])], [(r, c) for r in (1, 2, 4) for c in ("a", "b")])
    data = json.loads((folder / "results.json").read_text())
    data["trials"][0] |= {"folder": "trials/p0-s0"}
    best = data["best"]["point"]
    data["trials"][2 * best] |= {"folder": "trials/best"}
    (folder / "results.json").write_text(json.dumps(data))
    make_run(folder / "trials" / "p0-s0", rounds=3)
    make_run(folder / "trials" / "best", rounds=3, seed=1, config={"rounds": 3})
    return raysoft.open(folder)


def labels(figure):
    (ax,) = figure.axes
    return ax.get_xlabel(), ax.get_ylabel()


def lines(figure):
    return [line.get_xydata() for line in figure.axes[0].lines if len(line.get_xdata()) > 1]


# ------------------------------------------------------------------------------------------------------------ one run


def test_rounds_are_those_of_the_file(result):
    rows = [json.loads(line) for line in (result.folder / "rounds.jsonl").read_text().splitlines()]
    frame = result.rounds
    assert len(frame) == len(rows) == 9
    for name in ("round", "accuracy", "uplink_bits", "queue_s", "simulated_time_s"):
        wanted = [math.nan if row[name] is None else row[name] for row in rows]
        np.testing.assert_array_equal(frame[name].to_numpy(dtype=float), wanted)
    assert frame["round"].dtype.kind == frame["uplink_bits"].dtype.kind == "i"
    assert frame["train_loss"].dtype.kind == "f"
    assert np.isnan(frame["train_loss"][0])  # the base is not trained
    assert frame["penalty"].tolist()[1:] == [row["metrics"]["penalty"] for row in rows[1:]]
    assert frame["lost_outage"].tolist() == [row["drop_reasons"].get("outage", 0) for row in rows]
    assert not {"metrics", "clients", "drop_reasons"} & set(frame.columns)


def test_clients_have_a_row_for_each_round_of_each(result):
    frame = result.clients
    assert len(frame) == 8 * 20
    assert list(frame.columns)[:3] == ["round", "client", "status"]
    row = json.loads((result.folder / "rounds.jsonl").read_text().splitlines()[3])["metrics"]["clients"]
    third = frame[frame["round"] == 3]
    assert third.client.tolist() == row["id"]
    assert third.gain_db.tolist() == row["gain_db"]
    assert set(frame.status) <= {"ok", "outage"}


def test_a_run_without_client_records_has_an_empty_frame(tmp_path):
    found = raysoft.open(make_run(tmp_path / "run", rounds=2, detail=False))
    assert found.clients.empty
    assert {"round", "client", "kept_fraction"} <= set(found.clients.columns)


def test_summary_status_and_configuration(result):
    assert result.summary == json.loads((result.folder / "summary.json").read_text())
    assert result.status == "done"
    assert result.config == registry.resolve(config_tree())
    assert (result.name, result.task, result.split) == ("mine", "digits", "test")
    assert "done, 8 rounds, accuracy 0." in repr(result)
    page = result._repr_html_()
    assert "Mean round latency" in page
    assert "<script" not in page


def test_a_run_that_goes_on_is_what_is_there_so_far(tmp_path):
    found = raysoft.open(make_run(tmp_path / "run", rounds=3, finished=False))
    assert (found.status, found.summary, len(found.rounds), found.report) == ("unfinished", {}, 4, None)
    with pytest.raises(RaysoftError, match="holds no adapter; the run is unfinished"):
        _ = found.adapter


@pytest.mark.parametrize(
    ("x", "label", "last"),
    [
        ("rounds", "Round", lambda run: 8),
        ("seconds", "Simulated time (s)", lambda run: run.column("simulated_time_s")[-1]),
        ("mb", "Uplink (MB)", lambda run: run.column("uplink_bits").sum() / 8e6),
        ("joules", "Energy of all devices (J)", lambda run: run.column("energy_j").sum()),
    ],
)
def test_a_figure_has_the_numbers_in_the_units_of_its_labels(result, x, label, last):
    figure = result.plot("accuracy", x=x)
    assert labels(figure) == (label, "Accuracy (%)")
    (line,) = lines(figure)
    run = read_run(result.folder)
    assert line[-1] == pytest.approx([last(run), 100 * run.column("accuracy")[-1]])
    assert len(line) == 9


def test_what_the_base_has_not_is_not_drawn_at_round_0(result):
    (line,) = lines(result.plot("round_latency_s"))
    assert line[0, 0] == 1
    (line,) = lines(result.plot("loss"))
    assert line[0, 0] == 0


def test_a_metric_of_a_plug_in_is_drawn_by_its_name(result):
    figure = result.plot("penalty")
    assert labels(figure) == ("Round", "penalty")
    assert figure._repr_png_().startswith(b"\x89PNG")  # what a notebook shows


@pytest.mark.parametrize(
    ("metric", "x", "sentence"),
    [
        (
            "acuracy",
            "rounds",
            "metric: no round has a number 'acuracy', choose from accuracy, .*did you mean 'accuracy'",
        ),
        ("accuracy", "time", "x: must be one of rounds, seconds, mb, joules, got 'time'"),
        ("clients", "rounds", "metric: no round has a number 'clients'"),
    ],
)
def test_unknown_numbers_and_axes_are_refused(result, metric, x, sentence):
    with pytest.raises(ConfigError, match=sentence):
        result.plot(metric, x=x)


def test_a_line_of_one_point_is_none(tmp_path):
    found = raysoft.open(make_run(tmp_path / "run", rounds=0))
    with pytest.raises(RaysoftError, match="accuracy was measured in fewer than two rounds"):
        found.plot()


# ----------------------------------------------------------------------------------------------------- a comparison


def test_a_comparison_knows_its_runs(comparison):
    assert isinstance(comparison, raysoft.ComparisonResult)
    assert set(comparison.runs) == {(arm, seed) for arm in ("ideal", "soft", "soft-plus") for seed in (0, 1)}
    summary = comparison.summary
    assert len(summary) == 6
    one = summary[(summary.arm == "soft") & (summary.seed == 1)].final_accuracy.item()
    wanted = {arm["label"]: arm for arm in comparison.data["arms"]}["soft"]["runs"][1]["final_accuracy"]
    assert one == wanted
    assert (
        comparison.means.set_index("arm").final_accuracy["ideal"]
        == comparison.data["arms"][0]["mean"]["final_accuracy"]
    )
    assert list(comparison.rounds.columns)[:3] == ["arm", "seed", "round"]
    lengths = [len(run.data.records) for run in comparison.runs.values()]
    assert len(comparison.rounds) == sum(lengths) >= 6 * 5
    assert len(comparison.clients) == 10 * (sum(lengths) - 6)
    assert set(comparison.pairs.arm) == {"soft", "soft-plus"}
    assert comparison.config["soft"] == comparison.runs["soft", 0].config
    assert "ideal" in comparison._repr_html_()


def test_a_comparison_draws_means_over_seeds(comparison):
    figure = comparison.plot("accuracy", x="rounds")
    assert labels(figure) == ("Round", "Accuracy (%)")
    at_end = [comparison.runs["soft", seed].data.column("accuracy")[-1] for seed in (0, 1)]
    soft = next(line for line in lines(figure) if line[-1, 1] == pytest.approx(100 * np.mean(at_end)))
    assert soft[-1, 0] == comparison.runs["soft", 0].data.column("round")[-1]
    assert {"ideal", "soft", "soft-plus"} <= {text.get_text() for text in figure.findobj(Text)}


# ------------------------------------------------------------------------------------------------------------- a sweep


def test_a_sweep_knows_trials_points_and_the_best(sweep):
    assert isinstance(sweep, raysoft.SweepResult)
    assert len(sweep.summary) == 12
    assert len(sweep.points) == 6
    assert {"rank", "codec", "final_accuracy", "final_accuracy_std"} <= set(sweep.points.columns)
    assert sweep.best.name == "best"
    assert sweep.config.seed == 1
    assert set(sweep.rounds.trial) == {trial for trial in sweep.runs}
    assert len(sweep.clients) == 2 * 3 * 20
    assert "largest final_accuracy" in sweep._repr_html_()


def test_a_sweep_draws_its_metric_against_a_setting(sweep):
    figure = sweep.plot()
    assert labels(figure) == ("some.rank", "Final accuracy (%)")
    figure = sweep.plot("uplink_mb", x="some.codec")
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["a", "b"]
    assert labels(sweep.plot("accuracy", x="seconds")) == ("Simulated time (s)", "Accuracy (%)")
    with pytest.raises(ConfigError, match=r"x: must be a setting of this sweep.*got 'lr'; choose from rank, some.rank"):
        sweep.plot(x="lr")
    with pytest.raises(ConfigError, match="metric: no point has 'accuracy', choose from final_accuracy"):
        sweep.plot("accuracy")


# -------------------------------------------------------------------------------------------------------------- open


def test_folders_are_told_apart(result, comparison, sweep, tmp_path):
    assert isinstance(raysoft.open(str(result.folder)), raysoft.Result)
    assert isinstance(raysoft.open(comparison), raysoft.ComparisonResult)  # a result is a path, too
    assert isinstance(raysoft.open(sweep), raysoft.SweepResult)
    with pytest.raises(RaysoftError, match="nowhere: no such folder"):
        raysoft.open(tmp_path / "nowhere")
    with pytest.raises(RaysoftError, match=r"holds no config.yaml, comparison.json, results.json or plan.json"):
        raysoft.open(tmp_path)
    (tmp_path / "sweep.yaml").write_text("")
    with pytest.raises(RaysoftError, match="holds a sweep without results yet"):
        raysoft.open(tmp_path)
    (tmp_path / "config.yaml").write_text("{}")
    with pytest.raises(RaysoftError, match=r"rounds.jsonl: missing"):
        raysoft.open(tmp_path)


def test_a_configuration_of_another_version_is_named(tmp_path):
    found = raysoft.open(make_run(tmp_path / "run", rounds=1))
    with (tmp_path / "run" / "config.yaml").open("a") as file:
        file.write("gone: 1\n")
    found = raysoft.open(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"config.yaml: gone: unknown key"):
        _ = found.config
    assert len(found.rounds) == 2


def test_reports_are_drawn_by_calling_the_room(result, tmp_path):
    page = raysoft.report(result, out=tmp_path / "page.html")
    assert page == tmp_path / "page.html"
    assert page.is_file()
    with pytest.raises(ConfigError, match="DIR: give at least one"):
        raysoft.report()
