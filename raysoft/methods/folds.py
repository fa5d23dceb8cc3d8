"""How the updates that arrived become one thing: the only place where they are added, stacked and normalised.

A fold is made of packs, on the processes that trained them (`part`), of neighbouring packs (`join`), and of everything
at the coordinator (`finish`). Parts hold float64 arrays by name; every fold has the weighted sum of each value under
its own name, whatever else it keeps. Shapes: K clients of a part, R rank, O out, I in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from raysoft.types import Array, LoraPair, ParamSpace, Tensors, Update

COVERED, STACK, EACH = "covered/", "stack/", "each/"
MIX = STACK + "mix"


@dataclass(frozen=True)
class Arrived:
    """One update that counts: at r_max, with its factor in the mean and the values it started from.

    Components that a client of a smaller rank does not have keep the broadcast's value.
    """

    update: Update
    mix: float
    start: Tensors
    rank: int | None = None  # of what the client has sent; None: r_max


class Fold(Protocol):
    """Stateless; `linear`: the result is a sum of mix_k times something of each update, as a radio could add it up."""

    @property
    def linear(self) -> bool:
        """Whether what is sent could be superposed."""
        ...

    def part(self, arrived: Sequence[Arrived]) -> dict[str, Array]:
        """Of a pack, in client order; empty where nobody arrived."""
        ...

    def join(self, one: Tensors, two: Tensors) -> dict[str, Array]:
        """Of two parts, `one` before `two` in client order."""
        ...

    def finish(self, total: Tensors) -> Tensors:
        """What the method is given."""
        ...


@dataclass(frozen=True)
class Sum:
    """sum_k mix_k x_k: the weighted mean of all clients that arrived; what a client did not send is a zero of its."""

    linear: bool = True

    def part(self, arrived: Sequence[Arrived]) -> dict[str, Array]:
        """In float64, in the order given."""
        total: dict[str, Array] = {}
        for one in arrived:
            for name, value in one.update.items():
                term = one.mix * value.astype(np.float64)
                total[name] = term if name not in total else total[name] + term
        return total

    def join(self, one: Tensors, two: Tensors) -> dict[str, Array]:
        """Name by name."""
        return {**one, **{name: one[name] + value if name in one else value for name, value in two.items()}}

    def finish(self, total: Tensors) -> Tensors:
        """As it is."""
        return total


@dataclass(frozen=True)
class Covered:
    """sum_k mix_k x_kj / sum_k mix_k [k sent j]: a rank component's mean over the clients that sent some of it."""

    space: ParamSpace
    linear: bool = False  # the weights have to be exact

    def part(self, arrived: Sequence[Arrived]) -> dict[str, Array]:
        """The sums, and beside them the weight that sent each component, [R] a matrix."""
        total = Sum().part(arrived)
        for pair in self.space.pairs:
            for one in arrived:
                weight = one.mix * _sent(pair, one.update, self.space.rank)
                total[COVERED + pair.module] = total.get(COVERED + pair.module, 0.0) + weight
        return total

    def join(self, one: Tensors, two: Tensors) -> dict[str, Array]:
        """Name by name."""
        return Sum().join(one, two)

    def finish(self, total: Tensors) -> Tensors:
        """Every component divided by the weight that sent it; zero where nobody did."""
        mean = {name: value for name, value in total.items() if not name.startswith(COVERED)}
        for pair in self.space.pairs:
            weight = total[COVERED + pair.module]
            gain = np.divide(1.0, weight, out=np.zeros_like(weight), where=weight > 0)
            if pair.b in mean:
                mean[pair.b] = mean[pair.b] * gain
            if pair.a in mean:
                mean[pair.a] = mean[pair.a] * gain[:, None]
        return mean


def _sent(pair: LoraPair, update: Update, rank: int) -> Array:
    sent = np.zeros(rank, dtype=bool)
    if pair.b in update:
        sent |= update[pair.b].any(axis=0)
    if pair.a in update:
        sent |= update[pair.a].any(axis=1)
    return sent


@dataclass(frozen=True)
class Stack:
    """Beside the sums, the clients' own factors one below the other: sum_k mix_k B_k A_k = B_stack A_stack, exact.

    `stack/<B>` [O, K R] and `stack/<A>` [K R, I], the mix on A only (FLoRA, Wang et al., arXiv 2409.05976), and
    `stack/mix` [K]. Factors are values (start plus change), not changes.
    """

    space: ParamSpace
    linear: bool = False

    def part(self, arrived: Sequence[Arrived]) -> dict[str, Array]:
        """Of a pack."""
        total = Sum().part(arrived)
        for pair in self.space.pairs if arrived else ():
            total[STACK + pair.b] = np.concatenate([value_of(pair.b, one) for one in arrived], axis=1)
            total[STACK + pair.a] = np.concatenate([one.mix * value_of(pair.a, one) for one in arrived], axis=0)
        if arrived:
            total[MIX] = np.array([one.mix for one in arrived])
        return total

    def join(self, one: Tensors, two: Tensors) -> dict[str, Array]:
        """Sums are added, stacks set one below the other."""
        rest = Sum().join(*({n: v for n, v in part.items() if not n.startswith(STACK)} for part in (one, two)))
        sideways = {STACK + pair.b for pair in self.space.pairs}
        for name in dict.fromkeys([*one, *two]):
            if name.startswith(STACK):
                found = [part[name] for part in (one, two) if name in part]
                rest[name] = np.concatenate(found, axis=1 if name in sideways else 0)
        return rest

    def finish(self, total: Tensors) -> Tensors:
        """As it is."""
        return total


def value_of(name: str, one: Arrived) -> Array:
    """The client's value after training, float64 at r_max."""
    start = one.start[name].astype(np.float64)
    change = one.update.get(name)
    return start if change is None else start + change


@dataclass(frozen=True)
class Each:
    """Beside the sums, every update: `each/<name>` [K, ...], for means that are no sums (a median)."""

    linear: bool = False

    def part(self, arrived: Sequence[Arrived]) -> dict[str, Array]:
        """Of a pack."""
        total = Sum().part(arrived)
        if arrived:
            names = arrived[0].update
            total |= {EACH + name: np.stack([one.update[name] for one in arrived]) for name in names}
        return total

    def join(self, one: Tensors, two: Tensors) -> dict[str, Array]:
        """Sums are added, updates come one after the other."""
        rest = Sum().join(*({n: v for n, v in part.items() if not n.startswith(EACH)} for part in (one, two)))
        for name in dict.fromkeys([*one, *two]):
            if name.startswith(EACH):
                rest[name] = np.concatenate([part[name] for part in (one, two) if name in part])
        return rest

    def finish(self, total: Tensors) -> Tensors:
        """As it is."""
        return total
