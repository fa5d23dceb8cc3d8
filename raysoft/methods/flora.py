"""FLoRA: the clients' factors are stacked, so that their products add up exactly, and merged into the base.

Source: Wang et al., "FLoRA: Federated Fine-Tuning Large Language Models with Heterogeneous Low-Rank Adaptations",
NeurIPS 2024 (arXiv 2409.05976).

With B_stack = [B_1 ... B_K] and A_stack = [p_1 A_1; ...], B_stack A_stack = sum_k p_k B_k A_k, for clients of any
rank. Every round begins with B = 0 and a fresh A, drawn as peft draws it, which travels as a seed; what was learned is
in the base, W0 + the sum of all merged products. So a client has to receive what was merged since it last took part:
the stacks, or the change of the base itself where that is smaller. Uploaded: both factors and a trained head. Beyond
the paper, `restart: warm` begins with the rows along which the last merge was largest instead, which then travel as
float32, 32 sum r_k I bits.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Literal

import numpy as np

from raysoft.config import Traits
from raysoft.kernels.lowrank import svd_gauge
from raysoft.methods.averaging import Averaging, factor_names
from raysoft.methods.base import MethodConfig
from raysoft.methods.folds import STACK, Stack
from raysoft.methods.initial import initial_theta
from raysoft.methods.rules.base_log import BaseLog
from raysoft.rng import Rng
from raysoft.types import Array, ParamSpace, Reception, ServerState, Tensors

SEED = "flora/seed"


class Config(MethodConfig):
    """`restart` says with which A a round begins."""

    restart: Literal["fresh", "warm"] = "fresh"
    """Whether a round begins with drawn rows of A, as published, or with the right singular vectors of the last
    merge."""

    @property
    def traits(self) -> Traits:
        """A warm start draws nothing."""
        return Traits(
            moves_gauge="name=flora",
            base_drift=True,
            redraws=self.restart == "fresh",
            single_updates="the products of each client's factors",
        )


def merged(before: ServerState, received: Reception, log: BaseLog, config: Config) -> ServerState:
    """The stacks in the base, the mean change in the head, and factors to begin with."""
    folded, space = received.folded, log.space
    assert folded is not None  # asked where something arrived
    stacks = {pair.module: (folded[STACK + pair.b], folded[STACK + pair.a]) for pair in space.pairs}
    heads = {
        name: (before.theta[name] + config.server_lr * folded[name]).astype(np.float32)
        for name in sorted(space.always_sent)
    }
    version = before.version + 1
    seed = before.extra[SEED] if SEED in before.extra else _seed(before.theta, space)
    theta = initial_theta(space, heads, "peft", Rng(int(seed) + version))
    if config.restart == "warm":
        theta |= {pair.a: _rows(*stacks[pair.module], theta[pair.a]) for pair in space.pairs}
    after = replace(before, theta=theta, version=version, extra={**before.extra, SEED: seed})
    assert received.mix_K is not None
    stacked = zip(received.reports, received.mix_K, strict=True)
    ranks = sum(report.rank for report, mix in stacked if mix > 0)
    return log.merged(before, after, stacks, config.server_lr * space.scale, log.pairs_bits(ranks))


def _seed(theta: Tensors, space: ParamSpace) -> Array:
    """Of all fresh A of a run: made of the first one, which the run's own seed has drawn; int64 []."""
    digest = hashlib.sha256(b"".join(theta[pair.a].tobytes() for pair in space.pairs))
    return np.array(int(digest.hexdigest()[:12], 16), dtype=np.int64)


def _rows(b_stack: Array, a_stack: Array, drawn: Array) -> Array:
    """The first right singular vectors of the merged product [R, I], as long as drawn rows are, which also fill up."""
    _, a = svd_gauge(b_stack, a_stack, np.sqrt(1.0 / 3.0), drawn, floor=1e-12, rank=len(drawn))
    return a.astype(np.float32)


def build(config: Config, space: ParamSpace) -> Averaging:
    """Stacks instead of means; clients remember the version of the base that they have."""
    log = BaseLog(space)
    return Averaging(
        config,
        space,
        changes=space.always_sent if config.restart == "fresh" else factor_names(space, "a"),
        trains=lambda tick: frozenset(space.shapes),
        side=log.side,
        catch_up=log.missed,
        remembers=log.received,
        fold=Stack(space),
        change_of=lambda server, folded: None,  # the mean of the products is no change of the factors
        then=lambda before, after, received: merged(before, received, log, config),
    )
