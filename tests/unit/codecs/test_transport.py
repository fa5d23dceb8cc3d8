"""Error feedback in effective changes: nothing is lost when the server turns the factors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysoft.codecs.memory.fading import Fading
from raysoft.errors import ConfigError
from tests.unit.codecs.updates import MODULES, build, client, products, view_of

CHAINED = {"codecs": [{"name": "rank_components"}, {"name": "quantize", "bits": 5}]}
CODECS = [("rank_components", {"bits_per_value": 4}), *((name, CHAINED if name == "chain" else {}) for name in MODULES)]


def effect(space, start, update):
    """s (B A - B0 A0) of every matrix."""
    return [x - y for x, y in zip(products(space, start, update), products(space, start, {}), strict=True)]


def turned(space, start, seed):
    """The same product in other coordinates."""
    out, rng = dict(start), np.random.default_rng(seed)
    for pair in space.pairs:
        rank = start[pair.a].shape[0]
        mix = np.linalg.qr(rng.normal(size=(rank, rank)))[0] * rng.uniform(0.5, 2.0, rank)
        out[pair.b] = start[pair.b].astype(np.float64) @ mix
        out[pair.a] = np.linalg.inv(mix) @ start[pair.a].astype(np.float64)
    return out


def remembered(space, memory):
    return [space.scale * memory[f"ef/{p.module}.left"] @ memory[f"ef/{p.module}.right"] for p in space.pairs]


@pytest.mark.parametrize("name, options", CODECS)
@pytest.mark.parametrize("kind", ["ab", "b"])
def test_what_was_delivered_plus_the_memory_is_the_sum_of_the_updates(name, options, kind):
    """Rank 4 in 8 x 7 matrices: a memory of rank 2 R holds everything, so the sum is exact."""
    space, first, _ = client([(8, 7)] * 3, 4, head=True)
    codec = build(name, space, error_feedback="transport", **options)
    rng, memory = np.random.default_rng(0), {}
    wanted, received = ([np.zeros((8, 7)) for _ in range(3)] for _ in range(2))
    head = np.zeros((3, 5))
    for round_ in range(8):
        start = turned(space, first, round_)
        _, _, update = client([(8, 7)] * 3, 4, head=True, seed=round_, kind=kind)
        view = view_of(space, start, update)
        units = 1 + (5 * round_) % codec.menu(update, view, memory).units
        encoded = codec.encode(update, view, memory, units, rng)
        delivered = round_ % 3 != 1
        memory = encoded.memory_if_delivered if delivered else encoded.memory_if_lost
        sent = codec.decode(encoded.payload, view, units)
        for total, change in zip(wanted, effect(space, start, update), strict=True):
            total += change
        if delivered:
            for total, change in zip(received, effect(space, start, sent), strict=True):
                total += change
        head += update["head.weight"] - (sent["head.weight"] if delivered else 0.0)
        assert 0.0 <= encoded.stats["memory_residual"] <= 1.0 + 1e-12
        for total, got, kept in zip(wanted, received, remembered(space, memory), strict=True):
            np.testing.assert_allclose(got + kept, total, atol=1e-9)
        np.testing.assert_allclose(memory["ef/head.weight"], head, atol=1e-6)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_a_memory_is_used_as_the_nearest_change_of_b(out, width, rank, seed):
    space, start, update = client([(out, width)], rank, seed=seed)
    view = view_of(space, start, update)
    codec = build("identity", space, error_feedback="transport")
    rng = np.random.default_rng(seed)
    left, right = rng.normal(size=(out, 2)), rng.normal(size=(2, width))
    memory = {"ef/layer0.left": left, "ef/layer0.right": right}
    pair = space.pairs[0]
    rows = start[pair.a].astype(np.float64) + update[pair.a]
    inside = left @ right @ np.linalg.pinv(rows) @ rows  # E P_A
    encoded = codec.encode(update, view, memory, 1, rng)
    sent = codec.decode(encoded.payload, view, 1)
    want = effect(space, start, update)[0] + space.scale * inside
    size = np.abs(want).max() + np.linalg.cond(rows) ** 2
    np.testing.assert_allclose(effect(space, start, sent)[0], want, atol=2e-5 * size)
    share = np.linalg.norm(left @ right - inside) ** 2 / np.linalg.norm(left @ right) ** 2
    assert float(encoded.stats["memory_residual"]) == pytest.approx(share, abs=1e-9)


def test_without_memory_it_is_the_inner_codec():
    space, start, update = client([(9, 7)] * 3, 4)
    plain, fed = build("rank_components", space), build("rank_components", space, error_feedback="transport")
    for order in (None, np.random.default_rng(1).permutation(12)):
        view = view_of(space, start, update, order)
        assert (fed.menu(update, view, {}).error_J == plain.menu(update, view, {}).error_J).all()
        draws = np.random.default_rng(0)
        first, second = (codec.encode(update, view, {}, 3, draws) for codec in (fed, plain))
        assert first.payload == second.payload


def test_the_memory_stays_as_large_as_two_ranks_and_drops_the_least():
    space, start, _ = client([(30, 40)], 3)
    view = view_of(space, start)
    codec, memory = build("rank_components", space, error_feedback="transport"), {}
    for round_ in range(5):
        _, _, update = client([(30, 40)], 3, seed=round_)
        memory = codec.encode(update, view, memory, 1, np.random.default_rng(0)).memory_if_delivered
        assert memory["ef/layer0.left"].shape == (30, 6)
        assert memory["ef/layer0.right"].shape == (6, 40)


def test_a_rank_that_changes_and_values_that_are_not_finite():
    space, start, update = client([(9, 7)], 3, r_max=4)
    view = view_of(space, start, update)
    codec = build("rank_components", space, error_feedback="transport")
    memory = codec.encode(update, view, {}, 1, np.random.default_rng(0)).memory_if_delivered
    other_space, other_start, other_update = client([(9, 7)], 2, r_max=4)
    other = build("rank_components", other_space, error_feedback="transport")
    view = view_of(other_space, other_start)
    assert other.encode(other_update, view, memory, 1, np.random.default_rng(0)).payload.num_bits
    _, _, only_a = client([(9, 7)], 3, r_max=4, kind="a")
    with pytest.raises(ValueError, match="change B"):
        codec.menu(only_a, view_of(space, start, only_a), memory)


def test_decay_and_clip():
    assert Fading().factor(5.0, 0.0) == 1.0
    assert Fading(decay=0.5).factor(5.0, 1.0) == 0.5
    assert Fading(decay=0.5, clip=2.0).factor(16.0, 1.0) == 0.5  # 0.5 * 4 = 2 is just allowed
    assert Fading(clip=2.0).factor(16.0, 1.0) == 0.5
    assert Fading(clip=2.0).factor(16.0, 0.0) == 0.0
    space, start, update = client([(9, 7)] * 2, 4)
    view = view_of(space, start, update)
    memory = {"ef/" + name: 3.0 * value.astype(np.float64) for name, value in update.items()}
    for options, times in (({"error_feedback_decay": 0.5}, 2.5), ({"error_feedback_clip": 1.0}, 2.0), ({}, 4.0)):
        codec = build("identity", space, error_feedback=True, **options)
        lost = codec.encode(update, view, memory, 1, np.random.default_rng(0)).memory_if_lost
        for name, value in update.items():
            np.testing.assert_allclose(lost["ef/" + name], times * value.astype(np.float64), rtol=1e-12)
    left, right = np.ones((9, 1)), np.ones((1, 7))
    transported = {f"ef/layer{k}.{side}": x for k in range(2) for side, x in (("left", left), ("right", right))}
    unsent = {}
    for decay in (1.0, 0.25):
        codec = build("rank_components", space, error_feedback="transport", error_feedback_decay=decay)
        nothing = {name: np.zeros_like(value) for name, value in update.items()}
        kept = codec.encode(nothing, view, transported, 0, np.random.default_rng(0)).memory_if_delivered
        unsent[decay] = remembered(space, kept)
    np.testing.assert_allclose(unsent[1.0], np.full((2, 9, 7), space.scale), atol=1e-9)
    np.testing.assert_allclose(unsent[0.25], np.full((2, 9, 7), 0.25 * space.scale), atol=1e-9)
    with pytest.raises(ConfigError, match="need error_feedback"):
        build("identity", space, error_feedback_decay=0.5)
