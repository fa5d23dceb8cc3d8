"""Local data: CSV, TSV, JSON Lines and Parquet files, folders of them, and image folders (one subfolder a label).

A folder may hold one file per split (train.csv, validation.csv, test.csv) or, for images, one subfolder per split.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from raysoft.config import DataConfig
from raysoft.data.columns import SPLIT_NAMES, Table, assemble, pick
from raysoft.data.raw import RawSamples, RawTask
from raysoft.errors import ConfigError

TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
IMAGES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})


def read(path: Path, config: DataConfig) -> RawTask:
    """The samples in a file or folder that exists. Raises ConfigError for what cannot be read."""
    if path.is_file():
        return assemble({"train": pick(read_table(path, config), config, path.name, path.parent)})
    tables = sorted(entry for entry in path.iterdir() if _is_data(entry, TABLES))
    if tables:
        return assemble(_folder_of_tables(path, tables, config))
    if config.task == "image-classification":
        return assemble(_image_folder(path, config))
    raise ConfigError("data.path", f"{path}: holds no data files ({', '.join(TABLES)}) and no saved dataset")


def _is_data(entry: Path, kinds: Collection[str]) -> bool:
    """By its ending; without hidden files, such as the `._name.png` that macOS adds to archives."""
    return entry.suffix.lower() in kinds and not entry.name.startswith(".") and not entry.is_dir()


def read_table(path: Path, config: DataConfig) -> Table:
    """All columns of one file. Text and string columns of a CSV stay strings, also where they look like numbers."""
    suffix = path.suffix.lower()
    if suffix not in TABLES:
        raise ConfigError("data.path", f"{path}: unknown kind of file; use one of {', '.join(TABLES)} or a folder")
    import pyarrow as pa

    try:
        if suffix in (".jsonl", ".ndjson"):
            return _read_json_lines(path)
        table = _read_parquet(path) if suffix == ".parquet" else _read_csv(path, config)
        return {name: table.column(name).to_pylist() for name in table.column_names}
    except (pa.ArrowException, OSError, UnicodeDecodeError, ValueError, KeyError) as error:  # KeyError: a column twice
        reason = " ".join(str(error).split())[:160]
        raise ConfigError("data.path", f"{path}: cannot be read as {suffix[1:]}: {reason}") from None


def _read_csv(path: Path, config: DataConfig) -> Any:
    import pyarrow as pa
    from pyarrow import csv

    texts = {name: pa.string() for name in (config.text_column, config.image_column)}
    return csv.read_csv(
        path,
        parse_options=csv.ParseOptions(delimiter="\t" if path.suffix == ".tsv" else ",", newlines_in_values=True),
        convert_options=csv.ConvertOptions(column_types=texts),
    )


def _read_parquet(path: Path) -> Any:
    from pyarrow import parquet

    return parquet.read_table(path)


def _read_json_lines(path: Path) -> Table:
    rows: list[dict[str, Any]] = []
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise ConfigError("data.path", f"{path}, line {number}: is not a JSON object")
            rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: [row.get(name) for row in rows] for name in names}


def _folder_of_tables(path: Path, tables: list[Path], config: DataConfig) -> dict[str, RawSamples]:
    """train.csv, test-00000.parquet ... by the word before the first mark; a single other file is the training data."""
    by_split: dict[str, list[Path]] = {}
    for table in tables:
        word = table.stem.replace("-", "_").replace(".", "_").split("_")[0].lower()
        by_split.setdefault(word if word in SPLIT_NAMES else "", []).append(table)
    loose = by_split.pop("", [])
    if loose and not by_split:
        by_split["train"] = loose
    return {
        name: _join([pick(read_table(table, config), config, table.name, path) for table in group])
        for name, group in by_split.items()
    }


def _join(parts: list[RawSamples]) -> RawSamples:
    def flat(lists: list[Any]) -> list[Any] | None:
        return None if lists[0] is None else [value for values in lists for value in values]

    if len(parts) == 1:
        return parts[0]
    return RawSamples(
        content=flat([part.content for part in parts]) or [],
        labels=flat([part.labels for part in parts]),
        groups=flat([part.groups for part in parts]),
        origin=" + ".join(part.origin for part in parts),
    )


def _image_folder(path: Path, config: DataConfig) -> dict[str, RawSamples]:
    folders = [entry for entry in sorted(path.iterdir()) if entry.is_dir() and not entry.name.startswith(".")]
    splits = {folder.name.lower(): folder for folder in folders if folder.name.lower() in SPLIT_NAMES}
    if not splits or set(splits) == {"test"}:
        splits = {"train": path}
    found = {name: _labelled_images(folder) for name, folder in splits.items()}
    if config.natural_key is not None:
        raise ConfigError(
            "data.natural_key",
            f"there is no column {config.natural_key!r}; an image folder has none "
            "but image and label (use a CSV, JSON Lines or Parquet file that names the images)",
        )
    if not any(len(samples) for samples in found.values()):
        raise ConfigError(
            "data.path",
            f"{path}: holds no images; expected one subfolder per label (or per split, and "
            f"in it one per label) with {', '.join(sorted(IMAGES))} files",
        )
    return found


def _labelled_images(folder: Path) -> RawSamples:
    content: list[Path] = []
    labels: list[str] = []
    for label in sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        images = sorted(image for image in label.rglob("*") if _is_data(image, IMAGES))
        content += images
        labels += [label.name] * len(images)
    return RawSamples(content, labels)
