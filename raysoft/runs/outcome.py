"""What a finished run leaves: the adapter, the totals of its summary, the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raysoft.config import RunConfig
from raysoft.rundir.checks import is_lost
from raysoft.rundir.folder import REPORT, record_row
from raysoft.runs.events import Events
from raysoft.runs.loading import LOADING
from raysoft.runs.trackers.fanout import Trackers
from raysoft.types import GlobalModel, RoundRecord


@dataclass(frozen=True)
class RunResult:
    """What a finished run leaves: its folder, the contents of summary.json, the report (None: not drawn).

    `notes`: a line of each tracker that has one, such as where to look or how to upload.
    """

    folder: Path
    summary: Mapping[str, Any]
    report: Path | None
    notes: Mapping[str, str] = field(default_factory=dict)
    task: str = ""  # data.task
    split: str = "test"  # eval.split


def export_adapter(base: Any, space: Any, model: GlobalModel, config: RunConfig, folder: Path) -> str:
    """Write the adapter in the format of peft; the fingerprint of its values."""
    from raysoft.models.adapter import as_adapter, export_peft
    from raysoft.models.digest import adapter_sha256

    space, theta = as_adapter(space, model)
    export_peft(theta, base, space, config.model.lora, folder / "adapter")
    return adapter_sha256(theta)


def with_shares(totals: Mapping[str, Any], records: Sequence[RoundRecord]) -> dict[str, Any]:
    """Totals with the shares of the dense uplink: at 32 bits a value, and at the value bits used, where known."""
    dense = totals["dense_bits_total"]
    sent = None if any(map(is_lost, map(record_row, records))) else sum(record.uplink_bits for record in records)
    bits = totals["value_bits"]
    same = None if bits is None else dense * bits / 32
    return {
        **totals,
        # That of the saved adapter: a run that was stopped may end with a round that was not evaluated.
        "last_accuracy": records[-1].accuracy if records else None,
        "uplink_share_of_dense32": sent / dense if dense and sent is not None else None,
        "uplink_share_of_dense_same_bits": sent / same if same and sent is not None else None,
    }


def closed(
    folder: Path,
    config: RunConfig,
    summary: Mapping[str, Any],
    *,
    report: bool,
    events: Events,
    trackers: Trackers | None = None,
) -> RunResult:
    """The result of a run that has its summary, once the report is drawn and the trackers have ended."""
    page, notes = folder / REPORT, {}
    try:
        if report:
            events.preparing(0.0, "drawing the report")
            with LOADING:
                from raysoft.report import write_report

                page = write_report(folder)
    finally:  # after the report: its figures may be among what is uploaded
        if trackers is not None:
            notes = trackers.finish(summary)
    return RunResult(folder, summary, page if page.exists() else None, notes, config.data.task, config.eval.split)
