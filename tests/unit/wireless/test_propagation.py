"""Path loss, line of sight and shadowing at tabulated points; the rate of a link; the radio table."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from raysoft.config import DeviceConfig, Plugin, registry
from raysoft.errors import ConfigError, RaysoftError
from raysoft.rng import Rng
from raysoft.types import ChannelState
from raysoft.wireless import propagation, rayleigh, rician, tr38901, uma, umi
from raysoft.wireless.base import ChannelConfig, gains
from raysoft.wireless.link import Devices, Link
from raysoft.wireless.propagation import MacroConfig, Positions, macro_path_loss_db
from raysoft.wireless.table import radio_table

N = 100_000
CLIENTS = np.arange(N)
MODELS = tuple(name for name in registry.CHANNELS if name != "trace")  # which has no model: see test_trace.py


def channel(name: str, seed: int = 0, **options):
    return registry.build("channel", Plugin(name=name, **options), Rng(seed))


def dkw(n: int, risk: float = 1e-6) -> float:
    """Distance of empirical and true CDF, exceeded with probability `risk` at most (Dvoretzky-Kiefer-Wolfowitz)."""
    return math.sqrt(math.log(2 / risk) / (2 * n))


@pytest.mark.parametrize("distance_m, loss_db", [(1000, 128.1), (100, 90.5), (250, 105.462544326), (10, 52.9)])
def test_macro_path_loss_at_points(distance_m: float, loss_db: float) -> None:
    assert macro_path_loss_db(MacroConfig(), distance_m) == pytest.approx(loss_db, abs=1e-8)


@pytest.mark.parametrize(
    "scenario, options, distance_m, los, loss_db",
    [  # worked out by hand from table 7.4.1-1 of TR 38.901
        ("umi", {}, 50, True, 79.089649234),
        ("umi", {}, 50, False, 94.180676899),
        ("umi", {}, 400, True, 103.238761423),
        ("umi", {}, 400, False, 125.844827618),
        ("uma", {"carrier_hz": 2e9}, 200, True, 84.708764425),
        ("uma", {"carrier_hz": 2e9}, 200, False, 109.601212146),
        ("uma", {"carrier_hz": 2e9}, 1000, True, 108.911672790),
        ("uma", {"carrier_hz": 2e9}, 1000, False, 136.805285076),
    ],
)
def test_3gpp_path_loss_at_points(scenario, options, distance_m, los, loss_db) -> None:
    constants, config = {"umi": (tr38901.UMI, umi.Config), "uma": (tr38901.UMA, uma.Config)}[scenario]
    loss = tr38901.path_loss_db(constants, config(**options), distance_m, los)
    assert loss == pytest.approx(loss_db, abs=1e-8)


@pytest.mark.parametrize("scenario, config", [(tr38901.UMI, umi.Config()), (tr38901.UMA, uma.Config(ut_height_m=4.0))])
def test_path_loss_is_continuous_at_the_break_point_and_steeper_beyond(scenario, config) -> None:
    edge = tr38901.breakpoint_m(config)
    before, at, after = tr38901.path_loss_db(
        scenario, config, np.array([edge * (1 - 1e-9), edge, edge * (1 + 1e-9)]), True
    )
    assert before == pytest.approx(at, abs=1e-6)
    assert after == pytest.approx(at, abs=1e-6)
    far = tr38901.path_loss_db(scenario, config, np.array([10 * edge, 100 * edge]), True)
    assert far[1] - far[0] == pytest.approx(40, abs=0.01)


def test_break_point_of_the_standard_example() -> None:
    assert tr38901.breakpoint_m(umi.Config()) == pytest.approx(4 * 9 * 0.5 * 3.5e9 / 3e8)  # 210 m


@given(st.floats(10, 5000), st.floats(1.5, 13), st.floats(5e8, 1e11))
def test_a_blocked_path_never_loses_less(distance_m: float, height_m: float, carrier_hz: float) -> None:
    for scenario, kind in ((tr38901.UMI, umi.Config), (tr38901.UMA, uma.Config)):
        config = kind(ut_height_m=height_m, carrier_hz=carrier_hz)
        clear, blocked = tr38901.path_loss_db(scenario, config, np.array([distance_m] * 2), np.array([True, False]))
        assert blocked >= clear


@pytest.mark.parametrize(
    "scenario, distance_m, probability",
    [
        (tr38901.UMI, 10, 1.0),
        (tr38901.UMI, 18, 1.0),
        (tr38901.UMI, 36, 0.5 + 0.5 / math.e),
        (tr38901.UMA, 18, 1.0),
        (tr38901.UMA, 63, 18 / 63 + (45 / 63) / math.e),
    ],
)
def test_line_of_sight_probability_at_points(scenario, distance_m, probability) -> None:
    assert tr38901.los_probability(scenario, distance_m) == pytest.approx(probability, rel=1e-12)


@pytest.mark.parametrize("name, scenario", [("umi", tr38901.UMI), ("uma", tr38901.UMA)])
def test_line_of_sight_frequency(name: str, scenario) -> None:
    parts = channel(name, cell_radius_m=300.0).state(CLIENTS, 0).parts
    expected = tr38901.los_probability(scenario, parts["distance_m"])
    for low, high in ((10, 60), (60, 150), (150, 300)):
        ring = (parts["distance_m"] >= low) & (parts["distance_m"] < high)
        assert ring.sum() > 500
        deviation = math.sqrt((expected[ring] * (1 - expected[ring])).sum())
        assert abs(parts["los"][ring].sum() - expected[ring].sum()) < 5 * deviation
    assert channel(name, line_of_sight="always").state(CLIENTS[:99], 0).parts["los"].all()
    assert not channel(name, line_of_sight="never").state(CLIENTS[:99], 0).parts["los"].any()


def test_positions_are_uniform_over_the_area() -> None:
    config = MacroConfig(min_distance_m=50, cell_radius_m=200)
    where = propagation.positions(config, Rng(1), CLIENTS)
    area = (where.distance_m_K**2 - 50**2) / (200**2 - 50**2)
    assert stats.kstest(area, "uniform").statistic < dkw(N)
    angle = np.arctan2(where.y_m_K, where.x_m_K) / (2 * np.pi) % 1
    assert stats.kstest(angle, "uniform").statistic < dkw(N)
    assert np.hypot(where.x_m_K, where.y_m_K) == pytest.approx(where.distance_m_K)


@pytest.mark.parametrize(
    "name, los", [("rayleigh", None), ("umi", True), ("umi", False), ("uma", True), ("uma", False)]
)
def test_shadowing_is_lognormal_with_the_stated_spread(name: str, los: bool | None) -> None:
    model = channel(name)
    parts = model.state(CLIENTS, 0).parts
    chosen = np.full(N, True) if los is None else parts["los"] == los
    if los is None:
        loss = macro_path_loss_db(model.config, parts["distance_m"])
        spread = 8.0
    else:
        loss = tr38901.path_loss_db(model.scenario, model.config, parts["distance_m"], los)
        spread = {("umi", True): 4, ("umi", False): 7.82, ("uma", True): 4, ("uma", False): 6}[name, los]
    shadowing = (-10 * np.log10(parts["mean_gain"]) - loss)[chosen]
    assert len(shadowing) > 10_000
    assert stats.kstest(shadowing / spread, "norm").statistic < dkw(len(shadowing))
    assert shadowing.var() / spread**2 == pytest.approx(1, abs=5 * math.sqrt(2 / len(shadowing)))


def test_no_shadowing_leaves_the_distance_alone() -> None:
    parts = channel("static", shadowing_db=0.0).state(CLIENTS[:1000], 0).parts
    expected = 10 ** (-(128.1 + 37.6 * np.log10(parts["distance_m"] / 1000)) / 10)
    assert parts["mean_gain"] == pytest.approx(expected, rel=1e-12)


def test_shadowing_decorrelates_with_distance() -> None:
    config = MacroConfig(shadowing_decorrelation_m=50.0)
    x = np.array([0.0, 0.0, 25.0, 50.0, 100.0])
    where = Positions(np.abs(x), x + 7.0, np.full(5, -3.0))
    fields = 4000
    values = np.array(
        [propagation.standard_shadowing(config, Rng(seed), np.arange(5), where) for seed in range(fields)]
    )
    assert np.array_equal(values[:, 0], values[:, 1])  # two clients at one place share their shadow
    # A product of unit normals has a variance of at most 2.
    covariance = (values[:, :1] * values).mean(axis=0)
    assert np.abs(covariance - np.exp(-x / 50)).max() < 5 * math.sqrt(2 / fields)
    assert stats.kstest(values[:, 0], "norm").statistic < dkw(fields)


# ---- the link ----


def test_link_constants_in_si() -> None:
    link = Link.from_config(ChannelConfig())
    assert link.noise_w_per_hz == pytest.approx(3.9810717055e-20, rel=1e-9)  # -164 dBm/Hz
    assert link.snr_gap == pytest.approx(1.9952623150)
    # 0.1 W over 100 dB of loss: 1e-11 W / (2 * 4e-20 W/Hz)
    assert link.snr_hz(1e-10, 0.1) == pytest.approx(1e-11 / (1.9952623150 * 3.9810717055e-20), rel=1e-9)
    assert link.airtime_s(1e6, 1e6, 1e6) == pytest.approx(1.0)  # SNR 1: one bit per second and hertz
    assert link.control_s(np.array([0, 5e5])).tolist() == [0.0, 0.5]


@given(st.floats(1e2, 1e12), st.floats(1e-3, 1e9), st.floats(1e-3, 1e9))
@settings(max_examples=200)
def test_rate_is_increasing_concave_and_limited(snr_hz: float, low: float, high: float) -> None:
    link = Link.from_config(ChannelConfig())
    left, middle, right = link.rate_bps(np.array([low, (low + high) / 2, high]), snr_hz)
    assert middle >= (left + right) / 2 * (1 - 1e-12)
    assert (left <= right * (1 + 1e-12)) == (low <= high) or left == pytest.approx(right)
    assert max(left, right) <= snr_hz / math.log(2) * (1 + 1e-12)
    assert left <= low * link.max_spectral_efficiency * (1 + 1e-12)


def test_rate_cap_limits_and_zeros() -> None:
    link = Link.from_config(ChannelConfig())
    assert link.rate_bps(1e3, 1e9) == pytest.approx(7.4e3)  # 20 bit/s/Hz without the cap
    knee = 1e6 / (2**7.4 - 1)
    assert link.rate_bps(np.array([knee * 0.99, knee]), 1e6) == pytest.approx(7.4 * knee * np.array([0.99, 1.0]))
    assert link.rate_bps(2 * knee, 1e6) < 7.4 * 2 * knee * 0.95
    assert link.rate_bps(1e15, 1e6) == pytest.approx(1e6 / math.log(2), rel=1e-6)  # endless band
    assert link.rate_bps(np.array([0.0, 1e6]), np.array([1e6, 0.0])).tolist() == [0.0, 0.0]
    assert link.airtime_s(np.array([0.0, 8.0]), 0.0, 1e6).tolist() == [0.0, math.inf]


def test_devices_are_keyed_by_client() -> None:
    devices = Devices(DeviceConfig(compute_scale=2.0), Rng(0))
    clock = devices.cpu_hz(CLIENTS)
    assert stats.kstest((clock - 5e8) / 1.5e9, "uniform").statistic < dkw(N)
    assert np.array_equal(devices.cpu_hz(CLIENTS[500:503]), clock[500:503])
    cycles = np.full(N, 3e9)
    assert devices.compute_s(cycles, CLIENTS) == pytest.approx(6e9 / clock)
    assert devices.compute_j(cycles, CLIENTS) == pytest.approx(1e-28 * clock**2 * 6e9)
    assert devices.power_w(CLIENTS[:2]).tolist() == pytest.approx([0.1, 0.1])  # 20 dBm
    same = Devices(DeviceConfig(cpu_hz=1e9), Rng(0))
    assert same.cpu_hz(CLIENTS[:3]).tolist() == [1e9] * 3


# ---- configuration and the table ----


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("rayleigh", {"min_distance_m": 250.0}, "channel: min_distance_m"),
        ("rayleigh", {"csi_error": 1.0}, "channel.csi_error"),
        ("rayleigh", {"correlation_time_rounds": 0.0}, "channel.correlation_time_rounds"),
        ("rayleigh", {"shadowing_db": -1.0}, "channel.shadowing_db"),
        ("rayleigh", {"bandwidth_hz": float("nan")}, "channel.bandwidth_hz"),
        ("rayleigh", {"k_factor_db": 3.0}, "channel.k_factor_db: unknown key"),
        ("umi", {"cell_radius_m": 6000.0}, "5000"),
        ("uma", {"min_distance_m": 5.0}, "at least 10"),
        ("umi", {"line_of_sight": "sometimes"}, "channel.line_of_sight"),
        ("umi", {"ut_height_m": 20.0}, "channel.ut_height_m"),
    ],
)
def test_bad_options_are_refused_with_the_field(name: str, options: dict, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        registry.options("channel", Plugin(name=name, **options))
    assert words in str(error.value)


@pytest.mark.parametrize("name", MODELS)
def test_extreme_but_valid_options_give_finite_numbers(name: str) -> None:
    extreme = {
        "cell_radius_m": 5000.0,
        "shadowing_db": 60.0,
        "noise_dbm_per_hz": 300.0,
        "noise_figure_db": 300.0,
        "bandwidth_hz": 1e12,
        "correlation_time_rounds": 0.01,
        "shadowing_decorrelation_m": 0.1,
        "csi_error": 0.999,
    }
    section = Plugin(name=name, **extreme)
    state = registry.build("channel", section, Rng(0)).state(CLIENTS[:50], 10**7)
    assert np.isfinite([state.gain_K, state.reported_gain_K]).all()
    link = Link.from_config(registry.options("channel", section))
    assert np.isfinite(link.rate_bps(1e3, link.snr_hz(state.gain_K, 0.1))).all()


@pytest.mark.parametrize("name", MODELS)
def test_radio_table_has_names_and_values(name: str) -> None:
    rows = radio_table(registry.options("channel", Plugin(name=name)), DeviceConfig())
    assert len(dict(rows)) == len(rows) >= 15
    assert all(key and value and "nan" not in value for key, value in rows)


def test_radio_table_of_the_default_cell() -> None:
    rows = dict(radio_table(registry.options("channel", Plugin(name="rayleigh")), DeviceConfig()))
    # 20 dBm - 105.46 dB + 164 dBm/Hz - 60 dBHz = 18.54 dB; the median of Exp(1) is -1.59 dB.
    assert rows["SNR at the cell edge, without fading"] == "18.5 dB"
    assert rows["Median SNR at the cell edge"] == "16.9 dB"
    assert rows["Noise in the whole band"] == "-104.0 dBm"
    assert rows["Path loss at the cell edge"] == "105.5 dB"
    assert rows["Largest rate"] == "7.4 Mbit/s"
    # log2(1 + 10^1.554) = 5.20
    assert rows["Rate at the cell edge"].startswith("5.2 Mbit/s")


@pytest.mark.parametrize("k_db", [0.0, 6.0, 20.0])
def test_radio_table_median_of_rician_fading(k_db: float) -> None:
    config = rician.Config(k_factor_db=k_db)
    rows = dict(radio_table(config, DeviceConfig()))
    snr, median = (
        float(rows[key].split()[0]) for key in ("SNR at the cell edge, without fading", "Median SNR at the cell edge")
    )
    k_factor = 10 ** (k_db / 10)
    expected = 10 * math.log10(stats.ncx2(2, 2 * k_factor).median() / (2 * (1 + k_factor)))
    assert median - snr == pytest.approx(expected, abs=0.11)  # two values rounded to 0.1 dB


class Corridor(ChannelConfig):
    reference_gain: float = 1e-3


class FromRayleigh(rayleigh.Config):
    """Inherits the options of a built-in channel, and may do anything with them."""

    reference_gain: float = 1e-3


@pytest.mark.parametrize("kind", [Corridor, FromRayleigh])
def test_a_foreign_channel_is_not_described_by_what_a_built_in_one_does(kind) -> None:
    rows = dict(radio_table(kind(), DeviceConfig(cpu_hz=1e9, kappa=0.0), "corridor"))
    assert rows["Channel"] == "corridor"
    assert rows["channel.reference_gain"] == "0.001"
    assert rows["Band shared by the senders"] == "1 MHz"
    assert rows["Processor clock"] == "1 GHz"
    told = " ".join([*rows, *rows.values()])
    for claim in ("uniform over", "Path loss", "Fading", "fresh draw", "Rayleigh", "perfect", "cell edge"):
        assert claim not in told


def test_a_foreign_channel_describes_itself() -> None:
    class Described(Corridor):
        def describe(self):
            return [("Corridor", f"{self.cell_radius_m:g} m"), ("Fading", "none")]

    rows = radio_table(Described(cell_radius_m=50), DeviceConfig(), "corridor")
    assert rows[:3] == [("Channel", "corridor"), ("Corridor", "50 m"), ("Fading", "none")]
    assert not [key for key, _ in rows if key.startswith("channel.")]


def test_a_description_that_fails_does_not_cost_the_report() -> None:
    class Broken(Corridor):
        def describe(self):
            return [("only one",)]

    rows = dict(radio_table(Broken(), DeviceConfig(), "corridor"))
    assert rows["Its description"].startswith("failed: ValueError")
    assert rows["Band shared by the senders"] == "1 MHz"


@pytest.mark.parametrize("where", ["gain_K", "reported_gain_K"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -1e-12])
def test_a_gain_that_is_none_is_an_error_that_names_client_and_round(where, value) -> None:
    class Odd:
        def state(self, clients_K, block):
            gain_K = np.full(len(clients_K), 1e-9)
            wrong_K = np.where(clients_K == 7, value, gain_K)
            return ChannelState(**{"gain_K": gain_K, "reported_gain_K": gain_K, where: wrong_K})

    what = "reported gain" if where == "reported_gain_K" else "gain"
    assert gains(Odd(), np.array([1, 2]), 3).gain_K.tolist() == [1e-9, 1e-9]
    with pytest.raises(RaysoftError, match=f"round 3, client 7: the channel gives a {what} of"):
        gains(Odd(), np.array([1, 7, 9]), 3)


def test_gains_are_one_a_client() -> None:
    class Scalar:
        def state(self, clients_K, block):
            return ChannelState(gain_K=np.array(1.0), reported_gain_K=np.array(1.0))

    with pytest.raises(RaysoftError, match=r"round 2: the channel gives gains of shape \(\) for 2 clients"):
        gains(Scalar(), np.array([1, 2]), 2)


def test_no_gain_at_all_is_an_outage_and_no_error() -> None:
    class Blocked:
        def state(self, clients_K, block):
            return ChannelState(gain_K=np.zeros(2), reported_gain_K=np.zeros(2))

    assert gains(Blocked(), np.array([1, 2]), 2).gain_K.tolist() == [0.0, 0.0]
