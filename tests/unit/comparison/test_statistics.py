"""Statistics of comparisons against scipy's own tests, closed forms, brute force, and simulated error rates."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from raysoft.comparison.statistics import holm, kendall, margin_tests, mean_std, paired_difference, wilcoxon
from raysoft.rng import Rng

numbers = st.integers(-1000, 1000).map(lambda n: n / 1000)
paired = st.integers(2, 12).flatmap(
    lambda n: st.tuples(st.lists(numbers, min_size=n, max_size=n), st.lists(numbers, min_size=n, max_size=n))
)
margins = st.floats(0.001, 0.5)


def spread_out(a, b):
    return np.std(np.subtract(a, b)) > 1e-6


def test_mean_and_standard_deviation_by_hand():
    assert mean_std([]) == (None, None)
    assert mean_std([0.5]) == (0.5, None)
    assert mean_std([1.0, 3.0]) == (2.0, pytest.approx(math.sqrt(2)))


@given(paired)
def test_interval_is_that_of_scipys_paired_t_test(values):
    a, b = values
    found = paired_difference(a, b)
    assert found.difference == pytest.approx(np.mean(a) - np.mean(b), abs=1e-12)
    if spread_out(a, b):
        interval = stats.ttest_rel(a, b).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-9)
    assert found.low <= found.difference <= found.high


def test_interval_by_hand():
    found = paired_difference([1.0, 2.0, 3.0], [0.0, 0.0, 0.0])  # standard error 1/sqrt(3), t(0.975; 2) = 4.302653
    assert found.high - 2.0 == pytest.approx(4.30265273 / math.sqrt(3), abs=1e-7)


@given(paired, margins)
def test_margins_are_scipys_one_sided_tests(values, margin):
    a, b = values
    if not spread_out(a, b):
        return
    d = np.subtract(a, b)
    above = stats.ttest_1samp(d, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(d, margin, alternative="less").pvalue
    higher = margin_tests(a, b, margin)
    assert higher.noninferior == pytest.approx(above, abs=1e-9)
    assert higher.equivalent == pytest.approx(max(above, below), abs=1e-9)
    lower = margin_tests(a, b, margin, lower_is_better=True)
    assert lower.noninferior == pytest.approx(below, abs=1e-9)
    assert lower.equivalent == pytest.approx(higher.equivalent, abs=1e-9)


@given(paired, margins)
def test_equivalence_is_the_90_percent_interval_inside_the_margin(values, margin):
    a, b = values
    if not spread_out(a, b):
        return
    inner = paired_difference(a, b, confidence=0.9)
    inside = -margin < inner.low and inner.high < margin
    p = margin_tests(a, b, margin).equivalent
    assert (p < 0.05) == inside or abs(p - 0.05) < 1e-9


@given(paired, margins)
def test_a_relative_margin_tests_against_the_scaled_reference(values, margin):
    a, b = (np.abs(part) + 0.5 for part in values)
    if min(np.std(a - (1 + margin) * b), np.std(a - (1 - margin) * b)) < 1e-6:
        return
    found = margin_tests(a, b, margin, relative=True, lower_is_better=True)
    below = stats.ttest_rel(a, (1 + margin) * b, alternative="less").pvalue
    above = stats.ttest_rel(a, (1 - margin) * b, alternative="greater").pvalue
    assert found.noninferior == pytest.approx(below, abs=1e-9)
    assert found.equivalent == pytest.approx(max(below, above), abs=1e-9)


def test_one_seed_gives_a_difference_and_nothing_else():
    found = paired_difference([0.9], [0.8])
    assert (found.seeds, found.low, found.high) == (1, None, None)
    assert found.difference == pytest.approx(0.1)
    assert margin_tests([0.9], [0.8], 0.01).noninferior is None
    assert wilcoxon([0.9], [0.8]) is None


def test_seeds_that_all_say_the_same_decide():
    a, b = [0.3, 0.6, 0.9], [0.1, 0.4, 0.7]  # each 0.2 apart, up to rounding
    assert paired_difference(a, b).low == paired_difference(a, b).high
    assert margin_tests(b, a, 0.3).equivalent == 0.0
    assert margin_tests(b, a, 0.1).noninferior == 1.0
    assert margin_tests(a, b, 0.1) == margin_tests(a, b, 0.19)
    assert (margin_tests(a, b, 0.1).noninferior, margin_tests(a, b, 0.1).equivalent) == (0.0, 1.0)


@pytest.mark.parametrize(("a", "b"), [([], []), ([1.0], [1.0, 2.0])])
def test_unpaired_values_are_refused(a, b):
    with pytest.raises(ValueError, match="equally long"):
        paired_difference(a, b)


def test_error_rates_are_those_promised():
    """At the margin itself 5 % of the tests reject; the 95 % interval misses the truth in 5 % of the cases."""
    repeats, seeds, margin = 2000, 6, 0.01
    noise = Rng(11)("noise").normal(0.0, 0.02, (repeats, seeds))
    reference = np.linspace(0.7, 0.8, seeds)
    rejected = missed = 0
    for row in noise:
        arm = reference - margin + row
        rejected += margin_tests(arm, reference, margin).noninferior <= 0.05
        found = paired_difference(arm, reference)
        missed += not found.low <= -margin <= found.high
    three_sigma = 3 * math.sqrt(0.05 * 0.95 / repeats)
    assert rejected / repeats == pytest.approx(0.05, abs=three_sigma)
    assert missed / repeats == pytest.approx(0.05, abs=three_sigma)


def rejected_step_down(p_values, level):
    """Holm's procedure as written down: go up the sorted p-values until one exceeds level / (those left)."""
    out, order = set(), sorted(range(len(p_values)), key=lambda i: p_values[i])
    for place, i in enumerate(order):
        if p_values[i] > level / (len(p_values) - place):
            break
        out.add(i)
    return out


@given(st.lists(st.integers(0, 1000).map(lambda n: n / 1000), max_size=8), st.integers(1, 200).map(lambda n: n / 999))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values, level):
    adjusted = holm(p_values)
    assert {i for i, p in enumerate(adjusted) if p <= level * (1 + 1e-12)} >= rejected_step_down(p_values, level)
    assert {i for i, p in enumerate(adjusted) if p <= level} <= rejected_step_down(p_values, level * (1 + 1e-12))
    assert all(1.0 >= q >= p for p, q in zip(p_values, adjusted, strict=True))


def test_holm_by_hand_with_a_missing_value():
    assert holm([]) == []
    assert holm([None]) == [None]
    assert holm([0.01, None, 0.04, 0.03]) == [pytest.approx(0.03), None, pytest.approx(0.06), pytest.approx(0.06)]
    assert holm([0.6, 0.7]) == [1.0, 1.0]


@given(paired)
def test_kendall_counts_pairs(values):
    x, y = values
    tau, p = kendall(x, y)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert (tau, p) == (None, None)
        return
    two = list(itertools.combinations(range(len(x)), 2))
    signs = [np.sign(x[i] - x[j]) * np.sign(y[i] - y[j]) for i, j in two]
    ties_x, ties_y = (sum(v[i] == v[j] for i, j in two) for v in (x, y))
    assert tau == pytest.approx(sum(signs) / math.sqrt((len(two) - ties_x) * (len(two) - ties_y)))
    assert 0 <= p <= 1


def test_kendall_by_hand():
    assert kendall([1, 2, 3], [10, 30, 20])[0] == pytest.approx(1 / 3)
    assert kendall([1, 2, 3, 4], [4, 3, 2, 1])[0] == pytest.approx(-1)
    assert kendall([1], [1]) == (None, None)
    with pytest.raises(ValueError, match="one length"):
        kendall([1, 2], [1, 2, 3])


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=8, unique=True), st.integers(0, 255))
def test_wilcoxon_is_the_exact_distribution_of_signs(sizes, signs):
    d = np.array([size if signs >> i & 1 else -size for i, size in enumerate(sizes)], dtype=float)
    ranks = stats.rankdata(np.abs(d))
    total = ranks.sum()

    def distance(positive):
        return abs(ranks[positive].sum() - total / 2)

    seen = distance(d > 0)
    every = [distance(np.array(bits, dtype=bool)) for bits in itertools.product([0, 1], repeat=len(d))]
    exact = np.mean([value >= seen - 1e-9 for value in every])
    assert wilcoxon(d, np.zeros(len(d))) == pytest.approx(exact)
    assert wilcoxon(d, d) == 1.0
