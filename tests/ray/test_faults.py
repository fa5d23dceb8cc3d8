"""What becomes of a run on Ray when actors die, results are lost, or there is no Ray to be had."""

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import numpy as np
import psutil
import pytest
import ray
from ray._private.node import Node

from raysoft.config.presets import load_config
from raysoft.distributed.executor import RayExecutor
from raysoft.distributed.placement import Reservation
from raysoft.distributed.resources import plan_actors
from raysoft.distributed.session import Head, ray_session
from raysoft.distributed.start import start_ray
from raysoft.errors import RaysoftError, ResourceError
from raysoft.federation.coordinator import Coordinator
from raysoft.federation.liveness import Steps
from raysoft.federation.messages import EncodeRequest, TrainRequest
from raysoft.federation.sampling import make_packs
from raysoft.runs.run import Events, run
from tests.conftest import SMALL_RUN, records, summary

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]
SETTINGS = [*SMALL_RUN, "executor=ray", "actors.cpus=1", "actors.clients_per_actor=6", "actors.timeout_s=120"]


class Kill(Events):
    """Kills client actors while they are idle, after round 1."""

    def __init__(self, how_many):
        self.how_many, self.killed = how_many, 0

    def round(self, record):
        if record.round == 1:
            actors = [p for p in psutil.Process().children(recursive=True) if "ClientActor" in p.name()]
            for process in actors[: self.how_many]:
                os.kill(process.pid, signal.SIGKILL)
                self.killed += 1


class Hit(Events):
    """Sends a signal to a process of Ray, the coordinator if not said otherwise, while it is idle after round 2."""

    def __init__(self, number=signal.SIGKILL, name="CoordinatorActor"):
        self.number, self.name, self.hit = number, name, []

    def round(self, record):
        if record.round == 2 and not self.hit:
            self.hit = [one for one in psutil.Process().children(recursive=True) if self.name in one.name()]
            for process in self.hit:
                os.kill(process.pid, self.number)


def ray_run(folder, *settings, events=None, session=None):
    run(load_config("soft", [*SETTINGS, *settings]), folder, events=events, session=session)
    return folder


def test_all_actors_may_die_at_once(small_inline_run, tmp_path, caplog):
    kill = Kill(2)
    folder = ray_run(tmp_path / "run", events=kill)
    assert kill.killed == 2
    assert records(folder) == records(small_inline_run)
    assert summary(folder)["adapter_sha256"] == summary(small_inline_run)["adapter_sha256"]
    assert "its process died" in caplog.text, "the user is told"


@pytest.mark.parametrize("every", ["1", "null"])
def test_a_dead_coordinator_is_replaced_and_goes_on(small_inline_run, tmp_path, caplog, every):
    kill = Hit()
    folder = ray_run(tmp_path / "run", f"checkpoint.every={every}", events=kill)
    assert len(kill.hit) == 1
    assert records(folder) == records(small_inline_run)
    assert summary(folder)["adapter_sha256"] == summary(small_inline_run)["adapter_sha256"]
    assert "the coordinator actor died during" in caplog.text
    after = "going on after round 0" if every == "null" else "going on after round"
    assert after in caplog.text


def test_a_hung_coordinator_is_ended_and_replaced(small_inline_run, tmp_path, caplog):
    """It is there and does nothing, not even end: only its silence tells."""
    stop, began = Hit(signal.SIGSTOP), time.monotonic()
    folder = ray_run(tmp_path / "run", "actors.timeout_s=10", events=stop)
    assert len(stop.hit) == 1
    assert "gave no sign of life within actors.timeout_s=10 seconds" in caplog.text
    assert time.monotonic() - began < 200
    assert records(folder) == records(small_inline_run)
    assert summary(folder)["adapter_sha256"] == summary(small_inline_run)["adapter_sha256"]
    assert not psutil.wait_procs(stop.hit, timeout=10)[1]


def test_a_head_that_dies_is_replaced_before_ray_ends_the_driver(small_inline_run, tmp_path, caplog):
    """Ray would end this very process 60 s after its head, past every `except`."""
    watchful = partial(ray_session, head=partial(Head, look_s=0.5, gone_s=1.0))
    kill = Hit(name="gcs_server")

    class Slowly(Events):
        def round(self, record):
            kill.round(record)
            time.sleep(0.8 if kill.hit else 0)  # until the head is looked at again

    folder = ray_run(tmp_path / "run", "rounds=6", events=Slowly(), session=watchful)
    assert len(kill.hit) == 1
    assert "the head of Ray at" in caplog.text
    assert summary(folder)["status"] == "done"
    assert records(folder)[:3] == records(small_inline_run)[:3]


def test_whoever_prepares_the_workload_may_die(small_inline_run, tmp_path, caplog):
    """All client actors are killed as soon as they are there: one of them reads model and data then."""
    killed = []

    def kill_two():
        deadline = time.monotonic() + 100
        while len(killed) < 2 and time.monotonic() < deadline:
            for one in psutil.Process().children(recursive=True):
                if "ClientActor" in one.name() and one.pid not in killed and len(killed) < 2:
                    os.kill(one.pid, signal.SIGKILL)
                    killed.append(one.pid)
            time.sleep(0.02)

    thread = threading.Thread(target=kill_two, daemon=True)
    thread.start()
    folder = ray_run(tmp_path / "run")
    thread.join(1)
    assert len(killed) == 2
    assert "preparing model and data: client actor 0: its process died" in caplog.text
    assert summary(folder)["adapter_sha256"] == summary(small_inline_run)["adapter_sha256"]


def test_dropped_clients_are_counted_and_the_round_goes_on(tmp_path):
    folder = ray_run(tmp_path / "run", "actors.on_failure=drop_client", "actors.quorum=0.1", events=Kill(1))
    rows = records(folder)
    lost = [row["drop_reasons"].get("actor_failed", 0) for row in rows]
    assert lost[0] == lost[1] == lost[3] == 0
    assert 0 < lost[2] < 6
    assert rows[2]["participants"] + rows[2]["dropped"] == 6
    assert summary(folder)["status"] == "done"


def test_too_few_left_is_below_the_quorum(tmp_path):
    with pytest.raises(RaysoftError, match=r"round 2: \d of 6 clients were lost.*actors.quorum=1"):
        ray_run(tmp_path / "run", "actors.on_failure=drop_client", "actors.quorum=1", events=Kill(2))
    assert summary(tmp_path / "run")["status"] == "failed"
    assert [row["round"] for row in records(tmp_path / "run")] == [0, 1]


def test_abort_names_the_stage_the_round_and_the_clients(tmp_path):
    with pytest.raises(RaysoftError, match=r"train of round 2, clients \[.*its process died.*on_failure=abort"):
        ray_run(tmp_path / "run", "actors.on_failure=abort", events=Kill(2))


def test_a_finished_run_does_not_fail_because_an_actor_died_at_the_end(tmp_path):
    folder = ray_run(tmp_path / "run", "rounds=1", events=Kill(2))
    assert summary(folder)["status"] == "done"


def test_results_outlive_the_actor_that_made_them():
    """The next stage runs on a new actor, from handles in the store, with the same bytes."""
    config = load_config("soft", SETTINGS)
    plan = plan_actors(config)
    start_ray(plan.total_cpus)
    try:
        executor = RayExecutor(config, Reservation(plan))
        made = Coordinator(config, executor)
        made.start()
        down = executor.put(made.parts.method.broadcast(made.state.server, 1))
        packs = make_packs(1, np.arange(6), {}, 3)
        steps = Steps.done
        trained = executor.map("train", down, [TrainRequest(pack, {}) for pack in packs])
        assert Steps.done > steps, "who watches this process sees it getting on"
        orders, handles = [EncodeRequest((3,) * 3)] * 2, [(handle,) for _, handle in trained]
        first = executor.map("encode", down, orders, handles)
        for actor in executor.crew.actors:
            ray.kill(actor)
        second = executor.map("encode", down, orders, handles)
        for (one, _), (two, _) in zip(first, second, strict=True):
            assert [(sent.num_bits, sent.relative_error) for sent in one] == [
                (sent.num_bits, sent.relative_error) for sent in two
            ]
        assert "its process died" in executor.take_notices()[0]
        assert executor.take_notices() == []
        executor.verify()
    finally:
        ray.shutdown()


def test_a_ray_of_the_caller_is_used_and_left_running(small_inline_run, tmp_path):
    start_ray(plan_actors(load_config("soft", SETTINGS)).total_cpus)
    steps = Steps.done
    try:
        folder = ray_run(tmp_path / "run")
        assert Steps.done - steps > len(records(folder)), "rounds shorter than a beat are steps, too"
        assert ray.is_initialized()
        assert summary(folder)["adapter_sha256"] == summary(small_inline_run)["adapter_sha256"]
    finally:
        ray.shutdown()


def test_no_port_of_a_run_can_be_reached_from_another_machine():
    before = dict(vars(Node))
    start_ray(1)
    try:

        @ray.remote(num_cpus=1)
        class Actor:
            def ready(self):
                return True

        actor = Actor.remote()
        assert ray.get(actor.ready.remote(), timeout=100)
        processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
        ports = [
            (process.name(), one.laddr.ip)
            for process in processes
            for one in process.net_connections("inet")
            if one.status in (psutil.CONN_LISTEN, psutil.CONN_NONE)
        ]
        running = {word.rpartition("/")[2] for process in processes for word in process.cmdline()}
    finally:
        ray.shutdown()
    assert vars(Node) == before, "Ray is as it was"
    assert {"gcs_server", "raylet"} <= {name for name, _ in ports}
    assert {ip for _, ip in ports} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, ports
    assert not running & {"monitor.py", "log_monitor.py", "dashboard.py"}, "services that nobody uses"


def test_an_address_without_a_cluster_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(RaysoftError, match=r"RAY_ADDRESS=127\.0\.0\.1:1") as raised:
        ray_run(tmp_path / "run")
    assert "\n" not in str(raised.value)


def test_more_gpus_than_there_are_is_refused_before_ray_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ResourceError, match=r"actors\.gpus"):
        ray_run(tmp_path / "run", "actors.gpus=1")
    assert not (tmp_path / "run").exists()


def test_a_folder_too_deep_for_rays_sockets_is_refused_with_advice(tmp_path):
    deep = tmp_path / ("x" * 90)
    deep.mkdir()
    words = ["run", "soft", *SETTINGS, "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-m", "raysoft", *words],
        env=os.environ | {"TMPDIR": str(deep)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"raysoft: TMPDIR: {deep} is too long")
    assert "set TMPDIR to a shorter path" in done.stderr
    assert not (tmp_path / "run").exists()
