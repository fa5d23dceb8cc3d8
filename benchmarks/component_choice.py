"""Does it matter which components travel? Importance against random components at a quarter of the component bits.

The preset `soft` on digits with a fixed kept fraction for everybody (allocator `minmax`), same seeds, same batches:
every run sends the same number of bits up to the mask. The figure is `final_accuracy`, the mean of the last 5
evaluations.

    python benchmarks/component_choice.py [--seeds 3] [--rounds 60] [--kept 0.25] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from raysoft.config.presets import load_config
from raysoft.runs.run import run

CHOICES = {
    "everything": ["codec.name=identity"],
    "update": ["codec.importance=update"],
    "gram_greedy": ["codec.importance=gram_greedy"],
    "norm": ["codec.importance=norm"],
    "random components": ["codec.name=randomk", "codec.unit=component"],
}
TARGET = 0.02


def final(choice: str, seed: int, rounds: int, kept: float, folder: Path) -> tuple[float, float]:
    """Final accuracy and share of the dense uplink of one run."""
    settings = [
        "executor=inline",
        "tracking.tensorboard=false",
        "allocator.name=minmax",
        "allocator.latency_budget_s=null",
        f"seed={seed}",
        f"rounds={rounds}",
        *CHOICES[choice],
        f"codec.kept_fraction={kept}",
    ]
    summary = run(load_config("soft", settings), folder / f"{choice}-{seed}").summary
    return summary["final_accuracy"], summary["metrics"]["uplink_share_of_dense32"]


def main() -> int:
    """Print the table; 1 if the best importance does not beat random components by two points."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--kept", type=float, default=0.25)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    table: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for choice in CHOICES:
            table[choice] = [final(choice, s, args.rounds, args.kept, Path(folder)) for s in range(args.seeds)]
            accuracy = [one for one, _ in table[choice]]
            shares = statistics.mean(share for _, share in table[choice])
            each = " ".join(f"{one:.3f}" for one in accuracy)
            print(
                f"{choice:>18}: {statistics.mean(accuracy):.3f}  ({each})  {shares:.1%} of the dense uplink", flush=True
            )
    gain = statistics.mean(a - b for (a, _), (b, _) in zip(table["update"], table["random components"], strict=True))
    print(f"importance `update` over random components: {100 * gain:+.1f} points, target {100 * TARGET:+.1f}")
    if args.json:
        args.json.write_text(json.dumps({"final": table, "gain": gain}, indent=2) + "\n")
    return 0 if gain >= TARGET else 1


if __name__ == "__main__":
    raise SystemExit(main())
