"""Padding on the other side, for models that read the last position. Shapes: M samples, L tokens."""

from __future__ import annotations

import torch
from torch import Tensor


def left_padded(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Right-padded token arrays [M, L] with each row's padding moved to its left."""
    mask_ML = inputs["attention_mask"]
    width = mask_ML.shape[1]
    shift_M = width - mask_ML.sum(1)
    index_ML = (torch.arange(width, device=mask_ML.device)[None] - shift_M[:, None]) % width
    return {n: v.gather(1, index_ML) if v.shape == mask_ML.shape else v for n, v in inputs.items()}
