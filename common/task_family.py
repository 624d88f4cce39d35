"""The interface of a task family: what an inner problem trains, as functions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

SPLITS = ("train", "valid", "test")  # of the examples of a task
ROUNDING = 1e-5  # of a lower bound: a float32 loss at its bound may be below it by so much


def counted_from(bound: float, loss: jax.Array) -> jax.Array:
    """The loss [] counted from its lower bound: 0 where only rounding takes it below the bound."""
    excess = loss - bound
    return jnp.where((excess < 0) & (excess >= -ROUNDING * abs(bound)), 0, excess)


class TaskFamily(NamedTuple):
    """A distribution over tasks, as functions. A task is its `data`, a pytree with the same shapes for every task.

    `sample` runs on the host with NumPy; the other functions are traced by JAX, under grad, vmap and scan, so they must
    not depend on values in Python. Weights `w` are a pytree of floating-point arrays in any structure.

    Attributes:
      sample: (random, outer_split) -> data. `outer_split` is "outer_train" or "outer_test"; a learned optimizer is trained
        on the one and evaluated on the other.
      init: (key) -> w, the initial weights.
      batch: (data, key, split) -> batch, a random minibatch of the inner split "train", "valid" or "test", in any structure.
      loss: (w, batch) -> scalar of shape [] in a floating-point dtype, at least `lower_bound`: losses are clamped from
        above only.
      accuracy: (w, batch) -> fraction of correct predictions, shape [], or None for tasks that have none.
      state: (key) -> initial model state, such as the running statistics of batch normalization, or None for models that
        have none. With it, loss is (w, batch, state) -> (scalar, next state), and accuracy is (w, batch, state) ->
        fraction. Each training batch sets the state; the state is no weight: the optimizer does not see it.
      fitted: (data, w) -> the initial weights of a task, from those of `init`; None: the same.
      fingerprint: hash of the data that the family holds, "" for none. A run is resumed with the same data only.
      classes: how many classes a classifier tells apart, 0 for other tasks; the loss of a guess is the logarithm.
      lower_bound: what the loss is never below. With another than 0, outer-training uses the difference from it.

    A family of mean-estimation problems, whose loss is half the squared distance to a random target:

    >>> import jax.numpy as jnp
    >>> family = TaskFamily(
    ...     sample=lambda random, outer_split: {"target": random.normal(size=3).astype(np.float32)},
    ...     init=lambda key: {"w": jnp.zeros(3)},
    ...     batch=lambda data, key, split: data["target"],
    ...     loss=lambda w, batch: 0.5 * jnp.sum((w["w"] - batch) ** 2),
    ... )
    >>> data = family.sample(np.random.default_rng(0), "outer_train")
    >>> w = family.init(jax.random.key(0))
    >>> batch = family.batch(data, jax.random.key(1), "train")
    >>> gradient = jax.grad(family.loss)(w, batch)["w"]
    >>> bool(jnp.allclose(gradient, -data["target"]))
    True

    `task.family = "module:function"` in a configuration names a function that returns one, given the `Config`
    (docs/own_task.py). Most users need `outertrain.Task` only, which makes one of a model, its loss and its data.
    """

    sample: Callable[[np.random.Generator, str], Any]
    init: Callable[[jax.Array], Any]
    batch: Callable[[Any, jax.Array, str], Any]
    loss: Callable[..., Any]
    accuracy: Callable[..., jax.Array] | None = None
    state: Callable[[jax.Array], Any] | None = None
    fitted: Callable[[Any, Any], Any] | None = None
    fingerprint: str = ""
    classes: int = 0
    lower_bound: float = 0.0

    def initial(self, data: Any, w: Any) -> Any:
        """The initial weights of a task, from those of `init`."""
        return w if self.fitted is None else self.fitted(data, w)

    def loss_of(self, w: Any, batch: Any, state: Any) -> jax.Array:
        """The loss [] alone, of families with and without model state."""
        return self.loss(w, batch) if self.state is None else self.loss(w, batch, state)[0]

    def accuracy_of(self, w: Any, batch: Any, state: Any) -> jax.Array:
        """The fraction of correct predictions [], of families with and without model state."""
        assert self.accuracy is not None
        return self.accuracy(w, batch) if self.state is None else self.accuracy(w, batch, state)
