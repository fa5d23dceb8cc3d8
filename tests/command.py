"""The command line in a process of its own."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def raysoft(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`raysoft WORDS` in the repository, or in `cwd`; whatever its exit code, at most four minutes."""
    return subprocess.run(
        [sys.executable, "-m", "raysoft", *words],
        cwd=cwd or ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
