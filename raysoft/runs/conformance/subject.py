"""What is checked, and what it is checked with: a plug-in in a configuration that takes it, values to hand to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from raysoft.config import RunConfig, Section, registry
from raysoft.config.presets import load_config
from raysoft.errors import ConfigError, RaysoftError
from raysoft.types import ORDER, Array, DenseBlock, Downlink, LoraPair, ParamSpace, Tensors, View

# A run of seconds that some plug-ins need a head, plain SGD or a wide budget for; none minds them.
SMALL = (
    "executor=inline",
    "rounds=2",
    "data.clients=6",
    "cohort.size=3",
    "train={steps: 1, batch_size: 8, optimizer: sgd, lr: 0.05, weight_decay: 0, clip_norm: null}",
    "eval.every=100",
    "metrics.clients=false",
    "model.lora.train_head=true",
    "tracking.tensorboard=false",
    "checkpoint.every=null",
)
# Company, of which the first that goes with a plug-in is taken.
_BASES = ("fedit", "soft")
_CODECS = ((), ("codec={name: identity}",), ("codec={name: rank_components}",))
_RADIO = ((), ("allocator={name: ideal}",), ("allocator={name: ideal}", "uplink={name: ideal}"))


class Broken(Exception):  # noqa: N818 - what a plug-in does not keep
    """A promise that a plug-in does not keep, in words."""


@dataclass(frozen=True)
class Subject:
    """A plug-in of a kind, in the smallest run that it goes with."""

    kind: str
    config: RunConfig

    @classmethod
    def of(cls, kind: str, name: str, words: Sequence[str] = ()) -> Subject:
        """By its short name or file; `words`: settings, for options without a default. Raises ConfigError."""
        own = [f"method.extras=[{{name: {name}}}]"] if kind == "extra" else [f"{kind}.name={name}"]
        refused: ConfigError | None = None
        for base, codec, radio in product(_BASES, _CODECS, _RADIO):
            company = [word for word in (*codec, *radio) if not word.startswith(f"{kind}=")]
            try:
                return cls(kind, load_config(base, [*company, *own, *SMALL, "allocator.latency_budget_s=30", *words]))
            except ConfigError as error:
                refused = refused or error
        assert refused is not None
        raise refused

    @property
    def options(self) -> Section:
        """Its own Config."""
        if self.kind == "extra":
            found: Section = self._method_options().extras[0].checked
            return found
        found = registry.options(self.kind, getattr(self.config, self.kind))
        return found

    def build(self, *args: Any) -> Any:
        """It itself."""
        section = self._method_options().extras[0] if self.kind == "extra" else getattr(self.config, self.kind)
        return registry.build(self.kind, section, *args)

    def _method_options(self) -> Any:
        return registry.options("method", self.config.method)


def kind_of(name: str) -> str:
    """The kind of a plug-in's file, by what its Config derives from. Raises ConfigError where it is none."""
    refused = []
    for kind in registry.KINDS:
        try:
            registry.module_of(kind, name)
        except ConfigError as error:
            refused.append(error)
        else:
            return kind
    said = next((error.message for error in refused if "`Config`" not in error.message), None)
    if said is not None:  # of all kinds that it cannot be read, or of its own that something is missing
        raise ConfigError("", said)
    bases = ", ".join(registry.config_of(kind).__name__ for kind in registry.KINDS)
    raise ConfigError("", f"{name} has no class `Config` that derives from one of {bases}; see docs/plugins.md")


# ------------------------------------------------------------------------------------------------------------- values

SHAPES = ((9, 7), (9, 7), (6, 4))
HEAD = (DenseBlock("head.weight", (3, 5)), DenseBlock("head.bias", (3,)))
LARGEST_RANK = 4


def space_of(head: bool = True) -> ParamSpace:
    """Three adapted matrices, with or without a trained head."""
    pairs = tuple(LoraPair(f"layer{k}", o, i) for k, (o, i) in enumerate(SHAPES))
    return ParamSpace((*pairs, *(HEAD if head else ())), LARGEST_RANK, 2.0)


def values_of(space: ParamSpace, rank: int, seed: int, size: float = 0.1) -> dict[str, Array]:
    """Gaussian float32 of a client's shapes."""
    rng = np.random.default_rng(seed)
    shapes = space.shapes_at(rank)
    return {name: (size * rng.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}


@dataclass(frozen=True)
class Case:
    """An update to encode: `name` says which, for messages."""

    name: str
    space: ParamSpace
    view: View
    update: Tensors


def cases(follows_order: bool, both_factors: bool) -> Iterator[Case]:
    """Updates of several ranks, with and without a head, of both factors and of one, zeros and extreme ones."""
    factors = ("AB",) if both_factors else ("AB", "B", "A")
    spaces = ((True, 1), (False, 3), (True, LARGEST_RANK))
    for (head, rank), sent, order in product(spaces, factors, (False, True)):
        if order and not follows_order:
            continue
        space = space_of(head)
        start, update = values_of(space, rank, 1), values_of(space, rank, 2, 0.02)
        left_out = {"AB": (), "B": (".lora_A",), "A": (".lora_B",)}[sent]
        update = {name: value for name, value in update.items() if not name.endswith(left_out or ("\0",))}
        rng = np.random.default_rng(3)
        side = {ORDER: rng.permutation(len(SHAPES) * LARGEST_RANK)} if order else {}
        view = View(1, 0, rank, start, frozenset(update), Downlink(0), side)
        what = f"rank {rank}{', with a head' if head else ''}{'' if sent == 'AB' else f', {sent} alone'}"
        what += ", in a given order" if order else ""
        yield Case(what, space, view, update)
        if rank == LARGEST_RANK and sent == "AB" and not order:
            yield Case(f"{what}, all zeros", space, view, {name: np.zeros_like(one) for name, one in update.items()})
            for size in (1e7, 1e-25):
                yield Case(f"{what}, times {size:g}", space, view, {n: np.float32(size) * v for n, v in update.items()})
            spiked = {name: value.copy() for name, value in update.items()}
            next(iter(spiked.values())).flat[0] = 1e4
            yield Case(f"{what}, one value of 1e4", space, view, spiked)


# ------------------------------------------------------------------------------------------------------------- purity


def frozen(tensors: Tensors) -> dict[str, bytes]:
    """The bytes of arrays by name, to see later whether they have changed."""
    return {name: np.asarray(value).tobytes() for name, value in tensors.items()}


def same(one: Any, two: Any) -> bool:
    """Whether two values are equal bit for bit: arrays, mappings and dataclasses of them, numbers, text."""
    if isinstance(one, np.ndarray) or isinstance(two, np.ndarray):
        one, two = np.asarray(one), np.asarray(two)
        return one.dtype == two.dtype and one.shape == two.shape and one.tobytes() == two.tobytes()
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, tuple | list) and isinstance(two, tuple | list):
        return len(one) == len(two) and all(map(same, one, two))
    if hasattr(one, "__dataclass_fields__") and type(one) is type(two):
        return all(same(getattr(one, name), getattr(two, name)) for name in one.__dataclass_fields__)
    if isinstance(one, float) and isinstance(two, float) and math.isnan(one):
        return math.isnan(two)
    return bool(one == two)


def unchanged(what: str, before: Mapping[str, bytes], tensors: Tensors) -> None:
    """Raises Broken where one of the arrays that a plug-in was given has other bytes than before."""
    for name, data in frozen(tensors).items():
        if before.get(name) != data:
            raise Broken(f"changes {name} of the {what} that it is given")


Check = Callable[[Subject], None]
"""Raises Broken, or what a check of the run itself raises; the first line of its docstring is the promise."""


def raises(check: Check, subject: Subject) -> str | None:
    """What is wrong, on one line; None where the promise is kept. Whatever the plug-in raises is wrong."""
    try:
        check(subject)
    except (Broken, RaysoftError) as error:
        return " ".join(str(error).split())
    except Exception as error:
        trace, place = error.__traceback__, ""
        file = getattr(subject.config, subject.kind).file if subject.kind != "extra" else None
        while trace is not None:
            if file is not None and trace.tb_frame.f_code.co_filename == file.text:
                place = f" ({file.text}, line {trace.tb_lineno})"
            trace = trace.tb_next
        return " ".join(f"{type(error).__name__}: {error}{place}".split())
    return None
