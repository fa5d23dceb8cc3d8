"""A round through the shipped path (inline executor, one thread) against a plain peft loop on the same batches.

100 clients, 20 a round, 5 local steps of batch 16, AdamW, rank 8 on the embedded digits ViT. Two figures:

* the `train` stage as the coordinator calls it (batches, packed steps, reports with their curves) against a peft model
  that trains the same clients one after the other. A B A B; median of the ratios of neighbours; weights equal (1e-5).
* the share of a whole SOFT + TSFA round that is neither training nor evaluation.

Times are CPU seconds of this thread, so that other processes on the machine disturb little.

    python benchmarks/shipped_round.py [--repeats 7] [--rounds 12] [--targets auto] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import peft
import torch
import transformers

from raysoft.config.presets import load_config
from raysoft.federation.coordinator import Coordinator
from raysoft.federation.executor import InlineExecutor
from raysoft.federation.messages import TrainRequest
from raysoft.federation.sampling import cohort_candidates, make_packs, pack_batches
from raysoft.models.embedded import ensure
from raysoft.types import Tensors

# Adam turns gradients near eps into whole steps, so eps lies above float32 rounding: with 1e-8 either side is 1e-5 away
# from a float64 run by itself.
SETTINGS = [
    "executor=inline",
    "data.partition=virtual",
    "data.clients=100",
    "data.samples_per_client=64",
    "cohort.size=20",
    "train.steps=5",
    "train.batch_size=16",
    "train.optimizer=adamw",
    "train.lr=1e-3",
    "train.eps=1e-5",
    "train.clip_norm=1.0",
    "model.lora.rank=8",
    "tracking.tensorboard=false",
]
TARGET_RATIO, TARGET_SHARE = 1.5, 0.10


def started(preset: str, *settings: str) -> Coordinator:
    """A coordinator on the inline executor, ready for its first round."""
    config = load_config(preset, [*SETTINGS, *settings])
    coordinator = Coordinator(config, InlineExecutor(config))
    coordinator.start()
    return coordinator


class PeftLoop:
    """What one would write without raysoft: one peft model, its adapter reset for each client in turn."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.train = coordinator.config.train
        base = transformers.AutoModelForImageClassification.from_pretrained(ensure("embedded/vit-digits"))
        lora = coordinator.config.model.lora
        modules = [pair.module for pair in coordinator.parts.info.space.pairs]
        config = peft.LoraConfig(r=8, lora_alpha=lora.alpha, target_modules=modules, lora_dropout=0.0)
        self.model = peft.get_peft_model(base, config).eval()
        found = dict(self.model.named_parameters())
        self.parameters = {
            name: found[f"base_model.model.{pair.module}.{side}.default.weight"]
            for pair in coordinator.parts.info.space.pairs
            for name, side in ((pair.a, "lora_A"), (pair.b, "lora_B"))
        }

    def client(self, start: Tensors, steps: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
        """One client's end values."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(torch.from_numpy(start[name]))
        trained, train = list(self.parameters.values()), self.train
        optimizer = torch.optim.AdamW(
            trained, lr=train.lr, betas=train.betas, eps=train.eps, weight_decay=train.weight_decay
        )
        for pixels, labels in steps:
            optimizer.zero_grad()
            logits = self.model(pixel_values=torch.from_numpy(pixels)).logits
            torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)).backward()
            torch.nn.utils.clip_grad_norm_(trained, train.clip_norm)
            optimizer.step()
        return {name: parameter.detach().numpy().copy() for name, parameter in self.parameters.items()}


def compare(repeats: int) -> dict[str, float]:
    """Train stage against the loop."""
    coordinator = started("fedit", "metrics.covariance=off")
    parts, worker = coordinator.parts, coordinator.executor.worker  # type: ignore[attr-defined]
    loop = PeftLoop(coordinator)
    down = parts.method.broadcast(coordinator.state.server, 1)
    start = down.common
    ratios, seconds, worst = [], [], 0.0
    for tick in range(1, repeats + 2):
        packs = make_packs(tick, cohort_candidates(parts.rng, tick, 100, 20), {}, parts.pack_size)
        began = time.thread_time()
        trained = parts.executor.map("train", down, [TrainRequest(pack, {}) for pack in packs])
        packed_s = time.thread_time() - began
        began = time.thread_time()
        ends: dict[int, dict[str, np.ndarray]] = {}
        for pack in packs:
            shards = {k: worker.workload.partition.indices(k) for k in pack.clients}
            args = (parts.rng, worker.workload.data.train, shards, pack.clients, tick, [5] * len(pack.clients), 16)
            batches = pack_batches(*args)
            for row, client in enumerate(pack.clients):
                ends[client] = loop.client(start, [(b.inputs["pixel_values"][row], b.labels[row]) for b in batches])
        plain_s = time.thread_time() - began
        for _, handle in trained:
            for client, upload in zip(handle.pack.clients, handle.uploads, strict=True):
                for name, value in upload.update.items():
                    worst = max(worst, float(np.abs(start[name] + value - ends[client][name]).max()))
        if tick > 1:  # the first pair warms up
            ratios.append(plain_s / packed_s)
            seconds.append((packed_s, plain_s))
    packed, plain = (statistics.median(column) for column in zip(*seconds, strict=True))
    return {
        "ratio": statistics.median(ratios),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
        "packed_clients_per_s": 20 / packed,
        "peft_clients_per_s": 20 / plain,
        "largest_difference": worst,
        "pack_size": parts.pack_size,
        "matrices": len(parts.info.space.pairs),
    }


def breakdown(rounds: int) -> dict[str, float]:
    """Where a SOFT + TSFA round spends its time: medians in seconds."""
    coordinator = started("soft")
    executor, spent = coordinator.executor, dict.fromkeys(("train", "encode", "fold", "join", "evaluate"), 0.0)
    plain_map = executor.map

    def timed_map(stage: str, *args: Any, **kwargs: Any) -> Any:
        began = time.thread_time()
        try:
            return plain_map(stage, *args, **kwargs)
        finally:
            spent[stage] += time.thread_time() - began

    trainer = executor.worker.trainer  # type: ignore[attr-defined]
    plain_train = trainer.train

    def timed_train(*args: Any) -> Any:
        began = time.thread_time()
        try:
            return plain_train(*args)
        finally:
            spent["steps"] += time.thread_time() - began

    executor.map, trainer.train = timed_map, timed_train  # type: ignore[method-assign]
    rows = []
    for tick in range(1, rounds + 2):
        spent.update(dict.fromkeys((*spent, "steps"), 0.0))
        began = time.thread_time()
        coordinator.round(tick)
        whole = time.thread_time() - began
        rows.append(
            {
                "round": whole,
                "training": spent["steps"],
                "evaluation": spent["evaluate"],
                "batches, upload, curves": spent["train"] - spent["steps"],
                "encode": spent["encode"],
                "fold, join": spent["fold"] + spent["join"],
                "coordinator": whole - sum(spent[s] for s in ("train", "encode", "fold", "join", "evaluate")),
            }
        )
    medians = {name: statistics.median(row[name] for row in rows[1:]) for name in rows[0]}
    rest = [1.0 - (row["training"] + row["evaluation"]) / row["round"] for row in rows[1:]]
    return {**medians, "share of the rest": statistics.median(rest)}


def main() -> int:
    """Print both tables; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--targets", default="auto", help="LoRA targets: auto (query and value) or attention")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    SETTINGS.append(f"model.lora.targets={args.targets}")
    speed, parts = compare(args.repeats), breakdown(args.rounds)
    print(f"{speed['matrices']} adapted matrices, packs of {speed['pack_size']} clients")
    print(f"clients per CPU second: packed {speed['packed_clients_per_s']:.1f}, peft {speed['peft_clients_per_s']:.1f}")
    print(
        f"ratio (median of {args.repeats}): {speed['ratio']:.2f} x  [{speed['ratio_low']:.2f}, "
        f"{speed['ratio_high']:.2f}]   target {TARGET_RATIO} x"
    )
    print(f"largest difference of a final weight: {speed['largest_difference']:.1e}   target 1e-5")
    for name, value in parts.items():
        if name != "share of the rest":
            print(f"{name:>24}: {1e3 * value:7.1f} ms")
    print(f"neither training nor evaluation: {parts['share of the rest']:.1%}   target {TARGET_SHARE:.0%}")
    if args.json:
        args.json.write_text(json.dumps({"speed": speed, "round": parts}, indent=2) + "\n")
    met = speed["ratio"] >= TARGET_RATIO and speed["largest_difference"] <= 1e-5
    return 0 if met and parts["share of the rest"] <= TARGET_SHARE else 1


if __name__ == "__main__":
    raise SystemExit(main())
