"""The Hugging Face hub: whether it may be asked at all."""

from __future__ import annotations

import os


def hub_is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids to ask the Hugging Face hub."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}
