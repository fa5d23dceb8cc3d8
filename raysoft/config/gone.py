"""Options that plug-ins had once, and the value with which a run still is what it was.

A file that holds an option of this table at its value loads without a word; at any other value it asks for what is no
longer there, and is refused with the version that ran it. The hash of a configuration counts these options in, so that
runs made while they were there are found again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raysoft.errors import ConfigError

LAST = "0.1.0"  # the version that had them all
_SENDERS = {"sender_weights": "cohort", "sender_weight_floor": 0.0}
GONE: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("method", "soft"): _SENDERS,
    ("method", "fedit"): _SENDERS,
    ("codec", "rank_components"): {"age_bonus": 0.0, "random_share": 0.0},
}


def without_gone(kind: str, name: str, options: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The options that are left. Raises ConfigError where one of the others asks for more than its value here."""
    gone = GONE.get((kind, name), {})
    for key, value in gone.items():
        if key in options and (options[key] != value or isinstance(options[key], bool)):
            raise ConfigError(
                f"{prefix}.{key}" if prefix else key,
                f"is no longer there: {options[key]!r:.80} needs raysoft {LAST}; leave it out, or at {value!r}",
            )
    return {key: value for key, value in options.items() if key not in gone}


def as_written_before(kind: str, section: Mapping[str, Any]) -> dict[str, Any]:
    """A plug-in section (`{name: ..., **options}`) as it was written down when the options were there."""
    tree = {**section, **GONE.get((kind, str(section.get("name"))), {})}
    for key, value in tree.items():
        if isinstance(value, list) and value and all(isinstance(one, dict) and "name" in one for one in value):
            tree[key] = [as_written_before(kind, one) for one in value]  # the members of a chain
    return tree
