"""The configuration of a run: a frozen tree of dataclasses, one section per concern, checked when it is created.

Defaults are of the quickstart's scale; `presets/paper.toml` holds the paper's. A violated rule raises UserError.
"""

from common.config.identity import DIGESTED, deciding, digest, stable_tree
from common.config.inner import DatasetConfig, TaskConfig
from common.config.mixture import MixtureConfig
from common.config.optimizer import OptimizerConfig
from common.config.outer import CurriculumConfig, EstimatorConfig, OuterConfig
from common.config.run import Config, Member
from common.config.system import EvaluationConfig, MetricsConfig, WorkersConfig

__all__ = [
    "DIGESTED",
    "Config",
    "CurriculumConfig",
    "DatasetConfig",
    "EstimatorConfig",
    "EvaluationConfig",
    "Member",
    "MetricsConfig",
    "MixtureConfig",
    "OptimizerConfig",
    "OuterConfig",
    "TaskConfig",
    "WorkersConfig",
    "deciding",
    "digest",
    "stable_tree",
]
