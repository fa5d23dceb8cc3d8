"""Every codec with every allocator and method, and odd but legal settings: whole runs whose records must add up.

Each run is tiny (digits, two rounds) and checked against the identities that any run obeys, never against recorded
numbers. Warnings are errors here: a user could do nothing about them.
"""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raysoft.allocation.tsfa import WARM_UP
from raysoft.config import Plugin, RunConfig, registry
from raysoft.config.presets import load_config
from raysoft.config.traits import Traits
from raysoft.errors import RaysoftError
from raysoft.runs.run import run
from tests.conftest import records, summary


def traits(kind: str, name: str) -> Traits:
    """What a plug-in needs of the others, at its defaults."""
    return registry.traits(kind, Plugin(name=name))


TINY = [
    "executor=inline",
    "rounds=2",
    "data.clients=12",
    "cohort.size=4",
    "train.steps=1",
    "train.batch_size=4",
    "data.max_test_samples=100",
    "tracking.tensorboard=false",
    "actors.pack_size=2",
]
# Every codec as it is, and three of them in other ways that change what is sent.
CODECS = {
    **{name: [f"codec.name={name}"] for name in registry.CODECS},
    "topk update": ["codec.name=topk", "codec.of=update"],
    "randomk entries": ["codec.name=randomk", "codec.unit=entry"],
    "randomk unbiased": ["codec.name=randomk", "codec.unbiased=true"],
    "chain": ["codec={name: chain, codecs: [{name: topk}, {name: quantize}]}"],
}
# Every allocator, over the uplink that goes with it.
ALLOCATORS = {
    name: [f"allocator.name={name}", f"uplink.name={'fdma' if traits('allocator', name).needs_channel else 'ideal'}"]
    for name in registry.ALLOCATORS
}
# Methods that train the factors; those of the head alone are among the odd settings.
METHODS = [name for name in registry.METHODS if not traits("method", name).needs_head]
MATRIX = list(itertools.product(METHODS, CODECS, ALLOCATORS))
# Without a GPU and in seconds: every codec with every method, and every allocator with every codec or nearly so.
FAST = [
    (m, c, list(ALLOCATORS)[(i + j) % len(ALLOCATORS)]) for i, m in enumerate(METHODS) for j, c in enumerate(CODECS)
]
EVERYBODY_OUT = ["channel.bandwidth_hz=1", "allocator.name=equal"]
ODD = {
    "mixed ranks": ["model.lora.rank={low: 2, high: 8}"],
    "mixed steps": ["train.steps={low: 1, high: 3}"],
    "trained head in 8 bits": ["model.lora.train_head=true", "codec.head_bits=8"],
    "trained head in 1 bit, adamw": ["model.lora.train_head=true", "codec.head_bits=1", "train.optimizer=adamw"],
    "head only": ["model.lora.train_head=true", "method.name=head_only"],
    "head only, in 8 bits, without a channel": [
        "model.lora.train_head=true",
        "method.name=head_only",
        "codec.head_bits=8",
        *ALLOCATORS["ideal"],
    ],
    "ecsq, head only": ["codec.name=ecsq", "model.lora.train_head=true", "method.name=head_only"],
    "ecsq, mixed ranks, trained head in 8 bits, error feedback": [
        "codec={name: ecsq, gain: unbiased, head_bits: 8, error_feedback: true}",
        "model.lora.rank={low: 2, high: 8}",
        "model.lora.train_head=true",
        "allocator.name=minmax",
    ],
    "error feedback": ["codec.error_feedback=true"],
    "error feedback, everything lost": ["codec.error_feedback=true", "uplink.deadline_s=1e-6", "allocator.name=equal"],
    "imperfect CSI": ["channel.csi_error=0.3"],
    "no CSI to speak of": ["channel.csi_error=0.99"],
    "correlated fading": ["channel.correlation_time_rounds=5"],
    "packet errors": ["uplink.packet_error=snr"],
    "sensitivity": ["uplink={name: fdma, sensitivity_dbm: 300}"],
    "broadcast": ["uplink.downlink=broadcast"],
    "deadline": ["uplink.deadline_s=0.05"],
    "everybody in outage": EVERYBODY_OUT,
    "a million clients": ["data.partition=virtual", "data.clients=1000000"],
    "evaluated every third round": ["eval.every=3", "rounds=4"],
    "one of the cohort": ["cohort.size=1"],
    "one client": ["data.clients=1", "cohort.size=1"],
    "a thousand times the payload": ["device.payload_scale=1000", "allocator.latency_budget_s=300"],
    "a huge band": ["channel.bandwidth_hz=1e12"],
    **{f"channel {name}": [f"channel={{name: {name}}}"] for name in registry.CHANNELS},
    "largest budget": ["allocator.latency_budget_s=1e30"],
    "largest v": ["allocator.v=1e30"],
    "smallest v, certified": ["allocator.v=1e-30", "allocator.certify=1e-3"],
    "largest start queue": ["allocator.queue_start=1e30"],
    "empty start queue": ["allocator.queue_init=zero"],
    "largest energies": [
        "device.kappa=1e30",
        "device.cpu_hz=1e30",
        "device.compute_scale=1e30",
        "allocator={name: equal}",
    ],
    "slowest processors": ["device.cpu_hz=1e-30", "allocator.name=equal"],
    "least of nothing": ["codec.min_kept_fraction=1e-320", "codec.kept_fraction=1e-320", "allocator.name=equal"],
    "large alpha": ["model.lora.alpha=1e30", "rounds=1"],
    "batch larger than the data": ["train.batch_size=100000"],
}


class Counted:
    """A codec whose payloads are noted, and must be read as what their `received` says."""

    def __init__(self, codec: Any, seen: list[Any]) -> None:
        self._codec, self._seen = codec, seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codec, name)

    def encode(self, update: Any, view: Any, memory: Any, units: int, rng: Any) -> Any:
        encoded = self._codec.encode(update, view, memory, units, rng)
        self._seen.append(encoded.payload)
        read = self._codec.decode(encoded.payload, view, units)
        assert set(read) == set(encoded.received) == view.trains
        assert all(read[name].tobytes() == value.tobytes() for name, value in encoded.received.items())
        return encoded


def ran(folder: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch, report: bool = False) -> RunConfig:
    """Run, and hold the records against what every run obeys."""
    build, payloads = registry.build, []

    def counting(kind: str, *args: Any) -> Any:
        built = build(kind, *args)
        return Counted(built, payloads) if kind == "codec" else built

    monkeypatch.setattr(registry, "build", counting)
    run(load_config("soft", [*TINY, *overrides]), folder, report=report)
    config = load_config(str(folder / "config.yaml"))
    rows = records(folder)
    check_records(config, rows)
    assert all(len(one.data) == -(-one.num_bits // 8) for one in payloads)
    on_the_air = sum(one.num_bits for one in payloads) * config.device.payload_scale
    assert math.isclose(sum(row["uplink_bits"] for row in rows), on_the_air, rel_tol=1e-12, abs_tol=len(rows))
    return config


def check_records(config: RunConfig, rows: list[dict[str, Any]]) -> None:
    assert [row["round"] for row in rows] == list(range(config.rounds + 1))
    clock = 0.0
    for row in rows[1:]:
        clients = row["metrics"]["clients"]
        assert row["participants"] + row["dropped"] == config.cohort.size
        assert sum(row["drop_reasons"].values()) == row["dropped"]
        assert clients["status"].count("ok") == row["participants"]
        for key in ("round_latency_s", "simulated_time_s", "energy_j", "train_loss"):
            assert row[key] is not None, key
        for key in ("round_latency_s", "energy_j", "uplink_bits", "control_bits", "downlink_bits"):
            assert row[key] >= 0, key
        assert (row["accuracy"] is None) == bool(row["round"] % config.eval.every and row["round"] != config.rounds)
        assert row["kept_fraction_mean"] is None or 0 < row["kept_fraction_mean"] <= 1
        assert row["sparsification_error"] is None or row["sparsification_error"] >= -1e-9
        assert (row["sparsification_error"] is None) == (row["participants"] == 0)
        assert all(value is not None for value in row["metrics"].values())
        assert all(0 <= kept <= 1 for kept in clients["kept_fraction"])
        assert all(value is not None for key in ("latency_s", "energy_j") for value in clients[key])
        if config.uplink.name == "fdma":
            shared = math.fsum(clients["bandwidth_hz"])
            assert shared <= config.channel.options()["bandwidth_hz"] * (1 + 1e-4)  # six digits are recorded
        clock += row["round_latency_s"]
        assert math.isclose(row["simulated_time_s"], clock, rel_tol=1e-9)
    if config.allocator.name == "tsfa" and config.rounds:
        check_queue(config.allocator.options()["latency_budget_s"], rows[1:])


def check_queue(budget_s: float, rows: list[dict[str, Any]]) -> None:
    """Z_(t+1) = max(Z_t + tau_t - budget, 0) step by step, and what follows for the mean latency.

    While a steady start is being found, a round that tells its stationary queue begins as if the run had started at
    the median of those told so far, with the overrun since; the others begin where the round before ended.
    """
    starts = [row["metrics"]["queue_s"] for row in rows]
    ends = [row["queue_s"] for row in rows]
    size = max(budget_s, *starts, *ends)
    told: list[float] = []
    overrun, begun = 0.0, starts[0]  # `begun`: what the run counts as having started at
    for number, (start, end, row) in enumerate(zip(starts, ends, rows, strict=True)):
        if "queue_start_s" in row["metrics"]:
            told.append(row["metrics"]["queue_start_s"])
            begun = float(np.median(told))
            assert math.isclose(start, max(begun + overrun, 0.0), rel_tol=1e-9, abs_tol=1e-9 * size)
        elif number:
            assert start == ends[number - 1]
        assert math.isclose(end, max(start + row["round_latency_s"] - budget_s, 0.0), rel_tol=1e-9, abs_tol=1e-9 * size)
        overrun += row["round_latency_s"] - budget_s
    assert len(told) <= WARM_UP
    mean = math.fsum(row["round_latency_s"] for row in rows) / len(rows)
    assert mean <= budget_s + (ends[-1] - begun) / len(rows) + 1e-9 * size


pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize(("method", "codec", "allocator"), FAST)
def test_plugins_work_together(tmp_path, monkeypatch, method, codec, allocator):
    ran(tmp_path / "run", [f"method.name={method}", *CODECS[codec], *ALLOCATORS[allocator]], monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "codec", "allocator"), [one for one in MATRIX if one not in FAST])
def test_all_other_plugins_work_together(tmp_path, monkeypatch, method, codec, allocator):
    ran(tmp_path / "run", [f"method.name={method}", *CODECS[codec], *ALLOCATORS[allocator]], monkeypatch)


@pytest.mark.parametrize("case", ODD)
def test_odd_but_legal_settings(tmp_path, monkeypatch, case):
    ran(tmp_path / "run", ODD[case], monkeypatch)


def test_training_that_diverges_says_so(tmp_path, monkeypatch):
    """The energies of such updates have no float32, so no codec could report its curve."""
    with pytest.raises(RaysoftError, match=r"round 1: no client's update is finite; training diverged"):
        ran(tmp_path / "run", ["train.weight_decay=1e30", "rounds=1"], monkeypatch)


@pytest.mark.parametrize("overrides", [EVERYBODY_OUT, ["rounds=0"], ["data.clients=1", "cohort.size=1"]])
def test_odd_runs_have_a_report_without_a_warning(tmp_path, monkeypatch, overrides):
    ran(tmp_path / "run", overrides, monkeypatch, report=True)
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000


def test_a_report_of_the_largest_energies(tmp_path, monkeypatch):
    """The closing table and the radio table multiply what the records hold: still finite at the ends of all ranges."""
    ran(tmp_path / "run", ODD["largest energies"], monkeypatch, report=True)
    assert json.dumps(summary(tmp_path / "run"), allow_nan=False)


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.lora.rank={low: 2, high: 8}", "train.steps={low: 1, high: 3}", "codec.error_feedback=true"],
        [*CODECS["chain"], "codec.error_feedback=true", "model.lora.train_head=true", "codec.head_bits=8"],
        [*CODECS["randomk unbiased"], "channel={name: umi}", "channel.csi_error=0.3", "uplink.packet_error=snr"],
        ["allocator.name=random", "data.partition=virtual", "data.clients=1000000", "train.optimizer=adamw"],
    ],
)
def test_odd_runs_repeat_and_do_not_depend_on_the_pack_size(tmp_path, monkeypatch, overrides):
    folders = {name: tmp_path / name for name in ("one", "two", "packed")}
    for name, folder in folders.items():
        with monkeypatch.context() as patch:
            ran(folder, [*overrides, *(["actors.pack_size=4"] if name == "packed" else [])], patch)
    assert records(folders["one"]) == records(folders["two"])
    assert summary(folders["one"])["adapter_sha256"] == summary(folders["two"])["adapter_sha256"]
    for one, packed in zip(records(folders["one"])[1:], records(folders["packed"])[1:], strict=True):
        assert one["metrics"]["clients"]["id"] == packed["metrics"]["clients"]["id"]
        assert math.isclose(one["train_loss"], packed["train_loss"], rel_tol=1e-4)
