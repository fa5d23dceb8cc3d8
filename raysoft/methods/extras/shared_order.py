"""Shared order: all clients send the first components of one order that the server makes, so that masks cost nothing.

Source: this project's (rules/shared_order.py), as the option `shared_mask` of soft has it.

The server orders all rank components by how much the mean change moved them per bit, and by how long they have waited;
a client that may send n components sends the first n of those that its rank has. So no mean is taken over clients that
did not send, and an analog uplink can add up what is sent. Down travels the order, ceil(log2 N!) bits for N components
of the client's rank; up, the codec's values without a mask. It needs a codec that follows an order, and a method whose
components stay what they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from raysoft.config import Positive, Traits, Unit
from raysoft.methods.extras.base import ExtraConfig, ExtraContext, Plain
from raysoft.methods.rules.shared_order import observed, shared_order
from raysoft.types import ORDER, ParamSpace, Reception, ServerState, Tensors


class Config(ExtraConfig):
    """As the options `shared_mask_age_bonus` and `shared_mask_memory` of soft."""

    TRAITS: ClassVar[Traits] = Traits(common_order="name=shared_order", fixed_gauge=True, needs_factors=True)

    age_bonus: Positive = 0.02
    """What a round of waiting adds to a component's score, in units of the largest. [1]"""
    memory: Unit = 0.5
    """Share of a component's score that is kept when it arrives again. [1]"""


@dataclass(frozen=True)
class SharedOrder(Plain):
    """See the module."""

    config: Config
    space: ParamSpace

    def side(self, server: ServerState) -> Tensors:
        """The order, which clients' codecs find in their view."""
        return {ORDER: shared_order(server, self.space, self.config.age_bonus)}

    def step(self, before: ServerState, proposed: ServerState, received: Reception) -> ServerState:
        """Note what the mean change says of the components that arrived."""
        if received.folded is None:
            return proposed
        assert received.sent_counts is not None  # a codec that follows an order says what it sent
        counts, memory = received.sent_counts, self.config.memory
        return observed(before, proposed, self.space, received.folded, counts, memory)


def build(config: Config, context: ExtraContext) -> SharedOrder:
    """The extra."""
    return SharedOrder(config, context.space)
