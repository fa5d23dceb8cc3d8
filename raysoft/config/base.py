"""What every section is made of: strict, frozen, plain data; numbers within bounds; plug-ins; files of the user.

A plug-in section is `{name: ..., **options}`; its options are checked by the plug-in's own Config (see registry.py).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    PrivateAttr,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from raysoft.config.plugin_file import PluginFile, is_file_name, short_name
from raysoft.config.traits import Traits

if TYPE_CHECKING:
    from raysoft.config.sections import RunConfig

NAME_PATTERN = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")


class Section(BaseModel):
    """Base of every configuration section: unknown keys are errors, values cannot be changed.

    The string under a key is its meaning, its unit in brackets at the end ([1]: a number without one); `raysoft show
    --explain` and docs/configuration.md print it (explain.py).
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    # Of a plug-in's Config: raised when the same options give other numbers than before. Above 1 it enters the hash of
    # the configuration, so that older runs of this plug-in, and only those, are not found again.
    REVISION: ClassVar[int] = 1

    # Options that came after the first version: at their defaults they leave the hash as it was without them.
    LATER: ClassVar[tuple[str, ...]] = ()

    # Of a plug-in's Config: what it needs of the others (traits.py).
    TRAITS: ClassVar[Traits] = Traits()

    @property
    def traits(self) -> Traits:
        """TRAITS, or what these options make of them."""
        return self.TRAITS

    def check_files(self, run: RunConfig) -> None:
        """Of a plug-in's Config: raises ConfigError where a UserFile does not hold what it should for this run."""

    def revision_in(self, run: RunConfig) -> int:
        """REVISION, or where only some settings give other numbers: what holds for this complete configuration."""
        return self.REVISION


# Wide bounds that only keep every derived number finite: a product of five such values is still a float.
SMALLEST, LARGEST = 1e-30, 1e30


def _representable(value: float) -> float:
    if value and not SMALLEST <= value <= LARGEST:
        raise ValueError(f"must be between {SMALLEST:g} and {LARGEST:g}, got {value:g}")
    return value


Positive = Annotated[float, Field(gt=0), AfterValidator(_representable)]
NonNegative = Annotated[float, Field(ge=0), AfterValidator(_representable)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Unit = Annotated[float, Field(ge=0, le=1)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=10**12)]
Label = Annotated[str, Field(min_length=1, max_length=128)]


class Range(Section):
    """A closed interval from which each client draws its own value (keyed by the client)."""

    low: Positive
    """Least value that a client may draw."""
    high: Positive
    """Largest value that a client may draw."""

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.low > self.high:
            raise ValueError(f"low ({self.low:g}) must not exceed high ({self.high:g})")
        return self


class Plugin(BaseModel):
    """A plug-in section before and after its options are checked by the registry. `name`: a short name, or a file."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str
    _file: PluginFile | None = PrivateAttr(
        default=None
    )  # before what is made of its classes: see PluginFile.__reduce__
    _checked: Section | None = PrivateAttr(default=None)

    @property
    def file(self) -> PluginFile | None:
        """The file that the name stands for, as it was when first asked for. Raises ConfigError where it is none."""
        if self._file is None and is_file_name(self.name):
            self._file = PluginFile.of(self.name)
        return self._file

    @property
    def label(self) -> str:
        """The name for people: of a file its stem."""
        return short_name(self.name)

    @property
    def key(self) -> str:
        """The name for draws and memories: of a file its digest, so that its path has no part in a result."""
        return self.name if self.file is None else self.file.digest

    def options(self) -> dict[str, Any]:
        """The options without the name."""
        return dict(self.model_extra or {})

    @classmethod
    def of(cls, given: Plugin, checked: Section, *, bare: bool = False) -> Plugin:
        """The given section with the options that the plug-in's own Config has checked, every default written out.

        `bare`: but for LATER options at their defaults, which leave the hash as it was without them.
        """
        tree = checked.model_dump(mode="json")
        fields = type(checked).model_fields
        later = {one for one in checked.LATER if bare and getattr(checked, one) == fields[one].default}
        section = cls(name=given.name, **{key: value for key, value in tree.items() if key not in later})
        section._file, section._checked = given.file, checked
        return section

    @property
    def checked(self) -> Section | None:
        """The options as the plug-in's own Config; None before the registry has resolved them."""
        return self._checked


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


PluginList = Annotated[list[Annotated[Plugin, BeforeValidator(_named)]], BeforeValidator(_listed)]
"""Each {name, **options}, or its name where it has no options; one name may stand alone: `fedprox`."""

PLUGINS = ("method", "codec", "allocator", "uplink", "channel")


class UserFile(str):
    """A file of the user's that a plug-in reads: an option `trace: UserFile` of its Config, opened as `trace.path`.

    A run notes a digest of its content, so that a run with other content under the same path is another run; a missing
    file is refused before anything starts. A node of a cluster that does not have it reads a copy.
    """

    __slots__ = ()
    copies: ClassVar[dict[str, Path]] = {}  # of this process, by the text of the option

    @property
    def path(self) -> Path:
        """Where it lies; relative to the current folder, `~` is the home folder."""
        try:
            return self.copies.get(str(self)) or Path(self).expanduser()
        except RuntimeError:  # of nobody's home folder: a file that is not there
            return Path(self)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            cls,
            core_schema.str_schema(min_length=1, strict=True),
            serialization=core_schema.plain_serializer_function_ser_schema(str.__str__),
        )


Rank = Annotated[int, Field(ge=1, le=4096)]
