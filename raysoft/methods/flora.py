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
from dataclasses import replace
from typing import ClassVar

import numpy as np

from raysoft.config import Traits
from raysoft.methods.averaging import Averaging
from raysoft.methods.base import MethodConfig
from raysoft.methods.folds import STACK, Stack
from raysoft.methods.initial import initial_theta
from raysoft.rng import Rng
from raysoft.types import Array, Broadcast, ParamSpace, Reception, ServerState, Tensors

SEED = "flora/seed"
VERSION = "base_version"  # how much of the base a client has, int64 []


class Config(MethodConfig):
    """Nothing beyond the common options."""

    TRAITS: ClassVar[Traits] = Traits(
        moves_gauge="name=flora", base_drift=True, single_updates="the products of each client's factors"
    )


def merged(before: ServerState, received: Reception, space: ParamSpace, server_lr: float) -> ServerState:
    """The stacks in the base, the mean change in the head, and fresh factors."""
    folded = received.folded
    assert folded is not None  # asked where something arrived
    base: dict[str, Array] = {}
    for pair in space.pairs:
        product = folded[STACK + pair.b] @ folded[STACK + pair.a]
        base[pair.module] = (before.base.get(pair.module, 0.0) + server_lr * space.scale * product).astype(np.float32)
    heads = {
        name: (before.theta[name] + server_lr * folded[name]).astype(np.float32) for name in sorted(space.always_sent)
    }
    version = before.version + 1
    seed = before.extra[SEED] if SEED in before.extra else _seed(before.theta, space)
    return replace(
        before,
        theta=initial_theta(space, heads, "peft", Rng(int(seed) + version)),
        version=version,
        extra={**before.extra, SEED: seed},
        base=base,
        base_bits=(*before.base_bits, _stack_bits(received, space)),
    )


def _stack_bits(received: Reception, space: ParamSpace) -> int:
    """What a client that was away has to be sent of this merge, as float32."""
    assert received.mix_K is not None
    stacked = zip(received.reports, received.mix_K, strict=True)
    width = sum(pair.out_features + pair.in_features for pair in space.pairs)
    return 32 * width * sum(report.rank for report, mix in stacked if mix > 0)


def _seed(theta: Tensors, space: ParamSpace) -> Array:
    """Of all fresh A of a run: made of the first one, which the run's own seed has drawn; int64 []."""
    digest = hashlib.sha256(b"".join(theta[pair.a].tobytes() for pair in space.pairs))
    return np.array(int(digest.hexdigest()[:12], 16), dtype=np.int64)


def build(config: Config, space: ParamSpace) -> Averaging:
    """Stacks instead of means; clients remember the version of the base that they have."""
    whole_bits = 32 * sum(pair.out_features * pair.in_features for pair in space.pairs)

    def missed(down: Broadcast, memory: Tensors) -> int:
        return min(sum(down.base_bits[int(memory.get(VERSION, 0)) :]), whole_bits)

    return Averaging(
        config,
        space,
        changes=space.always_sent,
        trains=lambda tick: frozenset(space.shapes),
        side=lambda server: {VERSION: np.array(len(server.base_bits))},
        catch_up=missed,
        remembers=lambda view: {VERSION: view.side[VERSION]},
        fold=Stack(space),
        change_of=lambda server, folded: None,  # the mean of the products is no change of the factors
        then=lambda before, after, received: merged(before, received, space, config.server_lr),
    )
