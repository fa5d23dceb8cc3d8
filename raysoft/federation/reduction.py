"""Weights of clients, and what packs hand back, put together in a fixed order.

Folded packs are joined one after the other in groups of GROUP, then the groups: floating-point sums depend on how they
are bracketed, so neither the number of actors nor who finishes first may decide it, only the cohort and the pack size.
Groups are joined where packs were folded; the coordinator receives one part a group, however many clients there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from raysoft.codecs.measure.coverage import sent_counts
from raysoft.errors import RaysoftError
from raysoft.federation.messages import FoldRequest, SentUpdate
from raysoft.kernels.lowrank import padded
from raysoft.types import Array, ClientReport, ClientState, Pack, ParamSpace, Participants, Tensors

GROUP = 32  # packs
T = TypeVar("T")


def survivors(
    quorum: float, tick: int, packs: Sequence[Pack], trained: Sequence[tuple[Any, Any]]
) -> tuple[list[Pack], list[tuple[Any, Any]]]:
    """Packs that were trained, and their results; a lost pack has None for a reply.

    Raises RaysoftError when fewer than `quorum` of the cohort, or none, are left.
    """
    left = [(pack, pair) for pack, pair in zip(packs, trained, strict=True) if pair[0] is not None]
    alive, cohort = _clients(pack for pack, _ in left), _clients(packs)
    if alive < max(quorum * cohort, 1):
        raise RaysoftError(
            f"round {tick}: {cohort - alive} of {cohort} clients were lost with their actors, "
            f"below actors.quorum={quorum:g}"
        )
    return [pack for pack, _ in left], [pair for _, pair in left]


def _clients(packs: Iterable[Pack]) -> int:
    return sum(len(pack.clients) for pack in packs)


def finite_reports(
    tick: int, replies: Iterable[Sequence[ClientReport]], lr: float, quorum: float = 0.0
) -> tuple[tuple[ClientReport, ...], tuple[ClientReport, ...]]:
    """All reports by client id, and those with a finite update.

    Raises RaysoftError when there is none, or when plug-ins failed on so many that fewer than `quorum` are left.
    """
    everybody = tuple(sorted((one for reply in replies for one in reply), key=lambda report: report.client))
    reports = tuple(report for report in everybody if report.finite)
    failures = [report.failed for report in everybody if report.failed]
    if failures and len(everybody) - len(failures) < max(quorum * len(everybody), 1):
        raise RaysoftError(
            f"round {tick}: {len(failures)} of {len(everybody)} clients failed, below actors.quorum={quorum:g}; "
            f"the first: {failures[0]}"
        )
    if not reports:
        raise RaysoftError(
            f"round {tick}: no client's update is finite; training diverged "
            f"(train.lr={lr:g} or method.server_lr may be too large)"
        )
    return everybody, reports


def client_weights(weighting: str, reports: Sequence[ClientReport]) -> Array:
    """p_k over the participants: proportional to samples, or equal; sums to one."""
    samples = np.array([report.samples for report in reports], dtype=float)
    return normalised(samples if weighting == "samples" else np.ones(len(reports)))


def normalised(weights_K: Array) -> Array:
    """Scaled to sum to one; all zeros stay zeros."""
    total = weights_K.sum()
    return weights_K / total if total > 0 else weights_K


def by_client(packs: Sequence[Pack], replies: Iterable[Sequence[SentUpdate]]) -> dict[int, SentUpdate]:
    """Encode replies by client id."""
    return {
        k: one for pack, reply in zip(packs, replies, strict=True) for k, one in zip(pack.clients, reply, strict=True)
    }


def arrived_components(who: Participants, sent: Mapping[int, SentUpdate], arrived_K: Array) -> Array | None:
    """Of how many clients each rank component arrived, int64 [N]; None where no codec says."""
    return sent_counts(sent[int(k)].stats for k, arrived in zip(who.clients_K, arrived_K, strict=True) if arrived)


def status_of(arrived_K: Array, sent_K: Sequence[SentUpdate], reason_K: Sequence[str]) -> tuple[str, ...]:
    """What became of each client's upload: "ok", or why it did not arrive."""
    return tuple(
        "ok" if arrived else "client_failed" if one.failed else "non_finite" if not one.finite else reason or "lost"
        for arrived, one, reason in zip(arrived_K, sent_K, reason_K, strict=True)
    )


def support_of(total: Tensors, space: ParamSpace, counts_N: Array | None) -> dict[str, Array]:
    """Where somebody sent something, bool by name; `counts_N` None: everywhere."""
    support = {name: np.ones(value.shape, dtype=bool) for name, value in total.items()}
    if counts_N is None:
        return support
    for pair, counts_R in zip(space.pairs, counts_N.reshape(len(space.pairs), space.rank), strict=True):
        if pair.b in support:
            support[pair.b] &= counts_R > 0
        if pair.a in support:
            support[pair.a] &= (counts_R > 0)[:, None]
    return support


def fold_requests(
    packs: Sequence[Pack], who: Participants, arrived_K: Array, mix_K: Array, cohort: int
) -> list[FoldRequest]:
    """One request a pack; its clients that are not among the participants are those that were rejected."""
    clients = who.clients_K.tolist()
    arrived = dict(zip(clients, arrived_K.tolist(), strict=True))
    mix = dict(zip(clients, mix_K.tolist(), strict=True))
    weight = dict(zip(clients, who.weights_K.tolist(), strict=True))
    return [
        FoldRequest(
            mix=tuple(mix.get(k, 0.0) for k in pack.clients),
            arrived=tuple(arrived.get(k, False) for k in pack.clients),
            rejected=tuple(k not in arrived for k in pack.clients),
            weights=tuple(weight.get(k, 0.0) for k in pack.clients),
            cohort=cohort,
        )
        for pack in packs
    ]


def merged_states(
    before: Mapping[int, ClientState], replies: Iterable[Mapping[int, ClientState]]
) -> dict[int, ClientState]:
    """Client states after the round, given the new ones pack by pack.

    Who has nothing to remember is left out, and built from its key when needed.
    """
    after = dict(before)
    for reply in replies:
        for client, state in reply.items():
            if state.remembers:
                after[client] = state
            else:
                after.pop(client, None)
    return after


def add_side(total: dict[str, Array], side: Tensors, space: ParamSpace) -> None:
    """Add what travelled beside one update, padded to r_max: values called like those of the model, after a slash."""
    for name, value in side.items():
        whole = padded(value.astype(np.float64), space.shapes.get(name.partition("/")[2], value.shape))
        total[name] = total[name] + whole if name in total else whole


def in_groups(packs: Sequence[T], size: int = GROUP) -> list[tuple[T, ...]]:
    """Neighbours in groups of `size`; the last may be smaller."""
    return [tuple(packs[i : i + size]) for i in range(0, len(packs), size)]
