"""Covering arrays: few runs in which any two values of two kinds meet that can meet at all.

Greedy, after AETG (Cohen et al., IEEE Trans. Software Eng. 23(7), 1997): of a few candidates the one that covers most.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from random import Random

Run = dict[str, str]  # a value of every kind
Pair = tuple[tuple[str, str], tuple[str, str]]  # (kind, value) twice, in the order of the kinds
CANDIDATES = 8


def pairs_of(run: Mapping[str, str], kinds: Sequence[str]) -> list[Pair]:
    """All pairs that meet in a run."""
    return list(combinations([(kind, run[kind]) for kind in kinds if kind in run], 2))


def covering(
    values: Mapping[str, Sequence[str]], works: Callable[[Mapping[str, str]], bool], seed: int
) -> tuple[list[Run], list[Pair]]:
    """(runs that cover every pair that some run can have, the other pairs); a function of its arguments.

    `works`: whether nothing forbids these values of some kinds; it may allow a part whose every completion it forbids.
    """
    kinds, draw = list(values), Random(seed)
    todo = dict.fromkeys(((a, x), (b, y)) for a, b in combinations(kinds, 2) for x in values[a] for y in values[b])
    runs: list[Run] = []
    impossible: list[Pair] = []

    def gain(run: Run) -> int:
        return sum(pair in todo for pair in pairs_of(run, kinds))

    def complete(run: Run, left: list[str]) -> Run | None:
        """The first run on from here that works, with the values first that cover most."""
        if not works(run):
            return None
        if not left:
            return run
        kind, *rest = left
        ways = [{**run, kind: value} for value in draw.sample(values[kind], len(values[kind]))]
        found = (complete(way, rest) for way in sorted(ways, key=gain, reverse=True))
        return next((way for way in found if way is not None), None)

    while todo:
        candidates = []
        for pair in draw.sample(list(todo), min(CANDIDATES, len(todo))):
            left = [kind for kind in kinds if kind not in dict(pair)]
            if (run := complete(dict(pair), draw.sample(left, len(left)))) is None:
                impossible.append(pair)
                del todo[pair]
            else:
                candidates.append(run)
        if candidates:
            best = max(candidates, key=gain)
            runs.append({kind: best[kind] for kind in kinds})
            for pair in pairs_of(best, kinds):
                todo.pop(pair, None)
    return runs, impossible
