"""Measured channels: gains, SNRs or rates over time, from a CSV or Parquet file (columns: see measured.py).

Source: this project's.

What was measured becomes a power gain g by the link's own constants (link.py), so that the simulated link shows what
was measured: with P = `measured_power_dbm` and B = `measured_bandwidth_hz` (null: `bandwidth_hz`)

    gain      g = value                  gain_db   g = 10^(value/10)
    snr_db    g = N0 B 10^(value/10) / P           N0 with noise figure and interference margin
    rate_bps  g = Gamma N0 B (2^(value/B) - 1) / P

A gain holds for a whole round, as all channels' do.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from raysoft.config import NonNegative, Positive, RunConfig, Traits, UserFile
from raysoft.errors import ConfigError
from raysoft.rng import Rng
from raysoft.types import Array, ChannelState
from raysoft.units import dbm_to_watt
from raysoft.wireless import measured
from raysoft.wireless.base import ChannelConfig, Decibel
from raysoft.wireless.fading import complex_normal, power
from raysoft.wireless.link import Link
from raysoft.wireless.measured import FIELD, Measured, Series

log = logging.getLogger("raysoft")
HIGHEST_GAIN_DB = 30.0  # beyond, somebody has written down a path loss
HIGHEST_GAIN = 10 ** (HIGHEST_GAIN_DB / 10)
LEAST_DB = 1e-3  # a table all of whose decibels are nearer to 0 than this holds no decibels
GAP = 10.0  # median spacings: what is longer is a hole, unless max_gap says otherwise
SLACK = 1e-9  # of a trace's length: a sample's own time counts as that, however it was rounded
MEAN = "mean"  # of the bands


class Config(ChannelConfig):
    """Options of `trace`; those of the geometry, path loss and fading have no part in it.

    Round n reads the file's round n, or the second (n - 1) `seconds_per_round` after its first one. The FDMA uplink
    knows one gain over its whole band, so of several measured bands one is named, or the mean of their power gains is
    taken.
    """

    TRAITS: ClassVar[Traits] = Traits(dated=True)

    file: UserFile
    """CSV or Parquet file with the columns client, time or round, value, and band where there are several."""
    quantity: Literal["gain", "gain_db", "snr_db", "rate_bps"]
    """What the column value holds: a power gain (or in dB), an SNR in dB, a rate in bit/s."""
    measured_power_dbm: Decibel | None = None
    """Transmit power of the measurement; for SNRs and rates. [dBm]"""
    measured_bandwidth_hz: Annotated[float, Field(ge=1, le=1e12)] | None = None
    """Bandwidth of the measurement; null: that of the simulated band. [Hz]"""
    seconds_per_round: Positive | None = None
    """How far a round goes on in a trace by time. [s]"""
    interpolation: Literal["hold", "linear"] = "hold"
    """What lies between two samples: the earlier one, or a straight line in the file's unit."""
    at_end: Literal["error", "hold", "loop"] = "error"
    """Refuse a run that outlasts the trace, hold the last sample, or begin again one median spacing after it."""
    clients: Literal["repeat", "draw"] = "repeat"
    """Simulated client k is measured client k mod M, or one drawn, with an offset into its trace, keyed by k."""
    band: Annotated[str, Field(min_length=1)] | None = None
    """Which of several measured bands; mean: the mean of their power gains."""
    max_gap: NonNegative | None = None
    """Longest hole between two samples, in seconds or rounds as the file; null: 10 times the median spacing. [s]"""

    @model_validator(mode="after")
    def _belongs_together(self) -> Config:
        of_power = self.quantity in ("snr_db", "rate_bps")
        if of_power and self.measured_power_dbm is None:
            raise ValueError(f"measured_power_dbm: is required with quantity={self.quantity}, e.g. 20")
        if not of_power and (self.measured_power_dbm is not None or self.measured_bandwidth_hz is not None):
            raise ValueError(f"measured_power_dbm and measured_bandwidth_hz have no part in quantity={self.quantity}")
        if self.clients == "draw" and self.at_end != "loop":
            raise ValueError(f"clients=draw begins anywhere in a trace, which needs at_end=loop, got {self.at_end}")
        return self

    def check_files(self, run: RunConfig) -> None:
        """The whole trace, and that it is long enough. Raises ConfigError."""
        trace = Trace(self, measured.read(self.file.path))
        if late := trace.late_by_hold():
            log.warning(f"{trace.table.name}: {late}")
        if self.at_end != "error":
            return
        for series in trace.series:
            first, last = trace.position(1), trace.position(run.rounds)
            low, high = series.position_N[[0, -1]]
            end = high + (series.spacing if self.interpolation == "hold" else 0.0)
            slack = SLACK * series.period
            if first < low - slack or (last > high + slack and not last < end - slack):
                ends = "channel.at_end=loop or hold, or fewer rounds"
                remedy = "let it begin there, or channel.at_end=hold" if first < low - slack else ends
                has = " to ".join(map(trace.table.shown, (low, high)))
                reads = " to ".join(map(trace.table.shown, (first, last)))
                raise ConfigError(
                    FIELD,
                    f"{trace.table.name}: client {series.client} was measured from {trace.table.by} {has}, a run of "
                    f"{run.rounds} rounds reads {reads}; {remedy}",
                )

    def describe(self) -> list[tuple[str, str]]:
        """Rows for the report."""
        trace = Trace(self, measured.read(self.file.path))
        table, counts = trace.table, [len(series.position_N) for series in trace.series]
        gains = np.concatenate([trace.gain(series, series.value_NB) for series in trace.series])
        heard = gains[gains > 0]
        low, middle, high = 10 * np.log10(np.quantile(heard, [0, 0.5, 1])) if heard.size else (-np.inf,) * 3
        every = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
        what = {"gain": "power gain", "gain_db": "power gain in dB", "snr_db": "SNR in dB", "rate_bps": "rate in bit/s"}
        level, width = self.measured_power_dbm, self.measured_bandwidth_hz or self.bandwidth_hz
        at = "" if level is None else f", at {level:g} dBm in {width:g} Hz"
        bands = [] if table.bands == ("",) else [("Bands", f"{self.band} of {', '.join(table.bands)}")]
        going = {"error": "the run ends before it", "hold": "the last sample holds", "loop": "it begins again"}
        late = trace.late_by_hold()
        clients = {"repeat": "client k is measured client k mod M", "draw": "drawn with an offset, keyed by client"}
        csi = "perfect" if self.csi_error == 0 else f"error {self.csi_error:g} of the power"
        return [
            ("Measured", f"{table.name}: {len(counts)} clients with {every} samples each, by {table.by}"),
            ("Quantity", what[self.quantity] + at),
            *bands,
            ("Power gains, lowest, median, highest", f"{low:.1f}, {middle:.1f}, {high:.1f} dB"),
            ("Time of a round", "one round of the trace" if table.by == "round" else f"{self.seconds_per_round:g} s"),
            ("Between samples, at the end", f"{self.interpolation}; {going[self.at_end]}"),
            *([("Before their begin", late)] if late else []),
            ("Simulated clients", clients[self.clients]),
            ("Geometry, path loss, shadowing, fading", "as measured"),
            ("Server's knowledge of the channel", csi),
        ]


class Trace:
    """A checked table as power gains over rounds. Raises ConfigError naming the file's line, or the option."""

    def __init__(self, config: Config, table: Measured) -> None:
        self.config, self.table, self.link = config, table, Link.from_config(config)
        self._check_options()
        chosen = [0] if len(table.bands) == 1 else list(range(len(table.bands)))
        if config.band is not None and config.band != MEAN:
            chosen = [table.bands.index(config.band)]
        self.series = tuple(
            Series(one.client, one.position_N, one.value_NB[:, chosen], one.line_NB[:, chosen]) for one in table.series
        )
        for series in self.series:
            self._check_gaps(series)
            self._check_values(series)
        self._check_unit()
        self._check_starts()

    def _check_options(self) -> None:
        config, table = self.config, self.table
        if table.by == "time" and config.seconds_per_round is None:
            raise ConfigError(
                "channel.seconds_per_round",
                f"is required: {table.name} goes by time; how much of it is a round, e.g. 0.5?",
            )
        if table.by == "round" and config.seconds_per_round is not None:
            raise ConfigError(
                "channel.seconds_per_round", f"has no part in {table.name}, which goes by round; leave it out"
            )
        names = table.bands if table.bands != ("",) else ()
        if config.band is None and len(names) > 1:
            raise ConfigError(
                "channel.band",
                f"is required: {table.name} has bands {', '.join(names)[:80]}, and the uplink knows one gain over its "
                "whole band; name one of them, or mean (of their power gains)",
            )
        if config.band is not None and config.band not in (*names, *([MEAN] if names else [])):
            valid = f"use one of {', '.join(names)[:80]}, or mean" if names else "it has no column band; leave it out"
            raise ConfigError("channel.band", f"{config.band!r:.40} is not in {table.name}: {valid}")

    def _check_gaps(self, series: Series) -> None:
        most = GAP * series.spacing if self.config.max_gap is None else self.config.max_gap
        steps = np.diff(series.position_N)
        if (holes := np.flatnonzero(steps > most * (1 + 1e-9))).size:
            at = int(holes[0])
            before, after = (self.table.shown(one) for one in series.position_N[at : at + 2])
            raise self.table.refuse(
                int(series.line_NB[at + 1, 0]),
                f"a gap: client {series.client} has nothing between {self.table.by} {before} and "
                f"{after}; fill it, or bridge it with channel.max_gap={steps[at]:g}",
            )

    def _check_values(self, series: Series) -> None:
        config, value_NB = self.config, series.value_NB
        largest_bps = self._bandwidth_hz * self.link.max_spectral_efficiency
        rules = {
            "gain": (
                (value_NB < 0) | (value_NB > HIGHEST_GAIN),
                "a linear power gain is not negative (is it in dB? quantity=gain_db)"
                if (value_NB < 0).any()
                else f"a linear power gain is at most {HIGHEST_GAIN:g}, {HIGHEST_GAIN_DB:g} dB (a path loss of 110 dB "
                "is quantity=gain_db with the value -110)",
            ),
            "gain_db": (
                np.abs(value_NB) > np.where(value_NB > 0, HIGHEST_GAIN_DB, 300.0),
                f"a power gain in dB is between -300 and {HIGHEST_GAIN_DB:g} (a path loss of 110 dB is a gain of -110)",
            ),
            "snr_db": (np.abs(value_NB) > 300, "an SNR in dB is between -300 and 300"),
            "rate_bps": (
                (value_NB < 0) | (value_NB > largest_bps * (1 + 1e-9)),
                f"a rate is between 0 and {largest_bps:g} bit/s, the most of this link in {self._bandwidth_hz:g} Hz "
                "(channel.max_spectral_efficiency, channel.measured_bandwidth_hz)",
            ),
        }
        wrong_NB, why = rules[config.quantity]
        if wrong_NB.any():
            n, b = np.argwhere(wrong_NB)[0]
            raise self.table.refuse(
                int(series.line_NB[n, b]), f"value {value_NB[n, b]:g} of client {series.client}: {why}"
            )

    def _check_unit(self) -> None:
        """Refuse a table that as a whole is in another unit, though each of its values could be."""
        value_M = np.concatenate([series.value_NB.ravel() for series in self.series])
        if self.config.quantity == "gain_db" and np.all(np.abs(value_M) < LEAST_DB):
            what = "are 0, so that nothing is lost on the way" if not value_M.any() else f"are within {LEAST_DB:g} of 0"
            likely = "are they linear gains (quantity=gain)" + ("?" if value_M.any() else ", or was nothing filled in?")
            raise ConfigError(FIELD, f"{self.table.name}: all values in dB {what}; {likely}")
        if self.config.quantity in ("gain", "gain_db") and np.all(value_M > (self.config.quantity == "gain")):
            raise ConfigError(
                FIELD,
                f"{self.table.name}: all values of quantity={self.config.quantity} are above "
                f"{'1' if self.config.quantity == 'gain' else '0 dB'}, as if more power arrived than was sent; a path "
                "loss of 110 dB is quantity=gain_db with the value -110, an SNR is quantity=snr_db",
            )

    def late_by_hold(self) -> str:
        """Which clients' first samples hold before they were measured; "" where that is none."""
        late = [series for series in self.series if self.config.at_end == "hold" and self.begins_late(series)]
        if not late:
            return ""
        last = max(late, key=lambda series: series.position_N[0])
        return (
            f"round 1 reads {self.table.by} {self.table.shown(self.position(1))}, and {len(late)} of "
            f"{len(self.series)} clients begin later, client {last.client} at "
            f"{self.table.shown(last.position_N[0])}; until then their first sample holds"
        )

    def begins_late(self, series: Series) -> bool:
        """Whether the run's first rounds come before what was measured of a client, by more than one spacing."""
        return bool(series.position_N[0] > self.position(1) + series.spacing * (1 + SLACK))

    def _check_starts(self) -> None:
        """Where a looped trace stands before it begins, nobody can say (one drawn with an offset begins anywhere)."""
        late = [series for series in self.series if self.begins_late(series)]
        if not late or self.config.at_end != "loop" or self.config.clients == "draw":
            return
        table, first = self.table, late[0].position_N[0]
        raise ConfigError(
            FIELD,
            f"{table.name}: client {late[0].client} begins at {table.by} {table.shown(first)}, round 1 reads "
            f"{table.shown(self.position(1))}, and at_end=loop does not say what comes before; let every client's "
            f"{table.by}s begin there, or set channel.at_end=hold, by which the first sample holds until it begins",
        )

    @property
    def _bandwidth_hz(self) -> float:
        return self.config.measured_bandwidth_hz or self.config.bandwidth_hz

    def position(self, block: float) -> float:
        """Where round `block` reads: the file's round, or seconds after its first one."""
        step = self.config.seconds_per_round
        return float(block) if step is None else float((block - 1) * step)

    def gain(self, series: Series, value_NB: Array) -> Array:
        """Power gains [N] of values [N, bands] in the file's unit: their mean over the bands."""
        quantity, value = self.config.quantity, np.asarray(value_NB, dtype=float)
        if quantity == "gain":
            gain_NB = value
        elif quantity == "gain_db":
            gain_NB = 10.0 ** (value / 10)
        else:
            hz, watt = self._bandwidth_hz, dbm_to_watt(self.config.measured_power_dbm or 0.0)
            noise = self.link.noise_w_per_hz * hz / watt
            ratio = (
                10.0 ** (value / 10) if quantity == "snr_db" else self.link.snr_gap * np.expm1(value / hz * np.log(2))
            )
            gain_NB = noise * ratio
        mean_N: Array = gain_NB.mean(axis=1)
        return mean_N

    def at(self, series: Series, position: float) -> float:
        """The power gain where the file stands at `position`, before its begin as at its begin."""
        x_N, loops = series.position_N, self.config.at_end == "loop"
        slack = SLACK * series.period
        if loops:
            into = (position - x_N[0]) % series.period
            position = x_N[0] + (into if into < series.period - slack else 0.0)
        n = max(int(np.searchsorted(x_N, position + slack, side="right")) - 1, 0)
        value_B = series.value_NB[n]
        last = n == len(x_N) - 1
        if self.config.interpolation == "linear" and position > x_N[n] and (loops or not last):
            after, end = (series.value_NB[0], x_N[0] + series.period) if last else (series.value_NB[n + 1], x_N[n + 1])
            share = (position - x_N[n]) / (end - x_N[n])
            value_B = (1 - share) * value_B + share * after
        return float(self.gain(series, value_B[None])[0])


@dataclass(frozen=True)
class TraceChannel:
    """Gains as they were measured."""

    config: Config
    rng: Rng
    trace: Trace

    def state(self, clients_K: Array, block: int) -> ChannelState:
        """Gains of a block; past the end of a trace that does not loop, the last sample."""
        clients_K = np.asarray(clients_K, dtype=np.int64)
        gain_K = np.array([self._gain(client, block) for client in clients_K.tolist()], dtype=float)
        if self.config.csi_error == 0:
            return ChannelState(gain_K, gain_K)
        error = self.config.csi_error  # as of a fading of one: see fading.channel_state
        w_K = complex_normal(self.rng, "channel.csi", clients_K, block)
        return ChannelState(gain_K, gain_K * power(np.sqrt(1 - error) + np.sqrt(error) * w_K))

    def _gain(self, client: int, block: int) -> float:
        series = self.trace.series
        if self.config.clients == "repeat":
            return self.trace.at(series[client % len(series)], self.trace.position(block))
        u_2 = self.rng.uniform("channel.trace", client, size=2)[0]
        own = series[int(u_2[0] * len(series))]
        offset = u_2[1] * own.period
        if self.trace.table.by == "round":
            offset = np.floor(offset)
        return self.trace.at(own, self.trace.position(block) + offset)


def build(config: Config, rng: Rng) -> TraceChannel:
    """The channel. Raises ConfigError where the file is not what it should be."""
    return TraceChannel(config, rng, Trace(config, measured.read(config.file.path)))
