"""Private memory of client actors: the base shared through the object store, against a copy in every process.

A GPT-2 of 124 million values (drawn at random, nothing is downloaded; 0.5 GB) as the base. Each actor is measured after
its imports (interpreter, torch, transformers, peft) and again once it is ready to train; the figure is the growth of
its private memory (USS: pages that nobody else maps), the median over actors. With the shared base one further actor
loads the model for all of them. Activations of the training come on top in both cases.

    python benchmarks/actor_memory.py [--actors 3] [--small] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from _processes import MB, private_bytes, shared_bytes

from raysoft.config import RunConfig
from raysoft.config.presets import load_config
from raysoft.distributed.client_actor import ClientActor
from raysoft.federation.client import Worker
from raysoft.federation.executor import pin_threads
from raysoft.federation.workload import prepare

TARGET_MB = 20.0
BOUND_S = 500.0


@ray.remote
class Meter:
    """A client actor's process, which also tells its number and can load the base for itself."""

    def __init__(self, config: RunConfig) -> None:
        import raysoft.models.trainers.packed_lora  # noqa: F401 - as ClientActor does

        pin_threads(config.actors.threads)
        self.config = config

    def pid(self) -> int:
        return os.getpid()

    def adopt(self, workload: Any) -> None:
        """As ClientActor.adopt."""
        self.worker = Worker(self.config, workload)
        self.worker.build()

    def load(self) -> None:
        """A private copy."""
        self.adopt(prepare(self.config))


def make_model(folder: Path, small: bool) -> int:
    """A GPT-2 folder with a tokenizer; its number of values."""
    import torch
    import transformers as tf

    sizes = {"n_layer": 2, "n_embd": 128, "n_head": 2} if small else {}  # the defaults are those of GPT-2 124M
    torch.manual_seed(0)
    model = tf.GPT2LMHeadModel(tf.GPT2Config(bos_token_id=1, eos_token_id=1, pad_token_id=0, **sizes))
    model.save_pretrained(folder)
    tf.ByT5Tokenizer().save_pretrained(folder)
    (folder / "texts.jsonl").write_text(
        "".join(json.dumps({"text": f"number {n} of some texts"}) + "\n" for n in range(200))
    )
    return sum(value.numel() for value in model.parameters())


def measured(config: RunConfig, actors: int, shared: bool) -> list[tuple[float, float, float]]:
    """Private MB after the imports and when ready, and shared MB when ready, of each actor but a loader."""
    source = ClientActor.options(num_cpus=0.01).remote(config) if shared else None  # type: ignore[attr-defined]
    meters = [Meter.options(num_cpus=0.01).remote(config) for _ in range(actors)]  # type: ignore[attr-defined]
    pids = ray.get([meter.pid.remote() for meter in meters], timeout=BOUND_S)
    before = [private_bytes(pid) for pid in pids]
    if source is not None:
        workload, info = source.prepare.options(num_returns=2).remote()
        ray.get(info, timeout=BOUND_S)
        ray.get([meter.adopt.remote(workload) for meter in meters], timeout=BOUND_S)
    else:
        ray.get([meter.load.remote() for meter in meters], timeout=BOUND_S)
    rows = [
        (start / MB, private_bytes(pid) / MB, shared_bytes(pid) / MB) for pid, start in zip(pids, before, strict=True)
    ]
    for actor in [*meters, *([] if source is None else [source])]:
        ray.kill(actor)
    return rows


def main() -> int:
    """Print the table; 1 if the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--actors", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="a tiny model, to see whether the script works")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        values = make_model(folder, args.small)
        config = load_config(
            "soft",
            [
                f"model.name={folder}",
                "model.lora.targets=auto",
                "data.task=causal-lm",
                f"data.path={folder}/texts.jsonl",
                "data.partition=iid",
                "data.clients=20",
                "data.max_length=32",
                "cohort.size=10",
            ],
        )
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
            object_store_memory=int(2e9),
            logging_level="ERROR",
        )
        try:
            found = {kind: measured(config, args.actors, kind == "shared") for kind in ("shared", "private copies")}
        finally:
            ray.shutdown()
    print(f"a base of {values:,} values ({4 * values / MB:.0f} MB); MB an actor, medians of {args.actors}")
    print(f"{'':>16} {'after imports':>14} {'ready':>8} {'growth':>8} {'mapped together':>16}")
    growth = {}
    for kind, rows in found.items():
        start, ready, mapped = (statistics.median(column) for column in zip(*rows, strict=True))
        growth[kind] = statistics.median(ready - start for start, ready, _ in rows)
        print(f"{kind:>16} {start:>14.0f} {ready:>8.0f} {growth[kind]:>8.1f} {mapped:>16.0f}")
    print(f"private growth with the shared base: {growth['shared']:.1f} MB   target {TARGET_MB:g} MB")
    if args.json:
        args.json.write_text(json.dumps({"values": values, "rows_mb": found, "growth_mb": growth}, indent=2) + "\n")
    return 0 if growth["shared"] <= TARGET_MB else 1


if __name__ == "__main__":
    raise SystemExit(main())
