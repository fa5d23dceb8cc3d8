"""What a curve's report carries for its bits: nothing where both ends know them, else what a receiver needs."""

from itertools import combinations_with_replacement, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysoft.codecs.ecsq import LEVELS, WIDTH_BITS
from raysoft.codecs.measure.curves import counts, told_counts_bits
from raysoft.codecs.wire.bits import BitReader, BitWriter, subset_rank
from tests.unit.codecs.updates import THINNED, VARIANTS, build, client, view_of

NAMES = [f"{name}-{k}" for k, (name, _) in enumerate(VARIANTS)]
UNLIKE = [(3, 5), (7, 2), (3, 5), (4, 1)]
CHOOSING = [
    ("rank_components", {"importance": "norm"}),
    ("rank_components", {"importance": "gram_greedy", "scope": "matrix"}),
    ("rank_components", {"bits_per_value": 3, "quantizer": "rotated"}),
    ("chain", THINNED),
]


@pytest.mark.parametrize("name, options", [*VARIANTS, ("ecsq", {})], ids=[*NAMES, "ecsq"])
@pytest.mark.parametrize("kind", ["ab", "b", "a"])
def test_bits_that_nothing_tells_are_those_of_every_update(name, options, kind):
    """The receiver has the model, the rank and the options, so curves of any two updates have to agree there."""
    for shapes in ([(4, 4)] * 3, UNLIKE, [(2, 6), (6, 2)]):
        curves = []
        for seed in range(12):
            space, start, update = client(shapes, 2, seed=seed, kind=kind)
            view = view_of(space, start, update)
            curves.append(build(name, space, **options).menu(update, view, {}))
        alike = len({tuple(curve.bits_J.tolist()) for curve in curves}) == 1
        assert alike or all(curve.told_bits > 0 for curve in curves)


@pytest.mark.parametrize("name, options", CHOOSING, ids=[f"{name}-{k}" for k, (name, _) in enumerate(CHOOSING)])
@given(st.integers(0, 2**32), st.sampled_from(["ab", "b", "a"]), st.sampled_from([1, 2, 17]))
@settings(max_examples=8, deadline=None)
def test_a_receiver_rebuilds_the_bits_from_what_is_charged(name, options, seed, kind, rank):
    shapes = UNLIKE[:2] if rank == 17 else UNLIKE
    space, start, update = client(shapes, rank, seed=seed, kind=kind)
    view = view_of(space, start, update)
    codec = build(name, space, **options)
    curve = codec.menu(update, view, {})
    code = told(codec, codec.layout(view), kind, curve.bits_J)
    assert code.bit_length() <= curve.told_bits
    assert rebuilt(codec, codec.layout(view), kind, code) == curve.bits_J.tolist()


def told(codec, layout, kind, bits_J):
    """The sender's number: which mixture of costs each step takes (any that gives these bits)."""
    costs = np.unique(layout.widths_L(kind)).size
    found, radix = {(0,) * costs: 0}, 1
    for unit, (before, now) in enumerate(pairwise(counts(layout.components)), 1):
        options = mixtures(now - before, costs)
        later = {}
        for so_far, code in found.items():
            for digit, mixture in enumerate(options):
                total = tuple(np.add(so_far, mixture).tolist())
                if length(codec, layout, kind, unit, total) == bits_J[unit]:
                    later.setdefault(total, code + radix * digit)
        found, radix = later, radix * len(options)
    return next(iter(found.values()))


def rebuilt(codec, layout, kind, code):
    """The receiver's bits, from the number, the model, the rank and the options."""
    costs = np.unique(layout.widths_L(kind)).size
    total, bits = np.zeros(costs, dtype=int), [0]
    for unit, (before, now) in enumerate(pairwise(counts(layout.components)), 1):
        options = mixtures(now - before, costs)
        code, digit = divmod(code, len(options))
        total = total + options[digit]
        bits.append(length(codec, layout, kind, unit, tuple(total.tolist())))
    return bits


def mixtures(pieces, costs):
    """Every way to take so many pieces of so many costs."""
    chosen = combinations_with_replacement(range(costs), pieces)
    return [tuple(np.bincount(one, minlength=costs).tolist()) for one in chosen]


def length(codec, layout, kind, unit, mixture):
    """Bits of a payload with so many components of each cost; None where there are not as many."""
    widths = layout.widths_L(kind)
    kept = np.zeros((layout.matrices, layout.rank), dtype=bool)
    for number, width in zip(mixture, np.unique(widths), strict=True):
        mine = np.argwhere(np.repeat(widths[:, None] == width, layout.rank, axis=1))
        if number > len(mine):
            return None
        kept[tuple(mine[:number].T)] = True
    sides = iter((subset_rank(kept.reshape(-1)),))
    plan = codec.scheme.plan(layout, kind, codec.coder, unit, lambda width: next(sides, 0))
    coder = plan.coder or codec.coder
    return coder.size(int(plan.sizes.sum()), len(plan.sizes)) + plan.side_bits


@given(st.integers(0, 2**32), st.sampled_from(["ab", "b", "a"]))
@settings(max_examples=15, deadline=None)
def test_ecsq_tells_its_lengths_as_differences_of_one_width(seed, kind):
    space, start, update = client(UNLIKE, 2, seed=seed, kind=kind)
    view = view_of(space, start, update)
    curve = build("ecsq", space).menu(update, view, {})
    steps = np.diff(curve.bits_J).tolist()
    assert len(steps) == LEVELS
    writer, width = BitWriter(), max(steps).bit_length()
    writer.integer(width, WIDTH_BITS)
    for step in steps:
        writer.integer(step, width)
    assert writer.num_bits == curve.told_bits
    reader = BitReader(writer.payload())
    width = reader.integer(WIDTH_BITS)
    assert np.cumsum([0, *(reader.integer(width) for _ in range(LEVELS))]).tolist() == curve.bits_J.tolist()


def test_bits_of_the_mixtures_by_hand():
    assert told_counts_bits(5, 1) == 0  # one cost: the count says it all
    assert told_counts_bits(5, 2) == 5  # five steps of one piece, cheap or dear
    assert told_counts_bits(128, 2) == int(np.ceil(64 * np.log2(3)))  # two pieces a step: 0, 1 or 2 dear ones
    assert told_counts_bits(64, 3) == int(np.ceil(64 * np.log2(3)))
    assert told_counts_bits(128, 3) == int(np.ceil(64 * np.log2(6)))  # two pieces of three costs a step


def test_a_given_order_tells_everything():
    """All clients send prefixes of it, which both ends have."""
    space, start, update = client(UNLIKE, 2)
    view = view_of(space, start, update)
    codec = build("rank_components", space)
    assert codec.menu(update, view, {}).told_bits > 0
    assert codec.menu(update, view_of(space, start, update, np.arange(8)), {}).told_bits == 0
