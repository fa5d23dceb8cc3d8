"""What a model does with a few samples, before anybody trains it: which layers it calls, and what padding does to it.

Shapes: M samples, L tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raysoft.data.base import Examples
from raysoft.errors import ConfigError
from raysoft.models.frozen import FrozenBase, build_module
from raysoft.models.padding import left_padded
from raysoft.models.targets import linear_size
from raysoft.types import Array

_SAME = 1e-4  # of the largest logit: a hundred times float32's rounding, far below what a visible padding token does


def called_linears(base: FrozenBase, inputs: Mapping[str, Array]) -> set[str]:
    """Names of the linear layers that the model sends these inputs through (arrays of a few samples)."""
    module: Any = build_module(base)
    called: set[str] = set()
    for name, part in module.named_modules():
        if linear_size(part) is not None:
            part.register_forward_pre_hook(lambda _part, _inputs, name=name: called.add(name))
    _logits(base, module, {name: torch.tensor(value) for name, value in inputs.items()})
    return called


def with_padding_side(base: FrozenBase, examples: Examples) -> FrozenBase:
    """The base, told to have its padding on the left where only that leaves a sample's logits as they are alone.

    A classifier that reads the last position (XLNet) would read padding on the right. Padding that changes the answer
    on either side (a convolution over tokens) would make a sample's class depend on its neighbours in the batch:
    refused with ConfigError("model.name"), unless all samples are of one length and nothing is ever padded.
    """
    lengths = examples.lengths
    if base.kind != "sequence-classification" or lengths is None or lengths.min() == lengths.max():
        return base
    module = build_module(base).float()  # in bfloat16, another width alone moves a logit by a percent
    shortest = int(np.argmin(lengths))
    padded = {
        name: torch.tensor(value[shortest : shortest + 1, : lengths.max()]) for name, value in examples.inputs.items()
    }
    alone = {name: value[:, : lengths[shortest]] for name, value in padded.items()}
    expected = _logits(base, module, alone)
    for left in (False, True):
        found = _logits(base, module, left_padded(padded) if left else padded)
        if float((found - expected).abs().max()) <= _SAME * float(expected.abs().max()):
            return replace(base, pad_left=True) if left else base
    raise ConfigError(
        "model.name",
        f"{base.source!r} ({base.architecture}) answers otherwise when padding stands beside a text, so its answer "
        "would depend on the batch; choose another model, or texts of equal length",
    )


@torch.no_grad()
def _logits(base: FrozenBase, module: torch.nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    dtype = next(value.dtype for value in module.parameters() if value.is_floating_point())
    try:
        return module(**{n: v.to(dtype) if v.is_floating_point() else v for n, v in inputs.items()}).logits.float()
    except Exception as error:  # whatever line of an architecture it comes from
        shapes = ", ".join(f"{name} {list(value.shape[1:])}" for name, value in inputs.items())
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            "model.name",
            f"{base.source!r} ({base.architecture}) cannot read what its own processor makes of the data "
            f"({shapes}): {reason}",
        ) from None
