"""`raysoft new KIND NAME`: a commented file that works as it is."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from raysoft.config import registry
from raysoft.errors import ConfigError

_NAME = re.compile(r"[A-Za-z_]\w{0,63}")


def write_template(kind: str, name: str) -> Path:
    """Write NAME.py into the current folder. Raises ConfigError for what is no kind or name, or is there already."""
    if kind not in registry.KINDS:
        raise ConfigError("KIND", f"must be one of {', '.join(registry.KINDS)}, got {kind!r:.60}")
    stem = name.removesuffix(".py")
    if not _NAME.fullmatch(stem):
        raise ConfigError("NAME", f"must be letters, digits and '_', beginning with no digit, got {name!r:.60}")
    path = Path(f"{stem}.py")
    text = (files(__package__) / "templates" / f"{kind}.txt").read_text(encoding="utf-8")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text.replace("NAME", stem))
    except FileExistsError:
        raise ConfigError("NAME", f"{path} is there already, and is not overwritten; choose another name") from None
    except OSError as error:
        raise ConfigError("NAME", f"{path} cannot be written: {error.strerror}") from None
    return path


def how_to_use(kind: str, path: Path) -> str:
    """The command that runs with it."""
    word = f"'method.extras=[./{path}]'" if kind == "extra" else f"{kind}.name=./{path}"
    return f"raysoft run fedit {word}"
