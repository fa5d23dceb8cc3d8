"""Checkpoints of a run: everything that is not a function of the configuration and its keys, and nothing pickled.

    checkpoints/round-000012/manifest.json        format, configuration, the state, sizes and hashes of the rest
                             state.safetensors    the state's arrays: global model, allocator, client states

The state is whatever fields `RunState` and the dataclasses in it have: a new field cannot be forgotten. A checkpoint is
written into a hidden folder, synced, and renamed, so a folder called round-N is complete; hashes find what is damaged
later. Rounds before it stand in rounds.jsonl, whose length and hash up to that round it records.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as dump_tensors

from raysoft.errors import RaysoftError
from raysoft.federation.parts import RunState
from raysoft.federation.seam import is_sound
from raysoft.rundir.folder import Position
from raysoft.types import Array

FORMAT = 2
READS_FORMAT_1 = "raysoft 0.1"
CHECKPOINTS, MANIFEST, STATE = "checkpoints", "manifest.json", "state.safetensors"
_NAME = re.compile(r"^round-(\d{6,})$")


class CheckpointDamagedError(RaysoftError):
    """A checkpoint that cannot be trusted; the message names the file and what is wrong with it."""


@dataclass(frozen=True)
class Checkpoint:
    """A run after a round. `config`: the result-determining keys; `records`: rounds.jsonl up to this round.

    `drops`: clients that a fault had dropped by then, as {round: {reason: how many}}: they are inputs of a replay.
    `identity`: digests of the user's files and versions of what is embedded; None in checkpoints of raysoft 0.1.
    `records_intact`: False where rounds.jsonl turned out to be another one when the checkpoint was looked for.
    """

    round: int
    state: RunState
    config: Mapping[str, Any]
    config_hash: str
    base_checksum: str
    records: Position
    wall_time_s: float = 0.0  # of the run so far
    drops: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    identity: Mapping[str, str | None] | None = None
    records_intact: bool = True


# -------------------------------------------------------------------------------------------------------------- writing


def folder_name(tick: int) -> str:
    """Name of a checkpoint's folder.

    >>> folder_name(12)
    'round-000012'
    """
    return f"round-{tick:06d}"


def save(checkpoint: Checkpoint, folder: Path, rounds_file: Path | None = None) -> Path:
    """Write a checkpoint below `folder` (checkpoints/ of a run), durable before this returns; its own folder.

    `rounds_file` is made durable first: a checkpoint counts on its lines. Raises RaysoftError naming the path where it
    cannot be written; older checkpoints are left as they were.
    """
    final = folder / folder_name(checkpoint.round)
    part = folder / f".{final.name}.part"
    try:
        _remove(part)
        folder.mkdir(exist_ok=True)  # but never the run's own folder again, where somebody has removed it
        part.mkdir()
        tensors: dict[str, Array] = {}
        tree = taken_apart(checkpoint.state, "", tensors)
        data = dump_tensors({name: _plain(value) for name, value in tensors.items()})
        if rounds_file is not None:
            _sync(rounds_file)
        _write(part / STATE, data)
        _write(part / MANIFEST, _manifest(checkpoint, tree, {STATE: data}))
        _sync(part)
        _remove(final)  # of an earlier attempt at the same round
        part.rename(final)
        _sync(folder)
    except OSError as error:
        with suppress(OSError):
            _remove(part)
        raise RaysoftError(f"{final}: the checkpoint cannot be written: {error.strerror or error}") from None
    return final


def prune(folder: Path, keep: int, keep_every: int | None) -> None:
    """Remove all checkpoints but the last `keep` and every `keep_every`-th round; leftovers of a crash as well."""
    found = list_checkpoints(folder)
    for tick, path in found[: max(0, len(found) - keep)]:
        if keep_every is None or tick % keep_every:
            _remove(path)
    for path in folder.glob(".round-*.part"):
        _remove(path)


def _manifest(checkpoint: Checkpoint, state: Any, files: Mapping[str, bytes]) -> bytes:
    content = {
        "format": FORMAT,
        "round": checkpoint.round,
        "config_hash": checkpoint.config_hash,
        "config": checkpoint.config,
        "base_checksum": checkpoint.base_checksum,
        "state": state,  # the order of its keys matters: sums run in it
        "files": {name: {"bytes": len(data), "sha256": _sha256(data)} for name, data in files.items()},
        "records": {"length": checkpoint.records.length, "sha256": checkpoint.records.sha256},
        "wall_time_s": checkpoint.wall_time_s,
        "drops": checkpoint.drops,
        "identity": checkpoint.identity,
    }
    return json.dumps({**content, "checksum": checksum_of(content)}, indent=1, allow_nan=False).encode()


def taken_apart(value: Any, path: str, tensors: dict[str, Array]) -> Any:
    """Plain JSON with a name in the place of each array, which goes into `tensors` under that name."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        name = f"{len(tensors)}{path}"  # numbered: a key may hold a slash
        tensors[name] = value
        return name
    if is_dataclass(value):
        return {one.name: taken_apart(getattr(value, one.name), f"{path}/{one.name}", tensors) for one in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): taken_apart(one, f"{path}/{key}", tensors) for key, one in value.items()}
    if isinstance(value, tuple):
        return [taken_apart(one, f"{path}/{at}", tensors) for at, one in enumerate(value)]
    return value


def put_together(hint: Any, tree: Any, tensors: Mapping[str, Array]) -> Any:
    """The inverse, by type hints. Raises KeyError, TypeError or ValueError where the tree is not of this type."""
    hint = next((one for one in get_args(hint) if one is not NoneType), hint) if NoneType in get_args(hint) else hint
    if tree is None:
        return None
    if hint is np.ndarray:
        return tensors[tree] if isinstance(tree, str) else np.asarray(tree)
    if isinstance(hint, type) and is_dataclass(hint):
        hints = get_type_hints(hint)
        if set(tree) != {one.name for one in fields(hint)}:
            raise ValueError(f"other fields than {hint.__name__} has: {', '.join(sorted(tree))}")
        return hint(**{name: put_together(hints[name], one, tensors) for name, one in tree.items()})
    if get_origin(hint) is tuple:
        return tuple(put_together(get_args(hint)[0], one, tensors) for one in tree)
    if get_origin(hint) is Mapping:
        key, one = get_args(hint)
        return {key(name): put_together(one, value, tensors) for name, value in tree.items()}
    return tree


def _plain(value: Array) -> Array:
    """A contiguous copy in its own shape (ascontiguousarray would turn a scalar into a vector)."""
    return np.array(value, order="C")


# -------------------------------------------------------------------------------------------------------------- reading


def list_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Complete checkpoints below `folder` by round; whether they are sound is not looked at. Raises RaysoftError."""
    if not folder.is_dir():
        if folder.exists() or folder.is_symlink():
            raise RaysoftError(f"{folder}: is not a folder, so no checkpoint can be read or written there; remove it")
        return []
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.match(path.name))]
    return sorted(found)


def newest(folder: Path, rounds_file: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is sound and agrees with rounds.jsonl, and what was wrong with newer ones.

    Where none agrees with rounds.jsonl, the newest sound one with `records_intact` False. None where there is no
    checkpoint at all. Raises RaysoftError where there are some and each is damaged.
    """
    notes: list[str] = []  # each begins with the file that it is about
    sound: list[Checkpoint] = []
    found = list_checkpoints(folder)
    for _, path in reversed(found):
        try:
            checkpoint = load(path)
            _check_finite(checkpoint, path)
            sound.append(checkpoint)
            _check_records(checkpoint, rounds_file)
        except CheckpointDamagedError as error:
            notes.append(str(error))
        else:
            return checkpoint, notes
    if sound:
        return replace(sound[0], records_intact=False), notes
    if found:
        raise RaysoftError(
            f"{folder}: no checkpoint can be used ({'; '.join(notes)}); remove that folder to begin at round 0 again"
        )
    return None, []


def load(path: Path) -> Checkpoint:
    """Read one checkpoint. Raises CheckpointDamagedError for anything that is not exactly what was written."""
    manifest = _read_manifest(path / MANIFEST)
    data = _read(path / STATE)
    expected = manifest["files"][STATE]
    if len(data) != expected["bytes"] or _sha256(data) != expected["sha256"]:
        raise CheckpointDamagedError(f"{path / STATE}: is damaged (its hash is not the one in {MANIFEST})")
    if path.name != folder_name(manifest["round"]):
        raise CheckpointDamagedError(f"{path}: holds round {manifest['round']}, not the one in its name")
    try:
        state = put_together(RunState, manifest["state"], load_tensors(data))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointDamagedError(f"{path / STATE}: cannot be read: {error}") from None
    return Checkpoint(
        round=manifest["round"],
        state=state,
        config=manifest["config"],
        config_hash=manifest["config_hash"],
        base_checksum=manifest["base_checksum"],
        records=Position(**manifest["records"]),
        wall_time_s=manifest["wall_time_s"],
        drops=manifest["drops"],
        identity=manifest.get("identity"),
    )


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(_read(path))
        checksum = manifest.pop("checksum")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise CheckpointDamagedError(f"{path}: is damaged (not the JSON that was written)") from None
    if checksum != checksum_of(manifest):
        raise CheckpointDamagedError(f"{path}: is damaged (its checksum does not agree)")
    if manifest["format"] != FORMAT:
        reader = READS_FORMAT_1 if manifest["format"] == 1 else "the version that wrote it"
        raise RaysoftError(
            f"{path}: has format {manifest['format']}, this version of raysoft reads format {FORMAT}; resume with "
            f"{reader}"
        )
    return manifest


def _check_finite(checkpoint: Checkpoint, path: Path) -> None:
    """0.1 kept what a diverged round had left; the checkpoint before it is good."""
    server = checkpoint.state.server
    strange = [name for name, value in (*server.theta.items(), *server.base.items()) if not is_sound(value)]
    if strange:
        raise CheckpointDamagedError(f"{path}: its global model is not finite, or diverged (e.g. {strange[0]})")


def _check_records(checkpoint: Checkpoint, rounds_file: Path) -> None:
    """The rounds up to the checkpoint must stand in rounds.jsonl exactly as they did."""
    wanted = checkpoint.records
    try:
        with rounds_file.open("rb") as file:
            data = file.read(wanted.length)
    except OSError as error:
        raise CheckpointDamagedError(f"{rounds_file}: cannot be read: {error.strerror}") from None
    if Position.of(data) != wanted:
        raise CheckpointDamagedError(
            f"{rounds_file}: its lines up to round {checkpoint.round} are not those that were written"
        )


# -------------------------------------------------------------------------------------------------------------- helpers


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointDamagedError(f"{path}: cannot be read: {error.strerror}") from None


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    """Make a file's content, or the renames in a folder, durable; folders where the system knows how to."""
    if path.is_file() or hasattr(os, "O_DIRECTORY"):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def checksum_of(content: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest without its `checksum`."""
    return _sha256(json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())
