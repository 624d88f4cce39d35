"""One step of a user's task, before workers start: finds what is wrong with it and says where.

Everything is called as the unroll engine calls it, but traced only, except for the loss and its gradient at the initial
weights on one batch.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from common.config import Config
from common.errors import UserError
from common.own_task.rows import Rows, count, keys_of
from common.own_task.source import place, place_of_error
from common.task_family import SPLITS, TaskFamily

VALUE_IN_PYTHON = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError)


class Subject(NamedTuple):
    """A task family, and what names it in messages."""

    name: str  # `task.family` of the configuration
    family: TaskFamily
    batch_size: int


def check(subject: Subject, random: np.random.Generator) -> str:
    """Returns a sentence about the task.

    Raises:
      UserError: a function fails, or returns what outer-training cannot use.
    """
    family, (first, w_key, batch_key) = subject.family, (jax.random.key(k) for k in range(3))
    data = _sampled(subject, random)
    with explained(subject, family.init, "init"):
        w = jax.eval_shape(family.init, first)
    _check_weights(subject, w)
    state = None
    if family.state is not None:
        with explained(subject, family.state, "init"):
            state = jax.eval_shape(family.state, first)
    for split in SPLITS:
        with explained(subject, family.batch, "batch"):
            batch = jax.eval_shape(lambda data, key, split=split: family.batch(data, key, split), data, batch_key)
        keyless = split != "train" and getattr(batch, "key", batch) is None
        name = "loss, called without a key as in evaluation," if keyless else "loss"
        with explained(subject, family.loss, name, batch):
            loss = jax.eval_shape(family.loss, w, batch, *([] if state is None else [state]))
        _check_loss(subject, loss, state)
        if family.accuracy is not None and split == "test":
            with explained(subject, family.accuracy, "accuracy", batch):
                jax.eval_shape(lambda w, batch, state: family.accuracy_of(w, batch, state), w, batch, state)
    with explained(subject, family.loss, "loss"):
        value, gradient = jax.jit(_first_loss, static_argnums=0)(family, data, w_key, batch_key)
    _check_values(subject, float(value), gradient)
    leaves = jax.tree.leaves(w)
    return (
        f"{subject.name}: {sum(leaf.size for leaf in leaves)} parameters in {len(leaves)} arrays; {_rows(family, data)}"
    )


def _first_loss(family: TaskFamily, data: Any, w_key: jax.Array, batch_key: jax.Array) -> tuple[jax.Array, Any]:
    batch, state = family.batch(data, batch_key, "train"), None if family.state is None else family.state(w_key)
    return jax.value_and_grad(lambda w: family.loss_of(w, batch, state))(family.init(w_key))


def _sampled(subject: Subject, random: np.random.Generator) -> Any:
    """The data of one task of outer-training, after those of others were compared with it."""
    drawn = []
    for outer_split in ("outer_train", "outer_train", "outer_test"):
        with explained(subject, subject.family.sample, "the data"):
            drawn.append(subject.family.sample(random, outer_split))
    first, *others = (jax.tree_util.tree_map_with_path(_shape, data) for data in drawn)
    for other in others:
        if other != first:
            raise UserError(
                f"{subject.name}: the data of two tasks differ in structure, shapes or dtypes ({_difference(first, other)}): "
                "every task needs the same, because functions are compiled once"
            )
    return jax.tree.map(np.asarray, drawn[0])


def _shape(path: Any, leaf: Any) -> str:
    return f"{jax.tree_util.keystr(path)} {np.shape(leaf)} {np.asarray(leaf).dtype}"


def _difference(first: Any, other: Any) -> str:
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(other))
    return next((f"{a}, then {b}" for a, b in pairs if a != b), "another structure")


def _check_weights(subject: Subject, w: Any) -> None:
    leaves = jax.tree_util.tree_flatten_with_path(w)[0]
    if not leaves:
        raise UserError(
            f"{subject.name}: init returns no array, so there is nothing to train ({place(subject.family.init)})"
        )
    for path, leaf in leaves:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise UserError(
                f"{subject.name}: the parameter {jax.tree_util.keystr(path)} has dtype {leaf.dtype}, but only real "
                f"floating-point arrays can be trained: convert it, or keep it out of what init returns "
                f"({place(subject.family.init)})"
            )


def _check_loss(subject: Subject, found: Any, state: Any) -> None:
    at = place(subject.family.loss)
    if state is not None and not (isinstance(found, tuple | list) and len(found) == 2):
        raise UserError(f"{subject.name}: the loss of a model with state must return (loss, next state) ({at})")
    loss, after = found if state is not None else (found, None)
    if not isinstance(loss, jax.ShapeDtypeStruct):
        raise UserError(
            f"{subject.name}: the loss is {'None' if loss is None else f'a {type(loss).__name__}'}, but a floating-point "
            f"scalar is needed: return it, alone unless the loss takes a state ({at})"
        )
    if loss.shape != () or not jnp.issubdtype(loss.dtype, jnp.floating):
        raise UserError(
            f"{subject.name}: the loss is {loss.dtype} of shape {loss.shape}, but a floating-point scalar of shape () is "
            f"needed: return the mean over the batch, such as jnp.mean(losses) ({at})"
        )
    before, after = (jax.tree_util.tree_map_with_path(lambda p, x: _shape_of(p, x), tree) for tree in (state, after))
    if before != after:
        raise UserError(
            f"{subject.name}: the model state changes its structure, shapes or dtypes ({_difference(before, after)}): the "
            f"loss must return a state like the one that init returns ({at})"
        )


def _shape_of(path: Any, leaf: Any) -> str:
    return f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}"


def _check_values(subject: Subject, loss: float, gradient: Any) -> None:
    at = place(subject.family.loss)
    if not np.isfinite(loss):
        raise UserError(
            f"{subject.name}: the loss is {loss} at the initial weights: check the scale of init and of the data, and "
            f"logarithms and divisions in the loss ({at})"
        )
    if loss < 0:
        raise UserError(
            f"{subject.name}: the loss is {loss:.4g} at the initial weights, but losses must not be negative, because they "
            f"are clamped from above only: declare what it is never below with outertrain.Task(lower_bound=...), or add a "
            f"constant to it ({at})"
        )
    for path, leaf in jax.tree_util.tree_flatten_with_path(gradient)[0]:
        if not np.isfinite(np.asarray(leaf, np.float32)).all():
            raise UserError(
                f"{subject.name}: the gradient with respect to {jax.tree_util.keystr(path)} is not finite at the initial "
                f"weights, although the loss is: square roots and norms have infinite derivatives at 0 ({at})"
            )


@contextmanager
def explained(subject: Subject, function: Callable[..., Any], name: str, batch: Any = None) -> Iterator[None]:
    """Turns whatever the user's code raises into a UserError with the line that raised it."""
    try:
        yield
    except UserError as error:
        raise UserError(_named(subject.name, str(error))) from None
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        at = place_of_error(error) or place(function)
        raise UserError(f"{subject.name}: {name} fails: {_reason(error, batch)} ({at})") from error


def _named(name: str, sentence: str) -> str:
    return sentence if sentence.startswith(name) else f"{name}: {sentence}"


def _reason(error: BaseException, batch: Any) -> str:
    """The first line of an error, and what to do about the usual ones."""
    if isinstance(error, KeyError) and (known := keys_of(getattr(batch, "rows", batch))):
        return f"there is no key {error}; the batch has the keys {known}"
    if isinstance(error, VALUE_IN_PYTHON):
        return (
            "it depends on the value of an array in Python, which is not known when it is compiled: use jnp.where or "
            "jax.lax.cond instead of if, and jnp instead of NumPy"
        )
    text = re.sub(r"\s+", " ", str(error).strip().split("\n\n")[0])[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _rows(family: TaskFamily, data: Any) -> str:
    """The data of a task and their splits in words."""
    rows = getattr(family.sample, "__self__", None)
    if not isinstance(rows, Rows):
        return "the family samples and splits its data itself"
    parts = ", ".join(f"{count(data[split])} {split}" for split in SPLITS)
    return f"{rows.source}; each task divides its rows at random into {parts}"


def check_config(config: Config) -> str:
    """`check` for the task family of a configuration; "" for the families that are included."""
    if ":" not in config.task.family:
        return ""
    from common.task import make_task

    return check(Subject(config.task.family, make_task(config, None), config.task.batch_size), np.random.default_rng(0))
