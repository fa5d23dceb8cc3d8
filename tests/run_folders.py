"""Synthetic run folders for the tests of reading and reporting; written through RunFolder, never by hand.

The numbers follow simple laws (gains from distance, more kept on better links, a queue driven by the latencies), so
that figures of them look like figures of a run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from raysoft.config import RunConfig, parse_section
from raysoft.rng import Rng
from raysoft.rundir.folder import RunFolder, record_row
from raysoft.rundir.summary import summarise
from raysoft.runs.radio import radio_of
from raysoft.runs.trackers.base import Beginning
from raysoft.runs.trackers.fanout import Trackers
from raysoft.runs.trackers.tensorboard import TensorBoard
from raysoft.types import RoundRecord

BUDGET_S = 0.22
BANDWIDTH_HZ = 1e6
DENSE_BITS = 32 * 16384


def config_tree(clients: int = 100, cohort: int = 20, seed: int = 0, **changes: Any) -> dict[str, Any]:
    """A complete configuration with the plug-in options written out."""
    tree: dict[str, Any] = {
        "seed": seed,
        "rounds": 40,
        "model": {"name": "embedded/vit-digits"},
        "data": {"task": "digits", "clients": clients},
        "cohort": {"size": cohort},
        "method": {"name": "soft", "penalty": "cosine", "penalty_weight": 1e-3},
        "codec": {"name": "rank_components", "importance": "update", "min_kept_fraction": 0.05, "bits_per_value": 32},
        "allocator": {"name": "tsfa", "latency_budget_s": BUDGET_S, "v": 1.0, "outage_factor": 2.0},
        "uplink": {"name": "fdma", "deadline_s": None},
        "channel": {
            "name": "rayleigh",
            "bandwidth_hz": BANDWIDTH_HZ,
            "cell_radius_m": 250.0,
            "shadowing_db": 8.0,
            "noise_dbm_per_hz": -174.0,
        },
        "device": {"payload_scale": 4.0},
    }
    return {**tree, **changes}


def run_config(**kwargs: Any) -> RunConfig:
    """The same, checked."""
    return parse_section(RunConfig, config_tree(**kwargs))


def records(
    *, rounds: int = 40, clients: int = 100, cohort: int = 20, seed: int = 0, text: bool = False, detail: bool = True
) -> list[RoundRecord]:
    """Line 0 and `rounds` rounds. `text`: bits per byte too; `detail` False: none of the optional metrics."""
    rng = Rng(seed)
    distance = 35.0 + 215.0 * np.sqrt(rng.uniform("distance", np.arange(clients))[:, 0])
    mean_gain_db = -128.1 - 37.6 * np.log10(distance / 1000.0)
    accuracy = 0.32
    base_metrics = {"bits_per_byte": 2.9} if text else {}
    out = [_record(0, accuracy, base_metrics, latency=0.0, clock=0.0, bits=0, cohort=0)]
    clock, queue = 0.0, 0.0
    for t in range(1, rounds + 1):
        ids = np.sort(rng("cohort", t).permutation(clients)[:cohort])
        gain_db = mean_gain_db[ids] + 10 * np.log10(-np.log(rng.uniform("fade", ids, t)[:, 0]))
        rank = (gain_db - gain_db.min()) / max(float(np.ptp(gain_db)), 1e-9)
        kept = 0.08 + 0.7 * rank**2 * (1.5 if queue < 0.1 else 0.7) / 1.5
        bandwidth = BANDWIDTH_HZ * (1.2 - rank) / np.sum(1.2 - rank)
        latency = BUDGET_S * (0.85 + 0.35 * rng.uniform("latency", t)[0, 0]) * (1.0 - 0.5 * min(queue, 0.3))
        status = np.where(gain_db < mean_gain_db[ids] - 14.0, "outage", "ok")
        kept = np.where(status == "ok", kept, 0.0)
        queue = max(queue + latency - BUDGET_S, 0.0)
        clock += latency
        accuracy = 0.89 - 0.57 * math.exp(-t / 9.0) + 0.01 * (rng.uniform("noise", t)[0, 0] - 0.5)
        metrics: dict[str, Any] = {"dense_bits_total": t * cohort * DENSE_BITS} if detail else {}
        if text:
            metrics["bits_per_byte"] = 2.35 + 0.55 * math.exp(-t / 12.0)
        if detail:
            metrics |= {
                "clients": {
                    "id": ids,
                    "kept_fraction": kept,
                    "bandwidth_hz": np.where(status == "ok", bandwidth, 0.0),
                    "latency_s": np.where(status == "ok", latency, 0.05),
                    "gain_db": gain_db,
                    "energy_j": np.full(cohort, 1e-3),
                    "compute_s": 0.02 + 0.01 * rng.uniform("compute", ids, t)[:, 0],
                    "control_bits": np.full(cohort, 500.0),
                    "status": status.tolist(),
                },
                "components_never_sent": 0.7 * math.exp(-t / 15.0),
                "selection_entropy": 0.8 + 0.1 * math.exp(-t / 5.0),
                "penalty": 0.02 * math.exp(-t / 20.0),
                "latency_predicted_s": latency * 0.995,
                "price": 1e-6,
                "applied_ratio": 0.75 - 0.1 * math.exp(-t / 10.0),
                "applied_cosine": 0.93,
                "cross_term_share": 0.12,
                "error_against_ideal": 0.4 + 0.1 * math.exp(-t / 6.0),
            }
        out.append(
            _record(
                t,
                accuracy,
                metrics,
                latency=latency,
                clock=clock,
                bits=int(kept.sum() * DENSE_BITS),
                cohort=cohort,
                kept=float(kept.mean()),
                queue=queue,
                dropped=int((status != "ok").sum()),
            )
        )
    return out


def _record(
    t: int,
    accuracy: float,
    metrics: Mapping[str, Any],
    *,
    latency: float,
    clock: float,
    bits: int,
    cohort: int,
    kept: float | None = None,
    queue: float = 0.0,
    dropped: int = 0,
) -> RoundRecord:
    return RoundRecord(
        round=t,
        accuracy=accuracy,
        loss=2.0 * (1.0 - accuracy),
        train_loss=None if t == 0 else 1.8 * (1.0 - accuracy),
        metrics=metrics,
        round_latency_s=latency,
        simulated_time_s=clock,
        uplink_bits=bits,
        downlink_bits=10 * cohort,
        control_bits=64 * cohort,
        kept_fraction_mean=kept,
        queue_s=queue,
        sparsification_error=None if t == 0 else 0.3 + 0.2 * math.exp(-t / 8.0),
        aggregation_covariance=None if t == 0 else 0.02 + 0.1 * math.exp(-t / 12.0),
        participants=cohort - dropped,
        dropped=dropped,
        drop_reasons={"outage": dropped} if dropped else {},
        energy_j=0.02 * cohort,
        wall_time_s=0.5,
    )


def evaluation_of(clients: int = 100, classes: int = 10, seed: int = 0) -> dict[str, Any]:
    """What evaluation.json holds, made up: skewed labels, a model that is right more often than not."""
    draw = np.random.default_rng(seed)
    labels = draw.poisson(40 * draw.dirichlet(np.full(classes, 0.3), clients)) + 1
    confusion = draw.poisson(2, (classes, classes)) + 30 * np.eye(classes, dtype=int)
    return {
        "format": 1,
        "split": "test",
        "clients": {
            "id": list(range(clients)),
            "samples": labels.sum(axis=1),
            "accuracy": draw.beta(8, 2, clients),
            "labels": labels,
        },
        "classes": [str(number) for number in range(classes)],
        "confusion": confusion,
    }


def add_adapter(path: Path, rank: int = 8, modules: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    """Write an adapter in the format of peft; the products B A by module."""
    from safetensors.numpy import save_file

    draw, tensors, products = np.random.default_rng(seed), {}, {}
    for number in range(modules):
        a, b = draw.normal(size=(rank, 24)), draw.normal(size=(16, rank)) * 2.0 ** -np.arange(rank)
        name = f"base_model.model.layer.{number}"
        tensors |= {f"{name}.lora_A.weight": a.astype(np.float32), f"{name}.lora_B.weight": b.astype(np.float32)}
        products[f"layer.{number}"] = tensors[f"{name}.lora_B.weight"] @ tensors[f"{name}.lora_A.weight"]
    (path / "adapter").mkdir(exist_ok=True)
    save_file(tensors, path / "adapter" / "adapter_model.safetensors")
    return products


def make_run(
    path: Path,
    *,
    seed: int = 0,
    clients: int = 100,
    cohort: int = 20,
    tensorboard: bool = False,
    config: Mapping[str, Any] | None = None,
    finished: bool = True,
    trackers: Trackers | None = None,
    evaluation: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Path:
    """Write a whole run folder and return its path."""
    settings = parse_section(RunConfig, config_tree(clients=clients, cohort=cohort, seed=seed, **(config or {})))
    rows = records(clients=clients, cohort=cohort, seed=seed, **kwargs)
    trackers = trackers or Trackers([TensorBoard()] if tensorboard else [])
    with RunFolder(path) as folder:
        folder.write_config(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))
        folder.write_environment(threads=1, radio=radio_of(settings))
        trackers.start(Beginning(settings, path, {}))
        for row in rows:
            folder.append(row)
            trackers.round(record_row(row))
        if finished:
            dense = len(rows[1:]) * cohort * DENSE_BITS
            share = sum(row.uplink_bits for row in rows) / max(dense, 1)
            metrics = {
                "dense_bits_total": dense,
                "uplink_share_of_dense32": share,
                "uplink_share_of_dense_same_bits": 2 * share,
            }
            extra = {"adapter_sha256": "0" * 64, "metrics": metrics}
            summary = summarise([record_row(row) for row in rows], settings, extra)
            if evaluation is not None:
                folder.write_evaluation(evaluation, rows[-1].round)
            folder.write_summary(summary)
            trackers.finish(summary)
    return path
