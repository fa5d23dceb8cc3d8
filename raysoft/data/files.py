"""Local data: CSV, TSV, JSON Lines and Parquet files, folders of them, and image folders (one subfolder a label).

A folder may hold one file per split (train.csv, validation.csv, test.csv) or, for images, one subfolder per split.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
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
        if suffix == ".tsv" and any(name.startswith('"') and name.endswith('"') for name in table.column_names):
            raise ConfigError("data.path", f"{path}: quotes its columns, but a TSV file has no quoting; save it as CSV")
        return {name: table.column(name).to_pylist() for name in table.column_names}
    except (pa.ArrowException, OSError, UnicodeDecodeError, ValueError, KeyError) as error:  # KeyError: a column twice
        reason = " ".join(str(error).split())[:160]
        raise ConfigError("data.path", f"{path}: cannot be read as {suffix[1:]}: {reason}") from None


def _read_csv(path: Path, config: DataConfig) -> Any:
    import pyarrow as pa
    from pyarrow import csv

    # Read as what is written there: 007 and 7 are two clients, true and 1 two labels, NaN is a word.
    wanted = (config.text_column, config.image_column, config.label_column, config.natural_key)
    texts = {name: pa.string() for name in wanted if name is not None}
    tabs = path.suffix.lower() == ".tsv"  # which has no quoting (IANA text/tab-separated-values)
    options = csv.ParseOptions(
        delimiter="\t" if tabs else ",", quote_char=False if tabs else '"', newlines_in_values=not tabs
    )
    return csv.read_csv(path, parse_options=options, convert_options=csv.ConvertOptions(column_types=texts))


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
                row = json.loads(line, object_pairs_hook=_object)
            except ConfigError as error:
                raise ConfigError(error.field, f"{path}, line {number}: {error.message}") from None
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise ConfigError("data.path", f"{path}, line {number}: is not a JSON object")
            rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: [row.get(name) for row in rows] for name in names}


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises ConfigError for a key that stands in it twice, of which Python would keep the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError("data.path", f"key {twice!r:.80} appears twice")
    return found


def _folder_of_tables(path: Path, tables: list[Path], config: DataConfig) -> dict[str, RawSamples]:
    """train.csv, test-00000.parquet ... by the word before the first mark; a single other file is the training data."""
    by_split: dict[str, list[Path]] = {}
    for table in tables:
        word = table.stem.replace("-", "_").replace(".", "_").split("_")[0].lower()
        by_split.setdefault(word if word in SPLIT_NAMES else "", []).append(table)
    loose = by_split.pop("", [])
    if loose and by_split:
        raise ConfigError(
            "data.path",
            f"{path}: {loose[0].name} belongs to no split, beside {tables_of(by_split)}; name it train-1"
            f"{loose[0].suffix}, validation... or test..., or take it out of the folder",
        )
    if loose:
        by_split["train"] = loose
    for name, group in by_split.items():
        kinds = {table.suffix.lower(): table.name for table in group}
        if len(kinds) > 1:
            raise ConfigError(
                "data.path",
                f"{path}: {' and '.join(list(kinds.values())[:2])} both hold the {name} split and may be the same rows "
                "twice; keep one kind of file",
            )
    return {
        name: _join([pick(read_table(table, config), config, table.name, path) for table in group])
        for name, group in by_split.items()
    }


def tables_of(by_split: Mapping[str, list[Path]]) -> str:
    """The files of the splits, for a message."""
    names = sorted(table.name for group in by_split.values() for table in group)
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


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


FOLDER_KEY = "folder"  # data.natural_key of image folders: the folder that holds a client's labels


def _image_folder(path: Path, config: DataConfig) -> dict[str, RawSamples]:
    """[split/][client/]label/image, told apart by depth: a class may be called `train`, a client anything."""
    images = sorted(image for image in path.rglob("*") if _is_data(image, IMAGES) and not _hidden(image, path))
    folders = {image: image.relative_to(path).parts[:-1] for image in images}
    if not images or not any(folders.values()):
        raise ConfigError(
            "data.path",
            f"{path}: holds no images in subfolders; expected one subfolder per label (or per split, and "
            f"in it one per label) with {', '.join(sorted(IMAGES))} files",
        )
    depths = {len(parts): image for image, parts in folders.items()}
    if len(depths) > 1:
        one, two = (depths[depth].relative_to(path) for depth in sorted(depths)[:2])
        raise ConfigError(
            "data.path", f"{path}: {one} and {two} lie at different depths; is the label the last folder?"
        )
    by_client = config.natural_key is not None
    if config.natural_key not in (None, FOLDER_KEY):
        raise ConfigError(
            "data.natural_key",
            f"there is no column {config.natural_key!r}; an image folder has none but image and label: use "
            f"{FOLDER_KEY!r} for one folder per client (client/label/image), or a table that names the images",
        )
    depth = next(iter(depths))
    tops = {parts[0].lower() for parts in folders.values()}
    has_splits = depth == 2 + by_client and tops <= set(SPLIT_NAMES)
    if depth != 1 + by_client + has_splits:
        shown = images[0].relative_to(path)
        layout = "client/label/image" if by_client else "label/image"
        advice = "" if by_client else "; for one folder per client set data.natural_key=folder data.partition=natural"
        raise ConfigError("data.path", f"{path}: {shown} is not {layout} (or that below train, test ...){advice}")
    found: dict[str, list[Path]] = {}
    for image, parts in folders.items():
        found.setdefault(parts[0].lower() if has_splits else "train", []).append(image)
    return {
        split: RawSamples(
            content=group,
            labels=[folders[image][-1] for image in group],
            groups=[folders[image][-2] for image in group] if by_client else None,
            origin=str(path),
        )
        for split, group in found.items()
    }


def _hidden(image: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in image.relative_to(root).parts)
