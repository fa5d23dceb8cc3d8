"""raysoft: federated LoRA fine-tuning over a simulated wireless link.

    import raysoft

    result = raysoft.run("soft", rounds=10, executor="inline")   # train, transmit, measure
    result.summary["final_accuracy"], result.rounds              # figures, and a pandas frame of the rounds
    result.plot("accuracy", x="seconds")                         # a matplotlib figure

- `load` a configuration, `run` it, `resume` what was interrupted, `open` any folder again;
- `compare` settings over seeds, `plan` the LoRA rank, `tune` settings, draw a `report`;
- `catalogue` lists presets and plug-ins; `Callback` is a base for objects that look on and may end a run.

Errors are `RaysoftError`s, with the sentences of the command line. docs/python.md tells more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raysoft.api.callbacks import Callback, Running
    from raysoft.api.comparisons import ComparisonResult, compare
    from raysoft.api.folders import open
    from raysoft.api.listing import catalogue
    from raysoft.api.plans import Plan, plan
    from raysoft.api.result import Adapter, Result
    from raysoft.api.runs import resume, run
    from raysoft.api.settings import load
    from raysoft.api.sweeps import SweepResult, tune
    from raysoft.config import RunConfig
    from raysoft.config.presets import load_config
    from raysoft.errors import ConfigError, RaysoftError, ResourceError
    from raysoft.planning.stage import make_plan, resolve_rank
    from raysoft.report.folders import report

__version__ = "0.2.0"
__all__ = [
    "Adapter",
    "Callback",
    "ComparisonResult",
    "ConfigError",
    "Plan",
    "RaysoftError",
    "ResourceError",
    "Result",
    "RunConfig",
    "Running",
    "SweepResult",
    "__version__",
    "catalogue",
    "compare",
    "load",
    "load_config",
    "make_plan",
    "open",
    "plan",
    "report",
    "resolve_rank",
    "resume",
    "run",
    "tune",
]
_HOME = {
    "Adapter": "raysoft.api.result",
    "Callback": "raysoft.api.callbacks",
    "ComparisonResult": "raysoft.api.comparisons",
    "ConfigError": "raysoft.errors",
    "Plan": "raysoft.api.plans",
    "RaysoftError": "raysoft.errors",
    "ResourceError": "raysoft.errors",
    "Result": "raysoft.api.result",
    "RunConfig": "raysoft.config",
    "Running": "raysoft.api.callbacks",
    "SweepResult": "raysoft.api.sweeps",
    "catalogue": "raysoft.api.listing",
    "compare": "raysoft.api.comparisons",
    "load": "raysoft.api.settings",
    "load_config": "raysoft.config.presets",
    "make_plan": "raysoft.planning.stage",
    "open": "raysoft.api.folders",
    "plan": "raysoft.api.plans",
    "resolve_rank": "raysoft.planning.stage",
    "resume": "raysoft.api.runs",
    "run": "raysoft.api.runs",
    "tune": "raysoft.api.sweeps",
}


def __getattr__(name: str) -> Any:
    # Imported on first use: `raysoft --help` must not wait for pydantic models or torch.
    from importlib import import_module

    if name == "report":  # the room itself, which can be called
        return import_module("raysoft.report")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'raysoft' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*(name for name in globals() if name.startswith("__")), *__all__})
