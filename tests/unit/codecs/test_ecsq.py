"""Entropy-coded scalar quantisation: what travels, what it costs, and how close to the rate-distortion limit it is."""

import itertools
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysoft.codecs import ecsq
from raysoft.codecs.base import CodecConfig, value_bits
from raysoft.codecs.ecsq import LEVELS
from raysoft.codecs.measure.factors import Layout, read_update
from raysoft.codecs.measure.steps import COHERENCE, Entries
from raysoft.config import parse_section
from raysoft.errors import ConfigError
from raysoft.runs.outcome import with_shares
from raysoft.types import LoraPair, ParamSpace, Payload
from tests.unit.codecs.updates import assert_convex, build, client, dense_error, view_of

GAINS = ("projection", "balanced", "unbiased")
RNG = np.random.default_rng(0)  # nothing is drawn: heads travel as float32
clients = st.fixed_dictionaries(
    {
        "shapes": st.lists(st.tuples(st.integers(1, 70), st.integers(1, 70)), min_size=1, max_size=4),
        "rank": st.integers(1, 5),
        "seed": st.integers(0, 2**32),
        "head": st.booleans(),
        "kind": st.sampled_from(["ab", "b", "a"]),
        "b0": st.sampled_from([0.0, 0.1]),
    }
)


def orthogonal(kind: str, size: float, draw="normal", rank: int = 8, width: int = 64, matrices: int = 8):
    """(space, start, update) where rows of A and columns of B are orthogonal, all of length one."""
    rng = np.random.default_rng(7)
    pairs = tuple(LoraPair(f"layer{k}", width, width) for k in range(matrices))
    start, update = {}, {}
    for pair in pairs:
        for name, shape, letter in ((pair.a, (rank, width), "a"), (pair.b, (width, rank), "b")):
            basis = np.linalg.qr(rng.normal(size=(width, rank)))[0].astype(np.float32)
            start[name] = basis if letter == "b" else basis.T
            if letter in kind:
                update[name] = (size * getattr(rng, draw)(size=shape)).astype(np.float32)
    return ParamSpace(pairs, rank, 2.0), start, update


def entries(space, start, update, received):
    """Entries of dB wanted and sent in units of ||a_j||; of dA in units of the decoded ||b_j||: float64, flat."""
    b, a = ([], []), ([], [])
    for pair in space.pairs:
        norm = np.linalg.norm(start[pair.a].astype(np.float64), axis=1)
        columns = start[pair.b] + np.asarray(received.get(pair.b, 0.0), dtype=np.float64)
        for at, values in enumerate((update, received)):
            if pair.b in update:
                b[at].append((values[pair.b].astype(np.float64) * norm).ravel())
            if pair.a in update:
                a[at].append((values[pair.a].astype(np.float64) * np.linalg.norm(columns, axis=0)[:, None]).ravel())
    return [tuple(np.concatenate(x) for x in pair) for pair in (b, a) if pair[0]]


@given(clients, st.sampled_from(GAINS), st.integers(0, LEVELS))
@settings(max_examples=60, deadline=None)
def test_bits_are_those_of_the_menu_and_the_error_is_that_of_what_is_decoded(spec, gain, units):
    space, start, update = client(**spec, r_max=spec["rank"] + 2)
    view = view_of(space, start, update)
    codec = build("ecsq", space, gain=gain)
    curve = codec.menu(update, view, {})
    assert_convex(curve)
    assert curve.units == LEVELS
    encoded = codec.encode(update, view, {}, units, RNG)
    assert encoded.payload.num_bits == curve.fixed_bits + curve.bits_J[units]
    assert len(encoded.payload.data) == (encoded.payload.num_bits + 7) // 8
    received = codec.decode(encoded.payload, view, units)
    assert set(received) == set(update)
    assert all(x.dtype == np.float32 and x.shape == start[name].shape for name, x in received.items())
    if spec["head"]:
        assert all((received[name] == update[name]).all() for name in ("head.weight", "head.bias"))
    factors = [{k: v for k, v in x.items() if "lora" in k} for x in (update, received)]
    total = dense_error(space, start, factors[0], {})
    if total > 0:
        realised = dense_error(space, start, *factors)
        assert encoded.relative_error == pytest.approx(realised / total, rel=1e-8, abs=1e-12)
    rank = spec["rank"]
    sent = [
        np.pad(
            (received[p.b] != 0).any(axis=0) if p.b in received else np.zeros(rank, dtype=bool), (0, 2)
        )  # components of columns
        | np.pad((received[p.a] != 0).any(axis=1) if p.a in received else np.zeros(rank, dtype=bool), (0, 2))
        for p in space.pairs
    ]
    assert (encoded.stats["sent"] == np.concatenate(sent)).all()


@pytest.mark.parametrize("kind", ["ab", "b", "a"])
@pytest.mark.parametrize("units", [1, 3, 7, 18])
def test_gains_are_what_they_are_called(kind, units):
    space, start, update = client([(30, 20)] * 2 + [(9, 41)], 4, seed=3, kind=kind)
    view = view_of(space, start, update)
    parts = {}
    for gain in GAINS:
        codec = build("ecsq", space, gain=gain)
        payload = codec.encode(update, view, {}, units, RNG).payload
        parts[gain] = entries(space, start, update, codec.decode(payload, view, units))
    for wanted, sent in parts["unbiased"]:
        assert wanted @ sent == pytest.approx(wanted @ wanted, rel=1e-6)
    for wanted, sent in parts["projection"]:  # least squares: what is missing is orthogonal to what is sent
        assert abs((wanted - sent) @ sent) <= 1e-6 * (wanted @ wanted)
    # B is rounded alike under all gains (A is rounded in units of the decoded columns): the same entries, scaled.
    (wanted, unbiased), (_, balanced), (_, projected) = (parts[gain][0] for gain in ("unbiased", "balanced", GAINS[0]))
    excess = ((wanted - unbiased) ** 2).sum() / (wanted @ wanted)
    np.testing.assert_allclose(balanced, unbiased * COHERENCE / (COHERENCE + excess), rtol=1e-5)
    np.testing.assert_allclose(projected, unbiased / (1 + excess), rtol=1e-5)


@pytest.mark.parametrize("kind", ["b", "a"])
def test_one_factor_in_orthogonal_coordinates_has_the_error_of_the_curve(kind):
    space, start, update = orthogonal(kind, 0.02, matrices=2)
    view = view_of(space, start, update)
    codec = build("ecsq", space, gain="projection")
    curve = codec.menu(update, view, {})
    total = dense_error(space, start, update, {})
    assert curve.error_J[0] == pytest.approx(total, rel=1e-6)
    exact = [codec.encode(update, view, {}, units, RNG).relative_error for units in range(LEVELS + 1)]
    realised = np.array(exact) * total
    assert (realised >= curve.error_J - 1e-6 * total).all()
    assert (np.abs(realised - curve.error_J) <= 1e-6 * total).sum() >= LEVELS - 3  # the others lie above a chord
    assert curve.error_J[-1] < 0.01 * total


def test_both_factors_in_orthogonal_coordinates_have_the_error_of_the_curve_to_first_order():
    """Cross terms between the errors of B and of A have mean zero; terms of second order vanish with the update."""
    space, start, update = orthogonal("ab", 1e-4)
    view = view_of(space, start, update)
    codec = build("ecsq", space, gain="projection")
    curve = codec.menu(update, view, {})
    for units in range(2, LEVELS + 1, 4):
        error = codec.encode(update, view, {}, units, RNG).relative_error
        assert error == pytest.approx(curve.error_J[units] / curve.error_J[0], rel=0.04)


@pytest.mark.parametrize("kind", ["b", "ab"])
@pytest.mark.parametrize("draw, limit", [("normal", 0.4), ("laplace", 0.3)])
def test_rate_is_close_to_the_gaussian_rate_distortion_function(kind, draw, limit):
    """R(D) = 1/2 log2(1 / D) bits an entry, 1.66 at D = 0.1, bounds the rate of any distribution from above.

    For a Gaussian the best scalar quantiser with ideal entropy coding is a quarter of a bit above R(D) at high rate;
    the rest is one gain for all magnitudes, and exact codes for counts, places, signs and magnitudes one by one.
    """
    space, start, update = orthogonal(kind, 1e-3, draw)
    view = view_of(space, start, update)
    codec = build("ecsq", space, gain="projection")
    curve = codec.menu(update, view, {})
    errors = [codec.encode(update, view, {}, units, RNG).relative_error for units in range(1, LEVELS + 1)]
    size = sum(x.size for x in update.values())
    rate = np.interp(np.log(0.1), np.log(errors)[::-1], curve.bits_J[:0:-1] / size)
    assert abs(rate - 0.5 * np.log2(1 / 0.1)) < limit


@pytest.mark.parametrize("draw", ["normal", "laplace"])
def test_the_coder_is_close_to_the_entropy_of_what_it_codes(draw):
    space, start, update = orthogonal("b", 1e-3, draw)
    view = view_of(space, start, update)
    codec, whole = build("ecsq", space), Entries.of(read_update(Layout(space, space.rank), update, view))
    curve = codec.menu(update, view, {})
    for units in range(1, LEVELS + 1):
        shares = (
            np.unique(whole.symbols(whole.level(units - 1, "balanced")).values, return_counts=True)[1]
            / whole.units.size
        )
        entropy = -(shares * np.log2(shares)).sum()
        # Less where frequencies differ from block to block; counts of 64 entries cost a tenth of a bit an entry.
        assert entropy - 0.01 <= curve.bits_J[units] / whole.units.size <= entropy + 0.2


def test_what_matters_more_gets_more_and_what_does_not_move_gets_nothing():
    space, start, update = client([(32, 32)] * 2, 4, seed=1, b0=0.0)
    view = view_of(space, start, update)
    update["layer0.lora_B"][:, 0] = 0.0
    update["layer0.lora_A"][0] = 0.0
    for pair in space.pairs:  # A of norm one everywhere: units are those of B
        start[pair.a] /= np.linalg.norm(start[pair.a], axis=1, keepdims=True)
    update["layer1.lora_B"] *= 100.0
    codec = build("ecsq", space)
    sent = [codec.encode(update, view, {}, units, RNG).stats["sent"].sum() for units in range(LEVELS + 1)]
    assert sent[0] == 0
    assert all(left <= right for left, right in itertools.pairwise(sent))
    first = codec.encode(update, view, {}, 4, RNG).stats["sent"]
    assert not first[:4].any()
    assert first[4:].any()
    assert not codec.encode(update, view, {}, LEVELS, RNG).stats["sent"][0]


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("kind", ["ab", "b", "a"])
@pytest.mark.parametrize("b, a", [(1e30, 1e30), (1e-30, 1e-30), (1e30, 1e-30), (1e-30, 1e30), (1e-45, 1.0), (0.0, 1.0)])
@pytest.mark.filterwarnings("error")
def test_tiny_and_huge_updates_stay_finite_and_bounded(gain, kind, b, a):
    space, start, update = client([(20, 12), (5, 30)], 3, seed=2, kind=kind, size=1.0)
    view = view_of(space, start, update)
    scales = {"lora_B": b, "lora_A": a}
    update = {k: (v.astype(np.float64) * scales[k.split(".")[1]]).astype(np.float32) for k, v in update.items()}
    codec = build("ecsq", space, gain=gain)
    curve = codec.menu(update, view, {})
    assert np.isfinite(curve.error_J).all()
    assert curve.bits_J[-1] < 64 * sum(v.size for v in update.values())
    for units in (1, 7, LEVELS):
        encoded = codec.encode(update, view, {}, units, RNG)
        assert np.isfinite(encoded.relative_error)
        assert encoded.payload.num_bits == curve.bits_J[units]
        assert all(np.isfinite(v).all() for v in codec.decode(encoded.payload, view, units).values())


def test_where_b_hardly_moves_a_is_still_told():
    space, start, update = client([(20, 12)] * 2, 3, b0=1.0)
    view = view_of(space, start, update)
    for pair in space.pairs:
        update[pair.b] *= np.float32(1e-9)
    codec = build("ecsq", space, gain="projection")
    assert codec.encode(update, view, {}, LEVELS, RNG).relative_error < 0.02


def test_start_without_a_row_or_a_column():
    """A row of A or a column of B that is zero is worth nothing: what stands on it is read as zero."""
    space, start, update = client([(20, 12)] * 2, 3, b0=1.0)
    view = view_of(space, start, update)
    start["layer0.lora_A"][1] = 0.0
    start["layer1.lora_B"][:, 2] = -update["layer1.lora_B"][:, 2]
    codec = build("ecsq", space)
    received = codec.decode(codec.encode(update, view, {}, LEVELS, RNG).payload, view, LEVELS)
    assert (received["layer0.lora_B"][:, 1] == 0).all()
    assert (received["layer0.lora_B"][:, 0] != 0).any()
    assert all(np.isfinite(x).all() for x in received.values())


@pytest.mark.parametrize("feedback", [True, "transport"])
def test_error_feedback_remembers_what_rounding_left(feedback):
    space, start, update = client([(20, 12)] * 2, 3)
    view = view_of(space, start, update)
    codec = build("ecsq", space, error_feedback=feedback)
    left = []
    memory, received = {}, {name: np.zeros(x.shape) for name, x in update.items()}
    for _ in range(8):
        encoded = codec.encode(update, view, memory, 10, RNG)
        sent = codec.decode(encoded.payload, view, 10)
        memory = encoded.memory_if_delivered
        received = {name: received[name] + sent[name] for name in received}
        left.append(np.mean([np.abs(received[n] / (len(left) + 1) - update[n]).mean() for n in update]))
    assert memory
    if feedback is True:
        for name, total in received.items():
            np.testing.assert_allclose(total + memory["ef/" + name], 8 * update[name].astype(np.float64), atol=1e-12)
        assert left[-1] < 0.3 * left[0]


def test_a_head_alone_has_no_units():
    space, start, update = client([(6, 5)] * 2, 3, head=True)
    alone = {name: value for name, value in update.items() if "head" in name}
    codec, view = build("ecsq", space), view_of(space, start, alone)
    curve = codec.menu(alone, view, {})
    assert (curve.units, curve.fixed_bits) == (0, 32 * 18)
    encoded = codec.encode(alone, view, {}, 0, RNG)
    assert encoded.payload.num_bits == curve.fixed_bits
    received = codec.decode(encoded.payload, view, 0)
    assert set(received) == set(alone)
    assert all((received[name] == alone[name]).all() for name in alone)
    with pytest.raises(ValueError, match=r"units must be 0\.\.0, got 1"):
        codec.encode(alone, view, {}, 1, RNG)


def test_malformed_payloads_are_refused():
    space, start, update = client([(9, 7)] * 3, 4)
    view = view_of(space, start, update)
    _, small, _ = client([(9, 7)] * 3, 3, r_max=4)
    codec = build("ecsq", space)
    payload = codec.encode(update, view, {}, 7, RNG).payload
    for units, where in ((0, view), (7, view_of(space, small))):
        with pytest.raises(ValueError):
            codec.decode(payload, where, units)
    with pytest.raises(ValueError, match="too short"):
        codec.decode(Payload(payload.data[:8], 64), view, 7)
    with pytest.raises(ValueError, match="ends with zeros"):
        codec.decode(Payload(payload.data + b"\1", 8 * len(payload.data) + 8), view, 7)
    with pytest.raises(ValueError, match="of kind 3 where 'ab' travels"):
        codec.decode(Payload(b"\xff" + payload.data[1:], payload.num_bits), view, 7)
    with pytest.raises(ValueError, match="finite and not negative"):
        codec.decode(Payload(b"\x3f\xff" + payload.data[2:], payload.num_bits), view, 7)


def test_units_masks_and_options_that_are_refused():
    space, start, update = client([(9, 7)] * 3, 4, head=True)
    view = view_of(space, start, update)
    codec = build("ecsq", space)
    with pytest.raises(ValueError, match=r"units must be 0\.\.18, got 19"):
        codec.encode(update, view, {}, 19, RNG)
    with pytest.raises(ValueError, match="chooses its own support"):
        codec.encode(update, view_of(space, start, update, np.arange(12)), {}, 3, RNG)
    less = {k: v for k, v in update.items() if k != "head.bias"}
    with pytest.raises(ValueError, match=r"always-sent parameters, missing head\.bias"):
        codec.encode(less, view_of(space, start, less), {}, 3, RNG)
    with pytest.raises(ConfigError, match="leave it at 32, got 8"):
        build("ecsq", space, bits_per_value=8)
    with pytest.raises(ConfigError, match="gain"):
        build("ecsq", space, gain="lossless")
    assert value_bits(parse_section(ecsq.Config, {}, "codec")) == 32


def test_how_wide_the_values_of_a_foreign_codec_are_only_itself_knows():
    class Silent(CodecConfig):
        levels: int = 8

    class Telling(Silent):
        @property
        def value_bits(self):
            return (self.levels - 1).bit_length()

    class Wrong(Silent):
        value_bits: ClassVar[float] = 2.5

    assert value_bits(Silent(bits_per_value=4)) is None  # whether it heeds this option, too
    assert value_bits(Telling(levels=8)) == 3
    with pytest.raises(ConfigError, match=r"value_bits of its Config must be 1 to 64 or None, got 2\.5"):
        value_bits(Wrong())
    shares = with_shares({"dense_bits_total": 320, "value_bits": None}, [])
    assert shares["uplink_share_of_dense_same_bits"] is None
    assert shares["uplink_share_of_dense32"] == 0.0


@pytest.mark.parametrize("kind", ["ab", "b", "a"])
@pytest.mark.parametrize("gain", GAINS)
def test_an_update_of_zeros_is_no_problem(kind, gain):
    space, start, update = client([(6, 5)] * 2, 3, head=True, kind=kind)
    view = view_of(space, start, update)
    update = {name: np.zeros_like(value) for name, value in update.items()}
    codec = build("ecsq", space, gain=gain)
    curve = codec.menu(update, view, {})
    assert (curve.error_J == 0).all()
    for units in (0, 1, LEVELS):
        encoded = codec.encode(update, view, {}, units, RNG)
        assert encoded.relative_error == 0
        assert encoded.payload.num_bits == curve.fixed_bits + curve.bits_J[units]
        assert all((value == 0).all() for value in codec.decode(encoded.payload, view, units).values())


def test_two_calls_are_equal():
    calls = []
    for _ in range(2):
        space, start, update = client([(90, 70)] * 3, 4, seed=5, head=True)
        view = view_of(space, start, update)
        calls.append(build("ecsq", space).encode(update, view, {}, 9, np.random.default_rng(len(calls))))
    assert calls[0].payload == calls[1].payload
    assert calls[0].relative_error == calls[1].relative_error
