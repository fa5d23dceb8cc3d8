"""One run from configuration to folder: the only place where executors, records, summary and report meet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

from raysoft import registry
from raysoft.config import RunConfig
from raysoft.errors import RaysoftError
from raysoft.tracking import RunFolder, summarise
from raysoft.types import RoundRecord, Tensors


class Events(Protocol):
    """What a caller may draw while a run goes on."""

    def preparing(self, fraction: float, text: str) -> None:
        """Model and data are being made ready."""
        ...

    def started(self, config: RunConfig, description: Mapping[str, str]) -> None:
        """The run is ready to begin."""
        ...

    def round(self, record: RoundRecord) -> None:
        """A round (or the base, round 0) is on disk."""
        ...


class Silent:
    """Events of a caller that draws nothing."""

    def preparing(self, fraction: float, text: str) -> None:
        """Nothing."""

    def started(self, config: RunConfig, description: Mapping[str, str]) -> None:
        """Nothing."""

    def round(self, record: RoundRecord) -> None:
        """Nothing."""


@dataclass(frozen=True)
class RunResult:
    """What a finished run leaves: its folder, the contents of summary.json, the report."""

    folder: Path
    summary: Mapping[str, Any]
    report: Path


@dataclass(frozen=True)
class _Session:
    """A coordinator, wherever it lives."""

    start: Callable[[], Any]
    baseline: Callable[[], RoundRecord]
    round: Callable[[int], RoundRecord]
    finish: Callable[[], tuple[Tensors, dict[str, Any]]]
    fetch_base: Callable[[], Any]


def run(config: RunConfig, folder: Path, overwrite: bool = False, events: Events | None = None) -> RunResult:
    """Run a configuration and write its folder.

    Raises ConfigError (bad input, also found while reading data), ResourceError (does not fit this machine),
    RaysoftError (anything that ends a run). A run that ends early keeps its records and a summary with its status.
    """
    events = events or Silent()
    with RunFolder(folder, overwrite=overwrite, tensorboard=config.tracking.tensorboard) as out:
        out.write_config(to_yaml(config))
        out.write_environment(threads=config.actors.threads)
        began = time.perf_counter()
        records: list[RoundRecord] = []

        def close(status: str, **extra: Any) -> dict[str, Any]:
            wall_s = time.perf_counter() - began
            summary = summarise(records, config, {"status": status, "wall_time_s": wall_s, **extra})
            out.write_summary(summary)
            return summary

        try:
            _ensure_base(config, events)
            with _session(config) as session:
                started = session.start()
                config = started.config  # pack_size: auto is now a number
                out.write_config(to_yaml(config))
                events.started(config, started.info.description)
                for tick in range(config.rounds + 1):
                    record = session.baseline() if tick == 0 else session.round(tick)
                    records.append(record)
                    out.append(record)
                    events.round(record)
                theta, totals = session.finish()
                digest = _export(session.fetch_base(), started.info.space, theta, config, folder)
        except KeyboardInterrupt:
            close("interrupted")
            raise
        except RaysoftError as error:
            close("failed", metrics={"error": str(error)})
            raise
        summary = close("done", adapter_sha256=digest, metrics=_totals(totals, records))
    from raysoft.report import write_report

    return RunResult(folder, summary, write_report(folder))


def to_yaml(config: RunConfig) -> str:
    """A configuration as YAML that `raysoft run` reads back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=120)


def _totals(totals: Mapping[str, Any], records: list[RoundRecord]) -> dict[str, Any]:
    """Shares of the dense uplink: at 32 bits a value, and at the value bits that were used."""
    dense = totals["dense_bits_total"]
    sent = sum(record.uplink_bits for record in records)
    same = dense * totals["value_bits"] / 32
    return {
        **totals,
        "uplink_share_of_dense32": sent / dense if dense else None,
        "uplink_share_of_dense_same_bits": sent / same if same else None,
    }


def _ensure_base(config: RunConfig, events: Events) -> None:
    """Pretrain an embedded model here, where progress can be seen, unless the cache has it."""
    if config.model.name.startswith("embedded/"):
        from raysoft.models.embedded import ensure

        ensure(config.model.name, threads=config.actors.threads, on_progress=events.preparing)


def _export(base: Any, space: Any, theta: Tensors, config: RunConfig, folder: Path) -> str:
    from raysoft.models.adapter import export_peft
    from raysoft.models.digest import adapter_sha256

    export_peft(theta, base, space, config.model.lora, folder / "adapter")
    return adapter_sha256(theta)


@contextmanager
def _session(config: RunConfig) -> Iterator[_Session]:
    """A coordinator in this process, or in an actor of a Ray that this call starts and stops."""
    if config.executor == "inline":
        from raysoft.federation.coordinator import Coordinator
        from raysoft.federation.executor import InlineExecutor

        executor = InlineExecutor(config)
        coordinator = Coordinator(config, executor)
        yield _Session(
            coordinator.start,
            coordinator.baseline,
            coordinator.round,
            coordinator.finish,
            lambda: executor.worker.workload.base,
        )
    else:
        from raysoft.federation.ray_session import ray_session

        with ray_session(config) as actor_calls:
            yield _Session(**actor_calls)


def validate(config: RunConfig) -> None:
    """Everything that can be checked without data, model or Ray."""
    for kind in registry.KINDS:
        registry.options(kind, getattr(config, kind))
