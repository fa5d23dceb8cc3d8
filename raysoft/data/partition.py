"""How the training samples are spread over clients. Keyed, and every client gets at least `min_samples` or none runs.

Shapes: N training samples, K clients, C classes. Except for `virtual`, every sample belongs to exactly one client.
"""

from __future__ import annotations

import numpy as np

from raysoft.config import DataConfig, RunConfig
from raysoft.data.base import Partition, TaskData
from raysoft.errors import ConfigError
from raysoft.rng import Rng
from raysoft.types import Array


def build_partition(config: RunConfig, data: TaskData, rng: Rng) -> Partition:
    """The shards of all clients, each ascending. Raises ConfigError naming what would fit.

    iid: equal shares of a random order. dirichlet: each class is spread by its own Dirichlet(alpha) draw (Yurochkin et
    al., ICML 2019). shards: sorted by class, cut into K * shards_per_client runs, dealt at random (McMahan et al.,
    AISTATS 2017). quantity: sizes by one Dirichlet draw, classes mixed. natural: the groups of the data. virtual:
    client k's samples are a keyed draw with replacement.
    """
    section = config.data
    total = len(data.train)
    if section.partition == "virtual":
        return _virtual(section, total, rng)
    if section.partition == "natural":
        partition = _natural(section, data)
    else:
        check_total(section, total)
        shards = _SPREAD[section.partition](section, data, rng)
        partition = Partition(clients=section.clients, shards=shards, num_train=total, seed=rng.seed)
    check_cohort(config, partition.clients)
    return partition


def check_cohort(config: RunConfig, clients: int) -> None:
    """Raises ConfigError("cohort.size") where a round has more clients than there are."""
    if config.cohort.size > clients:
        raise ConfigError(
            "cohort.size", f"must not exceed the {clients} clients that the data has, got {config.cohort.size}"
        )


def check_total(section: DataConfig, total: int) -> None:
    """Raises ConfigError("data.clients") where `total` training samples are too few for all clients."""
    if total < section.clients * section.min_samples:
        fits = total // section.min_samples
        hint = (
            f"use data.clients={fits} or fewer" if fits else f"use data.min_samples=1 with data.clients={total} at most"
        )
        if fits and total >= section.clients:
            hint += f", or data.min_samples={total // section.clients}"
        raise ConfigError(
            "data.clients",
            f"{total} training samples cannot give {section.clients} clients at least "
            f"data.min_samples={section.min_samples} each; {hint}",
        )


def _iid(section: DataConfig, data: TaskData, rng: Rng) -> tuple[Array, ...]:
    order_N = rng("partition_iid").permutation(len(data.train))
    return tuple(np.sort(part) for part in np.array_split(order_N, section.clients))


def _dirichlet(section: DataConfig, data: TaskData, rng: Rng) -> tuple[Array, ...]:
    class_N = _classes(section, data)
    owner_N = np.empty(len(class_N), dtype=np.int64)
    for number, label in enumerate(np.unique(class_N)):
        generator = rng("partition_dirichlet", number)
        members = generator.permutation(np.flatnonzero(class_N == label))
        share_K = _dirichlet_draw(generator, section.dirichlet_alpha, section.clients)
        cuts = np.rint(np.cumsum(share_K)[:-1] * len(members)).astype(np.int64)
        owner_N[members] = np.repeat(np.arange(section.clients), np.diff(cuts, prepend=0, append=len(members)))
    return _repaired(_group(owner_N, section.clients), section.min_samples, rng)


def _dirichlet_draw(generator: np.random.Generator, alpha: float, count: int) -> Array:
    """Dirichlet(alpha) of any size; a tiny alpha underflows to all zeros and means that one client has everything."""
    gamma_K = generator.standard_gamma(alpha, count)
    if gamma_K.sum() <= 0.0:
        gamma_K[generator.integers(count)] = 1.0
    return gamma_K / gamma_K.sum()


def _repaired(shards: list[Array], least: int, rng: Rng) -> tuple[Array, ...]:
    """Clients that fall short are given random samples of those that have most."""
    sizes_K = np.array([len(shard) for shard in shards])
    generator = rng("partition_repair")
    for poor in np.flatnonzero(sizes_K < least).tolist():
        while sizes_K[poor] < least:
            rich = int(np.argmax(sizes_K))
            give = min(least - int(sizes_K[poor]), max(1, (int(sizes_K[rich]) - least) // 2))
            mixed = generator.permutation(shards[rich])
            shards[rich], gift = np.sort(mixed[give:]), mixed[:give]
            shards[poor] = np.sort(np.concatenate([shards[poor], gift]))
            sizes_K[rich], sizes_K[poor] = sizes_K[rich] - give, sizes_K[poor] + give
    return tuple(shards)


def _shards(section: DataConfig, data: TaskData, rng: Rng) -> tuple[Array, ...]:
    class_N = _classes(section, data)
    runs = section.clients * section.shards_per_client
    if len(class_N) // runs * section.shards_per_client < section.min_samples or len(class_N) < runs:
        fits = max(1, len(class_N) // section.clients)
        raise ConfigError(
            "data.shards_per_client",
            f"{len(class_N)} training samples cannot be cut into "
            f"{section.clients} x {section.shards_per_client} shards that leave every client "
            f"data.min_samples={section.min_samples}; use at most {fits}, or fewer data.clients",
        )
    generator = rng("partition_shards")
    order_N = np.lexsort((generator.random(len(class_N)), class_N))
    pieces = np.array_split(order_N, runs)
    dealt = generator.permutation(runs).reshape(section.clients, section.shards_per_client)
    return tuple(np.sort(np.concatenate([pieces[i] for i in row])) for row in dealt)


def _quantity(section: DataConfig, data: TaskData, rng: Rng) -> tuple[Array, ...]:
    total, least = len(data.train), section.min_samples
    generator = rng("partition_quantity")
    share_K = _dirichlet_draw(generator, section.quantity_alpha, section.clients)
    spare = total - least * section.clients
    cuts = np.rint(np.cumsum(share_K)[:-1] * spare).astype(np.int64)
    sizes_K = least + np.diff(cuts, prepend=0, append=spare)
    order_N = generator.permutation(total)
    return tuple(np.sort(part) for part in np.split(order_N, np.cumsum(sizes_K)[:-1]))


def no_natural_key() -> ConfigError:
    """The data names no clients."""
    return ConfigError(
        "data.natural_key",
        "is required by data.partition=natural: name the column that says which client a row belongs to",
    )


def _natural(section: DataConfig, data: TaskData) -> Partition:
    if data.groups is None:
        raise no_natural_key()
    shards = tuple(_group(data.groups, len(data.group_names)))
    sizes_K = np.array([len(shard) for shard in shards])
    short = np.flatnonzero(sizes_K < section.min_samples)
    if len(short):
        worst = int(short[np.argmin(sizes_K[short])])
        raise ConfigError(
            "data.min_samples",
            f"{len(short)} of {len(shards)} groups have fewer than "
            f"{section.min_samples} training samples, e.g. {data.group_names[worst]!r} with "
            f"{sizes_K[worst]}; use data.min_samples={max(1, int(sizes_K.min()))} or drop those groups "
            "from the data",
        )
    return Partition(clients=len(shards), shards=shards, num_train=len(data.train), names=data.group_names)


def _virtual(section: DataConfig, total: int, rng: Rng) -> Partition:
    if section.samples_per_client < section.min_samples:
        raise ConfigError(
            "data.samples_per_client",
            f"must be at least data.min_samples={section.min_samples}, got {section.samples_per_client}",
        )
    return Partition(
        clients=section.clients, virtual_samples=section.samples_per_client, num_train=total, seed=rng.seed
    )


def _classes(section: DataConfig, data: TaskData) -> Array:
    """What a skew is made of: class labels, or the groups of a causal LM."""
    if data.train.labels.ndim == 1:
        return data.train.labels
    if data.groups is None:
        raise ConfigError(
            "data.partition",
            f"{section.partition} needs class labels, which a causal-lm task has not; "
            "use iid, quantity, virtual, or natural with data.natural_key",
        )
    return data.groups


def _group(owner_N: Array, count: int) -> list[Array]:
    """Positions by owner 0..count-1, each ascending."""
    order_N = np.argsort(owner_N, kind="stable")
    return np.split(order_N, np.cumsum(np.bincount(owner_N, minlength=count))[:-1])


_SPREAD = {"iid": _iid, "dirichlet": _dirichlet, "shards": _shards, "quantity": _quantity}
