"""What `import raysoft` offers: names, docstrings, types, and that it costs nothing until it is used."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import raysoft
from raysoft.errors import ConfigError

OFFERED = ("load", "run", "resume", "compare", "plan", "tune", "report", "catalogue", "open")
PACKAGE = Path(raysoft.__file__).parent


def test_everything_offered_completes_and_explains_itself():
    assert set(OFFERED) <= set(dir(raysoft))
    assert [name for name in dir(raysoft) if not name.startswith("_")] == sorted(
        name for name in raysoft.__all__ if not name.startswith("_")
    )
    for name in raysoft.__all__:
        assert name.startswith("_") or getattr(raysoft, name).__doc__, name
        assert not name.startswith("_") or hasattr(raysoft, name)
    for name in OFFERED:
        assert name in raysoft.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'ran'"):
        raysoft.ran


@pytest.mark.parametrize("name", OFFERED)
def test_every_argument_has_a_type(name):
    thing = getattr(raysoft, name)
    function = thing.__call__ if name == "report" else thing
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    assert all(one.annotation is not inspect.Parameter.empty for one in signature.parameters.values())


def test_type_checkers_see_what_is_loaded_on_use():
    """The names under TYPE_CHECKING are those of `__all__`, from the modules that they come from."""
    source = Path(raysoft.__file__).read_text(encoding="utf-8")
    block = source.partition("if TYPE_CHECKING:\n")[2].partition("\n\n")[0]
    scope: dict[str, object] = {}
    exec(inspect.cleandoc(block), scope)
    names = {name for name in raysoft.__all__ if not name.startswith("_")}
    assert {name for name in scope if not name.startswith("_")} == names
    for name in names - {"report"}:  # that is the room, which can be called
        assert scope[name] is getattr(raysoft, name), name
    assert inspect.signature(scope["report"], eval_str=True) == inspect.signature(raysoft.report)


def test_importing_it_loads_nothing_heavy():
    heavy = ("torch", "ray", "pandas", "matplotlib", "numpy", "pydantic", "yaml", "scipy", "IPython")
    probe = f"import raysoft, raysoft.api\nimport sys\nprint([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


def test_help_shows_the_functions():
    words = [sys.executable, "-m", "pydoc", "raysoft"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    for name in OFFERED:
        assert name == "report" or f"\n    {name}(" in done.stdout, name


def test_the_catalogue_lists_presets_and_plug_ins():
    frame = raysoft.catalogue()
    assert list(frame.columns) == ["kind", "name", "idea", "source"]
    assert set(frame.kind) == {"preset", "method", "extra", "codec", "allocator", "uplink", "channel"}
    assert (frame.idea.str.len() > 0).all()
    codecs = raysoft.catalogue("codec")
    assert set(codecs.kind) == {"codec"}
    assert "rank_components" in list(codecs.name)
    with pytest.raises(ConfigError, match=r"kind: must be one of preset, method.*got 'codecs'"):
        raysoft.catalogue("codecs")


OF_A_USER = """
import raysoft
from raysoft.types import RoundRecord

class Wrong:
    def on_round(self, run: raysoft.Running, record: RoundRecord) -> int:
        return 3

result = raysoft.run("soft", {"train.lr": 1e-2}, "rounds=3", rounds=3, callbacks=[raysoft.Callback()])
reveal_type(result.summary["final_accuracy"])
reveal_type(raysoft.report(result))
raysoft.run("soft", callbacks=Wrong())
raysoft.compare(["soft"], equal="bytes")
"""


@pytest.mark.slow
def test_a_type_checker_knows_results_and_callbacks(tmp_path):
    """As for a user of the wheel, which carries py.typed: errors in their file only."""
    (tmp_path / "mine.py").write_text(OF_A_USER)
    options = ["--strict", "--follow-imports=silent", "--cache-dir", str(tmp_path / "cache"), "mine.py"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    said = done.stdout.splitlines()
    assert 'Revealed type is "float | None"' in said[0], done.stdout
    assert 'Revealed type is "pathlib.Path"' in said[1]
    assert 'error: Argument "callbacks" to "run" has incompatible type "Wrong"' in said[2]
    assert 'error: Argument "equal" to "compare" has incompatible type' in said[3]
    assert said[4:] == ["Found 2 errors in 1 file (checked 1 source file)"]
