"""What packs hand back, put together: quorum, weights, sums, states."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysoft.errors import RaysoftError
from raysoft.federation.client import joined
from raysoft.federation.diagnostics import ProductSums
from raysoft.federation.messages import PackFold
from raysoft.federation.reduction import (
    client_weights,
    finite_reports,
    fold_requests,
    in_groups,
    merged_states,
    normalised,
    survivors,
)
from raysoft.methods.folds import Sum
from raysoft.types import ChannelState, ClientReport, ClientState, Curve, Pack, Participants

PACKS = [Pack(3, (1, 4)), Pack(3, (6, 7)), Pack(3, (9,))]


def report(client, samples=10, finite=True):
    curve = Curve(0, np.array([0, 8]), np.array([1.0, 0.0]))
    return ClientReport(client, samples, 8, 1.0, 1.0, 0, 0, curve, finite=finite)


def who(clients, weights):
    k = len(clients)
    zeros = np.zeros(k)
    return Participants(np.array(clients), np.array(weights), zeros, zeros, 0.0, zeros, ChannelState(zeros, zeros))


def test_packs_of_lost_actors_are_left_out_down_to_the_quorum():
    trained = [("a", "A"), (None, None), ("c", "C")]
    assert survivors(0.6, 3, PACKS, trained) == ([PACKS[0], PACKS[2]], [("a", "A"), ("c", "C")])
    with pytest.raises(RaysoftError, match=r"round 3: 2 of 5 clients were lost.*actors.quorum=0.61"):
        survivors(0.61, 3, PACKS, trained)
    with pytest.raises(RaysoftError, match="5 of 5 clients were lost"):
        survivors(0.0, 3, PACKS, [(None, None)] * 3)


def test_reports_are_ordered_by_client_and_those_that_diverged_are_left_out():
    everybody, finite = finite_reports(2, [[report(4), report(9, finite=False)], [report(1)]], 0.1)
    assert [one.client for one in everybody] == [1, 4, 9]
    assert [one.client for one in finite] == [1, 4]
    with pytest.raises(RaysoftError, match=r"round 2: no client's update is finite.*train.lr=0.1"):
        finite_reports(2, [[report(1, finite=False)]], 0.1)


def test_weights_follow_samples_or_are_equal():
    reports = [report(1, 30), report(2, 10)]
    assert client_weights("samples", reports).tolist() == [0.75, 0.25]
    assert client_weights("uniform", reports).tolist() == [0.5, 0.5]


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30))
def test_normalised_sums_to_one_or_stays_zero(values):
    out = normalised(np.array(values))
    assert out.sum() == pytest.approx(1.0 if sum(values) > 0 else 0.0)


def test_each_pack_is_told_what_became_of_its_clients():
    """Client 4 was not finite and is no participant; 7 arrived with weight 0; 9 was lost."""
    requests = fold_requests(
        PACKS,
        who([1, 6, 7, 9], [0.4, 0.3, 0.0, 0.3]),
        np.array([True, True, True, False]),
        np.array([4 / 7, 3 / 7, 0, 0]),
        cohort=5,
    )
    assert [r.arrived for r in requests] == [(True, False), (True, True), (False,)]
    assert [r.rejected for r in requests] == [(False, True), (False, False), (False,)]
    assert [r.mix for r in requests] == [(4 / 7, 0.0), (3 / 7, 0.0), (0.0,)]
    assert [r.weights for r in requests] == [(0.4, 0.0), (0.3, 0.0), (0.3,)]
    assert {r.cohort for r in requests} == {5}


def test_sums_are_added_in_pack_order_and_nothing_is_nothing():
    big = {"x": np.array([1e16])}, {"x": np.array([1.0])}, {"x": np.array([-1e16])}
    packs = [PackFold(one, {}, None) for one in ({}, big[0], big[1], {}, big[2])]
    assert joined(Sum(), packs).folded["x"][0] == (1e16 + 1.0) - 1e16
    assert joined(Sum(), [PackFold({}, {}, None)] * 2) == joined(Sum(), []) == PackFold({}, {}, None)
    kept = [one.folded["x"].tolist() for one in packs if one.folded]
    assert kept == [one["x"].tolist() for one in big], "left alone"


@given(st.integers(1, 40), st.integers(1, 9))
def test_groups_of_packs_add_up_to_what_the_packs_add_up_to(count, size):
    # Whole numbers: exact in whatever order.
    packs = [
        PackFold(
            {"x": np.array([float(k)])},
            {"s": np.ones(2) if k else np.zeros(2)},
            ProductSums({"m": np.ones(2) * k}, {"m": np.ones(2)}),
        )
        for k in range(count)
    ]
    groups = in_groups(packs, size)
    assert [pack for group in groups for pack in group] == packs
    assert max(map(len, groups)) <= size
    whole = joined(Sum(), [joined(Sum(), group) for group in groups])
    assert whole.folded["x"] == count * (count - 1) / 2
    assert whole.side["s"].tolist() == [count - 1] * 2
    assert whole.products.received["m"].tolist() == [count * (count - 1) / 2] * 2
    assert whole.products.ideal["m"].tolist() == [count] * 2


def test_states_are_kept_while_they_hold_something_and_forgotten_afterwards():
    memory = {"ef/x": np.ones(2)}
    before = {1: ClientState(8, codec=memory), 2: ClientState(8, codec=memory), 5: ClientState(8, method=memory)}
    replies = [{1: ClientState(8), 3: ClientState(8, codec=memory)}, {4: ClientState(8)}]
    after = merged_states(before, replies)
    assert sorted(after) == [2, 3, 5], "1 has delivered everything; 2 and 5 were absent; 4 never had anything"
    assert after[2] is before[2]
    assert sorted(before) == [1, 2, 5], "the state before stays as it was"
