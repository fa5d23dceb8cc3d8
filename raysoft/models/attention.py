"""Which attention kernel a packed step uses: by shape alone, never by what the clients' data happen to contain.

transformers drops the mask of fused attention when no sample of the batch is padded, and then takes another kernel. In
a packed batch that would let one client's padding change the last bits of another client. `FUSED` is the same kernel
with the mask always present. For short sequences plain attention (`eager`) is faster on a CPU, and always masked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

FUSED = "raysoft_fused"
EAGER_TOKENS = 32  # measured on one core: eager wins at 17 to 32 tokens; its memory grows with the square


def _always_masked(**kwargs: Any) -> Tensor | None:
    return sdpa_mask(**kwargs | {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False})


AttentionInterface.register(FUSED, sdpa_attention_forward)
AttentionMaskInterface.register(FUSED, _always_masked)


def choose_attention(module: Any, inputs: Mapping[str, Tensor]) -> None:
    """Set the kernel for a batch of this shape; models with an attention of their own are left alone."""
    current = module.config._attn_implementation
    if current not in ("sdpa", "eager", FUSED) or not getattr(module, "_supports_sdpa", False):
        return
    short = _tokens(module, inputs) <= EAGER_TOKENS and next(iter(inputs.values())).device.type == "cpu"
    wanted = "eager" if short else FUSED
    if current != wanted:
        module.set_attn_implementation(wanted)


def _tokens(module: torch.nn.Module, inputs: Mapping[str, Tensor]) -> int:
    """Sequence length; for images the patches and the class token."""
    if "input_ids" in inputs:
        return inputs["input_ids"].shape[1]
    patch = getattr(module.config, "patch_size", None)
    if not isinstance(patch, int):
        return EAGER_TOKENS + 1
    height, width = inputs["pixel_values"].shape[-2:]
    return math.ceil(height / patch) * math.ceil(width / patch) + 1
