"""Trackers: what reaches TensorBoard and Prometheus, and that a fault in one touches neither the run nor the others."""

from __future__ import annotations

import sys
import time
import types

import pytest

from raysoft.config import RunConfig, WandbConfig, parse_section
from raysoft.config.presets import load_config
from raysoft.errors import ConfigError
from raysoft.rundir.folder import record_row
from raysoft.runs.trackers.base import Beginning
from raysoft.runs.trackers.fanout import Trackers, trackers_of
from raysoft.runs.trackers.prometheus import GAUGES, Prometheus
from raysoft.runs.trackers.redact import redacted
from raysoft.runs.trackers.tensorboard import TensorBoard
from tests.event_files import read_events
from tests.run_folders import config_tree, records


def beginning(path, earlier=()):
    return Beginning(parse_section(RunConfig, config_tree(clients=100, cohort=20, seed=0)), path, {}, earlier)


class Log:
    """Writes down what it is told, and breaks where it is told to."""

    def __init__(self, name, breaks=None):
        self.name, self.breaks, self.told = name, breaks, []

    def _tell(self, what):
        self.told.append(what)
        if what == self.breaks:
            raise OSError(28, "No space\nleft")

    def start(self, begin):
        self._tell("start")

    def round(self, row):
        self._tell(f"round {row['round']}")

    def finish(self, summary, within_s):
        self._tell("finish")
        return f"{self.name} says"

    def drop(self):
        self.told.append("drop")
        raise RuntimeError("not even that")


@pytest.mark.parametrize("breaks", ["start", "round 1", "finish"])
def test_a_tracker_that_fails_is_dropped_once_and_alone(tmp_path, caplog, breaks):
    bad, good = Log("bad", breaks), Log("good")
    trackers = Trackers([bad, good])
    trackers.start(beginning(tmp_path))
    for row in map(record_row, records(rounds=2)):
        trackers.round(row)
    assert trackers.finish({}) == {"good": "good says"}
    assert good.told == ["start", "round 0", "round 1", "round 2", "finish"]
    assert bad.told[-2:] == [breaks, "drop"]
    (entry,) = caplog.records
    assert entry.getMessage() == "bad is switched off for the rest of this run: [Errno 28] No space left"


def test_ctrl_c_while_a_tracker_ends_lets_go_of_it(tmp_path):
    class Waits(Log):
        def finish(self, summary, within_s):
            raise KeyboardInterrupt

    waits = Waits("waits")
    trackers = Trackers([waits])
    trackers.start(beginning(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        trackers.finish({})
    assert waits.told == ["start", "drop"]


def test_nothing_is_finished_that_has_not_begun():
    log = Log("never")
    assert Trackers([log]).finish({}) == {}
    assert log.told == []


# ------------------------------------------------------------------------------------------------------- TensorBoard


@pytest.mark.parametrize("again", ["resumed", "coordinator lost"])
def test_tensorboard_shows_a_round_that_comes_again_once(tmp_path, again):
    from tensorboardX.proto import event_pb2

    rows = [record_row(record) for record in records(rounds=4)]
    tracker = TensorBoard()
    tracker.start(beginning(tmp_path))
    for row in rows[:4]:
        tracker.round(row)
    if again == "resumed":
        tracker.finish({}, 1.0)
        tracker = TensorBoard()
        tracker.start(beginning(tmp_path, rows[:2]))
    for row in rows[2:]:
        tracker.round(row)
    tracker.finish({}, 1.0)
    files = sorted((tmp_path / "tensorboard").iterdir(), key=lambda item: item.stat().st_mtime_ns)
    assert [step for step, _ in read_events(files[0])["round/accuracy"]] == [0, 1, 2, 3]
    assert [step for step, _ in read_events(files[1])["round/accuracy"]] == [2, 3, 4]
    data = files[1].read_bytes()
    marks, position = [], 0
    while position < len(data):
        length = int.from_bytes(data[position : position + 8], "little")
        event = event_pb2.Event.FromString(data[position + 12 : position + 12 + length])
        position += 12 + length + 4
        if event.session_log.status == event_pb2.SessionLog.START:
            marks.append(event.step)
    assert marks == [2]  # TensorBoard hides what older files hold from here on


def slow_import(monkeypatch, seconds, error=None):
    def load(name):
        time.sleep(seconds)
        if error is not None:
            raise error

    monkeypatch.setattr("raysoft.runs.trackers.tensorboard.import_module", load)


def test_rounds_before_the_library_is_there_are_drawn_when_it_is(tmp_path, monkeypatch):
    slow_import(monkeypatch, 0.5)
    tracker = TensorBoard()
    tracker.start(beginning(tmp_path))
    for row in map(record_row, records(rounds=2)):
        tracker.round(row)
    assert not (tmp_path / "tensorboard").exists()
    tracker.finish({}, 30.0)
    (file,) = (tmp_path / "tensorboard").iterdir()
    assert [step for step, _ in read_events(file)["round/accuracy"]] == [0, 1, 2]


@pytest.mark.parametrize("seconds", [0.0, 0.5])
def test_a_library_that_cannot_be_imported_is_said_once(tmp_path, monkeypatch, caplog, seconds):
    slow_import(monkeypatch, seconds, ImportError("no such library"))
    trackers = Trackers([TensorBoard()])
    trackers.start(beginning(tmp_path))
    for row in map(record_row, records(rounds=2)):
        trackers.round(row)
    assert trackers.finish({}) == {}
    (entry,) = caplog.records
    assert entry.getMessage() == "TensorBoard is switched off for the rest of this run: no such library"


# -------------------------------------------------------------------------------------------------------- Prometheus


def test_gauges_have_the_totals_of_the_summary_also_after_a_resume(tmp_path, monkeypatch):
    class Gauge:
        seen: dict = {}  # noqa: RUF012

        def __init__(self, name, description, tag_keys):
            self.name = name
            assert tag_keys == ("run",)

        def set(self, value, tags):
            assert tags == {"run": tmp_path.name}
            self.seen[self.name] = value

    metrics = types.ModuleType("ray.util.metrics")
    metrics.Gauge = Gauge
    fake = types.ModuleType("ray")
    fake.is_initialized = lambda: True
    for name, module in (("ray", fake), ("ray.util", types.ModuleType("ray.util")), ("ray.util.metrics", metrics)):
        monkeypatch.setitem(sys.modules, name, module)
    rows = [record_row(record) for record in records(rounds=4)]
    tracker = Prometheus()
    tracker.start(beginning(tmp_path, rows[:3]))
    for row in (rows[3], rows[3], rows[4]):  # a round that comes again counts once
        tracker.round(row)
    last = rows[4]
    assert Gauge.seen == {
        "raysoft_round": 4,
        "raysoft_accuracy": last["accuracy"],
        "raysoft_loss": last["loss"],
        "raysoft_round_latency_s": last["round_latency_s"],
        "raysoft_queue_s": last["queue_s"],
        "raysoft_uplink_bits_total": sum(row["uplink_bits"] for row in rows[1:]),
        "raysoft_energy_j_total": pytest.approx(sum(row["energy_j"] for row in rows[1:])),
        "raysoft_client_updates_per_s": (last["participants"] + last["dropped"]) / last["wall_time_s"],
    }
    assert {f"raysoft_{key}" for key in GAUGES} == set(Gauge.seen)


def test_gauges_without_ray_are_a_warning(tmp_path, caplog):
    trackers = Trackers([Prometheus()])
    trackers.start(beginning(tmp_path))
    (entry,) = caplog.records
    assert "tracking.prometheus needs Ray; set executor=ray" in entry.getMessage()


# ----------------------------------------------------------------------------------------- configuration and secrets


def names(config):
    return [tracker.name for tracker in trackers_of(config)._members]


def test_a_configuration_names_its_trackers(monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert names(load_config("soft")) == ["TensorBoard"]
    words = ["tracking.wandb.mode=offline", "tracking.prometheus=true", "tracking.tensorboard=false"]
    assert names(load_config("soft", words)) == ["Prometheus", "W&B"]
    assert names(load_config("soft", ["tracking.wandb.mode=off"])) == ["TensorBoard"]  # YAML 1.2: a word
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert names(load_config("soft", words)) == ["Prometheus"]


def test_trackers_have_no_part_in_the_configuration_s_hash():
    words = ["tracking.wandb.mode=online", "tracking.wandb.project=x", "tracking.prometheus=true"]
    assert load_config("soft", words).config_hash() == load_config("soft").config_hash()


@pytest.mark.parametrize(
    ("word", "field"),
    [
        ("tracking.wandb.mode=on", "tracking.wandb.mode"),
        ("tracking.wandb.project=a/b", "tracking.wandb.project"),
        ("tracking.wandb.entity=a/b", "tracking.wandb.entity"),
        ("tracking.wandb.tags=a", "tracking.wandb.tags"),
        ("tracking.wandb.artifacts=[model]", "tracking.wandb.artifacts"),
        ("tracking.wandb.api_key=123", "tracking.wandb.api_key"),
        ("tracking.prometheus=9090", "tracking.prometheus"),
    ],
)
def test_bad_settings_are_named(word, field):
    with pytest.raises(ConfigError, match=field.replace(".", r"\.")):
        load_config("soft", [word])


def test_a_complete_section_is_read_back():
    section = {
        "mode": "online",
        "project": "p",
        "group": "g",
        "tags": ["a"],
        "entity": "e",
        "name": "n",
        "artifacts": ["figures", "adapter"],
    }
    assert parse_section(WandbConfig, section).model_dump(mode="json") == section


def test_secrets_are_redacted_and_nothing_else_is():
    kept = {
        "seed": 1,
        "data": {"natural_key": "speaker", "text_column": "token", "path": "a?b"},
        "max_tokens": 3,
        "model": {"revision": "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c"},
        "lr": [0.1, None, True],
    }
    assert redacted(kept, {}) == kept
    assert redacted({"a": {"api_key": "x", "Password": "y", "hf_token": "z"}}, {}) == {
        "a": dict.fromkeys(("api_key", "Password", "hf_token"), "[redacted]")
    }
    assert redacted("https://me:pw@host/x?sig=1 b", {}) == "https://[redacted]@host/x?[redacted] b"
    environ = {"WANDB_API_KEY": "k" * 40, "AWS_SECRET_ACCESS_KEY": "short", "PATH": "/usr/bin:/bin"}
    assert redacted(["a" + "k" * 40, "short", "/usr/bin:/bin"], environ) == ["a[redacted]", "short", "/usr/bin:/bin"]


def test_the_closing_line_names_the_store_that_a_folder_was_moved_to(tmp_path):
    from raysoft.runs.run import RunResult
    from raysoft.terminal.console import closing_table
    from tests.conftest import summary
    from tests.run_folders import make_run

    folder = make_run(tmp_path / "run", rounds=1)
    notes = {"W&B": f"offline; upload with: wandb sync {folder.resolve()}/wandb/x"}
    result = RunResult(folder, summary(folder), None, notes)
    assert f"W&B  {notes['W&B']}" in closing_table(result)
    assert "wandb sync s3://b/run/wandb/x (once that folder" in closing_table(result, "s3://b/run")
    assert "W&B  https://w/x" in closing_table(
        RunResult(folder, summary(folder), None, {"W&B": "https://w/x"}), "s3://b/run"
    )
