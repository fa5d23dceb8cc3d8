"""Fingerprints of named arrays. No torch here: checkpoints and coordinators use it too."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from raysoft.types import Tensors


def tensors_sha256(tensors: Tensors) -> str:
    """SHA-256 over (name, dtype, shape, bytes), sorted by name. Memory order does not matter, values do bit for bit.

    >>> tensors_sha256({"a": np.zeros(2)}) == tensors_sha256({"a": np.zeros(2)})
    True
    >>> tensors_sha256({"a": np.zeros(2)}) == tensors_sha256({"a": np.zeros(2, np.float32)})
    False
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = np.asarray(tensors[name])
        head = json.dumps([name, value.dtype.str, list(value.shape)]).encode()
        digest.update(len(head).to_bytes(8, "little"))
        digest.update(head)
        digest.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def adapter_sha256(theta: Tensors) -> str:
    """The fingerprint of all server parameters, as in summary.json."""
    return tensors_sha256(theta)
