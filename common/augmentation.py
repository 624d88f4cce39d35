"""Task augmentation: an inner problem in other units of its parameters.

With a scale s of each weight, the problem trains v = w / s in the place of w: its loss at v is that of w = s v. A problem keeps its
tasks, batches and initial losses, but the magnitudes of weights and gradients, and their ratios, become random, so that an
optimizer cannot rely on them. Metz et al. 2022, VeLO: Training Versatile Learned Optimizers by Scaling Up, arXiv:2211.09760,
which draws scales for all weights together, for each tensor, or for each coordinate.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from common.config import TaskConfig
from common.task_family import TaskFamily


class Rescaled(NamedTuple):
    """A task, or a batch of one, and the scales of its weights."""

    of: Any
    scales: Any  # as the weights: [] float32 for each tensor, or of the tensor's shape


def augmented(family: TaskFamily, task: TaskConfig) -> TaskFamily:
    """The family with the augmentation of `task.augment`; the same one where that is empty or all scales are one.

    Multiplied by scales of one, the weights would be the same, but XLA compiles another program, whose rounding differs.
    """
    if not task.augment or task.augment_range == 1:
        return family
    like = jax.eval_shape(family.init, jax.random.key(0))

    def sample(random: np.random.Generator, outer_split: str) -> Rescaled:
        data = family.sample(random, outer_split)
        return Rescaled(data, draw(random.spawn(1)[0], like, task))  # the draws after it stay as they are

    def loss(w: Any, batch: Rescaled, *state: Any) -> Any:
        return family.loss(product(w, batch.scales), batch.of, *state)

    def accuracy(w: Any, batch: Rescaled, *state: Any) -> Any:
        assert family.accuracy is not None
        return family.accuracy(product(w, batch.scales), batch.of, *state)

    def fitted(data: Rescaled, w: Any) -> Any:
        return jax.tree.map(lambda x, s: x / s.astype(x.dtype), family.initial(data.of, w), data.scales)

    return family._replace(
        sample=sample,
        batch=lambda data, key, split: Rescaled(family.batch(data.of, key, split), data.scales),
        loss=loss,
        accuracy=None if family.accuracy is None else accuracy,
        fitted=fitted,
    )


def draw(random: np.random.Generator, like: Any, task: TaskConfig) -> Any:
    """Scales for weights of these shapes, each the product of one scale of each level, float32."""
    bound = np.log(task.augment_range)

    def scale(shape: tuple[int, ...]) -> np.ndarray:
        return np.exp(random.uniform(-bound, bound, shape)).astype(np.float32)

    everywhere = scale(()) if "global" in task.augment else np.float32(1)

    def of_tensor(tensor: jax.ShapeDtypeStruct) -> np.ndarray:
        own = scale(()) if "tensor" in task.augment else np.float32(1)
        each = scale(tensor.shape) if "coordinate" in task.augment else np.float32(1)
        return np.asarray(everywhere * own * each)

    return jax.tree.map(of_tensor, like)


def product(w: Any, scales: Any) -> Any:
    """Each weight times its scale, in the precision of the weight."""
    return jax.tree.map(lambda x, s: x * jnp.broadcast_to(s, x.shape).astype(x.dtype), w, scales)
