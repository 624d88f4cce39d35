"""Workers, evaluation and metrics: sections that do not change the meaning of a sample."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from common.config.inner import names_function
from common.config.key import Key, Section, require

PAPER = ("adam", "rmsprop", "sgd")  # the paper's baselines, at constant learning rates
STRONG = ("adamw", "nadamw", "muon", "schedule_free_adamw", "lion")  # tuned by rate, weight decay and schedule
GROUPS = {"paper": PAPER, "strong": STRONG}


@dataclass(frozen=True)
class WorkersConfig(Section):
    """The worker processes. Nothing here changes what is learned in expectation."""

    NAME: ClassVar[str] = "workers"

    count: Annotated[
        int,
        Key("Worker processes.", "One core each; staleness grows with them.", low=1, why="no sample without a worker"),
    ] = 2
    segment: Annotated[
        int,
        Key(
            "Inner steps of a compiled segment of the unroll.",
            "Longer segments have less overhead and need more memory; a change compiles again.",
            low=1,
        ),
    ] = 50
    grace: Annotated[
        float,
        Key(
            "Seconds that a worker may take to finish its sample when it is stopped; then the sample is dropped.",
            "`scale` and `stop` wait that long.",
            low=0,
        ),
    ] = 20.0
    aggregate: Annotated[
        int,
        Key(
            "Samples that are merged on each machine before they are sent to the learner; 0: no aggregators.",
            "A lost aggregator loses the samples it holds. Of use only where the learner is saturated (`outertrain plan`).",
            low=0,
        ),
    ] = 0


@dataclass(frozen=True)
class EvaluationConfig(Section):
    """The comparison of the learned optimizer with tuned baselines on unseen tasks (section 4.4)."""

    NAME: ClassVar[str] = "evaluation"

    tasks: Annotated[
        int,
        Key("Unseen tasks, from outer-test classes; 0: no evaluation.", "Time of an evaluation, in proportion.", low=0),
    ] = 20
    every: Annotated[
        int,
        Key(
            "Outer updates between evaluations during training, by `train`; 0: only at the end.",
            "They compete with training for cores when all are busy.",
            low=0,
        ),
    ] = 0
    initialisations: Annotated[
        int,
        Key(
            "Initial weights of each plotted task, for the quartile bands.",
            "One more unroll per optimizer on each plotted task.",
            low=1,
        ),
    ] = 5
    baselines: Annotated[
        tuple[str, ...],
        Key(
            "Hand-designed optimizers to compare with.",
            "Each is tuned: rate_count unrolls per task, and for those of strong several times as many.",
            form=f"any of {', '.join((*PAPER, *STRONG))}; paper or strong for a group; module:function of your own",
        ),
    ] = ("adam",)
    rate_low: Annotated[float, Key("Lowest learning rate of the logarithmic grid.", above=0)] = 1e-4
    rate_high: Annotated[float, Key("Highest learning rate of the grid.", above=0)] = 10.0
    rate_count: Annotated[
        int, Key("Learning rates of the grid.", "Each is one more unroll per task and baseline.", low=2)
    ] = 11
    weight_decays: Annotated[
        tuple[float, ...],
        Key(
            "Decoupled weight decays of the grid of the strong baselines.",
            "Each multiplies the settings of these baselines.",
            low=0,
        ),
    ] = (0.0, 0.01, 0.1)
    rejection: Annotated[
        bool,
        Key(
            "Rejects poor settings of the strong baselines after a fifth and after half of the tasks.",
            "false: about four times as many unrolls.",
        ),
    ] = True
    seed: Annotated[
        int, Key("Seed of the unseen tasks.", "Results with different seeds are results on different tasks.", low=0)
    ] = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.tasks == 0 or len(self.baselines) > 0, "evaluation.baselines is empty: name at least one, such as adam"
        )
        for name in self.baselines:
            require(
                name in (*PAPER, *STRONG, *GROUPS) or names_function(name),
                f"evaluation.baselines = {name!r} is not a choice: use one of {', '.join((*PAPER, *STRONG, *GROUPS))}, or "
                "'module:function' of your own, which returns an optax transformation for a learning rate",
            )
        require(
            len(self.weight_decays) > 0,
            "evaluation.weight_decays is empty: give at least one, such as 0.0 for no decay",
        )
        require(
            self.rate_low < self.rate_high,
            f"evaluation.rate_low = {self.rate_low}, evaluation.rate_high = {self.rate_high}: rate_low < rate_high is expected",
        )

    @property
    def optimizers(self) -> tuple[str, ...]:
        """The baselines one by one, without duplicates."""
        return tuple(dict.fromkeys(one for name in self.baselines for one in GROUPS.get(name, (name,))))


@dataclass(frozen=True)
class MetricsConfig(Section):
    """The Prometheus endpoint."""

    NAME: ClassVar[str] = "metrics"

    port: Annotated[int, Key("Port; 0: a free one, which is written to the run directory.", low=0, high=65535)] = 0
    address: Annotated[
        str,
        Key(
            "Address to listen on.",
            "Metrics have no authentication: bind to private addresses only.",
            form="an IP address or host name of this machine",
        ),
    ] = "127.0.0.1"
