"""Two small adapted matrices and a trained head, for the tests of methods."""

from raysoft.types import DenseBlock, LoraPair, ParamSpace

PAIRS = (LoraPair("first", 6, 5), LoraPair("second", 4, 6))


def space(rank: int = 3) -> ParamSpace:
    """The factors of PAIRS and a head of 2 x 4 that is always sent."""
    return ParamSpace((*PAIRS, DenseBlock("head", (2, 4))), rank, scale=2.0)
