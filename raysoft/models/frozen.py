"""The frozen base model: plain numpy weights that every process maps, and the torch module built on top of them.

A `FrozenBase` is pickled once into the object store; readers map its pages without copying. `build_module` makes a
module on the meta device and assigns views of these arrays, so a process that holds the model pays for its activations
only. The pages stay writable through torch, so `verify` compares a checksum.

numpy has no bfloat16: an int16 array holds the bit patterns of bfloat16 weights (no model has int16 weights of its
own). Float16 weights are widened to float32, which is exact, because CPUs train poorly in half precision.
Buffers that a state dict leaves out (rotary frequencies, position ids) are stored with the weights, since a module made
on the meta device cannot recompute them.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from logging import CRITICAL, getLogger
from typing import TYPE_CHECKING, Any

import numpy as np

from raysoft.data.base import TaskKind
from raysoft.errors import RaysoftError
from raysoft.models.digest import tensors_sha256
from raysoft.types import Array

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

ALIGNMENT = 64  # bytes; the last bits of a matrix product may depend on where in a cache line a matrix begins


@dataclass(frozen=True)
class FrozenBase:
    """A pretrained model as data: picklable, numpy only, shared read-only between processes."""

    kind: TaskKind
    architecture: str  # class name in transformers, e.g. ViTForImageClassification
    config_json: str  # the Hugging Face configuration
    weights: Mapping[str, Array]  # state dict without tied duplicates, plus non-persistent buffers
    checksum: str
    source: str  # where it came from, for people
    pad_left: bool = False  # where only padding on the left leaves a sample's logits alone (`probe`)
    fresh: tuple[str, ...] = ()  # a head that differs from the checkpoint: newly drawn, or in another order of labels

    def num_bytes(self) -> int:
        """Size of the shared weights."""
        return sum(value.nbytes for value in self.weights.values())

    def config(self) -> dict[str, Any]:
        """The Hugging Face configuration as a dictionary."""
        return json.loads(self.config_json, object_hook=_special_float)


def _special_float(value: dict[str, Any]) -> Any:
    """transformers writes infinity, which JSON lacks, as {"__float__": "Infinity"} (Mamba-2's time steps)."""
    return float(value["__float__"]) if value.keys() == {"__float__"} else value


def body_name(module: torch.nn.Module) -> str:
    """Name of the submodule that is the model without its head; "" where there is none of its own.

    `base_model_prefix` as a rule. CLIP and SigLIP classifiers keep the prefix of the two-tower model, which they are
    not: there it is the one child that is a whole model.
    """
    from transformers import PreTrainedModel

    prefix = str(getattr(module, "base_model_prefix", ""))
    if prefix and hasattr(module, prefix):
        return prefix
    models = [name for name, part in module.named_children() if isinstance(part, PreTrainedModel)]
    return models[0] if len(models) == 1 else ""


def checksum(weights: Mapping[str, Array]) -> str:
    """SHA-256 of the weights by name, dtype, shape and bytes."""
    return tensors_sha256(weights)


def verify(base: FrozenBase) -> None:
    """Raise RaysoftError, naming this process, if anything wrote into the shared weights."""
    found = checksum(base.weights)
    if found != base.checksum:
        raise RaysoftError(
            f"the frozen weights of {base.source} changed in memory: process {os.getpid()} finds checksum "
            f"{found[:12]}, expected {base.checksum[:12]}; some code wrote into the shared base model in place"
        )


def freeze(module: torch.nn.Module, kind: TaskKind, source: str, fresh: tuple[str, ...] = ()) -> FrozenBase:
    """A private numpy copy of a Hugging Face model (a `PreTrainedModel`), 64-byte aligned and marked read-only."""
    import torch

    tensors = {**module.state_dict(), **{n: b for n, b in module.named_buffers() if b is not None}}
    seen: dict[tuple[int, ...], str] = {}
    weights: dict[str, Array] = {}
    for name, tensor in tensors.items():
        # Tied weights are stored once; `tie_weights` joins them again.
        identity = (tensor.data_ptr(), *tensor.shape, *tensor.stride())
        if isinstance(tensor, torch.Tensor) and tensor.numel() and identity in seen:
            continue
        seen[identity] = name
        weights[name] = _to_numpy(tensor.detach())
    config: Any = module.config
    config_json = config.to_json_string(use_diff=False)
    return FrozenBase(kind, type(module).__name__, config_json, weights, checksum(weights), source, fresh=fresh)


def _to_numpy(tensor: torch.Tensor) -> Array:
    import torch

    tensor = tensor.cpu()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.contiguous().view(torch.int16)
    elif tensor.dtype == torch.float16:
        tensor = tensor.float()
    return aligned_copy(tensor.contiguous().numpy())


def aligned_copy(value: Array) -> Array:
    """A read-only C-ordered copy that begins at a multiple of 64 bytes."""
    buffer = np.empty(value.nbytes + ALIGNMENT, dtype=np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT
    copy = buffer[start : start + value.nbytes].view(value.dtype).reshape(value.shape)
    copy[...] = value
    copy.flags.writeable = False
    return copy


def as_float32(value: Array) -> Array:
    """A stored weight in float32 (bfloat16 bits are the upper half of a float32: exact)."""
    if value.dtype == np.int16:
        return (value.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return value.astype(np.float32)


def empty_module(base: FrozenBase) -> torch.nn.Module:
    """The architecture without values (meta device): for reading names and shapes. Costs milliseconds."""
    import torch
    import transformers

    model_class = getattr(transformers, base.architecture)
    config = model_class.config_class.from_dict(base.config())
    config.use_cache = False  # a training step never reads past keys and values
    with torch.device("meta"), quiet():
        return model_class(config).eval().requires_grad_(False)


def build_module(base: FrozenBase, device: str = "cpu") -> torch.nn.Module:
    """The model in eval mode over the shared weights, none of which requires a gradient.

    On the CPU parameters are views of `base.weights` (nothing is copied, except a matrix that is not 64-byte aligned).
    Never write into them. Raises RaysoftError if weights and architecture do not fit.
    """
    import torch

    module = empty_module(base)
    tensors = {name: _view(value) for name, value in base.weights.items()}
    known = set(module.state_dict())
    report = module.load_state_dict({n: t for n, t in tensors.items() if n in known}, strict=False, assign=True)
    for name in tensors.keys() - known:
        owner, _, leaf = name.rpartition(".")
        parent = module.get_submodule(owner)
        if leaf not in parent._buffers:
            raise RaysoftError(f"{base.source}: {base.architecture} has no weight {name!r}")
        parent._buffers[leaf] = tensors[name]
    tie: Any = module.tie_weights
    tie()
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.device.type == "meta":
            raise RaysoftError(f"{base.source}: weight {name!r} of {base.architecture} is missing ({report})")
    _refuse_hidden_tensors(module, base)
    module.eval().requires_grad_(False)
    return module if torch.device(device).type == "cpu" else module.to(device)


def _refuse_hidden_tensors(module: torch.nn.Module, base: FrozenBase) -> None:
    """A tensor kept as a plain attribute would stay on the meta device and fail later, far from its cause."""
    import torch

    for name, part in module.named_modules():
        for key, value in vars(part).items():
            if isinstance(value, torch.Tensor) and value.device.type == "meta":
                raise RaysoftError(
                    f"{base.source}: {base.architecture} keeps {name}.{key} outside parameters and "
                    "buffers, which raysoft cannot share between processes"
                )


def _view(value: Array) -> torch.Tensor:
    import torch

    if value.ndim > 1 and value.ctypes.data % ALIGNMENT:
        value = aligned_copy(value)
    with warnings.catch_warnings():
        # The array is read-only on purpose; `verify` guards what the warning is about.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        tensor = torch.from_numpy(value)
    return tensor.view(torch.bfloat16) if tensor.dtype == torch.int16 else tensor


@contextmanager
def quiet() -> Iterator[None]:
    """Hugging Face's advice and progress bars off: what matters is said by raysoft itself."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hub = getLogger("huggingface_hub")
    hub_level = hub.level
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    hub.setLevel(CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(level)
        hub.setLevel(hub_level)
        if bars:
            logging.enable_progress_bar()
