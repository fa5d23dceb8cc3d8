"""What a run says to its user while it goes on: clients left out, nothing learnt, a slower way to compute chosen."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence

from raysoft.config import RunConfig, registry
from raysoft.types import ParamSpace, RoundRecord
from raysoft.uplinks.base import downlink_seconds

INLINE_START = 0.45  # of the start on Ray: what model and data take inline (measured)

log = logging.getLogger("raysoft")


def warn_of_round(config: RunConfig, record: RoundRecord, earlier: Sequence[RoundRecord]) -> None:
    """Say it when a client is left out for what its plug-ins raised, and the first time that nothing is learnt."""
    if "failed" in record.metrics:
        count = record.drop_reasons.get("client_failed", 1)
        log.warning(f"{count} client(s) left out (actors.on_failure=drop_client); {record.metrics['failed']}")
    if record.metrics.get("unmoved") and not any(row.metrics.get("unmoved") for row in earlier):
        log.warning(
            f"round {record.round}: {record.participants} updates arrived and left the model as it was; what came of "
            f"them is for method.name={config.method.name}, codec.name={config.codec.name} and "
            f"uplink.name={config.uplink.name} to say"
        )


def warn_of_catch_up(config: RunConfig, space: ParamSpace) -> None:
    """Say it where rounds may take longer than the check of the budget could know (federation/preflight.py)."""
    uplink = registry.options("uplink", config.uplink)
    has_budget = registry.traits("allocator", config.allocator).needs_budget
    if not (has_budget and registry.traits("method", config.method).base_drift) or uplink.downlink == "ignore":
        return
    base_bits = 32 * sum(pair.out_features * pair.in_features for pair in space.pairs)
    most_s = downlink_seconds(uplink, config.device.payload_scale * base_bits)
    log.warning(
        f"allocator.latency_budget_s={registry.options('allocator', config.allocator).latency_budget_s:g} was checked "
        f"without what clients receive of the base that method.name={config.method.name} changes: the whole of it "
        f"takes {most_s:.3g} s of a round at uplink.downlink_rate_bps={uplink.downlink_rate_bps:g}"
    )


def warn_of_slow_start(config: RunConfig, startup_s: float, records: Sequence[RoundRecord]) -> None:
    """Say it where one process would have been faster than Ray; a cluster has more cores than this machine."""
    from raysoft.distributed.session import joins_cluster

    packs = math.ceil(config.cohort.size / int(config.actors.pack_size))
    at_once = min(packs, os.cpu_count() or 1)
    inline_s = sooner_inline(startup_s, sum(record.wall_time_s for record in records), at_once)
    if inline_s is not None and not joins_cluster():
        log.warning(
            f"Starting on Ray took {startup_s:.0f} s of this run; executor=inline would be over sooner, after "
            f"about {inline_s:.0f} s, with the same result."
        )


def sooner_inline(startup_s: float, rounds_s: float, at_once: int) -> float | None:
    """Seconds that a run on Ray would take inline, where these are fewer; packs that ran `at_once` come one by one.

    >>> sooner_inline(20.0, 3.0, at_once=2)
    15.0
    >>> sooner_inline(20.0, 60.0, at_once=2)
    """
    inline_s = INLINE_START * startup_s + at_once * rounds_s
    return inline_s if inline_s < startup_s + rounds_s else None
