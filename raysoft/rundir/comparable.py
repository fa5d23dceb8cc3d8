"""Which runs may stand in one table: those that were evaluated on the same samples, from the same base.

Differences of accuracy between two tasks, data sets or base models say nothing about method, codec or allocator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raysoft.config import DataConfig, EvalConfig
from raysoft.config.identity import DATA, MODEL, TASK, Identity

_CAUSAL = ("causal-lm", "python-source")
_COLUMNS = {
    "image-classification": ("image_column", "label_column"),
    "sequence-classification": ("text_column", "label_column"),
    "causal-lm": ("text_column",),
}


@dataclass(frozen=True)
class Ground:
    """One thing on which an accuracy stands: what the user called it, and its content where that is known."""

    name: str
    content: str | None = None

    def differs(self, other: Ground) -> bool:
        """Content counts; where one side does not know it (runs of raysoft 0.1), the name has to do."""
        if self.content is None or other.content is None:
            return self.name != other.name
        return self.content != other.content

    def __str__(self) -> str:
        if self.content is None or self.content.startswith(f"{self.name}, "):  # of an embedded one: its version
            return self.content or self.name
        return f"{self.name} ({self.content})"


Grounds = Mapping[str, Ground]


def grounds_of(config: Mapping[str, Any], identity: Identity) -> dict[str, Ground]:
    """What decides on which samples a run (its configuration as a mapping) is evaluated, and where it began."""
    task, path = str(_value(config, "data", "task")), _value(config, "data", "path")
    split = str(_value(config, "eval", "split"))
    keys = ["subset", *_COLUMNS.get(task, ()), "max_test_samples"]
    keys.append("validation_fraction" if split == "validation" else "test_fraction")
    keys += ["max_length"] if task in _CAUSAL else []  # how much of a text is scored
    out = {TASK: Ground(task, identity.get(TASK))}
    if path is not None:
        out[DATA] = Ground(str(path), identity.get(DATA))
    out["eval.split"] = Ground(split)
    out |= {f"data.{name}": Ground(_shown(_value(config, "data", name))) for name in keys}
    return out | {MODEL: Ground(str(_value(config, "model", "name")), identity.get(MODEL))}


def refusal(names: Sequence[str], sides: Sequence[Grounds]) -> str | None:
    """Why the first of these runs that differs cannot be compared with run 0, in one sentence; None where all can."""
    first = sides[0]
    for name, side in zip(names[1:], sides[1:], strict=True):
        common = [key for key in first if key in side]  # what only one has follows from another task or split
        differing = [f"{key} is {first[key]} and {side[key]}" for key in common if first[key].differs(side[key])]
        if differing:
            what = "; ".join(differing)
            return f"{names[0]!r} and {name!r} cannot be compared, their figures stand on different things: {what}"
    return None


def _value(config: Mapping[str, Any], section: str, name: str) -> Any:
    """A setting, or its default where an older run does not say."""
    part = config.get(section)
    fields = {"data": DataConfig.model_fields, "eval": EvalConfig.model_fields}.get(section, {})
    default = fields[name].get_default() if name in fields else None
    return part.get(name, default) if isinstance(part, Mapping) else default


def _shown(value: Any) -> str:
    return "not set" if value is None else str(value)
