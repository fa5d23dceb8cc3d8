"""What holds for every codec: bits, curves, round trips, determinism."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysoft.codecs.measure.curves import cheapest_first, convex_curve, counts
from raysoft.codecs.measure.factors import Layout, read_update
from raysoft.codecs.measure.report import quantize_curve, report_bits
from raysoft.config import parse_section
from raysoft.types import Curve, Payload
from tests.unit.codecs.updates import MODULES, THINNED, VARIANTS, assert_convex, build, client, dense_error, view_of

NAMES = [f"{name}-{k}" for k, (name, _) in enumerate(VARIANTS)]
RANDOM = ("randomk",)  # its curve is a mean over supports, which has tests of its own
shapes = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4)
squares = st.tuples(st.integers(1, 9), st.integers(1, 4)).map(lambda s: [(s[0], s[0])] * s[1])
clients = st.fixed_dictionaries(
    {
        "shapes": st.one_of(
            shapes, st.tuples(st.integers(1, 9), st.integers(1, 4)).map(lambda s: [(s[0],) * 2] * s[1])
        ),
        "rank": st.integers(1, 5),
        "seed": st.integers(0, 2**32),
        "head": st.booleans(),
        "kind": st.sampled_from(["ab", "b", "a"]),
        "b0": st.sampled_from([0.0, 0.1]),
    }
)


def test_every_codec_is_here_or_has_its_own_copy_of_this_file():
    """ecsq's values are nowhere near 32 bits or a fixed number of them: test_ecsq.py holds it to the same."""
    assert {name for name, _ in VARIANTS} == set(MODULES) - {"ecsq"}


@pytest.mark.parametrize("name, options", VARIANTS, ids=NAMES)
@given(clients, st.data())
@settings(max_examples=15, deadline=None)
def test_bits_are_as_announced_and_the_server_decodes(name, options, spec, data):
    space, start, update = client(**spec, r_max=spec["rank"] + 2)  # a client of smaller rank
    view = view_of(space, start, update)
    codec = build(name, space, **options)
    curve = codec.menu(update, view, {})
    assert_convex(curve)
    units = data.draw(st.integers(0, curve.units))
    encoded = codec.encode(update, view, {}, units, np.random.default_rng(spec["seed"]))
    payload = encoded.payload
    assert payload.num_bits == curve.fixed_bits + curve.bits_J[units]
    assert len(payload.data) == (payload.num_bits + 7) // 8
    assert int.from_bytes(payload.data, "big") % 2 ** (8 * len(payload.data) - payload.num_bits) == 0
    received = codec.decode(payload, view, units)
    assert set(received) == set(update)
    for key, value in received.items():
        assert value.dtype == np.float32
        assert value.shape == start[key].shape
        assert np.isfinite(value).all()
    if spec["head"] and options.get("head_bits", 32) == 32:
        assert (received["head.weight"] == update["head.weight"]).all()
        assert (received["head.bias"] == update["head.bias"]).all()
    factors = {key: value for key, value in received.items() if "lora" in key}
    total = dense_error(space, start, update, {})
    realised = dense_error(space, start, {k: v for k, v in update.items() if "lora" in k}, factors)
    if total > 0:
        assert encoded.relative_error == pytest.approx(realised / total, rel=1e-8, abs=1e-12)
        assert curve.error_J[0] == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("name, options", VARIANTS, ids=NAMES)
def test_two_calls_are_equal(name, options):
    results = []
    for _ in range(2):
        space, start, update = client([(9, 7)] * 3, 4, seed=5, head=True)
        view = view_of(space, start, update)
        codec = build(name, space, **options)
        units = codec.menu(update, view, {}).units // 2
        results.append(codec.encode(update, view, {}, units, np.random.default_rng(3)))
    assert results[0].payload == results[1].payload
    assert results[0].relative_error == results[1].relative_error


@pytest.mark.parametrize("name, options", VARIANTS, ids=NAMES)
def test_an_update_of_zeros_is_no_problem(name, options):
    space, start, update = client([(6, 5)] * 2, 3, head=True)
    view = view_of(space, start, update)
    update = {key: np.zeros_like(value) for key, value in update.items()}
    codec = build(name, space, **options)
    curve = codec.menu(update, view, {})
    assert (curve.error_J == 0).all()
    for units in {0, 1, curve.units}:
        encoded = codec.encode(update, view, {}, units, np.random.default_rng(0))
        assert encoded.relative_error == 0
        assert encoded.payload.num_bits == curve.fixed_bits + curve.bits_J[units]
        assert all((value == 0).all() for value in codec.decode(encoded.payload, view, units).values())


# Values travel as float32: neither set to fewer bits nor a codec that is about their bits.
WHOLE = [
    (n, o)
    for n, o in VARIANTS
    if "bits_per_value" not in o and not {"bits", "codecs"} & set(MODULES[n].Config.model_fields)
]


@pytest.mark.parametrize("name, options", WHOLE)
@pytest.mark.parametrize("kind", ["ab", "b", "a"])
def test_keep_everything_is_identity(name, options, kind):
    space, start, update = client([(9, 7), (9, 7), (5, 5)], 4, head=True, seed=2, kind=kind)
    view = view_of(space, start, update)
    codec = build(name, space, **options)
    curve = codec.menu(update, view, {})
    encoded = codec.encode(update, view, {}, curve.units, np.random.default_rng(0))
    # No mask, no seed, nothing that says which factors these are: nothing but the values.
    assert encoded.payload.num_bits == 32 * sum(value.size for value in update.values())
    received = codec.decode(encoded.payload, view, curve.units)
    assert set(received) == set(update)
    assert all((received[key] == update[key]).all() for key in update)
    assert encoded.relative_error == 0
    assert curve.error_J[-1] == 0


@pytest.mark.parametrize("name, options", [v for v in VARIANTS if v[0] not in RANDOM])
def test_curve_errors_are_the_realised_ones_at_its_corners(name, options):
    """Every unit: the realised error is at least the curve's; at the corners it equals it (mean, where random)."""
    space, start, update = client([(12, 10)] * 2 + [(6, 14)], 4, seed=7)
    view = view_of(space, start, update)
    codec = build(name, space, **options)
    curve = codec.menu(update, view, {})
    quantised = name == "quantize" or options.get("bits_per_value", 32) not in (16, 32) or "codecs" in options
    draws, rng, touched = (40 if quantised else 1), np.random.default_rng(0), 0
    menu = range(0, curve.units + 1, 1 if curve.units < 20 else 4)
    for units in menu:
        sample = [codec.encode(update, view, {}, units, rng).relative_error for _ in range(draws)]
        mean, deviation = np.mean(sample) * curve.error_J[0], np.std(sample) * curve.error_J[0]
        slack = 6 * deviation / np.sqrt(draws) + 1e-6 * curve.error_J[0]
        assert mean >= curve.error_J[units] - slack
        touched += mean <= curve.error_J[units] + slack
    # Corners and what lies on a chord by nature; two ends always. Units of a fixed budget seldom are corners.
    assert touched >= (2 if name == "waterfill" else max(2, len(menu) // 3))


@pytest.mark.parametrize("unit", ["component", "entry"])
@pytest.mark.parametrize(
    "options", [{}, {"unbiased": True}, {"bits_per_value": 3}, {"unbiased": True, "bits_per_value": 4}]
)
def test_randomk_expectation_over_supports(unit, options):
    """The closed form (before it is made convex) against the mean over many seeds."""
    space, start, update = client([(5, 4)] * 2 + [(3, 6)], 2, seed=9, size=0.3, b0=0.4)
    view = view_of(space, start, update)
    codec = build("randomk", space, unit=unit, **options)
    _, expected = codec.scheme.curve(read_update(Layout(space, 2), update, view), codec.coder)
    rng, draws = np.random.default_rng(1), 400
    for units in (1, len(expected) // 2, len(expected) - 2):
        sample = np.array([codec.encode(update, view, {}, units, rng).relative_error for _ in range(draws)])
        error = sample * expected[0]
        assert abs(error.mean() - expected[units]) <= 5 * error.std() / np.sqrt(draws) + 1e-9 * expected[0]


@pytest.mark.parametrize("unit", ["component", "entry"])
def test_randomk_is_unbiased_with_the_known_variance(unit):
    space, start, update = client([(6, 4)] * 2, 3, seed=1)
    view = view_of(space, start, update)
    codec = build("randomk", space, unit=unit, unbiased=True)
    units, draws, rng = 3, 1500, np.random.default_rng(0)
    total = np.zeros(60)
    squares = np.zeros(60)
    whole = np.concatenate([update[k].ravel() for k in sorted(update)]).astype(np.float64)
    share = (units / 6) if unit == "component" else counts(60)[units] / 60
    for _ in range(draws):
        received = codec.decode(codec.encode(update, view, {}, units, rng).payload, view, units)
        flat = np.concatenate([received[k].ravel() for k in sorted(update)]).astype(np.float64)
        total += flat
        squares += flat**2
    # An entry is u/p with probability p: variance u^2 (1/p - 1); 60 entries at 5 sigma.
    sigma = np.abs(whole) * np.sqrt(1 / share - 1)
    assert (np.abs(total / draws - whole) <= 5 * sigma / np.sqrt(draws) + 1e-6 * np.abs(whole)).all()
    variance = (squares / draws - whole**2).sum() / (whole**2).sum()
    assert variance == pytest.approx(1 / share - 1, rel=0.15)


@pytest.mark.parametrize("of", ["factors", "update"])
@given(clients, st.data())
@settings(max_examples=25, deadline=None)
def test_topk_bound(of, spec, data):
    space, start, update = client(**spec)
    view = view_of(space, start, update)
    codec = build("topk", space, of=of)
    curve = codec.menu(update, view, {})
    units = data.draw(st.integers(1, curve.units))
    payload = codec.encode(update, view, {}, units, np.random.default_rng(0)).payload
    received = codec.decode(payload, view, units)
    wanted = np.concatenate([update[k].ravel() for k in update if "lora" in k]).astype(np.float64)
    got = np.concatenate([received[k].ravel() for k in update if "lora" in k]).astype(np.float64)
    kept = got != 0
    assert (got[kept] == wanted[kept]).all()
    if of == "factors":
        share = kept.sum() / (wanted != 0).sum()
        assert ((got - wanted) ** 2).sum() <= (1 - share) * (wanted**2).sum() * (1 + 1e-9) + 1e-15
        assert kept.all() or np.abs(wanted[kept]).min() >= np.abs(wanted[~kept]).max()


def test_topk_of_update_beats_topk_of_factors_where_scales_differ():
    """A of one matrix is multiplied by a tiny B: its large entries matter little to the effective update."""
    space, start, update = client([(20, 20)] * 2, 4, seed=3, b0=0.5)
    view = view_of(space, start, update)
    first = space.pairs[0]
    start[first.b] = (start[first.b] * 1e-3).astype(np.float32)
    update[first.b] = (update[first.b] * 1e-3).astype(np.float32)
    update[first.a] = (update[first.a] * 10).astype(np.float32)
    errors = {of: build("topk", space, of=of).menu(update, view, {}).error_J[16] for of in ("factors", "update")}
    assert errors["update"] < 0.7 * errors["factors"]


def test_svd_is_eckart_young_where_one_factor_moves():
    for kind in ("b", "a"):
        space, start, update = client([(30, 25)], 6, kind=kind, seed=4)
        view = view_of(space, start, update)
        pair = space.pairs[0]
        b0, a0 = (start[name].astype(np.float64) for name in (pair.b, pair.a))
        moved = space.scale * (update[pair.b] @ a0 if kind == "b" else b0 @ update[pair.a])
        sigma = np.linalg.svd(moved)[1]
        codec = build("svd", space)
        for units in range(1, codec.menu(update, view, {}).units):
            encoded = codec.encode(update, view, {}, units, np.random.default_rng(0))
            wanted = (sigma[units:] ** 2).sum() / (sigma**2).sum()
            assert encoded.relative_error == pytest.approx(wanted, rel=1e-5, abs=1e-12)


def test_chain_is_its_members_one_after_another():
    space, start, update = client([(9, 7)] * 3, 4, seed=5)
    view = view_of(space, start, update)
    whole = build("chain", space, codecs=[{"name": "rank_components"}])
    plain = build("rank_components", space)
    coarse = build("chain", space, codecs=[{"name": "rank_components"}, {"name": "quantize", "bits": 6}])
    direct = build("rank_components", space, bits_per_value=6)
    thin = build("chain", space, **THINNED)
    for units in (1, 5, 12):
        for left, right in ((whole, plain), (coarse, direct)):
            a, b = (c.encode(update, view, {}, units, np.random.default_rng(1)) for c in (left, right))
            assert a.payload == b.payload
        first = plain.encode(update, view, {}, units, np.random.default_rng(1))
        picked = plain.decode(first.payload, view, units)
        payload = thin.encode(update, view, {}, units, np.random.default_rng(1)).payload
        thinned = thin.decode(payload, view, units)
        for key, value in thinned.items():
            assert (picked[key][value != 0] != 0).all()  # only what the first codec picked
        alive = sum((value != 0).sum() for value in thinned.values())
        assert 0 < alive <= np.ceil(0.5 * sum((value != 0).sum() for value in picked.values()))


OTHERS = [("ecsq", {}), ("rank_components", {"matched": False}), ("topk", {"fallback": "zero"})]


def goes_together(options, feedback, kind):
    """The rest is refused: see test_feedback.py, test_naive.py and test_transport.py."""
    whole = "fallback" in options or "matched" in options  # these need both factors
    biased = not options.get("unbiased") and "fallback" not in options  # and a memory needs these
    return (kind == "ab" or not whole) and (biased or not feedback) and (feedback, kind) != ("transport", "a")


RECEIVED = [
    (name, options, feedback, kind)
    for name, options in [*VARIANTS, *OTHERS]
    for feedback in (False, True, "transport")
    for kind in ("ab", "b", "a")
    if goes_together(options, feedback, kind)
]


def test_every_codec_says_what_is_received():
    assert {name for name, *_ in RECEIVED} == set(MODULES)


@pytest.mark.parametrize("name, options, feedback, kind", RECEIVED)
def test_what_the_client_takes_for_received_is_what_the_server_decodes(name, options, feedback, kind):
    """To the bit: the client remembers what the server does not have."""
    follows_order = parse_section(MODULES[name].Config, options, "codec").traits.follows_order
    codec, memory, rng = None, {}, np.random.default_rng(0)
    for round_ in range(3):
        space, start, update = client([(9, 7)] * 2 + [(6, 4)], 3, seed=round_, r_max=4, head=True, kind=kind)
        codec = codec or build(name, space, error_feedback=feedback, **options)
        orders = (None, rng.permutation(12)) if follows_order else (None,)
        for view in (view_of(space, start, update, order) for order in orders):
            most = codec.menu(update, view, memory).units
            for units in sorted({0, 1, most // 2, most}):
                encoded = codec.encode(update, view, memory, units, rng)
                decoded = codec.decode(encoded.payload, view, units)
                assert set(encoded.received) == set(decoded) == set(update)
                for key, value in decoded.items():
                    assert value.dtype == encoded.received[key].dtype == np.float32
                    assert value.tobytes() == encoded.received[key].tobytes()
        memory = codec.encode(update, view, memory, most // 2, rng).memory_if_delivered
    assert bool(memory) == bool(feedback)


@pytest.mark.parametrize("name", MODULES)
def test_a_payload_of_other_units_or_rank_is_refused(name):
    space, start, update = client([(9, 7)] * 3, 4)
    view = view_of(space, start, update)
    _, small, _ = client([(9, 7)] * 3, 3, r_max=4)
    codec = build(name, space, **(THINNED if name == "chain" else {}))
    units = codec.menu(update, view, {}).units
    payload = codec.encode(update, view, {}, units, np.random.default_rng(0)).payload
    if name != "ecsq":  # another update may give the same payload one unit further: the step is relative to its size
        with pytest.raises(ValueError):
            codec.decode(payload, view, units - 1)
    with pytest.raises(ValueError):
        codec.decode(payload, view_of(space, small), units)
    with pytest.raises(ValueError):
        codec.decode(Payload(payload.data[:-8], payload.num_bits - 64), view, units)
    with pytest.raises(ValueError):
        codec.encode(update, view, {}, units + 1, np.random.default_rng(0))


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("sent, known", [("ab", "b"), ("ab", "a"), ("b", "ab"), ("a", "ab"), ("b", "a"), ("a", "b")])
def test_a_payload_of_another_kind_than_the_view_is_refused(name, sent, known):
    """Which factors travel is nowhere in a payload (but for ecsq's); its length has to be one of what the view says."""
    space, start, update = client([(9, 7)] * 3, 4, head=True, kind=sent)
    other = view_of(space, start, client([(9, 7)] * 3, 4, head=True, kind=known)[2])
    codec, view = build(name, space, **(THINNED if name == "chain" else {})), view_of(space, start, update)
    most = codec.menu(update, view, {}).units
    for units in {1, most // 2 or 1, most}:
        payload = codec.encode(update, view, {}, units, np.random.default_rng(0)).payload
        with pytest.raises(ValueError):
            codec.decode(payload, other, units)


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("sent, known", [("ab", "b"), ("b", "ab"), ("b", "a")])
def test_an_update_of_other_values_than_the_view_trains_is_refused(name, sent, known):
    space, start, update = client([(9, 7)] * 2, 2, head=True, kind=sent)
    view = view_of(space, start, client([(9, 7)] * 2, 2, head=True, kind=known)[2])
    codec = build(name, space, **(THINNED if name == "chain" else {}))
    with pytest.raises(ValueError, match=r"neither less nor more: layer0\.lora_"):
        codec.menu(update, view, {})
    with pytest.raises(ValueError, match=r"neither less nor more: layer0\.lora_"):
        codec.encode(update, view, {}, 1, np.random.default_rng(0))


def test_an_incomplete_update_is_refused():
    space, start, update = client([(9, 7)] * 2, 2, head=True)
    codec, whole = build("identity", space), view_of(space, start, update)
    del update["layer1.lora_A"]
    with pytest.raises(ValueError, match=r"neither less nor more: layer1\.lora_A"):
        codec.menu(update, whole, {})
    part = view_of(space, start, update)
    with pytest.raises(ValueError, match="A of all adapted matrices"):
        codec.menu(update, part, {})
    with pytest.raises(ValueError, match="A of all adapted matrices"):
        codec.decode(Payload(b"", 0), part, 0)
    headless = client([(9, 7)] * 2, 2)[2]
    with pytest.raises(ValueError, match=r"head\.bias"):
        codec.encode(headless, view_of(space, start, headless), {}, 1, np.random.default_rng(0))


def test_counts_and_the_menu_of_costs():
    assert counts(5) == (0, 1, 2, 3, 4, 5)
    many = counts(1000)
    assert len(many) == 65
    assert (many[0], many[-1]) == (0, 1000)
    assert set(np.diff(many)) <= {15, 16}
    assert cheapest_first([0, 5, 4, 9, 8, 7, 12]) == [0, 2, 5, 6]


@given(st.lists(st.tuples(st.integers(1, 1000), st.floats(0, 1)), min_size=1, max_size=64))
@settings(max_examples=100, deadline=None)
def test_convex_curve_is_the_largest_convex_minorant(steps):
    bits = np.concatenate([[0], np.cumsum([gap for gap, _ in steps])])
    error = np.concatenate([[1.0], [value for _, value in steps]])
    curve = convex_curve(7, bits, error)
    assert_convex(curve)
    lowest = np.minimum.accumulate(error)
    assert (curve.error_J <= lowest + 1e-12).all()
    # Brute force: the minorant at x is the least chord over all pairs around it.
    for j, x in enumerate(bits):
        chords = [
            lowest[a] + (lowest[b] - lowest[a]) * (x - bits[a]) / max(bits[b] - bits[a], 1)
            for a in range(j + 1)
            for b in range(j, len(bits))
        ]
        assert curve.error_J[j] == pytest.approx(min(chords), abs=1e-9)


def test_reported_curve():
    for seed in range(10):
        space, start, update = client([(16, 16)] * 4, 8, seed=seed, head=True)
        view = view_of(space, start, update)
        curve = build("rank_components", space).menu(update, view, {})
        seen = quantize_curve(curve)
        assert seen.fixed_bits == curve.fixed_bits
        assert (seen.bits_J == curve.bits_J).all()
        assert_convex(Curve(0, seen.bits_J, seen.error_J))
        assert np.abs(seen.error_J - curve.error_J).max() <= 0.01 * curve.error_J[0]
        assert seen.error_J[0] == pytest.approx(curve.error_J[0], rel=1e-6)
        steps = np.diff(curve.error_J) < -1e-5 * curve.error_J[0]
        assert np.abs(np.diff(seen.error_J) / np.diff(curve.error_J) - 1)[steps].max() < 0.06
    assert report_bits(curve) == 4 * 32 + 8 * 32
    flat = quantize_curve(Curve(3, np.array([0, 10, 20]), np.zeros(3)))
    assert (flat.error_J == 0).all()
    assert quantize_curve(Curve(3, np.array([0]), np.array([2.0]))).error_J.tolist() == [2.0]


@pytest.mark.parametrize("factor", [1.0, 1.1, 1.37, 1.9])
def test_a_straight_curve_of_any_size_is_reported_as_one(factor):
    """Its scores are all alike; rounding the largest to float32 may throw all of them out of the range of the codes."""
    for exponent in range(-60, 61):
        score = factor * 2.0**exponent
        error_J = score * np.arange(8, -1, -1.0)
        seen = quantize_curve(Curve(0, np.arange(9) * 100, error_J))
        np.testing.assert_allclose(seen.error_J, error_J, rtol=1e-5, atol=1e-6 * error_J[0])
