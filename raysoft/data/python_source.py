"""Task `python-source`: the standard library's own source; a client is a package that pretraining did not see.

A sample is one stretch of `max_length` characters of one package, without overlap. Packages differ in size; each
gives at most PACKAGE_BYTES, a keyed choice of its stretches, so that no client dwarfs the others and any Python >= 3.11
leaves 5,000 test stretches of 64 characters.
"""

from __future__ import annotations

import numpy as np

from raysoft.data.raw import RawSamples, RawTask
from raysoft.data.stdlib_source import PRETRAINING_PACKAGES, read_packages
from raysoft.errors import ConfigError
from raysoft.rng import Rng

PACKAGE_BYTES = 16384


def read(length: int, rng: Rng) -> RawTask:
    """Texts of exactly `length` ASCII characters, grouped by package. Raises ConfigError without the source."""
    contents: list[str] = []
    groups: list[str] = []
    for name, source in read_packages().items():
        if name in PRETRAINING_PACKAGES:
            continue
        text = source.decode("ascii")
        pieces = np.arange(len(text) // length)
        keep = max(1, PACKAGE_BYTES // length)
        if len(pieces) > keep:
            pieces = np.sort(rng(f"python_source:{name}").permutation(pieces)[:keep])
        contents += [text[i * length : (i + 1) * length] for i in pieces]
        groups += [name] * len(pieces)
    if not contents:
        raise ConfigError("data.task", "python-source found no source files of the standard library in this Python")
    return RawTask(RawSamples(contents, groups=groups))
