"""Names in a client's memory, and how that of error feedback is damped before it is used."""

from __future__ import annotations

from dataclasses import dataclass

from raysoft.types import Tensors

PREFIX = "ef/"


def of_feedback(memory: Tensors) -> Tensors:
    """What error feedback remembers."""
    return {name: value for name, value in memory.items() if name.startswith(PREFIX)}


def of_inner(memory: Tensors) -> Tensors:
    """What is left to the codec inside."""
    return {name: value for name, value in memory.items() if not name.startswith(PREFIX)}


@dataclass(frozen=True)
class Fading:
    """How a memory is damped before it is used; what is taken away is forgotten."""

    decay: float = 1.0
    clip: float | None = None

    def factor(self, memory: float, update: float) -> float:
        """What the memory is multiplied by, from the squared norms of memory and update."""
        if self.clip is None or self.decay**2 * memory <= self.clip**2 * update:
            return self.decay
        ratio: float = (update / memory) ** 0.5
        return self.clip * ratio
