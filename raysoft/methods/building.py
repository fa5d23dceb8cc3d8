"""A method with its extras, as one method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from raysoft.config import RunConfig, registry
from raysoft.errors import ConfigError, RaysoftError
from raysoft.methods.base import Method, MethodConfig
from raysoft.methods.extras.base import Extra, ExtraContext
from raysoft.methods.folds import Fold
from raysoft.methods.rules.shared_order import order_bits
from raysoft.rng import Rng
from raysoft.types import (
    ORDER,
    Array,
    Broadcast,
    GlobalModel,
    LocalJob,
    ParamSpace,
    Reception,
    ServerState,
    Tensors,
    Update,
    Upload,
    View,
)

T = TypeVar("T")


def build_method(config: RunConfig, space: ParamSpace, clients: int) -> Method:
    """What `config.method` says, for so many registered clients."""
    options: MethodConfig = registry.options("method", config.method)
    method: Method = registry.build("method", config.method, space)
    # What goes over an analog uplink the traits decide (config/clashes.py); here it is seen that they are true.
    if not method.fold.linear and not registry.traits("method", config.method).single_updates:
        raise ConfigError(
            "method.name",
            f"{config.method.label} folds updates to more than a sum and does not say so: its Config needs the trait "
            "single_updates; see docs/plugins.md",
        )
    if not options.extras:
        return method
    context = ExtraContext(space, config.train, clients)
    extras = {}
    for number, section in enumerate(options.extras):
        try:
            extras[section.key] = registry.build("extra", section, context)
        except ConfigError as error:
            raise ConfigError(f"method.extras.{number}.name", error.message) from None
    labels = {section.key: section.label for section in options.extras}
    gives_order = any(registry.traits("extra", section).common_order for section in options.extras)
    return WithExtras(method, extras, Rng(config.seed), labels, len(space.pairs), gives_order)


class ExtraError(Exception):
    """What an extra raised (the cause), or gave back wrong (`what`), on its way to whoever knows round and client."""

    def __init__(self, name: str, what: str = "") -> None:
        self.name = name
        self.what = what
        super().__init__(f"extra {name}" + (f": {what}" if what else ""))


@dataclass(frozen=True)
class WithExtras:
    """`Method` around another one: extras act in their order on the client, in the reverse order on the server."""

    inner: Method
    extras: Mapping[str, Extra]  # by Plugin.key
    rng: Rng
    labels: Mapping[str, str]  # what messages call them
    matrices: int = 0  # that are adapted
    gives_order: bool = False  # whether one of the extras says an ORDER

    @property
    def fold(self) -> Fold:
        """The method's."""
        return self.inner.fold

    def broadcast(self, server: ServerState, tick: int) -> Broadcast:
        """The method's, with what extras say besides."""
        down = self.inner.broadcast(server, tick)
        told = {name: _asked(self.labels[name], Mapping, extra.side, server) for name, extra in self.extras.items()}
        for name, side in told.items():
            if ORDER in side and not self.gives_order:  # what it costs is charged by the trait
                raise ExtraError(self.labels[name], "side gives an order: its Config needs the trait common_order")
        # An order of components is for the codec, which knows it by this name.
        more = {
            key if key == ORDER else f"{name}/{key}": one for name, side in told.items() for key, one in side.items()
        }
        return replace(down, side={**down.side, **more})

    def view(self, down: Broadcast, client: int, rank: int, tick: int, memory: Tensors | None = None) -> View:
        """The method's; values of the extras are charged as float32, an order by its number, at the client's rank.

        What belongs to values that are not trained is left out.
        """
        view = self.inner.view(down, client, rank, tick, _own("", memory or {}))
        sizes = {name: value.size for name, value in view.start.items()}
        idle = sizes.keys() - view.trains
        dropped = {f"{name}/{key}" for name in self.extras for key in _side(name, view.side) if key in idle}
        view = replace(view, side={key: one for key, one in view.side.items() if key not in dropped})
        told = [(key, one) for name in self.extras for key, one in _side(name, view.side).items()]
        more = 32 * sum(sizes.get(key, one.size) for key, one in told)
        if self.gives_order:
            more += order_bits(self.matrices * rank)
        bits = view.downlink
        return replace(view, downlink=replace(bits, side=bits.side + more))

    def local(self, view: View, memory: Tensors, steps: int) -> LocalJob:
        """The method's job, as the extras change it."""
        job = _of_type(LocalJob, "local", self.inner.local(view, _own("", memory), steps))
        for name, extra in self.extras.items():
            own, mine = replace(view, side=_side(name, view.side)), _own(name, memory)
            job = _asked(self.labels[name], LocalJob, extra.local, job, own, mine, self._draw("local", name, view))
        return job

    def upload(self, view: View, job: LocalJob, end: Tensors, memory: Tensors) -> Upload:
        """The method's upload, with what extras add; each remembers under its own name."""
        own = _own("", memory)
        upload = _of_type(Upload, "upload", self.inner.upload(view, job, end, own))
        side = dict(upload.side)
        delivered, lost, rejected = _memories("", upload, own)
        for name, extra in self.extras.items():
            mine = _own(name, memory)
            before = replace(upload, side={}, memory_if_delivered=mine, memory_if_lost=mine, memory_if_rejected=mine)
            told, draw = replace(view, side=_side(name, view.side)), self._draw("upload", name, view)
            upload = _asked(self.labels[name], Upload, extra.upload, before, job, end, told, mine, draw)
            if _shapes(upload.update) != _shapes(before.update):
                raise ExtraError(self.labels[name], "upload changes the names or shapes of what is sent")
            side |= {f"{name}/{key}": value for key, value in upload.side.items()}
            for known, more in zip((delivered, lost, rejected), _memories(name, upload, mine), strict=True):
                known.update(more)
        return replace(
            upload, side=side, memory_if_delivered=delivered, memory_if_lost=lost, memory_if_rejected=rejected
        )

    def change(self, server: ServerState, folded: Tensors) -> Tensors | None:
        """The method's."""
        return self.inner.change(server, folded)

    def model(self, server: ServerState) -> GlobalModel:
        """The method's."""
        return self.inner.model(server)

    def aggregate(self, server: ServerState, received: Reception, tick: int) -> ServerState:
        """The method's step, then what the extras make of it."""
        proposed = _of_type(ServerState, "aggregate", self.inner.aggregate(server, received, tick))
        for name, extra in reversed(list(self.extras.items())):
            own = replace(received, side=_side(name, received.side))
            proposed = _asked(self.labels[name], ServerState, extra.step, server, proposed, own)
        return proposed

    def _draw(self, hook: str, name: str, view: View) -> np.random.Generator:
        return self.rng(f"extra.{name}.{hook}", view.tick, view.client)


def _shapes(update: Update) -> dict[str, tuple[int, ...]]:
    return {key: np.shape(value) for key, value in update.items()}


def _of_type(wanted: type[T], hook: str, answer: T) -> T:
    """What the method answers, before extras build on it. Raises TypeError where it is of another type."""
    if not isinstance(answer, wanted):
        raise TypeError(f"{hook} gives {type(answer).__name__}, not {wanted.__name__}")
    return answer


def _asked(name: str, wanted: type, hook: Callable[..., Any], *args: Any) -> Any:
    """What an extra answers. Raises ExtraError, also where it is of another type."""
    try:
        answer = hook(*args)
    except RaysoftError:
        raise
    except Exception as error:
        raise ExtraError(name) from error
    if not isinstance(answer, wanted):
        raise ExtraError(name, f"{hook.__name__} gives {type(answer).__name__}, not {wanted.__name__}")
    return answer


def _side(name: str, side: Tensors) -> dict[str, Array]:
    """What an extra sent, or is sent, besides."""
    return {key.removeprefix(f"{name}/"): value for key, value in side.items() if key.startswith(f"{name}/")}


def _own(name: str, memory: Tensors) -> dict[str, Array]:
    """What is remembered under a name; "" is the method itself."""
    return {key.removeprefix(f"{name}:"): value for key, value in memory.items() if key.startswith(f"{name}:")}


def _memories(name: str, upload: Upload, before: Tensors) -> tuple[dict[str, Array], ...]:
    """What is remembered under a name if the upload is delivered, lost or rejected."""
    rejected = before if upload.memory_if_rejected is None else upload.memory_if_rejected
    return tuple(_named(name, one) for one in (upload.memory_if_delivered, upload.memory_if_lost, rejected))


def _named(name: str, memory: Tensors) -> dict[str, Array]:
    return {f"{name}:{key}": value for key, value in memory.items()}
