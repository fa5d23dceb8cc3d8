"""Evaluation of the global model on fixed shards: a function of the split alone, so that counts add up identically."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from raysoft.federation.client import EvaluateRequest
from raysoft.types import Broadcast, ServerState

if TYPE_CHECKING:
    from raysoft.federation.round import Parts


def evaluate(parts: Parts, server: ServerState, tick: int) -> dict[str, float] | None:
    """Additive counts over the evaluation split, or None in a round without evaluation (eval.every)."""
    config = parts.config
    if tick % config.eval.every and tick != config.rounds:
        return None
    size, items = config.eval.batch_size, parts.info.eval_items
    requests = [EvaluateRequest(start, min(start + size, items)) for start in range(0, items, size)]
    down = parts.executor.put(Broadcast(version=server.version, common=server.theta))
    total: dict[str, float] = {}
    for counts, _ in parts.executor.map("evaluate", down, requests):
        for name, value in counts.items():
            total[name] = total.get(name, 0.0) + value
    return total


def scores(counts: dict[str, float] | None, bits_per_byte: bool) -> tuple[float | None, float | None, dict[str, float]]:
    """Accuracy, mean loss (nats) and further metrics of counts {count, correct, loss_sum}."""
    if not counts or not counts["count"]:
        return None, None, {}
    loss = counts["loss_sum"] / counts["count"]
    return counts["correct"] / counts["count"], loss, {"bits_per_byte": loss / math.log(2)} if bits_per_byte else {}
