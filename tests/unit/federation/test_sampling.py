"""Keyed choices of a round."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysoft.config import StepsRange
from raysoft.data.base import Examples, Partition
from raysoft.federation.sampling import (
    batch_indices,
    client_rank,
    cohort_candidates,
    local_steps,
    make_packs,
    pack_batches,
)
from raysoft.federation.workload import auto_pack_size
from raysoft.rng import Rng


def test_cohorts_are_uniform_without_replacement():
    counts = np.zeros(50)
    for tick in range(2000):
        cohort = cohort_candidates(Rng(3), tick, 50, 10)
        assert (np.diff(cohort) > 0).all()
        counts[cohort] += 1
    # Each client is drawn Binomial(2000, 1/5) times: mean 400, standard deviation 17.9; 50 of them stay within 4.5.
    assert abs(counts - 400).max() < 4.5 * 17.9


def test_a_cohort_of_a_million_is_cheap_and_sorted():
    cohort = cohort_candidates(Rng(0), 1, 1_000_000, 1000)
    assert len(np.unique(cohort)) == 1000
    assert (np.diff(cohort) > 0).all()


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=60, unique=True), st.integers(1, 17), st.randoms())
def test_packs_do_not_depend_on_the_order_of_the_cohort(clients, size, random):
    widths = {client: 8 * (client % 3) for client in clients}
    shuffled = list(clients)
    random.shuffle(shuffled)
    packs = make_packs(4, np.array(clients), widths, size)
    assert packs == make_packs(4, np.array(shuffled), widths, size)
    assert sorted(k for pack in packs for k in pack.clients) == sorted(clients)
    assert all(list(pack.clients) == sorted(pack.clients) and len(pack.clients) <= size for pack in packs)
    lengths = [[widths[k] for k in pack.clients] for pack in packs]
    assert all(max(a) <= min(b) for a, b in zip(lengths, lengths[1:]))


@given(st.integers(0, 60), st.integers(1, 17))
def test_even_packs_are_as_many_and_differ_by_one_client(count, size):
    cohort = np.arange(count)
    plain, even = make_packs(1, cohort, {}, size), make_packs(1, cohort, {}, size, even=True)
    assert len(even) == len(plain)
    assert [k for pack in even for k in pack.clients] == list(range(count))
    lengths = [len(pack.clients) for pack in even]
    assert not lengths or max(lengths) - min(lengths) <= 1
    if count % size == 0:
        assert even == plain


@given(st.integers(1, 2000), st.sampled_from([1000, 10**6, 10**6 + 1, 2 * 10**8, 10**9]))
def test_auto_makes_several_packs_of_a_cohort_whatever_the_machine(cohort, values):
    size = auto_pack_size(values, cohort)
    packs = len(make_packs(1, np.arange(cohort), {}, size, even=True))
    assert 1 <= size <= (10 if values <= 10**6 else 4 if values <= 2 * 10**8 else 1)
    assert packs >= min(cohort, 2 if values <= 10**6 else 3)  # 9 in packs of 3; else at least four


def test_steps_and_ranks_are_drawn_from_their_ranges_and_belong_to_the_client():
    rng = Rng(5)
    steps = [local_steps(rng, StepsRange(low=2, high=4), k) for k in range(300)]
    assert set(steps) == {2, 3, 4}
    ranks = [client_rank(rng, {"low": 4, "high": 8}, k) for k in range(300)]
    assert set(ranks) == {4, 8}
    assert steps == [local_steps(rng, StepsRange(low=2, high=4), k) for k in range(300)]


def examples(n: int, tokens: int | None = None) -> Examples:
    if tokens is None:
        return Examples({"pixel_values": np.arange(n, dtype=np.float32)[:, None]}, np.arange(n))
    lengths = 1 + np.arange(n) % tokens
    ids = np.where(np.arange(tokens) < lengths[:, None], 1 + np.arange(n)[:, None], 0)
    return Examples({"input_ids": ids, "attention_mask": (ids > 0).astype(int)}, np.where(ids > 0, ids, -100), lengths)


@settings(max_examples=50)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.integers(1, 8), st.data())
def test_batches_hold_own_samples_once_and_masks_tell_padding(sizes, batch_size, data):
    steps = [data.draw(st.integers(1, 3)) for _ in sizes]
    bounds = np.cumsum([0, *sizes])
    shards = {k: np.arange(bounds[k], bounds[k + 1]) for k in range(len(sizes))}
    batches = pack_batches(Rng(1), examples(int(bounds[-1])), shards, range(len(sizes)), 2, steps, batch_size)
    assert len(batches) == max(steps)
    for number, batch in enumerate(batches):
        for k, size in enumerate(sizes):
            active = number < steps[k]
            assert batch.active_K[k] == active
            real = batch.labels[k][batch.mask_KB[k]]
            assert len(real) == (min(size, batch_size) if active else 0)
            assert len(set(real)) == len(real)
            assert set(batch.labels[k]) <= set(shards[k])


def test_a_clients_batches_do_not_depend_on_its_company():
    train, shards = examples(40, tokens=16), {k: np.arange(10 * k, 10 * k + 10) for k in range(4)}
    alone = pack_batches(Rng(1), train, shards, [2], 3, [2], 4)
    together = pack_batches(Rng(1), train, shards, [0, 2, 3], 3, [1, 2, 2], 4)
    for one, many in zip(alone, together, strict=True):
        width = one.labels.shape[-1]
        np.testing.assert_array_equal(one.labels[0], many.labels[1][:, :width])
        assert (many.labels[1][:, width:] == -100).all()


def test_small_shards_are_used_whole():
    assert list(batch_indices(Rng(0), 1, 1, 0, np.array([7, 9]), 16)) == [7, 9]


def test_virtual_partition_costs_nothing_and_belongs_to_the_client():
    partition = Partition(clients=1_000_000, virtual_samples=50, num_train=300, seed=4)
    mine = partition.indices(999_999)
    assert mine.shape == (50,)
    assert mine.min() >= 0
    assert mine.max() < 300
    np.testing.assert_array_equal(mine, partition.indices(999_999))
    assert not np.array_equal(mine, partition.indices(999_998))


@pytest.mark.parametrize("tick", [1, 2])
def test_batches_are_keyed_by_client_round_and_step(tick):
    shard = np.arange(100)
    draws = {
        (k, t, s): tuple(batch_indices(Rng(0), k, t, s, shard, 8))
        for k in (0, 1)
        for t in (tick, tick + 10)
        for s in (0, 1)
    }
    assert len(set(draws.values())) == len(draws)
