"""An update as stacks of factors, and back.

Matrices of equal shape form a group and are worked on together. Shapes: L matrices of a group, O out, I in, R the
client's own rank. A method may leave one factor out (FFA trains B only): `kind` is "ab", "b" or "a"; both ends know it
from the client's View. Where a method leaves out both, only the head is sent: `kind` is "", no units to choose.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import DTypeLike

from raysoft.kernels.lowrank import change_norm2, component_gram
from raysoft.types import ORDER, Array, ParamSpace, Tensors, Update, View

KINDS = ("ab", "b", "a")


@dataclass(frozen=True)
class Group:
    """Matrices of one shape: their numbers among all pairs, O and I."""

    index: Array
    out_features: int
    in_features: int

    def widths(self, kind: str) -> tuple[int, ...]:
        """Values of one component: those in B, those in A, as far as they travel."""
        return {"ab": (self.out_features, self.in_features), "b": (self.out_features,), "a": (self.in_features,)}[kind]


@dataclass(frozen=True)
class Layout:
    """The parameter space at one client's rank."""

    space: ParamSpace
    rank: int
    order_N: Array | None = field(default=None, compare=False)  # all components, where a prefix of them travels

    def seen_by(self, view: View) -> Layout:
        """The same where all clients send a prefix of the view's ORDER; itself where it has none.

        Raises ValueError where it is not an order of all components of r_max.
        """
        order = view.side.get(ORDER)
        if order is None:
            return self
        total = self.matrices * self.space.rank
        if np.shape(order) != (total,) or (np.sort(order) != np.arange(total)).any():
            raise ValueError(f"an order must hold each of the {total} components once")
        matrix, component = np.divmod(np.asarray(order, dtype=np.int64), self.space.rank)
        own = component < self.rank
        return Layout(self.space, self.rank, matrix[own] * self.rank + component[own])

    def prefix(self, count: int) -> Array:
        """The first `count` components of the order, bool [matrices, R]."""
        assert self.order_N is not None
        kept = np.zeros(self.components, dtype=bool)
        kept[self.order_N[:count]] = True
        return kept.reshape(self.matrices, self.rank)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Groups of equal shape, by first appearance."""
        members: dict[tuple[int, int], list[int]] = {}
        for number, pair in enumerate(self.space.pairs):
            members.setdefault((pair.out_features, pair.in_features), []).append(number)
        return tuple(Group(np.array(numbers), *shape) for shape, numbers in members.items())

    @cached_property
    def heads(self) -> tuple[str, ...]:
        """Names of the dense blocks: always sent whole."""
        return tuple(block.name for block in self.space.dense)

    @cached_property
    def head_sizes(self) -> Array:
        """Values of every head tensor."""
        return np.array([int(np.prod(block.shape)) for block in self.space.dense], dtype=np.int64)

    @property
    def matrices(self) -> int:
        """Number of adapted matrices L over all groups."""
        return len(self.space.pairs)

    @property
    def components(self) -> int:
        """Number N of rank components of this client."""
        return self.matrices * self.rank

    def names(self, kind: str) -> list[str]:
        """Parameter names of these factors."""
        return [name for pair in self.space.pairs for name, one in ((pair.b, "b"), (pair.a, "a")) if one in kind]

    def kind(self, names: Collection[str]) -> str:
        """Which factors travel, of every adapted matrix the same. Raises ValueError where they do not."""
        has_b, has_a = ([name in names for name in side] for side in (self.names("b"), self.names("a")))
        both = (all(has_b), all(has_a))
        head_alone = bool(self.heads) and all(name in names for name in self.heads)
        if any(has_a) != both[1] or any(has_b) != both[0] or not (any(both) or head_alone):
            raise ValueError("an update must hold A of all adapted matrices, B of all, both, or a trained head alone")
        return {(True, True): "ab", (True, False): "b", (False, True): "a", (False, False): ""}[both]

    def widths_L(self, kind: str) -> Array:
        """Values of one component of every matrix, int64 [matrices]."""
        widths = np.zeros(self.matrices, dtype=np.int64)
        for group in self.groups:
            widths[group.index] = sum(group.widths(kind))
        return widths

    def entries(self, kind: str) -> int:
        """Number of factor entries that travel when everything is sent."""
        return int(self.widths_L(kind).sum()) * self.rank


@dataclass(frozen=True)
class Part:
    """One group's changes and start values, float64: db, b0 [L, O, R]; da, a0 [L, R, I]."""

    group: Group
    db: Array
    da: Array
    b0: Array
    a0: Array

    def tensors(self, kind: str) -> tuple[Array, ...]:
        """The stacks that travel."""
        return {"ab": (self.db, self.da), "b": (self.db,), "a": (self.da,)}[kind]


@dataclass(frozen=True)
class Factors:
    """A client's update by groups."""

    layout: Layout
    kind: str
    parts: tuple[Part, ...]

    @property
    def scale2(self) -> float:
        """s^2: what squared norms of factor products are multiplied by."""
        return self.layout.space.scale**2

    def gram_LRR(self) -> Array:
        """Inner products of the components' effective changes in every matrix, times s^2: float64 [L, R, R]."""
        gram = np.empty((self.layout.matrices, self.layout.rank, self.layout.rank))
        for part in self.parts:
            gram[part.group.index] = component_gram((part.db, part.da, part.b0, part.a0))
        return gram * self.scale2

    def energy(self) -> float:
        """||s (B A - B0 A0)||^2 over all matrices."""
        return self.scale2 * float(sum(change_norm2(p.db, p.da, p.b0, p.a0).sum() for p in self.parts))

    def flat(self) -> Array:
        """All entries that travel, group by group, B before A: float64 [P]."""
        tensors = [tensor.reshape(-1) for part in self.parts for tensor in part.tensors(self.kind)]
        return np.concatenate(tensors) if tensors else np.zeros(0)

    def error(self, sent: Sent, spread: Spread | None = None) -> float:
        """E ||s (B A - B' A')||^2 for received factors B' = B0 + sent.db + noise, likewise A'.

        The noise has zero mean; `spread` holds its second moments. With E = B - E[B'], F = A - E[A'] the mean part is
        ||E A + E[B'] F||^2 (delta form).
        """
        total = 0.0
        for number, part in enumerate(self.parts):
            db, da = sent[number]
            total += float(change_norm2(part.db - db, part.da - da, part.b0 + db, part.a0 + da).sum())
            if spread is not None:
                noise_b, noise_a = spread[number]
                b, a = part.b0 + db, part.a0 + da
                gram_b = np.swapaxes(b, -1, -2) @ b
                gram_a = a @ np.swapaxes(a, -1, -2)
                total += float((noise_b * gram_a).sum() + (noise_a * (gram_b + noise_b)).sum())
        return self.scale2 * total


Sent = list[tuple[Array, Array]]
"""What the server sees of every group: (db [L, O, R], da [L, R, I])."""
Spread = list[tuple[Array, Array]]
"""Second moments of the coding noise of every group: (E[N_b^T N_b], E[N_a N_a^T]), both [L, R, R]."""


def read_update(layout: Layout, update: Update, view: View) -> Factors:
    """Stack an update (deltas at the client's rank) with its start.

    Raises ValueError for an update that does not hold what the view says is trained, or holds more.
    """
    if set(update) != view.trains:
        strange = ", ".join(sorted(set(update) ^ view.trains)[:3])
        raise ValueError(f"an update must hold what the view says is trained, neither less nor more: {strange}")
    kind = layout.kind(view.trains)
    return Factors(layout, kind, tuple(_part(layout, group, kind, update, view.start) for group in layout.groups))


def _part(layout: Layout, group: Group, kind: str, update: Update, start: Tensors) -> Part:
    pairs = [layout.space.pairs[number] for number in group.index]
    b0 = np.array([start[pair.b] for pair in pairs], dtype=np.float64)
    a0 = np.array([start[pair.a] for pair in pairs], dtype=np.float64)
    db = np.array([update[pair.b] for pair in pairs], dtype=np.float64) if "b" in kind else np.zeros_like(b0)
    da = np.array([update[pair.a] for pair in pairs], dtype=np.float64) if "a" in kind else np.zeros_like(a0)
    return Part(group, db, da, b0, a0)


def split_flat(layout: Layout, kind: str, flat: Array) -> Sent:
    """The inverse of `Factors.flat`; a factor that does not travel is zero."""
    sent: Sent = []
    at = 0
    for _, (shape_b, shape_a) in group_shapes(layout):
        stacks = []
        for letter, shape in (("b", shape_b), ("a", shape_a)):
            if letter in kind:
                size = int(np.prod(shape))
                stacks.append(flat[at : at + size].reshape(shape))
                at += size
            else:
                stacks.append(np.zeros(shape, dtype=flat.dtype))
        sent.append((stacks[0], stacks[1]))
    return sent


def group_shapes(layout: Layout) -> Iterator[tuple[Group, tuple[tuple[int, int, int], tuple[int, int, int]]]]:
    """Every group with the shapes of its stacks of B and of A."""
    for group in layout.groups:
        count = len(group.index)
        yield group, ((count, group.out_features, layout.rank), (count, layout.rank, group.in_features))


def zeros(layout: Layout, dtype: DTypeLike = np.float32) -> Sent:
    """Nothing sent."""
    return [(np.zeros(b, dtype=dtype), np.zeros(a, dtype=dtype)) for _, (b, a) in group_shapes(layout)]


def write_update(layout: Layout, kind: str, sent: Sent, heads: Mapping[str, Array]) -> dict[str, Array]:
    """Named deltas of what travelled, float32."""
    out: dict[str, Array] = {}
    for group, (db, da) in zip(layout.groups, sent, strict=True):
        for at, number in enumerate(group.index):
            pair = layout.space.pairs[number]
            if "a" in kind:
                out[pair.a] = da[at]
            if "b" in kind:
                out[pair.b] = db[at]
    return {**out, **heads}
