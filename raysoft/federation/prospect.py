"""What rounds will send, take and spend: the run's first cohorts, its own allocator and uplink, and no training.

Cohorts, channels, compute times and payload sizes are those of the run. What an update loses when less of it is sent is
known after training only; the curves that the allocator reads are those of `trained` reports where there are any (one
trained pack), else of a keyed Gaussian update. Catch-up of a base that drifts is not counted (preflight.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from raysoft.federation.parts import Parts, RunState
from raysoft.federation.preflight import COHORTS, Costs, rounds_ahead, worked_samples
from raysoft.federation.sampling import cohort_candidates, ranks_of
from raysoft.federation.seam import blamed
from raysoft.federation.stages import participants
from raysoft.types import Array, ClientReport, Curve
from raysoft.wireless.base import gains

CLIENTS = 640  # of all cohorts together: a large cohort varies less, and takes longer to plan


@dataclass(frozen=True)
class Prospect:
    """Means over rounds, and over the clients of a round; bits are on the air."""

    ticks: tuple[int, ...]  # the rounds that were looked at
    dense_bits: float  # a client's whole update as float32
    whole_bits: float  # the same at the codec's own precision
    least_bits: float  # the least payload that a client may be asked for
    sent_bits: float  # of a client that may send
    senders: float  # share of the cohort
    downlink_bits: float
    round_s: float
    energy_j: float  # all clients of the round

    @property
    def rounds(self) -> int:
        """How many were looked at."""
        return len(self.ticks)


def foresee(parts: Parts, state: RunState, trained: Sequence[ClientReport] = ()) -> Prospect:
    """The first rounds of a run, at most COHORTS of them, from the state before the first (see `rounds_ahead`).

    `trained`: reports of clients that have trained; their curves stand for those of all clients of their rank.
    """
    costs, curves = Costs(parts, state.server), {report.rank: report.curve for report in trained}
    remembered, rows = state.allocator, []
    ticks = rounds_ahead(parts.config, min(COHORTS, max(CLIENTS // parts.config.cohort.size, 4)))
    for tick in ticks:
        remembered, row = _round(parts, costs, curves, remembered, tick)
        rows.append(row)
    means = [float(np.mean(column)) for column in zip(*rows, strict=True)]
    return Prospect(tuple(ticks), *means)


def _round(
    parts: Parts, costs: Costs, curves: Mapping[int, Curve], remembered: Mapping[str, Array], tick: int
) -> tuple[Mapping[str, Array], tuple[float, ...]]:
    """What the allocator remembers after the round, and the round's figures in the order of Prospect."""
    config = parts.config
    candidates_K = cohort_candidates(parts.rng, tick, parts.info.population, config.cohort.size)
    channel = gains(parts.channel, candidates_K, tick)
    with blamed("allocator", config, tick):
        clients_K = np.sort(parts.allocator.select(candidates_K, channel, remembered, tick, parts.rng))
    reports = _reports(parts, costs, curves, clients_K, tick)
    who = participants(parts, reports, tick)
    with blamed("allocator", config, tick):
        plan = parts.allocator.allocate(reports, who, remembered, tick, parts.rng)
    scale = config.device.payload_scale
    whole_K = scale * np.array([report.curve.fixed_bits + report.curve.bits_J[-1] for report in reports])
    each_K = zip(plan.clients_K.tolist(), plan.units_K.tolist(), plan.active_K.tolist(), strict=True)
    units = {client: count for client, count, active in each_K if active}
    sent_K = scale * np.array([_sent(report, units.get(report.client)) for report in reports])
    with blamed("uplink", config, tick):
        outcome = parts.uplink.deliver(plan, sent_K, who, tick, parts.rng)
    with blamed("allocator", config, tick):
        remembered = parts.allocator.observe(plan, outcome, remembered)
    sends_K = sent_K > 0
    return remembered, (
        scale * float(np.mean([report.dense_bits for report in reports])),
        float(whole_K.mean()),
        float(np.mean([costs.of(report.rank, tick).least_bits for report in reports])),
        float(sent_K[sends_K].mean()) if sends_K.any() else 0.0,
        float(sends_K.mean()),
        scale * float(np.mean([report.downlink_bits for report in reports])),
        outcome.round_s,
        float(outcome.energy_j_K.sum()),
    )


def _reports(
    parts: Parts, costs: Costs, curves: Mapping[int, Curve], clients_K: Array, tick: int
) -> tuple[ClientReport, ...]:
    """What the clients would report of a sound update."""
    config = parts.config
    ranks_K = ranks_of(parts.rng, config.model.lora.ranks(), clients_K)
    cycles_K = worked_samples(parts, clients_K) * config.device.cycles_per_sample
    scale, found = config.device.payload_scale, []
    for client, rank, cycles in zip(clients_K.tolist(), ranks_K.tolist(), cycles_K.tolist(), strict=True):
        cost = costs.of(rank, tick)
        curve = curves.get(rank, cost.curve)
        report = ClientReport(
            client=client,
            samples=parts.info.partition.size(client),
            rank=rank,
            loss=0.0,
            cycles=cycles,
            downlink_bits=round(cost.downlink_bits / scale),
            dense_bits=round(cost.dense_bits / scale),
            curve=curve if curve.units == cost.curve.units else cost.curve,  # other values travel in this round
        )
        found.append(report)
    return tuple(found)


def _sent(report: ClientReport, units: int | None) -> float:
    """Bits of so many units, before payload_scale; None: told not to send."""
    return 0.0 if units is None else float(report.curve.fixed_bits + report.curve.bits_J[units])
