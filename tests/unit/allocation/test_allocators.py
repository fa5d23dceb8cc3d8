"""Allocators on simulated rounds: what each of them promises, the queue's facts, outage, and infeasible budgets."""

from dataclasses import replace

import numpy as np
import pytest

from raysoft.allocation.base import AllocationContext
from raysoft.allocation.cohort import CSI_BITS, PLAN_BITS, control_bits
from raysoft.allocation.solvers import Draws, check_budget, latency_floor, smallest_feasible_budget, solve_minmax
from raysoft.allocation.solvers.menus import Menus
from raysoft.allocation.tsfa import WARM_UP
from raysoft.codecs.measure.report import report_bits
from raysoft.config import DeviceConfig, Plugin, registry
from raysoft.errors import ConfigError
from raysoft.rng import Rng
from raysoft.types import ChannelState, ClientReport, Curve, Outcome, Participants
from raysoft.wireless import rayleigh
from raysoft.wireless.link import Devices, Link
from tests.unit.allocation.problems import masked_curve

K, POPULATION, CYCLES = 10, 60, 8e7
LINK = Link.from_config(rayleigh.Config())
RNG = Rng(11)
CHANNEL = rayleigh.build(rayleigh.Config(), RNG)
DEVICES = Devices(DeviceConfig(), RNG)
CONTEXT = AllocationContext(LINK, kept_fraction=0.4, min_kept_fraction=0.05, payload_scale=1.0)
MODULES = {name: registry.plugin("allocator", name) for name in registry.ALLOCATORS}
FINITE = [name for name, module in MODULES.items() if module.Config.TRAITS.needs_channel]  # with a band to share
BUDGETED = {name for name, module in MODULES.items() if module.Config.TRAITS.needs_budget}
READING = {name for name, module in MODULES.items() if module.Config.TRAITS.reads_curves}


def build(name, context=CONTEXT, **options):
    return registry.build("allocator", Plugin(name=name, **options), context)


def budgeted(name, budget_s=0.25, **options):
    return build(name, **({"latency_budget_s": budget_s} if name in FINITE else {}), **options)


def report(client, tick, units=24, fixed=64, scale=1.0):
    """Every client's update differs in size and shape, from round to round."""
    curve = masked_curve(1000 * tick + client, units, fixed=fixed)
    return ClientReport(
        client=client,
        samples=10,
        rank=8,
        loss=1.0,
        cycles=CYCLES,
        downlink_bits=0,
        dense_bits=0,
        curve=replace(curve, error_J=curve.error_J * scale),
    )


def inputs(tick, clients=None, reports=None):
    clients_K = np.sort(RNG("cohort", tick).choice(POPULATION, K, replace=False)) if clients is None else clients
    reports = tuple(report(int(k), tick) for k in clients_K) if reports is None else reports
    cycles_K = np.full(len(clients_K), CYCLES)
    return reports, Participants(
        clients_K=clients_K,
        weights_K=np.full(len(clients_K), 1.0 / len(clients_K)),
        compute_s_K=DEVICES.compute_s(cycles_K, clients_K),
        compute_j_K=DEVICES.compute_j(cycles_K, clients_K),
        downlink_s=0.003,
        power_w_K=DEVICES.power_w(clients_K),
        channel=CHANNEL.state(clients_K, tick),
    )


def deliver(plan):
    """The plan comes true."""
    return Outcome(
        plan.active_K, plan.latency_s_K, np.zeros(len(plan.clients_K)), ("",) * len(plan.clients_K), plan.round_s
    )


def simulate(allocator, rounds, state=None, realise=lambda plan: plan.round_s):
    """Plans, realised latencies and queue of some rounds."""
    state = allocator.init() if state is None else state
    plans, taus, queues = [], [], []
    for tick in range(1, rounds + 1):
        plan = allocator.allocate(*inputs(tick), state, tick, RNG)
        outcome = replace(deliver(plan), round_s=realise(plan))
        state = allocator.observe(plan, outcome, state)
        plans.append(plan)
        taus.append(outcome.round_s)
        queues.append(float(state.get("queue_s", np.nan)))
    return plans, np.array(taus), np.array(queues)


def latencies(plan, data, context=CONTEXT):
    """Latency of each participant, from first principles."""
    reports, who = data
    bits = np.array([r.curve.fixed_bits + r.curve.bits_J[n] for r, n in zip(reports, plan.units_K, strict=True)])
    snr = LINK.snr_hz(who.channel.reported_gain_K, who.power_w_K)
    airtime = bits * context.payload_scale / LINK.rate_bps(plan.bandwidth_hz_K, snr)
    return who.downlink_s + who.compute_s_K + plan.control_bits_K / LINK.control_rate_bps + airtime


def test_what_the_allocators_say_of_themselves():
    """The two that weigh errors against time read curves and need a budget; only the ideal one shares no band."""
    assert BUDGETED == READING == {"tsfa", "greedy"}
    assert set(MODULES) - set(FINITE) == {"ideal"}


@pytest.mark.parametrize("name", FINITE)
def test_plans_hold_what_they_say(name):
    allocator = budgeted(name)
    state = {"queue_s": np.array(0.4)} if name == "tsfa" else allocator.init()
    for tick in range(1, 9):
        data = inputs(tick)
        plan = allocator.allocate(*data, state, tick, RNG)
        on = plan.active_K
        assert plan.clients_K.tolist() == [r.client for r in data[0]]
        assert on.any()
        assert plan.bandwidth_hz_K.sum() <= LINK.bandwidth_hz * (1 + 1e-9)
        assert np.all(plan.bandwidth_hz_K[on] > 0)
        assert np.all(plan.bandwidth_hz_K[~on] == 0)
        assert np.all(plan.units_K[on] >= 1)
        assert np.all(plan.units_K[~on] == 0)
        assert np.all(plan.units_K <= [r.curve.units for r in data[0]])
        assert plan.latency_s_K[on] == pytest.approx(latencies(plan, data)[on], rel=1e-9)
        assert plan.round_s == pytest.approx(plan.latency_s_K[on].max())
        assert plan.diagnostics["outages"] == np.count_nonzero(~on)
        error = np.array([r.curve.error_J[n] for r, n in zip(data[0], plan.units_K, strict=True)])
        energy = np.array([r.curve.error_J[0] for r in data[0]])
        assert plan.diagnostics["penalty"] == pytest.approx(error[on].sum() / energy[on].sum())
        assert all(np.isfinite(v) for v in plan.diagnostics.values())


@pytest.mark.parametrize("name", [name for name in FINITE if name != "equal"])  # whose shares are equal instead
def test_bandwidth_is_min_max(name):
    """All senders finish together."""
    allocator = budgeted(name)
    state = {"queue_s": np.array(0.4)} if name == "tsfa" else allocator.init()
    plan = allocator.allocate(*inputs(3), state, 3, RNG)
    assert plan.latency_s_K[plan.active_K] == pytest.approx(plan.round_s, rel=1e-9)


def test_tsfa_never_exceeds_the_round_time_it_chose():
    plans, _, _ = simulate(budgeted("tsfa"), 40)
    assert any(p.diagnostics["queue_s"] > 0 for p in plans)
    for plan in plans:
        assert plan.round_s <= plan.diagnostics["tau_s"] * (1 + 1e-8)
        assert 0 <= plan.diagnostics["slack"] <= 1
        assert plan.diagnostics["floor_s"] <= plan.diagnostics["tau_s"] <= plan.diagnostics["ceiling_s"] * (1 + 1e-9)
        # Whole units leave at least the error of the continuous solution, at most as much as one unit a client more.
        assert plan.diagnostics["continuous_penalty"] <= plan.diagnostics["penalty"] + 1e-9
        assert plan.diagnostics["penalty"] <= plan.diagnostics["continuous_penalty"] + 0.1


def test_an_empty_queue_keeps_everything():
    plan = budgeted("tsfa").allocate(*inputs(1), {"queue_s": np.array(0.0)}, 1, RNG)
    assert plan.units_K[plan.active_K].tolist() == [24] * int(plan.active_K.sum())
    assert plan.diagnostics["penalty"] == pytest.approx(0.0)
    assert plan.round_s == pytest.approx(plan.diagnostics["ceiling_s"], rel=1e-9)


def test_a_long_queue_sends_the_least():
    plan = budgeted("tsfa").allocate(*inputs(1), {"queue_s": np.array(1e4)}, 1, RNG)
    assert plan.round_s == pytest.approx(plan.diagnostics["floor_s"], rel=1e-2)


def test_the_queue_is_the_recursion_and_bounds_the_mean():
    """Z+ = max(Z + tau - budget, 0), hence mean tau <= budget + (Z_T - Z_0) / T, whatever really happens."""
    for start in (0.0, 0.7):
        allocator, budget = budgeted("tsfa", 0.25), 0.25
        _, taus, queues = simulate(
            allocator,
            60,
            {"queue_s": np.array(start)},
            realise=lambda p: p.round_s * (1.3 if p.clients_K[0] % 2 else 0.8),
        )
        expected = start
        for tau, queue in zip(taus, queues, strict=True):
            expected = max(expected + tau - budget, 0.0)
            assert queue == pytest.approx(expected, abs=1e-12)
        rounds = np.arange(1, 61)
        assert np.all(np.cumsum(taus) / rounds <= budget + (queues - start) / rounds + 1e-12)


def test_the_budget_is_kept_and_v_trades_error_for_queue():
    """Larger V: lower penalty, longer queue (O(1/V) against O(V))."""
    results = {}
    for v in (0.3, 1.0, 10.0):
        plans, taus, queues = simulate(budgeted("tsfa", 0.25, v=v), 80)
        results[v] = np.mean([p.diagnostics["penalty"] for p in plans]), queues[-40:].mean(), taus.mean()
    assert results[0.3][0] > results[1.0][0] > results[10.0][0]
    assert results[0.3][1] < results[1.0][1] < results[10.0][1]
    assert results[1.0][2] <= 1.02 * 0.25


def mean_penalty(plans):
    return np.mean([p.diagnostics["penalty"] for p in plans])


def test_tsfa_beats_greedy_at_the_same_mean_latency_where_the_budget_is_tight():
    """The queue lets good rounds pay for bad ones: much less error at no more time."""
    theirs, greedy_taus, _ = simulate(budgeted("greedy", 0.16), 60)
    ours, taus, _ = simulate(budgeted("tsfa", 0.16), 60)
    assert taus.mean() <= 1.01 * greedy_taus.mean()
    assert mean_penalty(ours) < 0.5 * mean_penalty(theirs)


def test_a_limit_on_single_rounds_saves_the_queue_from_fades():
    """Where the budget is loose the queue is often empty, and keeping everything can cost many budgets at once."""
    free, free_taus, _ = simulate(budgeted("tsfa", 0.2), 60)
    limited, taus, _ = simulate(budgeted("tsfa", 0.2, longest_round=2.0), 60)
    assert free_taus.max() > 5 * 0.2
    assert taus.max() <= 2.0 * 0.2 * (1 + 1e-9)
    assert mean_penalty(limited) < 0.5 * mean_penalty(free)
    assert taus.mean() <= free_taus.mean()


def test_steady_start():
    """Without a number the first round is stationary at one budget; with one it is that many budgets."""
    assert float(budgeted("tsfa", 0.25, queue_init="steady", queue_start=3.0).init()["queue_s"]) == pytest.approx(0.75)
    allocator = budgeted("tsfa", 0.16, queue_init="steady")
    state = allocator.init()
    assert np.isnan(state["queue_s"])
    plan = allocator.allocate(*inputs(1), state, 1, RNG)
    assert plan.diagnostics["tau_s"] == pytest.approx(0.16, rel=0.03)
    assert plan.diagnostics["queue_s"] > 0
    after = allocator.observe(plan, deliver(plan), state)
    assert float(after["queue_s"]) == pytest.approx(plan.diagnostics["queue_s"] + plan.round_s - 0.16)
    _, zero_taus, _ = simulate(budgeted("tsfa", 0.16), 6)
    _, steady_taus, _ = simulate(allocator, 6)
    assert abs(steady_taus.mean() - 0.16) < abs(zero_taus.mean() - 0.16)
    loose = budgeted("tsfa", 5.0, queue_init="steady")  # everything fits into the budget: the queue starts empty
    assert loose.allocate(*inputs(1), loose.init(), 1, RNG).diagnostics["queue_s"] == 0.0


def test_a_steady_start_survives_a_first_round_in_a_fade():
    """One cohort whose least hardly fits has a price far above the others: the median over the warm-up forgets it."""
    allocator, state = budgeted("tsfa", 0.16, queue_init="steady"), None
    queues, overrun, starts = [], 0.0, []
    for tick in range(1, 13):
        reports, who = inputs(tick)
        if tick == 1:
            who = replace(who, compute_s_K=np.full(len(who.clients_K), 0.159))  # a millisecond is left for uploads
        state = allocator.init() if state is None else state
        plan = allocator.allocate(reports, who, state, tick, RNG)
        queues.append(plan.diagnostics["queue_s"])
        if tick <= WARM_UP:
            starts.append(plan.diagnostics["queue_start_s"])
            assert queues[-1] == pytest.approx(max(np.median(starts) + overrun, 0.0))
        else:
            assert "queue_start_s" not in plan.diagnostics
        overrun += plan.round_s - 0.16
        state = allocator.observe(plan, deliver(plan), state)
    assert queues[0] == starts[0] > 3 * np.median(starts)
    assert max(queues) < 0.16
    assert set(state) == {"queue_s"}


def test_certified_rounds_report_their_gap():
    data, state = inputs(2), {"queue_s": np.array(0.3)}
    proven = budgeted("tsfa", certify=1e-3).allocate(*data, state, 2, RNG)
    quick = budgeted("tsfa").allocate(*data, state, 2, RNG)
    assert proven.diagnostics["gap"] <= 1e-3
    assert (
        proven.diagnostics["objective"]
        <= quick.diagnostics["objective"]
        <= proven.diagnostics["objective"] * (1 + 1e-5)
    )


def test_greedy_meets_the_budget_each_round_or_is_as_fast_as_it_can_be():
    plans, _, _ = simulate(budgeted("greedy", 0.25), 30)
    feasible = [p for p in plans if not p.diagnostics["infeasible"]]
    assert len(feasible) >= 25
    assert all(p.round_s <= 0.25 * (1 + 1e-9) for p in feasible)
    assert all(p.round_s > 0.25 for p in plans if p.diagnostics["infeasible"])
    tight = budgeted("greedy", 0.11, outage_factor=100.0).allocate(*inputs(1), {}, 1, RNG)
    menus = Menus.of(tuple(r.curve for r in inputs(1)[0]), 0.05, 1.0)
    assert tight.diagnostics["infeasible"] == 1.0
    assert tight.round_s > 0.11
    assert tight.units_K.tolist() == menus.least_K.tolist()
    rich = budgeted("greedy", 50.0).allocate(*inputs(1), {}, 1, RNG)
    assert rich.units_K.tolist() == [24] * K
    assert rich.round_s < 50.0


def test_equal_shares_the_band_equally_and_minmax_is_faster():
    data = inputs(4)
    equal, fastest = (build(name).allocate(*data, {}, 4, RNG) for name in ("equal", "minmax"))
    assert equal.bandwidth_hz_K == pytest.approx(np.full(K, LINK.bandwidth_hz / K))
    assert equal.units_K.tolist() == fastest.units_K.tolist()
    for units, r in zip(equal.units_K, data[0], strict=True):
        target = 0.4 * r.curve.bits_J[-1]
        assert r.curve.bits_J[units] <= target * (1 + 1e-9) < r.curve.bits_J[units + 1]
    assert fastest.round_s < equal.round_s
    snr = LINK.snr_hz(data[1].channel.reported_gain_K, data[1].power_w_K)
    bits = np.array([r.curve.fixed_bits + r.curve.bits_J[n] for r, n in zip(data[0], fastest.units_K, strict=True)])
    start = 0.003 + data[1].compute_s_K + (CSI_BITS + PLAN_BITS) / LINK.control_rate_bps
    expected = solve_minmax(start, bits, snr, LINK.bandwidth_hz, LINK.max_spectral_efficiency)
    assert fastest.round_s == pytest.approx(float(expected.tau_s))


def test_random_fractions_are_keyed_by_client_and_round():
    allocator = build("random")
    first, again = (allocator.allocate(*inputs(5), {}, 5, RNG).units_K for _ in range(2))
    assert first.tolist() == again.tolist()
    # The same clients and curves in another round, and in other company.
    data = inputs(5)
    assert allocator.allocate(*data, {}, 6, RNG).units_K.tolist() != first.tolist()
    clients = np.array([r.client for r in data[0]])
    few = inputs(5, clients[:4], data[0][:4])
    assert allocator.allocate(*few, {}, 5, RNG).units_K.tolist() == first[:4].tolist()
    fractions = []
    for tick in range(1, 31):
        data = inputs(tick)
        plan = allocator.allocate(*data, {}, tick, RNG)
        fractions += [r.curve.bits_J[n] / r.curve.bits_J[-1] for r, n in zip(data[0], plan.units_K, strict=True)]
    # Uniform on [0.05, 1], rounded down by at most a unit (1/24 on average half of it): 300 draws, 5 sigma = 0.08
    assert np.mean(fractions) == pytest.approx(0.525 - 0.5 / 24, abs=0.08)
    assert min(fractions) < 0.12
    assert max(fractions) > 0.9


def test_ideal_sends_everything_at_once():
    data = inputs(6)
    plan = build("ideal").allocate(*data, {}, 6, RNG)
    assert plan.units_K.tolist() == [24] * K
    assert plan.active_K.all()
    assert plan.round_s == pytest.approx(0.003 + data[1].compute_s_K.max())
    assert np.isnan(plan.bandwidth_hz_K).all()
    assert not plan.control_bits_K.any()


def test_control_traffic():
    """Curves cost what their serialisation takes; a plan and a channel report cost the same for everybody."""
    curves = [Curve(0, np.arange(n + 1), np.zeros(n + 1), told) for n, told in ((24, 0), (64, 0), (64, 77))]
    reported = [report_bits(curve) for curve in curves]
    assert control_bits(curves, needs_curve=True).tolist() == [bits + 48 for bits in reported]
    assert reported == [128 + 8 * 24, 128 + 8 * 64, 128 + 8 * 64 + 77]
    assert control_bits(curves, needs_curve=False).tolist() == [48, 48, 48]
    assert CSI_BITS + PLAN_BITS == 48
    for name in FINITE:
        state = {"queue_s": np.array(0.1)}
        plan = budgeted(name).allocate(*inputs(1), state, 1, RNG)
        assert plan.control_bits_K.tolist() == [368 if name in READING else 48] * K


@pytest.mark.parametrize("name", FINITE)
def test_outage_rule(name):
    """Out: who cannot send the least over B / K within outage_factor budgets. The others share the band."""
    reports, who = inputs(7)
    gain = who.channel.reported_gain_K.copy()
    gain[2], gain[5] = 1e-22, 0.0
    faded = replace(who, channel=ChannelState(gain, gain))
    state = {"queue_s": np.array(0.3)}
    plan = budgeted(name).allocate(reports, faded, state, 7, RNG)
    assert np.flatnonzero(~plan.active_K).tolist() == [2, 5]
    assert plan.diagnostics["outages"] == 2
    least = Menus.of(tuple(r.curve for r in reports), 0.05, 1.0)
    airtime = least.bits(least.least_K) / LINK.rate_bps(LINK.bandwidth_hz / K, LINK.snr_hz(gain, who.power_w_K) + 1e-30)
    slow = who.downlink_s + who.compute_s_K + plan.control_bits_K / LINK.control_rate_bps + airtime
    assert slow[2] > 2 * 0.25
    assert np.all(slow[plan.active_K] <= 2 * 0.25)
    assert plan.bandwidth_hz_K.sum() == pytest.approx(LINK.bandwidth_hz)
    assert plan.latency_s_K[2] == pytest.approx(who.downlink_s + who.compute_s_K[2] + plan.control_bits_K[2] / 1e6)
    if name not in BUDGETED:  # without a budget only a client without any channel is out
        free = build(name).allocate(reports, faded, {}, 7, RNG)
        assert np.flatnonzero(~free.active_K).tolist() == [5]


@pytest.mark.parametrize("name", FINITE)
def test_a_round_without_senders_costs_one_budget(name):
    reports, who = inputs(7)
    dark = replace(who, channel=ChannelState(np.zeros(K), np.zeros(K)))
    allocator, state = budgeted(name), {"queue_s": np.array(0.3)}
    plan = allocator.allocate(reports, dark, state, 7, RNG)
    assert plan.round_s == 0.25
    assert not plan.active_K.any()
    assert not plan.units_K.any()
    assert plan.diagnostics["outages"] == K
    after = allocator.observe(plan, deliver(plan), state)
    assert float(after["queue_s"]) == pytest.approx(0.3)


@pytest.mark.parametrize("name", MODULES)
def test_an_update_that_is_not_finite_is_not_sent(name):
    reports, who = inputs(8)
    curve = replace(reports[1].curve, error_J=np.full(25, np.nan))
    broken = (reports[0], replace(reports[1], finite=False, curve=curve), *reports[2:])
    plan = budgeted(name).allocate(broken, who, {"queue_s": np.array(0.3)}, 8, RNG)
    assert not plan.active_K[1]
    assert plan.units_K[1] == 0
    assert plan.active_K.sum() == K - 1
    assert np.isfinite(plan.diagnostics["penalty"])


def test_a_client_with_a_tiny_update_gives_way_to_the_others():
    """Errors are absolute over the cohort's mean: who has nothing to say sends the least."""
    clients = np.array([3, 4])
    same = report(3, 1), report(4, 1, scale=1e-6)
    data = inputs(1, clients, same)
    plan = budgeted("tsfa", 0.2).allocate(*data, {"queue_s": np.array(0.5)}, 1, RNG)
    fractions = [r.curve.bits_J[n] / r.curve.bits_J[-1] for r, n in zip(same, plan.units_K, strict=True)]
    assert fractions[1] < 0.15 < fractions[0]
    nothing = tuple(report(k, 1, scale=0.0) for k in (3, 4))
    still = budgeted("tsfa", 0.2).allocate(*inputs(1, clients, nothing), {"queue_s": np.array(0.5)}, 1, RNG)
    assert still.diagnostics["penalty"] == 0.0
    assert still.active_K.all()


def test_unequal_component_sizes_and_menu_lengths():
    """Models of different ranks in one cohort; payload_scale multiplies what is on the air."""
    clients = np.arange(6)
    mixed = tuple(report(int(k), 2, units=(3, 24, 64)[k % 3], fixed=(0, 500)[k % 2]) for k in clients)
    data = inputs(2, clients, mixed)
    for name in FINITE:
        plan = budgeted(name).allocate(*data, {"queue_s": np.array(0.3)}, 2, RNG)
        assert np.all(plan.units_K <= np.array([3, 24, 64] * 2))
        assert np.all(plan.units_K >= 1)
        assert plan.latency_s_K == pytest.approx(latencies(plan, data))
        scaled = replace(CONTEXT, payload_scale=3.0)
        larger = build(name, scaled, latency_budget_s=0.6).allocate(*data, {"queue_s": np.array(0.3)}, 2, RNG)
        assert larger.latency_s_K == pytest.approx(latencies(larger, data, scaled))


def test_keep_everything_or_nothing_menus():
    """A codec with one level (dense) works with every allocator."""
    clients = np.arange(5)
    dense = tuple(
        replace(report(int(k), 2), curve=Curve(32, np.array([0, 20_000]), np.array([1.0, 0.0]))) for k in clients
    )
    for name in FINITE:
        plan = budgeted(name).allocate(*inputs(2, clients, dense), {"queue_s": np.array(0.3)}, 2, RNG)
        assert plan.units_K.tolist() == [1] * 5
        assert plan.diagnostics["penalty"] == 0.0


def test_allocators_choose_the_same_cohort_and_do_not_disturb_each_other():
    candidates = np.array([9, 2, 40, 7])
    for name in MODULES:
        allocator = budgeted(name)
        cohort = allocator.select(candidates, CHANNEL.state(candidates, 1), allocator.init(), 1, RNG)
        assert cohort.tolist() == [2, 7, 9, 40]
    before = [inputs(t)[1].channel.gain_K for t in (1, 2)]
    for name in FINITE:
        simulate(budgeted(name), 2)
    assert all(np.array_equal(a, inputs(t)[1].channel.gain_K) for t, a in zip((1, 2), before, strict=True))


def test_plans_are_bit_identical_when_repeated():
    for name in FINITE:
        state = {"queue_s": np.array(0.37)}
        one, two = (budgeted(name).allocate(*inputs(9), state, 9, RNG) for _ in range(2))
        assert one.bandwidth_hz_K.tobytes() == two.bandwidth_hz_K.tobytes()
        assert one.diagnostics == two.diagnostics


def draws(cohorts=48, least_bits=3000.0):
    clients = np.stack([np.sort(RNG("cohort", t).choice(POPULATION, K, replace=False)) for t in range(cohorts)])
    gains = np.stack([CHANNEL.state(clients[t], t).reported_gain_K for t in range(cohorts)])
    start = DEVICES.compute_s(np.full(clients.size, CYCLES), clients.ravel()).reshape(clients.shape)
    return Draws(start, np.full(clients.shape, least_bits), LINK.snr_hz(gains, 0.1))


def test_an_infeasible_budget_is_named_with_the_smallest_feasible_one():
    sample = draws()
    smallest = smallest_feasible_budget(sample, LINK, 2.0)
    with pytest.raises(
        ConfigError, match=r"allocator.latency_budget_s: 0.01 s cannot be met.*smallest feasible"
    ) as raised:
        check_budget(sample, LINK, 0.01, 2.0)
    named = float(str(raised.value).split("about ")[1].split(" s")[0])
    assert smallest <= named <= 1.01 * smallest
    assert check_budget(sample, LINK, named, 2.0).mean_s <= named
    floor = latency_floor(sample, LINK, 0.9 * smallest, 2.0)
    assert not floor.meets(0.9 * smallest)
    # The fastest possible round is the min-max latency, cohort by cohort.
    alone = [
        float(
            solve_minmax(
                sample.start_s_MK[m],
                sample.least_bits_MK[m],
                sample.snr_hz_MK[m],
                LINK.bandwidth_hz,
                LINK.max_spectral_efficiency,
            ).tau_s
        )
        for m in range(len(sample.start_s_MK))
    ]
    assert latency_floor(sample, LINK, 1e6, 2.0).mean_s == pytest.approx(np.mean(alone), rel=1e-9)


def test_no_budget_helps_where_half_of_the_clients_have_no_channel():
    sample = draws(cohorts=4)
    snr = sample.snr_hz_MK.copy()
    snr[:, :6] = 0.0
    sample = Draws(sample.start_s_MK, sample.least_bits_MK, snr)
    assert np.isinf(smallest_feasible_budget(sample, LINK, 2.0))
    with pytest.raises(ConfigError, match="no budget can be met"):
        check_budget(sample, LINK, 1.0, 2.0)


def test_an_infeasible_budget_makes_the_queue_grow_linearly_and_is_flagged():
    plans, taus, queues = simulate(budgeted("tsfa", 0.04, outage_factor=200.0), 40)
    assert all(p.diagnostics["infeasible"] == 1.0 for p in plans)
    growth = np.diff(queues[20:])
    assert growth.min() > 0
    assert growth.mean() == pytest.approx(np.mean(taus[21:]) - 0.04)
    floors = np.array([p.diagnostics["floor_s"] for p in plans])
    assert np.all(floors > 0.04)
    assert taus[20:] == pytest.approx(floors[20:], rel=0.15)
    feasible, _, _ = simulate(budgeted("tsfa", 0.25), 5)
    assert not any(p.diagnostics["infeasible"] for p in feasible)
