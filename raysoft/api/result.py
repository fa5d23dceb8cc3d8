"""A run as a researcher meets it in Python: read from its folder, whenever it was made."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from raysoft.errors import ConfigError, RaysoftError
from raysoft.rundir.folder import CONFIG, REPORT
from raysoft.rundir.reading import Run, read_json, read_run
from raysoft.rundir.summary import accuracy_name_in

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from pandas import DataFrame

    from raysoft.config import RunConfig

ADAPTER = "adapter"
_WEIGHTS, _SETTINGS = "adapter_model.safetensors", "adapter_config.json"
_STYLE = "text-align: left; padding: 0.1em 0.8em 0.1em 0"


class Summary(TypedDict, total=False):
    """The keys of summary.json; `metrics` holds further numbers by name. None: not measured, or not known."""

    final_accuracy: float | None
    best_accuracy: float | None
    base_accuracy: float | None
    rounds: int
    uplink_bits_total: int | None
    mean_round_latency_s: float | None
    latency_budget_s: float | None
    simulated_time_s: float
    energy_j_total: float | None
    wall_time_s: float
    client_updates_per_s: float | None
    adapter_sha256: str | None
    config_hash: str
    identity: dict[str, str | None] | None
    status: str
    metrics: dict[str, Any]


class Adapter:
    """An exported adapter in peft's format; `peft.PeftModel.from_pretrained(base, adapter.folder)` loads it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def values(self) -> dict[str, NDArray[Any]]:
        """Arrays by peft's names, float32."""
        from safetensors.numpy import load_file

        loaded: dict[str, NDArray[Any]] = load_file(self.folder / _WEIGHTS)
        return loaded

    @cached_property
    def config(self) -> dict[str, Any]:
        """adapter_config.json: rank, alpha, adapted modules, the base it belongs to."""
        return read_json(self.folder / _SETTINGS)

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        return f"Adapter({str(self.folder)!r}, rank {self.config.get('r')}, {len(self.values)} arrays)"


class Result:
    """A run: what `raysoft.run`, `raysoft.resume` and `raysoft.open` give. Everything is read when first asked for.

    `folder`: where it lies (of a run on storage its URI). `report`: the page report.html, None where none was drawn.
    `notes`: a line of each tracker that has one.
    """

    def __init__(self, folder: Path | str, notes: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.notes: Mapping[str, str] = dict(notes or {})

    @cached_property
    def _local(self) -> Path:
        """The folder itself, or a copy of what lies on storage, checkpoints left out."""
        if isinstance(self.folder, Path):
            return self.folder
        from raysoft.rundir.remote import RemoteFolder

        remote = RemoteFolder.open(self.folder, "DIR")
        names = [name for name in remote.files() if not name.startswith(("checkpoints/", "wandb/", "tensorboard/"))]
        if not names:
            raise RaysoftError(f"{self.folder}: no such run folder")
        self._scratch = tempfile.TemporaryDirectory(prefix="raysoft-")  # removed with this object
        for name in names:
            remote.get(name, Path(self._scratch.name) / Path(remote.root).name / name)
        return Path(self._scratch.name) / Path(remote.root).name

    @cached_property
    def data(self) -> Run:
        """The records as plain data. Raises RaysoftError naming file and line of what cannot be read."""
        return read_run(self._local)

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.data.name

    @property
    def summary(self) -> Summary:
        """The contents of summary.json; empty while the run has not ended."""
        return self.data.summary or {}  # type: ignore[return-value]  # read and checked as plain data

    @property
    def status(self) -> str:
        """`done`, `stopped`, `interrupted`, `failed`; `unfinished` where there is no summary."""
        return str((self.data.summary or {}).get("status", "unfinished"))

    @cached_property
    def rounds(self) -> DataFrame:
        """A row a round (0: the untouched base), a column a number; shares from 0 to 1, seconds, joules, bits."""
        from raysoft.api.frames import rounds_frame

        return rounds_frame(self.data)

    @cached_property
    def clients(self) -> DataFrame:
        """A row for each client of each round: status, kept fraction, bandwidth, latency, gain, energy."""
        from raysoft.api.frames import clients_frame

        return clients_frame(self.data)

    @cached_property
    def config(self) -> RunConfig:
        """The complete configuration that was run. Raises ConfigError where this version refuses it."""
        from raysoft.config.registry import resolve

        try:
            return resolve(dict(self.data.config))
        except ConfigError as error:
            raise ConfigError("", f"{self._local / CONFIG}: {error}") from None

    @property
    def task(self) -> str:
        """data.task of the run."""
        return str(self.data.config.get("data", {}).get("task", ""))

    @property
    def split(self) -> str:
        """eval.split of the run."""
        return str(self.data.config.get("eval", {}).get("split", "test"))

    @property
    def adapter(self) -> Adapter:
        """The adapter that the run has learned. Raises RaysoftError where it has exported none."""
        folder = self._local / ADAPTER
        if not (folder / _WEIGHTS).is_file():
            raise RaysoftError(f"{self.folder}: holds no adapter; the run is {self.status}, and exports it at its end")
        return Adapter(folder)

    @property
    def report(self) -> Path | None:
        """The page with all figures, None where none was drawn; `raysoft.report(result)` draws it."""
        page = self._local / REPORT
        return page if page.exists() else None

    def plot(self, metric: str = "accuracy", x: str = "rounds") -> Figure:
        """A number of `rounds` (a column other than `round` and texts) against `rounds`, `seconds`, `mb` or `joules`.

        A matplotlib figure; a notebook shows it, `figure.savefig("figure.pdf")` keeps it. Raises ConfigError for an
        unknown number or axis, RaysoftError where it was not measured.
        """
        from raysoft.report.one_figure import metric_figure

        return metric_figure({self.name: [self.data]}, metric, x)

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        summary = self.data.summary or {}
        parts = [self.status, f"{len(self.data.records) - 1} rounds"]
        if (final := summary.get("final_accuracy")) is not None:
            parts.append(f"{accuracy_name_in(self.data.config)} {final:.3f}")
        return f"Result({str(self.folder)!r}: {', '.join(parts)})"

    def _repr_html_(self) -> str:
        from raysoft.report import closing_rows

        rows = [("Status", self.status), *closing_rows(self.data), ("Folder", os.fspath(self.folder))]
        return page_part(f"{self.name}", rows)


def page_part(title: str, rows: list[tuple[str, str]]) -> str:
    """A heading and named texts as a notebook shows them."""
    lines = "".join(
        f'<tr><th style="{_STYLE}">{escape(name)}</th><td style="{_STYLE}">{escape(text)}</td></tr>'
        for name, text in rows
    )
    return f"<div><b>{escape(title)}</b><table>{lines}</table></div>"
