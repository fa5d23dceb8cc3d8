"""One round: select, broadcast, train, allocate, encode, deliver, sum, receive, aggregate, observe, record.

State in, state out. Nothing is committed before `aggregate`, so any step can be repeated. K clients, ordered by id.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from raysoft.allocation.base import Allocator
from raysoft.config import RunConfig
from raysoft.errors import RaysoftError
from raysoft.federation.client import EncodeRequest, SentUpdate, SumReply, SumRequest, TrainRequest
from raysoft.federation.evaluation import evaluate
from raysoft.federation.executor import Executor
from raysoft.federation.records import Round, record_of
from raysoft.federation.sampling import cohort_candidates, make_packs
from raysoft.federation.workload import WorkloadInfo
from raysoft.methods.base import Method
from raysoft.rng import Rng
from raysoft.types import Allocation, Array, ClientReport, ClientState, Pack, Reception, RoundRecord, ServerState
from raysoft.uplinks.base import Uplink, downlink_seconds
from raysoft.wireless.base import Channel
from raysoft.wireless.link import Devices


@dataclass(frozen=True)
class Parts:
    """What a round is made of; nothing in it changes."""

    config: RunConfig
    info: WorkloadInfo
    executor: Executor
    method: Method
    allocator: Allocator
    uplink: Uplink
    channel: Channel
    devices: Devices
    rng: Rng
    pack_size: int


@dataclass(frozen=True)
class RunState:
    """Everything that a round changes: all of it, and nothing else, belongs into a checkpoint."""

    server: ServerState
    allocator: Mapping[str, Array]
    clients: Mapping[int, ClientState] = field(default_factory=dict)  # only those that remember something
    clock_s: float = 0.0
    sent_counts: Array | None = None  # how often each rank component arrived
    dense_bits: int = 0  # what everybody's float32 update would have cost so far


def run_round(parts: Parts, state: RunState, tick: int) -> tuple[RunState, RoundRecord]:
    """The next state and the line of rounds.jsonl that describes the step (ticks count from 1)."""
    began = time.perf_counter()
    config, info, executor = parts.config, parts.info, parts.executor

    # select
    candidates_K = cohort_candidates(parts.rng, tick, info.population, config.cohort.size)
    chosen_K = parts.allocator.select(
        candidates_K, parts.channel.state(candidates_K, tick), state.allocator, tick, parts.rng
    )
    packs = make_packs(tick, chosen_K, info.widths, parts.pack_size)

    # broadcast, train
    down = executor.put(parts.method.broadcast(state.server, tick))
    trained = executor.map("train", down, [
        TrainRequest(pack, {k: state.clients[k] for k in pack.clients if k in state.clients}) for pack in packs
    ])
    packs, trained = _survivors(config, tick, packs, trained)
    everybody = sorted((report for reply, _ in trained for report in reply), key=lambda report: report.client)
    reports = tuple(report for report in everybody if report.finite)
    if not reports:
        raise RaysoftError(
            f"round {tick}: no client's update is finite; training diverged (train.lr={config.train.lr:g} may be too large)"
        )

    # allocate
    clients_K = np.array([report.client for report in reports], dtype=np.int64)
    channel = parts.channel.state(clients_K, tick)
    weights_K = _weights(config, reports)
    cycles_K = np.array([report.cycles for report in reports])
    compute_s_K = parts.devices.compute_s(cycles_K, clients_K)
    compute_j_K = parts.devices.compute_j(cycles_K, clients_K)
    downlink_s = downlink_seconds(parts.uplink.config, max((report.downlink_bits for report in reports), default=0))
    plan = parts.allocator.allocate(
        reports, weights_K, compute_s_K, downlink_s, parts.devices.power_w(clients_K), channel, state.allocator,
        tick, parts.rng,
    )

    # encode
    units = {int(k): int(n) for k, n, active in zip(plan.clients_K, plan.units_K, plan.active_K, strict=True) if active}
    encoded = executor.map(
        "encode", down, [EncodeRequest(tuple(units.get(k) for k in pack.clients), plan.mask) for pack in packs],
        [handle for _, handle in trained],
    )
    sent = _by_client(packs, [reply for reply, _ in encoded])

    # deliver
    bits_K = np.array([sent[int(k)].num_bits for k in clients_K]) * config.device.payload_scale
    outcome = parts.uplink.deliver(
        plan, bits_K, compute_s_K, compute_j_K, downlink_s, channel, tick, parts.rng
    )
    arrived_K = outcome.arrived_K & np.array([sent[int(k)].finite for k in clients_K], dtype=bool)
    mix_K = _normalised(np.where(arrived_K, weights_K if plan.weights_K is None else plan.weights_K, 0.0))

    # sum, receive
    mix = dict(zip(clients_K.tolist(), mix_K.tolist(), strict=True))
    weight = dict(zip(clients_K.tolist(), weights_K.tolist(), strict=True))
    summed = executor.map("sum", down, [
        SumRequest(
            mix=tuple(mix.get(k, 0.0) for k in pack.clients), arrived=tuple(mix.get(k, 0.0) > 0 for k in pack.clients),
            weights=tuple(weight.get(k, 0.0) for k in pack.clients), cohort=len(chosen_K),
        )
        for pack in packs
    ], [handle for _, handle in encoded])
    replies = [reply for reply, _ in summed]
    sums = _total(replies)
    if sums is not None:
        sums = dict(parts.uplink.receive(sums, outcome, parts.rng))

    # aggregate, observe
    server = parts.method.aggregate(state.server, Reception(outcome, reports, sums=sums), tick)
    clients = {**state.clients, **{k: kept for reply in replies for k, kept in reply.states.items()}}
    after = replace(
        state, server=server, clients=clients, allocator=parts.allocator.observe(plan, outcome, state.allocator),
        clock_s=state.clock_s + outcome.round_s,
    )

    # evaluate, record
    counts = evaluate(parts, server, tick)
    return record_of(parts, after, Round(
        tick=tick, before=state, cohort=len(chosen_K), everybody=tuple(everybody), reports=reports, plan=plan, outcome=outcome,
        channel=channel, arrived_K=arrived_K, mix_K=mix_K, weights_K=weights_K, bits_K=bits_K, sent=sent, sums=sums,
        products=[reply.products for reply in replies], counts=counts, began=began,
    ))


def _survivors(
    config: RunConfig, tick: int, packs: Sequence[Pack], trained: Sequence[tuple[Any, Any]]
) -> tuple[list[Pack], list[tuple[Any, Any]]]:
    """Packs that were trained. Raises when fewer than the quorum of the cohort are left."""
    left = [(pack, pair) for pack, pair in zip(packs, trained, strict=True) if pair[0] is not None]
    alive, cohort = (sum(len(pack.clients) for pack in some) for some in ([pack for pack, _ in left], packs))
    if alive < config.actors.quorum * cohort:
        raise RaysoftError(
            f"round {tick}: {cohort - alive} of {cohort} clients were lost with their actors, "
            f"below actors.quorum={config.actors.quorum:g}"
        )
    return [pack for pack, _ in left], [pair for _, pair in left]


def _weights(config: RunConfig, reports: Sequence[ClientReport]) -> Array:
    """p_k over the participants: proportional to samples, or equal; sums to one."""
    samples = np.array([report.samples for report in reports], dtype=float)
    return _normalised(samples if config.cohort.weighting == "samples" else np.ones(len(reports)))


def _normalised(weights_K: Array) -> Array:
    total = weights_K.sum()
    return weights_K / total if total > 0 else weights_K


def _by_client(packs: Sequence[Pack], replies: Sequence[Sequence[SentUpdate]]) -> dict[int, SentUpdate]:
    """Encode replies by client id."""
    return {k: one for pack, reply in zip(packs, replies, strict=True) for k, one in zip(pack.clients, reply, strict=True)}


def _total(replies: Sequence[SumReply]) -> dict[str, Array] | None:
    """Pack sums added in pack order."""
    total: dict[str, Array] = {}
    for reply in replies:
        for name, value in (reply.sums or {}).items():
            total[name] = value if name not in total else total[name] + value
    return total or None


__all__ = ["Allocation", "Parts", "RunState", "run_round"]
