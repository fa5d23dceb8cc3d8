"""Golden trajectories: what every preset did when it was recorded, number by number.

`python -m tests.trajectories` records them anew (a few minutes), `python -m tests.trajectories soft ffa` those named.
Do that only in a commit that changes numbers on purpose, and let its message say why.

On the processor type and library versions of the recording every number of the records and the adapter's hash must be
the same. Elsewhere rounding differs, and with it everything that a threshold depends on, so only the bits and the
first round's training loss are compared, from the recorded base model: pretraining magnifies a rounding error into
percents of accuracy, one round of fine-tuning leaves it at rounding.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from raysoft.environment import environment
from raysoft.models import embedded
from raysoft.presets import load_config, preset_names
from raysoft.runner import run

GOLDEN = Path(__file__).parent / "golden"
VIT = GOLDEN / "vit-digits.safetensors"
# What chooses a kernel, besides the processor.
SWITCHES = (
    "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "OPENBLAS_CORETYPE", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS",
    "NPY_DISABLE_CPU_FEATURES",
)  # fmt: skip
NUMERIC_LIBRARIES = ("numpy", "scipy", "torch", "transformers", "scikit-learn")


def is_text(preset: str) -> bool:
    return load_config(preset).data.task != "digits"


def digits_presets() -> list[str]:
    return [name for name in preset_names() if not is_text(name)]


def text_presets() -> list[str]:
    return [name for name in preset_names() if is_text(name)]


def where() -> dict[str, Any]:
    """Everything besides the configuration that the last bits depend on."""
    import torch

    found = environment()
    return {
        "python": found["python"],
        "cpu": found["cpu"],
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "libraries": {name: found["libraries"][name] for name in NUMERIC_LIBRARIES},
        "switches": {name: os.environ[name] for name in SWITCHES if name in os.environ},
    }


def trajectory(preset: str, folder: Path) -> dict[str, Any]:
    """Run a preset in this process for a few rounds; every number of its records, and its hashes."""
    text = is_text(preset)
    settings = (f"rounds={1 if text else 3}", "executor=inline", "data.max_test_samples=512")
    config = load_config(preset, [*settings, "tracking.tensorboard=false"])
    run(config, folder)
    rows = [json.loads(line) for line in (folder / "rounds.jsonl").read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row.pop("wall_time_s")
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    weights = embedded.ensure(config.model.name) / "model.safetensors"
    return {
        "where": where(),
        "base": embedded._hash(weights.read_bytes()),
        "adapter_sha256": summary["adapter_sha256"],
        "records": rows,
    }


def recorded(preset: str) -> dict[str, Any]:
    return json.loads((GOLDEN / f"{preset}.json").read_text(encoding="utf-8"))


def recorded_vit(recipe: Any, data: Any, folder: Path, key: Any, *_: Any) -> Path:
    """In place of `embedded._make`: the digits model as it was recorded, instead of one pretrained here."""
    assert recipe.name == "vit-digits"
    module: Any = embedded._draw(recipe, _generator())
    folder.mkdir(parents=True)
    module.save_pretrained(folder)
    shutil.copy(VIT, folder / "model.safetensors")
    embedded._save_processor(recipe, folder)
    manifest = {"key": key, "files": embedded._file_hashes(folder)}
    (folder / embedded._MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def _generator() -> Any:
    import torch

    return torch.Generator().manual_seed(0)


def record(presets: list[str]) -> None:
    GOLDEN.mkdir(exist_ok=True)
    shutil.copy(embedded.ensure("embedded/vit-digits") / "model.safetensors", VIT)
    for preset in presets:
        with tempfile.TemporaryDirectory() as scratch:
            found = trajectory(preset, Path(scratch) / "run")
        text = json.dumps(found, separators=(",", ":"), sort_keys=True)
        (GOLDEN / f"{preset}.json").write_text(text + "\n", encoding="utf-8")
        print(preset, found["adapter_sha256"][:12], file=sys.stderr)


if __name__ == "__main__":
    record(sys.argv[1:] or preset_names())
