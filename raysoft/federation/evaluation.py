"""Evaluation of the global model: every round on fixed shards of a split, once at the end client by client.

Shards are functions of split, partition and configuration alone, so that counts add up identically everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from raysoft.config import RunConfig
from raysoft.data.base import Partition
from raysoft.federation.messages import EvaluateClientsRequest, EvaluateRequest
from raysoft.federation.parts import Parts
from raysoft.federation.sampling import evaluated_clients
from raysoft.types import Array, Broadcast, GlobalModel, ServerState

WORST_SHARE = 0.1


@dataclass(frozen=True)
class Scores:
    """What an evaluation found; None in a round without one. Loss in nats."""

    accuracy: float | None = None
    loss: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


def evaluate(parts: Parts, server: ServerState, tick: int) -> Scores:
    """Over the whole evaluation split, in the rounds that `eval.every` says."""
    config = parts.config
    if tick % config.eval.every and tick != config.rounds:
        return Scores()
    size, items = config.eval.batch_size, parts.info.eval_items
    requests = [EvaluateRequest(start, min(start + size, items)) for start in range(0, items, size)]
    down = parts.executor.put(broadcast_of(parts.method.model(server)))
    total: dict[str, float] = {}
    for counts, _ in parts.executor.map("evaluate", down, requests):
        for name, value in counts.items():
            total[name] = total.get(name, 0.0) + value
    return scores(total, parts.info.bits_per_byte)


def broadcast_of(model: GlobalModel) -> Broadcast:
    """A model as the stages of evaluation take it."""
    return Broadcast(model.theta, base=model.base)


def scores(counts: Mapping[str, float], bits_per_byte: bool) -> Scores:
    """Of counts {count, correct, loss_sum}."""
    if not counts.get("count"):
        return Scores()
    loss = counts["loss_sum"] / counts["count"]
    more = {"bits_per_byte": loss / math.log(2)} if bits_per_byte else {}
    return Scores(counts["correct"] / counts["count"], loss, more)


def evaluate_clients(parts: Parts, server: ServerState) -> dict[str, float]:
    """How evenly the global model serves the clients (metrics.clients); {} if switched off. See `client_counts`."""
    counts_K3 = client_counts(parts, server)
    return {} if counts_K3 is None else spread(counts_K3, parts.info.bits_per_byte)


def client_counts(parts: Parts, server: ServerState) -> Array | None:
    """Counts [K, 3] (count, correct, loss_sum) of `evaluated_clients` on their own samples; None if switched off.

    A client's samples are up to `metrics.client_samples` of its own *training* samples: its local distribution, not
    data that nobody trained on. Where clients differ by their labels or sources, this is what studies of fairness
    report; held-out accuracy is that of the rounds.
    """
    if not parts.config.metrics.clients:
        return None
    down = parts.executor.put(broadcast_of(parts.method.model(server)))
    requests = client_requests(parts.config, parts.info.partition)
    replies = parts.executor.map("evaluate_clients", down, requests)
    return np.concatenate([counts for counts, _ in replies])


def closing_details(parts: Parts, server: ServerState, counts_K3: Array | None) -> dict[str, Any]:
    """What figures show of the final model beyond the totals; {} where metrics.clients is off.

    Of each evaluated client its name (a natural one's), its samples by label and its accuracy on its own, and the
    confusion matrix [true, predicted] on the evaluation split. Labels: class tasks of few classes only
    (`info.labels_KC`).
    """
    info = parts.info
    if counts_K3 is None:
        return {}
    clients_K = evaluated_clients(parts.config.seed, info.partition)
    scored_K = counts_K3[:, 0] > 0
    accuracy_K = np.full(len(clients_K), np.nan)
    accuracy_K[scored_K] = np.round(counts_K3[scored_K, 1] / counts_K3[scored_K, 0], 6)
    clients: dict[str, Any] = {"id": clients_K, "samples": [info.partition.size(int(k)) for k in clients_K]}
    clients["accuracy"] = accuracy_K
    if info.partition.names:  # natural clients: the groups of the data
        clients["name"] = [info.partition.names[int(k)] for k in clients_K]
    found: dict[str, Any] = {"format": 1, "split": parts.config.eval.split, "clients": clients}
    if info.labels_KC is not None:
        clients["labels"] = info.labels_KC
        found |= {"classes": info.label_names, "confusion": _confusion(parts, server)}
    return found


def _confusion(parts: Parts, server: ServerState) -> Array:
    """How often a sample of the evaluation split of class i is taken for class j: integers [C, C]."""
    size, items = parts.config.eval.batch_size, parts.info.eval_items
    requests = [EvaluateRequest(start, min(start + size, items)) for start in range(0, items, size)]
    down = parts.executor.put(broadcast_of(parts.method.model(server)))
    total: Array = sum(counts for counts, _ in parts.executor.map("confusion", down, requests))
    return total


def client_requests(config: RunConfig, partition: Partition) -> list[EvaluateClientsRequest]:
    """All clients, or a keyed sample of CLIENT_LIMIT, by id: as many a request as fill a batch of the evaluation."""
    clients_K = evaluated_clients(config.seed, partition)
    requests: list[EvaluateClientsRequest] = []
    chosen: list[int] = []
    filled = 0
    for client in clients_K.tolist():
        samples = min(partition.size(client), config.metrics.client_samples)
        if chosen and filled + samples > config.eval.batch_size:
            requests.append(EvaluateClientsRequest(tuple(chosen)))
            chosen, filled = [], 0
        chosen.append(client)
        filled += samples
    return [*requests, EvaluateClientsRequest(tuple(chosen))]


def spread(counts_K3: Array, bits_per_byte: bool) -> dict[str, float]:
    """Figures over clients from their counts [K, 3] (count, correct, loss_sum); every client counts the same.

    `worst10_*` is the mean over the worst tenth of the clients (rounded up, at least one) by that very figure;
    `client_accuracy_std` is the standard deviation of the population. Clients without a scored item are left out.
    """
    count_K, correct_K, loss_K = counts_K3[counts_K3[:, 0] > 0].T
    if not len(count_K):
        return {}
    worst = math.ceil(WORST_SHARE * len(count_K))
    accuracy_K = np.sort(correct_K / count_K)
    found = {
        "client_accuracy_mean": float(accuracy_K.mean()),
        "worst10_client_accuracy": float(accuracy_K[:worst].mean()),
        "client_accuracy_std": float(accuracy_K.std()),
    }
    if bits_per_byte:
        bits_K = np.sort(loss_K / count_K) / math.log(2)
        found["worst10_client_bits_per_byte"] = float(bits_K[-worst:].mean())
    return found
