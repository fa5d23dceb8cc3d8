"""W&B: what it is told equals the run folder, and whatever happens to it neither delays nor fails a run."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from raysoft.config import RunConfig, WandbConfig, parse_section
from raysoft.config.presets import load_config
from raysoft.rundir.reading import read_run
from raysoft.runs.run import Events, resume, run
from raysoft.runs.trackers.base import Beginning, curves
from raysoft.runs.trackers.fanout import Trackers, in_sweep
from raysoft.runs.trackers.wandb_tracker import Wandb
from tests.conftest import SMALL_RUN, summary
from tests.run_folders import config_tree, make_run
from tests.wandb_server import API_KEY, wandb_processes, wandb_run, wandb_server

pytestmark = pytest.mark.alone
ROUNDS = 3


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    """Neither keys nor settings of whoever runs the tests, but their pretrained models."""
    monkeypatch.setenv("RAYSOFT_CACHE", os.environ.get("RAYSOFT_CACHE", str(Path.home() / ".cache" / "raysoft")))
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / ".netrc"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


class Timed(Trackers):
    """Trackers that know how long they have held up their run; `ready_s`: wait so long for W&B after the start."""

    def __init__(self, config, ready_s=0.0):
        self.wandb = Wandb(config)
        super().__init__([self.wandb])
        self.ready_s, self.held_up_s, self.notes = ready_s, 0.0, {}

    @contextmanager
    def timed(self):
        began = time.perf_counter()
        yield
        self.held_up_s += time.perf_counter() - began

    def start(self, begin):
        with self.timed():
            super().start(begin)
        deadline = time.perf_counter() + self.ready_s
        while time.perf_counter() < deadline and not self.wandb.ready:
            time.sleep(0.05)

    def round(self, row):
        with self.timed():
            super().round(row)

    def finish(self, *args):
        with self.timed():
            self.notes = super().finish(*args)


def closing_of(path):
    """summary.json as W&B gets it: without the digests, whose names hold dots."""
    return {key: value for key, value in summary(path).items() if key != "identity"}


def tracked(path, mode="offline", ready_s=0.0, before_end=None, **wandb):
    """A finished run folder with W&B on, and its trackers."""
    trackers = Timed(WandbConfig(mode=mode, **wandb), ready_s)
    if before_end is not None:
        finish = trackers.finish
        trackers.finish = lambda *args: [before_end(), finish(*args)]
    make_run(path, rounds=ROUNDS, trackers=trackers)
    return trackers


def assert_can_be_synced(note, path):
    """The command that the note ends with finds the run's file, and would upload it."""
    words = shlex.split(note.partition("with: ")[2])
    assert words[:2] == ["wandb", "sync"]
    done = subprocess.run(
        [sys.executable, "-m", *words, "--dry-run"],
        env={**os.environ, "WANDB_API_KEY": API_KEY},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    (file,) = (path / "wandb").glob("*run-*/run-*.wandb")
    assert "Would sync 1 run(s)" in done.stderr + done.stdout
    assert str(file) in done.stderr + done.stdout


def expected_history(path):
    return [{**dict(curves(row)), "_step": row["round"]} for row in read_run(path).records]


def plain(row):
    """A row of W&B's history without its own clocks."""
    return {key: value for key, value in row.items() if key == "_step" or not key.startswith("_")}


# ------------------------------------------------------------------------------------------------------------ offline


def test_an_offline_run_holds_what_the_run_folder_holds(tmp_path):
    trackers = tracked(tmp_path / "run", project="radio", group="night", tags=["a", "b"], entity="me")
    seen = wandb_run(tmp_path / "run")
    assert [plain(row) for row in seen["history"]] == expected_history(tmp_path / "run")
    config = read_run(tmp_path / "run").config
    assert {key: seen["config"][key] for key in config} == config
    assert set(seen["config"]) - set(config) == {"raysoft", "_wandb"}
    closing = closing_of(tmp_path / "run")
    assert {key: seen["summary"][key] for key in closing} == closing
    assert seen["config"]["raysoft"]["config_hash"] == closing["config_hash"]
    assert (seen["project"], seen["group"], seen["name"], seen["entity"]) == ("radio", "night", "run", "me")
    assert seen["tags"] == ["a", "b"]
    assert seen["exit_code"] == 0
    (folder,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    assert trackers.notes == {"W&B": f"offline; upload with: wandb sync {folder}"}
    assert_can_be_synced(trackers.notes["W&B"], tmp_path / "run")


@pytest.mark.slow
def test_figures_and_adapter_are_uploaded_where_asked_for(tmp_path):
    path = tmp_path / "run"

    def leave_files():
        for name in ("figures/a.png", "adapter/adapter_model.safetensors", "report.html"):
            (path / name).parent.mkdir(exist_ok=True)
            (path / name).write_text(name)

    tracked(path, artifacts=["figures", "adapter"], before_end=leave_files)
    assert wandb_run(path)["artifacts"] == [
        ("figures", ["a.png", "report.html"]),
        ("model", ["adapter_model.safetensors"]),
    ]


def test_secrets_stay_here(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijkl")
    path = "s3://user:hunter22@bucket/x?X-Amz-Signature=feed"
    config = {"data": {"task": "digits", "path": path, "subset": "hf_abcdefghijkl"}}
    make_run(tmp_path / "run", rounds=0, trackers=Trackers([Wandb(WandbConfig(mode="offline"))]), config=config)
    (file,) = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    everything = file.read_bytes()
    assert b"[redacted]" in everything
    for secret in (b"hunter22", b"feed", b"hf_abcdefghijkl"):
        assert secret not in everything


def test_a_resumed_run_goes_on_under_its_id_and_its_newest_file_holds_all(tmp_path):
    path = tmp_path / "run"
    tracked(path)
    first = wandb_run(path)["id"]
    run = read_run(path)
    settings = parse_section(RunConfig, run.config)
    trackers = Trackers([Wandb(WandbConfig(mode="offline"))])
    trackers.start(Beginning(settings, path, {}, run.records[:2]))
    for row in run.records[2:]:
        trackers.round(row)
    trackers.finish(summary(path))
    seen = wandb_run(path)  # one file only
    assert seen["id"] == first
    assert [plain(row) for row in seen["history"]] == expected_history(path)


@pytest.mark.slow
def test_an_overwritten_folder_is_another_run(tmp_path):
    tracked(tmp_path / "a")
    old = wandb_run(tmp_path / "a")["id"]
    (tmp_path / "a").rename(tmp_path / "b")
    tracked(tmp_path / "a")
    assert wandb_run(tmp_path / "a")["id"] != old


def test_trials_of_a_sweep_are_grouped():
    config = parse_section(RunConfig, config_tree(clients=4, cohort=2, seed=0))
    trial = in_sweep(config, "ranks", "000-s0").tracking.wandb
    assert (trial.group, trial.name) == ("ranks", "000-s0")
    named = config.model_copy(
        update={"tracking": config.tracking.model_copy(update={"wandb": WandbConfig(group="mine")})}
    )
    assert in_sweep(named, "ranks", "000-s0").tracking.wandb.group == "mine"
    assert in_sweep(config, "ranks", "000-s0").config_hash() == config.config_hash()


# ------------------------------------------------------------------------------------------------------------- online


def test_an_online_run_arrives_and_goes_on_after_a_resume(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", API_KEY)
    path = tmp_path / "run"
    with wandb_server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        trackers = tracked(path, "online", group="night")
        ((run_id, run),) = server.runs.items()
        assert trackers.notes == {"W&B": f"{server.url}/me/raysoft/runs/{run_id}"}
        assert [plain(row) for row in run["history"].values()] == expected_history(path)
        assert run["config"]["data"] == read_run(path).config["data"]
        closing = closing_of(path)
        assert {key: run["summary"][key] for key in closing} == closing
        assert (run["complete"], run["exitcode"], run["variables"]["groupName"]) == (True, 0, "night")

        rows = list(read_run(path).records)
        longer = [*rows, {**rows[-1], "round": ROUNDS + 1}]
        trackers = Trackers([Wandb(WandbConfig(mode="online"))])
        trackers.start(Beginning(parse_section(RunConfig, read_run(path).config), path, {}, longer[:2]))
        for row in longer[2:]:
            trackers.round(row)
        trackers.finish(closing)
        assert list(server.runs) == [run_id]
        assert [row["_step"] for row in run["history"].values()] == list(range(ROUNDS + 2))


def closed_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def accepts_and_never_answers():
    with socket.create_server(("127.0.0.1", 0)) as server:  # the kernel accepts
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def never_opens_a_run():
    with wandb_server() as server:
        server.gate.clear()
        yield server.url


@contextmanager
def nobody():
    yield closed_port()


FAULTS = {
    "closed port": (nobody, "cannot be reached"),
    "accepts and never answers": (accepts_and_never_answers, "cannot be reached"),
    "never opens a run": (never_opens_a_run, "did not open a run within"),
}


@pytest.mark.parametrize(
    "fault", [pytest.param(one, marks=[pytest.mark.slow] if n else []) for n, one in enumerate(FAULTS)]
)
def test_a_run_that_cannot_be_online_is_kept_offline(tmp_path, monkeypatch, caplog, fault):
    place, reason = FAULTS[fault]
    monkeypatch.setenv("WANDB_API_KEY", API_KEY)
    with place() as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        trackers = tracked(tmp_path / "run", "online", ready_s=60)
    assert_kept_offline(tmp_path / "run", trackers, caplog, reason)


def test_without_a_key_a_run_is_kept_offline_and_nobody_is_asked(tmp_path, monkeypatch, caplog):
    with wandb_server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        trackers = tracked(tmp_path / "run", "online", ready_s=60)
        assert server.runs == {}
    assert_kept_offline(tmp_path / "run", trackers, caplog, "No API key")


def assert_kept_offline(path, trackers, caplog, reason):
    (warning,) = [entry.getMessage() for entry in caplog.records]
    assert warning.startswith("W&B: ")
    assert reason in warning
    assert warning.endswith("; this run is kept offline")
    assert "wandb sync" in trackers.notes["W&B"]
    assert trackers.held_up_s < 10
    assert [plain(row) for row in wandb_run(path)["history"]] == expected_history(path)
    assert wandb_processes(path) == []


@pytest.mark.slow
@pytest.mark.parametrize("place", [accepts_and_never_answers, never_opens_a_run])
def test_a_run_that_ends_before_a_dead_server_is_given_up_waits_no_longer(tmp_path, monkeypatch, place):
    monkeypatch.setenv("WANDB_API_KEY", API_KEY)
    with place() as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        trackers = tracked(tmp_path / "run", "online")
    assert trackers.held_up_s < 10
    assert summary(tmp_path / "run")["status"] == "done"
    assert wandb_processes(tmp_path) == []


def test_a_server_that_falls_silent_is_left_behind(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_API_KEY", API_KEY)
    with wandb_server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        trackers = tracked(tmp_path / "run", "online", ready_s=60, before_end=server.gate.clear)
        assert trackers.held_up_s < 10
        assert "upload the rest with: " in trackers.notes["W&B"]
        assert wandb_processes(tmp_path) == []
        assert server.runs  # it was there at first
    assert_can_be_synced(trackers.notes["W&B"], tmp_path / "run")
    seen, closing = wandb_run(tmp_path / "run"), closing_of(tmp_path / "run")
    assert [plain(row) for row in seen["history"]] == expected_history(tmp_path / "run")
    assert {key: seen["summary"][key] for key in closing} == closing
    assert caplog.records == []


def test_a_killed_wandb_process_is_one_warning(tmp_path, caplog):
    path = tmp_path / "run"

    def kill():
        for process in wandb_processes(path):
            process.kill()
            process.wait(10)

    trackers = tracked(path, ready_s=60, before_end=kill)
    (warning,) = [entry.getMessage() for entry in caplog.records]
    assert warning.startswith("W&B is switched off for the rest of this run: its process has ended")
    assert trackers.held_up_s < 10
    assert trackers.notes == {}


# ------------------------------------------------------------------------------------------------- the command itself


@contextmanager
def raysoft_run(out, *words, **environ):
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "raysoft",
            "run",
            "soft",
            *SMALL_RUN,
            "executor=inline",
            "tracking.wandb.mode=offline",
            "--out",
            str(out),
            *words,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environ},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=60)


def wait_for(condition, within_s=200.0):
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.05)
    pytest.fail(f"not within {within_s:g} seconds")


def rounds_of(out):
    file = out / "rounds.jsonl"
    return file.read_text().count("\n") if file.exists() else 0


def test_the_command_says_how_to_upload_and_wandb_itself_says_nothing(tmp_path):
    out = tmp_path / "run"
    with raysoft_run(out) as process:
        stdout, stderr = process.communicate(timeout=240)
    assert process.returncode == 0
    (folder,) = (out / "wandb").glob("offline-run-*")
    assert f"W&B  offline; upload with: wandb sync {folder}" in stdout
    assert "wandb:" not in stdout + stderr
    assert [plain(row) for row in wandb_run(out)["history"]] == expected_history(out)
    closing = closing_of(out)
    assert {key: wandb_run(out)["summary"][key] for key in closing} == closing


@pytest.mark.slow
def test_an_interrupted_run_that_is_resumed_is_one_wandb_run(tmp_path):
    class Interrupt(Events):
        def round(self, record):
            if record.round == 2:
                raise KeyboardInterrupt

    path = tmp_path / "run"
    settings = load_config("soft", [*SMALL_RUN, "executor=inline", "tracking.wandb.mode=offline"])
    with pytest.raises(KeyboardInterrupt):
        run(settings, path, events=Interrupt(), report=False)
    first = wandb_run(path)
    assert [row["_step"] for row in first["history"]] == [0, 1, 2]
    assert first["exit_code"] == 1
    result = resume(path, report=False)
    seen = wandb_run(path)
    assert seen["id"] == first["id"]
    assert [plain(row) for row in seen["history"]] == expected_history(path)
    closing = closing_of(result.folder)
    assert {key: seen["summary"][key] for key in closing} == closing
    assert "wandb sync" in result.notes["W&B"]


def test_after_ctrl_c_wandb_takes_less_than_ten_seconds_whatever_the_server_does(tmp_path):
    out, words = tmp_path / "run", ("rounds=100000", "tracking.wandb.mode=online")
    with (
        wandb_server() as server,
        raysoft_run(
            out,
            *words,
            WANDB_BASE_URL=server.url,
            WANDB_API_KEY=API_KEY,
            WANDB__FILE_STREAM_TRANSMIT_INTERVAL="1",  # the first rounds arrive after a second instead of 15
        ) as process,
    ):
        wait_for(lambda: any(run["history"] for run in server.runs.values()))
        server.gate.clear()
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        words = next(line for line in process.stderr if line.startswith("W&B: "))
        assert time.monotonic() - began < 10  # after that, Python has only to end
        assert "wandb sync" in words
        process.communicate(timeout=120)
        assert process.returncode == 130
        assert wandb_processes(out) == []
    assert summary(out)["status"] == "interrupted"


@pytest.mark.slow
def test_a_killed_run_takes_the_wandb_process_with_it_and_the_file_is_whole(tmp_path):
    out = tmp_path / "run"
    with raysoft_run(out, "rounds=100000"):
        wait_for(lambda: (out / "wandb" / "run_id").exists())
        wait_for(lambda: not (out / "wandb" / "begin.json").exists() and rounds_of(out) > 3)  # W&B is up
    wait_for(lambda: wandb_processes(out) == [], 10)
    seen = [plain(row) for row in wandb_run(out)["history"]]
    assert len(seen) >= 3
    assert seen == expected_history(out)[: len(seen)]
    assert wandb_run(out)["exit_code"] == 1
