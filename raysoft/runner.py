"""One run from configuration to folder: the only place where executors, records, summary and report meet."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import yaml

from raysoft.config import RunConfig
from raysoft.errors import ConfigError, ResourceError
from raysoft.plan_table import plan_json
from raysoft.planning import planned
from raysoft.tracking import RunFolder, summarise
from raysoft.types import RoundRecord, Tensors

if TYPE_CHECKING:
    from raysoft.federation.coordinator import Started


class Events(Protocol):
    """What a caller may draw while a run goes on."""

    def preparing(self, fraction: float, text: str) -> None:
        """Something other than rounds is going on: the base, the start, the report."""
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
    """What a finished run leaves: its folder, the contents of summary.json, the report (None: not drawn)."""

    folder: Path
    summary: Mapping[str, Any]
    report: Path | None


class Session(Protocol):
    """A coordinator, wherever it lives."""

    def start(self) -> Started:
        """Make ready; raises ConfigError on bad input."""
        ...

    def baseline(self) -> RoundRecord:
        """Round 0, the untouched base."""
        ...

    def round(self, tick: int) -> RoundRecord:
        """The next round."""
        ...

    def finish(self) -> tuple[Tensors, dict[str, Any]]:
        """The global values and run totals."""
        ...

    def fetch_base(self) -> Any:
        """The frozen base."""
        ...


def run(
    config: RunConfig, folder: Path, overwrite: bool = False, events: Events | None = None, report: bool = True
) -> RunResult:
    """Run a configuration and write its folder; `report` False leaves out figures and page, which take seconds.

    Raises ConfigError (bad input, also found while reading data), ResourceError (does not fit this machine),
    RaysoftError (anything that ends a run). A run that ends early keeps its records and a summary with its status;
    one that is refused before its first round leaves no folder.
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
            config, plan = planned(config, events)  # model.lora.rank: plan is now a number
            if plan is not None:
                out.write_plan(plan_json(plan))
                out.write_config(to_yaml(config))
            where = "starting Ray, " if config.executor == "ray" else ""
            events.preparing(0.0, f"{where}loading model and data")
            with _session(config) as session:
                started = session.start()
                config = started.config  # pack_size: auto is now a number
                out.write_config(to_yaml(config))
                events.started(config, started.info.description)
                for tick in range(config.rounds + 1):
                    record = session.baseline() if tick == 0 else session.round(tick)
                    records.append(_scalars_only(record))
                    out.append(record)
                    events.round(record)
                theta, totals = session.finish()
                digest = _export(session.fetch_base(), started.info.space, theta, config, folder)
        except KeyboardInterrupt:
            if records:
                close("interrupted")
            else:
                out.discard()
            raise
        except Exception as error:
            if isinstance(error, (ConfigError, ResourceError)) and not records:
                out.discard()  # refused before anything began
            else:
                close("failed", metrics={"error": str(error) or type(error).__name__})
            raise
        summary = close("done", adapter_sha256=digest, metrics=_totals(totals, records))
    if not report:
        return RunResult(folder, summary, None)
    from raysoft.report import write_report

    events.preparing(0.0, "drawing the report")
    return RunResult(folder, summary, write_report(folder))


def to_yaml(config: RunConfig) -> str:
    """A configuration as YAML that `raysoft run` reads back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=120)


def _scalars_only(record: RoundRecord) -> RoundRecord:
    """What the summary needs of a round; columns over clients are on disk, and would fill memory in the long run."""
    metrics = {name: value for name, value in record.metrics.items() if isinstance(value, (int, float))}
    return replace(record, metrics=metrics)


def _totals(totals: Mapping[str, Any], records: list[RoundRecord]) -> dict[str, Any]:
    """Shares of the dense uplink: at 32 bits a value, and at the value bits that were used."""
    dense = totals["dense_bits_total"]
    sent = sum(record.uplink_bits for record in records)
    evaluated = [record.accuracy for record in records if record.accuracy is not None]
    same = dense * totals["value_bits"] / 32
    return {
        **totals,
        "last_accuracy": evaluated[-1] if evaluated else None,  # that of the saved adapter
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
def _session(config: RunConfig) -> Iterator[Session]:
    """A coordinator in this process, or in an actor of a Ray that this call starts and stops."""
    if config.executor == "inline":
        from raysoft.federation.coordinator import Coordinator
        from raysoft.federation.executor import InlineExecutor, pin_threads

        with pin_threads(config.actors.threads):  # the caller's own thread counts come back afterwards
            yield Coordinator(config, InlineExecutor(config))
    else:
        from raysoft.federation.ray_session import ray_session

        with ray_session(config) as coordinator:
            yield coordinator
