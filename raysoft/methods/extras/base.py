"""What an extra decides: it changes what a client trains, what it sends besides, and the server's step.

`method.extras: [{name: fedprox, mu: 0.01}, ...]`. On the client extras act in this order, on the server in the reverse
one. Each has a memory of its own, and randomness that only the client knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from raysoft.config import Section, TrainConfig
from raysoft.types import LocalJob, ParamSpace, Reception, ServerState, Tensors, Upload, View


class ExtraConfig(Section):
    """Options every extra has: none."""


@dataclass(frozen=True)
class ExtraContext:
    """What an extra is built for: the values, how clients train, and how many of them there are."""

    space: ParamSpace
    train: TrainConfig
    clients: int


class Extra(Protocol):
    """Built from (config, ExtraContext); holds no state. `Plain` answers all of it with "nothing to add"."""

    def side(self, server: ServerState) -> Tensors:
        """What the server sends to everybody besides the values, charged as float32.

        Called like the values of the model they belong to, at r_max: a client of a smaller rank is charged its part.
        An ORDER of components (types.py) is for the codec, and charged by its number; the trait `common_order` says so.
        """
        ...

    def local(self, job: LocalJob, view: View, memory: Tensors, rng: np.random.Generator) -> LocalJob:
        """What the client trains. `memory`: what this extra remembers of it; `view.side` is what `side` gave."""
        ...

    def upload(
        self, upload: Upload, job: LocalJob, end: Tensors, view: View, memory: Tensors, rng: np.random.Generator
    ) -> Upload:
        """What the client sends; `upload.side` and the memories are this extra's own."""
        ...

    def step(self, before: ServerState, proposed: ServerState, received: Reception) -> ServerState:
        """The next global model, given the one proposed so far; `received.side`: the sums of this extra's own."""
        ...


@dataclass(frozen=True)
class Plain:
    """An extra that adds nothing; one that does inherits the rest."""

    def side(self, server: ServerState) -> Tensors:
        """Nothing."""
        return {}

    def local(self, job: LocalJob, view: View, memory: Tensors, rng: np.random.Generator) -> LocalJob:
        """As it is."""
        return job

    def upload(
        self, upload: Upload, job: LocalJob, end: Tensors, view: View, memory: Tensors, rng: np.random.Generator
    ) -> Upload:
        """As it is."""
        return upload

    def step(self, before: ServerState, proposed: ServerState, received: Reception) -> ServerState:
        """As proposed."""
        return proposed
