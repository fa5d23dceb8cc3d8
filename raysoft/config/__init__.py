"""The configuration tree, its reading, the registry of plug-ins and the presets. May use types and errors.

What plug-ins import stands here; the rest of the project imports it from here, too.
"""

from raysoft.config.base import (
    LARGEST,
    NAME_PATTERN,
    PLUGINS,
    SMALLEST,
    Count,
    Fraction,
    Label,
    Momentum,
    NonNegative,
    Plugin,
    Positive,
    Range,
    Rank,
    Section,
    Unit,
    UserFile,
)  # fmt: skip
from raysoft.config.overrides import (
    REPLACED,
    apply_override,
    merge,
    merge_section,
)  # fmt: skip
from raysoft.config.sections import (
    ActorsConfig,
    CheckpointConfig,
    CohortConfig,
    DataConfig,
    DeviceConfig,
    EvalConfig,
    LoraConfig,
    MetricsConfig,
    ModelConfig,
    PlanConfig,
    RunConfig,
    ScoreWeights,
    StepsRange,
    TrackingConfig,
    TrainConfig,
    WandbConfig,
)  # fmt: skip
from raysoft.config.sentences import (
    first_error,
    parse_section,
)  # fmt: skip

__all__ = [
    "LARGEST", "NAME_PATTERN", "PLUGINS", "REPLACED", "SMALLEST", "ActorsConfig", "CheckpointConfig",
    "CohortConfig", "Count", "DataConfig", "DeviceConfig", "EvalConfig", "Fraction", "Label", "LoraConfig",
    "MetricsConfig", "ModelConfig", "Momentum", "NonNegative", "PlanConfig", "Plugin", "Positive", "Range",
    "Rank", "RunConfig", "ScoreWeights", "Section", "StepsRange", "TrackingConfig", "TrainConfig", "Unit",
    "UserFile", "WandbConfig", "apply_override", "first_error", "merge", "merge_section", "parse_section",
]  # fmt: skip
