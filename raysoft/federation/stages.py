"""The steps of a round, one method each, and what they hand on to each other; `run_round` puts them in order.

What runs on clients is in client.py; here is what is asked of them, and what becomes of their answers. K clients,
ordered by id.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raysoft.codecs.measure.coverage import coverage, mean_stats
from raysoft.federation.client import joined
from raysoft.federation.diagnostics import ProductSums, covariance, covariance_mode
from raysoft.federation.messages import EncodeRequest, PackFold, SentUpdate, TrainRequest
from raysoft.federation.parts import Parts, RunState
from raysoft.federation.reduction import (
    by_client,
    client_weights,
    finite_reports,
    fold_requests,
    in_groups,
    support_of,
    survivors,
)
from raysoft.federation.sampling import cohort_candidates, make_packs
from raysoft.federation.seam import (
    blamed,
    check_cohort,
    check_folded,
    check_plan,
    check_received,
    check_server,
    too_large,
)
from raysoft.types import (
    Allocation,
    Array,
    ClientReport,
    ClientState,
    Folded,
    Outcome,
    Pack,
    Participants,
    Reception,
    ServerState,
    Tensors,
)
from raysoft.uplinks.base import downlink_seconds
from raysoft.wireless.base import gains


@dataclass(frozen=True)
class Trained:
    """What local training has left: the packs that came back, and what their clients report, by client id."""

    cohort: int  # clients asked to train
    packs: Sequence[Pack]
    uploads: Sequence[Any]  # handles, one a pack: updates stay where they were made
    everybody: tuple[ClientReport, ...]
    reports: tuple[ClientReport, ...]  # of those whose update is finite and not oversized
    oversized: Collection[int]  # clients rejected by train.max_update_norm


@dataclass(frozen=True)
class Uploads:
    """What was put on the air: a handle a pack for what the server decodes, and each client's upload in figures."""

    views: Sequence[Any]
    sent: Mapping[int, SentUpdate]


@dataclass(frozen=True)
class Delivered:
    """What became of the uploads, over the K clients that reported."""

    who: Participants  # these clients
    outcome: Outcome
    bits_K: Array  # on the air
    arrived_K: Array  # delivered, and finite after decoding
    mix_K: Array  # factor of each update in the mean, 0 where it has not arrived
    sent_counts: Array | None  # of how many clients each rank component arrived, where known
    status_K: tuple[str, ...]  # what became of each


@dataclass(frozen=True)
class RoundSteps:
    """The steps of one round, in the order in which `run_round` takes them; none of them changes anything here.

    What a plug-in raises is named as its own (`blamed`), and what it hands back is checked before it is used.
    """

    parts: Parts
    state: RunState
    tick: int

    def select(self) -> tuple[Array, list[Pack]]:
        """The cohort, and the packs in which it is trained."""
        parts, tick = self.parts, self.tick
        candidates_K = cohort_candidates(parts.rng, tick, parts.info.population, parts.config.cohort.size)
        channel = gains(parts.channel, candidates_K, tick)
        with self._blamed("allocator"):
            chosen_K = parts.allocator.select(candidates_K, channel, self.state.allocator, tick, parts.rng)
            cohort_K = check_cohort(parts.config, tick, chosen_K, candidates_K)
        return cohort_K, make_packs(tick, cohort_K, parts.info.widths, parts.pack_size, parts.even_packs)

    def broadcast(self) -> Any:
        """The global model as the clients receive it; what stands for it in the stages below."""
        with self._blamed("method"):
            broadcast = self.parts.method.broadcast(self.state.server, self.tick)
        return self.parts.executor.put(broadcast)

    def train(self, packs: Sequence[Pack], down: Any, *, cohort: int) -> Trained:
        """Local training, without the packs that were lost with their actors, and without useless updates."""
        config, clients = self.parts.config, self.state.clients
        quorum = config.actors.quorum
        requests = [TrainRequest(pack, {k: clients[k] for k in pack.clients if k in clients}) for pack in packs]
        results = self.parts.executor.map("train", down, requests)
        left, results = survivors(quorum, self.tick, packs, results)
        everybody, finite = finite_reports(self.tick, (reply for reply, _ in results), config.train.lr, quorum)
        oversized = too_large(finite, config.train.max_update_norm)
        reports = tuple(report for report in finite if report.client not in oversized)
        return Trained(cohort, left, [update for _, update in results], everybody, reports, oversized)

    def allocate(self, reports: tuple[ClientReport, ...]) -> tuple[Participants, Allocation]:
        """Those who reported, with their channels; who of them sends how much, with which share of the band."""
        parts, tick = self.parts, self.tick
        who = participants(parts, reports, tick)
        band_hz = parts.link.bandwidth_hz if parts.shares_band else np.inf
        with self._blamed("allocator"):
            plan = parts.allocator.allocate(reports, who, self.state.allocator, tick, parts.rng)
            check_plan(parts.config, tick, plan, reports, band_hz)
        return who, plan

    def encode(self, trained: Trained, plan: Allocation, down: Any) -> Uploads:
        """Each active client's update in as many units as it was given; nothing (None) of the others."""
        each_K = zip(plan.clients_K, plan.units_K, plan.active_K, strict=True)
        units = {int(k): int(n) for k, n, active in each_K if active}
        requests = [EncodeRequest(tuple(units.get(k) for k in pack.clients)) for pack in trained.packs]
        handles = [(one,) for one in trained.uploads]
        results = self.parts.executor.map("encode", down, requests, handles)
        sent = by_client(trained.packs, (reply for reply, _ in results))
        return Uploads([view for _, view in results], sent)

    def fold(
        self, trained: Trained, encoded: Uploads, delivered: Delivered, down: Any
    ) -> tuple[PackFold, list[Mapping[int, ClientState]]]:
        """What arrived as one, by packs and then in groups; what clients remember, a mapping a pack."""
        run = self.parts.executor.map
        arrived_K, mix_K = delivered.arrived_K, delivered.mix_K
        requests = fold_requests(trained.packs, delivered.who, arrived_K, mix_K, trained.cohort)
        parts = run("fold", down, requests, list(zip(trained.uploads, encoded.views, strict=True)))
        groups = in_groups([handle for _, handle in parts])
        joint = run("join", down, [self.tick] * len(groups), groups)
        with self._blamed("method"):
            total = joined(self.parts.method.fold, (reply for reply, _ in joint))
        return total, [states for states, _ in parts]

    def receive(self, total: Tensors, delivered: Delivered) -> Tensors | None:
        """What the server has after the air, as its method wants it; None where nobody arrived."""
        if not total:
            return None
        config, tick = self.parts.config, self.tick
        support = None
        if self.parts.analog:
            support = support_of(total, self.parts.info.space, delivered.sent_counts)
        with self._blamed("uplink"):
            received = self.parts.uplink.receive(Folded(total, support), delivered.outcome, tick, self.parts.rng)
            check_received(config, tick, total, received)
        with self._blamed("method"):
            return check_folded(config, tick, self.parts.method.fold.finish(received), self.parts.info.space)

    def aggregate(self, trained: Trained, delivered: Delivered, folded: Tensors | None, side: Tensors) -> ServerState:
        """The next global model."""
        outcome = replace(delivered.outcome, arrived_K=delivered.arrived_K)  # and finite after decoding
        received = Reception(outcome, trained.reports, folded, side, delivered.sent_counts, delivered.mix_K)
        with self._blamed("method"):
            server = self.parts.method.aggregate(self.state.server, received, self.tick)
            check_server(self.parts.config, self.tick, self.state.server, server)
        return server

    def observe(self, plan: Allocation, outcome: Outcome) -> Mapping[str, Array]:
        """What the allocator remembers of the round."""
        with self._blamed("allocator"):
            return self.parts.allocator.observe(plan, outcome, self.state.allocator)

    def dense_bits(self, trained: Trained) -> int:
        """Bits of everybody's whole update as float32, on the air: the yardstick of `uplink share`."""
        scale = self.parts.config.device.payload_scale
        return sum(round(report.dense_bits * scale) for report in trained.everybody)

    def downlink_bits(self, trained: Trained) -> int:
        """Bits that everybody received, on the air."""
        return round(self.parts.config.device.payload_scale * sum(report.downlink_bits for report in trained.everybody))

    def measure(
        self,
        trained: Trained,
        encoded: Uploads,
        delivered: Delivered,
        folded: Tensors | None,
        products: ProductSums | None,
        after: RunState,
    ) -> dict[str, float | None]:
        """What the rooms have measured of the round: codecs, then the step that was taken; None: no such number."""
        parts, server = self.parts, self.state.server
        stats = [encoded.sent[report.client].stats for report in trained.reports]
        found: dict[str, float | None] = {**coverage(after.totals.sent_counts), **mean_stats(stats)}
        if products is None or folded is None:
            return found
        mode = covariance_mode(parts.config.metrics.covariance, parts.info.space, trained.cohort)
        with self._blamed("method"):
            change = parts.method.change(server, folded)
        return found | covariance(parts.info.space, mode, parts.rng, server.theta, folded, change, products)

    def _blamed(self, kind: str) -> AbstractContextManager[None]:
        return blamed(kind, self.parts.config, self.tick)


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
