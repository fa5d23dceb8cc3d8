"""Uplinks: latency, energy and fate of every client, worked out by hand or in closed form."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysoft.config import Plugin, registry
from raysoft.errors import ConfigError
from raysoft.rng import Rng
from raysoft.types import Allocation, ChannelState, Folded, Outcome, Participants
from raysoft.uplinks.base import UplinkConfig, downlink_seconds
from raysoft.wireless.base import ChannelConfig
from raysoft.wireless.link import Link

LINK = Link.from_config(ChannelConfig())
POWER_W = 0.1
BITS = 1e6
SHARE_HZ = 1e5
UNIT_GAIN = LINK.noise_w_per_hz * LINK.snr_gap * SHARE_HZ / POWER_W  # SNR 1 in a share: one bit per second and hertz


def uplink(name: str = "fdma", **options):
    return registry.build("uplink", Plugin(name=name, **options), LINK)


def gains(*snr: float) -> np.ndarray:
    return UNIT_GAIN * np.array(snr, dtype=float)


def channel(true: np.ndarray, reported: np.ndarray | None = None) -> ChannelState:
    return ChannelState(true, true if reported is None else reported)


def plan(k: int, round_s: float = 10.0, **changes) -> Allocation:
    base = Allocation(
        clients_K=np.arange(k),
        active_K=np.ones(k, dtype=bool),
        units_K=np.ones(k, dtype=int),
        bandwidth_hz_K=np.full(k, SHARE_HZ),
        power_w_K=np.full(k, POWER_W),
        latency_s_K=np.full(k, round_s),
        round_s=round_s,
        control_bits_K=np.zeros(k),
    )
    return replace(base, **changes)


def participants(decision: Allocation, state: ChannelState, compute_s=0.0, downlink_s=0.0, compute_j=0.5):
    k = len(decision.clients_K)
    return Participants(
        clients_K=decision.clients_K,
        weights_K=np.full(k, 1 / k),
        compute_s_K=np.full(k, compute_s),
        compute_j_K=np.full(k, compute_j),
        downlink_s=downlink_s,
        power_w_K=decision.power_w_K,
        channel=state,
    )


def deliver(link, decision: Allocation, state: ChannelState, **changes) -> Outcome:
    given = {"bits": BITS, "compute_s": 0.0, "downlink_s": 0.0, "tick": 0, **changes}
    k = len(decision.clients_K)
    who = participants(decision, state, given["compute_s"], given["downlink_s"])
    return link.deliver(decision, np.full(k, given["bits"]), who, given["tick"], Rng(0))


# ---- fdma with perfect CSI ----


def test_latency_and_energy_by_hand() -> None:
    decision = plan(3, control_bits_K=np.array([0.0, 5e5, 0.0]))
    outcome = deliver(uplink(), decision, channel(gains(1, 3, 1023)), compute_s=2.0, downlink_s=0.25)
    # R = b log2(1 + SNR), capped at 7.4 bit/s/Hz: 1e5, 2e5 and 7.4e5 bit/s
    airtime = np.array([10.0, 5.0, 1e6 / 7.4e5])
    control = np.array([0.0, 0.5, 0.0])
    assert outcome.latency_s_K == pytest.approx(2.25 + control + airtime)
    assert outcome.energy_j_K == pytest.approx(0.5 + POWER_W * (control + airtime))
    assert outcome.round_s == pytest.approx(12.25)
    assert outcome.arrived_K.all()
    assert outcome.reason_K == ("", "", "")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=30), st.floats(0, 5), st.floats(1, 1e9))
def test_perfect_csi_loses_nobody(snr: list[float], compute_s: float, bits: float) -> None:
    """Not even where the planned round, or an explicit deadline equal to it, was computed with other rounding."""
    state, k = channel(gains(*snr)), len(snr)
    rate = SHARE_HZ * np.minimum(np.log2(1 + np.array(snr)), 7.4)
    latest = float((bits / rate + compute_s).max())
    for options in ({}, {"deadline_s": latest}, {"late_tolerance": 0.0}):
        outcome = deliver(uplink(**options), plan(k, round_s=latest / 2), state, bits=bits, compute_s=compute_s)
        assert outcome.arrived_K.all()
        assert outcome.round_s == pytest.approx(latest, rel=1e-9)


def test_outage_costs_computing_and_signalling_only() -> None:
    decision = plan(
        2,
        active_K=np.array([False, True]),
        bandwidth_hz_K=np.array([0.0, SHARE_HZ]),
        control_bits_K=np.array([1e6, 0.0]),
    )
    outcome = deliver(uplink(), decision, channel(gains(1e-9, 1)), compute_s=np.array([60.0, 30.0]))
    assert outcome.reason_K == ("outage", "")
    assert outcome.arrived_K.tolist() == [False, True]
    assert outcome.energy_j_K == pytest.approx([0.5 + POWER_W * 1.0, 0.5 + POWER_W * 10.0])
    assert outcome.round_s == pytest.approx(40.0)  # the silent client's 61 s do not count
    assert outcome.latency_s_K == pytest.approx([61.0, 40.0])


def test_a_round_without_senders_costs_the_plan() -> None:
    decision = plan(2, round_s=0.22, active_K=np.zeros(2, dtype=bool), bandwidth_hz_K=np.zeros(2))
    for link in (uplink(), uplink("ideal"), uplink(packet_error="snr"), uplink(deadline_s=9.0)):
        outcome = deliver(link, decision, channel(gains(0, 0)), compute_s=1.0)
        assert outcome.round_s == 0.22
        assert outcome.reason_K == ("outage", "outage")
        assert np.isfinite(outcome.latency_s_K).all()


def test_nothing_to_send_takes_no_time() -> None:
    outcome = deliver(uplink(), plan(1, bandwidth_hz_K=np.zeros(1)), channel(gains(1)), bits=0.0, compute_s=1.5)
    assert outcome.latency_s_K.tolist() == [1.5]
    assert outcome.arrived_K.all()


def test_a_sender_without_bandwidth_is_a_mistake_of_the_plan() -> None:
    with pytest.raises(ValueError, match=r"clients \[1\]"):
        deliver(uplink(), plan(2, bandwidth_hz_K=np.array([SHARE_HZ, 0.0])), channel(gains(1, 1)))


# ---- fdma: lost clients ----


def test_explicit_deadline() -> None:
    outcome = deliver(uplink(deadline_s=6.0), plan(3), channel(gains(1, 3, 3)), compute_s=1.0)
    assert outcome.reason_K == ("deadline", "", "")  # 11 s, 6 s, 6 s
    assert outcome.latency_s_K == pytest.approx([6.0, 6.0, 6.0])
    assert outcome.energy_j_K == pytest.approx(0.5 + POWER_W * 5.0)
    assert outcome.round_s == pytest.approx(6.0)


def test_a_client_that_computes_beyond_the_deadline_never_sends() -> None:
    outcome = deliver(uplink(deadline_s=2.0), plan(1), channel(gains(1)), compute_s=3.0)
    assert outcome.reason_K == ("deadline",)
    assert outcome.round_s == 2.0
    assert outcome.energy_j_K.tolist() == [0.5]


def test_imperfect_csi_loses_who_was_overrated() -> None:
    reported = gains(1, 1, 1)
    true = gains(3, 0.97, 0.5)  # 5 s, 10.2 s, 17.1 s against a plan of 10 s
    outcome = deliver(uplink(), plan(3), channel(true, reported))
    assert outcome.reason_K == ("", "", "deadline")
    assert outcome.latency_s_K == pytest.approx([5.0, 10 / math.log2(1.97), 11.0])
    assert outcome.energy_j_K[2] == pytest.approx(0.5 + POWER_W * 11.0)
    assert outcome.round_s == pytest.approx(11.0)  # the server has waited 1 + late_tolerance planned rounds

    strict = deliver(uplink(late_tolerance=0.0), plan(3), channel(true, reported))
    assert strict.reason_K == ("", "deadline", "deadline")
    assert strict.round_s == pytest.approx(10.0)
    patient = deliver(uplink(deadline_s=20.0), plan(3), channel(true, reported))
    assert patient.arrived_K.all()
    assert patient.round_s == pytest.approx(10 / math.log2(1.5))


def test_share_of_late_clients_is_the_rayleigh_outage_probability() -> None:
    """P(late) = 1 - exp(-(2^(S/(b T)) - 1) Gamma N0 b / (P mean gain)), summed over clients at their own distance."""
    k, deadline_s = 20_000, 2.0
    section = Plugin(name="rayleigh", shadowing_db=0.0)
    state = registry.build("channel", section, Rng(3)).state(np.arange(k), 1)
    bits = 5.0 * SHARE_HZ * deadline_s  # 5 bit/s/Hz
    outcome = deliver(uplink(deadline_s=deadline_s), plan(k), state, bits=bits)
    mean_snr = state.parts["mean_gain"] / UNIT_GAIN
    p = -np.expm1(-(2**5.0 - 1) / mean_snr)
    late = np.array([reason == "deadline" for reason in outcome.reason_K])
    assert p.sum() > 100
    assert abs(late.sum() - p.sum()) < 5 * math.sqrt((p * (1 - p)).sum())


def test_sensitivity() -> None:
    level_dbm = 10 * math.log10(POWER_W * UNIT_GAIN * 1e3)
    true = gains(2, 0.9, 0.0)
    outcome = deliver(uplink(sensitivity_dbm=level_dbm), plan(3, round_s=12.0), channel(true))
    assert outcome.reason_K == ("", "sensitivity", "sensitivity")
    assert outcome.latency_s_K[1:] == pytest.approx([12.0, 12.0])  # no deadline: waited for until the plan's end
    assert outcome.energy_j_K[1:] == pytest.approx(0.5 + POWER_W * 12.0)
    both = deliver(uplink(sensitivity_dbm=level_dbm, deadline_s=3.0), plan(3), channel(true))
    assert both.reason_K == ("deadline", "sensitivity", "sensitivity")
    assert both.round_s == 3.0


def test_no_gain_at_all_is_a_loss_and_not_an_endless_round() -> None:
    outcome = deliver(uplink(), plan(2), channel(gains(0.0, 1.0)))
    assert outcome.reason_K == ("sensitivity", "")
    assert outcome.round_s == pytest.approx(10.0)
    assert np.isfinite(outcome.energy_j_K).all()


def test_packet_errors_follow_the_waterfall() -> None:
    k, waterfall = 50_000, 0.5
    snr = np.exp(np.linspace(-1, 4, k))
    state = channel(gains(*snr))
    link = uplink(packet_error="snr", waterfall=waterfall)
    outcome = deliver(link, plan(k), state, bits=1.0)
    # UNIT_GAIN holds the SNR gap, the waterfall does not.
    p = 1 - np.exp(-waterfall / (snr * LINK.snr_gap))
    broken = np.array([reason == "packet_error" for reason in outcome.reason_K])
    assert np.array_equal(~broken, outcome.arrived_K)
    for part in np.array_split(np.arange(k), 5):
        assert abs(broken[part].sum() - p[part].sum()) < 5 * math.sqrt((p * (1 - p))[part].sum())
    assert outcome.latency_s_K == pytest.approx(deliver(uplink(), plan(k), state, bits=1.0).latency_s_K)


def test_packet_errors_are_keyed_by_client_and_round() -> None:
    link = uplink(packet_error="snr", waterfall=1.0)
    snr = np.ones(200)
    first = deliver(link, plan(200), channel(gains(*snr)), tick=4)
    assert deliver(link, plan(200), channel(gains(*snr)), tick=4).reason_K == first.reason_K
    assert deliver(link, plan(200), channel(gains(*snr)), tick=5).reason_K != first.reason_K
    some = plan(50, clients_K=np.arange(100, 150))
    assert deliver(link, some, channel(gains(*snr[:50])), tick=4).reason_K == first.reason_K[100:150]


# ---- ideal, downlink, options ----


def test_ideal_takes_the_time_of_computing() -> None:
    decision = plan(3, bandwidth_hz_K=np.full(3, math.inf), active_K=np.array([True, True, False]))
    who = participants(decision, channel(gains(0, 0, 0)), np.array([1.0, 2.0, 9.0]), 0.5, np.array([0.1, 0.2, 0.3]))
    outcome = uplink("ideal").deliver(decision, np.full(3, 1e12), who, 0, Rng(0))
    assert outcome.arrived_K.tolist() == [True, True, False]
    assert outcome.reason_K == ("", "", "outage")
    assert outcome.latency_s_K == pytest.approx([1.5, 2.5, 9.5])
    assert outcome.energy_j_K.tolist() == [0.1, 0.2, 0.3]
    assert outcome.round_s == 2.5


def test_ideal_with_a_deadline() -> None:
    link = uplink("ideal", deadline_s=2.0)
    who = participants(plan(2), channel(gains(1, 1)), np.array([1.0, 3.0]))
    outcome = link.deliver(plan(2), np.full(2, BITS), who, 0, Rng(0))
    assert outcome.reason_K == ("", "deadline")
    assert outcome.round_s == 2.0


@pytest.mark.parametrize("name", registry.UPLINKS)  # all of them are digital
def test_a_digital_uplink_hands_over_what_was_sent(name: str) -> None:
    link = uplink(name)
    folded = {"x": np.arange(3.0)}
    assert link.receive(Folded(folded), deliver(link, plan(1), channel(gains(1))), 1, Rng(0)) is folded
    assert not link.config.traits.analog


def test_downlink_seconds() -> None:
    assert downlink_seconds(UplinkConfig(), 1e9) == 0.0
    assert downlink_seconds(UplinkConfig(downlink="broadcast", downlink_rate_bps=2e7), 1e7) == 0.5


@pytest.mark.parametrize(
    "name, options, field",
    [
        ("fdma", {"deadline_s": 0.0}, "uplink.deadline_s"),
        ("fdma", {"late_tolerance": -0.1}, "uplink.late_tolerance"),
        ("fdma", {"packet_error": "sometimes"}, "uplink.packet_error"),
        ("fdma", {"waterfall": "high"}, "uplink.waterfall"),
        ("ideal", {"waterfall": 1.0}, "uplink.waterfall"),
        ("ideal", {"downlink": True}, "uplink.downlink"),
    ],
)
def test_bad_options_are_refused_with_the_field(name: str, options: dict, field: str) -> None:
    with pytest.raises(ConfigError) as error:
        registry.options("uplink", Plugin(name=name, **options))
    assert error.value.field == field
