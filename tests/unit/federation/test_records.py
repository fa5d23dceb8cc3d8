"""From a round to its line in rounds.jsonl: statuses, reasons, starvation, shares, null instead of nan."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from raysoft.config import registry
from raysoft.config.presets import load_config
from raysoft.federation.client import SILENT, SentUpdate
from raysoft.federation.diagnostics import product_sums
from raysoft.federation.parts import RunState
from raysoft.federation.records import CLIENT_DETAIL_LIMIT, Round, record_of
from raysoft.federation.reduction import arrived_components
from raysoft.rng import Rng
from raysoft.rundir.folder import record_row
from raysoft.types import (
    Allocation,
    ChannelState,
    ClientReport,
    Curve,
    LoraPair,
    Outcome,
    ParamSpace,
    Participants,
    ServerState,
)

PAIR = LoraPair("m", 3, 2)
SPACE = ParamSpace({PAIR.a: (2, 2), PAIR.b: (3, 2)}, (PAIR,), rank=2, scale=1.0)
THETA = {PAIR.a: np.ones((2, 2), np.float32), PAIR.b: np.zeros((3, 2), np.float32)}
COUNTS = {"count": 8.0, "correct": 6.0, "loss_sum": 4.0}


def parts(bits_per_byte=False, *settings):
    config = load_config("soft", settings)
    info = SimpleNamespace(space=SPACE, bits_per_byte=bits_per_byte)
    method = registry.build("method", config.method, SPACE)
    return SimpleNamespace(config=config, info=info, rng=Rng(0), method=method)


def report(client, loss=1.0):
    curve = Curve(32, np.array([0, 100, 200, 400]), np.array([4.0, 2.0, 1.0, 0.0]))
    return ClientReport(client, 10, 2, loss, 1e6, downlink_bits=320, dense_bits=256, curve=curve)


def sent(bits, mask, error=0.25, finite=True):
    return SentUpdate(bits, finite, error, {"sent": np.array(mask, dtype=bool)})


def happened(**changes):
    """Cohort of 8: two lost with their actor, one not finite after training (7); of five participants two arrive."""
    reports = tuple(report(k, loss) for k, loss in zip(range(1, 6), (1.0, 2.0, 3.0, 4.0, 5.0), strict=True))
    weights = np.array([0.4, 0.3, 0.1, 0.1, 0.1])
    gain = np.array([1e-9, 1e-10, 1e-11, 0.0, 1e-9])
    active = np.array([True, True, False, True, True])
    base = Round(
        tick=3,
        before=RunState(ServerState(THETA), {}, sent_counts=np.array([5, 0, 1, 0]), dense_bits=1000, clock_s=2.0),
        cohort=8,
        everybody=(*reports, replace(report(7), finite=False)),
        reports=reports,
        who=Participants(
            np.arange(1, 6), weights, np.ones(5), np.ones(5), 0.0, np.full(5, 0.1), ChannelState(gain, gain)
        ),
        plan=Allocation(
            clients_K=np.arange(1, 6),
            active_K=active,
            units_K=np.array([1, 3, 0, 2, 2]),
            bandwidth_hz_K=np.full(5, np.nan),
            power_w_K=np.full(5, 0.1),
            latency_s_K=np.full(5, 0.5),
            round_s=0.5,
            control_bits_K=np.full(5, 48),
            diagnostics={"queue_s": 0.7, "gap": np.nan},
        ),
        outcome=Outcome(
            np.array([True, True, False, False, True]),
            np.array([0.5, 0.25, 0.1, np.inf, 0.5]),
            np.full(5, 0.2),
            ("", "", "outage", "deadline", ""),
            0.6,
        ),
        arrived_K=np.array([True, True, False, False, False]),
        mix_K=np.array([4 / 7, 3 / 7, 0, 0, 0]),
        bits_K=np.array([132.0, 432.0, 0.0, 232.0, 232.0]),
        sent={
            1: sent(132, [1, 0, 0, 0], 0.5),
            2: sent(432, [1, 1, 0, 0], 0.0),
            3: SILENT,
            4: sent(232, [0, 0, 1, 1]),
            5: sent(232, [0, 0, 1, 1], finite=False),
        },
        sent_counts=None,
        folded=None,
        products=None,
        counts=COUNTS,
        began=0.0,
    )
    made = replace(base, **changes)
    return replace(made, sent_counts=arrived_components(made.who, made.sent, made.arrived_K))


def recorded(given=None, r=None):
    r = r or happened()
    after = replace(r.before, allocator={"queue_s": np.array(0.4)}, clock_s=2.6)
    return record_of(given or parts(), after, r)


def test_everyone_of_the_cohort_is_accounted_for():
    _, record = recorded()
    assert record.participants == 2
    assert record.dropped == 6
    assert record.drop_reasons == {"actor_failed": 2, "deadline": 1, "non_finite": 2, "outage": 1}
    assert sum(record.drop_reasons.values()) == record.dropped
    assert record.metrics["clients"]["status"] == ["ok", "ok", "outage", "deadline", "non_finite"]


def test_figures_of_the_round():
    _, record = recorded()
    assert (record.round, record.accuracy, record.loss) == (3, 0.75, 0.5)
    assert record.train_loss == pytest.approx(0.4 + 0.6 + 0.3 + 0.4 + 0.5)
    assert record.uplink_bits == 132 + 432 + 232 + 232, "who was lost on the way has sent, too"
    assert record.control_bits == 5 * 48
    assert record.downlink_bits == 6 * 320
    assert record.kept_fraction_mean == pytest.approx((0.25 + 1.0 + 0.5 + 0.5) / 4), "of those told to send"
    assert record.sparsification_error == pytest.approx(4 / 7 * 0.5)
    assert (record.queue_s, record.round_latency_s, record.simulated_time_s) == (0.4, 0.6, 2.6)
    assert record.energy_j == pytest.approx(1.0)
    assert record.metrics["latency_predicted_s"] == 0.5
    assert record.metrics["queue_s"] == 0.7
    assert "gap" not in record.metrics, "not a number"


def test_dense_bits_count_all_that_were_trained_on_the_air():
    state, record = recorded()
    assert state.dense_bits == record.metrics["dense_bits_total"] == 1000 + 6 * 256
    state, record = recorded(parts(False, "device.payload_scale=10"))
    assert state.dense_bits == 1000 + 10 * 6 * 256
    assert record.downlink_bits == 10 * 6 * 320


def test_starvation_counts_what_arrived():
    state, record = recorded()
    assert state.sent_counts.tolist() == [7, 1, 1, 0]
    share = np.array([7, 1, 1]) / 9
    assert record.metrics["components_never_sent"] == 0.25
    assert record.metrics["selection_entropy"] == pytest.approx(-(share * np.log(share)).sum() / np.log(4))


@pytest.mark.parametrize(("counts", "entropy", "never"), [([3, 3, 3, 3], 1.0, 0.0), ([6, 0, 0, 0], 0.0, 0.75)])
def test_entropy_is_one_for_an_even_selection_and_zero_for_a_single_component(counts, entropy, never):
    r = happened(arrived_K=np.zeros(5, dtype=bool))
    r = replace(r, before=replace(r.before, sent_counts=np.array(counts)))
    state, record = recorded(r=r)
    assert state.sent_counts.tolist() == counts
    assert record.metrics["selection_entropy"] == pytest.approx(entropy)
    assert record.metrics["components_never_sent"] == never


def test_codecs_without_components_have_no_starvation():
    r = happened(sent=dict.fromkeys(range(1, 6), SILENT))
    state, record = recorded(r=replace(r, before=replace(r.before, sent_counts=None)))
    assert state.sent_counts is None
    assert "selection_entropy" not in record.metrics


def test_a_round_in_which_nobody_arrives_has_no_such_numbers():
    r = happened()
    plan = replace(r.plan, active_K=np.zeros(5, dtype=bool))
    r = replace(r, plan=plan, arrived_K=np.zeros(5, dtype=bool), mix_K=np.zeros(5), counts=None)
    _, record = recorded(r=r)
    assert record.sparsification_error is record.kept_fraction_mean is record.aggregation_covariance is None
    assert record.accuracy is record.loss is None
    assert record.participants == 0


def test_the_line_is_strict_json():
    _, record = recorded(parts(True))
    row = json.loads(json.dumps(record_row(record), allow_nan=False))
    assert row["metrics"]["bits_per_byte"] == pytest.approx(0.5 / np.log(2))
    columns = row["metrics"]["clients"]
    assert columns["gain_db"] == [-90.0, -100.0, -110.0, None, -90.0]
    assert columns["bandwidth_hz"] == [None] * 5
    assert columns["latency_s"][3] is None
    assert columns["kept_fraction"] == [0.25, 1.0, 0.0, 0.5, 0.5]
    assert {len(column) for column in columns.values()} == {5}


def test_large_cohorts_are_described_by_their_first_clients():
    many = CLIENT_DETAIL_LIMIT + 10
    r = happened()
    ones = np.ones(many)
    outcome = Outcome(ones > 0, ones, ones, ("",) * many, 1.0)
    plan = replace(
        r.plan,
        clients_K=np.arange(many),
        active_K=ones > 0,
        units_K=ones.astype(int),
        bandwidth_hz_K=ones,
        control_bits_K=ones,
    )
    who = replace(r.who, clients_K=np.arange(many), weights_K=ones / many, channel=ChannelState(ones, ones))
    reports = tuple(report(k) for k in range(many))
    _, record = recorded(
        r=replace(
            r,
            cohort=many,
            everybody=reports,
            reports=reports,
            who=who,
            plan=plan,
            outcome=outcome,
            arrived_K=ones > 0,
            mix_K=ones / many,
            bits_K=132 * ones,
            sent={k: sent(132, [1, 0, 0, 0]) for k in range(many)},
        )
    )
    assert {len(column) for column in record.metrics["clients"].values()} == {CLIENT_DETAIL_LIMIT}
    assert record.participants == many


def test_covariance_is_measured_as_the_packs_did_also_when_clients_were_dropped():
    """A cohort of 8 measures dense products; what is left of it must not switch to a sketch."""
    update = {PAIR.a: np.full((2, 2), 0.1), PAIR.b: np.full((3, 2), 0.1)}
    wide = LoraPair("m", 300, 300)
    space = ParamSpace({wide.a: (2, 300), wide.b: (300, 2)}, (wide,), rank=2, scale=1.0)
    theta = {name: np.ones(shape, np.float32) for name, shape in space.shapes.items()}
    update = {name: 0.1 * value for name, value in theta.items()}
    cohort = 19  # 90,000 dense values <= 4 x 19 x 1,200; for the 18 that are left it would be a sketch
    one = {"received": [update], "trained": [update], "mix": [1.0], "weights": [1.0]}
    sums = product_sums(space, "exact", Rng(0), start=theta, **one)
    given = parts()
    given.info.space = space
    r = happened(cohort=cohort, folded=update, products=sums)
    _, record = recorded(given, replace(r, before=replace(r.before, server=ServerState(theta))))
    assert record.aggregation_covariance == pytest.approx(0.0, abs=1e-12), "one update is its own mean"
    assert record.metrics["applied_ratio"] == pytest.approx(1.0)


@pytest.mark.parametrize("times", [1.0, 2.0])
def test_the_step_that_is_measured_is_the_one_that_was_taken(times):
    """Half the weight sent component 0 of B only: a method that makes twice of it takes a step of its full length."""
    update = {PAIR.a: np.zeros((2, 2)), PAIR.b: np.array([[0.1, 0.0]] * 3)}
    both = {"trained": [update, update], "mix": [0.5, 0.5], "weights": [0.5, 0.5]}
    products = product_sums(SPACE, "exact", Rng(0), start=THETA, received=[update, {}], **both)
    given = parts()
    if times != 1.0:
        given.method = SimpleNamespace(change=lambda server, folded: {n: times * v for n, v in folded.items()})
    r = happened(folded={name: 0.5 * value for name, value in update.items()}, products=products)
    _, record = recorded(given, replace(r, before=replace(r.before, server=ServerState(THETA))))
    assert record.metrics["applied_ratio"] == pytest.approx(0.5 * times)
    assert record.metrics["applied_cosine"] == pytest.approx(1.0)
