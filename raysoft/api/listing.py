"""What `raysoft list` and `raysoft.catalogue` show: presets and plug-ins, each with its idea and its source, and which
plug-ins go together.

Both are read off the plug-ins themselves: the idea is the first sentence of a module's docstring, the source its
paragraph `Source: ...`; whether two go together is asked of the registry, which alone decides it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations, product
from typing import TYPE_CHECKING, Any, TypedDict

from raysoft import __version__
from raysoft.config import Plugin, Traits, merge, registry
from raysoft.config.presets import describe_preset, load_tree, preset_names
from raysoft.errors import ConfigError
from raysoft.sweep.shipped import describe_sweep, shipped_names

if TYPE_CHECKING:
    from pandas import DataFrame

PRESET = "preset"
KINDS = ("method", "extra", "codec", "allocator", "uplink", "channel")
# Some plug-ins need these; no plug-in minds them.
WILLING = {
    "model": {"lora": {"train_head": True}},
    "train": {"optimizer": "sgd", "weight_decay": 0.0, "clip_norm": None},
}
_REQUIRED: dict[tuple[str, str], dict[str, Any]] = {  # of those that have options without a default
    ("codec", "chain"): {"codecs": [{"name": "rank_components"}, {"name": "quantize"}]},
    ("channel", "trace"): {"file": "trace.csv", "quantity": "gain_db"},
}


class Entry(TypedDict):
    """A preset or a plug-in: what it is called, what it does, where it was published (plug-ins; "" where nowhere)."""

    kind: str
    name: str
    idea: str
    source: str


def catalogue(kind: str | None = None) -> DataFrame:
    """Presets and plug-ins (those of other packages, too) as a frame: kind, name, idea, source.

    `kind`: only one of preset, method, extra, codec, allocator, uplink, channel. Raises ConfigError for another one.
    """
    from raysoft.api.frames import frame

    return frame(entries(kind), list(Entry.__annotations__))


def entries(kind: str | None = None) -> list[Entry]:
    """The same as plain data. Raises ConfigError."""
    if kind is not None and kind not in (PRESET, *KINDS):
        raise ConfigError("kind", f"must be one of {', '.join((PRESET, *KINDS))}, got {kind!r:.80}")
    found = [Entry(kind=PRESET, name=name, idea=describe_preset(name), source="") for name in preset_names()]
    for one in KINDS:
        for name in registry.names(one):
            doc = registry.plugin(one, name).__doc__
            found.append(Entry(kind=one, name=name, idea=idea(doc), source=source(doc)))
    return [entry for entry in found if kind in (None, entry["kind"])]


def idea(doc: str | None) -> str:
    """A docstring's first sentence on one line.

    >>> idea("Top-k: the largest entries\\n(e.g. of A). Not more.")
    'Top-k: the largest entries (e.g. of A).'
    """
    text = " ".join((doc or "").partition("\n\n")[0].split())
    return re.split(r"(?<=[.!?])\s+(?=[A-Z])", text, maxsplit=1)[0]


def source(doc: str | None) -> str:
    """The paragraph `Source: ...` of a docstring on one line, without the titles of papers; "" where there is none.

    >>> source('An idea.\\n\\nSource: Li et al., "Federated\\nOptimization", MLSys 2020.\\n\\nMore.')
    'Li et al., MLSys 2020'
    """
    found = re.search(r"^Source: (.*?)(?=\n\s*\n|\Z)", doc or "", flags=re.S | re.M)
    text = " ".join(found[1].split()) if found else ""
    return re.sub(r'"[^"]*",? ?', "", text).rstrip(". ")


class Compatibility:
    """Which plug-ins go together: asked of the registry, in whatever company of the other kinds they need.

    `willing`: with the settings that some need (a trained head, plain SGD) or with those of the preset `soft`.
    """

    def __init__(self, *, willing: bool = True) -> None:
        self.tree = merge(load_tree("soft"), WILLING if willing else {})
        self.company = {kind: self._different(kind) for kind in KINDS if kind != "extra"}

    def refusal(self, chosen: Mapping[str, str]) -> ConfigError | None:
        """Why no run can have these plug-ins, by kind; None where one can.

        Of several reasons, each of other company, the one that speaks of all that are chosen.
        """
        others = {kind: names for kind, names in self.company.items() if kind not in chosen}
        refused = []
        for names in product(*others.values()):
            try:
                registry.resolve(self._run({**dict(zip(others, names, strict=True)), **chosen}))
            except ConfigError as error:
                refused.append(error)
            else:
                return None
        return next((error for error in refused if _speaks_of(error, chosen.values())), refused[0])

    def _different(self, kind: str) -> list[str]:
        """One plug-in of each that differ in their traits: the others of a kind would be refused alike."""
        found: dict[Any, str] = {}
        for name in registry.names(kind):
            try:
                section = Plugin(**self._section(kind, name))
                found.setdefault(registry.traits(kind, section), name)
            except ConfigError:  # it has no defaults, so it is no company
                continue
        return list(found.values())

    def _section(self, kind: str, name: str) -> dict[str, Any]:
        """As after `kind.name=name` on the command line: options of the preset stay where the plug-in knows them."""
        fields = registry.plugin(kind, name).Config.model_fields
        kept = {key: value for key, value in self.tree.get(kind, {}).items() if key in fields}
        return {**kept, "name": name, **_REQUIRED.get((kind, name), {})}

    def _run(self, chosen: Mapping[str, str]) -> dict[str, Any]:
        sections = {kind: self._section(kind, name) for kind, name in chosen.items() if kind != "extra"}
        if "extra" in chosen:
            sections["method"]["extras"] = [{"name": chosen["extra"]}]
        return {**self.tree, **sections}


def _speaks_of(error: ConfigError, names: Iterable[str]) -> bool:
    return set(names) <= set(re.findall(r"[\w-]+", str(error)))


def refusals(asked: Compatibility, kinds: Sequence[str]) -> dict[tuple[str, str], ConfigError]:
    """Every two names of two kinds that cannot go together, with the reason."""
    first, second = kinds
    pairs = product(registry.names(first), registry.names(second))
    return {(one, two): error for one, two in pairs if (error := asked.refusal({first: one, second: two})) is not None}


def notes() -> list[str]:
    """What some plug-ins need besides, asked of the settings of the preset `soft`."""
    plain = Compatibility(willing=False)
    needs = [plain.refusal({kind: name}) for kind in KINDS for name in registry.names(kind)]
    return [
        "Other settings also decide; `raysoft run ... --dry-run` says so. With those of the preset `soft`:",
        *(f"- {error}" for error in needs if error is not None),
        "Options of a plug-in can narrow this, such as codec.error_feedback or method.shared_mask.",
    ]


def as_data(*, matrix: bool) -> dict[str, Any]:
    """All that `raysoft list` knows as plain data; `matrix`: every two plug-ins that cannot go together, and why.

    Traits are those with default options, by name; only what differs from a plug-in that needs nothing.
    """
    found: dict[str, Any] = {
        "version": __version__,
        "presets": [{"name": name, "what": describe_preset(name)} for name in preset_names()],
        "sweeps": [{"name": name, "what": describe_sweep(name)} for name in shipped_names()],
        "plugins": [_plugin_data(kind, name) for kind in KINDS for name in registry.names(kind)],
    }
    if matrix:
        asked = Compatibility()
        found["refused"] = [
            {kinds[0]: one, kinds[1]: two, "because": str(error)}
            for kinds in combinations(KINDS, 2)
            for (one, two), error in refusals(asked, kinds).items()
        ]
        found["notes"] = [line.removeprefix("- ") for line in notes()[1:-1]]
    return found


def _plugin_data(kind: str, name: str) -> dict[str, Any]:
    module = registry.plugin(kind, name)
    try:
        traits = registry.traits(kind, Plugin(name=name))
    except ConfigError:  # it has no defaults
        traits = module.Config.TRAITS
    plain = asdict(Traits())
    return {
        "kind": kind,
        "name": name,
        "idea": idea(module.__doc__),
        "source": source(module.__doc__),
        "built_in": name in registry.KINDS[kind],
        "traits": {trait: value for trait, value in asdict(traits).items() if value != plain[trait]},
    }
