"""Outer-training: the gradient estimators, the windows, and the outer update."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from common.config.key import Key, Section, require


@dataclass(frozen=True)
class EstimatorConfig(Section):
    """The two gradient estimators and their merge (section 3)."""

    NAME: ClassVar[str] = "estimator"

    use: Annotated[
        Literal["merged", "rp", "es"],
        Key(
            "Which gradient is followed: rp, es, or both merged by inverse variance.",
            "rp needs reverse passes: es alone takes about a quarter of the time of a sample (docs/costs.md).",
        ),
    ] = "merged"
    es: Annotated[
        Literal["truncated", "persistent", "noise_reuse"],
        Key(
            "truncated: the paper's es; persistent: PES; noise_reuse: NRES.",
            "persistent and noise_reuse have no truncation bias and keep both perturbed states. With use = 'merged', "
            "persistent takes rp in the place of its newest draws, weighed by earlier batches; noise_reuse needs use = 'es'.",
        ),
    ] = "truncated"
    reach: Annotated[
        int,
        Key(
            "Under es = 'persistent' and use = 'merged': earlier truncations of its problem that rp reaches back over.",
            "Each is one more reverse pass and the memory of one more pair of states; large values explode as long "
            "windows do.",
            low=0,
        ),
    ] = 0
    objective: Annotated[
        Literal["train", "valid"],
        Key("Images that the outer loss is measured on.", "valid needs outer_batches of at least 1."),
    ] = "train"
    sigma: Annotated[
        float,
        Key(
            "Standard deviation of the perturbations of theta (the paper's sigma^2 is 0.01).",
            "Large values smooth the objective away from theta; small ones make es noisy, with 1 / sigma.",
            low=0,
            why="0 only with estimator.use = 'rp'",
        ),
    ] = 0.1
    pairs: Annotated[
        int,
        Key(
            "Antithetic pairs of a sample (S), each with its own trajectory.", "Time of a sample, in proportion.", low=1
        ),
    ] = 1
    outer_batches: Annotated[
        int,
        Key(
            "Fresh minibatches for each outer loss; 0: the loss of the next inner batch (train objective only).",
            "Each is one more evaluation of the network per inner step.",
            low=0,
        ),
    ] = 0
    outer_loss: Annotated[
        Literal["mean", "last"],
        Key(
            "What is minimized of the outer losses of a truncation: their mean, or the one after its last step.",
            "last: a noisier gradient, of one batch in the place of many; it rewards the end of each window, at whatever loss "
            "on the way.",
        ),
    ] = "mean"
    clamp: Annotated[
        float,
        Key(
            "Outer losses are replaced by min(loss, clamp).",
            "The noise of es grows with it; losses above it have no gradient.",
            above=0,
        ),
    ] = 10.0
    merge: Annotated[
        Literal["coordinate", "tensor", "scalar", "family"],
        Key(
            "Granularity of the merge's weights; family: one for each family of a mixture, by its own variances.",
            "coordinate needs batches of 32 pairs and more; tensor has not been measured to beat scalar. family: variances "
            "of the few pairs of one family, but an explosion in it does not take rp from the others.",
        ),
    ] = "scalar"
    cross_fit: Annotated[
        bool,
        Key(
            "Weights each half of the batch by the variances of the other half.",
            "Variances come from half as many pairs, and a weight cannot react to an outlier in its own half.",
        ),
    ] = False
    rp_variance: Annotated[
        Literal["batch", "recent"],
        Key(
            "Which variance of rp the merge's weights are from: that of the batch, or, where it is larger, that of the last 32 to "
            "64 pairs.",
            "A small batch looks calm where rp explodes in one pair of many; recent gives rp less weight for a few batches "
            "after it has exploded.",
        ),
    ] = "batch"
    probe_rate: Annotated[
        float,
        Key(
            "Fraction of samples that compute rp while its weight is negligible; 1: all of them.",
            "Small values save reverse passes, and notice later that rp has become useful again.",
            above=0,
            high=1,
        ),
    ] = 1.0
    allocate: Annotated[
        bool,
        Key(
            "Computes rp in all samples only while it removes more variance than es could in the CPU time that rp costs; "
            "otherwise in a fraction probe_rate.",
            "An update without rp is noisier where rp had some weight, and cheaper by more than that.",
        ),
    ] = False
    rp_cost: Annotated[
        float,
        Key(
            "For allocate: CPU time of a pair's reverse passes over that of its forward passes; `outertrain bench pair` "
            "measures 2 + 2 rp_cost.",
            "Larger values give rp up at a higher weight.",
            above=0,
            high=100,
        ),
    ] = 2.6
    rp_nonfinite: Annotated[
        Literal["drop", "clip"],
        Key(
            "Under use = 'rp', a pair whose rp is not finite: left out of the mean, or clipped to +-1e15 (nan: 0).",
            "drop biases the mean towards calm pairs; a batch without any pair left is an update of zero gradient. "
            "clip: such a pair decides the whole update.",
        ),
    ] = "drop"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.es != "noise_reuse" or self.use == "es",
            "estimator.es = 'noise_reuse' has no new draw in each truncation in whose place rp could stand: set "
            "estimator.use = 'es'",
        )
        require(
            self.es != "persistent" or self.use != "rp",
            "estimator.es = 'persistent' is not used by rp alone: set estimator.use = 'es' or 'merged'",
        )
        persistent = self.es == "persistent" and self.use == "merged"
        require(
            not (persistent and self.cross_fit),
            "estimator.cross_fit is for truncated es, because persistent es takes its weights from earlier batches: "
            "leave it false",
        )
        require(
            not (persistent and self.rp_variance == "recent"),
            "estimator.rp_variance = 'recent' is for truncated es, because persistent es takes its weights from earlier "
            "batches alone: leave it 'batch'",
        )
        require(
            self.merge != "family" or not (persistent or self.cross_fit),
            "estimator.merge = 'family' takes its weights from the family's part of the same batch: set estimator.cross_fit = "
            "false and estimator.es = 'truncated', or estimator.merge = 'scalar'",
        )
        require(
            persistent or not self.reach,
            "estimator.reach needs estimator.es = 'persistent' and estimator.use = 'merged': set these, or leave it 0",
        )
        require(
            not self.allocate or (self.use == "merged" and self.probe_rate < 1),
            "estimator.allocate chooses how many samples compute rp, between estimator.probe_rate and all of them: set "
            "estimator.use = 'merged' and a probe_rate below 1, such as 0.05, or leave allocate false",
        )
        require(
            self.outer_loss == "mean" or self.es == "truncated",
            f"estimator.outer_loss = 'last' is the end of a truncation, but estimator.es = {self.es!r} estimates the gradient of "
            "the mean over whole problems: set estimator.es = 'truncated'",
        )
        require(
            self.sigma > 0 or self.use == "rp",
            "estimator.sigma = 0 leaves es undefined (it divides by sigma): set a positive sigma, or estimator.use = 'rp'",
        )
        require(
            self.objective == "train" or self.outer_batches >= 1,
            "estimator.objective = 'valid' needs estimator.outer_batches of at least 1: a training batch has no validation loss",
        )


@dataclass(frozen=True)
class CurriculumConfig(Section):
    """The window: the number of steps of a truncation (section 4.3)."""

    NAME: ClassVar[str] = "curriculum"

    start: Annotated[int, Key("Window at the first outer update.", "Time of a sample, in proportion.", low=1)] = 20
    end: Annotated[
        int,
        Key(
            "Window after `curriculum.updates` outer updates.",
            "Time of a sample, in proportion. Long windows have less truncation bias and a noisier rp.",
            low=1,
        ),
    ] = 100
    updates: Annotated[int, Key("Outer updates over which the window grows linearly.", low=0)] = 150
    jitter: Annotated[
        float, Key("Each window is multiplied by a number uniform in 1 - jitter .. 1 + jitter.", low=0, below=1)
    ] = 0.2
    hold: Annotated[
        bool,
        Key(
            "With estimator.allocate: the window grows only in updates in which rp is worth its CPU time; in others it shrinks, "
            "not below curriculum.start.",
            "Windows stay as short as rp needs, so the bias of truncation stays.",
        ),
    ] = False
    stagger: Annotated[
        bool,
        Key(
            "Ends the first problem of each trajectory at a different step, so that a batch covers all phases.",
            "Without it the outer loss oscillates, as with the paper's schedule.",
        ),
    ] = True


@dataclass(frozen=True)
class OuterConfig(Section):
    """The outer update: merge, clip, a step of an optax optimizer (section 4.3); and what is kept of it."""

    NAME: ClassVar[str] = "outer"

    updates: Annotated[int, Key("Outer updates of the whole run.", "Time of the run, in proportion.", low=1)] = 200
    inner_steps: Annotated[
        int,
        Key(
            "The run also ends with the update that reaches so many inner steps, counting both unrolls of a pair; 0: no limit.",
            "Makes runs with other windows comparable, whose updates differ in length.",
            low=0,
        ),
    ] = 0
    batch_samples: Annotated[
        int,
        Key(
            "Samples of an outer update, from any workers.",
            "Time of an update, in proportion. Mean staleness is about workers / batch_samples.",
            low=1,
        ),
    ] = 8
    optimizer: Annotated[
        str, Key("Outer optimizer.", "Another one needs another learning rate.", form="a name in optax")
    ] = "adam"
    learning_rate: Annotated[float, Key("Learning rate of the outer optimizer.", above=0)] = 0.003
    schedule: Annotated[
        Literal["constant", "cosine"],
        Key(
            "Of the learning rate; cosine falls to 0 over outer.updates.",
            "cosine: a finished run cannot be continued well.",
        ),
    ] = "constant"
    options: Annotated[Mapping[str, Any], Key("Other arguments of the outer optimizer, such as b1.")] = field(
        default_factory=dict
    )
    clip: Annotated[
        Literal["none", "global_norm", "elementwise"],
        Key("How the merged gradient is clipped.", "none: one exploded gradient can destroy theta."),
    ] = "global_norm"
    clip_value: Annotated[
        float, Key("Largest norm (global_norm) or absolute value (elementwise; the authors' release: 0.1).")
    ] = 1.0
    max_staleness: Annotated[
        int,
        Key(
            "Samples of more versions ago are rejected; -1: none is.",
            "Rejects long windows and slow workers first, which biases what is learned and wastes their work.",
            low=-1,
            why="-1 is no limit",
        ),
    ] = -1
    keep_checkpoints: Annotated[
        int,
        Key("Newest checkpoints that are kept.", "Disk.", low=2, why="so that a corrupt one has a predecessor"),
    ] = 10
    keep_every: Annotated[
        int, Key("Checkpoints of versions that are multiples of it are kept permanently; 0: none.", "Disk.", low=0)
    ] = 0
    journal: Annotated[
        bool,
        Key(
            "Writes all applied payloads, so that the run can be replayed.", "4.5 MB of disk per update of 128 samples."
        ),
    ] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.clip == "none" or self.clip_value > 0, f"outer.clip_value = {self.clip_value}: must be positive")
