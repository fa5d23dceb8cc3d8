"""What codecs say of the updates they encoded (`Encoded.stats`), as figures of a round.

A scalar is averaged over the clients that have it. `sent` is a mask over the rank components of r_max; N of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from raysoft.types import Array


def sent_counts(stats: Iterable[Mapping[str, Array]]) -> Array | None:
    """Of how many clients each rank component was sent, int64 [N]; None where no codec says."""
    sent_KN = [np.asarray(one["sent"], dtype=np.int64) for one in stats if "sent" in one]
    return np.sum(sent_KN, axis=0) if sent_KN else None


def coverage(counts_N: Array | None) -> dict[str, float]:
    """How evenly components came to be sent: the share that never was, and the entropy of the rest (1 = even)."""
    if counts_N is None or counts_N.sum() == 0:
        return {}
    share = counts_N[counts_N > 0] / counts_N.sum()
    entropy = float(-(share * np.log(share)).sum() / np.log(len(counts_N))) if len(counts_N) > 1 else 1.0
    return {"components_never_sent": float((counts_N == 0).mean()), "selection_entropy": entropy}


def mean_stats(stats: Iterable[Mapping[str, Array]]) -> dict[str, float]:
    """The mean of every scalar, by name."""
    values: dict[str, list[float]] = {}
    for one in stats:
        for name, value in one.items():
            if np.ndim(value) == 0:
                values.setdefault(name, []).append(float(value))
    return {name: float(np.mean(found)) for name, found in sorted(values.items())}
