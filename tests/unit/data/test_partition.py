"""Partitions: every sample exactly once, min_samples for everybody or a message that says what would fit."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysoft.data.base import Examples, TaskData
from raysoft.data.partition import build_partition
from raysoft.errors import ConfigError
from raysoft.rng import Rng
from tests.tasks import config, task


def sizes(partition: Any) -> np.ndarray:
    return np.array([partition.size(k) for k in range(partition.clients)])


@settings(max_examples=120, deadline=None)
@given(
    kind=st.sampled_from(["iid", "dirichlet", "shards", "quantity"]),
    total=st.integers(1, 300),
    clients=st.integers(1, 40),
    least=st.integers(1, 6),
    classes=st.integers(1, 7),
    alpha=st.floats(1e-3, 100),
    per_client=st.integers(1, 4),
    seed=st.integers(0, 5),
)
def test_every_sample_exactly_once_and_min_samples_or_a_refusal(
    kind, total, clients, least, classes, alpha, per_client, seed
):
    labels = Rng(seed)("labels").integers(classes, size=total)
    section = config(
        partition=kind,
        clients=clients,
        min_samples=least,
        dirichlet_alpha=alpha,
        quantity_alpha=alpha,
        shards_per_client=per_client,
    )
    enough = total >= clients * least
    if kind == "shards":
        enough = enough and total // (clients * per_client) * per_client >= max(least, per_client)
    if not enough:
        with pytest.raises(ConfigError, match="training samples cannot"):
            build_partition(section, task(labels), Rng(seed))
        return
    partition = build_partition(section, task(labels), Rng(seed))
    shards = [partition.indices(k) for k in range(partition.clients)]
    assert partition.clients == clients
    assert min(len(shard) for shard in shards) >= least
    assert np.array_equal(np.sort(np.concatenate(shards)), np.arange(total))
    assert all(np.array_equal(shard, np.sort(shard)) for shard in shards)
    again = build_partition(section, task(labels), Rng(seed))
    assert all(np.array_equal(a, again.indices(k)) for k, a in enumerate(shards))


def test_refusal_names_a_number_of_clients_that_fits():
    labels = np.zeros(50, dtype=np.int64)
    with pytest.raises(ConfigError, match=r"data.clients=(\d+) or fewer") as caught:
        build_partition(config(partition="iid", clients=30, min_samples=3), task(labels), Rng(0))
    assert caught.value.field == "data.clients"
    found = re.search(r"data.clients=(\d+)", str(caught.value))
    assert found is not None
    build_partition(config(partition="iid", clients=int(found[1]), min_samples=3), task(labels), Rng(0))


def test_iid_sizes_differ_by_at_most_one():
    counts = sizes(build_partition(config(partition="iid", clients=7), task(np.zeros(100, dtype=np.int64)), Rng(3)))
    assert counts.max() - counts.min() <= 1


def test_dirichlet_heterogeneity_matches_its_moments():
    """A class's share at one client has mean 1/K and variance (1/K)(1-1/K)/(K alpha + 1); no repairs at this size."""
    clients, classes, alpha = 20, 50, 0.3
    labels = np.repeat(np.arange(classes), 1000)
    partition = build_partition(
        config(partition="dirichlet", clients=clients, dirichlet_alpha=alpha, min_samples=1), task(labels), Rng(11)
    )
    share = np.stack([np.bincount(labels[partition.indices(k)], minlength=classes) for k in range(clients)]) / 1000
    expected = (1 / clients) * (1 - 1 / clients) / (clients * alpha + 1)
    # 1000 shares; kurtosis below 25 for this Beta, so the relative error of the variance is below 0.16 (one sigma).
    assert share.var() == pytest.approx(expected, rel=0.4)
    assert share.mean() == pytest.approx(1 / clients)


def test_a_smaller_alpha_is_more_heterogeneous():
    labels = np.repeat(np.arange(10), 200)

    def distance(alpha: float) -> float:
        partition = build_partition(
            config(partition="dirichlet", clients=10, dirichlet_alpha=alpha), task(labels), Rng(0)
        )
        mix = np.stack([np.bincount(labels[partition.indices(k)], minlength=10) for k in range(10)])
        return float(np.abs(mix / mix.sum(1, keepdims=True) - 0.1).sum(1).mean())

    assert distance(0.05) > distance(0.5) > distance(50.0)


def test_shards_give_each_client_few_classes():
    labels = Rng(0)("x").permutation(np.repeat(np.arange(10), 100))
    partition = build_partition(config(partition="shards", clients=50, shards_per_client=2), task(labels), Rng(0))
    assert set(sizes(partition)) == {20}
    # 1000 samples in 100 runs of 10: no run crosses a class, so nobody sees more than two.
    assert max(len(np.unique(labels[partition.indices(k)])) for k in range(50)) == 2


def test_quantity_skew_follows_the_same_classes_everywhere():
    labels = Rng(0)("x").permutation(np.repeat(np.arange(2), 20000))
    partition = build_partition(
        config(partition="quantity", clients=20, quantity_alpha=0.5, min_samples=30), task(labels), Rng(4)
    )
    counts = sizes(partition)
    assert counts.min() >= 30
    assert counts.max() > 4 * np.median(counts)
    for k in np.flatnonzero(counts > 1000):
        half = labels[partition.indices(int(k))].mean()
        assert abs(half - 0.5) < 5 * 0.5 / np.sqrt(counts[k])


def test_natural_partition_is_the_groups():
    groups = np.array([2, 0, 1, 0, 2, 2, 1])
    partition = build_partition(
        config(partition="natural", min_samples=2, cohort=3), task(np.zeros(7, dtype=np.int64), groups), Rng(0)
    )
    assert partition.names == ("g0", "g1", "g2")
    assert [partition.indices(k).tolist() for k in range(3)] == [[1, 3], [2, 6], [0, 4, 5]]


@pytest.mark.parametrize(
    "groups, changes, field, words",
    [
        (None, {}, "data.natural_key", "is required"),
        (np.array([0, 0, 1]), {}, "data.min_samples", "'g1' with 1; use data.min_samples=1"),
        (np.array([0, 0, 1]), {"min_samples": 1, "cohort": 3}, "cohort.size", "2 clients"),
    ],
)
def test_natural_partition_refusals(groups, changes, field, words):
    with pytest.raises(ConfigError, match=words) as caught:
        build_partition(
            config(**{"partition": "natural", **changes}), task(np.zeros(3, dtype=np.int64), groups), Rng(0)
        )
    assert caught.value.field == field


def test_virtual_clients_are_keyed_draws_of_any_number():
    labels = np.zeros(500, dtype=np.int64)
    section = config(partition="virtual", clients=10**9, samples_per_client=40, cohort=5)
    partition = build_partition(section, task(labels), Rng(7))
    first, far = partition.indices(3), partition.indices(10**9 - 1)
    assert partition.clients == 10**9
    assert len(first) == len(far) == partition.size(3) == 40
    assert np.array_equal(first, build_partition(section, task(labels), Rng(7)).indices(3))
    assert not np.array_equal(first, far)
    assert not np.array_equal(first, build_partition(section, task(labels), Rng(8)).indices(3))
    everything = np.concatenate([partition.indices(k) for k in range(200)])
    assert everything.min() >= 0
    assert everything.max() <= 499
    # 8000 uniform draws over 500 cells: chi-square with 499 degrees of freedom, mean 499, deviation 31.6.
    counts = np.bincount(everything, minlength=500)
    assert abs(((counts - 16.0) ** 2 / 16.0).sum() - 499) < 5 * 31.6
    with pytest.raises(ConfigError, match="min_samples=50"):
        build_partition(config(partition="virtual", samples_per_client=40, min_samples=50), task(labels), Rng(0))


@pytest.mark.parametrize("kind", ["dirichlet", "shards"])
def test_a_language_model_without_groups_has_nothing_to_skew(kind):
    ids = np.ones((40, 4), dtype=np.int64)
    text = Examples({"input_ids": ids, "attention_mask": ids}, ids, np.full(40, 4))
    with pytest.raises(ConfigError, match="causal-lm") as caught:
        build_partition(config(partition=kind, clients=4), TaskData("causal-lm", text, text, text, text), Rng(0))
    assert caught.value.field == "data.partition"
    grouped = TaskData("causal-lm", text, text, text, text, groups=np.arange(40) % 5, group_names=tuple("abcde"))
    assert sum(sizes(build_partition(config(partition=kind, clients=4), grouped, Rng(0)))) == 40
