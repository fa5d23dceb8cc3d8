"""Psi term by term, its fitted constants, and how it ranks: closed forms, recovery of known constants, brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysoft.comparison.bound import TERMS, bound_of_run, calibrate, phi_of, ranking
from raysoft.errors import RaysoftError
from raysoft.rng import Rng
from raysoft.rundir.reading import read_run
from tests.run_folders import make_run

WEIGHTS = {"rank": 2.0, "sparsification": 0.5, "covariance": 3.0}


def test_psi_of_a_run_is_the_weighted_sum_of_what_it_recorded(tmp_path):
    run = read_run(make_run(tmp_path / "run", rounds=7))
    bound = bound_of_run(run, phi=0.25, weights=WEIGHTS)
    rows = run.records[1:]
    assert bound.round_T.tolist() == list(range(1, 8))
    for psi, row in zip(bound.psi_T, rows, strict=True):
        wanted = 2.0 * 0.25 + 0.5 * row["sparsification_error"] + 3.0 * row["aggregation_covariance"]
        assert psi == pytest.approx(wanted, rel=1e-12)
    assert bound.mean_psi == pytest.approx(bound.psi_T.mean(), rel=1e-12)
    assert bound.mean_terms[0] == 0.25


def test_what_was_not_measured_is_said(tmp_path):
    run = read_run(make_run(tmp_path / "run", rounds=3))
    rows = [{**row, "aggregation_covariance": None} for row in run.records]
    with pytest.raises(RaysoftError, match=r"no round has aggregation_covariance; is metrics\.covariance off\?"):
        bound_of_run(type(run)(run.path, run.config, tuple(rows), run.summary), 0.1)
    with pytest.raises(RaysoftError, match="has no rounds after the base"):
        bound_of_run(type(run)(run.path, run.config, run.records[:1], run.summary), 0.1)
    one_missing = [{**row, "aggregation_covariance": None} if row["round"] == 2 else row for row in run.records]
    bound = bound_of_run(type(run)(run.path, run.config, tuple(one_missing), run.summary), 0.1)
    assert np.isnan(bound.psi_T).tolist() == [False, True, False]
    assert np.isfinite(bound.mean_psi)


def test_phi_is_read_from_a_plan():
    plan = {"candidates": [{"rank": 2, "phi": 0.5}, {"rank": 4, "phi": 0.125}]}
    assert phi_of(plan, 4) == 0.125
    with pytest.raises(RaysoftError, match="no phi of rank 3; it measured 2, 4"):
        phi_of(plan, 3)


@given(st.integers(0, 10**6), st.lists(st.floats(0, 5), min_size=3, max_size=3), st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_known_constants_are_found_again_under_any_level_of_each_seed(seed, constants, seeds):
    random = np.random.default_rng(seed)
    terms = random.uniform(size=(12 * seeds, 3))
    group = np.repeat(np.arange(seeds), 12)
    metric = random.normal(size=seeds)[group] - terms @ constants
    found = calibrate(terms, metric, group)
    assert [found.weights[name] for name in TERMS] == pytest.approx(constants, abs=1e-6)
    if max(constants) > 1e-3:
        assert found.explained == pytest.approx(1.0)


def test_constants_are_never_negative_and_never_invented():
    random = np.random.default_rng(0)
    terms = random.uniform(size=(40, 3))
    better_with_more = calibrate(terms, terms @ [0.0, 2.0, 0.0] - terms @ [1.0, 0.0, 0.0])
    assert better_with_more.weights["sparsification"] == 0.0
    assert better_with_more.weights["rank"] > 0.5
    fixed = terms.copy()
    fixed[:, 0] = 0.3
    assert calibrate(fixed, -fixed @ [5.0, 1.0, 0.0]).weights["rank"] == 0.0
    flat = calibrate(terms, np.full(40, 0.8))
    assert (max(flat.weights.values()), flat.explained) == (0.0, None)
    with pytest.raises(ValueError, match=r"terms must have shape \(40, 3\)"):
        calibrate(terms[:, :2], np.zeros(40))


def tau_by_counting(x, y):
    pairs = list(itertools.combinations(range(len(x)), 2))
    return sum(np.sign(x[i] - x[j]) * np.sign(y[i] - y[j]) for i, j in pairs) / len(pairs)


@given(st.permutations(range(7)))
@settings(max_examples=25, deadline=None)
def test_the_ranking_counts_concordant_pairs(order):
    psi = np.arange(7.0)
    found = ranking(psi, np.array(order, dtype=float), Rng(0), resamples=50)
    assert found.tau == pytest.approx(tau_by_counting(-psi, order))
    assert -1.0 <= found.low <= found.high <= 1.0


def test_groups_are_ranked_within_and_resampled_whole():
    # Within every seed a small Psi is better; across seeds the levels would say the opposite.
    psi = np.array([1.0, 2.0, 3.0, 11.0, 12.0, 13.0])
    metric = np.array([0.3, 0.2, 0.1, 0.9, 0.8, 0.7])
    found = ranking(psi, metric, Rng(1), [0, 0, 0, 1, 1, 1])
    assert (found.tau, found.low, found.high) == (1.0, 1.0, 1.0)
    assert ranking(psi, metric, Rng(1)).tau < 0
    mixed = ranking(psi, np.array([0.3, 0.2, 0.1, 0.7, 0.8, 0.9]), Rng(1), [0, 0, 0, 1, 1, 1])
    assert (mixed.tau, mixed.low, mixed.high) == (0.0, -1.0, 1.0)


def test_the_interval_repeats_and_nothing_varies_is_none():
    random = np.random.default_rng(3)
    psi = random.uniform(size=15)
    metric = -psi + random.normal(0, 0.2, 15)
    first, again, other = (ranking(psi, metric, Rng(seed), resamples=200) for seed in (5, 5, 6))
    assert first == again
    assert first != other
    assert ranking(psi, np.ones(15), Rng(5)).tau is None
    assert ranking(psi, np.ones(15), Rng(5), np.arange(15) % 3).tau is None


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """tau of a bivariate normal with correlation rho is 2/pi asin(rho)."""
    random = np.random.default_rng(11)
    truth = 2 / np.pi * np.arcsin(0.6)
    inside = 0
    for trial in range(40):
        x = random.normal(size=40)
        y = 0.6 * x + 0.8 * random.normal(size=40)
        found = ranking(-x, y, Rng(trial), resamples=60)
        inside += found.low <= truth <= found.high
    assert inside >= 32
