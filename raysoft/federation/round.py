"""One round: select, broadcast, train, allocate, encode, deliver, fold, receive, aggregate, observe, record.

State in, state out. Nothing is committed before `aggregate`, so any step can be repeated. K clients, ordered by id.
"""

from __future__ import annotations

import time
from dataclasses import replace

from raysoft.federation.evaluation import evaluate
from raysoft.federation.parts import Parts, RunState
from raysoft.federation.records import Round, record_of
from raysoft.federation.reduction import merged_states
from raysoft.federation.stages import RoundSteps
from raysoft.types import RoundRecord


def run_round(parts: Parts, state: RunState, tick: int) -> tuple[RunState, RoundRecord]:
    """The next state and the line of rounds.jsonl that describes the step (ticks count from 1).

    Raises RaysoftError where no client's update is finite, or fewer than the quorum are left.
    """
    began = time.perf_counter()
    step = RoundSteps(parts, state, tick)

    cohort_K, packs = step.select()
    down = step.broadcast()
    trained = step.train(packs, down)
    who, plan = step.allocate(trained.reports)
    encoded = step.encode(trained, plan, down)
    delivered = step.deliver(plan, who, encoded.sent)
    total, states = step.fold(trained, encoded, delivered, down, cohort=len(cohort_K))
    folded = step.receive(total.folded, delivered)
    server = step.aggregate(trained, delivered, folded, total.side)
    remembered = step.observe(plan, delivered.outcome)

    after = replace(
        state,
        server=server,
        clients=merged_states(state.clients, states),
        allocator=remembered,
        clock_s=state.clock_s + delivered.outcome.round_s,
    )
    happened = Round(
        tick=tick,
        before=state,
        cohort=len(cohort_K),
        everybody=trained.everybody,
        reports=trained.reports,
        who=delivered.who,
        plan=plan,
        outcome=delivered.outcome,
        arrived_K=delivered.arrived_K,
        mix_K=delivered.mix_K,
        bits_K=delivered.bits_K,
        sent=encoded.sent,
        sent_counts=delivered.sent_counts,
        folded=folded,
        products=total.products,
        counts=evaluate(parts, server, tick),
        began=began,
        oversized=tuple(sorted(trained.oversized)),
    )
    return record_of(parts, after, happened)
