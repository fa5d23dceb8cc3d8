"""How a process runs torch: threads, memory reuse, and arithmetic that repeats."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from raysoft.errors import ResourceError
from raysoft.kernels import portable

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
    exact_roots()
    _keep_freed_memory()
    return torch.device(device)


@contextmanager
def threads_kept() -> Iterator[None]:
    """torch's thread count is as before after the block, whoever sets it inside."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _ExactRoots(TorchFunctionMode):
    """Square roots by numpy, which uses the processor's own instruction: correctly rounded everywhere.

    PyTorch's come from MKL's vector functions, whose last bit depends on the processor whatever the switches say.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.sqrt, Tensor.sqrt) and _plain(args[0]):
            return torch.from_numpy(np.sqrt(args[0].detach().numpy()))
        if func is Tensor.sqrt_ and _plain(args[0]):
            return args[0].copy_(torch.from_numpy(np.sqrt(args[0].detach().numpy())))
        if func is torch._foreach_sqrt and all(map(_plain, args[0])):
            return [torch.from_numpy(np.sqrt(one.detach().numpy())) for one in args[0]]
        return func(*args, **(kwargs or {}))


def _plain(value: Tensor) -> bool:
    """Roots that a gradient flows through stay PyTorch's: an optimiser's never are."""
    return value.device.type == "cpu" and not (value.requires_grad and torch.is_grad_enabled())


_rooted = threading.local()  # PyTorch keeps such modes thread by thread


def exact_roots() -> None:
    """In a portable process: exact square roots in this thread from here on (see raysoft.kernels.portable)."""
    if portable.active() and not hasattr(_rooted, "mode"):
        _rooted.mode = _ExactRoots()
        _rooted.mode.__enter__()


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
