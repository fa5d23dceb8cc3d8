"""The client's side of a run as pure stages, from `train` to `evaluate`. Both executors call these functions.

Each stage takes a small request (and the handles of stages before) and returns a small reply and a large handle that
stays where it was made. A stage may run twice, on any process, with the same result.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from raysoft.codecs.base import Codec, Encoded
from raysoft.codecs.measure.report import quantize_curve
from raysoft.codecs.memory.fading import LOTTERY
from raysoft.config import RunConfig, registry
from raysoft.errors import PlugInError, RaysoftError
from raysoft.federation.diagnostics import ProductSums, covariance_mode, product_sums
from raysoft.federation.pack_sums import PackSum, folded, weighted_sum
from raysoft.federation.sampling import client_rank, client_sample, local_steps, pack_batches
from raysoft.federation.seam import LARGEST, blamed, check_contribution, check_curve, check_decoded, check_size, norm_of
from raysoft.federation.stage_errors import ended_by_plug_in, explained
from raysoft.federation.workload import Workload
from raysoft.methods.base import Method, cut_to_rank
from raysoft.rng import Rng
from raysoft.types import Array, Broadcast, ClientReport, ClientState, Curve, Pack, Tensors, Update

STAGES = ("train", "encode", "sum", "combine", "evaluate", "evaluate_clients")


@dataclass(frozen=True)
class TrainRequest:
    """Train the clients of a pack from a broadcast. `states` holds only clients that remember something."""

    pack: Pack
    states: Mapping[int, ClientState]


@dataclass(frozen=True)
class TrainedPack:
    """Handle of `train`: the updates of a pack, before compression, and who made them."""

    pack: Pack
    updates: tuple[Update, ...]
    states: tuple[ClientState, ...]


@dataclass(frozen=True)
class EncodeRequest:
    """How many units each client of the pack may send; None: told not to send."""

    units: tuple[int | None, ...]


@dataclass(frozen=True)
class SentUpdate:
    """What the coordinator learns of one encoded update: bits (0 where silent), is it finite, measurements."""

    num_bits: int
    finite: bool
    relative_error: float
    stats: Mapping[str, Array]
    failed: str = ""  # what its codec raised, where that leaves the client out


SILENT = SentUpdate(num_bits=0, finite=True, relative_error=1.0, stats={})
NO_CURVE = Curve(0, np.zeros(1, dtype=np.int64), np.zeros(1))


@dataclass(frozen=True)
class EncodedPack:
    """Handle of `encode`: the server's view of each payload (None: silent), and what each client remembers if its
    payload is delivered, or lost."""

    decoded: tuple[Update | None, ...]
    if_delivered: tuple[Tensors, ...]
    if_lost: tuple[Tensors, ...]


@dataclass(frozen=True)
class SumRequest:
    """mix: factor of each update in the sum (0: lost); weights: its factor had everybody sent everything.

    `cohort` is the size of the whole cohort, of which this pack is a part.
    """

    mix: tuple[float, ...]
    arrived: tuple[bool, ...]
    weights: tuple[float, ...]
    cohort: int


@dataclass(frozen=True)
class EvaluateRequest:
    """Evaluate the broadcast model on items start..stop of the evaluation split."""

    start: int
    stop: int


@dataclass(frozen=True)
class EvaluateClientsRequest:
    """Evaluate the broadcast model on some of the training samples of each of these clients."""

    clients: tuple[int, ...]


class Worker:
    """Executes stages on one process; owns the torch model, nothing else that changes."""

    def __init__(self, config: RunConfig, workload: Workload) -> None:
        self.config = config
        self.workload = workload
        self.rng = Rng(config.seed)
        self.method: Method = registry.build("method", config.method, workload.space)
        self.codec: Codec = registry.build("codec", config.codec, workload.space)

    @cached_property
    def trainer(self) -> Any:
        """The packed trainer; torch is imported here, on the process that trains."""
        from raysoft.models.trainers.packed_lora import PackedTrainer

        return PackedTrainer(
            self.workload.base, self.workload.space, self.config.train.device, self.config.actors.threads
        )

    def build(self) -> None:
        """Build the model now instead of in the first stage."""
        _ = self.trainer

    def verify(self) -> None:
        """Raise RaysoftError if the base weights are not what they were when they were loaded."""
        from raysoft.models.base import verify

        verify(self.workload.base)

    def run(self, stage: str, down: Broadcast, request: Any, *handles: Any) -> tuple[Any, Any]:
        """Run a stage by name; an unexpected error names the stage, the round and the clients."""
        try:
            answer: tuple[Any, Any] = getattr(self, stage)(down, request, *handles)
            return answer
        except RaysoftError:
            raise
        except SystemExit as error:
            raise ended_by_plug_in(_where(stage, request, handles), error) from error
        except Exception as error:
            raise explained(error, _where(stage, request, handles), stage, self.config) from error

    def client_state(self, client: int, states: Mapping[int, ClientState]) -> ClientState:
        """The client's state, or the default one built from the key."""
        return states.get(client) or ClientState(client_rank(self.rng, self.config.model.lora.ranks(), client))

    def train(self, down: Broadcast, request: TrainRequest) -> tuple[tuple[ClientReport, ...], TrainedPack]:
        """Local training of a pack in one pass, and each client's report with its rate-distortion curve."""
        pack, train = request.pack, self.config.train
        states = [self.client_state(client, request.states) for client in pack.clients]
        steps = [local_steps(self.rng, train.steps, client) for client in pack.clients]
        starts = [self._start(down, state.rank) for state in states]
        failed: dict[int, str] = {}
        jobs = {}
        for k, client in enumerate(pack.clients):
            with self._leaving_out(client, failed), blamed("method", self.config, pack.tick, client):
                jobs[client] = self.method.local(starts[k], states[k], steps[k], pack.tick)
        clients = tuple(jobs)
        counts = [steps[k] for k, client in enumerate(pack.clients) if client in jobs]
        shards = {client: self.workload.partition.indices(client) for client in clients}
        data = self.workload.data.train
        batches = pack_batches(self.rng, data, shards, clients, pack.tick, counts, train.batch_size) if jobs else ()
        trained = self.trainer.train(list(jobs.values()), batches, train) if jobs else ()
        results = dict(zip(clients, trained, strict=True))
        samples_K = sum(batch.mask_KB.sum(axis=1) for batch in batches)
        samples = {client: float(samples_K[k]) for k, client in enumerate(clients)}
        reports, updates, new_states = [], [], []
        for k, client in enumerate(pack.clients):
            start, state = starts[k], states[k]
            report = ClientReport(
                client=client,
                version=down.version,
                samples=self.workload.partition.size(client),
                rank=state.rank,
                loss=float(results[client].loss) if client in results else math.nan,
                cycles=samples.get(client, 0.0) * self.config.device.cycles_per_sample,
                downlink_bits=jobs[client].downlink_bits if client in jobs else 0,
                curve=NO_CURVE,
                finite=False,
                order_bits=jobs[client].order_bits if client in jobs else 0,
            )
            update: Update = {name: np.zeros_like(value) for name, value in start.items()}
            if client in results:
                with self._leaving_out(client, failed):
                    report, update, state = self._report(down, pack.tick, report, start, results[client].end, state)
            reports.append(replace(report, failed=failed.get(client, "")))
            updates.append(update)
            new_states.append(state)
        return tuple(reports), TrainedPack(pack, tuple(updates), tuple(new_states))

    def _report(
        self, down: Broadcast, tick: int, report: ClientReport, start: Tensors, end: Tensors, state: ClientState
    ) -> tuple[ClientReport, Update, ClientState]:
        """The client's update, its report completed by norm and curve, and its next state."""
        client, before = report.client, state
        with blamed("method", self.config, tick, client):
            update, state = self.method.upload(start, end, before)
            norm = norm_of(update)
        finite = norm <= LARGEST  # not for nan
        if not finite:  # nothing of it may reach a codec or be remembered; the coordinator rejects the client
            update = {name: np.zeros_like(value) for name, value in update.items()}
            state = before
        with blamed("codec", self.config, tick, client):
            menu = self.codec.menu(update, start, self._memory(state, tick, client), down.order)
            check_curve(self.config, tick, client, menu)
        return replace(report, finite=finite, update_norm=norm, curve=quantize_curve(menu)), update, state

    @contextmanager
    def _leaving_out(self, client: int, failed: dict[int, str]) -> Iterator[None]:
        """Where the settings say so, a client whose plug-ins raise is left out of the round instead of ending it."""
        try:
            yield
        except PlugInError as error:
            if self.config.actors.on_failure != "drop_client":
                raise
            failed[client] = str(error)

    def encode(
        self, down: Broadcast, request: EncodeRequest, trained: TrainedPack
    ) -> tuple[tuple[SentUpdate, ...], EncodedPack]:
        """Serialise what each client may send, and read it as the server will; bits are counted on the payload."""
        pack = trained.pack
        sent: list[SentUpdate] = []
        views: list[Update | None] = []
        delivered: list[Tensors] = []
        lost: list[Tensors] = []
        failed: dict[int, str] = {}
        for client, update, state, units in zip(
            pack.clients, trained.updates, trained.states, request.units, strict=True
        ):
            # Silent or failed: nothing sent, codec memory kept.
            one, view, if_delivered, if_lost = SILENT, None, state.codec, state.codec
            if units is not None:
                with self._leaving_out(client, failed):
                    encoded, view = self._encoded(down, pack.tick, client, update, state, units)
                    finite = norm_of(view) <= LARGEST
                    one = SentUpdate(encoded.payload.num_bits, finite, float(encoded.relative_error), encoded.stats)
                    if_delivered, if_lost = encoded.memory_if_delivered, encoded.memory_if_lost
            sent.append(replace(one, finite=False, failed=failed[client]) if client in failed else one)
            views.append(view)
            delivered.append(if_delivered)
            lost.append(if_lost)
        return tuple(sent), EncodedPack(tuple(views), tuple(delivered), tuple(lost))

    def _encoded(
        self, down: Broadcast, tick: int, client: int, update: Update, state: ClientState, units: int
    ) -> tuple[Encoded, Update]:
        """The payload, and what the server reads of it."""
        start, memory = self._start(down, state.rank), self._memory(state, tick, client)
        with blamed("codec", self.config, tick, client):
            draw = self.rng("codec", tick, client)
            encoded = self.codec.encode(update, start, memory, units, down.order, draw)
            decoded = self.codec.decode(encoded.payload, start, units, down.order)
            check_decoded(self.config, tick, client, decoded, update, start, encoded.payload.num_bits)
        if norm_of(decoded) <= LARGEST:
            check_size(self.config, tick, client, decoded, update, start, memory)
        return encoded, decoded

    def sum(
        self, down: Broadcast, request: SumRequest, trained: TrainedPack, encoded: EncodedPack
    ) -> tuple[dict[int, ClientState], PackSum]:
        """Contribute what arrived and add it up, in float64 and in client-id order; every client's next state."""
        received: list[Update] = [
            {} if view is None or mix == 0.0 else self._contribution(trained.pack.tick, client, view)
            for client, view, mix in zip(trained.pack.clients, encoded.decoded, request.mix, strict=True)
        ]
        memories = [
            delivered if arrived else lost
            for delivered, lost, arrived in zip(encoded.if_delivered, encoded.if_lost, request.arrived, strict=True)
        ]
        states = {
            client: replace(state, codec=memory)
            for client, state, memory in zip(trained.pack.clients, trained.states, memories, strict=True)
        }
        products = self._products(down, request, trained, received)
        return states, PackSum(weighted_sum(received, request.mix), products)

    def _contribution(self, tick: int, client: int, view: Update) -> Update:
        with blamed("method", self.config, tick, client):
            added = self.method.contribute(view)
            return dict(check_contribution(self.config, tick, client, added, self.workload.space))

    def combine(self, down: Broadcast, request: None, *packs: PackSum) -> tuple[PackSum, None]:
        """The sums of neighbouring packs as one."""
        return folded(packs), None

    def _products(
        self, down: Broadcast, request: SumRequest, trained: TrainedPack, received: Sequence[Update]
    ) -> ProductSums | None:
        mode = covariance_mode(self.config.metrics.covariance, self.workload.space, request.cohort)
        if mode == "off":
            return None
        ideal = [self.method.contribute(update) for update in trained.updates]
        return product_sums(
            self.workload.space,
            mode,
            self.rng,
            start=down.common,
            received=received,
            trained=ideal,
            mix=request.mix,
            weights=request.weights,
        )

    def evaluate(self, down: Broadcast, request: EvaluateRequest) -> tuple[dict[str, float], None]:
        """Additive counts on a fixed shard of the evaluation split."""
        split = getattr(self.workload.data, self.config.eval.split)
        shard = split.take(np.arange(request.start, request.stop)).trim()
        return self.trainer.evaluate(down.common, shard, self.config.eval.batch_size), None

    def evaluate_clients(self, down: Broadcast, request: EvaluateClientsRequest) -> tuple[Array, None]:
        """Additive counts of each client on its own samples, float64 [K, 3]: count, correct, loss_sum.

        The samples of all clients are evaluated in one pass, then summed client by client.
        """
        limit, partition = self.config.metrics.client_samples, self.workload.partition
        drawn = [client_sample(self.rng, k, partition.indices(k), limit) for k in request.clients]
        samples = self.workload.data.train.take(np.concatenate(drawn)).trim()
        counts_N3 = self.trainer.evaluate_samples(down.common, samples, self.config.eval.batch_size)
        edges = np.cumsum([len(index) for index in drawn])[:-1]
        return np.array([part.sum(axis=0) for part in np.split(counts_N3, edges)]), None

    def _memory(self, state: ClientState, tick: int, client: int) -> Tensors:
        """What the codec is given: its memory, and one seed for menu and encode where it draws."""
        if not getattr(self.codec, "draws", False):
            return state.codec
        return {**state.codec, LOTTERY: np.array(self.rng("codec_choice", tick, client).integers(2**63))}

    def _start(self, down: Broadcast, rank: int) -> dict[str, Array]:
        return cut_to_rank(down.common, self.workload.space, rank)


def _where(stage: str, request: Any, handles: Sequence[Any]) -> str:
    pack = next((one.pack for one in (request, *handles) if hasattr(one, "pack")), None)
    return f"{stage} of {pack}" if pack else stage
