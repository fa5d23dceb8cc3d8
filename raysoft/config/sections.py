"""The configuration tree: strict, frozen, plain data. (How YAML is read: yaml12.py.)"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from raysoft.config.base import PLUGINS, Count, Momentum, NonNegative, Plugin, Positive, Range, Rank, Section, Unit
from raysoft.config.gone import as_written_before
from raysoft.config.measurement import (
    CheckpointConfig,
    EvalConfig,
    MetricsConfig,
    PlanConfig,
    ReportConfig,
    TrackingConfig,
)
from raysoft.config.plugin_file import PluginFile
from raysoft.errors import ConfigError


def _only_plan(rank: str) -> str:
    if rank != "plan":
        raise ValueError(f"must be a whole number, tiers such as {{low: 4, high: 8}}, or plan, got {rank!r:.40}")
    return rank


class LoraConfig(Section):
    """Low-rank adaptation, with peft's names. Scale alpha/r (alpha/sqrt(r) with use_rslora), r the largest rank.

    `rank: plan` is replaced by an integer before a run begins (see PlanConfig and planning/stage.py).
    """

    rank: Rank | dict[str, Rank] | Annotated[str, AfterValidator(_only_plan), WithJsonSchema({"const": "plan"})] = 8
    """Rank of the adapters: one for all clients, one a tier of clients, or `plan` to have it chosen before training.
    [1]"""
    alpha: Positive = 16.0
    """Numerator of the adapter's scale, which is alpha/rank, or alpha/sqrt(rank) with use_rslora. [1]"""
    targets: str | list[str] = "auto"
    """Matrices that get an adapter: `auto` (query and value), `attention`, `all-linear`, names, or a regular
    expression."""
    layers: Literal["all"] | list[Annotated[int, Field(ge=0)]] = "all"
    """Numbers of the layers that get adapters, counted from 0, or `all`."""
    init: Literal["peft", "gaussian", "orthogonal"] = "peft"
    """How the factor A begins (B begins as zero): as peft does, Gaussian, or with orthogonal rows."""
    use_rslora: bool = False
    """Whether the scale falls with the root of the rank instead of the rank."""
    train_head: bool = False
    """Whether the model's head is trained and sent as well, without sparsification."""

    def max_rank(self) -> int:
        """The rank r_max of the server's adapter."""
        rank = self.ranks()
        return rank if isinstance(rank, int) else max(rank.values())

    def ranks(self) -> int | dict[str, int]:
        """One rank for all clients, or one a tier. Raises ConfigError where the offline stage has yet to choose it."""
        if isinstance(self.rank, str):
            raise ConfigError("model.lora.rank", "plan must be replaced by a number first (planning.resolve_rank)")
        return self.rank

    def scale(self) -> float:
        """s in W0 + s B A, one value for all clients."""
        return self.alpha / (self.max_rank() ** 0.5 if self.use_rslora else self.max_rank())

    @model_validator(mode="after")
    def _not_empty(self) -> LoraConfig:
        if isinstance(self.rank, dict) and not self.rank:
            raise ValueError("rank: give at least one tier, e.g. {low: 4, high: 8}")
        if not self.targets or not self.layers:
            raise ValueError("targets and layers must not be empty")
        return self


class ModelConfig(Section):
    """What is fine-tuned: a frozen base with low-rank adapters."""

    name: str
    """The frozen base: `embedded/...`, a Hugging Face name, or a local folder."""
    revision: str | None = None
    """Commit, branch or tag of a Hugging Face model; null: its main branch."""
    lora: LoraConfig = LoraConfig()
    """Low-rank adaptation of the model."""


class DataConfig(Section):
    """What is learned and how it is spread over clients.

    `task`: an embedded task (digits, digit-domains, python-source) or image-classification, sequence-classification,
    causal-lm with `path` (a dataset name, or a local file or folder).
    """

    task: str
    """What is learned: an embedded task, or a kind of task for data of one's own (`path`)."""
    path: str | None = None
    """Name of a dataset on the hub, or a local file or folder; null with an embedded task."""
    subset: str | None = None
    """Configuration of a dataset on the hub; null: its default."""
    text_column: str = "text"
    """Column that holds the texts."""
    image_column: str = "image"
    """Column that holds the images."""
    label_column: str = "label"
    """Column that holds the classes."""
    max_length: Annotated[int, Field(ge=4, le=65536)] = 128
    """Length at which texts are cut. [tokens]"""
    partition: Literal["iid", "dirichlet", "shards", "quantity", "natural", "virtual"] = "dirichlet"
    """How the training samples are spread over clients."""
    clients: Count = 100
    """Number of simulated clients; with a natural partition the data decide. [clients]"""
    dirichlet_alpha: Positive = 0.3
    """With dirichlet: how alike clients are; small values leave each with few classes. [1]"""
    shards_per_client: Count = 2
    """With shards: single-class runs of samples that each client is dealt. [shards]"""
    quantity_alpha: Positive = 1.0
    """With quantity: how alike clients are in their number of samples; small is uneven. [1]"""
    natural_key: str | None = None
    """With natural: the column whose values are the clients, such as a writer or a subject."""
    samples_per_client: Annotated[int, Field(ge=1, le=10**7)] = 64
    """With virtual: samples that each client draws, with replacement. [samples]"""
    min_samples: Count = 2
    """Least number of training samples of any client. [samples]"""
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of what is not test data that is kept for validation. [1]"""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Share of all samples that is kept for the test where the data have no test split. [1]"""
    proxy_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the training samples that the server keeps for planning the rank. [1]"""
    max_train_samples: Count | None = None
    """Number of training samples to use, drawn at random; null: all. [samples]"""
    max_test_samples: Count | None = None
    """Number of test samples to use, drawn at random; null: all. [samples]"""


class CohortConfig(Section):
    """Who takes part in a round, and with which weight."""

    size: Count = 20
    """Clients that are drawn in each round. [clients]"""
    weighting: Literal["samples", "uniform"] = "samples"
    """Weight of a client in the mean: by its number of samples, or the same for all."""


class StepsRange(Section):
    """Each client draws its own number of local steps from low..high."""

    low: Count
    """Least number of local steps. [steps]"""
    high: Count
    """Largest number of local steps. [steps]"""

    @model_validator(mode="after")
    def _ordered(self) -> StepsRange:
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) must not exceed high ({self.high})")
        return self


class TrainConfig(Section):
    """Local training of one client in one round."""

    LATER: ClassVar[tuple[str, ...]] = ("max_update_norm",)  # rejects what no run of 0.1 survived

    steps: Count | StepsRange = 5
    """Local steps of a client in a round; with low and high each client has its own number. [steps]"""
    batch_size: Count = 16
    """Samples of a local step, or all that a client has where that is less. [samples]"""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Local optimiser."""
    momentum: Momentum = 0.9
    """Momentum of sgd. [1]"""
    betas: Annotated[tuple[Momentum, Momentum], Field(strict=False)] = (0.9, 0.999)
    """Decay rates of adamw's two moments. [1]"""
    eps: Positive = 1e-8
    """What adamw adds to the root of its second moment. [1]"""
    lr: Positive = 5e-2
    """Learning rate of the adapters. [1]"""
    head_lr: Positive | None = None
    """Learning rate of a trained head; null: that of the adapters. [1]"""
    weight_decay: NonNegative = 0.0
    """Weight decay: coupled in sgd, decoupled in adamw. [1]"""
    clip_norm: Positive | None = 1.0
    """Largest norm of a client's gradient, longer ones are scaled down; null: no limit. [1]"""
    max_update_norm: Positive | None = 1000.0
    """Updates longer than this many times the cohort's median are rejected; null: none. [1]"""
    optimizer_state: Literal["reset"] = "reset"
    """What becomes of the optimiser's state between rounds: clients keep none."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where clients train; auto takes a GPU where there is one."""


class DeviceConfig(Section):
    """The simulated devices. payload_scale and compute_scale let a tiny model stand for a large one."""

    tx_power_dbm: Annotated[float, Field(ge=-60, le=80)] = 20.0
    """Transmit power of a client. [dBm]"""
    cpu_hz: Positive | Range = Range(low=5e8, high=2e9)
    """Clock rate of a client's processor; with low and high each client has its own. [Hz]"""
    cycles_per_sample: NonNegative = 1e6
    """Processor cycles that one training sample costs. [cycles]"""
    kappa: NonNegative = 1e-28
    """Energy constant of the processor: kappa * cycles * Hz^2 joules. [J s^2]"""
    payload_scale: Positive = 1.0
    """Factor on all bits on the air, so that a tiny model stands for a large one. [1]"""
    compute_scale: Positive = 1.0
    """Factor on all cycles, so that a tiny model stands for a large one. [1]"""


class ActorsConfig(Section):
    """Processes. `pack_size`, `threads` and `portable` choose the order of summation and the kernels.

    They touch the last bits of an update, and through thresholds (which component is sent, which rank is chosen) more
    than those. Nothing else here touches the result (design: determinism).
    """

    clients_per_actor: Count | Literal["auto"] = "auto"
    """Clients that belong to an actor; auto: any actor trains any pack. [clients]"""
    pack_size: Count | Literal["auto"] = "auto"
    """Clients trained in one pass; auto: by model and cohort. [clients]"""
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Threads of each actor's arithmetic. [threads]"""
    portable: bool = False
    """Whether unlike processors give the same bytes, at about half the speed."""
    cpus: Count | Literal["auto"] = "auto"
    """Processor cores of the run; auto: what is free. [cores]"""
    gpus: NonNegative = 0.0
    """GPUs of each actor; a fraction lets several share one. [GPUs]"""
    on_failure: Literal["retry", "drop_client", "abort"] = "retry"
    """What a lost actor means: try again, go on without its clients (also where a plug-in raises), or end the run."""
    quorum: Unit = 0.5
    """Least share of the cohort that must be left where clients are dropped. [1]"""
    timeout_s: Annotated[float, Field(gt=0, le=1e6)] = 300.0
    """Time without a sign of life after which a process counts as lost. [s]"""
    wait_for_nodes_s: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """How long to wait for an autoscaler to add nodes. [s]"""


class RunConfig(Section):
    """A complete run."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Key of all randomness: splits, cohorts, batches, channels. [1]"""
    rounds: Annotated[int, Field(ge=0, le=10_000_000)] = 40
    """Rounds of the run. [rounds]"""
    executor: Literal["inline", "ray"] = "ray"
    """Where clients compute: in this process, or on actors of Ray; the result is the same."""
    model: ModelConfig
    """What is fine-tuned."""
    data: DataConfig
    """What is learned, by how many clients."""
    cohort: CohortConfig = CohortConfig()
    """Who takes part in a round."""
    train: TrainConfig = TrainConfig()
    """Local training."""
    method: Plugin
    """What is trained, sent and averaged."""
    codec: Plugin
    """How an update becomes bits."""
    allocator: Plugin
    """Who sends how much over which share of the band."""
    uplink: Plugin
    """Who arrives, when, at which energy."""
    channel: Plugin
    """Gains of the radio channel."""
    device: DeviceConfig = DeviceConfig()
    """The simulated devices."""
    actors: ActorsConfig = ActorsConfig()
    """Processes of the computation."""
    eval: EvalConfig = EvalConfig()
    """Evaluation of the global model."""
    metrics: MetricsConfig = MetricsConfig()
    """What is measured beside the training."""
    plan: PlanConfig = PlanConfig()
    """How `model.lora.rank: plan` chooses."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """When a run is saved."""
    tracking: TrackingConfig = TrackingConfig()
    """Where a run is logged."""
    report: ReportConfig = ReportConfig()
    """The figures of its report."""

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        # A natural partition takes its clients from the data, so their number is checked when the data is read.
        if self.data.partition != "natural" and self.cohort.size > self.data.clients:
            raise ValueError(f"cohort.size ({self.cohort.size}) must not exceed data.clients ({self.data.clients})")
        return self

    def result_keys(self) -> dict[str, Any]:
        """The part of the configuration that determines the result."""
        tree = self.model_dump(mode="json")
        for key in (
            "executor",
            "tracking",
            "report",
            "checkpoint",
            *(() if self.model.lora.rank == "plan" else ("plan",)),
        ):
            tree.pop(key)
        for key in tree:
            section = getattr(self, key)
            section = section.checked if isinstance(section, Plugin) else section
            if isinstance(section, Section):
                for option in section.LATER:
                    if getattr(section, option) == type(section).model_fields[option].default:
                        tree[key].pop(option)
        digests = {file.text: file.digest for file in self.plugin_files().values()}
        tree |= {kind: _by_content(as_written_before(kind, tree[kind]), digests) for kind in PLUGINS}
        names = ("pack_size", "threads", *(("portable",) if self.actors.portable else ()))
        tree["actors"] = {name: tree["actors"][name] for name in names}
        if self.even_packs():  # 0.1 filled the first ones and left the last one short: other sums, other last bits
            tree["actors"]["packs"] = "even"
        # The covariance stands in every record; the evaluation by client comes after the last one.
        tree["metrics"] = {"covariance": tree["metrics"]["covariance"]}
        if revisions := self.revisions():
            tree["revisions"] = revisions
        return tree

    def default_of(self, key: str) -> Any:
        """What an option (`codec.scope`) has in plain JSON where nobody sets it; None where it has no default."""
        section: Any = self
        *path, option = key.split(".")
        for name in path:
            section = getattr(section, name, None)
            section = section.checked if isinstance(section, Plugin) else section
        found = type(section).model_fields.get(option) if isinstance(section, Section) else None
        if found is None or found.is_required():
            return None
        return json.loads(json.dumps(found.get_default(), default=str))

    def plugin_files(self) -> dict[str, PluginFile]:
        """The plug-ins in files of one's own, by configuration key (`method.name`, `method.extras.0.name`)."""
        return {key: file for kind in PLUGINS for key, file in _files_of(getattr(self, kind), kind)}

    def even_packs(self) -> bool:
        """Whether the cohort does not come out in whole packs, and is cut into nearly equal ones."""
        size = self.actors.pack_size
        return isinstance(size, int) and self.cohort.size % size != 0

    def revisions(self) -> dict[str, int]:
        """Revisions above 1 of the plug-ins, by kind: their numbers are not those of the first one."""
        checked = {kind: getattr(self, kind).checked for kind in PLUGINS}
        found = {kind: options.revision_in(self) for kind, options in checked.items() if options is not None}
        return {kind: revision for kind, revision in found.items() if revision > 1}

    def config_hash(self) -> str:
        """Hash of the result-determining keys."""
        text = json.dumps(self.result_keys(), sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _files_of(section: Plugin, key: str) -> Iterator[tuple[str, PluginFile]]:
    """The file of a plug-in, and those of plug-ins among its options."""
    if section.file is not None:
        yield f"{key}.name", section.file
    for name in type(section.checked).model_fields if section.checked is not None else ():
        value = getattr(section.checked, name)
        for number, item in enumerate(value if isinstance(value, list) else ()):
            if isinstance(item, Plugin):
                yield from _files_of(item, f"{key}.{name}.{number}")


def _by_content(tree: Any, digests: Mapping[str, str]) -> Any:
    """A section with the names of files replaced by what they hold."""
    if isinstance(tree, dict):
        return {
            key: digests.get(value, value) if key == "name" and isinstance(value, str) else _by_content(value, digests)
            for key, value in tree.items()
        }
    return [_by_content(item, digests) for item in tree] if isinstance(tree, list) else tree
