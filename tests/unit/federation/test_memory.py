"""What methods and codecs remember of a client is what became of its payload, and nothing else."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from raysoft.federation.messages import EncodeRequest, FoldRequest, TrainRequest
from raysoft.types import Pack
from tests.coordinators import broken, coordinator, with_ends


class Counting:
    """A method that counts, at every client, the updates of it that arrived, and those that did not."""

    def __init__(self, plain):
        self.plain, self.given = plain, []

    def __getattr__(self, name):
        return getattr(self.plain, name)

    def local(self, view, memory, steps):
        self.given.append((view.tick, view.client, int(memory.get("arrived", 0))))
        return self.plain.local(view, memory, steps)

    def upload(self, view, job, end, memory):
        arrived, lost = memory.get("arrived", np.zeros(())), memory.get("lost", np.zeros(()))
        return replace(
            self.plain.upload(view, job, end, memory),
            memory_if_delivered={"arrived": np.asarray(arrived + 1.0), "lost": lost},
            memory_if_lost={"arrived": arrived, "lost": np.asarray(lost + 1.0)},
        )


def counting(executor):
    """The worker's method counts."""
    executor.worker.method = Counting(executor.worker.method)
    return executor.worker.method


def counts(state, client):
    kept = state.clients[client].method if client in state.clients else {}
    return int(kept.get("arrived", 0)), int(kept.get("lost", 0))


# Outages leave clients silent; packet errors and a deadline lose what was sent.
LOSSES = {
    "packet_errors": ["uplink.packet_error=snr", "channel.csi_error=0.9"],
    "deadline": ["uplink.deadline_s=0.2", "allocator.name=equal"],
    "outages": ["allocator.latency_budget_s=0.2", "allocator.outage_factor=0.5", "cohort.size=8"],
}


@pytest.mark.parametrize("feedback", ["false", "true"])
@pytest.mark.parametrize("case", LOSSES)
def test_a_method_remembers_as_many_deliveries_as_updates_arrived(case, feedback):
    made, executor = coordinator("soft", *LOSSES[case], f"codec.error_feedback={feedback}")
    counting(executor)
    arrived, lost = Counter(), Counter()
    for tick in range(1, 9):
        clients = made.round(tick).metrics["clients"]
        for client, status in zip(clients["id"], clients["status"], strict=True):
            (arrived if status == "ok" else lost)[client] += 1
        for client in range(12):
            assert counts(made.state, client) == (arrived[client], lost[client])
    assert arrived.total()
    assert lost.total()


def test_of_an_update_that_is_not_finite_nothing_is_remembered():
    made, executor = coordinator("ideal", "cohort.size=12")
    counting(executor)
    made.round(1)
    assert [counts(made.state, client) for client in range(12)] == [(1, 0)] * 12
    broken(executor, {4})
    made.round(2)
    assert [counts(made.state, client) for client in range(12)] == [(2 - (client == 4), 0) for client in range(12)]


@pytest.mark.parametrize("factor", [np.nan, 1e6])
@pytest.mark.parametrize("extras", ["[]", "[{name: fedprox}]"])
def test_who_is_rejected_has_received_the_base_all_the_same(factor, extras):
    """Not finite, or too large: it is charged FLoRA's base once, and nothing of its update is remembered."""
    made, executor = coordinator("flora", "cohort.size=12", f"method.extras={extras}")
    with_ends(
        executor,
        lambda client, start, end: {
            name: start[name] + np.float32(factor if client == 4 else 1) * (value - start[name])
            for name, value in end.items()
        },
    )
    for tick in (1, 2, 3):
        assert sum(made.round(tick).drop_reasons.values()) == 1
        down = made.parts.method.broadcast(made.state.server, tick + 1)
        kept = [made.state.clients[client].method for client in (4, 5)]
        views = [made.parts.method.view(down, client, 8, tick + 1, memory) for client, memory in zip((4, 5), kept)]
        assert kept[0] == kept[1], "what it holds is what everybody holds"
        assert views[0].downlink == views[1].downlink
    assert [int(value) for value in kept[0].values()] == [2], "what the two rounds before the last had merged"


def test_who_is_left_out_for_its_codec_has_received_the_base_all_the_same():
    made, executor = coordinator("flora", "cohort.size=12", "actors.on_failure=drop_client")
    codec = executor.worker.codec

    class Failing:
        def __getattr__(self, name):
            return getattr(codec, name)

        def menu(self, update, view, memory):
            return 1 / 0 if (view.client, view.tick) == (4, 2) else codec.menu(update, view, memory)

    executor.worker.codec = Failing()
    made.round(1)
    assert made.round(2).drop_reasons == {"client_failed": 1}
    assert made.state.clients[4].method == made.state.clients[5].method


def test_the_fate_of_each_client_decides_which_of_its_memories_is_kept():
    """0 arrived, 1 was lost, 2 arrived without any weight in the mean, 3 was told not to send."""
    made, executor = coordinator("soft", "codec.error_feedback=true", "metrics.covariance=off")
    counting(executor)
    worker, down = executor.worker, made.parts.method.broadcast(made.state.server, 1)
    _, trained = worker.train(down, TrainRequest(Pack(1, (0, 1, 2, 3)), {}))
    _, encoded = worker.encode(down, EncodeRequest((3, 3, 3, None)), trained)
    request = FoldRequest(
        mix=(1.0, 0.0, 0.0, 0.0),
        arrived=(True, False, True, False),
        rejected=(False,) * 4,
        weights=(0.25,) * 4,
        cohort=4,
    )
    states, part = worker.fold(down, request, trained, encoded)
    for client, arrived in enumerate(request.arrived):
        upload = trained.uploads[client]
        kept = upload.memory_if_delivered if arrived else upload.memory_if_lost
        assert states[client].method == kept == {"arrived": float(arrived), "lost": float(not arrived)}
        codec = (encoded.if_delivered if arrived else encoded.if_lost)[client]
        assert states[client].codec is codec
    assert states[3].codec == {}
    assert set(states[0].codec) == set(states[1].codec) != set()
    for name, value in part.folded.items():
        np.testing.assert_array_equal(value, encoded.decoded[0][name])


def test_what_a_method_remembers_is_what_it_is_given_again():
    made, executor = coordinator("ideal", "cohort.size=12")
    method = counting(executor)
    for tick in range(1, 4):
        made.round(tick)
    assert method.given == [(tick, client, tick - 1) for tick in range(1, 4) for client in range(12)]
