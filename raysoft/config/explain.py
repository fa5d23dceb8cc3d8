"""What every key means: read off the sections and the plug-ins' Configs, which declare it once.

The meaning is the string under a key (or `Field(description=...)`), its unit stands in brackets at the end; bounds,
choices and defaults are those of the types.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from raysoft.config import registry
from raysoft.config.base import PLUGINS, Plugin, Section
from raysoft.config.sections import RunConfig
from raysoft.errors import ConfigError

REQUIRED = "required"
_UNIT = re.compile(r"\s*\[([^\[\]]+)\]$")
_SIGNS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


@dataclass(frozen=True)
class Key:
    """One key of a configuration; everything as text. `value`: of the configuration that is explained, else None."""

    key: str
    meaning: str  # "" where its plug-in declares none
    unit: str  # "" where it is not a number, "1" where the number has none
    valid: str
    default: str  # REQUIRED where there is none
    choices: tuple[str, ...] = ()  # where all that is valid can be listed, or some words of it
    value: str | None = None

    def with_unit(self, text: str) -> str:
        """A value of this key with its unit.

        >>> Key("a", "", "s", "", "").with_unit("2"), Key("a", "", "1", "", "").with_unit("null")
        ('2 s', 'null')
        """
        return f"{text} {self.unit}" if self.unit not in ("", "1") and text[:1] in "0123456789-[{" else text


@dataclass(frozen=True)
class Chapter:
    """The keys of one section or plug-in. `name`: its section; `plugin`: the plug-in's name, "" for a plain section."""

    name: str
    doc: str  # a docstring
    keys: tuple[Key, ...]
    plugin: str = ""


class _Lenient(GenerateJsonSchema):
    """Types of other packages may have no JSON schema; such a key is shown with its name, meaning and default."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - as pydantic has it

    def handle_invalid_for_json_schema(self, schema: core_schema.CoreSchema, error_info: str) -> JsonSchemaValue:
        return {}


@cache
def _schema(kind: type[BaseModel]) -> dict[str, Any]:
    return kind.model_json_schema(schema_generator=_Lenient)


def keys_of(kind: type[Section], prefix: str = "", values: Section | None = None) -> tuple[Key, ...]:
    """Every key of a section, those of sections within it included, in the order of the declaration."""
    return tuple(_keys(kind, prefix, values))


def _keys(kind: type[Section], prefix: str, values: Section | None) -> Iterator[Key]:
    schema = _schema(kind)
    properties, definitions = schema.get("properties", {}), schema.get("$defs", {})
    for name, field in kind.model_fields.items():
        key, inner = f"{prefix}.{name}" if prefix else name, field.annotation
        value = None if values is None else getattr(values, name)
        if isinstance(inner, type) and issubclass(inner, Section):
            yield from _keys(inner, key, value)
            continue
        found = properties.get(name, {})
        unit = _UNIT.search(field.description or "")
        yield Key(
            key=key,
            meaning=" ".join(_UNIT.sub("", field.description or "").split()),
            unit=unit[1] if unit else "",
            valid=valid(found, definitions),
            default=REQUIRED if field.is_required() else text_of(field.get_default(call_default_factory=True)),
            choices=choices(found),
            value=None if values is None else text_of(value),
        )


def valid(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """What a JSON schema allows, in words.

    >>> valid({"anyOf": [{"type": "integer", "minimum": 1}, {"const": "auto", "type": "string"}]}, {})
    'whole number >= 1 or auto'
    >>> valid({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, {}), valid({"enum": ["a", "b"]}, {})
    ('number > 0 and <= 1', 'a | b')
    """
    if "$ref" in schema:
        schema = definitions.get(schema["$ref"].rpartition("/")[2], {})
    if "anyOf" in schema and not all(map(choices, schema["anyOf"])):
        return " or ".join(valid(one, definitions) for one in schema["anyOf"])
    if words := choices(schema):
        return " | ".join(words)
    kind = schema.get("type")
    if kind == "array":
        if "prefixItems" in schema:
            return f"[{', '.join(valid(one, definitions) for one in schema['prefixItems'])}]"
        return f"list of {valid(schema.get('items', {}), definitions)}"
    if kind == "object":
        return _mapping(schema, definitions)
    names = {"integer": "whole number", "number": "number", "string": "text"}
    return f"{names.get(str(kind), 'see its package')} {_bounds(schema)}".strip()


def _bounds(schema: Mapping[str, Any]) -> str:
    if "minimum" in schema and "maximum" in schema:
        return f"{text_of(schema['minimum'])} to {text_of(schema['maximum'])}"
    return " and ".join(f"{sign} {text_of(schema[name])}" for name, sign in _SIGNS.items() if name in schema)


def _mapping(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """Of a section its keys, of a plug-in its name, else what each name stands for."""
    if names := list(schema.get("properties", {})):
        more = ", ..." if schema.get("additionalProperties") else ""
        return "{" + ", ".join(names) + more + "}"
    each = schema.get("additionalProperties")
    return f"names with a {valid(each, definitions)} each" if isinstance(each, dict) and each else "mapping"


def choices(schema: Mapping[str, Any]) -> tuple[str, ...]:
    """The words that a JSON schema names: alternatives, true and false, null beside them.

    >>> choices({"anyOf": [{"type": "boolean"}, {"const": "transport"}]}), choices({"type": "integer"})
    (('true', 'false', 'transport'), ())
    """
    if "anyOf" in schema:
        return tuple(word for one in schema["anyOf"] for word in choices(one))
    if "const" in schema:
        return (text_of(schema["const"]),)
    if "enum" in schema:
        return tuple(map(text_of, schema["enum"]))
    return {"boolean": ("true", "false"), "null": ("null",)}.get(str(schema.get("type")), ())


def text_of(value: Any) -> str:
    """A value as a person writes it in YAML, on one line; of plug-ins their names.

    >>> text_of({"low": 5e8, "high": None}), text_of((0.9, 1e-28)), text_of(True)
    ('{low: 5e8, high: null}', '[0.9, 1e-28]', 'true')
    """
    if isinstance(value, Plugin):
        return value.name
    if isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {text_of(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(text_of, value)) + "]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return _number(value) if isinstance(value, int | float) else str(value)


def _number(value: int | float) -> str:
    """As few digits as are exact.

    >>> _number(2**63), _number(1e6), _number(250), _number(0.05)
    ('2^63', '1e6', '250', '0.05')
    """
    if isinstance(value, int) and value > 2**20 and value.bit_count() == 1:
        return f"2^{value.bit_length() - 1}"
    short = re.sub(r"e\+?(-?)0*", r"e\1", f"{value:g}")
    return short if float(short) == value else str(value)


def chapters(config: RunConfig | None = None) -> list[Chapter]:
    """All sections of a run: with the values and the plug-ins of a configuration, or only those that are always there.

    The first has the keys that stand in no section.
    """
    found = [Chapter("", "Keys that stand in no section.", _outside(config))]
    for name, field in RunConfig.model_fields.items():
        kind, section = field.annotation, None if config is None else getattr(config, name)
        if isinstance(kind, type) and issubclass(kind, Section):
            found.append(Chapter(name, kind.__doc__ or "", keys_of(kind, name, section)))
        elif isinstance(section, Plugin):
            found += _of_plugin(name, name, section)
    return found


def _outside(config: RunConfig | None) -> tuple[Key, ...]:
    everything = keys_of(RunConfig, "", config)
    return tuple(one for one in everything if "." not in one.key and one.key not in PLUGINS)


def _of_plugin(kind: str, place: str, section: Plugin) -> Iterator[Chapter]:
    """A plug-in as it is set; then those in a list of its options: members of a chain, extras of a method."""
    options = section.checked or registry.options(kind, section, place)
    module, keys = registry.plugin(kind, section.name), keys_of(type(options), place, options)
    named = (name_key(kind, place, section.name),) if place == kind else ()
    yield Chapter(place, module.__doc__ or "", (*named, *keys), section.name)
    for name in type(options).model_fields:
        value = getattr(options, name)
        for number, one in enumerate(value if isinstance(value, list) else ()):
            if isinstance(one, Plugin):
                yield from _of_plugin("extra" if name == "extras" else kind, f"{place}.{name}[{number}]", one)


def name_key(kind: str, place: str, value: str | None = None) -> Key:
    """The key by which a plug-in is chosen."""
    meaning = (RunConfig.model_fields[kind].description or "").rstrip(".")
    names = registry.names(kind)
    return Key(f"{place}.name", f"{meaning}: the plug-in.", "", " | ".join(names), REQUIRED, names, value)


def chosen(all_chapters: Sequence[Chapter], prefixes: Sequence[str]) -> list[Chapter]:
    """What is left of chapters for keys or beginnings of keys (`train`, `train.lr`). Raises ConfigError for others."""
    known = {one.key for chapter in all_chapters for one in chapter.keys}
    known |= {".".join(key.split(".")[:end]) for key in known for end in range(1, key.count(".") + 1)}
    for prefix in prefixes:
        if prefix not in known:
            close = difflib.get_close_matches(prefix, sorted(known), n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ConfigError(prefix[:80], f"no key or section of this configuration{hint}")
    left = []
    for chapter in all_chapters:
        keys = [one for one in chapter.keys if not prefixes or any(_within(one.key, prefix) for prefix in prefixes)]
        if keys or not prefixes:
            left.append(Chapter(chapter.name, chapter.doc, tuple(keys), chapter.plugin))
    return left


def _within(key: str, prefix: str) -> bool:
    return key == prefix or key.startswith((f"{prefix}.", f"{prefix}["))
