"""Families of optimizers: the meaning of theta, and the optax transformation that it parameterizes."""

from collections.abc import Callable
from functools import partial
from math import log
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from common.config import Config, OptimizerConfig
from common.errors import UserError
from common.optimizer import adafactor_mlp, celo2, hand_designed, mlp, mlp_lopt, mlp_muon
from common.optimizer.drop_in import drop_in
from common.optimizer.tensor_rule import configured

# Learned rules that see the shape of a tensor. Each module has `init`, `transform`, `segments` and `HIDDEN`.
PER_TENSOR: dict[str, Any] = {
    "mlp_lopt": mlp_lopt,
    "adafactor_mlp": adafactor_mlp,
    "celo2": celo2,
    "mlp_muon": mlp_muon,
}


class Family(NamedTuple):
    """A family of optimizers with parameters theta [P] float32."""

    init: Callable[[jax.Array], jax.Array]  # key -> initial theta
    transform: Callable[[jax.Array], optax.GradientTransformation]  # theta -> optimizer
    layout: tuple[tuple[int, ...], ...]  # shapes of theta's tensors, in order
    evaluated: Callable[[Any, Any], Any] | None = None  # (state, w) -> weights whose losses are reported; None: w
    horizon: Callable[[Any, jax.Array], Any] | None = (
        None  # (state, steps of a training) -> state; None: it sees no progress
    )

    @property
    def size(self) -> int:
        return sum(int(np.prod(shape)) for shape in self.layout)

    @property
    def segments(self) -> np.ndarray:
        """[P] int: for each coordinate of theta the number of its tensor."""
        return np.repeat(np.arange(len(self.layout)), [int(np.prod(shape)) for shape in self.layout])

    def reported(self, state: Any, w: Any) -> Any:
        """The weights whose losses are reported: w, except for optimizers that evaluate at another point."""
        return w if self.evaluated is None else self.evaluated(state, w)


def make_family(config: OptimizerConfig) -> Family:
    """The family that `config` names."""
    if config.family == "mlp":
        options: dict[str, Any] = dict(
            hidden=config.hidden, momentum_features=config.momentum_features, time_features=config.time_features
        )
        return Family(partial(mlp.init, **options), partial(mlp.transform, **options), mlp.segments(**options))
    if config.family in PER_TENSOR:
        module, options = PER_TENSOR[config.family], per_tensor_options(config)
        rate = {"rate": config.learning_rate} if config.family == "celo2" else {}
        hidden = config.layers or module.HIDDEN
        total = {"total_steps": 1} if config.progress else {}  # until `horizon` replaces it
        made = partial(module.transform, **options, **rate, **total)
        horizon = _with_total if config.progress else None
        return Family(partial(module.init, hidden=hidden), made, module.segments(hidden), horizon=horizon)
    start = {
        "adam": [log(config.learning_rate)],
        "rmsprop": [log(config.learning_rate)],
        "sgd": [config.learning_rate, config.momentum],
        "adam8": [log(config.learning_rate), *map(log, (0.1, 0.001, 1e-8, 1e-8, 1e-8, 1e-8, 1e-8))],
        "rmsprop7": [log(config.learning_rate), *map(log, (0.1, 1e-8, 1e-8, 1e-8, 1e-8, 1e-8))],
        "momentum6": [log(config.learning_rate), *map(log, (0.1, 1e-8, 1e-8, 1e-8, 1e-8))],
    }[config.family]
    theta = jnp.asarray(start, jnp.float32)
    return Family(lambda key: theta, getattr(hand_designed, config.family), ((len(start),),))


def per_tensor_options(config: OptimizerConfig) -> dict[str, Any]:
    """The arguments of `transform` of a family of `PER_TENSOR`, without the rate."""
    hidden = config.layers or PER_TENSOR[config.family].HIDDEN
    return {"hidden": hidden, **({"orthogonalize": config.orthogonalize} if config.family == "celo2" else {})}


def _with_total(state: Any, steps: jax.Array) -> Any:
    return state._replace(total=jnp.asarray(steps, jnp.int32))


def usable(
    config: OptimizerConfig, theta: jax.Array, total_steps: int | None = None
) -> optax.GradientTransformationExtraArgs:
    """The optimizer with parameters theta [P] as `outertrain export` writes it: it accepts what those of optax do.

    Args:
      total_steps: of a training, for an optimizer that sees how much of it is done (`optimizer.progress`).

    Raises:
      UserError: it is missing, or the optimizer sees no progress.
    """
    if config.progress != (total_steps is not None):
        raise UserError(
            "this optimizer sees how much of a training is done: give total_steps, the number of steps it will have"
            if config.progress
            else "this optimizer does not see how much of a training is done: leave out total_steps"
        )
    if config.family == "mlp":
        return drop_in(theta, config.hidden, config.momentum_features, config.time_features)
    if config.family not in PER_TENSOR:
        return optax.with_extra_args_support(getattr(hand_designed, config.family)(theta))
    unit: dict[str, Any] = {"rate": 1.0} if config.family == "celo2" else {}
    total = {} if total_steps is None else {"total_steps": total_steps}
    made = PER_TENSOR[config.family].transform(theta, **per_tensor_options(config), **unit, **total)
    return configured(made, config.learning_rate if unit else 1.0)


def initial_theta(config: Config) -> np.ndarray:
    """The random theta [P] float32 that a run starts from; depends on the seed and the optimizer only."""
    return np.asarray(make_family(config.optimizer).init(jax.random.key(config.seed)))
