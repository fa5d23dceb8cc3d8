"""Sweeps through the command line and a real Ray: tables, early stops, failures, interruptions, client actors."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from raysoft.rundir.reading import read_run
from raysoft.runs.trackers.base import curves
from tests.conftest import summary
from tests.wandb_server import wandb_processes, wandb_run

ROOT = Path(__file__).parents[2]
BASE = """
base: soft
rounds: 4
data: {clients: 12}
cohort: {size: 6}
train: {steps: 1, batch_size: 4}
actors: {pack_size: 6}
metrics: {clients: false}
tracking: {tensorboard: false}
"""
# Steps enough that a rate of 0.1 learns on any CPU within a round what 1e-5 never does: no rung is a near tie.
HALVING = """
scheduler: {name: asha, grace_rounds: 1, reduction_factor: 2}
overrides: [train.steps=8, train.batch_size=32%s]
"""
LIMIT_S = 900


@pytest.fixture
def place(tmp_path):
    (tmp_path / "base.yaml").write_text(BASE)
    return tmp_path


def command(place, sweep, *words):
    (place / "sweep.yaml").write_text(f"base: base.yaml\n{sweep}")
    return [sys.executable, "-m", "raysoft", "tune", "sweep.yaml", "--out", "out", *words]  # in `place`


def environment():
    return os.environ | {"PYTHONPATH": str(ROOT)}


def tune(place, sweep, *words):
    return subprocess.run(
        command(place, sweep, *words),
        cwd=place,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def table(place, name="results.csv"):
    """The rows without what may differ between two equal sweeps: the wall time."""
    with (place / "out" / name).open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row.pop("wall_time_s", None)
    return rows


@pytest.mark.timeout(LIMIT_S)
def test_a_sweep_leaves_tables_a_report_and_the_reasons_of_failures(place):
    space = "space:\n  train.lr: {grid: [0.1, 1.0e+30]}\n  model.lora.rank: {grid: [4]}\n"
    sweep = f"{space}overrides: [train.clip_norm=null]\n"
    done = tune(place, sweep, "rounds=2")
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr == "", "Ray and Tune say nothing"
    good, bad = table(place)
    assert (good["status"], good["rounds"]) == ("done", "2")
    assert re.fullmatch("[0-9a-f]{64}", good["adapter_sha256"])
    assert bad["status"] == "failed"
    assert "train.lr=1e+30" in bad["reason"]
    assert sum(line.startswith("[") for line in done.stdout.splitlines()) == 2, "one line a finished trial"
    assert f"failed: {bad['trial']}: " in done.stdout
    folder = place / "out"
    for name in (
        "results.parquet",
        "points.csv",
        "results.json",
        "best.yaml",
        "report.html",
        "sweep.yaml",
        "figures/pareto.png",
        "figures/map.png",
    ):
        assert (folder / name).exists(), name
    assert summary(folder / good["folder"])["adapter_sha256"] == good["adapter_sha256"]
    assert not (folder / ".tune").exists()
    again = tune(place, sweep, "rounds=2")
    assert again.returncode == 2
    assert "--resume" in again.stderr
    assert "Traceback" not in again.stderr
    other = tune(place, sweep, "rounds=3", "--resume")
    assert other.returncode == 2
    assert "holds another sweep" in other.stderr


def wait_for(condition, process, seconds=LIMIT_S / 2):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        assert process.poll() is None, "it ended before it could be interrupted"
        time.sleep(0.2)
    raise AssertionError("nothing to interrupt in time")


def half_way(place):
    """One trial is done, another one is under way."""
    runs = list((place / "out" / "trials").glob("*/rounds.jsonl"))
    ended = [path for path in runs if (path.parent / "summary.json").exists()]
    return ended and len(runs) > len(ended)


GRID = "space:\n  train.lr: {grid: [0.05, 0.1, 0.2]}\nseeds: 2\n"


@pytest.mark.slow
@pytest.mark.timeout(3 * LIMIT_S)
def test_a_killed_driver_and_resume_give_the_table_of_an_undisturbed_sweep(place, tmp_path_factory):
    calm = tmp_path_factory.mktemp("calm")
    (calm / "base.yaml").write_text(BASE)
    assert tune(calm, GRID).returncode == 0
    process = subprocess.Popen(
        command(place, GRID), cwd=place, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: half_way(place), process)
        below = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(below, timeout=150)  # two helpers of Ray itself try for a minute to say goodbye
    assert not alive
    done = tune(place, GRID, "--resume")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "of them done before" in done.stdout
    assert table(place) == table(calm)
    assert table(place, "points.csv") == table(calm, "points.csv")
    once_more = tune(place, GRID, "--resume")
    assert once_more.returncode == 0, "a finished sweep is left as it is"
    assert "starting Ray" not in once_more.stdout
    assert table(place) == table(calm)


@pytest.mark.slow
@pytest.mark.timeout(2 * LIMIT_S)
def test_halving_stops_bad_runs_early_and_says_where(place):
    sweep = "space:\n  train.lr: {grid: [0.2, 0.1, 1.0e-5, 2.0e-5]}" + HALVING % ""
    done = tune(place, sweep, "max_concurrent=1")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = table(place)
    assert rows[0]["status"] == "done", "the first run of a rung always goes on"
    stopped = [row for row in rows if row["status"] == "stopped"]
    assert {"1e-05", "2e-05"} <= {row["lr"] for row in stopped}
    for row in stopped:
        assert row["reason"] == f"stopped early at round {row['rounds']} by asha"
        assert 1 <= int(row["rounds"]) < 4
    assert tune(place, sweep, "max_concurrent=1", "--resume").returncode == 0
    assert table(place) == rows, "what was stopped stays stopped"


@pytest.mark.slow
@pytest.mark.timeout(2 * LIMIT_S)
def test_trials_are_wandb_runs_of_one_group_also_those_that_are_stopped(place, monkeypatch):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    sweep = "space:\n  train.lr: {grid: [0.2, 1.0e-5]}" + HALVING % ", tracking.wandb.mode=offline"
    done = tune(place, sweep, "max_concurrent=1")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = table(place)
    assert {row["status"] for row in rows} == {"done", "stopped"}
    deadline = time.monotonic() + 30
    while list(place.glob("out/trials/*/wandb/begin.json")) or wandb_processes(place):
        assert time.monotonic() < deadline, "W&B processes end soon after their trials"
        time.sleep(0.1)
    ids = set()
    for row in rows:
        folder = place / "out" / "trials" / row["trial"]
        run, seen = read_run(folder), wandb_run(folder)
        assert (seen["group"], seen["name"]) == ("out", row["trial"])
        assert {key: seen["config"][key] for key in run.config} == run.config
        history = [
            {key: value for key, value in one.items() if key[0] != "_" or key == "_step"} for one in seen["history"]
        ]
        assert history == [{**dict(curves(one)), "_step": one["round"]} for one in run.records]
        assert seen["summary"]["status"] == row["status"]
        assert seen["exit_code"] == 0, "stopped by the scheduler is no failure"
        ids.add(seen["id"])
    assert len(ids) == len(rows)


@pytest.mark.slow
@pytest.mark.timeout(2 * LIMIT_S)
def test_ctrl_c_exits_130_and_leaves_no_process(place):
    process = subprocess.Popen(
        command(place, GRID, "rounds=1000"),
        cwd=place,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(lambda: any((place / "out" / "trials").glob("*/checkpoints/round-*")), process)
        below = psutil.Process(process.pid).children(recursive=True)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
        seconds = time.monotonic() - began
    finally:
        if process.poll() is None:
            process.kill()
    assert process.returncode == 130, errors
    assert errors.startswith("raysoft: interrupted; go on with: raysoft tune ")
    assert errors.endswith(" --resume\n")
    assert seconds < 60  # 10 on a machine that does nothing else
    _, alive = psutil.wait_procs(below, timeout=60)
    assert not alive


@pytest.mark.slow
@pytest.mark.timeout(2 * LIMIT_S)
def test_a_trial_that_hangs_is_ended_and_begun_again(place, tmp_path_factory):
    """Tune itself would wait for its process for ever."""
    one = "space:\n  train.lr: {grid: [0.1]}\n"
    calm = tmp_path_factory.mktemp("calm")
    (calm / "base.yaml").write_text(BASE)
    assert tune(calm, one, "rounds=12").returncode == 0
    process = subprocess.Popen(
        command(place, one, "rounds=12", "actors.timeout_s=8"),
        cwd=place,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(lambda: any((place / "out" / "trials").glob("*/checkpoints/round-*")), process)
        hung = [one for one in psutil.Process(process.pid).children(recursive=True) if "ImplicitFunc" in one.name()]
        for one_process in hung:
            one_process.suspend()
        _, errors = process.communicate(timeout=200)
    finally:
        if process.poll() is None:
            process.kill()
    assert hung
    assert process.returncode == 0, errors
    assert "gave no sign of life within actors.timeout_s=8 seconds and was ended" in errors
    assert table(place) == table(calm)


@pytest.mark.slow
@pytest.mark.timeout(2 * LIMIT_S)
def test_client_actors_of_a_trial_give_the_bytes_of_a_run_in_one_process(place, tmp_path_factory):
    other = tmp_path_factory.mktemp("inline")
    (other / "base.yaml").write_text(BASE)
    one = "space:\n  train.lr: {grid: [0.1]}\n"
    for where, executor in ((place, "ray"), (other, "inline")):
        done = tune(where, one, f"executor={executor}")
        assert done.returncode == 0, done.stdout + done.stderr
    assert table(place) == table(other)


@pytest.mark.slow
@pytest.mark.timeout(2 * LIMIT_S)
@pytest.mark.parametrize(
    "more",
    [
        "search: optuna\nsamples: 3\n",
        "scheduler: {name: pbt, interval_rounds: 1}\nsamples: 3\n",
        "scheduler: hyperband\nsamples: 3\n",
        "samples: 2\nstorage: {tmp}/storage\n",
    ],
)
def test_searches_schedulers_and_storage_come_to_an_end(place, more):
    pytest.importorskip("optuna")
    done = tune(place, f"space:\n  train.lr: {{loguniform: [0.01, 0.3]}}\n{more.replace('{tmp}', str(place))}")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = table(place)
    assert len({row["trial"] for row in rows}) == (2 if "storage" in more else 3)
    assert {row["status"] for row in rows} <= {"done", "stopped"}
    for row in rows:
        assert (place / "out" / row["folder"] / "config.yaml").exists()
