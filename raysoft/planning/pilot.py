"""The federated pilot of the offline stage: what sparsification and separate averaging lose at one rank.

The server's proxy samples are dealt to a few simulated clients by the run's own kind of partition, and some rounds of
the run's own method, codec and local training follow, with the kept fraction fixed and nobody lost. No client's data
and neither validation nor test samples are touched. Repetitions differ in the seed (partition, start, batches); the
same repetition of another rank shares it (common random numbers).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from raysoft.config import CohortConfig, Plugin, RunConfig, registry
from raysoft.data.base import Partition
from raysoft.data.partition import build_partition
from raysoft.errors import ConfigError, RaysoftError
from raysoft.federation.coordinator import Coordinator
from raysoft.federation.executor import InlineExecutor
from raysoft.federation.workload import Workload
from raysoft.rng import Rng

LARGEST_COHORT = 100  # of a pilot: means over more clients cost time and say no more
MANY = 1_000_000  # rounds that are never reached: the pilot stops by itself and never evaluates


@dataclass(frozen=True)
class Estimate:
    """A mean over repetitions and its standard error."""

    mean: float
    standard_error: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """From one value a repetition, at least two."""
        return cls(float(np.mean(values)), float(np.std(values, ddof=1) / len(values) ** 0.5))


@dataclass(frozen=True)
class PilotTerms:
    """eps: sum p_k eps_k; kappa: covariance of separate averaging; both relative, means over the rounds."""

    sparsification: Estimate
    covariance: Estimate


def simulated_clients(config: RunConfig, workload: Workload) -> int:
    """How many clients the proxy is dealt to: as many as it can supply at the run's mean shard size, 2 to one cohort.

    Natural groups are what they are; `virtual` clients draw with replacement, so a whole cohort is simulated (of at
    most LARGEST_COHORT clients, as everywhere here). Raises
    ConfigError("data.proxy_fraction") where the proxy is too small for two clients.
    """
    samples, partition = len(workload.data.proxy), workload.partition
    if samples < 4:
        raise ConfigError(
            "data.proxy_fraction",
            f"the offline stage needs at least 4 proxy samples for its pilots, {config.data.proxy_fraction:g} gives "
            f"{samples}; use e.g. data.proxy_fraction=0.05",
        )
    if config.data.partition == "natural":
        groups = workload.data.proxy_groups
        assert groups is not None  # the partition was built from the groups of the same data
        found = len(np.unique(groups))
        if found < 2:
            raise ConfigError(
                "data.proxy_fraction",
                f"the offline stage needs proxy samples of at least two natural clients, found {found}; use a larger "
                "proxy_fraction",
            )
        return found
    if config.data.partition == "virtual":
        return _most(config)
    mean_shard = partition.num_train / partition.clients
    return int(np.clip(round(samples / mean_shard), 2, min(_most(config), samples // 2)))


def deal_proxy(config: RunConfig, workload: Workload, rng: Rng) -> Workload:
    """The workload with the proxy in the place of the training samples, split over the simulated clients."""
    data = workload.data
    clients, samples = simulated_clients(config, workload), len(data.proxy)
    groups = data.proxy_groups
    names = () if groups is None else tuple(f"group {n}" for n in range(int(groups.max()) + 1))
    proxy = replace(data, train=data.proxy, validation=data.proxy, groups=groups, group_names=names)
    natural = config.data.partition == "natural"
    least = 1 if natural else max(1, min(config.data.min_samples, samples // clients))
    runs = min(config.data.shards_per_client, max(1, samples // clients))
    section = config.data.model_copy(update={"clients": clients, "min_samples": least, "shards_per_client": runs})
    dealt = config.model_copy(update={"data": section, "cohort": _cohort(config, clients)})
    partition: Partition = build_partition(dealt, proxy, rng)
    return replace(workload, data=proxy, partition=partition)


def _most(config: RunConfig) -> int:
    return min(max(2, config.cohort.size), LARGEST_COHORT)


def _cohort(config: RunConfig, clients: int) -> CohortConfig:
    return config.cohort.model_copy(update={"size": min(config.cohort.size, clients, LARGEST_COHORT)})


def pilot_config(config: RunConfig, clients: int, kept_fraction: float, seed: int) -> RunConfig:
    """The run's configuration for one pilot: everybody delivers the kept fraction, nothing is evaluated."""
    options = registry.options("codec", config.codec).model_copy(update={"kept_fraction": kept_fraction})
    return config.model_copy(
        update={
            "seed": seed,
            "rounds": MANY,
            "executor": "inline",
            "data": config.data.model_copy(update={"clients": clients}),
            "cohort": _cohort(config, clients),
            "codec": Plugin.of(config.codec, options),
            "allocator": Plugin(name="minmax"),  # a fixed fraction, and without a budget nobody is in outage
            "uplink": Plugin(name="fdma"),
            "channel": Plugin(name="static"),
            "eval": config.eval.model_copy(update={"every": MANY + 1, "split": "validation"}),
            "metrics": config.metrics.model_copy(
                update={"covariance": "auto" if config.metrics.covariance == "off" else config.metrics.covariance}
            ),
        }
    )


def pilot_terms(
    config: RunConfig,
    workload: Workload,
    kept_fraction: float,
    on_repetition: Callable[[float], None] = lambda fraction: None,
) -> PilotTerms:
    """Mean terms over `plan.pilot_rounds` rounds of each of `plan.repetitions` repetitions.

    Raises RaysoftError where training diverges or an update is zero throughout.
    """
    epsilon, kappa = [], []
    for number in range(config.plan.repetitions):
        seed = int(Rng(config.seed)("plan_repetition", number).integers(2**62))
        dealt = deal_proxy(config, workload, Rng(seed))
        settings = pilot_config(config, dealt.partition.clients, kept_fraction, seed)
        coordinator = Coordinator(settings, InlineExecutor(settings, dealt))
        coordinator.start()
        records = []
        for tick in range(1, config.plan.pilot_rounds + 1):
            records.append(coordinator.round(tick))
            on_repetition((number + tick / config.plan.pilot_rounds) / config.plan.repetitions)
        epsilon.append(_mean([record.sparsification_error for record in records]))
        kappa.append(_mean([record.aggregation_covariance for record in records]))
    return PilotTerms(Estimate.of(epsilon), Estimate.of(kappa))


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    if not known:
        raise RaysoftError("the pilot's clients did not move: no update to measure; is train.lr too small?")
    return float(np.mean(known))
