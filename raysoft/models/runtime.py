"""How a process runs torch: threads, memory reuse, and arithmetic that repeats."""

from __future__ import annotations

import ctypes
import sys

import torch

from raysoft.errors import ResourceError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEEP_BYTES = 1 << 30


def prepare(device: str, threads: int) -> torch.device:
    """Pin the thread count, keep freed memory in the process, and resolve `auto | cpu | cuda`.

    Raises ResourceError for `cuda` without a CUDA device.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda"):
        if not torch.cuda.is_available():
            raise ResourceError("train.device=cuda, but torch sees no CUDA device; use train.device=cpu")
        # TensorFloat-32 rounds to ten bits, which would be visible next to a CPU run.
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.deterministic = True
    torch.set_num_threads(threads)
    _keep_freed_memory()
    return torch.device(device)


def _keep_freed_memory() -> None:
    """Let glibc reuse freed activations instead of returning them to the kernel after every operation.

    Each step allocates the same megabytes again; mapping and zeroing fresh pages cost 8 % of a training step.
    """
    if sys.platform.startswith("linux"):
        try:
            mallopt = ctypes.CDLL(None).mallopt
        except (AttributeError, OSError):  # another C library: nothing to tune
            return
        mallopt(_M_MMAP_THRESHOLD, _KEEP_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)
