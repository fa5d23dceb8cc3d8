"""The keys of a configuration with their meaning, as `raysoft show --explain` prints them and docs/configuration.md has
them: `python -m raysoft.terminal.explaining` writes that page.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import wrap

from raysoft.api.listing import KINDS, idea
from raysoft.config import RunConfig, Section, registry
from raysoft.config.explain import REQUIRED, Chapter, Key, chapters, chosen, keys_of, name_key
from raysoft.sweep.config import SCHEDULERS, SweepConfig

PAGE = Path("docs/configuration.md")
NO_MEANING = "(its package says nothing)"
_WIDEST = 100  # longer lines are hard to read
_HEAD = """# Every key of a configuration

Written by `python -m raysoft.terminal.explaining` from the sections and the plug-ins themselves; `raysoft show PRESET
--explain [KEY]` prints the same for one configuration, with its values and with plug-ins of other packages.

A key is set as `train.lr=1e-2` on the command line, or in a YAML file. Unit 1: a number without one. `null`: there is
none. Numbers have wide bounds besides those given (1e-30 to 1e30 in size), which only keep derived numbers finite.
"""


def explained(config: RunConfig, keys: Sequence[str], width: int) -> str:
    """All keys of a configuration, or these and those below them, in lines of at most `width` columns.

    Raises ConfigError for a key that is not there.
    """
    return "\n\n".join(_shown(chapter, min(width, _WIDEST)) for chapter in chosen(chapters(config), keys))


def _shown(chapter: Chapter, width: int) -> str:
    name = f"{chapter.name} {chapter.plugin}".strip()
    lines = wrap(f"{name}: {idea(chapter.doc)}".removeprefix(": "), width)
    for one in chapter.keys:
        lines += ["", *_entry(one, width)]
    return "\n".join(lines)


def _entry(one: Key, width: int) -> list[str]:
    """Key and value; default where the value is another; meaning; what is valid."""
    value = one.default if one.value is None else one.value
    first = f"  {one.key} = {one.with_unit(value)}"
    if one.default == REQUIRED:
        first += "  (no default)"
    else:
        first += "  (default)" if value == one.default else f"  (default {one.with_unit(one.default)})"
    inside = {"width": width, "initial_indent": "      ", "subsequent_indent": "      ", "break_on_hyphens": False}
    head = wrap(first, width, subsequent_indent="      ", break_on_hyphens=False, break_long_words=False)
    return [*head, *wrap(f"{one.meaning or NO_MEANING} Valid: {one.valid}", **inside)]  # type: ignore[arg-type]


def configuration_page() -> str:
    """docs/configuration.md: sections of a run, every plug-in that comes along, a sweep."""
    parts = [_HEAD, "## A run\n"]
    for chapter in chapters():
        parts.append(_chapter(3, f"`{chapter.name}`" if chapter.name else "Outside of sections", chapter))
    for kind in KINDS:
        parts.append(f"## {kind.capitalize()}s\n")
        common = _common(kind)
        named = [] if kind == "extra" else [name_key(kind, kind)]
        if common or named:
            parts += [f"Every {kind}:\n", _table([*named, *common])]
        for name in registry.KINDS[kind]:
            module = registry.plugin(kind, name)
            own = [one for one in keys_of(module.Config, kind) if one not in common]
            parts.append(_chapter(3, f"`{name}`", Chapter(kind, module.__doc__ or "", tuple(own), name)))
    parts += ["## A sweep\n", "A file of `raysoft tune` ([how](tune.md)).\n", _table(keys_of(SweepConfig))]
    for name, scheduler in SCHEDULERS.items():
        own = [one for one in keys_of(scheduler, "scheduler") if not one.key.endswith(".name")]
        parts.append(_chapter(3, f"Scheduler `{name}`", Chapter("scheduler", scheduler.__doc__ or "", tuple(own))))
    return "\n".join(parts).rstrip() + "\n"


def _common(kind: str) -> list[Key]:
    """The keys of the class that all Configs of a kind extend."""
    lines = [registry.plugin(kind, name).Config.__mro__ for name in registry.KINDS[kind]]
    bases: list[type[Section]] = [one for one in lines[0] if issubclass(one, Section) and one is not Section]
    return list(keys_of(bases[-1], kind))


def _chapter(level: int, title: str, chapter: Chapter) -> str:
    text = f"{'#' * level} {title}\n\n{idea(chapter.doc)}\n"
    return f"{text}\n{_table(chapter.keys)}" if chapter.keys else text


def _table(keys: Iterable[Key]) -> str:
    rows = ["| key | meaning | unit | valid | default |", "|---|---|---|---|---|"]
    for one in keys:
        default = REQUIRED if one.default == REQUIRED else f"`{one.default}`"
        cells = (f"`{one.key}`", one.meaning, one.unit, one.valid, default)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(configuration_page(), encoding="utf-8")
