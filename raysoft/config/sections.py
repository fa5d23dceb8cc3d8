"""The configuration tree: strict, frozen, plain data. (How YAML is read: yaml12.py.)"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from raysoft.config.base import (
    PLUGINS,
    Count,
    Label,
    Momentum,
    NonNegative,
    Plugin,
    Positive,
    Range,
    Rank,
    Section,
    Unit,
)
from raysoft.config.gone import as_written_before
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

    rank: Rank | dict[str, Rank] | Annotated[str, AfterValidator(_only_plan)] = 8
    alpha: Positive = 16.0
    targets: str | list[str] = "auto"
    layers: Literal["all"] | list[Annotated[int, Field(ge=0)]] = "all"
    init: Literal["peft", "gaussian", "orthogonal"] = "peft"
    use_rslora: bool = False
    train_head: bool = False

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
    """`name`: embedded/..., a Hugging Face name, or a local folder."""

    name: str
    revision: str | None = None
    lora: LoraConfig = LoraConfig()


class DataConfig(Section):
    """What is learned and how it is spread over clients.

    `task`: an embedded task (digits, python-source) or image-classification, sequence-classification, causal-lm with
    `path` (a dataset name, or a local file or folder).
    """

    task: str
    path: str | None = None
    subset: str | None = None
    text_column: str = "text"
    image_column: str = "image"
    label_column: str = "label"
    max_length: Annotated[int, Field(ge=4, le=65536)] = 128
    partition: Literal["iid", "dirichlet", "shards", "quantity", "natural", "virtual"] = "dirichlet"
    clients: Count = 100
    dirichlet_alpha: Positive = 0.3
    shards_per_client: Count = 2
    quantity_alpha: Positive = 1.0
    natural_key: str | None = None
    samples_per_client: Annotated[int, Field(ge=1, le=10**7)] = 64  # virtual
    min_samples: Count = 2
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.25
    proxy_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.05
    max_train_samples: Count | None = None
    max_test_samples: Count | None = None


class CohortConfig(Section):
    """Who takes part in a round, and with which weight."""

    size: Count = 20
    weighting: Literal["samples", "uniform"] = "samples"


class StepsRange(Section):
    """Each client draws its own number of local steps from low..high."""

    low: Count
    high: Count

    @model_validator(mode="after")
    def _ordered(self) -> StepsRange:
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) must not exceed high ({self.high})")
        return self


class TrainConfig(Section):
    """Local training of one client in one round."""

    LATER: ClassVar[tuple[str, ...]] = ("max_update_norm",)  # rejects what no run of 0.1 survived

    steps: Count | StepsRange = 5
    batch_size: Count = 16
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: Momentum = 0.9
    betas: Annotated[tuple[Momentum, Momentum], Field(strict=False)] = (0.9, 0.999)
    eps: Positive = 1e-8
    lr: Positive = 5e-2
    head_lr: Positive | None = None
    weight_decay: NonNegative = 0.0
    clip_norm: Positive | None = 1.0
    max_update_norm: Positive | None = 1000.0  # times the cohort's median; a larger update is rejected
    optimizer_state: Literal["reset"] = "reset"
    device: Literal["auto", "cpu", "cuda"] = "auto"


class DeviceConfig(Section):
    """The simulated devices. payload_scale and compute_scale let a tiny model stand for a large one."""

    tx_power_dbm: Annotated[float, Field(ge=-60, le=80)] = 20.0
    cpu_hz: Positive | Range = Range(low=5e8, high=2e9)
    cycles_per_sample: NonNegative = 1e6
    kappa: NonNegative = 1e-28
    payload_scale: Positive = 1.0
    compute_scale: Positive = 1.0


class ActorsConfig(Section):
    """Processes. `pack_size`, `threads` and `portable` choose the order of summation and the kernels.

    They touch the last bits of an update, and through thresholds (which component is sent, which rank is chosen) more
    than those. Nothing else here touches the result (design: determinism).
    """

    clients_per_actor: Count | Literal["auto"] = "auto"
    pack_size: Count | Literal["auto"] = "auto"
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    portable: bool = False  # the same bytes on unlike processors, at about half the speed
    cpus: Count | Literal["auto"] = "auto"
    gpus: NonNegative = 0.0
    # A lost actor; drop_client also leaves out a client whose plug-in code raises.
    on_failure: Literal["retry", "drop_client", "abort"] = "retry"
    quorum: Unit = 0.5
    timeout_s: Annotated[float, Field(gt=0, le=1e6)] = 300.0
    wait_for_nodes_s: Annotated[float, Field(ge=0, le=1e6)] = 0.0  # for an autoscaler to add nodes


class EvalConfig(Section):
    """Evaluation of the global model on fixed shards of the test split."""

    every: Count = 1
    batch_size: Count = 512
    split: Literal["test", "validation"] = "test"


class MetricsConfig(Section):
    """What is measured beside the training; never changes the adapter.

    `clients`: after the last round the global model is evaluated client by client on up to `client_samples` of each
    client's own training samples (at most 1,000 clients).
    """

    covariance: Literal["auto", "exact", "sketch", "off"] = "auto"
    clients: bool = True
    client_samples: Annotated[int, Field(ge=1, le=10**6)] = 32


class WandbConfig(Section):
    """Weights & Biases. The API key comes from the environment or `wandb login`, never from here.

    `group` (empty in a sweep: its name) and `name` (empty: the run folder's) are how a run is filed; `entity` empty is
    the key's own account. `artifacts`: what is uploaded besides numbers.
    """

    mode: Literal["off", "offline", "online"] = "off"
    project: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^/\\#?%:]+$")] = "raysoft"
    group: Label | None = None
    tags: Annotated[list[Annotated[str, Field(min_length=1, max_length=64)]], Field(max_length=64)] = []
    entity: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[\w.-]+$")] | None = None
    name: Label | None = None
    artifacts: list[Literal["figures", "adapter"]] = []


class TrackingConfig(Section):
    """Where a run is logged besides its own folder; has no part in the result.

    `prometheus`: gauges under the metrics port of Ray, for a run on a cluster that is scraped.
    """

    tensorboard: bool = True
    wandb: WandbConfig = WandbConfig()
    prometheus: bool = False


class CheckpointConfig(Section):
    """When a run is saved for `raysoft resume`: every so many rounds and after the last (null: never).

    The last `keep` checkpoints stay, and each whose round is a multiple of `keep_every`.
    """

    every: Count | None = 1
    keep: Annotated[int, Field(ge=1, le=10**6)] = 2
    keep_every: Count | None = None


class ScoreWeights(Section):
    """The constants c_r, c_s and c_c of the rank's score (only their ratios matter).

    The defaults were fitted on the study's python-source runs and judged on its digits runs (docs/study_record.md);
    `raysoft plan --validate` fits one's own.
    """

    rank: NonNegative = 0.27
    sparsification: NonNegative = 1.0
    covariance: NonNegative = 4.3


class PlanConfig(Section):
    """The offline stage: which ranks compete and how they are measured. Without effect on a run of a given rank.

    `alpha`: how the scale s of W0 + s B A follows the rank. keep-scale: s stays what model.lora gives at its own rank;
    rslora: s is proportional to 1/sqrt(rank). Where model.lora.rank is `plan`, alpha belongs to `reference_rank`.
    """

    ranks: Annotated[list[Rank], Field(min_length=1, max_length=64)] = [1, 2, 4, 8, 16]
    alpha: Literal["keep-scale", "rslora"] = "keep-scale"
    reference_rank: Rank = 8
    draws: Annotated[int, Field(ge=8, le=10**6)] = 256  # sampled rounds (cohorts and channels)
    trim: Annotated[float, Field(ge=0, lt=0.5)] = 0.05  # cut off each end before the mean latency
    pilot_steps: Annotated[int, Field(ge=1, le=10**6)] = 20  # full-gradient steps, for the rank term
    pilot_rounds: Annotated[int, Field(ge=1, le=10**6)] = 4  # federated rounds, for the two other terms
    repetitions: Annotated[int, Field(ge=2, le=1000)] = 3  # of the federated pilot
    weights: ScoreWeights = ScoreWeights()

    @model_validator(mode="after")
    def _distinct(self) -> PlanConfig:
        if len(set(self.ranks)) < len(self.ranks):
            raise ValueError(f"ranks must differ, got {self.ranks}")
        return self


class RunConfig(Section):
    """A complete run."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    rounds: Annotated[int, Field(ge=0, le=10_000_000)] = 40
    executor: Literal["inline", "ray"] = "ray"
    model: ModelConfig
    data: DataConfig
    cohort: CohortConfig = CohortConfig()
    train: TrainConfig = TrainConfig()
    method: Plugin
    codec: Plugin
    allocator: Plugin
    uplink: Plugin
    channel: Plugin
    device: DeviceConfig = DeviceConfig()
    actors: ActorsConfig = ActorsConfig()
    eval: EvalConfig = EvalConfig()
    metrics: MetricsConfig = MetricsConfig()
    plan: PlanConfig = PlanConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        # A natural partition takes its clients from the data, so their number is checked when the data is read.
        if self.data.partition != "natural" and self.cohort.size > self.data.clients:
            raise ValueError(f"cohort.size ({self.cohort.size}) must not exceed data.clients ({self.data.clients})")
        return self

    def result_keys(self) -> dict[str, Any]:
        """The part of the configuration that determines the result."""
        tree = self.model_dump(mode="json")
        for key in ("executor", "tracking", "checkpoint", *(() if self.model.lora.rank == "plan" else ("plan",))):
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
