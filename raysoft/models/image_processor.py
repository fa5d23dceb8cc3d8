"""The image processor of a model folder (transformers, on Pillow: no torchvision needed)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from raysoft.errors import ConfigError

_SETTINGS = ("preprocessor_config.json", "processor_config.json", "image_processor_config.json")


def load_processor(source: str, model_config: Any, model_name: str, revision: str | None) -> Any:
    """The image processor that the model folder names.

    A folder without preprocessor_config.json gets the plainest one: resized to the model's image size, scaled to
    0..1, mean and deviation 0.5. Raises ConfigError("model.name") where it cannot be used, or nobody says how large an
    image is.
    """
    from transformers import AutoImageProcessor
    from transformers.utils import logging

    if Path(source).is_dir() and not any((Path(source) / name).exists() for name in _SETTINGS):
        return _plain_processor(model_config, model_name)
    if (Path(source) / _SETTINGS[0]).exists():
        _check_object(Path(source) / _SETTINGS[0], model_name)
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        return AutoImageProcessor.from_pretrained(source, revision=revision, trust_remote_code=False, backend="pil")
    except Exception as error:  # a missing package, an unknown class, a value of the wrong kind: each its own error
        reason = " ".join(str(error).split())[:160]
        raise ConfigError(
            "model.name", f"{model_name!r} has an image processor that cannot be used: {reason}"
        ) from None
    finally:
        logging.set_verbosity(level)


def _check_object(path: Path, model_name: str) -> None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ConfigError("model.name", f"{path.name} of {model_name!r} is not a JSON object")


def _plain_processor(model_config: Any, model_name: str) -> Any:
    from transformers import ViTImageProcessorPil

    vision = getattr(model_config, "vision_config", None)
    size = getattr(model_config, "image_size", None) or getattr(vision, "image_size", None)
    height, width = (size, size) if isinstance(size, int) else tuple(size or (None, None))[:2]
    if not isinstance(height, int) or not isinstance(width, int):
        kind = getattr(model_config, "model_type", "?")
        raise ConfigError(
            "model.name",
            f"{model_name!r} (a {kind} model) says nowhere how large its images are; choose an image model",
        )
    channels = channels_of(model_config)
    half = [0.5] * channels
    return ViTImageProcessorPil(size={"height": height, "width": width}, image_mean=half, image_std=half)


def channels_of(model_config: Any) -> int:
    """How many channels the model's images have: its own number, or that of its vision part."""
    vision = getattr(model_config, "vision_config", None)
    return int(getattr(model_config, "num_channels", None) or getattr(vision, "num_channels", None) or 3)
