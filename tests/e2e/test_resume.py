"""A run that was interrupted and resumed is the run that was not: records, adapter, fingerprint."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest

from raysoft.config.presets import load_config, preset_names
from raysoft.errors import ConfigError, RaysoftError
from raysoft.federation.workload import describe
from raysoft.runs.checkpoint import load, save
from raysoft.runs.resuming import find_resumable
from raysoft.runs.run import Events, resume, run
from tests.command import ROOT, raysoft
from tests.conftest import SMALL_RUN, records, summary
from tests.hf_folders import LABELS, make_folder

INLINE = [*SMALL_RUN, "executor=inline", "rounds=5"]
# Presets and options that keep something from round to round: queues, codec memory, orders, counts.
KEEPING = {
    "soft": [],
    "soft-plus": [],
    "transport": ["method.reorthogonalize=true", "codec.error_feedback=transport"],
    "feedback": ["codec.name=topk", "codec.error_feedback=true"],
    "shared": ["method.shared_mask=true"],
    "shared feedback": ["method.shared_mask=true", "codec.error_feedback=true", "uplink.packet_error=snr"],
    "greedy": ["method.name=fedit", "codec={name: chain, codecs: [{name: randomk}]}", "allocator.name=greedy"],
    "tiers": ["model.lora.rank={low: 2, high: 4}", "train.steps={low: 1, high: 3}"],
}


class Interrupt(Events):
    """Ctrl-C once a round is on disk."""

    def __init__(self, tick):
        self.tick = tick

    def round(self, record):
        if record.round == self.tick:
            raise KeyboardInterrupt


def config(name, *words):
    preset = name if name in preset_names() else "soft"
    return load_config(preset, [*INLINE, *KEEPING[name], *words])


def interrupted(folder, name="soft", at=3, *words):
    with pytest.raises(KeyboardInterrupt):
        run(config(name, *words), folder, events=Interrupt(at), report=False)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Undisturbed runs by name, made when first asked for."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name) / "run"
            run(config(name), made[name], report=False)
        return made[name]

    return get


def assert_same(folder, reference):
    assert records(folder) == records(reference)
    mine, theirs = summary(folder), summary(reference)
    for one in (mine, theirs):
        del one["wall_time_s"], one["client_updates_per_s"]
    assert mine == theirs
    file = "adapter/adapter_model.safetensors"
    assert (folder / file).read_bytes() == (reference / file).read_bytes()


FAST = ("soft", "transport", "shared")  # queue, codec memory and gauge, the server's own arrays


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in KEEPING]
)
def test_resumed_is_undisturbed(name, whole, tmp_path):
    folder = interrupted(tmp_path / "run", name)
    assert summary(folder)["status"] == "interrupted"
    resume(folder, report=False)
    assert_same(folder, whole(name))


def test_rounds_may_grow(whole, tmp_path):
    run(config("soft", "rounds=2"), tmp_path / "run", report=False)
    resume(tmp_path / "run", ["rounds=5"], report=False)
    assert_same(tmp_path / "run", whole("soft"))


def test_fewer_checkpoints_cost_rounds_and_not_the_result(whole, tmp_path):
    folder = interrupted(tmp_path / "run", "soft", 3, "checkpoint={every: 2, keep: 1}")
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["round-000002"]
    resume(folder, report=False)
    assert_same(folder, whole("soft"))


def test_without_a_checkpoint_it_begins_again(whole, tmp_path):
    folder = interrupted(tmp_path / "run", "soft", 2, "checkpoint.every=null")
    assert not (folder / "checkpoints").exists()
    resume(folder, report=False)
    assert_same(folder, whole("soft"))


def test_interrupted_before_the_first_line_it_begins_again(whole, tmp_path):
    folder = interrupted(tmp_path / "run", "soft", 0, "checkpoint.every=null")
    (folder / "rounds.jsonl").write_text("")
    resume(folder, report=False)
    assert_same(folder, whole("soft"))


def test_a_damaged_checkpoint_is_passed_over_and_named(whole, tmp_path, caplog):
    folder = interrupted(tmp_path / "run", at=4)
    ticks = sorted(path.name for path in (folder / "checkpoints").iterdir())
    file = folder / "checkpoints" / ticks[-1] / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    resume(folder, report=False)
    assert f"{ticks[-1]}/state.safetensors: is damaged" in caplog.text
    assert f"round {int(ticks[0][-6:])}." in caplog.text
    assert_same(folder, whole("soft"))


@pytest.mark.parametrize("name", ["environment.json", "summary.json"])
@pytest.mark.parametrize("content", ["{", "[]", '{"libraries": 3, "status": [1]}', None])
def test_a_torn_file_on_which_nothing_depends_is_left_out_of_account(whole, tmp_path, name, content):
    folder = interrupted(tmp_path / "run")
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    resume(folder, report=False)
    assert_same(folder, whole("soft"))


def test_a_summary_that_no_run_wrote_finishes_nothing(whole, tmp_path):
    folder = interrupted(tmp_path / "run")
    (folder / "summary.json").write_text('{"status": "done", "rounds": 5}')
    resume(folder, report=False)
    assert_same(folder, whole("soft"))


def test_another_configuration_is_refused_with_its_keys(whole, tmp_path):
    folder = shutil.copytree(whole("soft"), tmp_path / "run")
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(ConfigError, match=r"seed was 0, is 4; train.lr was 0.15, is 0.3"):
        resume(folder, ["train.lr=0.3", "seed=4", "rounds=9"])
    with pytest.raises(ConfigError, match=r"rounds: must be at least 5.*got 3"):
        resume(folder, ["rounds=3"])
    with pytest.raises(ConfigError, match="no_such_key"):
        resume(folder, ["no_such_key=3"])
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_a_finished_run_is_left_alone_and_said_to_be_finished(whole, tmp_path, caplog):
    folder = shutil.copytree(whole("soft"), tmp_path / "run")
    before = (folder / "summary.json").read_bytes()
    result = resume(folder, ["executor=inline"], report=False)
    assert result.summary["status"] == "done"
    assert (folder / "summary.json").read_bytes() == before
    assert "This run has finished its 5 rounds" in caplog.text


def test_another_base_model_is_noticed(tmp_path, monkeypatch):
    folder = interrupted(tmp_path / "run")
    monkeypatch.setattr(
        "raysoft.federation.executor.describe", lambda *args: replace(describe(*args), base_checksum="0" * 64)
    )
    with pytest.raises(RaysoftError, match="the base model has changed since the checkpoint of round"):
        resume(folder, report=False)
    assert len(records(folder)) >= 3, "nothing is lost"


def test_the_command_says_what_it_does(whole, tmp_path):
    folder = interrupted(tmp_path / "run")
    done = raysoft("resume", str(folder))
    assert done.returncode == 0, done.stderr
    assert "to go on after round" in done.stdout
    assert "round    5" in done.stdout
    assert (folder / "report.html").exists()
    assert_same(folder, whole("soft"))
    refused = raysoft("resume", str(folder), "cohort.size=3", "rounds=7")
    assert refused.returncode == 2
    assert "cohort.size was 6, is 3" in refused.stderr
    missing = raysoft("resume", str(tmp_path / "none"))
    assert missing.returncode == 1
    assert "no such run folder" in missing.stderr


def killed_at(folder, words, seconds):
    """A run that is killed after `seconds` (counted from its first line of rounds.jsonl); its processes are gone."""
    process = subprocess.Popen(
        [sys.executable, "-m", "raysoft", "run", "soft", *words, "--out", str(folder)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / "rounds.jsonl").exists() and (folder / "rounds.jsonl").stat().st_size:
            break
        time.sleep(0.02)
    time.sleep(seconds)
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    os.kill(process.pid, signal.SIGKILL)
    process.wait(30)
    left = psutil.wait_procs(family, timeout=10)[1]  # five seconds where nothing else runs
    assert not left, [one.name() for one in left]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_random_instants_it_ends_as_if_undisturbed(tmp_path):
    words = [*SMALL_RUN, "executor=inline", "rounds=12"]
    run(load_config("soft", words), tmp_path / "whole", report=False)
    instants = random.Random(4)
    for attempt in range(8):
        folder = tmp_path / f"run{attempt}"
        killed_at(folder, words, instants.uniform(0.0, 3.0))
        resume(folder, report=False)
        assert_same(folder, tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(900)
def test_killed_on_ray_it_ends_as_if_undisturbed_and_leaves_no_process(tmp_path):
    words = [*SMALL_RUN, "rounds=12", "actors.cpus=2"]
    run(load_config("soft", [*words, "executor=inline"]), tmp_path / "whole", report=False)
    instants = random.Random(5)
    for attempt in range(2):
        folder = tmp_path / f"run{attempt}"
        killed_at(folder, words, instants.uniform(0.0, 3.0))
        resume(folder, [] if attempt else ["executor=inline"], report=False)
        assert_same(folder, tmp_path / "whole")


def write_reviews(folder, words):
    folder.mkdir(exist_ok=True)
    for split, rows in (("train", 24), ("test", 9)):
        lines = [f"w{n % 7} {words[n % 3]},{LABELS[n % 3]}" for n in range(rows)]
        (folder / f"{split}.csv").write_text("text,label\n" + "\n".join(lines) + "\n")


def test_a_run_goes_on_with_the_data_and_model_it_began_with_only(tmp_path):
    reviews, base = tmp_path / "reviews", make_folder(tmp_path / "base", "roberta")
    write_reviews(reviews, ["w10", "w11", "w12"])
    settings = [
        f"model={{name: {base}, lora: {{rank: 2, train_head: true}}}}",
        "cohort.size=2",
        "train.steps=1",
        f"data={{task: sequence-classification, path: {reviews}, partition: iid, clients: 3, max_length: 8}}",
        "rounds=2",
        "executor=inline",
        "metrics.covariance=off",
        "allocator.latency_budget_s=1e4",
    ]
    result = run(load_config("soft", settings), tmp_path / "run", report=False)
    noted = result.summary["identity"]
    assert {key: str(value).split()[0] for key, value in noted.items()} == {
        "data.path": "blake2b",
        "model.name": "blake2b",
        "codec.name": "rank_components,",  # and its revision
    }
    write_reviews(reviews, ["w10", "w11", "w13"])
    lines = (tmp_path / "run" / "rounds.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=r"data\.path: .*reviews is not what the rounds so far were computed with"):
        resume(tmp_path / "run", ["rounds=3"], report=False)
    assert (tmp_path / "run" / "rounds.jsonl").read_bytes() == lines
    write_reviews(reviews, ["w10", "w11", "w12"])
    assert resume(tmp_path / "run", ["rounds=3"], report=False).summary["identity"] == noted
    # A checkpoint of raysoft 0.1 holds no digests.
    path = tmp_path / "run" / "checkpoints" / "round-000003"
    save(replace(load(path), identity=None), path.parent)
    (note,) = find_resumable(tmp_path / "run", ["rounds=4"]).notes
    assert "cannot be checked whether data.path" in note
    assert "written by a version that noted no digests" in note
    config_json = base / "config.json"
    config_json.write_text(config_json.read_text() + "\n")
    save(replace(load(path), identity=noted), path.parent)
    with pytest.raises(ConfigError, match=r"model\.name: .*base is not what the rounds so far were computed with"):
        find_resumable(tmp_path / "run", ["rounds=4"])
