"""Places that a user names: what cannot be a folder is refused in one sentence, before anything is written."""

import pytest

from raysoft.errors import ConfigError, RaysoftError
from raysoft.rundir.destination import destination, expanded
from raysoft.rundir.folder import START, RunFolder, check_place
from raysoft.rundir.places import check_made, made
from raysoft.rundir.reading import read_run
from tests.run_folders import make_run


def test_a_home_folder_that_nobody_has_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/x", "--out") == tmp_path / "x"
    with pytest.raises(ConfigError, match=r"^--out: '~nouser/x': '~nouser' is no home folder"):
        destination("~nouser/x", "soft")
    monkeypatch.setenv("RAYSOFT_OUTPUTS", "~nouser/x")
    with pytest.raises(ConfigError, match=r"^RAYSOFT_OUTPUTS: '~nouser/x'"):
        destination(None, "soft")


def test_an_empty_path_is_not_the_current_folder():
    with pytest.raises(ConfigError, match=r"^DIR: must name a folder, got ''"):
        expanded("", "DIR")


def test_what_cannot_be_a_folder_is_seen_without_writing(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    for place, why in (("file", "is not a folder"), ("file/x", "is not a folder"), ("link", "is a link to nothing")):
        for check in (check_made, made):
            with pytest.raises(ConfigError, match=rf"^--store: .*{place} cannot be written: .*{why}"):
                check(tmp_path / place, "--store", ".claims")
    with pytest.raises(ConfigError, match="link is a link to nothing"):
        check_place(tmp_path / "link", overwrite=False)
    check_made(tmp_path / "new" / "folder", "--store", ".claims")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["file", "link"]


def test_a_folder_in_the_place_of_the_summary_is_named(tmp_path):
    path = make_run(tmp_path / "run", rounds=2, finished=False)
    before = (path / "rounds.jsonl").read_bytes()
    (path / "summary.json").mkdir()
    with pytest.raises(RaysoftError, match=r"summary\.json: is a folder"):
        RunFolder.reopen(path, START)
    assert (path / "rounds.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('"round":2', '"round":1', "line 3: round 1 comes after round 1"),
        ('"accuracy":', '"accuracy":"0.9","old":', "line 3: accuracy must be a number, got '0.9'"),
        ('"accuracy":', '"accuracy":true,"old":', "line 3: accuracy must be a number, got True"),
        ('"accuracy":', f'"accuracy":1{"0" * 400},"old":', "line 3: accuracy must be a number, got 1000"),
        ('"round_latency_s":', '"round_latency_s":"x","old":', "line 3: round_latency_s must be a number"),
        ('"metrics":{', '"metrics":{"bits_per_byte":"x",', r"line 3: metrics\.bits_per_byte must be a number"),
    ],
)
def test_a_line_that_no_run_has_written_is_named(tmp_path, old, new, sentence):
    path = make_run(tmp_path / "run", rounds=3)
    lines = (path / "rounds.jsonl").read_text().splitlines()
    assert old in lines[2]
    lines[2] = lines[2].replace(old, new)
    (path / "rounds.jsonl").write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(RaysoftError, match=sentence):
        read_run(path)


def test_fewer_lines_than_the_summary_counts_are_said(tmp_path, caplog):
    path = make_run(tmp_path / "run", rounds=3)
    assert read_run(path).notes == ()
    lines = (path / "rounds.jsonl").read_text().splitlines(keepends=True)
    (path / "rounds.jsonl").write_text("".join(lines[:3]))
    assert read_run(path).notes[0].startswith("rounds.jsonl holds 3 lines, not one for each of the rounds 0 to 3")
    assert "holds 3 lines" in caplog.text
