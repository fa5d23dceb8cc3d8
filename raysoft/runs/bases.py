"""Embedded bases, made before whoever needs them starts: where progress can be seen, and once for all runs."""

from __future__ import annotations

from collections.abc import Iterable

from raysoft.config import RunConfig
from raysoft.config.identity import EMBEDDED
from raysoft.planning.events import Preparing


def ensure_bases(configs: Iterable[RunConfig], events: Preparing) -> None:
    """Pretrain the embedded models of these runs that the cache does not have. Raises as models.embedded.ensure."""
    for name, threads in dict.fromkeys((config.model.name, config.actors.threads) for config in configs):
        if name.startswith(EMBEDDED):
            from raysoft.models.embedded import ensure

            ensure(name, threads=threads, on_progress=events.preparing)
