"""How a run's channel describes itself: written into its folder when it begins, so that a report needs no plug-in."""

from __future__ import annotations

from raysoft.config import RunConfig, registry
from raysoft.wireless.table import radio_table


def radio_of(config: RunConfig) -> list[tuple[str, str]]:
    """Names and values with units of the channel and the devices."""
    return radio_table(registry.options("channel", config.channel), config.device, config.channel.label)
