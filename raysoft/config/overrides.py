"""One mapping laid over another: `key=value` words, files over presets, plug-ins that change their name."""

from __future__ import annotations

import re
from typing import Any

from raysoft.config.yaml12 import parse_yaml
from raysoft.errors import ConfigError


def apply_override(tree: dict[str, Any], text: str) -> dict[str, Any]:
    """A copy of `tree` with one dotted `key=value` applied; the value is YAML."""
    key, equals, value = text.partition("=")
    where = f"override {text if len(text) <= 80 else text[:77] + '...'!r}"
    if not equals or not re.fullmatch(r"[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)*", key):
        raise ConfigError("", f"{where}: must have the form key=value, e.g. train.lr=1e-2")
    return _replace(tree, key.split("."), parse_yaml(value, where), key)


def _replace(tree: Any, path: list[str], value: Any, key: str) -> dict[str, Any]:
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise ConfigError(key, "cannot be set: its parent is not a section")
    head, rest = path[0], path[1:]
    if head == "name" and not rest:
        return merge_section(tree, {"name": value})
    return {**tree, head: _replace(tree.get(head), rest, value, key) if rest else value}


def merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Sections of `top` over those of `base`."""
    out = dict(base)
    for key, value in top.items():
        old = out.get(key)
        out[key] = merge_section(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
    return out


REPLACED = "\0replaced"  # no key of a YAML file can be this: the options of a plug-in that another one replaces


def merge_section(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """`new` over `old`. A plug-in that changes its name keeps the old options apart, for whoever knows its own."""
    if new.get("name", old.get("name")) == old.get("name") or "name" not in old:
        return merge(old, new)
    return {**new, REPLACED: {key: value for key, value in old.items() if key != "name"}}
