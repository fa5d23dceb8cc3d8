"""Images to pixel_values, by a model's image processor settings, in Pillow and numpy (no torchvision needed).

Shapes: N images, C channels, H height, W width; pixel_values [N, C, H, W] float32.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from raysoft.data.raw import RawSamples
from raysoft.errors import ConfigError
from raysoft.types import Array

_BILINEAR = 2
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's name for so many channels


@dataclass(frozen=True)
class ImageSpec:
    """What a model wants to see: shorter edge to `edge` and a centre crop, or a plain resize to [height, width]."""

    channels: int
    height: int
    width: int
    edge: int | None = None
    resample: int = _BILINEAR
    scale: float = 1.0 / 255.0
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)


def image_spec(settings: Mapping[str, Any], model_config: Any, model_name: str) -> ImageSpec:
    """Settings of a preprocessor_config.json (empty: mean and deviation 0.5), completed by the model's configuration.

    Raises ConfigError("model.name") where neither says how large an image is, where they disagree, or where a setting
    cannot be used.
    """
    try:
        spec = _spec(settings, model_config, model_name)
    except (TypeError, ValueError) as error:
        raise ConfigError("model.name", f"{model_name!r} has an image processor that cannot be used: {error}") from None
    if spec.channels not in _MODES:
        raise ConfigError(
            "model.name", f"{model_name!r} takes images of {spec.channels} channels; use one with 1, 3 or 4"
        )
    if not all(spec.std) or min(spec.height, spec.width, spec.edge or 1) < 1:
        raise ConfigError(
            "model.name", f"the image processor of {model_name!r} has a size or deviation of zero or less"
        )
    return spec


def _spec(settings: Mapping[str, Any], model_config: Any, model_name: str) -> ImageSpec:
    from PIL import Image

    channels = int(getattr(model_config, "num_channels", 3))
    edge, final = _sizes(settings)
    wanted = _pair(getattr(model_config, "image_size", None))
    final = final or wanted
    if final is None:
        kind = getattr(model_config, "model_type", "?")
        raise ConfigError(
            "model.name",
            f"{model_name!r} (a {kind} model) says nowhere how large its images are; choose an image model",
        )
    if wanted is not None and wanted != final:
        raise ConfigError(
            "model.name",
            f"{model_name!r} takes images of {wanted[0]}x{wanted[1]} pixels, but its "
            f"image processor makes them {final[0]}x{final[1]}",
        )
    normalize = settings.get("do_normalize", True)
    mean, std = settings.get("image_mean"), settings.get("image_std")
    return ImageSpec(
        channels=channels,
        height=final[0],
        width=final[1],
        edge=edge,
        resample=Image.Resampling(settings["resample"] if settings.get("resample") is not None else _BILINEAR),
        scale=float(settings.get("rescale_factor") or 1 / 255) if settings.get("do_rescale", True) else 1.0,
        mean=_per_channel(mean if mean is not None else 0.5, channels, model_name) if normalize else (0.0,) * channels,
        std=_per_channel(std if std is not None else 0.5, channels, model_name) if normalize else (1.0,) * channels,
    )


def _sizes(settings: Mapping[str, Any]) -> tuple[int | None, tuple[int, int] | None]:
    """(shorter edge or None, final height and width or None)."""
    size, crop = settings.get("size"), _pair(settings.get("crop_size"))
    crop = crop if settings.get("do_center_crop", crop is not None) else None
    edge = size.get("shortest_edge") if isinstance(size, Mapping) else None
    if isinstance(size, int) and crop is not None:
        edge = size  # the old spelling of shortest_edge
    if edge is not None:
        return int(edge), crop or (int(edge), int(edge))
    return None, crop or _pair(size)


def _pair(size: Any) -> tuple[int, int] | None:
    if isinstance(size, Mapping):
        return (int(size["height"]), int(size["width"])) if {"height", "width"} <= set(size) else None
    if isinstance(size, int):
        return size, size
    if isinstance(size, list | tuple) and len(size) == 2:
        return int(size[0]), int(size[1])
    return None


def _per_channel(value: Any, channels: int, model_name: str) -> tuple[float, ...]:
    values = [float(v) for v in value] if isinstance(value, list | tuple) else [float(value)]
    if len(values) == 1:
        values *= channels
    if len(values) != channels:
        raise ConfigError(
            "model.name",
            f"{model_name!r} has {channels} image channels, but its image processor gives "
            f"{len(values)} means or deviations",
        )
    return tuple(values)


def encode_images(samples: RawSamples, spec: ImageSpec, field: str) -> Array:
    """pixel_values [N, C, H, W] float32. An image is a path, bytes, {bytes, path}, a Pillow image or a uint8 array.

    Raises ConfigError(field) naming the first image that cannot be read.
    """
    images = samples.content
    _check_memory(len(images), spec)
    out = np.empty((len(images), spec.channels, spec.height, spec.width), dtype=np.float32)
    mean_C = np.array(spec.mean, dtype=np.float32)[:, None, None]
    std_C = np.array(spec.std, dtype=np.float32)[:, None, None]
    for n, image in enumerate(images):
        try:
            pixels = np.asarray(_fit(_open(image, spec.channels), spec), dtype=np.float32)
        except Exception as error:  # Pillow's decoders raise almost anything on damaged files
            name = _name(image) or samples.place(n)
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise ConfigError(field, f"{name}: not a readable image ({reason})") from None
        pixels = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
        out[n] = (pixels * np.float32(spec.scale) - mean_C) / std_C
    return out


def _check_memory(count: int, spec: ImageSpec) -> None:
    """Say so before the machine starts to swap: pixels are held as float32."""
    needed = 4 * count * spec.channels * spec.height * spec.width
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    if total and needed > total // 2:
        fits = max(1, count * (total // 4) // needed)
        raise ConfigError(
            "data.max_train_samples",
            f"{count} images of {spec.height}x{spec.width} pixels need "
            f"{needed / 1e9:.1f} GB of this machine's {total / 1e9:.1f} GB; use "
            f"data.max_train_samples={fits} (and data.max_test_samples)",
        )


def _name(image: Any) -> str | None:
    path = image.get("path") if isinstance(image, Mapping) else image
    return str(path) if isinstance(path, str | Path) else None


def _open(image: Any, channels: int) -> Any:
    from PIL import Image

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
    if opened.mode.startswith("I"):  # 16-bit scans: keep the upper byte, where convert() would clip
        opened = Image.fromarray((np.asarray(opened).astype(np.uint32) >> 8).astype(np.uint8))
    return opened.convert(_MODES[channels])


def _fit(image: Any, spec: ImageSpec) -> Any:
    from PIL import Image

    resample = Image.Resampling(spec.resample)
    if spec.edge is None:
        size = (spec.width, spec.height)
        return image if image.size == size else image.resize(size, resample)
    ratio = spec.edge / min(image.size)
    width, height = (max(spec.edge, int(side * ratio)) for side in image.size)
    image = image.resize((width, height), resample)
    left, top = (width - spec.width) // 2, (height - spec.height) // 2
    return image.crop((left, top, left + spec.width, top + spec.height))
