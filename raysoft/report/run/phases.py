"""Where a round's seconds, joules and bits go: from a run's records and configuration, tested without drawing.

A client's round is downlink, training, control (signalling) and upload, then waiting for the slowest. What the uplink
charges is in the records; what follows from keys (the clock rate of a client) is computed again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from raysoft.config import DeviceConfig, parse_section
from raysoft.errors import RaysoftError
from raysoft.report.run.data import OUTAGE, after_base, client_rounds
from raysoft.rng import Rng
from raysoft.rundir.reading import Run
from raysoft.types import Array
from raysoft.units import dbm_to_watt
from raysoft.wireless.link import Devices

PHASES = ("downlink", "training", "control", "upload", "waiting")


@dataclass(frozen=True)
class ClientPhases:
    """Every client-round whose training time is known, N of them: seconds of each phase, which add up to the round."""

    round_N: Array
    id_N: Array
    status_N: Array
    seconds_N5: Array  # in the order of PHASES
    energy_j_N: Array
    compute_s_N: Array  # of the training, as charged: also where a deadline cut it off


def client_phases(run: Run) -> ClientPhases | None:
    """What the clients of a run did in its rounds; None where the records do not tell (older runs)."""
    rounds = client_rounds(run)
    if rounds is None:
        return None
    ok = np.isfinite(rounds.compute_s_N) & np.isfinite(rounds.latency_s_N)
    if not ok.any():
        return None
    round_N, latency_N = rounds.round_N[ok], rounds.latency_s_N[ok]
    down_N = np.minimum(np.nan_to_num(rounds.downlink_s_N[ok]), latency_N)
    train_N = np.minimum(rounds.compute_s_N[ok], latency_N - down_N)
    rest_N = latency_N - down_N - train_N
    rest_N = np.where(rest_N < 1e-5 * latency_N, 0.0, rest_N)  # six digits are kept
    control_N = np.minimum(np.nan_to_num(rounds.control_bits_N[ok]) / _control_rate_bps(run), rest_N)
    upload_N = np.where(rounds.status_N[ok] == OUTAGE, 0.0, rest_N - control_N)
    spent_N = down_N + train_N + control_N + upload_N
    lasted = dict(zip(run.column("round").astype(int).tolist(), run.column("round_latency_s").tolist(), strict=True))
    whole_N = np.array([lasted[number] for number in round_N.tolist()])
    wait_N = np.maximum(whole_N - spent_N, 0.0)
    wait_N = np.where(wait_N < 1e-5 * whole_N, 0.0, wait_N)
    seconds_N5 = np.stack([down_N, train_N, control_N, upload_N, wait_N], axis=1)
    return ClientPhases(
        round_N, rounds.id_N[ok], rounds.status_N[ok], seconds_N5, rounds.energy_j_N[ok], rounds.compute_s_N[ok]
    )


def typical_round(phases: ClientPhases) -> int:
    """The round whose length is the median of all (the earlier one where two are)."""
    numbers, first = np.unique(phases.round_N, return_index=True)
    length = phases.seconds_N5.sum(axis=1)[first]
    order = np.lexsort((numbers, length))
    return int(numbers[order[(len(order) - 1) // 2]])


def seconds_split(run: Run) -> dict[str, float]:
    """Seconds of an average client in an average round, by phase; they add up to its length. {} where not known."""
    phases = client_phases(run)
    if phases is None:
        return {}
    return dict(zip(PHASES, phases.seconds_N5.mean(axis=0).tolist(), strict=True))


def joules_split(run: Run) -> dict[str, float]:
    """Joules of all devices over the run by cause; {} where not known.

    Training costs kappa f^2 per cycle, the rest went into the antenna, while control and upload took their time. The
    records show some clients of a large round only; the sums are scaled to what the rounds say of all.
    """
    phases, device = client_phases(run), _device(run)
    if phases is None or device is None or not np.isfinite(phases.energy_j_N).any():
        return {}
    cpu_hz_N = Devices(device, Rng(_seed(run))).cpu_hz(phases.id_N)
    trained_N = device.kappa * cpu_hz_N**3 * phases.compute_s_N
    total_N = np.nan_to_num(phases.energy_j_N)
    trained_N = np.minimum(trained_N, total_N)
    control_N = np.minimum(dbm_to_watt(device.tx_power_dbm) * phases.seconds_N5[:, 2], total_N - trained_N)
    upload_N = total_N - trained_N - control_N
    found = np.array([trained_N.sum(), control_N.sum(), upload_N.sum()])
    whole = float(np.nansum(run.column("energy_j")[after_base(run)]))
    scale = whole / found.sum() if found.sum() > 0 else 1.0
    return dict(zip(PHASES[1:4], (scale * found).tolist(), strict=True))


def bits_split(run: Run) -> dict[str, float]:
    """Bits on the air over the run: downlink, control, upload."""
    keep = after_base(run)
    names = {"downlink": "downlink_bits", "control": "control_bits", "upload": "uplink_bits"}
    found = {name: float(np.nansum(run.column(key)[keep])) for name, key in names.items()}
    return found if any(found.values()) else {}


def section(run: Run, name: str) -> Mapping[str, Any]:
    """A section of the run's configuration, as it was written."""
    found = run.config.get(name)
    return found if isinstance(found, Mapping) else {}


def _control_rate_bps(run: Run) -> float:
    rate = section(run, "channel").get("control_rate_bps", 1e6)
    return float(rate) if isinstance(rate, (int, float)) and rate > 0 else 1e6


def _device(run: Run) -> DeviceConfig | None:
    try:
        return parse_section(DeviceConfig, dict(section(run, "device")))
    except RaysoftError:
        return None


def _seed(run: Run) -> int:
    seed = run.config.get("seed", 0)
    return seed if isinstance(seed, int) else 0
