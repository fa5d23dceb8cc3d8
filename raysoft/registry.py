"""Short names to plug-ins, one dictionary a kind. Checks a section's options and refuses pairs that cannot work.

Entry points of other packages join the same dictionaries: groups `raysoft.methods`, `raysoft.codecs`,
`raysoft.allocators`, `raysoft.uplinks`, `raysoft.channels`; each entry is a module with `Config` and `build`.
"""

from __future__ import annotations

import difflib
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from raysoft.config import Plugin, RunConfig, Section, parse_section
from raysoft.errors import ConfigError

METHODS = {name: f"raysoft.methods.{name}" for name in ("soft", "fedit", "ffa")}
CODECS = {
    name: f"raysoft.codecs.{name}"
    for name in ("identity", "rank_components", "topk", "randomk", "svd", "quantize", "chain")
}
ALLOCATORS = {name: f"raysoft.allocation.{name}" for name in ("tsfa", "ideal", "equal", "minmax", "greedy", "random")}
UPLINKS = {name: f"raysoft.uplinks.{name}" for name in ("ideal", "fdma")}
CHANNELS = {
    name: f"raysoft.wireless.{module}"
    for name, module in (
        ("static", "static"),
        ("rayleigh", "rayleigh"),
        ("rician", "rician"),
        ("umi", "umi"),
        ("uma", "uma"),
    )
}
KINDS: dict[str, dict[str, str]] = {
    "method": METHODS,
    "codec": CODECS,
    "allocator": ALLOCATORS,
    "uplink": UPLINKS,
    "channel": CHANNELS,
}
_GROUPS = {
    "method": "raysoft.methods",
    "codec": "raysoft.codecs",
    "allocator": "raysoft.allocators",
    "uplink": "raysoft.uplinks",
    "channel": "raysoft.channels",
}


@cache
def names(kind: str) -> tuple[str, ...]:
    """All short names of a kind, built-in ones first."""
    extra = sorted(entry.name for entry in entry_points(group=_GROUPS[kind]) if entry.name not in KINDS[kind])
    return (*KINDS[kind], *extra)


@cache
def plugin(kind: str, name: str) -> ModuleType:
    """The module of a plug-in: it has `Config` (a Section) and `build`. Raises ConfigError for an unknown name."""
    if name in KINDS[kind]:
        return import_module(KINDS[kind][name])
    for entry in entry_points(group=_GROUPS[kind]):
        if entry.name == name:
            return entry.load()
    close = difflib.get_close_matches(name, names(kind), n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ConfigError(f"{kind}.name", f"unknown {kind} {name!r}, choose from {', '.join(names(kind))}{hint}")


def options(kind: str, section: Plugin, prefix: str | None = None) -> Any:
    """The plug-in's own validated Config."""
    return parse_section(plugin(kind, section.name).Config, section.options(), prefix or kind)


def build(kind: str, section: Plugin, *args: Any) -> Any:
    """The plug-in itself: `module.build(config, *args)`."""
    return plugin(kind, section.name).build(options(kind, section), *args)


def resolve(tree: dict[str, Any]) -> RunConfig:
    """A complete, checked configuration with every default written out. Raises ConfigError."""
    config = parse_section(RunConfig, tree)
    filled = {}
    for kind in KINDS:
        section: Plugin = getattr(config, kind)
        filled[kind] = Plugin(name=section.name, **_dump(options(kind, section)))
    config = config.model_copy(update=filled)
    _check_pairs(config)
    return config


def _dump(section: Section) -> dict[str, Any]:
    return section.model_dump(mode="json")


def _check_pairs(config: RunConfig) -> None:
    """Refuse combinations that cannot work, with the reason."""
    allocator = options("allocator", config.allocator)
    ideal_uplink = config.uplink.name == "ideal"
    if config.allocator.name == "ideal" and not ideal_uplink:
        raise ConfigError(
            "allocator.name",
            f"ideal has no channel limit and needs uplink.name=ideal, got uplink.name={config.uplink.name}",
        )
    if ideal_uplink and config.allocator.name != "ideal":
        raise ConfigError(
            "uplink.name",
            f"ideal has no bandwidth to share, so allocator.name={config.allocator.name} "
            "has nothing to decide; use allocator.name=ideal or uplink.name=fdma",
        )
    needs_budget = getattr(plugin("allocator", config.allocator.name), "NEEDS_BUDGET", False)
    if needs_budget and allocator.latency_budget_s is None:
        raise ConfigError("allocator.latency_budget_s", f"is required by allocator {config.allocator.name}, e.g. 0.22")
