"""What a codec decides: its rate-distortion curve, and how an update becomes bits and an update again.

Everything is numpy and computed in float64. The `View` is what both ends know of the client: the values it started
from (its rank may be smaller than r_max), and which of them travel. A payload is real bytes: `num_bits` is counted on
them, never assumed. Where `View.side` holds an ORDER of all components, every client sends a prefix of it (of what is
left of it at a smaller rank), and which components travel costs no bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal, Protocol

import numpy as np
from pydantic import Field, model_validator

from raysoft.codecs.wire.rotated import FINEST
from raysoft.config import Fraction, Positive, RunConfig, Section, Traits
from raysoft.errors import ConfigError
from raysoft.types import Array, Curve, Payload, Tensors, Update, View

# Models that come along, and the targets with which every matrix that they adapt has one shape.
ALIKE = frozenset({("embedded/vit-digits", "attention")})


def told_revision(run: RunConfig, shapes_matter: bool) -> int:
    """Revision of a codec whose curve has `told_bits`: 2 where they are charged, which 0.1 did not do.

    They are where the allocator reads curves; with `shapes_matter`, where matrices may be of different shapes, which
    the configuration does not say: of a model that did not come along it is assumed.
    """
    if run.allocator.checked is not None and not run.allocator.checked.traits.reads_curves:
        return 1
    targets = run.model.lora.targets
    return 1 if shapes_matter and isinstance(targets, str) and (run.model.name, targets) in ALIKE else 2


class CodecConfig(Section):
    """Options every codec has."""

    kept_fraction: Fraction = 0.4
    """Share of the update's bits that is sent where the allocator does not decide it (`tsfa` does). [1]"""
    min_kept_fraction: Fraction = 0.05
    """Least share that a client may be asked to send. [1]"""
    bits_per_value: Annotated[int, Field(ge=1, le=32)] = 32
    """Bits of a value: 32 is float32, 16 float16, fewer are quantised. [bit]"""
    head_bits: Annotated[int, Field(ge=1, le=32)] = 32
    """The same for what is always sent (a trained head). [bit]"""
    error_feedback: bool | Literal["transport"] = False
    """Whether clients remember what was not sent: true, as changes of the factors; transport, as changes of the
    product, which outlive a turn of the factors."""
    error_feedback_decay: Fraction = 1.0
    """Share of the memory that is kept at each participation. [1]"""
    error_feedback_clip: Positive | None = None
    """Largest norm of the memory, relative to the update's; null: no limit. [1]"""
    quantizer: Literal["uniform", "rotated"] = "uniform"
    """Below 16 bits: uniform, unbiased stochastic rounding; rotated (up to 8 bits), the least error of an update."""

    rotates: ClassVar[bool] = False  # True where values travel as whole blocks, which is what rotation needs

    @property
    def traits(self) -> Traits:
        """TRAITS, and what is remembered."""
        kept = f"error_feedback={str(self.error_feedback).lower()}"
        return replace(
            self.TRAITS,
            plain_values=self.TRAITS.plain_values and self.bits_per_value == self.head_bits == 32,
            remembers_factors=kept if self.error_feedback is True else "",
            remembers_products=kept if self.error_feedback == "transport" else "",
        )

    @model_validator(mode="after")
    def _memory_options(self) -> CodecConfig:
        if not self.error_feedback and (self.error_feedback_decay != 1.0 or self.error_feedback_clip is not None):
            raise ValueError("error_feedback_decay and error_feedback_clip need error_feedback: true or transport")
        return self

    @model_validator(mode="after")
    def _rotated_values(self) -> CodecConfig:
        if self.quantizer == "rotated":
            if not self.rotates:
                raise ValueError(
                    "quantizer: rotated is for codecs that send whole columns and rows (identity, rank_components, "
                    "svd, quantize, or a chain that starts with one of these); leave it at uniform here"
                )
            if (bits := _written_bits(self)) > FINEST:
                raise ValueError(f"quantizer: rotated writes 1 to {FINEST} bits a value, not {bits}")
        return self


@dataclass(frozen=True)
class Encoded:
    """One encoded update, and what the client remembers if it is delivered, or lost."""

    payload: Payload
    received: Update  # the payload, decoded
    memory_if_delivered: Tensors
    memory_if_lost: Tensors
    relative_error: float  # ||dropped||^2 / ||update||^2 in effective weights, 0/0 -> 0
    stats: Mapping[str, Array] = field(default_factory=dict)  # e.g. "sent": mask over rank components


class Codec(Protocol):
    """Runs on the client; `decode` also on the server. Built from (config, ParamSpace); holds no state."""

    def menu(self, update: Update, view: View, memory: Tensors) -> Curve:
        """The rate-distortion curve of this update."""
        ...

    def encode(self, update: Update, view: View, memory: Tensors, units: int, rng: np.random.Generator) -> Encoded:
        """The payload that keeps `units` units of the menu."""
        ...

    def decode(self, payload: Payload, view: View, units: int) -> Update:
        """The update as the server has it: all values of `view.trains`, zero where nothing was sent."""
        ...


def value_bits(config: CodecConfig) -> int | None:
    """Bits at which kept values travel (the finest, where a codec chooses): for `dense at the same bits`.

    32 where values have no width of their own (ecsq): shares of a narrower dense uplink would have no meaning. A codec
    of another package says it by a property `value_bits` of its Config; None where it does not: nobody else can know.
    """
    if hasattr(config, "value_bits"):
        told = config.value_bits
        if told is not None and not (isinstance(told, int) and 1 <= told <= 64):
            raise ConfigError("codec", f"value_bits of its Config must be 1 to 64 or None, got {told!r:.40}")
        return told
    return _written_bits(config) if type(config).__module__.startswith("raysoft.codecs.") else None


def _written_bits(config: CodecConfig) -> int:
    members = getattr(config, "codecs", None)  # a chain: its last member may quantise
    own = members[-1].options().get("bits") if members else getattr(config, "bits", None)
    return own or config.bits_per_value
