"""The outer optimizer: clipping in float64, then any optax optimizer, named in the configuration."""

import difflib
import inspect
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from common import checkpoint
from common.config import OuterConfig
from common.errors import UserError


class Step(NamedTuple):
    """What one outer update did."""

    theta: np.ndarray  # [P] float32
    outer: Any  # the optax state
    gradient_norm: float  # before clipping
    clipped: float  # fraction of coordinates that clipping changed
    update_norm: float
    rejected: bool  # the step left the range of float32: theta and the optax state are unchanged


def optimizer(config: OuterConfig) -> optax.GradientTransformation:
    """The optax optimizer of the configuration; clipping is not part of it.

    Raises:
      UserError: the optimizer does not exist (the nearest name is suggested), does not have such an option, rejects its
      value, or needs more than a gradient.
    """
    factory = _factory(config.optimizer)
    known = [name for name in inspect.signature(factory).parameters if name != "learning_rate"]
    for name in config.options:
        if name not in known:
            raise UserError(
                f"outer.options.{name} is not an option of optax.{config.optimizer}: {_nearest(name, known)}"
            )
    try:
        chosen = factory(learning_rate=_schedule(config), **config.options)
        _try_out(chosen)
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"optax.{config.optimizer} does not work with outer.options = {dict(config.options)!r} ({str(error).splitlines()[0] if str(error) else type(error).__name__}): correct outer.options or choose another outer.optimizer"
        ) from None
    return chosen


def _factory(name: str) -> Any:
    names = [n for n in dir(optax) if _is_optimizer(n)]
    if name not in names:
        raise UserError(f"outer.optimizer = {name!r} is not an optimizer of optax: {_nearest(name, names)}")
    return getattr(optax, name)


def _is_optimizer(name: str) -> bool:
    found = getattr(optax, name)
    plain = inspect.isfunction(found) or isinstance(found, partial)  # optax.nadam is a partial
    return plain and "learning_rate" in inspect.signature(found).parameters


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"use one of {', '.join(known)}"


def _schedule(config: OuterConfig) -> Any:
    if config.schedule == "cosine":
        return optax.cosine_decay_schedule(config.learning_rate, config.updates)
    return config.learning_rate


def _try_out(chosen: optax.GradientTransformation) -> None:
    """An abstract step, which computes nothing: finds errors that the factory does not, such as a wrong type."""
    theta = jax.ShapeDtypeStruct((2,), np.float32)
    state = jax.eval_shape(chosen.init, theta)
    for leaf in jax.tree.leaves(state):
        if not checkpoint.holds(leaf.dtype):
            raise TypeError(f"its state has an array of {leaf.dtype}, which a checkpoint cannot hold")
    jax.eval_shape(chosen.update, theta, state, theta)


class OuterOptimizer:
    """Clipping and an optax optimizer over one flat theta, compiled once, on the CPU."""

    def __init__(self, config: OuterConfig) -> None:
        self._clip, self._limit = config.clip, config.clip_value
        self._optax = optimizer(config)
        self._device = jax.local_devices(backend="cpu")[0]
        self._step = jax.jit(self._move)

    def _move(self, gradient: jax.Array, outer: Any, theta: jax.Array) -> tuple[jax.Array, Any]:
        update, outer = self._optax.update(gradient, outer, theta)
        return optax.apply_updates(theta, update), outer

    def init(self, theta: np.ndarray) -> Any:
        """The optax state for theta [P]."""
        with jax.default_device(self._device):
            return _host(self._optax.init(np.asarray(theta, np.float32)))

    def step(self, gradient: np.ndarray, outer: Any, theta: np.ndarray) -> Step:
        """One step from theta [P] float32 along `gradient` [P] float64, finite."""
        clipped, fraction = clip(gradient, self._clip, self._limit)
        with np.errstate(over="ignore"), jax.default_device(self._device):
            moved, state = _host(self._step(clipped.astype(np.float32), outer, theta))
        finite = all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((moved, state)))
        if not finite:
            moved, state = theta, outer
        return Step(
            moved, state, norm(gradient), fraction, norm(np.subtract(moved, theta, dtype=np.float64)), not finite
        )


def _host(tree: Any) -> Any:
    return jax.tree.map(np.asarray, tree)


def norm(vector: np.ndarray) -> float:
    """Euclidean norm, without intermediate overflow: infinite only if the norm itself is beyond float64."""
    largest = float(np.abs(vector).max(initial=0.0))
    return largest * float(np.sqrt(np.square(vector / largest).sum())) if largest > 0 else 0.0


def clip(gradient: np.ndarray, how: str, limit: float) -> tuple[np.ndarray, float]:
    """`gradient` [P] clipped by `how`, and the fraction of coordinates that this changed.

    Args:
      how: "none", "elementwise" (each coordinate to -limit .. limit) or "global_norm" (the whole to a norm of `limit`).
    """
    if how == "elementwise":
        return np.clip(gradient, -limit, limit), float((np.abs(gradient) > limit).mean())
    length = norm(gradient)
    if how == "none" or length <= limit:
        return gradient, 0.0
    largest = np.abs(gradient).max()
    scaled = gradient / largest
    return scaled * (limit / norm(scaled)), 1.0


def leaves(outer: Any) -> list[np.ndarray]:
    """The optax state as a list of arrays, for a checkpoint."""
    return [np.asarray(leaf) for leaf in jax.tree.leaves(outer)]


def structure(outer: Any) -> str:
    """Of which records of optax the state consists: the arrays of some optimizers differ in nothing else."""
    return str(jax.tree.structure(outer))


def at_version(outer: Any, version: int) -> Any:
    """An initial optax state whose schedule of the rate is that of this version."""

    def moved(part: Any) -> Any:
        return part._replace(count=np.asarray(version, part.count.dtype)) if scheduled(part) else part

    def scheduled(part: Any) -> bool:
        return isinstance(part, optax.ScaleByScheduleState)

    return jax.tree.map(moved, outer, is_leaf=scheduled)


def from_leaves(arrays: list[np.ndarray], like: Any) -> Any | None:
    """The optax state of the structure `like`; None when there are other arrays than it has."""
    expected = jax.tree.leaves(like)
    same = len(arrays) == len(expected) and all(
        a.shape == np.shape(e) and a.dtype == np.asarray(e).dtype for a, e in zip(arrays, expected, strict=False)
    )
    return jax.tree.unflatten(jax.tree.structure(like), arrays) if same else None
