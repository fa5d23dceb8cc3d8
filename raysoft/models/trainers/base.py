"""What the round asks of a trainer. No torch at load time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from raysoft.config import TrainConfig
from raysoft.data.base import Examples, StepBatch
from raysoft.types import Array, LocalJob, Tensors


@dataclass(frozen=True)
class LocalResult:
    """What local training leaves: values at the client's own rank, and its mean training loss over its steps."""

    end: dict[str, Array]
    loss: float


class Trainer(Protocol):
    """A base model with places for the clients' values. Holds no client state between calls."""

    def rebase(self, base: Tensors) -> None:
        """From now on work on W0 plus these changes, [O, I] by module; empty: on W0."""
        ...

    def check_rebase(self) -> None:
        """Raises RaysoftError where small changes of W0 would be lost."""
        ...

    def train(self, jobs: Sequence[LocalJob], batches: Sequence[StepBatch], settings: TrainConfig) -> list[LocalResult]:
        """Train every job on its rows of the batches; results in the order of the jobs."""
        ...

    def evaluate(self, theta: Tensors, examples: Examples, batch_size: int) -> dict[str, float]:
        """Sums over the examples for one adapter: `count`, `correct`, `loss_sum`."""
        ...

    def evaluate_samples(self, theta: Tensors, examples: Examples, batch_size: int) -> Array:
        """The same of every sample by itself: float64 [N, 3]."""
        ...

    def predict(self, theta: Tensors, examples: Examples, batch_size: int) -> Array:
        """The class that a classifier gives every sample: integers [N]."""
        ...
