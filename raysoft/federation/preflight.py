"""Can the latency budget be met at all? Asked on the run's own first cohorts, before any training.

What a client will report is known in advance up to its errors: the sizes of its menu, its compute time and its gain.

Not known is what it has to catch up where a method merges into the base (`Downlink.catch_up`): that hangs on who will
have arrived in which round. It is counted as nothing, as in the first round. So costs are a lower bound, and only what
surely cannot be met is refused; a run with a downlink that takes time says so (runs/advice.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from raysoft.allocation.cohort import control_bits
from raysoft.allocation.solvers.budget import Draws, check_budget
from raysoft.allocation.solvers.menus import Menus
from raysoft.config import RunConfig, registry
from raysoft.errors import ConfigError
from raysoft.federation.parts import Parts
from raysoft.federation.sampling import cohort_candidates, ranks_of, steps_of
from raysoft.federation.seam import blamed
from raysoft.types import Array, Curve, ServerState, View
from raysoft.uplinks.base import downlink_seconds
from raysoft.wireless.base import gains

COHORTS = 64


def check_latency_budget(parts: Parts, server: ServerState) -> None:
    """Raises ConfigError("allocator.latency_budget_s") naming the smallest feasible budget where it cannot be met."""
    config = parts.config
    allocator = registry.options("allocator", config.allocator)
    if not registry.traits("allocator", config.allocator).needs_budget:
        return
    ticks = rounds_ahead(config, COHORTS)
    draws = sample_rounds(parts, Costs(parts, server), ticks)
    try:
        check_budget(draws, parts.link, allocator.latency_budget_s, allocator.outage_factor)
    except ConfigError as error:
        if not registry.traits("channel", config.channel).dated:
            raise
        looked = f"looked at: {said(ticks)}, as channel.name={config.channel.label} has them"
        raise ConfigError(error.field, f"{error.message} ({looked})") from None


def rounds_ahead(config: RunConfig, most: int) -> Sequence[int]:
    """The rounds that are looked at before a run, `most` of them.

    Those of a channel that draws follow one law, so the first ones stand for all, also where the run has fewer. A dated
    one (traits.py) has rounds of its own: of these only the run's, all of them or spread from its first to its last.
    """
    if not registry.traits("channel", config.channel).dated:
        return range(1, most + 1)
    last = max(config.rounds, 1)
    return sorted({round(float(tick)) for tick in np.linspace(1, last, min(most, last))})


def said(ticks: Sequence[int]) -> str:
    """
    >>> said([1]), said([1, 2, 3]), said([1, 5, 9])
    ('round 1', 'rounds 1 to 3', '3 rounds from 1 to 9')
    """
    first, last = ticks[0], ticks[-1]
    if first == last:
        return f"round {first}"
    return f"rounds {first} to {last}" if len(ticks) == last else f"{len(ticks)} rounds from {first} to {last}"


@dataclass(frozen=True)
class RankCost:
    """What a client of some rank has to send and receive; bits are on the air."""

    curve: Curve  # with what travels beside the update
    menu: Menus  # of this one client
    fixed_bits: float  # always sent
    control_bits: int
    downlink_bits: float  # without what was merged into the base while it was away
    dense_bits: float  # all values as float32

    @property
    def least_bits(self) -> float:
        """The least payload (min_kept_fraction)."""
        return float(self.menu.bits(self.menu.least_K)[0])


@dataclass(frozen=True)
class Costs:
    """What a client of each rank has to send in each round; worked out once for what is trained there."""

    parts: Parts
    server: ServerState
    known: dict[tuple[int, frozenset[str]], RankCost] = field(default_factory=dict)  # a cache

    def of(self, rank: int, tick: int) -> RankCost:
        """In this round."""
        with blamed("method", self.parts.config, tick):
            view = self.parts.method.view(self.parts.method.broadcast(self.server, tick), 0, rank, tick)
        key = (rank, view.trains)
        if key not in self.known:
            self.known[key] = _cost(self.parts, view)
        return self.known[key]


def _cost(parts: Parts, view: View) -> RankCost:
    """Read off the menu of a keyed Gaussian update: most codecs' sizes are those of every update of this rank."""
    config = parts.config
    end = {
        name: (value + parts.rng("nominal_update", number).normal(size=value.shape)).astype(np.float32)
        for number, (name, value) in enumerate(view.start.items())
    }
    with blamed("method", config, view.tick):
        upload = parts.method.upload(view, parts.method.local(view, {}, 1), end, {})
    codec = registry.build("codec", config.codec, parts.info.space)
    with blamed("codec", config, view.tick):
        curve = codec.menu(upload.update, view, {})
    curve = replace(curve, fixed_bits=curve.fixed_bits + upload.side_bits)
    scale = config.device.payload_scale
    menu = Menus.of((curve,), registry.options("codec", config.codec).min_kept_fraction, scale)
    control = int(control_bits((curve,), needs_curve=True)[0])
    return RankCost(
        curve, menu, scale * curve.fixed_bits, control, scale * view.downlink.total, scale * view.dense_bits
    )


def sample_rounds(parts: Parts, costs: Costs, ticks: Iterable[int]) -> Draws:
    """The cohorts, start times and reported channels of these rounds, exactly as the run itself will meet them."""
    rows = [_draw(parts, costs, tick) for tick in ticks]
    start, bits, snr = (np.stack(column) for column in zip(*rows, strict=True))
    return Draws(start, bits, snr)


def _draw(parts: Parts, costs: Costs, tick: int) -> tuple[Array, Array, Array]:
    """When uploads may begin, the least bits and the reported a_k of one round's candidates, arrays [K]."""
    config, info, link = parts.config, parts.info, parts.link
    clients_K = cohort_candidates(parts.rng, tick, info.population, config.cohort.size)
    ranks = sorted(_ranks(config))
    cost_of = [costs.of(rank, tick) for rank in ranks]
    which_K = np.searchsorted(ranks, ranks_of(parts.rng, config.model.lora.ranks(), clients_K))
    cycles_K = worked_samples(parts, clients_K) * config.device.cycles_per_sample
    control_K = np.array([cost.control_bits for cost in cost_of])[which_K]
    start_K = parts.devices.compute_s(cycles_K, clients_K) + link.control_s(control_K)
    start_K += downlink_seconds(parts.uplink.config, max(cost_of[i].downlink_bits for i in np.unique(which_K)))
    gain_K = gains(parts.channel, clients_K, tick).reported_gain_K
    snr_K = link.snr_hz(gain_K, parts.devices.power_w(clients_K))
    return start_K, np.array([cost.least_bits for cost in cost_of])[which_K], snr_K


def _ranks(config: RunConfig) -> set[int]:
    rank = config.model.lora.ranks()
    return {rank} if isinstance(rank, int) else set(rank.values())


def worked_samples(parts: Parts, clients_K: Array) -> Array:
    """Samples each client works through in one round, [K]."""
    train = parts.config.train
    held_K = np.array([parts.info.partition.size(client) for client in clients_K.tolist()])
    samples_K: Array = steps_of(parts.rng, train.steps, clients_K) * np.minimum(train.batch_size, held_K)
    return samples_K
