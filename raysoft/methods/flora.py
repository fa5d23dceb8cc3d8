"""FLoRA: the clients' factors are stacked, so that their products add up exactly, and merged into the base.

Source: Wang et al., "FLoRA: Federated Fine-Tuning Large Language Models with Heterogeneous Low-Rank Adaptations",
NeurIPS 2024 (arXiv 2409.05976).

With B_stack = [B_1 ... B_K] and A_stack = [p_1 A_1; ...], B_stack A_stack = sum_k p_k B_k A_k, for clients of any
rank. Every round begins with B = 0 and a fresh A, drawn as peft draws it, which travels as a seed; what was learned is
in the base, W0 + the sum of all merged products. So a client has to receive what was merged since it last took part:
the stacks, or the change of the base itself where that is smaller. Uploaded: both factors and a trained head.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from raysoft.config import Traits
from raysoft.methods.averaging import Averaging
from raysoft.methods.base import MethodConfig
from raysoft.methods.folds import STACK, Stack
from raysoft.methods.initial import initial_theta
from raysoft.rng import Rng
from raysoft.types import Array, Broadcast, LocalJob, ParamSpace, Reception, ServerState, Tensors, Upload, View

SEED = "flora/seed"
VERSION = "base_version"  # how much of the base a client has, int64 []


class Config(MethodConfig):
    """Nothing beyond the common options."""

    TRAITS: ClassVar[Traits] = Traits(
        moves_gauge="name=flora", base_drift=True, single_updates="the products of each client's factors"
    )


@dataclass(frozen=True)
class FLoRA(Averaging):
    """See the module."""

    def broadcast(self, server: ServerState, tick: int) -> Broadcast:
        """The fresh factors, the head and the base."""
        down = super().broadcast(server, tick)
        side = {VERSION: np.array(len(server.base_bits))}
        return replace(down, side=side, base=server.base, base_bits=server.base_bits)

    def view(self, down: Broadcast, client: int, rank: int, tick: int, memory: Tensors | None = None) -> View:
        """Charged are the head and what the client has missed of the base."""
        view = super().view(down, client, rank, tick)
        missed = sum(down.base_bits[int((memory or {}).get(VERSION, 0)) :])
        whole = 32 * sum(pair.out_features * pair.in_features for pair in self.space.pairs)
        return replace(view, downlink=replace(view.downlink, catch_up=min(missed, whole)))

    def upload(self, view: View, job: LocalJob, end: Tensors, memory: Tensors) -> Upload:
        """The change of both factors; the client has the base now, whatever becomes of its upload."""
        has = {VERSION: view.side[VERSION]}
        return replace(super().upload(view, job, end, memory), memory_if_delivered=has, memory_if_lost=has)

    def change(self, server: ServerState, folded: Tensors) -> None:
        """The mean of the products themselves, which is no change of the factors."""

    def aggregate(self, server: ServerState, received: Reception, tick: int) -> ServerState:
        """Merge the stacks, average the head, begin again with fresh factors."""
        folded = received.folded
        if folded is None:  # nobody arrived
            return server
        base: dict[str, Array] = {}
        for pair in self.space.pairs:
            product = folded[STACK + pair.b] @ folded[STACK + pair.a]
            change = self.config.server_lr * self.space.scale * product
            base[pair.module] = (server.base.get(pair.module, 0.0) + change).astype(np.float32)
        heads = {
            name: (server.theta[name] + self.config.server_lr * folded[name]).astype(np.float32)
            for name in self.space.always_sent
        }
        version = server.version + 1
        seed = server.extra[SEED] if SEED in server.extra else _seed(server.theta, self.space)
        theta = initial_theta(self.space, heads, "peft", Rng(int(seed) + version))
        assert received.mix_K is not None
        stacked = zip(received.reports, received.mix_K, strict=True)
        width = sum(pair.out_features + pair.in_features for pair in self.space.pairs)
        bits = 32 * width * sum(report.rank for report, mix in stacked if mix > 0)
        extra = {**server.extra, SEED: seed}
        return replace(
            server, theta=theta, version=version, extra=extra, base=base, base_bits=(*server.base_bits, bits)
        )


def _seed(theta: Tensors, space: ParamSpace) -> Array:
    """Of all fresh A of a run: made of the first one, which the run's own seed has drawn; int64 []."""
    digest = hashlib.sha256(b"".join(theta[pair.a].tobytes() for pair in space.pairs))
    return np.array(int(digest.hexdigest()[:12], 16), dtype=np.int64)


def build(config: Config, space: ParamSpace) -> FLoRA:
    """Stacks instead of means."""
    return FLoRA(
        config, space, changes=space.always_sent, trains=lambda tick: frozenset(space.shapes), fold=Stack(space)
    )
