"""Keyed random numbers: distribution, independence across keys, purity, and pinned values."""

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from raysoft.rng import Rng

N = 200_000
CLIENTS = np.arange(N)

GOLDEN_UNIFORM = [
    [0.9315733388004063, 0.05092858228420705],
    [0.8749675654599866, 0.6487919708473869],
    [0.37201138129528266, 0.8572192315600234],
]
GOLDEN_NORMAL = [
    [-0.029441058685163432, 1.8057689921408897, -0.37535842106783135],
    [0.11964298137365965, 0.7639491687925106, -0.5028145579859444],
]
GOLDEN_INTEGERS = [1702377603338899600, 3836493581245925516, 2485616979089940561]


def dkw(n: int, risk: float = 1e-6) -> float:
    """Distance of empirical and true CDF, exceeded with probability `risk` at most (Dvoretzky-Kiefer-Wolfowitz)."""
    return math.sqrt(math.log(2 / risk) / (2 * n))


def assert_uniform_pairs(u: np.ndarray, v: np.ndarray, bins: int = 16) -> None:
    """Chi-square of (u, v) on a square grid: uniform and independent."""
    counts = np.histogram2d(u, v, bins=bins, range=((0, 1), (0, 1)))[0].ravel()
    assert stats.chisquare(counts).pvalue > 1e-4


def test_golden_values() -> None:
    """A change here changes every run: it needs a new major version."""
    assert Rng(0).uniform("gain", [0, 1, 10**6], 5, size=2).tolist() == GOLDEN_UNIFORM
    assert Rng(0).normal("gain", [0, 1], 5, size=3) == pytest.approx(np.array(GOLDEN_NORMAL), rel=1e-14)
    assert Rng(7)("batch", 3, 2).integers(2**62, size=3).tolist() == GOLDEN_INTEGERS


def test_uniform_distribution() -> None:
    u = Rng(1).uniform("x", CLIENTS, 0)[:, 0]
    assert stats.kstest(u, "uniform").statistic < dkw(N)
    assert stats.chisquare(np.histogram(u, bins=1000, range=(0, 1))[0]).pvalue > 1e-4
    low_digits = (u * 2**40) % 1.0  # the low bits are as good as the high ones
    assert stats.kstest(low_digits, "uniform").statistic < dkw(N)


def key_of(bits: int) -> int:
    """The key for which seed 0 and purpose "x" draw these 64 bits: SplitMix64, which is one to one, backwards."""
    word, golden = 2**64, 0x9E3779B97F4A7C15

    def unmix(x: int) -> int:
        for shift, factor in ((31, 0x94D049BB133111EB), (27, 0xBF58476D1CE4E5B9), (30, 1)):
            y = x
            for _ in range(64 // shift):
                y = x ^ (y >> shift)
            x = y * pow(factor, -1, word) % word
        return x

    digest = int.from_bytes(hashlib.blake2b(b"0\x1fx", digest_size=16).digest(), "little") % word
    state = unmix((unmix(bits) - golden) % word)
    key = (state - golden) * pow(golden, -1, word) % word ^ digest
    return key - word if key >= word // 2 else key


def test_uniform_never_reaches_the_ends() -> None:
    """At the keys that draw the smallest and the largest numbers there are."""
    assert Rng(0).uniform("x", key_of(2**64 - 1))[0, 0] == 1.0 - 2.0**-53
    assert Rng(0).uniform("x", key_of(0))[0, 0] == 2.0**-53


def test_normal_distribution() -> None:
    z = Rng(2).normal("x", CLIENTS, 3, size=3)
    for column in z.T:
        assert stats.kstest(column, "norm").statistic < dkw(N)
    assert np.abs(np.corrcoef(z.T) - np.eye(3)).max() < 5 / math.sqrt(N)
    # Box-Muller pairs share a radius, so look at the squares too.
    assert np.abs(np.corrcoef((z**2).T) - np.eye(3)).max() < 5 / math.sqrt(N)
    tail = (np.abs(z) > 4).sum()
    expected = z.size * 2 * stats.norm.sf(4)
    assert abs(tail - expected) < 5 * math.sqrt(expected)


@pytest.mark.parametrize(
    "other",
    [
        lambda: Rng(3).uniform("x", CLIENTS + 1, 5),
        lambda: Rng(3).uniform("x", CLIENTS, 6),
        lambda: Rng(3).uniform("y", CLIENTS, 5),
        lambda: Rng(4).uniform("x", CLIENTS, 5),
        lambda: Rng(3).uniform("x", 5, CLIENTS),
        lambda: Rng(3).uniform("x", CLIENTS, 5, 0),
        lambda: Rng(3).uniform("x", CLIENTS, 5, size=2)[:, 1:],
        lambda: Rng(3).uniform("x", CLIENTS << 32, 5),
    ],
    ids=["next client", "next block", "purpose", "seed", "swapped keys", "more keys", "next column", "high bits"],
)
def test_keys_are_independent(other) -> None:
    u, v = Rng(3).uniform("x", CLIENTS, 5)[:, 0], other()[:, 0]
    # Client 0 keeps its value where only a shift of its id makes the difference, and (5, 5) its swap.
    different = u != v
    assert different.sum() >= N - 1
    u, v = u[different], v[different]
    assert abs(np.corrcoef(u, v)[0, 1]) < 5 / math.sqrt(N)
    assert_uniform_pairs(u, v)


def test_rounds_of_one_client_are_independent() -> None:
    u = Rng(5).uniform("fading", 123, np.arange(N))[:, 0]
    assert stats.kstest(u, "uniform").statistic < dkw(N)
    assert_uniform_pairs(u[:-1], u[1:])


def test_no_collisions_over_a_grid_of_keys() -> None:
    client, block = np.divmod(np.arange(1_000_000), 1000)
    u = Rng(6).uniform("x", client, block)[:, 0]
    assert len(np.unique(u)) == len(u)  # by chance 1e12 / 2**53 = 1e-4


def test_one_bit_of_a_key_changes_half_of_the_result() -> None:
    clients = np.arange(2000)
    base = (Rng(8).uniform("x", clients, 1)[:, 0] * 2**52).astype(np.uint64)
    for bit in range(0, 62, 3):
        flipped = (Rng(8).uniform("x", clients ^ (1 << bit), 1)[:, 0] * 2**52).astype(np.uint64)
        share = np.bitwise_count(base ^ flipped).mean() / 52
        assert abs(share - 0.5) < 5 * 0.5 / math.sqrt(52 * len(clients))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**63 - 1),
    clients=st.lists(st.integers(0, 2**62), min_size=1, max_size=40),
    block=st.integers(0, 10**7),
    size=st.integers(1, 5),
)
def test_a_row_depends_on_its_own_keys_only(seed: int, clients: list[int], block: int, size: int) -> None:
    for draw in (Rng(seed).uniform, Rng(seed).normal):
        together = draw("x", clients, block, size=size)
        alone = np.concatenate([draw("x", client, block, size=size) for client in clients])
        backwards = draw("x", clients[::-1], block, size=size)[::-1]
        assert np.array_equal(together, alone)
        assert np.array_equal(together, backwards)
        assert np.isfinite(together).all()


def test_more_uniform_numbers_extend_fewer() -> None:
    assert np.array_equal(Rng(0).uniform("x", [4, 9], size=7)[:, :3], Rng(0).uniform("x", [4, 9], size=3))


def test_keys_broadcast() -> None:
    both = Rng(0).uniform("x", [1, 2], [7, 7])
    assert np.array_equal(both, Rng(0).uniform("x", [1, 2], 7))
    assert Rng(0).uniform("x", 1, size=3).shape == (1, 3)
    assert Rng(0).uniform("x", np.array([], dtype=int), 3).shape == (0, 1)


def test_generators_are_keyed_and_stateless() -> None:
    rng = Rng(9)
    first = rng("batch", 1, 2).random(5)
    rng("batch", 1, 2).random(100)
    np.random.seed(0)
    assert np.array_equal(Rng(9)("batch", 1, 2).random(5), first)
    others = [Rng(9)("batch", 2, 1), Rng(9)("batch", 12), Rng(9)("cohort", 1, 2), Rng(10)("batch", 1, 2)]
    assert all(not np.array_equal(other.random(5), first) for other in others)
    assert np.array_equal(rng("batch", np.int64(1), np.int32(2)).random(5), first)


def test_first_numbers_of_many_generators_are_uniform() -> None:
    u = np.array([Rng(0)("cohort", round_).random() for round_ in range(5000)])
    assert stats.kstest(u, "uniform").statistic < dkw(len(u))
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 5 / math.sqrt(len(u))


def test_the_global_generator_is_not_touched() -> None:
    before = np.random.get_state()[1].copy()
    Rng(0).normal("x", CLIENTS[:10])
    Rng(0)("x").random()
    assert np.array_equal(np.random.get_state()[1], before)
