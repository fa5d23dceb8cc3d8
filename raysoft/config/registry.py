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

from raysoft.config.base import Plugin
from raysoft.config.gone import without_gone
from raysoft.config.sections import RunConfig
from raysoft.config.sentences import parse_section
from raysoft.errors import ConfigError

METHODS = {name: f"raysoft.methods.{name}" for name in ("soft", "fedit", "ffa", "head_only")}
CODECS = {
    name: f"raysoft.codecs.{name}"
    for name in ("identity", "rank_components", "topk", "randomk", "svd", "quantize", "waterfill", "ecsq", "chain")
}
ALLOCATORS = {name: f"raysoft.allocation.{name}" for name in ("tsfa", "ideal", "equal", "minmax", "greedy", "random")}
UPLINKS = {name: f"raysoft.uplinks.{name}" for name in ("ideal", "fdma")}
CHANNELS = {name: f"raysoft.wireless.{name}" for name in ("static", "rayleigh", "rician", "umi", "uma")}
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
            module: ModuleType = entry.load()
            return module
    close = difflib.get_close_matches(name, names(kind), n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ConfigError(f"{kind}.name", f"unknown {kind} {name!r}, choose from {', '.join(names(kind))}{hint}")


def options(kind: str, section: Plugin, prefix: str | None = None) -> Any:
    """The plug-in's own validated Config."""
    left = without_gone(kind, section.name, section.options(), prefix or kind)
    return parse_section(plugin(kind, section.name).Config, left, prefix or kind)


def build(kind: str, section: Plugin, *args: Any) -> Any:
    """The plug-in itself: `module.build(config, *args)`."""
    return plugin(kind, section.name).build(options(kind, section), *args)


def resolve(tree: dict[str, Any]) -> RunConfig:
    """A complete, checked configuration with every default written out. Raises ConfigError."""
    config = parse_section(RunConfig, tree)
    filled = {}
    for kind in KINDS:
        section: Plugin = getattr(config, kind)
        filled[kind] = Plugin.of(section.name, options(kind, section))
    config = config.model_copy(update=filled)
    _check_pairs(config)
    return config


def flag(kind: str, section: Plugin, name: str, default: bool) -> bool:
    """A capability that the plug-in's module declares, such as NEEDS_BUDGET."""
    return bool(getattr(plugin(kind, section.name), name, default))


def _check_pairs(config: RunConfig) -> None:
    """Refuse combinations that cannot work, with the reason."""
    if flag("method", config.method, "NEEDS_HEAD", default=False) and not config.model.lora.train_head:
        raise ConfigError(
            "model.lora.train_head",
            f"is false, so method.name={config.method.name} has nothing to train; set model.lora.train_head=true",
        )
    allocator, uplink = config.allocator, config.uplink
    allocates = flag("allocator", allocator, "NEEDS_CHANNEL", default=True)
    limited = flag("uplink", uplink, "SHARES_BAND", default=True)
    if limited and not allocates:
        raise ConfigError(
            "allocator.name",
            f"{allocator.name} has no channel limit and needs uplink.name=ideal, got uplink.name={uplink.name}",
        )
    if allocates and not limited:
        raise ConfigError(
            "uplink.name",
            f"{uplink.name} has no bandwidth to share, so allocator.name={allocator.name} "
            "has nothing to decide; use allocator.name=ideal or uplink.name=fdma",
        )
    if flag("allocator", allocator, "NEEDS_BUDGET", default=False) and (
        options("allocator", allocator).latency_budget_s is None
    ):
        raise ConfigError("allocator.latency_budget_s", f"is required by allocator {allocator.name}, e.g. 0.22")
    if getattr(options("method", config.method), "shared_mask", False):
        _check_shared_mask(config.codec)
    # Capabilities of configurations that plug-ins of other packages may leave out.
    if getattr(options("method", config.method), "changes_gauge", False) and (
        options("codec", config.codec).error_feedback is True
    ):
        raise ConfigError(
            "codec.error_feedback",
            "true remembers changes of the factors' coordinates, which method.reorthogonalize turns every round; "
            "use codec.error_feedback=transport, or method.reorthogonalize=false",
        )


def _check_shared_mask(section: Plugin) -> None:
    """Refuse codecs that cannot follow the server's order, and options that would choose beside it."""
    codec = options("codec", section)
    if not getattr(codec, "superposable", False):
        raise ConfigError(
            "method.shared_mask",
            f"true gives all clients one order of rank components, which codec.name={section.name} does not "
            "follow; use codec.name=rank_components, matched (or a chain that starts with it), or "
            "method.shared_mask=false",
        )
