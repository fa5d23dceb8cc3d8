"""Clients a second against the size of a pack, on one thread: the curve behind `actors.pack_size: auto`.

Two cohorts: 20 clients of the digits ViT (width 64, 4 layers; 5 steps of 16 images, rank 8 on the attention), and 10 of
a Llama of width 256 with 4 layers (5 steps of 4 texts of 64 tokens, the same adapter). Every size trains the whole
cohort, pack after pack; the sizes take turns, and a figure is the median of the ratios to a pack of ten in the same
turn. Time is CPU time of this thread. The last column is what a cohort's packs leave two and four cores to do: the
clients a second of the whole, if each core takes the next pack.

    python benchmarks/pack_size.py [--turns 7] [--json FILE]
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

from raysoft.config import LoraConfig, TrainConfig
from raysoft.data.base import StepBatch
from raysoft.federation.sampling import make_packs
from raysoft.methods.initial import initial_theta
from raysoft.models.base import FrozenBase, freeze
from raysoft.models.targets import lora_space
from raysoft.models.trainers.packed_lora import PackedTrainer
from raysoft.rng import Rng
from raysoft.types import LocalJob

SIZES = (1, 2, 3, 4, 5, 7, 10, 20)
STEPS = 5
SETTINGS = TrainConfig(lr=0.05, momentum=0.9, clip_norm=1.0)


def vit() -> FrozenBase:
    config = transformers.ViTConfig(
        image_size=8,
        patch_size=2,
        num_channels=1,
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=128,
        num_labels=10,
    )
    torch.manual_seed(0)
    return freeze(transformers.ViTForImageClassification(config).eval(), "image-classification", "vit")


def llama() -> FrozenBase:
    config = transformers.LlamaConfig(
        vocab_size=512,
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=8,
        intermediate_size=688,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    return freeze(transformers.LlamaForCausalLM(config).eval(), "causal-lm", "llama")


def batches(base: FrozenBase, clients: int) -> list[StepBatch]:
    """Random samples, [K, B, ...] for every step."""
    rng, out = Rng(0), []
    for step in range(STEPS):
        if base.kind == "causal-lm":
            ids = rng("ids", step).integers(0, 512, (clients, 4, 64))
            inputs, labels = {"input_ids": ids, "attention_mask": np.ones_like(ids)}, ids
        else:
            pixels = rng("pixels", step).normal(size=(clients, 16, 1, 8, 8)).astype(np.float32)
            inputs, labels = {"pixel_values": pixels}, rng("labels", step).integers(0, 10, (clients, 16))
        real = np.ones(labels.shape[:2], bool)
        out.append(StepBatch(inputs, labels, real, np.ones(clients, bool)))
    return out


def pack(whole: list[StepBatch], part: slice) -> list[StepBatch]:
    return [
        StepBatch({n: v[part] for n, v in b.inputs.items()}, b.labels[part], b.mask_KB[part], b.active_K[part])
        for b in whole
    ]


def measure(base: FrozenBase, clients: int, turns: int) -> list[dict[str, Any]]:
    space, head = lora_space(base, LoraConfig(rank=8, targets="attention"))
    trainer = PackedTrainer(base, space)
    jobs = [LocalJob(initial_theta(space, head, "peft", Rng(k)), STEPS) for k in range(clients)]
    whole = batches(base, clients)
    sizes = [size for size in SIZES if size <= clients]
    packs = {size: [slice(at, at + size) for at in range(0, clients, size)] for size in sizes}

    def train(size: int) -> float:
        begun = time.thread_time()
        for part in packs[size]:
            trainer.train(jobs[part], pack(whole, part), SETTINGS)
        return time.thread_time() - begun

    for size in sizes:
        train(size)
    times: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(turns):
        for size in sizes:
            times[size].append(train(size))
    found = []
    for size in sizes:
        ratio = statistics.median(ten / one for one, ten in zip(times[size], times[10], strict=True))
        seconds = statistics.median(times[size])
        row = {"pack": size, "clients_per_s": clients / seconds, "against_ten": ratio}
        for cores in (2, 4):  # each core takes the next pack; the last ones may be smaller
            loads = [0] * cores
            for one in make_packs(1, np.arange(clients), {}, size, even=True):
                loads[loads.index(min(loads))] += len(one.clients)
            row[f"on_{cores}_cores"] = clients / (seconds * max(loads) / clients)
        found.append(row)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {"vit": measure(vit(), 20, options.turns), "llama": measure(llama(), 10, options.turns)}
    for name, rows in found.items():
        print(f"{name}: clients a second on one thread, against packs of ten, and if 2 or 4 cores share the packs")
        for row in rows:
            print(
                f"  pack {row['pack']:3d}  {row['clients_per_s']:7.2f}/s  {row['against_ten']:5.2f} x"
                f"  2 cores {row['on_2_cores']:7.2f}/s  4 cores {row['on_4_cores']:7.2f}/s"
            )
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
