"""Small client updates for the codec tests."""

from __future__ import annotations

from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np

from raysoft.codecs.base import Codec
from raysoft.config import parse_section, registry
from raysoft.types import ORDER, Array, Curve, DenseBlock, Downlink, LoraPair, ParamSpace, Tensors, Update, View

MODULES: dict[str, ModuleType] = {name: registry.plugin("codec", name) for name in registry.CODECS}

THINNED = {"codecs": [{"name": "rank_components"}, {"name": "topk", "kept_fraction": 0.5}, {"name": "quantize"}]}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("identity", {}),
    ("identity", {"bits_per_value": 16}),
    ("identity", {"bits_per_value": 3}),
    ("rank_components", {"importance": "norm"}),
    ("rank_components", {"importance": "update"}),
    ("rank_components", {"importance": "gram_greedy"}),
    ("rank_components", {"scope": "matrix"}),
    ("rank_components", {"bits_per_value": 16, "importance": "gram_greedy", "scope": "matrix"}),
    ("rank_components", {"bits_per_value": 5, "head_bits": 8}),
    ("topk", {"of": "factors"}),
    ("topk", {"of": "update", "bits_per_value": 4}),
    ("topk", {"bits_per_value": 16}),
    ("randomk", {}),
    ("randomk", {"unbiased": True, "bits_per_value": 7}),
    ("randomk", {"unit": "entry"}),
    ("randomk", {"unit": "entry", "unbiased": True, "bits_per_value": 16}),
    ("svd", {}),
    ("svd", {"bits_per_value": 6}),
    ("quantize", {"bits": 6}),
    ("rank_components", {"bits_per_value": 3, "quantizer": "rotated"}),
    ("identity", {"bits_per_value": 2, "quantizer": "rotated"}),
    ("svd", {"bits_per_value": 6, "quantizer": "rotated"}),
    ("quantize", {"bits": 5, "quantizer": "rotated"}),
    ("chain", {**THINNED, "quantizer": "rotated"}),
    ("waterfill", {}),
    ("waterfill", {"bits": 2, "max_bits": 8, "head_bits": 8}),
    ("chain", {"codecs": [{"name": "quantize", "bits": 4}]}),
    ("chain", {"codecs": [{"name": "svd"}, {"name": "quantize", "bits": 7}]}),
    ("chain", THINNED),
    ("chain", {"codecs": [{"name": "identity"}, {"name": "topk", "kept_fraction": 0.2}], "bits_per_value": 16}),
]


def build(name: str, space: ParamSpace, **options: Any) -> Codec:
    """A codec as the registry builds it."""
    module = MODULES[name]
    return module.build(parse_section(module.Config, options, "codec"), space)


def client(
    shapes: list[tuple[int, int]],
    rank: int,
    *,
    seed: int = 0,
    r_max: int | None = None,
    head: bool = False,
    kind: str = "ab",
    size: float = 0.02,
    b0: float = 0.1,
) -> tuple[ParamSpace, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(space, start, update) with components of very different size."""
    rng = np.random.default_rng(seed)
    r_max = r_max or rank
    pairs = tuple(LoraPair(f"layer{k}", o, i) for k, (o, i) in enumerate(shapes))
    start: dict[str, np.ndarray] = {}
    update: dict[str, np.ndarray] = {}
    for pair in pairs:
        o, i = pair.out_features, pair.in_features
        start[pair.a] = (rng.normal(size=(rank, i)) / np.sqrt(i)).astype(np.float32)
        start[pair.b] = (b0 * rng.normal(size=(o, rank))).astype(np.float32)
        spread = rng.lognormal(0, 1, rank)
        if "b" in kind:
            update[pair.b] = (size * rng.normal(size=(o, rank)) * spread).astype(np.float32)
        if "a" in kind:
            update[pair.a] = (size * rng.normal(size=(rank, i)) * spread[:, None]).astype(np.float32)
    heads = {"head.weight": (3, 5), "head.bias": (3,)} if head else {}
    for name, shape in heads.items():
        start[name], update[name] = rng.normal(size=(2, *shape)).astype(np.float32)
    dense = tuple(DenseBlock(name, shape) for name, shape in heads.items())
    return ParamSpace((*pairs, *dense), r_max, 2.0), start, update


def view_of(space: ParamSpace, start: Tensors, update: Update | None = None, order: Array | None = None) -> View:
    """What both ends know of a client that started here and trains what `update` names; without one, everything."""
    rank = start[space.pairs[0].a].shape[0]
    trains = frozenset(start if update is None else update)
    return View(1, 0, rank, start, trains, Downlink(0), {} if order is None else {ORDER: order})


def products(space: ParamSpace, start: dict, update: dict) -> list[np.ndarray]:
    """s B A of every matrix, dense, float64."""

    def value(name: str) -> np.ndarray:
        return start[name].astype(np.float64) + np.asarray(update.get(name, 0.0), dtype=np.float64)

    return [space.scale * value(pair.b) @ value(pair.a) for pair in space.pairs]


def dense_error(space: ParamSpace, start: dict, update: dict, received: dict) -> float:
    """||s (B A - B' A')||^2 over all matrices, by dense matrices."""
    ends = zip(products(space, start, update), products(space, start, received), strict=True)
    return float(sum(((x - y) ** 2).sum() for x, y in ends))


def assert_convex(curve: Curve) -> None:
    """Increasing bits, errors decreasing and convex up to rounding, at most 65 points."""
    assert curve.bits_J[0] == 0
    assert len(curve.bits_J) == len(curve.error_J) <= 65
    assert (np.diff(curve.bits_J) > 0).all()
    scale = max(float(curve.error_J[0]), 1e-300)
    slopes = np.diff(curve.error_J) / np.diff(curve.bits_J)
    assert (np.diff(curve.error_J) <= 1e-12 * scale).all()
    gaps = np.diff(curve.bits_J)
    for (left, right), gap in zip(pairwise(slopes), gaps[1:], strict=True):
        assert right >= left - 1e-10 * scale / gap
