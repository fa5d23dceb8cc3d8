"""Folds: each against its definition, written out client by client, and in parts against the whole."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysoft.federation.client import joined
from raysoft.federation.messages import PackFold
from raysoft.federation.reduction import in_groups
from raysoft.methods.averaging import Averaging
from raysoft.methods.base import MethodConfig
from raysoft.methods.folds import COVERED, EACH, STACK, Arrived, Covered, Each, Stack, Sum
from raysoft.methods.initial import initial_theta
from raysoft.methods.ranks import pad_to_rank
from raysoft.rng import Rng
from raysoft.types import DenseBlock, LoraPair, Outcome, ParamSpace, Reception, ServerState

NOBODY = Outcome(np.array([]), np.array([]), np.array([]), (), 0.0)
RANK = 4
PAIRS = (LoraPair("first", 6, 5), LoraPair("second", 4, 6))
SPACE = ParamSpace((*PAIRS, DenseBlock("head", (2, 3))), RANK, 2.0)
FOLDS = [Sum(), Covered(SPACE), Stack(SPACE), Each()]
some_ranks = st.lists(st.integers(1, RANK), min_size=1, max_size=6)
seeds = st.integers(0, 999)


def server() -> ServerState:
    return ServerState(theta=initial_theta(SPACE, {"head": np.ones((2, 3))}, "peft", Rng(0)))


def clients(
    seed: int, ranks: list[int], share: float = 1.0, kind: str = "ab"
) -> tuple[list[Arrived], list[np.ndarray]]:
    """What arrived of clients of these ranks, of the factors in `kind`, and which components each sent, [2, RANK]."""
    rng = np.random.default_rng(seed)
    mix = rng.dirichlet(np.ones(len(ranks)))
    out, sent = [], []
    for k, rank in enumerate(ranks):
        kept = np.zeros((2, RANK), dtype=bool)
        kept[:, :rank] = rng.random((2, rank)) < share
        update = {"head": rng.normal(size=(2, 3)).astype(np.float32)}
        start = {"head": rng.normal(size=(2, 3)).astype(np.float32)}
        for number, pair in enumerate(PAIRS):
            b, a = (pair.out_features, rank), (rank, pair.in_features)
            start[pair.b], start[pair.a] = (rng.normal(size=shape).astype(np.float32) for shape in (b, a))
            mask = kept[number, :rank]
            if "b" in kind:
                update[pair.b] = (rng.normal(size=b) * mask).astype(np.float32)
            if "a" in kind:
                update[pair.a] = (rng.normal(size=a) * mask[:, None]).astype(np.float32)
        out.append(Arrived(pad_to_rank(update, SPACE), float(mix[k]), pad_to_rank(start, SPACE)))
        sent.append(kept)
    return out, sent


def in_parts(fold, arrived, cuts) -> dict:
    """Folded in packs that end at these places, joined as the coordinator joins them."""
    edges = [0, *sorted(min(cut, len(arrived)) for cut in cuts), len(arrived)]
    packs = [PackFold(fold.part(arrived[a:b]), {}, None) for a, b in zip(edges, edges[1:], strict=False)]
    return dict(joined(fold, packs).folded)


# --------------------------------------------------------------------------------------------------- each by itself


@given(seed=seeds, ranks=some_ranks)
def test_a_sum_is_one_client_after_the_other(seed, ranks):
    arrived, _ = clients(seed, ranks)
    found = Sum().finish(Sum().part(arrived))
    assert set(found) == set(SPACE.shapes)
    for name, value in found.items():
        total = np.zeros(SPACE.shapes[name])
        for one in arrived:
            total += one.mix * one.update[name].astype(np.float64)
        assert value.dtype == np.float64
        np.testing.assert_array_equal(value, total)


def test_a_value_that_only_some_sent_counts_for_them_alone():
    arrived = [Arrived({"x": np.ones(2)}, 0.5, {}), Arrived({"x": np.ones(2), "y": np.ones(3)}, 0.25, {})]
    found = Sum().part(arrived)
    assert {name: value.tolist() for name, value in found.items()} == {"x": [0.75] * 2, "y": [0.25] * 3}
    assert Sum().join(Sum().part(arrived[:1]), Sum().part(arrived[1:])).keys() == found.keys()


@given(seed=seeds, ranks=some_ranks, share=st.sampled_from([0.0, 0.3, 1.0]), kind=st.sampled_from(["ab", "b", "a"]))
@settings(max_examples=60, deadline=None)
def test_a_component_is_the_mean_of_those_who_sent_it(seed, ranks, share, kind):
    method = Averaging(MethodConfig(server_lr=0.7), SPACE, fold=Covered(SPACE))
    arrived, sent = clients(seed, ranks, share, kind)
    folded = method.fold.finish(in_parts(method.fold, arrived, [len(ranks) // 2]))
    after = method.aggregate(server(), Reception(NOBODY, (), folded), 1)
    before = server().theta
    for number, pair in enumerate(PAIRS):
        for j in range(RANK):
            who = [k for k in range(len(ranks)) if sent[k][number, j]]
            weight = sum(arrived[k].mix for k in who)
            for name, index, one in ((pair.b, (slice(None), j), "b"), (pair.a, (j, slice(None)), "a")):
                if one not in kind:
                    np.testing.assert_array_equal(after.theta[name], before[name])
                    continue
                step = sum((arrived[k].mix * arrived[k].update[name][index].astype(float) for k in who), 0.0)
                want = before[name][index].astype(float) + (0.7 * step / weight if who else 0.0)
                np.testing.assert_allclose(after.theta[name][index], want, atol=1e-5)
    head = before["head"] + 0.7 * sum(one.mix * one.update["head"].astype(float) for one in arrived)
    np.testing.assert_allclose(after.theta["head"], head, atol=1e-5)
    assert set(after.theta) == set(before)


def test_everybody_sending_everything_is_the_plain_mean():
    arrived, _ = clients(3, [4, 4, 4])
    mean = Sum().part(arrived)
    covered = Covered(SPACE).finish(Covered(SPACE).part(arrived))
    assert covered.keys() == mean.keys()
    for name, value in covered.items():
        np.testing.assert_allclose(value, mean[name], rtol=1e-12, atol=1e-15)


@given(seed=seeds, ranks=some_ranks, kind=st.sampled_from(["ab", "b", "a"]))
def test_stacks_multiply_to_the_mean_of_the_products(seed, ranks, kind):
    """Of clients of unequal ranks, and also where one factor stays as it was."""
    arrived, _ = clients(seed, ranks, kind=kind)
    found = Stack(SPACE).finish(Stack(SPACE).part(arrived))
    for pair in PAIRS:
        exact = np.zeros((pair.out_features, pair.in_features))
        for one in arrived:
            b, a = (one.start[n].astype(float) + one.update.get(n, np.float32(0)) for n in (pair.b, pair.a))
            exact += one.mix * b @ a
        left, right = found[STACK + pair.b], found[STACK + pair.a]
        assert left.shape == (pair.out_features, RANK * len(ranks))
        assert right.shape == (RANK * len(ranks), pair.in_features)
        np.testing.assert_allclose(left @ right, exact, rtol=0, atol=1e-12)
        for k, rank in enumerate(ranks):  # what is padded multiplies to nothing
            assert not left[:, RANK * k + rank : RANK * (k + 1)].any()
            assert not right[RANK * k + rank : RANK * (k + 1)].any()


@given(seed=seeds, ranks=some_ranks)
def test_each_update_is_kept_in_the_order_of_clients(seed, ranks):
    arrived, _ = clients(seed, ranks)
    found = Each().finish(Each().part(arrived))
    assert found.keys() == {*Sum().part(arrived), *(EACH + name for name in SPACE.shapes)}, "and nothing else"
    for name in SPACE.shapes:
        assert found[EACH + name].shape == (len(ranks), *SPACE.shapes[name])
        for value, one in zip(found[EACH + name], arrived, strict=True):
            assert value.tobytes() == one.update[name].tobytes()


# ---------------------------------------------------------------------------------------------------- all of them


@pytest.mark.parametrize("fold", FOLDS)
def test_whatever_else_it_keeps_a_fold_has_the_sums(fold):
    arrived, _ = clients(5, [4, 2, 3], share=0.5)
    found, sums = fold.part(arrived), Sum().part(arrived)
    assert {name for name in found if not name.startswith((COVERED, STACK, EACH))} == set(sums)
    assert all(np.array_equal(found[name], value) for name, value in sums.items())
    assert not fold.part([])


@pytest.mark.parametrize("fold", FOLDS)
@given(seed=seeds, ranks=some_ranks, share=st.sampled_from([0.4, 1.0]), cuts=st.lists(st.integers(0, 6), max_size=5))
@settings(max_examples=60, deadline=None)
def test_parts_joined_in_order_are_the_whole(fold, seed, ranks, share, cuts):
    """Whatever the packs, also where nobody of one arrived; sums up to rounding, what is only kept to the bit."""
    arrived, _ = clients(seed, ranks, share)
    whole, joint = fold.part(arrived), in_parts(fold, arrived, cuts)
    assert joint.keys() == whole.keys()
    for name, value in whole.items():
        if name.startswith((STACK, EACH)):
            assert joint[name].dtype == value.dtype
            np.testing.assert_array_equal(joint[name], value)
        else:
            np.testing.assert_allclose(joint[name], value, rtol=0, atol=1e-12)
    finished = fold.finish(whole)
    for name, value in fold.finish(joint).items():
        np.testing.assert_allclose(value, finished[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("fold", FOLDS)
@given(seed=seeds, count=st.integers(2, 9), size=st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_parts_may_be_joined_in_groups_first(fold, seed, count, size):
    """As `join` runs where packs were folded, and the coordinator joins what comes of it."""
    arrived, _ = clients(seed, [1 + k % RANK for k in range(count)])
    packs = [PackFold(fold.part([one]), {}, None) for one in arrived]
    grouped = joined(fold, [joined(fold, group) for group in in_groups(packs, size)]).folded
    for name, value in fold.part(arrived).items():
        np.testing.assert_allclose(grouped[name], value, rtol=0, atol=1e-12)


@pytest.mark.parametrize("fold", FOLDS)
def test_what_a_radio_could_add_up_is_a_sum_of_parts(fold):
    """`linear`: parts of single clients have the shapes of the whole and add up to it."""
    arrived, _ = clients(7, [4, 4, 2])
    singles, whole = [fold.part([one]) for one in arrived], fold.part(arrived)
    same_shapes = all(one[name].shape == value.shape for one in singles for name, value in whole.items())
    assert same_shapes or not fold.linear
    for name, value in whole.items() if fold.linear else ():
        np.testing.assert_allclose(sum(one[name] for one in singles), value, rtol=0, atol=1e-12)


def test_where_nothing_arrived_the_server_stays_as_it_is():
    assert Averaging(MethodConfig(), SPACE).aggregate(start := server(), Reception(NOBODY, ()), 1) is start
