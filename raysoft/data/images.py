"""Images to pixel_values by the checkpoint's own image processor (transformers, on Pillow: no torchvision needed).

Only opening a file is done here: turned as its EXIF says, in as many channels as the model takes. What happens to the
pixels then is the processor's business, setting by setting.

Shapes: N images, C channels, H height, W width; pixel_values [N, C, H, W] float32.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raysoft.data.raw import RawSamples
from raysoft.errors import ConfigError
from raysoft.types import Array

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's name for so many channels
_CHUNK = 256  # images that are opened at a time
_WIDE = {"I": "32-bit integers", "F": "floating-point numbers"}


def encode_images(samples: RawSamples, processor: Any, channels: int, field: str, model_name: str) -> Array:
    """pixel_values [N, C, H, W] float32. An image is a path, bytes, {bytes, path}, a Pillow image or a uint8 array.

    Raises ConfigError(field) naming the first image that cannot be read, ConfigError("model.name") where the processor
    cannot make arrays of one shape of them.
    """
    if channels not in _MODES:
        raise ConfigError("model.name", f"{model_name!r} takes images of {channels} channels; use one with 1, 3 or 4")
    images = samples.content
    out: Array | None = None
    for first in range(0, len(images), _CHUNK):
        opened = [_opened(samples, n, channels, field) for n in range(first, min(first + _CHUNK, len(images)))]
        pixels = _processed(opened, processor, model_name)
        if out is None:
            _check_memory(len(images), pixels.shape[1:])
            out = np.empty((len(images), *pixels.shape[1:]), dtype=np.float32)
        if pixels.shape[1:] != out.shape[1:]:
            raise _odd(model_name, f"arrays of shapes {out.shape[1:]} and {pixels.shape[1:]}")
        out[first : first + len(opened)] = pixels
    return out if out is not None else _processed([_blank(channels)], processor, model_name)[:0]


def _processed(images: Sequence[Any], processor: Any, model_name: str) -> Array:
    channels = len(images[0].getbands())
    arrays = [np.asarray(image) if channels > 1 else np.asarray(image)[..., None] for image in images]
    try:
        made = processor(images=arrays, input_data_format="channels_last", return_tensors="np")
        pixels = np.asarray(made["pixel_values"])
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise ConfigError(
            "model.name", f"{model_name!r} has an image processor that cannot be used: {reason}"
        ) from None
    if pixels.dtype == object or pixels.ndim != 4 or len(pixels) != len(images):
        raise _odd(model_name, f"an array of shape {pixels.shape} of {len(images)} images")
    if pixels.shape[1] != channels:
        raise _odd(model_name, f"{pixels.shape[1]} channels of {channels}")
    if not np.isfinite(pixels).all():
        raise _odd(model_name, "values that are not finite (a deviation of zero?)")
    return pixels.astype(np.float32)


def _odd(model_name: str, what: str) -> ConfigError:
    return ConfigError(
        "model.name",
        f"the image processor of {model_name!r} makes {what}; raysoft needs one array [C, H, W] an image, all alike",
    )


def _check_memory(count: int, shape: Sequence[int]) -> None:
    """Say so before the machine starts to swap: pixels are held as float32."""
    needed = 4 * count * int(np.prod(shape))
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    if total and needed > total // 2:
        fits = max(1, count * (total // 4) // needed)
        raise ConfigError(
            "data.max_train_samples",
            f"{count} images of {shape[-2]}x{shape[-1]} pixels need "
            f"{needed / 1e9:.1f} GB of this machine's {total / 1e9:.1f} GB; use "
            f"data.max_train_samples={fits} (and data.max_test_samples)",
        )


def _opened(samples: RawSamples, n: int, channels: int, field: str) -> Any:
    image = samples.content[n]
    try:
        return _open(image, channels)
    except Exception as error:  # Pillow's decoders raise almost anything on damaged files
        name = _name(image) or samples.place(n)
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ConfigError(field, f"{name}: not a readable image ({reason})") from None


def _name(image: Any) -> str | None:
    path = image.get("path") if isinstance(image, Mapping) else image
    return str(path) if isinstance(path, str | Path) else None


def _blank(channels: int) -> Any:
    from PIL import Image

    return Image.new(_MODES[channels], (8, 8))


def _open(image: Any, channels: int) -> Any:
    from PIL import Image, ImageOps

    if isinstance(image, Mapping):
        image = image["bytes"] if image.get("bytes") is not None else image["path"]
    if isinstance(image, bytes):
        image = io.BytesIO(image)
    if isinstance(image, np.ndarray):
        opened = Image.fromarray(image)
    elif isinstance(image, Image.Image):
        opened = image
    elif isinstance(image, str | Path | io.BytesIO):
        with warnings.catch_warnings():
            # Pillow refuses images of 180 megapixels; half of that needs no warning.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(image)
    else:
        raise TypeError(f"{type(image).__name__} is not an image")
    if 0 in opened.size:
        raise ValueError("it has no pixels")
    opened = ImageOps.exif_transpose(opened)
    if opened.mode.startswith("I;16"):  # 16-bit scans: keep the upper byte, where convert() would clip
        opened = Image.fromarray((np.asarray(opened).astype(np.uint32) >> 8).astype(np.uint8))
    if opened.mode in _WIDE:
        raise ValueError(f"its pixels are {_WIDE[opened.mode]}, which have no agreed scale; save it with 8 or 16 bits")
    return opened.convert(_MODES[channels])
