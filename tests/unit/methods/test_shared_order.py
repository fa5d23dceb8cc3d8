"""Shared masks: the server's order, codecs that follow it, and whole rounds with it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysoft.codecs.measure.factors import Layout, read_update
from raysoft.config.presets import load_config
from raysoft.errors import ConfigError
from raysoft.federation.coordinator import Coordinator
from raysoft.federation.executor import InlineExecutor
from raysoft.methods.rules.shared_order import AGE, NEVER, SCORE, observed, order_bits, shared_order
from raysoft.methods.soft import Config
from raysoft.methods.soft import build as soft
from raysoft.types import ORDER, LoraPair, Outcome, ParamSpace, Reception, ServerState
from tests.conftest import SMALL_RUN
from tests.unit.codecs.updates import MODULES, build, client, dense_error, view_of

SHAPES = [(8, 6), (8, 6), (5, 11)]
CHAIN = {"codecs": [{"name": "rank_components"}, {"name": "topk", "kept_fraction": 0.5}, {"name": "quantize"}]}


# --------------------------------------------------------------------------------------------- codecs follow an order


def expected(order, rank, r_max, count):
    """The first `count` components of the order that a client of this rank has, one after the other."""
    kept = np.zeros((len(SHAPES), r_max), dtype=bool)
    for number in order:
        matrix, component = divmod(int(number), r_max)
        if component < rank and kept.sum() < count:
            kept[matrix, component] = True
    return kept


@given(
    seed=st.integers(0, 2**32),
    rank=st.integers(1, 4),
    kind=st.sampled_from(["ab", "b", "a"]),
    head=st.booleans(),
    bits=st.sampled_from([32, 16, 5]),
    share=st.floats(0, 1),
)
@settings(max_examples=80, deadline=None)
def test_the_first_components_travel_and_nothing_says_which(seed, rank, kind, head, bits, share):
    space, start, update = client(SHAPES, rank, seed=seed, r_max=4, kind=kind, head=head)
    codec = build("rank_components", space, bits_per_value=bits)
    order = np.random.default_rng(seed).permutation(12)
    view = view_of(space, start, update, order)
    curve = codec.menu(update, view, {})
    units = round(share * curve.units)
    encoded = codec.encode(update, view, {}, units, np.random.default_rng(seed))
    kept = expected(order, rank, 4, units)
    assert (encoded.stats["sent"].reshape(3, 4) == kept).all()
    # Values, scales and heads, nothing else: the receiver knows from the view which factors these are.
    values = sum(k * n for k, n in zip(kept.sum(axis=1), [{"ab": o + i, "b": o, "a": i}[kind] for o, i in SHAPES]))
    scales = 0 if bits in (32, 16) else 32 * len(kind) * units
    plain = 32 * 18 * head + bits * values + scales
    assert encoded.payload.num_bits == plain
    assert encoded.payload.num_bits == curve.fixed_bits + curve.bits_J[units]
    received = codec.decode(encoded.payload, view, units)
    assert set(received) == set(update)
    for number, pair in enumerate(space.pairs):
        for name, axis in ((pair.b, 0), (pair.a, 1)):
            if name in received:
                moved = (received[name] != 0).any(axis=axis)
                assert not moved[~kept[number, :rank]].any()
                if bits == 32:
                    mine = kept[number, :rank] if axis == 0 else kept[number, :rank, None]
                    np.testing.assert_array_equal(received[name], np.where(mine, update.get(name, 0), np.float32(0)))
    error = dense_error(space, start, update, received) / dense_error(space, start, update, {})
    assert encoded.relative_error == pytest.approx(error, rel=1e-6, abs=1e-10)


def test_clients_of_equal_counts_send_the_same_components():
    order = np.random.default_rng(5).permutation(12)
    sent = set()
    for seed in range(6):
        space, start, update = client(SHAPES, 4, seed=seed)
        view = view_of(space, start, update, order)
        encoded = build("rank_components", space).encode(update, view, {}, 5, np.random.default_rng(seed))
        sent.add((encoded.payload.num_bits, encoded.stats["sent"].tobytes()))
    assert len(sent) == 1


def test_the_curve_holds_the_exact_error_of_every_prefix():
    space, start, update = client(SHAPES, 4, seed=9)
    codec = build("rank_components", space)
    view = view_of(space, start, update, np.random.default_rng(1).permutation(12))
    factors = read_update(codec.layout(view), update, view)
    bits, errors = codec.scheme.curve(factors, codec.coder)
    for units in range(13):
        encoded = codec.encode(update, view, {}, units, np.random.default_rng(0))
        received = codec.decode(encoded.payload, view, units)
        assert bits[units] == encoded.payload.num_bits
        assert errors[units] == pytest.approx(dense_error(space, start, update, received), rel=1e-6, abs=1e-12)


def test_the_order_of_a_client_is_never_better_than_its_own():
    """What shared masks give up: at every count the client's own first choices lose no more, up to cross terms."""
    space, start, update = client([(30, 30)] * 3, 4, seed=2)
    codec = build("rank_components", space)
    own = codec.menu(update, view_of(space, start, update), {})
    for seed in range(5):
        given = view_of(space, start, update, np.random.default_rng(seed).permutation(12))
        assert codec.menu(update, given, {}).error_J[6] > own.error_J[6]


@pytest.mark.parametrize("feedback", [False, True, "transport"])
def test_wrappers_and_chains_follow_the_order_too(feedback):
    space, start, _ = client(SHAPES, 3, r_max=4)
    codec, memory = build("chain", space, error_feedback=feedback, **CHAIN), {}
    for round_ in range(4):
        order = np.random.default_rng(round_).permutation(12)
        view = view_of(space, start, order=order)
        _, _, update = client(SHAPES, 3, r_max=4, seed=round_)
        assert codec.menu(update, view, memory).bits_J[0] == 0
        encoded = codec.encode(update, view, memory, 4, np.random.default_rng(round_))
        assert (encoded.stats["sent"].reshape(3, 4) == expected(order, 3, 4, 4)).all()
        codec.decode(encoded.payload, view, 4)
        memory = encoded.memory_if_delivered
    plain = build("rank_components", space, error_feedback=feedback)
    encoded = plain.encode(update, view, {}, 4, np.random.default_rng(0))
    received = plain.decode(encoded.payload, view, 4)
    if feedback is True:  # what was not sent is remembered, exactly
        for name, value in update.items():
            assert (received[name] + encoded.memory_if_delivered["ef/" + name] == value).all()


# All but the one that follows an order, and chains, which do what their first codec does.
@pytest.mark.parametrize("name", [name for name in MODULES if name not in ("rank_components", "chain")])
def test_other_codecs_refuse_an_order(name):
    space, start, update = client(SHAPES, 4)
    codec, view = build(name, space), view_of(space, start, update, np.arange(12))
    assert not MODULES[name].Config().traits.follows_order
    with pytest.raises(ValueError, match="only rank_components follows a given order"):
        codec.menu(update, view, {})
    with pytest.raises(ValueError, match="only rank_components follows a given order"):
        codec.encode(update, view, {}, 1, np.random.default_rng(0))


@pytest.mark.parametrize("order", [np.arange(11), np.arange(13), np.zeros(12, dtype=int), np.arange(1, 13)])
def test_what_is_no_order_of_all_components_is_refused(order):
    space, start, _ = client(SHAPES, 2, r_max=4)
    with pytest.raises(ValueError, match="each of the 12 components once"):
        Layout(space, 2).seen_by(view_of(space, start, None, order))


# --------------------------------------------------------------------------------------------------- the server's order


def space_of(rank=3):
    pairs = (LoraPair("first", 6, 5), LoraPair("second", 4, 6))
    return ParamSpace(pairs, rank, 2.0)


def server_of(space, seed=0):
    rng = np.random.default_rng(seed)
    return ServerState({n: rng.normal(size=s).astype(np.float32) for n, s in space.shapes.items()})


def step(method, server, change, counts):
    """One aggregation of a mean change in which these components arrived."""
    one = np.ones(1)
    outcome = Outcome(one > 0, one, one, ("",), 1.0)
    return method.aggregate(server, Reception(outcome, (), folded=change, sent_counts=counts), 1)


def change_of(space, rng, sizes):
    """Component n moves about as much as sizes[n]."""
    out = {}
    for number, pair in enumerate(space.pairs):
        own = sizes[number * space.rank : (number + 1) * space.rank]
        out[pair.b] = rng.normal(size=space.shapes[pair.b]) * own
        out[pair.a] = rng.normal(size=space.shapes[pair.a]) * own[:, None]
    return out


def test_a_score_is_the_change_of_the_product_per_bit():
    space, rng = space_of(), np.random.default_rng(3)
    server = server_of(space)
    change = change_of(space, rng, np.ones(6))
    counts = np.array([1, 0, 2, 1, 0, 3])
    first = observed(server, server, space, change, counts, memory=0.25)
    for number, pair in enumerate(space.pairs):
        b0, a0 = server.theta[pair.b].astype(float), server.theta[pair.a].astype(float)
        for j in range(3):
            n = 3 * number + j
            whole = np.outer(b0[:, j] + change[pair.b][:, j], a0[j] + change[pair.a][j]) - np.outer(b0[:, j], a0[j])
            new = np.linalg.norm(whole) / (pair.out_features + pair.in_features)
            assert first.extra[SCORE][n] == pytest.approx(new * (counts[n] > 0), rel=1e-9)
    assert first.extra[AGE].tolist() == [0, NEVER, 0, 0, NEVER, 0]
    double = {name: 2.0 * value for name, value in change.items()}
    later = observed(first, first, space, double, np.array([1, 1, 0, 0, 0, 0]), memory=0.25)
    fresh = observed(server, server, space, double, np.ones(6), memory=0.25)
    old, new = first.extra[SCORE], fresh.extra[SCORE]
    wanted = [0.25 * old[0] + 0.75 * new[0], new[1], old[2], old[3], 0.0, old[5]]
    np.testing.assert_allclose(later.extra[SCORE], wanted, rtol=1e-12)
    assert later.extra[AGE].tolist() == [0, 0, 1, 1, NEVER, 1]


def test_first_what_never_arrived_then_score_and_waiting():
    space = space_of()
    server = server_of(space)
    extra = {SCORE: np.array([4.0, 1.0, 0.0, 2.0, 3.0, 0.0]), AGE: np.array([0, 8, NEVER, 2, 0, NEVER])}
    server = ServerState(server.theta, version=7, extra=extra)
    order = shared_order(server, space, age_bonus=0.125)
    assert set(order[:2].tolist()) == {2, 5}
    # 4/4 + 0, 1/4 + 8/8, 2/4 + 2/8, 3/4 + 0: the last two are tied.
    assert order[2:4].tolist() == [1, 0]
    assert set(order[4:].tolist()) == {3, 4}
    assert shared_order(server, space, age_bonus=1e-9)[2:].tolist() == [0, 4, 3, 1]
    again = ServerState(dict(server.theta), version=7, extra={k: v.copy() for k, v in extra.items()})
    assert (shared_order(again, space, 0.125) == order).all()
    drawn = {tuple(shared_order(ServerState({}, version=v), space, 0.1).tolist()) for v in range(40)}
    assert len(drawn) > 20  # nothing known: drawn anew for every version
    assert all(sorted(one) == list(range(6)) for one in drawn)


@given(
    seed=st.integers(0, 999),
    count=st.integers(1, 6),
    bonus=st.floats(0.05, 3),
    memory=st.floats(0, 1),
    dead=st.integers(0, 6),
)
@settings(max_examples=25, deadline=None)
def test_every_component_is_sent_within_a_bounded_number_of_rounds(seed, count, bonus, memory, dead):
    """Also where some move a thousand times as far as others, and some not at all."""
    space, rng = space_of(), np.random.default_rng(seed)
    method = soft(Config(shared_mask=True, shared_mask_age_bonus=bonus, shared_mask_memory=memory), space)
    sizes = 10.0 ** rng.uniform(-3, 0, 6)
    sizes[:dead] = 0.0
    server, last = server_of(space), np.zeros(6)
    bound = 1 / bonus + 6 / count + 1
    for round_ in range(1, 60):
        order = method.broadcast(server, round_).side[ORDER]
        counts = np.zeros(6, dtype=int)
        counts[order[:count]] = 1
        if round_ <= 6 / count:
            assert (last[order[:count]] == 0).all()  # everybody's first turn comes before any second
        last[counts > 0] = round_
        assert (round_ - last).max() <= bound
        server = step(method, server, change_of(space, rng, sizes * counts), counts)
        assert server.version == round_


@pytest.mark.parametrize("count", [1, 2, 3, 5, 20])
def test_an_order_costs_the_logarithm_of_their_number(count):
    assert order_bits(count) == math.ceil(math.log2(math.factorial(count)))


def test_the_downlink_is_charged_the_order_of_the_clients_own_components():
    space = space_of()
    server = server_of(space)
    plain, shared = soft(Config(), space), soft(Config(shared_mask=True), space)
    downs = plain.broadcast(server, 1), shared.broadcast(server, 1)
    for rank, components in ((3, 6), (2, 4)):
        before, view = (method.view(down, 7, rank, 1) for method, down in zip((plain, shared), downs, strict=True))
        assert view.downlink.total - before.downlink.total == view.downlink.side == order_bits(components)
        assert before.downlink.side == 0
        # An answer that leaves nothing out is as long with an order as without.
        values = 32 * sum(value.size for value in view.start.values())
        assert view.dense_bits == before.dense_bits == before.downlink.total == values
        assert (view.side[ORDER] == shared_order(server, space, Config().shared_mask_age_bonus)).all()
    assert downs[0].side == before.side == {}


def test_off_leaves_no_trace_in_the_server_and_nobody_arriving_changes_nothing():
    space = space_of()
    change = change_of(space, np.random.default_rng(0), np.ones(6))
    assert step(soft(Config(), space), server_of(space), change, np.ones(6)).extra == {}
    server = server_of(space)
    assert step(soft(Config(shared_mask=True), space), server, None, None) is server


# --------------------------------------------------------------------------------------------------------- whole rounds

ON = "method.shared_mask=true"
FIXED = ("allocator={name: minmax}", "codec.kept_fraction=0.25", "codec.min_kept_fraction=0.01")


def coordinator(*overrides):
    config = load_config("soft", [*SMALL_RUN, "executor=inline", *overrides])
    made = Coordinator(config, InlineExecutor(config))
    made.start()
    return made


def watched(made):
    """Which components each client of each round sent."""
    seen, plain = [], made.executor.map

    def map_(stage, down, requests, handles=None):
        replies = plain(stage, down, requests, handles)
        if stage == "encode":
            seen.append([(one.num_bits, one.stats["sent"]) for reply, _ in replies for one in reply if one.num_bits])
        return replies

    made.executor.map = map_
    return seen


def test_rounds_of_equal_counts_have_one_mask_and_pay_for_values_alone():
    made = coordinator(ON, *FIXED)
    seen = watched(made)
    for tick in range(1, 6):
        record = made.round(tick)
        assert len({mask.tobytes() for _, mask in seen[-1]}) == 1
        space, (bits, mask) = made.parts.info.space, seen[-1][0]
        widths = np.array([pair.out_features + pair.in_features for pair in space.pairs])
        assert {b for b, _ in seen[-1]} == {32 * int(mask.reshape(len(widths), -1).sum(axis=1) @ widths)} == {bits}
        values = 32 * sum(int(np.prod(shape)) for shape in space.shapes.values())
        assert record.metrics["dense_bits_total"] == tick * 6 * values * made.config.device.payload_scale
        down = values + order_bits(mask.size)
        assert record.downlink_bits == 6 * down * made.config.device.payload_scale
    # A quarter each: after four rounds everything has been sent.
    assert record.metrics["components_never_sent"] == 0.0
    assert set(made.state.server.extra) == {SCORE, AGE}


@pytest.mark.parametrize(
    "overrides",
    [
        ("codec.error_feedback=true",),
        ("method.reorthogonalize=true", "codec.error_feedback=transport"),
        ("model.lora.rank={low: 2, high: 8}",),
        ("codec.bits_per_value=4", "codec.quantizer=rotated"),
        ("codec={name: chain, codecs: [{name: rank_components}, {name: topk, kept_fraction: 0.5}]}",),
    ],
)
def test_tsfa_runs_with_everything_beside_it(overrides):
    made = coordinator(ON, *overrides)
    seen = watched(made)
    for tick in range(1, 3):
        before = made.state.server
        order = made.parts.method.broadcast(before, tick).side[ORDER]
        record = made.round(tick)
        assert record.participants > 0
        assert np.isfinite(record.train_loss)
        assert all(np.isfinite(value).all() for value in made.state.server.theta.values())
        ranks = {2, 8} if "rank=" in overrides[0] else {8}
        for _, mask in seen[-1]:
            kept = [n for n in order if mask[n]]
            # For some rank of the cohort these are the first of what the rank has.
            assert any(kept == [n for n in order if n % 8 < rank][: len(kept)] for rank in ranks)
        arrived = made.state.server.extra[AGE] == 0
        assert arrived.any()
    assert 0 < record.sparsification_error < 1


@pytest.mark.parametrize(
    "override, says",
    [
        ("codec.name=topk", "codec.name=topk does not follow"),
        ("codec={name: chain, codecs: [{name: svd}]}", "codec.name=chain does not follow"),
    ],
)
def test_what_cannot_follow_the_order_is_refused(override, says):
    with pytest.raises(ConfigError) as raised:
        load_config("soft", [ON, override])
    assert raised.value.field == "method.shared_mask"
    assert says in str(raised.value)


def test_its_options_need_it():
    for option in ("age_bonus=0.5", "memory=0.9"):
        with pytest.raises(ConfigError, match="needs shared_mask: true"):
            load_config("soft", [f"method.shared_mask_{option}"])
    assert load_config("soft", [ON, "method.shared_mask_memory=0.9"]).method.options()["shared_mask_memory"] == 0.9
