"""The two arms that SOFT is compared with: sparsified states, and columns and rows chosen apart."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysoft.codecs import rank_components, topk
from raysoft.codecs.measure.curves import counts
from raysoft.config import parse_section
from raysoft.errors import ConfigError
from tests.unit.codecs.updates import assert_convex, build, client, view_of

LIKE, UNLIKE = [(6, 6)] * 3, [(3, 5), (7, 2), (3, 5), (4, 1)]
shapes = st.sampled_from([LIKE, UNLIKE, [(5, 2)]])
RNG = np.random.default_rng(0)


def product_error(space, left, right):
    """||B A - B' A'||^2 over all matrices, times the scale squared."""
    apart = [left[p.b].astype(float) @ left[p.a] - right[p.b].astype(float) @ right[p.a] for p in space.pairs]
    return space.scale**2 * sum(float((one**2).sum()) for one in apart)


def added(start, update):
    return {name: start[name] + update[name] for name in update}


@given(shapes, st.integers(0, 2**32), st.integers(1, 4), st.data())
@settings(max_examples=20, deadline=None)
def test_a_sparsified_state_is_zero_where_nothing_was_sent(shape, seed, rank, data):
    space, start, update = client(shape, rank, seed=seed)
    view = view_of(space, start, update)
    codec = build("topk", space, fallback="zero")
    curve = codec.menu(update, view, {})
    assert_convex(curve)
    units = data.draw(st.integers(0, curve.units))
    encoded = codec.encode(update, view, {}, units, RNG)
    assert encoded.payload.num_bits == curve.fixed_bits + curve.bits_J[units]
    received = added(start, codec.decode(encoded.payload, view, units))
    state = added(start, update)
    flat = np.concatenate([np.abs(value).ravel() for value in state.values()])
    kept = {name: np.abs(value) > 1e-6 for name, value in received.items()}  # start - start is zero exactly
    number = sum(int(mask.sum()) for mask in kept.values())
    least = np.sort(flat)[::-1][number - 1] if number else np.inf
    for name, value in state.items():  # the largest entries of both factors together, by brute force
        assert (kept[name] == (np.abs(value) >= least)).all()
        np.testing.assert_allclose(received[name], np.where(kept[name], value, 0), atol=1e-6)
    total = product_error(space, state, {name: np.zeros_like(value) for name, value in state.items()})
    assert curve.error_J[0] == pytest.approx(total, rel=1e-5)
    realised = product_error(space, state, received)
    assert encoded.relative_error == pytest.approx(realised / total, rel=1e-3, abs=1e-6)


def test_a_whole_state_is_the_whole_update_and_one_factor_has_no_zero_to_fall_to():
    space, start, update = client(LIKE, 2, head=True)
    view = view_of(space, start, update)
    codec = build("topk", space, fallback="zero")
    most = codec.menu(update, view, {}).units
    received = codec.decode(codec.encode(update, view, {}, most, RNG).payload, view, most)
    assert set(received) == set(update)
    for name, value in update.items():
        np.testing.assert_allclose(received[name], value, atol=1e-6)
    nothing = codec.decode(codec.encode(update, view, {}, 0, RNG).payload, view, 0)
    for name in (space.pairs[0].a, space.pairs[0].b):
        np.testing.assert_array_equal(nothing[name], -start[name])
    assert (nothing["head.weight"] == update["head.weight"]).all()
    space, start, update = client(LIKE, 2, kind="b")
    view = view_of(space, start, update)
    with pytest.raises(ValueError, match=r"fallback: zero needs a method that sends both factors, .* is not sent"):
        build("topk", space, fallback="zero").menu(update, view, {})


@pytest.mark.parametrize("importance", ["norm", "update"])
@given(shapes, st.integers(0, 2**32), st.sampled_from([32, 6]), st.data())
@settings(max_examples=15, deadline=None)
def test_columns_and_rows_are_chosen_apart(importance, shape, seed, bits, data):
    space, start, update = client(shape, 3, seed=seed)
    view = view_of(space, start, update)
    codec = build("rank_components", space, matched=False, importance=importance, bits_per_value=bits)
    curve = codec.menu(update, view, {})
    assert_convex(curve)
    units = data.draw(st.integers(0, curve.units))
    count = counts(3 * len(shape))[units]
    encoded = codec.encode(update, view, {}, units, RNG)
    assert encoded.payload.num_bits == curve.fixed_bits + curve.bits_J[units]
    received = codec.decode(encoded.payload, view, units)
    for letter, axis in (("b", 0), ("a", 1)):
        names = [getattr(pair, letter) for pair in space.pairs]
        other = {p.b: p.a for p in space.pairs} | {p.a: p.b for p in space.pairs}
        scores, sent = [], []
        for name in names:
            own = (start[name] + update[name] if importance == "norm" else update[name]).astype(float)
            against = (start[other[name]] + update[other[name]]).astype(float)
            energy = (own**2).sum(axis) * (1 if importance == "norm" else (against**2).sum(1 - axis))
            cost = bits * own.shape[axis] + (32 if bits < 32 else 0)
            scores.append(energy / cost)
            sent.append((np.abs(received[name]) > 0).any(axis))
            if bits == 32:
                np.testing.assert_array_equal(received[name], update[name] * np.expand_dims(sent[-1], axis))
        scores, sent = np.concatenate(scores), np.concatenate(sent)
        assert sent.sum() == count or bits < 32  # a block may round to zero
        best = np.argsort(-scores, kind="stable")[:count]
        assert not set(np.flatnonzero(sent)) - set(best.tolist())
    if bits == 32:
        state = added(start, update)
        total = product_error(space, state, start)
        realised = product_error(space, state, added(start, received))
        assert encoded.relative_error == pytest.approx(realised / total, rel=1e-3, abs=1e-6)


def test_the_masks_of_both_are_told_where_shapes_differ():
    lengths = set()
    for seed in range(8):
        space, start, update = client(UNLIKE, 2, seed=seed)
        view = view_of(space, start, update)
        curve = build("rank_components", space, matched=False).menu(update, view, {})
        assert curve.told_bits == 13 + 13  # eight steps of one piece: columns of 3 sizes, rows of 3
        lengths.add(tuple(curve.bits_J.tolist()))
    assert len(lengths) > 1
    space, start, update = client([(4, 6)] * 3, 2)
    view = view_of(space, start, update)
    assert build("rank_components", space, matched=False).menu(update, view, {}).told_bits == 0


def test_one_factor_alone_cannot_be_chosen_apart():
    space, start, update = client(LIKE, 2, kind="a")
    view = view_of(space, start, update)
    with pytest.raises(ValueError, match="matched: false needs a method that sends both factors"):
        build("rank_components", space, matched=False).menu(update, view, {})


@pytest.mark.parametrize(
    "module, options, words",
    [
        (rank_components, {"matched": False, "scope": "matrix"}, "matched: false goes with scope: model, got matrix"),
        (rank_components, {"matched": False, "importance": "gram_greedy"}, "importance: norm or update"),
        (topk, {"fallback": "zero", "error_feedback": True}, "fallback: zero .* no error_feedback"),
        (topk, {"fallback": "mean"}, "fallback"),
    ],
)
def test_what_does_not_go_together_is_refused(module, options, words):
    with pytest.raises(ConfigError, match=words):
        parse_section(module.Config, options, "codec")


@pytest.mark.parametrize(
    "member", [{"name": "topk", "fallback": "zero"}, {"name": "rank_components", "matched": False}]
)
def test_a_chain_refuses_what_it_would_pass_over(member):
    with pytest.raises(ConfigError, match="does not go with a chain"):
        build("chain", client(LIKE, 2)[0], codecs=[member])
