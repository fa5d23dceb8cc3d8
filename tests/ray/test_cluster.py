"""A run on a cluster of several nodes: where its actors and the base are, what a lost node costs, what is refused."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from raysoft.config import UserFile
from raysoft.config.presets import load_config
from raysoft.distributed.executor import RayExecutor
from raysoft.distributed.placement import reserve
from raysoft.errors import ResourceError
from raysoft.federation.coordinator import Coordinator
from raysoft.runs.run import Events, run
from raysoft.wireless import rayleigh
from tests.conftest import SMALL_RUN, records, summary

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
SETTINGS = [*SMALL_RUN, "executor=ray", "actors.pack_size=2", "actors.timeout_s=100"]  # three packs of two clients


class Traced(rayleigh.Config):
    trace: UserFile


NODE = {"num_cpus": 1, "object_store_memory": 150_000_000, "include_dashboard": False}


@pytest.fixture(scope="module")
def cluster():
    """A head without cores and three nodes of one core."""
    made = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0})
    made.workers = [made.add_node(**NODE) for _ in range(3)]
    made.wait_for_nodes(timeout=60)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_ADDRESS", made.address)
        yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def joined(cluster):
    """This process as a driver of its own."""
    ray.init(log_to_driver=False)
    yield
    ray.shutdown()


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


class Watch(Events):
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


def mapped_base(worker):
    """Where a client actor has the base: its pages in the store, and whether somebody could write to them."""
    maps = [line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines()]
    ranges = [(*(int(end, 16) for end in row[0].split("-")), int(row[2], 16), int(row[4])) for row in maps]
    pages, weights = set(), list(worker.worker.workload.base.weights.values())
    for array in weights:
        at = array.ctypes.data
        pages.update((inode, at - low + offset) for low, high, offset, inode in ranges if low <= at < high)
    writable = any(array.flags.writeable or array.flags.owndata for array in weights)
    return ray.get_runtime_context().get_node_id(), frozenset(pages), writable


def read_trace(worker):
    return UserFile("trace.csv").path.read_bytes()


def test_files_of_plugins_reach_nodes_that_do_not_have_them(joined, tmp_path, monkeypatch):
    monkeypatch.setattr(rayleigh, "Config", Traced)
    monkeypatch.chdir(tmp_path)  # the actors have another current folder
    (tmp_path / "trace.csv").write_bytes(b"1,2")
    config = load_config("soft", [*SETTINGS, "channel.trace=trace.csv", "actors.clients_per_actor=2"])
    executor = RayExecutor(config, reserve(config))
    executor.start()
    found = ray.get([actor.__ray_call__.remote(read_trace) for actor in executor.crew.actors], timeout=60)
    assert found == [b"1,2"] * 6


def test_the_base_is_in_each_node_once_and_all_its_actors_map_the_same_pages(joined):
    config = load_config("soft", [*SETTINGS, "actors.clients_per_actor=2"])  # six actors, two a node
    room = reserve(config)
    executor = RayExecutor(config, room)
    Coordinator(config, executor).start()
    found = ray.get([actor.__ray_call__.remote(mapped_base) for actor in executor.crew.actors], timeout=60)
    by_node = {}
    for node, pages, writable in found:
        by_node.setdefault(node, []).append(pages)
        assert not writable
    assert [len(each) for each in by_node.values()] == [2, 2, 2]
    for one, other in by_node.values():
        assert one == other
        assert len(one) == len(executor.fetch_base().weights), "every tensor is in a mapping of a file"
        assert all(inode for inode, _ in one), "and none of them in the process's own memory"
    copies = ray.experimental.get_object_locations([executor.crew.workload])[executor.crew.workload]
    here = ray.get_runtime_context().get_node_id()
    assert sorted(copies["node_ids"]) == sorted({*by_node, here})
    room.release()


def test_what_cannot_fit_is_refused_at_once_with_a_setting_that_fits(joined):
    began = time.monotonic()
    for settings, sentence in [
        (["actors.cpus=64"], r"64 cores asked for, 3 available on 4 nodes; set actors.cpus=3 or less"),
        (["actors.gpus=1"], r"1 actors x 1 = 1 GPUs, but no GPU is available on 4 nodes; set actors.gpus=0"),
        (["data.clients=100000", "actors.clients_per_actor=1"], r"100000 actors x 0.4 GB .* available on 4 nodes"),
    ]:
        with pytest.raises(ResourceError, match=sentence):
            reserve(load_config("soft", [*SETTINGS, *settings]))
    assert time.monotonic() - began < 5


def held(cores):
    group = ray.util.placement_group([{"CPU": 1}] * cores)
    assert group.wait(30)
    return group


def test_a_busy_cluster_is_shared_and_a_full_one_waited_for(joined):
    config = load_config("soft", [*SETTINGS, "actors.timeout_s=8"])
    group = held(2)
    room = reserve(config)
    assert room.plan.actors == 1, "takes the core that is free"
    with pytest.raises(ResourceError, match=r"no core for an actor on 4 nodes.*of what is free now"):
        reserve(config)
    ray.util.remove_placement_group(group)
    other = reserve(config)
    assert other.plan.actors == 2
    room.release()
    other.release()


def test_nodes_that_an_autoscaler_adds_are_waited_for(cluster, joined):
    config = load_config("soft", [*SETTINGS, "actors.cpus=4", "actors.pack_size=1", "actors.wait_for_nodes_s=90"])
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(reserve, config)
        time.sleep(1)
        assert not waiting.done()
        added = cluster.add_node(**NODE)
        room = waiting.result(timeout=100)
    assert room.plan.actors == 4
    room.release()
    cluster.remove_node(added)
    few = load_config("soft", [*SETTINGS, "actors.pack_size=1", "actors.wait_for_nodes_s=3"])
    room = reserve(few)
    assert room.plan.actors == 3, "six would have work, but after a while three have to do"
    room.release()


def test_nodes_may_be_lost_with_no_room_for_their_actors_elsewhere(cluster, inline, tmp_path, caplog):
    """The last test of this cluster: two of its three nodes are gone afterwards."""

    def lose():
        for node in cluster.workers[:2]:
            cluster.remove_node(node, allow_graceful=False)

    watch = Watch(lose)
    run(load_config("soft", SETTINGS), tmp_path / "run", events=watch, report=False)
    assert [sum(one.values()) for one in watch.seen] == [3, 3, 1, 1]
    assert summary(tmp_path / "run")["adapter_sha256"] == summary(inline)["adapter_sha256"]
    assert records(tmp_path / "run") == records(inline)
    assert "its process died" in caplog.text, "the user is told"
