"""A run on a cluster of several nodes: where its actors and the base are, what a lost node costs, what is refused."""

import time

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from raysoft.errors import ResourceError
from raysoft.federation.coordinator import Coordinator
from raysoft.federation.ray_executor import RayExecutor
from raysoft.federation.ray_placement import reserve
from raysoft.presets import load_config
from raysoft.runner import Silent, run
from tests.conftest import SMALL_RUN, records, summary

pytestmark = pytest.mark.timeout(280)
SETTINGS = [*SMALL_RUN, "executor=ray", "actors.pack_size=2", "actors.timeout_s=100"]  # three packs of two clients
NODE = {"num_cpus": 1, "object_store_memory": 150_000_000, "include_dashboard": False}


@pytest.fixture
def cluster(monkeypatch, tmp_path_factory):
    """A head without cores and three nodes of one core."""
    made = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0})
    made.workers = [made.add_node(**NODE) for _ in range(3)]
    made.wait_for_nodes(timeout=60)
    monkeypatch.setenv("RAY_ADDRESS", made.address)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture(scope="module")
def inline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inline") / "run"
    run(load_config("soft", [*SETTINGS, "executor=inline"]), folder, report=False)
    return folder


def actors_by_node():
    """Client actors of this process's cluster, by the raylet whose child each one is."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        if "ClientActor" in process.name():
            found.setdefault(process.ppid(), []).append(process)
    return found


class Watch(Silent):
    """Looks where the actors are, and after round 1 takes a node away."""

    def __init__(self, lose=None):
        self.lose, self.seen = lose, []

    def round(self, record):
        self.seen.append({node: len(actors) for node, actors in actors_by_node().items()})
        if record.round == 1 and self.lose:
            self.lose()


def test_actors_are_spread_and_the_bytes_are_those_of_inline(cluster, inline, tmp_path):
    watch = Watch()
    run(load_config("soft", SETTINGS), tmp_path / "run", events=watch, report=False)
    assert [sorted(one.values()) for one in watch.seen] == [[1, 1, 1]] * 4, "an actor on each node that has a core"
    assert records(tmp_path / "run") == records(inline)
    assert summary(tmp_path / "run")["adapter_sha256"] == summary(inline)["adapter_sha256"]


def test_a_node_may_be_lost_with_no_room_for_its_actor_elsewhere(cluster, inline, tmp_path, caplog):
    watch = Watch(lose=lambda: cluster.remove_node(cluster.workers[0], allow_graceful=False))
    run(load_config("soft", SETTINGS), tmp_path / "run", events=watch, report=False)
    assert [sum(one.values()) for one in watch.seen] == [3, 3, 2, 2]
    assert summary(tmp_path / "run")["adapter_sha256"] == summary(inline)["adapter_sha256"]
    assert records(tmp_path / "run") == records(inline)
    assert "its process died" in caplog.text, "the user is told"
