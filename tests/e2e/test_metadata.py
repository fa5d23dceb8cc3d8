"""What the package says of itself: the same in pyproject.toml, CITATION.cff and the code."""

import tomllib
from pathlib import Path

import yaml

import raysoft

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())


def test_the_version_is_the_same_everywhere():
    assert CITATION["version"] == PROJECT["version"] == raysoft.__version__


def test_the_citation_is_complete_and_agrees_with_the_package():
    # https://github.com/citation-file-format/citation-file-format/blob/1.2.0/schema-guide.md: what has to be there
    assert {"cff-version", "message", "title", "authors"} <= set(CITATION)
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION["title"] == PROJECT["name"]
    assert CITATION["license"] == PROJECT["license"]
    assert CITATION["authors"] == PROJECT["authors"]
    for other in CITATION["references"]:
        assert {"type", "title", "authors"} <= set(other)
        assert other["url"] in PROJECT["urls"].values()
    assert set(CITATION["keywords"]) <= set(PROJECT["keywords"])


def test_classifiers_name_every_python_that_is_supported():
    lowest = PROJECT["requires-python"].removeprefix(">=")
    named = [one.rpartition(" :: ")[2] for one in PROJECT["classifiers"] if "Python :: 3." in one]
    assert named[0] == lowest
    assert named == [f"3.{int(lowest[2:]) + n}" for n in range(len(named))]
