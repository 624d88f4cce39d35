"""`outertrain.load`: a learned optimizer as an optax transformation."""

from pathlib import Path

import jax.numpy as jnp
import optax

from cluster.runs.learned import find
from common.optimizer import usable
from common.pretrained import Pretrained


def load(
    source: str | Path, version: int | str | None = None, total_steps: int | None = None
) -> optax.GradientTransformationExtraArgs:
    """A learned optimizer. `update` needs `params`.

    Args:
      source: the name of an included optimizer ("small-conv-train"), a theta file, or a run.
      version: outer update of a run (default: the newest); "best": the best of those evaluated.
      total_steps: of the training, for an optimizer that sees how much of it is done (`optimizer.progress`).

    Raises:
      UserError: `source` is none of these, or `total_steps` is missing.
      ValueError: `total_steps` is below one.
    """
    return transformation(find(str(source), version), total_steps)


def transformation(learned: Pretrained, total_steps: int | None = None) -> optax.GradientTransformationExtraArgs:
    """The optimizer that `outertrain export` writes as a module."""
    return usable(learned.optimizer, jnp.asarray(learned.theta), total_steps)
