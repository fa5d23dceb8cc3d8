"""What a dry run foresees of the rounds, against rounds that were run."""

import numpy as np
import pytest

from raysoft.federation import prospect
from raysoft.federation.prospect import foresee
from tests.coordinators import coordinator

ROUNDS = 3


def means(made, *keys):
    records = [made.round(tick) for tick in range(1, ROUNDS + 1)]
    return [float(np.mean([getattr(one, key) for one in records])) for key in keys]


@pytest.fixture
def few_rounds(monkeypatch):
    monkeypatch.setattr(prospect, "COHORTS", ROUNDS)


@pytest.mark.usefixtures("few_rounds")
@pytest.mark.parametrize(
    "preset, settings",
    [
        ("fedit", []),
        ("equal", ["device.payload_scale=3.0", "uplink.downlink=broadcast"]),
        ("ideal", ["model.lora.rank={low: 2, high: 4}", "train.steps={low: 1, high: 3}"]),
        ("rolora", []),  # sends A in some rounds, B in the others
        ("randomk", ["channel.csi_error=0.2", "allocator.name=equal"]),  # some are late
    ],
)
def test_where_payloads_do_not_hang_on_the_updates_the_rounds_are_foreseen_exactly(preset, settings):
    made, _ = coordinator(preset, *settings)
    found = foresee(made.parts, made.state)
    round_s, energy_j, up, down = means(made, "round_latency_s", "energy_j", "uplink_bits", "downlink_bits")
    assert found.rounds == ROUNDS
    assert found.round_s == pytest.approx(round_s, rel=1e-12)
    assert found.energy_j == pytest.approx(energy_j, rel=1e-12)
    size = made.config.cohort.size
    assert found.sent_bits * found.senders * size == pytest.approx(up, rel=1e-3)  # a mean of clients, then of rounds
    assert found.downlink_bits * size == pytest.approx(down, rel=1e-9)
    assert 0 < found.least_bits <= found.sent_bits <= found.whole_bits


@pytest.mark.usefixtures("few_rounds")
def test_curves_of_trained_clients_stand_for_the_others():
    made, executor = coordinator("soft", "allocator.queue_start=1.0")
    reports = []
    plain = executor.map

    def keeping(stage, *given):
        answers = plain(stage, *given)
        if stage == "train":
            reports.extend(one for reply, _ in answers for one in reply)
        return answers

    executor.map = keeping
    before = made.state
    round_s, up = means(made, "round_latency_s", "uplink_bits")
    found = foresee(made.parts, before, reports[:3])
    assert found.round_s == pytest.approx(round_s, rel=0.1)
    assert found.sent_bits * found.senders * made.config.cohort.size == pytest.approx(up, rel=0.2)


def test_a_large_cohort_is_looked_at_in_fewer_rounds():
    made, _ = coordinator("fedit", "data.partition=virtual", "data.clients=2000", "cohort.size=500")
    assert foresee(made.parts, made.state).rounds == 4
