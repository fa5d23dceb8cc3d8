"""Adapters in peft's folder format: adapter_config.json and adapter_model.safetensors.

`peft.PeftModel.from_pretrained(model, folder)` reproduces the trained model's logits. A trained head travels as
`modules_to_save`; so does a head that differs from the checkpoint because it was drawn or its labels were put into
another order, since the checkpoint alone could not give the same logits.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from raysoft import atomic
from raysoft.config import LoraConfig
from raysoft.errors import RaysoftError
from raysoft.models.digest import adapter_sha256
from raysoft.models.frozen import FrozenBase, as_float32, body_name, build_module, empty_module, quiet
from raysoft.types import Array, GlobalModel, ParamSpace, Tensors

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_TASK_TYPES = {"causal-lm": "CAUSAL_LM"}  # peft would add modules of its own for the other kinds


def export_peft(theta: Tensors, base: FrozenBase, space: ParamSpace, lora: LoraConfig, folder: Path) -> None:
    """Write the adapter `theta` (at r_max) into `folder`; files appear whole or not at all."""
    from safetensors.numpy import save

    tensors = {}
    for pair in space.pairs:
        tensors[f"{_PREFIX}{pair.module}.lora_A.weight"] = theta[pair.a]
        tensors[f"{_PREFIX}{pair.module}.lora_B.weight"] = theta[pair.b]
    module: Any = empty_module(base)
    saved = sorted({_saved_module(name, body_name(module)) for name in (*space.always_sent, *base.fresh)})
    for name, value in base.weights.items():
        if any(name.startswith(f"{owner}.") for owner in saved):
            tensors[_PREFIX + name] = theta[name] if name in theta else as_float32(value)
    folder.mkdir(exist_ok=True)
    blob = save({name: np.ascontiguousarray(value) for name, value in sorted(tensors.items())}, {"format": "pt"})
    atomic.write_bytes(folder / WEIGHTS_FILE, blob)
    config = _peft_config(base, space, lora, saved, module)
    atomic.write_bytes(folder / CONFIG_FILE, (json.dumps(config, indent=2, sort_keys=True) + "\n").encode())


def as_adapter(space: ParamSpace, model: GlobalModel) -> tuple[ParamSpace, Tensors]:
    """A model as one adapter of the untouched base: itself, or where something was merged, of the rank that takes.

    Singular values below float32's rounding of the largest are left out.
    """
    if not model.base:
        return space, model.theta
    parts = []
    for pair in space.pairs:
        product = space.scale * model.theta[pair.b].astype(np.float64) @ model.theta[pair.a].astype(np.float64)
        left, sigma, right = np.linalg.svd(model.base[pair.module].astype(np.float64) + product, full_matrices=False)
        parts.append((left * sigma, right, int((sigma > np.finfo(np.float32).eps * sigma[0]).sum())))
    rank = max(1, *(used for _, _, used in parts))
    theta = {block.name: model.theta[block.name] for block in space.dense}
    for pair, (left, right, _) in zip(space.pairs, parts, strict=True):
        theta[pair.b], theta[pair.a] = np.zeros((pair.out_features, rank)), np.zeros((rank, pair.in_features))
        most = min(rank, len(right))
        theta[pair.b][:, :most], theta[pair.a][:most] = left[:, :most], right[:most]
    theta = {name: value.astype(np.float32) for name, value in theta.items()}
    return replace(space, rank=rank, scale=1.0), theta


def _peft_config(
    base: FrozenBase, space: ParamSpace, lora: LoraConfig, saved: list[str], module: Any
) -> dict[str, Any]:
    from transformers.pytorch_utils import Conv1D

    name, at, revision = base.source.rpartition("@")
    if not at or Path(base.source).exists():
        name, revision = base.source, ""
    if Path(name).exists():
        name = str(Path(name).resolve())  # peft looks for it from wherever the adapter is loaded
    return {
        "peft_type": "LORA",
        "task_type": _TASK_TYPES.get(base.kind),
        "base_model_name_or_path": name,
        "revision": revision or None,
        "r": space.rank,
        "lora_alpha": space.scale * (space.rank**0.5 if lora.use_rslora else space.rank),
        "use_rslora": lora.use_rslora,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": [pair.module for pair in space.pairs],
        "modules_to_save": saved or None,
        "fan_in_fan_out": isinstance(module.get_submodule(space.pairs[0].module), Conv1D),
        "init_lora_weights": True,
        "inference_mode": True,
    }


def _saved_module(name: str, body: str) -> str:
    """The module that peft keeps whole: the head as a child of the model, or a pooler inside the body."""
    parts = name.split(".")
    if parts[0] != body:
        return parts[0]
    return ".".join(parts[: parts.index("pooler") + 1]) if "pooler" in parts else name.rpartition(".")[0]


def import_peft(folder: Path, space: ParamSpace) -> dict[str, Array]:
    """The parameters of an exported adapter, float32. Raises RaysoftError where it does not fit `space`."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        stored = load_file(folder / WEIGHTS_FILE)
    except (OSError, ValueError, SafetensorError) as error:
        raise RaysoftError(f"{folder}: not a readable adapter: {error}") from None
    rank = config["r"]
    scale = config["lora_alpha"] / (rank**0.5 if config.get("use_rslora") else rank)
    if not np.isclose(scale, space.scale, rtol=1e-12):
        raise RaysoftError(f"{folder}: the adapter has the scale {scale:g}, the run has {space.scale:g}")
    theta = {}
    dense = space.always_sent
    for name, shape in space.shapes.items():
        value = stored.get(f"{_PREFIX}{name}" if name in dense else f"{_PREFIX}{name}.weight")
        if value is None or value.shape != shape:
            found = "no such parameter" if value is None else f"shape {value.shape}"
            raise RaysoftError(f"{folder}: {name} should have shape {shape}, the adapter has {found}")
        theta[name] = value.astype(np.float32)
    return theta


def save_base(base: FrozenBase, folder: Path) -> None:
    """The base model as a Hugging Face folder, so that an adapter of an embedded model can be used elsewhere."""
    module: Any = build_module(base)
    with quiet():
        module.save_pretrained(folder)


__all__ = ["adapter_sha256", "as_adapter", "export_peft", "import_peft", "save_base"]
