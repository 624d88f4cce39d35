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
from common.optimizer import hand_designed, mlp


class Family(NamedTuple):
    """A family of optimizers with parameters theta [P] float32."""

    init: Callable[[jax.Array], jax.Array]  # key -> initial theta
    transform: Callable[[jax.Array], optax.GradientTransformation]  # theta -> optimizer
    layout: tuple[tuple[int, ...], ...]  # shapes of theta's tensors, in order
    evaluated: Callable[[Any, Any], Any] | None = None  # (state, w) -> weights whose losses are reported; None: w

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
    start = {
        "adam": [log(config.learning_rate)],
        "rmsprop": [log(config.learning_rate)],
        "sgd": [config.learning_rate, config.momentum],
        "adam8": [log(config.learning_rate), *map(log, (0.1, 0.001, 1e-8, 1e-8, 1e-8, 1e-8, 1e-8))],
    }[config.family]
    theta = jnp.asarray(start, jnp.float32)
    return Family(lambda key: theta, getattr(hand_designed, config.family), ((len(start),),))


def initial_theta(config: Config) -> np.ndarray:
    """The random theta [P] float32 that a run starts from; depends on the seed and the optimizer only."""
    return np.asarray(make_family(config.optimizer).init(jax.random.key(config.seed)))
