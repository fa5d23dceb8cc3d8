"""The largest kept fraction within a latency budget: against brute force, closed forms and what must hold."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mstats, trim_mean

from raysoft.allocation.solvers.budget import Draws
from raysoft.allocation.solvers.offline import Latency, SampledRounds, largest_units
from raysoft.wireless.link import Link
from raysoft.wireless.rates import rate

LINK = Link(bandwidth_hz=1e6, noise_w_per_hz=1e-19, snr_gap=2.0, max_spectral_efficiency=7.4, control_rate_bps=1e6)


def sampled(seed: int, budget_s: float, limit_s: float, rounds: int = 24, clients: int = 5) -> SampledRounds:
    random = np.random.default_rng(seed)
    snr = 1e6 * random.exponential(size=(rounds, clients)) * 10 ** random.normal(0, 0.5, (rounds, clients))
    start = random.uniform(0.005, 0.05, (rounds, clients))
    return SampledRounds(Draws(start, np.full((rounds, clients), 4e3), snr), LINK, budget_s, limit_s)


def menu(seed: int, points: int) -> np.ndarray:
    return np.cumsum(np.r_[1e3, np.random.default_rng(seed).uniform(1e3, 3e4, points)])


@given(st.integers(0, 10**6), st.floats(0.02, 3.0), st.integers(1, 12), st.floats(0.0, 0.3), st.data())
@settings(max_examples=60, deadline=None)
def test_the_bisection_finds_what_trying_every_unit_finds(seed, budget_s, points, trim, data):
    rounds, bits = sampled(seed, budget_s, 2 * budget_s), menu(seed, points)
    least = data.draw(st.integers(0, points))
    fit = largest_units(rounds, bits, least, trim)
    heard = 1.0 - rounds.outage_MK.mean()
    means = [Latency.of(rounds.latency_M(b), trim).mean_s for b in bits]
    fitting = [u for u in range(least, points + 1) if means[u] <= budget_s]
    assert fit.senders == pytest.approx(heard)
    if heard < 0.5 or not fitting:
        assert fit.units is None
        assert fit.reason
        assert fit.latency.mean_s == means[least]
    else:
        assert (fit.units, fit.reason) == (max(fitting), "")
        assert fit.latency.mean_s == means[fit.units]


@given(st.integers(0, 10**6), st.floats(0.05, 1.0), st.floats(1.0, 4.0))
@settings(max_examples=40, deadline=None)
def test_a_larger_budget_never_keeps_less_of_the_same_senders(seed, budget_s, factor):
    bits = menu(seed, 10)
    few, many = (
        largest_units(sampled(seed, budget, limit_s=0.4), bits, 1, 0.05) for budget in (budget_s, budget_s * factor)
    )
    assert few.senders == many.senders
    assert (many.units or 0) >= (few.units or 0)


def test_one_client_takes_its_payload_over_the_whole_band():
    rounds = sampled(3, budget_s=1.0, limit_s=100.0, clients=1)
    draws = rounds.draws
    for bits in (0.0, 1e3, 1e5):
        alone = draws.start_s_MK[:, 0] + bits / rate(1e6, draws.snr_hz_MK[:, 0], 7.4)
        np.testing.assert_allclose(rounds.latency_M(bits), alone, rtol=1e-9)


@pytest.mark.parametrize(("size", "trim"), [(8, 0.0), (101, 0.05), (256, 0.05), (256, 0.25), (40, 0.49), (1000, 0.013)])
def test_trimmed_mean_and_its_error_are_scipys(size, trim):
    values = np.random.default_rng(size).exponential(size=size) ** 2
    found, cut = Latency.of(values, trim), int(trim * size)
    assert found.mean_s == pytest.approx(trim_mean(values, trim), rel=1e-12)
    # trimmed_stde takes its limits as shares and cuts whole values: half a value more is safe from rounding.
    share = (cut + 0.5) / size
    reference = mstats.trimmed_stde(values, limits=(share, share)) * (1 - 2 * share) / (1 - 2 * cut / size)
    assert found.standard_error_s == pytest.approx(reference, rel=1e-9)
    assert (found.median_s, found.p95_s) == (np.median(values), np.quantile(values, 0.95))


def test_the_error_of_the_mean_covers_the_truth_as_often_as_it_should():
    random = np.random.default_rng(5)
    draws = [Latency.of(random.normal(1.0, 0.3, 200), 0.05) for _ in range(400)]
    inside = np.mean([abs(one.mean_s - 1.0) <= 1.96 * one.standard_error_s for one in draws])
    assert 0.92 <= inside <= 0.98


def test_trimming_stands_up_to_a_few_deep_fades():
    values = np.r_[np.full(98, 0.2), 1e6, 1e9]
    assert Latency.of(values, 0.05).mean_s == pytest.approx(0.2)


def test_reasons_for_rejection():
    silent = sampled(1, budget_s=0.01, limit_s=0.006)
    fit = largest_units(silent, menu(1, 5), 1, 0.05)
    assert fit.units is None
    assert "could not send the least in time" in fit.reason
    slow = sampled(1, budget_s=0.06, limit_s=50.0)
    fit = largest_units(slow, menu(1, 5), 3, 0.05)
    assert fit.units is None
    assert "the least takes" in fit.reason
    assert "budget of 0.06 s" in fit.reason


def test_a_round_in_which_nobody_may_send_costs_the_budget():
    nobody = sampled(2, budget_s=0.7, limit_s=0.0)
    assert nobody.outage_MK.all()
    assert (nobody.latency_M(1e4) == 0.7).all()


def test_who_is_in_outage_neither_sends_nor_delays():
    rounds = sampled(4, budget_s=1.0, limit_s=1.0)
    draws = rounds.draws
    deep = replace(
        draws,
        snr_hz_MK=np.concatenate([draws.snr_hz_MK, np.full((24, 1), 1e-9)], axis=1),
        start_s_MK=np.concatenate([draws.start_s_MK, np.full((24, 1), 0.01)], axis=1),
        least_bits_MK=np.full((24, 6), 4e3),
    )
    with_one = SampledRounds(deep, LINK, 1.0, 1.0)
    assert with_one.outage_MK[:, 5].all()
    alive = ~with_one.outage_MK[:, :5]
    same = alive.all(axis=1) & ~rounds.outage_MK.any(axis=1)
    assert same.any()
    np.testing.assert_allclose(with_one.latency_M(2e4)[same], rounds.latency_M(2e4)[same], rtol=1e-12)


def test_a_least_unit_off_the_menu_is_refused():
    with pytest.raises(ValueError, match=r"least must be one of the units 0\.\.3"):
        largest_units(sampled(1, 1.0, 2.0), menu(1, 3), 4, 0.05)
