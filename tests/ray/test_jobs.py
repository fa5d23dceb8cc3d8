"""raysoft as a Ray job, on a cluster of several nodes started by hand: the same bytes, reasons, stop and resume."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request

import psutil
import pytest

from raysoft.config.presets import load_config
from raysoft.runs.conformance.new import write_template
from raysoft.runs.run import run
from tests.conftest import SMALL_RUN, records, summary
from tests.ray.heads import ROOT, HandMade

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
RUN = ["python", "-m", "raysoft", "run", "soft", *SMALL_RUN]


@pytest.fixture(scope="module")
def cluster():
    made = HandMade(nodes=2)
    yield made
    made.stop()


def submit(cluster, name, *words, wait=True, folder="."):
    extra = () if wait else ("--no-wait",)
    return cluster.ray("job", "submit", "--submission-id", name, *extra, "--working-dir", str(folder), "--", *words)


def ended(cluster, *names):
    """Status, exit code and message of each job once all have ended."""
    return json.loads(
        cluster.python(f"""
import json, time
deadline, names = time.monotonic() + 150, {list(names)!r}
while not all(client.get_job_status(name).is_terminal() for name in names) and time.monotonic() < deadline:
    time.sleep(0.5)
infos = [client.get_job_info(name) for name in names]
print(json.dumps([(info.status, info.driver_exit_code, info.message) for info in infos]))
""")
    )


def test_nobody_gets_in_without_the_token(cluster):
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{cluster.url}/api/jobs/", timeout=10)
    assert refused.value.code == 401


def test_a_job_gives_the_bytes_of_a_laptop_and_works_on_all_nodes(cluster, small_inline_run, tmp_path):
    assert submit(cluster, "same", *RUN, "--out", str(tmp_path / "run"), wait=False).returncode == 0
    seen = set()

    def over():
        for node in cluster.nodes:
            below = psutil.Process(node.pid).children(recursive=True)
            seen.update(node.pid for process in below if "ClientActor" in process.name())
        return (tmp_path / "run/summary.json").exists()

    cluster.wait_for(over, seconds=200)
    assert ended(cluster, "same")[0][:2] == ["SUCCEEDED", 0]
    assert seen == {node.pid for node in cluster.nodes}
    assert records(tmp_path / "run") == records(small_inline_run)
    assert summary(tmp_path / "run")["adapter_sha256"] == summary(small_inline_run)["adapter_sha256"]


def test_exit_codes_and_reasons_come_through(cluster, tmp_path):
    """Of a wrong setting, a run that does not fit, one that would be lost, and one that fails on its way."""
    out = ["--out", str(tmp_path / "run")]
    jobs = {
        "wrong": ([*RUN, "train.lr=fast", *out], 2, "raysoft: train.lr: "),
        "large": ([*RUN, "actors.cpus=64", *out], 3, "64 cores asked for, 2 available on 3 nodes; set actors.cpus=2"),
        "astray": ([*RUN, "--out", "outputs/x"], 2, "'outputs/x' lies in the job's working directory"),
        "wild": ([*RUN, "train.lr=1e30", "train.clip_norm=null", *out], 1, "train.lr"),
    }
    for name, (words, _, _) in jobs.items():
        assert submit(cluster, name, *words, wait=False).returncode == 0
    for (status, code, message), (_, expected, reason) in zip(ended(cluster, *jobs), jobs.values(), strict=True):
        assert (status, code) == ("FAILED", expected), message
        assert reason in message
        assert "Traceback" not in message
    assert submit(cluster, "again", *RUN, "train.lr=fast").returncode == 1, "what `ray job submit` itself returns"


def test_a_plug_in_in_a_file_travels_with_the_job(cluster, tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    write_template("method", "mean")
    out, here = tmp_path / "run", tmp_path / "here"
    words = [*RUN, "method.name=./mean.py", "codec={name: identity}", "allocator={name: minmax}"]
    done = submit(cluster, "file", *words, "--out", str(out), folder=tmp_path / "work")
    assert done.returncode == 0, done.stdout + done.stderr
    run(load_config("soft", words[5:], "inline"), here, report=False)
    assert records(out) == records(here)
    assert summary(out)["adapter_sha256"] == summary(here)["adapter_sha256"]


def test_a_sweep_is_a_job_like_any_other(cluster, tmp_path):
    out = tmp_path / "sweep"
    tune = ["python", "-m", "raysoft", "tune", "tune_configs/smoke.yaml"]
    done = submit(cluster, "sweep", *tune, "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (out / "report.html").exists()
    rows = (out / "results.csv").read_text().splitlines()
    assert len(rows) > 2
    assert submit(
        cluster, "lost", "python", "-m", "raysoft", "tune", "tune_configs/smoke.yaml", "--out", "x"
    ).returncode
    assert "lies in the job's working directory" in ended(cluster, "lost")[0][2]


def raysoft(*words):
    return subprocess.run(
        [sys.executable, "-m", "raysoft", *words], cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
    )


def test_a_stopped_job_is_a_run_to_be_resumed_from_its_storage(cluster, tmp_path):
    settings = ["rounds=60", "tracking.tensorboard=false", "metrics.clients=false"]
    store, uri = tmp_path / "store/run", f"file://{tmp_path}/store/run"
    assert submit(cluster, "stop", *RUN, *settings, "--out", uri, wait=False).returncode == 0

    def rounds():
        return len((store / "rounds.jsonl").read_text().splitlines()) if (store / "rounds.jsonl").exists() else 0

    cluster.wait_for(lambda: rounds() >= 3)
    began = time.monotonic()
    cluster.ray("job", "stop", "stop")
    assert ended(cluster, "stop")[0][0] == "STOPPED"
    assert time.monotonic() - began < 60
    assert summary(store)["status"] == "interrupted", "three seconds are enough for a clean end"
    before = rounds()
    assert 3 <= before < 61
    done = raysoft("resume", uri, "executor=inline")
    assert done.returncode == 0, done.stderr
    assert f"after round {before - 1}" in done.stdout
    assert f"{uri}/report.html" in done.stdout
    whole = raysoft("run", "soft", *SMALL_RUN, *settings, "--executor", "inline", "--out", str(tmp_path / "whole"))
    assert whole.returncode == 0, whole.stderr
    assert records(store) == records(tmp_path / "whole")
    assert summary(store)["adapter_sha256"] == summary(tmp_path / "whole")["adapter_sha256"]
    assert (store / "adapter/adapter_model.safetensors").exists()
