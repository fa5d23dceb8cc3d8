"""What import contracts cannot say: which single files may load heavy libraries, what is loaded when, bounded waits.

The contracts themselves (layers, siblings) are in pyproject.toml and run here too, so that no test run is without them.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

import raysoft

PACKAGE = Path(raysoft.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
HEAVY = (
    "torch",
    "ray",
    "transformers",
    "peft",
    "datasets",
    "sklearn",
    "matplotlib",
    "scipy",
    "tensorboardX",
    "wandb",
    "fsspec",
)

# Who may import a library at all (a folder ends in "/"); and of these, who only inside functions.
MAY_IMPORT = {
    "ray": (
        "distributed/client_actor.py",
        "distributed/coordinator_actor.py",
        "distributed/executor.py",
        "distributed/placement.py",
        "distributed/session.py",
        "distributed/start.py",
        "sweep/driver.py",
        "sweep/reports.py",
        "sweep/search.py",
        "sweep/session.py",
        "sweep/signs.py",
        "sweep/stored.py",
        "sweep/trial.py",
        "sweep/watch.py",
        "runs/trackers/prometheus.py",
    ),
    "torch": ("models/", "methods/rules/orthogonality.py"),
    "transformers": ("models/tasks.py", "models/"),
    "peft": ("models/",),
    "matplotlib": ("report/", "models/glyphs.py"),
    "pandas": ("api/frames.py",),
    "IPython": ("api/progress.py",),
    "tensorboardX": ("runs/trackers/tensorboard.py",),
    "wandb": ("runs/trackers/wandb_process.py",),
    "datasets": ("data/",),
    "fsspec": ("rundir/remote.py",),
    "optuna": ("sweep/search.py",),
    "typer": ("terminal/cli.py", "terminal/options.py", "terminal/plugin_commands.py"),
    "rich": (
        "terminal/console.py",
        "terminal/comparison_console.py",
        "terminal/display.py",
        "terminal/sweep_console.py",
    ),
}
ONLY_INSIDE_FUNCTIONS = {
    ("torch", "methods/rules/orthogonality.py"),
    ("tensorboardX", "runs/trackers/tensorboard.py"),
    ("optuna", "sweep/search.py"),
    ("wandb", "runs/trackers/wandb_process.py"),
    ("ray", "runs/trackers/prometheus.py"),
    ("datasets", "data/"),
    ("transformers", "models/tasks.py"),
    ("fsspec", "rundir/remote.py"),
    ("ray", "sweep/driver.py"),
    ("pandas", "api/frames.py"),
    ("IPython", "api/progress.py"),
}


def name_of(path):
    return path.relative_to(PACKAGE).as_posix()


def imports(tree):
    """(top-level package, line, whether inside a function) of every import; `if TYPE_CHECKING:` is left out."""

    def walk(node, inside):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            deeper = inside or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield alias.name.partition(".")[0], child.lineno, inside
            elif isinstance(child, ast.ImportFrom) and child.level == 0 and child.module:
                yield child.module.partition(".")[0], child.lineno, inside
            yield from walk(child, deeper)

    return walk(tree, False)


def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def test_there_are_files_to_check():
    names = {name_of(path) for path in FILES}
    assert {"config/sections.py", "config/registry.py", "federation/clock/rounds.py", "models/base.py"} <= names


def room_of(library, name):
    """The entry of MAY_IMPORT that lets this file import the library; None where it may not."""
    return next((p for p in MAY_IMPORT[library] if name == p or (p[-1] == "/" and name.startswith(p))), None)


def test_heavy_libraries_stay_in_their_rooms():
    wrong = []
    for path in FILES:
        name = name_of(path)
        for library, line, inside in imports(parsed(path)):
            if library not in MAY_IMPORT:
                continue
            room = room_of(library, name)
            if room is None:
                wrong.append(f"{name}, line {line}: {library} may be imported in {MAY_IMPORT[library]} only")
            elif not inside and (library, room) in ONLY_INSIDE_FUNCTIONS:
                wrong.append(f"{name}, line {line}: {library} may be imported inside a function only")
    assert wrong == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import torch.nn as nn", [("torch", 1, False)]),
        ("def f():\n    from torch import nn", [("torch", 2, True)]),
        ("class C:\n    import ray", [("ray", 2, False)]),
        ("try:\n    import ray\nexcept ImportError:\n    pass", [("ray", 2, False)]),
        ("if TYPE_CHECKING:\n    import torch", []),
    ],
)
def test_the_search_for_imports_finds_them(code, found):
    assert list(imports(ast.parse(code))) == found


def loaded_after(code, libraries=HEAVY):
    """Which of the libraries a fresh interpreter has loaded after running `code`."""
    probe = f"{code}\nimport sys\nprint('loaded:', *[m for m in {libraries!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].removeprefix("loaded:").split()


LIGHT = ["types", "rng", "units", "errors", "terminal.cli"]
LIGHT += ["sweep.config", "sweep.points", "sweep.folder", "sweep.results"]
LIGHT += sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for folder in (
        "config",
        "kernels",
        "codecs",
        "allocation",
        "uplinks",
        "wireless",
        "methods",
        "rundir",
        "runs/trackers",
    )
    for path in (PACKAGE / folder).rglob("*.py")
    if path.stem != "__init__"
)


def test_everything_a_configuration_needs_is_imported_without_torch_and_ray():
    code = "\n".join(f"import raysoft.{name}" for name in LIGHT)
    assert set(loaded_after(code)) <= {"scipy"}


def test_a_preset_is_validated_without_torch_and_ray():
    code = "from raysoft.config.presets import load_config; load_config('soft', ())"
    assert set(loaded_after(code)) <= {"scipy"}


def test_help_loads_nothing_heavy():
    code = (
        "import sys; sys.argv = ['raysoft', '--help']\n"
        "from raysoft.terminal.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0, end.code"
    )
    assert loaded_after(code, (*HEAVY, "numpy", "pandas", "yaml", "pydantic")) == []


@pytest.mark.slow
@pytest.mark.alone
def test_help_is_fast():
    def seconds():
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "raysoft", "--help"], capture_output=True, timeout=60, check=True)
        return time.perf_counter() - began

    assert min(seconds() for _ in range(5)) < 0.3


# ------------------------------------------------------------------------------------------------------ bounded waits


def unbounded_waits(tree):
    """Lines of ray.get and ray.wait calls without `timeout=`, under any name the module was imported as."""
    modules, functions = {"ray"}, {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name for alias in node.names if alias.name == "ray"}
        elif isinstance(node, ast.ImportFrom) and node.module == "ray":
            functions |= {a.asname or a.name: a.name for a in node.names if a.name in ("get", "wait")}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        call = node.func
        by_module = (
            isinstance(call, ast.Attribute)
            and call.attr in ("get", "wait")
            and isinstance(call.value, ast.Name)
            and call.value.id in modules
        )
        by_name = isinstance(call, ast.Name) and call.id in functions
        if (by_module or by_name) and not has_bound(node):
            yield node.lineno


def has_bound(call):
    given = [keyword.value for keyword in call.keywords if keyword.arg == "timeout"]
    return bool(given) and not (isinstance(given[0], ast.Constant) and given[0].value in (None, -1))


def test_every_wait_for_ray_has_a_timeout():
    assert [(name_of(path), line) for path in FILES for line in unbounded_waits(parsed(path))] == []


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("import ray\nray.get(x)", [2]),
        ("import ray as r\nr.wait(x, num_returns=1)", [2]),
        ("from ray import get as fetch\nfetch(x)", [2]),
        ("import ray\nray.get(x, timeout=None)", [2]),
        ("import ray\nray.get(x, timeout=5)\nray.wait(x, timeout=left())", []),
        ("d = {}\nd.get(x)", []),
    ],
)
def test_the_search_for_unbounded_waits_finds_them(code, lines):
    assert list(unbounded_waits(ast.parse(code))) == lines


def test_there_are_waits_to_check():
    calls = sum(text.count("ray.get(") + text.count("ray.wait(") for text in map(Path.read_text, FILES))
    assert calls > 0


# --------------------------------------------------------------------------------------------------- no hidden inputs

CLOCKS = {"time", "time_ns", "now", "utcnow", "today"}


def is_hidden_input(call):
    """Whether a call depends on the process, the date, or a generator that everybody shares or nobody has seeded."""
    name = ast.unparse(call.func)
    if name in ("hash", "os.urandom") or name.startswith(("random.", "uuid.", "secrets.")):
        return True
    if name.startswith(("np.random.", "numpy.random.")):
        own_generator = name.rpartition(".")[2] in ("Generator", "Philox", "SeedSequence", "default_rng")
        return not (own_generator and (call.args or call.keywords))
    return name.startswith(("time.", "datetime.")) and name.rpartition(".")[2] in CLOCKS


def hidden_inputs(tree):
    return [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Call) and is_hidden_input(node)]


def test_no_hidden_input_can_touch_a_result():
    assert [(name_of(path), line) for path in FILES for line in hidden_inputs(parsed(path))] == []


def test_the_search_for_hidden_inputs_finds_them():
    bad = (
        "hash(x)",
        "random.random()",
        "np.random.seed(1)",
        "np.random.default_rng()",
        "np.random.normal(0, 1)",
        "time.time()",
        "datetime.datetime.now()",
    )
    fine = ("time.perf_counter()", "np.random.Generator(p)", "hashlib.blake2b(x)", "rng.random()", "x.hash()")
    assert len(hidden_inputs(ast.parse("\n".join(bad)))) == len(bad)
    assert hidden_inputs(ast.parse("\n".join(fine))) == []


# ------------------------------------------------------------------------------------------------------ the house


def dotted(path):
    return ".".join(("raysoft", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


def modules_used(tree, known):
    """Modules of raysoft that a module imports anywhere but under `if TYPE_CHECKING:`."""

    def walk(node):
        for child in ast.iter_child_nodes(node):
            if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
                yield child
                yield from walk(child)

    for node in walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from (name if name in known else node.module for name in names)


def circles(graph):
    """Modules that reach themselves: whoever is left when those that use nothing of the rest are taken away."""
    left = {name: set(used) - {name} for name, used in graph.items()}
    while free := {name for name, used in left.items() if not used & left.keys()}:
        left = {name: used for name, used in left.items() if name not in free}
    while unused := left.keys() - set().union(*left.values()):
        left = {name: used for name, used in left.items() if name not in unused}
    return sorted(left)


def test_no_circle_of_imports_inside_folders_or_between_them():
    known = {dotted(path): path for path in FILES}
    assert circles({name: set(modules_used(parsed(path), known)) for name, path in known.items()}) == []


def test_siblings_use_each_other_only_where_the_design_says_so():
    """The layers let a room use any room of the floor below; of these two floors only these arrows are meant."""
    upper, lower = ("models", "allocation", "uplinks", "report"), ("codecs", "methods", "wireless", "data", "rundir")
    known = {dotted(path): path for path in FILES}
    rooms = {name: [*name.split("."), ""][1] for name in known}
    arrows = {
        (rooms[name], rooms[used])
        for name, path in known.items()
        if rooms[name] in upper
        for used in modules_used(parsed(path), known)
        if rooms[used] in lower
    }
    radio = {("allocation", "wireless"), ("uplinks", "wireless"), ("report", "wireless")}
    assert arrows == {("models", "data"), ("report", "rundir"), *radio}


def test_the_search_for_circles_finds_them():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}, "e": set()}) == ["b", "c"]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
    tree = ast.parse("if TYPE_CHECKING:\n    import x.a\ndef f():\n    from x import b, c")
    assert sorted(modules_used(tree, {"x", "x.a", "x.b"})) == ["x", "x.b"]


ROOT = PACKAGE.parent
needs_source = pytest.mark.skipif(
    not (ROOT / "pyproject.toml").exists(), reason="raysoft is installed without its source tree"
)


def floors():
    """The layers of the import contract, top down: a list of the rooms of each floor."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    return [[room.strip() for room in floor.split("|")] for floor in layers if floor != "__main__"]


@needs_source
def test_the_documents_show_the_house_as_it_is():
    readme = (ROOT / "README.md").read_text().partition("```\nraysoft/\n")[2].partition("```")[0]
    shown = [re.match(r"  ([a-z ]+[a-z])/? {2,}\S", line) for line in readme.splitlines()]
    assert all(shown), readme
    rooms = [room for floor in floors() for room in floor]
    assert [name for match in shown for name in match[1].split()] == rooms
    contributing = (ROOT / "CONTRIBUTING.md").read_text()
    block = " ".join(contributing.partition("Imports point downward only:")[2].partition("\n\nSiblings")[0].split())
    assert block == " → ".join(" | ".join(floor) for floor in floors())


def test_the_hall_is_small_and_every_room_says_what_it_is_for():
    assert len(list(PACKAGE.glob("*.py"))) <= 8
    for path in sorted(PACKAGE.rglob("__init__.py")):
        said = ast.get_docstring(parsed(path)) or ""
        assert said.endswith((".", ")", "]")), f"{name_of(path)} says nothing"
        if path.parent != PACKAGE:
            assert "may use" in said.lower(), f"{name_of(path)} does not say what it may use"


MOST_LINES = {"function": 60, "module": 400}


def too_long(code):
    """(name, lines) of every function and of the module itself that cannot be taken in at a glance."""
    found = [] if (lines := len(code.splitlines())) <= MOST_LINES["module"] else [("module", lines)]
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = node.end_lineno - node.lineno + 1  # its docstring counts, its decorators do not
            found += [] if lines <= MOST_LINES["function"] else [(node.name, lines)]
    return found


def test_no_function_and_no_module_is_too_long():
    body = "        x = 1\n"
    fits, does_not = f"class C:\n    def f(self):\n{59 * body}", f"class C:\n    async def g(self):\n{60 * body}"
    assert too_long(fits) == []
    assert too_long(fits + does_not) == [("g", 61)]
    assert too_long("x = 1\n" * 400) == []
    assert too_long("x = 1\n" * 401) == [("module", 401)]
    assert [(name_of(path), *one) for path in FILES for one in too_long(path.read_text(encoding="utf-8"))] == []


@needs_source
def test_no_function_of_studies_and_benchmarks_is_too_long():
    files = [path for folder in ("studies", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]
    assert {"findings.py", "coordinator_overhead.py"} <= {path.name for path in files}
    found = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in files
        for name, _ in too_long(path.read_text(encoding="utf-8"))
        if name != "module"
    }
    assert found == set()


def test_tests_follow_the_rooms():
    here = {path.name for path in Path(__file__).parent.iterdir() if (path / "__init__.py").exists()}
    assert here <= {path.parent.name for path in PACKAGE.glob("*/__init__.py")} | {"studies"}
    assert sorted(path.name for path in Path(__file__).parent.glob("test_*.py")) == [
        "test_atomic.py",
        "test_imports.py",
        "test_quantities.py",
        "test_rng.py",
    ]


def test_no_source_is_ignored_by_git():
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    here = [str(path.relative_to(ROOT)) for path in FILES]
    words = ["git", "-C", str(ROOT), "check-ignore", "--no-index", *here]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stdout  # 1: none of them


LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"


@needs_source
def test_import_contracts_hold():
    done = subprocess.run(
        [sys.executable, "-c", LINT, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " 0 broken" in done.stdout
