"""`outertrain.Task`: a model in the user's own framework, its loss and its data, as a `TaskFamily`."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, update_wrapper
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from common.config import Config
from common.errors import UserError
from common.own_task.rows import open_rows
from common.own_task.signature import parameters
from common.own_task.source import place
from common.task_family import TaskFamily, counted_from

OPTIONAL = ("key", "state")  # what a loss may take after params and batch, by name


@dataclass(frozen=True)
class Task:
    """A model, its loss and its data. `[task] family = "module:name"` in a configuration names one.

    Attributes:
      init: (key) -> params, a pytree of any structure, such as that of flax, haiku or equinox. Floating-point arrays are
        trained; leaves that are no arrays (functions, Python numbers) are constants. Models with state, such as the running
        statistics of batch normalization, return (params, state).
      loss: (params, batch) -> scalar, the mean over the batch. It may take two more arguments by name: `key`, random for a
        training batch and None in evaluation, where dropout is off and running statistics are used; and `state`, with
        which it returns (scalar, next state).
      data: arrays with one row per example, as a pytree such as {"x": x, "y": y}; the path of an `.npz` file of such
        arrays; or a function (random: numpy.random.Generator) -> such a pytree, called for each task. A batch has the
        structure of the data, with `task.batch_size` rows drawn at random. `common.own_task.rows` says how rows are split.
      accuracy: (params, batch) -> fraction of correct predictions, with `state` if the loss has it; None: not measured.
      lower_bound: what the loss is never below. Losses are clamped from above only, so they are trained and reported as the
        difference from it.

    A linear regression:

    >>> import numpy as np, jax.numpy as jnp
    >>> x = np.random.default_rng(0).normal(size=(100, 3))
    >>> task = Task(
    ...     init=lambda key: {"w": jnp.zeros(3)},
    ...     loss=lambda params, batch: jnp.mean((batch["x"] @ params["w"] - batch["y"]) ** 2),
    ...     data={"x": x, "y": x.sum(axis=1)},
    ... )
    """

    init: Callable[[jax.Array], Any]
    loss: Callable[..., Any]
    data: Any
    accuracy: Callable[..., Any] | None = None
    lower_bound: float = 0.0

    def family(self, config: Config) -> TaskFamily:
        """The task family of the unroll engine. Raises UserError where a signature or the data cannot be used."""
        arguments = loss_arguments(self.loss)
        _check_init(self.init)
        rows, model = open_rows(self.data, config.dataset.seed), Model(self.init, stateful="state" in arguments)
        calls = Calls(self, model, arguments)
        return TaskFamily(
            sample=rows.task,
            init=_named(model.params, self.init),
            batch=partial(minibatch, size=config.task.batch_size, keyed="key" in arguments),
            loss=_named(calls.loss_with_state if model.stateful else calls.loss, self.loss),
            accuracy=None if self.accuracy is None else _named(calls.accuracy, self.accuracy),
            state=_named(model.state, self.init) if model.stateful else None,
            fingerprint=rows.fingerprint,
        )


class Minibatch(NamedTuple):
    """Rows of the data, and the key of the loss's random numbers."""

    rows: Any  # as the data, [batch_size, ...]
    key: jax.Array | None  # None in evaluation, and where the loss takes no key


def minibatch(data: dict[str, Any], key: jax.Array, split: str, *, size: int, keyed: bool) -> Minibatch:
    """A random minibatch of an inner split, drawn with replacement."""
    arrays = data[split]
    rows = jax.random.randint(key, (size,), 0, len(jax.tree.leaves(arrays)[0]))
    own = jax.random.fold_in(key, 1) if keyed and split == "train" else None
    return Minibatch(jax.tree.map(lambda x: x[rows], arrays), own)


class Model(NamedTuple):
    """`Task.init`, with the leaves that are trained apart from those that are constants."""

    init: Callable[[jax.Array], Any]
    stateful: bool

    def params(self, key: jax.Array) -> Any:
        """The params, with None in the place of each constant."""
        leaves, tree = jax.tree.flatten(self._initial(key)[0])
        return jax.tree.unflatten(tree, [leaf if is_array(leaf) else None for leaf in leaves])

    def state(self, key: jax.Array) -> Any:
        """The model state, a pytree of arrays."""
        return jax.tree.map(jnp.asarray, self._initial(key)[1])

    def whole(self, params: Any) -> Any:
        """The params of `params` with their constants, as the user's functions take them."""
        leaves: list[Any] = []
        tree: Any = None

        def constants(key: jax.Array) -> list[jax.Array]:
            nonlocal leaves, tree
            leaves, tree = jax.tree.flatten(self._initial(key)[0])
            return [leaf for leaf in leaves if is_array(leaf)]

        jax.eval_shape(constants, jax.random.key(0))  # computes nothing
        values = tree.flatten_up_to(params)
        return jax.tree.unflatten(tree, [v if is_array(leaf) else leaf for leaf, v in zip(leaves, values)])

    def _initial(self, key: jax.Array) -> tuple[Any, Any]:
        made = self.init(key)
        if not self.stateful:
            return made, ()
        if not (isinstance(made, tuple) and len(made) == 2):
            raise UserError(
                f"init must return (params, state), because the loss takes a state, and returned {type(made).__name__} "
                f"({place(self.init)})"
            )
        return made


class Calls(NamedTuple):
    """Calls of the user's functions, in the form of those of a `TaskFamily`."""

    task: Task
    model: Model
    arguments: tuple[str, ...]  # of the loss, besides params and batch

    def loss(self, w: Any, batch: Minibatch) -> jax.Array:
        return self._shifted(self.task.loss(self.model.whole(w), batch.rows, **self._extra(batch, None)))

    def loss_with_state(self, w: Any, batch: Minibatch, state: Any) -> tuple[jax.Array, Any]:
        found = self.task.loss(self.model.whole(w), batch.rows, **self._extra(batch, state))
        if not (isinstance(found, tuple) and len(found) == 2):
            raise UserError(f"a loss that takes a state must return (loss, next state) ({place(self.task.loss)})")
        return self._shifted(found[0]), jax.tree.map(jnp.asarray, found[1])

    def accuracy(self, w: Any, batch: Minibatch, state: Any = None) -> jax.Array:
        assert self.task.accuracy is not None
        extra = {"state": state} if self.model.stateful else {}
        return jnp.asarray(self.task.accuracy(self.model.whole(w), batch.rows, **extra))

    def _extra(self, batch: Minibatch, state: Any) -> dict[str, Any]:
        values = {"key": batch.key, "state": state}
        return {name: values[name] for name in self.arguments}

    def _shifted(self, loss: Any) -> Any:
        return counted_from(self.task.lower_bound, loss) if self.task.lower_bound else loss


def _named(function: Callable[..., Any], own: Callable[..., Any]) -> Callable[..., Any]:
    """The function as a wrapper of the user's own, which `inspect.unwrap` finds."""
    return update_wrapper(partial(function), own)


def is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)


def loss_arguments(loss: Callable[..., Any]) -> tuple[str, ...]:
    """Which of `OPTIONAL` a loss takes. Raises UserError for another signature."""
    required, optional = _parameters(loss, "loss")
    extra = [name for name in required[2:] if name not in OPTIONAL]
    if len(required) + len(optional) < 2 or extra:
        raise UserError(
            f"loss must take (params, batch), and may take key and state by these names; it takes "
            f"({', '.join((*required, *optional))}) ({place(loss)})"
        )
    return tuple(name for name in OPTIONAL if name in (*required[2:], *optional))


def _check_init(init: Callable[..., Any]) -> None:
    required, optional = _parameters(init, "init")
    if len(required) > 1 or not (required or optional):
        raise UserError(f"init must take one argument, a key; it takes ({', '.join(required)}) ({place(init)})")


def _parameters(function: Callable[..., Any], name: str) -> tuple[list[str], list[str]]:
    """The names of a function's parameters: those without a default value, and those with one."""
    named = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found = [p for p in parameters(function, name) if p.kind in named]
    return [p.name for p in found if p.default is p.empty], [p.name for p in found if p.default is not p.empty]
