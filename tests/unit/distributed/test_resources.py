"""Sizing of actors: the arithmetic of exit code 3, and the settings that its messages recommend."""

import re

import pytest

from raysoft.config.presets import load_config
from raysoft.distributed.resources import CONTROL_BYTES, PROCESS_BYTES, Machine, available_gpus, plan_actors
from raysoft.errors import ResourceError

ROOMY = 64_000_000_000


def config(*settings):
    return load_config("soft", settings)


def machine(cpus=8, memory_bytes=ROOMY, gpus=0.0):
    return Machine(cpus, memory_bytes, gpus)


@pytest.mark.parametrize(
    ("settings", "cpus", "actors"),
    [
        ((), 8, 2),  # 20 clients in packs of 10
        (("actors.pack_size=2",), 8, 8),
        (("actors.pack_size=2",), 16, 10),
        (("actors.pack_size=2", "actors.threads=4"), 8, 2),
        (("actors.threads=16",), 8, 1),
        (("model.name=./folder", "cohort.size=6"), 64, 6),  # its packs may turn out to hold one client
        (("cohort.size=1",), 8, 2),  # the second one helps to evaluate
        ((), 1, 1),
    ],
)
def test_auto_makes_an_actor_a_core_but_no_idle_ones(settings, cpus, actors):
    plan = plan_actors(config(*settings), machine(cpus))
    assert plan.actors == actors
    assert plan.clients_per_actor is None
    assert plan.actors * plan.cpus_per_actor <= cpus
    assert plan.total_cpus == cpus


def test_auto_takes_what_memory_allows():
    for actors in (1, 3):
        memory = CONTROL_BYTES + actors * PROCESS_BYTES
        assert plan_actors(config("actors.pack_size=1"), machine(16, memory)).actors == actors
    with pytest.raises(ResourceError, match="executor=inline"):
        plan_actors(config(), machine(16, CONTROL_BYTES + PROCESS_BYTES - 1))


def test_one_actor_a_client_shares_the_cores():
    plan = plan_actors(config("actors.clients_per_actor=1"), machine(2))
    assert plan.actors == 100
    assert plan.clients_per_actor == 1
    assert 0 < 100 * plan.cpus_per_actor <= 2
    assert plan_actors(config("actors.clients_per_actor=30"), machine()).actors == 4


def test_too_little_memory_is_shown_with_a_setting_that_fits():
    small = machine(4, 10_000_000_000)
    with pytest.raises(ResourceError) as raised:
        plan_actors(config("actors.clients_per_actor=1"), small)
    text = str(raised.value)
    assert "100 actors x 0.4 GB + 0.6 GB = 40.6 GB, but 10.0 GB is available" in text
    advised = re.search(r"set (actors.clients_per_actor=\d+)", text)[1]
    assert plan_actors(config(advised), small).actors <= 23
    assert raised.value.exit_code == 3


def test_too_few_cores():
    with pytest.raises(ResourceError, match=r"64 cores asked for, 8 available; set actors.cpus=8"):
        plan_actors(config("actors.cpus=64"), machine(8))
    assert plan_actors(config("actors.cpus=2", "actors.pack_size=1"), machine(8)).actors == 2


def test_gpus_limit_the_number_of_actors_and_are_never_overbooked():
    assert plan_actors(config("actors.gpus=0.25", "actors.pack_size=1"), machine(16, gpus=1)).actors == 4
    assert plan_actors(config("actors.gpus=1", "actors.pack_size=1"), machine(16, gpus=2)).actors == 2
    with pytest.raises(ResourceError, match=r"no GPU is available on this machine; set actors.gpus=0 \(") as none:
        plan_actors(config("actors.gpus=1"), machine())
    assert "or less" not in str(none.value), "there is nothing below 0"
    with pytest.raises(ResourceError, match=r"4 actors x 0.5 = 2 GPUs, but 1 available; set actors.gpus=0.25"):
        plan_actors(config("actors.gpus=0.5", "actors.clients_per_actor=25"), machine(gpus=1))
    assert (
        plan_actors(config("actors.gpus=0.25", "actors.clients_per_actor=25"), machine(gpus=1)).gpus_per_actor == 0.25
    )


def test_visible_gpus_are_counted_as_the_environment_says(monkeypatch):
    for text, count in (("", 0), ("-1", 0), ("0", 1), ("0,3", 2), ("GPU-1a2b, GPU-3c4d", 2)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", text)
        assert available_gpus() == count


def test_this_machine_can_be_asked():
    here = Machine.here(count_gpus=False)
    assert here.cpus >= 1
    assert here.memory_bytes > 0
    assert here.gpus == 0
