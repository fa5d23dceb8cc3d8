"""Samples as a source reads them, before a tokeniser or an image processor; and the keyed, stratified split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raysoft.config import DataConfig
from raysoft.errors import ConfigError
from raysoft.rng import Rng
from raysoft.types import Array


@dataclass(frozen=True)
class RawSamples:
    """N rows. content: texts, or anything `images.encode_images` opens. labels: as read, None for a causal LM.

    `origin` and `rows` (0-based, None: 0..N-1) say where a row comes from, for messages.
    """

    content: Sequence[Any]
    labels: Sequence[Any] | None = None
    groups: Sequence[Any] | None = None
    origin: str = "the data"
    rows: Array | None = None

    def place(self, n: int) -> str:
        """Where sample n was read, e.g. "row 17 of train.csv"."""
        return f"row {(n if self.rows is None else int(self.rows[n])) + 1} of {self.origin}"

    def __len__(self) -> int:
        return len(self.content)

    def take(self, index_N: Array) -> RawSamples:
        """The rows at these positions."""
        return RawSamples(
            content=[self.content[i] for i in index_N],
            labels=None if self.labels is None else [self.labels[i] for i in index_N],
            groups=None if self.groups is None else [self.groups[i] for i in index_N],
            origin=self.origin,
            rows=index_N if self.rows is None else self.rows[index_N],
        )


@dataclass(frozen=True)
class RawTask:
    """What a source found. `label_names` where the source knows them in the order of integer labels."""

    train: RawSamples
    test: RawSamples | None = None
    validation: RawSamples | None = None
    label_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Splits:
    """The four splits of a task, still raw."""

    train: RawSamples
    validation: RawSamples
    test: RawSamples
    proxy: RawSamples

    def named(self) -> Mapping[str, RawSamples]:
        """Split name to samples."""
        return {"train": self.train, "validation": self.validation, "test": self.test, "proxy": self.proxy}


def split(task: RawTask, config: DataConfig, rng: Rng) -> Splits:
    """Test, validation and proxy carved out of the training rows where the source brings none of its own.

    test_fraction is of all rows; validation_fraction and proxy_fraction are of what remains, after
    max_train_samples. Each cut is keyed and stratified by label (by group, where there are no labels): every stratum
    gives its share, rounded so that the total is exact. Raises ConfigError where a split would be empty.
    """
    pool, test, validation = task.train, task.test, task.validation
    if test is None:
        pool, test = _carve(pool, config.test_fraction, "test", rng)
    pool = _limit(pool, config.max_train_samples, "train", rng)
    test = _limit(test, config.max_test_samples, "test", rng)
    whole = pool
    if validation is None:
        pool, validation = _carve(pool, config.validation_fraction, "validation", rng)
    else:
        validation = _limit(validation, config.max_test_samples, "validation", rng)
    proxy_share = config.proxy_fraction * len(whole) / max(len(pool), 1)
    pool, proxy = _carve(pool, min(proxy_share, 1.0), "proxy", rng)
    if not len(pool) or not len(test):
        raise ConfigError(
            "data.path" if config.path else "data.task",
            f"too few samples: {len(task.train)} rows leave {len(pool)} for training and {len(test)} for testing",
        )
    return Splits(pool, validation, test, proxy)


def stratified(strata_N: Array, count: int, generator: np.random.Generator) -> Array:
    """Positions of `count` rows, each stratum in proportion (largest remainder, ties drawn), ascending."""
    names, inverse_N, sizes_S = np.unique(strata_N, return_inverse=True, return_counts=True)
    ideal_S = sizes_S * (count / len(strata_N))
    take_S = np.floor(ideal_S).astype(np.int64)
    order_S = np.lexsort((generator.random(len(names)), take_S - ideal_S))
    take_S[order_S[: count - int(take_S.sum())]] += 1
    chosen = [
        generator.permutation(np.flatnonzero(inverse_N == s))[:take] for s, take in enumerate(take_S.tolist()) if take
    ]
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.int64)


def _strata(samples: RawSamples) -> Array:
    keys = samples.labels if samples.labels is not None else samples.groups
    if keys is None:
        return np.zeros(len(samples), dtype=np.int64)
    return np.array([str(key) for key in keys])


def _carve(pool: RawSamples, fraction: float, name: str, rng: Rng) -> tuple[RawSamples, RawSamples]:
    count = min(len(pool), round(fraction * len(pool)))
    if fraction > 0 and count == 0 and len(pool) > 1:
        count = 1
    if count == 0:
        return pool, pool.take(np.zeros(0, dtype=np.int64))
    chosen = stratified(_strata(pool), count, rng(f"split_{name}"))
    rest = np.setdiff1d(np.arange(len(pool)), chosen)
    return pool.take(rest), pool.take(chosen)


def _limit(samples: RawSamples, limit: int | None, name: str, rng: Rng) -> RawSamples:
    if limit is None or len(samples) <= limit:
        return samples
    return samples.take(stratified(_strata(samples), limit, rng(f"limit_{name}")))
