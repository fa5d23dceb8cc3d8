"""What a run is made of: digests of content, whatever its path, and how they are remembered."""

import os
from typing import Annotated

import pytest
import yaml
from pydantic import Field

from raysoft.config import Section, UserFile, parse_section
from raysoft.config.identity import differences
from raysoft.config.presets import load_config
from raysoft.errors import ConfigError
from raysoft.federation import content
from raysoft.federation.content import KnownDigests, check_user_files, content_of, digest, user_files
from raysoft.wireless import rayleigh


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYSOFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_digest_is_of_content_and_names_below_the_folder(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder / "sub").mkdir(parents=True)
        (tmp_path / folder / "sub" / "x.csv").write_text("text,label")
    assert digest(tmp_path / "a") == digest(tmp_path / "b") is not None
    assert digest(tmp_path / "a" / "sub" / "x.csv") != digest(tmp_path / "a")
    (tmp_path / "b" / ".DS_Store").write_text("not data")
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    (tmp_path / "b" / "sub" / "x.csv").rename(tmp_path / "b" / "sub" / "y.csv")  # a name may be a label or a split
    assert digest(tmp_path / "a") != digest(tmp_path / "b")
    (tmp_path / "b" / "sub" / "y.csv").rename(tmp_path / "b" / "sub" / "x.csv")
    (tmp_path / "b" / "sub" / "x.csv").write_text("text,lapel")
    assert digest(tmp_path / "a") != digest(tmp_path / "b")
    assert digest(tmp_path / "nowhere") is None
    (tmp_path / "empty").mkdir()
    assert digest(tmp_path / "empty") is None


def test_a_link_to_a_folder_above_is_not_followed_for_ever(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("x")
    alone = digest(tmp_path / "a")
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    assert digest(tmp_path / "a") == alone


def test_digests_are_remembered_until_size_or_time_change(tmp_path, monkeypatch):
    file = tmp_path / "x"
    file.write_text("one")
    reads = []
    hashing = content.hashlib.file_digest
    monkeypatch.setattr(content.hashlib, "file_digest", lambda *args: reads.append(1) or hashing(*args))
    first = digest(file)
    assert digest(file) == first
    assert len(reads) == 2  # just written: it might be written again within the resolution of its time stamp
    for _ in range(3):
        with KnownDigests(settled_s=-60.0) as known:
            known.digest(file)
    assert len(reads) == 3
    assert digest(file) == first
    assert len(reads) == 3
    status = file.stat()
    file.write_text("two")  # the same size, and the same time of modification
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digest(file) != first


@pytest.mark.parametrize("place", ["a file", "damaged"])
def test_without_a_cache_everything_is_read(tmp_path, cache, place):
    if place == "a file":
        cache.write_text("")
    else:
        cache.mkdir()
        (cache / "digests.sqlite").write_bytes(b"no database at all" * 99)
    (tmp_path / "x").write_text("one")
    assert digest(tmp_path / "x") == digest(tmp_path / "x") is not None


def test_embedded_tasks_are_named_by_a_version():
    found = content_of(load_config("soft"))
    assert found == {"data.task": "digits, version 1", "model.name": "embedded/vit-digits, version 1"}


def test_a_model_of_the_hub_is_its_commit(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    config = load_config("soft", ["model.name=some/model", "model.lora.train_head=true"])
    assert content_of(config)["model.name"] is None
    refs = tmp_path / "hub" / "models--some--model" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("0123abcd\n")
    assert content_of(config)["model.name"] == "commit 0123abcd"


def test_images_that_a_table_names_belong_to_the_data(tmp_path):
    (tmp_path / "pics").mkdir()
    (tmp_path / "pics" / "1.png").write_bytes(b"one")
    (tmp_path / "table.csv").write_text("image,label\npics/1.png,a\n")
    data = f"data={{task: image-classification, path: {tmp_path / 'table.csv'}, clients: 100}}"
    config = load_config("soft", [data, "model.lora.train_head=true"])
    before = content_of(config)
    (tmp_path / "pics" / "1.png").write_bytes(b"two")
    assert set(differences(before, content_of(config))) == {"data.path"}


def test_what_is_not_known_differs():
    assert differences({"a": "1", "b": None}, {"a": "1", "b": None}) == {"b": (None, None)}
    assert differences({"a": "1"}, {"a": "1", "c": "2"}) == {"c": (None, "2")}


# ---------------------------------------------------------------------------------------------------- files of plug-ins


class Traced(rayleigh.Config):
    trace: UserFile
    more: Annotated[tuple[UserFile, ...], Field(strict=False)] = ()
    perhaps: UserFile | None = None


@pytest.fixture
def traced(monkeypatch, tmp_path):
    monkeypatch.setattr(rayleigh, "Config", Traced)
    (tmp_path / "a.csv").write_text("1,2")
    return load_config("soft", [f"channel.trace={tmp_path / 'a.csv'}", f"channel.more=[{tmp_path / 'b.csv'}]"])


def test_files_of_plugins_are_found_digested_and_checked(traced, tmp_path):
    assert {field: file.path for field, file in user_files(traced).items()} == {
        "channel.trace": tmp_path / "a.csv",
        "channel.more.0": tmp_path / "b.csv",
    }
    with pytest.raises(ConfigError, match=r"channel\.more\.0: '.*b\.csv' cannot be read: No such file"):
        check_user_files(traced)
    (tmp_path / "b.csv").write_text("3,4")
    check_user_files(traced)
    before = content_of(traced)
    assert None not in before.values()
    (tmp_path / "a.csv").write_text("5,6")
    assert set(differences(before, content_of(traced))) == {"channel.trace"}


def test_a_file_is_written_to_yaml_as_its_path(traced, tmp_path):
    tree = traced.model_dump(mode="json")
    assert yaml.safe_load(yaml.safe_dump(tree))["channel"]["trace"] == str(tmp_path / "a.csv")


@pytest.mark.parametrize("value", ["", 3, None, ["a"]])
def test_a_file_is_named_by_text(value):
    class Options(Section):
        trace: UserFile

    with pytest.raises(ConfigError, match="trace"):
        parse_section(Options, {"trace": value})
