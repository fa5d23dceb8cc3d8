"""The re-orthogonalised broadcast: same product, singular components."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysoft.codecs.measure.factors import Layout, read_update
from raysoft.codecs.measure.importance import norm_scores
from raysoft.config.presets import load_config
from raysoft.errors import ConfigError
from raysoft.kernels.lowrank import svd_gauge
from raysoft.methods.initial import initial_theta
from raysoft.methods.ranks import cut_to_rank
from raysoft.methods.soft import Config, build
from raysoft.rng import Rng
from raysoft.types import Downlink, LoraPair, Outcome, ParamSpace, Reception, ServerState, View

NOBODY = Outcome(np.array([]), np.array([]), np.array([]), (), 0.0)


@settings(max_examples=60, deadline=None)
@given(
    out=st.integers(1, 9),
    width=st.integers(1, 9),
    rank=st.integers(1, 7),
    dead=st.integers(0, 7),
    scale=st.sampled_from([1e-8, 1.0, 1e6]),
    seed=st.integers(0, 99),
)
def test_gauge_keeps_the_product_and_orders_orthogonal_rows(out, width, rank, dead, scale, seed):
    rng = np.random.default_rng(seed)
    b, a = scale * rng.normal(size=(out, rank)), rng.normal(size=(rank, width))
    b[:, :dead] = 0.0
    new_b, new_a = svd_gauge(b, a, 0.7, rng.normal(size=(rank, width)))
    np.testing.assert_allclose(new_b @ new_a, b @ a, atol=1e-12 * scale, rtol=0)
    orthogonal = min(rank, width)
    np.testing.assert_allclose(new_a[:orthogonal] @ new_a[:orthogonal].T, 0.49 * np.eye(orthogonal), atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(new_a, axis=1), 0.7, rtol=1e-12)
    # The paper's importance is the singular value.
    sigma = np.zeros(rank)
    exact = np.linalg.svd(b @ a, compute_uv=False)[:rank]
    sigma[: exact.size] = exact
    np.testing.assert_allclose(np.linalg.norm(new_b, axis=0) * 0.7, sigma, atol=1e-12 * scale)
    assert not new_b[:, max(min(rank - dead, out, width), 0) :].any()


PAIRS = (LoraPair("first", 12, 10), LoraPair("second", 7, 12))
SPACE = ParamSpace(PAIRS, 4, 2.0)


def start() -> ServerState:
    return ServerState(theta=initial_theta(SPACE, {}, "peft", Rng(3)))


def change(seed: int, rank: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    folded = {name: 0.1 * rng.normal(size=shape) for name, shape in SPACE.shapes.items()}
    for pair in PAIRS:
        folded[pair.b][:, rank:] = 0.0
    return folded


def product(server: ServerState, pair: LoraPair) -> np.ndarray:
    return server.theta[pair.b].astype(float) @ server.theta[pair.a].astype(float)


@pytest.mark.parametrize("trained", [4, 2])
def test_aggregation_changes_the_coordinates_but_not_the_model(trained):
    turned, plain = build(Config(reorthogonalize=True), SPACE), build(Config(), SPACE)
    first = start()
    server, lengths = first, {p.module: np.sqrt((first.theta[p.a].astype(float) ** 2).sum(1).mean()) for p in PAIRS}
    for version in (1, 2, 3):
        received = Reception(NOBODY, (), folded=change(version, trained if version == 1 else 4))
        after, straight = turned.aggregate(server, received, version), plain.aggregate(server, received, version)
        for pair in PAIRS:
            exact = product(straight, pair)
            assert np.linalg.norm(product(after, pair) - exact) <= 1e-6 * np.linalg.norm(exact)
            a = after.theta[pair.a].astype(float)
            # c is the row norm at the start of training, in every later round too.
            np.testing.assert_allclose(a @ a.T, lengths[pair.module] ** 2 * np.eye(4), atol=1e-6)
        if version == 1:
            assert all(not after.theta[p.b][:, trained:].any() for p in PAIRS)
        assert after.version == version
        assert after.theta["first.lora_A"].dtype == np.float32
        server = after
    again = turned.aggregate(first, Reception(NOBODY, (), folded=change(1)), 1)
    same = turned.aggregate(first, Reception(NOBODY, (), folded=change(1)), 1)
    assert all((again.theta[name] == same.theta[name]).all() for name in again.theta)


def test_smaller_ranks_hold_the_largest_components_and_norms_are_singular_values():
    server = build(Config(reorthogonalize=True), SPACE).aggregate(start(), Reception(NOBODY, (), folded=change(5)), 1)
    cut = cut_to_rank(server.theta, SPACE, 2)
    for pair in PAIRS:
        u, s, vt = np.linalg.svd(product(server, pair))
        best = (u[:, :2] * s[:2]) @ vt[:2]  # Eckart-Young
        np.testing.assert_allclose(cut[pair.b].astype(float) @ cut[pair.a], best, atol=1e-6)
    nothing = {name: np.zeros(shape) for name, shape in SPACE.shapes.items()}
    view = View(1, 0, 4, server.theta, frozenset(nothing), Downlink(0))
    scores = norm_scores(read_update(Layout(SPACE, 4), nothing, view))
    for number, pair in enumerate(PAIRS):
        want = np.linalg.svd(product(server, pair), compute_uv=False)[:4]
        np.testing.assert_allclose(np.sqrt(scores[number]), want, rtol=1e-5)


def test_nothing_received_or_not_finite_is_left_alone():
    method = build(Config(reorthogonalize=True), SPACE)
    assert method.aggregate(start(), Reception(NOBODY, ()), 1).theta["first.lora_A"] is not None
    before = start()
    assert method.aggregate(before, Reception(NOBODY, ()), 1) is before
    broken = change(1)
    broken["first.lora_B"][0, 0] = np.nan
    after = method.aggregate(before, Reception(NOBODY, (), folded=broken), 1)
    assert np.isnan(after.theta["first.lora_B"][0, 0])
    assert not np.isnan(after.theta["second.lora_B"]).any()


def test_plain_error_feedback_is_refused_with_turning_coordinates():
    with pytest.raises(ConfigError, match=r"error_feedback.*reorthogonalize"):
        load_config("soft", ["method.reorthogonalize=true", "codec.error_feedback=true"])
    with pytest.raises(ConfigError, match="reorthogonalize"):
        load_config("ffa", ["method.reorthogonalize=true"])
    load_config("soft", ["method.reorthogonalize=true"])
    load_config("soft", ["method.reorthogonalize=true", "codec.error_feedback=transport"])
