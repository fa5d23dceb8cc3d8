"""From a round to its line in rounds.jsonl: statuses, reasons, shares, null instead of nan; what is measured for it."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from raysoft.config import registry
from raysoft.config.presets import load_config
from raysoft.federation.diagnostics import product_sums
from raysoft.federation.evaluation import Scores, scores
from raysoft.federation.messages import SILENT, SentUpdate
from raysoft.federation.parts import RunState, Totals
from raysoft.federation.records import CLIENT_DETAIL_LIMIT, Round, record_of
from raysoft.federation.reduction import arrived_components, status_of
from raysoft.federation.stages import Delivered, RoundSteps, Trained, Uploads
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
SPACE = ParamSpace((PAIR,), rank=2, scale=1.0)
THETA = {PAIR.a: np.ones((2, 2), np.float32), PAIR.b: np.zeros((3, 2), np.float32)}
COUNTS = {"count": 8.0, "correct": 6.0, "loss_sum": 4.0}
TOTALS = Totals(1000, np.array([5, 0, 1, 0]))
STATE = RunState(ServerState(THETA), {"queue_s": np.array(0.4)}, clock_s=2.6, totals=TOTALS)


def steps(*settings, space=SPACE, state=STATE):
    config = load_config("soft", settings)
    info = SimpleNamespace(space=space)
    method = registry.build("method", config.method, space)
    return RoundSteps(SimpleNamespace(config=config, info=info, rng=Rng(0), method=method), state, 3)


def report(client, loss=1.0):
    curve = Curve(32, np.array([0, 100, 200, 400]), np.array([4.0, 2.0, 1.0, 0.0]))
    return ClientReport(client, 10, 2, loss, 1e6, downlink_bits=320, dense_bits=256, curve=curve)


def sent(bits, mask, error=0.25, finite=True):
    return SentUpdate(bits, finite, error, {"sent": np.array(mask, dtype=bool)})


def happened():
    """Cohort of 8: two lost with their actor, one not finite after training (7); of five participants two arrive."""
    reports = tuple(report(k, loss) for k, loss in zip(range(1, 6), (1.0, 2.0, 3.0, 4.0, 5.0), strict=True))
    weights = np.array([0.4, 0.3, 0.1, 0.1, 0.1])
    gain = np.array([1e-9, 1e-10, 1e-11, 0.0, 1e-9])
    active = np.array([True, True, False, True, True])
    who = Participants(np.arange(1, 6), weights, np.ones(5), np.ones(5), 0.0, np.full(5, 0.1), ChannelState(gain, gain))
    everybody = (*reports, replace(report(7), finite=False))
    plan = Allocation(
        clients_K=np.arange(1, 6),
        active_K=active,
        units_K=np.array([1, 3, 0, 2, 2]),
        bandwidth_hz_K=np.full(5, np.nan),
        power_w_K=np.full(5, 0.1),
        latency_s_K=np.full(5, 0.5),
        round_s=0.5,
        control_bits_K=np.full(5, 48),
        diagnostics={"queue_s": 0.7, "gap": np.nan},
    )
    outcome = Outcome(
        np.array([True, True, False, False, True]),
        np.array([0.5, 0.25, 0.1, np.inf, 0.5]),
        np.full(5, 0.2),
        ("", "", "outage", "deadline", ""),
        0.6,
    )
    each = {
        1: sent(132, [1, 0, 0, 0], 0.5),
        2: sent(432, [1, 1, 0, 0], 0.0),
        3: SILENT,
        4: sent(232, [0, 0, 1, 1]),
        5: sent(232, [0, 0, 1, 1], finite=False),
    }
    arrived = np.array([True, True, False, False, False])
    delivered = Delivered(
        who=who,
        outcome=outcome,
        bits_K=np.array([132.0, 432.0, 0.0, 232.0, 232.0]),
        arrived_K=arrived,
        mix_K=np.array([4 / 7, 3 / 7, 0, 0, 0]),
        sent_counts=arrived_components(who, each, arrived),
        status_K=status_of(arrived, list(each.values()), outcome.reason_K),
    )
    return Round(
        tick=3,
        after=STATE,
        trained=Trained(8, (), (), everybody, reports, ()),
        plan=plan,
        encoded=Uploads((), each),
        delivered=delivered,
        scores=scores(COUNTS, bits_per_byte=False),
        measured={"selection_entropy": 0.9, "applied_ratio": None, "aggregation_covariance": 0.25},
        downlink_bits=1920,
        unmoved=False,
        began=0.0,
    )


def test_everyone_of_the_cohort_is_accounted_for():
    record = record_of(happened())
    assert record.participants == 2
    assert record.dropped == 6
    assert record.drop_reasons == {"actor_failed": 2, "deadline": 1, "non_finite": 2, "outage": 1}
    assert sum(record.drop_reasons.values()) == record.dropped
    assert record.metrics["clients"]["status"] == ["ok", "ok", "outage", "deadline", "non_finite"]


def test_figures_of_the_round():
    record = record_of(happened())
    assert (record.round, record.accuracy, record.loss) == (3, 0.75, 0.5)
    assert record.train_loss == pytest.approx(0.4 + 0.6 + 0.3 + 0.4 + 0.5)
    assert record.uplink_bits == 132 + 432 + 232 + 232, "who was lost on the way has sent, too"
    assert record.control_bits == 5 * 48
    assert record.downlink_bits == 1920
    assert record.kept_fraction_mean == pytest.approx((0.25 + 1.0 + 0.5 + 0.5) / 4), "of those told to send"
    assert record.sparsification_error == pytest.approx(4 / 7 * 0.5)
    assert (record.queue_s, record.round_latency_s, record.simulated_time_s) == (0.4, 0.6, 2.6)
    assert record.energy_j == pytest.approx(1.0)
    assert record.aggregation_covariance == 0.25
    assert record.metrics["latency_predicted_s"] == 0.5
    assert record.metrics["queue_s"] == 0.7
    assert record.metrics["selection_entropy"] == 0.9
    assert record.metrics["dense_bits_total"] == 1000
    assert not {"gap", "applied_ratio", "aggregation_covariance", "unmoved", "failed"} & set(record.metrics)


def test_what_went_wrong_is_told():
    r = happened()
    failed = replace(report(6), finite=False, failed="method mine: oops")
    trained = replace(r.trained, cohort=9, everybody=(*r.trained.everybody, failed, report(8)), oversized={8})
    record = record_of(replace(r, trained=trained, unmoved=True))
    assert record.metrics["failed"] == "method mine: oops"
    assert record.metrics["oversized_clients"] == [8]
    assert record.metrics["unmoved"] is True
    assert record.drop_reasons == {
        "actor_failed": 1, "client_failed": 1, "deadline": 1, "non_finite": 2, "outage": 1, "update_norm": 1
    }  # fmt: skip


def test_bits_of_all_that_were_trained_count_on_the_air():
    trained = happened().trained
    assert (steps().dense_bits(trained), steps().downlink_bits(trained)) == (6 * 256, 6 * 320)
    ten = steps("device.payload_scale=10")
    assert (ten.dense_bits(trained), ten.downlink_bits(trained)) == (60 * 256, 60 * 320)


def test_totals_go_on_and_keep_what_no_codec_told():
    total = STATE.totals.after(24, np.array([2, 1, 0, 0]))
    assert (total.dense_bits, total.sent_counts.tolist()) == (1024, [7, 1, 1, 0])
    assert total.after(0, None).sent_counts.tolist() == [7, 1, 1, 0]
    assert Totals().after(1, None).sent_counts is None
    assert Totals().after(1, np.array([1, 0])).sent_counts.tolist() == [1, 0]


def test_a_round_in_which_nobody_arrives_has_no_such_numbers():
    r = happened()
    delivered = replace(r.delivered, arrived_K=np.zeros(5, dtype=bool), mix_K=np.zeros(5))
    plan = replace(r.plan, active_K=np.zeros(5, dtype=bool))
    record = record_of(replace(r, plan=plan, delivered=delivered, scores=Scores(), measured={}))
    assert record.sparsification_error is record.kept_fraction_mean is record.aggregation_covariance is None
    assert record.accuracy is record.loss is None
    assert record.participants == 0


def test_what_an_allocator_leaves_for_who_is_silent_is_not_read():
    r = happened()
    units = np.where(r.plan.active_K, r.plan.units_K, np.nan)
    record = record_of(replace(r, plan=replace(r.plan, units_K=units)))
    assert record.metrics["clients"]["kept_fraction"] == [0.25, 1.0, 0.0, 0.5, 0.5]


def test_a_head_alone_has_no_fraction_to_keep():
    r = happened()
    head = Curve(32, np.zeros(1, dtype=int), np.zeros(1))
    reports = tuple(replace(one, curve=head) for one in r.trained.reports)
    plan = replace(r.plan, units_K=np.zeros(5, dtype=int))
    record = record_of(replace(r, plan=plan, trained=replace(r.trained, reports=reports)))
    assert record.kept_fraction_mean is None
    assert record.metrics["clients"]["kept_fraction"] == [0.0] * 5


def test_the_line_is_strict_json():
    record = record_of(replace(happened(), scores=scores(COUNTS, bits_per_byte=True)))
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
    r, ones = happened(), np.ones(CLIENT_DETAIL_LIMIT + 10)
    reports = tuple(report(k) for k in range(many))
    plan = replace(
        r.plan,
        clients_K=np.arange(many),
        active_K=ones > 0,
        units_K=ones.astype(int),
        bandwidth_hz_K=ones,
        control_bits_K=ones,
    )
    delivered = replace(
        r.delivered,
        who=replace(
            r.delivered.who,
            clients_K=np.arange(many),
            weights_K=ones / many,
            compute_s_K=ones,
            channel=ChannelState(ones, ones),
        ),
        outcome=Outcome(ones > 0, ones, ones, ("",) * many, 1.0),
        arrived_K=ones > 0,
        mix_K=ones / many,
        bits_K=132 * ones,
        status_K=("ok",) * many,
    )
    record = record_of(
        replace(
            r,
            trained=Trained(many, (), (), reports, reports, ()),
            plan=plan,
            delivered=delivered,
            encoded=Uploads((), {k: sent(132, [1, 0, 0, 0]) for k in range(many)}),
        )
    )
    assert {len(column) for column in record.metrics["clients"].values()} == {CLIENT_DETAIL_LIMIT}
    assert record.participants == many


# ----------------------------------------------------------------------------------------------------- what is measured


def measured(step, *, cohort=8, folded=None, products=None):
    r = happened()
    return step.measure(replace(r.trained, cohort=cohort), r.encoded, r.delivered, folded, products, r.after)


def test_the_coverage_of_the_run_so_far_is_measured():
    found = measured(steps())
    share = np.array([5, 1]) / 6
    assert found["components_never_sent"] == 0.5
    assert found["selection_entropy"] == pytest.approx(-(share * np.log(share)).sum() / np.log(4))
    assert "aggregation_covariance" not in found, "switched off, or nothing arrived"


def test_covariance_is_measured_as_the_packs_did_also_when_clients_were_dropped():
    """A cohort of 8 measures dense products; what is left of it must not switch to a sketch."""
    wide = LoraPair("m", 300, 300)
    space = ParamSpace((wide,), rank=2, scale=1.0)
    theta = {name: np.ones(shape, np.float32) for name, shape in space.shapes.items()}
    update = {name: 0.1 * value for name, value in theta.items()}
    cohort = 19  # 90,000 dense values <= 4 x 19 x 1,200; for the 18 that are left it would be a sketch
    one = {"received": [update], "trained": [update], "mix": [1.0], "weights": [1.0]}
    sums = product_sums(space, "exact", Rng(0), start=theta, **one)
    step = steps(space=space, state=replace(STATE, server=ServerState(theta)))
    found = measured(step, cohort=cohort, folded=update, products=sums)
    assert found["aggregation_covariance"] == pytest.approx(0.0, abs=1e-12), "one update is its own mean"
    assert found["applied_ratio"] == pytest.approx(1.0)


@pytest.mark.parametrize("times", [1.0, 2.0])
def test_the_step_that_is_measured_is_the_one_that_was_taken(times):
    """Half the weight sent component 0 of B only: a method that makes twice of it takes a step of its full length."""
    update = {PAIR.a: np.zeros((2, 2)), PAIR.b: np.array([[0.1, 0.0]] * 3)}
    both = {"trained": [update, update], "mix": [0.5, 0.5], "weights": [0.5, 0.5]}
    products = product_sums(SPACE, "exact", Rng(0), start=THETA, received=[update, {}], **both)
    step = steps()
    if times != 1.0:
        step.parts.method = SimpleNamespace(change=lambda server, folded: {n: times * v for n, v in folded.items()})
    found = measured(step, folded={name: 0.5 * value for name, value in update.items()}, products=products)
    assert found["applied_ratio"] == pytest.approx(0.5 * times)
    assert found["applied_cosine"] == pytest.approx(1.0)
