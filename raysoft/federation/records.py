"""From what happened in a round to its line in rounds.jsonl, and to the totals kept in the state."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raysoft.federation.client import SentUpdate
from raysoft.federation.diagnostics import ProductSums, covariance_metrics, covariance_mode
from raysoft.federation.evaluation import scores
from raysoft.federation.parts import Parts, RunState
from raysoft.types import Allocation, Array, ClientReport, Outcome, Participants, RoundRecord, ServerState, Tensors

CLIENT_DETAIL_LIMIT = 256  # larger cohorts are described by their first clients only, or a line would be megabytes


@dataclass(frozen=True)
class Round:
    """Everything a round produced, on its way into the record. K: clients with a finite update, by id."""

    tick: int
    before: RunState
    cohort: int  # clients asked to train
    everybody: tuple[ClientReport, ...]  # all that were trained, finite or not
    reports: tuple[ClientReport, ...]
    who: Participants
    plan: Allocation
    outcome: Outcome
    arrived_K: Array  # delivered, and finite after decoding
    mix_K: Array  # factor of each update in the mean, sum 1 where anybody arrived
    bits_K: Array  # on the air
    sent: Mapping[int, SentUpdate]
    sent_counts: Array | None  # of how many clients each rank component arrived, where known
    folded: Tensors | None
    products: ProductSums | None
    counts: dict[str, float] | None  # of the evaluation, if there was one
    began: float  # time.perf_counter
    oversized: tuple[int, ...] = ()  # rejected for the size of their update (train.max_update_norm)


def record_of(parts: Parts, after: RunState, r: Round) -> tuple[RunState, RoundRecord]:
    """The state with its totals brought forward, and the record."""
    accuracy, loss, measured = scores(r.counts, parts.info.bits_per_byte)
    metrics: dict[str, Any] = dict(measured)
    sent_K = [r.sent[report.client] for report in r.reports]
    status_K = _status(r, sent_K)
    sent_counts, starvation = _starvation(r, sent_K)
    covariance = _covariance(parts, r)
    metrics |= starvation | _known(covariance, "applied_ratio", "applied_cosine")
    metrics |= {name: float(value) for name, value in r.plan.diagnostics.items() if np.isfinite(value)}
    metrics["latency_predicted_s"] = float(r.plan.round_s)
    metrics["clients"] = _client_columns(r, status_K)
    dense_bits = sum(_dense_bits(parts, report) for report in r.everybody)
    after = replace(after, sent_counts=sent_counts, dense_bits=after.dense_bits + dense_bits)
    metrics["dense_bits_total"] = after.dense_bits
    reasons = Counter(status for status in status_K if status != "ok")
    failed = [report for report in r.everybody if report.failed]
    rejected = {"update_norm": len(r.oversized), "actor_failed": r.cohort - len(r.everybody)}
    rejected["non_finite"] = len(r.everybody) - len(r.reports) - len(r.oversized) - len(failed)
    reasons.update({**rejected, "client_failed": len(failed)})
    messages = [report.failed for report in failed] + [one.failed for one in sent_K if one.failed]
    if messages:
        metrics["failed"] = messages[0]
    if r.oversized:
        metrics["oversized_clients"] = list(r.oversized)
    if r.arrived_K.any() and _unmoved(r.before.server, after.server):
        metrics["unmoved"] = True
    queue = after.allocator.get("queue_s")
    errors = [one.relative_error for one in sent_K]
    record = RoundRecord(
        round=r.tick,
        accuracy=accuracy,
        loss=loss,
        train_loss=float(np.dot(r.who.weights_K, [report.loss for report in r.reports])),
        metrics=metrics,
        round_latency_s=float(r.outcome.round_s),
        simulated_time_s=float(after.clock_s),
        uplink_bits=round(float(r.bits_K.sum())),
        downlink_bits=round(parts.config.device.payload_scale * sum(report.downlink_bits for report in r.everybody)),
        control_bits=int(r.plan.control_bits_K.sum()),
        kept_fraction_mean=_kept_mean(r),
        queue_s=None if queue is None else float(queue),
        sparsification_error=float(np.dot(r.mix_K, errors)) if r.arrived_K.any() else None,
        aggregation_covariance=covariance["aggregation_covariance"],
        participants=int(r.arrived_K.sum()),
        dropped=r.cohort - int(r.arrived_K.sum()),
        drop_reasons={reason: count for reason, count in sorted(reasons.items()) if count},
        energy_j=float(r.outcome.energy_j_K.sum()),
        wall_time_s=time.perf_counter() - r.began,
    )
    return after, record


def _unmoved(before: ServerState, after: ServerState) -> bool:
    """Whether nothing of the global model changed."""
    return all(np.array_equal(value, after.theta[name]) for name, value in before.theta.items())


def base_record(parts: Parts, counts: dict[str, float] | None, began: float) -> RoundRecord:
    """Line 0: the untouched base."""
    accuracy, loss, metrics = scores(counts, parts.info.bits_per_byte)
    return RoundRecord(
        round=0,
        accuracy=accuracy,
        loss=loss,
        train_loss=None,
        metrics=metrics,
        round_latency_s=0.0,
        simulated_time_s=0.0,
        uplink_bits=0,
        downlink_bits=0,
        control_bits=0,
        kept_fraction_mean=None,
        queue_s=None,
        sparsification_error=None,
        aggregation_covariance=None,
        participants=0,
        dropped=0,
        drop_reasons={},
        energy_j=0.0,
        wall_time_s=time.perf_counter() - began,
    )


def _dense_bits(parts: Parts, report: ClientReport) -> int:
    """Bits of one client's whole update as float32, on the air: the yardstick of `uplink share`."""
    return round(report.dense_bits * parts.config.device.payload_scale)


def _status(r: Round, sent_K: Sequence[SentUpdate]) -> list[str]:
    return [
        "ok" if arrived else "client_failed" if one.failed else "non_finite" if not one.finite else reason or "lost"
        for arrived, one, reason in zip(r.arrived_K, sent_K, r.outcome.reason_K, strict=True)
    ]


def _kept_K(r: Round) -> Array:
    """Kept fraction of the component bits per client; 0 where silent."""
    return np.array(
        [
            report.curve.bits_J[int(units)] / report.curve.bits_J[-1] if active and report.curve.bits_J[-1] else 0.0
            for report, units, active in zip(r.reports, r.plan.units_K, r.plan.active_K, strict=True)
        ]
    )


def _kept_mean(r: Round) -> float | None:
    # A client without component bits (only a head is trained) has nothing to keep a fraction of.
    counted_K = r.plan.active_K & np.array([report.curve.bits_J[-1] > 0 for report in r.reports], dtype=bool)
    return float(_kept_K(r)[counted_K].mean()) if counted_K.any() else None


def _starvation(r: Round, sent_K: Sequence[SentUpdate]) -> tuple[Array | None, dict[str, float]]:
    """How often each rank component arrived so far; share never sent, and entropy of the selection (1 = even)."""
    counts, sent = r.before.sent_counts, r.sent_counts
    if sent is not None:
        counts = sent if counts is None else counts + sent
    if counts is None or counts.sum() == 0:
        return counts, {}
    share = counts[counts > 0] / counts.sum()
    entropy = float(-(share * np.log(share)).sum() / np.log(len(counts))) if len(counts) > 1 else 1.0
    metrics = {"components_never_sent": float((counts == 0).mean()), "selection_entropy": entropy}
    for name in ("cross_term_share", "memory_residual"):
        values = [float(one.stats[name]) for one in sent_K if name in one.stats]
        if values:
            metrics[name] = float(np.mean(values))
    return counts, metrics


def _covariance(parts: Parts, r: Round) -> dict[str, float | None]:
    if r.products is None or r.folded is None:
        return {"aggregation_covariance": None}
    mode = covariance_mode(parts.config.metrics.covariance, parts.info.space, r.cohort)
    server = r.before.server
    change = parts.method.change(server, r.folded)
    mean = None if change is None else r.folded
    measured = covariance_metrics(parts.info.space, mode, parts.rng, server.theta, mean, r.products)
    if change is not None and change is not r.folded:  # the step taken is not the mean of the factors
        applied = covariance_metrics(parts.info.space, mode, parts.rng, server.theta, change, r.products)
        measured |= {name: applied[name] for name in ("applied_ratio", "applied_cosine")}
    return measured


def _known(values: Mapping[str, float | None], *names: str) -> dict[str, float]:
    return {name: value for name in names if (value := values.get(name)) is not None}


def _client_columns(r: Round, status_K: Sequence[str]) -> dict[str, list[Any]]:
    """Per-client figures of this round, as columns."""
    top = slice(0, CLIENT_DETAIL_LIMIT)
    with np.errstate(divide="ignore"):
        gain_db = 10.0 * np.log10(r.who.channel.gain_K)
    columns = {
        "kept_fraction": _kept_K(r),
        "bandwidth_hz": r.plan.bandwidth_hz_K,
        "latency_s": r.outcome.latency_s_K,
        "gain_db": gain_db,
        "energy_j": r.outcome.energy_j_K,
    }
    out: dict[str, list[Any]] = {"id": [report.client for report in r.reports][top]}
    for name, values in columns.items():
        out[name] = [float(f"{value:.6g}") if np.isfinite(value) else None for value in values[top]]
    out["status"] = list(status_K[top])
    return out
