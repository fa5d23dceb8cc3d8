"""Figures of the air: how good the links were, and where the clients stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator

from raysoft.config import DeviceConfig, Plugin, parse_section, registry
from raysoft.errors import RaysoftError
from raysoft.report import style
from raysoft.report.chart import Chart, line, note
from raysoft.report.run.clients import tables
from raysoft.report.run.data import client_rounds
from raysoft.report.run.phases import section
from raysoft.report.style import Look, plain
from raysoft.rng import Rng
from raysoft.rundir.reading import Run
from raysoft.types import Array
from raysoft.units import dbm_to_watt
from raysoft.wireless.base import ChannelConfig
from raysoft.wireless.link import Link
from raysoft.wireless.propagation import positions

OFTEN = 0.5  # share of its rounds from which a client counts as often held back


@dataclass(frozen=True)
class Standing:
    """Where C clients stand [m], the antenna at 0, their mean gain [dB] and the share of rounds without permission."""

    id_C: Array
    x_m_C: Array
    y_m_C: Array
    gain_db_C: Array
    outage_C: Array
    radius_m: float
    inner_m: float


def snrs_db(run: Run) -> tuple[Array, Array] | None:
    """Receive SNR [dB] of every client-round that sent: over its own share of the band, and over the whole band.

    None where no client was given bandwidth, or the channel is of a kind that is not installed.
    """
    rounds, config = client_rounds(run), _channel(run)
    if rounds is None or config is None:
        return None
    ok = rounds.served_N & np.isfinite(rounds.gain_db_N) & (np.nan_to_num(rounds.bandwidth_hz_N) > 0)
    if not ok.any():
        return None
    link = Link.from_config(config)
    try:
        power_w = dbm_to_watt(parse_section(DeviceConfig, dict(section(run, "device"))).tx_power_dbm)
    except RaysoftError:
        return None
    received_w_N = power_w * 10.0 ** (rounds.gain_db_N[ok] / 10)
    share_N = 10 * np.log10(received_w_N / (link.noise_w_per_hz * rounds.bandwidth_hz_N[ok]))
    return share_N, 10 * np.log10(received_w_N / (link.noise_w_per_hz * link.bandwidth_hz))


def snr(runs: Sequence[Run]) -> Chart | None:
    """Cumulative distribution of the SNR; where a rate stops growing with it, is marked."""
    found = [(number, run, pair) for number, run in enumerate(runs) if (pair := snrs_db(run)) is not None]
    if not found:
        return None
    names = [run.name for _, run, _ in found] if len(runs) > 1 else ["own share of the band", "whole band"]
    figure, (ax,) = style.new_figure(2.3 + style.legend_height(names))
    ax.set(xlabel="Receive SNR (dB)", ylabel="Uploads below (%)")
    for number, run, (share_N, whole_N) in found:
        for place, values in enumerate((share_N,) if len(runs) > 1 else (share_N, whole_N)):
            name = run.name if len(runs) > 1 else names[place]
            look = Look.of(number if len(runs) > 1 else place, len(runs))
            x = np.sort(values)
            y = 100 * np.arange(1, len(x) + 1) / len(x)
            drawn = {"drawstyle": "steps-post", "color": look.colour, "linestyle": look.line, "label": plain(name)}
            line(ax, name, x, y, **drawn)
    config = _channel(found[0][1])
    if config is not None and len(runs) == 1:
        top_db = config.snr_gap_db + 10 * np.log10(2.0**config.max_spectral_efficiency - 1)
        if ax.get_xlim()[0] < top_db < ax.get_xlim()[1] + 10:
            ax.axvline(top_db, color=style.GREY, linewidth=1.0, linestyle=(0, (1, 2)))
            note(ax, "largest rate from here on", [top_db], [0.0])
            words: dict[str, Any] = {
                "xycoords": ("data", "axes fraction"),
                "textcoords": "offset points",
                "rotation": 90,
            }
            ax.annotate(
                "largest rate", (top_db, 0.03), xytext=(-3, 0), ha="right", va="bottom", color=style.GREY,
                fontsize=style.SMALL_PT, **words,
            )  # fmt: skip
    ax.set_ylim(0, 102)
    ax.xaxis.set_major_locator(MaxNLocator(7))
    if len(names) > 1:
        style.legend_above(figure, ax)
    return figure


def standing(run: Run) -> Standing | None:
    """The clients that were ever invited; None where the channel has no positions, or another one's."""
    config, found = _channel(run), tables([run])
    if config is None or not found:
        return None
    table = found[0][3]
    ids = table.id_C.astype(np.int64)
    rng = Rng(run.config["seed"] if isinstance(run.config.get("seed"), int) else 0)
    try:
        state = registry.build("channel", _plugin(run), rng).state(ids, 1)
    except Exception:  # a plug-in's own code
        return None
    where = positions(config, rng, ids)
    told = state.parts.get("distance_m")
    if told is None or not np.array_equal(told, where.distance_m_K):
        return None
    outage = table.outage_C / np.maximum(table.invited_C, 1)
    inside = (config.cell_radius_m, config.min_distance_m)
    return Standing(ids, where.x_m_K, where.y_m_K, table.gain_db_C, outage, *inside)


def cell(runs: Sequence[Run]) -> Chart | None:
    """The cell from above: place of each client, its mean gain as lightness, how often it was held back as marker."""
    here = standing(runs[0]) if len(runs) == 1 else None
    if here is None or not np.isfinite(here.gain_db_C).any():
        return None
    figure, (ax,) = style.new_figure(2.9, width=style.COLUMN_IN)
    ax.set(xlabel="East of the antenna (m)", ylabel="North of the antenna (m)", aspect="equal")
    for radius, dashes in ((here.radius_m, "-"), (here.inner_m, (0, (2, 2)))):
        ax.add_patch(Circle((0, 0), radius, fill=False, edgecolor=style.GREY, linewidth=0.8, linestyle=dashes))
    ax.plot(0, 0, marker="+", color=style.BLACK, markersize=8, markeredgewidth=1.4, linestyle="none")
    known = here.gain_db_C[np.isfinite(here.gain_db_C)]
    crowded = len(here.id_C) > 300
    kinds = (
        ("never held back", "o", here.outage_C == 0),
        ("at times", "^", (here.outage_C > 0) & (here.outage_C < OFTEN)),
        ("half the time or more", "X", here.outage_C >= OFTEN),
    )
    drawn = None
    handles = 0
    for label, marker, mine in kinds:
        chosen = mine & np.isfinite(here.gain_db_C)
        if not chosen.any():
            continue
        drawn = ax.scatter(
            here.x_m_C[chosen],
            here.y_m_C[chosen],
            c=here.gain_db_C[chosen],
            cmap=style.COLOUR_MAP,
            vmin=float(known.min()),
            vmax=float(known.max()),
            marker=marker,
            s=9 if crowded else 26,
            edgecolors=style.BLACK,
            linewidths=0.2 if crowded else 0.5,
            rasterized=crowded,
        )
        ax.plot([], [], marker=marker, color=style.GREY, markersize=5, linestyle="none", label=label)
        handles += 1
    assert drawn is not None
    names = [f"client {number}" for number in here.id_C.tolist()]
    note(ax, names, here.x_m_C, here.y_m_C, value_name="mean channel gain (dB)", value=here.gain_db_C)
    note(ax, names, here.x_m_C, here.y_m_C, value_name="share of its rounds held back", value=here.outage_C)
    reach = 1.04 * here.radius_m
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach))
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_locator(MaxNLocator(5))
    bar = figure.colorbar(drawn, ax=ax, pad=0.02, shrink=0.85)
    bar.set_label("Mean channel gain (dB)")
    bar.outline.set_visible(False)
    if handles > 1:
        figure.legend(loc="outside upper center", ncols=handles, handlelength=0.8, columnspacing=0.7, handletextpad=0.3)
    return figure


def describe_snr(run: Run) -> str:
    """Median and spread of the SNR on the own share."""
    found = snrs_db(run)
    if found is None:
        return "not measured."
    low, middle, high = np.quantile(found[0], (0.05, 0.5, 0.95))
    return f"median SNR {middle:.3g} dB, nine tenths between {low:.3g} and {high:.3g} dB, of {len(found[0])} uploads."


def describe_cell(run: Run) -> str:
    """Who stands where, in numbers."""
    here = standing(run)
    if here is None:
        return "no positions."
    often = int((here.outage_C >= OFTEN).sum())
    return (
        f"{len(here.id_C)} clients within {here.radius_m:g} m, mean gains from {np.nanmin(here.gain_db_C):.3g} to "
        f"{np.nanmax(here.gain_db_C):.3g} dB; {often} held back in half their rounds or more."
    )


def _channel(run: Run) -> ChannelConfig | None:
    """The channel's options; None where its kind is not installed or its options are not those of today."""
    try:
        found = registry.options("channel", _plugin(run))
    except RaysoftError:
        return None
    return found if isinstance(found, ChannelConfig) else None


def _plugin(run: Run) -> Plugin:
    return parse_section(Plugin, dict(section(run, "channel")))
