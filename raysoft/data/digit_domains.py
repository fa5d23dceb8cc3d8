"""Task `digit-domains`: the handwritten digits in six looks that the embedded ViT has never seen; a client is a domain.

The digits are those of `digits`, in the same order with the same labels, so a seed splits both tasks alike. Each digit
is in exactly one domain and stands there in that domain's look only: nothing of a test image is in anybody's training
data. The counterpart, at 8x8 pixels, of the feature shift of DomainNet that LoRA-FAIR (Bian et al., ICCV 2025) is
tested on: classes are alike everywhere, images are not.

All transforms are fixed. They are NumPy element by element (no BLAS, no compiled filters), rounded to uint8: the same
images on every processor. Shapes: N images of 8x8 pixels, uint8, 0 background and 255 ink unless a domain says other.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from raysoft.data import digits
from raysoft.data.raw import RawSamples, RawTask
from raysoft.rng import Rng
from raysoft.types import Array

_SIDE = 8
_COS_25, _SIN_25 = 0.906308, 0.422618  # written out: the last bit of a library's sine is its own
_SHEAR = 0.6  # columns that a row is moved for each row between it and the middle
_DASHES, _DASH_PIXELS = 4, 3


def _affine(images_N: Array, matrix: tuple[tuple[float, float], tuple[float, float]]) -> Array:
    """Pixel (y, x) shows what was at matrix @ (y, x), about the middle; bilinear, background beyond the edge."""
    centre = (_SIDE - 1) / 2
    y, x = np.mgrid[:_SIDE, :_SIDE] - centre
    (yy, yx), (xy, xx) = matrix
    from_y, from_x = yy * y + yx * x + centre, xy * y + xx * x + centre
    top, left = np.floor(from_y).astype(np.int64), np.floor(from_x).astype(np.int64)
    down, right = from_y - top, from_x - left
    edge = _SIDE  # of background around the image: no pixel comes from farther away
    padded = np.pad(images_N.astype(np.float64), ((0, 0), (edge, edge), (edge, edge)))
    out = np.zeros(images_N.shape)
    for row, weight_y in ((top, 1.0 - down), (top + 1, down)):
        for column, weight_x in ((left, 1.0 - right), (left + 1, right)):
            out += weight_y * weight_x * padded[:, row + edge, column + edge]
    return np.rint(out).astype(np.uint8)


def _inverted(images_N: Array) -> Array:
    return 255 - images_N


def _rotated(images_N: Array) -> Array:
    """By 25 degrees, clockwise."""
    return _affine(images_N, ((_COS_25, -_SIN_25), (_SIN_25, _COS_25)))


def _sheared(images_N: Array) -> Array:
    """The top to the left, the bottom to the right: against the slant of handwriting."""
    return _affine(images_N, ((1.0, 0.0), (-_SHEAR, 1.0)))


def _thick(images_N: Array) -> Array:
    """Strokes a pixel wider to the right and downwards: the largest of 2x2 pixels."""
    padded = np.pad(images_N, ((0, 0), (1, 0), (1, 0)))
    return np.maximum.reduce([padded[:, dy : dy + _SIDE, dx : dx + _SIDE] for dy in (0, 1) for dx in (0, 1)])


def _faded(images_N: Array) -> Array:
    """Blurred by [1 2 1] / 4 in both directions, then 60 % of the contrast taken, from grey to less dark grey."""
    padded = np.pad(images_N.astype(np.int64), ((0, 0), (1, 1), (1, 1)))
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    blurred = rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]
    return (blurred // 40 + 76).astype(np.uint8)  # / 16 * 0.4 + 0.3 * 255


def _cluttered(images_N: Array) -> Array:
    """Four dashes, across or upright, laid over each image; where they lie is drawn by its number."""
    n = np.arange(len(images_N))
    draws_ND3 = Rng(0).uniform("digit_domains_clutter", n, size=_DASHES * 3).reshape(len(n), _DASHES, 3)
    out = images_N.copy()
    along_ND = (draws_ND3[..., 0] * (_SIDE - _DASH_PIXELS + 1)).astype(np.int64)
    across_ND = (draws_ND3[..., 1] * _SIDE).astype(np.int64)
    for dash in range(_DASHES):
        upright_N = draws_ND3[:, dash, 2] < 0.5
        for step in range(_DASH_PIXELS):
            lengthwise_N = along_ND[:, dash] + step
            y = np.where(upright_N, lengthwise_N, across_ND[:, dash])
            x = np.where(upright_N, across_ND[:, dash], lengthwise_N)
            out[n, y, x] = 255
    return out


DOMAINS: dict[str, Callable[[Array], Array]] = {
    "inverted": _inverted,
    "rotated": _rotated,
    "sheared": _sheared,
    "thick": _thick,
    "faded": _faded,
    "cluttered": _cluttered,
}


def domain_of(labels: Array) -> Array:
    """Domain 0..5 of every image [N]: those of each class are dealt in turn, so domains have equally many (+- 1)."""
    domain_N = np.empty(len(labels), dtype=np.int64)
    domain_N[np.argsort(labels, kind="stable")] = np.arange(len(labels)) % len(DOMAINS)
    return domain_N


def read() -> RawTask:
    """All digits in their domains, labels 0..9; the groups are the names of the domains. Nothing is downloaded."""
    plain = digits.read()
    assert plain.train.labels is not None
    images_N = np.stack(plain.train.content)
    domain_N = domain_of(np.asarray(plain.train.labels))
    names = list(DOMAINS)
    looks_DN = np.stack([DOMAINS[name](images_N) for name in names])
    content = list(looks_DN[domain_N, np.arange(len(images_N))])
    samples = RawSamples(content, plain.train.labels, groups=[names[number] for number in domain_N])
    return RawTask(samples, label_names=plain.label_names)
