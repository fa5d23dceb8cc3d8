"""Design contract: inline and Ray, any number of actors, a lost actor: the same bytes."""

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from raysoft.config.presets import load_config
from raysoft.runs.conformance.new import write_template
from raysoft.runs.run import Events, run
from tests.conftest import SMALL_RUN, records, summary

pytestmark = pytest.mark.timeout(280)


def children() -> set[int]:
    """Processes below this one (Ray's daemons detach, but keep the session directory in their command line)."""
    return {process.pid for process in psutil.Process().children(recursive=True)}


def ray_run(folder, *settings, events=None):
    run(load_config("soft", [*SMALL_RUN, "executor=ray", *settings]), folder, events=events)
    return folder


@pytest.mark.parametrize("cpus", [1, 2])
def test_ray_gives_the_bytes_of_inline(small_inline_run, tmp_path, cpus, caplog):
    if len(os.sched_getaffinity(0)) < cpus:
        pytest.skip(f"needs {cpus} cores")
    before = children()
    folder = ray_run(tmp_path / "run", f"actors.cpus={cpus}")
    assert summary(folder)["adapter_sha256"] == summary(small_inline_run)["adapter_sha256"]
    assert records(folder) == records(small_inline_run)
    assert "worst10_client_accuracy" in summary(folder)["metrics"]
    assert summary(folder)["metrics"] == summary(small_inline_run)["metrics"]
    deadline = time.monotonic() + 10
    while (left := children() - before) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left, "a run on Ray leaves no process behind"
    # Its rounds take a second, its start many.
    assert sum("executor=inline would be over sooner" in one.message for one in caplog.records) == 1


@pytest.mark.slow
def test_one_actor_per_client_gives_the_bytes_of_inline(tmp_path):
    settings = ["data.clients=5", "cohort.size=4", "actors.pack_size=2", "rounds=2"]
    run(load_config("soft", [*SMALL_RUN, *settings, "executor=inline"]), tmp_path / "inline")
    pids = []

    class Watch(Events):
        def round(self, record):
            names = [p.name() for p in psutil.Process().children(recursive=True)]
            pids.append(sum("ClientActor" in name for name in names))

    folder = ray_run(tmp_path / "ray", *settings, "actors.clients_per_actor=1", events=Watch())
    assert max(pids) == 5
    assert summary(folder)["adapter_sha256"] == summary(tmp_path / "inline")["adapter_sha256"]
    assert records(folder) == records(tmp_path / "inline")


def test_a_killed_actor_is_replaced_and_nothing_changes(small_inline_run, tmp_path):
    class Kill(Events):
        done = False

        def round(self, record):
            if record.round == 1 and not self.done:
                actors = [p for p in psutil.Process().children(recursive=True) if "ClientActor" in p.name()]
                os.kill(actors[0].pid, signal.SIGKILL)
                self.done = True

    watch = Kill()
    folder = ray_run(tmp_path / "run", events=watch)
    assert watch.done
    assert records(folder) == records(small_inline_run)
    assert summary(folder)["adapter_sha256"] == summary(small_inline_run)["adapter_sha256"]


@pytest.mark.slow
def test_the_shared_order_of_components_reaches_every_actor(tmp_path):
    settings = ["rounds=2", "method.shared_mask=true", "allocator={name: minmax}", "codec.kept_fraction=0.25"]
    for where in ("inline", "ray"):
        run(load_config("soft", [*SMALL_RUN, *settings, f"executor={where}"]), tmp_path / where, report=False)
    assert summary(tmp_path / "ray")["adapter_sha256"] == summary(tmp_path / "inline")["adapter_sha256"]
    assert records(tmp_path / "ray") == records(tmp_path / "inline")


@pytest.mark.slow
def test_plug_ins_in_files_reach_every_actor_and_edits_do_not(tmp_path, monkeypatch):
    """The files are broken as soon as the configuration is read: from there on it carries what they held."""
    monkeypatch.chdir(tmp_path)
    words = [*SMALL_RUN, "codec.name=./coder.py", "method.name=./mean.py", "method.extras=[./add.py]"]
    for kind, name in (("codec", "coder"), ("method", "mean"), ("extra", "add")):
        write_template(kind, name)
    configs = [load_config("fedit", words, executor) for executor in ("inline", "ray")]
    for name in ("coder", "mean", "add"):
        Path(f"{name}.py").write_text("1 / 0\n")
    here, there = (run(config, tmp_path / config.executor, report=False) for config in configs)
    assert here.summary["adapter_sha256"] == there.summary["adapter_sha256"]
    assert records(tmp_path / "inline") == records(tmp_path / "ray")
