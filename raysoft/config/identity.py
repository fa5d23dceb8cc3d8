"""What a result is made of besides its configuration: content of the user's files, versions of what is embedded.

A path says nothing about what lies there. So a run notes a digest of each file or folder that it reads (data, base
model, files of plug-ins), a version of each embedded task and model, and the revision of a plug-in whose numbers have
changed. Two runs are the same only where these agree as well as the configuration's hash. Digests are taken by
federation/content.py.

An identity maps configuration keys to texts; None: could not be known. Runs of raysoft 0.1 noted none: their embedded
tasks are version 1, and nothing is known of their files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from raysoft.config.base import PLUGINS
from raysoft.config.sections import RunConfig

Identity = Mapping[str, str | None]
# Raised where the samples of an embedded task change.
TASK_VERSIONS = {"digits": 1, "digit-domains": 1, "python-source": 1}
EMBEDDED = "embedded/"  # how the names of embedded models begin
DATA, TASK, MODEL = "data.path", "data.task", "model.name"


def revisions_of(config: RunConfig) -> dict[str, str | None]:
    """The plug-ins whose numbers are not those of their first revision."""
    found = config.revisions().items()
    return {f"{kind}.name": f"{getattr(config, kind).name}, revision {number}" for kind, number in found}


def recorded(summary: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, str | None]:
    """The identity in a summary; what follows from the configuration (a mapping) where the run noted none."""
    found = summary.get("identity")
    if isinstance(found, dict):
        return {str(key): value if isinstance(value, str) else None for key, value in found.items()}
    return first_identity(config)


def first_identity(config: Mapping[str, Any]) -> dict[str, str | None]:
    """What is known of a run of raysoft 0.1: embedded tasks and models were version 1, files were not looked at."""
    task, model = _text(config, "data", "task"), _text(config, "model", "name")
    known = task in TASK_VERSIONS
    return {
        (TASK if known else DATA): version_text(task, 1) if known else None,
        MODEL: version_text(model, 1) if model.startswith(EMBEDDED) else None,
    }


def differences(one: Identity, two: Identity) -> dict[str, tuple[str | None, str | None]]:
    """The keys in which two identities differ, or of which one side does not know."""
    keys = [*one, *(key for key in two if key not in one)]
    pairs = {key: (one.get(key), two.get(key)) for key in keys}
    return {key: pair for key, pair in pairs.items() if None in pair or pair[0] != pair[1]}


def key_with(config_hash: str, identity: Identity, config: Mapping[str, Any]) -> str:
    """A configuration's hash with what it was made of; the hash itself where that is what 0.1 had (embedded tasks)."""
    revised = {f"{kind}.name" for kind in PLUGINS}  # in the hash already
    content = {key: value for key, value in identity.items() if key not in revised}
    if content == first_identity(config):
        return config_hash
    text = json.dumps([config_hash, content], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _text(config: Mapping[str, Any], section: str, key: str) -> str:
    part = config.get(section)
    return str(part.get(key)) if isinstance(part, Mapping) else ""


def version_text(name: str, number: int) -> str:
    """How an embedded task or model is named.

    >>> version_text("digits", 1)
    'digits, version 1'
    """
    return f"{name}, version {number}"
