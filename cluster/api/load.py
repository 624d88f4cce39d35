"""`outertrain.load`: a learned optimizer as an optax transformation."""

from pathlib import Path

import jax.numpy as jnp
import optax

from cluster.report.export import find
from common.optimizer import hand_designed
from common.optimizer.drop_in import drop_in
from common.pretrained import Pretrained


def load(source: str | Path, version: int | str | None = None) -> optax.GradientTransformationExtraArgs:
    """A learned optimizer. `update` needs `params`.

    Args:
      source: the name of an included optimizer ("small-conv-train"), a theta file, or a run.
      version: outer update of a run (default: the newest); "best": the best of those evaluated.

    Raises:
      UserError: `source` is none of these.
    """
    return transformation(find(str(source), version))


def transformation(learned: Pretrained) -> optax.GradientTransformationExtraArgs:
    """The optimizer that `outertrain export` writes as a module."""
    config, theta = learned.optimizer, jnp.asarray(learned.theta)
    if config.family == "mlp":
        return drop_in(theta, config.hidden, config.momentum_features, config.time_features)
    made: optax.GradientTransformation = getattr(hand_designed, config.family)(theta)
    return optax.with_extra_args_support(made)
