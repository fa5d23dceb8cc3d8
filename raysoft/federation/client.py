"""The client's side of a run as pure stages, from `train` to `evaluate`. Both executors call these functions.

Each stage takes a small request (and the handles of stages before) and returns a small reply and a large handle that
stays where it was made. A stage may run twice, on any process, with the same result.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from raysoft.codecs.base import Codec, Encoded
from raysoft.codecs.measure.report import quantize_curve
from raysoft.config import RunConfig, registry
from raysoft.errors import PlugInError, RaysoftError
from raysoft.federation.diagnostics import ProductSums, covariance_mode, product_sums
from raysoft.federation.messages import (
    NO_CURVE,
    SILENT,
    EncodedPack,
    EncodeRequest,
    EvaluateClientsRequest,
    EvaluateRequest,
    FoldRequest,
    PackFold,
    SentUpdate,
    TrainedPack,
    TrainRequest,
)
from raysoft.federation.reduction import add_side
from raysoft.federation.sampling import client_rank, client_sample, local_steps, pack_batches
from raysoft.federation.seam import (
    LARGEST,
    blamed,
    check_curve,
    check_encoded,
    check_part,
    check_size,
    check_upload,
    check_view,
    is_sound,
    norm_of,
)
from raysoft.federation.stage_errors import ended_by_plug_in, explained
from raysoft.federation.workload import Workload
from raysoft.methods.base import Method
from raysoft.methods.building import build_method
from raysoft.methods.folds import Arrived, Fold
from raysoft.methods.ranks import as_sent, pad_to_rank
from raysoft.models.trainers.base import Trainer
from raysoft.models.trainers.choice import trainer_for
from raysoft.rng import Rng
from raysoft.types import Array, Broadcast, ClientReport, ClientState, LocalJob, Tensors, Update, Upload, View

STAGES = ("train", "encode", "fold", "join", "evaluate", "evaluate_clients", "confusion")


class Worker:
    """Executes stages on one process; owns the torch model, nothing else that changes."""

    def __init__(self, config: RunConfig, workload: Workload) -> None:
        self.config = config
        self.workload = workload
        self.rng = Rng(config.seed)
        self.method: Method = build_method(config, workload.space, workload.partition.clients)
        self.codec: Codec = registry.build("codec", config.codec, workload.space)

    @cached_property
    def trainer(self) -> Trainer:
        """What trains the blocks of this run; torch is imported here, on the process that trains."""
        config, workload = self.config, self.workload
        return trainer_for(workload.base, workload.space, config.train.device, config.actors.threads)

    def build(self) -> None:
        """Build the model now instead of in the first stage."""
        trainer = self.trainer
        if registry.traits("method", self.config.method).base_drift:
            trainer.check_rebase()

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
        views = [self._view(down, pack.tick, *one) for one in zip(pack.clients, states, strict=True)]
        failed: dict[int, str] = {}
        jobs = {}
        for k, client in enumerate(pack.clients):
            with self._leaving_out(client, failed), blamed("method", self.config, pack.tick, client):
                jobs[client] = self.method.local(views[k], states[k].method, steps[k])
        clients = tuple(jobs)
        counts = [steps[k] for k, client in enumerate(pack.clients) if client in jobs]
        shards = {client: self.workload.partition.indices(client) for client in clients}
        data = self.workload.data.train
        batches = pack_batches(self.rng, data, shards, clients, pack.tick, counts, train.batch_size) if jobs else ()
        self.trainer.rebase(down.base)
        trained = self.trainer.train(list(jobs.values()), batches, train) if jobs else ()
        results = dict(zip(clients, trained, strict=True))
        samples_K = sum(batch.mask_KB.sum(axis=1) for batch in batches)
        samples = {client: float(samples_K[k]) for k, client in enumerate(clients)}
        reports, uploads = [], []
        for k, client in enumerate(pack.clients):
            view, state = views[k], states[k]
            report = ClientReport(
                client=client,
                samples=self.workload.partition.size(client),
                rank=view.rank,
                loss=float(results[client].loss) if client in results else math.nan,
                cycles=samples.get(client, 0.0) * self.config.device.cycles_per_sample,
                downlink_bits=view.downlink.total if client in jobs else 0,
                dense_bits=view.dense_bits if client in jobs else 0,
                curve=NO_CURVE,
                finite=False,
            )
            upload = _nothing(view, state)
            if client in results:
                with self._leaving_out(client, failed):
                    report, upload = self._wanted(report, view, jobs[client], results[client].end, state)
                    report = self._with_menu(report, view, upload, state)
            if client in failed:
                report = replace(report, finite=False, failed=failed[client])
                upload = _nothing(view, state, upload.memory_if_rejected)
            reports.append(report)
            uploads.append(upload)
        ranks = tuple(as_sent(*one, self.workload.space).rank for one in zip(views, uploads, strict=True))
        return tuple(reports), TrainedPack(pack, tuple(uploads), ranks, tuple(states))

    def _wanted(
        self, report: ClientReport, view: View, job: LocalJob, end: Tensors, state: ClientState
    ) -> tuple[ClientReport, Upload]:
        """What the client wants to send, and its report with the norm of that."""
        with blamed("method", self.config, view.tick, view.client):
            upload = self.method.upload(view, job, end, state.method)
            check_upload(self.config, view, upload, self.workload.space)
        norm = norm_of(upload.update)
        finite = norm <= LARGEST and all(map(is_sound, upload.side.values()))  # not for nan
        if not finite:  # nothing of it may reach a codec or be remembered; the coordinator rejects the client
            upload = _nothing(view, state, upload.memory_if_rejected)
        sent = as_sent(view, upload, self.workload.space)
        return replace(report, rank=sent.rank, finite=finite, update_norm=norm), upload

    def _with_menu(self, report: ClientReport, view: View, upload: Upload, state: ClientState) -> ClientReport:
        """The report with the curve of what may be sent."""
        with blamed("codec", self.config, view.tick, view.client):
            menu = self.codec.menu(upload.update, as_sent(view, upload, self.workload.space), state.codec)
            check_curve(self.config, view.tick, view.client, menu)
        menu = replace(menu, fixed_bits=menu.fixed_bits + upload.side_bits)
        return replace(report, curve=quantize_curve(menu))

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
        decoded: list[Update | None] = []
        delivered: list[Tensors] = []
        lost: list[Tensors] = []
        failed: dict[int, str] = {}
        for client, upload, state, units in zip(
            pack.clients, trained.uploads, trained.states, request.units, strict=True
        ):
            # Silent or failed: nothing sent, codec memory kept.
            one, received, if_delivered, if_lost = SILENT, None, state.codec, state.codec
            if units is not None:
                with self._leaving_out(client, failed):
                    view = as_sent(self._view(down, pack.tick, client, state), upload, self.workload.space)
                    encoded = self._encoded(view, upload.update, state, units)
                    received, finite = encoded.received, norm_of(encoded.received) <= LARGEST
                    bits = encoded.payload.num_bits + upload.side_bits
                    one = SentUpdate(bits, finite, float(encoded.relative_error), encoded.stats)
                    if_delivered, if_lost = encoded.memory_if_delivered, encoded.memory_if_lost
            sent.append(replace(one, finite=False, failed=failed[client]) if client in failed else one)
            decoded.append(received)
            delivered.append(if_delivered)
            lost.append(if_lost)
        return tuple(sent), EncodedPack(tuple(decoded), tuple(delivered), tuple(lost))

    def _encoded(self, view: View, update: Update, state: ClientState, units: int) -> Encoded:
        """The payload, and what the server reads of it."""
        with blamed("codec", self.config, view.tick, view.client):
            draw = self.rng("codec", view.tick, view.client)
            encoded = self.codec.encode(update, view, state.codec, units, draw)
            space = self.workload.space
            check_encoded(self.config, view, encoded, self.codec, units, len(space.pairs) * space.rank)
        if norm_of(encoded.received) <= LARGEST:
            check_size(self.config, view, encoded.received, update, state.codec)
        return encoded

    def fold(
        self, down: Broadcast, request: FoldRequest, trained: TrainedPack, encoded: EncodedPack
    ) -> tuple[dict[int, ClientState], PackFold]:
        """Fold what arrived, in float64 and in client-id order; every client's next state."""
        pack, space = trained.pack, self.workload.space
        received: list[Update] = [
            {} if update is None or mix == 0.0 else pad_to_rank(update, space)
            for update, mix in zip(encoded.decoded, request.mix, strict=True)
        ]
        states, arrived = {}, []
        side: dict[str, Array] = {}
        for k, (client, state, upload) in enumerate(zip(pack.clients, trained.states, trained.uploads, strict=True)):
            if request.arrived[k]:
                states[client] = replace(state, method=upload.memory_if_delivered, codec=encoded.if_delivered[k])
            elif request.rejected[k]:
                kept = upload.memory_if_rejected
                states[client] = state if kept is None else replace(state, method=kept)
            else:
                states[client] = replace(state, method=upload.memory_if_lost, codec=encoded.if_lost[k])
            if received[k]:
                arrived.append(Arrived(received[k], request.mix[k], down.common, trained.ranks[k]))
            if request.arrived[k]:
                add_side(side, upload.side, space)
        with blamed("method", self.config, pack.tick):
            folded = self.method.fold.part(arrived)
            check_part(self.config, pack.tick, folded, len(arrived))
        return states, PackFold(folded, side, self._products(down, request, trained, received))

    def join(self, down: Broadcast, tick: int, *packs: PackFold) -> tuple[PackFold, None]:
        """Neighbouring packs as one."""
        with blamed("method", self.config, tick):
            return joined(self.method.fold, packs), None

    def _products(
        self, down: Broadcast, request: FoldRequest, trained: TrainedPack, received: Sequence[Update]
    ) -> ProductSums | None:
        mode = covariance_mode(self.config.metrics.covariance, self.workload.space, request.cohort)
        if mode == "off":
            return None
        ideal = [pad_to_rank(upload.update, self.workload.space) for upload in trained.uploads]
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
        self.trainer.rebase(down.base)
        return self.trainer.evaluate(down.common, shard, self.config.eval.batch_size), None

    def evaluate_clients(self, down: Broadcast, request: EvaluateClientsRequest) -> tuple[Array, None]:
        """Additive counts of each client on its own samples, float64 [K, 3]: count, correct, loss_sum.

        The samples of all clients are evaluated in one pass, then summed client by client.
        """
        limit, partition = self.config.metrics.client_samples, self.workload.partition
        drawn = [client_sample(self.rng, k, partition.indices(k), limit) for k in request.clients]
        samples = self.workload.data.train.take(np.concatenate(drawn)).trim()
        self.trainer.rebase(down.base)
        counts_N3 = self.trainer.evaluate_samples(down.common, samples, self.config.eval.batch_size)
        edges = np.cumsum([len(index) for index in drawn])[:-1]
        return np.array([part.sum(axis=0) for part in np.split(counts_N3, edges)]), None

    def confusion(self, down: Broadcast, request: EvaluateRequest) -> tuple[Array, None]:
        """How a fixed shard of the evaluation split is classified: counts [C, C] by true and by predicted class."""
        split = getattr(self.workload.data, self.config.eval.split)
        shard = split.take(np.arange(request.start, request.stop)).trim()
        self.trainer.rebase(down.base)
        predicted_N = self.trainer.predict(down.common, shard, self.config.eval.batch_size)
        classes = len(self.workload.data.label_names)
        found = np.zeros((classes, classes), dtype=np.int64)
        np.add.at(found, (shard.labels, predicted_N), 1)
        return found, None

    def _view(self, down: Broadcast, tick: int, client: int, state: ClientState) -> View:
        with blamed("method", self.config, tick, client):
            view = self.method.view(down, client, state.rank, tick, state.method)
            check_view(self.config, tick, client, view)
        return view


def joined(fold: Fold, parts: Iterable[PackFold]) -> PackFold:
    """From the first to the last."""
    total: Tensors = {}
    side: dict[str, Array] = {}
    products: ProductSums | None = None
    for part in parts:
        total = fold.join(total, part.folded) if total and part.folded else total or part.folded
        for name, value in part.side.items():
            side[name] = side[name] + value if name in side else value
        if part.products is not None:
            products = part.products if products is None else products + part.products
    return PackFold(total, side, products)


def _nothing(view: View, state: ClientState, received: Tensors | None = None) -> Upload:
    """No change, and nothing to remember but what the client `received`."""
    zeros = {name: np.zeros_like(view.start[name]) for name in view.start if name in view.trains}
    return Upload(zeros, memory_if_delivered=state.method, memory_if_lost=state.method, memory_if_rejected=received)


def _where(stage: str, request: Any, handles: Sequence[Any]) -> str:
    pack = next((one.pack for one in (request, *handles) if hasattr(one, "pack")), None)
    return f"{stage} of {pack}" if pack else stage
