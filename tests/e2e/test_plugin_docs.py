"""The plug-ins of docs/plugins.md: installed by entry points as their authors would, and run as they stand there."""

import math
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from raysoft.config import Traits, registry
from raysoft.config.presets import load_config
from raysoft.errors import ConfigError
from tests.conftest import SMALL_RUN, records
from tests.plug_in_packages import make_package
from tests.rounds import rounds_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/plugins.md").read_text()
GROUPS = {kind: f"{kind}s" for kind in registry.KINDS}  # entry points: raysoft.<...>
EXAMPLES = {}  # by name: kind and source
for section in PAGE.split("\n## ")[1:]:
    for found in re.findall(r"```python\n(.*?)```", section, flags=re.S):
        EXAMPLES[section.split()[1]] = (section.partition(":")[0].lower(), found)
VALUES = 16384  # trained scalars of the small model, all of them in LoRA factors


@pytest.fixture(autouse=True)
def installed(monkeypatch, tmp_path):
    """All examples on the path, as after `pip install`."""
    site = tmp_path / "site"
    for name, (kind, source) in EXAMPLES.items():
        make_package(site, GROUPS[kind], name, source)
    monkeypatch.syspath_prepend(site)
    return site


def thetas(*words):
    """Global values before the first of two rounds and after each."""
    return [state.server.theta for state in rounds_of("fedit", *words, count=2)[1]]


def equal(one, two):
    return all(np.array_equal(one[name], two[name]) for name in one.keys() | two.keys())


def columns(record):
    return {name: np.array(value) for name, value in record.metrics["clients"].items()}


def test_there_is_a_short_example_of_every_kind():
    assert sorted(kind for kind, _ in EXAMPLES.values()) == sorted(registry.KINDS)
    assert len(re.findall("```python", PAGE)) == len(EXAMPLES)
    for name, (_, source) in EXAMPLES.items():
        lines = source.splitlines()
        assert len(lines) <= 40, name
        assert max(map(len, lines)) <= 120, name


def test_the_method_is_the_median_or_the_mean_at_its_ends():
    """A third of three clients off each end leaves the median, nothing off leaves the mean of equal clients."""
    fedit = thetas("cohort.weighting=uniform")
    most, none = (thetas(f"method={{name: trimmed_mean, trim: {trim}}}") for trim in (0.34, 0))
    assert equal(most[-1], thetas("method.name=median")[-1])
    assert not equal(most[-1], fedit[-1])
    for name, value in fedit[-1].items():
        np.testing.assert_allclose(none[-1][name], value, atol=1e-7)
    with pytest.raises(ConfigError, match=r"method.trim"):
        load_config("fedit", ["method={name: trimmed_mean, trim: 0.5}"])


def test_the_extra_takes_a_share_of_the_last_step_again():
    plain = thetas()
    without, half = (thetas(f"method.extras=[{{name: server_momentum, beta: {beta}}}]") for beta in (0, 0.5))
    assert equal(without[-1], plain[-1])
    assert equal(half[1], plain[1]), "before the first round there was no step"
    for name, value in half[2].items():
        np.testing.assert_array_equal(value, plain[2][name] + 0.5 * (plain[1][name] - plain[0][name]))
    with pytest.raises(ConfigError, match="server_momentum remembers coordinates"):
        load_config("rolora", ["method.extras=[{name: server_momentum}]"])


def test_the_codec_loses_nothing_and_is_charged_what_it_wrote(monkeypatch):
    zlib, lengths = import_module("zlib"), []

    def compress(data):
        lengths.append(len(zlib.compress(data)))
        return zlib.compress(data)

    counting = SimpleNamespace(compress=compress, decompress=zlib.decompress)
    monkeypatch.setattr(import_module("deflate"), "zlib", counting)
    _, states, rounds = rounds_of("fedit", "codec.name=deflate", count=2)
    assert equal(states[-1].server.theta, thetas()[-1])
    assert len(lengths) == 2 * 2 * 3, "two rounds of three clients: once for the menu, once for the payload"
    for number, record in enumerate(rounds):
        menu, sent = np.split(np.array(lengths[6 * number : 6 * number + 6]), 2)
        assert sorted(menu) == sorted(sent)
        assert record.uplink_bits == 8 * sent.sum() < 3 * 32 * VALUES


def test_the_codec_tells_its_bits_to_an_allocator_that_reads_curves():
    """A plan and a gain (48), a curve (128 and 8 a unit), and the 32 bits of `told_bits`, of three clients."""
    _, _, rounds = rounds_of("soft", "codec={name: deflate}", count=2)
    assert [record.control_bits for record in rounds] == [3 * (48 + 128 + 8 + 32)] * 2


def test_the_allocator_gives_the_band_to_the_best_channels():
    _, _, rounds = rounds_of("fedit", "allocator={name: best_channels, share: 0.5}", count=2)
    for record in rounds:
        clients = columns(record)
        sends = clients["gain_db"] > clients["gain_db"].min()  # two of three
        assert clients["status"].tolist() == np.where(sends, "ok", "outage").tolist()
        assert record.drop_reasons == {"outage": 1}
        assert clients["bandwidth_hz"].sum() == pytest.approx(1e6, rel=1e-5)
        assert (clients["bandwidth_hz"] > 0).tolist() == sends.tolist()
        assert np.ptp(clients["latency_s"][sends]) < 1e-5, "they end together"


def test_the_uplink_lets_clients_send_one_after_another():
    """Nobody computes: they are ready at once, and send in order of their ids."""
    tdma = ("allocator={name: ideal}", "device.cycles_per_sample=0")
    _, _, rounds = rounds_of("fedit", *tdma, "uplink={name: tdma}", count=2)
    noise_w = 10 ** ((-174 + 7 + 3 - 30) / 10) * 1e6  # noise figure and interference margin, over 1 MHz
    for record in rounds:
        snr = 0.1 * 10 ** (columns(record)["gain_db"] / 10) / (10**0.3 * noise_w)
        air_s = 32 * VALUES / (1e6 * np.minimum(7.4, np.log2(1 + snr)))
        np.testing.assert_allclose(columns(record)["latency_s"], np.cumsum(air_s), rtol=1e-4)
        np.testing.assert_allclose(columns(record)["energy_j"], 0.1 * air_s, rtol=1e-4)
        assert record.round_latency_s == pytest.approx(air_s.sum(), rel=1e-4)
    first = columns(rounds[0])["latency_s"]
    deadline = f"uplink={{name: tdma, deadline_s: {first[:2].mean()}}}"
    _, _, rounds = rounds_of("fedit", *tdma, deadline, count=1)
    assert columns(rounds[0])["status"].tolist() == ["ok", "deadline", "deadline"]
    assert columns(rounds[0])["energy_j"][2] == 0, "it never came to send"
    with pytest.raises(ConfigError, match="tdma has no bandwidth to share"):
        load_config("fedit", ["uplink.name=tdma"])


def test_the_channel_gives_every_client_its_distance():
    _, _, rounds = rounds_of("fedit", "channel={name: corridor, reference_gain: 1e-4}", count=2)
    seen = {}
    for record in rounds:
        clients = columns(record)
        for client, gain_db in zip(clients["id"].tolist(), clients["gain_db"].tolist(), strict=True):
            assert 35 <= math.sqrt(1e-4 / 10 ** (gain_db / 10)) <= 250
            assert seen.setdefault(client, gain_db) == gain_db, "gains do not change from round to round"
    assert len(set(seen.values())) == len(seen) > 3


def test_the_command_knows_them_by_their_names(installed, tmp_path):
    """A run of its own process, from `pyproject.toml`'s entry point to the report."""
    (toml,) = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.S)
    assert tomllib.loads(toml)["project"]["entry-points"] == {"raysoft.channels": {"corridor": "corridor"}}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), str(ROOT)]), "COLUMNS": "200"}

    def raysoft(*words):
        return subprocess.run(
            [sys.executable, "-m", "raysoft", *words],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    listed = raysoft("list").stdout
    for name, (kind, source) in EXAMPLES.items():
        assert re.search(rf"^{kind} +{name} +{source[3:20]}", listed, flags=re.M), name
    channel = ["channel.name=corridor", "channel.reference_gain=1e-4"]
    done = raysoft("run", "soft", *SMALL_RUN, *channel, "--executor", "inline", "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    report = raysoft("report", str(tmp_path / "run")).stdout.strip()
    assert "Distance on the line" in Path(report).read_text()
    assert "uniform over the area" not in Path(report).read_text()
    gains = records(tmp_path / "run")[1]["metrics"]["clients"]["gain_db"]
    assert all(-90 < gain < -70 for gain in gains), "1e-4 / (35..250 m)^2 is -70.9 to -88 dB"
    assert raysoft("run", "soft", "channel.name=corridr", "--dry-run").returncode == 2


def rows(head):
    """Cells of the rows of the table with this head."""
    found = re.search(rf"^\| {re.escape(head)} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, flags=re.M)
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in found[1].splitlines()]


def test_the_table_of_kinds_names_what_is_there():
    table = {row[0]: row for row in rows("kind")}
    assert set(table) == set(registry.KINDS)
    for kind, (_, _, group, _, protocol, example) in table.items():
        assert group == f"`raysoft.{GROUPS[kind]}`"
        name, path = re.findall("`([^`]+)`", protocol)
        assert hasattr(import_module(path.removesuffix(".py").replace("/", ".")), name)
        assert EXAMPLES[re.match(r"\[(\w+)\]", example)[1]][0] == kind


def test_the_table_of_traits_is_complete():
    said = {row[0].strip("`"): row[2] for row in rows("trait")}
    assert said == {one.name: '""' if one.default == "" else str(one.default) for one in fields(Traits)}


def test_what_the_docs_list_for_plug_ins_is_there():
    """Modules and names of the table stay where they are: packages of other people import them."""
    found = 0
    for cells in rows("from"):
        modules, names = (re.findall(r"`([^`]+)`", cell) for cell in cells)
        for module in modules:
            home = import_module(module if module.startswith("raysoft") else f"raysoft{module}")
            for name in names:
                if len(modules) == 1:
                    assert hasattr(home, name), (module, name)
                    found += 1
    assert found > 35
