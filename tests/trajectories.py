"""Golden trajectories: what every preset did when it was recorded, number by number.

`python -m tests.trajectories` records them anew (a few minutes), `python -m tests.trajectories soft ffa` those named.
Do that only in a commit that changes numbers on purpose, and let its message say why.

Keys of a record that came later (ADDED) are left out: they stand beside the recorded ones.

Each digits preset is recorded twice, the second time under `actors.portable`, which must give the same bytes on every
x86-64 processor with equal libraries.

On the processor type and library versions of the recording every number of the records and the adapter's hash must be
the same. Elsewhere rounding differs, and with it everything that a threshold depends on, so only the bits and the
first round's training loss are compared. Digits presets start from the recorded base model everywhere: pretraining
magnifies a rounding error into percents of accuracy, while one round of fine-tuning leaves it at rounding. Recording
all presets records that model, too.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from raysoft.config.presets import load_config, preset_names
from raysoft.kernels import portable
from raysoft.models import embedded
from raysoft.rundir.environment import environment
from raysoft.runs.run import run

GOLDEN = Path(__file__).parent / "golden"
VIT = GOLDEN / "vit-digits.safetensors"
# What chooses a kernel, besides the processor.
SWITCHES = (
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "NPY_DISABLE_CPU_FEATURES",
)
# Columns over clients that were added after the recording.
ADDED = ("compute_s", "control_bits", "downlink_s")
NUMERIC_LIBRARIES = ("numpy", "scipy", "torch", "transformers", "scikit-learn")


def portable_environment() -> dict[str, str]:
    return {**os.environ, **portable.SETTINGS}


def is_text(preset: str) -> bool:
    return load_config(preset).data.task == "python-source"


def digits_presets() -> list[str]:
    """Those that start from the digits model."""
    return [name for name in preset_names() if not is_text(name)]


def domains_presets() -> list[str]:
    """Those of them whose clients are domains."""
    return [name for name in preset_names() if load_config(name).data.task == "digit-domains"]


def text_presets() -> list[str]:
    return [name for name in preset_names() if is_text(name)]


def where() -> dict[str, Any]:
    """Everything besides the configuration that the last bits depend on."""
    import torch

    found = environment()
    if portable.active():
        libraries = {name: found["libraries"][name] for name in NUMERIC_LIBRARIES}
        return {"machine": found["machine"], "libc": platform.libc_ver()[1], "libraries": libraries}
    return {
        "python": found["python"],
        "cpu": found["cpu"],
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "libraries": {name: found["libraries"][name] for name in NUMERIC_LIBRARIES},
        "switches": {name: os.environ[name] for name in SWITCHES if name in os.environ},
    }


def trajectory(preset: str, folder: Path) -> dict[str, Any]:
    """Run a preset in this process for a few rounds; every number of its records, and its hashes."""
    with nullcontext() if is_text(preset) or portable.active() else recorded_base():
        return _trajectory(preset, folder)


def _trajectory(preset: str, folder: Path) -> dict[str, Any]:
    text = is_text(preset)
    settings = (f"rounds={1 if text else 3}", "executor=inline", "data.max_test_samples=512")
    settings = (*settings, "tracking.tensorboard=false", *(("actors.portable=true",) if portable.active() else ()))
    config = load_config(preset, settings)
    run(config, folder, report=False)
    rows = [json.loads(line) for line in (folder / "rounds.jsonl").read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row.pop("wall_time_s")
        for name in ADDED:
            row["metrics"].get("clients", {}).pop(name, None)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    weights = embedded.ensure(config.model.name) / "model.safetensors"
    return {
        "where": where(),
        "base": hashlib.blake2b(weights.read_bytes(), digest_size=16).hexdigest(),
        "adapter_sha256": summary["adapter_sha256"],
        "records": rows,
    }


def file_of(preset: str) -> Path:
    return GOLDEN / ("portable" if portable.active() else "") / f"{preset}.json"


def recorded(preset: str) -> dict[str, Any]:
    return json.loads(file_of(preset).read_text(encoding="utf-8"))


def recorded_vit(recipe: Any, data: Any, progress: Any) -> Any:
    """In place of `embedded.pretrain`: the digits model as it was recorded."""
    import torch
    from safetensors.torch import load_file

    model: Any = embedded.draw(recipe, torch.Generator().manual_seed(0))
    return model.from_pretrained(None, config=model.config, state_dict=load_file(VIT)).eval()


@contextmanager
def recorded_base() -> Iterator[None]:
    """Inside, the digits model is the recorded one, in a cache of its own."""
    cache = os.environ.get("RAYSOFT_CACHE")
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["RAYSOFT_CACHE"] = scratch
        try:
            embedded.ensure("embedded/vit-digits", pretrain=recorded_vit)
            yield
        finally:
            del os.environ["RAYSOFT_CACHE"]
            if cache is not None:
                os.environ["RAYSOFT_CACHE"] = cache


def record_base() -> None:
    """The digits model as it is pretrained here."""
    shutil.copy(embedded.ensure("embedded/vit-digits") / "model.safetensors", VIT)
    VIT.with_suffix(".where").write_text(json.dumps(where(), sort_keys=True) + "\n", encoding="utf-8")


def record(presets: list[str]) -> None:
    for preset in presets:
        with tempfile.TemporaryDirectory() as scratch:
            found = trajectory(preset, Path(scratch) / "run")
        text = json.dumps(found, separators=(",", ":"), sort_keys=True)
        file_of(preset).parent.mkdir(parents=True, exist_ok=True)
        file_of(preset).write_text(text + "\n", encoding="utf-8")
        print(preset, found["adapter_sha256"][:12], file=sys.stderr)


if __name__ == "__main__":
    if not sys.argv[1:] and not portable.active():
        record_base()
    record(sys.argv[1:] or (digits_presets() if portable.active() else preset_names()))
    if not portable.active():
        named = [name for name in sys.argv[1:] if not is_text(name)]
        if named or not sys.argv[1:]:
            subprocess.run([sys.executable, "-m", "tests.trajectories", *named], env=portable_environment(), check=True)
