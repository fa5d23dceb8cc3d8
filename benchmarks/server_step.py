"""What every aggregation rule spends on the server, as a share of the training of its round.

20 clients of rank 16 on 24 matrices of 768 x 768, the query and value matrices of a ViT-Base that is drawn at random.
The server's step is what the coordinator does once the packs are folded: join, finish, aggregate; folding is done where
clients train. Training is timed on one client's first steps, and counted for 20 clients of 5 steps of 16 images each.
Everything on one thread, in CPU time; medians.

    python benchmarks/server_step.py [--repeats 3] [--images 4] [--json FILE]
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
import torch
import transformers

from raysoft.config import LoraConfig, Plugin, TrainConfig, registry
from raysoft.data.base import StepBatch
from raysoft.methods.base import Method
from raysoft.methods.folds import Arrived
from raysoft.methods.initial import initial_theta
from raysoft.models.base import freeze
from raysoft.models.targets import lora_space
from raysoft.models.trainers.packed_lora import PackedTrainer
from raysoft.rng import Rng
from raysoft.types import ClientReport, Curve, LocalJob, Outcome, ParamSpace, Reception, ServerState, Tensors

CLIENTS, STEPS, BATCH, RANK, PACK = 20, 5, 16, 16, 5
TARGET = 0.02
VARIANTS = [{"name": "lora_fair", "mode": "cosine"}, {"name": "flora", "restart": "warm"}]


def make_model() -> Any:
    """A ViT-Base, randomly drawn: 12 layers of width 768."""
    torch.manual_seed(0)
    return transformers.ViTForImageClassification(transformers.ViTConfig(num_labels=10)).eval()


def training_seconds(trainer: PackedTrainer, start: Tensors, images: int, repeats: int) -> float:
    """Of all clients, from a client's single steps on so many images."""
    rng, spent = Rng(0), []
    for number in range(repeats + 1):
        batch = StepBatch(
            {"pixel_values": rng("pixels", number).normal(size=(1, images, 3, 224, 224)).astype(np.float32)},
            rng("labels", number).integers(0, 10, (1, images)),
            np.ones((1, images), bool),
            np.ones(1, bool),
        )
        began = time.thread_time()
        trainer.train([LocalJob(start, 1)], [batch], TrainConfig())
        spent.append((time.thread_time() - began) / images)
    return statistics.median(spent[1:]) * CLIENTS * STEPS * BATCH  # the first is the warm-up


def uploads(server: ServerState, space: ParamSpace) -> list[dict[str, np.ndarray]]:
    """Changes of 20 clients, a tenth as large as what they change."""
    return [
        {name: 0.1 * Rng(k)("change", n).standard_normal(shape) for n, (name, shape) in enumerate(space.shapes.items())}
        for k in range(CLIENTS)
    ]


def timed(method: Method, server: ServerState, changes: list[dict[str, np.ndarray]]) -> tuple[float, float]:
    """CPU seconds of folding the packs, where clients train, and of the server's step."""
    trains = method.view(method.broadcast(server, 1), 0, RANK, 1).trains
    arrived = [
        Arrived({n: v.astype(np.float32) for n, v in one.items() if n in trains}, 1 / CLIENTS, server.theta, RANK)
        for one in changes
    ]
    began = time.thread_time()
    parts = [method.fold.part(arrived[first : first + PACK]) for first in range(0, CLIENTS, PACK)]
    folded = time.thread_time()
    total = parts[0]
    for part in parts[1:]:
        total = method.fold.join(total, part)
    nobody, none = np.zeros(CLIENTS), Curve(0, np.zeros(1), np.zeros(1))
    reports = tuple(ClientReport(k, 1, RANK, 0.0, 0.0, 0, 0, none) for k in range(CLIENTS))
    outcome = Outcome(np.ones(CLIENTS, bool), nobody, nobody, ("",) * CLIENTS, 0.0)
    mix_K = np.full(CLIENTS, 1 / CLIENTS)
    method.aggregate(server, Reception(outcome, reports, method.fold.finish(total), mix_K=mix_K), 1)
    return folded - began, time.thread_time() - folded


def main() -> int:
    """Print the table; 1 if the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    base = freeze(make_model(), "image-classification", "benchmark")
    space, head = lora_space(base, LoraConfig(rank=RANK, alpha=16.0))
    assert [(pair.out_features, pair.in_features) for pair in space.pairs] == [(768, 768)] * 24
    start = initial_theta(space, head, "peft", Rng(0))
    trained = training_seconds(PackedTrainer(base, space, "cpu", threads=1), start, arguments.images, arguments.repeats)
    draws = {pair.b: Rng(1)("b", n).standard_normal((768, RANK)) for n, pair in enumerate(space.pairs)}
    server = ServerState({**start, **{name: value.astype(np.float32) for name, value in draws.items()}})
    changes = uploads(server, space)
    sections = [*({"name": name} for name in registry.METHODS), *VARIANTS]
    rows = {}
    for section in sections:
        plugin = Plugin(**section)
        if not registry.traits("method", plugin).trains_lora:
            continue
        method = registry.build("method", plugin, space)
        pairs = [timed(method, server, changes) for _ in range(arguments.repeats)]
        rows[" ".join(section.values())] = [statistics.median(column) for column in zip(*pairs, strict=True)]
    print(f"{CLIENTS} clients, rank {RANK}, {len(space.pairs)} matrices of 768 x 768; CPU time of one thread")
    print(f"training of the round: {trained:.0f} s")
    print(f"  {'':<18}{'folding':>10}{'server step':>13}{'of training':>13}")
    for name, (folding, step) in rows.items():
        print(f"  {name:<18}{folding:>8.2f} s{step:>11.2f} s{step / trained:>13.3%}")
    worst = max(step for _, step in rows.values()) / trained
    print(f"largest share: {worst:.3%}   target {TARGET:.0%}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"training_s": trained, "seconds": rows}, indent=2) + "\n")
    return 0 if worst <= TARGET else 1


if __name__ == "__main__":
    raise SystemExit(main())
