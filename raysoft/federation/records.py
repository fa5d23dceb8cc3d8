"""What happened in a round, collected into its line of rounds.jsonl; nothing is measured or kept here."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from raysoft.allocation.base import BACKLOG, kept_fractions
from raysoft.federation.evaluation import Scores
from raysoft.federation.parts import RunState
from raysoft.federation.stages import Delivered, Trained, Uploads
from raysoft.types import Allocation, Array, RoundRecord

CLIENT_DETAIL_LIMIT = 256  # larger cohorts are described by their first clients only, or a line would be megabytes


@dataclass(frozen=True)
class Round:
    """Everything a round produced, on its way into the record. K: clients with a finite update, by id."""

    tick: int
    after: RunState
    trained: Trained
    plan: Allocation
    encoded: Uploads
    delivered: Delivered
    scores: Scores
    measured: Mapping[str, float | None]  # by the rooms; see RoundSteps.measure
    downlink_bits: int  # on the air
    unmoved: bool  # somebody arrived, and nothing of the global model changed
    began: float  # time.perf_counter


def record_of(r: Round) -> RoundRecord:
    """The line of this round."""
    trained, plan, delivered = r.trained, r.plan, r.delivered
    outcome, arrived_K = delivered.outcome, delivered.arrived_K
    sent_K = [r.encoded.sent[report.client] for report in trained.reports]
    failed = [report.failed for report in trained.everybody if report.failed]
    kept_K = kept_fractions(plan, trained.reports)
    metrics: dict[str, Any] = {
        **r.scores.metrics,
        **{name: value for name, value in r.measured.items() if value is not None and name != "aggregation_covariance"},
        **{name: float(value) for name, value in plan.diagnostics.items() if np.isfinite(value)},
        "latency_predicted_s": float(plan.round_s),
        "clients": _client_columns(r, kept_K),
        "dense_bits_total": r.after.totals.dense_bits,
    }
    if messages := failed + [one.failed for one in sent_K if one.failed]:
        metrics["failed"] = messages[0]
    if trained.oversized:
        metrics["oversized_clients"] = sorted(trained.oversized)
    if r.unmoved:
        metrics["unmoved"] = True
    reasons = Counter(status for status in delivered.status_K if status != "ok")
    reasons.update(
        update_norm=len(trained.oversized),
        actor_failed=trained.cohort - len(trained.everybody),
        non_finite=len(trained.everybody) - len(trained.reports) - len(trained.oversized) - len(failed),
        client_failed=len(failed),
    )
    backlog = r.after.allocator.get(BACKLOG)
    told_K = kept_K[plan.active_K & np.isfinite(kept_K)]
    errors_K = [one.relative_error for one in sent_K]
    return RoundRecord(
        round=r.tick,
        accuracy=r.scores.accuracy,
        loss=r.scores.loss,
        train_loss=float(np.dot(delivered.who.weights_K, [report.loss for report in trained.reports])),
        metrics=metrics,
        round_latency_s=float(outcome.round_s),
        simulated_time_s=float(r.after.clock_s),
        uplink_bits=round(float(delivered.bits_K.sum())),
        downlink_bits=r.downlink_bits,
        control_bits=int(plan.control_bits_K.sum()),
        kept_fraction_mean=float(told_K.mean()) if told_K.size else None,
        queue_s=None if backlog is None else float(backlog),
        sparsification_error=float(np.dot(delivered.mix_K, errors_K)) if arrived_K.any() else None,
        aggregation_covariance=r.measured.get("aggregation_covariance"),
        participants=int(arrived_K.sum()),
        dropped=trained.cohort - int(arrived_K.sum()),
        drop_reasons={reason: count for reason, count in sorted(reasons.items()) if count},
        energy_j=float(outcome.energy_j_K.sum()),
        wall_time_s=time.perf_counter() - r.began,
    )


def base_record(scores: Scores, began: float) -> RoundRecord:
    """Line 0: the untouched base."""
    return RoundRecord(
        round=0,
        accuracy=scores.accuracy,
        loss=scores.loss,
        train_loss=None,
        metrics=dict(scores.metrics),
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


def _client_columns(r: Round, kept_K: Array) -> dict[str, list[Any]]:
    """Per-client figures of this round, as columns."""
    top = slice(0, CLIENT_DETAIL_LIMIT)
    with np.errstate(divide="ignore"):
        gain_db = 10.0 * np.log10(r.delivered.who.channel.gain_K)
    columns = {
        "kept_fraction": np.nan_to_num(kept_K),
        "bandwidth_hz": r.plan.bandwidth_hz_K,
        "latency_s": r.delivered.outcome.latency_s_K,
        "gain_db": gain_db,
        "energy_j": r.delivered.outcome.energy_j_K,
    }
    out: dict[str, list[Any]] = {"id": [report.client for report in r.trained.reports][top]}
    for name, values in columns.items():
        out[name] = [float(f"{value:.6g}") if np.isfinite(value) else None for value in values[top]]
    out["status"] = list(r.delivered.status_K[top])
    return out
