"""Hugging Face datasets: by name from the hub (or the local cache, with HF_HUB_OFFLINE=1), or saved to a folder.

No dataset script is ever run (`trust_remote_code=False`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from raysoft.config import DataConfig
from raysoft.data.columns import assemble, pick
from raysoft.data.hub import hub_is_offline
from raysoft.data.raw import RawSamples, RawTask
from raysoft.errors import ConfigError


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote this folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def read_saved(folder: Path, config: DataConfig) -> RawTask:
    """A Dataset or DatasetDict written by `save_to_disk`. Raises ConfigError("data.path") where it is damaged."""
    import datasets

    try:
        loaded = datasets.load_from_disk(str(folder))
    except Exception as error:  # damaged Arrow files raise many kinds
        raise ConfigError("data.path", f"{folder}: cannot be read as a saved dataset: {_short(error)}") from None
    return _convert(loaded, config, folder)


def read_hub(name: str, config: DataConfig) -> RawTask:
    """A dataset of the hub. Raises ConfigError("data.path") with the reason where it cannot be had."""
    import datasets

    # Since 4.0 scripts are gone for good, and so is the switch.
    safe: dict[str, Any] = {"trust_remote_code": False} if int(datasets.__version__.split(".")[0]) < 4 else {}
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.CRITICAL)  # a line a retry, before the one sentence that says why
    try:
        loaded = datasets.load_dataset(name, config.subset, **safe)
    except Exception as error:  # the hub client, the file system and every reader have errors of their own
        raise _explain(name, config.subset, error) from None
    finally:
        hub.setLevel(level)
    return _convert(loaded, config, None)


def _explain(name: str, subset: str | None, error: Exception) -> ConfigError:
    text = _short(error)
    if "BuilderConfig" in text or "Config name is missing" in text:
        return ConfigError("data.subset", f"dataset {name!r} has no subset {subset!r}: {text}")
    if hub_is_offline():
        return ConfigError(
            "data.path",
            f"{name!r} is neither a file or folder nor in the local cache, and HF_HUB_OFFLINE forbids to download it",
        )
    return ConfigError(
        "data.path", f"{name!r} is neither a file or folder nor a readable dataset on the Hugging Face hub: {text}"
    )


def _short(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def _convert(loaded: Any, config: DataConfig, root: Path | None) -> RawTask:
    import datasets

    splits: Mapping[str, Any] = loaded if isinstance(loaded, Mapping) else {"train": loaded}
    orders: dict[str, tuple[str, ...]] = {}
    picked = {}
    for split, rows in splits.items():
        wanted = {config.text_column, config.image_column, config.label_column, config.natural_key}
        features = rows.features
        for column, feature in features.items():
            if column in wanted and isinstance(feature, datasets.Image):
                rows = rows.cast_column(column, datasets.Image(decode=False))  # noqa: PLW2901 - decoded once, at size
        label = features.get(config.label_column)
        if isinstance(label, datasets.ClassLabel):
            orders[split] = tuple(label.names)
        # Only the columns that are asked for are read; the others keep their name for the message.
        table = {column: rows[column][:] if column in wanted else () for column in rows.column_names}
        picked[split] = pick(table, config, f"the {split} split", root)
    return assemble(*_in_one_order(picked, orders))


def _in_one_order(
    picked: Mapping[str, RawSamples], orders: Mapping[str, tuple[str, ...]]
) -> tuple[Mapping[str, RawSamples], tuple[str, ...]]:
    """Each split's numbers by its own names, in the order of the training split's; and that order."""
    if not orders:
        return picked, ()
    first = next((split for split in picked if split.startswith("train")), next(iter(picked)))
    names = orders.get(first) or next(iter(orders.values()))
    out = {}
    for split, samples in picked.items():
        own = orders.get(split, names)
        strange = [name for name in own if name not in names]
        if strange:
            raise ConfigError(
                "data.label_column", f"the {split} split knows the class {strange[0]!r}, the {first} split does not"
            )
        to_first = [names.index(name) for name in own]
        labels = [
            to_first[label] if isinstance(label, int) and 0 <= label < len(own) else label
            for label in samples.labels or ()
        ]
        out[split] = samples if samples.labels is None else replace(samples, labels=labels)
    return out, names
