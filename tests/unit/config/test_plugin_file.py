"""Plug-ins in files of one's own: found by path, known by content, the same wherever the configuration goes."""

import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from raysoft.comparison.arms import parse_arms
from raysoft.comparison.store import key_of
from raysoft.config import Plugin, registry
from raysoft.config.plugin_file import PluginFile, found_in
from raysoft.config.presets import load_config
from raysoft.errors import ConfigError
from raysoft.federation.content import identity_of
from raysoft.rundir.plugin_files import keep, kept

CHANNEL = """
from raysoft.config import Positive
from raysoft.types import ChannelState
from raysoft.wireless.base import ChannelConfig
import numpy as np

class Config(ChannelConfig):
    level: Positive = 1e-9

class Flat:
    def __init__(self, config, rng):
        self.config = config

    def state(self, clients_K, block):
        gain_K = np.full(len(clients_K), self.config.level)
        return ChannelState(gain_K, gain_K)

build = Flat
"""
EXTRA = """
from raysoft.methods.extras.base import ExtraConfig, Plain
from raysoft.config import Positive

class Config(ExtraConfig):
    level: Positive = 1.0

def build(config, context):
    return Plain()
"""
METHOD = """
from raysoft.methods.averaging import Averaging
from raysoft.methods.base import MethodConfig

class Config(MethodConfig):
    pass

def build(config, space):
    return Averaging(config, space)
"""


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    """The current folder, with a file of three kinds."""
    monkeypatch.chdir(tmp_path)
    for name, source in (("flat.py", CHANNEL), ("add.py", EXTRA), ("mean.py", METHOD)):
        Path(name).write_text(source)
    return tmp_path


def config(*words):
    return load_config("fedit", ["channel.name=./flat.py", "method.extras=[{name: ./add.py}]", *words])


def test_the_content_is_the_identity_and_no_path_is():
    Path("elsewhere").mkdir()
    shutil.copy("flat.py", "elsewhere/again.py")
    one, two = config(), config("channel.name=elsewhere/again.py")
    assert one.config_hash() == two.config_hash()
    assert key_of(one) == key_of(two)
    assert identity_of(one) == identity_of(two)
    Path("elsewhere/again.py").write_text(CHANNEL + "# another one\n")
    three = config("channel.name=elsewhere/again.py")
    assert three.config_hash() != one.config_hash()
    assert identity_of(three)["channel.name"] != identity_of(one)["channel.name"]
    assert identity_of(three)["method.extras.0.name"] == identity_of(one)["method.extras.0.name"]
    Path("add.py").write_text(EXTRA + "# another one\n")
    assert len({one.config_hash(), three.config_hash(), config().config_hash()}) == 3


def test_the_name_in_the_configuration_stays_what_was_written_and_people_read_the_stem():
    tree = config().model_dump(mode="json")
    assert tree["channel"]["name"] == "./flat.py"
    assert config().channel.label == "flat"
    assert parse_arms(["soft channel.name=lab/flat.py"])[0].label == "soft name=flat"


def test_an_edit_changes_no_configuration_that_is_there():
    before = config()
    Path("flat.py").write_text(CHANNEL.replace("1e-9", "1e-3"))
    after = config()
    gains = [registry.build("channel", one.channel, None).state([3], 1).gain_K[0] for one in (before, after)]
    assert gains == [1e-9, 1e-3]


def test_a_pickled_configuration_carries_its_files_to_a_process_that_has_none(tmp_path):
    (tmp_path / "config").write_bytes(
        pickle.dumps(config("channel.level=0.5", "method.extras=[{name: ./add.py, level: 3}]"))
    )
    (tmp_path / "away").mkdir()
    code = """
import pickle, sys
from raysoft.config import registry
config = pickle.load(open(sys.argv[1], "rb"))
channel = registry.build("channel", config.channel, None)
extra = registry.options("method", config.method).extras[0]
print(channel.state([3], 1).gain_K[0], extra.checked.level, config.config_hash())
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "config"],
        cwd=tmp_path / "away",
        capture_output=True,
        text=True,
        timeout=60,
    )
    wanted = config("channel.level=0.5", "method.extras=[{name: ./add.py, level: 3}]").config_hash()
    assert done.stdout.split() == ["0.5", "3.0", wanted], done.stderr


def test_a_kept_copy_stands_for_the_file_until_it_is_let_go(tmp_path):
    Path("run").mkdir()
    before = config()
    keep(Path("run"), before.plugin_files().values())
    Path("flat.py").unlink()
    Path("add.py").write_text("1/0\n")
    with kept(Path("run").resolve()):
        assert config().config_hash() == before.config_hash()
    with pytest.raises(ConfigError, match=r"^channel\.name: \./flat\.py cannot be read: No such file"):
        config()


def test_what_is_found_here_goes_before_what_was_found_outside():
    with (
        found_in({"./flat.py": CHANNEL.encode() + b"# outer\n", "x.py": b"a = 1"}.get),
        found_in({"x.py": b"a = 2"}.get),
    ):
        assert PluginFile.of("x.py").module().a == 2
        assert PluginFile.of("./flat.py").content.endswith(b"# outer\n")


def test_one_content_under_two_names_is_one_extra():
    shutil.copy("add.py", "same.py")
    with pytest.raises(ConfigError, match=r"^method\.extras: an extra is named once at most, got \./add\.py, same\.py"):
        config("method.extras=[./add.py, same.py]")


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("nope.py", None, r"nope\.py cannot be read: No such file or directory$"),
        ("bad.py", "x = 1\ndef f(:\n", r"bad\.py, line 2: invalid syntax$"),
        ("bad.py", b"\xff\xfe\x00", r"bad\.py.*: "),
        ("bad.py", "x = 1\n1 / 0\n", r"bad\.py, line 2: cannot be loaded: ZeroDivisionError: division by zero$"),
        ("bad.py", "import sys\nsys.exit(3)\n", r"bad\.py, line 2: cannot be loaded: SystemExit: 3$"),
        (
            "bad.py",
            "import is_not_there\n",
            r"line 1: cannot be loaded: ModuleNotFoundError.*imports what is installed$",
        ),
        (
            "bad.py",
            "def f():\n    import add\n",
            r"bad\.py, line 2: imports 'add', which lies beside it; .* stands alone",
        ),
        ("bad.py", "from .add import Config\n", r"bad\.py, line 1: imports '\.add', which lies beside it"),
        ("bad.py", "x = 1\n", r"bad\.py has no class `Config`; a channel's derives from ChannelConfig"),
        ("bad.py", "Config = 1\n", r"bad\.py has no class `Config`"),
        (
            "bad.py",
            EXTRA,
            r"does not derive from ChannelConfig, as one of the kind channel does; as it is, .* the kind extra",
        ),
        ("bad.py", CHANNEL.replace("build = Flat", ""), r"bad\.py has no function `build`"),
        ("lab/flat", None, r"unknown channel 'lab/flat', .*a file of your own is named with its ending, lab/flat\.py$"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_sentence(name, source, message):
    if source is not None:
        Path(name).write_bytes(source.encode() if isinstance(source, str) else source)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config("fedit", [f"channel.name={name}"])
    assert caught.value.field == "channel.name"
    assert "\n" not in str(caught.value)


def test_an_unknown_option_and_one_of_an_extra_are_named():
    with pytest.raises(ConfigError, match=r"^channel\.levl: unknown key; did you mean channel\.level\?"):
        config("channel={name: ./flat.py, levl: 1}")
    with pytest.raises(ConfigError, match=r"^method\.extras\.0\.levl: unknown key"):
        config("method.extras=[{name: ./add.py, levl: 1}]")


def test_the_standard_library_is_not_taken_for_a_neighbour():
    Path("random.py").write_text("")
    Path("flat.py").write_text("import random\nimport numpy\n" + CHANNEL)
    assert config().channel.label == "flat"


def test_options_stay_where_a_file_takes_the_place_of_a_plug_in():
    """As with short names: what the new one knows stays, the rest goes."""
    found = load_config("fedit", ["channel.bandwidth_hz=3e6", "channel.name=./flat.py"]).channel
    assert found.options()["bandwidth_hz"] == 3e6
    assert "path_loss_exponent" not in found.options()


def test_a_section_that_nobody_resolved_finds_its_file_itself():
    assert registry.options("channel", Plugin(name="./flat.py", level=2.0)).level == 2.0
    assert registry.traits("channel", Plugin(name="./flat.py")) == registry.config_of("channel").TRAITS
