"""A learned rule for one tensor as an optax transformation of any parameters.

Needs jax and optax only: `outertrain export` writes this source together with that of a family.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from common.optimizer.leaves import _bounded, _check, _is_none, _wide

PROGRESS = 1000.0  # steps that a whole training counts as, where a rule sees how much of it is done


class RuleState(NamedTuple):
    """The optimizer's state."""

    step: jax.Array  # [] int32, updates so far
    tensors: Any  # for each leaf of the parameters its moving averages, in float32 or wider
    total: Any = ()  # [] int32, steps of the whole training, of a rule that sees how much of it is done; () else


class Rule(NamedTuple):
    """The update of one tensor. All arrays have the dtype of the averages."""

    start: Callable[[jax.Array], Any]  # zeros of the shape of a tensor -> its averages before the first update
    update: Callable[..., tuple[jax.Array, Any]]  # (g, w, averages, step) -> (change of w, averages)
    largest: float  # absolute value that finite gradients are clipped to


def per_tensor(rule: Rule, total_steps: int | None = None) -> optax.GradientTransformationExtraArgs:
    """The transformation that applies a rule to each leaf.

    Args:
      total_steps: of a training. With it, the rule's time is the fraction of the training that is done, in thousandths;
        None: the step.

    Raises:
      ValueError: `total_steps` is below one.

    `update` raises ValueError without `params`, or where the shapes of a gradient and its parameter differ; `init` and
    `update` raise TypeError at leaves that are not real floating-point numbers.
    """

    # The value of a jax.Array may be unknown: it may be traced.
    if total_steps is not None and not isinstance(total_steps, jax.Array) and total_steps < 1:
        raise ValueError(f"total_steps = {total_steps}: a training has at least one step")

    def init_fn(params: Any) -> RuleState:
        def start(w: Any) -> Any:
            return rule.start(jnp.zeros_like(w, dtype=_wide(w)))

        total = () if total_steps is None else jnp.asarray(total_steps, jnp.int32)
        return RuleState(jnp.zeros((), jnp.int32), jax.tree.map(start, params), total)

    def leaf_update(gradient: Any, w: Any, averages: Any, step: jax.Array) -> tuple[Any, Any]:
        gradient, w = jnp.asarray(gradient), jnp.asarray(w)
        averages = jax.tree.map(jnp.asarray, averages)
        _check(gradient, w)
        if not gradient.size:
            return gradient, averages  # a mean over no numbers is NaN
        dtype = jax.tree.leaves(averages)[0].dtype
        g = _bounded(gradient.astype(dtype), rule.largest)
        change, averages = rule.update(g, w.astype(dtype), averages, step)
        return change.astype(gradient.dtype), averages

    def update_fn(updates: Any, state: RuleState, params: Any = None, **_: Any) -> tuple[Any, RuleState]:
        if params is None:
            raise ValueError("the learned optimizer needs the parameters: call update(grads, state, params)")
        tree: Any
        gradients, tree = jax.tree.flatten(updates, is_leaf=_is_none)
        rows = zip(gradients, *(tree.flatten_up_to(x) for x in (params, state.tensors)), strict=True)
        step = jnp.asarray(state.step, jnp.int32)
        time = step if total_steps is None else step.astype(jnp.float32) * (PROGRESS / state.total)
        new = [(g, averages) if g is None else leaf_update(g, w, averages, time) for g, w, averages in rows]
        changes, tensors = (tree.unflatten([row[k] for row in new]) for k in range(2))
        after = jnp.where(step < jnp.iinfo(jnp.int32).max, step + 1, step)
        return changes, RuleState(after, tensors, state.total)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def average(old: jax.Array, new: jax.Array, decays: jax.Array) -> jax.Array:
    """[k, ...]: moving averages of `new` [1, ...] at k decays, d old + (1 - d) new."""
    decays = decays.astype(new.dtype).reshape(-1, *(1,) * (new.ndim - 1))
    return decays * old + (1 - decays) * new


def configured(
    tx: optax.GradientTransformation,
    rate: optax.ScalarOrSchedule,
    weight_decay: float = 0.0,
    rest: optax.GradientTransformation | None = None,
) -> optax.GradientTransformationExtraArgs:
    """tx with the update w <- w + rate (change - weight_decay w), and `rest` for tensors of rank below two.

    Args:
      rate: a number or a schedule of optax.
      weight_decay: decoupled, as in AdamW.
      rest: a whole optimizer, with a rate of its own; None: tx updates all tensors.
    """
    whole = optax.chain(
        tx, optax.add_decayed_weights(-weight_decay), optax.scale_by_learning_rate(rate, flip_sign=False)
    )
    if rest is None:
        return optax.with_extra_args_support(whole)

    def kinds(params: Any) -> Any:
        return jax.tree.map(lambda w: "learned" if len(jnp.shape(w)) > 1 else "rest", params)

    return optax.multi_transform({"learned": whole, "rest": rest}, kinds)
