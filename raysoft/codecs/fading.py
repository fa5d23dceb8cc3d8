"""What both kinds of error feedback share: names in a client's memory, and how it is damped."""

from __future__ import annotations

from dataclasses import dataclass

PREFIX = "ef/"


@dataclass(frozen=True)
class Fading:
    """How a memory is damped before it is used; what is taken away is forgotten."""

    decay: float = 1.0
    clip: float | None = None

    def factor(self, memory: float, update: float) -> float:
        """What the memory is multiplied by, from the squared norms of memory and update."""
        if self.clip is None or self.decay**2 * memory <= self.clip**2 * update:
            return self.decay
        return self.clip * (update / memory) ** 0.5
