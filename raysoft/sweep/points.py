"""From a sweep to its trials: points of the space, their names, and a checked configuration for each."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from raysoft.config import RunConfig
from raysoft.config.plugin_file import PluginFile, short_name
from raysoft.config.presets import load_tree, with_overrides
from raysoft.config.registry import resolve
from raysoft.errors import ConfigError
from raysoft.rng import Rng
from raysoft.sweep.config import CHOICE, GRID, MAX_TRIALS, Axis, Pbt, SweepConfig, leaves
from raysoft.sweep.metrics import check_metric, check_task, lower_is_better

Values = Mapping[str, Any]  # by dotted key, in the order of the space
_NOT_AXES = {"seed": "seeds", "executor": "executor"}
# What a trial cannot take over from another one, or what has no part in a result.
_NOT_EXPLORED = ("model", "data", "rounds", "method", "actors", "metrics", "plan", "tracking", "report")


@dataclass(frozen=True)
class Trial:
    """One run of a sweep: a point of the space at a seed. The name is that of its folder."""

    name: str
    point: int
    seed: int
    values: Values


@dataclass(frozen=True)
class Sweep:
    """A checked sweep. `points` is empty where a search chooses them while it goes on (see `count`)."""

    config: SweepConfig
    tree: Mapping[str, Any]  # the base with the overrides, as yet without a point
    points: tuple[Values, ...]
    seeds: tuple[int, ...]
    mode: str
    labels: Mapping[str, str]  # short names of the axes, by key

    @property
    def count(self) -> int:
        """Number of trials."""
        return (len(self.points) or self.config.samples) * len(self.seeds)

    def trials(self) -> list[Trial]:
        """All trials that are known beforehand, seeds inside points."""
        return [self.trial(number, values, seed) for number, values in enumerate(self.points) for seed in self.seeds]

    def trial(self, point: int, values: Values, seed: int) -> Trial:
        """The trial of a point at a seed."""
        return Trial(trial_name(point, values, seed, self.labels), point, seed, dict(values))

    def run_config(self, values: Values, seed: int) -> RunConfig:
        """The complete configuration of a trial. Raises ConfigError naming the point."""
        return run_config(self.tree, values, seed)

    def plugin_files(self) -> dict[str, PluginFile]:
        """The plug-ins in files of one's own that trials name, by their names. Raises ConfigError."""
        configs = [
            self.run_config(values, self.seeds[0]) for values in (self.first(), *_ends(self.config, self.first()))
        ]
        return {file.text: file for config in configs for file in config.plugin_files().values()}

    def rounds(self) -> int:
        """The most rounds that a trial has."""
        points = self.points or (self.first(),)
        return max(self.run_config(values, self.seeds[0]).rounds for values in points)

    def first(self) -> Values:
        """Some point of the space."""
        return {key: axis.values[0] for key, axis in self.config.space.items()}


def run_config(tree: Mapping[str, Any], values: Values, seed: int) -> RunConfig:
    """A base, the values of a point and a seed as a complete configuration. Raises ConfigError naming the point."""
    try:
        return resolve(with_overrides(dict(tree), [values, {"seed": seed}]))
    except ConfigError as error:
        shown = ", ".join(f"{key}={value}" for key, value in values.items())
        where = f"point {shown if len(shown) <= 120 else shown[:117] + '...'}"
        raise ConfigError(f"{where}: {error.field}" if error.field else where, error.message) from None


def make_sweep(config: SweepConfig) -> Sweep:
    """Lay out and check a sweep before anything starts.

    Every grid point and drawn point is checked as a whole, and both ends of each range with the other keys at their
    first values. Raises ConfigError.
    """
    check_metric(config.metric)
    _check_keys(config)
    tree = with_overrides(load_tree(config.base), [*config.overrides, f"executor={config.executor}"])
    base = resolve(tree)  # a mistake in the base is named without a point
    check_task(config.metric, base)
    if config.executor == "ray" and base.data.partition == "natural" and base.actors.clients_per_actor != "auto":
        raise ConfigError("actors.clients_per_actor", "must be auto where the data decides how many clients there are")
    adaptive = config.search == "optuna"
    seeds = _seeds(config, base.seed)
    grid = math.prod(len(axis.values) for axis in config.space.values() if axis.kind == GRID)
    random = any(axis.kind != GRID for axis in config.space.values())
    if config.samples > 1 and not random:
        raise ConfigError("samples", f"is {config.samples}, but space has only grids, which have nothing to draw")
    total = (1 if adaptive else grid) * config.samples * len(seeds)
    if total > MAX_TRIALS:
        raise ConfigError("space", f"{total} trials are more than {MAX_TRIALS}; use fewer values, samples or seeds")
    points = () if adaptive else tuple(_points(config, base.seed))
    mode = config.mode or ("min" if lower_is_better(config.metric) else "max")
    sweep = Sweep(config, tree, points, seeds, mode, labels_of(config))
    for values in points:
        sweep.run_config(values, seeds[0])
    for values in _ends(config, points[0] if points else sweep.first()):
        sweep.run_config(values, seeds[0])
    _check_combination(sweep)
    return sweep


def _check_keys(config: SweepConfig) -> None:
    keys = list(config.space)
    for key, axis in config.space.items():
        head = key.partition(".")[0]
        if key in _NOT_AXES:
            raise ConfigError(f"space.{key}", f"is not an axis; use the sweep's own key {_NOT_AXES[key]}")
        if head in ("tracking", "report") or not re.fullmatch(r"[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)*", key):
            raise ConfigError(f"space.{key[:60]}", "does not name a setting that changes a run, e.g. train.lr")
        inside = next((other for other in keys if key.startswith(f"{other}.")), None)
        if inside is not None:
            raise ConfigError(f"space.{key}", f"lies inside the axis {inside}; vary one of them")
        if config.search == "optuna" and (
            axis.kind == GRID or (any(isinstance(item, (dict, list)) for item in axis.values) and axis.listed)
        ):
            what = "a grid" if axis.kind == GRID else "a choice among lists or mappings"
            raise ConfigError(
                f"space.{key}", f"{what} cannot be searched by optuna; use a choice of plain values or a range"
            )


def _check_combination(sweep: Sweep) -> None:
    config = sweep.config
    if isinstance(config.scheduler, Pbt):
        if config.search != "random":
            raise ConfigError("search", "optuna chooses runs before they start, pbt while they run; use one of them")
        for key, axis in config.space.items():
            if key.split(".")[0] in _NOT_EXPLORED or axis.kind == GRID:
                why = "a grid" if axis.kind == GRID else "fixed once a run has begun"
                raise ConfigError(
                    f"space.{key}", f"is {why}, so pbt cannot explore it; use e.g. train.lr: {{loguniform: [...]}}"
                )
        if len(sweep.seeds) > 1:
            raise ConfigError(
                "seeds", "must be one seed with pbt: a run cannot go on from one with other data and channels"
            )
        if sweep.count < 2:
            raise ConfigError("samples", "pbt needs a population of at least 2 runs, e.g. samples: 8")


def _seeds(config: SweepConfig, first: int) -> tuple[int, ...]:
    return tuple(config.seeds) if isinstance(config.seeds, list) else tuple(range(first, first + config.seeds))


def _points(config: SweepConfig, seed: int) -> Iterator[Values]:
    """The grid, `samples` times, with everything else drawn anew for each."""
    grids = {key: axis.values for key, axis in config.space.items() if axis.kind == GRID}
    number = 0
    for _ in range(config.samples):
        for chosen in itertools.product(*grids.values()):
            fixed = dict(zip(grids, chosen, strict=True))
            yield {
                key: fixed[key] if key in fixed else draw(axis, Rng(seed)(f"sweep/{key}", number))
                for key, axis in config.space.items()
            }
            number += 1


def draw(axis: Axis, rng: np.random.Generator) -> Any:
    """One value of a random axis."""
    if axis.kind == CHOICE:
        return axis.values[int(rng.integers(len(axis.values)))]
    low, high = axis.values[:2]
    if axis.kind == "randint":
        return int(rng.integers(low, high, endpoint=True))
    if axis.kind == "loguniform":
        return _rounded(math.exp(rng.uniform(math.log(low), math.log(high))), low, high)
    if axis.kind == "uniform":
        return _rounded(rng.uniform(low, high), low, high)
    step = axis.values[2]
    value = low + step * int(rng.integers(0, math.floor((high - low) / step + 1e-9), endpoint=True))
    return value if isinstance(value, int) else _rounded(value, low, high)


def _rounded(value: float, low: float, high: float) -> float:
    """Six significant digits: what a person can copy from a table is exactly what was run."""
    return min(max(float(f"{value:.6g}"), float(low)), float(high))


def _ends(config: SweepConfig, first: Values) -> Iterator[Values]:
    for key, axis in config.space.items():
        for value in axis.ends():
            yield {**first, key: value}


def labels_of(config: SweepConfig) -> dict[str, str]:
    """A short name an axis: the last words of its key that tell it from the others; of a mapping its first key."""
    paths = {key: _path(key, axis) for key, axis in config.space.items()}
    out = {}
    for key, path in paths.items():
        words = 1
        while words < len(path) and any(
            other != key and theirs[-words:] == path[-words:] for other, theirs in paths.items()
        ):
            words += 1
        out[key] = ".".join(path[-words:])
    return out


def _path(key: str, axis: Axis) -> list[str]:
    heads = {next(leaves(key, value))[0] for value in axis.values} if axis.listed else set()
    path = (heads.pop() if len(heads) == 1 else key).split(".")
    return path[:-1] if path[-1] == "name" and len(path) > 1 else path  # codec.name is called codec


def plain_value(key: str, value: Any) -> Any:
    """A value as a table shows it: of a mapping its first leaf, of a list its text."""
    if isinstance(value, dict):
        return plain_value(key, next(leaves(key, value))[1]) if value else "{}"
    if isinstance(value, str):
        return short_name(value)
    if isinstance(value, list):
        return str([short_name(one) if isinstance(one, str) else one for one in value])
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)


def trial_name(point: int, values: Values, seed: int, labels: Mapping[str, str]) -> str:
    """The folder of a trial: number of the point, settings as far as there is room, seed.

    >>> trial_name(7, {"model.lora.rank": 8, "train.lr": 0.01}, 0, {"model.lora.rank": "rank", "train.lr": "lr"})
    'p0007-rank8-lr0.01-s0'
    """
    words = "-".join(f"{labels[key]}{short_value(plain_value(key, value))}" for key, value in values.items())
    words = re.sub(r"[^A-Za-z0-9._-]+", "_", words)
    head, tail = f"p{point:04d}-", f"-s{seed}"
    return head + words[: 64 - len(head) - len(tail)].strip("-._") + tail


def short_value(value: Any) -> str:
    """A setting as names and tables have it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
