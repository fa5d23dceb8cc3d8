"""Files of plug-ins on a node that lacks them, or has others: this process stands for the node."""

import os

import pytest

from raysoft.config import UserFile
from raysoft.config.presets import load_config
from raysoft.distributed.user_files import gathered, placed
from raysoft.errors import ConfigError, RaysoftError
from tests.plug_in_packages import make_package

TRACED = """
from raysoft.config import UserFile
from raysoft.wireless import rayleigh
from raysoft.wireless.rayleigh import *

class Config(rayleigh.Config):
    trace: UserFile
"""


@pytest.fixture
def contents(monkeypatch, tmp_path, tmp_path_factory):
    """Of `trace.csv` in the current folder."""
    monkeypatch.setattr(UserFile, "copies", {})
    monkeypatch.syspath_prepend(make_package(tmp_path_factory.mktemp("site"), "channels", "traced", TRACED))
    monkeypatch.setenv("RAYSOFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trace.csv").write_bytes(b"1,2\r\n")
    return gathered(load_config("soft", ["channel.name=traced", "channel.trace=trace.csv"]))


def test_a_file_that_is_here_is_read_where_it_is(contents, tmp_path):
    placed(contents)
    assert UserFile("trace.csv").path.resolve() == tmp_path / "trace.csv"
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("here", [None, b"1,3\r\n", b"1,2"])
def test_a_copy_is_read_where_it_is_missing_or_another_one(contents, tmp_path, here):
    (tmp_path / "trace.csv").unlink()
    if here is not None:
        (tmp_path / "trace.csv").write_bytes(here)
    placed(contents)
    assert UserFile("trace.csv").path.read_bytes() == b"1,2\r\n"
    assert UserFile("trace.csv").path.name == "trace.csv", "readers go by the ending"
    assert [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()] == ["trace.csv"]


def test_a_file_of_no_bytes_is_a_file(contents, tmp_path):
    (tmp_path / "trace.csv").write_bytes(b"")
    empty = gathered(load_config("soft", ["channel.name=traced", "channel.trace=trace.csv"]))
    (tmp_path / "trace.csv").unlink()
    placed(empty)
    assert UserFile("trace.csv").path.read_bytes() == b""


def test_what_cannot_be_read_or_written_is_one_sentence(contents, tmp_path):
    (tmp_path / "trace.csv").unlink()
    (tmp_path / "cache").write_text("not a folder")
    with pytest.raises(RaysoftError, match=r"cannot write a plug-in's file to .*trace\.csv: Not a dir.*RAYSOFT_CACHE"):
        placed(contents)
    with pytest.raises(ConfigError, match=r"channel\.trace: 'trace\.csv' cannot be read: No such file"):
        gathered(load_config("soft", ["channel.name=traced", "channel.trace=trace.csv"]))
    assert os.listdir(tmp_path) == ["cache"]
