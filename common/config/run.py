"""The configuration of a run: all sections, and the checks that need two of them."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, ClassVar, NamedTuple

from common.config.inner import DatasetConfig, TaskConfig
from common.config.key import Key, Section, require
from common.config.mixture import MixtureConfig
from common.config.optimizer import OptimizerConfig
from common.config.outer import CurriculumConfig, EstimatorConfig, OuterConfig
from common.config.system import EvaluationConfig, MetricsConfig, WorkersConfig
from common.config.tracking import TrackingConfig
from common.wire_checks import MAX_PAIRS


class Member(NamedTuple):
    """One family of inner problems of a run."""

    name: str  # "" where the run has one only
    weight: float  # fraction of the samples
    config: "Config"  # of a run on this family alone


@dataclass(frozen=True)
class Config(Section):
    """The complete configuration of a run."""

    NAME: ClassVar[str] = ""

    seed: Annotated[int, Key("Seed of the initial theta and of every worker.", low=0)] = 0
    task: TaskConfig = field(default_factory=TaskConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    mixture: Annotated[
        tuple[MixtureConfig, ...],
        Key("Families of inner problems, instead of the one of [task] and [dataset].", "Compilation of each family."),
    ] = ()
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
        window, longest = max(self.curriculum.start, self.curriculum.end), max(task.longest for task in self.tasks)
        require(
            window <= longest,
            f"the window grows to {window} steps, longer than the inner problem (task.inner_steps = {longest}): "
            "lower curriculum.start / end, or raise task.inner_steps",
        )
        together = max(1, min(self.workers.aggregate, self.outer.batch_samples)) * self.estimator.pairs
        require(
            together <= MAX_PAIRS,
            f"a message holds {MAX_PAIRS} pairs at most, and would have {together}: lower workers.aggregate or "
            "estimator.pairs",
        )
        self._check_hold()
        names = [one.label for one in self.mixture]
        for name in names:
            require(
                names.count(name) == 1, f"two families of the mixture are called {name!r}: give each a mixture.name"
            )
        require(
            not self.mixture or self.estimator.pairs >= 2,
            "estimator.pairs = 1: a mixture needs 2 or more pairs, because its variances are those within the families",
        )

    def _check_hold(self) -> None:
        if not self.curriculum.hold:
            return
        require(
            self.estimator.allocate,
            "curriculum.hold needs to know what rp is worth: set estimator.allocate = true, or leave hold false",
        )
        require(
            self.curriculum.start < self.curriculum.end and self.curriculum.updates > 0,
            "curriculum.hold shortens windows that have grown: set curriculum.start below curriculum.end and "
            "curriculum.updates above 0, or leave hold false",
        )

    @property
    def tasks(self) -> tuple[TaskConfig, ...]:
        """Of all families of the run."""
        return tuple(one.task for one in self.mixture) or (self.task,)

    @cached_property
    def members(self) -> tuple[Member, ...]:
        """The families of the run, with the configuration of each.

        The windows of a family grow no longer than its own longest inner problem.
        """
        total = sum(one.weight for one in self.mixture)
        return tuple(Member(one.label, one.weight / total, self._of_one(one)) for one in self.mixture) or (
            Member("", 1.0, self),
        )

    def _of_one(self, one: MixtureConfig) -> "Config":
        start, end = (min(steps, one.task.longest) for steps in (self.curriculum.start, self.curriculum.end))
        curriculum = replace(self.curriculum, start=start, end=end)
        return replace(self, task=one.task, dataset=one.dataset, mixture=(), curriculum=curriculum)
