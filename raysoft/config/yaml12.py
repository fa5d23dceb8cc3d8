"""YAML by the rules of YAML 1.2 for numbers and booleans, with unique keys and no aliases: `1e-3` is a number, `off` is
a string. Errors are one sentence with their place.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from raysoft.errors import ConfigError

MAX_YAML_BYTES = 1_000_000
_TEXT = "tag:yaml.org,2002:str"


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2 numbers and booleans, unique keys and no aliases."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(None, None, "aliases are not supported", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(None, None, "a key must be a plain word", key_node.start_mark)
            if key_node.value in seen:
                raise yaml.MarkedYAMLError(None, None, f"key {key_node.value!r} appears twice", key_node.start_mark)
            if key_node.tag != _TEXT:
                raise yaml.MarkedYAMLError(
                    None, None, f"key {key_node.value} must be text, not a number, boolean or null", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?[0-9]+$|^0o[0-7]+$|^0x[0-9a-fA-F]+$", "-+0123456789"),
    (
        "float",
        r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$",
        "-+0123456789.",
    ),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    """As YAML 1.2 reads it: 010 is ten, 0o10 is eight, 0x1F is thirty-one."""
    text = str(loader.construct_scalar(node))
    return int(text[2:], {"0o": 8, "0x": 16}[text[:2]]) if text[:2] in ("0o", "0x") else int(text)


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


def parse_yaml(text: str, where: str) -> Any:
    """Parse one YAML document; a ConfigError names the place of a syntax error."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader subclass
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}, line {mark.line + 1}" if mark else where
        problem = getattr(error, "problem", None) or str(error).splitlines()[0][:160]
        raise ConfigError("", f"{place}: not valid YAML: {problem}") from None


def load_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping."""
    try:
        if path.exists() and not path.is_file():
            raise ConfigError("", f"{path}: is not a file" + (", it is a folder" if path.is_dir() else ""))
        if path.stat().st_size > MAX_YAML_BYTES:
            raise ConfigError("", f"{path}: larger than {MAX_YAML_BYTES} bytes, not a configuration")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError("", f"{path}: is not UTF-8 text") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError("", f"{printable(str(path), 200)}: cannot be read: {reason}") from None
    tree = parse_yaml(text, str(path))
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise ConfigError("", f"{path}: must hold a mapping of keys to values, e.g. `rounds: 40`")
    return tree


def printable(text: str, most: int = 60) -> str:
    """The text, or its escaped beginning where it would garble a message."""
    return text if text.isprintable() and len(text) <= most else repr(text[:most])
