"""The configuration of a run: all sections, and the checks that need two of them."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from common.config.inner import DatasetConfig, TaskConfig
from common.config.key import Key, Section, require
from common.config.optimizer import OptimizerConfig
from common.config.outer import CurriculumConfig, EstimatorConfig, OuterConfig
from common.config.system import EvaluationConfig, MetricsConfig, WorkersConfig
from common.config.tracking import TrackingConfig
from common.wire_checks import MAX_PAIRS


@dataclass(frozen=True)
class Config(Section):
    """The complete configuration of a run."""

    NAME: ClassVar[str] = ""

    seed: Annotated[int, Key("Seed of the initial theta and of every worker.", low=0)] = 0
    task: TaskConfig = field(default_factory=TaskConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    estimator: EstimatorConfig = field(default_factory=EstimatorConfig)
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    outer: OuterConfig = field(default_factory=OuterConfig)
    workers: WorkersConfig = field(default_factory=WorkersConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        longest = max(self.curriculum.start, self.curriculum.end)
        require(
            longest <= self.task.longest,
            f"the window grows to {longest} steps, longer than the inner problem (task.inner_steps = {self.task.longest}): "
            "lower curriculum.start / end, or raise task.inner_steps",
        )
        together = min(self.workers.aggregate, self.outer.batch_samples) * self.estimator.pairs
        require(
            together <= MAX_PAIRS,
            f"an aggregate has {together} pairs, and a message holds {MAX_PAIRS} pairs at most: lower workers.aggregate",
        )
