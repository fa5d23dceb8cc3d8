"""The task `digit-domains`: how its local steps, rate and rank were chosen, and its picture in docs/.

    python -m studies.digit_domains                                      every setting of the table, on validation
    python -m studies.digit_domains --picture docs/images/digit_domains.png

Correcting the bias of averaged factors can only help where there is one. FedIT's is `aggregation_covariance`, the
squared norm of the covariance of the factors over clients relative to the step that the mean of the products would
take; the setting of `fedit-domains` keeps it at 5 % or more while the model learns. Measured with seeds that no
comparison uses (those have 0 to 9), on the validation split.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import raysoft
from raysoft.data import digit_domains, digits

ROUNDS = 15
SEEDS = (100, 101)
LAST = 5  # evaluations in a mean: one of 135 validation samples says little
STEPS = (5, 10, 20, 40)
RATES = (0.02, 0.05, 0.1)
RANKS = (4, 8, 16)
CHOSEN: Mapping[str, Any] = {"train.steps": 20, "train.lr": 0.1, "model.lora.rank": 8}


def settings() -> list[dict[str, Any]]:
    """One after another away from what was chosen."""
    axes: dict[str, Sequence[float]] = {"train.steps": STEPS, "train.lr": RATES, "model.lora.rank": RANKS}
    found = [dict(CHOSEN)]
    found += [{**CHOSEN, key: value} for key, values in axes.items() for value in values if value != CHOSEN[key]]
    return found


def measure(setting: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """Covariance of FedIT (mean and least over rounds) and accuracy of base and end, means over seeds."""
    found = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as scratch:
            result = raysoft.run(
                "fedit-domains", setting, {"eval.split": "validation", "tracking.tensorboard": False},
                seed=seed, rounds=ROUNDS, executor="inline", out=Path(scratch) / "run", progress=False, report=False,
            )  # fmt: skip
            rounds = result.rounds
        covariance = rounds["aggregation_covariance"].dropna()
        accuracy = rounds["accuracy"]
        found.append((covariance.mean(), covariance.min(), accuracy.iloc[0], accuracy.iloc[-LAST:].mean()))
    mean, least, base, end = np.mean(found, axis=0).tolist()
    return mean, least, base, end


def table() -> None:
    """The rows of the table in docs/data_and_models.md, each as soon as it is measured."""
    print(
        "| local steps | rate | rank | covariance (%) | least round (%) | accuracy, base | accuracy, last five rounds |"
    )
    print("|---|---|---|---|---|---|---|")
    for setting in settings():
        mean, least, base, end = measure(setting)
        values = " | ".join(f"{value}" for value in setting.values())
        print(f"| {values} | {100 * mean:.1f} | {100 * least:.1f} | {base:.3f} | {end:.3f} |", flush=True)


def picture(path: Path) -> None:
    """One digit of each class as it is, and in the look of every domain."""
    from matplotlib.figure import Figure

    plain = digits.read().train
    images_N = np.stack(plain.content)
    first = [list(plain.labels or ()).index(label) for label in range(10)]
    looks = {"digits": images_N, **{name: look(images_N) for name, look in digit_domains.DOMAINS.items()}}
    figure = Figure(figsize=(7.16, 5.0), layout="constrained")
    axes = figure.subplots(len(looks), len(first))
    for row, (name, pixels_N) in enumerate(looks.items()):
        for column, number in enumerate(first):
            ax = axes[row, column]
            ax.imshow(pixels_N[number], cmap="gray", vmin=0, vmax=255)
            ax.set(xticks=[], yticks=[])
        axes[row, 0].set_ylabel(name, rotation=0, ha="right", va="center")
    figure.savefig(path, dpi=100, metadata={"Software": None})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path, metavar="PNG", help="draw the picture instead")
    drawn = parser.parse_args().picture
    logging.getLogger("raysoft").setLevel(logging.WARNING)
    if drawn is not None:
        picture(drawn)
    else:
        table()
