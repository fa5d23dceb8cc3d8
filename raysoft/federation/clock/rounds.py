"""One round: select, broadcast, train, allocate, encode, deliver, fold, receive, aggregate, observe, evaluate, record.

State in, state out. The clock owns `deliver` and the time; the other steps are `RoundSteps`, of which `train`, `encode`
and `fold` run on clients. Nothing is committed before `aggregate`, so any step can be repeated. K clients, ordered by
id.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from raysoft.federation.evaluation import evaluate
from raysoft.federation.messages import SentUpdate
from raysoft.federation.parts import Parts, RunState
from raysoft.federation.records import Round, record_of
from raysoft.federation.reduction import arrived_components, merged_states, normalised, status_of
from raysoft.federation.seam import blamed, check_outcome, is_same
from raysoft.federation.stages import Delivered, RoundSteps
from raysoft.types import Allocation, Participants, RoundRecord


def run_round(parts: Parts, state: RunState, tick: int) -> tuple[RunState, RoundRecord]:
    """The next state and the line of rounds.jsonl that describes the step (ticks count from 1).

    Raises RaysoftError where no client's update is finite, or fewer than the quorum are left.
    """
    began = time.perf_counter()
    step = RoundSteps(parts, state, tick)

    cohort_K, packs = step.select()
    down = step.broadcast()
    trained = step.train(packs, down, cohort=len(cohort_K))
    who, plan = step.allocate(trained.reports)
    encoded = step.encode(trained, plan, down)
    delivered = deliver(parts, plan, who, encoded.sent, tick)
    total, states = step.fold(trained, encoded, delivered, down)
    folded = step.receive(total.folded, delivered)
    server = step.aggregate(trained, delivered, folded, total.side)
    remembered = step.observe(plan, delivered.outcome)

    after = replace(
        state,
        server=server,
        clients=merged_states(state.clients, states),
        allocator=remembered,
        clock_s=state.clock_s + delivered.outcome.round_s,
        totals=state.totals.after(step.dense_bits(trained), delivered.sent_counts),
    )
    scores = evaluate(parts, server, tick)
    measured = step.measure(trained, encoded, delivered, folded, total.products, after)
    happened = Round(
        tick=tick,
        after=after,
        trained=trained,
        plan=plan,
        encoded=encoded,
        delivered=delivered,
        scores=scores,
        measured=measured,
        downlink_bits=step.downlink_bits(trained),
        unmoved=bool(delivered.arrived_K.any()) and is_same(state.server, server),
        began=began,
    )
    return after, record_of(happened)


def deliver(parts: Parts, plan: Allocation, who: Participants, sent: Mapping[int, SentUpdate], tick: int) -> Delivered:
    """The uploads over the air, all in one round: who arrives, and with which weight."""
    sent_K = [sent[int(k)] for k in who.clients_K]
    bits_K = np.array([one.num_bits for one in sent_K]) * parts.config.device.payload_scale
    with blamed("uplink", parts.config, tick):
        outcome = parts.uplink.deliver(plan, bits_K, who, tick, parts.rng)
        check_outcome(parts.config, tick, outcome, plan, who)
    arrived_K = outcome.arrived_K & np.array([one.finite for one in sent_K], dtype=bool)
    weights_K = who.weights_K if plan.weights_K is None else plan.weights_K
    mix_K = normalised(np.where(arrived_K, weights_K, 0.0)) if outcome.mix_K is None else outcome.mix_K
    return Delivered(
        who=who,
        outcome=outcome,
        bits_K=bits_K,
        arrived_K=arrived_K,
        mix_K=np.where(arrived_K, mix_K, 0.0),
        sent_counts=arrived_components(who, sent, arrived_K),
        status_K=status_of(arrived_K, sent_K, outcome.reason_K),
    )
