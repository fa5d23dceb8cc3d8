"""Task `digits`: scikit-learn's 1,797 scanned handwritten digits, 8x8 pixels (UCI Optical Recognition, test part)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from raysoft.data.raw import RawSamples, RawTask
from raysoft.types import Array


def pixel_values(images: Sequence[Array]) -> Array:
    """What embedded/vit-digits takes, [N, 1, 8, 8] float32 in -1..1: its own data and model need no image processor.

    (transformers rounds in another order; the published runs hang on these very bits.)
    """
    pixels = np.asarray(images, dtype=np.float32).reshape(len(images), 1, 8, 8)  # there may be none
    return (pixels * np.float32(1 / 255) - np.float32(0.5)) / np.float32(0.5)


def _rows() -> Array:
    """64 pixels (0 to 16) and the label of every digit, [1797, 65], from the file that scikit-learn ships.

    Read without importing scikit-learn where it lies in its usual place: that takes a second of every process.
    """
    spec = find_spec("sklearn")
    if spec is not None and spec.origin is not None:
        file = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return np.column_stack([bunch.data, bunch.target])


def read() -> RawTask:
    """All digits as 8x8 uint8 images (0 black, 255 ink) with labels 0..9; nothing is downloaded."""
    rows = _rows()
    images = np.rint(rows[:, :-1].reshape(-1, 8, 8) * (255.0 / 16.0)).astype(np.uint8)
    labels = [int(label) for label in rows[:, -1]]
    return RawTask(RawSamples(content=list(images), labels=labels), label_names=tuple("0123456789"))
