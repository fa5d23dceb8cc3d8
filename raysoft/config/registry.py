"""Short names to plug-ins, one dictionary a kind. Checks a section's options and refuses pairs that cannot work.

Entry points of other packages join the same dictionaries: groups `raysoft.methods`, `raysoft.codecs`,
`raysoft.allocators`, `raysoft.uplinks`, `raysoft.channels`, `raysoft.extras`; each entry is a module with `Config` and
`build`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from inspect import signature
from types import ModuleType
from typing import Any

from raysoft.config.base import PLUGINS, Plugin, Section
from raysoft.config.clashes import CLASHES, Chosen
from raysoft.config.gone import without_gone
from raysoft.config.plugin_file import PluginFile, is_file_name
from raysoft.config.sections import RunConfig, TrainConfig
from raysoft.config.sentences import parse_section
from raysoft.config.traits import Traits
from raysoft.errors import ConfigError

METHODS = {
    name: f"raysoft.methods.{name}"
    for name in (
        "soft",
        "fedit",
        "ffa",
        "head_only",
        "rolora",
        "lora_fair",
        "flora",
        "flexlora",
        "fedex",
        "hetlora",
        "median",
        "flasc",
    )
}
CODECS = {
    name: f"raysoft.codecs.{name}"
    for name in ("identity", "rank_components", "topk", "randomk", "svd", "quantize", "waterfill", "ecsq", "chain")
}
ALLOCATORS = {name: f"raysoft.allocation.{name}" for name in ("tsfa", "ideal", "equal", "minmax", "greedy", "random")}
UPLINKS = {name: f"raysoft.uplinks.{name}" for name in ("ideal", "fdma")}
CHANNELS = {name: f"raysoft.wireless.{name}" for name in ("static", "rayleigh", "rician", "umi", "uma", "trace")}
EXTRAS = {
    name: f"raysoft.methods.extras.{name}"
    for name in ("fedprox", "scaffold", "orthogonal", "shared_order", "fedavgm", "fedadam", "fedyogi")
}
KINDS: dict[str, dict[str, str]] = {
    "method": METHODS,
    "codec": CODECS,
    "allocator": ALLOCATORS,
    "uplink": UPLINKS,
    "channel": CHANNELS,
    "extra": EXTRAS,  # in a list of the method's
}
# What a plug-in has to be. A channel needs `state` alone.
_PROTOCOLS = {
    "method": "raysoft.methods.base:Method",
    "extra": "raysoft.methods.extras.base:Extra",
    "codec": "raysoft.codecs.base:Codec",
    "allocator": "raysoft.allocation.base:Allocator",
    "uplink": "raysoft.uplinks.base:Uplink",
}
_CONFIGS = {  # what the Config of a plug-in in a file of one's own derives from
    "method": "raysoft.methods.base:MethodConfig",
    "extra": "raysoft.methods.extras.base:ExtraConfig",
    "codec": "raysoft.codecs.base:CodecConfig",
    "allocator": "raysoft.allocation.base:AllocatorConfig",
    "uplink": "raysoft.uplinks.base:UplinkConfig",
    "channel": "raysoft.wireless.base:ChannelConfig",
}
_GROUPS = {
    "method": "raysoft.methods",
    "codec": "raysoft.codecs",
    "allocator": "raysoft.allocators",
    "uplink": "raysoft.uplinks",
    "channel": "raysoft.channels",
    "extra": "raysoft.extras",
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
            return _of_today(kind, name, entry.load())
    close = difflib.get_close_matches(name, names(kind), n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    hint = f"; a file of your own is named with its ending, {name}.py" if "/" in name or "\\" in name else hint
    raise ConfigError(f"{kind}.name", f"unknown {kind} {name!r}, choose from {', '.join(names(kind))}{hint}")


def module_of(kind: str, name: str, file: PluginFile | None = None) -> ModuleType:
    """The module of a plug-in by its name, or in a file of one's own (None: it is read now). Raises ConfigError."""
    if not is_file_name(name):
        return plugin(kind, name)
    try:
        module = (file or PluginFile.of(name)).module()
    except ConfigError as error:
        raise ConfigError(f"{kind}.name", error.message) from None
    config, wanted = getattr(module, "Config", None), config_of(kind)
    problem = None
    if not isinstance(config, type):
        problem = f" has no class `Config`; a {kind}'s derives from {wanted.__name__}"
    elif not issubclass(config, wanted):
        is_now = next(
            (f"; as it is, it is one of the kind {one}" for one in KINDS if issubclass(config, config_of(one))), ""
        )
        problem = f": its `Config` does not derive from {wanted.__name__}, as one of the kind {kind} does{is_now}"
    elif not callable(getattr(module, "build", None)):
        problem = " has no function `build`"
    if problem is not None:
        raise ConfigError(f"{kind}.name", f"{name}{problem}; see docs/plugins.md")
    return module


def config_of(kind: str) -> type[Section]:
    """What the Config of a kind's plug-ins derives from."""
    home, _, name = _CONFIGS[kind].partition(":")
    found: type[Section] = getattr(import_module(home), name)
    return found


def _of_today(kind: str, name: str, module: ModuleType) -> ModuleType:
    """The module of another package. Raises ConfigError where it is none, or declares itself as 0.1 had it."""
    config = getattr(module, "Config", None)
    if not (isinstance(config, type) and issubclass(config, Section) and callable(getattr(module, "build", None))):
        raise ConfigError(f"{kind}.name", f"{name} has no `Config` (a Section) or no `build`; see docs/plugins.md")
    flags = [
        flag
        for flag in ("NEEDS_HEAD", "TRAINS_LORA", "NEEDS_CHANNEL", "NEEDS_BUDGET", "SHARES_BAND")
        if hasattr(module, flag)
    ]
    flags += [flag for flag in ("reads_curves", "superposable", "changes_gauge") if hasattr(module.Config, flag)]
    if flags:
        raise ConfigError(
            f"{kind}.name",
            f"{name} is written for raysoft 0.1: its {flags[0]} is a trait of its Config now, see docs/plugins.md",
        )
    return module


def options(kind: str, section: Plugin, prefix: str | None = None) -> Any:
    """The plug-in's own validated Config. `prefix`: where the section stands, for errors; None: at the kind's place."""
    if section.checked is not None:
        return section.checked  # and not read again: a file may have changed, or not be there
    place = kind if prefix is None else prefix
    try:
        module = module_of(kind, section.name, section.file)
    except ConfigError as error:
        raise ConfigError(f"{place}.name" if place else "name", error.message) from None
    return parse_section(module.Config, without_gone(kind, section.name, section.options(), place), place)


def build(kind: str, section: Plugin, *args: Any) -> Any:
    """The plug-in itself: `module.build(config, *args)`."""
    built = module_of(kind, section.name, section.file).build(options(kind, section), *args)
    if section.name not in KINDS[kind]:
        check_protocol(kind, section.label, built)
    return built


def check_protocol(kind: str, name: str, built: Any) -> None:
    """Raise ConfigError where a plug-in of another package lacks what is asked of it, or takes other arguments."""
    if kind not in _PROTOCOLS:
        return
    home, _, protocol = _PROTOCOLS[kind].partition(":")
    for asked, value in vars(getattr(import_module(home), protocol)).items():
        if asked.startswith("_"):
            continue
        found: Any = getattr(built, asked, None)
        what = "" if hasattr(built, asked) else "is missing"
        if not what and callable(value):
            wanted = [one.name for one in list(signature(value).parameters.values())[1:]]
            try:
                signature(found).bind(*wanted)
            except (TypeError, ValueError):
                what = f"takes other arguments than ({', '.join(wanted)})"
        if what:
            raise ConfigError(
                f"{kind}.name", f"{name} is written for another raysoft: `{asked}` {what}; see docs/plugins.md"
            )


def resolve(tree: dict[str, Any]) -> RunConfig:
    """A complete, checked configuration with every default written out. Raises ConfigError."""
    config = parse_section(RunConfig, tree)
    filled = {}
    for kind in PLUGINS:
        section: Plugin = getattr(config, kind)
        filled[kind] = Plugin.of(section, options(kind, section))
    config = config.model_copy(update=filled)
    _check_pairs(config)
    return config


def traits(kind: str, section: Plugin) -> Traits:
    """What the plug-in, as it is set, needs of the others."""
    found: Traits = options(kind, section).traits
    return found


def with_trait(kind: str, has: Callable[[Traits], bool]) -> tuple[str, ...]:
    """Built-in plug-ins that have a trait whatever their options."""
    return tuple(name for name in KINDS[kind] if has(plugin(kind, name).Config.TRAITS))


def _is_plain_sgd(train: TrainConfig) -> bool:
    return train.optimizer == "sgd" and train.weight_decay == 0.0 and train.clip_norm is None


def _check_pairs(config: RunConfig) -> None:
    """Refuse combinations that cannot work, with the reason."""
    sections: dict[str, Plugin] = {kind: getattr(config, kind) for kind in PLUGINS}
    extras = getattr(config.method.checked, "extras", [])
    chosen = Chosen(
        names={kind: section.name for kind, section in sections.items()},
        traits={kind: traits(kind, section) for kind, section in sections.items()},
        extras={section.name: traits("extra", section) for section in extras},
        plain_sgd=_is_plain_sgd(config.train),
        train_head=config.model.lora.train_head,
        lora_init=config.model.lora.init,
        latency_budget_s=options("allocator", config.allocator).latency_budget_s,
        others=with_trait,
        server_lr=getattr(config.method.checked, "server_lr", 1.0),
    )
    for clash in CLASHES:
        if clash.when(chosen):
            raise ConfigError(clash.field(chosen), clash.why(chosen))
