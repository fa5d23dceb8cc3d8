"""A round of one tree against a round of another: whether a change made the main job slower.

Two processes, one a tree, take turns round by round (A B, B A, ...), so that a machine that slows down does so for
both. Rounds as the coordinator runs them inline, without evaluation, reports or files; the first is left out.

    git worktree add --detach /tmp/before REVISION
    python benchmarks/_two_trees.py /tmp/before . soft [--rounds 60] [key=value ...]
    python benchmarks/_two_trees.py /tmp/before . soft-text --rounds 40 cohort.size=4
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROUNDS = """
import sys, time
from raysoft.config.presets import load_config
from raysoft.federation.coordinator import Coordinator
from raysoft.federation.executor import InlineExecutor

rounds, preset, *words = sys.argv[1:]
config = load_config(preset, [f"rounds={int(rounds) + 2}", "eval.every=1000000", *words])
coordinator = Coordinator(config, InlineExecutor(config))
coordinator.start()
coordinator.round(1)
print("ready", flush=True)
for tick in range(2, int(rounds) + 2):
    sys.stdin.readline()
    cpu, wall = time.process_time(), time.perf_counter()
    coordinator.round(tick)
    print(time.process_time() - cpu, time.perf_counter() - wall, flush=True)
"""


class Tree:
    """A process that runs rounds of one tree when it is told to."""

    def __init__(self, root: Path, rounds: int, preset: str, words: list[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", ROUNDS, str(rounds), preset, *words],
            env=os.environ | {"PYTHONPATH": str(root.resolve()), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        while (line := self._line()) != "ready":
            print(f"{root}: {line}")

    def round(self) -> tuple[float, float]:
        """CPU and wall seconds of the next one."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        cpu, wall = map(float, self._line().split())
        return cpu, wall

    def _line(self) -> str:
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"the process ended with {self._process.wait()}")
        return line.strip()


def main() -> None:
    """Print medians and quartiles of the second tree's time over the first one's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("preset")
    parser.add_argument("--rounds", type=int, default=60)
    options, words = parser.parse_known_args()
    trees = [Tree(root, options.rounds, options.preset, words) for root in (options.before, options.after)]
    ratios = []
    for number in range(options.rounds):
        order = trees if number % 2 == 0 else trees[::-1]
        spent = {tree: tree.round() for tree in order}
        before, after = (spent[tree] for tree in trees)
        ratios.append([new / old for old, new in zip(before, after, strict=True)])
    for name, column in zip(("CPU", "wall"), zip(*ratios, strict=True), strict=True):
        low, middle, high = statistics.quantiles(column, n=4)
        quartiles = f"median {middle:.3f}, quartiles {low:.3f} {high:.3f}"
        print(f"{options.preset}: {name} time of a round, after / before: {quartiles}")


if __name__ == "__main__":
    main()
