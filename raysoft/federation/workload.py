"""Everything a run computes on, as numpy: prepared once, shared read-only by every process of the run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from raysoft.config import RunConfig
from raysoft.data.base import Partition, TaskData
from raysoft.rng import Rng
from raysoft.types import Array, ParamSpace, Tensors

if TYPE_CHECKING:
    from raysoft.models.base import FrozenBase

_SHOWN_CLASSES = 12
CLASS_LIMIT = 50  # of more classes neither label counts nor a confusion matrix are kept
TINY_VALUES, TINY_PACK = 1_000_000, 10


@dataclass(frozen=True)
class Workload:
    """Base model, data and their split over clients, and what is trained."""

    base: FrozenBase
    data: TaskData
    partition: Partition
    space: ParamSpace
    head: Tensors  # start values of the always-sent parameters


@dataclass(frozen=True)
class WorkloadInfo:
    """The small part of a workload that the coordinator needs."""

    space: ParamSpace
    head: Tensors
    partition: Partition
    widths: Mapping[int, int]  # padded tokens of each client; empty without token lengths
    eval_items: int
    kind: str
    bits_per_byte: bool
    base_values: int  # scalars of the frozen base
    base_checksum: str
    description: Mapping[str, str]
    label_names: tuple[str, ...] = ()
    labels_KC: Array | None = None  # training samples of each evaluated client by class; None: no or too many classes

    @property
    def population(self) -> int:
        """Number of registered clients."""
        return self.partition.clients


def prepare(config: RunConfig, planning: bool = False) -> Workload:
    """Load the base and the data, split the data, choose what is trained. Raises ConfigError on bad input.

    `planning`: the rank is the largest of the candidates, and whoever plans says which of them fit the matrices.
    """
    from raysoft.models.base import load_base
    from raysoft.models.probe import called_linears, with_padding_side
    from raysoft.models.targets import check_rank, lora_space
    from raysoft.models.tasks import build_partition, build_task

    rng = Rng(config.seed)
    data, source, kind = build_task(config)
    base = load_base(
        str(source), kind, len(data.label_names) or None, data.label_names, config.model.revision, rng, data.pad_id
    )
    base = with_padding_side(base, data.train)
    space, head = lora_space(base, config.model.lora, called_linears(base, data.train.take(np.arange(1)).inputs))
    if not planning:
        check_rank(space)
    return Workload(base=base, data=data, partition=build_partition(config, data, rng), space=space, head=head)


def describe(workload: Workload, config: RunConfig) -> WorkloadInfo:
    """What the coordinator keeps of a workload."""
    from raysoft.federation.sampling import padded_width

    data, partition = workload.data, workload.partition
    ragged = data.train.lengths is not None and partition.shards is not None
    widths = {k: padded_width(data.train, shard) for k, shard in enumerate(partition.shards or ())} if ragged else {}
    base_values = int(sum(value.size for value in workload.base.weights.values()))
    return WorkloadInfo(
        space=workload.space,
        head=workload.head,
        partition=partition,
        widths=widths,
        eval_items=len(getattr(data, config.eval.split)),
        kind=data.kind,
        bits_per_byte=data.bits_per_byte,
        base_values=base_values,
        base_checksum=workload.base.checksum,
        description={
            "model": f"{workload.base.architecture}, {base_values:,} frozen values from {config.model.name}",
            "trained": f"{workload.space.num_values():,} values: LoRA rank {workload.space.rank} on "
            f"{len(workload.space.pairs)} matrices"
            + (f" and {len(workload.space.always_sent)} head tensors" if workload.space.always_sent else ""),
            "data": f"{config.data.task}: {len(data.train):,} training, {len(data.validation):,} validation, "
            f"{len(data.test):,} test samples",
            **_classes(data),
            "clients": f"{partition.clients:,} clients, {config.data.partition} partition",
        },
        label_names=data.label_names,
        labels_KC=_label_counts(workload, config),
    )


def _label_counts(workload: Workload, config: RunConfig) -> Array | None:
    from raysoft.federation.sampling import evaluated_clients

    data, partition = workload.data, workload.partition
    classes = len(data.label_names)
    if not 0 < classes <= CLASS_LIMIT or data.train.labels.ndim != 1 or not config.metrics.clients:
        return None
    clients_K = evaluated_clients(config.seed, partition)
    shards = [data.train.labels[partition.indices(int(client))] for client in clients_K]
    return np.stack([np.bincount(labels, minlength=classes) for labels in shards])


def _classes(data: TaskData) -> dict[str, str]:
    names = data.label_names
    shown = ", ".join(names[:_SHOWN_CLASSES]) + (f", ... ({len(names)})" if len(names) > _SHOWN_CLASSES else "")
    return {"classes": f"{shown} ({data.label_note})" if data.label_note else shown} if names else {}


def with_pack_size(config: RunConfig, info: WorkloadInfo) -> RunConfig:
    """`actors.pack_size: auto` replaced by the number that follows from model and cohort."""
    if config.actors.pack_size != "auto":
        return config
    actors = config.actors.model_copy(update={"pack_size": auto_pack_size(info.base_values, config.cohort.size)})
    return config.model_copy(update={"actors": actors})


def auto_pack_size(base_values: int, cohort: int) -> int:
    """Clients trained in one pass: a function of model and cohort alone, so that it is the same on every machine.

    Ten tiny models fill a core's vector units; from about a million values on one client fills them by itself, and
    what a larger pack adds is memory and idle cores (`benchmarks/pack_size.py`). So a cohort makes two packs of tiny
    models at least, four of larger ones, whatever number of actors takes them.
    """
    if base_values <= TINY_VALUES:
        return min(TINY_PACK, math.ceil(cohort / 2))
    return min(4, math.ceil(cohort / 4)) if base_values <= 200_000_000 else 1


def embedded_pack_size(cohort: int) -> int:
    """What `auto` is for the embedded models, all of which are tiny, before any of them is read."""
    return auto_pack_size(0, cohort)
