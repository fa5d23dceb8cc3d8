"""What can be known of a run's inputs without Ray, torch or large reads: asked before anything starts and by dry runs.

What is not found here is found when model and data are read, in the same words.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from raysoft.config import PLUGINS, RunConfig, registry
from raysoft.data import columns, raw, text
from raysoft.data.hub import hub_is_offline
from raysoft.data.partition import check_cohort, check_total, no_natural_key
from raysoft.distributed.session import joins_cluster
from raysoft.errors import ConfigError
from raysoft.federation.content import check_user_files
from raysoft.federation.sampling import cohort_candidates, steps_of
from raysoft.models.embedded import PREFIX
from raysoft.models.tasks import EMBEDDED_TASKS, may_be_hub_name, model_source, read, task_kind
from raysoft.rng import Rng
from raysoft.types import Array
from raysoft.wireless.link import Devices

COHORTS, TIGHT = 64, 1.1
SMALL_BYTES, MOST_FILES = 20_000_000, 20_000  # reads of at most a second


def check_inputs(config: RunConfig, download: bool = True) -> None:
    """Raises ConfigError for an unknown task, missing paths, models and files of plug-ins, more clients than samples.

    `download`: a model of the Hugging Face hub is looked up there; else names of the hub are believed. On a cluster the
    nodes may have files that the driver has not.
    """
    task_kind(config.data)
    _check_training_time(config)
    check_user_files(config)
    if config.executor == "ray" and joins_cluster():
        return
    _check_model(config, download)
    task = _small_task(config)
    if task is not None:
        _check_samples(config, task)
    elif config.data.partition == "natural" and config.data.natural_key is None and config.data.path is not None:
        raise no_natural_key()


def check_all_inputs(configs: Mapping[str, RunConfig], download: bool = True) -> None:
    """The same for many runs by name, each combination of model and data once; an error says which run it is."""
    seen = set()
    for name, config in configs.items():
        parts = config.model_dump_json(include={"model", "data", "cohort", "executor", *PLUGINS})
        if parts in seen:
            continue
        seen.add(parts)
        try:
            check_inputs(config, download)
        except ConfigError as error:
            raise ConfigError(error.field, f"{error.message} ({name})") from None


def check_tight_budget(config: RunConfig) -> None:
    """A budget that leaves next to nothing beyond training gets the exact check here, which imports torch.

    Others get it where the model is read anyway, on Ray after its start. The first 64 rounds, with full batches: a
    budget below 1.1 times the training time of the slowest client of a round is tight. On a cluster the driver may lack
    the model. Raises ConfigError("allocator.latency_budget_s") naming the smallest feasible budget.
    """
    budget_s = _latency_budget_s(config)
    if budget_s is None or joins_cluster():
        return
    slowest_s = _training_s(config, config.train.batch_size).max(axis=1).mean()
    if budget_s >= TIGHT * slowest_s:
        return
    from raysoft.federation.coordinator import build_parts
    from raysoft.federation.executor import InlineExecutor, pin_threads
    from raysoft.federation.parts import first_state
    from raysoft.federation.preflight import check_latency_budget
    from raysoft.federation.workload import describe, prepare, with_pack_size

    with pin_threads(config.actors.threads):
        workload = prepare(config)
        info = describe(workload, config)
        parts = build_parts(with_pack_size(config, info), info, InlineExecutor(config, workload))
        if config.cohort.size <= info.population:  # else the coordinator says so
            check_latency_budget(parts, first_state(parts).server)


def _latency_budget_s(config: RunConfig) -> float | None:
    """The budget of an allocator that needs one, else None."""
    if not registry.traits("allocator", config.allocator).needs_budget:
        return None
    return float(registry.options("allocator", config.allocator).latency_budget_s)


def _check_training_time(config: RunConfig) -> None:
    """A budget that is over before anybody has trained: the rest of it needs the model (see federation/preflight.py).

    Every client works through `data.min_samples` samples a step at least, as long as a batch has so many.
    """
    budget_s = _latency_budget_s(config)
    if budget_s is None or config.data.partition == "natural":  # of clients that nobody has counted yet
        return
    fastest_s = _training_s(config, min(config.train.batch_size, config.data.min_samples)).min(axis=1).mean()
    if budget_s < fastest_s:
        raise ConfigError(
            "allocator.latency_budget_s",
            f"{budget_s:g} s cannot be met: even the fastest client of a round trains for {fastest_s:.3g} s or more on "
            "average, before anything is sent; a run with a larger one names the smallest feasible one",
        )


def _training_s(config: RunConfig, samples: int) -> Array:
    """Seconds of local training of the first cohorts, with `samples` a step, [rounds, K].

    Clients of a natural partition are not counted here; there it is a cohort of as many devices as it would draw from.
    """
    rng = Rng(config.seed)
    devices, train, size = Devices(config.device, rng), config.train, config.cohort.size
    rounds = []
    for tick in range(1, COHORTS + 1):
        clients_K = cohort_candidates(rng, tick, config.data.clients or size, size)
        cycles_K = steps_of(rng, train.steps, clients_K) * samples * config.device.cycles_per_sample
        rounds.append(devices.compute_s(cycles_K, clients_K))
    return np.stack(rounds)


def _check_model(config: RunConfig, download: bool) -> None:
    name = config.model.name
    if name.startswith(PREFIX):
        return  # its own reader names the others
    on_hub = bool(name.strip()) and may_be_hub_name(name) and len(name) < 200 and not Path(name).exists()
    if download or hub_is_offline() or not on_hub:
        model_source(config)


def _small_task(config: RunConfig) -> raw.RawTask | None:
    """The samples, where reading them is a matter of a second; None also where they are on the hub."""
    section = config.data
    if section.task not in EMBEDDED_TASKS and section.path is not None and section.path.strip():
        try:
            there, small = _looked_up(Path(section.path).expanduser())
        except (OSError, RuntimeError, ValueError):
            there, small = True, True  # the reader says what is wrong with it
        if not (small if there else hub_is_offline() or not may_be_hub_name(section.path)):
            return None
    return read(section)


def _looked_up(path: Path) -> tuple[bool, bool]:
    """Whether something is there, and whether it is small."""
    if not path.is_dir():
        return path.exists(), not path.exists() or path.stat().st_size <= SMALL_BYTES
    total = 0
    for count, size in enumerate(_sizes(path)):
        total += size
        if total > SMALL_BYTES or count > MOST_FILES:
            return True, False
    return True, True


def _sizes(folder: Path) -> Iterator[int]:
    for place, _, names in os.walk(folder):
        for name in names:
            yield os.lstat(os.path.join(place, name)).st_size


def _check_samples(config: RunConfig, task: raw.RawTask) -> None:
    """Splits, rows and clients, by the code that reads them for the run; texts without the model's tokenizer."""
    section, kind = config.data, task_kind(config.data)
    natural = section.partition == "natural"
    if natural and task.train.groups is None:
        raise no_natural_key()
    splits = raw.split(task, section, Rng(config.seed))
    if kind != "causal-lm":
        columns.index_labels(splits, task.label_names, "data.label_column" if section.path else "data.task")
    if kind != "image-classification":
        for samples in splits.named().values():
            text.check_texts(samples, "data.text_column", blank_allowed=kind == "causal-lm")
    if kind == "causal-lm":
        return  # its samples are pieces of the texts, as the model's tokenizer cuts them
    if natural:
        check_cohort(config, len({str(group) for group in splits.train.groups or ()}))
    elif section.partition != "virtual":
        check_total(section, len(splits.train))
