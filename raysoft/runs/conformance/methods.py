"""What every method and extra promises: views that both ends can make, uploads of what was trained, pure steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from raysoft.federation.reduction import add_side
from raysoft.federation.seam import check_folded, check_part, check_server, check_upload, check_view
from raysoft.methods.base import Method
from raysoft.methods.building import build_method
from raysoft.methods.folds import Arrived
from raysoft.methods.ranks import as_sent, pad_to_rank
from raysoft.runs.conformance.subject import (
    LARGEST_RANK,
    Broken,
    Check,
    Subject,
    frozen,
    same,
    space_of,
    unchanged,
    values_of,
)
from raysoft.types import ClientReport, Curve, LocalJob, Outcome, Reception, ServerState, Tensors, Upload, View

CLIENTS, TICKS = (3, 11, 17), (1, 2, 3)
RANKS = (LARGEST_RANK, 2, LARGEST_RANK)
NOBODY = Outcome(np.zeros(3, bool), np.ones(3), np.zeros(3), ("outage",) * 3, 1.0)
EVERYBODY = replace(NOBODY, arrived_K=np.ones(3, bool), reason_K=("",) * 3)
REPORTS = tuple(
    ClientReport(client, 10, rank, 1.0, 1e8, 0, 0, Curve(0, np.array([0, 1]), np.array([1.0, 0.0])))
    for client, rank in zip(CLIENTS, RANKS, strict=True)
)
_CLOSE = 1e-9  # relative to the largest value: sums in another order differ in their last bits


def _method(subject: Subject) -> Method:
    """The method, with the extra where that is what is checked."""
    return build_method(subject.config, space_of(), 100)


def _server() -> ServerState:
    """A model in mid-training: B is not zero."""
    return ServerState(values_of(space_of(), LARGEST_RANK, 1))


def _uploads(method: Method, server: ServerState, tick: int) -> Iterator[tuple[View, LocalJob, Tensors, Upload]]:
    down = method.broadcast(server, tick)
    for client, rank in zip(CLIENTS, RANKS, strict=True):
        view = method.view(down, client, rank, tick, {})
        job = method.local(view, {}, 3)
        moved = values_of(space_of(), rank, client, 0.01)
        trains = view.trains if job.trains is None else job.trains
        end = {name: value + moved[name] if name in trains else value for name, value in view.start.items()}
        yield view, job, end, method.upload(view, job, end, {})


def views_are_views(subject: Subject) -> None:
    """a view is of its client, holds the values of its rank, and is the same on both ends"""
    method, server = _method(subject), _server()
    for tick in TICKS:
        down = method.broadcast(server, tick)
        for client, rank in zip(CLIENTS, RANKS, strict=True):
            view, again = (one.view(down, client, rank, tick, {}) for one in (method, _method(subject)))
            check_view(subject.config, tick, client, view)
            shapes = space_of().shapes_at(rank)
            for name, value in view.start.items():
                if name not in shapes or np.shape(value) != shapes[name] or value.dtype != np.float32:
                    raise Broken(
                        f"round {tick}, rank {rank}: starts {name} as {value.dtype} of shape {np.shape(value)}"
                    )
            if not same(view, again):
                raise Broken(f"round {tick}, client {client}: gives another view the second time")
            if view.downlink.total < 0:
                raise Broken(f"round {tick}: a downlink of {view.downlink.total} bits")


def uploads_are_uploads(subject: Subject) -> None:
    """an upload holds what was trained, in its shapes, as float32"""
    method, server = _method(subject), _server()
    for tick in TICKS:
        for view, job, _, upload in _uploads(method, server, tick):
            if job.steps < 1 or (job.trains is not None and not job.trains <= set(view.start)):
                raise Broken(f"round {tick}: a job of {job.steps} steps that trains what is not in its start")
            check_upload(subject.config, view, upload, space_of())
            for name, value in {**upload.update, **upload.side}.items():
                if np.asarray(value).dtype != np.float32:
                    raise Broken(f"round {tick}: uploads {name} as {np.asarray(value).dtype}, values are float32")


def steps_are_pure(subject: Subject) -> None:
    """pure: the same twice, from another instance too; what it is given stays as it is"""
    server = _server()
    before = frozen(server.theta)
    found = []
    for method in (one := _method(subject), one, _method(subject)):
        uploads = []
        for view, _job, end, upload in _uploads(method, server, 1):
            starts, ends = frozen(view.start), frozen(end)
            again = method.upload(view, method.local(view, {}, 3), end, {})
            unchanged("start", starts, view.start)
            unchanged("trained values", ends, end)
            if not same((upload.update, upload.side), (again.update, again.side)):
                raise Broken(f"client {view.client}: gives another upload the second time")
            uploads.append((view, upload))
        found.append(_next(subject, method, server, uploads))
        unchanged("global model", before, server.theta)
    if not (same(found[0], found[1]) and same(found[0], found[2])):
        raise Broken("gives another global model the second time")


def nobody_arrived(subject: Subject) -> None:
    """where nobody arrived the server stays as it is"""
    method, server = _method(subject), _server()
    after = method.aggregate(server, Reception(NOBODY, REPORTS), 1)
    check_server(subject.config, 1, server, after)
    if not (same(after.theta, server.theta) and same(after.base, server.base)):
        raise Broken("changes the global model although nobody arrived")


def aggregates_what_arrived(subject: Subject) -> None:
    """the next global model is finite, has the names and shapes of the one before, and can be evaluated"""
    method, server = _method(subject), _server()
    for tick in TICKS:
        uploads = [(view, upload) for view, _, _, upload in _uploads(method, server, tick)]
        server = _next(subject, method, server, uploads, tick)
        model = method.model(server)
        shapes = {name: np.shape(value) for name, value in model.theta.items()}
        if shapes != dict(space_of().shapes):
            raise Broken(f"round {tick}: its model has other names or shapes than what is trained")


def clients_may_be_permuted(subject: Subject) -> None:
    """the order of the clients, and how they are cut into packs, is nothing but rounding"""
    method, server = _method(subject), _server()
    uploads = [(view, upload) for view, _, _, upload in _uploads(method, server, 1)]
    first = _next(subject, method, server, uploads)
    for order, packs in (([2, 0, 1], 1), ([1, 2, 0], 3), ([0, 1, 2], 2)):
        after = _next(subject, method, server, [uploads[k] for k in order], packs=packs)
        for name, value in after.theta.items():
            scale = max(float(np.abs(first.theta[name]).max()), 1e-30)
            apart = float(np.abs(value.astype(float) - first.theta[name]).max()) / scale
            if apart > _CLOSE + 2.0**-22:
                raise Broken(f"{name} differs by {apart:.2g} of its size where clients come in another order or packs")


def _next(
    subject: Subject,
    method: Method,
    server: ServerState,
    uploads: Sequence[tuple[View, Upload]],
    tick: int = 1,
    packs: int = 1,
) -> ServerState:
    """The server after all of them arrived, each with the weight of its client, in so many packs."""
    space, weights = space_of(), dict(zip(CLIENTS, (0.5, 0.3, 0.2), strict=True))
    down = method.broadcast(server, tick)
    arrived = [
        Arrived(pad_to_rank(upload.update, space), weights[view.client], down.common, as_sent(view, upload, space).rank)
        for view, upload in uploads
    ]
    cuts = np.array_split(np.arange(len(arrived)), packs)
    parts = [method.fold.part([arrived[k] for k in cut]) for cut in cuts if len(cut)]
    total: Any = parts[0]
    check_part(subject.config, tick, total, 1)
    for part in parts[1:]:
        total = method.fold.join(total, part)
    folded = check_folded(subject.config, tick, method.fold.finish(total), space)
    side: dict[str, np.ndarray] = {}
    for _, upload in uploads:
        add_side(side, upload.side, space)
    has_NK = np.tile(np.arange(space.rank), len(space.pairs))[:, None] < np.array(RANKS)
    reception = Reception(EVERYBODY, REPORTS, folded, side, has_NK.sum(axis=1), np.array(list(weights.values())))
    after = method.aggregate(server, reception, tick)
    check_server(subject.config, tick, server, after)
    return after


CHECKS: tuple[Check, ...] = (
    views_are_views,
    uploads_are_uploads,
    aggregates_what_arrived,
    nobody_arrived,
    clients_may_be_permuted,
    steps_are_pure,
)
