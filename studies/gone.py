"""Published runs of options that are no longer there: which they are, and how a study has them without running them."""

from __future__ import annotations

from dataclasses import dataclass

from raysoft.comparison.batch import Job

# Options that brought nothing measurable and are no longer there: their published runs, by seed.
GONE = {
    "digits": {
        "component weights": ("component-weights-s0-6e885dc5", "component-weights-s1-6984570e"),
        "age bonus 1": ("age-bonus-1-s0-de7a02d3", "age-bonus-1-s1-e6866005"),
        "random share 0.25": ("random-share-0.25-s0-6199512e", "random-share-0.25-s1-112fb94a"),
    },
    "python-source": {
        "component weights": ("component-weights-s0-a28b9e79", "component-weights-s1-ae04d0cf"),
        "age bonus 1": ("age-bonus-1-s0-7f725078", "age-bonus-1-s1-9f5d9e30"),
        "random share 0.25": ("random-share-0.25-s0-59d8b7f0", "random-share-0.25-s1-3e380a10"),
    },
}


@dataclass(frozen=True)
class GoneJob(Job):
    """A published run whose option is no longer there: found by the name of its folder, and never run.

    `config` lacks the option.
    """

    folder: str = ""
