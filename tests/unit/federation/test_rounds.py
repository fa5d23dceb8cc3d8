"""Whole rounds on the embedded digits, in this process: what the coordinator makes of clients that misbehave."""

from dataclasses import fields

import numpy as np
import pytest

from raysoft.allocation.solvers.budget import Draws, latency_floor
from raysoft.config.presets import load_config
from raysoft.errors import ConfigError, RaysoftError
from raysoft.federation.messages import TrainRequest
from raysoft.federation.preflight import Costs, sample_rounds
from raysoft.federation.sampling import make_packs
from raysoft.runs.run import run
from tests import tolerances
from tests.conftest import SMALL_RUN
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


CATCHING_UP = (
    "method={name: flora}",
    "codec.name=identity",
    "uplink.downlink=broadcast",
    "allocator.latency_budget_s=5",
)


def test_before_the_run_the_cost_of_a_round_is_a_lower_bound_where_a_base_drifts():
    made, _ = coordinator("soft", *CATCHING_UP, "uplink.downlink_rate_bps=1e6", "cohort.size=12")
    costs = Costs(made.parts, made.state.server)
    records = [made.round(tick) for tick in (1, 2)]
    known = [12 * costs.of(8, tick).downlink_bits for tick in (1, 2)]
    assert known[0] == records[0].downlink_bits
    assert known[1] < records[1].downlink_bits, "who comes again has a merge to catch up"
    draws = sample_rounds(made.parts, costs, (1, 2))
    floors = [latency_floor(_round(draws, at), made.parts.link, 5.0, 2.0).mean_s for at in (0, 1)]
    assert all(floor <= record.round_latency_s for floor, record in zip(floors, records, strict=True))


def _round(draws, at):
    return Draws(*(getattr(draws, field.name)[at : at + 1] for field in fields(draws)))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), True),
        (("uplink.downlink=ignore",), False),
        (("allocator.name=minmax",), False),
        (("method.name=fedit",), False),
    ],
)
def test_a_run_says_what_its_budget_was_checked_without(words, says, tmp_path, caplog):
    run(load_config("soft", [*SMALL_RUN, "executor=inline", "rounds=1", *CATCHING_UP, *words]), tmp_path / "run")
    said = [one.message for one in caplog.records if "was checked without" in one.message]
    assert len(said) == says
    assert all("latency_budget_s=5 " in one and "takes 0.105 s of a round" in one for one in said)
