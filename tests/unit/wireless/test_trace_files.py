"""Tables of measured channels as loggers write them: clocks since 1970, mixed-up units, odd names, late begins."""

import logging
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from raysoft.config import Plugin, registry
from raysoft.config.presets import load_config
from raysoft.errors import ConfigError
from raysoft.federation.content import check_user_files
from raysoft.rng import Rng

TIMED, ROUNDS = "client,time,value\n", "client,round,value\n"


@pytest.fixture
def channel(tmp_path):
    """A channel of a table in a file."""

    def make(table, quantity="gain_db", **options):
        path = tmp_path / ("trace.csv" if isinstance(table, str) else "trace.parquet")
        path.write_text(table) if isinstance(table, str) else parquet.write_table(table, path)
        return registry.build("channel", Plugin(name="trace", file=str(path), quantity=quantity, **options), Rng(0))

    return make


def configured(tmp_path, text, *words):
    (tmp_path / "trace.csv").write_text(text)
    return load_config("fedit", [f"channel={{name: trace, file: {tmp_path / 'trace.csv'}, quantity: gain_db}}", *words])


def levels(channel, blocks, client=0):
    return [float(channel.state([client], block).gain_K[0]) for block in blocks]


# ---- clocks ----


def ticking(start, step="0.1", count=60):
    """Rows of a clock that shows `start` first, in decimals as a logger writes them."""
    first, by = Decimal(start), Decimal(step)
    return TIMED + "".join(f"0,{first + n * by},{-118 if n % 3 else -90 - n}\n" for n in range(count))


@pytest.mark.parametrize("start", ["1700000000.1", "1700000000.3", "-12.7"])
@pytest.mark.parametrize("interpolation", ["hold", "linear"])
@pytest.mark.parametrize("at_end", ["hold", "loop"])
def test_a_clock_that_begins_anywhere_gives_the_gains_of_one_that_begins_at_zero(channel, start, interpolation, at_end):
    options = {"seconds_per_round": 0.1, "interpolation": interpolation, "at_end": at_end}
    blocks = [*range(1, 200), 10**6 + 1]
    assert levels(channel(ticking(start), **options), blocks) == levels(channel(ticking("0"), **options), blocks)


def test_in_a_parquet_file_too_and_in_single_precision(channel):
    times = [n / 10 for n in range(60)]

    def table(times, kind):
        values = [-90.0 - n for n in range(60)]
        return pa.table({"client": [0] * 60, "time": pa.array(times, kind), "value": values})

    want = levels(channel(table(times, pa.float64()), seconds_per_round=0.1), range(1, 61))
    assert want == pytest.approx([10 ** (-9.0 - n / 10) for n in range(60)], rel=1e-12)
    late = [1700000000.1 + one for one in times]
    for given in (table([round(one, 1) for one in late], pa.float64()), table(times, pa.float32())):
        assert levels(channel(given, seconds_per_round=0.1), range(1, 61)) == want


def test_a_run_to_the_last_sample_of_a_late_clock_is_not_refused(tmp_path):
    check_user_files(configured(tmp_path, ticking("1700000000.1"), "rounds=60", "channel.seconds_per_round=0.1"))
    with pytest.raises(ConfigError, match=r"time 1700000000\.1 to 1700000006, a run of 62 rounds reads"):
        check_user_files(configured(tmp_path, ticking("1700000000.1"), "rounds=62", "channel.seconds_per_round=0.1"))


@pytest.mark.parametrize("step", [0.1, 0.3, 1 / 3, 0.7])
def test_a_looped_trace_begins_again_at_its_own_time_whatever_the_rounding(channel, step):
    text = TIMED + "".join(f"0,{n * step!r},{-90 - n}\n" for n in range(7))
    looped = levels(channel(text, seconds_per_round=step, at_end="loop"), range(1, 700))
    assert looped == (looped[:7] * 100)[:699]
    assert len(set(looped)) == 7


# ---- units ----


@pytest.mark.parametrize(
    ("quantity", "values", "message"),
    [
        (
            "gain",
            (1e-9, 1200),
            r"line 3: value 1200 of client 0: a linear power gain is at most 1000, 30 dB \(a path loss",
        ),
        ("gain", (110, 115), r"all values of quantity=gain are above 1, .*a path loss of 110 dB is quantity=gain_db"),
        ("gain_db", (12.5, 3), r"all values of quantity=gain_db are above 0 dB, .*an SNR is quantity=snr_db"),
        ("gain_db", (1e-10, 3e-9), r"all values in dB are within 0\.001 of 0; are they linear .*\(quantity=gain\)\?"),
        ("gain_db", (0, 0), r"all values in dB are 0, .*; are they linear gains .*, or was nothing filled in\?"),
    ],
)
def test_decibels_and_linear_gains_are_not_taken_for_each_other(channel, quantity, values, message):
    with pytest.raises(ConfigError, match=message) as caught:
        channel(f"{ROUNDS}0,1,{values[0]}\n0,2,{values[1]}\n", quantity)
    assert caught.value.field == "channel.file"


def test_a_strong_sample_among_weak_ones_is_taken(channel):
    assert levels(channel(f"{ROUNDS}0,1,1e-9\n0,2,2\n", "gain"), [1, 2]) == [1e-9, 2]
    assert levels(channel(f"{ROUNDS}0,1,0\n0,2,-30\n", "gain_db"), [1, 2]) == [1, 1e-3]


# ---- numbers and names ----


@pytest.mark.parametrize("cell", ["-1_00", "٣", "0x10", "1e", "1 0", "--1", "infinity"])
def test_a_number_is_in_everybodys_notation(channel, cell):
    with pytest.raises(ConfigError, match=r"line 3: value must be a finite number, got "):
        channel(f"{ROUNDS}0,1,-90\n0,2,{cell}\n")


def test_of_a_number_every_plain_spelling_is_read(channel):
    cells = ["-90", " -90.0 ", "-9e1", "-.9E+2", "-90."]
    text = ROUNDS + "".join(f"0,{n},{cell}\n" for n, cell in enumerate(cells, start=1))
    assert levels(channel(text), range(1, 6)) == [1e-9] * 5


def test_clients_that_are_whole_floats_are_those_integers_in_their_order(channel):
    numbers = [0.0, 10.0, 2.0, 1.5]
    table = pa.table(
        {"client": [one for one in numbers for _ in (1, 2)], "round": [1, 2] * 4, "value": [-90.0, -91.0] * 4}
    )
    assert [one.client for one in channel(table).trace.series] == ["0", "1.5", "2", "10"]


def test_a_client_that_is_no_name_is_refused(channel):
    with pytest.raises(ConfigError, match=r"row 1: client must be a number or a text, got \[0\.0\]"):
        channel(pa.table({"client": [[0.0], [0.0]], "round": [1, 2], "value": [-90.0, -91.0]}))
    with pytest.raises(ConfigError, match=r"line 2: client has 5000 characters, at most 128 make a name: '9999") as one:
        channel(f"{ROUNDS}{'9' * 5000},1,-90\n{'9' * 5000},2,-90\n")
    assert len(str(one.value)) < 200
    with pytest.raises(ConfigError, match="row 2: client is empty"):
        channel(pa.table({"client": [0.0, float("nan")], "round": [1, 2], "value": [-90.0, -91.0]}))


# ---- before the first sample ----

LATE = ROUNDS + "".join(f"{client},{100 + n},-90\n" for client in range(2) for n in range(6))
APART = TIMED + "".join(f"{client},{50 * client + n},{-90 - n}\n" for client in range(2) for n in range(6))


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (LATE, {}, r"client 0 begins at round 100, round 1 reads 1, and at_end=loop does not say what comes before"),
        (APART, {"seconds_per_round": 1.0}, r"client 1 begins at time 50, round 1 reads 0, .*channel\.at_end=hold"),
    ],
)
def test_a_looped_trace_that_begins_after_the_run_is_refused(channel, text, options, message):
    with pytest.raises(ConfigError, match=message):
        channel(text, at_end="loop", **options)
    channel(text, at_end="loop", clients="draw", **options)  # begins anywhere by its own choice


def test_clocks_that_are_not_quite_together_may_loop(channel):
    text = TIMED + "".join(f"{client},{n + 0.3 * client},{-90 - n}\n" for client in range(3) for n in range(4))
    assert len(channel(text, at_end="loop", seconds_per_round=1.0).trace.series) == 3


def test_samples_that_hold_before_their_time_are_told(tmp_path, channel, caplog):
    rows = dict(channel(LATE, at_end="hold").config.describe())
    said = "round 1 reads round 1, and 2 of 2 clients begin later, client 0 at 100; until then their first sample holds"
    assert rows["Before their begin"] == said
    assert "Before their begin" not in channel(f"{ROUNDS}0,0,-90\n0,1,-91\n", at_end="hold").config.describe()
    with caplog.at_level(logging.WARNING, logger="raysoft"):
        check_user_files(configured(tmp_path, LATE, "rounds=3", "channel.at_end=hold"))
    assert f"trace.csv: {said}" in caplog.text
    with pytest.raises(ConfigError, match=r"from round 100 .*let it begin there, or channel\.at_end=hold"):
        check_user_files(configured(tmp_path, LATE, "rounds=3"))
    assert np.array_equal(channel(LATE, at_end="hold").state([0], 1).gain_K, [1e-9])
