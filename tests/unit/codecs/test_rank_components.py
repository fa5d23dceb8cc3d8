"""SOFT's components: importances against dense linear algebra."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysoft.codecs.measure.factors import Layout, read_update
from raysoft.codecs.measure.importance import Losses, norm_scores, rank_components, rank_greedily
from raysoft.codecs.rank_components import component_bits, losses
from raysoft.codecs.wire.quantizer import ValueCoder
from raysoft.kernels.lowrank import change_norm2, component_gram, product_inner, product_norm2, product_svd
from tests.unit.codecs.updates import build, client, dense_error, products, view_of

FLOAT = ValueCoder(32)


def orthogonal_client(rank: int = 5):
    """Omega = 0 and B0 = 0: orthogonal b's and orthogonal a's, exactly so after rounding to float32."""
    space, start, update = client([(16, 12), (16, 12), (9, 20)], rank, seed=3)
    rng = np.random.default_rng(1)
    for pair in space.pairs:
        # Disjoint supports keep the columns orthogonal in float32.
        b, a = np.zeros((pair.out_features, rank)), np.zeros((rank, pair.in_features))
        for j in range(rank):
            b[j::rank, j] = rng.normal(size=b[j::rank, j].size) * 0.7**j
            a[j, j::rank] = rng.normal(size=a[j, j::rank].size)
        start[pair.b] = np.zeros((pair.out_features, rank), dtype=np.float32)
        start[pair.a] = np.zeros((rank, pair.in_features), dtype=np.float32)
        update[pair.b], update[pair.a] = b.astype(np.float32), a.astype(np.float32)
    return space, start, update


@pytest.mark.parametrize("importance", ["norm", "update", "gram_greedy"])
def test_orthogonal_components_give_eckart_young(importance):
    space, start, update = orthogonal_client()
    view = view_of(space, start, update)
    space = type(space)(space.pairs[:2], space.rank, space.scale)  # equal sizes: energy alone decides
    sigma = np.concatenate([np.linalg.svd(x)[1][:5] for x in products(space, start, update)])
    scores = space.scale * np.sqrt(norm_scores(read_update(Layout(space, 5), update, view)))
    np.testing.assert_allclose(np.sort(scores.ravel()), np.sort(sigma), rtol=1e-12)
    codec = build("rank_components", space, importance=importance)
    curve = codec.menu(update, view, {})
    tail = np.concatenate([np.cumsum(np.sort(sigma**2))[::-1], [0.0]])
    np.testing.assert_allclose(curve.error_J, tail, rtol=1e-12, atol=1e-12 * tail[0])
    for units in range(curve.units + 1):
        encoded = codec.encode(update, view, {}, units, np.random.default_rng(0))
        kept = encoded.stats["sent"].reshape(2, 5)
        assert set(np.sort(scores[kept])) == set(np.sort(scores.ravel())[10 - units :])
        received = products(space, start, codec.decode(encoded.payload, view, units))
        for matrix, whole, each in zip(received, products(space, start, update), kept, strict=True):
            u, s, vt = np.linalg.svd(whole)
            best = (u[:, : each.sum()] * s[: each.sum()]) @ vt[: each.sum()]
            np.testing.assert_allclose(matrix, best, atol=1e-10)


@pytest.mark.parametrize("scope", ["model", "matrix"])
@pytest.mark.parametrize("importance", ["norm", "update", "gram_greedy"])
def test_the_curve_holds_the_errors_of_what_is_sent(scope, importance):
    """Of every unit, before the curve is made convex."""
    space, start, update = client([(12, 10)] * 2 + [(6, 14)], 4, seed=7)
    codec, view = build("rank_components", space, scope=scope, importance=importance), view_of(space, start, update)
    bits, errors = codec.scheme.curve(read_update(Layout(space, 4), update, view), codec.coder)
    for units in range(len(bits)):
        encoded = codec.encode(update, view, {}, units, np.random.default_rng(units))
        received = codec.decode(encoded.payload, view, units)
        assert encoded.payload.num_bits == bits[units]
        assert dense_error(space, start, update, received) == pytest.approx(errors[units], rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("size", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("bits", [32, 16])
@pytest.mark.parametrize("importance", ["norm", "update", "gram_greedy"])
def test_delta_form_error_is_the_dense_error(size, bits, importance):
    space, start, update = client([(40, 30), (40, 30), (24, 50)], 6, size=size, b0=1.0, seed=8)
    view = view_of(space, start, update)
    factors = read_update(Layout(space, 6), update, view)
    coder = ValueCoder(bits)
    lost, cost = losses(factors, coder), component_bits(factors.layout, "ab", coder)
    if importance == "gram_greedy":
        ranking = rank_greedily(lost, cost, "model")
    else:
        scores = norm_scores(factors) if importance == "norm" else np.diagonal(lost.dropped, axis1=1, axis2=2)
        ranking = rank_components(lost, scores, cost, "model")
    for count in range(0, 19, 3):
        kept = ranking.kept(count)
        assert kept.sum() == count
        received = {}
        for number, pair in enumerate(space.pairs):
            values = {
                name: update[name].astype(np.float16) if bits == 16 else update[name] for name in (pair.a, pair.b)
            }
            received[pair.a] = np.where(kept[number][:, None], values[pair.a], np.float32(0)).astype(np.float32)
            received[pair.b] = np.where(kept[number], values[pair.b], np.float32(0)).astype(np.float32)
        exact = delta_dense(space, start, update, received)
        assert ranking.error_N1[count] == pytest.approx(exact, rel=1e-10, abs=1e-13 * ranking.error_N1[0])


def delta_dense(space, start, update, received) -> float:
    """Dense error whose own rounding is small: the O x I difference is built from the differences of the factors."""
    total = 0.0
    for pair in space.pairs:
        b, a = (start[n].astype(np.float64) + update[n] for n in (pair.b, pair.a))
        gap_b, gap_a = (update[n].astype(np.float64) - received[n] for n in (pair.b, pair.a))
        total += float(((space.scale * (gap_b @ a + (b - gap_b) @ gap_a)) ** 2).sum())
    return total


def test_kernels_against_dense_products():
    rng = np.random.default_rng(0)
    b, b0, a, a0 = (rng.normal(size=s) for s in ((3, 7, 4), (3, 7, 4), (3, 4, 9), (3, 4, 9)))
    np.testing.assert_allclose(product_norm2(b, a), ((b @ a) ** 2).sum((1, 2)), rtol=1e-13)
    np.testing.assert_allclose(product_inner(b, a, b0, a0), ((b @ a) * (b0 @ a0)).sum((1, 2)), rtol=1e-11)
    change = (b0 + b) @ (a0 + a) - b0 @ a0
    np.testing.assert_allclose(change_norm2(b, a, b0, a0), (change**2).sum((1, 2)), rtol=1e-13)
    pieces = np.einsum("koj,kji->kjoi", b0 + b, a0 + a) - np.einsum("koj,kji->kjoi", b0, a0)
    np.testing.assert_allclose(
        component_gram((b, a, b0, a0)), np.einsum("kjoi,kloi->kjl", pieces, pieces), rtol=1e-11, atol=1e-11
    )
    u, sigma, vt = product_svd(b, a)
    np.testing.assert_allclose((u * sigma[:, None, :]) @ vt, b @ a, atol=1e-12)
    np.testing.assert_allclose(sigma, np.linalg.svd(b @ a)[1][:, :4], rtol=1e-12)


@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 7), st.sampled_from(["model", "matrix"]), st.booleans())
@settings(max_examples=150, deadline=None)
def test_greedy_is_never_worse_than_update(seed, matrices, rank, scope, unequal):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(matrices, rank, 4)) * rng.lognormal(0, 1.5, (matrices, rank, 1))
    gram = vectors @ np.swapaxes(vectors, 1, 2)  # rank 4 < R: strong cross terms
    cost = rng.integers(1, 4, matrices) * 100 if unequal else np.full(matrices, 100)
    lost = Losses(gram)
    simple = rank_components(lost, np.diagonal(gram, axis1=1, axis2=2), cost, scope)
    greedy = rank_greedily(lost, cost, scope)
    slack = 1e-12 * simple.error_N1[0]
    assert (greedy.error_N1 <= simple.error_N1 + slack).all()
    for count in range(matrices * rank + 1):
        assert cost[greedy.steps(count)].sum() == cost[simple.steps(count)].sum()  # at the same bits
        gone = ~greedy.kept(count)
        exact = (gram * (gone[:, :, None] & gone[:, None, :])).sum()
        assert greedy.error_N1[count] == pytest.approx(exact, abs=10 * slack)
        assert gone.sum() == matrices * rank - count


def test_greedy_against_all_sets():
    """Brute force: the first pick is the best single component; the mean excess is a fraction of `update`'s."""
    rng = np.random.default_rng(2)
    excess = {"greedy": 0.0, "update": 0.0}
    for _ in range(50):
        vectors = rng.normal(size=(1, 6, 3))
        gram = vectors @ np.swapaxes(vectors, 1, 2)
        lost, cost = Losses(gram), np.array([1])
        greedy = rank_greedily(lost, cost, "model").error_N1
        update = rank_components(lost, np.diagonal(gram, axis1=1, axis2=2), cost, "model").error_N1
        for count in range(7):
            sets = map(list, combinations(range(6), 6 - count))
            best = min(gram[0][np.ix_(gone, gone)].sum() for gone in sets)
            assert greedy[count] >= best - 1e-9
            if count == 1:
                assert greedy[1] == pytest.approx(best, abs=1e-9)
            excess["greedy"] += greedy[count] - best
            excess["update"] += update[count] - best
    assert excess["greedy"] < 0.5 * excess["update"]


def test_update_beats_random_on_average():
    lost_share = {"update": [], "random": []}
    for seed in range(20):
        space, start, update = client([(24, 24)] * 4, 8, seed=seed, b0=0.3)
        view = view_of(space, start, update)
        codec = build("rank_components", space)
        lost_share["update"].append(codec.encode(update, view, {}, 8, np.random.default_rng(0)).relative_error)
        codec = build("randomk", space)
        lost_share["random"].append(codec.encode(update, view, {}, 8, np.random.default_rng(seed)).relative_error)
    assert np.mean(lost_share["update"]) < 0.6 * np.mean(lost_share["random"])


def test_scope_matrix_takes_turns():
    space, start, update = client([(12, 12)] * 4, 5, seed=4)
    view = view_of(space, start, update)
    for name in list(update)[:2]:
        update[name] = update[name] * 30  # one matrix outweighs all others
    fair = build("rank_components", space, scope="matrix")
    free = build("rank_components", space, scope="model")
    for units in range(21):
        kept = fair.encode(update, view, {}, units, np.random.default_rng(0)).stats["sent"].reshape(4, 5).sum(1)
        assert kept.max() - kept.min() <= 1
    kept = free.encode(update, view, {}, 5, np.random.default_rng(0)).stats["sent"].reshape(4, 5).sum(1)
    assert kept.tolist() == [5, 0, 0, 0]


def test_unequal_sizes_rank_by_energy_per_bit():
    space, start, update = client([(40, 40), (6, 6)], 3, seed=6)
    view = view_of(space, start, update)
    factors = read_update(Layout(space, 3), update, view)
    lost, cost = losses(factors, FLOAT), component_bits(factors.layout, "ab", FLOAT)
    assert cost.tolist() == [80 * 32, 12 * 32]
    energy = np.diagonal(lost.dropped, axis1=1, axis2=2)
    ranking = rank_components(lost, energy, cost, "model")
    order = np.argsort(-(energy / cost[:, None]).ravel(), kind="stable")
    for count in range(7):
        assert set(np.flatnonzero(ranking.kept(count).ravel())) == set(order[:count])


@given(st.integers(0, 2**32), st.integers(1, 6), st.sampled_from(["norm", "update", "gram_greedy"]), st.data())
@settings(max_examples=40, deadline=None)
def test_masks_never_separate_a_pair(seed, rank, importance, data):
    space, start, update = client([(7, 5), (7, 5), (4, 9)], rank, seed=seed)
    view = view_of(space, start, update)
    codec = build("rank_components", space, importance=importance)
    units = data.draw(st.integers(0, codec.menu(update, view, {}).units))
    encoded = codec.encode(update, view, {}, units, np.random.default_rng(0))
    received = codec.decode(encoded.payload, view, units)
    sent = encoded.stats["sent"].reshape(3, rank)
    assert sent.sum() == units
    for number, pair in enumerate(space.pairs):
        for j in range(rank):
            expected = (update[pair.b][:, j], update[pair.a][j]) if sent[number, j] else (0.0, 0.0)
            assert (received[pair.b][:, j] == expected[0]).all()
            assert (received[pair.a][j] == expected[1]).all()


def test_cross_term_share():
    space, start, update = client([(10, 8)] * 2, 4)
    view = view_of(space, start, update)
    encoded = build("rank_components", space).encode(update, view, {}, 3, np.random.default_rng(0))
    whole = own = 0.0
    for pair in space.pairs:
        b0, a0 = start[pair.b].astype(float), start[pair.a].astype(float)
        b, a = b0 + update[pair.b], a0 + update[pair.a]
        whole += ((b @ a - b0 @ a0) ** 2).sum()
        own += sum(((np.outer(b[:, j], a[j]) - np.outer(b0[:, j], a0[j])) ** 2).sum() for j in range(4))
    assert float(encoded.stats["cross_term_share"]) == pytest.approx((whole - own) / whole, rel=1e-9)
