"""Which plug-ins cannot work together, and why: one table over their traits, which names no plug-in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from raysoft.config.traits import Traits


@dataclass(frozen=True)
class Chosen:
    """The plug-ins of a run by kind: names and traits, and who else has a trait."""

    names: Mapping[str, str]
    traits: Mapping[str, Traits]
    extras: Mapping[str, Traits]
    plain_sgd: bool
    train_head: bool
    lora_init: str
    latency_budget_s: float | None
    others: Callable[[str, Callable[[Traits], bool]], tuple[str, ...]]
    server_lr: float = 1.0

    def extras_with(self, has: Callable[[Traits], bool]) -> list[str]:
        """The extras with a trait."""
        return [name for name, traits in self.extras.items() if has(traits)]

    def extra_with(self, has: Callable[[Traits], bool]) -> str:
        """The first extra with a trait, "" where none has it."""
        return next(iter(self.extras_with(has)), "")

    def name(self, kind: str) -> str:
        """`codec.name=topk`."""
        return f"{kind}.name={self.names[kind]}"

    def with_trait(self, kind: str, has: Callable[[Traits], bool]) -> str:
        """`codec.name=rank_components or chain`: those that would do, by their defaults."""
        return f"{kind}.name=" + " or ".join(self.others(kind, has))


@dataclass(frozen=True)
class Clash:
    """Where `when` holds, the configuration is refused at `field` with the reason `why`."""

    kinds: tuple[str, ...]
    when: Callable[[Chosen], Any]
    field: Callable[[Chosen], str]
    why: Callable[[Chosen], str]


def _key(kind: str, setting: str) -> str:
    return f"{kind}.{setting.partition('=')[0]}"


def _gives_order(extra: Traits) -> bool:
    return extra.common_order != ""


def _orders(c: Chosen) -> list[str]:
    """Who gives all clients one order of components."""
    setting = c.traits["method"].common_order
    return [*([f"method.{setting}"] if setting else []), *c.extras_with(_gives_order)]


def _moving(c: Chosen) -> str:
    """The setting that changes the factors' coordinates, and whose it is."""
    setting = c.traits["method"].moves_gauge
    return ("" if setting.startswith("name=") else f"{c.names['method']}'s ") + f"method.{setting}"


def _superposes(c: Chosen) -> bool:
    codec = c.traits["codec"]
    common = codec.follows_order and bool(c.traits["method"].common_order or c.extra_with(_gives_order))
    return codec.plain_values and (codec.sends_everything or common)


def _of_one_start(codec: Traits) -> str:
    """The setting by which what a codec sends depends on the factors themselves, not only on their change."""
    return codec.needs_both_factors or codec.remembers_products


def _without_its_coordinates(c: Chosen) -> str:
    """The first extra that remembers coordinates which the method does not keep, "" where there is none.

    Factors that take turns keep their own coordinates, which is enough for moments of each factor by itself.
    """
    method = c.traits["method"]
    if not method.moves_gauge:
        return ""
    return c.extra_with(lambda t: t.fixed_gauge or (t.server_step and not method.alternates))


CLASHES: tuple[Clash, ...] = (
    Clash(
        ("method",),
        lambda c: c.traits["method"].needs_head and not c.train_head,
        lambda c: "model.lora.train_head",
        lambda c: f"is false, so {c.name('method')} has nothing to train; set model.lora.train_head=true",
    ),
    Clash(
        ("allocator", "uplink"),
        lambda c: c.traits["uplink"].shares_band and not c.traits["allocator"].needs_channel,
        lambda c: "allocator.name",
        lambda c: (
            f"{c.names['allocator']} has no channel limit and needs "
            f"{c.with_trait('uplink', lambda t: not t.shares_band)}, got {c.name('uplink')}"
        ),
    ),
    Clash(
        ("allocator", "uplink"),
        lambda c: c.traits["allocator"].needs_channel and not c.traits["uplink"].shares_band,
        lambda c: "uplink.name",
        lambda c: (
            f"{c.names['uplink']} has no bandwidth to share, so {c.name('allocator')} has nothing to decide; use "
            f"{c.with_trait('allocator', lambda t: not t.needs_channel)} or "
            f"{c.with_trait('uplink', lambda t: t.shares_band)}"
        ),
    ),
    Clash(
        ("allocator",),
        lambda c: c.traits["allocator"].needs_budget and c.latency_budget_s is None,
        lambda c: "allocator.latency_budget_s",
        lambda c: f"is required by allocator {c.names['allocator']}, e.g. 0.22",
    ),
    Clash(
        ("method", "codec"),
        lambda c: c.traits["method"].common_order and not c.traits["codec"].follows_order,
        lambda c: _key("method", c.traits["method"].common_order),
        lambda c: (
            f"{c.traits['method'].common_order.partition('=')[2]} gives all clients one order of rank components, "
            f"which {c.name('codec')} does not follow as it is set; "
            f"{c.with_trait('codec', lambda t: t.follows_order)} does, also as the first of a chain"
        ),
    ),
    Clash(
        ("extra", "codec"),
        lambda c: c.extra_with(_gives_order) and not c.traits["codec"].follows_order,
        lambda c: "method.extras",
        lambda c: (
            f"{c.extra_with(_gives_order)} gives all clients one order of rank components, which {c.name('codec')} "
            "does not follow as it is set; "
            f"{c.with_trait('codec', lambda t: t.follows_order)} does, also as the first of a chain"
        ),
    ),
    Clash(
        ("method", "extra"),
        lambda c: len(_orders(c)) > 1,
        lambda c: "method.extras",
        lambda c: f"{' and '.join(_orders(c))} would each give an order of components; use one of them",
    ),
    Clash(
        ("method", "codec"),
        lambda c: c.traits["method"].moves_gauge and c.traits["codec"].remembers_factors,
        lambda c: _key("codec", c.traits["codec"].remembers_factors),
        lambda c: (
            f"{c.traits['codec'].remembers_factors.partition('=')[2]} remembers changes of the factors' coordinates, "
            f"which {_moving(c)} changes between rounds; use error_feedback="
            + ("false" if c.traits["method"].alternates else "transport, which remembers changes of the product")
        ),
    ),
    Clash(
        ("method", "codec"),
        lambda c: c.traits["method"].alternates and c.traits["codec"].remembers_products,
        lambda c: _key("codec", c.traits["codec"].remembers_products),
        lambda c: (
            f"{c.traits['codec'].remembers_products.partition('=')[2]} sends what it remembers as a change of B, which "
            f"{c.name('method')} does not train in every round; use error_feedback=false"
        ),
    ),
    Clash(
        ("method", "codec"),
        lambda c: c.traits["method"].own_start and _of_one_start(c.traits["codec"]),
        lambda c: _key("codec", _of_one_start(c.traits["codec"])),
        lambda c: (
            f"{_of_one_start(c.traits['codec']).partition('=')[2]} goes by the factors that clients start from, which "
            f"with {c.name('method')} are not those to which the server adds; use another "
            f"{_of_one_start(c.traits['codec']).partition('=')[0]}"
        ),
    ),
    Clash(
        ("method",),
        lambda c: c.traits["method"].redraws and c.lora_init != "peft",
        lambda c: "model.lora.init",
        lambda c: f"must be peft with {c.name('method')}, which draws A so in every round, got {c.lora_init}",
    ),
    Clash(
        ("method", "codec"),
        lambda c: c.traits["method"].leaves_out_factor and c.traits["codec"].needs_both_factors,
        lambda c: _key("codec", c.traits["codec"].needs_both_factors),
        lambda c: (
            f"{c.traits['codec'].needs_both_factors.partition('=')[2]} needs a method that sends both factors, which "
            f"{c.name('method')} does not"
        ),
    ),
    Clash(
        ("method", "codec"),
        lambda c: c.traits["method"].whole_components and not c.traits["codec"].sends_components,
        lambda c: "codec.name",
        lambda c: (
            f"{c.names['codec']}, as it is set, sends single entries or none, so that {c.name('method')} cannot "
            f"tell who sent a component; use {c.with_trait('codec', lambda t: t.sends_components)}"
        ),
    ),
    Clash(
        ("method", "uplink"),
        lambda c: c.traits["uplink"].analog and c.traits["method"].single_updates,
        lambda c: "uplink.name",
        lambda c: (
            f"{c.names['uplink']} adds up on the air what is sent, and {c.name('method')} needs "
            f"{c.traits['method'].single_updates}; use a digital uplink"
        ),
    ),
    Clash(
        ("method", "codec", "uplink"),
        lambda c: c.traits["uplink"].analog and not _superposes(c),
        lambda c: "codec.name",
        lambda c: (
            f"{c.names['codec']}, as it is set, sends other entries for other clients or no plain float32, and "
            f"{c.name('uplink')} adds up what is sent; use codec.name=identity with 32 bits, or one order for all "
            "clients, or a digital uplink"
        ),
    ),
    Clash(
        ("extra",),
        lambda c: c.extra_with(lambda t: t.plain_sgd) and not c.plain_sgd,
        lambda c: "method.extras",
        lambda c: (
            f"{c.extra_with(lambda t: t.plain_sgd)} needs train.optimizer=sgd, train.weight_decay=0 and "
            "train.clip_norm=null: it reads mean gradients off what the steps moved"
        ),
    ),
    Clash(
        ("method", "extra"),
        _without_its_coordinates,
        lambda c: "method.extras",
        lambda c: (
            f"{_without_its_coordinates(c)} remembers coordinates of the factors, which "
            f"{_moving(c)} changes between rounds; use a method that keeps them, such as "
            "fedit or ffa"
        ),
    ),
    Clash(
        ("method", "extra"),
        lambda c: not c.traits["method"].trains_lora and c.extra_with(lambda t: t.needs_factors),
        lambda c: "method.extras",
        lambda c: (
            f"{c.extra_with(lambda t: t.needs_factors)} acts on the LoRA factors, of which {c.name('method')} trains "
            "none"
        ),
    ),
    Clash(
        ("method", "extra"),
        lambda c: c.server_lr != 1.0 and c.extra_with(lambda t: t.server_step),
        lambda c: "method.server_lr",
        lambda c: (
            f"must be 1 with extra {c.extra_with(lambda t: t.server_step)}, which takes the server's step by an lr of "
            f"its own, got {c.server_lr:g}"
        ),
    ),
    Clash(
        ("extra",),
        lambda c: len(c.extras_with(lambda t: t.server_step)) > 1,
        lambda c: "method.extras",
        lambda c: (
            f"{' and '.join(c.extras_with(lambda t: t.server_step))} would each take the server's step; use one of them"
        ),
    ),
    Clash(
        ("extra", "uplink"),
        lambda c: c.traits["uplink"].analog and c.extra_with(lambda t: t.side_sums),
        lambda c: "uplink.name",
        lambda c: (
            f"{c.names['uplink']} adds up on the air what is sent, and {c.extra_with(lambda t: t.side_sums)} sends "
            "exact values beside the update; use a digital uplink"
        ),
    ),
)
