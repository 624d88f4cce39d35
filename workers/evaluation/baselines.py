"""The hand-designed optimizers that a learned one is compared with, as families whose theta are hyper-parameters.

`adam`, `rmsprop` and `sgd` (with momentum) are the paper's (section 4.4): theta is their learning rate. The strong ones
are optax's, with theta = [log learning rate, decoupled weight decay, whether the schedule is on]: one compiled unroll
serves all settings of a grid. The schedule warms up linearly over 5 % of the steps, then follows half a cosine to zero;
that of Schedule-Free only warms up. A user's own is a function from a learning rate to an optax transformation.
"""

import re
from collections.abc import Callable
from math import log
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax.contrib import MuonDimensionNumbers, muon, schedule_free_adamw, schedule_free_eval_params

from common import configfile
from common.config.system import STRONG
from common.errors import UserError
from common.optimizer import Family, make_family
from common.optimizer.hand_designed import in_float32
from common.user_code import load_function
from workers.evaluation.tuning import CONSTANT, Setting

MOMENTUM = 0.9  # of sgd
WARM_UP = 0.05  # fraction of the steps
TIMED = Setting(0.001)  # a step takes as long at every setting that does not diverge
Schedule = Callable[[Any], Any]


def family(name: str, steps: int = 1) -> Family:
    """Args: steps: of the inner problem, over which schedules extend."""
    if ":" in name:
        return _user_family(name)
    if name not in STRONG:
        return make_family(configfile.from_dict({"optimizer": {"family": name}}).optimizer)

    def make(theta: jax.Array) -> optax.GradientTransformation:
        return strong(name, steps, theta)

    evaluated = schedule_free_eval_params if name == "schedule_free_adamw" else None
    start = jnp.array([log(0.001), 0.0, 0.0], jnp.float32)
    return Family(lambda key: start, in_float32(make), ((3,),), evaluated)


def theta(name: str, setting: Setting) -> np.ndarray:
    """The parameters [P] float32 of a baseline at a setting."""
    rate = setting.rate
    if rate is None:
        raise ValueError(f"{name}: a job needs a theta or a rate")
    if name == "sgd":
        return np.array([rate, MOMENTUM], np.float32)
    if name in STRONG:
        return np.array([log(rate), setting.decay, setting.schedule != CONSTANT], np.float32)
    return np.array([log(rate)], np.float32)


def warm_up_steps(steps: int) -> int:
    return max(1, round(WARM_UP * steps))


def cosine(steps: int) -> Schedule:
    """Warm-up and cosine to zero, of peak 1."""
    warm_up = warm_up_steps(steps)
    schedule: Schedule = optax.warmup_cosine_decay_schedule(0.0, 1.0, warm_up, max(steps, warm_up + 1))
    return schedule


def strong(name: str, steps: int, theta: jax.Array) -> optax.GradientTransformation:
    """One of optax's optimizers at theta [3]."""
    rate, decay, scheduled = jnp.exp(theta[0]), theta[1], theta[2]
    shape = cosine(steps)

    def schedule(step: Any) -> Any:
        return rate * jnp.where(scheduled > 0, shape(step), 1.0)

    if name == "schedule_free_adamw":
        return schedule_free_adamw(rate, warmup_steps=warm_up_steps(steps), weight_decay=decay)
    if name == "muon":
        return muon_of_kernels(schedule, decay)
    make = {"adamw": optax.adamw, "nadamw": optax.nadamw, "lion": optax.lion}[name]
    return make(schedule, weight_decay=decay)


def muon_of_kernels(rate: Schedule, decay: jax.Array) -> optax.GradientTransformation:
    """Muon for the leaves of `matrix_dimensions`; these follow from all weights, of which optax shows Muon a part."""

    def made(w: Any) -> optax.GradientTransformation:
        numbers = matrix_dimensions(w)
        return muon(rate, weight_decay=decay, adam_weight_decay=decay, muon_weight_dimension_numbers=numbers)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        result: tuple[Any, Any] = made(params).update(updates, state, params)
        return result

    return optax.GradientTransformation(lambda w: made(w).init(w), update)


def matrix_dimensions(w: Any) -> Any:
    """Which leaves Muon treats as matrices: all kernels but the last one's by name, convolutions as [9 C, O].

    The others, None here, are trained by AdamW. A kernel has its outputs on the last axis, but for the dense networks
    of `common.networks.dense`, whose kernels are [out, in].
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(w)
    kernels = sorted((k for k, (_, leaf) in enumerate(leaves) if leaf.ndim >= 2), key=lambda k: _natural(leaves[k][0]))
    found: list[MuonDimensionNumbers | None] = [None] * len(leaves)
    for k in kernels[:-1]:
        path, leaf = leaves[k]
        if leaf.ndim == 2 and re.search(r"dense\d+_kernel", jax.tree_util.keystr(path)):
            found[k] = MuonDimensionNumbers(reduction_axis=1, output_axis=0)
        else:
            found[k] = MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1)
    return jax.tree.unflatten(tree, found)


def _natural(path: Any) -> list[str | int]:
    """A key that sorts layer 2 before layer 10; JAX sorts the names of a dictionary as text."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", jax.tree_util.keystr(path))]


def _user_family(name: str) -> Family:
    """The family of a user's function, theta = [log learning rate].

    Raises:
      UserError: it cannot be loaded, fails, or returns something else than an optax transformation.
    """
    function = load_function("evaluation.baselines", name, "an optax transformation for a learning rate")

    def make(theta: jax.Array) -> optax.GradientTransformation:
        try:
            made = function(jnp.exp(theta[0]))
        except (Exception, SystemExit) as error:  # whatever the user's code raises
            raise UserError(
                f"evaluation.baselines: {name} failed for a learning rate ({type(error).__name__}: {error}): it must return "
                "an optax transformation, and must not depend on the rate's value in Python"
            ) from error
        if not isinstance(made, optax.GradientTransformation):
            raise UserError(
                f"evaluation.baselines: {name} returned {type(made).__name__}, not an optax transformation: "
                "return one, such as optax.adam(rate)"
            )
        return made

    def state(theta: jax.Array) -> Any:
        return make(theta).init(jnp.zeros(1))

    jax.eval_shape(state, jnp.zeros(1))  # fails here, as it would in a worker's trace
    slow, fast = (jax.tree.leaves(state(jnp.full(1, x))) for x in (-1.0, 0.0))
    if not all(np.array_equal(a, b) for a, b in zip(slow, fast)):
        raise UserError(
            f"evaluation.baselines: {name} keeps the learning rate in its state (as optax.inject_hyperparams does), where "
            "tuning cannot change it: use the rate in the transformation itself"
        )
    return Family(lambda key: jnp.full(1, log(0.001)), in_float32(make), ((1,),))
