"""The radio table: every constant of the simulated link and what follows from it in closed form, for people."""

from __future__ import annotations

import math

from raysoft.config import DeviceConfig, Range
from raysoft.quantities import percent
from raysoft.units import db_to_linear, dbm_to_watt, linear_to_db
from raysoft.wireless import rayleigh, rician, static, uma, umi
from raysoft.wireless.base import ChannelConfig
from raysoft.wireless.link import Link
from raysoft.wireless.propagation import MacroConfig, macro_path_loss_db
from raysoft.wireless.tr38901 import UMA, UMI, CellularConfig, breakpoint_m, los_probability, path_loss_db

Rows = list[tuple[str, str]]
_OF_THE_LINK = frozenset(
    {
        "bandwidth_hz",
        "noise_dbm_per_hz",
        "noise_figure_db",
        "max_spectral_efficiency",
        "snr_gap_db",
        "interference_margin_db",
        "control_rate_bps",
    }
)
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))


def radio_table(channel: ChannelConfig, device: DeviceConfig, name: str = "") -> Rows:
    """Names and values (with units) of the link, the cell and the devices.

    Edge figures use the whole band and the median shadowing; the median over fading is separate. What a channel of
    another package called `name` makes of distances, path loss and fading only itself knows: it describes itself, or
    its options are listed.
    """
    about = [*_cell_rows(channel), *_fading_rows(channel)] if is_built_in(channel) else _own_rows(channel, name)
    return [*about, *_link_rows(channel, device), *_device_rows(device)]


def is_built_in(channel: ChannelConfig) -> bool:
    """Whether this file knows what the channel does with its options (a subclass may do something else)."""
    return type(channel) in (static.Config, rayleigh.Config, rician.Config, umi.Config, uma.Config)


def _own_rows(channel: ChannelConfig, name: str) -> Rows:
    """The channel's own description, else its options but for those of the link, which stand in rows of their own."""
    rows: Rows = [("Channel", name or type(channel).__module__)]
    describe = getattr(channel, "describe", None)
    if describe is None:
        own = {key: value for key, value in channel.model_dump(mode="json").items() if key not in _OF_THE_LINK}
        return rows + [(f"channel.{key}", "none" if value is None else str(value)) for key, value in own.items()]
    try:
        return rows + [(str(what), str(value)) for what, value in describe()]
    except Exception as error:  # somebody else's code must not cost the report of a run
        return [*rows, ("Its description", f"failed: {type(error).__name__}: {error}")]


def _cell_rows(channel: ChannelConfig) -> Rows:
    inner, outer = channel.min_distance_m, channel.cell_radius_m
    rows = [
        ("Distance, uniform over the area", f"{inner:g} to {outer:g} m (median {_median_distance_m(channel):.0f} m)"),
        *((f"Path loss at the cell edge{case}", f"{loss:.1f} dB") for case, loss in _edge_losses_db(channel)),
        ("Shadowing, standard deviation", _shadowing(channel)),
    ]
    if channel.shadowing_decorrelation_m is not None:
        rows.append(("Shadowing, decorrelation distance", f"{channel.shadowing_decorrelation_m:g} m"))
    if isinstance(channel, MacroConfig):
        slope = 10 * channel.path_loss_exponent
        rows.insert(1, ("Path loss", f"{channel.path_loss_at_1km_db:g} + {slope:g} log10(d/km) dB"))
    if isinstance(channel, CellularConfig):
        rows[1:1] = [
            ("Carrier", _si(channel.carrier_hz, "Hz")),
            ("Antenna heights, server and terminal", f"{channel.bs_height_m:g} m, {channel.ut_height_m:g} m"),
            ("Break point", f"{breakpoint_m(channel):.0f} m"),
            ("Line of sight at the cell edge", percent(_edge_los(channel))),
        ]
    return rows


def _fading_rows(channel: ChannelConfig) -> Rows:
    time = channel.correlation_time_rounds
    memory = "a fresh draw every round" if time is None else f"J0, one half after {time:g} rounds"
    rows = [] if isinstance(channel, static.Config) else [("Fading over rounds", memory)]
    if isinstance(channel, static.Config):
        rows = [("Fading", "none")]
    elif isinstance(channel, rayleigh.Config):
        rows.insert(0, ("Fading", "Rayleigh"))
    elif isinstance(channel, rician.Config):
        rows.insert(0, ("Fading", f"Rician, K = {channel.k_factor_db:g} dB"))
    elif isinstance(channel, CellularConfig):
        spread = f"{channel.k_factor_db:g} ± {channel.k_factor_std_db:g} dB"
        rows.insert(0, ("Fading", f"Rician with K = {spread} in line of sight, else Rayleigh"))
    csi = "perfect" if channel.csi_error == 0 else f"error {channel.csi_error:g} of the fading's power"
    return [*rows, ("Server's knowledge of the channel", csi)]


def _link_rows(channel: ChannelConfig, device: DeviceConfig) -> Rows:
    link = Link.from_config(channel)
    noise_w = link.noise_w_per_hz * link.bandwidth_hz
    noise_parts = f"{channel.noise_dbm_per_hz:g} dBm/Hz, noise figure {channel.noise_figure_db:g} dB"
    rows = [
        ("Band shared by the senders", _si(link.bandwidth_hz, "Hz")),
        ("Noise", f"{noise_parts}, interference margin {channel.interference_margin_db:g} dB"),
        ("Noise in the whole band", f"{_dbm(noise_w):.1f} dBm"),
        ("Transmit power", f"{device.tx_power_dbm:g} dBm ({_si(dbm_to_watt(device.tx_power_dbm), 'W')})"),
        (
            "Gap to capacity, largest efficiency",
            f"{channel.snr_gap_db:g} dB, {link.max_spectral_efficiency:g} bit/s/Hz",
        ),
    ]
    for case, loss_db in _edge_losses_db(channel):
        snr_hz = float(link.snr_hz(db_to_linear(-loss_db), dbm_to_watt(device.tx_power_dbm)))
        snr_db = linear_to_db(snr_hz * link.snr_gap / link.bandwidth_hz)
        rows.append((f"SNR at the cell edge{case}, without fading", f"{snr_db:.1f} dB"))
        fading = _median_fading(channel, case)
        if fading is not None:
            rows.append((f"Median SNR at the cell edge{case}", f"{snr_db + linear_to_db(fading):.1f} dB"))
        rate_bps = float(link.rate_bps(link.bandwidth_hz, snr_hz))
        limit = _si(snr_hz / math.log(2), "bit/s")
        rows.append((f"Rate at the cell edge{case}", f"{_si(rate_bps, 'bit/s')} ({limit} in an endless band)"))
    rows.append(("Largest rate", _si(link.bandwidth_hz * link.max_spectral_efficiency, "bit/s")))
    rows.append(("Control rate", _si(link.control_rate_bps, "bit/s")))
    return rows


def _device_rows(device: DeviceConfig) -> Rows:
    cpu = device.cpu_hz
    clocks = (cpu.low, cpu.high) if isinstance(cpu, Range) else (cpu, cpu)
    energies = [device.kappa * clock**2 * device.cycles_per_sample * device.compute_scale for clock in clocks]
    times = [device.cycles_per_sample * device.compute_scale / clock for clock in reversed(clocks)]
    return [
        ("Processor clock", _span(clocks, "Hz")),
        ("Computing per sample", f"{_span(times, 's')}, {_span(energies, 'J')}"),
        ("Payload scale, compute scale", f"{device.payload_scale:g}, {device.compute_scale:g}"),
    ]


def _edge_losses_db(channel: ChannelConfig) -> list[tuple[str, float]]:
    """(case, path loss at the cell radius); none for a model this file does not know."""
    if not is_built_in(channel):
        return []
    edge = channel.cell_radius_m
    if isinstance(channel, MacroConfig):
        return [("", float(macro_path_loss_db(channel, edge)))]
    if isinstance(channel, umi.Config | uma.Config):
        scenario = UMI if isinstance(channel, umi.Config) else UMA
        cases = ((" in line of sight", True), (" without line of sight", False))
        skipped = {"always": False, "never": True}.get(channel.line_of_sight)
        return [(name, float(path_loss_db(scenario, channel, edge, los))) for name, los in cases if los != skipped]
    return []


def _edge_los(channel: CellularConfig) -> float:
    if channel.line_of_sight != "random":
        return float(channel.line_of_sight == "always")
    return float(los_probability(UMI if isinstance(channel, umi.Config) else UMA, channel.cell_radius_m))


def _median_fading(channel: ChannelConfig, case: str) -> float | None:
    """Median of |h|^2: ln 2 (Rayleigh), noncentral chi-square (Rician); None without fading or without closed form."""
    if isinstance(channel, rayleigh.Config) or (isinstance(channel, CellularConfig) and case.startswith(" without")):
        return math.log(2)
    if isinstance(channel, rician.Config):
        from scipy.special import chndtrix  # scipy takes a moment to load

        k_factor = min(db_to_linear(channel.k_factor_db), 1e4)  # beyond, the median is 1 to four digits
        return float(chndtrix(0.5, 2, 2 * k_factor)) / (2 * (1 + k_factor))
    return None


def _median_distance_m(channel: ChannelConfig) -> float:
    return math.sqrt((channel.min_distance_m**2 + channel.cell_radius_m**2) / 2)


def _shadowing(channel: ChannelConfig) -> str:
    if isinstance(channel, CellularConfig):
        return f"{channel.los_shadowing_db:g} dB in line of sight, else {channel.shadowing_db:g} dB"
    return f"{channel.shadowing_db:g} dB"


def _dbm(power_w: float) -> float:
    return linear_to_db(power_w * 1e3)


def _si(value: float, unit: str) -> str:
    """Three digits with a prefix, e.g. 1.5 Mbit/s."""
    for factor, prefix in _PREFIXES:
        if abs(value) >= factor * 0.9995:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def _span(values: tuple[float, ...] | list[float], unit: str) -> str:
    low, high = _si(values[0], unit), _si(values[-1], unit)
    return low if low == high else f"{low} to {high}"
