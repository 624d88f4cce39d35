"""The configuration of a run: one frozen tree of dataclasses, one section per concern, checked once, when it is made.

Defaults are the quickstart's scale; `presets/paper.toml` holds the paper's. A check that needs two sections stands in
`Config.__post_init__`, every other one in the section itself. A violated rule is a `UserError`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from common.errors import UserError
from common.wire_checks import MAX_PAIRS


def require(holds: bool, what: str) -> None:
    if not holds:
        raise UserError(what)


def one_of(key: str, value: str, choices: tuple[str, ...]) -> None:
    require(value in choices, f"{key} = {value!r} is not a choice: use one of {', '.join(choices)}")


def names_function(text: str) -> bool:
    """Whether `text` reads 'module:function'."""
    module, colon, function = text.partition(":")
    return colon == ":" and all(part.isidentifier() for part in (*module.split("."), function))


@dataclass(frozen=True)
class TaskConfig:
    """The inner problems (paper section 4.2)."""

    family: str = "conv"  # "conv", "mlp", "quadratic", or a user's own "module:function"
    units: tuple[int, ...] = (16, 16, 16)  # channels of each 3x3 convolution, or width of each dense layer
    strides: tuple[int, ...] = (2, 2, 1)  # one per convolution
    classes: int = 10
    batch_size: int = 32  # B
    inner_steps: int = 500  # length of an inner problem
    options: Mapping[str, Any] = field(default_factory=dict)  # a user's own family reads what it likes here

    def __post_init__(self) -> None:
        known = ("conv", "mlp", "quadratic")
        require(
            self.family in known or names_function(self.family),
            f"task.family = {self.family!r} is not known: use one of {', '.join(known)}, or 'module:function' of your own",
        )
        require(
            not self.options
            or ":" in self.family
            or (self.family == "quadratic" and set(self.options) == {"dimension"}),
            f"task.options has {', '.join(self.options)}: only families of your own have options, and 'quadratic' has dimension",
        )
        require(
            self.family != "conv" or len(self.units) == len(self.strides),
            "task.units and task.strides differ in length: give one stride per convolution",
        )
        require(
            min((1, *self.units, *self.strides)) >= 1,
            f"task.units = {list(self.units)}, task.strides = {list(self.strides)}: each must be at least 1",
        )
        require(self.classes >= 2, f"task.classes = {self.classes}: a classification task needs at least 2")
        require(self.batch_size >= 1, f"task.batch_size = {self.batch_size}: must be at least 1")
        require(self.inner_steps >= 1, f"task.inner_steps = {self.inner_steps}: must be at least 1")


@dataclass(frozen=True)
class DatasetConfig:
    """Where the classes of images come from (docs: DESIGN section 6)."""

    source: str = "procedural"  # "procedural", or "store": a folder made by `outertrain data prepare`
    path: str = ""  # of the class store
    seed: int = 0  # of the procedural classes and of the 700 / 300 split by class
    image_size: int = 16  # procedural: images are image_size x image_size x 3
    classes: int = 1000  # procedural: how many exist
    train_images: int = 150  # procedural: per class; few enough to be learned by heart, so that there is a gap
    valid_images: int = 100
    test_images: int = 100
    valid_fraction: float = 0.2  # store: share of a class's training images that becomes inner-valid

    def __post_init__(self) -> None:
        one_of("dataset.source", self.source, ("procedural", "store"))
        require(
            self.source != "store" or self.path != "",
            "dataset.source = 'store' needs dataset.path: the folder that `outertrain data prepare` wrote",
        )
        require(self.seed >= 0, f"dataset.seed = {self.seed}: must be 0 or more")
        require(8 <= self.image_size <= 64, f"dataset.image_size = {self.image_size}: must lie in 8 .. 64")
        require(self.classes >= 2, f"dataset.classes = {self.classes}: must be at least 2")
        require(
            min(self.train_images, self.valid_images, self.test_images) >= 1,
            "dataset.train_images, valid_images and test_images must be at least 1",
        )
        require(
            0 < self.valid_fraction < 1,
            f"dataset.valid_fraction = {self.valid_fraction}: must lie strictly between 0 and 1",
        )


@dataclass(frozen=True)
class OptimizerConfig:
    """The family of optimizers whose parameters theta are learned (section 4.1)."""

    family: str = "mlp"  # "mlp" (the paper's), "adam", "rmsprop", "sgd", "adam8"
    hidden: int = 32  # units of the one hidden layer
    momentum_features: bool = True  # the ablation "no momentum" of Figure 8
    time_features: bool = True  # the ablation "no time"
    learning_rate: float = 0.001  # start of a learned rate (Figure 3)
    momentum: float = 0.9  # start of a learned momentum (Figure 2)

    def __post_init__(self) -> None:
        one_of("optimizer.family", self.family, ("mlp", "adam", "rmsprop", "sgd", "adam8"))
        require(self.hidden >= 1, f"optimizer.hidden = {self.hidden}: must be at least 1")
        require(self.learning_rate > 0, f"optimizer.learning_rate = {self.learning_rate}: must be positive")


@dataclass(frozen=True)
class EstimatorConfig:
    """The two gradient estimators and their merge (section 3)."""

    use: str = "merged"  # "merged", "rp", "es"
    es: str = "truncated"  # "truncated" (the paper's), "persistent" (PES), "noise_reuse" (NRES)
    objective: str = "train"  # outer loss on inner-"train" or inner-"valid" images
    sigma: float = 0.1  # standard deviation of the perturbation; the paper's sigma^2 is 0.01
    pairs: int = 1  # S, antithetic pairs of one sample
    outer_batches: int = 0  # fresh minibatches per step; 0: the next inner batch's own loss (train objective only)
    clamp: float = 10.0  # min(loss, clamp)
    merge: str = (
        "scalar"  # granularity of the weights: "scalar", "tensor", "coordinate" (for 32 pairs a batch and more)
    )
    cross_fit: bool = False  # weights of each half of the batch from the variances of the other half
    probe_rate: float = 1.0  # share of samples that compute rp while its weight is negligible; 1: every sample

    def __post_init__(self) -> None:
        one_of("estimator.use", self.use, ("merged", "rp", "es"))
        one_of("estimator.es", self.es, ("truncated", "persistent", "noise_reuse"))
        one_of("estimator.objective", self.objective, ("train", "valid"))
        one_of("estimator.merge", self.merge, ("coordinate", "tensor", "scalar"))
        require(
            self.es == "truncated" or self.use == "es",
            f"estimator.es = {self.es!r} cannot be merged with rp, which covers the truncation only: set estimator.use = 'es'",
        )
        require(self.sigma >= 0, f"estimator.sigma = {self.sigma}: a standard deviation cannot be negative")
        require(
            self.sigma > 0 or self.use == "rp",
            "estimator.sigma = 0 leaves es undefined (it divides by sigma): set a positive sigma, or estimator.use = 'rp'",
        )
        require(self.pairs >= 1, f"estimator.pairs = {self.pairs}: must be at least 1")
        require(0 < self.probe_rate <= 1, f"estimator.probe_rate = {self.probe_rate}: must lie in 0 .. 1, 0 excluded")
        require(self.clamp > 0, f"estimator.clamp = {self.clamp}: must be positive")
        require(self.outer_batches >= 0, f"estimator.outer_batches = {self.outer_batches}: must be 0 or more")
        require(
            self.objective == "train" or self.outer_batches >= 1,
            "estimator.objective = 'valid' needs estimator.outer_batches of at least 1: a training batch has no validation loss",
        )


@dataclass(frozen=True)
class CurriculumConfig:
    """How many steps a truncation has (section 4.3)."""

    start: int = 20
    end: int = 100
    updates: int = 150  # outer updates over which the window grows linearly
    jitter: float = 0.2  # the window is multiplied by U(1 - jitter, 1 + jitter)
    stagger: bool = True  # each trajectory's first problem ends at a step of its own, so that a batch sees all phases

    def __post_init__(self) -> None:
        require(self.start >= 1 and self.end >= 1, "curriculum.start and curriculum.end must be at least 1")
        require(self.updates >= 0, f"curriculum.updates = {self.updates}: must be 0 or more")
        require(0 <= self.jitter < 1, f"curriculum.jitter = {self.jitter}: must lie in 0 .. 1, 1 excluded")


@dataclass(frozen=True)
class OuterConfig:
    """The outer update: merge, clip, any optax optimizer (section 4.3)."""

    updates: int = 200  # outer updates of the whole run
    batch_samples: int = 8  # samples of one update, whoever sent them
    optimizer: str = "adam"  # a name in optax
    learning_rate: float = 0.003
    schedule: str = "constant"  # "constant", or "cosine" from learning_rate to 0 over outer.updates
    options: Mapping[str, Any] = field(default_factory=dict)  # other arguments of the optax optimizer, such as b1
    clip: str = "global_norm"  # "none", "global_norm", "elementwise" (the authors' release: 0.1)
    clip_value: float = 1.0
    max_staleness: int = -1  # in versions; -1: no limit (a limit rejects long windows and slow workers first)
    keep_checkpoints: int = 10
    keep_every: int = 0  # versions that are multiples of it keep their checkpoint for good; 0: none does
    journal: bool = False  # write the applied payloads, for replay

    def __post_init__(self) -> None:
        one_of("outer.schedule", self.schedule, ("constant", "cosine"))
        one_of("outer.clip", self.clip, ("none", "global_norm", "elementwise"))
        require(self.updates >= 1, f"outer.updates = {self.updates}: must be at least 1")
        require(self.batch_samples >= 1, f"outer.batch_samples = {self.batch_samples}: must be at least 1")
        require(self.learning_rate > 0, f"outer.learning_rate = {self.learning_rate}: must be positive")
        require(self.clip == "none" or self.clip_value > 0, f"outer.clip_value = {self.clip_value}: must be positive")
        require(self.max_staleness >= -1, f"outer.max_staleness = {self.max_staleness}: must be -1 (no limit) or more")
        require(
            self.keep_checkpoints >= 2,
            f"outer.keep_checkpoints = {self.keep_checkpoints}: keep at least 2, so that a damaged one has a predecessor",
        )
        require(self.keep_every >= 0, f"outer.keep_every = {self.keep_every}: must be 0 (none) or more")


@dataclass(frozen=True)
class WorkersConfig:
    """How the workers run. Nothing here changes what is learned in expectation."""

    count: int = 2
    segment: int = 50  # steps of one compiled segment of the unroll
    grace: float = 20.0  # seconds for the sample at hand when a worker is told to leave; then it is thrown away
    aggregate: int = 0  # samples merged on each machine before the learner; 0: none (thousands of workers need it)

    def __post_init__(self) -> None:
        require(self.count >= 1, f"workers.count = {self.count}: with no worker nothing is sampled; use at least 1")
        require(self.aggregate >= 0, f"workers.aggregate = {self.aggregate}: must be 0 (no aggregators) or more")
        require(self.grace >= 0, f"workers.grace = {self.grace}: must be 0 seconds or more")
        require(self.segment >= 1, f"workers.segment = {self.segment}: must be at least 1")


@dataclass(frozen=True)
class EvaluationConfig:
    """What the finished optimizer is compared with (section 4.4)."""

    tasks: int = 20  # unseen tasks, from outer-test classes
    every: int = 0  # outer updates between evaluations while training goes on; 0: only at the end
    initialisations: int = 5  # of w, for the percentile bands
    baselines: tuple[str, ...] = ("adam",)
    rate_low: float = 1e-4  # the grid of learning rates, logarithmic
    rate_high: float = 10.0
    rate_count: int = 11
    seed: int = 1000

    def __post_init__(self) -> None:
        require(self.tasks >= 0 and self.every >= 0, "evaluation.tasks and evaluation.every must be 0 or more")
        require(self.seed >= 0, f"evaluation.seed = {self.seed}: must be 0 or more")
        require(self.initialisations >= 1, "evaluation.initialisations must be at least 1")
        require(
            self.tasks == 0 or len(self.baselines) > 0, "evaluation.baselines is empty: name at least one, such as adam"
        )
        for name in self.baselines:
            one_of("evaluation.baselines", name, ("adam", "rmsprop", "sgd"))
        require(
            0 < self.rate_low < self.rate_high and self.rate_count >= 2,
            "evaluation.rate_low < rate_high must be positive, and rate_count at least 2",
        )


@dataclass(frozen=True)
class MetricsConfig:
    """The Prometheus endpoint."""

    port: int = 0  # 0: a free port; the endpoint in use is written to the run directory
    address: str = "127.0.0.1"  # loopback unless asked

    def __post_init__(self) -> None:
        require(0 <= self.port <= 65535, f"metrics.port = {self.port}: must lie in 0 .. 65535")


@dataclass(frozen=True)
class Config:
    """One run, whole."""

    seed: int = 0
    task: TaskConfig = field(default_factory=TaskConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    estimator: EstimatorConfig = field(default_factory=EstimatorConfig)
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    outer: OuterConfig = field(default_factory=OuterConfig)
    workers: WorkersConfig = field(default_factory=WorkersConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)

    def __post_init__(self) -> None:
        require(self.seed >= 0, f"seed = {self.seed}: must be 0 or more")
        longest = max(self.curriculum.start, self.curriculum.end)
        require(
            longest <= self.task.inner_steps,
            f"the window grows to {longest} steps, longer than the inner problem (task.inner_steps = {self.task.inner_steps}): lower curriculum.start / end, or raise task.inner_steps",
        )
        together = min(self.workers.aggregate, self.outer.batch_samples) * self.estimator.pairs
        require(
            together <= MAX_PAIRS,
            f"an aggregate has {together} pairs, and a message holds {MAX_PAIRS} pairs at most: lower workers.aggregate",
        )


DIGESTED = ("task", "dataset", "optimizer", "estimator", "curriculum")


def digest(config: Config, dataset_fingerprint: str) -> str:
    """Sha256 (hex) of all that decides what a sample means; a worker with another digest is refused.

    The folder of a class store is left out: nodes may mount it elsewhere, its content is in the fingerprint.
    """
    sections = {name: dict(asdict(getattr(config, name))) for name in DIGESTED}
    del sections["dataset"]["path"]
    text = json.dumps([sections, dataset_fingerprint], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
