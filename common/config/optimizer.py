"""The optimizers that are learned."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from common.config.key import Key, Section, require

# Families of learned rules that see the shape of a tensor.
PER_TENSOR = ("mlp_lopt", "adafactor_mlp", "celo2", "mlp_muon")

WITH_PROGRESS = ("mlp_lopt", "adafactor_mlp", "mlp_muon")  # those of them that have time inputs


@dataclass(frozen=True)
class OptimizerConfig(Section):
    """The family of optimizers whose parameters theta are learned (section 4.1)."""

    NAME: ClassVar[str] = "optimizer"

    family: Annotated[
        Literal[
            "mlp",
            "adam",
            "rmsprop",
            "sgd",
            "adam8",
            "rmsprop7",
            "momentum6",
            "mlp_lopt",
            "adafactor_mlp",
            "celo2",
            "mlp_muon",
        ],
        Key(
            "mlp: the paper's per-parameter network; mlp_muon: a smaller one that also sees the orthogonalized momentum; "
            "mlp_lopt, adafactor_mlp, celo2: later ones (docs/options.md); the others learn hyper-parameters of hand-designed rules, "
            "adam8, rmsprop7 and momentum6 those of the paper's search: regularisation and decays of the rate as well.",
            "An inner step of mlp takes 1.2 to 5.5 times as long as one of adam (docs/costs.md), most on small networks.",
        ),
    ] = "mlp"
    hidden: Annotated[
        int,
        Key(
            "mlp: units of its one hidden layer.",
            "Time of the optimizer, in proportion; es gets noisier with every parameter.",
            low=1,
        ),
    ] = 32
    momentum_features: Annotated[
        bool,
        Key(
            "mlp: momenta are inputs of the network; false is the ablation 'no momentum' of Figure 8.",
        ),
    ] = True
    time_features: Annotated[
        bool,
        Key(
            "mlp: the step is an input of the network; false is the ablation 'no time' of Figure 8.",
        ),
    ] = True
    learning_rate: Annotated[
        float,
        Key(
            "adam, rmsprop, sgd, adam8, rmsprop7, momentum6: initial value of the learned rate (Figure 3). celo2: change of a tensor by a step, in root "
            "mean square, which is not learned.",
            above=0,
        ),
    ] = 0.001
    momentum: Annotated[float, Key("sgd: initial value of the learned momentum (Figure 2).")] = 0.9
    layers: Annotated[
        tuple[int, ...],
        Key(
            "mlp_lopt, adafactor_mlp, celo2, mlp_muon: units of each hidden layer. Empty: the published ones, [32, 32], [4, 4], "
            "[8, 8]; mlp_muon: [32].",
            "Time of the optimizer, and noise of es.",
            low=1,
        ),
    ] = ()
    orthogonalize: Annotated[
        bool,
        Key(
            "celo2: make the update of a matrix nearly orthogonal, as the paper's Celo2 does and its Celo2-base does not.",
            "15 products of matrices for each step and matrix.",
        ),
    ] = False

    progress: Annotated[
        bool,
        Key(
            "mlp_lopt, adafactor_mlp, mlp_muon: the time inputs see how much of the training is done, as if it had 1,000 steps, "
            "instead of the step.",
            "Whoever uses the optimizer must know how many steps a training has.",
        ),
    ] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            not self.progress or self.family in WITH_PROGRESS,
            f"optimizer.progress is for {', '.join(WITH_PROGRESS)}: remove it, or set optimizer.family to one of these "
            f"instead of {self.family}",
        )
        require(
            not self.layers or self.family in PER_TENSOR,
            f"optimizer.layers is for {', '.join(PER_TENSOR)}: {self.family} "
            + ("takes optimizer.hidden" if self.family == "mlp" else "has no layers"),
        )
        require(
            self.family == "mlp" or (self.momentum_features and self.time_features),
            f"optimizer.momentum_features and optimizer.time_features are for mlp: {self.family} has its inputs always, so "
            "leave both true, or set optimizer.family to mlp",
        )
        require(
            not self.orthogonalize or self.family == "celo2",
            f"optimizer.orthogonalize is for celo2: remove it, or set optimizer.family to celo2 instead of {self.family}",
        )
