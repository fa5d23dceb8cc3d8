"""Packed LoRA training against a plain peft loop on the same batches, in the same process, on one thread.

A cohort of 20 clients, 5 local steps of batch 16, AdamW, rank 8 on the query and value matrices of a tiny ViT (8x8
images, patch 2, width 64, 4 layers). The two sides alternate (A B A B ...); the figure is the median of the ratios of
neighbouring runs, so that a drifting clock speed cancels. Time is CPU time of this thread, so that other processes on
the machine disturb little. Both sides must end with equal weights (1e-5).

    python benchmarks/packed_training.py [--repeats 7] [--pack-size 20] [--json FILE]
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

from raysoft.config import LoraConfig, TrainConfig
from raysoft.data.base import StepBatch
from raysoft.methods.initial import initial_theta
from raysoft.models.base import freeze
from raysoft.models.targets import lora_space
from raysoft.models.trainers.packed_lora import PackedTrainer
from raysoft.rng import Rng
from raysoft.types import LocalJob, ParamSpace, Tensors

CLIENTS, STEPS, BATCH, RANK, LABELS = 20, 5, 16, 8, 10
# With the usual eps of 1e-8, float32 rounding alone moves either side by 1.2e-5 from a float64 run: gradients near it
# become steps of full size. The comparison is about the arithmetic, so eps lies above the rounding.
SETTINGS = TrainConfig(optimizer="adamw", lr=1e-3, eps=1e-6, weight_decay=0.01, clip_norm=1.0)
TARGET = 1.5


def make_model() -> Any:
    """The digits ViT, randomly drawn."""
    config = transformers.ViTConfig(
        image_size=8,
        patch_size=2,
        num_channels=1,
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=128,
        num_labels=LABELS,
    )
    torch.manual_seed(0)
    return transformers.ViTForImageClassification(config).eval()


def make_batches(clients: int) -> list[StepBatch]:
    """Random images and labels, [K, B, ...] for every step."""
    rng = Rng(0)
    return [
        StepBatch(
            {"pixel_values": rng("pixels", step).normal(size=(clients, BATCH, 1, 8, 8)).astype(np.float32)},
            rng("labels", step).integers(0, LABELS, (clients, BATCH)),
            np.ones((clients, BATCH), bool),
            np.ones(clients, bool),
        )
        for step in range(STEPS)
    ]


class PeftLoop:
    """What one would write without raysoft: one peft model, its adapter reset for each client in turn."""

    def __init__(self, space: ParamSpace) -> None:
        config = peft.LoraConfig(
            r=RANK, lora_alpha=space.scale * RANK, target_modules=["q_proj", "v_proj"], lora_dropout=0.0
        )
        self.model = peft.get_peft_model(make_model(), config).eval()
        found = dict(self.model.named_parameters())
        self.parameters = {}
        for pair in space.pairs:
            for name, side in ((pair.a, "lora_A"), (pair.b, "lora_B")):
                self.parameters[name] = found[f"base_model.model.{pair.module}.{side}.default.weight"]

    def train(self, start: Tensors, batches: list[StepBatch]) -> list[dict[str, np.ndarray]]:
        """The end values of every client."""
        return [self._client(start, batches, k) for k in range(len(batches[0].active_K))]

    def _client(self, start: Tensors, batches: list[StepBatch], k: int) -> dict[str, np.ndarray]:
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(torch.from_numpy(start[name]))
        trained = list(self.parameters.values())
        optimizer = torch.optim.AdamW(
            trained, lr=SETTINGS.lr, betas=SETTINGS.betas, eps=SETTINGS.eps, weight_decay=SETTINGS.weight_decay
        )
        for batch in batches:
            optimizer.zero_grad()
            logits = self.model(pixel_values=torch.from_numpy(batch.inputs["pixel_values"][k])).logits
            torch.nn.functional.cross_entropy(logits, torch.from_numpy(batch.labels[k])).backward()
            torch.nn.utils.clip_grad_norm_(trained, SETTINGS.clip_norm)
            optimizer.step()
        return {name: parameter.detach().numpy().copy() for name, parameter in self.parameters.items()}


class Packed:
    """The shipped trainer, in packs of `pack_size` clients."""

    def __init__(self, trainer: PackedTrainer, pack_size: int) -> None:
        self.trainer, self.pack_size = trainer, pack_size

    def train(self, start: Tensors, batches: list[StepBatch]) -> list[dict[str, np.ndarray]]:
        """The end values of every client."""
        ends = []
        for first in range(0, CLIENTS, self.pack_size):
            part = slice(first, first + self.pack_size)
            jobs = [LocalJob(start, STEPS)] * len(batches[0].active_K[part])
            steps = [
                StepBatch({n: v[part] for n, v in b.inputs.items()}, b.labels[part], b.mask_KB[part], b.active_K[part])
                for b in batches
            ]
            ends += [result.end for result in self.trainer.train(jobs, steps, SETTINGS)]
        return ends


def timed(side: PeftLoop | Packed, start: Tensors, batches: list[StepBatch]) -> tuple[float, list[dict[str, Any]]]:
    """CPU seconds and result."""
    begin = time.thread_time()
    ends = side.train(start, batches)
    return time.thread_time() - begin, ends


def split_of_time(trainer: PackedTrainer, start: Tensors, batches: list[StepBatch]) -> dict[str, float]:
    """Shares of the packed side by kind of operation, from torch's profiler."""
    from torch.profiler import ProfilerActivity, profile

    jobs = [LocalJob(start, STEPS)] * CLIENTS
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        trainer.train(jobs, batches, SETTINGS)
    kinds = {
        "matrix products": ("mm", "convolution"),
        "attention softmax": ("softmax",),
        "GELU": ("gelu",),
        "layer norm": ("layer_norm",),
        "copies": ("copy_", "cat", "fill_", "zero_"),
    }
    shares = dict.fromkeys([*kinds, "everything else"], 0.0)
    for row in recorded.key_averages():
        kind = next((k for k, words in kinds.items() if any(w in row.key for w in words)), "everything else")
        shares[kind] += row.self_cpu_time_total
    total = sum(shares.values())
    return {kind: value / total for kind, value in shares.items()}


def main() -> int:
    """Run, print, and return 0 if the weights agree and the target is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--pack-size", type=int, default=CLIENTS)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    base = freeze(make_model(), "image-classification", "benchmark")
    space, head = lora_space(base, LoraConfig(rank=RANK, alpha=16.0))
    start = initial_theta(space, head, "peft", Rng(0))
    batches = make_batches(CLIENTS)
    trainer = PackedTrainer(base, space, "cpu", threads=1)
    plain, packed = PeftLoop(space), Packed(trainer, arguments.pack_size)

    _, expected = timed(plain, start, batches)  # also the warm-up
    _, found = timed(packed, start, batches)
    worst = max(float(np.abs(a[name] - b[name]).max()) for a, b in zip(expected, found, strict=True) for name in a)
    pairs = [(timed(plain, start, batches)[0], timed(packed, start, batches)[0]) for _ in range(arguments.repeats)]
    report = {
        "clients": CLIENTS,
        "steps": STEPS,
        "batch": BATCH,
        "rank": RANK,
        "pack_size": arguments.pack_size,
        "peft_clients_per_s": CLIENTS / statistics.median(a for a, _ in pairs),
        "packed_clients_per_s": CLIENTS / statistics.median(b for _, b in pairs),
        "speedup_median": statistics.median(a / b for a, b in pairs),
        "speedup_range": [min(a / b for a, b in pairs), max(a / b for a, b in pairs)],
        "largest_weight_difference": worst,
        "split": split_of_time(trainer, start, batches),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__},
    }
    print(json.dumps(report, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if worst <= 1e-5 and report["speedup_median"] >= TARGET else 1


if __name__ == "__main__":
    raise SystemExit(main())
