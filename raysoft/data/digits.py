"""Task `digits`: scikit-learn's 1,797 scanned handwritten digits, 8x8 pixels (UCI Optical Recognition, test part)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raysoft.data.raw import RawSamples, RawTask
from raysoft.types import Array


def pixel_values(images: Sequence[Array]) -> Array:
    """What embedded/vit-digits takes, [N, 1, 8, 8] float32 in -1..1: its own data and model need no image processor.

    (transformers rounds in another order; the published runs hang on these very bits.)
    """
    pixels = np.asarray(images, dtype=np.float32).reshape(len(images), 1, 8, 8)  # there may be none
    return (pixels * np.float32(1 / 255) - np.float32(0.5)) / np.float32(0.5)


def read() -> RawTask:
    """All digits as 8x8 uint8 images (0 black, 255 ink) with labels 0..9; nothing is downloaded."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255.0 / 16.0)).astype(np.uint8)
    labels = [int(label) for label in bunch.target]
    return RawTask(RawSamples(content=list(images), labels=labels), label_names=tuple("0123456789"))
