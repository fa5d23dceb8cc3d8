"""One round: select, broadcast, train, allocate, encode, deliver, sum, receive, aggregate, observe, record.

State in, state out. Nothing is committed before `aggregate`, so any step can be repeated. K clients, ordered by id.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from raysoft.allocation.base import Allocator
from raysoft.config import RunConfig
from raysoft.federation.client import EncodeRequest, TrainRequest
from raysoft.federation.evaluation import evaluate
from raysoft.federation.executor import Executor
from raysoft.federation.pack_sums import folded, in_groups
from raysoft.federation.records import Round, record_of
from raysoft.federation.reduction import (
    arrived_components,
    by_client,
    client_weights,
    finite_reports,
    merged_states,
    normalised,
    sum_requests,
    survivors,
)
from raysoft.federation.sampling import cohort_candidates, make_packs
from raysoft.federation.seam import (
    blamed,
    check_cohort,
    check_outcome,
    check_plan,
    check_received,
    check_server,
    too_large,
)
from raysoft.federation.workload import WorkloadInfo
from raysoft.methods.base import Method
from raysoft.rng import Rng
from raysoft.types import Array, ClientReport, ClientState, Participants, Reception, RoundRecord, ServerState
from raysoft.uplinks.base import Uplink, downlink_seconds
from raysoft.wireless.base import Channel, gains
from raysoft.wireless.link import Devices, Link


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
    link: Link
    devices: Devices
    rng: Rng
    pack_size: int
    even_packs: bool
    shares_band: bool  # False: an allocator without a channel to share


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
    """The next state and the line of rounds.jsonl that describes the step (ticks count from 1).

    Raises RaysoftError where no client's update is finite, or fewer than the quorum are left.
    """
    began = time.perf_counter()
    config, executor, rng = parts.config, parts.executor, parts.rng

    # select
    candidates_K = cohort_candidates(rng, tick, parts.info.population, config.cohort.size)
    channel = gains(parts.channel, candidates_K, tick)
    with blamed("allocator", config, tick):
        chosen_K = parts.allocator.select(candidates_K, channel, state.allocator, tick, rng)
        cohort_K = check_cohort(config, tick, chosen_K, candidates_K)
    packs = make_packs(tick, cohort_K, parts.info.widths, parts.pack_size, parts.even_packs)

    # broadcast
    with blamed("method", config, tick):
        broadcast = parts.method.broadcast(state.server, tick)
    down = executor.put(broadcast)

    # train
    requests = [TrainRequest(pack, {k: state.clients[k] for k in pack.clients if k in state.clients}) for pack in packs]
    packs, trained = survivors(config.actors.quorum, tick, packs, executor.map("train", down, requests))
    everybody, finite = finite_reports(tick, (reply for reply, _ in trained), config.train.lr, config.actors.quorum)
    oversized = too_large(finite, config.train.max_update_norm)
    reports = tuple(report for report in finite if report.client not in oversized)

    # allocate
    who = participants(parts, reports, tick)
    with blamed("allocator", config, tick):
        plan = parts.allocator.allocate(reports, who, state.allocator, tick, rng)
        check_plan(config, tick, plan, reports, parts.link.bandwidth_hz if parts.shares_band else np.inf)

    # encode
    units = {int(k): int(n) for k, n, on in zip(plan.clients_K, plan.units_K, plan.active_K, strict=True) if on}
    orders = [EncodeRequest(tuple(units.get(k) for k in pack.clients)) for pack in packs]
    encoded = executor.map("encode", down, orders, [(handle,) for _, handle in trained])
    sent = by_client(packs, (reply for reply, _ in encoded))

    # deliver
    bits_K = np.array([sent[int(k)].num_bits for k in who.clients_K]) * config.device.payload_scale
    with blamed("uplink", config, tick):
        outcome = parts.uplink.deliver(plan, bits_K, who, tick, rng)
        check_outcome(config, tick, outcome, plan, who)
    arrived_K = outcome.arrived_K & np.array([sent[int(k)].finite for k in who.clients_K], dtype=bool)
    mix_K = normalised(np.where(arrived_K, who.weights_K if plan.weights_K is None else plan.weights_K, 0.0))

    # sum
    wanted = sum_requests(packs, who, arrived_K, mix_K, cohort=len(cohort_K))
    handles = [(update, view) for (_, update), (_, view) in zip(trained, encoded, strict=True)]
    summed = executor.map("sum", down, wanted, handles)
    groups = in_groups([handle for _, handle in summed])
    total = folded(reply for reply, _ in executor.map("combine", down, [None] * len(groups), groups))

    # receive
    sums = None
    if total.sums is not None:
        with blamed("uplink", config, tick):
            sums = parts.uplink.receive(total.sums, outcome, rng)
            check_received(config, tick, total.sums, sums)

    # aggregate, observe
    received = Reception(outcome, reports, sums=sums, sent_counts=arrived_components(who, sent, arrived_K))
    with blamed("method", config, tick):
        server = parts.method.aggregate(state.server, received, tick)
        check_server(config, tick, state.server, server)
    with blamed("allocator", config, tick):
        remembered = parts.allocator.observe(plan, outcome, state.allocator)
    after = replace(
        state,
        server=server,
        clients=merged_states(state.clients, (reply for reply, _ in summed), oversized),
        allocator=remembered,
        clock_s=state.clock_s + outcome.round_s,
    )

    # evaluate, record
    counts = evaluate(parts, server, tick)
    happened = Round(
        tick, state, len(cohort_K), everybody, reports, who, plan, outcome, arrived_K, mix_K, bits_K, sent, sums,
        total.products, counts, began, tuple(sorted(oversized)),
    )  # fmt: skip
    return record_of(parts, after, happened)


def participants(parts: Parts, reports: tuple[ClientReport, ...], tick: int) -> Participants:
    """The clients that reported, with their weights, channels and the time and energy of their training."""
    config, devices = parts.config, parts.devices
    clients_K = np.array([report.client for report in reports], dtype=np.int64)
    cycles_K = np.array([report.cycles for report in reports])
    downlink_bits = max(report.downlink_bits for report in reports) * config.device.payload_scale
    return Participants(
        clients_K=clients_K,
        weights_K=client_weights(config.cohort.weighting, reports),
        compute_s_K=devices.compute_s(cycles_K, clients_K),
        compute_j_K=devices.compute_j(cycles_K, clients_K),
        downlink_s=downlink_seconds(parts.uplink.config, downlink_bits),
        power_w_K=devices.power_w(clients_K),
        channel=gains(parts.channel, clients_K, tick),
    )
