"""Where a run's folder goes: what the user says, $RAYSOFT_OUTPUTS, or outputs/ here, unless here is about to vanish.

A Ray job runs in a copy of its working directory that Ray unpacks on the cluster and removes later.
"""

from __future__ import annotations

import os
from pathlib import Path

from raysoft.errors import ConfigError
from raysoft.rundir.remote import is_uri

ROOT = "RAYSOFT_OUTPUTS"
_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray in the entrypoint of a job
_UNPACKED = "working_dir_files"  # the folder of Ray's session that holds unpacked working directories


def default_root() -> Path | str:
    """The folder (or URI) of runs that were given none."""
    root = os.environ.get(ROOT)
    if root:
        return _checked(root, ROOT)
    return expanded("~/raysoft-outputs", ROOT) if in_unpacked_job() else Path("outputs")


def destination(out: str | None, name: str, option: str = "--out") -> Path | str:
    """The folder of a run: a path of this machine, or a URI. Raises ConfigError for one that would be lost."""
    if out is not None:
        return _checked(out, option)
    root = default_root()
    return root / name if isinstance(root, Path) else f"{root.rstrip('/')}/{name}"


def local_destination(out: str | None, name: str, option: str = "--out") -> Path:
    """The same for what is written on this machine alone. Raises ConfigError for a URI as well."""
    place = destination(out, name, option)
    if isinstance(place, Path):
        return place
    raise ConfigError(
        ROOT if out is None else option,
        f"{place}: this command writes a folder of this machine, so give {option} a "
        "path (the runs of a sweep travel to `storage`)",
    )


def expanded(text: str, option: str) -> Path:
    """A path as a user writes it, `~` spelt out. Raises ConfigError(option) for an empty one and a home nobody has."""
    if not text:
        raise ConfigError(option, "must name a folder, got ''")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        user = text.split("/", maxsplit=1)[0]
        raise ConfigError(option, f"{text[:200]!r}: {user!r} is no home folder on this machine; give a path") from None


def in_unpacked_job() -> bool:
    """Whether this is a Ray job whose current folder is Ray's copy of the working directory."""
    return _JOB in os.environ and _UNPACKED in Path.cwd().parts


def _checked(text: str, option: str) -> Path | str:
    if is_uri(text):
        return text
    path = expanded(text, option)
    if not path.is_absolute() and in_unpacked_job():
        raise ConfigError(
            option,
            f"{text!r} lies in the job's working directory, which Ray removes from the cluster; give an "
            "absolute path that outlives the job, or a URI such as s3://bucket/folder",
        )
    return path
