"""Whole rounds on the embedded digits, in this process: what the coordinator makes of clients that misbehave."""

import numpy as np
import pytest

from raysoft.errors import ConfigError, RaysoftError
from raysoft.federation.messages import TrainRequest
from raysoft.federation.sampling import make_packs
from tests import tolerances
from tests.coordinators import broken, coordinator


def test_one_update_that_is_not_finite_is_dropped_and_the_others_go_on():
    made, executor = coordinator("ideal")
    reference, _ = coordinator("ideal")
    cohort = reference.round(1).metrics["clients"]["id"]
    bad = cohort[2]
    ends = broken(executor, {bad})
    before = made.state.server.theta
    record = made.round(1)
    assert record.drop_reasons == {"non_finite": 1}
    assert (record.participants, record.dropped) == (5, 1)
    assert record.metrics["clients"]["id"] == [k for k in cohort if k != bad]
    # The ideal uplink sends everything, so the step is the weighted mean of the other clients' changes.
    sizes = {k: made.parts.info.partition.size(k) for k in cohort if k != bad}
    for name, value in made.state.server.theta.items():
        step = sum(
            n / sum(sizes.values()) * (ends[k][1][name].astype(float) - ends[k][0][name]) for k, n in sizes.items()
        )
        np.testing.assert_allclose(value, before[name] + step, atol=1e-7)
        assert np.isfinite(value).all()


def test_a_client_that_diverged_remembers_what_it_did_before():
    made, executor = coordinator("soft", "codec.error_feedback=true")
    cohort = made.round(1).metrics["clients"]["id"]
    before = made.state.clients
    assert sorted(before) == cohort
    ends = broken(executor, {cohort[0]})
    for tick in range(2, 30):
        made.round(tick)
        if cohort[0] in ends:
            break
    else:
        pytest.fail("the client was never chosen again")
    for name, value in before[cohort[0]].codec.items():
        np.testing.assert_array_equal(made.state.clients[cohort[0]].codec[name], value)


def test_nothing_is_committed_when_a_round_fails():
    made, executor = coordinator()
    made.round(1)
    before = made.state
    broken(executor, set(range(12)))
    with pytest.raises(RaysoftError, match="round 2: no client's update is finite"):
        made.round(2)
    assert made.state is before


def test_an_error_in_a_stage_names_stage_round_and_clients():
    made, executor = coordinator()
    executor.worker.trainer.train = lambda *args: 1 / 0
    with pytest.raises(RaysoftError, match=r"train of round 1, clients \[\d+, \d+, \d+\]: ZeroDivisionError"):
        made.round(1)
    made, executor = coordinator()
    executor.worker.codec = None
    with pytest.raises(RaysoftError, match=r"^codec rank_components, round 1, client \d+: AttributeError"):
        made.round(1)


def updates_of(executor, made, clients, size):
    down = made.parts.method.broadcast(made.state.server, 1)
    packs = make_packs(1, np.array(clients), made.parts.info.widths, size)
    trained = executor.map("train", down, [TrainRequest(pack, {}) for pack in packs])
    return {k: one.update for _, handle in trained for k, one in zip(handle.pack.clients, handle.uploads, strict=True)}


@pytest.mark.parametrize(("partition", "same_shapes"), [("virtual", True), ("dirichlet", False)])
def test_an_update_does_not_depend_on_the_size_of_its_pack(partition, same_shapes):
    """Where every client fills its batch the padded shapes agree, and so do the bits; otherwise all but rounding."""
    made, executor = coordinator(
        "soft", f"data.partition={partition}", "data.clients=40", "train.batch_size=16", "train.steps=5"
    )
    five, ten = (updates_of(executor, made, range(0, 40, 2), size) for size in (5, 10))
    assert sorted(five) == sorted(ten) == list(range(0, 40, 2))
    for client, update in five.items():
        for name, value in update.items():
            if same_shapes:
                assert value.tobytes() == ten[client][name].tobytes()
            else:
                bound = tolerances.training(made.config.train, made.config.train.steps)
                np.testing.assert_allclose(value, ten[client][name], rtol=0, atol=bound)


def test_the_budget_is_checked_against_the_runs_own_radio():
    """Refused just below the smallest feasible budget that the message names, accepted there."""
    with pytest.raises(ConfigError, match="smallest feasible") as raised:
        coordinator("soft", "allocator.latency_budget_s=0.0001")
    named = str(raised.value).split("about ")[1].split(" s")[0]
    coordinator("soft", f"allocator.latency_budget_s={named}")
    with pytest.raises(ConfigError, match="smallest feasible"):
        coordinator("soft", f"allocator.latency_budget_s={float(named) * 0.9}")
    with pytest.raises(ConfigError, match="smallest feasible"):  # a model ten times as large
        coordinator("soft", f"allocator.latency_budget_s={named}", "device.payload_scale=10")
    with pytest.raises(ConfigError, match="smallest feasible"):  # a downlink that alone takes longer
        coordinator(
            "soft", f"allocator.latency_budget_s={named}", "uplink.downlink=broadcast", "uplink.downlink_rate_bps=1e4"
        )
