"""Nothing secret leaves this machine with a configuration: passwords, keys, tokens, signed addresses."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

REDACTED = "[redacted]"
_SECRET_NAME = re.compile(
    r"passw(or)?d|secret|credential|(api|access|private|account|storage)_?key|auth_?token|(^|_)token$", re.IGNORECASE
)
_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")  # user:password@ of an address
_QUERY = re.compile(r"(?<=\?)\S+")  # signatures and keys of an address
_SHORTEST_SECRET = 8  # a shorter value of the environment would be found in innocent words


def redacted(value: Any, environ: Mapping[str, str] | None = None) -> Any:
    """A copy of plain data without what a secret-like name or address holds, or what a secret variable of the
    environment holds."""
    variables = os.environ if environ is None else environ
    known = [text for name, text in variables.items() if _SECRET_NAME.search(name) and len(text) >= _SHORTEST_SECRET]
    return _redacted(value, known)


def _redacted(value: Any, known: list[str]) -> Any:
    if isinstance(value, Mapping):
        return {
            key: REDACTED if _SECRET_NAME.search(str(key)) and isinstance(item, str) else _redacted(item, known)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_redacted(item, known) for item in value]
    if not isinstance(value, str):
        return value
    for secret in known:
        value = value.replace(secret, REDACTED)
    if "://" in value:
        value = _QUERY.sub(REDACTED, _LOGIN.sub(f"{REDACTED}@", value))
    return value
