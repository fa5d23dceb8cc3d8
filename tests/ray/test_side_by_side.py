"""Several coordinators in one Ray: nothing is shared by name, so none disturbs another."""

import os
import subprocess
import sys
import time

import pytest
import ray

from raysoft.config.presets import load_config
from raysoft.federation.reduction import GROUP
from raysoft.runs.run import run
from tests.conftest import SMALL_RUN, records, summary

pytestmark = pytest.mark.timeout(900)
# More packs than one group holds, so that they are joined in two steps.
PACKS = GROUP + 8
MANY_PACKS = [
    "data.partition=virtual",
    f"data.clients={PACKS}",
    f"cohort.size={PACKS}",
    "actors.pack_size=1",
    "rounds=2",
]


def alive() -> list[str]:
    """Actors that have not ended, as Ray's control store knows them."""
    from ray._private.state import actors

    return [actor["ActorClassName"] for actor in actors().values() if actor["State"] != "DEAD"]


@pytest.fixture
def one_ray():
    """A Ray that several runs join, as on a cluster; 4 logical cores, so that two runs have actors at once."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    context = ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
        object_store_memory=400_000_000,
    )
    yield context.address_info["gcs_address"]
    ray.shutdown()


def test_two_runs_in_one_ray_are_what_each_is_alone(one_ray, small_inline_run, tmp_path):
    other = [*SMALL_RUN, *MANY_PACKS, "seed=3"]
    runs = {"small": SMALL_RUN, "other": other}
    env = {**os.environ, "RAY_ADDRESS": one_ray}
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "raysoft",
                "run",
                "soft",
                *settings,
                "actors.cpus=2",
                "executor=ray",
                "--out",
                str(tmp_path / name),
            ],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name, settings in runs.items()
    ]
    most = 0
    try:
        until = time.monotonic() + 600
        while any(process.poll() is None for process in processes):
            assert time.monotonic() < until
            most = max(most, alive().count("CoordinatorActor"))
            time.sleep(0.2)
        said = [process.communicate(timeout=10)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0, 0], said
    assert most == 2, "they did run at the same time"
    run(load_config("soft", [*other, "executor=inline"]), tmp_path / "alone", report=False)
    for name, alone in (("small", small_inline_run), ("other", tmp_path / "alone")):
        assert summary(tmp_path / name)["adapter_sha256"] == summary(alone)["adapter_sha256"]
        assert records(tmp_path / name) == records(alone)
    assert ray.util.list_named_actors(all_namespaces=True) == []
    until = time.monotonic() + 20
    while alive() and time.monotonic() < until:
        time.sleep(0.2)
    assert not alive(), "the cluster is as it was"
