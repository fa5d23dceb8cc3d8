"""comparison.json as checked data: what `raysoft compare` found, arm by arm and seed by seed; null where unknown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from raysoft.errors import RaysoftError
from raysoft.quantities import LEARNED, keys_in
from raysoft.report.json_file import FilePart, read_checked
from raysoft.rundir.checks import MOST

COMPARISON_JSON = "comparison.json"
Number = Annotated[float, Field(ge=-MOST, le=MOST)]
Maybe = Number | None
Text = Annotated[str, Field(min_length=1)]


# The columns of an arm, in the order of tables; the round of an equal cost is there where a comparison was read so.
ARM_KEYS = (*keys_in("row", "arm"), "equal_round")


class ClosingFigures(FilePart):
    """The closing figures of a run, or their mean or standard deviation over the seeds of an arm, by key."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Maybe] = Field(init=False)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, tree: Any) -> Any:
        """Keys of later versions are passed over."""
        known = {*ARM_KEYS, *cls.model_fields}
        return {key: value for key, value in tree.items() if key in known} if isinstance(tree, dict) else tree

    def get(self, key: str) -> float | None:
        """The figure, or None where there is none."""
        return self.__pydantic_extra__.get(key)


class ArmRun(ClosingFigures):
    """One run of an arm; `folder` is relative to the comparison folder."""

    seed: int
    folder: Text


class ArmRecord(FilePart):
    """One setting under comparison and its runs, one a seed."""

    label: Text
    target: str = ""
    overrides: tuple[str, ...] = ()
    runs: Annotated[tuple[ArmRun, ...], Field(min_length=1)]
    mean: ClosingFigures = ClosingFigures()
    std: ClosingFigures = ClosingFigures()

    def values(self, key: str) -> list[float]:
        """One value a seed, in order of the runs; seeds without one are left out."""
        return [value for run in self.runs if (value := run.get(key)) is not None]


def _learned(metric: str) -> str:
    if metric not in LEARNED:
        raise ValueError(f"must be one of {', '.join(LEARNED)}, got {metric!r:.40}")
    return metric


class Pair(FilePart):
    """Paired difference of an arm to the reference over common seeds, with its 95 % interval."""

    arm: Text
    metric: Annotated[str, AfterValidator(_learned)]
    seeds: int
    difference: Maybe = None
    low: Maybe = None
    high: Maybe = None
    p_noninferior: Maybe = None
    p_holm: Maybe = None
    noninferior: bool | None = None
    equivalent: bool | None = None


class TimeTo(FilePart):
    """What an arm spent until it first reached a target; null where no seed did."""

    arm: Text
    target: Text
    value: Maybe = None
    rounds: Maybe = None
    seconds: Maybe = None
    mb: Maybe = None
    joules: Maybe = None
    seeds_reached: int = 0


class ComparisonFile(FilePart):
    """The whole file."""

    format: Literal[1]
    name: Text
    store: str | None = None
    reference: Text
    accuracy_name: Text = "accuracy"  # next-token accuracy, for one
    margin: Number
    margin_bits_per_byte_relative: Number = 0.02  # of the reference
    equal: Literal["bits", "seconds", "joules"] | None = None
    fewest_evaluations: int | None = None  # of any run, the base left out; older files do not say
    arms: Annotated[tuple[ArmRecord, ...], Field(min_length=1)]
    pairs: tuple[Pair, ...] = ()
    time_to: tuple[TimeTo, ...] = ()
    notes: tuple[str, ...] = ()  # arms that are left out, runs that failed

    @model_validator(mode="after")
    def _labels(self) -> ComparisonFile:
        labels = self.labels
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice is not None:
            raise ValueError(f"arms: the label {twice!r} is used twice; labels must differ")
        named = [("reference", self.reference), *(("pairs", pair.arm) for pair in self.pairs)]
        for field, label in [*named, *(("time_to", row.arm) for row in self.time_to)]:
            if label not in labels:
                raise ValueError(f"{field}: {label!r} is not one of the arms {', '.join(labels)}")
        return self

    @property
    def labels(self) -> list[str]:
        """The arms' labels, in their order."""
        return [arm.label for arm in self.arms]

    @property
    def reference_arm(self) -> ArmRecord:
        """The arm that all others are compared with."""
        return next(arm for arm in self.arms if arm.label == self.reference)


def is_comparison(folder: Path) -> bool:
    """Whether a folder was written by `raysoft compare`."""
    return (folder / COMPARISON_JSON).is_file()


def read_comparison(folder: Path) -> ComparisonFile:
    """Read `folder/comparison.json`. Raises RaysoftError naming the file and the field."""
    path = folder / COMPARISON_JSON
    if not folder.is_dir():
        raise RaysoftError(f"{folder}: no such comparison folder")
    if not path.is_file():
        raise RaysoftError(f"{path}: missing, so {folder} is not a comparison folder")
    return read_checked(path, ComparisonFile)
