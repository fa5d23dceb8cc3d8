"""What is wrong with a configuration, as one sentence: the field, the value and what would be valid."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from raysoft.config.yaml12 import printable
from raysoft.errors import ConfigError

S = TypeVar("S", bound=BaseModel)


def _nearest(path: Sequence[str], prefix: str, kind: Any) -> str:
    """The known key that the last word of `path` may have been meant for."""
    if not path:
        return ""
    for part in path[:-1]:
        field = getattr(kind, "model_fields", {}).get(part)
        kind = None if field is None else field.annotation
    found = difflib.get_close_matches(path[-1], list(getattr(kind, "model_fields", {})), n=1)
    return (
        f"; did you mean {'.'.join([prefix, *path[:-1], found[0]] if prefix else [*path[:-1], found[0]])}?"
        if found
        else ""
    )


class PartError(ValueError):
    """What is wrong with a part of the value that a validator was given; `first_error` gives the whole path."""

    def __init__(self, part: int | str, error: ConfigError) -> None:
        self.path = [str(part), *filter(None, [error.field])]
        self.message = error.message
        super().__init__(f"{'.'.join(self.path)}: {error.message}")


_MAPPING = re.compile(r"Input should be a valid dictionary or instance of \w+")


def first_error(error: ValidationError, prefix: str = "", kind: type[BaseModel] | None = None) -> ConfigError:
    """The most telling problem of a pydantic error as one sentence: the field, the value and what is valid.

    `kind`: the section that was read, so that an unknown key can be set beside the known ones.
    """
    problems = [(_user_path(item["loc"]), item) for item in error.errors(include_url=False)]
    # A value that fits no member of a union has one problem a member: the one that got furthest into it says most.
    path = max((path for path, _ in problems), key=len)
    here = [item for where, item in problems if where == path]
    here = [item for item in here if not item["type"].endswith("_type")] or here
    item = here[0]
    field = ".".join([prefix, *path] if prefix else path)
    if item["type"] == "extra_forbidden":
        return ConfigError(field, "unknown key" + _nearest(path, prefix, kind))
    if isinstance(part := item.get("ctx", {}).get("error"), PartError):
        return ConfigError(".".join([field, *part.path]), part.message)
    if item["type"] == "missing":
        return ConfigError(field, "is required")
    messages = [
        _MAPPING.sub("must be a mapping of keys to values", one["msg"].removeprefix("Value error, ")) for one in here
    ]
    message = " or ".join(dict.fromkeys(text[:1].lower() + text[1:] for text in messages))
    message = " ".join(message.split())
    if item["type"] == "value_error":
        return ConfigError(field, message)
    shown = repr(item["input"])
    return ConfigError(field, f"{message}, got {shown if len(shown) <= 80 else shown[:77] + '...'}")


def _user_path(location: tuple[int | str, ...]) -> list[str]:
    """The keys a user wrote: union members and validators add their own parts to pydantic's location."""
    return [printable(str(part)) for part in location if not _is_internal(str(part))]


def _is_internal(part: str) -> bool:
    return bool(re.search(r"[\[\]()]", part)) or part in {
        "int",
        "float",
        "str",
        "bool",
        "constrained-int",
        "constrained-float",
        "Range",
        "StepsRange",
    }


def parse_section(kind: type[S], tree: Any, prefix: str = "") -> S:
    """Validate a mapping against a section; raises ConfigError naming the field."""
    if not isinstance(tree, dict):
        raise ConfigError(prefix, f"must be a mapping, got {tree!r:.80}")
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise first_error(error, prefix, kind) from None
    except RecursionError:
        raise ConfigError(prefix, "is nested too deeply") from None
