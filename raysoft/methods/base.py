"""What a federated fine-tuning method decides. One file per paper; see `soft.py` for the shape.

A method is built from its own frozen Config on every process and holds no state. Everything is numpy; torch appears
only inside the loss term that `local` may return.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Annotated, ClassVar, Protocol

import numpy as np
from pydantic import Field, field_validator

from raysoft.config import PartError, Plugin, PluginList, Positive, RunConfig, Section, registry
from raysoft.errors import ConfigError
from raysoft.methods.folds import Fold
from raysoft.types import Array, Broadcast, GlobalModel, LocalJob, Reception, ServerState, Tensors, Upload, View


class MethodConfig(Section):
    """Options every method has. `extras`: what is added to it, each {name, **options} or a name (see extras/)."""

    LATER: ClassVar[tuple[str, ...]] = ("extras",)

    server_lr: Positive = 1.0
    """Step of the server along the mean update. [1]"""
    extras: Annotated[PluginList, Field(max_length=8)] = []  # noqa: RUF012 - pydantic copies it
    """What is added to the method, each {name, options} or a name."""

    @field_validator("extras", mode="after")
    @classmethod
    def _complete(cls, extras: list[Plugin]) -> list[Plugin]:
        complete = []
        for number, extra in enumerate(extras):
            try:
                complete.append(Plugin.of(extra, registry.options("extra", extra, ""), bare=True))
            except ConfigError as error:
                raise PartError(number, error) from None
        if len({extra.key for extra in complete}) < len(complete):
            raise ValueError(f"an extra is named once at most, got {', '.join(extra.name for extra in complete)}")
        return complete

    def revision_in(self, run: RunConfig) -> int:
        """The latest one of the method and its extras."""
        extras: list[int] = [one.checked.revision_in(run) for one in self.extras if one.checked is not None]
        return max(self.REVISION, *extras) if extras else self.REVISION


class Method(Protocol):
    """What the stages of a round ask of a method, in this order. `averaging.py` answers all of it for most methods."""

    @property
    def fold(self) -> Fold:
        """How the updates that arrived become one thing."""
        ...

    def broadcast(self, server: ServerState, tick: int) -> Broadcast:
        """What the coordinator sends to everybody."""
        ...

    def view(self, down: Broadcast, client: int, rank: int, tick: int, memory: Tensors | None = None) -> View:
        """What both ends know of one client; the same on every process. `memory`: as in `local`; None: empty."""
        ...

    def local(self, view: View, memory: Tensors, steps: int) -> LocalJob:
        """What the client trains. `memory`: what the method remembers of it (`Upload`)."""
        ...

    def upload(self, view: View, job: LocalJob, end: Tensors, memory: Tensors) -> Upload:
        """The change that the client wants to send, before any compression, given the values after its job."""
        ...

    def change(self, server: ServerState, folded: Tensors) -> Tensors | None:
        """The change of the values that `aggregate` adds for what was folded, before `server_lr`, for diagnostics.

        None where the mean of the clients' products is applied itself.
        """
        ...

    def model(self, server: ServerState) -> GlobalModel:
        """What is evaluated, exported and hashed."""
        ...

    def aggregate(self, server: ServerState, received: Reception, tick: int) -> ServerState:
        """The next global model."""
        ...


def difference(start: Tensors, end: Tensors, names: Collection[str]) -> dict[str, Array]:
    """end - start of these values, in float64 before rounding to float32 once."""
    return {
        name: (value.astype(np.float64) - start[name].astype(np.float64)).astype(np.float32)
        for name, value in end.items()
        if name in names
    }


def add_change(server: ServerState, change: Tensors, server_lr: float) -> ServerState:
    """theta + server_lr * change, in float64, rounded once."""
    theta = {
        name: (value.astype(np.float64) + server_lr * change[name]).astype(np.float32) if name in change else value
        for name, value in server.theta.items()
    }
    return replace(server, theta=theta, version=server.version + 1)
