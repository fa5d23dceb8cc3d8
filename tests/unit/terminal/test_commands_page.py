"""The page of all commands is what the command line says of itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import typer

from raysoft.terminal.cli import app

SITE = Path(__file__).parents[3] / "docs" / "site" / "generated.py"


def test_every_command_and_option_is_on_the_page():
    spec = importlib.util.spec_from_file_location("generated", SITE)
    generated = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generated)
    page = generated.filled("<!-- generated: commands -->\nx\n<!-- end -->\n")
    group = typer.main.get_command(app)
    assert {"run", "resume", "show", "compare", "tune", "report", "list", "completion"} <= set(group.commands)
    for name, command in group.commands.items():
        part = page.split(f"\n## {name}\n" if not page.startswith(f"## {name}\n") else f"## {name}\n")[1].split(
            "\n## "
        )[0]
        assert f"raysoft {name} " in part
        for one in command.params:
            if one.name != "help" and not getattr(one, "hidden", False) and one.opts[0].startswith("--"):
                assert f"`{one.opts[0]}" in part, (name, one.name)
    assert "&lt;str>" not in page
    assert "--reference LABEL" in page
