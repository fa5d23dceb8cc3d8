"""What is run, and with which settings: presets, files, mappings and configurations, made into `key=value` words.

Words are what the command line takes, so that a setting means the same, and is refused in the same words, from Python.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from raysoft.errors import ConfigError

if TYPE_CHECKING:
    from raysoft.config import RunConfig

Setting: TypeAlias = str | Mapping[str, Any] | Sequence[str]  # a `key=value` word, keys and their values, several words
Target: TypeAlias = Union[str, "os.PathLike[str]", Mapping[str, Any], "RunConfig"]
Place: TypeAlias = Union[str, "os.PathLike[str]"]  # a folder of this machine; of a run also a URI such as s3://...


def load(target: Target = "soft", *settings: Setting, **keys: Any) -> RunConfig:
    """A complete, checked configuration: every default written out, nothing run.

    `target`: a preset (`raysoft.catalogue("preset")`), a YAML file, a mapping like the content of such a file (with or
    without `base`), or a configuration. Settings on top, in their order: `key=value` words, mappings of keys (dotted or
    nested) to values, then keywords.

    >>> load("soft", "train.lr=1e-2", {"cohort": {"size": 5}}, rounds=3).cohort.size
    5

    Raises ConfigError naming the key, its value and what is valid.
    """
    return configuration(target, words(settings, keys))


def configuration(target: Target, given: Sequence[str]) -> RunConfig:
    """The configuration of a target with `key=value` words on top. Raises ConfigError."""
    from raysoft.config import RunConfig
    from raysoft.config.presets import load_config, load_tree, with_overrides
    from raysoft.config.registry import resolve

    if isinstance(target, RunConfig):
        return resolve(with_overrides(target.model_dump(mode="json"), given)) if given else target
    if isinstance(target, Mapping):
        own = dict(target)
        base = own.pop("base", None)
        tree = {} if base is None else load_tree(spelt(base))
        return resolve(with_overrides(tree, [*words([own], {}), *given]))
    return load_config(spelt(target), given)


def spelt(target: Any) -> str:
    """A preset or file as the command line takes it. Raises ConfigError.

    >>> spelt("soft"), spelt(Path("mine.yaml"))
    ('soft', './mine.yaml')
    """
    if isinstance(target, os.PathLike):  # a file, also where a preset is called the same
        path = Path(os.fspath(target)).expanduser()
        return str(path) if path.is_absolute() else os.path.join(".", path)
    if not isinstance(target, str):
        raise ConfigError("", f"{target!r:.80} is no preset, YAML file, mapping or configuration")
    return str(Path(target).expanduser()) if target.startswith("~") else target


def place_text(folder: Any, option: str) -> str:
    """A folder or URI as text. Raises ConfigError(option) where it is none.

    >>> place_text(Path("outputs/soft"), "DIR")
    'outputs/soft'
    """
    text = os.fspath(folder) if isinstance(folder, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise ConfigError(option, f"must be a folder, as text or a path, got {folder!r:.80}")
    return text


def name_of_target(target: Target) -> str:
    """The name of a run, plan or comparison that is given none."""
    from raysoft.rundir.folder import name_of

    return name_of(os.fspath(target)) if isinstance(target, (str, os.PathLike)) else "run"


def words(settings: Sequence[Setting], keys: Mapping[str, Any]) -> list[str]:
    """Settings in every form as `key=value` words, in their order, keywords last. Raises ConfigError.

    >>> words(["rounds=3", {"codec": {"bits": 4, "name": "quantize"}}], {"data.clients": 12})
    ['rounds=3', 'codec.name="quantize"', 'codec.bits=4', 'data.clients=12']
    """
    out: list[str] = []
    for item in (*settings, keys):
        if isinstance(item, str):
            out.append(item)
        elif isinstance(item, Mapping):
            out += [word for key, value in item.items() for word in _words(key, value)]
        elif isinstance(item, Sequence) and all(isinstance(word, str) for word in item):
            out += item
        else:
            raise ConfigError("settings", f"are key=value words or mappings of keys to values, got {item!r:.80}")
    return out


def _words(key: Any, value: Any) -> Iterator[str]:
    """Those of one key: a section is taken apart, so that it is laid over what is there, as in a file."""
    if not isinstance(key, str) or not all(key.split(".")):
        raise ConfigError("settings", f"keys are text such as 'train.lr', got {key!r:.80}")
    try:
        value = plain(key, value)
    except RecursionError:
        raise ConfigError(key, "is nested too deeply, or contains itself") from None
    if isinstance(value, dict) and value and _is_section(key.split(".")):
        for name in sorted(value, key=lambda one: one != "name"):  # a plug-in first, then its options
            yield from _words(f"{key}.{name}", value[name])
    else:
        yield f"{key}={_flow(value)}"


def _is_section(path: Sequence[str]) -> bool:
    """Whether a key leads to a section of the configuration (a range or tiers of ranks are values)."""
    from raysoft.config import Plugin, RunConfig, Section

    place: Any = RunConfig
    for word in path:
        field = place.model_fields.get(word) if issubclass(place, Section) else None
        place = None if field is None else field.annotation
        if not isinstance(place, type):
            return False
    return issubclass(place, (Section, Plugin))


def plain(key: str, value: Any) -> Any:
    """A value as plain data: paths are text, arrays lists, sections mappings. Raises ConfigError naming the key."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if callable(getattr(value, "model_dump", None)):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {name: plain(key, item) for name, item in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [plain(key, item) for item in value]
    if callable(getattr(value, "tolist", None)):  # numpy's arrays and numbers
        return value.tolist()
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise ConfigError(key, f"{value!r:.80} is not a value that a configuration can have")


def _flow(value: Any) -> str:
    """Plain data as YAML on one line: JSON, but for keys that are no text."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(name)}: {_flow(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    return json.dumps(value, ensure_ascii=False)
