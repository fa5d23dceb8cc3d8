"""Files that are there whole or not at all."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from raysoft.atomic import write_bytes, write_text


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("raysoft.atomic.os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_writers_of_the_same_file_do_not_meet(tmp_path):
    """Neither fails, and what stays is one of the contents as a whole."""
    path, contents = tmp_path / "file", [bytes([n]) * 100_000 for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            list(pool.map(lambda data: write_bytes(path, data), contents))
            assert path.read_bytes() in contents
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_name_as_long_as_a_name_may_be(tmp_path):
    write_bytes(tmp_path / ("x" * 255), b"x")


def test_what_is_written_has_the_mode_that_the_user_gives_new_files(tmp_path):
    """An adapter is made to be shared."""
    before = os.umask(0o022)
    try:
        write_text(tmp_path / "file", "\N{GREEK SMALL LETTER MU} \udcff")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644
    assert (tmp_path / "file").read_bytes() == b"\xce\xbc ?"


def test_a_missing_folder_is_not_made(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_bytes(tmp_path / "gone" / "file", b"x")
    assert list(tmp_path.iterdir()) == []
