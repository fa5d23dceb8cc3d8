"""Tables of the pages that are read off the package itself: they are true whenever the site is built."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from inspect import getdoc
from types import ModuleType
from typing import Any

import typer
from pydantic.fields import FieldInfo

from raysoft import quantities
from raysoft.config import presets, registry
from raysoft.terminal import cli

PLACES = {
    "record": "`rounds.jsonl`",
    "summary": "`summary.json`",
    "metrics": "`metrics` of both",
    "row": "row of a comparison or sweep",
    "arm": "row of an arm",
}


def markdown_of(doc: str | None) -> str:
    """A plain docstring as Markdown: what is not code loses its meaning as markup, lists get the line before them."""
    lines, before = [], ""
    for line in (doc or "").splitlines():
        text = line if line.startswith("    ") else _as_text(re.sub(r"^\* ", "- ", line))
        if text.startswith("- ") and before.strip() and not before.startswith(("- ", "  ")):
            lines.append("")
        lines.append(text)
        before = text
    return "\n".join(lines)


def _as_text(line: str) -> str:
    parts = re.split(r"(`[^`]+`)", line)
    return "".join(part if part.startswith("`") else re.sub(r"([<*_\\])", _escaped, part) for part in parts)


def _escaped(match: re.Match[str]) -> str:
    return {"<": "&lt;"}.get(match[1], "\\" + match[1])


def plug_ins(kind: str) -> str:
    """Every built-in plug-in of a kind: what its module says, and its own options beside those of its kind."""
    lines, shared = [], _shared(kind)
    if shared:
        where = f"`{kind}.…`" if kind != "extra" else "an entry of `method.extras`"
        lines += [f"Options of all of them, in {where}:", "", *_options(shared), ""]
    for name in registry.KINDS[kind]:
        module = registry.plugin(kind, name)
        own = {key: field for key, field in module.Config.model_fields.items() if key not in shared}
        lines += [f"### {name}", "", f"`{_chosen_by(kind, name)}`", "", markdown_of(getdoc(module)), ""]
        lines += [*_options(own), ""] if own else []
    return "\n".join(lines)


def _chosen_by(kind: str, name: str) -> str:
    return f"method.extras=[{{name: {name}}}]" if kind == "extra" else f"{kind}.name={name}"


def _shared(kind: str) -> dict[str, FieldInfo]:
    """The options that every plug-in of a kind has with the same default."""
    configs = [_config(registry.plugin(kind, name)) for name in registry.KINDS[kind]]
    first, *others = [config.model_fields for config in configs]
    return {
        key: field
        for key, field in first.items()
        if all(key in one and one[key].default == field.default for one in others)
    }


def _config(module: ModuleType) -> Any:
    return module.Config


def _options(fields: dict[str, FieldInfo]) -> list[str]:
    described = any(field.description for field in fields.values())
    head = ["option", "default", *(["meaning"] if described else [])]
    rows = [
        [f"`{key}`", f"`{_default(field)}`", *([cell(field.description or "")] if described else [])]
        for key, field in fields.items()
    ]
    return table(head, rows)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if hasattr(value, "model_dump"):
        value = value.model_dump()
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))


def preset_table() -> str:
    """Every preset with the first comment of its file."""
    rows = [[f"`{name}`", cell(presets.describe_preset(name))] for name in presets.preset_names()]
    return "\n".join(table(["preset", "what it is"], rows))


def quantity_table() -> str:
    """Every row of `raysoft/quantities.py`."""
    rows = [
        [
            f"`{one.key}`",
            cell(one.label.format(equal="bits, seconds or joules", accuracy="accuracy"))
            + (" (text tasks)" if one.text_task else ""),
            (one.unit or "–") + _factor(one.factor),
            one.better or "–",
            ", ".join(PLACES[place] for place in one.places) or "tables of comparisons",
        ]
        for one in quantities.TABLE
    ]
    return "\n".join(table(["key", "what it is", "unit", "better", "where"], rows))


def _factor(factor: float) -> str:
    """What a stored number is multiplied with to be in its unit, where that is not 1."""
    return "" if factor == 1 else f" (× {factor:g})" if factor > 1 else f" (÷ {1 / factor:,.0f})"


def commands() -> str:
    """Every command of the command line: usage, what it does, its arguments and options."""
    group: Any = typer.main.get_command(cli.app)
    lines = []
    for name, command in group.commands.items():
        if command.hidden:
            continue
        context = command.make_context(f"raysoft {name}", [], resilient_parsing=True)
        usage = " ".join(command.collect_usage_pieces(context))
        lines += [f"## {name}", "", "```", f"raysoft {name} {usage}", "```", "", markdown_of(command.help), ""]
        rows = [record for one in command.get_params(context) if (record := _parameter(one, context)) is not None]
        lines += [*table(["argument or option", "meaning"], rows), ""] if rows else []
    return "\n".join(lines)


def _parameter(one: Any, context: Any) -> list[str] | None:
    """The names and the help of one argument or option; None of what is hidden, and of --help."""
    if getattr(one, "hidden", False) or one.name == "help":
        return None
    record = one.get_help_record(context)
    if record is None:
        return None
    names = re.sub(r" <[\w\[\]]+>", "", record[0])  # what kind of text it is
    return [f"`{cell(names)}`", cell(record[1] or "")]


def cell(text: str) -> str:
    """Text that stays in its cell."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(row)} |" for row in lines]


TABLES: dict[str, Callable[[], str]] = {
    "commands": commands,
    "presets": preset_table,
    "quantities": quantity_table,
    **{kind: partial(plug_ins, kind) for kind in registry.KINDS},
}


def filled(text: str) -> str:
    """A page with each `<!-- generated: NAME -->` replaced by its table, up to `<!-- end -->` where there is one."""
    pattern = re.compile(r"<!-- generated: ([\w-]+) -->\n(?:(?:(?!<!-- ).*\n)*?<!-- end -->)?")
    return pattern.sub(lambda match: TABLES[match[1]](), text)
