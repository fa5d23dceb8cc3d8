"""Rotated values at few bits, and bits spent where they count."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysoft.codecs.measure.factors import Layout, read_update
from raysoft.codecs.measure.gradings import grade
from raysoft.codecs.waterfill import resolution_sides, side_bits, take_resolutions
from raysoft.codecs.wire.rotated import (
    FINEST,
    SCALE_BITS,
    gaussian_levels,
    restore_blocks,
    rotate,
    round_blocks,
    unrotate,
)
from raysoft.errors import ConfigError
from tests.unit.codecs.updates import build, client, dense_error, view_of

# Max (1960), table I: mean square error of the best 2, 4, 8, 16 levels for a standard normal variable.
MAX_1960 = {1: 0.3634, 2: 0.1175, 3: 0.03454, 4: 0.009497}


def test_levels_are_those_of_max():
    np.testing.assert_allclose(gaussian_levels(1), [-np.sqrt(2 / np.pi), np.sqrt(2 / np.pi)], rtol=1e-12)
    np.testing.assert_allclose(gaussian_levels(2)[2:], [0.4528, 1.510], atol=5e-4)
    np.testing.assert_allclose(gaussian_levels(3)[4:], [0.2451, 0.7560, 1.344, 2.152], atol=5e-4)
    assert all((np.diff(gaussian_levels(bits)) > 0).all() for bits in range(1, FINEST + 1))


@pytest.mark.parametrize("bits", MAX_1960)
def test_the_error_does_not_depend_on_the_distribution(bits):
    """One large entry among zeros, or heavy tails, cost what a Gaussian costs: 64 entries, mean over 200 blocks."""
    rng = np.random.default_rng(0)
    blocks = {
        "normal": rng.normal(size=(200, 64)),
        "laplace": rng.laplace(size=(200, 64)),
        "spike": np.eye(64)[rng.integers(0, 64, 200)] * 3e-4,
        "huge": 1e9 * rng.standard_t(3, size=(200, 64)),
    }
    for name, x in blocks.items():
        sizes, each = np.full(200, 64), np.full(200, bits)
        back = restore_blocks(*round_blocks(x.ravel(), sizes, each), sizes, each).reshape(x.shape)
        error = ((back - x) ** 2).sum(1) / (x**2).sum(1)
        if name != "huge":
            assert error.mean() < 1.15 * MAX_1960[bits] + 4e-4  # the scale is 2.2 % exact
        assert np.isfinite(back).all()


@given(st.integers(1, 40), st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_rotation_is_orthogonal(length, seed):
    x = np.random.default_rng(seed).normal(size=(3, length))
    np.testing.assert_allclose(rotate(x) @ rotate(x).T, x @ x.T, atol=1e-10)
    np.testing.assert_allclose(unrotate(rotate(x)), x, atol=1e-12)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=300))
@settings(max_examples=60, deadline=None)
def test_resolutions_come_back_and_cost_what_is_counted(bits):
    bits_n = np.array(bits)
    sides = resolution_sides(bits_n, 5)
    widths = [width for _, width in sides]
    assert all(0 <= value < 1 << width for value, width in sides if width)
    given_out = iter(sides)

    def take(width: int) -> int:
        value, own = next(given_out)
        assert own == width
        return value

    back, taken, spent = take_resolutions(len(bits), 5, take)
    assert (back == bits_n).all()
    assert taken == tuple(value for value, _ in sides)
    assert spent == sum(widths) == side_bits([len(bits), *(int((bits_n > level).sum()) for level in range(5))])


@pytest.mark.parametrize("kind", ["ab", "b", "a"])
def test_every_unit_has_exactly_the_error_that_the_scheme_foretells(kind):
    space, start, update = client([(12, 10)] * 2 + [(6, 14)], 4, seed=7, kind=kind, r_max=5)
    view = view_of(space, start, update)
    codec = build("waterfill", space)
    bits, errors = codec.scheme.curve(read_update(Layout(space, 4), update, view), codec.coder)
    assert (np.diff(errors) <= 1e-12 * errors[0]).mean() > 0.9  # small steps up where cross terms bite
    for units in range(len(bits)):
        payload = codec.encode(update, view, {}, units, np.random.default_rng(0)).payload
        received = codec.decode(payload, view, units)
        assert payload.num_bits >= bits[units]
        assert dense_error(space, start, update, received) == pytest.approx(errors[units], rel=2e-5)
    assert errors[-1] < 0.02 * errors[0]


def test_no_other_resolutions_of_the_same_cost_lose_less():
    """Brute force over all 4^5 resolutions of five vectors, by the error of each vector alone."""
    for seed in range(5):
        space, start, update = client([(5, 4)], 5, seed=seed, kind="b", size=0.3)
        view = view_of(space, start, update)
        grades = grade(read_update(Layout(space, 5), update, view), 3)
        table = grades.groups[0].errors_NQ
        every = np.array(list(product(range(4), repeat=5)))
        cost = every @ grades.sizes_N + SCALE_BITS * (every > 0).sum(1)
        loss = table[np.arange(5), every].sum(1)
        for steps in range(1, len(grades.order) + 1):
            bits = grades.resolutions(steps)
            spent = int(bits @ grades.sizes_N) + SCALE_BITS * int((bits > 0).sum())
            assert spent == grades.spent_S[steps]
            assert (grades.above_SQ[steps] == [(bits > level).sum() for level in range(3)]).all()
            own = table[np.arange(5), bits].sum()
            slope = (table[np.arange(5), np.maximum(bits - 1, 0)] - table[np.arange(5), bits]).max()
            # Steps of one minorant segment are taken one by one, so only the ends of segments are optimal.
            if steps == len(grades.order) or grades.order[steps] != grades.order[steps - 1]:
                assert own <= loss[cost <= spent].min() + max(slope, 0.0) + 1e-12


def test_where_nothing_moves_nothing_is_spent_and_what_matters_more_gets_more():
    space, start, update = client([(16, 16)] * 2, 4, seed=1, b0=0.0)
    view = view_of(space, start, update)
    update["layer0.lora_B"][:, 0] = 0.0
    update["layer0.lora_A"][0] = 0.0
    update["layer1.lora_B"] *= 100.0
    grades = grade(read_update(Layout(space, 4), update, view), 6)
    bits = grades.resolutions(len(grades.order))
    assert bits[0] == bits[8] == 0  # b_0 and a_0 of the first matrix; vectors are 8 columns, then 8 rows
    half = grades.resolutions(len(grades.order) // 2)
    assert half[4:8].min() > half[1:4].max()


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_rotated_values_lose_what_the_theory_says(bits):
    """Everything sent, B only: the squared error of dB is that of Max's levels whatever the sizes of the columns."""
    space, start, update = client([(96, 64)] * 3, 8, seed=2, kind="b")
    view = view_of(space, start, update)
    codec = build("identity", space, bits_per_value=bits, quantizer="rotated")
    payload = codec.encode(update, view, {}, 1, np.random.default_rng(0)).payload
    assert payload.num_bits == 3 * 8 * (96 * bits + SCALE_BITS)
    received = codec.decode(payload, view, 1)
    for pair in space.pairs:
        lost = ((received[pair.b] - update[pair.b]).astype(float) ** 2).sum() / (
            update[pair.b].astype(float) ** 2
        ).sum()
        assert lost == pytest.approx(MAX_1960[bits], rel=0.25, abs=4e-4)


def test_rotation_is_refused_where_it_cannot_work():
    space, _, _ = client([(3, 3)], 2)
    chain = [{"name": "topk"}, {"name": "quantize", "bits": 3}]
    for name, options, message in [
        ("topk", {"bits_per_value": 3}, "whole columns and rows"),
        ("randomk", {"bits_per_value": 3}, "whole columns and rows"),
        ("identity", {}, "1 to 8 bits a value, not 32"),
        ("quantize", {"bits": 9}, "1 to 8 bits a value, not 9"),
        ("chain", {"codecs": chain}, "which topk does not send"),
    ]:
        with pytest.raises(ConfigError, match=message):
            build(name, space, quantizer="rotated", **options)
    with pytest.raises(ConfigError, match="quantizer: belongs to the chain"):
        build("chain", space, codecs=[{"name": "quantize", "bits": 4, "quantizer": "rotated"}])


def test_options():
    space, _, _ = client([(3, 3)], 2)
    with pytest.raises(ConfigError, match="leave bits_per_value at 32"):
        build("waterfill", space, bits_per_value=4)
    with pytest.raises(ConfigError, match="max_bits"):
        build("waterfill", space, bits=5, max_bits=4)
