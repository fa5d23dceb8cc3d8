"""A store: one folder of run folders that comparisons and studies share, found again by what determines a result.

A run that is done is found by its configuration and by what it was made of (see config/identity.py), whatever its
folder is called. While one process computes a run it holds a lock in `.claims/`; the
system releases it when that process ends, however it ends, so no claim can go stale.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from raysoft.config import RunConfig
from raysoft.config.identity import EMBEDDED, Identity, differences, key_with, recorded
from raysoft.config.registry import resolve
from raysoft.config.yaml12 import load_mapping
from raysoft.errors import RaysoftError
from raysoft.federation.content import content_of, identity_of
from raysoft.federation.workload import embedded_pack_size
from raysoft.rundir.folder import CONFIG, SUMMARY
from raysoft.rundir.places import made
from raysoft.rundir.plugin_files import kept
from raysoft.rundir.reading import damage
from raysoft.rundir.summary import DONE

CLAIMS = ".claims"
log = logging.getLogger("raysoft")


def settled(config: RunConfig) -> RunConfig:
    """The configuration as a batch runs it: inline, no TensorBoard or gauges, no checkpoints, the pack size of an
    embedded model known. An interrupted run of minutes begins again: cheaper than thousands of synced files."""
    actors = config.actors
    if actors.pack_size == "auto" and config.model.name.startswith(EMBEDDED):
        actors = actors.model_copy(update={"pack_size": embedded_pack_size(config.cohort.size)})
    tracking = config.tracking.model_copy(update={"tensorboard": False, "prometheus": False})
    checkpoint = config.checkpoint.model_copy(update={"every": None})
    return config.model_copy(
        update={"executor": "inline", "actors": actors, "tracking": tracking, "checkpoint": checkpoint}
    )


def key_of(config: RunConfig) -> str:
    """What two runs with the same result share: the hash of the result-determining keys, as they were asked for, and
    of the content of the user's files as they are now."""
    return key_with(settled(config).config_hash(), content_of(config), config.model_dump(mode="json"))


def slug(label: str) -> str:
    """A label as part of a folder name."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", label).strip("-._")[:40].rstrip("-._") or "arm"


def run_name(label: str, config: RunConfig) -> str:
    """Name of a run folder in a store: label, seed, first characters of the key."""
    return f"{slug(label)}-s{config.seed}-{key_of(config)[:8]}"


def open_store(path: Path) -> Path:
    """The store's folder, made where it does not exist. Raises ConfigError("--store")."""
    return made(path, "--store", CLAIMS)


@contextmanager
def claim(store: Path, key: str) -> Iterator[bool]:
    """Hold the only claim on a key while the block runs; yields False where another process holds it."""
    lock = FileLock(str(store / CLAIMS / f"{key}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def find(store: Path, configs: Mapping[str, RunConfig]) -> dict[str, Path]:
    """Finished runs of the store, by key; `configs` maps keys to what was asked for. Reads each folder once.

    A folder answers a key where its summary carries that hash, or where its resolved configuration, completed with
    today's defaults, says the same; and where it was made of the same files and versions. One that is damaged answers
    none, with a warning where no other does.
    """
    found: dict[str, Path] = {}
    damaged: dict[str, str] = {}

    def take(key: str, folder: Path, summary: Mapping[str, Any]) -> None:
        problem = damage(folder, summary)
        if problem is None:
            found[key] = folder
        else:
            damaged[key] = problem

    finished: list[tuple[Path, Mapping[str, Any]]] = []
    made_of = {key: identity_of(config) for key, config in configs.items()}
    hashes = {key: settled(config).config_hash() for key, config in configs.items()}
    by_hash: dict[str, list[str]] = {}
    for key, config_hash in hashes.items():
        by_hash.setdefault(config_hash, []).append(key)
    for folder in sorted(item for item in store.iterdir() if item.is_dir()) if store.is_dir() else ():
        summary = _done(folder)
        if summary is None:
            continue
        for key in by_hash.get(str(summary.get("config_hash")), ()):
            if key not in found and _made_of(summary, configs[key], made_of[key]):
                take(key, folder, summary)
        finished.append((folder, summary))
    wanted = {key: config for key, config in configs.items() if key not in found}
    heads = {(config.seed, config.rounds) for config in wanted.values()}
    for folder, done in finished:
        if len(found) == len(configs):
            break
        if not _worth_reading(folder, heads):
            continue
        stored = _stored(folder)
        for key, config in wanted.items():
            if stored is None or key in found or not _agree(config, key, stored, folder):
                continue
            if _made_of(done, stored, made_of[key]):
                take(key, folder, done)
    for problem in sorted({problem for key, problem in damaged.items() if key not in found}):
        log.warning(f"{problem}; that run of the store cannot be used and is done again.")
    return found


def find_claimed(store: Path, key: str, config: RunConfig) -> Path | None:
    """The finished run of one key under any batch's label; for whoever holds the claim and wants to know at once."""
    for folder in sorted(store.glob(f"*-s{config.seed}-{key[:8]}")):
        summary, stored = _done(folder), _stored(folder)
        if summary is None or stored is None or not _agree(config, key, stored, folder):
            continue
        if _made_of(summary, stored, identity_of(config)) and damage(folder, summary) is None:
            return folder
    return None


def _done(folder: Path) -> dict[str, Any] | None:
    """The summary of a finished run; None for anything else, however damaged."""
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return summary if isinstance(summary, dict) and summary.get("status") == DONE else None


def _made_of(summary: Mapping[str, Any], config: RunConfig, wanted: Identity) -> bool:
    """Whether a finished run of this configuration was made of what is there now, as far as it is known."""
    return not differences(recorded(summary, config.model_dump(mode="json")), wanted)


def _worth_reading(folder: Path, heads: set[tuple[int, int]]) -> bool:
    """Whether the first lines of a run's configuration could agree: parsing thousands of files would take a minute."""
    try:
        with (folder / CONFIG).open(encoding="utf-8") as file:
            lines = (file.readline(), file.readline())
    except (OSError, ValueError):
        return False
    match = re.fullmatch(r"seed: (\d+)\nrounds: (\d+)\n", "".join(lines))
    return bool(heads) and (match is None or (int(match[1]), int(match[2])) in heads)


def _stored(folder: Path) -> RunConfig | None:
    try:
        with kept(folder):
            return settled(resolve(load_mapping(folder / CONFIG)))
    except (OSError, RaysoftError):
        return None  # written by another version, or by hand


def _agree(asked: RunConfig, key: str, stored: RunConfig, folder: Path) -> bool:
    """Whether a stored run is what was asked for.

    A run replaces `pack_size: auto` and `rank: plan` by numbers. That they were asked for is known only of folders
    whose name carries the key.
    """
    asked = settled(asked)
    if folder.name.endswith(f"-{key[:8]}"):
        if asked.actors.pack_size == "auto":
            asked = asked.model_copy(
                update={"actors": asked.actors.model_copy(update={"pack_size": stored.actors.pack_size})}
            )
        if asked.model.lora.rank == "plan":
            follows = ("rank", "alpha", "use_rslora")  # from the plan
            chosen = {name: getattr(stored.model.lora, name) for name in follows}
            lora = asked.model.lora.model_copy(update=chosen)
            asked = asked.model_copy(update={"model": asked.model.model_copy(update={"lora": lora})})
    return asked.config_hash() == stored.config_hash()
