"""`raysoft compare` as a user meets it: runs side by side, what is reused, what fails, what is written."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from raysoft import compare
from raysoft.comparison.store import claim, key_of, run_name
from raysoft.config.presets import load_config
from raysoft.errors import ConfigError
from raysoft.report.comparison.file import read_comparison
from tests.conftest import SMALL_RUN, records, summary

SETTINGS = [word for word in SMALL_RUN if word != "rounds=3"] + ["rounds=2"]
ARMS = ["soft", "all of it: ideal"]
OTHER_FILES = "report.formats=[png,svg]"


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "raysoft", "compare", *words]


def call(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), cwd=cwd, capture_output=True, text=True, timeout=280, check=False)


def stamps(store: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in store.glob("*/rounds.jsonl")}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("compare")


@pytest.fixture(scope="module")
def first(place) -> subprocess.CompletedProcess[str]:
    """Two arms by two seeds, and something in the way of one of the four runs."""
    blocked = place / "outputs/runs" / run_name("all of it", load_config("ideal", [*SETTINGS, "seed=1"]))
    blocked.mkdir(parents=True)
    (blocked / "thesis.tex").write_text("not a run")
    return call(*ARMS, *SETTINGS, "--seeds", "2", "--reference", "all of it", "--name", "mine", cwd=place)


@pytest.fixture(scope="module")
def second(place, first) -> subprocess.CompletedProcess[str]:
    """The same once more, with nothing in the way."""
    for path in (place / "outputs/runs").glob("*/thesis.tex"):
        path.unlink()
    before = stamps(place / "outputs/runs")
    words = (*ARMS, *SETTINGS, OTHER_FILES, "--seeds", "2", "--reference", "all of it", "--name", "mine")
    done = call(*words, cwd=place)
    after = stamps(place / "outputs/runs")
    assert len(before) == 3
    assert len(after) == 4
    assert before.items() <= after.items()
    return done


def test_a_run_that_fails_does_not_stop_the_others(place, first):
    assert first.returncode == 1, first.stdout + first.stderr
    assert "1 of 4 runs failed" in first.stdout
    assert re.search(r"all of it, seed 1: .*thesis.tex", first.stdout)
    assert "Traceback" not in first.stderr


def test_a_second_call_runs_only_what_is_missing(place, second):
    assert second.returncode == 0, second.stdout + second.stderr
    assert "4 runs, 3 of them done before; 2 rounds to go" in second.stdout
    store = place / "outputs/runs"
    assert all(summary(folder)["status"] == "done" for folder in store.iterdir() if folder.name != ".claims")
    assert all(not (folder / "report.html").exists() for folder in store.iterdir())
    drawn = {path.suffix for path in (place / "outputs/mine/figures").iterdir()}
    assert drawn == {".png", ".svg"}, "as this call says, not as the runs that were found"


def test_the_folder_holds_tables_report_and_a_readable_file(place, second):
    folder = place / "outputs/mine"
    file = read_comparison(folder)
    assert file.labels == ["soft", "all of it"]
    assert file.reference == "all of it"
    assert file.store == "../runs"
    for arm in file.arms:
        assert [run.seed for run in arm.runs] == [0, 1]
        for run in arm.runs:
            found = summary(folder / run.folder)
            assert run.final_accuracy == found["final_accuracy"]
            assert run.uplink_mb == found["uplink_bits_total"] / 8e6
            assert run.share_dense32 == found["metrics"]["uplink_share_of_dense32"]
    (pair,) = file.pairs
    accuracy = {arm.label: arm.values("final_accuracy") for arm in file.arms}
    gaps = [a - b for a, b in zip(accuracy["soft"], accuracy["all of it"], strict=True)]
    assert pair.arm == "soft"
    assert pair.difference == pytest.approx(sum(gaps) / 2, abs=1e-12)
    assert all(row.rounds is None for row in file.time_to)  # two evaluations are no mean of five
    rows = list(csv.DictReader((folder / "table.csv").open()))
    assert [row["arm"] for row in rows] == file.labels
    assert float(rows[0]["final_accuracy_mean"]) == file.arms[0].mean.final_accuracy
    for name in ("table.md", "table.tex", "report.html"):
        assert "all of it" in (folder / name).read_text(), name
    assert list((folder / "figures").glob("*.png"))
    assert "all of it" in second.stdout
    assert "difference to all of it" in second.stdout


def test_other_labels_and_an_equal_reading_need_no_new_run(place, second):
    store = place / "outputs/runs"
    before = stamps(store)
    words = ["x: soft", "ideal", *SETTINGS, "--seeds", "2", "--equal", "bits", "--out", str(place / "equal")]
    done = call(*words, cwd=place)
    assert done.returncode == 0, done.stderr
    assert "4 runs, 4 of them done before" in done.stdout
    assert stamps(store) == before
    data = json.loads((place / "equal/comparison.json").read_text())
    for seed in (0, 1):
        runs = {arm["label"]: arm["runs"][seed] for arm in data["arms"]}
        assert runs["x"]["equal_round"] == 2
        assert runs["x"]["equal_accuracy"] == runs["x"]["final_accuracy"]
        # `ideal` spends more: what it had after one round, or before any.
        assert runs["ideal"]["equal_round"] == 1
        assert runs["ideal"]["equal_at"] <= runs["x"]["equal_at"]
        rows = records(place / "equal" / runs["ideal"]["folder"])
        assert runs["ideal"]["equal_accuracy"] == pytest.approx(rows[1]["accuracy"])
    assert data["pairs"][0]["difference"] != read_comparison(place / "outputs/mine").pairs[0].difference


def test_a_run_of_the_store_is_what_raysoft_run_makes(place, second, tmp_path):
    from raysoft.runs.run import run

    config = load_config("soft", [*SETTINGS, "seed=1", "executor=inline"])
    run(config, tmp_path / "alone", report=False)
    twin = place / "outputs/runs" / run_name("soft", config)
    assert records(tmp_path / "alone") == records(twin)
    assert summary(tmp_path / "alone")["adapter_sha256"] == summary(twin)["adapter_sha256"]


def test_dry_run_says_what_is_there_and_writes_nothing(place, second):
    done = call(*ARMS, "q4: soft codec.bits_per_value=4", *SETTINGS, "--seeds", "2", "--dry-run", cwd=place)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": done: ") == 4
    assert done.stdout.count(": to run: q4-s") == 2
    assert {item.name for item in (place / "outputs").iterdir()} == {"mine", "runs"}


def test_the_api_gives_the_same_numbers(place, second, monkeypatch):
    monkeypatch.chdir(place)
    found = compare([*ARMS, *SETTINGS, OTHER_FILES], seeds=2, reference="all of it", name="again")
    assert found.failed == ()
    assert found.report.is_file()
    old = json.loads((place / "outputs/mine/comparison.json").read_text())
    assert {**found.data, "name": "mine"} == old


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "Missing argument"),
        (["rounds=3"], "at least one preset"),
        (["soft", "soft"], "two arms are called 'soft'"),
        (["soft", "nosuch"], "'nosuch' is neither a preset"),
        (["soft", "q: soft codec.bits=4"], "arm 'q', codec.bits"),
        (["soft", "soft seed=3"], "--seeds and --first-seed"),
        (["soft", ": ideal"], "label"),
        (["soft", "soft ideal"], "form [LABEL:]TARGET"),
        (["soft", "--reference", "best"], "--reference: 'best' is not one of the arms: soft"),
        (["soft", "--seeds", "0"], "--seeds: must be between 1"),
        (["soft", "--first-seed", "-1"], "--first-seed"),
        (["soft", "--equal", "watts"], "bits, seconds, joules"),
        (["soft", "--margin", "0"], "--margin: must be above 0"),
        (["soft", "--margin", "nan"], "--margin: must be above 0"),
        (["soft", "--workers", "0"], "--workers"),
        (["soft", "--name", "../x"], "--name"),
        (["soft", "--name", "a", "--out", "b"], "--out"),
        (["soft", "--out", "{full}"], "something other than a comparison"),
        (["soft", "--out", "{full}/a.txt"], "is a file"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(words, says, tmp_path, monkeypatch, capsys):
    from raysoft.terminal import cli

    (tmp_path / "full").mkdir()
    (tmp_path / "full/a.txt").write_text("x")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["raysoft", "compare", *(word.format(full=tmp_path / "full") for word in words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert says in " ".join(err.split())
    assert "Traceback" not in err
    assert {item.name for item in tmp_path.iterdir()} == {"full"}


def test_a_store_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="--store"):
        compare(["soft"], seeds=1, out=tmp_path / "out", store=tmp_path / "file")


# --------------------------------------------------------------------------------------- processes that end or compete


def children_of(process: subprocess.Popen) -> list[psutil.Process]:
    return [child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())]


def wait_for(condition, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def under_way(store: Path, runs: int) -> bool:
    found = list(store.glob("*/rounds.jsonl"))
    return len(found) >= runs and all(len(path.read_text().splitlines()) >= 2 for path in found)


@pytest.fixture
def start():
    """Starts commands; none outlives its test."""
    started: list[subprocess.Popen] = []

    def begin(*words: str, cwd: Path) -> subprocess.Popen:
        # A process group of its own: as in a terminal, the signal of Ctrl-C can reach all of it.
        started.append(
            subprocess.Popen(
                command(*words),
                cwd=cwd,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return started[-1]

    yield begin
    for process in started:
        process.kill()  # its workers end with the next round
        process.communicate()


LONG = [word for word in SETTINGS if not word.startswith("rounds")] + ["rounds=400", "--seeds", "2", "--name", "long"]


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("everyone", [False, True], ids=["only the command", "the whole process group"])
def test_ctrl_c_ends_workers_keeps_runs_and_exits_130(start, tmp_path, everyone):
    store = tmp_path / "outputs/runs"
    process = start("soft", *LONG, cwd=tmp_path)
    wait_for(lambda: under_way(store, 2))
    workers = children_of(process)
    assert len(workers) == 2
    (os.killpg if everyone else os.kill)(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert not any(worker.is_running() for worker in workers)
    folders = [path.parent for path in store.glob("*/rounds.jsonl")]
    assert [summary(folder)["status"] for folder in folders] == ["interrupted"] * 2
    done = call("soft", *LONG, "--dry-run", cwd=tmp_path)
    assert done.stdout.count(": to run: soft-s") == 2  # what was interrupted is not taken for finished


@pytest.mark.slow
@pytest.mark.alone
def test_workers_of_a_killed_command_end_and_leave_no_claim(start, tmp_path):
    store = tmp_path / "outputs/runs"
    process = start("soft", *LONG, cwd=tmp_path)
    wait_for(lambda: under_way(store, 2))
    workers = children_of(process)
    process.kill()
    process.wait(timeout=20)
    wait_for(lambda: not any(worker.is_running() for worker in workers), 60)
    with claim(store, key_of(load_config("soft", [word for word in LONG if "=" in word]))) as mine:
        assert mine


@pytest.mark.slow
@pytest.mark.alone
def test_a_killed_worker_fails_its_run_only(start, tmp_path):
    store = tmp_path / "outputs/runs"
    words = ["long: soft rounds=400", "short: soft rounds=2", *SETTINGS[:-1], "--seeds", "1", "--name", "mixed"]
    process = start(*words, cwd=tmp_path)
    long = [word for word in SETTINGS if word != "rounds=2"] + ["rounds=400"]
    folder = store / run_name("long", load_config("soft", long))
    wait_for(lambda: (folder / "rounds.jsonl").exists() and summary_of(store, "short") == "done")
    for worker in children_of(process):
        worker.kill()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Arm 'long' is left out: none of its runs finished." in out
    assert "long, seed 0: its process was ended by SIGKILL" in out
    assert read_comparison(tmp_path / "outputs/mixed").labels == ["short"]
    assert "Traceback" not in out + err


@pytest.mark.slow
@pytest.mark.alone
def test_a_hung_worker_is_ended_and_fails_its_run_only(start, tmp_path):
    """It is alive and says nothing: without a bound the command would wait for it for ever."""
    store = tmp_path / "outputs/runs"
    words = ["long: soft rounds=400", "short: soft rounds=2", *SETTINGS[:-1], "actors.timeout_s=5", "--seeds", "1"]
    process = start(*words, "--name", "mixed", cwd=tmp_path)
    long = [word for word in SETTINGS if word != "rounds=2"] + ["rounds=400"]
    folder = store / run_name("long", load_config("soft", long))
    wait_for(lambda: (folder / "rounds.jsonl").exists() and summary_of(store, "short") == "done")
    workers = children_of(process)
    for worker in workers:
        worker.suspend()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "long, seed 0: its process gave no sign of life within actors.timeout_s=5 seconds and was ended" in out
    assert not any(worker.is_running() for worker in workers)
    assert "Traceback" not in out + err


def summary_of(store: Path, label: str) -> str | None:
    found = list(store.glob(f"{label}-s*/summary.json"))
    return json.loads(found[0].read_text())["status"] if found else None


@pytest.mark.slow
@pytest.mark.alone
def test_two_commands_at_once_share_the_work(start, tmp_path):
    words = ["soft", "ideal", *SETTINGS, "--seeds", "2"]
    both = [start(*words, "--name", name, cwd=tmp_path) for name in ("one", "two")]
    outputs = [process.communicate(timeout=250) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    store = tmp_path / "outputs/runs"
    assert len(list(store.glob("*/summary.json"))) == 4
    computed = sum(out.count(": done\n") for out, _ in outputs)
    assert computed == 4  # each run by one of the two
    one, two = (json.loads((tmp_path / "outputs" / name / "comparison.json").read_text()) for name in ("one", "two"))
    assert {**one, "name": "two"} == two
