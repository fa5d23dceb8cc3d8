"""Printed digits: what the embedded ViT is pretrained on. No download, the fonts come with matplotlib.

Shapes: G glyphs, N samples. A glyph is drawn once, large; a sample is a distorted glyph on a 32x32 bitmap, counted in
4x4 blocks to 8x8 pixels, the way the scanned digits were made (Alpaydin and Kaynak, "Optical Recognition of
Handwritten Digits", UCI Machine Learning Repository, 1998).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raysoft.types import Array

if TYPE_CHECKING:
    import torch

# Upright and slanted, with and without serifs, monospaced, bold: every bundled family that has the ten digits.
FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSans-BoldOblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSansMono-Oblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
    "DejaVuSerif-BoldItalic",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralItalic",
    "STIXGeneralBolIta",
    "cmr10",
    "cmb10",
    "cmss10",
    "cmti10",
    "cmtt10",
)
MASTER_PIXELS = 64
BITMAP_PIXELS = 32
IMAGE_PIXELS = 8
ZOOM = (1.0, 1.2)


def render_digits() -> tuple[Array, Array]:
    """Every digit in every font, height-normalised and centred: images [G, 64, 64] uint8 and labels [G] int64."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    images, labels = [], []
    for name in FONTS:
        path = folder / f"{name}.ttf"
        if not path.is_file():  # a distribution may strip some; the cache key covers what is left
            continue
        font = ImageFont.truetype(str(path), 96, layout_engine=ImageFont.Layout.BASIC)
        for digit in range(10):
            canvas = Image.new("L", (192, 192))
            ImageDraw.Draw(canvas).text((48, 32), str(digit), font=font, fill=255)
            box = canvas.getbbox()
            if box is None:
                continue
            images.append(_fit(canvas.crop(box)))
            labels.append(digit)
    return np.stack(images), np.array(labels, dtype=np.int64)


def _fit(glyph: Any) -> Array:
    """A cropped glyph scaled to 5/8 of the master's height, proportions kept, in the middle."""
    from PIL import Image

    height = MASTER_PIXELS * 5 // 8
    width = max(1, min(MASTER_PIXELS, round(glyph.width * height / glyph.height)))
    canvas = Image.new("L", (MASTER_PIXELS, MASTER_PIXELS))
    small = glyph.resize((width, height), Image.Resampling.BILINEAR)
    canvas.paste(small, ((MASTER_PIXELS - width) // 2, (MASTER_PIXELS - height) // 2))
    return np.asarray(canvas, dtype=np.uint8)


def distort(masters_N: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One distorted sample per glyph: [N, 64, 64] in 0..1 to pixels [N, 1, 8, 8] in 0..1.

    Size, shift, rotation, slant, blur, stroke weight and noise are drawn uniformly. The glyph stays clearly smaller
    than its image, as in print, while the scanned digits fill theirs: that (and their handwriting) is what the
    federated clients have to learn.
    """
    import torch
    from torch.nn import functional

    def draw(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(len(masters_N), generator=generator)

    angle, slant = draw(-0.1, 0.1), draw(-0.1, 0.1)  # radians
    # grid_sample maps output to input, so a glyph drawn 1.2 times as large is a factor of 1 / 1.2.
    narrow_y, narrow_x = 1 / draw(*ZOOM), 1 / draw(*ZOOM)
    rows = [
        torch.stack([narrow_x * angle.cos(), slant - angle.sin(), draw(-0.05, 0.05)], 1),
        torch.stack([angle.sin(), narrow_y * angle.cos(), draw(-0.05, 0.05)], 1),
    ]
    grid = functional.affine_grid(
        torch.stack(rows, 1), [len(masters_N), 1, BITMAP_PIXELS, BITMAP_PIXELS], align_corners=False
    )
    ink = functional.grid_sample(masters_N[:, None], grid, align_corners=False)
    blurred = functional.avg_pool2d(functional.pad(ink, (1, 1, 1, 1)), 3, stride=1)
    ink = ink + draw(0.0, 1.0)[:, None, None, None] * (blurred - ink)
    threshold = draw(0.15, 0.7)[:, None, None, None]  # below 0.5: thicker strokes
    ink = ((ink - threshold) * 6 + 0.5).clamp(0, 1)
    pixels = functional.avg_pool2d(ink, BITMAP_PIXELS // IMAGE_PIXELS)
    noise = draw(0.0, 0.15)[:, None, None, None]
    return (pixels + noise * torch.randn(pixels.shape, generator=generator)).clamp(0, 1)
