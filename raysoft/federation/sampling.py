"""Keyed choices of a round: cohorts, packs, local steps and batches. None depends on method, rank or simulated time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from raysoft.config import StepsRange
from raysoft.data.base import Examples, Partition, StepBatch
from raysoft.rng import Rng
from raysoft.types import Array, Pack

CLIENT_LIMIT = 1000  # of a larger population a keyed sample is evaluated after the last round


def cohort_candidates(rng: Rng, tick: int, population: int, size: int) -> Array:
    """A uniform sample of client ids without replacement, sorted; keyed by (seed, round)."""
    size = min(size, population)
    return np.sort(rng("cohort", tick).choice(population, size=size, replace=False, shuffle=False))


def evaluated_clients(seed: int, partition: Partition) -> Array:
    """Who is evaluated after the last round: all clients, or a keyed sample of CLIENT_LIMIT, by id."""
    if partition.clients <= CLIENT_LIMIT:
        return np.arange(partition.clients)
    draw = Rng(seed)("evaluated_clients").choice(partition.clients, size=CLIENT_LIMIT, replace=False, shuffle=False)
    return np.sort(draw)


def make_packs(
    tick: int, clients_K: Array, widths: Mapping[int, int], pack_size: int, even: bool = False
) -> list[Pack]:
    """Chunks of the cohort sorted by (padded length, id): a function of cohort and pack_size alone.

    `even`: as many packs, of nearly equal sizes (10 in packs of 3: 3, 3, 2, 2 instead of 3, 3, 3, 1), so that no core
    waits for a full pack while another has had a single client.
    """
    order = sorted((int(client) for client in clients_K), key=lambda client: (widths.get(client, 0), client))
    count = math.ceil(len(order) / pack_size)
    size, larger = divmod(len(order), count) if even and count else (pack_size, 0)
    cuts = [n * size + min(n, larger) for n in range(count)]
    chunks = [order[a:b] for a, b in zip(cuts, [*cuts[1:], len(order)], strict=True)] if count else []
    return [Pack(tick=tick, clients=tuple(sorted(chunk))) for chunk in chunks]


def local_steps(rng: Rng, steps: int | StepsRange, client: int) -> int:
    """Number of local steps of one client."""
    return int(steps_of(rng, steps, np.array([client]))[0])


def steps_of(rng: Rng, steps: int | StepsRange, clients_K: Array) -> Array:
    """Number of local steps of each client, [K]."""
    if isinstance(steps, int):
        return np.full(len(clients_K), steps)
    span = steps.high - steps.low + 1
    draw_K = rng.uniform("local_steps", clients_K)[:, 0]
    return steps.low + np.minimum((draw_K * span).astype(np.int64), span - 1)


def client_rank(rng: Rng, rank: int | Mapping[str, int], client: int) -> int:
    """The client's LoRA rank: one for all, or that of the tier it is drawn into (tiers are equally likely)."""
    return int(ranks_of(rng, rank, np.array([client]))[0])


def ranks_of(rng: Rng, rank: int | Mapping[str, int], clients_K: Array) -> Array:
    """The rank of each client, [K]."""
    if isinstance(rank, int):
        return np.full(len(clients_K), rank)
    tiers = np.array([rank[name] for name in sorted(rank)])
    draw_K = rng.uniform("rank_tier", clients_K)[:, 0]
    return tiers[np.minimum((draw_K * len(tiers)).astype(np.int64), len(tiers) - 1)]


def batch_indices(rng: Rng, client: int, tick: int, step: int, shard_N: Array, batch_size: int) -> Array:
    """Positions of one local batch: min(batch_size, N) of the client's samples without replacement."""
    if len(shard_N) <= batch_size:
        return shard_N
    return shard_N[rng("batch", client, tick, step).choice(len(shard_N), size=batch_size, replace=False)]


def client_sample(rng: Rng, client: int, shard_N: Array, limit: int) -> Array:
    """Up to `limit` of the client's samples, drawn without replacement and in the order of its shard."""
    if len(shard_N) <= limit:
        return shard_N
    return shard_N[np.sort(rng("client_sample", client).choice(len(shard_N), size=limit, replace=False))]


def pack_batches(
    rng: Rng,
    train: Examples,
    shards: Mapping[int, Array],
    clients: Sequence[int],
    tick: int,
    steps_K: Sequence[int],
    batch_size: int,
) -> list[StepBatch]:
    """The batches of a pack, one StepBatch a step, padded to the largest batch and the longest sample of the pack.

    Padding repeats a client's first sample of the step under a false mask, so that it never brings in foreign values.
    """
    index_SK = [
        [batch_indices(rng, client, tick, step, shards[client], batch_size) for client in clients]
        for step in range(max(steps_K))
    ]
    width = max(len(index) for row in index_SK for index in row)
    tokens = max(padded_width(train, shards[client]) for client in clients) or None
    batches = []
    for step, row in enumerate(index_SK):
        active_K = np.array([step < steps for steps in steps_K])
        mask_KB = np.zeros((len(row), width), dtype=bool)
        index_KB = np.empty((len(row), width), dtype=np.int64)
        for k, index in enumerate(row):
            index_KB[k, : len(index)] = index
            index_KB[k, len(index) :] = index[0]
            mask_KB[k, : len(index)] = active_K[k]
        batches.append(_gather(train, index_KB, mask_KB, active_K, tokens))
    return batches


def _gather(train: Examples, index_KB: Array, mask_KB: Array, active_K: Array, tokens: int | None) -> StepBatch:
    cut = slice(None) if tokens is None else slice(tokens)
    inputs = {
        name: value[index_KB] if tokens is None else value[:, cut][index_KB] for name, value in train.inputs.items()
    }
    labels = train.labels[index_KB] if train.labels.ndim == 1 else train.labels[:, cut][index_KB]
    return StepBatch(inputs=inputs, labels=labels, mask_KB=mask_KB, active_K=active_K)


def padded_width(train: Examples, shard_N: Array) -> int:
    """Tokens of a client's longest sample, rounded up to a multiple of 8; 0 for data without lengths."""
    if train.lengths is None:
        return 0
    stored: int = next(iter(train.inputs.values())).shape[1]
    return min(-(-int(train.lengths[shard_N].max()) // 8) * 8, stored)
