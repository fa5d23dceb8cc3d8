"""Two small adapted matrices and a trained head, for the tests of methods."""

from raysoft.types import LoraPair, ParamSpace

PAIRS = (LoraPair("first", 6, 5), LoraPair("second", 4, 6))


def space(rank: int = 3) -> ParamSpace:
    """The factors of PAIRS and a head of 2 x 4 that is always sent."""
    shapes = {}
    for pair in PAIRS:
        shapes[pair.a] = (rank, pair.in_features)
        shapes[pair.b] = (pair.out_features, rank)
    return ParamSpace(
        shapes={**shapes, "head": (2, 4)}, pairs=PAIRS, rank=rank, scale=2.0, always_sent=frozenset({"head"})
    )
