"""A target of the command line as a configuration; the name of a sweep gets its own sentence."""

from __future__ import annotations

from collections.abc import Sequence

from raysoft.config import RunConfig, presets
from raysoft.errors import ConfigError


def load_config(target: str, overrides: Sequence[str] = (), executor: str | None = None) -> RunConfig:
    """As `raysoft.config.presets.load_config`. Raises ConfigError, which says so where the target names a sweep."""
    try:
        return presets.load_config(target, overrides, executor)
    except ConfigError:
        from raysoft.sweep.shipped import shipped_names

        if target not in shipped_names() or target in presets.preset_names():
            raise
        raise ConfigError(
            "",
            f"{target!r} is a sweep, not a configuration: `raysoft tune {target} --dry-run` lists its trials, "
            f"`raysoft tune {target}` runs them",
        ) from None
