"""Complete runs as YAML, by short name. A file may build on a preset or another file with `base: NAME|FILE`.

May use config.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from raysoft.config.overrides import REPLACED, apply_override, merge
from raysoft.config.sections import RunConfig
from raysoft.config.yaml12 import load_mapping
from raysoft.errors import ConfigError

MAX_DEPTH = 8
CONFIG = "config.yaml"  # of a run's folder


def preset_names() -> list[str]:
    """Short names of the presets that come with raysoft."""
    return sorted(item.name.removesuffix(".yaml") for item in files(__name__).iterdir() if item.name.endswith(".yaml"))


def describe_preset(name: str) -> str:
    """The first comment of a preset, as one line."""
    text = (files(__name__) / f"{name}.yaml").read_text(encoding="utf-8")
    lines = [line.lstrip("# ").rstrip() for line in text.splitlines() if line.startswith("#")]
    return lines[0] if lines else ""


def load_tree(target: str, folder: Path | None = None, depth: int = 0) -> dict[str, Any]:
    """The mapping of a preset name or a YAML file, with its bases merged in. Raises ConfigError.

    A name of a preset means the preset, also where a file is called the same (`./soft` is that file).
    """
    path = (folder or Path()) / target
    is_preset = target in preset_names()
    is_file = target.endswith((".yaml", ".yml")) or (not is_preset and _exists(path))
    if not is_file:
        if not is_preset:
            if _exists(path / CONFIG):
                raise ConfigError(
                    "",
                    f"{target[:80]!r} is the folder of a run; its settings are {target[:80]}/{CONFIG}, and from Python "
                    "raysoft.open reads what it has left",
                )
            close = difflib.get_close_matches(target, preset_names(), n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigError(
                "", f"{target[:80]!r} is neither a preset ({', '.join(preset_names())}) nor a YAML file{hint}"
            )
        path = Path(str(files(__name__) / f"{target}.yaml"))
    tree = load_mapping(path)
    if "base" not in tree:
        return tree
    base = tree.pop("base")
    if not isinstance(base, str):
        given = "null" if base is None else repr(base)
        raise ConfigError("base", f"{path}: must name a preset or a YAML file, got {given:.80}")
    if depth >= MAX_DEPTH:
        raise ConfigError("base", f"{path}: more than {MAX_DEPTH} levels; does a file build on itself?")
    return _carry_over(merge(load_tree(base, path.parent if is_file else None, depth + 1), tree))


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # too long for a file name, or in a folder that may not be read
        return False


def _carry_over(tree: dict[str, Any]) -> dict[str, Any]:
    """Where a plug-in was replaced by name, its old options stay if the new one knows them, and go otherwise.

    So `allocator.name=greedy` keeps the latency budget and drops TSFA's own options.
    """
    from raysoft.config.registry import KINDS, module_of

    out = dict(tree)
    for kind, section in tree.items():
        if isinstance(section, dict) and REPLACED in section:
            new = {key: value for key, value in section.items() if key != REPLACED}
            old = section[REPLACED]
            if kind in KINDS and isinstance(new["name"], str):
                known = module_of(kind, new["name"]).Config.model_fields
                old = {key: value for key, value in old.items() if key in known}
            out[kind] = merge(old, new)
    return out


def own_settings(name: str) -> list[str]:
    """What a preset itself changes over its base, as `key=value` overrides.

    So settings of one preset can be laid over another: `load_config("topk", own_settings("soft-text"))` is `topk` on
    the text task, with the latency budget of that task.
    """
    if name not in preset_names():
        raise ConfigError("", f"{name[:80]!r} is not a preset, choose from {', '.join(preset_names())}")
    tree = load_mapping(Path(str(files(__name__) / f"{name}.yaml")))
    return [f"{key}={json.dumps(value)}" for key, value in _leaves(tree) if key != "base"]


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def with_overrides(tree: dict[str, Any], overrides: Sequence[str | Mapping[str, Any]]) -> dict[str, Any]:
    """A copy of a mapping with overrides applied in their order, each `key=value`, or dotted keys and their values.

    Mappings among the values are laid over the sections they name, as in a file. Raises ConfigError.
    """
    for item in overrides:
        if isinstance(item, str):
            tree = _carry_over(apply_override(tree, item))
            continue
        for key, value in item.items():
            nested = value
            for word in reversed(key.split(".")):
                nested = {word: nested}
            tree = _carry_over(merge(tree, nested))
    return tree


def load_config(target: str, overrides: Sequence[str] = (), executor: str | None = None) -> RunConfig:
    """A complete, checked configuration from a preset or file and `key=value` overrides. Raises ConfigError."""
    from raysoft.config.registry import resolve

    tree = with_overrides(load_tree(target), overrides)
    if executor is not None:
        tree = apply_override(tree, f"executor={executor}")
    return resolve(tree)
