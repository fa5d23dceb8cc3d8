"""From a table's columns to raw samples: which column is what, and the order of the labels.

A table is a mapping of column names to sequences of one length, whatever file it came from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raysoft.config import DataConfig
from raysoft.data.raw import RawSamples, RawTask, Splits
from raysoft.errors import ConfigError
from raysoft.types import Array

Table = Mapping[str, Sequence[Any]]
_TRAIN = ("train", "training")
_VALIDATION = ("validation", "valid", "val", "dev", "eval")
_TEST = ("test", "testing")
SPLIT_NAMES = (*_TRAIN, *_VALIDATION, *_TEST)


def pick(table: Table, config: DataConfig, origin: str, root: Path | None = None) -> RawSamples:
    """Content, label and group columns of one table called `origin`. Relative image paths are under `root`.

    Raises ConfigError naming the missing column and the columns found.
    """
    classified = config.task != "causal-lm"
    if config.task == "image-classification":
        images = _column(table, "image_column", config.image_column)
        for n, image in enumerate(images):
            if image is None or image == "":
                raise ConfigError("data.image_column", f"row {n + 1} of {origin} names no image")
        content = [_under(root, image) for image in images]
    else:
        content = list(_column(table, "text_column", config.text_column))
    labels = list(_column(table, "label_column", config.label_column)) if classified else None
    groups = None
    if config.natural_key is not None:
        groups = list(_column(table, "natural_key", config.natural_key))
    samples = RawSamples(content, labels, groups, origin)
    for n, group in enumerate(groups or ()):
        if group is None or group == "":
            raise ConfigError("data.natural_key", f"{samples.place(n)} names no client")
    return samples


def _column(table: Table, key: str, name: str) -> Sequence[Any]:
    if name not in table:
        found = ", ".join(sorted(table)) or "none"
        raise ConfigError(f"data.{key}", f"there is no column {name!r}; columns found: {found}")
    return table[name]


def _under(root: Path | None, image: Any) -> Any:
    if isinstance(image, str) and root is not None:
        return root / image
    return image


def assemble(splits: Mapping[str, RawSamples], label_names: tuple[str, ...] = ()) -> RawTask:
    """Which split is which. A test or validation split without labels (as GLUE's) counts as absent."""
    train = _first(splits, _TRAIN)
    if train is None and len(splits) == 1 and not set(splits) & {*_VALIDATION, *_TEST}:
        train = next(iter(splits.values()))
    if train is None:
        raise ConfigError("data.path", f"there is no train split; splits found: {', '.join(sorted(splits)) or 'none'}")
    test, validation = (_labelled(_first(splits, names)) for names in (_TEST, _VALIDATION))
    return RawTask(train=train, test=test, validation=validation, label_names=label_names)


def _first(splits: Mapping[str, RawSamples], names: Sequence[str]) -> RawSamples | None:
    return next((splits[name] for name in names if name in splits), None)


def _labelled(samples: RawSamples | None) -> RawSamples | None:
    if samples is None or len(samples) == 0:
        return None
    if samples.labels is not None and all(label is None or label == -1 for label in samples.labels):
        return None
    return samples


def index_labels(splits: Splits, known: tuple[str, ...], field: str) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Class ids 0..C-1 of every split, and the C names: the source's own, or the sorted distinct labels.

    Names that are all whole numbers are sorted as numbers, whether a file holds them as numbers or as text.

    Raises ConfigError(field) for a missing label, one that is neither integer nor string, and a single class.
    """
    for samples in splits.named().values():
        for n, label in enumerate(samples.labels or ()):
            _check_label(label, field, samples.place(n))
    values = {label for samples in splits.named().values() for label in samples.labels or ()}
    if known and all(isinstance(value, int) for value in values):
        strange = sorted(value for value in values if not 0 <= value < len(known))
        if strange:
            raise ConfigError(field, f"label {strange[0]} is outside 0..{len(known) - 1}")
        ids: dict[Any, int] = {number: number for number in range(len(known))}
        names = known
    else:
        if len({type(value) for value in values}) > 1:
            shown = ", ".join(repr(value) for value in sorted(values, key=str)[:6])
            raise ConfigError(field, f"mixes integers and strings: {shown}")
        digits = all(str(value).isascii() and str(value).isdigit() for value in values)
        ordered = sorted(values, key=(lambda value: (int(value), str(value))) if digits else None)
        ids, names = {value: number for number, value in enumerate(ordered)}, tuple(str(value) for value in ordered)
    if len(names) < 2:
        raise ConfigError(field, f"holds a single label, {names[0]!r}; a classifier needs at least two")
    indexed = {
        where: np.array([ids[label] for label in samples.labels or ()], dtype=np.int64)
        for where, samples in splits.named().items()
    }
    return indexed, names


def _check_label(label: Any, field: str, where: str) -> None:
    if label is None or label == "":
        raise ConfigError(field, f"{where} has no label")
    if not isinstance(label, int | np.integer | str):
        raise ConfigError(field, f"labels must be integers or strings, {where} has {label!r:.60}")
