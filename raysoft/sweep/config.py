"""A sweep as checked data: what `raysoft tune FILE.yaml` reads. Nothing here knows Ray.

base: soft                         # a preset or a file of `raysoft run`
overrides: {rounds: 20}            # settings of every run, as a mapping or a list of key=value
space:                             # any configuration key: grid, choice, uniform, loguniform, quniform, randint
  model.lora.rank: {grid: [4, 8, 16]}
  train.lr: {loguniform: [1e-3, 1.0]}
metric: final_accuracy             # any number of summary.json or of a round
samples: 10                        # draws of everything that is not a grid
seeds: 3                           # runs of each point
scheduler: asha                    # none | asha | hyperband | pbt, or a mapping with options
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from raysoft.config import NAME_PATTERN, Count, Section, apply_override, parse_section
from raysoft.config.yaml12 import load_mapping
from raysoft.errors import ConfigError
from raysoft.rundir.checks import is_number
from raysoft.sweep.shipped import find_sweep

MAX_TRIALS = 10_000
GRID, CHOICE = "grid", "choice"
FARTHEST = 2**62  # from 0, of what is drawn as a whole number: such a draw is one of an int64
KINDS = (GRID, CHOICE, "uniform", "loguniform", "quniform", "randint")
Seed = Annotated[int, Field(ge=0, lt=2**62)]


class Axis(Section):
    """What one key takes: exactly one of the fields is given.

    grid: every value; choice: one of them at random; uniform, loguniform: [low, high]; quniform: [low, high, step];
    randint: [low, high], both included. A value of grid or choice may be a mapping of several keys below this one.
    """

    grid: list[Any] | None = None
    """Every one of these values."""
    choice: list[Any] | None = None
    """One of these values, at random."""
    uniform: list[Any] | None = None
    """[low, high]: uniform in between."""
    loguniform: list[Any] | None = None
    """[low, high]: uniform in the logarithm."""
    quniform: list[Any] | None = None
    """[low, high, step]: uniform in multiples of the step."""
    randint: list[Any] | None = None
    """[low, high]: a whole number, both included."""

    @model_validator(mode="after")
    def _sound(self) -> Axis:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(KINDS)}, got {', '.join(given) or 'none'}")
        values = self.values
        if self.listed:
            if not 1 <= len(values) <= 1000:
                raise ValueError(f"{self.kind}: must have 1 to 1000 values, got {len(values)}")
            texts = [_canonical(value) for value in values]
            if twice := next((text for text in texts if texts.count(text) > 1), None):
                raise ValueError(f"{self.kind}: {twice[:60]} appears twice")
            return self
        wanted = 3 if self.kind == "quniform" else 2
        if len(values) != wanted or not all(is_number(value) for value in values):
            shape = "[low, high, step]" if wanted == 3 else "[low, high]"
            raise ValueError(f"{self.kind}: must be {shape} of numbers, got {values!r:.60}")
        low, high = values[:2]
        if not low < high:
            raise ValueError(f"{self.kind}: low ({low:g}) must be below high ({high:g})")
        if self.kind == "loguniform" and low <= 0:
            raise ValueError(f"loguniform: low must be positive, got {low:g}")
        if self.kind == "quniform" and not 0 < values[2] <= high - low:
            raise ValueError(f"quniform: step must be positive and at most high - low, got {values[2]:g}")
        if self.kind == "quniform" and (high - low) / values[2] > FARTHEST:
            raise ValueError(f"quniform: must have at most 2^62 steps between low and high, got {values!r:.60}")
        if self.kind == "randint" and not all(isinstance(value, int) for value in values):
            raise ValueError(f"randint: must be two whole numbers, got {values!r:.60}")
        if self.kind == "randint" and max(map(abs, values)) > FARTHEST:
            raise ValueError(f"randint: must be two whole numbers from -2^62 to 2^62, got {values!r:.60}")
        return self

    @property
    def kind(self) -> str:
        """Which of the fields is given."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def values(self) -> list[Any]:
        """Its content."""
        return list(getattr(self, self.kind))

    @property
    def listed(self) -> bool:
        """Whether the values are a list rather than a range."""
        return self.kind in (GRID, CHOICE)

    def ends(self) -> list[Any]:
        """What must be valid for the whole axis to be: every listed value, or both ends of the range."""
        return self.values if self.listed else self.values[:2]


def _canonical(value: Any) -> str:
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError(f"{value!r:.60} is not a value that a configuration can have") from None


class NoScheduler(Section):
    """Every run goes on to its last round."""

    name: Literal["none"] = "none"
    """Which scheduler."""


class Asha(Section):
    """Asynchronous successive halving (Li et al., MLSys 2020): the worse runs of each rung stop early."""

    name: Literal["asha"] = "asha"
    """Which scheduler."""
    grace_rounds: Count | None = None
    """No run stops before this round; null: a ninth of the rounds. [rounds]"""
    reduction_factor: Annotated[float, Field(gt=1, le=100)] = 3.0
    """Of this many runs at a rung, one goes on. [1]"""
    brackets: Annotated[int, Field(ge=1, le=10)] = 1
    """Brackets, each with its own first rung. [1]"""


class HyperBand(Section):
    """HyperBand (Li et al., JMLR 2018): synchronous halving; runs pause, and go on from their checkpoints."""

    name: Literal["hyperband"] = "hyperband"
    """Which scheduler."""
    reduction_factor: Annotated[float, Field(gt=1, le=100)] = 3.0
    """Of this many runs at a rung, one goes on. [1]"""


class Pbt(Section):
    """Population based training (Jaderberg et al. 2017): the worst runs take over state and settings of the best."""

    name: Literal["pbt"] = "pbt"
    """Which scheduler."""
    interval_rounds: Count | None = None
    """Rounds between two exchanges; null: a fifth of the rounds. [rounds]"""
    quantile: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    """Share of the runs that takes over from as large a share of the best. [1]"""
    resample: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Probability that a setting is drawn anew instead of perturbed. [1]"""


SCHEDULERS: dict[str, type[Section]] = {"none": NoScheduler, "asha": Asha, "hyperband": HyperBand, "pbt": Pbt}
Scheduler = NoScheduler | Asha | HyperBand | Pbt


class SweepConfig(Section):
    """A complete sweep. `executor` says where each run computes: in the trial's process, or on client actors."""

    base: str
    """Preset or file of `raysoft run` that every run builds on."""
    overrides: list[str | dict[str, Any]] = []  # noqa: RUF012 - pydantic copies it
    """Settings of every run, as a mapping or a list of key=value."""
    space: Annotated[dict[str, Axis], Field(min_length=1, max_length=32)]
    """Configuration keys and what they take: grid, choice, uniform, loguniform, quniform or randint."""
    metric: str = "final_accuracy"
    """What decides: any number of summary.json or of a round."""
    mode: Literal["max", "min"] | None = None
    """Whether more (max) or less (min) of the metric is better; null: as is known of it."""
    samples: Annotated[int, Field(ge=1, le=MAX_TRIALS)] = 1
    """Draws of everything that is not a grid. [draws]"""
    scheduler: Any = NoScheduler()
    """Which runs stop early: none, asha, hyperband or pbt, or a mapping with its options."""
    search: Literal["random", "optuna"] = "random"
    """Where draws come from: at random, or by Optuna from the trials so far."""
    seeds: Annotated[int, Field(ge=1, le=1000)] | Annotated[list[Seed], Field(min_length=1, max_length=1000)] = 1
    """Seeds of each point, by number or as a list. [1]"""
    max_concurrent: Count | Literal["auto"] = "auto"
    """Trials that run at a time; auto: as many as fit. [trials]"""
    executor: Literal["inline", "ray"] = "inline"
    """Where each run computes: in the trial's process, or on client actors."""
    name: str | None = None
    """Name of the sweep and its folder; null: the file's."""
    storage: str | None = None
    """Where runs travel to on a cluster without a shared file system; null: nowhere."""

    @field_validator("overrides", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        if not isinstance(value, (dict, list)):
            raise ValueError(f"must be a mapping of keys to values, or a list of key=value, got {value!r:.60}")
        return [value] if isinstance(value, dict) else value

    @field_validator("scheduler", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else {"name": "none"} if value is None else value

    @model_validator(mode="after")
    def _sound(self) -> SweepConfig:
        if isinstance(self.seeds, list) and len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ, got {self.seeds}")
        if self.name is not None and not NAME_PATTERN.fullmatch(self.name):
            raise ValueError(f"name: {self.name!r:.80} must be 1 to 64 letters, digits, '.', '_' or '-'")
        return self


def load_sweep(target: str | Path, words: Sequence[str] = (), own: Mapping[str, Any] | None = None) -> SweepConfig:
    """Read a sweep that comes along, by name, or a file; `own` are keys on top, then come `words` (see `with_words`).

    A relative `base: FILE` is looked for beside the sweep file. Raises ConfigError.
    """
    path = find_sweep(target)
    tree, extra = with_words({**load_mapping(path), **(own or {})}, words)
    return parse_sweep(tree, path.parent, extra)


def with_words(tree: dict[str, Any], words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """A mapping with `key=value` words on top, and those of them that are settings of every run, no key of a sweep.

    Raises ConfigError for a word of another form.
    """
    extra = []
    for text in words:
        key = text.partition("=")[0].partition(".")[0]
        if key in SweepConfig.model_fields:
            tree = apply_override(tree, text)
        else:
            apply_override({}, text)  # its form is checked here, its meaning with the base
            extra.append(text)
    return tree, extra


def parse_sweep(tree: Mapping[str, Any], folder: Path | None = None, extra: Sequence[str] = ()) -> SweepConfig:
    """A mapping as a sweep, `extra` after its overrides. Raises ConfigError naming the field."""
    config = parse_section(SweepConfig, dict(tree))
    base = config.base
    if folder is not None and base.endswith((".yaml", ".yml")) and (folder / base).is_file():
        base = str((folder / base).resolve())
    update = {"base": base, "overrides": [*config.overrides, *extra], "scheduler": _scheduler(config.scheduler)}
    return config.model_copy(update=update)


def _scheduler(value: Any) -> Scheduler:
    if not isinstance(value, dict):
        if isinstance(value, Section):
            return value  # type: ignore[return-value]
        raise ConfigError("scheduler", f"must be a name or a mapping with a name, got {value!r:.60}")
    name = value.get("name", "none")
    if not isinstance(name, str) or name not in SCHEDULERS:
        raise ConfigError("scheduler.name", f"unknown scheduler {name!r:.60}, choose from {', '.join(SCHEDULERS)}")
    return parse_section(SCHEDULERS[name], value, "scheduler")  # type: ignore[return-value]


def leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Dotted keys and plain values of a possibly nested mapping.

    >>> list(leaves("model.lora", {"rank": 4, "alpha": 8}))
    [('model.lora.rank', 4), ('model.lora.alpha', 8)]
    """
    if isinstance(value, dict) and value:
        for name in value:
            yield from leaves(f"{key}.{name}", value[name])
    else:
        yield key, value


def dump(config: SweepConfig) -> dict[str, Any]:
    """The sweep as plain data that `parse_sweep` reads back."""
    tree = config.model_dump(mode="json", exclude={"scheduler", "space"})
    tree["scheduler"] = config.scheduler.model_dump(mode="json")
    tree["space"] = {key: {axis.kind: axis.values} for key, axis in config.space.items()}
    return tree
