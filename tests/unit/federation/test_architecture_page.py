"""docs/architecture.md against the sources: what it names is there, and every hop that it counts is in the code."""

import ast
import re
from itertools import pairwise
from pathlib import Path

import pytest

import raysoft

PACKAGE = Path(raysoft.__file__).parent
PAGE = PACKAGE.parent / "docs" / "architecture.md"
pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="raysoft is installed without its source tree")

NAME = re.compile(r"([\w/]+\.py)(?::([\w.]+\w))?")
LINE = re.compile(r"^([\d·▪])  (?:([→←⇒⇐]) )?([\w/]+\.py):([\w.]+\w)", flags=re.M)
BY_NAME = {"getattr(self, stage)": "Worker.", "getattr(self.coordinator, method)": "Coordinator."}  # calls of a text


def text():
    return PAGE.read_text(encoding="utf-8")


def definition(module, name):
    """The class or function `name` (dotted) of a module."""
    node = ast.parse((PACKAGE / module).read_text(encoding="utf-8"))
    for word in name.split("."):
        found = [one for one in node.body if getattr(one, "name", None) == word]
        assert found, f"{module} has no {name}"
        (node,) = found
    return node


def mentions(caller, callee):
    """Whether the function `caller` speaks of `callee`, by its last name."""
    node, last = definition(*caller), callee[1].rpartition(".")[2]
    names = {getattr(one, "attr", getattr(one, "id", None)) for one in ast.walk(node)}
    by_name = (owner for call, owner in BY_NAME.items() if call in ast.unparse(node))
    return last in names or callee[1].startswith(tuple(by_name))


def legs():
    """The page's legs, each a list of (hop number, 0 for none; arrow; (module, name))."""
    found = []
    for number, arrow, module, name in LINE.findall(text()):
        if number == "▪":
            found.append([])
        found[-1].append((int(number) if number.isdigit() else 0, arrow, (module, name)))
    return found


def test_what_the_page_names_is_there():
    names = NAME.findall(text())
    assert len(names) > 60
    for module, name in names:
        if module.startswith("tests/"):
            assert (PACKAGE.parent / module).is_file()
        elif name:
            definition(module, name)
        else:
            assert (PACKAGE / module).is_file(), module


def test_every_arrow_is_a_call_of_the_code_and_every_change_of_module_a_hop():
    assert len(legs()) == 16
    for leg in legs():
        hops = 0
        for (_, _, before), (number, arrow, here) in pairwise(leg):
            caller, callee = (before, here) if arrow in "→⇒" else (here, before)
            assert mentions(caller, callee), (caller, callee)
            hops += before[0] != here[0]
            assert number == (hops if before[0] != here[0] else 0), here


def test_the_table_counts_what_the_legs_show():
    hops = [max(number for number, _, _ in leg) for leg in legs()]
    inline, ray = hops[:2]
    update = upload, encode, fold, join, *at_the_coordinator = hops[2:9]
    taken, _, *used = hops[9:13]  # of a plan
    record, kept, summary = hops[13:]
    on_ray_only = len(re.findall(r"^\d .*on Ray only", text(), flags=re.M))
    assert encode == fold
    expected = {
        "trained values → `Upload`": ([upload], [upload]),
        "step → codec (its update, its units), step → fold of a pack": ([inline + encode], [ray + encode]),
        "step → join of packs": ([inline + join], [ray + join]),
        "join of groups; receive and finish; aggregate": (at_the_coordinator,) * 2,
        "plan → round; round's step → uplink, → allocator": ([taken, *used],) * 2,
        "record → run; run → `rounds.jsonl`; run → summary": (
            [record - on_ray_only, kept, summary],
            [record, kept, summary],
        ),
    }
    table = dict(re.findall(r"^\| ([^|]+?) \| ([^|]+? \| [^|]+?) \|$", text().replace("*", ""), flags=re.M))
    for leg, sides in expected.items():
        assert table[leg] == " | ".join("; ".join(map(str, side)) for side in sides), leg
    assert f"{sum(update) + 3 * inline} hops inline and {sum(update) + 3 * ray} on Ray" in text()


def test_the_search_for_calls_finds_them():
    step = ("federation/stages.py", "RoundSteps.train")
    assert mentions(step, ("federation/executor.py", "InlineExecutor.map"))
    assert not mentions(step, ("federation/client.py", "Worker.run"))
