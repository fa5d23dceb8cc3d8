"""Which files in a run folder are a run's own: the only ones that `--overwrite` may take away.

Names alone decide nothing: a folder called `model` may be anybody's. A folder is a run's if its config.yaml and its
environment.json (or a first round) say so, and only files that a run writes may lie in it. Imports nothing heavy.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from raysoft.config.yaml12 import parse_yaml
from raysoft.errors import ConfigError

FIGURE_NAMES = (
    "accuracy",
    "bits_per_byte",
    "latency",
    "split",
    "timeline",
    "clients",
    "served",
    "cell",
    "snr",
    "labels",
    "client_accuracy",
    "confusion",
    "spectrum",
    "bound",
    "allocation",  # up to 0.1
    "plan",
)  # a test: all that are drawn
_TOP = r"(config\.yaml|environment\.json|rounds\.jsonl|summary\.json|evaluation\.json|report\.html|plan\.json)"
_OWN = re.compile(
    "|".join(
        (
            rf"\.lock|{_TOP}|\.{_TOP}\.part|((adapter|plugins)/)?\.raysoft-[^/]*(/[^/]+)?|rounds\.jsonl\.damaged\d*",
            r"checkpoints/\.?round-\d+(\.part)?/\.?(manifest\.json|state\.safetensors)(\.part)?",
            r"adapter/(adapter_config\.json|adapter_model\.safetensors|\.adapter_(config\.json|model\.safetensors)\.\w+)",
            r"model/(config\.json|generation_config\.json|model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json)",
            r"tensorboard/events\.out\.tfevents\.[^/]+",
            rf"figures/({'|'.join(FIGURE_NAMES)})\.(png|svg|pdf|csv)",
            r"plugins/[\w.-]+-[0-9a-f]{8}\.py",
            r"wandb/(run_id|latest-run|debug[^/]*\.log|settings|wandb-[^/]*|(offline-)?run-[^/]+(/.*)?)",
        )
    )
)
_ASIDE = ".replaced/"  # an old run, until the first round of the one that overwrites it is on disk


def is_own(name: str) -> bool:
    """Whether a run writes a file of this name, relative to its folder."""
    return _OWN.fullmatch(name.removeprefix(_ASIDE)) is not None


def files_of(folder: Path) -> Iterator[str]:
    """Every file (and link) below a folder, relative to it."""
    for root, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(root) / name).is_symlink()]
        for name in sorted([*files, *links]):
            yield (Path(root) / name).relative_to(folder).as_posix()


def check_overwrite(names: Iterable[str], read: Callable[[str], str], place: str, option: str) -> None:
    """Raise ConfigError(option) unless these files are a run's, and nothing but a run's.

    `read` gives the text of one of them.
    """
    names = list(names)
    strange = next((name for name in names if not is_own(name)), None)
    if strange is not None:
        raise ConfigError(
            option,
            f"{place} holds {strange!r}, which no run has written, so it is not overwritten; choose another folder",
        )
    written = [name for name in names if name != ".lock" and not (name == "rounds.jsonl" and not read(name))]
    if written and not any(_proves(prefix, set(names), read) for prefix in ("", _ASIDE)):
        raise ConfigError(
            option,
            f"{place} holds {written[0]!r}, but no config.yaml and environment.json of a run, so it is not "
            "overwritten; choose another folder",
        )


def _proves(prefix: str, names: set[str], read: Callable[[str], str]) -> bool:
    """Whether config.yaml is a whole configuration, and what was written next belongs to a run."""
    config = f"{prefix}config.yaml"
    try:
        tree = parse_yaml(read(config), config) if config in names else None
    except (OSError, ConfigError):
        return False
    if not isinstance(tree, dict) or not {"method", "codec", "allocator", "uplink"} <= tree.keys():
        return False
    return any(
        key in _first_object(prefix + name, names, read)
        for name, key in (("environment.json", "libraries"), ("rounds.jsonl", "round"))
    )


def _first_object(name: str, names: set[str], read: Callable[[str], str]) -> dict[str, object]:
    try:
        text = read(name) if name in names else ""
        found = json.loads(text.splitlines()[0] if name.endswith(".jsonl") and text else text)
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
