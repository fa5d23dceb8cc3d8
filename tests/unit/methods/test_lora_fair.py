"""LoRA-FAIR's correction against dense least squares, and the order of errors of the aggregation rules."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysoft.config.presets import load_config
from raysoft.errors import ConfigError
from raysoft.methods.folds import Arrived
from raysoft.methods.lora_fair import Config, build, correction
from raysoft.methods.rules.cosine import Misfit, turned
from raysoft.types import ServerState
from tests.rounds import rounds_of
from tests.unit.methods.spaces import space


def drawn(seed, clients=4, out=7, rank=3, into=6):
    """Means of both factors, stacks with the mix on A, and the mean of the products."""
    draws = np.random.default_rng(seed)
    b, a = draws.normal(size=(clients, out, rank)), draws.normal(size=(clients, rank, into))
    mix = draws.dirichlet(np.ones(clients))
    return (
        np.einsum("k,kor->or", mix, b),
        np.einsum("k,kri->ri", mix, a),
        np.concatenate(list(b), axis=1),
        np.concatenate([p * one for p, one in zip(mix, a, strict=True)]),
        np.einsum("k,kor,kri->oi", mix, b, a),
    )


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e-6, 0.01, 1.0, 100.0]))
@settings(max_examples=60, deadline=None)
def test_it_is_the_minimiser_of_the_regularised_error(seed, ridge):
    b, a, b_stack, a_stack, wanted = drawn(seed)
    more = correction(b, a, b_stack, a_stack, ridge)
    # min ||W - (B + D) A||^2 + ridge ||D||^2 row by row, as an ordinary least-squares problem of [A^T; sqrt(ridge) I]
    system = np.concatenate([a.T, np.sqrt(ridge) * np.eye(len(a))])
    target = np.concatenate([(wanted - b @ a).T, np.zeros((len(a), len(b)))])
    dense = np.linalg.lstsq(system, target, rcond=None)[0].T
    np.testing.assert_allclose(more, dense, atol=1e-9 * max(1.0, np.abs(dense).max()))


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_exact_svd_ridge_and_plain_means_err_in_this_order(seed):
    b, a, b_stack, a_stack, wanted = drawn(seed)
    fair = b + correction(b, a, b_stack, a_stack, 0.0)
    sigma = np.linalg.svd(wanted, compute_uv=False)
    best = np.linalg.norm(sigma[3:])  # FlexLoRA's, Eckart-Young
    slack = 1e-9 * np.linalg.norm(wanted)
    assert np.linalg.norm(wanted - b_stack @ a_stack) <= slack
    assert best <= np.linalg.norm(wanted - fair @ a) + slack
    assert np.linalg.norm(wanted - fair @ a) <= np.linalg.norm(wanted - b @ a) + slack
    rows = np.linalg.pinv(a) @ a
    np.testing.assert_allclose(fair @ a, wanted @ rows, atol=1e-9 * np.abs(wanted).max())


def test_there_is_nothing_to_correct_where_clients_agree_on_a():
    _, a, b_stack, _, _ = drawn(5)
    mix = np.array([0.1, 0.2, 0.3, 0.4])
    parts = np.split(b_stack, 4, axis=1)
    mean = sum(p * part for p, part in zip(mix, parts, strict=True))
    shared = np.concatenate([p * a for p in mix])
    np.testing.assert_allclose(correction(mean, a, b_stack, shared, 0.01), 0.0, atol=1e-12)
    np.testing.assert_allclose(correction(parts[0], a, parts[0], a, 0.01), 0.0, atol=1e-12)  # a single client


def test_a_large_ridge_is_fedit_and_rows_of_zeros_are_no_obstacle():
    b, a, b_stack, a_stack, _ = drawn(6)
    assert np.abs(correction(b, a, b_stack, a_stack, 1e12)).max() < 1e-9
    for ridge in (0.0, 0.01):
        nothing = correction(b, np.zeros_like(a), b_stack, np.zeros_like(a_stack), ridge)
        assert (nothing == 0.0).all()


def test_components_that_a_small_client_does_not_have_stay():
    """One client of rank 2 of 4 that changes nothing: nothing of the global model changes."""
    shape = space(4)
    draws = np.random.default_rng(2)
    theta = {name: draws.normal(size=size).astype(np.float32) for name, size in shape.shapes.items()}
    nothing = {name: np.zeros(size, np.float32) for name, size in shape.shapes.items()}
    method = build(Config(), shape)
    folded = method.fold.part([Arrived(nothing, 0.25, theta), Arrived(nothing, 0.75, theta)])
    change = method.change(ServerState(theta), folded)
    assert max(np.abs(value).max() for value in change.values()) < 1e-6


def test_a_round_of_small_clients_keeps_what_only_large_ones_have():
    _, states, _ = rounds_of("lora-fair", "model.lora.rank={low: 2, high: 8}", "train.lr=1e-9", count=2)
    for name, value in states[0].server.theta.items():
        np.testing.assert_allclose(states[-1].server.theta[name], value, atol=1e-5)


@pytest.mark.parametrize("ridge", [0.0, 0.01])
def test_the_means_of_small_ranks_are_padded(ridge):
    """A client of rank 1 among clients of rank 3 counts with zeros in its other components."""
    b, a, b_stack, a_stack, _ = drawn(7)
    b_stack, a_stack = b_stack.copy(), a_stack.copy()
    b_stack[:, 1:3], a_stack[1:3] = 0.0, 0.0
    wanted = b_stack @ a_stack
    more = correction(b, a, b_stack, a_stack, ridge)
    before, after = np.linalg.norm(wanted - b @ a), np.linalg.norm(wanted - (b + more) @ a)
    assert after <= before


# ----------------------------------------------------------------------------------------------- the paper's objective


def misfit_of(seed, weight=0.01):
    b, a, b_stack, a_stack, wanted = drawn(seed)
    return Misfit(b, b_stack @ (a_stack @ a.T), a @ a.T, float(np.linalg.norm(wanted)), weight)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.01, 1.0]))
@settings(max_examples=60, deadline=None)
def test_e_the_factored_objective_and_its_slope_are_the_dense_ones(seed, weight):
    b, a, _, _, wanted = drawn(seed)
    misfit, draws = misfit_of(seed, weight), np.random.default_rng(seed)
    more, toward = draws.normal(size=b.shape), draws.normal(size=b.shape)

    def dense(one):
        product = (b + np.linalg.norm(b) * one) @ a
        cosine = (product * wanted).sum() / (np.linalg.norm(product) * np.linalg.norm(wanted))
        return 1.0 - cosine + weight * np.linalg.norm(one)

    value, slope = misfit(more)
    assert value == pytest.approx(dense(more), abs=1e-10)
    step = 1e-5
    along = (dense(more + step * toward) - dense(more - step * toward)) / (2 * step)
    assert (slope * toward).sum() == pytest.approx(along, abs=1e-5)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.01, 1.0]), st.sampled_from([1e-3, 0.3, 30.0]))
@settings(max_examples=60, deadline=None)
def test_a_it_never_ends_above_its_start_whatever_the_rate(seed, weight, rate):
    b, a, b_stack, a_stack, _ = drawn(seed)
    more = turned(b, a, b_stack, a_stack, weight, 40, rate)
    misfit = misfit_of(seed, weight)
    assert misfit(more / np.linalg.norm(b))[0] <= misfit(np.zeros_like(b))[0] + 1e-12


@pytest.mark.parametrize("seed", range(5))
def test_without_a_penalty_it_comes_to_the_best_cosine_there_is(seed):
    """That of the projection on the rows of the mean A, which the ridge of zero finds."""
    b, a, b_stack, a_stack, wanted = drawn(seed)
    best = 1.0 - np.linalg.norm(wanted @ np.linalg.pinv(a) @ a) / np.linalg.norm(wanted)
    misfit = misfit_of(seed, 0.0)
    exact = correction(b, a, b_stack, a_stack, 0.0)
    assert misfit(exact / np.linalg.norm(b))[0] == pytest.approx(best, abs=1e-10)
    more = turned(b, a, b_stack, a_stack, 0.0, 3000, 0.3)
    assert misfit(more / np.linalg.norm(b))[0] == pytest.approx(best, abs=1e-3)


def test_b_there_is_nothing_to_turn_where_clients_agree_or_nothing_is_there():
    b, a, b_stack, a_stack, _ = drawn(5)
    one = b_stack[:, :3]
    np.testing.assert_array_equal(turned(one, a, one, a, 0.01, 20, 0.3), 0.0)  # a single client
    for zero in (turned(0 * b, a, b_stack, a_stack, 0.01, 20, 0.3), turned(b, a, 0 * b_stack, a_stack, 0.01, 20, 0.3)):
        np.testing.assert_array_equal(zero, 0.0)
    np.testing.assert_array_equal(turned(b, a, b_stack, a_stack, 1e3, 20, 0.3), 0.0)  # d: a heavy penalty is fedit


def test_the_modes_keep_their_options_apart_and_differ():
    for words in (["method.mode=cosine", "method.ridge=0.1"], ["method.cosine_steps=5"]):
        with pytest.raises(ConfigError, match=r"does nothing with mode"):
            load_config("lora-fair", words)
    after = {}
    for mode in ("ridge", "cosine"):
        _, states, records = rounds_of("lora-fair", f"method.mode={mode}", count=3)
        after[mode] = states[-1].server.theta
        assert all(record.metrics["applied_cosine"] > 0 for record in records)
    assert any((after["ridge"][name] != after["cosine"][name]).any() for name in after["ridge"])
