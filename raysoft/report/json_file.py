"""Reading a JSON file that a command of raysoft wrote, checked by a pydantic model."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from raysoft.errors import RaysoftError

M = TypeVar("M", bound=BaseModel)


class FilePart(BaseModel):
    """A mapping in such a file; what later versions add is passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


def read_checked(path: Path, model: type[M]) -> M:
    """The file's content. Raises RaysoftError naming the file, the field and the value."""
    try:
        return model.model_validate_json(path.read_bytes())
    except OSError as error:
        raise RaysoftError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        given = f", got {first['input']!r:.60}" if place and first["type"] != "missing" else ""
        raise RaysoftError(f"{path}: {place + ': ' if place else ''}{message}{given}") from None
