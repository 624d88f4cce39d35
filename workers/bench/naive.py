"""Reference implementation: inner steps in plain JAX and optax."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from common.config import TaskConfig
from common.task import TaskFamily
from workers.inner_step import Problem, inner_batch


def loss(strides: tuple[int, ...], image_shape: tuple[int, int, int], w: dict[str, jax.Array], batch: Any) -> jax.Array:
    """The classifier of common.networks.conv with XLA's convolution, images [B, H, W, C]."""
    images, labels = batch
    x = images.reshape(-1, *image_shape).astype(jnp.float32) / 127.5 - 1
    for i, stride in enumerate(strides):
        kernel, bias = w[f"conv{i}/kernel"], w[f"conv{i}/bias"]
        layout = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=layout)
        x = jax.nn.relu(x + bias[None, None, None, :])
    logits = x.mean((1, 2)) @ w["linear/kernel"] + w["linear/bias"][None, :]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def naive_task(task: TaskFamily, config: TaskConfig, image_shape: tuple[int, int, int]) -> TaskFamily:
    """`task` with this loss."""
    return task._replace(loss=partial(loss, config.strides, image_shape))


def step(task: TaskFamily, optimizer: optax.GradientTransformation, problem: Problem, carry: Any, t: jax.Array) -> Any:
    """One inner step: ((w, optimizer state), t) -> the same after it, and the loss before it."""
    w, state = carry
    value, gradient = jax.value_and_grad(task.loss)(w, inner_batch(task, problem, t))
    updates, state = optimizer.update(gradient, state, w)
    return (optax.apply_updates(w, updates), state), value


def looped(task: TaskFamily, optimizer: optax.GradientTransformation, problem: Problem, steps: int) -> Callable:
    """w -> losses [steps], each before its step: a Python loop over one jitted step."""
    one = jax.jit(partial(step, task, optimizer))

    def run(w: Any) -> jax.Array:
        carry, losses = (w, optimizer.init(w)), []
        for t in range(steps):
            carry, value = one(problem, carry, t)
            losses.append(value)
        return jnp.stack(losses).block_until_ready()

    return run
