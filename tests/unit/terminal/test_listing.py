"""`raysoft list`: ideas and sources of all plug-ins, and grids that fit the terminal."""

import json
import re

import pytest
from rich.console import Console

from raysoft.api.listing import KINDS, Compatibility, as_data, idea, refusals, source
from raysoft.config import registry
from raysoft.config.presets import preset_names
from raysoft.terminal.console import matrix, names_table

BUILT_IN = [(kind, name) for kind in registry.KINDS for name in registry.KINDS[kind]]
PUBLISHED = re.compile(
    r"(arXiv \d{4}\.\d{5}|(AISTATS|ICML|MLSys|NeurIPS|Psychometrika|Theory 42\(5\),) \d{4}|3GPP TR \d+\.\d+|section \d)"
)


def printed(table, width):
    console = Console(width=width, soft_wrap=True)
    with console.capture() as shown:
        console.print(table)
    return shown.get()


@pytest.mark.parametrize(("kind", "name"), BUILT_IN)
def test_every_plug_in_has_one_idea_and_a_source(kind, name):
    doc = registry.plugin(kind, name).__doc__
    assert idea(doc).endswith(".")
    assert 20 < len(idea(doc)) <= 120
    assert "Source" not in idea(doc)
    said = source(doc)
    assert said.startswith("this project's") or PUBLISHED.search(said), said


@pytest.mark.parametrize(
    ("doc", "what", "where"),
    [
        (None, "", ""),
        ("One idea", "One idea", ""),
        ("One idea of X. Another.\n\nSource: A.", "One idea of X.", "A"),
        (
            "Idea\nof two lines, e.g. this.\n\nText.\n\nSource: Li and\nYu (ICML 2018).\n",
            "Idea of two lines, e.g. this.",
            "Li and Yu (ICML 2018)",
        ),
        (
            'Idea.\n\nSource: Li et al., "A. Title", in Trans. Inf. Theory, 1996.\n\nMore.',
            "Idea.",
            "Li et al., in Trans. Inf. Theory, 1996",
        ),
        ("The Source: of all.\n\nNo more.", "The Source: of all.", ""),
    ],
)
def test_idea_and_source_are_read_off_a_docstring(doc, what, where):
    assert (idea(doc), source(doc)) == (what, where)


def test_the_list_fits_a_hundred_columns_and_shows_brackets(monkeypatch):
    monkeypatch.setattr(registry.plugin("codec", "topk"), "__doc__", "Entries of B [/o, r] [bold]. More.")
    shown = printed(names_table(), 100)
    assert "Entries of B [/o, r] [bold]." in shown
    assert max(map(len, shown.splitlines())) <= 100
    lines = shown.splitlines()
    assert all(any(line.split()[:2] == [kind, name] for line in lines) for kind, name in BUILT_IN)


@pytest.mark.parametrize("width", [80, 100, 200])
def test_the_grids_name_every_plug_in_and_every_refusal(width):
    shown = printed(matrix(width), width)
    grids = shown.partition("Without exception")[0]
    assert max(map(len, grids.splitlines())) <= width
    assert "…" not in shown
    asked, heads = Compatibility(), {}
    for block in grids.strip().split("\n\n"):
        head, *rows = block.splitlines()
        down, across = re.match(r"(\w+) x (\w+)", head).groups()
        columns = head.split()[3:]
        heads.setdefault((down, across), {}).update(  # where they do not fit side by side, grids follow each other
            {(row.split()[0], name): mark for row in rows for name, mark in zip(columns, row.split()[1:], strict=True)}
        )
    assert len(heads) == 10
    for (down, across), marks in heads.items():
        assert {b for _, b in marks} == set(registry.names(across))
        if width == 100:
            assert all(
                (mark == "yes") == (asked.refusal({down: a, across: b}) is None) for (a, b), mark in marks.items()
            )
        for (a, b), mark in marks.items():
            first, second = sorted([(down, a), (across, b)], key=lambda one: KINDS.index(one[0]))
            assert (mark == "no") == (f"{' '.join(first)} + {' '.join(second)}" in shown)
    assert "method.name=head_only has nothing to train" in shown


def test_the_list_as_data_says_what_the_tables_say():
    found = json.loads(json.dumps(as_data(matrix=False)))
    assert [one["name"] for one in found["presets"]] == preset_names()
    assert "smoke" in [one["name"] for one in found["sweeps"]]
    plug_ins = {(one["kind"], one["name"]): one for one in found["plugins"]}
    assert [*plug_ins] == [(kind, name) for kind in KINDS for name in registry.names(kind)]
    tsfa = plug_ins["allocator", "tsfa"]
    assert tsfa["traits"] == {"needs_budget": True}
    assert tsfa["built_in"]
    assert tsfa["idea"] == idea(registry.plugin("allocator", "tsfa").__doc__)
    assert plug_ins["extra", "scaffold"]["traits"]["plain_sgd"]
    assert plug_ins["codec", "chain"]["source"], "it has no defaults, and is listed"
    assert "refused" not in found


def test_the_list_as_data_has_every_refusal_of_the_matrix():
    found = as_data(matrix=True)
    asked = Compatibility()
    codecs = [one for one in found["refused"] if set(one) == {"method", "codec", "because"}]
    told = {(one["method"], one["codec"]): one["because"] for one in codecs}
    assert told == {pair: str(error) for pair, error in refusals(asked, ("method", "codec")).items()}
    assert told
    assert all(len(one) == 3 for one in found["refused"])
    assert found["notes"]
