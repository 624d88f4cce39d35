"""`outertrain.load`: a learned optimizer as an optax transformation."""

from pathlib import Path

import jax.numpy as jnp
import optax

from cluster.runs.learned import find
from common.optimizer import usable
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
    return usable(learned.optimizer, jnp.asarray(learned.theta))
