"""What a shell completes behind `raysoft`: read off the command line's own description and off every key's.

The scripts themselves are in completion_scripts.py; they hold all words, so that a Tab starts no Python. What is
completed follows from the metavar of an argument or option: FILE.yaml, DIR, PRESET, KEY=VALUE, or words such as
inline|ray.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from raysoft.config import registry
from raysoft.config.explain import Key, chapters, keys_of, name_key
from raysoft.config.presets import preset_names
from raysoft.sweep.config import SweepConfig
from raysoft.sweep.shipped import shipped_names

FLAG, FREE, FOLDERS = "flag", "free", "folders"  # what stands behind an option: nothing, anything, a folder


@dataclass(frozen=True)
class Option:
    """An option of a command. `takes`: FLAG, FREE, FOLDERS, or the words among which it chooses."""

    name: str
    help: str
    takes: str | tuple[str, ...]


@dataclass(frozen=True)
class Command:
    """What stands behind the name of a command."""

    name: str
    help: str
    options: tuple[Option, ...]
    first: tuple[str, ...]  # words of the first argument
    yaml: bool  # the first argument may be a YAML file
    folders: bool  # arguments are folders
    repeated: bool  # the first argument may come again
    keys: bool  # KEY=VALUE may follow
    sweep: bool  # those of a sweep, too


@dataclass(frozen=True)
class Words:
    """All that is completed. `values`: of keys whose values can be listed, or some of them."""

    options: tuple[Option, ...]
    commands: tuple[Command, ...]
    keys: Mapping[str, str]  # key -> what it means
    sweep_keys: Mapping[str, str]
    values: Mapping[str, tuple[str, ...]]


def words(app: Any) -> Words:
    """Of the command line `app`, a click group."""
    run, sweep = _meanings(_keys()), _meanings(keys_of(SweepConfig))
    values: dict[str, tuple[str, ...]] = {}
    for one in (*_keys(), *keys_of(SweepConfig)):
        values[one.key] = tuple(dict.fromkeys((*values.get(one.key, ()), *one.choices)))
    listed = {key: found for key, found in values.items() if found and found != ("null",)}
    commands = tuple(_command(name, command) for name, command in app.commands.items())
    return Words(tuple(_options(app)), commands, run, sweep, listed)


def _keys() -> Iterator[Key]:
    """Of all sections and of every plug-in that is installed."""
    for chapter in chapters():
        yield from chapter.keys
    for kind in registry.KINDS:
        if kind == "extra":  # stands in a list, which no key reaches into
            continue
        yield name_key(kind, kind)
        for name in registry.names(kind):
            yield from keys_of(registry.plugin(kind, name).Config, kind)


def _meanings(keys: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in keys:
        found.setdefault(one.key, one.meaning)
    return found


def _options(command: Any) -> Iterator[Option]:
    for one in command.params:
        if one.param_type_name == "option":
            takes = FLAG if one.is_flag else _takes(one.metavar or "")
            yield from (Option(name, one.help or "", takes) for name in one.opts)
    yield Option("--help", "Show what the command does.", FLAG)


def _takes(metavar: str) -> str | tuple[str, ...]:
    """What the metavar of an option says.

    >>> _takes("inline|ray"), _takes("DIR|URI"), _takes("N")
    (('inline', 'ray'), 'folders', 'free')
    """
    if re.fullmatch(r"[a-z-]+(\|[a-z-]+)+", metavar):
        return tuple(metavar.split("|"))
    return FOLDERS if "DIR" in metavar else FREE


def _command(name: str, command: Any) -> Command:
    metavars = [one.metavar or "" for one in command.params if one.param_type_name == "argument"]
    first = metavars[0] if metavars else ""
    choice = _takes(first)
    presets = first.startswith(("PRESET", "ARM"))
    sweeps = first.startswith("SWEEP")
    return Command(
        name=name,
        help=(command.help or "").split("\n\n")[0].replace("\n", " ").strip(),
        options=tuple(_options(command)),
        first=choice if isinstance(choice, tuple) else tuple(preset_names() if presets else ()) + _sweeps(sweeps),
        yaml="FILE.yaml" in first or first.startswith("ARM"),
        folders=choice == FOLDERS,
        repeated="..." in first,
        keys=any("KEY=VALUE" in one or one.startswith("ARM") for one in metavars),
        sweep=sweeps,
    )


def _sweeps(asked: bool) -> tuple[str, ...]:
    return tuple(shipped_names()) if asked else ()
