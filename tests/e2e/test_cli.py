"""The command line as a user meets it: exit codes, sentences, files."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from raysoft.config import registry
from raysoft.config.presets import preset_names
from raysoft.terminal import cli
from tests.command import ROOT, raysoft
from tests.conftest import SMALL_RUN, records, summary
from tests.contract import ROUND_KEYS

INLINE = ["--executor", "inline", "--out", "{tmp}/x"]
NO_FILE = "data={task: sequence-classification, path: ./missing.csv}"


def inline(target: str, out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return raysoft("run", target, *SMALL_RUN, "--executor", "inline", "--out", str(out), *words)


def test_a_run_leaves_the_folder_of_the_contract(tmp_path):
    done = inline("soft", tmp_path / "run", "tracking.tensorboard=true")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "run"
    for name in (
        "config.yaml",
        "environment.json",
        "rounds.jsonl",
        "summary.json",
        "report.html",
        "adapter",
        "figures",
        "tensorboard",
    ):
        assert (folder / name).exists(), name
    rows = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    assert [row["round"] for row in rows] == [0, 1, 2, 3]
    assert all(set(row) == set(ROUND_KEYS) for row in rows)
    assert summary(folder)["status"] == "done"
    assert re.fullmatch("[0-9a-f]{64}", summary(folder)["adapter_sha256"])
    for word in ("accuracy", "of the dense 32-bit uplink", "x the budget", " J over", "report.html"):
        assert word in done.stdout, word
    assert len([line for line in done.stdout.splitlines() if line.startswith("round ")]) == 4
    again = inline("soft", tmp_path / "run")
    assert again.returncode == 2
    assert "--overwrite" in again.stderr
    assert inline("soft", tmp_path / "run", "--overwrite").returncode == 0


def test_the_same_command_gives_the_same_bytes(small_inline_run, tmp_path):
    assert inline("soft", tmp_path / "run").returncode == 0
    assert records(tmp_path / "run") == records(small_inline_run)
    assert summary(tmp_path / "run")["adapter_sha256"] == summary(small_inline_run)["adapter_sha256"]


def test_two_allocators_see_the_same_cohorts_and_gains(small_inline_run, tmp_path):
    done = inline("soft", tmp_path / "run", "allocator.name=equal", "codec.kept_fraction=0.1")
    assert done.returncode == 0, done.stderr
    for one, two in zip(records(small_inline_run)[1:], records(tmp_path / "run")[1:], strict=True):
        for column in ("id", "gain_db"):
            assert one["metrics"]["clients"][column] == two["metrics"]["clients"][column]
    first = [records(folder)[1]["train_loss"] for folder in (small_inline_run, tmp_path / "run")]
    assert first[0] == first[1], "the first round trains on the same batches from the same start"


@pytest.mark.parametrize(("words", "code", "sentence"), [
    (["run", "nonsense"], 2, "neither a preset"),
    (["run", "soft", "rounds=many"], 2, "rounds"),
    (["run", "soft", "--executor", "cloud"], 2, "executor"),
    (["run", "soft", "--name", "../up"], 2, "--name"),
    (["run", "soft", "--bogus"], 2, "--bogus"),
    (["run", "soft", "actors.cpus=4096", "--out", "{tmp}/x"], 3, "set actors.cpus="),
    (["run", "soft", "data.partition=virtual", "data.clients=900", "actors.clients_per_actor=1", "--out", "{tmp}/x"], 3,
     "clients_per_actor="),
    (["run", "soft", "allocator.latency_budget_s=0.0001", *INLINE], 2, "smallest feasible"),
    (["run", "soft", "data.min_samples=50", *INLINE], 2, "min_samples"),
    (["run", "soft", "model.name=./missing", *INLINE], 2, "model.name"),
    (["run", "soft", NO_FILE, *INLINE], 2, "data.path"),
    (["report", "{tmp}/nothing"], 1, "nothing"),
    (["report", ""], 2, "DIR: must name a folder, got ''"),
    (["report", "{tmp}", "--out", "~nouser/x"], 2, "--out: '~nouser/x'"),
    (["resume", ""], 2, "DIR: must name a folder, got ''"),
    (["compare", "soft", "--dry-run", "--store", "{file}"], 2, "--store: "),
    (["plan", "soft", "--ranks", "1,,2"], 2, "--ranks: must be whole numbers"),
    (["plan", "soft", "--workers", "0"], 2, "--workers: must be between 1 and 256, got 0"),
])  # fmt: skip
def test_bad_input_is_one_sentence_and_the_right_code(tmp_path, monkeypatch, capsys, words, code, sentence):
    words = [word.replace("{tmp}", str(tmp_path)).replace("{file}", __file__) for word in words]
    monkeypatch.setattr(sys, "argv", ["raysoft", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    said = capsys.readouterr()
    assert end.value.code == code, said.err
    assert sentence in said.err
    assert "Traceback" not in said.err + said.out


@pytest.mark.parametrize(("words", "code", "sentence"), [
    (["run", "nonsense"], 2, "neither a preset"),
    (["run", "soft", "--bogus"], 2, "--bogus"),
    (["run", "soft", "actors.cpus=4096", "--out", "{tmp}/x"], 3, "set actors.cpus="),
    (["report", "{tmp}/nothing"], 1, "nothing"),
])  # fmt: skip
def test_a_process_ends_with_the_sentence_and_the_code(tmp_path, words, code, sentence):
    done = raysoft(*(word.replace("{tmp}", str(tmp_path)) for word in words))
    assert done.returncode == code, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize("budget, tail", [(0.1, []), (0.14, ["--dry-run"])])
def test_a_budget_that_training_uses_up_is_refused_before_ray(tmp_path, budget, tail):
    words = ["run", "soft", f"allocator.latency_budget_s={budget}", "--out", str(tmp_path / "x"), *tail]
    done = raysoft(*words)
    assert done.returncode == 2
    assert f"allocator.latency_budget_s: {budget:g} s cannot be met" in done.stderr
    assert "smallest feasible budget is about" in done.stderr
    assert "starting Ray" not in done.stdout + done.stderr
    assert not (tmp_path / "x").exists()


def test_the_budgets_of_presets_need_no_look_at_the_model():
    """It would load torch into the driver, for seconds, before every run."""
    code = (
        "import sys; from raysoft.config.presets import load_config\n"
        "from raysoft.runs.inputs import check_tight_budget\n"
        "for preset in sys.argv[1:]:\n"
        "    check_tight_budget(load_config(preset)); print(preset, 'torch' in sys.modules)"
    )
    words = [sys.executable, "-c", code, *preset_names()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == [f"{preset} False" for preset in preset_names()]


def test_diverging_training_says_so_and_keeps_its_records(tmp_path):
    done = inline("soft", tmp_path / "run", "train.lr=1e30", "train.clip_norm=null")
    assert done.returncode == 1
    assert "not finite" in done.stderr or "is finite" in done.stderr
    assert "train.lr" in done.stderr
    assert summary(tmp_path / "run")["status"] == "failed"
    assert records(tmp_path / "run")[0]["round"] == 0


def test_dry_run_writes_nothing(tmp_path):
    done = raysoft("run", "soft", "--dry-run", "--out", str(tmp_path / "x"))
    assert done.returncode == 0
    assert "nothing was run" in done.stdout
    assert not (tmp_path / "x").exists()


def test_a_joint_report_says_where_it_lands_and_that_another_one_made_way(small_inline_run, tmp_path):
    for name in "ab":
        shutil.copytree(small_inline_run, tmp_path / "outputs" / name)
    first, again = (raysoft("report", "outputs/a", "outputs/b", cwd=tmp_path).stdout.strip() for _ in range(2))
    assert (first, again) == ("outputs/comparison.html", "outputs/comparison.html (replaced)")
    assert raysoft("report", "outputs/a", cwd=tmp_path).stdout.strip() == "outputs/a/report.html"


def test_a_dry_run_only_notes_that_the_default_folder_is_taken(tmp_path):
    (tmp_path / "outputs/soft").mkdir(parents=True)
    (tmp_path / "outputs/soft/notes.txt").write_text("mine")
    done = raysoft("run", "soft", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "the run itself would be refused: outputs/soft exists" in done.stdout
    assert raysoft("run", "soft", "--dry-run", "--out", "outputs/soft", cwd=tmp_path).returncode == 2


def test_lists_name_every_plugin():
    done = raysoft("list")
    listed = set(re.findall(r"[\w-]+", done.stdout))
    assert listed >= {*preset_names(), *(name for kind in registry.KINDS for name in registry.KINDS[kind])}
    matrix = raysoft("list", "--matrix")
    assert "allocator ideal + uplink fdma" in matrix.stdout
    assert matrix.returncode == 0


@pytest.mark.alone
@pytest.mark.parametrize(
    ("executor", "sent", "code"),
    [("inline", signal.SIGINT, 130), ("ray", signal.SIGINT, 130), ("ray", signal.SIGTERM, 143)],
)
def test_a_signal_ends_a_run_cleanly_keeps_records_and_leaves_no_process(tmp_path, executor, sent, code):
    """Ctrl-C, and what `ray job stop`, Slurm and Kubernetes send."""
    out = tmp_path / "run"
    words = ["run", "soft", *SMALL_RUN, "rounds=100000", "--executor", executor, "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "raysoft", *words],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 150
        while time.monotonic() < deadline and process.poll() is None:
            if (out / "rounds.jsonl").exists() and len((out / "rounds.jsonl").read_text().splitlines()) >= 3:
                break
            time.sleep(0.2)
        below = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, sent)
        _, errors = process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            process.kill()
    assert process.returncode == code, errors
    assert {130: "raysoft: interrupted", 143: "raysoft: terminated"}[code] in errors
    assert f"go on with: raysoft resume {out}" in errors
    assert "Traceback" not in errors
    assert summary(out)["status"] == "interrupted"
    _, alive = psutil.wait_procs(below, timeout=10)
    assert not alive


def test_a_reader_that_leaves_leaves_nothing_in_the_way(tmp_path):
    """`raysoft run ... | head -1`, and then the run again."""
    words = ["run", "soft", *SMALL_RUN, "--executor", "inline", "--out", str(tmp_path / "run")]
    process = subprocess.Popen(
        [sys.executable, "-m", "raysoft", *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=100) == 1
    assert "Traceback" not in errors
    assert not (tmp_path / "run").exists()


def test_folders_may_be_text_in_python(tmp_path):
    import raysoft

    config = raysoft.load_config("soft", [*SMALL_RUN, "rounds=0", "executor=inline"])
    result = raysoft.run(config, str(tmp_path / "run"))
    assert result.folder == tmp_path / "run"
    assert result.report == tmp_path / "run" / "report.html"
    assert raysoft.resume(str(tmp_path / "run")).summary == result.summary
