"""Millions of registered clients: whoever is not sampled costs nothing, and who is sampled stays what it was."""

import hashlib
import pickle
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from raysoft.allocation.cohort import everyone
from raysoft.config import DeviceConfig, StepsRange, parse_section
from raysoft.config.presets import load_config
from raysoft.data.base import Partition
from raysoft.data.partition import build_partition
from raysoft.federation.evaluation import client_requests
from raysoft.federation.sampling import CLIENT_LIMIT, client_rank, cohort_candidates, local_steps, ranks_of, steps_of
from raysoft.rng import Rng
from raysoft.wireless import rayleigh
from raysoft.wireless.link import Devices
from tests.tasks import config, task

MILLION = 1_000_000
RANGE, TIERS = StepsRange(low=2, high=9), {"low": 4, "mid": 6, "high": 8}


def peak_bytes(work: Callable[[], object]) -> int:
    """Most memory in use at once during a call, beyond what was there before."""
    work()  # imports, caches
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def digest(numbers) -> str:
    return hashlib.sha256(np.asarray(numbers, dtype="<i8").tobytes()).hexdigest()


def test_keyed_draws_are_what_they_were_when_studies_were_published():
    rng = Rng(20)
    sizes = ((12, 6), (100, 20), (128, 10), (1000, 1000), (MILLION, 1000))
    cohorts = [cohort_candidates(rng, tick, *size) for size in sizes for tick in (1, 2, 60)]
    assert digest(np.concatenate(cohorts)) == "28905830a5f3eee2df7bd58ab9e886dc0e3ae6ea4ca80b642ec9dd79b362b5d6"
    steps = [local_steps(rng, RANGE, k) for k in range(200)]
    ranks = [client_rank(rng, TIERS, k) for k in range(200)]
    assert (
        hashlib.sha256(repr(steps).encode()).hexdigest()
        == "aa56e5277d5b8fcdda6e83997e5fa5e5ea89ac48ad3ee9844e8a542f4485b690"
    )
    assert (
        hashlib.sha256(repr(ranks).encode()).hexdigest()
        == "02e94e11784884f2c0f4a2d7dfcae82b16832b4b14a6615bd1b3ecd8ec525f96"
    )
    partition = Partition(clients=MILLION, virtual_samples=40, num_train=1234, seed=20)
    drawn = np.concatenate([partition.indices(k) for k in (0, 3, 999, MILLION - 1)])
    assert digest(drawn) == "8c881a07b85c5f65369eefbd1fed50f4db4fa071068b9aeb2416ad510ce80d76"


def test_cohorts_of_a_million_are_distinct_and_uniform():
    rounds, size, bins = 400, 1000, 100
    cohorts = [cohort_candidates(Rng(5), tick, MILLION, size) for tick in range(rounds)]
    assert all((np.diff(cohort) > 0).all() for cohort in cohorts)
    assert min(map(np.min, cohorts)) >= 0
    assert max(map(np.max, cohorts)) < MILLION
    counts = np.bincount(np.concatenate(cohorts) * bins // MILLION, minlength=bins)
    # Each bin is hit 4000 times on average; chi-square with 99 degrees of freedom: mean 99, deviation 14.1.
    expected = rounds * size / bins
    assert abs(((counts - expected) ** 2 / expected).sum() - (bins - 1)) < 5 * np.sqrt(2 * (bins - 1))
    # Two cohorts share size^2 / MILLION = 1 client on average, nearly Poisson: 399 pairs share 399 +- 20.
    shared = sum(len(np.intersect1d(a, b)) for a, b in zip(cohorts, cohorts[1:], strict=False))
    assert abs(shared - (rounds - 1)) < 5 * np.sqrt(rounds - 1)


@pytest.mark.parametrize("population", [MILLION, 10**9, 10**12])
def test_sampling_takes_memory_for_the_cohort_only(population):
    # 1000 ids are 8 kB; the set that keeps them distinct, the sorted copy and the generator come on top.
    assert peak_bytes(lambda: cohort_candidates(Rng(0), 1, population, 1000)) < 100_000


def test_a_virtual_partition_takes_no_memory_for_its_clients():
    labels = np.zeros(500, dtype=np.int64)
    section = config(partition="virtual", clients=10**9, samples_per_client=40, cohort=5)
    assert peak_bytes(lambda: build_partition(section, task(labels), Rng(7))) < 20_000
    partition = build_partition(section, task(labels), Rng(7))
    assert len(pickle.dumps(partition)) < 1000, "it travels to every process"
    assert peak_bytes(lambda: partition.indices(10**9 - 1)) < 20_000


def test_channel_and_devices_take_memory_for_the_cohort_only():
    rng, far = Rng(3), np.arange(MILLION - 1000, MILLION)
    channel = rayleigh.build(rayleigh.Config(), rng)
    devices = Devices(parse_section(DeviceConfig, {}), rng)
    # A few dozen float64 columns of 1000 clients.
    assert peak_bytes(lambda: channel.state(far, 4)) < 1_000_000
    assert peak_bytes(lambda: devices.cpu_hz(far)) < 1_000_000
    alone = channel.state(far[-1:], 4)
    assert channel.state(far, 4).gain_K[-1] == alone.gain_K[0], "a function of the key, whoever else is there"
    assert everyone(far).nbytes == far.nbytes


def test_the_final_evaluation_by_client_looks_at_a_bounded_sample():
    run = load_config("soft", ["data.partition=virtual", f"data.clients={MILLION}"])
    partition = Partition(clients=MILLION, virtual_samples=64, num_train=1000, seed=0)
    asked = [k for request in client_requests(run, partition) for k in request.clients]
    assert len(asked) == len(set(asked)) == CLIENT_LIMIT
    # The largest of 1000 uniform numbers is below 0.99 with probability 4e-5.
    assert max(asked) > 0.99 * MILLION
    assert peak_bytes(lambda: client_requests(run, partition)) < 1_000_000


def test_steps_and_ranks_of_many_clients_are_those_of_each():
    rng, clients = Rng(8), np.array([0, 7, 500, MILLION - 1, 10**12])
    assert steps_of(rng, RANGE, clients).tolist() == [local_steps(rng, RANGE, k) for k in clients.tolist()]
    assert ranks_of(rng, TIERS, clients).tolist() == [client_rank(rng, TIERS, k) for k in clients.tolist()]
    assert steps_of(rng, 5, clients).tolist() == [5] * 5
    assert ranks_of(rng, 8, clients).tolist() == [8] * 5
