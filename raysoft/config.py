"""The configuration tree: strict, frozen, plain data. Imports nothing of raysoft but the errors.

A plug-in section is `{name: ..., **options}`; its options are checked by the plug-in's own Config (see registry.py).
YAML is read by YAML 1.2 rules for numbers and booleans: `1e-3` is a number, `off` is a string.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    PrivateAttr,
    ValidationError,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from raysoft.errors import ConfigError
from raysoft.yaml12 import parse_yaml, printable

S = TypeVar("S", bound=BaseModel)
NAME_PATTERN = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")


class Section(BaseModel):
    """Base of every configuration section: unknown keys are errors, values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    # Of a plug-in's Config: raised when the same options give other numbers than before. Above 1 it enters the hash of
    # the configuration, so that older runs of this plug-in, and only those, are not found again.
    REVISION: ClassVar[int] = 1

    # Options that came after the first version: at their defaults they leave the hash as it was without them.
    LATER: ClassVar[tuple[str, ...]] = ()

    def revision_in(self, run: RunConfig) -> int:
        """REVISION, or where only some settings give other numbers: what holds for this complete configuration."""
        return self.REVISION


# Wide bounds that only keep every derived number finite: a product of five such values is still a float.
SMALLEST, LARGEST = 1e-30, 1e30


def _representable(value: float) -> float:
    if value and not SMALLEST <= value <= LARGEST:
        raise ValueError(f"must be between {SMALLEST:g} and {LARGEST:g}, got {value:g}")
    return value


Positive = Annotated[float, Field(gt=0, strict=False), AfterValidator(_representable)]
NonNegative = Annotated[float, Field(ge=0, strict=False), AfterValidator(_representable)]
Fraction = Annotated[float, Field(gt=0, le=1, strict=False)]
Unit = Annotated[float, Field(ge=0, le=1, strict=False)]
Momentum = Annotated[float, Field(ge=0, lt=1, strict=False)]
Count = Annotated[int, Field(ge=1, le=10**12)]
Label = Annotated[str, Field(min_length=1, max_length=128)]


class Range(Section):
    """A closed interval from which each client draws its own value (keyed by the client)."""

    low: Positive
    high: Positive

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.low > self.high:
            raise ValueError(f"low ({self.low:g}) must not exceed high ({self.high:g})")
        return self


class Plugin(BaseModel):
    """A plug-in section before and after its options are checked by the registry."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str
    _checked: Section | None = PrivateAttr(default=None)

    def options(self) -> dict[str, Any]:
        """The options without the name."""
        return dict(self.model_extra or {})

    @classmethod
    def of(cls, name: str, checked: Section) -> Plugin:
        """The section of options that the plug-in's own Config has checked, every default written out."""
        section = cls(name=name, **checked.model_dump(mode="json"))
        section._checked = checked
        return section

    @property
    def checked(self) -> Section | None:
        """The options as the plug-in's own Config; None before the registry has resolved them."""
        return self._checked


PLUGINS = ("method", "codec", "allocator", "uplink", "channel")


class UserFile(str):
    """A file of the user's that a plug-in reads: an option `trace: UserFile` of its Config, opened as `trace.path`.

    A run notes a digest of its content, so that a run with other content under the same path is another run; a missing
    file is refused before anything starts. A node of a cluster that does not have it reads a copy.
    """

    __slots__ = ()
    copies: ClassVar[dict[str, Path]] = {}  # of this process, by the text of the option

    @property
    def path(self) -> Path:
        """Where it lies; relative to the current folder, `~` is the home folder."""
        return self.copies.get(str(self)) or Path(self).expanduser()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            cls,
            core_schema.str_schema(min_length=1, strict=True),
            serialization=core_schema.plain_serializer_function_ser_schema(str.__str__),
        )


Rank = Annotated[int, Field(ge=1, le=4096)]


def _only_plan(rank: str) -> str:
    if rank != "plan":
        raise ValueError(f"must be a whole number, tiers such as {{low: 4, high: 8}}, or plan, got {rank!r:.40}")
    return rank


class LoraConfig(Section):
    """Low-rank adaptation, with peft's names. Scale alpha/r (alpha/sqrt(r) with use_rslora), r the largest rank.

    `rank: plan` is replaced by an integer before a run begins (see PlanConfig and planning.py).
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
    validation_fraction: Annotated[float, Field(ge=0, lt=1, strict=False)] = 0.1
    test_fraction: Annotated[float, Field(gt=0, lt=1, strict=False)] = 0.25
    proxy_fraction: Annotated[float, Field(ge=0, lt=1, strict=False)] = 0.05
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

    tx_power_dbm: Annotated[float, Field(ge=-60, le=80, strict=False)] = 20.0
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
    timeout_s: Annotated[float, Field(gt=0, le=1e6, strict=False)] = 300.0
    wait_for_nodes_s: Annotated[float, Field(ge=0, le=1e6, strict=False)] = 0.0  # for an autoscaler to add nodes


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

    The defaults were fitted on the study's python-source runs and judged on its digits runs (docs/study.md);
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
    trim: Annotated[float, Field(ge=0, lt=0.5, strict=False)] = 0.05  # cut off each end before the mean latency
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
        names = ("pack_size", "threads", *(("portable",) if self.actors.portable else ()))
        tree["actors"] = {name: tree["actors"][name] for name in names}
        if self.even_packs():  # 0.1 filled the first ones and left the last one short: other sums, other last bits
            tree["actors"]["packs"] = "even"
        # The covariance stands in every record; the evaluation by client comes after the last one.
        tree["metrics"] = {"covariance": tree["metrics"]["covariance"]}
        if revisions := self.revisions():
            tree["revisions"] = revisions
        return tree

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


def apply_override(tree: dict[str, Any], text: str) -> dict[str, Any]:
    """A copy of `tree` with one dotted `key=value` applied; the value is YAML."""
    key, equals, value = text.partition("=")
    where = f"override {text if len(text) <= 80 else text[:77] + '...'!r}"
    if not equals or not re.fullmatch(r"[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)*", key):
        raise ConfigError("", f"{where}: must have the form key=value, e.g. train.lr=1e-2")
    return _replace(tree, key.split("."), parse_yaml(value, where), key)


def _replace(tree: Any, path: list[str], value: Any, key: str) -> dict[str, Any]:
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise ConfigError(key, "cannot be set: its parent is not a section")
    head, rest = path[0], path[1:]
    if head == "name" and not rest:
        return merge_section(tree, {"name": value})
    return {**tree, head: _replace(tree.get(head), rest, value, key) if rest else value}


def merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Sections of `top` over those of `base`."""
    out = dict(base)
    for key, value in top.items():
        old = out.get(key)
        out[key] = merge_section(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
    return out


REPLACED = "\0replaced"  # no key of a YAML file can be this: the options of a plug-in that another one replaces


def merge_section(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """`new` over `old`. A plug-in that changes its name keeps the old options apart, for whoever knows its own."""
    if new.get("name", old.get("name")) == old.get("name") or "name" not in old:
        return merge(old, new)
    return {**new, REPLACED: {key: value for key, value in old.items() if key != "name"}}


def _nearest(path: Sequence[str], prefix: str, kind: Any) -> str:
    """The known key that the last word of `path` may have been meant for."""
    if not path:
        return ""
    for part in path[:-1]:
        field = getattr(kind, "model_fields", {}).get(part)
        kind = None if field is None else field.annotation
    found = difflib.get_close_matches(path[-1], list(getattr(kind, "model_fields", {})), n=1)
    return (
        f"; did you mean {'.'.join([prefix, *path[:-1], found[0]] if prefix else [*path[:-1], found[0]])}?"
        if found
        else ""
    )


_MAPPING = re.compile(r"Input should be a valid dictionary or instance of \w+")


def first_error(error: ValidationError, prefix: str = "", kind: type[BaseModel] | None = None) -> ConfigError:
    """The most telling problem of a pydantic error as one sentence: the field, the value and what is valid.

    `kind`: the section that was read, so that an unknown key can be set beside the known ones.
    """
    problems = [(_user_path(item["loc"]), item) for item in error.errors(include_url=False)]
    # A value that fits no member of a union has one problem a member: the one that got furthest into it says most.
    path = max((path for path, _ in problems), key=len)
    here = [item for where, item in problems if where == path]
    here = [item for item in here if not item["type"].endswith("_type")] or here
    item = here[0]
    field = ".".join([prefix, *path] if prefix else path)
    if item["type"] == "extra_forbidden":
        return ConfigError(field, "unknown key" + _nearest(path, prefix, kind))
    if item["type"] == "missing":
        return ConfigError(field, "is required")
    messages = [
        _MAPPING.sub("must be a mapping of keys to values", one["msg"].removeprefix("Value error, ")) for one in here
    ]
    message = " or ".join(dict.fromkeys(text[:1].lower() + text[1:] for text in messages))
    message = " ".join(message.split())
    if item["type"] == "value_error":
        return ConfigError(field, message)
    shown = repr(item["input"])
    return ConfigError(field, f"{message}, got {shown if len(shown) <= 80 else shown[:77] + '...'}")


def _user_path(location: tuple[int | str, ...]) -> list[str]:
    """The keys a user wrote: union members and validators add their own parts to pydantic's location."""
    return [printable(str(part)) for part in location if not _is_internal(str(part))]


def _is_internal(part: str) -> bool:
    return bool(re.search(r"[\[\]()]", part)) or part in {
        "int",
        "float",
        "str",
        "bool",
        "constrained-int",
        "constrained-float",
        "Range",
        "StepsRange",
    }


def parse_section(kind: type[S], tree: Any, prefix: str = "") -> S:
    """Validate a mapping against a section; raises ConfigError naming the field."""
    if not isinstance(tree, dict):
        raise ConfigError(prefix, f"must be a mapping, got {tree!r:.80}")
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise first_error(error, prefix, kind) from None
    except RecursionError:
        raise ConfigError(prefix, "is nested too deeply") from None
