"""Tasks that are nothing but labels, and the configurations that divide them among clients."""

from __future__ import annotations

from typing import Any

import numpy as np

from raysoft.config import RunConfig, parse_section
from raysoft.data.base import Examples, TaskData


def config(cohort: int = 1, **data: Any) -> RunConfig:
    """A configuration with these settings of data; its plug-ins are never looked up."""
    plugin = {"name": "x"}
    sections = {kind: plugin for kind in ("method", "codec", "allocator", "uplink", "channel")}
    tree = {"model": {"name": "m"}, "data": {"task": "digits", **data}, "cohort": {"size": cohort}, **sections}
    return parse_section(RunConfig, tree)


def task(labels: np.ndarray, groups: np.ndarray | None = None) -> TaskData:
    """Training samples of these labels, with blank images of one pixel."""

    def examples(values: np.ndarray) -> Examples:
        return Examples({"pixel_values": np.zeros((len(values), 1, 1, 1), dtype=np.float32)}, values)

    names = () if groups is None else tuple(f"g{i}" for i in range(int(groups.max()) + 1))
    empty = examples(labels[:0])
    return TaskData("image-classification", examples(labels), empty, empty, empty, groups=groups, group_names=names)
