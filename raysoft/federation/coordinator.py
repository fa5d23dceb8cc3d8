"""The coordinator: builds the parts from a configuration, owns the run's state, advances it round by round.

It draws nothing and writes no file; the caller does (see runs/run.py). Under Ray it lives in its own actor.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from raysoft.allocation.base import AllocationContext
from raysoft.codecs.base import value_bits
from raysoft.config import RunConfig, registry
from raysoft.errors import ConfigError
from raysoft.federation.clock.rounds import run_round
from raysoft.federation.evaluation import client_counts, closing_details, evaluate, spread
from raysoft.federation.executor import Executor
from raysoft.federation.parts import Parts, RunState, first_state
from raysoft.federation.preflight import check_latency_budget
from raysoft.federation.records import base_record
from raysoft.federation.stage_errors import ended_by_plug_in
from raysoft.federation.workload import WorkloadInfo, with_pack_size
from raysoft.methods.building import build_method
from raysoft.rng import Rng
from raysoft.types import GlobalModel, RoundRecord
from raysoft.wireless.link import Devices, Link


@dataclass(frozen=True)
class Started:
    """What the caller learns once a run is ready: the completed configuration and a description for people."""

    config: RunConfig
    info: WorkloadInfo


class Coordinator:
    """A run in progress on some executor."""

    def __init__(self, config: RunConfig, executor: Executor) -> None:
        self.config = config
        self.executor = executor

    def start(self, state: RunState | None = None) -> Started:
        """Prepare workload and parts, at the beginning or in the state of a checkpoint.

        Raises ConfigError on bad input, before any round.
        """
        info = self.executor.start()
        if self.config.cohort.size > info.population:
            raise ConfigError(
                "cohort.size",
                f"must not exceed the number of clients, {info.population}, got {self.config.cohort.size}",
            )
        if info.eval_items == 0:
            raise ConfigError("eval.split", f"the {self.config.eval.split} split is empty")
        self.config = with_pack_size(self.config, info)
        self.parts = build_parts(self.config, info, self.executor)
        if state is None:
            state = first_state(self.parts)
            check_latency_budget(self.parts, state.server)
        self.state = state
        return Started(self.config, info)

    def baseline(self) -> RoundRecord:
        """Line 0: evaluation of the untouched base."""
        began = time.perf_counter()
        return base_record(evaluate(self.parts, self.state.server, 0), began)

    def round(self, tick: int) -> RoundRecord:
        """Advance by one round."""
        try:
            self.state, record = run_round(self.parts, self.state, tick)
        except SystemExit as error:  # else the command would end with that code, and 0 is success
            raise ended_by_plug_in(f"round {tick}", error) from error
        return record

    def snapshot(self) -> RunState:
        """All that the rounds so far have changed; immutable, so the next round may go on beside its use."""
        return self.state

    def finish(self) -> tuple[GlobalModel, dict[str, Any], dict[str, Any]]:
        """Evaluate client by client, check the shared base; the global model, run totals, and details for figures."""
        counts_K3 = client_counts(self.parts, self.state.server)
        by_client = {} if counts_K3 is None else spread(counts_K3, self.parts.info.bits_per_byte)
        details = closing_details(self.parts, self.state.server, counts_K3)
        self.executor.verify()
        bits = value_bits(registry.options("codec", self.config.codec))
        model = self.parts.method.model(self.state.server)
        totals = {"dense_bits_total": self.state.totals.dense_bits, "value_bits": bits, **by_client}
        return model, totals, details

    def fetch_base(self) -> Any:
        """The frozen base, for the export of the adapter."""
        return self.executor.fetch_base()


def build_parts(config: RunConfig, info: WorkloadInfo, executor: Executor) -> Parts:
    """All plug-ins of a run."""
    rng = Rng(config.seed)
    link = Link.from_config(registry.options("channel", config.channel))
    codec = registry.options("codec", config.codec)
    context = AllocationContext(
        link=link,
        kept_fraction=codec.kept_fraction,
        min_kept_fraction=codec.min_kept_fraction,
        payload_scale=config.device.payload_scale,
    )
    assert isinstance(config.actors.pack_size, int)
    return Parts(
        config=config,
        info=info,
        executor=executor,
        method=build_method(config, info.space, info.population),
        allocator=registry.build("allocator", config.allocator, context),
        uplink=registry.build("uplink", config.uplink, link),
        channel=registry.build("channel", config.channel, rng),
        link=link,
        devices=Devices(config.device, rng),
        rng=rng,
        pack_size=config.actors.pack_size,
        even_packs=config.even_packs(),
        shares_band=registry.traits("uplink", config.uplink).shares_band,
        analog=registry.traits("uplink", config.uplink).analog,
    )
