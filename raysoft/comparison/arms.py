"""What is compared: each arm is `[LABEL:]TARGET [key=value ...]` in one argument; bare settings go to every arm.

Values may hold blanks as they are. Quotes inside the argument keep together what would be read as two settings, around
a value (where they are YAML's own) or around a whole word: `soft data.path="a b=c"`, `"my run.yaml" "data.path=a b"`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from raysoft.config import RunConfig
from raysoft.config.presets import load_config
from raysoft.errors import ConfigError
from raysoft.rundir.folder import name_of

MAX_LABEL = 60
MAX_SEEDS = 10_000
MAX_WORKERS = 256
_KEY = r"[A-Za-z_][\w-]*(?:\.[A-Za-z_][\w-]*)*="
_SETTING = re.compile(_KEY)
_BETWEEN = re.compile(rf"\s+(?={_KEY})")  # values may hold spaces: codec={name: quantize, bits: 4}
_QUOTED = re.compile(r"""(?<!\w)(?:"(?:[^"\\]|\\.)*"|'[^']*')""", re.DOTALL)  # not the apostrophe of `it's`
_LABELLED = re.compile(r"([^:=]*):(?!//)\s*(.*)", re.DOTALL)
_SET_BY_OPTION = {"seed": "--seeds and --first-seed", "executor": "the comparison (runs are inline)"}


@dataclass(frozen=True)
class Arm:
    """One setting under comparison; `overrides` are its own, after those of all arms."""

    label: str
    target: str
    overrides: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()  # settings of all arms, applied first

    def config(self, seed: int) -> RunConfig:
        """The complete configuration at one seed. Raises ConfigError naming the arm."""
        try:
            return load_config(self.target, [*self.shared, *self.overrides, f"seed={seed}"], "inline")
        except ConfigError as error:
            where = f"arm {self.label!r}"
            raise ConfigError(f"{where}, {error.field}" if error.field else where, error.message) from None


def parse_arms(arguments: Sequence[str]) -> list[Arm]:
    """Arms from the arguments of a command line, in their order.

    >>> [arm.label for arm in parse_arms(["soft", "q4: soft codec.bits_per_value=4", "rounds=3"])]
    ['soft', 'q4']

    Raises ConfigError for an empty argument, an unreadable one, equal labels, or no arm at all.
    """
    shared: list[str] = []
    arms: list[Arm] = []
    for text in arguments:
        if not text.strip():
            raise ConfigError("arm", "must name a preset or a YAML file, got an empty argument")
        words = _words(text.strip())
        if _SETTING.match(words[0]):
            shared += _settings(words)
        else:
            arms.append(_arm(text.strip(), *words))
    if not arms:
        raise ConfigError("arms", "give at least one preset or YAML file, e.g. raysoft compare soft ideal")
    labels = [arm.label for arm in arms]
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise ConfigError("arms", f"two arms are called {twice!r}; name them apart, e.g. 'first: {arms[0].target}'")
    return [Arm(arm.label, arm.target, arm.overrides, tuple(shared)) for arm in arms]


def _words(text: str) -> list[str]:
    """The target, then settings, cut outside quotes; those around a whole word are taken off."""
    masked = _QUOTED.sub(lambda found: _masked(found[0], whole=text[found.end() : found.end() + 1].strip() == ""), text)
    cuts = [found.span() for found in _BETWEEN.finditer(masked)]
    begins, ends = [0, *(end for _, end in cuts)], [*(begin for begin, _ in cuts), len(text)]
    return [_bare(text[begin:end]) for begin, end in zip(begins, ends, strict=True)]


def _masked(quoted: str, *, whole: bool) -> str:
    """As long as what it stands for, and a setting where that is one (and the `whole` word)."""
    return ("_=" if whole and _SETTING.match(quoted[1:]) else "__").ljust(len(quoted), "_")


def _bare(word: str) -> str:
    return word[1:-1] if _QUOTED.fullmatch(word) else word


def _arm(text: str, head: str, *settings: str) -> Arm:
    label: str | None = None
    target = head
    if match := _LABELLED.fullmatch(head):
        label, target = _bare(match[1].strip()), _bare(match[2].strip())
        if not label or len(label) > MAX_LABEL or not label.isprintable():
            raise ConfigError("arm", f"{text[:80]!r}: the label before ':' must have 1 to {MAX_LABEL} characters")
    if not target or (re.search(r"\s", target) and not Path(target).exists()):
        raise ConfigError("arm", f"{text[:80]!r} must have the form [LABEL:]TARGET [key=value ...]")
    own = _settings(settings)
    return Arm(label or _short(target, own), target, tuple(own))


def _settings(settings: Sequence[str]) -> list[str]:
    for text in settings:
        key = text.partition("=")[0]
        if key in _SET_BY_OPTION:
            raise ConfigError(key, f"is set by {_SET_BY_OPTION[key]}; leave out {text[:80]!r}")
    return list(settings)


def _short(target: str, settings: Sequence[str]) -> str:
    """The label of an arm without one: target and settings, each key by its last word."""
    words = [text.partition("=") for text in settings]
    text = " ".join([name_of(target), *(f"{key.rpartition('.')[2]}={value.strip()}" for key, _, value in words)])
    text = " ".join(text.split())
    return text if len(text) <= MAX_LABEL else text[: MAX_LABEL - 1] + "…"


def pick_reference(arms: Sequence[Arm], wanted: str | None) -> str:
    """The label of the reference: the one asked for, else `ideal`, else the first. Raises ConfigError.

    `ideal` is the arm of that label, else the first one of a preset `ideal` or `ideal-...` (of another task).
    """
    labels = [arm.label for arm in arms]
    if wanted is None:
        presets = [arm.label for arm in arms if arm.target == "ideal" or arm.target.startswith("ideal-")]
        return "ideal" if "ideal" in labels else [*presets, *labels][0]
    if wanted not in labels:
        raise ConfigError("--reference", f"{wanted[:80]!r} is not one of the arms: {', '.join(labels)}")
    return wanted


def check_workers(workers: int) -> None:
    """Raise ConfigError for a number of processes that cannot be meant."""
    if not 1 <= workers <= MAX_WORKERS:
        raise ConfigError("--workers", f"must be between 1 and {MAX_WORKERS}, got {workers}")


def seed_range(count: int, first: int) -> range:
    """The seeds first..first+count-1. Raises ConfigError."""
    if not 1 <= count <= MAX_SEEDS:
        raise ConfigError("--seeds", f"must be between 1 and {MAX_SEEDS}, got {count}")
    if not 0 <= first <= 2**62:
        raise ConfigError("--first-seed", f"must be between 0 and 2^62, got {first}")
    return range(first, first + count)
