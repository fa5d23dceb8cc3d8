"""What every codec promises: real bits, a menu that is kept, a payload that decodes to what was said."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from raysoft.codecs.base import Codec, CodecConfig, Encoded
from raysoft.federation.seam import check_curve, check_encoded
from raysoft.runs.conformance.subject import Broken, Case, Check, Subject, cases, frozen, same, unchanged
from raysoft.types import Curve

TINY = 1e-30  # an energy below is lost in the rounding of the weights


def _cases(subject: Subject) -> Iterator[tuple[Case, Codec]]:
    options = subject.options
    assert isinstance(options, CodecConfig)
    for case in cases(options.traits.follows_order, bool(options.traits.needs_both_factors)):
        yield case, subject.build(case.space)


def _encoded(subject: Subject) -> Iterator[tuple[str, Case, Codec, Curve, int, Encoded]]:
    """Every case at no units, one, half and all of them."""
    for case, codec in _cases(subject):
        curve = codec.menu(case.update, case.view, {})
        for units in sorted({0, min(1, curve.units), curve.units // 2, curve.units}):
            encoded = codec.encode(case.update, case.view, {}, units, np.random.default_rng(5))
            yield f"{case.name}, {units} of {curve.units} units", case, codec, curve, units, encoded


def menu_is_a_menu(subject: Subject) -> None:
    """a menu begins at 0 bits, never falls, and leaves no larger error for more bits"""
    for case, codec in _cases(subject):
        try:
            check_curve(subject.config, 1, 0, codec.menu(case.update, case.view, {}))
        except Exception as error:
            raise Broken(f"{case.name}: {error}") from error


def menu_begins_at_the_energy(subject: Subject) -> None:
    """the menu's error at 0 units is the squared norm of the update in the adapted weights, up to a factor of two"""
    for case, codec in _cases(subject):
        curve, energy = codec.menu(case.update, case.view, {}), _energy(case)
        if energy > TINY and not 0.5 <= curve.error_J[0] / energy <= 2:  # one of another unit is far off
            raise Broken(f"{case.name}: the menu says {curve.error_J[0]:.6g}, it is {energy:.6g}")


def _energy(case: Case) -> float:
    """||s (B A - B0 A0)||^2 over all matrices, by dense matrices."""
    total = 0.0
    for pair in case.space.pairs:
        start = [case.view.start[name].astype(np.float64) for name in (pair.b, pair.a)]
        end = [one + case.update.get(name, 0.0) for one, name in zip(start, (pair.b, pair.a), strict=True)]
        total += float(((case.space.scale * (end[0] @ end[1] - start[0] @ start[1])) ** 2).sum())
    return total


def bits_are_bytes(subject: Subject) -> None:
    """payload bits = bytes"""
    for what, _, _, _, _, encoded in _encoded(subject):
        payload = encoded.payload
        if len(payload.data) != (payload.num_bits + 7) // 8:
            raise Broken(f"{what}: {payload.num_bits} bits are said, the payload has {len(payload.data)} bytes")


def menu_is_kept(subject: Subject) -> None:
    """menu = encode: the announced bits are exact"""
    for what, _, _, curve, units, encoded in _encoded(subject):
        said = curve.fixed_bits + curve.bits_J[units]
        if encoded.payload.num_bits != said:
            raise Broken(f"{what}: the menu says {said} bits, the payload has {encoded.payload.num_bits}")


def decode_is_received(subject: Subject) -> None:
    """decode = received, with the names and shapes of what is trained"""
    for what, case, codec, _, units, encoded in _encoded(subject):
        try:
            check_encoded(subject.config, case.view, encoded, codec, units, len(case.space.pairs) * case.space.rank)
        except Exception as error:
            raise Broken(f"{what}: {error}") from error
        for name, value in encoded.received.items():
            if np.asarray(value).dtype != np.float32:
                raise Broken(f"{what}: decodes {name} as {np.asarray(value).dtype}, values are float32")


def everything_is_finite(subject: Subject) -> None:
    """finite updates, however large or small, decode to finite ones, with a relative error that is finite"""
    for what, _, _, _, _, encoded in _encoded(subject):
        strange = [name for name, value in encoded.received.items() if not np.isfinite(value).all()]
        if strange:
            raise Broken(f"{what}: decodes {strange[0]} to values that are not finite")
        if not (math.isfinite(encoded.relative_error) and encoded.relative_error >= 0):
            raise Broken(f"{what}: relative_error is {encoded.relative_error!r}")


def is_pure(subject: Subject) -> None:
    """pure: the same bytes twice, from another instance too; what it is given stays as it is"""
    for case, codec in _cases(subject):
        before = frozen(case.update), frozen(case.view.start), frozen(case.view.side)
        curve = codec.menu(case.update, case.view, {})
        units = (curve.units + 1) // 2
        runs = [
            one.encode(case.update, case.view, {}, units, np.random.default_rng(7))
            for one in (codec, codec, subject.build(case.space))
        ]
        if not same(codec.menu(case.update, case.view, {}), curve):
            raise Broken(f"{case.name}: gives another menu the second time")
        if not (same(runs[0].payload, runs[1].payload) and same(runs[0].payload, runs[2].payload)):
            raise Broken(f"{case.name}, {units} units: gives another payload the second time")
        codec.decode(runs[0].payload, case.view, units)
        for what, data, now in zip(
            ("update", "start", "side"), before, (case.update, case.view.start, case.view.side), strict=True
        ):
            unchanged(what, data, now)


def memory_goes_on(subject: Subject) -> None:
    """what it remembers, if delivered or lost, serves the next round, and is arrays"""
    for case, codec in _cases(subject):
        for kept in ("memory_if_delivered", "memory_if_lost"):
            memory: dict[str, np.ndarray] = {}
            for _ in range(3):
                curve = codec.menu(case.update, case.view, memory)
                check_curve(subject.config, 2, 0, curve)
                encoded = codec.encode(case.update, case.view, memory, curve.units // 2, np.random.default_rng(9))
                said = curve.fixed_bits + curve.bits_J[curve.units // 2]
                if encoded.payload.num_bits != said:
                    raise Broken(f"{case.name}, with memory: the menu says {said} bits, not {encoded.payload.num_bits}")
                memory = dict(getattr(encoded, kept))
                if strange := [name for name, value in memory.items() if not isinstance(value, np.ndarray)]:
                    raise Broken(f"{case.name}: {kept} holds {strange[0]}, which is no array")


CHECKS: tuple[Check, ...] = (
    menu_is_a_menu,
    menu_begins_at_the_energy,
    bits_are_bytes,
    menu_is_kept,
    decode_is_received,
    everything_is_finite,
    is_pure,
    memory_goes_on,
)
