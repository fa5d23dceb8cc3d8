"""raysoft: federated LoRA fine-tuning over a simulated wireless link.

Example (see README): `run(load_config("soft", ["rounds=10", "executor=inline"]), Path("outputs/mine"))`.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.2.0.dev0"
__all__ = ["RunConfig", "__version__", "compare", "load_config", "make_plan", "resolve_rank", "resume", "run"]
_HOME = {
    "RunConfig": "raysoft.config",
    "compare": "raysoft.comparison.compare",
    "load_config": "raysoft.config.presets",
    "make_plan": "raysoft.planning.stage",
    "resolve_rank": "raysoft.planning.stage",
    "resume": "raysoft.runs.run",
    "run": "raysoft.runs.run",
}


def __getattr__(name: str) -> Any:
    # Imported on first use: `raysoft --help` must not wait for pydantic models or torch.
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'raysoft' has no attribute {name!r}")
