"""Covariance of separate averaging, against dense products written out."""

import numpy as np
import pytest

from raysoft.federation.diagnostics import covariance_metrics, covariance_mode, product_sums
from raysoft.rng import Rng
from raysoft.types import LoraPair, ParamSpace

PAIRS = (LoraPair("m", 7, 5), LoraPair("n", 4, 9))
SPACE = ParamSpace(PAIRS, rank=3, scale=0.5)


def draws(seed: int, size: float, clients: int = 4):
    random = np.random.default_rng(seed)
    start = {name: random.normal(size=shape).astype(np.float32) for name, shape in SPACE.shapes.items()}
    updates = [
        {name: (size * random.normal(size=shape)).astype(np.float32) for name, shape in SPACE.shapes.items()}
        for _ in range(clients)
    ]
    weights = random.dirichlet(np.ones(clients))
    return start, updates, weights


def mean_of(updates, weights):
    return {name: sum(w * u[name].astype(float) for w, u in zip(weights, updates)) for name in updates[0]}


def dense_reference(start, received, trained, weights):
    """Straight from the definitions, with B_k A_k multiplied out."""
    cov = ideal = applied = inner = 0.0
    for p in PAIRS:
        a0, b0 = start[p.a].astype(float), start[p.b].astype(float)
        factors = [(b0 + u[p.b], a0 + u[p.a]) for u in received]
        b_mean, a_mean = (sum(w * f[i] for w, f in zip(weights, factors)) for i in (0, 1))
        product = sum(w * b @ a for w, (b, a) in zip(weights, factors))
        want = 0.5 * sum(w * ((b0 + u[p.b]) @ (a0 + u[p.a]) - b0 @ a0) for w, u in zip(weights, trained))
        step = 0.5 * (b_mean @ a_mean - b0 @ a0)
        cov += np.sum((0.5 * (product - b_mean @ a_mean)) ** 2)
        ideal += np.sum(want**2)
        applied += np.sum(step**2)
        inner += np.sum(step * want)
    return cov / ideal, (applied / ideal) ** 0.5, inner / (applied * ideal) ** 0.5


@pytest.mark.parametrize("size", [1.0, 1e-3])
def test_exact_mode_is_the_dense_formula(size):
    start, trained, weights = draws(0, size)
    received = [{name: value * (i % 2) for name, value in u.items()} for i, u in enumerate(trained)]
    sums = product_sums(
        SPACE, "exact", Rng(0), start=start, received=received, trained=trained, mix=weights, weights=weights
    )
    got = covariance_metrics(SPACE, "exact", Rng(0), start, mean_of(received, weights), sums)
    want = dense_reference(start, received, trained, weights)
    np.testing.assert_allclose(
        [got["aggregation_covariance"], got["applied_ratio"], got["applied_cosine"]], want, rtol=1e-7
    )


def test_pack_sums_add_up():
    start, trained, weights = draws(1, 0.1)
    whole = product_sums(
        SPACE, "exact", Rng(0), start=start, received=trained, trained=trained, mix=weights, weights=weights
    )
    parts = [
        product_sums(
            SPACE,
            "exact",
            Rng(0),
            start=start,
            received=trained[i : i + 2],
            trained=trained[i : i + 2],
            mix=weights[i : i + 2],
            weights=weights[i : i + 2],
        )
        for i in (0, 2)
    ]
    for name, value in (parts[0] + parts[1]).received.items():
        np.testing.assert_allclose(value, whole.received[name], rtol=1e-12)


def test_identical_clients_have_no_covariance():
    start, trained, weights = draws(2, 0.5)
    same = [trained[0]] * 4
    sums = product_sums(SPACE, "exact", Rng(0), start=start, received=same, trained=same, mix=weights, weights=weights)
    got = covariance_metrics(SPACE, "exact", Rng(0), start, mean_of(same, weights), sums)
    assert got["aggregation_covariance"] < 1e-25
    assert got["applied_ratio"] == pytest.approx(1.0, abs=1e-12)


def test_the_sketch_estimates_the_exact_value():
    # A Gaussian sketch of a rank-one vector has relative variance 2/columns on its squared norm; with 9 columns at
    # most here, 400 independent sketches bring the standard error of the mean below 3 %.
    start, trained, weights = draws(3, 0.5)
    exact = dense_reference(start, trained, trained, weights)[0]
    values = []
    for seed in range(400):
        sums = product_sums(
            SPACE, "sketch", Rng(seed), start=start, received=trained, trained=trained, mix=weights, weights=weights
        )
        got = covariance_metrics(SPACE, "sketch", Rng(seed), start, mean_of(trained, weights), sums)
        values.append(got["aggregation_covariance"])
    assert np.median(values) == pytest.approx(exact, rel=0.15)


def test_missing_factors_count_as_unchanged():
    start, trained, weights = draws(4, 0.5)
    only_b = [{name: value for name, value in u.items() if name.endswith("lora_B")} for u in trained]
    padded = [{name: value if name.endswith("lora_B") else 0 * value for name, value in u.items()} for u in trained]
    one = product_sums(
        SPACE, "exact", Rng(0), start=start, received=only_b, trained=only_b, mix=weights, weights=weights
    )
    two = product_sums(
        SPACE, "exact", Rng(0), start=start, received=padded, trained=padded, mix=weights, weights=weights
    )
    for name, value in one.received.items():
        np.testing.assert_allclose(value, two.received[name], atol=1e-12)


def test_auto_mode_weighs_dense_products_against_the_updates():
    assert covariance_mode("auto", SPACE, cohort=10) == "exact"
    wide = ParamSpace((LoraPair("w", 4096, 4096),), rank=1, scale=1.0)
    assert covariance_mode("auto", wide, cohort=2) == "sketch"
    assert covariance_mode("off", SPACE, cohort=10) == "off"


def test_nothing_trained_is_no_number():
    start, trained, weights = draws(5, 0.0)
    sums = product_sums(
        SPACE, "exact", Rng(0), start=start, received=trained, trained=trained, mix=weights, weights=weights
    )
    got = covariance_metrics(SPACE, "exact", Rng(0), start, mean_of(trained, weights), sums)
    assert got["aggregation_covariance"] is None
