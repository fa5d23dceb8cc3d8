"""Measured channels on tables small enough to work out by hand."""

import math

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from raysoft.config import DeviceConfig, Plugin, registry
from raysoft.config.presets import load_config
from raysoft.errors import ConfigError
from raysoft.federation.content import check_user_files, content_of
from raysoft.rng import Rng
from raysoft.units import dbm_to_watt
from raysoft.wireless.base import gains
from raysoft.wireless.link import Link
from raysoft.wireless.table import radio_table

ROUNDS = "client,round,value\na,1,1e-9\na,2,3e-9\na,3,5e-9\nb,1,2e-9\nb,2,4e-9\nb,3,6e-9\n"
TIMES = "client,time,value\n7,10.0,-100\n7,10.5,-90\n7,11.0,-80\n"


@pytest.fixture
def channel(tmp_path):
    """A channel of a table in a file."""

    def make(text, quantity="gain", seed=0, name="trace.csv", **options):
        (tmp_path / name).write_text(text)
        section = Plugin(name="trace", file=str(tmp_path / name), quantity=quantity, **options)
        return registry.build("channel", section, Rng(seed))

    return make


def series(channel, blocks, client=0):
    return [float(channel.state([client], block).gain_K[0]) for block in blocks]


def db(values):
    return [round(10 * math.log10(value), 9) for value in values]


# ---- where a round reads ----


def test_a_round_reads_its_round_and_clients_repeat(channel):
    trace = channel(ROUNDS)
    assert series(trace, [1, 2, 3]) == [1e-9, 3e-9, 5e-9]
    assert trace.state(np.arange(5), 2).gain_K.tolist() == [3e-9, 4e-9, 3e-9, 4e-9, 3e-9]
    assert trace.state([4], 2).gain_K.tolist() == [3e-9], "in whatever company"


def test_numbers_are_clients_in_their_order_and_texts_come_after():
    from raysoft.wireless.measured import _order

    assert sorted(["10", "x", "9", "007"], key=_order) == ["007", "9", "10", "x"]


def test_seconds_begin_at_the_first_sample_and_hold_until_the_next(channel):
    trace = channel(TIMES, "gain_db", seconds_per_round=0.25)
    assert db(series(trace, range(1, 6))) == [-100, -100, -90, -90, -80]


@pytest.mark.parametrize("step", [0.1, 0.3, 1 / 3, 0.7])
def test_a_sample_holds_from_its_own_time_on_whatever_the_rounding(channel, step):
    rows = "".join(f"0,{number * step!r},{number}\n" for number in range(200))
    trace = channel(f"client,time,value\n{rows}", seconds_per_round=step, max_gap=1.0)
    assert series(trace, range(1, 201)) == list(range(200))


def test_a_line_is_straight_in_the_unit_of_the_file(channel):
    trace = channel(TIMES, "gain_db", seconds_per_round=0.125, interpolation="linear")
    assert db(series(trace, range(1, 10))) == [-100, -97.5, -95, -92.5, -90, -87.5, -85, -82.5, -80]
    linear = channel(ROUNDS.replace("2,3e-9", "3,3e-9").replace("a,3,5e-9", "a,5,5e-9"), interpolation="linear")
    assert series(linear, [1, 2, 3, 4, 5]) == pytest.approx([1e-9, 2e-9, 3e-9, 4e-9, 5e-9], rel=1e-12)


def test_at_the_end_the_last_sample_holds_or_the_trace_begins_again(channel):
    held = channel(ROUNDS, at_end="hold")
    assert series(held, [0, 3, 4, 100]) == [1e-9, 5e-9, 5e-9, 5e-9]
    looped = channel(ROUNDS, at_end="loop")
    assert series(looped, range(1, 8)) == [1e-9, 3e-9, 5e-9] * 2 + [1e-9]
    assert series(looped, [3 * 10**9 + 2]) == [3e-9]


def test_a_line_leads_from_the_last_sample_to_the_first(channel):
    trace = channel(TIMES, "gain_db", seconds_per_round=0.25, interpolation="linear", at_end="loop")
    assert db(series(trace, [5, 6, 7, 8])) == [-80, -90, -100, -95]  # one spacing of 0.5 s after the last


def test_drawn_clients_begin_anywhere_and_depend_on_their_key_alone(channel):
    text = "client,round,value\n" + "".join(f"{c},{n},{(100 * c + n) * 1e-9}\n" for c in range(4) for n in range(50))
    options = {"clients": "draw", "at_end": "loop"}
    one, two, other = (channel(text, seed=seed, **options) for seed in (0, 0, 1))
    clients = np.arange(400)
    first = one.state(clients, 1).gain_K
    assert np.array_equal(first, two.state(clients, 1).gain_K)
    assert not np.array_equal(first, other.state(clients, 1).gain_K)
    assert np.array_equal(first[7:9], one.state([7, 8], 1).gain_K)
    codes = np.round(first * 1e9).astype(int)
    assert set(codes // 100) == {0, 1, 2, 3}
    assert len(set(codes)) > 100, "of 200 samples"
    after = np.round(one.state(clients, 2).gain_K * 1e9).astype(int)
    assert np.array_equal(after, codes // 100 * 100 + (codes % 100 + 1) % 50), "each goes on in its own trace"


# ---- what a value means ----


@pytest.mark.parametrize("measured_hz", [None, 2e5])
def test_the_simulated_link_shows_the_measured_snr_and_rate(channel, measured_hz):
    text = "client,round,value\n0,1,{}\n0,2,{}\n0,3,0\n"
    more = {"measured_power_dbm": 14.0} | ({} if measured_hz is None else {"measured_bandwidth_hz": measured_hz})
    hz, watt = measured_hz or 1e6, dbm_to_watt(14.0)
    snr = channel(text.format(12.5, -3), "snr_db", **more)
    link = Link.from_config(snr.config)
    for gain, want in zip(series(snr, [1, 2, 3]), [12.5, -3, 0], strict=True):
        assert 10 * math.log10(watt * gain / (link.noise_w_per_hz * hz)) == pytest.approx(want, abs=1e-9)
    rate = channel(text.format(0.9 * 7.4 * hz, 1e3), "rate_bps", **more)
    for gain, want in zip(series(rate, [1, 2, 3]), [0.9 * 7.4 * hz, 1e3, 0], strict=True):
        assert float(link.rate_bps(hz, link.snr_hz(gain, watt))) == pytest.approx(want, rel=1e-9)


def test_several_bands_are_one_of_them_or_the_mean_of_their_gains(channel):
    text = "client,round,band,value\n" + "".join(f"0,{n},{b},{-100 + 10 * b * n}\n" for n in (1, 2) for b in (0, 1))
    assert db(series(channel(text, "gain_db", band="1"), [1, 2])) == [-90, -80]
    assert series(channel(text, "gain_db", band="mean"), [1, 2]) == pytest.approx(
        [(1e-10 + 1e-9) / 2, (1e-10 + 1e-8) / 2]
    )
    with pytest.raises(ConfigError, match=r"channel\.band: is required: trace\.csv has bands 0, 1, .* one gain"):
        channel(text, "gain_db")
    with pytest.raises(ConfigError, match=r"channel\.band: '2' is not in trace\.csv: use one of 0, 1, or mean"):
        channel(text, "gain_db", band="2")
    with pytest.raises(ConfigError, match=r"channel\.band: 'mean' is not in trace\.csv: it has no column band"):
        channel(ROUNDS, band="mean")


def test_the_server_may_know_the_gain_with_an_error(channel):
    state = channel(ROUNDS, csi_error=0.1).state(np.arange(20_000), 1)
    ratio = state.reported_gain_K / state.gain_K  # |sqrt(0.9) + sqrt(0.1) w|^2: mean 1, variance 0.01 + 2 * 0.09
    assert ratio.mean() == pytest.approx(1, abs=5 * math.sqrt(0.19 / 20_000))
    assert ratio.var() == pytest.approx(0.19, rel=0.1)
    exact = channel(ROUNDS).state([0, 1], 1)
    assert exact.gain_K is exact.reported_gain_K


def test_a_parquet_file_says_the_same(channel, tmp_path):
    csv = channel(ROUNDS)
    table = pa.table(
        {"client": ["a"] * 3 + ["b"] * 3, "round": [1, 2, 3] * 2, "value": [1e-9, 3e-9, 5e-9, 2e-9, 4e-9, 6e-9]}
    )
    parquet.write_table(table, tmp_path / "same.parquet")
    section = Plugin(name="trace", file=str(tmp_path / "same.parquet"), quantity="gain")
    same = registry.build("channel", section, Rng(0))
    for block in (1, 2, 3):
        assert np.array_equal(csv.state([0, 1], block).gain_K, same.state([0, 1], block).gain_K)
    parquet.write_table(table.set_column(2, "value", pa.array([1e-9, None] + [1e-9] * 4)), tmp_path / "odd.parquet")
    with pytest.raises(ConfigError, match=r"odd\.parquet, row 2: value is empty"):
        registry.build("channel", Plugin(name="trace", file=str(tmp_path / "odd.parquet"), quantity="gain"), Rng(0))
    (tmp_path / "no.parquet").write_text("client")
    with pytest.raises(ConfigError, match=r"no\.parquet: cannot be read as parquet"):
        registry.build("channel", Plugin(name="trace", file=str(tmp_path / "no.parquet"), quantity="gain"), Rng(0))


# ---- odd files and options ----

HEAD = "client,round,value\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"trace\.csv: has no column client; it needs columns client, time \(in seconds\) or round, value"),
        ("client,time_ms,value\n", r"has no column time or round; .* and has client, time_ms, value$"),
        ("client,round,gain_db\n", r"has no column value"),
        ("client,time,round,value\n", r"has both columns, time and round"),
        ("client,round,value,value\n", r"has column value twice"),
        (HEAD, r"trace\.csv: holds no measurements"),
        (HEAD + "0,1,1e-9\n", r"line 2: the only sample of client 0; a trace has 2 or more"),
        (HEAD + "0,1,1\n0,2,nan\n", r"line 3: value must be a finite number, got 'nan'"),
        (HEAD + "0,1,1\n0,2,\n", r"line 3: value is empty"),
        (
            HEAD + "0,1,1\n0,2,-1e-9\n",
            r"line 3: value -1e-09 of client 0: a linear power gain is not negative \(is it in dB",
        ),
        (HEAD + "0,1,1\n0,x,1\n", r"line 3: round must be a finite number, got 'x'"),
        (HEAD + "0,1,1\n0,1.5,1\n", r"line 3: round must be a whole number from 0, got '1\.5'"),
        (HEAD + "0,1,1\n0,-1,1\n", r"line 3: round must be a whole number from 0"),
        (
            HEAD + "0,1,1\n\n0,2,1\n0,1,1\n",
            r"line 5: round 1 of client 0 stands there twice; of every client rounds must rise",
        ),
        (HEAD + "0,5,1\n0,4,1\n", r"line 3: round 4 of client 0 follows 5"),
        (HEAD + ",1,1\n", r"line 2: client is empty"),
        (HEAD + "0,1\n", r"line 2: has 2 cells, the header names 3 columns"),
        (
            HEAD + "".join(f"0,{n},1\n" for n in (1, 2, 3, 50)),
            r"line 5: a gap: client 0 has nothing between round 3 and 50; .*max_gap=47",
        ),
        (
            "client,round,band,value\n0,1,x,1\n0,2,x,1\n0,1,y,1\n",
            r"client 0 has round 2 in one of the bands x and y only",
        ),
        ("client,round,band,value\n0,1,x,1\n0,2,x,1\n1,1,y,1\n", r"client 0 was not measured in band y"),
    ],
)
def test_an_odd_table_is_refused_by_its_line(channel, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        channel(text)
    assert caught.value.field == "channel.file"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("quantity", "value", "message"),
    [
        ("gain_db", "110", r"a power gain in dB is between -300 and 30 \(a path loss of 110 dB is a gain of -110\)"),
        ("snr_db", "1e9", "an SNR in dB is between"),
        ("rate_bps", "-1", "a rate is between 0 and"),
        ("rate_bps", "7.5e6", r"a rate is between 0 and 7\.4e\+06 bit/s, the most of this link in 1e\+06 Hz"),
    ],
)
def test_a_value_that_cannot_be_in_its_unit_is_refused(channel, quantity, value, message):
    more = {} if quantity == "gain_db" else {"measured_power_dbm": 20.0}
    with pytest.raises(ConfigError, match=rf"trace\.csv, line 3: value .* of client 0: {message}"):
        channel(f"client,round,value\n0,1,0\n0,2,{value}\n", quantity, **more)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"quantity": "dBm"},
            r"channel\.quantity: input should be 'gain', 'gain_db', 'snr_db' or 'rate_bps', got 'dBm'",
        ),
        ({"quantity": "snr_db"}, "measured_power_dbm: is required with quantity=snr_db"),
        ({"measured_power_dbm": 20.0}, "have no part in quantity=gain"),
        ({"clients": "draw"}, "needs at_end=loop, got error"),
        ({"seconds_per_round": 1.0}, r"channel\.seconds_per_round: has no part in trace\.csv, which goes by round"),
        ({"name": "trace.txt"}, r"channel\.file: trace\.txt: unknown kind of file; use one of \.csv, \.parquet"),
    ],
)
def test_options_that_do_not_go_together_are_refused(channel, options, message):
    with pytest.raises(ConfigError, match=message):
        channel(ROUNDS, **options)


def test_seconds_need_the_length_of_a_round(channel):
    with pytest.raises(ConfigError, match=r"channel\.seconds_per_round: is required: trace\.csv goes by time"):
        channel(TIMES, "gain_db")


def test_a_gap_may_be_bridged(channel):
    text = HEAD + "".join(f"0,{n},{n}\n" for n in (1, 2, 3, 50))
    assert series(channel(text, max_gap=47.0), [49, 50]) == [3, 50]


# ---- in a run ----


def configured(tmp_path, text, *words):
    (tmp_path / "trace.csv").write_text(text)
    return load_config("fedit", [f"channel={{name: trace, file: {tmp_path / 'trace.csv'}, quantity: gain}}", *words])


def test_a_trace_that_is_too_short_is_refused_before_the_run(tmp_path):
    check_user_files(configured(tmp_path, ROUNDS, "rounds=3"))
    with pytest.raises(
        ConfigError, match=r"client a was measured from round 1 to 3, a run of 4 rounds reads 1 to 4; channel"
    ):
        check_user_files(configured(tmp_path, ROUNDS, "rounds=4"))
    for end in ("hold", "loop"):
        check_user_files(configured(tmp_path, ROUNDS, "rounds=4", f"channel.at_end={end}"))
    with pytest.raises(ConfigError, match="client a was measured from round 2"):
        check_user_files(configured(tmp_path, "client,round,value\na,2,1\na,3,1\na,4,1\n", "rounds=3"))


def test_the_last_second_lasts_as_long_as_the_others(tmp_path):
    text = "client,time,value\n" + "".join(f"0,{n},1e-9\n" for n in range(4))
    check_user_files(configured(tmp_path, text, "rounds=8", "channel.seconds_per_round=0.5"))
    with pytest.raises(ConfigError, match="time 0 to 3, a run of 9 rounds reads 0 to 4"):
        check_user_files(configured(tmp_path, text, "rounds=9", "channel.seconds_per_round=0.5"))


def test_the_content_is_noted_and_the_gains_pass_the_seam(tmp_path):
    config = configured(tmp_path, ROUNDS, "rounds=3")
    before = content_of(config)["channel.file"]
    assert gains(registry.build("channel", config.channel, Rng(0)), np.arange(4), 1).gain_K.tolist() == [1e-9, 2e-9] * 2
    (tmp_path / "trace.csv").write_text(ROUNDS.replace("6e-9", "7e-9"))
    assert content_of(config)["channel.file"] != before
    assert registry.build("channel", config.channel, Rng(0)).state([1], 3).gain_K[0] == 7e-9, "and read again"


def test_it_describes_itself_in_the_radio_table(tmp_path):
    config = configured(tmp_path, ROUNDS, "rounds=3", "channel.at_end=loop")
    rows = dict(radio_table(config.channel.checked, DeviceConfig(), "trace"))
    assert rows["Measured"] == "trace.csv: 2 clients with 3 samples each, by round"
    assert rows["Power gains, lowest, median, highest"] == "-90.0, -84.6, -82.2 dB"
    assert rows["Between samples, at the end"] == "hold; it begins again"
    assert rows["Band shared by the senders"] == "1 MHz"
    assert all(key and value and "nan" not in value for key, value in rows.items())
